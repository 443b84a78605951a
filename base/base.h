/* base: what every other folder may include. Depends on libc and (json.c alone) on jansson.
 *
 * Nouns: status and error, log, clock and random, options, guess, address, resolver, pages, buf, text, queue, ring,
 * waiter, threads, json, file.
 * Threads: unless an entry says otherwise an object belongs to one thread at a time. */
#ifndef CONCLAVE_BASE_H
#define CONCLAVE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MOE_NODISCARD          __attribute__((warn_unused_result))
#define MOE_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define MOE_COUNT(array)       (sizeof(array) / sizeof((array)[0]))
#define MOE_BIT(n)             (1u << (n))
#define MOE_MIN(a, b)          ((a) < (b) ? (a) : (b))
#define MOE_MAX(a, b)          ((a) > (b) ? (a) : (b))
#define MOE_CACHE_LINE         64

static inline size_t moe_round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* ------------------------------------------------------------------------------------------------ status and error */
#define MOE_STATUS_MAP(X)                                                                                              \
    X(MOE_OK, 0, "ok")                                                                                                 \
    X(MOE_ERR_INVALID_ARG, -1, "invalid argument")                                                                     \
    X(MOE_ERR_BUSY, -2, "at capacity")                                                                                 \
    X(MOE_ERR_TIMEOUT, -3, "deadline exceeded")                                                                        \
    X(MOE_ERR_CORRUPT, -4, "malformed data")                                                                           \
    X(MOE_ERR_NO_MEMORY, -5, "out of memory")                                                                          \
    X(MOE_ERR_NOT_FOUND, -6, "not found")                                                                              \
    X(MOE_ERR_UNSUPPORTED, -7, "not supported")                                                                        \
    X(MOE_ERR_UNAVAILABLE, -8, "unavailable")                                                                          \
    X(MOE_ERR_CANCELLED, -9, "cancelled")                                                                              \
    X(MOE_ERR_IO, -10, "input/output error")                                                                           \
    X(MOE_ERR_EXISTS, -11, "already exists")                                                                           \
    X(MOE_ERR_DENIED, -12, "permission denied")                                                                        \
    X(MOE_ERR_DATA_LOSS, -13, "data loss")                                                                             \
    X(MOE_ERR_INTERNAL, -14, "internal error")

typedef enum {
#define X(name, value, text) name = (value),
    MOE_STATUS_MAP(X)
#undef X
} moe_status;

const char *moe_status_text(moe_status status); /* never NULL, also for numbers that are no status */

/* Why something was refused, for the person who sent it: names the field, the value and the limit. Caller's memory;
 * functions take it as an optional last parameter (NULL: not wanted). Only written on failure. */
typedef struct moe_error {
    char text[384];
} moe_error;

/* Formats the reason into err (if not NULL, truncating) and returns status: `return moe_fail(err, MOE_ERR_..., "...")`. */
moe_status moe_fail(moe_error *err, moe_status status, const char *format, ...) MOE_PRINTF(3, 4);

/* For our own bugs only, never for bytes from outside. Prints the place and aborts, in every build. */
#define MOE_ASSERT(condition) ((condition) ? (void)0 : moe_assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void moe_assert_failed(const char *condition, const char *file, int line);

/* ------------------------------------------------------------------------------------------------ log
 * Lower case, nouns and values, to standard error, one write per line, control characters escaped. Any thread.
 *
 *   text   2026-11-28T18:10:51.123Z warn node b at 10.0.0.7:7400 is not used: ...
 *   json   {"time":"...","level":"warn","message":"node b at ..."}, and the fields of an event as members
 *
 * A warning that repeats is said once; while it goes on, it is said again every 30 s with the number of times. Warnings
 * are the same when their text is; of one place in the code at most MOE_LOG_BURST different ones are said in 30 s, so
 * that a stranger who makes each a little different cannot fill a disk. */
typedef enum { MOE_LOG_ERROR, MOE_LOG_WARN, MOE_LOG_INFO, MOE_LOG_DEBUG, MOE_LOG_TRACE } moe_log_level;
typedef enum { MOE_LOG_TEXT, MOE_LOG_JSON } moe_log_format;
#define MOE_LOG_BURST 16

