/* Gates that have grown, of every kind and class: old columns keep their bits, new ones are what the rows say, and what a row's
 * set has not does not reach the next layer. */
#include <math.h>
#include <stdlib.h>

#include "model/family/family.h"
#include "model/model_priv.h"
#include "tests/support/model_fixture.h"
#include "tests/support/random_model.h"
#include "tests/support/random_pack.h"
#include "tests/support/support.h"

#define N_LAYERS 3
#define N_PACKS  3
#define N_TOKENS 5
#define N_SETS   5 /* base, base and each of the packs, all */
#define N_ROWS   (N_SETS * N_TOKENS)
#define MAX_WIDE 64
#if defined(__SANITIZE_THREAD__)
#define N_SEEDS 1 /* one thread */
#else
#define N_SEEDS 6
#endif

static const unsigned char fingerprint[32] = {1};

typedef struct world {
    test_folder folder;
    model_fixture f;
    random_pack packs[N_PACKS];
    router_space *space; /* with all of them */
    router_set *sets[N_SETS];
    compute_device *maker;
    moe_threads *one;
    model_gates *gates;
} world;

/* The base's experts and those of the packs that are given. */
static router_set *open_set(const world *w, bool with[N_PACKS])
{
    uint32_t n_base = w->f.config.n_experts, columns[N_LAYERS][MAX_WIDE];
    int32_t ids[N_LAYERS][MAX_WIDE];
    router_set_layer layers[N_LAYERS];
    router_set *set;
    moe_error err;

    for (uint32_t l = 0; l < N_LAYERS; l++) {
        const router_space_layer *all = router_space_at(w->space, l);

        layers[l] = (router_set_layer){.expert_ids = ids[l], .columns = columns[l]};
        for (uint32_t i = 0; i < all->n_experts; i++) {
            bool is_in = i < n_base;

            for (size_t p = 0; p < N_PACKS; p++) {
                is_in = is_in || (with[p] && random_pack_find(&w->packs[p], l, all->ids[i]) != NULL);
            }
            ids[l][layers[l].n_experts] = all->ids[i];
            columns[l][layers[l].n_experts] = i;
            layers[l].n_experts += is_in;
        }
    }
    assert_ok(router_set_open(w->space, layers, w->f.config.gate.k, fingerprint, &set, &err), err);
    return set;
}

static void join_packs(world *w, uint64_t seed)
{
    static const uint32_t n_experts[N_PACKS][N_LAYERS] = {{2, 3, 1}, {0, 2, 2}, {1, 2, 1}};
    static const uint32_t n_attention[N_PACKS][N_LAYERS] = {{1, 0, 2}, {0, 3, 1}, {0, 0, 0}};
    moe_random r;

    moe_random_seed(&r, seed);
    w->space = router_space_ref(router_set_space(w->f.set));
    for (size_t p = 0; p < N_PACKS; p++) {
        random_pack_options o = {.n_experts = n_experts[p],
                                 .n_attention = n_attention[p],
                                 .replaces = p == 2,
                                 .bf16 = p == 1,
                                 .seed = seed * N_PACKS + p};
        random_pack_open(&w->packs[p], &w->f.config, &o);
    }
    for (size_t i = 0; i < N_PACKS; i++) { /* in any order */
        size_t p = (i + seed) % N_PACKS;
        router_space *before = w->space;

        w->space = random_pack_join(&w->packs[p], before);
        router_space_unref(before);
    }
}

