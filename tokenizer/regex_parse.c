/* Patterns to nodes, by recursive descent. Every refusal names the construction and the byte it begins at. */
#include "tokenizer/regex_parse_priv.h"
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

moe_status regex_refuse(const regex_parser *p, size_t at, const char *what)
{
    return moe_fail(p->err, MOE_ERR_UNSUPPORTED, "byte %zu, \"%.*s\": %s", at, (int)MOE_MIN(p->n - at, (size_t)24),
                    p->text + at, what);
}

static moe_status too_large(const regex_parser *p)
{
    return moe_fail(p->err, MOE_ERR_UNSUPPORTED, "more than %d nodes, %d sets of characters or %zu ranges in one",
                    SYNTAX_MAX_NODES, SYNTAX_MAX_SETS, CHARSET_MAX);
}

bool regex_looks_at(const regex_parser *p, const char *what)
{
    const size_t n = strlen(what);

    return p->n - p->at >= n && memcmp(p->text + p->at, what, n) == 0;
}

bool regex_take(regex_parser *p, const char *what)
{
    const bool there = regex_looks_at(p, what);

    p->at += there ? strlen(what) : 0;
    return there;
}

/* ------------------------------------------------------------------------------------------------ nodes */
static moe_status node_add(regex_parser *p, syntax_node node, uint16_t *out)
{
    syntax *s = p->s;

    if (s->n_nodes == s->node_capacity) {
        const size_t capacity = s->node_capacity ? s->node_capacity * 2 : 64;
        syntax_node *grown = capacity > SYNTAX_MAX_NODES ? NULL : realloc(s->nodes, capacity * sizeof *grown);

        if (!grown) {
            return too_large(p);
        }
        s->nodes = grown;
        s->node_capacity = capacity;
    }
    s->nodes[s->n_nodes] = node;
    *out = (uint16_t)s->n_nodes++;
    return MOE_OK;
}

static moe_status pair_add(regex_parser *p, node_kind kind, uint16_t left, uint16_t right, uint16_t *out)
{
    return node_add(p, (syntax_node){.kind = kind, .left = left, .right = right}, out);
}

/* Takes the set over and leaves it empty; equal sets are one. */
static moe_status set_add(regex_parser *p, charset *set, uint16_t *out)
{
    syntax *s = p->s;
    size_t i;

    charset_seal(set);
    for (i = 0; i < s->n_sets; i++) {
        if (s->sets[i].n == set->n &&
            (set->n == 0 || memcmp(s->sets[i].ranges, set->ranges, set->n * sizeof *set->ranges) == 0)) {
            break;
        }
    }
    *out = (uint16_t)i;
    if (set->failed || i == SYNTAX_MAX_SETS) {
        charset_fini(set);
        return too_large(p);
    }
    if (i == s->n_sets) {
        s->sets[s->n_sets++] = *set;
        *set = (charset){0};
    } else {
        charset_fini(set);
    }
    return MOE_OK;
}

static moe_status set_node(regex_parser *p, charset *set, uint16_t *out)
{
    uint16_t index;
    const moe_status status = set_add(p, set, &index);

    return status == MOE_OK ? node_add(p, (syntax_node){.kind = NODE_SET, .set = index}, out) : status;
}

/* set: sealed, taken over. */
static moe_status look_node(regex_parser *p, charset *set, bool behind, bool at_edge, uint16_t *out)
{
    uint16_t index;
    const moe_status status = set_add(p, set, &index);

    return status == MOE_OK
               ? node_add(p, (syntax_node){.kind = NODE_LOOK, .set = index, .behind = behind, .at_edge = at_edge}, out)
               : status;
}

static charset copy_of(const charset *set)
{
    charset copy = {0};

    charset_add_set(&copy, set);
    charset_seal(&copy);
    return copy;
}

/* ------------------------------------------------------------------------------------------------ atoms */
static moe_status alternatives(regex_parser *p, uint16_t *out);

/* The set of a node that is one character; false: it is something else. */
static bool single_char(const syntax *s, uint16_t node, charset *out)
{
    const syntax_node *n = &s->nodes[node];

    switch (n->kind) {
    case NODE_SET:
        charset_add_set(out, &s->sets[n->set]);
        return true;
    case NODE_ALT:
        return single_char(s, n->left, out) && single_char(s, n->right, out);
    default:
        return false;
    }
}

