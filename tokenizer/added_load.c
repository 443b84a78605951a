/* Added tokens as files list them: checked, then turned into texts, flags and the sets that are matched. */
#include "tokenizer/tokenizer_priv.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static moe_status item_load(const json_t *json, const char *path, added_item *item, moe_error *err)
{
    const struct {
        const char *key;
        bool *out;
    } flags[] = {{"special", &item->special}, /* first: normalized defaults to its opposite */
                 {"single_word", &item->single_word},
                 {"lstrip", &item->lstrip},
                 {"rstrip", &item->rstrip},
                 {"normalized", &item->normalized}};
    moe_status status;

    if (!json_is_object(json)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: not an object", path);
    }
    status = field_text(json, path, "content", NULL, &item->content, err);
    if (status == MOE_OK && item->content.size == 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.content: empty", path);
    }
    for (size_t i = 0; i < MOE_COUNT(flags) && status == MOE_OK; i++) {
        const bool fallback = flags[i].out == &item->normalized && !item->special;

        status = field_bool(json, path, flags[i].key, fallback, flags[i].out, err);
    }
    return status;
}

static int by_id(const void *a, const void *b)
{
    const added_item *left = a, *right = b;

    return left->id < right->id ? -1 : left->id > right->id;
}

static moe_status items_load(const tokenizer *t, const json_t *json, added_list *list, moe_error *err)
{
    for (size_t i = 0; i < json_array_size(json); i++) {
        added_item *item = &list->items[list->n];
        char path[64], id_path[72];
        moe_status status;

        snprintf(path, sizeof path, "tokenizer.json: added_tokens[%zu]", i);
        snprintf(id_path, sizeof id_path, "%s.id", path);
        status = item_load(json_array_get(json, i), path, item, err);
        if (status == MOE_OK) {
            status = field_id(t, json_object_get(json_array_get(json, i), "id"), id_path, &item->id, err);
        }
        if (status != MOE_OK) {
            return status;
        }
        list->n++;
    }
    if (list->n > 0) {
        qsort(list->items, list->n, sizeof *list->items, by_id);
    }
    for (size_t i = 1; i < list->n; i++) {
        if (list->items[i].id == list->items[i - 1].id) {
            return moe_fail(err, MOE_ERR_CORRUPT, "tokenizer.json: added_tokens: id %d twice", (int)list->items[i].id);
        }
    }
    return MOE_OK;
}

static added_item *item_find(added_item *items, size_t n, int32_t id)
{
    const added_item key = {.id = id};

    return n > 0 ? bsearch(&key, items, n, sizeof key, by_id) : NULL;
}

static moe_status config_id(const tokenizer *t, const char *key, int32_t *out, moe_error *err)
{
    char *end;
    unsigned long id;

    errno = 0;
    id = strtoul(key, &end, 10);
    if (key[0] < '0' || key[0] > '9' || *end != '\0' || errno != 0 || id >= t->vocab_size) {
        return moe_fail(err, MOE_ERR_CORRUPT,
                        "tokenizer_config.json: added_tokens_decoder[\"%.32s\"]: not an id in [0, %zu)", key,
                        t->vocab_size);
    }
    *out = (int32_t)id;
    return MOE_OK;
}

/* tokenizer_config.json may call a token special, or add one that tokenizer.json lacks; it may not give
 * an id new text. */
static moe_status config_items_load(const tokenizer *t, json_t *json, added_list *list, moe_error *err)
{
    const size_t n_known = list->n;

    for (void *i = json_object_iter(json); i; i = json_object_iter_next(json, i)) {
        added_item *item = &list->items[list->n], *known;
        char path[96];
        moe_status status;

        snprintf(path, sizeof path, "tokenizer_config.json: added_tokens_decoder[\"%.32s\"]", json_object_iter_key(i));
        status = config_id(t, json_object_iter_key(i), &item->id, err);
        if (status == MOE_OK) {
            status = item_load(json_object_iter_value(i), path, item, err);
        }
        if (status != MOE_OK) {
            return status;
        }
        known = item_find(list->items, n_known, item->id);
        if (known && (known->content.size != item->content.size ||
                      memcmp(known->content.data, item->content.data, item->content.size) != 0)) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s.content: \"%.64s\", but tokenizer.json says \"%.64s\"", path,
                            item->content.data, known->content.data);
        }
        if (known) {
            known->special |= item->special;
        }
        list->n += !known;
    }
    if (list->n > 0) {
        qsort(list->items, list->n, sizeof *list->items, by_id);
    }
    for (size_t i = 1; i < list->n; i++) { /* "1" and "01" */
        if (list->items[i].id == list->items[i - 1].id) {
            return moe_fail(err, MOE_ERR_CORRUPT, "tokenizer_config.json: added_tokens_decoder: id %d twice",
                            (int)list->items[i].id);
        }
    }
    return MOE_OK;
}

