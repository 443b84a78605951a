#include "base/base.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    moe_status status;
    const char *text;
} statuses[] = {
#define X(name, value, text) {name, text},
    MOE_STATUS_MAP(X)
#undef X
};

const char *moe_status_text(moe_status status)
{
    for (size_t i = 0; i < MOE_COUNT(statuses); i++) {
        if (statuses[i].status == status) {
            return statuses[i].text;
        }
    }
    return "unknown status";
}

/* Reasons quote bytes from outside and travel in replies that must be UTF-8 on one line. */
static void sanitize(char *text)
{
    size_t n = strlen(text);
    size_t valid = 0;

    while ((valid += moe_utf8_valid_prefix(text + valid, n - valid)) < n) {
        text[valid++] = '?';
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            text[i] = '?';
        }
    }
}

moe_status moe_fail(moe_error *err, moe_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;
        moe_error made; /* an argument may point into err: a reason that quotes an earlier one */

        va_start(args, format);
        (void)vsnprintf(made.text, sizeof made.text, format, args);
        va_end(args);
        sanitize(made.text);
        *err = made;
    }
    return status;
}

int moe_exit_code(moe_status status)
{
    if (status == MOE_OK) {
        return MOE_EXIT_OK;
    }
    return status == MOE_ERR_INVALID_ARG ? MOE_EXIT_USAGE : MOE_EXIT_FAILED;
}

_Noreturn void moe_assert_failed(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, condition);
    abort();
}
