#!/usr/bin/env python3
"""Trains a small byte-level BPE tokenizer and writes OUT_DIR/tokenizer.json and OUT_DIR/tokenizer_config.json.

    tools/make_tokenizer.py OUT_DIR [--vocab-size N] [--eos-id N | --sentencepiece]

Built like OLMoE's: NFC, GPT-2 splitting, runs of spaces as added tokens, <|endoftext|> (special) under the id given, a
Tulu-style chat template. The text it learns from is LICENSE and the lines below, so the result is the same everywhere.
Needs only Python's standard library. Ids: <|endoftext|> at --eos-id, <|padding|> at the next one, then the bytes, the
merges, the runs of spaces, in the ids that are left. Text that is worn out before N ids gives fewer.

With --sentencepiece it writes OUT_DIR/tokenizer.model instead, built like LLaMA's: BPE pieces with byte fallback, a dummy
prefix, spaces kept. Ids: <unk>, <s>, </s> at 0, 1, 2, then the bytes, the merges, the characters.
"""
import argparse
import collections
import json
import os
import re
import struct
import unicodedata

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLE = """
The quick brown fox jumps over the lazy dog. It's raining, they're inside, we'll wait; I'd rather not. Don't you?
Once upon a time there was a small house by the sea. In the morning the light came through the window and the people
of the house went down to the water, where the boats were, and spoke about the weather, the fish and the long winter.
What is the capital of France? The capital of France is Paris. How many days are there in a week? There are seven.
Write a short story about a robot that learns to paint. Explain why the sky is blue. Translate this sentence, please.
def main(argv):\n    for i in range(10):\n        print(i, argv[i])\n    return 0\n
int main(void)\n{\n    printf("hello, world\\n");\n    return 0;\n}\n
0 1 2 3 4 5 6 7 8 9 10 100 1000 2024 3.14159 1,000,000 50% $20 a+b=c x*y z/2 (a, b) [c, d] {e: f} <g> "h" 'i' `j`
Voilà, naïve café, Straße, mañana, smörgåsbord, İstanbul. Привет, мир. Καλημέρα κόσμε. 日本語のテスト。你好，世界。안녕하세요.
<|system|>\nYou are a helpful assistant.\n<|user|>\nHello\n<|assistant|>\nHi! How can I help you today?\n
"""
SPACE_RUNS = range(8, 1, -1)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}")
# The GPT-2 expression; [^\W\d_] is a letter, and numbers are decimal digits, which is enough for the text above.
PIECES = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


MARK = "\u2581"  # SentencePiece's space
MARKED_PIECES = re.compile(f"{MARK}?[^\\W\\d_]+|{MARK}+|\\d|{MARK}?[^\\w{MARK}]")


def sample_text():
    with open(os.path.join(ROOT, "LICENSE"), encoding="utf-8") as f:
        return unicodedata.normalize("NFC", SAMPLE + f.read())


def byte_alphabet():
    """The character that stands for each byte: itself where it is printable Latin-1, else one from U+0100 on."""
    printable = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(0x100 + i) for i, byte in enumerate(others)}}


def learn_merges(counts, n_merges):
    """counts: how often each word, a tuple of symbols, occurs. Merges the most frequent pair (ties: the smaller texts) until
    there are n_merges or no pair comes twice."""
    words = [[list(word), n] for word, n in sorted(counts.items())]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    symbols = {symbol for word in counts for symbol in word}
    for index, (word, n) in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += n
            where[pair].add(index)
    merges, known = [], symbols
    while len(merges) < n_merges and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        if best[0] + best[1] not in known:
            merges.append(best)
            known.add(best[0] + best[1])
        elif best not in merges:  # another way to the same text would need no new id; leave it
            del pairs[best]
            continue
        for index in where.pop(best):
            word, n = words[index]
            for pair in zip(word, word[1:]):
                pairs[pair] -= n
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i:i + 2] = [best[0] + best[1]]
                i += 1
            for pair in zip(word, word[1:]):
                pairs[pair] += n
                where[pair].add(index)
        pairs = +pairs
    return merges


def added(token_id, content, special, normalized):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": normalized, "special": special}


