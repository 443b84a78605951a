#!/usr/bin/env python3
"""Bits per byte of text files, as a running server gives them: of the default set of experts, or of another.

    pip install ./clients/python
    tools/eval.py --server HOST:PORT [--set NAME|ID | --exclude PACK] [--json] FILE...

A form feed ends a document. Documents are read in windows without overlap, each after the end-of-sequence id, so that a figure can be a
little higher than one whose windows overlap. The set's id is part of the answer; a default set that changes meanwhile ends it."""
import argparse
import json
import os
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(ROOT, "examples", "python"), ROOT]
import common  # noqa: E402
import grpc  # noqa: E402
from conclave import inference_pb2  # noqa: E402

import scoring  # noqa: E402
from train.progress import Progress  # noqa: E402


def measure(scorer, path, bar, before):
    texts = scoring.documents(path)
    n_bytes = sum(len(t.encode()) for t in texts)
    bits, n_tokens = scorer.bits(texts, lambda share: bar.show(before + int(share * n_bytes), os.path.basename(path)))
    return {"file": path, "bytes": n_bytes, "tokens": n_tokens, "bits": bits, "bits_per_byte": bits / n_bytes}


def main():
    parser = common.arguments(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", metavar="FILE", help="UTF-8")
    parser.add_argument("--set", metavar="NAME|ID", help="of experts; by default the server's default set")
    parser.add_argument("--exclude", action="append", default=[], metavar="PACK", help="the default set without these; instead of --set")
    parser.add_argument("--window", type=int, metavar="TOKENS", help="read at once; by default as many as the server takes")
    parser.add_argument("--start", type=int, metavar="ID", help="before a text's first token; by default the first end-of-sequence id")
    parser.add_argument("--parallel", type=int, default=8, help="windows under way at once (8)")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each file, then one of them together")
    args = parser.parse_args()
    if args.set and args.exclude:
        parser.error("either --set or --exclude")
    chosen = inference_pb2.ExpertSet(exclude=args.exclude) if args.exclude else args.set
    bar = Progress(sum(map(os.path.getsize, args.files)), unit="bytes")
    rows, before = [], 0
    with common.connect(args) as client:
        try:
            scorer = scoring.Scorer(client, chosen, args.window, args.start, args.parallel)
            for path in args.files:
                rows.append(measure(scorer, path, bar, before))
                before += os.path.getsize(path)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
        except (OSError, ValueError) as error:
            sys.exit(str(error))
    bar.end()
    total = {k: sum(row[k] for row in rows) for k in ("bytes", "tokens", "bits")}
    total = {"files": len(rows), **total, "bits_per_byte": total["bits"] / total["bytes"], "set_id": scorer.set_id}
    if args.json:
        print(*map(json.dumps, [*rows, total]), sep="\n")
        return 0
    for name, row in [*((row["file"], row) for row in rows), ("together", total)]:
        print(f"{row['bits_per_byte']:8.4f} bits per byte  {row['bytes']:10,} bytes  {row['tokens']:9,} tokens  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
