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
 *   campaign        coordinators: write `controller` if it is absent, under a lease of its own
 *   control         the elected one: controller.c
 *
 * One call at a time is under way beside the keepalive and the watch. Transactions never run beside a list, so the
 * mirror only moves forward. */
#include "cluster/cluster_priv.h"

#include <string.h>

/* ------------------------------------------------------------------------------------------------ leaving */
static void leave(cluster *c)
{
    if (c->op != CLUSTER_OP_NONE) {
        return;
    }
    if (cluster_lease_revoke(&c->office) || cluster_lease_revoke(&c->lease)) {
        return;
    }
    c->store->ops->unwatch(c->store);
    c->is_watching = false;
    pthread_mutex_lock(&c->lock);
    bool is_new = !c->has_left;
    c->has_left = true;
    pthread_mutex_unlock(&c->lock);
    if (is_new) {
        cluster_set_status(c, MOE_ERR_CANCELLED, "has left the cluster");
    }
}

/* ------------------------------------------------------------------------------------------------ registration */
static void write_node(cluster *c, moe_text *t)
{
    cluster_node n = {.incarnation = c->o.incarnation,
                      .memory_bytes = c->o.memory_bytes,
                      .expert_bytes = c->o.model.expert_bytes,
                      .draining = c->told.draining,
                      .failed = c->told.failed,
                      .packs = c->told.packs,
                      .n_packs = c->told.n_packs};

    (void)snprintf(n.address, sizeof n.address, "%s", c->o.address);
    (void)snprintf(n.device, sizeof n.device, "%s", c->o.device);
    (void)snprintf(n.zone, sizeof n.zone, "%s", c->o.zone);
    (void)snprintf(n.version, sizeof n.version, "%s", c->o.version);
    (void)snprintf(n.why, sizeof n.why, "%s", c->told.failed_why);
    cluster_write_node(t, &n);
}

static bool has_bits(const cluster_told_bits *t)
{
    uint64_t any = 0;

    for (size_t w = 0; w < router_space_words(t->space); w++) {
        any |= t->bits[w];
    }
    return any != 0;
}

static void write_coordinator(cluster *c, moe_text *t)
{
    cluster_coordinator k = {.incarnation = c->o.incarnation, .epoch_applied = c->told.applied};

    if (c->told.settled_epoch > c->told.applied) { /* else it says nothing more */
        k.epoch_settled = c->told.settled_epoch;
        k.settled = c->told.settled.bits;
    }
    if (has_bits(&c->told.used)) {
        k.used = c->told.used.bits;
    }
    k.prepared = c->told.prepared;
    k.failed = c->told.failed;
    (void)snprintf(k.why, sizeof k.why, "%s", c->told.failed_why);
    (void)snprintf(k.address, sizeof k.address, "%s", c->o.address);
    cluster_write_coordinator(t, c->told.settled.space, c->told.used.space, &k, &c->told.missed);
}

