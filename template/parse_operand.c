/* What operators stand between: names, literals, subscripts, calls, filters, tests. */
#include "template/template_priv.h"

/* ------------------------------------------------------------------------------------------------ arguments */
static bool parse_spread(parser *p, node_args *a)
{
    if (parser_skip(p, T_OPERATOR, "**")) {
        a->more_keywords = parse_expression(p);
        return true;
    }
    if (parser_skip(p, T_OPERATOR, "*")) {
        a->more_positional = parse_expression(p);
        return true;
    }
    return false;
}

static void parse_argument(parser *p, node_args *a)
{
    const uint32_t line = parser_line(p);
    const bool late = a->more_keywords || (a->more_positional && parser_at(p, T_OPERATOR, "*"));

    if (!late && parse_spread(p, a)) {
        return;
    }
    if (!late && parser_at(p, T_NAME, NULL) && token_is(parser_look(p, 1), T_OPERATOR, "=")) {
        name_list_add(p, &a->keywords, &a->n_keywords, &a->capacity, parser_look(p, 0)->data);
        p->at += 2;
        node_list_add(p, &a->values, parse_expression(p));
        return;
    }
    if (late || a->more_positional || a->n_keywords > 0) {
        parser_fail(p, MOE_ERR_CORRUPT, line, "arguments of a call in the wrong order");
        return;
    }
    node_list_add(p, &a->positional, parse_expression(p));
}

static void parse_args(parser *p, node *owner)
{
    node_args *a = parser_take(p, sizeof *a);

    parser_expect(p, T_OPERATOR, "(");
    for (bool first = true; a && p->status == MOE_OK && !parser_at(p, T_OPERATOR, ")"); first = false) {
        if (!first) {
            parser_expect(p, T_OPERATOR, ",");
            if (parser_at(p, T_OPERATOR, ")")) {
                break;
            }
        }
        parse_argument(p, a);
    }
    parser_expect(p, T_OPERATOR, ")");
    if (p->status == MOE_OK && owner) {
        owner->args = a;
        parser_adopt_list(p, owner, &a->positional);
        parser_adopt_list(p, owner, &a->values);
        parser_adopt(p, owner, a->more_positional);
        parser_adopt(p, owner, a->more_keywords);
    }
}

static node *parse_call(parser *p, node *callee)
{
    node *n = parser_two(p, N_CALL, OP_NONE, parser_line(p), callee, NULL);

    parse_args(p, n);
    return n;
}

/* ------------------------------------------------------------------------------------------------ subscripts */
static node *slice_part(parser *p)
{
    return parser_at(p, T_OPERATOR, ":") || parser_at(p, T_OPERATOR, "]") || parser_at(p, T_OPERATOR, ",")
               ? NULL
               : parse_expression(p);
}

static node *parse_slice(parser *p, node *object, node *start, uint32_t line)
{
    node *n = parser_two(p, N_SLICE, OP_NONE, line, object, NULL);
    node *stop = slice_part(p), *step = parser_skip(p, T_OPERATOR, ":") ? slice_part(p) : NULL;

    if (n) {
        node_list_add(p, &n->list, start);
        node_list_add(p, &n->list, stop);
        node_list_add(p, &n->list, step);
        parser_adopt_list(p, n, &n->list);
    }
    return n;
}

static node *parse_item(parser *p, node *object)
{
    const uint32_t line = parser_line(p);
    node *key, *n;

    p->at++;
    if (parser_at(p, T_OPERATOR, "]")) {
        return parser_unexpected(p);
    }
    key = slice_part(p);
    if (parser_skip(p, T_OPERATOR, ":")) {
        n = parse_slice(p, object, key, line);
    } else if (parser_at(p, T_OPERATOR, ",")) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, line, "a subscript of several parts");
        return NULL;
    } else {
        n = parser_two(p, N_ITEM, OP_NONE, line, object, key);
    }
    parser_expect(p, T_OPERATOR, "]");
    return n;
}

static node *constant(parser *p, uint32_t line, value v)
{
    node *n = parser_node(p, N_CONST, line);

    if (n) {
        n->constant = v;
    }
    return n;
}

