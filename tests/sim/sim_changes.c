/* Packs come and go in whole clusters, in one thread on a virtual clock: a pack is added and removed, an expert pruned and restored,
 * rolled back, while members are killed and stopped and the store fails, at every phase of a change. The coordinators' followers are
 * those of the program.
 *
 * Checked at every token: it is the one that one process gives under the set that the request has, and that is a whole one: with
 * or without all of the pack, with or without the pruned expert. Checked at last: all coordinators serve the catalogue's default, no
 * change is pending, and whoever asked was told what the log says.
 *
 * SIM_SEED=SEED or FIRST..LAST runs those seeds alone. */
#include "tests/sim/cluster_world.h"

#include <stdlib.h>

#include "coordinator/follower.h"
#include "coordinator/ledger.h"
#include "tests/sim/seeds.h"
#include "tests/support/engine_fixture.h"

#if defined(__SANITIZE_THREAD__)
#define LAST_SEED 3
#elif defined(__SANITIZE_ADDRESS__)
#define LAST_SEED 19
#else
#define LAST_SEED 99
#endif

#define MODEL        "tests/vectors/olmoe-gqa"
#define PACK         "tests/vectors/packs/olmoe-gqa"
#define MS           UINT64_C(1000000)
#define SECOND       (1000 * MS)
#define N_KINDS      4
#define N_CLIENTS    6
#define N_PINNED     2 /* of them, to the base */
#define N_SETS       4 /* bit 0: with the pack; bit 1: without the pruned expert */
#define N_ASKED      64
#define CALM_NS      (180 * SECOND)
#define LONG_TURN_NS (10 * MS)
#define KEEP_MS      2000

typedef struct kind {
    int32_t prompt[12];
    size_t n_prompt;
    uint32_t max_tokens;
    answer want[N_SETS];
} kind;

/* One who wants an answer, whatever happens to the coordinators; under one set from its beginning to its end. */
typedef struct client {
    const kind *k;
    int set; /* -1: the default of whoever takes it */
    engine_request *request;
    uint32_t at, n_got;
    bool done;
    uint64_t retry_ns;
} client;

/* A change that somebody asked for. */
typedef struct operation {
    uint32_t at;
    void *ticket;
    bool ended, is_known; /* is_known: it was told what became of it */
    moe_status status;
} operation;

static struct {
    engine_fixture single;
    kind kinds[N_KINDS];
    checkpoint_manifest manifest; /* the fingerprint alone */
    pack_base of;
    catalogue *first; /* of the checkpoint alone, as all members have it */
    catalogue *grown; /* that has known the pack */
    router_set *sets[N_SETS];
    packs *brought; /* numbered: what nodes load */
    cluster_pack offer;
} base;

static struct {
    uint64_t tokens, changes, done, undone, refused, unknown, resumed, lost_sets, of_pack, kills, spoilt, poor;
} total;

static cluster_world w;
static client clients[N_CLIENTS];
static operation operations[N_ASKED];
static size_t n_operations;
static follower *followers[CLUSTER_WORLD_COORDINATORS];
static packs *opened[CLUSTER_WORLD_COORDINATORS];
static bool is_poor[CLUSTER_WORLD_COORDINATORS];
static bool is_spoilt[CLUSTER_WORLD_NODES]; /* its copy of the pack cannot be read */
static moe_error err;

static uint64_t below(uint64_t bound)
{
    return moe_random_below(&w.random, bound);
}

static bool chance(uint32_t per_mille)
{
    return below(1000) < per_mille;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return cluster_world_now(&w) / MS; /* as the controller's of a stepped pool */
}

/* ------------------------------------------------------------------------------------------------ what is right */
static packs *open_packs(bool with_pack)
{
    packs *p;
    const pack *of;

    assert_ok(packs_open(&base.of, NULL, &p, &err), err);
    if (with_pack) {
        assert_ok(packs_read(p, PACK, &of, &err), err);
    }
    return p;
}

static void become(catalogue **c, catalogue_change change)
{
    catalogue *next = NULL, *after = NULL;

    change.deadline_ms = ++change.now_ms;
    assert_ok(catalogue_begin(*c, &change, &next, &err), err);
    assert_ok(catalogue_commit(next, catalogue_get_number(next), 1, &after, &err), err);
    catalogue_unref(next);
    catalogue_unref(*c);
    *c = after;
}

static const catalogue_expert pruned = {.layer = 0, .id = 1};

