"""The API over the fake engine: what is out of range, malformed, or never read. Run by api_test.py."""
import threading

from api_rig import ARGS, CODE, M, SET_ID, Server, eventually, fails, grpc, test, trailers


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
