/* Lists in parts. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/etcd_priv.h"

/* Chosen, not measured. FIRST: keys of a part once all of them were too much; with etcd's own limit of 1.5 MiB for a value
 * about 30 always fit. MOST: from there on all are asked for again. KEY_BYTES: what a key costs beside its name. */
#define FIRST     256
#define MOST      4096
#define KEY_BYTES 128

void etcd_listing_init(etcd_listing *l, const char *prefix, size_t limit, size_t max_bytes)
{
    *l = (etcd_listing){.limit = limit, .max_bytes = max_bytes};
    (void)snprintf(l->prefix, sizeof l->prefix, "%s", prefix);
}

void etcd_listing_fini(etcd_listing *l)
{
    cluster_reply all = {.kvs = l->kvs, .n_kvs = l->n_kvs};

    etcd_reply_fini(&all);
    free(l->from);
    *l = (etcd_listing){.limit = l->limit};
}

void etcd_listing_write(const etcd_listing *l, moe_text *t)
{
    const bool has_from = l->from != NULL;
    const etcd_range_part part = {.from = has_from ? l->from : l->prefix,
                                  .n_from = has_from ? l->n_from : strlen(l->prefix),
                                  .limit = l->keys_only ? 1 : l->limit,
                                  .keys_only = l->keys_only,
                                  .revision = l->revision};

    etcd_write_range(t, l->prefix, &part);
}

bool etcd_listing_shrink(etcd_listing *l)
{
    if (l->keys_only) {
        return false;
    }
    l->keys_only = l->limit == 1;
    l->limit = l->limit == 0 ? FIRST : MOE_MAX(l->limit / 4, (size_t)1);
    return true;
}

/* Where values are more than is kept, the largest go first: members' are small. What is left is a key whose value no member
 * writes. */
static void leave_out(etcd_listing *l)
{
    for (size_t cap = l->max_bytes / 2; l->n_bytes > l->max_bytes && cap > 0; cap /= 2) {
        for (size_t i = 0; i < l->n_kvs; i++) {
            cluster_kv *kv = &l->kvs[i];

            if (kv->value_bytes > cap) {
                l->n_bytes -= kv->value_bytes;
                l->n_left_out++;
                kv->value_bytes = 0;
                ((char *)(uintptr_t)kv->value)[0] = '\0';
                char *less = realloc((char *)(uintptr_t)kv->value, 1);
                kv->value = less != NULL ? less : kv->value;
            }
        }
    }
}

static moe_status keep(etcd_listing *l, cluster_reply *part, moe_error *err)
{
    cluster_kv *kvs = realloc(l->kvs, (l->n_kvs + part->n_kvs + 1) * sizeof *kvs);

    if (kvs == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%zu keys", l->n_kvs + part->n_kvs);
    }
    l->kvs = kvs;
    for (size_t i = 0; i < part->n_kvs; i++) {
        kvs[l->n_kvs++] = part->kvs[i];
        l->n_bytes += strlen(part->kvs[i].key) + KEY_BYTES + part->kvs[i].value_bytes;
    }
    part->n_kvs = 0; /* they are the listing's */
    leave_out(l);
    return l->n_bytes <= l->max_bytes
               ? MOE_OK
               : moe_fail(err, MOE_ERR_CORRUPT, "the names of the keys below %s are more than %zu bytes", l->prefix,
                          l->max_bytes);
}

moe_status etcd_listing_take(etcd_listing *l, cluster_reply *part, const etcd_rest *rest, bool *more_out,
                             moe_error *err)
{
    moe_status status = keep(l, part, err);

    *more_out = status == MOE_OK && rest->more && rest->n_last > 0;
    l->revision = l->revision == 0 ? part->revision : l->revision;
    if (*more_out) {
        char *from = realloc(l->from, rest->n_last + 1);

        if (from == NULL) {
            return moe_fail(err, MOE_ERR_NO_MEMORY, "a key of %zu bytes", rest->n_last);
        }
        memcpy(from, rest->last, rest->n_last); /* the next key is this one with a NUL behind it */
        from[rest->n_last] = '\0';
        l->from = from;
        l->n_from = rest->n_last + 1;
    }
    l->n_left_out += l->keys_only;
    if (l->keys_only) {
        l->keys_only = false;
        l->limit = 2;
    } else {
        l->limit = l->limit > 0 && l->limit < MOST ? 2 * l->limit : 0;
    }
    return status;
}

void etcd_listing_give(etcd_listing *l, cluster_reply *reply)
{
    etcd_reply_fini(reply);
    reply->kvs = l->kvs;
    reply->n_kvs = l->n_kvs;
    reply->revision = l->revision;
    l->kvs = NULL;
    l->n_kvs = 0;
}
