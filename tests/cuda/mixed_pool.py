"""A GPU is only faster: members of one cluster on a CPU and on a (fake) GPU give the tokens and log-probabilities of one process on a CPU, bit for bit.

Usage: mixed_pool.py CONCLAVE COORDINATOR NODE MAKE_CHECKPOINT INTEGRATION MODULE [unittest arguments]
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request

CONCLAVE, COORDINATOR, NODE, MAKE_CHECKPOINT, INTEGRATION, MODULE = sys.argv[1:7]
sys.path.insert(0, INTEGRATION)

from coordinator import Coordinator, free_ports, run_json  # noqa: E402
from members import Etcd, Process  # noqa: E402

GPU = ("--device", "cuda", "--device-module", MODULE)
CPU = ("--device", "cpu")
ASKS = [("5,3,77,140,20", "--temperature", "0"), (",".join(str(11 * i * i % 300 + 3) for i in range(40)), "--seed", "11", "--temperature", "1.2")]


class MixedPool(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        cls.etcd = Etcd(os.path.join(cls.folder, "etcd"))
        cls.addClassCleanup(lambda: cls.etcd.stop())
        cls.model = os.path.join(cls.folder, "model")
        subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, cls.model, "--shape", "tiny", "--dtype", "bf16", "--no-tokenizer", "--family", "olmoe"],
                       check=True, capture_output=True)
        with Coordinator(COORDINATOR, cls.model, "--threads", "1", "--cache-dir", cls.folder, *CPU) as coordinator:
            cls.expected = cls.answers(coordinator)

    @staticmethod
    def answers(coordinator):
        return [[(chunk.get("token_ids", []), chunk.get("logprobs", []))
                 for chunk in run_json(CONCLAVE, coordinator, "generate", "--tokens", prompt, "--ignore-eos", "--max-tokens", "8", "--logprobs", "2", *ask)]
                for prompt, *ask in ASKS]

    @staticmethod
    def joined(answers):
        """Tokens and log-probabilities of each answer, however they were cut into chunks."""
        return [([t for tokens, _ in chunks for t in tokens], [p for _, logprobs in chunks for p in logprobs]) for chunks in answers]

    def member(self, cluster):
        return ("--etcd", self.etcd.url, "--cluster", cluster, "--cache-dir", self.folder)

    def through(self, name, devices, coordinator_device, look=lambda coordinator: None):
        member = self.member(name)
        nodes = [Process(NODE, "--model", self.model, *member, "--id", f"node-{i}", *device) for i, device in enumerate(devices)]
        self.addCleanup(lambda: [node.stop(signal.SIGKILL) for node in nodes if node.process.poll() is None])
        for node in nodes:
            node.registered()
        with Coordinator(COORDINATOR, self.model, "--threads", "1", *member, "--id", "coordinator", "--min-nodes", str(len(nodes)),
                         *coordinator_device) as coordinator:
            found = self.answers(coordinator)
            look(coordinator)
        self.assertEqual(self.joined(found), self.joined(self.expected))

    def test_a_cpu_node_and_a_gpu_node_answer_as_one_process(self):
        self.through("mixed", (CPU, GPU), CPU)

    def test_a_coordinator_on_a_gpu_answers_as_one_on_a_cpu(self):
        self.through("gpu-coordinator", (CPU,), GPU)

    def test_what_a_gpu_node_tells_of_itself(self):
        """Its memory is the GPU's, and so is what experts may take by default; and by UCX, which knows no GPU here, frames are staged."""
        port, = free_ports(1)
        gpu, by_ucx = (*GPU, "--http", f"127.0.0.1:{port}"), ("--transport", "ucx-tcp", "--insecure")

        def look(coordinator):
            node, = run_json(CONCLAVE, coordinator, "nodes")[0]["nodes"]
            self.assertEqual((node["device"], node["transport"]), ("cuda:0 fake GPU 0", "tcp"))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
                page = reply.read().decode()
            self.assertIn('conclave_device_info{device="cuda:0 fake GPU 0"} 1', page)
            self.assertIn('transport="tcp+staged"', page)
            value = {name: float(number) for name, number in re.findall(r"^(conclave_[a-z_]+) ([0-9.e+]+)$", page, re.M)}
            self.assertEqual(value["conclave_device_memory_bytes"], 1 << 30)
            self.assertEqual(value["conclave_node_memory_bytes"], 3 << 28)
            self.assertEqual(value["conclave_device_memory_free_bytes"] + value["conclave_device_memory_used_bytes"], 1 << 30)
            for name in ("memory_used_bytes", "kernel_seconds_total", "copy_seconds_total", "copied_bytes_total"):
                self.assertGreater(value[f"conclave_device_{name}"], 0, name)

        self.through("told", ((*gpu, *by_ucx),), (*CPU, *by_ucx), look)

    def test_frames_on_a_gpu_are_refused_where_they_cannot_be(self):
        by_ucx = ("--transport", "ucx-tcp", "--insecure")
        for args, words in (((*CPU, *by_ucx), "has no memory that a network reads"), (GPU, "--transport auto does not use UCX"),
                            ((*GPU, *by_ucx), "it knows: host")):
            args = ("--gpu-frames", "on", *self.member("refused"), "--id", "refused", *args)
            code, log = Process(NODE, "--model", self.model, *args).end()
            self.assertEqual(code, 2, log)
            self.assertRegex(log, f"--gpu-frames on: .*{words}")
            with self.assertRaisesRegex(RuntimeError, words):
                Coordinator(COORDINATOR, self.model, "--threads", "1", *args)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[7:])
