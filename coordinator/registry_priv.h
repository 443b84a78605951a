/* A change that somebody asked for: a copy of what was asked, and how it stands. Private to the registry. */
#ifndef CONCLAVE_COORDINATOR_REGISTRY_PRIV_H
#define CONCLAVE_COORDINATOR_REGISTRY_PRIV_H

#include "api/catalogue.h"

typedef struct job {
    unsigned refs; /* under the registry's lock, as `told` */
    api_ask ask;   /* points into what follows */
    char who[CATALOGUE_MAX_WHO + 1], why[CATALOGUE_MAX_WHY + 1];
    char *word, *pack; /* owned */
    catalogue_expert *experts;
    char **include, **exclude; /* owned, as are their texts */
    api_told told;
    catalogue *before, *plan; /* references */
} job;

job *job_of(const api_ask *ask); /* with one reference; NULL: no memory */
void job_unref(job *j);          /* under the registry's lock */

#endif
