/* Rotary positions: what rope_theta, rope_scaling and rope_parameters say, and the frequencies that follow from it. The
 * formulas are those of the transformers package, in double. */
#include "model/config_keys.h"
#include "compute/math.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#define MAX_THETA  1e15
#define MAX_FACTOR 1e6
#define PI         3.14159265358979323846

/* ------------------------------------------------------------------------------------------------ frequencies */
/* The pair of dimensions that turns `rotations` times within n positions; a fraction, as pairs go up by ones. */
static double pair_of_rotations(const model_rope *r, double rotations, double head_dim)
{
    return head_dim * log(r->original_positions / (rotations * 2.0 * PI)) / (2.0 * log(r->theta));
}

/* YaRN (arXiv 2309.00071, section 3.2): pairs that turn often keep their frequency, pairs that turn less than once are
 * stretched by the factor, between them a ramp. */
static void stretch_by_yarn(const model_rope *r, uint32_t head_dim, double *frequencies)
{
    double low = pair_of_rotations(r, r->fast, head_dim), high = pair_of_rotations(r, r->slow, head_dim);

    low = fmax(r->truncate ? floor(low) : low, 0.0);
    high = fmin(r->truncate ? ceil(high) : high, (double)head_dim - 1.0);
    high += low == high ? 0.001 : 0.0;
    for (uint32_t j = 0; j < head_dim / 2; j++) {
        double ramp = fmin(fmax((j - low) / (high - low), 0.0), 1.0), plain = frequencies[j];

        frequencies[j] = plain / r->factor * ramp + plain * (1.0 - ramp);
    }
}

/* Llama 3.1: the same thought, with the ramp over wavelengths. */
static void stretch_by_llama3(const model_rope *r, uint32_t head_dim, double *frequencies)
{
    for (uint32_t j = 0; j < head_dim / 2; j++) {
        double plain = frequencies[j], turns = r->original_positions * plain / (2.0 * PI);
        double ramp = (turns - r->slow) / (r->fast - r->slow);

        if (turns < r->slow) {
            frequencies[j] = plain / r->factor;
        } else if (turns <= r->fast) {
            frequencies[j] = (1.0 - ramp) * plain / r->factor + ramp * plain;
        }
    }
}

void model_rope_frequencies(const model_rope *r, uint32_t head_dim, double *out)
{
    compute_rope_frequencies(out, head_dim, r->theta);
    if (r->kind == MODEL_ROPE_YARN) {
        stretch_by_yarn(r, head_dim, out);
    } else if (r->kind == MODEL_ROPE_LLAMA3) {
        stretch_by_llama3(r, head_dim, out);
    }
}

/* ------------------------------------------------------------------------------------------------ keys
 * Of the object `where`: "rope_scaling" or "rope_parameters". */
typedef struct scaling {
    const char *where;
    const json_t *keys;
} scaling;

static moe_status in_object(const scaling *s, moe_status status, const moe_error *reason, moe_error *err)
{
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%s.%s", s->where, reason->text);
}

static moe_status read_real(const scaling *s, const char *key, double min, double max, double *out, bool *found,
                            moe_error *err)
{
    moe_error reason;

    return in_object(s, moe_json_real(s->keys, key, min, max, out, found, &reason), &reason, err);
}

static moe_status need_real(const scaling *s, const char *key, double min, double max, double *out, moe_error *err)
{
    bool found;
    moe_status status = read_real(s, key, min, max, out, &found, err);

    return status == MOE_OK && !found ? moe_fail(err, MOE_ERR_INVALID_ARG, "%s.%s: missing", s->where, key) : status;
}

/* The length that the model was trained for: an older key beside the object wins, as in the package. */
static moe_status read_original(const scaling *s, const moe_json *json, model_config *c, moe_error *err)
{
    bool found;
    moe_status status;

    c->rope.original_positions = c->max_positions;
    status = moe_json_real(json, "original_max_position_embeddings", 1.0, MODEL_MAX_POSITIONS,
                           &c->rope.original_positions, &found, err);
    if (status != MOE_OK || found) {
        return status;
    }
    return read_real(s, "original_max_position_embeddings", 1.0, MODEL_MAX_POSITIONS, &c->rope.original_positions, NULL,
                     err);
}

/* The context that a factor makes of n positions, as vLLM derives it. */
static moe_status extend_positions(const scaling *s, double n, double factor, model_config *c, moe_error *err)
{
    double extended = floor(n * factor);

    if (extended > MODEL_MAX_POSITIONS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s.factor: %g times %g positions: more than %u", s->where, factor, n,
                        MODEL_MAX_POSITIONS);
    }
    c->max_positions = (uint32_t)fmax(extended, c->max_positions);
    c->positions_by = "rope_scaling's factor times the original length";
    return MOE_OK;
}

