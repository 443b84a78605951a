/* Reading tokenizer.model: a ModelProto in protobuf's wire format. Only the fields that change ids or text are read; a
 * value of theirs that is not supported is refused, fields beyond them are skipped.
 * Source: sentencepiece_model.proto; absent fields have the defaults that it gives. */
#include "tokenizer/tokenizer_priv.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME   "tokenizer.model"
#define CONFIG_NAME "tokenizer_config.json"

/* ------------------------------------------------------------------------------------------------ wire format */
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct wire_field {
    uint32_t number;
    unsigned type;
    uint64_t value;  /* VARINT, 64, 32 */
    text_view bytes; /* BYTES; borrowed from the file */
} wire_field;

static bool wire_varint(text_view *in, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && in->size > 0; shift += 7) {
        const unsigned char byte = (unsigned char)*in->data++;

        in->size--;
        if (shift == 63 && byte > 1) {
            return false;
        }
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return true;
        }
    }
    return false;
}

static bool wire_fixed(text_view *in, size_t n, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < n && n <= in->size; i++) {
        *out |= (uint64_t)(unsigned char)in->data[i] << (8 * i);
    }
    if (n > in->size) {
        return false;
    }
    in->data += n;
    in->size -= n;
    return true;
}

/* Takes one field off a message that is not empty. Groups have left the format long ago and are refused. */
static bool wire_next(text_view *in, wire_field *out)
{
    uint64_t tag;

    if (!wire_varint(in, &tag) || tag > UINT32_MAX || tag < 8) {
        return false;
    }
    out->number = (uint32_t)tag >> 3;
    out->type = (unsigned)tag & 7;
    switch (out->type) {
    case WIRE_VARINT:
        return wire_varint(in, &out->value);
    case WIRE_64:
        return wire_fixed(in, 8, &out->value);
    case WIRE_32:
        return wire_fixed(in, 4, &out->value);
    case WIRE_BYTES:
        if (!wire_varint(in, &out->value) || out->value > in->size) {
            return false;
        }
        out->bytes = (text_view){in->data, (size_t)out->value};
        in->data += out->bytes.size;
        in->size -= out->bytes.size;
        return true;
    default:
        return false;
    }
}

/* A field that is read, and where its value goes. */
typedef enum { READ_BOOL, READ_INT, READ_FLOAT, READ_TEXT } read_kind;

typedef struct read_field {
    uint32_t number;
    read_kind kind;
    const char *name;
    void *out; /* bool, int64_t, float, text_view */
} read_field;

static bool read_value(const read_field *want, const wire_field *field)
{
    static const unsigned types[] = {WIRE_VARINT, WIRE_VARINT, WIRE_32, WIRE_BYTES};
    const uint32_t bits = (uint32_t)field->value;

    if (field->type != types[want->kind]) {
        return false;
    }
    switch (want->kind) {
    case READ_BOOL:
        *(bool *)want->out = field->value != 0;
        return true;
    case READ_INT:
        *(int64_t *)want->out = (int64_t)field->value;
        return true;
    case READ_FLOAT:
        memcpy(want->out, &bits, sizeof bits);
        return isfinite(*(float *)want->out);
    default:
        *(text_view *)want->out = field->bytes;
        return field->bytes.size <= TOKENIZER_MAX_TOKEN &&
               moe_utf8_valid_prefix(field->bytes.data, field->bytes.size) == field->bytes.size;
    }
}

