"""Of pool.py: members that are displaced, strangers, or out of reach; lanes; upgrades and drains."""
import base64
import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
import urllib.request

from coordinator import WAIT_S, clean_env, free_ports, resident_of_file_kib, run_json
from members import Forwarder
from pool_case import ASKS, CONCLAVE, COORDINATOR, LONG


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


class Members:
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
