/* Experts that come and go in one process while streams run: who is pinned to the base gives the bits that it gave alone, who
 * uses what was added gives those of a run alone under its own set, and cycles lengthen nothing. */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include "coordinator/embedded_priv.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/random_pack.h"
#include "tests/support/support.h"

#define N_LAYERS 3
#define N_PACKS  3
#define N_SETS   (1 + N_PACKS + 1) /* base, base and one pack, base and all */
#define N_ANSWER 10
#define N_PROMPT 7
#define MAX_WIDE 64
#if defined(__SANITIZE_THREAD__)
#define N_CYCLES 40 /* all that counts is who shares what */
#define N_KINDS  1
#else
#define N_CYCLES 200
#define N_KINDS  RANDOM_MODEL_N_KINDS
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RESIDENT_SLACK ((size_t)1 << 30) /* theirs, not ours */
#else
#define RESIDENT_SLACK ((size_t)8 << 20)
#endif

static const unsigned char fingerprint[32]; /* the fixture's */

typedef struct world {
    test_folder folder;
    engine_fixture f;
    random_pack packs[N_PACKS];
    model_gate_pack gates[N_PACKS];
    router_space *spaces[1 + N_PACKS]; /* [n]: with the first n packs */
    router_set *sets[N_SETS];
    int32_t prompt[N_PROMPT];
    answer alone[N_SETS];
    asked asked[2 * N_SETS];
} world;

static const char *kind;

/* ------------------------------------------------------------------------------------------------ the world */
static router_set *open_set(const world *w, const bool with[N_PACKS])
{
    const router_space *space = w->spaces[N_PACKS];
    uint32_t columns[N_LAYERS][MAX_WIDE];
    int32_t ids[N_LAYERS][MAX_WIDE];
    router_set_layer layers[N_LAYERS];
    router_set *set;
    moe_error err;

    for (uint32_t l = 0; l < N_LAYERS; l++) {
        const router_space_layer *all = router_space_at(space, l);

        layers[l] = (router_set_layer){.expert_ids = ids[l], .columns = columns[l]};
        for (uint32_t i = 0; i < all->n_experts; i++) {
            bool is_in = i < w->f.model.config.n_experts;

            for (size_t p = 0; p < N_PACKS; p++) {
                is_in = is_in || (with[p] && random_pack_find(&w->packs[p], l, all->ids[i]) != NULL);
            }
            ids[l][layers[l].n_experts] = all->ids[i];
            columns[l][layers[l].n_experts] = i;
            layers[l].n_experts += is_in;
        }
    }
    assert_ok(router_set_open(w->spaces[N_PACKS], layers, w->f.model.config.gate.k, fingerprint, &set, &err), err);
    return set;
}

static moe_status find(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err)
{
    const world *w = ctx;

    (void)err;
    for (size_t p = 0; p < N_PACKS; p++) {
        const model_expert_parts *parts = random_pack_find(&w->packs[p], layer, expert_id);
        *out = parts != NULL ? *parts : *out;
    }
    return MOE_OK;
}

/* The experts of some of the sets, by slot. */
static void wanted_of(const world *w, const bool which[N_SETS], uint64_t *bitmap)
{
    const router_space *space = w->spaces[N_PACKS];

    memset(bitmap, 0, router_space_words(space) * sizeof *bitmap);
    for (size_t s = 0; s < N_SETS; s++) {
        for (uint32_t l = 0; l < N_LAYERS && which[s]; l++) {
            const router_set_layer *layer = router_set_at(w->sets[s], l);
            for (uint32_t i = 0; i < layer->n_experts; i++) {
                router_bit_set(bitmap, router_space_slot(space, l, layer->expert_ids[i]));
            }
        }
    }
}

static moe_status change(world *w, size_t n_packs, const bool which[N_SETS], router_set *set, moe_error *err)
{
    uint64_t wanted[64];
    embedded_changes c = {.space = w->spaces[n_packs],
                          .packs = w->gates,
                          .n_packs = n_packs,
                          .find = find,
                          .find_ctx = w,
                          .wanted = wanted,
                          .set = set};

    wanted_of(w, which, wanted);
    return embedded_change(w->f.embedded, w->f.engine, &c, err);
}

