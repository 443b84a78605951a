#include "tests/support/support.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct config {
    uint32_t max_batch_tokens;
    uint64_t seed;
    size_t cache_bytes;
    double share;
    bool dry_run;
    char *listen, *mode, *unset, *dirs;
} config;

static const char *const modes[] = {"fast", "exact", NULL};
static const moe_option options[] = {
    {.name = "max_batch_tokens",
     .kind = MOE_OPT_U32,
     .offset = offsetof(config, max_batch_tokens),
     .fallback = "4096",
     .min = 1,
     .max = 65536,
     .help = "tokens in one step"},
    {.name = "seed", .kind = MOE_OPT_U64, .offset = offsetof(config, seed), .help = "seed"},
    {.name = "cache_bytes",
     .kind = MOE_OPT_SIZE,
     .offset = offsetof(config, cache_bytes),
     .fallback = "1G",
     .min = 1024,
     .max = 0x1p40,
     .value = "BYTES",
     .help = "cache"},
    {.name = "share",
     .kind = MOE_OPT_F64,
     .offset = offsetof(config, share),
     .fallback = "0.1",
     .min = 0,
     .max = 1,
     .help = "share"},
    {.name = "dry_run", .kind = MOE_OPT_BOOL, .offset = offsetof(config, dry_run), .help = "do nothing"},
    {.name = "listen",
     .kind = MOE_OPT_STRING,
     .offset = offsetof(config, listen),
     .fallback = "[::]:50051",
     .value = "HOST:PORT",
     .help = "address"},
    {.name = "mode",
     .kind = MOE_OPT_CHOICE,
     .offset = offsetof(config, mode),
     .fallback = "fast",
     .choices = modes,
     .help = "mode"},
    {.name = "unset", .kind = MOE_OPT_STRING, .offset = offsetof(config, unset), .help = "nothing"},
    {.name = "dirs", .kind = MOE_OPT_STRING, .offset = offsetof(config, dirs), .help = "folders", .is_list = true},
};
static const moe_program program = {.name = "conclave-test",
                                    .summary = "Tests options.",
                                    .options = options,
                                    .n_options = MOE_COUNT(options),
                                    .arguments = "WORD"};

#define MAX_WORDS 8

typedef struct run {
    char *argv[MAX_WORDS + 1], *env[MAX_WORDS + 1];
    config c;
    moe_error err;
    moe_options_next next;
    const char *args[2];
    size_t n_args;
} run;

/* Copies NULL-terminated words (argv is not const). */
static int copy_words(char **to, const char *const *from)
{
    int n = 0;

    for (; from[n] != NULL; n++) {
        assert_true(n < MAX_WORDS);
        to[n] = strdup(from[n]);
    }
    to[n] = NULL;
    return n;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_WORDS   ((const char *const[]){NULL})

/* argv without the program's name. finish() frees. */
static moe_status start(run *r, const char *const *flags, const char *const *env)
{
    int argc;

    memset(r, 0x5a, sizeof *r); /* the config needs no preparation */
    r->argv[0] = strdup("program");
    argc = 1 + copy_words(r->argv + 1, flags);
    (void)copy_words(r->env, env);
    r->n_args = 0;
    r->err.text[0] = '\0';
    return moe_options_parse(&program, &r->c, argc, r->argv, r->env, r->args, MOE_COUNT(r->args), &r->n_args, &r->next,
                             &r->err);
}

static void finish(run *r)
{
    moe_options_fini(&program, &r->c);
    for (size_t i = 0; r->argv[i] != NULL; i++) {
        free(r->argv[i]);
    }
    for (size_t i = 0; r->env[i] != NULL; i++) {
        free(r->env[i]);
    }
    moe_log_set_level(MOE_LOG_INFO);
}

static void assert_refused(const char *const *flags, const char *const *env, const char *reason)
{
    run r;
    moe_status status = start(&r, flags, env);
    moe_error err = r.err;

    finish(&r);
    assert_int_equal(status, MOE_ERR_INVALID_ARG);
    assert_string_equal(err.text, reason);
}

static const char *config_flag(void **state, const char *json)
{
    static char flag[512];
    const char *path = test_folder_path(*state, "config.json");

    test_write_text(path, json);
    (void)snprintf(flag, sizeof flag, "--config=%s", path);
    return flag;
}

static void assert_file_refused(void **state, const char *json, const char *part)
{
    run r;
    moe_status status = start(&r, WORDS(config_flag(state, json)), NO_WORDS);
    moe_error err = r.err;

    finish(&r);
    assert_int_not_equal(status, MOE_OK);
    assert_contains(err.text, part);
}

/* ------------------------------------------------------------------------------------------------ values */

static void defaults_fill_what_nobody_gives(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, NO_WORDS, NO_WORDS), r.err);
    assert_int_equal(r.next, MOE_OPTIONS_RUN);
    assert_int_equal(r.c.max_batch_tokens, 4096);
    assert_int_equal(r.c.seed, 0);
    assert_true(r.c.cache_bytes == (size_t)1 << 30);
    assert_true(r.c.share == 0.1);
    assert_false(r.c.dry_run);
    assert_string_equal(r.c.listen, "[::]:50051");
    assert_string_equal(r.c.mode, "fast");
    assert_null(r.c.unset);
    finish(&r);
}

