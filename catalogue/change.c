/* Changes: from what somebody asks for to the next catalogue. */
#include "catalogue/catalogue_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What a commit or an undo may add to the text that catalogue_begin has measured: an entry of the log, every character of
 * which JSON may write as two, and a former default. */
#define ROOM_FOR_THE_END ((size_t)4096)

/* ------------------------------------------------------------------------------------------------ names */
size_t catalogue_find_name(const catalogue *c, const char *name)
{
    for (size_t i = 0; i < c->n_named; i++) {
        if (strcmp(c->named[i].name, name) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

bool catalogue_has_room_for(const catalogue *c, const char *name)
{
    return c->n_named + 1 + (c->shadow.set != NULL) < CATALOGUE_MAX_SETS || catalogue_find_name(c, name) != SIZE_MAX;
}

/* The name is there: another set. Otherwise it is put where it belongs. */
static void give_name(catalogue *c, const char *name, router_set *set)
{
    size_t at = catalogue_find_name(c, name);

    if (at == SIZE_MAX) {
        for (at = 0; at < c->n_named && strcmp(c->named[at].name, name) < 0; at++) {
        }
        memmove(&c->named[at + 1], &c->named[at], (c->n_named - at) * sizeof c->named[0]);
        c->named[at] = (catalogue_named){.set = NULL};
        (void)snprintf(c->named[at].name, sizeof c->named[at].name, "%s", name);
        c->n_named++;
    }
    router_set_unref(c->named[at].set);
    c->named[at].set = router_set_ref(set);
}

static void take_name(catalogue *c, size_t at)
{
    router_set_unref(c->named[at].set);
    c->n_named--;
    memmove(&c->named[at], &c->named[at + 1], (c->n_named - at) * sizeof c->named[0]);
}

/* ------------------------------------------------------------------------------------------------ the log */
static void put_entry(catalogue *c, const catalogue_entry *entry)
{
    if (c->n_entries == CATALOGUE_MAX_LOG) {
        c->n_entries--;
        memmove(&c->entries[0], &c->entries[1], c->n_entries * sizeof c->entries[0]);
    }
    c->entries[c->n_entries++] = *entry;
}

static catalogue_entry entry_of(const catalogue_pending *p, const router_set *before, const router_set *after,
                                uint64_t now_ms)
{
    catalogue_entry e = {.number = p->number, .at_ms = now_ms};

    memcpy(e.who, p->who, sizeof e.who);
    memcpy(e.why, p->why, sizeof e.why);
    memcpy(e.what, p->what, sizeof e.what);
    (void)snprintf(e.before, sizeof e.before, "%s", before != NULL ? router_set_id(before) : "");
    (void)snprintf(e.after, sizeof e.after, "%s", after != NULL ? router_set_id(after) : "");
    return e;
}

/* ------------------------------------------------------------------------------------------------ packs */
/* The pack of the catalogue that this one is: as it was taken in, or now. */
static moe_status take_in(catalogue *next, const catalogue_pack *from, const catalogue_pack **out, moe_error *err)
{
    moe_status status = catalogue_check_pack(next, from, err);
    size_t at = catalogue_find_hash(next, from->hash);

    if (status != MOE_OK) {
        return status;
    }
    if (at == SIZE_MAX && next->n_packs == CATALOGUE_MAX_PACKS) {
        return moe_fail(err, MOE_ERR_BUSY, "pack %s: %d packs were taken in, which is the limit", from->name,
                        CATALOGUE_MAX_PACKS);
    }
    if (at == SIZE_MAX) {
        at = next->n_packs;
        status = catalogue_take_in(next, from, err);
        if (status != MOE_OK) {
            return status;
        }
        next->packs[at].active = false;
    }
    *out = &next->packs[at];
    return MOE_OK;
}

/* Another active pack of that name is in the way; so is a set in which what it replaces is not there. */
static moe_status check_free(const catalogue *c, const members *m, const catalogue_pack *p, moe_error *err)
{
    for (size_t i = 0; i < c->n_packs; i++) {
        const catalogue_pack *other = &c->packs[i];

        if (strcmp(other->name, p->name) == 0 && other != p && members_have_pack(m, other)) {
            return moe_fail(err, MOE_ERR_EXISTS, "pack %s: version %s is active: update or remove it", p->name,
                            other->version);
        }
    }
    for (size_t i = 0; i < p->n_layers && p->is_replace; i++) {
        for (uint32_t e = 0; e < p->layers[i].n_experts; e++) {
            int32_t id = p->layers[i].replaces[e];

            if (!router_bit(m->bits, router_space_slot(m->space, p->layers[i].layer, id)) &&
                !router_bit(m->bits,
                            router_space_slot(m->space, p->layers[i].layer, p->layers[i].first_id + (int32_t)e))) {
                return moe_fail(err, MOE_ERR_INVALID_ARG,
                                "pack %s: layer %u expert %d, which it replaces, is not in the default set", p->name,
                                p->layers[i].layer, id);
            }
        }
    }
    return MOE_OK;
}

moe_status members_add_pack(const catalogue *c, members *m, const catalogue_pack *p, moe_error *err)
{
    moe_status status = check_free(c, m, p, err);

    if (status == MOE_OK) {
        members_put_pack(m, p, true);
    }
    return status;
}

static moe_status put_out(const catalogue *next, members *m, const char *word, const catalogue_pack **out,
                          moe_error *err)
{
    const catalogue_pack *p = catalogue_find_pack(next, word);

    if (p == NULL || !p->active) {
        return moe_fail(err, MOE_ERR_NOT_FOUND,
                        p == NULL ? "there is no pack \"%.80s\"" : "pack \"%.80s\" is not active", word);
    }
    members_put_pack(m, p, false);
    *out = p;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ the operations */
typedef struct work {
    catalogue *next;
    const catalogue_change *change;
    members m; /* the default's, in the next space */
} work;

static bool open_members(work *w, moe_error *err)
{
    bool ok = members_init(&w->m, w->next, w->next->set);

    if (!ok) {
        (void)moe_fail(err, MOE_ERR_NO_MEMORY, "expert set: out of memory");
    }
    return ok;
}

static char *what(work *w)
{
    return w->next->pending.what;
}

static moe_status do_add(work *w, moe_error *err)
{
    const catalogue_pack *p = NULL;
    moe_status status = take_in(w->next, w->change->pack, &p, err);

    if (status != MOE_OK || !open_members(w, err)) {
        return status != MOE_OK ? status : MOE_ERR_NO_MEMORY;
    }
    if (w->change->is_shadow) {
        status = catalogue_check_shadow(w->next, p, w->change->share, err);
        (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "shadow %s %s at %g%%", p->name, p->version,
                       100.0 * w->change->share / CATALOGUE_ALL_REQUESTS);
        memcpy(w->next->pending.shadow, p->hash, sizeof w->next->pending.shadow);
        w->next->pending.share = w->change->share;
    } else {
        (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "add %s %s", p->name, p->version);
    }
    return status == MOE_OK ? members_add_pack(w->next, &w->m, p, err) : status;
}

static moe_status do_promote(work *w, moe_error *err)
{
    const catalogue_pack *p = catalogue_shadow_called(w->next, w->change->word);

    if (p == NULL) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "pack \"%.80s\" is not on trial", w->change->word);
    }
    (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "promote %s %s", p->name, p->version);
    w->next->pending.target = router_set_ref(w->next->shadow.set);
    return MOE_OK;
}

static moe_status do_remove(work *w, moe_error *err)
{
    const catalogue_pack *p = NULL;
    moe_status status;

    if (!open_members(w, err)) {
        return MOE_ERR_NO_MEMORY;
    }
    status = put_out(w->next, &w->m, w->change->word, &p, err);
    if (status == MOE_OK) {
        (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "remove %s %s", p->name, p->version);
    }
    return status;
}

static moe_status do_update(work *w, moe_error *err)
{
    const catalogue_pack *from = NULL, *to = NULL;
    moe_status status = take_in(w->next, w->change->pack, &to, err);

    if (status != MOE_OK || !open_members(w, err)) {
        return status != MOE_OK ? status : MOE_ERR_NO_MEMORY;
    }
    status = put_out(w->next, &w->m, w->change->word, &from, err);
    if (status != MOE_OK) {
        return status;
    }
    (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "update %s %s to %s %s", from->name, from->version, to->name,
                   to->version);
    return members_add_pack(w->next, &w->m, to, err);
}

static moe_status do_prune(work *w, moe_error *err)
{
    moe_status status = MOE_OK;

    if (!open_members(w, err)) {
        return MOE_ERR_NO_MEMORY;
    }
    status = members_leave_out(&w->m, w->next, w->change->experts, w->change->n_experts, err);
    (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "prune %zu experts", w->change->n_experts);
    return status;
}

/* Only what the base or an active pack has can come back, and not what an active pack stands in for. */
static moe_status check_restored(const work *w, const uint64_t *all, const catalogue_expert *e, uint32_t slot,
                                 moe_error *err)
{
    if (router_bit(w->m.bits, slot)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "experts: layer %u expert %d is in the default set", e->layer, e->id);
    }
    if (!router_bit(all, slot)) {
        return moe_fail(
            err, MOE_ERR_INVALID_ARG,
            "experts: layer %u expert %d is of a pack that is not active, or an active one stands in for it", e->layer,
            e->id);
    }
    return MOE_OK;
}

static moe_status do_restore(work *w, moe_error *err)
{
    const catalogue_change *change = w->change;
    members all = {0};
    moe_status status = MOE_OK;

    if (!open_members(w, err) || !members_init(&all, w->next, w->next->set)) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "expert set: out of memory");
    }
    members_put_base(&all, w->next, true);
    for (size_t i = 0; i < w->next->n_packs; i++) {
        if (w->next->packs[i].active) {
            members_put_pack(&all, &w->next->packs[i], true);
        }
    }
    for (size_t i = 0; i < change->n_experts && status == MOE_OK; i++) {
        uint32_t slot = 0;

        status = catalogue_slot_of(w->next, &change->experts[i], &slot, err);
        if (status == MOE_OK) {
            status = check_restored(w, all.bits, &change->experts[i], slot, err);
        }
        if (status == MOE_OK) {
            router_bit_set(w->m.bits, slot);
        }
    }
    if (change->n_experts == 0) {
        memcpy(w->m.bits, all.bits, router_space_words(w->next->space) * sizeof *all.bits);
        (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "restore all experts");
    } else {
        (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "restore %zu experts", change->n_experts);
    }
    members_fini(&all);
    return status;
}

