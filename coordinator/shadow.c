#include "coordinator/shadow.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Chosen, not measured. JOBS, TOKENS: what may wait, 1 MiB; beyond it the server has no time for more anyway. POLL: while a
 * reading is under way; the engine could tell of its end (engine_spec.wake), but may do so after the close, which waits for no
 * reading. GIVE_UP: a reading that has found no time for so long is dropped, so that what is compared is of the traffic of now. */
#define MAX_JOBS   16
#define MAX_TOKENS ((size_t)1 << 18)
#define POLL_MS    5u
#define GIVE_UP_NS UINT64_C(60000000000)

/* An answer that waits. */
typedef struct job {
    int32_t *tokens; /* owned [n] */
    size_t n, n_prompt;
    router_set *base, *trial; /* references */
} job;

/* Sums over the requests of one trial. The tokens of a request depend on each other, so requests are what the error counts. */
typedef struct sums {
    char base[65], trial[65]; /* ids of its sets */
    uint64_t requests, tokens, dropped;
    double d, dd, dn, nn; /* of a request's difference d and tokens n: sum of d, d^2, d n, n^2 */
} sums;

struct shadow {
    engine *engine;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* a leaf: of all that follows */
    pthread_cond_t more;
    bool closing;
    job jobs[MAX_JOBS]; /* the oldest first */
    size_t n_jobs, n_tokens;
    sums sums;
};

