/* tokenizer_probe TOKENIZER_JSON: reads texts from standard input, each as a u32 (little-endian) byte count and its
 * bytes; writes for each a u32 count of ids, the ids, a u32 count of bytes and the decoded text. For
 * tools/check_peers_tokenizers.py. */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

enum { MAX_TEXT = 1 << 20, VOCAB_SIZE = 1 << 20 };

static bool probe(tokenizer *t, const char *text, size_t n, int32_t *ids)
{
    tokenizer_decode d;
    moe_error err = {""};
    size_t n_ids = 0;
    uint32_t counts[2];
    moe_text out;
    bool ok;

    moe_text_init(&out, (size_t)MAX_TEXT * 16);
    if (tokenizer_encode(t, text, n, false, NULL, 0, ids, MAX_TEXT, &n_ids, &err) != MOE_OK) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    tokenizer_decode_init(&d, t, false);
    for (size_t i = 0; i < n_ids; i++) {
        tokenizer_decode_push(&d, ids[i], &out);
    }
    tokenizer_decode_finish(&d, &out);
    counts[0] = (uint32_t)n_ids;
    counts[1] = (uint32_t)out.size;
    ok = fwrite(&counts[0], 4, 1, stdout) == 1 && fwrite(ids, 4, n_ids, stdout) == n_ids &&
         fwrite(&counts[1], 4, 1, stdout) == 1 && fwrite(moe_text_cstr(&out), 1, out.size, stdout) == out.size;
    moe_text_fini(&out);
    return ok;
}

static bool probe_all(tokenizer *t, char *text, int32_t *ids)
{
    uint32_t n;

    while (fread(&n, 4, 1, stdin) == 1) {
        if (n > MAX_TEXT || fread(text, 1, n, stdin) != n || !probe(t, text, n, ids)) {
            return false;
        }
    }
    return fflush(stdout) == 0;
}

int main(int argc, char **argv)
{
    char *json = NULL, *text = malloc(MAX_TEXT);
    int32_t *ids = malloc(sizeof *ids * MAX_TEXT);
    size_t bytes;
    moe_error err = {""};
    tokenizer *t = NULL;
    bool ok = argc == 2 && text && ids && moe_file_read(argv[1], (size_t)256 << 20, &json, &bytes, &err) == MOE_OK &&
              tokenizer_open_memory(json, bytes, NULL, 0, NULL, 0, VOCAB_SIZE, NULL, &t, &err) == MOE_OK;

    if (!ok) {
        fprintf(stderr, "tokenizer_probe TOKENIZER_JSON: %s\n", err.text);
    }
    ok = ok && probe_all(t, text, ids);
    tokenizer_close(t);
    free(json);
    free(text);
    free(ids);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
