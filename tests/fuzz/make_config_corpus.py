#!/usr/bin/env python3
"""Writes seeds of fuzz_options (sound --config files and one file per rule they break) and, beside the seeds that are kept there,
those of fuzz_config that break a rule of checked JSON access, and what generation_config.json may hold.

usage: make_config_corpus.py tests/fuzz/corpus"""
import json
import pathlib
import sys

OPTIONS = {
    "all": '{"dry_run":true,"count":7,"seed":18446744073709551,"cache_bytes":"2M","share":0.25,"listen":"a\\u00e9\\n","mode":"exact"}',
    "strings": '{"dry_run":"false","count":"7","seed":"18446744073709551615","cache_bytes":"1048576","share":"1e-3"}',
    "nulls": '{"dry_run":null,"listen":null,"mode":null,"log_level":"debug"}',
    "printed": '{"count":3,"_origin":{"count":"file"}}',
    "empty": "",
    "list": "[]",
    "broken": '{"count":1',
    "deep": '{"count":[[[[[1]]]]]}',
    "twice": '{"count":1,"count":2}',
    "unknown": '{"counts":1}',
    "action": '{"help":true}',
    "itself": '{"config":"x"}',
    "object": '{"count":{}}',
    "count_zero": '{"count":0}',
    "count_real": '{"count":1.5}',
    "count_negative": '{"count":-1}',
    "count_long": '{"count":"99999999999999999999999"}',
    "seed_beyond": '{"seed":18446744073709551616}',
    "size_unit": '{"cache_bytes":"1X"}',
    "size_wraps": '{"cache_bytes":"18446744073709551615T"}',
    "share_beyond": '{"share":1.5}',
    "share_hex": '{"share":"0x1"}',
    "share_huge": '{"share":"1e999"}',
    "bool_text": '{"dry_run":"yes"}',
    "bool_number": '{"dry_run":1}',
    "mode_unknown": '{"mode":"slow"}',
    "escapes": '{"listen":"\\ud83d\\ude00\\"\\\\[{"}',
    "nul": '{"listen":"a\\u0000b"}',
    "list_of_one": '{"peers":"a:1","cache_bytes":"3G","count":1000}',
    "list_of_more": '{"peers":"a:1,,--b=2,","cache_bytes":1073741823}',
    "list_empty": '{"peers":"","cache_bytes":"1T","share":0.1234567890123456789}',
    "list_long": '{"peers":"1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17"}',
    "size_minus": '{"cache_bytes":"-1"}',
    "size_fraction": '{"cache_bytes":"1.5K"}',
    "count_beyond": '{"count":4294967296}',
}
SMALL = {"model_type": "olmoe", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 3,
         "num_attention_heads": 4, "max_position_embeddings": 512, "num_experts": 16, "num_experts_per_tok": 4}
CONFIG = {
    "whole_real": {"vocab_size": 256.0},
    "fraction": {"vocab_size": 256.5},
    "real_beyond": {"vocab_size": 1e300},
    "integer_beyond": {"vocab_size": 1 << 40},
    "negative": {"hidden_size": -64},
    "integer_object": {"hidden_size": {}},
    "integer_list": {"hidden_size": []},
    "integer_bool": {"hidden_size": True},
    "bool_number": {"norm_topk_prob": 1},
    "bool_null": {"norm_topk_prob": None, "tie_word_embeddings": True},
    "eps_beyond": {"rms_norm_eps": 2.0},
    "eps_text": {"rms_norm_eps": "1e-5"},
    "positions_zero": {"max_position_embeddings": 0},
    "large_vocab": {"vocab_size": 50304},
    "rope_linear": {"rope_scaling": {"type": "linear", "factor": 4}},
    "rope_yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 16, "beta_slow": None,
                                   "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False}},
    "rope_yarn_factor": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.5, "attention_factor": 0.5}, "original_max_position_embeddings": 7},
    "rope_llama3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4}},
    "rope_llama3_order": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 1}},
    "rope_dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "rope_nothing": {"rope_scaling": {}, "rope_parameters": {"type": "default", "partial_rotary_factor": 1}},
    "rope_twice": {"rope_scaling": {"type": "linear", "factor": 4}, "rope_parameters": {"rope_type": "linear", "factor": 4}},
    "rope_by_layer": {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
    "rope_sections": {"rope_scaling": {"type": "default", "mrope_section": [1, 2]}},
    "rope_factor_beyond": {"rope_scaling": {"type": "linear", "factor": 1e6}},
    "window": {"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"], "use_sliding_window": True},
    "window_negative": {"sliding_window": -1},
    "layer_types": {"layer_types": ["linear_attention"]},
    "neutral": {"quantization_config": {}, "n_group": 1, "topk_group": 0, "scoring_func": "softmax", "moe_layer_freq": [1, 1], "is_causal": True,
                "query_pre_attn_scalar": 16, "use_qk_norm": True, "mlp_only_layers": [], "routed_scaling_factor": 1.0, "pruned_heads": {}},
    "quantized": {"quantization_config": {"quant_method": "fp8"}},
    "shared_expert": {"n_shared_experts": 2},
    "sigmoid": {"scoring_func": "sigmoid"},
    "other_head": {"architectures": ["OlmoeForSequenceClassification"]},
    "base_model": {"architectures": ["OlmoeModel"]},
    "defaults_in_config": {"do_sample": True, "temperature": 0.7, "top_k": 50, "num_beams": 4},
    "heads_wide": {"num_attention_heads": 1 << 18, "head_dim": 64},
    "unknown": {"a_key": 1, " b\n": {}, "c" * 70: None},
    "nulls": {"is_causal": None, "scoring_func": None, "n_group": None},
    "falses": {"alibi": False, "is_causal": False},
    "mlp_only": {"mlp_only_layers": [0]},
    "groups": {"n_group": 8},
    "scale": {"rotary_pct": [1, 0.25]},
    "rotary_part": {"rotary_dim": 8},
}
MOLM = {"model_type": "moduleformer", "vocab_size": 256, "n_embd": 16, "n_layer": 2, "n_head": 1, "att_hidden": 16, "n_att_experts": 4, "k_att": 2,
        "ffd_hidden": 32, "n_mlp_experts": 8, "k_mlp": 2, "gating_size": 8}
