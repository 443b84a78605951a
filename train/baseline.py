"""What a model's bits per byte are compared with: xz, and an n-gram model over the same tokens with interpolated Kneser-Ney smoothing."""
import lzma
import math

import numpy as np


def read(paths):
    out = b""
    for path in paths:
        with open(path, "rb") as f:
            out += f.read().replace(b"\f", b"")
    return out


def xz_bits_per_byte(train, held):
    """Of the held-out bytes behind the training bytes (xz sees them: its window is 64 MiB), and of the held-out bytes alone."""
    size = lambda data: len(lzma.compress(data, preset=9))
    return 8 * (size(train + held) - size(train)) / len(held), 8 * size(held) / len(held)


class NGram:
    """Counts of n-grams as sorted 64-bit keys; lower orders count how many different tokens come before (Kneser and Ney 1995)."""

    def __init__(self, ids, vocab_size, order):
        self.bits = (vocab_size - 1).bit_length()
        if self.bits * order > 63:
            raise ValueError(f"order {order} of {vocab_size} tokens does not fit 63 bits")
        self.order, self.vocab_size = order, vocab_size
        self.tables = {}  # n -> keys, counts, contexts, total and different followers of each context
        grams, counts = np.unique(self.keys(ids, order), return_counts=True)
        for n in range(order, 0, -1):
            contexts, first, followers = np.unique(grams >> self.bits, return_index=True, return_counts=True)
            self.tables[n] = (grams, counts, contexts, np.add.reduceat(counts, first), followers, self.discount(counts))
            shorter = grams & ((1 << self.bits * (n - 1)) - 1)
            grams, counts = np.unique(shorter, return_counts=True)

    def keys(self, ids, n):
        ids = ids.astype(np.int64)
        out = np.zeros(len(ids) - n + 1, np.int64)
        for i in range(n):
            out = (out << self.bits) | ids[i:len(ids) - n + 1 + i]
        return out

    @staticmethod
    def discount(counts):
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        return float(np.clip(once / max(once + 2 * twice, 1), 0.1, 0.9))  # at 0 what was never seen would be impossible

    @staticmethod
    def find(keys, values, wanted):
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, values[at], 0)

    def bits_of(self, ids):
        """Bits of every token after the first, each with up to order - 1 before it."""
        p = np.full(len(ids) - 1, 1.0 / self.vocab_size)
        for n in range(1, self.order + 1):
            grams, counts, contexts, totals, followers, discount = self.tables[n]
            keys = self.keys(ids, n)[(1 if n == 1 else 0):]  # of the tokens n - 1 and later
            skip = max(n - 2, 0)
            count, total = self.find(grams, counts, keys), self.find(contexts, totals, keys >> self.bits)
            rest = discount * self.find(contexts, followers, keys >> self.bits)
            known = total > 0
            safe = np.maximum(total, 1)
            mixed = np.maximum(count - discount, 0) / safe + rest / safe * p[skip:]
            p[skip:] = np.where(known, mixed, p[skip:])
        return -np.log2(p)


def ngram_bits_per_byte(train_ids, held_ids, n_bytes, vocab_size, order):
    """held_ids: one array per document, with the end-of-text token in front."""
    model = NGram(train_ids, vocab_size, order)
    return math.fsum(model.bits_of(ids).sum() for ids in held_ids) / n_bytes
