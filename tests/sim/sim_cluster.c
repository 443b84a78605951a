/* Whole clusters in one thread on a virtual clock: engines, pools, controllers, nodes and a store, while members are
 * killed, stopped, slowed down and drained, connections break, and the store fails, forgets and is wiped. Clients take up
 * their streams at another coordinator where one died.
 *
 * Checked at every token: it is the one that one process gives, at its place, once. Checked at every end: it is one that
 * the documents allow. Checked at last: when the trouble is over everybody is answered within a bound of virtual time, and
 * nothing is held any more.
 *
 * SIM_SEED=SEED or FIRST..LAST runs those seeds alone. */
#include "tests/sim/cluster_world.h"

#include <stdlib.h>

#include "tests/sim/obstacle.h"
#include "tests/sim/seeds.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"

#if defined(__SANITIZE_THREAD__)
#define LAST_SEED 19 /* ten times slower, and only one thread to look at */
#elif defined(__SANITIZE_ADDRESS__)
#define LAST_SEED 99
#else
#define LAST_SEED 1999
#endif

#define MS           UINT64_C(1000000)
#define SECOND       (1000 * MS)
#define N_KINDS      6 /* different requests */
#define N_CLIENTS    6
#define N_SCORE      2 /* of the kinds are scores */
#define CALM_NS      (180 * SECOND)
#define LONG_TURN_NS (10 * MS) /* while little happens: a turn costs the same, however long */

typedef struct kind {
    int32_t prompt[12];
    size_t n_prompt;
    uint32_t max_tokens; /* 0: a score */
    uint64_t seed;
    asked want;
} kind;

/* One who wants an answer, whatever happens to the coordinators. */
typedef struct client {
    const kind *k;
    engine_request *request; /* NULL: it is to be sent (again) */
    uint32_t at;             /* coordinator */
    uint32_t n_got, n_scored;
    bool done;
    uint64_t retry_ns;
} client;

static struct {
    test_folder folder;
    engine_fixture single;
    kind kinds[N_KINDS];
} base;

/* What happened, over all seeds. */
static struct {
    uint64_t node_kills, node_stops, slow_nodes, drains, drained, coordinator_kills, coordinator_stops, store_faults,
        wipes, leases, mutes, ways, names, lies;
    uint64_t tokens, resumed, failed, refused, abandoned, retries, hedges, epochs;
    uint64_t worst_ns, worst_seed; /* from calm to the last answer */
} total;

static cluster_world w;
static client clients[N_CLIENTS];
static struct {
    uint32_t node;
    uint64_t until_ns;
} lie;

static uint64_t below(uint64_t bound)
{
    return moe_random_below(&w.random, bound);
}

static bool chance(uint32_t per_mille)
{
    return below(1000) < per_mille;
}

/* ------------------------------------------------------------------------------------------------ what is right */
static engine_spec spec_of(const kind *k)
{
    if (k->max_tokens == 0) {
        return (engine_spec){.kind = ENGINE_SCORE, .prompt = k->prompt, .n_prompt = k->n_prompt, .n_choices = 1};
    }
    return ask_spec(k->prompt, k->n_prompt, k->max_tokens, k->seed);
}

static void prepare(void)
{
    random_model m = random_model_defaults("qwen3_moe");
    engine_fixture_options o;

    test_folder_open(&base.folder);
    m.n_layers = 2;
    random_model_write(&m, base.folder.path);
    o = engine_fixture_defaults(base.folder.path);
    o.model.n_threads = 1;
    o.max_batch_tokens = o.prefill_chunk = 32;
    engine_fixture_open(&base.single, &o);
    for (size_t i = 0; i < N_KINDS; i++) {
        kind *k = &base.kinds[i];

        k->n_prompt = 2 + 2 * i;
        k->max_tokens = i < N_KINDS - N_SCORE ? (uint32_t)(4 + 5 * i) : 0;
        k->seed = 100 + i;
        random_prompt(k->prompt, k->n_prompt, m.vocab_size, i);
        const engine_spec spec = spec_of(k);
        ask(&base.single, &k->want, &spec);
        ask_finish(&base.single, &k->want);
        assert_int_equal(k->want.status, MOE_OK);
    }
}

static void clean_up(void)
{
    engine_fixture_close(&base.single);
    test_folder_close(&base.folder);
}

