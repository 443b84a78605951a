/* wire: the frames between members. docs/wire.md is the authority: byte tables, rules, and what a violation costs.
 *
 * Nouns:
 *   frame     one message: a header of 16 bytes (magic, version, type, length, CRC-32C) and a body,
 *             little-endian, written field by field
 *   request   names one dispatch: coordinator, step, layer, micro-batch, attempt
 *   view      a decoded DISPATCH or RESULT: checked counts, and pointers into the frame that are valid as long as
 *             its bytes are
 *
 * Decoding: no byte is trusted. Every length and count is checked against the buffer before it is used, and the index
 *           arrays entry by entry, so a view needs no further checks of its structure. The receiver still compares
 *           counts and shapes with what HELLO negotiated.
 * Encoding: ..._begin, then what belongs to the body, then wire_finish, all into one moe_buf. A frame that does not fit
 *           sets buf->failed.
 * Memory:   nothing is allocated; buffers belong to the caller.
 * Threads:  pure functions.
 * Errors:   MOE_ERR_CORRUPT, or MOE_ERR_UNSUPPORTED for another version, with the field, its value and the limit. */
#ifndef CONCLAVE_PROTO_WIRE_H
#define CONCLAVE_PROTO_WIRE_H

#include "base/base.h"

#define WIRE_VERSION      4
#define WIRE_HEADER_BYTES 16
#define WIRE_MAX_NAME     63  /* cluster, member, numeric class: characters */
#define WIRE_MAX_TEXT     200 /* bytes of a reason */
#define WIRE_MAX_D_MODEL  (1u << 20)
#define WIRE_MAX_SECRET   4096 /* bytes of the cluster secret */
#define WIRE_SMALL_BYTES  512  /* every frame but DISPATCH, RESULT and PIECE fits */

typedef enum {
    WIRE_HELLO = 1,
    WIRE_DISPATCH = 2,
    WIRE_RESULT = 3,
    WIRE_REFUSE = 4,
    WIRE_PING = 5,
    WIRE_PONG = 6,
    WIRE_GOODBYE = 7,
    WIRE_PROOF = 8,
    WIRE_HOLDS = 9,
    WIRE_FETCH = 10,
    WIRE_PIECE = 11,
    WIRE_LAST = WIRE_PIECE
} wire_type;
const char *wire_type_name(wire_type type); /* "HELLO", ...; "unknown" for other numbers; static */

typedef enum { WIRE_F32 = 1, WIRE_BF16 = 2 } wire_dtype;
size_t wire_dtype_bytes(uint16_t dtype); /* of one value; 0 when the number names no dtype */

/* CRC-32C (Castagnoli). crc is 0, or the value so far. Uses SSE4.2 where the machine has it; the portable twin (a
 * table) gives the same value. */
uint32_t wire_crc32c(uint32_t crc, const void *bytes, size_t n);
uint32_t wire_crc32c_portable(uint32_t crc, const void *bytes, size_t n);

/* ------------------------------------------------------------------------------------------------ frame */
/* Checks header and checksum of a received frame of n bytes. The body is then read by the decoder of its type. */
MOE_NODISCARD moe_status wire_open(const void *frame, size_t n, wire_type *type_out, moe_error *err);
/* Ends the frame begun in b, which starts at b->data: writes length and checksum. Returns the frame's bytes; 0 when it
 * did not fit. */
size_t wire_finish(moe_buf *b);
/* The same of a frame whose rows lie elsewhere, so that b has only room for them: the checksum, four bytes here, is written by
 * who has them (compute op frame_out). */
#define WIRE_SUM_AT 12
size_t wire_finish_apart(moe_buf *b);

/* ------------------------------------------------------------------------------------------------ HELLO */
typedef enum { WIRE_COORDINATOR = 1, WIRE_NODE = 2, WIRE_READER = 3 } wire_role;
const char *wire_role_name(uint16_t role); /* "node"; static; of these alone */

typedef struct wire_hello {
    uint16_t role; /* wire_role */
    char member[WIRE_MAX_NAME + 1];
    uint64_t incarnation; /* drawn at each start of the process */
    char cluster[WIRE_MAX_NAME + 1];
    char numeric_class[WIRE_MAX_NAME + 1];
    unsigned char fingerprint[32]; /* of the model */
    uint32_t d_model;
    /* What this member takes in one frame. */
    uint64_t max_message; /* bytes */
    uint32_t max_rows;    /* unique rows of a DISPATCH */
    uint32_t max_picks;   /* (row, expert) pairs of a DISPATCH */
    /* Proof of the cluster secret; both are empty when there is none. */
    uint8_t n_nonce, n_mac; /* bytes: 0 or 32 */
    unsigned char nonce[32], mac[32];
} wire_hello;

