/* One rendering: its variables, its bounds, what comes out. */
#include "template/template_priv.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { BYTES_PER_STEP = 64 };

/* ------------------------------------------------------------------------------------------------ failing */
value render_fail(render *r, const char *format, ...)
{
    static const undefined nothing = {NULL, NULL, false};
    char reason[400];
    va_list list;

    if (RENDER_OK(r)) {
        va_start(list, format);
        (void)vsnprintf(reason, sizeof reason, format, list);
        va_end(list);
        reason[moe_utf8_valid_prefix(reason, strlen(reason))] = '\0'; /* it may be cut within a character */
        r->status = moe_fail(r->err, MOE_ERR_INVALID_ARG, "chat template, line %u: %s", r->line, reason);
    }
    return (value){.kind = V_UNDEFINED, .undefined = &nothing};
}

value render_raise(render *r, const text *message)
{
    char reason[400];

    (void)snprintf(reason, sizeof reason, "%.*s", (int)MOE_MIN(message->n, sizeof reason - 1), message->data);
    reason[moe_utf8_valid_prefix(reason, strlen(reason))] = '\0';
    if (RENDER_OK(r)) {
        r->status = moe_fail(r->err, MOE_ERR_INVALID_ARG, "%s", reason);
    }
    return value_none();
}

static void *or_fail(render *r, void *taken)
{
    if (!taken) {
        render_fail(r, "it takes more than %zu bytes of memory", r->limits.max_memory_bytes);
    }
    return taken;
}

void *render_take(render *r, size_t bytes)
{
    return or_fail(r, RENDER_OK(r) ? arena_take(r->arena, MOE_MAX(bytes, (size_t)1)) : NULL);
}

void *render_grow(render *r, void *items, size_t n, size_t item_bytes, size_t first, size_t *capacity)
{
    return or_fail(r, RENDER_OK(r) ? arena_grow(r->arena, items, n, item_bytes, first, capacity) : NULL);
}

bool render_step(render *r, size_t touched)
{
    r->steps += 1 + touched / BYTES_PER_STEP;
    if (r->steps > r->limits.max_steps) {
        render_fail(r, "it takes more than %zu steps", r->limits.max_steps);
    }
    return RENDER_OK(r);
}

/* ------------------------------------------------------------------------------------------------ variables */
struct template_value {
    value v;
};

moe_status template_vars_open(const template_limits *limits, template_vars **out, moe_error *err)
{
    template_vars *vars = calloc(1, sizeof *vars);

    if (!vars) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for a rendering");
    }
    vars->limits = *limits;
    arena_init(&vars->arena, limits->max_memory_bytes);
    *out = vars;
    return MOE_OK;
}

void template_vars_close(template_vars *vars)
{
    if (vars) {
        arena_fini(&vars->arena);
        free(vars);
    }
}

static void *vars_take(template_vars *vars, size_t bytes)
{
    void *taken = arena_take(&vars->arena, bytes);

    vars->failed = vars->failed || !taken;
    return taken;
}

static void *vars_grow(template_vars *vars, void *items, size_t n, size_t item_bytes, size_t first, size_t *capacity)
{
    void *grown = arena_grow(&vars->arena, items, n, item_bytes, first, capacity);

    vars->failed = vars->failed || !grown;
    return grown;
}

static template_value *new_value(template_vars *vars, value v)
{
    template_value *made = vars_take(vars, sizeof *made);

    if (made) {
        made->v = v;
    }
    return made;
}

template_value *template_none(template_vars *vars)
{
    return new_value(vars, value_none());
}

template_value *template_bool(template_vars *vars, bool b)
{
    return new_value(vars, value_bool(b));
}

static value borrowed_text(template_vars *vars, const char *bytes, size_t n, uint8_t origin)
{
    text *t = n > 0 ? vars_take(vars, sizeof *t) : NULL;

    if (!t) {
        return value_text(&text_empty);
    }
    *t = (text){.data = bytes, .n = n, .origin = origin, .ascii = text_is_ascii(bytes, n)};
    return value_text(t);
}

template_value *template_text(template_vars *vars, const char *bytes, size_t n, uint8_t origin)
{
    return new_value(vars, borrowed_text(vars, bytes, n, origin));
}

static value empty_list(template_vars *vars)
{
    seq *s = vars_take(vars, sizeof *s);

    return s ? (value){.kind = V_SEQ, .seq = s} : value_none();
}

static value empty_dict(template_vars *vars)
{
    dict *d = vars_take(vars, sizeof *d);

    return d ? (value){.kind = V_DICT, .dict = d} : value_none();
}

template_value *template_list(template_vars *vars)
{
    return new_value(vars, empty_list(vars));
}

template_value *template_dict(template_vars *vars)
{
    return new_value(vars, empty_dict(vars));
}

static void list_add(template_vars *vars, seq *s, value v)
{
    value *items = vars_grow(vars, s->items, s->n, sizeof *items, 4, &s->capacity);

    if (!items) {
        return;
    }
    s->items = items;
    s->items[s->n++] = v;
}

/* The key is new, or the caller does not mind it twice. */
static void dict_add(template_vars *vars, dict *d, value key, value v)
{
    pair *pairs = vars_grow(vars, d->pairs, d->n, sizeof *pairs, 8, &d->capacity);

    if (!pairs) {
        return;
    }
    d->pairs = pairs;
    d->pairs[d->n++] = (pair){key, v};
}

