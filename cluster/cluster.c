/* Cluster: one member's life: open, its thread, leave, close, and what any thread may ask or tell. */
#include "cluster/cluster_priv.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ------------------------------------------------------------------------------------------------ thread */
static void *run(void *arg)
{
    cluster *c = arg;

    while (!atomic_load(&c->stop)) {
        uint64_t due = cluster_step(c), now = cluster_now(c);

        if (due > now && !atomic_load(&c->stop)) {
            c->store->ops->poll(c->store, due - now);
        }
    }
    return NULL;
}

moe_status cluster_start(cluster *c, moe_error *err)
{
    MOE_ASSERT(!c->has_thread);
    int e = pthread_create(&c->thread, NULL, run, c);

    if (e != 0) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "cluster: thread: %s", strerror(e));
    }
    c->has_thread = true;
    return MOE_OK;
}

static void wake(cluster *c)
{
    c->store->ops->wake(c->store);
}

static void end_thread(cluster *c)
{
    if (c->has_thread) {
        atomic_store(&c->stop, true);
        wake(c);
        pthread_join(c->thread, NULL);
        c->has_thread = false;
    }
}

void cluster_leave(cluster *c)
{
    pthread_mutex_lock(&c->lock);
    c->leaving = true;
    pthread_mutex_unlock(&c->lock);
    wake(c);
}

void cluster_refresh(cluster *c)
{
    if (!atomic_exchange(&c->is_outdated, true)) {
        wake(c);
    }
}

bool cluster_has_left(cluster *c)
{
    pthread_mutex_lock(&c->lock);
    bool left = c->has_left;
    pthread_mutex_unlock(&c->lock);
    return left;
}

void cluster_stop(cluster *c, uint64_t timeout_ns)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    uint64_t end = moe_now_ns(moe_clock_real()) + timeout_ns;

    cluster_leave(c);
    while (c->has_thread && !cluster_has_left(c) && moe_now_ns(moe_clock_real()) < end) {
        (void)nanosleep(&pause, NULL);
    }
    end_thread(c);
}

/* ------------------------------------------------------------------------------------------------ life */
static moe_status check_text(const char *name, const char *text, size_t min, size_t max, moe_error *err)
{
    size_t n = text != NULL ? strlen(text) : 0;

    if (n < min || n > max) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "cluster: %s: %zu characters, limits %zu and %zu", name, n, min, max);
    }
    return MOE_OK;
}

/* 0 of either part: none is given. */
static moe_status check_policy(const cluster_policy *p, moe_error *err)
{
    return cluster_check_policy(MOE_MAX(p->replication, 1u), MOE_MAX(p->min_nodes, 1u), err);
}

static moe_status check_model(const cluster_model *m, moe_error *err)
{
    uint32_t n_layers = router_space_n_layers(m->space), n_experts = router_space_base_experts(m->space);
    if (n_layers > CLUSTER_MAX_LAYERS || n_experts > CLUSTER_MAX_EXPERTS || m->expert_bytes == 0 ||
        m->expert_bytes > (uint64_t)1 << 53) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "cluster: %u layers of %u experts of %llu bytes, limits %d layers, %d experts", n_layers,
                        n_experts, (unsigned long long)m->expert_bytes, CLUSTER_MAX_LAYERS, CLUSTER_MAX_EXPERTS);
    }
    return MOE_OK;
}

static moe_status check_options(const cluster_options *o, moe_error *err)
{
    const struct {
        const char *name, *text;
        size_t min, max;
    } texts[] = {
        {"address", o->address, 1, CLUSTER_MAX_ADDRESS},
        {"device", o->device, 0, CLUSTER_MAX_LABEL},
        {"zone", o->zone, 0, CLUSTER_MAX_LABEL},
        {"version", o->version, 0, CLUSTER_MAX_LABEL},
        {"family", o->model.family, 1, CLUSTER_MAX_LABEL},
        {"numeric class", o->model.numeric_class, 1, CLUSTER_MAX_LABEL},
    };
    moe_status status = MOE_OK;

    if (!cluster_name_is_valid(o->cluster) || !cluster_name_is_valid(o->id)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "cluster: name \"%s\", id \"%s\": must be 1..%d of A-Z a-z 0-9 . - _",
                        o->cluster != NULL ? o->cluster : "", o->id != NULL ? o->id : "", ROUTER_MAX_NODE_ID);
    }
    for (size_t i = 0; i < MOE_COUNT(texts) && status == MOE_OK; i++) {
        status = check_text(texts[i].name, texts[i].text, texts[i].min, texts[i].max, err);
    }
    if (status == MOE_OK && (o->incarnation == 0 || o->store == NULL || o->memory_bytes > (uint64_t)1 << 53)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "cluster: incarnation and store must be given, memory at most 8P");
    }
    if (status == MOE_OK) {
        status = check_policy(&o->policy, err);
    }
    return status == MOE_OK ? check_model(&o->model, err) : status;
}

