"""Trains small SentencePiece models and compares what Luthier reads out of their tokenizer.model with SentencePiece itself.

See README.md beside this file. It writes a section of docs/tokenizers.md.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import sentencepiece

import sections

ROOT = Path(__file__).resolve().parents[2]
HARD = [
    "", " ", "  ", "\n", "\t", " \n ", "a", " a", "a ", "  two  blanks  ", "tab\tand\nline\r\n", "Hello, world!",
    "ﬁne ½ ² ①②③ Ⅷ ㎏ ™ … ﷺ", "ＦＵＬＬ　ｗｉｄｔｈ", "がぎぐ か\u3099き\u3099 ｶﾞｷﾞ", "각 \u1100\u1161\u11a8 가",
    "e\u0301 é o\u0302\u0301 ố", "zero\u200bwidth\u200djoin\ufeffbom \u00a0nbsp\u3000ideographic", "naïve café Straße ẞ",
    "🚀 😶\u200d🌫️ 👩\u200d👩\u200d👧 🇩🇪", "汉字 漢字 かな カナ 한국어", "العربية עברית हिन्दी ไทย ខ្មែរ", "нещо на Български",
    "x = {'a': [1, 2.5e-3]}  # 100%", "333333333 1,000,000", "aaaaaaaaaaaaa ------- ======= ......", "<sep>", "a<sep>b", " <sep> a",
    "<sep><sep> x  <sep>", "<|im_start|>user\nhi", "I'll we've y'all", "▁ already ▁marked", "\x00\x01\x7f\x85", "a\u0300" * 20,
]


def corpus():
    """The lines of the project's own pages and examples."""
    files = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("crates/*/src/*.rs")])
    return [line for file in files for line in file.read_text().splitlines() if line.strip()]


def texts(lines):
    """Hard ones, lines, lines put together, and letters at random out of all of these."""
    draw = random.Random(1)
    letters = [letter for text in HARD + lines for letter in text]
    wild = ["".join(draw.choice(letters) for _ in range(draw.randrange(1, 40))) for _ in range(200)]
    joined = ["\n".join(draw.sample(lines, 3)) for _ in range(50)]
    return HARD + draw.sample(lines, 250) + joined + wild


def compare(binary, folder, lines, settings):
    """A row of the table, and whether all is equal."""
    prefix = folder / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(prefix), vocab_size=1200, character_coverage=0.999,
        user_defined_symbols=["<sep>", "<|im_start|>"], control_symbols=["<control>"], minloglevel=2, **settings,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    given = [text for text in texts(lines) if "\0" not in text]
    words = [f"--text={text}" for text in given]
    command = [str(binary), "tokenizer", "encode", "--json", "--model", f"{prefix}.model", *words]
    done = subprocess.run(command, capture_output=True)
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    found = [json.loads(line) for line in done.stdout.decode().splitlines()]
    differing = [(text, ours) for text, ours in zip(given, found, strict=True) if model.encode(text) != ours["ids"]]
    for text, ours in differing[:3]:
        print(f"{settings}: {text!r}\n  SentencePiece {model.encode(text, out_type=str)}\n  Luthier       {ours['tokens']}")
    name = ", ".join(f"{key} {value}" for key, value in settings.items())
    tokens = sum(len(ours["ids"]) for ours in found)
    row = (name, len(given), tokens, len(given) - len(differing))
    print(*row, flush=True)
    return row, not differing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/luthier")
    parser.add_argument("--output", type=Path, help="the page to write a section of")
    arguments = parser.parse_args()
    lines = corpus()
    kinds = [{"model_type": kind, "byte_fallback": bytes_} for kind in ("bpe", "unigram") for bytes_ in (False, True)]
    plain = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    rules = [{"normalization_rule_name": "nmt_nfkc"}, plain, {**plain, "add_dummy_prefix": False}]
    results = []
    for kind, rule in itertools.product(kinds, rules):
        with tempfile.TemporaryDirectory() as folder:
            results.append(compare(arguments.binary, Path(folder), lines, {**kind, **rule}))
    if arguments.output:
        text = f"""
Models of 1200 pieces, trained by sentencepiece {sentencepiece.__version__} on the project's own pages and sources, with a
control symbol and two user-defined ones. The texts are hard ones, lines of these pages, and letters at random out of both.
"""
        header = ["settings", "texts", "tokens", "texts that agree"]
        sections.write(arguments.output, "tokenizer.model of SentencePiece", text, header, [row for row, _ in results])
    if not all(equal for _, equal in results):
        sys.exit("not all texts agree")


if __name__ == "__main__":
    main()
