"""Compares what Luthier leaves of rows that are too long with what LLaMA-Factory leaves of them, token for token.

LLaMA-Factory's own code runs, from its source package: `infer_seqlen`, the processor of supervised rows around it, and its
template. See README.md beside this file. The page that this writes is docs/truncation.md.
"""

import argparse
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "assets/SmolLM2-135M-Instruct.Q4_1.gguf"
CUTOFFS = [16, 50, 64, 100, 128, 256, 333, 512, 1024, 2048]
MODES = {
    "": {},
    "mask_history": {"mask_history": True},
    "train_on_prompt": {"train_on_prompt": True},
}
# Ours, and the template of theirs that writes the same; the tokenizer's end token; tokens of SmolLM2 that get another name for it; modes.
# LLaMA-Factory refuses train_on_prompt with glm4, which leaves the end of a reply to what follows (efficient_eos).
TEMPLATES = [
    ("chatml", "smollm", "<|im_end|>", {}, list(MODES)),
    ("glm4", "glm4", "<|im_end|>", {"<repo_name>": "<|user|>", "<reponame>": "<|assistant|>"}, ["", "mask_history"]),
]
IGNORED = -100

INTRODUCTION = """# Rows that are too long

`truncation` says what becomes of a row that has more than `cutoff_len` tokens:

- `llamafactory` (the default): turn after turn takes from the tokens that are left; where a turn does not fit, prompt and
  reply share them in proportion, and each is cut at its end. With `mask_history` the last turn is served first. Rows that
  are tokens or documents already are cut at their end.
- `right`: all that stands after `cutoff_len` tokens is cut.
- `drop`: the row is left out.
- `error`: nothing is trained; the first such row is named, with the number of all.

What is cut or left out is counted before the start, with the ten rows that lost most. A reply that lost its end token is
counted apart, since the model does not learn from it when to stop. `luthier data preview CONFIG` shows each row as it is
trained; `--json` writes them for other programs.

How much a token counts in the loss is its weight: 1 for replies and 0 for all else, unless `role_weights`, the `weight` of a
message, or the `weights` of a row that is tokens already say something else. A message other than a reply is trained with
what it says and the special token right behind it. The loss of a step is sum(weight * loss) / sum(weight) over all its
tokens, whatever the parts that it is computed in.

## The default is LLaMA-Factory's

Written by `tests/external/truncation.py`, which runs the code of LLaMA-Factory {version} (`infer_seqlen` and the processor
that calls it) and `luthier data preview --json` over the same conversations, with the tokenizer of SmolLM2 and the templates
chatml and glm4, and compares every token and every label of every row. Where no label is left, Luthier leaves out the row,
counted; LLaMA-Factory keeps it, and it trains nothing.

glm4 leaves the end of a reply to what follows (`efficient_eos`): two of SmolLM2's tokens are renamed to `<|user|>` and
`<|assistant|>` for it. The end token of a reply is the first token of the next prompt and is cut with that; every row has
room for a last one, which follows whatever is left of the last reply. With `mask_history` only tokens are compared there:
LLaMA-Factory puts the label of an earlier reply's end on the prompt behind it, and masks replies only; Luthier trains none
of what is masked. Where nothing of a prompt is left, LLaMA-Factory makes one label more than tokens, and labels are not
compared either (the last column).
"""


