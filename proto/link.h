/* link: one end of the connection between a coordinator and a node, from HELLO to the end: a pure state machine over
 * bytes. docs/wire.md says what the frames mean. The exchange, the node and the node program's probe use it.
 *
 *   called (node)     GREETING --HELLO--> OPEN                       without a secret
 *                     GREETING --HELLO--> PROVING --PROOF--> OPEN    with one
 *                     GREETING --HELLO that does not fit--> REFUSED  told why by GOODBYE; closed when the time is over
 *   coordinator       GREETING --HELLO--> OPEN --GOODBYE (1)--> DRAINING
 *   probe             GREETING --HELLO--> CLOSED                     it has seen who is there
 *   reader            GREETING --HELLO--> READING --FETCH--> ASKED --PIECE--> READING   of packs; the node's end alike
 *   any               --violation, GOODBYE (2), time--> CLOSED
 *
 * Nouns:
 *   side   what all links of one member share: who it is, the secret, what it tells
 *   end    one link as its member sees it; 0 bytes are a closed one
 *   edge   a frame that is legal in a state, and the states that it may lead to. What is not in the table of edges costs
 *          the connection
 *
 * What a node holds travels with it: by revisions, so that only changes are sent, all of it after the greeting, and what was
 * lost on the way again. A coordinator knows all up to a revision or nothing of it; it says in its PINGs which.
 *
 * The link takes HELLO, PROOF, PING, PONG, HOLDS and GOODBYE and answers them. DISPATCH, RESULT and REFUSE are its member's: they
 * are passed on while it is open and not looked into. FETCH and PIECE are checked against each other, and passed on.
 *
 * Bytes and times come in as arguments, what leaves and what is random goes through link_ops. The connection itself
 * belongs to the member, which closes it when the state is CLOSED.
 * Memory:  nothing is allocated. The side is borrowed as long as its ends are used.
 * Threads: none of its own; the member's. */
#ifndef CONCLAVE_PROTO_LINK_H
#define CONCLAVE_PROTO_LINK_H

#include "proto/wire.h"

/* From the connection to OPEN. Chosen, not measured: a few round trips and two HMACs. */
#define LINK_GREETING_NS UINT64_C(2000000000)

/* A reader's link: without a FETCH that it can answer for so long, the node ends it; without the PIECE for it so long, the reader does. Chosen, not
 * measured: a node computes a large batch before it answers, and a reader writes and hashes what it has read. */
#define LINK_READING_NS UINT64_C(10000000000)
#define LINK_ASKED_NS   UINT64_C(5000000000)

/* A node ends the link of a coordinator of which it has heard nothing for so long: it stands still, or its host is gone and
 * the kernel has not noticed. Chosen, not measured: a PING comes every quarter of a second, unless its engine computes. */
#define LINK_CALLER_NS UINT64_C(30000000000)

typedef enum { LINK_COORDINATOR, LINK_NODE, LINK_PROBE, LINK_READER, LINK_N_ROLES } link_role;
typedef enum {
    LINK_CLOSED,
    LINK_GREETING, /* HELLO is awaited */
    LINK_PROVING,  /* our HELLO has gone, the proof of the secret is awaited */
    LINK_OPEN,
    LINK_DRAINING, /* as open, but the node takes nothing new */
    LINK_REFUSED,  /* told why; nothing is taken any more */
    LINK_READING,  /* a reader is accepted; nothing is asked */
    LINK_ASKED,    /* the PIECE for its FETCH is awaited, or to be sent */
    LINK_N_STATES
} link_state;

/* ------------------------------------------------------------------------------------------------ edges */
#define LINK_TIME 0 /* in place of a frame: link_tick */
typedef struct link_edge {
    link_role role;
    link_state from;
    int frame;   /* wire_type, or LINK_TIME */
    unsigned to; /* bits of link_state. A violation inside of a legal frame leads to CLOSED from everywhere */
} link_edge;
#define LINK_TO(state) (1u << (state))
const link_edge *link_edges(size_t *n_out); /* static */

/* ------------------------------------------------------------------------------------------------ sides, ends */
/* What an end needs of its member; ctx is the end's. */
typedef struct link_ops {
    /* Sends a frame of at most WIRE_SMALL_BYTES, or tells that there is no room now. The bytes are borrowed for the call. */
    bool (*send)(void *ctx, const unsigned char *frame, size_t n);
    MOE_NODISCARD moe_status (*draw)(unsigned char *out, size_t n); /* n random bytes: wire_random */
    /* Whether their HELLO, which fits ours, is that of a member to talk to; before any proof. NULL: every one is. */
    MOE_NODISCARD moe_status (*judge)(void *ctx, const wire_hello *theirs, moe_error *why);
    /* A node's: what has changed in what it holds after a revision that is below the side's; as much as one frame takes. */
    void (*holds_after)(void *ctx, uint64_t revision, wire_holds *out);
    /* A coordinator's: what the node holds has changed; in order, nothing is left out. */
    void (*on_holds)(void *ctx, const wire_holds *changed);
} link_ops;