static void open_world(world *w, const char *kind, bool bf16, bool guarded, uint64_t seed)
{
    random_model m = random_model_defaults(kind);
    model_fixture_options o;
    model_gate_pack gates[N_PACKS];
    moe_error err;

    memset(w, 0, sizeof *w);
    test_folder_open(&w->folder);
    m.n_layers = N_LAYERS;
    m.bf16 = bf16;
    random_model_write(&m, w->folder.path);
    o = model_fixture_defaults(w->folder.path);
    o.guarded = guarded;
    model_fixture_open(&w->f, &o);
    model_fixture_maker(&w->f, COMPUTE_ISA_PORTABLE, &w->one, &w->maker);
    join_packs(w, seed);
    for (size_t p = 0; p < N_PACKS; p++) {
        gates[p] = w->packs[(p + seed / 2) % N_PACKS].gates; /* their order means nothing either */
    }
    assert_ok(model_gates_open(w->f.model, w->f.tensors, w->maker, w->space, gates, N_PACKS, &w->gates, &err), err);
    w->sets[0] = open_set(w, (bool[N_PACKS]){false, false, false});
    w->sets[1] = open_set(w, (bool[N_PACKS]){true, false, false});
    w->sets[2] = open_set(w, (bool[N_PACKS]){false, true, false});
    w->sets[3] = open_set(w, (bool[N_PACKS]){false, false, true});
    w->sets[4] = open_set(w, (bool[N_PACKS]){true, true, true});
}

static void close_world(world *w)
{
    for (size_t i = 0; i < N_SETS; i++) {
        router_set_unref(w->sets[i]);
    }
    for (size_t p = 0; p < N_PACKS; p++) {
        random_pack_close(&w->packs[p]);
    }
    model_gates_unref(w->gates);
    router_space_unref(w->space);
    compute_close(w->maker);
    moe_threads_close(w->one);
    model_fixture_close(&w->f);
    test_folder_close(&w->folder);
}

/* ------------------------------------------------------------------------------------------------ runs
 * N_TOKENS of one sequence per set; experts compute nothing, so that only the gates matter. */
typedef struct run {
    model_batch *batch;
    model_kv_seq seqs[N_SETS];
    model_row rows[N_ROWS];
    size_t n_rows;
} run;

static void begin(run *r, world *w, model_gates *gates, size_t n_sets)
{
    model_room *room;

    r->n_rows = n_sets * N_TOKENS;
    assert_int_equal(model_batch_open(w->f.model, w->f.kv, N_ROWS, N_ROWS, &r->batch), MOE_OK);
    assert_int_equal(model_room_open(w->f.model, gates, N_ROWS, &room), MOE_OK);
    model_room_close(model_batch_move(r->batch, room));
    for (size_t s = 0; s < n_sets; s++) {
        assert_int_equal(model_kv_seq_init(&r->seqs[s], N_TOKENS), MOE_OK);
        assert_int_equal(model_kv_seq_reserve(w->f.kv, &r->seqs[s], N_TOKENS), MOE_OK);
        for (uint32_t t = 0; t < N_TOKENS; t++) {
            r->rows[s * N_TOKENS + t] = (model_row){.token_id = (int32_t)(7 + 11 * t),
                                                    .position = t,
                                                    .pages = r->seqs[s].pages,
                                                    .set = w->sets[s],
                                                    .want_logits = true};
        }
    }
    model_batch_begin(r->batch, r->rows, r->n_rows);
}

static void end(run *r, world *w)
{
    model_batch_close(r->batch);
    for (size_t s = 0; s < r->n_rows / N_TOKENS; s++) {
        model_kv_seq_fini(w->f.kv, &r->seqs[s]);
    }
}

static void route(run *r, uint32_t layer)
{
    model_fixture_route(r->batch, layer);
    for (size_t i = 0; i < r->n_rows; i++) {
        assert_false(model_batch_failed(r->batch, i));
    }
}

static void combine(run *r)
{
    model_batch_local(r->batch);
    model_batch_combine(r->batch);
}

