#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_template from tools/template_cases.py and tools/template_models.py: constructions that render, ten a
file; each that is refused in a file of its own; the longer templates with a conversation. A NUL stands before the variables.

usage: make_template_corpus.py tests/fuzz/corpus"""
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import template_cases  # noqa: E402
import template_models  # noqa: E402

CALL = {"type": "function", "id": "call_1", "function": {"name": "f", "arguments": {"a": [1, 2.5, None, "\ue000"]}}}
SPEC = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}, "b": {"oneOf": [{"type": "integer"}]}}}
CONVERSATION = {
    "messages": [{"role": "system", "content": " s\ue000 "}, {"role": "user", "content": "\ue000"},
                 {"role": "assistant", "content": "<think>x</think>y", "tool_calls": [CALL]},
                 {"role": "tool", "content": "\n r", "tool_call_id": "call_1", "name": "f"},
                 {"role": "assistant", "content": "a"}, {"role": "user", "content": ""}],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d\ne", "parameters": SPEC}}],
    "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "documents": [{"text": "t"}],
}


def write(folder, name, source, variables):
    (folder / name).write_bytes(source.encode() + b"\0" + json.dumps(variables, ensure_ascii=False).encode())


def main():
    folder = pathlib.Path(sys.argv[1]) / "fuzz_template"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    vectors = json.loads((ROOT / "tests/vectors/template/cases.json").read_text())
    sound = [case["template"] for case in vectors["cases"] if case["text"] is not None and "\r" not in case["template"]]
    refused = [case["template"] for case in vectors["cases"] if case["text"] is None]
    for i in range(0, len(sound), 10):
        write(folder, f"sound_{i // 10:02}", "\n".join(sound[i:i + 10]), template_cases.VARIABLES)
    for i in range(0, len(refused), 3):  # all of them would be many files
        write(folder, f"refused_{i // 3:02}", refused[i], template_cases.VARIABLES)
    for name, source in template_models.TEMPLATES.items():
        write(folder, f"model_{name}", source, CONVERSATION)
    write(folder, "unknown_filter", "{{ x|wordwrap }}", {})
    write(folder, "no_variables", "{{ mark|upper|replace('x', mark)|tojson }}{{ [mark, {mark: mark}] }}", {})


if __name__ == "__main__":
    main()
