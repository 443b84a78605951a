/* The test device: a CPU device whose buffers are opened (mprotect) by its own ops only. Each op unprotects all
 * buffers, runs the inner device's op and protects them again, so a pointer that host code follows into device memory
 * is a fault. And one that takes its time: what gather_out was asked for is there when its ticket has been asked for twice, or
 * waited for; until then the host's memory holds a pattern. */
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

/* Rows on their way out. */
typedef struct guarded_late {
    struct guarded_late *next;
    compute_ticket ticket;
    bool asked;
    void *to;
    size_t bytes;
    unsigned char rows[];
} guarded_late;

typedef struct guarded_device {
    compute_device base;
    compute_ops ops;
    compute_device *inner;   /* owned */
    guarded_buffer *buffers; /* owned */
    guarded_late *late;      /* owned, oldest first */
    compute_ticket last_ticket;
} guarded_device;

#define LATE_PATTERN 0xA5

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

/* ------------------------------------------------------------------------------------------------ taking time */
static compute_ticket late_gather_out(compute_device *d, void *to, const compute_mem *from, const uint32_t *rows,
                                      size_t row_bytes, size_t n)
{
    guarded_device *g = (guarded_device *)d;
    guarded_late *l = malloc(sizeof *l + n * row_bytes), **end = &g->late;

    MOE_ASSERT(l != NULL);
    *l = (guarded_late){.ticket = ++g->last_ticket, .to = to, .bytes = n * row_bytes};
    (void)enter(d);
    compute_ticket none = g->inner->ops->gather_out(g->inner, l->rows, from, rows, row_bytes, n);
    leave(d);
    MOE_ASSERT(none == 0);
    if (l->bytes > 0) {
        memset(to, LATE_PATTERN, l->bytes);
    }
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = l;
    return l->ticket;
}

static moe_status late_wait(compute_device *d, compute_ticket t)
{
    guarded_device *g = (guarded_device *)d;

    while (g->late != NULL && g->late->ticket <= t) {
        guarded_late *l = g->late;

        g->late = l->next;
        if (l->bytes > 0) {
            memcpy(l->to, l->rows, l->bytes);
        }
        free(l);
    }
    return MOE_OK;
}

static moe_status late_reached(compute_device *d, compute_ticket t)
{
    const guarded_device *g = (const guarded_device *)d;

    for (guarded_late *l = g->late; l != NULL && l->ticket <= t; l = l->next) {
        if (l->ticket == t && !l->asked) {
            l->asked = true;
            return MOE_ERR_BUSY;
        }
    }
    return late_wait(d, t);
}

static moe_status late_sync(compute_device *d)
{
    return late_wait(d, ((guarded_device *)d)->last_ticket);
}

static void guarded_close(compute_device *d)
{
    guarded_device *g = (guarded_device *)d;

    while (g->late != NULL) {
        guarded_late *l = g->late;

        g->late = l->next;
        free(l);
    }
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
#define PASS_OPTIONAL_FETCHED                                 PASS_FETCHED
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
    g->ops.gather_out = late_gather_out;
    g->ops.reached = late_reached;
    g->ops.wait = late_wait;
    g->ops.sync = late_sync;
    g->base = (compute_device){
        .ops = &g->ops, .numeric_class = options->numeric_class, .place = "guarded", .name = g->inner->name};
    *out = &g->base;
    return MOE_OK;
}
