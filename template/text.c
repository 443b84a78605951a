/* Text: bytes and where each comes from. */
#include "template/template_priv.h"

#include <stdio.h>

/* ------------------------------------------------------------------------------------------------ building */
static bool builder_reserve(render *r, builder *b, size_t n, bool with_origins)
{
    const size_t needed = b->n + n;
    size_t capacity = b->capacity;
    char *data = b->data;
    uint8_t *origins = b->origins;

    if (needed > r->limits.max_output_bytes) {
        render_fail(r, "more than %zu bytes of text", r->limits.max_output_bytes);
        return false;
    }
    if (needed > capacity) {
        capacity = MOE_MAX(capacity * 2, MOE_MAX(needed, (size_t)64));
        data = render_take(r, capacity);
    }
    if ((with_origins || origins) && (!origins || capacity != b->capacity)) {
        origins = render_take(r, capacity);
    }
    if (!RENDER_OK(r)) {
        return false;
    }
    if (data != b->data && b->n > 0) {
        memcpy(data, b->data, b->n);
    }
    if (origins != b->origins && b->n > 0) {
        if (b->origins) {
            memcpy(origins, b->origins, b->n);
        } else {
            memset(origins, b->origin, b->n);
        }
    }
    *b = (builder){data, origins, b->n, capacity, b->origin, b->ascii};
    return true;
}