static void flags_take_their_value_after_a_blank_or_equals(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, WORDS("--max-batch-tokens", "7", "--seed=18446744073709551615"), NO_WORDS), r.err);
    assert_int_equal(r.c.max_batch_tokens, 7);
    assert_true(r.c.seed == UINT64_MAX);
    finish(&r);
}

static void booleans_need_no_value_but_take_one(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, WORDS("--dry-run"), NO_WORDS), r.err);
    assert_true(r.c.dry_run);
    finish(&r);
    assert_ok(start(&r, WORDS("--dry-run=false"), WORDS("CONCLAVE_DRY_RUN=true")), r.err);
    assert_false(r.c.dry_run);
    finish(&r);
}

static void the_last_flag_wins(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, WORDS("--listen=a", "--listen=b"), NO_WORDS), r.err);
    assert_string_equal(r.c.listen, "b");
    finish(&r);
}

static void a_list_grows_with_every_flag_and_comes_from_one_source(void **state)
{
    const char *at, *item;
    size_t n;
    run r;

    (void)state;
    assert_ok(start(&r, WORDS("--dirs", "a,b", "--dirs=c"), WORDS("CONCLAVE_DIRS=d")), r.err);
    assert_string_equal(r.c.dirs, "a,b,c");
    at = r.c.dirs;
    for (const char *expected = "abc"; *expected != '\0'; expected++) {
        assert_true(moe_list_next(&at, &item, &n));
        assert_int_equal(n, 1);
        assert_int_equal(item[0], expected[0]);
    }
    assert_false(moe_list_next(&at, &item, &n));
    finish(&r);
    assert_ok(start(&r, NO_WORDS, WORDS("CONCLAVE_DIRS=d,e")), r.err);
    assert_string_equal(r.c.dirs, "d,e");
    finish(&r);
    assert_ok(start(&r, NO_WORDS, NO_WORDS), r.err);
    at = r.c.dirs;
    assert_false(moe_list_next(&at, &item, &n));
    finish(&r);
}

static void flag_beats_environment_beats_file_beats_default(void **state)
{
    const char *file = config_flag(state, "{\"max_batch_tokens\":2,\"seed\":2,\"listen\":\"file\"}");
    run r;

    assert_ok(start(&r, WORDS(file, "--max-batch-tokens=4"), WORDS("CONCLAVE_MAX_BATCH_TOKENS=3", "CONCLAVE_SEED=3")),
              r.err);
    assert_int_equal(r.c.max_batch_tokens, 4);
    assert_int_equal(r.c.seed, 3);
    assert_string_equal(r.c.listen, "file");
    assert_string_equal(r.c.mode, "fast");
    finish(&r);
}

