/* Any bytes as the answer of a watch, in pieces whose sizes come from the first byte, and as the body of any other
 * reply. However it is cut, the same events must come out. */
#include <stdlib.h>
#include <string.h>

#include "cluster/etcd_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

typedef struct sum {
    uint64_t hash;
    size_t n_events, n_lost;
} sum;

static void on_event(void *ctx, const cluster_watch_event *e)
{
    sum *s = ctx;

    MOE_ASSERT(s->n_lost == 0); /* nothing comes after the end */
    s->n_events++;
    s->n_lost += e->kind == CLUSTER_WATCH_LOST;
    s->hash = s->hash * 31 + (uint64_t)e->kind;
    if (e->kind == CLUSTER_WATCH_LOST) {
        MOE_ASSERT(e->reason != NULL);
    } else if (e->kind != CLUSTER_WATCH_CREATED) {
        MOE_ASSERT(strlen(e->kv.key) > 0 && e->kv.value[e->kv.value_bytes] == '\0');
        s->hash = s->hash * 31 + e->kv.mod_revision + (unsigned char)e->kv.key[0] + e->kv.value_bytes;
    }
}

static sum feed(const char *bytes, size_t n, size_t piece)
{
    etcd_watch_parser p;
    sum s = {0};

    etcd_watch_init(&p, 4096);
    for (size_t at = 0; at < n; at += piece) {
        etcd_watch_feed(&p, bytes + at, MOE_MIN(piece, n - at), on_event, &s);
    }
    etcd_watch_fini(&p);
    return s;
}

static void reply(const char *bytes, size_t n, long http_status)
{
    cluster_reply r;
    etcd_rest rest;
    moe_error err;

    if (etcd_read_reply(bytes, n, http_status, &r, &rest, &err) == MOE_OK) {
        etcd_listing l;
        bool more;

        etcd_listing_init(&l, "/a/", 0, 1000);
        if (etcd_listing_take(&l, &r, &rest, &more, &err) == MOE_OK) {
            MOE_ASSERT(l.n_bytes <= 1000 && r.n_kvs == 0 && (!more || l.from[l.n_from - 1] == '\0'));
        }
        etcd_listing_fini(&l);
        etcd_reply_fini(&r);
        etcd_rest_fini(&rest);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) {
        return 0;
    }
    const char *bytes = (const char *)data + 1;
    sum whole = feed(bytes, n - 1, n), cut = feed(bytes, n - 1, (size_t)1 + data[0]);
    MOE_ASSERT(whole.hash == cut.hash && whole.n_events == cut.n_events && whole.n_lost == cut.n_lost);
    reply(bytes, n - 1, 200);
    reply(bytes, n - 1, 400);
    return 0;
}