void moe_log_set_level(moe_log_level level); /* default MOE_LOG_INFO */
void moe_log_set_format(moe_log_format format);
MOE_NODISCARD bool moe_log_level_parse(const char *name, moe_log_level *level_out);
bool moe_log_enabled(moe_log_level level);
void moe_log(moe_log_level level, const char *format, ...) MOE_PRINTF(2, 3);

/* An event with named values, for machines to read: "request id=r1 status=OK ..." as text. Never repeated or held back. */
typedef struct moe_log_field {
    const char *name; /* a snake_case literal */
    const char *text; /* borrowed; NULL: the number */
    double number;
} moe_log_field;
void moe_log_event(moe_log_level level, const char *what, const moe_log_field *fields, size_t n_fields);

#define MOE_ERROR(...) moe_log(MOE_LOG_ERROR, __VA_ARGS__)
#define MOE_WARN(...)  moe_log(MOE_LOG_WARN, __VA_ARGS__)
#define MOE_INFO(...)  moe_log(MOE_LOG_INFO, __VA_ARGS__)
#define MOE_DEBUG(...) (moe_log_enabled(MOE_LOG_DEBUG) ? moe_log(MOE_LOG_DEBUG, __VA_ARGS__) : (void)0)
#define MOE_TRACE(...) (moe_log_enabled(MOE_LOG_TRACE) ? moe_log(MOE_LOG_TRACE, __VA_ARGS__) : (void)0)

/* ------------------------------------------------------------------------------------------------ clock and random
 * Time comes in through this table, so that the whole cluster also runs on a virtual clock. */
typedef struct moe_clock {
    uint64_t (*now_ns)(void *ctx); /* monotonic */
    void *ctx;
} moe_clock;

static inline uint64_t moe_now_ns(const moe_clock *clock)
{
    return clock->now_ns(clock->ctx);
}

const moe_clock *moe_clock_real(void);          /* CLOCK_MONOTONIC; static storage */
uint64_t moe_wall_ms(void);                     /* milliseconds since 1970, for people and logs; it may jump */
void moe_log_set_clock(const moe_clock *clock); /* which counts the 30 s; NULL: the real one. For tests */

/* A virtual clock for tests and the simulator: stands still until it is advanced. One thread. */
typedef struct moe_clock_virtual {
    moe_clock clock; /* hand out &v.clock */
    uint64_t time_ns;
} moe_clock_virtual;

void moe_clock_virtual_init(moe_clock_virtual *v, uint64_t start_ns);
void moe_clock_virtual_advance(moe_clock_virtual *v, uint64_t by_ns);

/* Seeded generator (splitmix64) for tests, back-off and the simulator. Not for sampling (sampling/sampling.c has Philox)
 * and not for secrets. */
typedef struct moe_random {
    uint64_t state;
} moe_random;

void moe_random_seed(moe_random *r, uint64_t seed);
uint64_t moe_random_u64(moe_random *r);
uint64_t moe_random_below(moe_random *r, uint64_t bound); /* [0, bound), bound > 0 */
double moe_random_unit(moe_random *r);                    /* [0, 1) */
uint64_t moe_random_entropy(void);                        /* 64 bits of the kernel's randomness */

/* ------------------------------------------------------------------------------------------------ options
 * One table per program gives parsing, --help, the environment name, --print-config and validation. Option
 * `max_batch_tokens` is --max-batch-tokens, CONCLAVE_MAX_BATCH_TOKENS and "max_batch_tokens" in the JSON --config file.
 * Flag beats environment beats file beats default. Sizes take K/M/G/T (binary). Unknown flags, keys and CONCLAVE_*
 * variables are errors, with the option that was probably meant; a variable of another of our programs is none (base/
 * option_names.c lists them). */
typedef enum {
    MOE_OPT_BOOL,
    MOE_OPT_U32,
    MOE_OPT_U64,
    MOE_OPT_SIZE,
    MOE_OPT_F64,
    MOE_OPT_STRING,
    MOE_OPT_CHOICE
} moe_option_kind;

