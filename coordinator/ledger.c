/* What both owners of a catalogue give the API. */
#include "coordinator/ledger.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A request that was let in reaches the engine within this time; until then nothing may go that it needs. */
#define ADMISSION_MS 10000u

/* ------------------------------------------------------------------------------------------------ the table */
static catalogue *current(void *ctx)
{
    ledger *l = ctx;

    pthread_mutex_lock(&l->lock);
    catalogue *c = catalogue_ref(l->current);
    pthread_mutex_unlock(&l->lock);
    return c;
}

/* The sets that live, once each: those of the catalogue, and those of requests. References. */
typedef struct living {
    size_t n;
    router_set *at[CATALOGUE_MAX_SETS + ENGINE_MAX_SETS];
} living;

static router_set *living_find(const living *l, const char *id)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(router_set_id(l->at[i]), id) == 0) {
            return l->at[i];
        }
    }
    return NULL;
}

static void living_add(living *l, router_set *set)
{
    if (living_find(l, router_set_id(set)) == NULL) {
        l->at[l->n++] = router_set_ref(set);
    }
}

static void living_of(ledger *l, living *out)
{
    router_set *running[ENGINE_MAX_SETS], *kept[CATALOGUE_MAX_SETS];
    size_t n_running = engine_live_sets(l->engine, running);
    catalogue *c = current(l);
    size_t n_kept = catalogue_live_sets(c, kept);

    out->n = 0;
    for (size_t i = 0; i < n_kept; i++) {
        living_add(out, kept[i]);
    }
    for (size_t i = 0; i < n_running; i++) {
        living_add(out, running[i]);
        router_set_unref(running[i]);
    }
    catalogue_unref(c);
}

static void living_fini(living *l)
{
    for (size_t i = 0; i < l->n; i++) {
        router_set_unref(l->at[i]);
    }
}

static moe_status hold(void *ctx, router_set *set, router_set **out, moe_error *err)
{
    ledger *l = ctx;
    living all;
    moe_status status = MOE_OK;

    living_of(l, &all);
    router_set *found = living_find(&all, router_set_id(set));
    if (found == NULL && all.n >= CATALOGUE_MAX_SETS) {
        status = moe_fail(err, MOE_ERR_BUSY, "set: %zu sets live, those of running requests included; the limit is %d",
                          all.n, CATALOGUE_MAX_SETS);
    } else if (found == NULL) {
        catalogue *c = current(l);

        status = l->check(l->check_ctx, c, set, err);
        catalogue_unref(c);
    }
    if (status == MOE_OK) {
        *out = router_set_ref(found != NULL ? found : set);
    }
    living_fini(&all);
    return status;
}

static router_set *find(void *ctx, const char *id)
{
    living all;

    living_of(ctx, &all);
    router_set *set = living_find(&all, id);
    set = set != NULL ? router_set_ref(set) : NULL;
    living_fini(&all);
    return set;
}

