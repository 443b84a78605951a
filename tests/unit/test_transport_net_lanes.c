/* Which lanes meet, what their connections are carried by, and what an authenticated end that breaks the rules costs. */
#include "tests/unit/test_transport_net_support.h"
#include "transport/channel_priv.h"
#include "transport/net_priv.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void open_both(transport_lane server_lane, transport_lane client_lane)
{
    payload = malloc(MAX_MESSAGE * 2);
    assert_non_null(payload);
    n_done = 0;
    lane = server_lane;
    side_open(&server, "127.0.0.1:0", MAX_MESSAGE, 4);
    lane = client_lane;
    side_open(&client, NULL, MAX_MESSAGE, 8);
}

static void close_both(void)
{
    teardown(NULL);
    client.t = server.t = NULL;
}

static void a_frame_goes_both_ways(transport_peer peer, const char *carrier)
{
    size_t at_server = server.s.n_messages, at_client = client.s.n_messages;

    assert_string_equal(transport_carrier(client.t, peer), carrier);
    assert_string_equal(transport_carrier(server.t, server.s.last_up), carrier);
    fill(payload, 70000, 1);
    server.s.serial = client.s.serial = 0;
    assert_int_equal(send_from(&client, peer, &msgs[0], payload, 70000), MOE_OK);
    assert_int_equal(send_from(&server, server.s.last_up, &msgs[1], payload, 70000), MOE_OK);
    UNTIL(server.s.n_messages > at_server && client.s.n_messages > at_client);
    assert_true(server.s.intact && client.s.intact);
}

static transport_net_stats stats_of(const side *x)
{
    transport_net_stats stats;

    transport_net_get_stats(x->t, &stats);
    return stats;
}

static void lanes_meet_or_say_why(void **state)
{
    static const struct {
        transport_lane server, client;
        const char *carrier; /* NULL: refused */
    } all[] = {
        {TRANSPORT_LANE_AUTO, TRANSPORT_LANE_AUTO, "shm"},   {TRANSPORT_LANE_AUTO, TRANSPORT_LANE_SHM, "shm"},
        {TRANSPORT_LANE_SHM, TRANSPORT_LANE_AUTO, "shm"},    {TRANSPORT_LANE_AUTO, TRANSPORT_LANE_TLS, "tls"},
        {TRANSPORT_LANE_TLS, TRANSPORT_LANE_AUTO, "tls"},    {TRANSPORT_LANE_TLS, TRANSPORT_LANE_SHM, NULL},
        {TRANSPORT_LANE_SHM, TRANSPORT_LANE_TLS, NULL},      {TRANSPORT_LANE_UCX_TCP, TRANSPORT_LANE_UCX_TCP, "tcp"},
        {TRANSPORT_LANE_AUTO, TRANSPORT_LANE_UCX_TCP, NULL}, {TRANSPORT_LANE_SHM, TRANSPORT_LANE_UCX_TCP, NULL}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        open_both(all[i].server, all[i].client);
        if (all[i].carrier != NULL) {
            a_frame_goes_both_ways(connect_both(), all[i].carrier);
            assert_int_equal(stats_of(&server).shm_peers, strcmp(all[i].carrier, "shm") == 0);
        } else {
            transport_peer peer;

            assert_int_equal(client.t->ops->connect(client.t, transport_net_address(server.t), &peer), MOE_OK);
            UNTIL(client.s.n_down == 1 && stats_of(&server).peers == 0);
            assert_int_equal(server.s.n_messages + client.s.n_messages, 0);
        }
        close_both();
    }
}

/* ------------------------------------------------------------------------------------------------ no memory */
static struct rlimit before;

