#include "base/options_priv.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *field_of(const moe_option *option, void *config)
{
    return (unsigned char *)config + option->offset;
}

static const void *field_of_const(const moe_option *option, const void *config)
{
    return (const unsigned char *)config + option->offset;
}

bool option_is_text(const moe_option *option)
{
    return option->kind == MOE_OPT_STRING || option->kind == MOE_OPT_CHOICE;
}

/* Decimal digits up to the first other character, which *end points to. */
static bool parse_digits(const char *text, uint64_t *out, const char **end)
{
    uint64_t v = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v)) {
            return false;
        }
    }
    *out = v;
    *end = p;
    return p != text;
}

/* G, Gi as Kubernetes writes it, GiB as our logs do; not GB, which may be another number. */
static bool ends_size(const char *rest)
{
    return strcmp(rest, "") == 0 || strcmp(rest, "i") == 0 || strcmp(rest, "iB") == 0;
}

moe_status moe_parse_size(const char *text, size_t *bytes_out)
{
    static const char units[] = "KMGT";
    const char *end;
    uint64_t v;

    if (!parse_digits(text, &v, &end)) {
        return MOE_ERR_INVALID_ARG;
    }
    if (*end != '\0') {
        const char *unit = strchr(units, *end);
        unsigned shift = unit != NULL ? 10 * (unsigned)(unit - units + 1) : 0;

        if (unit == NULL || !ends_size(end + 1) || v > UINT64_MAX >> shift) {
            return MOE_ERR_INVALID_ARG;
        }
        v <<= shift;
    }
    if (v > SIZE_MAX) {
        return MOE_ERR_INVALID_ARG;
    }
    *bytes_out = (size_t)v;
    return MOE_OK;
}

static moe_status check_range(const moe_option *option, double v, moe_error *err)
{
    if (option->min < option->max && !(v >= option->min && v <= option->max)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "must be within [%.15g, %.15g]", option->min, option->max);
    }
    return MOE_OK;
}

static moe_status set_integer(const moe_option *option, void *field, const char *text, moe_error *err)
{
    const char *end;
    uint64_t v;
    moe_status status;

    if (!parse_digits(text, &v, &end) || *end != '\0') {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "must be a whole number of at most 64 bits");
    }
    status = check_range(option, (double)v, err);
    if (status != MOE_OK) {
        return status;
    }
    if (option->kind == MOE_OPT_U64) {
        *(uint64_t *)field = v;
    } else if (v > UINT32_MAX) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "must be within [0, %" PRIu32 "]", UINT32_MAX);
    } else {
        *(uint32_t *)field = (uint32_t)v;
    }
    return MOE_OK;
}

static moe_status set_size(const moe_option *option, size_t *field, const char *text, moe_error *err)
{
    size_t v;
    moe_status status;

    if (moe_parse_size(text, &v) != MOE_OK) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "must be a number of bytes, with K, M, G or T (Ki, KiB, ...) for binary multiples");
    }
    status = check_range(option, (double)v, err);
    if (status == MOE_OK) {
        *field = v;
    }
    return status;
}

static moe_status set_real(const moe_option *option, double *field, const char *text, moe_error *err)
{
    char *end;
    double v;
    moe_status status;

    /* strtod takes blanks, hexadecimal, inf and nan as well */
    if (text[0] == '\0' || text[strspn(text, "+-.0123456789eE")] != '\0') {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "must be a number");
    }
    v = strtod(text, &end);
    if (*end != '\0' || !isfinite(v)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "must be a finite number");
    }
    status = check_range(option, v, err);
    if (status == MOE_OK) {
        *field = v;
    }
    return status;
}

static moe_status set_bool(bool *field, const char *text, moe_error *err)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "must be true or false");
    }
    *field = text[0] == 't';
    return MOE_OK;
}

static moe_status check_choice(const moe_option *option, const char *text, moe_error *err)
{
    char list[256] = "";
    size_t used = 0;

    for (size_t i = 0; option->choices[i] != NULL; i++) {
        if (strcmp(text, option->choices[i]) == 0) {
            return MOE_OK;
        }
        if (used < sizeof list) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", option->choices[i]);
        }
    }
    return moe_fail(err, MOE_ERR_INVALID_ARG, "must be one of %s", list);
}

