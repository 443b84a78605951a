#include "tests/support/fake_tokenizer.h"

#include <string.h>

void fake_tokenizer_init(tokenizer *t, bool chat)
{
    *t = (tokenizer){.chat = chat};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->released, NULL);
}

void fake_tokenizer_hold(tokenizer *t, bool held)
{
    pthread_mutex_lock(&t->lock);
    t->hold = held;
    pthread_cond_broadcast(&t->released);
    pthread_mutex_unlock(&t->lock);
}

size_t fake_tokenizer_count(tokenizer *t, const size_t *count)
{
    pthread_mutex_lock(&t->lock);
    const size_t n = *count;
    pthread_mutex_unlock(&t->lock);
    return n;
}

static void wait_while_held(tokenizer *t)
{
    pthread_mutex_lock(&t->lock);
    t->n_encoded++;
    t->n_held++;
    while (t->hold) {
        pthread_cond_wait(&t->released, &t->lock);
    }
    t->n_held--;
    pthread_mutex_unlock(&t->lock);
}

moe_status tokenizer_encode(tokenizer *t, const char *text, size_t bytes, bool add_special, const tokenizer_span *spans,
                            size_t n_spans, int32_t *ids, size_t max_ids, size_t *n_ids_out, moe_error *err)
{
    (void)add_special, (void)spans, (void)n_spans;
    if (bytes >= 5 && memcmp(text, "!hold", 5) == 0) {
        wait_while_held(t);
    }
    if (bytes > max_ids) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "text: more than %zu tokens", max_ids);
    }
    for (size_t i = 0; i < bytes; i++) {
        ids[i] = (unsigned char)text[i];
    }
    *n_ids_out = bytes;
    return MOE_OK;
}

moe_status tokenizer_chat_encode(tokenizer *t, const tokenizer_conversation *c, int32_t *ids, size_t max_ids,
                                 size_t *n_ids_out, moe_error *err)
{
    const tokenizer_message *messages = c->messages;
    size_t n = 0, got = 0;

    for (size_t i = 0; i < c->n_messages; i++) {
        if (n == max_ids) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "messages: more than %zu tokens", max_ids);
        }
        ids[n++] = "suatd"[messages[i].role];
        moe_status status = tokenizer_encode(t, messages[i].content, messages[i].bytes, false, NULL, 0, ids + n,
                                             max_ids - n, &got, err);
        if (status != MOE_OK) {
            return status;
        }
        n += got;
    }
    if (c->tools != NULL && n < max_ids) {
        ids[n++] = 'T';
    }
    if (c->template_args != NULL && n < max_ids) {
        ids[n++] = 'A';
    }
    if (c->add_generation_prompt && n < max_ids) {
        ids[n++] = '>';
    }
    *n_ids_out = n;
    return MOE_OK;
}

const char *tokenizer_chat_problem(const tokenizer *t)
{
    (void)t;
    return "";
}

const char *tokenizer_chat_name(const tokenizer *t)
{
    return t->chat ? "fake" : "";
}

const char *tokenizer_token_bytes(const tokenizer *t, int32_t id, size_t *bytes_out)
{
    static char bytes[256];

    (void)t;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
    }
    *bytes_out = id < 256 ? 1 : 0;
    return id < 256 ? &bytes[id] : NULL;
}

size_t tokenizer_max_text_bytes(const tokenizer *t, size_t n_ids)
{
    (void)t;
    return n_ids;
}

void tokenizer_decode_init(tokenizer_decode *d, const tokenizer *t, bool skip_special)
{
    *d = (tokenizer_decode){.t = t, .skip_special = skip_special};
}

static size_t sequence_length(unsigned char first)
{
    return first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 1;
}

void tokenizer_decode_push(tokenizer_decode *d, int32_t id, moe_text *out)
{
    if (id >= 256) {
        moe_text_append(out, "<s>", d->skip_special ? 0 : 3);
        return;
    }
    d->pending[d->n_pending++] = (unsigned char)id;
    if (d->n_pending < sequence_length(d->pending[0])) {
        return;
    }
    if (moe_utf8_valid_prefix(d->pending, d->n_pending) == d->n_pending) {
        moe_text_append(out, d->pending, d->n_pending);
    } else {
        moe_text_append(out, "\xef\xbf\xbd", 3);
    }
    d->n_pending = 0;
}

void tokenizer_decode_finish(tokenizer_decode *d, moe_text *out)
{
    if (d->n_pending > 0) {
        moe_text_append(out, "\xef\xbf\xbd", 3);
        d->n_pending = 0;
    }
}
