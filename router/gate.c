/* The gate: logits -> picks. */
#include "router/router.h"
#include "compute/math.h"

#include <math.h>

/* The k largest of p [n] into best (values, best first) and place (their indices). A later equal never displaces an
 * earlier one: ties go to the lower id. */
static void top_k(const float *p, uint32_t n, uint32_t k, float *best, uint32_t *place)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t filled = MOE_MIN(i, k);
        uint32_t at = filled;

        while (at > 0 && p[i] > best[at - 1]) {
            at--;
        }
        for (uint32_t j = MOE_MIN(filled, k - 1); j > at; j--) {
            best[j] = best[j - 1];
            place[j] = place[j - 1];
        }
        if (at < k) {
            best[at] = p[i];
            place[at] = i;
        }
    }
}

static void renormalize(float *best, uint32_t k)
{
    float sum = 0.0f;

    for (uint32_t j = 0; j < k; j++) {
        sum += best[j];
    }
    for (uint32_t j = 0; j < k; j++) {
        best[j] /= sum;
    }
}

/* Combine adds by ascending expert id; places ascend with ids. */
static void emit_ascending(const router_set_layer *layer, const float *best, const uint32_t *place, uint32_t k,
                           int32_t *ids, float *weights)
{
    for (uint32_t j = 0; j < k; j++) {
        int32_t id = layer->expert_ids[place[j]];
        uint32_t at = j;

        for (; at > 0 && ids[at - 1] > id; at--) {
            ids[at] = ids[at - 1];
            weights[at] = weights[at - 1];
        }
        ids[at] = id;
        weights[at] = best[j];
    }
}

/* The strided sum of products of docs/numeric.md, of (z - mean) with itself. */
static float sum_of_squares(const float *z, uint32_t n, float mean)
{
    float p[16] = {0};

    for (uint32_t i = 0; i < n; i++) {
        float d = z[i] - mean;
        p[i % 16] = fmaf(d, d, p[i % 16]);
    }
    for (uint32_t w = 8; w > 0; w /= 2) {
        for (uint32_t j = 0; j < w; j++) {
            p[j] += p[j + w];
        }
    }
    return p[0];
}

/* z / (s / target), s the sample standard deviation; the mean stays in. */
static void standardize(float *z, uint32_t n, float target)
{
    float mean = compute_row_sum(z, n) / (float)n;
    float by = sqrtf(sum_of_squares(z, n, mean) / (float)(n - 1)) / target;

    for (uint32_t i = 0; i < n; i++) {
        z[i] /= by;
    }
}

static bool has_nan(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (isnan(x[i])) {
            return true;
        }
    }
    return false;
}

/* The weights of the chosen, from their probabilities (or logits), best first. */
static void weigh(const router_gate_rule *rule, const router_set_layer *layer, float *best, const uint32_t *place)
{
    if (rule->choose_first) {
        compute_row_softmax(best, best, rule->k);
        return;
    }
    for (uint32_t j = 0; rule->has_zero && j < rule->k; j++) {
        if (layer->expert_ids[place[j]] == rule->zero_expert) {
            best[j] = 0.0f;
        }
    }
    if (rule->renormalize) {
        renormalize(best, rule->k);
    }
}

moe_status router_gate_select(const router_gate_rule *rule, const router_set_layer *layer, const float *logits,
                              int32_t *ids, float *weights, float *scratch)
{
    uint32_t n = layer->n_experts;
    uint32_t place[ROUTER_MAX_TOP_K] = {0};
    float *p = scratch;
    float *best = scratch + n;

    MOE_ASSERT(rule->k >= 1 && rule->k <= ROUTER_MAX_TOP_K && rule->k <= n);
    for (uint32_t i = 0; i < n; i++) {
        p[i] = logits[layer->columns[i]];
    }
    if (rule->standardize) {
        standardize(p, n, rule->target_std);
    }
    if (!rule->choose_first) {
        compute_row_softmax(p, p, n);
    }
    /* A NaN or +inf logit (and a row of -inf alone) makes NaN of the probabilities it touches. */
    if (has_nan(p, n)) {
        return MOE_ERR_DATA_LOSS;
    }
    top_k(p, n, rule->k, best, place);
    weigh(rule, layer, best, place);
    if (has_nan(best, rule->k)) {
        return MOE_ERR_DATA_LOSS;
    }
    emit_ascending(layer, best, place, rule->k, ids, weights);
    return MOE_OK;
}
