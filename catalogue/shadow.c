/* A pack on trial: its set lives beside the default, which stays as it is. */
#include "catalogue/catalogue_priv.h"

#include <string.h>

const catalogue_shadow *catalogue_get_shadow(const catalogue *c)
{
    return c->shadow.set != NULL ? &c->shadow : NULL;
}

static const catalogue_pack *pack_of(const catalogue *c)
{
    size_t at = c->shadow.set != NULL ? catalogue_find_hash(c, c->shadow.pack) : SIZE_MAX;

    return at != SIZE_MAX ? &c->packs[at] : NULL;
}

const catalogue_pack *catalogue_shadow_called(const catalogue *c, const char *word)
{
    const catalogue_pack *p = pack_of(c);

    return p != NULL && catalogue_pack_is_called(p, word) ? p : NULL;
}

bool catalogue_has_room_for_shadow(const catalogue *c)
{
    return c->shadow.set != NULL || c->n_named + 1 < CATALOGUE_MAX_SETS;
}

moe_status catalogue_check_shadow(const catalogue *c, const catalogue_pack *p, uint32_t share, moe_error *err)
{
    const catalogue_pack *other = pack_of(c);

    if (share > CATALOGUE_ALL_REQUESTS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "shadow: %u of %d requests; a share of [0, 1]", share,
                        CATALOGUE_ALL_REQUESTS);
    }
    if (other != NULL && other != p) {
        return moe_fail(err, MOE_ERR_BUSY, "pack %s %s is on trial: promote or remove it first", other->name,
                        other->version);
    }
    if (other != NULL && c->shadow.share == share) {
        return moe_fail(err, MOE_ERR_EXISTS, "pack %s %s is on trial already, with that share", p->name, p->version);
    }
    if (p->active) {
        return moe_fail(err, MOE_ERR_EXISTS, "pack %s %s is active", p->name, p->version);
    }
    return catalogue_has_room_for_shadow(c)
               ? MOE_OK
               : moe_fail(err, MOE_ERR_BUSY,
                          "shadow: %zu sets have names; with the default one the limit is %d: forget one", c->n_named,
                          CATALOGUE_MAX_SETS);
}

void catalogue_put_shadow(catalogue *c, const catalogue_pending *p, uint64_t now_ms)
{
    router_set_unref(c->shadow.set);
    c->shadow = (catalogue_shadow){.share = p->share, .since_ms = now_ms, .set = router_set_ref(p->target)};
    memcpy(c->shadow.pack, p->shadow, sizeof c->shadow.pack);
    memcpy(c->shadow.by, p->who, sizeof c->shadow.by);
}

void catalogue_drop_shadow(catalogue *c)
{
    router_set_unref(c->shadow.set);
    c->shadow = (catalogue_shadow){.set = NULL};
}

/* The same pack beside another default; where that has the pack, or cannot take it in any more, it is no longer a trial. All experts
 * of it are there: the new default's, and the pack's, which the set before had. */
moe_status catalogue_renew_shadow(catalogue *c, moe_error *err)
{
    const catalogue_pack *p = pack_of(c);
    router_set *set = NULL;
    members m;

    if (p == NULL) {
        return MOE_OK;
    }
    if (!members_init(&m, c, c->set)) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "expert set: out of memory");
    }
    moe_status status = p->active ? MOE_ERR_EXISTS : members_add_pack(c, &m, p, err);
    if (status == MOE_OK) {
        status = members_to_set(&m, c, &set, err);
    }
    members_fini(&m);
    if (status == MOE_ERR_NO_MEMORY) {
        return status;
    }
    if (set != NULL) {
        router_set_unref(c->shadow.set);
        c->shadow.set = set;
    } else {
        catalogue_drop_shadow(c);
    }
    return MOE_OK;
}