typedef struct moe_option {
    const char *name; /* snake_case */
    moe_option_kind kind;
    size_t offset;        /* of the field in the config struct: bool, uint32_t, uint64_t, size_t, double, char * */
    const char *fallback; /* default, written as the user would write it; NULL = unset (0, false, NULL) */
    double min, max;      /* numbers: inclusive; min == max means unbounded */
    const char *const *choices; /* MOE_OPT_CHOICE (field is char *): NULL-terminated */
    const char *value;          /* shown in --help: HOST:PORT, FILE, ... */
    const char *help;           /* one line */
    bool is_list;               /* MOE_OPT_STRING: a list with commas; the flag may be given again, for more */
} moe_option;

/* The next of a list with commas, which *at points into; *n_out: its length, 0 for an empty one. False: there is no more. */
MOE_NODISCARD bool moe_list_next(const char **at, const char **item_out, size_t *n_out);

/* Where a value came from, in order of precedence. */
typedef enum { MOE_FROM_NONE, MOE_FROM_DEFAULT, MOE_FROM_FILE, MOE_FROM_ENVIRONMENT, MOE_FROM_FLAG } moe_option_origin;

typedef struct moe_program {
    const char *name;    /* conclave-coordinator */
    const char *summary; /* the first lines of --help */
    const moe_option *options;
    size_t n_options;
    const char *arguments;      /* shown after the options in the usage line; NULL: none */
    moe_option_origin *origins; /* out, [n_options]; NULL: not wanted */
} moe_program;

typedef enum {
    MOE_OPTIONS_RUN,
    MOE_OPTIONS_EXIT_OK
} moe_options_next; /* EXIT_OK: --help, --version, --print-config ran */

/* Fills *config from defaults, the --config FILE, the environment and argv (flags as --name VALUE or --name=VALUE; bool
 * as --name or --name=true|false). The options --help (-h), --version, --config FILE, --print-config and --log-level LEVEL
 * exist in every program. Strings are owned by the config: moe_options_fini frees them. Words without -- go to *args
 * (borrowed from argv; at most max_args; NULL: none are allowed). env: NULL = the process's environ.
 * Errors: MOE_ERR_INVALID_ARG with the option, its value, the limit and where it came from; MOE_ERR_IO when what
 * --help, --version or --print-config printed did not arrive. */
MOE_NODISCARD moe_status moe_options_parse(const moe_program *program, void *config, int argc, char **argv, char **env,
                                           const char **args, size_t max_args, size_t *n_args_out,
                                           moe_options_next *next_out, moe_error *err);
void moe_options_fini(const moe_program *program, void *config);
/* The first line of a program's log: its name, version and command. Secrets are never in argv: options name files. */
void moe_options_log_start(const moe_program *program, int argc, char **argv);
/* The option as the user gave it, for a refusal that comes later: "--seed 5 (command line)", "CONCLAVE_SEED=5
 * (environment)", "\"seed\": 5 (FILE)". file may be NULL. */
void moe_option_label(const char *name, const char *text, moe_option_origin from, const char *file, moe_error *out);
/* "512M" -> bytes. */
MOE_NODISCARD moe_status moe_parse_size(const char *text, size_t *bytes_out);
/* The other way, for people: "1.5 GiB", "320 bytes". Returns out. */
#define MOE_SIZE_TEXT 24
const char *moe_size_text(size_t bytes, char out[MOE_SIZE_TEXT]);

/* What a program ends with: docs/decisions.md. */
enum { MOE_EXIT_OK = 0, MOE_EXIT_FAILED = 1, MOE_EXIT_USAGE = 2, MOE_EXIT_INTERRUPTED = 130 };
/* USAGE for MOE_ERR_INVALID_ARG: trying again will not help; FAILED for other errors. */
int moe_exit_code(moe_status status);

/* Did you mean ...? The nearest of the candidates to a word, by letters put in, left out, changed or swapped; also one
 * that it is the beginning of. best: borrowed from the candidate; NULL while none is near enough to be meant. */
typedef struct moe_guess {
    const char *word; /* borrowed, [n] */
    size_t n, distance;
    const char *best;
} moe_guess;

moe_guess moe_guess_of(const char *word, size_t n);
void moe_guess_offer(moe_guess *g, const char *candidate);

/* Flushes standard output. Errors: MOE_ERR_IO with the system's reason, "standard output: No space left on device". */
MOE_NODISCARD moe_status moe_output_flush(moe_error *err);
/* The same of text, all of it: the reason is that of the first write that failed, however long the text is. */
MOE_NODISCARD moe_status moe_output_write(const char *text, size_t n, moe_error *err);

