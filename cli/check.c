#include "cli/check.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <conclave/v1/inference.pb-c.h>

#include "cli/changes.h"

/* Of a text that is scored in one go: the reply has the experts of every token. A token is a byte at least, so that it is within the
 * context, too, when that is longer. */
#define MAX_PIECE 8192u
#define SPECIAL   8u /* tokens that the model puts around a text */

typedef struct layer_picks {
    uint64_t all, of_pack;
} layer_picks;

/* One set of the two. */
typedef struct side {
    char set_id[128];
    double sum; /* of log-probabilities */
    uint64_t tokens, bytes;
} side;

typedef struct checking {
    cli_run *run;
    const char *path;
    char *data; /* owned: the text */
    size_t n_bytes, piece;
    ProtobufCMessage *packs;        /* owned: a ListPacksResponse */
    const Conclave__V1__Pack *pack; /* of it */
    layer_picks *layers;            /* owned [n_layers] */
    size_t n_layers;
    side without, with;
    bool is_ours; /* the trial is to be ended */
    cli_progress shown;
} checking;

/* ------------------------------------------------------------------------------------------------ calls */
/* A change without --dry-run; *result is owned, a ChangeProgress with a result. */
static moe_status change(checking *c, const char *method, const ProtobufCMessageDescriptor *type, const char *pack,
                         const char *shadow, ProtobufCMessage **result, moe_error *err)
{
    char path[64];
    ProtobufCMessage *request = NULL;
    moe_status status = cli_change_request(type, "pack", pack, &request, err);

    (void)snprintf(path, sizeof path, "/conclave.v1.Admin/%s", method);
    if (status == MOE_OK && shadow != NULL) {
        status = cli_message_set(request, "shadow", shadow, err);
    }
    if (status == MOE_OK) {
        status = cli_message_set(request, "options.why", "packs check", err);
    }
    if (status == MOE_OK) {
        status = cli_run_fetch(c->run, path, request, &conclave__v1__change_progress__descriptor, result, err);
    }
    cli_message_free(request);
    if (status == MOE_OK && ((const Conclave__V1__ChangeProgress *)*result)->result == NULL) {
        cli_message_free(*result);
        *result = NULL;
        status = moe_fail(err, MOE_ERR_DATA_LOSS, "the server ended without a result");
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ both sets */
static moe_status list(checking *c, moe_error *err)
{
    ProtobufCMessage *reply = NULL;
    moe_status status =
        cli_change_fetch(c->run, "/conclave.v1.Admin/ListPacks", &conclave__v1__list_packs_request__descriptor, "",
                         NULL, &conclave__v1__list_packs_response__descriptor, &reply, err);

    cli_message_free(c->packs);
    c->packs = reply;
    return status;
}

static bool is_called(const Conclave__V1__Pack *p, const char *word)
{
    size_t n = strlen(p->name);

    return strcmp(p->name, word) == 0 || strcmp(p->hash, word) == 0 ||
           (strncmp(p->name, word, n) == 0 && word[n] == '@' && strcmp(word + n + 1, p->version) == 0);
}

/* The pack on trial, whose set is `set_id`, or that is called `word` (NULL: either). */
static const Conclave__V1__Pack *find_trial(const checking *c, const char *set_id, const char *word)
{
    const Conclave__V1__ListPacksResponse *all = (const Conclave__V1__ListPacksResponse *)c->packs;

    for (size_t i = 0; i < all->n_packs; i++) {
        const Conclave__V1__Pack *p = all->packs[i];

        if (p->shadow != NULL && (set_id == NULL || strcmp(p->shadow->set_id, set_id) == 0) &&
            (word == NULL || is_called(p, word))) {
            return p;
        }
    }
    return NULL;
}

static moe_status put_on_trial(checking *c, const char *word, moe_error *err)
{
    ProtobufCMessage *reply = NULL;
    moe_status status = change(c, "AddPack", &conclave__v1__add_pack_request__descriptor, word, "0", &reply, err);

    if (status != MOE_OK) {
        return status;
    }
    char set_id[128];
    (void)snprintf(set_id, sizeof set_id, "%.127s", ((const Conclave__V1__ChangeProgress *)reply)->result->set_after);
    cli_message_free(reply);
    status = list(c, err);
    c->pack = status == MOE_OK ? find_trial(c, set_id, NULL) : NULL;
    c->is_ours = c->pack != NULL;
    return status == MOE_OK && c->pack == NULL
               ? moe_fail(err, MOE_ERR_UNAVAILABLE, "the default set has changed meanwhile; see conclave packs")
               : status;
}

/* The set's id on one side: the model's answer says what the default is now. */
static moe_status open_sides(checking *c, const char *word, moe_error *err)
{
    ProtobufCMessage *model = NULL;
    moe_status status = list(c, err);

    if (status == MOE_OK) {
        c->pack = find_trial(c, NULL, word);
        status = c->pack != NULL ? MOE_OK : put_on_trial(c, word, err);
    }
    if (status == MOE_OK) {
        status =
            cli_change_fetch(c->run, "/conclave.v1.Inference/GetModel", &conclave__v1__get_model_request__descriptor,
                             "", NULL, &conclave__v1__get_model_response__descriptor, &model, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    const Conclave__V1__GetModelResponse *m = (const Conclave__V1__GetModelResponse *)model;
    (void)snprintf(c->with.set_id, sizeof c->with.set_id, "%.127s", c->pack->shadow->set_id);
    (void)snprintf(c->without.set_id, sizeof c->without.set_id, "%.127s", m->base_set_id);
    c->n_layers = m->n_layers;
    c->piece = MOE_MIN(m->max_context > 2 * SPECIAL ? m->max_context - SPECIAL : SPECIAL, MAX_PIECE);
    c->layers = calloc(c->n_layers + 1, sizeof *c->layers);
    cli_message_free(model);
    return c->layers != NULL ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "--text: out of memory");
}

/* ------------------------------------------------------------------------------------------------ scores */
static bool is_of_pack(const Conclave__V1__Pack *p, uint32_t layer, int32_t id)
{
    for (size_t i = 0; i < p->n_layers; i++) {
        const Conclave__V1__PackLayer *l = p->layers[i];

        if (l->layer == layer) {
            return id >= l->first_id && id - l->first_id < (int64_t)l->n_experts;
        }
    }
    return false;
}

static void take_token(checking *c, side *s, const Conclave__V1__ScoredToken *t)
{
    if (t->has_logprob_case == CONCLAVE__V1__SCORED_TOKEN__HAS_LOGPROB_LOGPROB) {
        s->sum += (double)t->logprob;
        s->bytes += t->token.len;
        s->tokens++;
    }
    for (size_t i = 0; s == &c->with && i < t->n_experts; i++) {
        const Conclave__V1__LayerExperts *l = t->experts[i];

        for (size_t e = 0; l->layer < c->n_layers && e < l->n_ids; e++) {
            c->layers[l->layer].all++;
            c->layers[l->layer].of_pack += is_of_pack(c->pack, l->layer, l->ids[e]);
        }
    }
}

static moe_status score(checking *c, side *s, const char *text, moe_error *err)
{
    ProtobufCMessage *request = NULL, *reply = NULL;
    moe_status status = cli_change_request(&conclave__v1__score_request__descriptor, "text", text, &request, err);

    if (status == MOE_OK) {
        status = cli_message_set(request, "set.id", s->set_id, err);
    }
    if (status == MOE_OK && s == &c->with) {
        status = cli_message_set(request, "experts", "true", err);
    }
    if (status == MOE_OK) {
        status = cli_run_fetch(c->run, "/conclave.v1.Inference/Score", request,
                               &conclave__v1__score_response__descriptor, &reply, err);
    }
    if (status == MOE_OK) {
        const Conclave__V1__ScoreResponse *r = (const Conclave__V1__ScoreResponse *)reply;

        for (size_t i = 0; i < r->n_tokens; i++) {
            take_token(c, s, r->tokens[i]);
        }
    }
    cli_message_free(request);
    cli_message_free(reply);
    return status;
}

/* Where the piece that begins at `at` ends: behind its last line, else behind its last whole character. */
static size_t end_of_piece(const checking *c, size_t at)
{
    size_t end = MOE_MIN(at + c->piece, c->n_bytes);
    const char *newline = end < c->n_bytes ? memrchr(c->data + at, '\n', end - at) : NULL;

    if (newline != NULL) {
        return (size_t)(newline - c->data) + 1;
    }
    while (end < c->n_bytes && end > at + 1 && ((unsigned char)c->data[end] & 0xc0) == 0x80) {
        end--;
    }
    return end;
}

static moe_status score_text(checking *c, moe_error *err)
{
    char piece[MAX_PIECE + 1];
    moe_status status = MOE_OK;

    for (size_t at = 0, end; at < c->n_bytes && status == MOE_OK; at = end) {
        end = end_of_piece(c, at);
        memcpy(piece, c->data + at, end - at);
        piece[end - at] = '\0';
        status = score(c, &c->without, piece, err);
        if (status == MOE_OK) {
            status = score(c, &c->with, piece, err);
        }
        cli_progress_show(&c->shown, end, c->n_bytes);
    }
    if (status == MOE_OK && c->with.bytes == 0) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "%.300s: no text of two tokens is in it", c->path);
    }
    if (status != MOE_OK) {
        cli_progress_break(&c->shown);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ what is told */
static double share_of(const layer_picks *l)
{
    return l->all > 0 ? (double)l->of_pack / (double)l->all : 0;
}

static double bits_per_byte(const side *s)
{
    return -s->sum / log(2) / (double)s->bytes;
}

static moe_status show(const checking *c, moe_error *err)
{
    const double before = bits_per_byte(&c->without), after = bits_per_byte(&c->with);
    const bool json = c->run->json;
    moe_text out;

    moe_text_init(&out, CLI_MAX_PRINT);
    if (json) {
        moe_text_printf(
            &out,
            "{\"pack\":\"%s\",\"hash\":\"%s\",\"set_without\":\"%s\",\"set_with\":\"%s\",\"tokens\":%" PRIu64
            ",\"bytes\":%" PRIu64 ",\"bits_per_byte_without\":%.9g,\"bits_per_byte_with\":%.9g,\"layers\":[",
            c->pack->name, c->pack->hash, c->without.set_id, c->with.set_id, c->with.tokens, c->with.bytes, before,
            after);
    }
    for (size_t l = 0; l < c->n_layers; l++) {
        if (json) {
            moe_text_printf(&out, "%s{\"layer\":%zu,\"share\":%.9g}", l > 0 ? "," : "", l, share_of(&c->layers[l]));
        } else {
            moe_text_printf(&out, "layer %zu: %.2f%% of the picks\n", l, 100 * share_of(&c->layers[l]));
        }
    }
    moe_text_printf(&out, json ? "]}\n" : "%" PRIu64 " tokens, %" PRIu64 " bytes: bits per byte %.6f -> %.6f, %+.6f\n",
                    c->with.tokens, c->with.bytes, before, after, after - before);
    return cli_print_text(&out, err);
}

/* ------------------------------------------------------------------------------------------------ life */
/* Whatever came before: what was put on trial for this goes. */
static moe_status end_trial(checking *c, moe_status status, moe_error *err)
{
    ProtobufCMessage *reply = NULL;
    moe_error why;

    if (!c->is_ours) {
        return status;
    }
    moe_status removed =
        change(c, "RemovePack", &conclave__v1__remove_pack_request__descriptor, c->pack->hash, NULL, &reply, &why);
    cli_message_free(reply);
    if (removed != MOE_OK) {
        return moe_fail(err, removed, "the pack is still on trial (conclave packs remove): %.200s", why.text);
    }
    return status;
}

moe_status cli_check_text(cli_run *run, const char *word, const char *path, moe_error *err)
{
    checking c = {.run = run, .path = path, .shown = cli_progress_of("scoring the text")};

    cli_run_wait_for_ever(run);
    cli_run_ignore_interrupts(run);
    moe_status status = moe_file_read(path, CLI_MAX_INPUT, &c.data, &c.n_bytes, err);
    if (status == MOE_OK) {
        const moe_text given = {.data = c.data, .size = c.n_bytes}; /* borrowed */

        status = cli_check_input(path, &given, err);
    }
    if (status == MOE_OK) {
        status = open_sides(&c, word, err);
    }
    if (status == MOE_OK) {
        status = score_text(&c, err);
    }
    if (status == MOE_OK) {
        status = show(&c, err);
    }
    status = end_trial(&c, status, err);
    cli_message_free(c.packs);
    free(c.layers);
    free(c.data);
    return status;
}
