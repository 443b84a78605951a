#include "base/base.h"

#include <stdlib.h>
#include <string.h>

void moe_text_init(moe_text *t, size_t limit)
{
    *t = (moe_text){.limit = limit};
}

void moe_text_init_secret(moe_text *t, size_t limit)
{
    *t = (moe_text){.limit = limit, .is_secret = true};
}

static void free_data(moe_text *t)
{
    if (t->is_secret && t->data != NULL) {
        explicit_bzero(t->data, t->capacity);
    }
    free(t->data);
}

/* As realloc, which would leave a copy of a secret behind. */
static char *grow(moe_text *t, size_t capacity)
{
    if (!t->is_secret) {
        return realloc(t->data, capacity);
    }
    char *data = malloc(capacity);
    if (data != NULL) {
        memcpy(data, t->data != NULL ? t->data : "", t->size);
        free_data(t);
    }
    return data;
}

void moe_text_fini(moe_text *t)
{
    free_data(t);
    *t = (moe_text){0};
}

/* Room for n more bytes and the NUL; false and failed if there is none. */
static bool make_room(moe_text *t, size_t n)
{
    size_t wanted, capacity;
    char *data;

    if (t->failed || t->limit == SIZE_MAX || n > t->limit - t->size) {
        t->failed = true;
        return false;
    }
    wanted = t->size + n + 1;
    if (wanted <= t->capacity) {
        return true;
    }
    capacity = MOE_MAX(wanted, MOE_MIN(MOE_MAX(t->capacity * 2, (size_t)64), t->limit + 1));
    data = grow(t, capacity);
    if (data == NULL) {
        t->failed = true;
        return false;
    }
    t->data = data;
    t->capacity = capacity;
    return true;
}

void moe_text_append(moe_text *t, const void *bytes, size_t n)
{
    if (!make_room(t, n)) {
        return;
    }
    if (n > 0) {
        memcpy(t->data + t->size, bytes, n);
    }
    t->size += n;
    t->data[t->size] = '\0';
}

void moe_text_printf(moe_text *t, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !make_room(t, (size_t)n)) {
        t->failed = true;
        return;
    }
    va_start(args, format);
    (void)vsnprintf(t->data + t->size, (size_t)n + 1, format, args);
    va_end(args);
    t->size += (size_t)n;
}

const char *moe_text_cstr(const moe_text *t)
{
    return t->data != NULL ? t->data : "";
}

/* Length of the valid character at p, 0 if there is none (Unicode 15, table 3-7). */
static size_t utf8_char(const unsigned char *p, size_t n)
{
    unsigned char lo = 0x80, hi = 0xbf;
    size_t length;

    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return 0;
    }
    length = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    switch (p[0]) {
    case 0xe0:
        lo = 0xa0;
        break;
    case 0xed:
        hi = 0x9f;
        break;
    case 0xf0:
        lo = 0x90;
        break;
    case 0xf4:
        hi = 0x8f;
        break;
    default:
        break;
    }
    if (n < length || p[1] < lo || p[1] > hi) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

size_t moe_utf8_valid_prefix(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    size_t at = 0;

    while (at < n) {
        size_t length = utf8_char(p + at, n - at);

        if (length == 0) {
            break;
        }
        at += length;
    }
    return at;
}

static void append_json_ascii(moe_text *t, char c)
{
    if (c == '"' || c == '\\') {
        moe_text_printf(t, "\\%c", c);
    } else if (c == '\n') {
        moe_text_append(t, "\\n", 2);
    } else if ((unsigned char)c < 0x20 || c == 0x7f) {
        moe_text_printf(t, "\\u%04x", (unsigned)(unsigned char)c);
    } else {
        moe_text_append(t, &c, 1);
    }
}

void moe_text_json_string(moe_text *t, const char *bytes, size_t n)
{
    moe_text_append(t, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t length = utf8_char((const unsigned char *)bytes + i, n - i);

        if (length == 0) {
            moe_text_append(t, "\xef\xbf\xbd", 3); /* U+FFFD: JSON has no way to carry the byte */
        } else if (length == 1) {
            append_json_ascii(t, bytes[i]);
        } else {
            moe_text_append(t, bytes + i, length);
        }
        i += MOE_MAX(length, (size_t)1);
    }
    moe_text_append(t, "\"", 1);
}

size_t moe_utf8_get(const char *text, int32_t *char_out)
{
    const unsigned char *p = (const unsigned char *)text;

    if (p[0] < 0x80) {
        *char_out = p[0];
        return 1;
    }
    if (p[0] < 0xe0) {
        *char_out = (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
        return 2;
    }
    if (p[0] < 0xf0) {
        *char_out = (p[0] & 0x0f) << 12 | (p[1] & 0x3f) << 6 | (p[2] & 0x3f);
        return 3;
    }
    *char_out = (p[0] & 0x07) << 18 | (p[1] & 0x3f) << 12 | (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    return 4;
}

void moe_copy_line(char *out, size_t size, const char *text)
{
    (void)snprintf(out, size, "%s", text != NULL ? text : "");
    size_t n = moe_utf8_valid_prefix(out, strlen(out));
    out[n] = '\0';
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f) {
            out[i] = ' ';
        }
    }
}
