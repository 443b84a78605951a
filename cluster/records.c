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
    put_number(t, "n_layers", router_space_n_layers(m->space));
    put_number(t, "n_experts", router_space_base_experts(m->space));
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
    } numbers[] = {{"n_layers", router_space_n_layers(m->space)},
                   {"n_experts", router_space_base_experts(m->space)},
                   {"k", m->k},
                   {"d_model", m->d_model}};

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
/* What a member cannot do for a change, and why. */
static void put_failure(moe_text *t, uint64_t failed, const char *why)
{
    if (failed != 0) {
        put_number(t, "failed", failed);
        put_text(t, "why", why);
    }
}

static moe_status get_failure(const moe_json *json, uint64_t *failed, char why[CATALOGUE_MAX_WHY + 1], moe_error *err)
{
    moe_status status = get_number(json, "failed", MAX_NUMBER, false, failed, err);

    return status == MOE_OK ? get_text(json, "why", CATALOGUE_MAX_WHY, false, why, err) : status;
}

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
    put_failure(t, n->failed, n->why);
    moe_text_printf(t, ",\"draining\":%s,\"packs\":[", n->draining ? "true" : "false");
    for (size_t i = 0; i < n->n_packs; i++) {
        moe_text_printf(t, "%s{\"hash\":\"%s\"", i > 0 ? "," : "", n->packs[i].hash);
        put_text(t, "name", n->packs[i].name);
        put_text(t, "version", n->packs[i].version);
        moe_text_printf(t, "}");
    }
    moe_text_printf(t, "]}");
}

static moe_status read_pack(const moe_json *json, cluster_pack *p, moe_error *err)
{
    moe_status status = get_text(json, "hash", sizeof p->hash - 1, true, p->hash, err);

    if (status == MOE_OK && (strspn(p->hash, "0123456789abcdef") != 64 || p->hash[64] != '\0')) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "packs: a hash must be 64 hex digits");
    }
    if (status == MOE_OK) {
        status = get_text(json, "name", CATALOGUE_MAX_NAME, true, p->name, err);
    }
    return status == MOE_OK ? get_text(json, "version", CATALOGUE_MAX_NAME, true, p->version, err) : status;
}

/* What a node offers; of more than the limit, the first. */
static moe_status read_packs(const moe_json *json, cluster_pack *packs, cluster_node *n, moe_error *err)
{
    const json_t *list = json_object_get(json, "packs");

    n->packs = packs;
    for (size_t i = 0; i < json_array_size(list) && i < CLUSTER_MAX_PACKS; i++) {
        moe_status status = read_pack(json_array_get(list, i), &packs[i], err);

        if (status != MOE_OK) {
            return status;
        }
        n->n_packs++;
    }
    return MOE_OK;
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
    if (status == MOE_OK) {
        status = get_failure(json, &n->failed, n->why, err);
    }
    return status == MOE_OK ? moe_json_bool(json, "draining", &n->draining, NULL, err) : status;
}

