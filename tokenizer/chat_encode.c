/* A conversation -> ids. One text is rendered, since text at the seams of a message tokenises together. It is cut only where
 * bos and eos stand, which go out as ids: their strings mean something else in some tokenizers. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { FROM_TEMPLATE, FROM_CONVERSATION, FROM_BOS, FROM_EOS }; /* origins of bytes */

enum {
    MAX_DEPTH = 64,     /* of JSON */
    MAX_JSON = 2 << 20, /* bytes of it in one conversation: parsed it takes up to 60 times as much */
    MAX_ARGS = 256,     /* keys of template_args: each is looked for among the names of the template */
    MIN_OUTPUT = 1 << 20,
    STEPS = 5000000,         /* a long conversation with tools takes some 100,000 */
    MEMORY_BYTES = 32 << 20, /* and for each byte that comes in: */
    MEMORY_PER_BYTE = 16,
};

typedef struct conversation {
    tokenizer *t;
    const tokenizer_conversation *c;
    template_vars *vars;
    json_t **json; /* owned; [n_messages + 2], what the values borrow from */
    size_t n_json, json_bytes;
    moe_error *err;
} conversation;

/* ------------------------------------------------------------------------------------------------ checks */
static moe_status check_utf8(const char *text, size_t n, size_t i, const char *field, moe_error *err)
{
    const size_t valid = text ? moe_utf8_valid_prefix(text, n) : n;

    return valid == n
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INVALID_ARG, "messages[%zu].%s: invalid UTF-8 at byte %zu", i, field, valid);
}

static moe_status check_message(const tokenizer_message *m, size_t i, moe_error *err)
{
    const struct {
        const char *name, *text;
    } fields[] = {{"name", m->name}, {"tool_call_id", m->tool_call_id}, {"reasoning_content", m->reasoning_content}};
    moe_status status;

    if ((unsigned)m->role > TOKENIZER_ROLE_DEVELOPER) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "messages[%zu].role: %u is no role", i, (unsigned)m->role);
    }
    status = check_utf8(m->content, m->bytes, i, "content", err);
    for (size_t f = 0; f < MOE_COUNT(fields) && status == MOE_OK; f++) {
        status = check_utf8(fields[f].text, fields[f].text ? strlen(fields[f].text) : 0, i, fields[f].name, err);
    }
    return status;
}

static moe_status check(const tokenizer *t, const tokenizer_conversation *c, moe_error *err)
{
    moe_status status = MOE_OK;

    if (!t->chat.main) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "messages: the model has no chat template that is known");
    }
    if (t->chat.needs_eos && chat_end_id(t) < 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "messages: chat template %s needs an eos id, the model names none",
                        t->chat.name);
    }
    if (c->n_messages == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "messages: at least one is needed");
    }
    for (size_t i = 0; i < c->n_messages && status == MOE_OK; i++) {
        status = check_message(&c->messages[i], i, err);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ variables */
/* Parses a field that is JSON; is_list: a list, else an object. */
static moe_status parse_json(conversation *v, const char *text, bool is_list, const char *field, json_t **out)
{
    const size_t n = strlen(text);
    moe_error reason = {""};
    json_t *json = NULL;

    v->json_bytes += n;
    if (v->json_bytes > MAX_JSON) {
        return moe_fail(v->err, MOE_ERR_INVALID_ARG, "%s: more than %d bytes of JSON in one conversation", field,
                        MAX_JSON);
    }
    if (moe_json_parse(text, n, MAX_DEPTH, &json, &reason) != MOE_OK) {
        return moe_fail(v->err, MOE_ERR_INVALID_ARG, "%s: %.200s", field, reason.text);
    }
    v->json[v->n_json++] = json;
    if (is_list ? !json_is_array(json) : !json_is_object(json)) {
        return moe_fail(v->err, MOE_ERR_INVALID_ARG, "%s: not a JSON %s", field, is_list ? "list" : "object");
    }
    *out = json;
    return MOE_OK;
}

static void set_text(conversation *v, template_value *message, const char *key, const char *text)
{
    if (text) {
        template_dict_set(v->vars, message, key, template_text(v->vars, text, strlen(text), FROM_CONVERSATION));
    }
}

static moe_status add_message(conversation *v, size_t i, template_value *all)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool", "developer"};
    const tokenizer_message *m = &v->c->messages[i];
    const char *role = roles[m->role];
    template_value *message = template_dict(v->vars);
    moe_status status = MOE_OK;

    template_dict_set(v->vars, message, "role", template_text(v->vars, role, strlen(role), FROM_TEMPLATE));
    template_dict_set(v->vars, message, "content", template_text(v->vars, m->content, m->bytes, FROM_CONVERSATION));
    set_text(v, message, "name", m->name);
    set_text(v, message, "tool_call_id", m->tool_call_id);
    set_text(v, message, "reasoning_content", m->reasoning_content);
    set_text(v, message, "thinking", m->reasoning_content); /* gpt-oss's name; transformers gives both, too */
    if (m->tool_calls) {
        char field[64];
        json_t *calls = NULL;

        (void)snprintf(field, sizeof field, "messages[%zu].tool_calls", i);
        status = parse_json(v, m->tool_calls, true, field, &calls);
        if (status == MOE_OK) {
            template_dict_set(v->vars, message, "tool_calls", template_json(v->vars, calls, FROM_CONVERSATION));
        }
    }
    template_list_add(v->vars, all, message);
    return status;
}