void wire_put_hello(moe_buf *b, const wire_hello *h);
MOE_NODISCARD moe_status wire_get_hello(const void *frame, size_t n, wire_hello *out, moe_error *err);
/* Whether two members belong together: cluster, fingerprint, numeric class and width equal, and one of them is the node.
 * Errors: MOE_ERR_DENIED names what differs. */
MOE_NODISCARD moe_status wire_hello_check(const wire_hello *mine, const wire_hello *theirs, moe_error *err);

/* ------------------------------------------------------------------------------------------------ proof
 * Both members of a connection prove that they know the cluster secret, over both HELLOs (docs/wire.md). */
typedef struct wire_key {
    bool present;            /* false: there is no secret, nothing is proved */
    unsigned char bytes[32]; /* derived from the secret */
} wire_key;

/* n 0: no secret. Errors: MOE_ERR_INVALID_ARG (above WIRE_MAX_SECRET), MOE_ERR_INTERNAL. */
MOE_NODISCARD moe_status wire_key_init(wire_key *key, const void *secret, size_t n);
void wire_key_fini(wire_key *key);
/* From the system's randomness: a nonce for one connection. */
MOE_NODISCARD moe_status wire_random(unsigned char *out, size_t n);
/* The proof of `who`; caller: the coordinator's or reader's HELLO. The HELLOs' own macs are left out of it. */
MOE_NODISCARD moe_status wire_prove(const wire_key *key, wire_role who, const wire_hello *caller,
                                    const wire_hello *node, unsigned char mac[32]);
/* Whether mac is that proof, compared in constant time. False when a nonce is missing. */
MOE_NODISCARD bool wire_proves(const wire_key *key, wire_role who, const wire_hello *caller, const wire_hello *node,
                               const unsigned char mac[32]);
void wire_put_proof(moe_buf *b, const unsigned char mac[32]);
MOE_NODISCARD moe_status wire_get_proof(const void *frame, size_t n, unsigned char mac_out[32], moe_error *err);

/* ------------------------------------------------------------------------------------------------ dispatch, result */
typedef struct wire_request {
    uint64_t coordinator, step;
    uint32_t layer, micro_batch, attempt;
} wire_request;
bool wire_request_equal(const wire_request *a, const wire_request *b);

/* Body of DISPATCH: this head, n_groups groups, n_picks row indices, n_rows rows. */
typedef struct wire_dispatch {
    wire_request request;
    uint64_t epoch;
    uint32_t d_model;
    uint16_t dtype;
    uint32_t n_rows, n_groups, n_picks;
    /* Views into the frame, filled by decoding. */
    const unsigned char *groups;    /* [n_groups], read with wire_group_at */
    const unsigned char *pick_rows; /* [n_picks], read with wire_u32_at: each pick's row, ascending within a group */
    const unsigned char *rows;      /* [n_rows, d_model] of dtype, at a multiple of 4 from the frame's start */
} wire_dispatch;

typedef struct wire_group {
    int32_t expert_id;
    uint32_t n_picks;
} wire_group;

/* Bytes of the whole frame; SIZE_MAX when that overflows or dtype is unknown. */
size_t wire_dispatch_bytes(size_t n_rows, size_t n_groups, size_t n_picks, size_t d_model, uint16_t dtype);
/* A DISPATCH is written in this order:
 *   wire_dispatch_begin
 *   wire_put_group   n_groups times
 *   moe_put_u32      n_picks times: the picks' rows
 *   wire_put_rows    returns where the caller writes the rows; NULL when they do not fit
 *   wire_finish */
void wire_dispatch_begin(moe_buf *b, const wire_dispatch *d);
void wire_put_group(moe_buf *b, wire_group g);
void *wire_put_rows(moe_buf *b, size_t n_rows, size_t d_model, uint16_t dtype);
/* Checks the structure: groups ascend by expert and none is empty, their picks add up to n_picks, and row indices are
 * in range and ascend within a group. */
MOE_NODISCARD moe_status wire_get_dispatch(const void *frame, size_t n, wire_dispatch *out, moe_error *err);

/* Body of RESULT: this head, n_picks rows in the order asked. */
typedef struct wire_result {
    wire_request request;
    uint32_t d_model;
    uint16_t dtype;
    uint32_t n_picks;
    uint32_t queued_rows;      /* at the node when this left */
    const unsigned char *rows; /* view: [n_picks, d_model] of dtype */
} wire_result;

size_t wire_result_bytes(size_t n_picks, size_t d_model, uint16_t dtype);
/* A RESULT is written by wire_result_begin, wire_put_rows, wire_finish. */
void wire_result_begin(moe_buf *b, const wire_result *r);
MOE_NODISCARD moe_status wire_get_result(const void *frame, size_t n, wire_result *out, moe_error *err);

