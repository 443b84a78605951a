/* Packs that nodes offer and --accept-packs names: this coordinator asks for them as a person would. Others may do so at the same
 * time: whoever writes first gets the change through, and the rest find the pack known. */
#include <string.h>

#include "coordinator/follower_priv.h"

/* Chosen, not measured. FAILED: then it is left alone until it is offered anew: each time leaves an entry in a log of 128. AGAIN: after
 * the first time, and each time twice as long: a member may just be starting. BUSY: another change was under way. */
#define MAX_FAILED 5
#define AGAIN_MS   10000u
#define BUSY_MS    1000u

/* What is known of an offer that was tried or turned down; NULL: too many are. */
static follower_tried *find_tried(follower_accepting *a, const char *hash)
{
    for (size_t i = 0; i < a->n_tried; i++) {
        if (strcmp(a->tried[i].hash, hash) == 0) {
            return &a->tried[i];
        }
    }
    if (a->n_tried == MOE_COUNT(a->tried)) {
        return NULL;
    }
    follower_tried *t = &a->tried[a->n_tried++];
    *t = (follower_tried){.n_failed = 0};
    memcpy(t->hash, hash, sizeof t->hash);
    return t;
}

static bool is_offered(const cluster_state *s, const char *hash)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (cluster_node_offers(&s->nodes[i], hash)) {
            return true;
        }
    }
    return false;
}

/* What nobody offers any more may be offered anew. */
static void forget_gone(follower_accepting *a, const cluster_state *s)
{
    for (size_t i = a->n_tried; i-- > 0;) {
        if (!is_offered(s, a->tried[i].hash)) {
            a->tried[i] = a->tried[--a->n_tried];
        }
    }
}

/* ------------------------------------------------------------------------------------------------ what came of it */
static void note_failed(follower *f, follower_tried *t, uint64_t now_ms, const moe_error *why)
{
    uint64_t pause = (uint64_t)AGAIN_MS << t->n_failed;

    t->n_failed++;
    t->again_ms = now_ms + pause;
    if (t->n_failed < MAX_FAILED) {
        MOE_WARN("--accept-packs: pack %.12s is not switched on, and is tried again in %llu s: %s", t->hash,
                 (unsigned long long)pause / 1000, why->text);
        follower_try_again(f, pause);
    } else {
        MOE_WARN(
            "--accept-packs: pack %.12s is not switched on, and is left alone until a node offers it anew, or somebody "
            "adds it: %s",
            t->hash, why->text);
    }
}

/* False: what was asked for is under way still. */
static bool look_after(follower *f, uint64_t now_ms)
{
    follower_accepting *a = &f->accepting;
    const api_catalogue *table = &f->ledger.table;
    api_told told;

    if (a->ticket == NULL) {
        return true;
    }
    table->look(table->ctx, a->ticket, &told);
    if (!told.ended) {
        return false;
    }
    follower_tried *t = find_tried(a, a->hash);
    if (told.status == MOE_OK) {
        MOE_INFO("--accept-packs: pack %.12s is switched on", a->hash);
    } else if (t != NULL && (told.status == MOE_ERR_BUSY || told.status == MOE_ERR_EXISTS)) {
        t->again_ms = now_ms + BUSY_MS; /* somebody else's change: then it is looked at anew */
        follower_try_again(f, BUSY_MS);
    } else if (t != NULL) {
        note_failed(f, t, now_ms, &told.error);
    }
    table->leave(table->ctx, a->ticket);
    a->ticket = NULL;
    return true;
}

/* ------------------------------------------------------------------------------------------------ asking */
static bool ask_for(follower *f, const cluster_node *from, const cluster_pack *p)
{
    const api_catalogue *table = &f->ledger.table;
    char why[CATALOGUE_MAX_WHY + 1];
    moe_error err = {""};

    (void)snprintf(why, sizeof why, "node %s offers it", from->id);
    const api_ask ask = {.change = {.op = CATALOGUE_ADD, .who = ACCEPT_WHO, .why = why}, .pack = p->hash};
    if (table->ask(table->ctx, &ask, &f->accepting.ticket, &err) != MOE_OK) {
        f->accepting.ticket = NULL;
        follower_try_again(f, BUSY_MS);
        return false;
    }
    MOE_INFO("--accept-packs: pack %s %s of node %s is to be switched on: %s", p->name, p->version, from->id, p->hash);
    memcpy(f->accepting.hash, p->hash, sizeof f->accepting.hash);
    return true;
}

static bool consider(follower *f, const cluster_state *s, const cluster_node *from, const cluster_pack *p,
                     uint64_t now_ms)
{
    const catalogue_pack *taken = NULL;
    accept_verdict verdict = accept_judge(&f->o.accept, s->catalogue, p->name, p->hash, &taken);

    if (verdict == ACCEPT_FOREIGN || verdict == ACCEPT_KNOWN) {
        return false;
    }
    follower_tried *t = find_tried(&f->accepting, p->hash);
    if (t == NULL || t->n_failed >= MAX_FAILED) {
        return false;
    }
    if (verdict == ACCEPT_TAKEN) {
        if (!t->said) {
            MOE_WARN(
                "--accept-packs: pack %s %s of node %s is not switched on: version %s is active; conclave packs update "
                "replaces it",
                p->name, p->version, from->id, taken->version);
        }
        t->said = true;
        return false;
    }
    if (now_ms < t->again_ms) {
        follower_try_again(f, t->again_ms - now_ms);
        return false;
    }
    return ask_for(f, from, p);
}

void follower_accept(follower *f, const cluster_state *s, uint64_t now_ms)
{
    bool asks = look_after(f, now_ms) && !accept_is_empty(&f->o.accept) && atomic_load(&f->caught_up) &&
                f->asked.j == NULL && catalogue_get_pending(s->catalogue) == NULL;

    if (!asks) {
        return;
    }
    forget_gone(&f->accepting, s);
    for (size_t i = 0; i < s->n_nodes; i++) {
        for (size_t j = 0; j < s->nodes[i].n_packs; j++) {
            if (consider(f, s, &s->nodes[i], &s->nodes[i].packs[j], now_ms)) {
                return;
            }
        }
    }
}

void follower_accept_close(follower *f)
{
    if (f->accepting.ticket != NULL) {
        f->ledger.table.leave(f->ledger.table.ctx, f->accepting.ticket);
    }
}
