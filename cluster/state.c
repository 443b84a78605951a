/* State: the immutable picture that is made from the mirror and the picture before. */
#include "cluster/cluster_priv.h"

#include <stdlib.h>
#include <string.h>

typedef struct build {
    const cluster_state_input *in;
    cluster_state_box *box;
    router_space *space; /* of the catalogue */
    size_t n_words;      /* of one bitmap */
    size_t capacity;     /* nodes that the box has bitmaps for */
    uint64_t believable; /* the highest epoch that a key may name */
    cluster_placement_record published;
    uint64_t epoch_of_layer[CLUSTER_MAX_LAYERS]; /* 0: none */
    bool is_whole;                               /* all of them are that of `published` */
} build;

static void complain(build *b, cluster_entry *e, const moe_error *err)
{
    *b->in->ignored += cluster_entry_complain(e, err);
}

/* An epoch that is far above all that was known is nobody's: whoever believed it could not publish any more. */
static moe_status note_epoch(build *b, uint64_t epoch, moe_error *err)
{
    if (epoch > b->believable) {
        return moe_fail(err, MOE_ERR_CORRUPT, "epoch %llu is not believed: %llu is the highest that was known",
                        (unsigned long long)epoch, (unsigned long long)(b->believable - CLUSTER_EPOCH_JUMP));
    }
    b->box->highest_epoch = MOE_MAX(b->box->highest_epoch, epoch);
    return MOE_OK;
}

/* What no member can have written. */
static void read_doubted(build *b)
{
    for (size_t i = 0; i < b->in->mirror->n; i++) {
        cluster_entry *e = &b->in->mirror->entries[i];
        moe_error err;

        if (e->doubt != NULL) {
            (void)moe_fail(&err, MOE_ERR_DENIED, "%s", e->doubt);
            complain(b, e, &err);
        }
    }
}

/* The id behind `folder/`, or NULL if the entry is not in the folder or the id is none. */
static const char *id_in(const cluster_entry *e, const char *folder)
{
    size_t n = strlen(folder);

    return strncmp(e->key, folder, n) == 0 && cluster_name_is_valid(e->key + n) ? e->key + n : NULL;
}

static uint64_t *new_bitmap(build *b)
{
    return b->box->bitmaps + b->box->s.n_nodes * b->n_words;
}

static void read_ready(build *b, cluster_node *n, uint64_t *bitmap)
{
    char key[80];
    moe_error err;
    cluster_ready_record r = {.bitmap = bitmap};

    n->ready = bitmap;
    (void)snprintf(key, sizeof key, "ready/%s", n->id);
    cluster_entry *e = cluster_mirror_read(b->in->mirror, key);
    if (e == NULL) {
        return;
    }
    if (cluster_read_ready(e->value, e->value_bytes, b->space, &r, &err) != MOE_OK ||
        note_epoch(b, r.epoch, &err) != MOE_OK) {
        memset(bitmap, 0, b->n_words * sizeof *bitmap);
        complain(b, e, &err);
        return;
    }
    if (r.incarnation != n->incarnation) { /* of the one before, under a lease that still runs */
        memset(bitmap, 0, b->n_words * sizeof *bitmap);
        return;
    }
    n->ready_epoch = r.epoch;
    n->n_ready = r.n_ready;
}

/* Moves a node's packs into the box, which has room for all that anybody tells: a place in it, since the box may move. */
static void keep_packs(build *b, cluster_node *n)
{
    cluster_state_box *box = b->box;
    cluster_pack *grown = n->n_packs == 0 ? NULL : realloc(box->packs, (box->n_packs + n->n_packs) * sizeof *grown);

    if (grown == NULL) {
        n->n_packs = 0; /* without memory it offers none, for now */
        n->packs = NULL;
        return;
    }
    memcpy(grown + box->n_packs, n->packs, n->n_packs * sizeof *grown);
    box->packs = grown;
    box->n_packs += n->n_packs;
}

