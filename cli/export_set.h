/* export_set: a server's set as conclave export takes it. */
#ifndef CONCLAVE_CLI_EXPORT_SET_H
#define CONCLAVE_CLI_EXPORT_SET_H

#include "cli/cli.h"

/* Appends the experts of a set of the server, `word` a name or an id, as catalogue_read_set takes them, with the ids that they have where
 * these packs (directories) were taken in, in this order, and no others. Errors: MOE_ERR_NOT_FOUND: the server has not taken in one of
 * them; MOE_ERR_INVALID_ARG: the set has experts of another pack; those of the calls. */
MOE_NODISCARD moe_status cli_export_set(cli_run *run, const char *word, const char *const *packs, size_t n_packs,
                                        moe_text *out, moe_error *err);

#endif
