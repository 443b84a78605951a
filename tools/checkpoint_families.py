"""What the checkpoints of each family consist of, for make_checkpoint.py: config.json and the tensors' names, shapes and values.

A family has common (keys of config.json that all its shapes share), shapes (the rest of the keys, by name), layers (the key that
counts them), sentencepiece (whether its tokenizer is one), check(config) and tensors(config, options)."""
import collections
import math
import sys

import numpy as np

# One matrix, vector or bias. The value of a weight is mean + deviation * normal; edit(values, first) may then change those of the
# flat indices first, first + 1, ... in place.
Piece = collections.namedtuple("Piece", "name shape mean deviation edit", defaults=[None])
# One tensor of the file: the pieces one after the other.
Tensor = collections.namedtuple("Tensor", "name shape pieces")
# How the checkpoint is made, beside its configuration.
Options = collections.namedtuple("Options", "fused zero_share score_scale n_labels", defaults=[0])


def matrix(name, n_out, n_in, edit=None):
    return Piece(name, (n_out, n_in), 0.0, 1.2 / math.sqrt(n_in), edit)


def transposed(name, n_in, n_out, scale=1.0):
    return Piece(name, (n_in, n_out), 0.0, scale * 1.2 / math.sqrt(n_in))


def gain(name, width):
    return Piece(name, (width,), 1.0, 0.1)


def bias(name, width):
    return Piece(name, (width,), 0.0, 0.1)


def single(pieces):
    return [Tensor(p.name, p.shape, [p]) for p in pieces]


def joined(name, pieces):
    """Equal pieces as one tensor with a dimension more."""
    return Tensor(name, (len(pieces), *pieces[0].shape), pieces)


def refuse_unless(condition, text):
    if not condition:
        sys.exit(text)


def need_counts(c, keys):
    for key in keys:
        value = c[key][0] if key == "num_experts" and isinstance(c[key], list) and c[key] else c[key]
        refuse_unless(isinstance(value, int) and not isinstance(value, bool) and value >= 1, f"{key}: {c[key]!r} is not a positive integer")


def need_at_most(c, key, limit_key):
    refuse_unless(c[key] <= c[limit_key], f"{key} {c[key]} is over {limit_key} {c[limit_key]}")


def need_heads(c):
    heads = c["num_attention_heads"]
    if "head_dim" not in c:
        refuse_unless(c["hidden_size"] % heads == 0, f"hidden_size {c['hidden_size']} is not a multiple of num_attention_heads {heads}")
    refuse_unless(head_dim(c) % 2 == 0, f"a head of {head_dim(c)} is not even")
    refuse_unless(heads % c["num_key_value_heads"] == 0,
                  f"num_attention_heads {heads} is not a multiple of num_key_value_heads {c['num_key_value_heads']}")


def head_dim(c):
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


# ---------------------------------------------------------------- the skeleton of OLMoE, MoE++, Mixtral and Qwen3-MoE
def attention_pieces(prefix, c, edit_o=None):
    hidden, q = c["hidden_size"], c["num_attention_heads"] * head_dim(c)
    kv = c["num_key_value_heads"] * head_dim(c)
    pieces = [matrix(f"{prefix}.{name}.weight", n, hidden) for name, n in (("q_proj", q), ("k_proj", kv), ("v_proj", kv))]
    pieces.append(matrix(f"{prefix}.o_proj.weight", hidden, q, edit_o))
    if c.get("attention_bias"):
        rows = {"q_proj": q, "k_proj": kv, "v_proj": kv, "o_proj": hidden}
        pieces += [bias(f"{prefix}.{name}.bias", n) for name, n in rows.items()]
    return pieces


def swiglu_pieces(prefix, hidden, width, names):
    gate, up, down = names
    return [matrix(f"{prefix}.{gate}.weight", width, hidden), matrix(f"{prefix}.{up}.weight", width, hidden),
            matrix(f"{prefix}.{down}.weight", hidden, width)]


def expert_tensors(prefix, hidden, width, n, fused, names):
    experts = [swiglu_pieces(f"{prefix}.{e}", hidden, width, names) for e in range(n)]
    if not fused:
        return single(p for expert in experts for p in expert)
    return [Tensor(f"{prefix}.gate_up_proj", (n, 2 * width, hidden), [p for expert in experts for p in expert[:2]]),
            Tensor(f"{prefix}.down_proj", (n, hidden, width), [expert[2] for expert in experts])]