static void make_sets(void)
{
    const pack *of = packs_find(base.brought, base.offer.hash);
    catalogue *c = catalogue_ref(base.first);
    catalogue_pack described;

    assert_ok(catalogue_describe(of, &described, &err), err);
    base.sets[0] = router_set_ref(catalogue_default(c));
    become(&c, (catalogue_change){.op = CATALOGUE_PRUNE, .experts = &pruned, .n_experts = 1});
    base.sets[2] = router_set_ref(catalogue_default(c));
    become(&c, (catalogue_change){.op = CATALOGUE_ADD, .pack = &described});
    base.sets[3] = router_set_ref(catalogue_default(c));
    become(&c, (catalogue_change){.op = CATALOGUE_RESTORE});
    base.sets[1] = router_set_ref(catalogue_default(c));
    catalogue_pack_fini(&described);
    base.grown = c;
    assert_ok(packs_number(base.brought, c, &err), err);
}

/* The one process has all experts; requests have their sets. */
static void load_pack(void)
{
    embedded_changes changes = {
        .space = catalogue_space(base.grown), .find = packs_expert, .find_ctx = base.brought, .set = base.sets[0]};

    changes.packs = packs_gates(base.brought, &changes.n_packs);
    assert_ok(embedded_change(base.single.embedded, base.single.engine, &changes, &err), err);
}

static engine_spec spec_of(const kind *k, router_set *set)
{
    engine_spec spec = ask_spec(k->prompt, k->n_prompt, k->max_tokens, k->n_prompt);

    spec.set = set;
    return spec;
}

static void answer_kinds(void)
{
    for (size_t i = 0; i < N_KINDS; i++) {
        kind *k = &base.kinds[i];

        k->n_prompt = 3 + 3 * i;
        k->max_tokens = (uint32_t)(6 + 8 * i);
        random_prompt(k->prompt, k->n_prompt, base.single.model.config.vocab_size, i);
        for (size_t s = 0; s < N_SETS; s++) {
            const engine_spec spec = spec_of(k, base.sets[s]);
            asked a;

            ask(&base.single, &a, &spec);
            ask_finish(&base.single, &a);
            assert_int_equal(a.status, MOE_OK);
            k->want[s] = a.choices[0];
        }
    }
}

static void prepare(void)
{
    static const unsigned char fingerprint[32] = {7}; /* of cluster_world */
    engine_fixture_options o = engine_fixture_defaults(MODEL);
    char *text = test_read_file(PACK "/pack.json", NULL), *at = strstr(text, "\"base\"");
    catalogue_model of = {.min_experts = 0};
    catalogue_pack described;

    o.model.n_threads = 1;
    o.model.max_context = 128; /* the model has 256 places */
    o.max_batch_tokens = o.prefill_chunk = 32;
    engine_fixture_open(&base.single, &o);
    assert_non_null(at);
    at = strchr(strchr(at, ':'), '"') + 1;
    at[64] = '\0';
    assert_true(pack_read_digest(at, &base.manifest.fingerprint));
    free(text);
    assert_ok(pack_base_of(&base.single.model.config, base.single.model.tensors, &base.manifest, &base.of, &err), err);
    of.space = router_set_space(base.single.model.set);
    of.min_experts = base.single.model.config.gate.k;
    memcpy(of.fingerprint, fingerprint, sizeof fingerprint);
    assert_ok(catalogue_open(&of, &base.first, &err), err);
    const pack *p;
    assert_ok(packs_open(&base.of, NULL, &base.brought, &err), err);
    assert_ok(packs_read(base.brought, PACK, &p, &err), err);
    assert_ok(catalogue_describe(p, &described, &err), err);
    memcpy(base.offer.name, described.name, sizeof described.name);
    memcpy(base.offer.version, described.version, sizeof described.version);
    memcpy(base.offer.hash, described.hash, sizeof described.hash);
    catalogue_pack_fini(&described);
    make_sets();
    load_pack();
    answer_kinds();
}

static void clean_up(void)
{
    for (size_t i = 0; i < N_SETS; i++) {
        router_set_unref(base.sets[i]);
    }
    engine_fixture_close(&base.single);
    packs_close(base.brought);
    catalogue_unref(base.grown);
    catalogue_unref(base.first);
}

/* Which of the sets that there can be. */
static int set_of(const char *id)
{
    for (int i = 0; i < N_SETS; i++) {
        if (strcmp(router_set_id(base.sets[i]), id) == 0) {
            return i;
        }
    }
    fail_msg("expert set %.12s is half of a change", id);
    return -1;
}

