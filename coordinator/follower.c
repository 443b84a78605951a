/* A coordinator follows the catalogue of its cluster. */
#include "coordinator/follower.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/follower_priv.h"

/* Chosen, not measured. READ: of one pack's router, for the set in force. BYTES: of the same; it only keeps a wrong manifest from
 * filling a disk. AGAIN: a node that did not answer may come back, or another offer the pack. TRIES: then the cluster is told that
 * it cannot be done: others need not wait for the deadline. FORMER: of a pack that only requests may name; when it could not be
 * read, the next try is so much later. */
#define READ_MS   600000u
#define MAX_BYTES ((uint64_t)16 << 30)
#define AGAIN_MS  500u
#define MAX_TRIES 4
#define FORMER_MS 10000u

/* ------------------------------------------------------------------------------------------------ reading packs */
typedef struct reading {
    follower *f;
    const uint64_t *pending;
} reading;

static bool may_go_on(void *ctx, size_t bytes)
{
    const reading *r = ctx;
    bool goes = !ledger_is_closing(&r->f->ledger);

    (void)bytes;
    if (goes && r->pending != NULL) {
        const cluster_state *s = cluster_state_acquire(pool_cluster(r->f->o.pool));
        const catalogue_pending *p = catalogue_get_pending(s->catalogue);

        goes = (p != NULL ? p->number : 0) == *r->pending;
        cluster_state_release(s);
    }
    return goes;
}

moe_status follower_read_pack(follower *f, const cluster_state *s, const char *hash, const uint64_t *pending,
                              uint64_t most_ms, const pack **out, moe_error *err)
{
    const pack_options options = {.key_file = packs_key_file(f->o.packs), .router_only = true};
    reading r = {f, pending};
    pack_fetch fetch = {.base = packs_base(f->o.packs),
                        .options = &options,
                        .dir = f->dir,
                        .deadline_ns = moe_now_ns(moe_clock_real()) + most_ms * 1000000u,
                        .max_bytes = MAX_BYTES,
                        .more = may_go_on,
                        .more_ctx = &r};
    pack *fresh;

    *out = packs_find(f->o.packs, hash);
    if (*out != NULL) {
        return MOE_OK;
    }
    if (f->dir[0] == '\0') {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "there is no directory for packs of nodes (--cache-dir)");
    }
    moe_status status = pool_fetch_pack(f->o.pool, &fetch, s, hash, &fresh, err);
    if (status != MOE_OK) {
        return status;
    }
    MOE_INFO("pack %s %s: its part of the router is here: %s", pack_name(fresh), pack_version(fresh), hash);
    return packs_take(f->o.packs, fresh, out, err);
}

/* ------------------------------------------------------------------------------------------------ gates */
static bool has_expert_of(const catalogue *c, const catalogue_pack *p, const uint64_t *bitmap)
{
    for (size_t l = 0; l < p->n_layers; l++) {
        const catalogue_pack_layer *layer = &p->layers[l];

        for (uint32_t i = 0; i < layer->n_experts; i++) {
            uint32_t slot = router_space_slot(catalogue_space(c), layer->layer, layer->first_id + (int32_t)i);
            if (slot != ROUTER_NO_SLOT && router_bit(bitmap, slot)) {
                return true;
            }
        }
    }
    return false;
}

/* The gates get the rows of all packs that are open, and zeros for others, which no set of ours has. */
static moe_status grow(follower *f, const catalogue *c, moe_error *err)
{
    const follower_options *o = &f->o;
    model_gates *gates = NULL;
    engine_growth *growth = NULL;
    size_t n;
    moe_status status = packs_number(o->packs, c, err);

    if (status == MOE_OK) {
        const model_gate_pack *all = packs_gates(o->packs, &n);
        status = model_gates_open(o->model, o->tensors, o->maker, catalogue_space(c), all, n, &gates, err);
    }
    if (status == MOE_OK) {
        status = engine_growth_open(o->engine, gates, &growth, err);
        model_gates_unref(gates);
    }
    if (status == MOE_OK) {
        const engine_changes changes = {.growth = growth};
        status = engine_change(o->engine, &changes, err);
    }
    engine_growth_close(growth);
    for (size_t i = 0; i < catalogue_n_packs(c) && status == MOE_OK; i++) {
        atomic_store(&f->has_rows[i], packs_find(o->packs, catalogue_pack_at(c, i)->hash) != NULL);
    }
    return status;
}

