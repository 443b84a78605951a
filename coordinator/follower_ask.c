/* Asking the cluster for a change: the next catalogue is made of the one in force and written, unless another coordinator was
 * faster; then made anew. What comes of it is decided by the cluster's controller, and seen in the states that follow. */
#include <string.h>

#include "coordinator/follower_priv.h"

/* Chosen, not measured. LOST: each time another coordinator has got a change through. WRITES: longer than the cluster tries to
 * write what it was given. LATE: after the deadline the controller undoes a change; it may have to be elected first. */
#define MAX_LOST  8
#define WRITES_MS 15000u
#define LATE_MS   60000u
#define LOOK_MS   200u

static void end(follower *f, const cluster_state *s, moe_status status, const moe_error *err)
{
    job *j = f->asked.j;

    f->asked = (follower_asked){.j = NULL};
    if (status != MOE_OK || j->ask.dry_run) {
        packs_forget(f->o.packs, s->catalogue);
    }
    ledger_end(&f->ledger, j, status, err);
    follower_try_again(f, 0); /* the next one may wait */
}

/* ------------------------------------------------------------------------------------------------ beginning */
/* Of the pack that is to come in; *described is owned. */
static moe_status read_pack(follower *f, const cluster_state *s, catalogue_pack *described, uint64_t most_ms,
                            moe_error *err)
{
    static const uint64_t none = 0;
    const char *word = f->asked.j->pack;
    const pack *p;
    char hash[65];
    moe_error why = {""};

    if (strchr(word, '/') != NULL) {
        return moe_fail(
            err, MOE_ERR_UNSUPPORTED,
            "pack: \"%.80s\" is a directory; in a cluster nodes bring packs (conclave-node --pack), which are "
            "added by name",
            word);
    }
    if (!ledger_find_offer(&f->ledger, word, hash)) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "pack: no node offers \"%.80s\"", word);
    }
    ledger_tell(&f->ledger, f->asked.j, "reading the pack's part of the router", 0, 0);
    moe_status status = follower_read_pack(f, s, hash, &none, most_ms, &p, &why);
    if (status == MOE_ERR_CANCELLED) {
        return moe_fail(err, MOE_ERR_BUSY, "another change has begun meanwhile");
    }
    return status == MOE_OK ? catalogue_describe(p, described, err)
                            : moe_fail(err, status, "pack %.80s: %.200s", word, why.text);
}

static moe_status make_next(follower *f, const cluster_state *s, catalogue **out, moe_error *err)
{
    job *j = f->asked.j;
    catalogue_change *change = &j->ask.change;
    catalogue_pack described = {.n_layers = 0};
    const catalogue_pending *other = catalogue_get_pending(s->catalogue);
    uint64_t most_ms = j->ask.timeout_ms != 0 ? j->ask.timeout_ms : LEDGER_TIMEOUT_MS;
    moe_status status = MOE_OK;

    if (other != NULL && !j->ask.dry_run) { /* before a pack is read in vain */
        return moe_fail(err, MOE_ERR_BUSY, "another change is under way: %s", other->what);
    }
    if (change->op == CATALOGUE_ADD || change->op == CATALOGUE_UPDATE) {
        status = read_pack(f, s, &described, most_ms, err);
        change->pack = &described;
    }
    change->now_ms = follower_now_ms(f);
    change->deadline_ms = change->now_ms + most_ms;
    if (status == MOE_OK) {
        status = catalogue_begin(s->catalogue, change, out, err);
    }
    change->pack = NULL;
    catalogue_pack_fini(&described);
    return status;
}

static void begin(follower *f, const cluster_state *s)
{
    follower_asked *a = &f->asked;
    job *j = a->j;
    catalogue *plan = NULL;
    moe_error err = {""};
    moe_status status = make_next(f, s, &plan, &err);

    if (status == MOE_OK) {
        catalogue_unref(j->before);
        catalogue_unref(j->plan);
        j->before = catalogue_ref(s->catalogue);
        j->plan = plan;
        if (j->ask.dry_run) {
            end(f, s, MOE_OK, &err);
            return;
        }
        status = cluster_change_catalogue(pool_cluster(f->o.pool), plan, s->catalogue_revision, &err);
        if ((status == MOE_ERR_EXISTS || status == MOE_ERR_BUSY) && a->n_lost < MAX_LOST) {
            a->n_lost++;
            follower_try_again(f, LOOK_MS); /* of a newer state */
            return;
        }
    }
    if (status != MOE_OK) {
        end(f, s, status, &err);
        return;
    }
    a->stage = FOLLOWER_WRITES;
    a->revision = s->catalogue_revision;
    a->until_ms = follower_now_ms(f) + WRITES_MS;
    ledger_tell(&f->ledger, j, "telling the cluster", 0, 0);
    follower_try_again(f, LOOK_MS);
}

