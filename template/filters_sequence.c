/* Filters of sequences and mappings. */
#include "template/template_priv.h"

/* ------------------------------------------------------------------------------------------------ parts */
static value lowered(render *r, value v, bool case_sensitive)
{
    return v.kind == V_TEXT && !case_sensitive ? text_case(r, v.text, CASE_LOWER) : v;
}

static value filter_default(render *r, value v, const value *s)
{
    const bool boolean = slot_bool(s[1], false);

    (void)r;
    if (v.kind == V_UNDEFINED || (boolean && !value_truth(v))) {
        return s[0].kind == V_ABSENT ? value_text(&text_empty) : s[0];
    }
    return v;
}

static value nothing_there(render *r)
{
    return value_undefined(r, "the sequence was empty: no first or last item", NULL);
}

/* Iterating over Markup gives plain characters. */
static value plain(render *r, value v)
{
    const text *t = v.text;
    text bare = *t;

    bare.markup = false;
    return t->markup ? text_part(r, &bare, 0, t->n) : v;
}

static value filter_first(render *r, value v, const value *s)
{
    const seq *items;

    (void)s;
    if (v.kind == V_SEQ && v.seq->kind == SEQ_ITERATOR) {
        return v.seq->next < v.seq->n ? v.seq->items[v.seq->next++] : nothing_there(r);
    }
    if (v.kind == V_TEXT && v.text->n > 0) {
        int32_t c;

        return plain(r, text_slice(r, v.text, 0, text_character(v.text, 0, &c)));
    }
    items = value_items(r, v);
    return items && items->n > 0 ? items->items[0] : nothing_there(r);
}

static value filter_last(render *r, value v, const value *s)
{
    const seq *items;

    (void)s;
    if (v.kind == V_SEQ && v.seq->kind == SEQ_ITERATOR) {
        return render_fail(r, "'generator' object is not reversible");
    }
    if (v.kind == V_TEXT && v.text->n > 0) {
        int32_t c;

        return plain(r, text_slice(r, v.text, v.text->n - text_before(v.text, v.text->n, &c), v.text->n));
    }
    items = value_items(r, v);
    return items && items->n > 0 ? items->items[items->n - 1] : nothing_there(r);
}

static value filter_length(render *r, value v, const value *s)
{
    int64_t n = 0;

    (void)s;
    return value_length(r, v, &n) ? value_int(n)
                                  : render_fail(r, "object of type '%s' has no len()", value_type_name(v));
}

static value copy_seq(render *r, const seq *items, seq_kind kind)
{
    const value copy = seq_new(r, kind, items ? items->n : 0);

    for (size_t i = 0; items && RENDER_OK(r) && i < items->n; i++) {
        seq_add(r, copy.seq, items->items[i]);
    }
    return RENDER_OK(r) ? copy : value_none();
}

static value filter_list(render *r, value v, const value *s)
{
    (void)s;
    return copy_seq(r, value_items(r, v), SEQ_LIST);
}

static value filter_items(render *r, value v, const value *s)
{
    const value all = seq_new(r, SEQ_ITERATOR, v.kind == V_DICT ? v.dict->n : 0);

    (void)s;
    if (v.kind != V_DICT && v.kind != V_UNDEFINED) {
        return render_fail(r, "can only get item pairs from a mapping");
    }
    for (size_t i = 0; v.kind == V_DICT && i < v.dict->n && RENDER_OK(r); i++) {
        const value item = seq_new(r, SEQ_TUPLE, 2);

        if (RENDER_OK(r)) {
            seq_add(r, item.seq, v.dict->pairs[i].key);
            seq_add(r, item.seq, v.dict->pairs[i].value);
            seq_add(r, all.seq, item);
        }
    }
    return all;
}

static value filter_join(render *r, value v, const value *s)
{
    const value by = value_to_text(r, s[0].kind == V_ABSENT ? value_text(&text_empty) : s[0]);
    const seq *items = value_items(r, v);
    builder b = {0};

    for (size_t i = 0; items && i < items->n && RENDER_OK(r); i++) {
        if (i > 0) {
            builder_add_text(r, &b, by.text);
        }
        const value item = path_of(r, items->items[i], s[1]);

        if (RENDER_OK(r)) {
            print_value(r, &b, item);
        }
    }
    return builder_value(r, &b);
}

static value reverse_text(render *r, const text *t)
{
    builder b = {0};
    int32_t c;

    for (size_t at = t->n, length; at > 0 && RENDER_OK(r); at -= length) {
        length = text_before(t, at, &c);
        builder_add_slice(r, &b, t, at - length, at);
    }
    return builder_value(r, &b);
}

