/* Shared memory between two ends: what is handed over, what is read, and what an end that breaks the rules can do. */
#include "tests/support/support.h"
#include "transport/ring_priv.h"
#include "transport/shm_priv.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------ ring */
enum { SIZE = 1024 };

typedef struct rings {
    ring_places places;
    unsigned char bytes[SIZE];
    ring in, out;
} rings;

static void rings_init(rings *r, uint32_t at)
{
    memset(r, 0, sizeof *r);
    r->in = r->out = (ring){&r->places, r->bytes, SIZE, at};
    atomic_store(&r->places.written, at);
    atomic_store(&r->places.taken, at);
}

/* Bytes that follow from their number in the stream, in pieces of all lengths, over the end of the ring and of the
 * counts. */
static void bytes_come_whole_and_in_order(void **state)
{
    static rings r;
    moe_random random;
    unsigned char piece[2 * SIZE];
    size_t written = 0, seen = 0, n;

    (void)state;
    moe_random_seed(&random, 7);
    rings_init(&r, UINT32_MAX - 3000);
    while (seen < 100000) {
        size_t want = moe_random_below(&random, sizeof piece);

        for (size_t i = 0; i < want; i++) {
            piece[i] = (unsigned char)((written + i) * 31 >> 3);
        }
        assert_int_equal(ring_write(&r.out, piece, want, &n), MOE_OK);
        assert_true(n <= want && (n == want || !ring_has_room(&r.out)));
        written += n;
        assert_int_equal(ring_read(&r.in, piece, moe_random_below(&random, sizeof piece), &n), MOE_OK);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(piece[i], (unsigned char)((seen + i) * 31 >> 3));
        }
        seen += n;
        assert_int_equal(ring_has_bytes(&r.in), written != seen);
    }
}

static void places_that_cannot_be_are_refused(void **state)
{
    static const uint32_t bad[] = {SIZE + 1, 2 * SIZE, UINT32_MAX - 5 * SIZE, UINT32_MAX / 2};
    unsigned char piece[SIZE] = {0};
    static rings r;
    size_t n = 1;

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        rings_init(&r, 0);
        atomic_store(&r.places.written, bad[i]);
        assert_true(ring_has_bytes(&r.in));
        assert_int_equal(ring_read(&r.in, piece, sizeof piece, &n), MOE_ERR_CORRUPT);
        assert_int_equal(n, 0);
        rings_init(&r, 0);
        atomic_store(&r.places.taken, bad[i]);
        assert_int_equal(ring_write(&r.out, piece, sizeof piece, &n), MOE_ERR_CORRUPT);
        assert_int_equal(n, 0);
    }
}

/* ------------------------------------------------------------------------------------------------ handing over */
static const unsigned char key[SHM_KEY] = "a key that the two ends know";
static unsigned char name[SHM_NAME];
static int door;

static int setup(void **state)
{
    moe_error err;

    (void)state;
    assert_ok(shm_door_open(&door, name, &err), err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)close(door);
    return 0;
}

static void open_pair(shm **maker, shm **other)
{
    moe_error err;

    assert_ok(shm_hand_in(name, key, maker, &err), err);
    assert_ok(shm_take(door, key, other, &err), err);
}

static void both_ends_have_the_same_memory(void **state)
{
    shm *a, *b;
    char text[8] = "";
    size_t n;

    (void)state;
    open_pair(&a, &b);
    assert_memory_equal(shm_token(a), shm_token(b), SHM_TOKEN);
    assert_int_equal(shm_write(a, "to b", 5, &n), MOE_OK);
    assert_int_equal(shm_write(b, "to a", 5, &n), MOE_OK);
    assert_int_equal(shm_read(b, text, sizeof text, &n), MOE_OK);
    assert_string_equal(text, "to b");
    assert_int_equal(shm_read(a, text, sizeof text, &n), MOE_OK);
    assert_string_equal(text, "to a");
    shm_close(a);
    shm_close(b);
}

static void where_there_is_no_door_it_is_not_found(void **state)
{
    const unsigned char nowhere[SHM_NAME] = {1, 2, 3};
    moe_error err;
    shm *s;

    (void)state;
    assert_int_equal(shm_hand_in(nowhere, key, &s, &err), MOE_ERR_NOT_FOUND);
    assert_int_equal(shm_take(door, key, &s, &err), MOE_ERR_NOT_FOUND);
}

