/* Source -> tokens, with the white space around tags removed as Jinja does it with trim_blocks and lstrip_blocks. */
#include "template/template_priv.h"

#include <stdio.h>

typedef struct lexer {
    parser *p;
    const char *source; /* line ends are \n, one at the end is gone */
    size_t n, at;
    uint32_t line;
    bool line_start; /* the match before ended in a line feed, or the source begins */
} lexer;

void parser_fail(parser *p, moe_status status, uint32_t line, const char *format, ...)
{
    char reason[256];
    va_list list;

    if (p->status != MOE_OK) {
        return;
    }
    va_start(list, format);
    (void)vsnprintf(reason, sizeof reason, format, list);
    va_end(list);
    p->status = moe_fail(p->err, status, "line %u: %s", line, reason);
}

static void *or_fail(parser *p, void *taken)
{
    if (!taken && p->status == MOE_OK) {
        p->status = moe_fail(p->err, MOE_ERR_NO_MEMORY, "no memory for the template");
    }
    return taken;
}

void *parser_take(parser *p, size_t bytes)
{
    return or_fail(p, arena_take(&p->t->arena, bytes));
}

void *parser_grow(parser *p, void *items, size_t n, size_t item_bytes, size_t first, size_t *capacity)
{
    return or_fail(p, arena_grow(&p->t->arena, items, n, item_bytes, first, capacity));
}

static token *add_token(lexer *l, token_type type, const char *data, size_t n)
{
    parser *p = l->p;
    token *tokens = parser_grow(p, p->tokens, p->n_tokens, sizeof *tokens, 256, &p->capacity);

    if (!tokens) {
        return NULL;
    }
    p->tokens = tokens;
    p->tokens[p->n_tokens] = (token){.type = type, .line = l->line, .data = data, .n = n};
    return &p->tokens[p->n_tokens++];
}

static bool looking_at(const lexer *l, size_t at, const char *what)
{
    const size_t n = strlen(what);

    return l->n - at >= n && memcmp(l->source + at, what, n) == 0;
}

static void count_lines(lexer *l, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        l->line += l->source[i] == '\n';
    }
}

static void go_to(lexer *l, size_t to)
{
    count_lines(l, l->at, to);
    l->line_start = to > l->at ? l->source[to - 1] == '\n' : l->line_start;
    l->at = to;
}

static size_t skip_spaces(const lexer *l, size_t at)
{
    int32_t c;

    while (at < l->n) {
        const size_t length = moe_utf8_get(l->source + at, &c);

        if (!char_is_space(c)) {
            break;
        }
        at += length;
    }
    return at;
}

/* ------------------------------------------------------------------------------------------------ text between tags */
static size_t trimmed_end(const lexer *l, size_t begin, size_t end)
{
    const text t = {.data = l->source + begin, .n = end - begin};
    size_t left = t.n;
    int32_t c;

    while (left > 0) {
        const size_t length = text_before(&t, left, &c);

        if (!char_is_space(c)) {
            break;
        }
        left -= length;
    }
    return begin + left;
}

/* The text in front of a tag without the white space that the tag removes; sign: the - or + behind its brace. */
static void add_data(lexer *l, size_t begin, size_t end, char sign, bool is_print)
{
    size_t last = end;

    if (sign == '-') {
        last = trimmed_end(l, begin, end);
    } else if (sign != '+' && !is_print) {
        size_t line = end;

        while (line > begin && l->source[line - 1] != '\n') {
            line--;
        }
        if ((line > begin || l->line_start) && line < end && skip_spaces(l, line) >= end) {
            last = line;
        }
    }
    if (last > begin) {
        (void)add_token(l, T_DATA, l->source + begin, last - begin);
    }
}

