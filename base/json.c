#include "base/base.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

/* Nesting outside strings, before the parser recurses on it. */
static bool is_too_deep(const char *text, size_t bytes, size_t max_depth)
{
    size_t depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];

        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > max_depth) {
                return true;
            }
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return false;
}

moe_status moe_json_parse(const char *text, size_t bytes, size_t max_depth, moe_json **out, moe_error *err)
{
    json_error_t error;
    json_t *json;

    if (is_too_deep(text, bytes, max_depth)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "nested deeper than %zu levels", max_depth);
    }
    json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL) {
        return moe_fail(err, MOE_ERR_CORRUPT, "line %d: %s", error.line, error.text);
    }
    *out = json;
    return MOE_OK;
}

moe_status moe_json_load(const char *path, size_t max_bytes, size_t max_depth, moe_json **out, moe_error *err)
{
    moe_error reason;
    char *text;
    size_t bytes;
    moe_status status = moe_file_read(path, max_bytes, &text, &bytes, err);

    if (status != MOE_OK) {
        return status;
    }
    status = moe_json_parse(text, bytes, max_depth, out, &reason);
    free(text);
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%s: %s", path, reason.text);
}

void moe_json_free(moe_json *json)
{
    json_decref(json);
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

static moe_status fail_type(moe_error *err, const char *key, const char *wanted, const json_t *value)
{
    if (json_is_string(value)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: must be %s, is \"%.32s\"", key, wanted,
                        json_string_value(value));
    }
    return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: must be %s, is %s", key, wanted, type_name(value));
}

/* NULL when absent or null. */
static const json_t *field(const moe_json *object, const char *key, bool *found)
{
    const json_t *value = json_object_get(object, key);
    bool there = value != NULL && !json_is_null(value);

    if (found != NULL) {
        *found = there;
    }
    return there ? value : NULL;
}

moe_status moe_json_int(const moe_json *object, const char *key, int64_t min, int64_t max, int64_t *out, bool *found,
                        moe_error *err)
{
    const json_t *value = field(object, key, found);
    int64_t v;

    if (value == NULL) {
        return MOE_OK;
    }
    if (json_is_integer(value)) {
        v = json_integer_value(value);
    } else if (json_is_real(value)) {
        double real = json_real_value(value);

        if (!(real >= -0x1p63 && real < 0x1p63) || trunc(real) != real) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: must be an integer, is %.17g", key, real);
        }
        v = (int64_t)real;
    } else {
        return fail_type(err, key, "an integer", value);
    }
    if (v < min || v > max) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %" PRId64 " must be within [%" PRId64 ", %" PRId64 "]", key, v,
                        min, max);
    }
    *out = v;
    return MOE_OK;
}

moe_status moe_json_real(const moe_json *object, const char *key, double min, double max, double *out, bool *found,
                         moe_error *err)
{
    const json_t *value = field(object, key, found);
    double v;

    if (value == NULL) {
        return MOE_OK;
    }
    if (!json_is_number(value)) {
        return fail_type(err, key, "a number", value);
    }
    v = json_number_value(value);
    if (!(v >= min && v <= max)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %.9g must be within [%.9g, %.9g]", key, v, min, max);
    }
    *out = v;
    return MOE_OK;
}

moe_status moe_json_bool(const moe_json *object, const char *key, bool *out, bool *found, moe_error *err)
{
    const json_t *value = field(object, key, found);

    if (value == NULL) {
        return MOE_OK;
    }
    if (!json_is_boolean(value)) {
        return fail_type(err, key, "true or false", value);
    }
    *out = json_is_true(value);
    return MOE_OK;
}

moe_status moe_json_string(const moe_json *object, const char *key, const char **out, bool *found, moe_error *err)
{
    const json_t *value = field(object, key, found);

    if (value == NULL) {
        return MOE_OK;
    }
    if (!json_is_string(value)) {
        return fail_type(err, key, "a string", value);
    }
    *out = json_string_value(value);
    return MOE_OK;
}
