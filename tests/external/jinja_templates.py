"""Real chat templates, rendered by Luthier and by transformers' own renderer, compared byte for byte.

    cargo build
    .venv/bin/python tests/external/jinja_templates.py --luthier target/debug/luthier --output docs/templates.md

Fetches the source packages of trl and llama-cpp-python (PyPI), takes every Jinja chat template in them, drops those that
are there twice, and renders each on the conversations below, with `luthier template render` and with transformers'
`render_jinja_template`. Where both refuse a conversation, they agree. A template that differs must stand in REASONS.
"""

import argparse
import ast
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transformers import __version__ as transformers_version
from transformers.utils.chat_template_utils import render_jinja_template

PACKAGES = ["trl", "llama-cpp-python"]
BOS, EOS = "<s>", "</s>"

# Templates that differ, by name, and why that stays.
NO_TOOLS = "It is for conversations with tools. Without any it loops over none, which Python refuses; here there is nothing to loop over."
REASONS = {
    "vendor/llama.cpp/models/templates/CohereForAI-c4ai-command-r-plus-tool_use.jinja": NO_TOOLS,
    "vendor/llama.cpp/models/templates/NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja": NO_TOOLS,
    "vendor/llama.cpp/models/templates/llama-cpp-deepseek-r1.jinja": "It writes a generator as JSON, which Python refuses; "
    "here it is a list.",
    "vendor/llama.cpp/models/templates/meetkai-functionary-medium-v3.1.jinja": "It marks texts as safe, which makes Python write "
    "the quotes of what is joined to them as `&#34;`; here texts stay as they are.",
}

USER, REPLY = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there!"}
MORE = {"role": "user", "content": "  What is 2+2?\nSay \"it\" in 'é', 你好 & <b>.\n"}
LAST = {"role": "assistant", "content": "4\n\n- \\n is no line\n"}
SYSTEM = {"role": "system", "content": "You are terse."}
THOUGHT = {"role": "assistant", "content": "Four.", "reasoning_content": "Two and two.\nThat is four."}
INLINE = {"role": "assistant", "content": "<think>\nTwo and two.\n</think>\n\nFour."}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city, \"today\" or later",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name of the city", "enum": ["Oslo", "Zürich"]},
                "days": {"type": "integer", "description": "how many days", "default": 1},
                "parts": {"type": "array", "items": {"type": "string"}},
                "place": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}},
            },
            "required": ["city"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}


WHOLE = 2  # of the conversations: the one on which replies are looked for


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CALLS = {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {"city": "Oslo", "days": 2})]}
TWO_CALLS = {
    "role": "assistant",
    "content": "Let me look.",
    "tool_calls": [
        call("get_weather", {"city": "Zürich", "parts": ["a", "b"], "place": {"x": 1.5, "y": -2e-7}, "last": True}),
        call("now", {}),
    ],
}
RESULT = {"role": "tool", "content": '{"temp": 7, "note": "kühl"}'}


def with_ids(messages, ids):
    """The messages with ids of calls, and the results in their order with the same ones."""
    calls, results = iter(ids), iter(ids)
    named = []
    for message in messages:
        if "tool_calls" in message:
            message = {**message, "tool_calls": [{"id": next(calls), **call} for call in message["tool_calls"]]}
        named.append({**message, "tool_call_id": next(results)} if message["role"] == "tool" else message)
    return named

