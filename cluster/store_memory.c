/* Store in memory: one world, a client per member, faults by seed. */
#include "cluster/store.h"

#include <stdlib.h>
#include <string.h>

#define MAX_CLIENTS 64
#define MAX_LEASES  4096
#define MAX_CALLS   8 /* under way, of one client */

typedef struct event {
    bool is_delete;
    char *key, *value; /* owned */
    uint64_t create_revision, mod_revision, lease;
} event;

typedef struct lease {
    uint64_t id, ttl_ns, end_ns;
} lease;

/* An answer that waits for its time. */
typedef struct call {
    bool is_open;
    uint64_t due_ns;
    cluster_reply reply;
    event *kvs; /* owned copies of a range */
    cluster_reply_fn fn;
    void *ctx;
} call;

typedef struct client {
    cluster_store store; /* first */
    cluster_memory *world;
    call calls[MAX_CALLS];
    bool is_watching, is_mute, is_created, is_lost, lags;
    const char *lost_because;
    char prefix[128];
    uint64_t next_revision;
    cluster_watch_fn watch_fn;
    void *watch_ctx;
    moe_waiter *waiter; /* owned */
} client;

struct cluster_memory {
    const moe_clock *clock;
    moe_random random;
    cluster_memory_faults faults;
    event *now; /* owned: the keys there are, ascending */
    size_t n_now;
    event *log; /* owned: everything since the last compaction */
    size_t n_log;
    event *saved; /* owned */
    size_t n_saved;
    lease leases[MAX_LEASES];
    size_t n_leases;
    uint64_t revision, saved_revision, compacted, next_lease;
    client *clients[MAX_CLIENTS];
    size_t n_clients;
};

/* ------------------------------------------------------------------------------------------------ world */
static char *copy_bytes(const char *bytes, size_t n)
{
    char *copy = malloc(n + 1);

    MOE_ASSERT(copy != NULL);
    memcpy(copy, bytes, n);
    copy[n] = '\0';
    return copy;
}

static event copy_event(const event *e)
{
    event copy = *e;

    copy.key = copy_bytes(e->key, strlen(e->key));
    copy.value = copy_bytes(e->value, strlen(e->value));
    return copy;
}

static void free_events(event *events, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(events[i].key);
        free(events[i].value);
    }
    free(events);
}

static event *append(event **events, size_t *n, event e)
{
    *events = realloc(*events, (*n + 1) * sizeof **events);
    MOE_ASSERT(*events != NULL);
    (*events)[*n] = e;
    return &(*events)[(*n)++];
}

static event *find(cluster_memory *m, const char *key)
{
    for (size_t i = 0; i < m->n_now; i++) {
        if (strcmp(m->now[i].key, key) == 0) {
            return &m->now[i];
        }
    }
    return NULL;
}

static void log_event(cluster_memory *m, const event *e)
{
    (void)append(&m->log, &m->n_log, copy_event(e));
}

static void put(cluster_memory *m, const char *key, const char *value, size_t n, uint64_t lease_id)
{
    event *e = find(m, key);

    if (e == NULL) {
        size_t at = 0;
        (void)append(&m->now, &m->n_now, (event){0});
        while (at + 1 < m->n_now && strcmp(m->now[at].key, key) < 0) {
            at++;
        }
        e = &m->now[at];
        memmove(e + 1, e, (m->n_now - 1 - at) * sizeof *e);
        *e = (event){.key = copy_bytes(key, strlen(key)), .create_revision = m->revision};
    }
    free(e->value);
    e->value = copy_bytes(value, n);
    e->mod_revision = m->revision;
    e->lease = lease_id;
    log_event(m, e);
}

static void delete_key(cluster_memory *m, const char *key)
{
    event *e = find(m, key);

    if (e == NULL) {
        return;
    }
    event gone = *e;
    memmove(e, e + 1, (size_t)(m->now + m->n_now - (e + 1)) * sizeof *e);
    m->n_now--;
    gone.is_delete = true;
    gone.mod_revision = m->revision;
    (void)append(&m->log, &m->n_log, gone);
}