static engine_spec spec_of(const world *w, router_set *set)
{
    engine_spec spec = ask_spec(w->prompt, N_PROMPT, N_ANSWER, 5);

    spec.set = set;
    return spec;
}

static void rehearse(world *w, size_t set)
{
    engine_spec spec = spec_of(w, w->sets[set]);

    ask(&w->f, &w->asked[0], &spec);
    ask_finish(&w->f, &w->asked[0]);
    assert_int_equal(w->asked[0].status, MOE_OK);
    w->alone[set] = w->asked[0].choices[0];
}

static void open_world(world *w, const char *of, bool bf16)
{
    static const uint32_t n_experts[N_PACKS][N_LAYERS] = {{2, 3, 1}, {0, 2, 2}, {2, 2, 2}};
    static const uint32_t n_attention[N_PACKS][N_LAYERS] = {{1, 0, 2}, {0, 1, 1}, {0, 0, 0}};
    random_model m = random_model_defaults(of);
    engine_fixture_options o;

    memset(w, 0, sizeof *w);
    test_folder_open(&w->folder);
    m.n_layers = N_LAYERS;
    m.bf16 = bf16;
    random_model_write(&m, w->folder.path);
    o = engine_fixture_defaults(w->folder.path);
    o.micro_batches = 2;
    o.max_batch_tokens = 64;
    o.step_timeout_ns = UINT64_C(2000000000); /* an expert that is gone is not waited for */
    o.prefill_chunk = 16;
    engine_fixture_open(&w->f, &o);
    random_prompt(w->prompt, N_PROMPT, m.vocab_size, 3);
    w->spaces[0] = router_space_ref(router_set_space(w->f.model.set));
    for (size_t p = 0; p < N_PACKS; p++) {
        random_pack_options options = {
            .n_experts = n_experts[p], .n_attention = n_attention[p], .replaces = p == 2, .bf16 = bf16, .seed = 9 + p};
        random_pack_open(&w->packs[p], &w->f.model.config, &options);
        w->spaces[p + 1] = random_pack_join(&w->packs[p], w->spaces[p]);
        w->gates[p] = w->packs[p].gates;
    }
    for (size_t s = 0; s < N_SETS; s++) {
        bool with[N_PACKS] = {s == 1 || s == 4, s == 2 || s == 4, s == 3 || s == 4};
        w->sets[s] = open_set(w, with);
    }
    assert_string_equal(router_set_id(w->sets[0]), router_set_id(w->f.model.set));
}

static void close_world(world *w)
{
    engine_fixture_close(&w->f);
    for (size_t s = 0; s < N_SETS; s++) {
        router_set_unref(w->sets[s]);
    }
    for (size_t p = 0; p < N_PACKS; p++) {
        random_pack_close(&w->packs[p]);
    }
    for (size_t p = 0; p <= N_PACKS; p++) {
        router_space_unref(w->spaces[p]);
    }
    test_folder_close(&w->folder);
}

static const bool all[N_SETS] = {true, true, true, true, true}, base[N_SETS] = {true};

/* ------------------------------------------------------------------------------------------------ by hand */
/* Every set in the same steps: each as if alone, and the base's as before anything came. */
static void sets_share_steps(const char *of, bool bf16)
{
    world *w = malloc(sizeof *w);
    moe_error err;

    open_world(w, of, bf16);
    engine_spec before = spec_of(w, NULL);
    ask(&w->f, &w->asked[0], &before);
    ask_finish(&w->f, &w->asked[0]);
    const answer base_alone = w->asked[0].choices[0];
    for (size_t n = 1; n <= N_PACKS; n++) { /* one pack after the other */
        assert_ok(change(w, n, (bool[N_SETS]){true, n > 0, n > 1, n > 2, n > 2}, NULL, &err), err);
    }
    for (size_t s = 0; s < N_SETS; s++) {
        rehearse(w, s);
    }
    assert_answers_equal(&w->alone[0], &base_alone);
    for (size_t s = 1; s < N_SETS; s++) {
        assert_true(memcmp(w->alone[s].logprobs, base_alone.logprobs, N_ANSWER * sizeof(float)) != 0);
    }
    for (size_t i = 0; i < 2 * N_SETS; i++) {
        engine_spec spec = spec_of(w, w->sets[i % N_SETS]);
        ask(&w->f, &w->asked[i], &spec);
        (void)engine_step(w->f.engine);
    }
    for (size_t i = 0; i < 2 * N_SETS; i++) {
        ask_finish(&w->f, &w->asked[i]);
        assert_answers_equal(&w->asked[i].choices[0], &w->alone[i % N_SETS]);
    }
    assert_ok(change(w, N_PACKS, base, w->sets[0], &err), err);
    rehearse(w, 0);
    assert_answers_equal(&w->alone[0], &base_alone);
    close_world(w);
    free(w);
}