/* ------------------------------------------------------------------------------------------------ clients */
static void forget(client *c)
{
    engine_release(c->request);
    c->request = NULL;
    c->n_scored = 0; /* a score has no half: it is asked for again */
    c->retry_ns = cluster_world_now(&w) + below(500) * MS;
}

/* Only for a reason that the documents name, and that says "try again". */
static void on_failed(client *c, const engine_event *ev)
{
    if (ev->status != MOE_ERR_UNAVAILABLE) {
        fail_msg("a request failed with %s: %s", moe_status_text(ev->status), ev->error);
    }
    total.failed++;
    forget(c);
}

static void on_token(client *c, const engine_event *ev)
{
    const answer *want = &c->k->want.choices[0];

    if (ev->index != c->n_got || c->n_got >= want->n || ev->token_id != want->tokens[c->n_got] ||
        memcmp(&ev->logprob, &want->logprobs[c->n_got], sizeof ev->logprob) != 0) {
        fail_msg("token %u is %d at place %u; one process gives %d", c->n_got, ev->token_id, ev->index,
                 c->n_got < want->n ? want->tokens[c->n_got] : -1);
    }
    c->n_got++;
    total.tokens++;
}

static void on_scored(client *c, const engine_event *ev)
{
    assert_int_equal(ev->index, c->n_scored);
    if (ev->index > 0 && memcmp(&ev->logprob, &c->k->want.scored[ev->index], sizeof ev->logprob) != 0) {
        fail_msg("the score of token %u is %a; one process gives %a", ev->index, (double)ev->logprob,
                 (double)c->k->want.scored[ev->index]);
    }
    c->n_scored++;
}

static void on_done(client *c)
{
    assert_int_equal(c->n_got, c->k->want.choices[0].n);
    assert_int_equal(c->n_scored, c->k->want.n_scored);
    c->done = true;
    engine_release(c->request);
    c->request = NULL;
}

static void read_events(client *c)
{
    engine_event ev;

    while (c->request != NULL && engine_next(c->request, &ev)) {
        if (ev.kind == ENGINE_TOKEN) {
            on_token(c, &ev);
        } else if (ev.kind == ENGINE_SCORED) {
            on_scored(c, &ev);
        } else if (ev.kind == ENGINE_FAILED) {
            on_failed(c, &ev);
        } else if (ev.kind == ENGINE_DONE) {
            on_done(c);
        }
    }
}

static void send(client *c)
{
    uint32_t at = (uint32_t)below(w.o.n_coordinators);
    engine_spec spec = spec_of(c->k);
    moe_error err = {""};

    if (!w.coordinators[at].m.is_up) {
        return;
    }
    spec.resume = c->k->want.choices[0].tokens;
    spec.n_resume = c->n_got;
    moe_status status = engine_submit(w.coordinators[at].engine, &spec, &c->request, &err);
    if (status == MOE_OK) {
        c->at = at;
        total.resumed += c->n_got > 0;
        return;
    }
    c->request = NULL;
    if (status != MOE_ERR_UNAVAILABLE && status != MOE_ERR_BUSY) {
        fail_msg("a request was refused with %s: %s", moe_status_text(status), err.text);
    }
    total.refused++;
    c->retry_ns = cluster_world_now(&w) + (20 + below(300)) * MS;
}

static void begin_client(client *c, uint64_t within_ns)
{
    *c = (client){.k = &base.kinds[below(N_KINDS)], .retry_ns = cluster_world_now(&w) + below(within_ns)};
}

static void turn_client(client *c)
{
    if (c->done) {
        if (!w.is_calm) {
            begin_client(c, 200 * MS);
        }
        return;
    }
    if (c->request == NULL && cluster_world_now(&w) >= c->retry_ns) {
        send(c);
    } else if (c->request != NULL && !chance(300)) { /* now and then it is slow to read */
        read_events(c);
    }
}

