/* Rows into frames, on a device that takes its time: what it was asked for is there when its ticket has been asked for twice. */
#include "tests/support/support.h"

#include "outbox/outbox.h"

enum { WIDTH = 4, ROWS = 3, FRAMES = 2 };

/* A transport that keeps what it was last given. */
typedef struct wire_end {
    transport base;
    bool takes_device;
    unsigned char sent[256];
    size_t n_bytes;
    bool on_device;
    transport_peer peer;
} wire_end;

static const transport_peer near = 4, far = 5;
static wire_end end;
static moe_threads *threads;
static compute_device *device;
static const compute_ops *own_ops; /* of the device */
static compute_ops ops;
static compute_mem *x;
static outbox box;
static const float values[ROWS * WIDTH] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; /* [ROWS, WIDTH] */

static moe_status keep(transport *t, transport_peer peer, transport_msg *msg)
{
    wire_end *e = (wire_end *)t;

    assert_true(msg->n_parts == 1 && msg->parts[0].bytes <= sizeof e->sent);
    memcpy(e->sent, msg->parts[0].data, msg->parts[0].bytes);
    e->n_bytes = msg->parts[0].bytes;
    e->on_device = msg->on_device;
    e->peer = peer;
    msg->done(msg, MOE_OK);
    return MOE_OK;
}

/* Asked without a peer: on some. */
static bool takes_device(transport *t, transport_peer peer)
{
    return ((wire_end *)t)->takes_device && (peer == 0 || peer == near);
}

static const transport_ops end_ops = {.name = "end", .send = keep, .takes_device = takes_device};

/* As compute/ops.h has it, at once, in memory that is the host's after all. */
static compute_ticket frame_out(compute_device *d, compute_mem *frame, const void *head, size_t head_bytes,
                                size_t sum_at, const compute_mem *from, const uint32_t *rows, size_t row_bytes,
                                size_t n)
{
    unsigned char *to = (unsigned char *)frame;
    moe_buf field;

    memcpy(to, head, head_bytes);
    compute_ticket t = d->ops->gather_out(d, to + head_bytes, from, rows, row_bytes, n);
    assert_int_equal(d->ops->wait(d, t), MOE_OK);
    moe_buf_init(&field, to + sum_at, 4);
    moe_put_u32(&field,
                wire_crc32c(wire_crc32c(0, to, sum_at), to + sum_at + 4, head_bytes + n * row_bytes - sum_at - 4));
    return t;
}

static compute_mem *pages(compute_device *d, size_t bytes)
{
    (void)d;
    return (compute_mem *)moe_pages_alloc(bytes);
}

static void pages_free(compute_device *d, compute_mem *m)
{
    (void)d;
    moe_pages_free(m, transport_frames_bytes(FRAMES, box.frame_bytes));
}

static int setup(void **state)
{
    compute_device_options o = {.numeric_class = COMPUTE_CLASS_F32_1,
                                .isa = COMPUTE_ISA_AUTO,
                                .max_rows = 16,
                                .max_ffn_rows = 16,
                                .max_d_ff = 16,
                                .max_context = 16};
    moe_error err;

    (void)state;
    compute_thread_init();
    assert_int_equal(moe_threads_open(1, compute_thread_init, &threads), MOE_OK);
    o.threads = threads;
    assert_ok(compute_open("guarded", &o, &device, &err), err);
    own_ops = device->ops;
    ops = *own_ops;
    x = device->ops->alloc(device, sizeof values);
    device->ops->upload(device, x, values, sizeof values);
    end = (wire_end){.base = {.ops = &end_ops, .max_message = 4096}};
    box = (outbox){.device = device,
                   .transport = &end.base,
                   .n_frames = FRAMES,
                   .frame_bytes = wire_result_bytes(ROWS, WIDTH, WIRE_F32),
                   .d_model = WIDTH};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    outbox_fini(&box);
    device->ops = own_ops;
    device->ops->free(device, x);
    compute_close(device);
    moe_threads_close(threads);
    return 0;
}

/* A RESULT with these rows, its attempt numbered. */
static moe_status fill(outbox_frame *f, transport_peer peer, uint32_t attempt, const uint32_t *rows, uint32_t n)
{
    const wire_result head = {.request = {.attempt = attempt}, .d_model = WIDTH, .dtype = WIRE_F32, .n_picks = n};

    assert_true(outbox_take(&box, peer, f));
    f->request = head.request;
    wire_result_begin(&f->buf, &head);
    return outbox_fill(&box, f, x, rows, n);
}

