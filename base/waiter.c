#include "base/wait_priv.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* Sleeper: announce, then look at woken. Waker: set woken, then look at announced. Both in the one order of
 * sequentially consistent operations, so at least one of them sees the other. */
struct moe_waiter {
    int fd;
    atomic_bool woken;
    atomic_bool announced;
};

#define YIELD_NS        1000000u
#define YIELD_SHARED_NS 100000u

bool moe_wait_moment(uint64_t idle_ns, bool shared)
{
    if (idle_ns < MOE_WAIT_SPIN_NS && !shared) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
        return true;
    }
    if (idle_ns >= (shared ? YIELD_SHARED_NS : YIELD_NS)) {
        return false;
    }
    (void)sched_yield();
    return true;
}

moe_status moe_waiter_open(moe_waiter **out)
{
    moe_waiter *w = calloc(1, sizeof *w);

    if (w == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0) {
        free(w);
        return MOE_ERR_IO;
    }
    atomic_init(&w->woken, false);
    atomic_init(&w->announced, false);
    *out = w;
    return MOE_OK;
}

void moe_waiter_close(moe_waiter *w)
{
    if (w != NULL) {
        (void)close(w->fd);
        free(w);
    }
}

static bool take_wake(moe_waiter *w)
{
    return atomic_load(&w->woken) && atomic_exchange(&w->woken, false);
}

static void sleep_on_fd(moe_waiter *w, uint64_t timeout_ns)
{
    struct pollfd pollfd = {.fd = w->fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    uint64_t count;

    if (ppoll(&pollfd, 1, &timeout, NULL) > 0) {
        MOE_ASSERT(read(w->fd, &count, sizeof count) == (ssize_t)sizeof count || errno == EAGAIN);
    }
}

void moe_waiter_wait(moe_waiter *w, bool (*ready)(void *ctx), void *ctx, uint64_t timeout_ns)
{
    uint64_t start_ns = timeout_ns > 0 ? moe_now_ns(moe_clock_real()) : 0;
    wait_stage stage = {0};

    for (;;) {
        uint64_t waited_ns;

        if (take_wake(w) || (ready != NULL && ready(ctx)) || timeout_ns == 0) {
            return;
        }
        if (wait_a_moment(&stage)) {
            if (stage.waited_ns >= timeout_ns) {
                return;
            }
            continue;
        }
        waited_ns = moe_now_ns(moe_clock_real()) - start_ns;
        if (waited_ns >= timeout_ns) {
            return;
        }
        atomic_store(&w->announced, true);
        if (!atomic_load(&w->woken) && (ready == NULL || !ready(ctx))) {
            sleep_on_fd(w, timeout_ns - waited_ns);
        }
        atomic_store(&w->announced, false);
    }
}

void moe_waiter_wake(moe_waiter *w)
{
    const uint64_t one = 1;

    atomic_store(&w->woken, true);
    if (atomic_load(&w->announced)) {
        /* EAGAIN: the counter is full, so the sleeper is being woken as it is. */
        MOE_ASSERT(write(w->fd, &one, sizeof one) == (ssize_t)sizeof one || errno == EAGAIN);
    }
}
