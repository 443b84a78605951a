/* The lines of a watch. */
#include <jansson.h>
#include <string.h>

#include "cluster/etcd_priv.h"

void etcd_watch_init(etcd_watch_parser *p, size_t max_line)
{
    *p = (etcd_watch_parser){.max_line = max_line};
    moe_text_init(&p->line, max_line);
}

void etcd_watch_fini(etcd_watch_parser *p)
{
    moe_text_fini(&p->line);
}

static void lost(etcd_watch_parser *p, cluster_watch_fn fn, void *ctx, const char *reason)
{
    const cluster_watch_event e = {.kind = CLUSTER_WATCH_LOST, .reason = reason};

    p->is_over = true;
    fn(ctx, &e);
}

/* Only a deletion is spelled out. */
static void one_event(etcd_watch_parser *p, const json_t *json, cluster_watch_fn fn, void *ctx)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    cluster_watch_event e = {.kind = CLUSTER_WATCH_PUT, .reason = ""};
    moe_error err;

    if (etcd_get_kv(json_object_get(json, "kv"), &e.kv, &err) != MOE_OK) {
        lost(p, fn, ctx, err.text);
        return;
    }
    if (type != NULL && strcmp(type, "DELETE") == 0) {
        e.kind = CLUSTER_WATCH_DELETE;
    }
    fn(ctx, &e);
    etcd_kv_fini(&e.kv);
}

/* A refusal and a compaction come in a line like any other: `canceled` is looked at first. */
static bool is_cancelled(etcd_watch_parser *p, const json_t *result, cluster_watch_fn fn, void *ctx)
{
    const char *reason = json_string_value(json_object_get(result, "cancel_reason"));
    uint64_t compacted = 0;
    moe_error err;

    if (!etcd_get_u64(result, "compact_revision", &compacted) ||
        (compacted == 0 && !json_is_true(json_object_get(result, "canceled")))) {
        return false;
    }
    if (compacted != 0) {
        (void)moe_fail(&err, MOE_ERR_UNAVAILABLE, "compacted up to revision %llu", (unsigned long long)compacted);
    } else {
        (void)moe_fail(&err, MOE_ERR_UNAVAILABLE, "cancelled: %.200s", reason != NULL ? reason : "no reason given");
    }
    lost(p, fn, ctx, err.text);
    return true;
}

static void one_result(etcd_watch_parser *p, const json_t *result, cluster_watch_fn fn, void *ctx)
{
    const cluster_watch_event created = {.kind = CLUSTER_WATCH_CREATED, .reason = ""};
    const json_t *events = json_object_get(result, "events");

    if (is_cancelled(p, result, fn, ctx)) {
        return;
    }
    if (json_is_true(json_object_get(result, "created"))) {
        fn(ctx, &created);
    }
    for (size_t i = 0; i < json_array_size(events) && !p->is_over; i++) {
        one_event(p, json_array_get(events, i), fn, ctx);
    }
}

static void one_line(etcd_watch_parser *p, cluster_watch_fn fn, void *ctx)
{
    moe_json *json;
    moe_error err;

    if (strspn(moe_text_cstr(&p->line), " \t\r") == p->line.size) {
        return;
    }
    if (moe_json_parse(p->line.data, p->line.size, ETCD_JSON_DEPTH, &json, &err) != MOE_OK) {
        lost(p, fn, ctx, err.text);
        return;
    }
    const json_t *result = json_object_get(json, "result");
    const char *message = json_string_value(json_object_get(json_object_get(json, "error"), "message"));
    if (json_is_object(result)) {
        one_result(p, result, fn, ctx);
    } else {
        lost(p, fn, ctx, message != NULL ? message : "a line without a result");
    }
    moe_json_free(json);
}

void etcd_watch_feed(etcd_watch_parser *p, const char *bytes, size_t n, cluster_watch_fn fn, void *ctx)
{
    while (n > 0 && !p->is_over) {
        const char *end = memchr(bytes, '\n', n);
        size_t here = end != NULL ? (size_t)(end - bytes) : n;

        moe_text_append(&p->line, bytes, here);
        if (p->line.failed) {
            lost(p, fn, ctx, "a line is longer than the limit");
            return;
        }
        if (end != NULL) {
            one_line(p, fn, ctx);
            if (p->line.size > 0) { /* the memory is kept */
                p->line.size = 0;
                p->line.data[0] = '\0';
            }
        }
        here += end != NULL;
        bytes += here;
        n -= here;
    }
}
