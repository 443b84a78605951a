/* generation_config.json: end-of-sequence ids, which must be sound, and defaults of sampling, which need not: what
 * cannot be taken is named in not_served, and the model is served all the same. */
#include "model/config_keys.h"
#include "sampling/sampling.h"

#include <float.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* What asks for something that is not here, unless it is null, false, empty or this number. */
typedef struct asked {
    const char *key;
    double neutral;
} asked;

static const asked others[] = {
    {"num_beams", 1},
    {"num_beam_groups", 1},
    {"num_return_sequences", 1},
    {"penalty_alpha", 0},
    {"typical_p", 1},
    {"top_h", 1},
    {"epsilon_cutoff", 0},
    {"eta_cutoff", 0},
    {"diversity_penalty", 0},
    {"encoder_repetition_penalty", 1},
    {"no_repeat_ngram_size", 0},
    {"encoder_no_repeat_ngram_size", 0},
    {"min_length", 0},
    {"guidance_scale", 1},
    {"bad_words_ids", 0},
    {"force_words_ids", 0},
    {"constraints", 0},
    {"forced_bos_token_id", -1},
    {"forced_eos_token_id", -1},
    {"suppress_tokens", 0},
    {"begin_suppress_tokens", 0},
    {"sequence_bias", 0},
    {"exponential_decay_length_penalty", 0},
    {"remove_invalid_values", 0},
    {"token_healing", 0},
    {"stop_strings", 0},
    {"watermarking_config", 0},
    {"dola_layers", 0},
    {"max_time", 0},
};

/* What is served of generation_config.json, but not of config.json, where older versions of transformers wrote it with
 * these values for nothing. */
static const asked served[] = {
    {"do_sample", 0},          {"temperature", 1},    {"top_k", 50},         {"top_p", 1},       {"min_p", 0},
    {"repetition_penalty", 1}, {"max_new_tokens", 0}, {"min_new_tokens", 0}, {"max_length", 20},
};

/* Adds to the list of what is not served; a list that is full says so. */
static void MOE_PRINTF(2, 3) note(model_defaults *d, const char *format, ...)
{
    static const char full[] = ", ...";
    size_t used = strlen(d->not_served), room = sizeof d->not_served - used;
    char text[160];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (used >= sizeof full && strcmp(d->not_served + used - strlen(full), full) == 0) {
        return;
    }
    if (room < strlen(text) + 2 + sizeof full) {
        snprintf(d->not_served + used, room, "%s", full);
    } else {
        snprintf(d->not_served + used, room, "%s%s", used == 0 ? "" : ", ", text);
    }
}

typedef struct bound {
    double min, max;
    bool above_min; /* min, which is 0, is out, and what is 0 as a float */
} bound;

static void take_real(const moe_json *json, const char *key, bound in, double *out, model_defaults *d)
{
    moe_error reason;
    double value = 0.0;
    bool found;

    if (moe_json_real(json, key, -1e308, 1e308, &value, &found, &reason) != MOE_OK) {
        note(d, "%s", reason.text);
    } else if (found && (value < in.min || value > in.max || (in.above_min && value < (double)FLT_MIN))) {
        note(d, "%s: %g must be within %c%g, %g]", key, value, in.above_min ? '(' : '[', in.min, in.max);
    } else if (found) {
        *out = value;
    }
}

/* What is more than max counts as max. */
static void take_count(const moe_json *json, const char *key, int64_t min, int32_t *out, model_defaults *d)
{
    moe_error reason;
    int64_t value = 0;
    bool found;

    if (moe_json_int(json, key, min, INT64_MAX, &value, &found, &reason) != MOE_OK) {
        note(d, "%s", reason.text);
    } else if (found) {
        *out = (int32_t)MOE_MIN(value, (int64_t)INT32_MAX);
    }
}

