/* "..." % values, and "...".format(values). */
#include "template/template_priv.h"

#include <math.h>
#include <stdio.h>

enum { MAX_FIELD = 400 /* width and precision */ };

typedef struct conversion {
    bool left, zero, plus, space, alternate;
    int width, precision; /* precision -1: none */
    char kind;
} conversion;

typedef struct formatting {
    const text *format;
    size_t at;
    value arguments;
    size_t next;
    bool named;
} formatting;

static char here(const formatting *f)
{
    return f->at < f->format->n ? f->format->data[f->at] : '\0';
}

static value next_argument(render *r, formatting *f)
{
    if (f->arguments.kind != V_SEQ || f->arguments.seq->kind != SEQ_TUPLE) {
        return f->next++ == 0 ? f->arguments : render_fail(r, "not enough arguments for format string");
    }
    return f->next < f->arguments.seq->n ? f->arguments.seq->items[f->next++]
                                         : render_fail(r, "not enough arguments for format string");
}

static value named_argument(render *r, formatting *f)
{
    const size_t begin = ++f->at;
    const value *found;

    while (f->at < f->format->n && here(f) != ')') {
        f->at++;
    }
    if (f->at == f->format->n || f->arguments.kind != V_DICT) {
        return render_fail(r, "format requires a mapping");
    }
    found = dict_find_text(f->arguments.dict, f->format->data + begin, f->at - begin);
    f->at++;
    f->named = true;
    return found ? *found : render_fail(r, "a key of the format string is not there");
}

static int read_number(render *r, formatting *f)
{
    int number = 0;

    for (; here(f) >= '0' && here(f) <= '9'; f->at++) {
        number = number * 10 + (here(f) - '0');
        if (number > MAX_FIELD) {
            render_fail(r, "a field of more than %d characters", MAX_FIELD);
            return 0;
        }
    }
    return number;
}

static conversion read_conversion(render *r, formatting *f)
{
    conversion c = {.precision = -1};

    for (;; f->at++) {
        const char flag = here(f);

        c.left |= flag == '-';
        c.zero |= flag == '0';
        c.plus |= flag == '+';
        c.space |= flag == ' ';
        c.alternate |= flag == '#';
        if (flag == '\0' || !strchr("-0+ #", flag)) {
            break;
        }
    }
    c.width = read_number(r, f);
    if (here(f) == '.') {
        f->at++;
        c.precision = read_number(r, f);
    }
    c.kind = here(f);
    f->at += f->at < f->format->n;
    return c;
}

static void add_padded(render *r, builder *b, const conversion *c, const text *t)
{
    const size_t n = text_length(t);

    for (size_t i = n; !c->left && i < (size_t)c->width && RENDER_OK(r); i++) {
        builder_add_cstr(r, b, " ");
    }
    builder_add_text(r, b, t);
    for (size_t i = n; c->left && i < (size_t)c->width && RENDER_OK(r); i++) {
        builder_add_cstr(r, b, " ");
    }
}

static void add_string(render *r, builder *b, const conversion *c, value v)
{
    builder piece = {0};
    value t;

    if (c->kind == 's') {
        print_value(r, &piece, v);
    } else {
        print_repr(r, &piece, v);
    }
    t = builder_value(r, &piece);
    if (c->precision >= 0 && RENDER_OK(r)) {
        t = text_slice(r, t.text, 0, text_offset(t.text, (size_t)c->precision));
    }
    add_padded(r, b, c, t.text);
}

static void add_number(render *r, builder *b, const conversion *c, value v)
{
    const bool is_float = strchr("eEfFgG", c->kind) != NULL;
    char format[32], out[1200];
    int64_t i = 0;
    int n;

    if (!value_is_number(v) || (strchr("xXo", c->kind) && v.kind == V_FLOAT)) {
        render_fail(r, "%%%c format: a real number is required, not %s", c->kind, value_type_name(v));
        return;
    }
    if (!is_float && v.kind == V_FLOAT && !(fabs(v.f) < 9e18)) {
        render_fail(r, "an integer of %g is beyond 64 bits", v.f);
        return;
    }
    (void)snprintf(format, sizeof format, "%%%s%s%s%s%s*.*%s%c", c->left ? "-" : "", c->zero ? "0" : "",
                   c->plus ? "+" : "", c->space ? " " : "", c->alternate ? "#" : "", is_float ? "" : "ll",
                   c->kind == 'i' || c->kind == 'u' ? 'd' : c->kind);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* made above, of known letters alone */
    if (is_float) {
        n = snprintf(out, sizeof out, format, c->width, c->precision, value_as_float(v));
    } else {
        i = value_as_int(v, &i) ? i : (int64_t)v.f;
        if (i < 0 && strchr("xXo", c->kind)) {
            render_fail(r, "a negative number in base 8 or 16 is not known");
        }
        n = snprintf(out, sizeof out, format, c->width, c->precision, (long long)i);
    }
#pragma GCC diagnostic pop
    builder_add(r, b, out, n > 0 ? MOE_MIN((size_t)n, sizeof out - 1) : 0, 0);
}

