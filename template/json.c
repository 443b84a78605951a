/* tojson: json.dumps with the arguments that transformers passes on. */
#include "template/template_priv.h"

#include <math.h>
#include <stdio.h>

typedef struct dump {
    render *r;
    builder b;
    bool ascii, sort_keys;
    const text *indent; /* of one level; NULL: all in one line */
    const text *item_end, *key_end;
    size_t level;
} dump;

static void dump_value(dump *d, value v);

static void dump_escape(dump *d, int32_t c, uint8_t origin)
{
    char hex[16];
    int n;

    if (c >= 0x10000) {
        n = snprintf(hex, sizeof hex, "\\u%04x\\u%04x", 0xd800 + (unsigned)((c - 0x10000) >> 10),
                     0xdc00 + ((unsigned)(c - 0x10000) & 0x3ff));
    } else {
        n = snprintf(hex, sizeof hex, "\\u%04x", (unsigned)c);
    }
    builder_add(d->r, &d->b, hex, (size_t)n, origin);
}

static void dump_text(dump *d, const text *t)
{
    static const char simple[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    size_t plain = 0;
    int32_t c;

    builder_add_cstr(d->r, &d->b, "\"");
    for (size_t at = 0, length; at < t->n && RENDER_OK(d->r); at += length) {
        const char *found;

        length = text_character(t, at, &c);
        found = c != 0 && c < 0x80 ? strchr(simple, c) : NULL;
        if (!found && c >= ' ' && !(d->ascii && c >= 0x7f)) {
            continue;
        }
        builder_add_slice(d->r, &d->b, t, plain, at);
        plain = at + length;
        if (found) {
            const char escape[] = {'\\', letters[found - simple]};

            builder_add(d->r, &d->b, escape, 2, text_origin_at(t, at));
        } else {
            dump_escape(d, c, text_origin_at(t, at));
        }
    }
    builder_add_slice(d->r, &d->b, t, plain, t->n);
    builder_add_cstr(d->r, &d->b, "\"");
}

static void dump_float(dump *d, double f)
{
    char number[32];
    const size_t n = print_float(f, number);

    if (isnan(f) || isinf(f)) {
        builder_add_cstr(d->r, &d->b, isnan(f) ? "NaN" : f < 0 ? "-Infinity" : "Infinity");
    } else {
        builder_add(d->r, &d->b, number, n, 0);
    }
}

static void new_line(dump *d)
{
    if (d->indent) {
        builder_add_cstr(d->r, &d->b, "\n");
        for (size_t i = 0; i < d->level && RENDER_OK(d->r); i++) {
            builder_add_text(d->r, &d->b, d->indent);
        }
    }
}

static void dump_seq(dump *d, const seq *s)
{
    if (s->n == 0) {
        builder_add_cstr(d->r, &d->b, "[]");
        return;
    }
    builder_add_cstr(d->r, &d->b, "[");
    d->level++;
    for (size_t i = 0; i < s->n && RENDER_OK(d->r); i++) {
        if (i > 0) {
            builder_add_text(d->r, &d->b, d->item_end);
        }
        new_line(d);
        dump_value(d, s->items[i]);
    }
    d->level--;
    new_line(d);
    builder_add_cstr(d->r, &d->b, "]");
}

static void dump_key(dump *d, value key)
{
    text number = text_empty;
    char digits[32];

    switch (key.kind) {
    case V_TEXT:
        dump_text(d, key.text);
        return;
    case V_BOOL:
        number.data = key.b ? "true" : "false";
        number.n = strlen(number.data);
        break;
    case V_NONE:
        number.data = "null";
        number.n = 4;
        break;
    case V_INT:
        number.data = digits;
        number.n = (size_t)snprintf(digits, sizeof digits, "%lld", (long long)key.i);
        break;
    case V_FLOAT:
        builder_add_cstr(d->r, &d->b, "\"");
        dump_float(d, key.f);
        builder_add_cstr(d->r, &d->b, "\"");
        return;
    default:
        render_fail(d->r, "keys must be str, int, float, bool or None, not %s", value_type_name(key));
        return;
    }
    dump_text(d, &number);
}

/* The pairs by ascending key; insertion, since it is stable and few templates ask for it. */
static const pair *sorted_pairs(dump *d, const dict *from)
{
    pair *pairs = render_take(d->r, from->n * sizeof *pairs);

    for (size_t i = 0; pairs && i < from->n && RENDER_OK(d->r); i++) {
        size_t at = i;

        for (; at > 0 && RENDER_OK(d->r) && render_step(d->r, 0) &&
               value_order(d->r, from->pairs[i].key, pairs[at - 1].key, "<") < 0;
             at--) {
            pairs[at] = pairs[at - 1];
        }
        pairs[at] = from->pairs[i];
    }
    return pairs;
}

static void dump_dict(dump *d, const dict *from)
{
    const pair *pairs = from->n > 0 && d->sort_keys ? sorted_pairs(d, from) : from->pairs;

    if (from->n == 0) {
        builder_add_cstr(d->r, &d->b, "{}");
        return;
    }
    builder_add_cstr(d->r, &d->b, "{");
    d->level++;
    for (size_t i = 0; pairs && i < from->n && RENDER_OK(d->r); i++) {
        if (i > 0) {
            builder_add_text(d->r, &d->b, d->item_end);
        }
        new_line(d);
        dump_key(d, pairs[i].key);
        builder_add_text(d->r, &d->b, d->key_end);
        dump_value(d, pairs[i].value);
    }
    d->level--;
    new_line(d);
    builder_add_cstr(d->r, &d->b, "}");
}

static void dump_one(dump *d, value v)
{
    switch (v.kind) {
    case V_NONE:
        builder_add_cstr(d->r, &d->b, "null");
        break;
    case V_BOOL:
        builder_add_cstr(d->r, &d->b, v.b ? "true" : "false");
        break;
    case V_INT:
        builder_printf(d->r, &d->b, "%lld", (long long)v.i);
        break;
    case V_FLOAT:
        dump_float(d, v.f);
        break;
    case V_TEXT:
        dump_text(d, v.text);
        break;
    case V_DICT:
        dump_dict(d, v.dict);
        break;
    case V_SEQ:
        if (v.seq->kind <= SEQ_TUPLE) {
            dump_seq(d, v.seq);
            break;
        }
        /* fall through */
    default:
        render_fail(d->r, "Object of type %s is not JSON serializable", value_type_name(v));
    }
}

static void dump_value(dump *d, value v)
{
    if (++d->r->depth > MAX_RENDER_DEPTH) {
        render_fail(d->r, "nested too deep; the limit is %d", MAX_RENDER_DEPTH);
    }
    if (render_step(d->r, 0)) {
        dump_one(d, v);
    }
    d->r->depth--;
}

static const text *indent_text(render *r, value indent)
{
    int64_t width;
    builder b = {0};

    if (indent.kind == V_TEXT) {
        return indent.text;
    }
    if (!value_as_int(indent, &width)) {
        if (indent.kind != V_NONE && indent.kind != V_ABSENT) {
            render_fail(r, "indent is a %s", value_type_name(indent));
        }
        return NULL;
    }
    for (int64_t i = 0; i < width && RENDER_OK(r); i++) {
        builder_add_cstr(r, &b, " ");
    }
    return builder_value(r, &b).text;
}

static bool take_separators(dump *d, value separators)
{
    static const text comma = {.data = ", ", .n = 2}, bare_comma = {.data = ",", .n = 1},
                      colon = {.data = ": ", .n = 2};
    const bool given = separators.kind == V_SEQ && separators.seq->kind <= SEQ_TUPLE && separators.seq->n == 2 &&
                       separators.seq->items[0].kind == V_TEXT && separators.seq->items[1].kind == V_TEXT;

    d->item_end = given ? separators.seq->items[0].text : d->indent ? &bare_comma : &comma;
    d->key_end = given ? separators.seq->items[1].text : &colon;
    return given || separators.kind == V_NONE || separators.kind == V_ABSENT;
}

value json_dump(render *r, value v, bool ascii, value indent, value separators, bool sort_keys)
{
    dump d = {.r = r, .ascii = ascii, .sort_keys = sort_keys, .indent = indent_text(r, indent)};

    if (!take_separators(&d, separators)) {
        return render_fail(r, "separators are not two strings");
    }
    dump_value(&d, v);
    return builder_value(r, &d.b);
}
