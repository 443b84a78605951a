"""Text to token ids and back: the tokenizer, the stream that training reads, bits per byte."""
import json
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"


def documents(path):
    with open(path, encoding="utf-8") as f:
        return [d for d in f.read().split("\f") if d.strip()]


def train_tokenizer(paths, vocab_size, out):
    """Byte-level BPE as OLMoE's; <|endoftext|> is id 0. Writes tokenizer.json and tokenizer_config.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator((d for p in dict.fromkeys(paths) for d in documents(p)), trainer)
    os.makedirs(out, exist_ok=True)
    tokenizer.save(os.path.join(out, "tokenizer.json"))
    with open(os.path.join(out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"tokenizer_class": "GPTNeoXTokenizer", "eos_token": END, "pad_token": END, "bos_token": None, "add_bos_token": False,
                   "add_eos_token": False, "add_prefix_space": False, "clean_up_tokenization_spaces": False}, f, indent=2)
        f.write("\n")
    return tokenizer


def encode(tokenizer, paths):
    """All documents of the files one after another, each with <|endoftext|> behind it; a file named twice counts twice."""
    end, seen = tokenizer.token_to_id(END), {}
    for path in dict.fromkeys(paths):
        encoded = tokenizer.encode_batch_fast(documents(path), add_special_tokens=False)
        seen[path] = np.concatenate([np.array(e.ids + [end], np.uint16) for e in encoded])
    return np.concatenate([seen[p] for p in paths])


class Stream:
    """Windows of `length` + 1 tokens in an order that follows from the seed alone: batch(i) is the same however often training stopped.
    Every pass over the text begins its windows elsewhere."""

    def __init__(self, ids, length, batch, seed):
        self.ids, self.length, self.size, self.seed = ids, length, batch, seed
        self.windows = (len(ids) - 2) // length - 1
        self.epoch, self.order, self.shift = None, None, 0
        if self.windows < 1:
            raise ValueError(f"{len(ids)} tokens of text: less than two windows of {length}")

    def window(self, i):
        epoch, i = divmod(i, self.windows)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order, self.shift = epoch, rng.permutation(self.windows), int(rng.integers(self.length))
        at = self.order[i] * self.length + self.shift
        return self.ids[at:at + self.length + 1]

    def batch(self, step):
        rows = np.stack([self.window(step * self.size + i) for i in range(self.size)])
        rows = torch.from_numpy(rows.astype(np.int64))
        return rows[:, :-1], rows[:, 1:]


class Evenly:
    """Windows of several texts in turn, however large each is: so a small one is not lost beside a large one."""

    def __init__(self, texts, length, batch, seed):
        self.size, self.streams = batch, [Stream(ids, length, batch, seed + i) for i, ids in enumerate(texts)]

    def window(self, i):
        i, of = divmod(i, len(self.streams))
        return self.streams[of].window(i)

    batch = Stream.batch


@torch.no_grad()
def bits_and_bytes(model, tokenizer, paths, length, limit=None, batch=16, device="cpu"):
    """Of the files' text, read in windows without overlap, the first token of each predicted from <|endoftext|>. `limit` reads that many
    bytes of each file only, cut at the end of a document or, in a long one, within it."""
    was = model.training
    model.eval()
    end = tokenizer.token_to_id(END)
    bits, n_bytes = 0.0, 0
    for path in paths:
        left, rows = limit or math.inf, []
        for text in documents(path):
            if left <= 0:
                break
            text = text if len(text) <= left else text[:int(left)]
            left -= len(text)
            n_bytes += len(text.encode())
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            rows += [[end] + ids[i:i + length] for i in range(0, len(ids), length)]
        rows.sort(key=len)
        for i in range(0, len(rows), batch):
            some = rows[i:i + batch]
            longest = len(some[-1])
            x = torch.tensor([r + [end] * (longest - len(r)) for r in some], device=device)
            want = torch.tensor([r[1:] + [-100] * (longest - len(r)) for r in some], device=device)
            logits, _ = model(x[:, :-1])
            bits += F.cross_entropy(logits.flatten(0, 1), want.flatten(), ignore_index=-100, reduction="sum").item() / math.log(2)
    model.train(was)
    return bits, n_bytes


def bits_per_byte(*args, **settings):
    bits, n_bytes = bits_and_bytes(*args, **settings)
    return bits / n_bytes
