/* The manifest: SHA-256 of every logical tensor, and of the text that lists them with the configuration. */
#include "checkpoint/checkpoint_priv.h"

#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((size_t)4 << 20) /* between two looks at the progress */

_Static_assert(sizeof(checkpoint_digest) == 32, "a digest is its bytes");

/* ------------------------------------------------------------------------------------------------ SHA-256 of text */
typedef struct text_hash {
    EVP_MD_CTX *ctx; /* owned; NULL: no memory */
} text_hash;

static text_hash text_hash_begin(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    if (ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        ctx = NULL;
    }
    return (text_hash){ctx};
}

static void text_hash_add(const text_hash *h, const char *text)
{
    if (h->ctx != NULL) {
        (void)EVP_DigestUpdate(h->ctx, text, strlen(text));
    }
}

static void text_hash_number(const text_hash *h, const char *before, uint64_t n)
{
    char number[24];

    snprintf(number, sizeof(number), "%llu", (unsigned long long)n);
    text_hash_add(h, before);
    text_hash_add(h, number);
}

static moe_status text_hash_finish(text_hash *h, checkpoint_digest *out)
{
    const bool done = h->ctx != NULL && EVP_DigestFinal_ex(h->ctx, out->bytes, NULL) == 1;

    EVP_MD_CTX_free(h->ctx);
    return done ? MOE_OK : MOE_ERR_NO_MEMORY;
}

static bool go_on(void *ctx, size_t bytes)
{
    (void)ctx, (void)bytes;
    return true;
}

checkpoint_digest checkpoint_sha256(const void *bytes, size_t n)
{
    checkpoint_digest d = {{0}};

    (void)checkpoint_sha256_in_pieces(bytes, n, MOE_MAX(n, (size_t)1), go_on, NULL, &d);
    return d;
}

bool checkpoint_sha256_in_pieces(const void *bytes, size_t n, size_t piece, bool (*more)(void *ctx, size_t bytes),
                                 void *ctx, checkpoint_digest *out)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool going = true;

    MOE_ASSERT(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    for (size_t at = 0; going && at < n; at += piece) {
        size_t now = MOE_MIN(piece, n - at);

        MOE_ASSERT(EVP_DigestUpdate(md, (const unsigned char *)bytes + at, now) == 1);
        going = more(ctx, now);
    }
    MOE_ASSERT(!going || EVP_DigestFinal_ex(md, out->bytes, NULL) == 1);
    EVP_MD_CTX_free(md);
    return going;
}

void checkpoint_digest_hex(const checkpoint_digest *d, char hex[65])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < sizeof(d->bytes); i++) {
        hex[2 * i] = digits[d->bytes[i] >> 4];
        hex[2 * i + 1] = digits[d->bytes[i] & 15];
    }
    hex[64] = '\0';
}

/* ------------------------------------------------------------------------------------------- hashing on the threads */
typedef struct hash_job {
    const checkpoint *checkpoint;
    const checkpoint_logical *tensors;
    const size_t *order; /* largest first, so that no thread ends with a big one alone */
    checkpoint_digest *digests;
    atomic_size_t done_bytes;
    atomic_bool failed;
    size_t total_bytes;
    checkpoint_progress progress;
    void *progress_ctx;
    size_t shown; /* hundredths; the caller's thread only */
} hash_job;

static void show_progress(hash_job *job)
{
    const size_t done = atomic_load(&job->done_bytes);
    const size_t hundredths = (size_t)(100.0 * (double)done / (double)job->total_bytes);

    if (job->progress != NULL && hundredths > job->shown && done < job->total_bytes) {
        job->shown = hundredths;
        job->progress(job->progress_ctx, done, job->total_bytes);
    }
}

static void hash_tensor(void *ctx, size_t task, size_t thread)
{
    hash_job *job = ctx;
    const size_t i = job->order[task];
    const checkpoint_logical *t = &job->tensors[i];
    text_hash h = text_hash_begin();

    for (size_t at = 0; at < t->bytes; at += PIECE_BYTES) {
        const size_t n = MOE_MIN(PIECE_BYTES, t->bytes - at);
        if (h.ctx != NULL) {
            (void)EVP_DigestUpdate(h.ctx, t->data + at, n);
        }
        checkpoint_forget(job->checkpoint, t->data + at, n); /* or the whole model stays mapped until it is loaded */
        atomic_fetch_add(&job->done_bytes, n);
        if (thread == 0) {
            show_progress(job);
        }
    }
    if (t->bytes > PIECE_BYTES) {
        checkpoint_forget(job->checkpoint, t->data, t->bytes); /* with the pages that two pieces share */
    }
    if (text_hash_finish(&h, &job->digests[i]) != MOE_OK) {
        atomic_store(&job->failed, true);
    }
}

