/* Member: one turn of the state machine.
 *
 * What is to be done follows from the mirror alone. So it does not matter whether a call that failed was executed:
 * after any trouble everything is read again, and what is still missing is done. In a turn the first of these that
 * applies is begun (act):
 *
 *   list            the mirror is not in sync, or 30 s have passed
 *   watch           from the revision after the list's, so that no change falls between the two
 *   model           write it if it is absent; else it must be ours, or nothing further is done
 *   registration    take a lease; write the own key under it, if the key is absent or still as it was last seen
 *   campaign        coordinators: write `controller` if it is absent
 *   control         the elected one: controller.c
 *
 * One call at a time is under way beside the keepalive and the watch. Transactions never run beside a list, so the
 * mirror only moves forward. The keepalive has a path of its own because a slow list must not cost the lease. */
#include "cluster/cluster_priv.h"

#include <stdlib.h>
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

static void count(cluster *c, uint64_t *counter)
{
    pthread_mutex_lock(&c->lock);
    (*counter)++;
    pthread_mutex_unlock(&c->lock);
}

static void set_status(cluster *c, moe_status status, const char *why)
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

static uint64_t jittered(cluster *c, uint64_t ns)
{
    return ns / 2 + moe_random_below(&c->random, ns / 2 + 1);
}

/* Everything is read again, soon. */
static void resync(cluster *c)
{
    c->is_synced = false;
    c->retry_due_ns = MOE_MAX(c->retry_due_ns, cluster_now(c) + jittered(c, RETRY_SOON));
}

static void answered(cluster *c, const cluster_reply *reply)
{
    c->failures_in_row = 0;
    c->revision = MOE_MAX(c->revision, reply->revision);
    if (!c->connected) {
        c->connected = c->is_dirty = true;
        MOE_INFO("cluster: the store answers, revision %llu", (unsigned long long)reply->revision);
    }
}

static void drop_lease(cluster *c)
{
    MOE_WARN("cluster: lease %llx of %s is gone", (unsigned long long)c->lease, c->o.id);
    c->lease = 0;
    count(c, &c->stats.lease_losses);
}

static void failed(cluster *c, const cluster_reply *reply)
{
    uint64_t back_off = RETRY_FIRST << MOE_MIN(c->failures_in_row, (uint64_t)5);
    char why[sizeof c->why.text];

    (void)snprintf(why, sizeof why, "the store: %s", reply->reason);
    count(c, &c->stats.failures);
    c->failures_in_row++;
    c->is_synced = false;
    c->retry_due_ns = cluster_now(c) + jittered(c, MOE_MIN(back_off, RETRY_MOST));
    if (c->connected) {
        c->connected = false;
        c->is_dirty = true;
    }
    set_status(c, reply->status == MOE_ERR_DENIED ? MOE_ERR_DENIED : MOE_ERR_UNAVAILABLE, why);
}

/* ------------------------------------------------------------------------------------------------ list and watch */
/* The key behind the prefix; NULL: not ours. */
static const char *own(const cluster *c, const char *key)
{
    size_t n = strlen(c->prefix);

    return strncmp(key, c->prefix, n) == 0 ? key + n : NULL;
}

static void enter(cluster *c, const cluster_kv *kv)
{
    cluster_kv mine = *kv;

    mine.key = own(c, kv->key);
    if (mine.key == NULL || strlen(mine.key) > CLUSTER_STORE_MAX_KEY) {
        return;
    }
    moe_status status = cluster_mirror_put(&c->mirror, &mine);
    if (status != MOE_OK) {
        MOE_WARN("cluster: key %s is left out: %s, limit %d keys", mine.key, moe_status_text(status), CLUSTER_MAX_KEYS);
    }
}

