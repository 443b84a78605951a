/* The host's part of the CUDA device on the fake GPU: what has to wait for what, what is measured, and what becomes of it when memory, a launch or
 * the GPU itself fails. */
#include "compute/cuda/device_priv.h"
#include "proto/wire.h"
#include "tests/unit/test_compute_devices.h"

/* Under AddressSanitizer a fibre costs ten times as much. */
#if defined(__SANITIZE_ADDRESS__)
#define N_SEEDS   10
#define FEW_SEEDS 2
#else
#define N_SEEDS   40
#define FEW_SEEDS 8
#endif

static compute_device *open_with(const fake_config *config, bool no_graphs)
{
    const compute_device_options o = {.no_graphs = no_graphs,
                                      .numeric_class = COMPUTE_CLASS_F32_1,
                                      .max_rows = 64,
                                      .max_ffn_rows = 64,
                                      .max_d_ff = 64,
                                      .max_context = 64,
                                      .max_routed_rows = 64};
    compute_device *d;
    moe_error err;

    fake_configure(config);
    assert_ok(conclave_compute_module()->open(0, &o, &d, &err), err);
    return d;
}

static compute_device *open_device(const fake_config *config)
{
    return open_with(config, false);
}

/* Seed 0: everything as late as may be. */
static fake_config some_order(uint64_t seed)
{
    return (fake_config){.order = FAKE_ASCENDING,
                         .copies = FAKE_AT_ONCE,
                         .streams = seed == 0 ? FAKE_LATE : FAKE_BY_SEED,
                         .seed = seed,
                         .n_devices = 1};
}

static void poll(compute_device *d, compute_ticket t)
{
    moe_status status;

    while ((status = d->ops->reached(d, t)) == MOE_ERR_BUSY) {
    }
    assert_int_equal(status, MOE_OK);
}

/* ------------------------------------------------------------------------------------------------ order */
enum { ROWS = 9, WIDTH = 33, ROUNDS = 13 }; /* more rounds than there are pieces */

static void assert_round(const float *got, size_t n, size_t round)
{
    for (size_t i = 0; i < n * WIDTH; i++) {
        if (got[i] != (float)(round + 1)) {
            fail_msg("value %zu of round %zu is %g", i, round, (double)got[i]);
        }
    }
}

/* x changes again and again while its rows are on their way; every frame has the x of its round when its ticket is reached. */
static void rows_on_their_way_are_those_of_their_round(void **state)
{
    const uint32_t some[] = {7, 0, 3};

    (void)state;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        fake_config config = some_order(seed);
        compute_device *d = open_device(&config);
        compute_mem *x = d->ops->alloc(d, ROWS * WIDTH * 4), *y = d->ops->alloc(d, ROWS * WIDTH * 4);
        float *frames[ROUNDS], ones[ROWS * WIDTH];
        compute_ticket tickets[ROUNDS];

        for (size_t i = 0; i < MOE_COUNT(ones); i++) {
            ones[i] = 1.0f;
        }
        d->ops->upload(d, y, ones, sizeof ones);
        for (size_t r = 0; r < ROUNDS; r++) {
            size_t n = r % 2 == 0 ? ROWS : MOE_COUNT(some);

            frames[r] = compute_host_alloc(d, sizeof ones);
            assert_non_null(frames[r]);
            d->ops->add(d, x, y, ROWS * WIDTH);
            tickets[r] = d->ops->gather_out(d, frames[r], x, r % 2 == 0 ? NULL : some, WIDTH * 4, n);
        }
        d->ops->clamp(d, x, 0.0f, ROWS * WIDTH);
        for (size_t r = 0; r < ROUNDS; r++) {
            poll(d, tickets[r]);
            assert_round(frames[r], r % 2 == 0 ? ROWS : MOE_COUNT(some), r);
            compute_host_free(d, frames[r], sizeof ones);
        }
        d->ops->free(d, x);
        d->ops->free(d, y);
        compute_close(d);
    }
}

static fake_counts counted(void)
{
    fake_counts c;

    fake_read_counts(&c);
    return c;
}

/* Of two micro-batches: the results of one arrive while the other is computed. They go up meanwhile, nobody waits, and each op sees what was there when
 * it was queued. */
