/* A directory of pickled shards becomes a directory of safetensors: everything checked, written beside, read back,
 * moved into place. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/output.h"
#include "checkpoint/shard_priv.h"

#define SOURCE_INDEX  "pytorch_model.bin.index.json"
#define SOURCE_SINGLE "pytorch_model.bin"
#define SOURCE_SUFFIX ".bin"

/* One input and the output that it becomes. */
typedef struct source {
    checkpoint_file file;       /* closed as soon as it is written */
    torch_file torch;           /* its tensors' data goes with the file */
    checkpoint_digest *digests; /* owned [torch.n_tensors] */
    char shard[64];
} source;

typedef struct conversion {
    const char *dir;
    int dir_fd;
    source *sources; /* owned [n_sources] */
    size_t n_sources;
    size_t n_tensors, total_bytes, done_bytes, n_copied;
    output_dir out;
    checkpoint_convert_progress progress; /* may be NULL */
    void *progress_ctx;
    checkpoint_convert_phase phase;
    moe_error *err;
} conversion;

static bool report(void *ctx, size_t bytes)
{
    conversion *c = ctx;

    c->done_bytes += bytes;
    return c->progress == NULL || c->progress(c->progress_ctx, c->phase, c->done_bytes, c->total_bytes);
}

/* ------------------------------------------------------------------------------------------------ inputs */
static moe_status add_source(conversion *c, const char *name)
{
    source *s = &c->sources[c->n_sources++]; /* from here on conversion_fini closes it */
    moe_status status = checkpoint_file_open(c->dir_fd, name, &s->file, c->err);

    if (status == MOE_OK) {
        status = torch_file_open(s->file.data, s->file.bytes, s->file.name, &s->torch, c->err);
    }
    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < s->torch.n_tensors; i++) {
        if (strcmp(s->torch.tensors[i].name, "__metadata__") == 0) {
            return moe_fail(c->err, MOE_ERR_UNSUPPORTED,
                            "%.100s: safetensors cannot hold a tensor of the name __metadata__", name);
        }
    }
    s->digests = calloc(s->torch.n_tensors, sizeof(*s->digests));
    if (s->digests == NULL) {
        return moe_fail(c->err, MOE_ERR_NO_MEMORY, "%.100s: no memory for %zu tensors", name, s->torch.n_tensors);
    }
    c->n_tensors += s->torch.n_tensors;
    c->total_bytes += s->torch.total_bytes;
    return MOE_OK;
}

/* The index says of this input what is in it. */
static moe_status match_source(const conversion *c, const source *s, const checkpoint_index_entry *entries, size_t n)
{
    safetensors_header names = {.tensors = calloc(s->torch.n_tensors, sizeof(*names.tensors)),
                                .n_tensors = s->torch.n_tensors};
    moe_status status;

    if (names.tensors == NULL) {
        return moe_fail(c->err, MOE_ERR_NO_MEMORY, "no memory for %zu tensors", s->torch.n_tensors);
    }
    for (size_t i = 0; i < names.n_tensors; i++) {
        names.tensors[i].name = s->torch.tensors[i].name;
    }
    status = checkpoint_index_match(entries, n, &names, c->err);
    free(names.tensors);
    return status;
}

