/* A token file, what it is changed to, and what a stranger sends as `authorization`, a zero byte between: a file is refused with a
 * reason, and the one before stays in force; or each of its tokens is accepted with the sets of its line. What was sent is accepted
 * only as one of them. */
#include "api/grpc/auth_priv.h"

#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#define SCHEME "bEARER "

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct part {
    const char *text;
    size_t n;
} part;

/* A file in memory of these bytes, under the same path as the one before; *fd is -1 before the first. */
static const char *put_file(const void *text, size_t n, int *fd)
{
    static char path[64];
    int made = memfd_create("tokens", MFD_CLOEXEC);

    MOE_ASSERT(made >= 0 && write(made, text, n) == (ssize_t)n);
    if (*fd < 0) {
        *fd = made;
    } else {
        MOE_ASSERT(dup2(made, *fd) == *fd && close(made) == 0);
    }
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
    return path;
}

static auth *open_tokens(const char *path)
{
    auth *a = NULL;
    moe_error err = {.text = ""};

    MOE_ASSERT((auth_open(path, &a, &err) == MOE_OK) == (a != NULL));
    MOE_ASSERT(a != NULL || err.text[0] != '\0');
    return a;
}

/* What a line says of its token, written again. */
static void check_permits(const permits *p, const char *said, size_t n)
{
    char text[8 + PERMITS_MAX_SETS * (PERMITS_MAX_NAME + 1)] = "";
    size_t at = 0;

    MOE_ASSERT(p->bound == (p->n > 0) && p->n <= PERMITS_MAX_SETS);
    for (size_t i = 0; i < p->n; i++) {
        MOE_ASSERT(p->names[i][0] != '\0' && strlen(p->names[i]) <= PERMITS_MAX_NAME);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", i == 0 ? "sets=" : ",", p->names[i]);
    }
    MOE_ASSERT(at == n && memcmp(text, said, n) == 0);
}

/* True: the token of this line is what was sent. */
static bool check_line(const auth *a, const char *line, size_t n_line, const char *sent, size_t n_sent)
{
    char value[sizeof SCHEME - 1 + AUTH_MAX_TOKEN_BYTES] = SCHEME;
    size_t n = 0, rest;
    permits p;

    while (n < n_line && line[n] != ' ' && line[n] != '\t') {
        n++;
    }
    for (rest = n; rest < n_line && (line[rest] == ' ' || line[rest] == '\t'); rest++) {
    }
    MOE_ASSERT(n <= AUTH_MAX_TOKEN_BYTES);
    memcpy(value + sizeof SCHEME - 1, line, n);
    MOE_ASSERT(auth_accepts(a, value, sizeof SCHEME - 1 + n, &p));
    check_permits(&p, line + rest, n_line - rest);
    MOE_ASSERT(!auth_accepts(a, value, sizeof SCHEME - 1, &p));
    return n_sent == sizeof SCHEME - 1 + n && strncasecmp(sent, SCHEME, sizeof SCHEME - 1) == 0 &&
           memcmp(sent + sizeof SCHEME - 1, line, n) == 0;
}

static void check_file(const auth *a, const part *file, const part *sent)
{
    const char *at = file->text, *line;
    size_t line_no = 0, n_line;
    bool is_one = false;
    permits p;

    while (moe_file_next_line(&at, file->text + file->n, &line, &n_line, &line_no)) {
        is_one |= check_line(a, line, n_line, sent->text, sent->n);
    }
    MOE_ASSERT(auth_accepts(a, sent->text, sent->n, &p) == is_one);
}

static part take_part(const uint8_t **data, size_t *size)
{
    const uint8_t *zero = *size > 0 ? memchr(*data, 0, *size) : NULL;
    part p = {(const char *)*data, zero != NULL ? (size_t)(zero - *data) : *size};

    *data += zero != NULL ? p.n + 1 : p.n;
    *size -= zero != NULL ? p.n + 1 : p.n;
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const part first = take_part(&data, &size), second = take_part(&data, &size), sent = {(const char *)data, size};
    int fd = -1;
    auth *a = open_tokens(put_file(first.text, first.n, &fd));

    moe_log_set_level(MOE_LOG_ERROR);
    if (a != NULL) {
        check_file(a, &first, &sent);
        auth *next = open_tokens(put_file(second.text, second.n, &fd));
        auth_refresh(a);
        check_file(a, next != NULL ? &second : &first, &sent);
        auth_close(next);
    }
    auth_close(a);
    (void)close(fd);
    return 0;
}
