/* The model of a tokenizer.json: vocabulary and merges. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <string.h>

#define PATH "tokenizer.json: model"

static moe_status check_settings(const json_t *model, moe_error *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *dropout = json_object_get(model, "dropout");
    text_view value;
    moe_status status = field_text(model, PATH, "type", "BPE", &value, err); /* old files leave it out */

    if (status != MOE_OK) {
        return status;
    }
    if (strcmp(value.data, "BPE") != 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, PATH ".type: \"%.64s\" is not supported", value.data);
    }
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0)) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, PATH ".dropout: only null or 0 is supported");
    }
    for (size_t i = 0; i < MOE_COUNT(affixes); i++) {
        status = field_text(model, PATH, affixes[i], "", &value, err);
        if (status != MOE_OK) {
            return status;
        }
        if (value.size > 0) {
            return moe_fail(err, MOE_ERR_UNSUPPORTED, PATH ".%s: \"%.64s\" is not supported", affixes[i], value.data);
        }
    }
    return MOE_OK;
}

static moe_status token_add(tokenizer *t, const char *text, size_t n, const json_t *value, moe_error *err)
{
    vocab *v = &t->bpe.vocab;
    char path[128];
    int32_t id, c;
    moe_status status;

    snprintf(path, sizeof path, PATH ".vocab[\"%.64s\"]", text);
    if (n > TOKENIZER_MAX_TOKEN) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: %zu bytes, limit %zu", path, n, TOKENIZER_MAX_TOKEN);
    }
    status = field_id(t, value, path, &id, err);
    if (status != MOE_OK) {
        return status;
    }
    if (t->tokens[id].text) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: id %d belongs to another token too", path, (int)id);
    }
    if (vocab_add(v, text, n, id) != MOE_OK) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: twice", path);
    }
    t->tokens[id].text = v->text + v->entries[v->n_entries - 1].offset;
    t->tokens[id].n_text = (uint32_t)n;
    if (n > 0 && moe_utf8_get(text, &c) == n && c < (int32_t)MOE_COUNT(t->bpe.low_id)) {
        t->bpe.low_id[c] = id;
    }
    return MOE_OK;
}

static moe_status load_vocab(tokenizer *t, json_t *json, moe_error *err)
{
    size_t text_bytes = 0;
    moe_status status = MOE_OK;

    if (!json_is_object(json) || json_object_size(json) == 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, PATH ".vocab: not an object with entries");
    }
    if (json_object_size(json) > TOKENIZER_MAX_VOCAB) {
        return moe_fail(err, MOE_ERR_CORRUPT, PATH ".vocab: %zu entries, limit %zu", json_object_size(json),
                        TOKENIZER_MAX_VOCAB);
    }
    for (void *i = json_object_iter(json); i; i = json_object_iter_next(json, i)) {
        text_bytes += json_object_iter_key_len(i);
    }
    if (vocab_init(&t->bpe.vocab, json_object_size(json), text_bytes) != MOE_OK) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, PATH ".vocab: no memory for %zu entries", json_object_size(json));
    }
    for (void *i = json_object_iter(json); i && status == MOE_OK; i = json_object_iter_next(json, i)) {
        status = token_add(t, json_object_iter_key(i), json_object_iter_key_len(i), json_object_iter_value(i), err);
    }
    return status;
}

static bool pair_of_string(const json_t *json, text_view *left, text_view *right)
{
    const char *text = json_string_value(json), *space = strchr(text, ' ');

    if (!space || strchr(space + 1, ' ')) {
        return false;
    }
    *left = (text_view){text, (size_t)(space - text)};
    *right = (text_view){space + 1, json_string_length(json) - left->size - 1};
    return true;
}

static bool pair_of_array(const json_t *json, text_view *left, text_view *right)
{
    const json_t *a = json_array_get(json, 0), *b = json_array_get(json, 1);

    if (json_array_size(json) != 2 || !json_is_string(a) || !json_is_string(b)) {
        return false;
    }
    *left = (text_view){json_string_value(a), json_string_length(a)};
    *right = (text_view){json_string_value(b), json_string_length(b)};
    return true;
}

static int shown(text_view text)
{
    return (int)MOE_MIN(text.size, (size_t)64);
}

