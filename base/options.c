#include "base/options_priv.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES ((size_t)1 << 20)
#define MAX_CONFIG_DEPTH 4
#define MAX_PRINT_BYTES  ((size_t)4 << 20)
#define ENV_PREFIX       "CONCLAVE_"
#define ORIGIN_KEY       "_origin" /* of --print-config; skipped when it is read back */

#define MAX_COMMAND ((size_t)8 << 10) /* bytes of the command in the log */

extern char **environ;

static const char *const origin_names[] = {"none", "default", "file", "environment", "flag"};
static const char *const log_levels[] = {"error", "warn", "info", "debug", "trace", NULL};
static const char *const log_formats[] = {"text", "json", NULL};

/* What every program has. */
typedef struct builtin_config {
    bool help, version, print_config;
    char *config, *log_level, *log_format; /* owned */
} builtin_config;

static const moe_option builtin_options[] = {
    {.name = "config",
     .kind = MOE_OPT_STRING,
     .offset = offsetof(builtin_config, config),
     .value = "FILE",
     .help = "JSON file with options under their names, with _ for -"},
    {.name = "log_level",
     .kind = MOE_OPT_CHOICE,
     .offset = offsetof(builtin_config, log_level),
     .fallback = "info",
     .choices = log_levels,
     .value = "LEVEL",
     .help = "least important messages to log"},
    {.name = "log_format",
     .kind = MOE_OPT_CHOICE,
     .offset = offsetof(builtin_config, log_format),
     .fallback = "text",
     .choices = log_formats,
     .value = "FORMAT",
     .help = "how lines of the log look; json: one object a line"},
    {.name = "print_config",
     .kind = MOE_OPT_BOOL,
     .offset = offsetof(builtin_config, print_config),
     .help = "print the effective configuration and where each value is from, then exit"},
    {.name = "help", .kind = MOE_OPT_BOOL, .offset = offsetof(builtin_config, help), .help = "print this and exit"},
    {.name = "version",
     .kind = MOE_OPT_BOOL,
     .offset = offsetof(builtin_config, version),
     .help = "print the version and exit"},
};

/* One option of this parse, of the program's table or of the builtin one. */
typedef struct slot {
    const moe_option *option;
    void *config;
    moe_option_origin from;
    bool is_action; /* help, version, print_config: by flag only */
} slot;

typedef struct parse {
    const moe_program *program;
    builtin_config builtin;
    slot *slots; /* owned */
    size_t n_slots;
    moe_error *err;
} parse;

static bool is_builtin_action(const moe_option *option)
{
    return option >= builtin_options && option < builtin_options + MOE_COUNT(builtin_options) &&
           option->kind == MOE_OPT_BOOL;
}

static slot *find_slot(parse *p, const char *name, size_t n)
{
    for (size_t i = 0; i < p->n_slots; i++) {
        const char *own = p->slots[i].option->name;

        if (strlen(own) == n && memcmp(own, name, n) == 0) {
            return &p->slots[i];
        }
    }
    return NULL;
}