static void sets_with_added_experts_share_steps(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_KINDS; k++) {
        sets_share_steps(random_model_kinds[k], k % 2 == 0);
    }
}

/* They come back to the ids that they had, with the bits that they gave. */
static void packs_come_and_go_and_come_back(void **state)
{
    world *w = malloc(sizeof *w);
    moe_error err;

    (void)state;
    open_world(w, kind, false);
    assert_ok(change(w, N_PACKS, all, w->sets[4], &err), err);
    rehearse(w, 4);
    const answer first = w->alone[4];
    for (size_t i = 0; i < 3; i++) {
        assert_ok(change(w, N_PACKS, base, w->sets[0], &err), err);
        const model_gate_part *part = &w->packs[0].parts[0];
        assert_false(embedded_holds(w->f.embedded, part->layer, part->ids[0]));
        rehearse(w, 0);
        assert_ok(change(w, N_PACKS, all, w->sets[4], &err), err);
        assert_true(embedded_holds(w->f.embedded, part->layer, part->ids[0]));
        rehearse(w, 4);
        assert_answers_equal(&w->alone[4], &first);
    }
    close_world(w);
    free(w);
}

/* What runs keeps its experts, whatever is wanted. */
static void what_a_live_request_needs_stays(void **state)
{
    world *w = malloc(sizeof *w);
    moe_error err;

    (void)state;
    open_world(w, kind, false);
    assert_ok(change(w, N_PACKS, all, NULL, &err), err);
    rehearse(w, 1);
    engine_spec spec = spec_of(w, w->sets[1]);
    ask(&w->f, &w->asked[1], &spec);
    (void)engine_step(w->f.engine);
    assert_ok(change(w, N_PACKS, base, NULL, &err), err);
    ask_finish(&w->f, &w->asked[1]);
    assert_answers_equal(&w->asked[1].choices[0], &w->alone[1]);
    assert_true(embedded_holds(w->f.embedded, 0, w->packs[0].parts[0].ids[0]));
    assert_false(embedded_holds(w->f.embedded, 0, w->packs[2].parts[0].ids[0]));
    assert_ok(change(w, N_PACKS, base, NULL, &err), err);
    assert_false(embedded_holds(w->f.embedded, 0, w->packs[0].parts[0].ids[0]));
    close_world(w);
    free(w);
}

/* Experts of the checkpoint, too. */
static void pruned_experts_are_unloaded_and_restored(void **state)
{
    world *w = malloc(sizeof *w);
    uint64_t wanted[64];
    moe_error err;

    (void)state;
    open_world(w, kind, false);
    rehearse(w, 0);
    const answer before = w->alone[0];
    router_set_layer layers[N_LAYERS];
    int32_t ids[N_LAYERS][MAX_WIDE];
    for (uint32_t l = 0; l < N_LAYERS; l++) {
        const router_set_layer *from = router_set_at(w->sets[0], l);
        memcpy(ids[l], from->expert_ids + 1, (from->n_experts - 1) * sizeof(int32_t));
        layers[l] = (router_set_layer){from->n_experts - 1, ids[l], from->columns + 1};
    }
    router_set *fewer;
    assert_ok(router_set_open(w->spaces[0], layers, w->f.model.config.gate.k, fingerprint, &fewer, &err), err);
    memset(wanted, 0, sizeof wanted);
    embedded_changes c = {.space = w->spaces[0], .wanted = wanted, .set = fewer};
    assert_ok(embedded_change(w->f.embedded, w->f.engine, &c, &err), err);
    assert_false(embedded_holds(w->f.embedded, 0, 0));
    assert_true(embedded_holds(w->f.embedded, 0, 1)); /* the current set's stay */
    c.wanted = NULL;
    c.set = w->sets[0];
    assert_ok(embedded_change(w->f.embedded, w->f.engine, &c, &err), err);
    rehearse(w, 0);
    assert_answers_equal(&w->alone[0], &before);
    router_set_unref(fewer);
    close_world(w);
    free(w);
}

