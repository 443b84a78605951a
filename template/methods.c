/* Methods by the kind of their object; those of text are in methods_text.c. */
#include "template/template_priv.h"

/* ------------------------------------------------------------------------------------------------ dict */
static value dict_get(render *r, value v, const value *s)
{
    const value *found = value_hashable(r, s[0]) ? dict_find(r, v.dict, s[0]) : NULL;

    return found ? *found : s[1].kind == V_ABSENT ? value_none() : s[1];
}

static value dict_view(render *r, value v, seq_kind kind)
{
    const value view = seq_new(r, kind, v.dict->n);

    for (size_t i = 0; i < v.dict->n && RENDER_OK(r); i++) {
        const pair *p = &v.dict->pairs[i];
        const value item = kind == SEQ_ITEMS ? seq_new(r, SEQ_TUPLE, 2) : kind == SEQ_KEYS ? p->key : p->value;

        if (kind == SEQ_ITEMS && RENDER_OK(r)) {
            seq_add(r, item.seq, p->key);
            seq_add(r, item.seq, p->value);
        }
        if (RENDER_OK(r)) {
            seq_add(r, view.seq, item);
        }
    }
    return view;
}

static value dict_items(render *r, value v, const value *s)
{
    (void)s;
    return dict_view(r, v, SEQ_ITEMS);
}

static value dict_keys(render *r, value v, const value *s)
{
    (void)s;
    return dict_view(r, v, SEQ_KEYS);
}

static value dict_values(render *r, value v, const value *s)
{
    (void)s;
    return dict_view(r, v, SEQ_VALUES);
}

static value same(render *r, value v, const value *s)
{
    (void)r;
    (void)s;
    return v; /* a copy of what nobody can change */
}

/* ------------------------------------------------------------------------------------------------ list, tuple */
static value seq_count(render *r, value v, const value *s)
{
    int64_t n = 0;

    for (size_t i = 0; i < v.seq->n && RENDER_OK(r); i++) {
        n += value_equal(r, v.seq->items[i], s[0]);
    }
    return value_int(n);
}

static value seq_index(render *r, value v, const value *s)
{
    for (size_t i = 0; i < v.seq->n && RENDER_OK(r); i++) {
        if (value_equal(r, v.seq->items[i], s[0])) {
            return value_int((int64_t)i);
        }
    }
    return render_fail(r, "index: the value is not in the %s", value_type_name(v));
}

/* ------------------------------------------------------------------------------------------------ loop */
static value loop_cycle(render *r, value v, const args *a)
{
    if (a->n == 0 || a->n_keywords > 0) {
        return render_fail(r, "no items for cycling given");
    }
    return a->items[v.loop->at % a->n];
}

static value loop_changed(render *r, value v, const args *a)
{
    const value given = seq_new(r, SEQ_TUPLE, a->n);
    bool changed;

    for (size_t i = 0; i < a->n && RENDER_OK(r); i++) {
        seq_add(r, given.seq, a->items[i]);
    }
    if (!RENDER_OK(r)) {
        return value_none();
    }
    changed = v.loop->changed.kind == V_ABSENT || !value_equal(r, v.loop->changed, given);
    v.loop->changed = given;
    return value_bool(changed);
}

static const method methods[] = {{V_DICT, "get", "*key default", dict_get, NULL},
                                 {V_DICT, "items", "", dict_items, NULL},
                                 {V_DICT, "keys", "", dict_keys, NULL},
                                 {V_DICT, "values", "", dict_values, NULL},
                                 {V_DICT, "copy", "", same, NULL},
                                 {V_SEQ, "copy", "", same, NULL},
                                 {V_SEQ, "count", "*value", seq_count, NULL},
                                 {V_SEQ, "index", "*value", seq_index, NULL},
                                 {V_LOOP, "cycle", NULL, NULL, loop_cycle},
                                 {V_LOOP, "changed", NULL, NULL, loop_changed}};

static bool is_in(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

const method *method_find(value_kind kind, const char *name)
{
    for (size_t i = 0; kind == V_TEXT && i < n_text_methods; i++) {
        if (strcmp(text_methods[i].name, name) == 0) {
            return &text_methods[i];
        }
    }
    for (size_t i = 0; i < MOE_COUNT(methods); i++) {
        if (methods[i].kind == kind && strcmp(methods[i].name, name) == 0) {
            return &methods[i];
        }
    }
    return NULL;
}

bool method_is_unsupported(const char *name)
{
    static const char *const names[] = {"casefold",   "encode",    "expandtabs", "format_map",      "isidentifier",
                                        "maketrans",  "translate", "fromkeys",   "to_bytes",        "from_bytes",
                                        "bit_length", "bit_count", "is_integer", "as_integer_ratio"};

    return is_in(name, names, MOE_COUNT(names));
}

bool attribute_is_unsupported(value_kind kind, const char *name)
{
    static const char *const of_numbers[] = {"real", "imag", "numerator", "denominator", "conjugate"};
    static const char *const of_macros[] = {"name",          "arguments", "catch_kwargs",
                                            "catch_varargs", "caller",    "explicit_caller"};
    static const char *const of_views[] = {"start", "stop", "step", "mapping", "send", "throw", "close"};

    switch (kind) {
    case V_TEXT:
    case V_DICT:
        return method_is_unsupported(name);
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        return method_is_unsupported(name) || is_in(name, of_numbers, MOE_COUNT(of_numbers));
    case V_SEQ:
        return is_in(name, of_views, MOE_COUNT(of_views));
    case V_MACRO:
        return is_in(name, of_macros, MOE_COUNT(of_macros));
    default:
        return false;
    }
}

bool method_mutates(value_kind kind, bool is_list, const char *name)
{
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update"};
    static const char *const of_list[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};

    return (kind == V_DICT && is_in(name, of_dict, MOE_COUNT(of_dict))) ||
           (kind == V_SEQ && is_list && is_in(name, of_list, MOE_COUNT(of_list)));
}
