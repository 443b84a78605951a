#!/usr/bin/python3
"""Streams an answer, and takes it up again where it was when a server goes away in the middle.

    examples/python/generate.py "Once upon a time" --max-tokens 40
"""
import sys
import time

import grpc

import conclave_api

RETRIES = 5


def stream(api, request):
    """Yields the chunks of one answer. The tokens that have come and the seed are all that a server needs to go on, and what it
    adds is bit for bit what the first one would have added."""
    tokens = []
    for attempt in range(RETRIES + 1):
        try:
            for chunk in api.Generate(request):
                if chunk.HasField("seed"):
                    request.sampling.seed = chunk.seed
                if not chunk.echo:
                    tokens += chunk.token_ids
                yield chunk
            return
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or attempt == RETRIES:
                raise
            time.sleep(0.2 * 2 ** attempt)
            request.resume_from.ids[:] = tokens
            request.echo = False


def main():
    parser = conclave_api.arguments(__doc__.splitlines()[0])
    parser.add_argument("prompt")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    api = conclave_api.connect(args)

    request = api.GenerateRequest(text=args.prompt)
    request.sampling.max_tokens = args.max_tokens
    if args.temperature is not None:
        request.sampling.temperature = args.temperature
    if args.seed is not None:
        request.sampling.seed = args.seed

    n_tokens, first, last = 0, None, None
    try:
        for chunk in stream(api, request):
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
