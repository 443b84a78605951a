/* Expressions: where their matches lie, how often text is read, what is refused. The expected pieces are those of the
 * `tokenizers` package, 0.23.3. */
#include "tests/unit/test_tokenizer_support.h"
#include "tokenizer/regex_priv.h"

static regex *must_compile(const char *pattern)
{
    regex *r = NULL;
    moe_error err = {""};

    assert_ok(regex_compile(pattern, strlen(pattern), &r, &err), err);
    return r;
}

/* All of text, with | where a match begins or ends. */
static moe_text pieces_of(const char *pattern, const char *text)
{
    regex *r = must_compile(pattern);
    regex_scan scan = {0};
    size_t at = 0, begin, end;
    moe_text out;

    moe_text_init(&out, 1 << 16);
    regex_scan_start(&scan, r, text, strlen(text));
    while (regex_scan_next(&scan, &begin, &end) == MOE_OK) {
        if (begin > at) {
            moe_text_printf(&out, "%.*s|", (int)(begin - at), text + at);
        }
        moe_text_printf(&out, "%.*s|", (int)(end - begin), text + begin);
        at = end;
    }
    if (text[at]) {
        moe_text_printf(&out, "%s|", text + at);
    }
    out.size -= out.size > 0;
    out.data[out.size] = '\0';
    regex_scan_fini(&scan);
    regex_free(r);
    return out;
}

static void assert_pieces(const char *pattern, const char *text, const char *expected)
{
    moe_text out = pieces_of(pattern, text);

    assert_string_equal(moe_text_cstr(&out), expected);
    moe_text_fini(&out);
}

static const char hard_text[] = "I'LL say Don't, na\xc3\xafve e\xcc\x81tude 12345 x\xc2\xb2 "
                                "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88\xed\x95\x9c"
                                "\xea\xb5\xad \xe4\xb8\xad\xe6\x96\x87"
                                "ABCdefGHI's  \n\n  \t\xe3\x80\x80 end.\r\n/* a==b; */   z \xc2\xa0";

static const struct {
    const char *name, *pattern, *pieces;
} published[] = {
    {"qwen3",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "I|'LL| say| Don|'t|,| na\xc3\xafve| e|\xcc\x81tude| |1|2|3|4|5| x|\xc2\xb2| "
     "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88\xed\x95\x9c\xea\xb5\xad| "
     "\xe4\xb8\xad\xe6\x96\x87"
     "ABCdefGHI|'s|  \n\n|  \t\xe3\x80\x80| end|.\r\n|/*| a|==|b|;| */|  | z| \xc2\xa0"},
    {"llama3",
     "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "I|'LL| say| Don|'t|,| na\xc3\xafve| e|\xcc\x81tude| |123|45| x|\xc2\xb2| "
     "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88\xed\x95\x9c\xea\xb5\xad| "
     "\xe4\xb8\xad\xe6\x96\x87"
     "ABCdefGHI|'s|  \n\n|  \t\xe3\x80\x80| end|.\r\n|/*| a|==|b|;| */|  | z| \xc2\xa0"},
    {"o200k",
     "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'"
     "ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'"
     "ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "I'LL| say| Don't|,| na\xc3\xafve| e\xcc\x81tude| |123|45| x|\xc2\xb2| "
     "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88\xed\x95\x9c\xea\xb5\xad| "
     "\xe4\xb8\xad\xe6\x96\x87"
     "ABCdef|GHI's|  \n\n|  \t\xe3\x80\x80| end|.\r\n/|*| a|==|b|;| */|  | z| \xc2\xa0"},
    {"tiktoken",
     "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| "
     "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s",
     "I|'LL| say| Don|'t|,| na\xc3\xafve| e|\xcc\x81tude| |12345| x|\xc2\xb2| "
     "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88\xed\x95\x9c\xea\xb5\xad| "
     "\xe4\xb8\xad\xe6\x96\x87"
     "ABCdefGHI|'s|  \n\n|  \t\xe3\x80\x80| end|.\r\n|/*| a|==|b|;| */|  | z| \xc2\xa0"},
    {"kimi",
     "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&"
     "&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}"
     "]]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "I'LL| say| Don't|,| na\xc3\xafve| e\xcc\x81tude| |123|45| x|\xc2\xb2| "
     "|\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e|\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88\xed\x95\x9c\xea\xb5\xad| "
     "|\xe4\xb8\xad\xe6\x96\x87|ABCdef|GHI's|  \n\n|  \t\xe3\x80\x80| end|.\r\n|/*| a|==|b|;| */|  | z| \xc2\xa0"},
    {"deepseek3",
     "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
     "?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     "I|'LL| say| Don|'t|,| na\xc3\xafve| e\xcc\x81tude| |12345| x|\xc2\xb2| "
     "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88\xed\x95\x9c\xea\xb5\xad| "
     "\xe4\xb8\xad\xe6\x96\x87"
     "ABCdefGHI|'s|  \n\n|  \t\xe3\x80\x80| end|.\r\n|/*| a|==|b|;| */|  | z| \xc2\xa0"},
};

