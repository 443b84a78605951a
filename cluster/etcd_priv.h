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
typedef struct etcd_range_part {
    const char *from; /* [n_from] where it begins */
    size_t n_from;
    size_t limit; /* keys; 0: all that follow */
    bool keys_only;
    uint64_t revision; /* 0: the newest */
} etcd_range_part;
void etcd_write_range(moe_text *t, const char *prefix, const etcd_range_part *part); /* what is 0 is left out */
void etcd_write_watch(moe_text *t, const char *prefix, uint64_t from_revision);
void etcd_write_lease(moe_text *t, uint64_t id, uint64_t ttl_s); /* what is 0 is left out */
void etcd_write_login(moe_text *t, const char *user, const char *password);

/* What a reply has beside. Owned by the caller: etcd_rest_fini. */
typedef struct etcd_rest {
    char *token; /* a login's; NULL: none */
    bool more;   /* of a range: there are further keys */
    char *last;  /* [n_last] the last key, as it is in etcd; only with more */
    size_t n_last;
} etcd_rest;
void etcd_rest_fini(etcd_rest *rest);

/* Fills the reply of any unary call from its body. kvs are owned by the caller (etcd_reply_fini). HTTP status 200 is a reply, else an error whose status and text are put into reply->status
 * and err. Errors: MOE_ERR_CORRUPT when the body is none of what etcd sends. */
MOE_NODISCARD moe_status etcd_read_reply(const char *body, size_t bytes, long http_status, cluster_reply *reply,
                                         etcd_rest *rest, moe_error *err);
void etcd_reply_fini(cluster_reply *reply);

/* ------------------------------------------------------------------------------------------------ listing.c
 * All that is below a prefix, at one revision, in parts that are made smaller while they are above the limit of a reply. A value
 * that is alone above it, and those that are too much together, the largest first, are left out: the key is there, the value
 * is "". So nobody stops a list by what he writes. */
typedef struct etcd_listing {
    char prefix[CLUSTER_STORE_MAX_KEY + 1];
    char *from; /* owned [n_from]: where the next part begins; NULL: at the prefix */
    size_t n_from;
    uint64_t revision;         /* of all parts; 0: none has come */
    size_t limit;              /* keys in the next part; 0: all */
    bool keys_only;            /* the next part is one key whose value is above the limit */
    size_t max_bytes, n_bytes; /* what may be kept, and is */
    cluster_kv *kvs;           /* owned [n_kvs] */
    size_t n_kvs, n_left_out;
} etcd_listing;

void etcd_listing_init(etcd_listing *l, const char *prefix, size_t limit, size_t max_bytes);
void etcd_listing_fini(etcd_listing *l); /* its limit stays, for the next one */
void etcd_listing_write(const etcd_listing *l, moe_text *t);
bool etcd_listing_shrink(etcd_listing *l); /* a part was too large; false: it cannot be made smaller */
/* Takes the keys out of the reply. Errors: MOE_ERR_CORRUPT: the names alone are more than may be kept. */
MOE_NODISCARD moe_status etcd_listing_take(etcd_listing *l, cluster_reply *part, const etcd_rest *rest, bool *more_out,
                                           moe_error *err);
void etcd_listing_give(etcd_listing *l, cluster_reply *reply); /* puts them into the reply, which is the caller's */

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
