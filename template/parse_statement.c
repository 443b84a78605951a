/* Statements, and the template as a whole. */
#include "template/template_priv.h"

#include <stdlib.h>

enum { MAX_BLOCK_DEPTH = 60 };

static void parse_body(parser *p, node_list *body, const char *const *ends);

static bool at_any(const parser *p, const char *const *names)
{
    for (; *names; names++) {
        if (parser_at(p, T_NAME, *names)) {
            return true;
        }
    }
    return false;
}

static node *statement(parser *p, node_type type)
{
    node *n = parser_node(p, type, parser_look(p, 0)->line);

    p->at++;
    return n;
}

/* From the end of the opening tag to the word that ends the block, which is left for the caller. */
static void parse_block(parser *p, node *owner, node_list *body, const char *const *ends)
{
    (void)parser_skip(p, T_OPERATOR, ":");
    parser_expect(p, T_BLOCK_END, NULL);
    if (++p->depth > MAX_BLOCK_DEPTH) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, owner ? owner->line : 0, "blocks nested more than %d deep",
                    MAX_BLOCK_DEPTH);
    }
    parse_body(p, body, ends);
    p->depth--;
    if (p->status == MOE_OK && parser_at(p, T_END, NULL)) {
        parser_fail(p, MOE_ERR_CORRUPT, owner->line, "the template ends before '%s'", ends[0]);
    }
    for (size_t i = 0; owner && i < body->n; i++) {
        parser_adopt(p, owner, body->items[i]);
    }
}

static void parse_whole_block(parser *p, node *owner, node_list *body, const char *end)
{
    const char *const ends[] = {end, NULL};

    parse_block(p, owner, body, ends);
    parser_expect(p, T_NAME, end);
}

static node *parse_if(parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node *n = parser_node(p, N_IF, parser_look(p, 0)->line);

    while (n && p->status == MOE_OK && (parser_at(p, T_NAME, "if") || parser_at(p, T_NAME, "elif"))) {
        node *branch = statement(p, N_COND);

        if (!branch) {
            return NULL;
        }
        branch->b = parse_tuple(p, false, NULL);
        parser_adopt(p, branch, branch->b);
        parse_block(p, branch, &branch->list, ends);
        node_list_add(p, &n->list, branch);
        parser_adopt(p, n, branch);
    }
    if (parser_skip(p, T_NAME, "else")) {
        parse_whole_block(p, n, &n->other, "endif");
    } else {
        parser_expect(p, T_NAME, "endif");
    }
    return n;
}

static node *parse_for(parser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    node *n = statement(p, N_FOR);

    if (!n) {
        return NULL;
    }
    n->a = parse_target(p, "in", false);
    parser_expect(p, T_NAME, "in");
    n->b = parse_tuple(p, false, "recursive");
    n->c = parser_skip(p, T_NAME, "if") ? parse_expression(p) : NULL;
    if (parser_at(p, T_NAME, "recursive")) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, n->line, "a recursive loop is not known");
    }
    parser_adopt(p, n, n->a);
    parser_adopt(p, n, n->b);
    parser_adopt(p, n, n->c);
    p->loop_depth++;
    parse_block(p, n, &n->list, ends);
    p->loop_depth--;
    if (parser_skip(p, T_NAME, "else")) {
        parse_whole_block(p, n, &n->other, "endfor");
    } else {
        parser_expect(p, T_NAME, "endfor");
    }
    return n;
}

static node *parse_set(parser *p)
{
    node *n = statement(p, N_SET);

    if (!n) {
        return NULL;
    }
    n->a = parse_target(p, NULL, true);
    parser_adopt(p, n, n->a);
    if (parser_skip(p, T_OPERATOR, "=")) {
        n->b = parse_tuple(p, true, NULL);
        parser_adopt(p, n, n->b);
        return n;
    }
    n->type = N_SET_BLOCK;
    n->b = parse_filters(p, NULL, false);
    parser_adopt(p, n, n->b);
    parse_whole_block(p, n, &n->list, "endset");
    return n;
}

/* (a, b=1) */
static void parse_signature(parser *p, node *owner, macro_def *m)
{
    parser_expect(p, T_OPERATOR, "(");
    for (bool first = true; p->status == MOE_OK && !parser_at(p, T_OPERATOR, ")"); first = false) {
        if (!first) {
            parser_expect(p, T_OPERATOR, ",");
        }
        const token *name = parser_look(p, 0);

        parser_expect(p, T_NAME, NULL);
        name_list_add(p, &m->parameters, &m->n_parameters, &m->capacity, name->data);
        if (parser_skip(p, T_OPERATOR, "=")) {
            node *fallback = parse_expression(p);

            node_list_add(p, &m->defaults, fallback);
            parser_adopt(p, owner, fallback);
        } else if (m->defaults.n > 0) {
            parser_fail(p, MOE_ERR_CORRUPT, name->line, "a parameter without default follows one that has it");
        }
    }
    parser_expect(p, T_OPERATOR, ")");
}

