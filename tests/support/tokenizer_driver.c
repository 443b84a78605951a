/* tokenizer_driver FILE: FILE is a tokenizer.json, or a tokenizer.model by its ending. Reads texts from standard input,
 * each as a u32 (little-endian) byte count and its bytes; writes for each a u32 count of ids, the ids, a u32 count of
 * bytes and the decoded text.
 * tokenizer_driver FILE --all: adds special tokens, and behind the decoded text writes it a second time without them. Each
 * text must also encode into exactly as much room as it needs.
 * tokenizer_driver FILE --decode: reads u32 counts, each before so many ids; writes for each a u32 count of bytes and
 * the decoded text, without special tokens. For tools/check_peers_tokenizers.py and
 * tools/check_peers_sentencepiece.py. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 1 << 20, VOCAB_SIZE = 1 << 20 };

static bool write_decoded(tokenizer *t, const int32_t *ids, size_t n_ids, bool skip_special)
{
    tokenizer_decode d;
    moe_text out;
    uint32_t count;
    bool ok;

    moe_text_init(&out, (size_t)MAX_TEXT * 16);
    tokenizer_decode_init(&d, t, skip_special);
    for (size_t i = 0; i < n_ids; i++) {
        tokenizer_decode_push(&d, ids[i], &out);
    }
    tokenizer_decode_finish(&d, &out);
    count = (uint32_t)out.size;
    ok = !out.failed && fwrite(&count, 4, 1, stdout) == 1 && fwrite(moe_text_cstr(&out), 1, out.size, stdout) == count;
    moe_text_fini(&out);
    return ok;
}

static bool encode(tokenizer *t, bool all, const char *text, size_t n, int32_t *ids)
{
    moe_error err = {""};
    size_t n_ids = 0;
    uint32_t count;

    if (tokenizer_encode(t, text, n, all, NULL, 0, ids, MAX_TEXT, &n_ids, &err) != MOE_OK) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    count = (uint32_t)n_ids;
    if (all && tokenizer_encode(t, text, n, all, NULL, 0, ids, count, &n_ids, &err) != MOE_OK) {
        fprintf(stderr, "with room for exactly %u: %s\n", (unsigned)count, err.text);
        return false;
    }
    return fwrite(&count, 4, 1, stdout) == 1 && fwrite(ids, 4, n_ids, stdout) == n_ids &&
           write_decoded(t, ids, n_ids, false) && (!all || write_decoded(t, ids, n_ids, true));
}

static bool encode_all(tokenizer *t, bool decode, bool all, char *text, int32_t *ids)
{
    uint32_t n;

    while (fread(&n, 4, 1, stdin) == 1) {
        if (n > MAX_TEXT || fread(decode ? (void *)ids : text, decode ? 4 : 1, n, stdin) != n ||
            !(decode ? write_decoded(t, ids, n, true) : encode(t, all, text, n, ids))) {
            return false;
        }
    }
    return fflush(stdout) == 0;
}

static moe_status open_file(const char *path, tokenizer **out, moe_error *err)
{
    const size_t n_path = strlen(path);
    char *data = NULL;
    size_t bytes = 0;
    moe_status status = moe_file_read(path, (size_t)256 << 20, &data, &bytes, err);

    if (status == MOE_OK) {
        status = n_path > 6 && strcmp(path + n_path - 6, ".model") == 0
                     ? tokenizer_open_model_memory(data, bytes, NULL, 0, NULL, 0, VOCAB_SIZE, NULL, out, err)
                     : tokenizer_open_memory(data, bytes, NULL, 0, NULL, 0, VOCAB_SIZE, NULL, out, err);
    }
    free(data);
    return status;
}

int main(int argc, char **argv)
{
    const bool decode = argc == 3 && strcmp(argv[2], "--decode") == 0, all = argc == 3 && strcmp(argv[2], "--all") == 0;
    char *text = malloc(MAX_TEXT);
    int32_t *ids = malloc(sizeof *ids * MAX_TEXT);
    moe_error err = {""};
    tokenizer *t = NULL;
    bool ok = (argc == 2 || decode || all) && text && ids && open_file(argv[1], &t, &err) == MOE_OK;

    if (!ok) {
        fprintf(stderr, "tokenizer_driver FILE [--decode|--all]: %s\n", err.text);
    }
    ok = ok && encode_all(t, decode, all, text, ids);
    tokenizer_close(t);
    free(text);
    free(ids);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
