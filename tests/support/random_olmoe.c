#include "tests/support/random_olmoe.h"

#include <math.h>
#include <stdlib.h>

#include "tests/support/support.h"

random_olmoe random_olmoe_defaults(void)
{
    return (random_olmoe){.vocab_size = 256,
                          .hidden_size = 96,
                          .intermediate_size = 40,
                          .n_layers = 3,
                          .n_heads = 4,
                          .n_kv_heads = 2,
                          .n_experts = 24,
                          .top_k = 3,
                          .max_positions = 1024,
                          .seed = 1};
}

typedef struct writer {
    const random_olmoe *o;
    test_tensors *tensors;
    moe_random random;
    uint32_t nan_row; /* of the next matrix; 0: none */
} writer;

static float normal(moe_random *r)
{
    double u = moe_random_unit(r), v = moe_random_unit(r);

    return (float)(sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586 * v));
}

/* rows x columns of scale * normal + shift; columns 0: a vector. */
static void add(writer *w, const char *name, size_t rows, size_t columns, float scale, float shift)
{
    size_t n = rows * (columns > 0 ? columns : 1), shape[2] = {rows, columns};
    float *wide = malloc(n * sizeof *wide);
    uint16_t *narrow = malloc(n * sizeof *narrow);

    for (size_t i = 0; i < n; i++) {
        union {
            float f;
            uint32_t u;
        } v = {w->nan_row > 0 && i / columns == w->nan_row ? NAN : scale * normal(&w->random) + shift};
        wide[i] = v.f;
        narrow[i] = (uint16_t)((v.u + 0x7FFFu + ((v.u >> 16) & 1u)) >> 16);
    }
    if (w->o->bf16) {
        test_tensors_add(w->tensors, name, "BF16", shape, columns > 0 ? 2 : 1, narrow, n * sizeof *narrow);
    } else {
        test_tensors_add(w->tensors, name, "F32", shape, columns > 0 ? 2 : 1, wide, n * sizeof *wide);
    }
    free(wide);
    free(narrow);
}

static void add_matrix(writer *w, const char *name, size_t rows, size_t columns)
{
    add(w, name, rows, columns, 1.2f / sqrtf((float)columns), 0.0f);
}

static void add_gain(writer *w, const char *name, size_t n)
{
    add(w, name, n, 0, 0.2f, 1.0f);
}

static void add_layer(writer *w, uint32_t l)
{
    const random_olmoe *o = w->o;
    size_t h = o->hidden_size, g = (size_t)o->n_kv_heads * (h / o->n_heads);
    char name[128];
    const struct {
        const char *suffix;
        size_t rows, columns;
    } all[] = {{"input_layernorm", h, 0},  {"post_attention_layernorm", h, 0}, {"self_attn.q_norm", h, 0},
               {"self_attn.k_norm", g, 0}, {"self_attn.q_proj", h, h},         {"self_attn.k_proj", g, h},
               {"self_attn.v_proj", g, h}, {"self_attn.o_proj", h, h},         {"mlp.gate", o->n_experts, h}};

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", l, all[i].suffix);
        if (all[i].columns == 0) {
            add_gain(w, name, all[i].rows);
        } else {
            add_matrix(w, name, all[i].rows, all[i].columns);
        }
    }
    for (uint32_t e = 0; e < o->n_experts; e++) {
        static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
        for (size_t p = 0; p < 3; p++) {
            snprintf(name, sizeof name, "model.layers.%u.mlp.experts.%u.%s.weight", l, e, parts[p]);
            add_matrix(w, name, p < 2 ? o->intermediate_size : h, p < 2 ? h : o->intermediate_size);
        }
    }
}

static void write_config(const random_olmoe *o, const char *path)
{
    char text[1024], clip[32] = "null";

    if (o->clip_qkv > 0.0) {
        snprintf(clip, sizeof clip, "%g", o->clip_qkv);
    }
    snprintf(
        text, sizeof text,
        "{\"model_type\":\"olmoe\",\"architectures\":[\"OlmoeForCausalLM\"],\"vocab_size\":%u,\"hidden_size\":%u,"
        "\"intermediate_size\":%u,\"num_hidden_layers\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u,"
        "\"hidden_act\":\"silu\",\"max_position_embeddings\":%u,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
        "\"rope_scaling\":null,\"clip_qkv\":%s,\"attention_bias\":false,\"num_experts\":%u,\"num_experts_per_tok\":%u,"
        "\"norm_topk_prob\":%s,\"tie_word_embeddings\":%s,\"pad_token_id\":1,\"eos_token_id\":%u,\"torch_dtype\":\"%"
        "s\"}",
        o->vocab_size, o->hidden_size, o->intermediate_size, o->n_layers, o->n_heads, o->n_kv_heads, o->max_positions,
        clip, o->n_experts, o->top_k, o->norm_topk ? "true" : "false", o->tied ? "true" : "false", o->vocab_size - 1,
        o->bf16 ? "bfloat16" : "float32");
    test_write_text(path, text);
}

void random_olmoe_write(const random_olmoe *o, const char *dir)
{
    writer w = {.o = o, .tensors = test_tensors_open()};
    char path[512];

    moe_random_seed(&w.random, o->seed);
    w.nan_row = o->nan_token;
    add(&w, "model.embed_tokens.weight", o->vocab_size, o->hidden_size, o->tied ? 0.2f : 1.0f, 0.0f);
    w.nan_row = 0;
    for (uint32_t l = 0; l < o->n_layers; l++) {
        add_layer(&w, l);
    }
    add_gain(&w, "model.norm.weight", o->hidden_size);
    if (!o->tied) {
        add_matrix(&w, "lm_head.weight", o->vocab_size, o->hidden_size);
    }
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_config(o, path);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    test_tensors_save(w.tensors, path);
    test_tensors_close(w.tensors);
}
