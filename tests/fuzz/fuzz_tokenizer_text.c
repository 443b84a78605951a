/* Any text with a small fixed tokenizer: what encodes decodes to its NFC form, and again to itself; ids stream to the
 * same text in any cut; any ids at all decode to valid UTF-8. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 4096, VOCAB = 320 };

/* All 256 bytes as symbols, ids 0 .. 255, some merges and added tokens. */
static void write_json(moe_text *json)
{
    static const char *const merges[][3] = {{"a", "b", "ab"},
                                            {"\xc4\xa0", "a",
                                             "\xc4\xa0"
                                             "a"},
                                            {"ab", "ab", "abab"},
                                            {"\xc4\x8a", "\xc4\x8a", "\xc4\x8a\xc4\x8a"},
                                            {"\xc3\x8c", "\xc4\xa3", "\xc3\x8c\xc4\xa3"},
                                            {"\xc3\xa2", "\xc4\xa4", "\xc3\xa2\xc4\xa4"}};
    unsigned next = 0x100;

    moe_text_printf(
        json,
        "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
        "\"decoder\":{\"type\":\"ByteLevel\"},\"added_tokens\":[{\"id\":300,\"content\":\"<e>\",\"special\":true},"
        "{\"id\":301,\"content\":\"  \",\"normalized\":true},{\"id\":302,\"content\":\"   \",\"normalized\":true}],"
        "\"model\":{\"vocab\":{");
    for (unsigned byte = 0; byte < 256; byte++) {
        const bool own = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);

        moe_text_printf(json, "%s\"\\u%04x\":%u", byte ? "," : "", own ? byte : next++, byte);
    }
    for (unsigned i = 0; i < MOE_COUNT(merges); i++) {
        moe_text_printf(json, ",\"%s\":%u", merges[i][2], 256 + i);
    }
    moe_text_printf(json, "},\"merges\":[");
    for (unsigned i = 0; i < MOE_COUNT(merges); i++) {
        moe_text_printf(json, "%s[\"%s\",\"%s\"]", i ? "," : "", merges[i][0], merges[i][1]);
    }
    moe_text_printf(json, "]}}");
}

static tokenizer *fixed_tokenizer(void)
{
    static tokenizer *t; /* for the life of the process */
    moe_text json;
    moe_error err = {""};

    if (!t) {
        moe_text_init(&json, 1 << 16);
        write_json(&json);
        if (tokenizer_open_memory(json.data, json.size, NULL, 0, NULL, 0, VOCAB, NULL, &t, &err) != MOE_OK) {
            moe_assert_failed(err.text, __FILE__, __LINE__);
        }
        moe_text_fini(&json);
    }
    return t;
}

static void decode(tokenizer *t, const int32_t *ids, size_t n, moe_text *out)
{
    tokenizer_decode d;

    moe_text_init(out, MAX_BYTES * 16);
    tokenizer_decode_init(&d, t, false);
    for (size_t i = 0; i < n; i++) {
        const size_t before = out->size;

        tokenizer_decode_push(&d, ids[i], out);
        /* Every chunk is whole by itself. */
        MOE_ASSERT(moe_utf8_valid_prefix(moe_text_cstr(out) + before, out->size - before) == out->size - before);
    }
    tokenizer_decode_finish(&d, out);
    MOE_ASSERT(!out->failed && moe_utf8_valid_prefix(moe_text_cstr(out), out->size) == out->size);
}

static void check_text(tokenizer *t, const char *text, size_t n)
{
    static int32_t ids[MAX_BYTES * 4], again[MAX_BYTES * 4];
    moe_text first, second;
    size_t n_ids = 0, n_again = 0;
    const moe_status status = tokenizer_encode(t, text, n, false, NULL, 0, ids, MOE_COUNT(ids), &n_ids, NULL);

    MOE_ASSERT((status == MOE_OK) == (moe_utf8_valid_prefix(text, n) == n));
    if (status != MOE_OK) {
        return;
    }
    MOE_ASSERT(tokenizer_encode(t, text, n, false, NULL, 0, again, n_ids, &n_again, NULL) == MOE_OK);
    MOE_ASSERT(n_ids == 0 ||
               tokenizer_encode(t, text, n, false, NULL, 0, again, n_ids - 1, &n_again, NULL) == MOE_ERR_INVALID_ARG);
    decode(t, ids, n_ids, &first);
    MOE_ASSERT(tokenizer_encode(t, moe_text_cstr(&first), first.size, false, NULL, 0, again, MOE_COUNT(again), &n_again,
                                NULL) == MOE_OK);
    decode(t, again, n_again, &second);
    MOE_ASSERT(first.size == second.size && memcmp(moe_text_cstr(&first), moe_text_cstr(&second), first.size) == 0);
    MOE_ASSERT(n_ids == n_again && memcmp(ids, again, n_ids * sizeof *ids) == 0);
    moe_text_fini(&first);
    moe_text_fini(&second);
}

/* The bytes of the tokens in one go, as one text of that many replacement rules. */
static void check_ids(tokenizer *t, const uint8_t *data, size_t size)
{
    static int32_t ids[MAX_BYTES];
    moe_text stream, joined;
    tokenizer_decode d;

    moe_text_init(&joined, MAX_BYTES * 16);
    for (size_t i = 0; i < size; i++) {
        ids[i] = data[i]; /* ids 0 .. 255 are the bytes themselves */
    }
    decode(t, ids, size, &stream);
    tokenizer_decode_init(&d, t, false);
    for (size_t i = 0; i < size;) { /* valid stretches as they are, the rest byte by byte through the stream */
        const size_t valid = d.n_pending ? 0 : moe_utf8_valid_prefix(data + i, size - i);

        moe_text_append(&joined, data + i, valid);
        i += valid;
        if (i < size) {
            tokenizer_decode_push(&d, ids[i++], &joined);
        }
    }
    tokenizer_decode_finish(&d, &joined);
    MOE_ASSERT(stream.size == joined.size && memcmp(moe_text_cstr(&stream), moe_text_cstr(&joined), stream.size) == 0);
    moe_text_fini(&stream);
    moe_text_fini(&joined);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tokenizer *t = fixed_tokenizer();

    if (size <= MAX_BYTES) {
        check_text(t, (const char *)data, size);
        check_ids(t, data, size);
    }
    return 0;
}