static moe_status set_string(char **field, const char *text, moe_error *err)
{
    char *copy = strdup(text);

    if (copy == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    free(*field);
    *field = copy;
    return MOE_OK;
}

moe_status option_value_add(const moe_option *option, void *config, const char *text, moe_error *err)
{
    char **field = field_of(option, config), *joined = NULL;

    if (asprintf(&joined, "%s,%s", *field, text) < 0) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    free(*field);
    *field = joined;
    return MOE_OK;
}

bool moe_list_next(const char **at, const char **item_out, size_t *n_out)
{
    if (*at == NULL) {
        return false;
    }
    *item_out = *at;
    *n_out = strcspn(*at, ",");
    *at = (*at)[*n_out] == ',' ? *at + *n_out + 1 : NULL;
    return true;
}

moe_status option_value_set(const moe_option *option, void *config, const char *text, moe_error *err)
{
    void *field = field_of(option, config);
    moe_status status;

    switch (option->kind) {
    case MOE_OPT_BOOL:
        return set_bool(field, text, err);
    case MOE_OPT_U32:
    case MOE_OPT_U64:
        return set_integer(option, field, text, err);
    case MOE_OPT_SIZE:
        return set_size(option, field, text, err);
    case MOE_OPT_F64:
        return set_real(option, field, text, err);
    case MOE_OPT_CHOICE:
        status = check_choice(option, text, err);
        return status == MOE_OK ? set_string(field, text, err) : status;
    case MOE_OPT_STRING:
        return set_string(field, text, err);
    }
    moe_assert_failed("a known kind of option", __FILE__, __LINE__);
}

static void print_real(double v, moe_text *out)
{
    char text[32];

    (void)snprintf(text, sizeof text, "%.15g", v);
    if (strtod(text, NULL) != v) {
        (void)snprintf(text, sizeof text, "%.17g", v);
    }
    moe_text_printf(out, "%s", text);
}

/* JSON readers refuse integers beyond int64; as text they are taken. */
static void print_integer(uint64_t v, moe_text *out)
{
    moe_text_printf(out, v <= INT64_MAX ? "%" PRIu64 : "\"%" PRIu64 "\"", v);
}

void option_value_print(const moe_option *option, const void *config, moe_text *out)
{
    const void *field = field_of_const(option, config);
    const char *string;

    switch (option->kind) {
    case MOE_OPT_BOOL:
        moe_text_printf(out, "%s", *(const bool *)field ? "true" : "false");
        return;
    case MOE_OPT_U32:
        moe_text_printf(out, "%" PRIu32, *(const uint32_t *)field);
        return;
    case MOE_OPT_U64:
        print_integer(*(const uint64_t *)field, out);
        return;
    case MOE_OPT_SIZE:
        print_integer(*(const size_t *)field, out);
        return;
    case MOE_OPT_F64:
        print_real(*(const double *)field, out);
        return;
    case MOE_OPT_STRING:
    case MOE_OPT_CHOICE:
        string = *(char *const *)field;
        if (string == NULL) {
            moe_text_printf(out, "null");
        } else {
            moe_text_json_string(out, string, strlen(string));
        }
        return;
    }
}

void option_value_clear(const moe_option *option, void *config)
{
    void *field = field_of(option, config);

    switch (option->kind) {
    case MOE_OPT_BOOL:
        *(bool *)field = false;
        return;
    case MOE_OPT_U32:
        *(uint32_t *)field = 0;
        return;
    case MOE_OPT_U64:
        *(uint64_t *)field = 0;
        return;
    case MOE_OPT_SIZE:
        *(size_t *)field = 0;
        return;
    case MOE_OPT_F64:
        *(double *)field = 0;
        return;
    case MOE_OPT_STRING:
    case MOE_OPT_CHOICE:
        *(char **)field = NULL;
        return;
    }
}

const char *moe_size_text(size_t bytes, char out[MOE_SIZE_TEXT])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes / 1024.0;
    size_t unit = 0;

    if (bytes < 1024) {
        (void)snprintf(out, MOE_SIZE_TEXT, "%zu bytes", bytes);
        return out;
    }
    while (value >= 1023.95 && unit + 1 < MOE_COUNT(units)) {
        value /= 1024.0;
        unit++;
    }
    (void)snprintf(out, MOE_SIZE_TEXT, "%.1f %s", value, units[unit]);
    return out;
}
