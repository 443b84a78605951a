/* x.name, x[key], x[a:b:c]. */
#include "template/template_priv.h"

static value method_of(render *r, value object, const char *name)
{
    const bool is_view = object.kind == V_SEQ && object.seq->kind > SEQ_RANGE;
    const method *m = is_view ? NULL : method_find(object.kind, name);
    bound *b = m ? render_take(r, sizeof *b) : NULL;

    if (!b) {
        return (value){.kind = V_ABSENT};
    }
    *b = (bound){m, object};
    return (value){.kind = V_METHOD, .bound = b};
}

static value neighbour(render *r, const loop *l, bool next)
{
    const bool there = next ? l->at + 1 < l->items->n : l->at > 0;

    return there ? l->items->items[next ? l->at + 1 : l->at - 1]
                 : value_undefined(r, next ? "there is no next item" : "there is no previous item", NULL);
}

static value loop_attribute(render *r, value object, const char *name)
{
    const loop *l = object.loop;
    const int64_t at = (int64_t)l->at, n = (int64_t)l->items->n;
    const struct {
        const char *name;
        value v;
    } plain[] = {{"index", value_int(at + 1)},    {"index0", value_int(at)},
                 {"revindex", value_int(n - at)}, {"revindex0", value_int(n - at - 1)},
                 {"first", value_bool(at == 0)},  {"last", value_bool(at + 1 == n)},
                 {"length", value_int(n)},        {"depth", value_int(1)}, /* only recursive loops go deeper */
                 {"depth0", value_int(0)}};

    for (size_t i = 0; i < MOE_COUNT(plain); i++) {
        if (strcmp(name, plain[i].name) == 0) {
            return plain[i].v;
        }
    }
    if (strcmp(name, "previtem") == 0 || strcmp(name, "nextitem") == 0) {
        return neighbour(r, l, name[0] == 'n');
    }
    return (value){.kind = V_ABSENT};
}

/* What getattr gives; ABSENT: nothing. */
static value python_attribute(render *r, value object, const char *name)
{
    const size_t n = strlen(name);
    value v = {.kind = V_ABSENT};

    if (object.kind == V_UNDEFINED) {
        return value_fail_undefined(r, object);
    }
    if (object.kind == V_NAMESPACE) {
        const value *found = dict_find_text(object.dict, name, n);

        v = found ? *found : v;
    } else if (object.kind == V_LOOP) {
        v = loop_attribute(r, object, name);
    }
    if (v.kind == V_ABSENT && RENDER_OK(r)) {
        v = method_of(r, object, name);
    }
    if (v.kind == V_ABSENT &&
        ((n > 4 && strncmp(name, "__", 2) == 0 && strcmp(name + n - 2, "__") == 0) ||
         method_mutates(object.kind, object.kind == V_SEQ && object.seq->kind == SEQ_LIST, name))) {
        return value_unsafe(r, name, value_type_name(object));
    }
    if (v.kind == V_ABSENT && attribute_is_unsupported(object.kind, name) &&
        !(object.kind == V_DICT && dict_find_text(object.dict, name, n))) {
        return render_fail(r, "the attribute '%.60s' of a %s is not known", name, value_type_name(object));
    }
    return v;
}

value attribute_of(render *r, value object, const char *name)
{
    const value v = RENDER_OK(r) ? python_attribute(r, object, name) : value_none();
    const value *item;

    if (v.kind != V_ABSENT) {
        return v;
    }
    item = object.kind == V_DICT && render_step(r, object.dict->n) ? dict_find_text(object.dict, name, strlen(name))
                                                                   : NULL;
    return item ? *item : value_undefined(r, name, value_type_name(object));
}

static value item_at(render *r, value object, int64_t at)
{
    const bool is_text = object.kind == V_TEXT;
    const int64_t n = is_text ? (int64_t)text_length(object.text) : (int64_t)object.seq->n;

    if (at < -n || at >= n || (is_text && !render_step(r, object.text->n))) {
        return value_undefined(r, "an index beyond the end", value_type_name(object));
    }
    at += at < 0 ? n : 0;
    if (is_text) {
        const size_t begin = text_offset(object.text, (size_t)at);
        int32_t c;

        return text_slice(r, object.text, begin, begin + text_character(object.text, begin, &c));
    }
    return object.seq->items[at];
}

static bool has_items(value v)
{
    return v.kind == V_TEXT || (v.kind == V_SEQ && v.seq->kind <= SEQ_RANGE);
}

/* As a dictionary key; what cannot be one is in none. */
static const value *entry_of(render *r, value object, value key)
{
    const bool is_list = key.kind == V_SEQ && key.seq->kind == SEQ_LIST;

    return object.kind == V_DICT && key.kind != V_DICT && !is_list ? dict_find(r, object.dict, key) : NULL;
}

value item_of(render *r, value object, value key)
{
    const value *entry;
    int64_t at = 0;
    const char *name = NULL;

    if (!RENDER_OK(r)) {
        return value_none();
    }
    if (object.kind == V_UNDEFINED) {
        return value_fail_undefined(r, object);
    }
    if (has_items(object) && value_as_int(key, &at)) {
        return item_at(r, object, at);
    }
    entry = entry_of(r, object, key);
    if (entry) {
        return *entry;
    }
    if (key.kind == V_TEXT && (name = text_cstr(r, key.text)) != NULL) {
        const value v = python_attribute(r, object, name);

        if (v.kind != V_ABSENT) {
            return v;
        }
    }
    return value_undefined(r, name, value_type_name(object));
}