def decoder_tensors(c, layer_tensors, edit_embedding=None):
    """Embedding, final norm, head, and per layer the two norms and what layer_tensors(prefix) gives."""
    hidden, vocab = c["hidden_size"], c["vocab_size"]
    tensors = single([Piece("model.embed_tokens.weight", (vocab, hidden), 0.0, 1.0, edit_embedding), gain("model.norm.weight", hidden)])
    if not c["tie_word_embeddings"]:
        tensors += single([matrix("lm_head.weight", vocab, hidden)])
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}"
        tensors += single([gain(f"{p}.input_layernorm.weight", hidden), gain(f"{p}.post_attention_layernorm.weight", hidden)])
        tensors += layer_tensors(p)
    return tensors


COUNTS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "num_experts_per_tok",
          "max_position_embeddings")
QWEN_NAMES = ("gate_proj", "up_proj", "down_proj")


class Olmoe:
    layers = "num_hidden_layers"
    sentencepiece = False
    common = dict(model_type="olmoe", architectures=["OlmoeForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0,
                  rope_scaling=None, clip_qkv=None, attention_bias=False, attention_dropout=0.0, norm_topk_prob=False,
                  tie_word_embeddings=False, pad_token_id=1, use_cache=True)
    shapes = {
        "tiny": dict(vocab_size=320, hidden_size=64, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, num_experts=8, num_experts_per_tok=2, max_position_embeddings=512),
        "demo": dict(vocab_size=2048, hidden_size=256, intermediate_size=128, num_hidden_layers=4, num_attention_heads=8,
                     num_key_value_heads=8, num_experts=16, num_experts_per_tok=4, max_position_embeddings=2048),
        "olmoe-1b-7b": dict(vocab_size=50304, hidden_size=2048, intermediate_size=1024, num_hidden_layers=16,
                            num_attention_heads=16, num_key_value_heads=16, num_experts=64, num_experts_per_tok=8,
                            max_position_embeddings=4096),
    }

    @staticmethod
    def check(c):
        need_counts(c, (*COUNTS, "intermediate_size", "num_experts"))
        need_heads(c)
        need_at_most(c, "num_experts_per_tok", "num_experts")

    @staticmethod
    def tensors(c, options):
        hidden, kv = c["hidden_size"], c["num_key_value_heads"] * head_dim(c)

        def layer(p):
            norms = [gain(f"{p}.self_attn.q_norm.weight", hidden), gain(f"{p}.self_attn.k_norm.weight", kv)]
            return single([*attention_pieces(f"{p}.self_attn", c), *norms, matrix(f"{p}.mlp.gate.weight", c["num_experts"], hidden)]) + \
                expert_tensors(f"{p}.mlp.experts", hidden, c["intermediate_size"], c["num_experts"], options.fused, QWEN_NAMES)

        return decoder_tensors(c, layer)


class Qwen3Moe:
    layers = "num_hidden_layers"
    sentencepiece = False
    common = dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6,
                  rope_theta=1000000.0, rope_scaling=None, attention_bias=False, attention_dropout=0.0, norm_topk_prob=True,
                  decoder_sparse_step=1, mlp_only_layers=[], sliding_window=None, use_sliding_window=False,
                  tie_word_embeddings=False, use_cache=True)
    shapes = {
        "tiny": dict(vocab_size=320, hidden_size=64, intermediate_size=96, moe_intermediate_size=32, head_dim=24, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, num_experts=8, num_experts_per_tok=2, max_position_embeddings=512),
        "demo": dict(vocab_size=2048, hidden_size=256, intermediate_size=768, moe_intermediate_size=96, head_dim=48,
                     num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2, num_experts=24, num_experts_per_tok=4,
                     max_position_embeddings=2048),
        "qwen3-30b-a3b": dict(vocab_size=151936, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, head_dim=128,
                              num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, num_experts=128,
                              num_experts_per_tok=8, max_position_embeddings=40960),
    }

    @staticmethod
    def check(c):
        need_counts(c, (*COUNTS, "moe_intermediate_size", "num_experts", "head_dim"))
        need_heads(c)
        need_at_most(c, "num_experts_per_tok", "num_experts")

    @staticmethod
    def tensors(c, options):
        hidden = c["hidden_size"]

        def layer(p):
            norms = [gain(f"{p}.self_attn.{n}_norm.weight", head_dim(c)) for n in "qk"]
            return single([*attention_pieces(f"{p}.self_attn", c), *norms, matrix(f"{p}.mlp.gate.weight", c["num_experts"], hidden)]) + \
                expert_tensors(f"{p}.mlp.experts", hidden, c["moe_intermediate_size"], c["num_experts"], options.fused, QWEN_NAMES)

        return decoder_tensors(c, layer)