static inline uint32_t wire_u32_at(const unsigned char *array, size_t i)
{
    const unsigned char *p = array + 4 * i;

    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline wire_group wire_group_at(const unsigned char *groups, size_t i)
{
    return (wire_group){(int32_t)wire_u32_at(groups, 2 * i), wire_u32_at(groups, 2 * i + 1)};
}

/* ------------------------------------------------------------------------------------------------ small frames */
typedef enum {
    WIRE_REFUSE_CLASS = 1,    /* dtype is not the numeric class's */
    WIRE_REFUSE_EXPERT = 2,   /* not held here */
    WIRE_REFUSE_TOO_MANY = 3, /* rows or picks above what was negotiated */
    WIRE_REFUSE_SHAPE = 4,    /* d_model or layer */
    /* 5 is reserved: docs/wire.md */
    WIRE_REFUSE_BUSY = 6,  /* no buffer now */
    WIRE_REFUSE_FAILED = 7 /* the node's device failed */
} wire_refuse_reason;

typedef struct wire_refuse {
    wire_request request;
    uint16_t reason; /* wire_refuse_reason; unknown numbers are kept */
    char text[WIRE_MAX_TEXT + 1];
} wire_refuse;

void wire_put_refuse(moe_buf *b, const wire_refuse *r);
MOE_NODISCARD moe_status wire_get_refuse(const void *frame, size_t n, wire_refuse *out, moe_error *err);

typedef struct wire_ping {
    uint64_t token;
    uint64_t epoch; /* that the coordinator's dispatches use from now on; 0: none yet */
    uint64_t holds; /* the revision up to which it knows what the node holds; 0: nothing yet */
} wire_ping;

typedef struct wire_pong {
    uint64_t token; /* of the PING */
    uint32_t queued_frames, queued_rows;
    uint64_t frames, rows; /* since start */
} wire_pong;

void wire_put_ping(moe_buf *b, const wire_ping *p);
MOE_NODISCARD moe_status wire_get_ping(const void *frame, size_t n, wire_ping *out, moe_error *err);
void wire_put_pong(moe_buf *b, const wire_pong *p);
MOE_NODISCARD moe_status wire_get_pong(const void *frame, size_t n, wire_pong *out, moe_error *err);

/* The experts of one layer from `first` on that a node holds: bit i is expert first + i. */
typedef struct wire_block {
    uint32_t layer, first; /* a multiple of 64, at most WIRE_MAX_FIRST */
    uint64_t experts;
} wire_block;
#define WIRE_MAX_BLOCKS 29 /* in one frame */
#define WIRE_MAX_FIRST  (INT32_MAX - 63)

/* All blocks that have changed after one revision and up to another, as they are now. */
typedef struct wire_holds {
    uint64_t after, upto; /* after < upto <= latest */
    uint64_t latest;      /* the node's revision when this left: more follows while upto is below */
    uint16_t n_blocks;
    wire_block blocks[WIRE_MAX_BLOCKS];
} wire_holds;

void wire_put_holds(moe_buf *b, const wire_holds *h);
MOE_NODISCARD moe_status wire_get_holds(const void *frame, size_t n, wire_holds *out, moe_error *err);

typedef enum { WIRE_GOODBYE_DRAINING = 1, WIRE_GOODBYE_REFUSED = 2 } wire_goodbye_reason;

typedef struct wire_goodbye {
    uint16_t reason; /* wire_goodbye_reason; unknown numbers are kept */
    char text[WIRE_MAX_TEXT + 1];
} wire_goodbye;

void wire_put_goodbye(moe_buf *b, const wire_goodbye *g);
MOE_NODISCARD moe_status wire_get_goodbye(const void *frame, size_t n, wire_goodbye *out, moe_error *err);

/* ------------------------------------------------------------------------------------------------ packs */
#define WIRE_MAX_PIECE   65536u /* bytes of a pack in one frame */
#define WIRE_PIECE_BYTES 72     /* of a PIECE without them */

typedef struct wire_fetch {
    unsigned char pack[32]; /* its hash */
    uint32_t part;          /* by number, as pack/pack.h has them */
    uint64_t offset;
    uint32_t length; /* 1 to WIRE_MAX_PIECE */
} wire_fetch;

typedef struct wire_piece {
    unsigned char pack[32]; /* this and the next two as asked */
    uint32_t part;
    uint64_t offset;
    uint64_t size;              /* bytes of the part; 0: the node has no such pack or part */
    uint32_t n;                 /* that follow here: 0 unless offset is below size */
    const unsigned char *bytes; /* view [n] */
} wire_piece;

void wire_put_fetch(moe_buf *b, const wire_fetch *f);
MOE_NODISCARD moe_status wire_get_fetch(const void *frame, size_t n, wire_fetch *out, moe_error *err);
void wire_put_piece(moe_buf *b, const wire_piece *p);
MOE_NODISCARD moe_status wire_get_piece(const void *frame, size_t n, wire_piece *out, moe_error *err);

#endif