static void assert_sent(transport_peer peer, uint32_t attempt, const uint32_t *rows, uint32_t n)
{
    wire_type type;
    wire_result r;
    moe_error err;

    assert_true(end.peer == peer);
    assert_ok(wire_open(end.sent, end.n_bytes, &type, &err), err);
    assert_int_equal(type, WIRE_RESULT);
    assert_ok(wire_get_result(end.sent, end.n_bytes, &r, &err), err);
    assert_int_equal(r.request.attempt, attempt);
    assert_int_equal(r.n_picks, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_memory_equal(r.rows + i * WIDTH * 4, values + rows[i] * WIDTH, WIDTH * 4);
    }
}

static void frames_come_back_filled_and_in_order(void **state)
{
    const uint32_t first[] = {2, 0}, second[] = {1};
    outbox_frame f;
    moe_status status;

    (void)state;
    assert_int_equal(outbox_init(&box), MOE_OK);
    assert_int_equal(fill(&f, far, 1, first, 2), MOE_ERR_BUSY);
    assert_int_equal(fill(&f, near, 2, second, 1), MOE_ERR_BUSY);
    assert_int_equal(box.n_filling, 2);
    assert_false(outbox_take(&box, far, &f)); /* both buffers are out */

    assert_true(outbox_next(&box, &f, &status));
    assert_int_equal(status, MOE_OK);
    outbox_post(&f);
    assert_sent(far, 1, first, 2);

    assert_true(outbox_next(&box, &f, &status));
    assert_int_equal(status, MOE_OK);
    outbox_post(&f);
    assert_sent(near, 2, second, 1);
    assert_int_equal(box.n_filling, 0);
    assert_false(outbox_next(&box, &f, &status));
    assert_int_equal(transport_frames_out(box.frames), 0);
}

static moe_status busy(compute_device *d, compute_ticket t)
{
    (void)d;
    return t == 0 ? MOE_OK : MOE_ERR_BUSY;
}

static moe_status lost(compute_device *d, compute_ticket t)
{
    (void)d;
    return t == 0 ? MOE_OK : MOE_ERR_INTERNAL;
}

static void a_frame_is_the_outbox_s_until_the_device_is_done(void **state)
{
    const uint32_t rows[] = {0};
    outbox_frame f;
    moe_status status;

    (void)state;
    ops.reached = busy;
    device->ops = &ops;
    assert_int_equal(outbox_init(&box), MOE_OK);
    assert_int_equal(fill(&f, far, 1, rows, 1), MOE_ERR_BUSY);
    assert_false(outbox_next(&box, &f, &status));
    assert_int_equal(box.n_filling, 1);

    ops.reached = lost; /* then it comes back, and says why */
    assert_true(outbox_next(&box, &f, &status));
    assert_int_equal(status, MOE_ERR_INTERNAL);
    transport_frame_release(f.frame);
    assert_int_equal(transport_frames_out(box.frames), 0);
}

static compute_ticket waited;

static moe_status note_wait(compute_device *d, compute_ticket t)
{
    (void)d;
    waited = t;
    return MOE_OK;
}

static void fini_waits_for_the_device(void **state)
{
    const uint32_t rows[] = {1};
    outbox_frame f;

    (void)state;
    ops.wait = note_wait;
    device->ops = &ops;
    assert_int_equal(outbox_init(&box), MOE_OK);
    assert_int_equal(fill(&f, far, 1, rows, 1), MOE_ERR_BUSY);
    assert_int_equal(own_ops->wait(device, f.ticket), MOE_OK); /* before its memory goes */
    waited = 0;
    outbox_fini(&box);
    assert_true(waited == f.ticket && waited != 0);
    box = (outbox){.device = NULL};
}

static void rows_leave_from_the_device_where_the_peer_s_network_reads_it(void **state)
{
    const uint32_t rows[] = {2, 1};
    outbox_frame f;
    moe_status status;

    (void)state;
    ops.frame_out = frame_out;
    ops.alloc = pages;
    ops.free = pages_free;
    end.takes_device = true;
    device->ops = &ops;
    assert_int_equal(outbox_init(&box), MOE_OK);
    assert_int_equal(fill(&f, near, 1, rows, 2), MOE_OK);
    outbox_post(&f);
    assert_true(end.on_device);
    assert_sent(near, 1, rows, 2);

    assert_int_equal(fill(&f, far, 2, rows, 2), MOE_ERR_BUSY);
    assert_true(outbox_next(&box, &f, &status));
    outbox_post(&f);
    assert_false(end.on_device);
    assert_sent(far, 2, rows, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_come_back_filled_and_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_frame_is_the_outbox_s_until_the_device_is_done, setup, teardown),
        cmocka_unit_test_setup_teardown(fini_waits_for_the_device, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_leave_from_the_device_where_the_peer_s_network_reads_it, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
