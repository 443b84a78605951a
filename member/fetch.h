/* fetch: a pack read from nodes that have it into a directory of this member, piece by piece (docs/wire.md, FETCH), and opened there.
 *
 * Nothing that a node says is believed: the manifest has the hash that was asked for, each tensor the one of the manifest, and
 * what lies in the directory at the end is checked like any pack (pack_open). The names of files are ours: pack.json, pack.sig,
 * model.safetensors.
 *
 *   DIR/HASH           a whole pack
 *   DIR/HASH.router    the router's tensors alone: all that a coordinator needs
 *   DIR/....new        one that is being read; it is moved when all of it is there. Who reads holds the lock of ....lock, so
 *                      that members which share the directory read once; what a dead one left, or one that was given up or had no time
 *                      left, is gone on with by the next: tensors that are there whole are not read again
 *
 * A node that dies, that lies or that has no such pack costs the part that was being read: another is asked, and goes on from there.
 * What goes from the directory: member/pack_dir.h.
 * Bounds: each answer, the time and the bytes of the whole. Memory: the manifest and one piece.
 * Threads: the one that calls, which waits meanwhile: one of its own. */
#ifndef CONCLAVE_MEMBER_FETCH_H
#define CONCLAVE_MEMBER_FETCH_H

#include "cluster/cluster.h"
#include "pack/pack.h"
#include "proto/link.h"
#include "transport/transport.h"

typedef struct pack_fetch {
    transport *transport;    /* borrowed: an endpoint that nobody else uses; its handler is set */
    const wire_hello *hello; /* a reader's, of this cluster */
    const wire_key *key;     /* the cluster's */
    const moe_clock *clock;
    uint64_t deadline_ns;     /* of all of it */
    const char *const *nodes; /* [n_nodes] addresses of nodes that offer the pack, tried in this order */
    size_t n_nodes;
    checkpoint_digest hash;
    const pack_base *base;
    const pack_options *options; /* key_file, router_only */
    const char *dir;             /* made if it is not there */
    uint64_t max_bytes;          /* of the tensors that are read */
    /* Called with how many bytes more were read, and now and then while it waits, with 0. It may wait, to keep to a bandwidth.
     * False: it is given up with MOE_ERR_CANCELLED. NULL: none. */
    bool (*more)(void *ctx, size_t bytes);
    void *more_ctx;
} pack_fetch;

/* Finds the pack in the directory, or reads it. *out is owned (pack_close).
 * Errors: MOE_ERR_UNAVAILABLE no node has given it; err says what the last one said
 *         MOE_ERR_TIMEOUT     the deadline
 *         MOE_ERR_CANCELLED
 *         MOE_ERR_BUSY        it is above max_bytes
 *         MOE_ERR_IO          the directory: names file and reason
 *         those of pack_open  the pack is what was asked for, and wrong */
MOE_NODISCARD moe_status pack_fetch_run(const pack_fetch *f, pack **out, moe_error *err);
/* The same, after which the directory is tidied (member/pack_dir.h), from those nodes of a state that offer the pack of that
 * hash, but the one of that id (NULL: from all); sets f->hash and f->nodes, which are of the state. Errors: also MOE_ERR_CORRUPT:
 * the hash is none. */
MOE_NODISCARD moe_status pack_fetch_from(pack_fetch *f, const cluster_state *s, const char *hash, const char *but_id,
                                         pack **out, moe_error *err);

#endif
