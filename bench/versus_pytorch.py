#!/usr/bin/env python3
"""Luthier against PyTorch: the same checkpoint, the same rows, the same settings, in turn.

    python3 bench/versus_pytorch.py                             # SmolLM2-135M shape, LoRA, bf16 and fp32
    python3 bench/versus_pytorch.py --method full --precision bf16
    python3 bench/versus_pytorch.py --shape qwen2.5-0.5b
    python3 bench/versus_pytorch.py --only pytorch              # without building Luthier

Why it is made this way:

- PyTorch is given its best: {bf16 weights, bf16 weights under autocast, bf16 autocast} and fp32, each eager and
  compiled, each with glibc's malloc and with tcmalloc, two threads, no recomputation, rows padded only to the longest
  of their batch. Every variant runs once; the fastest two of each precision then run again, in turn with Luthier.
  Compiling takes minutes the first time; `--match eager` leaves the compiled variants out.
- Every run is a process of its own, so that the peak memory (VmHWM) and the allocator are its own.
- A run walks its batches once to warm up (torch.compile sees every shape) and then measures them again.
- Tokens are real ones: padding is never counted.
- Another busy process slows PyTorch several times over. The machine is watched before and during each run, and a run
  that had company is marked and left out of the medians while clean ones exist.

It refuses to compare on anything but one machine at one time: there are no stored numbers.
The script needs only Python 3.10+; torch, transformers and peft go to a virtual environment of their own
(`bench/work/venv`, or the folder that LUTHIER_BENCH_VENV names). tcmalloc: `apt-get install libtcmalloc-minimal4`.
"""

import argparse
import dataclasses
import glob
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WORK = os.path.join(HERE, "work")
PACKAGES = ["torch==2.11.0", "transformers==5.6.0", "peft==0.18.1"]
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROWS_A_STEP = 4
ROW_TOKENS = (200, 500)
TRAINED_SHARE = 0.6
LORA_RANK, LORA_ALPHA = 8, 16
LEARNING_RATE = 1e-4
SEED = 7

