/* Key: what a key of the store is by its name, and whether a member may have written it. */
#include "cluster/cluster_priv.h"

#include <string.h>

static bool is_in(const char *key, const char *folder)
{
    size_t n = strlen(folder);

    return strncmp(key, folder, n) == 0 && cluster_name_is_valid(key + n);
}

/* placement/0 to placement/{n_layers - 1}, without leading zeros. */
static bool is_layer(const char *key, uint32_t n_layers)
{
    const char *digits = strncmp(key, "placement/", 10) == 0 ? key + 10 : "";
    size_t n = strspn(digits, "0123456789");
    uint32_t layer = 0;

    if (n == 0 || n > 4 || digits[n] != '\0' || (digits[0] == '0' && n > 1)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        layer = layer * 10 + (uint32_t)(digits[i] - '0');
    }
    return layer < n_layers;
}

cluster_key_kind cluster_key_kind_of(const char *key, uint32_t n_layers)
{
    static const struct {
        const char *name;
        cluster_key_kind kind;
    } fixed[] = {{"model", CLUSTER_KEY_LASTING},
                 {"policy", CLUSTER_KEY_LASTING},
                 {"catalogue", CLUSTER_KEY_LASTING},
                 {"placement", CLUSTER_KEY_LASTING},
                 {"controller", CLUSTER_KEY_LEASED}};

    for (size_t i = 0; i < MOE_COUNT(fixed); i++) {
        if (strcmp(key, fixed[i].name) == 0) {
            return fixed[i].kind;
        }
    }
    if (is_in(key, "nodes/") || is_in(key, "ready/") || is_in(key, "coordinators/")) {
        return CLUSTER_KEY_LEASED;
    }
    return is_layer(key, n_layers) ? CLUSTER_KEY_LASTING : CLUSTER_KEY_FOREIGN;
}

const char *cluster_key_doubt(const cluster_kv *kv, uint32_t n_layers, const cluster_seal *seal)
{
    cluster_key_kind kind = cluster_key_kind_of(kv->key, n_layers);

    if (kind == CLUSTER_KEY_FOREIGN) {
        return "it is no key of a cluster";
    }
    if (kind == CLUSTER_KEY_LEASED && kv->lease == 0) {
        return "it has no lease, so no member wrote it";
    }
    if (seal->present && !cluster_seal_holds(seal, kv->key, kv->value, kv->value_bytes)) {
        return cluster_seal_is_there(kv->value, kv->value_bytes) ? "it is signed with another secret, or as another key"
                                                                 : "it is not signed with the cluster's secret";
    }
    return NULL;
}
