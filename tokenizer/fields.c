/* Typed access to the objects of a tokenizer.json. Every refusal names the field by its path in the file. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

const json_t *field(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_null(value) ? NULL : value;
}

moe_status field_bool(const moe_json *object, const char *path, const char *key, bool fallback, bool *out,
                      moe_error *err)
{
    const json_t *value = field(object, key);

    if (value && !json_is_boolean(value)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: not true or false", path, key);
    }
    *out = value ? json_is_true(value) : fallback;
    return MOE_OK;
}

moe_status field_text(const moe_json *object, const char *path, const char *key, const char *fallback, text_view *out,
                      moe_error *err)
{
    const json_t *value = field(object, key);

    if (!value && fallback) {
        *out = (text_view){fallback, strlen(fallback)};
        return MOE_OK;
    }
    if (!json_is_string(value)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: %s", path, key, value ? "not a string" : "missing");
    }
    *out = (text_view){json_string_value(value), json_string_length(value)};
    if (out->size > TOKENIZER_MAX_TOKEN) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: %zu bytes, limit %zu", path, key, out->size, TOKENIZER_MAX_TOKEN);
    }
    return MOE_OK;
}

moe_status field_id(const tokenizer *t, const moe_json *value, const char *path, int32_t *out, moe_error *err)
{
    const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;

    if (!json_is_integer(value)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: not an integer", path);
    }
    if (id < 0 || (uint64_t)id >= t->vocab_size) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: %lld is outside [0, vocab_size %zu)", path, (long long)id,
                        t->vocab_size);
    }
    *out = (int32_t)id;
    return MOE_OK;
}

moe_status field_count(const json_t *object, const char *path, const char *key, size_t *out, moe_error *err)
{
    const json_t *value = field(object, key);
    const json_int_t n = json_integer_value(value); /* 0 for what is not an integer */

    if ((value && !json_is_integer(value)) || n < 0 || n > (json_int_t)TOKENIZER_MAX_TOKEN) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: not an integer in [0, %zu]", path, key, TOKENIZER_MAX_TOKEN);
    }
    *out = (size_t)n;
    return MOE_OK;
}

moe_status field_type(const json_t *object, const char *path, text_view *out, moe_error *err)
{
    if (!json_is_object(object)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: not an object", path);
    }
    return field_text(object, path, "type", NULL, out, err);
}

bool text_is(text_view text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

moe_status refuse_type(const char *path, text_view type, moe_error *err)
{
    return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.type: \"%.64s\" is not supported", path, type.data);
}

/* One character, given as a string. */
moe_status field_char(const json_t *object, const char *path, const char *key, const char *fallback, text_view *out,
                      moe_error *err)
{
    const moe_status status = field_text(object, path, key, fallback, out, err);
    int32_t c;

    if (status == MOE_OK && (out->size == 0 || moe_utf8_get(out->data, &c) != out->size)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: not one character", path, key);
    }
    return status;
}

static moe_status field_regex(const char *pattern, size_t n, const char *path, text_pattern *out, moe_error *err)
{
    moe_error reason = {""};
    const moe_status status = regex_compile(pattern, n, &out->regex, &reason);

    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%s.pattern.Regex: %.200s", path, reason.text);
}

moe_status field_pattern(const json_t *object, const char *path, text_pattern *out, moe_error *err)
{
    const json_t *pattern = field(object, "pattern");
    const bool is_regex = json_object_get(pattern, "Regex") != NULL;
    text_view text;
    moe_status status;

    if (!json_is_object(pattern)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.pattern: not an object", path);
    }
    status = field_text(pattern, path, is_regex ? "Regex" : "String", NULL, &text, err);
    if (status != MOE_OK) {
        return status;
    }
    if (is_regex) {
        return field_regex(text.data, text.size, path, out, err);
    }
    if (text.size == 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.pattern.String: empty", path);
    }
    return pattern_set(out, text.data, text.size) ? MOE_OK
                                                  : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
}

bool pattern_set(text_pattern *out, const char *text, size_t n)
{
    out->literal = text_copy(text, n);
    out->n = n;
    return out->literal != NULL;
}

moe_status steps_add(text_steps *steps, text_step step, const char *path, moe_error *err)
{
    text_step *grown = NULL;

    if (steps->n < TOKENIZER_MAX_STEPS) {
        grown = realloc(steps->steps, (steps->n + 1) * sizeof *grown);
    }
    if (!grown) {
        text_pattern_fini(&step.pattern);
        free(step.content);
        return steps->n == TOKENIZER_MAX_STEPS
                   ? moe_fail(err, MOE_ERR_UNSUPPORTED, "%s: more than %d steps", path, TOKENIZER_MAX_STEPS)
                   : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    steps->steps = grown;
    grown[steps->n++] = step;
    return MOE_OK;
}

moe_status steps_add_replace(text_steps *steps, const json_t *json, const char *path, moe_error *err)
{
    text_step step = {.kind = STEP_REPLACE};
    text_view content;
    moe_status status = field_text(json, path, "content", NULL, &content, err);

    if (status == MOE_OK) {
        status = field_pattern(json, path, &step.pattern, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    step.content = text_copy(content.data, content.size);
    step.n_content = content.size;
    if (!step.content) {
        text_pattern_fini(&step.pattern);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    return steps_add(steps, step, path, err);
}

moe_status load_sequence(tokenizer *t, const json_t *json, const char *path, const char *key, load_step load,
                         moe_error *err)
{
    const json_t *list = field(json, key);
    moe_status status = MOE_OK;

    if (!json_is_array(list)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: not an array", path, key);
    }
    for (size_t i = 0; i < json_array_size(list) && status == MOE_OK; i++) {
        char inner[MAX_PATH];

        snprintf(inner, sizeof inner, "%s.%s[%zu]", path, key, i);
        status = load(t, json_array_get(list, i), inner, err);
    }
    return status;
}

static moe_status load_scheme(const json_t *json, const char *path, const char *fallback, prepend_scheme *out,
                              moe_error *err)
{
    static const char *const names[] = {"always", "first", "never"};
    text_view scheme;
    moe_status status = field_text(json, path, "prepend_scheme", fallback, &scheme, err);

    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        if (text_is(scheme, names[i])) {
            *out = (prepend_scheme)i;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.prepend_scheme: \"%.64s\" is not supported", path, scheme.data);
}

moe_status field_metaspace(const json_t *json, const char *path, text_view *mark, prepend_scheme *scheme,
                           moe_error *err)
{
    bool prefix = true;
    moe_status status = field_char(json, path, "replacement", "\xe2\x96\x81", mark, err);

    if (status == MOE_OK) {
        status = field_bool(json, path, "add_prefix_space", true, &prefix, err);
    }
    return status == MOE_OK ? load_scheme(json, path, prefix ? "always" : "never", scheme, err) : status;
}