bool text_is_ascii(const char *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)data[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

static void builder_append(render *r, builder *b, const char *data, size_t n, const uint8_t *origins, uint8_t origin)
{
    if (n == 0 || !render_step(r, n)) {
        return;
    }
    if (b->n == 0) {
        b->origin = origins ? origins[0] : origin;
        b->ascii = true;
    }
    if (!builder_reserve(r, b, n, origins != NULL || origin != b->origin)) {
        return;
    }
    memcpy(b->data + b->n, data, n);
    if (b->origins && origins) {
        memcpy(b->origins + b->n, origins, n);
    } else if (b->origins) {
        memset(b->origins + b->n, origin, n);
    }
    b->n += n;
    b->ascii = b->ascii && text_is_ascii(data, n);
}

void builder_add(render *r, builder *b, const char *data, size_t n, uint8_t origin)
{
    builder_append(r, b, data, n, NULL, origin);
}

void builder_add_slice(render *r, builder *b, const text *t, size_t from, size_t to)
{
    builder_append(r, b, t->data + from, to - from, t->origins ? t->origins + from : NULL, t->origin);
}

void builder_add_text(render *r, builder *b, const text *t)
{
    builder_add_slice(r, b, t, 0, t->n);
}

void builder_add_cstr(render *r, builder *b, const char *s)
{
    builder_add(r, b, s, strlen(s), 0);
}

void builder_printf(render *r, builder *b, const char *format, ...)
{
    char line[512];
    va_list list;
    int n;

    va_start(list, format);
    n = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    builder_add(r, b, line, n > 0 ? MOE_MIN((size_t)n, sizeof line - 1) : 0, 0);
}

value builder_value(render *r, builder *b)
{
    text *t = b->n > 0 ? render_take(r, sizeof *t) : NULL;

    if (!t) {
        return value_text(&text_empty);
    }
    *t = (text){.data = b->data, .origins = b->origins, .n = b->n, .origin = b->origin, .ascii = b->ascii};
    return value_text(t);
}

value text_value(render *r, const char *data, size_t n, uint8_t origin)
{
    text *t = n > 0 ? render_take(r, sizeof *t) : NULL;

    if (!t) {
        return value_text(&text_empty);
    }
    *t = (text){.data = data, .n = n, .origin = origin};
    return value_text(t);
}

value text_slice(render *r, const text *t, size_t from, size_t to)
{
    return from == 0 && to == t->n ? value_text(t) : text_part(r, t, from, to);
}

value text_part(render *r, const text *t, size_t from, size_t to)
{
    text *part = to > from ? render_take(r, sizeof *part) : NULL;

    if (!part) {
        return value_text(&text_empty);
    }
    *part = (text){.data = t->data + from,
                   .origins = t->origins ? t->origins + from : NULL,
                   .n = to - from,
                   .origin = t->origin,
                   .ascii = t->ascii,
                   .markup = t->markup};
    return value_text(part);
}

/* A chain a + b + c goes on in one builder, so it copies each part once. */
value text_add(render *r, const text *a, const text *b)
{
    builder *room = a->room && a->room->n == a->n && a->room->data == a->data ? a->room : render_take(r, sizeof *room);
    text *sum = render_take(r, sizeof *sum);

    if (!room || !sum) {
        return value_text(&text_empty);
    }
    if (room->n == 0) {
        builder_add_text(r, room, a);
    }
    builder_add_text(r, room, b);
    if (!RENDER_OK(r)) {
        return value_text(&text_empty);
    }
    *sum = (text){.data = room->data ? room->data : "",
                  .origins = room->origins,
                  .n = room->n,
                  .room = room,
                  .origin = room->origin,
                  .ascii = room->ascii,
                  .markup = a->markup || b->markup};
    return value_text(sum);
}

char *text_cstr(render *r, const text *t)
{
    char *copy = render_take(r, t->n + 1);

    if (copy && t->n > 0) {
        memcpy(copy, t->data, t->n);
    }
    return copy;
}

/* ------------------------------------------------------------------------------------------------ characters */
size_t text_length(const text *t)
{
    size_t n = 0;

    if (t->ascii) {
        return t->n;
    }
    for (size_t i = 0; i < t->n; i++) {
        n += ((unsigned char)t->data[i] & 0xc0) != 0x80;
    }
    return n;
}

size_t text_offset(const text *t, size_t character)
{
    size_t at = 0;

    if (t->ascii) {
        return MOE_MIN(character, t->n);
    }
    for (; character > 0 && at < t->n; character--) {
        int32_t c;

        at += moe_utf8_get(t->data + at, &c);
    }
    return at;
}

size_t text_character(const text *t, size_t at, int32_t *c)
{
    return moe_utf8_get(t->data + at, c);
}

size_t text_before(const text *t, size_t at, int32_t *c)
{
    size_t begin = at - 1;

    while (begin > 0 && ((unsigned char)t->data[begin] & 0xc0) == 0x80) {
        begin--;
    }
    (void)moe_utf8_get(t->data + begin, c);
    return at - begin;
}

uint8_t text_origin_at(const text *t, size_t at)
{
    return t->origins ? t->origins[at] : t->origin;
}

/* ------------------------------------------------------------------------------------------------ comparing, finding */
bool text_equal(const text *a, const text *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->data, b->data, a->n) == 0);
}

/* The order of UTF-8 bytes is that of code points. */
int text_order(const text *a, const text *b)
{
    const size_t n = MOE_MIN(a->n, b->n);
    const int order = n > 0 ? memcmp(a->data, b->data, n) : 0;

    return order != 0 ? (order > 0) - (order < 0) : (a->n > b->n) - (a->n < b->n);
}

bool text_has(const text *t, size_t at, const text *what)
{
    return at <= t->n && t->n - at >= what->n && (what->n == 0 || memcmp(t->data + at, what->data, what->n) == 0);
}

size_t text_search(const text *t, const text *what, size_t from)
{
    const char *found;

    if (from > t->n) {
        return TEXT_NOT_FOUND;
    }
    if (what->n == 0) {
        return from;
    }
    found = memmem(t->data + from, t->n - from, what->data, what->n);
    return found ? (size_t)(found - t->data) : TEXT_NOT_FOUND;
}

size_t text_search_back(const text *t, const text *what, size_t end)
{
    if (what->n > end) {
        return TEXT_NOT_FOUND;
    }
    for (size_t at = end - what->n + 1; at-- > 0;) {
        if (text_has(t, at, what)) {
            return at;
        }
    }
    return TEXT_NOT_FOUND;
}

