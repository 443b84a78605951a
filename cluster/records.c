/* Records: the JSON values of the keys, written and read. docs/etcd.md has the schema. */
#include "cluster/cluster_priv.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#define RECORD_DEPTH 8
#define MAX_NUMBER   ((int64_t)1 << 53)

bool cluster_name_is_valid(const char *name)
{
    size_t n = name != NULL ? strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_") : 0;

    return n > 0 && n <= ROUTER_MAX_NODE_ID && name[n] == '\0';
}

/* ------------------------------------------------------------------------------------------------ reading */
/* Parses, and checks that it is an object with "v": 1. */
static moe_status open_record(const char *value, size_t bytes, moe_json **out, moe_error *err)
{
    moe_json *json;
    int64_t v = 0;
    moe_status status = moe_json_parse(value, bytes, RECORD_DEPTH, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    status = json_is_object(json) ? moe_json_int(json, "v", 1, 1, &v, NULL, err)
                                  : moe_fail(err, MOE_ERR_CORRUPT, "must be an object");
    if (status == MOE_OK && v != 1) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "v: is missing");
    }
    if (status != MOE_OK) {
        moe_json_free(json);
        return status;
    }
    *out = json;
    return MOE_OK;
}

static moe_status need(const char *key, bool found, moe_error *err)
{
    return found ? MOE_OK : moe_fail(err, MOE_ERR_CORRUPT, "%s: is missing", key);
}

/* A whole number of [0, 2^53]; absent: required says whether that is an error, or means 0. */
static moe_status get_number(const moe_json *json, const char *key, int64_t max, bool required, uint64_t *out,
                             moe_error *err)
{
    bool found;
    int64_t v = 0;
    moe_status status = moe_json_int(json, key, 0, max, &v, &found, err);

    if (status == MOE_OK && required) {
        status = need(key, found, err);
    }
    if (status == MOE_OK) {
        *out = (uint64_t)v;
    }
    return status;
}

