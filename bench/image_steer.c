/* How the picks of a MoE++ model become known. The first N_LOCAL components of the residual stream are one sign for
 * each of its four local experts (constant, constant, copy, zero), fixed by the token's id; N_PARTS more tell the part
 * of the vocabulary. Nothing else writes into them: the rows of matrices that add to the stream are 0 there, and copy
 * and constant experts add their own sign again. Each local expert has its component alone in its gate row, with a
 * weight that outdoes the random rest, and carries nothing on to the next layer's logits. So a token's picks are local
 * as often as it has a plus: twice, once or never. The head prefers tokens of the part in which it finds itself. */
#include "bench/image_priv.h"
#include "compute/math.h"

#include <math.h>

enum { N_LOCAL = 4, N_OWN = N_LOCAL + IMAGE_MAX_SHARES, PERIOD = 100 };
#define FEATURE 8.0f
#define WEIGHT  4.0f

size_t image_vocab_part(const model_config *c, const image_shares *shares)
{
    return c->vocab_size / shares->n;
}

static size_t part_of(const model_config *c, const image_shares *shares, size_t token)
{
    return MOE_MIN(token / image_vocab_part(c, shares), shares->n - 1);
}

/* Of 100 ids in a row the share is exact, mixed as if both picks were drawn independently. */
static size_t n_pluses(double share, size_t token)
{
    size_t twice = (size_t)lround(PERIOD * share * share), once = (size_t)lround(2 * PERIOD * share) - 2 * twice;
    size_t at = token * 37 % PERIOD;

    return at < twice ? 2 : at < twice + once ? 1 : 0;
}

static void embed(const model_config *c, const image_shares *shares, uint16_t *row, size_t token)
{
    size_t part = part_of(c, shares, token), pluses = n_pluses(shares->of[part], token);

    for (size_t i = 0; i < N_LOCAL; i++) { /* the places are taken in turn */
        size_t place = (i + N_LOCAL - (token / 3 + token / PERIOD) % N_LOCAL) % N_LOCAL;
        row[i] = compute_bf16_from_f32(place < pluses ? FEATURE : -FEATURE);
    }
    for (size_t i = 0; i < IMAGE_MAX_SHARES; i++) {
        row[N_LOCAL + i] = compute_bf16_from_f32(i == part ? FEATURE : 0.0f);
    }
}

static void only_own(uint16_t *row, size_t own)
{
    for (size_t i = 0; i < N_OWN; i++) {
        row[i] = i == own ? compute_bf16_from_f32(WEIGHT) : 0;
    }
}

/* Row r of a tensor of `width` values. */
static void steer_row(const model_config *c, const image_shares *shares, model_role role, uint16_t *row, size_t r,
                      size_t width)
{
    switch (role) {
    case MODEL_ROLE_EMBED:
        embed(c, shares, row, r);
        return;
    case MODEL_ROLE_HEAD:
        only_own(row, N_LOCAL + part_of(c, shares, r));
        return;
    case MODEL_ROLE_GATE:
        only_own(row, r < c->n_ffn_experts ? N_OWN : r - c->n_ffn_experts);
        return;
    case MODEL_ROLE_GATE_MAP:
        for (size_t i = c->n_ffn_experts; i < width; i++) {
            row[i] = 0;
        }
        return;
    case MODEL_ROLE_O:
    case MODEL_ROLE_EXPERT_DOWN:
    case MODEL_ROLE_CONSTANT:
        for (size_t i = 0; i < width && r < N_OWN; i++) {
            row[i] = 0;
        }
        return;
    default:
        return;
    }
}

void image_steer(const model_config *c, const image_shares *shares, unsigned char *data, const image_tensor *t)
{
    uint16_t *values = (uint16_t *)(void *)(data + t->offset);

    MOE_ASSERT(c->n_experts - c->n_ffn_experts == N_LOCAL && c->gate_kind == MODEL_GATE_LINEAR && c->d_model >= N_OWN);
    for (size_t r = 0; r < t->n / t->width; r++) {
        steer_row(c, shares, t->role, values + r * t->width, r, t->width);
    }
}
