/* The texts of etcd's JSON gateway. */
#include "cluster/etcd_priv.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ------------------------------------------------------------------------------------------------ values */
void etcd_put_base64(moe_text *t, const char *bytes, size_t n)
{
    const unsigned char *p = (const unsigned char *)bytes;

    for (size_t i = 0; i < n; i += 3) {
        size_t here = MOE_MIN((size_t)3, n - i);
        unsigned v = (unsigned)p[i] << 16 | (here > 1 ? (unsigned)p[i + 1] << 8 : 0) | (here > 2 ? p[i + 2] : 0);
        const char out[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], here > 1 ? alphabet[v >> 6 & 63] : '=',
                             here > 2 ? alphabet[v & 63] : '='};

        moe_text_append(t, out, 4);
    }
}

static int digit_of(char c)
{
    const char *at = c != '\0' ? strchr(alphabet, c) : NULL;

    return at != NULL ? (int)(at - alphabet) : -1;
}

/* Four characters, the last n_pad of them '='. */
static bool decode_group(const char *text, size_t n_pad, char *out)
{
    unsigned v = 0;

    for (size_t i = 0; i < 4; i++) {
        int digit = i < 4 - n_pad ? digit_of(text[i]) : 0;

        if (digit < 0) {
            return false;
        }
        v = v << 6 | (unsigned)digit;
    }
    for (size_t i = 0; i < 3 - n_pad; i++) {
        out[i] = (char)(unsigned char)(v >> (16 - 8 * i));
    }
    return true;
}

char *etcd_get_base64(const char *text, size_t n, size_t *n_out)
{
    size_t n_pad = n >= 4 ? (size_t)(text[n - 1] == '=') + (text[n - 1] == '=' && text[n - 2] == '=') : 0;
    char *out = n % 4 == 0 ? malloc(n / 4 * 3 + 1) : NULL;

    if (out == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < n; i += 4) {
        if (!decode_group(text + i, i + 4 == n ? n_pad : 0, out + i / 4 * 3)) {
            free(out);
            return NULL;
        }
    }
    *n_out = n / 4 * 3 - n_pad;
    out[*n_out] = '\0';
    return out;
}

bool etcd_get_u64(const moe_json *object, const char *key, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);

    if (value == NULL || json_is_null(value)) {
        *out = 0;
        return true;
    }
    if (json_is_integer(value)) {
        *out = (uint64_t)json_integer_value(value);
        return json_integer_value(value) >= 0;
    }
    const char *digits = json_is_string(value) ? json_string_value(value) : "";
    uint64_t v = 0;
    size_t n = strlen(digits);
    for (size_t i = 0; i < n; i++) {
        if (digits[i] < '0' || digits[i] > '9') {
            return false;
        }
        v = v * 10 + (uint64_t)(digits[i] - '0');
    }
    *out = v;
    return n > 0 && n <= 19;
}

static char *get_bytes(const moe_json *object, const char *key, size_t *n_out)
{
    const json_t *value = json_object_get(object, key);

    if (value == NULL) {
        *n_out = 0;
        return calloc(1, 1);
    }
    return json_is_string(value) ? etcd_get_base64(json_string_value(value), json_string_length(value), n_out) : NULL;
}

void etcd_kv_fini(cluster_kv *kv)
{
    free((void *)(uintptr_t)kv->key);
    free((void *)(uintptr_t)kv->value);
}

/* What any member can print and compare. */
static char *printable(const char *bytes, size_t n)
{
    moe_text t;

    moe_text_init(&t, (size_t)4 * CLUSTER_STORE_MAX_KEY + 1);
    for (size_t i = 0; i < n && t.size < CLUSTER_STORE_MAX_KEY; i++) {
        if (bytes[i] >= 0x20 && bytes[i] < 0x7f && bytes[i] != '\\') {
            moe_text_append(&t, &bytes[i], 1);
        } else {
            moe_text_printf(&t, "\\x%02x", (unsigned)(unsigned char)bytes[i]);
        }
    }
    char *key = t.failed ? NULL : strndup(moe_text_cstr(&t), CLUSTER_STORE_MAX_KEY);
    moe_text_fini(&t);
    return key;
}

