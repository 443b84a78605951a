/* permits: the sets that a token is bound to, by name. */
#ifndef CONCLAVE_API_PERMITS_H
#define CONCLAVE_API_PERMITS_H

#include "base/base.h"

#define PERMITS_MAX_SETS 16
#define PERMITS_MAX_NAME 63

typedef struct permits {
    bool bound; /* false: to none, so that it may have all */
    size_t n;
    char names[PERMITS_MAX_SETS][PERMITS_MAX_NAME + 1];
} permits;

#endif
