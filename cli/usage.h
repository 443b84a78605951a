/* usage: how much experts are used, for the commands about them. */
#ifndef CONCLAVE_CLI_USAGE_H
#define CONCLAVE_CLI_USAGE_H

#include <conclave/v1/admin.pb-c.h>

#include "cli/cli.h"

/* --by pack|layer|set: sums over experts in place of a line for each. Errors: MOE_ERR_INVALID_ARG: another word. */
MOE_NODISCARD moe_status cli_usage_by(cli_run *run, const char *by, moe_error *err);
/* experts prune --profile FILE: what `chosen` (a request with --below and the like, and no experts) would prune by what the texts
 * of FILE use, and what that does to their log-probabilities; then, without --dry-run, the change itself. */
MOE_NODISCARD moe_status cli_profile_prune(cli_run *run, const char *path, ProtobufCMessage *chosen, moe_error *err);
/* Ascending layer, then id. */
void cli_usage_sort(const Conclave__V1__GetExpertStatsResponse *stats);

#endif
