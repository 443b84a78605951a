#include "member/pack_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_PATH    4096
#define MAX_ENTRIES 4096 /* that are looked at in one go; others the next time */

static const char *const file_names[] = {PACK_DIR_MANIFEST, PACK_DIR_SIGNATURE, PACK_DIR_TENSORS};

void pack_dir_remove(const char *pack)
{
    char path[MAX_PATH];

    for (size_t i = 0; i < MOE_COUNT(file_names); i++) {
        if (snprintf(path, sizeof path, "%s/%s", pack, file_names[i]) < MAX_PATH) {
            (void)unlink(path);
        }
    }
    (void)rmdir(pack);
}

void pack_dir_touch(const char *pack)
{
    (void)utimensat(AT_FDCWD, pack, NULL, 0); /* of a directory that we may not write it says nothing */
}

int pack_dir_lock(const char *path)
{
    struct stat held, there;

    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int why = errno;
            (void)(fd < 0 || close(fd));
            errno = why;
            return -1;
        }
        if (fstat(fd, &held) == 0 && stat(path, &there) == 0 && held.st_ino == there.st_ino) {
            return fd;
        }
        (void)close(fd); /* it was tidied away meanwhile: the next one is somebody else's */
    }
}

/* ------------------------------------------------------------------------------------------------ what lies there */
typedef struct entry {
    char name[96]; /* HASH[.router][.new] */
    uint64_t bytes;
    int64_t used_s;
    bool is_named;
} entry;

typedef struct listing {
    const char *dir;
    entry *at; /* owned [MAX_ENTRIES] */
    size_t n;
    uint64_t bytes;
    int64_t newest_s;
} listing;

/* Whether a name is one of ours; hash [65]. */
static bool read_name(const char *name, char hash[65])
{
    static const char *const suffixes[] = {"", ".router", ".new", ".router.new"};
    bool ours = strspn(name, "0123456789abcdef") == 64;

    for (size_t i = 0; i < MOE_COUNT(suffixes) && ours; i++) {
        if (strcmp(name + 64, suffixes[i]) == 0) {
            memcpy(hash, name, 64);
            hash[64] = '\0';
            return true;
        }
    }
    return false;
}

static uint64_t bytes_of(const char *pack)
{
    char path[MAX_PATH];
    struct stat s;
    uint64_t sum = 0;

    for (size_t i = 0; i < MOE_COUNT(file_names); i++) {
        if (snprintf(path, sizeof path, "%s/%s", pack, file_names[i]) < MAX_PATH && lstat(path, &s) == 0) {
            sum += (uint64_t)s.st_size;
        }
    }
    return sum;
}

static void add(listing *l, const char *name, bool (*is_named)(void *ctx, const char *hash), void *ctx)
{
    char path[MAX_PATH], hash[65];
    struct stat s;

    if (l->n == MAX_ENTRIES || !read_name(name, hash) ||
        snprintf(path, sizeof path, "%s/%s", l->dir, name) >= MAX_PATH || lstat(path, &s) != 0 || !S_ISDIR(s.st_mode)) {
        return;
    }
    entry *e = &l->at[l->n++];
    *e = (entry){.bytes = bytes_of(path), .used_s = (int64_t)s.st_mtime, .is_named = is_named(ctx, hash)};
    (void)snprintf(e->name, sizeof e->name, "%s", name);
    l->bytes += e->bytes;
    l->newest_s = MOE_MAX(l->newest_s, e->used_s);
}

static int compare(const void *a, const void *b)
{
    const entry *x = a, *y = b;

    return (x->used_s > y->used_s) - (x->used_s < y->used_s);
}

/* With its lock, which readers of it take first. False: somebody has it. */
static bool remove_entry(const listing *l, const entry *e)
{
    char path[MAX_PATH], lock[MAX_PATH];
    size_t n = strlen(e->name);

    n -= n > 4 && strcmp(e->name + n - 4, ".new") == 0 ? 4 : 0;
    if (snprintf(path, sizeof path, "%s/%s", l->dir, e->name) >= MAX_PATH ||
        snprintf(lock, sizeof lock, "%s/%.*s.lock", l->dir, (int)n, e->name) >= MAX_PATH) {
        return false;
    }
    int fd = pack_dir_lock(lock);
    if (fd < 0) {
        return false;
    }
    MOE_INFO("packs: %s goes, which was not used for long: %llu bytes", path, (unsigned long long)e->bytes);
    pack_dir_remove(path);
    (void)unlink(lock);
    (void)close(fd);
    return true;
}

size_t pack_dir_tidy(const char *dir, uint64_t max_bytes, bool (*is_named)(void *ctx, const char *hash), void *ctx)
{
    listing l = {.dir = dir, .at = calloc(MAX_ENTRIES, sizeof *l.at)};
    DIR *d = l.at != NULL ? opendir(dir) : NULL;
    size_t n_gone = 0;

    for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        add(&l, e->d_name, is_named, ctx);
    }
    if (d != NULL) {
        (void)closedir(d);
        qsort(l.at, l.n, sizeof *l.at, compare);
    }
    for (size_t i = 0; i < l.n; i++) {
        const entry *e = &l.at[i];

        if (!e->is_named && (e->used_s < l.newest_s - PACK_DIR_KEEP_S || l.bytes > max_bytes) && remove_entry(&l, e)) {
            l.bytes -= e->bytes;
            n_gone++;
        }
    }
    free(l.at);
    return n_gone;
}
