/* Values as Python has them: truth, equality, order, what a container holds. */
#include "template/template_priv.h"

#include <math.h>

const text text_empty = {.data = "", .ascii = true};

static value undefined_value(render *r, const char *name, const char *owner, bool unsafe)
{
    static const undefined plain = {NULL, NULL, false};
    undefined *u = render_take(r, sizeof *u);

    if (!u) {
        return (value){.kind = V_UNDEFINED, .undefined = &plain};
    }
    *u = (undefined){name, owner, unsafe};
    return (value){.kind = V_UNDEFINED, .undefined = u};
}

value value_undefined(render *r, const char *name, const char *owner)
{
    return undefined_value(r, name, owner, false);
}

value value_unsafe(render *r, const char *name, const char *owner)
{
    return undefined_value(r, name, owner, true);
}

value value_fail_undefined(render *r, value v)
{
    const undefined *u = v.undefined;

    if (u->unsafe) {
        return render_fail(r, "access to attribute '%.60s' of '%s' object is unsafe", u->name, u->owner);
    }
    if (u->owner) {
        return render_fail(r, "'%s object' has no attribute '%.60s'", u->owner, u->name ? u->name : "");
    }
    return render_fail(r, "'%.60s' is undefined", u->name ? u->name : "a value");
}

const char *value_type_name(value v)
{
    static const char *const seqs[] = {"list", "tuple", "range", "generator", "dict_keys", "dict_values", "dict_items"};
    static const char *const names[] = {
        [V_ABSENT] = "nothing",  [V_UNDEFINED] = "Undefined", [V_NONE] = "NoneType",   [V_BOOL] = "bool",
        [V_INT] = "int",         [V_FLOAT] = "float",         [V_TEXT] = "str",        [V_DICT] = "dict",
        [V_MACRO] = "Macro",     [V_NAMESPACE] = "Namespace", [V_GLOBAL] = "function", [V_METHOD] = "method",
        [V_LOOP] = "LoopContext"};

    return v.kind == V_SEQ ? seqs[v.seq->kind] : names[v.kind];
}

bool value_truth(value v)
{
    switch (v.kind) {
    case V_UNDEFINED:
    case V_ABSENT:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.b;
    case V_INT:
        return v.i != 0;
    case V_FLOAT:
        return v.f != 0;
    case V_TEXT:
        return v.text->n > 0;
    case V_SEQ:
        return v.seq->n > 0 || v.seq->kind == SEQ_ITERATOR; /* an iterator has no length: true */
    case V_DICT:
        return v.dict->n > 0;
    case V_LOOP:
        return v.loop->items->n > 0;
    default:
        return true;
    }
}

bool value_is_number(value v)
{
    return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_FLOAT;
}

bool value_as_int(value v, int64_t *out)
{
    if (v.kind != V_BOOL && v.kind != V_INT) {
        return false;
    }
    *out = v.kind == V_BOOL ? v.b : v.i;
    return true;
}

double value_as_float(value v)
{
    int64_t i = 0;

    return value_as_int(v, &i) ? (double)i : v.f;
}

bool value_same_text(value v, const char *s)
{
    return v.kind == V_TEXT && v.text->n == strlen(s) && memcmp(v.text->data, s, v.text->n) == 0;
}

/* ------------------------------------------------------------------------------------------------ order */
static int order_int_float(int64_t i, double f)
{
    if (isnan(f)) {
        return 2;
    }
    if (f >= 9223372036854775808.0 || f < -9223372036854775808.0) {
        return f > 0 ? -1 : 1;
    }
    const int64_t whole = (int64_t)f;

    if (i != whole) {
        return i < whole ? -1 : 1;
    }
    return (double)whole == f ? 0 : (double)whole < f ? -1 : 1;
}

static int order_numbers(value a, value b)
{
    int64_t ia = 0, ib = 0;
    const bool a_int = value_as_int(a, &ia), b_int = value_as_int(b, &ib);

    if (a_int && b_int) {
        return (ia > ib) - (ia < ib);
    }
    if (a_int) {
        return order_int_float(ia, b.f);
    }
    if (b_int) {
        const int order = order_int_float(ib, a.f);

        return order == 2 ? 2 : -order;
    }
    return isnan(a.f) || isnan(b.f) ? 2 : (a.f > b.f) - (a.f < b.f);
}

static bool deeper(render *r)
{
    if (++r->depth > MAX_RENDER_DEPTH) {
        render_fail(r, "nested too deep; the limit is %d", MAX_RENDER_DEPTH);
    }
    return RENDER_OK(r);
}