typedef struct link_side {
    link_role role;
    const wire_hello *hello; /* borrowed; without nonce and mac */
    const wire_key *key;     /* borrowed */
    const link_ops *ops;     /* borrowed */
    /* A coordinator's. */
    uint64_t heartbeat_ns; /* between PINGs; 0: none */
    uint64_t epoch;        /* that it applies: told when it changes, and by every PING; 0: none yet */
    /* A node's. */
    wire_pong load;    /* what PONG tells; its token is not used */
    bool draining;     /* every coordinator is told, also one that comes later */
    uint64_t revision; /* of what it holds: grows with every change; at least 1 */
} link_side;

typedef struct link_end {
    const link_side *side;
    void *ctx;
    link_state state;
    uint64_t deadline_ns; /* of OPEN; 0: none */
    wire_hello theirs;    /* once it has come; proved from OPEN on */
    bool is_unproved;     /* the last frame was refused, or cost the connection, for want of a proof */
    unsigned char nonce[32];
    uint64_t heard_ns; /* a frame */
    wire_fetch asked;  /* in LINK_ASKED */
    uint64_t asked_ns;
    /* A coordinator's. */
    uint64_t pinged_ns;
    uint64_t told_epoch;  /* by the last PING; 0: none */
    uint32_t queued_rows; /* at the node, when it last told */
    uint64_t known;       /* the revision up to which is known what it holds; 0: nothing */
    bool knows_all;       /* that was all there was at some time: from then on it counts */
    /* A node's. */
    uint64_t epoch;      /* that the coordinator applies, as it last told; 0: it has not */
    bool told_draining;  /* and it was sent */
    uint64_t told;       /* the revision up to which it was sent what we hold */
    uint64_t last_known; /* by its last PING; UINT64_MAX: none has come */
    uint64_t ticked_ns;  /* when link_tick was last called */
} link_end;

/* Begins a link on a connection that was made just now: whoever called says HELLO. deadline_ns: 0, or when it must be open.
 * Errors: MOE_ERR_BUSY (no room for HELLO), those of draw. The end is then closed. */
MOE_NODISCARD moe_status link_begin(link_end *l, const link_side *side, void *ctx, uint64_t now, uint64_t deadline_ns);
void link_close(link_end *l); /* the connection is gone, or given up */
/* A coordinator's: the node is asked to tell all that it holds once more, as there are more experts now that count. What it
 * has told goes on to count. */
void link_ask_again(link_end *l);

typedef enum {
    LINK_NOTHING,
    LINK_OPENED,      /* the other is accepted (a probe's end is closed then) */
    LINK_TURNED_AWAY, /* by us, or by the other: err says why */
    LINK_LEAVING,     /* the node drains */
    LINK_ANSWERED,    /* PONG: queued_rows is new */
    LINK_TOLD,        /* HOLDS: on_holds was called, or there was nothing new */
    LINK_WANTED,      /* FETCH, which is `asked`: to be answered, then link_answered */
    LINK_GIVEN,       /* PIECE: what was asked; to be read by wire_get_piece */
    LINK_FRAME        /* its member's: type says which */
} link_event;

/* Takes a frame. Errors: a violation, with its text; the end is then closed, and so must the connection be. */
MOE_NODISCARD moe_status link_receive(link_end *l, const unsigned char *bytes, size_t n, uint64_t now, link_event *out,
                                      wire_type *type_out, moe_error *err);

typedef enum {
    LINK_FINE,
    LINK_LATE,  /* not open in time */
    LINK_SILENT /* no sign of life */
} link_verdict;

/* Does what is due: sends what has not been told, watches deadlines. busy: the node has rows of ours, so that it may be
 * computing and cannot answer. After another verdict than FINE the end is closed. *wake_ns is lowered to when it must be
 * called again at the latest. */
MOE_NODISCARD link_verdict link_tick(link_end *l, uint64_t now, bool busy, uint64_t *wake_ns);

/* A reader's, in LINK_READING: asks. Errors: MOE_ERR_BUSY: there was no room; nothing has changed. */
MOE_NODISCARD moe_status link_ask(link_end *l, const wire_fetch *what, uint64_t now);
/* A node's, in LINK_ASKED: the PIECE has been sent. */
void link_answered(link_end *l, uint64_t now);
/* The most that a FETCH may ask for on this link. */
uint32_t link_max_piece(const link_end *l);

static inline bool link_is_open(const link_end *l) /* a coordinator's, to a node */
{
    return l->state == LINK_OPEN || l->state == LINK_DRAINING;
}

static inline bool link_is_reading(const link_end *l) /* a reader's, to a node */
{
    return l->state == LINK_READING || l->state == LINK_ASKED;
}

#endif
