"""Coordinators and expert nodes over UCX, with a real etcd: the same answers as from one process, bit for bit.

Usage: pool.py CONCLAVE COORDINATOR NODE MAKE_CHECKPOINT VECTORS [--share I/N | unittest arguments]
With --share, every Nth test, from the Ith: the N shares are all of them.
"""
import base64
import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

from coordinator import WAIT_S, Coordinator, clean_env, free_ports, resident_of_file_kib, run_json
from members import Etcd, Forwarder, Hosts, Process

if shutil.which("etcd") is None:
    print("skipped: etcd-server is not installed")
    sys.exit(77)

CONCLAVE, COORDINATOR, NODE, MAKE_CHECKPOINT, VECTORS = sys.argv[1:6]
PROMPT = ",".join(str(7 * i % 300 + 3) for i in range(40))
ASKS = [("--temperature", "0"), ("--seed", "11", "--temperature", "1.3"), ("--seed", "5", "--top-k", "40", "--n", "2")]

LONG = ("generate", "--tokens", "5,6,7", "--seed", "3", "--ignore-eos", "--max-tokens", "400")


class Asker:
    """Asks a coordinator for the same long answer again and again, and keeps what came instead of it."""

    def __init__(self, coordinator, expected):
        self.coordinator, self.expected, self.n, self.wrong, self.stopped = coordinator, expected, 0, None, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopped and self.wrong is None:
            try:
                got = [id for chunk in run_json(CONCLAVE, self.coordinator, *LONG) for id in chunk.get("token_ids", [])]
                self.wrong = None if got == self.expected else f"{len(got)} tokens, or other ones"
            except RuntimeError as error:
                self.wrong = str(error)
            self.n += 1

    def goes_on(self):
        """One whole answer from now on, and never another one."""
        n, end = self.n, time.monotonic() + WAIT_S
        while self.n < n + 2 and self.wrong is None and time.monotonic() < end:
            time.sleep(0.02)
        if self.wrong is not None or self.n < n + 2:
            raise AssertionError(f"after {n} good answers: {self.wrong or 'none came'}")

    def stop(self):
        self.stopped = True
        self.thread.join()


def open_ports(pid):
    """Of TCP, on which the process listens, and of UDP: from the kernel's tables."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    ports = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/net/{table}", encoding="ascii") as lines:
            for fields in map(str.split, list(lines)[1:]):
                if f"socket:[{fields[9]}]" in inodes and (table.startswith("udp") or fields[3] == "0A"):
                    ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def call_a_stranger_makes(port, data):
    """What is said in answer until the connection is closed."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as s:
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            s.sendall(data)
            while piece := s.recv(1 << 16):
                said += piece
    return said