SHAPES = {
    "smollm2-135m": dict(
        model_type="llama", hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=49152, rope_theta=100000.0, rms_norm_eps=1e-5,
        max_position_embeddings=8192, tie_word_embeddings=True,
    ),
    "qwen2.5-0.5b": dict(
        model_type="qwen2", hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, vocab_size=151936, rope_theta=1000000.0, rms_norm_eps=1e-6,
        max_position_embeddings=32768, tie_word_embeddings=True,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the training; `weights` is what the frozen weights are stored in."""

    program: str  # pytorch | luthier
    precision: str  # bf16 | fp32: what the matrix products multiply
    weights: str = ""  # bf16 | fp32
    autocast: bool = False
    compiled: bool = False
    allocator: str = ""  # glibc | tcmalloc

    def name(self):
        if self.program == "luthier":
            return f"Luthier {self.precision}"
        numbers = f"{self.weights} weights" + (", bf16 autocast" if self.autocast else "")
        return f"PyTorch {numbers}, {'compiled' if self.compiled else 'eager'}, {self.allocator}"


def pytorch_variants(precisions, allocators):
    kinds = []
    if "bf16" in precisions:
        kinds += [("bf16", "bf16", False), ("bf16", "bf16", True), ("bf16", "fp32", True)]
    if "fp32" in precisions:
        kinds += [("fp32", "fp32", False)]
    return [
        Variant("pytorch", precision, weights, autocast, compiled, allocator)
        for precision, weights, autocast in kinds
        for compiled in (False, True)
        for allocator in allocators
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The checkpoint and the rows: made once a shape, the same files for both programs.


def make_rows(path, vocabulary, steps):
    """Rows of random token ids; the labels are -100 up to the reply, which is the last 60 % of a row."""
    numbers = random.Random(SEED)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(steps * ROWS_A_STEP):
            length = numbers.randint(*ROW_TOKENS)
            ids = [numbers.randrange(vocabulary) for _ in range(length)]
            prompt = length - round(length * TRAINED_SHARE)
            file.write(json.dumps({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}) + "\n")


def make_checkpoint(folder, shape):
    """A random checkpoint in bf16 safetensors. Runs inside the virtual environment."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(SEED)
    settings = dict(SHAPES[shape])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


# ---------------------------------------------------------------------------------------------------------------------
# One PyTorch run. This part runs in the virtual environment, one process a run.


def read_batches(path, steps, torch):
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][: steps * ROWS_A_STEP]
    batches = []
    for start in range(0, len(rows), ROWS_A_STEP):
        group = rows[start : start + ROWS_A_STEP]
        longest = max(len(row["input_ids"]) for row in group)
        ids = torch.zeros(len(group), longest, dtype=torch.long)
        mask = torch.zeros(len(group), longest, dtype=torch.long)
        labels = torch.full((len(group), longest), -100, dtype=torch.long)
        for index, row in enumerate(group):
            length = len(row["input_ids"])
            ids[index, :length] = torch.tensor(row["input_ids"])
            labels[index, :length] = torch.tensor(row["labels"])
            mask[index, :length] = 1
        batches.append((ids, mask, labels))
    return batches


def run_pytorch(job):
    """Trains `steps` steps twice, the second time measured, and prints one line of JSON."""
    import torch
    from transformers import AutoModelForCausalLM

    started = time.perf_counter()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(SEED)
    weights = torch.bfloat16 if job["weights"] == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=weights, attn_implementation="sdpa")
    model.config.use_cache = False
    if job["method"] == "lora":
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=LINEARS, task_type="CAUSAL_LM")
        # Under autocast the adapter is kept in fp32, as the fine-tuning programs do it; without it bf16 is fastest.
        model = get_peft_model(model, config, autocast_adapter_dtype=job["autocast"])
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)
    call = torch.compile(model, dynamic=True) if job["compiled"] else model
    batches = read_batches(job["rows"], job["steps"], torch)

    def step(ids, mask, labels):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["autocast"]):
            loss = call(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    step(*batches[0])
    first_step = time.perf_counter() - started
    for batch in batches[1:]:
        step(*batch)
    seconds, losses = [], []
    for batch in batches:
        before = time.perf_counter()
        losses.append(step(*batch))
        seconds.append(time.perf_counter() - before)
    # The median over steps, so that a late compilation of PyTorch's does not count against it.
    real = [int(mask.sum()) / taken for (_, mask, _), taken in zip(batches, seconds)]
    scored = [int((labels[:, 1:] != -100).sum()) / taken for (_, _, labels), taken in zip(batches, seconds)]
    print(
        json.dumps(
            {
                "real_tokens_per_second": statistics.median(real),
                "trained_tokens_per_second": statistics.median(scored),
                "step_seconds": seconds,
                "peak_bytes": own_peak_bytes(),
                "first_step_seconds": first_step,
                "loss": losses[-1],
            }
        )
    )


def own_peak_bytes():
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


# ---------------------------------------------------------------------------------------------------------------------
# Running and watching


def busy_seconds():
    """Processor seconds that all processes of the machine have used, and those that the host took away."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) for field in file.readline().split()[1:]]
    ticks = os.sysconf("SC_CLK_TCK")
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def machine_is_busy(seconds=1.0):
    """The share of one core that others use while this script sleeps."""
    before, _ = busy_seconds()
    time.sleep(seconds)
    return (busy_seconds()[0] - before) / seconds


def run(command, environment):
    """Runs a command; returns the last JSON line it printed, with what the machine did meanwhile."""
    before = machine_is_busy()
    busy, steal = busy_seconds()
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        printed = output.read().decode(errors="replace")
        complaint = errors.read().decode(errors="replace")
    busy_after, steal_after = busy_seconds()
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    if process.returncode != 0 or not lines:
        return {"error": f"exit code {process.returncode}: {complaint.strip()[-1500:]}"}
    others = (busy_after - busy) - (usage.ru_utime + usage.ru_stime)
    result = json.loads(lines[-1])
    result["child_peak_bytes"] = usage.ru_maxrss * 1024
    # The kernel counts in hundredths of a second: a run of a moment says nothing about its company.
    result["others_busy"] = max(before, others / wall) if wall > 1 else before
    result["stolen"] = (steal_after - steal) / wall
    return result


def describe_company(result):
    notes = []
    if result["others_busy"] > 0.1:
        notes.append(f"another process used {result['others_busy']:.0%} of a core")
    if result["stolen"] > 0.05:
        notes.append(f"the host took {result['stolen']:.0%} of a core")
    return "; ".join(notes)


def find_tcmalloc():
    found = sorted(glob.glob("/usr/lib/*/libtcmalloc*.so*") + glob.glob("/usr/lib/libtcmalloc*.so*"), key=len)
    return found[0] if found else None


def virtual_environment():
    """The Python that has torch, transformers and peft; installed on first use."""
    folder = os.environ.get("LUTHIER_BENCH_VENV") or os.path.join(WORK, "venv")
    python = os.path.join(folder, "bin", "python")
    stamp = os.path.join(folder, "luthier-bench.txt")
    wanted = "\n".join(PACKAGES)
    if os.environ.get("LUTHIER_BENCH_VENV"):
        return python
    if not (os.path.exists(stamp) and open(stamp, encoding="utf-8").read() == wanted):
        say(f"installing {', '.join(PACKAGES)} into {folder} (several GB, once)")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(wanted)
    return python


def build_luthier():
    command = ["cargo", "build", "--release", "--package", "luthier", "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "luthier":
            return message["executable"]
    sys.exit("cargo built no executable named luthier")


def luthier_config(folder, job, precision):
    """The same training as `run_pytorch`, in Luthier's own configuration."""
    lines = {
        "model_name_or_path": job["model"],
        "stage": "sft",
        "finetuning_type": job["method"],
        "dataset": job["rows"],
        "cutoff_len": 512,
        "output_dir": os.path.join(folder, "out"),
        "overwrite_output_dir": "true",
        "per_device_train_batch_size": ROWS_A_STEP,
        "gradient_accumulation_steps": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_steps": job["steps"],
        "max_grad_norm": 1.0,
        "weight_decay": 0.01,
        "precision": precision,
        "threads": job["threads"],
        "disable_gradient_checkpointing": "true",
    }
    if job["method"] == "lora":
        lines |= {"lora_rank": LORA_RANK, "lora_alpha": LORA_ALPHA, "lora_target": "all"}
    path = os.path.join(folder, f"luthier-{job['method']}-{precision}.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{key}: {value}\n" for key, value in lines.items())
    return path


class Bench:
    """Everything that a run needs to know, and every result so far."""

    def __init__(self, options):
        self.options = options
        self.results = {}
        self.folder = os.path.join(WORK, options.shape)
        self.tcmalloc = find_tcmalloc()
        self.job = {
            "model": os.path.join(self.folder, "model"),
            "rows": os.path.join(self.folder, "rows.jsonl"),
            "method": options.method,
            "steps": options.steps,
            "threads": options.threads,
        }
        os.makedirs(self.folder, exist_ok=True)
        self.python = virtual_environment()
        if not os.path.exists(os.path.join(self.job["model"], "model.safetensors")):
            say(f"making a random checkpoint of the {options.shape} shape")
            command = [self.python, os.path.abspath(__file__), "--make-checkpoint", self.job["model"]]
            subprocess.run([*command, "--shape", options.shape], check=True)
        make_rows(self.job["rows"], SHAPES[options.shape]["vocab_size"], options.steps)
        self.luthier = (options.luthier or build_luthier()) if options.only != "pytorch" else None

    def variants(self):
        allocators = ["glibc"] + (["tcmalloc"] if self.tcmalloc else [])
        pytorch = pytorch_variants(self.options.precision, allocators) if self.options.only != "luthier" else []
        if self.options.match:
            pytorch = [variant for variant in pytorch if all(word in variant.name() for word in self.options.match)]
        luthier = [Variant("luthier", precision) for precision in self.options.precision] if self.luthier else []
        return luthier, pytorch

    def run(self, variant):
        # Compiling in the process itself keeps helpers from looking like other programs.
        settings = {"OMP_NUM_THREADS": str(self.options.threads), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        environment = dict(os.environ, **settings, TOKENIZERS_PARALLELISM="false")
        for name in ("LD_PRELOAD", "ONEDNN_DEFAULT_FPMATH_MODE"):
            environment.pop(name, None)
        if variant.program == "luthier":
            command = [self.luthier, "bench", luthier_config(self.folder, self.job, variant.precision)]
        else:
            if variant.allocator == "tcmalloc":
                environment["LD_PRELOAD"] = self.tcmalloc
            job = json.dumps(self.job | dataclasses.asdict(variant))
            command = [self.python, os.path.abspath(__file__), "--run-pytorch", job]
        for _ in range(self.options.tries):
            result = run(command, environment)
            if "error" in result:
                say(f"{variant.name()}: {result['error']}")
                return
            company = describe_company(result)
            self.results.setdefault(variant, []).append(result)
            say(
                f"{variant.name()}: {result['real_tokens_per_second']:.0f} tokens/s, "
                f"{result['peak_bytes'] / 1e9:.2f} GB" + (f"  [not quiet: {company}]" if company else "")
            )
            if not company:
                return

    def clean(self, variant):
        """The results of a variant that had the machine to themselves; all of them if there are none."""
        results = self.results[variant]
        return [result for result in results if not describe_company(result)] or results

    def speed(self, variant):
        return statistics.median(result["real_tokens_per_second"] for result in self.clean(variant))

    def fastest(self, precision, count):
        found = [v for v in self.results if v.program == "pytorch" and v.precision == precision]
        return sorted(found, key=self.speed, reverse=True)[:count]

    def measure(self):
        luthier, pytorch = self.variants()
        say("round 1: every variant")
        for variant in luthier + pytorch:
            self.run(variant)
        for turn in range(2, self.options.rounds + 1):
            say(f"round {turn}: Luthier and the fastest of PyTorch, in turn")
            for precision in self.options.precision:
                for variant in [v for v in luthier if v.precision == precision] + self.fastest(precision, 2):
                    if variant in self.results:
                        self.run(variant)

    def report(self):
        lines = [
            f"{self.options.shape}, {self.options.method}, {ROWS_A_STEP} rows of {ROW_TOKENS[0]}-{ROW_TOKENS[1]} tokens "
            f"a step, {TRAINED_SHARE:.0%} trained, {self.options.threads} threads, {processor()}, "
            f"{time.strftime('%Y-%m-%d')}",
            "",
            "| run | real tokens/s, median | spread | peak memory | to PyTorch's best | memory to that one's | runs |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for precision in self.options.precision:
            best = next(iter(self.fastest(precision, 1)), None)
            group = [variant for variant in self.results if variant.precision == precision]
            for variant in sorted(group, key=self.speed, reverse=True):
                results = self.clean(variant)
                speeds = [result["real_tokens_per_second"] for result in results]
                peak = max(result["peak_bytes"] for result in results)
                ratio = memory = "-"
                if best:
                    ratio = f"{self.speed(variant) / self.speed(best):.2f}"
                    memory = f"{peak / max(result['peak_bytes'] for result in self.clean(best)):.2f}"
                company = sum(1 for result in results if describe_company(result))
                runs = f"{len(results)}" + (f" ({company} not quiet)" if company else "")
                lines.append(
                    f"| {variant.name()} | {self.speed(variant):.0f} | {min(speeds):.0f}-{max(speeds):.0f} "
                    f"| {peak / 1e9:.2f} GB | {ratio} | {memory} | {runs} |"
                )
        for variant, results in self.results.items():
            if variant.program == "luthier":
                shown = {key: results[-1].get(key) for key in ("share_of_peak", "first_forward_seconds")}
                lines.append(f"\n{variant.name()}: {shown}")
        return "\n".join(lines)


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description="Luthier against PyTorch on one machine.")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--precision", nargs="+", choices=["bf16", "fp32"], default=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="measured steps a run; as many warm up before")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tries", type=int, default=2, help="runs of a variant while the machine is not quiet")
    parser.add_argument("--only", choices=["pytorch", "luthier"])
    parser.add_argument("--match", nargs="+", help="only the PyTorch variants whose names contain all these words")
    parser.add_argument("--luthier", help="the luthier program; without it a release build is made")
    parser.add_argument("--json", help="write every result to this file")
    parser.add_argument("--make-checkpoint", help=argparse.SUPPRESS)
    parser.add_argument("--run-pytorch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make_checkpoint:
        return make_checkpoint(options.make_checkpoint, options.shape)
    if options.run_pytorch:
        return run_pytorch(json.loads(options.run_pytorch))
    bench = Bench(options)
    if not bench.tcmalloc:
        say("tcmalloc is not installed: its variants are left out (apt-get install libtcmalloc-minimal4)")
    bench.measure()
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([{"run": v.name(), "results": r} for v, r in bench.results.items()], file, indent=1)
    print(bench.report())


if __name__ == "__main__":
    main()
