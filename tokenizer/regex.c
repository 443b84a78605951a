/* Matching with the two tables. Forwards from one place: the end of the match that begins there. Backwards over the
 * whole text: where matches begin. The second is needed only when the first fails late, so that no stretch is tried
 * from each of its places. */
#include "tokenizer/regex_priv.h"
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS_PER_BYTE = 32, STEPS_FREE = 4096, LATE = 8 /* characters looked at in vain */ };

void regex_free(regex *r)
{
    if (!r) {
        return;
    }
    automaton_fini(&r->ends);
    automaton_fini(&r->begins);
    char_classes_fini(&r->classes);
    free(r);
}

moe_status regex_compile(const char *pattern, size_t n, regex **out, moe_error *err)
{
    syntax *s = malloc(sizeof *s);
    regex *r = calloc(1, sizeof *r);
    moe_status status = s && r ? syntax_parse(pattern, n, s, err) : moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");

    if (status == MOE_OK) {
        status = char_classes_build(s, &r->classes, err);
    }
    if (status == MOE_OK) {
        status = automaton_build(s, &r->classes, false, &r->ends, err);
    }
    if (status == MOE_OK) {
        status = automaton_build(s, &r->classes, true, &r->begins, err);
    }
    if (s && r) {
        syntax_fini(s);
    }
    free(s);
    if (status != MOE_OK) {
        regex_free(r);
        return status;
    }
    *out = r;
    return MOE_OK;
}

static size_t class_at(const char_classes *c, const char *text, size_t *length)
{
    int32_t code;

    if ((unsigned char)text[0] < 0x80) {
        *length = 1;
        return c->ascii[(unsigned char)text[0]];
    }
    *length = moe_utf8_get(text, &code);
    return c->of[(size_t)c->pages[code >> 8] * 256 + (size_t)(code & 0xff)];
}

static size_t begin_of_char_before(const char *text, size_t at)
{
    do {
        at--;
    } while (((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

static size_t class_before(const char_classes *c, const char *text, size_t at)
{
    size_t length;

    return at == 0 ? c->n : class_at(c, text + begin_of_char_before(text, at), &length);
}

/* The end of the match that begins at from; SIZE_MAX: none does. */
static size_t match_end(regex_scan *s, size_t from, size_t *n_looked)
{
    const automaton *a = &s->r->ends;
    const char_classes *c = &s->r->classes;
    uint32_t state = a->start[class_before(c, s->text, from)];
    size_t end = SIZE_MAX, at = from, length = 0, n = 0;

    for (;;) {
        const size_t class = at < s->n ? class_at(c, s->text + at, &length) : c->n;
        const uint32_t cell = a->cells[state * a->width + class];

        n++;
        if (cell & AUTOMATON_MATCH) {
            end = at;
        }
        state = cell & ~AUTOMATON_MATCH;
        if (at == s->n || state == AUTOMATON_DEAD) {
            break;
        }
        at += length;
    }
    *n_looked = n;
    s->n_steps += n;
    return end;
}

/* ------------------------------------------------------------------------------------------------ where matches
 * begin */
static moe_status find_begins(regex_scan *s)
{
    const automaton *a = &s->r->begins;
    const char_classes *c = &s->r->classes;
    const size_t words = s->n / 64 + 1;
    uint32_t state = a->start[c->n];

    if (words > s->begins_capacity) {
        free(s->begins);
        s->begins = malloc(words * sizeof *s->begins);
        s->begins_capacity = s->begins ? words : 0;
        if (!s->begins) {
            return MOE_ERR_NO_MEMORY;
        }
    }
    memset(s->begins, 0, words * sizeof *s->begins);
    for (size_t at = s->n;;) {
        const size_t class = class_before(c, s->text, at);
        const uint32_t cell = a->cells[state * a->width + class];

        s->n_steps++;
        if (cell & AUTOMATON_MATCH) {
            s->begins[at / 64] |= (uint64_t)1 << at % 64;
        }
        if (at == 0) {
            break;
        }
        state = cell & ~AUTOMATON_MATCH;
        at = begin_of_char_before(s->text, at);
    }
    s->begins_known = true;
    return MOE_OK;
}

/* The first marked byte at or after from; beyond the text if there is none. */
static size_t begin_after(const regex_scan *s, size_t from)
{
    for (size_t word = from / 64; word <= s->n / 64; word++) {
        uint64_t bits = s->begins[word];

        if (word == from / 64) {
            bits &= ~(uint64_t)0 << from % 64;
        }
        if (bits) {
            return word * 64 + (size_t)__builtin_ctzll(bits);
        }
    }
    return s->n + 1;
}

/* The leftmost match at or after from. */
static moe_status search(regex_scan *s, size_t from, size_t *begin_out, size_t *end_out)
{
    size_t looked, length = 1;

    for (size_t at = from; at <= s->n;) {
        if (s->begins_known && (at = begin_after(s, at)) > s->n) {
            break;
        }
        if (s->n_steps > (uint64_t)STEPS_PER_BYTE * s->n + STEPS_FREE) {
            return MOE_ERR_UNSUPPORTED;
        }
        *end_out = match_end(s, at, &looked);
        if (*end_out != SIZE_MAX) {
            *begin_out = at;
            return MOE_OK;
        }
        if (looked > LATE && !s->begins_known) {
            const moe_status status = find_begins(s);

            if (status != MOE_OK) {
                return status;
            }
        }
        if (at < s->n) { /* else at + 1 ends the loop */
            (void)class_at(&s->r->classes, s->text + at, &length);
        }
        at += length;
    }
    return MOE_ERR_NOT_FOUND;
}

void regex_scan_start(regex_scan *s, const regex *r, const char *text, size_t n)
{
    s->r = r;
    s->text = text;
    s->n = n;
    s->next = 0;
    s->last_end = SIZE_MAX;
    s->begins_known = false;
    s->n_steps = 0;
}

/* An empty match right behind the last one is passed over. */
moe_status regex_scan_next(regex_scan *s, size_t *begin_out, size_t *end_out)
{
    moe_status status = MOE_ERR_NOT_FOUND;

    while (s->next <= s->n && (status = search(s, s->next, begin_out, end_out)) == MOE_OK) {
        if (*begin_out == *end_out && *end_out == s->last_end) {
            int32_t c;

            s->next += s->next < s->n ? moe_utf8_get(s->text + s->next, &c) : 1;
            continue;
        }
        s->next = s->last_end = *end_out;
        return MOE_OK;
    }
    return status == MOE_OK ? MOE_ERR_NOT_FOUND : status;
}

void regex_scan_fini(regex_scan *s)
{
    free(s->begins);
    *s = (regex_scan){0};
}
