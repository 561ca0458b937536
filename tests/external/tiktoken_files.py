"""Trains small tiktoken vocabularies and compares what Luthier reads out of their files with tiktoken itself.

See README.md beside this file. It writes a section of docs/tokenizers.md.
"""

import argparse
import base64
import json
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import tiktoken

import sections
from sentence_pieces import ROOT, corpus, texts
from tiktoken import _educational

PATTERNS = {
    "qwen": r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    "llama": r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
}
FILES = {"qwen": "qwen.tiktoken", "llama": "tokenizer.model"}
# The first of the special tokens that the models' own code puts behind those of the file.
SPECIAL = {"qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "llama": ["<|begin_of_text|>", "<|end_of_text|>"]}


def compare(binary, family, lines):
    """A row of the table, and whether all is equal."""
    ranks = _educational.bpe_train("\n".join(lines[:2000]), 1000, PATTERNS[family], visualise=None)
    special = {text: len(ranks) + place for place, text in enumerate(SPECIAL[family])}
    model = tiktoken.Encoding("small", pat_str=PATTERNS[family], mergeable_ranks=ranks, special_tokens=special)
    given = [text for text in texts(lines) if "\0" not in text] + [f"a {SPECIAL[family][0]} b"]
    with tempfile.TemporaryDirectory() as folder:
        rows = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
        (Path(folder) / FILES[family]).write_text("".join(rows))
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": family}))
        words = [f"--text={text}" for text in given]
        command = [str(binary), "tokenizer", "encode", "--json", "--model", folder, *words]
        done = subprocess.run(command, capture_output=True)
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    found = [json.loads(line)["ids"] for line in done.stdout.decode().splitlines()]
    # Qwen's own code composes text before tiktoken sees it.
    seen = [unicodedata.normalize("NFC", text) if family == "qwen" else text for text in given]
    expected = [model.encode(text, allowed_special="all") for text in seen]
    differing = [place for place, ids in enumerate(found) if ids != expected[place]]
    for place in differing[:3]:
        print(f"{family}: {given[place]!r}\n  tiktoken {expected[place]}\n  Luthier  {found[place]}")
    row = (family, FILES[family], len(given), sum(map(len, expected)), len(given) - len(differing))
    print(*row, flush=True)
    return row, not differing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/luthier")
    parser.add_argument("--output", type=Path, help="the page to write a section of")
    arguments = parser.parse_args()
    lines = corpus()
    results = [compare(arguments.binary, family, lines) for family in PATTERNS]
    if arguments.output:
        text = f"""
Vocabularies of 1000 tokens, trained by tiktoken {tiktoken.__version__} with the pattern of each family, and the special tokens
that the models' own code adds.
"""
        header = ["model_type", "file", "texts", "tokens", "texts that agree"]
        sections.write(arguments.output, "tiktoken files", text, header, [row for row, _ in results])
    if not all(equal for _, equal in results):
        sys.exit("not all texts agree")


if __name__ == "__main__":
    main()
