"""The API as a foreign gRPC client sees it: Debian's python3-grpcio against tests/integration/api_server.c.

Run by ctest; by hand: api_test.py --server PATH --descriptors PATH [name of a test ...]
"""
import argparse
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request

try:
    import grpc
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
except ImportError:
    print("skipped: python3-grpcio and python3-protobuf are not installed")
    sys.exit(77)

SET_ID = "b52983243d9b3d07805550218c45c4221f78b2b12c242ba0cd191eb018f660c2"  # of the fake engine
ARGS = None
POOL = descriptor_pool.DescriptorPool()
FACTORY = message_factory.MessageFactory(POOL)
TESTS = []
CHANGES = ["AddPack", "RemovePack", "UpdatePack", "Rollback", "PruneExperts", "RestoreExperts", "DefineSet", "UseSet", "ForgetSet"]
STREAMS = {"ServerReflectionInfo": (True, True), **{name: (False, True) for name in ["Generate", "WatchCluster", "Watch", *CHANGES]}}


def test(function):
    TESTS.append(function)
    return function


def load_descriptors(path):
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(open(path, "rb").read())
    for file in files.file:
        POOL.Add(file)


def message(name):
    return FACTORY.GetPrototype(POOL.FindMessageTypeByName(name))


def M(name, /, **fields):
    return message("conclave.v1." + name)(**fields)


class Server:
    """One api_server process; commands go to its standard input."""

    def __init__(self, max_files=None, **flags):
        limit = None if max_files is None else lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
        words = [ARGS.server] + ["%s=%s" % item for item in flags.items()]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=limit)
        self.line = self.process.stdout.readline().split(None, 1)
        self.refusal = self.line[1] if self.line and self.line[0] == "REFUSED" else None
        if self.refusal is None:
            assert self.line and self.line[0] == "READY", self.line
            self.port, self.http_port = map(int, self.line[1].split())
        self.channels = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for channel in self.channels:
            channel.close()
        if self.refusal is not None:
            self.process.communicate()
            return
        if self.process.poll() is None:
            self.process.stdin.close()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.process.stdout.close()
        assert code == 0 or exc[0] is not None, "the server exited with %d" % code

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def channel(self, credentials=None, options=(), host="127.0.0.1"):
        options = list(options) + [("grpc.use_local_subchannel_pool", 1)]
        target = "%s:%d" % (host, self.port)
        made = grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
        self.channels.append(made)
        return made

    def client(self, *args, **kwargs):
        return Client(self.channel(*args, **kwargs))

    def rss_kb(self):
        for line in open("/proc/%d/status" % self.process.pid):
            if line.startswith("VmRSS"):
                return int(line.split()[1])

    def get(self, path):
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.http_port, path), timeout=30) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class Client:
    def __init__(self, channel, service="conclave.v1.Inference", metadata=None):
        self.channel = channel
        self.service = service
        self.metadata = metadata

    def of(self, service):
        return Client(self.channel, service, self.metadata)

    def with_token(self, token):
        return Client(self.channel, self.service, (("authorization", "Bearer " + token),))

    def method(self, name, raw=False):
        described = POOL.FindServiceByName(self.service).FindMethodByName(name)
        reply = FACTORY.GetPrototype(described.output_type)
        streams = STREAMS.get(name, (False, False))
        kind = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}[streams]
        pack = (lambda b: b) if raw else (lambda m: m.SerializeToString())
        return getattr(self.channel, kind)("/%s/%s" % (self.service, name), pack, reply.FromString)

    def call(self, name, request, raw=False, timeout=30):
        return self.method(name, raw)(request, timeout=timeout, metadata=self.metadata)


def fails(code, function, text=None):
    try:
        result = function()
        if hasattr(result, "__next__"):
            list(result)
    except grpc.RpcError as error:
        assert error.code() == code, "expected %s, got %s: %s" % (code, error.code(), error.details())
        assert text is None or text in error.details(), error.details()
        return error
    raise AssertionError("expected %s, but the call succeeded" % code)


def eventually(condition, what, seconds=20):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "timed out: " + what
        time.sleep(0.02)


def trailers(error):
    return dict(error.trailing_metadata() or ())


CODE = grpc.StatusCode


# ------------------------------------------------------------------------------------------------ generation
@test
def generate_streams_every_token_once_and_in_order():
    with Server() as s:
        request = M("GenerateRequest", text="hello", sampling=M("Sampling", max_tokens=300, seed=3, n=3))
        chunks = list(s.client().call("Generate", request))
        for choice in range(3):
            ids, text = [], ""
            for chunk in chunks:
                if chunk.index == choice:
                    assert not chunk.token_ids or chunk.first_index == len(ids)
                    ids += chunk.token_ids
                    text += chunk.text
            assert ids == [ord("a") + (3 + i + choice) % 26 for i in range(300)]
            assert text == "".join(map(chr, ids))
        assert chunks[0].seed == 3 and chunks[0].set_id == SET_ID and chunks[0].model_fingerprint == "f" * 64
        assert chunks[0].request_id and not any(c.HasField("seed") for c in chunks[1:])
        assert chunks[-1].usage.prompt_tokens == 5 and chunks[-1].HasField("timings")
        assert sum(c.finish_reason == 2 for c in chunks) == 3 and chunks[-1].finish_reason == 2
        assert not any(c.HasField("usage") for c in chunks[:-1])


@test
def generate_marks_an_echoed_prompt():
    with Server() as s:
        chunks = list(s.client().call("Generate", M("GenerateRequest", text="hello", echo=True, sampling=M("Sampling", max_tokens=2))))
        assert chunks[0].echo and chunks[0].text == "hello" and list(chunks[0].token_ids) == list(b"hello") and chunks[0].HasField("seed")
        assert not any(c.echo for c in chunks[1:]) and sum(len(c.token_ids) for c in chunks[1:]) == 2


@test
def generate_reports_stop_match_and_logprobs():
    with Server() as s:
        request = M("GenerateRequest", text="!stop", sampling=M("Sampling", stop=["xy"], logprobs=2))
        chunks = list(s.client().call("Generate", request))
        assert chunks[-1].stop_match == "xy" and chunks[-1].finish_reason == 1 and not chunks[-1].HasField("stop_token_id")
        logprobs = [p for c in chunks for p in c.logprobs]
        assert len(logprobs) == 3 and logprobs[0].token == b"a" and logprobs[0].logprob == -0.5
        assert [t.token for t in logprobs[0].top] == [b"a", b"b"]
        chunks = list(s.client().call("Generate", M("GenerateRequest", text="!stop")))
        assert chunks[-1].stop_token_id == 256 and not chunks[-1].HasField("stop_match")


@test
def text_is_flushed_at_code_points_and_may_hold_nul():
    with Server() as s:
        chunks = list(s.client().call("Generate", M("GenerateRequest", text="!utf8", sampling=M("Sampling", max_tokens=5))))
        assert "".join(c.text for c in chunks) == "\u00e9\u00e9\ufffd"
        reply = s.client().call("Complete", M("GenerateRequest", text="!nul", sampling=M("Sampling", max_tokens=3)))
        assert reply.choices[0].text == "\0\0\0"
        assert s.client().call("Detokenize", M("DetokenizeRequest", ids=[65, 0, 66])).text == "A\0B"


@test
def complete_joins_what_generate_streams():
    with Server() as s:
        request = M("GenerateRequest", text="hello", echo=True, request_id="mine-1",
                    sampling=M("Sampling", max_tokens=500, seed=9, n=2, logprobs=0))
        reply = s.client().call("Complete", request)
        assert [c.index for c in reply.choices] == [0, 1] and len(reply.choices[1].token_ids) == 500
        assert reply.choices[1].text == "".join(map(chr, reply.choices[1].token_ids)) and len(reply.choices[0].logprobs) == 500
        assert reply.seed == 9 and reply.request_id == "mine-1" and reply.prompt_text == "hello"
        assert list(reply.prompt_token_ids) == list(b"hello") and reply.usage.prompt_tokens == 5
        assert reply.choices[0].finish_reason == 2


@test
def progress_sends_headers_before_the_first_token():
    with Server() as s:
        call = s.client().call("Generate", M("GenerateRequest", text="!hang", progress=True))
        chunk = next(call)
        assert chunk.HasField("progress") and chunk.HasField("request_id") and not chunk.token_ids
        chunk = next(call)
        while not chunk.progress.prompt_tokens_done:
            chunk = next(call)
        next(call)  # the reminder of a stream that would be silent
        call.cancel()
        eventually(lambda: s.tell("live") == "0", "cancelled work ends")


