/* Preparing weights: dword transposition into panels, once at open or chunk by chunk while a mapped matrix is
 * multiplied. */
#include "compute/cpu_priv.h"

#include <stdlib.h>
#include <string.h>

#define INPUT_ROWS_AHEAD 32 /* of an input-major weight that are being fetched */

/* The bf16 class multiplies bf16 by bf16; the f32 chain takes weights as they are stored. */
static cpu_kind kind_of(compute_dtype activations, compute_dtype weights)
{
    if (activations == COMPUTE_BF16) {
        return CPU_PAIR;
    }
    return weights == COMPUTE_F32 ? CPU_F32 : weights == COMPUTE_BF16 ? CPU_BF16 : CPU_F16;
}

static size_t k_per_unit(cpu_kind kind)
{
    return kind == CPU_F32 ? 1 : 2;
}

static size_t panels_bytes(const compute_matrix *m)
{
    return (m->n_out + CPU_PANEL - 1) / CPU_PANEL * m->n_units * CPU_PANEL * sizeof(uint32_t);
}

/* Fills everything but the storage. */
static moe_status matrix_init(compute_matrix *m, compute_dtype activations, const compute_weight *w,
                              compute_layout layout)
{
    size_t bytes;

    if (w->data == NULL || w->dtype == COMPUTE_DTYPE_OTHER || w->n_out == 0 || w->n_in == 0) {
        return MOE_ERR_INVALID_ARG;
    }
    if (w->n_out > SIZE_MAX / 8 - CPU_PANEL || __builtin_mul_overflow(w->n_out + CPU_PANEL, w->n_in + 1, &bytes) ||
        bytes > SIZE_MAX / 8) {
        return MOE_ERR_INVALID_ARG;
    }
    *m = (compute_matrix){.kind = kind_of(activations, w->dtype),
                          .packed = layout == COMPUTE_PACKED || w->input_major,
                          .n_out = w->n_out,
                          .n_in = w->n_in,
                          .data = w->data};
    m->n_units = (w->n_in + k_per_unit(m->kind) - 1) / k_per_unit(m->kind);
    if (!m->packed && m->kind == CPU_PAIR && w->dtype != COMPUTE_BF16) {
        return MOE_ERR_UNSUPPORTED; /* needs rounding, so it needs its own memory */
    }
    return MOE_OK;
}

/* Units [begin, end) of the rows of one panel, read in place. The last unit of an odd row has only its low half. */
static void pack_units(const cpu_device *d, uint32_t *to, const unsigned char *rows, size_t row_bytes, size_t n_rows,
                       size_t begin, size_t end)
{
    size_t whole = cpu_min(end, row_bytes / 4);

    d->kernels->pack(to, rows + begin * 4, row_bytes, n_rows, whole - begin);
    if (whole < end) {
        uint32_t *last = to + (whole - begin) * CPU_PANEL;

        memset(last, 0, CPU_PANEL * sizeof(*last));
        for (size_t r = 0; r < n_rows; r++) {
            uint16_t half;

            memcpy(&half, rows + r * row_bytes + whole * 4, sizeof(half));
            last[r] = half;
        }
    }
}

const uint32_t *cpu_matrix_units(const cpu_device *d, const compute_matrix *m, size_t panel, size_t begin, size_t end,
                                 size_t thread)
{
    uint32_t *chunk = d->chunk + thread * 2 * CPU_CHUNK_UNITS * CPU_PANEL;
    size_t row_bytes = m->n_in * (m->kind == CPU_F32 ? 4 : 2);

    if (m->packed) {
        return (const uint32_t *)(const void *)m->data + (panel * m->n_units + begin) * CPU_PANEL;
    }
    pack_units(d, chunk, m->data + panel * CPU_PANEL * row_bytes, row_bytes,
               cpu_min(CPU_PANEL, m->n_out - panel * CPU_PANEL), begin, end);
    return chunk;
}

/* Rows rounded to bf16, [n_rows][2 * (end - begin)], an odd last element followed by +0. */
static void round_rows(const cpu_device *d, uint16_t *to, const compute_weight *w, size_t first, size_t n_rows,
                       size_t begin, size_t end)
{
    size_t k = 2 * begin, n = cpu_min(2 * end, w->n_in) - k, bytes = compute_dtype_bytes(w->dtype);
    float wide[2 * CPU_CHUNK_UNITS];

    for (size_t r = 0; r < n_rows; r++) {
        uint16_t *row = to + r * 2 * (end - begin);

        d->kernels->widen(wide, (const unsigned char *)w->data + ((first + r) * w->n_in + k) * bytes, w->dtype, n);
        d->kernels->round_bf16(row, wide, n);
        if (n < 2 * (end - begin)) {
            row[n] = 0;
        }
    }
}

typedef struct pack_job {
    const cpu_device *d;
    const compute_matrix *m;
    const compute_weight *w;
    uint32_t *to;
} pack_job;

