/* Chat templates. There is no Jinja engine: a template is brought into one spelling (quotes, spaces, line breaks that
 * block trimming removes, `+` of literals) and compared with those known. */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

#define BOS     "\001"
#define EOS     "\002"
#define CONTENT "\003"
#define HEAD                                                                                                           \
    BOS "[formessageinmessages][ifmessage['role']=='system']<|system|>\n" CONTENT                                      \
        "\n[elifmessage['role']=='user']<|user|>\n" CONTENT "\n[elifmessage['role']=='assistant']"
#define TULU        "<|assistant|>\n" CONTENT EOS "\n[endif]"
#define OLMO2       "[ifnotloop.last]<|assistant|>\n" CONTENT EOS "\n[else]<|assistant|>\n" CONTENT EOS "[endif][endif]"
#define TAIL_INSIDE "[ifloop.lastandadd_generation_prompt]<|assistant|>\n[endif][endfor]"
#define TAIL_AFTER  "[endfor][ifadd_generation_prompt]<|assistant|>\n[endif]"

enum { MAX_CANONICAL = 4096 };

struct chat_form {
    const char *name;
    const char *canonical;
    bool last_answer_is_open; /* no line feed behind the last message's eos */
};

static const chat_form templates[] = {
    {"tulu", HEAD TULU TAIL_INSIDE, false},
    {"tulu", HEAD TULU TAIL_AFTER, false},
    {"olmo2", HEAD OLMO2 TAIL_INSIDE, true},
    {"olmo2", HEAD OLMO2 TAIL_AFTER, true},
};

/* ------------------------------------------------------------------------------------------------ recognition */
static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static text_view trim_left(text_view v)
{
    for (; v.size > 0 && is_space(v.data[0]); v.data++, v.size--) {
    }
    return v;
}

static text_view trim_right(text_view v, bool line_feeds)
{
    while (v.size > 0 && is_space(v.data[v.size - 1]) && (line_feeds || v.data[v.size - 1] != '\n')) {
        v.size--;
    }
    return v;
}

/* A quoted literal at *v; its text goes to out. */
static bool canonical_literal(text_view *v, moe_text *out)
{
    const char quote = v->data[0];

    for (size_t i = 1; i < v->size; i++) {
        char c = v->data[i];

        if (c == quote) {
            v->data += i + 1;
            v->size -= i + 1;
            return true;
        }
        if (c == '\\') {
            if (++i == v->size || !strchr("n\\'\"", v->data[i])) {
                return false;
            }
            c = v->data[i] == 'n' ? '\n' : v->data[i];
        } else if ((unsigned char)c < 0x20 && c != '\n') {
            return false;
        }
        moe_text_append(out, &c, 1);
    }
    return false;
}

static bool canonical_name(text_view *v, moe_text *out)
{
    static const struct {
        const char *spelling, *mark;
    } names[] = {{"bos_token", BOS},
                 {"eos_token", EOS},
                 {"message['content']", CONTENT},
                 {"message[\"content\"]", CONTENT},
                 {"message.content", CONTENT}};

    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        const size_t n = strlen(names[i].spelling);

        if (v->size >= n && memcmp(v->data, names[i].spelling, n) == 0) {
            moe_text_append(out, names[i].mark, 1);
            v->data += n;
            v->size -= n;
            return true;
        }
    }
    return false;
}

/* {{ term + term }} */
static bool canonical_expression(text_view v, moe_text *out)
{
    for (;;) {
        v = trim_left(v);
        if (v.size == 0 ||
            !(v.data[0] == '\'' || v.data[0] == '"' ? canonical_literal(&v, out) : canonical_name(&v, out))) {
            return false;
        }
        v = trim_left(v);
        if (v.size == 0) {
            return true;
        }
        if (v.data[0] != '+') {
            return false;
        }
        v.data++;
        v.size--;
    }
}

/* {% words %} */
static bool canonical_block(text_view v, moe_text *out)
{
    moe_text_append(out, "[", 1);
    for (size_t i = 0; i < v.size; i++) {
        if (!is_space(v.data[i])) {
            moe_text_append(out, v.data[i] == '"' ? "'" : &v.data[i], 1);
        }
    }
    moe_text_append(out, "]", 1);
    return true;
}

