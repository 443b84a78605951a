"""Packs against the oracle's answers through 1, 2 and 5 nodes: a cluster for each model, which grows while packs come and go. At each size the answers
with the pack are what the oracle says of the checkpoint that numpy put together (f32: log-probabilities within 1e-4, experts and greedy tokens equal),
and without it they are, to the bit, what they were before; pruned they are the oracle's --absent. Mixtral and Qwen3-MoE, which the oracle does not know,
are compared with one process that serves the checkpoint put together.

Usage: packs_nodes.py CONCLAVE COORDINATOR NODE [PACK...]     (of packs_oracle.PACKS, and mixtral, qwen3-moe; default: all)"""
import concurrent.futures
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time

import concatenated
import oracle
from coordinator import WAIT_S, Coordinator, run_json
from members import Etcd, Process
from packs_oracle import PACKS, VECTORS, as_served, ask, compare

if shutil.which("etcd") is None:
    print("skipped: etcd-server is not installed")
    sys.exit(77)

CONCLAVE, COORDINATOR, NODE = sys.argv[1:4]
OTHERS = ("mixtral", "qwen3-moe")
SIZES = (1, 2, 5)


def load(*names):
    return oracle.load(os.path.join(VECTORS, *names))


def scores(server, tokens, *args):
    """All but the id of the set."""
    return run_json(CONCLAVE, server, "score", "--tokens", ",".join(map(str, tokens)), "--top", "9", "--experts", *args)[0]["tokens"]


class Cluster:
    def __init__(self, stack, folder, etcd, name, pack):
        self.stack, self.folder, self.name, self.n = stack, os.path.join(folder, name), name, 0
        self.model, self.pack_name = os.path.join(VECTORS, PACKS.get(name, name)), concatenated.load_json(os.path.join(pack, "pack.json"))["name"]
        self.member = ("--etcd", etcd.url, "--cluster", name.replace("+", "p"))
        self.join("--pack", pack)
        self.server = stack.enter_context(Coordinator(COORDINATOR, self.model, *self.member, "--threads", "1", "--id", "coordinator", "--min-nodes", "1",
                                                      "--cache-dir", os.path.join(self.folder, "coordinator")))

    def join(self, *args):
        node = Process(NODE, "--model", self.model, *self.member, "--id", f"node-{self.n}", "--cache-dir", os.path.join(self.folder, str(self.n)), *args)
        self.stack.callback(node.stop, signal.SIGKILL)  # nobody waits for a drain
        self.n += 1
        return node.registered()

    def grow(self, n):
        """Returns when each node has a share of the experts, those of the pack included, which stay loaded for a while when it is removed."""
        while self.n < n:
            self.join()
        end = time.monotonic() + WAIT_S
        while len(shares := [node for node in run_json(CONCLAVE, self.server, "nodes")[0]["nodes"] if node.get("n_experts")]) < n:
            assert time.monotonic() < end, shares
            time.sleep(0.05)

    def change(self, *args):
        run_json(CONCLAVE, self.server, *args)

    def check(self, what, tokens, check_added):
        """At each size: the pack is added and removed again."""
        before = scores(self.server, tokens)
        for n in SIZES:
            self.grow(n)
            assert scores(self.server, tokens) == before
            self.change("packs", "add", self.pack_name)
            check_added(f"{what}, {n} nodes, with the pack", self.server)
            assert scores(self.server, tokens, "--set", "base") == before
            self.change("packs", "remove", self.pack_name)
            assert scores(self.server, tokens) == before
        return before

    def check_pruned(self, config, before):
        """Experts 1 and 5 of layer 0 and 0 of layer 1: tests/vectors/README.md."""
        absent = load("olmoe-gqa", "expected_absent.safetensors")
        self.change("experts", "prune", "0:1,0:5,1:0")
        compare(f"{self.name}, {self.n} nodes, pruned", ask(CONCLAVE, self.server, config, absent))
        self.change("experts", "restore", "--all")
        assert scores(self.server, absent["token_ids"]) == before


def check_oracle(folder, etcd, name):
    config, expected = concatenated.load_json(os.path.join(VECTORS, PACKS[name], "config.json")), load("packs", name, "expected.safetensors")
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, folder, etcd, name, os.path.join(VECTORS, "packs", name))
        before = cluster.check(name, expected["token_ids"],
                               lambda what, server: compare(what, ask(CONCLAVE, server, config, as_served(config, expected))))
        if name == "olmoe-gqa":
            cluster.check_pruned(config, before)


def check_concatenated(folder, etcd, name, pack):
    model, tokens = os.path.join(folder, name + "-whole"), range(3, 40)
    concatenated.write(model, *concatenated.concatenate(os.path.join(VECTORS, name), pack))
    with Coordinator(COORDINATOR, model, "--threads", "1", "--cache-dir", "") as server:
        expected = scores(server, tokens)

    def check_added(what, server):
        assert scores(server, tokens) == expected, what
        print(f"{what}: to the bit", flush=True)

    with contextlib.ExitStack() as stack:
        Cluster(stack, folder, etcd, name, pack).check(name, tokens, check_added)


def main():
    names = sys.argv[4:] or [*PACKS, *OTHERS]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        etcd = Etcd(os.path.join(folder, "etcd"))
        stack.callback(etcd.stop)
        packs = {name: os.path.join(folder, name + "-pack") for name in names if name in OTHERS}
        for name, pack in packs.items():
            said = concatenated.make_pack("random", pack, "--model", os.path.join(VECTORS, name), "--conclave", CONCLAVE, "--experts", "2")
            assert said is None, said
        with concurrent.futures.ThreadPoolExecutor(4) as threads:  # most of it is waiting until the members have met
            for done in [threads.submit(check_concatenated, folder, etcd, name, packs[name]) if name in packs
                         else threads.submit(check_oracle, folder, etcd, name) for name in names]:
                done.result()
    print(f"{len(names)} clusters of {', '.join(map(str, SIZES))} nodes agree")


if __name__ == "__main__":
    main()
