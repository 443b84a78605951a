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
        text_pattern_fini(&s->steps[i].pattern);
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

static moe_status replace(text_view in, const text_pattern *pattern, const char *content, size_t n_content,
                          moe_text *out)
{
    pattern_walk walk = {.next = 0};
    size_t at = 0, begin, end;
    moe_status status = MOE_ERR_NOT_FOUND;

    pattern_walk_start(&walk, pattern, in);
    while (!out->failed && (status = pattern_walk_next(&walk, pattern, &begin, &end)) == MOE_OK) {
        moe_text_append(out, in.data + at, begin - at);
        moe_text_append(out, content, n_content);
        at = end;
    }
    pattern_walk_fini(&walk);
    moe_text_append(out, in.data + at, in.size - at);
    return out->failed ? MOE_ERR_NO_MEMORY : status == MOE_ERR_NOT_FOUND ? MOE_OK : status;
}

static text_view strip(const text_step *step, text_view in)
{
    const size_t n = step->pattern.n;

    for (size_t i = 0; i < step->start && in.size >= n && !memcmp(in.data, step->pattern.literal, n); i++) {
        in.data += n;
        in.size -= n;
    }
    for (size_t i = 0; i < step->stop && in.size >= n && !memcmp(in.data + in.size - n, step->pattern.literal, n);
         i++) {
        in.size -= n;
    }
    return in;
}

static text_view strip_space(const text_step *step, text_view in)
{
    int32_t c;

    while (step->start && in.size > 0) {
        const size_t length = moe_utf8_get(in.data, &c);

        if (char_classify(c) != CLASS_SPACE) {
            break;
        }
        in.data += length;
        in.size -= length;
    }
    while (step->stop && in.size > 0) {
        size_t begin = in.size - 1;

        while (((unsigned char)in.data[begin] & 0xc0) == 0x80) {
            begin--;
        }
        (void)moe_utf8_get(in.data + begin, &c);
        if (char_classify(c) != CLASS_SPACE) {
            break;
        }
        in.size = begin;
    }
    return in;
}

static bool step_is_idle(const text_step *step, text_view in, bool first)
{
    switch (step->kind) {
    case STEP_NORMAL_FORM:
        return normal_is_trivial(in.data, in.size, step->form);
    case STEP_PREPEND:
        return !first || in.size == 0;
    case STEP_REPLACE:
    case STEP_METASPACE:
        return step->pattern.literal && !text_find(in.data, in.size, step->pattern.literal, step->pattern.n);
    default:
        return in.size == 0;
    }
}

static moe_status step_run(const text_step *step, text_view in, bool first, moe_text *out)
{
    moe_status status = MOE_OK;

    out->size = 0;
    switch (step->kind) {
    case STEP_NORMAL_FORM:
        status = normal_append(in.data, in.size, step->form, out);
        break;
    case STEP_LOWERCASE:
        lower_append(in.data, in.size, out);
        break;
    case STEP_STRIP_ACCENTS:
        unmarked_append(in.data, in.size, out);
        break;
    case STEP_BYTES:
        bytes_append(in.data, in.size, out);
        break;
    case STEP_PREPEND:
        moe_text_append(out, step->content, step->n_content);
        moe_text_append(out, in.data, in.size);
        break;
    case STEP_REPLACE:
        status = replace(in, &step->pattern, step->content, step->n_content, out);
        break;
    case STEP_STRIP:
    case STEP_STRIP_SPACE:
        in = step->kind == STEP_STRIP ? strip(step, in) : strip_space(step, in);
        moe_text_append(out, in.data, in.size);
        break;
    case STEP_METASPACE:
        status = replace(in, &step->pattern, " ", first && step->drop_first ? 0 : 1, out);
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