/* Behind the end of a tag at `at`: "-%}" takes the white space with it, "%}" a line feed. 0: no end is there. */
static size_t tag_end(const lexer *l, size_t at, const char *close, bool trims_line)
{
    const size_t n = strlen(close);

    if (at < l->n && l->source[at] == '-' && looking_at(l, at + 1, close)) {
        return skip_spaces(l, at + 1 + n);
    }
    if (at < l->n && l->source[at] == '+' && trims_line && looking_at(l, at + 1, close)) {
        return at + 1 + n;
    }
    if (!looking_at(l, at, close)) {
        return 0;
    }
    at += n;
    return trims_line && at < l->n && l->source[at] == '\n' ? at + 1 : at;
}

static size_t find_tag(const lexer *l, size_t from)
{
    for (size_t at = from; at + 1 < l->n; at++) {
        if (l->source[at] == '{' && strchr("{%#", l->source[at + 1]) && l->source[at + 1] != '\0') {
            return at;
        }
    }
    return l->n;
}

static char sign_at(const lexer *l, size_t at)
{
    return at < l->n && (l->source[at] == '-' || l->source[at] == '+') ? l->source[at] : '\0';
}

static void skip_comment(lexer *l, size_t from)
{
    if (from == l->n) {
        go_to(l, from);
        return; /* Jinja does not mind */
    }
    for (size_t at = from; at < l->n; at++) {
        const size_t end = tag_end(l, at, "#}", true);

        if (end > 0) {
            go_to(l, end);
            return;
        }
    }
    parser_fail(l->p, MOE_ERR_CORRUPT, l->line, "missing end of comment tag");
}

/* Is a {% word %} at `at`? Its end, or 0; *sign_out as of its begin. */
static size_t word_tag(const lexer *l, size_t at, const char *word, bool trims_line, char *sign_out)
{
    if (!looking_at(l, at, "{%")) {
        return 0;
    }
    *sign_out = sign_at(l, at + 2);
    at = skip_spaces(l, at + 2 + (*sign_out != '\0'));
    if (!looking_at(l, at, word)) {
        return 0;
    }
    at = skip_spaces(l, at + strlen(word));
    if (trims_line) {
        return tag_end(l, at, "%}", true);
    }
    return looking_at(l, at, "-%}") || looking_at(l, at, "%}") ? tag_end(l, at, "%}", false) : 0;
}

static void raw_block(lexer *l, size_t body)
{
    char sign;

    go_to(l, body);
    if (body == l->n) {
        return; /* Jinja does not mind */
    }
    for (size_t at = body; at < l->n; at++) {
        const size_t end = word_tag(l, at, "endraw", true, &sign);

        if (end > 0) {
            add_data(l, body, at, sign, false);
            go_to(l, end);
            return;
        }
    }
    parser_fail(l->p, MOE_ERR_CORRUPT, l->line, "missing end of raw directive");
}

/* ------------------------------------------------------------------------------------------------ inside of tags */
static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static const char *operator_at(const lexer *l)
{
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                            "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

    for (size_t i = 0; i < MOE_COUNT(operators); i++) {
        if (looking_at(l, l->at, operators[i])) {
            return operators[i];
        }
    }
    return NULL;
}

static void lex_string(lexer *l)
{
    const char quote = l->source[l->at];
    token *t;

    for (size_t at = l->at + 1; at < l->n; at++) {
        if (l->source[at] == '\\') {
            at++;
        } else if (l->source[at] == quote) {
            t = add_token(l, T_STRING, NULL, 0);
            if (t && literal_text(l->p, t, l->source + l->at + 1, at - l->at - 1)) {
                go_to(l, at + 1);
            }
            return;
        }
    }
    parser_fail(l->p, MOE_ERR_CORRUPT, l->line, "a string without its end");
}

static void lex_name(lexer *l)
{
    size_t end = l->at;
    const char *name;

    while (end < l->n && is_name_char(l->source[end])) {
        end++;
    }
    name = parser_intern(l->p, l->source + l->at, end - l->at);
    if (name) {
        (void)add_token(l, T_NAME, name, end - l->at);
    }
    go_to(l, end);
}

