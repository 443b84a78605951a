/* Which chat template a model has, and what it knows of the model's tokens. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <string.h>

#define PATH "tokenizer_config.json"
#define HEAD                                                                                                           \
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' or message.role == 'user' %}"          \
    "{{ '<|' ~ message.role ~ '|>\n' ~ message.content ~ '\n' }}{% elif message.role == 'assistant' %}"                \
    "{{ '<|assistant|>\n' ~ message.content ~ eos_token ~ "
#define TAIL " }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"

/* Templates that are taken by name. The second leaves the last answer open. */
static const struct {
    const char *name, *source;
} ours[] = {{"tulu", HEAD "'\n'" TAIL}, {"olmo2", HEAD "('' if loop.last else '\n')" TAIL}};

void chat_fini(model_chat *c)
{
    template_free(c->main);
    template_free(c->tools);
    json_decref(c->variables);
}

int32_t chat_end_id(const tokenizer *t)
{
    return t->eos_id >= 0 ? t->eos_id : t->config_eos_id;
}

int32_t chat_begin_id(const tokenizer *t)
{
    const int32_t id = t->bos_id >= 0 ? t->bos_id : t->config_bos_id;

    return id >= 0 ? id : chat_end_id(t);
}

/* ------------------------------------------------------------------------------------------------ names */
static const char sample_roles[] = "suauasu"; /* the last is left out for one that ends with an answer */

static template_value *sample_messages(template_vars *vars, size_t n)
{
    template_value *all = template_list(vars);

    for (size_t i = 0; i < n; i++) {
        const char role = sample_roles[i];
        const char *name = role == 's' ? "system" : role == 'u' ? "user" : "assistant";
        template_value *message = template_dict(vars);

        template_dict_set(vars, message, "role", template_text(vars, name, strlen(name), 0));
        template_dict_set(vars, message, "content", template_text(vars, &sample_roles[i], 1, 0));
        template_list_add(vars, all, message);
    }
    return all;
}

/* What t makes of the first n sample messages; false: it fails. */
static bool sample(const template *t, size_t n, bool prompt, moe_text *out)
{
    static const template_limits small = {.max_steps = 10000, .max_memory_bytes = 1 << 20, .max_output_bytes = 1 << 12};
    template_vars *vars = NULL;
    template_output text;
    bool rendered;

    if (template_vars_open(&small, &vars, NULL) != MOE_OK) {
        return false;
    }
    template_set(vars, "messages", sample_messages(vars, n));
    template_set(vars, "add_generation_prompt", template_bool(vars, prompt));
    template_set(vars, "bos_token", template_text(vars, "\1", 1, 0));
    template_set(vars, "eos_token", template_text(vars, "\2", 1, 0));
    rendered = template_render(t, vars, NULL, &text, NULL) == MOE_OK;
    if (rendered) {
        moe_text_append(out, text.text, text.n);
        moe_text_append(out, "\3", 1);
    }
    template_vars_close(vars);
    return rendered && !out->failed;
}

static bool samples(const template *t, moe_text *out)
{
    const size_t n = strlen(sample_roles);

    moe_text_init(out, 1 << 16);
    return sample(t, 1, true, out) && sample(t, 3, false, out) && sample(t, 5, false, out) && sample(t, 5, true, out) &&
           sample(t, n, true, out);
}

static bool render_alike(const template *a, const template *b)
{
    moe_text of_a, of_b;
    const bool a_renders = samples(a, &of_a), b_renders = samples(b, &of_b);
    const bool alike = a_renders && b_renders && of_a.size == of_b.size && memcmp(of_a.data, of_b.data, of_a.size) == 0;

    moe_text_fini(&of_a);
    moe_text_fini(&of_b);
    return alike;
}

/* The name of a template of ours that renders conversations as t does, else fallback. */
static const char *name_of(const template *t, const char *fallback)
{
    const char *name = fallback;

    for (size_t i = 0; i < MOE_COUNT(ours) && name == fallback; i++) {
        template *other = NULL;

        if (template_compile(ours[i].source, strlen(ours[i].source), &other, NULL) == MOE_OK &&
            render_alike(t, other)) {
            name = ours[i].name;
        }
        template_free(other);
    }
    return name;
}

const char *tokenizer_chat_name(const tokenizer *t)
{
    return t->chat.name ? t->chat.name : "";
}

const char *tokenizer_chat_problem(const tokenizer *t)
{
    return t->chat.problem.text;
}

/* ------------------------------------------------------------------------------------------------ by hand */
static moe_status use(tokenizer *t, text_view source, const char *name, moe_error *err)
{
    template *compiled = NULL;
    const moe_status status = template_compile(source.data, source.size, &compiled, err);

    if (status != MOE_OK) {
        return status;
    }
    template_free(t->chat.main);
    template_free(t->chat.tools);
    t->chat.main = compiled;
    t->chat.tools = NULL;
    t->chat.name = name;
    t->chat.problem.text[0] = '\0';
    return MOE_OK;
}

