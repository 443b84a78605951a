/* cluster: who is alive and who owns which expert, kept in a store that all members share (etcd; in tests, memory).
 *
 * Nouns:
 *   cluster         one member of one cluster, a node or a coordinator: registers, watches, and controls if elected
 *   cluster_state   what is known: an immutable, ref-counted snapshot. cluster_state_acquire takes the newest one
 *   cluster_store   the shared store (cluster/store.h); cluster_etcd_open makes the real one
 *   incarnation     64 random bits drawn at each start of a member: tells a restarted one from the one before
 *   epoch           version of the desired placement; every publication has a higher one
 *   controller      the elected coordinator; it alone writes the desired placement
 *   lost            a node is, when the controller's connections say that nobody is there, when all coordinators miss it, or
 *                   when it has been silent for long:
 *                   experts that it alone had are placed at once, all else when it has not come back in a few seconds
 *   policy          how many owners each expert is to have, and how many nodes the first placement waits for
 *   catalogue       what may be routed to: packs, sets, the default, the change under way (catalogue/catalogue.h). The space of a
 *                   state is its: it grows with it
 *   prepared        a coordinator has all that it needs for a change to count. The controller commits it when all are, and
 *                   nodes have its experts ready; or gives it up
 *   desired         which experts a node is to hold: a placement
 *   ready           which experts a node has loaded and verified: a bitmap
 *
 * Keys and their JSON: docs/etcd.md.
 *
 * A key is a hint and a connection is authority: a node whose key has vanished stays in the state with registered =
 * false until `alive` says that it does not answer.
 *
 * Nothing in the store can stop a member:
 *   what no member wrote    is logged once and ignored: malformed, not signed, without a lease, an absurd epoch
 *                           (docs/etcd.md)
 *   a lost lease            is taken anew
 *   an unreachable store    leaves the last state in force, with connected = false
 *   a wiped store           is filled again
 *
 * Threads: cluster_step, the store and the callbacks belong to one thread: the caller's, or that of cluster_start.
 *          cluster_state_*, cluster_set_*, cluster_status and cluster_get_stats may be called from any thread. */
#ifndef CONCLAVE_CLUSTER_H
#define CONCLAVE_CLUSTER_H

#include "base/base.h"
#include "catalogue/catalogue.h"
#include "router/router.h"

#define CLUSTER_MAX_ADDRESS      (MOE_ADDRESS_BYTES - 1) /* characters */
#define CLUSTER_MAX_LABEL        63   /* characters of device, zone, version, family, numeric class */
#define CLUSTER_MAX_COORDINATORS 64   /* more are ignored, and logged */
#define CLUSTER_MAX_LAYERS       1024 /* of a model */
#define CLUSTER_MAX_EXPERTS      4096 /* of a layer of the checkpoint */
#define CLUSTER_MAX_PACKS        64   /* that a node offers; more are not told */

typedef struct cluster cluster;
typedef struct cluster_store cluster_store;

/* ------------------------------------------------------------------------------------------------ members */
typedef enum { CLUSTER_NODE, CLUSTER_COORDINATOR } cluster_role;

/* What all members must agree on; the first one writes it. expert_bytes alone is not compared: it says what one expert
 * takes in the memory of the member that reports it. */
typedef struct cluster_model {
    unsigned char fingerprint[32];
    const char *family, *numeric_class; /* 1..63 characters */
    router_space *space;                /* shared: its layers, and the experts that nodes may have */
    router_set *own; /* what the checkpoint itself routes to, as catalogue_model has it; shared; NULL: all */
    uint32_t k, d_model;
    uint64_t expert_bytes;
} cluster_model;

/* 1 to ROUTER_MAX_NODE_ID of A-Z a-z 0-9 . - _: of a cluster or a member; NULL is none. */
bool cluster_name_is_valid(const char *name);

/* Kept in the store, so that it does not change with the controller. */
typedef struct cluster_policy {
    uint32_t replication; /* owners wanted per expert, as far as nodes and memory allow; 0 in a state: not known yet */
    uint32_t min_nodes;   /* nothing is placed for the first time before that many nodes answer */
} cluster_policy;

/* A pack that a node has and reads to others. */
typedef struct cluster_pack {
    char name[CATALOGUE_MAX_NAME + 1], version[CATALOGUE_MAX_NAME + 1];
    char hash[65]; /* 64 hex digits */
} cluster_pack;

/* NO: it does not answer now. MISSED: nor has it for long enough to be missed: it was met, has fallen silent or computes
 * nothing, and could not be met again. GONE: nobody can answer, because its address refuses connections: the process has
 * ended. */