static void for_every_kind(void (*check)(world *w))
{
    for (size_t kind = 0; kind < RANDOM_MODEL_N_KINDS; kind++) {
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            world *w = malloc(sizeof *w);

            open_world(w, random_model_kinds[kind], seed % 2 == 1, seed == 5, seed);
            check(w);
            close_world(w);
            free(w);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ tests */
static void check_old_columns(world *w)
{
    run before, after;
    uint32_t n = w->f.config.n_experts, k = w->f.config.gate.k;
    float logits[2][N_TOKENS * 256];

    begin(&before, w, model_own_gates(w->f.model), 1);
    begin(&after, w, w->gates, N_SETS);
    for (uint32_t l = 0; l < N_LAYERS; l++) {
        route(&before, l);
        route(&after, l);
        uint32_t wide = router_space_at(w->space, l)->n_experts;
        for (size_t i = 0; i < N_TOKENS; i++) {
            assert_memory_equal(before.batch->room->gate_logits + i * n, after.batch->room->gate_logits + i * wide,
                                n * sizeof(float));
        }
        assert_memory_equal(before.batch->experts.ids, after.batch->experts.ids, N_TOKENS * k * sizeof(int32_t));
        assert_memory_equal(before.batch->experts.weights, after.batch->experts.weights, N_TOKENS * k * sizeof(float));
        combine(&before);
        combine(&after);
    }
    float *all = malloc(sizeof(float) * N_ROWS * 256);
    model_fixture_logits(before.batch, logits[0]);
    model_fixture_logits(after.batch, all);
    assert_memory_equal(logits[0], all, sizeof logits[0]);
    free(all);
    end(&before, w);
    end(&after, w);
}

static void old_columns_keep_their_bits(void **state)
{
    (void)state;
    for_every_kind(check_old_columns);
}

/* The row of an added expert in the gate's last layer: [width]. */
static void row_of_added(const world *w, uint32_t layer, int32_t id, size_t width, float *out)
{
    for (size_t p = 0; p < N_PACKS; p++) {
        for (size_t i = 0; i < w->packs[p].gates.n_parts; i++) {
            const model_gate_part *part = &w->packs[p].parts[i];

            for (uint32_t j = 0; part->layer == layer && j < part->n_experts; j++) {
                if (part->ids[j] == id && part->like == NULL) {
                    model_widen(out, part->router->data + j * width * compute_dtype_bytes(part->router->dtype),
                                part->router->dtype, width);
                } else if (part->ids[j] == id) {
                    const checkpoint_logical *t = model_tensors_role(w->f.tensors, MODEL_ROLE_GATE, layer, 0);
                    model_widen(out, t->data + (size_t)part->like[j] * width * compute_dtype_bytes(t->dtype), t->dtype,
                                width);
                }
            }
        }
    }
    if (w->f.config.gate_kind == MODEL_GATE_CENTROIDS) {
        const checkpoint_logical *t = model_tensors_role(w->f.tensors, MODEL_ROLE_TEMPERATURE, layer, 0);
        float temperature;
        model_widen(&temperature, t->data, t->dtype, 1);
        model_scale_centroids(out, 1, width, temperature);
    }
}

/* The pack of an expert; NULL: the checkpoint's. */
static const random_pack *pack_of(const world *w, uint32_t layer, int32_t id, uint32_t *place_out)
{
    for (size_t p = 0; p < N_PACKS; p++) {
        for (size_t i = 0; i < w->packs[p].gates.n_parts; i++) {
            const model_gate_part *part = &w->packs[p].parts[i];

            for (uint32_t j = 0; part->layer == layer && j < part->n_experts; j++) {
                if (part->ids[j] == id) {
                    *place_out = j;
                    return &w->packs[p];
                }
            }
        }
    }
    *place_out = (uint32_t)id;
    return NULL;
}

static float value_at(const unsigned char *data, compute_dtype dtype, size_t at)
{
    float value;

    model_widen(&value, data + at * compute_dtype_bytes(dtype), dtype, 1);
    return value;
}

static const model_gate_part *part_at(const random_pack *p, uint32_t layer)
{
    for (size_t i = 0; i < p->gates.n_parts; i++) {
        if (p->parts[i].layer == layer) {
            return &p->parts[i];
        }
    }
    return NULL;
}

/* What one logit of the layer before adds to that of an expert: from packs and checkpoint, told one by one. */
static float map_value(const world *w, uint32_t layer, int32_t to, int32_t from)
{
    const checkpoint_logical *t = model_tensors_role(w->f.tensors, MODEL_ROLE_GATE_MAP, layer, 0);
    uint32_t n = w->f.config.n_experts, i, j;
    const random_pack *of_to = pack_of(w, layer, to, &i), *of_from = pack_of(w, layer - 1, from, &j);
    const random_pack *p = of_to != NULL ? of_to : of_from;

    if (p == NULL) {
        return value_at(t->data, t->dtype, (size_t)i * n + j);
    }
    if (of_to != NULL && of_from != NULL && of_to != of_from) {
        return 0.0f;
    }
    const model_gate_part *part = part_at(p, layer), *below = part_at(p, layer - 1);
    if (p == &w->packs[2]) { /* replaces */
        i = of_to != NULL ? (uint32_t)part->like[i] : i;
        j = of_from != NULL ? (uint32_t)below->like[j] : j;
        return value_at(t->data, t->dtype, (size_t)i * n + j);
    }
    if (of_to == NULL) {
        return value_at(part->map_columns->data, part->map_columns->dtype, (size_t)i * below->n_experts + j);
    }
    uint32_t before = below == NULL ? 0 : below->n_experts;
    return value_at(part->map_rows->data, part->map_rows->dtype,
                    (size_t)i * (n + before) + (of_from == NULL ? j : n + j));
}

static float chain(const float *x, const float *y, size_t n)
{
    float sum = 0.0f;

    for (size_t i = 0; i < n; i++) {
        sum = fmaf(x[i], y[i], sum);
    }
    return sum;
}

/* The logit of an added expert, computed here from what stands before the gate's last layer; exactly. */
static float expected(const world *w, uint32_t layer, uint32_t place, const float *inner, size_t width,
                      const float *before, uint32_t n_before)
{
    const router_space_layer *all = router_space_at(w->space, layer);
    float row[1024], map[MAX_WIDE];

    assert_true(width <= MOE_COUNT(row));
    row_of_added(w, layer, all->ids[place], width, row);
    float z = chain(inner, row, width);
    if (!w->f.config.gate_map || layer == 0) {
        return z;
    }
    for (uint32_t c = 0; c < n_before; c++) {
        map[c] = map_value(w, layer, all->ids[place], router_space_at(w->space, layer - 1)->ids[c]);
    }
    return z + chain(before, map, n_before);
}

static void check_new_columns(world *w)
{
    const model_config *c = &w->f.config;
    compute_device *d = w->f.device;
    size_t width = c->gate_kind == MODEL_GATE_LINEAR ? c->d_model : c->gate_width;
    float *inner = malloc(N_ROWS * width * sizeof *inner);
    float logits[2][N_ROWS * MAX_WIDE] = {{0}}; /* of the layer before, and of this one: +0 outside of the row's set */
    uint32_t n_before = 0;
    run r;

    begin(&r, w, w->gates, N_SETS);
    for (uint32_t l = 0; l < N_LAYERS; l++) {
        const router_space_layer *all = router_space_at(w->space, l);

        assert_true(all->n_experts <= MAX_WIDE);
        route(&r, l);
        /* Where the experts' input is doubled, the normed row has been overwritten: halved again it is exact. */
        assert_int_equal(d->ops->download(d, inner, c->gate_kind == MODEL_GATE_LINEAR ? r.batch->norm : r.batch->inner,
                                          r.n_rows * width * sizeof *inner),
                         MOE_OK);
        for (size_t i = 0; c->double_input && c->gate_kind == MODEL_GATE_LINEAR && i < r.n_rows * width; i++) {
            inner[i] *= 0.5f;
        }
        const float *before = logits[l % 2];
        float *now = logits[1 - l % 2];
        memset(now, 0, sizeof logits[0]);
        for (size_t i = 0; i < r.n_rows; i++) {
            const router_set_layer *set = router_set_at(r.rows[i].set, l);

            for (uint32_t at = 0; at < set->n_experts; at++) {
                uint32_t place = set->columns[at];
                float is = r.batch->room->gate_logits[i * all->n_experts + place];
                if (place >= c->n_experts) {
                    float must = expected(w, l, place, inner + i * width, width, before + i * MAX_WIDE, n_before);
                    assert_memory_equal(&is, &must, sizeof is);
                }
                now[i * MAX_WIDE + place] = is;
            }
        }
        n_before = all->n_experts;
        combine(&r);
    }
    end(&r, w);
    free(inner);
}

static void new_columns_are_what_their_rows_say(void **state)
{
    (void)state;
    for_every_kind(check_new_columns);
}

/* With the map, what an added expert has got reaches the next layer of rows whose set has it, and of no others. */
static void added_logits_reach_the_next_layer_of_their_sets_alone(void **state)
{
    world *w = malloc(sizeof *w);
    run r;
    uint32_t n;

    (void)state;
    open_world(w, "moe_plus_plus", false, false, 0);
    n = w->f.config.n_experts;
    begin(&r, w, w->gates, N_SETS);
    route(&r, 0);
    combine(&r);
    route(&r, 1);
    uint32_t wide = router_space_at(w->space, 1)->n_experts;
    const float *logits = r.batch->room->gate_logits;
    /* sets[2]'s pack has no experts in layer 0: as the base */
    assert_memory_equal(logits, logits + 2 * N_TOKENS * wide, n * sizeof *logits);
    assert_true(memcmp(logits, logits + 1 * N_TOKENS * wide, n * sizeof *logits) != 0);
    end(&r, w);
    close_world(w);
    free(w);
}

/* ------------------------------------------------------------------------------------------------ attention experts */
/* Of the first n_sets: [n_sets * N_TOKENS, vocabulary]; experts give nothing, so what differs comes of attention. The caller frees. */
static float *logits_of(world *w, model_gates *gates, size_t n_sets)
{
    float *out = malloc(sizeof(float) * n_sets * N_TOKENS * w->f.config.vocab_size);
    run r;

    begin(&r, w, gates, n_sets);
    for (uint32_t l = 0; l < N_LAYERS; l++) {
        route(&r, l);
        combine(&r);
    }
    model_fixture_logits(r.batch, out);
    end(&r, w);
    return out;
}

static size_t n_loaded(const world *w)
{
    size_t n = 0;

    for (const attention_pack *p = w->f.model->att_packs; p != NULL; p = p->next) {
        n++;
    }
    return n;
}

/* As with the packs of its own set alone, whoever else has attention experts, in the same step or before it in the gates. */
static void check_attention(world *w)
{
    size_t n = (size_t)N_TOKENS * w->f.config.vocab_size, bytes = n * sizeof(float);
    float *all = logits_of(w, w->gates, N_SETS);
    bool has_attention = w->f.config.n_att_experts > 0;
    router_set *first = w->sets[0];
    moe_error err;

    assert_int_equal(n_loaded(w), has_attention ? 2 : 0);
    for (size_t p = 0; p < 2 && has_attention; p++) {
        model_gates *own;

        assert_ok(model_gates_open(w->f.model, w->f.tensors, w->maker, w->space, &w->packs[p].gates, 1, &own, &err),
                  err);
        assert_int_equal(n_loaded(w), 2); /* they are loaded once */
        w->sets[0] = w->sets[1 + p];
        float *alone = logits_of(w, own, 1);
        w->sets[0] = first;
        assert_memory_equal(alone, all + (1 + p) * n, bytes);
        assert_true(memcmp(all, all + (1 + p) * n, bytes) != 0);
        free(alone);
        model_gates_unref(own);
    }
    /* the pack that replaces brings none */
    if (has_attention) {
        assert_memory_equal(all, all + 3 * n, bytes);
        assert_true(memcmp(all + n, all + 4 * n, bytes) != 0);
    }
    model_gate_pack turned[N_PACKS];
    for (size_t p = 0; p < N_PACKS; p++) { /* the order of packs is that of the space, however they are given */
        turned[p] = w->packs[N_PACKS - 1 - p].gates;
    }
    model_gates_unref(w->gates);
    assert_ok(model_gates_open(w->f.model, w->f.tensors, w->maker, w->space, turned, N_PACKS, &w->gates, &err), err);
    float *same = logits_of(w, w->gates, N_SETS);
    assert_memory_equal(all, same, N_SETS * bytes);
    free(same);
    free(all);
    model_gates_unref(w->gates);
    w->gates = NULL;
    assert_int_equal(n_loaded(w), 0);
}

static void attention_experts_are_those_of_the_rows_own_set(void **state)
{
    (void)state;
    for_every_kind(check_attention);
}

/* ------------------------------------------------------------------------------------------------ refusals */
static void refuse(world *w, const model_gate_part *part, const char *why)
{
    const model_gate_pack pack = {.parts = part, .n_parts = 1};
    model_gates *g = NULL;
    moe_error err;

    assert_int_equal(model_gates_open(w->f.model, w->f.tensors, w->maker, w->space, &pack, 1, &g, &err),
                     MOE_ERR_INVALID_ARG);
    assert_contains(err.text, why);
    assert_null(g);
}

static void parts_that_do_not_fit_are_refused(void **state)
{
    world *w = malloc(sizeof *w);
    const int32_t base_id = 1, unknown = 4000, no_ffn = 4000;

    (void)state;
    open_world(w, "olmoe", false, false, 0);
    model_gate_part part = w->packs[0].parts[0];
    checkpoint_tensor tensor = *part.router;
    part.n_experts = 1;
    part.router = &tensor;
    tensor.shape[0] = 1;
    part.ids = &base_id;
    refuse(w, &part, "layer 0 expert 1: is none that was added");
    part.ids = &unknown;
    refuse(w, &part, "layer 0 expert 4000: is none that was added");
    part.ids = w->packs[0].parts[0].ids;
    part.layer = 77;
    refuse(w, &part, "layer 77");
    part.layer = 0;
    tensor.shape[1]++;
    refuse(w, &part, "must have the shape [1, 96]");
    part.like = &no_ffn;
    refuse(w, &part, "the checkpoint has no FFN expert 4000");
    close_world(w);
    free(w);
}

static void attention_experts_that_do_not_fit_are_refused(void **state)
{
    world *w = malloc(sizeof *w);
    const int32_t like[2] = {0, 1};

    (void)state;
    open_world(w, "moduleformer", false, false, 0);
    model_gate_part part = w->packs[0].parts[0];
    checkpoint_tensor q = *part.attention[0].q, o = *part.attention[0].o, router = *part.attention_router;
    model_attention_parts expert = {.q = &q, .o = &o};
    part.attention = &expert;
    part.attention_router = &router;
    router.shape[1]++;
    refuse(w, &part, "layer 0: the attention router's rows of added experts must have the shape");
    router.shape[1]--;
    q.shape[0]++;
    refuse(w, &part, "layer 0: q of added experts must have the shape [72, 72]");
    q.shape[0]--;
    o.shape[1]++;
    refuse(w, &part, "layer 0: o of added");
    o.shape[1]--;
    part.like = like;
    refuse(w, &part, "no attention experts can be added here");
    part.like = NULL;
    w->f.model->config.n_att_experts = 0;
    refuse(w, &part, "no attention experts can be added here");
    w->f.model->config.n_att_experts = w->f.config.n_att_experts;
    close_world(w);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_columns_keep_their_bits),
        cmocka_unit_test(new_columns_are_what_their_rows_say),
        cmocka_unit_test(added_logits_reach_the_next_layer_of_their_sets_alone),
        cmocka_unit_test(attention_experts_are_those_of_the_rows_own_set),
        cmocka_unit_test(parts_that_do_not_fit_are_refused),
        cmocka_unit_test(attention_experts_that_do_not_fit_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
