#!/usr/bin/env python3
"""Writes seeds of fuzz_grpc_request: sound requests and one file per rule of the public API and of the wire form that a request
breaks. The first byte is the message + 12 * the engine (0 whole, 1 without tokenizer, 2 without chat template, for a
token that is bound to the set "base").

usage: make_request_corpus.py tests/fuzz/corpus"""
import pathlib
import struct
import sys

GENERATE, SCORE, TOKENIZE, DETOKENIZE, CLASSIFY, EXPERTS, REFLECTION, PRUNE, DEFINE, UPDATE, SETS, DIFF = range(12)
NO_TOKENIZER, NO_CHAT = 12, 24
BOUND = NO_CHAT
SET_ID = "b52983243d9b3d07805550218c45c4221f78b2b12c242ba0cd191eb018f660c2"  # of the fake engine


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value & (1 << 64) - 1)


def real(field, value):
    return varint(field << 3 | 5) + struct.pack("<f", value)


def part(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def ids(field, values):
    return part(field, part(1, b"".join(varint(v & (1 << 64) - 1) for v in values)))


def messages(*items):
    return part(3, b"".join(part(1, number(1, role) + part(2, text)) for role, text in items))


def sampling(*fields):
    return ids(2, [1]) + part(4, b"".join(fields))


INPUTS = {
    "roles": (GENERATE, messages((1, "s"), (2, "u"), (3, "a"))),
    "role_unknown": (GENERATE, messages((6, "x"))),
    "messages_tools": (GENERATE, part(3, part(1, number(1, 4) + part(2, "x") + part(3, "n") + part(4, "i")) +
                                      part(1, number(1, 3) + part(5, "[]") + part(6, "r")) + part(2, "[]") + part(3, "{}"))),
    "messages_none": (GENERATE, messages()),
    "messages_many": (GENERATE, part(3, part(1, "") * 4097)),
    "no_input": (GENERATE, b""),
    "empty_prompt": (GENERATE, ids(2, [])),
    "empty_text": (GENERATE, part(1, "")),
    "text_long": (GENERATE, part(1, "a" * 4097)),
    "text_invalid": (GENERATE, part(1, b"a\xff")),
    "text_as_number": (GENERATE, number(1, 5)),
    "id_negative": (GENERATE, ids(2, [1, -1])),
    "id_beyond": (GENERATE, ids(2, [300])),
    "ids_many": (GENERATE, ids(2, [1] * 4097)),
    "no_tokenizer_text": (GENERATE + NO_TOKENIZER, part(1, "a")),
    "no_tokenizer_messages": (GENERATE + NO_TOKENIZER, messages((2, "a"))),
    "no_tokenizer_ids": (GENERATE + NO_TOKENIZER, ids(2, [1])),
    "no_tokenizer_stop": (GENERATE + NO_TOKENIZER, sampling(part(11, "x"))),
    "no_chat": (GENERATE + NO_CHAT, messages((2, "a"))),
    "set_current": (GENERATE, ids(2, [1]) + part(5, part(1, SET_ID))),
    "set_unknown": (GENERATE, ids(2, [1]) + part(5, part(1, "b" * 64))),
    "set_empty": (GENERATE, ids(2, [1]) + part(5, b"")),
    "set_include": (GENERATE, ids(2, [1]) + part(5, part(2, "x"))),
    "set_exclude": (GENERATE, ids(2, [1]) + part(5, part(3, "x"))),
    "set_default": (GENERATE, ids(2, [1]) + part(5, part(1, "default"))),
    "set_base": (GENERATE, ids(2, [1]) + part(5, part(1, "base"))),
    "set_id_and_include": (GENERATE, ids(2, [1]) + part(5, part(1, "base") + part(2, "x"))),
    "set_include_base": (GENERATE, ids(2, [1]) + part(5, part(2, "base"))),
    "set_exclude_base": (GENERATE, ids(2, [1]) + part(5, part(3, "base"))),
    "set_include_many": (GENERATE, ids(2, [1]) + part(5, part(2, "x") * 65)),
    "set_exclude_many": (GENERATE, ids(2, [1]) + part(5, part(3, "x") * 65)),
    "bound_unset": (GENERATE + BOUND, ids(2, [1])),
    "bound_base": (GENERATE + BOUND, ids(2, [1]) + part(5, part(1, "base"))),
    "bound_unknown": (GENERATE + BOUND, ids(2, [1]) + part(5, part(1, "nobody"))),
    "bound_exclude": (SCORE + BOUND, ids(2, [1]) + part(4, part(3, "x"))),
    "prune": (PRUNE, part(1, number(1, 1) + part(2, b"\x00\x02")) + real(2, 0.5) + part(5, part(1, "who") + part(2, "why") + number(3, 1) + number(4, 9))),
    "define": (DEFINE, part(1, "few") + part(4, number(1, 0) + part(2, b"\x00\x01")) + part(4, number(1, 1) + part(2, b"\x00\x03"))),
    "define_plain": (DEFINE, part(1, "few")),
    "define_base": (DEFINE, part(1, "base")),
    "define_include": (DEFINE, part(1, "few") + part(2, "base") + part(3, "x")),
    "define_layer_beyond": (DEFINE, part(1, "few") + part(4, number(1, 7) + part(2, b"\x00"))),
    "define_expert_beyond": (DEFINE, part(1, "few") + part(4, part(2, b"\x09"))),
    "define_too_few": (DEFINE, part(1, "few") + part(4, part(2, b"\x01"))),
    "define_many_experts": (DEFINE, part(1, "few") + part(4, part(2, b"\x01" * 9))),
    "update": (UPDATE, part(1, "german") + part(2, "packs/german")),
    "sets": (SETS, part(1, "few") + number(2, 1)),
    "diff": (DIFF, part(1, "base") + part(2, "default")),
    "request_id": (GENERATE, ids(2, [1]) + part(6, "Az09._:-")),
    "request_id_space": (GENERATE, ids(2, [1]) + part(6, "a b")),
    "request_id_long": (GENERATE, ids(2, [1]) + part(6, "a" * 129)),
    "sampling_all": (GENERATE, sampling(number(1, 9), number(2, 3), real(3, 0.5), number(4, 40), real(5, 0.9), real(6, 0.1),
                                        real(7, 1.5), real(8, -2.0), real(9, 2.0), number(10, 7), part(11, "x"),
                                        number(12, 5), number(13, 1), number(14, 2), number(15, 50))),
    "min_above_max": (GENERATE, sampling(number(1, 1), number(2, 2))),
    "temperature_beyond": (GENERATE, sampling(real(3, 101.0))),
    "temperature_nan": (GENERATE, sampling(real(3, float("nan")))),
    "top_p_zero": (GENERATE, sampling(real(5, 0.0))),
    "top_k_beyond": (GENERATE, sampling(number(4, 1 << 31))),
    "n_zero": (GENERATE, sampling(number(14, 0))),
    "n_beyond": (GENERATE, sampling(number(14, 17))),
    "logprobs_beyond": (GENERATE, sampling(number(15, 51))),
    "stop_many": (GENERATE, sampling(*[part(11, "x")] * 17)),
    "stop_empty": (GENERATE, sampling(part(11, ""))),
    "stop_long": (GENERATE, sampling(part(11, "x" * 257))),
    "stop_ids_many": (GENERATE, sampling(*[number(12, 1)] * 65)),
    "stop_id_negative": (GENERATE, sampling(number(12, -1))),
    "resume": (GENERATE, sampling(number(10, 7)) + ids(9, [2, 3])),
    "resume_choices": (GENERATE, sampling(number(14, 2)) + ids(9, [2])),
    "resume_no_seed": (GENERATE, ids(2, [1]) + ids(9, [2])),
    "resume_greedy": (GENERATE, sampling(real(3, 0.0)) + ids(9, [2])),
    "resume_beyond": (GENERATE, sampling(number(10, 7)) + ids(9, [999])),
    "score_ids": (SCORE, ids(2, [1, 2]) + number(6, 50) + number(7, 1)),
    "score_messages": (SCORE, messages((2, "a"))),
    "score_top": (SCORE, ids(2, [1]) + number(6, 51)),
    "score_id": (SCORE, ids(2, [1]) + part(5, "id") + number(6, 3)),
    "score_nothing": (SCORE, b""),
    "tokenize_nothing": (TOKENIZE, b""),
    "tokenize_no_tokenizer": (TOKENIZE + NO_TOKENIZER, part(1, "a")),
    "detokenize_utf8": (DETOKENIZE, part(1, varint(0xC3) + varint(0xA9) + varint(0xE2)) + number(2, 1)),
    "detokenize_beyond": (DETOKENIZE, part(1, varint(300))),
    "detokenize_no_tokenizer": (DETOKENIZE + NO_TOKENIZER, part(1, b"a")),
    "classify_messages": (CLASSIFY, messages((2, "a"))),
    "experts_layer": (EXPERTS, number(1, 1) + part(2, SET_ID)),
    "reflection_file": (REFLECTION, part(1, "h") + part(3, "conclave/v1/admin.proto")),
    "wire_varint_cut": (GENERATE, b"\x08\x80"),
    "wire_varint_long": (GENERATE, b"\x08" + b"\xff" * 11),
    "wire_length_beyond": (GENERATE, b"\x0a\x7f"),
    "wire_length_cut": (GENERATE, b"\x0a"),
    "wire_length_huge": (GENERATE, b"\x0a" + b"\xff" * 9 + b"\x01"),
    "wire_field_zero": (GENERATE, b"\x00\x00"),
    "wire_tag_beyond": (GENERATE, varint(1 << 36) + b"\x00"),
    "wire_group": (GENERATE, b"\x0b\x0c"),
    "wire_fixed": (GENERATE, b"\x09" + bytes(8) + b"\x0d" + bytes(4)),
    "wire_fixed_cut": (GENERATE, b"\x09" + bytes(7)),
    "wire_unknown": (GENERATE, ids(2, [1]) + number(300, 1) + part(301, "x")),
    "wire_nested_cut": (GENERATE, part(4, b"\x5a\x05x")),
    "budget": (GENERATE, part(4, part(11, "") * 4000)),
}

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1]) / "fuzz_grpc_request"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (kind, body) in INPUTS.items():
        (folder / name).write_bytes(bytes([kind]) + body)
