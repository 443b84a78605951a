/* conclave export --server S --set NAME|ID: the set is the server's, and its ids become those that the packs get here. A server may have
 * taken in packs in another order, and others as well. */
#include "cli/export_set.h"

#include <stdlib.h>
#include <string.h>

#include "cli/changes.h"
#include "pack/pack.h"

typedef struct mapping {
    const Conclave__V1__ListPacksResponse *server;
    const Conclave__V1__Pack *here[CLI_MAX_REPEATS]; /* of these, in the order of the command line */
    size_t n_here;
} mapping;

static const Conclave__V1__PackLayer *layer_of(const Conclave__V1__Pack *p, uint32_t layer)
{
    for (size_t i = 0; i < p->n_layers; i++) {
        if (p->layers[i]->layer == layer) {
            return p->layers[i];
        }
    }
    return NULL;
}

/* A pack is known by the hash of its manifest. */
static moe_status find_pack(mapping *m, const char *dir, moe_error *err)
{
    char path[4096], *text = NULL, hash[65];
    size_t n = 0;

    if (snprintf(path, sizeof path, "%s/pack.json", dir) >= (int)sizeof path) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--pack: a path of more than %zu bytes", sizeof path - 1);
    }
    moe_status status = moe_file_read(path, PACK_MAX_MANIFEST, &text, &n, err);
    if (status != MOE_OK) {
        return status;
    }
    const checkpoint_digest digest = checkpoint_sha256(text, n);
    free(text);
    checkpoint_digest_hex(&digest, hash);
    for (size_t i = 0; i < m->server->n_packs; i++) {
        if (strcmp(m->server->packs[i]->hash, hash) == 0 && m->server->packs[i]->taken_in) {
            m->here[m->n_here++] = m->server->packs[i];
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_ERR_NOT_FOUND, "--pack %.300s: the server has not taken it in", dir);
}

/* The id that an expert has here: of the checkpoint its own, of a pack the one after those of the packs before it. */
static moe_status id_here(const mapping *m, uint32_t layer, int32_t id, int32_t *out, moe_error *err)
{
    const Conclave__V1__Pack *of = NULL;
    int32_t first = INT32_MAX, place = 0;

    for (size_t i = 0; i < m->server->n_packs; i++) {
        const Conclave__V1__PackLayer *l = layer_of(m->server->packs[i], layer);

        if (l != NULL && m->server->packs[i]->taken_in) {
            first = MOE_MIN(first, l->first_id); /* the lowest of them stands above the checkpoint's */
            if (id >= l->first_id && id - l->first_id < (int64_t)l->n_experts) {
                of = m->server->packs[i];
                place = id - l->first_id;
            }
        }
    }
    if (of == NULL) {
        *out = id;
        return MOE_OK;
    }
    for (size_t i = 0; i < m->n_here; i++) {
        const Conclave__V1__PackLayer *l = layer_of(m->here[i], layer);

        if (m->here[i] == of) {
            *out = first + place;
            return MOE_OK;
        }
        first += l != NULL ? (int32_t)l->n_experts : 0;
    }
    return moe_fail(err, MOE_ERR_INVALID_ARG,
                    "--set: it has experts of pack %.63s %.63s: give its directory with --pack", of->name, of->version);
}

static moe_status put_set(const mapping *m, const Conclave__V1__SetInfo *set, moe_text *out, moe_error *err)
{
    moe_status status = MOE_OK;
    int32_t id = 0;

    moe_text_printf(out, "{\"experts\":[");
    for (size_t i = 0; i < set->n_experts && status == MOE_OK; i++) {
        const Conclave__V1__ExpertList *l = set->experts[i];

        moe_text_printf(out, "%s{\"layer\":%u,\"ids\":[", i > 0 ? "," : "", l->layer);
        for (size_t e = 0; e < l->n_ids && status == MOE_OK; e++) {
            status = id_here(m, l->layer, l->ids[e], &id, err);
            moe_text_printf(out, "%s%d", e > 0 ? "," : "", id);
        }
        moe_text_printf(out, "]}");
    }
    moe_text_printf(out, "]}");
    return status != MOE_OK || !out->failed ? status : moe_fail(err, MOE_ERR_NO_MEMORY, "--set: out of memory");
}

static moe_status fetch_set(cli_run *run, const char *word, ProtobufCMessage **out, moe_error *err)
{
    ProtobufCMessage *request = NULL;
    moe_status status = cli_change_request(&conclave__v1__list_sets_request__descriptor, "set", word, &request, err);

    if (status == MOE_OK) {
        status = cli_message_set(request, "experts", "true", err);
    }
    if (status == MOE_OK) {
        status = cli_run_fetch(run, "/conclave.v1.Admin/ListSets", request,
                               &conclave__v1__list_sets_response__descriptor, out, err);
    }
    cli_message_free(request);
    return status == MOE_OK && ((const Conclave__V1__ListSetsResponse *)*out)->n_sets != 1
               ? moe_fail(err, MOE_ERR_DATA_LOSS, "the server named no set")
               : status;
}

moe_status cli_export_set(cli_run *run, const char *word, const char *const *packs, size_t n_packs, moe_text *out,
                          moe_error *err)
{
    ProtobufCMessage *sets = NULL, *all = NULL;
    mapping m = {.n_here = 0};
    moe_status status = fetch_set(run, word, &sets, err);

    if (status == MOE_OK) {
        status = cli_change_fetch(run, "/conclave.v1.Admin/ListPacks", &conclave__v1__list_packs_request__descriptor,
                                  "", NULL, &conclave__v1__list_packs_response__descriptor, &all, err);
        m.server = (const Conclave__V1__ListPacksResponse *)all;
    }
    for (size_t i = 0; i < n_packs && status == MOE_OK; i++) {
        status = find_pack(&m, packs[i], err);
    }
    if (status == MOE_OK) {
        status = put_set(&m, ((const Conclave__V1__ListSetsResponse *)sets)->sets[0], out, err);
    }
    cli_message_free(sets);
    cli_message_free(all);
    return status;
}
