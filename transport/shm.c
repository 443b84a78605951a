/* Shared memory between two processes: made, handed over, used. */
#include "transport/shm_priv.h"

#include "transport/ring_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

/* Chosen, not measured.
 *
 *   RING_BYTES   one way: the frames of a decoding step fit whole, and larger ones go through in pieces. It is taken for
 *                each connection, so a coordinator with 64 nodes on its host takes 32 MiB
 *   DOOR_LOOKS   datagrams that are looked at, ours among them: a door holds about ten by default */
#define RING_BYTES (256u << 10)
#define HEAD_BYTES 4096u /* a page of its own for what is no frame; the sum is no multiple of a huge page */
#define BYTES      (HEAD_BYTES + 2 * (size_t)RING_BYTES)
#define DOOR_LOOKS 16
#define NAME_HEAD  "conclave-"
#define NAME_BYTES (sizeof NAME_HEAD - 1 + (size_t)2 * SHM_NAME)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u /* Linux 6.3 */
#endif

/* What an end that sleeps waits for. */
#define WANTS_BYTES 1u
#define WANTS_ROOM  2u

/* In shared memory. The maker is the end that made it. */
typedef struct shm_head {
    unsigned char token[SHM_TOKEN];
    ring_places places[2]; /* of what the maker writes, of what the other one writes */
    struct {
        _Alignas(64) _Atomic uint32_t wants;
    } end[2]; /* the maker, the other one */
} shm_head;
_Static_assert(sizeof(shm_head) <= HEAD_BYTES, "the head has a page");

struct shm {
    shm_head *head; /* owned mapping [BYTES] */
    int fd;         /* owned: this end of the pair */
    unsigned me;    /* 0: the maker */
    ring in, out;
    unsigned char token[SHM_TOKEN]; /* a copy: the other end may change what is in the memory */
    uint32_t done;                  /* since the last shm_tell: WANTS_ of the other end */
};

/* ------------------------------------------------------------------------------------------------ memory */
static moe_status fail_errno(moe_error *err, const char *what)
{
    moe_status status = errno == ENOMEM || errno == ENOSPC ? MOE_ERR_NO_MEMORY : MOE_ERR_UNAVAILABLE;

    return moe_fail(err, status, "shared memory: %s: %s", what, strerror(errno));
}

/* All of it is there from the beginning, and stays: who writes it later gets no SIGBUS for want of a page. */
static moe_status memory_make(int *fd_out, moe_error *err)
{
    int fd = memfd_create("conclave", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create("conclave", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    if (fd < 0 || ftruncate(fd, (off_t)BYTES) != 0 || fallocate(fd, 0, 0, (off_t)BYTES) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        moe_status status = fail_errno(err, "not made");

        if (fd >= 0) {
            (void)close(fd);
        }
        return status;
    }
    *fd_out = fd;
    return MOE_OK;
}

/* Whether it is memory of this size that nobody can cut, and a socket. */
static bool is_as_made(int memory, int socket)
{
    struct stat is;
    int seals = fcntl(memory, F_GET_SEALS), domain = 0, type = 0;
    socklen_t bytes = sizeof domain;

    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(memory, &is) == 0 && is.st_size == (off_t)BYTES &&
           getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_UNIX &&
           getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_STREAM;
}

/* Owns socket from now on, also when it fails. */
static moe_status shm_map(int memory, int socket, unsigned me, shm **out, moe_error *err)
{
    void *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    shm *s = at == MAP_FAILED ? NULL : calloc(1, sizeof *s);

    if (s == NULL) {
        moe_status status = fail_errno(err, "not mapped");

        if (at != MAP_FAILED) {
            (void)munmap(at, BYTES);
        }
        (void)close(socket);
        return status;
    }
    unsigned char *bytes = (unsigned char *)at + HEAD_BYTES;
    *s = (shm){.head = at, .fd = socket, .me = me};
    s->out = (ring){&s->head->places[me], bytes + (size_t)me * RING_BYTES, RING_BYTES, 0};
    s->in = (ring){&s->head->places[1 - me], bytes + (size_t)(1 - me) * RING_BYTES, RING_BYTES, 0};
    memcpy(s->token, s->head->token, sizeof s->token);
    *out = s;
    return MOE_OK;
}

void shm_close(shm *s)
{
    if (s != NULL) {
        (void)munmap(s->head, BYTES);
        (void)close(s->fd);
        free(s);
    }
}

const unsigned char *shm_token(const shm *s)
{
    return s->token;
}

/* ------------------------------------------------------------------------------------------------ handing over */
static socklen_t door_address(const unsigned char name[SHM_NAME], struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX}; /* a name that begins with 0 is in no file system */
    (void)snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "%s", NAME_HEAD);
    for (size_t i = 0; i < SHM_NAME; i++) {
        (void)snprintf(out->sun_path + sizeof NAME_HEAD + 2 * i, 3, "%02x", name[i]);
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + NAME_BYTES);
}

moe_status shm_door_open(int *fd_out, unsigned char name_out[SHM_NAME], moe_error *err)
{
    struct sockaddr_un at;
    int fd = RAND_bytes(name_out, SHM_NAME) == 1 ? socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, door_address(name_out, &at)) != 0) {
        moe_status status = fail_errno(err, "no socket");

        if (fd >= 0) {
            (void)close(fd);
        }
        return status;
    }
    *fd_out = fd;
    return MOE_OK;
}

typedef union control {
    char bytes[CMSG_SPACE(2 * sizeof(int))];
    struct cmsghdr align;
} control;

