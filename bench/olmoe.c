#include "bench/olmoe.h"

void olmoe_config(uint32_t n_layers, moe_text *out)
{
    moe_text_printf(out,
                    "{\"model_type\":\"olmoe\",\"hidden_size\":%d,\"num_hidden_layers\":%u,\"num_attention_heads\":%d,"
                    "\"num_key_value_heads\":%d,\"intermediate_size\":%d,\"num_experts\":%d,\"num_experts_per_tok\":%d,"
                    "\"vocab_size\":%d,\"max_position_embeddings\":%d,\"norm_topk_prob\":false,\"rope_theta\":10000.0,"
                    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"clip_qkv\":null}",
                    OLMOE_D_MODEL, n_layers, OLMOE_N_HEADS, OLMOE_N_HEADS, OLMOE_D_FF, OLMOE_N_EXPERTS, OLMOE_TOP_K,
                    OLMOE_VOCAB, OLMOE_MAX_CONTEXT);
}

size_t olmoe_layer_bytes(void)
{
    size_t d = OLMOE_D_MODEL;

    return 2 * (4 * d * d + OLMOE_N_EXPERTS * d + 3 * d * OLMOE_D_FF * OLMOE_N_EXPERTS + 4 * d);
}
