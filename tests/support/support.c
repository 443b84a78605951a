#include "tests/support/support.h"

#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <unistd.h>

/* Those that are open. What a test leaves behind when it fails is removed when its process ends. */
static struct {
    pid_t pid; /* a child that is forked off ends without this */
    char paths[32][sizeof((test_folder *)NULL)->path];
} open_folders;

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static int remove_all(const char *path)
{
    return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void remove_what_is_left(void)
{
    for (size_t i = 0; open_folders.pid == getpid() && i < MOE_COUNT(open_folders.paths); i++) {
        if (open_folders.paths[i][0] != '\0') {
            (void)remove_all(open_folders.paths[i]);
        }
    }
}

static void note(const char *was, const char *is)
{
    for (size_t i = 0; i < MOE_COUNT(open_folders.paths); i++) {
        if (strcmp(open_folders.paths[i], was) == 0) {
            (void)snprintf(open_folders.paths[i], sizeof open_folders.paths[i], "%s", is);
            return;
        }
    }
    fail_msg("more than %zu folders are open, or %s is not", MOE_COUNT(open_folders.paths), was);
}

void test_folder_open(test_folder *folder)
{
    const char *parent = getenv("TMPDIR");

    if (parent == NULL || parent[0] == '\0') {
        parent = "/tmp";
    }
    assert_true((size_t)snprintf(folder->path, sizeof folder->path, "%s/conclave-test-XXXXXX", parent) <
                sizeof folder->path);
    assert_non_null(mkdtemp(folder->path));
    if (open_folders.pid == 0) {
        open_folders.pid = getpid();
        assert_int_equal(atexit(remove_what_is_left), 0);
    }
    note("", folder->path);
}

void test_folder_close(test_folder *folder)
{
    assert_int_equal(remove_all(folder->path), 0);
    note(folder->path, "");
}

const char *test_folder_path(const test_folder *folder, const char *name)
{
    static char paths[8][512];
    static size_t next;
    char *path = paths[next++ % MOE_COUNT(paths)];

    assert_true((size_t)snprintf(path, sizeof paths[0], "%s/%s", folder->path, name) < sizeof paths[0]);
    return path;
}

int test_folder_setup(void **state)
{
    test_folder *folder = calloc(1, sizeof *folder);

    assert_non_null(folder);
    test_folder_open(folder);
    *state = folder;
    return 0;
}

int test_folder_teardown(void **state)
{
    test_folder_close(*state);
    free(*state);
    return 0;
}

void test_write_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wbe");

    if (f == NULL) {
        fail_msg("%s: %s", path, strerror(errno));
        return;
    }
    assert_int_equal(n > 0 ? fwrite(bytes, 1, n, f) : 0, n);
    assert_int_equal(fclose(f), 0);
}

void test_write_text(const char *path, const char *text)
{
    test_write_file(path, text, strlen(text));
}

char *test_read_file(const char *path, size_t *n_out)
{
    moe_error err;
    char *data = NULL;
    size_t n = 0;

    assert_ok(moe_file_read(path, (size_t)1 << 30, &data, &n, &err), err);
    if (n_out != NULL) {
        *n_out = n;
    }
    return data;
}