static node *parse_attribute(parser *p, node *object)
{
    const token *t = parser_look(p, 1);
    node *n;

    p->at += 1;
    if (t->type == T_INT) {
        p->at += 1;
        return parser_two(p, N_ITEM, OP_NONE, t->line, object, constant(p, t->line, value_int(t->i)));
    }
    parser_expect(p, T_NAME, NULL);
    n = parser_two(p, N_ATTRIBUTE, OP_NONE, t->line, object, NULL);
    if (n) {
        n->name = t->data;
    }
    return n;
}

static node *parse_postfix(parser *p, node *n)
{
    while (p->status == MOE_OK) {
        if (parser_at(p, T_OPERATOR, ".")) {
            n = parse_attribute(p, n);
        } else if (parser_at(p, T_OPERATOR, "[")) {
            n = parse_item(p, n);
        } else if (parser_at(p, T_OPERATOR, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return n;
}

/* ------------------------------------------------------------------------------------------------ literals, names */
static node *parse_string(parser *p)
{
    const token *first = parser_look(p, 0);
    text *t = parser_take(p, sizeof *t);
    size_t n = 0;
    char *data;

    for (size_t i = 0; token_is(parser_look(p, i), T_STRING, NULL); i++) {
        n += parser_look(p, i)->n;
    }
    data = parser_take(p, n + 1);
    if (!t || !data) {
        return NULL;
    }
    t->data = data;
    for (; parser_at(p, T_STRING, NULL); p->at++) {
        const token *part = parser_look(p, 0);

        if (part->n > 0) {
            memcpy(data + t->n, part->data, part->n);
            t->n += part->n;
        }
    }
    t->ascii = text_is_ascii(t->data, t->n);
    return constant(p, first->line, value_text(t));
}

static bool constant_name(const char *name, value *out)
{
    static const struct {
        const char *name;
        value v;
    } names[] = {{"true", {V_BOOL, {true}}},   {"True", {V_BOOL, {true}}},  {"false", {V_BOOL, {false}}},
                 {"False", {V_BOOL, {false}}}, {"none", {V_NONE, {false}}}, {"None", {V_NONE, {false}}}};

    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        if (strcmp(name, names[i].name) == 0) {
            *out = names[i].v;
            return true;
        }
    }
    return false;
}

static void note_use(macro_def *m, const char *name)
{
    if (m) {
        m->uses_caller |= strcmp(name, "caller") == 0;
        m->uses_kwargs |= strcmp(name, "kwargs") == 0;
        m->uses_varargs |= strcmp(name, "varargs") == 0;
    }
}

static node *parse_name(parser *p)
{
    const token *t = parser_look(p, 0);
    value v;
    node *n;

    p->at++;
    if (constant_name(t->data, &v)) {
        return constant(p, t->line, v);
    }
    n = parser_node(p, N_NAME, t->line);
    if (n) {
        n->name = t->data;
        note_use(p->macro, t->data);
    }
    return n;
}

static node *parse_list(parser *p)
{
    node *n = parser_node(p, N_LIST, parser_line(p));

    p->at++;
    while (n && p->status == MOE_OK && !parser_at(p, T_OPERATOR, "]")) {
        node_list_add(p, &n->list, parse_expression(p));
        if (!parser_skip(p, T_OPERATOR, ",")) {
            break;
        }
    }
    parser_expect(p, T_OPERATOR, "]");
    if (n) {
        parser_adopt_list(p, n, &n->list);
    }
    return n;
}

static node *parse_dict(parser *p)
{
    node *n = parser_node(p, N_DICT, parser_line(p));

    p->at++;
    while (n && p->status == MOE_OK && !parser_at(p, T_OPERATOR, "}")) {
        node_list_add(p, &n->list, parse_expression(p));
        parser_expect(p, T_OPERATOR, ":");
        node_list_add(p, &n->list, parse_expression(p));
        if (!parser_skip(p, T_OPERATOR, ",")) {
            break;
        }
    }
    parser_expect(p, T_OPERATOR, "}");
    if (n) {
        parser_adopt_list(p, n, &n->list);
    }
    return n;
}

static node *parse_parentheses(parser *p)
{
    const uint32_t line = parser_line(p);
    node *n;

    p->at++;
    n = parser_at(p, T_OPERATOR, ")") ? parser_node(p, N_TUPLE, line) : parse_tuple(p, true, NULL);
    parser_expect(p, T_OPERATOR, ")");
    return n;
}

node *parse_primary(parser *p)
{
    const token *t = parser_look(p, 0);

    switch (t->type) {
    case T_NAME:
        return parse_name(p);
    case T_STRING:
        return parse_string(p);
    case T_INT:
    case T_FLOAT:
        p->at++;
        return constant(p, t->line, t->type == T_INT ? value_int(t->i) : value_float(t->f));
    default:
        break;
    }
    if (parser_at(p, T_OPERATOR, "(")) {
        return parse_parentheses(p);
    }
    if (parser_at(p, T_OPERATOR, "[")) {
        return parse_list(p);
    }
    return parser_at(p, T_OPERATOR, "{") ? parse_dict(p) : parser_unexpected(p);
}

/* ------------------------------------------------------------------------------------------------ filters, tests */
node *parse_filters(parser *p, node *subject, bool inline_first)
{
    while (p->status == MOE_OK && (inline_first || parser_skip(p, T_OPERATOR, "|"))) {
        const token *t = parser_look(p, 0);
        node *n = parser_two(p, N_FILTER, OP_NONE, t->line, subject, NULL);

        inline_first = false;
        parser_expect(p, T_NAME, NULL);
        if (p->status != MOE_OK) {
            return NULL;
        }
        n->name = t->data;
        n->callee = filter_find(t->data);
        if (parser_at(p, T_OPERATOR, "(")) {
            parse_args(p, n);
        }
        subject = n;
    }
    return subject;
}

/* `is divisibleby 3`: one argument without brackets. */
static void parse_test_argument(parser *p, node *n)
{
    const token *t = parser_look(p, 0);
    const bool opens = t->type == T_OPERATOR && (strcmp(t->data, "[") == 0 || strcmp(t->data, "{") == 0);
    const bool word =
        t->type == T_NAME && strcmp(t->data, "else") != 0 && strcmp(t->data, "or") != 0 && strcmp(t->data, "and") != 0;

    if (word && strcmp(t->data, "is") == 0) {
        parser_fail(p, MOE_ERR_CORRUPT, t->line, "tests cannot be chained with is");
    }
    if (word || opens || t->type == T_STRING || t->type == T_INT || t->type == T_FLOAT) {
        node *argument = parse_postfix(p, parse_primary(p));

        n->args = parser_take(p, sizeof *n->args);
        if (n->args) {
            node_list_add(p, &n->args->positional, argument);
            parser_adopt(p, n, argument);
        }
    }
}

static node *parse_test(parser *p, node *subject)
{
    const bool negated = (p->at++, parser_skip(p, T_NAME, "not"));
    const token *t = parser_look(p, 0);
    node *n = parser_two(p, N_TEST, OP_NONE, t->line, subject, NULL);

    parser_expect(p, T_NAME, NULL);
    if (p->status != MOE_OK) {
        return NULL;
    }
    n->name = t->data;
    n->callee = test_find(t->data);
    if (parser_at(p, T_OPERATOR, "(")) {
        parse_args(p, n);
    } else {
        parse_test_argument(p, n);
    }
    return negated ? parser_two(p, N_NOT, OP_NONE, t->line, n, NULL) : n;
}

static node *parse_filter_expression(parser *p, node *n)
{
    while (p->status == MOE_OK) {
        if (parser_at(p, T_OPERATOR, "|")) {
            n = parse_filters(p, n, false);
        } else if (parser_at(p, T_NAME, "is")) {
            n = parse_test(p, n);
        } else if (parser_at(p, T_OPERATOR, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return n;
}

/* ------------------------------------------------------------------------------------------------ signs */
node *parse_unary(parser *p, bool with_filter)
{
    const uint32_t line = parser_line(p);
    const bool minus = parser_at(p, T_OPERATOR, "-");
    node *n;

    if (++p->depth > MAX_PARSE_DEPTH) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, line, "nested more than %d deep", MAX_PARSE_DEPTH);
    }
    if (p->status != MOE_OK) {
        return NULL;
    }
    if (minus || parser_at(p, T_OPERATOR, "+")) {
        p->at++;
        n = parser_two(p, N_UNARY, minus ? OP_SUB : OP_ADD, line, parse_unary(p, false), NULL);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    p->depth--;
    return with_filter ? parse_filter_expression(p, n) : n;
}
