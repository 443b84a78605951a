"""The service against the oracle's answers: conclave score and generate over gRPC, checkpoints of tests/vectors/README.md's recipe.

Usage: oracle.py CONCLAVE COORDINATOR DIR...

f32: every log-probability within 1e-4, experts and greedy tokens equal. bf16 (a checkpoint whose config says so): median difference at
most 0.04, expert sets equal for 95 % of (token, layer) pairs and for 99 % of the tokens whose margin is above 0.02.
"""
import json
import math
import os
import statistics
import struct
import sys

import numpy as np

from coordinator import Coordinator, run_json

TOP = 50
DTYPES = {"F32": "<f4", "I32": "<i4"}


def load(path):
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        data = f.read()
    return {name: np.frombuffer(data[slice(*t["data_offsets"])], DTYPES[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items() if name != "__metadata__"}


def log_softmax(logits):
    x = logits.astype(np.float64)
    m = x.max(-1, keepdims=True)
    return x - m - np.log(np.exp(x - m).sum(-1, keepdims=True))


def compare(scored, expected, n_layers):
    """Differences of all log-probabilities reported, and per token the share of layers whose experts are equal."""
    want = log_softmax(expected["logits"])
    differences, pairs = [], []
    for t, token in enumerate(scored):
        assert token["id"] == expected["token_ids"][t], (t, token["id"])
        assert ("logprob" in token) == (t > 0)
        if t > 0:
            differences.append(abs(token["logprob"] - want[t - 1][token["id"]]))
            assert len(token["top"]) == min(TOP, want.shape[1])
            differences += [abs(top["logprob"] - want[t - 1][top["id"]]) for top in token["top"]]
        layers = {e["layer"]: e["ids"] for e in token["experts"]}
        assert sorted(layers) == list(range(n_layers))
        pairs.append([layers[l] == expected[f"experts.{l}"][t].tolist() for l in range(n_layers)])
    return differences, np.array(pairs)


def check(conclave, program, model, *args):
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    bf16 = config["torch_dtype"] == "bfloat16"
    expected = load(os.path.join(model, "expected.safetensors"))
    tokens = ",".join(map(str, expected["token_ids"]))
    with Coordinator(program, model, *args) as coordinator:
        scored = run_json(conclave, coordinator, "score", "--tokens", tokens, "--top", str(TOP), "--experts")[0]["tokens"]
        chunks = run_json(conclave, coordinator, "generate", "--tokens", tokens, "--temperature", "0", "--ignore-eos", "--max-tokens",
                          str(len(expected["greedy"])))
        code, rest = coordinator.stop()
    assert (code, rest) == (0, ""), (code, rest)
    greedy = [id for chunk in chunks for id in chunk.get("token_ids", [])]
    differences, pairs = compare(scored, expected, config["num_hidden_layers"])
    assert len(differences) > 0 and all(map(math.isfinite, differences))
    equal_greedy = next((i for i, (a, b) in enumerate(zip(greedy, expected["greedy"])) if a != b), len(greedy))
    print(f"{model}: {len(scored)} tokens, log-probability difference max {max(differences):.2e} median "
          f"{statistics.median(differences):.2e}, expert sets equal {pairs.mean():.4f}, greedy {equal_greedy} of {len(greedy)}")
    assert len(greedy) == len(expected["greedy"])
    if bf16:
        sure = expected["margin"] > 0.02
        assert statistics.median(differences) <= 0.04
        assert pairs.mean() >= 0.95
        assert not sure.any() or pairs[sure].all(axis=1).mean() >= 0.99
    else:
        assert max(differences) <= 1e-4
        assert pairs.all()
        assert greedy == expected["greedy"].tolist()


def main():
    conclave, program, *models = sys.argv[1:]
    for model in models:
        check(conclave, program, model)
    print(f"{len(models)} checkpoints agree with the oracle")


if __name__ == "__main__":
    main()
