/* Sets of characters in an expression: escapes, properties, [classes]. */
#include "tokenizer/regex_parse_priv.h"
#include "tokenizer/tokenizer_priv.h"

#include <string.h>

static charset set_of_property(const char *name)
{
    charset set = {0};

    MOE_ASSERT(charset_add_property(&set, name, strlen(name)));
    charset_seal(&set);
    return set;
}

/* Oniguruma asks an old table below U+0100, and there fractions and superscripts are words; inside of [ ] it does
 * not. */
charset set_of_words(bool in_class)
{
    charset set = set_of_property("word");

    if (!in_class) {
        charset_add(&set, 0xb2, 0xb3);
        charset_add(&set, 0xb9, 0xb9);
        charset_add(&set, 0xbc, 0xbe);
        charset_seal(&set);
    }
    return set;
}

/* ------------------------------------------------------------------------------------------------ escapes */
static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static moe_status hex_char(regex_parser *p, size_t from, size_t min, size_t max, int32_t *out)
{
    size_t n = 0;

    *out = 0;
    while (n < max && p->at < p->n && hex_value(p->text[p->at]) >= 0) {
        *out = *out * 16 + hex_value(p->text[p->at++]);
        n++;
    }
    return n < min || *out > CHAR_LAST ? regex_refuse(p, from, "not the number of a character") : MOE_OK;
}

/* Adds one, or all that is not in it, to the set, and ends it. */
static void add_and_end(charset *set, charset *one, bool inverted)
{
    charset_seal(one);
    if (inverted) {
        charset_invert(one);
    }
    charset_add_set(set, one);
    charset_fini(one);
}

/* Behind "\p" or "\P". */
static moe_status property(regex_parser *p, size_t from, bool inverted, charset *set)
{
    const char *end = p->at < p->n && p->text[p->at] == '{' ? memchr(p->text + p->at, '}', p->n - p->at) : NULL;
    charset one = {0};
    size_t n;

    if (!end) {
        return regex_refuse(p, from, "a property is written \\p{Name}");
    }
    p->at++;
    if (regex_take(p, "^")) {
        inverted = !inverted;
    }
    n = (size_t)(end - p->text) - p->at;
    if (!charset_add_property(&one, p->text + p->at, n)) {
        charset_fini(&one);
        return regex_refuse(p, from, "this property is not supported");
    }
    p->at += n + 1;
    add_and_end(set, &one, inverted);
    return MOE_OK;
}

static void shorthand(char c, bool in_class, charset *set)
{
    charset one = c == 'w' || c == 'W'   ? set_of_words(in_class)
                  : c == 'd' || c == 'D' ? set_of_property("digit")
                  : c == 's' || c == 'S' ? set_of_property("space")
                                         : set_of_property("xdigit");

    if (c == 'D' || c == 'S' || c == 'W' || c == 'H') {
        charset_invert(&one);
    }
    charset_add_set(set, &one);
    charset_fini(&one);
}

moe_status regex_escape(regex_parser *p, bool in_class, charset *set, bool *single_out, int32_t *c_out)
{
    static const char controls[] = "r\rn\nt\tf\fv\va\a";
    const size_t from = p->at;
    const char c = p->at + 1 < p->n ? p->text[p->at + 1] : '\0';
    const char *control = c && c != '\\' ? strchr(controls, c) : NULL;

    if (c == '\0') {
        return regex_refuse(p, from, "nothing behind the backslash");
    }
    *single_out = true;
    if ((unsigned char)c >= 0x80) {
        p->at += 1 + moe_utf8_get(p->text + p->at + 1, c_out);
        return MOE_OK;
    }
    p->at += 2;
    if (strchr("pPdDsSwWhH", c)) {
        *single_out = false;
        if (c == 'p' || c == 'P') {
            return property(p, from, c == 'P', set);
        }
        shorthand(c, in_class, set);
        return MOE_OK;
    }
    if (c == 'x' && regex_take(p, "{")) {
        const moe_status status = hex_char(p, from, 1, 6, c_out);

        return status == MOE_OK && !regex_take(p, "}") ? regex_refuse(p, from, "not the number of a character")
                                                       : status;
    }
    if (c == 'x' || c == 'u') {
        return hex_char(p, from, c == 'x' ? 1 : 4, c == 'x' ? 2 : 4, c_out);
    }
    if (control && (control - controls) % 2 == 0) {
        *c_out = control[1];
        return MOE_OK;
    }
    if (c == 'e' || (c == '0' && !(p->at < p->n && p->text[p->at] >= '0' && p->text[p->at] <= '7'))) {
        *c_out = c == 'e' ? 0x1b : 0;
        return MOE_OK;
    }
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        return regex_refuse(p, from, "this escape is not supported");
    }
    *c_out = c;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ [classes] */