static void rows_come_in_while_other_rows_are_computed(void **state)
{
    const uint32_t some[] = {7, 0, 3};
    uint64_t early = counted().early_uploads;

    (void)state;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        fake_config config = some_order(seed);
        compute_device *d = open_device(&config);
        compute_mem *mine = d->ops->alloc(d, ROWS * WIDTH * 4), *sum = d->ops->alloc(d, 3 * WIDTH * 4);
        compute_mem *others = d->ops->alloc(d, ROWS * WIDTH * 4);
        float came[3 * WIDTH];
        float *frame = compute_host_alloc(d, sizeof came);

        assert_int_equal(d->ops->sync(d), MOE_OK);
        uint64_t waits = counted().host_waits;
        for (size_t r = 0; r < ROUNDS; r++) {
            for (size_t i = 0; i < MOE_COUNT(came); i++) {
                came[i] = (float)(r + 1);
            }
            d->ops->add(d, others, others, ROWS * WIDTH);
            d->ops->scatter_in(d, mine, came, some, WIDTH * 4, 3);
            d->ops->gather(d, others, mine, some, WIDTH, 3);
            d->ops->add(d, sum, others, 3 * WIDTH);
        }
        compute_ticket t = d->ops->gather_out(d, frame, sum, NULL, WIDTH * 4, 3);
        assert_int_equal(counted().host_waits, waits);
        poll(d, t);
        assert_round(frame, 3, ROUNDS * (ROUNDS + 1) / 2 - 1);
        compute_host_free(d, frame, sizeof came);
        d->ops->free(d, mine);
        d->ops->free(d, sum);
        d->ops->free(d, others);
        compute_close(d);
    }
    assert_true(counted().early_uploads > early);
}

/* The ring grows for a row that is larger than a segment of it. */
static void a_row_larger_than_the_ring_comes_in_whole(void **state)
{
    enum { LONG = CUDA_SEGMENT_BYTES / 4 + 5 };
    const uint32_t last[] = {1};
    float *host = malloc(LONG * sizeof *host);

    (void)state;
    assert_non_null(host);
    for (size_t i = 0; i < LONG; i++) {
        host[i] = (float)(i % 1000 + 1);
    }
    for (uint64_t seed = 0; seed < FEW_SEEDS / 2; seed++) {
        fake_config config = some_order(seed);
        compute_device *d = open_device(&config);
        compute_mem *x = d->ops->alloc(d, 2 * LONG * sizeof *host);

        assert_non_null(x);
        d->ops->scatter_in(d, x, host, last, LONG * sizeof *host, 1);
        float *got = take(d, x, 2 * LONG * sizeof *host);
        for (size_t i = 0; i < LONG; i++) {
            if (got[LONG + i] != host[i]) {
                fail_msg("seed %llu: value %zu is %g", (unsigned long long)seed, i, (double)got[LONG + i]);
            }
        }
        free(got);
        compute_close(d);
    }
    free(host);
}

/* What a network would read, and when: at the ticket, without any other wait. */
static void assert_frame(compute_device *d, const compute_mem *frame, const unsigned char *want, size_t bytes)
{
#if defined(__SANITIZE_ADDRESS__) /* which guards the device's memory from the host */
    unsigned char *got = malloc(bytes);

    assert_non_null(got);
    assert_int_equal(d->ops->download(d, got, frame, bytes), MOE_OK);
    assert_memory_equal(got, want, bytes);
    free(got);
#else
    (void)d;
    assert_memory_equal(frame, want, bytes);
#endif
}