/* (?=x) (?!x) (?<=x) (?<!x), behind the "(?". */
static moe_status look_around(regex_parser *p, size_t from, uint16_t *out)
{
    const bool behind = regex_take(p, "<"), negated = regex_looks_at(p, "!");
    charset set = {0};
    uint16_t inner = 0;
    moe_status status;

    p->at++;
    status = alternatives(p, &inner);
    if (status != MOE_OK) {
        return status;
    }
    if (!single_char(p->s, inner, &set)) {
        charset_fini(&set);
        return regex_refuse(p, from, "looking at more than one character is not supported");
    }
    charset_seal(&set);
    if (negated) {
        charset_invert(&set);
    }
    return look_node(p, &set, behind, negated, out);
}

/* What a possessive repetition of one character is: it ends only where that character does not go on. */
static moe_status then_no_more(regex_parser *p, size_t from, uint16_t what, uint16_t repeated, bool once, uint16_t *out)
{
    charset set = {0};
    uint16_t look;
    moe_status status;

    if (!single_char(p->s, what, &set)) {
        charset_fini(&set);
        return regex_refuse(p, from, "possessive repetition of more than one character is not supported");
    }
    charset_seal(&set);
    charset_invert(&set);
    status = look_node(p, &set, false, true, &look);
    if (status != MOE_OK) {
        return status;
    }
    return once ? pair_add(p, NODE_ALT, what, look, out) : pair_add(p, NODE_CAT, repeated, look, out);
}

/* (?>x+), behind the "(?>". */
static moe_status atomic(regex_parser *p, size_t from, uint16_t *out)
{
    uint16_t inner = 0;
    const moe_status status = alternatives(p, &inner);
    const syntax_node *n = status == MOE_OK ? &p->s->nodes[inner] : NULL;

    if (!n) {
        return status;
    }
    *out = inner;
    if (n->kind == NODE_SET) {
        return MOE_OK;
    }
    if (n->kind != NODE_REPEAT || n->lazy || !(n->max == REPEAT_NO_MAX || (n->min == 0 && n->max == 1))) {
        return regex_refuse(p, from, "an atomic group is supported around one repeated character");
    }
    return then_no_more(p, from, n->left, inner, n->max == 1, out);
}

/* (?i:x) (?i)x (?i-m:x), behind the "(?". An option set without a colon holds to the end of the group around it. */
static moe_status options(regex_parser *p, size_t from, uint16_t *out)
{
    const bool outer_case = p->ignore_case, outer_dot = p->dot_all;
    bool on = true;
    moe_status status;

    for (; p->at < p->n && p->text[p->at] && strchr("im-", p->text[p->at]); p->at++) {
        if (p->text[p->at] == 'i') {
            p->ignore_case = on;
        } else if (p->text[p->at] == 'm') {
            p->dot_all = on;
        }
        on = on && p->text[p->at] != '-';
    }
    if (regex_take(p, ":")) {
        status = alternatives(p, out);
        p->ignore_case = outer_case;
        p->dot_all = outer_dot;
        return status;
    }
    if (!regex_looks_at(p, ")")) {
        return regex_refuse(p, from, "this group is not supported");
    }
    p->at++; /* the rest of the group around it is its content, so that `a(?i)b|c` is `a(?i:b|c)` */
    p->depth--;
    status = alternatives(p, out);
    p->depth++;
    p->at--; /* the ")" of the group around it, which alternatives() took; or the end */
    p->ignore_case = outer_case;
    p->dot_all = outer_dot;
    return status;
}

static moe_status group(regex_parser *p, uint16_t *out)
{
    const size_t from = p->at++;
    moe_status status;

    if (++p->depth > SYNTAX_MAX_DEPTH) {
        return regex_refuse(p, from, "nested too deeply");
    }
    if (!regex_take(p, "?")) {
        status = alternatives(p, out);
    } else if (regex_take(p, ":")) {
        status = alternatives(p, out);
    } else if (regex_take(p, ">")) {
        status = atomic(p, from, out);
    } else if (regex_looks_at(p, "=") || regex_looks_at(p, "!") || regex_looks_at(p, "<=") || regex_looks_at(p, "<!")) {
        status = look_around(p, from, out);
    } else {
        status = options(p, from, out);
    }
    p->depth--;
    return status;
}

static moe_status char_node(regex_parser *p, int32_t c, uint16_t *out)
{
    charset set = {0};

    charset_add(&set, c, c);
    if (p->ignore_case) {
        charset_close_case(&set);
    }
    return set_node(p, &set, out);
}

