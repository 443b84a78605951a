"""What the examples share: options and the connection."""
import argparse
import pathlib
import sys

import grpc

try:
    from conclave import Client
    from conclave.client import read_token
except ImportError:
    sys.exit("the package `conclave` is missing: pip install ./clients/python")


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--tls-ca", metavar="FILE", help="use TLS; certificates that may have signed the server's")
    parser.add_argument("--token-file", metavar="FILE", help="file with the bearer token; lines that begin with # are comments")
    return parser


def connect(args):
    credentials = grpc.ssl_channel_credentials(pathlib.Path(args.tls_ca).read_bytes()) if args.tls_ca else None
    return Client(args.server, credentials=credentials, token=read_token(args.token_file) if args.token_file else None)