/* ------------------------------------------------------------------------------------------------ new texts */
/* old is empty: new goes before every character and to the end. */
static value interleave(render *r, const text *t, const text *new, int64_t count)
{
    builder b = {0};
    size_t at = 0;
    int32_t c;

    while (RENDER_OK(r)) {
        if (count == 0) {
            builder_add_slice(r, &b, t, at, t->n);
            break;
        }
        builder_add_text(r, &b, new);
        count -= count > 0;
        if (at == t->n) {
            break;
        }
        const size_t length = text_character(t, at, &c);

        builder_add_slice(r, &b, t, at, at + length);
        at += length;
    }
    return builder_value(r, &b);
}

value text_replace(render *r, const text *t, const text *old, const text *new, int64_t count)
{
    builder b = {0};
    size_t at = 0, found;

    if (!render_step(r, t->n)) {
        return value_none();
    }
    if (old->n == 0) {
        return interleave(r, t, new, count);
    }
    for (; count != 0 && RENDER_OK(r) && (found = text_search(t, old, at)) != TEXT_NOT_FOUND; count -= count > 0) {
        builder_add_slice(r, &b, t, at, found);
        builder_add_text(r, &b, new);
        at = found + old->n;
        if (!render_step(r, 0)) {
            break;
        }
    }
    if (at == 0) {
        return value_text(t);
    }
    builder_add_slice(r, &b, t, at, t->n);
    return builder_value(r, &b);
}

static bool to_strip(const text *chars, int32_t c)
{
    char utf8[4];
    text one = {.data = utf8};

    if (!chars) {
        return char_is_space(c);
    }
    one.n = char_put(c, utf8);
    return text_search(chars, &one, 0) != TEXT_NOT_FOUND;
}

value text_strip(render *r, const text *t, const text *chars, bool left, bool right)
{
    size_t begin = 0, end = t->n;
    int32_t c;

    while (left && begin < end) {
        const size_t length = text_character(t, begin, &c);

        if (!to_strip(chars, c) || !render_step(r, chars ? chars->n : 0)) {
            break;
        }
        begin += length;
    }
    while (right && begin < end) {
        const size_t length = text_before(t, end, &c);

        if (!to_strip(chars, c) || !render_step(r, chars ? chars->n : 0)) {
            break;
        }
        end -= length;
    }
    return text_slice(r, t, begin, end);
}

value text_lines(render *r, const text *t, bool keep_ends)
{
    const value lines = seq_new(r, SEQ_LIST, 0);
    size_t begin = 0;
    int32_t c;

    for (size_t at = 0; at < t->n && RENDER_OK(r);) {
        const size_t end = at;

        at += text_character(t, at, &c);
        if (char_is_line_end(c)) {
            at += c == '\r' && at < t->n && t->data[at] == '\n';
            seq_add(r, lines.seq, text_slice(r, t, begin, keep_ends ? at : end));
            begin = at;
        }
    }
    if (begin < t->n && RENDER_OK(r)) {
        seq_add(r, lines.seq, text_slice(r, t, begin, t->n));
    }
    return RENDER_OK(r) ? lines : value_none();
}

value text_escape(render *r, const text *t)
{
    static const struct {
        char c;
        const char *entity;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    builder b = {0};
    value v;

    for (size_t at = 0; at < t->n && RENDER_OK(r); at++) {
        const char *entity = NULL;

        for (size_t i = 0; i < MOE_COUNT(entities); i++) {
            entity = t->data[at] == entities[i].c ? entities[i].entity : entity;
        }
        if (entity) {
            builder_add(r, &b, entity, strlen(entity), text_origin_at(t, at));
        } else {
            builder_add_slice(r, &b, t, at, at + 1);
        }
    }
    v = builder_value(r, &b);
    if (v.text != &text_empty) {
        text *safe = (text *)(uintptr_t)v.text; /* made just now */

        safe->markup = true;
    }
    return v;
}
