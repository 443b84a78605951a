/* A small sound config.json, to vary by one key; shared by the tests of the files of model/ that read it. */
#ifndef CONCLAVE_TEST_MODEL_CONFIG_SUPPORT_H
#define CONCLAVE_TEST_MODEL_CONFIG_SUPPORT_H

#include "model/model.h"
#include "tests/support/support.h"

#include <stdlib.h>

/* ------------------------------------------------------------------------------------------------ a config to vary */
typedef struct field {
    const char *key, *value;
} field;

static const field base[] = {
    {"model_type", "\"olmoe\""},
    {"architectures", "[\"OlmoeForCausalLM\"]"},
    {"vocab_size", "256"},
    {"hidden_size", "96"},
    {"intermediate_size", "40"},
    {"num_hidden_layers", "3"},
    {"num_attention_heads", "4"},
    {"num_key_value_heads", "2"},
    {"hidden_act", "\"silu\""},
    {"max_position_embeddings", "4096"},
    {"rms_norm_eps", "1e-05"},
    {"rope_theta", "10000.0"},
    {"rope_scaling", "null"},
    {"clip_qkv", "null"},
    {"attention_bias", "false"},
    {"num_experts", "24"},
    {"num_experts_per_tok", "3"},
    {"norm_topk_prob", "false"},
    {"tie_word_embeddings", "false"},
    {"pad_token_id", "1"},
    {"eos_token_id", "255"},
};

/* The base with one key replaced, added, or (value NULL) left out. */
static inline void render(moe_text *out, const char *key, const char *value)
{
    bool replaced = false;
    const char *comma = "";

    moe_text_init(out, 1u << 16);
    moe_text_printf(out, "{");
    for (size_t i = 0; i < MOE_COUNT(base); i++) {
        bool is_it = strcmp(base[i].key, key) == 0;

        replaced |= is_it;
        if (!is_it || value != NULL) {
            moe_text_printf(out, "%s\"%s\": %s", comma, base[i].key, is_it ? value : base[i].value);
            comma = ", ";
        }
    }
    if (!replaced && value != NULL) {
        moe_text_printf(out, ", \"%s\": %s", key, value);
    }
    moe_text_printf(out, "}");
}

static inline moe_status parse_both(const char *key, const char *value, const char *generation, model_config *out,
                                    moe_error *err)
{
    moe_text text;
    moe_status status;

    render(&text, key, value);
    status =
        model_config_parse(text.data, text.size, generation, generation == NULL ? 0 : strlen(generation), out, err);
    moe_text_fini(&text);
    return status;
}

static inline model_config parsed(const char *key, const char *value, const char *generation)
{
    model_config c = {0};
    moe_error err = {.text = ""};

    assert_ok(parse_both(key, value, generation, &c, &err), err);
    return c;
}

static inline model_config with(const char *key, const char *value)
{
    return parsed(key, value, NULL);
}

static inline char *text_of(const model_config *c)
{
    moe_text text;

    moe_text_init(&text, 1u << 16);
    model_config_text(c, &text);
    assert_false(text.failed);
    return text.data;
}

/* The model, and with it its fingerprint, is that of the base. */
static inline void assert_same_text(const char *key, const char *value)
{
    model_config plain = with("", NULL), other = with(key, value);
    char *wanted = text_of(&plain), *is = text_of(&other);

    assert_string_equal(is, wanted);
    free(wanted);
    free(is);
}

#endif
