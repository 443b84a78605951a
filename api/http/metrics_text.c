#include <inttypes.h>
#include <string.h>

#include "api/http/http.h"

#define MAX_LABEL_BYTES 128

void metrics_label(moe_text *out, const char *value)
{
    size_t n = value == NULL ? 0 : strnlen(value, MAX_LABEL_BYTES);

    n = value == NULL ? 0 : moe_utf8_valid_prefix(value, n);
    for (size_t i = 0; i < n; i++) {
        if (value[i] == '\\' || value[i] == '"') {
            moe_text_append(out, "\\", 1);
        }
        if (value[i] == '\n') {
            moe_text_append(out, "\\n", 2);
        } else {
            moe_text_append(out, &value[i], 1);
        }
    }
}

void metrics_head(moe_text *out, const char *name, const char *type, const char *help)
{
    moe_text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_counter(moe_text *out, const char *name, const char *help, uint64_t value)
{
    metrics_head(out, name, "counter", help);
    moe_text_printf(out, "%s %" PRIu64 "\n", name, value);
}

void metrics_gauge(moe_text *out, const char *name, const char *help, uint64_t value)
{
    metrics_head(out, name, "gauge", help);
    moe_text_printf(out, "%s %" PRIu64 "\n", name, value);
}