static void published_expressions_cut_as_the_package_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(published); i++) {
        assert_pieces(published[i].pattern, hard_text, published[i].pieces);
    }
}

static void the_first_alternative_wins(void **state)
{
    (void)state;
    assert_pieces("a|ab", "abab", "a|b|a|b");
    assert_pieces("(?:a|ab)(?:c|bcd)", "abcd", "abcd");
}

static void lazy_repetition_takes_as_little_as_it_can(void **state)
{
    (void)state;
    assert_pieces("a+?", "aaa", "a|a|a");
    assert_pieces("a{1,2}?b", "aab", "aab");
}

static void an_interval_with_plus_repeats_the_interval(void **state)
{
    (void)state;
    assert_pieces("\\d{1,3}+", "12345", "12345");
}

static void a_possessive_repetition_gives_nothing_back(void **state)
{
    (void)state;
    assert_pieces("a++a", "aaab", "aaab");
    assert_pieces("\\s++$", " \n x \n", " \n x| \n");
}

static void dollar_and_caret_hold_beside_line_feeds(void **state)
{
    (void)state;
    assert_pieces("\\s+$", "a  \nb  ", "a|  |\nb|  ");
    assert_pieces("^a", "a\na", "a|\n|a");
}

static void looking_around_takes_nothing(void **state)
{
    (void)state;
    assert_pieces("(?<=\\d)[.,](?=\\d)", "1.5, .3", "1|.|5, .3");
    assert_pieces("\\bab", "ab cab ab", "ab| cab |ab");
}

static void case_is_ignored_where_asked(void **state)
{
    (void)state;
    assert_pieces("(?i:k)s", "kS\xe2\x84\xaas", "kS|\xe2\x84\xaas"); /* the Kelvin sign */
    assert_pieces("a(?i)b|c", "aBaC", "aB|aC");
}

static void empty_matches_cut_once(void **state)
{
    (void)state;
    assert_pieces("(?=b)", "abab", "a||ba||b");
}

/* A hostile text of n bytes: every place of it is tried by a backtracking matcher, each up to the end. */
static uint64_t steps_of(const char *pattern, char repeated, size_t n)
{
    regex *r = must_compile(pattern);
    char *text = malloc(n + 1);
    regex_scan scan = {0};
    size_t begin, end;
    moe_status status;

    memset(text, repeated, n);
    text[n - 1] = 'x';
    text[n] = '\0';
    regex_scan_start(&scan, r, text, n);
    while ((status = regex_scan_next(&scan, &begin, &end)) == MOE_OK) {
    }
    const uint64_t steps = scan.n_steps;

    assert_int_equal(status, MOE_ERR_NOT_FOUND);
    regex_scan_fini(&scan);
    regex_free(r);
    free(text);
    return steps;
}

