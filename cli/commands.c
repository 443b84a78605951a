/* The table of commands and the program around it. */
#include <string.h>

#include "cli/cli.h"

#define ROWS(table)                                                                                                    \
    &(const cli_options)                                                                                               \
    {                                                                                                                  \
        (table), MOE_COUNT(table)                                                                                      \
    }

static const cli_option tokens_options[] = {
    {"tokens", "token_ids.ids", CLI_LIST, "1,2,3", "give the prompt as token ids, in place of a text"},
};

static const cli_option text_options[] = {
    {"add_special_tokens", "add_special_tokens", CLI_VALUE, "true|false",
     "whether the tokenizer adds its special tokens to the text (default: true)"},
};

static const cli_option request_options[] = {
    {"set", "set.id", CLI_VALUE, "NAME|ID",
     "use this expert set; base: the checkpoint's own (default: the current one)"},
    {"set_include", "set.include", CLI_REPEAT, "PACK", "put the experts of this pack into the current set; several"},
    {"set_exclude", "set.exclude", CLI_REPEAT, "PACK", "leave the experts of this pack out of it; several"},
    {"request_id", "request_id", CLI_VALUE, "ID",
     "name the request in the logs of the server (default: the server draws a name)"},
};

static const cli_option sampling_options[] = {
    {"max_tokens", "sampling.max_tokens", CLI_VALUE, "N", "end the answer after N tokens (default: the server's)"},
    {"min_tokens", "sampling.min_tokens", CLI_VALUE, "N",
     "allow no stop token before the answer has N tokens (default: 0)"},
    {"temperature", "sampling.temperature", CLI_VALUE, "X",
     "divide the logits by X; 0 always takes the likeliest token (default: the model's generation_config.json, else "
     "1)"},
    {"top_k", "sampling.top_k", CLI_VALUE, "N", "choose among the N likeliest tokens; 0 is off"},
    {"top_p", "sampling.top_p", CLI_VALUE, "X",
     "choose among the likeliest tokens that together have X of the weight; 1 is off"},
    {"min_p", "sampling.min_p", CLI_VALUE, "X",
     "leave out tokens with less than X times the weight of the likeliest; 0 is off"},
    {"repetition_penalty", "sampling.repetition_penalty", CLI_VALUE, "X",
     "make tokens of the prompt and the answer less likely; 1 is off"},
    {"frequency_penalty", "sampling.frequency_penalty", CLI_VALUE, "X",
     "make tokens of the answer less likely each time they occur; 0 is off"},
    {"presence_penalty", "sampling.presence_penalty", CLI_VALUE, "X",
     "make tokens of the answer less likely once they have occurred; 0 is off"},
    {"seed", "sampling.seed", CLI_VALUE, "N",
     "repeat the random choices of an answer; without it the server draws a seed, which --stats shows"},
    {"stop", "sampling.stop", CLI_REPEAT, "TEXT", "end the answer before TEXT; may be given several times"},
    {"stop_token_ids", "sampling.stop_token_ids", CLI_LIST, "1,2,3", "end the answer at any of these tokens"},
    {"ignore_eos", "sampling.ignore_eos", CLI_FLAG, NULL, "go on after the end-of-sequence token"},
    {"progress", "progress", CLI_FLAG, NULL, "report the place in the queue and in the prompt while waiting"},
    {"stats", NULL, CLI_FLAG, NULL, "print tokens, tokens per second and the seed to standard error"},
};

static const cli_option generate_options[] = {
    {"logprobs", "sampling.logprobs", CLI_VALUE, "N",
     "print a line per token with its log-probability and the N likeliest tokens"},
    {"n", "sampling.n", CLI_VALUE, "N", "give N independent answers; -n N is the same"},
    {"echo", "echo", CLI_FLAG, NULL, "print the prompt before the answer"},
    {"resume_from", "resume_from.ids", CLI_LIST, "1,2,3",
     "go on after these tokens of an earlier answer; needs its --seed"},
    {"expect", NULL, CLI_LIST, "1,2,3", "fail unless the answer is these tokens"},
    {"quiet", NULL, CLI_FLAG, NULL, "print no statistics, not even at a terminal"},
};