typedef enum {
    CLUSTER_ALIVE_UNKNOWN,
    CLUSTER_ALIVE_YES,
    CLUSTER_ALIVE_NO,
    CLUSTER_ALIVE_MISSED,
    CLUSTER_ALIVE_GONE
} cluster_alive;

typedef struct cluster_options {
    cluster_role role;
    const char *cluster, *id; /* names: 1..63 of A-Z a-z 0-9 . - _; copied, as all strings here */
    const char *address;      /* advertised HOST:PORT: of a node, for frames; of a coordinator, of its API */
    uint64_t incarnation;     /* not 0 */
    cluster_model model;

    /* node */
    const char *device, *zone, *version; /* NULL: "" */
    uint64_t memory_bytes;               /* what experts may take; 0: no bound */

    /* coordinator */
    cluster_policy
        policy; /* of a cluster that has none yet; 0: 1. Where there is one, what differs here is warned of */
    uint64_t keep_unused_ms;        /* so long experts of a former default stay placed; 0: ten minutes */
    uint64_t (*wall_ms)(void *ctx); /* for the catalogue's log: milliseconds since 1970; NULL: of the clock */

    /* The cluster secret: records are written with a MAC of it, and without one are not believed. n_secret 0: there is
     * none, and everything is. A derived key is kept, not the secret. */
    const void *secret;
    size_t n_secret;

    cluster_store *store;   /* borrowed; closed after the cluster */
    const moe_clock *clock; /* borrowed; NULL: the real one */
    uint64_t seed;          /* of back-off; 0: drawn */

    void *ctx;
    /* Does this incarnation of a member answer at this address? UNKNOWN: it will be asked again. YES of a node means that
     * HELLO was exchanged with it: nothing is placed on it before. Asked
     *   at most once a second about a member under our own id: may take a second
     *   at most once a second about nodes whose key has vanished (by coordinators)
     *   ten times a second about all nodes (by coordinators): must not take long
     * NULL: nobody can tell, so the key's lease decides, and vanished nodes are dropped after 15 s. */
    cluster_alive (*alive)(void *ctx, cluster_role role, const char *id, const char *address, uint64_t incarnation);
    /* Of coordinators: what this incarnation of a node has told on its connection with us that it holds, into the first words of
     * bitmap, of n_words that are 0. False: it is not connected, or has not told all of it. The controller asks at each of its
     * turns, must not wait for it, and believes nothing else: `ready` keys are a hint of what to keep. NULL: nobody can tell, so the
     * keys decide. */
    bool (*holds)(void *ctx, const char *id, uint64_t incarnation, uint64_t *bitmap, size_t n_words);
    /* A new state can be acquired, or cluster_status has changed. May be NULL. Must not call cluster_step or _close. */
    void (*changed)(void *ctx);
} cluster_options;

/* Errors: MOE_ERR_INVALID_ARG names the option. Nothing is sent before the first step. */
MOE_NODISCARD moe_status cluster_open(const cluster_options *options, cluster **out, moe_error *err);
/* Stops the thread if one runs. Keys stay until the lease (15 s) ends: cluster_stop first leaves in good order. */
void cluster_close(cluster *c);

/* One turn: takes what the store has (without blocking), acts, publishes a state if something changed. Returns when, on
 * the clock, the next turn is due at the latest. */
uint64_t cluster_step(cluster *c);
/* Steps on a thread of its own until cluster_stop or cluster_close. */
MOE_NODISCARD moe_status cluster_start(cluster *c, moe_error *err);
/* From any thread: the next turns withdraw the registration (the lease is revoked). */
void cluster_leave(cluster *c);
bool cluster_has_left(cluster *c);
/* From any thread: what is known must be out of date, since a connection says otherwise. All is read again, at most once a
 * second. */
void cluster_refresh(cluster *c);
/* cluster_leave, waits for it at most timeout_ns, ends the thread. */
void cluster_stop(cluster *c, uint64_t timeout_ns);

/* How the registration stands:
 *   MOE_OK               registered at this moment
 *   MOE_ERR_UNAVAILABLE  not yet, or not now: the store does not answer, or the answer is awaited (err says what)
 *   MOE_ERR_EXISTS       another incarnation holds the id, and answers: cluster_is_displaced says whether it was ours
 *   MOE_ERR_DENIED       the cluster serves another model, shape or numeric class (err names both values), has another
 *                        secret, or the store refuses the credentials
 * The member goes on trying in every case: whether to give up is the program's choice (usually before it was ever
 * registered; after that only when it was displaced). */
moe_status cluster_status(cluster *c, moe_error *err);
/* Whether another incarnation has taken the id since this member was registered: it was started while this one did not
 * answer, and its work has gone to that one. The program is to end. why says who. */
