#!/usr/bin/env python3
"""Our chat templates beside `jinja2` in the environment of `transformers`: equal bytes, and errors on both sides alike.

  constructions  those of template_cases.py, one by one
  templates      those of template_models.py, and real ones: *.jinja, and the chat_template of *.json, under --templates DIR
  conversations  random: system, several turns, tools, calls and their results, odd white space, empty contents

usage: check_peers_templates.py --driver build/release/bin/template_driver [--templates DIR] [--conversations N]
       check_peers_templates.py --write tests/vectors/template/cases.json    (the vectors, made with jinja2)"""
import argparse
import datetime
import glob
import json
import os
import random
import subprocess
import sys
import venv

import template_cases
import template_models

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORDS = ["hello", " ", "\n", "  x ", "\t", "", "é", "日本語", "😀", "<b>", "</think>", "<think>", "a</think>b", "{{ x }}", "{% y %}",
         "'", '"', "\\", "<|im_end|>", "</s>", "[INST]", "0", "<tool_response>", "</tool_response>", "\u00a0", "\u2028", "\r\n",
         "None", "<think>\nq\n</think>\n\nans", "/nothink", "<<SYS>>"]


def enter_venv():
    """Runs again under a Python that has jinja2."""
    folder = os.path.join(ROOT, "build", "peers-venv")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", "import jinja2"], stderr=subprocess.DEVNULL).returncode != 0:
        print("installing jinja2 into build/peers-venv", flush=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "jinja2"], check=True)
    os.execv(python, [python, os.path.abspath(__file__)] + sys.argv[1:])


def environment():
    """What transformers' apply_chat_template renders in."""
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = datetime.datetime(*template_cases.TIME).strftime
    return env


def rendered(env, source, variables, cache={}):
    """("text", it) or ("error", why); the template is compiled once."""
    try:
        if source not in cache:
            cache.clear()
            cache[source] = env.from_string(source)
        return "text", cache[source].render(**variables)
    except Exception as error:  # whatever Python or Jinja raises
        return "error", f"{type(error).__name__}: {error}"


class Driver:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, source, variables):
        line = {"template": source, "variables": variables, "time": template_cases.TIME}
        self.process.stdin.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return ("error", answer["error"]) if "error" in answer else ("text", answer["text"])


def differ(ours, theirs):
    return ours[0] != theirs[0] or (ours[0] == "text" and ours != theirs)


# ---------------------------------------------------------------------------------------------------- conversations
class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, p):
        return self.random.random() < p

    def text(self):
        return "".join(self.random.choice(WORDS) for _ in range(self.random.randint(0, 6)))

    def data(self, depth=0):
        kind = self.random.randint(0, 8 if depth < 3 else 5)
        if kind == 6:
            return [self.data(depth + 1) for _ in range(self.random.randint(0, 3))]
        if kind > 6:
            return {self.random.choice(["a", "b", "city", "é", "type", "items"]): self.data(depth + 1)
                    for _ in range(self.random.randint(0, 3))}
        simple = [None, self.chance(.5), self.random.randint(-5, 10**6), self.random.choice([0.5, 1e20, -3.25, 1e-7, 2.0])]
        return simple[kind] if kind < 4 else self.text()

    def schema(self, depth=0):
        kinds = ["string", "integer", "number", "boolean", "array", "object"]
        spec = {"type": self.random.choice(kinds) if depth < 3 else "string"}
        for p, key, make in ((.7, "description", self.text), (.2, "default", lambda: self.data(2)), (.1, "nullable", lambda: True)):
            if self.chance(p):
                spec[key] = make()
        if spec["type"] == "string" and self.chance(.2):
            spec["enum"] = ["a", "b"]
        if spec["type"] == "array" and self.chance(.8):
            spec["items"] = self.schema(depth + 1)
        if spec["type"] == "object":
            spec["properties"] = {k: self.schema(depth + 1) for k in self.random.sample(["x", "y", "z"], self.random.randint(0, 3))}
            if self.chance(.5):
                spec["required"] = list(spec["properties"])[:1]
        if self.chance(.1) and depth < 2:
            return {"oneOf": [self.schema(depth + 1), self.schema(depth + 1)]}
        if self.chance(.1):
            spec["type"] = ["string", "null"]
        return spec

    def tool(self, index):
        names = self.random.sample(["a", "b", "city", "unit"], self.random.randint(0, 3))
        parameters = {"type": "object", "properties": {k: self.schema() for k in names}}
        if self.chance(.7):
            parameters["required"] = names[:1]
        function = {"name": f"f{index}", "description": self.text(), "parameters": parameters}
        return {"type": "function", "function": function} if self.chance(.95) else function

    def call(self):
        arguments = {k: self.data() for k in self.random.sample(["a", "b", "city"], self.random.randint(0, 2))}
        call = {"name": f"f{self.random.randint(0, 2)}", "arguments": arguments if self.chance(.8) else '{"a": 1}'}
        if self.chance(.85):
            call = {"type": "function", "function": call}
        if self.chance(.5):
            call["id"] = self.random.choice(["call_1", "abcdefghi"])
        return call

    def answer(self):
        """What an assistant says, and the results of what it calls."""
        message = {"role": "assistant", "content": self.text()}
        if self.chance(.2):
            message["reasoning_content"] = self.text()
        if self.chance(.7):
            return [message]
        message["tool_calls"] = [self.call() for _ in range(self.random.randint(0, 2))]
        if self.chance(.4):
            message["content"] = self.random.choice(["", None])
        if self.chance(.2):
            del message["content"]
        results = [{"role": "tool", "content": self.text() if self.chance(.9) else self.data(), "tool_call_id": call.get("id", "x"),
                    "name": "f1"} for call in message["tool_calls"]]
        return [message] + results + ([{"role": "assistant", "content": self.text()}] if self.chance(.7) else [])

    def variables(self):
        messages = []
        if self.chance(.5):
            messages.append({"role": self.random.choice(["system", "system", "developer"]), "content": self.text()})
        for _ in range(0 if self.chance(.03) else self.random.randint(1, 4)):
            parts = [{"type": "text", "text": self.text()}]
            messages.append({"role": "user", "content": self.text() if self.chance(.92) else parts})
            if self.chance(.8):
                messages += self.answer()
        if self.chance(.05):
            self.random.shuffle(messages)
        chosen = {"messages": messages, "add_generation_prompt": self.chance(.7), "documents": None, "bos_token": "<s>",
                  "eos_token": "</s>", "tools": [self.tool(i) for i in range(self.random.randint(0, 3))] if self.chance(.4) else None}
        optional = [(.3, "enable_thinking", lambda: self.chance(.5)), (.1, "thinking", lambda: self.chance(.5)),
                    (.1, "reasoning_effort", lambda: "low"), (.1, "date_string", lambda: "01 Jan 2025"),
                    (.1, "documents", lambda: [{"title": self.text(), "text": self.text()}]),
                    (.1, "builtin_tools", lambda: ["f1", "code_interpreter"]), (.1, "controls", lambda: {"length": "long"})]
        chosen.update({name: make() for p, name, make in optional if self.chance(p)})
        return chosen