/* "." */
static moe_status any_node(regex_parser *p, uint16_t *out)
{
    charset set = {0};

    charset_add(&set, 0, p->dot_all ? CHAR_LAST : '\n' - 1);
    if (!p->dot_all) {
        charset_add(&set, '\n' + 1, CHAR_LAST);
    }
    return set_node(p, &set, out);
}

/* ^ $ \A \z: at the edge of the text; the first two beside a line feed too. */
static moe_status edge_node(regex_parser *p, bool behind, bool lines, uint16_t *out)
{
    charset none = {0}, feed = {0}, any = {0};
    uint16_t edge, line, more;
    moe_status status;

    if (!lines) {
        return look_node(p, &none, behind, true, out);
    }
    charset_add(&feed, '\n', '\n');
    if (!behind) {
        return look_node(p, &feed, false, true, out);
    }
    charset_add(&any, 0, CHAR_LAST);
    if ((status = look_node(p, &feed, true, false, &line)) == MOE_OK &&
        (status = look_node(p, &any, false, false, &more)) == MOE_OK && /* behind the last line feed no line begins */
        (status = pair_add(p, NODE_CAT, line, more, &line)) == MOE_OK &&
        (status = look_node(p, &none, true, true, &edge)) == MOE_OK) {
        status = pair_add(p, NODE_ALT, edge, line, out);
    }
    charset_fini(&any);
    return status;
}

/* One side a word, the other not; \B: both or none. */
static moe_status boundary_node(regex_parser *p, bool is_boundary, uint16_t *out)
{
    uint16_t arm[2];

    for (size_t i = 0; i < 2; i++) {
        const bool word_behind = i == 0, word_ahead = is_boundary != word_behind;
        uint16_t behind, ahead;
        charset set = set_of_words(false), other = copy_of(&set);
        moe_status status;

        if (!word_behind) {
            charset_invert(&set);
        }
        if (!word_ahead) {
            charset_invert(&other);
        }
        status = look_node(p, &set, true, !word_behind, &behind);
        if (status != MOE_OK) {
            charset_fini(&other);
            return status;
        }
        if ((status = look_node(p, &other, false, !word_ahead, &ahead)) != MOE_OK ||
            (status = pair_add(p, NODE_CAT, behind, ahead, &arm[i])) != MOE_OK) {
            return status;
        }
    }
    return pair_add(p, NODE_ALT, arm[0], arm[1], out);
}

static moe_status class_node(regex_parser *p, uint16_t *out)
{
    charset set = {0};
    const moe_status status = regex_class(p, &set);

    if (status != MOE_OK) {
        charset_fini(&set);
        return status;
    }
    return set_node(p, &set, out);
}

static moe_status escape_node(regex_parser *p, uint16_t *out)
{
    charset set = {0};
    bool single;
    int32_t c;
    moe_status status;

    if (regex_take(p, "\\A") || regex_take(p, "\\z")) {
        return edge_node(p, p->text[p->at - 1] == 'A', false, out);
    }
    if (regex_take(p, "\\b") || regex_take(p, "\\B")) {
        return boundary_node(p, p->text[p->at - 1] == 'b', out);
    }
    status = regex_escape(p, false, &set, &single, &c);
    if (status != MOE_OK || single) {
        charset_fini(&set);
        return status == MOE_OK ? char_node(p, c, out) : status;
    }
    charset_seal(&set);
    return set_node(p, &set, out);
}

static moe_status atom(regex_parser *p, uint16_t *out)
{
    int32_t c;

    switch (p->text[p->at]) {
    case '(':
        return group(p, out);
    case '[':
        return class_node(p, out);
    case '\\':
        return escape_node(p, out);
    case '.':
        p->at++;
        return any_node(p, out);
    case '^':
    case '$':
        return edge_node(p, p->text[p->at++] == '^', true, out);
    case '*':
    case '+':
    case '?':
        return regex_refuse(p, p->at, "nothing to repeat");
    default:
        p->at += moe_utf8_get(p->text + p->at, &c);
        return char_node(p, c, out);
    }
}

/* ------------------------------------------------------------------------------------------------ repetition */
static bool number(regex_parser *p, uint32_t *out)
{
    const size_t from = p->at;

    for (*out = 0; p->at < p->n && p->text[p->at] >= '0' && p->text[p->at] <= '9' && p->at - from < 6; p->at++) {
        *out = *out * 10 + (uint32_t)(p->text[p->at] - '0');
    }
    return p->at > from;
}

