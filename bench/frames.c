#include "bench/frames.h"

#include <stdlib.h>

enum { DECODE_POSITION = 16, MAX_ROUNDS = 64, MAX_PICKS = RIG_MAX_ROWS * OLMOE_TOP_K };

typedef struct frames_bench {
    rig *rig;
    model_batch *batch;
    compute_mem *grouped; /* class dtype [MAX_PICKS, d]: the direct call's results, expert by expert */
    const compute_expert *experts[OLMOE_N_LAYERS][OLMOE_N_EXPERTS]; /* borrowed from the node */
    model_kv_seq sequences[RIG_MAX_RUNNING];
    size_t n_sequences, n_rows;
    model_row rows[RIG_MAX_ROWS];
    compute_group groups[OLMOE_N_EXPERTS];
    uint32_t members[MAX_PICKS]; /* rows, expert by expert */
    uint32_t places[MAX_PICKS];  /* of each pick among them */
} frames_bench;

typedef moe_status (*experts_fn)(frames_bench *b, uint32_t layer, moe_error *err);

static double now_s(void)
{
    return (double)moe_now_ns(moe_clock_real()) * 1e-9;
}

/* ------------------------------------------------------------------------------------------------ the two ways */
static moe_status by_frames(frames_bench *b, uint32_t layer, moe_error *err)
{
    exchange *x = embedded_exchange(b->rig->embedded);
    exchange_job job = {.layer = layer,
                        .n_rows = b->n_rows,
                        .ids = model_batch_ids(b->batch),
                        .x = model_batch_x(b->batch),
                        .results = model_batch_results(b->batch)};
    moe_status status = exchange_begin(x, &job);

    if (status != MOE_OK) {
        return status;
    }
    while ((status = exchange_collect(x, 0, err)) == MOE_ERR_BUSY) {
        (void)exchange_progress(x);
    }
    return status;
}

/* Picks in the order of experts: counted, then placed. Returns the number of groups. */
static size_t group_picks(frames_bench *b, uint32_t layer)
{
    const int32_t *ids = model_batch_ids(b->batch);
    size_t counts[OLMOE_N_EXPERTS] = {0}, next[OLMOE_N_EXPERTS], at = 0, n_groups = 0;

    for (size_t i = 0; i < b->n_rows * OLMOE_TOP_K; i++) {
        counts[ids[i]]++;
    }
    for (size_t e = 0; e < OLMOE_N_EXPERTS; e++) {
        next[e] = at;
        if (counts[e] > 0) {
            b->groups[n_groups++] = (compute_group){b->experts[layer][e], b->members + at, counts[e], at};
        }
        at += counts[e];
    }
    for (size_t i = 0; i < b->n_rows * OLMOE_TOP_K; i++) {
        size_t place = next[ids[i]]++;
        b->members[place] = (uint32_t)(i / OLMOE_TOP_K);
        b->places[i] = (uint32_t)place;
    }
    return n_groups;
}

static moe_status by_direct_call(frames_bench *b, uint32_t layer, moe_error *err)
{
    compute_device *d = b->rig->device;
    size_t n_groups = group_picks(b, layer), row_words = OLMOE_D_MODEL * sizeof(uint16_t) / sizeof(float);

    (void)err;
    d->ops->expert_ffn(d, b->grouped, model_batch_x(b->batch), b->groups, n_groups);
    /* gather moves bits: a row of bf16 is half as many words. */
    d->ops->gather(d, model_batch_results(b->batch), b->grouped, b->places, row_words, b->n_rows * OLMOE_TOP_K);
    return MOE_OK;
}

/* One pass; seconds of the experts' part and of all. */
static moe_status pass(frames_bench *b, experts_fn experts, double seconds[2], moe_error *err)
{
    double start = now_s(), part = 0.0;
    moe_status status = MOE_OK;

    model_batch_begin(b->batch, b->rows, b->n_rows);
    for (uint32_t layer = 0; layer < b->rig->config.n_layers && status == MOE_OK; layer++) {
        status = model_batch_route(b->batch, layer);
        part -= now_s();
        if (status == MOE_OK) {
            status = experts(b, layer, err);
        }
        part += now_s();
        if (status == MOE_OK) {
            model_batch_combine(b->batch);
        }
    }
    seconds[0] = part;
    seconds[1] = now_s() - start;
    return status;
}

