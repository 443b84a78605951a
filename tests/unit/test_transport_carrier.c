/* What carries the frames of two ends, by what each offers; and which addresses are of a network. */
#include "tests/support/support.h"
#include "transport/carrier_priv.h"

#define TLS     TRANSPORT_LANE_TLS
#define AUTO    TRANSPORT_LANE_AUTO
#define SHM     TRANSPORT_LANE_SHM
#define UCX_TCP TRANSPORT_LANE_UCX_TCP
#define RDMA    TRANSPORT_LANE_RDMA

typedef struct end {
    transport_lane lane;
    bool has_rdma;
    const char *network; /* --rdma-network; NULL: not given */
    const char *at;      /* its address */
} end;

static transport_network network_of(const char *text)
{
    transport_network net = {.is_given = false};
    moe_error err;

    if (text != NULL) {
        assert_ok(transport_network_parse("--rdma-network", text, &net, &err), err);
    }
    return net;
}

static unsigned offer_to(const end *from, const end *other)
{
    transport_network net = network_of(from->network);
    moe_ip ip;

    return carrier_offer(from->lane, from->has_rdma || from->lane == UCX_TCP, &net,
                         moe_ip_parse(other->at, &ip) ? &ip : NULL);
}

/* As tls_agree does it: the caller asks for what it offers, one after the other, and the other end has it or not. */
static carrier between(const end *caller, const end *called, bool same_host)
{
    unsigned mine = offer_to(caller, called), theirs = offer_to(called, caller);

    for (carrier c = carrier_next(mine, CARRIER_NONE); c != CARRIER_NONE; c = carrier_next(mine, c)) {
        if ((theirs & MOE_BIT(c)) != 0 && (c != CARRIER_SHM || same_host)) {
            return c;
        }
    }
    return CARRIER_NONE;
}

static void the_best_that_both_offer_is_used(void **state)
{
    static const char in[] = "10.0.0.1", in_too[] = "10.0.255.2", out[] = "192.168.0.1", six[] = "fd00::7";
    static const struct {
        const char *what;
        end a, b;
        bool same_host;
        carrier used;
    } all[] = {
        {"one host", {AUTO, false, NULL, in}, {AUTO, false, NULL, in}, true, CARRIER_SHM},
        {"one host with RDMA", {AUTO, true, "all", in}, {AUTO, true, "all", in}, true, CARRIER_SHM},
        {"two hosts", {AUTO, false, NULL, in}, {AUTO, false, NULL, in_too}, false, CARRIER_TLS},
        {"RDMA and no word of the network", {AUTO, true, NULL, in}, {AUTO, true, NULL, in_too}, false, CARRIER_TLS},
        {"all networks", {AUTO, true, "all", in}, {AUTO, true, "all", out}, false, CARRIER_RDMA},
        {"in the network", {AUTO, true, "10.0.0.0/16", in}, {AUTO, true, "10.0.0.0/16", in_too}, false, CARRIER_RDMA},
        {"one has no RDMA", {AUTO, true, "all", in}, {AUTO, false, "all", in_too}, false, CARRIER_TLS},
        {"the other has none", {AUTO, false, "all", in}, {AUTO, true, "all", in_too}, false, CARRIER_TLS},
        {"only one end says so", {AUTO, true, "all", in}, {AUTO, true, NULL, in_too}, false, CARRIER_TLS},
        {"only the other end", {AUTO, true, NULL, in}, {AUTO, true, "all", in_too}, false, CARRIER_TLS},
        {"one is outside", {AUTO, true, "10.0.0.0/16", in}, {AUTO, true, "10.0.0.0/16", out}, false, CARRIER_TLS},
        {"another family", {AUTO, true, "10.0.0.0/16", in}, {AUTO, true, "fd00::/8", six}, false, CARRIER_TLS},
        {"an end without an address", {AUTO, true, "all", in}, {AUTO, true, "all", "somebody"}, false, CARRIER_TLS},
        {"rdma needs no word", {RDMA, true, NULL, in}, {RDMA, true, NULL, out}, false, CARRIER_RDMA},
        {"rdma within its network", {RDMA, true, "10.0.0.0/16", in}, {RDMA, true, NULL, in_too}, false, CARRIER_RDMA},
        {"rdma outside of it", {RDMA, true, "10.0.0.0/16", in}, {RDMA, true, NULL, out}, false, CARRIER_NONE},
        {"rdma with auto", {RDMA, true, NULL, in}, {AUTO, true, "all", in_too}, false, CARRIER_RDMA},
        {"rdma with auto that may not", {RDMA, true, NULL, in}, {AUTO, true, NULL, in_too}, false, CARRIER_NONE},
        {"rdma on one host", {RDMA, true, NULL, in}, {RDMA, true, NULL, in}, true, CARRIER_RDMA},
        {"rdma never falls back", {RDMA, true, NULL, in}, {TLS, false, NULL, in_too}, false, CARRIER_NONE},
        {"shm on one host", {SHM, false, NULL, in}, {AUTO, false, NULL, in}, true, CARRIER_SHM},
        {"shm on two", {SHM, false, NULL, in}, {AUTO, false, NULL, in_too}, false, CARRIER_NONE},
        {"tls on one host", {TLS, false, NULL, in}, {AUTO, true, "all", in}, true, CARRIER_TLS},
        {"ucx-tcp", {UCX_TCP, false, NULL, in}, {UCX_TCP, false, NULL, in_too}, false, CARRIER_UCX_TCP},
        {"ucx-tcp with auto", {UCX_TCP, false, NULL, in}, {AUTO, true, "all", in_too}, false, CARRIER_NONE},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        carrier there = between(&all[i].a, &all[i].b, all[i].same_host);
        carrier back = between(&all[i].b, &all[i].a, all[i].same_host);

        if (there != all[i].used || back != all[i].used) {
            fail_msg("%s: %s and %s in place of %s", all[i].what, carrier_names[there], carrier_names[back],
                     carrier_names[all[i].used]);
        }
    }
}

