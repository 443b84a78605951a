#include "bench/image.h"

#include "bench/image_priv.h"
#include "compute/math.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCK = 1 << 20 };
/* A page more than a multiple of every matrix: no two matrices begin at the same place of the pattern for long. */
#define PATTERN_BYTES (((size_t)256 << 20) + PAGE)
#define HEADER_LIMIT  ((size_t)16 << 20)

/* ------------------------------------------------------------------------------------------------ header */
typedef struct layout {
    moe_text text;
    image_tensor *all; /* owned [n] */
    size_t n, capacity;
    size_t end; /* of the data */
} layout;

static bool grow(layout *l)
{
    size_t capacity = MOE_MAX(2 * l->capacity, 256);
    image_tensor *grown = l->n < l->capacity ? l->all : realloc(l->all, capacity * sizeof *grown);

    if (grown == NULL) {
        l->text.failed = true;
        return false;
    }
    l->capacity = l->n < l->capacity ? l->capacity : capacity;
    l->all = grown;
    return true;
}

static void put_tensor(layout *l, const char *name, model_role role, const model_tensor_shape *shape)
{
    size_t count = 1;

    if (!grow(l)) {
        return;
    }
    moe_text_printf(&l->text, "%c\"%s\":{\"dtype\":\"BF16\",\"shape\":[", l->n == 0 ? '{' : ',', name);
    for (size_t i = 0; i < shape->rank; i++) {
        moe_text_printf(&l->text, "%s%zu", i == 0 ? "" : ",", shape->dims[i]);
        count *= shape->dims[i];
    }
    moe_text_printf(&l->text, "],\"data_offsets\":[%zu,%zu]}", l->end, l->end + 2 * count);
    l->all[l->n++] = (image_tensor){
        .role = role, .offset = l->end, .n = count, .width = shape->rank == 1 ? 1 : shape->dims[shape->rank - 1]};
    l->end += 2 * count;
}

/* All tensors of a role in a layer, as the files hold them. */
static void put_role(layout *l, const model_config *c, model_role role, uint32_t layer)
{
    const model_family *family = c->family;
    const model_stored *stored =
        family->stored == NULL || family->stored_is_optional || family->stored[role].pattern == NULL
            ? NULL
            : &family->stored[role];
    const char *pattern = stored != NULL ? stored->pattern : model_role_pattern(c, role);
    uint32_t first, n_experts = model_role_experts(c, role, &first);
    model_tensor_shape shape;
    char name[CHECKPOINT_MAX_NAME];

    if (!model_tensor_shape_of(c, role, layer, &shape) || (stored != NULL && stored->part > 0)) {
        return; /* parts are one tensor with their first */
    }
    shape.dims[0] *= stored != NULL ? stored->of : 1;
    if (stored != NULL && strstr(pattern, "{e}") == NULL) {
        shape = (model_tensor_shape){.rank = 3, .dims = {n_experts, shape.dims[0], shape.dims[1]}};
        n_experts = 1;
    }
    for (uint32_t e = 0; e < n_experts; e++) {
        model_format_name(pattern, layer, first + e, name);
        put_tensor(l, name, role, &shape);
    }
}

static void put_all(layout *l, const model_config *c)
{
    for (int role = 0; role < MODEL_FIRST_LAYER_ROLE; role++) {
        put_role(l, c, (model_role)role, 0);
    }
    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        for (int role = MODEL_FIRST_LAYER_ROLE; role < MODEL_N_ROLES; role++) {
            put_role(l, c, (model_role)role, layer);
        }
    }
    moe_text_append(&l->text, "}", 1);
    while ((8 + l->text.size) % PAGE != 0 && !l->text.failed) {
        moe_text_append(&l->text, " ", 1);
    }
}

/* ------------------------------------------------------------------------------------------------ numbers */
typedef struct fill_job {
    uint16_t *to;
    size_t n;
    float bound;
    uint64_t seed;
} fill_job;

static void fill_block(void *ctx, size_t task, size_t thread)
{
    const fill_job *job = ctx;
    size_t end = MOE_MIN(job->n, (task + 1) * BLOCK);
    moe_random r;
    uint64_t u = 0;

    (void)thread;
    moe_random_seed(&r, job->seed + task);
    for (size_t i = task * BLOCK; i < end; i++, u >>= 16) {
        u = i % 4 == 0 ? moe_random_u64(&r) : u;
        job->to[i] = compute_bf16_from_f32((float)(int16_t)(uint16_t)u * (1.0f / 32768.0f) * job->bound);
    }
}

/* The deviation of a uniform number in +-b is b / sqrt(3). */
static void fill_uniform(moe_threads *threads, uint16_t *to, size_t n, float deviation, uint64_t seed)
{
    fill_job job = {.to = to, .n = n, .bound = deviation * 1.7320508f, .seed = seed << 32};

    moe_threads_run(threads, (n + BLOCK - 1) / BLOCK, fill_block, &job);
}

