/* str() and repr() as Python writes them. */
#include "template/template_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The shortest digits that read back as f: "d.ddde+xx" with as few as it takes. */
static void shortest(double f, char out[40])
{
    for (int precision = 0; precision < 17; precision++) {
        (void)snprintf(out, 40, "%.*e", precision, f);
        if (strtod(out, NULL) == f) {
            return;
        }
    }
}

size_t print_float(double f, char out[32])
{
    char scientific[40], digits[24];
    int exponent, n = 0;
    size_t used = 0;

    if (isnan(f) || isinf(f)) {
        return (size_t)snprintf(out, 32, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    }
    shortest(f, scientific);
    exponent = atoi(strchr(scientific, 'e') + 1);
    for (const char *c = scientific; *c != 'e'; c++) {
        if (*c >= '0' && *c <= '9') {
            digits[n++] = *c;
        }
    }
    if (signbit(f)) {
        out[used++] = '-';
    }
    if (exponent < -4 || exponent >= 16) {
        out[used++] = digits[0];
        if (n > 1) {
            out[used++] = '.';
            memcpy(out + used, digits + 1, (size_t)n - 1);
            used += (size_t)n - 1;
        }
        return used + (size_t)snprintf(out + used, 32 - used, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    }
    for (int i = MOE_MIN(exponent, 0); i < MOE_MAX(n, exponent + 2); i++) {
        if (i == exponent + 1) {
            out[used++] = '.';
        }
        out[used++] = i >= 0 && i < n ? digits[i] : '0';
    }
    return used;
}

static void repr_char(render *r, builder *b, const text *t, size_t at, size_t length, int32_t c, char quote)
{
    const char *escaped = c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t" : c == '\\' ? "\\\\" : NULL;
    const uint8_t origin = text_origin_at(t, at);
    char hex[16];
    int n;

    if (escaped) {
        builder_add(r, b, escaped, 2, origin);
    } else if (c == quote) {
        builder_add(r, b, "\\", 1, origin);
        builder_add_slice(r, b, t, at, at + length);
    } else if (c >= ' ' && c != 0x7f && (c < 0x7f || char_is_printable(c))) {
        builder_add_slice(r, b, t, at, at + length);
    } else {
        n = snprintf(hex, sizeof hex, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        builder_add(r, b, hex, (size_t)n, origin);
    }
}

static void repr_text(render *r, builder *b, const text *t)
{
    const bool single = t->n > 0 && memchr(t->data, '\'', t->n) != NULL;
    const bool twice = t->n > 0 && memchr(t->data, '"', t->n) != NULL;
    const char quote = single && !twice ? '"' : '\'';
    int32_t c;

    if (t->markup) {
        builder_add_cstr(r, b, "Markup(");
    }
    builder_add(r, b, &quote, 1, 0);
    for (size_t at = 0, length; at < t->n && RENDER_OK(r); at += length) {
        length = text_character(t, at, &c);
        repr_char(r, b, t, at, length, c, quote);
    }
    builder_add(r, b, &quote, 1, 0);
    if (t->markup) {
        builder_add_cstr(r, b, ")");
    }
}

static void repr_range(render *r, builder *b, const seq *s)
{
    builder_printf(r, b, s->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)", (long long)s->start,
                   (long long)s->stop, (long long)s->step);
}

static void repr_seq(render *r, builder *b, const seq *s)
{
    static const char *const open[] = {"[", "(", "", "", "dict_keys([", "dict_values([", "dict_items(["};
    static const char *const close[] = {"]", ")", "", "", "])", "])", "])"};

    if (s->kind == SEQ_RANGE) {
        repr_range(r, b, s);
        return;
    }
    if (s->kind == SEQ_ITERATOR) {
        render_fail(r, "an iterator is printed: its text would hold an address");
        return;
    }
    builder_add_cstr(r, b, open[s->kind]);
    for (size_t i = 0; i < s->n && RENDER_OK(r); i++) {
        if (i > 0) {
            builder_add_cstr(r, b, ", ");
        }
        print_repr(r, b, s->items[i]);
    }
    builder_add_cstr(r, b, s->kind == SEQ_TUPLE && s->n == 1 ? ",)" : close[s->kind]);
}

static void repr_dict(render *r, builder *b, const dict *d, const char *open, const char *close)
{
    builder_add_cstr(r, b, open);
    for (size_t i = 0; i < d->n && RENDER_OK(r); i++) {
        if (i > 0) {
            builder_add_cstr(r, b, ", ");
        }
        print_repr(r, b, d->pairs[i].key);
        builder_add_cstr(r, b, ": ");
        print_repr(r, b, d->pairs[i].value);
    }
    builder_add_cstr(r, b, close);
}

static void print_plain(render *r, builder *b, value v)
{
    char number[32];

    switch (v.kind) {
    case V_NONE:
        builder_add_cstr(r, b, "None");
        break;
    case V_BOOL:
        builder_add_cstr(r, b, v.b ? "True" : "False");
        break;
    case V_INT:
        builder_printf(r, b, "%lld", (long long)v.i);
        break;
    case V_FLOAT:
        builder_add(r, b, number, print_float(v.f, number), 0);
        break;
    case V_MACRO:
        builder_printf(r, b, "<Macro '%s'>", v.macro->def->name);
        break;
    case V_LOOP:
        builder_printf(r, b, "<LoopContext %zu/%zu>", v.loop->at + 1, v.loop->items->n);
        break;
    default:
        render_fail(r, "a %s is printed: its text would hold an address", value_type_name(v));
    }
}

void print_repr(render *r, builder *b, value v)
{
    if (++r->depth > MAX_RENDER_DEPTH) {
        render_fail(r, "nested too deep; the limit is %d", MAX_RENDER_DEPTH);
    }
    if (render_step(r, 0)) {
        switch (v.kind) {
        case V_UNDEFINED:
            builder_add_cstr(r, b, "Undefined");
            break;
        case V_TEXT:
            repr_text(r, b, v.text);
            break;
        case V_SEQ:
            repr_seq(r, b, v.seq);
            break;
        case V_DICT:
            repr_dict(r, b, v.dict, "{", "}");
            break;
        case V_NAMESPACE:
            repr_dict(r, b, v.dict, "<Namespace {", "}>");
            break;
        default:
            print_plain(r, b, v);
        }
    }
    r->depth--;
}

void print_value(render *r, builder *b, value v)
{
    if (v.kind == V_TEXT) {
        builder_add_text(r, b, v.text);
    } else if (v.kind != V_UNDEFINED) {
        print_repr(r, b, v);
    }
}

value value_to_text(render *r, value v)
{
    builder b = {0};

    if (v.kind == V_TEXT) {
        return v;
    }
    print_value(r, &b, v);
    return builder_value(r, &b);
}
