#!/usr/bin/env python3
"""QLoRA's headline claim on a processor: a model of 7 billion parameters takes LoRA steps in less than 8 GB.

    python3 bench/seven_billion.py                      # three steps of 512 tokens under a limit of 8 GB
    python3 bench/seven_billion.py --limit 6 --tokens 1024

The shape is that of Llama-2-7B; the weights are drawn at random, each tensor quantised to NF4 (with double quantisation) before
the next is drawn, so that neither disk nor memory ever holds the model in 16 bits. What the weights are changes neither speed
nor memory. With the weights of a real model the same happens while its files are read (`luthier train` with quantization_bit: 4).

The limit is the kernel's: a memory cgroup of its own without swap, by systemd or by hand (as root). Where neither can be had
the script says so and limits nothing, but fails if the peak is above the limit. A process that needs more is killed.

The script needs only Python 3.10+. It prints one line of JSON: seconds of everything, and of each step; peaks.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.join(HERE, "work", "seven-billion")
SHAPE = dict(
    model_type="llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, vocab_size=32000, rope_theta=10000.0, rms_norm_eps=1e-5, max_position_embeddings=4096,
    tie_word_embeddings=False, torch_dtype="bfloat16",
)  # fmt: skip
GIGABYTE = 1_000_000_000


def limited(command, limit):
    """The command under a hard limit of memory: how, and what to run; the second may be a function to call in the child."""
    cgroup = "/sys/fs/cgroup/memory"
    if os.path.exists("/run/systemd/system") and shutil.which("systemd-run"):
        scope = ["systemd-run", "--scope", "--quiet", *(["--user"] if os.geteuid() else [])]
        return "systemd scope", [*scope, "-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0", *command], None
    if os.path.isdir(cgroup) and os.access(cgroup, os.W_OK):
        own = next(line.split(":", 2)[2].strip() for line in open("/proc/self/cgroup") if ":memory:" in line)
        names = ("memory.limit_in_bytes", "cgroup.procs", "memory.max_usage_in_bytes")
    elif os.access("/sys/fs/cgroup/cgroup.procs", os.W_OK):
        cgroup, own = "/sys/fs/cgroup", "/"
        names = ("memory.max", "cgroup.procs", "memory.peak")
    else:
        return "no limit", command, None
    folder = os.path.join(cgroup + own.rstrip("/"), f"luthier-{os.getpid()}")
    os.mkdir(folder)

    def write(name, text):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)

    write(names[0], str(limit))
    for swap in ("memory.swap.max", "memory.swappiness"):
        if os.path.exists(os.path.join(folder, swap)):
            write(swap, "0")
    return f"cgroup {folder}", command, (folder, names, write)


def main():
    parser = argparse.ArgumentParser(description="LoRA steps of a 7B model under a limit of memory.")
    parser.add_argument("--limit", type=float, default=8, help="GB (10^9 bytes)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=512, help="of a step")
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"])
    parser.add_argument("--luthier", help="the luthier program; without it a release build is made")
    options = parser.parse_args()
    luthier = options.luthier
    if not luthier:
        root = os.path.dirname(HERE)
        subprocess.run(["cargo", "build", "--release", "--package", "luthier"], cwd=root, check=True)
        luthier = os.path.join(root, "target", "release", "luthier")

    os.makedirs(os.path.join(WORK, "model"), exist_ok=True)
    with open(os.path.join(WORK, "model", "config.json"), "w", encoding="utf-8") as file:
        json.dump(SHAPE | {"num_hidden_layers": options.layers}, file, indent=1)
    numbers = random.Random(7)
    rows = os.path.join(WORK, "rows.jsonl")
    with open(rows, "w", encoding="utf-8") as file:
        for _ in range(options.steps):
            ids = [numbers.randrange(SHAPE["vocab_size"]) for _ in range(options.tokens)]
            file.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    settings = dict(
        model_name_or_path=os.path.join(WORK, "model"), dataset=rows, output_dir=os.path.join(WORK, "out"),
        finetuning_type="lora", lora_rank=8, lora_target="all", quantization_bit=4, cutoff_len=options.tokens,
        per_device_train_batch_size=1, max_steps=options.steps, learning_rate=1e-4, lr_scheduler_type="constant",
    )  # fmt: skip
    # `bench` draws the weights of a folder that has none; it writes nothing.
    command = [luthier, "bench", *(f"{key}={value}" for key, value in settings.items())]
    limit = int(options.limit * GIGABYTE)
    how, command, group = limited(command, limit)
    print(f"limit: {options.limit} GB by {how}", file=sys.stderr)

    def enter():
        group[2](group[1][1], str(os.getpid()))

    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=enter if group else None, text=True)
    printed, _ = process.communicate()
    seconds = time.perf_counter() - began
    charged = None
    if group:
        path = os.path.join(group[0], group[1][2])
        charged = int(open(path, encoding="ascii").read()) if os.path.exists(path) else None
        os.rmdir(group[0])
    if process.returncode != 0:
        sys.exit(f"exit code {process.returncode}" + (": killed, as it needed more" if process.returncode in (-9, 137) else ""))
    found = json.loads(printed.splitlines()[-1])
    result = {
        "limit_bytes": limit,
        "limited_by": how.split(" ")[0],
        "peak_bytes": found["peak_bytes"],
        "peak_charged_with_file_cache_bytes": charged,
        "predicted_bytes": found["predicted_bytes"],
        "seconds": seconds,
        "seconds_until_first_step": found["first_forward_seconds"],
        "step_seconds": found["all_step_seconds"],
        "loss": found["loss"],
        "cpu": found["cpu"],
    }
    print(json.dumps(result))
    if found["peak_bytes"] > limit:
        sys.exit("the peak is above the limit")


if __name__ == "__main__":
    main()