/* Frames in the GPU's memory have the bytes of frames in the host's, checksum and all, when their tickets are reached. */
static void frames_on_the_gpu_are_those_of_the_host(void **state)
{
    enum { MOST = 70, FRAMES = 4 };
    const size_t heads[] = {60, 72, 16, 1108}, row_bytes[] = {2 * WIDTH, 256, 4, 4096}, counts[] = {3, MOST, 0, 5};
    unsigned char *host = malloc(1108 + (size_t)MOST * 4096);
    float *values = any_values(3, (size_t)MOST * 1024, false);
    uint32_t rows[MOST];

    (void)state;
    assert_non_null(host);
    for (uint64_t seed = 0; seed < FEW_SEEDS; seed++) {
        fake_config config = some_order(seed);
        compute_device *d = open_device(&config);
        compute_mem *x = d->ops->alloc(d, (size_t)MOST * 4096), *frames[FRAMES];
        compute_ticket tickets[FRAMES];

        d->ops->upload(d, x, values, (size_t)MOST * 4096);
        for (int turn = 0; turn < 2; turn++) { /* filled, then looked at */
            for (size_t f = 0; f < FRAMES; f++) {
                size_t bytes = heads[f] + counts[f] * row_bytes[f];
                moe_buf b;

                for (size_t i = 0; i < heads[f]; i++) {
                    host[i] = (unsigned char)(i * 37 + f);
                }
                for (uint32_t i = 0; i < MOST; i++) {
                    rows[i] = (uint32_t)((i * 11 + f) % MOST);
                    memcpy(host + heads[f] + i * row_bytes[f], (const unsigned char *)values + rows[i] * row_bytes[f],
                           i < counts[f] ? row_bytes[f] : 0);
                }
                moe_buf_init(&b, host, bytes);
                b.used = bytes;
                if (turn == 0) {
                    (void)wire_finish_apart(&b);
                    frames[f] = d->ops->alloc(d, bytes);
                    assert_non_null(frames[f]);
                    tickets[f] =
                        d->ops->frame_out(d, frames[f], host, heads[f], WIRE_SUM_AT, x, rows, row_bytes[f], counts[f]);
                    memset(host, 0, heads[f]);
                } else {
                    (void)wire_finish(&b);
                    poll(d, tickets[f]);
                    assert_frame(d, frames[f], host, bytes);
                    d->ops->free(d, frames[f]);
                }
            }
            d->ops->clamp(d, x, 0.0f, (size_t)MOST * 1024);
        }
        d->ops->free(d, x);
        compute_close(d);
    }
    free(host);
    free(values);
}

/* More than the ring holds goes up before anything is waited for. */
static void what_goes_up_is_what_it_was(void **state)
{
    enum { N = 12, VALUES = 300000 };
    float *host = malloc(VALUES * sizeof *host);

    (void)state;
    assert_non_null(host);
    for (uint64_t seed = 0; seed < 3; seed++) {
        fake_config config = some_order(seed);
        compute_device *d = open_device(&config);
        compute_mem *x[N];

        for (size_t i = 0; i < N; i++) {
            x[i] = d->ops->alloc(d, VALUES * sizeof *host);
            assert_non_null(x[i]);
            for (size_t v = 0; v < VALUES; v++) {
                host[v] = (float)i;
            }
            d->ops->upload(d, x[i], host, VALUES * sizeof *host);
        }
        for (size_t i = 0; i < N; i++) {
            float *got = take(d, x[i], VALUES * sizeof *host);

            for (size_t v = 0; v < VALUES; v++) {
                if (got[v] != (float)i) {
                    fail_msg("value %zu of upload %zu is %g", v, i, (double)got[v]);
                }
            }
            free(got);
        }
        compute_close(d);
    }
    free(host);
}

/* ------------------------------------------------------------------------------------------------ stretches */
enum { HEADS = 2, DIM = 4, MOST_ROWS = 18, STEPS = 12, PARTS = 2 };

