#include "tests/support/support.h"

#include "proto/wire.h"

static unsigned char frame[4096];

static size_t small_dispatch(void)
{
    const wire_dispatch d = {.request = {1, UINT64_MAX, 3, 1, 9},
                             .epoch = 12,
                             .d_model = 3,
                             .dtype = WIRE_F32,
                             .n_rows = 2,
                             .n_groups = 2,
                             .n_picks = 3};
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_dispatch_begin(&b, &d);
    wire_put_group(&b, (wire_group){7, 2});
    wire_put_group(&b, (wire_group){40, 1});
    moe_put_u32(&b, 0);
    moe_put_u32(&b, 1);
    moe_put_u32(&b, 1);
    void *rows = wire_put_rows(&b, 2, 3, WIRE_F32);
    assert_non_null(rows);
    memset(rows, 0x5a, 24);
    return wire_finish(&b);
}

static size_t small_hello(const wire_hello *h)
{
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_put_hello(&b, h);
    return wire_finish(&b);
}

static wire_hello a_hello(void)
{
    wire_hello h = {.role = WIRE_NODE,
                    .member = "node-1",
                    .incarnation = 0x0123456789abcdefu,
                    .cluster = "conclave",
                    .numeric_class = "f32-1",
                    .d_model = 16,
                    .max_message = 1 << 20,
                    .max_rows = 64,
                    .max_picks = 512,
                    .n_nonce = 32};

    for (int i = 0; i < 32; i++) {
        h.fingerprint[i] = (unsigned char)i;
        h.nonce[i] = (unsigned char)(i * 7);
    }
    return h;
}

static void crc_is_the_castagnoli_one(void **state)
{
    (void)state;
    assert_int_equal(wire_crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(wire_crc32c_portable(0, "123456789", 9), 0xE3069283u);
}

static void crc_of_the_instruction_equals_the_table(void **state)
{
    unsigned char bytes[300];
    moe_random r;

    (void)state;
    moe_random_seed(&r, 3);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)moe_random_u64(&r);
    }
    for (size_t from = 0; from < 9; from++) {
        for (size_t n = 0; n <= 290 - from; n++) {
            assert_int_equal(wire_crc32c(17, bytes + from, n), wire_crc32c_portable(17, bytes + from, n));
        }
    }
}

static void crc_continues_where_it_stopped(void **state)
{
    (void)state;
    assert_int_equal(wire_crc32c(wire_crc32c(0, "1234", 4), "56789", 5), wire_crc32c(0, "123456789", 9));
}

static void dispatch_comes_back_as_it_was_put(void **state)
{
    size_t n = small_dispatch();
    wire_type type;
    wire_dispatch d;
    moe_error err;

    (void)state;
    assert_int_equal(n, wire_dispatch_bytes(2, 2, 3, 3, WIRE_F32));
    assert_ok(wire_open(frame, n, &type, &err), err);
    assert_int_equal(type, WIRE_DISPATCH);
    assert_ok(wire_get_dispatch(frame, n, &d, &err), err);
    assert_true(wire_request_equal(&d.request, &(wire_request){1, UINT64_MAX, 3, 1, 9}));
    assert_int_equal(d.epoch, 12);
    assert_int_equal(wire_group_at(d.groups, 1).expert_id, 40);
    assert_int_equal(wire_u32_at(d.pick_rows, 2), 1);
    assert_ptr_equal(d.rows + 24, frame + n);
}

static void result_comes_back_as_it_was_put(void **state)
{
    const wire_result put = {
        .request = {5, 6, 7, 0, 8}, .d_model = 4, .dtype = WIRE_BF16, .n_picks = 3, .queued_rows = 11};
    wire_result r;
    wire_type type;
    moe_error err;
    moe_buf b;

    (void)state;
    moe_buf_init(&b, frame, sizeof frame);
    wire_result_begin(&b, &put);
    memset(wire_put_rows(&b, 3, 4, WIRE_BF16), 1, 24);
    size_t n = wire_finish(&b);
    assert_int_equal(n, wire_result_bytes(3, 4, WIRE_BF16));
    assert_ok(wire_open(frame, n, &type, &err), err);
    assert_ok(wire_get_result(frame, n, &r, &err), err);
    assert_true(wire_request_equal(&r.request, &put.request));
    assert_int_equal(r.n_picks, 3);
    assert_int_equal(r.queued_rows, 11);
}