/* ------------------------------------------------------------------------------------------------ coordinators and nodes */
static moe_status find(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *why)
{
    const cluster_world_node *n = ctx;
    bool is_added = expert_id >= (int32_t)base.single.model.config.n_ffn_experts;

    if (is_added && is_spoilt[n - w.nodes]) {
        return moe_fail(why, MOE_ERR_CORRUPT, "its file is spoilt");
    }
    return packs_expert(base.brought, layer, expert_id, out, why);
}

/* What nodes would read to it is on its disk. */
static void between(uint32_t i)
{
    const pack *p;

    if (!is_poor[i]) {
        assert_ok(packs_find(opened[i], base.offer.hash) != NULL ? MOE_OK : packs_read(opened[i], PACK, &p, &err), err);
    }
    follower_turn(followers[i]);
}

/* poor: it cannot have the pack. */
static void start_coordinator(uint32_t i, bool poor)
{
    cluster_world_start_coordinator(&w, i);
    opened[i] = open_packs(!poor);
    is_poor[i] = poor;
    total.poor += poor;
    const follower_options o = {.engine = w.coordinators[i].engine,
                                .model = base.single.model.model,
                                .tensors = base.single.model.tensors,
                                .maker = base.single.maker,
                                .packs = opened[i],
                                .pool = w.coordinators[i].pool,
                                .first = base.first,
                                .dir = "",
                                .keep_unused_ms = KEEP_MS,
                                .wall_ms = wall_ms};
    assert_ok(follower_open(&o, &followers[i], &err), err);
}

static void look_at(operation *o)
{
    const api_catalogue *table = follower_table(followers[o->at]);
    api_told told;

    table->look(table->ctx, o->ticket, &told);
    if (!told.ended) {
        return;
    }
    o->ended = o->is_known = true;
    o->status = told.status;
    if (told.status == MOE_ERR_TIMEOUT || strstr(told.error.text, "not known") != NULL ||
        strstr(told.error.text, "shutting down") != NULL) {
        o->is_known = false;
        total.unknown++;
    }
    table->leave(table->ctx, o->ticket);
}

static void forget(client *c)
{
    engine_release(c->request);
    c->request = NULL;
    c->retry_ns = cluster_world_now(&w) + below(500) * MS;
}

static void kill_coordinator(uint32_t i)
{
    for (size_t c = 0; c < N_CLIENTS; c++) {
        if (clients[c].request != NULL && clients[c].at == i) {
            forget(&clients[c]);
        }
    }
    for (size_t j = 0; j < n_operations; j++) {
        operation *o = &operations[j];

        if (!o->ended && o->at == i) {
            const api_catalogue *table = follower_table(followers[i]);

            table->leave(table->ctx, o->ticket);
            o->ended = true; /* nobody is told what became of it */
        }
    }
    follower_close(followers[i]);
    cluster_world_kill_coordinator(&w, i);
    packs_close(opened[i]);
    followers[i] = NULL;
}

/* ------------------------------------------------------------------------------------------------ clients */
static void read_events(client *c)
{
    const answer *want = &c->k->want[c->set];
    engine_event ev;

    while (c->request != NULL && engine_next(c->request, &ev)) {
        if (ev.kind == ENGINE_TOKEN) {
            if (ev.index != c->n_got || c->n_got >= want->n || ev.token_id != want->tokens[c->n_got] ||
                memcmp(&ev.logprob, &want->logprobs[c->n_got], sizeof ev.logprob) != 0) {
                fail_msg("token %u is %d at place %u under set %d; one process gives %d", c->n_got, ev.token_id,
                         ev.index, c->set, c->n_got < want->n ? want->tokens[c->n_got] : -1);
            }
            c->n_got++;
            total.tokens++;
            total.of_pack += (unsigned)c->set & 1;
        } else if (ev.kind == ENGINE_FAILED) {
            if (ev.status != MOE_ERR_UNAVAILABLE) {
                fail_msg("a request failed with %s: %s", moe_status_text(ev.status), ev.error);
            }
            forget(c);
        } else if (ev.kind == ENGINE_DONE) {
            assert_int_equal(c->n_got, want->n);
            c->done = true;
            engine_release(c->request);
            c->request = NULL;
        }
    }
}

