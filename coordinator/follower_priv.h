/* What the files of the follower share: all but `ledger` and `why` is its thread's. */
#ifndef CONCLAVE_COORDINATOR_FOLLOWER_PRIV_H
#define CONCLAVE_COORDINATOR_FOLLOWER_PRIV_H

#include <stdatomic.h>

#include "cluster/cluster.h"
#include "coordinator/ledger.h"
#include "coordinator/follower.h"

typedef enum {
    FOLLOWER_BEGINS,  /* the next catalogue is to be made */
    FOLLOWER_WRITES,  /* it was given to the store */
    FOLLOWER_BELONGS, /* it is the cluster's: pending */
} follower_stage;

/* The change that somebody asked for here. */
typedef struct follower_asked {
    job *j; /* NULL: none */
    follower_stage stage;
    unsigned n_lost;   /* times that another coordinator was faster */
    uint64_t revision; /* of the catalogue that it was made of */
    uint64_t until_ms; /* of the wall clock: when the stage is given up */
} follower_asked;

/* An offer that --accept-packs is for and that is not switched on yet. */
typedef struct follower_tried {
    char hash[65];
    unsigned n_failed;
    bool said; /* that another pack of its name is active */
    uint64_t again_ms;
} follower_tried;

typedef struct follower_accepting {
    void *ticket; /* of the change that was asked for; NULL: none */
    char hash[65];
    size_t n_tried;
    follower_tried tried[API_MAX_OFFERS];
} follower_accepting;

/* What the cluster was told that requests use. */
typedef struct follower_using {
    uint64_t *told; /* owned [n_words] */
    size_t n_words;
    uint64_t until_ms; /* of the wall clock: so long it is added to only */
} follower_using;

struct follower {
    follower_options o;
    ledger ledger;
    char dir[MEMBER_MAX_PATH];
    pthread_t thread;
    bool has_thread;
    atomic_bool caught_up;
    moe_error why; /* it has not caught up; under the ledger's lock */

    atomic_bool
        has_rows[CATALOGUE_MAX_PACKS]; /* by place in the catalogue: the gates have the pack's; any thread reads */
    uint64_t told;                     /* the number of the pending change that the cluster was answered for */
    uint64_t failing;                  /* the number of the one that could not be prepared yet, and how often */
    unsigned n_failed;
    uint64_t former_ms; /* of the wall clock: before it packs of former defaults are not tried again */
    uint64_t again_ms;  /* of the wall clock: when something is tried again; 0: when there is news */
    follower_asked asked;
    follower_accepting accepting;
    follower_using using;
};

/* Reads the pack's part of the router, or finds it open. pending: the number of the change that it is for: when that is not
 * pending any more (0: when one is), it is given up; NULL: it is for the set in force. */
MOE_NODISCARD moe_status follower_read_pack(follower *f, const cluster_state *s, const char *hash,
                                            const uint64_t *pending, uint64_t most_ms, const pack **out,
                                            moe_error *err);
void follower_try_again(follower *f, uint64_t in_ms);
uint64_t follower_now_ms(const follower *f); /* of the wall clock */
/* follower_ask.c: goes on with what was asked for as far as this state allows. */
void follower_go_on(follower *f, const cluster_state *s);
/* follower_used.c: what the requests of this coordinator need. */
void follower_tell_used(follower *f, const cluster_state *s, uint64_t now_ms);
/* follower_accept.c: asks for what is offered and --accept-packs names. */
void follower_accept(follower *f, const cluster_state *s, uint64_t now_ms);
void follower_accept_close(follower *f);

#endif
