#!/usr/bin/python3
"""make knowledge-demo: a cluster on this machine learns a second language while it serves. etcd, two nodes and a coordinator serve a small model that was
trained on English (models/english); streams run, some of them pinned to the model's own experts; a third node joins with a pack of German experts
(models/german), which is switched on, thinned, restored and removed. After each change held-out text of both languages goes through the cluster. A table
and a plot (knowledge.svg) say what that did to the bits per byte of both, by default and pinned to the base; how long it took until a pack's expert
computed the first row; the longest pause of a running stream; how many requests were lost and how many pinned streams are others than without changes:
none and none.

--random takes a small model and a pack with random weights instead, for the tests: then nobody asks whether the pack is of use.

    knowledge_demo.py [--random] [--model DIR] [--pack DIR] [--old FILE] [--new FILE] [--bytes N] [--tokens N] [--out FILE] [--json]
                      [--bin DIR]"""
import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from demo_cluster import ROOT, Cluster, make_model, make_pack, wait_for  # noqa: E402
import python_client  # noqa: E402

MODELS = os.path.join(ROOT, "models")
OLD, NEW = "English", "German"
WAIT_S = 120  # for a reply
PROMPTS = {OLD: "It was a fine morning, and", NEW: "Wenn Sie das Programm starten,"}


class Stream:
    """One answer after another, on a thread; what came of each request, and when."""

    def __init__(self, client, prompt, expert_set, seed, tokens):
        self.client, self.prompt, self.set, self.seed, self.n_tokens = client, prompt, expert_set, seed, tokens
        self.answers, self.lost, self.pause, self.came, self.ended = [], [], 0.0, 0, False
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def ask(self, seed, n_tokens):
        return self.client.generate(self.prompt, expert_set=self.set, seed=seed, max_tokens=n_tokens, ignore_eos=True)

    def read(self):
        while not self.ended:
            seed, tokens = self.seed + len(self.answers), []
            last = time.monotonic()
            try:
                for chunk in self.ask(seed, self.n_tokens):
                    now = time.monotonic()
                    self.pause, last = max(self.pause, now - last), now
                    tokens += chunk.token_ids
                    self.came += len(chunk.token_ids)
                    if self.ended:
                        break
            except Exception as error:  # whatever it is: the request is lost
                self.lost.append(f"{type(error).__name__}: {error}")
                time.sleep(0.1)
            self.answers.append((seed, tokens))

    def end(self):
        self.ended = True
        self.thread.join()

    def different(self):
        """How many answers are not what they are without any change: asked again, now that all is as at first."""
        return sum([t for chunk in self.ask(seed, len(tokens)) for t in chunk.token_ids] != tokens for seed, tokens in self.answers if tokens)