/* As the API: only where the default is served, and a set that is wanted and has its rows there. */
static void send(client *c)
{
    uint32_t at = (uint32_t)below(w.o.n_coordinators);
    engine_spec spec = spec_of(c->k, c->set < 0 ? NULL : base.sets[c->set]);
    moe_error why = {""};
    router_set *held = NULL;

    c->retry_ns = cluster_world_now(&w) + (20 + below(300)) * MS;
    if (!w.coordinators[at].m.is_up || !follower_caught_up(followers[at], &why)) {
        return;
    }
    const api_catalogue *table = follower_table(followers[at]);
    if (c->set >= 0 && table->hold(table->ctx, spec.set, &held, &why) != MOE_OK) {
        c->n_got = 0; /* its set may be gone for good: it begins anew, under another */
        c->set = -1;
        total.lost_sets++;
        return;
    }
    spec.set = held;
    spec.resume = c->set >= 0 ? c->k->want[c->set].tokens : NULL;
    spec.n_resume = c->n_got;
    moe_status status = engine_submit(w.coordinators[at].engine, &spec, &c->request, &why);
    router_set_unref(held);
    if (status == MOE_OK) {
        c->at = at;
        c->set = set_of(engine_request_set_id(c->request));
        total.resumed += c->n_got > 0;
        return;
    }
    c->request = NULL;
    if (status != MOE_ERR_UNAVAILABLE && status != MOE_ERR_BUSY) {
        fail_msg("a request was refused with %s: %s", moe_status_text(status), why.text);
    }
}

static void begin_client(client *c, uint64_t within_ns)
{
    *c = (client){.k = &base.kinds[below(N_KINDS)],
                  .set = c < clients + N_PINNED ? 0 : -1,
                  .retry_ns = cluster_world_now(&w) + below(within_ns)};
}

static void turn_client(client *c)
{
    if (c->done) {
        if (!w.is_calm) {
            begin_client(c, 200 * MS);
        }
    } else if (c->request == NULL && cluster_world_now(&w) >= c->retry_ns) {
        send(c);
    } else if (c->request != NULL) {
        read_events(c);
    }
}

/* ------------------------------------------------------------------------------------------------ changes */
static void begin_operation(void)
{
    static const char *const words[] = {"olmoe-gqa"};
    static const struct {
        catalogue_op op;
        uint32_t weight;
    } all[] = {{CATALOGUE_ADD, 4},
               {CATALOGUE_REMOVE, 2},
               {CATALOGUE_PRUNE, 2},
               {CATALOGUE_RESTORE, 1},
               {CATALOGUE_ROLLBACK, 1}};
    uint32_t at = (uint32_t)below(w.o.n_coordinators), drawn = (uint32_t)below(10), i = 0;
    operation *o = &operations[n_operations];
    char who[32];

    while (drawn >= all[i].weight) {
        drawn -= all[i++].weight;
    }
    if (n_operations == N_ASKED || !w.coordinators[at].m.is_up) {
        return;
    }
    (void)snprintf(who, sizeof who, "op-%zu", n_operations);
    api_ask a = {.change = {.op = all[i].op, .who = who, .word = words[0]},
                 .pack = all[i].op == CATALOGUE_ADD ? words[0] : NULL,
                 .timeout_ms = 1000 + (uint32_t)below(4000)};
    if (all[i].op == CATALOGUE_PRUNE) {
        a.change.experts = &pruned;
        a.change.n_experts = 1;
    }
    const api_catalogue *table = follower_table(followers[at]);
    if (table->ask(table->ctx, &a, &o->ticket, &err) == MOE_OK) {
        o->at = at;
        o->ended = o->is_known = false;
        n_operations++;
        total.changes++;
    }
}

static void turn_operations(void)
{
    size_t n_open = 0;

    for (size_t i = 0; i < n_operations; i++) {
        if (!operations[i].ended) {
            look_at(&operations[i]);
        }
        n_open += !operations[i].ended;
    }
    if (!w.is_calm && n_open < 2 && chance(20)) {
        begin_operation();
    }
}

/* ------------------------------------------------------------------------------------------------ trouble */
static void trouble_coordinator(uint32_t i)
{
    if (!w.coordinators[i].m.is_up) {
        if (chance(30)) {
            start_coordinator(i, chance(200));
        }
    } else if (chance(4)) {
        kill_coordinator(i);
        total.kills++;
    } else if (chance(3)) {
        w.coordinators[i].m.stopped_until_ns = cluster_world_now(&w) + below(3000) * MS;
    }
}

static void trouble_node(uint32_t i)
{
    if (!w.nodes[i].m.is_up) {
        if (chance(20)) {
            cluster_world_start_node(&w, i);
        }
    } else if (chance(3)) {
        cluster_world_kill_node(&w, i);
        total.kills++;
        is_spoilt[i] = chance(300);
        total.spoilt += is_spoilt[i];
    } else if (chance(3)) {
        w.nodes[i].m.stopped_until_ns = cluster_world_now(&w) + below(1500) * MS;
    }
}