static void on_watch(void *ctx, const cluster_watch_event *event)
{
    cluster *c = ctx;

    if (event->kind == CLUSTER_WATCH_LOST) {
        MOE_INFO("cluster: the watch ended: %s", event->reason);
        c->is_watching = false;
        resync(c);
        return;
    }
    if (event->kind == CLUSTER_WATCH_CREATED) {
        return;
    }
    count(c, &c->stats.watch_events);
    if (event->kv.mod_revision < c->watch_revision) { /* a watch may repeat itself */
        return;
    }
    c->watch_revision = event->kv.mod_revision;
    c->revision = MOE_MAX(c->revision, event->kv.mod_revision);
    c->is_dirty = true;
    if (event->kind == CLUSTER_WATCH_PUT) {
        enter(c, &event->kv);
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
        failed(c, reply);
        return;
    }
    count(c, &c->stats.lists);
    if (is_stale(c, reply)) {
        resync(c);
        return;
    }
    answered(c, reply);
    cluster_mirror_clear(&c->mirror);
    for (size_t i = 0; i < reply->n_kvs; i++) {
        enter(c, &reply->kvs[i]);
    }
    c->revision = c->list_revision = reply->revision;
    c->is_synced = c->is_dirty = true;
    c->list_due_ns = cluster_now(c) + jittered(c, CLUSTER_RELIST);
}

static void begin_list(cluster *c)
{
    c->store->ops->unwatch(c->store);
    c->is_watching = false;
    c->list_floor = c->revision;
    c->op = CLUSTER_OP_LIST;
    c->store->ops->range(c->store, c->prefix, on_list, c);
}

/* ------------------------------------------------------------------------------------------------ changes */
static char *full_key(cluster *c, const char *key)
{
    char *full = NULL;

    if (asprintf(&full, "%s%s", c->prefix, key) < 0) {
        return NULL;
    }
    return full;
}

void cluster_change_fini(cluster_change *h)
{
    for (size_t i = 0; i < MOE_COUNT(h->keys); i++) {
        free(h->keys[i]);
        h->keys[i] = NULL;
    }
    for (size_t i = 0; i < h->n_puts; i++) {
        moe_text_fini(&h->values[i]);
    }
    h->n_puts = h->n_compares = h->bytes = 0;
}

void cluster_change_begin(cluster *c)
{
    MOE_ASSERT(c->op == CLUSTER_OP_NONE);
    cluster_change_fini(&c->change);
}

void cluster_change_compare(cluster *c, cluster_compare_kind kind, const char *key, uint64_t revision)
{
    cluster_change *h = &c->change;
    size_t at = CLUSTER_TXN_PUTS + h->n_compares;

    MOE_ASSERT(h->n_compares < MOE_COUNT(h->compares));
    h->keys[at] = full_key(c, key);
    h->compares[h->n_compares++] = (cluster_compare){kind, h->keys[at], revision};
}

moe_text *cluster_change_put(cluster *c, const char *key, uint64_t lease)
{
    cluster_change *h = &c->change;

    MOE_ASSERT(h->n_puts < CLUSTER_TXN_PUTS);
    moe_text_init(&h->values[h->n_puts], (size_t)1 << 20);
    h->keys[h->n_puts] = full_key(c, key);
    h->puts[h->n_puts] = (cluster_put){.key = h->keys[h->n_puts], .lease = lease};
    return &h->values[h->n_puts++];
}

/* A success is entered at once, so that the next turn sees it and does not send the same change again. */
static void enter_change(cluster *c, uint64_t revision)
{
    for (size_t i = 0; i < c->change.n_puts; i++) {
        const cluster_put *p = &c->change.puts[i];
        const cluster_kv kv = {.key = p->key,
                               .value = p->value,
                               .value_bytes = p->value_bytes,
                               .mod_revision = revision,
                               .lease = p->lease};
        enter(c, &kv);
    }
    c->is_dirty = true;
}

