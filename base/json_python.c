/* JSON as Python's json module writes and reads it, turned into strict JSON before it is parsed. Strings and structure
 * stay as they are, so that line numbers do too. */
#include "base/base.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const words[] = {"NaN", "Infinity", "-Infinity"};

/* Of the string that begins at its quote; the rest of the text if it does not end. */
static size_t string_bytes(const char *text, size_t bytes)
{
    size_t i = 1;

    while (i < bytes && text[i] != '"') {
        i += text[i] == '\\' ? 2 : 1;
    }
    return MOE_MIN(i + 1, bytes);
}

/* NULL when no such word stands here as a value. As a key it is left to the parser, which refuses it. */
static const char *word_at(const char *text, size_t bytes)
{
    for (size_t i = 0; i < MOE_COUNT(words); i++) {
        size_t n = strlen(words[i]);

        if (bytes >= n && memcmp(text, words[i], n) == 0) {
            while (n < bytes && isspace((unsigned char)text[n])) {
                n++;
            }
            return n < bytes && text[n] == ':' ? NULL : words[i];
        }
    }
    return NULL;
}

static void append_word(moe_text *out, const char *word)
{
    moe_text_printf(out, "\"%s\"", word);
}

/* A number that the parser would refuse for its size: an integer beyond 64 bits becomes a real, what is beyond a double
 * is infinite to Python. What is no number at all stays for the parser to refuse. */
static void append_number(moe_text *out, const char *text, size_t n)
{
    size_t at = out->size;
    const char *copy;
    double value;

    moe_text_append(out, text, n);
    if (out->failed) {
        return;
    }
    copy = out->data + at;
    value = strtod(copy, NULL);
    if (isinf(value)) {
        out->size = at;
        append_word(out, value > 0 ? "Infinity" : "-Infinity");
    } else if (strspn(copy, "-0123456789") == n) {
        errno = 0;
        (void)strtoll(copy, NULL, 10);
        if (errno == ERANGE) {
            moe_text_append(out, "e0", 2);
        }
    }
}

static size_t number_bytes(const char *text, size_t bytes)
{
    size_t n = 0;

    while (n < bytes && memchr("+-.0123456789eE", text[n], 15) != NULL) {
        n++;
    }
    return n;
}

static void to_strict(const char *text, size_t bytes, moe_text *out)
{
    for (size_t i = 0; i < bytes && !out->failed;) {
        const char *here = text + i, *word = word_at(here, bytes - i);
        size_t n = 1;

        if (word != NULL) {
            append_word(out, word);
            n = strlen(word);
        } else if (*here == '-' || (*here >= '0' && *here <= '9')) {
            n = number_bytes(here, bytes - i);
            append_number(out, here, n);
        } else {
            n = *here == '"' ? string_bytes(here, bytes - i) : 1;
            moe_text_append(out, here, n);
        }
        i += n;
    }
}

moe_status moe_json_parse_python(const char *text, size_t bytes, size_t max_depth, moe_json **out, moe_error *err)
{
    moe_text strict;
    moe_status status;

    moe_text_init(&strict, 2 * bytes + 16); /* 9e308 grows most, to twice its length */
    to_strict(text, bytes, &strict);
    status = strict.failed ? moe_fail(err, MOE_ERR_NO_MEMORY, "%zu bytes of JSON: out of memory", bytes)
                           : moe_json_parse(moe_text_cstr(&strict), strict.size, max_depth, out, err);
    moe_text_fini(&strict);
    return status;
}
