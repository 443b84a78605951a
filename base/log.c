#include "base/base.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES     4096
#define TEXT_BYTES     1024
#define REPEAT_NS      30000000000u
#define MAX_REMEMBERED 64 /* warnings of the last 30 s; beyond it the oldest is forgotten, and may be said anew */

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static atomic_int current_level = MOE_LOG_INFO, current_format = MOE_LOG_TEXT;
static _Atomic(const moe_clock *) current_clock;

void moe_log_set_level(moe_log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

void moe_log_set_format(moe_log_format format)
{
    atomic_store_explicit(&current_format, (int)format, memory_order_relaxed);
}

void moe_log_set_clock(const moe_clock *clock)
{
    atomic_store(&current_clock, clock);
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

/* ------------------------------------------------------------------------------------------------ a line
 * Built in memory of the caller's, cut where it is full, and written at once. */
typedef struct line {
    char bytes[LINE_BYTES];
    size_t used;
    bool json;
} line;

static void put(line *l, const char *bytes, size_t n)
{
    n = MOE_MIN(n, sizeof l->bytes - 3 - l->used); /* room for the quote, the brace and the newline at the end */
    memcpy(l->bytes + l->used, bytes, n);
    l->used += n;
}

static void put_literal(line *l, const char *text)
{
    put(l, text, strlen(text));
}

/* A byte that may not stand for itself: \xNN in text, \u00NN in JSON (of bytes that are no UTF-8, too). */
static void put_byte_escaped(line *l, unsigned char c)
{
    char escaped[8];

    put(l, escaped, (size_t)snprintf(escaped, sizeof escaped, l->json ? "\\u%04x" : "\\x%02x", c));
}

/* Nothing that somebody else wrote may start a line of its own, move the cursor of a terminal, or end a JSON string. */
static void put_escaped(line *l, const char *text)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n && l->used + 16 <= sizeof l->bytes;) {
        size_t valid = moe_utf8_valid_prefix(text + i, MOE_MIN(n - i, (size_t)4)), end = i + 1;
        unsigned char c = (unsigned char)text[i];

        if (valid == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[i + 1] < 0xa0)) {
            put_byte_escaped(l, c);
        } else {
            if (l->json && (c == '"' || c == '\\')) {
                put(l, "\\", 1);
            }
            while (end < n && ((unsigned char)text[end] & 0xc0) == 0x80) {
                end++;
            }
            put(l, text + i, end - i);
        }
        i = end;
    }
}

static void begin_line(line *l, moe_log_level level, const char *text)
{
    struct timespec now = {0};
    struct tm utc = {0};
    char date[32] = "", head[128];

    l->used = 0;
    l->json = atomic_load_explicit(&current_format, memory_order_relaxed) == MOE_LOG_JSON;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    put(l, head,
        (size_t)snprintf(head, sizeof head,
                         l->json ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"message\":\"" : "%s.%03ldZ %s ", date,
                         now.tv_nsec / 1000000, level_names[level]));
    put_escaped(l, text);
    if (l->json) {
        put_literal(l, "\"");
    }
}

static void put_field(line *l, const moe_log_field *f)
{
    char number[40];

    put_literal(l, l->json ? ",\"" : " ");
    put_literal(l, f->name);
    put_literal(l, l->json ? "\":" : "=");
    if (f->text == NULL) {
        put(l, number, (size_t)snprintf(number, sizeof number, "%.15g", f->number));
        return;
    }
    put_literal(l, l->json ? "\"" : "");
    put_escaped(l, f->text);
    put_literal(l, l->json ? "\"" : "");
}

/* One write: lines of different threads do not mix. There is nobody to tell when it fails. */
static void end_line(line *l)
{
    int saved_errno = errno;

    if (l->json) {
        l->bytes[l->used++] = '}';
    }
    l->bytes[l->used++] = '\n';
    if (write(STDERR_FILENO, l->bytes, l->used) < 0) {
        errno = saved_errno;
    }
}

/* ------------------------------------------------------------------------------------------------ what repeats */
typedef struct remembered {
    uint64_t hash;      /* of the text; 0: free */
    const char *format; /* the place in the code */
    uint64_t said_ns;
    uint32_t n_held; /* since then */
} remembered;

static pthread_mutex_t repeat_lock = PTHREAD_MUTEX_INITIALIZER; /* docs/threads.md: leaf */
static remembered memory[MAX_REMEMBERED];

static uint64_t hash_of(const char *text)
{
    uint64_t h = 14695981039346656037u;

    for (; *text != '\0'; text++) {
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    }
    return h == 0 ? 1 : h;
}

static bool is_recent(const remembered *r, uint64_t now)
{
    return r->hash != 0 && now - r->said_ns < REPEAT_NS;
}

static bool is_older(const remembered *a, const remembered *b)
{
    return b->hash != 0 && (a->hash == 0 || a->said_ns < b->said_ns);
}

/* Under the lock. The place of this text, or of the burst that it belongs to, or the oldest, made free. */
static remembered *find(uint64_t hash, const char *format, uint64_t now)
{
    remembered *last = NULL, *oldest = &memory[0];
    size_t n_alike = 0;

    for (size_t i = 0; i < MOE_COUNT(memory); i++) {
        remembered *r = &memory[i];

        if (r->hash == hash && r->format == format) {
            return r;
        }
        if (is_recent(r, now) && r->format == format) {
            n_alike++;
            last = last == NULL || r->said_ns >= last->said_ns ? r : last;
        }
        if (is_older(r, oldest)) {
            oldest = r;
        }
    }
    if (n_alike >= MOE_LOG_BURST) {
        return last;
    }
    *oldest = (remembered){.hash = 0};
    return oldest;
}

/* Whether a warning is to be written now, and how many like it were held back since the last. */
static bool may_say(const char *format, const char *text, uint32_t *n_held_out)
{
    const moe_clock *clock = atomic_load(&current_clock);
    uint64_t now = moe_now_ns(clock != NULL ? clock : moe_clock_real()), hash = hash_of(text);
    remembered *r;
    bool say;

    (void)pthread_mutex_lock(&repeat_lock);
    r = find(hash, format, now);
    say = !is_recent(r, now);
    *n_held_out = say ? r->n_held : 0;
    if (say) {
        *r = (remembered){.hash = hash, .format = format, .said_ns = now};
    } else {
        r->n_held++;
    }
    (void)pthread_mutex_unlock(&repeat_lock);
    return say;
}

/* ------------------------------------------------------------------------------------------------ */
void moe_log(moe_log_level level, const char *format, ...)
{
    char text[TEXT_BYTES];
    int saved_errno = errno;
    uint32_t n_held = 0;
    line l;
    va_list args;

    if (!moe_log_enabled(level)) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf(text, sizeof text - 64, format, args);
    va_end(args);
    if (level == MOE_LOG_WARN && !may_say(format, text, &n_held)) {
        errno = saved_errno;
        return;
    }
    if (n_held > 0) {
        size_t n = strlen(text);

        (void)snprintf(text + n, sizeof text - n, " (and %u more like it since)", n_held);
    }
    begin_line(&l, level, text);
    end_line(&l);
    errno = saved_errno;
}

void moe_log_event(moe_log_level level, const char *what, const moe_log_field *fields, size_t n_fields)
{
    int saved_errno = errno;
    line l;

    if (!moe_log_enabled(level)) {
        return;
    }
    begin_line(&l, level, what);
    for (size_t i = 0; i < n_fields; i++) {
        put_field(&l, &fields[i]);
    }
    end_line(&l);
    errno = saved_errno;
}