static const char *copy_text(const char *text, bool *ok)
{
    char *copy = strdup(text != NULL ? text : "");

    *ok = *ok && copy != NULL;
    return copy;
}

static bool copy_options(cluster *c, const cluster_options *o)
{
    bool ok = true;

    c->o = *o;
    c->o.cluster = copy_text(o->cluster, &ok);
    c->o.id = copy_text(o->id, &ok);
    c->o.address = copy_text(o->address, &ok);
    c->o.device = copy_text(o->device, &ok);
    c->o.zone = copy_text(o->zone, &ok);
    c->o.version = copy_text(o->version, &ok);
    c->o.model.family = copy_text(o->model.family, &ok);
    c->o.model.numeric_class = copy_text(o->model.numeric_class, &ok);
    c->o.secret = NULL;
    (void)router_space_ref(c->o.model.space);
    c->o.model.own = NULL; /* the first catalogue has it */
    c->o.clock = o->clock != NULL ? o->clock : moe_clock_real();
    c->o.keep_unused_ms = o->keep_unused_ms != 0 ? o->keep_unused_ms : CLUSTER_KEEP_MS;
    return ok;
}

static void free_text(const char *text)
{
    free((void *)(uintptr_t)text);
}

static void told_fini(cluster_told_bits *t)
{
    router_space_unref(t->space);
    free(t->bits);
}

static bool told_init(cluster_told_bits *t, router_space *space)
{
    t->bits = calloc(router_space_words(space), sizeof *t->bits);
    t->space = t->bits != NULL ? router_space_ref(space) : NULL;
    return t->bits != NULL;
}

static void cluster_free(cluster *c)
{
    const char *const texts[] = {c->o.cluster, c->o.id,      c->o.address,      c->o.device,
                                 c->o.zone,    c->o.version, c->o.model.family, c->o.model.numeric_class};

    for (size_t i = 0; i < MOE_COUNT(texts); i++) {
        free_text(texts[i]);
    }
    catalogue_unref(c->first_catalogue);
    catalogue_unref(c->asked.catalogue);
    cluster_seal_fini(&c->seal);
    cluster_change_fini(&c->change);
    router_placement_unref(c->ctl.target);
    router_placement_unref(c->ctl.home);
    cluster_mirror_fini(&c->mirror);
    if (c->state != NULL) {
        cluster_state_release(&c->state->s);
    }
    told_fini(&c->told.ready);
    told_fini(&c->told.settled);
    told_fini(&c->told.used);
    router_space_unref(c->o.model.space);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static bool keep_all(void *ctx, const cluster_node *n)
{
    (void)ctx;
    (void)n;
    return true;
}

/* What the checkpoint routes to, and no packs. */
static bool open_catalogue(cluster *c, router_set *own)
{
    catalogue_model m = {.space = c->o.model.space, .min_experts = c->o.model.k, .own = own};

    memcpy(m.fingerprint, c->o.model.fingerprint, sizeof m.fingerprint);
    return catalogue_open(&m, &c->first_catalogue, NULL) == MOE_OK;
}

moe_status cluster_open(const cluster_options *options, cluster **out, moe_error *err)
{
    moe_status status = check_options(options, err);
    cluster *c = status == MOE_OK ? calloc(1, sizeof *c) : NULL;

    if (c == NULL) {
        return status != MOE_OK ? status : moe_fail(err, MOE_ERR_NO_MEMORY, "cluster");
    }
    MOE_ASSERT(pthread_mutex_init(&c->lock, NULL) == 0);
    bool ok = copy_options(c, options);
    ok = told_init(&c->told.ready, c->o.model.space) && ok;
    ok = told_init(&c->told.settled, c->o.model.space) && ok;
    ok = told_init(&c->told.used, c->o.model.space) && ok;
    ok = open_catalogue(c, options->model.own) && ok;
    const cluster_state_input in = {.mirror = &c->mirror,
                                    .model = &c->o.model,
                                    .first = c->first_catalogue,
                                    .keep = keep_all,
                                    .ignored = &c->stats.ignored};
    c->state = ok ? cluster_state_build(&in) : NULL;
    status = cluster_seal_init(&c->seal, options->cluster, options->secret, options->n_secret);
    if (status != MOE_OK) {
        cluster_free(c);
        return moe_fail(err, status, "cluster: secret of %zu bytes", options->n_secret);
    }
    if (!ok || c->state == NULL) {
        cluster_free(c);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "cluster: state of %zu words",
                        router_space_words(options->model.space));
    }
    c->store = options->store;
    moe_random_seed(&c->random, options->seed != 0 ? options->seed : moe_random_entropy());
    (void)snprintf(c->prefix, sizeof c->prefix, "/conclave/%s/", c->o.cluster);
    (void)snprintf(c->own_key, sizeof c->own_key, "%s/%s", c->o.role == CLUSTER_NODE ? "nodes" : "coordinators",
                   c->o.id);
    (void)snprintf(c->ready_key, sizeof c->ready_key, "ready/%s", c->o.id);
    c->lease = (cluster_lease){.cluster = c, .ttl_s = CLUSTER_LEASE_S};
    c->office = (cluster_lease){.cluster = c, .ttl_s = CLUSTER_OFFICE_S};
    c->told.version = 1;
    c->status = MOE_ERR_UNAVAILABLE;
    (void)snprintf(c->why.text, sizeof c->why.text, "the store has not answered yet");
    *out = c;
    return MOE_OK;
}

