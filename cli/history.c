#include "cli/history.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static moe_status refuse(const char *path, int number, moe_error *err)
{
    return moe_fail(err, MOE_ERR_UNAVAILABLE, "history %s: %s", path, strerror(number));
}

/* Every folder that the path goes through. */
static moe_status make_folders(char *path, moe_error *err)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        struct stat folder;

        *slash = '\0';
        if (mkdir(path, 0700) != 0 && (errno != EEXIST || stat(path, &folder) != 0)) {
            return refuse(path, errno, err);
        }
        if (stat(path, &folder) == 0 && !S_ISDIR(folder.st_mode)) {
            return refuse(path, ENOTDIR, err);
        }
        *slash = '/';
    }
    return MOE_OK;
}

moe_status cli_history_find(char path[CLI_HISTORY_PATH_BYTES], moe_error *err)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n;

    if (state != NULL && state[0] == '/') { /* the specification leaves relative ones out */
        n = snprintf(path, CLI_HISTORY_PATH_BYTES, "%s/conclave/history", state);
    } else if (home != NULL && home[0] == '/') {
        n = snprintf(path, CLI_HISTORY_PATH_BYTES, "%s/.local/state/conclave/history", home);
    } else {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "history: neither XDG_STATE_HOME nor HOME is set");
    }
    if (n >= CLI_HISTORY_PATH_BYTES) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "history: a path of %d bytes; at most %d", n,
                        CLI_HISTORY_PATH_BYTES - 1);
    }
    return make_folders(path, err);
}

void cli_history_load(History *kept, const char *path)
{
    HistEvent event;

    (void)history(kept, &event, H_LOAD, path);
}

static moe_status write_all(History *kept, int fd, moe_error *err, const char *path)
{
    FILE *file = fdopen(fd, "w");
    HistEvent event;
    int failed = 0;

    if (file == NULL) {
        failed = errno;
        close(fd);
        return refuse(path, failed, err);
    }
    errno = 0;
    failed = history(kept, &event, H_SAVE_FP, file) < 0 || fflush(file) != 0 || ferror(file) != 0 ? errno : 0;
    if (fclose(file) != 0 && failed == 0) {
        failed = errno;
    }
    return failed == 0 ? MOE_OK : refuse(path, failed, err);
}

moe_status cli_history_save(History *kept, const char *path, moe_error *err)
{
    char fresh[CLI_HISTORY_PATH_BYTES + 8];
    int fd;
    moe_status status;

    (void)snprintf(fresh, sizeof(fresh), "%s.XXXXXX", path);
    fd = mkostemp(fresh, O_CLOEXEC); /* mode 0600 */
    if (fd < 0) {
        return refuse(path, errno, err);
    }
    status = write_all(kept, fd, err, path);
    if (status == MOE_OK && rename(fresh, path) != 0) {
        status = refuse(path, errno, err);
    }
    if (status != MOE_OK) {
        (void)unlink(fresh);
    }
    return status;
}