static moe_status do_use(work *w, moe_error *err)
{
    router_set *set = NULL;
    moe_status status = catalogue_find_set(w->next, w->change->word, &set, err);

    if (status != MOE_OK) {
        return status;
    }
    (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "use %s", w->change->word);
    w->next->pending.target = set;
    return MOE_OK;
}

static moe_status do_rollback(work *w, moe_error *err)
{
    if (w->next->n_former == 0) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "rollback: there is no former default set");
    }
    (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "rollback");
    w->next->pending.is_rollback = true;
    w->next->pending.target = router_set_ref(w->next->former[0].set);
    return MOE_OK;
}

static void clear_layer(work *w, uint32_t layer)
{
    const router_space_layer *all = router_space_at(w->next->space, layer);

    for (uint32_t i = 0; i < all->n_experts; i++) {
        router_bit_clear(w->m.bits, all->slots[i]);
    }
}

/* The layers that are named have the listed experts alone. */
static moe_status put_listed(work *w, moe_error *err)
{
    const catalogue_change *change = w->change;
    moe_status status = MOE_OK;
    uint32_t slot = 0;

    for (size_t i = 0; i < change->n_experts && status == MOE_OK; i++) {
        uint32_t layer = change->experts[i].layer;

        status = catalogue_slot_of(w->next, &change->experts[i], &slot, err);
        if (status == MOE_OK &&
            (i == 0 || change->experts[i - 1].layer != layer)) { /* experts of a layer mostly follow each other */
            clear_layer(w, layer);
        }
    }
    for (size_t i = 0; i < change->n_experts && status == MOE_OK; i++) {
        status = catalogue_slot_of(w->next, &change->experts[i], &slot, err);
        router_bit_set(w->m.bits, slot);
    }
    return status;
}

