/* From logits to a token: docs/sampling.md. */
#include "compute/math.h"
#include "sampling/sampling.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define IN_PROMPT  0x80000000u
#define TIER_RATIO 0x1p-8f /* weights are sorted tier by tier: most tokens are found in the first */

/* What is looked at of a row first: the largest of each block. Where that is too small the block is passed over. */
#define BLOCK 64u

/* exp need not be monotonic: what is passed over for the weight of another, or for its logarithm, is further off than exp errs. */
#define WEIGHT_MARGIN (1.0f + 0x1p-10f)
#define LOG_MARGIN    0x1p-10f

#define CHUNK ((size_t)1024) /* of a row that becomes weights, in the first cache */

struct sampler {
    size_t vocab_size;
    float *values;    /* owned [vocab_size]: penalized logits, then weights exp(z / t - max); +0: not a candidate */
    float *blocks;    /* owned [vocab_size / BLOCK, rounded up]: the largest z of each, then its weight */
    uint32_t *counts; /* owned [vocab_size]: of the history; zero between calls */
    uint64_t *heap;   /* owned [vocab_size]: the tier that is being sorted, best on top */
    uint64_t *sorted; /* owned [vocab_size]: candidates so far, best first */
    const float *z;   /* logits, or values */
    float temperature, max;
    bool all_weighed; /* values are weights; else those of candidates alone are computed */
    size_t n_heap, n_sorted;
    size_t max_sorted; /* top-k */
    float tier_floor;  /* weights at or above it are in sorted or heap */
};

static size_t n_blocks(const sampler *s)
{
    return (s->vocab_size + BLOCK - 1) / BLOCK;
}

moe_status sampler_open(size_t vocab_size, sampler **out)
{
    sampler *s = calloc(1, sizeof *s);

    MOE_ASSERT(vocab_size > 0 && vocab_size <= INT32_MAX);
    if (s == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    s->vocab_size = vocab_size;
    s->values = calloc(vocab_size, sizeof *s->values);
    s->blocks = calloc(n_blocks(s), sizeof *s->blocks);
    s->counts = calloc(vocab_size, sizeof *s->counts);
    s->heap = calloc(vocab_size, sizeof *s->heap);
    s->sorted = calloc(vocab_size, sizeof *s->sorted);
    if (s->values == NULL || s->blocks == NULL || s->counts == NULL || s->heap == NULL || s->sorted == NULL) {
        sampler_close(s);
        return MOE_ERR_NO_MEMORY;
    }
    *out = s;
    return MOE_OK;
}

void sampler_close(sampler *s)
{
    if (s != NULL) {
        free(s->values);
        free(s->blocks);
        free(s->counts);
        free(s->heap);
        free(s->sorted);
        free(s);
    }
}

/* ----------------------------------------------------------------------------------------------- penalties and bans */
static float penalize(const sampling_params *p, float z, uint32_t count)
{
    uint32_t n_output = count & ~IN_PROMPT;

    z = z > 0.0f ? z / p->repetition_penalty : z * p->repetition_penalty;
    z = z - p->frequency_penalty * (float)n_output;
    return n_output > 0 ? z - p->presence_penalty : z;
}

/* Each distinct id once; leaves counts zero. */
static void penalize_ids(sampler *s, const sampling_params *p, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t *count = &s->counts[ids[i]];

        if (*count != 0) {
            s->values[ids[i]] = penalize(p, s->values[ids[i]], *count);
            *count = 0;
        }
    }
}

static bool has_penalty(const sampling_params *p)
{
    return p->repetition_penalty != 1.0f || p->frequency_penalty != 0.0f || p->presence_penalty != 0.0f;
}

static void apply_penalties(sampler *s, const sampling_params *p, const sampling_history *h)
{
    for (size_t i = 0; i < h->n_prompt; i++) {
        MOE_ASSERT(h->prompt[i] >= 0 && (size_t)h->prompt[i] < s->vocab_size);
        s->counts[h->prompt[i]] = IN_PROMPT;
    }
    for (size_t i = 0; i < h->n_output; i++) {
        MOE_ASSERT(h->output[i] >= 0 && (size_t)h->output[i] < s->vocab_size);
        s->counts[h->output[i]]++;
    }
    penalize_ids(s, p, h->prompt, h->n_prompt);
    penalize_ids(s, p, h->output, h->n_output);
}

