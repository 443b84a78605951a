"""Log-probabilities of texts of any length through a running server (Score): windows, several of them under way at once."""
import collections
import concurrent.futures
import itertools
import math

import grpc


def documents(path):
    """Of a text file: a form feed ends one."""
    with open(path, encoding="utf-8") as f:
        return [d for d in f.read().split("\f") if d.strip()]


def in_turn(pool, work, items, most):
    """work(item) of each item, in order, with at most so many handed out."""
    items, waiting = iter(items), collections.deque()
    for item in itertools.islice(items, most):
        waiting.append(pool.submit(work, item))
    while waiting:
        yield waiting.popleft().result()
        for item in itertools.islice(items, 1):
            waiting.append(pool.submit(work, item))


class Scorer:
    """client: conclave.Client. start: the id that stands before a text's first token; by default the first end-of-sequence id, which ends the
    documents that a model is trained on. window: the most tokens that are read at once, start included."""

    def __init__(self, client, expert_set=None, window=None, start=None, parallel=8, top=0):
        model = client.model()
        if start is None and not model.eos_token_ids:
            raise ValueError("the model names no end-of-sequence id: which id stands before a text? (start)")
        self.client, self.set, self.parallel, self.set_id = client, expert_set, parallel, None
        self.top = top
        self.start = model.eos_token_ids[0] if start is None else start
        self.window = min(window or model.max_context, model.max_context)
        if self.window < 2:
            raise ValueError("a window has at least two tokens")

    def tokens(self, ids):
        """The ScoredToken of each of the ids but the first, which is only read."""
        reply = self.client.score(ids, expert_set=self.set, top=self.top)
        if self.set_id not in (None, reply.set_id):
            raise ValueError(f"the set of experts changed from {self.set_id} to {reply.set_id} meanwhile")
        self.set_id = reply.set_id
        return reply.tokens[1:]

    def encode(self, text, special=False):
        """The ids of a text of any length. The server takes as many tokens as it has context, so the text goes in pieces that are cut before
        a single space: where tokenizers for byte-level BPE begin a word anyway. special: with what the tokenizer adds to a text."""
        ids, at, size = [], 0, 2 * self.window
        while at < len(text):
            end = len(text)
            if at + size < end:
                end = next((i for i in range(at + size, at, -1) if text[i] == " " != text[i - 1] and text[i + 1:i + 2] != " "), at + size)
            try:
                ids += self.client.tokenize(text[at:end], add_special_tokens=special and at == 0)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.INVALID_ARGUMENT or size == 1:
                    raise
                size = max(size // 2, 1)
                continue
            at = end
        return ids

    def windows(self, ids):
        """The text without overlap, each part after `start`."""
        step = self.window - 1
        return [[self.start, *ids[i:i + step]] for i in range(0, len(ids), step)]

    def bits(self, texts, done=lambda share: None):
        """Bits of all tokens of the texts, and their number. done(share of the text): called as they come."""
        total, n, n_bytes, size = 0.0, 0, 0, sum(len(t.encode()) for t in texts)
        with concurrent.futures.ThreadPoolExecutor(self.parallel) as pool:
            windows = (window for text in texts for window in self.windows(self.encode(text)))
            for tokens in in_turn(pool, self.tokens, windows, 2 * self.parallel):
                total -= math.fsum(t.logprob for t in tokens) / math.log(2)
                n += len(tokens)
                n_bytes += sum(len(t.token) for t in tokens)
                done(n_bytes / size)
        return total, n