/* Of a field given twice the last one counts, as protobuf has it. */
static moe_status read_message(text_view in, const char *path, const read_field *wants, size_t n_wants, moe_error *err)
{
    const char *begin = in.data;

    while (in.size > 0) {
        const size_t at = (size_t)(in.data - begin);
        wire_field field;

        if (!wire_next(&in, &field)) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s: malformed field at byte %zu", path, at);
        }
        for (size_t i = 0; i < n_wants; i++) {
            static const char *const kinds[] = {"not a varint", "not a varint", "not a finite float",
                                                "not UTF-8 text of at most 4096 bytes"}; /* TOKENIZER_MAX_TOKEN */

            if (wants[i].number == field.number && !read_value(&wants[i], &field)) {
                return moe_fail(err, MOE_ERR_CORRUPT, "%s.%s: %s", path, wants[i].name, kinds[wants[i].kind]);
            }
        }
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------ trainer_spec, normalizer_spec */
typedef struct model_spec {
    int64_t model_type;
    bool byte_fallback, suffix;
    text_view bos_piece, eos_piece, unk_surface;
    bool dummy_prefix, remove_extra_spaces, escape_spaces;
    size_t n_pieces, text_bytes, n_user;
} model_spec;

enum { MODEL_UNIGRAM = 1, MODEL_BPE = 2 };

static moe_status read_trainer(text_view in, model_spec *spec, moe_error *err)
{
    const read_field wants[] = {{3, READ_INT, "model_type", &spec->model_type},
                                {24, READ_BOOL, "treat_whitespace_as_suffix", &spec->suffix},
                                {35, READ_BOOL, "byte_fallback", &spec->byte_fallback},
                                {44, READ_TEXT, "unk_surface", &spec->unk_surface},
                                {46, READ_TEXT, "bos_piece", &spec->bos_piece},
                                {47, READ_TEXT, "eos_piece", &spec->eos_piece}};

    return read_message(in, FILE_NAME ": trainer_spec", wants, MOE_COUNT(wants), err);
}

static moe_status read_normalizer(text_view in, const char *path, model_spec *spec, moe_error *err)
{
    text_view name = {"", 0}, rest = in;
    const read_field wants[] = {{1, READ_TEXT, "name", &name},
                                {3, READ_BOOL, "add_dummy_prefix", &spec->dummy_prefix},
                                {4, READ_BOOL, "remove_extra_whitespaces", &spec->remove_extra_spaces},
                                {5, READ_BOOL, "escape_whitespaces", &spec->escape_spaces}};
    const moe_status status = read_message(in, path, wants, MOE_COUNT(wants), err);
    wire_field field;

    while (status == MOE_OK && rest.size > 0 && wire_next(&rest, &field)) { /* it may be large, and is no text */
        if (field.number == 2 && (field.type != WIRE_BYTES || field.bytes.size > 0)) {
            return moe_fail(err, MOE_ERR_UNSUPPORTED,
                            "%s.precompiled_charsmap: %zu bytes (\"%.*s\"); only identity normalisation is supported",
                            path, field.type == WIRE_BYTES ? field.bytes.size : 0, (int)MOE_MIN(name.size, 64u),
                            name.data);
        }
    }
    return status;
}

static moe_status check_spec(const model_spec *spec, moe_error *err)
{
    if (spec->model_type != MODEL_BPE) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED,
                        FILE_NAME ": trainer_spec.model_type: %lld%s is not supported, only BPE (2)",
                        (long long)spec->model_type, spec->model_type == MODEL_UNIGRAM ? " (unigram)" : "");
    }
    if (spec->suffix) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED,
                        FILE_NAME ": trainer_spec.treat_whitespace_as_suffix: true is not supported");
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ pieces */
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

typedef struct piece {
    text_view text;
    float score;
    int64_t type;
} piece;

static moe_status read_piece(text_view in, size_t index, piece *out, moe_error *err)
{
    const read_field wants[] = {
        {1, READ_TEXT, "piece", &out->text}, {2, READ_FLOAT, "score", &out->score}, {3, READ_INT, "type", &out->type}};
    char path[64];
    moe_status status;

    *out = (piece){.text = {"", 0}, .type = PIECE_NORMAL};
    snprintf(path, sizeof path, FILE_NAME ": pieces[%zu]", index);
    status = read_message(in, path, wants, MOE_COUNT(wants), err);
    if (status == MOE_OK && out->text.size == 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.piece: empty", path);
    }
    if (status == MOE_OK && out->type == PIECE_UNUSED) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s.type: unused (5) is not supported", path);
    }
    if (status == MOE_OK && (out->type < PIECE_NORMAL || out->type > PIECE_BYTE)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s.type: %lld is outside [1, 6]", path, (long long)out->type);
    }
    return status;
}