static moe_status parse_linear(const scaling *s, const moe_json *json, model_config *c, moe_error *err)
{
    double factor;
    moe_status status = need_real(s, "factor", 1.0, MAX_FACTOR, &factor, err);

    (void)json;
    if (status != MOE_OK || factor == 1.0) {
        return status;
    }
    c->rope.position_scale = 1.0 / factor;
    return extend_positions(s, c->max_positions, factor, c, err);
}

/* Beyond max_position_embeddings the frequencies of all positions would follow the length of the sequence, so that a
 * token's keys were no function of what is before it: docs/decisions.md. Up to there it is no scaling at all. */
static moe_status parse_dynamic(const scaling *s, const moe_json *json, model_config *c, moe_error *err)
{
    double factor;

    (void)json;
    c->positions_by = "max_position_embeddings (rope_scaling of type \"dynamic\" is supported up to there)";
    return need_real(s, "factor", 1.0, MAX_FACTOR, &factor, err);
}

static double magnitude_of(double factor, double scale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * scale * log(factor) + 1.0;
}

/* attention_factor, else what the factor and the two scales of DeepSeek make of it. */
static moe_status read_magnitude(const scaling *s, model_rope *r, moe_error *err)
{
    double scale = 0.0, scale_all = 0.0;
    bool found;
    moe_status status = read_real(s, "attention_factor", (double)FLT_MIN, MAX_FACTOR, &r->magnitude, &found, err);

    if (status == MOE_OK) {
        status = read_real(s, "mscale", 0.0, MAX_FACTOR, &scale, NULL, err);
    }
    if (status == MOE_OK) {
        status = read_real(s, "mscale_all_dim", 0.0, MAX_FACTOR, &scale_all, NULL, err);
    }
    if (status == MOE_OK && !found) {
        r->magnitude = scale > 0.0 && scale_all > 0.0
                           ? magnitude_of(r->factor, scale) / magnitude_of(r->factor, scale_all)
                           : magnitude_of(r->factor, 1.0);
    }
    return status;
}

/* null and 0 are the paper's value. */
static moe_status read_rotations(const scaling *s, const char *key, double fallback, double *out, moe_error *err)
{
    moe_status status;

    *out = fallback;
    status = read_real(s, key, 0.0, MAX_FACTOR, out, NULL, err);
    *out = *out > 0.0 ? *out : fallback;
    return status;
}

static moe_status parse_yarn(const scaling *s, const moe_json *json, model_config *c, moe_error *err)
{
    model_rope *r = &c->rope;
    moe_error reason;
    moe_status status = read_original(s, json, c, err);

    r->kind = MODEL_ROPE_YARN;
    r->truncate = true;
    if (status == MOE_OK && r->theta <= 1.0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "rope_theta: %g must be more than 1 with %s of type \"yarn\"",
                        r->theta, s->where);
    }
    if (status == MOE_OK) {
        r->factor = fmax(c->max_positions / r->original_positions, 1.0);
        status = read_real(s, "factor", 1.0, MAX_FACTOR, &r->factor, NULL, err);
    }
    if (status == MOE_OK) {
        status = read_magnitude(s, r, err);
    }
    if (status == MOE_OK) {
        status = read_rotations(s, "beta_fast", 32.0, &r->fast, err);
    }
    if (status == MOE_OK) {
        status = read_rotations(s, "beta_slow", 1.0, &r->slow, err);
    }
    if (status == MOE_OK) {
        status = in_object(s, moe_json_bool(s->keys, "truncate", &r->truncate, NULL, &reason), &reason, err);
    }
    return status == MOE_OK ? extend_positions(s, r->original_positions, r->factor, c, err) : status;
}

/* max_position_embeddings of such a config is the extended length already. */
static moe_status parse_llama3(const scaling *s, const moe_json *json, model_config *c, moe_error *err)
{
    model_rope *r = &c->rope;
    moe_status status = read_original(s, json, c, err);

    r->kind = MODEL_ROPE_LLAMA3;
    if (status == MOE_OK) {
        status = need_real(s, "factor", 1.0, MAX_FACTOR, &r->factor, err);
    }
    if (status == MOE_OK) {
        status = need_real(s, "low_freq_factor", 1e-6, MAX_FACTOR, &r->slow, err);
    }
    if (status == MOE_OK) {
        status = need_real(s, "high_freq_factor", 1e-6, MAX_FACTOR, &r->fast, err);
    }
    if (status == MOE_OK && r->fast <= r->slow) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "%s.high_freq_factor: %g must be more than low_freq_factor %g",
                          s->where, r->fast, r->slow);
    }
    return status;
}

static moe_status parse_default(const scaling *s, const moe_json *json, model_config *c, moe_error *err)
{
    (void)s;
    (void)json;
    (void)c;
    (void)err;
    return MOE_OK;
}

