/* Endpoints on a network and their frames, on every lane. */
#include "tests/unit/test_transport_net_support.h"

static void the_port_found_and_the_lane_are_reported(void **state)
{
    (void)state;
    assert_memory_equal(transport_net_address(server.t), "127.0.0.1:", 10);
    assert_true(atoi(transport_net_address(server.t) + 10) > 0);
    assert_string_equal(transport_net_address(client.t), "");
    assert_string_equal(transport_net_lane(server.t),
                        lane == TRANSPORT_LANE_UCX_TCP ? "tcp" : transport_lane_names[lane]);
    assert_string_equal(server.t->ops->name, transport_lane_names[lane]);
}

static void what_carries_a_connection_is_told_at_both_ends(void **state)
{
    const char *carrier = lane == TRANSPORT_LANE_TLS ? "tls" : lane == TRANSPORT_LANE_UCX_TCP ? "tcp" : "shm";
    transport_peer peer = connect_both();

    (void)state;
    assert_string_equal(transport_carrier(client.t, peer), carrier);
    assert_string_equal(transport_carrier(server.t, server.s.last_up), carrier);
}

/* An endpoint in an environment that has these. */
static void refused_in(const char *name, const char *value, const char *words)
{
    const transport_net_options o = {
        .lane = TRANSPORT_LANE_UCX_TCP, .listen = "127.0.0.1:0", .max_message = MAX_MESSAGE, .max_peers = 4};
    char before[64];
    transport *t = NULL;
    moe_error err = {""};

    (void)snprintf(before, sizeof before, "%s", getenv(name) != NULL ? getenv(name) : "");
    assert_int_equal(setenv(name, value, 1), 0);
    moe_status status = transport_net_open(&o, &t, &err);
    assert_int_equal(before[0] != '\0' ? setenv(name, before, 1) : unsetenv(name), 0);
    assert_int_not_equal(status, MOE_OK);
    assert_contains(err.text, words);
    assert_contains(err.text, name);
    assert_contains(err.text, value);
}

static void without_tcp_in_the_environment_the_lane_is_refused(void **state)
{
    (void)state;
    refused_in("UCX_TLS", "sm,self", "transport ucx-tcp: UCX would use");
    refused_in("UCX_TLS", "^tcp", "transport ucx-tcp: UCX would use");
}

static void ucx_refusals_name_the_variable(void **state)
{
    (void)state;
    refused_in("UCX_TLS", "nonsense", "ucx: ");
    refused_in("UCX_RNDV_THRESH", "many", "ucx: configuration");
}

static void more_than_tcp_in_the_environment_is_fine(void **state)
{
    const transport_net_options o = {
        .lane = TRANSPORT_LANE_UCX_TCP, .listen = "127.0.0.1:0", .max_message = MAX_MESSAGE, .max_peers = 4};
    transport *t = NULL;
    moe_error err = {""};

    (void)state;
    assert_int_equal(setenv("UCX_TLS", "tcp,self", 1), 0);
    moe_status status = transport_net_open(&o, &t, &err);
    assert_int_equal(setenv("UCX_TLS", "tcp", 1), 0);
    assert_ok(status, err);
    assert_contains(transport_net_lane(t), "tcp");
    transport_close(t);
}

static void frames_of_all_sizes_arrive_whole_and_in_order(void **state)
{
    static const size_t sizes[] = {4, 5, 100, 8191, 8192, 8193, 65536, 65537, 131072, 299999, MAX_MESSAGE};
    transport_peer peer = connect_both();

    (void)state;
    for (uint32_t i = 0; i < 60; i++) {
        size_t n = sizes[i % MOE_COUNT(sizes)];

        fill(payload, n, i + 1);
        assert_int_equal(send_from(&client, peer, &msgs[0], payload, n), MOE_OK);
        UNTIL(n_done == i + 1);
        assert_int_equal(last_status, MOE_OK);
    }
    UNTIL(server.s.n_messages == 60);
    assert_true(server.s.intact && server.s.in_order);
}

static void a_frame_of_one_byte_arrives(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    fill(payload, 1, 1);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, 1), MOE_OK);
    UNTIL(server.s.n_messages == 1);
    assert_int_equal(server.s.bytes, 1);
    assert_true(server.s.intact);
}

static void frames_sent_without_waiting_arrive_in_order(void **state)
{
    transport_peer peer = connect_both();
    uint32_t sent = 0;

    (void)state;
    while (sent < 500) {
        unsigned char *bytes = payload + (size_t)(sent % 64) * 4096;
        size_t n = 4 + sent * 37 % 4000;

        if (n_done + 4 < sent) {
            turn();
            continue;
        }
        fill(bytes, n, sent + 1);
        if (send_from(&client, peer, &msgs[sent % 64], bytes, n) == MOE_OK) {
            sent++;
        } else {
            turn();
        }
    }
    UNTIL(server.s.n_messages == 500);
    assert_true(server.s.intact && server.s.in_order);
}

