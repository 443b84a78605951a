/* One option's value: from text into the config struct and back. */
#ifndef CONCLAVE_BASE_OPTIONS_PRIV_H
#define CONCLAVE_BASE_OPTIONS_PRIV_H

#include "base/base.h"

/* Stores text in the option's field (a string that was there is freed). The reason in err reads after "OPTION VALUE
 * (where from): ". Field untouched on failure. */
MOE_NODISCARD moe_status option_value_set(const moe_option *option, void *config, const char *text, moe_error *err);
/* Appends the value as JSON that option_value_set would accept again; null for an unset string. */
void option_value_print(const moe_option *option, const void *config, moe_text *out);
bool option_is_text(const moe_option *option);
/* Zeroes the field, without looking at what is there. */
void option_value_clear(const moe_option *option, void *config);

#endif