static bool all_done(void)
{
    for (size_t i = 0; i < N_CLIENTS; i++) {
        if (!clients[i].done) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------ trouble */
static void kill_coordinator(uint32_t i)
{
    for (size_t c = 0; c < N_CLIENTS; c++) {
        if (clients[c].request != NULL && clients[c].at == i) {
            forget(&clients[c]); /* what it had not read is gone */
        }
    }
    cluster_world_kill_coordinator(&w, i);
}

static void trouble_coordinator(uint32_t i)
{
    cluster_world_coordinator *c = &w.coordinators[i];
    exchange_stats stats;
    engine_stats e;

    if (!c->m.is_up) {
        if (chance(20)) {
            cluster_world_start_coordinator(&w, i);
        }
    } else if (chance(2)) {
        exchange_get_stats(pool_exchange(c->pool), &stats);
        engine_get_stats(c->engine, &e);
        total.retries += stats.retries;
        total.hedges += stats.hedges;
        total.abandoned += e.abandoned_steps;
        total.coordinator_kills++;
        kill_coordinator(i);
    } else if (chance(2)) {
        c->m.stopped_until_ns = cluster_world_now(&w) + below(4000) * MS;
        total.coordinator_stops++;
    }
}

/* Most obstacles are short, and some outlast all other trouble. */
static uint64_t draw_obstacle(void)
{
    return below(chance(100) ? 25000 : 2000) * MS;
}

static void trouble_node(uint32_t i)
{
    cluster_world_node *n = &w.nodes[i];

    if (!n->m.is_up) {
        total.drained += n->is_draining;
        n->is_draining = false;
        if (chance(15)) {
            cluster_world_start_node(&w, i);
        }
    } else if (chance(3)) {
        cluster_world_kill_node(&w, i);
        total.node_kills++;
        n->is_draining = false;
    } else if (chance(4)) {
        n->m.stopped_until_ns = cluster_world_now(&w) + below(chance(200) ? 12000 : 1500) * MS;
        total.node_stops++;
    } else if (chance(3)) {
        n->every = 1 + (uint32_t)below(12);
        total.slow_nodes += n->every > 1;
    } else if (chance(2) && !n->is_draining) {
        cluster_world_drain_node(&w, i);
        total.drains++;
    } else if (chance(2)) {
        cluster_world_mute_node(&w, i, draw_obstacle());
        total.mutes++;
    }
}

static void trouble_way(uint32_t c, uint32_t n)
{
    static const unsigned kinds[] = {OBSTACLE_OUT, OBSTACLE_IN, OBSTACLE_OUT | OBSTACLE_IN, OBSTACLE_NAME};

    if (w.ways[c][n].obstacles == 0 && chance(1)) {
        unsigned obstacles = kinds[below(MOE_COUNT(kinds))];

        cluster_world_obstruct(&w, c, n, obstacles, draw_obstacle());
        total.ways += obstacles != OBSTACLE_NAME;
        total.names += obstacles == OBSTACLE_NAME;
    }
}

static void trouble_store(void)
{
    if (chance(10)) {
        const cluster_memory_faults f = {.down = chance(300),
                                         .fail_percent = chance(300) ? (uint32_t)below(40) : 0,
                                         .lose_percent = chance(200) ? (uint32_t)below(5) : 0,
                                         .max_delay_ns = chance(300) ? below(500) * MS : 0};
        cluster_memory_set_faults(w.memory, &f);
        total.store_faults++;
    }
    if (chance(2)) {
        cluster_memory_expire_leases(w.memory);
        total.leases++;
    }
    if (chance(2)) {
        cluster_memory_lose_watches(w.memory);
    }
    if (chance(1)) {
        cluster_memory_mute_watches(w.memory);
    }
    if (chance(2)) {
        cluster_memory_compact(w.memory);
    }
    if (chance(1)) {
        cluster_memory_wipe(w.memory);
        total.wipes++;
    }
}

/* Somebody goes on writing that a node has everything ready. */
static void trouble_truth(void)
{
    if (cluster_world_now(&w) >= lie.until_ns && chance(10)) {
        lie.node = (uint32_t)below(w.o.n_nodes);
        lie.until_ns = cluster_world_now(&w) + below(4000) * MS;
    }
    if (cluster_world_now(&w) < lie.until_ns) {
        total.lies += cluster_world_lie_of_node(&w, lie.node);
    }
}

static void end_trouble(void)
{
    cluster_memory_set_faults(w.memory, &(cluster_memory_faults){0});
    cluster_world_calm(&w);
    for (uint32_t i = 0; i < w.o.n_coordinators; i++) {
        if (!w.coordinators[i].m.is_up) {
            cluster_world_start_coordinator(&w, i);
        }
    }
}

/* Nodes that left while they drained come back as well. */
static void keep_nodes_up(void)
{
    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        if (!w.nodes[i].m.is_up) {
            cluster_world_start_node(&w, i);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ copies */
enum { MAX_EXPERTS = 64 };

/* Bits of nodes: who has the expert; of those, who has not been alone with it since he got it. */
static struct {
    uint32_t now, doubled;
} copies[MAX_EXPERTS];

static uint32_t find_copies(uint32_t expert)
{
    const uint32_t per_layer = w.model->config.n_ffn_experts;
    uint32_t found = 0;

    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        found |= (uint32_t)(w.nodes[i].m.is_up &&
                            expert_node_holds(w.nodes[i].node, expert / per_layer, (int32_t)(expert % per_layer)))
                 << i;
    }
    return found;
}

/* And has not said goodbye. */
static bool one_stays(uint32_t bits)
{
    for (uint32_t i = 0; i < w.o.n_nodes; i++) {
        if ((bits >> i & 1) != 0 && w.nodes[i].m.is_up && w.nodes[i].leaves_ns == 0) {
            return true;
        }
    }
    return false;
}

/* A node may end. While it lives it does not drop what it alone has had: at some time another one had it too, which may be gone
 * by now. */
static void check_copies(void)
{
    const uint32_t n = w.model->config.n_layers * w.model->config.n_ffn_experts;

    assert_true(n <= MAX_EXPERTS);
    for (uint32_t e = 0; e < n; e++) {
        uint32_t before = copies[e].now, now = find_copies(e);

        if (now == 0 && one_stays(before & ~copies[e].doubled)) {
            fail_msg("nodes %#x dropped expert %u, which nobody else has had", before, e);
        }
        copies[e].doubled = (copies[e].doubled & now) | ((now & (now - 1)) != 0 ? now : 0);
        copies[e].now = now;
    }
}

/* ------------------------------------------------------------------------------------------------ a seed */
static cluster_world_options draw_options(void)
{
    moe_random r;
    cluster_world_options o = {.seed = sim_seed};

    moe_random_seed(&r, sim_seed * 7919 + 5);
    o.n_nodes = 2 + (uint32_t)moe_random_below(&r, CLUSTER_WORLD_NODES - 1);
    o.n_coordinators = 1 + (uint32_t)moe_random_below(&r, CLUSTER_WORLD_COORDINATORS);
    o.micro_batches = 1 + (uint32_t)moe_random_below(&r, 2);
    o.replication = 1 + (uint32_t)moe_random_below(&r, 2);
    o.min_nodes = 1 + (uint32_t)moe_random_below(&r, o.n_nodes);
    o.turn_ns = (2 + moe_random_below(&r, 9)) * MS;
    o.per_mille[TRANSPORT_FAULT_DELAY] = (uint32_t)moe_random_below(&r, 2) * 30;
    o.per_mille[TRANSPORT_FAULT_KILL] = (uint32_t)moe_random_below(&r, 3);
    o.max_delay_ns = 30 * MS;
    return o;
}

static void begin(void)
{
    for (uint32_t i = 0; i < w.o.n_coordinators; i++) {
        cluster_world_start_coordinator(&w, i);
    }
    keep_nodes_up();
    for (size_t i = 0; i < N_CLIENTS; i++) {
        begin_client(&clients[i], 4 * SECOND);
    }
}

static void one_turn(bool with_trouble)
{
    if (with_trouble) {
        for (uint32_t i = 0; i < w.o.n_coordinators; i++) {
            trouble_coordinator(i);
        }
        for (uint32_t i = 0; i < w.o.n_nodes; i++) {
            trouble_node(i);
            for (uint32_t c = 0; c < w.o.n_coordinators; c++) {
                trouble_way(c, i);
            }
        }
        trouble_store();
        trouble_truth();
    } else {
        keep_nodes_up();
    }
    for (size_t i = 0; i < N_CLIENTS; i++) {
        turn_client(&clients[i]);
    }
    cluster_world_turn(&w);
    check_copies();
}

/* Nothing is held any more, not even for a token of an engine's own. */
static bool is_quiet(const cluster_world_coordinator *c)
{
    size_t frames, attempts;
    model_kv_stats kv;

    model_kv_get_stats(c->kv, &kv);
    exchange_get_held(pool_exchange(c->pool), &frames, &attempts);
    return engine_idle(c->engine) && kv.n_used == 0 && attempts == 0;
}

static void check_quiet(void)
{
    uint64_t until = cluster_world_now(&w) + CALM_NS; /* an obstacle may still be in the way */

    for (uint32_t i = 0; i < w.o.n_coordinators; i++) {
        while (!is_quiet(&w.coordinators[i])) {
            assert_true(cluster_world_now(&w) < until);
            one_turn(false);
        }
    }
}

static void run_seed(void)
{
    cluster_world_options o = draw_options();
    int n_turns = 320;

    cluster_world_open(&w, &base.single.model, &o);
    lie.until_ns = 0;
    memset(copies, 0, sizeof copies);
    begin();
    w.o.turn_ns = LONG_TURN_NS;
    for (uint64_t until = cluster_world_now(&w) + 3 * SECOND; cluster_world_now(&w) < until;) {
        one_turn(false); /* the cluster is there, mostly */
    }
    w.o.turn_ns = o.turn_ns;
    for (int turn = 0; turn < n_turns; turn++) {
        one_turn(true);
    }
    end_trouble();
    uint64_t calm_ns = cluster_world_now(&w);
    while (!all_done()) {
        if (cluster_world_now(&w) - calm_ns > CALM_NS) {
            fail_msg("not everybody was answered within %llu s after the trouble",
                     (unsigned long long)(CALM_NS / SECOND));
        }
        if (cluster_world_now(&w) - calm_ns > SECOND) {
            w.o.turn_ns = LONG_TURN_NS; /* what is still awaited takes long */
        }
        one_turn(false);
    }
    if (cluster_world_now(&w) - calm_ns > total.worst_ns) {
        total.worst_ns = cluster_world_now(&w) - calm_ns;
        total.worst_seed = sim_seed;
    }
    check_quiet();
    cluster_world_close(&w);
}

/* ------------------------------------------------------------------------------------------------ program */
static void streams_go_on_whatever_dies(void **state)
{
    (void)state;
    prepare();
    bool all = sim_run_seeds(LAST_SEED, run_seed);
    clean_up();
    print_message("nodes: %llu killed, %llu stopped, %llu slow, %llu mute, %llu drains, %llu of them relieved; "
                  "coordinators: %llu killed, %llu stopped; store: %llu faults, %llu wipes, %llu times no lease; %llu "
                  "ways closed, %llu names silent, %llu lies of what is ready\n",
                  (unsigned long long)total.node_kills, (unsigned long long)total.node_stops,
                  (unsigned long long)total.slow_nodes, (unsigned long long)total.mutes,
                  (unsigned long long)total.drains, (unsigned long long)total.drained,
                  (unsigned long long)total.coordinator_kills, (unsigned long long)total.coordinator_stops,
                  (unsigned long long)total.store_faults, (unsigned long long)total.wipes,
                  (unsigned long long)total.leases, (unsigned long long)total.ways, (unsigned long long)total.names,
                  (unsigned long long)total.lies);
    print_message("%llu tokens, %llu streams taken up elsewhere, %llu failures that say try again, %llu refusals; %llu "
                  "steps abandoned, %llu retries, %llu hedges; all answered %.1f s after calm at the latest (seed "
                  "%llu)\n",
                  (unsigned long long)total.tokens, (unsigned long long)total.resumed, (unsigned long long)total.failed,
                  (unsigned long long)total.refused, (unsigned long long)total.abandoned,
                  (unsigned long long)total.retries, (unsigned long long)total.hedges, (double)total.worst_ns * 1e-9,
                  (unsigned long long)total.worst_seed);
    if (all && LAST_SEED >= 99) {
        assert_true(total.node_kills > 0 && total.node_stops > 0 && total.slow_nodes > 0 && total.drained > 0 &&
                    total.coordinator_kills > 0 && total.coordinator_stops > 0 && total.wipes > 0 && total.mutes > 0 &&
                    total.ways > 0 && total.names > 0 && total.lies > 0);
        assert_true(total.resumed > 0 && total.abandoned > 0 && total.retries > 0 && total.hedges > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(streams_go_on_whatever_dies, sim_name_seed),
    };

    moe_log_set_level(getenv("SIM_LOG") == NULL ? MOE_LOG_ERROR : MOE_LOG_DEBUG);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
