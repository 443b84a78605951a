/* The functions that a template finds without being given them. */
#include "template/template_priv.h"

static value range(render *r, int64_t start, int64_t stop, int64_t step)
{
    const uint64_t distance = step > 0 ? (stop > start ? (uint64_t)stop - (uint64_t)start : 0)
                                       : (start > stop ? (uint64_t)start - (uint64_t)stop : 0);
    const uint64_t stride = step > 0 ? (uint64_t)step : -(uint64_t)step;
    const uint64_t n = stride == 0 ? 0 : distance / stride + (distance % stride != 0);
    value v;

    if (step == 0) {
        return render_fail(r, "range() arg 3 must not be zero");
    }
    if (n > MAX_RANGE) {
        return render_fail(r, "range of %llu items; the limit is %d", (unsigned long long)n, MAX_RANGE);
    }
    v = seq_new(r, SEQ_RANGE, n);
    if (!RENDER_OK(r)) {
        return v;
    }
    v.seq->start = start;
    v.seq->stop = stop;
    v.seq->step = step;
    for (uint64_t i = 0; i < n && RENDER_OK(r); i++) {
        seq_add(r, v.seq, value_int((int64_t)((uint64_t)start + i * (uint64_t)step)));
    }
    return v;
}

static value call_range(render *r, const args *a)
{
    int64_t given[3] = {0, 0, 1};

    if (a->n < 1 || a->n > 3 || a->n_keywords > 0) {
        return render_fail(r, "range takes 1 to 3 arguments");
    }
    for (size_t i = 0; i < a->n; i++) {
        given[i] = slot_int(r, a->items[i], 0, "an argument of range");
    }
    if (a->n == 1) {
        given[1] = given[0];
        given[0] = 0;
    }
    return RENDER_OK(r) ? range(r, given[0], given[1], given[2]) : value_none();
}

/* dict(pairs or mapping, **more) */
static void fill_dict(render *r, dict *d, const args *a)
{
    const seq *pairs = NULL;

    if (a->n > 1) {
        render_fail(r, "at most 1 argument, %zu given", a->n);
    }
    if (a->n == 1 && a->items[0].kind == V_DICT) {
        const dict *from = a->items[0].dict;

        for (size_t i = 0; i < from->n && RENDER_OK(r); i++) {
            dict_put(r, d, from->pairs[i].key, from->pairs[i].value);
        }
    } else if (a->n == 1) {
        pairs = value_items(r, a->items[0]);
    }
    for (size_t i = 0; pairs && i < pairs->n && RENDER_OK(r); i++) {
        const seq *p = value_items(r, pairs->items[i]);

        if (p && p->n == 2) {
            dict_put(r, d, p->items[0], p->items[1]);
        } else {
            render_fail(r, "an item that is no pair of key and value");
        }
    }
    for (size_t i = 0; i < a->n_keywords && RENDER_OK(r); i++) {
        dict_put(r, d, text_value(r, a->keywords[i], strlen(a->keywords[i]), 0), a->values[i]);
    }
}

static value call_dict(render *r, const args *a)
{
    const value v = dict_new(r);

    if (RENDER_OK(r)) {
        fill_dict(r, v.dict, a);
    }
    return v;
}

static value call_namespace(render *r, const args *a)
{
    value v = call_dict(r, a);

    v.kind = v.kind == V_DICT ? V_NAMESPACE : v.kind;
    return v;
}

static value call_raise_exception(render *r, const args *a)
{
    value slots[MAX_SLOTS];

    if (!args_bind(r, "raise_exception", "*message", a, slots)) {
        return value_none();
    }
    slots[0] = value_to_text(r, slots[0]);
    return RENDER_OK(r) ? render_raise(r, slots[0].text) : value_none();
}

static value call_strftime_now(render *r, const args *a)
{
    value slots[MAX_SLOTS];
    const text *format;

    if (!args_bind(r, "strftime_now", "*format", a, slots)) {
        return value_none();
    }
    format = slot_text(r, slots[0], NULL, "the format of strftime_now");
    if (RENDER_OK(r) && !r->now) {
        return render_fail(r, "strftime_now: no time is given");
    }
    return RENDER_OK(r) ? time_format(r, r->now, format) : value_none();
}

const global *global_find(const char *name)
{
    static const global globals[] = {{"range", call_range},
                                     {"dict", call_dict},
                                     {"namespace", call_namespace},
                                     {"raise_exception", call_raise_exception},
                                     {"strftime_now", call_strftime_now}};

    for (size_t i = 0; i < MOE_COUNT(globals); i++) {
        if (strcmp(globals[i].name, name) == 0) {
            return &globals[i];
        }
    }
    return NULL;
}
