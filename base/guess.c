#include "base/base.h"

#include <string.h>

#define WORD_BYTES 64 /* longer words have no near one */

/* Letters that are put in, left out, changed, or swapped with their neighbour, to make b of a (restricted
 * Damerau-Levenshtein). Three rows of the table are enough: a swap looks two rows back. */
static size_t distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t rows[3][WORD_BYTES + 1];

    for (size_t j = 0; j <= n_b; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            row[j] = above[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = MOE_MIN(row[j], MOE_MIN(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = MOE_MIN(row[j], two_above[j - 2] + 1);
            }
        }
    }
    return rows[n_a % 3][n_b];
}

moe_guess moe_guess_of(const char *word, size_t n)
{
    /* A third of the letters may be wrong, of short words one. */
    return (moe_guess){.word = word, .n = n, .distance = (n < 6 ? 1 : n / 3) + 1};
}

void moe_guess_offer(moe_guess *g, const char *candidate)
{
    size_t n = strlen(candidate), d;

    if (g->n == 0 || g->n > WORD_BYTES || n > WORD_BYTES) {
        return;
    }
    d = distance(g->word, g->n, candidate, n);
    if (g->n >= 3 && n > g->n && memcmp(g->word, candidate, g->n) == 0) {
        d = MOE_MIN(d, (size_t)1); /* its beginning */
    }
    if (d < g->distance) {
        g->distance = d;
        g->best = candidate;
    }
}
