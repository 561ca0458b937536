"""What PyTorch computes when a part of a tiny model is trained, chosen and expanded by LLaMA-Factory's own code.

    .venv/bin/python tests/external/partial.py --llamafactory lf/llamafactory-0.9.5 [NAME...]

writes `fixtures/training/NAME` in the form of `/fixtures/README.md`, which `cargo xtask fixtures fixtures/training` compares
with. Of LLaMA-Factory three functions run as they are: `_setup_freeze_tuning` (which tensors `finetuning_type: freeze`
trains), `find_expanded_modules` (which modules get an adapter with `use_llama_pro`) and `block_expansion` of
`scripts/llama_pro.py`. What Luthier adds of its own is written here in a line each: every k-th layer, and the biases alone
(BitFit). With `--luthier BINARY` every model of the fixtures that transformers knows is expanded by `luthier expand` besides,
and both sides' logits are compared in transformers. The loop is that of the other fixtures: AdamW, two linear warm-up steps and a cosine, ten steps of two parts,
clipped at a norm of 1, float32, one thread, seed 0. torch 2.11.0, transformers 5.6.0, peft 0.18.1.
"""

import argparse
import ast
import collections
import copy
import json
import math
import os
import re
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import peft
import torch
import transformers
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
STEPS, PARTS = 10, 2
OPTIMISER = {
    "learning_rate": 5e-3,
    "weight_decay": 0.01,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "warmup_steps": 2,
    "lr_scheduler_type": "cosine",
    "optimizer_steps": STEPS,
    "gradient_accumulation_steps": PARTS,
}
FREEZE = {"finetuning_type": "freeze", "freeze_trainable_layers": 2, "freeze_trainable_modules": ["all"],
          "freeze_extra_modules": [], "use_llama_pro": False}
CASES = {
    "freeze-extra-llama": ("llama", FREEZE | {"freeze_trainable_layers": 1, "freeze_trainable_modules": ["mlp"],
                                              "freeze_extra_modules": ["norm", "lm_head"]}),
    "freeze-first-qwen2": ("qwen2", FREEZE | {"freeze_trainable_layers": -1,
                                              "freeze_trainable_modules": ["self_attn", "input_layernorm"]}),
    "freeze-every-llama": ("llama", FREEZE | {"num_expand": 1, "freeze_layer_interval": 2}),
    "embed-head-llama": ("llama", FREEZE | {"freeze_trainable_layers": 0,
                                            "freeze_extra_modules": ["embed_tokens", "lm_head"]}),
    "embed-head-tied": ("llama-tied", FREEZE | {"freeze_trainable_layers": 0, "freeze_extra_modules": ["embed_tokens"]}),
    "head-only-llama": ("llama", FREEZE | {"freeze_trainable_layers": 0, "freeze_extra_modules": ["lm_head"]}),
    "bitfit-qwen2": ("qwen2", {"finetuning_type": "bitfit"}),
    "bitfit-llama-bias": ("llama-bias", {"finetuning_type": "bitfit"}),
    "pro-llama": ("llama", FREEZE | {"num_expand": 2, "use_llama_pro": True}),
    "pro-lora-llama": ("llama", {"finetuning_type": "lora", "num_expand": 2, "freeze_trainable_layers": 2,
                                 "use_llama_pro": True, "lora_target": ["q_proj", "down_proj"]}),
}


def function(path, name, given):
    """A function of a file, without what the file imports."""
    tree = ast.parse(path.read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    exec(compile(ast.Module(found, []), str(path), "exec"), given)
    return given[name]


class LlamaFactory:
    def __init__(self, source):
        quiet = SimpleNamespace(info_rank0=lambda *_: None)
        model = {"re": re, "torch": torch, "logger": quiet, "COMPOSITE_MODELS": {},
                 "get_forbidden_modules": lambda *_: set()}
        self.freeze = function(source / "src/llamafactory/model/adapter.py", "_setup_freeze_tuning", model)
        misc = {"logger": quiet}
        utils = source / "src/llamafactory/model/model_utils/misc.py"
        self.expanded_modules = function(utils, "find_expanded_modules", misc)
        nothing = SimpleNamespace(save_pretrained=lambda *_: None)
        script = {
            "json": json, "os": os, "torch": torch, "OrderedDict": collections.OrderedDict, "save_file": save_file,
            "tqdm": lambda items, **_: items, "print": lambda *_: None, "PreTrainedModel": transformers.PreTrainedModel,
            "AutoConfig": transformers.AutoConfig, "AutoModelForCausalLM": transformers.AutoModelForCausalLM,
            "AutoTokenizer": SimpleNamespace(from_pretrained=lambda *_, **__: nothing),
            "split_torch_state_dict_into_shards": huggingface_hub.split_torch_state_dict_into_shards,
            "SAFE_WEIGHTS_NAME": "model.safetensors", "SAFE_WEIGHTS_INDEX_NAME": "model.safetensors.index.json",
            "WEIGHTS_NAME": "pytorch_model.bin", "WEIGHTS_INDEX_NAME": "pytorch_model.bin.index.json",
        }
        path = source / "scripts/llama_pro.py"
        function(path, "change_name", script)
        self.expand = function(path, "block_expansion", script)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)


