#include "tests/support/support.h"

#include "compute/math.h"
#include "sampling/sampling.h"

#include <math.h>
#include <stdlib.h>

#define MAX_VOCAB   50304
#define MAX_HISTORY 40

static const sampling_params plain = {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f, .seed = 1};
static const sampling_params greedy = {.temperature = 0.0f, .top_p = 1.0f, .repetition_penalty = 1.0f, .seed = 1};

/* ------------------------------------------------------------------------------------------------ the slow reference
 * docs/sampling.md in the most literal way: everything computed, everything sorted. */
typedef struct ref_candidate {
    float weight;
    int32_t id;
} ref_candidate;

typedef struct ref_case {
    sampling_params p;
    size_t vocab_size;
    float logits[MAX_VOCAB];
    int32_t prompt[MAX_HISTORY], output[MAX_HISTORY], banned[8];
    sampling_history history;
    size_t n_banned;
} ref_case;

static size_t count_of(const int32_t *ids, size_t n, int32_t id)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++) {
        count += ids[i] == id;
    }
    return count;
}

static float ref_penalized(const ref_case *c, int32_t id)
{
    size_t n_prompt = count_of(c->prompt, c->history.n_prompt, id),
           n_output = count_of(c->output, c->history.n_output, id);
    float z = c->logits[id];

    if (n_prompt + n_output > 0) {
        z = z > 0.0f ? z / c->p.repetition_penalty : z * c->p.repetition_penalty;
    }
    if (n_output > 0) {
        z = z - c->p.frequency_penalty * (float)n_output;
        z = z - c->p.presence_penalty;
    }
    return z;
}

static int ref_order(const void *a, const void *b)
{
    const ref_candidate *x = a, *y = b;

    if (x->weight != y->weight) {
        return x->weight > y->weight ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

static float ref_row_sum(const float *x, size_t n)
{
    float part[16] = {0};

    for (size_t i = 0; i < n; i++) {
        part[i % 16] = part[i % 16] + x[i];
    }
    for (size_t width = 8; width > 0; width /= 2) {
        for (size_t j = 0; j < width; j++) {
            part[j] = part[j] + part[j + width];
        }
    }
    return part[0];
}

static float ref_uniform(uint64_t seed, uint32_t output_index, uint32_t choice_index)
{
    uint32_t counter[4] = {output_index, choice_index, 0, 0}, key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, out[4];

    sampling_philox4x32_10(counter, key, out);
    return (float)(out[0] >> 8) * (1.0f / 16777216.0f);
}

static int32_t ref_greedy(const float *z, const bool *banned, size_t n)
{
    int32_t best = -1;

    for (size_t i = 0; i < n; i++) {
        if (!banned[i] && (best < 0 || z[i] > z[best])) {
            best = (int32_t)i;
        }
    }
    return best;
}

static int32_t ref_sample(const ref_case *c, uint32_t output_index, uint32_t choice_index)
{
    static float z[MAX_VOCAB], weights[MAX_VOCAB], chain[MAX_VOCAB];
    static ref_candidate all[MAX_VOCAB];
    static bool banned[MAX_VOCAB];
    size_t n = 0, n_kept;
    float max, total, threshold;

    for (size_t i = 0; i < c->vocab_size; i++) {
        banned[i] = count_of(c->banned, c->n_banned, (int32_t)i) > 0;
        z[i] = ref_penalized(c, (int32_t)i);
    }
    if (c->p.temperature == 0.0f) {
        return ref_greedy(z, banned, c->vocab_size);
    }
    for (size_t i = 0; i < c->vocab_size; i++) {
        z[i] = z[i] / c->p.temperature;
    }
    max = z[ref_greedy(z, banned, c->vocab_size)];
    for (size_t i = 0; i < c->vocab_size; i++) {
        weights[i] = banned[i] ? 0.0f : compute_exp(z[i] - max);
        if (weights[i] > 0.0f) {
            all[n++] = (ref_candidate){weights[i], (int32_t)i};
        }
    }
    qsort(all, n, sizeof all[0], ref_order);
    total = ref_row_sum(weights, c->vocab_size);
    if (c->p.top_k > 0 && (size_t)c->p.top_k < c->vocab_size) {
        n = MOE_MIN(n, (size_t)c->p.top_k);
        total = 0.0f;
        for (size_t i = 0; i < n; i++) {
            total = total + all[i].weight;
        }
    }
    for (size_t i = 0; i < n; i++) {
        chain[i] = (i == 0 ? 0.0f : chain[i - 1]) + all[i].weight;
    }
    n_kept = n;
    for (size_t i = 0; i < n && c->p.top_p < 1.0f; i++) {
        if (chain[i] >= c->p.top_p * total) {
            n_kept = i + 1;
            break;
        }
    }
    while (n_kept > 1 && all[n_kept - 1].weight < c->p.min_p * all[0].weight) {
        n_kept--;
    }
    threshold = ref_uniform(c->p.seed, output_index, choice_index) * (n_kept < n ? chain[n_kept - 1] : total);
    for (size_t i = 0; i < n_kept; i++) {
        if (chain[i] > threshold) {
            return all[i].id;
        }
    }
    return all[n_kept - 1].id;
}

/* ------------------------------------------------------------------------------------------------ cases */
static float random_normal(moe_random *r)
{
    double sum = 0.0;

    for (int i = 0; i < 12; i++) {
        sum += moe_random_unit(r);
    }
    return (float)(sum - 6.0);
}

static void random_ids(moe_random *r, int32_t *ids, size_t n, size_t vocab_size)
{
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)moe_random_below(r, vocab_size);
    }
}

