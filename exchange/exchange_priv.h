/* What the files of the exchange share. */
#ifndef CONCLAVE_EXCHANGE_EXCHANGE_PRIV_H
#define CONCLAVE_EXCHANGE_EXCHANGE_PRIV_H

#include "exchange/exchange.h"
#include "outbox/outbox.h"
#include "proto/link.h"

#include <pthread.h>
#include <stdatomic.h>

#define EXCHANGE_MAX_JOBS 2
#define EXCHANGE_NO_NODE  UINT32_MAX
/* Small frames that a node may have on the way. One that reads nothing is sent no more: it would keep those of all others. */
#define EXCHANGE_OWN_SMALL 3

/* MET: connected, and how far that has come its link knows. Elsewhere the link is closed. */
typedef enum { NODE_FREE, NODE_DOWN, NODE_CONNECTING, NODE_MET } exchange_node_state;

/* speed.c. Times per unit of a part's cost. */
typedef struct exchange_speed {
    uint64_t usual_ns, deviation_ns;
    uint32_t n_learnt;
    uint32_t burden;     /* in units of 1 / ROUTER_BURDEN_ONE */
    uint64_t weighed_ns; /* when it last changed */
    bool is_slow;        /* a person has been told so */
} exchange_speed;

/* mute.c */
typedef struct exchange_mute {
    uint64_t owed_ns;    /* since when it owes results and has sent none; 0: it owes none */
    uint32_t owed_cost;  /* of the largest part that it owes */
    uint64_t until_ns;   /* it has computed nothing for too long: before that it is given nothing. 0: it computes */
    uint32_t n_times;    /* in a row */
    uint64_t refused_ns; /* the first refusal since its last result, */
    uint32_t n_refused;  /* and how many have come since */
} exchange_mute;

/* How long a part of a job took. */
typedef struct exchange_lap {
    uint32_t node, cost;
    uint64_t elapsed_ns;
} exchange_lap;

typedef struct exchange_node {
    exchange_node_state state;
    char id[ROUTER_MAX_NODE_ID + 1];
    char address[MOE_ADDRESS_BYTES];
    exchange *x;
    transport_peer peer; /* 0: none */
    link_end link;
    uint64_t timer_ns;            /* DOWN: when to connect; then, until the link is open: when to give up */
    uint64_t backoff_ns;          /* before the next connect but one */
    uint64_t slow_until_ns;       /* it let a deadline pass: until then it is used only if there is no other */
    uint64_t hold_until_ns;       /* it refused: until then it is not used */
    uint32_t max_rows, max_picks; /* of one dispatch: the smaller of both members' limits */
    uint64_t rows, frames;        /* answered */
    uint64_t busy_ns;             /* from dispatch to result, over those frames */
    uint64_t expected;            /* the incarnation that is meant; 0: any */
    bool is_another;              /* another one has answered */
    uint64_t incarnation;         /* of the HELLO that was last accepted; 0: none */
    bool troubled;                /* it has failed since it last answered */
    char why[96];                 /* as it last did; "" while it is connected */
    exchange_speed speed;
    exchange_mute mute;
    uint64_t hedges;       /* parts of it that others were given as well */
    uint64_t late_told_ns; /* when a person was last told that it is late */
    bool is_met;           /* its link was open on this connection */
    uint64_t lost_ns;      /* when its connection was lost; 0: it has one, or never had */
    uint32_t n_failed;     /* connects in vain since then */
    bool is_refused;       /* nobody listened at its address when it was last called */
    bool leaving;          /* it has said goodbye: that it is gone is no trouble */
    uint64_t n_told;       /* HOLDS that were taken, over all its connections */
    uint64_t opened_ns;    /* when its link was opened */
    bool is_untold;        /* it has not told in time what it holds (holds.c) */
} exchange_node;

typedef enum { ATTEMPT_FREE, ATTEMPT_OPEN, ATTEMPT_LATE } exchange_attempt_state;

#define ATTEMPT_AWAY UINT32_C(0x80000000)

typedef struct exchange_attempt {
    exchange_attempt_state state;
    uint32_t node;
    transport_peer peer; /* the connection it left by, and its incarnation */
    wire_request request;
    uint64_t sent_ns;
    uint64_t late_ns; /* from then on it is late */
    uint64_t look_ns; /* when it is looked at next whether others can be asked as well */
    uint64_t deadline_ns;
    uint32_t n_rows, n_picks, cost;
    uint32_t *picks; /* borrowed [max_picks] in the order asked; ATTEMPT_AWAY: another attempt has it now */
} exchange_attempt;

/* What a pick is doing. The plan skips all but the first. */
enum { PICK_WAITING = 0, PICK_SENT = 1, PICK_DONE = 2 };

typedef struct exchange_run {
    exchange_state_kind state;
    exchange_job job;
    uint64_t step;
    uint32_t next_attempt;
    uint8_t *picks; /* owned [max_rows * k] */
    size_t n_left, n_waiting;
    exchange_lap first; /* the first part that was answered; cost 0: none yet */
    bool replan;        /* something changed that may let waiting picks go */
    uint64_t replan_ns; /* or at this time */
    uint64_t stuck_ns;  /* a pick has had no node since then, and no result has come; 0: all are under way */
    moe_status status;  /* of a failed job */
} exchange_run;

