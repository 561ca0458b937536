"""Measures what Luthier's block encoders lose against llama.cpp's own on the same numbers.

See README.md beside this file. With `--fixture` it writes what the gate's test compares with: numbers, and the errors that
llama.cpp's quantiser leaves on them.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import sections
from compare import ROOT, Luthier, small_tokenizer
from gguf_file import BLOCKS, Gguf, error, quantise

# What the root mean square error may be, of llama.cpp's.
BOUND = 1.02
HEAD = """# GGUF files in blocks: what is lost, and what llama.cpp makes of them

Written by `tests/external/encoders.py` and `tests/external/gguf_round_trip.py` (see README.md there), each a section.
"""
SEED = 7


def drawn(kind, shape, random):
    """Random weights: normal as at the start of a training, or with one of 500 twenty times larger."""
    values = random.standard_normal(shape) * 0.02
    if kind == "outliers":
        values[random.random(shape) < 0.002] *= 20
    return values.astype(np.float32)


def fixture(path, assets):
    """Small samples of four kinds of numbers, and llama.cpp's error in every format."""
    import torch
    from safetensors.numpy import save_file
    from safetensors.torch import load_file

    random = np.random.default_rng(SEED)
    samples = {kind: drawn(kind, (8, 1024), random) for kind in ["normal", "outliers"]}
    smollm2 = Gguf(assets / "SmolLM2-135M-Instruct.Q4_1.gguf")
    # Its numbers lie on a grid of 16 steps already; the other half is a little off it, as after a training.
    real = smollm2.values("blk.12.ffn_down.weight")[:8]
    samples["smollm2"] = real.copy()
    samples["smollm2_tuned"] = (real + random.standard_normal(real.shape) * 0.3 * real.std() / 8).astype(np.float32)
    builtin = load_file(ROOT / "builtin/model/model.safetensors")
    matrix = next(t for n, t in builtin.items() if n.endswith("down_proj.weight") and t.shape[1] % 32 == 0)
    flat = matrix.to(torch.float32).numpy().ravel()
    samples["builtin"] = flat[: 8192].reshape(8, 1024).copy()
    tensors = {}
    for kind, values in samples.items():
        tensors[f"{kind}.values"] = values
        for name in BLOCKS:
            tensors[f"{kind}.{name}"] = np.array([error(name, quantise(name, values), values)])
    save_file(tensors, path)


def random_model(folder, kind, layers=2):
    """A llama with drawn weights, whose rows are whole blocks of 256."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(SEED)
    hidden, inner, heads, vocabulary = 512, 1536, 8, 128
    config = {"model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
              "num_attention_heads": heads, "num_key_value_heads": 4, "vocab_size": vocabulary, "rms_norm_eps": 1e-5,
              "max_position_embeddings": 256, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
              "bos_token_id": 1, "eos_token_id": 2}
    tensors = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for part, shape in {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (hidden // 2, hidden),
                            "self_attn.v_proj": (hidden // 2, hidden), "self_attn.o_proj": (hidden, hidden),
                            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
                            "mlp.down_proj": (hidden, inner)}.items():
            tensors[f"{at}.{part}.weight"] = shape
    tensors = {name: drawn(kind, shape, random) for name, shape in tensors.items()}
    ones = ["model.norm"] + [f"model.layers.{layer}.{part}_layernorm" for layer in range(layers)
                             for part in ["input", "post_attention"]]
    tensors |= {f"{name}.weight": np.ones(hidden, np.float32) for name in ones}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(small_tokenizer()))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))


def compared(luthier, work, label, model):
    """Rows of the table: for each format the errors over all matrices that a file has in it."""
    plain = work / f"{label}-f32.gguf"
    luthier.run("export", "--model", model, "--output", plain, "--outtype", "f32")
    numbers = Gguf(plain)
    errors = {}
    for outtype in ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k_m", "q5_k_m", "q6_k"]:
        file = work / f"{label}-{outtype}.gguf"
        luthier.run("export", "--model", model, "--output", file, "--outtype", outtype)
        for name, (kind, dims, ours) in Gguf(file).tensors.items():
            if kind in BLOCKS and (kind, name) not in errors:
                values = numbers.values(name)
                theirs = quantise(kind, values)
                pair = np.square([error(kind, ours, values), error(kind, theirs, values)]) * values.size
                errors[kind, name] = (*pair, values.size)
        file.unlink()
    for kind in BLOCKS:
        found = [pair for (of, _), pair in errors.items() if of == kind]
        if found:
            ours, theirs, count = np.sum(found, axis=0)
            yield label, kind, len(found), (ours / count) ** 0.5, (theirs / count) ** 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--luthier", type=Path, default=ROOT / "target/release/luthier")
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("LUTHIER_ASSETS", ROOT / "assets")))
    parser.add_argument("--output", type=Path, default=ROOT / "docs/gguf.md")
    parser.add_argument("--fixture", type=Path, help="write the fixture here, and nothing else")
    arguments = parser.parse_args()
    if arguments.fixture:
        return fixture(arguments.fixture, arguments.assets)
    rows, broken = [], []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        luthier = Luthier(arguments.luthier, work)
        models = {}
        for kind in ["normal", "outliers"]:
            random_model(work / kind, kind)
            models[kind] = work / kind
        models["SmolLM2-135M-Instruct"] = arguments.assets / "SmolLM2-135M-Instruct.Q4_1.gguf"
        models["built-in model"] = "builtin"
        for label, model in models.items():
            for label, kind, count, ours, theirs in compared(luthier, work, label, model):
                ratio = ours / theirs if theirs else 1.0 if ours == 0 else float("inf")
                rows.append((label, f"`{kind}`", count, f"{ours:.4e}", f"{theirs:.4e}", f"{ratio:.4f}", BOUND))
                print("  ".join(str(cell) for cell in rows[-1]), flush=True)
                broken += [f"{label} {kind}"] if ratio > BOUND else []
    text = """
Root mean square errors over all matrices that a file has in a format: of the bytes that `luthier export` wrote, and of what
`ggml_quantize_chunk` makes of the same numbers without an importance matrix. `normal` and `outliers` are random llamas of
two layers (rows of 512 and 1536 numbers; every 500th number twenty times larger, seed 7). SmolLM2 comes from a `Q4_1` file,
so its numbers lie on grids of 16 steps already, which some formats meet and others do not. Q8_0 is llama.cpp's to the byte.
"""
    if not arguments.output.exists():
        arguments.output.write_text(HEAD)
    sections.write(arguments.output, "Errors of the encoders", text,
                   ["numbers", "format", "matrices", "Luthier", "llama.cpp", "ratio", "bound"], rows)
    if broken:
        sys.exit(f"bounds broken: {', '.join(broken)}")


if __name__ == "__main__":
    main()
