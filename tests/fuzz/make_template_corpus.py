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
# What is refused beyond the constructions: names, depths, sizes, steps, and what Jinja has and this has not.
REFUSED = [
    "{{ x|wordwrap }}", "{{ l|map('urlize') }}", "{{ x.encode() }}", "{{ joiner() }}", "{{ self }}", "{{ x is shiny }}",
    "{% include 'x' %}", "{% for i in l recursive %}{% endfor %}", "{{ x[1, 2] }}", "{{ '\\ud800' }}",
    "{% if n %}{{ 1|from_json }}{% endif %}{% if t %}{{ 1|from_json }}{% endif %}", "{{ 1 is shiny if t }}",
    "{{ " + "(" * 300, "{{ x" + "|upper" * 300 + " }}", "{% if t %}" * 70, "{{ x" + " + x" * 300 + " }}",
    "".join(f"{{{{ a{i} }}}}" for i in range(1100)),
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% for i in range(99999) %}{{ i }}{% endfor %}", "{{ 'x' * 99999 }}",
    "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns == ns.x }}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(30) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "{{ 'a'|map(" + "'map', " * 1200 + "'upper')|list }}",
    "{{ 9223372036854775807 + 1 }}", "{{ 9223372036854775807 * 2 }}", "{{ 10 ** 19 }}", "{{ (-9223372036854775807 - 1) // -1 }}",
    "{{ -(-9223372036854775807 - 1) }}", "{{ (-9223372036854775807 - 1)|abs }}", "{{ 1e300|int }}", "{{ '9' * 30 }}{{ ('9' * 30)|int }}",
    "{{ 5|round(-400) }}{{ 1.5|round(-400) }}{{ 1.5|round(400) }}{{ 9223372036854775807|round(-1) }}",
    "{{ m.name }}{% macro m() %}{% endmacro %}{{ m.name }}", "{{ x.real }}", "{{ range(3).start }}", "{{ s.encode }}",
    "{{ strftime_now('%Q') }}", "{{ strftime_now('%w %u %h %F %T %R %D %x %X %Z%z %% %H:%M %-m %-H %-j') }}{{ strftime_now(1) }}",
    "{{ range() }}", "{{ range('a') }}", "{{ dict([1]) }}", "{{ dict([(1,)]) }}", "{{ dict(1, 2) }}", "{{ namespace([('a', 1)]).a }}{{ dict(**n) }}",
    "{{ dict(**{1: 2}) }}", "{{ raise_exception() }}", "{{ raise_exception(a=1) }}", "{{ s.replace('a') }}", "{{ s.replace('a', old='b') }}",
    "{{ s.replace('a', 'b', 'c') }}", "{{ s.center(5, 'ab') }}", "{{ s.join(5) }}", "{{ s.split(5) }}", "{{ s.upper(1) }}", "{{ s.upper(a=1) }}",
    "{{ l|sort(attribute=n) }}{{ l|map(5)|list }}", "{{ l|map }}", "{{ l|selectattr }}", "{{ l|select(5)|list }}", "{{ l|select('shiny')|list }}",
    "{{ l|map('shiny')|list }}", "{{ d|dictsort(by='x') }}", "{{ ['a']|sum }}{{ ['a']|sum(start='') }}", "{{ 5|dictsort }}", "{{ 5|indent }}",
    "{{ l|tojson(separators=5) }}", "{{ l|tojson(indent=1.5) }}", "{{ 'x'|truncate(1) }}", "{{ 5|reverse }}", "{{ 5|join }}",
    "{% set x.y = 1 %}", "{% for a, b in [1] %}{% endfor %}", "{% call 5() %}{% endcall %}", "{% call(a, b=2) foo(c=1) %}{% endcall %}",
    "{% macro m(a) %}{{ caller(1, c=2) }}{% endmacro %}{% call(b, c=3) m(a=1) %}{{ b ~ c }}{% endcall %}{{ m(1, 2) }}",
    "{% macro m(caller) %}{{ caller }}{% endmacro %}{{ m(1) }}{% call m() %}x{% endcall %}", "{% with a %}{% endwith %}", "{% with 1 = 2 %}{% endwith %}",
    "{% filter shiny %}x{% endfilter %}", "{% macro 1() %}{% endmacro %}", "{% macro m(1) %}{% endmacro %}", "{% macro m %}{% endmacro %}",
    "{% set x | wordwrap %}{% endset %}", "{% set a, 1 = 2 %}", "{% print 1, %}", "{% print %}{% print 1 2 %}", "{% continue %}", "{% 5 %}",
    "{% call(1) m() %}{% endcall %}", "{% call x %}{% endcall %}", "{% generation %}", "{{ 0x }}", "{{ 1__0 }}", "{{ 1e }}", "{{ 1.e5 }}", "\xff",
    "{{ '\\x4' }}{{ '\\777' }}{{ '\\N' }}", "{{ '\\é\\U0001F600\\u20ac' }}{{ '\\U00110000' }}", "{{ ** }}", "{{ f(*l, *l) }}", "{{ f(**d, 1) }}", "{{ f(*l, a=1, **d) }}",
]


def write(folder, name, source, variables):
    (folder / name).write_bytes(source.encode("latin-1" if source == "\xff" else "utf-8") + b"\0" + json.dumps(variables, ensure_ascii=False).encode())


def main():
    folder = pathlib.Path(sys.argv[1]) / "fuzz_template"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    vectors = json.loads((ROOT / "tests/vectors/template/cases.json").read_text())
    sound = [case["template"] for case in vectors["cases"] if case["text"] is not None and "\r" not in case["template"]
             and ("raw" in case["template"]) == ("endraw" in case["template"])]
    refused = [case["template"] for case in vectors["cases"] if case["text"] is None]
    for i in range(0, len(sound), 10):
        write(folder, f"sound_{i // 10:02}", "\n".join(sound[i:i + 10]), template_cases.VARIABLES)
    for i, source in enumerate(refused + REFUSED):
        write(folder, f"refused_{i:03}", source, template_cases.VARIABLES)
    for name, source in template_models.TEMPLATES.items():
        write(folder, f"model_{name}", source, CONVERSATION)
    write(folder, "iterator_empty", "{{ foo|map('upper')|list }}{{ foo|unique|list }}", {})
    write(folder, "no_variables", "{{ mark|upper|replace('x', mark)|tojson }}{{ [mark, {mark: mark}] }}", {})


if __name__ == "__main__":
    main()