static void what_comes_with_another_key_is_not_taken(void **state)
{
    const unsigned char other_key[SHM_KEY] = "a key of a stranger's";
    shm *stranger, *a, *b;
    moe_error err;

    (void)state;
    for (int i = 0; i < 5; i++) { /* they are before ours, and theirs is closed */
        assert_ok(shm_hand_in(name, other_key, &stranger, &err), err);
        struct pollfd p = {.fd = shm_fd(stranger), .events = POLLIN};
        assert_int_equal(poll(&p, 1, 0), 0);
        assert_int_equal(shm_take(door, key, &b, &err), MOE_ERR_NOT_FOUND);
        assert_int_equal(poll(&p, 1, 0), 1);
        assert_false(shm_hear(stranger));
        shm_close(stranger);
    }
    open_pair(&a, &b);
    shm_close(a);
    shm_close(b);
}

/* A datagram with the right key and these descriptors. */
static void hand_in_by_hand(const int *fds, size_t n_fds)
{
    struct sockaddr_un to;
    socklen_t bytes = sizeof to;
    char control[CMSG_SPACE(2 * sizeof(int))] = {0};
    struct iovec text = {(void *)(uintptr_t)key, sizeof key};

    assert_int_equal(getsockname(door, (struct sockaddr *)&to, &bytes), 0);
    struct msghdr m = {.msg_name = &to, .msg_namelen = bytes, .msg_iov = &text, .msg_iovlen = 1};
    if (n_fds > 0) {
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        *CMSG_FIRSTHDR(&m) = (struct cmsghdr){CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, n_fds * sizeof(int));
    }
    int from = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_int_equal(sendmsg(from, &m, 0), sizeof key);
    (void)close(from);
}

/* The size of the memory, which is the module's own: from one that was handed in. */
static off_t size_of_memory(void)
{
    char control[CMSG_SPACE(2 * sizeof(int))];
    unsigned char text[SHM_KEY];
    struct iovec bytes = {text, sizeof text};
    struct msghdr m = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    moe_error err;
    int fds[2];
    shm *s;

    assert_ok(shm_hand_in(name, key, &s, &err), err);
    assert_int_equal(recvmsg(door, &m, 0), sizeof text);
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fds);
    shm_close(s);
    off_t size = lseek(fds[0], 0, SEEK_END);
    assert_int_equal(ftruncate(fds[0], size - 4096), -1); /* nor can we */
    (void)close(fds[0]);
    (void)close(fds[1]);
    return size;
}

