/* Where a node's experts come from. */
#include "expert_node/program/supply.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Chosen, not measured. WANTED: packs that wait to be read; those beyond are asked for again. READ: of one pack: more than a change
 * has, so that the next try finds it on the disk. TRIES, AGAIN: nodes that do not give it now may soon, half a second apart. GIVEN_UP: then,
 * or when it can never be had, that is said for so long before it is tried anew. */
#define MAX_WANTED  8
#define READ_NS     UINT64_C(600000000000)
#define MAX_TRIES   3
#define AGAIN_NS    UINT64_C(500000000)
#define GIVEN_UP_NS UINT64_C(4000000000)

struct supply {
    supply_options o;
    _Atomic(cluster *) cluster;
    pthread_t thread;
    bool has_thread;
    atomic_bool stop;
    pthread_mutex_t lock; /* of the next; a leaf */
    pthread_cond_t more;
    struct {
        char hash[65];
    } wanted[MAX_WANTED]; /* the first one is being read */
    size_t n_wanted;
    struct {
        char hash[65]; /* "": none could not */
        moe_status status;
        moe_error why;
        unsigned n;              /* times, one after the other */
        uint64_t at_ns;          /* the last one */
    } failed;                    /* the pack that could not be read last */
    uint64_t second_ns, n_bytes; /* the thread's: what was read since then */
};

/* ------------------------------------------------------------------------------------------------ reading */
static bool may_go_on(void *ctx, size_t bytes)
{
    supply *s = ctx;
    const struct timespec nap = {.tv_nsec = 5000000};
    uint64_t now = moe_now_ns(s->o.clock);

    if (now - s->second_ns >= UINT64_C(1000000000)) {
        s->second_ns = now;
        s->n_bytes = 0;
    }
    s->n_bytes += bytes;
    while (s->o.bytes_per_second != 0 && s->n_bytes > s->o.bytes_per_second && !atomic_load(&s->stop) &&
           moe_now_ns(s->o.clock) - s->second_ns < UINT64_C(1000000000)) {
        (void)nanosleep(&nap, NULL);
    }
    return !atomic_load(&s->stop);
}

static moe_status read_from(supply *s, const char *hash, transport *t, const cluster_state *state, moe_error *err)
{
    pack_fetch f = {.transport = t,
                    .hello = &s->o.hello,
                    .key = s->o.key,
                    .clock = s->o.clock,
                    .deadline_ns = moe_now_ns(s->o.clock) + READ_NS,
                    .base = &s->o.base,
                    .options = &s->o.pack,
                    .dir = s->o.dir,
                    .max_bytes = s->o.max_bytes,
                    .more = may_go_on,
                    .more_ctx = s};
    pack *p;
    moe_status status = pack_fetch_from(&f, state, hash, s->o.id, &p, err);
    if (status == MOE_OK) {
        MOE_INFO("pack %s %s was read from another node: %s", pack_name(p), pack_version(p), hash);
        status = shelf_add(s->o.shelf, p, err);
    }
    return status;
}

static moe_status read_pack(supply *s, const char *hash, moe_error *err)
{
    transport *t = NULL;
    moe_status status = s->o.dir[0] != '\0'
                            ? s->o.dial(s->o.dial_ctx, &t, err)
                            : moe_fail(err, MOE_ERR_UNAVAILABLE, "there is no directory for packs of other nodes");

    if (status == MOE_OK) {
        const cluster_state *state = cluster_state_acquire(atomic_load(&s->cluster));

        status = read_from(s, hash, t, state, err);
        cluster_state_release(state);
        transport_close(t);
    }
    return status;
}

/* Whether there is nothing to wait for: another try would end alike, or enough were made. */
static bool is_given_up(const supply *s)
{
    bool may_pass = s->failed.status == MOE_ERR_UNAVAILABLE || s->failed.status == MOE_ERR_TIMEOUT;

    return !may_pass || s->failed.n >= MAX_TRIES;
}

/* Under the lock. */
static void note_end(supply *s, const char *hash, moe_status status, const moe_error *why)
{
    bool is_again = strcmp(s->failed.hash, hash) == 0;

    if (status == MOE_OK && is_again) {
        s->failed.hash[0] = '\0';
    } else if (status != MOE_OK) {
        s->failed.n = is_again && !is_given_up(s) ? s->failed.n + 1 : 1;
        s->failed.status = status;
        s->failed.why = *why;
        s->failed.at_ns = moe_now_ns(s->o.clock);
        memcpy(s->failed.hash, hash, sizeof s->failed.hash);
    }
}

/* Without the lock. */
static void pause_before(supply *s, const char *hash)
{
    const struct timespec nap = {.tv_nsec = 5000000};

    while (strcmp(s->failed.hash, hash) == 0 && moe_now_ns(s->o.clock) - s->failed.at_ns < AGAIN_NS &&
           !atomic_load(&s->stop)) {
        (void)nanosleep(&nap, NULL);
    }
}