/* ------------------------------------------------------------------------------------------------ open */
static void find_experts(frames_bench *b)
{
    const rig *r = b->rig;
    size_t idx[MODEL_MAX_EXPERT_TENSORS], n;

    for (uint32_t l = 0; l < r->config.n_layers; l++) {
        for (int32_t e = 0; e < OLMOE_N_EXPERTS; e++) {
            MOE_ASSERT(model_expert_tensors(&r->config, r->tensors, l, e, idx, &n, NULL) == MOE_OK);
            b->experts[l][e] = timed_device_expert(r->device, model_tensors_all(r->tensors)[idx[0]].data);
            MOE_ASSERT(b->experts[l][e] != NULL);
        }
    }
}

static moe_status open_sequences(frames_bench *b)
{
    size_t n_tokens = b->n_sequences == b->n_rows ? DECODE_POSITION + 1 : b->n_rows;
    moe_status status = MOE_OK;

    for (size_t i = 0; i < b->n_sequences && status == MOE_OK; i++) {
        status = model_kv_seq_init(&b->sequences[i], n_tokens);
        if (status == MOE_OK) {
            status = model_kv_seq_reserve(b->rig->kv, &b->sequences[i], n_tokens);
        }
    }
    return status;
}

static moe_status open_bench(frames_bench *b)
{
    compute_device *d = b->rig->device;
    moe_status status;

    find_experts(b);
    b->grouped = d->ops->alloc(d, (size_t)MAX_PICKS * OLMOE_D_MODEL * sizeof(uint16_t));
    if (b->grouped == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    status = model_batch_open(b->rig->model, b->rig->kv, RIG_MAX_ROWS, 1, &b->batch);
    return status == MOE_OK ? open_sequences(b) : status;
}

static void close_bench(frames_bench *b)
{
    for (size_t i = 0; i < b->n_sequences; i++) {
        model_kv_seq_fini(b->rig->kv, &b->sequences[i]);
    }
    model_batch_close(b->batch);
    b->rig->device->ops->free(b->rig->device, b->grouped);
    free(b);
}

static void draw_rows(frames_bench *b, moe_random *random)
{
    bool decode = b->n_sequences == b->n_rows;

    for (size_t i = 0; i < b->n_rows; i++) {
        b->rows[i] = (model_row){.token_id = (int32_t)moe_random_below(random, OLMOE_VOCAB),
                                 .position = decode ? DECODE_POSITION : (uint32_t)i,
                                 .pages = b->sequences[decode ? i : 0].pages,
                                 .set = b->rig->set};
    }
}

/* ------------------------------------------------------------------------------------------------ measuring */
static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

static moe_status measure(frames_bench *b, size_t n_rounds, frames_result *out, moe_error *err)
{
    double samples[4][MAX_ROUNDS], seconds[2][2];
    moe_random random;
    moe_status status = MOE_OK;

    moe_random_seed(&random, 11);
    for (size_t i = 0; i < n_rounds && status == MOE_OK; i++) {
        bool frames_first = i % 2 == 1;

        draw_rows(b, &random);
        for (size_t turn = 0; turn < 2 && status == MOE_OK; turn++) {
            bool frames = (turn == 0) == frames_first;
            status = pass(b, frames ? by_frames : by_direct_call, seconds[frames], err);
        }
        for (size_t s = 0; s < 4 && status == MOE_OK; s++) {
            samples[s][i] = seconds[s / 2][s % 2];
        }
    }
    if (status == MOE_OK) {
        *out = (frames_result){.direct_experts = median(samples[0], n_rounds),
                               .direct_all = median(samples[1], n_rounds),
                               .frames_experts = median(samples[2], n_rounds),
                               .frames_all = median(samples[3], n_rounds)};
    }
    return status;
}

moe_status frames_measure(rig *r, size_t n_sequences, size_t n_rows, size_t n_rounds, frames_result *out,
                          moe_error *err)
{
    frames_bench *b = calloc(1, sizeof *b);
    moe_status status;

    if (b == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "frames: out of memory");
    }
    MOE_ASSERT(n_rounds > 0 && n_rounds <= MAX_ROUNDS && n_rows <= RIG_MAX_ROWS && n_sequences <= RIG_MAX_RUNNING);
    *b = (frames_bench){.rig = r, .n_sequences = n_sequences, .n_rows = n_rows};
    status = open_bench(b);
    if (status == MOE_OK) {
        status = measure(b, n_rounds, out, err);
    }
    close_bench(b);
    return status;
}
