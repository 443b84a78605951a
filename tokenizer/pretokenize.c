/* Pre-tokenizers: where pieces end. Each stage hands its pieces to the next one by one, so that nothing is gathered and
 * encoding stops at the first token too many. */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

void pre_tokenizer_fini(pre_tokenizer *p)
{
    for (size_t i = 0; i < p->n; i++) {
        text_pattern_fini(&p->stages[i].pattern);
    }
    free(p->stages);
}

static moe_status run_stage(encoding *e, size_t index, text_view text, bool head);

/* ------------------------------------------------------------------------------------------------ Split
 * A text is matches and what lies between them, in turn; the behavior says which of them make one piece. */
typedef struct splitter {
    encoding *e;
    size_t index; /* of the stage */
    text_view text;
    bool head;
    size_t begin, end; /* a piece that may still grow */
    bool open;
    bool last; /* whether the last part was a match */
} splitter;

static moe_status put_piece(splitter *s, size_t begin, size_t end)
{
    return run_stage(s->e, s->index + 1, (text_view){s->text.data + begin, end - begin}, s->head && begin == 0);
}

/* Ends the open piece, and opens another. */
static moe_status open_piece(splitter *s, size_t begin, size_t end)
{
    const moe_status status = s->open ? put_piece(s, s->begin, s->end) : MOE_OK;

    s->begin = begin;
    s->end = end;
    s->open = true;
    return status;
}

static moe_status put_part(splitter *s, size_t begin, size_t end, bool is_match)
{
    const pre_stage *stage = &s->e->t->pre.stages[s->index];
    bool joins = false;

    is_match = is_match != stage->invert;
    switch (stage->behavior) {
    case SPLIT_REMOVED:
        return is_match ? MOE_OK : put_piece(s, begin, end);
    case SPLIT_ISOLATED:
        return put_piece(s, begin, end);
    case SPLIT_CONTIGUOUS:
        joins = is_match == s->last;
        break;
    case SPLIT_MERGED_WITH_PREVIOUS:
        joins = is_match && !s->last;
        break;
    case SPLIT_MERGED_WITH_NEXT:
        joins = !is_match && s->last;
        break;
    }
    s->last = is_match;
    if (joins && s->open) {
        s->end = end;
        return MOE_OK;
    }
    return open_piece(s, begin, end);
}

static moe_status run_split(encoding *e, size_t index, text_view text, bool head)
{
    const text_pattern *pattern = &e->t->pre.stages[index].pattern;
    splitter s = {.e = e, .index = index, .text = text, .head = head};
    pattern_walk *walk = &e->walks[index];
    moe_status status = MOE_OK;
    size_t at = 0, begin, end;

    pattern_walk_start(walk, pattern, text);
    while (status == MOE_OK && (status = pattern_walk_next(walk, pattern, &begin, &end)) == MOE_OK) {
        if (at < begin) {
            status = put_part(&s, at, begin, false);
        }
        if (status == MOE_OK) {
            status = put_part(&s, begin, end, true);
        }
        at = end;
    }
    if (status != MOE_ERR_NOT_FOUND) {
        return status;
    }
    status = at < text.size ? put_part(&s, at, text.size, false) : MOE_OK;
    return status == MOE_OK && s.open ? put_piece(&s, s.begin, s.end) : status;
}

/* ------------------------------------------------------------------------------------------------ the others */
static moe_status run_on(encoding *e, size_t index, bool head)
{
    const moe_text *out = &e->staged[index];

    return out->failed ? MOE_ERR_NO_MEMORY : run_stage(e, index + 1, (text_view){moe_text_cstr(out), out->size}, head);
}

static moe_status run_metaspace(encoding *e, size_t index, text_view text, bool head)
{
    const pre_stage *stage = &e->t->pre.stages[index];
    moe_text *out = &e->staged[index];

    if ((stage->scheme == PREPEND_ALWAYS || (stage->scheme == PREPEND_FIRST && head)) && text.data[0] != ' ' &&
        !(text.size >= stage->n_mark && memcmp(text.data, stage->mark, stage->n_mark) == 0)) {
        moe_text_append(out, stage->mark, stage->n_mark);
    }
    for (size_t at = 0, end; at < text.size; at = end + 1) {
        const char *space = memchr(text.data + at, ' ', text.size - at);

        end = space ? (size_t)(space - text.data) : text.size;
        moe_text_append(out, text.data + at, end - at);
        moe_text_append(out, stage->mark, space ? stage->n_mark : 0);
    }
    return run_on(e, index, head);
}

static moe_status run_stage(encoding *e, size_t index, text_view text, bool head)
{
    const pre_tokenizer *pre = &e->t->pre;
    moe_text *out = index < pre->n ? &e->staged[index] : NULL;

    if (text.size == 0) {
        return MOE_OK;
    }
    if (!out) {
        return bpe_encode(e, text.data, text.size);
    }
    out->size = 0;
    switch (pre->stages[index].kind) {
    case PRE_PREFIX_SPACE:
        if (text.data[0] == ' ') {
            return run_stage(e, index + 1, text, head);
        }
        moe_text_append(out, " ", 1);
        moe_text_append(out, text.data, text.size);
        return run_on(e, index, head);
    case PRE_SPLIT:
        return run_split(e, index, text, head);
    case PRE_METASPACE:
        return run_metaspace(e, index, text, head);
    case PRE_BYTES:
        bytes_append(text.data, text.size, out);
        return run_on(e, index, head);
    }
    return MOE_ERR_INTERNAL;
}

moe_status pretokenize(encoding *e, text_view text, bool head)
{
    return run_stage(e, 0, text, head);
}
