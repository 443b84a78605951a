/* One option's value: from text into the config struct and back; its names; and what is printed of a whole table. */
#ifndef CONCLAVE_BASE_OPTIONS_PRIV_H
#define CONCLAVE_BASE_OPTIONS_PRIV_H

#include "base/base.h"

/* Stores text in the option's field (a string that was there is freed). The reason in err reads after "OPTION VALUE
 * (where from): ". Field untouched on failure. */
MOE_NODISCARD moe_status option_value_set(const moe_option *option, void *config, const char *text, moe_error *err);
/* Stores one more item of a list that has some. */
MOE_NODISCARD moe_status option_value_add(const moe_option *option, void *config, const char *text, moe_error *err);
/* Appends the value as JSON that option_value_set would accept again; null for an unset string. */
void option_value_print(const moe_option *option, const void *config, moe_text *out);
bool option_is_text(const moe_option *option);
/* Zeroes the field, without looking at what is there. */
void option_value_clear(const moe_option *option, void *config);

#define OPTION_NAME_BYTES 128

/* max_batch_tokens -> --max-batch-tokens, CONCLAVE_MAX_BATCH_TOKENS */
void option_flag_name(const char *name, char out[OPTION_NAME_BYTES]);
void option_env_name(const char *name, char out[OPTION_NAME_BYTES]);

/* Of any program of ours, or of its surroundings: "max_batch_tokens" for CONCLAVE_MAX_BATCH_TOKENS. */
bool option_name_known(const char *name);
/* Every option of every program. */
void option_names_offer(moe_guess *g);

void option_print_help(const moe_option *option, FILE *out);

#endif
