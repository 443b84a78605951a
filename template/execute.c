/* Statements. */
#include "template/template_priv.h"

/* ------------------------------------------------------------------------------------------------ scopes */
scope *scope_open(render *r, scope *parent)
{
    scope *s = render_take(r, sizeof *s);

    if (s) {
        s->parent = parent;
    }
    return s;
}

value *scope_find(scope *s, const char *name)
{
    for (; s; s = s->parent) {
        for (size_t i = 0; i < s->n; i++) {
            if (s->bindings[i].name == name) {
                return &s->bindings[i].value;
            }
        }
    }
    return NULL;
}

void scope_set(render *r, scope *s, const char *name, value v)
{
    if (!RENDER_OK(r)) {
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        if (s->bindings[i].name == name) {
            s->bindings[i].value = v;
            return;
        }
    }
    binding *bindings = render_grow(r, s->bindings, s->n, sizeof *bindings, 4, &s->capacity);

    if (!bindings) {
        return;
    }
    s->bindings = bindings;
    s->bindings[s->n++] = (binding){name, v};
}

/* ------------------------------------------------------------------------------------------------ assignment */
static void assign_attribute(render *r, const node *target, value v)
{
    const value *object = scope_find(r->scope, target->name);

    r->line = target->line;
    if (!object || object->kind != V_NAMESPACE) {
        render_fail(r, "cannot assign attribute on non-namespace object '%.60s'", target->name);
    } else {
        dict_put(r, object->dict, target->constant, v);
    }
}

static void assign(render *r, const node *target, value v);

static void assign_parts(render *r, const node *target, value v)
{
    const seq *items = value_items(r, v);

    if (items && items->n != target->list.n) {
        r->line = target->line;
        render_fail(r, "%zu values to unpack, %zu names", items->n, target->list.n);
    }
    for (size_t i = 0; i < target->list.n && RENDER_OK(r); i++) {
        assign(r, target->list.items[i], items->items[i]);
    }
}

static void assign(render *r, const node *target, value v)
{
    if (!RENDER_OK(r)) {
        return;
    }
    if (target->type == N_NAME) {
        scope_set(r, r->scope, target->name, v);
    } else if (target->type == N_ATTRIBUTE_TARGET) {
        assign_attribute(r, target, v);
    } else {
        assign_parts(r, target, v);
    }
}

/* ------------------------------------------------------------------------------------------------ bodies */
flow execute_captured(render *r, scope *inside, const node_list *body, value *out)
{
    builder *const outer = r->out;
    scope *const around = r->scope;
    builder captured = {0};
    flow f = FLOW_NEXT;

    r->out = &captured;
    r->scope = inside;
    if (inside) {
        f = execute(r, body);
    }
    r->scope = around;
    r->out = outer;
    *out = builder_value(r, &captured);
    return f;
}

static flow execute_scope(render *r, const node_list *body)
{
    scope *const around = r->scope;
    flow f = FLOW_NEXT;

    r->scope = scope_open(r, around);
    if (r->scope) {
        f = execute(r, body);
    }
    r->scope = around;
    return f;
}

/* ------------------------------------------------------------------------------------------------ statements */
static flow execute_if(render *r, const node *n)
{
    for (size_t i = 0; i < n->list.n && RENDER_OK(r); i++) {
        const node *branch = n->list.items[i];
        const value condition = evaluate(r, branch->b);

        if (RENDER_OK(r) && value_truth(condition)) {
            return execute(r, &branch->list);
        }
    }
    return RENDER_OK(r) ? execute(r, &n->other) : FLOW_NEXT;
}

/* The items of a loop that its condition lets through. */
static const seq *filtered(render *r, const node *n, const seq *all)
{
    scope *const around = r->scope;
    const value passed = seq_new(r, SEQ_LIST, 0);

    for (size_t i = 0; all && i < all->n && RENDER_OK(r); i++) {
        value condition;

        r->scope = scope_open(r, around);
        if (!r->scope) {
            break;
        }
        assign(r, n->a, all->items[i]);
        condition = RENDER_OK(r) ? evaluate(r, n->c) : value_none();
        if (RENDER_OK(r) && value_truth(condition)) {
            seq_add(r, passed.seq, all->items[i]);
        }
    }
    r->scope = around;
    return RENDER_OK(r) ? passed.seq : NULL;
}

static flow execute_items(render *r, const node *n, const seq *items)
{
    scope *const around = r->scope;
    loop *l = render_take(r, sizeof *l);
    flow f = FLOW_NEXT;

    if (!l) {
        return FLOW_NEXT;
    }
    *l = (loop){.items = items};
    for (; l->at < items->n && f != FLOW_BREAK && RENDER_OK(r); l->at++) {
        r->scope = scope_open(r, around);
        if (!r->scope) {
            break;
        }
        scope_set(r, r->scope, r->t->loop, (value){.kind = V_LOOP, .loop = l});
        assign(r, n->a, items->items[l->at]);
        f = RENDER_OK(r) ? execute(r, &n->list) : FLOW_NEXT;
    }
    r->scope = around;
    return FLOW_NEXT;
}

