/* Added tokens: leftmost match, longest at that place, non-overlapping. A sorted list is narrowed byte by byte. */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

void added_set_fini(added_set *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->tokens[i].match);
    }
    free(s->tokens);
}

static int by_match_then_id(const void *a, const void *b)
{
    const added_token *left = a, *right = b;
    const int order = memcmp(left->match, right->match, MOE_MIN(left->n_match, right->n_match));

    if (order != 0) {
        return order;
    }
    if (left->n_match != right->n_match) {
        return left->n_match < right->n_match ? -1 : 1;
    }
    return left->id < right->id ? -1 : left->id > right->id;
}

void added_set_seal(added_set *s)
{
    size_t at = 0;

    if (s->n > 0) {
        qsort(s->tokens, s->n, sizeof *s->tokens, by_match_then_id);
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        s->first[byte] = (uint32_t)at;
        while (at < s->n && (unsigned char)s->tokens[at].match[0] == byte) {
            s->any_special |= s->tokens[at++].special;
        }
    }
    s->first[256] = (uint32_t)at;
}

/* Of tokens [low, high), which agree on their first depth bytes, those that go on with byte. */
static void narrow(const added_set *s, size_t *low, size_t *high, size_t depth, unsigned char byte)
{
    for (int above = 0; above < 2; above++) { /* first not below byte, then first above it */
        size_t a = *low, b = *high;

        while (a < b) {
            const size_t middle = a + (b - a) / 2;
            const added_token *token = &s->tokens[middle];
            const int c = token->n_match > depth ? (unsigned char)token->match[depth] : -1;

            if (c < byte + above) {
                a = middle + 1;
            } else {
                b = middle;
            }
        }
        *(above ? high : low) = a;
    }
}

static bool is_masked(const added_token *token, size_t begin, size_t end, const tokenizer_span *spans, size_t n_spans,
                      bool special_only)
{
    size_t low = 0, high = n_spans;

    if (special_only && !token->special) {
        return false;
    }
    while (low < high) { /* the first span that ends behind begin */
        const size_t middle = low + (high - low) / 2;

        if (spans[middle].end <= begin) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n_spans && spans[low].begin < end;
}

static const added_token *longest_unmasked(const added_set *s, text_view text, size_t at, const tokenizer_span *spans,
                                           size_t n_spans, bool special_only)
{
    const unsigned char *p = (const unsigned char *)text.data;
    size_t low = s->first[p[at]], high = s->first[p[at] + 1];
    const added_token *longest = NULL;

    for (size_t depth = 1; low < high; depth++) {
        const added_token *token = &s->tokens[low];

        if (token->n_match == depth && !is_masked(token, at, at + depth, spans, n_spans, special_only)) {
            longest = token;
        }
        if (at + depth == text.size) {
            break;
        }
        narrow(s, &low, &high, depth, p[at + depth]);
    }
    return longest;
}

const added_token *added_set_longest(const added_set *s, text_view text, size_t at)
{
    return s->n > 0 ? longest_unmasked(s, text, at, NULL, 0, false) : NULL;
}

static size_t char_before(const char *text, size_t at, int32_t *c)
{
    size_t begin = at - 1;

    while (((unsigned char)text[begin] & 0xc0) == 0x80) {
        begin--;
    }
    (void)moe_utf8_get(text + begin, c);
    return begin;
}

static bool stands_alone(text_view text, size_t begin, size_t end)
{
    int32_t c;

    if (begin > 0 && (char_before(text.data, begin, &c), char_is_word(c))) {
        return false;
    }
    return end == text.size || (moe_utf8_get(text.data + end, &c), !char_is_word(c));
}

static added_match take_spaces(const added_token *token, text_view text, size_t from, added_match match)
{
    int32_t c;

    while (token->lstrip && match.begin > from) {
        const size_t before = char_before(text.data, match.begin, &c);

        if (char_classify(c) != CLASS_SPACE) {
            break;
        }
        match.begin = before;
    }
    while (token->rstrip && match.end < text.size) {
        const size_t length = moe_utf8_get(text.data + match.end, &c);

        if (char_classify(c) != CLASS_SPACE) {
            break;
        }
        match.end += length;
    }
    return match;
}

bool added_set_next(const added_set *s, text_view text, size_t from, const tokenizer_span *spans, size_t n_spans,
                    bool special_only, added_match *match_out)
{
    for (size_t at = from; s->n > 0 && at < text.size; at++) {
        const added_token *token = longest_unmasked(s, text, at, spans, n_spans, special_only);

        if (!token) {
            continue;
        }
        if (token->single_word && !stands_alone(text, at, at + token->n_match)) {
            at += token->n_match - 1;
            continue;
        }
        *match_out = take_spaces(token, text, from, (added_match){at, at + token->n_match, token->id});
        return true;
    }
    return false;
}