def choose(model, settings, factory, folder):
    """Says what is trained; returns the model, which has an adapter where there is one."""
    if settings["finetuning_type"] == "bitfit":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith(".bias"))
    elif settings.get("freeze_layer_interval"):
        numbers = range(settings["freeze_layer_interval"] - 1, len(model.model.layers), settings["freeze_layer_interval"])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(f".layers.{number}." in name for number in numbers))
    elif settings["finetuning_type"] == "freeze":
        factory.freeze(model, SimpleNamespace(freeze_multi_modal_projector=True, **settings), True, True)
    else:
        modules = factory.expanded_modules(model, settings["lora_target"], settings["freeze_trainable_layers"])
        lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=modules, lora_dropout=0.0, task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, lora)
        numbers = torch.Generator().manual_seed(1)
        with torch.no_grad():  # with B at zero the first gradients would be
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(0.05 * torch.randn(parameter.shape, generator=numbers))
        save_adapter(model, folder / "adapter_init", settings)
    return model


def save_adapter(model, folder, settings):
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": settings["model"]}
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=1, sort_keys=True))


def batches():
    numbers = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 128, (STEPS * PARTS, 2, 24), generator=numbers)
    for place in range(1, 24):  # learnable: each token follows from the one before it
        ids[:, :, place] = 3 + (3 * ids[:, :, place - 1] + 5) % 29
    labels = ids.clone()
    for part in range(ids.shape[0]):
        labels[part, 0, : 3 + (5 * part) % 9] = -100
        labels[part, 1, : 6 + (7 * part) % 11] = -100
    return ids, labels


def rate(step):
    warmup, highest = OPTIMISER["warmup_steps"], OPTIMISER["learning_rate"]
    if step < warmup:
        return highest * step / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))


def train(model, ids, labels):
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    parameters = [parameter for _, parameter in named]

    def is_bare(name):
        return "norm" in name.lower() or "bias" in name.lower()

    groups = [
        {"params": [p for name, p in named if not is_bare(name)], "weight_decay": OPTIMISER["weight_decay"]},
        {"params": [p for name, p in named if is_bare(name)], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=1.0, betas=(0.9, 0.999), eps=1e-8)
    log = []
    for step in range(STEPS):
        parts = range(step * PARTS, (step + 1) * PARTS)
        total = sum(int((labels[part][:, 1:] != -100).sum()) for part in parts)
        optimiser.zero_grad()
        loss_sum = 0.0
        for part in parts:
            logits = model(input_ids=ids[part], attention_mask=torch.ones_like(ids[part]), use_cache=False).logits.float()
            rows, targets = logits[:, :-1].reshape(-1, logits.shape[-1]), labels[part][:, 1:].reshape(-1)
            loss = torch.nn.functional.cross_entropy(rows, targets, ignore_index=-100, reduction="sum") / total
            loss.backward()
            loss_sum += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, OPTIMISER["max_grad_norm"]))
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        optimiser.step()
        log.append({"step": step + 1, "loss": loss_sum, "grad_norm": norm, "learning_rate": rate(step),
                    "trained_tokens": total})
    return named, log


def make(name, models, output, factory):
    source, given = CASES[name]
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    settings = OPTIMISER | {"model": source} | copy.deepcopy(given)
    with tempfile.TemporaryDirectory() as expanded:
        if given.get("num_expand"):
            factory.expand(str(models / source), expanded, given["num_expand"])
            model = load(expanded)
        else:
            model = load(models / source)
    model = choose(model, settings, factory, folder)
    model.eval()
    ids, labels = batches()
    save_file({"input_ids": ids, "labels": labels}, folder / "batches.safetensors")
    named, log = train(model, ids, labels)
    settings["trainable_parameters"] = sum(parameter.numel() for _, parameter in named)
    settings["weight_decay_applies_to"] = "every trained tensor whose name has neither norm nor bias in it"
    (folder / "train.json").write_text(json.dumps({"settings": settings, "steps": log}, indent=1))
    if given["finetuning_type"] == "lora":
        save_adapter(model, folder / "adapter_final", settings)
    else:
        save_file({name: parameter.detach().contiguous() for name, parameter in named}, folder / "final.safetensors")
    print(f"{name:20s} loss {log[0]['loss']:.4f} -> {log[-1]['loss']:.4f}  trained {settings['trainable_parameters']}")


def check_expansion(binary, models):
    """What `luthier expand` writes computes in transformers what the model did."""
    ids = torch.arange(5, 101, 4)[None]
    for folder in sorted(models.iterdir()):
        if json.loads((folder / "config.json").read_text())["model_type"] not in transformers.CONFIG_MAPPING:
            continue
        with tempfile.TemporaryDirectory() as place:
            for blocks in (1, 2):
                words = ["expand", "--model", folder, "--num-expand", str(blocks), "--output", f"{place}/{blocks}"]
                subprocess.run([binary, *words], check=True, capture_output=True)
                before, after = load(folder), load(f"{place}/{blocks}")
                assert len(after.model.layers) == len(before.model.layers) + blocks
                with torch.no_grad():
                    far = (before(ids).logits - after(ids).logits).abs().max().item()
                print(f"{folder.name:20s} {blocks} blocks added  largest logit difference {far:.1e}")
                assert far == 0.0


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--llamafactory", type=Path, required=True)
    arguments.add_argument("--models", type=Path, default=ROOT / "fixtures/models")
    arguments.add_argument("--output", type=Path, default=ROOT / "fixtures/training")
    arguments.add_argument("--luthier", type=Path)
    arguments.add_argument("names", nargs="*")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    factory = LlamaFactory(given.llamafactory)
    for name in given.names or CASES:
        make(name, given.models, given.output, factory)
    if given.luthier:
        check_expansion(given.luthier, given.models)


if __name__ == "__main__":
    main()