/* Own key (and a node's report), if the key is still as it was. */
static void send_registration(cluster *c, cluster_compare_kind kind, uint64_t revision)
{
    cluster_change_begin(c);
    cluster_change_compare(c, kind, c->own_key, revision);
    moe_text *record = cluster_change_put(c, c->own_key, c->lease.id);
    moe_text *ready = c->o.role == CLUSTER_NODE ? cluster_change_put(c, c->ready_key, c->lease.id) : NULL;
    pthread_mutex_lock(&c->lock);
    c->sent_version = c->told.version;
    if (ready != NULL) {
        const cluster_ready_record r = {
            .incarnation = c->o.incarnation, .epoch = c->told.ready_epoch, .bitmap = c->told.ready.bits};
        write_node(c, record);
        cluster_write_ready(ready, c->told.ready.space, &r);
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

    if (c->o.role == CLUSTER_NODE && cluster_read_node(e->value, e->value_bytes, NULL, &n, &err) == MOE_OK) {
        *incarnation = n.incarnation;
        memcpy(address, n.address, sizeof n.address);
        return true;
    }
    if (c->o.role == CLUSTER_COORDINATOR &&
        cluster_read_coordinator(e->value, e->value_bytes, NULL, NULL, NULL, &k, &err) == MOE_OK) {
        *incarnation = k.incarnation;
        memcpy(address, k.address, sizeof k.address);
        return true;
    }
    return false;
}

/* Whether who answers is surely another one of our id that is there to stay, so that this member, once registered, has
 * lost it. A node that answers has said its incarnation in HELLO. A coordinator's port tells no name, and may have been
 * given to somebody else since the key was written: it counts when its key has outlived a lease. */
static bool has_displaced_us(cluster *c, uint64_t incarnation, uint64_t now)
{
    if (c->rival.incarnation != incarnation) {
        c->rival.incarnation = incarnation;
        c->rival.since_ns = now;
    }
    return c->was_registered &&
           (c->o.role == CLUSTER_NODE || now - c->rival.since_ns > CLUSTER_LEASE_S * CLUSTER_SECOND);
}

static void set_displaced(cluster *c, bool displaced)
{
    pthread_mutex_lock(&c->lock);
    c->displaced = displaced;
    pthread_mutex_unlock(&c->lock);
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
    if (alive >= CLUSTER_ALIVE_NO) {
        MOE_INFO("cluster: id %s is taken over from incarnation %016llx, which does not answer at %s", c->o.id,
                 (unsigned long long)incarnation, address);
        send_registration(c, CLUSTER_COMPARE_MOD, e->mod_revision);
        return true;
    }
    (void)snprintf(why, sizeof why, "id %s is held by incarnation %016llx at %s%s", c->o.id,
                   (unsigned long long)incarnation, address,
                   alive == CLUSTER_ALIVE_YES ? ", which answers"
                                              : "; waiting for it to answer, or for its lease to end");
    if (alive == CLUSTER_ALIVE_YES && has_displaced_us(c, incarnation, now)) {
        set_displaced(c, true);
    }
    cluster_set_status(c, alive == CLUSTER_ALIVE_YES ? MOE_ERR_EXISTS : MOE_ERR_UNAVAILABLE, why);
    return false;
}

static void send_model(cluster *c, uint64_t mod_revision)
{
    cluster_change_begin(c);
    cluster_change_compare(c, CLUSTER_COMPARE_MOD, "model", mod_revision);
    cluster_write_model(cluster_change_put(c, "model", 0), &c->o.model);
    cluster_change_send(c);
}

/* Whether somebody is there under a lease who signs otherwise than we do. */
static bool has_other_members(const cluster *c)
{
    for (size_t i = 0; i < c->mirror.n; i++) {
        const cluster_entry *e = &c->mirror.entries[i];

        if (e->doubt != NULL && e->lease != 0 && cluster_key_kind_of(e->key, 0) == CLUSTER_KEY_LEASED) {
            return true;
        }
    }
    return false;
}

/* A model that is absent, or that no member can have written. One that knows it writes it anew; so does a new member, but
 * not beside others: they may be of another model, or of another secret, and two that do not believe each other would
 * write for ever. Always true. */
static bool mend_model(cluster *c, const cluster_entry *e)
{
    bool is_new = e != NULL && c->model_revision == 0;

    if (is_new && c->state->s.n_nodes + c->state->s.n_coordinators > 0) {
        cluster_set_status(c, MOE_ERR_UNAVAILABLE,
                           "the key model is malformed: waiting for one of the cluster's members to write it anew");
    } else if (is_new && e->doubt != NULL && has_other_members(c)) {
        cluster_set_status(c, MOE_ERR_DENIED,
                           "the records of the cluster's members are not signed with our secret: is --secret-file the "
                           "cluster's, and theirs?");
    } else {
        send_model(c, e != NULL ? e->mod_revision : 0);
    }
    return true;
}

static void complain(cluster *c, cluster_entry *e, const moe_error *err)
{
    if (cluster_entry_complain(e, err)) {
        cluster_count(c, &c->stats.ignored);
    }
}

/* The cluster's model; true: a change was sent, or there is nothing to do before it changes. Once it was found to be ours,
 * another one in its place stops nobody. */
static bool settle_model(cluster *c)
{
    cluster_entry *e = cluster_mirror_find(&c->mirror, "model");
    moe_error err;

    if (e == NULL || e->doubt != NULL) {
        return mend_model(c, e);
    }
    if (e->mod_revision == c->model_revision) {
        return false;
    }
    if (c->model_revision == 0 && !c->seal.present && cluster_seal_is_there(e->value, e->value_bytes)) {
        cluster_set_status(c, MOE_ERR_DENIED, "the cluster's members sign with a secret: --secret-file is needed");
        return true;
    }
    moe_status status = cluster_check_model(e->value, e->value_bytes, &c->o.model, &err);
    if (status == MOE_OK) {
        c->model_revision = e->mod_revision;
        return false;
    }
    if (status == MOE_ERR_DENIED && c->model_revision == 0) {
        cluster_set_status(c, MOE_ERR_DENIED, err.text);
        return true;
    }
    complain(c, e, &err);
    return status != MOE_ERR_DENIED && mend_model(c, e);
}

/* Own key under our lease. True: a call was made, or nothing more can be done now. */
static bool settle_registration(cluster *c, uint64_t now)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, c->own_key);
    const cluster_entry *ready = cluster_mirror_read(&c->mirror, c->ready_key);
    bool lacks_ready = c->o.role == CLUSTER_NODE && (ready == NULL || ready->lease != c->lease.id);
    char address[CLUSTER_MAX_ADDRESS + 1];
    uint64_t incarnation = 0;

    if (c->lease.id == 0) {
        cluster_lease_grant(&c->lease);
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
    is_told = is_told && e->mod_revision == c->own_revision; /* a restored store has an older report */
    is_told =
        is_told && (ready == NULL || ready->mod_revision == c->own_revision); /* or somebody else has written one */
    if (incarnation == 0 || e->lease != c->lease.id || lacks_ready || !is_told) {
        send_registration(c, CLUSTER_COMPARE_MOD, e->mod_revision);
        return true;
    }
    c->was_registered = true;
    set_displaced(c, false);
    cluster_set_status(c, MOE_OK, "");
    return false;
}

