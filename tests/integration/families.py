"""Placement changes no answer, in any family: tokens and log-probabilities from one process and through 1, 2 and 5 nodes, bit for bit.

Usage: families.py CONCLAVE COORDINATOR NODE MAKE_CHECKPOINT VECTORS [unittest arguments]
"""
import concurrent.futures
import os
import signal
import subprocess
import sys
import tempfile
import unittest

from coordinator import Coordinator, run_json
from members import Etcd, Process
from pool_case import CONCLAVE, COORDINATOR, MAKE_CHECKPOINT, NODE


def settings(family, **more):
    return ["--family", family, *(item for key, value in more.items() for item in ("--set", f"{key}={value}"))]


MODELS = {
    "olmoe": settings("olmoe"),
    "mixtral": settings("mixtral"),
    "qwen3-moe": settings("qwen3-moe"),
    "molm": settings("molm"),
    "molm-linear-kv": settings("molm", gate_type="linear", n_head=2, att_hidden=48, k_att=4, k_mlp=4),
    "molm-gmm": settings("molm", gate_type="gmm", k_mlp=4),
    "moepp": settings("moe++"),
    "moepp-mixtral": settings("moe++", moe_use_mixtral_gating="true", moe_2layer_gate="true", num_key_value_heads=2),
    "moepp-double": settings("moe++", moe_feature_no_mul_topk="false", moe_gate_norm_std=0.5, num_experts="[20]"),
}
SHORT = [7 * i % 300 + 3 for i in range(20)]
LONG = [(11 * i * i + 5 * i) % 300 + 3 for i in range(150)]
ASKS = [(SHORT, "--temperature", "0"), (LONG, "--seed", "11", "--temperature", "1.2", "--n", "2")]


class Families(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.etcd = Etcd(os.path.join(cls.folder, "etcd"))
        cls.addClassCleanup(lambda: cls.etcd.stop())

    @staticmethod
    def text(ids):
        return ",".join(map(str, ids))

    def answers(self, coordinator):
        """Tokens and log-probabilities of all choices, as they were printed."""
        found = []
        for prompt, *ask in ASKS:
            choices = {}
            for chunk in run_json(CONCLAVE, coordinator, "generate", "--tokens", self.text(prompt), "--ignore-eos", "--max-tokens", "12",
                                  "--logprobs", "3", *ask):
                tokens, logprobs = choices.setdefault(chunk.get("index", 0), ([], []))
                tokens += chunk.get("token_ids", [])
                logprobs += chunk.get("logprobs", [])
            found.append(choices)
        return found

    def check_score(self, coordinator, answers):
        """Score(prompt + answer) says of the answer what Generate said."""
        for (prompt, *_), choices in zip(ASKS, answers):
            for tokens, logprobs in choices.values():
                scored = run_json(CONCLAVE, coordinator, "score", "--tokens", self.text(prompt + tokens), "--top", "3")[0]["tokens"]
                self.assertEqual([(s["id"], s["logprob"], s["top"]) for s in scored[len(prompt):]],
                                 [(token, l["logprob"], l["top"]) for token, l in zip(tokens, logprobs)])

    def alone(self, *args):
        return Coordinator(COORDINATOR, self.model, "--threads", "1", "--cache-dir", self.folder, *args)

    def through_nodes(self, n, replication, *args):
        member = ("--etcd", self.etcd.url, "--cluster", f"{self.name}-{n}-{replication}", "--cache-dir", self.folder)
        nodes = [Process(NODE, "--model", self.model, *member, "--id", f"node-{i}") for i in range(n)]
        self.addCleanup(lambda: [node.stop(signal.SIGKILL) for node in nodes if node.process.poll() is None])
        for node in nodes:
            node.registered()
        with self.alone(*member, "--id", "coordinator", "--min-nodes", str(n), "--replication", str(replication), *args) as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
        for node in nodes:
            node.process.send_signal(signal.SIGTERM)
        for node in nodes:
            code, log = node.end()
            self.assertEqual(code, 0, log)

    def check(self, name, dtype, clusters):
        self.name, self.model = f"{name}-{dtype}", os.path.join(self.folder, f"{name}-{dtype}")
        subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, self.model, "--shape", "tiny", "--dtype", dtype, "--no-tokenizer", *MODELS[name]],
                       check=True, capture_output=True)
        with self.alone() as coordinator:
            self.expected = self.answers(coordinator)
            self.check_score(coordinator, self.expected)
        with self.alone("--prefill-chunk", "7", "--threads", "3", "--no-prefix-cache") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
        with concurrent.futures.ThreadPoolExecutor() as threads:  # most of it is waiting until the members have met
            for done in [threads.submit(self.through_nodes, *cluster) for cluster in clusters]:
                done.result()


def add_tests():
    for name in MODELS:
        for dtype, clusters in (("f32", ((1, 1), (2, 1, "--prefill-chunk", "7"), (5, 2))), ("bf16", ((2, 2), (5, 1, "--micro-batches", "2")))):
            def test(self, name=name, dtype=dtype, clusters=clusters):
                self.check(name, dtype, clusters)
            setattr(Families, f"test_{name.replace('-', '_')}_{dtype}", test)


add_tests()

if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[6:])