/* The nodes' packs lie in the box in the order of the nodes. */
static void point_to_packs(build *b)
{
    size_t at = 0;

    for (size_t i = 0; i < b->box->s.n_nodes; i++) {
        b->box->nodes[i].packs = b->box->nodes[i].n_packs > 0 ? b->box->packs + at : NULL;
        at += b->box->nodes[i].n_packs;
    }
}

static void read_node(build *b, cluster_entry *e, const char *id)
{
    cluster_node *n = &b->box->nodes[b->box->s.n_nodes];
    cluster_pack packs[CLUSTER_MAX_PACKS];
    moe_error err;

    if (b->box->s.n_nodes == b->capacity) {
        (void)moe_fail(&err, MOE_ERR_BUSY, "more than %d nodes", ROUTER_MAX_NODES);
        complain(b, e, &err);
    } else if (cluster_read_node(e->value, e->value_bytes, packs, n, &err) != MOE_OK) {
        complain(b, e, &err);
    } else {
        memcpy(n->id, id, strlen(id) + 1);
        keep_packs(b, n);
        n->registered = true;
        read_ready(b, n, new_bitmap(b));
        b->box->s.n_nodes++;
    }
}

/* Of those that are no node of the state nothing is known anyway. */
static router_nodes indices_of(const cluster_state *s, const cluster_ids *ids)
{
    router_nodes set = {{0}};

    for (size_t i = 0; i < ids->n; i++) {
        const cluster_node *n = cluster_state_node(s, ids->at[i]);

        if (n != NULL) {
            router_nodes_add(&set, (uint32_t)(n - s->nodes));
        }
    }
    return set;
}

/* When all nodes have been read. */
static void read_coordinator(build *b, cluster_entry *e, const char *id)
{
    cluster_coordinator *c = &b->box->coordinators[b->box->s.n_coordinators];
    uint64_t *bitmaps =
        b->box->bitmaps + (b->capacity + CLUSTER_COORDINATOR_BITMAPS * b->box->s.n_coordinators) * b->n_words;
    cluster_ids missed;
    moe_error err;

    if (b->box->s.n_coordinators == CLUSTER_MAX_COORDINATORS) { /* the box has room for as many as there are keys */
        (void)moe_fail(&err, MOE_ERR_BUSY, "more than %d coordinators", CLUSTER_MAX_COORDINATORS);
        complain(b, e, &err);
    } else if (cluster_read_coordinator(e->value, e->value_bytes, b->space, bitmaps, &missed, c, &err) != MOE_OK ||
               note_epoch(b, c->epoch_applied, &err) != MOE_OK || note_epoch(b, c->epoch_settled, &err) != MOE_OK) {
        complain(b, e, &err);
    } else {
        memcpy(c->id, id, strlen(id) + 1);
        c->missed = indices_of(&b->box->s, &missed);
        b->box->s.n_coordinators++;
    }
}

/* Indices of the believed entries of a folder, the oldest key first: where there are too many, those that came last are
 * left out. */
static size_t list_folder(build *b, const char *folder, uint16_t order[CLUSTER_MAX_KEYS])
{
    const cluster_entry *entries = b->in->mirror->entries;
    size_t n = 0;

    for (size_t i = cluster_mirror_lower(b->in->mirror, folder);
         i < b->in->mirror->n && strncmp(entries[i].key, folder, strlen(folder)) == 0; i++) {
        size_t at = n;

        if (entries[i].doubt != NULL || id_in(&entries[i], folder) == NULL) {
            continue;
        }
        for (; at > 0 && entries[order[at - 1]].create_revision > entries[i].create_revision; at--) {
            order[at] = order[at - 1];
        }
        order[at] = (uint16_t)i;
        n++;
    }
    return n;
}

static bool is_known_node(const build *b, const char *id)
{
    return b->in->previous != NULL && cluster_state_node(&b->in->previous->s, id) != NULL;
}

