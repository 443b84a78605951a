/* CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected), as in RFC 3720. */
#include "proto/wire.h"

#include <string.h>

#define POLYNOMIAL 0x82F63B78u /* reflected */

/* One nibble at a time: 16 words, no start-up, no cache footprint; only machines without the instruction use it. */
static uint32_t nibble(uint32_t crc)
{
    for (int bit = 0; bit < 4; bit++) {
        crc = crc >> 1 ^ (POLYNOMIAL & (0u - (crc & 1)));
    }
    return crc;
}

uint32_t wire_crc32c_portable(uint32_t crc, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint32_t table[16];

    for (uint32_t i = 0; i < 16; i++) {
        table[i] = nibble(i);
    }
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t wide = (uint32_t)~crc;

    for (; n >= 8; n -= 8, p += 8) {
        unsigned long long word;

        memcpy(&word, p, sizeof word);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; n > 0; n--, p++) {
        crc = __builtin_ia32_crc32qi(crc, *p);
    }
    return ~crc;
}

uint32_t wire_crc32c(uint32_t crc, const void *bytes, size_t n)
{
    return __builtin_cpu_supports("sse4.2") ? crc32c_sse42(crc, bytes, n) : wire_crc32c_portable(crc, bytes, n);
}
#else
uint32_t wire_crc32c(uint32_t crc, const void *bytes, size_t n)
{
    return wire_crc32c_portable(crc, bytes, n);
}
#endif
