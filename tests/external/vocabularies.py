"""Compares the tokens of real vocabularies, text for text, with those that llama.cpp's own tests expect.

See README.md beside this file. It writes a section of docs/tokenizers.md, and one more where llama-cpp-python is installed.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pre_tokenizers
import sections

ROOT = Path(__file__).resolve().parents[2]
# The source package of llama-cpp-python holds llama.cpp's sources, and with them vocabularies without weights, each with
# texts (.inp) and the ids that they must give (.out).
PACKAGE = "llama-cpp-python==0.3.36"
SEPARATOR = "\n__ggml_vocab_test__\n"


def fetch(work):
    """The unpacked source package."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, "--dest", str(work), PACKAGE], check=True)
    with tarfile.open(next(work.glob("llama_cpp_python-*.tar.gz"))) as archive:
        wanted = [member for member in archive.getmembers() if "/models/ggml-vocab-" in member.name]
        archive.extractall(work, members=wanted, filter="data")
    return work


def cases(vocabulary):
    """The texts of a vocabulary, and the ids that each must give: without begin and end tokens."""
    texts = Path(f"{vocabulary}.inp").read_bytes().decode().split(SEPARATOR)
    # What stands after the last separator is a text too, unless it is empty.
    texts = texts[:-1] if texts[-1] == "" else texts
    lines = Path(f"{vocabulary}.out").read_text().splitlines()
    if len(texts) != len(lines):
        sys.exit(f"{vocabulary}: {len(texts)} texts, but {len(lines)} lines of ids")
    return [(text, [int(word) for word in line.split()]) for text, line in zip(texts, lines)]


def encode(binary, vocabulary, texts):
    """Luthier's ids of each text, or what it says in place of them."""
    words = [word for text in texts for word in ("--text", text)]
    command = [str(binary), "tokenizer", "encode", "--model", str(vocabulary), "--json", *words]
    done = subprocess.run(command, capture_output=True)
    if done.returncode != 0:
        return None, done.stderr.decode().strip()
    return [json.loads(line) for line in done.stdout.decode().splitlines()], None


def compare(binary, vocabulary, show):
    """A row of the table, and whether all is equal."""
    name = vocabulary.name.removeprefix("ggml-vocab-").removesuffix(".gguf")
    expected = cases(vocabulary)
    found, error = encode(binary, vocabulary, [text for text, _ in expected])
    if error is not None:
        print(f"{name}: {error}")
        return (name, len(expected), "", f"refused: {error}"), False
    differing = [(text, ids, ours) for (text, ids), ours in zip(expected, found) if ids != ours["ids"]]
    for text, ids, ours in differing[:show]:
        print(f"{name}: {text!r}\n  expected {ids}\n  found    {ours['ids']}\n  {ours['tokens']}")
    tokens = sum(len(ids) for _, ids in expected)
    print(f"{name}: {len(expected) - len(differing)} of {len(expected)}", flush=True)
    return (name, len(expected), tokens, len(expected) - len(differing)), not differing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/luthier")
    parser.add_argument("--source", type=Path, help="an unpacked source package; otherwise it is fetched")
    parser.add_argument("--output", type=Path, help="the page to write")
    parser.add_argument("--only", help="the vocabulary to look at")
    parser.add_argument("--names", action="store_true", help="also ask llama.cpp about every name of a pre-tokenizer")
    parser.add_argument("--show", type=int, default=3, help="how many differences to print of each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        source = arguments.source or fetch(Path(work))
        found = [Path(str(file).removesuffix(".inp")) for file in sorted(source.rglob("ggml-vocab-*.gguf.inp"))]
        found = [file for file in found if arguments.only is None or arguments.only in file.name]
        rows = [compare(arguments.binary, vocabulary, arguments.show) for vocabulary in found]
        names = []
        if arguments.names:
            vocabulary = next(source.rglob("ggml-vocab-gpt-2.gguf"))
            names = list(pre_tokenizers.rows_of_names(lambda *given: encode(arguments.binary, *given), vocabulary))
    if arguments.output:
        write(arguments.output, [row for row, _ in rows], names)
    if not rows or not all(equal for _, equal in rows):
        sys.exit("not all vocabularies agree")


def write(output, rows, names):
    """The sections of the page."""
    text = f"""
The vocabularies that llama.cpp's tests have, with the texts and ids that stand beside them, from the source package
{PACKAGE}.
"""
    sections.write(output, "Vocabularies of llama.cpp", text, ["vocabulary", "texts", "tokens", "texts that agree"], rows)
    if names:
        sections.write(output, "Names of pre-tokenizers", pre_tokenizers.TEXT, ["name", "texts", "texts that agree"], names)


if __name__ == "__main__":
    main()