# Name, messages, tools, whether the model is asked, other variables.
CONVERSATIONS = [
    ("one question", [USER], [], True, {}),
    ("several turns, asked", [USER, REPLY, MORE], [], True, {}),
    ("several turns, whole", [USER, REPLY, MORE, LAST], [], False, {}),
    ("with system, asked", [SYSTEM, USER, REPLY, MORE], [], True, {}),
    ("with system, whole", [SYSTEM, USER, REPLY, MORE, LAST], [], False, {}),
    ("thoughts", [USER, THOUGHT, MORE], [], True, {}),
    ("thoughts, whole", [SYSTEM, USER, THOUGHT, MORE, THOUGHT], [], False, {}),
    ("thoughts in the text", [USER, INLINE, MORE, INLINE], [], False, {}),
    ("thinking on", [USER, THOUGHT, MORE], [], True, {"enable_thinking": True}),
    ("thinking off", [USER, REPLY, MORE], [], True, {"enable_thinking": False}),
    ("tools", [USER], [WEATHER], True, {}),
    ("tools and system", [SYSTEM, USER], [WEATHER, TIME], True, {}),
    ("a call, asked", [USER, CALLS, RESULT], [WEATHER], True, {}),
    ("a call, whole", [SYSTEM, USER, CALLS, RESULT, REPLY], [WEATHER], False, {}),
    ("two calls", [USER, TWO_CALLS, RESULT, RESULT, REPLY, MORE], [WEATHER, TIME], True, {}),
    ("a call at the end", [USER, CALLS], [WEATHER], False, {}),
    ("a call with an id", with_ids([SYSTEM, USER, CALLS, RESULT, REPLY], ["aB3dE6gH9"]), [WEATHER], False, {}),
    ("two calls with ids", with_ids([USER, TWO_CALLS, RESULT, RESULT, REPLY, MORE], ["aB3dE6gH9", "000000001"]), [WEATHER, TIME], True, {}),
    ("a call with OpenAI's id", with_ids([USER, CALLS, RESULT, REPLY], ["call_Zf3bT0pQ"]), [WEATHER], False, {}),
]


def fetch(folder):
    """The source packages, unpacked as far as needed: {package-version: folder}."""
    packages = {}
    for package in PACKAGES:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", package, "-d", folder, package]
        found = list(Path(folder).glob(package.replace("-", "_") + "-*.tar.gz"))
        if not found:
            subprocess.run(command, check=True)
            found = list(Path(folder).glob(package.replace("-", "_") + "-*.tar.gz"))
        name = found[0].name.removesuffix(".tar.gz")
        packages[name] = found[0]
    return packages


def literals(source):
    """The templates in llama.cpp's tests/test-chat-template.cpp: C++ text literals after `template_str`."""
    for match in re.finditer(r'/\* \.name= \*/ "(?P<name>[^"]*)",\s*/\* \.template_str= \*/ ', source):
        at, text = match.end(), ""
        while True:
            raw = re.compile(r'\s*R"([^(]*)\((.*?)\)\1"', re.S).match(source, at)
            plain = re.compile(r'\s*u?8?("(?:[^"\\]|\\.)*")', re.S).match(source, at)
            if raw:
                text, at = text + raw.group(2), raw.end()
            elif plain:
                text, at = text + ast.literal_eval(plain.group(1)), plain.end()
            else:
                break
        if "{" in text:
            yield match.group("name"), text


def collect(packages):
    """[(package, name, source)], each source once."""
    found, seen = [], set()
    for package, archive in packages.items():
        with tarfile.open(archive) as files:
            for member in sorted(files.getmembers(), key=lambda member: member.name):
                if not member.isfile():
                    continue
                name = member.name.split("/", 1)[-1]
                if name.endswith(".jinja"):
                    sources = [(name, files.extractfile(member).read().decode())]
                elif name.endswith("tests/test-chat-template.cpp"):
                    test = files.extractfile(member).read().decode()
                    sources = [(f"{name}: {label}", source) for label, source in literals(test)]
                else:
                    continue
                for name, source in sources:
                    digest = hashlib.sha256(source.encode()).digest()
                    if digest not in seen and "messages" in source:
                        seen.add(digest)
                        found.append((package, name, source))
    return found


def marks_replies(source, ask):
    return not ask and re.search(r"{%[-+]?\s*generation\s*[-+]?%}", source) is not None


def by_transformers(source, messages, tools, ask, variables):
    marked = marks_replies(source, ask)
    try:
        rendered, spans = render_jinja_template(
            conversations=[json.loads(json.dumps(messages))],
            tools=tools or None,
            chat_template=source,
            add_generation_prompt=ask,
            bos_token=BOS,
            eos_token=EOS,
            return_assistant_tokens_mask=marked,
            **variables,
        )
        text = rendered[0]
        for start, end in sorted(spans[0] if marked else [], reverse=True):
            text = f"{text[:start]}⟦{text[start:end]}⟧{text[end:]}" if end > start else text
        return text
    except Exception as error:  # whatever a template raises
        return error


