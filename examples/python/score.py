#!/usr/bin/env python3
"""Prints the log-probability of every token of a text, and its perplexity.

    pip install ./clients/python
    examples/python/score.py "The quick brown fox" --top 3
"""
import math
import sys

import grpc

import common


def main():
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", help="the text; or --tokens")
    parser.add_argument("--tokens", help="token ids: 1,2,3")
    parser.add_argument("--top", type=int, default=0, help="the N likeliest tokens at each place")
    args = parser.parse_args()
    if (args.text is None) == (args.tokens is None):
        parser.error("give either a text or --tokens")
    prompt = args.text if args.text is not None else [int(word) for word in args.tokens.split(",")]
    with common.connect(args) as client:
        try:
            reply = client.score(prompt, top=args.top)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")

    scored = [token.logprob for token in reply.tokens if token.HasField("logprob")]
    for token in reply.tokens:
        logprob = f"{token.logprob:.4f}" if token.HasField("logprob") else "-"
        best = ", ".join(f"{other.id} {other.token.decode('utf-8', 'replace')!r} {other.logprob:.4f}" for other in token.top)
        text = token.token.decode("utf-8", "replace")
        print(f"{token.id:7} {logprob:>10}  {text!r:12}  {best}".rstrip())
    if scored:
        print(f"perplexity {math.exp(-sum(scored) / len(scored)):.4f} over {len(scored)} tokens")


if __name__ == "__main__":
    main()