static void hello_comes_back_as_it_was_put(void **state)
{
    wire_hello put = a_hello();
    wire_hello got;
    wire_type type;
    moe_error err;

    (void)state;
    size_t n = small_hello(&put);
    assert_ok(wire_open(frame, n, &type, &err), err);
    assert_ok(wire_get_hello(frame, n, &got, &err), err);
    assert_string_equal(got.member, put.member);
    assert_string_equal(got.cluster, put.cluster);
    assert_string_equal(got.numeric_class, put.numeric_class);
    assert_int_equal(got.incarnation, put.incarnation);
    assert_int_equal(got.max_message, put.max_message);
    assert_int_equal(got.n_mac, 0);
    assert_memory_equal(got.nonce, put.nonce, 32);
    assert_memory_equal(got.fingerprint, put.fingerprint, 32);
}

static void the_largest_hello_is_a_small_frame(void **state)
{
    wire_hello h = a_hello();

    (void)state;
    memset(h.member, 'm', WIRE_MAX_NAME);
    memset(h.cluster, 'c', WIRE_MAX_NAME);
    memset(h.numeric_class, 'n', WIRE_MAX_NAME);
    h.n_mac = 32;
    assert_in_range(small_hello(&h), 1, WIRE_SMALL_BYTES);
}

static void any_flipped_bit_is_noticed(void **state)
{
    size_t n = small_dispatch();
    wire_type type;

    (void)state;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_int_equal(wire_open(frame, n, &type, NULL), MOE_ERR_CORRUPT);
        frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

static void any_cut_is_noticed(void **state)
{
    size_t n = small_dispatch();
    wire_type type;

    (void)state;
    for (size_t left = 0; left < n; left++) {
        assert_int_equal(wire_open(frame, left, &type, NULL), MOE_ERR_CORRUPT);
    }
}

static size_t put_holds(const wire_holds *h)
{
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_put_holds(&b, h);
    return wire_finish(&b);
}

static void holds_comes_back_as_it_was_put(void **state)
{
    wire_holds put = {.after = 3, .upto = 5, .latest = UINT64_MAX, .n_blocks = WIRE_MAX_BLOCKS}, got;
    moe_error err;

    (void)state;
    for (uint32_t i = 0; i < WIRE_MAX_BLOCKS; i++) {
        put.blocks[i] = (wire_block){i, i == 7 ? WIRE_MAX_FIRST : 64 * i, UINT64_MAX - i};
    }
    size_t n = put_holds(&put);
    assert_in_range(n, 1, WIRE_SMALL_BYTES);
    assert_ok(wire_get_holds(frame, n, &got, &err), err);
    assert_memory_equal(&got, &put, sizeof got);
}

static void holds_that_breaks_a_rule_is_refused(void **state)
{
    const struct {
        wire_holds h;
        const char *why;
    } cases[] = {
        {{.after = 5, .upto = 5, .latest = 7}, "revisions 5 to 5 of 7"},
        {{.after = 5, .upto = 8, .latest = 7}, "revisions 5 to 8 of 7"},
        {{.upto = 1, .latest = 1, .n_blocks = 1, .blocks = {{0, 32, 1}}}, "begins at expert 32"},
        {{.upto = 1, .latest = 1, .n_blocks = 1, .blocks = {{0, WIRE_MAX_FIRST + 64u, 1}}}, "begins at expert"}};
    wire_holds got;
    moe_error err = {""};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        assert_int_equal(wire_get_holds(frame, put_holds(&cases[i].h), &got, &err), MOE_ERR_CORRUPT);
        assert_contains(err.text, cases[i].why);
    }
}

static void another_version_is_not_damage(void **state)
{
    moe_buf b;
    wire_type type;
    moe_error err = {""};

    (void)state;
    moe_buf_init(&b, frame, sizeof frame);
    wire_put_ping(&b, &(wire_ping){.token = 1});
    frame[4] = WIRE_VERSION + 1;
    size_t n = wire_finish(&b);
    assert_int_equal(wire_open(frame, n, &type, &err), MOE_ERR_UNSUPPORTED);
    assert_contains(err.text, "version 5");
}