/* Steps whose rows and positions differ, each with two parts. What an op would do that is not the part's own: other threads get memory meanwhile. */
static void run_steps(compute_device *d, float out[STEPS][MOST_ROWS * HEADS * DIM])
{
    static const size_t rows[STEPS] = {2, 3, 2, 2, 17, 3, 2, 3, 17, 3, 16, 2};
    const float seven[] = {7.0f, 7.0f, 7.0f};
    float *values = any_values(5, (size_t)64 * DIM, false);
    const size_t bytes = (size_t)MOST_ROWS * HEADS * DIM * sizeof(float);
    compute_mem *table = d->ops->alloc(d, (size_t)64 * DIM * sizeof(float)), *x = d->ops->alloc(d, bytes), *others[64];
    compute_row places[MOST_ROWS];
    compute_step *step;
    size_t n_others = 0;
    bool is_seven[64] = {false};

    assert_int_equal(d->ops->step_open(d, MOST_ROWS, 16, &step), MOE_OK);
    d->ops->upload(d, table, values, (size_t)64 * DIM * sizeof(float));
    for (size_t s = 0; s < STEPS; s++) {
        for (size_t i = 0; i < rows[s]; i++) {
            places[i] = (compute_row){.position = (uint32_t)(i * 5 + s * 3) % 64};
        }
        d->ops->step_begin(d, step, places, rows[s]);
        d->ops->upload(d, x, values, bytes);
        for (uint32_t part = 0; part < PARTS; part++) {
            if (d->ops->stretch_begin(d, step, part)) {
                continue;
            }
            do {
                d->ops->rope(d, x, table, HEADS, DIM, step);
                others[n_others] = d->ops->alloc(d, sizeof seven);
                assert_non_null(others[n_others++]);
                if (part == 1) {
                    d->ops->add(d, x, x, rows[s] * HEADS * DIM);
                }
            } while (!d->ops->stretch_end(d));
            d->ops->upload(d, others[n_others - 1], seven, sizeof seven);
            is_seven[n_others - 1] = true;
        }
        assert_int_equal(d->ops->download(d, out[s], x, bytes), MOE_OK);
    }
    for (size_t i = 0; i < n_others; i++) { /* not zeroed by a later step */
        float got[3] = {0};

        assert_int_equal(d->ops->download(d, got, others[i], sizeof got), MOE_OK);
        assert_memory_equal(got, is_seven[i] ? seven : (float[3]){0}, sizeof got);
        d->ops->free(d, others[i]);
    }
    d->ops->step_close(d, step);
    d->ops->free(d, table);
    d->ops->free(d, x);
    free(values);
}

static void stretches_queued_as_one_are_their_ops(void **state)
{
    static float want[STEPS][MOST_ROWS * HEADS * DIM], got[STEPS][MOST_ROWS * HEADS * DIM];

    (void)state;
    for (uint64_t seed = 0; seed < FEW_SEEDS; seed++) {
        fake_config config = some_order(seed);
        compute_device *d = open_with(&config, true);
        uint64_t graphs = counted().graphs;

        run_steps(d, want);
        assert_int_equal(counted().graphs, graphs);
        compute_close(d);
        d = open_device(&config);
        run_steps(d, got);
        assert_memory_equal(got, want, sizeof want);
        /* Of 2 rows the second to fifth time, of 3 the second to fourth; not of 16, which came once, and of 17. */
        assert_int_equal(counted().graphs - graphs, PARTS * (4 + 3));
        assert_int_equal(counted().graphs_held, 0);
        compute_close(d);
    }
}

/* Whatever of it fails while it is recorded: the ops are queued by themselves. */
static void a_stretch_that_cannot_be_recorded_is_its_ops(void **state)
{
    static float want[STEPS][MOST_ROWS * HEADS * DIM], got[STEPS][MOST_ROWS * HEADS * DIM];
    fake_config config = some_order(1);
    compute_device *d = open_with(&config, true);

    (void)state;
    run_steps(d, want);
    compute_close(d);
    d = open_device(&config);
    fake_fail(FAKE_GRAPH, 1);
    uint64_t graphs = counted().graphs;
    run_steps(d, got);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(counted().graphs, graphs);
    fake_fail(FAKE_GRAPH, 0);
    compute_close(d);
}

/* ------------------------------------------------------------------------------------------------ times */
static compute_report report_of(compute_device *d)
{
    compute_report r;

    d->ops->report(d, &r);
    return r;
}

/* The fake's clock moves by what the device does alone: all of it is counted, once, as computing or as copying out, and nothing of what another device
 * did in between. */
