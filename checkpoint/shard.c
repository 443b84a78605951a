#include "checkpoint/shard_priv.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/output.h"

typedef struct shard_writer {
    int fd;
    const char *name;
    shard_progress progress;
    void *progress_ctx;
    unsigned char *piece; /* owned [SHARD_PIECE_BYTES]; strided views become row-major here */
    moe_error *err;
} shard_writer;

/* ------------------------------------------------------------------------------------------------ SHA-256 */
struct shard_hash {
    EVP_MD_CTX *ctx; /* owned */
    bool failed;
};

shard_hash *shard_hash_open(void)
{
    shard_hash *h = calloc(1, sizeof(*h));

    if (h == NULL) {
        return NULL;
    }
    h->ctx = EVP_MD_CTX_new();
    h->failed = h->ctx == NULL || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1;
    return h;
}

void shard_hash_add(shard_hash *h, const void *bytes, size_t n)
{
    h->failed = h->failed || EVP_DigestUpdate(h->ctx, bytes, n) != 1;
}

moe_status shard_hash_finish(shard_hash *h, checkpoint_digest *out)
{
    const bool done = !h->failed && EVP_DigestFinal_ex(h->ctx, out->bytes, NULL) == 1;

    EVP_MD_CTX_free(h->ctx);
    free(h);
    return done ? MOE_OK : MOE_ERR_NO_MEMORY;
}

/* ------------------------------------------------------------------------------------------------ header */
static int by_item_size(const void *a, const void *b)
{
    const torch_tensor *x = *(const torch_tensor *const *)a, *y = *(const torch_tensor *const *)b;

    if (x->item_bytes != y->item_bytes) {
        return x->item_bytes > y->item_bytes ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static moe_status write_header(const shard_writer *w, const torch_tensor *const *order, size_t n)
{
    output_tensor *tensors = calloc(n + 1, sizeof(*tensors));
    moe_status status;

    if (tensors == NULL) {
        return moe_fail(w->err, MOE_ERR_NO_MEMORY, "%.200s: no memory for %zu tensors", w->name, n);
    }
    for (size_t i = 0; i < n; i++) {
        tensors[i] = (output_tensor){order[i]->name, order[i]->dtype, order[i]->shape, order[i]->rank, order[i]->bytes};
    }
    status = output_write_header(w->fd, w->name, tensors, n, w->err);
    free(tensors);
    return status;
}

/* ------------------------------------------------------------------------------------------------ data */
static moe_status write_pieces(const shard_writer *w, const torch_tensor *t, shard_hash *hash)
{
    const size_t step = SHARD_PIECE_BYTES / t->item_bytes;

    for (size_t at = 0; at < t->bytes / t->item_bytes; at += step) {
        const size_t items = MOE_MIN(step, t->bytes / t->item_bytes - at), bytes = items * t->item_bytes;
        const unsigned char *from = t->data + at * t->item_bytes;
        moe_status status;
        if (!t->contiguous) {
            torch_tensor_gather(t, at, items, w->piece);
            from = w->piece;
        }
        shard_hash_add(hash, from, bytes);
        status = output_write(w->fd, w->name, from, bytes, w->err);
        if (status == MOE_OK && !w->progress(w->progress_ctx, bytes)) {
            status = moe_fail(w->err, MOE_ERR_CANCELLED, "stopped");
        }
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

static moe_status write_tensor(const shard_writer *w, torch_file *f, const torch_tensor *t, checkpoint_digest *digest)
{
    moe_status status = torch_file_check(f, t, w->err), hashed;
    shard_hash *hash;

    if (status != MOE_OK) {
        return status;
    }
    hash = shard_hash_open();
    if (hash == NULL) {
        return moe_fail(w->err, MOE_ERR_NO_MEMORY, "%.200s: no memory to hash a tensor", w->name);
    }
    status = write_pieces(w, t, hash);
    hashed = shard_hash_finish(hash, digest);
    if (status == MOE_OK && hashed != MOE_OK) {
        return moe_fail(w->err, hashed, "%.200s: tensor %.120s cannot be hashed", w->name, t->name);
    }
    return status;
}

moe_status shard_write(int fd, const char *name, const checkpoint_file *input, torch_file *f, shard_progress progress,
                       void *progress_ctx, checkpoint_digest *digests, moe_error *err)
{
    const torch_tensor **order = calloc(f->n_tensors + 1, sizeof(*order));
    const shard_writer w = {fd, name, progress, progress_ctx, malloc(SHARD_PIECE_BYTES), err};
    moe_status status = MOE_OK;

    if (order == NULL || w.piece == NULL) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "%.200s: no memory for %zu tensors", name, f->n_tensors);
    }
    for (size_t i = 0; status == MOE_OK && i < f->n_tensors; i++) {
        order[i] = &f->tensors[i];
    }
    if (status == MOE_OK) {
        qsort(order, f->n_tensors, sizeof(*order), by_item_size);
        status = write_header(&w, order, f->n_tensors);
    }
    for (size_t i = 0; status == MOE_OK && i < f->n_tensors; i++) {
        const zip_entry *storage = &f->zip.entries[order[i]->entry];
        status = write_tensor(&w, f, order[i], &digests[order[i] - f->tensors]);
        checkpoint_file_forget(input, storage->data, storage->bytes);
    }
    free(w.piece);
    free(order);
    return status;
}
