#include "tests/support/support.h"

#include "proto/wire.h"

static wire_hello coordinator, node;
static wire_key key;
static unsigned char mac[32];

static wire_hello hello(wire_role role, const char *member, unsigned char nonce)
{
    wire_hello h = {.role = (uint16_t)role,
                    .cluster = "conclave",
                    .numeric_class = "f32-1",
                    .d_model = 16,
                    .max_message = 4096,
                    .max_rows = 4,
                    .max_picks = 8,
                    .n_nonce = 32};

    (void)snprintf(h.member, sizeof h.member, "%s", member);
    memset(h.nonce, nonce, sizeof h.nonce);
    return h;
}

static int setup(void **state)
{
    (void)state;
    coordinator = hello(WIRE_COORDINATOR, "c0", 1);
    node = hello(WIRE_NODE, "n0", 2);
    assert_int_equal(wire_key_init(&key, "secret", 6), MOE_OK);
    return wire_prove(&key, WIRE_NODE, &coordinator, &node, mac) == MOE_OK ? 0 : -1;
}

static bool proves(void)
{
    return wire_proves(&key, WIRE_NODE, &coordinator, &node, mac);
}

static void a_proof_proves(void **state)
{
    (void)state;
    assert_true(proves());
}

/* hmac.new(hmac.new(b"secret", b"conclave hello 1 key", "sha256").digest(), b"conclave hello 1 node" + both frames,
 * "sha256") of Python, the frames written by hand as docs/wire.md says. */
static void the_proof_is_that_of_the_document(void **state)
{
    static const unsigned char expected[32] = {0x7b, 0xa8, 0x95, 0x62, 0x17, 0x99, 0x44, 0x21, 0xa7, 0x19, 0xed,
                                               0xe9, 0x93, 0x59, 0xb1, 0xb6, 0xd9, 0xa3, 0xed, 0xe7, 0x93, 0xad,
                                               0x6a, 0x62, 0x4c, 0x8b, 0xda, 0x2c, 0x5b, 0x95, 0x8d, 0xc2};

    (void)state;
    assert_memory_equal(mac, expected, sizeof mac);
}

static void any_flipped_bit_fails(void **state)
{
    (void)state;
    for (size_t bit = 0; bit < 8 * sizeof mac; bit++) {
        mac[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_false(proves());
        mac[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}

static void the_role_is_part_of_the_proof(void **state)
{
    (void)state;
    assert_false(wire_proves(&key, WIRE_COORDINATOR, &coordinator, &node, mac));
}

static void another_secret_fails(void **state)
{
    (void)state;
    assert_int_equal(wire_key_init(&key, "secreT", 6), MOE_OK);
    assert_false(proves());
}

static void each_nonce_is_part_of_the_proof(void **state)
{
    (void)state;
    coordinator.nonce[31] ^= 1;
    assert_false(proves());
    coordinator.nonce[31] ^= 1;
    node.nonce[0] ^= 1;
    assert_false(proves());
}

static void what_hello_says_is_part_of_the_proof(void **state)
{
    (void)state;
    coordinator.incarnation++;
    assert_false(proves());
    coordinator.incarnation--;
    node.max_rows++;
    assert_false(proves());
}

static void the_macs_in_hello_are_not_part_of_the_proof(void **state)
{
    (void)state;
    node.n_mac = 32;
    assert_true(proves());
}

static void without_a_nonce_nothing_is_proved(void **state)
{
    (void)state;
    node.n_nonce = 0;
    assert_int_equal(wire_prove(&key, WIRE_NODE, &coordinator, &node, mac), MOE_OK);
    assert_false(proves());
}

static void nonces_differ(void **state)
{
    wire_hello other = node;

    (void)state;
    node.n_nonce = sizeof node.nonce;
    assert_int_equal(wire_random(node.nonce, sizeof node.nonce), MOE_OK);
    other.n_nonce = sizeof other.nonce;
    assert_int_equal(wire_random(other.nonce, sizeof other.nonce), MOE_OK);
    assert_memory_not_equal(node.nonce, other.nonce, sizeof node.nonce);
}

static void an_empty_secret_is_none_and_a_long_one_is_refused(void **state)
{
    static const unsigned char big[WIRE_MAX_SECRET + 1];

    (void)state;
    assert_int_equal(wire_key_init(&key, "", 0), MOE_OK);
    assert_false(key.present);
    assert_int_equal(wire_key_init(&key, big, sizeof big), MOE_ERR_INVALID_ARG);
    assert_false(key.present);
    assert_int_equal(wire_key_init(&key, big, WIRE_MAX_SECRET), MOE_OK);
    assert_true(key.present);
}

static void a_proof_frame_comes_back(void **state)
{
    unsigned char frame[64], got[32];
    moe_error err;
    moe_buf b;
    wire_type type;

    (void)state;
    moe_buf_init(&b, frame, sizeof frame);
    wire_put_proof(&b, mac);
    size_t n = wire_finish(&b);
    assert_int_equal(n, WIRE_HEADER_BYTES + 32);
    assert_ok(wire_open(frame, n, &type, &err), err);
    assert_int_equal(type, WIRE_PROOF);
    assert_ok(wire_get_proof(frame, n, got, &err), err);
    assert_memory_equal(got, mac, sizeof mac);
}

#define TEST(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_proof_proves),
        TEST(the_proof_is_that_of_the_document),
        TEST(any_flipped_bit_fails),
        TEST(the_role_is_part_of_the_proof),
        TEST(another_secret_fails),
        TEST(each_nonce_is_part_of_the_proof),
        TEST(what_hello_says_is_part_of_the_proof),
        TEST(the_macs_in_hello_are_not_part_of_the_proof),
        TEST(without_a_nonce_nothing_is_proved),
        TEST(nonces_differ),
        TEST(an_empty_secret_is_none_and_a_long_one_is_refused),
        TEST(a_proof_frame_comes_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