/* ------------------------------------------------------------------------------------------------ slices */
/* One bound as Python clips it; ABSENT or None: the end that step comes from or goes to. */
static bool slice_bound(render *r, value v, int64_t n, bool backwards, int64_t fallback, int64_t *out)
{
    if (v.kind == V_NONE || v.kind == V_ABSENT) {
        *out = fallback;
        return true;
    }
    if (!value_as_int(v, out)) {
        render_fail(r, "slice indices must be integers or None, not %s", value_type_name(v));
        return false;
    }
    if (*out < 0) {
        *out = *out < -n ? (backwards ? -1 : 0) : *out + n;
    } else if (*out >= n) {
        *out = backwards ? n - 1 : n;
    }
    return true;
}

static value backwards(render *r, const text *t, size_t begin, size_t end)
{
    builder b = {0};
    int32_t c;

    for (size_t length; end > begin && RENDER_OK(r); end -= length) {
        length = text_before(t, end, &c);
        builder_add_slice(r, &b, t, end - length, end);
    }
    return builder_value(r, &b);
}

static value slice_text(render *r, const text *t, int64_t start, int64_t stop, int64_t step)
{
    builder b = {0};

    if (step == 1) {
        const size_t begin = text_offset(t, (size_t)start);

        return stop > start ? text_slice(r, t, begin, text_offset(t, (size_t)stop)) : value_text(&text_empty);
    }
    if (step == -1) {
        return start > stop ? backwards(r, t, text_offset(t, (size_t)(stop + 1)), text_offset(t, (size_t)(start + 1)))
                            : value_text(&text_empty);
    }
    for (int64_t at = start; (step > 0 ? at < stop : at > stop) && RENDER_OK(r); at += step) {
        const size_t begin = text_offset(t, (size_t)at);
        int32_t c;

        if (!t->ascii && !render_step(r, begin)) { /* found anew each time */
            break;
        }
        builder_add_slice(r, &b, t, begin, begin + text_character(t, begin, &c));
    }
    return builder_value(r, &b);
}

static value slice_seq(render *r, const seq *s, int64_t start, int64_t stop, int64_t step)
{
    const value part = seq_new(r, s->kind, 0);

    for (int64_t at = start; (step > 0 ? at < stop : at > stop) && RENDER_OK(r); at += step) {
        seq_add(r, part.seq, s->items[at]);
    }
    if (RENDER_OK(r) && s->kind == SEQ_RANGE) {
        part.seq->start = s->start + start * s->step;
        part.seq->stop = s->start + stop * s->step;
        part.seq->step = step * s->step;
    }
    return RENDER_OK(r) ? part : value_none();
}

value slice_of(render *r, value object, value start, value stop, value step)
{
    int64_t from, to, by = 1, n;

    if (!RENDER_OK(r)) {
        return value_none();
    }
    if (object.kind == V_UNDEFINED) {
        return value_fail_undefined(r, object);
    }
    if (!has_items(object)) {
        return render_fail(r, "'%s' object is not subscriptable by a slice", value_type_name(object));
    }
    if (step.kind != V_NONE && step.kind != V_ABSENT && (!value_as_int(step, &by) || by == 0 || by == INT64_MIN)) {
        return render_fail(r, by == 0 ? "slice step cannot be zero" : "slice indices must be integers or None");
    }
    (void)value_length(r, object, &n);
    if (!slice_bound(r, start, n, by < 0, by < 0 ? n - 1 : 0, &from) ||
        !slice_bound(r, stop, n, by < 0, by < 0 ? -1 : n, &to)) {
        return value_none();
    }
    by = by > n ? n + 1 : by < -n ? -n - 1 : by; /* no overflow below; the same items */
    return object.kind == V_TEXT ? slice_text(r, object.text, from, to, by) : slice_seq(r, object.seq, from, to, by);
}

/* ------------------------------------------------------------------------------------------------ paths */
static bool all_digits(const text *t)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->data[i] < '0' || t->data[i] > '9') {
            return false;
        }
    }
    return t->n > 0 && t->n < 18;
}

value path_of(render *r, value object, value path)
{
    return path_or(r, object, path, value_none());
}

static value or_fallback(value v, value fallback)
{
    return v.kind == V_UNDEFINED && fallback.kind != V_NONE && fallback.kind != V_ABSENT ? fallback : v;
}

value path_or(render *r, value object, value path, value fallback)
{
    static const text dot = {.data = ".", .n = 1};
    size_t at = 0, end;

    if (path.kind != V_TEXT) {
        return path.kind == V_ABSENT || path.kind == V_NONE ? object : or_fallback(item_of(r, object, path), fallback);
    }
    do {
        value part;

        end = text_search(path.text, &dot, at);
        end = end == TEXT_NOT_FOUND ? path.text->n : end;
        part = text_slice(r, path.text, at, end);
        if (part.kind == V_TEXT && all_digits(part.text)) {
            int64_t number = 0;

            for (size_t i = 0; i < part.text->n; i++) {
                number = number * 10 + (part.text->data[i] - '0');
            }
            part = value_int(number);
        }
        object = or_fallback(item_of(r, object, part), fallback);
        at = end + 1;
    } while (end < path.text->n && RENDER_OK(r));
    return object;
}
