/* history: the file that keeps what was typed, for libedit. */
#ifndef CONCLAVE_CLI_HISTORY_H
#define CONCLAVE_CLI_HISTORY_H

#include <histedit.h>

#include "base/base.h"

#define CLI_HISTORY_PATH_BYTES 4096

/* Where the file is; makes the folders above it (mode 0700). Errors: MOE_ERR_UNAVAILABLE with the reason. */
MOE_NODISCARD moe_status cli_history_find(char path[CLI_HISTORY_PATH_BYTES], moe_error *err);
/* Reads what is there; a file of another program, or none, is an empty history. */
void cli_history_load(History *kept, const char *path);
/* Writes a new file (mode 0600) and puts it in the old one's place: a full disk leaves the old one as it was. */
MOE_NODISCARD moe_status cli_history_save(History *kept, const char *path, moe_error *err);

#endif