/* Calls for each field of the file, and twice: the specs stand behind the pieces, and say how to read them. */
static moe_status scan(text_view file, size_t vocab_size, model_spec *spec, moe_error *err)
{
    const char *begin = file.data;
    moe_status status = MOE_OK;

    while (status == MOE_OK && file.size > 0) {
        const size_t at = (size_t)(file.data - begin);
        wire_field field;
        piece p;

        if (!wire_next(&file, &field) || (field.number <= 5 && field.type != WIRE_BYTES)) {
            return moe_fail(err, MOE_ERR_CORRUPT, FILE_NAME ": malformed field at byte %zu", at);
        }
        if (field.number == 1 && spec->n_pieces == vocab_size) {
            return moe_fail(err, MOE_ERR_CORRUPT, FILE_NAME ": pieces: more than vocab_size %zu", vocab_size);
        }
        if (field.number == 1 && (status = read_piece(field.bytes, spec->n_pieces, &p, err)) == MOE_OK) {
            spec->n_pieces++;
            spec->n_user += p.type == PIECE_USER;
            spec->text_bytes += p.text.size;
        } else if (field.number == 2) {
            status = read_trainer(field.bytes, spec, err);
        } else if (field.number == 3) {
            status = read_normalizer(field.bytes, FILE_NAME ": normalizer_spec", spec, err);
        } else if (field.number == 5) { /* runs on decoded text; only its character map has an effect there */
            model_spec ignored = *spec;

            status = read_normalizer(field.bytes, FILE_NAME ": denormalizer_spec", &ignored, err);
        }
    }
    return status;
}

/* Higher scores first, as numbers that ascend: the bits of a float, in order for one sign, reversed for the other. */
static uint32_t merge_order(float score)
{
    const float sound = score + 0.0f; /* one zero */
    uint32_t bits;

    memcpy(&bits, &sound, sizeof bits);
    return bits & 0x80000000u ? bits : 0x7fffffffu - bits;
}

/* "<0x0A>", in capitals. */
static moe_status byte_add(bpe *b, size_t index, const piece *p, moe_error *err)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];

        snprintf(name, sizeof name, "<0x%02X>", byte);
        if (b->byte_fallback && p->text.size == 6 && memcmp(p->text.data, name, 6) == 0) {
            b->byte_id[byte] = (int32_t)index;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_ERR_CORRUPT, FILE_NAME ": pieces[%zu].type: byte (6), but %s", index,
                    b->byte_fallback ? "its piece names none" : "trainer_spec.byte_fallback is false");
}

static moe_status piece_decoded(tokenizer *t, const piece *p, const model_spec *spec, vocab_token *token)
{
    static const char mark[] = "\xe2\x96\x81";
    const size_t begin = t->decoded.size;
    const char byte = (char)(p->type == PIECE_BYTE ? strtoul(p->text.data + 3, NULL, 16) : 0);
    text_view rest = p->type == PIECE_UNKNOWN ? spec->unk_surface : p->text;

    if (p->type == PIECE_BYTE) {
        rest = (text_view){&byte, 1};
    }
    for (const char *hit; !(token->flags & TOKEN_RESERVED) && (hit = text_find(rest.data, rest.size, mark, 3));) {
        const size_t n = (size_t)(hit - rest.data);

        moe_text_append(&t->decoded, rest.data, n);
        moe_text_append(&t->decoded, " ", 1);
        rest = (text_view){hit + 3, rest.size - n - 3};
    }
    moe_text_append(&t->decoded, rest.data, rest.size);
    token->decoded = (uint32_t)begin;
    token->n_decoded = (uint32_t)(t->decoded.size - begin);
    t->longest = MOE_MAX(t->longest, token->n_decoded);
    return t->decoded.failed ? MOE_ERR_NO_MEMORY : MOE_OK;
}

static moe_status user_add(added_set *set, size_t index, const piece *p)
{
    added_token *token = &set->tokens[set->n];

    *token =
        (added_token){.match = text_copy(p->text.data, p->text.size), .n_match = p->text.size, .id = (int32_t)index};
    set->n += token->match != NULL;
    return token->match ? MOE_OK : MOE_ERR_NO_MEMORY;
}