@test
def resume_starts_at_the_tokens_delivered():
    with Server() as s:
        request = M("GenerateRequest", text="x", resume_from=M("TokenIds", ids=[97, 98]), sampling=M("Sampling", seed=0, max_tokens=4))
        chunks = list(s.client().call("Generate", request))
        assert chunks[0].first_index == 2 and [i for c in chunks for i in c.token_ids] == [99, 100]
        request.sampling.ClearField("seed")
        request.sampling.temperature = 0
        assert next(s.client().call("Generate", request)).first_index == 2, "a greedy answer needs no seed"


@test
def a_failure_before_the_first_token_is_trailers_only():
    with Server() as s:
        call = s.client().call("Generate", M("GenerateRequest", text="!fail 8"))
        error = fails(CODE.UNAVAILABLE, lambda: call)
        assert not list(call.initial_metadata() or ()), call.initial_metadata()
        assert int(trailers(error)["grpc-retry-pushback-ms"]) > 0 and "tokens_emitted" not in trailers(error)


@test
def only_a_failure_before_the_headers_is_retried_by_the_client():
    policy = {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}
    options = [("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]}))]
    seen = lambda s, n: eventually(lambda: 'Inference/Generate",code="UNAVAILABLE"} %d\n' % n in s.get("/metrics")[1], "%d attempts" % n)
    with Server() as s:
        fails(CODE.UNAVAILABLE, lambda: s.client(options=options).call("Generate", M("GenerateRequest", text="!fail 8")))
        seen(s, 3)
        fails(CODE.UNAVAILABLE, lambda: s.client(options=options).call("Generate", M("GenerateRequest", text="!break 8 1")))
        seen(s, 4)


@test
def a_failure_in_mid_stream_says_how_many_tokens_left():
    with Server() as s:
        call = s.client().call("Generate", M("GenerateRequest", text="!break 8 5"))
        got = []
        error = fails(CODE.UNAVAILABLE, lambda: got.extend(i for c in call for i in c.token_ids))
        assert len(got) == 5 and trailers(error)["tokens_emitted"] == "5"


@test
def statuses_follow_the_table():
    with Server() as s:
        for number, code in ((1, CODE.INVALID_ARGUMENT), (2, CODE.RESOURCE_EXHAUSTED), (3, CODE.DEADLINE_EXCEEDED), (4, CODE.DATA_LOSS),
                             (5, CODE.RESOURCE_EXHAUSTED), (6, CODE.NOT_FOUND), (7, CODE.UNIMPLEMENTED), (8, CODE.UNAVAILABLE),
                             (9, CODE.CANCELLED), (10, CODE.UNAVAILABLE), (11, CODE.ALREADY_EXISTS), (12, CODE.PERMISSION_DENIED),
                             (13, CODE.DATA_LOSS), (14, CODE.INTERNAL)):
            for name in ("Generate", "Complete", "Score"):
                kind = "ScoreRequest" if name == "Score" else "GenerateRequest"
                if name == "Score":
                    continue
                error = fails(code, lambda: s.client().call(name, M(kind, text="!fail %d" % number)))
                assert ("grpc-retry-pushback-ms" in trailers(error)) == (code in (CODE.RESOURCE_EXHAUSTED, CODE.UNAVAILABLE))
        error = fails(CODE.INTERNAL, lambda: s.client().call("Complete", M("GenerateRequest", text="!fail 14")), "incident")
        assert "told to fail" not in error.details()


@test
def requests_beyond_the_queue_are_refused_at_once():
    with Server() as s:
        client = s.client()
        calls = [client.call("Generate", M("GenerateRequest", text="!hang"), timeout=60) for _ in range(64)]
        eventually(lambda: s.tell("live") == "64", "the queue is full")
        error = fails(CODE.RESOURCE_EXHAUSTED, lambda: client.call("Complete", M("GenerateRequest", text="x")), "queue")
        assert "grpc-retry-pushback-ms" in trailers(error)
        for call in calls:
            call.cancel()
        eventually(lambda: s.tell("live") == "0", "cancelled work ends")


@test
def a_live_request_id_is_refused():
    with Server() as s:
        call = s.client().call("Generate", M("GenerateRequest", text="!hang", request_id="twice"))
        eventually(lambda: s.tell("live") == "1", "the first is live")
        fails(CODE.ALREADY_EXISTS, lambda: s.client().call("Complete", M("GenerateRequest", text="x", request_id="twice")), "request_id")
        call.cancel()


@test
def cancel_and_deadline_end_the_work():
    with Server() as s:
        call = s.client().call("Generate", M("GenerateRequest", text="!slow", sampling=M("Sampling", max_tokens=4000)))
        next(call)
        call.cancel()
        eventually(lambda: s.tell("live") == "0", "cancelled work ends")
        fails(CODE.DEADLINE_EXCEEDED, lambda: s.client().call("Generate", M("GenerateRequest", text="!hang"), timeout=0.3))
        fails(CODE.DEADLINE_EXCEEDED, lambda: s.client().call("Complete", M("GenerateRequest", text="!hang"), timeout=0.3))
        eventually(lambda: s.tell("live") == "0", "late work ends")


@test
def a_killed_client_frees_its_work():
    with Server() as s:
        code = ("import grpc,sys\nc=grpc.insecure_channel('127.0.0.1:%d')\n"
                "r=c.unary_stream('/conclave.v1.Inference/Generate')(bytes([10,5])+b'!hang')\nprint('on',flush=True)\nlist(r)" % s.port)
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        child.stdout.readline()
        eventually(lambda: s.tell("live") == "1", "the request is there")
        child.kill()
        child.communicate()
        eventually(lambda: s.tell("live") == "0", "its work ends")


@test
def a_slow_reader_pauses_its_own_request_and_loses_nothing():
    with Server() as s:
        call = s.client(options=[("grpc.http2.bdp_probe", 0)]).call(
            "Generate", M("GenerateRequest", text="x", sampling=M("Sampling", max_tokens=3000, seed=0, logprobs=50)), timeout=120)
        time.sleep(1.5)
        chunks = list(call)
        assert max(len(c.token_ids) for c in chunks) > 1, "tokens that wait share a chunk"
        assert all(len(c.logprobs) == len(c.token_ids) for c in chunks)
        ids = [i for c in chunks for i in c.token_ids]
        assert ids == [97 + i % 26 for i in range(3000)]


# ------------------------------------------------------------------------------------------------ the other calls
@test
def score_returns_every_prompt_token():
    with Server() as s:
        reply = s.client().call("Score", M("ScoreRequest", text="abcd", top=2, experts=True))
        assert [t.id for t in reply.tokens] == list(b"abcd") and not reply.tokens[0].HasField("logprob")
        assert [t.token for t in reply.tokens] == [b"a", b"b", b"c", b"d"] and all(len(o.token) == 1 for o in reply.tokens[1].top)
        assert reply.tokens[1].logprob == -0.5 and len(reply.tokens[1].top) == 2
        assert [(e.layer, list(e.ids)) for e in reply.tokens[1].experts] == [(0, [0, 1]), (1, [0, 1])]
        assert reply.usage.prompt_tokens == 4 and reply.set_id == SET_ID
        assert len(s.client().call("Score", M("ScoreRequest", token_ids=M("TokenIds", ids=[1] * 4000))).tokens) == 4000


@test
def a_classifier_classifies_and_does_nothing_else():
    with Server(classifier=1, labels=1) as s:
        client = s.client()
        messages = M("Messages", messages=[M("Message", role=2, content="q")])
        for request, n_prompt in ((M("ClassifyRequest", text="abcd", request_id="mine"), 4), (M("ClassifyRequest", messages=messages), 2),
                                  (M("ClassifyRequest", token_ids=M("TokenIds", ids=[5, 257, 6, 257, 257])), 3),
                                  (M("ClassifyRequest", token_ids=M("TokenIds", ids=[257, 257])), 2)):
            reply = client.call("Classify", request)
            assert list(reply.scores) == [0, 1, 2] and list(reply.logprobs) == [-10, -9, -8] and list(reply.labels) == ["bad", "fair", "good"]
            assert reply.usage.prompt_tokens == n_prompt, "padding at the end is no token"
            assert reply.set_id == SET_ID and reply.model_fingerprint == "f" * 64 and reply.request_id and reply.HasField("timings")
        model = client.call("GetModel", M("GetModelRequest"))
        assert model.has_classifier and model.n_classes == 3 and list(model.labels) == ["bad", "fair", "good"]
        for name in ("Generate", "Complete"):
            fails(CODE.UNIMPLEMENTED, lambda: client.call(name, M("GenerateRequest", text="x")), "head")
        fails(CODE.UNIMPLEMENTED, lambda: client.call("Score", M("ScoreRequest", text="x")), "head")
        fails(CODE.INVALID_ARGUMENT, lambda: client.call("Classify", M("ClassifyRequest")), "input")
        fails(CODE.INVALID_ARGUMENT, lambda: client.call("Classify", M("ClassifyRequest", text="x", request_id="a b")), "request_id")
        fails(CODE.NOT_FOUND, lambda: client.call("Classify", M("ClassifyRequest", text="x", set=M("ExpertSet", id="no"))), "set.id")
        fails(CODE.DATA_LOSS, lambda: client.call("Classify", M("ClassifyRequest", text="!fail 13")))
        fails(CODE.DEADLINE_EXCEEDED, lambda: client.call("Classify", M("ClassifyRequest", text="!hang"), timeout=0.3))
        eventually(lambda: s.tell("live") == "0", "late work ends")
    with Server(classifier=1) as s:
        assert not s.client().call("Classify", M("ClassifyRequest", text="abcd")).labels
        assert not s.client().call("GetModel", M("GetModelRequest")).labels


@test
def tokenize_and_detokenize_are_inverse():
    with Server() as s:
        ids = s.client().call("Tokenize", M("TokenizeRequest", text="h\u00e9")).ids
        assert list(ids) == list("h\u00e9".encode())
        assert s.client().call("Detokenize", M("DetokenizeRequest", ids=ids)).text == "h\u00e9"
        messages = M("Messages", messages=[M("Message", role=2, content="q")])
        assert list(s.client().call("Tokenize", M("TokenizeRequest", messages=messages)).ids) == list(b"uq>")
        assert list(s.client().call("Tokenize", M("TokenizeRequest", messages=messages, add_generation_prompt=False)).ids) == list(b"uq")


LONG = "!hold" + "x" * 4091  # with its frame more than what is read at once, and all that a context holds


@test
def a_long_text_holds_nobody_up():
    with Server() as s:
        client = s.client()
        s.tell("hold 1")
        long = [client.method("Tokenize").future(M("TokenizeRequest", text=LONG), timeout=60),
                client.method("Complete").future(M("GenerateRequest", text=LONG, sampling=M("Sampling", max_tokens=1)), timeout=60)]
        eventually(lambda: s.tell("held") == "2", "two threads read")
        # While both read: new streams run to their end, health and the pages answer, short texts are read.
        assert len(list(client.call("Generate", M("GenerateRequest", text="a", sampling=M("Sampling", max_tokens=5))))) >= 1
        assert health(s)("Check").status == 1
        assert list(client.call("Tokenize", M("TokenizeRequest", text="ab")).ids) == [97, 98]
        assert s.get("/livez")[0] == 200
        assert s.tell("held") == "2" and not any(f.done() for f in long)
        s.tell("hold 0")
        assert bytes(long[0].result().ids) == LONG.encode()
        fails(CODE.INVALID_ARGUMENT, long[1].result, "max_context")  # read, then refused by the engine: no room for an answer


@test
def long_texts_that_nobody_waits_for_are_not_read():
    with Server() as s:
        client, text = s.client(), M("TokenizeRequest", text=LONG)
        s.tell("hold 1")
        running = [client.method("Tokenize").future(text, timeout=60) for _ in range(2)]
        eventually(lambda: s.tell("held") == "2", "two threads read")
        fails(CODE.DEADLINE_EXCEEDED, lambda: client.call("Tokenize", text, timeout=0.3))
        cancelled = client.method("Tokenize").future(text, timeout=60)
        running[0].cancel()
        cancelled.cancel()
        eventually(lambda: calls_open(s) == 1, "the calls have ended")
        s.tell("hold 0")
        assert bytes(running[1].result().ids) == LONG.encode()
        assert list(client.call("Tokenize", M("TokenizeRequest", text="ab")).ids) == [97, 98]
        assert s.tell("encoded") == "2", s.tell("encoded")


@test
def too_many_long_texts_are_refused():
    with Server(max_calls=200) as s:
        client, text = s.client(), M("TokenizeRequest", text=LONG)
        s.tell("hold 1")
        reading = [client.method("Tokenize").future(text, timeout=60) for _ in range(2)]
        eventually(lambda: s.tell("held") == "2", "two threads read")
        reading += [client.method("Tokenize").future(text, timeout=60) for _ in range(65)]
        failed = fails(CODE.RESOURCE_EXHAUSTED, lambda: next(f for f in wait_for_one(reading)).result(), "too many long texts")
        assert int(trailers(failed)["grpc-retry-pushback-ms"]) > 0
        assert sum(f.done() for f in reading) == 1
        s.tell("hold 0")
        assert sum(f.exception() is None for f in reading) == 66
        assert s.tell("encoded") == "66"


def wait_for_one(futures):
    eventually(lambda: any(f.done() for f in futures), "one has ended")
    return [f for f in futures if f.done()]


def calls_open(s):
    for line in s.get("/metrics")[1].splitlines():
        if line.startswith("conclave_grpc_calls_open "):
            return int(line.split()[1])
    raise AssertionError("no gauge of open calls")


@test
def the_model_describes_itself():
    with Server() as s:
        m = s.client().call("GetModel", M("GetModelRequest"))
        assert m.name == "fake-model" and m.family == "fake" and list(m.n_experts) == [4, 4] and m.base_set_id == SET_ID
        assert not m.has_classifier and not m.n_classes and m.n_ffn_experts == 2 and m.attention == "softmax"
        assert m.max_context == 4096 and list(m.eos_token_ids) == [256] and m.has_tokenizer and m.chat_template == "fake" and m.version


@test
def admin_shows_the_cluster():
    with Server() as s:
        admin = s.client().of("conclave.v1.Admin")
        cluster = admin.call("GetCluster", M("GetClusterRequest"))
        assert cluster.nodes[0].id == 'node "one"' and cluster.nodes[0].rows == 11 and cluster.ready and cluster.coordinators[0].controller
        experts = admin.call("ListExperts", M("ListExpertsRequest", layer=1))
        assert [(e.layer, e.expert_id) for e in experts.experts] == [(1, i) for i in range(4)] and experts.epoch == 3
        assert experts.experts[2].replicas[0].node_id == 'node "one"' and experts.experts[2].replicas[0].ready
        assert [e.kind for e in experts.experts] == [1, 1, 2, 4], "two FFNs, a constant and a zero expert"
        assert len(admin.call("ListExperts", M("ListExpertsRequest")).experts) == 8
        stats = admin.call("GetExpertStats", M("GetExpertStatsRequest"))
        assert stats.tokens == 7 and [e.rows for e in stats.experts] == [i * 10 for i in range(8)]
        assert [e.gate_mass for e in stats.experts] == [i * 2.5 for i in range(8)] and [e.rate for e in stats.experts] == [i / 2 for i in range(8)]
        assert all(e.in_default and not e.pack for e in stats.experts)
        assert [e.kind for e in stats.experts] == [1, 1, 2, 4] * 2 and (stats.attention_keys_seen, stats.attention_keys_skipped) == (12, 34)
        layer = stats.layers[1]
        assert len(stats.layers) == 2 and layer.layer == 1 and list(layer.rows_by_ffn_picks) == [3, 4, 5]
        assert (layer.ffn_picks, layer.constant_picks, layer.copy_picks, layer.zero_picks) == (90, 60, 0, 70)
        assert layer.bytes_not_sent == (60 + 70 + 3) * 8 * 4, "a result per pick that is no FFN, and the rows without an FFN"
        one = admin.call("GetExpertStats", M("GetExpertStatsRequest", layer=1))
        assert list(one.layers) == [layer] and len(one.experts) == 4
        fails(CODE.INVALID_ARGUMENT, lambda: admin.call("ListExperts", M("ListExpertsRequest", layer=2)), "layer")
        fails(CODE.INVALID_ARGUMENT, lambda: admin.call("GetExpertStats", M("GetExpertStatsRequest", layer=2)), "layer")
        fails(CODE.NOT_FOUND, lambda: admin.call("ListExperts", M("ListExpertsRequest", set_id="b")), "set_id")


@test
def the_policy_is_read_and_changed_part_by_part():
    with Server() as s:
        admin = s.client().of("conclave.v1.Admin")

        def ask(**fields):
            policy = admin.call("SetPolicy", M("SetPolicyRequest", **fields)).policy
            return policy.replication, policy.min_nodes

        assert ask() == (1, 1)
        assert ask(replication=2) == (2, 1)
        assert ask(min_nodes=3) == (2, 3)
        assert ask(replication=1, min_nodes=5) == (1, 5)
        policy = admin.call("GetCluster", M("GetClusterRequest")).policy
        assert (policy.replication, policy.min_nodes) == (1, 5)
        fails(CODE.INVALID_ARGUMENT, lambda: ask(replication=0), "replication")
        fails(CODE.INVALID_ARGUMENT, lambda: ask(replication=2, min_nodes=0), "min_nodes")
        fails(CODE.INVALID_ARGUMENT, lambda: ask(min_nodes=257), "min_nodes")
        assert ask() == (1, 5)


def change(admin, name, /, **fields):
    """The result of a change that succeeds."""
    told = list(admin.call(name, M(name + "Request", **fields)))
    assert told[-1].result.number and told[-1].phase == "done" and not any(t.result.number for t in told[:-1])
    return told[-1].result


def lists(of):
    return {l.layer: list(l.ids) for l in of}


def experts(**layers):
    return [M("ExpertList", layer=int(layer[1:]), ids=ids) for layer, ids in layers.items()]


def answer(client, text="ab", **fields):
    return client.call("Complete", M("GenerateRequest", text=text, sampling=M("Sampling", max_tokens=3, seed=1), **fields))


@test
def the_default_set_is_pruned_restored_and_rolled_back():
    with Server() as s:
        client = s.client()
        admin = client.of("conclave.v1.Admin")
        plan = change(admin, "PruneExperts", experts=experts(l0=[1], l1=[3, 0]), options=M("ChangeOptions", dry_run=True))
        assert plan.dry_run and plan.set_before == SET_ID and lists(plan.removed) == {0: [1], 1: [0, 3]} and not plan.added
        assert answer(client).set_id == SET_ID, "a dry run changes nothing"
        done = change(admin, "PruneExperts", experts=experts(l0=[1], l1=[3, 0]), options=M("ChangeOptions", who="ann", why="too\nslow"))
        assert (done.set_after, done.what, done.name) == (plan.set_after, "prune 3 experts", "") and done.number == 1
        assert answer(client).set_id == done.set_after
        assert list(client.call("GetModel", M("GetModelRequest")).n_experts) == [3, 2]
        assert [(e.layer, e.expert_id) for e in admin.call("ListExperts", M("ListExpertsRequest")).experts] == [(0, 0), (0, 2), (0, 3), (1, 1), (1, 2)]
        assert len(admin.call("ListExperts", M("ListExpertsRequest", set_id="base")).experts) == 8
        stats = admin.call("GetExpertStats", M("GetExpertStatsRequest")).experts
        assert [e.in_default for e in stats] == [True, False, True, True, False, True, True, False]
        assert answer(client, set=M("ExpertSet", id="base")).set_id == SET_ID and answer(client, set=M("ExpertSet", id=SET_ID)).set_id == SET_ID
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", experts=experts(l1=[1])), "layer 1 has 1 experts, at least 2")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", experts=experts(l0=[1])), "not in the set")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", experts=experts(l0=[9])), "layer 0 has no expert 9")
        assert lists(change(admin, "RestoreExperts", experts=experts(l1=[3])).added) == {1: [3]}
        assert change(admin, "RestoreExperts").set_after == SET_ID
        fails(CODE.ALREADY_EXISTS, lambda: change(admin, "RestoreExperts"), "nothing would change")
        change(admin, "Rollback")
        assert change(admin, "Rollback").set_after == done.set_after
        log = admin.call("GetSetLog", M("GetSetLogRequest")).entries
        assert [e.what for e in log] == ["prune 3 experts", "restore 1 experts", "restore all experts", "rollback", "rollback"]
        assert log[0].who == "ann" and log[0].why == "too slow" and log[1].who.startswith("ipv4:") and not any(e.undone for e in log)
        assert [e.number for e in admin.call("GetSetLog", M("GetSetLogRequest", limit=2)).entries] == [e.number for e in log[-2:]]