/* ------------------------------------------------------------------------------------------------ address
 * HOST:PORT as people write it, the only parser of it. Nothing is resolved. */
#define MOE_HOST_BYTES    256
#define MOE_ADDRESS_BYTES (MOE_HOST_BYTES + 8)

typedef struct moe_address {
    char host[MOE_HOST_BYTES]; /* a name or a number, IPv6 without its brackets; "" is every address of this machine */
    uint16_t port;
} moe_address;

/* HOST:PORT, [IPV6]:PORT, :PORT. With default_port >= 0 also HOST, [IPV6] and IPV6; else a port is needed.
 * Errors: MOE_ERR_INVALID_ARG, beginning with `what` (the option: "--listen") and the text. */
MOE_NODISCARD moe_status moe_address_parse(const char *what, const char *text, int default_port, moe_address *out,
                                           moe_error *err);
/* Only this machine can reach it: 127.0.0.0/8, ::1, localhost and the names below it. */
bool moe_address_is_loopback(const moe_address *a);
/* Every address of this machine: nobody can connect to "0.0.0.0". */
bool moe_address_is_wildcard(const moe_address *a);
/* As moe_address_parse reads it back. */
void moe_address_print(const moe_address *a, char out[MOE_ADDRESS_BYTES]);

/* ------------------------------------------------------------------------------------------------ resolver
 * Addresses of hosts, for threads that must not wait for a name server: a look-up runs on a thread of the resolver's,
 * and whoever asked comes back for the answer.
 *
 *   kept      the addresses of a name's last answer serve while the name server does not answer; that there is no such
 *             name is an answer, and ends that
 *   bounded   MOE_RESOLVER_NAMES names, of which the one asked for longest ago makes room; MOE_RESOLVER_THREADS
 *             look-ups at a time, so that a name server that is silent about one name does not hold up the others. A
 *             name is never looked up twice at a time. Threads are started when they are needed
 *   threads   any thread may ask; close is called once, when nobody asks any more */
#define MOE_MAX_IPS          8 /* of one name; further ones are left out */
#define MOE_RESOLVER_NAMES   128
#define MOE_RESOLVER_THREADS 4

typedef struct moe_ip {
    uint32_t n_bytes, zone;  /* 4 or 16; the interface of a link-local IPv6 address, else 0 */
    unsigned char bytes[16]; /* in network order */
} moe_ip;

typedef struct moe_ips {
    size_t n;
    moe_ip at[MOE_MAX_IPS];
} moe_ips;

struct sockaddr_storage;

/* A number as text, "10.0.0.7", "fe80::1%eth0". Nothing is looked up. */
MOE_NODISCARD bool moe_ip_parse(const char *host, moe_ip *out);
void moe_ip_print(const moe_ip *ip, char out[MOE_HOST_BYTES]); /* as moe_ip_parse reads it back */
/* Returns the bytes of what was written. */
size_t moe_ip_sockaddr(const moe_ip *ip, uint16_t port, struct sockaddr_storage *out);

/* Looks a name up, and may take long: 0 and at least one address, or an EAI_... of getaddrinfo. */
typedef int (*moe_look_up_fn)(void *ctx, const char *host, moe_ips *out);

typedef struct moe_resolver_options {
    moe_look_up_fn look_up; /* NULL: getaddrinfo. With its ctx it outlives a look-up that hangs when close is called */
    void *look_up_ctx;
    /* After each answer, on a thread of the resolver's and under its lock: it must not block or call the resolver. Not
     * called any more once close has returned. NULL: none. */
    void (*answered)(void *ctx);
    void *ctx;
} moe_resolver_options;

typedef struct moe_resolver moe_resolver;

MOE_NODISCARD moe_status moe_resolver_open(const moe_resolver_options *options, moe_resolver **out);
/* Does not wait: a look-up that hangs is left to end by itself. NULL is fine. */
void moe_resolver_close(moe_resolver *r);
/* Has host looked up; the question is what moe_resolver_get is asked with. Errors: MOE_ERR_INVALID_ARG (too long),
 * MOE_ERR_BUSY (too many names are being looked up), MOE_ERR_UNAVAILABLE (no thread). */