/* The gates have the rows of every pack that has experts in the bitmap. */
static moe_status make_ready(follower *f, const cluster_state *s, const uint64_t *bitmap, const uint64_t *pending,
                             uint64_t most_ms, moe_error *err)
{
    const catalogue *c = s->catalogue;
    bool grows = false;

    for (size_t i = 0; i < catalogue_n_packs(c); i++) {
        const catalogue_pack *p = catalogue_pack_at(c, i);
        const pack *here;
        moe_error why = {""};

        if (atomic_load(&f->has_rows[i]) || !has_expert_of(c, p, bitmap)) {
            continue;
        }
        moe_status status = follower_read_pack(f, s, p->hash, pending, most_ms, &here, &why);
        if (status != MOE_OK) {
            return moe_fail(err, status, "pack %s %s: %.160s", p->name, p->version, why.text);
        }
        grows = true;
    }
    return grows ? grow(f, c, err) : MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ following */
static void set_why(follower *f, const moe_error *why)
{
    pthread_mutex_lock(&f->ledger.lock);
    f->why = *why;
    pthread_mutex_unlock(&f->ledger.lock);
}

uint64_t follower_now_ms(const follower *f)
{
    return f->o.wall_ms != NULL ? f->o.wall_ms(f->o.wall_ctx) : moe_wall_ms();
}

void follower_try_again(follower *f, uint64_t in_ms)
{
    uint64_t at = follower_now_ms(f) + in_ms;

    f->again_ms = f->again_ms == 0 ? at : MOE_MIN(f->again_ms, at);
}

static moe_status take_default(follower *f, const catalogue *c, moe_error *err)
{
    router_set *now = engine_current_set(f->o.engine);
    const engine_changes changes = {.set = catalogue_default(c)};
    bool is_same = strcmp(router_set_id(now), router_set_id(changes.set)) == 0;

    router_set_unref(now);
    moe_status status = is_same ? MOE_OK : engine_change(f->o.engine, &changes, err);
    if (status == MOE_OK && !is_same) {
        MOE_INFO("expert set %.12s is the default from now on", router_set_id(changes.set));
    }
    return status;
}

/* What is in force: its default set, those with names, and one on trial. */
static moe_status follow_default(follower *f, const cluster_state *s, uint64_t *bitmap, moe_error *err)
{
    const catalogue *c = s->catalogue;
    router_set *live[CATALOGUE_MAX_SETS];
    size_t n = catalogue_live_sets(c, live);

    memset(bitmap, 0, router_space_words(s->space) * sizeof *bitmap);
    for (size_t i = 0; i < n; i++) {
        router_set_mark(live[i], s->space, bitmap);
    }
    moe_status status = make_ready(f, s, bitmap, NULL, READ_MS, err);
    if (status == MOE_OK) {
        status = take_default(f, c, err);
    }
    if (status == MOE_OK) {
        ledger_publish(&f->ledger, catalogue_ref(s->catalogue));
        atomic_store(&f->caught_up, true);
    }
    return status;
}

/* A change that is under way, once. */
static void follow_pending(follower *f, const cluster_state *s, uint64_t *bitmap)
{
    cluster *of = pool_cluster(f->o.pool);
    const catalogue_pending *p = catalogue_get_pending(s->catalogue);
    moe_error err = {""};

    if (p == NULL || p->number == f->told) {
        return;
    }
    memset(bitmap, 0, router_space_words(s->space) * sizeof *bitmap);
    router_set_mark(p->target, s->space, bitmap);
    moe_status status =
        make_ready(f, s, bitmap, &p->number, p->deadline_ms - MOE_MIN(p->begun_ms, p->deadline_ms), &err);
    if (status == MOE_OK) {
        MOE_INFO("change %llu (%s): prepared", (unsigned long long)p->number, p->what);
        cluster_set_prepared(of, p->number, NULL);
        f->told = p->number;
        return;
    }
    f->n_failed = f->failing == p->number ? f->n_failed + 1 : 1;
    f->failing = p->number;
    MOE_WARN("change %llu (%s): not prepared: %s", (unsigned long long)p->number, p->what, err.text);
    if (status == MOE_ERR_UNAVAILABLE && f->n_failed < MAX_TRIES) {
        follower_try_again(f, AGAIN_MS);
    } else if (status != MOE_ERR_CANCELLED) {
        cluster_set_prepared(of, p->number, err.text);
        f->told = p->number;
    }
}

/* Packs of former defaults, which requests may still name, as they may where they were served: for one that joined since. Whoever
 * cannot have them refuses such requests. */
static void follow_former(follower *f, const cluster_state *s, uint64_t *bitmap)
{
    static const uint64_t none = 0;
    uint64_t now = follower_now_ms(f);
    moe_error err = {""};

    if (catalogue_get_pending(s->catalogue) != NULL || now < f->former_ms) {
        return;
    }
    catalogue_wanted(s->catalogue, now, f->o.keep_unused_ms, bitmap);
    if (make_ready(f, s, bitmap, &none, FORMER_MS, &err) != MOE_OK) {
        MOE_DEBUG("requests cannot name what is no longer the default: %s", err.text);
        f->former_ms = now + FORMER_MS;
        follower_try_again(f, FORMER_MS);
    }
}

/* Packs that nodes bring, each once. */
static void list_offers(follower *f, const cluster_state *s)
{
    api_offer *all = calloc(API_MAX_OFFERS, sizeof *all);
    size_t n = 0;

    for (size_t i = 0; i < s->n_nodes && all != NULL; i++) {
        for (size_t j = 0; j < s->nodes[i].n_packs; j++) {
            const cluster_pack *from = &s->nodes[i].packs[j];
            size_t at = 0;

            while (at < n && strcmp(all[at].pack.hash, from->hash) != 0) {
                at++;
            }
            if (at == API_MAX_OFFERS) {
                continue;
            }
            if (at == n) {
                memcpy(all[n].pack.name, from->name, sizeof from->name);
                memcpy(all[n].pack.version, from->version, sizeof from->version);
                memcpy(all[n++].pack.hash, from->hash, sizeof from->hash);
            }
            size_t used = strlen(all[at].source);
            (void)snprintf(all[at].source + used, sizeof all[at].source - used, "%s%s", used > 0 ? ", " : "node ",
                           s->nodes[i].id);
        }
    }
    if (all != NULL) {
        ledger_set_offers(&f->ledger, all, n);
    }
    free(all);
}

static void follow(follower *f, const cluster_state *s)
{
    uint64_t *bitmap = calloc(router_space_words(s->space), sizeof *bitmap);
    moe_error err = {"out of memory"};
    moe_status status = bitmap != NULL ? follow_default(f, s, bitmap, &err) : MOE_ERR_NO_MEMORY;

    if (status == MOE_OK) {
        follow_pending(f, s, bitmap);
        follow_former(f, s, bitmap);
    } else if (status != MOE_ERR_CANCELLED) {
        MOE_WARN("the cluster's default set is not served: %s", err.text);
        set_why(f, &err);
        follower_try_again(f, AGAIN_MS);
    }
    free(bitmap);
}

static void look(follower *f)
{
    const cluster_state *s = cluster_state_acquire(pool_cluster(f->o.pool));

    f->again_ms = 0;
    if (s->registered || atomic_load(&f->caught_up)) { /* before that nothing is known of the store */
        list_offers(f, s);
        follower_tell_used(f, s, follower_now_ms(f));
        follow(f, s);
        follower_go_on(f, s);
        follower_accept(f, s, follower_now_ms(f));
    }
    cluster_state_release(s);
}

static void wait_for_more(follower *f, uint64_t until_ms)
{
    job *j = ledger_wait(&f->ledger, until_ms, f->asked.j == NULL && atomic_load(&f->caught_up));

    if (j != NULL) {
        f->asked = (follower_asked){.j = j};
    }
}

void follower_turn(follower *f)
{
    look(f);
    wait_for_more(f, 1); /* that time is over */
}

static void *run(void *ctx)
{
    follower *f = ctx;

    compute_thread_init(); /* gates are made here */
    while (!ledger_is_closing(&f->ledger)) {
        look(f);
        wait_for_more(f, f->again_ms);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ the table */
/* A set of a request: its experts are placed, and the gates have their rows. */
static moe_status check_set(void *ctx, const catalogue *c, const router_set *set, moe_error *err)
{
    follower *f = ctx;
    moe_status status = ledger_check_wanted(c, set, f->o.keep_unused_ms, err);

    for (size_t i = 0; i < catalogue_n_packs(c) && status == MOE_OK; i++) {
        const catalogue_pack *p = catalogue_pack_at(c, i);

        if (!atomic_load(&f->has_rows[i]) && catalogue_uses(set, p)) {
            status = moe_fail(err, MOE_ERR_NOT_FOUND, "set: pack %s %s is not here", p->name, p->version);
        }
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ life */
static void on_changed(void *ctx)
{
    follower *f = ctx;

    ledger_wake(&f->ledger);
}

moe_status follower_open(const follower_options *options, follower **out, moe_error *err)
{
    follower *f = calloc(1, sizeof *f);

    if (f == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "the cluster's catalogue: out of memory");
    }
    f->o = *options;
    f->o.dir = f->dir;
    (void)snprintf(f->dir, sizeof f->dir, "%s", options->dir);
    f->why = (moe_error){"the cluster's catalogue is not known yet"};
    moe_status status = ledger_open(&f->ledger, options->engine, options->first, NULL, check_set, f, err);
    if (status != MOE_OK) {
        free(f);
        return status;
    }
    pool_on_changed(options->pool, on_changed, f);
    *out = f;
    return MOE_OK;
}

moe_status follower_start(follower *f, moe_error *err)
{
    f->has_thread = pthread_create(&f->thread, NULL, run, f) == 0;
    return f->has_thread ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "the cluster's catalogue: no thread");
}

bool follower_caught_up(follower *f, moe_error *err)
{
    pthread_mutex_lock(&f->ledger.lock);
    *err = f->why;
    pthread_mutex_unlock(&f->ledger.lock);
    return atomic_load(&f->caught_up);
}

void follower_close(follower *f)
{
    if (f == NULL) {
        return;
    }
    ledger_close(&f->ledger);
    if (f->has_thread) {
        pthread_join(f->thread, NULL);
    }
    if (f->asked.j != NULL) {
        const moe_error why = {"the server is shutting down"};
        ledger_end(&f->ledger, f->asked.j, MOE_ERR_UNAVAILABLE, &why);
    }
    for (job *j; (j = ledger_wait(&f->ledger, 1, true)) != NULL;) {
        const moe_error why = {"the server is shutting down"};
        ledger_end(&f->ledger, j, MOE_ERR_UNAVAILABLE, &why);
    }
    follower_accept_close(f);
    free(f->using.told);
    ledger_fini(&f->ledger);
    free(f);
}

const api_catalogue *follower_table(follower *f)
{
    return &f->ledger.table;
}