moe_status etcd_get_kv(const moe_json *object, cluster_kv *out, moe_error *err)
{
    size_t key_bytes = 0;
    cluster_kv kv = {0};
    char *key = get_bytes(object, "key", &key_bytes);

    kv.value = get_bytes(object, "value", &kv.value_bytes);
    kv.key = key != NULL ? printable(key, key_bytes) : NULL;
    free(key);
    if (kv.key == NULL || kv.value == NULL || key_bytes == 0 ||
        !etcd_get_u64(object, "create_revision", &kv.create_revision) ||
        !etcd_get_u64(object, "mod_revision", &kv.mod_revision) || !etcd_get_u64(object, "lease", &kv.lease)) {
        etcd_kv_fini(&kv);
        return moe_fail(err, MOE_ERR_CORRUPT, "a key is malformed");
    }
    *out = kv;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ requests */
static void put_field(moe_text *t, const char *name, const char *bytes, size_t n)
{
    moe_text_printf(t, "\"%s\":\"", name);
    etcd_put_base64(t, bytes, n);
    moe_text_append(t, "\"", 1);
}

static void write_compare(moe_text *t, const cluster_compare *c)
{
    moe_text_printf(t, "{\"result\":\"EQUAL\",");
    if (c->kind == CLUSTER_COMPARE_CREATE) {
        moe_text_printf(t, "\"target\":\"CREATE\",\"create_revision\":\"%" PRIu64 "\",", c->revision);
    } else {
        moe_text_printf(t, "\"target\":\"MOD\",\"mod_revision\":\"%" PRIu64 "\",", c->revision);
    }
    put_field(t, "key", c->key, strlen(c->key));
    moe_text_append(t, "}", 1);
}

static void write_put(moe_text *t, const cluster_put *p)
{
    moe_text_printf(t, "{\"request_put\":{\"lease\":\"%" PRIu64 "\",", p->lease);
    put_field(t, "key", p->key, strlen(p->key));
    moe_text_append(t, ",", 1);
    put_field(t, "value", p->value, p->value_bytes);
    moe_text_printf(t, "}}");
}

void etcd_write_txn(moe_text *t, const cluster_txn *txn)
{
    moe_text_printf(t, "{\"compare\":[");
    for (size_t i = 0; i < txn->n_compares; i++) {
        moe_text_printf(t, "%s", i > 0 ? "," : "");
        write_compare(t, &txn->compares[i]);
    }
    moe_text_printf(t, "],\"success\":[");
    for (size_t i = 0; i < txn->n_puts; i++) {
        moe_text_printf(t, "%s", i > 0 ? "," : "");
        write_put(t, &txn->puts[i]);
    }
    for (size_t i = 0; i < txn->n_deletes; i++) {
        moe_text_printf(t, "%s{\"request_delete_range\":{", i + txn->n_puts > 0 ? "," : "");
        put_field(t, "key", txn->deletes[i], strlen(txn->deletes[i]));
        moe_text_printf(t, "}}");
    }
    moe_text_printf(t, "]}");
}

/* A key and the end of its range: the prefix with its last byte raised by one (prefixes end in '/'). */
static void write_prefix(moe_text *t, const char *prefix, const char *from, size_t n_from)
{
    size_t n = strlen(prefix);
    char end[CLUSTER_STORE_MAX_KEY + 1];

    MOE_ASSERT(n > 0 && n <= CLUSTER_STORE_MAX_KEY && (unsigned char)prefix[n - 1] < 0x7f);
    memcpy(end, prefix, n);
    end[n - 1]++;
    put_field(t, "key", from, n_from);
    moe_text_append(t, ",", 1);
    put_field(t, "range_end", end, n);
}

/* etcd's order is that of the keys' bytes. */
void etcd_write_range(moe_text *t, const char *prefix, const etcd_range_part *part)
{
    moe_text_append(t, "{", 1);
    write_prefix(t, prefix, part->from, part->n_from);
    if (part->limit != 0) {
        moe_text_printf(t, ",\"limit\":\"%zu\"", part->limit);
    }
    if (part->keys_only) {
        moe_text_printf(t, ",\"keys_only\":true");
    }
    if (part->revision != 0) {
        moe_text_printf(t, ",\"revision\":\"%" PRIu64 "\"", part->revision);
    }
    moe_text_append(t, "}", 1);
}

void etcd_write_watch(moe_text *t, const char *prefix, uint64_t from_revision)
{
    /* fragment: many events at once come in lines of a request's size each, not in one line above the limit. */
    moe_text_printf(t, "{\"create_request\":{\"fragment\":true,\"start_revision\":\"%" PRIu64 "\",", from_revision);
    write_prefix(t, prefix, prefix, strlen(prefix));
    moe_text_printf(t, "}}");
}

void etcd_write_lease(moe_text *t, uint64_t id, uint64_t ttl_s)
{
    if (id != 0) {
        moe_text_printf(t, "{\"ID\":\"%" PRIu64 "\"}", id);
    } else {
        moe_text_printf(t, "{\"TTL\":\"%" PRIu64 "\"}", ttl_s);
    }
}

void etcd_write_login(moe_text *t, const char *user, const char *password)
{
    moe_text_printf(t, "{\"name\":");
    moe_text_json_string(t, user, strlen(user));
    moe_text_printf(t, ",\"password\":");
    moe_text_json_string(t, password, strlen(password));
    moe_text_append(t, "}", 1);
}

/* ------------------------------------------------------------------------------------------------ replies */
void etcd_reply_fini(cluster_reply *reply)
{
    for (size_t i = 0; i < reply->n_kvs; i++) {
        cluster_kv kv = reply->kvs[i];

        etcd_kv_fini(&kv);
    }
    free((void *)(uintptr_t)reply->kvs);
    reply->kvs = NULL;
    reply->n_kvs = 0;
}

static moe_status read_kvs(const json_t *array, cluster_reply *reply, moe_error *err)
{
    size_t n = json_array_size(array);
    cluster_kv *kvs = calloc(n + 1, sizeof *kvs);

    if (kvs == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%zu keys", n);
    }
    reply->kvs = kvs;
    for (size_t i = 0; i < n; i++) {
        moe_status status = etcd_get_kv(json_array_get(array, i), &kvs[i], err);

        if (status != MOE_OK) {
            return status;
        }
        reply->n_kvs++;
    }
    return MOE_OK;
}

static const char *string_at(const moe_json *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

void etcd_rest_fini(etcd_rest *rest)
{
    free(rest->token);
    free(rest->last);
    *rest = (etcd_rest){.more = false};
}

static moe_status read_rest(const moe_json *json, const json_t *kvs, etcd_rest *rest, moe_error *err)
{
    size_t n = json_array_size(kvs);

    if (string_at(json, "token")[0] != '\0') {
        rest->token = strdup(string_at(json, "token"));
    }
    rest->more = json_is_true(json_object_get(json, "more")) && n > 0;
    rest->last = rest->more ? get_bytes(json_array_get(kvs, n - 1), "key", &rest->n_last) : NULL;
    return rest->more && rest->last == NULL ? moe_fail(err, MOE_ERR_NO_MEMORY, "a key") : MOE_OK;
}

static moe_status read_success(const moe_json *body, cluster_reply *reply, etcd_rest *rest, moe_error *err)
{
    /* A keepalive is a stream of which the gateway sends the first message. */
    const json_t *wrapped = json_object_get(body, "result");
    const json_t *json = wrapped != NULL ? wrapped : body;

    if (!json_is_object(json) || !etcd_get_u64(json_object_get(json, "header"), "revision", &reply->revision) ||
        !etcd_get_u64(json, "ID", &reply->lease) || !etcd_get_u64(json, "TTL", &reply->ttl_s)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "etcd's reply has a malformed header");
    }
    reply->succeeded = json_is_true(json_object_get(json, "succeeded"));
    moe_status status = read_kvs(json_object_get(json, "kvs"), reply, err);
    return status == MOE_OK ? read_rest(json, json_object_get(json, "kvs"), rest, err) : status;
}

/* gRPC codes, as far as they say what to do; wrong credentials come as INVALID_ARGUMENT. */
static moe_status status_of(uint64_t code, long http_status, const char *text)
{
    if (strstr(text, "user name") != NULL || strstr(text, "authentication") != NULL ||
        strstr(text, "auth token") != NULL || strstr(text, "auth store") != NULL) {
        return MOE_ERR_DENIED;
    }
    switch (code) {
    case 3:
        return MOE_ERR_INVALID_ARG;
    case 5:
        return MOE_ERR_NOT_FOUND;
    case 7:
    case 16:
        return MOE_ERR_DENIED;
    case 8:
        return MOE_ERR_BUSY;
    default:
        return http_status == 401 || http_status == 403 ? MOE_ERR_DENIED : MOE_ERR_UNAVAILABLE;
    }
}

/* Of a stream the error is an object of its own. */
static void read_failure(const moe_json *json, long http_status, cluster_reply *reply, moe_error *err)
{
    const json_t *inner = json_object_get(json, "error");
    uint64_t code = 0;

    json = json_is_object(inner) ? inner : json;
    const char *text = string_at(json, "message")[0] != '\0' ? string_at(json, "message") : string_at(json, "error");
    (void)etcd_get_u64(json, json == inner ? "grpc_code" : "code", &code);
    reply->status = status_of(code, http_status, text);
    (void)moe_fail(err, reply->status, "etcd: %.200s (HTTP %ld, code %d)", text, http_status, (int)(code & 0xff));
}

moe_status etcd_read_reply(const char *body, size_t bytes, long http_status, cluster_reply *reply, etcd_rest *rest,
                           moe_error *err)
{
    moe_json *json;
    moe_error reason;
    moe_status status = moe_json_parse(body, bytes, ETCD_JSON_DEPTH, &json, &reason);

    *reply = (cluster_reply){0};
    *rest = (etcd_rest){.more = false};
    if (status != MOE_OK && http_status != 200) { /* a proxy's page, or a path that is not there */
        reply->status = MOE_ERR_UNAVAILABLE;
        (void)moe_fail(err, MOE_ERR_UNAVAILABLE, "etcd: HTTP %ld: %.*s", http_status, (int)MOE_MIN(bytes, (size_t)100),
                       body);
        return MOE_OK;
    }
    if (status != MOE_OK) {
        return moe_fail(err, MOE_ERR_CORRUPT, "etcd's reply is no JSON: %s", reason.text);
    }
    if (http_status == 200 && json_object_get(json, "error") == NULL) {
        status = read_success(json, reply, rest, err);
    } else {
        read_failure(json, http_status, reply, err);
    }
    moe_json_free(json);
    if (status != MOE_OK) {
        etcd_reply_fini(reply);
        etcd_rest_fini(rest);
    }
    return status;
}
