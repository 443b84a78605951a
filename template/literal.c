/* Literals of the template: Python's string escapes, and numbers. */
#include "template/template_priv.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct unescape {
    const char *source;
    size_t n, at;
    char *out;
    size_t n_out;
} unescape;

static int digit_of(char c, int base)
{
    int digit = -1;

    if (c >= '0' && c <= '9') {
        digit = c - '0';
    } else if (c >= 'a' && c <= 'f') {
        digit = c - 'a' + 10;
    } else if (c >= 'A' && c <= 'F') {
        digit = c - 'A' + 10;
    }
    return digit < base ? digit : -1;
}

/* At most n_max digits; their count is *n_out. */
static uint32_t take_digits(unescape *u, int base, size_t n_max, size_t *n_out)
{
    uint32_t number = 0;

    for (*n_out = 0; *n_out < n_max && u->at < u->n; *n_out += 1) {
        const int digit = digit_of(u->source[u->at], base);

        if (digit < 0) {
            break;
        }
        number = number * (uint32_t)base + (uint32_t)digit;
        u->at++;
    }
    return number;
}

static bool put_char(unescape *u, uint32_t c)
{
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        return false;
    }
    u->n_out += char_put((int32_t)c, u->out + u->n_out);
    return true;
}

/* Python escapes a character beyond ASCII before it looks for backslashes: one before it stands for itself, and the
 * escape is text. */
static void put_escaped(unescape *u)
{
    int32_t c;

    u->at += moe_utf8_get(u->source + u->at, &c);
    u->n_out += (size_t)sprintf(u->out + u->n_out,
                                c < 0x100     ? "\\x%02x"
                                : c < 0x10000 ? "\\u%04x"
                                              : "\\U%08x",
                                (unsigned)c);
}

/* Behind a backslash. */
static bool take_escape(unescape *u)
{
    static const char simple[] = "\\'\"abfnrtv", values[] = "\\'\"\a\b\f\n\r\t\v";
    const char c = u->source[u->at];
    const char *found = strchr(simple, c);
    const size_t wanted = c == 'x' ? 2 : c == 'u' ? 4 : 8;
    size_t n;
    uint32_t number;

    if ((unsigned char)c >= 0x80) {
        put_escaped(u);
        return true;
    }
    if (c == '\0' || (!found && !strchr("xuU01234567\n", c))) {
        u->out[u->n_out++] = '\\';
        u->out[u->n_out++] = c;
        u->at++;
        return c != 'N';
    }
    if (digit_of(c, 8) >= 0) {
        number = take_digits(u, 8, 3, &n);
        return put_char(u, number);
    }
    u->at++;
    if (c == '\n') {
        return true;
    }
    if (found) {
        u->out[u->n_out++] = values[found - simple];
        return true;
    }
    number = take_digits(u, 16, wanted, &n);
    return n == wanted && put_char(u, number);
}

bool literal_text(parser *p, token *t, const char *source, size_t n)
{
    unescape u = {.source = source, .n = n, .out = parser_take(p, n * 5 + 1)}; /* an é behind a backslash: 4 for 3 */

    if (!u.out) {
        return false;
    }
    while (u.at < n) {
        if (source[u.at] != '\\') {
            u.out[u.n_out++] = source[u.at++];
            continue;
        }
        u.at++;
        if (!take_escape(&u)) {
            parser_fail(p, MOE_ERR_CORRUPT, t->line, "a string with an escape that is none, or gives half a character");
            return false;
        }
    }
    t->data = u.out;
    t->n = u.n_out;
    return true;
}

/* ------------------------------------------------------------------------------------------------ numbers */
/* Digits, an underscore between two of them allowed, without it to out; the length read, 0: no digit. */
static size_t copy_digits(const char *source, size_t n, int base, char *out, size_t *n_out, size_t room)
{
    size_t at = 0;

    while (at < n) {
        const bool bar = source[at] == '_' && at > 0 && at + 1 < n;

        if (digit_of(source[at + bar], base) < 0) {
            break;
        }
        if (*n_out + 1 < room) {
            out[(*n_out)++] = source[at + bar];
        }
        at += 1 + (size_t)bar;
    }
    return at;
}

static size_t integer(parser *p, token *t, const char *source, size_t n)
{
    const char kind = n > 1 && source[0] == '0' ? (char)(source[1] | 0x20) : '\0';
    const int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    char digits[80];
    size_t n_digits = 0, length = 0, skip = base == 10 ? 0 : 2;
    uint64_t number = 0;

    if (base != 10 && skip < n && source[skip] == '_') {
        skip++;
    }
    length = copy_digits(source + skip, n - skip, base, digits, &n_digits, sizeof digits);
    for (size_t i = 0; i < n_digits && number <= INT64_MAX; i++) {
        const uint64_t next = number * (uint64_t)base + (uint64_t)digit_of(digits[i], base);

        number = number > (uint64_t)INT64_MAX / (uint64_t)base ? UINT64_MAX : next;
    }
    if (length == 0 || number > INT64_MAX || (base == 10 && source[0] == '0' && number > 0)) {
        parser_fail(p, MOE_ERR_CORRUPT, t->line,
                    length == 0 ? "a number without digits" : "an integer beyond 64 bits, or with a zero before it");
        return 0;
    }
    t->type = T_INT;
    t->i = (int64_t)number;
    return skip + length;
}

size_t literal_number(parser *p, token *t, const char *source, size_t n, bool after_dot)
{
    char digits[128];
    size_t n_digits = 0, part, at = copy_digits(source, n, 10, digits, &n_digits, 40);
    bool is_float = false;

    if (after_dot) {
        return integer(p, t, source, n);
    }
    if (at + 1 < n && source[at] == '.' && digit_of(source[at + 1], 10) >= 0) {
        digits[n_digits++] = '.';
        at += 1 + copy_digits(source + at + 1, n - at - 1, 10, digits, &n_digits, 80);
        is_float = true;
    }
    if (at < n && (source[at] | 0x20) == 'e') {
        const size_t sign = at + 1 < n && (source[at + 1] == '-' || source[at + 1] == '+');
        const size_t mark = n_digits;

        digits[n_digits++] = 'e';
        if (sign) {
            digits[n_digits++] = source[at + 1];
        }
        part = copy_digits(source + at + 1 + sign, n - at - 1 - sign, 10, digits, &n_digits, 100);
        n_digits = part > 0 ? n_digits : mark;
        at += part > 0 ? 1 + sign + part : 0;
        is_float |= part > 0;
    }
    if (!is_float) {
        return integer(p, t, source, n);
    }
    digits[n_digits] = '\0';
    t->type = T_FLOAT;
    t->f = strtod(digits, NULL);
    return at;
}
