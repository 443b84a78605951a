/* Assignment: what a node holds becomes what the placement gives it.
 *
 *   wanted   the placement's bitmap for this node
 *   held     what is loaded; this is what is reported
 *   settled  what every coordinator sends only to owners in the placement
 *   covered  what another owner has ready
 *
 * The loader's thread makes what is wanted, a few experts ahead; here they are put in their places, one between two turns
 * of the node's loop. The memory of each is taken before it is asked for. One that is no longer wanted when it comes was
 * never reported, so nobody sends rows for it: it goes at once.
 *
 * Why a drop waits for the coordinators: while no owner in the placement has an expert ready, each sends its rows to
 * whoever has it, and that may be this node alone. Once they all send them to an owner, no row comes for what is not
 * wanted. Those that are registered say so in the store, expert by expert (settled); one that is connected but not
 * registered has lost the store and goes on with what it knows: what its connection tells is the epoch that it has
 * applied (expert_node_epoch_of_others). A dispatch that comes all the same gets REFUSE and goes to a replica.
 *
 * Who is registered, but is not connected and has not followed for long, is not waited for: it cannot send a row now, and a
 * key under somebody's lease does not make a coordinator. If it does connect and send rows for what has gone, they are
 * refused, as above.
 *
 * Why experts are settled one by one: a full node must drop before it can load, and what it is to load may be what
 * another full node waits for. What does not fit waits for the next drop.
 *
 * What is covered by nobody is loaded first: steps may be waiting for it. */
#include "expert_node/program/assignment.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Chosen, not measured. REPORT: while loading, what is there is reported this often, so that rows come before all is
 * loaded, and each report is one write to etcd. RETRY: an expert that could not be loaded is tried again after this. ABSENT:
 * as long as a member may see nothing of a new placement (it reads everything again after 30 s); until then one that is
 * not connected is waited for. LOOK: then it is looked that often who is connected. */
#define REPORT_NS UINT64_C(500000000)
#define RETRY_NS  UINT64_C(5000000000)
#define ABSENT_NS UINT64_C(30000000000)
#define LOOK_NS   UINT64_C(1000000000)

struct assignment {
    expert_node *node;
    loader *loader;
    const moe_clock *clock;
    char id[ROUTER_MAX_NODE_ID + 1];
    router_space *space; /* owned; as the next are sized */
    size_t n_words;      /* of one bitmap */
    uint64_t *wanted;    /* owned, as the next */
    uint64_t *held;
    uint64_t *failed; /* could not be loaded; until retry_ns */
    uint64_t *settled, *covered;
    size_t cursor; /* of two rounds over all experts: everything before it is loaded, asked for, or has failed */
    bool full;     /* said: there is no room before something is dropped */
    bool follow;   /* the cluster's space, at retry_ns */
    uint64_t retry_ns, report_ns;
    uint64_t absent_ns; /* from when on who is absent is not waited for; UINT64_MAX: all have followed */
    uint64_t look_ns;   /* when it is looked next who that is */
    struct {
        char id[ROUTER_MAX_NODE_ID + 1];
        uint64_t incarnation;
    } registered[CLUSTER_MAX_COORDINATORS];
    size_t n_registered;
    uint64_t change;  /* the number of the pending change; 0: none */
    uint32_t lacking; /* the first expert that cannot be loaded, as is to be told; UINT32_MAX: none */
    char why[CATALOGUE_MAX_WHY + 1];
    bool report; /* held has changed since the last report */
    uint64_t reported_epoch;
    atomic_bool changed, again; /* again: what has failed is tried at once */
    _Atomic uint64_t epoch;
    _Atomic uint64_t epoch_registered; /* the lowest that one of them applies, without those who are absent */
    _Atomic uint32_t n_wanted, n_missing;
    _Atomic uint32_t n_asked; /* of the loader, and not taken */
    atomic_bool complete;
};

