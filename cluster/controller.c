/* Controller: what the elected coordinator does in its turn.
 *
 *   change    a pending change of the catalogue is ended (catalogue.c)
 *   repair    when experts have lost all of their owners: those alone are placed, at once
 *   aim       when membership has changed and then been quiet, or the tables need repair: solves who should own what
 *   publish   writes the result, a few layers in a transaction, the key `placement` with the epoch last
 *
 * Why nobody can publish for a controller that has been replaced: each transaction compares the create_revision of the
 * key `controller` with that of this election. The key goes with its lease and is made anew by the next one, so
 * a controller that slept through its lease cannot write a single layer.
 *
 * Why the epoch goes last: readers take a placement only if all layers have the epoch that `placement` names. A
 * controller that dies half-way leaves layers of a newer epoch, and readers keep the last whole placement; the next
 * controller sees that the tables are torn and writes all of them again, with an epoch above all that was ever seen. */
#include "cluster/cluster_priv.h"

#include <stdlib.h>
#include <string.h>

/* Values of one transaction, at most one layer more. etcd takes requests of 1.5 MiB (--max-request-bytes), the
 * gateway's base64 adds a third, and a layer has at most 4096 experts. */
#define CHANGE_BYTES ((size_t)512 << 10)

static uint64_t hash(uint64_t h, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < n; i++) { /* FNV-1a */
        h = (h ^ p[i]) * 0x100000001b3u;
    }
    return h;
}

/* ------------------------------------------------------------------------------------------------ placing */
/* Draining and lost nodes are given nothing, nor is one that nobody may be able to reach. Those whose key has vanished
 * but may answer keep what they have, as do those that a new controller has not met yet. */
static bool counts(const cluster *c, const cluster_node *n)
{
    return !n->draining && !cluster_is_lost(c, n) && (cluster_is_met(c, n) || cluster_is_placed(&c->state->s, n->id));
}

/* What the placement depends on: who is there, and what is wanted. Not the incarnation: a node that comes back under its id is given what it had. */
static uint64_t hash_membership(cluster *c, const uint64_t *wanted)
{
    const cluster_state *s = &c->state->s;
    const cluster_policy policy = cluster_policy_in_force(c);
    uint64_t h = hash(0xcbf29ce484222325u, &policy.replication, sizeof policy.replication);

    h = hash(h, wanted, router_space_words(s->space) * sizeof *wanted);
    for (size_t i = 0; i < s->n_nodes; i++) {
        const cluster_node *n = &s->nodes[i];

        if (counts(c, n)) {
            h = hash(h, n->id, strlen(n->id) + 1);
            h = hash(h, n->zone, strlen(n->zone) + 1);
            h = hash(h, &n->memory_bytes, sizeof n->memory_bytes);
            h = hash(h, &n->expert_bytes, sizeof n->expert_bytes);
        }
    }
    return h;
}

static size_t gather(cluster *c, router_solver_node nodes[ROUTER_MAX_NODES], size_t *n_registered)
{
    const cluster_state *s = &c->state->s;
    size_t n = 0;

    *n_registered = 0;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const cluster_node *node = &s->nodes[i];

        if (counts(c, node)) {
            nodes[n++] = (router_solver_node){node->id, node->zone, node->memory_bytes, node->expert_bytes};
            *n_registered += node->registered;
        }
    }
    return n;
}

static uint32_t count_placed(const router_placement *p)
{
    uint32_t n_placed = 0;
    size_t n;

    for (uint32_t slot = 0; slot < router_space_n_slots(router_placement_space(p)); slot++) {
        (void)router_placement_owners(p, slot, &n);
        n_placed += n > 0;
    }
    return n_placed;
}

/* The most owners that an expert has; *n_fewer: how many experts have fewer than `wanted`. */
static uint32_t count_copies(const router_placement *p, uint32_t wanted, size_t *n_fewer)
{
    size_t most = 0, n;

    *n_fewer = 0;
    for (uint32_t slot = 0; slot < router_space_n_slots(router_placement_space(p)); slot++) {
        (void)router_placement_owners(p, slot, &n);
        most = MOE_MAX(most, n);
        *n_fewer += n > 0 && n < wanted; /* what has none is not wanted */
    }
    return (uint32_t)most;
}

/* Everybody is there again for whom home was solved. Solving it once more moves nothing. */
static bool is_home(const cluster *c)
{
    return c->ctl.home != NULL && c->ctl.solved == c->ctl.membership;
}

