/* Packs: opened, checked whole, closed. */
#include "pack/pack_priv.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PATH 4096

void pack_close(pack *p)
{
    if (p != NULL) {
        checkpoint_close(p->tensors);
        free(p->licence);
        free(p->manifest);
        free(p->layers);
        free(p->experts);
        free(p->attention);
        free(p);
    }
}

/* ------------------------------------------------------------------------------------------------ bytes */
static moe_status check_bytes(const pack *p, const bool *used, const checkpoint_digest *digests, const pack_options *o,
                              moe_error *err)
{
    size_t done = 0, total = checkpoint_total_bytes(p->tensors);

    for (size_t i = 0; i < checkpoint_n_tensors(p->tensors); i++) {
        const checkpoint_tensor *t = checkpoint_at(p->tensors, i);
        if (!used[i]) {
            continue; /* an expert's, where the router is wanted alone */
        }
        checkpoint_digest is = checkpoint_sha256(t->data, t->bytes);
        bool finite = checkpoint_is_finite(t->data, t->bytes, t->dtype);

        checkpoint_forget(p->tensors, t->data, t->bytes);
        if (memcmp(is.bytes, digests[i].bytes, sizeof is.bytes) != 0) {
            return moe_fail(err, MOE_ERR_CORRUPT, "tensor %s: its bytes have another SHA-256 than the manifest says",
                            t->name);
        }
        if (!finite) {
            return moe_fail(err, MOE_ERR_CORRUPT, "tensor %s: holds a value that is not finite", t->name);
        }
        done += t->bytes;
        if (o != NULL && o->progress != NULL) {
            o->progress(o->progress_ctx, done, total);
        }
    }
    return MOE_OK;
}

void pack_expert_hash(const char *pack_hash, uint32_t layer, uint32_t place, unsigned char out[32])
{
    char text[128];
    int n = snprintf(text, sizeof text, "conclave-expert 1\n%s\n%u\n%u\n", pack_hash, layer, place);
    checkpoint_digest hash = checkpoint_sha256(text, (size_t)n);

    memcpy(out, hash.bytes, sizeof hash.bytes);
}

static void name_experts(pack *p)
{
    for (size_t l = 0; l < p->n_layers; l++) {
        for (uint32_t i = 0; i < p->layers[l].n_experts; i++) {
            pack_expert *e = &p->experts[p->layers[l].experts - p->experts + i];

            pack_expert_hash(p->hash, p->layers[l].layer, i, e->hash);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ open */
static moe_status read_whole(pack *p, const char *manifest, size_t n, const pack_base *base,
                             const pack_options *options, moe_error *err)
{
    size_t n_tensors = checkpoint_n_tensors(p->tensors);
    pack_reading r = {.p = p,
                      .base = base,
                      .router_only = options != NULL && options->router_only,
                      .used = calloc(n_tensors + 1, sizeof *r.used),
                      .digests = calloc(n_tensors + 1, sizeof *r.digests)};
    checkpoint_digest hash = checkpoint_sha256(manifest, n);
    moe_json *json = NULL;
    moe_status status = r.used != NULL && r.digests != NULL
                            ? moe_json_parse(manifest, n, PACK_MANIFEST_DEPTH, &json, err)
                            : moe_fail(err, MOE_ERR_NO_MEMORY, "%zu tensors", n_tensors);

    checkpoint_digest_hex(&hash, p->hash);
    p->manifest = malloc(n + 1);
    if (p->manifest != NULL) {
        memcpy(p->manifest, manifest, n);
        p->n_manifest = n;
    } else if (status == MOE_OK) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "a manifest of %zu bytes", n);
    }
    if (status == MOE_OK) {
        status = pack_read_manifest(&r, json, err);
    }
    if (status == MOE_OK) {
        status = check_bytes(p, r.used, r.digests, options, err);
    }
    if (status == MOE_OK) {
        name_experts(p);
    }
    moe_json_free(json);
    free(r.used);
    free(r.digests);
    return status;
}

moe_status pack_open_memory(const char *manifest, size_t n, checkpoint *tensors, const pack_base *base,
                            const pack_options *options, pack **out, moe_error *err)
{
    pack *p = calloc(1, sizeof *p);

    if (p == NULL) {
        checkpoint_close(tensors);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "pack");
    }
    p->tensors = tensors;
    moe_status status = read_whole(p, manifest, n, base, options, err);
    if (status != MOE_OK) {
        pack_close(p);
        return status;
    }
    *out = p;
    return MOE_OK;
}

