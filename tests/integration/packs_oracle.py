"""Packs against the oracle's answers: a coordinator with --pack, and one of the exported checkpoint, say what the oracle says of the checkpoint
that numpy put together (tests/vectors/packs, made by pack_vectors.py). f32: log-probabilities within 1e-4, experts and greedy tokens equal.

Usage: packs_oracle.py CONCLAVE COORDINATOR"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

import concatenated
import oracle
from coordinator import Coordinator

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
VECTORS = os.path.join(ROOT, "tests", "vectors")
# One of each family that the oracle knows, and of each gate.
MODELS = ("olmoe-gqa", "molm-mlp", "molm-linear-kv", "molm-gmm-k4", "moe++-raw-logits", "moe++-2layer-double")
# What is in tests/vectors/packs, and of which model: of each gate also with attention experts.
PACKS = {**{name: name for name in MODELS}, **{f"{name}-attention": name for name in ("molm-mlp", "molm-linear-kv", "molm-gmm-k4")}}
LOCAL = 4  # of MoE++: experts without an FFN, which stand behind the others in a checkpoint and before the added ones in a server


def ask(conclave, server, config, expected):
    tokens = ",".join(map(str, expected["token_ids"]))
    scored = oracle.run_json(conclave, server, "score", "--tokens", tokens, "--top", str(oracle.TOP), "--experts")[0]["tokens"]
    chunks = oracle.run_json(conclave, server, "generate", "--tokens", tokens, "--temperature", "0", "--ignore-eos", "--max-tokens",
                             str(len(expected["greedy"])))
    return oracle.Figures(config, expected, scored, [id for chunk in chunks for id in chunk.get("token_ids", [])])


def as_served(config, expected):
    """The oracle's ids as a server numbers the experts that a pack adds."""
    if config["model_type"] != "MoE++":
        return expected
    n, n_added = config["num_experts"][0], 2
    ids = np.array([*range(n - LOCAL), *range(n, n + n_added), *range(n - LOCAL, n)])
    return {key: np.sort(ids[values], 1) if key.startswith("experts.") else values for key, values in expected.items()}


def compare(what, figures):
    print(f"{what}: {figures}", flush=True)
    assert not figures.faults(), figures.faults()


def check(conclave, program, name, folder):
    model, pack, out = os.path.join(VECTORS, PACKS[name]), os.path.join(VECTORS, "packs", name), os.path.join(folder, name)
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    expected = oracle.load(os.path.join(pack, "expected.safetensors"))
    with Coordinator(program, model, "--cache-dir", folder, "--pack", pack) as server:
        compare(f"{name} with its pack", ask(conclave, server, config, as_served(config, expected)))
    subprocess.run([conclave, "export", out, "--model", model, "--pack", pack], check=True, capture_output=True,
                   env={**os.environ, "XDG_CACHE_HOME": folder})
    with Coordinator(program, out, "--cache-dir", folder) as server:
        compare(f"{name} exported", ask(conclave, server, config, expected))


def check_pruned(conclave, program, folder):
    """Experts left out, exported, against the oracle's --absent: by silent experts and the file that names the others."""
    model, out = os.path.join(VECTORS, "olmoe-gqa"), os.path.join(folder, "pruned")
    left = [[e for e in range(8) if e not in absent] for absent in ((1, 5), (0,))]  # tests/vectors/README.md
    with open(os.path.join(folder, "set.json"), "w", encoding="utf-8") as f:
        json.dump({"layers": [",".join(map(str, ids)) for ids in left]}, f)
    subprocess.run([conclave, "export", out, "--model", model, "--set", os.path.join(folder, "set.json")], check=True, capture_output=True,
                   env={**os.environ, "XDG_CACHE_HOME": folder})
    expected = oracle.load(os.path.join(model, "expected_absent.safetensors"))
    for layer, ids in enumerate(left):
        expected[f"experts.{layer}"] = np.searchsorted(ids, expected[f"experts.{layer}"])
    with open(os.path.join(out, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    with Coordinator(program, out, "--cache-dir", folder) as server:
        compare("olmoe-gqa pruned, exported", ask(conclave, server, config, expected))


def check_replaced(conclave, program, name, folder):
    """Experts that replace others: with the pack, exported, and written over them by numpy, the answers are the same."""
    model, pack, out, whole = os.path.join(VECTORS, name), *(os.path.join(folder, f"{name}-{end}".replace("+", "p")) for end in ("fix", "out", "whole"))
    env = {**os.environ, "XDG_CACHE_HOME": folder}
    said = concatenated.make_pack("random", pack, "--model", model, "--conclave", conclave, "--kind", "replace", "--experts", "2")
    assert said is None, said
    subprocess.run([conclave, "export", out, "--model", model, "--pack", pack], check=True, capture_output=True, env=env)
    concatenated.write(whole, *concatenated.concatenate(model, pack))
    scores = []
    for args in ((model, "--pack", pack), (out,), (whole,), (model,)):
        with Coordinator(program, *args, "--cache-dir", folder) as server:
            scored = oracle.run_json(conclave, server, "score", "--tokens", ",".join(map(str, range(3, 40))), "--top", "5")[0]["tokens"]
            scores.append([top["logprob"] for token in scored for top in token.get("top", [])])
    differences = [float(np.abs(np.array(s) - scores[0]).max()) for s in scores[1:]]
    print(f"{name} with replaced experts: exported {differences[0]:.2e}, in their places {differences[1]:.2e}, without {differences[2]:.2e}", flush=True)
    assert max(differences[:2]) <= 1e-4 < differences[2]


def main():
    conclave, program = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for name in PACKS:
            check(conclave, program, name, folder)
        check_pruned(conclave, program, folder)
        for name in ("qwen3-moe", "moe++-2layer-double"):
            check_replaced(conclave, program, name, folder)
    print(f"{2 * len(PACKS) + 1} servers agree with the oracle")


if __name__ == "__main__":
    main()
