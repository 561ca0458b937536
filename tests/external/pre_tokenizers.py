"""Asks llama.cpp itself how it splits: for many texts, and for one vocabulary under every name of a pre-tokenizer.

Part of vocabularies.py, for places where llama-cpp-python is installed. See README.md beside this file.
"""

import random
import re
import struct
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEY = b"tokenizer.ggml.pre"


TEXT = """
The vocabulary of GPT-2 under every name of a pre-tokenizer that Luthier knows, against llama.cpp itself, on lines of the
project, runs of one letter, and letters of many scripts at random.
"""


def names():
    """The names that Luthier knows: those of its table."""
    table = (ROOT / "crates/luthier-data/src/pre_tokenizer.rs").read_text()
    lists = re.findall(r"names: &\[(.*?)\]", table, re.DOTALL)
    return [name for found in lists for name in re.findall(r'"([^"]+)"', found)]


def renamed(vocabulary, name, folder):
    """The same vocabulary with another pre-tokenizer. It has no tensors, so that nothing else moves."""
    content = vocabulary.read_bytes()
    at = content.index(KEY) + len(KEY)
    kind, length = struct.unpack_from("<IQ", content, at)
    assert kind == 8, "the name is a text"
    text = name.encode()
    file = Path(folder) / f"{name}.gguf"
    file.write_bytes(content[: at + 4] + struct.pack("<Q", len(text)) + text + content[at + 12 + length :])
    return file


def texts():
    """Lines of the project, letters of many scripts at random, and runs of one letter."""
    draw = random.Random(2)
    files = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("crates/*/src/*.rs")])
    lines = [line for file in files for line in file.read_text().splitlines()]
    letters = "abcXYZ'sSTtreREveVE  \n\r\t.,;:!?-_/\\()[]{}<>=+*#@$%&|~^`\"0123456789äéßñøçЖдяΩλअहिंदีก็ไทยម汉字かなカナ한국어１２½²①ªº€…—“”«»🚀👩‍👧عربي"
    wild = ["".join(draw.choice(letters) for _ in range(draw.randrange(1, 40))) for _ in range(60)]
    runs = [letter * count for letter in "a=-. \n1" for count in (1, 2, 3, 4, 5, 7, 8, 17)]
    return [*draw.sample(lines, 40), *wild, *runs, "DON'T we'Ve I'LL", "1234567 12 1234", "  x\n\n  y \n", "a\r\n\r\nb"]


def ids_of(vocabulary, given):
    """llama.cpp's ids, without tokens around and with special tokens read."""
    import llama_cpp

    model = llama_cpp.Llama(str(vocabulary), vocab_only=True, verbose=False)
    return [model.tokenize(text.encode(), add_bos=False, special=True) for text in given]


def compare(encode, vocabulary, given):
    """How many texts agree, and the first that does not."""
    found, error = encode(vocabulary, given)
    if error is not None:
        return 0, error
    expected = ids_of(vocabulary, given)
    differing = [place for place, ids in enumerate(expected) if ids != found[place]["ids"]]
    first = f"{given[differing[0]]!r}: {expected[differing[0]]}, {found[differing[0]]['ids']}" if differing else ""
    return len(given) - len(differing), first


def rows_of_names(encode, vocabulary):
    """A row for each name of a pre-tokenizer."""
    given = texts()
    with tempfile.TemporaryDirectory() as folder:
        for name in names():
            agreeing, first = compare(encode, renamed(vocabulary, name, folder), given)
            print(f"{name}: {agreeing} of {len(given)} {first}", flush=True)
            yield name, len(given), agreeing