static void a_frame_that_does_not_fit_is_none(void **state)
{
    wire_hello h = a_hello();
    moe_buf b;

    (void)state;
    for (size_t room = 0; room < 100; room++) {
        moe_buf_init(&b, frame, room);
        wire_put_hello(&b, &h);
        assert_int_equal(wire_finish(&b), 0);
    }
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    assert_int_equal(wire_dispatch_bytes(SIZE_MAX / 2, 1, 1, 4, WIRE_F32), SIZE_MAX);
    assert_int_equal(wire_dispatch_bytes(1, SIZE_MAX / 4, 1, 4, WIRE_F32), SIZE_MAX);
    assert_int_equal(wire_dispatch_bytes(1, 1, SIZE_MAX / 4, 4, WIRE_F32), SIZE_MAX);
    assert_int_equal(wire_result_bytes(1, SIZE_MAX / 2, WIRE_F32), SIZE_MAX);
    assert_int_equal(wire_result_bytes(1, 1, 77), SIZE_MAX);
}

static void denies(wire_hello theirs, const char *why)
{
    wire_hello mine = a_hello();
    moe_error err = {""};

    mine.role = WIRE_COORDINATOR;
    assert_int_equal(wire_hello_check(&mine, &theirs, &err), MOE_ERR_DENIED);
    assert_contains(err.text, why);
}

static void members_that_do_not_belong_together_are_denied(void **state)
{
    wire_hello cluster = a_hello(), numeric = a_hello(), model = a_hello(), width = a_hello(), role = a_hello();

    (void)state;
    cluster.cluster[0] = 'X';
    numeric.numeric_class[0] = 'X';
    model.fingerprint[31] ^= 1;
    width.d_model++;
    role.role = WIRE_COORDINATOR;
    denies(cluster, "cluster Xonclave");
    denies(numeric, "computes in class X32-1");
    denies(model, "another model");
    denies(width, "another model");
    denies(role, "is a coordinator, this member a coordinator");
    role.role = WIRE_READER;
    denies(role, "is a reader, this member a coordinator");
}

static void members_that_belong_together_are_accepted(void **state)
{
    wire_hello mine = a_hello(), theirs = a_hello();
    moe_error err;

    (void)state;
    mine.role = WIRE_COORDINATOR;
    assert_ok(wire_hello_check(&mine, &theirs, &err), err);
    mine.role = WIRE_READER;
    assert_ok(wire_hello_check(&mine, &theirs, &err), err);
}

static size_t put_fetch(uint32_t length)
{
    const wire_fetch f = {.pack = {1, 2, 3}, .part = 9, .offset = UINT64_MAX, .length = length};
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_put_fetch(&b, &f);
    return wire_finish(&b);
}

static void fetch_comes_back_as_it_was_put(void **state)
{
    wire_fetch got;
    moe_error err = {""};
    size_t n = put_fetch(WIRE_MAX_PIECE);

    (void)state;
    assert_in_range(n, 1, WIRE_SMALL_BYTES);
    assert_ok(wire_get_fetch(frame, n, &got, &err), err);
    assert_int_equal(got.pack[2], 3);
    assert_int_equal(got.part, 9);
    assert_int_equal(got.offset, UINT64_MAX);
    assert_int_equal(got.length, WIRE_MAX_PIECE);
    assert_int_equal(wire_get_fetch(frame, put_fetch(0), &got, &err), MOE_ERR_CORRUPT);
    assert_int_equal(wire_get_fetch(frame, put_fetch(WIRE_MAX_PIECE + 1), &got, &err), MOE_ERR_CORRUPT);
    assert_contains(err.text, "limits 1 and 65536");
}

static size_t put_piece(const wire_piece *p)
{
    moe_buf b;

    moe_buf_init(&b, frame, sizeof frame);
    wire_put_piece(&b, p);
    return wire_finish(&b);
}