/* n values of row k of an input-major weight, as they are multiplied. */
static void input_row(const pack_job *job, uint16_t *to, size_t k, size_t first, size_t n)
{
    const compute_weight *w = job->w;
    const unsigned char *from = (const unsigned char *)w->data + (k * w->n_out + first) * compute_dtype_bytes(w->dtype);
    float wide[CPU_PANEL];

    if (job->m->kind == CPU_PAIR && w->dtype != COMPUTE_BF16) {
        job->d->kernels->widen(wide, from, w->dtype, n);
        job->d->kernels->round_bf16(to, wide, n);
    } else {
        memcpy(to, from, n * sizeof(*to));
    }
}

/* Rows are far apart: the hardware does not see the next one coming. */
static void fetch_input_row(const compute_weight *w, size_t k, size_t first, size_t n)
{
    size_t bytes = compute_dtype_bytes(w->dtype);

    for (size_t i = 0; i < n * bytes && k < w->n_in; i += MOE_CACHE_LINE) {
        __builtin_prefetch((const char *)w->data + (k * w->n_out + first) * bytes + i);
    }
}

/* The panel's columns of an input-major weight are already beside each other: copied, or two rows interleaved. */
static void pack_input_major(void *ctx, size_t panel, size_t thread)
{
    const pack_job *job = ctx;
    const compute_matrix *m = job->m;
    size_t first = panel * CPU_PANEL, n = cpu_min(CPU_PANEL, m->n_out - first);
    size_t per_unit = k_per_unit(m->kind);
    uint16_t even[CPU_PANEL] = {0}, odd[CPU_PANEL] = {0};
    uint32_t *to = job->to + panel * m->n_units * CPU_PANEL;

    (void)thread;
    for (size_t u = 0; u < m->n_units; u++, to += CPU_PANEL) {
        fetch_input_row(job->w, per_unit * u + INPUT_ROWS_AHEAD, first, n);
        if (per_unit == 2) {
            fetch_input_row(job->w, 2 * u + 1 + INPUT_ROWS_AHEAD, first, n);
        }
        if (m->kind == CPU_F32) {
            memset(to, 0, CPU_PANEL * sizeof(*to));
            memcpy(to, (const unsigned char *)job->w->data + (u * m->n_out + first) * sizeof(*to), n * sizeof(*to));
            continue;
        }
        input_row(job, even, 2 * u, first, n);
        if (2 * u + 1 < m->n_in) {
            input_row(job, odd, 2 * u + 1, first, n);
        } else {
            memset(odd, 0, sizeof(odd));
        }
        for (size_t j = 0; j < CPU_PANEL; j++) {
            to[j] = (uint32_t)even[j] | (uint32_t)odd[j] << 16;
        }
    }
}

static void pack_panel(void *ctx, size_t panel, size_t thread)
{
    const pack_job *job = ctx;
    const compute_matrix *m = job->m;
    size_t first = panel * CPU_PANEL, n_rows = cpu_min(CPU_PANEL, m->n_out - first);
    size_t row_bytes = m->n_in * compute_dtype_bytes(job->w->dtype);
    uint32_t *rounded = job->d->chunk + (thread * 2 + 1) * CPU_CHUNK_UNITS * CPU_PANEL;

    for (size_t begin = 0; begin < m->n_units; begin += CPU_CHUNK_UNITS) {
        size_t end = cpu_min(begin + CPU_CHUNK_UNITS, m->n_units);
        uint32_t *to = job->to + (panel * m->n_units + begin) * CPU_PANEL;

        if (m->kind == CPU_PAIR && job->w->dtype != COMPUTE_BF16) {
            round_rows(job->d, (uint16_t *)rounded, job->w, first, n_rows, begin, end);
            job->d->kernels->pack(to, (const unsigned char *)rounded, 4 * (end - begin), n_rows, end - begin);
        } else {
            pack_units(job->d, to, (const unsigned char *)job->w->data + first * row_bytes, row_bytes, n_rows, begin,
                       end);
        }
    }
}

static void matrix_pack(cpu_device *d, compute_matrix *m, const compute_weight *w, void *to)
{
    pack_job job = {d, m, w, to};

    m->data = to;
    moe_threads_run(d->options.threads, (m->n_out + CPU_PANEL - 1) / CPU_PANEL,
                    w->input_major ? pack_input_major : pack_panel, &job);
}

