#!/usr/bin/python3
"""make packs-demo: a cluster on this machine, of etcd, two nodes and a coordinator, with a small model. Streams run that are pinned to the model's own
experts, while a third node joins with a pack, which is switched on, used, pruned, restored, removed, and the removal rolled back. A table says how long
each change took, what it did to an answer of the default set, how many rows the pack's experts computed for it, and what it did to the pinned streams,
which go on through all of it: nothing. They are asked again at the end, with nothing else going on, to compare.

    packs_demo.py [MODEL] [--bin DIR] [--short]     MODEL: a checkpoint; by default that of make demo (FAMILY)"""
import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from demo_cluster import ROOT, Cluster, clean_env, make_model, make_pack, run  # noqa: E402

PROMPT = os.environ.get("PROMPT", "A mixture of experts is")
JOINS = "a node joins, with a pack"
# What happens, its command, and after which change the answer must be this one again (0: before any; None: it may be another).
CHANGES = ((JOINS, None, 0), ("the pack is added", "packs add demo", None), ("two experts of each layer are pruned", "experts prune {pruned}", None),
           ("they are restored", "experts restore --all", 2), ("the pack is removed", "packs remove demo", 0),
           ("the removal is rolled back", "packs rollback", 2))


class Demo:
    def __init__(self, stack, folder, args):
        self.n_streams, self.n_tokens = (4, "24") if args.short else (16, "96")
        if args.short and not args.model:
            model = make_model(folder)
        else:
            model = run(os.path.join(ROOT, "tools", "demo_model.sh"), *([args.model] if args.model else [])).strip()
        print("== making a pack of two new experts for each layer, with random weights", flush=True)
        self.pack = make_pack(folder, "demo", model, args.bin)
        print("== etcd, two nodes and a coordinator", flush=True)
        self.cluster = Cluster(stack, folder, args.bin, model)

    def answer(self):
        return self.cluster.ask("generate", "--seed", "1", "--max-tokens", self.n_tokens, "--quiet", PROMPT)

    def change(self, command):
        if command is None:
            print("== conclave-node --id c --pack demo/", flush=True)
            self.cluster.join("c", self.pack)
        else:
            print(f"== conclave {command}", flush=True)
            self.cluster.ask(*command.split())

    def play(self):
        """A row of the table for each change, how many tokens were compared, and what was not as it must be."""
        pruned = ",".join(f"{layer}:0-1" for layer in range(len(self.cluster.rows("layer"))))
        answers, rows, wrong, used = [self.answer()], [], [], 0
        pinned = Pinned(self)
        try:
            pinned.go_on()
            for number, (what, command, same) in enumerate(CHANGES, 1):
                pinned.change = number
                begun = time.monotonic()
                self.change(command and command.format(pruned=pruned))
                taken = time.monotonic() - begun
                answers.append(self.answer())
                before, used = used, self.cluster.rows("pack").get("demo", 0)
                pinned.go_on()
                if same is not None and answers[-1] != answers[same]:
                    wrong.append(f"{what}: the answer is not that after change {same}")
                rows.append((what, f"{taken * 1e3:.0f} ms", name_answer(answers), str(used - before)))
        finally:
            pinned.end()
        counts = pinned.compare()
        rows = [(*row, f"{n} tokens, {different} different") for row, (n, different) in zip(rows, counts[1:])]
        n, n_different = (sum(column) for column in zip(*counts))
        return rows, n, wrong + [f"{n_different} tokens of pinned streams are different"] * (n_different > 0)


def name_answer(answers):
    first = answers.index(answers[-1])
    return "another" if first == len(answers) - 1 else "as at first" if first == 0 else f"as after change {first}"


class Pinned:
    """Answers of the checkpoint's own experts, over and over; each token is kept with the change that it came in."""

    def __init__(self, demo):
        self.cluster, self.n, self.change, self.ended, self.tokens = demo.cluster, demo.n_streams, 0, False, []
        context = json.loads(self.cluster.ask("model", "--json"))["max_context"]
        self.most = min(192, context - len(json.loads(self.cluster.ask("tokenize", "--json", PROMPT))["ids"]))  # what is asked again at the end
        self.process = None
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def command(self, n_tokens):
        return ["generate", "--set", "base", "--n", str(self.n), "--seed", "1", "--ignore-eos", "--max-tokens", str(n_tokens), "--json", PROMPT]

    def read(self):
        while not self.ended:
            rounds = [[] for _ in range(self.n)]
            self.tokens = self.tokens + rounds
            self.process = subprocess.Popen(self.cluster.command(*self.command(self.most)), stdout=subprocess.PIPE, encoding="utf-8", env=clean_env())
            for index, ids in pieces(self.process.stdout):
                rounds[index] += [(id, self.change) for id in ids]
            if self.process.wait() != 0:
                return

    def count(self):
        return sum(map(len, self.tokens))

    def go_on(self):
        """Until there are some more tokens of each stream."""
        before = self.count()
        while self.count() < before + 2 * self.n:
            if not self.thread.is_alive():
                sys.exit(f"the pinned streams ended before the demo did, exit code {self.process.wait()}")
            time.sleep(0.005)

    def end(self):
        self.ended = True
        self.process.terminate()
        self.thread.join()

    def compare(self):
        """For each change: how many tokens came in it, and how many of them are others than without any change."""
        wanted, counts = [[] for _ in range(self.n)], [[0, 0] for _ in range(len(CHANGES) + 1)]
        for index, ids in pieces(self.cluster.ask(*self.command(max(map(len, self.tokens)))).splitlines(keepends=True)):
            wanted[index] += ids
        for i, tokens in enumerate(self.tokens):
            for (id, change), right in zip(tokens, wanted[i % self.n]):
                counts[change][0] += 1
                counts[change][1] += id != right
        return counts


def pieces(lines):
    for line in lines:
        if line.endswith("\n"):  # the last one of a client that was ended may be cut
            chunk = json.loads(line)
            yield chunk["index"], chunk.get("token_ids", [])


def show(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print()
    for i, row in enumerate(rows):
        print(f"{i or '':>2} " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", metavar="MODEL")
    parser.add_argument("--bin", default=os.path.join(ROOT, "bin"), help="where the programs are")
    parser.add_argument("--short", action="store_true", help="a smaller model, and fewer and shorter answers: for the tests")
    args = parser.parse_args()
    if shutil.which("etcd") is None:
        print("etcd is missing: apt-get install etcd-server", file=sys.stderr)
        return 77
    with contextlib.ExitStack() as stack:
        demo = Demo(stack, stack.enter_context(tempfile.TemporaryDirectory()), args)
        rows, n, wrong = demo.play()
    show([("change", "it took", "answer of the default set", "rows of the pack", f"{demo.n_streams} streams pinned to the base"), *rows])
    print(f"\n{demo.n_streams} pinned streams ran through all of it: {n} tokens compared; " + ("; ".join(wrong) or "none of them different"))
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