def by_luthier(luthier, template, conversation, ask, marked, variables):
    command = [luthier, "template", "render", "--file", template, "--conversation", conversation, "--bos", BOS, "--eos", EOS]
    command += ["--ask"] if ask else ["--marked"] if marked else []
    for key, value in variables.items():
        command += [f"--{key.replace('_', '-')}", str(value).lower()]
    done = subprocess.run(command, capture_output=True)
    return done.stdout.decode() if done.returncode == 0 else RuntimeError(done.stderr.decode().strip())


def made_ids(ours, theirs):
    """Whether transformers refuses for want of ids of nine letters and digits, which Luthier makes then."""
    words = [r"\bIDs?\b", "length 9"]
    return not isinstance(ours, Exception) and isinstance(theirs, Exception) and all(re.search(word, str(theirs)) for word in words)


def difference(ours, theirs):
    """Where two results part, or None."""
    refused = [isinstance(result, Exception) for result in (ours, theirs)]
    if all(refused):
        return None
    if refused[0]:
        return f"refused here: {str(ours)[:300]}"
    if refused[1]:
        return f"refused by transformers: {type(theirs).__name__}: {str(theirs)[:200]}"
    if ours == theirs:
        return None
    at = next((index for index, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), min(len(ours), len(theirs)))
    return f"at {at}: {ours[max(0, at - 30):at + 40]!r} here, {theirs[max(0, at - 30):at + 40]!r} there"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--luthier", default="target/release/luthier")
    parser.add_argument("--packages", default="target/external", help="where the source packages are kept")
    parser.add_argument("--output", help="the page to write")
    parser.add_argument("--only", help="templates whose name contains this, with every difference shown")
    options = parser.parse_args()
    Path(options.packages).mkdir(parents=True, exist_ok=True)
    packages = fetch(options.packages)
    templates = [found for found in collect(packages) if not options.only or options.only in found[1]]
    counts = {package: [0, 0, 0, 0] for package in packages}
    differing, rendered, refused, made = [], 0, 0, 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        files = []
        for index, (_, messages, tools, *_rest) in enumerate(CONVERSATIONS):
            files.append(Path(folder) / f"{index}.json")
            files[-1].write_text(json.dumps({"messages": messages, "tools": tools}))
        single = Path(folder) / "single.json"
        single.write_text(json.dumps([USER, REPLY]))
        for package, name, source in templates:
            path = Path(folder) / "template.jinja"
            path.write_bytes(source.encode())
            runs = [
                pool.submit(by_luthier, options.luthier, path, file, ask, marks_replies(source, ask), variables)
                for file, (_, _, _, ask, variables) in zip(files, CONVERSATIONS)
            ]
            differences = []
            for run, (label, messages, tools, ask, variables) in zip(runs, CONVERSATIONS):
                theirs = by_transformers(source, messages, tools, ask, variables)
                refused += isinstance(theirs, Exception)
                rendered += 1
                found = difference(run.result(), theirs)
                if made_ids(run.result(), theirs):
                    made += 1
                elif found:
                    differences.append(f"{label}: {found}")
            for place, masked in enumerate([single, files[WHOLE]]):
                found = by_luthier(options.luthier, path, masked, False, True, {})
                counts[package][2 + place] += not isinstance(found, Exception)
            counts[package][0] += 1
            counts[package][1] += not differences
            if differences:
                differing.append((name, differences))
                print(f"{name}: {len(differences)} of {len(CONVERSATIONS)}")
                for line in differences if options.only else differences[:2]:
                    print(f"    {line}")
    equal = sum(same for _, same, *_ in counts.values())
    marking = sum(marks_replies(source, False) for _, _, source in templates)
    print(f"{equal} of {len(templates)} templates equal; {rendered} renderings, {refused} refused by transformers, of which {made} are written here with ids")
    if options.output:
        Path(options.output).write_text(page(options, counts, differing, rendered, refused, made, marking))
    unexplained = [name for name, _ in differing if name not in REASONS]
    if unexplained:
        sys.exit(f"differ without a known reason: {', '.join(unexplained)}")


