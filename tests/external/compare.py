"""Loads what Luthier wrote in PEFT, transformers and llama.cpp and compares their logits with Luthier's.

See README.md beside this file. The page that it writes is docs/external.md.
"""

import argparse
import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = json.loads((ROOT / "crates/luthier/src/export/prompts.json").read_text())[:16]

# Programs that compute in f32 differ by the order of their sums. The largest difference of a logit; SmolLM2's reach 30.
BOUND_TRANSFORMERS = 5e-3
# llama.cpp multiplies weights of 16 bits with activations rounded to the same 16 bits, and q8_0 with activations
# quantised to 8 bits; Luthier's f32 does neither. That the files hold the right numbers is shown by the bytes, which are
# compared below; here the root mean square of the differences, relative to that of the logits, shows that llama.cpp
# takes them as they are meant.
BOUND_LLAMA_CPP = {"f32": 1e-4, "f16": 0.005, "bf16": 0.03, "q8_0": 0.1}
# Positions, in percent, where both find the same token the most likely.
AGREEMENT = {"f32": 99.5, "f16": 98.0, "bf16": 96.0, "q8_0": 92.0}
# The small random models of fixtures/models, in f32. Their logits reach about 1.
BOUND_FAMILY = 1e-4


class Page:
    """The table of all comparisons."""

    def __init__(self):
        self.lines = []
        self.broken = []

    def section(self, title, header):
        self.lines += ["", f"## {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        print(f"\n{title}", flush=True)

    def row(self, *cells, ok=True):
        self.lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        print("  " + "  ".join(str(cell) for cell in cells) + ("" if ok else "  BROKEN"), flush=True)
        if not ok:
            self.broken.append(str(cells[0]))


class Luthier:
    def __init__(self, binary, work):
        self.binary, self.work = str(binary), work
        self.cache = {}

    def run(self, *arguments):
        done = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"luthier {' '.join(map(str, arguments))} failed:\n{done.stderr}")
        return done.stdout

    def logits(self, model, adapter=None, text=None, ids=None):
        """Ids and logits of a text, or of ids."""
        from safetensors.numpy import load_file

        key = (str(model), str(adapter), text, tuple(ids or ()))
        if key not in self.cache:
            file = self.work / "logits.safetensors"
            arguments = ["--adapter", adapter] if adapter else []
            arguments += ["--ids", ",".join(map(str, ids))] if ids is not None else ["--prompt", text]
            self.run("logits", "--model", model, *arguments, "--output", file)
            found = load_file(file)
            self.cache[key] = found["ids"].astype(int).tolist(), found["logits"]
        return self.cache[key]


class Difference:
    """Over several texts: the largest difference and the share of equal most likely tokens."""

    def __init__(self):
        self.far, self.same, self.positions, self.other_tokens = 0.0, 0, 0, 0
        self.squares, self.differences = 0.0, 0.0

    def add(self, ours, theirs):
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        self.far = max(self.far, float(np.abs(ours - theirs).max()))
        self.differences += float(np.square(ours - theirs, dtype=np.float64).sum())
        self.squares += float(np.square(ours, dtype=np.float64).sum())
        self.same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        self.positions += len(ours)

    @property
    def relative(self):
        """Root mean square of the differences, relative to that of the logits."""
        return (self.differences / self.squares) ** 0.5

    @property
    def agreement(self):
        return 100.0 * self.same / self.positions