static value filter_reverse(render *r, value v, const value *s)
{
    const bool is_iterator = v.kind == V_SEQ && v.seq->kind == SEQ_ITERATOR;
    const seq *items;
    value all;

    (void)s;
    if (v.kind == V_TEXT) {
        return reverse_text(r, v.text);
    }
    items = value_items(r, v);
    all = seq_new(r, is_iterator ? SEQ_LIST : SEQ_ITERATOR, items ? items->n : 0);
    for (size_t i = items ? items->n : 0; i > 0 && RENDER_OK(r); i--) {
        seq_add(r, all.seq, items->items[i - 1]);
    }
    return all;
}

static value filter_batch(render *r, value v, const value *s)
{
    const int64_t n = slot_int(r, s[0], 0, "linecount");
    const seq *items = value_items(r, v);
    const value all = seq_new(r, SEQ_ITERATOR, 0);
    value line = {.kind = V_NONE};

    for (size_t i = 0; items && i < items->n && RENDER_OK(r); i++) {
        if (line.kind != V_SEQ || (int64_t)line.seq->n == n) {
            line = seq_new(r, SEQ_LIST, 0);
            if (RENDER_OK(r)) {
                seq_add(r, all.seq, line);
            }
        }
        if (RENDER_OK(r)) {
            seq_add(r, line.seq, items->items[i]);
        }
    }
    while (line.kind == V_SEQ && s[1].kind != V_ABSENT && s[1].kind != V_NONE && (int64_t)line.seq->n < n &&
           RENDER_OK(r)) {
        seq_add(r, line.seq, s[1]);
    }
    return all;
}

static value filter_attr(render *r, value v, const value *s)
{
    const text *name = slot_text(r, s[0], NULL, "name");
    const char *word = RENDER_OK(r) ? text_cstr(r, name) : NULL;

    if (!word) {
        return value_none();
    }
    if (v.kind == V_DICT) { /* attributes alone, not items */
        const method *m = method_find(V_DICT, word);

        return m ? attribute_of(r, v, word) : value_undefined(r, word, "dict");
    }
    return attribute_of(r, v, word);
}

/* ------------------------------------------------------------------------------------------------ order */
typedef struct keyed {
    value key, item;
} keyed;

/* Jinja compares lists of keys: "a,b" gives two. */
static value sort_key(render *r, value item, value attribute, bool case_sensitive)
{
    static const text comma = {.data = ",", .n = 1};
    const value key = seq_new(r, SEQ_LIST, 1);
    size_t at = 0, end;

    if (attribute.kind != V_TEXT) {
        const value part = path_of(r, item, attribute);

        if (RENDER_OK(r)) {
            seq_add(r, key.seq, lowered(r, part, case_sensitive));
        }
        return key;
    }
    do {
        value part;

        end = text_search(attribute.text, &comma, at);
        end = end == TEXT_NOT_FOUND ? attribute.text->n : end;
        part = path_of(r, item, text_slice(r, attribute.text, at, end));
        if (RENDER_OK(r)) {
            seq_add(r, key.seq, lowered(r, part, case_sensitive));
        }
        at = end + 1;
    } while (end < attribute.text->n && RENDER_OK(r));
    return key;
}

/* Stable, as Python's: b goes first only if it is less (or, backwards, greater). */
static bool goes_before(render *r, const keyed *b, const keyed *a, bool reverse)
{
    const int order = reverse ? value_order(r, a->key, b->key, "<") : value_order(r, b->key, a->key, "<");

    return order == -1;
}

static void merge(render *r, keyed *items, keyed *scratch, size_t n, bool reverse)
{
    const size_t middle = n / 2;
    size_t left = 0, right = middle;

    if (n < 2 || !render_step(r, n)) {
        return;
    }
    merge(r, items, scratch, middle, reverse);
    merge(r, items + middle, scratch, n - middle, reverse);
    for (size_t i = 0; i < n && RENDER_OK(r); i++) {
        const bool take_right = right < n && (left == middle || goes_before(r, &items[right], &items[left], reverse));

        scratch[i] = items[take_right ? right++ : left++];
    }
    if (RENDER_OK(r)) {
        memcpy(items, scratch, n * sizeof *items);
    }
}

static value sorted(render *r, keyed *items, size_t n, bool reverse)
{
    keyed *scratch = render_take(r, n * sizeof *scratch);
    value all = value_none();

    if (scratch) {
        merge(r, items, scratch, n, reverse);
        all = seq_new(r, SEQ_LIST, n);
    }
    for (size_t i = 0; i < n && RENDER_OK(r); i++) {
        seq_add(r, all.seq, items[i].item);
    }
    return all;
}