static void on_change(void *ctx, const cluster_reply *reply)
{
    cluster *c = ctx;

    c->op = CLUSTER_OP_NONE;
    if (reply->status == MOE_OK && reply->succeeded) {
        answered(c, reply);
        enter_change(c, reply->revision);
        c->told_version = MOE_MAX(c->told_version, c->sent_version);
    } else {
        cluster_control_reset(c);
        if (reply->status == MOE_OK) { /* a comparison failed: another member was faster */
            answered(c, reply);
            resync(c);
        } else if (reply->status == MOE_ERR_NOT_FOUND) {
            if (c->lease != 0) {
                drop_lease(c);
            }
            resync(c);
        } else {
            failed(c, reply);
        }
    }
    c->sent_version = 0;
    cluster_change_fini(&c->change);
}

void cluster_change_send(cluster *c)
{
    cluster_change *h = &c->change;
    const cluster_txn txn = {
        .compares = h->compares, .n_compares = h->n_compares, .puts = h->puts, .n_puts = h->n_puts};
    bool complete = true;

    for (size_t i = 0; i < h->n_puts; i++) {
        h->puts[i].value = moe_text_cstr(&h->values[i]);
        h->puts[i].value_bytes = h->values[i].size;
        complete = complete && h->keys[i] != NULL && !h->values[i].failed;
    }
    for (size_t i = 0; i < h->n_compares; i++) {
        complete = complete && h->compares[i].key != NULL;
    }
    if (!complete) {
        const cluster_reply reply = {.status = MOE_ERR_NO_MEMORY, .reason = "out of memory for a transaction"};
        on_change(c, &reply);
        return;
    }
    c->op = CLUSTER_OP_TXN;
    c->store->ops->txn(c->store, &txn, on_change, c);
}

/* ------------------------------------------------------------------------------------------------ lease */
static void on_grant(void *ctx, const cluster_reply *reply)
{
    cluster *c = ctx;

    c->op = CLUSTER_OP_NONE;
    if (reply->status != MOE_OK || reply->lease == 0) {
        failed(c, reply);
        return;
    }
    answered(c, reply);
    c->lease = reply->lease;
    c->beat_due_ns = cluster_now(c) + CLUSTER_BEAT;
}

static void on_beat(void *ctx, const cluster_reply *reply)
{
    cluster *c = ctx;

    c->beat_under_way = false;
    if (reply->status != MOE_OK && reply->status != MOE_ERR_NOT_FOUND) {
        c->beat_due_ns = cluster_now(c) + jittered(c, CLUSTER_SECOND);
        failed(c, reply);
        return;
    }
    if (reply->status == MOE_OK) {
        answered(c, reply);
    }
    c->beat_due_ns = cluster_now(c) + CLUSTER_BEAT;
    if (reply->ttl_s == 0 && c->beat_lease == c->lease && c->lease != 0) {
        drop_lease(c);
        resync(c);
    }
}

static void beat(cluster *c, uint64_t now)
{
    if (c->lease != 0 && !c->beat_under_way && now >= c->beat_due_ns) {
        c->beat_under_way = true;
        c->beat_lease = c->lease;
        c->store->ops->keepalive(c->store, c->lease, on_beat, c);
    }
}

static void on_revoke(void *ctx, const cluster_reply *reply)
{
    cluster *c = ctx;

    c->op = CLUSTER_OP_NONE;
    c->lease = 0;
    if (reply->status != MOE_OK) {
        MOE_INFO("cluster: the lease of %s was not revoked and will end by itself: %s", c->o.id, reply->reason);
    }
}

static void leave(cluster *c)
{
    if (c->op != CLUSTER_OP_NONE) {
        return;
    }
    if (c->lease != 0 && !c->has_tried_revoke) {
        c->has_tried_revoke = true;
        c->op = CLUSTER_OP_REVOKE;
        c->store->ops->revoke(c->store, c->lease, on_revoke, c);
        return;
    }
    c->store->ops->unwatch(c->store);
    c->is_watching = false;
    pthread_mutex_lock(&c->lock);
    bool is_new = !c->has_left;
    c->has_left = true;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        set_status(c, MOE_ERR_CANCELLED, "has left the cluster");
    }
}