MOE_NODISCARD moe_status moe_resolver_ask(moe_resolver *r, const char *host, uint64_t *question_out, moe_error *err);
/* Errors, each with its reason in err:
 *   MOE_ERR_BUSY          no answer yet; with `kept`, and none is kept either
 *   MOE_ERR_NOT_FOUND     the answer: there is no such name
 *   MOE_ERR_UNAVAILABLE   the look-up failed, and no answer is kept */
MOE_NODISCARD moe_status moe_resolver_get(moe_resolver *r, const char *host, uint64_t question, bool kept, moe_ips *out,
                                          moe_error *err);
/* Asks and waits, at most timeout_ns, then takes what is kept. Errors: as above; MOE_ERR_TIMEOUT in place of BUSY. */
MOE_NODISCARD moe_status moe_resolver_wait(moe_resolver *r, const char *host, uint64_t timeout_ns, moe_ips *out,
                                           moe_error *err);
/* Answers for host begin with this address from now on, as long as it is among them. */
void moe_resolver_prefer(moe_resolver *r, const char *host, const moe_ip *ip);

/* ------------------------------------------------------------------------------------------------ pages
 * Page-aligned anonymous memory, huge pages advised; zero-filled. NULL when there is none. */
void *moe_pages_alloc(size_t bytes);
void moe_pages_free(void *p, size_t bytes);
/* Bytes that this process may still take: what the machine has free, and what every control group above it (version 1
 * and 2) leaves of its limit, pages of files not counted. 0 is an answer: nothing is left. */
size_t moe_memory_available(void);
/* Bytes that this process may take at most: what the machine has, within the limits of all those groups, whoever uses it.
 * The same at every start. */
size_t moe_memory_total(void);
/* What of this process is in memory now; zeroes where the kernel does not say. */
typedef struct moe_resident {
    size_t anonymous, of_files, shared; /* bytes: its own; pages of mapped files; shared memory */
} moe_resident;
void moe_memory_resident(moe_resident *out);

/* ------------------------------------------------------------------------------------------------ buf
 * Bounded little-endian bytes, written and read field by field. A failed put or get sets `failed`, writes nothing (get
 * returns 0) and all later calls do nothing: check once at the end. */
typedef struct moe_buf {
    unsigned char *data; /* borrowed */
    size_t capacity;     /* writer: room; reader: bytes there */
    size_t used;         /* next byte */
    bool failed;
} moe_buf;

void moe_buf_init(moe_buf *b, void *data, size_t capacity);
void moe_put_u8(moe_buf *b, uint8_t v);
void moe_put_u16(moe_buf *b, uint16_t v);
void moe_put_u32(moe_buf *b, uint32_t v);
void moe_put_u64(moe_buf *b, uint64_t v);
void moe_put_bytes(moe_buf *b, const void *bytes, size_t n);
void *moe_put_reserve(moe_buf *b, size_t n); /* n bytes to be filled by the caller; NULL if there is no room */
uint8_t moe_get_u8(moe_buf *b);
uint16_t moe_get_u16(moe_buf *b);
uint32_t moe_get_u32(moe_buf *b);
uint64_t moe_get_u64(moe_buf *b);
const void *moe_get_bytes(moe_buf *b, size_t n); /* borrowed from data, any alignment; NULL if short */
static inline size_t moe_buf_left(const moe_buf *b)
{
    return b->failed ? 0 : b->capacity - b->used;
}

/* A growing string with a bound, for text that is built (JSON, chat prompts, metrics). Always NUL-terminated. */
typedef struct moe_text {
    char *data; /* owned; NULL until the first append */
    size_t size, capacity, limit;
    bool failed; /* over the limit, or out of memory; later appends do nothing */
    bool is_secret;
} moe_text;

void moe_text_init(moe_text *t, size_t limit);
void moe_text_init_secret(moe_text *t, size_t limit); /* what it outgrows and frees is overwritten */
void moe_text_fini(moe_text *t);
void moe_text_append(moe_text *t, const void *bytes, size_t n);
void moe_text_printf(moe_text *t, const char *format, ...) MOE_PRINTF(2, 3);
const char *moe_text_cstr(const moe_text *t); /* "" when empty */

