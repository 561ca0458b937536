"""A Q4_K_M file in, a LoRA adapter trained and merged, a Q4_K_M file out: what that changes, by Luthier and by llama.cpp.

See README.md beside this file. Two models: SmolLM2-135M-Instruct, whose rows of 576 numbers are no whole blocks of 256, and a
random llama, whose rows are.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

import sections
from compare import ROOT, Difference, Luthier, llama_cpp, llama_cpp_logits, train
from encoders import HEAD, SEED, random_model
from gguf_file import BLOCKS, Gguf, decode, digest, llama_cpp_quantise

F32, Q4_K_M = 0, 15
# What Luthier prints against what llama.cpp computes in f32 from the same file: both round differently, and the printed
# numbers have four decimals. Relative, of the largest and of the mean difference; and percentage points.
BOUND_LARGEST, BOUND_MEAN, BOUND_AGREEMENT = 0.02, 0.01, 0.5
# llama.cpp multiplies blocks with activations quantised to 8 bits: root mean square of what that changes, of the logits'.
BOUND_DIRECT = 0.12
# The error of the whole file in blocks, of what llama.cpp's own tool leaves.
BOUND_FILE = 1.02


def file_error(path, plain):
    """Squared error of a file's blocks, over all of them."""
    file, total = Gguf(path), 0.0
    for name, (kind, dims, blocks) in file.tensors.items():
        if kind in BLOCKS:
            values = plain.values(name).astype(np.float64)
            total += float(np.square(decode(kind, blocks, values.size).reshape(values.shape) - values).sum())
    return total ** 0.5


def printed(text):
    """The numbers of an export's report."""
    after = lambda what: next(line.split(what)[1].strip() for line in text.splitlines() if what in line)
    agreement, positions = re.match(r"([\d.]+) % \(\d+ of (\d+)", after("most likely token agrees")).groups()
    by_adapter = float(after("mean change by the adapter"))
    return {"largest": float(after("largest logit difference")), "mean": float(after("mean logit difference")),
            "agreement": float(agreement), "positions": int(positions), "adapter": by_adapter}


def replayed(luthier, model, adapter=None):
    """Token rows of the replay, and Luthier's logits of each."""
    from safetensors.numpy import load_file

    file = luthier.work / "replay.safetensors"
    luthier.run("logits", "--model", model, *(["--adapter", adapter] if adapter else []), "--replay", "--output", file)
    found = load_file(file)
    ends = np.cumsum(found["lengths"].astype(int))[:-1]
    rows = [row.astype(int).tolist() for row in np.split(found["ids"], ends)]
    return rows, np.split(found["logits"], ends)


def in_llama_cpp(file, rows):
    model = llama_cpp(file)
    found = [llama_cpp_logits(model, row) for row in rows]
    model.close()
    return found


def compared(ours, theirs):
    difference = Difference()
    far = 0.0
    for one, other in zip(ours, theirs):
        difference.add(one, other)
        far += float(np.abs(one - other).sum(dtype=np.float64))
    difference.mean = far / sum(one.size for one in ours)
    return difference


class Rows:
    def __init__(self):
        self.mix, self.trip, self.direct, self.broken = [], [], [], []

    def add(self, table, *cells, ok):
        table.append(cells)
        print("  ".join(str(cell) for cell in cells) + ("" if ok else "  BROKEN"), flush=True)
        if not ok:
            self.broken.append(str(cells[0]))


def round_trip(rows, luthier, work, label, model, dataset_dir, steps):
    plain_file = work / f"{label}-f32.gguf"
    luthier.run("export", "--model", model, "--output", plain_file, "--outtype", "f32")
    ours, base = work / f"{label}-ours.gguf", work / f"{label}-Q4_K_M.gguf"
    luthier.run("export", "--model", model, "--output", ours, "--outtype", "q4_k_m")
    llama_cpp_quantise(plain_file, base, Q4_K_M)
    plain, one, other = Gguf(plain_file), Gguf(ours), Gguf(base)
    kinds = {name: kind for name, (kind, *_) in other.tensors.items()}
    equal = sum(one.tensors[name][0] == kind for name, kind in kinds.items())
    ratio = file_error(ours, plain) / file_error(base, plain)
    counts = ", ".join(f"{list(kinds.values()).count(kind)} {kind}" for kind in sorted(set(kinds.values())))
    logits = {file: replayed(luthier, file)[1] for file in [plain_file, ours, base]}
    far, far_there = (compared(logits[plain_file], logits[file]).mean for file in [ours, base])
    del logits
    rows.add(rows.mix, label, counts, f"{equal} of {len(kinds)}", f"{ratio:.4f}", BOUND_FILE, f"{far:.4f}", f"{far_there:.4f}",
             ok=equal == len(kinds) == len(one.tensors) and ratio <= BOUND_FILE)

    # The random model has no chat template of its own.
    template = {"template": "alpaca"} if "chat_template" not in " ".join(other.metadata) else {}
    adapter = train(luthier, work, f"{label}-lora", model_name_or_path=base, finetuning_type="lora", lora_rank=8,
                    lora_target="q_proj,v_proj,down_proj", learning_rate="2.0e-3", max_steps=steps, dataset_dir=dataset_dir, **template)
    tuned_file = work / f"{label}-tuned.gguf"
    said = printed(luthier.run("export", "--model", base, "--adapter", adapter, "--output", tuned_file))
    tuned = Gguf(tuned_file)
    # What should be untouched is, by type and bytes; all metadata is there.
    adapted = ["attn_q.weight", "attn_v.weight", "ffn_down.weight"]
    for name, (kind, dims, blocks) in other.tensors.items():
        changes = any(name.endswith(part) for part in adapted)
        same = digest(blocks) == digest(tuned.tensors[name][2])
        if tuned.tensors[name][:2] != (kind, dims) or same == changes:
            rows.broken.append(f"{label} {name}")
    lost = [key for key, value in other.metadata.items() if tuned.metadata.get(key) != value]
    if lost:
        rows.broken.append(f"{label} metadata {lost}")

    ids, trained = replayed(luthier, base, adapter)
    assert sum(map(len, ids)) == said["positions"]
    decoded = work / f"{label}-decoded.gguf"
    llama_cpp_quantise(tuned_file, decoded, F32)
    found = compared(trained, in_llama_cpp(decoded, ids))
    ok = (abs(found.far / said["largest"] - 1) <= BOUND_LARGEST and abs(found.mean / said["mean"] - 1) <= BOUND_MEAN
          and abs(found.agreement - said["agreement"]) <= BOUND_AGREEMENT)
    rows.add(rows.trip, label, "Luthier, printed", f"{said['largest']:.4f}", f"{said['mean']:.4f}",
             f"{said['agreement']:.2f} %", f"{said['adapter']:.4f}", ok=True)
    rows.add(rows.trip, label, "llama.cpp", f"{found.far:.4f}", f"{found.mean:.4f}", f"{found.agreement:.2f} %", "", ok=ok)

    _, stored = replayed(luthier, tuned_file)
    direct = compared(stored, in_llama_cpp(tuned_file, ids))
    rows.add(rows.direct, label, f"{direct.far:.4f}", f"{direct.relative:.4f}", BOUND_DIRECT, f"{direct.agreement:.2f} %",
             ok=direct.relative <= BOUND_DIRECT)