static void *run(void *arg)
{
    supply *s = arg;
    char hash[65];

    pthread_mutex_lock(&s->lock);
    while (!atomic_load(&s->stop)) {
        if (s->n_wanted == 0) {
            pthread_cond_wait(&s->more, &s->lock);
            continue;
        }
        memcpy(hash, s->wanted[0].hash, sizeof hash);
        pthread_mutex_unlock(&s->lock);
        moe_error err = {""};
        pause_before(s, hash); /* this thread alone writes what failed */
        moe_status status = read_pack(s, hash, &err);
        pthread_mutex_lock(&s->lock);
        s->n_wanted--;
        memmove(s->wanted, s->wanted + 1, s->n_wanted * sizeof *s->wanted);
        note_end(s, hash, status, &err);
        pthread_mutex_unlock(&s->lock);
        s->o.done(s->o.done_ctx);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Puts the pack into the line, unless it stands there or was just given up. err: what there is to say meanwhile.
 * MOE_ERR_UNAVAILABLE: it may come. */
static moe_status want(supply *s, const catalogue_pack *p, moe_error *err)
{
    bool is_there = false;
    moe_status status;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_wanted; i++) {
        is_there = is_there || strcmp(s->wanted[i].hash, p->hash) == 0;
    }
    bool has_failed = !is_there && strcmp(s->failed.hash, p->hash) == 0;
    if (has_failed && is_given_up(s) && moe_now_ns(s->o.clock) - s->failed.at_ns < GIVEN_UP_NS) {
        status = s->failed.status == MOE_ERR_UNAVAILABLE ? MOE_ERR_NOT_FOUND : s->failed.status;
        status = moe_fail(err, status, "pack %s %s could not be read from another node: %s", p->name, p->version,
                          s->failed.why.text);
        pthread_mutex_unlock(&s->lock);
        return status;
    }
    status = has_failed ? moe_fail(err, MOE_ERR_UNAVAILABLE, "pack %s %s is tried again: %s", p->name, p->version,
                                   s->failed.why.text)
                        : moe_fail(err, MOE_ERR_UNAVAILABLE, "pack %s %s is being read from another node", p->name,
                                   p->version);
    if (!is_there && s->n_wanted < MAX_WANTED) {
        memcpy(s->wanted[s->n_wanted++].hash, p->hash, sizeof p->hash);
        pthread_cond_signal(&s->more);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* ------------------------------------------------------------------------------------------------ the source */
/* expert_checkpoint.find */
static moe_status find(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err)
{
    supply *s = ctx;
    cluster *c = atomic_load(&s->cluster);
    const cluster_state *state = c != NULL ? cluster_state_acquire(c) : NULL;
    uint32_t place = 0;
    const catalogue_pack *of = state != NULL ? catalogue_pack_of(state->catalogue, layer, expert_id, &place) : NULL;
    checkpoint_digest hash = {{0}};
    moe_status status = MOE_OK;

    if (of != NULL) {
        const pack *p = pack_read_digest(of->hash, &hash) ? shelf_find(s->o.shelf, hash.bytes) : NULL;
        const pack_layer *l = p != NULL ? pack_layer_of(p, layer) : NULL;

        if (p == NULL) {
            status = want(s, of, err);
        } else if (l != NULL && place < l->n_experts) {
            const pack_expert *e = &l->experts[place];
            *out = (model_expert_parts){.gate = e->gate, .up = e->up, .down = e->down};
        } else {
            status = moe_fail(err, MOE_ERR_CORRUPT, "pack %s %s has no expert %u in layer %u", of->name, of->version,
                              place, layer);
        }
    }
    cluster_state_release(state);
    return status;
}

void supply_set_cluster(supply *s, cluster *c)
{
    atomic_store(&s->cluster, c);
}

/* ------------------------------------------------------------------------------------------------ life */
moe_status supply_open(const supply_options *options, supply **out, moe_error *err)
{
    supply *s = calloc(1, sizeof *s);

    if (s == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "supply of experts");
    }
    s->o = *options;
    s->o.experts->find = find;
    s->o.experts->find_ctx = s;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    s->has_thread = pthread_create(&s->thread, NULL, run, s) == 0;
    if (!s->has_thread) {
        supply_close(s);
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "supply of experts: no thread");
    }
    *out = s;
    return MOE_OK;
}

void supply_close(supply *s)
{
    if (s == NULL) {
        return;
    }
    if (s->has_thread) {
        pthread_mutex_lock(&s->lock);
        atomic_store(&s->stop, true);
        pthread_cond_signal(&s->more);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    pthread_cond_destroy(&s->more);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