moe_status tokenizer_chat_select(tokenizer *t, const char *name, moe_error *err)
{
    for (size_t i = 0; i < MOE_COUNT(ours); i++) {
        if (strcmp(name, ours[i].name) == 0) {
            t->chat.needs_eos = true;
            return use(t, (text_view){ours[i].source, strlen(ours[i].source)}, ours[i].name, err);
        }
    }
    return moe_fail(err, MOE_ERR_NOT_FOUND, "chat template \"%.64s\" is not known; known are tulu and olmo2", name);
}

moe_status tokenizer_chat_use(tokenizer *t, const char *source, size_t n, moe_error *err)
{
    return use(t, (text_view){source, n}, "file", err);
}

/* ------------------------------------------------------------------------------------------------ of the model */
static moe_status bad_template(moe_error *err)
{
    return moe_fail(err, MOE_ERR_CORRUPT, PATH ".chat_template: neither a string nor a list of named templates");
}

static text_view json_view(const json_t *value)
{
    return (text_view){json_string_value(value), json_string_length(value)};
}

/* chat_template is a string, or a list of {name, template}. */
static moe_status config_sources(const json_t *config, chat_sources *out, moe_error *err)
{
    const json_t *value = json_object_get(config, "chat_template"), *chosen = value, *tools = NULL;

    if (!value || json_is_null(value)) {
        return MOE_OK;
    }
    if (json_is_array(value)) {
        chosen = json_object_get(json_array_get(value, 0), "template");
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));

        chosen = name && strcmp(name, "default") == 0 ? json_object_get(item, "template") : chosen;
        tools = name && strcmp(name, "tool_use") == 0 ? json_object_get(item, "template") : tools;
    }
    if (!json_is_string(chosen) || (tools && !json_is_string(tools))) {
        return bad_template(err);
    }
    *out = (chat_sources){json_view(chosen), tools ? json_view(tools) : (text_view){NULL, 0}};
    return MOE_OK;
}

static moe_status compile_both(model_chat *c, const chat_sources *from)
{
    moe_status status = template_compile(from->main.data, from->main.size, &c->main, &c->problem);

    if (status == MOE_OK && from->tools.data) {
        status = template_compile(from->tools.data, from->tools.size, &c->tools, &c->problem);
    }
    if (status == MOE_OK) {
        c->name = name_of(c->main, "default");
        return MOE_OK;
    }
    template_free(c->main);
    c->main = NULL;
    return status == MOE_ERR_NO_MEMORY ? status : MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ its variables */
/* A token is a string, or an object with its content. */
static void add_variable(model_chat *c, const char *name, const json_t *value)
{
    const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;

    if (json_is_string(content)) {
        (void)json_object_set_new(c->variables, name,
                                  json_stringn(json_string_value(content), json_string_length(content)));
    }
}

/* What config says nothing of: the text of the id, as far as there is one. An explicit null leaves it undefined. */
static void add_token_of(tokenizer *t, const json_t *config, const char *name, int32_t id)
{
    const vocab_token *token = id >= 0 ? &t->tokens[id] : NULL;

    if (token && token->text && !json_object_get(config, name)) {
        json_t *text = json_stringn(token->text, token->n_text); /* NULL: no UTF-8 */

        if (text) {
            (void)json_object_set_new(t->chat.variables, name, text);
        }
    }
}

static void add_named(model_chat *c, json_t *extra)
{
    const char *name;
    json_t *value;

    json_object_foreach(extra, name, value)
    {
        add_variable(c, name, value);
    }
}

static void add_list(model_chat *c, const json_t *tokens)
{
    json_t *list = json_array();

    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *item = json_array_get(tokens, i);
        const json_t *content = json_is_object(item) ? json_object_get(item, "content") : item;

        if (json_is_string(content)) {
            (void)json_array_append_new(list, json_stringn(json_string_value(content), json_string_length(content)));
        }
    }
    (void)json_object_set_new(c->variables, "additional_special_tokens", list);
}

static void add_variables(tokenizer *t, const json_t *config)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};

    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        add_variable(&t->chat, names[i], json_object_get(config, names[i]));
    }
    add_named(&t->chat, json_object_get(config, "extra_special_tokens"));
    if (json_array_size(json_object_get(config, "additional_special_tokens")) > 0) {
        add_list(&t->chat, json_object_get(config, "additional_special_tokens"));
    }
    add_token_of(t, config, "bos_token", chat_begin_id(t));
    add_token_of(t, config, "eos_token", chat_end_id(t));
}

moe_status chat_load(tokenizer *t, const moe_json *config, const chat_sources *from, moe_error *err)
{
    chat_sources sources = *from;
    moe_status status = MOE_OK;

    t->chat.variables = json_object();
    if (!t->chat.variables) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "chat template: no memory");
    }
    add_variables(t, config);
    if (!sources.main.data) {
        sources.tools = (text_view){NULL, 0};
        status = config_sources(config, &sources, err);
    }
    if (status == MOE_OK && sources.main.data) {
        status = compile_both(&t->chat, &sources);
    }
    return status;
}
