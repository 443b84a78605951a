/* Keys of config.json that families share. Every function leaves its output alone when the key is absent, so that a
 * family sets its defaults first. */
#ifndef CONCLAVE_MODEL_CONFIG_KEYS_H
#define CONCLAVE_MODEL_CONFIG_KEYS_H

#include "model/model.h"

#define MODEL_MAX_WIDTH     (1u << 20) /* d_model, d_ff */
#define MODEL_MAX_VOCAB     4194304u
#define MODEL_MAX_POSITIONS (1u << 24)

typedef moe_status (*model_config_part)(const moe_json *json, model_config *c, moe_error *err);
/* One part after the other until one fails. */
MOE_NODISCARD moe_status model_config_parts(const model_config_part *parts, size_t n_parts, const moe_json *json,
                                            model_config *c, moe_error *err);

MOE_NODISCARD moe_status model_config_u32(const moe_json *json, const char *key, uint32_t min, uint32_t max,
                                          uint32_t *out, moe_error *err);
/* A required one: absent is an error. */
MOE_NODISCARD moe_status model_config_need_u32(const moe_json *json, const char *key, uint32_t min, uint32_t max,
                                               uint32_t *out, moe_error *err);
/* A token id, or -1: none. null is none too. */
MOE_NODISCARD moe_status model_config_token(const moe_json *json, const char *key, int32_t *out, moe_error *err);
/* eos_token_id: an int or a list of ints, kept ascending, each once. A key that is there, null included, replaces the
 * default. */
MOE_NODISCARD moe_status model_config_eos(const moe_json *json, model_config *c, moe_error *err);
/* rope_theta, rope_scaling and the newer rope_parameters (rope.c); max_positions must be known, and grows with a
 * factor. */
MOE_NODISCARD moe_status model_config_rope(const moe_json *json, model_config *c, moe_error *err);
/* A rope_scaling that says nothing: absent (NULL), null, {}, type "default". */
bool model_rope_is_plain(const moe_json *object);
/* sliding_window, use_sliding_window, layer_types (context.c). used and width are the class's defaults for the first
 * two; null is no window. */
MOE_NODISCARD moe_status model_config_window(const moe_json *json, model_config *c, bool used, int64_t width,
                                             moe_error *err);
/* The same for families whose classes have a window by no default. */
MOE_NODISCARD moe_status model_config_any_window(const moe_json *json, model_config *c, moe_error *err);
/* Refuses keys that would make another model and that the family does not read, unless they are neutral
 * (config_others.c); c is complete. */
MOE_NODISCARD moe_status model_config_refuse_others(const moe_json *json, const model_config *c, moe_error *err);
/* Adds the keys that nothing here knows, each behind a blank. */
void model_config_unknown(const moe_json *json, const model_family *family, moe_text *names);
/* One line at debug: those keys. */
void model_config_log_unknown(const moe_json *json, const model_config *c);
/* vocab_size, hidden_size, num_hidden_layers, max_position_embeddings. */
MOE_NODISCARD moe_status model_config_widths(const moe_json *json, model_config *c, moe_error *err);
/* num_attention_heads, num_key_value_heads, head_dim, attention_bias; d_model must be known. A default for n_kv_heads
 * of 0 means n_heads, one for head_dim of 0 means d_model / n_heads. */
MOE_NODISCARD moe_status model_config_attention(const moe_json *json, model_config *c, moe_error *err);
/* Refuses heads that are not hidden_size together: for classes that know no other. Reads no key. */
MOE_NODISCARD moe_status model_config_plain_heads(const moe_json *json, model_config *c, moe_error *err);
/* intermediate_size. */
MOE_NODISCARD moe_status model_config_d_ff(const moe_json *json, model_config *c, moe_error *err);
/* rms_norm_eps and tie_word_embeddings. */
MOE_NODISCARD moe_status model_config_norm_and_head(const moe_json *json, model_config *c, moe_error *err);
/* norm_topk_prob. */
MOE_NODISCARD moe_status model_config_renormalize(const moe_json *json, model_config *c, moe_error *err);
/* bos_token_id, pad_token_id, eos_token_id. */
MOE_NODISCARD moe_status model_config_tokens(const moe_json *json, model_config *c, moe_error *err);
/* Adds an id or a list of ids to c->eos_ids. */
MOE_NODISCARD moe_status model_config_add_eos(const moe_json *value, model_config *c, moe_error *err);
/* num_experts or num_local_experts, num_experts_per_tok. */
MOE_NODISCARD moe_status model_config_experts(const moe_json *json, model_config *c, moe_error *err);
/* hidden_act must be "silu", or "swish", which is the same. */
MOE_NODISCARD moe_status model_config_silu(const moe_json *json, model_config *c, moe_error *err);
/* generation_config.json; config.json has been read. Errors: of eos_token_id only. */
MOE_NODISCARD moe_status model_generation_parse(const moe_json *json, model_config *c, moe_error *err);
/* There is none: what config.json says of its keys is noted as not served. */
void model_generation_missing(const moe_json *config_json, model_config *c);
/* A real in (0, max], as a float that is not denormal. */
MOE_NODISCARD moe_status model_config_positive(const moe_json *json, const char *key, double max, float *out,
                                               bool *found, moe_error *err);

#endif