/* The memory and the other end of the pair, behind the key. */
static moe_status hand_over(const unsigned char name[SHM_NAME], const unsigned char key[SHM_KEY], const int fds[2],
                            moe_error *err)
{
    struct sockaddr_un to;
    struct iovec bytes = {(void *)(uintptr_t)key, SHM_KEY};
    control c = {{0}};
    struct msghdr m = {.msg_name = &to,
                       .msg_namelen = door_address(name, &to),
                       .msg_iov = &bytes,
                       .msg_iovlen = 1,
                       .msg_control = c.bytes,
                       .msg_controllen = sizeof c.bytes};
    struct cmsghdr *head = CMSG_FIRSTHDR(&m);
    int from = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    *head = (struct cmsghdr){CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(head), fds, 2 * sizeof(int));
    ssize_t n = from < 0 ? -1 : sendmsg(from, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    moe_status status = n == SHM_KEY            ? MOE_OK
                        : errno == ECONNREFUSED ? moe_fail(err, MOE_ERR_NOT_FOUND, "another host or network namespace")
                                                : fail_errno(err, "not handed over");
    if (from >= 0) {
        (void)close(from);
    }
    return status;
}

moe_status shm_hand_in(const unsigned char name[SHM_NAME], const unsigned char key[SHM_KEY], shm **out, moe_error *err)
{
    int pair[2], memory = -1;
    shm *s;
    moe_status status = memory_make(&memory, err);

    if (status != MOE_OK) {
        return status;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
        status = fail_errno(err, "no pair of sockets");
        (void)close(memory);
        return status;
    }
    status = shm_map(memory, pair[0], 0, &s, err);
    if (status == MOE_OK) {
        bool has_token = RAND_bytes(s->token, SHM_TOKEN) == 1;

        memcpy(s->head->token, s->token, SHM_TOKEN);
        status = has_token ? hand_over(name, key, (int[]){memory, pair[1]}, err)
                           : moe_fail(err, MOE_ERR_UNAVAILABLE, "no random numbers");
        if (status != MOE_OK) {
            shm_close(s);
        }
    }
    (void)close(pair[1]);
    (void)close(memory);
    if (status == MOE_OK) {
        *out = s;
    }
    return status;
}

/* Descriptors that came are closed unless it is true. */
static bool receive_one(int door, const unsigned char key[SHM_KEY], int fds[2], bool *empty_out)
{
    unsigned char found[SHM_KEY];
    struct iovec bytes = {found, sizeof found};
    control c;
    struct msghdr m = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = c.bytes, .msg_controllen = sizeof c.bytes};
    ssize_t n = recvmsg(door, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *head = n < 0 ? NULL : CMSG_FIRSTHDR(&m);
    size_t n_fds = 0;

    *empty_out = n < 0;
    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
        n_fds = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int); /* two at most: the kernel closes what has no room */
        memcpy(fds, CMSG_DATA(head), n_fds * sizeof(int));
    }
    if (n == SHM_KEY && n_fds == 2 && CRYPTO_memcmp(found, key, SHM_KEY) == 0) {
        return true;
    }
    for (size_t i = 0; i < n_fds; i++) {
        (void)close(fds[i]);
    }
    return false;
}

moe_status shm_take(int door, const unsigned char key[SHM_KEY], shm **out, moe_error *err)
{
    bool empty = false;
    int fds[2];

    for (int i = 0; i < DOOR_LOOKS && !empty; i++) {
        if (!receive_one(door, key, fds, &empty)) {
            continue;
        }
        moe_status status;

        if (is_as_made(fds[0], fds[1])) {
            status = shm_map(fds[0], fds[1], 1, out, err);
        } else {
            (void)close(fds[1]);
            status = moe_fail(err, MOE_ERR_CORRUPT, "shared memory: its size can change, or it is none");
        }
        (void)close(fds[0]);
        return status;
    }
    return moe_fail(err, MOE_ERR_NOT_FOUND, "shared memory: none was handed in");
}

/* ------------------------------------------------------------------------------------------------ use */
int shm_fd(const shm *s)
{
    return s->fd;
}

bool shm_hear(shm *s)
{
    char bytes[64];
    ssize_t n = recv(s->fd, bytes, sizeof bytes, MSG_DONTWAIT);

    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

moe_status shm_write(shm *s, const void *from, size_t n, size_t *n_out)
{
    moe_status status = ring_write(&s->out, from, n, n_out);

    s->done |= *n_out > 0 ? WANTS_BYTES : 0;
    return status;
}

moe_status shm_read(shm *s, void *to, size_t n, size_t *n_out)
{
    moe_status status = ring_read(&s->in, to, n, n_out);

    s->done |= *n_out > 0 ? WANTS_ROOM : 0;
    return status;
}

/* Here the place of the ring is written, then `wants` is changed; in shm_sleep `wants` is changed, then the place is read.
 * Both are changes of one variable, so one of the two comes later and sees what the other has done: nobody sleeps on. */
void shm_tell(shm *s)
{
    if (s->done != 0) {
        _Atomic uint32_t *wants = &s->head->end[1 - s->me].wants;

        if ((atomic_fetch_and_explicit(wants, ~s->done, memory_order_acq_rel) & s->done) != 0) {
            (void)!send(s->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* one that is not taken has others before it */
        }
        s->done = 0;
    }
}

bool shm_has_bytes(const shm *s)
{
    return ring_has_bytes(&s->in);
}

bool shm_sleep(shm *s, bool for_room)
{
    uint32_t wants = WANTS_BYTES | (for_room ? WANTS_ROOM : 0);

    (void)atomic_exchange_explicit(&s->head->end[s->me].wants, wants, memory_order_acq_rel);
    return !ring_has_bytes(&s->in) && !(for_room && ring_has_room(&s->out));
}

void shm_awake(shm *s)
{
    atomic_store_explicit(&s->head->end[s->me].wants, 0, memory_order_relaxed);
}
