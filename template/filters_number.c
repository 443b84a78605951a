/* Filters that give numbers. */
#include "template/template_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static value filter_abs(render *r, value v, const value *s)
{
    int64_t i;

    (void)s;
    if (v.kind == V_FLOAT) {
        return value_float(fabs(v.f));
    }
    if (value_as_int(v, &i)) {
        return i < 0 ? value_negate(r, OP_SUB, value_int(i)) : value_int(i);
    }
    return v.kind == V_UNDEFINED ? value_fail_undefined(r, v)
                                 : render_fail(r, "bad operand type for abs(): '%s'", value_type_name(v));
}

/* ------------------------------------------------------------------------------------------------ from text */
/* The text without white space around it and without underscores between digits; false: no number can be in it. */
static bool number_text(const text *t, char *out, size_t room)
{
    size_t begin = 0, end = t->n, n = 0;
    int32_t c;

    while (begin < end && (text_character(t, begin, &c), char_is_space(c))) {
        begin += text_character(t, begin, &c);
    }
    while (end > begin) {
        const size_t length = text_before(t, end, &c);

        if (!char_is_space(c)) {
            break;
        }
        end -= length;
    }
    for (size_t i = begin; i < end; i++) {
        const bool bar = t->data[i] == '_';

        if (bar && (i == begin || i + 1 == end || !strchr("0123456789abcdefABCDEFxXoObB", t->data[i - 1]) ||
                    t->data[i + 1] == '_' || t->data[i - 1] == '\0')) {
            return false;
        }
        if (!bar) {
            if (n + 1 >= room || t->data[i] == '\0') {
                return false;
            }
            out[n++] = t->data[i];
        }
    }
    out[n] = '\0';
    return n > 0;
}

static bool text_to_float(const text *t, double *out)
{
    char number[400], *end;
    size_t digits = 0;

    if (!number_text(t, number, sizeof number)) {
        return false;
    }
    for (const char *c = number; *c; c++) {
        digits += *c >= '0' && *c <= '9';
        if (strchr("xXpP(", *c)) { /* strtod reads more than Python does */
            return false;
        }
    }
    *out = strtod(number, &end);
    return *end == '\0' && (digits > 0 || isinf(*out) || isnan(*out));
}

/* Python's int(text, base); 1: read, 0: no integer, -1: beyond 64 bits. */
static int text_to_int(const text *t, int base, int64_t *out)
{
    char number[400];
    const char *digits = number;
    bool negative;
    uint64_t magnitude = 0, limit;

    if (!number_text(t, number, sizeof number)) {
        return 0;
    }
    negative = *digits == '-';
    digits += *digits == '-' || *digits == '+';
    if (digits[0] == '0' && digits[1] != '\0') {
        const char mark = (char)(digits[1] | 0x20);
        const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;

        if (marked != 0 && (base == marked || base == 0)) {
            digits += 2;
            base = marked;
        }
    }
    base = base == 0 ? 10 : base;
    limit = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
    if (*digits == '\0') {
        return 0;
    }
    for (; *digits; digits++) {
        const char c = (char)(*digits | 0x20);
        const int digit = *digits >= '0' && *digits <= '9' ? *digits - '0' : c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;

        if (digit >= base) {
            return 0;
        }
        if (magnitude > (limit - (uint64_t)digit) / (uint64_t)base) {
            return -1;
        }
        magnitude = magnitude * (uint64_t)base + (uint64_t)digit;
    }
    *out = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return 1;
}

static value float_to_int(render *r, double f)
{
    if (!(f > -9223372036854775809.0 && f < 9223372036854775808.0)) {
        return render_fail(r, "an integer of %g is beyond 64 bits", f);
    }
    return value_int((int64_t)f);
}

