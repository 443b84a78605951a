#include "cli/stream.h"

#include <inttypes.h>
#include <string.h>

#include <conclave/v1/inference.pb-c.h>

#define TEXT_MAX_BYTES ((size_t)256 << 20)

void cli_stream_init(cli_stream *s, cli_stream_form form, bool ids_if_no_text)
{
    *s = (cli_stream){.form = form, .ids_if_no_text = ids_if_no_text};
    for (size_t i = 0; i < CLI_MAX_CHOICES; i++) {
        moe_text_init(&s->choices[i].text, TEXT_MAX_BYTES);
        moe_text_init(&s->choices[i].ids, TEXT_MAX_BYTES);
    }
    s->start_ns = moe_now_ns(moe_clock_real());
}

void cli_stream_fini(cli_stream *s)
{
    for (size_t i = 0; i < CLI_MAX_CHOICES; i++) {
        moe_text_fini(&s->choices[i].text);
        moe_text_fini(&s->choices[i].ids);
    }
}

void cli_token_text(const ProtobufCBinaryData *token, moe_text *out)
{
    if (moe_utf8_valid_prefix(token->data, token->len) == token->len) {
        moe_text_json_string(out, (const char *)token->data, token->len);
        return;
    }
    for (size_t i = 0; i < token->len; i++) {
        moe_text_printf(out, "\\x%02x", token->data[i]);
    }
}

static void print_logprob(uint32_t choice, const Conclave__V1__TokenLogprob *row)
{
    moe_text out;

    moe_text_init(&out, TEXT_MAX_BYTES);
    moe_text_printf(&out, "%" PRIu32 " %7" PRId32 " %11.6f  ", choice, row->id, (double)row->logprob);
    cli_token_text(&row->token, &out);
    for (size_t i = 0; i < row->n_top; i++) {
        moe_text_printf(&out, "%s%" PRId32 " %.6f ", i == 0 ? "  best: " : ", ", row->top[i]->id,
                        (double)row->top[i]->logprob);
        cli_token_text(&row->top[i]->token, &out);
    }
    moe_text_append(&out, "\n", 1);
    cli_put(stdout, moe_text_cstr(&out), out.size);
    moe_text_fini(&out);
}

static void print_progress(const Conclave__V1__Progress *progress)
{
    if (progress->queue_position > 0) {
        fprintf(stderr, "queue position %" PRIu32 "\n", progress->queue_position);
    } else {
        fprintf(stderr, "prompt tokens done %" PRIu32 "\n", progress->prompt_tokens_done);
    }
}

static void count(cli_stream *s, const Conclave__V1__GenerateResponse *chunk)
{
    if (chunk->n_token_ids > 0 && !chunk->echo) {
        s->last_ns = moe_now_ns(moe_clock_real());
        if (s->n_tokens == 0) {
            s->first_ns = s->last_ns;
        }
        s->n_tokens += chunk->n_token_ids;
    }
    if (chunk->has_seed_case == CONCLAVE__V1__GENERATE_RESPONSE__HAS_SEED_SEED) {
        s->has_seed = true;
        s->seed = chunk->seed;
    }
    if (chunk->usage != NULL) {
        s->n_prompt = chunk->usage->prompt_tokens;
    }
    if (chunk->timings != NULL) {
        s->decode_s = chunk->timings->decode_seconds;
    }
    s->cut_short = s->cut_short || chunk->finish_reason == CONCLAVE__V1__FINISH_REASON__FINISH_REASON_CANCELLED;
}

static void keep(cli_choice *choice, const Conclave__V1__GenerateResponse *chunk)
{
    moe_text_append(&choice->text, chunk->text, strlen(chunk->text));
    for (size_t i = 0; i < chunk->n_token_ids; i++) {
        moe_text_printf(&choice->ids, "%s%" PRId32, choice->ids.size > 0 ? " " : "", chunk->token_ids[i]);
    }
}

static void print_chunk(const cli_stream *s, const Conclave__V1__GenerateResponse *chunk)
{
    if (chunk->progress != NULL) {
        print_progress(chunk->progress);
    }
    if (s->form == CLI_STREAM_TABLE) {
        for (size_t i = 0; i < chunk->n_logprobs; i++) {
            print_logprob(chunk->index, chunk->logprobs[i]);
        }
    } else if (chunk->index == 0) {
        cli_put(stdout, chunk->text, strlen(chunk->text));
    }
}

