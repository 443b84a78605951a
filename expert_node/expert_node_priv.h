/* What the files of expert_node share. */
#ifndef CONCLAVE_EXPERT_NODE_PRIV_H
#define CONCLAVE_EXPERT_NODE_PRIV_H

#include "expert_node/expert_node.h"
#include "outbox/outbox.h"
#include "proto/link.h"

#define NODE_NO_GROUP UINT32_MAX

/* Frames that every peer can have under way at any time, whatever the others do. Chosen, not measured: of answers one can
 * be written while another one leaves; HELLO and a PONG or a REFUSE. A peer that is alone has all. */
#define NODE_OWN_ANSWERS 2
#define NODE_OWN_SMALL   2

/* Chosen, not measured: readers at a time, each of which can have one piece under way. They must not take the places of
 * coordinators, and eight copies at a time fill any network. */
#define NODE_MAX_READERS 8

/* One expert's place in the shard, also for those not held. */
typedef struct node_slot {
    compute_expert *expert; /* owned; NULL: not held */
    bool loading;           /* begun: its memory is taken */
    uint64_t rows;
    uint32_t block;                   /* that it is in */
    uint32_t first_group, last_group; /* its groups in the batch, chained by node_group.next; NODE_NO_GROUP: none */
} node_slot;

/* 64 experts of a layer, as coordinators are told of them. All blocks that have ever changed are in a list by revision. */
typedef struct node_block {
    uint32_t layer, first; /* id: a multiple of 64 */
    uint64_t experts;      /* a bit for each that is held */
    uint64_t revision;     /* of the last change; 0: none */
    uint32_t older, newer;
} node_block;
#define NODE_NO_BLOCK UINT32_MAX

/* A connection; its place is free while the link is closed. */
typedef struct node_peer {
    transport_peer peer;
    expert_node *node;
    link_end link;
} node_peer;

/* The rows of one dispatch for one expert. */
typedef struct node_group {
    uint32_t first, n; /* in pick_rows */
    uint32_t out_row;  /* where its results are after the run */
    uint32_t next;
} node_group;

/* One dispatch that waits, with the buffer its answer will leave in. */
typedef struct node_frame {
    outbox_frame answer;
    uint32_t first_group, n_groups;
} node_frame;

typedef struct node_batch {
    compute_mem *x, *out;  /* owned: [batch_rows, d_model], [batch_picks, d_model] class dtype */
    node_frame *frames;    /* owned [batch_frames] */
    node_group *groups;    /* owned [batch_picks] */
    uint32_t *pick_rows;   /* owned [batch_picks] rows of x in the order they came */
    uint32_t *touched;     /* owned [batch_picks] slots with groups */
    uint32_t *merged_rows; /* owned [batch_picks] rows of x, one expert after the other */
    compute_group *ffn;    /* owned [batch_picks] one per expert */
    compute_group *call;   /* owned [batch_picks] those of one expert_ffn call */
    uint32_t *answer_rows; /* owned [batch_picks] rows of out in the order of one answer */
    uint32_t n_frames, n_rows, n_picks, n_groups, n_touched;
} node_batch;

struct expert_node {
    expert_node_options o; /* strings are not kept */
    wire_hello hello;      /* without nonce */
    wire_key key;
    link_side side;
    uint64_t peers_check_ns; /* when the links are looked at again */
    uint16_t dtype;          /* wire_dtype */
    size_t row_bytes;
    node_slot *slots;   /* owned [slots of the space] */
    node_block *blocks; /* owned; each layer's ids that there are, 64 by 64 */
    uint32_t n_blocks, newest_block;
    node_peer *peers; /* owned [max_peers] */
    transport_frames *small;
    size_t small_kept; /* of them, for peers that have none out (NODE_OWN_SMALL) */
    outbox answers;
    transport_frames *pieces; /* NULL: there are no packs */
    uint32_t next_reader;     /* in peers: whose turn it is */
    bool may_ask;             /* a reader may wait for a piece: else nobody is looked at */
    node_batch batch;
    expert_node_stats stats;
};

/* shard.c */
void node_shard_close(expert_node *node);
MOE_NODISCARD moe_status node_shard_open(expert_node *node);
void node_holds_after(void *peer, uint64_t revision, wire_holds *out); /* of link_ops */

/* inbox.c: what arrives */
void node_on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n);
void node_on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why);
extern const link_ops node_link_ops;        /* ctx is a node_peer */
uint64_t node_now(const expert_node *node); /* 0: there is no clock */
void node_check_peers(expert_node *node);   /* disconnects peers that have not greeted in time */
void node_tell_peers(expert_node *node);    /* the same now, and tells them what they have not been told */
void node_refuse(expert_node *node, transport_peer peer, const wire_request *request, wire_refuse_reason reason,
                 const char *text);

/* reading.c: packs, read to others */
MOE_NODISCARD moe_status node_reading_open(expert_node *node);
/* Whether one more reader is taken; why not. */
MOE_NODISCARD moe_status node_reading_judge(const expert_node *node, const wire_hello *theirs, moe_error *why);
/* Answers one reader that has asked. Returns 1: something was done, or will be when it is tried again soon. */
unsigned node_reading_turn(expert_node *node);

/* worker.c: the batch */
MOE_NODISCARD moe_status node_batch_open(expert_node *node);
void node_batch_close(expert_node *node);
/* Takes a checked dispatch; runs the batch first when it does not fit. MOE_ERR_BUSY: no buffer for the answer. */
MOE_NODISCARD moe_status node_batch_add(expert_node *node, transport_peer peer, const wire_dispatch *d);
void node_batch_run(expert_node *node);
/* Sends the answers that the device has filled. Returns how many there were and are, so that nobody sleeps meanwhile. */
unsigned node_answers_send(expert_node *node);

#endif