/* Fewer copies than asked for are better than none; it is said once. */
static router_placement *solve(cluster *c, const router_solver_node *nodes, size_t n, const uint64_t *bits,
                               bool only_lost, uint32_t *replication, moe_error *err)
{
    const uint32_t wanted = cluster_policy_in_force(c).replication;
    size_t n_fewer;
    router_placement *p = NULL;
    const router_solver_input in = {.nodes = nodes,
                                    .n_nodes = n,
                                    .space = c->state->s.space,
                                    .wanted = bits,
                                    .replication = wanted,
                                    .previous = is_home(c) ? c->ctl.home : c->state->s.desired,
                                    .only_lost = only_lost,
                                    .epoch = c->state->highest_epoch + 1};

    if (router_solve(&in, &p, err) != MOE_OK) {
        if (!c->ctl.has_complained) {
            MOE_WARN("cluster: controller: %s", err->text);
        }
        c->ctl.has_complained = true;
        return NULL;
    }
    *replication = count_copies(p, MOE_MIN(wanted, (uint32_t)n), &n_fewer);
    if (n_fewer > 0 && !c->ctl.has_complained && !only_lost) {
        MOE_WARN("cluster: controller: the memory of %zu nodes does not suffice for %u copies: %zu of %zu experts have "
                 "fewer",
                 n, MOE_MIN(wanted, (uint32_t)n), n_fewer, (size_t)count_placed(p));
    }
    c->ctl.has_complained = n_fewer > 0 && !only_lost;
    return p;
}

static bool same_owners(const router_placement *a, const router_placement *b, uint32_t slot)
{
    size_t n_a, n_b;
    const uint32_t *of_a = router_placement_owners(a, slot, &n_a);
    const uint32_t *of_b = router_placement_owners(b, slot, &n_b);

    return n_a == n_b && (n_a == 0 || memcmp(of_a, of_b, n_a * sizeof *of_a) == 0);
}

static bool is_same(const router_placement *a, const router_placement *b)
{
    if (a == NULL || router_placement_n_nodes(a) != router_placement_n_nodes(b)) {
        return false;
    }
    for (size_t i = 0; i < router_placement_n_nodes(a); i++) {
        if (strcmp(router_placement_node_id(a, i), router_placement_node_id(b, i)) != 0) {
            return false;
        }
    }
    for (uint32_t slot = 0; slot < router_space_n_slots(router_placement_space(b)); slot++) {
        if (!same_owners(a, b, slot)) {
            return false;
        }
    }
    return true;
}

/* The store's tables are missing, torn, or older than what somebody has seen: they are written anew even if nothing
 * moves. */
static bool needs_repair(const cluster_state_box *box)
{
    return box->placement_is_torn || box->highest_epoch > box->s.epoch ||
           (box->s.epoch != 0 && !box->placement_is_there);
}

/* Which nodes of the placement may still serve what they have; whether all do. One that this controller has not seen may
 * be starting at this moment, as all members may. */
static bool find_serving(cluster *c, bool serving[ROUTER_MAX_NODES])
{
    const cluster_state *s = &c->state->s;
    bool all = true;

    for (size_t i = 0; i < router_placement_n_nodes(s->desired); i++) {
        const cluster_node *n = cluster_state_node(s, router_placement_node_id(s->desired, i));

        serving[i] = n == NULL ? c->ctl.solved == 0 : n->draining ? !cluster_is_lost(c, n) : counts(c, n);
        all = all && n != NULL && serving[i];
    }
    return all;
}

static bool has_owner(const router_placement *p, uint32_t slot, const bool serving[ROUTER_MAX_NODES])
{
    size_t n;
    const uint32_t *owners = router_placement_owners(p, slot, &n);

    for (size_t i = 0; i < n; i++) {
        if (serving[owners[i]]) {
            return true;
        }
    }
    return false;
}

/* Also of those that have never had one: the experts of a change are placed as soon as it is there. */
static bool any_is_lost(const cluster *c, const uint64_t *wanted, const bool serving[ROUTER_MAX_NODES])
{
    const router_space *space = c->state->s.space;

    for (uint32_t slot = 0; slot < router_space_n_slots(space); slot++) {
        if (!router_space_expert(space, slot)->is_local && router_bit(wanted, slot) &&
            !has_owner(c->state->s.desired, slot, serving)) {
            return true;
        }
    }
    return false;
}

