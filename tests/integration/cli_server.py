"""A server made of python3-grpcio, so that every reply and every failure can be staged, and the command line against it.

A program that has this begins with CONCLAVE PROTO_DIR [unittest arguments].
"""
import os
import queue
import subprocess
import sys
import tempfile
import unittest
from concurrent import futures

import grpc
from messages import Messages

CONCLAVE, PROTO_DIR = sys.argv[1:3]
PROTOS = ["conclave/v1/inference.proto", "conclave/v1/admin.proto", "grpc/health/v1/health.proto"]
WAIT_S = 30


def load_messages():
    with tempfile.NamedTemporaryFile(suffix=".pb") as out:
        subprocess.run(["protoc", "-I", PROTO_DIR, "--include_imports", "--descriptor_set_out", out.name] + PROTOS, check=True)
        return Messages(out.read())


MESSAGES = load_messages()
message, v1 = MESSAGES.make, MESSAGES.v1


class Server(grpc.GenericRpcHandler):
    """Answers /package.Service/Method with replies[method], a list of messages or a function (request, context) -> list."""

    def __init__(self, credentials=None):
        self.replies, self.requests, self.metadata = {}, [], []
        self.cancelled = queue.Queue()
        self.grpc = grpc.server(futures.ThreadPoolExecutor(4), handlers=[self])
        address = "127.0.0.1:0"
        self.port = self.grpc.add_secure_port(address, credentials) if credentials else self.grpc.add_insecure_port(address)
        self.grpc.start()

    def stop(self):
        self.grpc.stop(0).wait()

    def service(self, details):
        service, method = details.method.strip("/").split("/")
        descriptor = MESSAGES.method(service, method)

        def answer(request, context):
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            replies = self.replies[method]
            yield from replies(request, context) if callable(replies) else replies

        return grpc.unary_stream_rpc_method_handler(
            answer, MESSAGES.type_of(descriptor.input_type).FromString,
            lambda reply: reply if isinstance(reply, bytes) else reply.SerializeToString())


def refuse(code, text, *trailers):
    def answer(_, context):
        context.set_trailing_metadata(trailers)
        context.abort(code, text)
        yield

    return answer


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


class Case(unittest.TestCase):
    maxDiff = None
    credentials = None

    def setUp(self):
        self.server = Server(self.credentials)
        self.addCleanup(self.server.stop)

    def argv(self, command, *args):
        return [CONCLAVE, command, "--server", f"127.0.0.1:{self.server.port}", *args]

    def run_cli(self, command, *args, stdin=""):
        env = {k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}
        done = subprocess.run(self.argv(command, *args), input=stdin, capture_output=True, encoding="utf-8",
                              timeout=WAIT_S, env=env)
        return Result(done)

    def ok(self, command, *args, stdin=""):
        result = self.run_cli(command, *args, stdin=stdin)
        self.assertEqual((result.code, result.err), (0, ""))
        return result.out

    def fails(self, code, text, command, *args, stdin=""):
        result = self.run_cli(command, *args, stdin=stdin)
        self.assertEqual(result.code, code, result.err)
        self.assertIn(text, result.err)
        return result


CHUNKS = [
    v1("GenerateResponse", token_ids=[5, 6], text="Hel", request_id="r", seed=2**63, set_id="s", model_fingerprint="f"),
    v1("GenerateResponse", first_index=2, token_ids=[7], text="lo €", finish_reason=2,
       usage=v1("Usage", prompt_tokens=3, completion_tokens=3), timings=v1("Timings", prefill_seconds=0.5)),
]
