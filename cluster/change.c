/* Change: a transaction that is built up, sent, and entered into the mirror when it has succeeded. */
#include "cluster/cluster_priv.h"

#include <stdlib.h>
#include <string.h>

static char *full_key(cluster *c, const char *key)
{
    char *full = NULL;

    if (asprintf(&full, "%s%s", c->prefix, key) < 0) {
        return NULL;
    }
    return full;
}

void cluster_change_fini(cluster_change *h)
{
    for (size_t i = 0; i < MOE_COUNT(h->keys); i++) {
        free(h->keys[i]);
        h->keys[i] = NULL;
    }
    for (size_t i = 0; i < h->n_puts; i++) {
        moe_text_fini(&h->values[i]);
    }
    h->n_puts = h->n_compares = h->bytes = 0;
    h->doomed = NULL;
}

void cluster_change_begin(cluster *c)
{
    MOE_ASSERT(c->op == CLUSTER_OP_NONE);
    cluster_change_fini(&c->change);
}

void cluster_change_compare(cluster *c, cluster_compare_kind kind, const char *key, uint64_t revision)
{
    cluster_change *h = &c->change;
    size_t at = CLUSTER_TXN_PUTS + h->n_compares;

    MOE_ASSERT(h->n_compares < MOE_COUNT(h->compares));
    h->keys[at] = full_key(c, key);
    h->compares[h->n_compares++] = (cluster_compare){kind, h->keys[at], revision};
}

moe_text *cluster_change_put(cluster *c, const char *key, uint64_t lease)
{
    cluster_change *h = &c->change;

    MOE_ASSERT(h->n_puts < CLUSTER_TXN_PUTS);
    moe_text_init(&h->values[h->n_puts], (size_t)1 << 20);
    h->keys[h->n_puts] = full_key(c, key);
    h->puts[h->n_puts] = (cluster_put){.key = h->keys[h->n_puts], .lease = lease};
    return &h->values[h->n_puts++];
}

void cluster_change_delete(cluster *c, const char *key)
{
    cluster_change *h = &c->change;

    MOE_ASSERT(h->doomed == NULL);
    h->doomed = key;
    h->keys[MOE_COUNT(h->keys) - 1] = full_key(c, key);
}

/* A success is entered at once, so that the next turn sees it and does not send the same change again. */
static void enter_change(cluster *c, uint64_t revision)
{
    for (size_t i = 0; i < c->change.n_puts; i++) {
        const cluster_put *p = &c->change.puts[i];
        const cluster_kv kv = {.key = p->key,
                               .value = p->value,
                               .value_bytes = p->value_bytes,
                               .mod_revision = revision,
                               .lease = p->lease};
        cluster_enter(c, &kv);
    }
    if (c->change.doomed != NULL) {
        cluster_mirror_delete(&c->mirror, c->change.doomed, revision);
    }
    c->is_dirty = true;
}

/* The store does not know a lease that the transaction names. */
static void drop_named(cluster *c, cluster_lease *l)
{
    bool is_named = false;

    for (size_t i = 0; i < c->change.n_puts; i++) {
        is_named = is_named || (l->id != 0 && c->change.puts[i].lease == l->id);
    }
    if (is_named) {
        cluster_lease_drop(l);
    }
}

static void on_change(void *ctx, const cluster_reply *reply)
{
    cluster *c = ctx;

    c->op = CLUSTER_OP_NONE;
    if (reply->status == MOE_OK && reply->succeeded) {
        cluster_answered(c, reply);
        enter_change(c, reply->revision);
        c->told_version = MOE_MAX(c->told_version, c->sent_version);
        c->own_revision = c->sent_version != 0 ? reply->revision : c->own_revision;
    } else {
        cluster_control_reset(c);
        if (reply->status == MOE_OK) { /* a comparison failed: another member was faster */
            cluster_answered(c, reply);
            cluster_resync(c);
        } else if (reply->status == MOE_ERR_NOT_FOUND) {
            drop_named(c, &c->lease);
            drop_named(c, &c->office);
            cluster_resync(c);
        } else {
            cluster_failed(c, reply);
        }
    }
    c->sent_version = 0;
    cluster_change_fini(&c->change);
}

void cluster_change_send(cluster *c)
{
    cluster_change *h = &c->change;
    const char *const doomed = h->keys[MOE_COUNT(h->keys) - 1];
    const cluster_txn txn = {.compares = h->compares,
                             .n_compares = h->n_compares,
                             .puts = h->puts,
                             .n_puts = h->n_puts,
                             .deletes = &doomed,
                             .n_deletes = h->doomed != NULL};
    bool complete = h->doomed == NULL || doomed != NULL;

    for (size_t i = 0; i < h->n_puts; i++) {
        if (h->keys[i] != NULL) {
            cluster_seal_write(&c->seal, h->keys[i] + strlen(c->prefix), &h->values[i]);
        }
        h->puts[i].value = moe_text_cstr(&h->values[i]);
        h->puts[i].value_bytes = h->values[i].size;
        complete = complete && h->keys[i] != NULL && !h->values[i].failed;
    }
    for (size_t i = 0; i < h->n_compares; i++) {
        complete = complete && h->compares[i].key != NULL;
    }
    if (!complete) {
        const cluster_reply reply = {.status = MOE_ERR_NO_MEMORY, .reason = "out of memory for a transaction"};
        on_change(c, &reply);
        return;
    }
    c->op = CLUSTER_OP_TXN;
    c->store->ops->txn(c->store, &txn, on_change, c);
}
