/* From a token to text: decoding, stop strings and ids, and what must be held back because it may be the head of a
 * stop string. */
#include "engine/request_priv.h"

#include <string.h>

#define DECODER_HOLDS  16 /* more than the 8 bytes of an unfinished character that a decoder keeps between tokens */
#define REPLACED_BYTES 3  /* of U+FFFD in UTF-8 */

/* Every byte of a token's text may have become U+FFFD, and a held-back head of a stop string goes out with it. */
size_t choice_text_bound(const engine_info *info)
{
    size_t longest = info->tokenizer != NULL ? tokenizer_longest_token_bytes(info->tokenizer) : 0;

    return REPLACED_BYTES * (ENGINE_MAX_STOP_BYTES + longest + DECODER_HOLDS);
}

/* Where the first complete stop string begins in text, and which; false when there is none. */
static bool find_stop(const engine_request *r, const moe_text *text, size_t *begin_out, int32_t *which_out)
{
    bool found = false;

    for (size_t s = 0; s < r->n_stop; s++) {
        const char *at = text->size > 0 ? memmem(text->data, text->size, r->stop[s], r->stop_bytes[s]) : NULL;
        if (at != NULL && (!found || (size_t)(at - text->data) < *begin_out)) {
            *begin_out = (size_t)(at - text->data);
            *which_out = (int32_t)s;
            found = true;
        }
    }
    return found;
}

/* Bytes at the end of text that are a proper head of some stop string: the longest such suffix. */
static size_t held_back(const engine_request *r, const moe_text *text)
{
    size_t longest = 0;

    for (size_t s = 0; s < r->n_stop; s++) {
        size_t most = MOE_MIN(r->stop_bytes[s] - 1, text->size);
        for (size_t n = most; n > longest; n--) {
            if (memcmp(text->data + text->size - n, r->stop[s], n) == 0) {
                longest = n;
                break;
            }
        }
    }
    return longest;
}

static void drop_head(moe_text *text, size_t n)
{
    if (n > 0) {
        memmove(text->data, text->data + n, text->size - n);
        text->size -= n;
    }
}

static bool is_stop_id(const engine_request *r, int32_t token)
{
    for (size_t i = 0; i < r->n_stop_ids; i++) {
        if (r->stop_ids[i] == token) {
            return true;
        }
    }
    return false;
}

bool choice_append(choice *c, const engine_info *info, const choice_token *t, bool quiet)
{
    engine_request *r = c->request;
    engine_finish finish = ENGINE_FINISH_NONE;
    size_t give = 0;
    int32_t which = -1;
    bool stop_id, stop_text = false;

    MOE_ASSERT(c->n_tokens < c->capacity);
    c->tokens[c->n_tokens++] = t->id;
    stop_id = is_stop_id(r, t->id);
    if (stop_id) {
        finish = ENGINE_FINISH_STOP;
    } else if (info->tokenizer != NULL) {
        tokenizer_decode_push(&c->decode, t->id, &c->text);
    }
    /* Text before min_tokens is given out unsearched; a stop string counts from there on. */
    if (choice_n_output(c) < r->min_tokens) {
        give = c->text.size;
    } else if (find_stop(r, &c->text, &give, &which)) {
        finish = ENGINE_FINISH_STOP;
        stop_text = true;
    } else {
        give = c->text.size - held_back(r, &c->text);
    }
    if (finish == ENGINE_FINISH_NONE && choice_n_output(c) >= r->max_tokens) {
        finish = ENGINE_FINISH_LENGTH;
    }
    if (!quiet) {
        choice_emit_token(c, t, give);
    }
    drop_head(&c->text, give);
    if (finish == ENGINE_FINISH_NONE) {
        return false;
    }
    if (stop_text) {
        c->text.size = 0;
    } else if (info->tokenizer != NULL) {
        tokenizer_decode_finish(&c->decode, &c->text);
    }
    choice_end(c, finish, which, stop_id, t->id);
    return true;
}
