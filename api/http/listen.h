/* listen: where a server listens, and whether others can reach it there. */
#ifndef CONCLAVE_API_HTTP_LISTEN_H
#define CONCLAVE_API_HTTP_LISTEN_H

#include "base/base.h"

typedef struct listen_address {
    char host[256]; /* without brackets; "" is every address */
    uint16_t port;
    bool loopback; /* only this machine can reach it */
} listen_address;

/* HOST:PORT, [IPV6]:PORT, :PORT. Errors: MOE_ERR_INVALID_ARG naming the option. */
MOE_NODISCARD moe_status listen_parse(const char *option, const char *text, listen_address *out, moe_error *err);

/* Whether that is every address of this machine: nobody can connect to "0.0.0.0". */
bool listen_is_wildcard(const listen_address *a);

/* Which file it was when it was last read: size, times and inode. */
typedef struct file_stamp {
    uint64_t inode, size, mtime_ns, ctime_ns;
} file_stamp;

file_stamp file_stamp_read(const char *path); /* zeroes when there is no such file; NULL too */
bool file_stamp_equal(const file_stamp *a, const file_stamp *b);

#endif