static void trouble_store(void)
{
    if (chance(15)) {
        const cluster_memory_faults f = {.down = chance(300),
                                         .fail_percent = chance(300) ? (uint32_t)below(40) : 0,
                                         .lose_percent = chance(200) ? (uint32_t)below(5) : 0,
                                         .max_delay_ns = chance(300) ? below(500) * MS : 0};
        cluster_memory_set_faults(w.memory, &f);
    }
    if (chance(2)) {
        cluster_memory_expire_leases(w.memory);
    }
    if (chance(2)) {
        cluster_memory_lose_watches(w.memory);
    }
}

static void keep_up(void)
{
    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        if (is_spoilt[i] && w.nodes[i].m.is_up) {
            cluster_world_kill_node(&w, i);
        }
        is_spoilt[i] = false;
        if (!w.nodes[i].m.is_up) {
            cluster_world_start_node(&w, i);
        }
    }
    for (uint32_t i = 0; i < w.o.n_coordinators; i++) {
        if (w.coordinators[i].m.is_up && is_poor[i]) {
            kill_coordinator(i);
        }
        if (!w.coordinators[i].m.is_up) {
            start_coordinator(i, false);
        }
    }
}

static void one_turn(bool with_trouble)
{
    for (uint32_t i = 0; i < w.o.n_coordinators && with_trouble; i++) {
        trouble_coordinator(i);
    }
    for (uint32_t i = 0; i < w.o.n_nodes && with_trouble; i++) {
        trouble_node(i);
    }
    if (with_trouble) {
        trouble_store();
    }
    turn_operations();
    for (size_t i = 0; i < N_CLIENTS; i++) {
        turn_client(&clients[i]);
    }
    cluster_world_turn(&w);
}

/* ------------------------------------------------------------------------------------------------ what must be in the end */
static bool is_at_rest(uint32_t i)
{
    const cluster_state *s = cluster_state_acquire(pool_cluster(w.coordinators[i].pool));
    router_set *now = engine_current_set(w.coordinators[i].engine);
    bool rests = catalogue_get_pending(s->catalogue) == NULL &&
                 strcmp(router_set_id(now), router_set_id(catalogue_default(s->catalogue))) == 0;

    router_set_unref(now);
    cluster_state_release(s);
    return rests && follower_caught_up(followers[i], &err);
}

/* An event may still be on its way to one of them. */
static uint64_t number_at(uint32_t i)
{
    const cluster_state *s = cluster_state_acquire(pool_cluster(w.coordinators[i].pool));
    uint64_t number = catalogue_get_number(s->catalogue);

    cluster_state_release(s);
    return number;
}

static bool all_rest(void)
{
    bool rest = true;

    for (uint32_t i = 0; i < w.o.n_coordinators; i++) {
        rest = rest && is_at_rest(i) && number_at(i) == number_at(0);
    }
    for (size_t i = 0; i < N_CLIENTS; i++) {
        rest = rest && clients[i].done;
    }
    for (size_t i = 0; i < n_operations; i++) {
        rest = rest && operations[i].ended;
    }
    return rest;
}

static const catalogue_entry *entry_of(const catalogue *c, size_t operation_at)
{
    char who[32];

    (void)snprintf(who, sizeof who, "op-%zu", operation_at);
    for (size_t i = 0; i < catalogue_n_entries(c); i++) {
        if (strcmp(catalogue_entry_at(c, i)->who, who) == 0) {
            return catalogue_entry_at(c, i);
        }
    }
    return NULL;
}

/* All have the same catalogue, whose default is a whole set; and whoever asked was told the truth. */
static void check_end(void)
{
    const cluster_state *s = cluster_state_acquire(pool_cluster(w.coordinators[0].pool));
    const catalogue *c = s->catalogue;

    (void)set_of(router_set_id(catalogue_default(c)));
    for (uint32_t i = 1; i < w.o.n_coordinators; i++) {
        const cluster_state *other = cluster_state_acquire(pool_cluster(w.coordinators[i].pool));

        assert_int_equal(catalogue_get_number(other->catalogue), catalogue_get_number(c));
        assert_string_equal(router_set_id(catalogue_default(other->catalogue)), router_set_id(catalogue_default(c)));
        cluster_state_release(other);
    }
    for (size_t i = 0; i < n_operations; i++) {
        const operation *o = &operations[i];
        const catalogue_entry *e = entry_of(c, i);
        bool is_done = e != NULL && e->undone[0] == '\0';

        total.done += is_done;
        total.undone += e != NULL && !is_done;
        total.refused += e == NULL;
        if (o->is_known && is_done != (o->status == MOE_OK)) {
            fail_msg("change op-%zu: whoever asked was told %s, and the log says %s", i, moe_status_text(o->status),
                     e == NULL ? "nothing"
                     : is_done ? "done"
                               : e->undone);
        }
    }
    cluster_state_release(s);
}