static void the_file_may_come_from_the_environment(void **state)
{
    char env[600];
    run r;

    (void)snprintf(env, sizeof env, "CONCLAVE_CONFIG=%s", config_flag(state, "{\"seed\":5}") + strlen("--config="));
    assert_ok(start(&r, NO_WORDS, WORDS(env)), r.err);
    assert_int_equal(r.c.seed, 5);
    finish(&r);
}

static void file_values_have_their_json_types(void **state)
{
    const char *file =
        config_flag(state, "{\"max_batch_tokens\":9,\"share\":0.25,\"dry_run\":true,\"cache_bytes\":\"2M\","
                           "\"mode\":\"exact\",\"unset\":null}");
    run r;

    assert_ok(start(&r, WORDS(file), NO_WORDS), r.err);
    assert_int_equal(r.c.max_batch_tokens, 9);
    assert_true(r.c.share == 0.25);
    assert_true(r.c.dry_run);
    assert_int_equal(r.c.cache_bytes, 2 << 20);
    assert_string_equal(r.c.mode, "exact");
    assert_null(r.c.unset);
    finish(&r);
}

static void words_without_dashes_are_arguments(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, WORDS("generate", "--seed", "3", "--", "--listen"), NO_WORDS), r.err);
    assert_int_equal(r.n_args, 2);
    assert_string_equal(r.args[0], "generate");
    assert_string_equal(r.args[1], "--listen");
    finish(&r);
}

static void the_log_level_is_set(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, WORDS("--log-level", "debug"), NO_WORDS), r.err);
    assert_true(moe_log_enabled(MOE_LOG_DEBUG));
    assert_false(moe_log_enabled(MOE_LOG_TRACE));
    finish(&r);
}

static void variables_of_other_programs_are_left_alone(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, NO_WORDS, WORDS("CONCLAVE_KV_MEMORY=x", "CONCLAVE_TOP_P=x", "SIM_SEED=x", "SEED=x")), r.err);
    assert_int_equal(r.c.seed, 0);
    finish(&r);
}

static void sizes_are_told_in_the_unit_that_fits(void **state)
{
    const struct {
        size_t bytes;
        const char *text;
    } rows[] = {{0, "0 bytes"},
                {1023, "1023 bytes"},
                {1024, "1.0 KiB"},
                {1536 << 10, "1.5 MiB"},
                {((size_t)1 << 30) - 1, "1.0 GiB"},
                {(size_t)5 << 41, "10.0 TiB"},
                {SIZE_MAX, "16777216.0 TiB"}};
    char text[MOE_SIZE_TEXT];

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        assert_string_equal(moe_size_text(rows[i].bytes, text), rows[i].text);
    }
}

static void variables_that_kubernetes_makes_of_a_service_are_left_alone(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, NO_WORDS,
                    WORDS("CONCLAVE_SERVICE_HOST=10.0.0.1", "CONCLAVE_API_SERVICE_PORT_GRPC=50051",
                          "CONCLAVE_PORT=tcp://10.0.0.1:50051", "CONCLAVE_API_PORT_50051_TCP_ADDR=10.0.0.1")),
              r.err);
    finish(&r);
}

static void unknown_variables_are_refused_with_the_one_that_was_meant(void **state)
{
    (void)state;
    assert_refused(NO_WORDS, WORDS("CONCLAVE_SEEDS=1"),
                   "CONCLAVE_SEEDS (environment): no such option; did you mean CONCLAVE_SEED?");
    assert_refused(NO_WORDS, WORDS("CONCLAVE_Seed=1"),
                   "CONCLAVE_Seed (environment): no such option; did you mean CONCLAVE_SEED?");
    assert_refused(NO_WORDS, WORDS("CONCLAVE_TEMPERATUR=1"),
                   "CONCLAVE_TEMPERATUR (environment): no such option; did you mean CONCLAVE_TEMPERATURE?");
    assert_refused(NO_WORDS, WORDS("CONCLAVE_FROBNICATE=1"),
                   "CONCLAVE_FROBNICATE (environment): no option of any Conclave program; unset it");
    assert_refused(NO_WORDS, WORDS("CONCLAVE_HELP=x"),
                   "CONCLAVE_HELP (environment): no option of any Conclave program; unset it");
}