def page(options, counts, differing, rendered, refused, made, marking):
    names = subprocess.run([options.luthier, "template", "list"], capture_output=True, check=True).stdout.decode()
    rows = [line.split(None, 1) for line in names.splitlines()]
    aliases = [(name, what.removeprefix("as ")) for name, what in rows if what.startswith("as ")]
    own = [name + ("*" if what.startswith("thinks; ") else "") for name, what in rows if not what.startswith("as ")]
    sums = [sum(column) for column in zip(*counts.values())]
    lines = [
        "# Chat templates",
        "",
        "Written by `tests/external/jinja_templates.py`.",
        "",
        "## A model's own",
        "",
        f"Every Jinja chat template of the source packages below, each once, on {len(CONVERSATIONS)} conversations (with and",
        "without system message, several turns, thoughts, tools, calls of tools), rendered by Luthier and by transformers",
        f"{transformers_version}, and compared byte for byte; where a template marks replies with `{{% generation %}}`, the marked bytes",
        f"too ({marking} templates). Where both refuse a conversation, they agree ({refused} of {rendered} renderings: most of them",
        "templates that want roles to alternate).",
        "",
        "Calls keep the `id` and results the `tool_call_id` that a record has. Some templates (Mistral's) refuse calls without an id",
        "of nine letters and digits; such a conversation is written once more with ids that are made from the call, its place and the",
        f"id that it had, the same in every run, and the rows are counted ({made} of the renderings above). Where a template",
        "writes calls without, nothing is made.",
        "",
        "The last columns count the templates that can be trained with: those whose replies are found in a conversation of one turn,",
        "and of several. The others write another text before a reply once it is there (a prompt that ends with an open thought,",
        "often), so that what is trained would not be what the model is asked with; that is an error, with both texts.",
        "",
        "| package | templates | equal | replies found, one turn | several |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {package} | {' | '.join(map(str, row))} |" for package, row in counts.items()),
        f"| all | {' | '.join(map(str, sums))} |",
        "",
    ]
    if differing:
        lines += ["| differs | conversations | reason |", "| --- | --- | --- |"]
        lines += [f"| `{name}` | {len(found)} | {REASONS.get(name, 'unknown')} |" for name, found in differing]
        lines += [""]
    lines += [
        "## Named",
        "",
        "Names and texts are LLaMA-Factory's; `cargo xtask fixtures fixtures` compares the text of every turn. Where Luthier does",
        "something else:",
        "",
        "- Nothing is added to the vocabulary (`replace_eos`, stop words): a token that the tokenizer does not know as one is said",
        "  before the training starts, and replies end with the tokenizer's end token.",
        "- Every reply ends with a trained end token. Where LLaMA-Factory writes none between turns (`efficient_eos`) and puts a",
        "  label for it on the first token of the next prompt, that token ends the reply and is trained itself, if it is a stop",
        "  word (`<|user|>`, for GLM); else the end token is written, and counted.",
        "- Results of several tools that follow one another are joined by `</tool_response>` and `<tool_response>` only where the",
        "  template has these tags, else by a line break.",
        "- A call of a tool keeps the text that stands before it.",
        "- Where a row is cut, the end token counts as LLaMA-Factory counts it, but with `mask_history` the ends of earlier replies",
        "  are not trained: there the label stands on the prompt behind a reply, and only replies are masked.",
        "",
        f"{len(own)} templates (those with a star begin replies with a thought), and {len(aliases)} names that mean one of them.",
        "`luthier template show NAME` tells what one writes.",
        "",
        *wrapped(own),
        "",
        *wrapped([f"{name} = {of}" for name, of in aliases]),
        "",
    ]
    return "\n".join(lines)


def wrapped(words):
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) > 118:
            lines, line = [*lines, line.rstrip()], ""
        line += f"{word}, "
    return [*lines, line.rstrip(", ") + "."]


if __name__ == "__main__":
    main()
