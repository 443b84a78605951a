/* cluster_store: a shared key-value store with leases, transactions and a watch, as etcd has them, behind a table.
 *
 * Everything is asynchronous. A call takes its arguments at once (nothing is borrowed afterwards) and answers exactly
 * once through its callback, always from within poll; callbacks must not call the store. A failure is an answer like
 * any other: its status says whether it is the store (UNAVAILABLE, TIMEOUT, CORRUPT), the credentials (DENIED) or the
 * request (NOT_FOUND: the lease is dead; BUSY: the store is full; INVALID_ARG). A call that failed may still have been
 * executed.
 *
 * Threads: all calls and callbacks on one thread; wake from any. */
#ifndef CONCLAVE_CLUSTER_STORE_H
#define CONCLAVE_CLUSTER_STORE_H

#include "cluster/cluster.h"

#define CLUSTER_STORE_MAX_KEY 511 /* characters */

typedef struct cluster_kv {
    /* NUL-terminated. Anybody may write a key of any bytes: what is not printable ASCII, and the backslash, comes as \xNN,
     * and what is longer than CLUSTER_STORE_MAX_KEY is cut. No key of a cluster has either. */
    const char *key;
    const char *value; /* [value_bytes], with a NUL behind them */
    size_t value_bytes;
    uint64_t create_revision, mod_revision, lease;
} cluster_kv;

/* Equality with a revision. A key that is absent has the revision 0 in both. */
typedef enum { CLUSTER_COMPARE_CREATE, CLUSTER_COMPARE_MOD } cluster_compare_kind;
typedef struct cluster_compare {
    cluster_compare_kind kind;
    const char *key;
    uint64_t revision;
} cluster_compare;

typedef struct cluster_put {
    const char *key, *value;
    size_t value_bytes;
    uint64_t lease; /* 0: none */
} cluster_put;

/* If all compares hold: all puts and deletes, as one revision. Otherwise nothing. */
typedef struct cluster_txn {
    const cluster_compare *compares;
    size_t n_compares;
    const cluster_put *puts;
    size_t n_puts;
    const char *const *deletes;
    size_t n_deletes;
} cluster_txn;

typedef struct cluster_reply {
    moe_status status;
    const char *reason;    /* "" when ok */
    uint64_t revision;     /* of the store */
    bool succeeded;        /* txn: the compares held */
    uint64_t lease, ttl_s; /* grant, keepalive; ttl_s 0: the lease is dead */
    const cluster_kv *kvs; /* range: [n_kvs] ascending keys */
    size_t n_kvs;
} cluster_reply;
typedef void (*cluster_reply_fn)(void *ctx, const cluster_reply *reply);

typedef enum {
    CLUSTER_WATCH_CREATED, /* events from from_revision on will come */
    CLUSTER_WATCH_PUT,     /* kv */
    CLUSTER_WATCH_DELETE,  /* kv: key and mod_revision */
    CLUSTER_WATCH_LOST     /* the last event of this watch; reason says why (also compaction, and a refusal) */
} cluster_watch_kind;
typedef struct cluster_watch_event {
    cluster_watch_kind kind;
    cluster_kv kv;
    const char *reason;
} cluster_watch_event;
typedef void (*cluster_watch_fn)(void *ctx, const cluster_watch_event *event);

typedef struct cluster_store_ops {
    const char *name;
    void (*txn)(cluster_store *s, const cluster_txn *txn, cluster_reply_fn fn, void *ctx);
    void (*grant)(cluster_store *s, uint64_t ttl_s, cluster_reply_fn fn, void *ctx);
    void (*keepalive)(cluster_store *s, uint64_t lease, cluster_reply_fn fn, void *ctx);
    void (*revoke)(cluster_store *s, uint64_t lease, cluster_reply_fn fn, void *ctx);
    void (*range)(cluster_store *s, const char *prefix, cluster_reply_fn fn, void *ctx); /* linearizable */
    /* One watch at a time: a new one replaces the old one, which is not heard of any more. */
    void (*watch)(cluster_store *s, const char *prefix, uint64_t from_revision, cluster_watch_fn fn, void *ctx);
    void (*unwatch)(cluster_store *s);
    /* Makes progress and calls back; waits until something has happened, wake, or timeout_ns has passed. */
    void (*poll)(cluster_store *s, uint64_t timeout_ns);
    void (*wake)(cluster_store *s);
    void (*close)(cluster_store *s);
} cluster_store_ops;

struct cluster_store {
    const cluster_store_ops *ops;
};

/* ------------------------------------------------------------------------------------------------ memory
 * A store in memory, shared by any number of clients (one per member) of one thread, on a clock of the caller's: for
 * tests. Faults are switched on and off while it runs. */
typedef struct cluster_memory cluster_memory;

typedef struct cluster_memory_faults {
    bool down;             /* every call fails with UNAVAILABLE, every watch is lost */
    uint32_t fail_percent; /* of the calls fail; half of those have been executed */
    uint32_t lose_percent; /* chance, at every poll, that the client's watch is lost */
    uint64_t max_delay_ns; /* replies come that late */
} cluster_memory_faults;

MOE_NODISCARD moe_status cluster_memory_open(const moe_clock *clock, uint64_t seed, cluster_memory **out);
void cluster_memory_close(cluster_memory *m); /* after its clients */
MOE_NODISCARD moe_status cluster_memory_client(cluster_memory *m, cluster_store **out);

void cluster_memory_set_faults(cluster_memory *m, const cluster_memory_faults *faults);
void cluster_memory_expire_leases(cluster_memory *m); /* all end now */
void cluster_memory_lose_watches(cluster_memory *m);  /* all end now, and tell it */
void cluster_memory_mute_watches(cluster_memory *m);  /* all stay silent from now on; later ones speak */
void cluster_memory_compact(cluster_memory *m);       /* events until now can no longer be watched */
void cluster_memory_wipe(cluster_memory *m);          /* all is gone; revisions begin anew */
void cluster_memory_save(cluster_memory *m);          /* keeps what is there now */
void cluster_memory_restore(cluster_memory *m);       /* what was saved is there again, at its revision; leases go on */
void cluster_memory_lag(cluster_memory *m);           /* the next list of every client is of what was saved */
void cluster_memory_put(cluster_memory *m, const char *key, const char *value); /* by a stranger */
/* The same, under the lease that the key has; false: there is no such key. */
bool cluster_memory_forge(cluster_memory *m, const char *key, const char *value);
const char *cluster_memory_get(cluster_memory *m, const char *key); /* NULL: absent */

#endif
