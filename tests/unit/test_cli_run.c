#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <conclave/v1/admin.pb-c.h>
#include <conclave/v1/inference.pb-c.h>
#include <string.h>

#include "cli/cli.h"

static const cli_command *command(const char *name)
{
    for (size_t i = 0; i < cli_n_commands; i++) {
        if (strcmp(cli_commands[i].name, name) == 0) {
            return &cli_commands[i];
        }
    }
    return NULL;
}

/* Words in one string, divided by |; argv keeps pointing into it. */
static int split(char *words, char *argv[], int max)
{
    int argc = 0;

    for (char *word = strtok(words, "|"); word != NULL && argc < max; word = strtok(NULL, "|")) {
        argv[argc++] = word;
    }
    return argc;
}

/* The request that a command line makes, as JSON, or the reason why it makes none. */
static void assert_request(const char *line, const ProtobufCMessageDescriptor *type, char **env, const char *expected)
{
    static char *no_env[] = {NULL};
    char words[512], *argv[64];
    int argc;
    cli_run run;
    moe_options_next next;
    moe_error err = {0};
    moe_text json;
    ProtobufCMessage *request = NULL;
    moe_status status;

    snprintf(words, sizeof(words), "%s", line);
    argc = split(words, argv, (int)MOE_COUNT(argv));
    moe_text_init(&json, 1 << 16);
    status = cli_run_parse(&run, command(argv[0]), argc, argv, env != NULL ? env : no_env, &next, &err);
    if (status == MOE_OK) {
        status = cli_run_request(&run, type, &request, &err);
        if (status == MOE_OK && protobuf_c_message_descriptor_get_field_by_name(type, "text") != NULL) {
            status = cli_run_fill_prompt(&run, request, &err);
        }
        if (status == MOE_OK) {
            cli_message_json(request, &json);
        }
        cli_message_free(request);
        cli_run_fini(&run);
    }
    assert_string_equal(status == MOE_OK ? moe_text_cstr(&json) : err.text, expected);
    moe_text_fini(&json);
}

static void assert_generate(const char *line, const char *expected)
{
    assert_request(line, &conclave__v1__generate_request__descriptor, NULL, expected);
}

static void a_prompt_is_the_text(void **state)
{
    (void)state;
    assert_generate("generate|Hello there", "{\"text\":\"Hello there\"}");
}

static void token_ids_replace_the_prompt(void **state)
{
    (void)state;
    assert_generate("generate|--tokens|5,6", "{\"token_ids\":{\"ids\":[5,6]}}");
}

static void neither_prompt_nor_token_ids_is_refused(void **state)
{
    (void)state;
    assert_generate("generate|--max-tokens|3", "give a text (- for standard input) or --tokens");
}

static void both_prompt_and_token_ids_are_refused(void **state)
{
    (void)state;
    assert_generate("generate|--tokens|5|Hello", "give a text or --tokens, not both");
}

static void every_sampling_option_has_its_field(void **state)
{
    (void)state;
    assert_generate(
        "generate|x|--max-tokens|1|--min-tokens|2|--temperature|0.5|--top-k|3|--top-p|0.25|--min-p|0.125|"
        "--repetition-penalty|1.5|--frequency-penalty|-2|--presence-penalty|-0.5|--seed|4|--stop-token-ids|5,6|--"
        "ignore-eos|"
        "--n|7|--logprobs|8",
        "{\"text\":\"x\",\"sampling\":{\"max_tokens\":1,\"min_tokens\":2,\"temperature\":0.5,\"top_k\":3,\"top_p\":0."
        "25,"
        "\"min_p\":0.125,\"repetition_penalty\":1.5,\"frequency_penalty\":-2,\"presence_penalty\":-0.5,\"seed\":\"4\","
        "\"stop_token_ids\":[5,6],\"ignore_eos\":true,\"n\":7,\"logprobs\":8}}");
}

