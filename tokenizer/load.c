/* Opening: the files, their stages in the order in which each needs the one before, what is worked out once. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 32 };

void tokenizer_close(tokenizer *t)
{
    if (!t) {
        return;
    }
    piece_cache_fini(&t->cache);
    chat_fini(&t->chat);
    sentencepiece_fini(&t->pieces);
    moe_text_fini(&t->decoded);
    text_steps_fini(&t->decoder.steps);
    text_steps_fini(&t->normalizer);
    pre_tokenizer_fini(&t->pre);
    added_set_fini(&t->raw);
    added_set_fini(&t->normalized);
    merge_table_fini(&t->bpe.merges);
    vocab_fini(&t->bpe.vocab);
    free(t->added_text);
    free(t->reach);
    free(t->tokens);
    free(t);
}

static moe_status tokenizer_new(size_t vocab_size, tokenizer **out, moe_error *err)
{
    tokenizer *t;

    if (vocab_size == 0 || vocab_size > TOKENIZER_MAX_VOCAB) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "vocab_size: %zu is outside [1, %zu]", vocab_size,
                        TOKENIZER_MAX_VOCAB);
    }
    t = calloc(1, sizeof *t);
    if (t) {
        t->tokens = calloc(vocab_size, sizeof *t->tokens);
        moe_text_init(&t->decoded, TOKENIZER_MAX_FILE * 2);
    }
    if (!t || !t->tokens || piece_cache_init(&t->cache) != MOE_OK) {
        tokenizer_close(t);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "no memory for a vocabulary of %zu", vocab_size);
    }
    t->vocab_size = vocab_size;
    t->bos_id = t->eos_id = t->config_bos_id = t->config_eos_id = t->bpe.unk_id = -1;
    memset(t->bpe.low_id, -1, sizeof t->bpe.low_id);
    memset(t->bpe.byte_id, -1, sizeof t->bpe.byte_id);
    *out = t;
    return MOE_OK;
}

/* -------------------------------------------------------------------------------------------- what tokens decode to */
static bool append_bytes(text_view text, moe_text *out)
{
    int32_t c;

    for (size_t i = 0; i < text.size; i += moe_utf8_get(text.data + i, &c)) {
        (void)moe_utf8_get(text.data + i, &c);
        if (char_to_byte(c) < 0) {
            return false;
        }
    }
    for (size_t i = 0; i < text.size;) {
        char byte;

        i += moe_utf8_get(text.data + i, &c);
        byte = (char)(unsigned char)char_to_byte(c);
        moe_text_append(out, &byte, 1);
    }
    return true;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef0123456789ABCDEF", *at = c ? strchr(digits, c) : NULL;

    return at ? (int)((at - digits) % 16) : -1;
}

/* "<0x0A>" */
static bool is_byte_token(text_view text, char *byte_out)
{
    int high, low;

    if (text.size != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>') {
        return false;
    }
    high = hex_digit(text.data[3]);
    low = hex_digit(text.data[4]);
    *byte_out = (char)(unsigned char)((unsigned)high << 4 | (unsigned)low);
    return high >= 0 && low >= 0;
}

static moe_status decode_token(tokenizer *t, vocab_token *token, moe_text scratch[2])
{
    const size_t begin = t->decoded.size;
    text_view text;
    char byte;
    const moe_status status =
        text_steps_run(&t->decoder.steps, (text_view){token->text, token->n_text}, false, scratch, &text);

    if (status != MOE_OK) {
        return status;
    }
    if (t->decoder.byte_fallback && is_byte_token(text, &byte)) {
        token->flags |= TOKEN_BYTE;
        text = (text_view){&byte, 1};
    }
    if (!t->decoder.byte_level || !append_bytes(text, &t->decoded)) {
        moe_text_append(&t->decoded, text.data, text.size);
    }
    token->decoded = (uint32_t)begin;
    token->n_decoded = (uint32_t)(t->decoded.size - begin);
    t->longest = MOE_MAX(t->longest, token->n_decoded);
    return t->decoded.failed ? MOE_ERR_NO_MEMORY : MOE_OK;
}

static moe_status decode_tokens(tokenizer *t, moe_error *err)
{
    moe_status status = MOE_OK;
    moe_text scratch[2];
    size_t i;

    moe_text_init(&scratch[0], TOKENIZER_MAX_TEXT);
    moe_text_init(&scratch[1], TOKENIZER_MAX_TEXT);
    for (i = 0; i < t->vocab_size && status == MOE_OK; i++) {
        status = t->tokens[i].text ? decode_token(t, &t->tokens[i], scratch) : MOE_OK;
    }
    moe_text_fini(&scratch[0]);
    moe_text_fini(&scratch[1]);
    return status == MOE_OK
               ? MOE_OK
               : moe_fail(err, status, "tokenizer.json: decoder: token %zu decodes to too much text", i - 1);
}

