/* What the compute tests share: values that hurt, devices of every instruction set, and comparison of bits. */
#ifndef CONCLAVE_TESTS_TEST_COMPUTE_DEVICES_H
#define CONCLAVE_TESTS_TEST_COMPUTE_DEVICES_H

#include "compute/math.h"
#if defined(TEST_CUDA_FAKE) || defined(TEST_CUDA_REAL)
#define TEST_CUDA
#include "compute/module.h"
#endif
#if defined(TEST_CUDA_FAKE)
#include "tests/cuda/fake/fake.h"
#endif
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>

static inline float bits_to_f32(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline uint32_t f32_to_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

/* Mostly in (-1, 1); if wild, one in four is a zero of either sign, a denormal, tiny or large. */
static inline float any_value(moe_random *r, bool wild)
{
    float x = (float)(moe_random_unit(r) * 2.0 - 1.0);

    if (!wild || moe_random_below(r, 4) != 0) {
        return x;
    }
    switch (moe_random_below(r, 5)) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return bits_to_f32((uint32_t)moe_random_u64(r) & 0x807fffffu); /* denormal */
    case 3:
        return x * 0x1p-110f;
    default:
        return x * 0x1p40f;
    }
}

static inline float *any_values(uint64_t seed, size_t n, bool wild)
{
    float *x = malloc((n + 1) * sizeof(*x));
    moe_random r;

    assert_non_null(x);
    moe_random_seed(&r, seed);
    for (size_t i = 0; i < n; i++) {
        x[i] = any_value(&r, wild);
    }
    return x;
}

/* The same values in another dtype, malloced; F16 is made by truncation of moderate values and includes
 * its denormals. */
static inline void *in_dtype(const float *x, size_t n, compute_dtype dtype)
{
    unsigned char *out = malloc(n * 4 + 4);

    assert_non_null(out);
    for (size_t i = 0; i < n; i++) {
        uint32_t u = f32_to_bits(x[i]);
        uint16_t h = dtype == COMPUTE_BF16 ? (uint16_t)(u >> 16)
                                           : (uint16_t)((u >> 16 & 0x8000u) | (u >> 3 & 0x7fffu) % 0x5000u);

        if (dtype == COMPUTE_F32) {
            memcpy(out + 4 * i, x + i, 4);
        } else {
            memcpy(out + 2 * i, &h, 2);
        }
    }
    return out;
}

/* Equal bits; NaNs are alike. */
static inline void assert_same_bits(const void *a, const void *b, size_t n, compute_dtype dtype, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = 0, v = 0, magnitude = dtype == COMPUTE_F32 ? 0x7fffffffu : 0x7fffu;
        uint32_t infinity = dtype == COMPUTE_F32 ? 0x7f800000u : 0x7f80u;
        size_t bytes = compute_dtype_bytes(dtype);

        memcpy(&u, (const unsigned char *)a + i * bytes, bytes);
        memcpy(&v, (const unsigned char *)b + i * bytes, bytes);
        if (u != v && !((u & magnitude) > infinity && (v & magnitude) > infinity)) {
            fail_msg("%s: value %zu is %08x, expected %08x", what, i, u, v);
        }
    }
}

/* A device with its threads. */
typedef struct test_device {
    moe_threads *threads;
    compute_device *d;
} test_device;

#if defined(TEST_CUDA)
/* The programs of these tests are made a second time, with a CUDA device in the place of every instruction set but the
 * portable one. On the fake GPU the orders in which it runs things take the place of the sets: a scenario is run in one of
 * them, the next one in the next, for there are hundreds. */
#define TEST_MAX_THREADS 1u

const compute_module *conclave_compute_module(void);

static inline bool test_isa_available(compute_isa isa)
{
    static unsigned turn;

    if (isa == COMPUTE_ISA_PORTABLE) {
        turn++;
        return false;
    }
    return (unsigned)isa - COMPUTE_ISA_AVX2 == turn % 3;
}

static inline void test_order(compute_isa isa)
{
#if defined(TEST_CUDA_FAKE)
    fake_config config = {
        .order = FAKE_SEEDED, .copies = FAKE_BY_SEED, .streams = FAKE_BY_SEED, .seed = 7, .n_devices = 1};

    if (isa == COMPUTE_ISA_AVX2) {
        config.order = FAKE_ASCENDING;
        config.copies = FAKE_AT_ONCE;
        config.streams = FAKE_LATE;
    } else if (isa == COMPUTE_ISA_AVX512F) {
        config.order = FAKE_DESCENDING;
        config.copies = FAKE_LATE;
        config.streams = FAKE_AT_ONCE;
    }
    fake_configure(&config);
#endif
    (void)isa;
}