static value filter_sort(render *r, value v, const value *s)
{
    const bool reverse = slot_bool(s[0], false), case_sensitive = slot_bool(s[1], false);
    const seq *items = value_items(r, v);
    keyed *all = items ? render_take(r, items->n * sizeof *all) : NULL;

    for (size_t i = 0; all && i < items->n && RENDER_OK(r); i++) {
        all[i] = (keyed){sort_key(r, items->items[i], s[2], case_sensitive), items->items[i]};
    }
    return all && RENDER_OK(r) ? sorted(r, all, items->n, reverse) : value_none();
}

static value filter_dictsort(render *r, value v, const value *s)
{
    const bool case_sensitive = slot_bool(s[0], false), reverse = slot_bool(s[2], false);
    const bool by_value = value_same_text(s[1], "value");
    const value pairs = v.kind == V_DICT ? filter_items(r, v, NULL) : value_none();
    keyed *all = pairs.kind == V_SEQ ? render_take(r, pairs.seq->n * sizeof *all) : NULL;

    if (v.kind != V_DICT) {
        return v.kind == V_UNDEFINED ? value_fail_undefined(r, v)
                                     : render_fail(r, "'%s' object has no attribute 'items'", value_type_name(v));
    }
    if (s[1].kind != V_ABSENT && !by_value && !value_same_text(s[1], "key")) {
        return render_fail(r, "you can only sort by either \"key\" or \"value\"");
    }
    for (size_t i = 0; all && i < pairs.seq->n && RENDER_OK(r); i++) {
        const value key = pairs.seq->items[i].seq->items[by_value];

        all[i] = (keyed){lowered(r, key, case_sensitive), pairs.seq->items[i]};
    }
    return all && RENDER_OK(r) ? sorted(r, all, pairs.seq->n, reverse) : value_none();
}

static value extreme(render *r, value v, const value *s, int wanted)
{
    const bool case_sensitive = slot_bool(s[0], false);
    const seq *items = value_items(r, v);
    value best = {.kind = V_NONE}, best_key = {.kind = V_NONE};

    if (items && items->n == 0) {
        return value_undefined(r, "no aggregated item, the sequence was empty", NULL);
    }
    for (size_t i = 0; items && i < items->n && RENDER_OK(r); i++) {
        value key = path_of(r, items->items[i], s[1]);

        key = RENDER_OK(r) ? lowered(r, key, case_sensitive) : key;
        if (RENDER_OK(r) && (i == 0 || value_order(r, key, best_key, wanted > 0 ? ">" : "<") == wanted)) {
            best = items->items[i];
            best_key = key;
        }
    }
    return best;
}

static value filter_min(render *r, value v, const value *s)
{
    return extreme(r, v, s, -1);
}

static value filter_max(render *r, value v, const value *s)
{
    return extreme(r, v, s, 1);
}

static value filter_sum(render *r, value v, const value *s)
{
    const seq *items = value_items(r, v);
    value total = s[1].kind == V_ABSENT ? value_int(0) : s[1];

    if (total.kind == V_TEXT) {
        return render_fail(r, "sum() can't sum strings");
    }
    for (size_t i = 0; items && i < items->n && RENDER_OK(r); i++) {
        const value item = path_of(r, items->items[i], s[0]);

        total = RENDER_OK(r) ? value_operate(r, OP_ADD, total, item) : total;
    }
    return total;
}

static value filter_unique(render *r, value v, const value *s)
{
    const bool case_sensitive = slot_bool(s[0], false);
    const seq *items = value_items(r, v);
    const value seen = seq_new(r, SEQ_LIST, 0), all = seq_new(r, SEQ_ITERATOR, 0);

    for (size_t i = 0; items && i < items->n && RENDER_OK(r); i++) {
        value key = path_of(r, items->items[i], s[1]);

        key = RENDER_OK(r) ? lowered(r, key, case_sensitive) : key;
        if (value_hashable(r, key) && !value_in(r, key, seen) && RENDER_OK(r)) {
            seq_add(r, seen.seq, key);
            seq_add(r, all.seq, items->items[i]);
        }
    }
    return all;
}

/* ------------------------------------------------------------------------------------------------ map, select */
static args args_without(const args *a, size_t n)
{
    return (args){a->items + n, a->n - n, a->keywords, a->values, a->n_keywords};
}