static void every_request_option_has_its_field(void **state)
{
    (void)state;
    assert_generate(
        "generate|x|--set|abc|--request-id|r1|--echo|--progress|--resume-from|9,8|--add-special-tokens|false",
        "{\"text\":\"x\",\"set\":{\"id\":\"abc\"},\"request_id\":\"r1\",\"echo\":true,\"progress\":true,"
        "\"resume_from\":{\"ids\":[9,8]},\"add_special_tokens\":false}");
}

static void the_stop_option_may_be_given_several_times(void **state)
{
    (void)state;
    assert_generate("generate|--stop|a|x|--stop=b c|--stop|-",
                    "{\"text\":\"x\",\"sampling\":{\"stop\":[\"a\",\"b c\",\"-\"]}}");
}

static void the_stop_option_needs_a_value(void **state)
{
    (void)state;
    assert_generate("generate|x|--stop", "--stop (command line): needs a value: --stop TEXT");
}

static void n_has_a_short_form(void **state)
{
    (void)state;
    assert_generate("generate|-n|2|x", "{\"text\":\"x\",\"sampling\":{\"n\":2}}");
}

static void words_after_two_hyphens_are_arguments(void **state)
{
    (void)state;
    assert_generate("generate|--|--stop", "{\"text\":\"--stop\"}");
}

static void an_unknown_option_is_refused(void **state)
{
    (void)state;
    assert_generate("generate|x|--frobnicate", "--frobnicate (command line): no such option; see --help");
}

static void score_asks_for_alternatives_and_experts(void **state)
{
    (void)state;
    assert_request("score|--tokens|1,2|--top|5|--experts", &conclave__v1__score_request__descriptor, NULL,
                   "{\"token_ids\":{\"ids\":[1,2]},\"top\":5,\"experts\":true}");
}

static void tokenize_takes_a_text(void **state)
{
    (void)state;
    assert_request("tokenize|a b", &conclave__v1__tokenize_request__descriptor, NULL, "{\"text\":\"a b\"}");
}

static void advice_names_only_what_the_command_takes(void **state)
{
    (void)state;
    assert_request("tokenize", &conclave__v1__tokenize_request__descriptor, NULL, "give a text (- for standard input)");
}

static void an_option_may_come_from_the_environment(void **state)
{
    char variable[] = "CONCLAVE_LAYER=3", *env[] = {variable, NULL};

    (void)state;
    assert_request("placement", &conclave__v1__list_experts_request__descriptor, env, "{\"layer\":3}");
}

static void the_server_comes_from_the_environment(void **state)
{
    char variable[] = "CONCLAVE_SERVER=example:7", *env[] = {variable, NULL};
    char name[] = "model", *argv[] = {name};
    cli_run run;
    moe_options_next next;

    (void)state;
    assert_int_equal(cli_run_parse(&run, command("model"), 1, argv, env, &next, NULL), MOE_OK);
    assert_string_equal(run.server, "example:7");
    cli_run_fini(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_the_text),
        cmocka_unit_test(token_ids_replace_the_prompt),
        cmocka_unit_test(neither_prompt_nor_token_ids_is_refused),
        cmocka_unit_test(both_prompt_and_token_ids_are_refused),
        cmocka_unit_test(every_sampling_option_has_its_field),
        cmocka_unit_test(every_request_option_has_its_field),
        cmocka_unit_test(the_stop_option_may_be_given_several_times),
        cmocka_unit_test(the_stop_option_needs_a_value),
        cmocka_unit_test(n_has_a_short_form),
        cmocka_unit_test(words_after_two_hyphens_are_arguments),
        cmocka_unit_test(an_unknown_option_is_refused),
        cmocka_unit_test(score_asks_for_alternatives_and_experts),
        cmocka_unit_test(tokenize_takes_a_text),
        cmocka_unit_test(advice_names_only_what_the_command_takes),
        cmocka_unit_test(an_option_may_come_from_the_environment),
        cmocka_unit_test(the_server_comes_from_the_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