/* [:name:] inside of a class, at the "[:". */
static moe_status posix_class(regex_parser *p, charset *set)
{
    static const char *const known[] = {"space", "digit", "punct", "word", "xdigit", "cntrl", "ascii"};
    const size_t from = p->at;
    bool inverted;
    charset one = {0};

    p->at += 2;
    inverted = regex_take(p, "^");
    for (size_t i = 0; i < MOE_COUNT(known); i++) {
        const size_t n = strlen(known[i]);

        if (regex_looks_at(p, known[i]) && p->n - p->at >= n + 2 && memcmp(p->text + p->at + n, ":]", 2) == 0) {
            p->at += n + 2;
            (void)charset_add_property(&one, known[i], n);
            if (strcmp(known[i], "punct") == 0) { /* here it has the symbols too */
                (void)charset_add_property(&one, "symbol", 6);
            }
            add_and_end(set, &one, inverted);
            return MOE_OK;
        }
    }
    return regex_refuse(p, from, "this class is not supported");
}

/* One character of a class, or a set. */
static moe_status class_item(regex_parser *p, charset *set, bool *single_out, int32_t *c_out)
{
    charset inner = {0};
    moe_status status;

    *single_out = false;
    if (regex_looks_at(p, "[:")) {
        return posix_class(p, set);
    }
    if (regex_looks_at(p, "[")) {
        status = regex_class(p, &inner);
        charset_add_set(set, &inner);
        charset_fini(&inner);
        return status;
    }
    if (regex_looks_at(p, "\\")) {
        return regex_escape(p, true, set, single_out, c_out);
    }
    *single_out = true;
    p->at += moe_utf8_get(p->text + p->at, c_out);
    return MOE_OK;
}

/* Items up to "]" or "&&". */
static moe_status class_items(regex_parser *p, size_t from, charset *set)
{
    moe_status status = MOE_OK;
    bool first = true, single;

    for (; status == MOE_OK; first = false) {
        const size_t item = p->at;
        int32_t low, high;

        if (p->at == p->n) {
            return regex_refuse(p, from, "the class has no end");
        }
        if ((regex_looks_at(p, "]") && !first) || regex_looks_at(p, "&&")) {
            return MOE_OK;
        }
        status = class_item(p, set, &single, &low);
        high = low;
        if (status == MOE_OK && single && regex_looks_at(p, "-") && !regex_looks_at(p, "-]")) {
            p->at++;
            if (p->at == p->n) {
                return regex_refuse(p, from, "the class has no end");
            }
            status = class_item(p, set, &single, &high);
            if (status == MOE_OK && (!single || high < low)) {
                return regex_refuse(p, item, "not a range");
            }
        }
        if (status == MOE_OK && single) {
            charset_add(set, low, high);
        }
    }
    return status;
}

moe_status regex_class(regex_parser *p, charset *out)
{
    const size_t from = p->at++;
    const bool inverted = regex_take(p, "^");
    moe_status status = MOE_OK;

    p->class_depth++;
    if (++p->depth > SYNTAX_MAX_DEPTH) {
        return regex_refuse(p, from, "nested too deeply");
    }
    for (bool whole = true; status == MOE_OK; whole = false) {
        charset part = {0};

        status = class_items(p, from, &part);
        charset_seal(&part);
        if (whole) {
            *out = part;
        } else {
            charset_intersect(out, &part);
            charset_fini(&part);
        }
        if (status == MOE_OK && !regex_take(p, "&&")) {
            p->at++;
            break;
        }
    }
    p->depth--;
    p->class_depth--;
    if (status == MOE_OK && p->ignore_case && p->class_depth == 0) {
        charset_close_case(out);
    }
    if (status == MOE_OK && inverted) {
        charset_invert(out);
    }
    return status;
}