static moe_status take_chunk(void *ctx, const ProtobufCMessage *reply, moe_error *err)
{
    cli_stream *s = ctx;
    const Conclave__V1__GenerateResponse *chunk = (const Conclave__V1__GenerateResponse *)reply;

    count(s, chunk);
    if (s->form == CLI_STREAM_JSON) {
        if (chunk->index == 0 && s->expect != NULL) {
            keep(&s->choices[0], chunk);
        }
        return cli_print_json(NULL, reply, err);
    }
    if (chunk->index >= CLI_MAX_CHOICES) {
        return moe_fail(err, MOE_ERR_CORRUPT, "index %" PRIu32 ": a server sends at most %d choices", chunk->index,
                        CLI_MAX_CHOICES);
    }
    keep(&s->choices[chunk->index], chunk);
    print_chunk(s, chunk);
    return cli_flush(err);
}

static void end_line(const char *text)
{
    if (*text == '\0' || text[strlen(text) - 1] != '\n') {
        putchar('\n');
    }
}

/* The first choice has been printed as it came, unless it is ids. */
static void finish_choice(const cli_stream *s, size_t idx)
{
    const cli_choice *choice = &s->choices[idx];
    const moe_text *shown = s->ids_if_no_text && choice->text.size == 0 ? &choice->ids : &choice->text;

    if (idx > 0) {
        printf("--- choice %zu\n", idx);
    }
    if (idx > 0 || shown == &choice->ids) {
        cli_put(stdout, moe_text_cstr(shown), shown->size);
    }
    end_line(moe_text_cstr(shown));
}

/* Prints what is still to be printed, and ends the line. */
static moe_status finish(cli_stream *s, moe_error *err)
{
    for (size_t i = 0; s->form == CLI_STREAM_TEXT && i < CLI_MAX_CHOICES; i++) {
        if (s->choices[i].ids.size > 0) {
            finish_choice(s, i);
        }
    }
    return cli_flush(err);
}

/* Two lists of ids, whatever stands between them. */
static bool same_ids(const char *a, const char *b)
{
    static const char between[] = ", ";

    for (;;) {
        a += strspn(a, between);
        b += strspn(b, between);
        size_t n = strcspn(a, between);
        if (n != strcspn(b, between) || memcmp(a, b, n) != 0) {
            return false;
        }
        if (n == 0) {
            return true;
        }
        a += n;
        b += n;
    }
}

static moe_status check_expected(const cli_stream *s, moe_error *err)
{
    const char *came = moe_text_cstr(&s->choices[0].ids);

    return s->expect == NULL || same_ids(came, s->expect)
               ? MOE_OK
               : moe_fail(err, MOE_ERR_CORRUPT, "--expect: the answer is other tokens: %.300s", came);
}

moe_status cli_stream_call(cli_stream *s, cli_run *run, const ProtobufCMessage *request, moe_error *err)
{
    moe_status status = cli_run_call(run, "/conclave.v1.Inference/Generate", request,
                                     &conclave__v1__generate_response__descriptor, take_chunk, s, err);
    moe_status printed = finish(s, status == MOE_OK ? err : NULL);

    if (status == MOE_OK) {
        status = printed;
    }
    if (status == MOE_OK && s->cut_short) {
        status = moe_fail(err, MOE_ERR_UNAVAILABLE, "the server cut the answer short");
    }
    return status == MOE_OK ? check_expected(s, err) : status;
}

void cli_stream_stats(const cli_stream *s, FILE *out)
{
    double first_s = (double)(s->first_ns - s->start_ns) * 1e-9;
    /* A quick answer comes in one chunk, which our clock cannot divide. */
    double rest_s = s->decode_s > 0 ? s->decode_s : (double)(s->last_ns - s->first_ns) * 1e-9;

    fprintf(out, "%" PRIu64 " token%s", s->n_tokens, s->n_tokens == 1 ? "" : "s");
    if (s->n_tokens > 1 && rest_s > 0) {
        fprintf(out, ", %.1f tokens/s", (double)(s->n_tokens - 1) / rest_s);
    }
    if (s->n_tokens > 0) {
        fprintf(out, "; prompt %" PRIu32 " tokens, first token after %.2f s", s->n_prompt, first_s);
    }
    if (s->has_seed) {
        fprintf(out, "; seed %" PRIu64, s->seed);
    }
    fputc('\n', out);
}