/* No file of this process, which memory without a name is as well, may be longer than a page. */
static void allow_no_memory(void)
{
    struct rlimit little;

    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    little = (struct rlimit){4096, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
}

static void allow_memory(void)
{
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
}

static void without_memory_a_connection_is_by_tls(void **state)
{
    transport_peer first, second;

    (void)state;
    open_both(TRANSPORT_LANE_AUTO, TRANSPORT_LANE_AUTO);
    allow_no_memory();
    first = connect_both();
    allow_memory();
    a_frame_goes_both_ways(first, "tls");
    second = connect_both(); /* there is some again */
    a_frame_goes_both_ways(second, "shm");
    close_both();
}

static void without_memory_the_lane_shm_refuses(void **state)
{
    transport_peer peer;

    (void)state;
    open_both(TRANSPORT_LANE_SHM, TRANSPORT_LANE_SHM);
    allow_no_memory();
    assert_int_equal(client.t->ops->connect(client.t, transport_net_address(server.t), &peer), MOE_OK);
    UNTIL(client.s.n_down == 1 && stats_of(&server).peers == 0);
    allow_memory();
    assert_int_equal(client.s.n_up + server.s.n_up, 0);
    close_both();
}

/* ------------------------------------------------------------------------------------------------ auto with RDMA
 * There is no RDMA on the machines the tests run on: UCX is opened for tcp in its place, or not at all. */
static void open_auto(side *x, const char *listen, const char *network, transport_lane rdma)
{
    transport_net_options o = {
        .lane = TRANSPORT_LANE_AUTO, .listen = listen, .max_message = MAX_MESSAGE, .max_peers = 4, .max_sends = 4};
    moe_error err;

    if (network != NULL) {
        assert_ok(transport_network_parse("--rdma-network", network, &o.rdma_network, &err), err);
    }
    *x = (side){.s = {.in_order = true, .intact = true}};
    assert_ok(transport_tls_open(&o, &(net_hardware){.rdma = rdma}, &x->t, &err), err);
    x->s.t = x->t;
    x->t->handler = (transport_handler){&x->s, on_message, on_peer};
    assert_string_equal(transport_net_lane(x->t), "auto");
}

static void without_shared_memory_auto_uses_rdma_where_both_may(void **state)
{
    static const struct {
        const char *server, *client; /* --rdma-network */
        transport_lane rdma;         /* of the client */
        const char *carrier;
    } all[] = {
        {"all", "127.0.0.0/8", TRANSPORT_LANE_UCX_TCP, "tcp"}, {"127.0.0.1/32", "all", TRANSPORT_LANE_UCX_TCP, "tcp"},
        {"all", "10.0.0.0/8", TRANSPORT_LANE_UCX_TCP, "tls"},  {"10.0.0.0/8", "all", TRANSPORT_LANE_UCX_TCP, "tls"},
        {"all", NULL, TRANSPORT_LANE_UCX_TCP, "tls"},          {NULL, "all", TRANSPORT_LANE_UCX_TCP, "tls"}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        payload = malloc(MAX_MESSAGE * 2);
        assert_non_null(payload);
        n_done = 0;
        open_auto(&server, "127.0.0.1:0", all[i].server, TRANSPORT_LANE_UCX_TCP);
        open_auto(&client, NULL, all[i].client, all[i].rdma);
        allow_no_memory();
        transport_peer without = connect_both();
        allow_memory();
        a_frame_goes_both_ways(without, all[i].carrier);
        a_frame_goes_both_ways(connect_both(), "shm"); /* the same endpoints have both at once */
        client.s.serial = server.s.serial = 0;
        client.t->ops->peer_close(client.t, without);
        UNTIL(server.s.n_down == 1);
        close_both();
    }
}

/* It is refused where UCX has nothing but tcp, and that is no reason not to serve. */
static void where_there_is_no_rdma_auto_does_without(void **state)
{
    (void)state;
    payload = malloc(MAX_MESSAGE * 2);
    assert_non_null(payload);
    n_done = 0;
    open_auto(&server, "127.0.0.1:0", "all", TRANSPORT_LANE_UCX_TCP);
    open_auto(&client, NULL, "all", TRANSPORT_LANE_RDMA);
    allow_no_memory();
    transport_peer peer = connect_both();
    allow_memory();
    assert_null(strstr(transport_carrier(client.t, peer), "tcp"));
    a_frame_goes_both_ways(connect_both(), "shm");
    close_both();
}

/* ------------------------------------------------------------------------------------------------ frames on a GPU
 * There is no GPU either, and no UCX that knows one: the memory of a fake one is the host's. */
static moe_status open_gpu(side *x, transport_lane of, const char *listen, transport_gpu gpu, bool gpu_is_host,
                           moe_error *err)
{
    transport_net_options o = {
        .lane = of, .listen = listen, .max_message = MAX_MESSAGE, .max_peers = 4, .max_sends = 4, .gpu_frames = gpu};
    const net_hardware hardware = {.rdma = TRANSPORT_LANE_UCX_TCP, .gpu_is_host = gpu_is_host};

    o.rdma_network.is_given = o.rdma_network.is_all = of == TRANSPORT_LANE_AUTO;
    *x = (side){.s = {.in_order = true, .intact = true}};
    moe_status status = transport_tls_open(&o, &hardware, &x->t, err);
    if (status == MOE_OK) {
        x->s.t = x->t;
        x->t->handler = (transport_handler){&x->s, on_message, on_peer};
    }
    return status;
}

/* Frames whose host memory has something else, or not; they arrive as any. */
static void frames_arrive(transport_peer peer, bool from_device)
{
    enum { N = 3, BYTES = 70000 };
    size_t n = server.s.n_messages, bytes = transport_frames_bytes(N, BYTES);
    unsigned char *on_device = aligned_alloc(64, bytes);
    transport_frames *frames;

    assert_non_null(on_device);
    memset(on_device, 0xa5, bytes);
    assert_int_equal(transport_frames_open(client.t, N, BYTES, NULL, &frames), MOE_OK);
    transport_frames_set_device(frames, on_device);
    server.s.serial = 0;
    server.s.intact = true;
    for (uint32_t i = 0; i < 2 * N; i++) { /* so that each is used again, by the other memory */
        transport_frame *f = transport_frames_take(frames);

        assert_non_null(f);
        assert_false(f->from_device);
        f->from_device = from_device && i % 3 != 1;
        memset(f->data, 0x5a, BYTES);
        fill(f->from_device ? f->device_data : f->data, BYTES - i, i + 1);
        transport_frame_post(f, peer, BYTES - i);
        UNTIL(server.s.n_messages == n + i + 1 && transport_frames_out(frames) == 0);
    }
    assert_true(server.s.intact && server.s.in_order);
    transport_frames_close(frames);
    free(on_device);
}

static void frames_go_from_a_gpu_by_ucx_alone(void **state)
{
    const transport_lane lanes[] = {TRANSPORT_LANE_UCX_TCP, TRANSPORT_LANE_AUTO};
    moe_error err;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(lanes); i++) {
        bool is_auto = lanes[i] == TRANSPORT_LANE_AUTO;

        payload = NULL;
        assert_ok(open_gpu(&server, lanes[i], "127.0.0.1:0", TRANSPORT_GPU_OFF, true, &err), err);
        assert_ok(open_gpu(&client, lanes[i], NULL, is_auto ? TRANSPORT_GPU_AUTO : TRANSPORT_GPU_ON, true, &err), err);
        allow_no_memory();
        transport_peer peer = connect_both();
        allow_memory();
        assert_string_equal(transport_carrier(client.t, peer), "tcp+gpu");
        assert_string_equal(transport_carrier(server.t, server.s.last_up), "tcp");
        assert_true(transport_takes_device(client.t, 0) && transport_takes_device(client.t, peer));
        assert_false(transport_takes_device(server.t, 0) || transport_takes_device(server.t, server.s.last_up));
        frames_arrive(peer, true);
        if (is_auto) {
            transport_peer shm = connect_both();

            assert_string_equal(transport_carrier(client.t, shm), "shm");
            assert_false(transport_takes_device(client.t, shm));
            frames_arrive(shm, false);
        }
        client.t->ops->peer_close(client.t, peer);
        assert_false(transport_takes_device(client.t, peer));
        close_both();
    }
}

