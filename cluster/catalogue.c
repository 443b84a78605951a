/* Catalogue: what may be routed to, in the store; and how a change of it becomes true.
 *
 *   read      the newest that was ever seen stays in force: a malformed key, an older one (a store that was restored) and one
 *             that gives numbers of experts to others change nothing
 *   ask       any coordinator writes the next one, with the change pending in it, if it is made of the one that is there
 *   control   the elected coordinator alone ends a change: it commits when every registered coordinator has prepared and each expert of
 *             the set is ready on a node that serves (holding.c); it gives up for a member's reason, or when the time is over
 *
 * Why a change is done or undone and never half: each of the steps is one transaction on one key, which compares the key's
 * revision, and of the controller that of its election as well. A controller that dies leaves the change pending, and the
 * next one begins the time anew. */
#include "cluster/cluster_priv.h"

#include <stdlib.h>
#include <string.h>

/* Chosen, not measured: what a record may say of the time that a change has; a clock of another machine says no more than that. */
#define LEAST_NS (CLUSTER_SECOND)
#define MOST_NS  (3600 * CLUSTER_SECOND)

/* ------------------------------------------------------------------------------------------------ reading */
/* A change is first pending, then ended. */
static bool is_older(const catalogue *c, const catalogue *known)
{
    uint64_t n = catalogue_get_number(c), n_known = catalogue_get_number(known);

    return n < n_known || (n == n_known && catalogue_get_pending(c) != NULL && catalogue_get_pending(known) == NULL);
}

static catalogue *take(const cluster_state_input *in, const cluster_entry *e, catalogue *known, moe_error *err)
{
    const catalogue_model *m = catalogue_get_model(in->first);
    const char *mac = cluster_seal_find(e->value, e->value_bytes);
    catalogue *c = NULL;
    moe_text text;

    /* The mac is no part of it. */
    moe_text_init(&text, CATALOGUE_MAX_TEXT + 1);
    moe_text_append(&text, e->value, mac != NULL ? (size_t)(mac - e->value) : e->value_bytes);
    moe_text_printf(&text, mac != NULL ? "}" : "");
    moe_status status = text.failed
                            ? moe_fail(err, MOE_ERR_CORRUPT, "%zu bytes, limit %zu", e->value_bytes, CATALOGUE_MAX_TEXT)
                            : catalogue_read(m, text.data, text.size, known, &c, err);
    moe_text_fini(&text);
    if (status != MOE_OK) {
        return NULL;
    }
    if (is_older(c, known)) {
        (void)moe_fail(err, MOE_ERR_CORRUPT, "change %llu is older than %llu, which stays in force",
                       (unsigned long long)catalogue_get_number(c), (unsigned long long)catalogue_get_number(known));
    } else if (!router_space_continues(catalogue_space(c), catalogue_space(known))) {
        (void)moe_fail(err, MOE_ERR_CORRUPT, "it gives numbers of experts to others than those who have them");
    } else {
        return c;
    }
    catalogue_unref(c);
    return NULL;
}

void cluster_read_catalogue(const cluster_state_input *in, cluster_state_box *box)
{
    cluster_entry *e = cluster_mirror_read(in->mirror, "catalogue");
    const cluster_state_box *p = in->previous;
    catalogue *known = p != NULL ? p->s.catalogue : in->first;
    moe_error err = {""};

    box->s.catalogue_revision = e != NULL ? e->mod_revision : 0;
    bool is_read = p != NULL && e != NULL && e->mod_revision == p->s.catalogue_revision;
    catalogue *c = e != NULL && !is_read ? take(in, e, known, &err) : NULL;
    box->catalogue_is_refused = is_read ? p->catalogue_is_refused : e != NULL && c == NULL;
    if (e != NULL && !is_read && c == NULL) {
        *in->ignored += cluster_entry_complain(e, &err);
    }
    box->s.catalogue = c != NULL ? c : catalogue_ref(known);
    box->s.space = catalogue_space(box->s.catalogue);
}

