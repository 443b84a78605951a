/* What the files of the etcd store share: the text side, which never sees curl, and is fuzzed. */
#ifndef CONCLAVE_CLUSTER_ETCD_PRIV_H
#define CONCLAVE_CLUSTER_ETCD_PRIV_H

#include "cluster/store.h"

#define ETCD_JSON_DEPTH 16

/* ------------------------------------------------------------------------------------------------ etcd_json.c
 * The gateway's JSON: 64-bit integers are strings, keys and values base64, zero values are absent. */
void etcd_put_base64(moe_text *t, const char *bytes, size_t n);
/* malloc'ed, with a NUL behind; NULL: not base64, or no memory. */
char *etcd_get_base64(const char *text, size_t n, size_t *n_out);
/* A string of digits, or a number; absent: 0. False: neither. */
bool etcd_get_u64(const moe_json *object, const char *key, uint64_t *out);
/* Key (as cluster_kv has it) and value are malloc'ed: etcd_kv_fini. Errors: MOE_ERR_CORRUPT: no key, no base64. */
MOE_NODISCARD moe_status etcd_get_kv(const moe_json *object, cluster_kv *out, moe_error *err);
void etcd_kv_fini(cluster_kv *kv);

void etcd_write_txn(moe_text *t, const cluster_txn *txn);
void etcd_write_range(moe_text *t, const char *prefix);
void etcd_write_watch(moe_text *t, const char *prefix, uint64_t from_revision);
void etcd_write_lease(moe_text *t, uint64_t id, uint64_t ttl_s); /* what is 0 is left out */
void etcd_write_login(moe_text *t, const char *user, const char *password);

/* Fills the reply of any unary call from its body; token_out (a login's, malloc'ed) may be NULL. kvs are owned by the
 * caller (etcd_reply_fini). HTTP status 200 is a reply, else an error whose status and text are put into reply->status
 * and err. Errors: MOE_ERR_CORRUPT when the body is none of what etcd sends. */
MOE_NODISCARD moe_status etcd_read_reply(const char *body, size_t bytes, long http_status, cluster_reply *reply,
                                         char **token_out, moe_error *err);
void etcd_reply_fini(cluster_reply *reply);

/* ------------------------------------------------------------------------------------------------ watch_parse.c
 * A watch's answer never ends: JSON objects, one per line, in pieces that know nothing of lines. */
typedef struct etcd_watch_parser {
    moe_text line; /* owned: what has come of the present line */
    size_t max_line;
    bool is_over; /* lost was reported; what comes is ignored */
} etcd_watch_parser;

void etcd_watch_init(etcd_watch_parser *p, size_t max_line);
void etcd_watch_fini(etcd_watch_parser *p);
/* Calls fn for every event; the last one may be CLUSTER_WATCH_LOST: cancelled, compacted, an error, or malformed. */
void etcd_watch_feed(etcd_watch_parser *p, const char *bytes, size_t n, cluster_watch_fn fn, void *ctx);

#endif
