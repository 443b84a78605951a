/* Calls: arguments, macros, methods. */
#include "template/template_priv.h"

/* ------------------------------------------------------------------------------------------------ evaluating */
static size_t spread_positional(render *r, value more, value *items, size_t n)
{
    const seq *list = value_items(r, more);

    for (size_t i = 0; list && i < list->n; i++) {
        items[n + i] = list->items[i];
    }
    return list ? list->n : 0;
}

static void spread_keywords(render *r, const dict *more, const char **keywords, value *values, size_t n)
{
    for (size_t i = 0; i < more->n && RENDER_OK(r); i++) {
        if (more->pairs[i].key.kind != V_TEXT) {
            render_fail(r, "keywords must be strings, not %s", value_type_name(more->pairs[i].key));
            return;
        }
        keywords[n + i] = text_cstr(r, more->pairs[i].key.text);
        values[n + i] = more->pairs[i].value;
    }
}

/* *x and **x come last, whatever they hold. */
static bool take_spreads(render *r, const node_args *a, value *more_positional, value *more_keywords)
{
    *more_positional = a->more_positional ? evaluate(r, a->more_positional) : value_none();
    *more_keywords = a->more_keywords && RENDER_OK(r) ? evaluate(r, a->more_keywords) : value_none();
    if (a->more_positional && RENDER_OK(r)) {
        const seq *list = value_items(r, *more_positional);
        seq *copy = list ? render_take(r, sizeof *copy) : NULL;

        if (copy) {
            *copy = *list;
            copy->kind = SEQ_LIST;
            *more_positional = (value){.kind = V_SEQ, .seq = copy};
        }
    }
    if (a->more_keywords && RENDER_OK(r) && more_keywords->kind != V_DICT) {
        render_fail(r, "argument after ** must be a mapping, not %s", value_type_name(*more_keywords));
    }
    return RENDER_OK(r);
}

bool args_evaluate(render *r, const node_args *a, args *out)
{
    value more, more_keywords, *items, *values;
    const char **keywords;
    size_t n, n_keywords;

    *out = (args){NULL, 0, NULL, NULL, 0};
    if (!a) {
        return RENDER_OK(r);
    }
    items = render_take(r, a->positional.n * sizeof *items);
    values = render_take(r, a->values.n * sizeof *values);
    for (size_t i = 0; i < a->positional.n && RENDER_OK(r); i++) {
        items[i] = evaluate(r, a->positional.items[i]);
    }
    for (size_t i = 0; i < a->values.n && RENDER_OK(r); i++) {
        values[i] = evaluate(r, a->values.items[i]);
    }
    *out = (args){items, a->positional.n, a->keywords, values, a->n_keywords};
    if ((!a->more_positional && !a->more_keywords) || !RENDER_OK(r) || !take_spreads(r, a, &more, &more_keywords)) {
        return RENDER_OK(r);
    }
    n = out->n + (more.kind == V_SEQ ? more.seq->n : 0);
    n_keywords = out->n_keywords + (more_keywords.kind == V_DICT ? more_keywords.dict->n : 0);
    items = render_take(r, n * sizeof *items);
    values = render_take(r, n_keywords * sizeof *values);
    keywords = render_take(r, n_keywords * sizeof *keywords);
    if (!RENDER_OK(r)) {
        return false;
    }
    for (size_t i = 0; i < out->n; i++) {
        items[i] = out->items[i];
    }
    for (size_t i = 0; i < out->n_keywords; i++) {
        values[i] = out->values[i];
        keywords[i] = out->keywords[i];
    }
    if (more.kind == V_SEQ) {
        (void)spread_positional(r, more, items, out->n);
    }
    if (more_keywords.kind == V_DICT) {
        spread_keywords(r, more_keywords.dict, keywords, values, out->n_keywords);
    }
    *out = (args){items, n, keywords, values, n_keywords};
    return RENDER_OK(r);
}

/* ------------------------------------------------------------------------------------------------ binding */
/* The next name of "*old *new count" at *at; its length, 0: none is left. */
static size_t next_name(const char *names, size_t *at, bool *required)
{
    size_t n = 0;

    while (names[*at] == ' ') {
        *at += 1;
    }
    *required = names[*at] == '*';
    *at += *required;
    while (names[*at + n] != '\0' && names[*at + n] != ' ') {
        n++;
    }
    return n;
}

static bool take_keyword(render *r, const char *who, const args *a, const char *name, size_t n, value *slot)
{
    for (size_t i = 0; i < a->n_keywords; i++) {
        if (strlen(a->keywords[i]) == n && strncmp(a->keywords[i], name, n) == 0) {
            if (slot->kind != V_ABSENT) {
                render_fail(r, "%s() got multiple values for argument '%.60s'", who, a->keywords[i]);
            }
            *slot = a->values[i];
            return true;
        }
    }
    return false;
}

bool args_bind(render *r, const char *who, const char *names, const args *a, value slots[MAX_SLOTS])
{
    size_t at = 0, n_slots = 0, n_taken = 0, n;
    bool required;

    while ((n = next_name(names, &at, &required)) > 0) {
        value *slot = &slots[n_slots];

        *slot = n_slots < a->n ? a->items[n_slots] : (value){.kind = V_ABSENT};
        n_taken += take_keyword(r, who, a, names + at, n, slot);
        if (slot->kind == V_ABSENT && required) {
            render_fail(r, "%s() misses the argument '%.*s'", who, (int)n, names + at);
        }
        n_slots++;
        at += n;
    }
    if (a->n > n_slots) {
        render_fail(r, "%s() takes at most %zu argument(s), %zu given", who, n_slots, a->n);
    } else if (n_taken < a->n_keywords) {
        render_fail(r, "%s() got an unexpected keyword argument", who);
    }
    return RENDER_OK(r);
}

