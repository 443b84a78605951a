/* Expressions, by descent; each function is one level of Jinja's precedence. */
#include "template/template_priv.h"

/* ------------------------------------------------------------------------------------------------ operators */
typedef struct level {
    const char *const *spellings;
    const operation *operations;
    size_t n;
} level;

static bool take_operator(parser *p, const level *l, operation *op_out)
{
    for (size_t i = 0; i < l->n; i++) {
        if (parser_skip(p, T_OPERATOR, l->spellings[i])) {
            *op_out = l->operations[i];
            return true;
        }
    }
    return false;
}

static node *parse_left(parser *p, const level *l, node *(*next)(parser *))
{
    node *left = next(p);
    operation op;

    while (p->status == MOE_OK) {
        const uint32_t line = parser_line(p);

        if (!take_operator(p, l, &op)) {
            break;
        }
        left = parser_two(p, N_BINARY, op, line, left, next(p));
    }
    return left;
}

static node *parse_operand(parser *p)
{
    return parse_unary(p, true);
}

static node *parse_power(parser *p)
{
    static const char *const spellings[] = {"**"};
    static const operation operations[] = {OP_POW};

    return parse_left(p, &(level){spellings, operations, 1}, parse_operand);
}

static node *parse_product(parser *p)
{
    static const char *const spellings[] = {"*", "/", "//", "%"};
    static const operation operations[] = {OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD};

    return parse_left(p, &(level){spellings, operations, 4}, parse_power);
}

static node *parse_concat(parser *p)
{
    const uint32_t line = parser_line(p);
    node *first = parse_product(p), *n;

    if (!parser_at(p, T_OPERATOR, "~")) {
        return first;
    }
    n = parser_node(p, N_CONCAT, line);
    if (!n) {
        return NULL;
    }
    node_list_add(p, &n->list, first);
    while (p->status == MOE_OK && parser_skip(p, T_OPERATOR, "~")) {
        node_list_add(p, &n->list, parse_product(p));
    }
    parser_adopt_list(p, n, &n->list);
    return n;
}

static node *parse_sum(parser *p)
{
    static const char *const spellings[] = {"+", "-"};
    static const operation operations[] = {OP_ADD, OP_SUB};

    return parse_left(p, &(level){spellings, operations, 2}, parse_concat);
}

static bool take_comparison(parser *p, operation *op_out)
{
    static const char *const spellings[] = {"==", "!=", "<", "<=", ">", ">="};
    static const operation operations[] = {OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE};

    if (parser_skip(p, T_NAME, "in")) {
        *op_out = OP_IN;
        return true;
    }
    if (parser_at(p, T_NAME, "not") && token_is(parser_look(p, 1), T_NAME, "in")) {
        p->at += 2;
        *op_out = OP_NOT_IN;
        return true;
    }
    return take_operator(p, &(level){spellings, operations, 6}, op_out);
}

static node *parse_comparison(parser *p)
{
    const uint32_t line = parser_line(p);
    node *first = parse_sum(p), *n = NULL;
    operation op;

    while (p->status == MOE_OK && take_comparison(p, &op)) {
        node *operand = parser_two(p, N_BINARY, op, line, NULL, parse_sum(p));

        n = n ? n : parser_two(p, N_COMPARE, OP_NONE, line, first, NULL);
        if (n) {
            node_list_add(p, &n->list, operand);
            parser_adopt(p, n, operand);
        }
    }
    return n ? n : first;
}

static node *parse_not(parser *p)
{
    const uint32_t line = parser_line(p);
    size_t n_nots = 0;
    node *n;

    while (parser_at(p, T_NAME, "not") && n_nots < MAX_PARSE_DEPTH) {
        p->at++;
        n_nots++;
    }
    n = parse_comparison(p);
    for (; n_nots > 0; n_nots--) {
        n = parser_two(p, N_NOT, OP_NONE, line, n, NULL);
    }
    return n;
}

static node *parse_and(parser *p)
{
    node *left = parse_not(p);

    while (p->status == MOE_OK && parser_at(p, T_NAME, "and")) {
        const uint32_t line = parser_line(p);

        p->at++;
        left = parser_two(p, N_AND, OP_NONE, line, left, parse_not(p));
    }
    return left;
}

