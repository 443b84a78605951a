/* The objects of tokenizer.json that carry a type: normalizer, pre_tokenizer, post_processor, decoder. A type that is
 * not known is refused by name. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATH = 192 };

static const json_t *field(const json_t *object, const char *key)
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

static moe_status field_count(const json_t *object, const char *path, const char *key, size_t *out, moe_error *err)
{
    const json_t *value = field(object, key);
    const json_int_t n = json_integer_value(value); /* 0 for what is not an integer */

    if ((value && !json_is_integer(value)) || n < 0 || n > (json_int_t)TOKENIZER_MAX_TOKEN) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: not an integer in [0, %zu]", path, key, TOKENIZER_MAX_TOKEN);
    }
    *out = (size_t)n;
    return MOE_OK;
}

static moe_status field_type(const json_t *object, const char *path, text_view *out, moe_error *err)
{
    if (!json_is_object(object)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: not an object", path);
    }
    return field_text(object, path, "type", NULL, out, err);
}

static bool is(text_view text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

static moe_status refuse_type(const char *path, text_view type, moe_error *err)
{
    return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.type: \"%.64s\" is not supported", path, type.data);
}

/* One character, given as a string. */
static moe_status field_char(const json_t *object, const char *path, const char *key, const char *fallback,
                             text_view *out, moe_error *err)
{
    const moe_status status = field_text(object, path, key, fallback, out, err);
    int32_t c;

    if (status == MOE_OK && (out->size == 0 || utf8_get(out->data, &c) != out->size)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: not one character", path, key);
    }
    return status;
}

/* {"String": "..."}; a regular expression is refused. */
static moe_status field_pattern(const json_t *object, const char *path, text_view *out, moe_error *err)
{
    const json_t *pattern = field(object, "pattern");
    moe_status status;

    if (json_object_get(pattern, "Regex")) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.pattern.Regex: regular expressions are not supported", path);
    }
    if (!json_is_object(pattern)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.pattern: not an object", path);
    }
    status = field_text(pattern, path, "String", NULL, out, err);
    if (status == MOE_OK && out->size == 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.pattern.String: empty", path);
    }
    return status;
}

static moe_status steps_add(text_steps *steps, text_step step, text_view pattern, text_view content, const char *path,
                            moe_error *err)
{
    text_step *grown;

    if (steps->n == TOKENIZER_MAX_STEPS) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s: more than %d steps", path, TOKENIZER_MAX_STEPS);
    }
    grown = realloc(steps->steps, (steps->n + 1) * sizeof *grown);
    if (!grown) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
    }
    steps->steps = grown;
    step.pattern = text_copy(pattern.data, pattern.size);
    step.n_pattern = pattern.size;
    step.content = text_copy(content.data, content.size);
    step.n_content = content.size;
    grown[steps->n++] = step;
    return step.pattern && step.content ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
}

static const text_view nothing = {"", 0};

static moe_status add_replace(text_steps *steps, const json_t *json, const char *path, moe_error *err)
{
    text_view pattern, content;
    moe_status status = field_pattern(json, path, &pattern, err);

    if (status == MOE_OK) {
        status = field_text(json, path, "content", NULL, &content, err);
    }
    return status == MOE_OK ? steps_add(steps, (text_step){.kind = STEP_REPLACE}, pattern, content, path, err) : status;
}

/* Calls load for each element of json[key]. */
typedef moe_status (*load_step)(tokenizer *t, const json_t *json, const char *path, moe_error *err);