/* ------------------------------------------------------------------------------------------------ registration */
static void write_node(cluster *c, moe_text *t)
{
    cluster_node n = {.incarnation = c->o.incarnation,
                      .memory_bytes = c->o.memory_bytes,
                      .expert_bytes = c->o.model.expert_bytes,
                      .draining = c->told.draining};

    (void)snprintf(n.address, sizeof n.address, "%s", c->o.address);
    (void)snprintf(n.device, sizeof n.device, "%s", c->o.device);
    (void)snprintf(n.zone, sizeof n.zone, "%s", c->o.zone);
    (void)snprintf(n.version, sizeof n.version, "%s", c->o.version);
    cluster_write_node(t, &n);
}

static void write_coordinator(cluster *c, moe_text *t)
{
    cluster_coordinator k = {.incarnation = c->o.incarnation, .epoch_applied = c->told.applied};

    (void)snprintf(k.address, sizeof k.address, "%s", c->o.address);
    cluster_write_coordinator(t, &k);
}

/* Own key (and a node's report), if the key is still as it was. */
static void send_registration(cluster *c, cluster_compare_kind kind, uint64_t revision)
{
    cluster_change_begin(c);
    cluster_change_compare(c, kind, c->own_key, revision);
    moe_text *record = cluster_change_put(c, c->own_key, c->lease);
    moe_text *ready = c->o.role == CLUSTER_NODE ? cluster_change_put(c, c->ready_key, c->lease) : NULL;
    pthread_mutex_lock(&c->lock);
    c->sent_version = c->told.version;
    if (ready != NULL) {
        const cluster_ready_record r = {
            .incarnation = c->o.incarnation, .epoch = c->told.ready_epoch, .bitmap = c->told.ready};
        write_node(c, record);
        cluster_write_ready(ready, &c->o.model, &r);
    } else {
        write_coordinator(c, record);
    }
    pthread_mutex_unlock(&c->lock);
    cluster_change_send(c);
}

/* Incarnation and address of the member that holds our id; false: the value is malformed, so nobody does. */
static bool read_holder(cluster *c, const cluster_entry *e, uint64_t *incarnation, char address[])
{
    moe_error err;
    cluster_node n;
    cluster_coordinator k;

    if (c->o.role == CLUSTER_NODE && cluster_read_node(e->value, e->value_bytes, &n, &err) == MOE_OK) {
        *incarnation = n.incarnation;
        memcpy(address, n.address, sizeof n.address);
        return true;
    }
    if (c->o.role == CLUSTER_COORDINATOR && cluster_read_coordinator(e->value, e->value_bytes, &k, &err) == MOE_OK) {
        *incarnation = k.incarnation;
        memcpy(address, k.address, sizeof k.address);
        return true;
    }
    return false;
}

/* Another incarnation holds our id: refused while it answers, replaced otherwise. True: a change was sent. */
static bool contest(cluster *c, const cluster_entry *e, uint64_t incarnation, const char *address, uint64_t now)
{
    char why[sizeof c->why.text];

    if (now < c->ask_due_ns) {
        return false;
    }
    c->ask_due_ns = now + CLUSTER_ASK;
    cluster_alive alive =
        c->o.alive != NULL ? c->o.alive(c->o.ctx, c->o.role, c->o.id, address, incarnation) : CLUSTER_ALIVE_UNKNOWN;
    if (alive == CLUSTER_ALIVE_NO) {
        MOE_INFO("cluster: id %s is taken over from incarnation %016llx, which does not answer at %s", c->o.id,
                 (unsigned long long)incarnation, address);
        send_registration(c, CLUSTER_COMPARE_MOD, e->mod_revision);
        return true;
    }
    (void)snprintf(why, sizeof why, "id %s is held by incarnation %016llx at %s%s", c->o.id,
                   (unsigned long long)incarnation, address,
                   alive == CLUSTER_ALIVE_YES ? ", which answers"
                                              : "; waiting for it to answer, or for its lease to end");
    set_status(c, alive == CLUSTER_ALIVE_YES ? MOE_ERR_EXISTS : MOE_ERR_UNAVAILABLE, why);
    return false;
}