static node *parse_without_condition(parser *p)
{
    node *left = parse_and(p);

    while (p->status == MOE_OK && parser_at(p, T_NAME, "or")) {
        const uint32_t line = parser_line(p);

        p->at++;
        left = parser_two(p, N_OR, OP_NONE, line, left, parse_and(p));
    }
    return left;
}

static node *parse_condition(parser *p)
{
    node *n = parse_without_condition(p);

    while (p->status == MOE_OK && parser_at(p, T_NAME, "if")) {
        const uint32_t line = parser_line(p);
        node *condition, *otherwise;

        p->at++;
        condition = parse_without_condition(p);
        otherwise = parser_skip(p, T_NAME, "else") ? parse_expression(p) : NULL;
        n = parser_two(p, N_COND, OP_NONE, line, n, condition);
        if (n) {
            n->c = otherwise;
            parser_adopt(p, n, otherwise);
        }
    }
    return n;
}

node *parse_expression(parser *p)
{
    node *n = NULL;

    if (++p->depth > MAX_PARSE_DEPTH) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, parser_line(p), "nested more than %d deep", MAX_PARSE_DEPTH);
    }
    if (p->status == MOE_OK) {
        n = parse_condition(p);
    }
    p->depth--;
    return n;
}

/* ------------------------------------------------------------------------------------------------ tuples, targets */
static bool at_tuple_end(const parser *p, const char *end_name)
{
    return parser_at(p, T_PRINT_END, NULL) || parser_at(p, T_BLOCK_END, NULL) || parser_at(p, T_OPERATOR, ")") ||
           (end_name && parser_at(p, T_NAME, end_name));
}

/* An item, and its neighbours if commas follow. */
static node *parse_items(parser *p, const char *end_name, node *(*item)(parser *))
{
    const uint32_t line = parser_line(p);
    node *first, *n;

    if (at_tuple_end(p, end_name)) {
        return parser_unexpected(p);
    }
    first = item(p);
    if (!parser_at(p, T_OPERATOR, ",")) {
        return first;
    }
    n = parser_node(p, N_TUPLE, line);
    if (!n) {
        return NULL;
    }
    node_list_add(p, &n->list, first);
    while (p->status == MOE_OK && parser_skip(p, T_OPERATOR, ",") && !at_tuple_end(p, end_name)) {
        node_list_add(p, &n->list, item(p));
    }
    parser_adopt_list(p, n, &n->list);
    return n;
}

node *parse_tuple(parser *p, bool with_condition, const char *end_name)
{
    return parse_items(p, end_name, with_condition ? parse_expression : parse_without_condition);
}

static void check_target(parser *p, const node *n)
{
    if (p->status != MOE_OK) {
        return;
    }
    if (n->type == N_TUPLE) {
        for (size_t i = 0; i < n->list.n; i++) {
            check_target(p, n->list.items[i]);
        }
    } else if (n->type != N_NAME && n->type != N_ATTRIBUTE_TARGET) {
        parser_fail(p, MOE_ERR_CORRUPT, n->line, "cannot assign to this");
    }
}

/* name.attribute, of a namespace */
static node *parse_target_item(parser *p)
{
    const token *t = parser_look(p, 0), *attribute = parser_look(p, 2);
    node *n;

    if (t->type != T_NAME || !token_is(parser_look(p, 1), T_OPERATOR, ".")) {
        return parse_primary(p);
    }
    p->at += 2;
    parser_expect(p, T_NAME, NULL);
    n = parser_node(p, N_ATTRIBUTE_TARGET, t->line);
    if (n && p->status == MOE_OK) {
        text *name = parser_take(p, sizeof *name);

        n->name = t->data;
        if (name) {
            *name = (text){.data = attribute->data, .n = attribute->n};
            n->constant = value_text(name);
        }
    }
    return n;
}

node *parse_target(parser *p, const char *end_name, bool with_attribute)
{
    node *n = parse_items(p, end_name, with_attribute ? parse_target_item : parse_primary);

    check_target(p, n);
    return n;
}