static void sizes_take_binary_units(void **state)
{
    static const struct {
        const char *text;
        size_t bytes;
    } sizes[] = {{"0", 0},
                 {"17", 17},
                 {"1K", 1024},
                 {"512M", (size_t)512 << 20},
                 {"3G", (size_t)3 << 30},
                 {"2T", (size_t)2 << 40},
                 {"4Gi", (size_t)4 << 30},
                 {"100MiB", (size_t)100 << 20}};
    size_t bytes = 1;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(sizes); i++) {
        assert_int_equal(moe_parse_size(sizes[i].text, &bytes), MOE_OK);
        assert_true(bytes == sizes[i].bytes);
    }
}

/* ------------------------------------------------------------------------------------------------ refusals */

static void other_sizes_are_refused(void **state)
{
    static const char *const texts[] = {
        "",   "K",    "1KB", "-1",   "1.5G",  " 1",         "1 ", "16777216T", "18446744073709551616",
        "1k", "0x10", "1iB", "1Kib", "1KiBs", "16777216TiB"};
    size_t bytes;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(texts); i++) {
        assert_int_equal(moe_parse_size(texts[i], &bytes), MOE_ERR_INVALID_ARG);
    }
}

static void a_flag_out_of_range_names_value_source_and_limits(void **state)
{
    (void)state;
    assert_refused(WORDS("--max-batch-tokens", "0"), NO_WORDS,
                   "--max-batch-tokens 0 (command line): must be within [1, 65536]");
}

static void an_environment_value_out_of_range_names_its_variable(void **state)
{
    (void)state;
    assert_refused(NO_WORDS, WORDS("CONCLAVE_MAX_BATCH_TOKENS=65537"),
                   "CONCLAVE_MAX_BATCH_TOKENS=65537 (environment): must be within [1, 65536]");
}

static void a_file_value_out_of_range_names_the_file(void **state)
{
    assert_file_refused(state, "{\"max_batch_tokens\":0}", "\"max_batch_tokens\": 0 (");
    assert_file_refused(state, "{\"max_batch_tokens\":0}", "config.json): must be within [1, 65536]");
}

static void words_that_are_no_numbers_are_refused(void **state)
{
    static const char *const texts[] = {"", "x", "-1", "+1", " 1", "1.0", "1e3", "0x1", "18446744073709551616"};
    run r;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(texts); i++) {
        moe_status status = start(&r, WORDS("--seed", texts[i]), NO_WORDS);

        finish(&r);
        assert_int_equal(status, MOE_ERR_INVALID_ARG);
    }
}

static void reals_must_be_finite_decimals(void **state)
{
    static const char *const texts[] = {"", "nan", "inf", "-inf", "1e999", "0x1p-1", " 0.5", "0.5x", "1e", "2"};
    run r;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(texts); i++) {
        moe_status status = start(&r, WORDS("--share", texts[i]), NO_WORDS);

        finish(&r);
        assert_int_equal(status, MOE_ERR_INVALID_ARG);
    }
}

static void a_choice_names_the_others(void **state)
{
    (void)state;
    assert_refused(WORDS("--mode", "slow"), NO_WORDS, "--mode slow (command line): must be one of fast, exact");
}

static void a_boolean_is_true_or_false(void **state)
{
    (void)state;
    assert_refused(WORDS("--dry-run=1"), NO_WORDS, "--dry-run 1 (command line): must be true or false");
}

