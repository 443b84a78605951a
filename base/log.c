#include "base/base.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static atomic_int current_level = MOE_LOG_INFO;

void moe_log_set_level(moe_log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

bool moe_log_level_parse(const char *name, moe_log_level *level_out)
{
    for (size_t i = 0; i < MOE_COUNT(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level_out = (moe_log_level)i;
            return true;
        }
    }
    return false;
}

bool moe_log_enabled(moe_log_level level)
{
    return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

static size_t put_prefix(char *line, size_t room, moe_log_level level)
{
    struct timespec now = {0};
    struct tm utc = {0};
    char date[32] = "";

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    return (size_t)snprintf(line, room, "%s.%03ldZ %s ", date, now.tv_nsec / 1000000, level_names[level]);
}

/* Nothing that somebody else wrote may start a line of its own or move the cursor of a terminal. */
static size_t put_escaped(char *out, size_t room, const char *text)
{
    size_t n = strlen(text), used = 0;

    for (size_t i = 0; i < n && used + 4 <= room;) {
        size_t valid = moe_utf8_valid_prefix(text + i, MOE_MIN(n - i, (size_t)4));
        unsigned char c = (unsigned char)text[i];

        if (valid == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[i + 1] < 0xa0)) {
            static const char hex[] = "0123456789abcdef";
            const char escaped[4] = {'\\', 'x', hex[c >> 4], hex[c & 15]};

            memcpy(out + used, escaped, 4);
            used += 4;
        } else {
            out[used++] = text[i];
            while (++i < n && ((unsigned char)text[i] & 0xc0) == 0x80 && used < room) {
                out[used++] = text[i];
            }
            continue;
        }
        i++;
    }
    return used;
}

void moe_log(moe_log_level level, const char *format, ...)
{
    char text[1024], line[2048];
    int saved_errno = errno;
    size_t used;
    va_list args;

    if (!moe_log_enabled(level)) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    used = put_prefix(line, sizeof line, level);
    used += put_escaped(line + used, sizeof line - used - 1, text);
    line[used++] = '\n';
    /* One write: lines of different threads do not mix. There is nobody to tell when it fails. */
    if (write(STDERR_FILENO, line, used) < 0) {
        errno = saved_errno;
    }
    errno = saved_errno;
}
