/* sets: which set a request gets. Any thread. */
#ifndef CONCLAVE_API_SETS_PRIV_H
#define CONCLAVE_API_SETS_PRIV_H

#include "conclave/v1/inference.pb-c.h"
#include "api/catalogue.h"
#include "api/permits.h"
#include "engine/engine.h"

#define SETS_MAX_WORDS 64 /* of include, and of exclude */

/* Where a request comes from and what it may have. Borrowed. */
typedef struct request_scope {
    engine *engine;
    const api_catalogue *catalogue;
    const permits *permits; /* NULL: all */
} request_scope;

/* The set that a request names; r NULL: it names none. *out is referenced and lives (api_catalogue.hold); NULL: the one that is current
 * when the request is admitted. Errors name the field: MOE_ERR_NOT_FOUND, MOE_ERR_INVALID_ARG, MOE_ERR_BUSY (too many sets live),
 * MOE_ERR_DENIED. */
MOE_NODISCARD moe_status sets_resolve(const request_scope *scope, const Conclave__V1__ExpertSet *r, router_set **out,
                                      moe_error *err);

#endif
