#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

size_t utf8_put(int32_t c, char out[4])
{
    return (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)out);
}

/* Table 3-7 of the Unicode standard: what may follow the first byte depends on it in four cases. */
utf8_head utf8_look(const unsigned char *bytes, size_t n, size_t *length)
{
    const unsigned char b = bytes[0];
    const size_t want = b < 0x80 ? 1 : b < 0xc2 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf5 ? 4 : 0;
    unsigned char low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80, high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;

    for (size_t i = 1; i < want; i++, low = 0x80, high = 0xbf) {
        *length = i;
        if (i == n) {
            return UTF8_PARTIAL;
        }
        if (bytes[i] < low || bytes[i] > high) {
            return UTF8_INVALID;
        }
    }
    *length = want ? want : 1;
    return want ? UTF8_VALID : UTF8_INVALID;
}

static bool is_white_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

char_class char_classify(int32_t c)
{
    if (is_white_space(c)) {
        return CLASS_SPACE;
    }
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return CLASS_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return CLASS_NUMBER;
    default:
        return CLASS_OTHER;
    }
}

/* utf8proc has no Other_Alphabetic; beyond marks these are the circled and squared letters. */
bool char_is_word(int32_t c)
{
    if ((c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
        (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c || c == 0x200d) {
        return true;
    }
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
        return true;
    case UTF8PROC_CATEGORY_NO:
        return false;
    default:
        return char_classify(c) == CLASS_LETTER || char_classify(c) == CLASS_NUMBER;
    }
}

int32_t byte_to_char(unsigned char byte)
{
    if (byte <= 0x20) {
        return 0x100 + byte;
    }
    if (byte >= 0x7f && byte <= 0xa0) {
        return 0x121 + (byte - 0x7f);
    }
    return byte == 0xad ? 0x143 : byte;
}

int char_to_byte(int32_t c)
{
    if (c >= 0x100) {
        return c <= 0x120 ? c - 0x100 : c <= 0x142 ? c - 0x121 + 0x7f : c == 0x143 ? 0xad : -1;
    }
    return c <= 0x20 || (c >= 0x7f && c <= 0xa0) || c == 0xad ? -1 : c;
}

/* ------------------------------------------------------------------------------------------------ normal forms
 * utf8proc's own normalising call sorts combining marks by bubbling, quadratic in a run of them that a user may make as
 * long as the text. So: its decomposition, our ordering, its composition. */
enum { MAX_DECOMPOSED = 18, SHORT_RUN = 16 };

bool normal_is_trivial(const char *text, size_t n, normal_form form)
{
    const unsigned char first = form == FORM_NFC ? 0xcc : 0x80; /* 0xcc: first byte of U+0300 and above */

    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] >= first) {
            return false;
        }
    }
    return true;
}

static int combining_class(int32_t c)
{
    return (int)utf8proc_get_property(c)->combining_class;
}

static void sort_short_run(int32_t *run, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const int32_t c = run[i];
        const int order = combining_class(c);
        size_t at = i;

        for (; at > 0 && combining_class(run[at - 1]) > order; at--) {
            run[at] = run[at - 1];
        }
        run[at] = c;
    }
}

static void sort_long_run(int32_t *run, size_t n, int32_t *scratch)
{
    size_t start[257] = {0};

    for (size_t i = 0; i < n; i++) {
        start[combining_class(run[i]) + 1]++;
    }
    for (size_t i = 1; i < 257; i++) {
        start[i] += start[i - 1];
    }
    for (size_t i = 0; i < n; i++) {
        scratch[start[combining_class(run[i])]++] = run[i];
    }
    memcpy(run, scratch, n * sizeof *run);
}

static void sort_marks(int32_t *chars, size_t n, int32_t *scratch)
{
    for (size_t i = 0; i < n; i++) {
        size_t end = i;

        while (end < n && combining_class(chars[end]) != 0) {
            end++;
        }
        if (end - i > SHORT_RUN) {
            sort_long_run(chars + i, end - i, scratch);
        } else {
            sort_short_run(chars + i, end - i);
        }
        i = end;
    }
}

