/* Digests of earlier starts: DIR/<key in hex>.manifest = one line of version, key in binary, the digests, and the
 * SHA-256 of all before it. What does not fit in every byte is as good as absent. */
#include "checkpoint/checkpoint_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "conclave-manifest-cache 1\n"

static size_t cache_bytes(size_t n_digests)
{
    return strlen(MAGIC) + (n_digests + 2) * sizeof(checkpoint_digest);
}

static void cache_path(moe_text *path, const char *cache_dir, const checkpoint_digest *key)
{
    char hex[65];

    checkpoint_digest_hex(key, hex);
    moe_text_init(path, 8192);
    moe_text_printf(path, "%s/%s.manifest", cache_dir, hex);
}

static bool fits(const char *data, size_t bytes, const checkpoint_digest *key, size_t n_digests)
{
    const size_t body = cache_bytes(n_digests) - sizeof(checkpoint_digest);

    if (bytes != cache_bytes(n_digests) || memcmp(data, MAGIC, strlen(MAGIC)) != 0 ||
        memcmp(data + strlen(MAGIC), key, sizeof(*key)) != 0) {
        return false;
    }
    const checkpoint_digest sum = checkpoint_sha256(data, body);
    return memcmp(data + body, &sum, sizeof(sum)) == 0;
}

bool manifest_cache_load(const char *cache_dir, const checkpoint_digest *key, checkpoint_digest *digests,
                         size_t n_digests)
{
    moe_text path;
    char *data = NULL;
    size_t bytes = 0;
    bool hit = false;

    cache_path(&path, cache_dir, key);
    if (!path.failed && moe_file_read(path.data, cache_bytes(n_digests), &data, &bytes, NULL) == MOE_OK) {
        hit = fits(data, bytes, key, n_digests);
        if (hit) {
            memcpy(digests, data + strlen(MAGIC) + sizeof(*key), n_digests * sizeof(*digests));
        }
        free(data);
    }
    moe_text_fini(&path);
    return hit;
}

/* Makes dir and what is missing above it. */
static bool make_dirs(const char *dir)
{
    char *path = strdup(dir);
    bool made = path != NULL;

    for (char *slash = path; made && slash != NULL;) {
        slash = strchr(slash + 1, '/');
        if (slash != NULL) {
            *slash = '\0';
        }
        made = mkdir(path, 0700) == 0 || errno == EEXIST;
        if (slash != NULL) {
            *slash = '/';
        }
    }
    free(path);
    return made;
}

static bool write_all(int fd, const void *bytes, size_t n)
{
    for (const char *at = bytes; n > 0;) {
        const ssize_t wrote = write(fd, at, n);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) {
            return false;
        }
        at += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

/* Whole or not at all: readers see the old file or the new one. */
static bool replace_file(const char *path, const void *bytes, size_t n)
{
    moe_text temporary;
    bool done = false;
    int fd = -1;

    moe_text_init(&temporary, 8192);
    moe_text_printf(&temporary, "%s.XXXXXX", path);
    if (!temporary.failed) {
        fd = mkstemp(temporary.data);
    }
    if (fd >= 0) {
        done = write_all(fd, bytes, n);
        done = close(fd) == 0 && done;
        done = done && rename(temporary.data, path) == 0;
        if (!done) {
            (void)unlink(temporary.data);
        }
    }
    moe_text_fini(&temporary);
    return done;
}

bool manifest_cache_store(const char *cache_dir, const checkpoint_digest *key, const checkpoint_digest *digests,
                          size_t n_digests)
{
    const size_t body = cache_bytes(n_digests) - sizeof(checkpoint_digest);
    char *data = malloc(cache_bytes(n_digests));
    moe_text path;

    cache_path(&path, cache_dir, key);
    if (data != NULL) {
        memcpy(data, MAGIC, strlen(MAGIC));
        memcpy(data + strlen(MAGIC), key, sizeof(*key));
        memcpy(data + strlen(MAGIC) + sizeof(*key), digests, n_digests * sizeof(*digests));
        const checkpoint_digest sum = checkpoint_sha256(data, body);
        memcpy(data + body, &sum, sizeof(sum));
    }
    bool done =
        data != NULL && !path.failed && make_dirs(cache_dir) && replace_file(path.data, data, cache_bytes(n_digests));
    if (!done) {
        MOE_WARN("manifest cache %s: not written: %s", cache_dir, strerror(errno));
    }
    free(data);
    moe_text_fini(&path);
    return done;
}