/* ------------------------------------------------------------------------------------------------ open */
static moe_status apply_specials(tokenizer *t, const tokenizer_specials *specials, moe_error *err)
{
    if (!specials) {
        return MOE_OK;
    }
    if (specials->bos_id < -1 || specials->eos_id < -1 || specials->bos_id >= (int64_t)t->vocab_size ||
        specials->eos_id >= (int64_t)t->vocab_size) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "bos_id %d, eos_id %d: outside [-1, vocab_size %zu)",
                        (int)specials->bos_id, (int)specials->eos_id, t->vocab_size);
    }
    for (size_t i = 0; i < specials->n_ids; i++) {
        if (specials->ids[i] < 0 || (size_t)specials->ids[i] >= t->vocab_size) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "special id %d: outside [0, vocab_size %zu)",
                            (int)specials->ids[i], t->vocab_size);
        }
        t->tokens[specials->ids[i]].flags |= TOKEN_SPECIAL;
    }
    t->bos_id = specials->bos_id;
    t->eos_id = specials->eos_id;
    return MOE_OK;
}

/* What the file says of batches and their lengths is the caller's business, and the server's is max_context. */
static void tell_what_is_ignored(const json_t *json)
{
    static const char *const keys[] = {"truncation", "padding"};

    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        if (json_is_object(json_object_get(json, keys[i]))) {
            MOE_INFO("tokenizer.json: %s is ignored: a text that is too long is refused, and none is padded", keys[i]);
        }
    }
}

static moe_status load_all(tokenizer *t, const json_t *json, const json_t *config, const tokenizer_specials *specials,
                           added_list *list, moe_error *err)
{
    moe_status status;

    if ((status = load_pre_tokenizer(t, json, err)) != MOE_OK || (status = load_normalizer(t, json, err)) != MOE_OK ||
        (status = load_model(t, json, err)) != MOE_OK ||
        (status = added_list_load(t, json, config, list, err)) != MOE_OK ||
        (status = added_list_apply(t, list, err)) != MOE_OK || (status = apply_specials(t, specials, err)) != MOE_OK ||
        (status = load_config_tokens(t, config, list, err)) != MOE_OK ||
        (status = added_list_match(t, list, err)) != MOE_OK || (status = load_decoder(t, json, err)) != MOE_OK ||
        (status = load_post_processor(t, json, err)) != MOE_OK ||
        (status = load_config_affixes(t, config, err)) != MOE_OK) {
        return status;
    }
    tell_what_is_ignored(json);
    status = decode_tokens(t, err);
    return status == MOE_OK ? bounds_load(t, err) : status;
}

/* Ids that the model file does not have, and tokenizer_config.json adds. */
static moe_status decode_added(tokenizer *t, const added_list *list, moe_error *err)
{
    for (size_t i = 0; i < list->n; i++) {
        const text_view text = list->items[i].content;
        vocab_token *token = &t->tokens[list->items[i].id];

        if ((size_t)list->items[i].id >= t->pieces.n_pieces) {
            token->decoded = (uint32_t)t->decoded.size;
            token->n_decoded = (uint32_t)text.size;
            t->longest = MOE_MAX(t->longest, text.size);
            moe_text_append(&t->decoded, text.data, text.size);
        }
    }
    return t->decoded.failed ? moe_fail(err, MOE_ERR_NO_MEMORY, "added tokens: too much text") : MOE_OK;
}

static moe_status load_pieces(tokenizer *t, text_view model, const json_t *config, const tokenizer_specials *specials,
                              added_list *list, moe_error *err)
{
    moe_status status;

    if ((status = sentencepiece_load(t, model, err)) != MOE_OK ||
        (status = sentencepiece_load_added(t, config, list, err)) != MOE_OK ||
        (status = added_list_apply(t, list, err)) != MOE_OK || (status = decode_added(t, list, err)) != MOE_OK ||
        (status = apply_specials(t, specials, err)) != MOE_OK ||
        (status = load_config_tokens(t, config, list, err)) != MOE_OK ||
        (status = added_list_match(t, list, err)) != MOE_OK) {
        return status;
    }
    status = sentencepiece_load_affixes(t, config, err);
    return status == MOE_OK ? bounds_load(t, err) : status;
}

/* Python writes these files: integers beyond 64 bits (model_max_length), NaN and Infinity may stand in keys that nobody
 * reads. */
static moe_status parse_file(const char *name, text_view text, json_t **out, moe_error *err)
{
    moe_error reason = {""};
    moe_status status = moe_json_parse_python(text.data, text.size, MAX_DEPTH, out, &reason);

    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%s: %.300s", name, reason.text);
}

static moe_status parse_config(text_view text, json_t **out, moe_error *err)
{
    moe_status status = text.data != NULL ? parse_file("tokenizer_config.json", text, out, err) : MOE_OK;

    return status == MOE_OK && text.data != NULL && !json_is_object(*out)
               ? moe_fail(err, MOE_ERR_CORRUPT, "tokenizer_config.json: not an object")
               : status;
}