def transformers_difference(luthier, folder, ours, adapter=None, peft_adapter=None):
    """Logits of a folder in transformers, with an adapter in PEFT, against Luthier's of `ours`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if peft_adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, peft_adapter)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    difference = Difference()
    for text in PROMPTS:
        ids, found = luthier.logits(ours, adapter, text=text)
        if tokenizer(text, add_special_tokens=False)["input_ids"] != ids:
            difference.other_tokens += 1
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].float().numpy()
        difference.add(found, logits)
    return difference


def llama_cpp(path, context=512):
    import llama_cpp.llama_cpp as library
    from llama_cpp import Llama

    defaults = library.llama_model_default_params

    def as_they_lie():
        # Without the copies of weights that are rearranged for AMX: with them q8_0 ends in a general protection fault
        # within libggml-cpu on some machines (llama-cpp-python 0.3.36).
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    library.llama_model_default_params = as_they_lie
    try:
        # The cache in f32: its rounding is not the file's.
        return Llama(str(path), n_ctx=context, logits_all=True, type_k=0, type_v=0, n_threads=2, verbose=False)
    finally:
        library.llama_model_default_params = defaults


def llama_cpp_logits(model, ids):
    model.reset()
    model.eval(ids)
    return np.array(model.scores[: len(ids)], dtype=np.float32)


def llama_cpp_difference(luthier, path):
    model = llama_cpp(path)
    difference = Difference()
    for text in PROMPTS:
        ids, found = luthier.logits(path, text=text)
        if model.tokenize(text.encode(), add_bos=False, special=True) != ids:
            difference.other_tokens += 1
        difference.add(found, llama_cpp_logits(model, ids))
    return difference


def train(luthier, work, name, **settings):
    config = work / f"{name}.yaml"
    output = work / name
    settings = {"stage": "sft", "dataset": "identity", "cutoff_len": 128, "per_device_train_batch_size": 4,
                "lr_scheduler_type": "constant", "logging_steps": 10, "output_dir": output, **settings}
    config.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    luthier.run("train", config)
    return output


def real_model(page, luthier, work, assets):
    gguf = assets / "SmolLM2-135M-Instruct.Q4_1.gguf"
    base = work / "base"
    luthier.run("export", "--model", gguf, "--output", base, "--outtype", "f32")
    common = {"dataset_dir": assets / "data"}
    adapter = train(luthier, work, "lora", model_name_or_path=gguf, finetuning_type="lora", lora_rank=8, lora_target="all",
                    learning_rate="1.0e-3", max_steps=46, **common)
    full = train(luthier, work, "full", model_name_or_path=base, finetuning_type="full", learning_rate="1.0e-5", max_steps=4,
                 **common)

    page.section("transformers and PEFT", ["what is loaded", "against", "largest logit difference", "bound",
                                           "most likely token agrees", "other tokens"])

    def row(what, against, difference):
        ok = difference.far <= BOUND_TRANSFORMERS and difference.other_tokens == 0
        page.row(what, against, f"{difference.far:.2e}", BOUND_TRANSFORMERS, f"{difference.agreement:.2f} %",
                 f"{difference.other_tokens} of {len(PROMPTS)} texts", ok=ok)

    row("the GGUF base, exported as f32 folder", "the GGUF base", transformers_difference(luthier, base, gguf))
    row("that folder with the adapter in PEFT", "the GGUF base with the adapter",
        transformers_difference(luthier, base, gguf, adapter, adapter))
    for outtype in ["f32", "bf16"]:
        merged = work / f"merged-{outtype}"
        luthier.run("export", "--model", gguf, "--adapter", adapter, "--output", merged, "--outtype", outtype,
                    "--max-shard-size", "200MB")
        row(f"merged, {outtype} folder in shards", "the same folder", transformers_difference(luthier, merged, merged))
    row("a full training's folder", "the same folder", transformers_difference(luthier, full, full))

    page.section("llama.cpp", ["file", "largest logit difference", "relative root mean square", "bound",
                               "most likely token agrees", "bound", "other tokens"])
    for name, model, extra in [("merged", gguf, ["--adapter", adapter]), ("full", full, [])]:
        for outtype in ["f32", "f16", "bf16", "q8_0"]:
            file = work / f"{name}-{outtype}.gguf"
            luthier.run("export", "--model", model, *extra, "--output", file, "--outtype", outtype, "--modelfile")
            difference = llama_cpp_difference(luthier, file)
            ok = (difference.relative <= BOUND_LLAMA_CPP[outtype] and difference.agreement >= AGREEMENT[outtype]
                  and difference.other_tokens == 0)
            page.row(f"{name}, {outtype}", f"{difference.far:.2e}", f"{difference.relative:.1e}",
                     BOUND_LLAMA_CPP[outtype], f"{difference.agreement:.2f} %", f"{AGREEMENT[outtype]} %",
                     f"{difference.other_tokens} of {len(PROMPTS)} texts", ok=ok)
    stored_bytes(page, work)


def tensors_of(path):
    """Name, type, dimensions and bytes of each tensor of a GGUF file."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    place = 4

    def number(kind):
        nonlocal place
        value = np.frombuffer(data[place : place + np.dtype(kind).itemsize].tobytes(), kind)[0]
        place += np.dtype(kind).itemsize
        return value.item()

    def text():
        nonlocal place
        length = number("<u8")
        place += length
        return data[place - length : place].tobytes().decode(errors="replace")

    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def skip(kind):
        nonlocal place
        if kind == 8:
            text()
        elif kind == 9:
            inner, count = number("<u4"), number("<u8")
            for _ in range(count):
                skip(inner)
        else:
            place += sizes[kind]

    assert number("<u4") == 3
    count, keys = number("<u8"), number("<u8")
    for _ in range(keys):
        text()
        skip(number("<u4"))
    found = []
    for _ in range(count):
        name = text()
        dims = [number("<u8") for _ in range(number("<u4"))]
        found.append((name, number("<u4"), dims, number("<u8")))
    start = -(-place // 32) * 32
    bytes_of = {0: lambda n: 4 * n, 1: lambda n: 2 * n, 8: lambda n: n // 32 * 34, 30: lambda n: 2 * n}
    return {name: (kind, dims, data[start + offset : start + offset + bytes_of[kind](int(np.prod(dims)))])
            for name, kind, dims, offset in found}


def stored_bytes(page, work):
    """The bytes of each file against what others make of the numbers of the f32 file."""
    import llama_cpp
    import torch

    folder = Path(llama_cpp.__file__).parent / "lib"
    quantise = ctypes.CDLL(str(next(folder.glob("libggml-base.*")))).ggml_quantize_chunk
    quantise.restype = ctypes.c_size_t
    quantise.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
                         ctypes.c_void_p]

    def blocks(values, dims):
        made = np.empty(values.size // 32 * 34, np.uint8)
        quantise(8, values.ctypes.data, made.ctypes.data, 0, dims[1], dims[0], None)
        return made

    others = {
        "f16": (1, "NumPy's float16", lambda values, dims: values.astype(np.float16).view(np.uint8)),
        "bf16": (30, "PyTorch's bfloat16",
                 lambda values, dims: torch.from_numpy(values).bfloat16().view(torch.uint8).numpy()),
        "q8_0": (8, "`ggml_quantize_chunk`", blocks),
    }
    numbers = tensors_of(work / "merged-f32.gguf")
    page.section("What the files store", ["file", "compared with, made of the f32 file", "matrices with equal bytes"])
    for outtype, (number, what, make) in others.items():
        equal, compared = 0, 0
        for name, (kind, dims, ours) in tensors_of(work / f"merged-{outtype}.gguf").items():
            if kind == number:
                values = np.ascontiguousarray(numbers[name][2]).view(np.float32)
                equal += int(np.array_equal(make(values, dims), ours))
                compared += 1
        page.row(f"merged, {outtype}", what, f"{equal} of {compared}", ok=equal == compared > 0)


def small_tokenizer():
    """Every letter of ASCII in the alphabet of byte-level vocabularies: the fixtures have 128 rows and no tokenizer."""
    specials = ["<pad>", "<s>", "</s>"]
    vocabulary = specials + ["Ġ", "Ċ"] + [chr(code) for code in range(33, 127)]
    added = [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for index, token in enumerate(specials)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                                                "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {token: index for index, token in enumerate(vocabulary)}, "merges": []}}


def families(page, luthier, work):
    page.section("Families in llama.cpp, f32", ["model of fixtures/models", "architecture", "largest logit difference", "bound"])
    ids = [(place * 37 + 5) % 128 for place in range(24)]
    for source in sorted((ROOT / "fixtures/models").iterdir()):
        folder = work / f"family-{source.name}"
        shutil.copytree(source, folder)
        config = json.loads((folder / "config.json").read_text())
        if source.name == "smollm3":
            # The fixture leaves another layer unrotated than llama.cpp can.
            config["no_rope_layers"] = [1, 1]
        if source.name == "llama-dynamic-rope":
            # Beyond this length llama.cpp does not stretch; the fixture's own is shorter than the row.
            config["max_position_embeddings"] = 64
        if source.name == "mistral-window":
            # llama.cpp has no window for it; texts shorter than the window are the same.
            config["sliding_window"] = None
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").write_text(json.dumps(small_tokenizer()))
        (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
        file = work / f"{source.name}.gguf"
        luthier.run("export", "--model", folder, "--output", file, "--outtype", "f32")
        _, ours = luthier.logits(folder, ids=ids)
        model = llama_cpp(file, context=64)
        theirs = llama_cpp_logits(model, ids)
        far = float(np.abs(ours - theirs).max())
        architecture = model.metadata["general.architecture"]
        page.row(source.name, f"`{architecture}`", f"{far:.2e}", BOUND_FAMILY, ok=far <= BOUND_FAMILY)
        model.close()


def versions():
    from importlib.metadata import version

    names = ["torch", "transformers", "peft", "safetensors", "llama-cpp-python"]
    return ", ".join(f"{name} {version(name)}" for name in names) + f", Python {platform.python_version()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--luthier", type=Path, default=ROOT / "target/release/luthier")
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("LUTHIER_ASSETS", ROOT / "assets")))
    parser.add_argument("--output", type=Path, default=ROOT / "docs/external.md")
    parser.add_argument("--keep", type=Path, help="a new folder for the files in between, which is then kept")
    parser.add_argument("--only", choices=["real", "families"], help="a part; then nothing is written")
    arguments = parser.parse_args()
    page = Page()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.keep or Path(temporary)
        work.mkdir(exist_ok=True)
        luthier = Luthier(arguments.luthier, work)
        if arguments.only != "families":
            real_model(page, luthier, work, arguments.assets)
        if arguments.only != "real":
            families(page, luthier, work)
    if arguments.only is None:
        head = ["# What Luthier writes, in other programs", "",
                "Written by `tests/external/compare.py`, which says what it does and why each bound is what it is. The model is",
                "SmolLM2-135M-Instruct from a Q4_1 GGUF file; the texts are the first 16 prompts of the export's replay. Luthier computes",
                f"in f32. With {versions()}."]
        arguments.output.write_text("\n".join(head + page.lines) + "\n")
    if page.broken:
        sys.exit(f"\nbounds broken: {', '.join(page.broken)}")


if __name__ == "__main__":
    main()
