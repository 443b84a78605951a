/* The table of commands and the program around it. */
#include <errno.h>
#include <string.h>

#include "cli/cli.h"

#define ROWS(table)                                                                                                    \
    &(const cli_options)                                                                                               \
    {                                                                                                                  \
        (table), MOE_COUNT(table)                                                                                      \
    }

static const cli_option tokens_options[] = {
    {"tokens", "token_ids.ids", CLI_LIST, "1,2,3", "the prompt as token ids"},
};

static const cli_option text_options[] = {
    {"add_special_tokens", "add_special_tokens", CLI_VALUE, "true|false",
     "let the tokenizer add its special tokens to a text; unset: true"},
};

static const cli_option request_options[] = {
    {"set", "set.id", CLI_VALUE, "ID", "expert set; unset: the current one"},
    {"request_id", "request_id", CLI_VALUE, "ID", "name of the request in logs; unset: the server draws one"},
};

static const cli_option sampling_options[] = {
    {"max_tokens", "sampling.max_tokens", CLI_VALUE, "N", "end the answer after N tokens"},
    {"min_tokens", "sampling.min_tokens", CLI_VALUE, "N", "no stop token before N tokens"},
    {"temperature", "sampling.temperature", CLI_VALUE, "X", "0: always the likeliest token"},
    {"top_k", "sampling.top_k", CLI_VALUE, "N", "choose among the N likeliest; 0: off"},
    {"top_p", "sampling.top_p", CLI_VALUE, "X", "choose among the likeliest that make up X of the weight; 1: off"},
    {"min_p", "sampling.min_p", CLI_VALUE, "X", "leave out tokens below X times the weight of the likeliest; 0: off"},
    {"repetition_penalty", "sampling.repetition_penalty", CLI_VALUE, "X", "on tokens of prompt and answer; 1: off"},
    {"frequency_penalty", "sampling.frequency_penalty", CLI_VALUE, "X", "on tokens of the answer, by count; 0: off"},
    {"presence_penalty", "sampling.presence_penalty", CLI_VALUE, "X", "on tokens of the answer; 0: off"},
    {"seed", "sampling.seed", CLI_VALUE, "N", "of the random choices; unset: the server draws one"},
    {"stop", "sampling.stop", CLI_REPEAT, "TEXT", "end the answer before TEXT; may be given several times"},
    {"stop_token_ids", "sampling.stop_token_ids", CLI_LIST, "1,2,3", "end the answer at any of these tokens"},
    {"ignore_eos", "sampling.ignore_eos", CLI_FLAG, NULL, "go on after the end-of-sequence token"},
    {"progress", "progress", CLI_FLAG, NULL, "report the place in the queue and in the prompt"},
    {"stats", NULL, CLI_FLAG, NULL, "print tokens and tokens per second to standard error"},
};

static const cli_option generate_options[] = {
    {"logprobs", "sampling.logprobs", CLI_VALUE, "N", "a line per token: its log-probability and the N best"},
    {"n", "sampling.n", CLI_VALUE, "N", "independent answers; also -n N"},
    {"echo", "echo", CLI_FLAG, NULL, "print the prompt first"},
    {"resume_from", "resume_from.ids", CLI_LIST, "1,2,3", "tokens of this answer that are here already; needs --seed"},
    {"quiet", NULL, CLI_FLAG, NULL, "no --stats at a terminal either"},
};

static const cli_option chat_options[] = {
    {"system", NULL, CLI_VALUE, "TEXT", "system message"},
};

static const cli_option score_options[] = {
    {"top", "top", CLI_VALUE, "N", "the N likeliest tokens at each place"},
    {"experts", "experts", CLI_FLAG, NULL, "the experts that read each token, by layer"},
};

static const cli_option detokenize_options[] = {
    {"tokens", "ids", CLI_LIST, "1,2,3", "token ids, as the arguments are"},
    {"skip_special", "skip_special", CLI_FLAG, NULL, "leave special tokens out"},
};

static const cli_option layer_options[] = {
    {"layer", "layer", CLI_VALUE, "N", "this layer only"},
};

static const cli_option placement_options[] = {
    {"set", "set_id", CLI_VALUE, "ID", "expert set; unset: the current one"},
    {"replication", "replication", CLI_VALUE, "N", "policy: owners of every expert, as far as nodes and memory allow"},
    {"min_nodes", "min_nodes", CLI_VALUE, "N", "policy: nothing is placed for the first time before N nodes answer"},
};

static const cli_option nodes_options[] = {
    {"watch", NULL, CLI_FLAG, NULL, "print again after every change"},
};

static const cli_option health_options[] = {
    {"service", "service", CLI_VALUE, "NAME", "one service, as conclave.v1.Inference; unset: the whole server"},
};

static const char prompt_arguments[] = "PROMPT: the text; - is standard input, every byte of it";

