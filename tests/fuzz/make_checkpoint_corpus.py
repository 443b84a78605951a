#!/usr/bin/python3
"""Writes the seed corpora of fuzz_safetensors and fuzz_checkpoint_index: make_checkpoint_corpus.py [CORPUS_DIR]

One input per rule of the formats, so that the corpora alone reach (nearly) every line of both parsers."""
import os
import struct
import sys


def image(header, data_bytes=0, length=None):
    text = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data_bytes)


def tensor(name="a", dtype='"U8"', shape="[4]", offsets="[0,4]"):
    return f'"{name}":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}'


def one(**fields):
    return "{" + tensor(**fields) + "}"


SAFETENSORS = {
    "sound": image('{"__metadata__":{"format":"pt"},' + tensor("a", '"F32"', "[2,3]", "[0,24]") + ","
                   + tensor("b", '"BF16"', "[4]", "[24,32]") + "," + tensor("c", '"F16"', "[]", "[32,34]") + "}  ", 34),
    "any_order": image("{" + tensor("b", shape="[1]", offsets="[1,2]") + "," + tensor("a", shape="[1]", offsets="[0,1]")
                       + "," + tensor("e", shape="[0,9]", offsets="[1,1]") + "}", 2),
    "white_space": image('{ "a" :\n\t{"dtype": "U8",\r"shape": [ 4 ], "data_offsets": [0, 4]} }', 4),
    "escapes": image(one(name='\\"\\u00e9\\\\'), 4),
    "sub_byte": image(one(dtype='"F4"', shape="[2,3]", offsets="[0,3]"), 3),
    "rank_8": image(one(shape="[1,1,1,1,1,1,1,4]"), 4),
    "no_tensors": image("{}"),
    "short": b"\2\0\0",
    "length_1": image("{"),
    "length_beyond": image("{}", length=3),
    "length_wraps": image("{}", length=2**64 - 8),
    "no_object": image("[]"),
    "bad_utf8": image(b'{"\xff":1}'),
    "open_object": image('{"a":{'),
    "open_string": image('{"a'),
    "nul": image('{"a\\u0000":{}}'),
    "trailing": image("{}\t"),
    "deep": image(one(shape="[[4]]"), 4),
    "object_for_array": image(one(shape='{"x":4}'), 4),
    "three_arrays": image('{"a":{"x":[1],"shape":[4],"data_offsets":[0,4]}}', 4),
    "rank_9": image(one(shape="[1,1,1,1,1,1,1,1,1]"), 4),
    "fraction": image(one(shape="[4.0]"), 4),
    "negative": image(one(offsets="[-0,4]"), 4),
    "not_json": image('{"a" 1}'),
    "twice": image("{" + tensor() + "," + tensor() + "}", 4),
    "two_to_the_63": image(one(shape="[9223372036854775808]"), 4),
    "long_name": image(one(name="n" * 513), 4),
    "number_for_tensor": image('{"a":4}'),
    "no_dtype": image('{"a":{"type":"U8","shape":[4],"data_offsets":[0,4]}}', 4),
    "unknown_dtype": image(one(dtype='"u8"'), 4),
    "string_dimension": image(one(shape='["4"]'), 4),
    "number_for_shape": image(one(shape="4"), 4),
    "overflow": image(one(shape="[4294967296,4294967296,0]"), 4),
    "odd_bits": image(one(dtype='"F6_E3M2"', shape="[5]"), 4),
    "one_offset": image(one(offsets="[4]"), 4),
    "outside": image(one(offsets="[4,8]"), 4),
    "wrong_size": image(one(shape="[3]"), 4),
    "hole": image(one(shape="[3]", offsets="[1,4]"), 4),
    "overlap": image("{" + tensor("a") + "," + tensor("b") + "}", 4),
    "rest": image(one(), 5),
    "metadata_no_object": image('{"__metadata__":1}'),
    "metadata_no_string": image('{"__metadata__":{"x":1}}'),
}

INDEX = {
    "sound": '{"metadata":{"total_size":3},"weight_map":{"x":"a.safetensors","y":"b.safetensors","z":"a.safetensors"}}',
    "one_shard": '{"weight_map":{"x":"a.safetensors","z":"a.safetensors"}}',
    "empty": "",
    "not_json": "{",
    "no_map": "{}",
    "array": '{"weight_map":["x"]}',
    "number": '{"weight_map":{"x":1}}',
    "twice": '{"weight_map":{"x":"a.safetensors","x":"a.safetensors"}}',
    "above": '{"weight_map":{"x":"../a.safetensors"}}',
    "slash": '{"weight_map":{"x":"d/a.safetensors"}}',
    "hidden": '{"weight_map":{"x":".a.safetensors"}}',
    "suffix": '{"weight_map":{"x":"a.bin"}}',
    "control": '{"weight_map":{"x":"a\\u0001.safetensors"}}',
    "long_name": '{"weight_map":{"' + "n" * 513 + '":"a.safetensors"}}',
    "missing_shard": '{"weight_map":{"x":"c.safetensors"}}',
    "missing_tensor": '{"weight_map":{"w":"a.safetensors","x":"a.safetensors","z":"a.safetensors"}}',
    "unmapped_tensor": '{"weight_map":{"x":"a.safetensors"}}',
    "deep": '{"metadata":[[[[[[[[[]]]]]]]]]}',
}


def write(folder, inputs):
    os.makedirs(folder, exist_ok=True)
    for name, content in inputs.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(content if isinstance(content, bytes) else content.encode())


if __name__ == "__main__":
    corpus = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
    write(os.path.join(corpus, "fuzz_safetensors"), SAFETENSORS)
    write(os.path.join(corpus, "fuzz_checkpoint_index"), INDEX)
