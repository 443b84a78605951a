"""Makes tests/vectors/packs/: for a model of tests/vectors and a pack for it, what the oracle says of the concatenated checkpoint.

Usage: pack_vectors.py ORACLE CONCLAVE OUT [PACK]...     (of packs_oracle.PACKS)

ORACLE is the oracle.py of tests/vectors/README.md. Of the packs that make_pack.py draws the first is taken for which no margin and no gap is
below 2e-6. OUT/PACK gets the pack and expected.safetensors."""
import importlib.util
import os
import shutil
import subprocess
import sys

import numpy as np

import concatenated
from packs_oracle import PACKS, ROOT, VECTORS

LEAST = 2e-6


def load_oracle(path):
    spec = importlib.util.spec_from_file_location("numpy_oracle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(oracle, conclave, out, name):
    model = os.path.join(VECTORS, PACKS[name])
    prompt = oracle.load_safetensors(os.path.join(model, "expected.safetensors"))["token_ids"]
    for seed in range(1, 1000):
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(["/usr/bin/python3", "-B", os.path.join(ROOT, "tools", "make_pack.py"), "random", out, "--model", model, "--conclave", conclave,
                        "--experts", "2", "--seed", str(seed), "--name", name.replace("+", "p"),
                        *(["--attention", "2"] if name.endswith("-attention") else [])], check=True, stdout=subprocess.DEVNULL)
        config, w = concatenated.concatenate(model, out)
        answers = oracle.answers(config, w, prompt)
        if min(np.abs(answers[key][0]).min() for key in ("margin", "greedy_gap", "greedy_margin")) >= LEAST:
            oracle.save_safetensors(os.path.join(out, "expected.safetensors"), answers)
            return seed
    raise RuntimeError(f"{name}: no seed keeps every margin above {LEAST}")


def main():
    path, conclave, out, *names = sys.argv[1:]
    oracle = load_oracle(path)
    for name in names or PACKS:
        print(name, "seed", make(oracle, conclave, os.path.join(out, name), name), flush=True)


if __name__ == "__main__":
    main()
