/* What Replace and Split look for: a text as it is, or an expression. */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>

void text_pattern_fini(text_pattern *p)
{
    free(p->literal);
    regex_free(p->regex);
}

void pattern_walk_start(pattern_walk *w, const text_pattern *p, text_view text)
{
    w->text = text;
    w->next = 0;
    if (!p->literal) {
        regex_scan_start(&w->scan, p->regex, text.data, text.size);
    }
}

moe_status pattern_walk_next(pattern_walk *w, const text_pattern *p, size_t *begin_out, size_t *end_out)
{
    const char *hit;

    if (!p->literal) {
        return regex_scan_next(&w->scan, begin_out, end_out);
    }
    hit = text_find(w->text.data + w->next, w->text.size - w->next, p->literal, p->n);
    if (!hit) {
        return MOE_ERR_NOT_FOUND;
    }
    *begin_out = (size_t)(hit - w->text.data);
    w->next = *end_out = *begin_out + p->n;
    return MOE_OK;
}

void pattern_walk_fini(pattern_walk *w)
{
    regex_scan_fini(&w->scan);
}
