/* config.json, and after the first zero byte generation_config.json: refused with a reason, or within every bound that
 * the rest of the program relies on. Small inputs are read from files as well, to the same end. */
#include "model/config_keys.h"
#include "model/family/family.h"
#include "compute/math.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PAIRS       512
#define MAX_FILES_BYTES 128

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const model_config *c)
{
    MOE_ASSERT(c->family != NULL && c->n_layers >= 1 && c->n_layers <= MODEL_MAX_LAYERS);
    MOE_ASSERT(c->n_experts >= 1 && c->n_experts <= MODEL_MAX_EXPERTS);
    MOE_ASSERT(c->gate.k >= 1 && c->gate.k <= c->n_experts && c->gate.k <= ROUTER_MAX_TOP_K);
    MOE_ASSERT(c->n_ffn_experts >= 1 && c->n_ffn_experts <= c->n_experts && c->gate_width <= 1u << 20);
    MOE_ASSERT(c->n_att_experts == 0 || (c->att_gate.k >= 1 && c->att_gate.k <= c->n_att_experts));
    MOE_ASSERT(c->head_dim >= 1 && (c->no_positions || c->head_dim % 2 == 0));
    MOE_ASSERT(c->n_kv_heads >= 1 && c->n_heads % c->n_kv_heads == 0);
    MOE_ASSERT(c->d_model <= 1u << 20 && c->d_ff >= 1 && c->d_ff <= 1u << 20);
    MOE_ASSERT(c->vocab_size >= 1 && c->vocab_size <= 4194304u && c->max_positions >= 1);
    MOE_ASSERT(c->norm_eps > 0.0f && c->norm_eps < 1.0f);
    MOE_ASSERT(c->no_positions || (isfinite(c->rope.theta) && c->rope.theta >= 1.0 && c->rope.position_scale > 0.0));
    MOE_ASSERT(!c->clip_qkv || (c->clip_qkv_bound > 0.0f && isfinite(c->clip_qkv_bound)));
    MOE_ASSERT(c->n_eos <= MODEL_MAX_EOS);
    for (uint32_t i = 0; i < c->n_eos; i++) {
        MOE_ASSERT(c->eos_ids[i] >= 0 && (uint32_t)c->eos_ids[i] < c->vocab_size &&
                   (i == 0 || c->eos_ids[i - 1] < c->eos_ids[i]));
    }
}

/* Angles stay numbers, and a scaled pair turns no faster than it did. */
static void check_rope(const model_config *c)
{
    static double frequencies[MAX_PAIRS], plain[MAX_PAIRS];

    MOE_ASSERT(c->rope.magnitude > 0.0 && isfinite(c->rope.magnitude) && c->rope.position_scale <= 1.0);
    if (c->no_positions || c->head_dim / 2 > MAX_PAIRS) {
        return;
    }
    compute_rope_frequencies(plain, c->head_dim, c->rope.theta);
    model_rope_frequencies(&c->rope, c->head_dim, frequencies);
    for (uint32_t j = 0; j < c->head_dim / 2; j++) {
        MOE_ASSERT(frequencies[j] > 0.0 && frequencies[j] <= plain[j] * (1.0 + 1e-12));
    }
}

static void check_context(const model_config *c)
{
    uint32_t context = 0;
    moe_error err = {.text = ""};

    if (model_config_context(c, 0, &context, &err) == MOE_OK) {
        MOE_ASSERT(context >= 1 && context <= c->window && context <= 1u << 24);
    } else {
        MOE_ASSERT(err.text[0] != '\0' && c->window < c->max_positions);
    }
}