/* ------------------------------------------------------------------------------------------------ what became of it */
static bool same_words(const char *who, const char *why, const char *what, const catalogue *plan)
{
    const catalogue_pending *p = catalogue_get_pending(plan);

    if (p != NULL) {
        return strcmp(who, p->who) == 0 && strcmp(why, p->why) == 0 && strcmp(what, p->what) == 0;
    }
    const catalogue_entry *e = catalogue_entry_at(plan, catalogue_n_entries(plan) - 1); /* it was done at once */
    return strcmp(who, e->who) == 0 && strcmp(why, e->why) == 0 && strcmp(what, e->what) == 0;
}

/* The log's entry of our change; NULL: it has none. */
static const catalogue_entry *find_entry(const catalogue *c, const catalogue *plan)
{
    for (size_t i = catalogue_n_entries(c); i-- > 0;) {
        const catalogue_entry *e = catalogue_entry_at(c, i);

        if (e->number == catalogue_get_number(plan)) {
            return same_words(e->who, e->why, e->what, plan) ? e : NULL;
        }
    }
    return NULL;
}

static bool is_pending(const catalogue *c, const catalogue *plan)
{
    const catalogue_pending *p = catalogue_get_pending(c), *ours = catalogue_get_pending(plan);

    return p != NULL && ours != NULL && p->number == ours->number && p->begun_ms == ours->begun_ms &&
           same_words(p->who, p->why, p->what, plan);
}

static void end_as(follower *f, const cluster_state *s, const catalogue_entry *e)
{
    moe_error err = {""};

    if (e->undone[0] != '\0') {
        end(f, s, moe_fail(&err, MOE_ERR_UNAVAILABLE, "%s is undone: %s", e->what, e->undone), &err);
    } else {
        end(f, s, MOE_OK, &err);
    }
}

static void wait_for_store(follower *f, const cluster_state *s)
{
    follower_asked *a = &f->asked;
    const catalogue *plan = a->j->plan;
    moe_error err = {""};

    if (is_pending(s->catalogue, plan)) {
        const catalogue_pending *p = catalogue_get_pending(plan);

        a->stage = FOLLOWER_BELONGS;
        a->until_ms = p->deadline_ms + LATE_MS;
        ledger_tell(&f->ledger, a->j, "waiting for coordinators and nodes", 0, 0);
    } else if (s->catalogue_revision != a->revision) {
        a->n_lost++;
        a->stage = FOLLOWER_BEGINS;
        if (a->n_lost >= MAX_LOST) {
            end(f, s, moe_fail(&err, MOE_ERR_BUSY, "other coordinators were faster %d times", MAX_LOST), &err);
        }
        follower_try_again(f, 0);
    } else if (follower_now_ms(f) > a->until_ms) {
        end(f, s, moe_fail(&err, MOE_ERR_UNAVAILABLE, "the store has not taken the change"), &err);
    }
}

static void wait_for_end(follower *f, const cluster_state *s)
{
    moe_error err = {""};

    if (!is_pending(s->catalogue, f->asked.j->plan)) {
        end(f, s,
            moe_fail(&err, MOE_ERR_UNAVAILABLE,
                     "what became of the change is not known: the catalogue's log has it no more"),
            &err);
    } else if (follower_now_ms(f) > f->asked.until_ms) {
        end(f, s, moe_fail(&err, MOE_ERR_TIMEOUT, "the change is pending still, as there is nobody to undo it"), &err);
    }
}

void follower_go_on(follower *f, const cluster_state *s)
{
    if (f->asked.j == NULL) {
        return;
    }
    if (f->asked.stage == FOLLOWER_BEGINS) {
        begin(f, s);
        return;
    }
    const catalogue_entry *e = find_entry(s->catalogue, f->asked.j->plan);
    if (e != NULL) {
        end_as(f, s, e);
    } else if (f->asked.stage == FOLLOWER_WRITES) {
        wait_for_store(f, s);
    } else {
        wait_for_end(f, s);
    }
    if (f->asked.j != NULL) {
        follower_try_again(f, LOOK_MS);
    }
}
