"""The API over the fake engine: health, drains, certificates, tokens, and pages. Run by api_test.py."""
import os
import socket
import struct
import subprocess
import time

from api_rig import CODE, Client, Folder, M, Server, descriptor_pb2, descriptor_pool, eventually, fails, grpc, health, message, test, trailers


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
