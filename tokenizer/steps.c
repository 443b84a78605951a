/* Steps on text: those of a normalizer on a segment, those of a decoder on one token. */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

/* A search looks at so much at a time: sanitizers check all that memmem may read, which for each hit
 * would be the rest. */
enum { FIND_WINDOW = 4096 };

void text_steps_fini(text_steps *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->steps[i].pattern);
        free(s->steps[i].content);
    }
    free(s->steps);
}

char *text_copy(const char *text, size_t n)
{
    char *copy = malloc(n + 1);

    if (copy) {
        memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

const char *text_find(const char *text, size_t n, const char *pattern, size_t n_pattern)
{
    for (size_t at = 0; at < n; at += FIND_WINDOW) {
        const char *hit = memmem(text + at, MOE_MIN(n - at, FIND_WINDOW + n_pattern - 1), pattern, n_pattern);

        if (hit) {
            return hit;
        }
    }
    return NULL;
}

static void replace(text_view in, const char *pattern, size_t n_pattern, const char *content, size_t n_content,
                    moe_text *out)
{
    const char *at = in.data, *end = in.data + in.size, *hit;

    while (!out->failed && (hit = text_find(at, (size_t)(end - at), pattern, n_pattern)) != NULL) {
        moe_text_append(out, at, (size_t)(hit - at));
        moe_text_append(out, content, n_content);
        at = hit + n_pattern;
    }
    moe_text_append(out, at, (size_t)(end - at));
}

static text_view strip(const text_step *step, text_view in)
{
    for (size_t i = 0;
         i < step->start && in.size >= step->n_pattern && !memcmp(in.data, step->pattern, step->n_pattern); i++) {
        in.data += step->n_pattern;
        in.size -= step->n_pattern;
    }
    for (size_t i = 0; i < step->stop && in.size >= step->n_pattern &&
                       !memcmp(in.data + in.size - step->n_pattern, step->pattern, step->n_pattern);
         i++) {
        in.size -= step->n_pattern;
    }
    return in;
}

static bool step_is_idle(const text_step *step, text_view in, bool first)
{
    switch (step->kind) {
    case STEP_NFC:
        return nfc_is_trivial(in.data, in.size);
    case STEP_PREPEND:
        return !first || in.size == 0;
    default:
        return text_find(in.data, in.size, step->pattern, step->n_pattern) == NULL;
    }
}

static moe_status step_run(const text_step *step, text_view in, bool first, moe_text *out)
{
    moe_status status = MOE_OK;

    out->size = 0;
    switch (step->kind) {
    case STEP_NFC:
        status = nfc_append(in.data, in.size, out);
        break;
    case STEP_PREPEND:
        moe_text_append(out, step->content, step->n_content);
        moe_text_append(out, in.data, in.size);
        break;
    case STEP_REPLACE:
        replace(in, step->pattern, step->n_pattern, step->content, step->n_content, out);
        break;
    case STEP_STRIP:
        in = strip(step, in);
        moe_text_append(out, in.data, in.size);
        break;
    case STEP_METASPACE:
        replace(in, step->pattern, step->n_pattern, " ", first && step->drop_first ? 0 : 1, out);
        break;
    }
    return out->failed && status == MOE_OK ? MOE_ERR_NO_MEMORY : status;
}

moe_status text_steps_run(const text_steps *s, text_view in, bool first, moe_text scratch[2], text_view *out)
{
    for (size_t i = 0; i < s->n; i++) {
        /* Two texts are enough: a step reads what the one before it wrote. */
        moe_text *to = &scratch[in.data == moe_text_cstr(&scratch[0]) ? 1 : 0];
        moe_status status;

        if (step_is_idle(&s->steps[i], in, first)) {
            continue;
        }
        status = step_run(&s->steps[i], in, first, to);
        if (status != MOE_OK) {
            return status;
        }
        in = (text_view){moe_text_cstr(to), to->size};
    }
    *out = in;
    return MOE_OK;
}
