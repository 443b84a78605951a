/* Changes of the embedded node: made here, on the caller's thread, and taken by the engine's between two steps. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/embedded_priv.h"

/* An expert that comes or goes. */
typedef struct moved_expert {
    router_expert who;
    compute_expert *expert; /* owned; NULL: the node has it */
} moved_expert;

typedef struct change {
    embedded *e;
    engine *engine;
    const embedded_changes *c;
    uint64_t *hold;             /* owned [words of the space]: what is held afterwards */
    moved_expert *comes, *goes; /* owned */
    size_t n_comes, n_goes;
    expert_node_growth *node;    /* owned; NULL: the node's space stays */
    engine_growth *growth;       /* owned; NULL: the engine's does */
    router_placement *placement; /* shared */
    embedded_shown *shown;       /* shared */
    moe_error *err;
} change;

static bool is_held(const embedded *e, uint32_t slot)
{
    size_t n;

    (void)router_placement_owners(e->placement, slot, &n);
    return n > 0;
}

bool embedded_holds(const embedded *e, uint32_t layer, int32_t expert_id)
{
    uint32_t slot = router_space_slot(router_placement_space(e->placement), layer, expert_id);

    return slot != ROUTER_NO_SLOT && is_held(e, slot);
}

/* ------------------------------------------------------------------------------------------------ what comes and goes */
/* What is wanted, what the current set and live requests need; no local experts. */
static void choose_held(const change *x)
{
    const router_space *space = x->c->space;
    router_set *live[ENGINE_MAX_SETS], *current = engine_current_set(x->engine);
    size_t n = engine_live_sets(x->engine, live);

    for (uint32_t slot = 0; slot < router_space_n_slots(space); slot++) {
        if (x->c->wanted == NULL || router_bit(x->c->wanted, slot)) {
            router_bit_set(x->hold, slot);
        }
    }
    router_set_mark(x->c->set != NULL ? x->c->set : current, space, x->hold);
    for (size_t i = 0; i < n; i++) {
        router_set_mark(live[i], space, x->hold);
        router_set_unref(live[i]);
    }
    router_set_unref(current);
    for (uint32_t slot = 0; slot < router_space_n_slots(space); slot++) {
        if (router_space_expert(space, slot)->is_local) {
            router_bit_clear(x->hold, slot);
        }
    }
}