static moe_status parse_main(text_view text, json_t **out, moe_error *err)
{
    return text.size > TOKENIZER_MAX_FILE
               ? moe_fail(err, MOE_ERR_CORRUPT, "tokenizer.json: %zu bytes, limit %zu", text.size, TOKENIZER_MAX_FILE)
               : parse_file("tokenizer.json", text, out, err);
}

/* The files of a tokenizer: one of json and model is there, the others may be NULL. */
typedef struct sources {
    text_view json, model, config;
    chat_sources chat;
} sources;

static moe_status open_sources(const sources *from, size_t vocab_size, const tokenizer_specials *specials,
                               tokenizer **out, moe_error *err)
{
    json_t *main_json = NULL, *config = NULL;
    added_list list = {NULL, 0};
    tokenizer *t = NULL;
    moe_status status = from->model.data ? MOE_OK : parse_main(from->json, &main_json, err);

    if (status == MOE_OK) {
        status = parse_config(from->config, &config, err);
    }
    if (status == MOE_OK) {
        status = tokenizer_new(vocab_size, &t, err);
    }
    if (status == MOE_OK) {
        status = from->model.data ? load_pieces(t, from->model, config, specials, &list, err)
                                  : load_all(t, main_json, config, specials, &list, err);
    }
    if (status == MOE_OK) {
        status = chat_load(t, config, &from->chat, err);
    }
    free(list.items);
    json_decref(config);
    json_decref(main_json);
    if (status != MOE_OK) {
        tokenizer_close(t);
        return status;
    }
    *out = t;
    return MOE_OK;
}

moe_status tokenizer_open_memory(const char *json, size_t json_bytes, const char *config_json, size_t config_bytes,
                                 const char *chat_template, size_t template_bytes, size_t vocab_size,
                                 const tokenizer_specials *specials, tokenizer **out, moe_error *err)
{
    const sources from = {.json = {json, json_bytes},
                          .config = {config_json, config_bytes},
                          .chat = {.main = {chat_template, template_bytes}}};

    return open_sources(&from, vocab_size, specials, out, err);
}

moe_status tokenizer_open_model_memory(const void *model, size_t model_bytes, const char *config_json,
                                       size_t config_bytes, const char *chat_template, size_t template_bytes,
                                       size_t vocab_size, const tokenizer_specials *specials, tokenizer **out,
                                       moe_error *err)
{
    const sources from = {.model = {model ? model : "", model_bytes},
                          .config = {config_json, config_bytes},
                          .chat = {.main = {chat_template, template_bytes}}};

    return open_sources(&from, vocab_size, specials, out, err);
}

typedef struct file {
    char *data; /* owned; NULL: there is none */
    size_t bytes;
} file;

static moe_status file_open(const char *dir, const char *name, size_t max_bytes, bool required, file *out,
                            moe_error *err)
{
    moe_text path;
    moe_status status;

    moe_text_init(&path, 4096);
    moe_text_printf(&path, "%s/%s", dir, name);
    status = path.failed ? moe_fail(err, MOE_ERR_INVALID_ARG, "%s: the path is too long", name)
                         : moe_file_read(moe_text_cstr(&path), max_bytes, &out->data, &out->bytes, err);
    moe_text_fini(&path);
    return status == MOE_ERR_NOT_FOUND && !required ? MOE_OK : status;
}

moe_status tokenizer_open(const char *dir, size_t vocab_size, const tokenizer_specials *specials, tokenizer **out,
                          moe_error *err)
{
    file json = {NULL, 0}, model = {NULL, 0}, config = {NULL, 0}, chat = {NULL, 0}, tools = {NULL, 0};
    moe_status status = file_open(dir, "tokenizer.json", TOKENIZER_MAX_FILE, false, &json, err);

    if (status == MOE_OK && !json.data) {
        status = file_open(dir, "tokenizer.model", TOKENIZER_MAX_FILE, true, &model, err);
    }
    if (status == MOE_ERR_NOT_FOUND) {
        return moe_fail(err, status, "%s: neither tokenizer.json nor tokenizer.model", dir);
    }
    if (status == MOE_OK) {
        status = file_open(dir, "tokenizer_config.json", TOKENIZER_MAX_CONFIG, false, &config, err);
    }
    if (status == MOE_OK) {
        status = file_open(dir, "chat_template.jinja", TOKENIZER_MAX_CONFIG, false, &chat, err);
    }
    if (status == MOE_OK) {
        status = file_open(dir, "additional_chat_templates/tool_use.jinja", TOKENIZER_MAX_CONFIG, false, &tools, err);
    }
    if (status == MOE_OK) {
        const sources from = {.json = {json.data, json.bytes},
                              .model = {model.data, model.bytes},
                              .config = {config.data, config.bytes},
                              .chat = {{chat.data, chat.bytes}, {tools.data, tools.bytes}}};

        status = open_sources(&from, vocab_size, specials, out, err);
    }
    free(json.data);
    free(model.data);
    free(config.data);
    free(chat.data);
    free(tools.data);
    return status;
}
