#!/usr/bin/env python3
"""How much a MoE++ spends on which tokens: the share of its picks that are zero-computation experts, by kind of token and by layer.

    token_kinds.py --model DIR --text FILE...

The kind follows from a token's text: of a word its beginning or a later part, punctuation, digits, white space."""
import argparse
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from train import data, moe_plus_plus, store  # noqa: E402

KINDS = ("word beginning", "word continuation", "punctuation", "digits", "white space")
EXPERTS = ("ffn", "constant", "copy", "zero")


def letter(c):
    return c.isalpha() or c == "\ufffd"  # a part of a letter


def kind(text, before):
    """Of a token, by its text and that of the token before."""
    first = text.lstrip()[:1]
    if not first:
        return "white space"
    if letter(first):
        return "word continuation" if text[0] == first and letter(before[-1:]) else "word beginning"
    return "digits" if first.isdigit() else "punctuation"


@torch.no_grad()
def count(model, tokenizer, paths, length, n_tokens, batch=8):
    """Picks [layers, kinds, kinds of experts], and tokens of each kind. Documents' ends are no tokens of a kind."""
    ids = data.encode(tokenizer, paths)
    ids = ids[:min(n_tokens, len(ids)) // length * length]
    texts = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
    end = tokenizer.token_to_id(data.END)
    kinds = np.array([-1 if i == end else KINDS.index(kind(texts[i], texts[j])) for i, j in zip(ids.tolist(), [end, *ids[:-1].tolist()])])
    bounds = torch.tensor([model.mixtures()[0].n - n for n in (2 + moe_plus_plus.N_CONSTANT, 2, 1)])
    picks = np.zeros((len(model.mixtures()), len(KINDS), len(EXPERTS)), np.int64)
    windows, of = ids.reshape(-1, length).astype(np.int64), kinds.reshape(-1, length)
    for at in range(0, len(windows), batch):
        model(torch.from_numpy(windows[at:at + batch]))
        rows = of[at:at + batch].reshape(-1)
        for counts, m in zip(picks, model.mixtures()):
            which = torch.bucketize(m.picks, bounds, right=True).numpy()
            np.add.at(counts, (rows[rows >= 0, None], which[rows >= 0]), 1)
    return picks, np.bincount(kinds[kinds >= 0], minlength=len(KINDS))


def shares(counts):
    total = max(int(counts.sum()), 1)
    return {name: round(int(n) / total, 4) for name, n in zip(EXPERTS, counts)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, metavar="DIR")
    ap.add_argument("--text", nargs="+", required=True, metavar="FILE")
    ap.add_argument("--length", type=int, default=256, help="tokens in a window")
    ap.add_argument("--tokens", type=int, default=100_000, help="of the text's beginning that are read")
    ap.add_argument("--json", action="store_true")
    a = ap.parse_args()
    model = store.load(a.model).eval()
    if model.config["model_type"] != moe_plus_plus.MODEL_TYPE:
        sys.exit(f"{a.model}: only {moe_plus_plus.MODEL_TYPE} has zero-computation experts; this is {model.config['model_type']}")
    picks, tokens = count(model, Tokenizer.from_file(os.path.join(a.model, "tokenizer.json")), a.text, a.length, a.tokens)
    rows = {**{name: {"tokens": int(n), **shares(counts)} for name, n, counts in zip(KINDS, tokens, picks.sum(0))},
            **{f"layer {l}": {"tokens": int(tokens.sum()), **shares(counts.sum(0))} for l, counts in enumerate(picks)},
            "all": {"tokens": int(tokens.sum()), **shares(picks.sum((0, 1)))}}
    if a.json:
        print(json.dumps(rows))
        return 0
    print(f"{'':18}{'tokens':>9}{'no FFN':>9}" + "".join(f"{name:>10}" for name in EXPERTS[1:]) + f"{'FFNs a token':>14}")
    for name, row in rows.items():
        print(f"{name:18}{row['tokens']:>9,}{1 - row['ffn']:>9.1%}" + "".join(f"{row[e]:>10.1%}" for e in EXPERTS[1:]) + f"{2 * row['ffn']:>14.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
