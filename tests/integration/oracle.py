"""The service against the oracle's answers: conclave score and generate over gRPC, checkpoints of tests/vectors/README.md's recipe.

Usage: oracle.py CONCLAVE COORDINATOR DIR...

f32: every log-probability within 1e-4, experts and greedy tokens equal. bf16 (a checkpoint whose config says so): median difference at
most 0.04, expert sets equal for 95 % of (token, layer) pairs; for OLMoE also for 99 % of the tokens whose margin is above 0.02. (In
the other families an earlier token's flip reaches later ones: there the figure is printed.)
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
    """Differences of all log-probabilities reported, and per token and layer whether the experts are equal."""
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
    assert len(differences) > 0 and all(map(math.isfinite, differences))
    return differences, np.array(pairs)


class Figures:
    """What was found on one checkpoint."""

    def __init__(self, config, expected, scored, greedy):
        self.bf16 = config.get("torch_dtype", config.get("dtype")) == "bfloat16"
        self.olmoe = config["model_type"] == "olmoe"
        self.scored, self.expected = scored, expected
        self.differences, self.pairs = compare(scored, expected, config.get("num_hidden_layers", config.get("n_layer")))
        self.n_greedy = len(expected["greedy"])
        self.equal_greedy = next((i for i, (a, b) in enumerate(zip(greedy, expected["greedy"])) if a != b), len(greedy))
        assert len(greedy) == self.n_greedy
        sure = expected["margin"] > 0.02
        self.sure = self.pairs[sure].all(axis=1).mean() if sure.any() else 1.0

    def first_other_experts(self):
        """Where it first goes another way, in the order in which it is computed within a token."""
        if self.pairs.all():
            return ""
        t, l = next(zip(*np.nonzero(~self.pairs)))
        ours = next(e["ids"] for e in self.scored[t]["experts"] if e["layer"] == l)
        return f"; token {t} layer {l}: {ours}, oracle {self.expected[f'experts.{l}'][t].tolist()}"

    def faults(self):
        if not self.bf16:
            limits = {"log-probabilities": max(self.differences) <= 1e-4, "experts": self.pairs.all(),
                      "greedy tokens": self.equal_greedy == self.n_greedy}
        else:
            limits = {"median": statistics.median(self.differences) <= 0.04, "experts": self.pairs.mean() >= 0.95,
                      "experts of sure tokens": not self.olmoe or self.sure >= 0.99}
        return [name for name, holds in limits.items() if not holds]

    def __str__(self):
        return (f"{len(self.scored)} tokens, log-probability difference max {max(self.differences):.2e} median "
                f"{statistics.median(self.differences):.2e}, expert sets equal {self.pairs.mean():.4f} (sure tokens {self.sure:.4f}), "
                f"greedy {self.equal_greedy} of {self.n_greedy}{self.first_other_experts()}")


def ask(conclave, coordinator, model):
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    expected = load(os.path.join(model, "expected.safetensors"))
    tokens = ",".join(map(str, expected["token_ids"]))
    scored = run_json(conclave, coordinator, "score", "--tokens", tokens, "--top", str(TOP), "--experts")[0]["tokens"]
    chunks = run_json(conclave, coordinator, "generate", "--tokens", tokens, "--temperature", "0", "--ignore-eos", "--max-tokens",
                      str(len(expected["greedy"])))
    return Figures(config, expected, scored, [id for chunk in chunks for id in chunk.get("token_ids", [])])


def check(conclave, program, model, *args):
    with Coordinator(program, model, *args) as coordinator:
        figures = ask(conclave, coordinator, model)
        code, rest = coordinator.stop()
    assert (code, rest) == (0, ""), (code, rest)
    print(f"{model}: {figures}")
    assert not figures.faults(), figures.faults()


def main():
    conclave, program, *models = sys.argv[1:]
    for model in models:
        check(conclave, program, model, "--cache-dir", "")
    print(f"{len(models)} checkpoints agree with the oracle")


if __name__ == "__main__":
    main()