static void parse_macro_body(parser *p, node *owner, const char *end)
{
    macro_def *const outer = p->macro;
    const size_t loop_depth = p->loop_depth;

    p->macro = owner->macro;
    p->loop_depth = 0;
    parse_whole_block(p, owner, &owner->macro->body, end);
    p->macro = outer;
    p->loop_depth = loop_depth;
    if (outer) { /* a macro within: Jinja looks into it, too */
        outer->uses_caller |= owner->macro->uses_caller;
        outer->uses_kwargs |= owner->macro->uses_kwargs;
        outer->uses_varargs |= owner->macro->uses_varargs;
    }
}

static node *parse_macro(parser *p)
{
    node *n = statement(p, N_MACRO);
    const token *name = parser_look(p, 0);

    parser_expect(p, T_NAME, NULL);
    if (!n || p->status != MOE_OK || !(n->macro = parser_take(p, sizeof *n->macro))) {
        return NULL;
    }
    n->macro->name = n->name = name->data;
    parse_signature(p, n, n->macro);
    parse_macro_body(p, n, "endmacro");
    return n;
}

static node *parse_call_block(parser *p)
{
    node *n = statement(p, N_CALL_BLOCK);

    if (!n || !(n->macro = parser_take(p, sizeof *n->macro))) {
        return NULL;
    }
    n->macro->name = p->t->caller;
    if (parser_at(p, T_OPERATOR, "(")) {
        parse_signature(p, n, n->macro);
    }
    n->a = parse_expression(p);
    parser_adopt(p, n, n->a);
    if (p->status == MOE_OK && n->a->type != N_CALL) {
        parser_fail(p, MOE_ERR_CORRUPT, n->line, "expected a call");
    }
    if (p->status == MOE_OK) {
        parse_macro_body(p, n, "endcall");
    }
    return n;
}

static node *parse_filter_block(parser *p)
{
    node *n = statement(p, N_FILTER_BLOCK);

    if (n) {
        n->b = parse_filters(p, NULL, true);
        parser_adopt(p, n, n->b);
        parse_whole_block(p, n, &n->list, "endfilter");
    }
    return n;
}

static node *parse_with(parser *p)
{
    node *n = statement(p, N_WITH);

    if (!n || !(n->args = parser_take(p, sizeof *n->args))) {
        return NULL;
    }
    while (p->status == MOE_OK && !parser_at(p, T_BLOCK_END, NULL)) {
        const token *name;
        node *v;

        if (n->args->n_keywords > 0) {
            parser_expect(p, T_OPERATOR, ",");
        }
        name = parser_look(p, 0);
        parser_expect(p, T_NAME, NULL);
        parser_expect(p, T_OPERATOR, "=");
        v = parse_expression(p);
        name_list_add(p, &n->args->keywords, &n->args->n_keywords, &n->args->capacity, name->data);
        node_list_add(p, &n->args->values, v);
        parser_adopt(p, n, v);
    }
    parse_whole_block(p, n, &n->list, "endwith");
    return n;
}

/* {% generation %} marks what the assistant says, for training; rendering it gives its body. */
static node *parse_generation(parser *p)
{
    const size_t loop_depth = p->loop_depth;
    node *n = statement(p, N_SCOPE);

    p->loop_depth = 0;
    if (n) {
        parse_whole_block(p, n, &n->list, "endgeneration");
    }
    p->loop_depth = loop_depth;
    return n;
}

static node *parse_loop_control(parser *p, node_type type)
{
    node *n = statement(p, type);

    if (n && p->loop_depth == 0) {
        parser_fail(p, MOE_ERR_CORRUPT, n->line, "'%s' outside of a loop", type == N_BREAK ? "break" : "continue");
    }
    return n;
}

static node *parse_break(parser *p)
{
    return parse_loop_control(p, N_BREAK);
}

static node *parse_continue(parser *p)
{
    return parse_loop_control(p, N_CONTINUE);
}