/* The cluster's model; true: a change was sent, or there is nothing to do before it changes. */
static bool settle_model(cluster *c)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, "model");
    moe_error err;

    if (e == NULL) {
        cluster_change_begin(c);
        cluster_change_compare(c, CLUSTER_COMPARE_CREATE, "model", 0);
        cluster_write_model(cluster_change_put(c, "model", 0), &c->o.model);
        cluster_change_send(c);
        return true;
    }
    moe_status status = cluster_check_model(e->value, e->value_bytes, &c->o.model, &err);
    if (status != MOE_OK) {
        set_status(c, MOE_ERR_DENIED, err.text);
    }
    return status != MOE_OK;
}

static void begin_grant(cluster *c)
{
    c->op = CLUSTER_OP_GRANT;
    c->store->ops->grant(c->store, CLUSTER_LEASE_S, on_grant, c);
}

/* Own key under our lease. True: a call was made, or nothing more can be done now. */
static bool settle_registration(cluster *c, uint64_t now)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, c->own_key);
    char address[CLUSTER_MAX_ADDRESS + 1];
    uint64_t incarnation = 0;

    if (c->lease == 0) {
        begin_grant(c);
        return true;
    }
    if (e == NULL) {
        send_registration(c, CLUSTER_COMPARE_CREATE, 0);
        return true;
    }
    if (read_holder(c, e, &incarnation, address) && incarnation != c->o.incarnation) {
        (void)contest(c, e, incarnation, address, now);
        return true;
    }
    pthread_mutex_lock(&c->lock);
    bool is_told = c->told.version == c->told_version;
    pthread_mutex_unlock(&c->lock);
    if (incarnation == 0 || e->lease != c->lease || !is_told) {
        send_registration(c, CLUSTER_COMPARE_MOD, e->mod_revision);
        return true;
    }
    set_status(c, MOE_OK, "");
    return false;
}

/* ------------------------------------------------------------------------------------------------ policy */
cluster_policy cluster_policy_in_force(const cluster *c)
{
    const cluster_policy p = c->state->s.policy;

    return p.replication != 0 ? p
                              : (cluster_policy){.replication = MOE_MAX(c->o.policy.replication, 1u),
                                                 .min_nodes = MOE_MAX(c->o.policy.min_nodes, 1u)};
}

static void send_policy(cluster *c, const cluster_policy *p, uint64_t mod_revision)
{
    cluster_change_begin(c);
    cluster_change_compare(c, CLUSTER_COMPARE_MOD, "policy", mod_revision);
    cluster_write_policy(cluster_change_put(c, "policy", 0), p);
    cluster_change_send(c);
}

/* What was asked for, as far as it is not so already; false: nothing. */
static bool take_asked(cluster *c, cluster_policy *p, uint64_t now)
{
    pthread_mutex_lock(&c->lock);
    cluster_policy asked = c->asked.policy;
    bool is_set = (asked.replication == 0 || asked.replication == p->replication) &&
                  (asked.min_nodes == 0 || asked.min_nodes == p->min_nodes);
    if (is_set || now >= c->asked.until_ns) {
        c->asked.policy = asked = (cluster_policy){0};
    }
    pthread_mutex_unlock(&c->lock);
    p->replication = asked.replication != 0 ? asked.replication : p->replication;
    p->min_nodes = asked.min_nodes != 0 ? asked.min_nodes : p->min_nodes;
    return asked.replication != 0 || asked.min_nodes != 0;
}

/* The cluster's policy is not ours: said once of each that is found. */
static void compare_policy(cluster *c, const cluster_policy *p)
{
    const cluster_policy mine = c->o.policy;
    bool differs = (mine.replication != 0 && mine.replication != p->replication) ||
                   (mine.min_nodes != 0 && mine.min_nodes != p->min_nodes);

    if (differs && memcmp(&c->warned, p, sizeof *p) != 0) {
        c->warned = *p;
        MOE_WARN("cluster: the policy of cluster %s is replication %u, min_nodes %u: what %s was started with "
                 "(replication %u, min_nodes %u; 0: not given) has no effect; `conclave placement policy` changes it",
                 c->o.cluster, p->replication, p->min_nodes, c->o.id, mine.replication, mine.min_nodes);
    }
}