static lease *find_lease(cluster_memory *m, uint64_t id)
{
    for (size_t i = 0; i < m->n_leases; i++) {
        if (m->leases[i].id == id) {
            return &m->leases[i];
        }
    }
    return NULL;
}

static void end_lease(cluster_memory *m, uint64_t id)
{
    lease *l = find_lease(m, id);

    if (l == NULL) {
        return;
    }
    *l = m->leases[--m->n_leases];
    m->revision++;
    for (size_t i = m->n_now; i > 0; i--) {
        if (m->now[i - 1].lease == id) {
            delete_key(m, m->now[i - 1].key);
        }
    }
}

static void end_due_leases(cluster_memory *m)
{
    uint64_t now = moe_now_ns(m->clock);

    for (size_t i = m->n_leases; i > 0; i--) {
        if (i <= m->n_leases && m->leases[i - 1].end_ns <= now) {
            end_lease(m, m->leases[i - 1].id);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ calls */
static bool chance(cluster_memory *m, uint32_t percent)
{
    return percent > 0 && moe_random_below(&m->random, 100) < percent;
}

/* A place for the answer; *execute: whether the call is to be carried out at all. */
static call *begin_call(client *k, cluster_reply_fn fn, void *ctx, bool *execute)
{
    cluster_memory *m = k->world;
    call *q = NULL;

    end_due_leases(m);
    for (size_t i = 0; i < MAX_CALLS && q == NULL; i++) {
        q = k->calls[i].is_open ? NULL : &k->calls[i];
    }
    MOE_ASSERT(q != NULL);
    *q = (call){.is_open = true, .due_ns = moe_now_ns(m->clock), .fn = fn, .ctx = ctx};
    q->due_ns += m->faults.max_delay_ns > 0 ? moe_random_below(&m->random, m->faults.max_delay_ns) : 0;
    bool fails = m->faults.down || chance(m, m->faults.fail_percent);
    *execute = !fails || (!m->faults.down && chance(m, 50));
    q->reply.status = fails ? MOE_ERR_UNAVAILABLE : MOE_OK;
    q->reply.reason = fails ? "the store is down" : "";
    moe_waiter_wake(k->waiter);
    return q;
}

static void end_call(client *k, call *q)
{
    if (q->reply.status == MOE_OK) {
        q->reply.revision = k->world->revision;
    }
}

static void refuse(call *q, moe_status status, const char *reason)
{
    if (q->reply.status == MOE_OK) {
        q->reply.status = status;
        q->reply.reason = reason;
    }
}

static bool holds(cluster_memory *m, const cluster_compare *c)
{
    const event *e = find(m, c->key);
    uint64_t have = e == NULL ? 0 : c->kind == CLUSTER_COMPARE_CREATE ? e->create_revision : e->mod_revision;

    return have == c->revision;
}

static bool leases_live(cluster_memory *m, const cluster_txn *txn)
{
    for (size_t i = 0; i < txn->n_puts; i++) {
        if (txn->puts[i].lease != 0 && find_lease(m, txn->puts[i].lease) == NULL) {
            return false;
        }
    }
    return true;
}

static void memory_txn(cluster_store *s, const cluster_txn *txn, cluster_reply_fn fn, void *ctx)
{
    client *k = (client *)s;
    cluster_memory *m = k->world;
    bool execute, all = true;
    call *q = begin_call(k, fn, ctx, &execute);

    for (size_t i = 0; i < txn->n_compares; i++) {
        all = all && holds(m, &txn->compares[i]);
    }
    if (execute && all && !leases_live(m, txn)) {
        refuse(q, MOE_ERR_NOT_FOUND, "requested lease not found");
    } else if (execute && all) {
        m->revision++;
        for (size_t i = 0; i < txn->n_puts; i++) {
            put(m, txn->puts[i].key, txn->puts[i].value, txn->puts[i].value_bytes, txn->puts[i].lease);
        }
        for (size_t i = 0; i < txn->n_deletes; i++) {
            delete_key(m, txn->deletes[i]);
        }
        q->reply.succeeded = q->reply.status == MOE_OK;
    }
    end_call(k, q);
}

static void memory_grant(cluster_store *s, uint64_t ttl_s, cluster_reply_fn fn, void *ctx)
{
    client *k = (client *)s;
    cluster_memory *m = k->world;
    bool execute;
    call *q = begin_call(k, fn, ctx, &execute);

    if (execute && m->n_leases < MAX_LEASES) {
        uint64_t ttl_ns = ttl_s * 1000000000u;

        m->leases[m->n_leases++] = (lease){++m->next_lease, ttl_ns, moe_now_ns(m->clock) + ttl_ns};
        q->reply.lease = m->next_lease;
        q->reply.ttl_s = ttl_s;
    }
    end_call(k, q);
}

static void memory_keepalive(cluster_store *s, uint64_t id, cluster_reply_fn fn, void *ctx)
{
    client *k = (client *)s;
    bool execute;
    call *q = begin_call(k, fn, ctx, &execute);
    lease *l = execute ? find_lease(k->world, id) : NULL;

    q->reply.lease = id;
    if (l != NULL) {
        l->end_ns = moe_now_ns(k->world->clock) + l->ttl_ns;
        q->reply.ttl_s = l->ttl_ns / 1000000000u;
    }
    end_call(k, q);
}

static void memory_revoke(cluster_store *s, uint64_t id, cluster_reply_fn fn, void *ctx)
{
    client *k = (client *)s;
    bool execute;
    call *q = begin_call(k, fn, ctx, &execute);

    if (execute && find_lease(k->world, id) == NULL) {
        refuse(q, MOE_ERR_NOT_FOUND, "requested lease not found");
    } else if (execute) {
        end_lease(k->world, id);
    }
    end_call(k, q);
}

static void memory_range(cluster_store *s, const char *prefix, cluster_reply_fn fn, void *ctx)
{
    client *k = (client *)s;
    cluster_memory *m = k->world;
    bool execute;
    call *q = begin_call(k, fn, ctx, &execute);

    const event *events = k->lags ? m->saved : m->now;
    for (size_t i = 0, n = k->lags ? m->n_saved : m->n_now; q->reply.status == MOE_OK && i < n; i++) {
        if (strncmp(events[i].key, prefix, strlen(prefix)) == 0) {
            (void)append(&q->kvs, &q->reply.n_kvs, copy_event(&events[i]));
        }
    }
    end_call(k, q);
    q->reply.revision = k->lags && q->reply.status == MOE_OK ? m->saved_revision : q->reply.revision;
    k->lags = false;
}

static void memory_watch(cluster_store *s, const char *prefix, uint64_t from_revision, cluster_watch_fn fn, void *ctx)
{
    client *k = (client *)s;

    MOE_ASSERT(strlen(prefix) < sizeof k->prefix);
    memcpy(k->prefix, prefix, strlen(prefix) + 1);
    k->next_revision = from_revision;
    k->watch_fn = fn;
    k->watch_ctx = ctx;
    k->is_watching = true;
    k->is_mute = k->is_created = false;
    k->is_lost = k->world->faults.down || from_revision <= k->world->compacted;
    k->lost_because = k->world->faults.down ? "the store is down" : "compacted";
    moe_waiter_wake(k->waiter);
}

static void memory_unwatch(cluster_store *s)
{
    ((client *)s)->is_watching = false;
}

/* ------------------------------------------------------------------------------------------------ progress */
static cluster_kv as_kv(const event *e)
{
    return (cluster_kv){.key = e->key,
                        .value = e->is_delete ? "" : e->value,
                        .value_bytes = e->is_delete ? 0 : strlen(e->value),
                        .create_revision = e->create_revision,
                        .mod_revision = e->mod_revision,
                        .lease = e->lease};
}

static void answer(call *q)
{
    call done = *q;
    cluster_kv *kvs = calloc(done.reply.n_kvs + 1, sizeof *kvs);

    MOE_ASSERT(kvs != NULL);
    for (size_t i = 0; i < done.reply.n_kvs; i++) {
        kvs[i] = as_kv(&done.kvs[i]);
    }
    done.reply.kvs = kvs;
    q->is_open = false;
    q->kvs = NULL;
    done.fn(done.ctx, &done.reply);
    free(kvs);
    free_events(done.kvs, done.reply.n_kvs);
}

static bool answer_due(client *k)
{
    uint64_t now = moe_now_ns(k->world->clock);
    bool any = false;

    for (size_t i = 0; i < MAX_CALLS; i++) {
        if (k->calls[i].is_open && k->calls[i].due_ns <= now) {
            answer(&k->calls[i]);
            any = true;
        }
    }
    return any;
}

static void tell(client *k, cluster_watch_kind kind, const event *e, const char *reason)
{
    const cluster_watch_event w = {.kind = kind, .kv = e != NULL ? as_kv(e) : (cluster_kv){0}, .reason = reason};

    k->watch_fn(k->watch_ctx, &w);
}

static bool tell_events(client *k)
{
    cluster_memory *m = k->world;
    bool any = false;

    if (!k->is_created) {
        k->is_created = any = true;
        tell(k, CLUSTER_WATCH_CREATED, NULL, "");
    }
    for (size_t i = 0; i < m->n_log && k->is_watching; i++) {
        const event *e = &m->log[i];

        if (e->mod_revision >= k->next_revision && strncmp(e->key, k->prefix, strlen(k->prefix)) == 0) {
            tell(k, e->is_delete ? CLUSTER_WATCH_DELETE : CLUSTER_WATCH_PUT, e, "");
            any = true;
        }
    }
    k->next_revision = MOE_MAX(k->next_revision, m->revision + 1);
    return any;
}

static bool progress(client *k)
{
    cluster_memory *m = k->world;

    end_due_leases(m);
    bool any = answer_due(k);
    if (k->is_watching && (k->is_lost || chance(m, m->faults.lose_percent))) {
        k->is_watching = false;
        tell(k, CLUSTER_WATCH_LOST, NULL, k->is_lost ? k->lost_because : "lost");
        any = true;
    }
    if (k->is_watching && !k->is_mute) {
        any |= tell_events(k);
    }
    return any;
}

static void memory_poll(cluster_store *s, uint64_t timeout_ns)
{
    client *k = (client *)s;

    if (!progress(k) && timeout_ns > 0) {
        moe_waiter_wait(k->waiter, NULL, NULL, timeout_ns);
        (void)progress(k);
    }
}

static void memory_wake(cluster_store *s)
{
    moe_waiter_wake(((client *)s)->waiter);
}

static void memory_close(cluster_store *s)
{
    client *k = (client *)s;
    cluster_memory *m = k->world;

    for (size_t i = 0; i < MAX_CALLS; i++) {
        if (k->calls[i].is_open) {
            free_events(k->calls[i].kvs, k->calls[i].reply.n_kvs);
        }
    }
    for (size_t i = 0; i < m->n_clients; i++) {
        if (m->clients[i] == k) {
            m->clients[i] = m->clients[--m->n_clients];
        }
    }
    moe_waiter_close(k->waiter);
    free(k);
}

/* ------------------------------------------------------------------------------------------------ life and faults */
moe_status cluster_memory_open(const moe_clock *clock, uint64_t seed, cluster_memory **out)
{
    cluster_memory *m = calloc(1, sizeof *m);

    if (m == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    m->clock = clock;
    m->revision = 1;
    moe_random_seed(&m->random, seed);
    *out = m;
    return MOE_OK;
}

static void clear(cluster_memory *m)
{
    free_events(m->now, m->n_now);
    free_events(m->log, m->n_log);
    m->now = m->log = NULL;
    m->n_now = m->n_log = m->n_leases = 0;
}

void cluster_memory_close(cluster_memory *m)
{
    MOE_ASSERT(m->n_clients == 0);
    clear(m);
    free_events(m->saved, m->n_saved);
    free(m);
}

moe_status cluster_memory_client(cluster_memory *m, cluster_store **out)
{
    static const cluster_store_ops ops = {
        .name = "memory",
        .txn = memory_txn,
        .grant = memory_grant,
        .keepalive = memory_keepalive,
        .revoke = memory_revoke,
        .range = memory_range,
        .watch = memory_watch,
        .unwatch = memory_unwatch,
        .poll = memory_poll,
        .wake = memory_wake,
        .close = memory_close,
    };
    client *k = m->n_clients < MAX_CLIENTS ? calloc(1, sizeof *k) : NULL;

    if (k == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    moe_status status = moe_waiter_open(&k->waiter);
    if (status != MOE_OK) {
        free(k);
        return status;
    }
    k->store.ops = &ops;
    k->world = m;
    m->clients[m->n_clients++] = k;
    *out = &k->store;
    return MOE_OK;
}

void cluster_memory_set_faults(cluster_memory *m, const cluster_memory_faults *faults)
{
    m->faults = *faults;
    if (faults->down) {
        cluster_memory_lose_watches(m);
    }
}

void cluster_memory_expire_leases(cluster_memory *m)
{
    while (m->n_leases > 0) {
        end_lease(m, m->leases[0].id);
    }
}

void cluster_memory_lose_watches(cluster_memory *m)
{
    for (size_t i = 0; i < m->n_clients; i++) {
        m->clients[i]->is_lost = true;
        m->clients[i]->lost_because = "lost";
    }
}

void cluster_memory_mute_watches(cluster_memory *m)
{
    for (size_t i = 0; i < m->n_clients; i++) {
        m->clients[i]->is_mute = true;
    }
}

void cluster_memory_compact(cluster_memory *m)
{
    free_events(m->log, m->n_log);
    m->log = NULL;
    m->n_log = 0;
    m->compacted = m->revision;
    for (size_t i = 0; i < m->n_clients; i++) {
        client *k = m->clients[i];

        k->is_lost |= k->is_watching && k->next_revision <= m->compacted;
        k->lost_because = "compacted";
    }
}

void cluster_memory_wipe(cluster_memory *m)
{
    clear(m);
    m->revision = 1;
    m->compacted = 0;
    cluster_memory_lose_watches(m);
}

void cluster_memory_save(cluster_memory *m)
{
    free_events(m->saved, m->n_saved);
    m->saved = NULL;
    m->n_saved = 0;
    for (size_t i = 0; i < m->n_now; i++) {
        (void)append(&m->saved, &m->n_saved, copy_event(&m->now[i]));
    }
    m->saved_revision = m->revision;
}

void cluster_memory_restore(cluster_memory *m)
{
    free_events(m->now, m->n_now);
    m->now = NULL;
    m->n_now = 0;
    for (size_t i = 0; i < m->n_saved; i++) {
        (void)append(&m->now, &m->n_now, copy_event(&m->saved[i]));
    }
    m->revision = m->saved_revision;
    cluster_memory_compact(m);
    cluster_memory_lose_watches(m);
}

void cluster_memory_lag(cluster_memory *m)
{
    for (size_t i = 0; i < m->n_clients; i++) {
        m->clients[i]->lags = true;
    }
}

void cluster_memory_put(cluster_memory *m, const char *key, const char *value)
{
    m->revision++;
    put(m, key, value, strlen(value), 0);
}

bool cluster_memory_forge(cluster_memory *m, const char *key, const char *value)
{
    const event *e = find(m, key);

    if (e != NULL) {
        m->revision++;
        put(m, key, value, strlen(value), e->lease);
    }
    return e != NULL;
}

const char *cluster_memory_get(cluster_memory *m, const char *key)
{
    const event *e = find(m, key);

    return e != NULL ? e->value : NULL;
}