static void set_tokens(conversation *v)
{
    const char *name;
    json_t *value;

    json_object_foreach(v->t->chat.variables, name, value)
    {
        const bool bos = strcmp(name, "bos_token") == 0, eos = strcmp(name, "eos_token") == 0;

        template_set(v->vars, name, template_json(v->vars, value, bos ? FROM_BOS : eos ? FROM_EOS : FROM_TEMPLATE));
    }
}

static moe_status set_arguments(conversation *v)
{
    static const char *const ours[] = {"messages", "tools", "documents", "add_generation_prompt"};
    json_t *args = NULL, *value;
    const char *name;
    moe_status status = MOE_OK;

    if (!v->c->template_args) {
        return MOE_OK;
    }
    status = parse_json(v, v->c->template_args, false, "template_args", &args);
    if (status == MOE_OK && json_object_size(args) > MAX_ARGS) {
        return moe_fail(v->err, MOE_ERR_INVALID_ARG, "template_args: %zu keys; the limit is %d", json_object_size(args),
                        MAX_ARGS);
    }
    for (size_t i = 0; i < MOE_COUNT(ours) && status == MOE_OK; i++) {
        if (json_object_get(args, ours[i])) {
            status =
                moe_fail(v->err, MOE_ERR_INVALID_ARG, "template_args: \"%s\" is what the request itself says", ours[i]);
        }
    }
    if (status == MOE_OK) {
        json_object_foreach(args, name, value)
        {
            template_set(v->vars, name, template_json(v->vars, value, FROM_CONVERSATION));
        }
    }
    return status;
}

static moe_status set_variables(conversation *v)
{
    template_value *messages = template_list(v->vars), *tools = template_none(v->vars);
    json_t *list = NULL;
    moe_status status = MOE_OK;

    set_tokens(v);
    for (size_t i = 0; i < v->c->n_messages && status == MOE_OK; i++) {
        status = add_message(v, i, messages);
    }
    if (status == MOE_OK && v->c->tools) {
        status = parse_json(v, v->c->tools, true, "tools", &list);
        if (status == MOE_OK) {
            tools = template_json(v->vars, list, FROM_CONVERSATION);
        }
    }
    template_set(v->vars, "messages", messages);
    template_set(v->vars, "tools", tools);
    template_set(v->vars, "documents", template_none(v->vars));
    template_set(v->vars, "add_generation_prompt", template_bool(v->vars, v->c->add_generation_prompt));
    return status == MOE_OK ? set_arguments(v) : status;
}

/* ------------------------------------------------------------------------------------------------ rendering */
static size_t bytes_in(const tokenizer_conversation *c)
{
    size_t n = (c->tools ? strlen(c->tools) : 0) + (c->template_args ? strlen(c->template_args) : 0);

    for (size_t i = 0; i < c->n_messages; i++) {
        n += c->messages[i].bytes + (c->messages[i].tool_calls ? strlen(c->messages[i].tool_calls) : 0);
    }
    return MOE_MIN(n, TOKENIZER_MAX_TEXT * 2);
}

static moe_status render(conversation *v, size_t max_text, template_output *out)
{
    const size_t n = bytes_in(v->c);
    const template_limits limits = {.max_steps = STEPS + n,
                                    .max_memory_bytes = MEMORY_BYTES + n * MEMORY_PER_BYTE,
                                    .max_output_bytes = MOE_MAX(max_text, (size_t)MIN_OUTPUT)};
    const model_chat *chat = &v->t->chat;
    moe_status status = template_vars_open(&limits, &v->vars, v->err);

    if (status == MOE_OK) {
        status = set_variables(v);
    }
    return status == MOE_OK
               ? template_render(v->c->tools && chat->tools ? chat->tools : chat->main, v->vars, v->c->now, out, v->err)
               : status;
}

