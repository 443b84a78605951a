/* Sync: what the store holds comes into the mirror, by list and by watch; and how the store is, by its answers. */
#include "cluster/cluster_priv.h"

#include <string.h>

/* Chosen, not measured. Failed calls back off from RETRY_FIRST to RETRY_MOST, doubling, all with jitter, so that
 * members do not return to a restarted etcd at the same moment. RETRY_MOST is a third of the lease: one more try is
 * made before it ends. RETRY_SOON follows a lost race or a lost watch, where the store is well. */
#define RETRY_FIRST (CLUSTER_SECOND / 5)
#define RETRY_MOST  (5 * CLUSTER_SECOND)
#define RETRY_SOON  (CLUSTER_SECOND / 20)

uint64_t cluster_now(const cluster *c)
{
    return moe_now_ns(c->o.clock);
}

void cluster_count(cluster *c, uint64_t *counter)
{
    pthread_mutex_lock(&c->lock);
    (*counter)++;
    pthread_mutex_unlock(&c->lock);
}

void cluster_set_status(cluster *c, moe_status status, const char *why)
{
    pthread_mutex_lock(&c->lock);
    bool is_new = status != c->status || strcmp(why, c->why.text) != 0;
    c->status = status;
    (void)snprintf(c->why.text, sizeof c->why.text, "%s", why);
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        if (status == MOE_ERR_CANCELLED) {
            MOE_INFO("cluster: %s %s has left", c->o.role == CLUSTER_NODE ? "node" : "coordinator", c->o.id);
        } else if (status != MOE_OK) {
            MOE_WARN("cluster: %s %s: %s: %s", c->o.role == CLUSTER_NODE ? "node" : "coordinator", c->o.id,
                     moe_status_text(status), why);
        } else {
            MOE_INFO("cluster: %s %s is registered", c->o.role == CLUSTER_NODE ? "node" : "coordinator", c->o.id);
        }
        c->is_dirty = true;
    }
}

uint64_t cluster_jittered(cluster *c, uint64_t ns)
{
    return ns / 2 + moe_random_below(&c->random, ns / 2 + 1);
}

/* Everything is read again, soon. */
void cluster_resync(cluster *c)
{
    c->is_synced = false;
    c->retry_due_ns = MOE_MAX(c->retry_due_ns, cluster_now(c) + cluster_jittered(c, RETRY_SOON));
}

void cluster_answered(cluster *c, const cluster_reply *reply)
{
    c->failures_in_row = 0;
    c->revision = MOE_MAX(c->revision, reply->revision);
    if (!c->connected) {
        c->connected = c->is_dirty = true;
        MOE_INFO("cluster: the store answers, revision %llu", (unsigned long long)reply->revision);
    }
}

void cluster_failed(cluster *c, const cluster_reply *reply)
{
    uint64_t back_off = RETRY_FIRST << MOE_MIN(c->failures_in_row, (uint64_t)5);
    char why[sizeof c->why.text];

    (void)snprintf(why, sizeof why, "the store: %s", reply->reason);
    cluster_count(c, &c->stats.failures);
    c->failures_in_row++;
    c->is_synced = false;
    c->retry_due_ns = cluster_now(c) + cluster_jittered(c, MOE_MIN(back_off, RETRY_MOST));
    if (c->connected) {
        c->connected = false;
        c->is_dirty = true;
    }
    cluster_set_status(c, reply->status == MOE_ERR_DENIED ? MOE_ERR_DENIED : MOE_ERR_UNAVAILABLE, why);
}

/* ------------------------------------------------------------------------------------------------ list and watch */
/* The key behind the prefix; NULL: not ours. */
static const char *own(const cluster *c, const char *key)
{
    size_t n = strlen(c->prefix);

    return strncmp(key, c->prefix, n) == 0 ? key + n : NULL;
}