@test
def usage_says_what_can_go():
    with Server() as s:  # rows of the fake: 0, 10, 20, 30 in layer 0; 40 to 70 in layer 1; ids 2 and 3 are the coordinator's
        admin = s.client().of("conclave.v1.Admin")
        dry = M("ChangeOptions", dry_run=True)
        assert lists(change(admin, "PruneExperts", below=0.2, options=dry).removed) == {0: [0, 1], 1: [0]}
        assert lists(change(admin, "PruneExperts", below=0.2, keep_at_least=3, options=dry).removed) == {0: [0], 1: [0]}
        savings = change(admin, "PruneExperts", below=0.2, options=dry).savings
        assert [n.node_id for n in savings] == ['node "one"']
        assert lists(change(admin, "PruneExperts", below=0.2, over_s=3600, options=dry).removed)[0] == [0, 1]
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", below=0.2, over_s=3601), "the longest window that is kept is 3600 s")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", over_s=60, experts=experts(l0=[0])), "over_s")
        fails(CODE.NOT_FOUND, lambda: change(admin, "PruneExperts", below=1e-9, keep_at_least=4), "no expert that may go")
        fails(CODE.NOT_FOUND, lambda: change(admin, "PruneExperts", below=0.2, pack="german"), "german")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts"), "below: 0")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", below=1.5), "below: 1.5")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "PruneExperts", below=0.5, experts=experts(l0=[0])), "below")


