"""What PEFT computes when it trains PiSSA, VeRA and OFT adapters, DoRA with dropout off, and merges them. What it writes is
committed under fixtures/training, in the form of the other trainings there; `cargo xtask fixtures` compares with it.

    python3 -m venv .venv && .venv/bin/pip install -r tests/external/requirements.txt
    .venv/bin/python tests/external/peft_methods.py [--only NAME]

Made with torch 2.11.0, transformers 5.6.0 and peft 0.18.1, in f32 on one thread, seed 0 for the model's adapter, 1 for starting
values and 2 for the batches. A case is ten steps of AdamW, each of two micro-batches of two rows of 24 tokens. `merged.safetensors`
has the tensors that `merge_and_unload` changes in the trained model.

One thing is not as PEFT leaves it: the largest number of each row of PiSSA's A is made positive, with its column of B, since a
singular vector has no sign of its own. All that follows is the same with either sign.
"""

import argparse
import json
import math
import pathlib

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEED = 0
STEPS, PARTS = 10, 2
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
QV = ["q_proj", "v_proj"]
CASES = {
    "pissa-llama": ("llama", peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights="pissa", target_modules="all-linear", task_type="CAUSAL_LM")),
    "vera-llama": ("llama", peft.VeraConfig(r=8, target_modules=["q_proj", "v_proj", "down_proj"], projection_prng_key=3, task_type="CAUSAL_LM")),
    "vera-seed-llama": ("llama", peft.VeraConfig(r=8, target_modules=QV, projection_prng_key=5, save_projection=False, task_type="CAUSAL_LM")),
    "oft-llama": ("llama", peft.OFTConfig(oft_block_size=8, target_modules="all-linear", task_type="CAUSAL_LM")),
    "oft-exact-llama": ("llama", peft.OFTConfig(r=4, oft_block_size=0, use_cayley_neumann=False, target_modules=QV, task_type="CAUSAL_LM")),
    "ia3-bias-llama": ("llama-bias", peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM")),
    "loraplus-llama": ("llama", peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")),
    "ranks-llama": ("llama", peft.LoraConfig(r=4, lora_alpha=8, rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 6}, alpha_pattern={"down_proj": 3}, target_modules="all-linear", task_type="CAUSAL_LM")),
}
RATIO = {"loraplus-llama": 16.0}


def rate(step):
    warmup, highest = SETTINGS["warmup_steps"], SETTINGS["learning_rate"]
    if step < warmup:
        return highest * step / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))


def start(model):
    """Starting values with which no gradient is zero."""
    random = torch.Generator().manual_seed(SEED + 1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.requires_grad:
                continue
            if "lora_B" in name or "vera_lambda_b" in name or "oft_R" in name:
                value.copy_(0.05 * torch.randn(value.shape, generator=random))
            elif "ia3_l" in name:
                value.copy_(1 + 0.1 * torch.randn(value.shape, generator=random))


def turn(model):
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                largest = a.gather(1, a.abs().argmax(dim=1, keepdim=True))
                a.mul_(largest.sign())
                b.mul_(largest.sign().T)


def batches():
    random = torch.Generator().manual_seed(SEED + 2)
    ids = torch.randint(3, 128, (STEPS * PARTS, 2, 24), generator=random)
    for place in range(1, 24):  # learnable: each token follows from the one before it
        ids[:, :, place] = 3 + (3 * ids[:, :, place - 1] + 5) % 29
    labels = ids.clone()
    for part in range(ids.shape[0]):
        labels[part, 0, : 3 + (5 * part) % 9] = -100
        labels[part, 1, : 6 + (7 * part) % 11] = -100
    return ids, labels


def groups(model, ratio):
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    made = []
    for name, value in named:
        bare = "norm" in name.lower() or "bias" in name.lower()
        faster = "lora_B" in name or value.ndim == 1
        decay = 0.0 if bare else SETTINGS["weight_decay"]
        made.append({"params": [value], "weight_decay": decay, "factor": ratio if faster else 1.0})
    return made


def save(model, folder, source):
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = source
    path.write_text(json.dumps(config, indent=1, sort_keys=True))


def run(name, source, config):
    torch.manual_seed(SEED)
    folder = ROOT / "fixtures/training" / name
    folder.mkdir(parents=True, exist_ok=True)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        ROOT / "fixtures/models" / source, attn_implementation="eager", dtype=torch.float32
    )
    before = {key: value.clone() for key, value in base.state_dict().items()}
    model = peft.get_peft_model(base, config)
    pissa = getattr(config, "init_lora_weights", None) == "pissa"
    turn(model) if pissa else start(model)
    save(model, folder / "adapter_init", source)
    model.eval()
    ids, labels = batches()
    save_file({"input_ids": ids, "labels": labels}, folder / "batches.safetensors")
    ratio = RATIO.get(name, 1.0)
    optimiser = torch.optim.AdamW(groups(model, ratio), lr=1.0, betas=(0.9, 0.999), eps=1e-8)
    trained = [value for value in model.parameters() if value.requires_grad]
    log = []
    for step in range(STEPS):
        parts = range(step * PARTS, (step + 1) * PARTS)
        count = sum(int((labels[part][:, 1:] != -100).sum()) for part in parts)
        optimiser.zero_grad()
        total = 0.0
        for part in parts:
            logits = model(input_ids=ids[part], attention_mask=torch.ones_like(ids[part]), use_cache=False).logits.float()
            flat, targets = logits[:, :-1].reshape(-1, logits.shape[-1]), labels[part][:, 1:].reshape(-1)
            loss = torch.nn.functional.cross_entropy(flat, targets, ignore_index=-100, reduction="sum") / count
            loss.backward()
            total += float(loss)
        norm = float(torch.nn.utils.clip_grad_norm_(trained, SETTINGS["max_grad_norm"]))
        for group in optimiser.param_groups:
            group["lr"] = rate(step) * group["factor"]
        optimiser.step()
        log.append({"step": step + 1, "loss": total, "grad_norm": norm, "learning_rate": rate(step), "trained_tokens": count})
    settings = dict(SETTINGS, model=source, trainable_parameters=sum(value.numel() for value in trained))
    if ratio != 1.0:
        settings["loraplus_lr_ratio"] = ratio
    (folder / "train.json").write_text(json.dumps({"settings": settings, "steps": log}, indent=1))
    save(model, folder / "adapter_final", source)
    merged = model.merge_and_unload().state_dict()
    changed = {key: merged[key].contiguous() for key in before if not torch.equal(merged[key], before[key])}
    save_file(changed, folder / "merged.safetensors")
    print(f"{name:18s} loss {log[0]['loss']:.4f} -> {log[-1]['loss']:.4f}, {settings['trainable_parameters']} trained, {len(changed)} merged")


def merge(name):
    """The merged tensors of a case that was made elsewhere."""
    folder = ROOT / "fixtures/training" / name
    source = json.loads((folder / "train.json").read_text())["settings"]["model"]
    base = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "fixtures/models" / source, dtype=torch.float32)
    before = {key: value.clone() for key, value in base.state_dict().items()}
    merged = peft.PeftModel.from_pretrained(base, folder / "adapter_final").merge_and_unload().state_dict()
    changed = {key: merged[key].contiguous() for key in before if not torch.equal(merged[key], before[key])}
    save_file(changed, folder / "merged.safetensors")
    print(f"{name:18s} {len(changed)} merged")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    for name, (source, config) in CASES.items():
        if only in (None, name):
            run(name, source, config)
    for name in ["dora-llama", "ia3-llama"]:
        if only in (None, name):
            merge(name)


if __name__ == "__main__":
    main()
