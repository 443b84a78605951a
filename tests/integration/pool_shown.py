"""Of pool.py: what a cluster shows of itself, and what it refuses."""
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

from coordinator import WAIT_S, clean_env, free_ports, run_json
from pool_case import ASKS, CONCLAVE, COORDINATOR, LONG


class Shown:
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