static bool is_known_coordinator(const build *b, const char *id)
{
    const cluster_state *s = b->in->previous != NULL ? &b->in->previous->s : NULL;

    for (size_t i = 0; s != NULL && i < s->n_coordinators; i++) {
        if (strcmp(s->coordinators[i].id, id) == 0) {
            return true;
        }
    }
    return false;
}

/* Members in one folder that are known from before, or those that are not. */
static void read_some(build *b, const char *folder, bool (*is_known)(const build *b, const char *id), bool known,
                      void (*read)(build *b, cluster_entry *e, const char *id))
{
    uint16_t order[CLUSTER_MAX_KEYS];
    size_t n = list_folder(b, folder, order);

    for (size_t i = 0; i < n; i++) {
        cluster_entry *e = &b->in->mirror->entries[order[i]];
        const char *id = id_in(e, folder);

        if (is_known(b, id) == known) {
            read(b, e, id);
        }
    }
}

static bool is_present(const build *b, const char *id)
{
    for (size_t i = 0; i < b->box->s.n_nodes; i++) {
        if (strcmp(b->box->nodes[i].id, id) == 0) {
            return true;
        }
    }
    return false;
}

/* Nodes that were known and whose key has vanished: a key is a hint. */
static void carry_vanished(build *b)
{
    const cluster_state_box *p = b->in->previous;

    for (size_t i = 0; p != NULL && i < p->s.n_nodes && b->box->s.n_nodes < b->capacity; i++) {
        const cluster_node *old = &p->nodes[i];
        cluster_node *n = &b->box->nodes[b->box->s.n_nodes];

        if (is_present(b, old->id) || !b->in->keep(b->in->ctx, old)) {
            continue;
        }
        uint64_t *bitmap = new_bitmap(b);
        memcpy(bitmap, old->ready,
               router_space_words(p->s.space) * sizeof *bitmap); /* the space has grown since, at most */
        *n = *old;
        keep_packs(b, n);
        n->ready = bitmap;
        n->registered = false;
        b->box->s.n_nodes++;
    }
}

static int compare_nodes(const void *a, const void *b)
{
    return strcmp(((const cluster_node *)a)->id, ((const cluster_node *)b)->id);
}

static int compare_coordinators(const void *a, const void *b)
{
    return strcmp(((const cluster_coordinator *)a)->id, ((const cluster_coordinator *)b)->id);
}

/* Where there are more than the limits allow, those that are known have their places first: nobody can push out a member
 * by writing keys. */
static void read_members(build *b)
{
    cluster_state *s = &b->box->s;

    read_some(b, "nodes/", is_known_node, true, read_node);
    carry_vanished(b);
    read_some(b, "nodes/", is_known_node, false, read_node);
    point_to_packs(b); /* before they are sorted */
    qsort(b->box->nodes, s->n_nodes, sizeof *b->box->nodes, compare_nodes);
    read_some(b, "coordinators/", is_known_coordinator, true, read_coordinator);
    read_some(b, "coordinators/", is_known_coordinator, false, read_coordinator);
    qsort(b->box->coordinators, s->n_coordinators, sizeof *b->box->coordinators, compare_coordinators);
}

static void read_controller(build *b)
{
    cluster_entry *e = cluster_mirror_read(b->in->mirror, "controller");
    uint64_t incarnation;
    moe_error err;

    if (e != NULL &&
        cluster_read_controller(e->value, e->value_bytes, b->box->s.controller, &incarnation, &err) != MOE_OK) {
        b->box->s.controller[0] = '\0';
        complain(b, e, &err);
    }
}

/* What is gone or malformed stays as it was last known. */
static void read_policy(build *b)
{
    cluster_entry *e = cluster_mirror_read(b->in->mirror, "policy");
    moe_error err;

    if (b->in->previous != NULL) {
        b->box->s.policy = b->in->previous->s.policy;
    }
    if (e != NULL && cluster_read_policy(e->value, e->value_bytes, &b->box->s.policy, &err) != MOE_OK) {
        complain(b, e, &err);
    }
}

