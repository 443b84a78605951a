/* cluster: what the commands about members and experts share. */
#ifndef CONCLAVE_CLI_CLUSTER_H
#define CONCLAVE_CLI_CLUSTER_H

#include <conclave/v1/admin.pb-c.h>

#include "cli/cli.h"

/* "ffn"; nothing from a server that does not tell. */
const char *cli_kind_name(Conclave__V1__ExpertKind kind);

/* Who owns which expert, printed. */
MOE_NODISCARD moe_status cli_placement_experts(cli_run *run, moe_error *err);

/* Writes "experts 0-3,7" from ids that come one by one, ascending; "expert 7" for one alone. */
typedef struct cli_ranges {
    moe_text *out;
    size_t n_ids;
    int32_t first, last; /* the range that is open */
    bool more;           /* one has been written */
} cli_ranges;

void cli_ranges_add(cli_ranges *r, int32_t id);
void cli_ranges_end(cli_ranges *r);

#endif