/* Sources come from the strongest to the weakest: a value that something stronger gave stays. */
static moe_status set(parse *p, slot *s, const char *text, moe_option_origin from)
{
    moe_error label, reason;
    moe_status status;

    if (s->from > from) {
        return MOE_OK;
    }
    bool is_more = s->option->is_list && from == MOE_FROM_FLAG && s->from == from;
    status = (is_more ? option_value_add : option_value_set)(s->option, s->config, text, &reason);
    if (status != MOE_OK) {
        moe_option_label(s->option->name, text, from, p->builtin.config, &label);
        return moe_fail(p->err, status, "%s: %s", label.text, reason.text);
    }
    s->from = from;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ the four sources */

/* The options of this program that look like the word. */
static moe_status unknown_flag(parse *p, const char *word, size_t n)
{
    moe_guess guess;
    char name[OPTION_NAME_BYTES], flag[OPTION_NAME_BYTES];
    size_t dashes = strspn(word, "-");

    n = MOE_MIN(n, sizeof name - 1);
    for (size_t i = 0; i < n; i++) {
        name[i] = (char)(word[i] == '-' ? '_' : word[i]);
    }
    guess = moe_guess_of(name + MOE_MIN(dashes, n), n - MOE_MIN(dashes, n));
    for (size_t i = 0; i < p->n_slots; i++) {
        moe_guess_offer(&guess, p->slots[i].option->name);
    }
    if (guess.best == NULL) {
        return moe_fail(p->err, MOE_ERR_INVALID_ARG, "%.*s (command line): no such option; see --help%s", (int)n, word,
                        dashes == 1 ? "; a text that begins with - goes after --" : "");
    }
    option_flag_name(guess.best, flag);
    return moe_fail(p->err, MOE_ERR_INVALID_ARG, "%.*s (command line): no such option; did you mean %s?", (int)n, word,
                    flag);
}

/* argv[*at] starts with --; *at moves on when the value is the next word. */
static moe_status apply_flag(parse *p, int argc, char **argv, int *at)
{
    const char *word = argv[*at] + 2;
    const char *equals = strchr(word, '=');
    size_t n = equals != NULL ? (size_t)(equals - word) : strlen(word);
    char name[OPTION_NAME_BYTES];
    slot *s = NULL;

    if (n < sizeof name && memchr(word, '_', n) == NULL) {
        for (size_t i = 0; i < n; i++) {
            name[i] = (char)(word[i] == '-' ? '_' : word[i]);
        }
        s = find_slot(p, name, n);
    }
    if (s == NULL) {
        return unknown_flag(p, argv[*at], n + 2);
    }
    if (equals != NULL) {
        return set(p, s, equals + 1, MOE_FROM_FLAG);
    }
    if (s->option->kind == MOE_OPT_BOOL) {
        return set(p, s, "true", MOE_FROM_FLAG);
    }
    if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0) {
        return moe_fail(p->err, MOE_ERR_INVALID_ARG, "--%s (command line): needs a value: --%s %s", word, word,
                        s->option->value != NULL ? s->option->value : "VALUE");
    }
    return set(p, s, argv[++*at], MOE_FROM_FLAG);
}

/* -x is a misspelt option; "-", "-3" and "- a list" are words. */
static bool is_short(const char *word)
{
    return word[0] == '-' && isalpha((unsigned char)word[1]) != 0;
}

static moe_status apply_word(parse *p, const char *word, const char **args, size_t max_args, size_t *n_args)
{
    if (args == NULL || *n_args == max_args) {
        size_t max = args == NULL ? 0 : max_args;

        return moe_fail(p->err, MOE_ERR_INVALID_ARG, "%.128s (command line): unexpected word; at most %zu %s allowed%s",
                        word, max, max == 1 ? "is" : "are", max == 1 ? ", so a text of several needs quotes" : "");
    }
    args[(*n_args)++] = word;
    return MOE_OK;
}

static moe_status apply_argv(parse *p, int argc, char **argv, const char **args, size_t max_args, size_t *n_args_out)
{
    size_t n_args = 0;
    moe_status status = MOE_OK;
    bool flags_ended = false;

    for (int i = 1; i < argc && status == MOE_OK; i++) {
        if (!flags_ended && strcmp(argv[i], "--") == 0) {
            flags_ended = true;
        } else if (!flags_ended && strncmp(argv[i], "--", 2) == 0) {
            status = apply_flag(p, argc, argv, &i);
        } else if (!flags_ended && strcmp(argv[i], "-h") == 0) {
            p->builtin.help = true;
        } else if (!flags_ended && is_short(argv[i])) {
            status = unknown_flag(p, argv[i], strcspn(argv[i], "="));
        } else {
            status = apply_word(p, argv[i], args, max_args, &n_args);
        }
    }
    if (n_args_out != NULL) {
        *n_args_out = n_args;
    }
    return status;
}