static void piece_comes_back_as_it_was_put(void **state)
{
    static const unsigned char bytes[5] = "12345";
    const wire_piece put = {.pack = {1}, .part = 2, .offset = 7, .size = 12, .n = 5, .bytes = bytes};
    wire_piece got;
    moe_error err = {""};
    size_t n = put_piece(&put);

    (void)state;
    assert_int_equal(n, WIRE_PIECE_BYTES + 5);
    assert_ok(wire_get_piece(frame, n, &got, &err), err);
    assert_int_equal(got.size, 12);
    assert_memory_equal(got.bytes, bytes, 5);
}

static void piece_that_breaks_a_rule_is_refused(void **state)
{
    static unsigned char bytes[2048];
    const wire_piece cases[] = {{.offset = 8, .size = 12, .n = 5, .bytes = bytes},
                                {.offset = 7, .size = 12, .n = 0, .bytes = bytes},
                                {.offset = 12, .size = 12, .n = 1, .bytes = bytes},
                                {.offset = 0, .size = 0, .n = 1, .bytes = bytes}};
    const wire_piece none = {.offset = 12, .size = 12};
    wire_piece got;
    moe_error err = {""};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        assert_int_equal(wire_get_piece(frame, put_piece(&cases[i]), &got, &err), MOE_ERR_CORRUPT);
        assert_contains(err.text, "PIECE: ");
    }
    assert_ok(wire_get_piece(frame, put_piece(&none), &got, &err), err);
    size_t n = put_piece(&none);
    assert_int_equal(wire_get_piece(frame, n - 1, &got, &err), MOE_ERR_CORRUPT);
    frame[WIRE_PIECE_BYTES - 1] = 0xff; /* bytes that are not there */
    assert_int_equal(wire_get_piece(frame, n, &got, &err), MOE_ERR_CORRUPT);
}

static void every_type_has_a_name_and_other_numbers_do_not(void **state)
{
    (void)state;
    for (int type = WIRE_HELLO; type <= WIRE_LAST; type++) {
        assert_string_not_equal(wire_type_name((wire_type)type), "unknown");
    }
    assert_string_equal(wire_type_name(WIRE_REFUSE), "REFUSE");
    assert_string_equal(wire_type_name((wire_type)0), "unknown");
    assert_string_equal(wire_type_name((wire_type)(WIRE_LAST + 1)), "unknown");
}

static void a_long_reason_is_cut(void **state)
{
    wire_refuse put = {.reason = WIRE_REFUSE_BUSY}, got;
    moe_error err;
    moe_buf b;

    (void)state;
    memset(put.text, 'x', WIRE_MAX_TEXT);
    moe_buf_init(&b, frame, WIRE_SMALL_BYTES);
    wire_put_refuse(&b, &put);
    size_t n = wire_finish(&b);
    assert_ok(wire_get_refuse(frame, n, &got, &err), err);
    assert_int_equal(strlen(got.text), WIRE_MAX_TEXT);
    assert_int_equal(got.reason, WIRE_REFUSE_BUSY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_is_the_castagnoli_one),
        cmocka_unit_test(crc_of_the_instruction_equals_the_table),
        cmocka_unit_test(crc_continues_where_it_stopped),
        cmocka_unit_test(dispatch_comes_back_as_it_was_put),
        cmocka_unit_test(result_comes_back_as_it_was_put),
        cmocka_unit_test(hello_comes_back_as_it_was_put),
        cmocka_unit_test(the_largest_hello_is_a_small_frame),
        cmocka_unit_test(any_flipped_bit_is_noticed),
        cmocka_unit_test(any_cut_is_noticed),
        cmocka_unit_test(holds_comes_back_as_it_was_put),
        cmocka_unit_test(holds_that_breaks_a_rule_is_refused),
        cmocka_unit_test(another_version_is_not_damage),
        cmocka_unit_test(a_frame_that_does_not_fit_is_none),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(members_that_do_not_belong_together_are_denied),
        cmocka_unit_test(members_that_belong_together_are_accepted),
        cmocka_unit_test(fetch_comes_back_as_it_was_put),
        cmocka_unit_test(piece_comes_back_as_it_was_put),
        cmocka_unit_test(piece_that_breaks_a_rule_is_refused),
        cmocka_unit_test(every_type_has_a_name_and_other_numbers_do_not),
        cmocka_unit_test(a_long_reason_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
