#!/usr/bin/env python3
"""Makes conclave/v1/*_pb2.py and their types in a folder, with protoc (Debian: protobuf-compiler) or grpcio-tools.

    make_stubs.py OUT
"""
import os
import shutil
import subprocess
import sys

PROTO_DIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "proto")
PROTOS = ["conclave/v1/inference.proto", "conclave/v1/admin.proto"]


def compiler():
    if shutil.which("protoc"):
        return ["protoc"]
    try:
        import grpc_tools  # noqa: F401
    except ImportError:
        sys.exit("protoc is missing: apt-get install protobuf-compiler, or pip install grpcio-tools")
    return [sys.executable, "-m", "grpc_tools.protoc"]


def make(out):
    if not os.path.isfile(os.path.join(PROTO_DIR, PROTOS[0])):
        sys.exit(f"{PROTO_DIR} has no {PROTOS[0]}: build the package inside the repository")
    os.makedirs(out, exist_ok=True)
    subprocess.run([*compiler(), f"-I{PROTO_DIR}", f"--python_out={out}", f"--pyi_out={out}", *PROTOS], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(sys.argv[1])
