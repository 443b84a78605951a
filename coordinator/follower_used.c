/* The cluster is told which experts the requests of this coordinator have that the default set need not keep: a stream may be pinned
 * to a set without a name. Told before a change that takes them away is committed, as the change is not prepared before. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/follower_priv.h"

/* Chosen, not measured. LOOK: between two looks; a request that was let in is seen well before its experts may go (ADMISSION_MS of
 * the ledger). KEEP: what was told stays told, so that short requests one after the other are not one write each. */
#define LOOK_MS 1000u
#define KEEP_MS 5000u

/* What the default set has and is to keep. bits [2][words]: the first ones. */
static void mark_kept(const cluster_state *s, uint64_t *bits)
{
    const catalogue_pending *p = catalogue_get_pending(s->catalogue);
    size_t n_words = router_space_words(s->space);

    router_set_mark(catalogue_default(s->catalogue), s->space, bits);
    router_set_mark(p != NULL && catalogue_pending_is_default(p) ? p->target : catalogue_default(s->catalogue),
                    s->space, bits + n_words);
    for (size_t w = 0; w < n_words; w++) {
        bits[w] &= bits[n_words + w];
    }
}

/* Of nodes' experts, those of live requests that are not kept for the default. */
static void mark_used(follower *f, const cluster_state *s, const uint64_t *kept, uint64_t *used)
{
    router_set *running[ENGINE_MAX_SETS];
    size_t n = engine_live_sets(f->o.engine, running);

    for (size_t i = 0; i < n; i++) {
        router_set_mark(running[i], s->space, used);
        router_set_unref(running[i]);
    }
    for (uint32_t slot = 0; slot < router_space_n_slots(s->space); slot++) {
        if (router_bit(kept, slot) || router_space_expert(s->space, slot)->is_local) {
            router_bit_clear(used, slot);
        }
    }
}

/* As long as the space; false: no memory. */
static bool grow(follower_using *u, size_t n_words)
{
    uint64_t *grown = n_words > u->n_words ? realloc(u->told, n_words * sizeof *grown) : u->told;

    if (grown == NULL) {
        return false;
    }
    memset(grown + u->n_words, 0, (n_words - u->n_words) * sizeof *grown);
    u->told = grown;
    u->n_words = n_words;
    return true;
}

void follower_tell_used(follower *f, const cluster_state *s, uint64_t now_ms)
{
    follower_using *u = &f->using;
    size_t n_words = router_space_words(s->space);
    uint64_t *bits = calloc(3 * n_words, sizeof *bits); /* used; kept, and half of that */

    follower_try_again(f, LOOK_MS);
    if (bits == NULL || !grow(u, n_words)) {
        free(bits); /* next time */
        return;
    }
    mark_kept(s, bits + n_words);
    mark_used(f, s, bits + n_words, bits);
    bool is_due = now_ms >= u->until_ms;
    for (size_t w = 0; w < n_words; w++) {
        u->told[w] = bits[w] | (is_due ? 0 : u->told[w]);
    }
    u->until_ms = is_due ? now_ms + KEEP_MS : u->until_ms;
    cluster_set_used(pool_cluster(f->o.pool), s->space, u->told);
    free(bits);
}
