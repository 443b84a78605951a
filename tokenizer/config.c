/* tokenizer_config.json; its chat template is chat.c's. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <string.h>

#define PATH "tokenizer_config.json"

static int32_t find_text(const tokenizer *t, const added_list *list, text_view text)
{
    for (size_t i = 0; i < list->n; i++) {
        const text_view content = list->items[i].content;

        if (content.size == text.size && memcmp(content.data, text.data, text.size) == 0) {
            return list->items[i].id;
        }
    }
    return vocab_find(&t->bpe.vocab, text.data, text.size);
}

moe_status load_config_token(const tokenizer *t, const moe_json *json, const added_list *list, const char *key,
                             int32_t *out, moe_error *err)
{
    const json_t *value = json_object_get(json, key);
    const bool is_object = json_is_object(value);
    text_view text;
    moe_status status;

    *out = -1;
    if (!value || json_is_null(value)) {
        return MOE_OK;
    }
    status = is_object ? field_text(value, PATH, "content", NULL, &text, err)
                       : field_text(json, PATH, key, NULL, &text, err);
    if (status == MOE_OK) {
        *out = find_text(t, list, text);
    }
    return status;
}

moe_status load_config_tokens(tokenizer *t, const moe_json *json, const added_list *list, moe_error *err)
{
    static const char *const keys[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    int32_t ids[MOE_COUNT(keys)];

    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        const moe_status status = load_config_token(t, json, list, keys[i], &ids[i], err);

        if (status != MOE_OK) {
            return status;
        }
        if (ids[i] >= 0) {
            t->tokens[ids[i]].flags |= TOKEN_SPECIAL;
        }
    }
    t->config_bos_id = ids[0];
    t->config_eos_id = ids[1];
    return MOE_OK;
}

/* An explicit add_..._token overrules the post-processor at that end; at names the id that would stand there. */
static moe_status load_affix(const json_t *config, const char *key, int32_t id, int32_t *ids, size_t *n, bool front,
                             moe_error *err)
{
    const bool there = *n > 0 && ids[front ? 0 : *n - 1] == id;
    bool wanted;
    const moe_status status = field_bool(config, PATH, key, there, &wanted, err);

    if (status != MOE_OK || wanted == there) {
        return status;
    }
    if (!wanted) {
        *n -= 1;
        memmove(ids, ids + front, *n * sizeof *ids);
        return MOE_OK;
    }
    if (id < 0 || *n == TOKENIZER_MAX_AFFIX) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, PATH ".%s: true, but %s", key,
                        id < 0 ? "the model names no such id" : "too many ids stand there");
    }
    memmove(ids + front, ids, *n * sizeof *ids);
    ids[front ? 0 : *n] = id;
    *n += 1;
    return MOE_OK;
}

moe_status load_config_affixes(tokenizer *t, const moe_json *json, moe_error *err)
{
    const int32_t bos = t->bos_id >= 0 ? t->bos_id : t->config_bos_id,
                  eos = t->eos_id >= 0 ? t->eos_id : t->config_eos_id;
    const moe_status status = load_affix(json, "add_bos_token", bos, t->prefix, &t->n_prefix, true, err);

    return status == MOE_OK ? load_affix(json, "add_eos_token", eos, t->suffix, &t->n_suffix, false, err) : status;
}