@test
def sets_have_names_and_requests_say_them():
    with Server() as s:
        client = s.client()
        admin = client.of("conclave.v1.Admin")
        few = change(admin, "DefineSet", name="few", experts=experts(l0=[0, 1]))
        assert few.name == "few" and not few.set_before and lists(few.added) == {0: [0, 1], 1: [0, 1, 2, 3]}
        assert answer(client).set_id == SET_ID and answer(client, set=M("ExpertSet", id="few")).set_id == few.set_after
        score = client.call("Score", M("ScoreRequest", text="ab", set=M("ExpertSet", id=few.set_after)))
        assert score.set_id == few.set_after
        sets = admin.call("ListSets", M("ListSetsRequest")).sets
        assert [(list(i.names), i.is_default, i.size) for i in sets] == [([], True, 8), (["few"], False, 6)]
        one = admin.call("ListSets", M("ListSetsRequest", set="few", experts=True)).sets[0]
        assert lists(one.experts) == {0: [0, 1], 1: [0, 1, 2, 3]}
        assert change(admin, "UseSet", set="few").set_after == few.set_after and answer(client).set_id == few.set_after
        diff = admin.call("DiffSets", M("DiffSetsRequest", a="base", b="default"))
        assert (diff.set_a, diff.set_b) == (SET_ID, few.set_after) and lists(diff.only_a) == {0: [2, 3]} and not diff.only_b
        gone = change(admin, "ForgetSet", name="few")
        assert gone.set_before == few.set_after and not gone.set_after and gone.name == "few"
        fails(CODE.NOT_FOUND, lambda: answer(client, set=M("ExpertSet", id="few")), "set.id")
        fails(CODE.NOT_FOUND, lambda: change(admin, "ForgetSet", name="few"), "few")
        fails(CODE.NOT_FOUND, lambda: change(admin, "UseSet", set="few"), "few")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "DefineSet", name="base"), "name")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "DefineSet"), "name")
        fails(CODE.NOT_FOUND, lambda: change(admin, "DefineSet", name="x", include=["german"]), "german")
        fails(CODE.NOT_FOUND, lambda: answer(client, set=M("ExpertSet", include=["german"])), "set.include")
        fails(CODE.NOT_FOUND, lambda: answer(client, set=M("ExpertSet", exclude=["german"])), "set.exclude")
        fails(CODE.INVALID_ARGUMENT, lambda: answer(client, set=M("ExpertSet", id="base", exclude=["german"])), "set")
        fails(CODE.INVALID_ARGUMENT, lambda: answer(client, set=M("ExpertSet", include=["x"] * 65)), "65 packs")
        fails(CODE.INVALID_ARGUMENT, lambda: answer(client, set=M("ExpertSet", exclude=["base"])), "layer 0 has 0 experts")
        fails(CODE.NOT_FOUND, lambda: admin.call("DiffSets", M("DiffSetsRequest", a="base", b="few")), "few")