static moe_status ask(void *ctx, const api_ask *what, void **ticket, moe_error *err)
{
    ledger *l = ctx;
    moe_status status = MOE_OK;

    if (l->no_changes != NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s", l->no_changes);
    }
    job *j = job_of(what);
    if (j == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    pthread_mutex_lock(&l->lock);
    if (l->closing) {
        status = moe_fail(err, MOE_ERR_UNAVAILABLE, "the server is shutting down");
    } else if (l->n_asked == LEDGER_MAX_ASKED) {
        status = moe_fail(err, MOE_ERR_BUSY, "%d changes wait, which is the limit", LEDGER_MAX_ASKED);
    } else {
        j->refs++;
        l->asked[l->n_asked++] = j;
        *ticket = j;
        pthread_cond_signal(&l->more);
    }
    if (status != MOE_OK) {
        job_unref(j);
    }
    pthread_mutex_unlock(&l->lock);
    return status;
}

static void look(void *ctx, void *ticket, api_told *out)
{
    ledger *l = ctx;

    pthread_mutex_lock(&l->lock);
    *out = ((const job *)ticket)->told;
    pthread_mutex_unlock(&l->lock);
}

static void leave(void *ctx, void *ticket)
{
    ledger *l = ctx;

    pthread_mutex_lock(&l->lock);
    job_unref(ticket);
    pthread_mutex_unlock(&l->lock);
}

static size_t offers(void *ctx, api_offer *out, size_t max)
{
    ledger *l = ctx;

    pthread_mutex_lock(&l->lock);
    size_t n = l->n_offers;
    memcpy(out, l->offers, MOE_MIN(n, max) * sizeof *out);
    pthread_mutex_unlock(&l->lock);
    return n;
}

static void delivered(void *ctx, const engine_request *r)
{
    ledger *l = ctx;
    catalogue *c = current(l);

    shadow_offer(l->shadow, c, r);
    catalogue_unref(c);
}

static void compared(void *ctx, api_compared *out)
{
    ledger *l = ctx;
    catalogue *c = current(l);

    shadow_read(l->shadow, c, out);
    catalogue_unref(c);
}

moe_status ledger_check_wanted(const catalogue *c, const router_set *set, uint64_t keep_unused_ms, moe_error *err)
{
    uint64_t keep = keep_unused_ms > ADMISSION_MS ? keep_unused_ms - ADMISSION_MS : 0;

    return catalogue_check_wanted(c, set, moe_wall_ms(), keep, err);
}

/* ------------------------------------------------------------------------------------------------ the owner's side */
void ledger_publish(ledger *l, catalogue *next)
{
    pthread_mutex_lock(&l->lock);
    catalogue *old = l->current;
    l->current = next;
    pthread_mutex_unlock(&l->lock);
    catalogue_unref(old);
}

void ledger_tell(ledger *l, job *j, const char *phase, uint64_t done, uint64_t total)
{
    pthread_mutex_lock(&l->lock);
    j->told.phase = phase;
    j->told.done = done;
    j->told.total = total;
    pthread_mutex_unlock(&l->lock);
}

void ledger_end(ledger *l, job *j, moe_status status, const moe_error *err)
{
    pthread_mutex_lock(&l->lock);
    j->told.ended = true;
    j->told.status = status;
    j->told.error = *err;
    j->told.before = j->before;
    j->told.plan = j->plan;
    job_unref(j);
    pthread_mutex_unlock(&l->lock);
}

/* Until somebody asks, wakes or closes, or it is time. Under the lock. */
static bool wait_for_more(ledger *l, uint64_t until_ms)
{
    const struct timespec until = {.tv_sec = (time_t)(until_ms / 1000u), .tv_nsec = (long)(until_ms % 1000u) * 1000000};

    if (until_ms == 0) {
        pthread_cond_wait(&l->more, &l->lock);
        return true;
    }
    return pthread_cond_timedwait(&l->more, &l->lock, &until) == 0;
}

job *ledger_wait(ledger *l, uint64_t until_ms, bool takes)
{
    job *j = NULL;

    pthread_mutex_lock(&l->lock);
    while (!(takes && l->n_asked > 0) && !l->closing && !l->woken && wait_for_more(l, until_ms)) {
    }
    l->woken = false;
    if (takes && l->n_asked > 0) {
        j = l->asked[0];
        l->n_asked--;
        memmove(&l->asked[0], &l->asked[1], l->n_asked * sizeof(l->asked[0]));
    }
    pthread_mutex_unlock(&l->lock);
    return j;
}

void ledger_wake(ledger *l)
{
    pthread_mutex_lock(&l->lock);
    l->woken = true;
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
}

bool ledger_is_closing(ledger *l)
{
    pthread_mutex_lock(&l->lock);
    bool closing = l->closing;
    pthread_mutex_unlock(&l->lock);
    return closing;
}

void ledger_offer(ledger *l, const catalogue_pack *p, const char *source)
{
    bool is_new = true;

    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < l->n_offers; i++) {
        is_new = is_new && strcmp(l->offers[i].pack.hash, p->hash) != 0;
    }
    if (is_new && l->n_offers < API_MAX_OFFERS) {
        api_offer *to = &l->offers[l->n_offers++];

        to->pack = *p;
        to->pack.layers = NULL;
        to->pack.n_layers = 0;
        (void)snprintf(to->source, sizeof to->source, "%s", source);
    }
    pthread_mutex_unlock(&l->lock);
}

void ledger_set_offers(ledger *l, const api_offer *offers, size_t n)
{
    pthread_mutex_lock(&l->lock);
    l->n_offers = MOE_MIN(n, (size_t)API_MAX_OFFERS);
    memcpy(l->offers, offers, l->n_offers * sizeof *offers);
    pthread_mutex_unlock(&l->lock);
}

bool ledger_find_offer(ledger *l, const char *word, char hash[65])
{
    pthread_mutex_lock(&l->lock);
    const catalogue_pack *p = catalogue_find_pack(l->current, word);

    for (size_t i = 0; i < l->n_offers && p == NULL; i++) {
        p = catalogue_pack_is_called(&l->offers[i].pack, word) ? &l->offers[i].pack : NULL;
    }
    if (p != NULL) {
        memcpy(hash, p->hash, sizeof p->hash);
    }
    pthread_mutex_unlock(&l->lock);
    return p != NULL;
}

/* ------------------------------------------------------------------------------------------------ life */
moe_status ledger_open(ledger *l, engine *e, catalogue *first, const char *no_changes, ledger_check check,
                       void *check_ctx, moe_error *err)
{
    *l = (ledger){.engine = e, .no_changes = no_changes, .check = check, .check_ctx = check_ctx};
    l->offers = calloc(API_MAX_OFFERS, sizeof *l->offers);
    if (l->offers == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "the catalogue: out of memory");
    }
    moe_status status = shadow_open(e, &l->shadow, err);
    if (status != MOE_OK) {
        free(l->offers);
        return status;
    }
    l->current = catalogue_ref(first);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->more, NULL);
    l->table = (api_catalogue){.current = current,
                               .hold = hold,
                               .find = find,
                               .ask = ask,
                               .look = look,
                               .leave = leave,
                               .offers = offers,
                               .delivered = delivered,
                               .compared = compared,
                               .ctx = l};
    return MOE_OK;
}

void ledger_close(ledger *l)
{
    pthread_mutex_lock(&l->lock);
    l->closing = true;
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
}

void ledger_fini(ledger *l)
{
    shadow_close(l->shadow);
    free(l->offers);
    catalogue_unref(l->current);
    pthread_cond_destroy(&l->more);
    pthread_mutex_destroy(&l->lock);
}
