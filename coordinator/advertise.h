/* advertise: the address under which the cluster finds this coordinator's API, and options that are for clusters only. */
#ifndef CONCLAVE_COORDINATOR_ADVERTISE_H
#define CONCLAVE_COORDINATOR_ADVERTISE_H

#include "coordinator/options.h"

#define ADVERTISE_BYTES (CLUSTER_MAX_ADDRESS + 1)

/* Before anything is opened. In a cluster a wildcard --listen needs --advertise. Outside, what was given for a cluster is
 * warned of: it has no effect. Errors: MOE_ERR_INVALID_ARG names the option. */
MOE_NODISCARD moe_status advertise_check(coordinator_config *o, moe_error *err);
/* --advertise, or where we listen; a port 0 of either is the one that was found. */
void advertise_address(const coordinator_config *o, uint16_t found_port, char out[ADVERTISE_BYTES]);

#endif
