/* model.safetensors.index.json: which shard holds which tensor. */
#include "checkpoint/checkpoint_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH      8
#define MAX_SHARD_NAME 255

static int by_shard(const void *a, const void *b)
{
    const checkpoint_index_entry *x = a, *y = b;
    const int order = strcmp(x->shard, y->shard);

    return order != 0 ? order : strcmp(x->tensor, y->tensor);
}

/* A plain base name: whatever the index says, only files of the checkpoint's own directory are opened. */
static bool is_base_name(const char *shard, const char *suffix)
{
    const size_t n = strlen(shard), n_suffix = strlen(suffix);

    if (n <= n_suffix || n > MAX_SHARD_NAME || strcmp(shard + n - n_suffix, suffix) != 0) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)shard[i];
        if (c < 0x20 || c == 0x7f || c == '/' || c == '\\') {
            return false;
        }
    }
    return shard[0] != '.' && strstr(shard, "..") == NULL;
}

static moe_status read_entry(const char *tensor, const json_t *value, const char *file, const char *suffix,
                             checkpoint_index_entry *out, moe_error *err)
{
    const char *shard = json_string_value(value);

    if (strlen(tensor) > CHECKPOINT_MAX_NAME) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: tensor \"%.120s\": its name has %zu bytes, the limit is %d", file,
                        tensor, strlen(tensor), CHECKPOINT_MAX_NAME);
    }
    if (shard == NULL) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: tensor \"%.120s\" is mapped to something that is no string", file,
                        tensor);
    }
    if (!is_base_name(shard, suffix)) {
        return moe_fail(err, MOE_ERR_CORRUPT,
                        "%s: tensor \"%.120s\" is mapped to \"%.80s\", which is not the plain name of a %s file", file,
                        tensor, shard, suffix);
    }
    *out = (checkpoint_index_entry){tensor, shard};
    return MOE_OK;
}

static moe_status check_shards(const checkpoint_index *index, const char *file, moe_error *err)
{
    size_t n_shards = 0;

    for (size_t i = 0; i < index->n_entries; i += checkpoint_index_run(index, i)) {
        n_shards++;
    }
    if (n_shards > CHECKPOINT_MAX_SHARDS) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: %zu shards, the limit is %u", file, n_shards, CHECKPOINT_MAX_SHARDS);
    }
    return MOE_OK;
}

static moe_status read_map(json_t *map, const char *file, const char *suffix, checkpoint_index *out, moe_error *err)
{
    const size_t n = json_object_size(map); /* 0 also for what is no object */
    const char *tensor;
    json_t *value;

    if (n == 0 || n > CHECKPOINT_MAX_TENSORS) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: weight_map is missing or not an object of 1 .. %u tensors", file,
                        CHECKPOINT_MAX_TENSORS);
    }
    out->entries = calloc(n, sizeof(*out->entries));
    if (out->entries == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%s: no memory for %zu tensors", file, n);
    }
    json_object_foreach(map, tensor, value)
    {
        const moe_status status = read_entry(tensor, value, file, suffix, &out->entries[out->n_entries], err);
        if (status != MOE_OK) {
            return status;
        }
        out->n_entries++;
    }
    qsort(out->entries, out->n_entries, sizeof(*out->entries), by_shard);
    return check_shards(out, file, err);
}

moe_status checkpoint_index_parse(const void *text, size_t bytes, const char *file, const char *suffix,
                                  checkpoint_index *out, moe_error *err)
{
    checkpoint_index index = {0};
    moe_error reason = {.text = ""};
    moe_status status;

    if (bytes == 0 || bytes > CHECKPOINT_MAX_JSON) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: %zu bytes, expected 1 .. %u", file, bytes, CHECKPOINT_MAX_JSON);
    }
    status = moe_json_parse(text, bytes, MAX_DEPTH, &index.json, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "%s: not strict JSON: %.200s", file, reason.text);
    }
    status = read_map(json_object_get(index.json, "weight_map"), file, suffix, &index, err);
    if (status != MOE_OK) {
        checkpoint_index_fini(&index);
        return status;
    }
    *out = index;
    return MOE_OK;
}

void checkpoint_index_fini(checkpoint_index *index)
{
    free(index->entries);
    moe_json_free(index->json);
    *index = (checkpoint_index){0};
}

size_t checkpoint_index_run(const checkpoint_index *index, size_t first)
{
    size_t end = first + 1;

    while (end < index->n_entries && strcmp(index->entries[end].shard, index->entries[first].shard) == 0) {
        end++;
    }
    return end - first;
}

moe_status checkpoint_index_match(const checkpoint_index_entry *entries, size_t n, const safetensors_header *header,
                                  moe_error *err)
{
    /* both in name order */
    for (size_t i = 0; i < n || i < header->n_tensors; i++) {
        const int order = i == n ? 1 : i == header->n_tensors ? -1 : strcmp(entries[i].tensor, header->tensors[i].name);
        if (order < 0) {
            return moe_fail(err, MOE_ERR_CORRUPT, "tensor \"%.120s\" is mapped to shard %.100s, which does not have it",
                            entries[i].tensor, entries[0].shard);
        }
        if (order > 0) {
            return moe_fail(err, MOE_ERR_CORRUPT, "tensor \"%.120s\" of shard %.100s is not mapped to it by the index",
                            header->tensors[i].name, entries[0].shard);
        }
    }
    return MOE_OK;
}
