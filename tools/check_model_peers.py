#!/usr/bin/env python3
"""Compares final log-probabilities with those of the `transformers` package's own model classes, computed in float32.

    tools/check_model_peers.py                        small random models: OLMoE, Mixtral, Qwen3-MoE; alone, and served with a pack
                                                      of new experts against the package's model of what `conclave export` writes
    tools/check_model_peers.py --model DIR ...        checkpoints of yours (--text "...", or --tokens N random ids)
    tools/check_model_peers.py --only NAME --write DIR   keeps one of the random models with its answers, as in tests/vectors

Starts conclave-coordinator --dtype f32 on each, scores the tokens over gRPC and compares every log-probability reported (the token's own
and the best 50). Fails if one differs by more than --limit. Two correct programs may choose different experts where two router
probabilities are all but equal; the smallest such margin is printed, too. Packages: torch, transformers, numpy; without them
they are installed into build/peers-venv (some GB, mostly torch).
"""
import argparse
import os
import subprocess
import sys
import tempfile
import venv

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from coordinator import Coordinator, run_json  # noqa: E402

MAKE_PACK = os.path.join(ROOT, "tools", "make_pack.py")
PACKAGES = ("torch", "transformers", "numpy")
TOP = 50
N_GREEDY = 32

# Small, with odd sizes; every switch on and off.
SMALL = dict(vocab_size=64, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, num_experts_per_tok=2,
             max_position_embeddings=512, bos_token_id=None, eos_token_id=63, pad_token_id=None)
OLMOE = dict(SMALL, model_type="olmoe", intermediate_size=12, num_experts=8)
MIXTRAL = dict(SMALL, model_type="mixtral", intermediate_size=20, num_local_experts=5)
QWEN3 = dict(SMALL, model_type="qwen3_moe", intermediate_size=40, moe_intermediate_size=12, head_dim=10, num_experts=8,
             norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])


def scaled(rope_type, **keys):
    return dict(rope_parameters=dict(rope_type=rope_type, rope_theta=10000.0, **keys))