/* ------------------------------------------------------------------------------------------------ writing */
static void put_catalogue(cluster *c, const catalogue *what)
{
    moe_text *t = cluster_change_put(c, "catalogue", 0);

    t->limit = CATALOGUE_MAX_TEXT + 128; /* and the mac */
    catalogue_write(what, t);
}

/* The entry that a transaction is to replace, by its revision; 0: there is none. */
static uint64_t revision_in_store(const cluster *c)
{
    const cluster_entry *e = cluster_mirror_find(&c->mirror, "catalogue");

    return e != NULL ? e->mod_revision : 0;
}

bool cluster_settle_catalogue(cluster *c, uint64_t now)
{
    pthread_mutex_lock(&c->lock);
    catalogue *asked = c->asked.catalogue;
    const uint64_t revision = c->asked.catalogue_revision;
    bool is_due = asked != NULL && now < c->asked.catalogue_until_ns && revision == revision_in_store(c) &&
                  !c->state->catalogue_is_refused;
    c->asked.catalogue = NULL; /* it is tried once: whoever asked looks whether it is there */
    pthread_mutex_unlock(&c->lock);
    if (is_due) {
        cluster_change_begin(c);
        cluster_change_compare(c, CLUSTER_COMPARE_MOD, "catalogue", revision);
        put_catalogue(c, asked);
        cluster_change_send(c);
    }
    catalogue_unref(asked);
    return is_due;
}

static bool write_next(cluster *c, const cluster_entry *office, const catalogue *next)
{
    cluster_change_begin(c);
    cluster_change_compare(c, CLUSTER_COMPARE_CREATE, "controller", office->create_revision);
    cluster_change_compare(c, CLUSTER_COMPARE_MOD, "catalogue", revision_in_store(c));
    put_catalogue(c, next);
    cluster_change_send(c);
    return true;
}

/* ------------------------------------------------------------------------------------------------ control */
static uint64_t wall_ms(const cluster *c)
{
    return c->o.wall_ms != NULL ? c->o.wall_ms(c->o.ctx) : cluster_now(c) / 1000000;
}

/* What nodes have that stay. One that has not told yet may have what its key says: too much is kept rather than too little. */
static void mark_held(const cluster *c, uint64_t *bitmap)
{
    const cluster_state *s = &c->state->s;

    for (size_t i = 0; i < s->n_nodes; i++) {
        const cluster_node *n = &s->nodes[i];
        const bool stays = !n->draining && !cluster_is_lost(c, n);
        const uint64_t *told = cluster_holding_of(c, n), *held = told != NULL ? told : n->ready;

        for (size_t w = 0; stays && w < router_space_words(s->space); w++) {
            bitmap[w] |= held[w];
        }
    }
}

/* What is loaded wherever it is not: of the sets that live, of the pending one, and of those that requests run with. */
static void find_needed(const cluster_state *s, uint64_t *bitmap)
{
    catalogue_wanted(s->catalogue, UINT64_MAX, 0, bitmap); /* so late that no former default is kept */
    for (size_t i = 0; i < s->n_coordinators; i++) {
        for (size_t w = 0; s->coordinators[i].used != NULL && w < router_space_words(s->space); w++) {
            bitmap[w] |= s->coordinators[i].used[w];
        }
    }
}

/* Experts of former defaults stay where they are, so that an undo loads nothing; they are not loaded anew when their last
 * owner goes: the pack may have gone with it, and then a node would wait for it and not be ready. */
