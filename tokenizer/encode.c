/* The pipeline: raw added tokens, normalizer, normalised added tokens, pre-tokenizer, model. */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>

void encoding_init(encoding *e, tokenizer *t, int32_t *ids, size_t max_ids)
{
    *e = (encoding){.t = t, .ids = ids, .max_ids = max_ids, .head = true};
    for (size_t i = 0; i < 2; i++) {
        moe_text_init(&e->norm[i], TOKENIZER_MAX_TEXT * 4);
    }
    moe_text_init(&e->pre, TOKENIZER_MAX_TEXT * 16);
    moe_text_init(&e->mapped, TOKENIZER_MAX_TEXT * 8);
    for (size_t i = 0; i < MOE_COUNT(e->staged); i++) {
        moe_text_init(&e->staged[i], TOKENIZER_MAX_TEXT * 16);
    }
}

void encoding_fini(encoding *e)
{
    for (size_t i = 0; i < 2; i++) {
        moe_text_fini(&e->norm[i]);
    }
    moe_text_fini(&e->pre);
    moe_text_fini(&e->mapped);
    for (size_t i = 0; i < MOE_COUNT(e->staged); i++) {
        moe_text_fini(&e->staged[i]);
        pattern_walk_fini(&e->walks[i]);
    }
    free(e->symbols);
    free(e->heap);
}

/* A stretch between added tokens. Where it is certain to be too much, it is not begun: merging a long word costs
 * more. */
static moe_status encode_plain(encoding *e, text_view text, bool head)
{
    if (bounds_exceed(e->t, text, e->max_ids - e->n_ids)) {
        return MOE_ERR_BUSY;
    }
    return pretokenize(e, text, head);
}

static moe_status encode_normalized(encoding *e, text_view text, const tokenizer_span *spans, size_t n_spans, bool head)
{
    moe_status status = MOE_OK;
    added_match match;
    size_t at = 0;

    while (status == MOE_OK && added_set_next(&e->t->normalized, text, at, spans, n_spans, true, &match)) {
        status = encode_plain(e, (text_view){text.data + at, match.begin - at}, head && at == 0);
        if (status == MOE_OK) {
            e->n_read += match.end - match.begin;
            status = encoding_emit(e, match.id);
        }
        at = match.end;
    }
    return status == MOE_OK ? encode_plain(e, (text_view){text.data + at, text.size - at}, head && at == 0) : status;
}

/* Where the masked ranges of raw[0, n) lie after normalising: their edges move by what stands before them. Exact where
 * an edge is not inside a character that is composed, as at the line feeds around a chat message. */
static moe_status map_spans(encoding *e, text_view raw, const tokenizer_span *spans, size_t n, size_t base,
                            tokenizer_span *out)
{
    size_t edge = 0, mapped = 0;

    for (size_t i = 0; i < n * 2; i++) {
        const size_t to = i % 2 ? spans[i / 2].end : spans[i / 2].begin;
        const size_t next = MOE_MIN(MOE_MAX(to, base) - base, raw.size);
        text_view part;
        const moe_status status =
            text_steps_run(&e->t->normalizer, (text_view){raw.data + edge, next - edge}, edge == 0, e->norm, &part);

        if (status != MOE_OK) {
            return status;
        }
        mapped += part.size;
        edge = next;
        *(i % 2 ? &out[i / 2].end : &out[i / 2].begin) = mapped;
    }
    return MOE_OK;
}

/* text[begin, end) holds no raw added token. */
static moe_status encode_raw(encoding *e, const char *text, size_t begin, size_t end, bool head)
{
    const text_view raw = {text + begin, end - begin};
    const tokenizer_span *spans = e->spans;
    size_t n_spans = e->t->normalized.any_special ? e->n_spans : 0;
    tokenizer_span *mapped = NULL;
    moe_status status = MOE_OK;
    text_view normal;

    if (begin == end) {
        return MOE_OK;
    }
    if (e->t->pieces.present) {
        return bounds_exceed(e->t, raw, e->max_ids - e->n_ids) ? MOE_ERR_BUSY : sentencepiece_encode(e, raw, head);
    }
    for (; n_spans > 0 && spans->end <= begin; spans++, n_spans--) {
    }
    while (n_spans > 0 && spans[n_spans - 1].begin >= end) {
        n_spans--;
    }
    if (n_spans > 0) {
        mapped = calloc(n_spans, sizeof *mapped);
        status = mapped ? map_spans(e, raw, spans, n_spans, begin, mapped) : MOE_ERR_NO_MEMORY;
    }
    if (status == MOE_OK) {
        status = text_steps_run(&e->t->normalizer, raw, true, e->norm, &normal);
    }
    if (status == MOE_OK) {
        status = encode_normalized(e, normal, mapped, n_spans, head);
    }
    free(mapped);
    return status;
}