/* UCX as it is here: what it does not know is refused, or done without, and said. */
static void frames_on_a_gpu_that_ucx_does_not_know_are_refused_or_staged(void **state)
{
    static const struct {
        transport_lane lane;
        const char *why;
    } all[] = {{TRANSPORT_LANE_TLS, "--transport tls does not use UCX"},
               {TRANSPORT_LANE_SHM, "--transport shm does not use UCX"},
               {TRANSPORT_LANE_UCX_TCP, "it knows: host"},
               {TRANSPORT_LANE_AUTO, "it knows: host"}};

    (void)state;
    payload = NULL;
    server.t = NULL;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        moe_error err = {""};
        moe_status status = open_gpu(&client, all[i].lane, NULL, TRANSPORT_GPU_ON, false, &err);

        if (status == MOE_OK) { /* a UCX that knows GPUs */
            assert_true(all[i].lane == TRANSPORT_LANE_UCX_TCP || all[i].lane == TRANSPORT_LANE_AUTO);
            transport_close(client.t);
            continue;
        }
        assert_int_equal(status, MOE_ERR_UNSUPPORTED);
        assert_contains(err.text, "--gpu-frames on");
        assert_contains(err.text, all[i].why);
        assert_ok(open_gpu(&client, all[i].lane, NULL, TRANSPORT_GPU_AUTO, false, &err), err);
        assert_false(transport_takes_device(client.t, 0));
        if (all[i].lane == TRANSPORT_LANE_UCX_TCP) {
            assert_string_equal(transport_net_lane(client.t), "tcp+staged");
        }
        transport_close(client.t);
    }
    client.t = NULL;
}

/* ------------------------------------------------------------------------------------------------ who breaks the rules */
/* Writes into every page of counts that this process has mapped, as an end may do to the other. */
static void damage_all(moe_random *random)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];

    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        if (strstr(line, "memfd:conclave") != NULL) {
            unsigned char *at = (unsigned char *)(uintptr_t)strtoull(line, NULL, 16);

            for (size_t i = 32; i < 4096; i++) {
                at[i] = (unsigned char)moe_random_u64(random);
            }
        }
    }
    (void)fclose(maps);
}

