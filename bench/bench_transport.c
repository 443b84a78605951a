/* Round trip of a frame between two processes over a lane of the transport, against a plain TCP socket that sends the same
 * bytes back, in the same run and by turns.
 *
 *     bench_transport [--lane LANE] [--seconds S] [--sizes BYTES,BYTES,...]
 *
 * Default: tls; 1 second for each figure; 4, 16 and 64 KB.
 *
 * "yields": both ends yield for up to 1 ms, then sleep, as members do. "sleeps": both ends sleep at once. The
 * plain socket blocks in read. Reported is the median and the 5th percentile (what repeats on a machine that others
 * use) of all rounds, and the ratio to the plain socket. */
#include "transport/transport.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_SIZES = 16, MAX_SAMPLES = 200000, TURNS = 10, WARM_UP = 200 };

#define MAX_BYTES ((size_t)16 << 20)
#define YIELD_NS  UINT64_C(1000000)

typedef enum { WAY_SOCKET, WAY_YIELDS, WAY_SLEEPS, N_WAYS } way;
static const char *const way_names[N_WAYS] = {"plain TCP", "yields", "sleeps"};

typedef struct samples {
    double *us; /* [MAX_SAMPLES] */
    size_t n;
} samples;

static unsigned char *buffer, *echo_buffer;
static size_t n_came;
static bool sleeps_at_once;
static transport *endpoint;
static transport_peer peer;
static bool is_up, is_down;
static transport_lane lane;

static uint64_t now_ns(void)
{
    return moe_now_ns(moe_clock_real());
}

static _Noreturn void give_up(const char *what)
{
    (void)fprintf(stderr, "bench_transport: %s\n", what);
    exit(1);
}

/* ------------------------------------------------------------------------------------------------ plain socket */
static void move_all(int fd, size_t n, bool out)
{
    for (size_t at = 0; at < n;) {
        ssize_t moved = out ? write(fd, buffer + at, n - at) : read(fd, buffer + at, n - at);

        if (moved <= 0) {
            exit(0); /* the other end has finished */
        }
        at += (size_t)moved;
    }
}

/* Each round starts with the size, so that one connection serves all. */
static void socket_echo(int fd)
{
    uint32_t n;

    for (;;) {
        if (read(fd, &n, sizeof n) != sizeof n) {
            exit(0);
        }
        move_all(fd, n, false);
        move_all(fd, n, true);
    }
}

static void socket_round(int fd, size_t n)
{
    move_all(fd, n, true);
    move_all(fd, n, false);
}

/* ------------------------------------------------------------------------------------------------ frames */
static void on_done(transport_msg *msg, moe_status status)
{
    (void)msg;
    (void)status;
}

static void send_frame(const void *bytes, size_t n)
{
    static transport_msg msg;

    msg = (transport_msg){.parts = {{bytes, n}}, .n_parts = 1, .done = on_done};
    if (endpoint->ops->send(endpoint, peer, &msg) != MOE_OK) {
        give_up("a frame was not sent");
    }
}

static void on_message(void *ctx, transport_peer from, const unsigned char *bytes, size_t n)
{
    (void)ctx;
    n_came++;
    if (echo_buffer != NULL) {
        sleeps_at_once = bytes[0] != 0;
        peer = from;
        memcpy(echo_buffer, bytes, n);
        send_frame(echo_buffer, n);
    }
}

static void on_peer(void *ctx, transport_peer who, transport_peer_event event, const char *why)
{
    (void)ctx;
    (void)who;
    (void)why;
    is_up = event == TRANSPORT_UP;
    is_down = event != TRANSPORT_UP;
}

static void turn_until(const size_t *counter, size_t n)
{
    uint64_t idle_since = now_ns();

    while (*counter < n && !is_down) {
        if (endpoint->ops->progress(endpoint) > 0) {
            idle_since = now_ns();
            continue;
        }
        uint64_t idle = now_ns() - idle_since;
        if (!sleeps_at_once && idle < YIELD_NS) {
            (void)sched_yield();
        } else {
            endpoint->ops->wait(endpoint, 100000000);
        }
    }
}

static void frame_round(size_t n)
{
    size_t before = n_came;

    send_frame(buffer, n);
    turn_until(&n_came, before + 1);
    if (is_down) {
        give_up("the connection was lost");
    }
}

static transport *open_endpoint(const char *listen)
{
    const transport_net_options o = {.lane = lane, .listen = listen, .max_message = MAX_BYTES, .max_peers = 4};
    transport *t;
    moe_error err;

    if (transport_net_open(&o, &t, &err) != MOE_OK) {
        give_up(err.text);
    }
    t->handler = (transport_handler){NULL, on_message, on_peer};
    return t;
}

/* ------------------------------------------------------------------------------------------------ processes */
static void become_child(void)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == 1) {
        exit(1);
    }
}

static int start_socket_echo(pid_t *pid_out)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &bytes) != 0) {
        give_up("no socket");
    }
    *pid_out = fork();
    if (*pid_out == 0) {
        become_child();
        int fd = accept(listener, NULL, NULL);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        socket_echo(fd);
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        give_up("no connection to the plain socket");
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)close(listener);
    return fd;
}

