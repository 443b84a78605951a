"""The whole coordinator as a foreign client sees it: Debian's python3-grpcio, a small checkpoint, the real engine.

Usage: service.py COORDINATOR MAKE_CHECKPOINT DESCRIPTORS
"""
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

try:
    import grpc
    from messages import Messages
except ImportError:
    print("skipped: python3-grpcio and python3-protobuf are not installed")
    sys.exit(77)

from coordinator import Coordinator, clean_env, resident_of_file_kib, wait_for

PROGRAM, MAKE_CHECKPOINT, DESCRIPTORS = sys.argv[1:4]
WAIT_S = 120
NO_RETRIES = [("grpc.enable_retries", 0)]  # a call that gRPC 1.51 tries again at a server's end may never end, whatever its deadline
MESSAGES = Messages.of_file(DESCRIPTORS)
message, v1 = MESSAGES.make, MESSAGES.v1


def generate(ids, **fields):
    sampling = v1("Sampling", **{"ignore_eos": True, "max_tokens": 16, "seed": 5, "logprobs": 2, **fields})
    return v1("GenerateRequest", token_ids=v1("TokenIds", ids=ids), sampling=sampling)


class Service(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        model = os.path.join(folder.name, "tiny")
        subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, model, "--shape", "tiny", "--set", "max_position_embeddings=4096"], check=True, capture_output=True)
        cls.coordinator = Coordinator(PROGRAM, model, "--http", "127.0.0.1:0", "--cache-dir", "", "--max-queue", "64")
        cls.addClassCleanup(lambda: cls.assertEqual(cls(), cls.coordinator.stop(), (0, "")))
        port = cls.coordinator.log_match(r"http on port (\d+)").group(1)
        cls.http = "http://127.0.0.1:" + port
        cls.channel = grpc.insecure_channel(cls.coordinator.address)
        cls.addClassCleanup(cls.channel.close)

    def runTest(self):
        pass

    def stream(self, method, request):
        reply = {"Generate": "GenerateResponse"}[method]
        call = self.channel.unary_stream("/conclave.v1.Inference/" + method, request_serializer=lambda m: m.SerializeToString(),
                                         response_deserializer=type(v1(reply)).FromString)
        return call(request, timeout=WAIT_S)

    def unary(self, path, request, reply, raw=False):
        call = self.channel.unary_unary(path, request_serializer=(lambda m: m) if raw else (lambda m: m.SerializeToString()),
                                        response_deserializer=type(message(reply)).FromString)
        return call(request, timeout=WAIT_S)

    def metric(self, name):
        with urllib.request.urlopen(self.http + "/metrics", timeout=WAIT_S) as page:
            text = page.read().decode()
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M).group(1))

    def answer(self, request):
        """Tokens and the bits of their log-probabilities, after a look at the order in which they came."""
        tokens, logprobs = [], []
        for chunk in self.stream("Generate", request):
            if chunk.token_ids:
                self.assertEqual(chunk.first_index, len(tokens))
            tokens += chunk.token_ids
            logprobs += [(entry.logprob, tuple((top.id, top.logprob) for top in entry.top)) for entry in chunk.logprobs]
        return tokens, logprobs

    def wait_for_no_pages(self):
        """The figures are published at the end of a step: a moment after the reply has gone out."""
        begun = time.monotonic()
        while self.metric("conclave_kv_pages_used") > 0:
            self.assertLess(time.monotonic() - begun, WAIT_S)
            time.sleep(0.001)

    def test_company_changes_no_stream(self):
        prompts = [[random.Random(i).randrange(200) for _ in range(3 + 9 * i)] for i in range(17)]
        alone = [self.answer(generate(ids)) for ids in prompts]
        together = [None] * len(prompts)

        def run(i):
            together[i] = self.answer(generate(prompts[i]))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(alone, together)
        self.assertTrue(all(len(tokens) == 16 for tokens, _ in alone))

    def test_long_words_disturb_no_stream(self):
        """Text without a space of all sizes, more at once than threads read, while streams run; none of it fits."""
        self.assertTrue(self.unary("/conclave.v1.Inference/GetModel", v1("GetModelRequest"), "conclave.v1.GetModelResponse").has_tokenizer)
        request = generate([1, 2, 3], max_tokens=300)
        alone = self.answer(request)
        tokenize = self.channel.unary_unary("/conclave.v1.Inference/Tokenize", request_serializer=lambda m: m.SerializeToString(),
                                            response_deserializer=type(v1("TokenizeResponse")).FromString)
        words = [v1("TokenizeRequest", text=letter * (4096 << shift)) for letter in ("a", "xq7Z", "\u4e2d\u6587") for shift in (3, 6, 10)]
        long = [tokenize.future(word, timeout=WAIT_S) for word in words]
        self.assertEqual(self.answer(request), alone)
        self.assertEqual(list(tokenize(v1("TokenizeRequest", text="a a"), timeout=WAIT_S).ids), list(tokenize(v1("TokenizeRequest", text="a a")).ids))
        refused = [call.exception() for call in long]
        self.assertEqual({error.code() for error in refused} - {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}, set())
        self.assertTrue(any("more than 4096 tokens" in error.details() for error in refused), [error.details() for error in refused])

    def test_a_cancelled_stream_frees_slot_and_pages(self):
        steps = self.metric("conclave_steps_total")
        call = self.stream("Generate", generate([1, 2, 3], max_tokens=4000))
        next(iter(call))
        begun = time.monotonic()
        while self.metric("conclave_kv_pages_used") == 0: # published at the end of the step that gave the token
            self.assertLess(time.monotonic() - begun, WAIT_S)
        begun = time.monotonic()
        call.cancel()
        while self.metric("conclave_kv_pages_used") > 0 or self.metric("conclave_requests_running") > 0:
            self.assertLess(time.monotonic() - begun, WAIT_S)
            time.sleep(0.0005)
        print(f"cancelled: slot and pages free after {1000 * (time.monotonic() - begun):.1f} ms, as seen through /metrics")
        self.assertLess(self.metric("conclave_steps_total") - steps, 4000)

    def test_a_client_deadline_ends_the_request(self):
        call = self.channel.unary_unary("/conclave.v1.Inference/Complete", request_serializer=lambda m: m.SerializeToString())
        with self.assertRaises(grpc.RpcError) as caught:
            call(generate([1, 2, 3], max_tokens=250, n=16), timeout=0.02)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.wait_for_no_pages()

    def test_a_resumed_stream_goes_on(self):
        whole, logprobs = self.answer(generate([9, 8, 7], max_tokens=12))
        for n in range(len(whole) + 1):
            request = generate([9, 8, 7], max_tokens=12)
            request.resume_from.CopyFrom(v1("TokenIds", ids=whole[:n]))
            tokens = [id for chunk in self.stream("Generate", request) for id in chunk.token_ids]
            self.assertEqual(tokens, whole[n:])

    def test_ten_thousand_malformed_requests_leave_nothing_behind(self):
        good = generate([1, 2, 3]).SerializeToString()
        rng = random.Random(1)

        def mutate():
            bytes_ = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                bytes_[rng.randrange(len(bytes_))] = rng.randrange(256)
            return bytes(bytes_[:rng.randrange(len(bytes_) + 1)]) + rng.randbytes(rng.randrange(20))

        call = self.channel.unary_unary("/conclave.v1.Inference/Complete", request_serializer=lambda m: m)
        codes, settled = {}, None
        for i in range(10000):
            if i == 2000:
                settled = self.coordinator.resident_kib()
            try:
                call(mutate(), timeout=WAIT_S)
                code = "OK"
            except grpc.RpcError as error:
                code = error.code().name
                self.assertIn(code, ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
                              error.details())
            codes[code] = codes.get(code, 0) + 1
        grown = self.coordinator.resident_kib() - settled
        print(f"malformed requests: {codes}; resident memory {settled} KiB, {grown:+d} KiB after")
        self.assertGreater(codes.get("INVALID_ARGUMENT", 0), 1000)
        self.assertLess(grown, 8192)
        self.assertEqual(len(self.answer(generate([1, 2, 3]))[0]), 16)
        self.wait_for_no_pages()

    def test_health_ready_and_metrics_agree(self):
        reply = self.unary("/grpc.health.v1.Health/Check", message("grpc.health.v1.HealthCheckRequest"),
                           "grpc.health.v1.HealthCheckResponse")
        self.assertEqual(reply.status, 1)
        for page in ("/livez", "/readyz"):
            with urllib.request.urlopen(self.http + page, timeout=WAIT_S) as got:
                self.assertEqual(got.status, 200)
        self.assertEqual(self.metric("conclave_ready"), 1)

    def test_expert_counters_add_up(self):
        model = self.unary("/conclave.v1.Inference/GetModel", v1("GetModelRequest"), "conclave.v1.GetModelResponse")
        self.answer(generate([1, 2, 3, 4]))
        stats = self.unary("/conclave.v1.Admin/GetExpertStats", v1("GetExpertStatsRequest"), "conclave.v1.GetExpertStatsResponse")
        for layer in range(model.n_layers):
            picks = sum(e.rows for e in stats.experts if e.layer == layer)
            self.assertEqual(picks, stats.tokens * model.experts_per_token)
        cluster = self.unary("/conclave.v1.Admin/GetCluster", v1("GetClusterRequest"), "conclave.v1.GetClusterResponse")
        self.assertEqual([node.address for node in cluster.nodes], ["in-process"])
        self.assertEqual(cluster.nodes[0].n_experts, sum(model.n_experts))
        self.assertGreater(cluster.nodes[0].rows, 0)

    @staticmethod
    def make(folder, *settings):
        subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, folder, "--shape", "tiny", "--no-tokenizer", *(
            word for setting in settings for word in ("--set", setting))], check=True, capture_output=True)

    def test_the_kv_cache_is_what_was_asked_for_and_bounds_the_context(self):
        with tempfile.TemporaryDirectory() as folder:
            self.make(folder, "max_position_embeddings=4096")
            with Coordinator(PROGRAM, folder, "--cache-dir", "", "--kv-memory", "128K") as coordinator:
                coordinator.log_match(r"KV cache: 128\.0 KiB, 512 tokens, 0 sequences of 4096")
                with grpc.insecure_channel(coordinator.address) as channel:
                    call = channel.unary_unary("/conclave.v1.Inference/GetModel", request_serializer=lambda m: m.SerializeToString(),
                                               response_deserializer=type(v1("GetModelResponse")).FromString)
                    self.assertEqual(call(v1("GetModelRequest"), timeout=WAIT_S).max_context, 512)
                    complete = channel.unary_unary("/conclave.v1.Inference/Complete", request_serializer=lambda m: m.SerializeToString())
                    complete(generate([1] * 500, max_tokens=12), timeout=WAIT_S)
                    with self.assertRaises(grpc.RpcError) as caught:
                        complete(generate([1] * 500, max_tokens=13), timeout=WAIT_S)
                    self.assertIn("512", caught.exception.details())
            with Coordinator(PROGRAM, folder, "--cache-dir", "", "--max-running", "3") as coordinator:
                coordinator.log_match(r"KV cache: 3\.0 MiB, 12288 tokens, 3 sequences of 4096")
                coordinator.log_match(r"resident \d+\.\d MiB, of it pages of files \d+\.\d MiB; weights \d+\.\d KiB, KV cache at most 3\.0 MiB")

    def run_refused(self, folder, *args):
        """A program that ends by itself: its exit code and log."""
        done = subprocess.run([PROGRAM, "--model", folder, *args], capture_output=True, encoding="utf-8", timeout=WAIT_S, env=clean_env())
        self.assertEqual(done.stdout, "")
        return done.returncode, done.stderr

    def test_a_taken_port_is_found_before_the_load(self):
        with tempfile.TemporaryDirectory() as folder, socket.socket() as taken:
            model, cache = os.path.join(folder, "model"), os.path.join(folder, "cache")
            self.make(model)
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            free = ("--listen", "127.0.0.1:0")
            for option, args in (("--listen", ("--listen", address)), ("--http", (*free, "--http", address)),
                                 ("--admin-listen", (*free, "--admin-listen", address))):
                code, log = self.run_refused(model, "--cache-dir", cache, *args)
                self.assertEqual(code, 2, log)
                self.assertIn(f"{option} {address}: cannot be bound", log)
            self.assertFalse(os.path.exists(cache), "the checkpoint was hashed")

    def test_what_options_name_is_looked_at_before_the_load(self):
        with tempfile.TemporaryDirectory() as folder:
            model, cache, absent = (os.path.join(folder, name) for name in ("model", "cache", "absent"))
            self.make(model)
            with open(os.path.join(folder, "short"), "w", encoding="utf-8") as file:
                file.write("secret\n")
            cluster = ("--etcd", "http://127.0.0.1:1")
            for args, says in ((("--token-file", absent), f"token file {absent}: No such file"),
                               (("--tls-cert", absent, "--tls-key", absent), f"--tls-cert {absent}: No such file"),
                               ((*cluster, "--secret-file", absent), f"--secret-file {absent}: No such file"),
                               ((*cluster, "--secret-file", os.path.join(folder, "short")), "holds 6 bytes"),
                               ((*cluster, "--etcd-user", "u", "--etcd-password-file", absent), f"--etcd-password-file {absent}: No such file"),
                               ((*cluster, "--etcd-user", "u"), "one needs the other"),
                               ((*cluster, "--etcd-ca", absent), f"--etcd-ca {absent}: No such file"),
                               ((*cluster, "--etcd-cert", folder, "--etcd-key", absent), f"--etcd-cert {folder}: is not a regular file"),
                               ((*cluster, "--cluster", "a/b"), '--cluster "a/b": not a name'),
                               ((*cluster, "--id", "a b"), '--id "a b": not a name'),
                               (("--etcd", "store"), '--etcd "store": must be http(s)://HOST:PORT')):
                code, log = self.run_refused(model, "--cache-dir", cache, "--listen", "127.0.0.1:0", *args)
                self.assertEqual(code, 2, log)
                self.assertIn(says, log)
            self.assertFalse(os.path.exists(cache), "the checkpoint was hashed")

    def test_a_signal_while_loading_ends_it_at_once(self):
        with tempfile.TemporaryDirectory() as folder:
            self.make(folder, "hidden_size=1024", "intermediate_size=512", "num_experts=32")
            for how in (signal.SIGTERM, signal.SIGINT):
                process = subprocess.Popen([PROGRAM, "--model", folder, "--cache-dir", "", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"],
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=clean_env())
                self.addCleanup(process.kill)
                self.assertTrue(any("http on port" in line for line in process.stderr))
                process.send_signal(how)
                out, log = process.communicate(timeout=WAIT_S)
                self.assertEqual((process.returncode, out), (0, ""), log)

    def test_a_second_signal_ends_a_drain(self):
        with tempfile.TemporaryDirectory() as folder:
            self.make(folder, "max_position_embeddings=4096")
            with Coordinator(PROGRAM, folder, "--cache-dir", "", "--drain-timeout-ms", "3600000") as coordinator, \
                    grpc.insecure_channel(coordinator.address) as channel:
                call = channel.unary_stream("/conclave.v1.Inference/Generate", request_serializer=lambda m: m.SerializeToString(),
                                            response_deserializer=type(v1("GenerateResponse")).FromString)
                endless = [call(generate([1, 2, 3], max_tokens=4000, n=16), timeout=WAIT_S) for _ in range(3)]
                for stream in endless:
                    next(iter(stream))
                coordinator.process.send_signal(signal.SIGTERM)
                coordinator.log_match("draining")
                self.assertIsNone(coordinator.process.poll())
                self.assertEqual(coordinator.stop(), (0, ""))
                for stream in endless:
                    with self.assertRaises(grpc.RpcError) as caught:
                        list(stream)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)

    def test_whoever_asks_again_at_once_is_told_where_the_drain_ends(self):
        """A request that comes as the server ends is refused, with a pause, or not connected: CANCELLED says to nobody that he may ask elsewhere."""
        said, n_whole, ended = [], [], threading.Event()

        def ask_again(address):
            with grpc.insecure_channel(address, NO_RETRIES) as channel:
                call = channel.unary_stream("/conclave.v1.Inference/Generate", request_serializer=lambda m: m.SerializeToString(),
                                            response_deserializer=type(v1("GenerateResponse")).FromString)
                while not ended.is_set():  # later another program may listen there
                    try:
                        list(call(generate([1, 2, 3], max_tokens=40), timeout=WAIT_S))
                        n_whole.append(1)
                    except grpc.RpcError as error:
                        said.append(error.code())
                        pause = next((value for key, value in error.trailing_metadata() or () if key == "grpc-retry-pushback-ms"), None)
                        if pause is None:
                            return
                        time.sleep(int(pause) / 1000)

        with tempfile.TemporaryDirectory() as folder:
            self.make(folder)
            with Coordinator(PROGRAM, folder, "--cache-dir", "", "--threads", "1") as coordinator:
                clients = [threading.Thread(target=ask_again, args=(coordinator.address,), daemon=True) for _ in range(8)]
                for client in clients:
                    client.start()
                wait_for(lambda: len(n_whole) >= 3 * len(clients) or said)
                self.assertEqual(said, [])
                self.assertEqual(coordinator.stop(), (0, ""))
                ended.set()
                for client in clients:
                    client.join(WAIT_S)
                    self.assertFalse(client.is_alive(), "a call that neither ends nor fails")
        self.assertEqual(set(said), {grpc.StatusCode.UNAVAILABLE})

    def test_a_drain_is_announced_before_it_begins(self):
        with tempfile.TemporaryDirectory() as folder:
            self.make(folder, "max_position_embeddings=4096")
            with Coordinator(PROGRAM, folder, "--cache-dir", "", "--drain-delay-ms", "3600000", "--http", "127.0.0.1:0", "--health", "0.0.0.0:0") as coordinator, \
                    grpc.insecure_channel(coordinator.address) as channel:
                page = "http://127.0.0.1:" + coordinator.log_match(r"http on port (\d+)").group(1) + "/readyz"
                port = coordinator.log_match(r"health on port (\d+)").group(1)
                complete = channel.unary_unary("/conclave.v1.Inference/Complete", request_serializer=lambda m: m.SerializeToString(),
                                               response_deserializer=type(v1("CompleteResponse")).FromString)
                with grpc.insecure_channel("127.0.0.1:" + port) as probe:
                    for service in ("", "conclave.v1.Inference", "conclave.v1.Admin"):
                        self.assertEqual(self.health(probe, service), 1)
                    with self.assertRaises(grpc.RpcError) as caught:
                        self.health(probe, "nobody")
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
                    other = probe.unary_unary("/conclave.v1.Inference/Complete", request_serializer=lambda m: m.SerializeToString())
                    with self.assertRaises(grpc.RpcError) as caught:
                        other(generate([1, 2]), timeout=WAIT_S)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
                    coordinator.process.send_signal(signal.SIGTERM)
                    while self.health(probe, "") != 2:
                        time.sleep(0.01)
                with self.assertRaises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(page, timeout=WAIT_S)
                self.assertEqual((refused.exception.code, refused.exception.read()), (503, b"the server is draining\n"))
                self.assertEqual(len(complete(generate([1, 2], max_tokens=4), timeout=WAIT_S).choices[0].token_ids), 4)
                self.assertEqual(coordinator.stop(), (0, ""))

    @staticmethod
    def health(channel, service):
        check = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=lambda m: m.SerializeToString(),
                                    response_deserializer=type(message("grpc.health.v1.HealthCheckResponse")).FromString)
        return check(message("grpc.health.v1.HealthCheckRequest", service=service), timeout=WAIT_S).status

    def test_it_listens_before_it_loads(self):
        with tempfile.TemporaryDirectory() as folder:
            self.make(folder, "hidden_size=1024", "intermediate_size=512", "num_experts=32")
            with Coordinator(PROGRAM, folder, "--cache-dir", "", "--http", "127.0.0.1:0") as coordinator:
                log = "".join(coordinator.log)
                self.assertLess(log.index("http on port"), log.index("KV cache"))

    def test_what_was_packed_is_not_kept_twice(self):
        """About 60 MB of weights, hashed and packed: of the file next to nothing stays mapped; computed from it, what the first token read."""
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, folder, "--shape", "tiny", "--no-tokenizer", "--layers", "4", *(
                word for pair in ("hidden_size=512", "intermediate_size=256", "num_experts=16", "vocab_size=4096") for word in ("--set", pair))],
                check=True, capture_output=True)
            file_kib = os.path.getsize(os.path.join(folder, "model.safetensors")) // 1024
            self.assertGreater(file_kib, 40 * 1024)
            resident = {}
            for weights in ("packed", "mapped"):
                with Coordinator(PROGRAM, folder, "--cache-dir", "", "--weights", weights, "--kv-memory", "16M") as coordinator:
                    of_file = resident_of_file_kib(coordinator.process.pid, "model.safetensors")
                    resident[weights] = coordinator.resident_kib(), of_file
            print(f"a file of {file_kib} KiB: resident, of it the file: {resident}")
            self.assertLess(resident["packed"][1], file_kib // 10)
            self.assertGreater(resident["mapped"][1], file_kib // 5)
            self.assertLess(resident["packed"][0] - self.coordinator.resident_kib(), file_kib * 3 // 2)

    def test_a_head_of_nans_is_never_ready(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, folder, "--shape", "tiny"], check=True, capture_output=True)
            with open(os.path.join(folder, "model.safetensors"), "r+b") as f:
                n = int.from_bytes(f.read(8), "little")
                begin, end = json.loads(f.read(n))["lm_head.weight"]["data_offsets"]
                f.seek(8 + n + begin)
                f.write(b"\xff\x7f" * ((end - begin) // 2))
            with self.assertRaisesRegex(RuntimeError, "not a number"):
                Coordinator(PROGRAM, folder, "--cache-dir", "").stop()

    def test_the_log_tells_of_each_request_and_never_its_tokens(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, folder, "--shape", "tiny"], check=True, capture_output=True)
            coordinator = Coordinator(PROGRAM, folder, "--cache-dir", "", "--log-format", "json")
            with grpc.insecure_channel(coordinator.address) as channel:
                call = channel.unary_unary("/conclave.v1.Inference/Complete", request_serializer=lambda m: m.SerializeToString(),
                                           response_deserializer=type(v1("CompleteResponse")).FromString)
                request = generate([171, 172, 173], max_tokens=5)
                request.request_id = "told"
                call(request, timeout=WAIT_S)
                with self.assertRaises(grpc.RpcError):
                    call(generate([171], temperature=-1.0), timeout=WAIT_S)
            self.assertEqual(coordinator.stop(), (0, ""))
        lines = [json.loads(line) for line in coordinator.log]
        self.assertTrue(all({"time", "level", "message"} <= set(line) for line in lines))
        self.assertEqual((lines[0]["message"], lines[0]["command"].split()[1:3]), ("conclave-coordinator", ["--model", folder]))
        self.assertRegex(lines[0]["version"], r"^[0-9.]+$")
        told = [line for line in lines if line["message"] == "request"]
        self.assertEqual([(t["id"], t["method"], t["status"], t["prompt_tokens"], t["completion_tokens"]) for t in told],
                         [("told", "Complete", "OK", 3, 5)])
        self.assertRegex(told[0]["set"], "^[0-9a-f]{8,64}$")
        self.assertEqual([line["level"] for line in lines if "sampling.temperature" in line["message"]], ["warn"])
        self.assertNotIn("171", "".join(line["message"] for line in lines))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:])
