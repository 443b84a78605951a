#!/usr/bin/env python3
"""Pickled checkpoints written by torch.save, each with the same tensors as expected.safetensors: make_torch_vectors.py OUT
makes OUT/<version of torch>.

expected.safetensors is written here from the tensors' own bytes (not by the program under test). Values are small integers and
fractions made from indices, so that the files are the same whatever the random generator of a torch version does."""
import collections
import json
import os
import struct
import sys

import torch

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64", torch.int8: "I8",
         torch.uint8: "U8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64", torch.bool: "BOOL"}


def tensor(*shape, dtype=torch.float32, start=0):
    n = 1
    for size in shape:
        n *= size
    values = torch.arange(start, start + n, dtype=torch.int64) * 37 % 101 - 50
    if dtype.is_floating_point:
        return (values.to(torch.float64) / 16).to(dtype).reshape(shape)
    if dtype == torch.bool:
        return (values > 0).reshape(shape)
    return (values.abs() if dtype == torch.uint8 else values).to(dtype).reshape(shape)


def raw(t):
    return bytes(t.detach().contiguous().flatten().view(torch.uint8).tolist()) if t.dim() else raw(t.reshape(1))


def write_expected(path, tensors):
    header, data = {}, b""
    for name, t in tensors.items():
        piece = raw(t) if t.numel() else b""
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def sharded(out):
    """As MoLM-8B is published: bf16 weights, an int8 and a bf16 buffer per layer, an fp32 router, two shards and their index."""
    first, second = collections.OrderedDict(), {}
    first["transformer.wte.weight"] = tensor(10, 8, dtype=torch.bfloat16)
    for layer, shard in ((0, first), (1, second)):
        at = "transformer.h.%d." % layer
        shard[at + "attn.mask"] = torch.tril(torch.ones(6, 6, dtype=torch.int8))
        shard[at + "attn.cum_weight"] = torch.tril(torch.ones(6, 6), -1).to(torch.bfloat16)
        shard[at + "mlpf.experts.weight"] = tensor(4, 8, 6, dtype=torch.bfloat16, start=layer)
        shard[at + "mlpf.gate.w_gate.0.weight"] = tensor(3, 8, start=layer)
    second["lm_head.weight"] = tensor(10, 8, dtype=torch.bfloat16, start=3)
    # a module's state_dict carries this attribute, so that torch.save writes BUILD
    first._metadata = collections.OrderedDict([("", {"version": 1}), ("transformer", {"version": 1})])
    os.makedirs(out)
    weight_map = {}
    for i, shard in enumerate((first, second)):
        name = "pytorch_model-%05d-of-00002.bin" % (i + 1)
        torch.save(shard, os.path.join(out, name))
        weight_map.update({key: name for key in shard})
    total = sum(t.numel() * t.element_size() for shard in (first, second) for t in shard.values())
    write_json(os.path.join(out, "pytorch_model.bin.index.json"), {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(os.path.join(out, "config.json"), {"model_type": "moduleformer"})
    write_expected(os.path.join(out, "expected.safetensors"), {**first, **second})


def single(out):
    """Every dtype; storages that are shared, strided, offset, empty; a scalar; a parameter."""
    base = tensor(6, 8)
    tensors = {
        "bf16": tensor(3, 5, dtype=torch.bfloat16),
        "f16": tensor(3, 5, dtype=torch.float16),
        "f64": tensor(7, dtype=torch.float64),
        "i8": tensor(9, dtype=torch.int8),
        "u8": tensor(9, dtype=torch.uint8),
        "i16": tensor(5, dtype=torch.int16),
        "i32": tensor(5, dtype=torch.int32),
        "i64": tensor(5, dtype=torch.int64),
        "bool": tensor(2, 3, dtype=torch.bool),
        "tied.a": base,
        "tied.b": base,
        "view.transposed": base.t(),
        "view.rows": base[2:5],
        "view.columns": base[:, 1:7:2],
        "view.permuted": tensor(2, 3, 4, dtype=torch.bfloat16).permute(2, 0, 1),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(1.5),
        "parameter": torch.nn.Parameter(tensor(4)),
        "\u00fcnic\u00f6de \"name\"": tensor(2),
    }
    os.makedirs(out)
    torch.save(tensors, os.path.join(out, "pytorch_model.bin"))
    write_expected(os.path.join(out, "expected.safetensors"), tensors)


if __name__ == "__main__":
    root = os.path.join(sys.argv[1], torch.__version__.split("+")[0])
    sharded(os.path.join(root, "sharded"))
    single(os.path.join(root, "single"))
    os.makedirs(os.path.join(root, "legacy"))
    torch.save({"a": tensor(2)}, os.path.join(root, "legacy", "pytorch_model.bin"), _use_new_zipfile_serialization=False)