static float one_of(moe_random *r, const float *values, size_t n)
{
    return values[moe_random_below(r, n)];
}
#define ONE_OF(r, ...) one_of((r), (const float[]){__VA_ARGS__}, sizeof((const float[]){__VA_ARGS__}) / sizeof(float))

static void random_case(moe_random *r, size_t vocab_size, ref_case *c)
{
    float scale = ONE_OF(r, 0.0f, 0.5f, 3.0f, 30.0f);

    c->vocab_size = vocab_size;
    for (size_t i = 0; i < vocab_size; i++) {
        c->logits[i] = random_normal(r) * scale;
        if (moe_random_below(r, 4) == 0) { /* ties */
            c->logits[i] = rintf(c->logits[i]);
        }
    }
    c->history =
        (sampling_history){c->prompt, moe_random_below(r, MAX_HISTORY), c->output, moe_random_below(r, MAX_HISTORY)};
    random_ids(r, c->prompt, c->history.n_prompt, vocab_size);
    random_ids(r, c->output, c->history.n_output, vocab_size);
    c->n_banned = moe_random_below(r, MOE_MIN(vocab_size, 4));
    random_ids(r, c->banned, c->n_banned, vocab_size);
    c->p = (sampling_params){.temperature = ONE_OF(r, 0.0f, 0.3f, 0.7f, 1.0f, 2.5f),
                             .top_k = (int32_t)ONE_OF(r, 0.0f, 0.0f, 1.0f, 5.0f, 50.0f, 1000.0f),
                             .top_p = ONE_OF(r, 1.0f, 1.0f, 0.95f, 0.5f, 0.01f),
                             .min_p = ONE_OF(r, 0.0f, 0.0f, 0.05f, 0.5f, 1.0f),
                             .repetition_penalty = ONE_OF(r, 1.0f, 1.0f, 1.3f, 0.8f),
                             .frequency_penalty = ONE_OF(r, 0.0f, 0.0f, 0.5f, -0.4f),
                             .presence_penalty = ONE_OF(r, 0.0f, 0.0f, 0.7f, -0.2f),
                             .seed = moe_random_u64(r)};
}

static int32_t sample_case(sampler *s, const ref_case *c, uint32_t output_index, uint32_t choice_index)
{
    int32_t token = -1;

    assert_int_equal(
        sampler_pick(s, &c->p, c->logits, &c->history, c->banned, c->n_banned, output_index, choice_index, &token),
        MOE_OK);
    return token;
}

