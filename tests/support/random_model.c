#include "tests/support/random_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/family/family.h"
#include "compute/math.h"
#include "tests/support/support.h"

const char *const random_model_kinds[RANDOM_MODEL_N_KINDS] = {"olmoe",        "mixtral",         "qwen3_moe",
                                                              "moduleformer", "moduleformer-kv", "moe_plus_plus"};

/* What all llama-like configs say alike. */
#define COMMON                                                                                                         \
    "\"vocab_size\":%u,\"num_hidden_layers\":%u,\"eos_token_id\":%u,\"torch_dtype\":\"%s\",\"hidden_act\":\"silu\","   \
    "\"max_position_embeddings\":1024,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"attention_bias\":false,"          \
    "\"tie_word_embeddings\":false,"
#define MODULEFORMER                                                                                                   \
    "{\"model_type\":\"moduleformer\",\"vocab_size\":%u,\"n_layer\":%u,\"bos_token_id\":null,\"eos_token_id\":%u,"     \
    "\"torch_dtype\":\"%s\",\"n_embd\":72,\"n_att_experts\":6,\"ffd_hidden\":41,\"n_mlp_experts\":9,\"gating_size\":"  \
    "20,"

static const char *const configs[RANDOM_MODEL_N_KINDS] = {
    "{\"model_type\":\"olmoe\"," COMMON "\"hidden_size\":96,\"intermediate_size\":40,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"clip_qkv\":null,\"num_experts\":24,\"num_experts_per_tok\":3,\"norm_topk_prob\":false,"
    "\"pad_token_id\":1}",
    "{\"model_type\":\"mixtral\"," COMMON "\"hidden_size\":64,\"intermediate_size\":40,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"num_local_experts\":8,\"num_experts_per_tok\":2}",
    "{\"model_type\":\"qwen3_moe\"," COMMON "\"hidden_size\":56,\"moe_intermediate_size\":33,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"head_dim\":24,\"num_experts\":16,\"num_experts_per_tok\":4,\"norm_topk_prob\":true}",
    MODULEFORMER "\"n_head\":1,\"att_hidden\":72,\"k_att\":2,\"k_mlp\":4}",
    MODULEFORMER "\"n_head\":3,\"att_hidden\":51,\"k_att\":4,\"k_mlp\":2,\"gate_type\":\"gmm\"}",
    "{\"model_type\":\"MoE++\"," COMMON "\"hidden_size\":60,\"intermediate_size\":41,\"num_attention_heads\":3,"
    "\"num_key_value_heads\":1,\"num_experts\":[12],\"moe_2layer_gate\":true,\"moe_use_logits_norm\":true}",
};

random_model random_model_defaults(const char *kind)
{
    return (random_model){.kind = kind, .vocab_size = 256, .n_layers = 3, .score_scale = 1.0f, .seed = 1};
}

typedef struct writer {
    const random_model *o;
    model_config config;
    test_tensors *tensors;
    moe_random random;
} writer;

static float normal(moe_random *r)
{
    double u = moe_random_unit(r), v = moe_random_unit(r);

    return (float)(sqrt(-2.0 * log(1.0 - u)) * cos(6.283185307179586 * v));
}

/* Gains are near one; gates differ enough for picks to differ; the rest keeps the size of a row. */
static float scale_of(const writer *w, model_role role, const model_tensor_shape *shape, float *shift)
{
    bool input_major = (w->config.family->input_major >> role & 1) != 0;
    float n_in = (float)shape->dims[input_major ? 0 : 1];

    *shift = 0.0f;
    switch (role) {
    case MODEL_ROLE_EMBED:
        return w->config.tied_head ? 0.2f : 1.0f;
    case MODEL_ROLE_FINAL_NORM:
    case MODEL_ROLE_INPUT_NORM:
    case MODEL_ROLE_POST_NORM:
    case MODEL_ROLE_Q_NORM:
    case MODEL_ROLE_K_NORM:
        *shift = 1.0f;
        return 0.2f;
    case MODEL_ROLE_TEMPERATURE:
    case MODEL_ROLE_ATTENTION_TEMPERATURE:
        *shift = 1.3f;
        return 0.0f;
    case MODEL_ROLE_CONSTANT:
        return 1.0f;
    case MODEL_ROLE_GATE_MAP:
        return 0.35f;
    case MODEL_ROLE_Q:
    case MODEL_ROLE_ATTENTION_EXPERT_Q:
        return w->o->score_scale * 1.2f / sqrtf(n_in);
    default:
        return shape->rank == 1 ? 0.2f : 1.2f / sqrtf(n_in);
    }
}