static const cli_option chat_options[] = {
    {"system", NULL, CLI_VALUE, "TEXT", "begin with this system message"},
    {"template_args", "messages.template_args", CLI_VALUE, "JSON",
     "variables of the chat template, such as {\"enable_thinking\": false}"},
    {"no_history", NULL, CLI_FLAG, NULL,
     "keep no file of the lines that are typed (default: $XDG_STATE_HOME/conclave/history, else "
     "~/.local/state/conclave/history)"},
};

static const cli_option score_options[] = {
    {"top", "top", CLI_VALUE, "N", "print the N likeliest tokens at each place"},
    {"experts", "experts", CLI_FLAG, NULL, "print the experts that read each token, layer by layer"},
};

static const cli_option detokenize_options[] = {
    {"tokens", "ids", CLI_LIST, "1,2,3", "give the token ids as one list, in place of arguments"},
    {"skip_special", "skip_special", CLI_FLAG, NULL, "leave special tokens out of the text"},
};

static const cli_option layer_options[] = {
    {"layer", "layer", CLI_VALUE, "N", "show this layer alone"},
};

static const cli_option placement_options[] = {
    {"set", "set_id", CLI_VALUE, "NAME|ID", "show this expert set (default: the current one)"},
    {"replication", NULL, CLI_VALUE, "N", "policy: owners of every expert, as far as nodes and memory allow"},
    {"min_nodes", NULL, CLI_VALUE, "N", "policy: nothing is placed for the first time before N nodes answer"},
};

static const cli_option packs_options[] = {
    {"model", NULL, CLI_VALUE, "DIR", "the checkpoint that the pack is for"},
    {"pack_key", NULL, CLI_VALUE, "FILE", "Ed25519 public key (PEM): pack.sig must be its signature"},
    {"text", NULL, CLI_VALUE, "FILE",
     "check: what a server's model makes of this text with the pack: the share of the picks that it would get, layer "
     "by layer, and bits per byte with and without it; it is on trial meanwhile"},
    {"shadow", NULL, CLI_VALUE, "SHARE",
     "add: the default set stays, and this share of the requests, as 5% or 0.05, is scored with the pack too"},
};

static const cli_option change_options[] = {
    {"dry_run", NULL, CLI_FLAG, NULL, "only say what would change"},
    {"why", NULL, CLI_VALUE, "TEXT", "a reason, for the log"},
};

static const cli_option by_options[] = {
    {"by", NULL, CLI_VALUE, "NAME", "who changes it, for the log (default: USER@HOST)"},
};

static const cli_option experts_options[] = {
    {"below", NULL, CLI_VALUE, "SHARE", "prune: what got less of its layer's rows since the start, as 0.2% or 0.002"},
    {"over", NULL, CLI_VALUE, "TIME",
     "prune by --below: the rows of the last 30m, 1h, ... in place of those since the start"},
    {"profile", NULL, CLI_VALUE, "FILE",
     "prune: by the rows that the texts of this file take, one JSON object with text or token_ids a line; without "
     "--below, what takes none"},
    {"keep_at_least", NULL, CLI_VALUE, "N", "prune by --below or --profile: leave N experts in every layer"},
    {"pack", NULL, CLI_VALUE, "NAME",
     "prune by --below or --profile: only experts of this pack; base: of the checkpoint"},
    {"by", NULL, CLI_VALUE, "NAME|pack|layer|set",
     "of a change: who makes it, for the log (default: USER@HOST); of stats: the sums over the experts of each pack, "
     "layer or set"},
    {"watch", NULL, CLI_FLAG, NULL, "stats: print again every 2 seconds, until Ctrl-C"},
};