static void assert_equals_reference(size_t vocab_size, size_t n_cases, uint64_t seed)
{
    static ref_case c;
    sampler *s;
    moe_random r;

    moe_random_seed(&r, seed);
    assert_int_equal(sampler_open(vocab_size, &s), MOE_OK);
    for (size_t i = 0; i < n_cases; i++) {
        random_case(&r, vocab_size, &c);
        for (uint32_t draw = 0; draw < 4; draw++) {
            int32_t is = sample_case(s, &c, draw, (uint32_t)i), wanted = ref_sample(&c, draw, (uint32_t)i);

            if (is != wanted) {
                fail_msg("case %zu draw %u: token %d, the reference says %d", i, draw, is, wanted);
            }
        }
    }
    sampler_close(s);
}

static void sampling_equals_the_slow_reference_on_small_vocabularies(void **state)
{
    (void)state;
    for (size_t vocab_size = 5; vocab_size < 130; vocab_size += 7) {
        assert_equals_reference(vocab_size, 400, vocab_size);
    }
}

static void sampling_equals_the_slow_reference_on_a_real_vocabulary(void **state)
{
    (void)state;
    assert_equals_reference(MAX_VOCAB, 25, 7);
}

/* ------------------------------------------------------------------------------------------- one call on few logits */
static moe_status draw(const sampling_params *p, const float *logits, size_t n, const sampling_history *history,
                       int32_t banned, uint32_t output_index, int32_t *token)
{
    sampler *s;
    moe_status status;

    assert_int_equal(sampler_open(n, &s), MOE_OK);
    status = sampler_pick(s, p, logits, history, &banned, banned >= 0, output_index, 0, token);
    sampler_close(s);
    return status;
}

static int32_t token_of(const sampling_params *p, const float *logits, size_t n, const sampling_history *history,
                        int32_t banned)
{
    int32_t token = -1;

    assert_int_equal(draw(p, logits, n, history, banned, 0, &token), MOE_OK);
    return token;
}

/* Bit i: id i was drawn in one of 2,000 tries. */
static uint32_t drawn_ids(const sampling_params *p, const float *logits, size_t n, int32_t banned)
{
    uint32_t ids = 0;
    int32_t token = -1;

    for (uint32_t i = 0; i < 2000; i++) {
        assert_int_equal(draw(p, logits, n, NULL, banned, i, &token), MOE_OK);
        ids |= MOE_BIT(token);
    }
    return ids;
}

static void philox_equals_the_published_vectors(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } v[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    uint32_t out[4];

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(v); i++) {
        sampling_philox4x32_10(v[i].counter, v[i].key, out);
        assert_memory_equal(out, v[i].out, sizeof out);
    }
}

static void greedy_breaks_ties_toward_the_lower_id(void **state)
{
    const float logits[] = {1.0f, 3.0f, 3.0f, -2.0f, 3.0f};

    (void)state;
    assert_int_equal(token_of(&greedy, logits, 5, NULL, -1), 1);
}

static void greedy_treats_zeros_of_both_signs_as_equal(void **state)
{
    const float logits[] = {-1.0f, -0.0f, 0.0f};

    (void)state;
    assert_int_equal(token_of(&greedy, logits, 3, NULL, -1), 1);
}

static void a_denormal_temperature_is_greedy(void **state)
{
    const float logits[] = {0.0f, 1.0f, 0.9f};
    sampling_params p = plain;

    (void)state;
    p.temperature = 1e-40f;
    assert_int_equal(token_of(&p, logits, 3, NULL, -1), 1);
}

static void a_temperature_that_overflows_the_logits_is_greedy(void **state)
{
    const float logits[] = {20.0f, 21.0f, 21.0f};
    sampling_params p = plain;

    (void)state;
    p.temperature = 2e-38f;
    assert_int_equal(token_of(&p, logits, 3, NULL, -1), 1);
}

static void an_infinite_logit_is_always_chosen(void **state)
{
    const float logits[] = {0.0f, 1.0f, INFINITY, 2.0f};

    (void)state;
    assert_int_equal(drawn_ids(&plain, logits, 4, -1), MOE_BIT(2));
}

static void a_logit_of_minus_infinity_is_never_chosen(void **state)
{
    const float logits[] = {0.0f, -INFINITY, 0.0f};

    (void)state;
    assert_int_equal(drawn_ids(&plain, logits, 3, -1), MOE_BIT(0) | MOE_BIT(2));
}