void cluster_close(cluster *c)
{
    if (c == NULL) {
        return;
    }
    end_thread(c);
    cluster_free(c);
}

/* ------------------------------------------------------------------------------------------------ any thread */
moe_status cluster_status(cluster *c, moe_error *err)
{
    pthread_mutex_lock(&c->lock);
    moe_status status = c->status;
    if (err != NULL && status != MOE_OK) {
        *err = c->why;
    }
    pthread_mutex_unlock(&c->lock);
    return status;
}

bool cluster_is_displaced(cluster *c, moe_error *why)
{
    pthread_mutex_lock(&c->lock);
    bool displaced = c->displaced;
    if (displaced) {
        *why = c->why;
    }
    pthread_mutex_unlock(&c->lock);
    return displaced;
}

void cluster_get_stats(cluster *c, cluster_stats *out)
{
    pthread_mutex_lock(&c->lock);
    *out = c->stats;
    pthread_mutex_unlock(&c->lock);
}

const cluster_state *cluster_state_acquire(cluster *c)
{
    pthread_mutex_lock(&c->lock);
    cluster_state_box *box = c->state;
    atomic_fetch_add_explicit(&box->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&c->lock);
    return &box->s;
}

/* Under the lock. True: it is another than before. Without memory for a larger space it stays what it was. */
static bool tell_bits(cluster *c, cluster_told_bits *t, router_space *space, const uint64_t *bitmap)
{
    space = space != NULL ? space : c->o.model.space;
    size_t words = router_space_words(space);

    if (space != t->space) {
        uint64_t *bits = calloc(words, sizeof *bits);

        if (bits == NULL) {
            return false;
        }
        memcpy(bits, t->bits, MOE_MIN(words, router_space_words(t->space)) * sizeof *bits);
        told_fini(t);
        *t = (cluster_told_bits){router_space_ref(space), bits};
    }
    bool is_new = memcmp(t->bits, bitmap, words * sizeof *bitmap) != 0;
    memcpy(t->bits, bitmap, words * sizeof *bitmap);
    return is_new;
}

void cluster_set_ready(cluster *c, router_space *space, const uint64_t *bitmap, uint64_t epoch)
{
    pthread_mutex_lock(&c->lock);
    bool is_new = c->told.ready_epoch != epoch;
    is_new = tell_bits(c, &c->told.ready, space, bitmap) || is_new;
    c->told.ready_epoch = epoch;
    c->told.version += is_new;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        wake(c);
    }
}