/* Length of the valid UTF-8 prefix; == n when all of it is valid (no surrogates, no overlong forms, <= U+10FFFF). */
size_t moe_utf8_valid_prefix(const void *bytes, size_t n);
/* What a person wrote, as one line that is UTF-8 and fits: control characters become blanks. text NULL: "". */
void moe_copy_line(char *out, size_t size, const char *text);
/* The code point that begins at text, which is valid UTF-8; returns its length, 1 to 4 bytes. */
size_t moe_utf8_get(const char *text, int32_t *char_out);

/* ------------------------------------------------------------------------------------------------ queues
 * Bounded queue of pointers, any number of producers, one consumer, a mutex inside. Full: MOE_ERR_BUSY. */
typedef struct moe_queue moe_queue;

MOE_NODISCARD moe_status moe_queue_open(size_t capacity, moe_queue **out);
void moe_queue_close(moe_queue *q); /* must be empty of anything owned */
MOE_NODISCARD moe_status moe_queue_push(moe_queue *q, void *item);
void *moe_queue_pop(moe_queue *q); /* NULL when empty */
size_t moe_queue_length(moe_queue *q);

/* Records of bytes, one producer thread and one consumer thread, lock-free; memory is allocated at open. */
typedef struct moe_ring moe_ring;

MOE_NODISCARD moe_status moe_ring_open(size_t capacity, moe_ring **out);
void moe_ring_close(moe_ring *r);
size_t moe_ring_room(const moe_ring *r); /* the largest record that push would take now */
MOE_NODISCARD bool moe_ring_push(moe_ring *r, const void *head, size_t head_bytes, const void *tail, size_t tail_bytes);
/* Copies the next record (head and tail joined) into out; false when empty. *bytes_out is its size; a record larger than
 * capacity is our bug (asserted). */
MOE_NODISCARD bool moe_ring_pop(moe_ring *r, void *out, size_t capacity, size_t *bytes_out);
bool moe_ring_empty(const moe_ring *r);

/* A sleeper that others can wake, in three stages: about 20 us of pause-spin, sched_yield up to a millisecond, then
 * sleep on an eventfd. wake() costs a system call only if the sleeper has announced itself. One sleeper, any wakers. */
typedef struct moe_waiter moe_waiter;

MOE_NODISCARD moe_status moe_waiter_open(moe_waiter **out);
void moe_waiter_close(moe_waiter *w);
/* Returns when ready(ctx) is true, when woken, or after timeout_ns. ready may be NULL. */
void moe_waiter_wait(moe_waiter *w, bool (*ready)(void *ctx), void *ctx, uint64_t timeout_ns);
void moe_waiter_wake(moe_waiter *w);

#define MOE_WAIT_SPIN_NS 20000u
/* What a loop does that found nothing to do, before it looks again: pauses for the first 20 us, then yields. Returns false
 * when it is time to sleep: after 1 ms.
 *
 * shared: a process on the same cores may have to answer first. Then it yields at once, and is to sleep after 100 us: a
 * thread that yields keeps its place on a core, and the kernel moves threads to another mostly when they wake. */
bool moe_wait_moment(uint64_t idle_ns, bool shared);

/* ------------------------------------------------------------------------------------------------ threads
 * Compute threads. One caller at a time, which is thread 0 of them. Idle workers spin briefly, yield, then sleep. */
typedef struct moe_threads moe_threads;
typedef void (*moe_threads_fn)(void *ctx, size_t task, size_t thread);

/* n_threads 0: the cores this process may use (affinity and cgroup quota). thread_init runs first on every worker thread
 * (compute_thread_init sets FTZ and DAZ there); the caller's own thread must have done it itself. */
MOE_NODISCARD moe_status moe_threads_open(size_t n_threads, void (*thread_init)(void), moe_threads **out);
void moe_threads_close(moe_threads *threads);
size_t moe_threads_count(const moe_threads *threads);
/* Runs fn(ctx, task, thread) once for each task in [0, n_tasks) and returns when all are done. Tasks are taken from one
 * atomic counter, so any task may run on any thread: results must not depend on that. */
void moe_threads_run(moe_threads *threads, size_t n_tasks, moe_threads_fn fn, void *ctx);
/* For tasks that take about equally long: a thread claims neighbours, half of its share of what is left, and runs them
 * in order. */
