/* How many tokens a context may have: positions that the model was made for, and a window that attention must not
 * meet. */
#include "model/config_keys.h"

#include <jansson.h>
#include <string.h>

static moe_status check_layer_types(const moe_json *json, moe_error *err)
{
    const json_t *types = json_object_get(json, "layer_types");

    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));

        if (type == NULL || (strcmp(type, "full_attention") != 0 && strcmp(type, "sliding_attention") != 0)) {
            return moe_fail(
                err, MOE_ERR_UNSUPPORTED,
                "layer_types: \"%.64s\" is not supported, only \"full_attention\" and \"sliding_attention\"",
                type == NULL ? "" : type);
        }
    }
    return MOE_OK;
}

moe_status model_config_window(const moe_json *json, model_config *c, bool used, int64_t width, moe_error *err)
{
    const json_t *window = json_object_get(json, "sliding_window");
    moe_status status = moe_json_bool(json, "use_sliding_window", &used, NULL, err);

    width = window == NULL ? width : INT64_MAX;
    if (status == MOE_OK) {
        status = moe_json_int(json, "sliding_window", used ? 1 : INT64_MIN, INT64_MAX, &width, NULL, err);
    }
    c->window = status == MOE_OK && used ? (uint32_t)MOE_MIN(width, (int64_t)MODEL_NO_WINDOW) : MODEL_NO_WINDOW;
    return status == MOE_OK ? check_layer_types(json, err) : status;
}

moe_status model_config_any_window(const moe_json *json, model_config *c, moe_error *err)
{
    return model_config_window(json, c, true, MODEL_NO_WINDOW, err);
}

moe_status model_config_context(const model_config *c, uint32_t wanted, uint32_t *out, moe_error *err)
{
    uint32_t context = wanted != 0 ? wanted : c->max_positions;

    if (c->positions_are_a_limit && context > c->max_positions) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%u: at most %s, %u", context, c->positions_by, c->max_positions);
    }
    if (context > c->window) {
        return moe_fail(
            err, MOE_ERR_UNSUPPORTED,
            "sliding_window %u: shorter than the context, %u, which is not supported; a context of at most %u never "
            "meets it (--max-context)",
            c->window, context, c->window);
    }
    *out = context;
    return MOE_OK;
}