static const char *name_of(render *r, value v, const char *what)
{
    if (v.kind != V_TEXT) {
        render_fail(r, "the name of a %s is a %s", what, value_type_name(v));
        return NULL;
    }
    return text_cstr(r, v.text);
}

static value filter_map(render *r, value v, const args *a)
{
    const bool by_attribute = a->n == 0 && a->n_keywords > 0;
    const seq *items = value_truth(v) ? value_items(r, v) : NULL;
    const value all = seq_new(r, SEQ_ITERATOR, 0);
    const filter *f = NULL;
    value slots[MAX_SLOTS];
    args rest = {0};

    if (!items) {
        return all;
    }
    if (by_attribute) {
        (void)args_bind(r, "map", "*attribute default", a, slots);
    } else if (a->n == 0) {
        render_fail(r, "map requires a filter argument");
    } else {
        const char *name = name_of(r, a->items[0], "filter");

        f = name ? filter_find(name) : NULL;
        rest = args_without(a, 1);
        if (name && !f) {
            render_fail(r, "no filter named '%.60s'", name);
        }
    }
    for (size_t i = 0; i < items->n && RENDER_OK(r); i++) {
        const value item =
            f ? filter_run(r, f, items->items[i], &rest) : path_or(r, items->items[i], slots[0], slots[1]);

        if (RENDER_OK(r)) {
            seq_add(r, all.seq, item);
        }
    }
    return all;
}

static value select_items(render *r, value v, const args *a, bool by_attribute, bool wanted)
{
    const seq *items = value_truth(v) ? value_items(r, v) : NULL;
    const value all = seq_new(r, SEQ_ITERATOR, 0);
    const size_t at = by_attribute;
    const test *t = NULL;
    args rest = {0};

    if (!items) {
        return all;
    }
    if (by_attribute && a->n == 0) {
        return render_fail(r, "missing parameter for attribute name");
    }
    if (a->n > at) {
        const char *name = name_of(r, a->items[at], "test");

        t = name ? test_find(name) : NULL;
        rest = args_without(a, at + 1);
        if (name && !t) {
            render_fail(r, "no test named '%.60s'", name);
        }
    }
    for (size_t i = 0; i < items->n && RENDER_OK(r); i++) {
        const value item = by_attribute ? path_of(r, items->items[i], a->items[0]) : items->items[i];
        const bool passed = RENDER_OK(r) && (t ? test_run(r, t, item, &rest) : value_truth(item));

        if (RENDER_OK(r) && passed == wanted) {
            seq_add(r, all.seq, items->items[i]);
        }
    }
    return all;
}

static value filter_select(render *r, value v, const args *a)
{
    return select_items(r, v, a, false, true);
}

static value filter_reject(render *r, value v, const args *a)
{
    return select_items(r, v, a, false, false);
}

static value filter_selectattr(render *r, value v, const args *a)
{
    return select_items(r, v, a, true, true);
}

static value filter_rejectattr(render *r, value v, const args *a)
{
    return select_items(r, v, a, true, false);
}

const filter sequence_filters[] = {{"attr", "*name", filter_attr, NULL},
                                   {"batch", "*linecount fill_with", filter_batch, NULL},
                                   {"count", "", filter_length, NULL},
                                   {"d", "default_value boolean", filter_default, NULL},
                                   {"default", "default_value boolean", filter_default, NULL},
                                   {"dictsort", "case_sensitive by reverse", filter_dictsort, NULL},
                                   {"first", "", filter_first, NULL},
                                   {"items", "", filter_items, NULL},
                                   {"join", "d attribute", filter_join, NULL},
                                   {"last", "", filter_last, NULL},
                                   {"length", "", filter_length, NULL},
                                   {"list", "", filter_list, NULL},
                                   {"map", NULL, NULL, filter_map},
                                   {"max", "case_sensitive attribute", filter_max, NULL},
                                   {"min", "case_sensitive attribute", filter_min, NULL},
                                   {"reject", NULL, NULL, filter_reject},
                                   {"rejectattr", NULL, NULL, filter_rejectattr},
                                   {"reverse", "", filter_reverse, NULL},
                                   {"select", NULL, NULL, filter_select},
                                   {"selectattr", NULL, NULL, filter_selectattr},
                                   {"sort", "reverse case_sensitive attribute", filter_sort, NULL},
                                   {"sum", "attribute start", filter_sum, NULL},
                                   {"unique", "case_sensitive attribute", filter_unique, NULL}};
const size_t n_sequence_filters = MOE_COUNT(sequence_filters);
