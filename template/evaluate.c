/* Expressions. */
#include "template/template_priv.h"

static value evaluate_list(render *r, const node *n)
{
    const value all = seq_new(r, n->type == N_TUPLE ? SEQ_TUPLE : SEQ_LIST, n->list.n);

    for (size_t i = 0; i < n->list.n && RENDER_OK(r); i++) {
        const value item = evaluate(r, n->list.items[i]);

        if (RENDER_OK(r)) {
            seq_add(r, all.seq, item);
        }
    }
    return all;
}

static value evaluate_dict(render *r, const node *n)
{
    const value d = dict_new(r);

    for (size_t i = 0; i < n->list.n && RENDER_OK(r); i += 2) {
        const value key = evaluate(r, n->list.items[i]);
        const value item = RENDER_OK(r) ? evaluate(r, n->list.items[i + 1]) : key;

        if (RENDER_OK(r)) {
            dict_put(r, d.dict, key, item);
        }
    }
    return d;
}

static value evaluate_name(render *r, const node *n)
{
    const value *v = scope_find(r->scope, n->name);
    const global *g;

    if (v) {
        return *v;
    }
    g = global_find(n->name);
    return g ? (value){.kind = V_GLOBAL, .global = g} : value_undefined(r, n->name, NULL);
}

static value evaluate_binary(render *r, const node *n)
{
    const value a = evaluate(r, n->a);
    const value b = RENDER_OK(r) ? evaluate(r, n->b) : a;

    r->line = n->line;
    return RENDER_OK(r) ? value_operate(r, n->op, a, b) : value_none();
}

static value evaluate_concat(render *r, const node *n)
{
    value *parts = render_take(r, n->list.n * sizeof *parts);
    builder b = {0};

    for (size_t i = 0; i < n->list.n && RENDER_OK(r); i++) {
        parts[i] = evaluate(r, n->list.items[i]);
    }
    for (size_t i = 0; i < n->list.n && RENDER_OK(r); i++) {
        print_value(r, &b, parts[i]);
    }
    return builder_value(r, &b);
}

static value evaluate_compare(render *r, const node *n)
{
    value left = evaluate(r, n->a);

    for (size_t i = 0; i < n->list.n && RENDER_OK(r); i++) {
        const node *operand = n->list.items[i];
        const value right = evaluate(r, operand->b);

        r->line = operand->line;
        if (!RENDER_OK(r) || !value_compare(r, operand->op, left, right)) {
            return value_bool(false);
        }
        left = right;
    }
    return value_bool(true);
}

static value evaluate_logic(render *r, const node *n)
{
    const value a = evaluate(r, n->a);

    if (!RENDER_OK(r)) {
        return a;
    }
    return value_truth(a) == (n->type == N_AND) && RENDER_OK(r) ? evaluate(r, n->b) : a;
}

static value evaluate_condition(render *r, const node *n)
{
    const value condition = evaluate(r, n->b);
    const bool truth = RENDER_OK(r) && value_truth(condition);

    if (!RENDER_OK(r)) {
        return condition;
    }
    if (!truth && !n->c) {
        return value_undefined(r, "the inline if-expression is false and has no else", NULL);
    }
    return evaluate(r, truth ? n->a : n->c);
}

static value evaluate_slice(render *r, const node *n)
{
    const value object = evaluate(r, n->a);
    value parts[3] = {{.kind = V_NONE}, {.kind = V_NONE}, {.kind = V_NONE}};

    for (size_t i = 0; i < 3 && RENDER_OK(r); i++) {
        parts[i] = n->list.items[i] ? evaluate(r, n->list.items[i]) : parts[i];
    }
    r->line = n->line;
    return slice_of(r, object, parts[0], parts[1], parts[2]);
}

static value evaluate_item(render *r, const node *n)
{
    const value object = evaluate(r, n->a);
    const value key = RENDER_OK(r) ? evaluate(r, n->b) : object;

    r->line = n->line;
    return item_of(r, object, key);
}

static value evaluate_call(render *r, const node *n)
{
    const value callee = evaluate(r, n->a);
    args a;

    if (!RENDER_OK(r) || !args_evaluate(r, n->args, &a)) {
        return value_none();
    }
    r->line = n->line;
    return call_value(r, callee, &a);
}

static value apply_filter(render *r, const node *n, value subject)
{
    args a;

    if (!RENDER_OK(r) || !args_evaluate(r, n->args, &a)) {
        return value_none();
    }
    r->line = n->line;
    return n->callee ? filter_run(r, n->callee, subject, &a) : render_fail(r, "no filter named '%.60s'", n->name);
}

value apply_filters(render *r, const node *filters, value subject)
{
    return filters ? apply_filter(r, filters, apply_filters(r, filters->a, subject)) : subject;
}

static value evaluate_test(render *r, const node *n)
{
    const value subject = evaluate(r, n->a);
    args a;

    if (!RENDER_OK(r) || !args_evaluate(r, n->args, &a)) {
        return value_none();
    }
    r->line = n->line;
    return n->callee ? value_bool(test_run(r, n->callee, subject, &a))
                     : render_fail(r, "no test named '%.60s'", n->name);
}

static value evaluate_not(render *r, const node *n)
{
    const value a = evaluate(r, n->a);

    return RENDER_OK(r) ? value_bool(!value_truth(a)) : a;
}

static value evaluate_unary(render *r, const node *n)
{
    const value a = evaluate(r, n->a);

    r->line = n->line;
    return RENDER_OK(r) ? value_negate(r, n->op, a) : a;
}

static value evaluate_attribute(render *r, const node *n)
{
    const value object = evaluate(r, n->a);

    r->line = n->line;
    return attribute_of(r, object, n->name);
}

static value evaluate_filter(render *r, const node *n)
{
    return apply_filter(r, n, evaluate(r, n->a));
}

value evaluate(render *r, const node *n)
{
    static value (*const kinds[])(render *, const node *) = {[N_NAME] = evaluate_name,
                                                             [N_LIST] = evaluate_list,
                                                             [N_TUPLE] = evaluate_list,
                                                             [N_DICT] = evaluate_dict,
                                                             [N_UNARY] = evaluate_unary,
                                                             [N_BINARY] = evaluate_binary,
                                                             [N_CONCAT] = evaluate_concat,
                                                             [N_COMPARE] = evaluate_compare,
                                                             [N_AND] = evaluate_logic,
                                                             [N_OR] = evaluate_logic,
                                                             [N_NOT] = evaluate_not,
                                                             [N_COND] = evaluate_condition,
                                                             [N_ATTRIBUTE] = evaluate_attribute,
                                                             [N_ITEM] = evaluate_item,
                                                             [N_SLICE] = evaluate_slice,
                                                             [N_CALL] = evaluate_call,
                                                             [N_FILTER] = evaluate_filter,
                                                             [N_TEST] = evaluate_test};
    value v = {.kind = V_NONE};

    if (n->type == N_CONST) {
        return n->constant;
    }
    if (++r->depth > MAX_RENDER_DEPTH) {
        r->line = n->line;
        render_fail(r, "nested too deep; the limit is %d", MAX_RENDER_DEPTH);
    }
    if (render_step(r, 0)) {
        v = kinds[n->type](r, n);
    }
    r->depth--;
    return v;
}
