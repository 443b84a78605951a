/* generation_config.json: defaults of requests. */
#include "tests/unit/test_model_config_support.h"

static void generation_stop_ids_join_those_of_the_config(void **state)
{
    model_config c = parsed("", NULL, "{\"eos_token_id\": [255, 7], \"pad_token_id\": 1}");

    (void)state;
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos_ids[0], 7);
    assert_int_equal(c.eos_ids[1], 255);
}

static model_defaults defaults(const char *generation)
{
    return parsed("", NULL, generation).defaults;
}

static void generation_defaults_are_taken(void **state)
{
    model_defaults d =
        defaults("{\"do_sample\": true, \"temperature\": 0.6, \"top_p\": 0.9, \"top_k\": 40, "
                 "\"min_p\": 0.05, \"repetition_penalty\": 1.05, \"max_new_tokens\": 2048, \"min_new_tokens\": 3}");

    (void)state;
    assert_true(d.temperature == 0.6 && d.top_p == 0.9 && d.min_p == 0.05 && d.repetition_penalty == 1.05);
    assert_int_equal(d.top_k, 40);
    assert_int_equal(d.max_new_tokens, 2048);
    assert_int_equal(d.min_new_tokens, 3);
    assert_int_equal(d.max_length, -1);
    assert_string_equal(d.not_served, "");
    assert_true(d.frequency_penalty == 0.0 && d.presence_penalty == 0.0);
    d = defaults("{\"frequency_penalty\": -0.5, \"presence_penalty\": 1.5}"); /* other servers' keys */
    assert_true(d.frequency_penalty == -0.5 && d.presence_penalty == 1.5);
}

static void a_model_that_does_not_sample_is_greedy(void **state)
{
    model_defaults d = defaults("{\"do_sample\": false, \"temperature\": 0.6, \"top_p\": 0.9, \"top_k\": 40, "
                                "\"repetition_penalty\": 1.1}");

    (void)state;
    assert_true(d.temperature == 0.0);
    assert_true(d.top_p == 0.9 && d.repetition_penalty == 1.1); /* for a request with a temperature of its own */
    assert_int_equal(d.top_k, 40);
}

static void a_file_that_does_not_say_whether_to_sample_leaves_it_to_the_api(void **state)
{
    (void)state;
    assert_true(defaults("{\"top_p\": 0.9}").temperature < 0.0);
    assert_true(defaults("{\"do_sample\": null}").temperature < 0.0);
}

static void the_length_of_prompt_and_answer_counts_where_that_of_the_answer_is_not_given(void **state)
{
    model_defaults both = defaults("{\"max_length\": 4096, \"max_new_tokens\": 99999999999}"),
                   one = defaults("{\"max_length\": 4096}");

    (void)state;
    assert_int_equal(both.max_new_tokens, INT32_MAX);
    assert_int_equal(both.max_length, -1);
    assert_int_equal(one.max_length, 4096);
    assert_int_equal(one.max_new_tokens, -1);
}

static void generation_names_the_ids_that_the_config_lacks(void **state)
{
    model_config c = parsed("", NULL, "{\"bos_token_id\": 5, \"pad_token_id\": 6}");

    (void)state;
    assert_int_equal(c.bos_id, 5);
    assert_int_equal(c.pad_id, 1); /* config.json's */
}