static void unknown_flags_are_refused(void **state)
{
    (void)state;
    assert_refused(WORDS("--frobnicate", "1"), NO_WORDS, "--frobnicate (command line): no such option; see --help");
    assert_refused(WORDS("--=1"), NO_WORDS, "-- (command line): no such option; see --help");
}

static void a_misspelt_flag_is_refused_with_the_one_that_was_meant(void **state)
{
    (void)state;
    assert_refused(WORDS("--sed", "1"), NO_WORDS, "--sed (command line): no such option; did you mean --seed?");
    assert_refused(WORDS("--max_batch_tokens=1"), NO_WORDS,
                   "--max_batch_tokens (command line): no such option; did you mean --max-batch-tokens?");
    assert_refused(WORDS("--max-batch"), NO_WORDS,
                   "--max-batch (command line): no such option; did you mean --max-batch-tokens?");
    assert_refused(WORDS("-seed", "1"), NO_WORDS, "-seed (command line): no such option; did you mean --seed?");
    assert_refused(WORDS("-x"), NO_WORDS,
                   "-x (command line): no such option; see --help; a text that begins with - goes after --");
}

static void words_that_begin_with_a_dash_but_no_letter_are_arguments(void **state)
{
    run r;

    (void)state;
    assert_ok(start(&r, WORDS("-", "-3"), NO_WORDS), r.err);
    assert_string_equal(r.args[1], "-3");
    finish(&r);
}

static void a_flag_without_its_value_is_refused(void **state)
{
    (void)state;
    assert_refused(WORDS("--listen"), NO_WORDS, "--listen (command line): needs a value: --listen HOST:PORT");
    assert_refused(WORDS("--listen", "--dry-run"), NO_WORDS,
                   "--listen (command line): needs a value: --listen HOST:PORT");
}

static void a_word_too_many_is_refused(void **state)
{
    (void)state;
    assert_refused(WORDS("a", "b", "c"), NO_WORDS, "c (command line): unexpected word; at most 2 are allowed");
}

static void unknown_file_keys_are_refused(void **state)
{
    assert_file_refused(state, "{\"sed\":1}", "no such option; did you mean \"seed\"?");
    assert_file_refused(state, "{\"config\":\"x\"}", "no such option");
    assert_file_refused(state, "{\"help\":true}", "no such option");
    assert_file_refused(state, "{\"max-batch-tokens\":1}", "no such option");
}

static void file_values_of_no_use_are_refused(void **state)
{
    assert_file_refused(state, "{\"seed\":[1]}", "must be a string, a number");
    assert_file_refused(state, "{\"seed\":-1}", "whole number");
    assert_file_refused(state, "{\"dry_run\":1}", "true or false");
    assert_file_refused(state, "[1]", "must be a JSON object");
    assert_file_refused(state, "{\"seed\":1,\"seed\":1}", "duplicate");
}

static void a_missing_file_is_refused(void **state)
{
    run r;
    moe_status status = start(&r, WORDS("--config", test_folder_path(*state, "absent")), NO_WORDS);

    finish(&r);
    assert_int_equal(status, MOE_ERR_INVALID_ARG);
}

/* ------------------------------------------------------------------------------------------------ output */

/* Runs with standard output going to a file; the text is the caller's. */
static char *output_of(void **state, const char *const *flags, moe_options_next *next_out)
{
    const char *path = test_folder_path(*state, "stdout");
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600), before;
    moe_status status;
    run r;

    (void)fflush(stdout);
    before = dup(STDOUT_FILENO);
    (void)dup2(fd, STDOUT_FILENO);
    status = start(&r, flags, NO_WORDS);
    (void)fflush(stdout);
    (void)dup2(before, STDOUT_FILENO);
    (void)close(before);
    (void)close(fd);
    *next_out = r.next;
    finish(&r);
    assert_int_equal(status, MOE_OK);
    return test_read_file(path, NULL);
}

