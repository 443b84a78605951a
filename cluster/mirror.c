/* Mirror: what the store holds, as far as it is known. Entries are sorted by key, so that all keys of a kind
 * (nodes/..., placement/...) lie together.
 *
 * A change may come here twice and by three ways: as a part of a list, as an event of the watch, and as the answer to
 * our own transaction. Revisions put them in order: a put or delete that is not newer than the entry changes nothing.
 * There are no tombstones: an answer that comes after the watch has told of the key's deletion brings the key back to
 * life here. Only a key that this member wrote can do that; the next list, 30 s later at most, takes it out again. */
#include "cluster/cluster_priv.h"

#include <stdlib.h>
#include <string.h>

static void entry_fini(cluster_entry *e)
{
    free(e->key);
    free(e->value);
}

void cluster_mirror_clear(cluster_mirror *m)
{
    for (size_t i = 0; i < m->n; i++) {
        entry_fini(&m->entries[i]);
    }
    m->n = 0;
}

void cluster_mirror_fini(cluster_mirror *m)
{
    cluster_mirror_clear(m);
    free(m->entries);
    *m = (cluster_mirror){0};
}

size_t cluster_mirror_lower(const cluster_mirror *m, const char *text)
{
    size_t begin = 0, end = m->n;

    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;

        if (strcmp(m->entries[middle].key, text) < 0) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

cluster_entry *cluster_mirror_find(const cluster_mirror *m, const char *key)
{
    size_t at = cluster_mirror_lower(m, key);

    return at < m->n && strcmp(m->entries[at].key, key) == 0 ? &m->entries[at] : NULL;
}

static moe_status make_room(cluster_mirror *m)
{
    if (m->n < m->capacity) {
        return MOE_OK;
    }
    if (m->n >= CLUSTER_MAX_KEYS) {
        return MOE_ERR_BUSY;
    }
    size_t capacity = MOE_MAX(m->capacity * 2, (size_t)64);
    cluster_entry *entries = realloc(m->entries, capacity * sizeof *entries);
    if (entries == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    m->entries = entries;
    m->capacity = capacity;
    return MOE_OK;
}

/* A new entry at its place, without a value. */
static cluster_entry *insert(cluster_mirror *m, const char *key)
{
    char *copy = strdup(key);

    if (copy == NULL) {
        return NULL;
    }
    size_t at = cluster_mirror_lower(m, key);
    memmove(&m->entries[at + 1], &m->entries[at], (m->n - at) * sizeof *m->entries);
    m->n++;
    m->entries[at] = (cluster_entry){.key = copy};
    return &m->entries[at];
}

moe_status cluster_mirror_put(cluster_mirror *m, const cluster_kv *kv)
{
    cluster_entry *e = cluster_mirror_find(m, kv->key);

    if (e != NULL && e->mod_revision >= kv->mod_revision) {
        return MOE_OK;
    }
    moe_status status = e != NULL ? MOE_OK : make_room(m);
    if (status != MOE_OK) {
        return status;
    }
    char *value = malloc(kv->value_bytes + 1);
    if (value == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    memcpy(value, kv->value, kv->value_bytes);
    value[kv->value_bytes] = '\0';
    if (e == NULL && (e = insert(m, kv->key)) == NULL) {
        free(value);
        return MOE_ERR_NO_MEMORY;
    }
    free(e->value);
    e->value = value;
    e->value_bytes = kv->value_bytes;
    e->mod_revision = kv->mod_revision;
    e->lease = kv->lease;
    e->complained = false;
    if (kv->create_revision != 0 || e->create_revision == 0) {
        e->create_revision = kv->create_revision != 0 ? kv->create_revision : kv->mod_revision;
    }
    return MOE_OK;
}

void cluster_mirror_delete(cluster_mirror *m, const char *key, uint64_t revision)
{
    cluster_entry *e = cluster_mirror_find(m, key);

    if (e == NULL || e->mod_revision >= revision) {
        return;
    }
    size_t at = (size_t)(e - m->entries);
    entry_fini(e);
    memmove(e, e + 1, (m->n - at - 1) * sizeof *e);
    m->n--;
}