@test
def a_set_lives_while_a_request_runs_with_it():
    with Server() as s:
        client = s.client()
        admin = client.of("conclave.v1.Admin")
        few = change(admin, "DefineSet", name="few", experts=experts(l0=[0, 1])).set_after
        running = client.call("Generate", M("GenerateRequest", text="!slow", set=M("ExpertSet", id="few"), sampling=M("Sampling", max_tokens=1000)))
        assert next(running).set_id == few
        change(admin, "ForgetSet", name="few")
        fails(CODE.NOT_FOUND, lambda: answer(client, set=M("ExpertSet", id="few")))
        choices = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3], [0, 1, 2], [1, 2, 3]]
        names = ["s%d" % i for i in range(63)]
        for at in range(0, 63, 9):  # changes wait for each other; at most 16
            calls = [admin.call("DefineSet", M("DefineSetRequest", name=n, experts=experts(l0=choices[int(n[1:]) // 8], l1=choices[int(n[1:]) % 8])))
                     for n in names[at:at + 9]]
            assert all(list(c)[-1].result.set_after for c in calls)
        fails(CODE.RESOURCE_EXHAUSTED, lambda: change(admin, "DefineSet", name="more"), "the limit is 64")
        change(admin, "UseSet", set="s0")
        fails(CODE.RESOURCE_EXHAUSTED, lambda: answer(client, set=M("ExpertSet", id="base")), "64 sets live")
        assert answer(client, set=M("ExpertSet", id=few)).set_id == few, "it lives, so that it can be asked for by its id"
        running.cancel()

        def is_free():
            try:
                return answer(client, set=M("ExpertSet", id="base")).set_id == SET_ID
            except grpc.RpcError:
                return False

        eventually(is_free, "the set of a request that has ended makes room")


@test
def changes_can_be_refused_whole():
    with Server(no_changes="not here") as s:
        admin = s.client().of("conclave.v1.Admin")
        fails(CODE.UNIMPLEMENTED, lambda: change(admin, "RestoreExperts"), "not here")
        assert len(admin.call("ListSets", M("ListSetsRequest")).sets) == 1
        assert not admin.call("ListPacks", M("ListPacksRequest")).packs
    with Server() as s:
        admin = s.client().of("conclave.v1.Admin")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "AddPack"), "pack")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "UpdatePack", pack="x"), "to")
        fails(CODE.NOT_FOUND, lambda: change(admin, "RemovePack", pack="german"), "german")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "Rollback", options=M("ChangeOptions", why="y" * 256)), "why")
        fails(CODE.INVALID_ARGUMENT, lambda: change(admin, "Rollback", options=M("ChangeOptions", timeout_ms=86400001)), "timeout_ms")
        fails(CODE.NOT_FOUND, lambda: change(admin, "Rollback"), "former")


@test
def a_token_that_is_bound_to_sets_has_no_others():
    with Folder() as folder:
        path = os.path.join(folder, "tokens")
        open(path, "w").write("master\nguest sets=few,later\nplain sets=base\n")
        with Server(token_file=path) as s:
            master, guest, plain = (s.client().with_token(t) for t in ("master", "guest", "plain"))
            admin = master.of("conclave.v1.Admin")
            few = change(admin, "DefineSet", name="few", experts=experts(l0=[0, 1])).set_after
            change(admin, "DefineSet", name="more", experts=experts(l0=[0, 1, 2]))
            assert answer(guest, set=M("ExpertSet", id="few")).set_id == few and answer(guest, set=M("ExpertSet", id=few)).set_id == few
            for denied in (None, M("ExpertSet"), M("ExpertSet", id="more"), M("ExpertSet", id="default"), M("ExpertSet", id=SET_ID),
                           M("ExpertSet", id="later"), M("ExpertSet", id="nobody"), M("ExpertSet", include=["base"]), M("ExpertSet", exclude=["x"])):
                fails(CODE.PERMISSION_DENIED, lambda: answer(guest, set=denied), "bound to other sets")
            fails(CODE.PERMISSION_DENIED, lambda: guest.call("Score", M("ScoreRequest", text="a")), "bound to other sets")
            assert answer(plain).set_id == SET_ID, "the default set is the base"
            change(admin, "UseSet", set="few")
            assert answer(guest).set_id == few, "now the default set is one of the guest's"
            fails(CODE.PERMISSION_DENIED, lambda: answer(plain), "bound to other sets")
            assert answer(plain, set=M("ExpertSet", id="base")).set_id == SET_ID
            for name, fields in (("ListSets", {}), ("GetCluster", {}), ("UseSet", {"set": "base"})):
                fails(CODE.PERMISSION_DENIED, lambda: guest.of("conclave.v1.Admin").call(name, M(name + "Request", **fields)), "bound to sets")
            assert guest.call("GetModel", M("GetModelRequest")).name == "fake-model"


@test
def admin_may_have_a_listener_of_its_own():
    with Server(services=2) as s:
        client = s.client()
        client.of("conclave.v1.Admin").call("GetCluster", M("GetClusterRequest"))
        fails(CODE.UNIMPLEMENTED, lambda: client.call("GetModel", M("GetModelRequest")))
        fails(CODE.NOT_FOUND, lambda: health(s)("Check", "conclave.v1.Inference"))
        s.tell("ready 0")
        assert health(s)("Check").status == 1
    with Server(services=1) as s:
        fails(CODE.UNIMPLEMENTED, lambda: s.client().of("conclave.v1.Admin").call("GetCluster", M("GetClusterRequest")))


@test
def watching_the_cluster_tells_every_change():
    with Server() as s:
        watch = s.client().of("conclave.v1.Admin").call("WatchCluster", M("GetClusterRequest"))
        assert next(watch).nodes[0].state == 2
        s.tell("node 3")
        assert next(watch).nodes[0].state == 3
        s.tell("ready 0")
        assert not next(watch).ready
        watch.cancel()


# ------------------------------------------------------------------------------------------------ refusals
def sampling(**fields):
    return M("GenerateRequest", text="secret", sampling=M("Sampling", **fields))


@test
def every_field_out_of_range_is_named():
    nan = float("nan")
    ids = lambda *i: M("TokenIds", ids=i)
    cases = [("temperature", sampling(temperature=-1)), ("temperature", sampling(temperature=101)), ("temperature", sampling(temperature=nan)),
             ("top_p", sampling(top_p=0)), ("top_p", sampling(top_p=1.5)), ("top_p", sampling(top_p=nan)), ("min_p", sampling(min_p=-0.1)),
             ("repetition_penalty", sampling(repetition_penalty=0)), ("frequency_penalty", sampling(frequency_penalty=1000)),
             ("presence_penalty", sampling(presence_penalty=-float("inf"))), ("top_k", sampling(top_k=2**31)), ("sampling.n", sampling(n=0)),
             ("sampling.n", sampling(n=17)), ("logprobs", sampling(logprobs=51)), ("stop[1]", sampling(stop=["a", ""])),
             ("stop[0]", sampling(stop=["x" * 257])), ("sampling.stop", sampling(stop=["x"] * 17)),
             ("stop_token_ids[0]", sampling(stop_token_ids=[300])), ("stop_token_ids", sampling(stop_token_ids=[1] * 65)),
             ("min_tokens", sampling(min_tokens=5, max_tokens=4)), ("max_tokens", sampling(max_tokens=4096)),
             ("input", M("GenerateRequest")), ("empty", M("GenerateRequest", text="")), ("empty", M("GenerateRequest", token_ids=ids())),
             ("token_ids[1]", M("GenerateRequest", token_ids=ids(1, -1))), ("token_ids[0]", M("GenerateRequest", token_ids=ids(300))),
             ("token_ids", M("GenerateRequest", token_ids=ids(*[1] * 4097))), ("text", M("GenerateRequest", text="x" * 4097)),
             ("request_id", M("GenerateRequest", text="x", request_id="a b")), ("request_id", M("GenerateRequest", text="x", request_id="")),
             ("request_id", M("GenerateRequest", text="x", request_id="a" * 129)),
             ("messages[0].role", M("GenerateRequest", messages=M("Messages", messages=[M("Message", role=9)]))),
             ("messages", M("GenerateRequest", messages=M("Messages"))),
             ("sampling.n", M("GenerateRequest", text="x", resume_from=ids(1), sampling=M("Sampling", n=2, seed=1))),
             ("seed", M("GenerateRequest", text="x", resume_from=ids(1))), ("NUL", M("GenerateRequest", text="a\0b"))]
    with Server() as s:
        client = s.client()
        for text, request in cases:
            for name in ("Generate", "Complete"):
                error = fails(CODE.INVALID_ARGUMENT, lambda: client.call(name, request), text)
                assert "secret" not in error.details()
        fails(CODE.INVALID_ARGUMENT, lambda: client.call("Score", M("ScoreRequest", text="x", top=51)), "top")
        fails(CODE.INVALID_ARGUMENT, lambda: client.call("Tokenize", M("TokenizeRequest")), "input")
        fails(CODE.INVALID_ARGUMENT, lambda: client.call("Detokenize", M("DetokenizeRequest", ids=[-5])), "ids[0]")
        fails(CODE.NOT_FOUND, lambda: client.call("Complete", M("GenerateRequest", text="x", set=M("ExpertSet", id="nope"))), "set.id")
        fails(CODE.NOT_FOUND, lambda: client.call("Complete", M("GenerateRequest", text="x", set=M("ExpertSet", include=["p"]))), "set.include")
        fails(CODE.UNIMPLEMENTED, lambda: client.call("Classify", M("ClassifyRequest", text="x")), "head")
        client.call("Complete", M("GenerateRequest", text="x", set=M("ExpertSet", id=SET_ID)))