/* The cluster's policy: the first coordinator writes its own, after a wipe whoever is first what was known. True: a change
 * was sent. A malformed one stays, for people to look at, until another is asked for. */
static bool settle_policy(cluster *c, uint64_t now)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, "policy");
    cluster_policy p = cluster_policy_in_force(c);

    if (c->o.role != CLUSTER_COORDINATOR) {
        return false;
    }
    if (e == NULL || take_asked(c, &p, now)) {
        send_policy(c, &p, e != NULL ? e->mod_revision : 0);
        return true;
    }
    compare_policy(c, &p);
    return false;
}

static bool is_registered(const cluster *c)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, c->own_key);

    return e != NULL && c->lease != 0 && e->lease == c->lease;
}

/* ------------------------------------------------------------------------------------------------ election */
/* The controller's key, if it is ours under our lease. */
static const cluster_entry *own_control(const cluster *c)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, "controller");

    return c->o.role == CLUSTER_COORDINATOR && e != NULL && c->lease != 0 && e->lease == c->lease ? e : NULL;
}

static bool campaign(cluster *c)
{
    if (c->o.role != CLUSTER_COORDINATOR || cluster_mirror_find(&c->mirror, "controller") != NULL) {
        return false;
    }
    cluster_change_begin(c);
    cluster_change_compare(c, CLUSTER_COMPARE_CREATE, "controller", 0);
    cluster_write_controller(cluster_change_put(c, "controller", c->lease), c->o.id, c->o.incarnation);
    cluster_change_send(c);
    return true;
}

/* ------------------------------------------------------------------------------------------------ vanished nodes */
static cluster_vanished *find_vanished(cluster *c, const cluster_node *n)
{
    for (size_t i = 0; i < c->n_vanished; i++) {
        if (c->vanished[i].incarnation == n->incarnation && strcmp(c->vanished[i].id, n->id) == 0) {
            return &c->vanished[i];
        }
    }
    return NULL;
}

static bool keep_vanished(void *ctx, const cluster_node *n)
{
    cluster *c = ctx;
    cluster_vanished *v = find_vanished(c, n);

    if (v == NULL && c->n_vanished < MOE_COUNT(c->vanished)) {
        uint64_t now = cluster_now(c);

        v = &c->vanished[c->n_vanished++];
        *v = (cluster_vanished){.incarnation = n->incarnation, .since_ns = now, .asked_ns = now};
        memcpy(v->id, n->id, sizeof v->id);
        MOE_INFO("cluster: the key of node %s has vanished", n->id);
    }
    return v != NULL && !v->is_gone;
}

/* Those that are present again, or were dropped, are forgotten. */
static void prune_vanished(cluster *c)
{
    size_t n = 0;

    for (size_t i = 0; i < c->n_vanished; i++) {
        const cluster_node *node = cluster_state_node(&c->state->s, c->vanished[i].id);

        if (node != NULL && !node->registered && node->incarnation == c->vanished[i].incarnation) {
            c->vanished[n++] = c->vanished[i];
        }
    }
    c->n_vanished = n;
}

static void judge(cluster *c, cluster_vanished *v, uint64_t now)
{
    const cluster_node *n = cluster_state_node(&c->state->s, v->id);

    if (c->o.role != CLUSTER_COORDINATOR || c->o.alive == NULL) {
        v->is_gone = now - v->since_ns >= CLUSTER_VANISHED;
    } else if (now - v->asked_ns >= CLUSTER_ASK && n != NULL) {
        v->asked_ns = now;
        v->is_gone = c->o.alive(c->o.ctx, CLUSTER_NODE, n->id, n->address, n->incarnation) == CLUSTER_ALIVE_NO;
    }
    if (v->is_gone) {
        MOE_INFO("cluster: node %s is gone", v->id);
        c->is_dirty = true;
    }
}

