#!/usr/bin/env python3
"""Bits per byte of held-out text by xz -9 and by Kneser-Ney n-grams over the model's own tokens, trained on the same text.

    train_baselines.py --tokenizer DIR --text FILE... --held-out FILE... [--order 3,4,5]

xz is measured twice: with the training text in its window, and on the held-out text alone."""
import argparse
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import numpy as np  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from train import baseline, data  # noqa: E402


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tokenizer", required=True, metavar="DIR")
    ap.add_argument("--text", nargs="+", required=True, metavar="FILE")
    ap.add_argument("--held-out", nargs="+", required=True, metavar="FILE")
    ap.add_argument("--order", default="3,4,5")
    a = ap.parse_args()
    tokenizer = Tokenizer.from_file(os.path.join(a.tokenizer, "tokenizer.json"))
    end = tokenizer.token_to_id(data.END)
    documents = [d for p in a.held_out for d in data.documents(p)]
    n_bytes = sum(len(d.encode()) for d in documents)
    held = [np.array([end] + tokenizer.encode(d, add_special_tokens=False).ids) for d in documents]
    ids = data.encode(tokenizer, list(dict.fromkeys(a.text)))
    with_text, alone = baseline.xz_bits_per_byte(baseline.read(dict.fromkeys(a.text)), "".join(documents).encode())
    figures = {"bytes": n_bytes, "xz -9 after the training text": round(with_text, 4), "xz -9 alone": round(alone, 4)}
    for order in map(int, a.order.split(",")):
        figures[f"{order}-gram"] = round(baseline.ngram_bits_per_byte(ids, held, n_bytes, tokenizer.get_vocab_size(), order), 4)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
