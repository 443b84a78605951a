#include "api/sets_priv.h"
#include "api/lists_priv.h"

#include <stdlib.h>
#include <string.h>

static const char *const denied = "set: this token is bound to other sets";

/* Whether a set is one of those that the token is bound to, as they are now. */
static bool is_permitted(const permits *p, const catalogue *c, const router_set *set)
{
    bool found = false;

    for (size_t i = 0; i < p->n && !found; i++) {
        router_set *one = NULL;

        found = catalogue_find_set(c, p->names[i], &one, NULL) == MOE_OK &&
                strcmp(router_set_id(one), router_set_id(set)) == 0;
        router_set_unref(one);
    }
    return found;
}

/* lives: it was found among those that do, and need not be looked for again. */
static moe_status find(const request_scope *scope, const catalogue *c, const char *word, router_set **out, bool *lives,
                       moe_error *err)
{
    /* What runs now may be asked for again by its id, also when nobody else refers to it: a stream that goes on elsewhere. */
    router_set *living = scope->catalogue->find(scope->catalogue->ctx, word);

    *lives = living != NULL;
    if (living != NULL) {
        *out = living;
        return MOE_OK;
    }
    return catalogue_find_set(c, word, out, NULL) == MOE_OK
               ? MOE_OK
               : moe_fail(err, MOE_ERR_NOT_FOUND, "set.id: no such expert set");
}

static moe_status choose(const request_scope *scope, const catalogue *c, const Conclave__V1__ExpertSet *r,
                         router_set **out, bool *lives, moe_error *err)
{
    moe_error why = {""};
    catalogue_expert *without = NULL;
    size_t n_without = 0;

    if (r->n_include > SETS_MAX_WORDS || r->n_exclude > SETS_MAX_WORDS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "set.%s: %zu packs; the limit is %d",
                        r->n_include > SETS_MAX_WORDS ? "include" : "exclude", MOE_MAX(r->n_include, r->n_exclude),
                        SETS_MAX_WORDS);
    }
    if (r->has_id_case != 0) {
        return r->n_include + r->n_exclude + r->n_without > 0
                   ? moe_fail(err, MOE_ERR_INVALID_ARG, "set: id goes with none of include, exclude and without")
                   : find(scope, c, r->id, out, lives, err);
    }
    moe_status status = layer_experts_take(r->without, r->n_without, router_space_n_slots(catalogue_space(c)), &without,
                                           &n_without, &why);
    if (status == MOE_OK) {
        status = catalogue_resolve(c, (const char *const *)r->include, r->n_include, (const char *const *)r->exclude,
                                   r->n_exclude, without, n_without, out, &why);
    }
    free(without);
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "set.%s", why.text);
}

static bool says_nothing(const Conclave__V1__ExpertSet *r)
{
    return r == NULL || (r->has_id_case == 0 && r->n_include + r->n_exclude + r->n_without == 0);
}

moe_status sets_resolve(const request_scope *scope, const Conclave__V1__ExpertSet *r, router_set **out, moe_error *err)
{
    const api_catalogue *from = scope->catalogue;
    const bool bound = scope->permits != NULL && scope->permits->bound;
    router_set *set = NULL;
    bool lives = false;
    moe_status status = MOE_OK;

    *out = NULL;
    if (says_nothing(r) && !bound) {
        return MOE_OK;
    }
    catalogue *c = from->current(from->ctx);
    if (says_nothing(r)) {
        set = router_set_ref(catalogue_default(c));
    } else {
        status = choose(scope, c, r, &set, &lives, err);
    }
    /* The same answer whether there is such a set or not. */
    if (bound && (status == MOE_OK || status == MOE_ERR_NOT_FOUND) &&
        (set == NULL || !is_permitted(scope->permits, c, set))) {
        status = moe_fail(err, MOE_ERR_DENIED, "%s", denied);
    }
    if (status == MOE_OK && lives) {
        *out = router_set_ref(set);
    } else if (status == MOE_OK) {
        status = from->hold(from->ctx, set, out, err);
    }
    router_set_unref(set);
    catalogue_unref(c);
    return status;
}
