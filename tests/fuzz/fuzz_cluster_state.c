/* Any keys and values as what the store holds: lines of KEY SPACE VALUE, read into a mirror and made into a state,
 * twice, so that the second one is built on the first. After a line `signed` what follows must have the mac of SECRET. Whatever comes out must be answerable. */
#include <stdlib.h>
#include <string.h>

#include "cluster/cluster_priv.h"

#define LAYERS  2
#define EXPERTS 5
#define SECRET  "the secret of a fuzzer"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static cluster_model model = {.family = "olmoe", .numeric_class = "f32-1", .k = 2, .d_model = 16, .expert_bytes = 4096};

static catalogue *base;

/* In every layer the experts 0 .. EXPERTS - 1 and a local one; the catalogues of the corpus add 6 to 9 in the first one. */
static void open_space(void)
{
    catalogue_model m = {.min_experts = 2};

    MOE_ASSERT(router_space_open_base(LAYERS, EXPERTS, 1, &model.space, NULL) == MOE_OK);
    m.space = model.space;
    MOE_ASSERT(catalogue_open(&m, &base, NULL) == MOE_OK);
}

static bool keep(void *ctx, const cluster_node *node)
{
    (void)ctx;
    return node->id[0] % 2 == 0;
}

static void enter(cluster_mirror *m, char *line, uint64_t revision, const cluster_seal *seal)
{
    char *value = strchr(line, ' ');
    cluster_kv kv = {.key = line, .mod_revision = revision, .lease = 1};
    moe_error err;

    if (value == NULL) {
        cluster_mirror_delete(m, line, revision);
        return;
    }
    *value++ = '\0';
    kv.value = value;
    kv.value_bytes = strlen(value);
    (void)!cluster_mirror_put(m, &kv, cluster_key_doubt(&kv, LAYERS, seal));
    if (strcmp(kv.key, "model") == 0) {
        (void)!cluster_check_model(kv.value, kv.value_bytes, &model, &err);
    }
}

static void question(const cluster_state *s)
{
    const uint64_t *told[ROUTER_MAX_NODES];
    router_placement *p = NULL;
    uint64_t *bitmap = calloc(router_space_words(s->space), sizeof *bitmap);
    moe_error err;

    MOE_ASSERT(bitmap != NULL && s->space == catalogue_space(s->catalogue));
    MOE_ASSERT(router_space_continues(s->space, model.space));
    MOE_ASSERT((s->policy.replication == 0) == (s->policy.min_nodes == 0));
    MOE_ASSERT(s->policy.replication <= ROUTER_MAX_NODES && s->policy.min_nodes <= ROUTER_MAX_NODES);
    (void)cluster_state_missing(s, NULL);
    (void)cluster_state_epoch_applied(s, 1);
    cluster_state_settled(s, 1, bitmap);
    cluster_state_covered(s, "a", bitmap);
    for (size_t i = 0; i < s->n_nodes; i++) {
        (void)cluster_state_wanted(s, s->nodes[i].id, bitmap);
        MOE_ASSERT(cluster_state_node(s, s->nodes[i].id) == &s->nodes[i]);
        for (size_t p_idx = 0; p_idx < s->nodes[i].n_packs; p_idx++) {
            MOE_ASSERT(strlen(s->nodes[i].packs[p_idx].hash) == 64 && s->nodes[i].packs[p_idx].name[0] != '\0');
        }
    }
    for (size_t i = 0; i < s->n_coordinators; i++) {
        for (uint32_t n = (uint32_t)s->n_nodes; n < ROUTER_MAX_NODES; n++) {
            MOE_ASSERT(!router_nodes_has(&s->coordinators[i].missed, n));
        }
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        told[i] = s->nodes[i].ready;
    }
    MOE_ASSERT(cluster_state_routing(s, NULL, told, &p, &err) == MOE_OK);
    router_placement_unref(p);
    free(bitmap);
}

static cluster_state_box *build(cluster_mirror *m, const cluster_state_box *previous)
{
    uint64_t ignored = 0;
    const cluster_state_input in = {
        .mirror = m, .model = &model, .first = base, .previous = previous, .keep = keep, .ignored = &ignored};
    cluster_state_box *box = cluster_state_build(&in);

    MOE_ASSERT(box != NULL);
    question(&box->s);
    /* What is in force never goes back, and no number of an expert is given anew. */
    MOE_ASSERT(previous == NULL || router_space_continues(box->s.space, previous->s.space));
    return box;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1), *rest = NULL;
    cluster_mirror m = {0};
    cluster_seal seal = {0};
    uint64_t revision = 1;

    if (text == NULL) {
        return 0;
    }
    moe_log_set_level(MOE_LOG_ERROR);
    if (model.space == NULL) {
        open_space();
    }
    memcpy(text, data, n);
    text[n] = '\0';
    cluster_state_box *first = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (strcmp(line, "--") == 0 && first == NULL) {
            first = build(&m, NULL);
        } else if (strcmp(line, "signed") == 0) {
            MOE_ASSERT(cluster_seal_init(&seal, "fuzz", SECRET, sizeof SECRET - 1) == MOE_OK);
        } else {
            enter(&m, line, ++revision, &seal);
        }
    }
    cluster_state_box *second = build(&m, first);
    cluster_state_release(&second->s);
    cluster_state_release(first != NULL ? &first->s : NULL);
    cluster_mirror_fini(&m);
    free(text);
    return 0;
}