/* ------------------------------------------------------------------------------------------------ placement */
static void layer_key(char key[32], uint32_t layer)
{
    (void)snprintf(key, 32, "placement/%u", layer);
}

static cluster_entry *find_layer(const build *b, uint32_t layer)
{
    char key[32];

    layer_key(key, layer);
    return cluster_mirror_read(b->in->mirror, key);
}

static void read_layer_epochs(build *b)
{
    b->is_whole = b->published.epoch != 0;
    for (uint32_t layer = 0; layer < router_space_n_layers(b->space); layer++) {
        cluster_entry *e = find_layer(b, layer);
        uint64_t *epoch = &b->epoch_of_layer[layer];
        moe_error err;

        if (e != NULL && cluster_read_layer_epoch(e->value, e->value_bytes, epoch, &err) != MOE_OK) {
            complain(b, e, &err);
        }
        b->is_whole = b->is_whole && *epoch == b->published.epoch;
    }
}

/* What is published, and with it which epochs are believable: a whole placement needs no proof but that there is one
 * above its epoch left. */
static void read_epochs(build *b)
{
    cluster_entry *e = cluster_mirror_read(b->in->mirror, "placement");
    uint64_t highest = b->box->highest_epoch;
    moe_error err;

    if (e != NULL && cluster_read_placement(e->value, e->value_bytes, b->in->model, &b->published, &err) != MOE_OK) {
        complain(b, e, &err);
        b->published.epoch = 0;
    }
    read_layer_epochs(b);
    if (b->is_whole && b->published.epoch < CLUSTER_MAX_EPOCH / 2) {
        highest = MOE_MAX(highest, b->published.epoch);
    }
    b->believable = highest + CLUSTER_EPOCH_JUMP;
    if (note_epoch(b, b->published.epoch, &err) != MOE_OK) {
        complain(b, e, &err);
        b->published.epoch = 0;
    }
    for (uint32_t layer = 0; layer < router_space_n_layers(b->space); layer++) {
        if (note_epoch(b, b->epoch_of_layer[layer], &err) != MOE_OK) {
            complain(b, find_layer(b, layer), &err);
        }
    }
}