void cluster_set_applied(cluster *c, uint64_t epoch)
{
    pthread_mutex_lock(&c->lock);
    bool is_new = c->told.applied != epoch;
    c->told.applied = epoch;
    c->told.version += is_new;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        wake(c);
    }
}

void cluster_set_settled(cluster *c, router_space *space, uint64_t epoch, const uint64_t *bitmap)
{
    pthread_mutex_lock(&c->lock);
    bool is_new = c->told.settled_epoch != epoch;
    is_new = tell_bits(c, &c->told.settled, space, bitmap) || is_new;
    c->told.settled_epoch = epoch;
    c->told.version += is_new;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        wake(c);
    }
}

void cluster_set_used(cluster *c, router_space *space, const uint64_t *bitmap)
{
    pthread_mutex_lock(&c->lock);
    bool is_new = tell_bits(c, &c->told.used, space, bitmap);
    c->told.version += is_new;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        wake(c);
    }
}

void cluster_set_prepared(cluster *c, uint64_t number, const char *why)
{
    uint64_t prepared = why == NULL ? number : 0, failed = why != NULL ? number : 0;

    pthread_mutex_lock(&c->lock);
    bool is_new = c->told.prepared != prepared || c->told.failed != failed;
    c->told.prepared = prepared;
    c->told.failed = failed;
    moe_copy_line(c->told.failed_why, sizeof c->told.failed_why, why);
    c->told.version += is_new;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        wake(c);
    }
}

moe_status cluster_change_catalogue(cluster *c, catalogue *next, uint64_t revision, moe_error *err)
{
    moe_status status = MOE_OK;

    MOE_ASSERT(c->o.role == CLUSTER_COORDINATOR);
    pthread_mutex_lock(&c->lock);
    if (!c->state->s.connected || !c->state->s.registered) {
        status = moe_fail(err, MOE_ERR_UNAVAILABLE,
                          "the catalogue cannot be changed now: the cluster's store does not answer");
    } else if (c->asked.catalogue != NULL) {
        status = moe_fail(err, MOE_ERR_BUSY, "another change of the catalogue is being written");
    } else if (c->state->s.catalogue_revision != revision) {
        status = moe_fail(err, MOE_ERR_EXISTS, "the catalogue has changed meanwhile");
    } else {
        c->asked.catalogue = catalogue_ref(next);
        c->asked.catalogue_revision = revision;
        c->asked.catalogue_until_ns = cluster_now(c) + CLUSTER_ASKED_FOR;
    }
    pthread_mutex_unlock(&c->lock);
    if (status == MOE_OK) {
        wake(c);
    }
    return status;
}

void cluster_set_packs(cluster *c, const cluster_pack *packs, size_t n)
{
    n = MOE_MIN(n, (size_t)CLUSTER_MAX_PACKS);
    pthread_mutex_lock(&c->lock);
    bool is_new = c->told.n_packs != n || (n > 0 && memcmp(c->told.packs, packs, n * sizeof *packs) != 0);
    if (is_new && n > 0) {
        memcpy(c->told.packs, packs, n * sizeof *packs);
    }
    c->told.n_packs = n;
    c->told.version += is_new;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        wake(c);
    }
}

void cluster_set_draining(cluster *c, bool draining)
{
    pthread_mutex_lock(&c->lock);
    bool is_new = c->told.draining != draining;
    c->told.draining = draining;
    c->told.version += is_new;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        wake(c);
    }
}

moe_status cluster_set_policy(cluster *c, const cluster_policy *policy, moe_error *err)
{
    moe_status status = check_policy(policy, err);

    MOE_ASSERT(c->o.role == CLUSTER_COORDINATOR);
    if (status != MOE_OK) {
        return status;
    }
    pthread_mutex_lock(&c->lock);
    bool can = c->state->s.connected && c->state->s.registered;
    if (can) {
        c->asked.policy = *policy;
        c->asked.until_ns = cluster_now(c) + CLUSTER_ASKED_FOR;
    }
    pthread_mutex_unlock(&c->lock);
    if (!can) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE,
                        "the policy cannot be changed now: the cluster's store does not answer");
    }
    wake(c);
    return MOE_OK;
}

void cluster_store_close(cluster_store *store)
{
    if (store != NULL) {
        store->ops->close(store);
    }
}