typedef struct scanner {
    text_view left;
    bool line_start; /* a block ended and its line feed is removed, or the file begins */
    bool trim;       /* the last tag ended in - */
} scanner;

/* Text in front of a tag, without what Jinja removes (trim_blocks and lstrip_blocks are on in chat templates). */
static void canonical_raw(const scanner *s, text_view raw, bool before_block, bool trim, moe_text *out)
{
    bool at_line_start = s->line_start;

    if (s->trim) {
        raw = trim_left(raw);
    } else if (s->line_start && raw.size > 0 && raw.data[0] == '\n') {
        raw.data++;
        raw.size--;
    }
    if (trim) {
        raw = trim_right(raw, true);
    } else if (before_block) {
        const text_view bare = trim_right(raw, false);

        at_line_start = bare.size > 0 ? bare.data[bare.size - 1] == '\n' : at_line_start;
        raw = at_line_start ? bare : raw;
    }
    moe_text_append(out, raw.data, raw.size);
}

static bool canonical_tag(scanner *s, moe_text *out)
{
    const char kind = s->left.data[1];
    const char *close = kind == '%' ? "%}" : "}}";
    const char *end = memmem(s->left.data + 2, s->left.size - 2, close, 2);
    text_view inner;

    if ((kind != '%' && kind != '{') || !end) {
        return false;
    }
    inner = (text_view){s->left.data + 2, (size_t)(end - s->left.data) - 2};
    s->left.size -= (size_t)(end + 2 - s->left.data);
    s->left.data = end + 2;
    s->line_start = kind == '%';
    if (inner.size > 0 && inner.data[0] == '-') {
        inner.data++;
        inner.size--;
    }
    s->trim = inner.size > 0 && inner.data[inner.size - 1] == '-';
    inner.size -= s->trim;
    return kind == '%' ? canonical_block(inner, out) : canonical_expression(inner, out);
}

static bool canonical(text_view source, moe_text *out)
{
    scanner s = {.left = source, .line_start = true};

    if (s.left.size > 0 && s.left.data[s.left.size - 1] == '\n') {
        s.left.size--;
    }
    for (;;) {
        const char *open = memchr(s.left.data, '{', s.left.size);
        const size_t n = open ? (size_t)(open - s.left.data) : s.left.size;
        const bool tag = open && n + 2 < s.left.size;

        if (open && !tag) {
            return false;
        }
        canonical_raw(&s, (text_view){s.left.data, n}, tag && open[1] == '%', tag && open[2] == '-', out);
        s.left.data += n;
        s.left.size -= n;
        if (!open) {
            return !out->failed;
        }
        if (!canonical_tag(&s, out)) {
            return false;
        }
    }
}

const chat_form *chat_recognise(const char *source, size_t n)
{
    const chat_form *found = NULL;
    moe_text spelling;

    moe_text_init(&spelling, MAX_CANONICAL);
    if (canonical((text_view){source, n}, &spelling)) {
        for (size_t i = 0; i < MOE_COUNT(templates) && !found; i++) {
            found = strcmp(moe_text_cstr(&spelling), templates[i].canonical) == 0 ? &templates[i] : NULL;
        }
    }
    moe_text_fini(&spelling);
    return found;
}

const chat_form *chat_find(const char *name)
{
    for (size_t i = 0; i < MOE_COUNT(templates); i++) {
        if (strcmp(name, templates[i].name) == 0) {
            return &templates[i];
        }
    }
    return NULL;
}

const char *tokenizer_chat_name(const tokenizer *t)
{
    return t->chat ? t->chat->name : "";
}

moe_status tokenizer_chat_select(tokenizer *t, const char *name, moe_error *err)
{
    const chat_form *found = chat_find(name);

    if (!found) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "chat template \"%.64s\" is not known; known are tulu and olmo2", name);
    }
    t->chat = found;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ rendering
 * One string is rendered, since text at the seams of a message tokenises together. It is cut only where bos and eos
 * stand, which go out as ids: their strings mean something else in some tokenizers. */
typedef struct rendering {
    encoding e;
    moe_text text;
    size_t encoded;        /* bytes of text already encoded */
    tokenizer_span *spans; /* message contents: data, never special tokens */
} rendering;