class Demo:
    def __init__(self, stack, folder, args):
        self.args = args
        python_client.lay_out(os.path.join(folder, "python"))
        sys.path.insert(0, os.path.join(folder, "python"))
        from conclave import Client
        import scoring
        self.scoring = scoring
        self.texts = {language: cut(scoring.documents(path), args.bytes) for language, path in ((OLD, args.old), (NEW, args.new))}
        say("etcd, two nodes and a coordinator")
        self.cluster = Cluster(stack, folder, args.bin, args.model)
        self.client = stack.enter_context(Client(self.cluster.address, timeout=WAIT_S, retries=0))

    def join(self):
        """Seconds from starting the node to the change of the default set, and to the first row that an expert of the pack computes."""
        began = time.monotonic()
        self.cluster.join("c", self.args.pack)
        self.cluster.ask("packs", "add", self.name)
        added = time.monotonic() - began
        wait_for(lambda: self.cluster.rows("pack").get(self.name, 0) > 0)
        return added, time.monotonic() - began

    def bits(self, language, expert_set):
        scorer = self.scoring.Scorer(self.client, expert_set)
        return scorer.bits(self.texts[language])[0] / sum(len(t.encode()) for t in self.texts[language])

    def measure(self, what):
        row = {"after": what, **{f"{language}, {name}": self.bits(language, expert_set)
                                 for language in (OLD, NEW) for name, expert_set in (("default", None), ("base", "base"))}}
        say("; ".join(f"{k} {v:.4f}" for k, v in row.items() if k != "after"))
        return row

    def half(self):
        """The second half of the pack's experts of each layer, as a list for `experts prune`."""
        with open(os.path.join(self.args.pack, "pack.json"), encoding="utf-8") as f:
            layers = json.load(f)["layers"]
        own = self.client.model().n_experts  # of the default set, which has the pack's already
        return ",".join(f"{l['layer']}:{own[l['layer']] - n // 2}-{own[l['layer']] - 1}" for l in layers if (n := len(l["experts"])) > 1)

    def play(self):
        with open(os.path.join(self.args.pack, "pack.json"), encoding="utf-8") as f:
            self.name = json.load(f)["name"]
        rows = [self.measure("the start")]
        streams = [Stream(self.client, PROMPTS[language], expert_set, seed, self.args.tokens)
                   for seed, (language, expert_set) in enumerate([(OLD, "base"), (NEW, "base"), (OLD, None), (NEW, None)], 1)]
        try:
            wait_for(lambda: all(s.came or s.lost for s in streams))
            say(f"conclave-node --id c --pack {os.path.relpath(self.args.pack)}; conclave packs add {self.name}")
            added, routed = self.join()
            rows.append(self.measure("a node joins, its pack is added"))
            for what, command in (("half of the pack is pruned", f"experts prune {self.half()}"), ("it is restored", "experts restore --all"),
                                  ("the pack is removed", f"packs remove {self.name}")):
                say(f"conclave {command}")
                self.cluster.ask(*command.split())
                rows.append(self.measure(what))
        finally:
            for s in streams:
                s.end()
        say("the pinned streams once more, to compare")
        return {"rows": rows, "dense": dense_beside(self.args.pack), "seconds_to_the_default_set": added, "seconds_to_the_first_routed_token": routed,
                "longest_pause_of_a_stream_s": max(s.pause for s in streams), "requests": sum(len(s.answers) for s in streams),
                "tokens": sum(s.came for s in streams), "lost": [e for s in streams for e in s.lost],
                "pinned_answers": sum(len(s.answers) for s in streams[:2]), "pinned_answers_changed": sum(s.different() for s in streams[:2])}


