/* check: what a pack would do to a text, asked of a server before it is in the default set. */
#ifndef CONCLAVE_CLI_CHECK_H
#define CONCLAVE_CLI_CHECK_H

#include "cli/cli.h"

/* conclave packs check PACK --text FILE: the share of the picks that the pack's experts would get, layer by layer, and bits per byte
 * with and without it. A pack that is neither active nor on trial is put on trial for that, with no requests, and removed again. */
MOE_NODISCARD moe_status cli_check_text(cli_run *run, const char *word, const char *path, moe_error *err);

#endif