static void memory_that_is_damaged_costs_the_connection_alone(void **state)
{
    moe_random random;

    (void)state;
    moe_random_seed(&random, 11);
    open_both(TRANSPORT_LANE_AUTO, TRANSPORT_LANE_AUTO);
    for (int i = 0; i < 20; i++) {
        int down = server.s.n_down + client.s.n_down;

        a_frame_goes_both_ways(connect_both(), "shm");
        damage_all(&random);
        UNTIL(server.s.n_down + client.s.n_down == down + 2);
    }
    assert_true(stats_of(&server).violations + stats_of(&client).violations >= 20);
    a_frame_goes_both_ways(connect_both(), "shm");
    close_both();
}

/* A member that knows the secret (here: that there is none) and says this note first. The channel is open until closed. */
static void say_first(const unsigned char *note, size_t n)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    channel_key *key;
    moe_error err;
    channel *c;

    assert_ok(channel_key_open("", 0, &key, &err), err);
    assert_int_equal(channel_key_offer(key, "conclave carrier 1"), MOE_OK);
    assert_int_equal(channel_open(key, true, &c), MOE_OK);
    to.sin_port = htons((uint16_t)atoi(strrchr(transport_net_address(server.t), ':') + 1));
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    for (moe_status status = MOE_ERR_BUSY; status == MOE_ERR_BUSY; status = channel_handshake(c, &err)) {
        size_t bytes;
        const unsigned char *out = channel_out(c, &bytes);

        if (bytes > 0) {
            assert_int_equal(send(fd, out, bytes, MSG_NOSIGNAL), bytes);
            channel_sent(c, bytes);
        }
        (void)server.t->ops->progress(server.t);
        unsigned char *in = channel_in(c, &bytes);
        ssize_t came = recv(fd, in, bytes, MSG_DONTWAIT);
        channel_received(c, came > 0 ? (size_t)came : 0);
    }
    assert_true(channel_agreed(c));
    assert_int_equal(channel_write(c, note, n), MOE_OK);
    size_t bytes;
    const unsigned char *out = channel_out(c, &bytes);
    assert_int_equal(send(fd, out, bytes, MSG_NOSIGNAL), bytes);
    UNTIL(stats_of(&server).peers == 0);
    channel_close(c);
    channel_key_close(key);
    (void)close(fd);
}

static void notes_that_are_not_due_cost_the_connection(void **state)
{
    static const struct {
        size_t n;
        unsigned char bytes[24];
    } notes[] = {
        {3, {2}},                      /* HERE: the caller's */
        {3, {3}},                      /* READ: nothing was made */
        {3 + 16, {3, 16}},             /* the same with a token */
        {3, {4}},                      /* there is no such kind */
        {3, {200}},                    /* nor such */
        {3, {1}},                      /* ASK: for nothing */
        {4, {1, 1, 0, 0}},             /* ASK: for no carrier */
        {4, {1, 1, 0, 4}},             /* ASK: for the channel, which is by NONE */
        {4, {1, 1, 0, 200}},           /* ASK: there is no such carrier */
        {4, {1, 1, 0, 1}},             /* ASK: a door without a name */
        {8, {1, 1, 0, 3, 1, 1, 0, 3}}, /* ASK: twice for the same */
        {8, {1, 1, 0, 3, 1, 1, 0, 2}}, /* ASK: backwards */
        {7, {1, 1, 0, 2, 3, 0, 0}},    /* READ: of what was declined */
        {3, {1, 0xff, 0xff}},          /* above the limit */
    };
    uint64_t n = 0;

    (void)state;
    open_both(TRANSPORT_LANE_AUTO, TRANSPORT_LANE_AUTO);
    for (size_t i = 0; i < MOE_COUNT(notes); i++) {
        say_first(notes[i].bytes, notes[i].n);
        assert_int_equal(stats_of(&server).violations, ++n);
    }
    assert_int_equal(server.s.n_up, 0);
    a_frame_goes_both_ways(connect_both(), "shm");
    close_both();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_meet_or_say_why),
        cmocka_unit_test(without_memory_a_connection_is_by_tls),
        cmocka_unit_test(without_memory_the_lane_shm_refuses),
        cmocka_unit_test(without_shared_memory_auto_uses_rdma_where_both_may),
        cmocka_unit_test(where_there_is_no_rdma_auto_does_without),
        cmocka_unit_test(frames_go_from_a_gpu_by_ucx_alone),
        cmocka_unit_test(frames_on_a_gpu_that_ucx_does_not_know_are_refused_or_staged),
        cmocka_unit_test(memory_that_is_damaged_costs_the_connection_alone),
        cmocka_unit_test(notes_that_are_not_due_cost_the_connection),
    };

    (void)setup;
    (void)choose_lane;
    moe_log_set_level(MOE_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