uint64_t *cluster_wanted(const cluster *c)
{
    const cluster_state *s = &c->state->s;
    const size_t n_words = router_space_words(s->space);
    uint64_t *bits = calloc(n_words, sizeof *bits), *other = calloc(n_words, sizeof *other);

    if (bits == NULL || other == NULL) {
        free(bits);
        free(other);
        return NULL;
    }
    catalogue_wanted(s->catalogue, wall_ms(c), c->o.keep_unused_ms, bits);
    mark_held(c, other);
    for (size_t w = 0; w < n_words; w++) {
        bits[w] &= other[w];
    }
    find_needed(s, other);
    for (size_t w = 0; w < n_words; w++) {
        bits[w] |= other[w];
    }
    free(other);
    return bits;
}

static bool is_ready(const cluster *c, const cluster_node *n, uint32_t slot)
{
    const uint64_t *held = cluster_holding_of(c, n);

    return held != NULL && router_bit(held, slot);
}

/* Ready on a node that counts as there. */
static bool is_covered(const cluster *c, uint32_t slot)
{
    const cluster_state *s = &c->state->s;

    for (size_t i = 0; i < s->n_nodes; i++) {
        if (is_ready(c, &s->nodes[i], slot) && !cluster_is_lost(c, &s->nodes[i])) {
            return true;
        }
    }
    return false;
}

/* An owner that has not loaded it yet; NULL: there is none. Whoever is lost or leaves is not waited for. */
static const cluster_node *find_loading(const cluster *c, uint32_t slot)
{
    const cluster_state *s = &c->state->s;
    size_t n = 0;
    const uint32_t *owners = s->desired == NULL ? NULL : router_placement_owners(s->desired, slot, &n);

    for (size_t i = 0; i < n; i++) {
        const cluster_node *node = cluster_state_node(s, router_placement_node_id(s->desired, owners[i]));

        if (node != NULL && !node->draining && !is_ready(c, node, slot) && !cluster_is_lost(c, node)) {
            return node;
        }
    }
    return NULL;
}

/* An expert that is new to the default must have all its owners, so that the loss of one costs no more than that of any
 * other; what the default has already may be on its way from one node to another. */
static bool is_awaited(const cluster *c, const router_expert *e, uint32_t slot, moe_error *why)
{
    const cluster_state *s = &c->state->s;
    const cluster_node *loading = NULL;

    if (!is_covered(c, slot)) {
        (void)moe_fail(why, MOE_ERR_TIMEOUT, "no node has layer %u expert %d ready", e->layer, e->id);
        return true;
    }
    if (!router_set_layer_has(router_set_at(catalogue_default(s->catalogue), e->layer), e->id)) {
        loading = find_loading(c, slot);
    }
    if (loading != NULL) {
        (void)moe_fail(why, MOE_ERR_TIMEOUT, "node %s has not loaded layer %u expert %d", loading->id, e->layer, e->id);
    }
    return loading != NULL;
}

/* What the change still waits for; false: nothing. */
static bool is_waiting(const cluster *c, const catalogue_pending *p, moe_error *why)
{
    const cluster_state *s = &c->state->s;

    for (size_t i = 0; i < s->n_coordinators; i++) {
        if (s->coordinators[i].prepared != p->number) {
            (void)moe_fail(why, MOE_ERR_TIMEOUT, "coordinator %s has not prepared", s->coordinators[i].id);
            return true;
        }
    }
    for (uint32_t l = 0; l < router_set_n_layers(p->target); l++) {
        const router_set_layer *layer = router_set_at(p->target, l);

        for (uint32_t i = 0; i < layer->n_experts; i++) {
            uint32_t slot = router_space_slot(s->space, l, layer->expert_ids[i]);
            const router_expert *e = router_space_expert(s->space, slot);

            if (!e->is_local && is_awaited(c, e, slot, why)) {
                return true;
            }
        }
    }
    return s->n_coordinators == 0; /* of the controller's own key */
}