static void two_parts_are_joined(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    fill(payload, 100000, 1);
    msgs[0] = (transport_msg){.parts = {{payload, 77}, {payload + 77, 100000 - 77}}, .n_parts = 2, .done = on_done};
    assert_int_equal(client.t->ops->send(client.t, peer, &msgs[0]), MOE_OK);
    UNTIL(server.s.n_messages == 1);
    assert_int_equal(server.s.bytes, 100000);
    assert_true(server.s.intact);
}

static void the_other_end_can_answer(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    fill(payload, 500, 1);
    assert_int_equal(send_from(&server, server.s.last_up, &msgs[0], payload, 500), MOE_OK);
    UNTIL(client.s.n_messages == 1);
    assert_true(client.s.from == peer && client.s.intact);
}

static void a_frame_above_the_limit_is_not_sent(void **state)
{
    transport_peer peer = connect_both();

    (void)state;
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, MAX_MESSAGE + 1), MOE_ERR_INVALID_ARG);
    assert_int_equal(n_done, 0);
}

static void a_frame_above_the_receivers_limit_costs_the_connection(void **state)
{
    transport_net_stats stats;

    (void)state;
    transport_close(client.t);
    side_open(&client, NULL, 2 * MAX_MESSAGE, 4);
    transport_peer peer = connect_both();
    fill(payload, MAX_MESSAGE + 1, 1);
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, MAX_MESSAGE + 1), MOE_OK);
    UNTIL(server.s.n_down == 1 && client.s.n_down == 1);
    assert_string_equal(server.s.why, "frame above the limit");
    assert_int_equal(server.s.n_messages, 0);
    transport_net_get_stats(server.t, &stats);
    assert_int_equal(stats.violations, 1);
}

static void a_peer_that_does_not_read_makes_sends_busy(void **state)
{
    transport_peer peer = connect_both();
    moe_status status = MOE_OK;
    uint32_t sent = 0;
    transport_net_stats stats;

    (void)state;
    fill(payload, MAX_MESSAGE, 1);
    for (; sent < 10000 && status == MOE_OK; sent += status == MOE_OK) {
        status = send_from(&client, peer, &msgs[sent % 64], payload, MAX_MESSAGE);
        for (int i = 0; i < 3; i++) {
            client.t->ops->progress(client.t);
        }
    }
    assert_int_equal(status, MOE_ERR_BUSY);
    transport_net_get_stats(client.t, &stats);
    assert_int_equal(stats.sends, 4);
    client.t->ops->peer_close(client.t, peer);
    UNTIL(n_done == sent);
    assert_int_equal(last_status, MOE_ERR_CANCELLED);
}

static void frames_that_do_not_leave_cost_the_connection(void **state)
{
    moe_clock_virtual clock;
    const transport_net_options o = {.lane = lane, .max_message = MAX_MESSAGE, .max_peers = 4, .clock = &clock.clock};
    transport_net_stats stats;
    moe_error err;

    (void)state;
    moe_clock_virtual_init(&clock, 1000);
    transport_close(client.t);
    assert_ok(transport_net_open(&o, &client.t, &err), err);
    client.t->handler = (transport_handler){&client.s, on_message, on_peer};
    transport_peer peer = connect_both();
    uint32_t sent = 0;
    while (send_from(&client, peer, &msgs[sent % 64], payload, MAX_MESSAGE) == MOE_OK) {
        sent++;
        client.t->ops->progress(client.t);
    }
    moe_clock_virtual_advance(&clock, 9000000000u);
    client.t->ops->progress(client.t);
    assert_int_equal(client.s.n_down, 0);
    moe_clock_virtual_advance(&clock, 2000000000u);
    while (client.s.n_down == 0) { /* the server stands still */
        client.t->ops->progress(client.t);
    }
    assert_string_equal(client.s.why, "frames do not leave");
    assert_int_equal(n_done, sent);
    transport_net_get_stats(client.t, &stats);
    assert_int_equal(stats.timeouts, 1);
}

static void closing_an_endpoint_gives_all_frames_back(void **state)
{
    transport_peer peer = connect_both();
    uint32_t sent = 0;

    (void)state;
    while (send_from(&client, peer, &msgs[sent % 64], payload, MAX_MESSAGE) == MOE_OK) {
        sent++;
        client.t->ops->progress(client.t);
    }
    transport_close(client.t);
    client.t = NULL;
    assert_int_equal(n_done, sent);
}

