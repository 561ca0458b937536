#!/usr/bin/env python3
"""Luthier's QLoRA against LLaMA-Factory's own (bitsandbytes on a processor): one configuration file, one machine, in turn.

    python3 bench/versus_qlora.py                          # SmolLM2-135M shape
    python3 bench/versus_qlora.py --shape qwen2.5-0.5b --steps 4

Why it is made this way:

- Both programs read the same YAML: NF4 with double quantisation, LoRA of rank 8 on all linear layers, stage pt with packed rows of
  512 tokens, so that a step has the same tokens in both and none is padding.
- LLaMA-Factory runs as it is, started by its own `run_exp`; a callback notes when steps end. Both programs run with layers
  recomputed, which is LLaMA-Factory's default, and without, which is Luthier's where memory allows. Each of Luthier's runs is
  compared with LLaMA-Factory's faster one for speed, and with its smaller one for memory.
- Every run is a process of its own, so that the peak memory (VmHWM) is its own. The first two steps are not measured; of the
  others the median counts.
- Another busy process slows PyTorch several times over: a run that had company is marked (see versus_pytorch.py).

LLaMA-Factory goes to a virtual environment of its own (`bench/work/venv-qlora`, or the one that LUTHIER_QLORA_VENV names).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import versus_pytorch as base  # noqa: E402

PACKAGES = [
    "llamafactory==0.9.5", "bitsandbytes==0.50.0", "torch==2.11.0", "torchaudio==2.11.0", "torchvision==0.26.0",
    "transformers==5.6.0", "peft==0.18.1",
]  # fmt: skip
ROW_TOKENS = 512
WARM_UP = 2
PROGRAMS = ["luthier", "luthier, layers recomputed", "llamafactory, layers recomputed", "llamafactory"]


def configuration(folder, options):
    """The one file that both programs read."""
    lines = dict(
        model_name_or_path=os.path.join(folder, "model"), stage="pt", do_train="true", finetuning_type="lora", lora_rank=8,
        lora_target="all", quantization_bit=options.bits, quantization_type="nf4", double_quantization="true",
        quantization_method="bnb", dataset="text", dataset_dir=folder, cutoff_len=ROW_TOKENS, overwrite_cache="true",
        output_dir=os.path.join(folder, "out"), overwrite_output_dir="true", logging_steps=1, save_strategy="'no'",
        plot_loss="false", report_to="none", per_device_train_batch_size=options.rows, gradient_accumulation_steps=1,
        learning_rate=1e-4, lr_scheduler_type="constant", max_steps=options.steps + WARM_UP, bf16="true", use_cpu="true", seed=7,
    )  # fmt: skip
    path = os.path.join(folder, "qlora.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{key}: {value}\n" for key, value in lines.items())
    return path


def make_text(folder, options):
    """Sentences of random words; enough for every step."""
    import random

    numbers = random.Random(base.SEED)
    words = ["".join(numbers.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(numbers.randint(2, 9))) for _ in range(2000)]
    # A token is at least a letter and at most a word, so this is never too little.
    letters = (options.steps + WARM_UP) * options.rows * ROW_TOKENS * 10
    with open(os.path.join(folder, "text.jsonl"), "w", encoding="utf-8") as file:
        while letters > 0:
            text = " ".join(numbers.choice(words) for _ in range(400))
            letters -= len(text)
            file.write(json.dumps({"text": text}) + "\n")
    with open(os.path.join(folder, "dataset_info.json"), "w", encoding="utf-8") as file:
        json.dump({"text": {"file_name": "text.jsonl", "columns": {"prompt": "text"}}}, file)


def run_llamafactory(path, recompute, threads):
    """Trains as `llamafactory-cli train` does, and prints one line of JSON."""
    import torch
    import yaml
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    torch.set_num_threads(threads)
    times, losses = [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_, **__):
            times.append([time.perf_counter()])

        def on_step_end(self, *_, **__):
            times[-1].append(time.perf_counter())

        def on_log(self, *_, logs=None, **__):
            losses.extend([logs["loss"]] if logs and "loss" in logs else [])

    with open(path, encoding="utf-8") as file:
        settings = yaml.safe_load(file)
    if not recompute:
        settings["disable_gradient_checkpointing"] = True
    run_exp(settings, [Clock()])
    seconds = [end - begin for begin, end in times][WARM_UP:]
    print(json.dumps({"step_seconds": seconds, "loss": losses[-1], "peak_bytes": base.own_peak_bytes()}))


def virtual_environment():
    """The Python that has LLaMA-Factory and bitsandbytes; installed on first use."""
    folder = os.environ.get("LUTHIER_QLORA_VENV") or os.path.join(base.WORK, "venv-qlora")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        base.say(f"installing {', '.join(PACKAGES)} into {folder} (several GB, once)")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def main():
    parser = argparse.ArgumentParser(description="QLoRA of Luthier and of LLaMA-Factory on one machine.")
    parser.add_argument("--shape", choices=base.SHAPES, default="smollm2-135m")
    parser.add_argument("--bits", type=int, choices=[4, 8], default=4)
    parser.add_argument("--rows", type=int, default=4, help=f"of {ROW_TOKENS} tokens, a step")
    parser.add_argument("--steps", type=int, default=4, help=f"measured; {WARM_UP} come before")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--luthier", help="the luthier program; without it a release build is made")
    parser.add_argument("--make-checkpoint", help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--recompute", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make_checkpoint:
        return base.make_checkpoint(options.make_checkpoint, options.shape)
    if options.run:
        return run_llamafactory(options.run, options.recompute, options.threads)

    python, script = virtual_environment(), os.path.abspath(__file__)
    luthier = options.luthier or base.build_luthier()
    folder = os.path.join(base.WORK, f"qlora-{options.shape}")
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(os.path.join(folder, "model", "model.safetensors")):
        base.say(f"making a random checkpoint of the {options.shape} shape")
        model = os.path.join(folder, "model")
        subprocess.run([python, script, "--make-checkpoint", model, "--shape", options.shape], check=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(base.ROOT, "builtin", "model", name), model)
    make_text(folder, options)
    path = configuration(folder, options)
    environment = dict(
        os.environ, OMP_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="false", DISABLE_VERSION_CHECK="1",
        HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    results = {}
    tokens = options.rows * ROW_TOKENS
    for _ in range(options.rounds):
        for program in options.only:
            recompute = program.endswith("recomputed")
            if program.startswith("luthier"):
                command = [luthier, "bench", path, f"threads={options.threads}"]
                command += ["gradient_checkpointing=true"] if recompute else []
            else:
                command = [python, script, "--run", path, "--threads", str(options.threads)]
                command += ["--recompute"] if recompute else []
            found = base.run(command, environment)
            if "error" in found:
                base.say(f"{program}: {found['error']}")
                continue
            found["tokens_per_second"] = tokens / statistics.median(found["step_seconds"])
            results.setdefault(program, []).append(found)
            company = base.describe_company(found)
            base.say(
                f"{program}: {found['tokens_per_second']:.0f} tokens/s, {found['peak_bytes'] / 1e9:.2f} GB, loss {found['loss']:.3f}"
                + (f"  [not quiet: {company}]" if company else "")
            )

    speed = {name: statistics.median(run["tokens_per_second"] for run in runs) for name, runs in results.items()}
    peak = {name: max(run["peak_bytes"] for run in runs) for name, runs in results.items()}
    theirs = [name for name in results if name.startswith("llamafactory")]
    print(
        f"{options.shape}, {options.bits} bits, {options.rows} rows of {ROW_TOKENS} tokens a step, {options.threads} threads, "
        f"{base.processor()}, {time.strftime('%Y-%m-%d')}\n"
    )
    print("| run | tokens/s, median | peak memory | runs |\n| --- | ---: | ---: | ---: |")
    for name, runs in results.items():
        quiet = sum(1 for run in runs if not base.describe_company(run))
        count = f"{len(runs)}" + ("" if quiet == len(runs) else f" ({len(runs) - quiet} not quiet)")
        print(f"| {name} | {speed[name]:.0f} | {peak[name] / 1e9:.2f} GB | {count} |")
    for name in [name for name in results if theirs and name.startswith("luthier")]:
        faster = speed[name] / max(speed[other] for other in theirs)
        smaller = peak[name] / min(peak[other] for other in theirs)
        print(f"\n{name}: {faster:.2f} times the tokens/s of LLaMA-Factory's faster, {smaller:.2f} of the memory of its smaller")


if __name__ == "__main__":
    main()
