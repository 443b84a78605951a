/* Any bytes as model.safetensors.index.json of a directory with two sound shards. */
#include "checkpoint/checkpoint.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BYTE(name, range) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" range "]}"
#define SHARD_A           "{" BYTE("x", "0,1") "," BYTE("z", "1,2") "}"
#define SHARD_B           "{" BYTE("y", "0,1") "}"

static size_t make_shard(uint8_t *out, const char *header, size_t data_bytes)
{
    const size_t n = strlen(header);

    memset(out, 0, 8);
    out[0] = (uint8_t)n;
    memcpy(out + 8, header, n);
    memset(out + 8 + n, 7, data_bytes);
    return 8 + n + data_bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t a[256], b[256];
    const checkpoint_image images[] = {{"model.safetensors.index.json", data, size},
                                       {"a.safetensors", a, make_shard(a, SHARD_A, 2)},
                                       {"b.safetensors", b, make_shard(b, SHARD_B, 1)}};
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    if (checkpoint_open_images(images, MOE_COUNT(images), &c, &err) == MOE_OK) {
        /* one or both shards, each in full */
        const size_t n = checkpoint_n_tensors(c);
        MOE_ASSERT(n >= 1 && n <= 3 && checkpoint_total_bytes(c) == n);
        for (size_t i = 0; i < n; i++) {
            MOE_ASSERT(checkpoint_at(c, i)->data[0] == 7);
        }
    } else {
        MOE_ASSERT(c == NULL && err.text[0] != '\0');
    }
    checkpoint_close(c);
    return 0;
}