/* While the store does not answer nobody is dropped: what is known stays in force. */
static void judge_vanished(cluster *c, uint64_t now)
{
    for (size_t i = 0; i < c->n_vanished && c->connected && c->is_synced; i++) {
        judge(c, &c->vanished[i], now);
    }
}

/* ------------------------------------------------------------------------------------------------ publishing */
static void publish(cluster *c)
{
    const cluster_entry *control = own_control(c);
    uint64_t ignored = 0;
    const cluster_state_input in = {.mirror = &c->mirror,
                                    .model = &c->o.model,
                                    .previous = c->state,
                                    .keep = keep_vanished,
                                    .ctx = c,
                                    .ignored = &ignored};
    cluster_state_box *box = cluster_state_build(&in);

    if (box == NULL) {
        MOE_ERROR("cluster: no memory for a new state, the last one stays");
        return;
    }
    box->s.connected = c->connected;
    box->s.registered = is_registered(c);
    box->s.revision = c->revision;
    box->s.is_controller = control != NULL;
    pthread_mutex_lock(&c->lock);
    c->stats.ignored += ignored;
    c->stats.elections += control != NULL && !c->state->s.is_controller;
    cluster_state_box *old = c->state;
    c->state = box;
    pthread_mutex_unlock(&c->lock);
    if (old->s.is_controller && !box->s.is_controller) {
        cluster_control_reset(c);
    }
    cluster_state_release(&old->s);
    c->is_dirty = false;
    prune_vanished(c);
    if (c->o.changed != NULL) {
        c->o.changed(c->o.ctx);
    }
}

/* ------------------------------------------------------------------------------------------------ one turn */
/* One call, if one is due; lowers *due. */
static void act(cluster *c, uint64_t now, uint64_t *due)
{
    if (c->op != CLUSTER_OP_NONE) {
        return;
    }
    if (now < c->retry_due_ns) {
        *due = MOE_MIN(*due, c->retry_due_ns);
        return;
    }
    if (!c->is_synced || now >= c->list_due_ns) {
        begin_list(c);
        return;
    }
    if (!c->is_watching) {
        c->is_watching = true;
        count(c, &c->stats.watches);
        c->watch_revision = c->list_revision + 1;
        c->store->ops->watch(c->store, c->prefix, c->watch_revision, on_watch, c);
    }
    if (settle_model(c) || settle_registration(c, now) || settle_policy(c, now) || campaign(c)) {
        *due = MOE_MIN(*due, c->ask_due_ns > now ? c->ask_due_ns : *due);
        return;
    }
    if (own_control(c) != NULL && c->state->s.is_controller) {
        (void)cluster_control(c, now, due);
    }
}

static bool is_leaving(cluster *c)
{
    pthread_mutex_lock(&c->lock);
    bool leaving = c->leaving;
    pthread_mutex_unlock(&c->lock);
    return leaving;
}

static uint64_t next_due(const cluster *c, uint64_t now)
{
    uint64_t due = now + CLUSTER_SECOND;

    if (c->is_synced) {
        due = MOE_MIN(due, MOE_MAX(c->list_due_ns, now));
    }
    if (c->lease != 0 && !c->beat_under_way) {
        due = MOE_MIN(due, MOE_MAX(c->beat_due_ns, now));
    }
    return due;
}

uint64_t cluster_step(cluster *c)
{
    c->store->ops->poll(c->store, 0);
    uint64_t now = cluster_now(c), due = UINT64_MAX;

    pthread_mutex_lock(&c->lock);
    c->stats.steps++;
    c->stats.last_step_ns = now;
    pthread_mutex_unlock(&c->lock);
    if (is_leaving(c)) {
        leave(c);
    } else {
        beat(c, now);
        judge_vanished(c, now);
        if (c->is_dirty && c->is_synced) { /* the controller looks at the state */
            publish(c);
        }
        act(c, now, &due);
    }
    if (c->is_dirty) {
        publish(c);
    }
    return MOE_MIN(due, next_due(c, now));
}