const cli_command cli_commands[] = {
    {.name = "generate",
     .arguments = prompt_arguments,
     .summary = "Answer a prompt and print the text as it comes",
     .groups = {ROWS(tokens_options), ROWS(text_options), ROWS(generate_options), ROWS(sampling_options),
                ROWS(request_options)},
     .max_args = 1,
     .run = cli_generate_run},
    {.name = "chat",
     .arguments = "",
     .summary = "Talk, one line a message; /reset starts again, Ctrl-D ends",
     .groups = {ROWS(chat_options), ROWS(sampling_options), ROWS(request_options)},
     .run = cli_chat_run},
    {.name = "score",
     .arguments = prompt_arguments,
     .summary = "Log-probability of each token of a text",
     .groups = {ROWS(tokens_options), ROWS(text_options), ROWS(score_options), ROWS(request_options)},
     .max_args = 1,
     .run = cli_score_run},
    {.name = "classify",
     .arguments = prompt_arguments,
     .summary = "Class scores of a text, where the model has a classification head",
     .groups = {ROWS(tokens_options), ROWS(text_options), ROWS(request_options)},
     .max_args = 1,
     .run = cli_classify_run},
    {.name = "tokenize",
     .arguments = prompt_arguments,
     .summary = "Token ids of a text",
     .groups = {ROWS(text_options)},
     .max_args = 1,
     .run = cli_tokenize_run},
    {.name = "detokenize",
     .arguments = "ID...: token ids",
     .summary = "Text of token ids",
     .groups = {ROWS(detokenize_options)},
     .max_args = 1 << 16,
     .run = cli_detokenize_run},
    {.name = "model",
     .arguments = "",
     .summary = "What is served, and its limits",
     .groups = {NULL},
     .run = cli_model_run},
    {.name = "experts",
     .arguments = "",
     .summary = "Who owns which expert, rows routed to each since start, and what each layer's picks were",
     .groups = {ROWS(layer_options)},
     .run = cli_experts_run},
    {.name = "nodes",
     .arguments = "",
     .summary = "The members of the cluster",
     .groups = {ROWS(nodes_options)},
     .run = cli_nodes_run},
    {.name = "placement",
     .arguments = "policy: print the cluster's policy, after changing it by --replication and --min-nodes",
     .summary = "Who owns which expert; `placement policy`: how many are to",
     .groups = {ROWS(layer_options), ROWS(placement_options)},
     .max_args = 1,
     .run = cli_placement_run},
    {.name = "health",
     .arguments = "",
     .summary = "Exit code 0 only if the server is serving",
     .groups = {ROWS(health_options)},
     .run = cli_health_run},
    {.name = "convert",
     .arguments = "DIR OUT: a directory with pytorch_model.bin or its shards; a new or empty directory",
     .summary = "Turn a pickled PyTorch checkpoint into safetensors, here, without running it",
     .groups = {NULL},
     .max_args = 2,
     .run = cli_convert_run,
     .local = true},
};

const size_t cli_n_commands = MOE_COUNT(cli_commands);

static void print_usage(FILE *out)
{
    fprintf(out, "usage: conclave COMMAND [OPTION]... [ARGUMENT]...\n\n");
    for (size_t i = 0; i < cli_n_commands; i++) {
        fprintf(out, "  %-11s %s\n", cli_commands[i].name, cli_commands[i].summary);
    }
    fprintf(out,
            "\n`conclave COMMAND --help` lists the options. The server is --server HOST:PORT or CONCLAVE_SERVER.\n");
}

static const cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < cli_n_commands; i++) {
        if (strcmp(cli_commands[i].name, name) == 0) {
            return &cli_commands[i];
        }
    }
    return NULL;
}

/* Output that did not arrive is a failure too. */
static int finish(const char *name, moe_status status, const moe_error *err)
{
    if (status == MOE_OK && (fflush(stdout) != 0 || ferror(stdout) != 0)) {
        fprintf(stderr, "conclave %s: standard output: %s\n", name, strerror(errno));
        return CLI_EXIT_FAILED;
    }
    if (status == MOE_OK) {
        return CLI_EXIT_OK;
    }
    fflush(stdout);
    fprintf(stderr, "conclave %s: ", name);
    cli_put(stderr, err->text, strlen(err->text));
    fputc('\n', stderr);
    if (status == MOE_ERR_CANCELLED) {
        return CLI_EXIT_INTERRUPTED;
    }
    return status == MOE_ERR_INVALID_ARG ? CLI_EXIT_USAGE : CLI_EXIT_FAILED;
}

static int run_command(const cli_command *command, int argc, char **argv)
{
    cli_run run;
    moe_options_next next;
    moe_error err = {0};
    moe_status status = cli_run_parse(&run, command, argc, argv, NULL, &next, &err);
    int code;

    if (status != MOE_OK) {
        return finish(command->name, status, &err);
    }
    if (next == MOE_OPTIONS_RUN) {
        status = command->run(&run, &err);
    }
    code = finish(command->name, status, &err);
    cli_run_fini(&run);
    return code;
}

int cli_main(int argc, char **argv)
{
    const cli_command *command;

    if (argc < 2) {
        print_usage(stderr);
        return CLI_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return CLI_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("conclave %s\n", MOE_VERSION);
        return CLI_EXIT_OK;
    }
    command = find_command(argv[1]);
    if (command == NULL) {
        fprintf(stderr, "conclave: no command '%s'; conclave --help lists them\n", argv[1]);
        return CLI_EXIT_USAGE;
    }
    return run_command(command, argc - 1, argv + 1);
}
