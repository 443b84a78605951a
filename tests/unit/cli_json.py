"""Compares the command line's JSON with python3-protobuf's json_format on random messages.

Usage: cli_json.py PROGRAM PROTO_DIR    (PROGRAM: tests/unit/cli_json.c)
Where the two differ on purpose, the expectation is changed first: empty strings, bytes and lists that cannot be unset are
left out.
"""
import json
import random
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor as F

TYPES = ["GenerateRequest", "GenerateResponse", "CompleteResponse", "ScoreResponse", "GetModelResponse",
         "GetClusterResponse", "ListExpertsResponse", "GetExpertStatsResponse"]
ROUNDS = 12
WIDE = {F.CPPTYPE_INT64, F.CPPTYPE_UINT64}


def load(proto_dir):
    with tempfile.NamedTemporaryFile(suffix=".pb") as out:
        subprocess.run(["protoc", "-I", proto_dir, "--include_imports", "--descriptor_set_out", out.name,
                        "conclave/v1/inference.proto", "conclave/v1/admin.proto"], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def scalar(field, rng):
    kind = field.cpp_type
    if kind == F.CPPTYPE_STRING:
        if field.type == F.TYPE_BYTES:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(8)))
        return "".join(rng.choice("a\"\\\n\té€😀\x7f\x01/") for _ in range(rng.randrange(8)))
    if kind == F.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind == F.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind in (F.CPPTYPE_FLOAT, F.CPPTYPE_DOUBLE):
        return rng.choice([0.0, -0.0, 1.0, -1.25, rng.gauss(0, 1), rng.gauss(0, 1e20), rng.gauss(0, 1e-20),
                           float("nan"), float("inf"), float("-inf")])
    bits = 64 if kind in WIDE else 32
    low = 0 if kind in (F.CPPTYPE_UINT32, F.CPPTYPE_UINT64) else -(1 << (bits - 1))
    high = low + (1 << bits) - 1
    return rng.choice([0, 1, low, high, rng.randint(low, high)])


def fill(message, rng):
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.4:
            continue
        value = getattr(message, field.name)
        if field.label == F.LABEL_REPEATED:
            for _ in range(rng.randrange(4)):
                if field.message_type:
                    fill(value.add(), rng)
                else:
                    value.append(scalar(field, rng))
        elif field.message_type:
            value.SetInParent()
            fill(value, rng)
        else:
            setattr(message, field.name, scalar(field, rng))


def adjust(message, expected):
    for field in message.DESCRIPTOR.fields:
        if field.name not in expected:
            continue
        value = expected[field.name]
        if field.message_type:
            if field.label == F.LABEL_REPEATED:
                for element, json_element in zip(getattr(message, field.name), value):
                    adjust(element, json_element)
            else:
                adjust(getattr(message, field.name), value)
        if expected[field.name] in ("", []) and not field.containing_oneof:
            del expected[field.name]


def main():
    program, proto_dir = sys.argv[1:]
    pool = load(proto_dir)
    rng = random.Random(1)
    for name in TYPES * ROUNDS:
        message = message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("conclave.v1." + name))()
        fill(message, rng)
        expected = json.loads(json_format.MessageToJson(message, including_default_value_fields=True,
                                                        preserving_proto_field_name=True))
        adjust(message, expected)
        out = subprocess.run([program, name], input=message.SerializeToString(), stdout=subprocess.PIPE, check=True)
        got = json.loads(out.stdout)
        if got != expected:
            sys.exit(f"{name}:\n got      {json.dumps(got)}\n expected {json.dumps(expected)}")
    print(f"{len(TYPES) * ROUNDS} messages equal")


if __name__ == "__main__":
    main()