static bool is_gain(model_role role)
{
    return role == MODEL_ROLE_FINAL_NORM || role == MODEL_ROLE_INPUT_NORM || role == MODEL_ROLE_POST_NORM ||
           role == MODEL_ROLE_Q_NORM || role == MODEL_ROLE_K_NORM;
}

static bool is_gate(model_role role)
{
    return (role >= MODEL_ROLE_ATTENTION_GATE_INNER && role <= MODEL_ROLE_ATTENTION_TEMPERATURE) ||
           (role >= MODEL_ROLE_GATE_INNER && role <= MODEL_ROLE_GATE_MAP) || role == MODEL_ROLE_CONSTANT_GATE;
}

/* Values of their own, where the pattern will not do. Returns the bytes. */
static size_t fill_own(moe_threads *threads, unsigned char *data, const image_tensor *t, uint64_t seed)
{
    uint16_t *to = (uint16_t *)(void *)(data + t->offset);
    bool is_matrix = t->width > 1, is_table = t->role == MODEL_ROLE_EMBED || t->role == MODEL_ROLE_HEAD;

    if (is_matrix && !is_table && !is_gate(t->role)) {
        return 0;
    }
    if (is_matrix || t->role == MODEL_ROLE_CONSTANT) {
        float deviation = t->role == MODEL_ROLE_HEAD ? 0.1f : is_table || t->role == MODEL_ROLE_CONSTANT ? 1.0f : 0.02f;
        fill_uniform(threads, to, t->n, deviation, seed);
        return 2 * t->n;
    }
    for (size_t i = 0; i < t->n; i++) {
        to[i] = compute_bf16_from_f32(is_gain(t->role) ? 1.0f : 0.0f);
    }
    return 2 * t->n;
}

/* Shows the pattern in [to, to + bytes) as often as it takes; what is written there later is this mapping's own. */
static bool map_pattern(moe_threads *threads, unsigned char *to, size_t bytes)
{
    int fd = memfd_create("weights", MFD_CLOEXEC);
    bool ok = fd >= 0 && ftruncate(fd, (off_t)PATTERN_BYTES) == 0;
    void *pattern = ok ? mmap(NULL, PATTERN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

    ok = pattern != MAP_FAILED;
    if (ok) {
        fill_uniform(threads, pattern, PATTERN_BYTES / 2, 0.02f, 3);
        (void)munmap(pattern, PATTERN_BYTES);
    }
    for (size_t at = 0; at < bytes && ok; at += PATTERN_BYTES) {
        size_t n = MOE_MIN(PATTERN_BYTES, bytes - at);
        ok = mmap(to + at, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0) != MAP_FAILED;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return ok;
}

/* ------------------------------------------------------------------------------------------------ open */
static void put_length(unsigned char *to, uint64_t n)
{
    for (unsigned i = 0; i < 8; i++) {
        to[i] = (unsigned char)(n >> (8 * i));
    }
}

static moe_status build(const layout *l, const model_config *c, const image_shares *shares, moe_threads *threads,
                        image *out, moe_error *err)
{
    size_t head = 8 + l->text.size;
    image i = {.bytes = head + l->end};

    i.data = mmap(NULL, i.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (i.data == MAP_FAILED) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "image of %zu bytes: no address space", i.bytes);
    }
    if (!map_pattern(threads, i.data + head, l->end)) {
        image_close(&i);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "image of %zu bytes: the pattern cannot be mapped", i.bytes);
    }
    put_length(i.data, l->text.size);
    memcpy(i.data + 8, l->text.data, l->text.size);
    for (size_t t = 0; t < l->n; t++) {
        i.own_bytes += fill_own(threads, i.data + head, &l->all[t], 4 + t);
        if (shares != NULL && shares->n > 0) {
            image_steer(c, shares, i.data + head, &l->all[t]);
        }
    }
    *out = i;
    return MOE_OK;
}

moe_status image_open(const model_config *c, const image_shares *shares, moe_threads *threads, image *out,
                      moe_error *err)
{
    layout l = {.n = 0};
    moe_status status;

    moe_text_init(&l.text, HEADER_LIMIT);
    put_all(&l, c);
    status = l.text.failed ? moe_fail(err, MOE_ERR_NO_MEMORY, "image: header of %u layers is too long", c->n_layers)
                           : build(&l, c, shares, threads, out, err);
    free(l.all);
    moe_text_fini(&l.text);
    return status;
}

void image_close(image *i)
{
    if (i->data != NULL) {
        (void)munmap(i->data, i->bytes);
        i->data = NULL;
    }
}