static void memory_that_could_be_cut_is_refused(void **state)
{
    off_t size = size_of_memory();
    int pair[2], zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
    int loose = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int small = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int good = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    moe_error err;
    shm *s;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(ftruncate(loose, size) | ftruncate(small, size / 2) | ftruncate(good, size), 0);
    assert_int_equal(fcntl(small, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    assert_int_equal(fcntl(good, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    const int bad[][2] = {{loose, pair[0]}, {small, pair[0]}, {zero, pair[0]}, {pair[0], pair[0]}, {good, zero}};
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        hand_in_by_hand(bad[i], 2);
        assert_int_equal(shm_take(door, key, &s, &err), MOE_ERR_CORRUPT);
    }
    for (size_t n = 0; n < 2; n++) {
        hand_in_by_hand((int[]){good, pair[0]}, n);
        assert_int_equal(shm_take(door, key, &s, &err), MOE_ERR_NOT_FOUND);
    }
    hand_in_by_hand((int[]){good, pair[0]}, 2);
    assert_ok(shm_take(door, key, &s, &err), err);
    shm_close(s);
    const int all[] = {pair[0], pair[1], zero, loose, small, good};
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        (void)close(all[i]);
    }
}

/* ------------------------------------------------------------------------------------------------ waking */
static bool is_woken(const shm *s)
{
    struct pollfd p = {.fd = shm_fd(s), .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static void only_an_end_that_sleeps_for_it_is_woken(void **state)
{
    static unsigned char much[1 << 20];
    shm *a, *b;
    size_t n;

    (void)state;
    open_pair(&a, &b);
    assert_int_equal(shm_write(a, "x", 1, &n), MOE_OK);
    shm_tell(a);
    assert_false(is_woken(b)); /* awake */
    assert_false(shm_sleep(b, false));
    assert_int_equal(shm_read(b, much, 1, &n), MOE_OK);
    assert_true(shm_sleep(b, false));
    assert_int_equal(shm_write(a, much, sizeof much, &n), MOE_OK);
    assert_false(is_woken(b));
    shm_tell(a);
    assert_true(is_woken(b));
    assert_true(shm_hear(b));
    assert_false(is_woken(b));
    assert_true(shm_sleep(a, true)); /* for room */
    assert_int_equal(shm_read(b, much, 1, &n), MOE_OK);
    shm_tell(b);
    assert_true(is_woken(a) && shm_hear(a));
    assert_true(shm_sleep(a, false)); /* for bytes */
    assert_int_equal(shm_read(b, much, 1, &n), MOE_OK);
    shm_tell(b);
    assert_false(is_woken(a));
    shm_close(a);
    assert_true(is_woken(b) && !shm_hear(b));
    assert_int_equal(shm_read(b, much, sizeof much, &n), MOE_OK); /* what was written before */
    assert_true(n > 1000);
    shm_close(b);
}

static void say(shm *s, uint32_t serial)
{
    size_t n;

    MOE_ASSERT(shm_write(s, &serial, sizeof serial, &n) == MOE_OK && n == sizeof serial);
    shm_tell(s);
}

static void hear(shm *s, uint32_t serial)
{
    uint32_t found = ~serial;
    size_t n;

    for (size_t at = 0; at < sizeof found; at += n) {
        MOE_ASSERT(shm_read(s, (char *)&found + at, sizeof found - at, &n) == MOE_OK);
        if (n == 0 && shm_sleep(s, false)) {
            struct pollfd p = {.fd = shm_fd(s), .events = POLLIN};

            (void)poll(&p, 1, -1);
            (void)!shm_hear(s); /* the other one may have ended, after its last bytes */
        }
        shm_awake(s);
    }
    MOE_ASSERT(found == serial);
}

/* Two processes, which sleep whenever they can; a wake-up that is lost is a test that never ends. */
static void no_wake_up_is_lost(void **state)
{
    enum { ROUNDS = 20000 };
    int status;
    shm *a, *b;

    (void)state;
    open_pair(&a, &b);
    pid_t child = fork();
    assert_true(child >= 0);
    shm_close(child == 0 ? a : b);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (child == 0) {
            hear(b, i);
            say(b, i + 1);
        } else {
            say(a, i);
            hear(a, i + 1);
        }
    }
    if (child == 0) {
        _exit(0);
    }
    (void)waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    shm_close(a);
}

/* Whatever the other end writes, in whatever order, and whenever: reads end, and bytes come from the ring alone. */
static void an_end_that_writes_anything_harms_nobody(void **state)
{
    static unsigned char piece[300000];
    moe_random random;
    size_t n;

    (void)state;
    moe_random_seed(&random, 3);
    for (int round = 0; round < 30; round++) {
        off_t size = size_of_memory();
        int pair[2], memory = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        moe_error err;
        shm *s;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) | ftruncate(memory, size), 0);
        assert_int_equal(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
        uint32_t *words = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
        assert_ptr_not_equal(words, MAP_FAILED);
        hand_in_by_hand((int[]){memory, pair[1]}, 2);
        assert_ok(shm_take(door, key, &s, &err), err);
        for (int i = 0; i < 200; i++) {
            for (size_t w = 0; w < 256; w++) { /* the head of the memory */
                words[w] = moe_random_below(&random, 2) == 0 ? (uint32_t)moe_random_below(&random, 300000)
                                                             : (uint32_t)moe_random_u64(&random);
            }
            moe_status status = i % 2 == 0 ? shm_read(s, piece, moe_random_below(&random, sizeof piece), &n)
                                           : shm_write(s, piece, moe_random_below(&random, sizeof piece), &n);
            assert_true(status == MOE_OK || (status == MOE_ERR_CORRUPT && n == 0));
            shm_tell(s);
            (void)!shm_sleep(s, i % 3 == 0);
            shm_awake(s);
            assert_true(shm_hear(s));
        }
        shm_close(s);
        (void)munmap(words, (size_t)size);
        (void)close(memory);
        (void)close(pair[0]);
        (void)close(pair[1]);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_whole_and_in_order),
        cmocka_unit_test(places_that_cannot_be_are_refused),
        TEST(both_ends_have_the_same_memory),
        TEST(where_there_is_no_door_it_is_not_found),
        TEST(what_comes_with_another_key_is_not_taken),
        TEST(memory_that_could_be_cut_is_refused),
        TEST(only_an_end_that_sleeps_for_it_is_woken),
        TEST(no_wake_up_is_lost),
        TEST(an_end_that_writes_anything_harms_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
