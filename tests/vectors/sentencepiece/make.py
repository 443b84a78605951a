#!/usr/bin/env python3
"""Makes NAME.model and NAME.json here with SentencePiece: small models trained from our own text, texts with the ids and the
text that come of them, and lists of ids with their text.

    /usr/bin/python3 tests/vectors/sentencepiece/make.py        (package python3-sentencepiece)
"""
import json
import os
import random
import sys
import tempfile

import sentencepiece

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "tools"))
from check_peers_sentencepiece import IDENTITY, LLAMA, MARK, make_ids, make_string  # noqa: E402
from check_peers_tokenizers import SCRIPTS, assigned  # noqa: E402
from make_tokenizer import sample_text  # noqa: E402

USER = ["<user>", "ing", "12", MARK + "of", "日本"]
MODELS = {
    "bytes": (500, {**LLAMA, "user_defined_symbols": USER, "control_symbols": ["<ctrl>"]}),
    "plain": (300, {**IDENTITY, "character_coverage": 0.98, "unk_surface": "[?]"}),
}
TEXTS = ["", " ", "  ", "a", " a", "a ", "  a  b  ", "Hello, world!", "The capital of France is Paris.", "12 123 1 2", "<s>a</s>",
         "<unk>", "<0x0A>", "\n", "a\n\nb", "\t", MARK, MARK + MARK + "a", "a" + MARK, "naïve café", "日本語", "👍🏽", "e\u0301",
         "<user>the<user>", "of of", "x" * 70, " " * 30 + "x"]


def train(name):
    vocab_size, options = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "text.txt")
        with open(text, "w", encoding="utf-8") as f:
            f.write(sample_text())
        old = os.getcwd()
        os.chdir(folder)  # paths are kept in the model
        sentencepiece.SentencePieceTrainer.train(input="text.txt", model_prefix=name, vocab_size=vocab_size, minloglevel=2,
                                                 num_threads=1, **options)
        os.chdir(old)
        with open(os.path.join(folder, name + ".model"), "rb") as f:
            return f.read()


def main():
    scripts = [assigned(*s) for s in SCRIPTS]
    for name in MODELS:
        model = train(name)
        peer, rng = sentencepiece.SentencePieceProcessor(model_proto=model), random.Random(name)
        n_pieces = peer.get_piece_size()
        pieces = [peer.id_to_piece(i) for i in range(n_pieces)]
        byte_ids = [i for i in range(n_pieces) if peer.is_byte(i)]
        texts = TEXTS + [text for text in (make_string(rng, scripts, pieces)[:60] for _ in range(100)) if "\0" not in text]
        encoded = [[text, peer.encode(text)] for text in texts]
        lists = [ids for ids in (make_ids(rng, n_pieces, byte_ids) for _ in range(80)) if ids and "\0" not in peer.decode(ids)]
        with open(os.path.join(HERE, name + ".model"), "wb") as f:
            f.write(model)
        with open(os.path.join(HERE, name + ".json"), "w", encoding="ascii") as f:
            json.dump({"n_pieces": n_pieces, "encode": [[text, ids, peer.decode(ids) if ids else ""] for text, ids in encoded],
                       "decode": [[ids, peer.decode(ids)] for ids in lists]}, f, indent=None, separators=(",", ":"))
            f.write("\n")
        print(f"{name}: {n_pieces} pieces, {len(model)} bytes, {len(texts)} texts, {len(lists)} lists of ids")


if __name__ == "__main__":
    main()