static moe_status read_layers(build *b, const cluster_placement_record *r, router_replica *replicas, size_t capacity,
                              size_t *n, moe_error *err)
{
    for (uint32_t layer = 0; layer < router_space_n_layers(b->space); layer++) {
        const cluster_entry *e = find_layer(b, layer);
        moe_status status =
            cluster_read_layer(e->value, e->value_bytes, layer, b->space, r->nodes.n, replicas, capacity, n, err);
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

static router_placement *open_placement(build *b, const cluster_placement_record *r, moe_error *err)
{
    size_t capacity = (size_t)router_space_n_node_experts(b->space) * r->replication, n = 0;
    const char *ids[ROUTER_MAX_NODES];
    router_placement *p = NULL;
    router_replica *replicas = calloc(capacity + 1, sizeof *replicas);

    if (replicas == NULL) {
        (void)moe_fail(err, MOE_ERR_NO_MEMORY, "%zu replicas", capacity);
        return NULL;
    }
    for (size_t i = 0; i < r->nodes.n; i++) {
        ids[i] = r->nodes.at[i];
    }
    if (read_layers(b, r, replicas, capacity, &n, err) == MOE_OK) {
        (void)!router_placement_open(r->epoch, b->space, ids, r->nodes.n, replicas, n, &p, err);
    }
    free(replicas);
    return p;
}

static void keep_placement(build *b)
{
    const cluster_state_box *p = b->in->previous;

    if (p != NULL && p->s.desired != NULL) {
        b->box->s.desired = router_placement_ref(p->s.desired);
        b->box->s.epoch = p->s.epoch;
        b->box->s.replication = p->s.replication;
    }
}

/* A table whose layers are not all of its epoch is being written, or was left by a controller that died half-way: the
 * last whole one stays in force. highest_epoch counts what was seen in layers as well: the repair must use an epoch
 * above all of them, or its own table could be torn again by layers that are already there. One that is older than what
 * is in force comes from a store that was restored: it is published anew, above all that members hold. */
static void read_placement(build *b)
{
    cluster_entry *e = cluster_mirror_read(b->in->mirror, "placement");
    const cluster_state_box *p = b->in->previous;
    const cluster_placement_record *r = &b->published;
    moe_error err;
    bool is_older = p != NULL && r->epoch < p->s.epoch;

    b->box->placement_is_there = e != NULL;
    b->box->placement_is_torn = r->epoch == 0 ? e != NULL : !b->is_whole || is_older;
    if (r->epoch != 0 && is_older) {
        (void)moe_fail(&err, MOE_ERR_CORRUPT, "epoch %llu is older than %llu, which stays in force",
                       (unsigned long long)r->epoch, (unsigned long long)p->s.epoch);
        complain(b, e, &err);
    }
    bool is_known =
        p != NULL && p->s.epoch == r->epoch && p->s.space == b->space; /* a later space may have more of it */
    if (r->epoch == 0 || !b->is_whole || is_older || is_known) {
        keep_placement(b);
        return;
    }
    b->box->s.desired = open_placement(b, r, &err);
    if (b->box->s.desired == NULL) {
        complain(b, e, &err);
        b->box->placement_is_torn = true;
        keep_placement(b);
        return;
    }
    b->box->s.epoch = r->epoch;
    b->box->s.replication = r->replication;
}

/* ------------------------------------------------------------------------------------------------ life */
/* A box and its arrays, in one piece: the largest alignment first. */
static cluster_state_box *open_box(const build *b, size_t n_coordinators)
{
    size_t n_bits = (b->capacity + CLUSTER_COORDINATOR_BITMAPS * n_coordinators) * b->n_words;
    cluster_state_box *box = calloc(1, sizeof *box + n_bits * sizeof *box->bitmaps + b->capacity * sizeof *box->nodes +
                                           n_coordinators * sizeof *box->coordinators);

    if (box == NULL) {
        return NULL;
    }
    atomic_init(&box->refs, 1);
    box->bitmaps = (uint64_t *)(box + 1);
    box->nodes = (cluster_node *)(box->bitmaps + n_bits);
    box->coordinators = (cluster_coordinator *)(box->nodes + b->capacity);
    return box;
}

cluster_state_box *cluster_state_build(const cluster_state_input *in)
{
    build b = {.in = in};
    size_t wanted = in->previous != NULL ? in->previous->s.n_nodes : 0, n_coordinators = 0;

    for (size_t i = 0; i < in->mirror->n; i++) {
        wanted += id_in(&in->mirror->entries[i], "nodes/") != NULL;
        n_coordinators += id_in(&in->mirror->entries[i], "coordinators/") != NULL;
    }
    b.capacity = MOE_MIN(wanted, (size_t)ROUTER_MAX_NODES);
    cluster_state_box found = {.packs = NULL};
    cluster_read_catalogue(in, &found);
    b.space = found.s.space;
    b.n_words = router_space_words(b.space);
    b.box = open_box(&b, MOE_MIN(n_coordinators, (size_t)CLUSTER_MAX_COORDINATORS));
    if (b.box == NULL) {
        catalogue_unref(found.s.catalogue);
        return NULL;
    }
    b.box->s.catalogue = found.s.catalogue;
    b.box->s.catalogue_revision = found.s.catalogue_revision;
    b.box->catalogue_is_refused = found.catalogue_is_refused;
    b.box->s.space = router_space_ref(b.space);
    b.box->s.nodes = b.box->nodes;
    b.box->s.coordinators = b.box->coordinators;
    b.box->highest_epoch = in->previous != NULL ? in->previous->highest_epoch : 0;
    read_doubted(&b);
    read_epochs(&b);
    read_members(&b);
    read_controller(&b);
    read_policy(&b);
    read_placement(&b);
    return b.box;
}

void cluster_state_release(const cluster_state *s)
{
    cluster_state_box *box = (cluster_state_box *)(uintptr_t)s;

    if (box != NULL && atomic_fetch_sub_explicit(&box->refs, 1, memory_order_acq_rel) == 1) {
        router_placement_unref(box->s.desired);
        router_space_unref(box->s.space);
        catalogue_unref(box->s.catalogue);
        free(box->packs);
        free(box);
    }
}

/* ------------------------------------------------------------------------------------------------ questions */
const cluster_node *cluster_state_node(const cluster_state *s, const char *id)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (strcmp(s->nodes[i].id, id) == 0) {
            return &s->nodes[i];
        }
    }
    return NULL;
}