static void add_char(render *r, builder *b, const conversion *c, value v)
{
    char utf8[4];
    int64_t code = 0;

    if (v.kind == V_TEXT && text_length(v.text) == 1) {
        add_padded(r, b, c, v.text);
    } else if (value_as_int(v, &code) && code >= 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)) {
        const text one = {.data = utf8, .n = char_put((int32_t)code, utf8)};

        add_padded(r, b, c, &one);
    } else {
        render_fail(r, "%%c requires int or char");
    }
}

static void add_conversion(render *r, builder *b, formatting *f)
{
    value v = {.kind = V_ABSENT};
    conversion c;

    if (here(f) == '(') {
        v = named_argument(r, f);
    }
    c = read_conversion(r, f);
    if (c.kind == '%') {
        builder_add_cstr(r, b, "%");
        return;
    }
    if (RENDER_OK(r) && (c.kind == '\0' || !strchr("srcdiueEfFgGxXo", c.kind))) {
        render_fail(r, "unsupported format character");
    }
    v = RENDER_OK(r) && v.kind == V_ABSENT ? next_argument(r, f) : v;
    if (!RENDER_OK(r)) {
        return;
    }
    if (c.kind == 's' || c.kind == 'r') {
        add_string(r, b, &c, v);
    } else if (c.kind == 'c') {
        add_char(r, b, &c, v);
    } else {
        add_number(r, b, &c, v);
    }
}

/* To Python, all that takes a subscript may be one, and need not be used up. */
static bool counts_as_mapping(value v)
{
    return v.kind == V_DICT || v.kind == V_UNDEFINED ||
           (v.kind == V_SEQ && (v.seq->kind == SEQ_LIST || v.seq->kind == SEQ_RANGE));
}

value text_format(render *r, const text *format, value arguments)
{
    formatting f = {.format = format, .arguments = arguments};
    const bool is_tuple = arguments.kind == V_SEQ && arguments.seq->kind == SEQ_TUPLE;
    builder b = {0};

    while (f.at < format->n && RENDER_OK(r)) {
        if (here(&f) != '%') {
            builder_add_slice(r, &b, format, f.at, f.at + 1);
            f.at++;
            continue;
        }
        f.at++;
        add_conversion(r, &b, &f);
    }
    if (RENDER_OK(r) && !f.named &&
        (is_tuple ? f.next < arguments.seq->n : f.next == 0 && !counts_as_mapping(arguments))) {
        return render_fail(r, "not all arguments converted during string formatting");
    }
    return builder_value(r, &b);
}

/* ------------------------------------------------------------------------------------------------ "{}".format() */
typedef struct fields {
    const args *a;
    size_t next; /* of {} */
} fields;

static value field_value(render *r, fields *f, const text *name)
{
    size_t at = 0;
    bool number = name->n > 0;

    for (size_t i = 0; i < name->n; i++) {
        number = number && name->data[i] >= '0' && name->data[i] <= '9' && name->n < 9;
        at = number ? at * 10 + (size_t)(name->data[i] - '0') : at;
    }
    if (name->n == 0 || number) {
        at = number ? at : f->next++;
        return at < f->a->n ? f->a->items[at] : render_fail(r, "replacement index %zu out of range", at);
    }
    for (size_t i = 0; i < f->a->n_keywords; i++) {
        if (strlen(f->a->keywords[i]) == name->n && memcmp(f->a->keywords[i], name->data, name->n) == 0) {
            return f->a->values[i];
        }
    }
    return render_fail(r, "format: no argument '%.*s'", (int)MOE_MIN(name->n, (size_t)60), name->data);
}

/* {}, {0}, {name}; what follows a colon or a dot is not known. */
static size_t add_field(render *r, builder *b, const text *t, size_t at, fields *f)
{
    const char *end = memchr(t->data + at, '}', t->n - at);
    text name = {.data = t->data + at, .n = end ? (size_t)(end - t->data) - at : 0};
    value v;

    for (size_t i = 0; i < name.n; i++) {
        if (strchr(":!.[{", name.data[i])) {
            render_fail(r, "format: a field with more than a name or number is not known");
        }
    }
    if (!end) {
        render_fail(r, "format: expected '}' before end of string");
    }
    v = RENDER_OK(r) ? field_value(r, f, &name) : value_none();
    if (RENDER_OK(r)) {
        print_value(r, b, v);
    }
    return at + name.n + 1;
}

value text_format_method(render *r, value v, const args *a)
{
    const text *t = v.text;
    fields f = {a, 0};
    builder b = {0};

    for (size_t at = 0; at < t->n && RENDER_OK(r);) {
        const char c = t->data[at];
        const bool twice = at + 1 < t->n && t->data[at + 1] == c;

        if (c == '{' && !twice) {
            at = add_field(r, &b, t, at + 1, &f);
        } else if (c == '}' && !twice) {
            render_fail(r, "format: single '}' encountered");
        } else {
            builder_add_slice(r, &b, t, at, at + 1);
            at += 1 + (size_t)(c == '{' || c == '}');
        }
    }
    return builder_value(r, &b);
}
