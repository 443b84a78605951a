/* Classes of characters: a table of two levels from a code point to the number of its class. */
#include "tokenizer/regex_priv.h"

#include <stdlib.h>
#include <string.h>

enum { N_PAGES = (CHAR_LAST + 1) / 256 };

void char_classes_fini(char_classes *c)
{
    free(c->pages);
    free(c->of);
}

/* Edges of all ranges, ascending: between two of them all characters are alike. */
typedef struct edge {
    int32_t at;
    uint8_t set;
} edge;

static int by_place(const void *a, const void *b)
{
    const edge *left = a, *right = b;

    return left->at < right->at ? -1 : left->at > right->at;
}

static edge *edges_of(const syntax *s, size_t *n_out)
{
    size_t n = 0;
    edge *edges;

    for (size_t i = 0; i < s->n_sets; i++) {
        n += s->sets[i].n * 2;
    }
    edges = malloc((n + 1) * sizeof *edges);
    *n_out = 0;
    for (size_t i = 0; edges && i < s->n_sets; i++) {
        for (size_t j = 0; j < s->sets[i].n; j++) {
            edges[(*n_out)++] = (edge){s->sets[i].ranges[j].first, (uint8_t)i};
            edges[(*n_out)++] = (edge){s->sets[i].ranges[j].last + 1, (uint8_t)i};
        }
    }
    if (edges) {
        qsort(edges, n, sizeof *edges, by_place);
    }
    return edges;
}

/* The class of characters that are in these sets; CLASSES_MAX: too many. */
static size_t class_of(char_classes *c, uint64_t sets)
{
    size_t i = 0;

    while (i < c->n && c->sets[i] != sets) {
        i++;
    }
    if (i == c->n && i < CLASSES_MAX) {
        c->sets[c->n++] = sets;
    }
    return i;
}

static bool fill(char_classes *c, const edge *edges, size_t n, uint8_t *of)
{
    uint64_t sets = 0;
    int32_t from = 0;

    for (size_t i = 0; from <= CHAR_LAST; i++) {
        const int32_t to = i < n ? edges[i].at : CHAR_LAST + 1;

        if (to > from) {
            const size_t class = class_of(c, sets);

            if (class == CLASSES_MAX) {
                return false;
            }
            memset(of + from, (int)class, (size_t)(to - from));
            from = to;
        }
        if (i < n) {
            sets ^= (uint64_t)1 << edges[i].set;
        }
    }
    return true;
}

/* Equal pages are kept once; most are all of one class, so looking back over what is kept is short. */
static bool fold_pages(char_classes *c, const uint8_t *of)
{
    size_t n = 0;

    c->pages = malloc(N_PAGES * sizeof *c->pages);
    c->of = malloc((size_t)N_PAGES * 256);
    for (size_t page = 0; c->pages && c->of && page < N_PAGES; page++) {
        size_t same = n;

        while (same > 0 && memcmp(c->of + (same - 1) * 256, of + page * 256, 256) != 0) {
            same--;
        }
        if (same == 0) {
            memcpy(c->of + n * 256, of + page * 256, 256);
            same = ++n;
        }
        c->pages[page] = (uint16_t)(same - 1);
    }
    if (c->pages && c->of) {
        uint8_t *fitted = realloc(c->of, n * 256);

        c->of = fitted ? fitted : c->of;
        memcpy(c->ascii, of, sizeof c->ascii);
    }
    return c->pages && c->of;
}

moe_status char_classes_build(const syntax *s, char_classes *out, moe_error *err)
{
    size_t n;
    edge *edges = edges_of(s, &n);
    uint8_t *of = malloc(CHAR_LAST + 1);
    moe_status status = edges && of ? MOE_OK : MOE_ERR_NO_MEMORY;

    *out = (char_classes){.n = 0};
    if (status == MOE_OK && !fill(out, edges, n, of)) {
        status = MOE_ERR_UNSUPPORTED;
    }
    if (status == MOE_OK && !fold_pages(out, of)) {
        status = MOE_ERR_NO_MEMORY;
    }
    free(edges);
    free(of);
    return status == MOE_ERR_UNSUPPORTED ? moe_fail(err, status, "more than %d classes of characters", CLASSES_MAX)
           : status != MOE_OK            ? moe_fail(err, status, "out of memory")
                                         : MOE_OK;
}