def plain_turns(record):
    """The messages of a record as [role, text] of system, user and assistant, whatever the format of its dataset; None where
    user and assistant do not take turns. Calls of tools count as replies here, and their results as prompts: what is compared is lengths."""
    if "instruction" in record:
        prompt = "\n".join(part for part in [record["instruction"], record.get("input") or ""] if part)
        return [["user", prompt], ["assistant", record["output"]]]
    messages = record.get("messages") or record["conversations"]
    if "chosen" in record:
        messages = messages + [record["chosen"]]
    names = {"human": "user", "observation": "user", "gpt": "assistant", "function_call": "assistant"}
    turns = [[message.get("role") or message["from"], message.get("content") or message["value"]] for message in messages]
    turns = [[names.get(role, role), text] for role, text in turns]
    roles = [role for role, _ in turns if role != "system"]
    take_turns = roles == ["user", "assistant"] * (len(roles) // 2) and roles
    return turns if take_turns and all(role != "system" for role, _ in turns[1:]) else None


def load_llamafactory(source):
    """Its processor of supervised rows and its templates, without the rest of the package: that wants a GPU's libraries."""
    root = source / "src/llamafactory"
    for name in ["", ".data", ".data.processor", ".extras"]:
        package = types.ModuleType("llamafactory" + name)
        package.__path__ = [str(root / name.strip(".").replace(".", "/"))]
        sys.modules[package.__name__] = package
    # Named in the heads of its files, and not used by what runs here.
    for name in ["datasets", "torchaudio", "torchvision", "librosa"]:
        if importlib.util.find_spec(name) is None:
            absent = types.ModuleType(name)
            absent.__getattr__ = lambda name: None
            sys.modules[name] = absent
    supervised = importlib.import_module("llamafactory.data.processor.supervised")
    templates = importlib.import_module("llamafactory.data.template").TEMPLATES
    return supervised.SupervisedDatasetProcessor, templates


class Luthier:
    def __init__(self, binary):
        self.binary = str(binary)

    def run(self, *arguments):
        done = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"luthier {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
        return done.stdout

    def rows(self, model, template, files, cutoff, mode):
        settings = [f"{name}=true" for name in mode]
        datasets = ",".join(str(file) for file in files)
        text = self.run(
            "data", "preview", "--json", f"model_name_or_path={model}", f"dataset={datasets}", f"template={template}",
            f"cutoff_len={cutoff}", *settings,
        )
        rows = {}
        for line in text.splitlines():
            row = json.loads(line)
            rows[(Path(row["dataset"]).stem, row["record"] - 1)] = (row["input_ids"], row["weights"])
        return rows


def theirs(processor, template, tokenizer, turns, cutoff, mode):
    """LLaMA-Factory's tokens, and 1 where they are trained: the first one never is, since labels are shifted by one."""
    settings = {"mask_history": False, "train_on_prompt": False, **mode}
    arguments = types.SimpleNamespace(cutoff_len=cutoff, **settings)
    rows = processor(template=template, tokenizer=tokenizer, processor=None, data_args=arguments)
    system = turns[0][1] if turns[0][0] == "system" else None
    messages = [{"role": role, "content": text} for role, text in turns if role != "system"]
    ids, labels = rows._encode_data_example(messages[:-1], messages[-1:], system, None, [], [], [])
    if len(labels) != len(ids):
        return ids, None
    return ids, [0.0] + [float(label != IGNORED) for label in labels[1:]]


def renamed(luthier, work, names):
    """A folder with the model in which some tokens have other names; the model itself where there are none."""
    folder = work / "model"
    if not folder.exists():
        luthier.run("export", "--model", MODEL, "--output", folder, "--format", "hf")
    if not names:
        return folder
    other = work / "renamed"
    other.mkdir()
    for file in folder.iterdir():
        text = file.name.startswith("tokenizer") and file.read_text()
        for before, after in names.items() if text else ():
            text = text.replace(json.dumps(before), json.dumps(after))
        (other / file.name).write_text(text) if text else (other / file.name).hardlink_to(file)
    return other


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--llamafactory", type=Path, required=True, help="the unpacked source package of llamafactory")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/luthier")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    from transformers import PreTrainedTokenizerFast

    processor, templates = load_llamafactory(arguments.llamafactory)
    luthier = Luthier(arguments.binary)
    broken = []
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        conversations, files, skipped = {}, [], {}
        for path in sorted((ROOT / "assets/data").glob("*.json")):
            if path.name == "dataset_info.json":
                continue
            records = [plain_turns(record) for record in json.loads(path.read_text())]
            kept = [turns for turns in records if turns]
            skipped[path.stem] = len(records) - len(kept)
            file = work / path.name
            lines = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in kept]
            file.write_text(json.dumps(lines))
            files.append(file)
            conversations[path.stem] = kept
        lines = ["| dataset | rows | turns |", "| --- | --- | --- |"]
        for name, rows in conversations.items():
            left = f" ({skipped[name]} others do not take turns)" if skipped[name] else ""
            lines.append(f"| {name} | {len(rows)}{left} | {sum(len(turns) // 2 for turns in rows)} |")
        lines += ["", "| template | cutoff_len | setting | rows that are cut | rows without a label | equal rows | equal tokens | labels not compared |"]
        lines.append("|" + " --- |" * 8)
        for name, known_as, end, names, modes in TEMPLATES:
            model, template = renamed(luthier, work, names), templates[known_as]
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"), eos_token=end)
            whole = {
                (data, index): len(theirs(processor, template, tokenizer, turns, 1 << 30, {})[0])
                for data, rows in conversations.items()
                for index, turns in enumerate(rows)
            }
            for mode, cutoff in [(mode, cutoff) for mode in modes for cutoff in CUTOFFS]:
                ours = luthier.rows(model if names else MODEL, name, files, cutoff, MODES[mode])
                cut = unlabelled = equal = equal_tokens = tokens = incomparable = 0
                for (data, index), before in whole.items():
                    ids, trained = theirs(processor, template, tokenizer, conversations[data][index], cutoff, MODES[mode])
                    cut += len(ids) < before
                    tokens += len(ids)
                    row = ours.get((data, index))
                    if trained is None or (mode and template.efficient_eos):
                        incomparable += 1
                        same = row is not None and row[0] == ids
                    elif not any(trained):
                        unlabelled += 1
                        same = row is None
                    else:
                        same = row == (ids, trained)
                    equal += same
                    equal_tokens += len(ids) if same else 0
                    if not same:
                        broken.append((name, mode, cutoff, data, index))
                cells = [name, cutoff, f"`{mode}`" if mode else "", cut, unlabelled, f"{equal} of {len(whole)}",
                         f"{equal_tokens} of {tokens}", incomparable]
                lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
                print(lines[-1], flush=True)
    version = arguments.llamafactory.resolve().name.removeprefix("llamafactory-")
    page = INTRODUCTION.format(version=version) + "\n" + "\n".join(lines) + "\n"
    if arguments.output:
        arguments.output.write_text(page)
    if broken:
        sys.exit(f"{len(broken)} rows differ, the first: {broken[:5]}")


if __name__ == "__main__":
    main()
