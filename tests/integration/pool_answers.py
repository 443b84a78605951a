"""Of pool.py: whatever the cluster is made of, and whatever dies, the answers are those of one process."""
import base64
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import time

from coordinator import Coordinator, WAIT_S, clean_env, free_ports, run_json
from members import Etcd, Hosts, Process
from pool_case import ASKS, CONCLAVE, COORDINATOR, LONG, NODE, VECTORS


class Answers:
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