/* ------------------------------------------------------------------------------------------------ encoding */
/* An added token that takes in white space beside it is left to be found in the text, where it does. */
static bool absorbs(const tokenizer *t, const char *text, size_t n, int32_t id)
{
    const added_token *token = added_set_longest(&t->raw, (text_view){text, n}, 0);

    return token && token->id == id && token->n_match == n && (token->lstrip || token->rstrip);
}

/* How often the token stands in n bytes that came from it; 0: they are only a part, or changed: plain text. */
static size_t times(const tokenizer *t, const char *name, int32_t id, const char *text, size_t n)
{
    const json_t *token = json_object_get(t->chat.variables, name);
    const size_t length = json_string_length(token);

    if (id < 0 || length == 0 || n % length != 0 || absorbs(t, json_string_value(token), length, id)) {
        return 0;
    }
    for (size_t at = 0; at < n; at += length) {
        if (memcmp(text + at, json_string_value(token), length) != 0) {
            return 0;
        }
    }
    return n / length;
}

static moe_status encode_ids(encoding *e, const char *text, size_t *done, size_t begin, size_t end, int32_t id,
                             size_t n)
{
    moe_status status = encoding_text(e, text, *done, begin);

    *done = end;
    e->head = false;
    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        status = encoding_emit(e, id);
    }
    return status;
}

static moe_status encode_output(encoding *e, const template_output *out, tokenizer_span *spans)
{
    const tokenizer *t = e->t;
    moe_status status = MOE_OK;
    size_t done = 0, begin = 0;

    for (size_t i = 0; i < out->n_runs; begin = out->runs[i++].end) {
        if (out->runs[i].origin == FROM_CONVERSATION) {
            spans[e->n_spans++] = (tokenizer_span){begin, out->runs[i].end};
        }
    }
    begin = 0;
    for (size_t i = 0; i < out->n_runs && status == MOE_OK; begin = out->runs[i++].end) {
        const bool bos = out->runs[i].origin == FROM_BOS;
        const int32_t id = bos ? chat_begin_id(t) : chat_end_id(t);
        const size_t end = out->runs[i].end;
        const size_t n = bos || out->runs[i].origin == FROM_EOS
                             ? times(t, bos ? "bos_token" : "eos_token", id, out->text + begin, end - begin)
                             : 0;

        if (n > 0) {
            status = encode_ids(e, out->text, &done, begin, end, id, n);
        }
    }
    return status == MOE_OK ? encoding_text(e, out->text, done, out->n) : status;
}

static moe_status encode(tokenizer *t, const template_output *out, size_t max_text, int32_t *ids, size_t max_ids,
                         size_t *n_ids_out, moe_error *err)
{
    tokenizer_span *spans = calloc(MOE_MAX(out->n_runs, (size_t)1), sizeof *spans);
    moe_status status = spans ? MOE_OK : MOE_ERR_NO_MEMORY;
    encoding e;

    encoding_init(&e, t, ids, max_ids);
    e.spans = spans;
    if (status == MOE_OK) {
        status =
            out->n > max_text ? MOE_ERR_BUSY : encode_output(&e, out, spans); /* BUSY: certainly more than max_ids */
    }
    if (status == MOE_OK) {
        *n_ids_out = e.n_ids;
    }
    encoding_fini(&e);
    free(spans);
    return encoding_error(status, "messages", max_ids, err);
}

moe_status tokenizer_chat_encode(tokenizer *t, const tokenizer_conversation *c, int32_t *ids, size_t max_ids,
                                 size_t *n_ids_out, moe_error *err)
{
    const size_t max_text = tokenizer_max_text_bytes(t, max_ids);
    conversation v = {.t = t, .c = c, .err = err};
    template_output out = {NULL, 0, NULL, 0};
    moe_status status = check(t, c, err);

    if (status != MOE_OK) {
        return status;
    }
    v.json = calloc(c->n_messages + 2, sizeof(json_t *));
    status = v.json ? render(&v, max_text, &out) : moe_fail(err, MOE_ERR_NO_MEMORY, "messages: no memory");
    if (status == MOE_OK) {
        status = encode(t, &out, max_text, ids, max_ids, n_ids_out, err);
    }
    template_vars_close(v.vars);
    for (size_t i = 0; i < v.n_json; i++) {
        json_decref(v.json[i]);
    }
    free(v.json);
    return status;
}