static void enter(cluster *c, cluster_mirror *m, const cluster_kv *kv)
{
    cluster_kv mine = *kv;

    mine.key = own(c, kv->key);
    if (mine.key == NULL) {
        return;
    }
    moe_status status =
        cluster_mirror_put(m, &mine, cluster_key_doubt(&mine, router_space_n_layers(c->o.model.space), &c->seal));
    if (status != MOE_OK) {
        MOE_WARN("cluster: key %s is left out: %s, limit %d keys", mine.key, moe_status_text(status), CLUSTER_MAX_KEYS);
    }
}

void cluster_enter(cluster *c, const cluster_kv *kv)
{
    enter(c, &c->mirror, kv);
}

/* Where there are more keys than a mirror takes, those that were there before come first: nobody pushes out a member. */
static void enter_list(cluster *c, const cluster_reply *reply)
{
    cluster_mirror now = {0};

    for (size_t i = 0; i < reply->n_kvs; i++) {
        const char *key = own(c, reply->kvs[i].key);

        if (key != NULL && cluster_mirror_read(&c->mirror, key) != NULL) {
            enter(c, &now, &reply->kvs[i]);
        }
    }
    for (size_t i = 0; i < reply->n_kvs; i++) {
        enter(c, &now, &reply->kvs[i]);
    }
    cluster_mirror_take_over(&now, &c->mirror);
    cluster_mirror_fini(&c->mirror);
    c->mirror = now;
}

static void on_watch(void *ctx, const cluster_watch_event *event)
{
    cluster *c = ctx;

    if (event->kind == CLUSTER_WATCH_LOST) {
        MOE_INFO("cluster: the watch ended: %s", event->reason);
        c->is_watching = false;
        cluster_resync(c);
        return;
    }
    if (event->kind == CLUSTER_WATCH_CREATED) {
        return;
    }
    cluster_count(c, &c->stats.watch_events);
    if (event->kv.mod_revision < c->watch_revision) { /* a watch may repeat itself */
        return;
    }
    c->watch_revision = event->kv.mod_revision;
    c->revision = MOE_MAX(c->revision, event->kv.mod_revision);
    c->is_dirty = true;
    if (event->kind == CLUSTER_WATCH_PUT) {
        cluster_enter(c, &event->kv);
    } else if (own(c, event->kv.key) != NULL) {
        cluster_mirror_delete(&c->mirror, own(c, event->kv.key), event->kv.mod_revision);
    }
}

/* A list that is older than what was known when it was asked for comes from a member of etcd that lags behind, or the
 * store was wiped or restored from a backup. One such list proves nothing, so the second in a row is believed; going
 * back on the first would make a lagging etcd undo a placement. */
static bool is_stale(cluster *c, const cluster_reply *reply)
{
    if (reply->revision >= c->list_floor || c->went_back) {
        if (reply->revision < c->list_floor) {
            MOE_WARN("cluster: the store went back from revision %llu to %llu", (unsigned long long)c->list_floor,
                     (unsigned long long)reply->revision);
        }
        c->went_back = false;
        return false;
    }
    c->went_back = true;
    return true;
}

static void on_list(void *ctx, const cluster_reply *reply)
{
    cluster *c = ctx;

    c->op = CLUSTER_OP_NONE;
    if (reply->status != MOE_OK) {
        cluster_failed(c, reply);
        return;
    }
    cluster_count(c, &c->stats.lists);
    if (is_stale(c, reply)) {
        cluster_resync(c);
        return;
    }
    cluster_answered(c, reply);
    enter_list(c, reply);
    c->revision = c->list_revision = reply->revision;
    c->is_synced = c->is_dirty = true;
    c->listed_ns = cluster_now(c);
    c->list_due_ns = c->listed_ns + cluster_jittered(c, CLUSTER_RELIST);
}

void cluster_list_begin(cluster *c)
{
    c->store->ops->unwatch(c->store);
    c->is_watching = false;
    c->list_floor = c->revision;
    c->op = CLUSTER_OP_LIST;
    c->store->ops->range(c->store, c->prefix, on_list, c);
}

void cluster_watch_begin(cluster *c)
{
    c->is_watching = true;
    cluster_count(c, &c->stats.watches);
    c->watch_revision = c->list_revision + 1;
    c->store->ops->watch(c->store, c->prefix, c->watch_revision, on_watch, c);
}
