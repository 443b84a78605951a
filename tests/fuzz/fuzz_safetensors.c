/* Any bytes as one safetensors file: refused, or every tensor lies inside and is found by its name. */
#include "checkpoint/checkpoint.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const checkpoint *c, const uint8_t *data, size_t size)
{
    size_t bytes = 0;

    for (size_t i = 0; i < checkpoint_n_tensors(c); i++) {
        const checkpoint_tensor *t = checkpoint_at(c, i);
        MOE_ASSERT(t->data >= data && t->bytes <= (size_t)(data + size - t->data));
        MOE_ASSERT(t->rank <= CHECKPOINT_MAX_RANK && strlen(t->name) <= CHECKPOINT_MAX_NAME);
        MOE_ASSERT(i == 0 || strcmp(checkpoint_at(c, i - 1)->name, t->name) < 0);
        MOE_ASSERT(checkpoint_find(c, t->name) == t);
        bytes += t->bytes;
    }
    MOE_ASSERT(bytes == checkpoint_total_bytes(c) && bytes <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    checkpoint *c = NULL;
    moe_error err = {.text = ""};

    if (checkpoint_open_memory(data, size, "input", &c, &err) == MOE_OK) {
        check(c, data, size);
    } else {
        MOE_ASSERT(c == NULL && err.text[0] != '\0');
    }
    checkpoint_close(c);
    return 0;
}