void moe_threads_run_even(moe_threads *threads, size_t n_tasks, moe_threads_fn fn, void *ctx);
/* The caller is about to wait for others who may need the cores: until the next run idle workers sleep at once. */
void moe_threads_rest(moe_threads *threads);
size_t moe_cores_available(void);

/* ------------------------------------------------------------------------------------------------ json
 * Checked access to JSON from outside: size and depth limits, duplicate keys refused, integers stay 64-bit. Values are
 * jansson's; only files that need more than this include jansson.h. */
typedef struct json_t moe_json; /* jansson's json_t */

/* Parses text (need not be NUL-terminated). max_depth bounds nesting. Errors: MOE_ERR_CORRUPT with line and reason.
 * *out is owned: moe_json_free. Numbers too large for a 64-bit integer are refused; "1e3" and "1.0" stay reals. */
MOE_NODISCARD moe_status moe_json_parse(const char *text, size_t bytes, size_t max_depth, moe_json **out,
                                        moe_error *err);
/* The same for files of others that Python may have written: NaN, Infinity and -Infinity, and a number beyond a double,
 * are strings of that name; an integer beyond 64 bits is a real. A key that is read refuses them by its own limits, one
 * that nobody reads refuses no file. Not for requests. */
MOE_NODISCARD moe_status moe_json_parse_python(const char *text, size_t bytes, size_t max_depth, moe_json **out,
                                               moe_error *err);
MOE_NODISCARD moe_status moe_json_load(const char *path, size_t max_bytes, size_t max_depth, moe_json **out,
                                       moe_error *err);
void moe_json_free(moe_json *json);

/* Typed fields of an object. Absent or null: MOE_OK, *found = false and the output untouched. Wrong type or out of
 * [min, max]: MOE_ERR_INVALID_ARG naming the key, the value and the limit. found may be NULL. A real with an integral value
 * (1.0) is accepted where an integer is asked for. */
MOE_NODISCARD moe_status moe_json_int(const moe_json *object, const char *key, int64_t min, int64_t max, int64_t *out,
                                      bool *found, moe_error *err);
MOE_NODISCARD moe_status moe_json_real(const moe_json *object, const char *key, double min, double max, double *out,
                                       bool *found, moe_error *err);
MOE_NODISCARD moe_status moe_json_bool(const moe_json *object, const char *key, bool *out, bool *found, moe_error *err);
MOE_NODISCARD moe_status moe_json_string(const moe_json *object, const char *key, const char **out, bool *found,
                                         moe_error *err);

/* Appends text as a JSON string with quotes. */
void moe_text_json_string(moe_text *t, const char *bytes, size_t n);

/* ------------------------------------------------------------------------------------------------ files
 * The whole regular file, read into malloc'ed memory with a NUL after the last byte. */
MOE_NODISCARD moe_status moe_file_read(const char *path, size_t max_bytes, char **data_out, size_t *bytes_out,
                                       moe_error *err);
/* One that `what`, an option, names: a refusal begins with it, and is MOE_ERR_INVALID_ARG also where there is no such file or
 * it may not be read: whatever is wrong with it, trying again will not help. */
MOE_NODISCARD moe_status moe_file_read_named(const char *what, const char *path, size_t max_bytes, char **data_out,
                                             size_t *bytes_out, moe_error *err);

/* Git LFS leaves a few lines of text in place of a large file that was not fetched. moe_file_read refuses such a file. */
bool moe_file_is_lfs_pointer(const void *bytes, size_t n);
#define MOE_LFS_ADVICE "a pointer that Git LFS left in place of the file: run `git lfs pull` in its directory"

/* The next line in [*at, end) that says something, without the blanks around it; lines that begin with # are comments.
 * false at the end. *line_no counts all lines; 0 at first. */
MOE_NODISCARD bool moe_file_next_line(const char **at, const char *end, const char **line_out, size_t *n_out,
                                      size_t *line_no);

/* Which file it was when it was last read: size, times and inode. */
typedef struct moe_file_stamp {
    uint64_t inode, size, mtime_ns, ctime_ns;
} moe_file_stamp;

moe_file_stamp moe_file_stamp_read(const char *path); /* zeroes when there is no such file; NULL too */
bool moe_file_stamp_equal(const moe_file_stamp *a, const moe_file_stamp *b);

#endif
