/* ledger: what both owners of a catalogue give the API, registry and follower: the catalogue that others see, packs that could be
 * added, sets that live, and changes that somebody asked for, which wait here for the owner's thread.
 *
 * Threads: the table's functions on any; ledger_wait on the owner's; the rest on any but open and fini. */
#ifndef CONCLAVE_COORDINATOR_LEDGER_H
#define CONCLAVE_COORDINATOR_LEDGER_H

#include <pthread.h>

#include "api/catalogue.h"
#include "coordinator/shadow.h"
#include "engine/engine.h"

#define LEDGER_MAX_ASKED  16      /* changes that wait; beyond, MOE_ERR_BUSY */
#define LEDGER_TIMEOUT_MS 600000u /* of a change that names none */

/* A change that somebody asked for: a copy of what was asked, and how it stands. */
typedef struct job {
    unsigned refs; /* under the ledger's lock, as `told` */
    api_ask ask;   /* points into what follows */
    char who[CATALOGUE_MAX_WHO + 1], why[CATALOGUE_MAX_WHY + 1];
    char *word, *pack; /* owned */
    catalogue_expert *experts;
    char **include, **exclude; /* owned, as are their texts */
    api_told told;
    catalogue *before, *plan; /* references */
} job;

job *job_of(const api_ask *ask); /* with one reference; NULL: no memory */
void job_unref(job *j);          /* under the ledger's lock */

/* Whether a request may have that set of the catalogue, which nobody has yet. Any thread. */
typedef moe_status (*ledger_check)(void *ctx, const catalogue *c, const router_set *set, moe_error *err);

typedef struct ledger {
    engine *engine;         /* borrowed */
    const char *no_changes; /* why there can be none; NULL: there can */
    ledger_check check;
    void *check_ctx;
    shadow *shadow; /* owned */
    api_catalogue table;
    api_offer *offers; /* owned */
    size_t n_offers;   /* under the lock, as all that follows */
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool closing, woken;
    catalogue *current; /* a reference; replaced by the owner's thread alone, which may read it without the lock */
    job *asked[LEDGER_MAX_ASKED]; /* references, the oldest first */
    size_t n_asked;
} ledger;

/* Errors: MOE_ERR_NO_MEMORY; there is nothing to be taken down then. */
MOE_NODISCARD moe_status ledger_open(ledger *l, engine *e, catalogue *first, const char *no_changes, ledger_check check,
                                     void *check_ctx, moe_error *err);
void ledger_close(ledger *l); /* nothing is taken any more; wakes the owner's thread */
void ledger_fini(ledger *l);
bool ledger_is_closing(ledger *l);

/* Waits until there is a change to be done (with takes), ledger_wake or ledger_close, or until that time of the wall clock, in ms; 0: for
 * ever. The change's reference is the caller's until ledger_end; NULL: there is none. */
job *ledger_wait(ledger *l, uint64_t until_ms, bool takes);
void ledger_wake(ledger *l);
void ledger_tell(ledger *l, job *j, const char *phase, uint64_t done, uint64_t total);
void ledger_end(ledger *l, job *j, moe_status status, const moe_error *err);

void ledger_publish(ledger *l, catalogue *next); /* whose reference is the ledger's */
/* A pack that can be added, unless it is told of already. */
void ledger_offer(ledger *l, const catalogue_pack *p, const char *source);
void ledger_set_offers(ledger *l, const api_offer *offers, size_t n); /* these alone; at most API_MAX_OFFERS */
/* The hash of a pack by NAME, NAME@VERSION or hash: of one that the catalogue has, or that is offered. */
bool ledger_find_offer(ledger *l, const char *word, char hash[65]);

/* catalogue_check_wanted, with time for a request to reach the engine. */
moe_status ledger_check_wanted(const catalogue *c, const router_set *set, uint64_t keep_unused_ms, moe_error *err);

#endif