/* With a key the signature must be there and be the key's. Without, one that is there is kept for members that have a key. */
static moe_status read_signature(const char *dir, const char *key_file, const char *manifest, size_t n,
                                 unsigned char out[PACK_SIGNATURE_SIZE], bool *is_signed, moe_error *err)
{
    char path[MAX_PATH], *signature;
    size_t n_signature;

    (void)snprintf(path, sizeof path, "%s/pack.sig", dir);
    moe_status status = moe_file_read(path, PACK_SIGNATURE_SIZE + 1, &signature, &n_signature, err);
    if (status != MOE_OK) {
        return key_file == NULL ? MOE_OK : status;
    }
    if (key_file != NULL) {
        status = pack_check_signature(key_file, signature, n_signature, manifest, n, err);
    }
    *is_signed = n_signature == PACK_SIGNATURE_SIZE;
    if (*is_signed) {
        memcpy(out, signature, PACK_SIGNATURE_SIZE);
    }
    free(signature);
    return status;
}

moe_status pack_open(const char *dir, const pack_base *base, const pack_options *options, pack **out, moe_error *err)
{
    char path[MAX_PATH], *manifest;
    unsigned char signature[PACK_SIGNATURE_SIZE] = {0};
    const char *key_file = options != NULL ? options->key_file : NULL;
    bool is_signed = false;
    size_t n;
    checkpoint *tensors;

    if (strlen(dir) > MAX_PATH - 16) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "pack: a path of %zu bytes, limit %d", strlen(dir), MAX_PATH - 16);
    }
    (void)snprintf(path, sizeof path, "%s/pack.json", dir);
    moe_status status = moe_file_read(path, PACK_MAX_MANIFEST, &manifest, &n, err);
    if (status != MOE_OK) {
        return status;
    }
    status = read_signature(dir, key_file, manifest, n, signature, &is_signed, err);
    if (status == MOE_OK) {
        status = checkpoint_open(dir, &tensors, err);
    }
    if (status == MOE_OK) {
        status = pack_open_memory(manifest, n, tensors, base, options, out, err);
    }
    if (status == MOE_OK) {
        memcpy((*out)->signature, signature, sizeof signature);
        (*out)->is_signed = is_signed;
    }
    free(manifest);
    return status;
}

/* ------------------------------------------------------------------------------------------------ questions */
pack_kind pack_get_kind(const pack *p)
{
    return p->kind;
}

const char *pack_name(const pack *p)
{
    return p->name;
}

const char *pack_version(const pack *p)
{
    return p->version;
}

const char *pack_licence(const pack *p)
{
    return p->licence;
}

const char *pack_hash(const pack *p)
{
    return p->hash;
}

size_t pack_n_layers(const pack *p)
{
    return p->n_layers;
}

const pack_layer *pack_at(const pack *p, size_t i)
{
    MOE_ASSERT(i < p->n_layers);
    return &p->layers[i];
}

const pack_layer *pack_layer_of(const pack *p, uint32_t layer)
{
    for (size_t i = 0; i < pack_n_layers(p); i++) {
        if (pack_at(p, i)->layer == layer) {
            return pack_at(p, i);
        }
    }
    return NULL;
}

size_t pack_n_experts(const pack *p)
{
    return p->n_experts;
}

size_t pack_n_attention(const pack *p)
{
    return p->n_attention;
}

size_t pack_bytes(const pack *p)
{
    return checkpoint_total_bytes(p->tensors);
}

bool pack_part(const pack *p, uint32_t part, const unsigned char **bytes_out, size_t *n_out)
{
    if (part == PACK_PART_MANIFEST) {
        *bytes_out = (const unsigned char *)p->manifest;
        *n_out = p->n_manifest;
        return true;
    }
    if (part == PACK_PART_SIGNATURE) {
        *bytes_out = p->signature;
        *n_out = sizeof p->signature;
        return p->is_signed;
    }
    if (part - PACK_PART_TENSORS >= checkpoint_n_tensors(p->tensors)) {
        return false;
    }
    *bytes_out = checkpoint_at(p->tensors, part - PACK_PART_TENSORS)->data;
    *n_out = checkpoint_at(p->tensors, part - PACK_PART_TENSORS)->bytes;
    return true;
}

void pack_forget(const pack *p, const checkpoint_tensor *t)
{
    checkpoint_forget(p->tensors, t->data, t->bytes);
}