/* config.json's counts. */
static void take_token(const moe_json *json, const char *key, uint32_t vocab_size, int32_t *id, model_defaults *d)
{
    moe_error reason;
    int64_t value = -1;

    if (*id >= 0) {
        return;
    }
    if (moe_json_int(json, key, -1, (int64_t)vocab_size - 1, &value, NULL, &reason) != MOE_OK) {
        note(d, "%s", reason.text);
    } else {
        *id = (int32_t)value;
    }
}

/* A model that is published as one that does not sample is greedy until a request gives a temperature; the cuts that
 * the file may name as well are for that request. */
static void take_sampling(const moe_json *json, model_defaults *d)
{
    const bound either_sign = {-SAMPLING_MAX_PENALTY, SAMPLING_MAX_PENALTY, false};
    moe_error reason;
    bool sample = true;

    take_real(json, "temperature", (bound){0.0, SAMPLING_MAX_TEMPERATURE, false}, &d->temperature, d);
    take_real(json, "top_p", (bound){0.0, 1.0, false}, &d->top_p, d);
    d->top_p = d->top_p >= 0.0 ? MOE_MAX(d->top_p, (double)FLT_MIN) : d->top_p; /* 0: the likeliest token alone */
    take_real(json, "min_p", (bound){0.0, 1.0, false}, &d->min_p, d);
    take_real(json, "repetition_penalty", (bound){0.0, SAMPLING_MAX_PENALTY, true}, &d->repetition_penalty, d);
    take_real(json, "frequency_penalty", either_sign, &d->frequency_penalty, d);
    take_real(json, "presence_penalty", either_sign, &d->presence_penalty, d);
    take_count(json, "top_k", -1, &d->top_k, d);
    if (moe_json_bool(json, "do_sample", &sample, NULL, &reason) != MOE_OK) {
        note(d, "%s", reason.text);
    }
    d->temperature = sample ? d->temperature : 0.0;
}

/* max_length counts the prompt too, and does not count beside max_new_tokens. */
static void take_length(const moe_json *json, model_defaults *d)
{
    take_count(json, "max_new_tokens", 1, &d->max_new_tokens, d);
    take_count(json, "max_length", 1, &d->max_length, d);
    d->max_length = d->max_new_tokens > 0 ? -1 : d->max_length;
    take_count(json, "min_new_tokens", 0, &d->min_new_tokens, d);
}

static bool asks_for_more(const json_t *value, double neutral)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
    case JSON_FALSE:
        return false;
    case JSON_ARRAY:
        return json_array_size(value) > 0;
    case JSON_OBJECT:
        return json_object_size(value) > 0;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(value) != neutral;
    default:
        return true;
    }
}

static void note_asked(const moe_json *json, const asked *all, size_t n, model_defaults *d)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(json, all[i].key);
        char *text = NULL;

        if (value == NULL || !asks_for_more(value, all[i].neutral)) {
            continue;
        }
        text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        note(d, "%s: %.40s%s", all[i].key, text == NULL ? "" : text, text != NULL && strlen(text) > 40 ? "..." : "");
        free(text);
    }
}

void model_generation_missing(const moe_json *config_json, model_config *c)
{
    note_asked(config_json, served, MOE_COUNT(served), &c->defaults);
    note_asked(config_json, others, MOE_COUNT(others), &c->defaults);
}

moe_status model_generation_parse(const moe_json *json, model_config *c, moe_error *err)
{
    const json_t *eos = json_object_get(json, "eos_token_id");
    moe_status status = eos == NULL || json_is_null(eos) ? MOE_OK : model_config_add_eos(eos, c, err);

    if (status != MOE_OK) {
        return status;
    }
    c->defaults.is_missing = false;
    take_token(json, "bos_token_id", c->vocab_size, &c->bos_id, &c->defaults);
    take_token(json, "pad_token_id", c->vocab_size, &c->pad_id, &c->defaults);
    take_sampling(json, &c->defaults);
    take_length(json, &c->defaults);
    note_asked(json, others, MOE_COUNT(others), &c->defaults);
    return MOE_OK;
}