bool cluster_is_displaced(cluster *c, moe_error *why);

/* ------------------------------------------------------------------------------------------------ what a member tells
 * Bitmaps of experts have a bit for each slot of a space, that of a state or an older one: [router_space_words(space)].
 * space NULL: the checkpoint's. */

/* A node's report: what it has loaded and verified (copied), and the newest epoch for which that is all that it is to
 * hold. */
void cluster_set_ready(cluster *c, router_space *space, const uint64_t *bitmap, uint64_t epoch);
/* A coordinator's report: the epoch its dispatches use from now on. */
void cluster_set_applied(cluster *c, uint64_t epoch);
/* A coordinator's, until it has applied that epoch: the experts whose rows go only to owners in its placement already
 * (copied). Other nodes may drop them, and so have room for what they are to load. */
void cluster_set_settled(cluster *c, router_space *space, uint64_t epoch, const uint64_t *bitmap);
/* A coordinator's: requests that run here have these experts, besides what the default set has and is to keep (copied): they keep
 * their owners as long as it says so. */
void cluster_set_used(cluster *c, router_space *space, const uint64_t *bitmap);
/* A coordinator's: it has all that the pending change of that number needs, and would take its set at once. why not NULL: it
 * cannot, for this reason; the change is given up. 0: neither. A node's: only why it cannot load an expert of that change. */
void cluster_set_prepared(cluster *c, uint64_t number, const char *why);
/* A node's: it has these packs, whole and checked, and reads them to others (copied); of more than CLUSTER_MAX_PACKS the first
 * ones are told. */
void cluster_set_packs(cluster *c, const cluster_pack *packs, size_t n);
/* A node's: it wants to leave; the controller gives it nothing more and its experts to others. */
void cluster_set_draining(cluster *c, bool draining);
/* A coordinator's: the policy is to become this; 0: that part stays as it is. Done when cluster_state.policy says so; what
 * the store has not taken within 5 s is forgotten. Errors: MOE_ERR_INVALID_ARG names the value and the limit,
 * MOE_ERR_UNAVAILABLE: the store does not answer, or this member is not registered. */
MOE_NODISCARD moe_status cluster_set_policy(cluster *c, const cluster_policy *policy, moe_error *err);

/* A coordinator's: the catalogue is to become `next` (referenced), which was made of that of a state with that
 * catalogue_revision. Once: whether it has is to be seen in the states that follow. With another revision than that it was
 * made of, somebody else was faster; and what the store has not taken within 5 s is forgotten. Errors: MOE_ERR_BUSY: another is
 * asked for already; MOE_ERR_EXISTS: the revision is no longer that; MOE_ERR_UNAVAILABLE: the store does not answer, or this member is
 * not registered. */
MOE_NODISCARD moe_status cluster_change_catalogue(cluster *c, catalogue *next, uint64_t revision, moe_error *err);

/* ------------------------------------------------------------------------------------------------ state */
typedef struct cluster_node {
    char id[ROUTER_MAX_NODE_ID + 1];
    uint64_t incarnation;
    char address[CLUSTER_MAX_ADDRESS + 1];
    char device[CLUSTER_MAX_LABEL + 1], zone[CLUSTER_MAX_LABEL + 1], version[CLUSTER_MAX_LABEL + 1];
    uint64_t memory_bytes, expert_bytes; /* memory 0: no bound */
    bool registered; /* false: its key has vanished, but nobody has found out yet that it does not answer */
    bool draining;
    uint64_t ready_epoch;  /* of its report */
    uint32_t n_ready;      /* experts in it */
    const uint64_t *ready; /* bitmap, as its key says, which is a hint; never NULL */
    size_t n_packs;
    const cluster_pack *packs; /* that it offers [n_packs] */
    uint64_t failed;           /* it cannot hold what it is given for the pending change of that number; 0: none */
    char why[CATALOGUE_MAX_WHY + 1];
} cluster_node;

typedef struct cluster_coordinator {
    char id[ROUTER_MAX_NODE_ID + 1];
    uint64_t incarnation;
    char address[CLUSTER_MAX_ADDRESS + 1];
    uint64_t epoch_applied;
    uint64_t epoch_settled;  /* of settled; 0: there is none */
    const uint64_t *settled; /* bitmap; NULL: none */
    const uint64_t *used;    /* bitmap: experts that its requests have and the default need not; NULL: none */
    router_nodes missed;     /* indices of nodes of the state: it misses those */
    uint64_t prepared;       /* for the change of that number; 0: for none */
    uint64_t failed;         /* it cannot prepare that change; 0: none */
    char why[CATALOGUE_MAX_WHY + 1];
} cluster_coordinator;

