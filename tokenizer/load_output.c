/* The objects of tokenizer.json behind the model: post_processor and decoder. A type that is not known is refused by
 * name. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <string.h>

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

/* BertProcessing, RobertaProcessing: {"cls": ["<s>", 0], "sep": ["</s>", 2]} around the text. */
static moe_status load_cls_and_sep(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    static const char *const keys[] = {"cls", "sep"};
    moe_status status = MOE_OK;

    for (size_t i = 0; i < MOE_COUNT(keys) && status == MOE_OK; i++) {
        const json_t *pair = field(json, keys[i]);
        char inner[MAX_PATH];

        snprintf(inner, sizeof inner, "%s.%s[1]", path, keys[i]);
        status = field_id(t, json_array_get(pair, 1), inner, i == 0 ? &t->prefix[0] : &t->suffix[0], err);
        *(i == 0 ? &t->n_prefix : &t->n_suffix) = 1;
    }
    return status;
}

static moe_status post_processor_step(tokenizer *t, const json_t *json, const char *path, moe_error *err)
{
    text_view type;
    const moe_status status = field_type(json, path, &type, err);
    const bool from_pieces = status == MOE_OK && text_is(type, "TemplateProcessing");

    if (status != MOE_OK || text_is(type, "ByteLevel")) { /* ByteLevel moves offsets only */
        return status;
    }
    if (text_is(type, "Sequence")) {
        return load_sequence(t, json, path, "processors", post_processor_step, err);
    }
    if (!from_pieces && !text_is(type, "BertProcessing") && !text_is(type, "RobertaProcessing")) {
        return refuse_type(path, type, err);
    }
    if (t->has_template) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.type: \"%.64s\" is a second template", path, type.data);
    }
    t->has_template = true;
    return from_pieces ? load_template(t, json, path, err) : load_cls_and_sep(t, json, path, err);
}

moe_status load_post_processor(tokenizer *t, const moe_json *json, moe_error *err)
{
    const json_t *post = field(json, "post_processor");

    return post ? post_processor_step(t, post, "tokenizer.json: post_processor", err) : MOE_OK;
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
    if (status != MOE_OK) {
        return status;
    }
    if (!d->fused) {
        return pattern_set(&step.pattern, c.data, c.size) ? steps_add(&d->steps, step, path, err)
                                                          : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
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
    text_step step = {.kind = STEP_METASPACE};
    prepend_scheme scheme = PREPEND_ALWAYS;
    text_view mark;
    const moe_status status = field_metaspace(json, path, &mark, &scheme, err);

    if (status != MOE_OK) {
        return status;
    }
    d->has_metaspace = true;
    step.drop_first = scheme != PREPEND_NEVER;
    return pattern_set(&step.pattern, mark.data, mark.size)
               ? steps_add(&d->steps, step, path, err)
               : moe_fail(err, MOE_ERR_NO_MEMORY, "%s: out of memory", path);
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
    if (text_is(type, "Sequence")) {
        return load_sequence(t, json, path, "decoders", decoder_step, err);
    }
    if (text_is(type, "Fuse")) {
        d->fused = true;
        return MOE_OK;
    }
    if (text_is(type, "Strip") && !d->byte_level && (phase == PHASE_TOKENS || phase == PHASE_WHOLE)) {
        return decoder_strip(d, json, path, err);
    }
    if (phase != PHASE_TOKENS || d->byte_level) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.type: \"%.64s\" is not supported at this place of the sequence",
                        path, type.data);
    }
    if (text_is(type, "Replace")) {
        return steps_add_replace(&d->steps, json, path, err);
    }
    if (text_is(type, "Metaspace")) {
        return decoder_metaspace(d, json, path, err);
    }
    d->byte_fallback = text_is(type, "ByteFallback");
    d->byte_level = text_is(type, "ByteLevel") && d->steps.n == 0;
    return d->byte_fallback || d->byte_level ? MOE_OK : refuse_type(path, type, err);
}

moe_status load_decoder(tokenizer *t, const moe_json *json, moe_error *err)
{
    const json_t *json_decoder = field(json, "decoder");

    t->decoder.join_with_space = !json_decoder;
    return json_decoder ? decoder_step(t, json_decoder, "tokenizer.json: decoder", err) : MOE_OK;
}
