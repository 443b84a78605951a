/* The test device: a CPU device whose buffers are opened (mprotect) by its own ops only. Each op unprotects all
 * buffers, runs the inner device's op and protects them again, so a pointer that host code follows into device memory
 * is a fault. */
#include "compute/cpu_priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct guarded_buffer {
    struct guarded_buffer *next;
    unsigned char *pages;
    size_t bytes;
} guarded_buffer;

typedef struct guarded_device {
    compute_device base;
    compute_ops ops;
    compute_device *inner;   /* owned */
    guarded_buffer *buffers; /* owned */
} guarded_device;

static void protect(const guarded_device *g, int access)
{
    for (const guarded_buffer *b = g->buffers; b != NULL; b = b->next) {
        MOE_ASSERT(mprotect(b->pages, b->bytes, access) == 0);
    }
}

static compute_device *enter(compute_device *d)
{
    protect((guarded_device *)d, PROT_READ | PROT_WRITE);
    return ((guarded_device *)d)->inner;
}

static void leave(compute_device *d)
{
    protect((guarded_device *)d, PROT_NONE);
}

static compute_device *inner_of(const compute_device *d)
{
    return ((const guarded_device *)d)->inner;
}

static compute_mem *guarded_alloc(compute_device *d, size_t bytes)
{
    guarded_device *g = (guarded_device *)d;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    guarded_buffer *b;

    if (bytes > SIZE_MAX - page) {
        return NULL;
    }
    b = malloc(sizeof(*b));
    if (b == NULL) {
        return NULL;
    }
    b->bytes = moe_round_up(MOE_MAX(bytes, 1), page);
    b->pages = mmap(NULL, b->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->pages == MAP_FAILED) {
        free(b);
        return NULL;
    }
    b->next = g->buffers;
    g->buffers = b;
    return (compute_mem *)(void *)b->pages;
}

static void guarded_free(compute_device *d, compute_mem *m)
{
    guarded_buffer **link = &((guarded_device *)d)->buffers, *b;

    if (m == NULL) {
        return;
    }
    while (*link != NULL && (*link)->pages != (unsigned char *)m) {
        link = &(*link)->next;
    }
    b = *link;
    MOE_ASSERT(b != NULL);
    *link = b->next;
    (void)munmap(b->pages, b->bytes);
    free(b);
}

static void guarded_close(compute_device *d)
{
    guarded_device *g = (guarded_device *)d;

    while (g->buffers != NULL) {
        guarded_free(d, (compute_mem *)(void *)g->buffers->pages);
    }
    compute_close(g->inner);
    free(g);
}

/* ------------------------------------------------------------------------------------------------ passed on
 * By kind, see compute/ops.h. */
#define PASS_OWN(result, name, parameters, arguments)
#define PASS_QUEUED(result, name, parameters, arguments)                                                               \
    static void guarded_##name parameters                                                                              \
    {                                                                                                                  \
        compute_device *outer = d;                                                                                     \
        d = enter(outer);                                                                                              \
        d->ops->name arguments;                                                                                        \
        leave(outer);                                                                                                  \
    }
#define PASS_FETCHED(result, name, parameters, arguments)                                                              \
    static result guarded_##name parameters                                                                            \
    {                                                                                                                  \
        compute_device *outer = d;                                                                                     \
        d = enter(outer);                                                                                              \
        result r = d->ops->name arguments;                                                                             \
        leave(outer);                                                                                                  \
        return r;                                                                                                      \
    }
#define PASS_HOST(result, name, parameters, arguments)                                                                 \
    static void guarded_##name parameters                                                                              \
    {                                                                                                                  \
        d = inner_of(d);                                                                                               \
        d->ops->name arguments;                                                                                        \
    }
#define PASS_ASKED(result, name, parameters, arguments)                                                                \
    static result guarded_##name parameters                                                                            \
    {                                                                                                                  \
        d = inner_of(d);                                                                                               \
        return d->ops->name arguments;                                                                                 \
    }
#define PASS_OPTIONAL                                         PASS_HOST
#define PASS_OPTIONAL_ASKED                                   PASS_ASKED
#define COMPUTE_OP(kind, result, name, parameters, arguments) PASS_##kind(result, name, parameters, arguments)
#include "compute/ops.h"

static const compute_ops all_ops = {
#define COMPUTE_OP(kind, result, name, parameters, arguments) .name = guarded_##name,
#include "compute/ops.h"
};

/* What the inner device has not, this one has not. */
static void ops_init(compute_ops *ops, const compute_ops *inner)
{
    *ops = all_ops;
#define COMPUTE_OP(kind, result, name, parameters, arguments) ops->name = inner->name != NULL ? ops->name : NULL;
#include "compute/ops.h"
}

moe_status guarded_open(const compute_device_options *options, compute_device **out, moe_error *err)
{
    guarded_device *g = calloc(1, sizeof(*g));
    moe_status status;

    if (g == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for a device");
    }
    status = cpu_open(options, &g->inner, err);
    if (status != MOE_OK) {
        free(g);
        return status;
    }
    ops_init(&g->ops, g->inner->ops);
    g->base = (compute_device){
        .ops = &g->ops, .numeric_class = options->numeric_class, .place = "guarded", .name = g->inner->name};
    *out = &g->base;
    return MOE_OK;
}