static moe_status load_sequence(tokenizer *t, const json_t *json, const char *path, const char *key, load_step load,
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

/* ------------------------------------------------------------------------------------------------ normalizer */
static moe_status normalizer_step(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    text_view type, content;
    moe_status status = field_type(json, path, &type, err);

    if (status != MOE_OK) {
        return status;
    }
    if (is(type, "Sequence")) {
        return load_sequence(t, json, path, "normalizers", normalizer_step, err);
    }
    if (is(type, "NFC")) {
        return steps_add(&t->normalizer, (text_step){.kind = STEP_NFC}, nothing, nothing, path, err);
    }
    if (is(type, "Replace")) {
        return add_replace(&t->normalizer, json, path, err);
    }
    if (is(type, "Prepend")) {
        status = field_text(json, path, "prepend", NULL, &content, err);
        return status == MOE_OK
                   ? steps_add(&t->normalizer, (text_step){.kind = STEP_PREPEND}, nothing, content, path, err)
                   : status;
    }
    return refuse_type(path, type, err);
}

moe_status load_normalizer(tokenizer *t, const moe_json *json, moe_error *err)
{
    const json_t *normalizer = field(json, "normalizer");

    return normalizer ? normalizer_step(t, normalizer, "tokenizer.json: normalizer", err) : MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ pre_tokenizer */
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
        if (is(scheme, names[i])) {
            *out = (prepend_scheme)i;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.prepend_scheme: \"%.64s\" is not supported", path, scheme.data);
}

/* Old files say add_prefix_space instead of prepend_scheme. */
static moe_status load_metaspace(const json_t *json, const char *path, text_view *mark, prepend_scheme *scheme,
                                 moe_error *err)
{
    bool prefix = true;
    moe_status status = field_char(json, path, "replacement", "\xe2\x96\x81", mark, err);

    if (status == MOE_OK) {
        status = field_bool(json, path, "add_prefix_space", true, &prefix, err);
    }
    return status == MOE_OK ? load_scheme(json, path, prefix ? "always" : "never", scheme, err) : status;
}

static moe_status load_byte_level(const json_t *json, const char *path, pre_tokenizer *pre, moe_error *err)
{
    moe_status status = field_bool(json, path, "add_prefix_space", true, &pre->add_prefix_space, err);

    pre->kind = PRE_BYTE_LEVEL;
    return status == MOE_OK ? field_bool(json, path, "use_regex", true, &pre->use_regex, err) : status;
}

moe_status load_pre_tokenizer(tokenizer *t, const moe_json *json, moe_error *err)
{
    static const char path[] = "tokenizer.json: pre_tokenizer";
    const json_t *pre = field(json, "pre_tokenizer");
    text_view type, mark;
    moe_status status = pre ? field_type(pre, path, &type, err) : MOE_OK;

    if (status != MOE_OK || !pre) {
        return status;
    }
    if (is(type, "ByteLevel")) {
        return load_byte_level(pre, path, &t->pre, err);
    }
    if (!is(type, "Metaspace")) {
        return refuse_type(path, type, err);
    }
    status = load_metaspace(pre, path, &mark, &t->pre.scheme, err);
    if (status == MOE_OK) {
        t->pre.kind = PRE_METASPACE;
        t->pre.n_mark = mark.size;
        memcpy(t->pre.mark, mark.data, mark.size);
        status = field_bool(pre, path, "split", true, &t->pre.split, err);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ post_processor */
static moe_status affix_add(tokenizer *t, const json_t *ids, bool before, const char *path, moe_error *err)
{
    size_t *n = before ? &t->n_prefix : &t->n_suffix;
    moe_status status = MOE_OK;

    if (!json_is_array(ids)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: its special token has no list of ids", path);
    }
    for (size_t i = 0; i < json_array_size(ids) && status == MOE_OK; i++) {
        if (*n == TOKENIZER_MAX_AFFIX) {
            return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s: more than %d ids at one end", path, TOKENIZER_MAX_AFFIX);
        }
        status = field_id(t, json_array_get(ids, i), path, &(before ? t->prefix : t->suffix)[(*n)++], err);
    }
    return status;
}

/* "single": special tokens around exactly one sequence A. */
static moe_status load_template(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    const json_t *single = field(json, "single"), *specials = field(json, "special_tokens");
    size_t n_sequences = 0;

    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i), *special = json_object_get(piece, "SpecialToken");
        const json_t *sequence = json_object_get(piece, "Sequence");
        const char *name = json_string_value(json_object_get(special ? special : sequence, "id"));
        moe_status status = MOE_OK;
        char inner[MAX_PATH];

        snprintf(inner, sizeof inner, "%s.single[%zu]", path, i);
        if (!name || (!special && strcmp(name, "A") != 0)) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s: neither a SpecialToken nor the Sequence A", inner);
        }
        if (special) {
            status =
                affix_add(t, json_object_get(json_object_get(specials, name), "ids"), n_sequences == 0, inner, err);
        }
        n_sequences += !special;
        if (status != MOE_OK) {
            return status;
        }
    }
    if (n_sequences != 1) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.single: %zu sequences, expected 1", path, n_sequences);
    }
    return MOE_OK;
}

