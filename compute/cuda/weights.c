/* Weights: from the host's memory (a mapped file) through the pinned ring, packed by the device into the layout of launch.h. A weight is always packed: no
 * kernel reads a row-major one. What is opened is complete when the call returns, so that the device of another thread may use it. */
#include "compute/cuda/device_priv.h"

#include <stdlib.h>

static cuda_kind chain_of(compute_dtype dtype)
{
    return dtype == COMPUTE_F32 ? CUDA_F32 : dtype == COMPUTE_BF16 ? CUDA_BF16 : CUDA_F16;
}

/* Bytes of n_tiles sets of tiles of w; false: no such size, or no such weight. */
static bool packed_bytes(const compute_weight *w, cuda_kind kind, size_t sets, size_t *out)
{
    size_t tiles = (w->n_out + CUDA_TILE - 1) / CUDA_TILE;

    if (w->data == NULL || w->n_out == 0 || w->n_in == 0 || w->n_out > UINT32_MAX / 4 || w->n_in > UINT32_MAX / 4 ||
        w->dtype >= COMPUTE_DTYPE_OTHER) {
        return false;
    }
    return !__builtin_mul_overflow(cuda_tile_bytes(kind, w->n_in), tiles * sets, out);
}

/* A row-major matrix of the bf16 class has to be bf16 as it stands: so it is on every device, though this one packs it anyway. */
static bool cannot_be_mapped(const compute_device *d, const compute_weight *w, compute_layout layout)
{
    return layout == COMPUTE_MAPPED && cuda_is_bf16(d) && w->dtype != COMPUTE_BF16 && !w->input_major;
}

/* Pieces of whole rows of the file, 8 and more of them where they are inputs. */
static moe_status pack(cuda_device *d, const compute_weight *w, cuda_kind kind, void *to, size_t step, size_t first)
{
    size_t n_rows = w->input_major ? w->n_in : w->n_out;
    size_t row_bytes = (w->input_major ? w->n_out : w->n_in) * compute_dtype_bytes(w->dtype);
    size_t each = MOE_MAX(8, CUDA_SEGMENT_BYTES / row_bytes / 8 * 8);

    for (size_t i = 0; i < n_rows; i += each) {
        size_t n = MOE_MIN(each, n_rows - i);
        const void *from = cuda_send(d, (const unsigned char *)w->data + i * row_bytes, n * row_bytes);

        if (from == NULL) {
            return d->failed;
        }
        cuda_pack(&(cuda_pack_job){.to = to,
                                   .from = from,
                                   .dtype = cuda_dtype_of(w->dtype),
                                   .kind = kind,
                                   .n_out = w->n_out,
                                   .n_in = w->n_in,
                                   .first = i,
                                   .n = n,
                                   .tile_step = step,
                                   .tile_first = first,
                                   .input_major = w->input_major},
                  cuda_queue(d));
    }
    return cuda_op_sync(&d->base);
}