YARN = scaled("yarn", factor=4.0, original_max_position_embeddings=64)
RANDOM = {
    "olmoe": OLMOE,
    "olmoe-norm-clip": dict(OLMOE, norm_topk_prob=True, clip_qkv=0.8, num_experts_per_tok=3),
    "olmoe-tied": dict(OLMOE, tie_word_embeddings=True, num_key_value_heads=4, num_hidden_layers=4, hidden_size=48),
    "mixtral": MIXTRAL,
    "mixtral-tied": dict(MIXTRAL, tie_word_embeddings=True, num_key_value_heads=4, num_experts_per_tok=1),
    "mixtral-head-dim": dict(MIXTRAL, head_dim=16, num_key_value_heads=1, num_experts_per_tok=3, num_hidden_layers=4),
    "qwen3": QWEN3,
    "qwen3-raw-weights": dict(QWEN3, norm_topk_prob=False, num_experts=9, num_experts_per_tok=4),
    "qwen3-tied": dict(QWEN3, tie_word_embeddings=True, num_key_value_heads=1, head_dim=6, num_hidden_layers=4),
    # scaled positions, over lengths that reach well beyond the original one
    "olmoe-yarn": dict(OLMOE, hidden_size=64, **YARN),
    "olmoe-linear": dict(OLMOE, **scaled("linear", factor=3.0)),
    "mixtral-yarn": dict(MIXTRAL, head_dim=32, **scaled("yarn", factor=8.0, original_max_position_embeddings=32, beta_fast=16.0, beta_slow=2.0,
                                                        truncate=False)),
    "mixtral-linear": dict(MIXTRAL, **scaled("linear", factor=2.5)),
    "qwen3-yarn": dict(QWEN3, head_dim=32, **YARN),
    "qwen3-yarn-mscale": dict(QWEN3, head_dim=16, **scaled("yarn", factor=40.0, original_max_position_embeddings=128, mscale=1.5,
                                                           mscale_all_dim=0.7)),
    "qwen3-yarn-attention": dict(QWEN3, head_dim=16, **scaled("yarn", factor=6.0, original_max_position_embeddings=50, attention_factor=0.8)),
    "qwen3-linear": dict(QWEN3, **scaled("linear", factor=4.0)),
    "qwen3-llama3": dict(QWEN3, head_dim=32, **scaled("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                      original_max_position_embeddings=64)),
    "qwen3-dynamic": dict(QWEN3, **scaled("dynamic", factor=2.0)),
}

EXPORTED = ("olmoe", "olmoe-norm-clip", "mixtral", "qwen3")


def enter_venv():
    """Runs again under a Python that has the packages."""
    folder = os.path.join(ROOT, "build", "peers-venv")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", "import " + ", ".join(PACKAGES)], stderr=subprocess.DEVNULL).returncode != 0:
        print(f"installing {', '.join(PACKAGES)} into build/peers-venv", flush=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    os.execv(python, [python, os.path.abspath(__file__)] + sys.argv[1:])


def make_model(config, seed):
    """The package's class with random weights that keep activations near 1."""
    config = dict(config)
    made = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape))
            if "norm" in name:
                p.mul_(0.2).add_(1.0)
            elif "embed_tokens" not in name:
                p.mul_(1.2 / p.shape[-1] ** 0.5)
    return model


class Routers:
    """Reads along what the routers of a model choose: per layer the probabilities of all experts."""

    def __init__(self, model):
        self.rows = {}
        self.hooks = [module.register_forward_hook(self.hook(i)) for i, module in enumerate(
            m for name, m in model.named_modules() if name.endswith((".mlp.gate", ".block_sparse_moe.gate")))]

    def hook(self, layer):
        def read(module, inputs, _):
            x = inputs[0].reshape(-1, inputs[0].shape[-1])
            self.rows[layer] = torch.softmax(x.double() @ module.weight.double().T, -1).numpy()
        return read

    def choices(self, k):
        """Per layer the ids chosen, ascending; per token the smallest gap between the last chosen and the first refused."""
        ids, margin = [], np.inf
        for layer in sorted(self.rows):
            p = self.rows[layer]
            order = np.argsort(-p, axis=1, kind="stable")
            ids.append(np.sort(order[:, :k], axis=1).astype(np.int32))
            best = np.take_along_axis(p, order, 1)
            margin = np.minimum(margin, best[:, k - 1] - best[:, k] if k < p.shape[1] else np.inf)
        return ids, np.asarray(margin, np.float32)


def answer(model, ids):
    """Logits [T, V] after every token, picks per layer, margins."""
    routers = Routers(model)
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()
    picks, margin = routers.choices(model.config.num_experts_per_tok)
    for hook in routers.hooks:
        hook.remove()
    return logits, picks, margin


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def write_answers(folder, model, ids):
    """The tensors of tests/vectors/README.md."""
    from safetensors.numpy import save_file
    logits, picks, margin = answer(model, ids)
    whole, gaps = list(ids), []
    for _ in range(N_GREEDY):
        best = np.sort(answer(model, whole)[0][-1])
        gaps.append(best[-1] - best[-2])
        whole.append(int(answer(model, whole)[0][-1].argmax()))
    fed = answer(model, whole[:-1])[2][len(ids):]
    save_file({"token_ids": np.array(ids, np.int32), "logits": logits, "margin": margin, "greedy": np.array(whole[len(ids):], np.int32),
               "greedy_gap": np.array(gaps, np.float32), "greedy_margin": fed, **{f"experts.{l}": p for l, p in enumerate(picks)}},
              os.path.join(folder, "expected.safetensors"))
    return min(margin.min(), fed.min(), min(gaps))


def compare(args, name, folder, model, ids, *options):
    logits, _, margin = answer(model, ids)
    want = log_softmax(logits)
    with Coordinator(args.coordinator, folder, "--dtype", "f32", "--cache-dir", "", *args.option, *options) as coordinator:
        scored = run_json(args.conclave, coordinator, "score", "--tokens", ",".join(map(str, ids)), "--top", str(min(TOP, want.shape[1])))
    worst, n = 0.0, 0
    for t, token in enumerate(scored[0]["tokens"][1:], 1):
        for entry in (token, *token["top"]):
            worst = max(worst, abs(entry["logprob"] - want[t - 1][entry["id"]]))
            n += 1
    verdict = "" if worst <= args.limit else f"  OVER {args.limit:g}"
    print(f"{name}: {len(ids)} tokens, {n} log-probabilities, largest difference {worst:.2e}, "
          f"smallest router margin {margin.min():.1e}{verdict}", flush=True)
    return not verdict


def random_ids(n, vocab_size, seed):
    return np.random.default_rng(seed).integers(0, vocab_size - 1, n).tolist()


def check_random(args, name, seed):
    model = make_model(RANDOM[name], seed)
    ids = random_ids(args.tokens, model.config.vocab_size, seed)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return compare(args, f"{name}, seed {seed}", folder, model, ids)


def check_exported(args, name, seed):
    """A model served with a pack, and exported with it: the package reads the export as a model of its own, with the same answers."""
    with tempfile.TemporaryDirectory() as folder:
        model, pack, out = (os.path.join(folder, part) for part in ("model", "pack", "out"))
        made = make_model(RANDOM[name], seed)
        n_experts = made.config.num_experts if hasattr(made.config, "num_experts") else made.config.num_local_experts
        made.save_pretrained(model)
        for command in ([sys.executable, "-B", MAKE_PACK, "random", pack, "--model", model, "--conclave", args.conclave, "--experts", "3", "--seed",
                         str(seed)], [args.conclave, "export", out, "--model", model, "--pack", pack, "--uniform", str(n_experts + 3)]):
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "XDG_CACHE_HOME": folder})
        exported = read_model(out)
        ids = random_ids(args.tokens, exported.config.vocab_size, seed)
        return compare(args, f"{name}, seed {seed}, with a pack, exported", model, exported, ids, "--pack", pack)


