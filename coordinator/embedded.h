/* embedded: one expert node in the coordinator's process, behind the loopback transport, and the placement that gives
 * it everything. Frames are encoded and decoded as on a network.
 *
 * Threads: opened by main, then the engine thread's; the view's numbers are read from any thread. */
#ifndef CONCLAVE_COORDINATOR_EMBEDDED_H
#define CONCLAVE_COORDINATOR_EMBEDDED_H

#include "api/api.h"
#include "exchange/exchange.h"
#include "model/model.h"

typedef struct embedded embedded;

typedef struct embedded_options {
    const model_config *config; /* borrowed, as all here */
    router_space *space;        /* its experts for nodes are all loaded */
    const model_tensors *tensors;
    compute_device *device; /* shared with the coordinator's part: both run on the engine thread */
    compute_layout layout;
    const unsigned char *fingerprint; /* [32] of the model's manifest */
    size_t max_rows;                  /* of one step */
    uint32_t micro_batches;
    checkpoint_progress progress; /* loading experts; may be NULL */
    void *progress_ctx;
} embedded_options;

MOE_NODISCARD moe_status embedded_open(const embedded_options *options, embedded **out, moe_error *err);
void embedded_close(embedded *e); /* NULL is fine */
exchange *embedded_exchange(embedded *e);
/* Shows the node to the API: one node that holds every expert. address (copied): the coordinator's gRPC address, once
 * it is known. */
const api_view *embedded_view(embedded *e);
void embedded_set_address(embedded *e, const char *address);

#endif