static void all_logits_of_minus_infinity_give_the_first_allowed_id(void **state)
{
    const float logits[] = {-INFINITY, -INFINITY, -INFINITY};

    (void)state;
    assert_int_equal(token_of(&plain, logits, 3, NULL, 0), 1);
}

static void a_nan_logit_fails(void **state)
{
    const float logits[] = {0.0f, NAN, 1.0f};
    int32_t token;

    (void)state;
    assert_int_equal(draw(&plain, logits, 3, NULL, -1, 0, &token), MOE_ERR_DATA_LOSS);
}

static void a_nan_logit_fails_greedy_too(void **state)
{
    const float logits[] = {0.0f, 1.0f, NAN};
    int32_t token;

    (void)state;
    assert_int_equal(draw(&greedy, logits, 3, NULL, -1, 0, &token), MOE_ERR_DATA_LOSS);
}

static void a_nan_logit_of_a_banned_id_fails(void **state)
{
    const float logits[] = {0.0f, NAN, 1.0f};
    int32_t token;

    (void)state;
    assert_int_equal(draw(&plain, logits, 3, NULL, 1, 0, &token), MOE_ERR_DATA_LOSS);
}

static void a_banned_id_is_never_drawn(void **state)
{
    const float logits[] = {0.0f, 9.0f, 0.0f};

    (void)state;
    assert_int_equal(drawn_ids(&plain, logits, 3, 1), MOE_BIT(0) | MOE_BIT(2));
}

static void a_banned_id_is_not_the_greedy_one(void **state)
{
    const float logits[] = {0.0f, 9.0f, 2.0f};

    (void)state;
    assert_int_equal(token_of(&greedy, logits, 3, NULL, 1), 2);
}

static void a_banned_id_does_not_use_up_top_k(void **state)
{
    const float logits[] = {1.0f, 9.0f, 1.5f, 0.0f};
    sampling_params p = plain;

    (void)state;
    p.top_k = 2;
    assert_int_equal(drawn_ids(&p, logits, 4, 1), MOE_BIT(0) | MOE_BIT(2));
}

static void a_banned_id_outside_the_vocabulary_is_ignored(void **state)
{
    const float logits[] = {0.0f, 9.0f};

    (void)state;
    assert_int_equal(token_of(&greedy, logits, 2, NULL, 50279), 1);
}

static void banning_every_id_is_refused(void **state)
{
    const float logits[] = {0.0f};
    int32_t token;

    (void)state;
    assert_int_equal(draw(&plain, logits, 1, NULL, 0, 0, &token), MOE_ERR_INVALID_ARG);
}

static void plain_sampling_reaches_every_id(void **state)
{
    const float logits[] = {0.0f, 0.5f, 1.0f, -0.5f};

    (void)state;
    assert_int_equal(drawn_ids(&plain, logits, 4, -1), 0xf);
}

static void top_k_keeps_the_k_best_and_the_lower_ids_of_ties(void **state)
{
    const float logits[] = {0.0f, 1.0f, 0.0f, 1.0f, 0.0f};
    sampling_params p = plain;

    (void)state;
    p.top_k = 3;
    assert_int_equal(drawn_ids(&p, logits, 5, -1), MOE_BIT(0) | MOE_BIT(1) | MOE_BIT(3));
}

static void top_p_keeps_the_shortest_prefix_that_reaches_it(void **state)
{
    const float logits[] = {0.0f, 0.0f, 0.0f, 0.0f}; /* 1/4 each: 1/2 is reached by two */
    sampling_params p = plain;

    (void)state;
    p.top_p = 0.5f;
    assert_int_equal(drawn_ids(&p, logits, 4, -1), MOE_BIT(0) | MOE_BIT(1));
}

static void top_p_just_above_a_prefix_takes_one_more(void **state)
{
    const float logits[] = {0.0f, 0.0f, 0.0f, 0.0f};
    sampling_params p = plain;

    (void)state;
    p.top_p = 0.51f;
    assert_int_equal(drawn_ids(&p, logits, 4, -1), MOE_BIT(0) | MOE_BIT(1) | MOE_BIT(2));
}

static void min_p_drops_what_is_below_its_share_of_the_best(void **state)
{
    const float logits[] = {0.0f, -0.6f, -0.8f}; /* exp: 1, 0.549, 0.449 */
    sampling_params p = plain;

    (void)state;
    p.min_p = 0.5f;
    assert_int_equal(drawn_ids(&p, logits, 3, -1), MOE_BIT(0) | MOE_BIT(1));
}

