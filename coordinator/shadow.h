/* shadow: what a pack on trial would have made of the answers that were given. A share of the requests is read twice more when it has
 * ended, under the default set and under the one on trial; what differs is how likely each thought the tokens that were delivered.
 *
 * Both readings are scores in the engine's background: nobody waits for them, and they wait for everybody. There is room for some
 * requests; others of the share are dropped, and counted. Which requests are of the share follows from their ids alone, so that one
 * that goes on at another coordinator stays in it, or out of it.
 *
 * Threads: offer and read on any; the readings are the shadow's own thread's. */
#ifndef CONCLAVE_COORDINATOR_SHADOW_H
#define CONCLAVE_COORDINATOR_SHADOW_H

#include "api/catalogue.h"
#include "engine/engine.h"

typedef struct shadow shadow;

/* Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status shadow_open(engine *e, shadow **out, moe_error *err);
/* A request that has ended well: of the default set of `c`, and of the share, it is scored when there is time. Of its choices the
 * first is: the others answer the same prompt. */
void shadow_offer(shadow *s, const catalogue *c, const engine_request *r);
/* Of the trial that `c` has; all 0 when nothing was compared yet. */
void shadow_read(shadow *s, const catalogue *c, api_compared *out);
bool shadow_takes(const char *request_id, uint32_t share); /* of CATALOGUE_ALL_REQUESTS */
void shadow_close(shadow *s);                              /* before engine_close. NULL is fine */

#endif