/* Each is ignored, with a reason; the rest of the file counts. */
static void what_cannot_be_served_is_named_and_refuses_nothing(void **state)
{
    static const struct {
        const char *entry, *says;
    } rows[] = {
        {"\"top_p\": -0.5", "top_p: -0.5 must be within [0, 1]"},
        {"\"top_p\": 1.5", "top_p: 1.5 must be within [0, 1]"},
        {"\"top_p\": NaN", "top_p: must be a number, is \"NaN\""},
        {"\"temperature\": -1", "temperature: -1 must be within [0, 100]"},
        {"\"temperature\": Infinity", "temperature: must be a number, is \"Infinity\""},
        {"\"min_p\": 2", "min_p: 2 must be within [0, 1]"},
        {"\"repetition_penalty\": 0", "repetition_penalty: 0 must be within (0, 100]"},
        {"\"presence_penalty\": 101", "presence_penalty: 101 must be within [-100, 100]"},
        {"\"top_k\": 1.5", "top_k: must be an integer, is 1.5"},
        {"\"top_k\": -2", "top_k: -2 must be within"},
        {"\"max_new_tokens\": 0", "max_new_tokens: 0 must be within"},
        {"\"do_sample\": \"yes\"", "do_sample: must be true or false, is \"yes\""},
        {"\"bos_token_id\": 256", "bos_token_id: 256 must be within [-1, 255]"},
        {"\"num_beams\": 4", "num_beams: 4"},
        {"\"no_repeat_ngram_size\": 3", "no_repeat_ngram_size: 3"},
        {"\"typical_p\": 0.9", "typical_p: 0.9"},
        {"\"penalty_alpha\": 0.6", "penalty_alpha: 0.6"},
        {"\"stop_strings\": [\"</s>\"]", "stop_strings: [\"</s>\"]"},
        {"\"suppress_tokens\": [1, 2]", "suppress_tokens: [1,2]"},
        {"\"forced_bos_token_id\": 0", "forced_bos_token_id: 0"},
        {"\"remove_invalid_values\": true", "remove_invalid_values: true"},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        char text[256];
        model_defaults d;

        snprintf(text, sizeof text, "{%s, \"_from_model_config\": true, \"repetition_penalty_\": 1}", rows[i].entry);
        d = defaults(text);
        assert_contains(d.not_served, rows[i].says);
        d.not_served[0] = '\0';
        assert_true(d.temperature < 0 && d.top_p < 0 && d.min_p < 0 && d.repetition_penalty < 0 && d.top_k < 0 &&
                    d.max_new_tokens < 0 && d.min_new_tokens < 0 && d.max_length < 0);
    }
}

static void what_asks_for_nothing_is_not_named(void **state)
{
    model_defaults d =
        defaults("{\"num_beams\": 1, \"no_repeat_ngram_size\": 0, \"typical_p\": 1.0, \"bad_words_ids\": "
                 "[], \"stop_strings\": null, \"renormalize_logits\": true, \"length_penalty\": 2.0, "
                 "\"top_k\": -1, \"transformers_version\": \"5.0.0\", \"cache_config\": {}}");

    (void)state;
    assert_string_equal(d.not_served, "");
}

static void a_long_list_of_what_is_not_served_ends_in_dots(void **state)
{
    char text[2048] = "{\"num_beams\": 4, \"top_p\": 2";
    static const char *const keys[] = {"bad_words_ids",
                                       "force_words_ids",
                                       "constraints",
                                       "suppress_tokens",
                                       "begin_suppress_tokens",
                                       "sequence_bias",
                                       "stop_strings",
                                       "watermarking_config",
                                       "dola_layers",
                                       "exponential_decay_length_penalty",
                                       "encoder_repetition_penalty",
                                       "diversity_penalty"};
    model_defaults d;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, ", \"%s\": \"%060d\"", keys[i], 1);
    }
    strcat(text, "}");
    d = defaults(text);
    assert_contains(d.not_served, "top_p: 2 must be");
    assert_string_equal(d.not_served + strlen(d.not_served) - 5, ", ...");
}

static model_defaults defaults_without_file(const char *config)
{
    model_config c;
    moe_error err = {.text = ""};

    assert_ok(model_config_parse(config, strlen(config), NULL, 0, &c, &err), err);
    return c.defaults;
}