/* An expert of the change is nowhere, and is given to nobody. */
static bool is_without_place(const cluster *c, const catalogue_pending *p)
{
    const cluster_state *s = &c->state->s;
    size_t n = 0;

    for (uint32_t slot = 0; slot < router_space_n_slots(s->space); slot++) {
        const router_expert *e = router_space_expert(s->space, slot);

        if (e->is_local || !router_set_layer_has(router_set_at(p->target, e->layer), e->id) || is_covered(c, slot)) {
            continue;
        }
        if (s->desired != NULL) {
            (void)router_placement_owners(s->desired, slot, &n);
        }
        if (n == 0) {
            return true;
        }
    }
    return false;
}

/* A member's reason, or that not even one copy of each expert fits into the nodes' memory. */
static bool has_failed(const cluster *c, const catalogue_pending *p, moe_error *why)
{
    const cluster_state *s = &c->state->s;

    for (size_t i = 0; i < s->n_coordinators; i++) {
        if (s->coordinators[i].failed == p->number) {
            (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "coordinator %s: %s", s->coordinators[i].id,
                           s->coordinators[i].why);
            return true;
        }
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (s->nodes[i].failed == p->number && s->nodes[i].registered && !cluster_is_lost(c, &s->nodes[i])) {
            (void)moe_fail(why, MOE_ERR_UNAVAILABLE, "node %s: %s", s->nodes[i].id, s->nodes[i].why);
            return true;
        }
    }
    if (c->ctl.solved == c->ctl.membership && c->ctl.unsolved.text[0] != '\0' && is_without_place(c, p)) {
        *why = c->ctl.unsolved;
        return true;
    }
    return false;
}

static uint64_t time_of(const catalogue_pending *p)
{
    uint64_t ms = p->deadline_ms > p->begun_ms ? p->deadline_ms - p->begun_ms : 0;

    return MOE_MIN(MOE_MAX(MOE_MIN(ms, MOST_NS / 1000000) * 1000000, LEAST_NS), MOST_NS);
}

static bool end_change(cluster *c, const cluster_entry *office, const catalogue_pending *p, const char *undone)
{
    const catalogue *now = c->state->s.catalogue;
    catalogue *next = NULL;
    moe_error err = {""};
    moe_status status = undone != NULL ? catalogue_undo(now, p->number, wall_ms(c), undone, &next, &err)
                                       : catalogue_commit(now, p->number, wall_ms(c), &next, &err);

    if (status != MOE_OK) {
        MOE_ERROR("cluster: controller %s: change %llu (%s): %s", c->o.id, (unsigned long long)p->number, p->what,
                  err.text);
        return false;
    }
    MOE_INFO("cluster: controller %s: change %llu (%s) is %s%s", c->o.id, (unsigned long long)p->number, p->what,
             undone != NULL ? "undone: " : "done", undone != NULL ? undone : "");
    (void)write_next(c, office, next);
    catalogue_unref(next);
    return true;
}

bool cluster_control_catalogue(cluster *c, const cluster_entry *office, uint64_t now, uint64_t *due_ns)
{
    const cluster_state_box *box = c->state;
    const catalogue_pending *p = catalogue_get_pending(box->s.catalogue);
    bool is_lost =
        revision_in_store(c) == 0 || cluster_mirror_read(&c->mirror, "catalogue") == NULL || box->catalogue_is_refused;
    moe_error why = {""};

    if (is_lost) {
        return catalogue_get_number(box->s.catalogue) > 0 && write_next(c, office, box->s.catalogue);
    }
    if (p == NULL) {
        c->ctl.change = 0;
        return false;
    }
    if (c->ctl.change != p->number) {
        c->ctl.change = p->number;
        c->ctl.change_ns = now;
    }
    if (has_failed(c, p, &why)) {
        return end_change(c, office, p, why.text);
    }
    if (!is_waiting(c, p, &why)) {
        return end_change(c, office, p, NULL);
    }
    *due_ns = MOE_MIN(*due_ns, c->ctl.change_ns + time_of(p));
    return now - c->ctl.change_ns >= time_of(p) && end_change(c, office, p, why.text);
}
