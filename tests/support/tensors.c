#include "tests/support/support.h"

#include <stdlib.h>

#define HEADER_LIMIT ((size_t)64 << 20)

struct test_tensors {
    moe_text header; /* the entries so far, without the braces */
    moe_text data;
    size_t n_tensors;
};

test_tensors *test_tensors_open(void)
{
    test_tensors *t = calloc(1, sizeof *t);

    assert_non_null(t);
    moe_text_init(&t->header, HEADER_LIMIT);
    moe_text_init(&t->data, SIZE_MAX / 4);
    return t;
}

void test_tensors_close(test_tensors *t)
{
    moe_text_fini(&t->header);
    moe_text_fini(&t->data);
    free(t);
}

void test_tensors_add(test_tensors *t, const char *name, const char *dtype, const size_t *shape, size_t n_dims,
                      const void *bytes, size_t n_bytes)
{
    moe_text_printf(&t->header, "%s", t->n_tensors++ > 0 ? "," : "");
    moe_text_json_string(&t->header, name, strlen(name));
    moe_text_printf(&t->header, ":{\"dtype\":\"%s\",\"shape\":[", dtype);
    for (size_t i = 0; i < n_dims; i++) {
        moe_text_printf(&t->header, "%s%zu", i > 0 ? "," : "", shape[i]);
    }
    moe_text_printf(&t->header, "],\"data_offsets\":[%zu,%zu]}", t->data.size, t->data.size + n_bytes);
    moe_text_append(&t->data, bytes, n_bytes);
    assert_false(t->header.failed || t->data.failed);
}

unsigned char *test_tensors_bytes(const test_tensors *t, size_t *n_out)
{
    size_t header_bytes = moe_round_up(t->header.size + 2, 8);
    size_t n = 8 + header_bytes + t->data.size;
    unsigned char *file = malloc(n);
    moe_buf b;

    assert_non_null(file);
    moe_buf_init(&b, file, n);
    moe_put_u64(&b, header_bytes);
    moe_put_u8(&b, '{');
    moe_put_bytes(&b, t->header.data, t->header.size);
    moe_put_u8(&b, '}');
    while (b.used < 8 + header_bytes) {
        moe_put_u8(&b, ' ');
    }
    moe_put_bytes(&b, t->data.data, t->data.size);
    assert_false(b.failed);
    *n_out = n;
    return file;
}

void test_tensors_save(const test_tensors *t, const char *path)
{
    size_t n;
    unsigned char *file = test_tensors_bytes(t, &n);

    test_write_file(path, file, n);
    free(file);
}