static const cli_option sets_options[] = {
    {"include", NULL, CLI_REPEAT, "PACK", "define: with the experts of this pack; several"},
    {"exclude", NULL, CLI_REPEAT, "PACK", "define: without the experts of this pack; several"},
    {"experts", NULL, CLI_VALUE, "L:E,L:E-E", "define: just these experts in the layers that are named"},
    {"limit", NULL, CLI_VALUE, "N", "log: the latest N entries"},
};

static const cli_option manifest_options[] = {
    {"cache_dir", NULL, CLI_VALUE, "DIR",
     "where the manifest is cached (default: $XDG_CACHE_HOME/conclave or ~/.cache/conclave)"},
};

static const cli_option export_option_rows[] = {
    {"model", NULL, CLI_VALUE, "DIR", "the checkpoint"},
    {"pack", NULL, CLI_REPEAT, "DIR",
     "a pack whose experts are in it; several: in the order that the ids of a --set FILE follow from"},
    {"pack_key", NULL, CLI_VALUE, "FILE", "Ed25519 public key (PEM): each pack.sig must be its signature"},
    {"set", NULL, CLI_VALUE, "FILE|NAME|ID",
     "JSON with the experts of each layer; with --server, a set of it (default: all, without those that packs "
     "replace)"},
    {"exclude_pack", NULL, CLI_REPEAT, "NAME", "leave the experts of this pack out; base: those of the checkpoint"},
    {"uniform", NULL, CLI_VALUE, "N", "N FFN experts in every layer, so that other programs route as Conclave does"},
    {"dtype", NULL, CLI_VALUE, "auto|bf16|f32", "of all tensors; auto: as they are (default)"},
    {"max_file", NULL, CLI_VALUE, "SIZE", "of the files with weights (default: 4G)"},
};

static const cli_option all_options[] = {
    {"all", NULL, CLI_FLAG, NULL, "print a line per expert and fold nothing"},
};

static const cli_option nodes_options[] = {
    {"watch", NULL, CLI_FLAG, NULL, "print again after every change, until Ctrl-C"},
};

static const cli_option health_options[] = {
    {"service", "service", CLI_VALUE, "NAME",
     "ask for one service, as conclave.v1.Inference (default: the whole server)"},
};

static const char prompt_arguments[] = "PROMPT: the text; - is standard input, every byte of it";

/* What answers at once has a short deadline, what computes a long one; streams have none. */
#define QUICK "30"
#define SLOW  "600"