static moe_status piece_add(tokenizer *t, size_t index, const piece *p, const model_spec *spec, moe_error *err)
{
    static const uint32_t flags[] = {[PIECE_UNKNOWN] = TOKEN_RESERVED,
                                     [PIECE_CONTROL] = TOKEN_RESERVED | TOKEN_SPECIAL,
                                     [PIECE_USER] = TOKEN_USER,
                                     [PIECE_BYTE] = TOKEN_RESERVED | TOKEN_BYTE};
    vocab *v = &t->bpe.vocab;
    vocab_token *token = &t->tokens[index];
    moe_status status = MOE_OK;

    if (vocab_add(v, p->text.data, p->text.size, (int32_t)index) != MOE_OK) {
        return moe_fail(err, MOE_ERR_CORRUPT, FILE_NAME ": pieces[%zu].piece: \"%.*s\" is piece %d too", index,
                        (int)MOE_MIN(p->text.size, 64u), p->text.data, (int)vocab_find(v, p->text.data, p->text.size));
    }
    token->text = v->text + v->entries[v->n_entries - 1].offset;
    token->n_text = (uint32_t)p->text.size;
    token->flags = flags[p->type];
    t->pieces.order[index] = merge_order(p->score);
    if (p->type == PIECE_UNKNOWN) {
        if (t->bpe.unk_id >= 0) {
            return moe_fail(err, MOE_ERR_CORRUPT, FILE_NAME ": pieces[%zu].type: unknown (2), as is piece %d", index,
                            (int)t->bpe.unk_id);
        }
        t->bpe.unk_id = (int32_t)index;
    } else if (p->type == PIECE_BYTE) {
        status = byte_add(&t->bpe, index, p, err);
    }
    if (!(token->flags & TOKEN_RESERVED)) {
        t->pieces.longest = MOE_MAX(t->pieces.longest, p->text.size);
    }
    if (status == MOE_OK && ((p->type == PIECE_USER && user_add(&t->pieces.user, index, p) != MOE_OK) ||
                             piece_decoded(t, p, spec, token) != MOE_OK)) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, FILE_NAME ": pieces[%zu]: no memory", index);
    }
    return status;
}

static moe_status pieces_add(tokenizer *t, text_view file, const model_spec *spec, moe_error *err)
{
    sentencepiece *s = &t->pieces;
    moe_status status = MOE_OK;
    wire_field field;
    piece p;

    s->order = calloc(spec->n_pieces + 1, sizeof *s->order);
    s->user.tokens = calloc(spec->n_user + 1, sizeof *s->user.tokens);
    if (!s->order || !s->user.tokens || vocab_init(&t->bpe.vocab, spec->n_pieces, spec->text_bytes) != MOE_OK) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, FILE_NAME ": no memory for %zu pieces", spec->n_pieces);
    }
    while (status == MOE_OK && file.size > 0 && wire_next(&file, &field)) {
        if (field.number == 1 && (status = read_piece(field.bytes, s->n_pieces, &p, err)) == MOE_OK) {
            status = piece_add(t, s->n_pieces++, &p, spec, err);
        }
    }
    added_set_seal(&s->user);
    return status;
}

static moe_status check_pieces(const bpe *b, moe_error *err)
{
    if (b->unk_id < 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, FILE_NAME ": pieces: none is of type unknown (2)");
    }
    for (unsigned byte = 0; b->byte_fallback && byte < 256; byte++) {
        if (b->byte_id[byte] < 0) {
            return moe_fail(err, MOE_ERR_CORRUPT,
                            FILE_NAME ": pieces: no <0x%02X>, but trainer_spec.byte_fallback is true", byte);
        }
    }
    return MOE_OK;
}

static int32_t control_find(const tokenizer *t, text_view text)
{
    const int32_t id = vocab_find(&t->bpe.vocab, text.data, text.size);

    return id >= 0 && t->tokens[id].flags & TOKEN_SPECIAL ? id : -1;
}