/* {n} {n,} {n,m} {,m}; what only looks like one is text. */
static bool interval(regex_parser *p, uint32_t *min, uint32_t *max)
{
    const size_t from = p->at++;
    const bool low = number(p, min), comma = regex_take(p, ","), high = comma && number(p, max);

    if ((low || high) && regex_take(p, "}")) {
        *max = !comma ? *min : high ? *max : REPEAT_NO_MAX;
        return true;
    }
    p->at = from;
    return false;
}

/* *: at a quantifier, which is taken. once: {0, 1} by "?". */
static bool quantifier(regex_parser *p, uint32_t *min, uint32_t *max, bool *is_interval)
{
    *is_interval = false;
    *min = 0;
    *max = REPEAT_NO_MAX;
    if (regex_take(p, "*")) {
        return true;
    }
    if (regex_take(p, "+")) {
        *min = 1;
        return true;
    }
    if (regex_take(p, "?")) {
        *max = 1;
        return true;
    }
    *is_interval = regex_looks_at(p, "{");
    return *is_interval && interval(p, min, max);
}

/* Does a node match nothing, too? Repeated without end, engines differ in what they then prefer. */
static bool may_be_empty(const syntax *s, uint16_t node)
{
    const syntax_node *n = &s->nodes[node];

    switch (n->kind) {
    case NODE_SET:
        return false;
    case NODE_CAT:
        return may_be_empty(s, n->left) && may_be_empty(s, n->right);
    case NODE_ALT:
        return may_be_empty(s, n->left) || may_be_empty(s, n->right);
    case NODE_REPEAT:
        return n->min == 0 || may_be_empty(s, n->left);
    default:
        return true;
    }
}

static moe_status repeated(regex_parser *p, uint16_t *out)
{
    const size_t from = p->at;
    moe_status status = atom(p, out);
    uint32_t min, max;
    bool is_interval;

    while (status == MOE_OK && quantifier(p, &min, &max, &is_interval)) {
        const uint16_t what = *out;
        const bool lazy = !(is_interval && min == max) && regex_take(p, "?");

        if (min > SYNTAX_MAX_REPEAT || (max != REPEAT_NO_MAX && (max > SYNTAX_MAX_REPEAT || max < min))) {
            return regex_refuse(p, from, "this number of repetitions is not supported");
        }
        if (max > 1 && may_be_empty(p->s, what)) {
            return regex_refuse(p, from, "repeating what may be empty is not supported");
        }
        status = node_add(
            p,
            (syntax_node){.kind = NODE_REPEAT, .left = what, .min = (uint16_t)min, .max = (uint16_t)max, .lazy = lazy},
            out);
        if (status == MOE_OK && !is_interval && !lazy && regex_take(p, "+")) {
            status = then_no_more(p, from, what, *out, max == 1, out);
        }
    }
    return status;
}

static moe_status concatenation(regex_parser *p, uint16_t *out)
{
    moe_status status = node_add(p, (syntax_node){.kind = NODE_EMPTY}, out);
    bool empty = true;

    while (status == MOE_OK && p->at < p->n && !regex_looks_at(p, "|") && !regex_looks_at(p, ")")) {
        uint16_t next = 0;

        status = repeated(p, &next);
        if (status == MOE_OK && !empty) {
            status = pair_add(p, NODE_CAT, *out, next, out);
        } else {
            *out = next;
        }
        empty = false;
    }
    return status;
}

/* Up to the ")" of the group, which is taken, or to the end of the pattern at depth 0. */
static moe_status alternatives(regex_parser *p, uint16_t *out)
{
    moe_status status = concatenation(p, out);

    while (status == MOE_OK && regex_take(p, "|")) {
        uint16_t next = 0;

        status = concatenation(p, &next);
        if (status == MOE_OK) {
            status = pair_add(p, NODE_ALT, *out, next, out);
        }
    }
    if (status != MOE_OK) {
        return status;
    }
    if (p->at == p->n ? p->depth > 0 : p->depth == 0) {
        return regex_refuse(p, MOE_MIN(p->at, p->n - 1),
                            p->depth > 0 ? "a group has no end" : "a bracket without a group");
    }
    p->at++;
    return MOE_OK;
}

void syntax_fini(syntax *s)
{
    for (size_t i = 0; i < s->n_sets; i++) {
        charset_fini(&s->sets[i]);
    }
    free(s->nodes);
}

moe_status syntax_parse(const char *pattern, size_t n, syntax *s, moe_error *err)
{
    regex_parser p = {.s = s, .text = pattern, .n = n, .err = err};

    *s = (syntax){0};
    if (n == 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "an empty pattern");
    }
    return alternatives(&p, &s->root);
}
