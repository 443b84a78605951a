/* Lists of expert ids as text. */
#include "router/router.h"

/* A decimal number without leading zeros; where it ends. NULL: there is none. */
static const char *take_id(const char *at, int32_t *out)
{
    int64_t v = 0;
    const char *end = at;

    for (; *end >= '0' && *end <= '9' && v <= INT32_MAX; end++) {
        v = v * 10 + (*end - '0');
    }
    *out = (int32_t)v;
    return end == at || v > INT32_MAX || (*at == '0' && end - at > 1) ? NULL : end;
}

const char *router_ids_take(const char *at, int32_t *first, int32_t *last)
{
    const char *end = take_id(at, first);

    if (end == NULL || *first <= *last) {
        return NULL;
    }
    *last = *first;
    if (*end == '-' && ((end = take_id(end + 1, last)) == NULL || *last <= *first)) {
        return NULL;
    }
    if (*end == ',' && end[1] != '\0') {
        return end + 1;
    }
    return *end == '\0' ? end : NULL;
}