static bool is_registered(const cluster *c)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, c->own_key);

    return e != NULL && c->lease.id != 0 && e->lease == c->lease.id;
}

/* ------------------------------------------------------------------------------------------------ election */
/* The controller's key, if we hold it. */
static const cluster_entry *own_control(const cluster *c)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, "controller");

    return c->o.role == CLUSTER_COORDINATOR && e != NULL && c->office.id != 0 && e->lease == c->office.id ? e : NULL;
}

/* Whether the office is held by nobody, although its key is there: who holds it is a coordinator that is registered, and
 * knows of it. */
static bool is_usurped(const cluster *c, const cluster_entry *e)
{
    char key[96], id[ROUTER_MAX_NODE_ID + 1];
    cluster_coordinator k;
    uint64_t incarnation;
    moe_error err;

    if (own_control(c) != NULL) {
        return false;
    }
    if (e->doubt != NULL || cluster_read_controller(e->value, e->value_bytes, id, &incarnation, &err) != MOE_OK) {
        return true;
    }
    (void)snprintf(key, sizeof key, "coordinators/%s", id);
    const cluster_entry *holder = cluster_mirror_read(&c->mirror, key);
    return holder == NULL ||
           cluster_read_coordinator(holder->value, holder->value_bytes, NULL, NULL, NULL, &k, &err) != MOE_OK ||
           k.incarnation != incarnation || incarnation == c->o.incarnation;
}

/* A key that no coordinator can have written is deleted first: to write over it would keep its create_revision, and an
 * election could not be told from the one before. */
static bool campaign(cluster *c)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, "controller");

    if (c->o.role != CLUSTER_COORDINATOR || own_control(c) != NULL) {
        return false;
    }
    if (e != NULL && !is_usurped(c, e)) {
        c->office.id = 0; /* another one was faster: ours is left to end */
        return false;
    }
    if (e == NULL && c->office.id == 0) {
        cluster_lease_grant(&c->office);
        return true;
    }
    cluster_change_begin(c);
    if (e != NULL) {
        cluster_change_compare(c, CLUSTER_COMPARE_MOD, "controller", e->mod_revision);
        cluster_change_delete(c, "controller");
    } else {
        cluster_change_compare(c, CLUSTER_COMPARE_CREATE, "controller", 0);
        cluster_write_controller(cluster_change_put(c, "controller", c->office.id), c->o.id, c->o.incarnation);
    }
    cluster_change_send(c);
    return true;
}

/* ------------------------------------------------------------------------------------------------ publishing */
static void publish(cluster *c)
{
    const cluster_entry *control = own_control(c);
    uint64_t ignored = 0;
    const cluster_state_input in = {.mirror = &c->mirror,
                                    .model = &c->o.model,
                                    .first = c->first_catalogue,
                                    .previous = c->state,
                                    .keep = cluster_keep_vanished,
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
    cluster_prune_vanished(c);
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
    if (atomic_load_explicit(&c->is_outdated, memory_order_relaxed) && atomic_exchange(&c->is_outdated, false)) {
        c->list_due_ns = MOE_MIN(c->list_due_ns, c->listed_ns + CLUSTER_SECOND);
    }
    if (!c->is_synced || now >= c->list_due_ns) {
        cluster_list_begin(c);
        return;
    }
    if (!c->is_watching) {
        cluster_watch_begin(c);
    }
    if (settle_model(c) || settle_registration(c, now) || cluster_settle_policy(c, now) ||
        cluster_settle_catalogue(c, now) || campaign(c)) {
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
    return MOE_MIN(due, MOE_MIN(cluster_lease_due(&c->lease, now), cluster_lease_due(&c->office, now)));
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
        cluster_lease_beat(&c->lease, now);
        cluster_lease_beat(&c->office, now);
        cluster_judge_vanished(c, now);
        if (c->is_dirty && c->is_synced) { /* the controller looks at the state */
            publish(c);
        }
        cluster_listen(c, now, &due);
        act(c, now, &due);
    }
    if (c->is_dirty) {
        publish(c);
    }
    return MOE_MIN(due, next_due(c, now));
}