typedef struct cluster_state {
    bool connected;              /* the store answers; false: all below is what was last known */
    bool registered;             /* this member is */
    uint64_t revision;           /* of the store */
    router_space *space;         /* of the catalogue; borrowed */
    catalogue *catalogue;        /* never NULL; borrowed */
    uint64_t catalogue_revision; /* of its key; 0: there is none. For cluster_change_catalogue */
    size_t n_nodes, n_coordinators;
    const cluster_node *nodes;               /* [n_nodes] ascending id */
    const cluster_coordinator *coordinators; /* [n_coordinators] ascending id */
    char controller[ROUTER_MAX_NODE_ID + 1]; /* id; "": none */
    bool is_controller;                      /* this member is */
    cluster_policy policy;                   /* as the store has it */
    uint64_t epoch;                          /* of desired; 0: nothing was placed yet */
    router_placement *desired;               /* NULL: nothing was placed yet */
    uint32_t replication;                    /* the most owners of an expert in desired */
} cluster_state;

/* The newest state; never NULL (at first: not connected, empty). The caller releases it. */
const cluster_state *cluster_state_acquire(cluster *c);
void cluster_state_release(const cluster_state *s);                             /* NULL is fine */
const cluster_node *cluster_state_node(const cluster_state *s, const char *id); /* NULL: unknown */
bool cluster_node_offers(const cluster_node *n, const char *hash);              /* a pack */

/* What dispatches are planned with: all ready replicas of each expert of a space, that of the state (NULL) or an older one; those that
 * are not in the desired placement are spare. told [n_nodes]: a bitmap over the slots of that space of what each node has told us
 * itself that it has ready; NULL: it has told nothing. The nodes are those of the state, the epoch is the desired one. *out is owned
 * (router_placement_unref). Errors: MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status cluster_state_routing(const cluster_state *s, router_space *space, const uint64_t *const *told,
                                               router_placement **out, moe_error *err);
/* How many experts of the default set no node has reported ready; 0: all can be served. The first of them goes into *first,
 * which may be NULL. */
size_t cluster_state_missing(const cluster_state *s, router_expert *first);
/* Which experts a node is to hold; bitmap is overwritten. Returns how many. */
size_t cluster_state_wanted(const cluster_state *s, const char *node_id, uint64_t *bitmap);
/* The lowest epoch that a live coordinator applies (desired epoch if there is no coordinator). without, here and below:
 * bit i leaves out coordinators[i] of the state. */
uint64_t cluster_state_epoch_applied(const cluster_state *s, uint64_t without);
/* The experts whose rows every live coordinator sends only to owners in the desired placement: nodes that are none may
 * drop them. All, if every coordinator applies the desired epoch. None, if there is no coordinator: nobody knows then whether the new
 * owners have them. bitmap is overwritten. */
void cluster_state_settled(const cluster_state *s, uint64_t without, uint64_t *bitmap);
/* The experts that a node of the desired placement, other than this one, has reported ready: a hint of what is urgent. bitmap is
 * overwritten. */
void cluster_state_covered(const cluster_state *s, const char *but_node_id, uint64_t *bitmap);

typedef struct cluster_stats {
    uint64_t steps, last_step_ns;             /* of the clock */
    uint64_t lists, watches, watch_events;    /* reads of everything, watches begun, events taken */
    uint64_t lease_losses, failures, ignored; /* leases found dead; requests that failed; keys that were malformed */
    uint64_t elections, placements;           /* won; published by this member */
    uint64_t unreachable; /* now, of the controller: registered nodes that have not answered, or are silent */
} cluster_stats;
void cluster_get_stats(cluster *c, cluster_stats *out);

/* ------------------------------------------------------------------------------------------------ etcd */
typedef struct cluster_etcd_options {
    const char *endpoints;     /* URL[,URL...]: http(s)://host:port; at most 16; tried in turn */
    const char *user;          /* NULL: no authentication */
    const char *password_file; /* read at every authentication; trailing newline ignored */
    const char *ca;            /* PEM file for https; NULL: the system's */
    const char *cert, *key;    /* PEM files of a client certificate (without CN, docs/etcd.md); NULL: none */
    uint64_t timeout_ns;       /* of one request; 0: 3 s */
    size_t max_response_bytes; /* of one reply or one line of the watch; 0: 64 MiB */
} cluster_etcd_options;

/* Nothing is sent before it is stepped. Errors: MOE_ERR_INVALID_ARG names the option. */
MOE_NODISCARD moe_status cluster_etcd_open(const cluster_etcd_options *options, cluster_store **out, moe_error *err);
void cluster_store_close(cluster_store *store); /* NULL is fine; requests under way are dropped without a callback */

#endif