moe_status sentencepiece_load(tokenizer *t, text_view file, moe_error *err)
{
    sentencepiece *s = &t->pieces;
    model_spec spec = {.model_type = MODEL_UNIGRAM,
                       .bos_piece = {"<s>", 3},
                       .eos_piece = {"</s>", 4},
                       .unk_surface = {" \xe2\x81\x87 ", 5},
                       .dummy_prefix = true,
                       .remove_extra_spaces = true,
                       .escape_spaces = true};
    moe_status status;

    if (file.size > TOKENIZER_MAX_FILE) {
        return moe_fail(err, MOE_ERR_CORRUPT, FILE_NAME ": %zu bytes, limit %zu", file.size, TOKENIZER_MAX_FILE);
    }
    status = scan(file, t->vocab_size, &spec, err);
    if (status == MOE_OK) {
        status = check_spec(&spec, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    s->present = true;
    s->dummy_prefix = spec.dummy_prefix;
    s->remove_extra_spaces = spec.remove_extra_spaces;
    s->escape_spaces = spec.escape_spaces;
    t->bpe.byte_fallback = spec.byte_fallback;
    t->bpe.fuse_unk = true;
    t->decoder.n_strip = s->dummy_prefix || s->remove_extra_spaces;
    status = pieces_add(t, file, &spec, err);
    if (status == MOE_OK) {
        status = check_pieces(&t->bpe, err);
    }
    if (status == MOE_OK) {
        s->bos_id = control_find(t, spec.bos_piece);
        s->eos_id = control_find(t, spec.eos_piece);
    }
    return status;
}

void sentencepiece_fini(sentencepiece *s)
{
    added_set_fini(&s->user);
    free(s->order);
}

/* ----------------------------------------------------------------------------------------------- tokenizer_config.json
 * Such models are published with LlamaTokenizer's settings: their defaults are those of that
 * class. */
static bool list_has(const added_list *list, int32_t id)
{
    for (size_t i = 0; i < list->n; i++) {
        if (list->items[i].id == id) {
            return true;
        }
    }
    return false;
}

/* bos_token and its like are matched in text even where added_tokens_decoder is absent. */
static moe_status add_named(tokenizer *t, const moe_json *config, added_list *list, moe_error *err)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    added_item *grown = realloc(list->items, (list->n + MOE_COUNT(keys) + 1) * sizeof *grown);

    if (!grown) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "added tokens: no memory for %zu", list->n);
    }
    list->items = grown;
    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        int32_t id;
        const moe_status status = load_config_token(t, config, list, keys[i], &id, err);

        if (status != MOE_OK) {
            return status;
        }
        if (id >= 0 && !list_has(list, id)) {
            list->items[list->n++] =
                (added_item){.id = id, .content = {t->tokens[id].text, t->tokens[id].n_text}, .special = true};
        }
    }
    return MOE_OK;
}

moe_status sentencepiece_load_added(tokenizer *t, const moe_json *config, added_list *list, moe_error *err)
{
    moe_status status = added_list_load(t, NULL, config, list, err);

    for (size_t i = 0; i < list->n && status == MOE_OK; i++) {
        added_item *item = &list->items[i];
        const vocab_token *known = &t->tokens[item->id];

        item->normalized = false; /* a dummy prefix is for text */
        if (known->text &&
            (known->n_text != item->content.size || memcmp(known->text, item->content.data, item->content.size) != 0)) {
            status = moe_fail(err, MOE_ERR_CORRUPT,
                              CONFIG_NAME ": added_tokens_decoder[\"%d\"].content: \"%.64s\", but " FILE_NAME
                                          " says \"%.*s\"",
                              (int)item->id, item->content.data, (int)MOE_MIN(known->n_text, 64u), known->text);
        }
    }
    return status == MOE_OK ? add_named(t, config, list, err) : status;
}

moe_status sentencepiece_load_affixes(tokenizer *t, const moe_json *config, moe_error *err)
{
    sentencepiece *s = &t->pieces;
    text_view class;
    moe_status status = field_text(config, CONFIG_NAME, "tokenizer_class", "LlamaTokenizer", &class, err);
    int32_t bos;

    if (status == MOE_OK) {
        status = field_bool(config, CONFIG_NAME, "legacy", true, &s->prefix_again, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    t->config_bos_id = t->config_bos_id >= 0 ? t->config_bos_id : s->bos_id;
    t->config_eos_id = t->config_eos_id >= 0 ? t->config_eos_id : s->eos_id;
    bos = t->bos_id >= 0 ? t->bos_id : t->config_bos_id;
    if (bos >= 0 && text_find(class.data, class.size, "Llama", 5)) {
        t->prefix[t->n_prefix++] = bos;
    }
    return load_config_affixes(t, config, err);
}
