/* Any bytes as data.pkl: refused, or every tensor lies within the storage that it names. */
#include "checkpoint/pickle_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const pickle_tensor *t, const uint8_t *data, size_t size)
{
    size_t numel = 1;
    uint64_t last = t->offset;

    MOE_ASSERT((const uint8_t *)t->name >= data && (const uint8_t *)t->name + t->name_bytes <= data + size);
    MOE_ASSERT((const uint8_t *)t->key >= data && (const uint8_t *)t->key + t->key_bytes <= data + size);
    MOE_ASSERT(t->name_bytes > 0 && t->name_bytes <= CHECKPOINT_MAX_NAME && t->rank <= CHECKPOINT_MAX_RANK);
    for (size_t i = 0; i < t->rank; i++) {
        numel *= t->shape[i];
    }
    MOE_ASSERT(numel == t->numel && numel <= t->storage_numel);
    for (size_t i = 0; numel > 0 && i < t->rank; i++) {
        last += (uint64_t)(t->shape[i] - 1) * t->stride[i];
    }
    MOE_ASSERT(numel == 0 || last < t->storage_numel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pickle_tensors t = {0};
    moe_error err = {.text = ""};

    if (pickle_parse(data, size, "input", &t, &err) == MOE_OK) {
        for (size_t i = 0; i < t.n_tensors; i++) {
            check(&t.tensors[i], data, size);
        }
    } else {
        MOE_ASSERT(t.tensors == NULL && err.text[0] != '\0');
    }
    pickle_tensors_fini(&t);
    return 0;
}