moe_status encoding_text(encoding *e, const char *text, size_t begin, size_t end)
{
    const text_view whole = {text, end};
    moe_status status = MOE_OK;
    added_match match;
    size_t at = begin;

    while (status == MOE_OK && added_set_next(&e->t->raw, whole, at, e->spans, e->n_spans, false, &match)) {
        status = encode_raw(e, text, at, match.begin, e->head && at == begin);
        if (status == MOE_OK) {
            e->n_read += match.end - match.begin;
            status = encoding_emit(e, match.id);
        }
        at = match.end;
    }
    return status == MOE_OK ? encode_raw(e, text, at, end, e->head && at == begin) : status;
}

moe_status encoding_error(moe_status status, const char *what, size_t max_ids, moe_error *err)
{
    if (status == MOE_ERR_BUSY) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: more than %zu tokens", what, max_ids);
    }
    if (status == MOE_ERR_UNSUPPORTED) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: the tokenizer's expressions would read it again and again",
                        what);
    }
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%s: out of memory while encoding", what);
}

static moe_status check_input(const tokenizer *t, const char *text, size_t bytes, const tokenizer_span *spans,
                              size_t n_spans, size_t max_ids, moe_error *err)
{
    const size_t limit = tokenizer_max_text_bytes(t, max_ids);
    size_t valid;

    if (bytes > limit) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "text: %zu bytes, limit %zu for %zu tokens", bytes, limit, max_ids);
    }
    valid = moe_utf8_valid_prefix(text, bytes);
    if (valid != bytes) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "text: invalid UTF-8 at byte %zu", valid);
    }
    for (size_t i = 0; i < n_spans; i++) {
        if (spans[i].begin > spans[i].end || spans[i].end > bytes || (i > 0 && spans[i].begin < spans[i - 1].end)) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "spans[%zu]: [%zu, %zu) is out of order or beyond %zu bytes", i,
                            spans[i].begin, spans[i].end, bytes);
        }
    }
    return MOE_OK;
}

static moe_status emit_all(encoding *e, const int32_t *ids, size_t n)
{
    moe_status status = MOE_OK;

    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        status = encoding_emit(e, ids[i]);
    }
    return status;
}

moe_status tokenizer_encode(tokenizer *t, const char *text, size_t bytes, bool add_special, const tokenizer_span *spans,
                            size_t n_spans, int32_t *ids, size_t max_ids, size_t *n_ids_out, moe_error *err)
{
    encoding e;
    moe_status status = check_input(t, text, bytes, spans, n_spans, max_ids, err);

    if (status != MOE_OK) {
        return status;
    }
    encoding_init(&e, t, ids, max_ids);
    e.spans = spans;
    e.n_spans = n_spans;
    status = emit_all(&e, t->prefix, add_special ? t->n_prefix : 0);
    if (status == MOE_OK) {
        status = encoding_text(&e, text, 0, bytes);
    }
    if (status == MOE_OK) {
        status = emit_all(&e, t->suffix, add_special ? t->n_suffix : 0);
    }
    if (status == MOE_OK) {
        *n_ids_out = e.n_ids;
    }
    encoding_fini(&e);
    if (status == MOE_ERR_BUSY && e.n_read == 0) { /* known before the first token */
        return moe_fail(err, MOE_ERR_INVALID_ARG, "text: %zu bytes make more than %zu tokens", bytes, max_ids);
    }
    if (status == MOE_ERR_BUSY) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "text: more than %zu tokens; of %zu bytes %zu were encoded", max_ids,
                        bytes, MOE_MIN(e.n_read, bytes));
    }
    return encoding_error(status, "text", max_ids, err);
}

size_t tokenizer_max_text_bytes(const tokenizer *t, size_t n_ids)
{
    if (t->max_bytes_per_id == 0 || n_ids > TOKENIZER_MAX_TEXT / t->max_bytes_per_id) {
        return TOKENIZER_MAX_TEXT;
    }
    return n_ids * t->max_bytes_per_id;
}