@test
def without_tokenizer_only_token_ids_are_served():
    with Server(no_tokenizer=1) as s:
        client = s.client()
        fails(CODE.INVALID_ARGUMENT, lambda: client.call("Complete", M("GenerateRequest", text="x")), "tokenizer")
        fails(CODE.UNIMPLEMENTED, lambda: client.call("Tokenize", M("TokenizeRequest", text="x")))
        assert not client.call("GetModel", M("GetModelRequest")).has_tokenizer
    with Server(no_chat=1) as s:
        messages = M("Messages", messages=[M("Message", role=2, content="q")])
        fails(CODE.INVALID_ARGUMENT, lambda: s.client().call("Complete", M("GenerateRequest", messages=messages)), "chat template")


@test
def unknown_methods_are_unimplemented():
    with Server() as s:
        channel = s.channel()
        for path in ("/conclave.v1.Inference/Nope", "/nope", "/conclave.v1.Inference/Generate/x"):
            fails(CODE.UNIMPLEMENTED, lambda: channel.unary_unary(path)(b"", timeout=30))


def malformed_messages():
    deep = b""
    for _ in range(10000):
        deep = b"\x22" + varint(len(deep)) + deep
    return [b"\xff", b"\x0a", b"\x0a\x05ab", b"\x08", b"\x0f", b"\x0b\x0c", b"\x00", deep, b"\x0a\x02\xff\xfe", b"\x0a\xff\xff\xff\xff\x7f",
            b"\x22\x02\x1d\x00", b"\x22\x05\x1d\x00\x00", b"\x80" * 11, b"\x12\x03\x0a\x02\x80\x80", b"\x0a\x01\x00" + b"\x52" * 7]


def varint(n):
    out = b""
    while True:
        out += bytes([n & 0x7f | (0x80 if n > 0x7f else 0)])
        n >>= 7
        if n == 0:
            return out


@test
def malformed_messages_are_refused_and_cost_no_memory():
    with Server() as s:
        client = s.client()
        call = client.method("Complete", raw=True)
        bad = malformed_messages()
        for b in bad:
            error = fails(CODE.INVALID_ARGUMENT, lambda: call(b, timeout=30))
        rounds = 10000 if not ARGS.quick else 600

        def storm(n):
            for i in range(0, n, 50):
                futures = [call.future(bad[(i + k) % len(bad)], timeout=60) for k in range(50)]
                for f in futures:
                    assert f.code() == CODE.INVALID_ARGUMENT, (f.code(), f.details())

        storm(1000)
        before = s.rss_kb()
        storm(rounds)
        after = s.rss_kb()
        if not ARGS.quick:
            assert after - before < 4096, (before, after)
        client.call("Complete", M("GenerateRequest", text="still here"))


@test
def amplifying_and_oversized_messages_are_refused():
    with Server() as s:
        client = s.client()
        call = client.method("Complete", raw=True)
        stops = b"\x5a\x00" * 20000
        fails(CODE.INVALID_ARGUMENT, lambda: call(b"\x0a\x01x\x22" + varint(len(stops)) + stops, timeout=30), "too many parts")
        ids = b"\x08\x01" * 4000
        reply = call(b"\x12" + varint(len(ids)) + ids + b"\x22\x02\x08\x01", timeout=30)
        assert reply.usage.prompt_tokens == 4000, "unpacked ids are valid"
        fails(CODE.RESOURCE_EXHAUSTED, lambda: call(b"\x0a" + varint(1 << 20) + b"x" * (1 << 20), timeout=30))
        zipped = client.channel.unary_unary("/conclave.v1.Inference/GetModel")
        fails(CODE.UNIMPLEMENTED, lambda: zipped(b"\x0a\x80\x08" + b"x" * 1024, timeout=30, compression=grpc.Compression.Gzip))
        client.call("GetModel", M("GetModelRequest"))


@test
def a_call_without_its_request_is_ended():
    with Server(first_message_ms=300) as s:
        channel = s.channel()
        stream = channel.stream_stream("/conclave.v1.Inference/Generate")
        hold = threading.Event()

        def nothing():
            hold.wait(20)
            return
            yield

        fails(CODE.DEADLINE_EXCEEDED, lambda: stream(nothing(), timeout=30), "request message")
        hold.set()
        fails(CODE.INVALID_ARGUMENT, lambda: stream(iter(()), timeout=30), "no request message")


@test
def a_reader_that_never_reads_is_cut_off():
    with Server(send_timeout_ms=500) as s:
        call = s.client(options=[("grpc.http2.bdp_probe", 0)]).call(
            "Generate", M("GenerateRequest", text="x", sampling=M("Sampling", max_tokens=4000, n=16, logprobs=50)), timeout=120)
        eventually(lambda: s.tell("live") == "1", "the request is there")
        eventually(lambda: s.tell("live") == "0", "its work ends", 60)
        eventually(lambda: 'Inference/Generate",code="RESOURCE_EXHAUSTED"} 1' in s.get("/metrics")[1], "it is counted")
        call.cancel()


@test
def open_calls_are_bounded():
    with Server(max_calls=4) as s:
        calls = [s.client().call("Generate", M("GenerateRequest", text="!hang"), timeout=60) for _ in range(4)]
        eventually(lambda: s.tell("live") == "4", "four are open")
        error = fails(CODE.RESOURCE_EXHAUSTED, lambda: s.client().call("GetModel", M("GetModelRequest")), "too many calls")
        assert "grpc-retry-pushback-ms" in trailers(error)
        for call in calls:
            call.cancel()


# ------------------------------------------------------------------------------------------------ health and reflection
def health(s, channel=None):
    client = Client(channel or s.channel(), "grpc.health.v1.Health")
    request = message("grpc.health.v1.HealthCheckRequest")
    return lambda name, service="", timeout=30: client.call(name, request(service=service), timeout=timeout)


@test
def health_follows_readiness():
    with Server() as s:
        call = health(s)
        assert call("Check").status == 1 and call("Check", "conclave.v1.Inference").status == 1
        fails(CODE.NOT_FOUND, lambda: call("Check", "nope"))
        watch, unknown = call("Watch"), call("Watch", "nope")
        assert next(watch).status == 1 and next(unknown).status == 3
        s.tell("ready 0")
        assert next(watch).status == 2 and call("Check").status == 2 and call("Check", "conclave.v1.Admin").status == 1
        s.tell("ready 1")
        assert next(watch).status == 1
        watch.cancel()
        unknown.cancel()


@test
def what_is_not_ready_refuses_work_at_once_and_says_why():
    with Server() as s:
        client = s.client()
        s.tell("ready 0")
        for method, request in (("Generate", "GenerateRequest"), ("Complete", "GenerateRequest"), ("Score", "ScoreRequest"),
                                ("Classify", "ClassifyRequest")):
            error = fails(CODE.UNAVAILABLE, lambda: list(client.call(method, M(request, text="x"))) if method == "Generate" else
                          client.call(method, M(request, text="x")), "no live owner: layer 1 expert 2")
            assert trailers(error)["grpc-retry-pushback-ms"] == "1000"
        assert s.get("/readyz") == (503, "no live owner: layer 1 expert 2\n") and s.get("/livez")[0] == 200
        assert not client.of("conclave.v1.Admin").call("GetCluster", M("GetClusterRequest")).ready
        assert client.call("Tokenize", M("TokenizeRequest", text="ab")).ids == [97, 98]
        assert client.call("GetModel", M("GetModelRequest")).vocab_size == 300
        s.tell("ready 1")
        client.call("Complete", M("GenerateRequest", text="x"))
        assert s.get("/readyz") == (200, "ok\n")