static moe_status check_name(const catalogue *c, const char *name, moe_error *err)
{
    if (!catalogue_name_is_valid(name)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "name: \"%.80s\"; of 1 to %d characters A-Z a-z 0-9 . - _, and neither default nor base", name,
                        CATALOGUE_MAX_NAME);
    }
    return catalogue_has_room_for(c, name)
               ? MOE_OK
               : moe_fail(err, MOE_ERR_BUSY,
                          "name: %zu sets have names; with the default one the limit is %d: forget one", c->n_named,
                          CATALOGUE_MAX_SETS);
}

static moe_status do_define(work *w, moe_error *err)
{
    const catalogue_change *change = w->change;
    moe_status status = check_name(w->next, change->word, err);

    if (status != MOE_OK || !open_members(w, err)) {
        return status != MOE_OK ? status : MOE_ERR_NO_MEMORY;
    }
    status = members_put_packs(&w->m, w->next, change->include, change->n_include, true, err);
    if (status == MOE_OK) {
        status = members_put_packs(&w->m, w->next, change->exclude, change->n_exclude, false, err);
    }
    if (status == MOE_OK) {
        status = put_listed(w, err);
    }
    (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "define %s", change->word);
    (void)snprintf(w->next->pending.name, sizeof w->next->pending.name, "%s", change->word);
    return status;
}

