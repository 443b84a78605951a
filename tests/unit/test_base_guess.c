#include "tests/support/support.h"

static const char *const commands[] = {"generate", "chat",      "score", "classify", "tokenize", "detokenize",
                                       "model",    "placement", "nodes", "experts",  "health",   "convert"};

static const char *meant_by(const char *word)
{
    moe_guess g = moe_guess_of(word, strlen(word));

    for (size_t i = 0; i < MOE_COUNT(commands); i++) {
        moe_guess_offer(&g, commands[i]);
    }
    return g.best;
}

static void a_letter_put_in_left_out_changed_or_swapped_is_seen_through(void **state)
{
    (void)state;
    assert_string_equal(meant_by("generrate"), "generate");
    assert_string_equal(meant_by("genrate"), "generate");
    assert_string_equal(meant_by("geberate"), "generate");
    assert_string_equal(meant_by("genertae"), "generate");
    assert_string_equal(meant_by("caht"), "chat");
    assert_string_equal(meant_by("tokenise"), "tokenize");
}

static void the_beginning_of_a_word_is_that_word(void **state)
{
    (void)state;
    assert_string_equal(meant_by("plac"), "placement");
    assert_string_equal(meant_by("tok"), "tokenize");
    assert_null(meant_by("c"));
}

static void the_nearest_wins(void **state)
{
    (void)state;
    assert_string_equal(meant_by("mode"), "model");
    assert_string_equal(meant_by("node"), "nodes");
    assert_string_equal(meant_by("detokenise"), "detokenize");
}

static void words_that_are_not_near_mean_nothing(void **state)
{
    char longest[200];

    (void)state;
    assert_null(meant_by(""));
    assert_null(meant_by("x"));
    assert_null(meant_by("frobnicate"));
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_null(meant_by(longest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_letter_put_in_left_out_changed_or_swapped_is_seen_through),
        cmocka_unit_test(the_beginning_of_a_word_is_that_word),
        cmocka_unit_test(the_nearest_wins),
        cmocka_unit_test(words_that_are_not_near_mean_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