/* -------------------------------------------------------------------------------------------- orders of the tensors */
typedef struct ordered {
    const checkpoint_logical *tensor;
    size_t i;
} ordered;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ordered *)a)->tensor->name, ((const ordered *)b)->tensor->name);
}

static int by_size(const void *a, const void *b)
{
    const ordered *x = a, *y = b;

    if (x->tensor->bytes != y->tensor->bytes) {
        return x->tensor->bytes > y->tensor->bytes ? -1 : 1;
    }
    return x->i < y->i ? -1 : x->i > y->i;
}

static size_t *order_tensors(const checkpoint_logical *tensors, size_t n, int (*compare)(const void *, const void *))
{
    ordered *o = calloc(n + 1, sizeof(*o));
    size_t *order = calloc(n + 1, sizeof(*order));

    if (o == NULL || order == NULL) {
        free(o);
        free(order);
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        o[i] = (ordered){&tensors[i], i};
    }
    qsort(o, n, sizeof(*o), compare);
    for (size_t i = 0; i < n; i++) {
        order[i] = o[i].i;
    }
    free(o);
    return order;
}

/* A name with a space or a line end would make the text ambiguous. */
static moe_status check_names(const checkpoint_logical *tensors, const size_t *order, size_t n, moe_error *err)
{
    for (size_t i = 0; i < n; i++) {
        const char *name = tensors[order[i]].name;
        if (name[0] == '\0') {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "logical tensor %zu has no name", order[i]);
        }
        for (const char *c = name; *c != '\0'; c++) {
            if ((unsigned char)*c <= ' ' || *c == 0x7f) {
                return moe_fail(err, MOE_ERR_INVALID_ARG,
                                "logical tensor \"%.200s\": space or control character in its name", name);
            }
        }
        if (i > 0 && strcmp(tensors[order[i - 1]].name, name) == 0) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "logical tensor \"%.200s\" is given twice", name);
        }
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ the two texts */
static void add_config(const text_hash *h, const char *config_text)
{
    const size_t n = strlen(config_text);

    text_hash_add(h, config_text);
    if (n > 0 && config_text[n - 1] != '\n') {
        text_hash_add(h, "\n");
    }
}

static void add_tensor(const text_hash *h, const checkpoint_logical *t)
{
    text_hash_add(h, t->name);
    text_hash_add(h, " ");
    text_hash_add(h, compute_dtype_name(t->dtype));
    if (t->rank == 0) {
        text_hash_add(h, " -");
    }
    for (size_t i = 0; i < t->rank; i++) {
        text_hash_number(h, i == 0 ? " " : ",", t->shape[i]);
    }
}

static moe_status fingerprint(const char *config_text, const checkpoint_logical *tensors, const size_t *order, size_t n,
                              const checkpoint_digest *digests, checkpoint_digest *out)
{
    text_hash h = text_hash_begin();
    char hex[65];

    text_hash_add(&h, "conclave-manifest 1\n");
    add_config(&h, config_text);
    for (size_t i = 0; i < n; i++) {
        add_tensor(&h, &tensors[order[i]]);
        checkpoint_digest_hex(&digests[order[i]], hex);
        text_hash_add(&h, " ");
        text_hash_add(&h, hex);
        text_hash_add(&h, "\n");
    }
    return text_hash_finish(&h, out);
}

/* All that the digests depend on, short of reading the weights: the files, and which of their bytes each tensor is. */
static moe_status cache_key(const checkpoint *c, const char *config_text, const checkpoint_logical *tensors, size_t n,
                            checkpoint_digest *out)
{
    text_hash h = text_hash_begin();

    text_hash_add(&h, "conclave-manifest-cache 1\n");
    text_hash_add(&h, c->dir);
    for (size_t i = 0; i < c->n_files; i++) {
        const checkpoint_file *f = &c->files[i];
        text_hash_add(&h, "\n");
        text_hash_add(&h, f->name);
        text_hash_number(&h, " ", f->bytes);
        text_hash_number(&h, " ", (uint64_t)f->mtime_ns);
        text_hash_number(&h, " ", f->device);
        text_hash_number(&h, " ", f->inode);
    }
    text_hash_number(&h, "\nconfig ", strlen(config_text));
    text_hash_add(&h, "\n");
    text_hash_add(&h, config_text);
    for (size_t i = 0; i < n; i++) {
        const checkpoint_file *f = checkpoint_file_of(c, tensors[i].data);
        text_hash_add(&h, "\n");
        add_tensor(&h, &tensors[i]);
        text_hash_add(&h, " ");
        text_hash_add(&h, f != NULL ? f->name : "-");
        text_hash_number(&h, " ", f != NULL ? (uint64_t)(tensors[i].data - f->data) : 0);
        text_hash_number(&h, " ", tensors[i].bytes);
    }
    return text_hash_finish(&h, out);
}

