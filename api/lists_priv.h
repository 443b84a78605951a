/* lists: experts of sets as messages, for replies that have several of them. */
#ifndef CONCLAVE_API_LISTS_PRIV_H
#define CONCLAVE_API_LISTS_PRIV_H

#include "conclave/v1/admin.pb-c.h"
#include "conclave/v1/inference.pb-c.h"
#include "catalogue/catalogue.h"

/* One message per layer that has any. Owned: expert_lists_fini. */
typedef struct expert_lists {
    size_t n;
    Conclave__V1__ExpertList *lists;
    Conclave__V1__ExpertList **pointers; /* [n] */
    int32_t *ids;
} expert_lists;

/* What `set` has and `without`, which may be NULL, has not. False: no memory. */
bool expert_lists_init(expert_lists *l, const router_set *set, const router_set *without);
void expert_lists_fini(expert_lists *l);

/* The lists of a request, one after the other; the limit is the number of all experts that there are. *out is owned. */
MOE_NODISCARD moe_status expert_lists_take(Conclave__V1__ExpertList *const *lists, size_t n_lists, size_t limit,
                                           catalogue_expert **out, size_t *n_out, moe_error *err);
/* The same of a request's set. */
MOE_NODISCARD moe_status layer_experts_take(Conclave__V1__LayerExperts *const *layers, size_t n_layers, size_t limit,
                                            catalogue_expert **out, size_t *n_out, moe_error *err);

#endif