static void without_a_file_what_the_config_asks_for_in_its_place_is_named(void **state)
{
    model_defaults d = defaults_without_file(
        "{\"model_type\": \"olmoe\", \"intermediate_size\": 64, \"do_sample\": true, \"temperature\": 0.7, "
        "\"top_k\": 50, \"num_beams\": 4}");

    (void)state;
    assert_true(d.is_missing);
    assert_string_equal(d.not_served, "do_sample: true, temperature: 0.7, num_beams: 4");
    assert_true(d.temperature < 0.0);
    d = parsed("temperature", "0.7", "{}").defaults;
    assert_false(d.is_missing);
    assert_string_equal(d.not_served, "");
}

static void what_old_configs_say_of_defaults_for_nothing_is_not_named(void **state)
{
    (void)state;
    assert_string_equal(
        defaults_without_file(
            "{\"model_type\": \"olmoe\", \"intermediate_size\": 64, \"do_sample\": false, \"temperature\": 1.0, "
            "\"top_k\": 50, \"top_p\": 1.0, "
            "\"max_length\": 20, \"min_length\": 0, \"num_beams\": 1, \"repetition_penalty\": 1.0, \"typical_p\": 1.0, "
            "\"bad_words_ids\": null, \"diversity_penalty\": 0.0, \"remove_invalid_values\": false}")
            .not_served,
        "");
}

static const struct {
    const char *text, *says;
} refusals[] = {
    {"[]", "generation_config.json: must be an object"},
    {"{\"eos_token_id\": 256}", "generation_config.json: eos_token_id: 256 must be within"},
    {"{\"eos_token_id\": \"2\"}", "generation_config.json: eos_token_id: must be an integer or a list"},
    {"{", "generation_config.json: line 1"},
};

static void a_bad_generation_config_is_refused_by_its_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(refusals); i++) {
        model_config c;
        moe_error err = {.text = ""};

        if (parse_both("", NULL, refusals[i].text, &c, &err) == MOE_OK) {
            fail_msg("%s is accepted", refusals[i].text);
        }
        assert_contains(err.text, refusals[i].says);
    }
}

static void later_defaults_are_in_the_text_only_where_a_file_has_them(void **state)
{
    model_config c = parsed("", NULL, "{\"min_p\": 0.5, \"repetition_penalty\": 1.25, \"max_length\": 99}");
    char *text = text_of(&c);

    (void)state;
    assert_contains(text,
                    "default_top_k -1\ndefault_min_p 0.5\ndefault_repetition_penalty 1.25\ndefault_max_length 99\n");
    free(text);
    c = parsed("", NULL, "{\"presence_penalty\": 1.5, \"max_length\": 99}");
    text = text_of(&c);
    assert_contains(
        text, "default_top_k -1\ndefault_frequency_penalty 0\ndefault_presence_penalty 1.5\ndefault_max_length 99\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generation_stop_ids_join_those_of_the_config),
        cmocka_unit_test(generation_defaults_are_taken),
        cmocka_unit_test(a_model_that_does_not_sample_is_greedy),
        cmocka_unit_test(a_file_that_does_not_say_whether_to_sample_leaves_it_to_the_api),
        cmocka_unit_test(the_length_of_prompt_and_answer_counts_where_that_of_the_answer_is_not_given),
        cmocka_unit_test(generation_names_the_ids_that_the_config_lacks),
        cmocka_unit_test(what_cannot_be_served_is_named_and_refuses_nothing),
        cmocka_unit_test(what_asks_for_nothing_is_not_named),
        cmocka_unit_test(a_long_list_of_what_is_not_served_ends_in_dots),
        cmocka_unit_test(without_a_file_what_the_config_asks_for_in_its_place_is_named),
        cmocka_unit_test(what_old_configs_say_of_defaults_for_nothing_is_not_named),
        cmocka_unit_test(a_bad_generation_config_is_refused_by_its_name),
        cmocka_unit_test(later_defaults_are_in_the_text_only_where_a_file_has_them),
    };

    return cmocka_run_group_tests_name("model generation", tests, NULL, NULL);
}