static bool is_id(const sampler *s, int32_t id)
{
    return id >= 0 && (size_t)id < s->vocab_size;
}

/* ------------------------------------------------------------------------------------------------ candidates
 * A key orders by weight, then by lower id: weights are not negative, so their bits ascend with them. */
static uint64_t key_of(float weight, size_t id)
{
    uint32_t bits;

    memcpy(&bits, &weight, sizeof bits);
    return (uint64_t)bits << 32 | (uint32_t)~id;
}

static int32_t id_of(uint64_t key)
{
    return (int32_t) ~(uint32_t)key;
}

static float weight_of(uint64_t key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    float weight;

    memcpy(&weight, &bits, sizeof weight);
    return weight;
}

static void sift_down(uint64_t *heap, size_t n, size_t at)
{
    uint64_t key = heap[at];

    for (size_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        child += child + 1 < n && heap[child + 1] > heap[child];
        if (heap[child] <= key) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = key;
}

/* Whether its weight may be at least the floor, and the weight if so. */
static bool weigh(const sampler *s, size_t id, float x_floor, float *weight_out)
{
    float x;

    if (s->all_weighed) {
        *weight_out = s->values[id];
        return true;
    }
    x = s->z[id] / s->temperature - s->max;
    if (x < x_floor) {
        return false;
    }
    *weight_out = compute_exp(x);
    return true;
}

static void gather(sampler *s, float floor, float above)
{
    float x_floor = floor > 0.0f ? compute_log(floor) - LOG_MARGIN : -INFINITY, weight;

    for (size_t b = 0; b * BLOCK < s->vocab_size; b++) {
        size_t end = MOE_MIN((b + 1) * BLOCK, s->vocab_size);
        if (s->blocks[b] * WEIGHT_MARGIN < floor) {
            continue;
        }
        for (size_t id = b * BLOCK; id < end; id++) {
            if (weigh(s, id, x_floor, &weight) && weight >= floor && weight < above && weight > 0.0f) {
                s->heap[s->n_heap++] = key_of(weight, id);
            }
        }
    }
}

/* Gathers the next tier that is not empty; n_heap stays 0 when there is none. */
static void fill_heap(sampler *s)
{
    while (s->n_heap == 0 && s->tier_floor > 0.0f) {
        float above = s->tier_floor;
        float floor = above * TIER_RATIO >= FLT_MIN ? above * TIER_RATIO : 0.0f;

        gather(s, floor, above);
        s->tier_floor = floor;
    }
    for (size_t at = s->n_heap / 2; at > 0; at--) {
        sift_down(s->heap, s->n_heap, at - 1);
    }
}

/* The i-th best candidate. False: there are no more. */
static bool candidate(sampler *s, size_t i, uint64_t *key_out)
{
    while (s->n_sorted <= i) {
        if (s->n_sorted == s->max_sorted) {
            return false;
        }
        if (s->n_heap == 0) {
            fill_heap(s);
        }
        if (s->n_heap == 0) {
            return false;
        }
        s->sorted[s->n_sorted++] = s->heap[0];
        s->heap[0] = s->heap[--s->n_heap];
        if (s->n_heap > 0) {
            sift_down(s->heap, s->n_heap, 0);
        }
    }
    *key_out = s->sorted[i];
    return true;
}

static void begin_candidates(sampler *s, int32_t top_k)
{
    s->n_heap = 0;
    s->n_sorted = 0;
    s->max_sorted = top_k > 0 && (size_t)top_k < s->vocab_size ? (size_t)top_k : s->vocab_size;
    s->tier_floor = 2.0f; /* the largest weight is 1 */
}

/* W: of all candidates. */
static float total_weight(sampler *s)
{
    float sum = 0.0f;
    uint64_t key;

    if (s->max_sorted == s->vocab_size) {
        return compute_row_sum(s->values, s->vocab_size);
    }
    for (size_t i = 0; candidate(s, i, &key); i++) {
        sum = sum + weight_of(key);
    }
    return sum;
}

/* What top-p and min-p leave: a prefix of the candidates. */
typedef struct kept {
    size_t n;    /* SIZE_MAX: all */
    float total; /* what the uniform is multiplied with */
} kept;

static kept cut(sampler *s, const sampling_params *p, float total)
{
    bool by_sum = p->top_p < 1.0f;
    float wanted = p->top_p * total, floor = 0.0f, sum = 0.0f;
    uint64_t key;

    if (!by_sum && p->min_p <= 0.0f) {
        return (kept){.n = SIZE_MAX, .total = total};
    }
    for (size_t n = 0; candidate(s, n, &key); n++) {
        floor = n == 0 ? p->min_p * weight_of(key) : floor;
        if (n > 0 && (weight_of(key) < floor || (by_sum && sum >= wanted))) {
            return (kept){.n = n, .total = sum};
        }
        sum = sum + weight_of(key);
    }
    return (kept){.n = SIZE_MAX, .total = total};
}

static int32_t pick(sampler *s, kept k, float uniform)
{
    float threshold = uniform * k.total, sum = 0.0f;
    int32_t id = -1;
    uint64_t key;

    for (size_t i = 0; i < k.n && candidate(s, i, &key); i++) {
        id = id_of(key);
        sum = sum + weight_of(key);
        if (sum > threshold) {
            break;
        }
    }
    return id;
}

static float uniform_of(uint64_t seed, uint32_t output_index, uint32_t choice_index)
{
    const uint32_t counter[4] = {output_index, choice_index, 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t words[4];

    sampling_philox4x32_10(counter, key, words);
    return (float)(words[0] >> 8) * 0x1p-24f;
}

/* ------------------------------------------------------------------------------------------------ sample */
/* The largest of each block, and of all: NaN if any is. */
static float find_max(sampler *s, const float *z)
{
    for (size_t b = 0; b < n_blocks(s); b++) {
        s->blocks[b] = compute_row_max(z + b * BLOCK, MOE_MIN(BLOCK, s->vocab_size - b * BLOCK));
    }
    return compute_row_max(s->blocks, n_blocks(s));
}

/* z = the penalized logits, of which *best_out is the largest; banned ones are -infinity. */
static moe_status prepare(sampler *s, const sampling_params *p, const float *logits, const sampling_history *history,
                          const int32_t *banned, size_t n_banned, float *best_out)
{
    bool penalized = history != NULL && has_penalty(p), changed = penalized || n_banned > 0;

    s->z = changed ? s->values : logits;
    if (changed) {
        memcpy(s->values, logits, s->vocab_size * sizeof *s->values);
    }
    if (penalized) {
        apply_penalties(s, p, history);
    }
    for (size_t i = 0; i < n_banned; i++) {
        if (is_id(s, banned[i]) && isnan(s->values[banned[i]])) {
            return MOE_ERR_DATA_LOSS;
        }
        if (is_id(s, banned[i])) {
            s->values[banned[i]] = -INFINITY;
        }
    }
    *best_out = find_max(s, s->z);
    return isnan(*best_out) ? MOE_ERR_DATA_LOSS : MOE_OK;
}

static bool is_banned(const int32_t *banned, size_t n_banned, size_t id)
{
    for (size_t i = 0; i < n_banned; i++) {
        if (banned[i] >= 0 && (size_t)banned[i] == id) {
            return true;
        }
    }
    return false;
}

/* The first id with the largest z that is not banned. Bans only matter here when the largest is -infinity. */
static moe_status pick_best(const sampler *s, float best, const int32_t *banned, size_t n_banned, int32_t *token_out)
{
    for (size_t b = 0; b < n_blocks(s); b++) {
        size_t end = s->blocks[b] == best ? MOE_MIN((b + 1) * BLOCK, s->vocab_size) : 0;

        for (size_t id = b * BLOCK; id < end; id++) {
            if (s->z[id] == best && (best > -INFINITY || !is_banned(banned, n_banned, id))) {
                *token_out = (int32_t)id;
                return MOE_OK;
            }
        }
    }
    return MOE_ERR_INVALID_ARG;
}

static void to_weights(const sampler *s, const float *z, size_t n, float *out)
{
    if (s->temperature != 1.0f && z != out) {
        memcpy(out, z, n * sizeof *out);
    }
    if (s->temperature != 1.0f) {
        compute_row_divide(out, s->temperature, n);
        z = out;
    }
    compute_row_exp(out, z, s->max, n);
}

/* All of them only where their sum is asked for. */
static void weigh_all(sampler *s)
{
    to_weights(s, s->blocks, n_blocks(s), s->blocks);
    s->all_weighed = s->max_sorted == s->vocab_size;
    for (size_t at = 0; at < s->vocab_size && s->all_weighed; at += CHUNK) {
        to_weights(s, s->z + at, MOE_MIN(CHUNK, s->vocab_size - at), s->values + at);
    }
}

moe_status sampler_pick(sampler *s, const sampling_params *p, const float *logits, const sampling_history *history,
                        const int32_t *banned, size_t n_banned, uint32_t output_index, uint32_t choice_index,
                        int32_t *token_out)
{
    float best;
    moe_status status = prepare(s, p, logits, history, banned, n_banned, &best);

    if (status != MOE_OK) {
        return status;
    }
    s->temperature = p->temperature;
    s->max = p->temperature < FLT_MIN ? INFINITY : best / p->temperature; /* division is monotonic: it is the largest */
    if (!isfinite(s->max)) {                                              /* greedy, or so cold that it is */
        return pick_best(s, best, banned, n_banned, token_out);
    }
    begin_candidates(s, p->top_k);
    weigh_all(s);
    *token_out = pick(s, cut(s, p, total_weight(s)), uniform_of(p->seed, output_index, choice_index));
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ log-probabilities */
/* Inserts id into top, best first, if it belongs to the n best. Ids come ascending, so an equal one stays behind. */
static void insert_top(const float *logits, sampling_top *top, size_t n, size_t *n_filled, int32_t id)
{
    size_t at = *n_filled;

    if (at == n) {
        if (!(logits[id] > logits[top[n - 1].token_id])) {
            return;
        }
        at--;
    } else {
        (*n_filled)++;
    }
    for (; at > 0 && logits[id] > logits[top[at - 1].token_id]; at--) {
        top[at] = top[at - 1];
    }
    top[at].token_id = id;
}

moe_status sampler_logprobs(sampler *s, const float *logits, int32_t token, float *logprob_out, size_t n_top,
                            sampling_top *top)
{
    size_t n_filled = 0;
    float max = find_max(s, logits), log_sum;

    MOE_ASSERT(token < 0 || is_id(s, token));
    if (!isfinite(max)) {
        return MOE_ERR_DATA_LOSS;
    }
    log_sum = compute_row_log_sum(logits, max, s->vocab_size, s->values);
    if (token >= 0) {
        *logprob_out = (logits[token] - max) - log_sum;
    }
    for (size_t b = 0; b < n_blocks(s) && n_top > 0; b++) {
        bool full = n_filled == n_top, none = full && !(s->blocks[b] > logits[top[n_top - 1].token_id]);
        size_t end = none ? 0 : MOE_MIN((b + 1) * BLOCK, s->vocab_size);

        for (size_t id = b * BLOCK; id < end; id++) {
            insert_top(logits, top, n_top, &n_filled, (int32_t)id);
        }
    }
    for (size_t i = 0; i < n_top; i++) {
        bool filled = i < n_filled;

        top[i].token_id = filled ? top[i].token_id : -1;
        top[i].logprob = filled ? (logits[top[i].token_id] - max) - log_sum : -INFINITY;
    }
    return MOE_OK;
}
