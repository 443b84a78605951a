/* Any bytes as a frame. Magic, length and checksum are mended in a second round, or no input would get behind them.
 * What decodes must be readable to its last byte and encode to the same frame. */
#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_equal(moe_buf *b, const unsigned char *frame, size_t n)
{
    size_t bytes = wire_finish(b);

    MOE_ASSERT(bytes == n && memcmp(b->data, frame, n) == 0);
}

static void dispatch(moe_buf *b, const unsigned char *frame, size_t n)
{
    wire_dispatch d;
    moe_error err;

    if (wire_get_dispatch(frame, n, &d, &err) != MOE_OK) {
        return;
    }
    wire_dispatch_begin(b, &d);
    for (uint32_t g = 0; g < d.n_groups; g++) {
        wire_put_group(b, wire_group_at(d.groups, g));
    }
    for (uint32_t i = 0; i < d.n_picks; i++) {
        uint32_t row = wire_u32_at(d.pick_rows, i);

        MOE_ASSERT(row < d.n_rows);
        moe_put_u32(b, row);
    }
    void *rows = wire_put_rows(b, d.n_rows, d.d_model, d.dtype);
    MOE_ASSERT(rows != NULL);
    memcpy(rows, d.rows, (size_t)d.n_rows * d.d_model * wire_dtype_bytes(d.dtype));
    check_equal(b, frame, n);
}

static void result(moe_buf *b, const unsigned char *frame, size_t n)
{
    wire_result r;
    moe_error err;

    if (wire_get_result(frame, n, &r, &err) != MOE_OK) {
        return;
    }
    wire_result_begin(b, &r);
    void *rows = wire_put_rows(b, r.n_picks, r.d_model, r.dtype);
    MOE_ASSERT(rows != NULL);
    memcpy(rows, r.rows, (size_t)r.n_picks * r.d_model * wire_dtype_bytes(r.dtype));
    check_equal(b, frame, n);
}

static void hello(moe_buf *b, const unsigned char *frame, size_t n)
{
    static const wire_hello mine = {.role = WIRE_NODE, .cluster = "conclave", .numeric_class = "f32-1", .d_model = 16};
    wire_hello h;
    moe_error err;

    if (wire_get_hello(frame, n, &h, &err) == MOE_OK) {
        (void)!wire_hello_check(&mine, &h, &err);
        wire_put_hello(b, &h);
        check_equal(b, frame, n);
    }
}

static void small(moe_buf *b, const unsigned char *frame, size_t n, wire_type type)
{
    moe_error err;
    union {
        wire_refuse refuse;
        wire_goodbye goodbye;
        wire_pong pong;
        wire_ping ping;
        wire_holds holds;
        wire_fetch fetch;
        wire_piece piece;
        unsigned char mac[32];
    } u;

    if (type == WIRE_REFUSE && wire_get_refuse(frame, n, &u.refuse, &err) == MOE_OK) {
        wire_put_refuse(b, &u.refuse);
    } else if (type == WIRE_GOODBYE && wire_get_goodbye(frame, n, &u.goodbye, &err) == MOE_OK) {
        wire_put_goodbye(b, &u.goodbye);
    } else if (type == WIRE_PONG && wire_get_pong(frame, n, &u.pong, &err) == MOE_OK) {
        wire_put_pong(b, &u.pong);
    } else if (type == WIRE_PING && wire_get_ping(frame, n, &u.ping, &err) == MOE_OK) {
        wire_put_ping(b, &u.ping);
    } else if (type == WIRE_HOLDS && wire_get_holds(frame, n, &u.holds, &err) == MOE_OK) {
        wire_put_holds(b, &u.holds);
    } else if (type == WIRE_FETCH && wire_get_fetch(frame, n, &u.fetch, &err) == MOE_OK) {
        wire_put_fetch(b, &u.fetch);
    } else if (type == WIRE_PIECE && wire_get_piece(frame, n, &u.piece, &err) == MOE_OK) {
        wire_put_piece(b, &u.piece);
    } else if (type == WIRE_PROOF && wire_get_proof(frame, n, u.mac, &err) == MOE_OK) {
        wire_put_proof(b, u.mac);
    } else {
        return;
    }
    check_equal(b, frame, n);
}

static void one(const unsigned char *frame, size_t n, unsigned char *copy)
{
    wire_type type;
    moe_error err;
    moe_buf b;

    if (wire_open(frame, n, &type, &err) != MOE_OK) {
        return;
    }
    moe_buf_init(&b, copy, n);
    if (type == WIRE_DISPATCH) {
        dispatch(&b, frame, n);
    } else if (type == WIRE_RESULT) {
        result(&b, frame, n);
    } else if (type == WIRE_HELLO) {
        hello(&b, frame, n);
    } else {
        small(&b, frame, n, type);
    }
}

static void mend(unsigned char *frame, size_t n)
{
    static const unsigned char magic[] = {'C', 'N', 'C', 'W'};

    memcpy(frame, magic, sizeof magic);
    for (int i = 0; i < 4; i++) {
        frame[8 + i] = (unsigned char)(n >> (8 * i));
    }
    uint32_t crc = wire_crc32c(wire_crc32c(0, frame, 12), frame + WIRE_HEADER_BYTES, n - WIRE_HEADER_BYTES);
    for (int i = 0; i < 4; i++) {
        frame[12 + i] = (unsigned char)(crc >> (8 * i));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    unsigned char *frame = malloc(n + 1);
    unsigned char *copy = malloc(n + 1);

    if (frame != NULL && copy != NULL) {
        memcpy(frame, data, n);
        one(frame, n, copy);
        if (n >= WIRE_HEADER_BYTES) {
            mend(frame, n);
            one(frame, n, copy);
        }
    }
    free(frame);
    free(copy);
    return 0;
}