static inline moe_status test_open(const compute_device_options *o, compute_device **out, moe_error *err)
{
    if (o->isa == COMPUTE_ISA_PORTABLE) {
        return compute_open("cpu", o, out, err);
    }
    test_order(o->isa);
    return conclave_compute_module()->open(0, o, out, err);
}
#else
#define TEST_MAX_THREADS 3u

static inline bool test_isa_available(compute_isa isa)
{
    return compute_isa_available(isa);
}

static inline moe_status test_open(const compute_device_options *o, compute_device **out, moe_error *err)
{
    return compute_open("cpu", o, out, err);
}
#endif

static inline test_device test_device_open(compute_class c, compute_isa isa, size_t n_threads)
{
    test_device t;
    compute_device_options o = {.numeric_class = c,
                                .isa = isa,
                                .max_rows = 128,
                                .max_ffn_rows = 512,
                                .max_d_ff = 320,
                                .max_context = 200,
                                .max_routed_rows = 160};
    moe_error err;

    compute_thread_init();
    assert_int_equal(moe_threads_open(n_threads, compute_thread_init, &t.threads), MOE_OK);
    o.threads = t.threads;
    assert_ok(test_open(&o, &t.d, &err), err);
    return t;
}

static inline void test_device_close(test_device *t)
{
    compute_close(t->d);
    moe_threads_close(t->threads);
}

static inline compute_mem *on_device(compute_device *d, const void *from, size_t bytes)
{
    compute_mem *m = d->ops->alloc(d, bytes);

    assert_non_null(m);
    d->ops->upload(d, m, from, bytes);
    return m;
}

/* n values on the device in the class dtype of d, made from seed. */
static inline compute_mem *class_values(compute_device *d, uint64_t seed, size_t n, bool wild)
{
    compute_dtype dtype = compute_class_dtype(d->numeric_class);
    float *x = any_values(seed, n, wild);
    void *y = in_dtype(x, n, dtype);
    compute_mem *m = on_device(d, y, n * compute_dtype_bytes(dtype));

    free(x);
    free(y);
    return m;
}

static inline compute_mem *f32_values(compute_device *d, uint64_t seed, size_t n, bool wild)
{
    float *x = any_values(seed, n, wild);
    compute_mem *m = on_device(d, x, n * sizeof(*x));

    free(x);
    return m;
}

/* The rows of a step, begun. */
static inline compute_step *step_of(compute_device *d, size_t page_tokens, const compute_row *rows, size_t n)
{
    compute_step *s;

    assert_int_equal(d->ops->step_open(d, n, page_tokens, &s), MOE_OK);
    d->ops->step_begin(d, s, rows, n);
    return s;
}

/* Downloads, frees the device's copy. */
static inline void *take(compute_device *d, compute_mem *m, size_t bytes)
{
    void *out = malloc(bytes + 1);

    assert_non_null(out);
    assert_int_equal(d->ops->download(d, out, m, bytes), MOE_OK);
    d->ops->free(d, m);
    return out;
}

/* A scenario runs ops on a device and returns n values, malloced. The same scenario must give the same bits on every
 * instruction set and thread count as on the portable one with one thread. */
typedef struct scenario {
    const char *name;
    void *(*run)(compute_device *d, const void *ctx);
    const void *ctx;
    size_t n;
    compute_dtype dtype; /* COMPUTE_DTYPE_OTHER: the class dtype */
} scenario;

static inline void assert_same_everywhere(const scenario *s, compute_class c)
{
    static const compute_isa sets[] = {COMPUTE_ISA_PORTABLE, COMPUTE_ISA_AVX2, COMPUTE_ISA_AVX512F, COMPUTE_ISA_AVX512};
    compute_dtype dtype = s->dtype == COMPUTE_DTYPE_OTHER ? compute_class_dtype(c) : s->dtype;
    test_device t = test_device_open(c, COMPUTE_ISA_PORTABLE, 1);
    void *expected = s->run(t.d, s->ctx);

    test_device_close(&t);
    for (size_t i = 0; i < MOE_COUNT(sets); i++) {
        for (size_t n_threads = 1; n_threads <= TEST_MAX_THREADS && test_isa_available(sets[i]); n_threads++) {
            char what[128];
            void *got;

            t = test_device_open(c, sets[i], n_threads);
            got = s->run(t.d, s->ctx);
            test_device_close(&t);
            (void)snprintf(what, sizeof(what), "%s, %s, %s, %zu threads", s->name, compute_class_name(c),
                           compute_isa_name(sets[i]), n_threads);
            assert_same_bits(got, expected, s->n, dtype, what);
            free(got);
        }
    }
    free(expected);
}

static inline void assert_same_in_both_classes(const scenario *s)
{
    assert_same_everywhere(s, COMPUTE_CLASS_F32_1);
    assert_same_everywhere(s, COMPUTE_CLASS_BF16_1);
}

#endif
