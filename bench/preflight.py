#!/usr/bin/env python3
"""What the page before the start promised, against what happened: memory and time of six trainings.

    cargo xtask assets && cargo build --release
    python3 bench/preflight.py

Each training prints at its end what it took and what was planned; this script reads those lines and prints a table. It
fails when a process took more memory than planned, or 10 % less, or when the time is more than 25 % off. Steps are short
on a small model, so each run is long enough (half a minute or so) for a whole second to be no rounding error. The machine
must be quiet.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = os.path.join(ROOT, "assets", "SmolLM2-135M-Instruct.Q4_1.gguf")
DATA = os.path.join(ROOT, "assets", "data")
COMMON = ["cutoff_len=512", "save_strategy=no", "logging_steps=10", "learning_rate=1e-4"]
RUNS = {
    "LoRA, bf16, identity": ["dataset=identity.json", "max_steps=60", "per_device_train_batch_size=8"],
    "LoRA, fp32, identity": ["dataset=identity.json", "max_steps=20", "per_device_train_batch_size=8", "precision=fp32"],
    "LoRA, bf16, alpaca, evaluated": [
        "dataset=alpaca_en_demo.json", "max_samples=200", "val_size=40", "max_steps=40", "per_device_train_batch_size=8",
        "eval_steps=20",
    ],
    "full, bf16, identity": [
        "finetuning_type=full", "dataset=identity.json", "max_steps=40", "per_device_train_batch_size=8",
    ],
    "freeze, bf16, alpaca": [
        "finetuning_type=freeze", "freeze_trainable_layers=4", "dataset=alpaca_en_demo.json", "max_samples=200",
        "max_steps=50", "per_device_train_batch_size=8",
    ],
    "pre-training, LoRA, recomputed": [
        "stage=pt", "dataset=wiki_demo.txt", "max_samples=60", "max_steps=10", "per_device_train_batch_size=4",
        "gradient_checkpointing=true",
    ],
}  # fmt: skip


def seconds_of(text):
    hours, minutes, seconds = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


def main():
    parser = argparse.ArgumentParser(description="Planned against used, for six trainings.")
    parser.add_argument("--luthier", default=os.path.join(ROOT, "target", "release", "luthier"))
    options = parser.parse_args()
    print(f"{time.strftime('%Y-%m-%d')}\n")
    print("| run | memory planned | used | | time planned | taken | |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    failed = False
    for name, settings in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            config = os.path.join(folder, "train.yaml")
            with open(config, "w", encoding="utf-8") as file:
                file.write(f"model_name_or_path: {MODEL}\ndataset_dir: {DATA}\noutput_dir: {folder}/out\n")
            found = subprocess.run([options.luthier, "train", config, *COMMON, *settings], capture_output=True, text=True)
        if found.returncode != 0:
            sys.exit(f"{name}: {found.stderr}")
        used, planned = map(float, re.search(r"memory: ([\d.]+) GB at the peak, ([\d.]+) GB planned", found.stderr).groups())
        taken, expected = map(seconds_of, re.search(r"time: (\S+) in all, (\S+) planned", found.stderr).groups())
        memory, clock = used / planned, taken / max(expected, 1)
        wrong = not 0.9 <= memory <= 1.0 or not 0.75 <= clock <= 1.25
        failed |= wrong
        print(
            f"| {name} | {planned:.2f} GB | {used:.2f} GB | {memory:.0%} | {expected} s | {taken} s | {clock:.0%}"
            f"{' !' if wrong else ''} |",
            flush=True,
        )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
