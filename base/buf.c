#include "base/base.h"

#include <string.h>

void moe_buf_init(moe_buf *b, void *data, size_t capacity)
{
    static unsigned char nothing[1]; /* so that no pointer is ever computed from NULL */

    MOE_ASSERT(data != NULL || capacity == 0);
    *b = (moe_buf){.data = data != NULL ? data : nothing, .capacity = capacity};
}

/* The next n bytes, or NULL and failed. */
static unsigned char *take(moe_buf *b, size_t n)
{
    unsigned char *p;

    if (b->failed || n > b->capacity - b->used) {
        b->failed = true;
        return NULL;
    }
    p = b->data + b->used;
    b->used += n;
    return p;
}

static void put_little_endian(moe_buf *b, uint64_t v, size_t n)
{
    unsigned char *p = take(b, n);

    for (size_t i = 0; p != NULL && i < n; i++) {
        p[i] = (unsigned char)(v >> (8 * i));
    }
}

static uint64_t get_little_endian(moe_buf *b, size_t n)
{
    const unsigned char *p = take(b, n);
    uint64_t v = 0;

    for (size_t i = 0; p != NULL && i < n; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

void moe_put_u8(moe_buf *b, uint8_t v)
{
    put_little_endian(b, v, 1);
}

void moe_put_u16(moe_buf *b, uint16_t v)
{
    put_little_endian(b, v, 2);
}

void moe_put_u32(moe_buf *b, uint32_t v)
{
    put_little_endian(b, v, 4);
}

void moe_put_u64(moe_buf *b, uint64_t v)
{
    put_little_endian(b, v, 8);
}

void moe_put_bytes(moe_buf *b, const void *bytes, size_t n)
{
    unsigned char *p = take(b, n);

    if (p != NULL && n > 0) {
        memcpy(p, bytes, n);
    }
}

void *moe_put_reserve(moe_buf *b, size_t n)
{
    return take(b, n);
}

uint8_t moe_get_u8(moe_buf *b)
{
    return (uint8_t)get_little_endian(b, 1);
}

uint16_t moe_get_u16(moe_buf *b)
{
    return (uint16_t)get_little_endian(b, 2);
}

uint32_t moe_get_u32(moe_buf *b)
{
    return (uint32_t)get_little_endian(b, 4);
}

uint64_t moe_get_u64(moe_buf *b)
{
    return get_little_endian(b, 8);
}

const void *moe_get_bytes(moe_buf *b, size_t n)
{
    return take(b, n);
}