LABELS = {"architectures": ["ModuleFormerForSequenceClassification"]}
MOLM_CONFIG = {
    "labels": LABELS | {"num_labels": 3, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 2},
    "labels_named": LABELS | {"id2label": {"0": "a", "1": "b", "2": "c"}, "tie_word_embeddings": True},
    "labels_list": LABELS | {"id2label": ["a"]},
    "labels_zero": LABELS | {"num_labels": 0},
    "alias": {"n_embd": None, "hidden_size": 16},
    "k_mlp": {"k_mlp": 9},
    "k_att": {"k_att": 5},
    "no_width": {"att_hidden": None},
    "heads": {"n_head": 3},
    "gate_linear": {"gate_type": "linear", "n_head": 2},
    "gate_gmm": {"gate_type": "gmm"},
    "gate_other": {"gate_type": "top"},
    "gate_number": {"gate_type": 1},
    "att_func": {"att_func": "softmax"},
    "post_norm": {"pre_norm": False},
    "universal": {"universal": True},
}
MOE_PLUS_PLUS = {"model_type": "MoE++", "vocab_size": 256, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                 "num_attention_heads": 2, "num_experts": [8]}
MOE_PLUS_PLUS_CONFIG = {
    "number": {"num_experts": 8},
    "few": {"num_experts": [4], "moe_num_constant": 2},
    "constants": {"moe_num_constant": -1},
    "interval": {"moe_expert_interval": 2},
    "mixtral": {"moe_use_mixtral_gating": True, "moe_2layer_gate": True},
    "rope_linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope_ntk": {"rope_scaling": {"type": "ntk", "factor": 2}},
    "rope_dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2}},
    "rope_no_type": {"rope_scaling": {"factor": 2, "a": 1}},
    "rope_three": {"rope_scaling": {"type": "linear", "factor": 2, "a": 1}},
    "rope_type": {"rope_scaling": {"type": 1, "factor": 2}},
    "rope_factor": {"rope_scaling": {"type": "linear", "factor": 1}},
}
GENERATION = {
    "taken": '{"do_sample":true,"temperature":0.6,"top_p":0.9,"top_k":20,"min_p":0.01,"repetition_penalty":1.05,"max_new_tokens":512}',
    "greedy": '{"do_sample":false,"max_length":4096,"bos_token_id":3,"pad_token_id":4,"eos_token_id":[5,6]}',
    "python": '{"top_p":NaN,"temperature":-Infinity,"top_k":99999999999999999999,"min_p":1e999,"a":[-1e999,NaN],"NaN":"Infinity"}',
    "out_of_range": '{"top_p":0,"temperature":-1,"min_p":2,"repetition_penalty":0,"top_k":-2,"max_new_tokens":0,"do_sample":"yes"}',
    "not_served": '{"num_beams":4,"typical_p":0.9,"stop_strings":["a"],"sequence_bias":{"a":1},"bad_words_ids":[[1,2]],"max_time":"x",'
                  '"suppress_tokens":[1],"watermarking_config":{},"dola_layers":"high","begin_suppress_tokens":[],"token_healing":true}',
    "penalties": '{"frequency_penalty":0.5,"presence_penalty":-0.5,"min_new_tokens":3}',
    "penalties_beyond": '{"frequency_penalty":101,"presence_penalty":"x","min_new_tokens":-1,"pad_token_id":256}',
    "neutral": '{"num_beams":1,"token_healing":false,"dola_layers":null,"bad_words_ids":[],"sequence_bias":{},"max_time":0}',
    "not_served_many": json.dumps({key: 40 * "x" for key in ("num_beams", "typical_p", "top_h", "stop_strings", "max_time", "dola_layers", "constraints",
                                                             "epsilon_cutoff", "eta_cutoff", "suppress_tokens", "guidance_scale")}),
    "eos_beyond": '{"eos_token_id":[1,256]}',
    "nan_as_key": '{NaN:1}',
}


def write(folder, inputs):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in inputs.items():
        (folder / name).write_bytes(text.encode())


if __name__ == "__main__":
    corpus = pathlib.Path(sys.argv[1])
    write(corpus / "fuzz_options", OPTIONS)
    write(corpus / "fuzz_config", {name: json.dumps(SMALL | change) for name, change in CONFIG.items()})
    write(corpus / "fuzz_config", {"molm_" + name: json.dumps(MOLM | change) for name, change in MOLM_CONFIG.items()})
    write(corpus / "fuzz_config", {"moe_plus_plus_" + name: json.dumps(MOE_PLUS_PLUS | change) for name, change in MOE_PLUS_PLUS_CONFIG.items()})
    write(corpus / "fuzz_config", {"bare_defaults": '{"model_type":"olmoe","intermediate_size":64}\0{"top_k":5}', "bare_broken": '{"model_type":"olmoe","intermediate_size":64}\0{'})
    write(corpus / "fuzz_config", {"defaults_" + name: json.dumps(SMALL) + "\0" + text for name, text in GENERATION.items()})
