#!/usr/bin/env python3
"""Streams an answer, and takes it up again where it was when a server goes away in the middle.

    pip install ./clients/python
    examples/python/generate.py "Once upon a time" --max-tokens 40
"""
import sys
import time

import grpc

import common


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("prompt")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    sampling = {name: value for name, value in (("temperature", args.temperature), ("seed", args.seed)) if value is not None}

    n_tokens, first, last = 0, None, None
    with common.connect(args) as client:
        try:
            for chunk in client.generate(args.prompt, max_tokens=args.max_tokens, **sampling):
                print(chunk.text, end="", flush=True)
                if chunk.token_ids:
                    last = time.monotonic()
                    first = first or last
                    n_tokens += len(chunk.token_ids)
        except grpc.RpcError as error:
            sys.exit(f"\n{error.code().name}: {error.details()}")
    print()
    if n_tokens > 1 and last > first:
        print(f"{n_tokens} tokens, {(n_tokens - 1) / (last - first):.1f} tokens/s", file=sys.stderr)


if __name__ == "__main__":
    main()
