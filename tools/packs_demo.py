#!/usr/bin/python3
"""make packs-demo: a coordinator with a small model; streams run that are pinned to its own experts, while a pack is switched on, used, pruned,
restored and removed. A table says how long each change took, what it did to an answer of the default set, and to the pinned streams: nothing.

    packs_demo.py [MODEL]        a checkpoint; by default a small one with random weights (FAMILY, as for make demo)"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
CONCLAVE, TOKENS = "bin/conclave", "96"
PROMPT = os.environ.get("PROMPT", "A mixture of experts is")
CHANGES = (("a pack is added", ("packs", "add", "{pack}")), ("two experts of each layer are pruned", ("experts", "prune", "{pruned}")),
           ("they are restored", ("experts", "restore", "--all")), ("the pack is removed", ("packs", "remove", "demo")))


def run(*args):
    done = subprocess.run(args, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: exit code {done.returncode}")
    return done.stdout


def make_pack(model, folder):
    run("tools/make_pack.py", "random", os.path.join(folder, "demo"), "--model", model, "--conclave", CONCLAVE, "--experts", "2", "--scale", "1.5")
    return os.path.join(folder, "demo")


def start(model, folder):
    log = tempfile.TemporaryFile("w+")
    server = subprocess.Popen(["bin/conclave-coordinator", "--model", model, "--pack-dir", folder, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=log,
                              encoding="utf-8")
    line = server.stdout.readline().split()
    if len(line) != 2 or line[0] != "READY":
        log.seek(0)
        sys.exit(f"the coordinator stopped:\n{log.read()}")
    return server, line[1]


def answer(address, *args):
    return run(CONCLAVE, "generate", "--server", address, "--seed", "1", "--max-tokens", TOKENS, "--quiet", *args, PROMPT)


class Pinned:
    """One stream of the checkpoint's own experts after the other, each compared with the first."""

    def __init__(self, address):
        self.address, self.wanted, self.ends = address, answer(address, "--set", "base"), False
        self.n = self.n_other = 0
        self.thread = threading.Thread(target=self.stream)
        self.thread.start()

    def stream(self):
        while not self.ends:
            self.n_other += answer(self.address, "--set", "base") != self.wanted
            self.n += 1

    def wait_for_one(self):
        """Until a whole stream has begun and ended from now on."""
        n = self.n
        while self.thread.is_alive() and self.n < n + 2:
            time.sleep(0.01)


def play(model, pack, address):
    names = {"pack": pack, "pruned": ",".join(f"{layer}:0-1" for layer in range(count_layers(model)))}
    answers, rows = [answer(address)], []
    pinned = Pinned(address)
    try:
        for what, words in CHANGES:
            n, other = pinned.n, pinned.n_other
            begun = time.monotonic()
            run(CONCLAVE, *(word.format(**names) for word in words), "--server", address)
            taken = time.monotonic() - begun
            now = answer(address)
            before = next((i for i, text in enumerate(answers) if text == now), None)
            answers.append(now)
            pinned.wait_for_one()
            rows.append((what, f"{taken * 1e3:.0f} ms", "another" if before is None else "as at first" if before == 0 else f"as after change {before}",
                         f"{pinned.n - n} run, {pinned.n_other - other} different"))
    finally:
        pinned.ends = True
        pinned.thread.join()
    return rows, pinned


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
            rows, pinned = play(model, pack, address)
        finally:
            server.terminate()
            server.wait()
    heads = ("change", "command took", "answer of the default set", "streams pinned to the base")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    print()
    for i, row in enumerate([heads, *rows]):
        print(f"{i or '':>2} " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    print(f"\n{pinned.n} pinned streams of {TOKENS} tokens, {pinned.n_other} of them different")
    return pinned.n_other > 0


if __name__ == "__main__":
    sys.exit(main())