int64_t slot_int(render *r, value v, int64_t fallback, const char *what)
{
    int64_t number = fallback;

    if (v.kind == V_UNDEFINED) {
        value_fail_undefined(r, v);
    } else if (v.kind != V_ABSENT && !value_as_int(v, &number)) {
        render_fail(r, "%s is a %s, not an integer", what, value_type_name(v));
    }
    return number;
}

bool slot_bool(value v, bool fallback)
{
    return v.kind == V_ABSENT ? fallback : value_truth(v);
}

const text *slot_text(render *r, value v, const char *fallback, const char *what)
{
    if (v.kind == V_TEXT) {
        return v.text;
    }
    if (v.kind != V_ABSENT || !fallback) {
        render_fail(r, "%s is a %s, not a string", what, value_type_name(v));
        return &text_empty;
    }
    return text_value(r, fallback, strlen(fallback), 0).text;
}

/* ------------------------------------------------------------------------------------------------ macros */
/* Which keyword is called name; n_keywords: none. */
static size_t find_keyword(const args *a, const char *name)
{
    size_t i = 0;

    while (i < a->n_keywords && strcmp(a->keywords[i], name) != 0) {
        i++;
    }
    return i;
}

static void bind_parameter(render *r, const macro_def *m, size_t i, const args *a, bool *used)
{
    const size_t at = i < a->n ? a->n_keywords : find_keyword(a, m->parameters[i]);
    const size_t first_default = m->n_parameters - m->defaults.n;
    value v;

    if (i < a->n) {
        v = a->items[i];
    } else if (at < a->n_keywords) {
        v = a->values[at];
        used[at] = true;
    } else if (i >= first_default) {
        v = evaluate(r, m->defaults.items[i - first_default]);
    } else {
        v = value_undefined(r, m->parameters[i], NULL);
    }
    scope_set(r, r->scope, m->parameters[i], v);
}

static void bind_caller(render *r, const macro_def *m, const args *a, bool *used)
{
    const size_t at = find_keyword(a, r->t->caller);

    for (size_t i = 0; i < m->n_parameters; i++) {
        if (m->parameters[i] == r->t->caller) {
            return;
        }
    }
    if (at < a->n_keywords) {
        used[at] = true;
    }
    scope_set(r, r->scope, r->t->caller,
              at < a->n_keywords && a->values[at].kind != V_NONE ? a->values[at] : value_undefined(r, "caller", NULL));
}

/* What no parameter took: refused, or given to a macro that says kwargs or varargs. */
static void bind_rest(render *r, const macro_def *m, const args *a, const bool *used)
{
    const value rest = dict_new(r), more = seq_new(r, SEQ_TUPLE, 0);

    for (size_t i = 0; i < a->n_keywords && RENDER_OK(r); i++) {
        if (!used[i] && !m->uses_kwargs) {
            render_fail(r, "macro '%.60s' takes no keyword argument '%.60s'", m->name, a->keywords[i]);
        } else if (!used[i]) {
            dict_put(r, rest.dict, text_value(r, a->keywords[i], strlen(a->keywords[i]), 0), a->values[i]);
        }
    }
    if (a->n > m->n_parameters && !m->uses_varargs) {
        render_fail(r, "macro '%.60s' takes not more than %zu argument(s)", m->name, m->n_parameters);
    }
    for (size_t i = m->n_parameters; i < a->n && RENDER_OK(r); i++) {
        seq_add(r, more.seq, a->items[i]);
    }
    if (m->uses_kwargs) {
        scope_set(r, r->scope, r->t->kwargs, rest);
    }
    if (m->uses_varargs) {
        scope_set(r, r->scope, r->t->varargs, more);
    }
}

static value call_macro(render *r, const macro *m, const args *a)
{
    scope *const around = r->scope, *inside = scope_open(r, m->scope);
    bool *used = render_take(r, a->n_keywords * sizeof *used);
    value printed = value_none();

    if (!inside || !used) {
        return value_none();
    }
    r->scope = inside;
    if (m->def->uses_caller) {
        bind_caller(r, m->def, a, used);
    }
    for (size_t i = 0; i < m->def->n_parameters && RENDER_OK(r); i++) {
        bind_parameter(r, m->def, i, a, used);
    }
    if (RENDER_OK(r)) {
        bind_rest(r, m->def, a, used);
    }
    if (RENDER_OK(r)) {
        (void)execute_captured(r, inside, &m->def->body, &printed);
    }
    r->scope = around;
    return printed;
}

static value call_method(render *r, const bound *b, const args *a)
{
    value slots[MAX_SLOTS];

    if (b->method->args) {
        return b->method->args(r, b->object, a);
    }
    return args_bind(r, b->method->name, b->method->parameters, a, slots) ? b->method->slots(r, b->object, slots)
                                                                          : value_none();
}

value call_value(render *r, value callee, const args *a)
{
    value v = {.kind = V_NONE};

    if (++r->depth > MAX_RENDER_DEPTH) {
        render_fail(r, "nested too deep; the limit is %d", MAX_RENDER_DEPTH);
    } else if (callee.kind == V_MACRO) {
        v = call_macro(r, callee.macro, a);
    } else if (callee.kind == V_GLOBAL) {
        v = callee.global->call(r, a);
    } else if (callee.kind == V_METHOD) {
        v = call_method(r, callee.bound, a);
    } else if (callee.kind == V_UNDEFINED) {
        v = value_fail_undefined(r, callee);
    } else {
        v = render_fail(r, "'%s' object is not callable", value_type_name(callee));
    }
    r->depth--;
    return v;
}