static void what_the_device_did_is_counted_once(void **state)
{
    const fake_config config = {
        .order = FAKE_ASCENDING, .copies = FAKE_AT_ONCE, .streams = FAKE_AT_ONCE, .seed = 1, .n_devices = 1};
    compute_device *d = open_device(&config), *other = open_device(&config);
    compute_mem *x = d->ops->alloc(d, ROWS * WIDTH * 4), *y = other->ops->alloc(other, ROWS * WIDTH * 4);
    float *frame = compute_host_alloc(d, ROWS * WIDTH * 4);
    uint64_t ran = 0, copied = 0;

    (void)state;
    assert_int_equal(d->ops->sync(d), MOE_OK);
    const compute_report before = report_of(d);
    for (size_t r = 0; r < 2 * CUDA_TICKETS; r++) { /* the marks are used again */
        uint64_t began = fake_clock_ns();
        d->ops->add(d, x, x, ROWS * WIDTH);
        d->ops->clamp(d, x, 1.0f, ROWS * WIDTH);
        compute_ticket t = d->ops->gather_out(d, frame, x, NULL, WIDTH * 4, ROWS);

        ran += fake_clock_ns() - began;
        copied += FAKE_COPY_NS + ROWS * WIDTH * 4;
        other->ops->add(other, y, y, ROWS * WIDTH);
        if (r % 100 == 99) {
            assert_int_equal(d->ops->wait(d, t), MOE_OK);
            assert_int_equal(report_of(d).copy_ns - before.copy_ns, copied);
            assert_int_equal(report_of(d).kernel_ns - before.kernel_ns, ran - copied);
        }
    }
    compute_host_free(d, frame, ROWS * WIDTH * 4);
    d->ops->free(d, x);
    other->ops->free(other, y);
    compute_close(other);
    compute_close(d);
}

/* Nobody waits in order to measure: what is not done yet counts later. */
static void measuring_waits_for_nothing(void **state)
{
    fake_config config = some_order(0);
    compute_device *d = open_device(&config);
    compute_mem *x = d->ops->alloc(d, ROWS * WIDTH * 4);
    float *frame = compute_host_alloc(d, ROWS * WIDTH * 4);
    fake_counts before, after;

    (void)state;
    assert_int_equal(d->ops->sync(d), MOE_OK);
    const compute_report start = report_of(d);
    fake_read_counts(&before);
    d->ops->add(d, x, x, ROWS * WIDTH);
    compute_ticket t = d->ops->gather_out(d, frame, x, NULL, WIDTH * 4, ROWS);
    assert_int_equal(report_of(d).kernel_ns, start.kernel_ns);
    poll(d, t);
    fake_read_counts(&after);
    assert_int_equal(after.host_waits, before.host_waits);
    assert_true(report_of(d).kernel_ns > start.kernel_ns && report_of(d).copy_ns > start.copy_ns);
    compute_host_free(d, frame, ROWS * WIDTH * 4);
    d->ops->free(d, x);
    compute_close(d);
}

/* ------------------------------------------------------------------------------------------------ failures */
static moe_status try_open(compute_device **out, moe_error *err)
{
    const compute_device_options o = {
        .numeric_class = COMPUTE_CLASS_F32_1, .max_rows = 4, .max_ffn_rows = 4, .max_d_ff = 64, .max_context = 64};

    return conclave_compute_module()->open(0, &o, out, err);
}

/* Whichever allocation fails, nothing is left of it. */
static void a_device_that_lacks_memory_is_refused_with_the_bytes(void **state)
{
    fake_config config = some_order(1);
    moe_status status = MOE_ERR_NO_MEMORY;

    (void)state;
    fake_configure(&config);
    for (uint64_t nth = 1; status != MOE_OK; nth++) {
        fake_counts before = counted();
        compute_device *d = NULL;
        moe_error err = {""};

        fake_fail(FAKE_ALLOCATION, nth);
        status = try_open(&d, &err);
        fake_fail(FAKE_ALLOCATION, 0);
        if (status != MOE_OK) {
            assert_int_equal(status, MOE_ERR_NO_MEMORY);
            assert_contains(err.text, "bytes wanted, ");
            assert_contains(err.text, " free");
        }
        compute_close(d);
        assert_int_equal(counted().device_bytes, before.device_bytes);
        assert_int_equal(counted().pinned_bytes, before.pinned_bytes);
        assert_true(nth < 20);
    }
    compute_device *d = NULL;
    moe_error err = {""};
    config.memory_bytes = counted().device_bytes + 12345;
    fake_configure(&config);
    assert_int_equal(try_open(&d, &err), MOE_ERR_NO_MEMORY);
    assert_contains(err.text, " bytes wanted, 12345 free");
}