static moe_status parse_type(const scaling *s, const moe_json *json, model_config *c, moe_error *err)
{
    static const struct {
        const char *type;
        moe_status (*parse)(const scaling *s, const moe_json *json, model_config *c, moe_error *err);
    } types[] = {{"default", parse_default},
                 {"linear", parse_linear},
                 {"yarn", parse_yarn},
                 {"llama3", parse_llama3},
                 {"dynamic", parse_dynamic}};
    const char *type = "default";
    moe_error reason;
    moe_status status = moe_json_string(s->keys, "type", &type, NULL, &reason); /* the older name */

    if (status == MOE_OK) {
        status = moe_json_string(s->keys, "rope_type", &type, NULL, &reason);
    }
    for (size_t i = 0; i < MOE_COUNT(types) && status == MOE_OK; i++) {
        if (strcmp(type, types[i].type) == 0) {
            return types[i].parse(s, json, c, err);
        }
    }
    return status != MOE_OK ? in_object(s, status, &reason, err)
                            : moe_fail(err, MOE_ERR_UNSUPPORTED,
                                       "%s.rope_type: \"%.64s\" is not supported, only \"default\", \"linear\", "
                                       "\"yarn\", \"llama3\" and \"dynamic\"",
                                       s->where, type);
}

/* What would be another model in an object of any type. */
static moe_status refuse_others(const scaling *s, moe_error *err)
{
    static const char *const others[] = {"mrope_section", "short_factor", "long_factor"};
    double partial = 1.0;
    const char *key;
    json_t *value;
    moe_status status = read_real(s, "partial_rotary_factor", 0.0, 1.0, &partial, NULL, err);

    if (status == MOE_OK && partial < 1.0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.partial_rotary_factor: %g is not supported, only 1", s->where,
                        partial);
    }
    for (size_t i = 0; i < MOE_COUNT(others) && status == MOE_OK; i++) {
        if (json_object_get(s->keys, others[i]) != NULL && !json_is_null(json_object_get(s->keys, others[i]))) {
            return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.%s: not supported, must be null", s->where, others[i]);
        }
    }
    if (status != MOE_OK) {
        return status;
    }
    json_object_foreach((json_t *)(uintptr_t)s->keys, key, value)
    {
        if (json_is_object(value)) {
            return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.%.64s: positions that differ by layer are not supported",
                            s->where, key);
        }
    }
    return MOE_OK;
}

/* The object under key; NULL when it is absent, null or empty. */
static moe_status find_scaling(const moe_json *json, const char *key, scaling *out, moe_error *err)
{
    const json_t *value = json_object_get(json, key);

    *out = (scaling){.where = key};
    if (value != NULL && !json_is_null(value) && !json_is_object(value)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: must be an object", key);
    }
    out->keys = json_object_size(value) > 0 ? value : NULL;
    return MOE_OK;
}

/* What its type is, if it is a string; the newer key counts. */
static const char *type_of(const json_t *object)
{
    const json_t *type = json_object_get(object, "rope_type");

    return json_string_value(type != NULL ? type : json_object_get(object, "type"));
}

bool model_rope_is_plain(const moe_json *object)
{
    const char *type = type_of(object);

    return object == NULL || json_is_null(object) || (json_is_object(object) && json_object_size(object) == 0) ||
           (type != NULL && strcmp(type, "default") == 0);
}

static bool scales(const scaling *s)
{
    const char *type = type_of(s->keys);

    return type != NULL && strcmp(type, "default") != 0;
}

/* Newer files have the base inside the object. */
static moe_status read_theta(const moe_json *json, const scaling *inside, model_rope *r, moe_error *err)
{
    double theta = r->theta;
    bool given, found = false;
    moe_status status = moe_json_real(json, "rope_theta", 1.0, MAX_THETA, &r->theta, &given, err);

    if (status == MOE_OK && inside->keys != NULL) {
        status = read_real(inside, "rope_theta", 1.0, MAX_THETA, &theta, &found, err);
    }
    if (status == MOE_OK && given && found && theta != r->theta) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "rope_theta: %g contradicts %s.rope_theta %g", r->theta,
                        inside->where, theta);
    }
    r->theta = found ? theta : r->theta;
    return status;
}

moe_status model_config_rope(const moe_json *json, model_config *c, moe_error *err)
{
    scaling older, newer;
    moe_status status = find_scaling(json, "rope_scaling", &older, err);

    if (status == MOE_OK) {
        status = find_scaling(json, "rope_parameters", &newer, err);
    }
    if (status == MOE_OK && scales(&older) && scales(&newer)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "rope_scaling: contradicts rope_parameters, only one may scale");
    }
    if (status == MOE_OK) {
        status = read_theta(json, newer.keys != NULL ? &newer : &older, &c->rope, err);
    }
    for (int i = 0; i < 2 && status == MOE_OK; i++) {
        const scaling *s = i == 0 ? &older : &newer;

        if (s->keys != NULL) {
            status = parse_type(s, json, c, err);
            status = status == MOE_OK ? refuse_others(s, err) : status;
        }
    }
    return status;
}