/* ------------------------------------------------------------------------------------------------ refusals */
static moe_status find_nothing(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err)
{
    return layer < 2 ? find(ctx, layer, expert_id, out, err) : MOE_OK;
}

static bool goes_on_for_a_while(void *ctx)
{
    unsigned *left = ctx;

    return (*left)-- > 0;
}

static void what_fails_changes_nothing(void **state)
{
    world *w = malloc(sizeof *w);
    router_space *space, *other;
    moe_error err;

    (void)state;
    open_world(w, kind, false);
    rehearse(w, 0);
    const answer before = w->alone[0];
    embedded_changes c = {.space = w->spaces[N_PACKS],
                          .packs = w->gates,
                          .n_packs = N_PACKS,
                          .find = find_nothing,
                          .find_ctx = w,
                          .set = w->sets[4]};
    assert_int_equal(embedded_change(w->f.embedded, w->f.engine, &c, &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, "there is no pack that has it");
    size_t each = w->f.embedded->expert_bytes;
    w->f.embedded->expert_bytes = SIZE_MAX / 1024; /* as if they were large */
    assert_int_equal(embedded_change(w->f.embedded, w->f.engine, &c, &err), MOE_ERR_BUSY);
    assert_contains(err.text, "are free");
    w->f.embedded->expert_bytes = each;
    unsigned left = 3;
    c.find = find;
    c.goes_on = goes_on_for_a_while;
    c.goes_on_ctx = &left;
    assert_int_equal(embedded_change(w->f.embedded, w->f.engine, &c, &err), MOE_ERR_CANCELLED);
    assert_int_equal(left, UINT32_MAX); /* no further expert was made */
    space = engine_current_space(w->f.engine);
    assert_int_equal(router_space_n_slots(space), router_space_n_slots(w->spaces[0]));
    router_space_unref(space);
    assert_false(embedded_holds(w->f.embedded, 0, w->packs[0].parts[0].ids[0]));
    rehearse(w, 0);
    assert_answers_equal(&w->alone[0], &before);
    assert_ok(change(w, N_PACKS, all, w->sets[4], &err), err);
    /* the same ids for other experts */
    const router_addition added = {.layer = 0, .id = w->packs[0].parts[0].ids[0], .hash = {77}};
    assert_ok(router_space_grow(w->spaces[0], &added, 1, &other, &err), err);
    c = (embedded_changes){.space = other, .find = find, .find_ctx = w};
    assert_int_equal(embedded_change(w->f.embedded, w->f.engine, &c, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "no later version");
    router_space_unref(other);
    close_world(w);
    free(w);
}

/* ------------------------------------------------------------------------------------------------ while it runs */
typedef struct pinned {
    world *w;
    size_t set;
    atomic_bool *stop;
    unsigned n_answers, n_wrong;
    pthread_t thread;
} pinned;

static void read_answer(asked *a)
{
    const struct timespec nap = {.tv_nsec = 200000};

    while (!a->ended) {
        ask_read(a);
        (void)nanosleep(&nap, NULL);
    }
    engine_release(a->request);
}

static bool same(const answer *a, const answer *b)
{
    return a->n == b->n && memcmp(a->tokens, b->tokens, a->n * sizeof(int32_t)) == 0 &&
           memcmp(a->logprobs, b->logprobs, a->n * sizeof(float)) == 0;
}

/* cmocka's assertions stay on the test's own thread: a stream only counts. */
static void *stream(void *arg)
{
    pinned *p = arg;
    asked *a = malloc(sizeof *a);

    while (!atomic_load(p->stop)) {
        engine_spec spec = spec_of(p->w, p->w->sets[p->set]);
        memset(a, 0, sizeof *a);
        if (engine_submit(p->w->f.engine, &spec, &a->request, NULL) != MOE_OK) {
            p->n_wrong++;
            continue;
        }
        read_answer(a);
        p->n_answers++;
        p->n_wrong += a->status != MOE_OK || !same(&a->choices[0], &p->w->alone[p->set]);
    }
    free(a);
    return NULL;
}

/* The user of an added set asks while it is there, in the midst of the changes. */
static unsigned use(world *w, size_t set)
{
    engine_spec spec = spec_of(w, w->sets[set]);
    unsigned n_wrong = 0;

    for (size_t i = 0; i < 2; i++) {
        asked *a = &w->asked[i];
        memset(a, 0, sizeof *a);
        if (engine_submit(w->f.engine, &spec, &a->request, NULL) != MOE_OK) {
            return 1;
        }
    }
    for (size_t i = 0; i < 2; i++) {
        read_answer(&w->asked[i]);
        n_wrong += w->asked[i].status != MOE_OK || !same(&w->asked[i].choices[0], &w->alone[set]);
    }
    return n_wrong;
}

static size_t bytes_in_use(void)
{
    const struct mallinfo2 m = mallinfo2(); /* of this thread's arena: who changes something frees it */

    return m.uordblks + m.hblkhd;
}

/* Cycles first .. last - 1, beside streams that are pinned to the base. */
static void cycle_beside_streams(world *w, size_t first, size_t last)
{
    atomic_bool stop = false;
    pinned streams[2] = {{.w = w, .stop = &stop}, {.w = w, .stop = &stop}};
    unsigned n_wrong = 0;
    moe_error err;

    for (size_t i = 0; i < MOE_COUNT(streams); i++) {
        assert_int_equal(pthread_create(&streams[i].thread, NULL, stream, &streams[i]), 0);
    }
    for (size_t cycle = first; cycle < last; cycle++) {
        size_t set = 1 + cycle % (N_SETS - 1);
        bool which[N_SETS] = {true};

        which[set] = true;
        assert_ok(change(w, N_PACKS, which, w->sets[set], &err), err);
        n_wrong += cycle % 4 == 0 ? use(w, set) : 0;
        assert_ok(change(w, N_PACKS, base, w->sets[0], &err), err);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < MOE_COUNT(streams); i++) {
        pthread_join(streams[i].thread, NULL);
        assert_int_equal(streams[i].n_wrong, 0);
        assert_true(streams[i].n_answers > 0);
    }
    assert_int_equal(n_wrong, 0);
    while (!engine_idle(w->f.engine)) {
    }
    assert_ok(change(w, N_PACKS, base, w->sets[0], &err), err); /* what the last request needed goes */
}

/* Experts are mappings of their own, which no allocator counts: they would be some 200 KiB a cycle. */
static void pinned_streams_never_notice(void **state)
{
    world *w = malloc(sizeof *w);
    moe_resident resident[2];
    size_t bytes[2];
    moe_error err;

    (void)state;
    open_world(w, kind, false);
    assert_ok(change(w, N_PACKS, all, w->sets[0], &err), err);
    for (size_t s = 0; s < N_SETS; s++) {
        rehearse(w, s);
    }
    assert_ok(change(w, N_PACKS, base, w->sets[0], &err), err);
    assert_ok(engine_start(w->f.engine, &err), err);
    cycle_beside_streams(w, 0, N_CYCLES / 4);
    bytes[0] = bytes_in_use();
    moe_memory_resident(&resident[0]);
    cycle_beside_streams(w, N_CYCLES / 4, N_CYCLES);
    bytes[1] = bytes_in_use();
    moe_memory_resident(&resident[1]);
    print_message("%zu bytes allocated after a quarter of the cycles, %zu at the end; resident %zu and %zu\n", bytes[0],
                  bytes[1], resident[0].anonymous, resident[1].anonymous);
    assert_true(bytes[1] < bytes[0] + 65536); /* a request that is just being freed */
    assert_true(resident[1].anonymous < resident[0].anonymous + RESIDENT_SLACK);
    close_world(w);
    free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_with_added_experts_share_steps),
        cmocka_unit_test(packs_come_and_go_and_come_back),
        cmocka_unit_test(what_a_live_request_needs_stays),
        cmocka_unit_test(pruned_experts_are_unloaded_and_restored),
        cmocka_unit_test(what_fails_changes_nothing),
        cmocka_unit_test(pinned_streams_never_notice),
    };

    kind = argc > 1 ? argv[1] : "moe_plus_plus"; /* it has everything: local experts, a map, two layers */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
