#!/usr/bin/python3
"""make packs-demo: a coordinator with a small model; streams run that are pinned to its own experts, while a pack is switched on, used, pruned,
restored, removed, and the removal rolled back. A table says how long each change took, what it did to an answer of the default set, and to the
pinned streams, which go on through all of it: nothing. They are asked again at the end, with nothing else going on, to compare.

    packs_demo.py [MODEL]        a checkpoint; by default a small one with random weights (FAMILY, as for make demo)"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
CONCLAVE, TOKENS, STREAMS = "bin/conclave", "96", 16
PROMPT = os.environ.get("PROMPT", "A mixture of experts is")
CHANGES = (("a pack is added", "packs add {pack}"), ("two experts of each layer are pruned", "experts prune {pruned}"),
           ("they are restored", "experts restore --all"), ("the pack is removed", "packs remove demo"),
           ("the removal is rolled back", "packs rollback"))


def run(*args, **options):
    done = subprocess.run(args, stdout=subprocess.PIPE, encoding="utf-8", **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: exit code {done.returncode}\n{done.stderr or ''}")
    return done.stdout


def make_pack(model, folder):
    print("== making a pack of two new experts for each layer, with random weights", flush=True)
    run("tools/make_pack.py", "random", os.path.join(folder, "demo"), "--model", model, "--conclave", CONCLAVE, "--experts", "2", "--scale", "1.5",
        stderr=subprocess.PIPE)
    return os.path.join(folder, "demo")


def start(model, folder):
    log = tempfile.TemporaryFile("w+")
    server = subprocess.Popen(["bin/conclave-coordinator", "--model", model, "--pack-dir", folder, "--listen", "127.0.0.1:0"],
                              stdout=subprocess.PIPE, stderr=log, encoding="utf-8")
    line = server.stdout.readline().split()
    if len(line) != 2 or line[0] != "READY":
        log.seek(0)
        sys.exit(f"the coordinator stopped:\n{log.read()}")
    return server, line[1]


def answer(address):
    return run(CONCLAVE, "generate", "--server", address, "--seed", "1", "--max-tokens", TOKENS, "--quiet", PROMPT)


class Pinned:
    """STREAMS answers of the checkpoint's own experts, as long as the context allows; each token is kept with the change that it came in."""

    def __init__(self, address):
        self.address, self.tokens, self.change = address, [[] for _ in range(STREAMS)], 0
        context = json.loads(run(CONCLAVE, "model", "--server", address, "--json"))["max_context"]
        n_prompt = len(json.loads(run(CONCLAVE, "tokenize", "--server", address, "--json", PROMPT))["ids"])
        self.process = subprocess.Popen(self.command(context - n_prompt), stdout=subprocess.PIPE, encoding="utf-8")
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def command(self, n_tokens):
        return [CONCLAVE, "generate", "--server", self.address, "--set", "base", "--n", str(STREAMS), "--seed", "1", "--ignore-eos", "--max-tokens",
                str(n_tokens), "--json", PROMPT]

    def read(self):
        for index, ids in pieces(self.process.stdout):
            self.tokens[index] += [(id, self.change) for id in ids]

    def go_on(self):
        """Until each stream has two more tokens."""
        before = [len(tokens) for tokens in self.tokens]
        while any(len(tokens) < n + 2 for tokens, n in zip(self.tokens, before)):
            if not self.thread.is_alive():
                sys.exit(f"the pinned streams ended before the demo did, exit code {self.process.wait()}; 0: at the end of the context")
            time.sleep(0.005)

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.thread.join()

    def compare(self):
        """For each change: how many tokens came in it, and how many of them are others than without any change."""
        wanted, counts = [[] for _ in range(STREAMS)], [[0, 0] for _ in range(len(CHANGES) + 1)]
        for index, ids in pieces(run(*self.command(max(len(tokens) for tokens in self.tokens))).splitlines(keepends=True)):
            wanted[index] += ids
        for tokens, right in zip(self.tokens, wanted):
            for (id, change), other in zip(tokens, right):
                counts[change][0] += 1
                counts[change][1] += id != other
        return counts


def pieces(lines):
    for line in lines:
        if line.endswith("\n"):  # the last one of a client that was ended may be cut
            chunk = json.loads(line)
            yield chunk["index"], chunk.get("token_ids", [])


def play(model, pack, address):
    names = {"pack": pack, "pruned": ",".join(f"{layer}:0-1" for layer in range(count_layers(model)))}
    answers, rows = [answer(address)], []
    pinned = Pinned(address)
    try:
        pinned.go_on()
        for number, (what, words) in enumerate(CHANGES, 1):
            pinned.change = number
            words = words.format(**names)
            print(f"== conclave {words}", flush=True)
            begun = time.monotonic()
            run(CONCLAVE, *words.split(), "--server", address)
            taken = time.monotonic() - begun
            now = answer(address)
            before = next((i for i, text in enumerate(answers) if text == now), None)
            answers.append(now)
            pinned.go_on()
            rows.append((what, f"{taken * 1e3:.0f} ms", "another" if before is None else "as at first" if before == 0 else f"as after change {before}"))
    finally:
        pinned.end()
    counts = pinned.compare()
    return [(*row, f"{n} tokens, {different} different") for row, (n, different) in zip(rows, counts[1:])], [sum(column) for column in zip(*counts)]


def count_layers(model):
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    return config.get("num_hidden_layers", config.get("n_layer"))


def main():
    model = run("tools/demo_model.sh", *sys.argv[1:2]).strip()
    with tempfile.TemporaryDirectory() as folder:
        pack = make_pack(model, folder)
        server, address = start(model, folder)
        try:
            rows, (n, n_different) = play(model, pack, address)
        finally:
            server.terminate()
            server.wait()
    heads = ("change", "command took", "answer of the default set", f"{STREAMS} streams pinned to the base")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    print()
    for i, row in enumerate([heads, *rows]):
        print(f"{i or '':>2} " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    print(f"\n{STREAMS} pinned streams ran through all of it: {n} tokens compared, {n_different} of them different")
    return n_different > 0


if __name__ == "__main__":
    sys.exit(main())