const cli_command cli_commands[] = {
    {.name = "generate",
     .usage = "PROMPT",
     .arguments = prompt_arguments,
     .summary = "Answer a prompt and print the text as it comes",
     .groups = {ROWS(tokens_options), ROWS(text_options), ROWS(generate_options), ROWS(sampling_options),
                ROWS(request_options)},
     .max_args = 1,
     .run = cli_generate_run},
    {.name = "chat",
     .summary = "Talk with the model, with history and editing at a terminal; /help lists what else can be typed",
     .groups = {ROWS(chat_options), ROWS(sampling_options), ROWS(request_options)},
     .run = cli_chat_run},
    {.name = "score",
     .usage = "PROMPT",
     .arguments = prompt_arguments,
     .summary = "Log-probability of each token of a text",
     .timeout = SLOW,
     .groups = {ROWS(tokens_options), ROWS(text_options), ROWS(score_options), ROWS(request_options)},
     .max_args = 1,
     .run = cli_score_run},
    {.name = "classify",
     .usage = "PROMPT",
     .arguments = prompt_arguments,
     .summary = "Class scores of a text, where the model has a classification head",
     .timeout = SLOW,
     .groups = {ROWS(tokens_options), ROWS(text_options), ROWS(request_options)},
     .max_args = 1,
     .run = cli_classify_run},
    {.name = "tokenize",
     .usage = "TEXT",
     .arguments = "TEXT: the text; - is standard input, every byte of it",
     .summary = "Token ids of a text",
     .timeout = QUICK,
     .groups = {ROWS(text_options)},
     .max_args = 1,
     .run = cli_tokenize_run},
    {.name = "detokenize",
     .usage = "ID...",
     .arguments = "ID: a token id; several in one word may be divided by commas",
     .summary = "Text of token ids",
     .timeout = QUICK,
     .groups = {ROWS(detokenize_options)},
     .max_args = 1 << 16,
     .run = cli_detokenize_run},
    {.name = "model",
     .summary = "What is served, and its limits",
     .timeout = QUICK,
     .groups = {NULL},
     .run = cli_model_run},
    {.name = "experts",
     .usage = "[list|stats|prune|restore] [L:E,L:E-E]",
     .arguments =
         "list: who owns which expert, and what stats prints; stats: rows routed to each since start; prune: "
         "take experts\n"
         "out of the default set, those that are named, --below or --profile; restore: put them in again, or --all",
     .summary = "Who owns which expert and how much it is used; prune and restore",
     .timeout = QUICK,
     .groups = {ROWS(layer_options), ROWS(all_options), ROWS(experts_options), ROWS(change_options)},
     .max_args = 2,
     .run = cli_experts_run},
    {.name = "nodes",
     .summary = "The members of the cluster",
     .timeout = QUICK,
     .groups = {ROWS(nodes_options)},
     .run = cli_nodes_run},
    {.name = "placement",
     .usage = "[policy]",
     .arguments = "policy: print the cluster's policy, after changing it by --replication and --min-nodes",
     .summary = "Who owns which expert; `placement policy`: how many are to",
     .timeout = QUICK,
     .groups = {ROWS(layer_options), ROWS(placement_options), ROWS(all_options)},
     .max_args = 1,
     .run = cli_placement_run},
    {.name = "health",
     .summary = "Exit code 0 only if the server is serving",
     .timeout = "5",
     .groups = {ROWS(health_options)},
     .run = cli_health_run},
    {.name = "convert",
     .usage = "DIR OUT",
     .arguments = "DIR: a directory with pytorch_model.bin or its shards; OUT: a new or empty directory",
     .summary = "Turn a pickled PyTorch checkpoint into safetensors, here, without running it",
     .groups = {NULL},
     .max_args = 2,
     .run = cli_convert_run,
     .local = true},
    {.name = "manifest",
     .usage = "DIR",
     .arguments = "DIR: a checkpoint directory, under the path that coordinators and nodes have it",
     .summary = "Hash a checkpoint ahead of the servers, which then find its manifest in the cache",
     .groups = {ROWS(manifest_options)},
     .max_args = 1,
     .run = cli_manifest_run,
     .local = true},
    {.name = "packs",
     .usage = "[list] | add PACK | promote PACK | remove PACK | update PACK NEW | rollback | check DIR | check PACK "
              "--text FILE",
     .arguments =
         "PACK: a name, NAME@VERSION or hash that list shows; to add, also a directory with a / in it, below "
         "--pack-dir of the server.\n"
         "promote: a pack that was added with --shadow comes into the default set; remove ends its trial.\n"
         "rollback: the default set before this one. check: whether DIR is sound and for --model, here, without a "
         "server; with --text, what PACK would do to a text, by a server",
     .summary = "Packs of new experts: list, add, try, remove, update, roll back; check one",
     .timeout = QUICK,
     .groups = {ROWS(packs_options), ROWS(change_options), ROWS(by_options)},
     .max_args = 3,
     .run = cli_packs_run},
    {.name = "sets",
     .usage = "[list [SET]] | define NAME | use SET | forget NAME | log | diff A B",
     .arguments = "SET: a name or an id; default: the default set; base: the checkpoint's own experts",
     .summary = "Sets of experts: list, name, make one the default; the log of changes",
     .timeout = QUICK,
     .groups = {ROWS(sets_options), ROWS(change_options), ROWS(by_options)},
     .max_args = 3,
     .run = cli_sets_run},
    {.name = "export",
     .usage = "OUT",
     .arguments = "OUT: a new or empty directory. A server is asked for --set alone, and only where --server is given",
     .summary = "Write a model with packs and a set of experts as a checkpoint of its own, here",
     .timeout = QUICK,
     .groups = {ROWS(export_option_rows)},
     .max_args = 1,
     .run = cli_export_run},
};