static moe_status add_sharded(conversion *c, const checkpoint_index *index)
{
    size_t n_shards = 0;

    for (size_t i = 0; i < index->n_entries; i += checkpoint_index_run(index, i)) {
        n_shards++;
    }
    c->sources = calloc(n_shards, sizeof(*c->sources));
    if (c->sources == NULL) {
        return moe_fail(c->err, MOE_ERR_NO_MEMORY, "no memory for %zu shards", n_shards);
    }
    for (size_t i = 0, n; i < index->n_entries; i += n) {
        n = checkpoint_index_run(index, i);
        moe_status status = add_source(c, index->entries[i].shard);
        if (status == MOE_OK) {
            status = match_source(c, &c->sources[c->n_sources - 1], &index->entries[i], n);
        }
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

static bool exists(const conversion *c, const char *name)
{
    return faccessat(c->dir_fd, name, F_OK, 0) == 0;
}

static moe_status add_single(conversion *c)
{
    if (!exists(c, SOURCE_SINGLE)) {
        return exists(c, OUTPUT_INDEX_FILE) || exists(c, OUTPUT_SINGLE_FILE)
                   ? moe_fail(c->err, MOE_ERR_EXISTS, "it holds safetensors already: there is nothing to convert")
                   : checkpoint_missing(c->dir_fd, "neither " SOURCE_INDEX " nor " SOURCE_SINGLE, c->err);
    }
    c->sources = calloc(1, sizeof(*c->sources));
    return c->sources != NULL ? add_source(c, SOURCE_SINGLE)
                              : moe_fail(c->err, MOE_ERR_NO_MEMORY, "no memory for a shard");
}

static moe_status open_sources(conversion *c)
{
    checkpoint_file f = {0};
    checkpoint_index index = {0};
    moe_status status = MOE_OK;

    if (!exists(c, SOURCE_INDEX)) {
        return add_single(c);
    }
    status = checkpoint_file_open(c->dir_fd, SOURCE_INDEX, &f, c->err);
    if (status == MOE_OK) {
        status = checkpoint_index_parse(f.data, f.bytes, SOURCE_INDEX, SOURCE_SUFFIX, &index, c->err);
    }
    checkpoint_file_close(&f);
    if (status == MOE_OK) {
        status = add_sharded(c, &index);
        checkpoint_index_fini(&index);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ outputs */
static moe_status write_source(conversion *c, source *s)
{
    int fd = -1;
    moe_status status = output_create(&c->out, s->shard, &fd, c->err);

    if (status != MOE_OK) {
        return status;
    }
    status = shard_write(fd, s->shard, &s->file, &s->torch, report, c, s->digests, c->err);
    if (status != MOE_OK) {
        (void)close(fd);
        return status;
    }
    checkpoint_file_close(&s->file);
    return output_finish(fd, s->shard, c->err);
}

static moe_status write_index(conversion *c)
{
    output_place *places = calloc(c->n_tensors + 1, sizeof(*places));
    size_t n = 0;
    moe_status status;

    if (places == NULL) {
        return moe_fail(c->err, MOE_ERR_NO_MEMORY, "no memory for %zu tensors", c->n_tensors);
    }
    for (size_t i = 0; i < c->n_sources; i++) {
        for (size_t j = 0; j < c->sources[i].torch.n_tensors; j++) {
            places[n++] = (output_place){c->sources[i].torch.tensors[j].name, c->sources[i].shard};
        }
    }
    status = output_write_index(&c->out, places, n, c->total_bytes, c->err);
    free(places);
    return status;
}

/* The weights last: until they are there the directory is no model. */
static moe_status write_all(conversion *c)
{
    moe_status status = output_copy_companions(&c->out, c->dir_fd, NULL, &c->n_copied, c->err);

    for (size_t i = 0; status == MOE_OK && i < c->n_sources; i++) {
        output_shard_name(i, c->n_sources, c->sources[i].shard);
        status = write_source(c, &c->sources[i]);
    }
    return status == MOE_OK && c->n_sources > 1 ? write_index(c) : status;
}

/* ------------------------------------------------------------------------------------------------ reading back */
static moe_status hash_back(conversion *c, const checkpoint *out, const checkpoint_tensor *t, checkpoint_digest *digest)
{
    shard_hash *hash = shard_hash_open();
    bool stopped = false;

    if (hash == NULL) {
        return moe_fail(c->err, MOE_ERR_NO_MEMORY, "no memory to hash a tensor");
    }
    for (size_t at = 0; at < t->bytes && !stopped; at += SHARD_PIECE_BYTES) {
        const size_t n = MOE_MIN(SHARD_PIECE_BYTES, t->bytes - at);
        shard_hash_add(hash, t->data + at, n);
        stopped = !report(c, n);
    }
    checkpoint_forget(out, t->data, t->bytes);
    const moe_status status = shard_hash_finish(hash, digest);
    return stopped ? moe_fail(c->err, MOE_ERR_CANCELLED, "stopped")
                   : (status == MOE_OK ? MOE_OK : moe_fail(c->err, status, "no memory to hash a tensor"));
}

static moe_status verify_tensor(conversion *c, const checkpoint *out, const torch_tensor *from,
                                const checkpoint_digest *expected)
{
    const checkpoint_tensor *t = checkpoint_find(out, from->name);
    checkpoint_digest digest = {{0}};
    bool same =
        t != NULL && strcmp(t->dtype_name, from->dtype) == 0 && t->rank == from->rank && t->bytes == from->bytes;
    moe_status status = MOE_OK;

    for (size_t i = 0; same && i < from->rank; i++) {
        same = t->shape[i] == from->shape[i];
    }
    if (same) {
        status = hash_back(c, out, t, &digest);
        same = memcmp(&digest, expected, sizeof(digest)) == 0;
    }
    if (status == MOE_OK && !same) {
        return moe_fail(c->err, MOE_ERR_DATA_LOSS, "tensor %.120s did not read back as it was written", from->name);
    }
    return status;
}

static moe_status verify(conversion *c)
{
    checkpoint *out = NULL;
    moe_status status = checkpoint_open(c->out.work, &out, c->err);

    c->phase = CHECKPOINT_VERIFYING;
    c->done_bytes = 0;
    if (status == MOE_OK && checkpoint_n_tensors(out) != c->n_tensors) {
        status = moe_fail(c->err, MOE_ERR_DATA_LOSS, "%zu tensors read back of %zu written", checkpoint_n_tensors(out),
                          c->n_tensors);
    }
    for (size_t i = 0; status == MOE_OK && i < c->n_sources; i++) {
        const source *s = &c->sources[i];
        for (size_t j = 0; status == MOE_OK && j < s->torch.n_tensors; j++) {
            status = verify_tensor(c, out, &s->torch.tensors[j], &s->digests[j]);
        }
    }
    checkpoint_close(out);
    return status;
}

/* ------------------------------------------------------------------------------------------------ the whole */
static void conversion_fini(conversion *c)
{
    output_close(&c->out);
    for (size_t i = 0; i < c->n_sources; i++) {
        torch_file_close(&c->sources[i].torch);
        checkpoint_file_close(&c->sources[i].file);
        free(c->sources[i].digests);
    }
    free(c->sources);
    if (c->dir_fd >= 0) {
        (void)close(c->dir_fd);
    }
}

static moe_status convert(conversion *c, const char *out_dir)
{
    moe_status status = open_sources(c);

    if (status == MOE_OK) {
        status = output_open(out_dir, &c->out, c->err);
    }
    if (status == MOE_OK) {
        status = write_all(c);
    }
    if (status == MOE_OK) {
        status = verify(c);
    }
    return status == MOE_OK ? output_publish(&c->out, c->err) : status;
}

moe_status checkpoint_convert(const char *dir, const char *out_dir, checkpoint_convert_progress progress,
                              void *progress_ctx, checkpoint_converted *out, moe_error *err)
{
    moe_error reason = {.text = ""};
    conversion c = {.dir = dir, .progress = progress, .progress_ctx = progress_ctx, .err = &reason};
    moe_status status;

    c.dir_fd = open(dir, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (c.dir_fd < 0) {
        return moe_fail(err, errno == ENOENT || errno == ENOTDIR ? MOE_ERR_NOT_FOUND : MOE_ERR_IO, "%.300s: %s", dir,
                        strerror(errno));
    }
    status = convert(&c, out_dir);
    if (status == MOE_OK) {
        *out = (checkpoint_converted){c.n_tensors, c.n_sources, c.n_copied, c.total_bytes};
    }
    conversion_fini(&c);
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%.120s: %.250s", dir, reason.text);
}
