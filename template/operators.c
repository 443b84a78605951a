/* Arithmetic and comparison as Python does it, with integers of 64 bits. */
#include "template/template_priv.h"

#include <math.h>

static const char *op_name(operation op)
{
    static const char *const names[] = {"",   "+",  "-", "*",  "/", "//", "%",  "**",
                                        "==", "!=", "<", "<=", ">", ">=", "in", "not in"};

    return names[op];
}

static value overflow(render *r, operation op)
{
    return render_fail(r, "the result of %s is beyond 64 bits", op_name(op));
}

static value bad_operands(render *r, operation op, value a, value b)
{
    if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED) {
        return value_fail_undefined(r, a.kind == V_UNDEFINED ? a : b);
    }
    return render_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", op_name(op), value_type_name(a),
                       value_type_name(b));
}

/* ------------------------------------------------------------------------------------------------ numbers */
static value int_power(render *r, int64_t a, int64_t b)
{
    int64_t result = 1;

    if (b < 0) {
        return a == 0 ? render_fail(r, "0 to a negative power") : value_float(pow((double)a, (double)b));
    }
    while (b > 0) {
        if ((b & 1) && __builtin_mul_overflow(result, a, &result)) {
            return overflow(r, OP_POW);
        }
        b >>= 1;
        if (b > 0 && __builtin_mul_overflow(a, a, &a)) {
            return overflow(r, OP_POW);
        }
    }
    return value_int(result);
}

/* Division towards minus infinity; a remainder has the sign of the divisor. */
static value int_divide(render *r, operation op, int64_t a, int64_t b)
{
    int64_t quotient, rest;

    if (b == -1) { /* the one case that can overflow */
        return op == OP_MOD ? value_int(0) : a == INT64_MIN ? overflow(r, op) : value_int(-a);
    }
    quotient = a / b;
    rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
        quotient--;
        rest += b;
    }
    return value_int(op == OP_MOD ? rest : quotient);
}

static value int_operate(render *r, operation op, int64_t a, int64_t b)
{
    int64_t result = 0;
    bool over = false;

    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, &result);
        break;
    case OP_SUB:
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case OP_MUL:
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case OP_DIV:
        return value_float((double)a / (double)b);
    case OP_POW:
        return int_power(r, a, b);
    default:
        return int_divide(r, op, a, b);
    }
    return over ? overflow(r, op) : value_int(result);
}

static value float_operate(render *r, operation op, double a, double b)
{
    double rest;

    switch (op) {
    case OP_ADD:
        return value_float(a + b);
    case OP_SUB:
        return value_float(a - b);
    case OP_MUL:
        return value_float(a * b);
    case OP_DIV:
        return value_float(a / b);
    case OP_POW:
        rest = pow(a, b);
        if ((a == 0 && b < 0) || (isinf(rest) && !isinf(a) && !isinf(b)) || (isnan(rest) && !isnan(a) && !isnan(b))) {
            return render_fail(r, "%g to the power %g has no float", a, b);
        }
        return value_float(rest);
    default:
        break;
    }
    rest = fmod(a, b);
    if (rest != 0 && (rest < 0) != (b < 0)) {
        rest += b;
    }
    if (op == OP_MOD) {
        return value_float(rest == 0 ? copysign(0.0, b) : rest);
    }
    const double quotient = (a - rest) / b, whole = floor(quotient);

    return value_float(quotient == 0 ? copysign(0.0, a / b) : quotient - whole > 0.5 ? whole + 1 : whole);
}

static value number_operate(render *r, operation op, value a, value b)
{
    int64_t ia = 0, ib = 0;
    const bool ints = value_as_int(a, &ia) && value_as_int(b, &ib);

    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && value_as_float(b) == 0) {
        return render_fail(r, "division by zero");
    }
    return ints ? int_operate(r, op, ia, ib) : float_operate(r, op, value_as_float(a), value_as_float(b));
}

