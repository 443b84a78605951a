/* Names of hosts to addresses, on threads of its own.
 *
 * A name is its own place in the queue and in what is kept: IDLE -> QUEUED -> RUNNING -> IDLE. Threads are detached and
 * share the resolver by a count of references, so that one which hangs in a look-up does not hold up a close. */
#include "base/base.h"

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef enum { NAME_IDLE, NAME_QUEUED, NAME_RUNNING } name_state;

typedef struct name {
    char host[MOE_HOST_BYTES]; /* "": nobody has asked yet */
    name_state state;
    uint64_t asked, answered; /* the newest question that was put, and that was answered */
    int failed;               /* the last answer: an EAI_..., or 0 */
    moe_ips ips;              /* kept; none when n is 0 */
} name;

struct moe_resolver {
    moe_resolver_options o;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t work, done;
    name names[MOE_RESOLVER_NAMES];
    uint64_t n_questions;
    size_t n_queued, n_threads, n_idle; /* names; threads, and those of them that wait for work */
    size_t n_refs;                      /* the owner's and one of each thread's */
    bool closing;
};

/* ------------------------------------------------------------------------------------------------ addresses */
static bool read_sockaddr(const struct sockaddr *from, moe_ip *out)
{
    *out = (moe_ip){0};
    if (from->sa_family == AF_INET) {
        out->n_bytes = 4;
        memcpy(out->bytes, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
    } else if (from->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)from;

        out->n_bytes = 16;
        out->zone = v6->sin6_scope_id;
        memcpy(out->bytes, &v6->sin6_addr, 16);
    }
    return out->n_bytes != 0;
}

size_t moe_ip_sockaddr(const moe_ip *ip, uint16_t port, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (ip->n_bytes == 4) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)out;

        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, ip->bytes, 4);
        return sizeof *v4;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    v6->sin6_scope_id = ip->zone;
    memcpy(&v6->sin6_addr, ip->bytes, 16);
    return sizeof *v6;
}

void moe_ip_print(const moe_ip *ip, char out[MOE_HOST_BYTES])
{
    struct sockaddr_storage at;
    socklen_t bytes = (socklen_t)moe_ip_sockaddr(ip, 0, &at);

    out[0] = '\0';
    (void)getnameinfo((const struct sockaddr *)&at, bytes, out, MOE_HOST_BYTES, NULL, 0, NI_NUMERICHOST);
}

static int find(const char *host, int flags, moe_ips *out)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC, .ai_flags = flags};
    struct addrinfo *found;
    int failed = getaddrinfo(host, NULL, &hints, &found);

    if (failed != 0) {
        return failed;
    }
    out->n = 0;
    for (const struct addrinfo *a = found; a != NULL && out->n < MOE_MAX_IPS; a = a->ai_next) {
        out->n += read_sockaddr(a->ai_addr, &out->at[out->n]);
    }
    freeaddrinfo(found);
    return out->n == 0 ? EAI_NODATA : 0;
}

bool moe_ip_parse(const char *host, moe_ip *out)
{
    moe_ips ips;
    bool is_number = find(host, AI_NUMERICHOST, &ips) == 0;

    if (is_number) {
        *out = ips.at[0];
    }
    return is_number;
}

static int look_up_by_system(void *ctx, const char *host, moe_ips *out)
{
    (void)ctx;
    return find(host, 0, out);
}

static bool is_same(const moe_ip *a, const moe_ip *b)
{
    return a->n_bytes == b->n_bytes && a->zone == b->zone && memcmp(a->bytes, b->bytes, a->n_bytes) == 0;
}

/* The list goes round until it begins with ip, if that is in it. */
static void begin_with(moe_ips *ips, const moe_ip *ip)
{
    moe_ips old = *ips;

    for (size_t first = 0; first < old.n; first++) {
        if (is_same(&old.at[first], ip)) {
            for (size_t i = 0; i < old.n; i++) {
                ips->at[i] = old.at[(first + i) % old.n];
            }
            return;
        }
    }
}

