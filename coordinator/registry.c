#include "coordinator/registry.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/registry_priv.h"

struct registry {
    registry_options options;
    api_catalogue table;
    api_offer *offers; /* owned: packs whose directories are known */
    size_t n_offers;   /* under the lock */
    uint64_t
        unload_ms; /* of the wall clock: when something is to be unloaded; 0: never. The thread's, as the next two */
    uint64_t changed_ms, swept_ms; /* of the last change, and of the last unloading */
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock;
    pthread_cond_t asked_for;
    bool closing;
    catalogue *current;             /* a reference */
    job *asked[REGISTRY_MAX_ASKED]; /* references, the oldest first */
    size_t n_asked;
};

/* ------------------------------------------------------------------------------------------------ doing it */
static uint64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

typedef struct telling {
    registry *r;
    job *j; /* NULL: nobody asked */
    const char *phase;
} telling;

static void tell(void *ctx, size_t done, size_t total)
{
    const telling *t = ctx;

    if (t->j != NULL) {
        pthread_mutex_lock(&t->r->lock);
        t->j->told.phase = t->phase;
        t->j->told.done = done;
        t->j->told.total = total;
        pthread_mutex_unlock(&t->r->lock);
    }
}

static void publish(registry *r, catalogue *next)
{
    pthread_mutex_lock(&r->lock);
    catalogue *old = r->current;
    r->current = next;
    pthread_mutex_unlock(&r->lock);
    catalogue_unref(old);
}

/* What was begun is given up. That the reason cannot be written down for want of memory leaves the catalogue as it was. */
static void undo(registry *r, catalogue *before, const catalogue *plan, const moe_error *why)
{
    catalogue *next = NULL;
    moe_error err;

    if (catalogue_undo(plan, catalogue_get_pending(plan)->number, now_ms(), why->text, &next, &err) != MOE_OK) {
        MOE_WARN("change %s: undone, and not in the log: %s", catalogue_get_pending(plan)->what, err.text);
        next = catalogue_ref(before);
    }
    publish(r, next);
}

/* The engine and its node get what the plan wants: its experts, and the set (NULL: it stays). */
static moe_status take_plan(registry *r, job *j, const catalogue *plan, router_set *set, moe_error *err)
{
    const registry_options *o = &r->options;
    telling t = {r, j, "loading experts"};
    uint64_t *wanted;
    moe_status status;

    if (o->change == NULL) {
        const engine_changes changes = {.set = set};

        return set != NULL ? engine_change(o->engine, &changes, err) : MOE_OK;
    }
    wanted = calloc(router_space_words(catalogue_space(plan)) + 1, sizeof *wanted);
    status = wanted != NULL ? packs_number(o->packs, plan, err) : moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    if (status == MOE_OK) {
        embedded_changes changes = {.space = catalogue_space(plan),
                                    .find = packs_expert,
                                    .find_ctx = o->packs,
                                    .wanted = wanted,
                                    .set = set,
                                    .progress = tell,
                                    .progress_ctx = &t};

        changes.packs = packs_gates(o->packs, &changes.n_packs);
        catalogue_wanted(plan, now_ms(), o->keep_unused_ms, wanted);
        status = o->change(o->change_ctx, o->engine, &changes, err);
    }
    free(wanted);
    return status;
}

static moe_status carry_out(registry *r, job *j, const catalogue *plan, moe_error *err)
{
    const catalogue_pending *p = catalogue_get_pending(plan);
    catalogue *next = NULL;
    moe_status status;

    if (now_ms() > p->deadline_ms) {
        return moe_fail(err, MOE_ERR_TIMEOUT, "%s: the time is over", p->what);
    }
    status = catalogue_commit(plan, p->number, now_ms(), &next, err);
    if (status == MOE_OK) {
        status = take_plan(r, j, plan, p->name[0] == '\0' ? p->target : NULL, err);
    }
    if (status != MOE_OK) {
        catalogue_unref(next);
        return status;
    }
    publish(r, next);
    MOE_INFO("change %s: done by %s, set %.12s", p->what, p->who[0] != '\0' ? p->who : "nobody that is named",
             router_set_id(p->target));
    return MOE_OK;
}

/* When the next expert may go: keep_unused_ms after each change, and after each former default set was the default for the last
 * time. swept_ms: until when that was seen to. */
