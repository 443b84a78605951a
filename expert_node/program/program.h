/* program: the running node behind main: what its parts are, its loop, and what its pages show.
 *
 * Threads: everything belongs to main, but for `shown`, which the HTTP thread reads, and the parts of the member, which
 * it may look at under `parts` while they are `attached`. */
#ifndef CONCLAVE_EXPERT_NODE_PROGRAM_PROGRAM_H
#define CONCLAVE_EXPERT_NODE_PROGRAM_PROGRAM_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "expert_node/program/assignment.h"
#include "expert_node/program/options.h"
#include "expert_node/program/standing.h"
#include "expert_node/program/supply.h"
#include "api/http/http.h"

/* Copied by the loop now and then, under its lock. */
typedef struct node_shown {
    expert_node_stats stats;
    transport_net_stats transport;
    uint64_t turned_ns;
} node_shown;

/* In the order in which they are opened; closed in reverse. */
typedef struct node_program_state {
    node_config config;
    const char *id;                  /* of config */
    char address[MOE_ADDRESS_BYTES]; /* advertised */
    size_t memory_bytes;
    char place[COMPUTE_MAX_PLACE]; /* of the devices */
    moe_threads *threads;
    member_files files;
    compute_device *device;
    moe_threads *loader_threads;   /* of one thread: the loader's */
    compute_device *loader_device; /* that makes experts; of the same class */
    transport *transport;
    expert_checkpoint experts;
    shelf shelf; /* --pack, and what was read from others */
    char pack_dir[MEMBER_MAX_PATH];
    wire_key key; /* of the secret: for those that it calls */
    supply *supply;
    loader *loader;
    expert_node *node;
    assignment *assignment;
    moe_resolver *names; /* for the cluster's thread */
    cluster_store *store;
    cluster *cluster;
    http_server *http;
    uint64_t incarnation, registered_ns;
    pthread_mutex_t lock; /* of shown */
    node_shown shown;
    pthread_mutex_t parts;  /* of attached; taken before the other locks, and held while a page is made */
    bool attached;          /* transport, node, assignment and cluster are there */
    atomic_uint hashed;     /* per cent of the checkpoint */
    atomic_bool registered; /* was, once */
    atomic_bool draining;
    bool displaced; /* another process has our name: the loop ends */
} node_program_state;

extern volatile sig_atomic_t node_signals; /* SIGTERM and SIGINT that came */

/* loop.c */
/* One turn; sleeps when there has been nothing to do for a while. */
void node_turn(node_program_state *p, uint64_t *idle_since);
/* The state it lends is to be released. Any thread. */
standing node_standing(node_program_state *p);
/* Turns until a coordinator has exchanged HELLO with us; until a signal comes; until we may leave, which returns the
 * exit code. All end when the node is displaced. */
void node_meet(node_program_state *p);
void node_serve(node_program_state *p);
int node_drain(node_program_state *p);

/* pages.c */
/* Listens, if it is asked to; what there is to see at first is how far the load is. Attached: the member's parts are
 * there; they stay until it is detached. */
MOE_NODISCARD moe_status node_pages_open(node_program_state *p, moe_error *err);
void node_pages_attach(node_program_state *p);
void node_pages_detach(node_program_state *p);
void node_pages_publish(node_program_state *p, uint64_t now); /* at most every 50 ms */
node_shown node_pages_look(node_program_state *p);            /* what was last published; any thread */

#endif