class Pool(unittest.TestCase):
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

    # ------------------------------------------------------------------------------------------ equal answers
    def test_one_node_answers_as_one_process(self):
        self.check(1, 1)

    def test_two_nodes_answer_as_one_process(self):
        self.check(2, 1)

    def test_two_nodes_with_replicas_answer_as_one_process(self):
        self.check(2, 2)

    def test_five_nodes_answer_as_one_process(self):
        self.check(5, 1)

    def test_five_nodes_with_replicas_answer_as_one_process(self):
        self.check(5, 2)

    def test_two_coordinators_share_the_nodes(self):
        self.start_nodes(2)
        with self.coordinator("--min-nodes", "2", id="a") as a, self.coordinator("--min-nodes", "2", id="b") as b:
            with concurrent.futures.ThreadPoolExecutor() as threads:
                both = [threads.submit(self.answers, c) for c in (a, b, a, b)]
                for one in both:
                    self.assertEqual(one.result(), self.expected)
            for coordinator in (a, b):
                self.assert_all_answered(coordinator, 2)
            cluster, = run_json(CONCLAVE, a, "nodes")
            self.assertEqual(sorted(c["id"] for c in cluster["coordinators"]), ["a", "b"])
            self.assertEqual(sum(c.get("controller", False) for c in cluster["coordinators"]), 1)
        self.stop_nodes()

    def test_members_start_in_any_order_and_again(self):
        with concurrent.futures.ThreadPoolExecutor() as threads:
            early = threads.submit(self.coordinator, "--min-nodes", "2")
            time.sleep(0.5)
            self.assertFalse(early.done())
            for node in self.start_nodes(2):
                node.ready()
            coordinator = early.result()
        with coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
        for node in self.nodes:
            node.stop(signal.SIGKILL)
        self.nodes.clear()
        self.etcd.stop()
        with concurrent.futures.ThreadPoolExecutor() as threads:
            again = threads.submit(self.coordinator, "--min-nodes", "2")
            nodes = [self.node(f"node-{i}") for i in range(2)]
            self.etcd.start()
            for node in nodes:
                node.ready()
            coordinator = again.result()
        with coordinator:
            # Where the keys of the killed ones ended before a node had written its own, the other was given everything first.
            self.assert_all_answered_by(coordinator, 2)
        self.stop_nodes()

    def test_the_oracle_agrees_through_three_nodes(self):
        try:
            import oracle
        except ImportError as error:
            self.skipTest(str(error))
        for vector in ("olmoe-gqa", "olmoe-bf16"):
            self.cluster = vector
            for node in [self.node(f"node-{i}", model=os.path.join(VECTORS, vector)) for i in range(3)]:
                node.registered()
            oracle.check(CONCLAVE, COORDINATOR, os.path.join(VECTORS, vector), *self.member_args(), "--id", "coordinator", "--threads",
                         "1", "--min-nodes", "3")
            self.stop_nodes()

    def test_etcd_may_be_restarted_while_serving(self):
        self.start_nodes(2)
        with self.coordinator("--min-nodes", "2") as coordinator:
            self.etcd.stop()
            try:
                self.assertEqual(self.answers(coordinator), self.expected)
            finally:
                self.etcd.start()
            for _ in range(3):
                self.assertEqual(self.answers(coordinator), self.expected)
            self.assert_all_answered(coordinator, 2)
        self.stop_nodes()

    def kill_a_node_in_mid_answer(self, coordinator):
        """The first; the answer is the expected one all the same."""
        command, *args = LONG
        stream = subprocess.Popen([CONCLAVE, command, "--server", coordinator.address, "--json", *args], stdout=subprocess.PIPE,
                                  encoding="utf-8", env=clean_env())
        chunks = [json.loads(stream.stdout.readline()) for _ in range(3)]
        self.nodes.pop(0).stop(signal.SIGKILL)
        chunks += [json.loads(line) for line in stream.stdout]
        stream.stdout.close()
        self.assertEqual(stream.wait(), 0)
        self.assertEqual([id for chunk in chunks for id in chunk.get("token_ids", [])], self.expected_long)

    def test_a_node_may_die_while_its_replicas_go_on(self):
        self.start_nodes(2)
        with self.coordinator("--min-nodes", "2", "--replication", "2") as coordinator:
            self.kill_a_node_in_mid_answer(coordinator)
        self.stop_nodes()

    def shares(self, coordinator):
        """Which experts each node is to hold and has ready."""
        shares = {}
        for expert in run_json(CONCLAVE, coordinator, "placement")[0]["experts"]:
            for replica in expert.get("replicas", []):
                shares.setdefault(replica["node_id"], set()).add((expert.get("layer", 0), expert.get("expert_id", 0), replica.get("ready", False)))
        return shares

    def test_what_a_killed_node_alone_had_is_placed_before_its_key_is_gone(self):
        self.start_nodes(2)
        with self.coordinator("--min-nodes", "2") as coordinator:
            self.kill_a_node_in_mid_answer(coordinator)
            coordinator.log_match(r"node node-0 at \S+ is gone: its address refuses connections")
            coordinator.log_match("the key of node node-0 has vanished") # only now
            log = "".join(coordinator.log)
            self.assertLess(log.index("on 1 nodes, up to 1 of each, epoch 2"), log.index("the key of node node-0 has vanished"))
        self.nodes[0].process.send_signal(signal.SIGTERM)
        self.nodes.pop().end()

    def test_full_nodes_that_lose_one_share_what_is_left(self):
        """Three nodes with room for 11 of the 16 experts, two copies of each; then two: 16 experts have one, 4 a second."""
        self.start_nodes(3, "--memory", str(11 * 3 * 64 * 32 * 4))
        with self.coordinator("--min-nodes", "3", "--replication", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            self.nodes.pop(0).stop(signal.SIGKILL)
            end = time.monotonic() + WAIT_S
            while True:
                self.assertEqual(self.answers(coordinator), self.expected)
                shares = self.shares(coordinator)
                if sorted(shares) == ["node-1", "node-2"] and all(ready for share in shares.values() for _, _, ready in share) \
                        and sum(map(len, shares.values())) == 20:
                    break
                self.assertLess(time.monotonic(), end, shares)
                time.sleep(0.05)
            self.assertEqual(len({(layer, expert) for share in shares.values() for layer, expert, _ in share}), 16)
        for node in self.nodes:
            node.stop()
        self.nodes.clear()

    def test_a_node_that_is_killed_and_started_again_has_what_it_had(self):
        self.start_nodes(2)
        with self.coordinator("--min-nodes", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            before = self.shares(coordinator)
            self.assertEqual(sorted(before), ["node-0", "node-1"])
            self.nodes.pop(0).stop(signal.SIGKILL)
            self.start_nodes(1)
            self.assertEqual(self.answers(coordinator), self.expected)
            end = time.monotonic() + WAIT_S
            while self.shares(coordinator) != before and time.monotonic() < end:
                time.sleep(0.05)
            self.assertEqual(self.shares(coordinator), before)
        for node in self.nodes:
            node.stop()
        self.nodes.clear()

    def test_members_go_on_when_one_of_three_etcds_dies(self):
        etcds = [Etcd(os.path.join(self.folder, f"etcd-{i}"), name=f"m{i}", run=False) for i in range(3)]
        cluster = ",".join(f"{e.name}={e.peer}" for e in etcds)
        for e in etcds:
            e.start(cluster)
            self.addCleanup(e.stop)
        nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
        args = ("--etcd", ",".join([nobody] + [e.url for e in etcds]), "--cache-dir", self.folder)
        self.nodes = [Process(NODE, "--model", self.model, *args, "--id", f"node-{i}") for i in range(2)]
        for node in self.nodes:
            node.registered()
        with Coordinator(COORDINATOR, self.model, *args, "--id", "coordinator", "--threads", "1", "--min-nodes", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            etcds[0].stop()
            self.nodes.append(Process(NODE, "--model", self.model, *args, "--id", "node-2").ready())
            self.assert_all_answered_by(coordinator, 3)
        self.stop_nodes()

    # ------------------------------------------------------------------------------------------ etcd with TLS and users
    def certificates(self):
        """The server's is for servers and clients (its gateway dials itself); the client's has no CN, which etcd would take for a user."""
        folder = os.path.join(self.folder, "certificates")
        os.mkdir(folder)

        def openssl(*args):
            subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *curve, "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test-ca")
        for who, usage in (("server", "serverAuth,clientAuth"), ("client", "clientAuth")):
            with open(os.path.join(folder, who + ".ext"), "w", encoding="ascii") as f:
                f.write(f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={usage}\n")
            openssl("req", *curve, "-keyout", who + ".key", "-out", who + ".csr", "-subj", "/O=conclave")
            openssl("x509", "-req", "-in", who + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile",
                    who + ".ext", "-out", who + ".pem")
        return folder

    def test_etcd_may_ask_for_certificates_and_passwords(self):
        if shutil.which("openssl") is None:
            self.skipTest("openssl is not installed")
        folder = self.certificates()
        etcd = Etcd(os.path.join(self.folder, "etcd-with-tls"), certificates=folder)
        self.addCleanup(etcd.stop)
        begin, end = (base64.b64encode(key).decode() for key in (b"/conclave/", b"/conclave0"))
        for user, role in (("root", "root"), ("member", "members")):
            etcd.post("auth/user/add", name=user, password="a password of " + user)
            etcd.post("auth/role/add", name=role)
            etcd.post("auth/user/grant", user=user, role=role)
        etcd.post("auth/role/grant", name="members", perm={"permType": "READWRITE", "key": begin, "range_end": end})
        etcd.post("auth/enable")
        tls = ("--etcd", etcd.url, "--etcd-ca", f"{folder}/ca.pem", "--etcd-cert", f"{folder}/client.pem", "--etcd-key",
               f"{folder}/client.key", "--cache-dir", self.folder, "--etcd-user", "member", "--etcd-password-file")
        right, wrong = self.secret("password", "a password of member\n"), self.secret("not-the-password", "a guess\n")
        refused = Process(NODE, "--model", self.model, "--id", "stranger", *tls, wrong)
        self.nodes = [refused]
        self.refused(refused)
        self.nodes = [Process(NODE, "--model", self.model, "--id", f"node-{i}", *tls, right) for i in range(2)]
        for node in self.nodes:
            node.registered()
        with Coordinator(COORDINATOR, self.model, *tls, right, "--id", "coordinator", "--threads", "1", "--min-nodes", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            self.assert_all_answered(coordinator, 2)
        self.stop_nodes()

    # ------------------------------------------------------------------------------------------ three hosts
    def test_three_hosts_answer_as_one_process(self):
        try:
            hosts = Hosts(self.folder)
        except OSError as error:
            self.skipTest(str(error))
        self.addCleanup(hosts.close)
        etcd = Etcd(os.path.join(self.folder, "etcd-of-hosts"), hosts.address(0), hosts.program(0, shutil.which("etcd")))
        self.addCleanup(etcd.stop)
        args = ("--etcd", etcd.url, "--cache-dir", self.folder, "--secret-file", self.secret("hosts", "the secret of three hosts\n"))
        self.nodes = [Process(hosts.program(i, NODE), "--model", self.model, *args, "--id", f"node-{i}", "--listen", f"{hosts.address(i)}:0")
                      for i in (1, 2)]
        for node in self.nodes:
            node.registered()
        conclave = hosts.program(0, CONCLAVE)
        with Coordinator(hosts.program(0, COORDINATOR), self.model, *args, "--id", "coordinator", "--threads", "1", "--min-nodes",
                         "2") as coordinator:
            self.assertEqual([self.answer(coordinator, ask, conclave) for ask in ASKS], self.expected)
            cluster, = run_json(conclave, coordinator, "nodes")
            self.assertEqual([node["address"].split(":")[0] for node in cluster["nodes"]], [hosts.address(1), hosts.address(2)])
            self.assertEqual([node["transport"] for node in cluster["nodes"]], ["tls", "tls"])
        self.stop_nodes()

    # ------------------------------------------------------------------------------------------ what is shown
    @staticmethod
    def get(url):
        try:
            with urllib.request.urlopen(url, timeout=WAIT_S) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def test_members_show_life_readiness_and_the_lane(self):
        port, = free_ports(1)
        node, = self.start_nodes(1, "--http", f"127.0.0.1:{port}")
        http = f"http://127.0.0.1:{port}"
        self.assertEqual(self.get(http + "/livez"), (200, "ok\n"))
        end = time.monotonic() + WAIT_S
        while (page := self.get(http + "/readyz")) != (503, "no coordinator is registered yet\n"):  # its log is a moment earlier
            self.assertEqual(page[0], 503)
            self.assertLess(time.monotonic(), end, page)
        with self.coordinator("--http", "127.0.0.1:0") as coordinator:
            self.assertEqual(self.get(http + "/readyz"), (200, "ok\n"))
            self.assertEqual(self.answers(coordinator), self.expected)
            self.assert_all_answered(coordinator, 1)
            end = time.monotonic() + WAIT_S
            while "conclave_node_rows_total 0\n" in (page := self.get(http + "/metrics")[1]) and time.monotonic() < end:
                time.sleep(0.02)
            self.assertRegex(page, r"conclave_node_rows_total [1-9]")
            self.assertIn('node="node-0",numeric_class="f32-1",transport="auto"', page)
            self.assertIn('conclave_loop_last_progress_seconds{loop="cluster"}', page)
            for line in ("etcd_connected 1", "etcd_lease_losses_total 0", "cluster_registered 1", "cluster_epoch_published 1",
                         "cluster_epoch_applied 1", "node_coordinators 1", "node_loads_total 16", "authentication_failures_total 0"):
                self.assertIn(f"\nconclave_{line}\n", page)
            page = self.get("http://127.0.0.1:" + coordinator.log_match(r"http on port (\d+)").group(1) + "/metrics")[1]
            self.assertRegex(page, r'conclave_node_up\{[^}]*node="node-0"[^}]*transport="shm"\} 1')
            self.assertRegex(page, r'conclave_node_queued_rows\{node="node-0",transport="shm"\} \d+')
            for line in ("etcd_connected 1", "cluster_registered 1", "cluster_controller 1", "cluster_placements_total 1",
                         "cluster_epoch_applied 1", "cluster_nodes_unreachable 0", "etcd_ignored_total 0", "transport_peers 1", "transport_shm_peers 1", "transport_connected_total 1",
                         "authentication_failures_total 0", "dispatch_refusals_total 0", "dispatch_bad_frames_total 0"):
                self.assertIn(f"\nconclave_{line}\n", page)
            coordinator.log_match("reached by auto")
            coordinator.log_match(r"node node-0 at \S+: frames travel by shm")
            self.assertEqual(run_json(CONCLAVE, coordinator, "nodes")[0]["nodes"][0]["transport"], "shm")
            code, log = node.stop()
            self.nodes.clear()
            self.assertEqual(code, 3, log) # the coordinator needs it, and there is no other
            self.assertIn("there is no other node", log)
            self.assertIn("transport auto", log)

    def wait_for_page(self, url, code, *words):
        """The page, as soon as it has this code."""
        end = time.monotonic() + WAIT_S
        while True:
            got, text = self.get(url)
            if got == code or time.monotonic() > end:
                break
            time.sleep(0.02)
        self.assertEqual(got, code, text)
        for word in words:
            self.assertIn(word, text)
        return text

    def is_serving(self, coordinator):
        health = subprocess.run([CONCLAVE, "health", "--server", coordinator.address], capture_output=True, env=clean_env(), timeout=WAIT_S)
        cluster, = run_json(CONCLAVE, coordinator, "nodes")
        self.assertEqual(cluster.get("ready", False), health.returncode == 0)
        return health.returncode == 0

    def test_readiness_follows_the_owners_of_experts(self):
        """Two nodes with room for half of the experts each: what one held nobody else can take."""
        half = ("--memory", str(8 * 3 * 64 * 32 * 4))
        self.start_nodes(2, *half)
        with self.coordinator("--min-nodes", "2", "--http", "127.0.0.1:0") as coordinator:
            http = "http://127.0.0.1:" + coordinator.log_match(r"http on port (\d+)").group(1)
            self.assertEqual(self.get(http + "/readyz"), (200, "ok\n"))
            self.assertTrue(self.is_serving(coordinator))
            command, *args = LONG
            stream = subprocess.Popen([CONCLAVE, command, "--server", coordinator.address, "--json", *args], stdout=subprocess.PIPE,
                                      encoding="utf-8", env=clean_env())
            chunks = [json.loads(stream.stdout.readline()) for _ in range(3)]
            killed = time.monotonic()
            self.nodes.pop().stop(signal.SIGKILL)
            self.wait_for_page(http + "/readyz", 503, "no live owner", "layer ", " expert ")
            print(f"not ready {time.monotonic() - killed:.2f} s after a node with the only copies was killed")
            self.assertFalse(self.is_serving(coordinator))
            self.assertEqual(self.get(http + "/livez"), (200, "ok\n"))
            with self.assertRaisesRegex(RuntimeError, r"UNAVAILABLE: .*no live owner.*\(try again in 1000 ms\)"):
                self.answer(coordinator, ASKS[0])
            self.node("node-1", *half).ready()
            self.wait_for_page(http + "/readyz", 200)
            self.assertTrue(self.is_serving(coordinator))
            self.assertEqual(self.answers(coordinator), self.expected)
            chunks += [json.loads(line) for line in stream.stdout]
            stream.stdout.close()
            self.assertEqual(stream.wait(), 0)
            self.assertEqual([id for chunk in chunks for id in chunk.get("token_ids", [])], self.expected_long)
        self.stop_nodes()

    def test_a_coordinator_without_nodes_listens_and_says_what_it_waits_for(self):
        grpc_port, http_port = free_ports(2)
        process = subprocess.Popen([COORDINATOR, "--model", self.model, "--listen", f"127.0.0.1:{grpc_port}", "--http",
                                    f"127.0.0.1:{http_port}", *self.member_args(), "--id", "coordinator"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, encoding="utf-8", env=clean_env())
        timer = threading.Timer(WAIT_S, process.kill)
        timer.start()
        try:
            self.assertTrue(any("waiting: nothing is placed yet" in line for line in process.stderr))
            self.assertEqual(self.get(f"http://127.0.0.1:{http_port}/livez"), (200, "ok\n"))
            self.assertEqual(self.get(f"http://127.0.0.1:{http_port}/readyz"), (503, "no expert has been placed on a node yet\n"))
            asked = subprocess.run([CONCLAVE, "generate", "--server", f"127.0.0.1:{grpc_port}", "--tokens", "1"], capture_output=True,
                                   encoding="utf-8", env=clean_env(), timeout=WAIT_S)
            self.assertIn("no expert has been placed on a node yet (try again in 1000 ms)", asked.stderr)
        finally:
            timer.cancel()
            process.terminate()
            self.assertEqual(process.communicate()[0], "")
        self.assertEqual(process.returncode, 0)

    def test_a_drain_ends_although_a_step_waits_for_an_owner(self):
        self.start_nodes(1)
        with self.coordinator("--step-timeout-ms", "3600000", "--drain-timeout-ms", "300") as coordinator:
            command, *args = LONG
            stream = subprocess.Popen([CONCLAVE, command, "--server", coordinator.address, "--json", *args], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, encoding="utf-8", env=clean_env())
            chunks = [json.loads(stream.stdout.readline()) for _ in range(3)]
            self.nodes.pop().stop(signal.SIGKILL)
            self.assertEqual(coordinator.stop(), (0, ""))
            chunks += [json.loads(line) for line in stream.stdout]  # communicate() would lose lines that readline() has read ahead
            said = stream.stderr.read()
            stream.stdout.close()
            stream.stderr.close()
            self.assertEqual((stream.wait(), "shutting down" in said), (1, True), said)
            tokens = [id for chunk in chunks for id in chunk.get("token_ids", [])]
            self.assertEqual(tokens, self.expected_long[:len(tokens)])

    def test_a_node_listens_for_probes_before_it_loads(self):
        taken, = free_ports(1)
        with socket.socket() as s:
            s.bind(("127.0.0.1", taken))
            s.listen()
            for option in ("--http", "--listen"):
                self.refused(self.node("n", option, f"127.0.0.1:{taken}", "--cache-dir", os.path.join(self.folder, "never-made")),
                             f"{option} 127.0.0.1:{taken}: cannot be bound", exit_code=2)
        for option, says in (("--secret-file", "No such file"), ("--etcd-ca", "No such file"), ("--etcd", "must be http(s)://HOST:PORT")):
            absent = os.path.join(self.folder, "absent")
            self.refused(self.node("n", option, absent, "--cache-dir", os.path.join(self.folder, "never-made")), option, absent, says)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "never-made")), "the checkpoint was hashed")
        port, = free_ports(1)
        node = self.node("n", "--http", f"127.0.0.1:{port}", "--etcd", f"http://127.0.0.1:{free_ports(1)[0]}")
        node.says("http on port")
        self.assertEqual(self.get(f"http://127.0.0.1:{port}/livez"), (200, "ok\n"))
        self.assertEqual(self.get(f"http://127.0.0.1:{port}/readyz")[0], 503)
        self.assertIn("process_start_time_seconds", self.get(f"http://127.0.0.1:{port}/metrics")[1])
        self.assertEqual(node.stop()[0], 0)
        self.nodes.clear()

    def test_rdma_is_refused_where_there_is_none(self):
        if os.path.exists("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"):
            self.skipTest("there is an RDMA device")
        self.refused(self.node("n", "--transport", "rdma"), "RDMA")
        with self.assertRaisesRegex(RuntimeError, "RDMA"):
            self.coordinator("--transport", "rdma")

    # ------------------------------------------------------------------------------------------ refusals
    def refused(self, node, *words, exit_code=2):
        code, log = node.end()
        self.nodes.remove(node)
        self.assertEqual(code, exit_code, log)
        for word in words:
            self.assertIn(word, log)

    def test_members_that_do_not_belong_are_refused(self):
        self.start_nodes(1)
        with self.coordinator() as coordinator:
            self.refused(self.node("stranger", model=self.other), "fingerprint")
            self.refused(self.node("stranger", "--dtype", "bf16"), "bf16-1", "f32-1")
            self.refused(self.node("node-0"), "node-0", exit_code=1) # which may be free another time
            with self.assertRaisesRegex(RuntimeError, "fingerprint"):
                self.coordinator(id="stranger", model=self.other)
            self.assertEqual(self.answers(coordinator), self.expected)
            self.assertEqual(list(self.rows(coordinator)), ["node-0"])
        self.stop_nodes()

    def test_a_member_of_another_cluster_is_not_seen(self):
        self.start_nodes(1)
        mine, self.cluster = self.cluster, "elsewhere"
        self.node("far").registered()
        self.cluster = mine
        with self.coordinator() as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            self.assertEqual(list(self.rows(coordinator)), ["node-0"])
        self.stop_nodes()

    def test_the_name_of_a_dead_node_is_free_at_once(self):
        for how in (signal.SIGKILL, signal.SIGSTOP):
            self.start_nodes(1)
            gone = self.nodes.pop()
            self.addCleanup(lambda process: process.poll() is None and process.kill(), gone.process)
            gone.process.send_signal(how)
            self.start_nodes(1)
            gone.stop(signal.SIGKILL)
            self.stop_nodes()

    # ------------------------------------------------------------------------------------------ displaced members
    def test_a_node_that_another_has_displaced_says_so_and_ends(self):
        self.start_nodes(1)
        with self.coordinator() as coordinator:
            old = self.nodes.pop()
            self.addCleanup(lambda: old.process.poll() is None and old.process.kill())
            old.process.send_signal(signal.SIGSTOP)
            self.start_nodes(1)[0].ready()
            self.assertEqual(self.answers(coordinator), self.expected)
            old.process.send_signal(signal.SIGCONT)
            code, log = old.end()
            self.assertEqual(code, 4, log)
            self.assertIn("node node-0 is displaced, and ends: id node-0 is held by incarnation", log)
            self.assertEqual(self.answers(coordinator), self.expected)
            self.assertEqual(list(self.rows(coordinator)), ["node-0"])
        self.stop_nodes()

    def test_a_coordinator_that_another_has_displaced_says_so_and_ends(self):
        """The other one is its key and a port where somebody listens; it has outlived a lease."""
        self.start_nodes(1)
        with socket.create_server(("127.0.0.1", 0)) as other, self.coordinator("--drain-delay-ms", "3600000") as coordinator:
            value = {"v": 1, "incarnation": "00000000000000ff", "address": f"127.0.0.1:{other.getsockname()[1]}", "epoch_applied": 1}
            self.etcd.put(f"/conclave/{self.cluster}/coordinators/coordinator", json.dumps(value))
            coordinator.log_match("this coordinator is displaced, and drains: id coordinator is held by incarnation 00000000000000ff")
            self.assertEqual(coordinator.end(), 4)
        self.nodes.pop().stop(signal.SIGKILL)

    def secret(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        return path

    def test_a_stranger_gets_nothing_from_any_port(self):
        """Every port that the kernel says a member has open, but the API's, which is for everybody."""
        own = self.secret("own", "a secret that no stranger knows\n")
        hello = ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
        calls = [b"", b"\0", hello.read(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"CNCW\3\0\1\0\x10\0\0\0\0\0\0\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                 os.urandom(64), os.urandom(1 << 20), b"\x16\3\1\xff\xff" + bytes(1 << 16)]
        self.start_nodes(2, "--secret-file", own)
        with self.coordinator("--secret-file", own, "--min-nodes", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            ports = {id: open_ports(process.pid) for id, process in (("coordinator", coordinator.process), ("node-0", self.nodes[0].process),
                                                                     ("node-1", self.nodes[1].process))}
            self.assertEqual(ports["coordinator"], {int(coordinator.address.rpartition(":")[2])})
            self.assertEqual([len(ports[node]) for node in ("node-0", "node-1")], [1, 1], ports)
            asker = Asker(coordinator, self.expected_long)
            try:
                with concurrent.futures.ThreadPoolExecutor(8) as threads:
                    said = list(threads.map(lambda call: call_a_stranger_makes(*call), [(port, data) for port in ports["node-0"] | ports["node-1"] for data in calls]))
            finally:
                asker.stop()
            self.assertIsNone(asker.wrong)
            self.assertEqual(set(said), {b""})
            self.assertEqual(self.answers(coordinator), self.expected)
        print(f"{len(said)} calls of strangers, not a byte in answer")
        self.stop_nodes()

    def test_nodes_work_for_those_alone_who_know_the_secret(self):
        right = self.secret("right", "a secret of enough bytes\n")
        wrong = self.secret("wrong", "another one of such length\n")
        self.start_nodes(2, "--secret-file", right)
        with self.assertRaisesRegex(RuntimeError, "not signed with our secret"):
            self.coordinator("--secret-file", wrong, id="wrong")
        with self.coordinator("--secret-file", right, "--min-nodes", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            self.assert_all_answered(coordinator, 2)
        self.stop_nodes()

    # ------------------------------------------------------------------------------------------ lanes
    def lanes(self, coordinator):
        return [node["transport"] for node in run_json(CONCLAVE, coordinator, "nodes")[0]["nodes"]]

    @staticmethod
    def left_behind():
        """What may outlive a process: files of shared memory, segments of System V (by key and id), names of unix sockets."""
        with open("/proc/sysvipc/shm", encoding="utf-8") as segments, open("/proc/net/unix", encoding="utf-8") as sockets:
            return ({*os.listdir("/dev/shm")} | {tuple(line.split()[:2]) for line in segments}
                    | {line.split()[-1] for line in sockets if "@conclave-" in line})

    def test_members_of_one_host_share_memory_and_leave_nothing_behind(self):
        before = self.left_behind()
        self.start_nodes(2, "--secret-file", self.secret("shm", "the secret of one host\n"))
        with self.coordinator("--secret-file", self.secret("shm", "the secret of one host\n"), "--min-nodes", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            self.assertEqual(self.lanes(coordinator), ["shm", "shm"])
            self.assert_all_answered(coordinator, 2)
            for member in (coordinator, *self.nodes):
                member.stop(signal.SIGKILL)
        self.nodes.clear()
        end = time.monotonic() + WAIT_S
        while (left := self.left_behind() - before) and time.monotonic() < end: # others on this machine come and go
            time.sleep(0.05)
        self.assertEqual(left, set())

    def test_lanes_meet(self):
        """The coordinator's lane, the node's, and what they use."""
        for coordinator_lane, node_lane, used in (("tls", "tls", "tls"), ("auto", "tls", "tls"), ("tls", "auto", "tls"), ("shm", "auto", "shm")):
            self.start_nodes(1, "--transport", node_lane)
            with self.coordinator("--transport", coordinator_lane) as coordinator:
                self.assertEqual(self.answer(coordinator, ASKS[0]), self.expected[0])
                self.assertEqual(self.lanes(coordinator), [used])
            self.stop_nodes()

    def test_ucx_over_tcp_is_for_those_who_say_so(self):
        self.refused(self.node("n", "--transport", "ucx-tcp"), "--insecure")
        with self.assertRaisesRegex(RuntimeError, "--insecure"):
            self.coordinator("--transport", "ucx-tcp")
        with self.assertRaisesRegex(RuntimeError, "UCX_NET_DEVICES"): # the coordinator's would be on all networks
            self.coordinator("--transport", "ucx-tcp", "--insecure")

    def test_a_private_network_is_one_and_of_use(self):
        for args, words in ((("--rdma-network", "10.0.0.1/8"), "--rdma-network \"10.0.0.1/8\""),
                            (("--rdma-network", "all", "--transport", "tls"), "--rdma-network: --transport tls uses no RDMA")):
            self.refused(self.node("n", *args), words)
            with self.assertRaisesRegex(RuntimeError, words):
                self.coordinator(*args)

    def test_where_there_is_no_rdma_auto_serves_without_it(self):
        self.start_nodes(1, "--rdma-network", "all")
        with self.coordinator("--rdma-network", "127.0.0.0/8") as coordinator:
            self.assertEqual(self.answer(coordinator, ASKS[0]), self.expected[0])
            self.assertEqual(self.lanes(coordinator), ["shm"])
            coordinator.log_match(r"--rdma-network: connections to other hosts")
        self.stop_nodes()

    # ------------------------------------------------------------------------------------------ out of reach
    def reads(self, url, code, *words):
        """Asks until the page says so."""
        end = time.monotonic() + WAIT_S
        while True:
            page = self.get(url)
            if page[0] == code and all(word in page[1] for word in words):
                return
            self.assertLess(time.monotonic(), end, page)
            time.sleep(0.05)

    def check_out_of_reach(self, coordinator, node_args, on_page, in_log):
        """A second node that nobody can reach: it says so, is given nothing, and nobody waits for it."""
        port, = free_ports(1)
        lost = self.node("lost", "--http", f"127.0.0.1:{port}", *node_args).registered()
        self.reads(f"http://127.0.0.1:{port}/readyz", 503, on_page)
        lost.says(on_page)
        coordinator.log_match(in_log)
        seen = {node["id"]: node for node in run_json(CONCLAVE, coordinator, "nodes")[0]["nodes"]}
        self.assertRegex(seen["lost"]["why"], in_log.split(": ")[-1])
        self.assertNotIn("why", seen["node-0"])
        self.assertEqual(self.answers(coordinator), self.expected)
        owners = {r["node_id"] for e in run_json(CONCLAVE, coordinator, "placement")[0]["experts"] for r in e.get("replicas", [])}
        self.assertEqual(owners, {"node-0"})
        self.nodes.remove(lost)
        lost.process.send_signal(signal.SIGTERM)
        self.assertEqual(lost.process.stdout.read(), "")
        code, log = lost.end()
        self.assertEqual(code, 0, log)

    def test_a_node_with_a_wrong_advertise_is_given_nothing_and_says_so(self):
        nobody, = free_ports(1)
        self.start_nodes(1)
        with self.coordinator() as coordinator:
            self.nodes[0].ready()
            self.check_out_of_reach(coordinator, ("--advertise", f"127.0.0.1:{nobody}"), "wrong --advertise?",
                                    rf"node lost at 127\.0\.0\.1:{nobody} is not used: Connection refused")
        self.stop_nodes()

    def test_an_address_without_a_port_is_told_with_the_one_that_was_found(self):
        node = self.node("n", "--listen", "0.0.0.0:0", "--advertise", "127.0.0.1", "--insecure").registered()
        with self.coordinator() as coordinator:
            self.assertRegex(node.ready().address, r"\A127\.0\.0\.1:[1-9]\d*\Z")
            self.assertEqual(self.answers(coordinator), self.expected)
        self.stop_nodes()

    def restart_nodes(self, *ids):
        """As a StatefulSet's upgrade does: one leaves, is started again under its name, is ready; then the next."""
        for id in ids:
            leaving = next(node for node in self.nodes if id in node.process.args)
            self.nodes.remove(leaving)
            leaving.process.send_signal(signal.SIGTERM)
            code, log = leaving.end()
            self.assertEqual(code, 0, log)
            self.node(id, "--drain-timeout-ms", "600000").ready()

    def test_an_upgrade_that_restarts_every_member_loses_no_answer(self):
        """Nodes one after the other, none to spare; coordinators beside them: a new one is ready, then the old one leaves."""
        self.start_nodes(2, "--drain-timeout-ms", "600000")
        with contextlib.ExitStack() as all, concurrent.futures.ThreadPoolExecutor() as threads:
            old = all.enter_context(self.coordinator("--min-nodes", "2", "--drain-timeout-ms", "600000", id="old"))
            askers = [Asker(old, self.expected_long) for _ in range(2)]
            try:
                for asker in askers:
                    asker.goes_on()
                nodes = threads.submit(self.restart_nodes, "node-1", "node-0")
                new = all.enter_context(self.coordinator("--min-nodes", "2", "--drain-timeout-ms", "600000", id="new"))
                for asker in askers:
                    asker.coordinator = new
                for asker in askers:
                    asker.goes_on()
                self.assertEqual(old.stop(), (0, ""))
                nodes.result()
                for asker in askers:
                    asker.goes_on()
            finally:
                for asker in askers:
                    asker.stop()
            self.assert_all_answered_by(new, 2)
            print(f"{sum(asker.n for asker in askers)} equal answers while all members were restarted")
        self.stop_nodes()

    def test_members_with_another_secret_or_none_are_refused(self):
        right, wrong = self.secret("right-one", "a secret of enough bytes\n"), self.secret("wrong-one", "another one of such length\n")
        self.start_nodes(1, "--secret-file", right)
        with self.coordinator("--secret-file", right) as coordinator:
            self.refused(self.node("lost", "--secret-file", wrong), "are not signed with our secret: is --secret-file the cluster's")
            self.refused(self.node("lost"), "--secret-file is needed")
            for args, words in ((("--secret-file", wrong), "not signed with our secret"), ((), "--secret-file is needed")):
                with self.assertRaisesRegex(RuntimeError, words):
                    self.coordinator(*args, id="lost")
            self.assertEqual(self.answers(coordinator), self.expected)
            self.assertEqual(list(self.rows(coordinator)), ["node-0"])
        self.stop_nodes()

    def test_a_coordinator_alone_with_unreachable_nodes_says_which(self):
        nobody, = free_ports(1)
        self.node("lost", "--advertise", f"127.0.0.1:{nobody}").registered()
        process = subprocess.Popen([COORDINATOR, "--model", self.model, "--listen", "127.0.0.1:0", *self.member_args(), "--id", "c"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=clean_env())
        timer = threading.Timer(WAIT_S, process.kill)
        timer.start()
        try:
            self.assertTrue(any("node lost at 127.0.0.1:" in line and "nothing is placed yet" in line for line in process.stderr))
        finally:
            timer.cancel()
            process.terminate()
            self.assertEqual(process.communicate()[0], "")

    def test_a_drain_that_nobody_can_relieve_is_noticed(self):
        self.start_nodes(2, "--drain-timeout-ms", "1500")
        with self.coordinator("--min-nodes", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            coordinator.process.kill()
            coordinator.process.wait()
            for node, words in zip(self.nodes, ("no coordinator is connected", "no coordinator is connected")):
                code, log = node.stop()
                self.assertEqual(code, 3, log)
                self.assertIn("cannot be relieved now: " + words, log)
                self.assertIn("leaves though its experts have no other owner: not within --drain-timeout-ms; " + words, log)
        self.nodes.clear()

    def test_the_only_copies_do_not_leave_while_the_coordinator_is_restarted(self):
        leaving, _ = self.start_nodes(2, "--drain-timeout-ms", "600000")
        with self.coordinator("--min-nodes", "2") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
        leaving.process.send_signal(signal.SIGTERM)
        leaving.says("cannot be relieved now: no coordinator is registered, and 8 experts are nowhere else")
        with self.coordinator() as coordinator:
            code, log = leaving.end()
            self.assertEqual(code, 0, log)
            self.assertEqual(self.answers(coordinator), self.expected)
        self.nodes.remove(leaving)
        self.stop_nodes()  # there is nobody left who could be given its experts

    def test_a_drain_waits_for_a_node_that_can_relieve_it(self):
        self.start_nodes(1, "--drain-timeout-ms", "600000")
        with self.coordinator() as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            leaving = self.nodes.pop()
            leaving.process.send_signal(signal.SIGTERM)
            leaving.says("cannot be relieved now: there is no other node")
            self.assertEqual(self.answers(coordinator), self.expected)
            self.node("late").ready()
            code, log = leaving.end()
            self.assertEqual(code, 0, log)
            self.assertEqual(self.answers(coordinator), self.expected)
        self.stop_nodes()

    def without_lease(self, id):
        """Ends the lease of a coordinator, as etcd does when it hears nothing of it for 15 s."""
        def call(path, **body):
            with urllib.request.urlopen(f"{self.etcd.url}/v3/{path}", json.dumps(body).encode(), timeout=WAIT_S) as reply:
                return json.load(reply)

        key = f"/conclave/{self.cluster}/coordinators/{id}".encode()
        call("lease/revoke", ID=call("kv/range", key=base64.b64encode(key).decode())["kvs"][0]["lease"])

    def wait_until(self, what, *askers):
        end = time.monotonic() + WAIT_S
        while not what():
            for asker in askers:
                self.assertIsNone(asker.wrong)
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def owners(self, coordinator):
        """Per expert who has it, once this coordinator, which alone is registered, has applied the placement; until then []."""
        cluster, = run_json(CONCLAVE, coordinator, "nodes")
        placement, = run_json(CONCLAVE, coordinator, "placement")
        if [c["epoch"] for c in cluster["coordinators"]] != [placement["epoch"]]:
            return []
        return [{r["node_id"] for r in e.get("replicas", []) if r.get("ready")} for e in placement["experts"]]

    def test_a_coordinator_that_alone_loses_etcd_serves_on_while_the_pool_changes(self):
        way = Forwarder(urllib.parse.urlsplit(self.etcd.url)[1])
        self.addCleanup(way.close)
        first, _ = self.start_nodes(2, "--drain-timeout-ms", "600000")
        with self.coordinator("--min-nodes", "2", "--etcd", f"http://{way.address}", id="a") as a, self.coordinator(id="b") as b:
            askers = [Asker(a, self.expected_long) for _ in range(2)]
            try:
                with way.cut():
                    self.without_lease("a")
                    self.wait_until(lambda: [c["id"] for c in run_json(CONCLAVE, b, "nodes")[0]["coordinators"]] == ["b"], *askers)
                    self.node("node-2").ready()
                    self.wait_until(lambda: any("node-2" in nodes for nodes in self.owners(b)), *askers)
                    for asker in askers:
                        asker.goes_on()
                    first.process.send_signal(signal.SIGTERM)
                    self.wait_until(lambda: (owners := self.owners(b)) and all(nodes - {"node-0"} for nodes in owners), *askers)
                    for asker in askers:
                        asker.goes_on()
                    self.assertEqual(self.answers(b), self.expected)
                    self.assertIsNone(first.process.poll(), "a coordinator is connected that knows of no other owner")
                code, log = first.end()
                self.assertEqual(code, 0, log)
                self.nodes.remove(first)
                for asker in askers:
                    asker.goes_on()
            finally:
                for asker in askers:
                    asker.stop()
            self.assert_all_answered_by(a, 2)
            print(f"{sum(asker.n for asker in askers)} equal answers of a coordinator that lost etcd and found it again")
        self.stop_nodes()

    def test_the_policy_stays_when_the_controller_changes(self):
        self.start_nodes(2)
        with self.coordinator("--min-nodes", "2", "--replication", "2", id="a") as a:
            self.assertEqual(self.answers(a), self.expected)
            with self.coordinator("--replication", "1", id="b") as b:
                b.log_match(r"policy of cluster \S+ is replication 2, min_nodes 2")
                self.assertEqual(a.stop(), (0, ""))
                self.assertEqual(self.answers(b), self.expected)
                layers = run_json(CONCLAVE, b, "placement")[0]["experts"]
                self.assertEqual({len(e.get("replicas", [])) for e in layers}, {2})
                changed, = run_json(CONCLAVE, b, "placement", "policy", "--replication", "1")
                self.assertEqual(changed["policy"], {"replication": 1, "min_nodes": 2})
                end = time.monotonic() + WAIT_S
                while {len(e.get("replicas", [])) for e in run_json(CONCLAVE, b, "placement")[0]["experts"]} != {1}:
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.05)
                self.assertEqual(self.answers(b), self.expected)
        self.stop_nodes()

    def test_options_that_cannot_work_are_refused(self):
        self.refused(self.node("n", "--listen", "0.0.0.0:0"), "advertise", exit_code=2)
        self.refused(self.node("n", "--listen", "0.0.0.0:0", "--advertise", "127.0.0.1:0"), "secret", exit_code=2)
        self.refused(self.node("n", "--listen", "nonsense"), "listen", exit_code=2)
        self.refused(self.node("not a name"), "--id", exit_code=2)
        self.refused(self.node("n", "--secret-file", self.secret("short", "short\n")), "--secret-file", exit_code=2)
        self.refused(self.node("n", model=self.folder), "config.json", exit_code=1)

    def test_memory_is_a_bound(self):
        expert = 3 * 64 * 32 * 4
        self.start_nodes(2, "--memory", str(5 * expert))
        self.node("large", "--memory", str(6 * expert)).registered()
        with self.coordinator("--min-nodes", "3") as coordinator:
            self.assertEqual(self.answers(coordinator), self.expected)
            cluster, = run_json(CONCLAVE, coordinator, "nodes")
            for node in cluster["nodes"]:
                self.assertLessEqual(node["used_bytes"], node["memory_bytes"])
            self.assertEqual(sum(node["n_experts"] for node in cluster["nodes"]), 16)
        self.stop_nodes()

    def test_a_node_does_not_keep_what_it_has_packed_twice(self):
        model = self.make("larger", "--layers", "4", *(
            word for pair in ("hidden_size=512", "intermediate_size=256", "num_experts=16") for word in ("--set", pair)))
        file_kib = os.path.getsize(os.path.join(model, "model.safetensors")) // 1024
        self.assertGreater(file_kib, 80 * 1024)
        node = self.node("node-0", "--cache-dir", "", model=model)
        with self.coordinator("--cache-dir", "", model=model):
            node.ready()
            of_file = resident_of_file_kib(node.process.pid, "model.safetensors")
        print(f"a node with all experts of a file of {file_kib} KiB: of the file {of_file} KiB stay mapped")
        self.assertLess(of_file, file_kib // 10)
        self.assertRegex("".join(node.log), r"64 experts loaded and verified; resident \d+\.\d MiB, of it pages of files \d+\.\d MiB; "
                         r"experts 96\.0 MiB")
        self.stop_nodes()

    def test_without_memory_for_an_expert_the_coordinator_says_so(self):
        self.start_nodes(1, "--memory", "1K")
        process = subprocess.Popen([COORDINATOR, "--model", self.model, "--listen", "127.0.0.1:0", *self.member_args(), "--id", "coordinator"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=clean_env())
        timer = threading.Timer(WAIT_S, process.kill)
        timer.start()
        try:
            self.assertTrue(any("the nodes have room for 0 (node-0 0)" in line for line in process.stderr))
        finally:
            timer.cancel()
            process.terminate()
            self.assertEqual(process.communicate()[0], "")
        self.assertEqual(process.returncode, 0)
        self.stop_nodes()


def share(which):
    first, n = map(int, which.split("/"))
    return [f"Pool.{name}" for name in unittest.TestLoader().getTestCaseNames(Pool)[first - 1::n]]


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + (share(sys.argv[7]) if sys.argv[6:7] == ["--share"] else sys.argv[6:]))