static void plan_unloading(registry *r)
{
    uint64_t keep = r->options.keep_unused_ms, next = r->changed_ms + keep + 1;

    r->unload_ms = next > r->swept_ms ? next : 0;
    for (size_t i = 0; i < catalogue_n_former(r->current); i++) {
        next = catalogue_former_at(r->current, i)->until_ms + keep + 1;
        if (next > r->swept_ms && (r->unload_ms == 0 || next < r->unload_ms)) {
            r->unload_ms = next;
        }
    }
    r->unload_ms = r->options.change != NULL ? r->unload_ms : 0;
}

static void unload(registry *r)
{
    moe_error err;

    r->swept_ms = now_ms();
    if (take_plan(r, NULL, r->current, NULL, &err) != MOE_OK) {
        MOE_WARN("experts that are not needed stay loaded: %s", err.text);
    }
    plan_unloading(r);
}

static void add_offer(registry *r, const catalogue_pack *p, const char *dir)
{
    bool is_new = true;

    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n_offers; i++) {
        is_new = is_new && strcmp(r->offers[i].pack.hash, p->hash) != 0;
    }
    if (is_new && r->n_offers < REGISTRY_MAX_OFFERS) {
        api_offer *to = &r->offers[r->n_offers++];

        to->pack = *p;
        to->pack.layers = NULL;
        to->pack.n_layers = 0;
        (void)snprintf(to->source, sizeof to->source, "%s", dir);
    }
    pthread_mutex_unlock(&r->lock);
}

/* NAME, NAME@VERSION or hash of a pack that is open. */
static const pack *find_open(const registry *r, const char *word)
{
    const catalogue_pack *known = catalogue_find_pack(r->current, word);

    if (known != NULL) {
        return packs_find(r->options.packs, known->hash);
    }
    for (size_t i = 0; i < r->n_offers; i++) {
        const catalogue_pack *p = &r->offers[i].pack;
        size_t n = strlen(p->name);

        if (strcmp(p->hash, word) == 0 ||
            (strncmp(p->name, word, n) == 0 &&
             (word[n] == '\0' || (word[n] == '@' && strcmp(word + n + 1, p->version) == 0)))) {
            return packs_find(r->options.packs, p->hash);
        }
    }
    return NULL;
}

/* Reads the pack that the job wants in; *described is owned. */
static moe_status read_pack(registry *r, job *j, catalogue_pack *described, moe_error *err)
{
    const bool is_dir = strchr(j->pack, '/') != NULL;
    const telling t = {r, j, "checking the pack"};
    const pack *p = NULL;
    char *dir = NULL;
    moe_status status = MOE_OK;

    if (r->options.change == NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "this server cannot take packs in while it serves");
    }
    tell((void *)(uintptr_t)&t, 0, 0);
    if (is_dir) {
        status = packs_locate(r->options.pack_dirs, j->pack, &dir, err);
        status = status == MOE_OK ? packs_read(r->options.packs, dir, &p, err) : status;
        /* The server's data is sound: it is what the caller named that is not. */
        status = status == MOE_ERR_CORRUPT ? MOE_ERR_INVALID_ARG : status;
    } else if ((p = find_open(r, j->pack)) == NULL) {
        status = moe_fail(err, MOE_ERR_NOT_FOUND,
                          "pack: nobody offers \"%.80s\"; a directory below --pack-dir has a / in it", j->pack);
    }
    if (status == MOE_OK) {
        status = catalogue_describe(p, described, err);
    }
    if (status == MOE_OK && is_dir) {
        add_offer(r, described, dir);
    }
    free(dir);
    return status;
}

static moe_status begin(registry *r, job *j, catalogue **plan, moe_error *err)
{
    catalogue_change *change = &j->ask.change;
    catalogue_pack described = {.n_layers = 0};
    moe_status status = MOE_OK;

    change->now_ms = now_ms();
    change->deadline_ms = change->now_ms + (j->ask.timeout_ms != 0 ? j->ask.timeout_ms : REGISTRY_TIMEOUT_MS);
    if (change->op == CATALOGUE_ADD || change->op == CATALOGUE_UPDATE) {
        status = read_pack(r, j, &described, err);
        change->pack = &described;
    }
    if (status == MOE_OK) {
        status = catalogue_begin(r->current, change, plan, err); /* this thread alone replaces r->current */
    }
    change->pack = NULL;
    catalogue_pack_fini(&described);
    return status;
}

