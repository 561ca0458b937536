"""What PEFT computes when it trains prefixes and prompts that a small network makes, as fixtures.

    python tests/external/peft_prompts.py fixtures/models fixtures/training

writes fixtures/training/{prefix-projection-llama,ptuning-llama,prompt-gemma2,prompt-granite} in the form of the
other trainings: ten AdamW steps of two micro-batches, no dropout, eager attention in float32 on one thread, seeds 0, 1 and 2 (torch 2.11.0, transformers 5.6.0,
peft 0.18.1; `versions` of train.json says what ran). PEFT saves only what the network makes (`prompt_embeddings`); the
network's own tensors stand beside it as `prompt_encoder.*`, as Luthier saves them, and the script ends with an error where
PEFT does not load such a folder or then computes something else. `generated` of train.json holds 20 greedy tokens after
eight given ones, with the adapter loaded from adapter_final, for these and for prefix-llama and prompt-llama.
"""
import argparse
import json
import math
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

STEPS, PARTS, LENGTH = 10, 2, 24
SETTINGS = {
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
CASES = {
    "prefix-projection-llama": (
        "llama",
        peft.PrefixTuningConfig(
            num_virtual_tokens=6, prefix_projection=True, encoder_hidden_size=24, task_type="CAUSAL_LM"
        ),
    ),
    "ptuning-llama": (
        "llama",
        peft.PromptEncoderConfig(num_virtual_tokens=6, encoder_hidden_size=24, task_type="CAUSAL_LM"),
    ),
    # Windows, norms after blocks, and an embedding that is scaled within. No prefix: PEFT 0.18.1 takes the values of layer 0
    # for the keys of layer 1 in Gemma 2 and 3, and finds no third layer (peft_model.py, get_prompt).
    "prompt-gemma2": ("gemma2", peft.PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM")),
    # Whatever enters the first layer is scaled.
    "prompt-granite": ("granite", peft.PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM")),
}
# Made by another program; only their greedy tokens are added here.
GIVEN = {"prefix-llama": "llama", "prompt-llama": "llama"}


def rate(step):
    warm, peak = SETTINGS["warmup_steps"], SETTINGS["learning_rate"]
    if step < warm:
        return peak * step / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (STEPS - warm)))


def base(models, source):
    path = models / source
    return transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32)


def batches():
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 128, (STEPS * PARTS, 2, LENGTH), generator=generator)
    for token in range(1, LENGTH):  # learnable: each token follows from the one before it
        ids[:, :, token] = 3 + (3 * ids[:, :, token - 1] + 5) % 29
    labels = ids.clone()
    for part in range(ids.shape[0]):
        labels[part, 0, : 3 + (5 * part) % 9] = -100
        labels[part, 1, : 6 + (7 * part) % 11] = -100
    return ids, labels


def save(model, source, folder):
    """The folder as PEFT writes it, with the network's own tensors beside what the network makes."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = source
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
    tensors = load_file(folder / "adapter_model.safetensors")
    network = model.prompt_encoder["default"].state_dict()
    if list(network) == ["embedding.weight"]:
        return
    tensors.update({f"prompt_encoder.{name}": tensor.detach().clone() for name, tensor in network.items()})
    save_file(tensors, folder / "adapter_model.safetensors")


def logits_of(model, ids):
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()[:, -ids.shape[-1] :]


def train(models, out, name, source, method):
    torch.manual_seed(0)
    model = peft.get_peft_model(base(models, source), method)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:
                size = 0.02 if "bias" in parameter_name else 0.2
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    save(model, source, folder / "adapter_init")
    ids, labels = batches()
    save_file({"input_ids": ids, "labels": labels}, folder / "batches.safetensors")
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    bare = [parameter for name, parameter in named if "norm" in name.lower() or "bias" in name.lower()]
    rest = [parameter for name, parameter in named if not ("norm" in name.lower() or "bias" in name.lower())]
    groups = [{"params": rest, "weight_decay": SETTINGS["weight_decay"]}, {"params": bare, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8)
    steps = []
    for step in range(STEPS):
        parts = range(step * PARTS, (step + 1) * PARTS)
        total = sum(int((labels[part][:, 1:] != -100).sum()) for part in parts)
        optimiser.zero_grad()
        loss_sum = 0.0
        for part in parts:
            logits = logits_of(model, ids[part])[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), labels[part][:, 1:].reshape(-1), reduction="sum"
            )
            (loss / total).backward()
            loss_sum += float(loss) / total
        norm = float(torch.nn.utils.clip_grad_norm_(rest + bare, SETTINGS["max_grad_norm"]))
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        optimiser.step()
        steps.append(
            {
                "step": step + 1,
                "loss": loss_sum,
                "grad_norm": norm,
                "learning_rate": rate(step),
                "trained_tokens": total,
            }
        )
    save(model, source, folder / "adapter_final")
    count = sum(parameter.numel() for _, parameter in named)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    settings = {**SETTINGS, "model": source, "trainable_parameters": count, "versions": versions}
    (folder / "train.json").write_text(json.dumps({"settings": settings, "steps": steps}, indent=1))
    print(f"{name:24} loss {steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}, {count} trained numbers")
    loaded = peft.PeftModel.from_pretrained(base(models, source), folder / "adapter_final")
    loaded.eval()
    with torch.no_grad():
        far = float((logits_of(loaded, ids[0]) - logits_of(model, ids[0])).abs().max())
    print(f"{name:24} loaded by PEFT: logits differ by {far:.1e} at most")
    if far > 1e-5:
        raise SystemExit(f"{name}: PEFT computes something else from the folder")


def generate(models, out, name, source):
    folder = out / name
    model = peft.PeftModel.from_pretrained(base(models, source), folder / "adapter_final")
    model.eval()
    ids = load_file(folder / "batches.safetensors")["input_ids"][0, :1, :8]
    tokens = []
    margin = math.inf
    with torch.no_grad():
        row = ids
        for _ in range(20):
            top = logits_of(model, row)[0, -1].topk(2)
            margin = min(margin, float(top.values[0] - top.values[1]))
            tokens.append(int(top.indices[0]))
            row = torch.cat([row, top.indices[:1].reshape(1, 1)], dim=1)
        mask = torch.ones_like(ids)
        cached = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=20, do_sample=False, eos_token_id=None
        )
    print(f"{name:24} greedy tokens, least margin {margin:.1e}, as generate: {cached[0, 8:].tolist() == tokens}")
    path = folder / "train.json"
    found = json.loads(path.read_text())
    found["generated"] = {"prompt": ids[0].tolist(), "tokens": tokens, "least_margin": margin}
    path.write_text(json.dumps(found, indent=1))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("models", type=Path)
    arguments.add_argument("out", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for name, (source, method) in CASES.items():
        train(given.models, given.out, name, source, method)
    for name, source in [(name, source) for name, (source, _) in CASES.items()] + list(GIVEN.items()):
        if (given.out / name).is_dir():
            generate(given.models, given.out, name, source)


if __name__ == "__main__":
    main()