static moe_status render_id(rendering *r, int32_t id)
{
    moe_status status =
        r->text.failed ? MOE_ERR_BUSY : encoding_text(&r->e, moe_text_cstr(&r->text), r->encoded, r->text.size);

    r->encoded = r->text.size;
    r->e.head = false;
    if (status == MOE_OK && id >= 0) {
        status = encoding_emit(&r->e, id);
    }
    return status;
}

/* The ids around messages: config.json's, else tokenizer_config.json's. OLMoE names no bos; its templates begin with the eos. */
static int32_t end_id(const tokenizer *t)
{
    return t->eos_id >= 0 ? t->eos_id : t->config_eos_id;
}

static int32_t begin_id(const tokenizer *t)
{
    const int32_t id = t->bos_id >= 0 ? t->bos_id : t->config_bos_id;

    return id >= 0 ? id : end_id(t);
}

static moe_status render_message(rendering *r, const tokenizer_message *message, bool last)
{
    static const char *const tags[] = {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"};
    const tokenizer *t = r->e.t;
    const char *tag = tags[message->role];
    moe_status status = MOE_OK;

    moe_text_append(&r->text, tag, strlen(tag));
    r->spans[r->e.n_spans].begin = r->text.size;
    moe_text_append(&r->text, message->content, message->bytes);
    r->spans[r->e.n_spans++].end = r->text.size;
    if (message->role == TOKENIZER_ROLE_ASSISTANT) {
        status = render_id(r, end_id(t));
        if (last && t->chat->last_answer_is_open) {
            return status;
        }
    }
    moe_text_append(&r->text, "\n", 1);
    return status;
}

static moe_status render(rendering *r, const tokenizer_message *messages, size_t n_messages, bool add_generation_prompt)
{
    moe_status status = render_id(r, begin_id(r->e.t));

    for (size_t i = 0; i < n_messages && status == MOE_OK; i++) {
        status = render_message(r, &messages[i], i + 1 == n_messages);
    }
    if (add_generation_prompt) {
        moe_text_append(&r->text, "<|assistant|>\n", strlen("<|assistant|>\n"));
    }
    return status == MOE_OK ? render_id(r, -1) : status;
}

static moe_status check_messages(const tokenizer *t, const tokenizer_message *messages, size_t n_messages,
                                 moe_error *err)
{
    if (!t->chat) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "messages: the model has no chat template that is known");
    }
    if (end_id(t) < 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "messages: chat template %s needs an eos id, the model names none",
                        t->chat->name);
    }
    if (n_messages == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "messages: at least one is needed");
    }
    for (size_t i = 0; i < n_messages; i++) {
        const size_t valid = moe_utf8_valid_prefix(messages[i].content, messages[i].bytes);

        if ((unsigned)messages[i].role > TOKENIZER_ROLE_ASSISTANT) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "messages[%zu].role: %u is no role", i,
                            (unsigned)messages[i].role);
        }
        if (valid != messages[i].bytes) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "messages[%zu].content: invalid UTF-8 at byte %zu", i, valid);
        }
    }
    return MOE_OK;
}

moe_status tokenizer_chat_encode(tokenizer *t, const tokenizer_message *messages, size_t n_messages,
                                 bool add_generation_prompt, int32_t *ids, size_t max_ids, size_t *n_ids_out,
                                 moe_error *err)
{
    rendering r = {.spans = NULL};
    moe_status status = check_messages(t, messages, n_messages, err);

    if (status != MOE_OK) {
        return status;
    }
    r.spans = calloc(n_messages, sizeof *r.spans);
    if (!r.spans) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "messages: no memory for %zu", n_messages);
    }
    encoding_init(&r.e, t, ids, max_ids);
    r.e.spans = r.spans;
    moe_text_init(&r.text, tokenizer_max_text_bytes(t, max_ids)); /* over it: certainly more than max_ids */
    status = render(&r, messages, n_messages, add_generation_prompt);
    if (status == MOE_OK) {
        *n_ids_out = r.e.n_ids;
    }
    moe_text_fini(&r.text);
    encoding_fini(&r.e);
    free(r.spans);
    return encoding_error(status, "messages", max_ids, err);
}