static void a_short_flag_asks_for_help_too(void **state)
{
    moe_options_next next;
    char *text = output_of(state, WORDS("-h"), &next);

    assert_int_equal(next, MOE_OPTIONS_EXIT_OK);
    assert_contains(text, "usage: conclave-test [OPTION]... WORD");
    free(text);
}

static void output_that_does_not_arrive_is_a_failure(void **state)
{
    static const char *const flags[] = {"--help", "--version", "--print-config"};
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC), before;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(flags); i++) {
        moe_status status;
        moe_error err;
        run r;

        (void)fflush(stdout);
        before = dup(STDOUT_FILENO);
        (void)dup2(full, STDOUT_FILENO);
        status = start(&r, WORDS(flags[i]), NO_WORDS);
        err = r.err;
        clearerr(stdout);
        (void)dup2(before, STDOUT_FILENO);
        (void)close(before);
        finish(&r);
        assert_int_equal(status, MOE_ERR_IO);
        assert_string_equal(err.text, "standard output: No space left on device");
    }
    (void)close(full);
}

static void origins_are_told_where_they_are_wanted(void **state)
{
    moe_option_origin origins[MOE_COUNT(options)];
    const moe_program asking = {
        .name = "x", .summary = "", .options = options, .n_options = MOE_COUNT(options), .origins = origins};
    char program_name[] = "x", flag[] = "--seed=1", variable[] = "CONCLAVE_SHARE=0.5";
    char *argv[] = {program_name, flag, NULL}, *env[] = {variable, NULL};
    moe_options_next next;
    moe_error err;
    config c;

    (void)state;
    assert_ok(moe_options_parse(&asking, &c, 2, argv, env, NULL, 0, NULL, &next, &err), err);
    assert_int_equal(origins[0], MOE_FROM_DEFAULT);
    assert_int_equal(origins[1], MOE_FROM_FLAG);
    assert_int_equal(origins[3], MOE_FROM_ENVIRONMENT);
    moe_options_fini(&asking, &c);
}

static void a_label_names_an_option_as_it_was_given(void **state)
{
    moe_error label;

    (void)state;
    moe_option_label("top_p", "5", MOE_FROM_FLAG, NULL, &label);
    assert_string_equal(label.text, "--top-p 5 (command line)");
    moe_option_label("top_p", "5", MOE_FROM_ENVIRONMENT, NULL, &label);
    assert_string_equal(label.text, "CONCLAVE_TOP_P=5 (environment)");
    moe_option_label("top_p", "5", MOE_FROM_FILE, "c.json", &label);
    assert_string_equal(label.text, "\"top_p\": 5 (c.json)");
}

static void help_names_every_option_with_its_default_and_range(void **state)
{
    moe_options_next next;
    char *text = output_of(state, WORDS("--help", "--seed=1"), &next);

    assert_int_equal(next, MOE_OPTIONS_EXIT_OK);
    assert_contains(text, "conclave-test");
    assert_contains(text, "--max-batch-tokens VALUE\n        tokens in one step [1 to 65536] (default: 4096)");
    assert_contains(text, "--listen HOST:PORT");
    assert_contains(text, "[fast, exact]");
    assert_contains(text, "--print-config");
    free(text);
}

static void version_is_one_line(void **state)
{
    moe_options_next next;
    char *text = output_of(state, WORDS("--version"), &next);

    assert_int_equal(next, MOE_OPTIONS_EXIT_OK);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    assert_contains(text, "conclave-test ");
    free(text);
}

static void print_config_says_where_each_value_is_from(void **state)
{
    const char *file = config_flag(state, "{\"seed\":7}");
    moe_options_next next;
    char *text = output_of(state, WORDS("--print-config", file, "--listen=\"x\""), &next);

    assert_int_equal(next, MOE_OPTIONS_EXIT_OK);
    assert_contains(text, "\"listen\": \"\\\"x\\\"\"");
    assert_contains(text, "\"listen\": \"flag\"");
    assert_contains(text, "\"seed\": 7");
    assert_contains(text, "\"seed\": \"file\"");
    assert_contains(text, "\"share\": 0.1,");
    assert_contains(text, "\"share\": \"default\"");
    free(text);
}