/* Too little memory for an expert is an answer: the device goes on. */
static void an_expert_that_finds_no_memory_leaves_nothing_behind(void **state)
{
    fake_config config = some_order(1);
    compute_device *d = open_device(&config);
    float *w = any_values(1, 64 * 40, false);
    const compute_weight up = {w, COMPUTE_F32, 40, 64, false}, down = {w, COMPUTE_F32, 64, 40, false};
    moe_status status = MOE_ERR_NO_MEMORY;

    (void)state;
    for (uint64_t nth = 1; status != MOE_OK; nth++) {
        size_t before = counted().device_bytes;
        compute_expert *e = NULL;

        fake_fail(FAKE_ALLOCATION, nth);
        status = d->ops->expert_open(d, COMPUTE_FFN_SWIGLU, &up, &up, &down, COMPUTE_PACKED, &e);
        fake_fail(FAKE_ALLOCATION, 0);
        assert_true(status == MOE_OK || status == MOE_ERR_NO_MEMORY);
        assert_int_equal(d->ops->sync(d), MOE_OK);
        d->ops->expert_close(d, e);
        assert_int_equal(counted().device_bytes, before);
        assert_true(nth < 20);
    }
    free(w);
    compute_close(d);
}

/* A GPU that fails anywhere between an upload and the rows' way out: the ticket says so, or the rows are right. */
static void rows_of_a_gpu_that_failed_are_not_there(void **state)
{
    const fake_failure kinds[] = {FAKE_LAUNCH, FAKE_WORK};
    const uint32_t some[] = {2, 0};

    (void)state;
    for (size_t k = 0; k < MOE_COUNT(kinds); k++) {
        bool failed = true;

        for (uint64_t nth = 1; failed; nth++) {
            fake_config config = some_order(nth % 4);
            compute_device *d = open_device(&config);
            compute_mem *x = d->ops->alloc(d, ROWS * WIDTH * 4), *y = d->ops->alloc(d, ROWS * WIDTH * 4);
            float *frame = compute_host_alloc(d, ROWS * WIDTH * 4), ones[ROWS * WIDTH];

            for (size_t i = 0; i < MOE_COUNT(ones); i++) {
                ones[i] = 1.0f;
            }
            assert_int_equal(d->ops->sync(d), MOE_OK);
            fake_fail(kinds[k], nth);
            d->ops->upload(d, y, ones, sizeof ones);
            d->ops->add(d, x, y, ROWS * WIDTH);
            compute_ticket t = d->ops->gather_out(d, frame, x, some, WIDTH * 4, MOE_COUNT(some));
            moe_status status = MOE_ERR_BUSY;

            while (status == MOE_ERR_BUSY) {
                status = d->ops->reached(d, t);
            }
            failed = status != MOE_OK;
            if (!failed) {
                assert_round(frame, MOE_COUNT(some), 0);
            }
            assert_int_equal(d->ops->wait(d, t), status);
            fake_fail(kinds[k], 0); /* but the device has failed for good */
            assert_int_equal(d->ops->download(d, ones, x, sizeof ones) == MOE_OK, !failed);
            compute_host_free(d, frame, ROWS * WIDTH * 4);
            d->ops->free(d, x);
            d->ops->free(d, y);
            compute_close(d);
            assert_true(nth < 20 && (failed || nth > 1));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_device_that_lacks_memory_is_refused_with_the_bytes),
                                       cmocka_unit_test(an_expert_that_finds_no_memory_leaves_nothing_behind),
                                       cmocka_unit_test(rows_of_a_gpu_that_failed_are_not_there),

                                       cmocka_unit_test(what_the_device_did_is_counted_once),
                                       cmocka_unit_test(measuring_waits_for_nothing),
                                       cmocka_unit_test(rows_on_their_way_are_those_of_their_round),
                                       cmocka_unit_test(rows_come_in_while_other_rows_are_computed),
                                       cmocka_unit_test(a_row_larger_than_the_ring_comes_in_whole),
                                       cmocka_unit_test(frames_on_the_gpu_are_those_of_the_host),
                                       cmocka_unit_test(stretches_queued_as_one_are_their_ops),
                                       cmocka_unit_test(a_stretch_that_cannot_be_recorded_is_its_ops),
                                       cmocka_unit_test(what_goes_up_is_what_it_was)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