static moe_status (*const operations[CATALOGUE_N_OPS])(work *w, moe_error *err) = {
    [CATALOGUE_ADD] = do_add,       [CATALOGUE_PROMOTE] = do_promote,   [CATALOGUE_REMOVE] = do_remove,
    [CATALOGUE_UPDATE] = do_update, [CATALOGUE_PRUNE] = do_prune,       [CATALOGUE_RESTORE] = do_restore,
    [CATALOGUE_USE] = do_use,       [CATALOGUE_ROLLBACK] = do_rollback, [CATALOGUE_DEFINE] = do_define};

/* ------------------------------------------------------------------------------------------------ begin */
/* The set that the pending one takes the place of; NULL: a new name. */
static const router_set *place_of(const catalogue *c)
{
    size_t at = catalogue_find_name(c, c->pending.name);

    if (c->pending.shadow[0] != '\0') {
        return c->shadow.set;
    }
    if (c->pending.name[0] == '\0') {
        return c->set;
    }
    return at != SIZE_MAX ? c->named[at].set : NULL;
}

static moe_status find_target(work *w, moe_error *err)
{
    catalogue_pending *p = &w->next->pending;
    moe_status status = operations[w->change->op](w, err);

    if (status == MOE_OK && p->target == NULL) {
        status = members_to_set(&w->m, w->next, &p->target, err);
    }
    members_fini(&w->m);
    if (status != MOE_OK) {
        return status;
    }
    const router_set *now = p->shadow[0] == '\0' ? place_of(w->next) : NULL; /* of that, the share may change */
    if (now != NULL && strcmp(router_set_id(now), router_set_id(p->target)) == 0) {
        return moe_fail(err, MOE_ERR_EXISTS, "%s: nothing would change: %s has these experts", p->what,
                        p->name[0] != '\0' ? p->name : "the default set");
    }
    return MOE_OK;
}

static bool is_short(const catalogue *c)
{
    moe_text text;
    bool ok;

    moe_text_init(&text, CATALOGUE_MAX_TEXT - ROOM_FOR_THE_END);
    catalogue_write(c, &text);
    ok = !text.failed;
    moe_text_fini(&text);
    return ok;
}

/* With a pack on trial a commit makes one more set: the new default with it. */
static bool is_short_enough(const catalogue *c)
{
    catalogue *done = NULL;
    bool ok = is_short(c);

    if (ok && c->has_pending && c->shadow.set != NULL) {
        ok = catalogue_commit(c, c->pending.number, c->pending.begun_ms, &done, NULL) == MOE_OK && is_short(done);
        catalogue_unref(done);
    }
    return ok;
}

