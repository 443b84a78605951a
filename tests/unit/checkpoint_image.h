/* What the tests of checkpoint/ share: images made in memory. */
#ifndef CONCLAVE_TESTS_CHECKPOINT_IMAGE_H
#define CONCLAVE_TESTS_CHECKPOINT_IMAGE_H

#include "checkpoint/checkpoint.h"
#include "tests/support/support.h"

#include <stdlib.h>

typedef struct image {
    unsigned char *bytes; /* owned, exactly n: a byte beyond is a sanitizer's */
    size_t n;
} image;

/* Length, header as it is, and data bytes 0, 1, 2, ... */
static inline image image_make(const char *header, size_t header_bytes, size_t data_bytes)
{
    image m = {malloc(8 + header_bytes + data_bytes), 8 + header_bytes + data_bytes};

    assert_non_null(m.bytes);
    for (size_t i = 0; i < 8; i++) {
        m.bytes[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
    }
    memcpy(m.bytes + 8, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++) {
        m.bytes[8 + header_bytes + i] = (unsigned char)i;
    }
    return m;
}

static inline image image_of(const char *header, size_t data_bytes)
{
    return image_make(header, strlen(header), data_bytes);
}

static inline void image_free(image *m)
{
    free(m->bytes);
    *m = (image){0};
}

/* Reads every byte of every tensor, so that one that lies outside is found. */
static inline unsigned checkpoint_touch(const checkpoint *c)
{
    unsigned sum = 0;

    for (size_t i = 0; i < checkpoint_n_tensors(c); i++) {
        const checkpoint_tensor *t = checkpoint_at(c, i);
        for (size_t j = 0; j < t->bytes; j++) {
            sum += t->data[j];
        }
    }
    return sum;
}

#endif