static moe_status do_job(registry *r, job *j, moe_error *err)
{
    catalogue *plan = NULL;
    moe_status status = begin(r, j, &plan, err);

    if (status != MOE_OK) {
        return status;
    }
    j->before = catalogue_ref(r->current);
    j->plan = plan;
    if (j->ask.dry_run) {
        return MOE_OK;
    }
    publish(r, catalogue_ref(plan));
    if (catalogue_get_pending(plan) != NULL) { /* a name that is forgotten needs nothing */
        status = carry_out(r, j, plan, err);
    }
    if (status != MOE_OK) {
        undo(r, j->before, plan, err);
    }
    r->changed_ms = now_ms();
    plan_unloading(r);
    return status;
}

static void end_job(registry *r, job *j, moe_status status, const moe_error *err)
{
    pthread_mutex_lock(&r->lock);
    j->told.ended = true;
    j->told.status = status;
    j->told.error = *err;
    j->told.before = j->before;
    j->told.plan = j->plan;
    job_unref(j);
    pthread_mutex_unlock(&r->lock);
}

/* Until somebody asks, it ends, or something is to be unloaded. Under the lock. */
static bool wait_for_work(registry *r)
{
    const struct timespec until = {.tv_sec = (time_t)(r->unload_ms / 1000u),
                                   .tv_nsec = (long)(r->unload_ms % 1000u) * 1000000};

    if (r->unload_ms == 0) {
        pthread_cond_wait(&r->asked_for, &r->lock);
        return true;
    }
    return pthread_cond_timedwait(&r->asked_for, &r->lock, &until) == 0;
}

/* The next one, whose reference is the caller's; NULL: it is time to end, or to unload. */
static job *take_job(registry *r)
{
    job *j = NULL;

    pthread_mutex_lock(&r->lock);
    while (r->n_asked == 0 && !r->closing && wait_for_work(r)) {
    }
    if (r->n_asked > 0) {
        j = r->asked[0];
        r->n_asked--;
        memmove(&r->asked[0], &r->asked[1], r->n_asked * sizeof(r->asked[0]));
    }
    pthread_mutex_unlock(&r->lock);
    return j;
}

static bool is_closing(registry *r)
{
    pthread_mutex_lock(&r->lock);
    bool closing = r->closing;
    pthread_mutex_unlock(&r->lock);
    return closing;
}