/* ------------------------------------------------------------------------------------------------ names
 * All under the lock. */
static name *find_name(moe_resolver *r, const char *host)
{
    for (size_t i = 0; i < MOE_RESOLVER_NAMES; i++) {
        if (strcmp(r->names[i].host, host) == 0) {
            return &r->names[i];
        }
    }
    return NULL;
}

/* The one in this state that was asked for longest ago. */
static name *oldest(moe_resolver *r, name_state state)
{
    name *found = NULL;

    for (size_t i = 0; i < MOE_RESOLVER_NAMES; i++) {
        name *n = &r->names[i];

        if (n->state == state && (found == NULL || n->asked < found->asked)) {
            found = n;
        }
    }
    return found;
}

/* The name server has said what there is; everything else that may fail says nothing about the name. */
static bool is_no_name(int failed)
{
    return failed == EAI_NONAME || failed == EAI_NODATA;
}

static void take_answer(name *n, int failed, const moe_ips *ips)
{
    n->state = NAME_IDLE;
    n->answered = n->asked;
    n->failed = failed;
    if (failed == 0) {
        moe_ip first = n->ips.n > 0 ? n->ips.at[0] : ips->at[0];

        n->ips = *ips;
        begin_with(&n->ips, &first);
    } else if (is_no_name(failed)) {
        n->ips.n = 0;
    }
}

/* ------------------------------------------------------------------------------------------------ threads */
/* Gives one reference back, and the lock. */
static void unlock_and_leave(moe_resolver *r)
{
    bool is_last = --r->n_refs == 0;

    pthread_mutex_unlock(&r->lock);
    if (is_last) {
        pthread_cond_destroy(&r->done);
        pthread_cond_destroy(&r->work);
        pthread_mutex_destroy(&r->lock);
        free(r);
    }
}

/* Under the lock, but for the look-up itself. */
static void look_up(moe_resolver *r, name *n)
{
    char host[MOE_HOST_BYTES];
    moe_ips ips = {0};

    n->state = NAME_RUNNING; /* nobody else touches its host or state until it has its answer */
    r->n_queued--;
    memcpy(host, n->host, sizeof host);
    pthread_mutex_unlock(&r->lock);
    int failed = r->o.look_up(r->o.look_up_ctx, host, &ips);
    pthread_mutex_lock(&r->lock);
    take_answer(n, failed, &ips);
    pthread_cond_broadcast(&r->done);
    if (!r->closing && r->o.answered != NULL) {
        r->o.answered(r->o.ctx);
    }
}

static void *run(void *arg)
{
    moe_resolver *r = arg;

    pthread_mutex_lock(&r->lock);
    while (!r->closing) {
        name *n = oldest(r, NAME_QUEUED);

        if (n != NULL) {
            look_up(r, n);
        } else {
            r->n_idle++;
            pthread_cond_wait(&r->work, &r->lock);
            r->n_idle--;
        }
    }
    unlock_and_leave(r);
    return NULL;
}

/* No signal is ever handled on these threads. */
static bool start_thread(moe_resolver *r)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;

    if (pthread_attr_init(&attr) != 0) {
        return false;
    }
    sigfillset(&all);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&thread, &attr, run, r) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attr);
    r->n_threads += started;
    r->n_refs += started;
    return started;
}