static void fill(writer *w, model_role role, const model_tensor_shape *shape, float *to, size_t n)
{
    float shift, scale = scale_of(w, role, shape, &shift);

    for (size_t i = 0; i < n; i++) {
        bool nan = role == MODEL_ROLE_EMBED && w->o->nan_token > 0 && i / shape->dims[1] == w->o->nan_token;
        to[i] = scale * normal(&w->random) + shift;
        to[i] = nan ? NAN : to[i];
    }
}

static void add(writer *w, const char *name, size_t rank, const size_t *shape, const float *wide, size_t n)
{
    uint16_t *narrow = malloc(n * sizeof *narrow);

    for (size_t i = 0; i < n; i++) {
        narrow[i] = compute_bf16_from_f32(wide[i]);
    }
    if (w->o->bf16) {
        test_tensors_add(w->tensors, name, "BF16", shape, rank, narrow, n * sizeof *narrow);
    } else {
        test_tensors_add(w->tensors, name, "F32", shape, rank, wide, n * sizeof *wide);
    }
    free(narrow);
}

/* All tensors of a role in a layer, under the names of the file; stored parts follow each other in it. */
static void add_role(writer *w, model_role role, uint32_t layer)
{
    const model_config *c = &w->config;
    const model_stored *stored =
        c->family->stored == NULL || c->family->stored_is_optional ? NULL : &c->family->stored[role];
    const char *pattern = stored != NULL && stored->pattern != NULL ? stored->pattern : NULL;
    bool all = pattern != NULL && strstr(pattern, "{e}") == NULL;
    uint32_t first, n_experts = model_role_experts(c, role, &first), of = pattern == NULL ? 1 : stored->of;
    model_tensor_shape shape;
    size_t n, dims[3];
    float *values;

    if (!model_tensor_shape_of(c, role, layer, &shape) || (pattern != NULL && stored->part > 0)) {
        return; /* parts are written with their first */
    }
    n = of * shape.dims[0] * (shape.rank == 2 ? shape.dims[1] : 1);
    values = malloc(n * n_experts * sizeof *values);
    fill(w, role, &shape, values, n * n_experts);
    for (uint32_t e = 0; e < (all ? 1 : n_experts); e++) {
        char name[CHECKPOINT_MAX_NAME];
        model_format_name(pattern == NULL ? model_role_pattern(c, role) : pattern, layer, first + e, name);
        dims[0] = all ? n_experts : of * shape.dims[0];
        dims[1] = all ? of * shape.dims[0] : shape.dims[1];
        dims[2] = shape.dims[1];
        add(w, name, shape.rank + all, dims, values + e * n, all ? n * n_experts : n);
    }
    free(values);
}

static void write_config(const random_model *o, const char *path)
{
    char text[2048];

    for (size_t i = 0; i < RANDOM_MODEL_N_KINDS; i++) {
        if (strcmp(random_model_kinds[i], o->kind) == 0) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof text, configs[i], o->vocab_size, o->n_layers, o->vocab_size - 1,
                     o->bf16 ? "bfloat16" : "float32");
#pragma GCC diagnostic pop
            test_write_text(path, text);
            return;
        }
    }
    fail_msg("no kind %s", o->kind);
}

void random_model_write(const random_model *o, const char *dir)
{
    writer w = {.o = o, .tensors = test_tensors_open()};
    char path[512];
    moe_error err;

    moe_random_seed(&w.random, o->seed);
    snprintf(path, sizeof path, "%s/config.json", dir);
    write_config(o, path);
    assert_ok(model_config_load(dir, &w.config, &err), err);
    for (int role = 0; role < MODEL_FIRST_LAYER_ROLE; role++) {
        add_role(&w, (model_role)role, 0);
    }
    for (uint32_t layer = 0; layer < o->n_layers; layer++) {
        for (int role = MODEL_FIRST_LAYER_ROLE; role < MODEL_N_ROLES; role++) {
            add_role(&w, (model_role)role, layer);
        }
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    test_tensors_save(w.tensors, path);
    test_tensors_close(w.tensors);
}