moe_status load_post_processor(tokenizer *t, const moe_json *json, moe_error *err)
{
    static const char path[] = "tokenizer.json: post_processor";
    const json_t *post = field(json, "post_processor");
    text_view type;
    const moe_status status = post ? field_type(post, path, &type, err) : MOE_OK;

    if (status != MOE_OK || !post || is(type, "ByteLevel")) { /* ByteLevel moves offsets only */
        return status;
    }
    return is(type, "TemplateProcessing") ? load_template(t, post, path, err) : refuse_type(path, type, err);
}

/* ------------------------------------------------------------------------------------------------ decoder
 * Tokens are decoded one by one while they stream, so the order of steps is fixed: steps on single tokens, then
 * ByteFallback, then Fuse, then what is taken off the head of the whole. Any other order is refused. */
enum { PHASE_TOKENS, PHASE_BYTES, PHASE_WHOLE, PHASE_DONE };

static int decoder_phase(const decoder *d)
{
    return d->n_strip > 0 ? PHASE_DONE : d->fused ? PHASE_WHOLE : d->byte_fallback ? PHASE_BYTES : PHASE_TOKENS;
}

static moe_status decoder_strip(decoder *d, const json_t *json, const char *path, moe_error *err)
{
    text_step step = {.kind = STEP_STRIP};
    text_view c;
    moe_status status = field_char(json, path, "content", NULL, &c, err);

    if (status == MOE_OK) {
        status = field_count(json, path, "start", &step.start, err);
    }
    if (status == MOE_OK) {
        status = field_count(json, path, "stop", &step.stop, err);
    }
    if (status != MOE_OK || !d->fused) {
        return status == MOE_OK ? steps_add(&d->steps, step, c, nothing, path, err) : status;
    }
    if (step.stop > 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.stop: %zu after Fuse is not supported", path, step.stop);
    }
    memcpy(d->strip, c.data, c.size);
    d->strip_bytes = c.size;
    d->n_strip = step.start;
    return MOE_OK;
}

static moe_status decoder_metaspace(decoder *d, const json_t *json, const char *path, moe_error *err)
{
    prepend_scheme scheme = PREPEND_ALWAYS;
    text_view mark;
    const moe_status status = load_metaspace(json, path, &mark, &scheme, err);

    if (status != MOE_OK) {
        return status;
    }
    d->has_metaspace = true;
    return steps_add(&d->steps, (text_step){.kind = STEP_METASPACE, .drop_first = scheme != PREPEND_NEVER}, mark,
                     nothing, path, err);
}

static moe_status decoder_step(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    decoder *d = &t->decoder;
    const int phase = decoder_phase(d);
    text_view type;
    const moe_status status = field_type(json, path, &type, err);

    if (status != MOE_OK) {
        return status;
    }
    if (is(type, "Sequence")) {
        return load_sequence(t, json, path, "decoders", decoder_step, err);
    }
    if (is(type, "Fuse")) {
        d->fused = true;
        return MOE_OK;
    }
    if (is(type, "Strip") && !d->byte_level && (phase == PHASE_TOKENS || phase == PHASE_WHOLE)) {
        return decoder_strip(d, json, path, err);
    }
    if (phase != PHASE_TOKENS || d->byte_level) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.type: \"%.64s\" is not supported at this place of the sequence",
                        path, type.data);
    }
    if (is(type, "Replace")) {
        return add_replace(&d->steps, json, path, err);
    }
    if (is(type, "Metaspace")) {
        return decoder_metaspace(d, json, path, err);
    }
    d->byte_fallback = is(type, "ByteFallback");
    d->byte_level = is(type, "ByteLevel") && d->steps.n == 0;
    return d->byte_fallback || d->byte_level ? MOE_OK : refuse_type(path, type, err);
}

moe_status load_decoder(tokenizer *t, const moe_json *json, moe_error *err)
{
    const json_t *json_decoder = field(json, "decoder");

    t->decoder.join_with_space = !json_decoder;
    return json_decoder ? decoder_step(t, json_decoder, "tokenizer.json: decoder", err) : MOE_OK;
}