moe_status assignment_open(expert_node *node, loader *from, const char *id, router_space *space, const moe_clock *clock,
                           assignment **out)
{
    assignment *a = calloc(1, sizeof *a);

    if (a == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    a->node = node;
    a->loader = from;
    a->clock = clock;
    (void)snprintf(a->id, sizeof a->id, "%s", id);
    a->space = router_space_ref(space);
    a->n_words = router_space_words(space);
    a->wanted = calloc(a->n_words, sizeof *a->wanted);
    a->held = calloc(a->n_words, sizeof *a->held);
    a->failed = calloc(a->n_words, sizeof *a->failed);
    a->settled = calloc(a->n_words, sizeof *a->settled);
    a->covered = calloc(a->n_words, sizeof *a->covered);
    a->changed = true;
    a->absent_ns = UINT64_MAX;
    a->lacking = UINT32_MAX;
    if (a->wanted == NULL || a->held == NULL || a->failed == NULL || a->settled == NULL || a->covered == NULL) {
        assignment_close(a);
        return MOE_ERR_NO_MEMORY;
    }
    *out = a;
    return MOE_OK;
}

void assignment_close(assignment *a)
{
    if (a != NULL) {
        free(a->wanted);
        free(a->held);
        free(a->failed);
        free(a->settled);
        free(a->covered);
        router_space_unref(a->space);
        free(a);
    }
}

void assignment_notify(assignment *a)
{
    atomic_store(&a->changed, true);
}

void assignment_retry(assignment *a)
{
    atomic_store(&a->again, true);
}

static uint32_t count_missing(const assignment *a)
{
    uint32_t n = 0;

    for (size_t w = 0; w < a->n_words; w++) {
        n += (uint32_t)__builtin_popcountll(a->wanted[w] & ~a->held[w]);
    }
    return n;
}

static void take_registered(assignment *a, const cluster_state *s)
{
    a->n_registered = s->n_coordinators;
    for (size_t i = 0; i < s->n_coordinators; i++) {
        memcpy(a->registered[i].id, s->coordinators[i].id, sizeof a->registered[i].id);
        a->registered[i].incarnation = s->coordinators[i].incarnation;
    }
}

typedef struct presence {
    const cluster_state *state;
    uint64_t connected; /* bit i: coordinators[i] */
} presence;

static bool note_connected(void *ctx, const char *id, uint64_t incarnation)
{
    presence *p = ctx;

    for (size_t i = 0; i < p->state->n_coordinators; i++) {
        const cluster_coordinator *c = &p->state->coordinators[i];

        if (c->incarnation == incarnation && strcmp(c->id, id) == 0) {
            p->connected |= (uint64_t)1 << i;
        }
    }
    return true;
}

/* The coordinators that are not waited for, as bits. */
static uint64_t find_absent(assignment *a, const cluster_state *s, bool is_new, uint64_t now)
{
    presence p = {.state = s};

    if (cluster_state_epoch_applied(s, 0) >= s->epoch) {
        a->absent_ns = UINT64_MAX;
        return 0;
    }
    if (is_new || a->absent_ns == UINT64_MAX) {
        a->absent_ns = now + ABSENT_NS;
    }
    if (now < a->absent_ns) {
        return 0;
    }
    (void)expert_node_epoch_of_others(a->node, note_connected, &p);
    return ~p.connected;
}

/* The cluster's space has grown: the node follows, and what is sized by it here. False: no memory; it is tried again. */
static bool follow_space(assignment *a, router_space *space)
{
    uint64_t **const bitmaps[] = {&a->wanted, &a->held, &a->failed, &a->settled, &a->covered};
    uint64_t *grown[MOE_COUNT(bitmaps)] = {NULL};
    size_t n_words = router_space_words(space);
    expert_node_growth *growth = NULL;
    moe_error err = {""};
    bool ok = true;

    if (space == a->space) {
        return true;
    }
    for (size_t i = 0; i < MOE_COUNT(bitmaps); i++) {
        grown[i] = calloc(n_words, sizeof *grown[i]);
        ok = ok && grown[i] != NULL;
    }
    moe_status status = ok ? expert_node_growth_open(a->node, space, &growth, &err)
                           : moe_fail(&err, MOE_ERR_NO_MEMORY, "%zu words", n_words);
    for (size_t i = 0; i < MOE_COUNT(bitmaps); i++) {
        if (status == MOE_OK) {
            memcpy(grown[i], *bitmaps[i], a->n_words * sizeof *grown[i]);
            free(*bitmaps[i]);
            *bitmaps[i] = grown[i];
        } else {
            free(grown[i]);
        }
    }
    if (status != MOE_OK) {
        MOE_ERROR("the node's experts cannot follow the catalogue: %s", err.text);
        return false;
    }
    expert_node_grow(a->node, growth);
    expert_node_growth_close(growth);
    router_space_unref(a->space);
    a->space = router_space_ref(space);
    a->n_words = n_words;
    return true;
}

/* Starts over from the first expert with what the cluster wants now. */
static void take_state(assignment *a, cluster *c, uint64_t now)
{
    const cluster_state *s = cluster_state_acquire(c);
    uint64_t before = a->epoch;

    if (!follow_space(a, s->space)) {
        a->retry_ns = now + RETRY_NS;
        a->follow = true;
    } else if (s->desired != NULL) {
        uint64_t absent = find_absent(a, s, s->epoch != before, now);
        a->n_wanted = (uint32_t)cluster_state_wanted(s, a->id, a->wanted);
        cluster_state_settled(s, absent, a->settled);
        a->epoch_registered = cluster_state_epoch_applied(s, absent);
        cluster_state_covered(s, a->id, a->covered);
        take_registered(a, s);
        a->epoch = s->epoch;
        a->n_missing = count_missing(a);
        a->cursor = 0;
    }
    const catalogue_pending *p = catalogue_get_pending(s->catalogue);
    const uint64_t change = p != NULL ? p->number : 0;
    if (a->epoch != before || a->change != change) { /* another change, another chance */
        memset(a->failed, 0, a->n_words * sizeof *a->failed);
        a->change = change;
    }
    if (a->epoch != before) {
        atomic_store(&a->complete, false);
        a->report = true;
        MOE_INFO("placement epoch %llu: %u experts for this node, %u to load", (unsigned long long)a->epoch,
                 (unsigned)a->n_wanted, (unsigned)a->n_missing);
    }
    cluster_state_release(s);
}

static bool has_surplus(const assignment *a)
{
    for (size_t w = 0; w < a->n_words; w++) {
        if ((a->held[w] & ~a->wanted[w]) != 0) {
            return true;
        }
    }
    return false;
}

static void failed(assignment *a, uint32_t slot, moe_status status, const char *why)
{
    const router_expert *e = router_space_expert(a->space, slot);

    if (status == MOE_ERR_UNAVAILABLE) { /* it is on its way, or will be */
        MOE_INFO("layer %u expert %d is not there yet: %s", e->layer, e->id, why);
    } else {
        MOE_ERROR("layer %u expert %d is not served: %s", e->layer, e->id, why);
        if (a->lacking == UINT32_MAX) {
            a->lacking = slot;
            (void)snprintf(a->why, sizeof a->why, "layer %u expert %d: %.200s", e->layer, e->id, why);
        }
    }
    router_bit_set(a->failed, slot);
    a->retry_ns = moe_now_ns(a->clock) + RETRY_NS;
}

/* Puts one expert that the loader has made in its place. */
static bool take_one(assignment *a)
{
    loader_expert e;

    if (a->n_asked == 0 || !loader_take(a->loader, &e)) {
        return false;
    }
    a->n_asked--;
    uint32_t slot = router_space_slot(a->space, e.layer, e.expert_id);
    if (e.status == MOE_OK) {
        e.status = expert_node_load_finish(a->node, e.layer, e.expert_id, e.expert, &e.err);
    } else {
        expert_node_load_abandon(a->node, e.layer, e.expert_id);
    }
    if (e.status != MOE_OK) {
        failed(a, slot, e.status, e.err.text);
    } else if (router_bit(a->wanted, slot)) {
        router_bit_set(a->held, slot);
        a->n_missing--;
        a->report = true;
    } else {
        expert_node_drop(a->node, e.layer, e.expert_id);
    }
    return true;
}

static void drop_one(assignment *a, uint32_t slot)
{
    const router_expert *e = router_space_expert(a->space, slot);

    expert_node_drop(a->node, e->layer, e->id);
    router_bit_clear(a->held, slot);
    a->report = true;
}

static bool is_registered(void *ctx, const char *id, uint64_t incarnation)
{
    const assignment *a = ctx;

    for (size_t i = 0; i < a->n_registered; i++) {
        if (a->registered[i].incarnation == incarnation && strcmp(a->registered[i].id, id) == 0) {
            return true;
        }
    }
    return false;
}

static bool unregistered_are_past(assignment *a)
{
    return expert_node_epoch_of_others(a->node, is_registered, a) >= a->epoch;
}

/* The first expert that is held and not wanted, and that registered coordinators have settled; false: there is none. */
static bool find_surplus(const assignment *a, uint32_t *out)
{
    for (size_t w = 0; w < a->n_words; w++) {
        uint64_t surplus = a->held[w] & ~a->wanted[w] & a->settled[w];

        if (surplus != 0) {
            *out = (uint32_t)(w * 64 + (size_t)__builtin_ctzll(surplus));
            return true;
        }
    }
    return false;
}

static bool drop_surplus(assignment *a)
{
    uint32_t slot;

    if (!find_surplus(a, &slot) || !unregistered_are_past(a)) {
        return false;
    }
    drop_one(a, slot);
    return true;
}

/* Asks the loader for one expert. False: there is no room, in the memory or at the loader. */
static bool ask_for(assignment *a, uint32_t slot)
{
    const router_expert *e = router_space_expert(a->space, slot);
    moe_error err = {""};

    if (a->n_asked == LOADER_DEPTH) {
        return false;
    }
    moe_status status = expert_node_load_begin(a->node, e->layer, e->id, &err);
    if (status == MOE_ERR_BUSY && has_surplus(a)) {
        if (!a->full) {
            MOE_INFO("%s: waiting until no coordinator uses what others have taken over", err.text);
        }
        a->full = true;
        return false;
    }
    if (status == MOE_OK) {
        MOE_ASSERT(loader_ask(a->loader, e->layer, e->id));
        a->n_asked++;
    } else if (status != MOE_ERR_EXISTS) { /* it exists when it was asked for before the placement changed */
        failed(a, slot, status, err.text);
    }
    a->full = false;
    return true;
}

static bool load_next(assignment *a)
{
    size_t n = router_space_n_slots(a->space);

    for (; a->cursor < 2 * n; a->cursor++) {
        uint32_t slot = (uint32_t)(a->cursor % n);
        bool is_turn = a->cursor >= n || !router_bit(a->covered, slot);

        if (is_turn && router_bit(a->wanted, slot) && !router_bit(a->held, slot) && !router_bit(a->failed, slot)) {
            bool asked = ask_for(a, slot);
            a->cursor += asked;
            return asked;
        }
    }
    return false;
}

/* Does one thing; false: there is nothing to do now. What goes makes room for what comes, so drops come first where they
 * may be done. */
static bool work_one(assignment *a)
{
    return take_one(a) || drop_surplus(a) || load_next(a);
}

static void say_loaded(const assignment *a)
{
    char all[MOE_SIZE_TEXT], files[MOE_SIZE_TEXT], experts[MOE_SIZE_TEXT];
    expert_node_stats stats;
    moe_resident r;

    expert_node_get_stats(a->node, &stats);
    moe_memory_resident(&r);
    MOE_INFO("placement epoch %llu: %u experts loaded and verified; resident %s, of it pages of files %s; experts %s",
             (unsigned long long)a->epoch, (unsigned)a->n_wanted,
             moe_size_text(r.anonymous + r.of_files + r.shared, all), moe_size_text(r.of_files, files),
             moe_size_text(stats.memory_bytes, experts));
}

static void report(assignment *a, cluster *c, bool idle, uint64_t now)
{
    bool complete = a->n_missing == 0 && a->epoch > 0;

    if (a->report && (idle || now >= a->report_ns)) {
        a->reported_epoch = complete ? a->epoch : a->reported_epoch;
        cluster_set_ready(c, a->space, a->held, a->reported_epoch);
        if (complete) {
            say_loaded(a);
        }
        atomic_store(&a->complete, complete);
        a->report = false;
        a->report_ns = now + REPORT_NS;
    }
}

/* A change that this expert is new in need not wait for its deadline. */
static void tell_lacking(assignment *a, cluster *c)
{
    const cluster_state *s = a->lacking != UINT32_MAX ? cluster_state_acquire(c) : NULL;
    const catalogue_pending *p = s != NULL ? catalogue_get_pending(s->catalogue) : NULL;

    if (p != NULL) {
        const router_expert *e = router_space_expert(a->space, a->lacking);

        if (router_set_layer_has(router_set_at(p->target, e->layer), e->id) &&
            !router_set_layer_has(router_set_at(catalogue_default(s->catalogue), e->layer), e->id)) {
            cluster_set_prepared(c, p->number, a->why);
        }
    }
    a->lacking = UINT32_MAX;
    cluster_state_release(s);
}

unsigned assignment_turn(assignment *a, cluster *c)
{
    uint64_t now = moe_now_ns(a->clock);
    bool changed = atomic_load_explicit(&a->changed, memory_order_relaxed) && atomic_exchange(&a->changed, false);

    if (changed || (now >= a->absent_ns && now >= a->look_ns)) {
        take_state(a, c, now);
        a->look_ns = now + LOOK_NS;
    }
    bool again = atomic_load_explicit(&a->again, memory_order_relaxed) && atomic_exchange(&a->again, false);
    if (a->retry_ns != 0 && (again || now >= a->retry_ns)) {
        if (a->follow) {
            a->follow = false;
            assignment_notify(a);
        }
        memset(a->failed, 0, a->n_words * sizeof *a->failed);
        a->retry_ns = 0;
        a->cursor = 0;
    }
    bool worked = work_one(a);
    tell_lacking(a, c);
    report(a, c, !worked && a->n_asked == 0, now);
    return changed + worked;
}

void assignment_get_progress(const assignment *a, assignment_progress *out)
{
    *out = (assignment_progress){.epoch = a->epoch,
                                 .epoch_registered = a->epoch_registered,
                                 .wanted = a->n_wanted,
                                 .missing = a->n_missing,
                                 .loading = a->n_asked,
                                 .complete = a->complete};
}