static moe_status list_moves(change *x)
{
    const router_space *space = x->c->space;
    uint32_t n = router_space_n_slots(space);

    x->hold = calloc(router_space_words(space), sizeof *x->hold);
    x->comes = calloc(n, sizeof *x->comes);
    x->goes = calloc(n, sizeof *x->goes);
    if (x->hold == NULL || x->comes == NULL || x->goes == NULL) {
        return moe_fail(x->err, MOE_ERR_NO_MEMORY, "%u experts: out of memory", n);
    }
    choose_held(x);
    for (uint32_t slot = 0; slot < n; slot++) {
        bool has = is_held(x->e, slot), will = router_bit(x->hold, slot);

        if (will && !has) {
            x->comes[x->n_comes++].who = *router_space_expert(space, slot);
        } else if (has && !will) {
            x->goes[x->n_goes++].who = *router_space_expert(space, slot);
        }
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ making */
static moe_status make_expert(const change *x, moved_expert *m)
{
    expert_checkpoint from = x->e->checkpoint;
    const expert_source source = expert_source_checkpoint(&from);

    from.device = x->e->o.maker;
    from.find = x->c->find;
    from.find_ctx = x->c->find_ctx;
    return source.open(source.ctx, m->who.layer, m->who.id, &m->expert, x->err);
}

/* The kernel promises memory that it has not; whoever runs out of it is killed. */
static moe_status check_memory(const change *x)
{
    size_t needed = x->e->o.layout == COMPUTE_MAPPED ? 0 : x->n_comes * x->e->expert_bytes;
    size_t available = needed == 0 ? 0 : moe_memory_available();
    char more[MOE_SIZE_TEXT], free_now[MOE_SIZE_TEXT];

    return needed <= available ? MOE_OK
                               : moe_fail(x->err, MOE_ERR_BUSY, "%zu experts take %s, and %s are free", x->n_comes,
                                          moe_size_text(needed, more), moe_size_text(available, free_now));
}

static moe_status make_experts(change *x)
{
    size_t each = x->e->expert_bytes;
    moe_status status = check_memory(x);

    for (size_t i = 0; i < x->n_comes && status == MOE_OK; i++) {
        bool goes_on = x->c->goes_on == NULL || x->c->goes_on(x->c->goes_on_ctx);

        status = goes_on ? make_expert(x, &x->comes[i])
                         : moe_fail(x->err, MOE_ERR_CANCELLED, "loading experts was given up");
        if (status == MOE_OK && x->c->progress != NULL) {
            x->c->progress(x->c->progress_ctx, (i + 1) * each, x->n_comes * each);
        }
    }
    return status;
}

static moe_status make_growth(change *x)
{
    const embedded_options *o = &x->e->o;
    router_space *now = engine_current_space(x->engine);
    uint32_t n_now = router_space_n_slots(now), n = router_space_n_slots(x->c->space);
    bool is_later = router_space_continues(x->c->space, now);
    model_gates *gates = NULL;
    moe_status status = MOE_OK;

    router_space_unref(now);
    if (!is_later) {
        return moe_fail(x->err, MOE_ERR_INVALID_ARG, "the expert space is no later version of the one in use");
    }
    if (n > router_space_n_slots(expert_node_space(x->e->node))) {
        status = expert_node_growth_open(x->e->node, x->c->space, &x->node, x->err);
    }
    if (status != MOE_OK || n == n_now) {
        return status;
    }
    status = model_gates_open(o->model, o->tensors, o->maker, x->c->space, x->c->packs, x->c->n_packs, &gates, x->err);
    if (status == MOE_OK) {
        status = engine_growth_open(x->engine, gates, &x->growth, x->err);
        model_gates_unref(gates);
    }
    return status;
}

static moe_status make_placement(change *x)
{
    static const char *const node = EMBEDDED_NODE_ID;
    const router_space *space = x->c->space;
    router_replica *replicas = calloc(router_space_n_slots(space), sizeof *replicas);
    size_t n = 0;

    for (uint32_t slot = 0; replicas != NULL && slot < router_space_n_slots(space); slot++) {
        const router_expert *who = router_space_expert(space, slot);

        if (router_bit(x->hold, slot)) {
            replicas[n++] = (router_replica){.layer = who->layer, .expert_id = who->id};
        }
    }
    moe_status status = replicas == NULL
                            ? moe_fail(x->err, MOE_ERR_NO_MEMORY, "placement: out of memory")
                            : router_placement_open(router_placement_epoch(x->e->placement) + 1, x->c->space, &node, 1,
                                                    replicas, n, &x->placement, x->err);
    free(replicas);
    if (status == MOE_OK && embedded_shown_open(x->placement, &x->shown) != MOE_OK) {
        status = moe_fail(x->err, MOE_ERR_NO_MEMORY, "placement: out of memory");
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ taking */
/* Gives the first n that have come back to the change. */
static void take_back(change *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        moved_expert *m = &x->comes[i];
        m->expert = expert_node_take(x->e->node, m->who.layer, m->who.id);
    }
}

static moe_status adopt(change *x, moe_error *err)
{
    for (size_t i = 0; i < x->n_comes; i++) {
        moved_expert *m = &x->comes[i];
        compute_expert *expert = m->expert;
        moe_status status = expert_node_load_begin(x->e->node, m->who.layer, m->who.id, err);

        if (status == MOE_OK) {
            m->expert = NULL; /* the node's, also when it fails */
            status = expert_node_load_finish(x->e->node, m->who.layer, m->who.id, expert, err);
        }
        if (status != MOE_OK) {
            take_back(x, i);
            return status;
        }
    }
    return MOE_OK;
}

/* On the engine's thread. */
static moe_status take(void *ctx, moe_error *err)
{
    change *x = ctx;

    if (x->node != NULL) {
        expert_node_grow(x->e->node, x->node);
    }
    moe_status status = adopt(x, err);
    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < x->n_goes; i++) {
        x->goes[i].expert = expert_node_take(x->e->node, x->goes[i].who.layer, x->goes[i].who.id);
    }
    exchange_set_placement(x->e->exchange, x->placement);
    return MOE_OK;
}

/* It is taken: the change has what was there before. */
static void keep(change *x)
{
    embedded *e = x->e;
    router_placement *placement = e->placement;
    embedded_shown *shown = e->shown;

    e->placement = x->placement;
    pthread_mutex_lock(&e->lock);
    e->shown = x->shown;
    pthread_mutex_unlock(&e->lock);
    x->placement = placement;
    x->shown = shown;
}

static void change_fini(change *x)
{
    compute_device *d = x->e->o.maker;

    for (size_t i = 0; i < x->n_comes; i++) {
        d->ops->expert_close(d, x->comes[i].expert);
    }
    for (size_t i = 0; i < x->n_goes; i++) {
        d->ops->expert_close(d, x->goes[i].expert);
    }
    engine_growth_close(x->growth);
    expert_node_growth_close(x->node);
    router_placement_unref(x->placement);
    embedded_shown_unref(x->shown);
    free(x->hold);
    free(x->comes);
    free(x->goes);
}

/* Where all experts of the set are here, it need not wait for the step that runs: what goes leaves after it. */
static moe_status give(change *x)
{
    const engine_changes set = {.set = x->c->set};
    const bool is_here = x->c->set != NULL && x->n_comes == 0 && x->growth == NULL;
    engine_changes taken = {.growth = x->growth, .set = is_here ? NULL : x->c->set, .take = take, .ctx = x};
    moe_status status = is_here ? engine_change(x->engine, &set, x->err) : MOE_OK;

    return status == MOE_OK ? engine_change(x->engine, &taken, x->err) : status;
}

moe_status embedded_change(embedded *e, engine *of, const embedded_changes *changes, moe_error *err)
{
    change x = {.e = e, .engine = of, .c = changes, .err = err};

    MOE_ASSERT(e->o.maker != NULL && e->o.model != NULL);
    moe_status status = make_growth(&x);
    if (status == MOE_OK) {
        status = list_moves(&x);
    }
    if (status == MOE_OK) {
        status = make_experts(&x);
    }
    if (status == MOE_OK) {
        status = make_placement(&x);
    }
    if (status == MOE_OK) {
        status = give(&x);
    }
    if (status == MOE_OK) {
        keep(&x);
        MOE_INFO("experts: %zu came, %zu went; placement %llu", x.n_comes, x.n_goes,
                 (unsigned long long)router_placement_epoch(e->placement));
    }
    change_fini(&x);
    return status;
}