/* Rows of an odd width get their zero in device memory, which must be there before the first step. */
static moe_status reserve_padding(cpu_device *d, const compute_matrix *m)
{
    size_t rows = MOE_MAX(d->options.max_rows, MOE_MAX(d->options.max_ffn_rows, d->options.max_routed_rows)), bytes;
    unsigned char *padded;

    if (m->kind != CPU_PAIR || m->n_in % 2 == 0) {
        return MOE_OK;
    }
    if (__builtin_mul_overflow(rows, 2 * (m->n_in + 1), &bytes)) {
        return MOE_ERR_INVALID_ARG;
    }
    if (bytes <= d->padded_bytes) {
        return MOE_OK;
    }
    padded = aligned_alloc(MOE_CACHE_LINE, moe_round_up(bytes, MOE_CACHE_LINE));
    if (padded == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    free(d->padded);
    d->padded = padded;
    d->padded_bytes = bytes;
    return MOE_OK;
}

static moe_status matrix_open(cpu_device *d, compute_dtype activations, const compute_weight *w, compute_layout layout,
                              compute_matrix **out)
{
    compute_matrix *m = malloc(sizeof(*m));
    moe_status status;

    if (m == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    status = matrix_init(m, activations, w, layout);
    if (status == MOE_OK) {
        status = reserve_padding(d, m);
    }
    if (status != MOE_OK) {
        goto err_free;
    }
    if (m->packed) {
        m->pages_bytes = panels_bytes(m);
        m->pages = moe_pages_alloc(m->pages_bytes);
        if (m->pages == NULL) {
            status = MOE_ERR_NO_MEMORY;
            goto err_free;
        }
        matrix_pack(d, m, w, m->pages);
    }

    *out = m;
    return MOE_OK;

err_free:
    free(m);
    return status;
}

moe_status cpu_matrix_open(compute_device *d, const compute_weight *w, compute_layout layout, compute_matrix **out)
{
    return matrix_open((cpu_device *)d, compute_class_dtype(d->numeric_class), w, layout, out);
}

moe_status cpu_matrix_open_f32(compute_device *d, const compute_weight *w, compute_matrix **out)
{
    return matrix_open((cpu_device *)d, COMPUTE_F32, w, COMPUTE_PACKED, out);
}

void cpu_matrix_close(compute_device *d, compute_matrix *m)
{
    (void)d;
    if (m == NULL) {
        return;
    }
    if (m->pages != NULL) {
        moe_pages_free(m->pages, m->pages_bytes);
    }
    free(m);
}

/* w: gate, up, down; without a gate, up and down (compute_expert says where they stand). */
static moe_status expert_init(cpu_device *d, compute_expert *e, compute_matrix *const *m,
                              const compute_weight *const *w, size_t n, compute_layout layout)
{
    const compute_weight *first = w[0], *up = w[n - 2], *down = w[n - 1];
    moe_status status = MOE_OK;

    for (size_t i = 0; i < n && status == MOE_OK; i++) {
        status = matrix_init(m[i], compute_class_dtype(d->base.numeric_class), w[i], layout);
    }
    if (status == MOE_OK && (first->n_out != up->n_out || first->n_in != up->n_in || down->n_in != first->n_out ||
                             down->n_out != first->n_in || first->n_out > d->options.max_d_ff)) {
        status = MOE_ERR_INVALID_ARG;
    }
    return status == MOE_OK ? reserve_padding(d, &e->gate) : status;
}

/* One mapping for all matrices: the 12 MB of an expert in whole huge pages. */
static moe_status expert_pack(cpu_device *d, compute_expert *e, compute_matrix *const *m,
                              const compute_weight *const *w, size_t n)
{
    unsigned char *to;

    for (size_t i = 0; i < n; i++) {
        if (__builtin_add_overflow(e->pages_bytes, panels_bytes(m[i]), &e->pages_bytes)) {
            return MOE_ERR_INVALID_ARG;
        }
    }
    e->pages = to = moe_pages_alloc(e->pages_bytes);
    if (to == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        matrix_pack(d, m[i], w[i], to);
        to += panels_bytes(m[i]);
    }
    return MOE_OK;
}

moe_status cpu_expert_open(compute_device *d, compute_ffn ffn, const compute_weight *gate, const compute_weight *up,
                           const compute_weight *down, compute_layout layout, compute_expert **out)
{
    const compute_weight *const all[] = {gate, up, down}, *const *w = gate == NULL ? all + 1 : all;
    size_t n = gate == NULL ? 2 : 3;
    compute_matrix *m[3];
    compute_expert *e;
    moe_status status;

    if ((ffn == COMPUTE_FFN_SWIGLU) != (gate != NULL)) {
        return MOE_ERR_INVALID_ARG;
    }
    e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    m[0] = &e->gate;
    m[1] = &e->up;
    m[n - 1] = &e->down;
    for (size_t i = 0; i < n; i++) {
        layout = w[i]->input_major ? COMPUTE_PACKED : layout;
    }
    e->ffn = ffn;
    status = expert_init((cpu_device *)d, e, m, w, n, layout);
    if (status == MOE_OK && layout == COMPUTE_PACKED) {
        status = expert_pack((cpu_device *)d, e, m, w, n);
    }
    if (status != MOE_OK) {
        free(e);
        return status;
    }
    *out = e;
    return MOE_OK;
}

moe_status cpu_expert_adopt(compute_device *d, compute_expert *e)
{
    return reserve_padding((cpu_device *)d, &e->gate);
}

void cpu_expert_close(compute_device *d, compute_expert *e)
{
    (void)d;
    if (e == NULL) {
        return;
    }
    if (e->pages != NULL) {
        moe_pages_free(e->pages, e->pages_bytes);
    }
    free(e);
}
