/* A world for tests: random experts, expert nodes and exchanges on one loopback network and one virtual clock.
 * Everything fails the test on trouble. */
#ifndef CONCLAVE_TESTS_SIM_WORLD_H
#define CONCLAVE_TESTS_SIM_WORLD_H

#include "tests/support/space.h"
#include "tests/support/support.h"

#include "exchange/exchange.h"
#include "expert_node/expert_node.h"

enum {
    WORLD_MAX_NODES = 5,
    WORLD_MAX_COORDINATORS = 2,
    WORLD_MAX_MEMBERS = 16, /* at the network; some are the tests' own */
    WORLD_MAX_EXPERTS = 12,
    WORLD_MAX_LAYERS = 3,
    WORLD_MAX_ROWS = 24
};

typedef struct world_options {
    compute_class numeric_class;
    uint32_t n_layers, n_experts, k, d_model, d_ff;
    size_t max_rows, max_frame_rows;
    uint32_t n_nodes, n_coordinators, micro_batches;
    uint32_t
        replication;     /* copies of each expert, spread round robin from a random node; 0: a random number for each */
    uint32_t node_rows;  /* most unique rows a node takes in one dispatch; 0: max_rows */
    size_t max_ffn_rows; /* 0: plenty */
    uint64_t seed;
    uint64_t dispatch_timeout_ns, heartbeat_ns;
    bool late_device;   /* rows come out of it some time after they were asked for */
    bool device_frames; /* frames with rows go from its memory, on every second connection */
    bool faulty;
    uint32_t per_mille[TRANSPORT_N_FAULTS];
    /* Another network than the loopback: opens a member's endpoint, and names its address. */
    transport *(*endpoint_open)(const char *id);
    const char *(*endpoint_address)(const transport *t);
    expert_packs packs;               /* that the nodes read to others */
    const char *secret, *node_secret; /* of the cluster; of the nodes alone when theirs differs */
} world_options;

typedef struct world_node {
    char id[16];
    transport *t; /* NULL while it is dead */
    expert_node *node;
    uint64_t incarnation;
    bool holds[WORLD_MAX_LAYERS][WORLD_MAX_EXPERTS]; /* by the placement */
} world_node;

typedef struct world_coordinator {
    transport *t;
    exchange *x;
} world_coordinator;

/* One job with its buffers; expected is what the experts give when run directly. */
typedef struct world_job {
    exchange_job job;
    compute_mem *x, *results; /* owned */
    int32_t ids[WORLD_MAX_ROWS * ROUTER_MAX_TOP_K];
    unsigned char *expected; /* owned, as results; picks without an expert keep the pattern */
    uint8_t *written;        /* owned [max_rows * k]: how often each result was uploaded */
    bool open;               /* results may be written */
} world_job;

/* Rows on their way out of a device that takes its time. */
typedef struct world_late {
    struct world_late *next;
    compute_ticket ticket;
    void *to;
    size_t bytes;
    unsigned char rows[];
} world_late;

typedef struct world {
    world_options o;
    moe_random random;
    moe_clock_virtual clock;
    moe_threads *threads;
    compute_device *device;
    compute_ops ops; /* the device's, with what goes up watched, and what goes down late */
    void (*scatter_in)(compute_device *d, compute_mem *to, const void *from, const uint32_t *rows, size_t row_bytes,
                       size_t n);
    compute_ticket (*gather_out)(compute_device *d, void *to, const compute_mem *from, const uint32_t *rows,
                                 size_t row_bytes, size_t n);
    transport_ops device_net; /* the loopback's, and it takes frames in a device's memory */
    world_late *late;         /* owned, oldest first */
    compute_ticket last_ticket;
    size_t row_bytes;
    void *weights[WORLD_MAX_LAYERS][WORLD_MAX_EXPERTS];           /* owned: gate, up, down in class dtype */
    compute_expert *experts[WORLD_MAX_LAYERS][WORLD_MAX_EXPERTS]; /* the oracle's */
    transport_loopback_net *net;
    world_node nodes[WORLD_MAX_NODES];
    world_coordinator coordinators[WORLD_MAX_COORDINATORS];
    world_job jobs[WORLD_MAX_COORDINATORS][2];
    router_placement *placement;
    uint64_t faults[TRANSPORT_N_FAULTS]; /* of endpoints that were closed */
    bool faults_off;
} world;

void world_open(world *w, const world_options *o);
void world_close(world *w); /* asserts that nothing leaked */

expert_source world_source(world *w); /* the same weights everywhere */
/* Draws another placement. Nobody is told: whoever runs the world loads, drops and sets it. */
void world_place(world *w, uint64_t epoch);
void world_node_start(world *w, uint32_t i); /* with a new incarnation, and what the placement gives it */
void world_node_kill(world *w, uint32_t i);
/* Fills a job with random rows and picks (some of them empty) and the results the oracle gives. */
void world_job_make(world *w, uint32_t coordinator, uint32_t micro_batch);
void world_job_check(world *w, uint32_t coordinator, uint32_t micro_batch); /* done: equal bits, each written once */
/* Everybody progresses once and the clock moves on. */
void world_turn(world *w, uint64_t by_ns);
/* Turns until all nodes are ready at all coordinators. */
void world_settle(world *w);
/* No more faults: what is held is sent, dead nodes start. */
void world_calm(world *w);
void world_count_faults(world *w, uint64_t counts[TRANSPORT_N_FAULTS]);

#endif