@test
def before_there_is_an_engine_it_listens_and_says_how_far_it_is():
    with Server(unattached=1) as s:
        client, call = s.client(), health(s)
        assert s.get("/readyz") == (503, "the server is starting\n") and s.get("/livez") == (200, "ok\n")
        s.tell("load 43")
        watch = call("Watch")
        assert next(watch).status == 2 and call("Check").status == 2 and call("Check", "conclave.v1.Admin").status == 2
        for service, method, request in (("Inference", "Complete", "GenerateRequest"), ("Inference", "GetModel", "GetModelRequest"),
                                         ("Inference", "Tokenize", "TokenizeRequest"), ("Admin", "GetCluster", "GetClusterRequest"),
                                         ("Admin", "ListExperts", "ListExpertsRequest")):
            error = fails(CODE.UNAVAILABLE, lambda: client.of("conclave.v1." + service).call(method, M(request)), "loading the weights, 43 %")
            assert trailers(error)["grpc-retry-pushback-ms"] == "1000"
        fails(CODE.UNAVAILABLE, lambda: next(client.of("conclave.v1.Admin").call("WatchCluster", M("GetClusterRequest"))), "43 %")
        fails(CODE.UNIMPLEMENTED, lambda: s.channel().unary_unary("/x/y")(b"", timeout=30))
        assert s.get("/readyz") == (503, "the server is starting: loading the weights, 43 %\n") and s.get("/livez")[0] == 200
        assert "conclave_ready 0" in s.get("/metrics")[1]
        s.tell("attach")
        client.call("Complete", M("GenerateRequest", text="x"))
        assert call("Check").status == 1 and next(watch).status == 1 and s.get("/readyz") == (200, "ok\n")
        assert "conclave_ready 1" in s.get("/metrics")[1]
        watch.cancel()


@test
def a_port_that_is_taken_is_named_with_its_option():
    with Server() as s:
        other = Server(listen="127.0.0.1:%d" % s.port)
        with other:
            assert other.refusal and ("listen 127.0.0.1:%d: cannot be bound" % s.port) in other.refusal, other.refusal


