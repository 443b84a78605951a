#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static moe_status status_of_errno(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
        return MOE_ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return MOE_ERR_DENIED;
    case ENOMEM:
        return MOE_ERR_NO_MEMORY;
    default:
        return MOE_ERR_IO;
    }
}

static moe_status fail_errno(moe_error *err, const char *path, int number)
{
    char text[128];

    return moe_fail(err, status_of_errno(number), "%s: %s", path, strerror_r(number, text, sizeof text));
}

/* Up to n bytes: fewer if the file has shrunk. */
static moe_status read_all(int fd, char *data, size_t n, size_t *bytes_out)
{
    size_t at = 0;

    while (at < n) {
        ssize_t got = read(fd, data + at, n - at);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return MOE_ERR_IO;
        }
        if (got == 0) {
            break;
        }
        at += (size_t)got;
    }
    *bytes_out = at;
    return MOE_OK;
}

bool moe_file_is_lfs_pointer(const void *bytes, size_t n)
{
    static const char begin[] = "version https://git-lfs.github.com/spec/";

    return n >= sizeof begin - 1 && n < 1024 && memcmp(bytes, begin, sizeof begin - 1) == 0; /* its limit */
}

static moe_status read_open(int fd, const char *path, size_t max_bytes, char **data_out, size_t *bytes_out,
                            moe_error *err)
{
    struct stat info;
    char *data;

    if (fstat(fd, &info) != 0) {
        return fail_errno(err, path, errno);
    }
    if (!S_ISREG(info.st_mode)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: is not a regular file", path);
    }
    if ((uint64_t)info.st_size > max_bytes || max_bytes == SIZE_MAX) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %lld bytes, at most %zu are allowed", path,
                        (long long)info.st_size, max_bytes);
    }
    data = malloc((size_t)info.st_size + 1);
    if (data == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%s: no memory for %lld bytes", path, (long long)info.st_size);
    }
    if (read_all(fd, data, (size_t)info.st_size, bytes_out) != MOE_OK) {
        int number = errno;

        explicit_bzero(data, (size_t)info.st_size); /* it may have been a secret */
        free(data);
        return fail_errno(err, path, number);
    }
    data[*bytes_out] = '\0';
    if (moe_file_is_lfs_pointer(data, *bytes_out)) {
        free(data);
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: " MOE_LFS_ADVICE, path);
    }
    *data_out = data;
    return MOE_OK;
}

moe_status moe_file_read(const char *path, size_t max_bytes, char **data_out, size_t *bytes_out, moe_error *err)
{
    /* O_NONBLOCK: opening a pipe that nobody writes must not hang before it can be refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    moe_status status;

    if (fd < 0) {
        return fail_errno(err, path, errno);
    }
    status = read_open(fd, path, max_bytes, data_out, bytes_out, err);
    (void)close(fd);
    return status;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

bool moe_file_next_line(const char **at, const char *end, const char **line_out, size_t *n_out, size_t *line_no)
{
    while (*at < end) {
        const char *line = *at, *eol = memchr(line, '\n', (size_t)(end - line));
        const char *last = eol == NULL ? end : eol;

        *at = eol == NULL ? end : eol + 1;
        *line_no += 1;
        while (line < last && is_blank(*line)) {
            line++;
        }
        while (last > line && is_blank(last[-1])) {
            last--;
        }
        if (line < last && *line != '#') {
            *line_out = line;
            *n_out = (size_t)(last - line);
            return true;
        }
    }
    return false;
}

static uint64_t time_ns(struct timespec t)
{
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

moe_file_stamp moe_file_stamp_read(const char *path)
{
    struct stat s;

    if (path == NULL || stat(path, &s) != 0) {
        return (moe_file_stamp){.inode = 0};
    }
    return (moe_file_stamp){
        .inode = s.st_ino, .size = (uint64_t)s.st_size, .mtime_ns = time_ns(s.st_mtim), .ctime_ns = time_ns(s.st_ctim)};
}

bool moe_file_stamp_equal(const moe_file_stamp *a, const moe_file_stamp *b)
{
    return a->inode == b->inode && a->size == b->size && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

moe_status moe_file_read_named(const char *what, const char *path, size_t max_bytes, char **data_out, size_t *bytes_out,
                               moe_error *err)
{
    moe_error reason = {""};
    moe_status status = moe_file_read(path, max_bytes, data_out, bytes_out, &reason);

    return status == MOE_OK ? MOE_OK
                            : moe_fail(err, status == MOE_ERR_NO_MEMORY ? status : MOE_ERR_INVALID_ARG, "%s %.300s",
                                       what, reason.text);
}

/* errno tells the reason only right after the write that failed: a caller passes the status on at once. */
moe_status moe_output_flush(moe_error *err)
{
    if (fflush(stdout) != 0) {
        return moe_fail(err, MOE_ERR_IO, "standard output: %s", strerror(errno));
    }
    return ferror(stdout) != 0 ? moe_fail(err, MOE_ERR_IO, "standard output: a write failed") : MOE_OK;
}

moe_status moe_output_write(const char *text, size_t n, moe_error *err)
{
    if (fwrite(text, 1, n, stdout) != n) {
        return moe_fail(err, MOE_ERR_IO, "standard output: %s", strerror(errno));
    }
    return moe_output_flush(err);
}