/* ------------------------------------------------------------------------------------------------ building */
char *checkpoint_cache_dir(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    moe_text path;

    moe_text_init(&path, 4096);
    if (xdg != NULL && xdg[0] == '/') {
        moe_text_printf(&path, "%s/conclave", xdg);
    } else if (home != NULL && home[0] == '/') {
        moe_text_printf(&path, "%s/.cache/conclave", home);
    }
    if (path.failed || path.size == 0) {
        moe_text_fini(&path);
        return NULL;
    }
    return path.data; /* malloc'ed */
}

static moe_status hash_all(const checkpoint *c, const checkpoint_logical *tensors, size_t n, moe_threads *threads,
                           checkpoint_progress progress, void *progress_ctx, checkpoint_digest *digests)
{
    size_t *order = order_tensors(tensors, n, by_size);
    hash_job job = {.checkpoint = c,
                    .tensors = tensors,
                    .order = order,
                    .digests = digests,
                    .progress = progress,
                    .progress_ctx = progress_ctx};

    if (order == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        job.total_bytes += tensors[i].bytes;
    }
    moe_threads_run(threads, n, hash_tensor, &job);
    free(order);
    if (atomic_load(&job.failed)) {
        return MOE_ERR_NO_MEMORY;
    }
    if (progress != NULL) {
        progress(progress_ctx, job.total_bytes, job.total_bytes);
    }
    return MOE_OK;
}

/* The digests, from the cache or by hashing. cache_dir: NULL means no cache here. */
static moe_status find_digests(const checkpoint *c, const char *config_text, const checkpoint_logical *tensors,
                               size_t n, moe_threads *threads, const char *cache_dir, checkpoint_progress progress,
                               void *progress_ctx, checkpoint_manifest *m)
{
    checkpoint_digest key;
    moe_status status = MOE_OK;

    if (cache_dir != NULL) {
        status = cache_key(c, config_text, tensors, n, &key);
        m->from_cache = status == MOE_OK && manifest_cache_load(cache_dir, &key, m->tensors, n);
    }
    if (status != MOE_OK || m->from_cache) {
        return status;
    }
    status = hash_all(c, tensors, n, threads, progress, progress_ctx, m->tensors);
    if (status == MOE_OK && cache_dir != NULL) {
        m->cached = manifest_cache_store(cache_dir, &key, m->tensors, n);
    }
    return status;
}

moe_status checkpoint_manifest_build(const checkpoint *c, const char *config_text, const checkpoint_logical *tensors,
                                     size_t n_tensors, moe_threads *threads, const char *cache_dir,
                                     checkpoint_progress progress, void *progress_ctx, checkpoint_manifest *out,
                                     moe_error *err)
{
    checkpoint_manifest m = {.tensors = calloc(n_tensors + 1, sizeof(*m.tensors)), .n_tensors = n_tensors};
    size_t *order = order_tensors(tensors, n_tensors, by_name);
    char *fallback = cache_dir == NULL ? checkpoint_cache_dir() : NULL;
    const char *dir = cache_dir == NULL ? fallback : cache_dir;
    moe_status status = MOE_ERR_NO_MEMORY;

    if (c->dir == NULL || (dir != NULL && dir[0] == '\0')) {
        dir = NULL; /* nothing to tell one image in memory from another */
    }
    if (order != NULL && m.tensors != NULL) {
        status = check_names(tensors, order, n_tensors, err);
    }
    if (status == MOE_OK) {
        status = find_digests(c, config_text, tensors, n_tensors, threads, dir, progress, progress_ctx, &m);
    }
    if (status == MOE_OK) {
        status = fingerprint(config_text, tensors, order, n_tensors, m.tensors, &m.fingerprint);
    }
    free(order);
    free(fallback);
    if (status != MOE_OK) {
        checkpoint_manifest_fini(&m);
        return status == MOE_ERR_NO_MEMORY ? moe_fail(err, status, "no memory to hash %zu tensors", n_tensors) : status;
    }
    *out = m;
    return MOE_OK;
}

void checkpoint_manifest_fini(checkpoint_manifest *m)
{
    free(m->tensors);
    *m = (checkpoint_manifest){0};
}