/* Where the text is too long, the older half of the log goes first: forgetting a set must always be possible. */
static moe_status make_short(catalogue *c, moe_error *err)
{
    while (!is_short_enough(c)) {
        size_t n_old = c->n_entries / 2;

        if (n_old == 0) {
            return moe_fail(err, MOE_ERR_BUSY,
                            "the catalogue would take more than %zu bytes, which is the limit: forget sets",
                            CATALOGUE_MAX_TEXT - ROOM_FOR_THE_END);
        }
        c->n_entries -= n_old;
        memmove(&c->entries[0], &c->entries[n_old], c->n_entries * sizeof c->entries[0]);
    }
    return MOE_OK;
}

/* What needs nothing is done at once: into the log, and no longer pending. */
static void end_at_once(catalogue *next, const router_set *gone, uint64_t now_ms)
{
    const catalogue_entry entry = entry_of(&next->pending, gone, NULL, now_ms);

    put_entry(next, &entry);
    next->pending = (catalogue_pending){0};
    next->has_pending = false;
}

static moe_status do_forget(work *w, moe_error *err)
{
    catalogue *next = w->next;
    size_t at = catalogue_find_name(next, w->change->word);

    if (at == SIZE_MAX) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "there is no set with the name \"%.80s\"", w->change->word);
    }
    (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "forget %s", w->change->word);
    end_at_once(next, next->named[at].set, w->change->now_ms);
    take_name(next, at);
    return MOE_OK;
}

static moe_status end_shadow(work *w, const catalogue_pack *p)
{
    (void)snprintf(what(w), CATALOGUE_MAX_WHAT + 1, "remove %s %s from the shadow", p->name, p->version);
    end_at_once(w->next, w->next->shadow.set, w->change->now_ms);
    catalogue_drop_shadow(w->next);
    return MOE_OK;
}

static moe_status work_out(work *w, moe_error *err)
{
    const catalogue_pack *p =
        w->change->op == CATALOGUE_REMOVE ? catalogue_shadow_called(w->next, w->change->word) : NULL;

    if (p != NULL) {
        return end_shadow(w, p);
    }
    return w->change->op == CATALOGUE_FORGET ? do_forget(w, err) : find_target(w, err);
}

static moe_status check_begin(const catalogue *c, const catalogue_change *change, moe_error *err)
{
    if (c->has_pending) {
        return moe_fail(err, MOE_ERR_BUSY, "change %" PRIu64 ", %s, is under way", c->pending.number, c->pending.what);
    }
    if (c->number >= CATALOGUE_MAX_NUMBER || change->now_ms > CATALOGUE_MAX_NUMBER ||
        change->deadline_ms > CATALOGUE_MAX_NUMBER) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "change: a number or a time is beyond 2^53");
    }
    return change->op == CATALOGUE_PRUNE && change->n_experts == 0
               ? moe_fail(err, MOE_ERR_INVALID_ARG, "experts: none is named")
               : MOE_OK;
}

moe_status catalogue_begin(const catalogue *c, const catalogue_change *change, catalogue **out, moe_error *err)
{
    moe_status status = check_begin(c, change, err);
    work w = {.change = change};

    if (status != MOE_OK) {
        return status;
    }
    w.next = catalogue_copy(c);
    if (w.next == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "catalogue: out of memory");
    }
    catalogue_pending *p = &w.next->pending;
    w.next->has_pending = true;
    p->number = ++w.next->number;
    p->begun_ms = change->now_ms;
    p->deadline_ms = change->deadline_ms;
    moe_copy_line(p->who, sizeof p->who, change->who);
    moe_copy_line(p->why, sizeof p->why, change->why);
    status = work_out(&w, err);
    if (status == MOE_OK) {
        status = make_short(w.next, err);
    }
    if (status != MOE_OK) {
        catalogue_unref(w.next);
        return status;
    }
    *out = w.next;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ commit, undo */