/* CONCLAVE_SED -> did you mean CONCLAVE_SEED? Ours come first, then those of the other programs. */
static moe_status unknown_variable(parse *p, const char *variable, const char *name)
{
    moe_guess guess = moe_guess_of(name, strlen(name));
    char meant[OPTION_NAME_BYTES];

    for (size_t i = 0; i < p->n_slots; i++) {
        if (!p->slots[i].is_action) {
            moe_guess_offer(&guess, p->slots[i].option->name);
        }
    }
    option_names_offer(&guess);
    if (guess.best == NULL) {
        return moe_fail(p->err, MOE_ERR_INVALID_ARG, "%s (environment): no option of any Conclave program; unset it",
                        variable);
    }
    option_env_name(guess.best, meant);
    return moe_fail(p->err, MOE_ERR_INVALID_ARG, "%s (environment): no such option; did you mean %s?", variable, meant);
}

/* entry: CONCLAVE_SOME_NAME=value. Variables of our other programs are left alone: they share the environment. */
static moe_status apply_variable(parse *p, const char *entry)
{
    size_t n = strcspn(entry, "=");
    char variable[OPTION_NAME_BYTES], name[OPTION_NAME_BYTES];
    bool is_upper = true;
    slot *s;

    if (entry[n] == '\0' || n >= sizeof variable) {
        return MOE_OK;
    }
    (void)snprintf(variable, sizeof variable, "%.*s", (int)n, entry);
    (void)snprintf(name, sizeof name, "%s", variable + strlen(ENV_PREFIX));
    for (char *c = name; *c != '\0'; c++) {
        is_upper = is_upper && islower((unsigned char)*c) == 0;
        *c = (char)tolower((unsigned char)*c);
    }
    s = find_slot(p, name, strlen(name));
    if (!is_upper || (s != NULL && s->is_action)) {
        return unknown_variable(p, variable, name);
    }
    if (s != NULL) {
        return set(p, s, entry + n + 1, MOE_FROM_ENVIRONMENT);
    }
    return option_name_known(name) ? MOE_OK : unknown_variable(p, variable, name);
}

static moe_status apply_environment(parse *p, char **env)
{
    moe_status status = MOE_OK;

    for (; *env != NULL && status == MOE_OK; env++) {
        if (strncmp(*env, ENV_PREFIX, strlen(ENV_PREFIX)) == 0) {
            status = apply_variable(p, *env);
        }
    }
    return status;
}

static moe_status apply_json(parse *p, slot *s, const json_t *value, const char *path)
{
    char text[64];

    switch (json_typeof(value)) {
    case JSON_NULL:
        return MOE_OK;
    case JSON_STRING:
        return set(p, s, json_string_value(value), MOE_FROM_FILE);
    case JSON_TRUE:
        return set(p, s, "true", MOE_FROM_FILE);
    case JSON_FALSE:
        return set(p, s, "false", MOE_FROM_FILE);
    case JSON_INTEGER:
        (void)snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return set(p, s, text, MOE_FROM_FILE);
    case JSON_REAL:
        (void)snprintf(text, sizeof text, "%.17g", json_real_value(value));
        return set(p, s, text, MOE_FROM_FILE);
    default:
        return moe_fail(p->err, MOE_ERR_INVALID_ARG, "\"%s\" (%s): must be a string, a number, true or false",
                        s->option->name, path);
    }
}

static moe_status unknown_key(parse *p, const char *key, const char *path)
{
    moe_guess guess = moe_guess_of(key, strlen(key));

    for (size_t i = 0; i < p->n_slots; i++) {
        if (!p->slots[i].is_action && strcmp(p->slots[i].option->name, "config") != 0) {
            moe_guess_offer(&guess, p->slots[i].option->name);
        }
    }
    return moe_fail(p->err, MOE_ERR_INVALID_ARG, "\"%.96s\" (%.128s): no such option%s%s%s", key, path,
                    guess.best != NULL ? "; did you mean \"" : "", guess.best != NULL ? guess.best : "",
                    guess.best != NULL ? "\"?" : "");
}