static void min_p_of_one_keeps_the_ties_of_the_best(void **state)
{
    const float logits[] = {0.0f, 1.0f, 1.0f};
    sampling_params p = plain;

    (void)state;
    p.min_p = 1.0f;
    assert_int_equal(drawn_ids(&p, logits, 3, -1), MOE_BIT(1) | MOE_BIT(2));
}

/* ------------------------------------------------------------------------------------------------ penalties */
static void repetition_penalty_divides_positive_logits_of_the_prompt(void **state)
{
    const float logits[] = {4.0f, 3.0f};
    const int32_t prompt[] = {0};
    const sampling_history history = {prompt, 1, NULL, 0};
    sampling_params p = greedy;

    (void)state;
    p.repetition_penalty = 1.5f; /* 2.67 */
    assert_int_equal(token_of(&p, logits, 2, &history, -1), 1);
}

static void repetition_penalty_multiplies_negative_logits_of_the_output(void **state)
{
    const float logits[] = {-2.0f, -2.5f};
    const int32_t output[] = {0};
    const sampling_history history = {NULL, 0, output, 1};
    sampling_params p = greedy;

    (void)state;
    p.repetition_penalty = 1.5f; /* -3 */
    assert_int_equal(token_of(&p, logits, 2, &history, -1), 1);
}

static void repetition_penalty_counts_an_id_once(void **state)
{
    const float logits[] = {4.0f, 2.5f};
    const int32_t ids[] = {0, 0, 0};
    const sampling_history history = {ids, 3, ids, 3};
    sampling_params p = greedy;

    (void)state;
    p.repetition_penalty = 1.5f; /* 2.67 */
    assert_int_equal(token_of(&p, logits, 2, &history, -1), 0);
}

static void frequency_penalty_grows_with_the_count_in_the_output(void **state)
{
    const float logits[] = {4.0f, 3.8f, 0.0f};
    const int32_t output[] = {0, 0, 0, 1};
    const sampling_history history = {NULL, 0, output, 4};
    sampling_params p = greedy;

    (void)state;
    p.frequency_penalty = 0.5f; /* 2.5, 3.3 */
    assert_int_equal(token_of(&p, logits, 3, &history, -1), 1);
}

static void presence_penalty_does_not_grow_with_the_count(void **state)
{
    const float logits[] = {4.0f, 3.8f, 0.0f};
    const int32_t output[] = {0, 0, 0, 1};
    const sampling_history history = {NULL, 0, output, 4};
    sampling_params p = greedy;

    (void)state;
    p.presence_penalty = 0.5f; /* 3.5, 3.3 */
    assert_int_equal(token_of(&p, logits, 3, &history, -1), 0);
}

static void frequency_and_presence_leave_the_prompt_alone(void **state)
{
    const float logits[] = {4.0f, 3.8f};
    const int32_t prompt[] = {0, 0};
    const sampling_history history = {prompt, 2, NULL, 0};
    sampling_params p = greedy;

    (void)state;
    p.frequency_penalty = 1.0f;
    p.presence_penalty = 1.0f;
    assert_int_equal(token_of(&p, logits, 2, &history, -1), 0);
}

static void the_history_of_one_call_does_not_reach_the_next(void **state)
{
    const float logits[] = {4.0f, 3.0f};
    const int32_t output[] = {0};
    const sampling_history with = {NULL, 0, output, 1}, without = {NULL, 0, NULL, 0};
    sampling_params p = greedy;
    sampler *s;
    int32_t token = -1;

    (void)state;
    p.presence_penalty = 2.0f;
    assert_int_equal(sampler_open(2, &s), MOE_OK);
    assert_int_equal(sampler_pick(s, &p, logits, &with, NULL, 0, 0, 0, &token), MOE_OK);
    assert_int_equal(sampler_pick(s, &p, logits, &without, NULL, 0, 0, 0, &token), MOE_OK);
    sampler_close(s);
    assert_int_equal(token, 0);
}