@test
def reflection_serves_both_versions():
    for version in ("v1", "v1alpha"):
        with Server() as s:
            client = Client(s.channel(), "grpc.reflection.%s.ServerReflection" % version)
            request = message("grpc.reflection.%s.ServerReflectionRequest" % version)
            asked = [request(list_services=""), request(file_containing_symbol="conclave.v1.Inference"),
                     request(file_containing_symbol="conclave.v1.Sampling.top_p"), request(file_by_filename="grpc/health/v1/health.proto"),
                     request(file_containing_symbol="conclave.v1.Nope"), request(file_by_filename="nope.proto"),
                     request(all_extension_numbers_of_type="conclave.v1.Usage"), request(), request(file_containing_symbol="conclave.v1.Admin.GetCluster"),
                     request(file_containing_symbol="grpc.health.v1.HealthCheckResponse.SERVING")]
            replies = list(client.call("ServerReflectionInfo", iter(asked)))
            assert len(replies) == len(asked)
            names = {x.name for x in replies[0].list_services_response.service}
            assert {"conclave.v1.Inference", "conclave.v1.Admin", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= names
            pool = descriptor_pool.DescriptorPool()
            for data in replies[1].file_descriptor_response.file_descriptor_proto:
                pool.Add(descriptor_pb2.FileDescriptorProto.FromString(data))
            assert pool.FindServiceByName("conclave.v1.Inference").FindMethodByName("Generate").output_type.name == "GenerateResponse"
            assert pool.FindMessageTypeByName("conclave.v1.Sampling").fields_by_name["top_p"].containing_oneof is not None
            for i in (2, 3, 8, 9):
                assert len(replies[i].file_descriptor_response.file_descriptor_proto) == 1, i
            assert [replies[i].error_response.error_code for i in (4, 5)] == [5, 5] and replies[7].error_response.error_code == 3
            assert replies[6].all_extension_numbers_response.base_type_name == "conclave.v1.Usage"
            assert replies[1].original_request.file_containing_symbol == "conclave.v1.Inference"


# ------------------------------------------------------------------------------------------------ drain
@test
def a_drain_lets_running_work_end_and_refuses_new():
    with Server() as s:
        client = s.client()
        running = client.call("Generate", M("GenerateRequest", text="!slow", sampling=M("Sampling", max_tokens=20)), timeout=60)
        first = next(running)
        watch = health(s)("Watch")
        assert next(watch).status == 1
        cluster = client.of("conclave.v1.Admin").call("WatchCluster", M("GetClusterRequest"))
        next(cluster)
        s.tell("drain")
        error = fails(CODE.UNAVAILABLE, lambda: client.call("Complete", M("GenerateRequest", text="x")), "draining")
        assert "grpc-retry-pushback-ms" in trailers(error)
        assert next(watch).status == 2
        fails(CODE.UNAVAILABLE, lambda: watch)
        fails(CODE.UNAVAILABLE, lambda: cluster)
        assert s.get("/readyz")[0] == 503 and s.get("/livez")[0] == 200
        s.process.stdin.write("close 20000\n")
        s.process.stdin.flush()
        ids = list(first.token_ids) + [i for c in running for i in c.token_ids]
        assert len(ids) == 20
        assert s.process.stdout.readline() == "CLOSED\n"


@test
def a_close_ends_what_outlives_the_grace():
    with Server() as s:
        client = s.client()
        silent = client.call("Generate", M("GenerateRequest", text="!hang"), timeout=60)
        score = client.method("Score").future(M("ScoreRequest", text="!hang"), timeout=60)
        running = client.call("Generate", M("GenerateRequest", text="!slow", sampling=M("Sampling", max_tokens=4000)), timeout=60)
        first = next(running)
        eventually(lambda: s.tell("live") == "3", "the requests are there")
        s.process.stdin.write("close 300\n")
        s.process.stdin.flush()
        got = list(first.token_ids)
        error = fails(CODE.UNAVAILABLE, lambda: got.extend(i for c in running for i in c.token_ids), "shutting down")
        assert int(trailers(error)["tokens_emitted"]) == len(got) and int(trailers(error)["grpc-retry-pushback-ms"]) > 0
        for call in (silent, score.result):
            error = fails(CODE.UNAVAILABLE, lambda: call() if callable(call) else call, "shutting down")
            assert "tokens_emitted" not in trailers(error)
        assert s.process.stdout.readline() == "CLOSED\n"


@test
def a_close_waits_for_no_client_that_stopped_reading():
    with Server() as s:
        call = s.client(options=[("grpc.http2.bdp_probe", 0)]).call(
            "Generate", M("GenerateRequest", text="x", sampling=M("Sampling", max_tokens=4000, n=16, logprobs=50)), timeout=120)
        eventually(lambda: s.tell("live") == "1", "the request is there")
        time.sleep(0.5)
        s.process.stdin.write("close 0\n")
        s.process.stdin.flush()
        assert s.process.stdout.readline() == "CLOSED\n"
        call.cancel()


# ------------------------------------------------------------------------------------------------ TLS and tokens
def openssl(*words):
    subprocess.run(("openssl",) + words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_ca(folder, name):
    key, cert = os.path.join(folder, name + ".key"), os.path.join(folder, name + ".pem")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
            "-subj", "/CN=" + name)
    return key, cert


def make_cert(folder, name, ca):
    key, cert, csr, ext = (os.path.join(folder, name + end) for end in (".key", ".pem", ".csr", ".ext"))
    open(ext, "w").write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", csr, "-subj", "/CN=" + name)
    openssl("x509", "-req", "-in", csr, "-CA", ca[1], "-CAkey", ca[0], "-CAcreateserial", "-days", "2", "-extfile", ext, "-out", cert)
    return key, cert


def read(path):
    return open(path, "rb").read()


class Folder:
    def __enter__(self):
        self.path = tempfile.mkdtemp()
        return self.path

    def __exit__(self, *exc):
        shutil.rmtree(self.path)


@test
def tls_serves_and_takes_up_new_certificates():
    with Folder() as folder:
        ca = make_ca(folder, "ca")
        key, cert = make_cert(folder, "server", ca)
        trust = grpc.ssl_channel_credentials(read(ca[1]))
        with Server(tls_cert=cert, tls_key=key) as s:
            model = lambda credentials: s.client(credentials).call("GetModel", M("GetModelRequest"), timeout=20)
            model(trust)
            fails(CODE.UNAVAILABLE, lambda: s.client().call("GetModel", M("GetModelRequest"), timeout=5))
            new_ca = make_ca(folder, "ca2")
            new_key, new_cert = make_cert(folder, "server2", new_ca)
            new_trust = grpc.ssl_channel_credentials(read(new_ca[1]))
            os.replace(new_cert, cert)  # half a change: the key is still the old one
            model(trust)
            os.replace(new_key, key)
            model(new_trust)
            fails(CODE.UNAVAILABLE, lambda: s.client(trust).call("GetModel", M("GetModelRequest"), timeout=3))
            open(cert, "w").write("garbage")
            model(new_trust)


@test
def mutual_tls_wants_a_certificate_of_the_authority():
    with Folder() as folder:
        ca, other = make_ca(folder, "ca"), make_ca(folder, "other")
        key, cert = make_cert(folder, "server", ca)
        good, bad = make_cert(folder, "client", ca), make_cert(folder, "stranger", other)
        with Server(tls_cert=cert, tls_key=key, tls_ca=ca[1]) as s:
            call = lambda c: s.client(c).call("GetModel", M("GetModelRequest"), timeout=5)
            call(grpc.ssl_channel_credentials(read(ca[1]), read(good[0]), read(good[1])))
            fails(CODE.UNAVAILABLE, lambda: call(grpc.ssl_channel_credentials(read(ca[1]))))
            fails(CODE.UNAVAILABLE, lambda: call(grpc.ssl_channel_credentials(read(ca[1]), read(bad[0]), read(bad[1]))))


@test
def tokens_are_wanted_and_reloaded():
    with Folder() as folder:
        path = os.path.join(folder, "tokens")
        open(path, "w").write("# two\nfirst-token\nsecond-token\n")
        with Server(token_file=path) as s:
            client = s.client()
            model = lambda c: c.call("GetModel", M("GetModelRequest"))
            fails(CODE.UNAUTHENTICATED, lambda: model(client))
            for wrong in ("", "first-toke", "first-tokenx", "second", "# two", "x" * 5000):
                fails(CODE.UNAUTHENTICATED, lambda: model(client.with_token(wrong)))
            model(client.with_token("first-token"))
            model(client.with_token("second-token"))
            fails(CODE.UNAUTHENTICATED, lambda: client.channel.unary_unary("/x/y")(b"", timeout=30))
            reflection = message("grpc.reflection.v1.ServerReflectionRequest")
            fails(CODE.UNAUTHENTICATED, lambda: Client(client.channel, "grpc.reflection.v1.ServerReflection").call(
                "ServerReflectionInfo", iter([reflection(list_services="")])))
            assert health(s)("Check").status == 1
            open(path, "w").write("third-token\n")

            def taken_up():
                try:
                    model(client.with_token("third-token"))
                    return True
                except grpc.RpcError:
                    return False

            eventually(taken_up, "the new token is taken up")
            fails(CODE.UNAUTHENTICATED, lambda: model(client.with_token("first-token")))
            open(path, "w").write("\n")
            time.sleep(1.5)
            model(client.with_token("third-token"))


@test
def exposed_listeners_without_protection_are_refused():
    with Folder() as folder:
        path = os.path.join(folder, "tokens")
        open(path, "w").write("t\n")
        empty = os.path.join(folder, "empty")
        open(empty, "w").close()
        for flags, text in (({"listen": "0.0.0.0:0"}, "tls-cert"), ({"listen": ":0"}, "tls-cert"), ({"listen": "[::]:0", "token_file": path}, "tls-cert"),
                            ({"tls_cert": path}, "go together"), ({"tls_ca": path}, "tls-ca"), ({"token_file": empty}, "no token"),
                            ({"token_file": os.path.join(folder, "nope")}, "nope"), ({"tls_cert": path, "tls_key": path}, "no PEM"),
                            ({"listen": "127.0.0.1:99999"}, "65535"), ({"listen": "nothing"}, "HOST:PORT"), ({"listen": "::1:0"}, "brackets")):
            with Server(**flags) as s:
                assert s.refusal is not None and text in s.refusal, (flags, s.refusal)
        with Server(listen="0.0.0.0:0", insecure=1) as s:
            s.client().call("GetModel", M("GetModelRequest"))
            with Server(listen="127.0.0.1:%d" % s.port) as second:
                assert second.refusal and "bound" in second.refusal


# ------------------------------------------------------------------------------------------------ HTTP
@test
def http_shows_life_readiness_and_metrics():
    with Server() as s:
        s.client().call("Complete", M("GenerateRequest", text="x"))
        assert s.get("/livez") == (200, "ok\n") and s.get("/readyz") == (200, "ok\n") and s.get("/nope")[0] == 404
        code, text = s.get("/metrics")
        assert code == 200
        for line in ('conclave_build_info{version=', 'conclave_requests_total{event="admitted"} 1',
                     'conclave_grpc_calls_total{method="/conclave.v1.Inference/Complete",code="OK"} 1',
                     'conclave_expert_rows_total{layer="1",expert="3"} 70', 'conclave_dispatch_rows_total{node="node \\"one\\"",transport="loopback"} 11',
                     'conclave_expert_picks_total{layer="1",kind="zero"} 70', 'conclave_ffn_experts_per_token_bucket{layer="1",le="1"} 7',
                     'conclave_ffn_experts_per_token_bucket{layer="1",le="+Inf"} 12', 'conclave_ffn_experts_per_token_sum{layer="1"} 14',
                     'conclave_ffn_experts_per_token_count{layer="1"} 12', 'conclave_bytes_not_sent_total{layer="1"} 4256',
                     'conclave_attention_keys_seen_total 12', 'conclave_attention_keys_skipped_total 34',
                     'conclave_time_to_first_token_seconds_bucket{le="+Inf"} 0', 'conclave_loop_last_progress_seconds{loop="api"}'):
            assert line in text, line
        for line in text.splitlines():
            assert line.startswith("#") or float(line.rsplit(" ", 1)[1]) >= 0
        s.tell("ready 0")
        assert s.get("/readyz")[0] == 503


@test
def a_loop_that_stands_still_with_work_is_not_live():
    with Server() as s:
        s.tell("freeze 1")
        for _ in range(5):
            assert s.get("/livez")[0] == 200, "without work it may stand still"
            time.sleep(0.15)
        call = s.client().call("Generate", M("GenerateRequest", text="!hang"))
        eventually(lambda: s.tell("live") == "1", "the request is there")
        assert s.get("/livez")[0] == 200, "work has only just come"
        eventually(lambda: s.get("/livez")[0] == 503, "it is seen to be stuck")
        s.tell("freeze 0")
        assert s.get("/livez")[0] == 200
        call.cancel()


@test
def a_flood_of_connections_does_not_close_the_listener():
    with Server(max_files=96) as s:
        before = s.client()
        before.call("GetModel", M("GetModelRequest"))
        for _ in range(3):
            flood = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(200)]
            time.sleep(0.3)
            before.call("GetModel", M("GetModelRequest"))
            assert s.get("/livez")[0] == 200, "other descriptors are left"
            for c in flood:
                c.close()

        def served():
            try:
                s.client().call("GetModel", M("GetModelRequest"), timeout=2)
                return True
            except grpc.RpcError:
                return False

        eventually(served, "new clients are served again")


@test
def http_survives_garbage():
    with Server() as s:
        for data in (b"\0" * 5000, b"GET " + b"x" * 60000, b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 9000):
            c = socket.create_connection(("127.0.0.1", s.http_port))
            try:
                c.sendall(data)
                c.settimeout(0.5)
                c.recv(1000)
            except OSError:
                pass
            c.close()
        g = socket.create_connection(("127.0.0.1", s.port))
        g.sendall(struct.pack(">I", 7) * 1000)
        g.close()
        assert s.get("/livez")[0] == 200
        s.client().call("GetModel", M("GetModelRequest"))


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--descriptors", required=True)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, no memory figures: for sanitizers")
    parser.add_argument("names", nargs="*")
    ARGS = parser.parse_args()
    load_descriptors(ARGS.descriptors)
    failed = 0
    for function in TESTS:
        if ARGS.names and function.__name__ not in ARGS.names:
            continue
        begun = time.time()
        try:
            function()
            print("ok      %s (%.2f s)" % (function.__name__, time.time() - begun), flush=True)
        except Exception:
            failed += 1
            print("FAILED  %s" % function.__name__, flush=True)
            traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
