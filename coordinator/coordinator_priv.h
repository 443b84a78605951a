/* What the files of the program share: its parts, and how they are opened.
 *
 * Threads: everything here belongs to main. */
#ifndef CONCLAVE_COORDINATOR_COORDINATOR_PRIV_H
#define CONCLAVE_COORDINATOR_COORDINATOR_PRIV_H

#include "api/api.h"
#include "coordinator/embedded.h"
#include "coordinator/follower.h"
#include "coordinator/options.h"
#include "coordinator/packs.h"
#include "coordinator/pool.h"
#include "coordinator/registry.h"
#include "engine/engine.h"

/* Everything that lives as long as the process; closed by coordinator_close in the order that its users need. */
typedef struct coordinator {
    coordinator_config config;
    accept_rules accept;
    api_loading loading;
    member_files files;
    tokenizer *tokenizer; /* NULL: token ids only */
    char **labels;        /* NULL: none */
    uint32_t max_context;
    api_server *server;
    api_server *admin;  /* NULL: beside Inference */
    api_server *health; /* alone; NULL: off */
    api_http *http;     /* NULL: off */
    moe_threads *threads;
    char place[COMPUTE_MAX_PLACE]; /* of the devices */
    compute_device *device;
    moe_threads *maker_threads; /* one */
    compute_device *maker;      /* makes experts and gates while the device computes */
    packs *packs;               /* that are open; of whoever changes experts */
    catalogue *catalogue;       /* shared: with the packs that were there from the start */
    model *model;
    model_kv *kv;
    router_set *base_set;
    embedded *embedded; /* one of the two: experts in this process, */
    pool *pool;         /* or in a cluster */
    engine *engine;
    registry *registry; /* one of the two: the catalogue of this process, */
    follower *follower; /* or of a cluster */
} coordinator;

/* load.c: in this order. */
MOE_NODISCARD moe_status coordinator_open_files(coordinator *c, moe_error *err); /* headers and texts: quick */
MOE_NODISCARD moe_status coordinator_load(coordinator *c, moe_error *err);       /* hashes, weights, engine: minutes */
bool coordinator_in_cluster(const coordinator *c);
size_t coordinator_weights_bytes(const coordinator *c); /* that this process holds a copy of */

/* first_packs.c: --pack. Opened and checked, with the catalogue that has them; then, with an engine that has not started,
 * loaded and in its set. now_ms: of the wall clock. */
size_t first_packs_bytes(const coordinator *c); /* of their files, before they are checked */
MOE_NODISCARD moe_status first_packs_check(coordinator *c, uint64_t now_ms, moe_error *err);
MOE_NODISCARD moe_status first_packs_load(coordinator *c, checkpoint_progress progress, void *progress_ctx,
                                          moe_error *err);

/* listeners.c */
MOE_NODISCARD moe_status listeners_check(coordinator_config *o, moe_error *err); /* without opening anything */
MOE_NODISCARD moe_status listeners_open(coordinator *c, moe_error *err);
void listeners_set_engine(coordinator *c);
void listeners_announce_drain(coordinator *c);
void listeners_begin_drain(coordinator *c);
void listeners_close(coordinator *c);
/* As --listen, with the port that was found. */
void listeners_address(const coordinator *c, char out[MOE_ADDRESS_BYTES]);

#endif