/* ------------------------------------------------------------------------------------------------ frequencies */
static double chi_square(const sampling_params *p, const float *logits, size_t n, const double *wanted)
{
    enum { DRAWS = 40000 };
    size_t hits[32] = {0};
    double sum = 0.0;
    sampler *s;
    int32_t token = -1;

    assert_int_equal(sampler_open(n, &s), MOE_OK);
    for (uint32_t i = 0; i < DRAWS; i++) {
        assert_int_equal(sampler_pick(s, p, logits, NULL, NULL, 0, i, 3, &token), MOE_OK);
        hits[token]++;
    }
    sampler_close(s);
    for (size_t i = 0; i < n; i++) {
        double expected = wanted[i] * DRAWS;

        sum += expected > 0.0 ? ((double)hits[i] - expected) * ((double)hits[i] - expected) / expected
                              : (double)hits[i] * 1e6;
    }
    return sum;
}

/* Probabilities of softmax(logits / temperature), ids at or beyond n_kept left out. */
static void softmax_of(const float *logits, size_t n, size_t n_kept, double temperature, double *out)
{
    double sum = 0.0;

    for (size_t i = 0; i < n; i++) {
        out[i] = i < n_kept ? exp((double)logits[i] / temperature) : 0.0;
        sum += out[i];
    }
    for (size_t i = 0; i < n; i++) {
        out[i] /= sum;
    }
}

static void frequencies_follow_the_softmax(void **state)
{
    float logits[16];
    double wanted[16];

    (void)state;
    for (size_t i = 0; i < 16; i++) {
        logits[i] = (float)((i * 7) % 16) * 0.25f;
    }
    softmax_of(logits, 16, 16, 1.0, wanted);
    assert_true(chi_square(&plain, logits, 16, wanted) < 44.0); /* 15 degrees of freedom: p = 0.0001 */
}

static void frequencies_follow_the_temperature(void **state)
{
    float logits[16];
    double wanted[16];
    sampling_params p = plain;

    (void)state;
    for (size_t i = 0; i < 16; i++) {
        logits[i] = (float)((i * 7) % 16) * 0.25f;
    }
    p.temperature = 2.0f;
    softmax_of(logits, 16, 16, 2.0, wanted);
    assert_true(chi_square(&p, logits, 16, wanted) < 44.0);
}

static void frequencies_of_what_top_k_keeps_follow_the_softmax(void **state)
{
    float logits[16];
    double wanted[16];
    sampling_params p = plain;

    (void)state;
    for (size_t i = 0; i < 16; i++) {
        logits[i] = -0.2f * (float)i;
    }
    p.top_k = 6;
    softmax_of(logits, 16, 6, 1.0, wanted);
    assert_true(chi_square(&p, logits, 16, wanted) < 26.0); /* 5 degrees of freedom: p = 0.0001 */
}

/* With n equal weights all sums are whole numbers, and some uniforms hit one exactly. */
static void a_sum_that_only_equals_the_threshold_is_passed(void **state)
{
    enum { N = 1 << 14 };
    static const float logits[N];
    sampler *s;
    int32_t token = -1;
    size_t n_hits = 0;

    (void)state;
    assert_int_equal(sampler_open(N, &s), MOE_OK);
    for (uint32_t i = 0; i < 8192; i++) {
        float threshold = ref_uniform(plain.seed, i, 0) * (float)N;

        if (threshold == floorf(threshold)) {
            assert_int_equal(sampler_pick(s, &plain, logits, NULL, NULL, 0, i, 0, &token), MOE_OK);
            assert_int_equal(token, (int32_t)threshold);
            n_hits++;
        }
    }
    sampler_close(s);
    assert_true(n_hits > 0);
}

/* Candidates are gathered in tiers of weights; the first ends at 2^-7. */
static void a_weight_on_the_edge_of_a_tier_is_not_lost(void **state)
{
    float x = -4.8519f;

    (void)state;
    while (x > -4.8522f && compute_exp(x) != 0x1p-7f) {
        x = nextafterf(x, -5.0f);
    }
    assert_true(compute_exp(x) == 0x1p-7f);
    assert_int_equal(drawn_ids(&plain, (const float[]){0.0f, x}, 2, -1), MOE_BIT(0) | MOE_BIT(1));
}

