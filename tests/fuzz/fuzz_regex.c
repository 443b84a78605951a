/* An expression, a NUL byte, a text: matches ascend, lie at the edges of characters and do not overlap, and the work on
 * them is bounded. Where no match is found late, each place is asked once more from a scan of its own. */
#include "tokenizer/regex_priv.h"

#include <string.h>

enum { MAX_TEXT = 2048 };

static bool is_edge(const char *text, size_t n, size_t at)
{
    return at == n || (text[at] & 0xc0) != 0x80;
}

/* The first match: a scan that has found out where matches begin must tell the same as one that has not. */
static void check_first(const regex *r, const char *text, size_t n, size_t begin, size_t end)
{
    regex_scan s = {0};
    size_t first_begin = 0, first_end = 0;

    regex_scan_start(&s, r, text, n);
    s.next = begin;
    MOE_ASSERT(regex_scan_next(&s, &first_begin, &first_end) == MOE_OK);
    MOE_ASSERT(first_begin == begin && first_end == end);
    regex_scan_fini(&s);
}

static void scan(const regex *r, const char *text, size_t n)
{
    regex_scan s = {0};
    size_t begin, end, last = 0, n_matches = 0;
    moe_status status;

    regex_scan_start(&s, r, text, n);
    while ((status = regex_scan_next(&s, &begin, &end)) == MOE_OK) {
        MOE_ASSERT(last <= begin && begin <= end && end <= n);
        MOE_ASSERT(is_edge(text, n, begin) && is_edge(text, n, end));
        if (n_matches++ < 8) {
            check_first(r, text, n, begin, end);
        }
        last = end;
    }
    MOE_ASSERT(status == MOE_ERR_NOT_FOUND || status == MOE_ERR_UNSUPPORTED);
    MOE_ASSERT(s.n_steps <= 34 * (uint64_t)n + 8192);
    regex_scan_fini(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t n_pattern = nul ? (size_t)(nul - data) : 0, n_text = nul ? size - n_pattern - 1 : 0;
    char pattern[MAX_TEXT + 1];
    regex *r = NULL;
    moe_error err = {""};

    if (!nul || n_pattern > MAX_TEXT || n_text > MAX_TEXT ||
        moe_utf8_valid_prefix((const char *)data, n_pattern) != n_pattern ||
        moe_utf8_valid_prefix((const char *)nul + 1, n_text) != n_text) {
        return 0;
    }
    memcpy(pattern, data, n_pattern);
    pattern[n_pattern] = '\0';
    if (regex_compile(pattern, n_pattern, &r, &err) == MOE_OK) {
        scan(r, (const char *)nul + 1, n_text);
        regex_free(r);
    } else {
        MOE_ASSERT(err.text[0] != '\0');
    }
    return 0;
}