/* ------------------------------------------------------------------------------------------------ texts, sequences */
static value add_texts(render *r, const text *a, const text *b)
{
    if (a->markup != b->markup) {
        const text *escaped = text_escape(r, a->markup ? b : a).text;

        return text_add(r, a->markup ? a : escaped, a->markup ? escaped : b);
    }
    return text_add(r, a, b);
}

static value add_seqs(render *r, const seq *a, const seq *b)
{
    const value sum = seq_new(r, a->kind, a->n + b->n);

    for (size_t i = 0; RENDER_OK(r) && i < a->n + b->n; i++) {
        seq_add(r, sum.seq, i < a->n ? a->items[i] : b->items[i - a->n]);
    }
    return RENDER_OK(r) ? sum : value_none();
}

static value repeat_text(render *r, const text *t, int64_t times)
{
    builder b = {0};

    for (int64_t i = 0; t->n > 0 && i < times && RENDER_OK(r); i++) {
        builder_add_text(r, &b, t);
    }
    return builder_value(r, &b);
}

static value repeat_seq(render *r, const seq *s, int64_t times)
{
    const value all = seq_new(r, s->kind, 0);

    for (int64_t i = 0; s->n > 0 && i < times && RENDER_OK(r); i++) {
        for (size_t j = 0; j < s->n && RENDER_OK(r); j++) {
            seq_add(r, all.seq, s->items[j]);
        }
    }
    return RENDER_OK(r) ? all : value_none();
}

static bool is_plain_seq(value v)
{
    return v.kind == V_SEQ && v.seq->kind <= SEQ_TUPLE;
}

static value repeat(render *r, value a, value b)
{
    int64_t times = 0;

    if (value_as_int(a, &times)) {
        const value other = a;

        a = b;
        b = other;
    }
    if (value_as_int(b, &times) && a.kind == V_TEXT) {
        return repeat_text(r, a.text, times);
    }
    return value_as_int(b, &times) && is_plain_seq(a) ? repeat_seq(r, a.seq, times) : bad_operands(r, OP_MUL, a, b);
}

value value_operate(render *r, operation op, value a, value b)
{
    if (!RENDER_OK(r)) {
        return value_none();
    }
    if (value_is_number(a) && value_is_number(b)) {
        return number_operate(r, op, a, b);
    }
    if (op == OP_ADD && a.kind == V_TEXT && b.kind == V_TEXT) {
        return add_texts(r, a.text, b.text);
    }
    if (op == OP_ADD && is_plain_seq(a) && is_plain_seq(b) && a.seq->kind == b.seq->kind) {
        return add_seqs(r, a.seq, b.seq);
    }
    if (op == OP_MUL) {
        return repeat(r, a, b);
    }
    return op == OP_MOD && a.kind == V_TEXT ? text_format(r, a.text, b) : bad_operands(r, op, a, b);
}

value value_negate(render *r, operation op, value a)
{
    int64_t i = 0;

    if (value_as_int(a, &i)) {
        return op == OP_SUB && i == INT64_MIN ? overflow(r, op) : value_int(op == OP_SUB ? -i : i);
    }
    if (a.kind == V_FLOAT) {
        return value_float(op == OP_SUB ? -a.f : a.f);
    }
    return a.kind == V_UNDEFINED
               ? value_fail_undefined(r, a)
               : render_fail(r, "bad operand type for unary %s: '%s'", op_name(op), value_type_name(a));
}

bool value_compare(render *r, operation op, value a, value b)
{
    int order;

    switch (op) {
    case OP_EQ:
        return value_equal(r, a, b);
    case OP_NE:
        return !value_equal(r, a, b);
    case OP_IN:
        return value_in(r, a, b);
    case OP_NOT_IN:
        return !value_in(r, a, b);
    default:
        break;
    }
    order = value_order(r, a, b, op_name(op));
    if (order == 2) {
        return false;
    }
    return op == OP_LT ? order < 0 : op == OP_LE ? order <= 0 : op == OP_GT ? order > 0 : order >= 0;
}