static bool equal_seqs(render *r, const seq *a, const seq *b)
{
    bool equal = a->n == b->n && render_step(r, a->n) && deeper(r);

    for (size_t i = 0; equal && i < a->n; i++) {
        equal = value_equal(r, a->items[i], b->items[i]);
    }
    return equal && RENDER_OK(r);
}

static bool equal_dicts(render *r, const dict *a, const dict *b)
{
    bool equal = a->n == b->n && deeper(r);

    for (size_t i = 0; equal && i < a->n && RENDER_OK(r); i++) {
        const value *other = dict_find(r, b, a->pairs[i].key);

        equal = other && value_equal(r, a->pairs[i].value, *other);
    }
    return equal && RENDER_OK(r);
}

static bool comparable_seqs(const seq *a, const seq *b)
{
    return a == b || (a->kind == b->kind && (a->kind == SEQ_LIST || a->kind == SEQ_TUPLE || a->kind == SEQ_RANGE));
}

bool value_equal(render *r, value a, value b)
{
    const size_t depth = r->depth;
    bool equal = false;

    if (value_is_number(a) && value_is_number(b)) {
        return order_numbers(a, b) == 0;
    }
    if (a.kind != b.kind || !render_step(r, 0)) {
        return false;
    }
    switch (a.kind) {
    case V_UNDEFINED:
    case V_NONE:
        return true;
    case V_TEXT:
        return render_step(r, a.text->n) && text_equal(a.text, b.text);
    case V_SEQ:
        equal = comparable_seqs(a.seq, b.seq) && equal_seqs(r, a.seq, b.seq);
        break;
    case V_DICT:
        equal = equal_dicts(r, a.dict, b.dict);
        break;
    case V_GLOBAL:
        return a.global == b.global;
    default:
        return a.macro == b.macro; /* all others: one pointer */
    }
    r->depth = depth;
    return equal;
}

int value_order(render *r, value a, value b, const char *op)
{
    if (value_is_number(a) && value_is_number(b)) {
        return order_numbers(a, b);
    }
    if (a.kind == V_TEXT && b.kind == V_TEXT) {
        return render_step(r, MOE_MIN(a.text->n, b.text->n)) ? text_order(a.text, b.text) : 0;
    }
    if (a.kind == V_SEQ && b.kind == V_SEQ && a.seq->kind == b.seq->kind && a.seq->kind <= SEQ_TUPLE) {
        const size_t n = MOE_MIN(a.seq->n, b.seq->n), depth = r->depth;

        for (size_t i = 0; i < n && deeper(r) && render_step(r, 0); i++) {
            if (!value_equal(r, a.seq->items[i], b.seq->items[i])) {
                const int order = value_order(r, a.seq->items[i], b.seq->items[i], op);

                r->depth = depth;
                return order;
            }
            r->depth = depth;
        }
        return (a.seq->n > b.seq->n) - (a.seq->n < b.seq->n);
    }
    if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED) {
        value_fail_undefined(r, a.kind == V_UNDEFINED ? a : b);
    } else {
        render_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, value_type_name(a),
                    value_type_name(b));
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------ sequences */
value seq_new(render *r, seq_kind kind, size_t capacity)
{
    seq *s = render_take(r, sizeof *s);
    value *items = capacity > 0 && s ? render_take(r, capacity * sizeof *items) : NULL;

    if (!s || (capacity > 0 && !items)) {
        return value_none();
    }
    *s = (seq){.kind = kind, .items = items, .capacity = capacity};
    return (value){.kind = V_SEQ, .seq = s};
}

void seq_add(render *r, seq *s, value v)
{
    if (!render_step(r, 0)) {
        return;
    }
    value *items = render_grow(r, s->items, s->n, sizeof *items, 4, &s->capacity);

    if (!items) {
        return;
    }
    s->items = items;
    s->items[s->n++] = v;
}

static const seq *dict_keys(render *r, const dict *d)
{
    const value keys = seq_new(r, SEQ_LIST, d->n);

    for (size_t i = 0; i < d->n && RENDER_OK(r); i++) {
        seq_add(r, keys.seq, d->pairs[i].key);
    }
    return RENDER_OK(r) ? keys.seq : NULL;
}

static const seq *characters(render *r, const text *t)
{
    const value all = seq_new(r, SEQ_LIST, 0);
    text plain = *t;
    int32_t c;

    plain.markup = false; /* Markup gives plain characters */
    for (size_t at = 0, end; at < t->n && RENDER_OK(r); at = end) {
        end = at + text_character(t, at, &c);
        seq_add(r, all.seq, text_part(r, &plain, at, end));
    }
    return RENDER_OK(r) ? all.seq : NULL;
}