static void choices_of_one_request_draw_differently(void **state)
{
    const float logits[64] = {0};
    size_t n_equal = 0;
    sampler *s;
    int32_t a, b;

    (void)state;
    assert_int_equal(sampler_open(64, &s), MOE_OK);
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(sampler_pick(s, &plain, logits, NULL, NULL, 0, i, 0, &a), MOE_OK);
        assert_int_equal(sampler_pick(s, &plain, logits, NULL, NULL, 0, i, 1, &b), MOE_OK);
        n_equal += a == b;
    }
    sampler_close(s);
    assert_true(n_equal < 10);
}

static void the_upper_half_of_the_seed_counts(void **state)
{
    const float logits[1024] = {0};
    sampling_params p = plain;
    int32_t a, b;

    (void)state;
    a = token_of(&p, logits, 1024, NULL, -1);
    p.seed += 1ull << 32;
    b = token_of(&p, logits, 1024, NULL, -1);
    assert_int_not_equal(a, b);
}

static int init_thread(void **state)
{
    (void)state;
    compute_thread_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_equals_the_published_vectors),
        cmocka_unit_test(sampling_equals_the_slow_reference_on_small_vocabularies),
        cmocka_unit_test(sampling_equals_the_slow_reference_on_a_real_vocabulary),
        cmocka_unit_test(greedy_breaks_ties_toward_the_lower_id),
        cmocka_unit_test(greedy_treats_zeros_of_both_signs_as_equal),
        cmocka_unit_test(a_denormal_temperature_is_greedy),
        cmocka_unit_test(a_temperature_that_overflows_the_logits_is_greedy),
        cmocka_unit_test(an_infinite_logit_is_always_chosen),
        cmocka_unit_test(a_logit_of_minus_infinity_is_never_chosen),
        cmocka_unit_test(all_logits_of_minus_infinity_give_the_first_allowed_id),
        cmocka_unit_test(a_nan_logit_fails),
        cmocka_unit_test(a_nan_logit_fails_greedy_too),
        cmocka_unit_test(a_nan_logit_of_a_banned_id_fails),
        cmocka_unit_test(a_banned_id_is_never_drawn),
        cmocka_unit_test(a_banned_id_is_not_the_greedy_one),
        cmocka_unit_test(a_banned_id_does_not_use_up_top_k),
        cmocka_unit_test(a_banned_id_outside_the_vocabulary_is_ignored),
        cmocka_unit_test(banning_every_id_is_refused),
        cmocka_unit_test(plain_sampling_reaches_every_id),
        cmocka_unit_test(top_k_keeps_the_k_best_and_the_lower_ids_of_ties),
        cmocka_unit_test(top_p_keeps_the_shortest_prefix_that_reaches_it),
        cmocka_unit_test(top_p_just_above_a_prefix_takes_one_more),
        cmocka_unit_test(min_p_drops_what_is_below_its_share_of_the_best),
        cmocka_unit_test(min_p_of_one_keeps_the_ties_of_the_best),
        cmocka_unit_test(repetition_penalty_divides_positive_logits_of_the_prompt),
        cmocka_unit_test(repetition_penalty_multiplies_negative_logits_of_the_output),
        cmocka_unit_test(repetition_penalty_counts_an_id_once),
        cmocka_unit_test(frequency_penalty_grows_with_the_count_in_the_output),
        cmocka_unit_test(presence_penalty_does_not_grow_with_the_count),
        cmocka_unit_test(frequency_and_presence_leave_the_prompt_alone),
        cmocka_unit_test(the_history_of_one_call_does_not_reach_the_next),
        cmocka_unit_test(frequencies_follow_the_softmax),
        cmocka_unit_test(frequencies_follow_the_temperature),
        cmocka_unit_test(frequencies_of_what_top_k_keeps_follow_the_softmax),
        cmocka_unit_test(a_sum_that_only_equals_the_threshold_is_passed),
        cmocka_unit_test(a_weight_on_the_edge_of_a_tier_is_not_lost),
        cmocka_unit_test(choices_of_one_request_draw_differently),
        cmocka_unit_test(the_upper_half_of_the_seed_counts),
    };

    return cmocka_run_group_tests_name("model sample", tests, init_thread, NULL);
}