static void start_frame_echo(pid_t *pid_out)
{
    char address[128] = "";
    int fds[2];

    if (pipe(fds) != 0) {
        give_up("no pipe");
    }
    *pid_out = fork();
    if (*pid_out == 0) {
        become_child();
        echo_buffer = malloc(MAX_BYTES);
        endpoint = open_endpoint("127.0.0.1:0");
        const char *found = transport_net_address(endpoint);
        if (echo_buffer == NULL || write(fds[1], found, strlen(found) + 1) < 0) {
            exit(1);
        }
        turn_until(&n_came, SIZE_MAX);
        exit(0);
    }
    (void)close(fds[1]);
    if (read(fds[0], address, sizeof address - 1) <= 0) {
        give_up("the other process did not start");
    }
    endpoint = open_endpoint(NULL);
    if (endpoint->ops->connect(endpoint, address, &peer) != MOE_OK) {
        give_up("no connection");
    }
    while (!is_up && !is_down) {
        endpoint->ops->progress(endpoint);
        (void)sched_yield();
    }
    if (is_down) {
        give_up("no connection");
    }
}

/* ------------------------------------------------------------------------------------------------ measure */
static void measure(way w, int fd, size_t n, double seconds, samples *out)
{
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    uint32_t size = (uint32_t)n;

    sleeps_at_once = w == WAY_SLEEPS;
    buffer[0] = sleeps_at_once;
    for (size_t i = 0; i < WARM_UP || now_ns() < end; i++) {
        uint64_t begin = now_ns();

        if (w == WAY_SOCKET) {
            if (write(fd, &size, sizeof size) != sizeof size) {
                give_up("the plain socket is gone");
            }
            begin = now_ns(); /* the size is no part of the round */
            socket_round(fd, n);
        } else {
            frame_round(n);
        }
        if (i >= WARM_UP && out->n < MAX_SAMPLES) {
            out->us[out->n++] = (double)(now_ns() - begin) * 1e-3;
        }
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double at_share(const samples *s, double share)
{
    return s->n == 0 ? 0 : s->us[(size_t)((double)(s->n - 1) * share)];
}

static void report(size_t n, samples *all)
{
    for (int w = 0; w < N_WAYS; w++) {
        qsort(all[w].us, all[w].n, sizeof *all[w].us, by_value);
    }
    for (int w = 0; w < N_WAYS; w++) {
        double median = at_share(&all[w], 0.5), low = at_share(&all[w], 0.05);

        printf("%8zu B  %-12s median %8.1f us  5th percentile %8.1f us  ratio %5.2f  %5.2f  (%zu rounds)\n", n,
               way_names[w], median, low, median / at_share(&all[WAY_SOCKET], 0.5),
               low / at_share(&all[WAY_SOCKET], 0.05), all[w].n);
    }
}

static size_t parse_sizes(const char *text, size_t *sizes)
{
    size_t n = 0;

    while (*text != '\0' && n < MAX_SIZES) {
        char *end;

        sizes[n] = strtoull(text, &end, 10);
        if (end == text || sizes[n] == 0 || sizes[n] > MAX_BYTES) {
            give_up("--sizes: expected bytes, separated by commas, 16 MB at most");
        }
        n++;
        text = *end == ',' ? end + 1 : end;
    }
    return n;
}

static transport_lane parse_lane(const char *name)
{
    size_t i = 0;

    while (transport_lane_names[i] != NULL && strcmp(transport_lane_names[i], name) != 0) {
        i++;
    }
    if (i == TRANSPORT_N_LANES) {
        give_up("--lane: unknown");
    }
    return (transport_lane)i;
}

int main(int argc, char **argv)
{
    size_t sizes[MAX_SIZES] = {4096, 16384, 65536}, n_sizes = 3;
    double seconds = 1.0;
    samples all[N_WAYS];
    pid_t children[2];

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0) {
            seconds = strtod(argv[i + 1], NULL);
        } else if (strcmp(argv[i], "--sizes") == 0) {
            n_sizes = parse_sizes(argv[i + 1], sizes);
        } else if (strcmp(argv[i], "--lane") == 0) {
            lane = parse_lane(argv[i + 1]);
        } else {
            give_up("usage: bench_transport [--lane LANE] [--seconds S] [--sizes BYTES,...]");
        }
    }
    buffer = calloc(1, MAX_BYTES);
    if (buffer == NULL) {
        give_up("no memory");
    }
    int fd = start_socket_echo(&children[0]);
    start_frame_echo(&children[1]);
    printf("lane %s, two processes on one host, %d turns each\n", transport_carrier(endpoint, peer), TURNS);
    for (int w = 0; w < N_WAYS; w++) {
        all[w].us = malloc(MAX_SAMPLES * sizeof *all[w].us);
        if (all[w].us == NULL) {
            give_up("no memory");
        }
    }
    for (size_t s = 0; s < n_sizes; s++) {
        for (int w = 0; w < N_WAYS; w++) {
            all[w].n = 0;
        }
        for (int turn = 0; turn < TURNS; turn++) {
            for (int w = 0; w < N_WAYS; w++) {
                measure((way)w, fd, sizes[s], seconds / TURNS, &all[w]);
            }
        }
        report(sizes[s], all);
    }
    for (int i = 0; i < 2; i++) {
        (void)kill(children[i], SIGKILL);
        (void)waitpid(children[i], NULL, 0);
    }
    transport_close(endpoint);
    for (int w = 0; w < N_WAYS; w++) {
        free(all[w].us);
    }
    free(buffer);
    (void)close(fd);
    return 0;
}
