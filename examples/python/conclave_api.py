"""Connects to Conclave with nothing but grpcio, protobuf and protoc: the messages are made from the .proto files at run time.

    api = conclave_api.Api("127.0.0.1:50051")
    for chunk in api.Generate(api.GenerateRequest(text="Hello")):
        print(chunk.text, end="")

With grpcio-tools one would generate conclave/v1/inference_pb2.py instead and use it the same way.
"""
import argparse
import pathlib
import subprocess
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTO_DIR = pathlib.Path(__file__).resolve().parents[2] / "proto"
PROTOS = ["conclave/v1/inference.proto", "conclave/v1/admin.proto"]
STREAMING = {"Generate", "WatchCluster"}


def load_descriptors(proto_dir):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "api.pb"
        subprocess.run(["protoc", f"-I{proto_dir}", "--include_imports", f"--descriptor_set_out={out}", *PROTOS], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def message_class(descriptor):
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory().GetPrototype(descriptor)  # protobuf before 4.22


class Api:
    """Every method of Inference and Admin, and every message of conclave.v1, as an attribute."""

    def __init__(self, server, proto_dir=PROTO_DIR, credentials=None, token=None):
        self._pool = load_descriptors(proto_dir)
        self._metadata = [("authorization", f"Bearer {token}")] if token else None
        options = [("grpc.max_receive_message_length", -1)]
        self._channel = (grpc.secure_channel(server, credentials, options) if credentials
                         else grpc.insecure_channel(server, options))
        for service in ("Inference", "Admin"):
            for method in self._pool.FindServiceByName(f"conclave.v1.{service}").methods:
                setattr(self, method.name, self._method(service, method))

    def _method(self, service, method):
        make = self._channel.unary_stream if method.name in STREAMING else self._channel.unary_unary
        call = make(f"/conclave.v1.{service}/{method.name}",
                    request_serializer=lambda request: request.SerializeToString(),
                    response_deserializer=message_class(method.output_type).FromString)
        return lambda request, timeout=None: call(request, timeout=timeout, metadata=self._metadata)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return message_class(self._pool.FindMessageTypeByName(f"conclave.v1.{name}"))

    def close(self):
        self._channel.close()


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--proto-dir", default=PROTO_DIR, help="folder with conclave/v1/*.proto")
    parser.add_argument("--tls-ca", metavar="FILE", help="use TLS; certificates that may have signed the server's")
    parser.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    return parser


def connect(args):
    credentials = token = None
    if args.tls_ca:
        credentials = grpc.ssl_channel_credentials(pathlib.Path(args.tls_ca).read_bytes())
    if args.token_file:
        token = pathlib.Path(args.token_file).read_text().splitlines()[0]
    return Api(args.server, args.proto_dir, credentials, token)