class Mixtral:
    layers = "num_hidden_layers"
    sentencepiece = True
    common = dict(model_type="mixtral", architectures=["MixtralForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5,
                  rope_theta=1000000.0, attention_dropout=0.0, sliding_window=None, tie_word_embeddings=False, use_cache=True)
    shapes = {
        "tiny": dict(vocab_size=320, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=512),
        "demo": dict(vocab_size=2048, hidden_size=256, intermediate_size=384, num_hidden_layers=4, num_attention_heads=8,
                     num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2, max_position_embeddings=2048),
        "mixtral-8x7b": dict(vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                             num_attention_heads=32, num_key_value_heads=8, num_local_experts=8, num_experts_per_tok=2,
                             max_position_embeddings=32768),
    }

    @staticmethod
    def check(c):
        need_counts(c, (*COUNTS, "intermediate_size", "num_local_experts"))
        need_heads(c)
        need_at_most(c, "num_experts_per_tok", "num_local_experts")

    @staticmethod
    def tensors(c, options):
        hidden, n = c["hidden_size"], c["num_local_experts"]
        refuse_unless(not options.fused, "--fused: Mixtral has no such layout")

        def layer(p):
            moe = f"{p}.block_sparse_moe"
            return single([*attention_pieces(f"{p}.self_attn", c), matrix(f"{moe}.gate.weight", n, hidden)]) + \
                expert_tensors(f"{moe}.experts", hidden, c["intermediate_size"], n, False, ("w1", "w3", "w2"))

        return decoder_tensors(c, layer)


# ---------------------------------------------------------------- MoE++
class ZeroShare:
    """A router that sends a known share of all picks to zero-computation experts (constant, constant, copy, zero).

    The first four components of the residual stream are one sign for each of those four experts, fixed by the token's id: nothing else
    writes into them (the rows of the matrices that add to the stream are 0 there; copy and constant experts add their own sign
    again). Each of the four has its component alone in its gate row, with a weight that outdoes the random rest, and carries
    nothing on to the next layer's logits. So a token's picks are zero-computation experts as often as it has a plus: twice, once or
    never. Ids 100 i .. 100 i + 99 hold the share exactly, in a mix as if the two picks were drawn independently."""
    FEATURE, WEIGHT, N = 8.0, 4.0, 4

    def __init__(self, share):
        twice = round(100 * share * share)
        once = round(200 * share) - 2 * twice
        self.of_id = np.array([2] * twice + [1] * once + [0] * (100 - twice - once))

    def signs(self, ids):
        """[n, 4]: as many pluses as the id has zero-computation picks, the places taken in turn."""
        n_plus = self.of_id[ids * 37 % 100]
        place = (np.arange(self.N)[None, :] - (ids // 3 + ids // 100)[:, None]) % self.N
        return np.where(place < n_plus[:, None], self.FEATURE, -self.FEATURE)

    def embedding(self, hidden):
        def edit(values, first):
            at = first + np.arange(len(values))
            own = at % hidden < self.N
            values[own] = self.signs(at[own] // hidden)[np.arange(own.sum()), at[own] % hidden]
        return edit

    def silent(self, n_in):
        """Rows 0 .. 3 of a matrix that adds to the stream, or (n_in 1) the components of a vector."""
        def edit(values, first):
            values[:max(0, self.N * n_in - first)] = 0
        return edit

    def gate(self, n_experts, hidden):
        def edit(values, first):
            at = first + np.arange(len(values))
            row, column = at // hidden, at % hidden
            values[column < self.N] = 0
            values[column == row - (n_experts - self.N)] = self.WEIGHT
        return edit

    def gate_map(self, n_experts):
        def edit(values, first):
            values[(first + np.arange(len(values))) % n_experts >= n_experts - self.N] = 0
        return edit


class NoShare:
    """Picks as they come from random weights."""

    def __getattr__(self, _):
        return lambda *_: None


class MoePlusPlus:
    layers = "num_hidden_layers"
    sentencepiece = True
    common = dict(model_type="MoE++", architectures=["MoeForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6, rope_theta=10000.0,
                  moe_expert_interval=1, moe_use_mixtral_gating=False, moe_2layer_gate=False, moe_use_logits_norm=True,
                  moe_gate_norm_std=1.0, moe_feature_no_mul_topk=True, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1,
                  eos_token_id=2, use_cache=True)
    shapes = {
        "tiny": dict(vocab_size=320, hidden_size=64, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
                     num_key_value_heads=4, num_experts=[12], max_position_embeddings=512),
        "demo": dict(vocab_size=2048, hidden_size=256, intermediate_size=192, num_hidden_layers=4, num_attention_heads=8,
                     num_key_value_heads=8, num_experts=[20], max_position_embeddings=2048),
        "moe++-7b": dict(vocab_size=65536, hidden_size=1536, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                         num_key_value_heads=16, num_experts=[20], max_position_embeddings=2048),
    }

    @staticmethod
    def check(c):
        need_counts(c, ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                        "max_position_embeddings", "intermediate_size", "num_experts"))
        need_heads(c)
        refuse_unless(c["num_experts"][0] >= 6, f"num_experts {c['num_experts'][0]} leaves fewer than two experts beside the four")

    @staticmethod
    def tensors(c, options):
        hidden, width, n = c["hidden_size"], c["intermediate_size"], c["num_experts"][0]
        share = NoShare() if options.zero_share is None else ZeroShare(options.zero_share)
        refuse_unless(not options.fused, "--fused: MoE++ has no such layout")
        refuse_unless(options.zero_share is None or not c["moe_2layer_gate"], "--zero-share: not with moe_2layer_gate")

        def gate_pieces(g):
            if c["moe_2layer_gate"]:
                return [matrix(f"{g}.wg.0.weight", 8 * n, hidden), matrix(f"{g}.wg.2.weight", n, 8 * n)]
            return [matrix(f"{g}.wg.weight", n, hidden, share.gate(n, hidden))]

        def expert(q, e):
            if e < n - 4:
                return [matrix(f"{q}.up_proj.weight", 2 * width, hidden), matrix(f"{q}.down_proj.weight", hidden, width, share.silent(width))]
            if e < n - 2:
                return [Piece(f"{q}.constant", (hidden,), 0.0, 1.0, share.silent(1)), matrix(f"{q}.wg.weight", 2, hidden)]
            return []

        def layer(p):
            moe = f"{p}.mlp.moe"
            pieces = attention_pieces(f"{p}.self_attn", c, share.silent(hidden)) + gate_pieces(f"{moe}.gate")
            pieces.append(Piece(f"{moe}.gate.gate_map.weight", (n, n), 0.0, 0.5 / math.sqrt(n), share.gate_map(n)))
            return single(pieces + [piece for e in range(n) for piece in expert(f"{moe}.experts.experts.{e}", e)])

        return decoder_tensors(c, layer, share.embedding(hidden))


# ---------------------------------------------------------------- ModuleFormer
class ModuleFormer:
    layers = "n_layer"
    sentencepiece = False
    common = dict(model_type="moduleformer", architectures=["ModuleFormerForCausalLM"], activation_function="gelu_new",
                  layer_norm_epsilon=1e-5, gate_type="mlp", tie_word_embeddings=False, bos_token_id=0, block_size=512, history_length=512,
                  att_func="stickbreaking", moe_type="moe", pre_norm=True, universal=False, use_cache=True)
    molm = dict(vocab_size=50295, n_embd=1024, n_head=1, att_hidden=1024, n_att_experts=16, ffd_hidden=2048, n_mlp_experts=32,
                gating_size=256)
    shapes = {
        "tiny": dict(vocab_size=320, n_embd=64, n_layer=3, n_head=1, att_hidden=64, n_att_experts=4, k_att=2, ffd_hidden=48,
                     n_mlp_experts=8, k_mlp=2, gating_size=16),
        "demo": dict(vocab_size=2048, n_embd=256, n_layer=4, n_head=1, att_hidden=256, n_att_experts=8, k_att=2, ffd_hidden=256,
                     n_mlp_experts=16, k_mlp=2, gating_size=64),
        "molm-350m-4b": dict(molm, n_layer=24, k_att=2, k_mlp=2),
        "molm-700m-4b": dict(molm, n_layer=24, k_att=4, k_mlp=4),
        "molm-700m-8b": dict(molm, n_layer=48, k_att=2, k_mlp=2),
        # The matrices of Pythia-1.4B, a dense model, as one attention expert and one MLP expert: the same work through the same code.
        "pythia-1.4b": dict(vocab_size=50304, n_embd=2048, n_layer=24, n_head=16, att_hidden=2048, n_att_experts=1, k_att=1,
                            ffd_hidden=8192, n_mlp_experts=1, k_mlp=1, gating_size=1, gate_type="linear"),
    }

    @staticmethod
    def check(c):
        need_counts(c, ModuleFormer.shapes["tiny"])
        refuse_unless(c["att_hidden"] % c["n_head"] == 0, f"att_hidden {c['att_hidden']} is not a multiple of n_head {c['n_head']}")
        need_at_most(c, "k_att", "n_att_experts")
        need_at_most(c, "k_mlp", "n_mlp_experts")
        refuse_unless(c["gate_type"] in ("mlp", "linear", "gmm"), f"gate_type {c['gate_type']!r} is not mlp, linear or gmm")

    @staticmethod
    def gate_pieces(p, c, n_experts):
        width, hidden = c["gating_size"], c["n_embd"]
        if c["gate_type"] == "mlp":
            return [matrix(f"{p}.w_gate.0.weight", width, hidden), bias(f"{p}.w_gate.0.bias", width),
                    Piece(f"{p}.w_gate.3.weight", (n_experts, width), 0.0, 2.5 / math.sqrt(width))]
        if c["gate_type"] == "linear":
            return [matrix(f"{p}.w_gate.0.weight", n_experts, hidden)]
        return [matrix(f"{p}.w_gate.weight", width, hidden), Piece(f"{p}.expert_centroids", (n_experts, width), 0.0, 1.0),
                Piece(f"{p}.temperature", (1,), 1.3, 0.0)]

    @staticmethod
    def layer_tensors(p, c, options):
        hidden, att, width = c["n_embd"], c["att_hidden"], c["ffd_hidden"]
        q, m = f"{p}.attn.q_proj", f"{p}.mlpf"
        pieces = [piece for name in ("ln_1", "ln_2") for piece in (gain(f"{p}.{name}.weight", hidden), bias(f"{p}.{name}.bias", hidden))]
        pieces += ModuleFormer.gate_pieces(f"{q}.gate", c, c["n_att_experts"]) + ModuleFormer.gate_pieces(f"{m}.gate", c, c["n_mlp_experts"])
        if att != hidden or c["n_head"] != 1:
            for name in ("k_proj", "v_proj"):
                pieces += [matrix(f"{p}.attn.{name}.weight", att, hidden), bias(f"{p}.attn.{name}.bias", att)]

        def stack(name, n, n_in, n_out, scale=1.0):
            return joined(name, [transposed(f"{name}.{e}", n_in, n_out, scale) for e in range(n)])

        return single(pieces) + [stack(f"{q}.experts.weight", c["n_att_experts"], hidden, att, options.score_scale),
                                 stack(f"{q}.output_experts.weight", c["n_att_experts"], att, hidden),
                                 stack(f"{m}.experts.weight", c["n_mlp_experts"], hidden, width),
                                 stack(f"{m}.output_experts.weight", c["n_mlp_experts"], width, hidden)]

    @staticmethod
    def tensors(c, options):
        hidden, vocab = c["n_embd"], c["vocab_size"]
        refuse_unless(not options.fused, "--fused: ModuleFormer has one layout only")
        tensors = single([Piece("transformer.wte.weight", (vocab, hidden), 0.0, 1.0), gain("transformer.ln_f.weight", hidden),
                          bias("transformer.ln_f.bias", hidden),
                          matrix("score.weight", options.n_labels, hidden) if options.n_labels else matrix("lm_head.weight", vocab, hidden)])
        for layer in range(c["n_layer"]):
            tensors += ModuleFormer.layer_tensors(f"transformer.h.{layer}", c, options)
        return tensors


FAMILIES = {"olmoe": Olmoe, "molm": ModuleFormer, "moe++": MoePlusPlus, "mixtral": Mixtral, "qwen3-moe": Qwen3Moe}
SMALL = ("tiny", "demo")
# The shapes of published models name their family.
PUBLISHED = {shape: name for name, family in FAMILIES.items() for shape in family.shapes if shape not in SMALL}