static void every_character_is_read_a_few_times_at_most(void **state)
{
    static const char repeated[] = " a\nA1'";
    enum { N = 100000 };

    (void)state;
    assert_true(steps_of("\\s+$", ' ', N) <= 3 * N);
    for (size_t i = 0; i < MOE_COUNT(published); i++) {
        for (size_t k = 0; repeated[k]; k++) {
            assert_true(steps_of(published[i].pattern, repeated[k], N) <= 3 * N);
        }
    }
}

static void an_expression_that_reads_the_rest_for_each_match_is_given_up(void **state)
{
    regex *r = must_compile("a|a*b");
    regex_scan scan = {0};
    char text[4096];
    size_t begin, end, n = 0;
    moe_status status;

    (void)state;
    memset(text, 'a', sizeof text);
    regex_scan_start(&scan, r, text, sizeof text); /* the first alternative wins: no need to read on */
    while ((status = regex_scan_next(&scan, &begin, &end)) == MOE_OK) {
        n++;
    }
    assert_int_equal(status, MOE_ERR_NOT_FOUND);
    assert_int_equal(n, sizeof text);
    regex_free(r);
    r = must_compile("a*b|a");
    regex_scan_start(&scan, r, text, sizeof text);
    while ((status = regex_scan_next(&scan, &begin, &end)) == MOE_OK) {
    }
    assert_int_equal(status, MOE_ERR_UNSUPPORTED);
    assert_true(scan.n_steps < 40 * sizeof text + 8192);
    regex_scan_fini(&scan);
    regex_free(r);
}

static void what_needs_backtracking_is_refused_by_name(void **state)
{
    static const struct {
        const char *pattern, *reason;
    } cases[] = {
        {"(a)\\1", "this escape is not supported"},
        {"a(?=bc)", "looking at more than one character"},
        {"(?:ab)++c", "possessive repetition of more than one character"},
        {"(?>ab*)c", "an atomic group"},
        {"(?<name>a)", "this group is not supported"},
        {"(?#a)", "this group is not supported"},
        {"\\p{Greek}", "this property is not supported"},
        {"[[:alpha:]]", "this class is not supported"},
        {"(?:a*)*", "repeating what may be empty"},
        {"a{1001}", "this number of repetitions"},
        {"(?:a{1000}){1000}", "more than 16384 instructions"},
        {"(?:1{a000}){1000}", "too much work"},
        {"(?:a|b)*a(?:a|b){20}", "16384 states"},
        {"(a", "a group has no end"},
        {"a)", "a bracket without a group"},
        {"[a", "the class has no end"},
        {"[b-a]", "not a range"},
        {"*a", "nothing to repeat"},
        {"\\", "nothing behind the backslash"},
        {"", "an empty pattern"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        regex *r = NULL;
        moe_error err = {""};

        assert_int_equal(regex_compile(cases[i].pattern, strlen(cases[i].pattern), &r, &err), MOE_ERR_UNSUPPORTED);
        assert_contains(err.text, cases[i].reason);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_expressions_cut_as_the_package_does),
        cmocka_unit_test(the_first_alternative_wins),
        cmocka_unit_test(lazy_repetition_takes_as_little_as_it_can),
        cmocka_unit_test(an_interval_with_plus_repeats_the_interval),
        cmocka_unit_test(a_possessive_repetition_gives_nothing_back),
        cmocka_unit_test(dollar_and_caret_hold_beside_line_feeds),
        cmocka_unit_test(looking_around_takes_nothing),
        cmocka_unit_test(case_is_ignored_where_asked),
        cmocka_unit_test(empty_matches_cut_once),
        cmocka_unit_test(every_character_is_read_a_few_times_at_most),
        cmocka_unit_test(an_expression_that_reads_the_rest_for_each_match_is_given_up),
        cmocka_unit_test(what_needs_backtracking_is_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