def dense_beside(pack):
    """What a dense model of equal active size forgot of the old text by learning the new: training.json beside a pack has it. None: not recorded."""
    path = os.path.join(pack, "training.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return json.load(f)["dense"]


def make_random(folder, args):
    args.model = make_model(folder)
    args.pack = make_pack(folder, "pack", args.model, args.bin)
    args.old, args.new = os.path.join(ROOT, "README.md"), os.path.join(ROOT, "CONTRIBUTING.md")


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def cut(texts, n_bytes):
    """The texts up to about so many bytes."""
    kept = []
    for text in texts:
        if n_bytes <= 0:
            break
        kept.append(text[:n_bytes])
        n_bytes -= len(kept[-1].encode())
    return kept


COLUMNS = [f"{language}, {name}" for language in (OLD, NEW) for name in ("default", "base")]


def wrong(result, is_random):
    """What is not as it must be."""
    rows, found = result["rows"], []
    if result["lost"]:
        found.append(f"{len(result['lost'])} requests were lost: {result['lost'][0]}")
    if result["pinned_answers_changed"]:
        found.append(f"{result['pinned_answers_changed']} pinned answers are others")
    for column in COLUMNS:
        if column.endswith("base") and any(row[column] != rows[0][column] for row in rows):
            found.append(f"{column}: changed")
    if any(rows[-1][c] != rows[0][c] for c in COLUMNS):
        found.append("without the pack it is not as it was at first")
    if any(rows[3][c] != rows[1][c] for c in COLUMNS):
        found.append("restored is not as it was before pruning")
    if not is_random and rows[1][COLUMNS[2]] >= rows[0][COLUMNS[2]]:
        found.append(f"the pack does not lower the bits per byte of {NEW}")
    return found


def show(result):
    rows = result["rows"]
    print(f"\n{'bits per byte of held-out text after':36}" + "".join(f"{c:>22}" for c in COLUMNS))
    for row in rows:
        cells = (f"{row[c]:.4f} ({row[c] / rows[0][c] - 1:+7.2%})" for c in COLUMNS)
        print(f"{row['after']:36}" + "".join(f"{cell:>22}" for cell in cells))
    if dense := result["dense"]:
        figures = (f"{language} {d['before']:.4f} -> {d['after']:.4f} ({d['after'] / d['before'] - 1:+.2%})"
                   for language, d in ((OLD, dense["old"]), (NEW, dense["new"])))
        print(f"\n{dense['model']}, fine-tuned on the same {NEW} text, for comparison (recorded when it was trained):\n{', '.join(figures)}")
    print(f"\n{result['seconds_to_the_default_set']:.2f} s from starting the node to the new default set, "
          f"{result['seconds_to_the_first_routed_token']:.2f} s to the first token that was routed to the pack\n"
          f"{result['longest_pause_of_a_stream_s']:.2f} s: the longest pause of a stream; {result['requests']} requests with {result['tokens']} tokens "
          f"ran meanwhile, {len(result['lost'])} lost\n{result['pinned_answers']} answers were pinned to the base, {result['pinned_answers_changed']} of them "
          "changed")


def plot(result, path):
    """The table's columns as lines."""
    width, height, left, top, bottom = 900, 420, 60, 40, 60
    rows = result["rows"]
    high = max(max(row[c] for c in COLUMNS) for row in rows) * 1.05
    x = lambda i: left + (width - 2 * left - 100) * i / (len(rows) - 1)
    y = lambda v: top + (height - top - bottom) * (1 - v / high)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>', f'<text x="{left}" y="20" font-size="14">Held-out text, bits per byte</text>']
    for i in range(int(high * 2) + 1):
        parts.append(f'<line x1="{left}" x2="{x(len(rows) - 1)}" y1="{y(i / 2)}" y2="{y(i / 2)}" stroke="#ddd"/>'
                     f'<text x="{left - 8}" y="{y(i / 2) + 4}" text-anchor="end">{i / 2:g}</text>')
    for i, row in enumerate(rows):
        parts.append(f'<text x="{x(i)}" y="{height - bottom + 20 + 16 * (i % 2)}" text-anchor="middle">{row["after"]}</text>')
    for column, colour, dash in zip(COLUMNS, ("#1f77b4", "#1f77b4", "#d62728", "#d62728"), ("", "5 4", "", "5 4")):
        points = " ".join(f"{x(i):.1f},{y(row[column]):.1f}" for i, row in enumerate(rows))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
    for language, colour in ((OLD, "#1f77b4"), (NEW, "#d62728")):
        parts.append(f'<text x="{x(len(rows) - 1) + 10}" y="{y(rows[-1][language + ", default"]) + 4}" fill="{colour}">{language}</text>')
    parts.append(f'<text x="{x(len(rows) - 1) + 10}" y="{height - bottom}">dashed: pinned</text></svg>\n')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--model", default=os.path.join(MODELS, "english"), metavar="DIR")
    parser.add_argument("--pack", default=os.path.join(MODELS, "german"), metavar="DIR")
    parser.add_argument("--old", default=os.path.join(MODELS, "english", "heldout.txt"), metavar="FILE", help=f"held-out text, {OLD}")
    parser.add_argument("--new", default=os.path.join(MODELS, "german", "heldout.txt"), metavar="FILE", help=f"held-out text, {NEW}")
    parser.add_argument("--bytes", type=int, default=20000, help="read of each (20000)")
    parser.add_argument("--tokens", type=int, default=48, help="of each answer of the streams (48)")
    parser.add_argument("--out", default="knowledge.svg", metavar="FILE", help="the plot")
    parser.add_argument("--json", action="store_true", help="the figures as JSON instead of the table")
    parser.add_argument("--bin", default=os.path.join(ROOT, "bin"), help="where the programs are")
    args = parser.parse_args()
    if shutil.which("etcd") is None:
        print("etcd is missing: apt-get install etcd-server", file=sys.stderr)
        return 77
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if args.random:
            make_random(folder, args)
        missing = [path for path in (args.model, args.pack, args.old, args.new) if not os.path.exists(path)]
        if missing:
            sys.exit(f"{missing[0]} is missing: docs/training.md says how models and packs are trained; --random does without")
        result = Demo(stack, folder, args).play()
    plot(result, args.out)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
        print(f"plot: {args.out}")
    found = wrong(result, args.random)
    print(*(f"WRONG: {line}" for line in found), sep="\n", end="\n" if found else "")
    return len(found) > 0


if __name__ == "__main__":
    sys.exit(main())
