/* What all of the parser shares: the tokens ahead, names, nodes. */
#include "template/template_priv.h"

enum { MAX_NAMES = 1024 /* published templates have some hundred */ };

const token *parser_look(const parser *p, size_t ahead)
{
    return &p->tokens[MOE_MIN(p->at + ahead, p->n_tokens - 1)];
}

bool token_is(const token *t, token_type type, const char *data)
{
    return t->type == type && (!data || strcmp(t->data, data) == 0);
}

bool parser_at(const parser *p, token_type type, const char *data)
{
    return token_is(parser_look(p, 0), type, data);
}

bool parser_skip(parser *p, token_type type, const char *data)
{
    const bool there = parser_at(p, type, data);

    p->at += there;
    return there;
}

static const char *token_name(const token *t)
{
    static const char *const names[] = {"text",           "{%",          "end of the tag",     "{{",
                                        "end of the tag", "a name",      "a string",           "an integer",
                                        "a number",       "an operator", "end of the template"};

    return t->type == T_NAME || t->type == T_OPERATOR ? t->data : names[t->type];
}

node *parser_unexpected(parser *p)
{
    const token *t = parser_look(p, 0);

    parser_fail(p, MOE_ERR_CORRUPT, t->line, "unexpected '%.60s'", token_name(t));
    return NULL;
}

void parser_expect(parser *p, token_type type, const char *data)
{
    const token *t = parser_look(p, 0);

    if (!parser_skip(p, type, data)) {
        const token wanted = {.type = type, .data = data ? data : "a name"};

        parser_fail(p, MOE_ERR_CORRUPT, t->line, "expected '%.60s', not '%.60s'", token_name(&wanted), token_name(t));
    }
}

const char *parser_intern(parser *p, const char *data, size_t n)
{
    template *t = p->t;
    char *copy;

    for (size_t i = 0; i < t->n_names; i++) {
        if (strncmp(t->names[i], data, n) == 0 && t->names[i][n] == '\0') {
            return t->names[i];
        }
    }
    if (t->n_names == MAX_NAMES) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, 0, "more than %d names", MAX_NAMES);
        return NULL;
    }
    copy = parser_take(p, n + 1);
    if (!copy) {
        return NULL;
    }
    memcpy(copy, data, n);
    name_list_add(p, &t->names, &t->n_names, &t->capacity, copy);
    return p->status == MOE_OK ? copy : NULL;
}

void name_list_add(parser *p, const char ***names, size_t *n, size_t *capacity, const char *name)
{
    const char **items = parser_grow(p, *names, *n, sizeof *items, 8, capacity);

    if (items) {
        *names = items;
        items[(*n)++] = name;
    }
}

void node_list_add(parser *p, node_list *list, node *item)
{
    node **items = parser_grow(p, list->items, list->n, sizeof(node *), 4, &list->capacity);

    if (items) {
        list->items = items;
        items[list->n++] = item;
    }
}

node *parser_node(parser *p, node_type type, uint32_t line)
{
    node *n = parser_take(p, sizeof *n);

    if (n) {
        n->type = type;
        n->line = line;
    }
    return n;
}

void parser_adopt(parser *p, node *parent, const node *child)
{
    if (parent && child && child->depth >= parent->depth) {
        parent->depth = child->depth + 1;
        if (parent->depth > MAX_NODE_DEPTH) {
            parser_fail(p, MOE_ERR_UNSUPPORTED, parent->line, "nested or chained more than %d deep", MAX_NODE_DEPTH);
        }
    }
}

void parser_adopt_list(parser *p, node *parent, const node_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        parser_adopt(p, parent, list->items[i]);
    }
}

node *parser_two(parser *p, node_type type, operation op, uint32_t line, node *a, node *b)
{
    node *n = parser_node(p, type, line);

    if (n) {
        n->op = op;
        n->a = a;
        n->b = b;
        parser_adopt(p, n, a);
        parser_adopt(p, n, b);
    }
    return n;
}

uint32_t parser_line(const parser *p)
{
    return parser_look(p, 0)->line;
}