static moe_status apply_file(parse *p)
{
    const char *path = p->builtin.config, *key;
    moe_json *json;
    json_t *value;
    moe_status status;

    if (path == NULL) {
        return MOE_OK;
    }
    status = moe_json_load(path, MAX_CONFIG_BYTES, MAX_CONFIG_DEPTH, &json, p->err);
    if (status != MOE_OK) { /* whatever it is, the configuration is not what the user wants it to be */
        return status == MOE_ERR_NO_MEMORY ? status : MOE_ERR_INVALID_ARG;
    }
    if (!json_is_object(json)) {
        status = moe_fail(p->err, MOE_ERR_INVALID_ARG, "%s: must be a JSON object", path);
    }
    json_object_foreach(json, key, value)
    {
        slot *s = find_slot(p, key, strlen(key));

        if (status != MOE_OK || strcmp(key, ORIGIN_KEY) == 0) {
            continue;
        }
        if (s == NULL || s->is_action || strcmp(key, "config") == 0) {
            status = unknown_key(p, key, path);
        } else {
            status = apply_json(p, s, value, path);
        }
    }
    moe_json_free(json);
    return status;
}

static moe_status apply_defaults(parse *p)
{
    moe_status status = MOE_OK;

    for (size_t i = 0; i < p->n_slots && status == MOE_OK; i++) {
        slot *s = &p->slots[i];

        if (s->from == MOE_FROM_NONE) {
            if (s->option->fallback != NULL) {
                status = set(p, s, s->option->fallback, MOE_FROM_DEFAULT);
            }
            s->from = MOE_FROM_DEFAULT;
        }
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ output */

static void write_help(const moe_program *program, FILE *out)
{
    (void)fprintf(out, "usage: %s [OPTION]...%s%s\n%s\n\n", program->name, program->arguments != NULL ? " " : "",
                  program->arguments != NULL ? program->arguments : "", program->summary);
    for (size_t i = 0; i < program->n_options; i++) {
        option_print_help(&program->options[i], out);
    }
    for (size_t i = 0; i < MOE_COUNT(builtin_options); i++) {
        option_print_help(&builtin_options[i], out);
    }
    (void)fprintf(
        out, "\nAn option --some-name is also read from the environment as CONCLAVE_SOME_NAME and from the --config\n"
             "file as \"some_name\". The command line beats the environment, which beats the file.\n"
             "Exit code: 0 success; 2 the command line or the configuration is refused; 1 any other failure. "
             "docs/cli.md has the others.\n");
}

static moe_status print_help(parse *p)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    if (out == NULL) {
        return moe_fail(p->err, MOE_ERR_NO_MEMORY, "--help: out of memory");
    }
    write_help(p->program, out);
    moe_status status = fclose(out) == 0 ? moe_output_write(text, n, p->err)
                                         : moe_fail(p->err, MOE_ERR_NO_MEMORY, "--help: out of memory");
    free(text);
    return status;
}

static moe_status print_config(parse *p)
{
    moe_text text;
    moe_status status;

    moe_text_init(&text, MAX_PRINT_BYTES);
    moe_text_printf(&text, "{\n");
    for (size_t i = 0; i < p->n_slots; i++) {
        if (!p->slots[i].is_action && strcmp(p->slots[i].option->name, "config") != 0) {
            moe_text_printf(&text, "  \"%s\": ", p->slots[i].option->name);
            option_value_print(p->slots[i].option, p->slots[i].config, &text);
            moe_text_printf(&text, ",\n");
        }
    }
    moe_text_printf(&text, "  \"" ORIGIN_KEY "\": {");
    for (size_t i = 0, n = 0; i < p->n_slots; i++) {
        if (!p->slots[i].is_action && strcmp(p->slots[i].option->name, "config") != 0) {
            moe_text_printf(&text, "%s\n    \"%s\": \"%s\"", n++ > 0 ? "," : "", p->slots[i].option->name,
                            origin_names[p->slots[i].from]);
        }
    }
    moe_text_printf(&text, "\n  }\n}\n");
    status = text.failed ? moe_fail(p->err, MOE_ERR_NO_MEMORY, "--print-config: out of memory") : MOE_OK;
    if (status == MOE_OK) {
        status = moe_output_write(text.data, text.size, p->err);
    }
    moe_text_fini(&text);
    return status;
}

/* ------------------------------------------------------------------------------------------------ all of it */

static void add_slots(parse *p, const moe_option *options, size_t n, void *config)
{
    for (size_t i = 0; i < n; i++) {
        option_value_clear(&options[i], config);
        p->slots[p->n_slots++] =
            (slot){.option = &options[i], .config = config, .is_action = is_builtin_action(&options[i])};
    }
}

static moe_status apply_all(parse *p, int argc, char **argv, char **env, const char **args, size_t max_args,
                            size_t *n_args_out, moe_options_next *next_out)
{
    moe_log_level level;
    moe_status status = apply_argv(p, argc, argv, args, max_args, n_args_out);

    *next_out = MOE_OPTIONS_EXIT_OK;
    if (status == MOE_OK && p->builtin.help) {
        return print_help(p);
    }
    if (status == MOE_OK && p->builtin.version) {
        (void)printf("%s %s\n", p->program->name, MOE_VERSION);
        return moe_output_flush(p->err);
    }
    if (status == MOE_OK) {
        status = apply_environment(p, env);
    }
    if (status == MOE_OK) {
        status = apply_file(p);
    }
    if (status == MOE_OK) {
        status = apply_defaults(p);
    }
    if (status != MOE_OK || p->builtin.print_config) {
        return status == MOE_OK ? print_config(p) : status;
    }
    MOE_ASSERT(moe_log_level_parse(p->builtin.log_level, &level));
    moe_log_set_level(level);
    moe_log_set_format(strcmp(p->builtin.log_format, "json") == 0 ? MOE_LOG_JSON : MOE_LOG_TEXT);
    *next_out = MOE_OPTIONS_RUN;
    return MOE_OK;
}

moe_status moe_options_parse(const moe_program *program, void *config, int argc, char **argv, char **env,
                             const char **args, size_t max_args, size_t *n_args_out, moe_options_next *next_out,
                             moe_error *err)
{
    parse p = {.program = program, .err = err};
    moe_options_next next = MOE_OPTIONS_EXIT_OK;
    size_t n_args = 0;
    moe_status status;

    p.slots = calloc(program->n_options + MOE_COUNT(builtin_options), sizeof *p.slots);
    if (p.slots == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    add_slots(&p, program->options, program->n_options, config);
    add_slots(&p, builtin_options, MOE_COUNT(builtin_options), &p.builtin);
    status = apply_all(&p, argc, argv, env != NULL ? env : environ, args, max_args, &n_args, &next);
    for (size_t i = 0; program->origins != NULL && i < program->n_options; i++) {
        program->origins[i] = p.slots[i].from;
    }
    free(p.builtin.config);
    free(p.builtin.log_level);
    free(p.builtin.log_format);
    free(p.slots);
    if (status != MOE_OK || next != MOE_OPTIONS_RUN) {
        moe_options_fini(program, config);
    }
    if (status == MOE_OK) {
        *next_out = next;
        if (n_args_out != NULL) {
            *n_args_out = n_args;
        }
    }
    return status;
}

void moe_options_log_start(const moe_program *program, int argc, char **argv)
{
    moe_text command;

    moe_text_init(&command, MAX_COMMAND);
    for (int i = 0; i < argc; i++) {
        moe_text_printf(&command, "%s%s", i > 0 ? " " : "", argv[i]);
    }
    const moe_log_field fields[] = {{.name = "version", .text = MOE_VERSION},
                                    {.name = "command", .text = moe_text_cstr(&command)}};
    moe_log_event(MOE_LOG_INFO, program->name, fields, MOE_COUNT(fields));
    moe_text_fini(&command);
}

void moe_options_fini(const moe_program *program, void *config)
{
    for (size_t i = 0; i < program->n_options; i++) {
        const moe_option *option = &program->options[i];

        if (option_is_text(option)) {
            char **field = (char **)(void *)((unsigned char *)config + option->offset);

            free(*field);
            *field = NULL;
        }
    }
}