static flow execute_for(render *r, const node *n)
{
    const value iterable = evaluate(r, n->b);
    const seq *items;

    r->line = n->line;
    items = value_items(r, iterable);
    if (items && n->c) {
        items = filtered(r, n, items);
    }
    if (!items) {
        return FLOW_NEXT;
    }
    return items->n > 0 ? execute_items(r, n, items) : execute_scope(r, &n->other);
}

static flow execute_set(render *r, const node *n)
{
    const value v = evaluate(r, n->b);

    assign(r, n->a, v);
    return FLOW_NEXT;
}

static flow execute_set_block(render *r, const node *n)
{
    value v;
    const flow f = execute_captured(r, scope_open(r, r->scope), &n->list, &v);

    if (f == FLOW_NEXT && RENDER_OK(r)) {
        assign(r, n->a, apply_filters(r, n->b, v));
    }
    return f;
}

static flow execute_filter_block(render *r, const node *n)
{
    value v;
    const flow f = execute_captured(r, scope_open(r, r->scope), &n->list, &v);

    if (f == FLOW_NEXT && RENDER_OK(r)) {
        const value result = apply_filters(r, n->b, v);

        if (RENDER_OK(r)) {
            print_value(r, r->out, result);
        }
    }
    return f;
}

static flow execute_print(render *r, const node *n)
{
    const value v = evaluate(r, n->a);

    r->line = n->line;
    if (RENDER_OK(r)) {
        print_value(r, r->out, v);
    }
    return FLOW_NEXT;
}

static flow execute_text(render *r, const node *n)
{
    builder_add_text(r, r->out, n->constant.text);
    return FLOW_NEXT;
}

static value new_macro(render *r, const macro_def *def)
{
    macro *m = render_take(r, sizeof *m);

    if (!m) {
        return value_none();
    }
    *m = (macro){def, r->scope};
    return (value){.kind = V_MACRO, .macro = m};
}

static flow execute_macro(render *r, const node *n)
{
    scope_set(r, r->scope, n->name, new_macro(r, n->macro));
    return FLOW_NEXT;
}

/* The called macro is given the body as `caller`. */
static flow execute_call_block(render *r, const node *n)
{
    const value callee = evaluate(r, n->a->a);
    value result, *values;
    const char **keywords;
    args a;

    if (!RENDER_OK(r) || !args_evaluate(r, n->a->args, &a)) {
        return FLOW_NEXT;
    }
    values = render_take(r, (a.n_keywords + 1) * sizeof *values);
    keywords = render_take(r, (a.n_keywords + 1) * sizeof *keywords);
    if (!values || !keywords) {
        return FLOW_NEXT;
    }
    for (size_t i = 0; i < a.n_keywords; i++) {
        values[i] = a.values[i];
        keywords[i] = a.keywords[i];
    }
    values[a.n_keywords] = new_macro(r, n->macro);
    keywords[a.n_keywords] = n->macro->name;
    a.values = values;
    a.keywords = keywords;
    a.n_keywords++;
    r->line = n->line;
    result = call_value(r, callee, &a);
    if (RENDER_OK(r)) {
        print_value(r, r->out, result);
    }
    return FLOW_NEXT;
}

static flow execute_with(render *r, const node *n)
{
    scope *const around = r->scope, *inside = scope_open(r, around);
    flow f = FLOW_NEXT;

    for (size_t i = 0; inside && i < n->args->n_keywords && RENDER_OK(r); i++) {
        const value v = evaluate(r, n->args->values.items[i]);

        scope_set(r, inside, n->args->keywords[i], v);
    }
    if (inside && RENDER_OK(r)) {
        r->scope = inside;
        f = execute(r, &n->list);
    }
    r->scope = around;
    return f;
}

static flow execute_block(render *r, const node *n)
{
    return execute_scope(r, &n->list);
}

static flow execute_break(render *r, const node *n)
{
    (void)r;
    return n->type == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
}

flow execute(render *r, const node_list *body)
{
    static flow (*const kinds[])(render *, const node *) = {[N_TEXT] = execute_text,
                                                            [N_PRINT] = execute_print,
                                                            [N_IF] = execute_if,
                                                            [N_FOR] = execute_for,
                                                            [N_SET] = execute_set,
                                                            [N_SET_BLOCK] = execute_set_block,
                                                            [N_MACRO] = execute_macro,
                                                            [N_CALL_BLOCK] = execute_call_block,
                                                            [N_FILTER_BLOCK] = execute_filter_block,
                                                            [N_WITH] = execute_with,
                                                            [N_SCOPE] = execute_block,
                                                            [N_BREAK] = execute_break,
                                                            [N_CONTINUE] = execute_break};
    flow f = FLOW_NEXT;

    if (++r->depth > MAX_RENDER_DEPTH) {
        render_fail(r, "nested too deep; the limit is %d", MAX_RENDER_DEPTH);
    }
    for (size_t i = 0; i < body->n && f == FLOW_NEXT && render_step(r, 0); i++) {
        f = kinds[body->items[i]->type](r, body->items[i]);
    }
    r->depth--;
    return f;
}