static void aim(cluster *c, const uint64_t *wanted, bool only_lost)
{
    const cluster_state_box *box = c->state;
    router_solver_node nodes[ROUTER_MAX_NODES];
    size_t n_registered, n = gather(c, nodes, &n_registered);
    uint32_t replication;

    bool is_first = box->highest_epoch == 0;
    if (n == 0 || (is_first && n_registered < cluster_policy_in_force(c).min_nodes) ||
        box->highest_epoch + 1 >= CLUSTER_MAX_EPOCH) {
        return;
    }
    moe_error why = {""};
    router_placement *p = solve(c, nodes, n, wanted, only_lost, &replication, &why);
    if (only_lost) {
        c->ctl.repaired = c->ctl.membership;
    } else {
        router_placement_unref(c->ctl.home);
        c->ctl.home = p != NULL ? router_placement_ref(p) : NULL;
        c->ctl.solved = c->ctl.membership;
        c->ctl.unsolved = why;
        c->ctl.repaired = 0;
    }
    if (p == NULL) {
        return;
    }
    c->ctl.is_repair = only_lost;
    if (!needs_repair(box) && is_same(box->s.desired, p)) {
        router_placement_unref(p);
        return;
    }
    c->ctl.target = p;
    c->ctl.target_replication = replication;
    c->ctl.next_layer = 0;
}

static void aim_when_due(cluster *c, const uint64_t *wanted, uint64_t now, uint64_t *due_ns)
{
    const router_placement *desired = c->state->s.desired;
    bool serving[ROUTER_MAX_NODES];
    bool all = desired == NULL || find_serving(c, serving);

    if (desired != NULL && c->ctl.repaired != c->ctl.membership && any_is_lost(c, wanted, serving)) {
        aim(c, wanted, true);
        return;
    }
    bool is_solved = c->ctl.solved == c->ctl.membership;
    if (is_solved && !c->ctl.is_repair && !needs_repair(c->state)) {
        return;
    }
    uint64_t quiet = all && (is_solved || !c->ctl.is_repair) ? CLUSTER_QUIET : CLUSTER_RESTORE;
    if (now - c->ctl.changed_ns < quiet) {
        *due_ns = MOE_MIN(*due_ns, c->ctl.changed_ns + quiet);
        return;
    }
    aim(c, wanted, false);
}

/* One transaction of the publication: as many layers as it takes, and after the last one the epoch. */
static void publish_part(cluster *c, uint64_t create_revision)
{
    uint32_t n_layers = router_space_n_layers(c->o.model.space);
    size_t bytes = 0;

    cluster_change_begin(c);
    cluster_change_compare(c, CLUSTER_COMPARE_CREATE, "controller", create_revision);
    while (c->ctl.next_layer < n_layers && c->change.n_puts < CLUSTER_TXN_PUTS - 1 && bytes < CHANGE_BYTES) {
        char key[32];

        (void)snprintf(key, sizeof key, "placement/%u", c->ctl.next_layer);
        moe_text *t = cluster_change_put(c, key, 0);
        cluster_write_layer(t, c->ctl.target, c->ctl.next_layer++);
        bytes += t->size;
    }
    if (c->ctl.next_layer == n_layers) {
        cluster_write_placement(cluster_change_put(c, "placement", 0), c->ctl.target, c->ctl.target_replication);
        MOE_INFO("cluster: controller %s places %u experts of %u layers on %zu nodes, up to %u of each, epoch %llu",
                 c->o.id, count_placed(c->ctl.target), n_layers, router_placement_n_nodes(c->ctl.target),
                 c->ctl.target_replication, (unsigned long long)router_placement_epoch(c->ctl.target));
        router_placement_unref(c->ctl.target);
        c->ctl.target = NULL;
        pthread_mutex_lock(&c->lock);
        c->stats.placements++;
        pthread_mutex_unlock(&c->lock);
    }
    cluster_change_send(c);
}

bool cluster_control(cluster *c, uint64_t now, uint64_t *due_ns)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, "controller");
    uint64_t *wanted = cluster_holding_learn(c) ? cluster_wanted(c) : NULL;

    if (wanted == NULL) {
        cluster_holding_forget(c);
        return false;
    }
    uint64_t membership = hash_membership(c, wanted);
    if (membership != c->ctl.membership || c->ctl.changed_ns == 0) {
        c->ctl.membership = membership;
        c->ctl.changed_ns = now;
    }
    bool has_sent = c->ctl.target == NULL && cluster_control_catalogue(c, e, now, due_ns);
    if (!has_sent && c->ctl.target == NULL) {
        aim_when_due(c, wanted, now, due_ns);
    }
    free(wanted);
    cluster_holding_forget(c);
    if (!has_sent && c->ctl.target != NULL) {
        publish_part(c, e->create_revision);
        has_sent = true;
    }
    return has_sent;
}

void cluster_control_reset(cluster *c)
{
    router_placement_unref(c->ctl.target);
    router_placement_unref(c->ctl.home);
    c->ctl.target = c->ctl.home = NULL;
    c->ctl.solved = c->ctl.repaired = 0;
    c->ctl.is_repair = false;
    c->ctl.unsolved.text[0] = '\0';
    c->ctl.changed_ns = c->ctl.change = 0;
}