static node *parse_print_statement(parser *p)
{
    node *n = statement(p, N_SCOPE);

    while (n && p->status == MOE_OK && !parser_at(p, T_BLOCK_END, NULL)) {
        node *printed = parser_node(p, N_PRINT, n->line);

        if (n->list.n > 0) {
            parser_expect(p, T_OPERATOR, ",");
        }
        if (printed) {
            printed->a = parse_expression(p);
            parser_adopt(p, printed, printed->a);
            node_list_add(p, &n->list, printed);
            parser_adopt(p, n, printed);
        }
    }
    return n;
}

static node *parse_statement(parser *p)
{
    static const struct {
        const char *word;
        node *(*parse)(parser *);
    } statements[] = {{"if", parse_if},
                      {"for", parse_for},
                      {"set", parse_set},
                      {"macro", parse_macro},
                      {"call", parse_call_block},
                      {"filter", parse_filter_block},
                      {"with", parse_with},
                      {"generation", parse_generation},
                      {"break", parse_break},
                      {"continue", parse_continue},
                      {"print", parse_print_statement}};
    static const char *const others[] = {"autoescape", "block", "extends", "from", "import", "include"};
    const token *t = parser_look(p, 0);

    for (size_t i = 0; t->type == T_NAME && i < MOE_COUNT(statements); i++) {
        if (strcmp(t->data, statements[i].word) == 0) {
            return statements[i].parse(p);
        }
    }
    for (size_t i = 0; t->type == T_NAME && i < MOE_COUNT(others); i++) {
        if (strcmp(t->data, others[i]) == 0) {
            parser_fail(p, MOE_ERR_UNSUPPORTED, t->line, "the statement '%s' is not known", t->data);
            return NULL;
        }
    }
    parser_fail(p, MOE_ERR_CORRUPT, t->line, "'%.60s' begins no statement here", t->type == T_NAME ? t->data : "this");
    return NULL;
}

static node *parse_data(parser *p)
{
    const token *t = parser_look(p, 0);
    node *n = parser_node(p, N_TEXT, t->line);
    text *data = parser_take(p, sizeof *data);

    p->at++;
    if (!n || !data) {
        return NULL;
    }
    *data = (text){.data = t->data, .n = t->n};
    n->constant = value_text(data);
    return n;
}

static node *parse_print(parser *p)
{
    node *n = parser_node(p, N_PRINT, parser_look(p, 0)->line);

    p->at++;
    if (n) {
        n->a = parse_tuple(p, true, NULL);
        parser_adopt(p, n, n->a);
        parser_expect(p, T_PRINT_END, NULL);
    }
    return n;
}

static void parse_body(parser *p, node_list *body, const char *const *ends)
{
    while (p->status == MOE_OK && !parser_at(p, T_END, NULL)) {
        node *n;

        if (parser_at(p, T_DATA, NULL)) {
            n = parse_data(p);
        } else if (parser_at(p, T_PRINT_BEGIN, NULL)) {
            n = parse_print(p);
        } else {
            p->at++; /* {% */
            if (at_any(p, ends)) {
                return;
            }
            n = parse_statement(p);
            parser_expect(p, T_BLOCK_END, NULL);
        }
        if (p->status == MOE_OK) {
            node_list_add(p, body, n);
        }
    }
}

static moe_status compile(template *t, const char *source, size_t n, moe_error *err)
{
    static const char *const none[] = {NULL};
    parser p = {.t = t, .err = err, .status = MOE_OK};
    const size_t valid = moe_utf8_valid_prefix(source, n);

    if (n > TEMPLATE_MAX_SOURCE) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%zu bytes; the limit is %zu", n, TEMPLATE_MAX_SOURCE);
    }
    if (valid != n) {
        return moe_fail(err, MOE_ERR_CORRUPT, "invalid UTF-8 at byte %zu", valid);
    }
    t->loop = parser_intern(&p, "loop", 4);
    t->caller = parser_intern(&p, "caller", 6);
    t->kwargs = parser_intern(&p, "kwargs", 6);
    t->varargs = parser_intern(&p, "varargs", 7);
    if (p.status == MOE_OK && lexer_run(&p, source, n) == MOE_OK) {
        parse_body(&p, &t->body, none);
        check_nodes(&p, &t->body, false);
    }
    return p.status;
}

moe_status template_compile(const char *source, size_t n, template **out, moe_error *err)
{
    template *t = calloc(1, sizeof *t);
    moe_status status;

    if (!t) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for the template");
    }
    arena_init(&t->arena, TEMPLATE_MAX_SOURCE * 256);
    status = compile(t, source, n, err);
    if (status != MOE_OK) {
        template_free(t);
        return status;
    }
    *out = t;
    return MOE_OK;
}

void template_free(template *t)
{
    if (t) {
        arena_fini(&t->arena);
        free(t);
    }
}
