/* Any JSON as tokenizer.json, with a little encoding and decoding when it opens. A second part behind a NUL byte is
 * tokenizer_config.json, a third chat_template.jinja, a fourth what the model's config names: bos, eos, special ids.
 * Small inputs are opened from files as well, to the same end. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 512, MAX_IDS = 64, MAX_FILES_BYTES = 128 };

typedef struct part {
    char *data; /* owned; NULL: there is none */
    size_t n;
} part;

static part part_take(const uint8_t **data, size_t *size)
{
    const uint8_t *nul = *size > 0 ? memchr(*data, 0, *size) : NULL;
    const size_t n = nul ? (size_t)(nul - *data) : *size;
    part p = {*size > 0 ? malloc(n + 1) : NULL, n};

    if (p.data) {
        memcpy(p.data, *data, n);
    }
    *data += nul ? n + 1 : n;
    *size -= nul ? n + 1 : n;
    return p;
}

static void decode(tokenizer *t, const int32_t *ids, size_t n, bool skip_special)
{
    tokenizer_decode d;
    moe_text out;

    moe_text_init(&out, 1 << 22);
    tokenizer_decode_init(&d, t, skip_special);
    for (size_t i = 0; i < n; i++) {
        tokenizer_decode_push(&d, ids[i], &out);
    }
    tokenizer_decode_finish(&d, &out);
    MOE_ASSERT(moe_utf8_valid_prefix(moe_text_cstr(&out), out.size) == out.size);
    moe_text_fini(&out);
}

static moe_status encode_chat(tokenizer *t, const tokenizer_message *messages, size_t n_messages, int32_t *ids,
                              size_t *n)
{
    const tokenizer_conversation c = {.messages = messages,
                                      .n_messages = n_messages,
                                      .add_generation_prompt = true,
                                      .tools = "[{\"name\":\"f <s>\"}]",
                                      .template_args = "{\"a\":[1,2.5,null,\"<s>\"]}"};

    return tokenizer_chat_encode(t, &c, ids, MAX_IDS, n, NULL);
}

static void chat(tokenizer *t, const char *text)
{
    const tokenizer_message messages[] = {
        {.role = TOKENIZER_ROLE_SYSTEM, .content = ""},
        {.role = TOKENIZER_ROLE_USER, .content = text, .bytes = 9},
        {.role = TOKENIZER_ROLE_ASSISTANT, .content = "a", .bytes = 1, .tool_calls = "[{\"name\":\"f\"}]"}};
    const tokenizer_message invalid = {.role = TOKENIZER_ROLE_USER, .content = "\xff", .bytes = 1};
    const tokenizer_message nobody = {.role = (tokenizer_role)9, .content = ""};
    int32_t ids[MAX_IDS];
    size_t n = 0;

    MOE_ASSERT(tokenizer_chat_select(t, "unheard of", NULL) == MOE_ERR_NOT_FOUND);
    if (tokenizer_chat_name(t)[0] == '\0') {
        MOE_ASSERT(encode_chat(t, messages, 3, ids, &n) == MOE_ERR_UNSUPPORTED);
        MOE_ASSERT(tokenizer_chat_select(t, "olmo2", NULL) == MOE_OK);
    }
    if (encode_chat(t, messages, 3, ids, &n) == MOE_OK) {
        decode(t, ids, n, false);
    }
    MOE_ASSERT(tokenizer_chat_use(t, "{{", 2, NULL) != MOE_OK);
    MOE_ASSERT(encode_chat(t, messages, 0, ids, &n) != MOE_OK);
    MOE_ASSERT(encode_chat(t, &invalid, 1, ids, &n) != MOE_OK);
    MOE_ASSERT(encode_chat(t, &nobody, 1, ids, &n) != MOE_OK);
}