static value filter_int(render *r, value v, const value *s)
{
    const value fallback = s[0].kind == V_ABSENT ? value_int(0) : s[0];
    const int64_t base = slot_int(r, s[1], 10, "base");
    int64_t i = 0;
    double f;

    if (v.kind == V_UNDEFINED) {
        return value_fail_undefined(r, v);
    }
    if (value_as_int(v, &i)) {
        return value_int(i);
    }
    if (v.kind == V_FLOAT) {
        return isnan(v.f) ? fallback : float_to_int(r, v.f);
    }
    if (v.kind != V_TEXT) {
        return fallback;
    }
    if (base == 0 || (base >= 2 && base <= 36)) {
        const int found = text_to_int(v.text, (int)base, &i);

        if (found != 0) {
            return found > 0 ? value_int(i) : render_fail(r, "an integer beyond 64 bits");
        }
    }
    return text_to_float(v.text, &f) && isfinite(f) ? float_to_int(r, f) : fallback;
}

static value filter_float(render *r, value v, const value *s)
{
    const value fallback = s[0].kind == V_ABSENT ? value_float(0) : s[0];
    double f;

    if (v.kind == V_UNDEFINED) {
        return value_fail_undefined(r, v);
    }
    if (value_is_number(v)) {
        return value_float(value_as_float(v));
    }
    return v.kind == V_TEXT && text_to_float(v.text, &f) ? value_float(f) : fallback;
}

/* ------------------------------------------------------------------------------------------------ round */
/* To a multiple of 10^-precision, ties to the even one. */
static value round_int(render *r, int64_t i, int64_t precision)
{
    int64_t unit = 1, rest;

    if (precision >= 0) {
        return value_int(i);
    }
    for (; precision < 0; precision++) {
        if (__builtin_mul_overflow(unit, (int64_t)10, &unit)) {
            return value_int(0);
        }
    }
    rest = i % unit;
    rest += rest < 0 ? unit : 0;
    if (__builtin_sub_overflow(i, rest, &i)) {
        return render_fail(r, "the result of round is beyond 64 bits");
    }
    if (rest > unit - rest || (rest == unit - rest && (i / unit) % 2 != 0)) {
        return value_operate(r, OP_ADD, value_int(i), value_int(unit));
    }
    return value_int(i);
}

static double round_float(double f, int64_t precision)
{
    char digits[800];
    double unit;

    if (!isfinite(f) || precision > 323) {
        return f;
    }
    if (precision >= 0) { /* printf rounds the exact value, as Python does */
        (void)snprintf(digits, sizeof digits, "%.*f", (int)precision, f);
        return strtod(digits, NULL);
    }
    if (precision < -308) {
        return copysign(0.0, f);
    }
    unit = pow(10.0, (double)-precision);
    return nearbyint(f / unit) * unit;
}

static value filter_round(render *r, value v, const value *s)
{
    const int64_t precision = slot_int(r, s[0], 0, "precision");
    const bool common = s[1].kind == V_ABSENT || value_same_text(s[1], "common");
    const bool ceiling = value_same_text(s[1], "ceil");
    double unit;
    int64_t i;

    if (v.kind == V_UNDEFINED) {
        return value_fail_undefined(r, v);
    }
    if (!common && !ceiling && !value_same_text(s[1], "floor")) {
        return render_fail(r, "method must be common, ceil or floor");
    }
    if (!value_is_number(v)) {
        return render_fail(r, "type %s doesn't define __round__ method", value_type_name(v));
    }
    if (common) {
        return value_as_int(v, &i) ? round_int(r, i, precision) : value_float(round_float(v.f, precision));
    }
    unit = pow(10.0, (double)precision);
    return value_float((ceiling ? ceil(value_as_float(v) * unit) : floor(value_as_float(v) * unit)) / unit);
}

const filter number_filters[] = {{"abs", "", filter_abs, NULL},
                                 {"float", "default", filter_float, NULL},
                                 {"int", "default base", filter_int, NULL},
                                 {"round", "precision method", filter_round, NULL}};
const size_t n_number_filters = MOE_COUNT(number_filters);
