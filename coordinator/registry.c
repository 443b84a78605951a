#include "coordinator/registry.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct registry {
    registry_options options;
    ledger ledger; /* its current catalogue is replaced by the thread alone */
    uint64_t
        unload_ms; /* of the wall clock: when something is to be unloaded; 0: never. The thread's, as the next two */
    uint64_t changed_ms, swept_ms; /* of the last change, and of the last unloading */
    pthread_t thread;
    bool has_thread;
};

/* ------------------------------------------------------------------------------------------------ doing it */
typedef struct telling {
    registry *r;
    job *j; /* NULL: nobody asked */
    const char *phase;
} telling;

static void tell(void *ctx, size_t done, size_t total)
{
    const telling *t = ctx;

    if (t->j != NULL) {
        ledger_tell(&t->r->ledger, t->j, t->phase, done, total);
    }
}

/* What was begun is given up. That the reason cannot be written down for want of memory leaves the catalogue as it was. */
static void undo(registry *r, catalogue *before, const catalogue *plan, const moe_error *why)
{
    catalogue *next = NULL;
    moe_error err;

    if (catalogue_undo(plan, catalogue_get_pending(plan)->number, moe_wall_ms(), why->text, &next, &err) != MOE_OK) {
        MOE_WARN("change %s: undone, and not in the log: %s", catalogue_get_pending(plan)->what, err.text);
        next = catalogue_ref(before);
    }
    ledger_publish(&r->ledger, next);
}

/* A load may take minutes, which nobody who ends the server waits for. */
static bool goes_on(void *ctx)
{
    registry *r = ctx;

    return !ledger_is_closing(&r->ledger);
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
                                    .progress_ctx = &t,
                                    .goes_on = goes_on,
                                    .goes_on_ctx = r};

        changes.packs = packs_gates(o->packs, &changes.n_packs);
        catalogue_wanted(plan, moe_wall_ms(), o->keep_unused_ms, wanted);
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

    if (moe_wall_ms() > p->deadline_ms) {
        return moe_fail(err, MOE_ERR_TIMEOUT, "%s: the time is over", p->what);
    }
    status = catalogue_commit(plan, p->number, moe_wall_ms(), &next, err);
    if (status == MOE_OK) {
        status = take_plan(r, j, plan, catalogue_pending_is_default(p) ? p->target : NULL, err);
    }
    if (status != MOE_OK) {
        catalogue_unref(next);
        return status;
    }
    ledger_publish(&r->ledger, next);
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
    for (size_t i = 0; i < catalogue_n_former(r->ledger.current); i++) {
        next = catalogue_former_at(r->ledger.current, i)->until_ms + keep + 1;
        if (next > r->swept_ms && (r->unload_ms == 0 || next < r->unload_ms)) {
            r->unload_ms = next;
        }
    }
    r->unload_ms = r->options.change != NULL ? r->unload_ms : 0;
}

static void unload(registry *r)
{
    moe_error err;

    r->swept_ms = moe_wall_ms();
    if (take_plan(r, NULL, r->ledger.current, NULL, &err) != MOE_OK) {
        MOE_WARN("experts that are not needed stay loaded: %s", err.text);
    }
    plan_unloading(r);
}

/* Reads the pack that the job wants in; *described is owned. */
static moe_status read_pack(registry *r, job *j, catalogue_pack *described, moe_error *err)
{
    const bool is_dir = strchr(j->pack, '/') != NULL;
    const telling t = {r, j, "checking the pack"};
    const pack *p = NULL;
    char *dir = NULL, hash[65];
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
    } else if (!ledger_find_offer(&r->ledger, j->pack, hash) || (p = packs_find(r->options.packs, hash)) == NULL) {
        status = moe_fail(err, MOE_ERR_NOT_FOUND,
                          "pack: nobody offers \"%.80s\"; a directory below --pack-dir has a / in it", j->pack);
    }
    if (status == MOE_OK) {
        status = catalogue_describe(p, described, err);
    }
    if (status == MOE_OK && is_dir) {
        ledger_offer(&r->ledger, described, dir);
    }
    free(dir);
    return status;
}

static moe_status begin(registry *r, job *j, catalogue **plan, moe_error *err)
{
    catalogue_change *change = &j->ask.change;
    catalogue_pack described = {.n_layers = 0};
    moe_status status = MOE_OK;

    change->now_ms = moe_wall_ms();
    change->deadline_ms = change->now_ms + (j->ask.timeout_ms != 0 ? j->ask.timeout_ms : LEDGER_TIMEOUT_MS);
    if (change->op == CATALOGUE_ADD || change->op == CATALOGUE_UPDATE) {
        status = read_pack(r, j, &described, err);
        change->pack = &described;
    }
    if (status == MOE_OK) {
        status =
            catalogue_begin(r->ledger.current, change, plan, err); /* this thread alone replaces r->ledger.current */
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
    j->before = catalogue_ref(r->ledger.current);
    j->plan = plan;
    if (j->ask.dry_run) {
        return MOE_OK;
    }
    ledger_publish(&r->ledger, catalogue_ref(plan));
    if (catalogue_get_pending(plan) != NULL) { /* a name that is forgotten needs nothing */
        status = carry_out(r, j, plan, err);
    }
    if (status != MOE_OK) {
        undo(r, j->before, plan, err);
    }
    r->changed_ms = moe_wall_ms();
    plan_unloading(r);
    return status;
}

static void *loop(void *ctx)
{
    registry *r = ctx;
    job *j;

    compute_thread_init(); /* experts and gates are made here */
    while ((j = ledger_wait(&r->ledger, r->unload_ms, true)) != NULL || !ledger_is_closing(&r->ledger)) {
        moe_error err = {""};

        if (j == NULL) {
            unload(r);
            continue;
        }
        moe_status status = ledger_is_closing(&r->ledger)
                                ? moe_fail(&err, MOE_ERR_UNAVAILABLE, "the server is shutting down")
                                : do_job(r, j, &err);
        if (r->options.packs != NULL && (status != MOE_OK || j->ask.dry_run)) {
            packs_forget(r->options.packs, r->ledger.current); /* which this thread alone replaces */
        }
        ledger_end(&r->ledger, j, status, &err);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ life */
/* A set of a request: experts that nobody needs any more may be gone. */
static moe_status check_loaded(void *ctx, const catalogue *c, const router_set *set, moe_error *err)
{
    const registry *r = ctx;

    return r->options.change == NULL ? MOE_OK : ledger_check_wanted(c, set, r->options.keep_unused_ms, err);
}

moe_status registry_open(const registry_options *options, registry **out, moe_error *err)
{
    registry *r = calloc(1, sizeof *r);

    if (r == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "registry: out of memory");
    }
    r->options = *options;
    if (ledger_open(&r->ledger, options->engine, options->first, options->no_changes, check_loaded, r, err) != MOE_OK) {
        free(r);
        return MOE_ERR_NO_MEMORY;
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
        ledger_close(&r->ledger);
        pthread_join(r->thread, NULL);
    }
    ledger_fini(&r->ledger);
    free(r);
}

const api_catalogue *registry_table(registry *r)
{
    return &r->ledger.table;
}
