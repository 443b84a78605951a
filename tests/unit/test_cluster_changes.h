/* What the tests of changes in a cluster share: a pack, a node that loads, a coordinator that asks. */
#ifndef CONCLAVE_TESTS_CLUSTER_CHANGES_H
#define CONCLAVE_TESTS_CLUSTER_CHANGES_H

#include "tests/unit/test_cluster_support.h"

#include "catalogue/catalogue.h"

enum { WORDS = 4, GERMAN = 4 };

static moe_error err; /* why the last change that was asked for was refused */

static const catalogue_pack_layer german_layers[] = {{.layer = 0, .n_experts = 3}, {.layer = 2, .n_experts = 1}};

static inline catalogue_pack german(void)
{
    catalogue_pack p = {.name = "german", .version = "1", .n_layers = 2, .layers = german_layers, .n_experts = GERMAN};

    memset(p.hash, 'a', 64);
    return p;
}

static inline void load(member *m, const char *id)
{
    uint64_t bitmap[WORDS];
    const cluster_state *s = m->c != NULL ? cluster_state_acquire(m->c) : NULL;

    if (s != NULL) {
        assert_true(router_space_words(s->space) <= WORDS);
        (void)cluster_state_wanted(s, id, bitmap);
        cluster_set_ready(m->c, s->space, bitmap, s->epoch);
        tell(m, bitmap, router_space_words(s->space));
    }
    cluster_state_release(s);
}

static inline uint64_t pending_of(member *m)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    const catalogue_pending *p = catalogue_get_pending(s->catalogue);
    uint64_t number = p != NULL ? p->number : 0;

    cluster_state_release(s);
    return number;
}

static inline moe_status ask_by(member *m, const catalogue_change *change)
{
    const cluster_state *s = cluster_state_acquire(m->c);
    catalogue *next = NULL;
    moe_status status = catalogue_begin(s->catalogue, change, &next, &err);

    if (status == MOE_OK) {
        status = cluster_change_catalogue(m->c, next, s->catalogue_revision, &err);
    }
    catalogue_unref(next);
    cluster_state_release(s);
    return status;
}

#endif