const size_t cli_n_commands = MOE_COUNT(cli_commands);

static void print_usage(FILE *out)
{
    fprintf(out, "usage: conclave COMMAND [OPTION]... [ARGUMENT]...\n\n");
    for (size_t i = 0; i < cli_n_commands; i++) {
        fprintf(out, "  %-11s %s\n", cli_commands[i].name, cli_commands[i].summary);
    }
    fprintf(out, "  %-11s %s\n  %-11s %s\n", "help", "This, or the options of a command: conclave help COMMAND",
            "version", "The version of this program");
    fprintf(out, "\nThe server is --server HOST[:PORT] or CONCLAVE_SERVER, else 127.0.0.1:50051.\n"
                 "Exit code: 0 success; 2 the command line or the configuration is refused; 1 any other failure; 130\n"
                 "interrupted.\n");
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

static int unknown_command(const char *name)
{
    moe_guess guess = moe_guess_of(name, strlen(name));

    for (size_t i = 0; i < cli_n_commands; i++) {
        moe_guess_offer(&guess, cli_commands[i].name);
    }
    moe_guess_offer(&guess, "help");
    moe_guess_offer(&guess, "version");
    fputs("conclave: no command '", stderr);
    cli_put(stderr, name, strlen(name));
    fprintf(stderr, guess.best != NULL ? "'; did you mean '%s'?\n" : "'; conclave --help lists them%s\n",
            guess.best != NULL ? guess.best : "");
    return MOE_EXIT_USAGE;
}

/* Output that did not arrive is a failure too. name NULL: of the program itself. */
static int finish(const char *name, moe_status status, moe_error *err)
{
    if (status == MOE_OK) {
        status = cli_flush(err);
    } else {
        fflush(stdout);
    }
    if (status == MOE_OK) {
        return MOE_EXIT_OK;
    }
    fprintf(stderr, "conclave%s%s: ", name != NULL ? " " : "", name != NULL ? name : "");
    cli_put(stderr, err->text, strlen(err->text));
    fputc('\n', stderr);
    return status == MOE_ERR_CANCELLED ? MOE_EXIT_INTERRUPTED : moe_exit_code(status);
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

/* conclave help [COMMAND] */
static int run_help(int argc, char **argv)
{
    static char flag[] = "--help";
    const cli_command *command;
    moe_error err = {0};

    if (argc < 3) {
        print_usage(stdout);
        return finish(NULL, MOE_OK, &err);
    }
    command = find_command(argv[2]);
    if (command == NULL) {
        return unknown_command(argv[2]);
    }
    return run_command(command, 2, (char *[]){argv[2], flag, NULL});
}

static bool is_one_of(const char *word, const char *a, const char *b)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

int cli_main(int argc, char **argv)
{
    const cli_command *command;
    moe_error err = {0};

    if (argc < 2) {
        print_usage(stderr);
        return MOE_EXIT_USAGE;
    }
    if (is_one_of(argv[1], "--help", "-h")) {
        return run_help(MOE_MIN(argc, 2), argv);
    }
    if (strcmp(argv[1], "help") == 0) {
        return run_help(argc, argv);
    }
    if (is_one_of(argv[1], "--version", "version")) {
        printf("conclave %s\n", MOE_VERSION);
        return finish(NULL, MOE_OK, &err);
    }
    command = find_command(argv[1]);
    return command != NULL ? run_command(command, argc - 1, argv + 1) : unknown_command(argv[1]);
}