static void what_print_config_prints_is_a_config_file(void **state)
{
    moe_options_next next;
    char *text = output_of(state,
                           WORDS("--print-config", "--seed=18446744073709551615", "--cache-bytes=3K", "--share=0.3",
                                 "--dry-run", "--mode=exact"),
                           &next);
    run r;
    moe_status status = start(&r, WORDS(config_flag(state, text)), NO_WORDS);

    free(text);
    assert_ok(status, r.err);
    assert_true(r.c.seed == UINT64_MAX);
    assert_int_equal(r.c.cache_bytes, 3072);
    assert_true(r.c.share == 0.3);
    assert_true(r.c.dry_run);
    assert_string_equal(r.c.mode, "exact");
    assert_null(r.c.unset);
    finish(&r);
}

#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, test_folder_setup, test_folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_what_nobody_gives),
        cmocka_unit_test(flags_take_their_value_after_a_blank_or_equals),
        cmocka_unit_test(booleans_need_no_value_but_take_one),
        cmocka_unit_test(the_last_flag_wins),
        cmocka_unit_test(a_list_grows_with_every_flag_and_comes_from_one_source),
        FOLDER_TEST(flag_beats_environment_beats_file_beats_default),
        FOLDER_TEST(the_file_may_come_from_the_environment),
        FOLDER_TEST(file_values_have_their_json_types),
        cmocka_unit_test(words_without_dashes_are_arguments),
        cmocka_unit_test(the_log_level_is_set),
        cmocka_unit_test(variables_of_other_programs_are_left_alone),
        cmocka_unit_test(variables_that_kubernetes_makes_of_a_service_are_left_alone),
        cmocka_unit_test(unknown_variables_are_refused_with_the_one_that_was_meant),
        cmocka_unit_test(sizes_take_binary_units),
        cmocka_unit_test(sizes_are_told_in_the_unit_that_fits),
        cmocka_unit_test(other_sizes_are_refused),
        cmocka_unit_test(a_flag_out_of_range_names_value_source_and_limits),
        cmocka_unit_test(an_environment_value_out_of_range_names_its_variable),
        FOLDER_TEST(a_file_value_out_of_range_names_the_file),
        cmocka_unit_test(words_that_are_no_numbers_are_refused),
        cmocka_unit_test(reals_must_be_finite_decimals),
        cmocka_unit_test(a_choice_names_the_others),
        cmocka_unit_test(a_boolean_is_true_or_false),
        cmocka_unit_test(unknown_flags_are_refused),
        cmocka_unit_test(a_misspelt_flag_is_refused_with_the_one_that_was_meant),
        cmocka_unit_test(words_that_begin_with_a_dash_but_no_letter_are_arguments),
        cmocka_unit_test(a_flag_without_its_value_is_refused),
        cmocka_unit_test(a_word_too_many_is_refused),
        FOLDER_TEST(unknown_file_keys_are_refused),
        FOLDER_TEST(file_values_of_no_use_are_refused),
        FOLDER_TEST(a_missing_file_is_refused),
        FOLDER_TEST(a_short_flag_asks_for_help_too),
        cmocka_unit_test(output_that_does_not_arrive_is_a_failure),
        cmocka_unit_test(origins_are_told_where_they_are_wanted),
        cmocka_unit_test(a_label_names_an_option_as_it_was_given),
        FOLDER_TEST(help_names_every_option_with_its_default_and_range),
        FOLDER_TEST(version_is_one_line),
        FOLDER_TEST(print_config_says_where_each_value_is_from),
        FOLDER_TEST(what_print_config_prints_is_a_config_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