static cluster_world_options draw_options(void)
{
    moe_random r;
    cluster_world_options o = {.seed = sim_seed,
                               .micro_batches = 1,
                               .max_delay_ns = 30 * MS,
                               .keep_unused_ms = KEEP_MS,
                               .packs = &base.offer,
                               .n_packs = 1,
                               .find = find,
                               .between = between};

    moe_random_seed(&r, sim_seed * 7919 + 5);
    o.n_nodes = 2 + (uint32_t)moe_random_below(&r, 2);
    o.n_coordinators = 1 + (uint32_t)moe_random_below(&r, CLUSTER_WORLD_COORDINATORS);
    o.replication = 1 + (uint32_t)moe_random_below(&r, 2);
    o.min_nodes = 1 + (uint32_t)moe_random_below(&r, o.n_nodes);
    o.turn_ns = (5 + moe_random_below(&r, 20)) * MS;
    o.per_mille[TRANSPORT_FAULT_DELAY] = (uint32_t)moe_random_below(&r, 2) * 30;
    o.per_mille[TRANSPORT_FAULT_KILL] = (uint32_t)moe_random_below(&r, 3);
    return o;
}

static void run_seed(void)
{
    cluster_world_options o = draw_options();

    n_operations = 0;
    memset(is_spoilt, 0, sizeof is_spoilt);
    cluster_world_open(&w, &base.single.model, &o);
    keep_up();
    for (size_t i = 0; i < N_CLIENTS; i++) {
        begin_client(&clients[i], 3 * SECOND);
    }
    w.o.turn_ns = LONG_TURN_NS;
    for (uint64_t until = cluster_world_now(&w) + 3 * SECOND; cluster_world_now(&w) < until;) {
        one_turn(false);
    }
    w.o.turn_ns = o.turn_ns;
    for (int turn = 0; turn < 600; turn++) {
        one_turn(true);
    }
    cluster_memory_set_faults(w.memory, &(cluster_memory_faults){0});
    cluster_world_calm(&w);
    keep_up();
    w.o.turn_ns = LONG_TURN_NS;
    for (uint64_t calm_ns = cluster_world_now(&w); !all_rest();) {
        if (cluster_world_now(&w) - calm_ns > CALM_NS) {
            fail_msg("there was no rest within %llu s after the trouble", (unsigned long long)(CALM_NS / SECOND));
        }
        one_turn(false);
    }
    check_end();
    for (uint32_t i = 0; i < w.o.n_coordinators; i++) {
        kill_coordinator(i);
    }
    cluster_world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ program */
static void changes_are_done_or_undone_and_never_half(void **state)
{
    (void)state;
    prepare();
    bool all = sim_run_seeds(LAST_SEED, run_seed);
    clean_up();
    print_message("%llu changes asked for: %llu done, %llu undone, %llu refused, of %llu nobody was told; %llu members "
                  "killed, %llu files spoilt, %llu coordinators that cannot have the pack; %llu tokens, %llu with the "
                  "pack, %llu streams taken up elsewhere\n",
                  (unsigned long long)total.changes, (unsigned long long)total.done, (unsigned long long)total.undone,
                  (unsigned long long)total.refused, (unsigned long long)total.unknown, (unsigned long long)total.kills,
                  (unsigned long long)total.spoilt, (unsigned long long)total.poor, (unsigned long long)total.tokens,
                  (unsigned long long)total.of_pack, (unsigned long long)total.resumed);
    if (all && LAST_SEED >= 99) {
        assert_true(total.done > LAST_SEED && total.undone > 0 && total.refused > 0 && total.kills > 0 &&
                    total.spoilt > 0 && total.poor > 0 && total.of_pack > 0 && total.resumed > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(changes_are_done_or_undone_and_never_half, sim_name_seed),
    };

    moe_log_set_level(getenv("SIM_LOG") == NULL ? MOE_LOG_ERROR : MOE_LOG_DEBUG);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