static void networks_have_their_addresses(void **state)
{
    static const struct {
        const char *network, *ip;
        bool has;
    } all[] = {
        {"all", "8.8.8.8", true},
        {"all", "2001:db8::1", true},
        {"10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8", "11.0.0.0", false},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true}, /* an IPv4 caller of a socket that listens for IPv6 */
        {"10.0.0.0/8", "::ffff:11.1.2.3", false},
        {"10.16.0.0/12", "10.31.255.255", true},
        {"10.16.0.0/12", "10.32.0.0", false},
        {"10.1.2.3/32", "10.1.2.3", true},
        {"10.1.2.3/32", "10.1.2.2", false},
        {"0.0.0.0/0", "200.1.1.1", true},
        {"0.0.0.0/0", "::1", false},
        {"fd00::/8", "fdff::1", true},
        {"fd00::/8", "fe00::1", false},
        {"fe80::/10", "fe80::1%lo", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"::/0", "10.0.0.1", false},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        transport_network net = network_of(all[i].network);
        moe_ip ip;

        assert_true(moe_ip_parse(all[i].ip, &ip));
        if (transport_network_has(&net, &ip) != all[i].has) {
            fail_msg("%s and %s", all[i].network, all[i].ip);
        }
    }
}

static void what_is_no_network_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "ALL",
                                      "10.0.0.0",
                                      "10.0.0.0/",
                                      "/8",
                                      "10.0.0.0/33",
                                      "10.0.0.0/-1",
                                      "10.0.0.0/8 ",
                                      "10.0.0.0/8x",
                                      "10.0.0.1/8",
                                      "10.0.0.0/00008",
                                      "host/8",
                                      "fd00::/129",
                                      "fd00::1/64",
                                      "fe80::%lo/10",
                                      "10.0.0.0/8,11.0.0.0/8",
                                      "10.0.0.0/99999999999"};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        transport_network net = {.n_bits = 99};
        moe_error err = {""};

        assert_int_equal(transport_network_parse("--rdma-network", bad[i], &net, &err), MOE_ERR_INVALID_ARG);
        assert_contains(err.text, "--rdma-network \"");
        assert_contains(err.text, bad[i]);
        assert_int_equal(net.n_bits, 99);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_that_both_offer_is_used),
        cmocka_unit_test(networks_have_their_addresses),
        cmocka_unit_test(what_is_no_network_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