static moe_status copy_pending(const catalogue *c, uint64_t number, catalogue **out, moe_error *err)
{
    if (!c->has_pending || c->pending.number != number) {
        return moe_fail(err, MOE_ERR_NOT_FOUND, "change %" PRIu64 " is not under way", number);
    }
    *out = catalogue_copy(c);
    return *out != NULL ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "catalogue: out of memory");
}

static void drop_former(catalogue *c, size_t at)
{
    router_set_unref(c->former[at].set);
    c->n_former--;
    memmove(&c->former[at], &c->former[at + 1], (c->n_former - at) * sizeof c->former[0]);
}

/* The default set becomes `set`; where that was a rollback, the former one is no longer a former one. */
static void set_default(catalogue *c, router_set *set, bool is_rollback, uint64_t now_ms)
{
    if (is_rollback) {
        drop_former(c, 0);
        router_set_unref(c->set);
    } else {
        if (c->n_former == CATALOGUE_MAX_PREVIOUS) {
            drop_former(c, c->n_former - 1);
        }
        memmove(&c->former[1], &c->former[0], c->n_former * sizeof c->former[0]);
        c->former[0] = (catalogue_former){.set = c->set, .until_ms = now_ms};
        c->n_former++;
    }
    c->set = router_set_ref(set);
}

static void mark_active(catalogue *c, const char *who, uint64_t now_ms)
{
    for (size_t i = 0; i < c->n_packs; i++) {
        catalogue_pack *p = &c->packs[i];
        bool active = catalogue_uses(c->set, p);

        if (active != p->active) {
            p->active = active;
            p->since_ms = now_ms;
            (void)snprintf(p->by, sizeof p->by, "%s", who);
        }
    }
}

moe_status catalogue_commit(const catalogue *c, uint64_t number, uint64_t now_ms, catalogue **out, moe_error *err)
{
    catalogue *next = NULL;
    moe_status status = copy_pending(c, number, &next, err);

    if (status != MOE_OK) {
        return status;
    }
    catalogue_pending done = next->pending;
    const catalogue_entry entry = entry_of(&done, place_of(next), done.target, now_ms);
    put_entry(next, &entry);
    if (done.shadow[0] != '\0') {
        catalogue_put_shadow(next, &done, now_ms);
    } else if (done.name[0] != '\0') {
        give_name(next, done.name, done.target);
    } else {
        set_default(next, done.target, done.is_rollback, now_ms);
        mark_active(next, done.who, now_ms);
        status = catalogue_renew_shadow(next, err);
    }
    next->has_pending = false;
    next->pending = (catalogue_pending){0};
    router_set_unref(done.target);
    if (status != MOE_OK) {
        catalogue_unref(next);
        return status;
    }
    *out = next;
    return MOE_OK;
}

moe_status catalogue_undo(const catalogue *c, uint64_t number, uint64_t now_ms, const char *reason, catalogue **out,
                          moe_error *err)
{
    catalogue *next = NULL;
    moe_status status = copy_pending(c, number, &next, err);

    if (status != MOE_OK) {
        return status;
    }
    catalogue_entry entry = entry_of(&next->pending, place_of(next), place_of(next), now_ms);
    moe_copy_line(entry.undone, sizeof entry.undone, reason != NULL && reason[0] != '\0' ? reason : "undone");
    put_entry(next, &entry);
    router_set_unref(next->pending.target);
    next->pending = (catalogue_pending){0};
    next->has_pending = false;
    *out = next;
    return MOE_OK;
}

moe_status catalogue_with_pack(const catalogue *c, const struct pack *p, const char *who, uint64_t now_ms,
                               catalogue **out, moe_error *err)
{
    catalogue_pack described;
    catalogue *begun = NULL;
    moe_status status = catalogue_describe(p, &described, err);

    if (status != MOE_OK) {
        return status;
    }
    const catalogue_change add = {
        .op = CATALOGUE_ADD, .who = who, .now_ms = now_ms, .deadline_ms = now_ms, .pack = &described};
    status = catalogue_begin(c, &add, &begun, err);
    if (status == MOE_OK) {
        status = catalogue_commit(begun, begun->pending.number, now_ms, out, err);
    }
    catalogue_pack_fini(&described);
    catalogue_unref(begun);
    return status;
}
