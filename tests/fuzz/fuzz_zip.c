/* Any bytes as a file of torch.save: refused, or every tensor can be read. The CRC-32 of what is read is checked, so
 * most of what the pickle can say is left to fuzz_pickle. */
#include "checkpoint/torch_file_priv.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_tensor(torch_file *f, const torch_tensor *t)
{
    moe_error err = {.text = ""};
    unsigned char *items = malloc(t->bytes + 1);

    MOE_ASSERT(items != NULL);
    if (torch_file_check(f, t, &err) == MOE_OK) {
        torch_tensor_gather(t, 0, t->bytes / t->item_bytes, items);
    } else {
        MOE_ASSERT(err.text[0] != '\0');
    }
    free(items);
}

static void check_archive(const zip_archive *zip, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < zip->n_entries; i++) {
        const zip_entry *m = &zip->entries[i];
        MOE_ASSERT(m->begin < m->end && m->end <= size && m->data >= data + m->begin &&
                   m->data + m->bytes <= data + m->end);
        MOE_ASSERT(zip_find(zip, m->name, m->name_bytes) == m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    torch_file f = {0};
    zip_archive zip = {0};
    moe_error err = {.text = ""};

    if (zip_open(data, size, "input", &zip, &err) == MOE_OK) {
        check_archive(&zip, data, size);
    } else {
        MOE_ASSERT(zip.entries == NULL && err.text[0] != '\0');
    }
    zip_close(&zip);
    if (torch_file_open(data, size, "input", &f, &err) == MOE_OK) {
        for (size_t i = 0; i < f.n_tensors; i++) {
            read_tensor(&f, &f.tensors[i]);
        }
        MOE_ASSERT(f.total_bytes <= 17 * size);
    } else {
        MOE_ASSERT(err.text[0] != '\0');
    }
    torch_file_close(&f);
    return 0;
}