moe_status added_list_load(const tokenizer *t, const moe_json *json, const moe_json *config, added_list *list,
                           moe_error *err)
{
    const json_t *tokens = json_object_get(json, "added_tokens");
    json_t *more = json_object_get(config, "added_tokens_decoder");
    const size_t n = json_array_size(tokens) + json_object_size(more);
    moe_status status;

    if (tokens && !json_is_null(tokens) && !json_is_array(tokens)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "tokenizer.json: added_tokens: not an array");
    }
    if (more && !json_is_null(more) && !json_is_object(more)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "tokenizer_config.json: added_tokens_decoder: not an object");
    }
    if (n > TOKENIZER_MAX_VOCAB) {
        return moe_fail(err, MOE_ERR_CORRUPT, "added tokens: %zu, limit %zu", n, TOKENIZER_MAX_VOCAB);
    }
    list->items = calloc(n + 1, sizeof *list->items);
    if (!list->items) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "added tokens: no memory for %zu", n);
    }
    status = items_load(t, tokens, list, err);
    return status == MOE_OK ? config_items_load(t, more, list, err) : status;
}

moe_status added_list_apply(tokenizer *t, const added_list *list, moe_error *err)
{
    size_t bytes = 0, used = 0;

    for (size_t i = 0; i < list->n; i++) {
        bytes += list->items[i].content.size;
    }
    t->added_text = malloc(bytes + 1);
    if (!t->added_text) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "added tokens: no memory for %zu bytes", bytes);
    }
    for (size_t i = 0; i < list->n; i++) {
        const added_item *item = &list->items[i];
        const int32_t other = vocab_find(&t->bpe.vocab, item->content.data, item->content.size);
        vocab_token *token = &t->tokens[item->id];

        if (other >= 0 && other != item->id) {
            return moe_fail(err, MOE_ERR_CORRUPT, "added tokens: \"%.64s\" has id %d, but %d in the vocabulary",
                            item->content.data, (int)item->id, (int)other);
        }
        memcpy(t->added_text + used, item->content.data, item->content.size);
        token->text = t->added_text + used;
        token->n_text = (uint32_t)item->content.size;
        token->flags |= item->special ? TOKEN_SPECIAL : 0;
        used += item->content.size;
    }
    return MOE_OK;
}

static moe_status match_add(tokenizer *t, const added_item *item, moe_text scratch[2])
{
    added_set *set = item->normalized ? &t->normalized : &t->raw;
    text_view match = item->content;
    moe_status status = item->normalized ? text_steps_run(&t->normalizer, match, true, scratch, &match) : MOE_OK;
    added_token *token = &set->tokens[set->n];

    if (status != MOE_OK || match.size == 0) { /* a normalizer that deletes it leaves nothing to look for */
        return status;
    }
    *token = (added_token){.match = text_copy(match.data, match.size),
                           .n_match = match.size,
                           .id = item->id,
                           .single_word = item->single_word,
                           .lstrip = item->lstrip,
                           .rstrip = item->rstrip,
                           .special = tokenizer_is_special(t, item->id)};
    set->n += token->match != NULL;
    return token->match ? MOE_OK : MOE_ERR_NO_MEMORY;
}

static moe_status check_distinct(const added_set *set, moe_error *err)
{
    for (size_t i = 1; i < set->n; i++) {
        const added_token *a = &set->tokens[i - 1], *b = &set->tokens[i];

        if (a->n_match == b->n_match && memcmp(a->match, b->match, a->n_match) == 0) {
            return moe_fail(err, MOE_ERR_CORRUPT, "added tokens: \"%.64s\" has ids %d and %d", a->match, (int)a->id,
                            (int)b->id);
        }
    }
    return MOE_OK;
}

moe_status added_list_match(tokenizer *t, const added_list *list, moe_error *err)
{
    moe_text scratch[2];
    moe_status status = MOE_OK;

    t->raw.tokens = calloc(list->n + 1, sizeof *t->raw.tokens);
    t->normalized.tokens = calloc(list->n + 1, sizeof *t->normalized.tokens);
    if (!t->raw.tokens || !t->normalized.tokens) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "added tokens: no memory for %zu", list->n);
    }
    moe_text_init(&scratch[0], TOKENIZER_MAX_TEXT);
    moe_text_init(&scratch[1], TOKENIZER_MAX_TEXT);
    for (size_t i = 0; i < list->n && status == MOE_OK; i++) {
        status = match_add(t, &list->items[i], scratch);
    }
    moe_text_fini(&scratch[0]);
    moe_text_fini(&scratch[1]);
    if (status != MOE_OK) {
        return moe_fail(err, status, "added tokens: a text is too long when normalised");
    }
    added_set_seal(&t->raw);
    added_set_seal(&t->normalized);
    status = check_distinct(&t->raw, err);
    return status == MOE_OK ? check_distinct(&t->normalized, err) : status;
}
