/* loader: a thread that makes experts, beside the thread that serves.
 *
 * To read, hash and pack an expert takes from milliseconds to seconds. The serving thread asks for it, goes on
 * answering, and puts what comes back in its place (expert_node_load_finish), which is one pointer.
 *
 * Threads: the source is called on the loader's thread, whose priority is low. loader_pace belongs to the source, all
 *          else to the thread that opened the loader.
 * Memory:  at most LOADER_DEPTH experts are asked for and not taken; after open nothing but those is allocated. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_LOADER_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_LOADER_H

#include "expert_node/expert_node.h"

#define LOADER_DEPTH 4

typedef struct loader loader;

typedef struct loader_options {
    expert_source source;
    compute_device *device;    /* borrowed: the source's; no other thread uses it while the loader is open */
    const moe_clock *clock;    /* borrowed */
    uint64_t bytes_per_second; /* that loader_pace lets pass; 0: no limit */
    void (*done)(void *ctx);   /* an expert can be taken; on the loader's thread. NULL: none */
    void *ctx;
    bool stepped; /* no thread: loader_step makes the experts, without a limit. For a world of one thread */
} loader_options;

typedef struct loader_expert {
    uint32_t layer;
    int32_t expert_id;
    compute_expert *expert; /* owned by who takes it; NULL unless status is MOE_OK */
    moe_status status;      /* the source's */
    moe_error err;
} loader_expert;

/* Errors: MOE_ERR_NO_MEMORY, MOE_ERR_UNAVAILABLE (no thread). */
MOE_NODISCARD moe_status loader_open(const loader_options *options, loader **out, moe_error *err);
/* What is being read is given up at its next loader_pace; what nobody took is closed. NULL is fine. */
void loader_close(loader *l);

/* Experts are made in the order asked. False: LOADER_DEPTH are asked for and not taken. */
bool loader_ask(loader *l, uint32_t layer, int32_t expert_id);
/* False: nothing is ready. */
bool loader_take(loader *l, loader_expert *out);

/* Of a stepped loader: makes the next expert on this thread. False: none is asked for. */
bool loader_step(loader *l);

/* For expert_checkpoint.more, with the loader as ctx: so many bytes more were read. Waits as long as the bandwidth asks.
 * False: the loader is being closed. */
bool loader_pace(void *l, size_t bytes);

#endif