static void *loop(void *ctx)
{
    registry *r = ctx;
    job *j;

    compute_thread_init(); /* experts and gates are made here */
    while ((j = take_job(r)) != NULL || !is_closing(r)) {
        moe_error err = {""};

        if (j == NULL) {
            unload(r);
            continue;
        }
        moe_status status =
            is_closing(r) ? moe_fail(&err, MOE_ERR_UNAVAILABLE, "the server is shutting down") : do_job(r, j, &err);
        end_job(r, j, status, &err);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ the table */
static catalogue *current(void *ctx)
{
    registry *r = ctx;

    pthread_mutex_lock(&r->lock);
    catalogue *c = catalogue_ref(r->current);
    pthread_mutex_unlock(&r->lock);
    return c;
}

/* The sets that live, once each: the default one, those with names, and those of requests. References. */
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

static void living_of(registry *r, living *l)
{
    router_set *running[ENGINE_MAX_SETS];
    size_t n = engine_live_sets(r->options.engine, running);
    catalogue *c = current(r);

    l->n = 0;
    living_add(l, catalogue_default(c));
    for (size_t i = 0; i < catalogue_n_named(c); i++) {
        living_add(l, catalogue_named_at(c, i)->set);
    }
    for (size_t i = 0; i < n; i++) {
        living_add(l, running[i]);
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

/* A request that was let in reaches the engine within this time; until then nothing may go that it needs. */
#define ADMISSION_MS 10000u

static moe_status check_loaded(registry *r, const router_set *set, moe_error *err)
{
    uint64_t keep = r->options.keep_unused_ms;
    catalogue *c = current(r);
    moe_status status =
        r->options.change == NULL
            ? MOE_OK
            : catalogue_check_wanted(c, set, now_ms(), keep > ADMISSION_MS ? keep - ADMISSION_MS : 0, err);

    catalogue_unref(c);
    return status;
}

static moe_status hold(void *ctx, router_set *set, router_set **out, moe_error *err)
{
    registry *r = ctx;
    living l;
    moe_status status = MOE_OK;

    living_of(r, &l);
    router_set *found = living_find(&l, router_set_id(set));
    if (found == NULL && l.n >= CATALOGUE_MAX_SETS) {
        status = moe_fail(err, MOE_ERR_BUSY, "set: %zu sets live, those of running requests included; the limit is %d",
                          l.n, CATALOGUE_MAX_SETS);
    } else if (found == NULL) {
        status = check_loaded(r, set, err);
    }
    if (status == MOE_OK) {
        *out = router_set_ref(found != NULL ? found : set);
    }
    living_fini(&l);
    return status;
}

static router_set *find(void *ctx, const char *id)
{
    living l;

    living_of(ctx, &l);
    router_set *set = living_find(&l, id);
    set = set != NULL ? router_set_ref(set) : NULL;
    living_fini(&l);
    return set;
}

static moe_status ask(void *ctx, const api_ask *what, void **ticket, moe_error *err)
{
    registry *r = ctx;
    moe_status status = MOE_OK;

    if (r->options.no_changes != NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s", r->options.no_changes);
    }
    job *j = job_of(what);
    if (j == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    pthread_mutex_lock(&r->lock);
    if (r->closing) {
        status = moe_fail(err, MOE_ERR_UNAVAILABLE, "the server is shutting down");
    } else if (r->n_asked == REGISTRY_MAX_ASKED) {
        status = moe_fail(err, MOE_ERR_BUSY, "%d changes wait, which is the limit", REGISTRY_MAX_ASKED);
    } else {
        j->refs++;
        r->asked[r->n_asked++] = j;
        *ticket = j;
        pthread_cond_signal(&r->asked_for);
    }
    if (status != MOE_OK) {
        job_unref(j);
    }
    pthread_mutex_unlock(&r->lock);
    return status;
}

static void look(void *ctx, void *ticket, api_told *out)
{
    registry *r = ctx;

    pthread_mutex_lock(&r->lock);
    *out = ((const job *)ticket)->told;
    pthread_mutex_unlock(&r->lock);
}

static void leave(void *ctx, void *ticket)
{
    registry *r = ctx;

    pthread_mutex_lock(&r->lock);
    job_unref(ticket);
    pthread_mutex_unlock(&r->lock);
}

static size_t offers(void *ctx, api_offer *out, size_t max)
{
    registry *r = ctx;

    pthread_mutex_lock(&r->lock);
    size_t n = r->n_offers;
    memcpy(out, r->offers, MOE_MIN(n, max) * sizeof *out);
    pthread_mutex_unlock(&r->lock);
    return n;
}

/* ------------------------------------------------------------------------------------------------ life */
moe_status registry_open(const registry_options *options, registry **out, moe_error *err)
{
    registry *r = calloc(1, sizeof *r);

    if (r == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "registry: out of memory");
    }
    r->options = *options;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->asked_for, NULL);
    r->table = (api_catalogue){.current = current,
                               .hold = hold,
                               .find = find,
                               .ask = ask,
                               .look = look,
                               .leave = leave,
                               .offers = offers,
                               .ctx = r};
    r->current = catalogue_ref(options->first);
    r->offers = calloc(REGISTRY_MAX_OFFERS, sizeof *r->offers);
    if (r->offers == NULL) {
        registry_close(r);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "registry: out of memory");
    }
    r->has_thread = pthread_create(&r->thread, NULL, loop, r) == 0;
    if (!r->has_thread) {
        registry_close(r);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "registry: no thread");
    }
    *out = r;
    return MOE_OK;
}

void registry_close(registry *r)
{
    if (r == NULL) {
        return;
    }
    if (r->has_thread) {
        pthread_mutex_lock(&r->lock);
        r->closing = true;
        pthread_cond_signal(&r->asked_for);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    free(r->offers);
    catalogue_unref(r->current);
    pthread_cond_destroy(&r->asked_for);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

const api_catalogue *registry_table(registry *r)
{
    return &r->table;
}
