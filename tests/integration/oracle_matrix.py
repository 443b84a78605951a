"""Fresh random checkpoints of every combination that the oracle can express, through the service, as a table. By hand: it takes minutes.

Usage: oracle_matrix.py CONCLAVE COORDINATOR NODE MAKE_CHECKPOINT ORACLE [--tokens 24,1500] [--nodes 0,1,2,5] [--only TEXT] [--seed N] [--bf16]

ORACLE is the oracle.py of tests/vectors/README.md. Nodes 0 is one process. The context is 2048 throughout.
"""
import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile

import oracle
from coordinator import Coordinator
from members import Etcd, Process
from pool_case import CONCLAVE, COORDINATOR, NODE

ORACLE = sys.argv[5]


def named(prefix, **options):
    """All combinations of the options: name -> settings. An option is a list of (word, settings)."""
    for chosen in itertools.product(*options.values()):
        settings = {}
        for _, more in chosen:
            settings.update(more)
        yield "-".join([prefix, *(word for word, _ in chosen if word)]), settings


def combinations():
    for name, settings in named("olmoe", norm=[("raw", {}), ("norm", {"norm_topk_prob": True})],
                                heads=[("gqa", {}), ("mha-clip", {"num_key_value_heads": 4, "clip_qkv": 0.8})],
                                tied=[("", {}), ("tied", {"tie_word_embeddings": True})]):
        yield "olmoe", name, {**settings, "max_position_embeddings": 2048}
    for name, settings in named("molm", gate=[(g, {"gate_type": g}) for g in ("mlp", "linear", "gmm")],
                                k=[(f"k{k}", {"k_att": k, "k_mlp": k}) for k in (2, 4)],
                                kv=[("shared", {}), ("kv2", {"n_head": 2, "att_hidden": 48}), ("kv4", {"n_head": 4})]):
        yield "moduleformer", name, settings
    norms = [("raw", {"moe_use_logits_norm": False}), ("std1", {}), ("std.5", {"moe_gate_norm_std": 0.5})]
    for name, settings in named("moe++", gate=[("1layer", {}), ("2layer", {"moe_2layer_gate": True})],
                                gating=[("softmax", {}), ("mixtral", {"moe_use_mixtral_gating": True})], norm=norms,
                                double=[("", {}), ("double", {"moe_feature_no_mul_topk": False})],
                                n=[("12", {}), ("20-gqa", {"num_experts": [20], "num_key_value_heads": 2})]):
        yield "moe_plus_plus", name, settings


def make(folder, family, settings, n_tokens, args):
    sets = [item for key, value in settings.items() for item in ("--set", f"{key}={json.dumps(value)}")]
    subprocess.run([sys.executable, "-B", ORACLE, "make", family, folder, "--tokens", str(n_tokens), "--seed", str(args.seed), "--min-margin", "2e-6",
                    "--dtype", "bf16" if args.bf16 else "f32", *sets], check=True, stdout=subprocess.DEVNULL)


def serve(model, n_nodes, etcd, cluster):
    """The figures through so many nodes."""
    args = ["--threads", "1", "--max-context", "2048", "--cache-dir", model]
    if n_nodes == 0:
        with Coordinator(COORDINATOR, model, *args) as coordinator:
            return oracle.ask(CONCLAVE, coordinator, model)
    member = ("--etcd", etcd.url, "--cluster", cluster, "--cache-dir", model)
    nodes = [Process(NODE, "--model", model, *member, "--id", f"node-{i}") for i in range(n_nodes)]
    try:
        for node in nodes:
            node.registered()
        with Coordinator(COORDINATOR, model, *args, *member, "--id", "coordinator", "--min-nodes", str(n_nodes)) as coordinator:
            return oracle.ask(CONCLAVE, coordinator, model)
    finally:
        for node in nodes:
            node.stop()


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def counts(text):
        return [int(n) for n in text.split(",")]

    parser.add_argument("--tokens", type=counts, default=[24, 1500])
    parser.add_argument("--nodes", type=counts, default=[0, 1, 2, 5])
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    return parser.parse_args(sys.argv[6:])


def main():
    args = parse_args()
    bad = total = 0
    with tempfile.TemporaryDirectory() as folder:
        etcd = Etcd(os.path.join(folder, "etcd")) if any(args.nodes) else None
        for family, name, settings in combinations():
            for n_tokens in args.tokens if args.only in name else []:
                model = os.path.join(folder, f"{name}-{n_tokens}")
                make(model, family, settings, n_tokens, args)
                for n_nodes in args.nodes:
                    total += 1
                    try:
                        figures = serve(model, n_nodes, etcd, f"{name}-{n_tokens}-{n_nodes}".replace("+", "p").replace(".", "-"))
                        faults = figures.faults()
                        text = f"{figures}" + (f"  WRONG: {', '.join(faults)}" if faults else "")
                    except (RuntimeError, AssertionError) as error:
                        faults, text = [error], f"FAILED: {str(error)[-300:]!r}"
                    bad += bool(faults)
                    print(f"{name:32} nodes {n_nodes}: {text}", flush=True)
        if etcd is not None:
            etcd.stop()
    print(f"{total - bad} of {total} agree with the oracle")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