bool cluster_node_offers(const cluster_node *n, const char *hash)
{
    for (size_t i = 0; i < n->n_packs; i++) {
        if (strcmp(n->packs[i].hash, hash) == 0) {
            return true;
        }
    }
    return false;
}

/* Index of a placement's node among the state's; n_nodes: it is not there. */
static void match_nodes(const cluster_state *s, const router_placement *p, size_t index[ROUTER_MAX_NODES])
{
    for (size_t i = 0; i < router_placement_n_nodes(p); i++) {
        const cluster_node *n = cluster_state_node(s, router_placement_node_id(p, i));

        index[i] = n != NULL ? (size_t)(n - s->nodes) : s->n_nodes;
    }
}

/* Marks the nodes that are to hold the expert. */
static void mark_desired(const cluster_state *s, const size_t index[ROUTER_MAX_NODES], uint32_t slot,
                         bool marks[ROUTER_MAX_NODES + 1])
{
    size_t n;

    memset(marks, 0, (ROUTER_MAX_NODES + 1) * sizeof *marks);
    if (s->desired == NULL) {
        return;
    }
    const uint32_t *nodes = router_placement_owners(s->desired, slot, &n);
    for (size_t i = 0; i < n; i++) {
        marks[index[nodes[i]]] = true;
    }
}

static size_t add_ready(const cluster_state *s, const uint64_t *const *told, uint32_t slot, const bool *desired,
                        router_replica *replicas)
{
    const router_expert *e = router_space_expert(s->space, slot); /* as in every older space that has the slot */
    size_t n = 0;

    for (uint32_t i = 0; i < s->n_nodes; i++) {
        if (told[i] != NULL && router_bit(told[i], slot)) {
            replicas[n++] = (router_replica){.layer = e->layer, .expert_id = e->id, .node = i, .spare = !desired[i]};
        }
    }
    return n;
}

static size_t count_bits(const uint64_t *bitmap, size_t n_words)
{
    size_t n = 0;

    for (size_t w = 0; w < n_words; w++) {
        n += (size_t)__builtin_popcountll(bitmap[w]);
    }
    return n;
}

moe_status cluster_state_routing(const cluster_state *s, router_space *space, const uint64_t *const *told,
                                 router_placement **out, moe_error *err)
{
    size_t index[ROUTER_MAX_NODES], n = 0, total = 0;
    bool desired[ROUTER_MAX_NODES + 1];
    const char *ids[ROUTER_MAX_NODES];

    space = space != NULL ? space : s->space;
    for (size_t i = 0; i < s->n_nodes; i++) {
        ids[i] = s->nodes[i].id;
        total += told[i] != NULL ? count_bits(told[i], router_space_words(space)) : 0;
    }
    router_replica *replicas = calloc(total + 1, sizeof *replicas);
    if (replicas == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "routing: %zu replicas", total);
    }
    if (s->desired != NULL) {
        match_nodes(s, s->desired, index);
    }
    for (uint32_t slot = 0; slot < router_space_n_slots(space); slot++) {
        mark_desired(s, index, slot, desired);
        n += add_ready(s, told, slot, desired, replicas + n);
    }
    moe_status status = router_placement_open(s->epoch, space, ids, s->n_nodes, replicas, n, out, err);
    free(replicas);
    return status;
}

