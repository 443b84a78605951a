#include "tests/support/fake_cluster.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "tests/support/fake_engine.h"

struct fake_cluster {
    api_view view;
    atomic_int state;
    _Atomic uint32_t replication, min_nodes;
};

typedef struct fake_snapshot {
    api_view_snapshot base;
    api_view_node node;
    api_view_coordinator coordinator;
    api_view_replica replicas[FAKE_LAYERS * FAKE_EXPERTS];
} fake_snapshot;

static const api_view_snapshot *acquire(void *ctx, bool want_replicas)
{
    fake_cluster *c = ctx;
    fake_snapshot *s = calloc(1, sizeof(*s));

    MOE_ASSERT(s != NULL);
    s->node = (api_view_node){.id = "node \"one\"",
                              .address = "in-process",
                              .state = (api_view_node_state)atomic_load(&c->state),
                              .transport = "loopback",
                              .rows = 11};
    s->coordinator = (api_view_coordinator){.id = "c0", .epoch = 3, .controller = true};
    for (uint32_t i = 0; i < FAKE_LAYERS * FAKE_EXPERTS; i++) {
        s->replicas[i] =
            (api_view_replica){.layer = i / FAKE_EXPERTS, .expert_id = (int32_t)(i % FAKE_EXPERTS), .ready = true};
    }
    s->base = (api_view_snapshot){.cluster = "fake",
                                  .epoch = 3,
                                  .n_nodes = 1,
                                  .n_coordinators = 1,
                                  .nodes = &s->node,
                                  .coordinators = &s->coordinator,
                                  .replication = c->replication,
                                  .min_nodes = c->min_nodes,
                                  .n_replicas = want_replicas ? FAKE_LAYERS * FAKE_EXPERTS : 0,
                                  .replicas = s->replicas};
    return &s->base;
}

static void release(void *ctx, const api_view_snapshot *snapshot)
{
    (void)ctx;
    free((void *)(uintptr_t)snapshot);
}

static moe_status set_policy(void *ctx, uint32_t replication, uint32_t min_nodes, moe_error *err)
{
    fake_cluster *c = ctx;

    if (replication > 64 || min_nodes > 64) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: limit 64", replication > 64 ? "replication" : "min_nodes");
    }
    c->replication = replication != 0 ? replication : c->replication;
    c->min_nodes = min_nodes != 0 ? min_nodes : c->min_nodes;
    return MOE_OK;
}

fake_cluster *fake_cluster_open(void)
{
    fake_cluster *c = calloc(1, sizeof(*c));

    MOE_ASSERT(c != NULL);
    c->view = (api_view){.acquire = acquire, .release = release, .set_policy = set_policy, .ctx = c};
    c->replication = c->min_nodes = 1;
    atomic_init(&c->state, API_VIEW_NODE_UP);
    return c;
}

void fake_cluster_close(fake_cluster *c)
{
    free(c);
}

const api_view *fake_cluster_view(fake_cluster *c)
{
    return &c->view;
}

void fake_cluster_set_state(fake_cluster *c, api_view_node_state state)
{
    atomic_store(&c->state, (int)state);
}