def write_page(output, rows, steps):
    if not output.exists():
        output.write_text(HEAD)
    sections.write(output, "The mix of Q4_K_M", f"""
The same f32 file, written as `q4_k_m` by `luthier export` and quantised to Q4_K_M by llama.cpp (`llama_model_quantize`): the
types of all tensors, the root of all squared errors, relative to llama.cpp's, and how far the logits of both files are
from the f32 model's in the mean, over the 32 prompts of the export's replay. SmolLM2's rows of 576 numbers are no whole
blocks of 256, so that most of its matrices are stored otherwise; the random llama (8 layers, 128 tokens, rows of 512 and
1536, seed {SEED}) has none of these.
""", ["model", "tensors", "of equal type", "error, of llama.cpp's", "bound",
      "mean logit difference", "of llama.cpp's file"], rows.mix)
    sections.write(output, "From Q4_K_M to Q4_K_M", f"""
llama.cpp's Q4_K_M file is the base; a LoRA adapter (rank 8 on queries, values and down projections, {steps} steps) is
trained on it, merged, and written back with every tensor in the type that it had; the tensors without an adapter have the
same bytes, and all metadata is there. What merging and storing changed, over the 32 prompts of the export's replay: as
`luthier export` prints it, and as llama.cpp finds it when it decodes the file to f32 and computes in f32, against
Luthier's logits of base and adapter. The last column is what the adapter itself changes in the mean. Bounds: largest within
{BOUND_LARGEST:.0%}, mean within {BOUND_MEAN:.0%}, agreement within {BOUND_AGREEMENT} percentage points of what was printed.
""", ["model", "who says so", "largest logit difference", "mean", "most likely token agrees", "the adapter's own"], rows.trip)
    sections.write(output, "The file as llama.cpp runs it", """
The file that was written, loaded in llama.cpp as it is, against Luthier's own logits of the same file. llama.cpp multiplies
blocks with activations that it quantises to 8 bits, Luthier with f32; this is what that makes.
""", ["model", "largest logit difference", "relative root mean square", "bound", "most likely token agrees"], rows.direct)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--luthier", type=Path, default=ROOT / "target/release/luthier")
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("LUTHIER_ASSETS", ROOT / "assets")))
    parser.add_argument("--output", type=Path, default=ROOT / "docs/gguf.md")
    parser.add_argument("--keep", type=Path, help="a new folder for the files in between, which is then kept")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", choices=["random", "smollm2"], help="one model; then nothing is written")
    arguments = parser.parse_args()
    rows = Rows()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.keep or Path(temporary)
        work.mkdir(exist_ok=True)
        luthier = Luthier(arguments.luthier, work)
        data = arguments.assets / "data"
        if arguments.only != "smollm2":
            random_model(work / "random", "normal", layers=8)
            round_trip(rows, luthier, work, "random llama", work / "random", data, arguments.steps)
        if arguments.only != "random":
            model = arguments.assets / "SmolLM2-135M-Instruct.Q4_1.gguf"
            round_trip(rows, luthier, work, "SmolLM2-135M-Instruct", model, data, arguments.steps)
    if arguments.only is not None:
        sys.exit(f"\nbounds broken: {', '.join(rows.broken)}" if rows.broken else 0)
    write_page(arguments.output, rows, arguments.steps)
    if rows.broken:
        sys.exit(f"\nbounds broken: {', '.join(rows.broken)}")


if __name__ == "__main__":
    main()
