#!/usr/bin/python3
"""Decode through two expert nodes against one process, on this machine: what a pool costs when its members share the cores.

Usage: bench_pool.py BIN_DIR [--layers N] [--model DIR] [--batches 1,8,32] [--replication 2,1] [--rounds N]

Makes a checkpoint of OLMoE-1B-7B's shape with N layers (8; random weights) unless one is given, then measures tokens per second: one
process with 2 threads against etcd, a coordinator with 2 threads and two nodes with 1 thread each. The rate of a virtual machine changes
within seconds, so the two decode by turns, --rounds times, and medians are compared; where memory does not hold both, the pool comes
between two measurements of the one process. Every stream has random tokens of its own; rates are those of the time in which all streams
decode. The bandwidth that bench_kernels measures stands beside each measurement.

With replication 1 a layer waits for the node that has more of the step's experts, and nothing can even that out. How much more is
measured: the tokens that were generated are scored again with their experts, and per step and layer the distinct experts of the busiest
node (the bytes it reads) are divided by the mean of the nodes.
"""
import argparse
import collections
import contextlib
import glob
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from coordinator import Coordinator, run_json  # noqa: E402
from processes import etcd, running, start  # noqa: E402

N_NODES = 2
N_PROMPT = 16


class Bench:
    def __init__(self, a, folder):
        self.a, self.folder = a, folder
        self.model = a.model or os.path.join(folder, "model")
        if not a.model:
            subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tools", "make_checkpoint.py"), self.model, "--shape", "olmoe-1b-7b",
                            "--layers", str(a.layers), "--no-tokenizer"], check=True, stderr=subprocess.DEVNULL)

    def program(self, name):
        return os.path.join(self.a.bin, name)

    def prompt(self, batch, stream):
        return random.Random(1000 * batch + stream).sample(range(50000), N_PROMPT)

    def decode(self, coordinator, batch, n_tokens, texts=None):
        """Tokens per second of all streams together, by the server's own clock of each stream's decode."""
        rates = [0.0] * batch

        def run(i):
            chunks = run_json(self.program("conclave"), coordinator, "generate", "--tokens", ",".join(map(str, self.prompt(batch, i))),
                              "--ignore-eos", "--max-tokens", str(n_tokens), "--seed", str(i), "--top-k", "1")
            rates[i] = (n_tokens - 1) / chunks[-1]["timings"]["decode_seconds"]
            if texts is not None:
                texts[i] = self.prompt(batch, i) + [id for chunk in chunks for id in chunk.get("token_ids", [])]

        threads = [threading.Thread(target=run, args=(i,)) for i in range(batch)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(rates)

    def bandwidth(self):
        out = subprocess.run([self.program("bench_kernels"), "--only", "head", "--seconds", "0.05", "2"], capture_output=True,
                             encoding="utf-8").stdout
        found = re.search(r"bandwidth ([\d.]+) GB/s", out)
        return float(found.group(1)) if found else float("nan")

    def imbalance(self, coordinator, texts):
        """Mean over steps and layers: distinct experts of the busiest node by the mean of all nodes."""
        owner = {(e.get("layer", 0), e.get("expert_id", 0)): e["replicas"][0]["node_id"]
                 for e in run_json(self.program("conclave"), coordinator, "placement")[0]["experts"]}
        picked = {}
        for text in texts.values():
            scored, = run_json(self.program("conclave"), coordinator, "score", "--experts", "--tokens", ",".join(map(str, text)))
            for step, token in enumerate(scored["tokens"][N_PROMPT:]):
                for entry in token["experts"]:
                    layer = entry.get("layer", 0)
                    picked.setdefault((step, layer), set()).update((layer, id) for id in entry["ids"])
        counts = [collections.Counter(owner[expert] for expert in experts) for experts in picked.values()]
        return statistics.mean(max(c.values()) * N_NODES / c.total() for c in counts)

    def measure(self, members, replication=None):
        """Members decode by turns; the rates of each, per batch."""
        rates = {name: {} for name in members}
        for batch in self.a.batches:
            n_tokens, texts = 40 if batch == 1 else 24, {}
            for coordinator in members.values():
                self.decode(coordinator, batch, 6)
            before = self.bandwidth()
            all_rates = {name: [] for name in members}
            for _ in range(self.a.rounds):
                for name, coordinator in members.items():
                    all_rates[name].append(self.decode(coordinator, batch, n_tokens, texts if name == "pool" else None))
            after = self.bandwidth()
            for name, these in all_rates.items():
                rates[name][batch] = these
                what = "one process" if name == "one" else f"two nodes, replication {replication}"
                print(f"{what:26s} batch {batch:2d} {statistics.median(these):7.1f} tokens/s ({min(these):.1f} to {max(these):.1f}), bandwidth"
                      f" {before:.1f} and {after:.1f} GB/s", flush=True)
            if replication == 1:
                print(f"{'':26s} batch {batch:2d}: the busier node has {self.imbalance(members['pool'], texts):.2f} of the mean in experts",
                      flush=True)
        return rates

    def one(self):
        return Coordinator(self.program("conclave-coordinator"), self.model, "--threads", "2", "--cache-dir", self.folder)

    @contextlib.contextmanager
    def pool(self, url, replication):
        member = ["--transport", self.a.transport, "--etcd", url, "--cluster", f"bench-{replication}", "--cache-dir", self.folder]
        nodes = [start(self.program("conclave-node"), "--model", self.model, *member, "--id", f"node-{i}", "--listen", "127.0.0.1:0",
                       "--threads", "1") for i in range(N_NODES)]
        with running(nodes), Coordinator(self.program("conclave-coordinator"), self.model, *member, "--threads", "2", "--min-nodes",
                                         str(N_NODES), "--replication", str(replication)) as coordinator:
            yield coordinator

    def fits(self, replication):
        """Whether one process and the pool have memory at once."""
        model = sum(os.path.getsize(f) for f in glob.glob(os.path.join(self.model, "*.safetensors")))
        with open("/proc/meminfo", encoding="ascii") as f:
            free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", f.read()).group(1))
        return (1.4 + replication) * model + 1.5e9 < free

    def compare(self, url, replication):
        if self.fits(replication):
            with self.one() as one, self.pool(url, replication) as pool:
                rates = self.measure({"one": one, "pool": pool}, replication)
            alone = rates["one"]
        else:
            alone = {batch: [] for batch in self.a.batches}
            for turn in range(3):
                with self.pool(url, replication) if turn == 1 else self.one() as member:
                    these = self.measure({"pool" if turn == 1 else "one": member}, replication)
                if turn == 1:
                    rates = these
                else:
                    alone = {batch: alone[batch] + these["one"][batch] for batch in self.a.batches}
        for batch in self.a.batches:
            share = statistics.median(rates["pool"][batch]) / statistics.median(alone[batch])
            print(f"two nodes, replication {replication}: batch {batch:2d} at {share:.3f} of one process", flush=True)

    def run(self):
        with etcd(self.folder) as url:
            for replication in self.a.replication:
                self.compare(url, replication)


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--model")
    parser.add_argument("--batches", type=numbers, default=[1, 8, 32])
    parser.add_argument("--replication", type=numbers, default=[2, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transport", default="auto", help="how frames travel: auto (shared memory here), tls")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Bench(a, folder).run()


main()
