"""Files of checkpoints and packs, for the tools that make packs (docs/packs.md): tensors of a directory's safetensors, and a pack written
whole or not at all. Plain Python; numpy arrays go in and out through `array` and `stored`."""
import collections
import hashlib
import json
import mmap
import os
import shutil
import struct
import sys
import tempfile

# A tensor as a file has it: dtype as safetensors spells it, shape, bytes (any buffer).
Stored = collections.namedtuple("Stored", "dtype shape data")


def load_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def read_safetensors(path):
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))[8 + size:]
    header.pop("__metadata__", None)
    return {name: Stored(t["dtype"], tuple(t["shape"]), data[slice(*t["data_offsets"])]) for name, t in header.items()}


def read_directory(path):
    """All tensors of a checkpoint or a pack: name -> Stored."""
    index = os.path.join(path, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_safetensors(os.path.join(path, "model.safetensors"))
    tensors = {}
    for name in sorted(set(load_json(index)["weight_map"].values())):
        tensors.update(read_safetensors(os.path.join(path, name)))
    return tensors


def array(t):
    """As float32; numpy."""
    import numpy as np
    if t.dtype == "BF16":
        return (np.frombuffer(t.data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(t.shape)
    return np.frombuffer(t.data, {"F32": "<f4", "F16": "<f2"}[t.dtype]).astype(np.float32).reshape(t.shape)


def stored(values, dtype):
    """A float32 array as a tensor of F32, BF16 (to nearest, ties to even) or F16."""
    import numpy as np
    values = np.ascontiguousarray(values, np.float32)
    if dtype == "BF16":
        bits = values.view(np.uint32)
        data = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2").tobytes()
    else:
        data = values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
    return Stored(dtype, values.shape, data)


def write_safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, t in sorted(tensors.items()):
        header[name] = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [at, at + len(t.data)]}
        at += len(t.data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, t in sorted(tensors.items()):
            f.write(t.data)


def manifest_of(fields, layers, tensors):
    """pack.json: fields are kind, name, version, family, base and what else is given; layers as docs/packs.md has them."""
    return {"v": 1, **fields, "layers": layers,
            "tensors": {name: {"dtype": t.dtype, "shape": list(t.shape), "sha256": hashlib.sha256(t.data).hexdigest()}
                        for name, t in sorted(tensors.items())}}


def write_pack(out, fields, layers, tensors):
    """Into a directory beside `out`, which is moved there when it is whole. `out` must not be there."""
    out = os.path.abspath(out)
    if os.path.lexists(out):
        sys.exit(f"{out} exists already")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    work = tempfile.mkdtemp(prefix=os.path.basename(out) + ".part-", dir=os.path.dirname(out))
    try:
        write_safetensors(os.path.join(work, "model.safetensors"), tensors)
        with open(os.path.join(work, "pack.json"), "w", encoding="utf-8") as f:
            json.dump(manifest_of(fields, layers, tensors), f, indent=1)
            f.write("\n")
        os.chmod(work, 0o755)
        os.rename(work, out)
    except OSError as error:
        sys.exit(f"{out}: {error.strerror}; nothing was left behind")
    finally:
        shutil.rmtree(work, ignore_errors=True)