static void lex_operator(lexer *l, size_t *open)
{
    const char *op = operator_at(l);
    int32_t c;

    if (!op) {
        (void)moe_utf8_get(l->source + l->at, &c);
        parser_fail(l->p, MOE_ERR_CORRUPT, l->line, "unexpected character U+%04X", (unsigned)c);
        return;
    }
    if (strchr("([{", op[0])) {
        *open += 1;
    } else if (strchr(")]}", op[0])) {
        if (*open == 0) {
            parser_fail(l->p, MOE_ERR_CORRUPT, l->line, "unexpected '%s'", op);
            return;
        }
        *open -= 1;
    }
    (void)add_token(l, T_OPERATOR, op, strlen(op));
    go_to(l, l->at + strlen(op));
}

static void lex_one(lexer *l, size_t *open)
{
    const char c = l->source[l->at];
    const size_t behind_spaces = skip_spaces(l, l->at);

    if (behind_spaces > l->at) {
        go_to(l, behind_spaces);
    } else if (c >= '0' && c <= '9') {
        token *t = add_token(l, T_INT, NULL, 0);
        const bool after_dot = l->source[l->at - 1] == '.';

        if (t) {
            go_to(l, l->at + literal_number(l->p, t, l->source + l->at, l->n - l->at, after_dot));
        }
    } else if (is_name_char(c)) {
        lex_name(l);
    } else if (c == '\'' || c == '"') {
        lex_string(l);
    } else {
        lex_operator(l, open);
    }
}

/* {{ ... }} or {% ... %} */
static void lex_tag(lexer *l, bool is_print)
{
    const char *close = is_print ? "}}" : "%}";
    size_t open = 0; /* brackets: within them an end is none */

    (void)add_token(l, is_print ? T_PRINT_BEGIN : T_BLOCK_BEGIN, NULL, 0);
    while (l->p->status == MOE_OK && l->at < l->n) {
        const size_t end = open == 0 ? tag_end(l, l->at, close, !is_print) : 0;

        if (end > 0) {
            (void)add_token(l, is_print ? T_PRINT_END : T_BLOCK_END, NULL, 0);
            go_to(l, end);
            return;
        }
        lex_one(l, &open);
    }
}

static void lex_source(lexer *l)
{
    while (l->at < l->n && l->p->status == MOE_OK) {
        const size_t tag = find_tag(l, l->at);
        char sign = '\0';
        size_t raw;

        if (tag == l->n) {
            (void)add_token(l, T_DATA, l->source + l->at, l->n - l->at);
            go_to(l, l->n);
            break;
        }
        raw = word_tag(l, tag, "raw", false, &sign);
        sign = sign_at(l, tag + 2);
        add_data(l, l->at, tag, sign, l->source[tag + 1] == '{');
        go_to(l, tag);
        if (raw > 0) {
            raw_block(l, raw);
        } else if (l->source[tag + 1] == '#') {
            skip_comment(l, tag + 2 + (sign != '\0'));
        } else {
            const bool is_print = l->source[tag + 1] == '{';

            go_to(l, tag + 2 + (sign != '\0'));
            lex_tag(l, is_print);
        }
    }
    (void)add_token(l, T_END, NULL, 0);
}

moe_status lexer_run(parser *p, const char *source, size_t n)
{
    char *copy = parser_take(p, n + 1);
    lexer l = {.p = p, .source = copy, .line = 1, .line_start = true};

    if (!copy) {
        return p->status;
    }
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r') {
            i += i + 1 < n && source[i + 1] == '\n';
            copy[l.n++] = '\n';
        } else {
            copy[l.n++] = source[i];
        }
    }
    l.n -= l.n > 0 && copy[l.n - 1] == '\n';
    copy[l.n] = '\0';
    lex_source(&l);
    return p->status;
}