def read_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def check_given(args, folder):
    model = read_model(folder)
    ids = random_ids(args.tokens, model.config.vocab_size, args.seed)
    if args.text:
        ids = transformers.AutoTokenizer.from_pretrained(folder)(args.text)["input_ids"]
    return compare(args, folder, folder, model, ids)


def write_vector(args, name):
    """The first seed from --seed on with no margin and no gap below 1e-4, so that every choice can be compared."""
    for seed in range(args.seed, args.seed + 1000):
        model = make_model(RANDOM[name], seed)
        model.save_pretrained(args.write)
        if write_answers(args.write, model, random_ids(args.tokens, model.config.vocab_size, seed)) >= 1e-4:
            break
    os.remove(os.path.join(args.write, "generation_config.json"))
    print(f"{args.write}: {name}, seed {seed}, transformers {transformers.__version__}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conclave", default=os.path.join(ROOT, "bin", "conclave"))
    parser.add_argument("--coordinator", default=os.path.join(ROOT, "bin", "conclave-coordinator"))
    parser.add_argument("--option", action="append", default=[], metavar="OPTION", help="for the coordinator, e.g. --option=--threads=2")
    parser.add_argument("--model", action="append", default=[], metavar="DIR")
    parser.add_argument("--text", help="scored by the models given; the ids are the package's")
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="random ids (default %(default)s)")
    parser.add_argument("--limit", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="of each random model (default %(default)s)")
    parser.add_argument("--only", action="append", choices=list(RANDOM), help="of the random models")
    parser.add_argument("--write", metavar="DIR")
    args = parser.parse_args()
    for folder in args.model:
        if not os.path.exists(os.path.join(folder, "config.json")):
            parser.error(f"{folder} has no config.json")
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    names = args.only or list(RANDOM)
    if args.write:
        write_vector(args, *names)
        return 0
    if args.model:
        results = [check_given(args, folder) for folder in args.model]
    else:
        checks = [(check_random, name) for name in names] + [(check_exported, name) for name in names if name in EXPORTED]
        results = [check(args, name, seed) for check, name in checks for seed in range(args.seed, args.seed + args.seeds)]
    print(f"{sum(results)} of {len(results)} agree within {args.limit:g}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    try:
        import numpy as np
        import torch
        import transformers
    except ImportError:
        enter_venv()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    sys.exit(main())
