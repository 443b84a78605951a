/* The small files: config.json with the new counts, and which experts are routed to. */
#include "export/export_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES (1u << 20)
#define MAX_DEPTH        32
#define MAX_PATH         4096

/* Keys that count the experts of a layer, by family; one that is there is changed. */
static const char *const count_keys[] = {"num_experts", "num_local_experts", "n_mlp_experts"};

static bool reads(const model_family *family, const char *key)
{
    for (const char *const *known = family->keys; *known != NULL; known++) {
        if (strcmp(*known, key) == 0) {
            return true;
        }
    }
    return false;
}

/* A list stays one: MoE++'s class reads its first. */
static bool set_count(json_t *json, const char *key, uint32_t n)
{
    json_t *value = json_integer((json_int_t)n);

    if (json_is_array(json_object_get(json, key))) {
        json_t *list = json_array();

        (void)json_array_append_new(list, value);
        value = list;
    }
    return json_object_set_new(json, key, value) == 0;
}

static bool set_counts(const exporting *x, json_t *json)
{
    const model_family *family = x->config.family;
    const char *missing = NULL;
    bool any = false, done = true;

    for (size_t i = 0; i < MOE_COUNT(count_keys); i++) {
        if (!reads(family, count_keys[i])) {
            continue;
        }
        missing = missing == NULL ? count_keys[i] : missing;
        if (json_object_get(json, count_keys[i]) != NULL) {
            any = true;
            done &= set_count(json, count_keys[i], x->config.n_experts);
        }
    }
    return done && (any || set_count(json, missing, x->config.n_experts));
}

static bool change(const exporting *x, json_t *json)
{
    bool done = set_counts(x, json);

    if (x->config.n_att_experts != x->model.config.n_att_experts) {
        done &= json_object_set_new(json, "n_att_experts", json_integer((json_int_t)x->config.n_att_experts)) == 0;
    }
    if (x->hushed) {
        done &= json_object_set_new(json, "gating_size", json_integer((json_int_t)x->config.gate_width)) == 0;
    }
    if (x->o->dtype != COMPUTE_DTYPE_OTHER) {
        const char *key = json_object_get(json, "dtype") != NULL ? "dtype" : "torch_dtype";
        done &= json_object_set_new(json, key, json_string(x->o->dtype == COMPUTE_BF16 ? "bfloat16" : "float32")) == 0;
    }
    return done;
}

static moe_status read_config(const exporting *x, moe_json **out)
{
    char path[MAX_PATH], *text;
    size_t n;
    int length = snprintf(path, sizeof path, "%s/config.json", x->o->model);

    if (length < 0 || (size_t)length >= sizeof path) {
        return moe_fail(x->err, MOE_ERR_INVALID_ARG, "path of config.json: longer than %d bytes", MAX_PATH - 1);
    }
    moe_status status = moe_file_read(path, MAX_CONFIG_BYTES, &text, &n, x->err);
    if (status == MOE_OK) {
        status = moe_json_parse_python(text, n, MAX_DEPTH, out, x->err);
        free(text);
    }
    return status;
}

moe_status export_write_config(exporting *x)
{
    moe_json *json = NULL;
    moe_status status = read_config(x, &json);

    if (status != MOE_OK) {
        return status;
    }
    char *text = change(x, json) ? json_dumps(json, JSON_INDENT(2)) : NULL;
    status = text != NULL ? output_write_file(&x->out, "config.json", text, strlen(text), x->err)
                          : moe_fail(x->err, MOE_ERR_NO_MEMORY, "config.json: out of memory");
    x->result.n_copied++;
    free(text);
    moe_json_free(json);
    return status;
}

/* ------------------------------------------------------------------------------------------------ the set */
static void put_layer(const exporting *x, uint32_t layer, moe_text *out)
{
    const export_column *columns = export_columns(x, layer);
    uint32_t n = x->config.n_experts;
    const char *before = "";

    moe_text_printf(out, "%s\"", layer > 0 ? ",\n" : "\n");
    for (uint32_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && columns[end].routable == columns[i].routable; end++) {
        }
        if (columns[i].routable) {
            moe_text_printf(out, end - i > 1 ? "%s%u-%u" : "%s%u", before, i, end - 1);
            before = ",";
        }
    }
    moe_text_printf(out, "\"");
}

moe_status export_write_set(exporting *x)
{
    moe_text text;
    moe_status status;

    moe_text_init(&text, CATALOGUE_MAX_TEXT);
    moe_text_printf(&text, "{\"layers\":[");
    for (uint32_t layer = 0; layer < x->config.n_layers; layer++) {
        put_layer(x, layer, &text);
    }
    moe_text_printf(&text, "\n]}\n");
    status = text.failed ? moe_fail(x->err, MOE_ERR_NO_MEMORY, CATALOGUE_OWN_FILE ": out of memory")
                         : output_write_file(&x->out, CATALOGUE_OWN_FILE, text.data, text.size, x->err);
    moe_text_fini(&text);
    return status;
}