static bool is_ready_anywhere(const cluster_state *s, uint32_t slot)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (router_bit(s->nodes[i].ready, slot)) {
            return true;
        }
    }
    return false;
}

static bool is_in_default(const cluster_state *s, const router_expert *e)
{
    return router_set_layer_has(router_set_at(catalogue_default(s->catalogue), e->layer), e->id);
}

size_t cluster_state_missing(const cluster_state *s, router_expert *first)
{
    size_t n = 0;

    for (uint32_t slot = 0; slot < router_space_n_slots(s->space); slot++) {
        const router_expert *e = router_space_expert(s->space, slot);

        if (e->is_local || is_ready_anywhere(s, slot) || !is_in_default(s, e)) {
            continue;
        }
        if (n++ == 0 && first != NULL) {
            *first = *e;
        }
    }
    return n;
}

static bool has_node(const uint32_t *nodes, size_t n, size_t node)
{
    for (size_t i = 0; i < n; i++) {
        if (nodes[i] == node) {
            return true;
        }
    }
    return false;
}

size_t cluster_state_wanted(const cluster_state *s, const char *node_id, uint64_t *bitmap)
{
    size_t n_nodes = s->desired != NULL ? router_placement_n_nodes(s->desired) : 0, me = 0, n_wanted = 0, n;

    memset(bitmap, 0, router_space_words(s->space) * sizeof *bitmap);
    while (me < n_nodes && strcmp(router_placement_node_id(s->desired, me), node_id) != 0) {
        me++;
    }
    for (uint32_t slot = 0; me < n_nodes && slot < router_space_n_slots(s->space); slot++) {
        const uint32_t *nodes = router_placement_owners(s->desired, slot, &n);

        if (has_node(nodes, n, me)) {
            router_bit_set(bitmap, slot);
            n_wanted++;
        }
    }
    return n_wanted;
}

uint64_t cluster_state_epoch_applied(const cluster_state *s, uint64_t without)
{
    uint64_t epoch = s->epoch;

    _Static_assert(CLUSTER_MAX_COORDINATORS <= 64, "a bit for each");
    for (size_t i = 0; i < s->n_coordinators; i++) {
        if ((without >> i & 1) == 0) {
            epoch = MOE_MIN(epoch, s->coordinators[i].epoch_applied);
        }
    }
    return epoch;
}

void cluster_state_settled(const cluster_state *s, uint64_t without, uint64_t *bitmap)
{
    size_t n_words = router_space_words(s->space);

    memset(bitmap, s->n_coordinators > 0 ? 0xff : 0, n_words * sizeof *bitmap);
    for (size_t i = 0; i < s->n_coordinators; i++) {
        const cluster_coordinator *c = &s->coordinators[i];
        bool tells = c->settled != NULL && c->epoch_settled == s->epoch;

        for (size_t w = 0; (without >> i & 1) == 0 && c->epoch_applied < s->epoch && w < n_words; w++) {
            bitmap[w] &= tells ? c->settled[w] : 0;
        }
    }
}

void cluster_state_covered(const cluster_state *s, const char *but_node_id, uint64_t *bitmap)
{
    size_t n_words = router_space_words(s->space);

    memset(bitmap, 0, n_words * sizeof *bitmap);
    for (size_t i = 0; s->desired != NULL && i < router_placement_n_nodes(s->desired); i++) {
        const cluster_node *n = cluster_state_node(s, router_placement_node_id(s->desired, i));

        for (size_t w = 0; n != NULL && strcmp(n->id, but_node_id) != 0 && w < n_words; w++) {
            bitmap[w] |= n->ready[w];
        }
    }
}