moe_status cluster_read_node(const char *value, size_t bytes, cluster_pack *packs, cluster_node *out, moe_error *err)
{
    moe_json *json;
    cluster_node node = {0};
    moe_status status = open_record(value, bytes, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    status = read_node(json, &node, err);
    if (status == MOE_OK && packs != NULL) {
        status = read_packs(json, packs, &node, err);
    }
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

/* ------------------------------------------------------------------------------------------------ names */
static void put_names(moe_text *t, const char *key, const cluster_ids *ids)
{
    moe_text_printf(t, ",\"%s\":[", key);
    for (size_t i = 0; i < ids->n; i++) {
        moe_text_printf(t, "%s\"%s\"", i > 0 ? "," : "", ids->at[i]);
    }
    moe_text_printf(t, "]");
}

static moe_status read_names(const moe_json *json, const char *key, cluster_ids *out, moe_error *err)
{
    const json_t *ids = json_object_get(json, key);

    if (!json_is_array(ids) || json_array_size(ids) > ROUTER_MAX_NODES) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: must be an array of at most %d ids", key, ROUTER_MAX_NODES);
    }
    out->n = json_array_size(ids);
    for (size_t i = 0; i < out->n; i++) {
        const char *id = json_string_value(json_array_get(ids, i));

        if (!cluster_name_is_valid(id)) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s: entry %zu is no id", key, i);
        }
        memcpy(out->at[i], id, strlen(id) + 1);
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ coordinator */
void cluster_write_coordinator(moe_text *t, const router_space *of_settled, const router_space *of_used,
                               const cluster_coordinator *c, const cluster_ids *missed)
{
    moe_text_printf(t, "{\"v\":1");
    put_incarnation(t, c->incarnation);
    put_text(t, "address", c->address);
    put_number(t, "epoch_applied", c->epoch_applied);
    if (c->settled != NULL) {
        put_number(t, "epoch_settled", c->epoch_settled);
        cluster_put_bitmap(t, "settled", of_settled, c->settled);
    }
    if (c->used != NULL) {
        cluster_put_bitmap(t, "used", of_used, c->used);
    }
    if (missed->n > 0) {
        put_names(t, "missed", missed);
    }
    if (c->prepared != 0) {
        put_number(t, "prepared", c->prepared);
    }
    put_failure(t, c->failed, c->why);
    moe_text_printf(t, "}");
}

moe_status cluster_read_coordinator(const char *value, size_t bytes, const router_space *space, uint64_t *bitmaps,
                                    cluster_ids *missed, cluster_coordinator *out, moe_error *err)
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
    if (status == MOE_OK) {
        status = get_number(json, "prepared", MAX_NUMBER, false, &c.prepared, err);
    }
    if (status == MOE_OK) {
        status = get_failure(json, &c.failed, c.why, err);
    }
    if (status == MOE_OK && c.epoch_settled != 0 && bitmaps != NULL) {
        status = cluster_read_bitmap(json, "settled", space, bitmaps, &n_set, err);
        c.settled = bitmaps;
    }
    if (status == MOE_OK && bitmaps != NULL && json_object_get(json, "used") != NULL) {
        uint64_t *used = bitmaps + router_space_words(space);

        status = cluster_read_bitmap(json, "used", space, used, &n_set, err);
        c.used = used;
    }
    if (missed != NULL) {
        missed->n = 0;
    }
    if (status == MOE_OK && missed != NULL && json_object_get(json, "missed") != NULL) {
        status = read_names(json, "missed", missed, err);
    }
    moe_json_free(json);
    if (status == MOE_OK) {
        *out = c;
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ ready */
void cluster_write_ready(moe_text *t, const router_space *space, const cluster_ready_record *r)
{
    moe_text_printf(t, "{\"v\":1");
    put_incarnation(t, r->incarnation);
    put_number(t, "epoch", r->epoch);
    cluster_put_bitmap(t, "experts", space, r->bitmap);
    moe_text_printf(t, "}");
}

moe_status cluster_read_ready(const char *value, size_t bytes, const router_space *space, cluster_ready_record *out,
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
        status = cluster_read_bitmap(json, "experts", space, out->bitmap, &out->n_ready, err);
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
    put_number(t, "n_layers", router_space_n_layers(router_placement_space(p)));
    moe_text_printf(t, ",\"nodes\":[");
    for (size_t i = 0; i < router_placement_n_nodes(p); i++) {
        moe_text_printf(t, "%s\"%s\"", i > 0 ? "," : "", router_placement_node_id(p, i));
    }
    moe_text_printf(t, "]}");
}

static moe_status read_placement(const moe_json *json, const cluster_model *m, cluster_placement_record *r,
                                 moe_error *err)
{
    uint64_t n_layers = 0, replication = 0;
    moe_status status = get_number(json, "epoch", (int64_t)CLUSTER_MAX_EPOCH, true, &r->epoch, err);

    if (status == MOE_OK) {
        status = get_number(json, "replication", ROUTER_MAX_NODES, true, &replication, err);
    }
    if (status == MOE_OK) {
        status = get_number(json, "n_layers", CLUSTER_MAX_LAYERS, true, &n_layers, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (r->epoch == 0 || n_layers != router_space_n_layers(m->space)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "must have an epoch and %u layers", router_space_n_layers(m->space));
    }
    r->replication = (uint32_t)replication;
    return read_names(json, "nodes", &r->nodes, err);
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

/* Of the experts with the same owners as the one at `slot`, the first one is written. */
typedef struct owners_like {
    const router_placement *p;
    uint32_t slot;
} owners_like;

static bool has_owners_like(const void *ctx, uint32_t slot)
{
    const owners_like *like = ctx;
    size_t n, n_like;
    const uint32_t *nodes = router_placement_owners(like->p, slot, &n);
    const uint32_t *of_like = router_placement_owners(like->p, like->slot, &n_like);

    return n == n_like && memcmp(nodes, of_like, n * sizeof *nodes) == 0;
}

static bool is_first_of_its_like(const router_placement *p, const router_space_layer *layer, uint32_t place)
{
    const owners_like like = {p, layer->slots[place]};

    for (uint32_t i = 0; i < place; i++) {
        if (has_owners_like(&like, layer->slots[i])) {
            return false;
        }
    }
    return true;
}

static void put_owners(moe_text *t, const router_placement *p, const router_space_layer *layer, uint32_t place)
{
    const owners_like like = {p, layer->slots[place]};
    size_t n;
    const uint32_t *nodes = router_placement_owners(p, like.slot, &n);

    moe_text_printf(t, "{\"experts\":");
    cluster_put_experts(t, layer, has_owners_like, &like);
    moe_text_printf(t, ",\"nodes\":[");
    for (size_t i = 0; i < n; i++) {
        moe_text_printf(t, "%s%u", i > 0 ? "," : "", nodes[i]);
    }
    moe_text_printf(t, "]}");
}

void cluster_write_layer(moe_text *t, const router_placement *p, uint32_t layer)
{
    const router_space_layer *experts = router_space_at(router_placement_space(p), layer);
    const char *before = "";
    size_t n;

    moe_text_printf(t, "{\"v\":1,\"epoch\":%" PRIu64 ",\"owners\":[", router_placement_epoch(p));
    for (uint32_t i = 0; i < experts->n_experts; i++) {
        (void)router_placement_owners(p, experts->slots[i], &n);
        if (n > 0 && is_first_of_its_like(p, experts, i)) {
            moe_text_printf(t, "%s", before);
            put_owners(t, p, experts, i);
            before = ",";
        }
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

/* What is read of one entry of `owners`: its nodes, then a replica on each of them of every expert. */
typedef struct owners_entry {
    const router_space *space;
    uint32_t nodes[ROUTER_MAX_NODES];
    size_t n_nodes;
    router_replica *replicas; /* [capacity], *n used */
    size_t capacity, *n;
} owners_entry;

static bool add_replicas(void *ctx, uint32_t slot)
{
    owners_entry *e = ctx;
    const router_expert *expert = router_space_expert(e->space, slot);

    if (expert->is_local || e->n_nodes > e->capacity - *e->n) {
        return false;
    }
    for (size_t i = 0; i < e->n_nodes; i++) {
        e->replicas[(*e->n)++] = (router_replica){.layer = expert->layer, .expert_id = expert->id, .node = e->nodes[i]};
    }
    return true;
}

static moe_status read_nodes(const json_t *nodes, size_t limit, owners_entry *e, moe_error *err)
{
    if (!json_is_array(nodes) || json_array_size(nodes) == 0 || json_array_size(nodes) > limit) {
        return moe_fail(err, MOE_ERR_CORRUPT, "owners: nodes must be an array of 1 to %zu", limit);
    }
    e->n_nodes = json_array_size(nodes);
    for (size_t i = 0; i < e->n_nodes; i++) {
        const json_t *node = json_array_get(nodes, i);

        if (!json_is_integer(node) || json_integer_value(node) < 0 || (uint64_t)json_integer_value(node) >= limit) {
            return moe_fail(err, MOE_ERR_CORRUPT, "owners: no such node, limit %zu", limit);
        }
        e->nodes[i] = (uint32_t)json_integer_value(node);
    }
    return MOE_OK;
}

moe_status cluster_read_layer(const char *value, size_t bytes, uint32_t layer, const router_space *space,
                              size_t n_nodes, router_replica *replicas, size_t capacity, size_t *n, moe_error *err)
{
    const router_space_layer *experts = router_space_at(space, layer);
    owners_entry e = {.space = space, .replicas = replicas, .capacity = capacity, .n = n};
    moe_json *json;
    moe_status status = open_record(value, bytes, &json, err);

    if (status != MOE_OK) {
        return status;
    }
    const json_t *owners = json_object_get(json, "owners");
    if (!json_is_array(owners) || json_array_size(owners) > experts->n_experts) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "owners: must be an array of at most %u", experts->n_experts);
    }
    for (size_t i = 0; status == MOE_OK && i < json_array_size(owners); i++) {
        const json_t *entry = json_array_get(owners, i);

        status = read_nodes(json_object_get(entry, "nodes"), n_nodes, &e, err);
        if (status == MOE_OK) {
            status = cluster_read_experts(json_object_get(entry, "experts"), "owners", experts, add_replicas, &e, err);
        }
    }
    moe_json_free(json);
    return status;
}
