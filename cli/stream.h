/* stream: what the chunks of one Generate call look like on standard output.
 *
 * A stream is the caller's memory between init and fini and belongs to one thread. */
#ifndef CONCLAVE_CLI_STREAM_H
#define CONCLAVE_CLI_STREAM_H

#include <protobuf-c/protobuf-c.h>

#include "base/base.h"
#include "cli/cli.h"

enum { CLI_MAX_CHOICES = 16 };

typedef enum {
    CLI_STREAM_TEXT,  /* the text of the first choice as it comes, the others after it */
    CLI_STREAM_TABLE, /* a line per token with its log-probability */
    CLI_STREAM_JSON,  /* a line per chunk */
} cli_stream_form;

typedef struct cli_choice {
    moe_text text, ids; /* what has come so far */
} cli_choice;

typedef struct cli_stream {
    cli_stream_form form;
    const char *expect;  /* the ids of the first choice, "5,6,7"; NULL: whatever comes. Set after init; borrowed */
    bool ids_if_no_text; /* a server without a tokenizer sends no text: print token ids */
    cli_choice choices[CLI_MAX_CHOICES];
    bool cut_short;                       /* the server ended a choice with CANCELLED */
    uint64_t start_ns, first_ns, last_ns; /* our clock: the call, the first and the last tokens */
    double decode_s;                      /* the server's, from the first token to the last; 0: not told */
    uint64_t n_tokens;
    uint32_t n_prompt;
    uint64_t seed; /* that the server used */
    bool has_seed;
} cli_stream;

void cli_stream_init(cli_stream *s, cli_stream_form form, bool ids_if_no_text);
void cli_stream_fini(cli_stream *s);
/* Makes the call and prints its answer as it comes; also of a call that fails what came before it did. Errors: as
 * cli_run_call; MOE_ERR_UNAVAILABLE when the server cut the answer short; MOE_ERR_CORRUPT when it is not the expected one;
 * MOE_ERR_IO. */
MOE_NODISCARD moe_status cli_stream_call(cli_stream *s, cli_run *run, const ProtobufCMessage *request, moe_error *err);
/* Tokens, tokens per second and the seed, in one line. Needs no texts: also after fini. */
void cli_stream_stats(const cli_stream *s, FILE *out);

#endif
