/* Filters by name, and how they are called. */
#include "template/template_priv.h"

static const filter *find_in(const filter *filters, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(filters[i].name, name) == 0) {
            return &filters[i];
        }
    }
    return NULL;
}

const filter *filter_find(const char *name)
{
    const filter *f = find_in(text_filters, n_text_filters, name);

    f = f ? f : find_in(sequence_filters, n_sequence_filters, name);
    return f ? f : find_in(number_filters, n_number_filters, name);
}

value filter_run(render *r, const filter *f, value subject, const args *a)
{
    value slots[MAX_SLOTS], v = {.kind = V_NONE};

    if (!RENDER_OK(r)) {
        return v;
    }
    if (++r->depth > MAX_RENDER_DEPTH) {
        render_fail(r, "nested too deep; the limit is %d", MAX_RENDER_DEPTH);
    } else if (f->args) {
        v = f->args(r, subject, a);
    } else if (args_bind(r, f->name, f->parameters, a, slots)) {
        v = f->slots(r, subject, slots);
    }
    r->depth--;
    return v;
}