void template_list_add(template_vars *vars, template_value *list, const template_value *v)
{
    if (list && v && list->v.kind == V_SEQ) {
        list_add(vars, list->v.seq, v->v);
    }
}

static void set_entry(template_vars *vars, dict *d, const char *key, value v)
{
    const size_t n = strlen(key);
    value *there = (value *)(uintptr_t)dict_find_text(d, key, n); /* ours: d is not const */
    char *copy;

    if (there) {
        *there = v;
        return;
    }
    copy = vars_take(vars, n + 1);
    if (copy) {
        memcpy(copy, key, n);
        dict_add(vars, d, borrowed_text(vars, copy, n, 0), v);
    }
}

void template_dict_set(template_vars *vars, template_value *to, const char *key, const template_value *v)
{
    if (to && v && to->v.kind == V_DICT) {
        set_entry(vars, to->v.dict, key, v->v);
    }
}

void template_set(template_vars *vars, const char *name, const template_value *v)
{
    if (v) {
        set_entry(vars, &vars->names, name, v->v);
    }
}

/* ------------------------------------------------------------------------------------------------ from JSON */
static value from_json(template_vars *vars, const json_t *json, uint8_t origin, size_t depth);

static value from_object(template_vars *vars, const json_t *json, uint8_t origin, size_t depth)
{
    const value d = empty_dict(vars);
    json_t *object = (json_t *)(uintptr_t)json; /* iterating does not change it */
    const char *key;
    size_t n;
    json_t *item;

    if (d.kind == V_DICT) {
        json_object_keylen_foreach(object, key, n, item)
        {
            dict_add(vars, d.dict, borrowed_text(vars, key, n, origin), from_json(vars, item, origin, depth + 1));
        }
    }
    return d;
}

static value from_array(template_vars *vars, const json_t *json, uint8_t origin, size_t depth)
{
    const value list = empty_list(vars);

    for (size_t i = 0; list.kind == V_SEQ && i < json_array_size(json); i++) {
        list_add(vars, list.seq, from_json(vars, json_array_get(json, i), origin, depth + 1));
    }
    return list;
}

static value from_json(template_vars *vars, const json_t *json, uint8_t origin, size_t depth)
{
    if (depth > MAX_RENDER_DEPTH) {
        vars->failed = true;
        return value_none();
    }
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return from_object(vars, json, origin, depth);
    case JSON_ARRAY:
        return from_array(vars, json, origin, depth);
    case JSON_STRING:
        return borrowed_text(vars, json_string_value(json), json_string_length(json), origin);
    case JSON_INTEGER:
        return value_int(json_integer_value(json));
    case JSON_REAL:
        return value_float(json_real_value(json));
    case JSON_TRUE:
    case JSON_FALSE:
        return value_bool(json_is_true(json));
    default:
        return value_none();
    }
}

template_value *template_json(template_vars *vars, const moe_json *json, uint8_t origin)
{
    return new_value(vars, from_json(vars, json, origin, 0));
}

/* ------------------------------------------------------------------------------------------------ rendering */
/* The variables whose names the template says. */
static void bind_variables(render *r, const template_vars *vars)
{
    for (size_t i = 0; i < vars->names.n; i++) {
        const value key = vars->names.pairs[i].key;

        for (size_t j = 0; key.kind == V_TEXT && j < r->t->n_names; j++) {
            if (value_same_text(key, r->t->names[j])) {
                scope_set(r, r->scope, r->t->names[j], vars->names.pairs[i].value);
            }
        }
    }
}

static void collect_runs(render *r, const builder *b, template_output *out)
{
    template_run *runs;
    size_t n = b->n > 0;

    for (size_t i = 1; b->origins && i < b->n; i++) {
        n += b->origins[i] != b->origins[i - 1];
    }
    runs = render_take(r, n * sizeof *runs);
    if (!runs) {
        return;
    }
    *out = (template_output){.text = b->n > 0 ? b->data : "", .n = b->n, .runs = runs};
    for (size_t i = 1; b->n > 0 && i <= b->n; i++) {
        if (i == b->n || (b->origins && b->origins[i] != b->origins[i - 1])) {
            runs[out->n_runs++] = (template_run){i, b->origins ? b->origins[i - 1] : b->origin};
        }
    }
}

moe_status template_render(const template *t, template_vars *vars, const template_time *now, template_output *out,
                           moe_error *err)
{
    builder printed = {0};
    template_output result = {0};
    render r = {.arena = &vars->arena,
                .t = t,
                .limits = vars->limits,
                .now = now,
                .out = &printed,
                .status = MOE_OK,
                .err = err};

    if (vars->failed) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "the variables of the chat template: nested too deep, or more than %zu bytes of memory",
                        vars->limits.max_memory_bytes);
    }
    if (now && (now->month < 1 || now->month > 12 || now->day < 1 || now->day > 31 || now->year < 1)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "the time for the chat template: %d-%d-%d is no date", now->year,
                        now->month, now->day);
    }
    r.scope = scope_open(&r, NULL);
    if (r.scope) {
        bind_variables(&r, vars);
        (void)execute(&r, &t->body);
    }
    if (r.status == MOE_OK) {
        collect_runs(&r, &printed, &result);
    }
    if (r.status == MOE_OK) {
        *out = result;
    }
    return r.status;
}