/* At most `limit` characters into out [limit + 1]; without control characters. */
static moe_status get_text(const moe_json *json, const char *key, size_t limit, bool required, char *out,
                           moe_error *err)
{
    bool found;
    const char *text = "";
    moe_status status = moe_json_string(json, key, &text, &found, err);

    if (status == MOE_OK && required) {
        status = need(key, found, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    size_t n = strlen(text);
    if (n > limit || (required && n == 0)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: %zu characters, limit %zu", key, n, limit);
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s: control character at %zu", key, i);
        }
    }
    memcpy(out, text, n + 1);
    return MOE_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static moe_status get_incarnation(const moe_json *json, uint64_t *out, moe_error *err)
{
    char text[17];
    uint64_t v = 0;
    moe_status status = get_text(json, "incarnation", 16, true, text, err);

    if (status != MOE_OK) {
        return status;
    }
    for (int i = 0; i < 16; i++) {
        int digit = hex_digit(text[i]);

        if (digit < 0) {
            return moe_fail(err, MOE_ERR_CORRUPT, "incarnation: \"%s\" must be 16 hex digits", text);
        }
        v = v << 4 | (uint64_t)digit;
    }
    *out = v;
    return v != 0 ? MOE_OK : moe_fail(err, MOE_ERR_CORRUPT, "incarnation: must not be 0");
}

/* ------------------------------------------------------------------------------------------------ writing */
static void put_text(moe_text *t, const char *key, const char *value)
{
    moe_text_printf(t, ",\"%s\":", key);
    moe_text_json_string(t, value, strlen(value));
}

static void put_number(moe_text *t, const char *key, uint64_t value)
{
    moe_text_printf(t, ",\"%s\":%" PRIu64, key, value);
}

static void put_incarnation(moe_text *t, uint64_t incarnation)
{
    moe_text_printf(t, ",\"incarnation\":\"%016" PRIx64 "\"", incarnation);
}

/* ------------------------------------------------------------------------------------------------ model */
static void fingerprint_hex(const unsigned char fingerprint[32], char hex[65])
{
    for (int i = 0; i < 32; i++) {
        (void)snprintf(hex + (size_t)2 * (size_t)i, 3, "%02x", fingerprint[i]);
    }
}

void cluster_write_model(moe_text *t, const cluster_model *m)
{
    char hex[65];

    fingerprint_hex(m->fingerprint, hex);
    moe_text_printf(t, "{\"v\":1");
    put_text(t, "fingerprint", hex);
    put_text(t, "family", m->family);
    put_text(t, "numeric_class", m->numeric_class);
    put_number(t, "n_layers", m->n_layers);
    put_number(t, "n_experts", m->n_ffn_experts);
    put_number(t, "k", m->k);
    put_number(t, "d_model", m->d_model);
    put_number(t, "expert_bytes", m->expert_bytes);
    moe_text_printf(t, "}");
}

static moe_status compare_text(const moe_json *json, const char *key, const char *mine, moe_error *err)
{
    char theirs[65];
    moe_status status = get_text(json, key, sizeof theirs - 1, true, theirs, err);

    if (status == MOE_OK && strcmp(theirs, mine) != 0) {
        return moe_fail(err, MOE_ERR_DENIED, "the cluster serves another model: %s is %s, ours is %s", key, theirs,
                        mine);
    }
    return status;
}

static moe_status compare_number(const moe_json *json, const char *key, uint64_t mine, moe_error *err)
{
    uint64_t theirs;
    moe_status status = get_number(json, key, MAX_NUMBER, true, &theirs, err);

    if (status == MOE_OK && theirs != mine) {
        return moe_fail(err, MOE_ERR_DENIED, "the cluster serves another model: %s is %" PRIu64 ", ours is %" PRIu64,
                        key, theirs, mine);
    }
    return status;
}

static moe_status compare_model(const moe_json *json, const cluster_model *m, moe_error *err)
{
    char hex[65];
    const struct {
        const char *key;
        uint64_t mine;
    } numbers[] = {{"n_layers", m->n_layers}, {"n_experts", m->n_ffn_experts}, {"k", m->k}, {"d_model", m->d_model}};

    fingerprint_hex(m->fingerprint, hex);
    const struct {
        const char *key, *mine;
    } texts[] = {{"numeric_class", m->numeric_class}, {"family", m->family}, {"fingerprint", hex}};
    moe_status status = MOE_OK;
    for (size_t i = 0; i < MOE_COUNT(texts) && status == MOE_OK; i++) {
        status = compare_text(json, texts[i].key, texts[i].mine, err);
    }
    for (size_t i = 0; i < MOE_COUNT(numbers) && status == MOE_OK; i++) {
        status = compare_number(json, numbers[i].key, numbers[i].mine, err);
    }
    return status;
}

moe_status cluster_check_model(const char *value, size_t bytes, const cluster_model *mine, moe_error *err)
{
    moe_json *json;
    moe_status status = open_record(value, bytes, &json, err);

    if (status == MOE_OK) {
        status = compare_model(json, mine, err);
        moe_json_free(json);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ members */
void cluster_write_node(moe_text *t, const cluster_node *n)
{
    moe_text_printf(t, "{\"v\":1");
    put_incarnation(t, n->incarnation);
    put_text(t, "address", n->address);
    put_text(t, "device", n->device);
    put_text(t, "zone", n->zone);
    put_text(t, "version", n->version);
    put_number(t, "memory_bytes", n->memory_bytes);
    put_number(t, "expert_bytes", n->expert_bytes);
    moe_text_printf(t, ",\"draining\":%s,\"packs\":[]}", n->draining ? "true" : "false");
}

static moe_status read_node(const moe_json *json, cluster_node *n, moe_error *err)
{
    const struct {
        const char *key;
        size_t limit;
        bool required;
        char *out;
    } texts[] = {
        {"address", CLUSTER_MAX_ADDRESS, true, n->address},
        {"device", CLUSTER_MAX_LABEL, false, n->device},
        {"zone", CLUSTER_MAX_LABEL, false, n->zone},
        {"version", CLUSTER_MAX_LABEL, false, n->version},
    };
    moe_status status = get_incarnation(json, &n->incarnation, err);

    for (size_t i = 0; i < MOE_COUNT(texts) && status == MOE_OK; i++) {
        status = get_text(json, texts[i].key, texts[i].limit, texts[i].required, texts[i].out, err);
    }
    if (status == MOE_OK) {
        status = get_number(json, "memory_bytes", MAX_NUMBER, false, &n->memory_bytes, err);
    }
    if (status == MOE_OK) {
        status = get_number(json, "expert_bytes", MAX_NUMBER, true, &n->expert_bytes, err);
    }
    if (status == MOE_OK && n->expert_bytes == 0) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "expert_bytes: must not be 0");
    }
    return status == MOE_OK ? moe_json_bool(json, "draining", &n->draining, NULL, err) : status;
}

moe_status cluster_read_node(const char *value, size_t bytes, cluster_node *out, moe_error *err)
{
    moe_json *json;
    cluster_node node = {0};
    moe_status status = open_record(value, bytes, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    status = read_node(json, &node, err);
    moe_json_free(json);
    if (status == MOE_OK) {
        *out = node;
    }
    return status;
}

void cluster_write_controller(moe_text *t, const char *id, uint64_t incarnation)
{
    moe_text_printf(t, "{\"v\":1");
    put_text(t, "id", id);
    put_incarnation(t, incarnation);
    moe_text_printf(t, "}");
}

moe_status cluster_read_controller(const char *value, size_t bytes, char id[ROUTER_MAX_NODE_ID + 1],
                                   uint64_t *incarnation, moe_error *err)
{
    moe_json *json;
    moe_status status = open_record(value, bytes, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    status = get_text(json, "id", ROUTER_MAX_NODE_ID, true, id, err);
    if (status == MOE_OK) {
        status = get_incarnation(json, incarnation, err);
    }
    moe_json_free(json);
    return status;
}

/* ------------------------------------------------------------------------------------------------ bitmaps
 * Per layer a string of hex digits; digit i holds the experts 4 i (its lowest bit) to 4 i + 3. */
static void put_bitmap(moe_text *t, const char *key, const cluster_model *m, const uint64_t *bitmap)
{
    size_t words = cluster_words(m->n_ffn_experts);

    moe_text_printf(t, ",\"%s\":[", key);
    for (size_t layer = 0; layer < m->n_layers; layer++) {
        moe_text_printf(t, "%s\"", layer > 0 ? "," : "");
        for (size_t i = 0; i < ((size_t)m->n_ffn_experts + 3) / 4; i++) {
            unsigned digit = (unsigned)(bitmap[layer * words + i / 16] >> (i % 16 * 4) & 15);

            moe_text_append(t, &"0123456789abcdef"[digit], 1);
        }
        moe_text_append(t, "\"", 1);
    }
    moe_text_printf(t, "]");
}

static moe_status read_bits(const json_t *text, const char *key, uint32_t n_ffn_experts, uint64_t *bits,
                            uint32_t *n_set, moe_error *err)
{
    const char *digits = json_string_value(text);
    size_t n = ((size_t)n_ffn_experts + 3) / 4;

    if (digits == NULL || json_string_length(text) != n) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: every layer must be a string of %zu hex digits", key, n);
    }
    for (size_t i = 0; i < n; i++) {
        int digit = hex_digit(digits[i]);
        size_t here = MOE_MIN((size_t)4, n_ffn_experts - i * 4);

        if (digit < 0 || digit >> here != 0) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s: digit %zu is no hex digit of %zu experts", key, i, here);
        }
        bits[i / 16] |= (uint64_t)digit << (i % 16 * 4);
        for (int bit = 0; bit < 4; bit++) {
            *n_set += (uint32_t)(digit >> bit & 1);
        }
    }
    return MOE_OK;
}

static moe_status read_bitmap(const moe_json *json, const char *key, const cluster_model *m, uint64_t *bitmap,
                              uint32_t *n_set, moe_error *err)
{
    const json_t *layers = json_object_get(json, key);

    if (!json_is_array(layers) || json_array_size(layers) != m->n_layers) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: must be an array of %u layers", key, m->n_layers);
    }
    *n_set = 0;
    memset(bitmap, 0, m->n_layers * cluster_words(m->n_ffn_experts) * sizeof *bitmap);
    for (size_t layer = 0; layer < m->n_layers; layer++) {
        moe_status status = read_bits(json_array_get(layers, layer), key, m->n_ffn_experts,
                                      bitmap + layer * cluster_words(m->n_ffn_experts), n_set, err);
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ coordinator */
void cluster_write_coordinator(moe_text *t, const cluster_model *m, const cluster_coordinator *c)
{
    moe_text_printf(t, "{\"v\":1");
    put_incarnation(t, c->incarnation);
    put_text(t, "address", c->address);
    put_number(t, "epoch_applied", c->epoch_applied);
    if (c->settled != NULL) {
        put_number(t, "epoch_settled", c->epoch_settled);
        put_bitmap(t, "settled", m, c->settled);
    }
    moe_text_printf(t, "}");
}

moe_status cluster_read_coordinator(const char *value, size_t bytes, const cluster_model *m, uint64_t *bitmap,
                                    cluster_coordinator *out, moe_error *err)
{
    moe_json *json;
    cluster_coordinator c = {0};
    uint32_t n_set;
    moe_status status = open_record(value, bytes, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    status = get_incarnation(json, &c.incarnation, err);
    if (status == MOE_OK) {
        status = get_text(json, "address", CLUSTER_MAX_ADDRESS, true, c.address, err);
    }
    if (status == MOE_OK) {
        status = get_number(json, "epoch_applied", (int64_t)CLUSTER_MAX_EPOCH, false, &c.epoch_applied, err);
    }
    if (status == MOE_OK) {
        status = get_number(json, "epoch_settled", (int64_t)CLUSTER_MAX_EPOCH, false, &c.epoch_settled, err);
    }
    if (status == MOE_OK && c.epoch_settled != 0 && bitmap != NULL) {
        status = read_bitmap(json, "settled", m, bitmap, &n_set, err);
        c.settled = bitmap;
    }
    moe_json_free(json);
    if (status == MOE_OK) {
        *out = c;
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ ready */
void cluster_write_ready(moe_text *t, const cluster_model *m, const cluster_ready_record *r)
{
    moe_text_printf(t, "{\"v\":1");
    put_incarnation(t, r->incarnation);
    put_number(t, "epoch", r->epoch);
    put_bitmap(t, "experts", m, r->bitmap);
    moe_text_printf(t, "}");
}

moe_status cluster_read_ready(const char *value, size_t bytes, const cluster_model *m, cluster_ready_record *out,
                              moe_error *err)
{
    moe_json *json;
    moe_status status = open_record(value, bytes, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    status = get_incarnation(json, &out->incarnation, err);
    if (status == MOE_OK) {
        status = get_number(json, "epoch", (int64_t)CLUSTER_MAX_EPOCH, false, &out->epoch, err);
    }
    if (status == MOE_OK) {
        status = read_bitmap(json, "experts", m, out->bitmap, &out->n_ready, err);
    }
    moe_json_free(json);
    return status;
}

/* ------------------------------------------------------------------------------------------------ policy */
void cluster_write_policy(moe_text *t, const cluster_policy *p)
{
    moe_text_printf(t, "{\"v\":1");
    put_number(t, "replication", p->replication);
    put_number(t, "min_nodes", p->min_nodes);
    moe_text_printf(t, "}");
}

moe_status cluster_check_policy(uint64_t replication, uint64_t min_nodes, moe_error *err)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {{"replication", replication}, {"min_nodes", min_nodes}};

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if (all[i].value < 1 || all[i].value > ROUTER_MAX_NODES) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: %" PRIu64 ", limits 1 and %d", all[i].name, all[i].value,
                            ROUTER_MAX_NODES);
        }
    }
    return MOE_OK;
}

moe_status cluster_read_policy(const char *value, size_t bytes, cluster_policy *out, moe_error *err)
{
    uint64_t replication = 0, min_nodes = 0;
    moe_json *json;
    moe_status status = open_record(value, bytes, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    status = get_number(json, "replication", MAX_NUMBER, true, &replication, err);
    if (status == MOE_OK) {
        status = get_number(json, "min_nodes", MAX_NUMBER, true, &min_nodes, err);
    }
    if (status == MOE_OK) {
        status = cluster_check_policy(replication, min_nodes, err);
    }
    if (status == MOE_OK) {
        *out = (cluster_policy){.replication = (uint32_t)replication, .min_nodes = (uint32_t)min_nodes};
    }
    moe_json_free(json);
    return status;
}

/* ------------------------------------------------------------------------------------------------ placement */
void cluster_write_placement(moe_text *t, const router_placement *p, uint32_t replication)
{
    moe_text_printf(t, "{\"v\":1");
    put_number(t, "epoch", router_placement_epoch(p));
    put_number(t, "replication", replication);
    put_number(t, "n_layers", router_placement_n_layers(p));
    put_number(t, "n_experts", router_placement_n_experts_max(p));
    moe_text_printf(t, ",\"nodes\":[");
    for (size_t i = 0; i < router_placement_n_nodes(p); i++) {
        moe_text_printf(t, "%s\"%s\"", i > 0 ? "," : "", router_placement_node_id(p, i));
    }
    moe_text_printf(t, "]}");
}

static moe_status read_placement(const moe_json *json, const cluster_model *m, cluster_placement_record *r,
                                 moe_error *err)
{
    const json_t *nodes = json_object_get(json, "nodes");
    uint64_t n_layers = 0, n_experts = 0, replication = 0;
    moe_status status = get_number(json, "epoch", (int64_t)CLUSTER_MAX_EPOCH, true, &r->epoch, err);

    if (status == MOE_OK) {
        status = get_number(json, "replication", ROUTER_MAX_NODES, true, &replication, err);
    }
    if (status == MOE_OK) {
        status = get_number(json, "n_layers", CLUSTER_MAX_LAYERS, true, &n_layers, err);
    }
    if (status == MOE_OK) {
        status = get_number(json, "n_experts", CLUSTER_MAX_EXPERTS, true, &n_experts, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (r->epoch == 0 || n_layers != m->n_layers || n_experts != m->n_ffn_experts || !json_is_array(nodes) ||
        json_array_size(nodes) > ROUTER_MAX_NODES) {
        return moe_fail(err, MOE_ERR_CORRUPT, "must have an epoch, %u layers, %u experts and at most %d nodes",
                        m->n_layers, m->n_ffn_experts, ROUTER_MAX_NODES);
    }
    r->replication = (uint32_t)replication;
    r->n_nodes = json_array_size(nodes);
    for (size_t i = 0; i < r->n_nodes; i++) {
        const char *id = json_string_value(json_array_get(nodes, i));

        if (!cluster_name_is_valid(id)) {
            return moe_fail(err, MOE_ERR_CORRUPT, "nodes: entry %zu is no id", i);
        }
        memcpy(r->nodes[i], id, strlen(id) + 1);
    }
    return MOE_OK;
}

moe_status cluster_read_placement(const char *value, size_t bytes, const cluster_model *m,
                                  cluster_placement_record *out, moe_error *err)
{
    moe_json *json;
    moe_status status = open_record(value, bytes, &json, err);

    if (status == MOE_OK) {
        status = read_placement(json, m, out, err);
        moe_json_free(json);
    }
    return status;
}

void cluster_write_layer(moe_text *t, const router_placement *p, uint32_t layer)
{
    moe_text_printf(t, "{\"v\":1,\"epoch\":%" PRIu64 ",\"experts\":[", router_placement_epoch(p));
    for (uint32_t e = 0; e < router_placement_n_experts_max(p); e++) {
        size_t n;
        const uint32_t *nodes = router_placement_replicas(p, layer, (int32_t)e, &n);

        moe_text_printf(t, "%s[", e > 0 ? "," : "");
        for (size_t i = 0; i < n; i++) {
            moe_text_printf(t, "%s%u", i > 0 ? "," : "", nodes[i]);
        }
        moe_text_printf(t, "]");
    }
    moe_text_printf(t, "]}");
}

moe_status cluster_read_layer_epoch(const char *value, size_t bytes, uint64_t *epoch, moe_error *err)
{
    moe_json *json;
    moe_status status = open_record(value, bytes, &json, err);

    if (status == MOE_OK) {
        status = get_number(json, "epoch", (int64_t)CLUSTER_MAX_EPOCH, true, epoch, err);
        moe_json_free(json);
    }
    return status;
}

static moe_status read_owners(const json_t *owners, router_replica replica, size_t n_nodes, router_replica *replicas,
                              size_t capacity, size_t *n, moe_error *err)
{
    if (!json_is_array(owners) || json_array_size(owners) > n_nodes || json_array_size(owners) > capacity - *n) {
        return moe_fail(err, MOE_ERR_CORRUPT, "experts: expert %d must be an array of at most %zu nodes",
                        replica.expert_id, n_nodes);
    }
    for (size_t i = 0; i < json_array_size(owners); i++) {
        const json_t *node = json_array_get(owners, i);

        if (!json_is_integer(node) || json_integer_value(node) < 0 || (uint64_t)json_integer_value(node) >= n_nodes) {
            return moe_fail(err, MOE_ERR_CORRUPT, "experts: expert %d: no such node, limit %zu", replica.expert_id,
                            n_nodes);
        }
        replica.node = (uint32_t)json_integer_value(node);
        replicas[(*n)++] = replica;
    }
    return MOE_OK;
}

moe_status cluster_read_layer(const char *value, size_t bytes, uint32_t layer, uint32_t n_ffn_experts, size_t n_nodes,
                              router_replica *replicas, size_t capacity, size_t *n, moe_error *err)
{
    moe_json *json;
    moe_status status = open_record(value, bytes, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    const json_t *experts = json_object_get(json, "experts");
    if (!json_is_array(experts) || json_array_size(experts) != n_ffn_experts) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "experts: must be an array of %u", n_ffn_experts);
    }
    for (uint32_t e = 0; e < n_ffn_experts && status == MOE_OK; e++) {
        status = read_owners(json_array_get(experts, e), (router_replica){layer, (int32_t)e, 0, false}, n_nodes,
                             replicas, capacity, n, err);
    }
    moe_json_free(json);
    return status;
}
