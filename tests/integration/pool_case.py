"""What the tests of pool.py share: a cluster with a real etcd, and the answers of one process."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from coordinator import Coordinator, WAIT_S, run_json
from members import Etcd, Process

if shutil.which("etcd") is None:
    print("skipped: etcd-server is not installed")
    sys.exit(77)

CONCLAVE, COORDINATOR, NODE, MAKE_CHECKPOINT, VECTORS = sys.argv[1:6]
PROMPT = ",".join(str(7 * i % 300 + 3) for i in range(40))
ASKS = [("--temperature", "0"), ("--seed", "11", "--temperature", "1.3"), ("--seed", "5", "--top-k", "40", "--n", "2")]
LONG = ("generate", "--tokens", "5,6,7", "--seed", "3", "--ignore-eos", "--max-tokens", "400")


class PoolCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.model, cls.other = cls.make("tiny"), cls.make("other", "--seed", "2")
        cls.etcd = Etcd(os.path.join(cls.folder, "etcd"))
        cls.addClassCleanup(lambda: cls.etcd.stop())
        with Coordinator(COORDINATOR, cls.model, "--threads", "1", "--cache-dir", cls.folder) as alone:
            cls.expected = cls.answers(alone)
            cls.expected_long = [id for chunk in run_json(CONCLAVE, alone, *LONG) for id in chunk.get("token_ids", [])]

    @classmethod
    def make(cls, name, *args):
        path = os.path.join(cls.folder, name)
        subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, path, "--shape", "tiny", "--dtype", "f32", "--no-tokenizer", *args],
                       check=True, capture_output=True)
        return path

    @staticmethod
    def answer(coordinator, ask, conclave=CONCLAVE):
        """Tokens and the log-probabilities of all choices, as they were printed."""
        choices = {}
        for chunk in run_json(conclave, coordinator, "generate", "--tokens", PROMPT, "--ignore-eos", "--max-tokens", "12",
                              "--logprobs", "3", *ask):
            tokens, logprobs = choices.setdefault(chunk.get("index", 0), ([], []))
            tokens += chunk.get("token_ids", [])
            logprobs += chunk.get("logprobs", [])
        return choices

    @classmethod
    def answers(cls, coordinator):
        return [cls.answer(coordinator, ask) for ask in ASKS]

    def setUp(self):
        self.cluster = self.id().rsplit(".", 1)[-1][:60]
        self.nodes = []
        self.addCleanup(lambda: [node.stop(signal.SIGKILL) for node in self.nodes if node.process.poll() is None])

    def member_args(self):
        return ("--etcd", self.etcd.url, "--cluster", self.cluster, "--cache-dir", self.folder)

    def node(self, id, *args, model=None):
        node = Process(NODE, "--model", model or self.model, *self.member_args(), "--id", id, *args)
        self.nodes.append(node)
        return node

    def start_nodes(self, n, *args):
        """All at once; in return when all are registered."""
        return [node.registered() for node in [self.node(f"node-{i}", *args) for i in range(n)]]

    def coordinator(self, *args, id="coordinator", model=None):
        return Coordinator(COORDINATOR, model or self.model, *self.member_args(), "--id", id, "--threads", "1", *args)

    def stop_nodes(self):
        for node in self.nodes:
            node.process.send_signal(signal.SIGTERM)
        for node in self.nodes:
            code, log = node.end()
            self.assertEqual(code, 0, log)
        self.nodes.clear()

    def rows(self, coordinator):
        cluster, = run_json(CONCLAVE, coordinator, "nodes")
        return {node["id"]: node.get("rows", 0) for node in cluster.get("nodes", [])}

    def assert_all_answered(self, coordinator, n):
        """The figures are as old as the last idle turn."""
        end = time.monotonic() + WAIT_S
        while True:
            rows = self.rows(coordinator)
            if len(rows) == n and all(rows.values()) or time.monotonic() > end:
                break
            time.sleep(0.02)
        self.assertEqual(len(rows), n, rows)
        self.assertTrue(all(rows.values()), rows)
        return rows

    def assert_all_answered_by(self, coordinator, n):
        """Asks until the last of n nodes has loaded what it was given and has answered."""
        end = time.monotonic() + WAIT_S
        while True:
            self.assertEqual(self.answers(coordinator), self.expected)
            rows = self.rows(coordinator)
            if len(rows) == n and all(rows.values()) or time.monotonic() > end:
                break
        self.assert_all_answered(coordinator, n)

    def check(self, n, replication):
        self.start_nodes(n)
        with self.coordinator("--min-nodes", str(n), "--replication", str(replication)) as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            rows = self.assert_all_answered(coordinator, n)
            layers = run_json(CONCLAVE, coordinator, "placement")[0]["experts"]
            owners = [len([r for r in e.get("replicas", []) if r.get("ready")]) for e in layers]
            self.assertEqual(set(owners), {min(n, replication)})
            self.assertEqual(coordinator.stop(), (0, ""))
        print(f"{n} nodes, replication {replication}: equal; rows {rows}")
        self.stop_nodes()
