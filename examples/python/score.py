#!/usr/bin/env python3
"""Prints the log-probability of every token of a text, and its perplexity.

    pip install ./clients/python
    examples/python/score.py "The quick brown fox" --top 3
"""
import math
import sys

import grpc

import common


def shown(token):
    """The text of a token, in quotes; nothing for a model without a tokenizer."""
    return repr(token.decode("utf-8", "replace")) if token else ""


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
        best = ", ".join(" ".join(filter(None, [str(other.id), shown(other.token), f"{other.logprob:.4f}"])) for other in token.top)
        print("  ".join(filter(None, [f"{token.id:7} {logprob:>10}", shown(token.token), best])))
    if scored:
        print(f"perplexity {math.exp(-sum(scored) / len(scored)):.4f} over {len(scored)} tokens")


if __name__ == "__main__":
    main()