static void use(tokenizer *t)
{
    static const char text[] = "ab  a\n<s> it's \xc3\xa9 e\xcc\x81 \xe2\x96\x81x\xf0\x9f\x98\x80 12 it it\xcc\x81 it_ "
                               "it\xc2\xb2 it\xe2\x93\x90 it\xd9\xa3";
    const tokenizer_span span = {2, 9}, beyond = {2, sizeof text};
    int32_t ids[MAX_IDS], all[VOCAB];
    size_t n = 0, bytes;

    if (tokenizer_encode(t, text, sizeof text - 1, true, &span, 1, ids, MAX_IDS, &n, NULL) == MOE_OK) {
        decode(t, ids, n, true);
    }
    if (tokenizer_encode(t, text, sizeof text - 1, true, NULL, 0, ids, 1, &n, NULL) == MOE_OK) {
        MOE_ASSERT(n <= 1);
    }
    MOE_ASSERT(tokenizer_encode(t, text, sizeof text - 1, true, &beyond, 1, ids, MAX_IDS, &n, NULL) != MOE_OK);
    chat(t, text);
    for (int32_t id = 0; id < VOCAB; id++) {
        all[id] = id;
        (void)tokenizer_token_bytes(t, id, &bytes);
        MOE_ASSERT(bytes <= tokenizer_longest_token_bytes(t));
    }
    decode(t, all, VOCAB, false);
}

/* Every third number from -1 on: some are outside the vocabulary. */
static tokenizer_specials specials_of(const part *p, int32_t ids[MAX_IDS])
{
    tokenizer_specials s = {.bos_id = 1, .eos_id = 2, .ids = ids};

    for (size_t i = 0; p->data && i < p->n && i < MAX_IDS + 2; i++) {
        const int32_t id = (unsigned char)p->data[i] * 3 - 4;

        if (i < 2) {
            *(i == 0 ? &s.bos_id : &s.eos_id) = id;
        } else {
            ids[s.n_ids++] = id;
        }
    }
    return s;
}

static void write_part(const char *dir, const char *name, const part *p)
{
    char path[64];
    FILE *f;

    if (p->data) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, name);
        f = fopen(path, "wbe");
        MOE_ASSERT(f && fwrite(p->data, 1, p->n, f) == p->n && fclose(f) == 0);
    }
}

static void remove_part(const char *dir, const char *name)
{
    char path[64];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)unlink(path);
}

static moe_status open_files(const part parts[3], const tokenizer_specials *specials)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"};
    char dir[] = "/tmp/fuzz_tokenizer_XXXXXX";
    tokenizer *t = NULL;
    moe_status status;

    MOE_ASSERT(mkdtemp(dir));
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        write_part(dir, names[i], &parts[i]);
    }
    status = tokenizer_open(dir, VOCAB, specials, &t, NULL);
    tokenizer_close(t);
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        remove_part(dir, names[i]);
    }
    MOE_ASSERT(rmdir(dir) == 0);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const bool small = size <= MAX_FILES_BYTES;
    part parts[4];
    int32_t special_ids[MAX_IDS];
    tokenizer *t = NULL;
    moe_error err = {""};

    for (size_t i = 0; i < MOE_COUNT(parts); i++) {
        parts[i] = part_take(&data, &size);
    }
    const tokenizer_specials specials = specials_of(&parts[3], special_ids), *given = parts[1].data ? &specials : NULL;
    const moe_status status = !parts[0].data
                                  ? MOE_ERR_NOT_FOUND
                                  : tokenizer_open_memory(parts[0].data, parts[0].n, parts[1].data, parts[1].n,
                                                          parts[2].data, parts[2].n, VOCAB, given, &t, &err);
    if (status == MOE_OK) {
        use(t);
        tokenizer_close(t);
    } else if (parts[0].data) {
        MOE_ASSERT(err.text[0] != '\0');
    }
    MOE_ASSERT(!small || open_files(parts, given) == status);
    for (size_t i = 0; i < MOE_COUNT(parts); i++) {
        free(parts[i].data);
    }
    return 0;
}