/* A merge may only name known tokens, and make a longer one: so none can undo another, and merging ends. */
static moe_status merge_add(bpe *b, const json_t *json, size_t rank, moe_error *err)
{
    char joined[TOKENIZER_MAX_TOKEN];
    text_view left, right;
    merge entry = {.rank = (uint32_t)rank};

    if (!(json_is_string(json) ? pair_of_string(json, &left, &right) : pair_of_array(json, &left, &right)) ||
        left.size == 0 || right.size == 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, PATH ".merges[%zu]: neither \"a b\" nor [\"a\", \"b\"]", rank);
    }
    entry.left = vocab_find(&b->vocab, left.data, left.size);
    entry.right = vocab_find(&b->vocab, right.data, right.size);
    entry.merged = -1;
    if (left.size <= sizeof joined && right.size <= sizeof joined - left.size) {
        memcpy(joined, left.data, left.size);
        memcpy(joined + left.size, right.data, right.size);
        entry.merged = vocab_find(&b->vocab, joined, left.size + right.size);
    }
    if (entry.left < 0 || entry.right < 0 || entry.merged < 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, PATH ".merges[%zu]: \"%.*s\" + \"%.*s\": %s is not in the vocabulary",
                        rank, shown(left), left.data, shown(right), right.data,
                        entry.left < 0    ? "the first"
                        : entry.right < 0 ? "the second"
                                          : "the result");
    }
    if (merge_table_add(&b->merges, entry) != MOE_OK) {
        return moe_fail(err, MOE_ERR_CORRUPT, PATH ".merges[%zu]: \"%.*s\" + \"%.*s\" is merged before", rank,
                        shown(left), left.data, shown(right), right.data);
    }
    return MOE_OK;
}

static moe_status load_merges(bpe *b, const json_t *json, moe_error *err)
{
    moe_status status = MOE_OK;

    if (!json_is_array(json) || json_array_size(json) > TOKENIZER_MAX_MERGES) {
        return moe_fail(err, MOE_ERR_CORRUPT, PATH ".merges: not an array of at most %zu", TOKENIZER_MAX_MERGES);
    }
    if (merge_table_init(&b->merges, json_array_size(json)) != MOE_OK) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, PATH ".merges: no memory for %zu", json_array_size(json));
    }
    for (size_t i = 0; i < json_array_size(json) && status == MOE_OK; i++) {
        status = merge_add(b, json_array_get(json, i), i, err);
    }
    return status;
}

static void find_bytes(bpe *b)
{
    for (unsigned byte = 0; byte < 256 && b->byte_fallback; byte++) {
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", byte);
        b->byte_id[byte] = vocab_find(&b->vocab, name, 6);
    }
}

static moe_status load_unk(bpe *b, const json_t *model, moe_error *err)
{
    text_view unk;
    moe_status status = field_text(model, PATH, "unk_token", "", &unk, err);

    if (status == MOE_OK && unk.size > 0) {
        b->unk_id = vocab_find(&b->vocab, unk.data, unk.size);
        if (b->unk_id < 0) {
            return moe_fail(err, MOE_ERR_CORRUPT, PATH ".unk_token: \"%.64s\" is not in the vocabulary", unk.data);
        }
    }
    return status;
}

moe_status load_model(tokenizer *t, const moe_json *json, moe_error *err)
{
    const json_t *model = json_object_get(json, "model");
    bpe *b = &t->bpe;
    moe_status status;

    if (!json_is_object(model)) {
        return moe_fail(err, MOE_ERR_CORRUPT, PATH ": missing, or not an object");
    }
    if ((status = check_settings(model, err)) != MOE_OK ||
        (status = field_bool(model, PATH, "fuse_unk", false, &b->fuse_unk, err)) != MOE_OK ||
        (status = field_bool(model, PATH, "byte_fallback", false, &b->byte_fallback, err)) != MOE_OK ||
        (status = field_bool(model, PATH, "ignore_merges", false, &b->ignore_merges, err)) != MOE_OK ||
        (status = load_vocab(t, json_object_get(model, "vocab"), err)) != MOE_OK ||
        (status = load_unk(b, model, err)) != MOE_OK) {
        return status;
    }
    find_bytes(b);
    return load_merges(b, json_object_get(model, "merges"), err);
}
