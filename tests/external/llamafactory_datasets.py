"""Reads every text dataset of LLaMA-Factory's own `data/` folder with LLaMA-Factory's own code, and writes what it found.

    python3 -m venv .venv && .venv/bin/pip install datasets
    python3 -m pip download --no-deps --no-binary llamafactory -d DIR llamafactory==0.9.5   # unpack it there
    .venv/bin/python tests/external/llamafactory_datasets.py DIR/llamafactory-0.9.5

Its parser (`data/parser.py`) and converters (`data/converter.py`) run as they are; the parts of the package that they import
and that need PyTorch are replaced by empty ones. Files are loaded by Hugging Face `datasets`, as its loader does. The result is
`crates/luthier-data/tests/llamafactory_datasets.json`, which a test compares with what Luthier reads, and the page
`docs/datasets.md`.
"""

import importlib.util
import json
import logging
import sys
import types
from pathlib import Path

import datasets

ROOT = Path(__file__).resolve().parents[2]


def module(name, **members):
    found = types.ModuleType(name)
    found.__dict__.update(members)
    sys.modules[name] = found
    return found


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def llamafactory(source):
    """Its parser and converters, with as little of the rest as they need."""
    from enum import Enum, unique

    @unique
    class Role(str, Enum):  # data_utils.py
        USER = "user"
        ASSISTANT = "assistant"
        SYSTEM = "system"
        FUNCTION = "function"
        OBSERVATION = "observation"

    logger = logging.getLogger("llamafactory")
    logger.setLevel(logging.ERROR)
    logger.warning_rank0 = logger.warning_rank0_once = lambda *_: None
    for name in ["llamafactory", "llamafactory.data", "llamafactory.extras", "llamafactory.hparams"]:
        module(name).__path__ = []
    log = module("llamafactory.extras.logging", get_logger=lambda *_: logger)
    sys.modules["llamafactory.extras"].logging = log
    module("llamafactory.extras.constants", DATA_CONFIG="dataset_info.json")
    module("llamafactory.extras.misc", use_modelscope=lambda: False, use_openmind=lambda: False)
    module("llamafactory.data.data_utils", Role=Role)
    data = source / "src/llamafactory/data"
    parser = load("llamafactory.data.parser", data / "parser.py")
    converter = load("llamafactory.data.converter", data / "converter.py")
    return parser, converter


def text(value):
    return value if isinstance(value, str) else ""


def main():
    source = Path(sys.argv[1])
    folder = source / "data"
    parser, converter = llamafactory(source)
    info = json.loads((folder / "dataset_info.json").read_text())
    found = {}
    for name, entry in info.items():
        if "file_name" not in entry:
            continue
        columns = entry.get("columns", {})
        if any(column in columns for column in ["images", "videos", "audios"]):
            found[name] = {"file": entry["file_name"], "media": True}
            continue
        [attr] = parser.get_dataset_list([name], str(folder))
        kind = {"txt": "text", "json": "json", "jsonl": "json"}[entry["file_name"].rsplit(".", 1)[1]]
        rows = datasets.load_dataset(kind, data_files=[str(folder / entry["file_name"])], split=attr.split)
        convert = converter.get_dataset_converter(attr.formatting, attr, types.SimpleNamespace(media_dir=str(folder)))
        kept = messages = letters = replies = tools = 0
        shape = "documents"
        for row in rows:
            record = convert(row)
            prompt, response = record["_prompt"], record["_response"]
            if not prompt:
                continue
            kept += 1
            said = prompt + [message for message in response if message["content"]]
            if len(response) == 2 and attr.ranking:
                shape = "pairs"
            elif len(response) == 2:
                shape = "verdicts"
            elif response:
                shape = "conversations"
            # A call is counted apart: Luthier keeps what it calls, not how its JSON is spaced.
            calls = [message for message in said if message["role"] == "function"]
            tools += len(calls)
            messages += len(said)
            letters += sum(len(message["content"]) for message in said if message["role"] != "function")
            replies += sum(message["role"] in ("assistant", "function") for message in said)
            if text(record["_system"]):
                messages += 1
                letters += len(record["_system"])
        found[name] = {
            "file": entry["file_name"],
            "records": len(rows),
            "kept": kept,
            "shape": shape,
            "messages": messages,
            "replies": replies,
            "calls": tools,
            "letters": letters,
        }
    target = ROOT / "crates/luthier-data/tests/llamafactory_datasets.json"
    target.write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        "# LLaMA-Factory's own datasets",
        "",
        "Every dataset whose file is in LLaMA-Factory's `data/` folder (0.9.5), by its entry in `dataset_info.json`. The numbers are",
        f"those of LLaMA-Factory's own parser and converters, with files loaded by Hugging Face datasets {datasets.__version__}",
        "(`tests/external/llamafactory_datasets.py`); a test asserts that Luthier reads the same (`crates/luthier-data/tests/llamafactory.rs`).",
        "Letters are Unicode characters of all messages but calls of tools, of which Luthier keeps what they call.",
        "",
        "| dataset | file | what it is | records | kept | messages | replies | calls | letters |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, facts in found.items():
        if "media" in facts:
            lines.append(f"| {name} | {facts['file']} | pictures, films or sound: refused, models here are text only | | | | | | |")
            continue
        numbers = " | ".join(f"{facts[key]:,}" for key in ["records", "kept", "messages", "replies", "calls", "letters"])
        lines.append(f"| {name} | {facts['file']} | {facts['shape']} | {numbers} |")
    lines += [
        "",
        "The other entries name a hub and are refused with what to do. `v1_sft_demo.jsonl`, `v1_dpo_demo.jsonl` and",
        "`reason_tool_use_demo_50.jsonl` are files of LLaMA-Factory's next version, which no entry names; their format is found by",
        "looking at them.",
        "",
    ]
    (ROOT / "docs/datasets.md").write_text("\n".join(lines))


main()
