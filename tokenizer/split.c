/* Pre-tokenizers: where pieces end. The GPT-2 expression is scanned by hand (models' files name it only by use_regex).
 */
#include "tokenizer/tokenizer_priv.h"

#include <string.h>

static char_class class_at(const char *text, size_t at, size_t *length)
{
    int32_t c;

    *length = utf8_get(text + at, &c);
    if (c < 0x80) {
        const int32_t lower = c | 0x20;

        return lower >= 'a' && lower <= 'z'           ? CLASS_LETTER
               : c >= '0' && c <= '9'                 ? CLASS_NUMBER
               : c == ' ' || (c >= 0x09 && c <= 0x0d) ? CLASS_SPACE
                                                      : CLASS_OTHER;
    }
    return char_classify(c);
}

/* 's 't 'm 'd 're 've 'll; 0: none. */
static size_t contraction(const char *text, size_t left)
{
    static const char *const endings[] = {"s", "t", "m", "d", "re", "ve", "ll"};

    if (text[0] != '\'') {
        return 0;
    }
    for (size_t i = 0; i < MOE_COUNT(endings); i++) {
        const size_t n = strlen(endings[i]);

        if (n < left && memcmp(text + 1, endings[i], n) == 0) {
            return n + 1;
        }
    }
    return 0;
}

/* Takes white space up to the end of the text, or up to its last character, which the next word may want. */
static size_t white_space(const char *text, size_t n, size_t from)
{
    size_t at = from, last = from, length;

    while (at < n && class_at(text, at, &length) == CLASS_SPACE) {
        last = at;
        at += length;
    }
    return at == n || last == from ? at : last;
}

size_t split_next(const char *text, size_t n, size_t from)
{
    size_t at = from, length;
    const size_t short_form = contraction(text + from, n - from);
    char_class class;

    if (short_form) {
        return from + short_form;
    }
    class = class_at(text, at, &length);
    if (text[at] == ' ' && at + 1 < n) {
        class = class_at(text, at + 1, &length);
        at += class != CLASS_SPACE;
    }
    if (class == CLASS_SPACE) {
        return white_space(text, n, from);
    }
    for (char_class next = class; next == class; next = at < n ? class_at(text, at, &length) : CLASS_SPACE) {
        at += length;
    }
    return at;
}

size_t split_next_mark(const pre_tokenizer *pre, const char *text, size_t n, size_t from)
{
    const char *mark = n - from > 1 ? text_find(text + from + 1, n - from - 1, pre->mark, pre->n_mark) : NULL;

    return mark ? (size_t)(mark - text) : n;
}