struct exchange {
    exchange_options o; /* strings are not kept */
    wire_hello hello;   /* without nonce */
    wire_key key;
    link_side side; /* its epoch is what nodes are told */
    uint16_t dtype; /* wire_dtype */
    size_t row_bytes;
    exchange_node nodes[ROUTER_MAX_NODES];
    router_placement *placement;        /* shared; NULL: none yet */
    router_set *needed;                 /* shared: coverage is about its experts; NULL: about all */
    uint32_t node_of[ROUTER_MAX_NODES]; /* placement's node -> nodes */
    struct {
        uint64_t *bits;    /* owned [ROUTER_MAX_NODES][router_space_words] */
        bool is_changed;   /* since it was last asked for, */
        uint64_t shown_ns; /* which was then */
    } holds;
    router_plan *plan;
    transport_frames *small;
    outbox dispatches;
    exchange_attempt *attempts; /* owned [n_attempts] */
    size_t n_attempts;
    uint32_t *attempt_picks; /* owned, all attempts */
    exchange_run runs[EXCHANGE_MAX_JOBS];
    uint64_t step;
    uint64_t wake_ns; /* the earliest timer */
    uint64_t busy_ns; /* when something last happened */
    exchange_stats stats;
    _Atomic uint64_t turned_ns;
    struct {
        pthread_mutex_t lock;  /* of now, for other threads; a leaf */
        exchange_coverage now; /* written by the engine's thread */
        router_nodes live;     /* the placement's nodes it was counted with */
        bool stale;            /* the placement, or which node is which, has changed since */
    } coverage;
};

/* exchange.c */
void exchange_wake_at(exchange *x, uint64_t at_ns);
void exchange_replan(exchange *x); /* nodes or buffers have changed */
MOE_NODISCARD moe_status exchange_on_result(exchange *x, transport_peer peer, const wire_result *r, moe_error *err);
void exchange_on_refuse(exchange *x, transport_peer peer, const wire_refuse *r);

/* attempts.c */
exchange_attempt *exchange_take_attempt(exchange *x); /* NULL: all are open */
/* The one that this asks or answers, if it is outstanding on this very connection. */
exchange_attempt *exchange_find_attempt(const exchange *x, transport_peer peer, const wire_request *request);
exchange_run *exchange_run_of(exchange *x, const exchange_attempt *a);
/* Takes the picks away from an open attempt: they wait for another. */
void exchange_requeue(exchange *x, const exchange_attempt *a);
void exchange_end_attempts(exchange *x, uint32_t micro_batch);
void exchange_attempt_timers(exchange *x, uint64_t now);
void exchange_take_back(exchange *x, transport_peer peer); /* its attempts are late: their picks wait for another */
void exchange_peer_lost(exchange *x, transport_peer peer); /* its attempts are over */

/* waiting.c: whether a node takes rows for the expert at this moment: a slow one does, one that has just refused does not.
 * not_node: besides that one, which is late; then no slow one counts. EXCHANGE_NO_NODE: any. */
bool exchange_is_taken(const exchange *x, uint32_t layer, int32_t expert_id, uint32_t not_node, uint64_t now);

/* speed.c */
/* How long a part of this cost usually takes at the node, or at others while that is not known; 0: nothing is known yet. */
uint64_t exchange_speed_usual_ns(const exchange *x, const exchange_node *n, uint32_t cost);
/* What takes longer is late. */
uint64_t exchange_speed_late_ns(const exchange *x, const exchange_node *n, uint32_t cost);
void exchange_speed_note(exchange *x, exchange_run *run, const exchange_attempt *a, uint64_t now); /* it is answered */
/* Of the placement's nodes, for a plan; NULL: all are equal. */
const uint32_t *exchange_speed_burdens(exchange *x, uint64_t now, uint32_t burdens[ROUTER_MAX_NODES]);

/* mute.c */
void exchange_mute_owes(exchange_node *n, uint32_t cost, uint64_t now);  /* a part was sent to it */
void exchange_mute_judge(exchange *x, exchange_node *n, uint64_t now);   /* it answers pings */
void exchange_mute_answered(exchange *x, exchange_node *n);              /* with a result */
void exchange_mute_refused(exchange *x, exchange_node *n, uint64_t now); /* with none */
/* Whether the node may be given rows, as far as it is connected, has not refused a moment ago, and computes. */
bool exchange_takes_rows(const exchange_node *n, uint64_t now);

/* holds.c */
uint64_t *exchange_holds_alloc(const router_space *space); /* all 0; NULL: no memory */
/* Into the bitmaps of a later space. */
void exchange_holds_copy(uint64_t *to, const router_space *later, const exchange *x);
void exchange_holds_forget(exchange *x, const exchange_node *node);
void exchange_on_holds(void *node, const wire_holds *changed); /* of link_ops */
bool exchange_holds_are_told(const exchange_node *node);
void exchange_holds_judge(exchange *x, exchange_node *node, uint64_t now);
void exchange_holds_timer(exchange *x);

/* coverage.c */
void exchange_coverage_init(exchange *x);
void exchange_coverage_update(exchange *x, uint64_t now);

/* exchange_node.c: connections to nodes */
extern const link_ops exchange_link_ops; /* ctx is an exchange_node */
/* Whether new rows may go there. */
static inline bool exchange_node_takes(const exchange_node *node)
{
    return node->link.state == LINK_OPEN;
}
void exchange_map_nodes(exchange *x);
exchange_node *exchange_find_node(const exchange *x, const char *id); /* NULL: none */
void exchange_node_timers(exchange *x, uint64_t now);
/* The limits of one dispatch that both ends and max_message bytes allow; false if not even one row of k picks fits. */
MOE_NODISCARD bool exchange_fit(const exchange *x, uint64_t max_message, uint32_t *rows, uint32_t *picks);

#endif