/* What a request would be refused for, no default may be. */
static void check_defaults(const model_defaults *d)
{
    MOE_ASSERT(d->temperature == -1.0 || (d->temperature >= 0.0 && d->temperature <= 100.0));
    MOE_ASSERT(d->top_p == -1.0 || ((float)d->top_p > 0.0f && d->top_p <= 1.0));
    MOE_ASSERT(d->min_p == -1.0 || (d->min_p >= 0.0 && d->min_p <= 1.0));
    MOE_ASSERT(d->frequency_penalty >= -100.0 && d->frequency_penalty <= 100.0);
    MOE_ASSERT(d->presence_penalty >= -100.0 && d->presence_penalty <= 100.0);
    MOE_ASSERT(d->repetition_penalty == -1.0 ||
               ((float)d->repetition_penalty > 0.0f && d->repetition_penalty <= 100.0));
    MOE_ASSERT(d->top_k >= -1 && (d->max_new_tokens == -1 || d->max_new_tokens > 0));
    MOE_ASSERT(d->min_new_tokens >= -1);
    MOE_ASSERT(d->max_length == -1 || (d->max_length > 0 && d->max_new_tokens == -1));
    MOE_ASSERT(memchr(d->not_served, '\0', sizeof d->not_served) != NULL);
    MOE_ASSERT(!d->is_missing || (d->temperature == -1.0 && d->top_k == -1 && d->max_new_tokens == -1));
}

/* The longest names there can be: every tensor that the config has can be named. */
static void check_names(const model_config *c)
{
    char name[CHECKPOINT_MAX_NAME];
    model_tensor_shape shape;

    for (int role = 0; role < MODEL_N_ROLES; role++) {
        if (model_tensor_shape_of(c, (model_role)role, c->n_layers - 1, &shape)) {
            MOE_ASSERT(shape.rank >= 1 && shape.rank <= 2 && shape.dims[0] >= 1);
            model_tensor_name(c, (model_role)role, c->n_layers - 1, c->n_experts - 1, name);
            MOE_ASSERT(memchr(name, '\0', sizeof name) != NULL);
        }
    }
}

static void check_text(const model_config *c)
{
    moe_text text;

    moe_text_init(&text, 1u << 16);
    model_config_text(c, &text);
    MOE_ASSERT(!text.failed && text.size > 0);
    moe_text_fini(&text);
}

/* The keys that would be logged. */
static void check_unknown(const uint8_t *data, size_t n, const model_config *c)
{
    moe_json *json = NULL;
    moe_text names;

    MOE_ASSERT(moe_json_parse_python((const char *)data, n, 32, &json, NULL) == MOE_OK);
    moe_text_init(&names, 1u << 20);
    model_config_unknown(json, c->family, &names);
    MOE_ASSERT(!names.failed && (names.size == 0 || names.data[0] == ' '));
    moe_text_fini(&names);
    moe_json_free(json);
}

static void write_file(const char *dir, const char *name, const void *data, size_t n)
{
    char path[64];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "wbe");
    MOE_ASSERT(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

static bool loads(const uint8_t *data, size_t n, const char *generation, size_t n_generation)
{
    char dir[] = "/tmp/fuzz_config_XXXXXX", path[64];
    model_config c;
    moe_error err = {.text = ""};

    MOE_ASSERT(mkdtemp(dir));
    write_file(dir, "config.json", data, n);
    if (generation != NULL) {
        write_file(dir, "generation_config.json", generation, n_generation);
    }
    const bool loaded = model_config_load(dir, &c, &err) == MOE_OK;
    MOE_ASSERT(loaded || err.text[0] != '\0');
    (void)snprintf(path, sizeof path, "%s/generation_config.json", dir);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/config.json", dir);
    MOE_ASSERT(unlink(path) == 0 && rmdir(dir) == 0);
    return loaded;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size > 0 ? memchr(data, 0, size) : NULL;
    size_t bytes = zero != NULL ? (size_t)(zero - data) : size;
    const char *generation = zero != NULL ? (const char *)zero + 1 : NULL;
    const size_t n_generation = zero != NULL ? size - bytes - 1 : 0;
    model_config c;
    moe_error err = {.text = ""};

    const bool parsed = model_config_parse((const char *)data, bytes, generation, n_generation, &c, &err) == MOE_OK;
    if (parsed) {
        check(&c);
        check_rope(&c);
        check_context(&c);
        check_defaults(&c.defaults);
        check_names(&c);
        check_text(&c);
        check_unknown(data, bytes, &c);
    } else {
        MOE_ASSERT(err.text[0] != '\0');
    }
    MOE_ASSERT(size > MAX_FILES_BYTES || loads(data, bytes, generation, n_generation) == parsed);
    return 0;
}
