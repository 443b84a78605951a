/* The sets that live requests have. */
#include "engine/engine_priv.h"

#include <string.h>

static size_t find(const engine *e, const router_set *set)
{
    size_t i = 0;

    while (i < e->n_sets && e->sets[i].set != set && strcmp(router_set_id(e->sets[i].set), router_set_id(set)) != 0) {
        i++;
    }
    return i;
}

moe_status engine_sets_take(engine *e, router_set *set, moe_error *err)
{
    size_t i = find(e, set);

    if (i == MOE_COUNT(e->sets)) {
        return moe_fail(err, MOE_ERR_BUSY, "requests of %zu expert sets are running, and this one has another",
                        MOE_COUNT(e->sets));
    }
    if (i == e->n_sets) {
        e->sets[e->n_sets++].set = router_set_ref(set);
    }
    e->sets[i].n++;
    return MOE_OK;
}

void engine_sets_leave(engine *e, const router_set *set)
{
    size_t i = find(e, set);

    MOE_ASSERT(i < e->n_sets && e->sets[i].n > 0);
    if (--e->sets[i].n == 0) {
        router_set_unref(e->sets[i].set);
        e->sets[i] = e->sets[--e->n_sets];
        e->sets[e->n_sets].set = NULL;
        e->sets[e->n_sets].n = 0;
    }
}

size_t engine_live_sets(engine *e, router_set *out[ENGINE_MAX_SETS])
{
    pthread_mutex_lock(&e->lock);
    size_t n = e->n_sets;

    for (size_t i = 0; i < n; i++) {
        out[i] = router_set_ref(e->sets[i].set);
    }
    pthread_mutex_unlock(&e->lock);
    return n;
}
