#!/usr/bin/env python3
"""What each way to tune costs and brings: trained parameters, memory planned and used, speed, held-out loss.

    cargo xtask assets && cargo build --release
    python3 bench/methods.py                          # SmolLM2-135M-Instruct, then a random Qwen2.5-0.5B shape
    python3 bench/methods.py --model smollm2 --only LoRA,QLoRA

Every method trains the same hundred steps on the same rows from the same base in bf16, one process each, with the rate
that its paper or the rule of `learning_rate` gives it. The held-out loss is that of rows that none of them trained on,
after the last step. On the random shape the rows are drawn from a small grammar, so that there is something to learn.

The script fails when a process took more memory than planned or 10 % less, when QLoRA needs more than 30 % of full
fine-tuning's memory or is slower than 85 % of bf16 LoRA, or when the held-out loss of LoRA or QLoRA is more than 5 % above
full fine-tuning's. The machine must be quiet.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(ROOT, "bench", "work")
GGUF = os.path.join(ROOT, "assets", "SmolLM2-135M-Instruct.Q4_1.gguf")
DATA = os.path.join(ROOT, "assets", "data")
STEPS = 100
HELD_OUT = 60
QWEN = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
    "rope_theta": 1000000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "tie_word_embeddings": True,
    "dtype": "bfloat16", "hidden_act": "silu",
}  # fmt: skip

FULL = ["finetuning_type=full"]
METHODS = {
    "full": FULL,
    "full, 8-bit AdamW": [*FULL, "optim=adamw_8bit"],
    "full, Adafactor": [*FULL, "optim=adafactor"],
    "full, GaLore": [*FULL, "use_galore=true", "galore_rank=16"],
    "full, pure bf16": [*FULL, "pure_bf16=true"],
    "freeze, last 2 layers": ["finetuning_type=freeze", "freeze_trainable_layers=2"],
    "biases only": ["finetuning_type=bitfit"],
    "LoRA": [],
    "LoRA, fp32": ["precision=fp32"],
    "LoRA, fp16": ["precision=fp16"],
    "LoRA, all layers recomputed": ["gradient_checkpointing=true"],
    "LoRA+": ["loraplus_lr_ratio=16"],
    "DoRA": ["use_dora=true"],
    "PiSSA": ["pissa_init=true"],
    "QLoRA, NF4": ["quantization_bit=4", "double_quantization=false"],
    "QLoRA, NF4, double": ["quantization_bit=4", "double_quantization=true"],
    "QLoRA, FP4": ["quantization_bit=4", "quantization_type=fp4", "double_quantization=false"],
    "QLoRA, 8 bits": ["quantization_bit=8"],
    "IA3": ["finetuning_type=ia3"],
    "VeRA": ["finetuning_type=vera"],
    "OFT": ["finetuning_type=oft"],
    "prefix": ["finetuning_type=prefix"],
    "prompt": ["finetuning_type=prompt"],
    "P-tuning": ["finetuning_type=p_tuning"],
    "bottleneck": ["finetuning_type=bottleneck"],
}
# A model without biases has none to train.
NOT_ON = {"smollm2": ["biases only"], "qwen": []}


def smollm2(luthier):
    """The real model as a folder in bf16, and conversations of which the last are held out."""
    folder = os.path.join(WORK, "smollm2-bf16")
    if not os.path.exists(os.path.join(folder, "config.json")):
        export = [luthier, "export", f"model_name_or_path={GGUF}", f"export_dir={folder}"]
        subprocess.run(export, check=True, capture_output=True)
    data = [f"dataset_dir={DATA}", "dataset=alpaca_en_demo.json", "max_samples=460", f"val_size={HELD_OUT}"]
    return folder, [*data, "cutoff_len=512", "per_device_train_batch_size=4"]


def qwen(_):
    """A random checkpoint without numpy: signs, exponents of 2^-7 and 2^-6, and fractions are drawn."""
    folder = os.path.join(WORK, "qwen2.5-0.5b-random")
    rows = os.path.join(WORK, "grammar.jsonl")
    if not os.path.exists(os.path.join(folder, "config.json")):
        os.makedirs(folder, exist_ok=True)
        write_checkpoint(folder)
    numbers = random.Random(7)
    with open(rows, "w", encoding="utf-8") as file:
        for _ in range(4 * STEPS + HELD_OUT):
            ids = [numbers.randrange(50)]
            for _ in range(numbers.randint(40, 120)):
                ids.append((ids[-1] * 7 + numbers.choice((1, 2))) % 50)
            ids = [1000 + 37 * number for number in ids]
            prompt = len(ids) * 2 // 5
            file.write(json.dumps({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}) + "\n")
    return folder, [f"dataset={rows}", f"val_size={HELD_OUT}", "cutoff_len=512", "per_device_train_batch_size=4"]


def write_checkpoint(folder):
    hidden, inner, heads = QWEN["hidden_size"], QWEN["intermediate_size"], 2 * 64
    shapes = {"model.embed_tokens.weight": [QWEN["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for layer in range(QWEN["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for name, rows in (("q", hidden), ("k", heads), ("v", heads)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = [rows, hidden]
            shapes[f"{at}self_attn.{name}_proj.bias"] = [rows]
        shapes[f"{at}self_attn.o_proj.weight"] = [hidden, hidden]
        shapes[f"{at}mlp.gate_proj.weight"] = shapes[f"{at}mlp.up_proj.weight"] = [inner, hidden]
        shapes[f"{at}mlp.down_proj.weight"] = [hidden, inner]
        shapes[f"{at}input_layernorm.weight"] = shapes[f"{at}post_attention_layernorm.weight"] = [hidden]
    header, end = {}, 0
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * count]}
        end += 2 * count
    numbers = random.Random(7)
    signs = bytes(0x3C | (value & 1) << 7 for value in range(256))
    text = json.dumps(header).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            first, last = header[name]["data_offsets"]
            count = (last - first) // 2
            if len(shape) == 1:
                file.write((b"\x00\x00" if name.endswith("bias") else b"\x80\x3f") * count)
                continue
            for start in range(0, count, 1 << 22):
                part = min(1 << 22, count - start)
                values = bytearray(2 * part)
                values[0::2], values[1::2] = numbers.randbytes(part), numbers.randbytes(part).translate(signs)
                file.write(values)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(QWEN, file, indent=2)


def run(luthier, model, settings):
    with tempfile.TemporaryDirectory() as folder:
        given = [f"model_name_or_path={model}", *settings, f"max_steps={STEPS}", f"output_dir={folder}/out"]
        given += ["save_strategy=no", f"eval_steps={STEPS}", "logging_steps=10", "warmup_ratio=0.1", "plot_loss=false"]
        found = subprocess.run([luthier, "train", *given], capture_output=True, text=True)
        if found.returncode != 0:
            return None, found.stderr.strip().splitlines()[-1]
        with open(os.path.join(folder, "out", "all_results.json"), encoding="utf-8") as file:
            results = json.load(file)
    used, planned = map(float, re.search(r"memory: ([\d.]+) GB at the peak, ([\d.]+) GB planned", found.stderr).groups())
    trained, share = re.search(r"([\d,]+) numbers trained \(([\d.]+) %\)", found.stderr).groups()
    speed = re.search(r"mean loss [\d.]+, (\d+) tokens/s", found.stderr).group(1)
    return dict(
        trained=int(trained.replace(",", "")), share=float(share), used=used, planned=planned, speed=int(speed),
        loss=results["eval_loss"],
    ), None  # fmt: skip


def table(name, luthier, only):
    model, data = {"smollm2": smollm2, "qwen": qwen}[name](luthier)
    title = {"smollm2": "SmolLM2-135M-Instruct", "qwen": "a random Qwen2.5-0.5B shape"}[name]
    print(f"\n{title}, {STEPS} steps of 4 rows\n")
    print("| method | trained | share | memory planned | used | | tokens/s | held-out loss |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    rows, wrong = {}, []
    for method, settings in METHODS.items():
        if method in NOT_ON[name] or only and not any(part == method.split(",")[0] for part in only):
            continue
        row, error = run(luthier, model, [*data, *settings])
        if row is None:
            print(f"| {method} | {error} |", flush=True)
            wrong.append(f"{method}: {error}")
            continue
        rows[method] = row
        memory = row["used"] / row["planned"]
        if not 0.9 <= memory <= 1.0:
            wrong.append(f"{method}: {memory:.0%} of the memory planned")
        print(
            f"| {method} | {row['trained']:,} | {row['share']:.2f} % | {row['planned']:.2f} GB | {row['used']:.2f} GB | "
            f"{memory:.0%} | {row['speed']} | {row['loss']:.3f} |",
            flush=True,
        )
    full, lora, qlora = (rows.get(method) for method in ("full", "LoRA", "QLoRA, NF4, double"))
    if full and qlora and qlora["used"] > 0.3 * full["used"]:
        wrong.append(f"QLoRA took {qlora['used'] / full['used']:.0%} of full fine-tuning's memory")
    if lora and qlora and qlora["speed"] < 0.85 * lora["speed"]:
        wrong.append(f"QLoRA reached {qlora['speed'] / lora['speed']:.0%} of LoRA's speed")
    for method in ("LoRA", "QLoRA, NF4, double"):
        if full and method in rows and rows[method]["loss"] > 1.05 * full["loss"]:
            wrong.append(f"{method}: held-out loss {rows[method]['loss']:.3f}, full {full['loss']:.3f}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description="What each way to tune costs and brings.")
    parser.add_argument("--luthier", default=os.path.join(ROOT, "target", "release", "luthier"))
    parser.add_argument("--model", choices=["smollm2", "qwen"], action="append")
    parser.add_argument("--only", default="", help="families of methods, such as LoRA,QLoRA")
    options = parser.parse_args()
    os.makedirs(WORK, exist_ok=True)
    print(time.strftime("%Y-%m-%d"))
    only = [part for part in options.only.split(",") if part]
    wrong = [line for name in options.model or ["smollm2", "qwen"] for line in table(name, options.luthier, only)]
    for line in wrong:
        print(f"! {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