static const seq *take_rest(render *r, seq *iterator)
{
    seq *rest = render_take(r, sizeof *rest);

    if (!rest) {
        return NULL;
    }
    *rest = (seq){.kind = SEQ_LIST, .n = iterator->n - iterator->next};
    rest->items = rest->n > 0 ? iterator->items + iterator->next : NULL;
    rest->capacity = rest->n;
    iterator->next = iterator->n;
    return rest;
}

const seq *value_items(render *r, value v)
{
    static const seq none = {.kind = SEQ_LIST};

    if (!RENDER_OK(r)) {
        return NULL;
    }
    switch (v.kind) {
    case V_SEQ:
        return v.seq->kind == SEQ_ITERATOR ? take_rest(r, v.seq) : v.seq;
    case V_DICT:
        return dict_keys(r, v.dict);
    case V_TEXT:
        return characters(r, v.text);
    case V_UNDEFINED:
        return &none;
    default:
        render_fail(r, "'%s' object is not iterable", value_type_name(v));
        return NULL;
    }
}

bool value_length(render *r, value v, int64_t *out)
{
    size_t n = 0;

    switch (v.kind) {
    case V_UNDEFINED:
        break;
    case V_TEXT:
        n = render_step(r, v.text->n) ? text_length(v.text) : 0;
        break;
    case V_SEQ:
        if (v.seq->kind == SEQ_ITERATOR) {
            return false;
        }
        n = v.seq->n;
        break;
    case V_DICT:
        n = v.dict->n;
        break;
    case V_LOOP:
        n = v.loop->items->n;
        break;
    default:
        return false;
    }
    *out = (int64_t)n;
    return true;
}

bool value_in(render *r, value item, value container)
{
    const seq *items;

    if (container.kind == V_TEXT) {
        if (item.kind != V_TEXT) {
            render_fail(r, "'in <string>' requires string as left operand, not %s", value_type_name(item));
            return false;
        }
        return render_step(r, container.text->n) && text_search(container.text, item.text, 0) != TEXT_NOT_FOUND;
    }
    if (container.kind == V_DICT) {
        return value_hashable(r, item) && dict_find(r, container.dict, item) != NULL;
    }
    items = value_items(r, container);
    for (size_t i = 0; items && i < items->n && render_step(r, 0); i++) {
        if (value_equal(r, items->items[i], item)) {
            return true;
        }
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------ dicts */
value dict_new(render *r)
{
    dict *d = render_take(r, sizeof *d);

    return d ? (value){.kind = V_DICT, .dict = d} : value_none();
}

const value *dict_find_text(const dict *d, const char *key, size_t n)
{
    for (size_t i = 0; i < d->n; i++) {
        const value k = d->pairs[i].key;

        if (k.kind == V_TEXT && k.text->n == n && memcmp(k.text->data, key, n) == 0) {
            return &d->pairs[i].value;
        }
    }
    return NULL;
}

const value *dict_find(render *r, const dict *d, value key)
{
    if (!render_step(r, d->n)) {
        return NULL;
    }
    if (key.kind == V_TEXT) {
        return dict_find_text(d, key.text->data, key.text->n);
    }
    for (size_t i = 0; i < d->n && RENDER_OK(r); i++) {
        if (value_equal(r, d->pairs[i].key, key)) {
            return &d->pairs[i].value;
        }
    }
    return NULL;
}

bool value_hashable(render *r, value v)
{
    const bool is_tuple = v.kind == V_SEQ && v.seq->kind == SEQ_TUPLE;

    if (v.kind == V_DICT || (v.kind == V_SEQ && v.seq->kind == SEQ_LIST)) {
        render_fail(r, "unhashable type: '%s'", value_type_name(v));
    }
    if (!is_tuple || !RENDER_OK(r)) {
        return RENDER_OK(r);
    }
    const size_t depth = r->depth;

    for (size_t i = 0; i < v.seq->n && deeper(r); i++) {
        (void)value_hashable(r, v.seq->items[i]);
        r->depth = depth;
    }
    r->depth = depth;
    return RENDER_OK(r);
}

void dict_put(render *r, dict *d, value key, value v)
{
    value *there;

    if (!value_hashable(r, key)) {
        return;
    }
    there = (value *)(uintptr_t)dict_find(r, d, key); /* ours: d is not const */
    if (there) {
        *there = v;
        return;
    }
    pair *pairs = render_grow(r, d->pairs, d->n, sizeof *pairs, 4, &d->capacity);

    if (!pairs) {
        return;
    }
    d->pairs = pairs;
    d->pairs[d->n++] = (pair){key, v};
}