/* ------------------------------------------------------------------------------------------------ open, close */
moe_status moe_resolver_open(const moe_resolver_options *options, moe_resolver **out)
{
    moe_resolver *r = calloc(1, sizeof *r);
    pthread_condattr_t monotonic;

    if (r == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    r->o = *options;
    r->o.look_up = r->o.look_up != NULL ? r->o.look_up : look_up_by_system;
    r->n_refs = 1;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->work, NULL);
    pthread_cond_init(&r->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = r;
    return MOE_OK;
}

void moe_resolver_close(moe_resolver *r)
{
    if (r == NULL) {
        return;
    }
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    pthread_cond_broadcast(&r->work);
    unlock_and_leave(r);
}

/* ------------------------------------------------------------------------------------------------ asking
 * The _locked ones: under the lock. */
static moe_status ask_locked(moe_resolver *r, const char *host, uint64_t *question_out, moe_error *err)
{
    name *n = find_name(r, host);

    if (n == NULL) {
        n = oldest(r, NAME_IDLE);
        if (n == NULL) {
            return moe_fail(err, MOE_ERR_BUSY, "%d names are being looked up", MOE_RESOLVER_NAMES);
        }
        *n = (name){0};
        (void)snprintf(n->host, sizeof n->host, "%s", host);
    }
    if (n->state == NAME_IDLE) {
        if (r->n_queued + 1 > r->n_idle && r->n_threads < MOE_RESOLVER_THREADS && !start_thread(r) &&
            r->n_threads == 0) {
            return moe_fail(err, MOE_ERR_UNAVAILABLE, "no thread to look up name \"%s\"", host);
        }
        n->asked = ++r->n_questions;
        n->state = NAME_QUEUED;
        r->n_queued++;
        pthread_cond_signal(&r->work);
    }
    *question_out = n->asked;
    return MOE_OK;
}

static moe_status get_locked(moe_resolver *r, const char *host, uint64_t question, bool kept, moe_ips *out,
                             moe_error *err)
{
    const name *n = find_name(r, host);

    if (n == NULL) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "forgotten for others: name \"%s\"", host);
    }
    if (n->ips.n > 0 && (kept || n->answered >= question)) {
        *out = n->ips;
        return MOE_OK;
    }
    if (n->answered < question) {
        return moe_fail(err, MOE_ERR_BUSY, "the name server does not answer: name \"%s\"", host);
    }
    return moe_fail(err, is_no_name(n->failed) ? MOE_ERR_NOT_FOUND : MOE_ERR_UNAVAILABLE, "%s: name \"%s\"",
                    gai_strerror(n->failed), host);
}

moe_status moe_resolver_ask(moe_resolver *r, const char *host, uint64_t *question_out, moe_error *err)
{
    if (host[0] == '\0' || strlen(host) >= MOE_HOST_BYTES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "name of %zu bytes; 1 to %d", strlen(host), MOE_HOST_BYTES - 1);
    }
    pthread_mutex_lock(&r->lock);
    moe_status status = ask_locked(r, host, question_out, err);
    pthread_mutex_unlock(&r->lock);
    return status;
}

moe_status moe_resolver_get(moe_resolver *r, const char *host, uint64_t question, bool kept, moe_ips *out,
                            moe_error *err)
{
    pthread_mutex_lock(&r->lock);
    moe_status status = get_locked(r, host, question, kept, out, err);
    pthread_mutex_unlock(&r->lock);
    return status;
}

moe_status moe_resolver_wait(moe_resolver *r, const char *host, uint64_t timeout_ns, moe_ips *out, moe_error *err)
{
    uint64_t end = moe_now_ns(moe_clock_real()) + timeout_ns, question; /* the clock of `done` */
    const struct timespec until = {(time_t)(end / 1000000000), (long)(end % 1000000000)};
    moe_status status = moe_resolver_ask(r, host, &question, err);
    int waited = 0;

    if (status != MOE_OK) {
        return status;
    }
    pthread_mutex_lock(&r->lock);
    while ((status = get_locked(r, host, question, waited != 0, out, err)) == MOE_ERR_BUSY && waited == 0) {
        waited = pthread_cond_timedwait(&r->done, &r->lock, &until);
    }
    pthread_mutex_unlock(&r->lock);
    return status == MOE_ERR_BUSY ? MOE_ERR_TIMEOUT : status;
}

void moe_resolver_prefer(moe_resolver *r, const char *host, const moe_ip *ip)
{
    pthread_mutex_lock(&r->lock);
    name *n = find_name(r, host);
    if (n != NULL) {
        begin_with(&n->ips, ip);
    }
    pthread_mutex_unlock(&r->lock);
}