static size_t decompose(const char *text, size_t n, bool compatible, int32_t *chars)
{
    const utf8proc_option_t how = (utf8proc_option_t)(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
    size_t n_chars = 0;

    for (size_t i = 0; i < n;) {
        int32_t c;
        int boundary = UTF8PROC_BOUNDCLASS_START;

        i += moe_utf8_get(text + i, &c);
        n_chars += (size_t)utf8proc_decompose_char(c, chars + n_chars, MAX_DECOMPOSED, how, &boundary);
    }
    return n_chars;
}

/* utf8proc loses U+11A7 behind a Hangul syllable without final: the index of that final would be 0. It composes with
 * nothing, so what stands before and behind it is composed apart. */
static size_t compose(int32_t *chars, size_t n)
{
    enum { NO_FINAL = 0x11a7 };
    size_t used = 0;

    for (size_t i = 0, end; i < n; i = end) {
        if (chars[i] == NO_FINAL) {
            chars[used++] = NO_FINAL;
            end = i + 1;
            continue;
        }
        for (end = i + 1; end < n && chars[end] != NO_FINAL; end++) {
        }
        memmove(chars + used, chars + i, (end - i) * sizeof *chars);
        used += (size_t)utf8proc_normalize_utf32(chars + used, (utf8proc_ssize_t)(end - i),
                                                 UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    }
    return used;
}

/* One stretch that composes with nothing outside it. */
static moe_status normal_stretch(const char *text, size_t n, normal_form form, moe_text *out)
{
    const bool compatible = form == FORM_NFKC || form == FORM_NFKD;
    /* Canonical decompositions have at most 4 code points, 2 per byte of the character; compatible ones 18, 6 per
     * byte. */
    const size_t room = n * (compatible ? 6 : 2) + MAX_DECOMPOSED;
    int32_t *chars = malloc(room * 2 * sizeof *chars);
    size_t n_chars;

    if (!chars) {
        return MOE_ERR_NO_MEMORY;
    }
    n_chars = decompose(text, n, compatible, chars);
    sort_marks(chars, n_chars, chars + room);
    if (form == FORM_NFC || form == FORM_NFKC) {
        n_chars = compose(chars, n_chars);
    }
    for (size_t i = 0; i < n_chars; i++) {
        char utf8[4];

        moe_text_append(out, utf8, utf8_put(chars[i], utf8));
    }
    free(chars);
    return MOE_OK;
}

/* Whether text may be cut in front of this byte: it begins a character below U+0300 or an ideograph, and those compose
 * with nothing before them. */
static bool is_cut(unsigned char byte)
{
    return byte < 0x80 || (byte >= 0xc2 && byte < 0xcc) || (byte >= 0xe4 && byte <= 0xe9);
}

moe_status normal_append(const char *text, size_t n, normal_form form, moe_text *out)
{
    moe_status status = MOE_OK;

    for (size_t i = 0, end; i < n && status == MOE_OK && !out->failed; i = end) {
        for (end = MOE_MIN(n, i + 1024); end < n && !is_cut((unsigned char)text[end]);) {
            end++;
        }
        status = normal_stretch(text + i, end - i, form, out);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ characters */
/* One by one, so that a sigma at the end of a word is like any other, as in `tokenizers`. */
void lower_append(const char *text, size_t n, moe_text *out)
{
    for (size_t i = 0; i < n && !out->failed;) {
        char utf8[4];
        int32_t c;

        i += moe_utf8_get(text + i, &c);
        if (c == 0x130) { /* the only character whose small form is two */
            moe_text_append(out, "i\xcc\x87", 3);
        } else {
            moe_text_append(out, utf8, utf8_put(utf8proc_tolower(c), utf8));
        }
    }
}

void unmarked_append(const char *text, size_t n, moe_text *out)
{
    for (size_t i = 0, length; i < n && !out->failed; i += length) {
        int32_t c;

        length = moe_utf8_get(text + i, &c);
        switch (utf8proc_category(c)) {
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_MC:
        case UTF8PROC_CATEGORY_ME:
            break;
        default:
            moe_text_append(out, text + i, length);
        }
    }
}

void bytes_append(const char *text, size_t n, moe_text *out)
{
    for (size_t i = 0; i < n && !out->failed; i++) {
        char utf8[4];

        moe_text_append(out, utf8, utf8_put(byte_to_char((unsigned char)text[i]), utf8));
    }
}
