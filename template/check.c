/* What a template uses and this does not have is said before anything is rendered. */
#include "template/template_priv.h"

static void check(parser *p, const node *n, bool soft);

static bool is_in(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* Filters of Jinja that no chat template needs. All its tests are here. */
static bool jinja_has_filter(const char *name)
{
    static const char *const names[] = {"filesizeformat", "groupby",   "pprint", "random",   "slice",
                                        "striptags",      "urlencode", "urlize", "wordwrap", "xmlattr"};

    return is_in(name, names, MOE_COUNT(names));
}

static void check_filter(parser *p, const node *n, bool soft)
{
    if (!n->callee && (!soft || jinja_has_filter(n->name))) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, n->line, "the filter '%.60s' is not known", n->name);
    }
}

/* map('upper'): a filter that is named by a text. */
static void check_map(parser *p, const node *n)
{
    const node *name =
        strcmp(n->name, "map") == 0 && n->args && n->args->positional.n > 0 ? n->args->positional.items[0] : NULL;

    if (name && name->type == N_CONST && name->constant.kind == V_TEXT) {
        const char *word = parser_intern(p, name->constant.text->data, name->constant.text->n);

        if (word && jinja_has_filter(word)) {
            parser_fail(p, MOE_ERR_UNSUPPORTED, n->line, "the filter '%.60s' is not known", word);
        }
    }
}

static void check_call(parser *p, const node *callee)
{
    static const char *const globals[] = {"cycler", "joiner", "lipsum"};

    if (callee->type == N_ATTRIBUTE && method_is_unsupported(callee->name)) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, callee->line, "the method '%.60s' is not known", callee->name);
    } else if (callee->type == N_NAME && is_in(callee->name, globals, MOE_COUNT(globals))) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, callee->line, "the function '%.60s' is not known", callee->name);
    }
}

static void check_name(parser *p, const node *n)
{
    if (strcmp(n->name, "self") == 0) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, n->line, "the name 'self' is not known");
    }
}

static void check_args(parser *p, const node_args *a, bool soft)
{
    if (a) {
        check_nodes(p, &a->positional, soft);
        check_nodes(p, &a->values, soft);
        check(p, a->more_positional, soft);
        check(p, a->more_keywords, soft);
    }
}

/* Bodies with a scope of their own: Jinja no longer remembers that they stand in a branch. */
static bool opens_scope(node_type type)
{
    return type == N_FOR || type == N_MACRO || type == N_CALL_BLOCK || type == N_SET_BLOCK || type == N_FILTER_BLOCK ||
           type == N_WITH || type == N_SCOPE;
}

static void check(parser *p, const node *n, bool soft)
{
    if (!n || p->status != MOE_OK) {
        return;
    }
    if (n->type == N_FILTER) {
        check_filter(p, n, soft);
        check_map(p, n);
    } else if (n->type == N_TEST && !n->callee && !soft) {
        parser_fail(p, MOE_ERR_UNSUPPORTED, n->line, "the test '%.60s' is not known", n->name);
    } else if (n->type == N_CALL) {
        check_call(p, n->a);
    } else if (n->type == N_NAME) {
        check_name(p, n);
    }
    soft = n->type == N_IF || n->type == N_COND || (soft && !opens_scope(n->type));
    check(p, n->a, soft);
    check(p, n->b, soft);
    check(p, n->c, soft);
    check_nodes(p, &n->list, soft);
    check_nodes(p, &n->other, soft);
    check_args(p, n->args, soft);
    if (n->macro) {
        check_nodes(p, &n->macro->defaults, soft);
        check_nodes(p, &n->macro->body, soft);
    }
}

void check_nodes(parser *p, const node_list *list, bool soft)
{
    for (size_t i = 0; i < list->n; i++) {
        check(p, list->items[i], soft);
    }
}
