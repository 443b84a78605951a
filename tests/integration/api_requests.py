"""The API over the fake engine: what clients ask for. Run by api_test.py."""
import json
import subprocess
import sys
import time

from api_rig import CODE, M, SET_ID, Server, eventually, fails, health, test, trailers


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