def make_tokenizer(vocab_size, eos_id):
    alphabet = byte_alphabet()
    counts = collections.Counter(tuple(alphabet[b] for b in piece.encode()) for piece in PIECES.findall(sample_text()))
    merges = learn_merges(counts, vocab_size - 2 - 256 - len(SPACE_RUNS))
    pad_id = (eos_id + 1) % vocab_size
    free_ids = (i for i in range(vocab_size) if i not in (eos_id, pad_id))
    vocab = {alphabet[byte]: next(free_ids) for byte in sorted(alphabet, key=lambda byte: ord(alphabet[byte]))}
    for left, right in merges:
        vocab[left + right] = next(free_ids)
    tokens = [added(eos_id, "<|endoftext|>", True, False), added(pad_id, "<|padding|>", True, False)]
    tokens += [added(next(free_ids), " " * n, False, True) for n in SPACE_RUNS]
    vocab.update((token["content"], token["id"]) for token in tokens)  # readers may number those that are only listed anew
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": sorted(tokens, key=lambda t: t["id"]),
            "normalizer": {"type": "NFC"}, "pre_tokenizer": byte_level, "post_processor": byte_level, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])), "merges": [" ".join(pair) for pair in merges]}}


def varint(value):
    out = b""
    while value > 0x7f:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


def message(*fields):
    """Protobuf's wire format. A field is (number, int, float, text, or bytes that are a message)."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


UNKNOWN, CONTROL, BYTE = 2, 3, 6  # types of pieces


def make_sentencepiece(vocab_size):
    """The bytes of a ModelProto and its number of pieces."""
    text = "".join(MARK + line.replace(" ", MARK) + "\n" for line in sample_text().splitlines())
    chars = [c for c, n in sorted(collections.Counter(text).items(), key=lambda item: (-item[1], item[0])) if n > 1 and c != "\n"]
    chars = chars[:vocab_size - 3 - 256]
    counts = collections.Counter(tuple(word) for word in MARKED_PIECES.findall(text))
    merges = learn_merges(counts, vocab_size - 3 - 256 - len(chars))
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    pieces += [(piece, -float(rank), None) for rank, piece in enumerate([*map("".join, merges), *chars])]
    model_type, byte_fallback, whitespace_only = (3, 2), (35, 1), (26, 1)
    trainer = message(model_type, (4, len(pieces)), whitespace_only, byte_fallback)
    normalizer = message((1, "identity"), (3, 1), (4, 0), (5, 1))  # dummy prefix, extra spaces stay, escaped
    return message(*[(1, message((1, piece), (2, score), *([(3, kind)] if kind else []))) for piece, score, kind in pieces],
                   (2, trainer), (3, normalizer)), len(pieces)


def write_sentencepiece(out_dir, vocab_size):
    model, n_pieces = make_sentencepiece(vocab_size)
    with open(os.path.join(out_dir, "tokenizer.model"), "wb") as f:
        f.write(model)
    write_json(out_dir, "tokenizer_config.json",
               {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>",
                "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False, "legacy": True,
                "clean_up_tokenization_spaces": False})
    print(f"{out_dir}: {n_pieces} ids")


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)
        f.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    parser.add_argument("--vocab-size", type=int, default=1024, help="ids to use at most (default %(default)s, at least 272)")
    parser.add_argument("--eos-id", type=int, default=0, help="id of <|endoftext|> (default %(default)s)")
    parser.add_argument("--sentencepiece", action="store_true", help="write tokenizer.model; </s> has id 2")
    args = parser.parse_args()
    if args.vocab_size < 272 or not 0 <= args.eos_id < args.vocab_size:
        parser.error(f"need 272 <= --vocab-size and 0 <= --eos-id < --vocab-size, got {args.vocab_size} and {args.eos_id}")
    os.makedirs(args.out_dir, exist_ok=True)
    if args.sentencepiece:
        write_sentencepiece(args.out_dir, args.vocab_size)
        return
    tokenizer = make_tokenizer(args.vocab_size, args.eos_id)
    write_json(args.out_dir, "tokenizer.json", tokenizer)
    write_json(args.out_dir, "tokenizer_config.json",
               {"tokenizer_class": "GPTNeoXTokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
                "pad_token": "<|padding|>", "unk_token": None, "add_bos_token": False, "add_eos_token": False,
                "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE})
    model = tokenizer["model"]
    print(f"{args.out_dir}: {len(model['vocab'])} ids, {len(model['merges'])} merges")


if __name__ == "__main__":
    main()