/* ------------------------------------------------------------------------------------------------ what is compared */
/* FNV-1a, and what spreads its bits. */
bool shadow_takes(const char *request_id, uint32_t share)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (const char *at = request_id; *at != '\0'; at++) {
        h = (h ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    }
    h = (h ^ (h >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    return h % CATALOGUE_ALL_REQUESTS < share;
}

static void job_fini(job *j)
{
    free(j->tokens);
    router_set_unref(j->base);
    router_set_unref(j->trial);
}

/* Under the lock: the sums of this pair of sets; of another one they begin anew. */
static sums *sums_of(shadow *s, const char *base, const char *trial)
{
    if (strcmp(s->sums.base, base) != 0 || strcmp(s->sums.trial, trial) != 0) {
        s->sums = (sums){.requests = 0};
        (void)snprintf(s->sums.base, sizeof s->sums.base, "%s", base);
        (void)snprintf(s->sums.trial, sizeof s->sums.trial, "%s", trial);
    }
    return &s->sums;
}

static bool append(shadow *s, const job *j)
{
    bool fits = !s->closing && s->n_jobs < MAX_JOBS && j->n <= MAX_TOKENS - s->n_tokens;

    if (fits) {
        s->jobs[s->n_jobs++] = *j;
        s->n_tokens += j->n;
        pthread_cond_signal(&s->more);
    }
    return fits;
}

void shadow_offer(shadow *s, const catalogue *c, const engine_request *r)
{
    const catalogue_shadow *trial = catalogue_get_shadow(c);
    size_t n_prompt = 0, n = 0;

    if (trial == NULL || !shadow_takes(engine_request_id(r), trial->share) ||
        strcmp(engine_request_set_id(r), router_set_id(catalogue_default(c))) != 0) {
        return;
    }
    const int32_t *tokens = engine_request_tokens(r, 0, &n_prompt, &n);
    if (n <= n_prompt) {
        return;
    }
    job j = {.tokens = malloc(n * sizeof *tokens),
             .n = n,
             .n_prompt = n_prompt,
             .base = router_set_ref(catalogue_default(c)),
             .trial = router_set_ref(trial->set)};
    if (j.tokens != NULL) {
        memcpy(j.tokens, tokens, n * sizeof *tokens);
    }
    pthread_mutex_lock(&s->lock);
    sums *to = sums_of(s, router_set_id(j.base), router_set_id(j.trial));
    bool taken = j.tokens != NULL && append(s, &j);
    to->dropped += !taken;
    pthread_mutex_unlock(&s->lock);
    if (!taken) {
        job_fini(&j);
    }
}

/* The mean difference of a token, and its standard error as the ratio of two sums over requests has it (linearised). */
void shadow_read(shadow *s, const catalogue *c, api_compared *out)
{
    const catalogue_shadow *trial = catalogue_get_shadow(c);

    *out = (api_compared){.requests = 0};
    if (trial == NULL) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    const sums of = *sums_of(s, router_set_id(catalogue_default(c)), router_set_id(trial->set));
    pthread_mutex_unlock(&s->lock);
    out->requests = of.requests;
    out->tokens = of.tokens;
    out->dropped = of.dropped;
    if (of.requests > 0) {
        out->mean = of.d / (double)of.tokens;
    }
    if (of.requests > 1) {
        double n = (double)of.requests;
        double squares = of.dd - 2 * out->mean * of.dn + out->mean * out->mean * of.nn;

        out->has_error = true;
        out->error = sqrt(fmax(squares, 0) * n / (n - 1)) / (double)of.tokens;
    }
}

/* ------------------------------------------------------------------------------------------------ readings */
/* Whether it goes on: false once the shadow closes. */
static bool rest(shadow *s)
{
    const uint64_t ms = moe_wall_ms() + POLL_MS;
    const struct timespec until = {.tv_sec = (time_t)(ms / 1000u), .tv_nsec = (long)(ms % 1000u) * 1000000};

    pthread_mutex_lock(&s->lock);
    if (!s->closing) {
        (void)pthread_cond_timedwait(&s->more, &s->lock, &until);
    }
    bool goes_on = !s->closing;
    pthread_mutex_unlock(&s->lock);
    return goes_on;
}

/* The one before may not have left yet. */
static engine_request *submit(shadow *s, const job *j, router_set *set, uint64_t until_ns)
{
    const engine_spec spec = {.kind = ENGINE_SCORE,
                              .prompt = j->tokens,
                              .n_prompt = j->n,
                              .score_from = (uint32_t)j->n_prompt,
                              .set = set,
                              .deadline_ns = until_ns,
                              .background = true};
    engine_request *r = NULL;
    moe_error err;
    moe_status status;

    do {
        status = engine_submit(s->engine, &spec, &r, &err);
    } while (status == MOE_ERR_BUSY && engine_now_ns(s->engine) < until_ns && rest(s));
    if (status != MOE_OK) {
        MOE_DEBUG("an answer is not scored again: %s", err.text);
    }
    return r;
}

/* The sum of the log-probabilities of what was delivered. False: there was no time, or it is no number. */
static bool score(shadow *s, const job *j, router_set *set, uint64_t until_ns, double *sum)
{
    engine_request *r = submit(s, j, set, until_ns);
    bool ended = r == NULL, ok = false;
    engine_event event;

    *sum = 0;
    while (!ended) {
        if (engine_next(r, &event)) {
            *sum += event.kind == ENGINE_SCORED ? (double)event.logprob : 0;
            ok = event.kind == ENGINE_DONE && isfinite(*sum);
            ended = event.kind == ENGINE_DONE || event.kind == ENGINE_FAILED;
        } else if (!rest(s)) {
            engine_cancel(r);
            ended = true;
        }
    }
    engine_release(r);
    return ok;
}

static void compare(shadow *s, const job *j)
{
    uint64_t until_ns = engine_now_ns(s->engine) + GIVE_UP_NS;
    double before = 0, after = 0, n = (double)(j->n - j->n_prompt);
    bool ok = score(s, j, j->base, until_ns, &before) && score(s, j, j->trial, until_ns, &after);
    double d = after - before;

    pthread_mutex_lock(&s->lock);
    sums *to = &s->sums;
    bool is_current = strcmp(to->base, router_set_id(j->base)) == 0 && strcmp(to->trial, router_set_id(j->trial)) == 0;
    if (is_current && ok) {
        to->requests++;
        to->tokens += j->n - j->n_prompt;
        to->d += d;
        to->dd += d * d;
        to->dn += d * n;
        to->nn += n * n;
    }
    to->dropped += is_current && !ok;
    pthread_mutex_unlock(&s->lock);
}

static bool take(shadow *s, job *out)
{
    pthread_mutex_lock(&s->lock);
    while (s->n_jobs == 0 && !s->closing) {
        pthread_cond_wait(&s->more, &s->lock);
    }
    bool taken = !s->closing;
    if (taken) {
        *out = s->jobs[0];
        s->n_tokens -= out->n;
        memmove(&s->jobs[0], &s->jobs[1], --s->n_jobs * sizeof s->jobs[0]);
    }
    pthread_mutex_unlock(&s->lock);
    return taken;
}

static void *run(void *ctx)
{
    shadow *s = ctx;
    job j;

    while (take(s, &j)) {
        compare(s, &j);
        job_fini(&j);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ life */
moe_status shadow_open(engine *e, shadow **out, moe_error *err)
{
    shadow *s = calloc(1, sizeof *s);

    if (s == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "shadow: out of memory");
    }
    s->engine = e;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    s->has_thread = pthread_create(&s->thread, NULL, run, s) == 0;
    if (!s->has_thread) {
        shadow_close(s);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "shadow: no thread");
    }
    *out = s;
    return MOE_OK;
}

void shadow_close(shadow *s)
{
    if (s == NULL) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_broadcast(&s->more);
    pthread_mutex_unlock(&s->lock);
    if (s->has_thread) {
        pthread_join(s->thread, NULL);
    }
    for (size_t i = 0; i < s->n_jobs; i++) {
        job_fini(&s->jobs[i]);
    }
    pthread_cond_destroy(&s->more);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