# ---------------------------------------------------------------------------------------------------- checks
def real_templates(folder):
    """Path -> source of every template under folder; the same source once."""
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, "**", "*"), recursive=True)):
        sources = []
        if path.endswith(".jinja"):
            with open(path, encoding="utf-8") as file:
                sources = [file.read()]
        elif path.endswith("config.json"):
            with open(path, encoding="utf-8") as file:
                value = json.load(file).get("chat_template") or []
            sources = [value] if isinstance(value, str) else [item["template"] for item in value]
        for i, source in enumerate(sources):
            if source not in found.values():
                found[f"{path}#{i}"] = source
    return found


def report(name, variables, ours, theirs):
    print(f"{name}: differs with {json.dumps(variables, ensure_ascii=False)[:2000]}")
    print(f"  ours {ours[0]} {ours[1]!r:.2000}\n  peer {theirs[0]} {theirs[1]!r:.2000}")


def check_constructions(env, driver):
    bad = 0
    for source in template_cases.cases():
        ours, theirs = driver.ask(source, template_cases.VARIABLES), rendered(env, source, template_cases.VARIABLES)
        if differ(ours, theirs):
            bad += 1
            report(repr(source), {}, ours, theirs)
    print(f"{len(template_cases.cases())} constructions: {bad} differences", flush=True)
    return bad


def check_templates(env, driver, templates, n, seed):
    """n conversations, shared out among the templates."""
    bad = n_text = n_done = 0
    for index, (name, source) in enumerate(templates.items()):
        generator = Generator(seed * 1000 + index)
        before = bad
        for _ in range(-(-n // len(templates))):
            variables = generator.variables()
            ours, theirs = driver.ask(source, variables), rendered(env, source, variables)
            n_done += 1
            n_text += theirs[0] == "text"
            if differ(ours, theirs):
                if bad == before:
                    report(name, variables, ours, theirs)
                bad += 1
    print(f"{len(templates)} templates, {n_done} conversations ({n_text} rendered, the others refused): {bad} differences", flush=True)
    return bad


def write_vectors(env, path):
    """What jinja2 makes of the constructions. A null text: it refuses."""
    cases = [{"template": source, "text": kind_text[1] if kind_text[0] == "text" else None}
             for source in template_cases.cases() for kind_text in [rendered(env, source, template_cases.VARIABLES)]]
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"variables": ' + json.dumps(template_cases.VARIABLES, ensure_ascii=False))
        file.write(',\n "time": ' + json.dumps(template_cases.TIME) + ',\n "cases": [\n')
        file.write(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", help="the program template_driver")
    parser.add_argument("--templates", help="folder with real templates")
    parser.add_argument("--conversations", type=int, default=20000, help="in all (default %(default)s), and as many for DIR's")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", help="write the vectors to this file instead")
    args = parser.parse_args()
    try:
        import jinja2
    except ImportError:
        enter_venv()
    env = environment()
    if args.write:
        write_vectors(env, args.write)
        return
    print(f"jinja2 {jinja2.__version__}, seed {args.seed}", flush=True)
    driver = Driver(args.driver)
    bad = check_constructions(env, driver) + check_templates(env, driver, template_models.TEMPLATES, args.conversations, args.seed)
    real = real_templates(args.templates) if args.templates else {}
    if real:
        bad += check_templates(env, driver, real, args.conversations, args.seed)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
