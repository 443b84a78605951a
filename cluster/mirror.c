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

void cluster_mirror_fini(cluster_mirror *m)
{
    for (size_t i = 0; i < m->n; i++) {
        entry_fini(&m->entries[i]);
    }
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

cluster_entry *cluster_mirror_read(const cluster_mirror *m, const char *key)
{
    cluster_entry *e = cluster_mirror_find(m, key);

    return e != NULL && e->doubt == NULL ? e : NULL;
}

static void remove_at(cluster_mirror *m, size_t at)
{
    entry_fini(&m->entries[at]);
    memmove(&m->entries[at], &m->entries[at + 1], (m->n - at - 1) * sizeof *m->entries);
    m->n--;
}

/* Somebody who writes many keys must not push out a member's. */
static bool evict_doubted(cluster_mirror *m)
{
    for (size_t i = m->n; i > 0; i--) {
        if (m->entries[i - 1].doubt != NULL) {
            remove_at(m, i - 1);
            return true;
        }
    }
    return false;
}

static moe_status make_room(cluster_mirror *m, bool is_believed)
{
    if (m->n >= CLUSTER_MAX_KEYS && !(is_believed && evict_doubted(m))) {
        return MOE_ERR_BUSY;
    }
    if (m->n < m->capacity) {
        return MOE_OK;
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

moe_status cluster_mirror_put(cluster_mirror *m, const cluster_kv *kv, const char *doubt)
{
    size_t value_bytes = doubt == NULL ? kv->value_bytes : 0;
    cluster_entry *e = cluster_mirror_find(m, kv->key);

    if (e != NULL && e->mod_revision >= kv->mod_revision) {
        return MOE_OK;
    }
    moe_status status = e != NULL ? MOE_OK : make_room(m, doubt == NULL);
    if (status != MOE_OK) {
        return status;
    }
    char *value = malloc(value_bytes + 1);
    if (value == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    memcpy(value, kv->value, value_bytes);
    value[value_bytes] = '\0';
    if (e == NULL && (e = insert(m, kv->key)) == NULL) {
        free(value);
        return MOE_ERR_NO_MEMORY;
    }
    free(e->value);
    e->value = value;
    e->value_bytes = value_bytes;
    e->mod_revision = kv->mod_revision;
    e->lease = kv->lease;
    e->doubt = doubt;
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
    remove_at(m, (size_t)(e - m->entries));
}

bool cluster_entry_complain(cluster_entry *e, const moe_error *err)
{
    bool is_new = !e->complained;

    if (is_new) {
        MOE_WARN("cluster: key %s at revision %llu is ignored: %s", e->key, (unsigned long long)e->mod_revision,
                 err->text);
        e->complained = true;
    }
    return is_new;
}

void cluster_mirror_take_over(cluster_mirror *m, const cluster_mirror *old)
{
    for (size_t i = 0; i < old->n; i++) {
        cluster_entry *e = old->entries[i].complained ? cluster_mirror_find(m, old->entries[i].key) : NULL;

        if (e != NULL && e->mod_revision == old->entries[i].mod_revision) {
            e->complained = true;
        }
    }
}
