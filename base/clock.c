#include "base/base.h"

#include <sys/random.h>
#include <time.h>

static uint64_t real_now_ns(void *ctx)
{
    struct timespec now;

    (void)ctx;
    MOE_ASSERT(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const moe_clock *moe_clock_real(void)
{
    static const moe_clock real = {real_now_ns, NULL};

    return &real;
}

uint64_t moe_wall_ms(void)
{
    struct timespec now;

    MOE_ASSERT(clock_gettime(CLOCK_REALTIME, &now) == 0);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static uint64_t virtual_now_ns(void *ctx)
{
    return ((const moe_clock_virtual *)ctx)->time_ns;
}

void moe_clock_virtual_init(moe_clock_virtual *v, uint64_t start_ns)
{
    v->clock = (moe_clock){virtual_now_ns, v};
    v->time_ns = start_ns;
}

void moe_clock_virtual_advance(moe_clock_virtual *v, uint64_t by_ns)
{
    v->time_ns += by_ns;
}

void moe_random_seed(moe_random *r, uint64_t seed)
{
    r->state = seed;
}

/* Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014). */
uint64_t moe_random_u64(moe_random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t moe_random_below(moe_random *r, uint64_t bound)
{
    uint64_t v, uneven;

    MOE_ASSERT(bound > 0);
    uneven = (0 - bound) % bound; /* 2^64 mod bound: the low values that would come up once too often */
    do {
        v = moe_random_u64(r);
    } while (v < uneven);
    return v % bound;
}

double moe_random_unit(moe_random *r)
{
    return (double)(moe_random_u64(r) >> 11) * 0x1p-53;
}

uint64_t moe_random_entropy(void)
{
    uint64_t v = 0;

    MOE_ASSERT(getentropy(&v, sizeof v) == 0);
    return v;
}