static void an_address_is_taken_once(void **state)
{
    const transport_net_options o = {
        .lane = lane, .listen = transport_net_address(server.t), .max_message = 1000, .max_peers = 1};
    transport *t = NULL;
    moe_error err = {""};

    (void)state;
    assert_int_equal(transport_net_open(&o, &t, &err), MOE_ERR_EXISTS);
    assert_contains(err.text, transport_net_address(server.t));
    assert_int_equal(transport_net_check_listen(o.listen, &err),
                     MOE_ERR_INVALID_ARG); /* one needs no endpoint to know */
    assert_contains(err.text, "cannot be bound");
    assert_int_equal(transport_net_check_listen("192.0.2.1:7", &err), MOE_ERR_INVALID_ARG); /* not this machine's */
    assert_ok(transport_net_check_listen("127.0.0.1:0", &err), err);
}

/* There is none on the machines the tests run on; where there is, the lane says so. */
static void rdma_is_never_something_else(void **state)
{
    const transport_net_options o = {.lane = TRANSPORT_LANE_RDMA, .max_message = 1000, .max_peers = 1};
    transport *t = NULL;
    moe_error err = {""};
    moe_status status = transport_net_open(&o, &t, &err);

    (void)state;
    if (status == MOE_OK) {
        assert_null(strstr(transport_net_lane(t), "tcp"));
        transport_close(t);
    } else {
        assert_int_equal(status, MOE_ERR_UNSUPPORTED);
        assert_contains(err.text, "RDMA");
    }
}

static void a_wake_ends_a_wait(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        while (client.t->ops->progress(client.t) != 0) {
        }
        client.t->ops->wake(client.t);
        client.t->ops->wait(client.t, UINT64_MAX); /* ctest's timeout otherwise */
    }
}

/* ------------------------------------------------------------------------------------------------ fairness */
static transport_peer greedy, at_greedy;
static size_t n_greedy_bytes; /* that came from it */
static bool modest_has_come;
static bool is_under_way[4];

static void on_flood_done(transport_msg *msg, moe_status status)
{
    (void)status;
    is_under_way[msg - msgs] = false;
}

static void flood(void)
{
    for (size_t i = 0; i < MOE_COUNT(is_under_way); i++) {
        if (!is_under_way[i]) {
            msgs[i] = (transport_msg){.parts = {{payload, 250000}}, .n_parts = 1, .done = on_flood_done};
            is_under_way[i] = true;
            is_under_way[i] = client.t->ops->send(client.t, greedy, &msgs[i]) == MOE_OK && is_under_way[i];
        }
    }
    client.t->ops->progress(client.t);
}

/* Whoever never stops has sent more by the time that one frame is taken. */
static void on_flood(void *ctx, transport_peer from, const unsigned char *bytes, size_t n)
{
    (void)ctx;
    (void)bytes;
    n_greedy_bytes += from == at_greedy ? n : 0;
    modest_has_come = modest_has_come || from != at_greedy;
    flood();
}

static void who_never_stops_sending_keeps_nobody_waiting(void **state)
{
    (void)state;
    greedy = connect_both();
    at_greedy = server.s.last_up;
    transport_peer modest = connect_both();
    fill(payload, MAX_MESSAGE, 1);
    assert_int_equal(send_from(&client, greedy, &msgs[8], payload, 100), MOE_OK);
    UNTIL(server.s.n_messages == 1);
    assert_int_equal(send_from(&client, modest, &msgs[8], payload, 100), MOE_OK);
    UNTIL(server.s.n_messages == 2); /* UCX connects with the first frame */
    server.t->handler.on_message = on_flood;
    for (int i = 0; i < 30; i++) { /* who is looked at first is chance */
        for (n_greedy_bytes = 0; n_greedy_bytes < 1000000;) {
            flood();
            server.t->ops->progress(server.t);
        }
        n_greedy_bytes = 0;
        modest_has_come = false;
        assert_int_equal(send_from(&client, modest, &msgs[8], payload, 100), MOE_OK);
        while (!modest_has_come) {
            flood();
            server.t->ops->progress(server.t);
        }
        assert_true(n_greedy_bytes < (size_t)4 << 20);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(the_port_found_and_the_lane_are_reported),
        TEST(what_carries_a_connection_is_told_at_both_ends),
        TEST(without_tcp_in_the_environment_the_lane_is_refused),
        TEST(ucx_refusals_name_the_variable),
        TEST(more_than_tcp_in_the_environment_is_fine),
        TEST(frames_of_all_sizes_arrive_whole_and_in_order),
        TEST(a_frame_of_one_byte_arrives),
        TEST(frames_sent_without_waiting_arrive_in_order),
        TEST(two_parts_are_joined),
        TEST(the_other_end_can_answer),
        TEST(a_frame_above_the_limit_is_not_sent),
        TEST(a_frame_above_the_receivers_limit_costs_the_connection),
        TEST(a_peer_that_does_not_read_makes_sends_busy),
        TEST(frames_that_do_not_leave_cost_the_connection),
        TEST(closing_an_endpoint_gives_all_frames_back),
        TEST(an_address_is_taken_once),
        TEST(rdma_is_never_something_else),
        TEST(a_wake_ends_a_wait),
        TEST(who_never_stops_sending_keeps_nobody_waiting),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    choose_lane(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