static moe_status matrix_open(cuda_device *d, const compute_weight *w, cuda_kind kind, compute_matrix **out)
{
    compute_matrix *m = calloc(1, sizeof(*m));
    moe_status status = MOE_ERR_NO_MEMORY;
    size_t bytes;

    if (m == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    *m = (compute_matrix){kind, w->n_out, w->n_in, NULL};
    if (!packed_bytes(w, kind, 1, &bytes)) {
        status = MOE_ERR_INVALID_ARG;
        goto err_matrix;
    }
    m->packed = cuda_memory_alloc(d, bytes);
    if (m->packed == NULL) {
        goto err_matrix;
    }
    status = pack(d, w, kind, m->packed, 1, 0);
    if (status == MOE_OK) {
        *out = m;
        return MOE_OK;
    }

err_matrix:
    cuda_op_matrix_close(&d->base, m);
    return status;
}

moe_status cuda_op_matrix_open(compute_device *d, const compute_weight *w, compute_layout layout, compute_matrix **out)
{
    if (cannot_be_mapped(d, w, layout)) {
        return MOE_ERR_UNSUPPORTED;
    }
    return matrix_open(cuda_of(d), w, cuda_is_bf16(d) ? CUDA_PAIR : chain_of(w->dtype), out);
}

moe_status cuda_op_matrix_open_f32(compute_device *d, const compute_weight *w, compute_matrix **out)
{
    return matrix_open(cuda_of(d), w, chain_of(w->dtype), out);
}

void cuda_op_matrix_close(compute_device *d, compute_matrix *m)
{
    (void)d;
    if (m != NULL) {
        cuda_memory_free(m->packed);
        free(m);
    }
}

/* A kind that all matrices of the expert have: their own in the bf16 class; in the f32 class the file's dtype. */
static bool expert_kind(const compute_device *d, const compute_weight *const *w, size_t n, compute_layout layout,
                        cuda_kind *out)
{
    *out = cuda_is_bf16(d) ? CUDA_PAIR : chain_of(w[0]->dtype);
    for (size_t i = 0; i < n; i++) {
        layout = w[i]->input_major ? COMPUTE_PACKED : layout;
    }
    for (size_t i = 0; i < n; i++) {
        if (cannot_be_mapped(d, w[i], layout) || (!cuda_is_bf16(d) && w[i]->dtype != w[0]->dtype)) {
            return false;
        }
    }
    return true;
}

static moe_status expert_fill(cuda_device *d, compute_expert *e, const compute_weight *gate, const compute_weight *up,
                              const compute_weight *down)
{
    size_t sets = gate == NULL ? 1 : 2, up_bytes, down_bytes;
    moe_status status = MOE_OK;

    if (!packed_bytes(up, e->kind, sets, &up_bytes) || !packed_bytes(down, e->kind, 1, &down_bytes) ||
        (gate != NULL && (gate->n_out != up->n_out || gate->n_in != up->n_in)) || down->n_in != up->n_out ||
        down->n_out != up->n_in || up->n_out > d->options.max_d_ff) {
        return MOE_ERR_INVALID_ARG;
    }
    e->d_ff = up->n_out;
    e->d_model = up->n_in;
    e->up = cuda_memory_alloc(d, up_bytes);
    e->down = cuda_memory_alloc(d, down_bytes);
    if (e->up == NULL || e->down == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    if (gate != NULL) {
        status = pack(d, gate, e->kind, e->up, 2, 0);
    }
    if (status == MOE_OK) {
        status = pack(d, up, e->kind, e->up, sets, sets - 1);
    }
    return status == MOE_OK ? pack(d, down, e->kind, e->down, 1, 0) : status;
}

moe_status cuda_op_expert_open(compute_device *d, compute_ffn ffn, const compute_weight *gate, const compute_weight *up,
                               const compute_weight *down, compute_layout layout, compute_expert **out)
{
    const compute_weight *const all[] = {up, down, gate};
    compute_expert *e;
    cuda_kind kind;
    moe_status status;

    if ((ffn == COMPUTE_FFN_SWIGLU) != (gate != NULL)) {
        return MOE_ERR_INVALID_ARG;
    }
    if (!expert_kind(d, all, gate == NULL ? 2 : 3, layout, &kind)) {
        return MOE_ERR_UNSUPPORTED;
    }
    e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    e->ffn = ffn;
    e->kind = kind;
    status = expert_fill(cuda_of(d), e, gate, up, down);
    if (status != MOE_OK) {
        cuda_op_expert_close(d, e);
        return status;
    }
    *out = e;
    return MOE_OK;
}

void cuda_op_expert_close(compute_device *d, compute_expert *e)
{
    (void)d;
    if (e != NULL) {
        cuda_memory_free(e->up);
        cuda_memory_free(e->down);
        free(e);
    }
}

moe_status cuda_op_expert_adopt(compute_device *d, compute_expert *e)
{
    return e->d_ff <= cuda_of(d)->options.max_d_ff ? MOE_OK : MOE_ERR_INVALID_ARG;
}
