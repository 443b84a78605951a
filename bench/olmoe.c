#include "bench/olmoe.h"

const olmoe_shape olmoe_shape_full = {.d_model = OLMOE_D_MODEL,
                                      .d_ff = OLMOE_D_FF,
                                      .n_heads = OLMOE_N_HEADS,
                                      .n_experts = OLMOE_N_EXPERTS,
                                      .top_k = OLMOE_TOP_K,
                                      .vocab_size = OLMOE_VOCAB,
                                      .n_layers = OLMOE_N_LAYERS};
const olmoe_shape olmoe_shape_tiny = {
    .d_model = 32, .d_ff = 16, .n_heads = 1, .n_experts = 4, .top_k = 2, .vocab_size = 256, .n_layers = 2};

void olmoe_config(const olmoe_shape *s, uint32_t n_layers, moe_text *out)
{
    moe_text_printf(out,
                    "{\"model_type\":\"olmoe\",\"hidden_size\":%u,\"num_hidden_layers\":%u,\"num_attention_heads\":%u,"
                    "\"num_key_value_heads\":%u,\"intermediate_size\":%u,\"num_experts\":%u,\"num_experts_per_tok\":%u,"
                    "\"vocab_size\":%u,\"max_position_embeddings\":%d,\"norm_topk_prob\":false,\"rope_theta\":10000.0,"
                    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"clip_qkv\":null}",
                    s->d_model, n_layers, s->n_heads, s->n_heads, s->d_ff, s->n_experts, s->top_k, s->vocab_size,
                    OLMOE_MAX_CONTEXT);
}

size_t olmoe_layer_bytes(const olmoe_shape *s)
{
    size_t d = s->d_model;

    return 2 * (4 * d * d + s->n_experts * d + 3 * d * s->d_ff * s->n_experts + 4 * d);
}
