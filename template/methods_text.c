/* Methods of str. */
#include "template/template_priv.h"

/* ------------------------------------------------------------------------------------------------ where */
/* The bytes of characters [start, stop) as slices have them; false: start lies behind the end. */
static bool stretch(render *r, const text *t, value start, value stop, size_t *begin, size_t *end)
{
    const int64_t n = (int64_t)text_length(t);
    int64_t from = start.kind == V_NONE ? 0 : slot_int(r, start, 0, "start");
    int64_t to = stop.kind == V_NONE ? n : slot_int(r, stop, n, "end");

    from = from < 0 ? MOE_MAX(from + n, 0) : from;
    to = to < 0 ? MOE_MAX(to + n, 0) : MOE_MIN(to, n);
    if (from > n || from > to || !render_step(r, t->n)) {
        return false;
    }
    *begin = text_offset(t, (size_t)from);
    *end = text_offset(t, (size_t)to);
    return true;
}

/* Searching from the end compares all of what at every place. */
static bool can_search_back(render *r, const text *t, const text *what)
{
    return render_step(r, MOE_MIN(t->n, (size_t)1 << 31) * MOE_MIN(what->n, (size_t)1 << 31));
}

static size_t search(render *r, value v, const value *s, bool from_right)
{
    const text *what = slot_text(r, s[0], NULL, "what is looked for"), part = *v.text;
    size_t begin, end, found;

    if (!stretch(r, v.text, s[1], s[2], &begin, &end) || (from_right && !can_search_back(r, v.text, what)) ||
        !RENDER_OK(r)) {
        return TEXT_NOT_FOUND;
    }
    const text head = {.data = part.data, .n = end};

    found = from_right ? text_search_back(&head, what, end) : text_search(&head, what, begin);
    return found != TEXT_NOT_FOUND && found >= begin ? found : TEXT_NOT_FOUND;
}

static value position(render *r, value v, size_t at, bool must)
{
    const text head = {.data = v.text->data, .n = at == TEXT_NOT_FOUND ? 0 : at, .ascii = v.text->ascii};

    if (at == TEXT_NOT_FOUND) {
        return must ? render_fail(r, "substring not found") : value_int(-1);
    }
    return value_int((int64_t)text_length(&head));
}

static value text_find_method(render *r, value v, const value *s)
{
    return position(r, v, search(r, v, s, false), false);
}

static value text_rfind_method(render *r, value v, const value *s)
{
    return position(r, v, search(r, v, s, true), false);
}

static value text_index(render *r, value v, const value *s)
{
    return position(r, v, search(r, v, s, false), true);
}

static value text_rindex(render *r, value v, const value *s)
{
    return position(r, v, search(r, v, s, true), true);
}

static value text_count(render *r, value v, const value *s)
{
    const text *what = slot_text(r, s[0], NULL, "what is counted");
    size_t begin, end;
    int64_t n = 0;

    if (!stretch(r, v.text, s[1], s[2], &begin, &end) || !RENDER_OK(r)) {
        return value_int(0);
    }
    const text head = {.data = v.text->data, .n = end, .ascii = v.text->ascii};
    const text part = {.data = v.text->data + begin, .n = end - begin, .ascii = v.text->ascii};

    if (what->n == 0) {
        return value_int((int64_t)text_length(&part) + 1);
    }
    while ((begin = text_search(&head, what, begin)) != TEXT_NOT_FOUND && render_step(r, 0)) {
        begin += what->n;
        n++;
    }
    return value_int(n);
}

static bool has_affix(const text *t, size_t begin, size_t end, const text *affix, bool suffix)
{
    return end - begin >= affix->n && text_has(t, suffix ? end - affix->n : begin, affix);
}

/* One text or a tuple of them. */
static value affix(render *r, value v, const value *s, bool suffix)
{
    size_t begin, end;

    if (!stretch(r, v.text, s[1], s[2], &begin, &end)) {
        return value_bool(false);
    }
    if (s[0].kind == V_SEQ && s[0].seq->kind == SEQ_TUPLE) {
        for (size_t i = 0; i < s[0].seq->n && RENDER_OK(r); i++) {
            const text *one = slot_text(r, s[0].seq->items[i], NULL, "an affix");

            if (RENDER_OK(r) && has_affix(v.text, begin, end, one, suffix)) {
                return value_bool(true);
            }
        }
        return value_bool(false);
    }
    const text *one = slot_text(r, s[0], NULL, "an affix");

    return value_bool(RENDER_OK(r) && has_affix(v.text, begin, end, one, suffix));
}

static value text_startswith(render *r, value v, const value *s)
{
    return affix(r, v, s, false);
}

static value text_endswith(render *r, value v, const value *s)
{
    return affix(r, v, s, true);
}

static value text_removeprefix(render *r, value v, const value *s)
{
    const text *one = slot_text(r, s[0], NULL, "prefix");

    return has_affix(v.text, 0, v.text->n, one, false) ? text_slice(r, v.text, one->n, v.text->n) : v;
}

static value text_removesuffix(render *r, value v, const value *s)
{
    const text *one = slot_text(r, s[0], NULL, "suffix");

    return has_affix(v.text, 0, v.text->n, one, true) ? text_slice(r, v.text, 0, v.text->n - one->n) : v;
}

/* ------------------------------------------------------------------------------------------------ parts */
static value strip(render *r, value v, const value *s, bool left, bool right)
{
    const bool spaces = s[0].kind == V_ABSENT || s[0].kind == V_NONE;

    return text_strip(r, v.text, spaces ? NULL : slot_text(r, s[0], NULL, "chars"), left, right);
}

static value text_strip_method(render *r, value v, const value *s)
{
    return strip(r, v, s, true, true);
}

static value text_lstrip(render *r, value v, const value *s)
{
    return strip(r, v, s, true, false);
}

static value text_rstrip(render *r, value v, const value *s)
{
    return strip(r, v, s, false, true);
}

static void reverse_items(seq *s)
{
    for (size_t i = 0; i < s->n / 2; i++) {
        const value item = s->items[i];

        s->items[i] = s->items[s->n - 1 - i];
        s->items[s->n - 1 - i] = item;
    }
}

/* At runs of white space; none at the ends. */
static void split_words(render *r, const text *t, int64_t limit, seq *out)
{
    size_t at = 0;
    int32_t c;

    while (RENDER_OK(r)) {
        size_t end;

        while (at < t->n && (text_character(t, at, &c), char_is_space(c))) {
            at += text_character(t, at, &c);
        }
        if (at == t->n) {
            return;
        }
        if (limit == 0) {
            seq_add(r, out, text_slice(r, t, at, t->n));
            return;
        }
        for (end = at; end < t->n && (text_character(t, end, &c), !char_is_space(c));) {
            end += text_character(t, end, &c);
        }
        seq_add(r, out, text_slice(r, t, at, end));
        limit -= limit > 0;
        at = end;
    }
}

/* The same from the end, last word first. */
static void rsplit_words(render *r, const text *t, int64_t limit, seq *out)
{
    size_t end = t->n;
    int32_t c;

    while (RENDER_OK(r)) {
        size_t at;

        while (end > 0 && (text_before(t, end, &c), char_is_space(c))) {
            end -= text_before(t, end, &c);
        }
        if (end == 0) {
            return;
        }
        if (limit == 0) {
            seq_add(r, out, text_slice(r, t, 0, end));
            return;
        }
        for (at = end; at > 0 && (text_before(t, at, &c), !char_is_space(c));) {
            at -= text_before(t, at, &c);
        }
        seq_add(r, out, text_slice(r, t, at, end));
        limit -= limit > 0;
        end = at;
    }
}

static void split_at(render *r, const text *t, const text *by, int64_t limit, seq *out)
{
    size_t at = 0, found;

    for (; limit != 0 && RENDER_OK(r) && (found = text_search(t, by, at)) != TEXT_NOT_FOUND; limit -= limit > 0) {
        seq_add(r, out, text_slice(r, t, at, found));
        at = found + by->n;
    }
    if (RENDER_OK(r)) {
        seq_add(r, out, text_slice(r, t, at, t->n));
    }
}

static void rsplit_at(render *r, const text *t, const text *by, int64_t limit, seq *out)
{
    size_t end = t->n, found;

    for (; limit != 0 && RENDER_OK(r) && (found = text_search_back(t, by, end)) != TEXT_NOT_FOUND; limit -= limit > 0) {
        seq_add(r, out, text_slice(r, t, found + by->n, end));
        end = found;
    }
    if (RENDER_OK(r)) {
        seq_add(r, out, text_slice(r, t, 0, end));
    }
}

static value split(render *r, value v, const value *s, bool from_right)
{
    const bool words = s[0].kind == V_ABSENT || s[0].kind == V_NONE;
    const text *by = words ? &text_empty : slot_text(r, s[0], NULL, "sep");
    const int64_t limit = slot_int(r, s[1], -1, "maxsplit");
    const value parts = seq_new(r, SEQ_LIST, 0);

    if (!RENDER_OK(r) || !render_step(r, v.text->n)) {
        return value_none();
    }
    if (!words && by->n == 0) {
        return render_fail(r, "empty separator");
    }
    if (from_right && !can_search_back(r, v.text, by)) {
        return value_none();
    }
    if (words) {
        (from_right ? rsplit_words : split_words)(r, v.text, limit, parts.seq);
    } else {
        (from_right ? rsplit_at : split_at)(r, v.text, by, limit, parts.seq);
    }
    if (from_right) {
        reverse_items(parts.seq);
    }
    return parts;
}

static value text_split(render *r, value v, const value *s)
{
    return split(r, v, s, false);
}

static value text_rsplit(render *r, value v, const value *s)
{
    return split(r, v, s, true);
}

static value text_splitlines(render *r, value v, const value *s)
{
    return text_lines(r, v.text, slot_bool(s[0], false));
}

static value partition(render *r, value v, const value *s, bool from_right)
{
    const text *by = slot_text(r, s[0], NULL, "sep");
    const value parts = seq_new(r, SEQ_TUPLE, 3), nothing = value_text(&text_empty);
    size_t found;

    if (!RENDER_OK(r) || by->n == 0) {
        return render_fail(r, "empty separator");
    }
    if (from_right && !can_search_back(r, v.text, by)) {
        return value_none();
    }
    found = from_right ? text_search_back(v.text, by, v.text->n) : text_search(v.text, by, 0);
    if (found == TEXT_NOT_FOUND) {
        seq_add(r, parts.seq, from_right ? nothing : v);
        seq_add(r, parts.seq, nothing);
        seq_add(r, parts.seq, from_right ? v : nothing);
    } else {
        seq_add(r, parts.seq, text_slice(r, v.text, 0, found));
        seq_add(r, parts.seq, text_slice(r, v.text, found, found + by->n));
        seq_add(r, parts.seq, text_slice(r, v.text, found + by->n, v.text->n));
    }
    return parts;
}

static value text_partition(render *r, value v, const value *s)
{
    return partition(r, v, s, false);
}

static value text_rpartition(render *r, value v, const value *s)
{
    return partition(r, v, s, true);
}

/* ------------------------------------------------------------------------------------------------ new texts */
static value text_replace_method(render *r, value v, const value *s)
{
    const text *old = slot_text(r, s[0], NULL, "old"), *new = slot_text(r, s[1], NULL, "new");
    const int64_t count = slot_int(r, s[2], -1, "count");

    return RENDER_OK(r) ? text_replace(r, v.text, old, new, count) : v;
}

static value text_join(render *r, value v, const value *s)
{
    const seq *items = value_items(r, s[0]);
    builder b = {0};

    for (size_t i = 0; items && i < items->n && RENDER_OK(r); i++) {
        if (items->items[i].kind != V_TEXT) {
            return render_fail(r, "sequence item %zu: expected str instance, %s found", i,
                               value_type_name(items->items[i]));
        }
        if (i > 0) {
            builder_add_text(r, &b, v.text);
        }
        builder_add_text(r, &b, items->items[i].text);
    }
    return builder_value(r, &b);
}

static value text_lower(render *r, value v, const value *s)
{
    (void)s;
    return text_case(r, v.text, CASE_LOWER);
}

static value text_upper(render *r, value v, const value *s)
{
    (void)s;
    return text_case(r, v.text, CASE_UPPER);
}

static value text_swapcase(render *r, value v, const value *s)
{
    (void)s;
    return text_case(r, v.text, CASE_SWAP);
}

static value text_title_method(render *r, value v, const value *s)
{
    (void)s;
    return text_title(r, v.text);
}

static value text_capitalize_method(render *r, value v, const value *s)
{
    (void)s;
    return text_capitalize(r, v.text);
}

/* How many fill characters go left: -1 all, 1 none, 0 half of them, as str.center has it. */
static value pad(render *r, value v, const value *s, int side)
{
    const int64_t width = slot_int(r, s[0], 0, "width"), n = width - (int64_t)text_length(v.text);
    const text *fill = slot_text(r, s[1], " ", "fillchar");
    const int64_t left = side < 0 ? n : side > 0 ? 0 : n / 2 + (n & width & 1);
    builder b = {0};

    if (RENDER_OK(r) && text_length(fill) != 1) {
        return render_fail(r, "the fill character must be exactly one character long");
    }
    if (n <= 0 || !RENDER_OK(r)) {
        return v;
    }
    for (int64_t i = 0; i < left && RENDER_OK(r); i++) {
        builder_add_text(r, &b, fill);
    }
    builder_add_text(r, &b, v.text);
    for (int64_t i = left; i < n && RENDER_OK(r); i++) {
        builder_add_text(r, &b, fill);
    }
    return builder_value(r, &b);
}

static value text_center(render *r, value v, const value *s)
{
    return pad(r, v, s, 0);
}

static value text_ljust(render *r, value v, const value *s)
{
    return pad(r, v, s, 1);
}

static value text_rjust(render *r, value v, const value *s)
{
    return pad(r, v, s, -1);
}

static value text_zfill(render *r, value v, const value *s)
{
    const int64_t width = slot_int(r, s[0], 0, "width"), n = width - (int64_t)text_length(v.text);
    const size_t sign = v.text->n > 0 && (v.text->data[0] == '-' || v.text->data[0] == '+');
    builder b = {0};

    builder_add_slice(r, &b, v.text, 0, sign);
    for (int64_t i = 0; i < n && RENDER_OK(r); i++) {
        builder_add_cstr(r, &b, "0");
    }
    builder_add_slice(r, &b, v.text, sign, v.text->n);
    return builder_value(r, &b);
}

/* ------------------------------------------------------------------------------------------------ classes */
static bool is_alnum(int32_t c)
{
    return char_is_alpha(c) || char_is_numeric(c);
}

static bool is_ascii_char(int32_t c)
{
    return c < 0x80;
}

static value all_are(render *r, value v, bool (*is)(int32_t), bool when_empty)
{
    int32_t c;

    for (size_t at = 0; at < v.text->n && render_step(r, 0); at += text_character(v.text, at, &c)) {
        (void)text_character(v.text, at, &c);
        if (!is(c)) {
            return value_bool(false);
        }
    }
    return value_bool(v.text->n > 0 || when_empty);
}

#define CLASS_METHOD(name, is, when_empty)                                                                             \
    static value name(render *r, value v, const value *s)                                                              \
    {                                                                                                                  \
        (void)s;                                                                                                       \
        return all_are(r, v, is, when_empty);                                                                          \
    }

CLASS_METHOD(text_isalnum, is_alnum, false)
CLASS_METHOD(text_isalpha, char_is_alpha, false)
CLASS_METHOD(text_isascii, is_ascii_char, true)
CLASS_METHOD(text_isdecimal, char_is_decimal, false)
CLASS_METHOD(text_isdigit, char_is_digit, false)
CLASS_METHOD(text_isnumeric, char_is_numeric, false)
CLASS_METHOD(text_isprintable, char_is_printable, true)
CLASS_METHOD(text_isspace, char_is_space, false)

/* All cased characters are of this case, and there is one. */
static value cased(render *r, value v, bool (*is)(int32_t), bool (*is_other)(int32_t))
{
    bool any = false;
    int32_t c;

    for (size_t at = 0; at < v.text->n && render_step(r, 0); at += text_character(v.text, at, &c)) {
        (void)text_character(v.text, at, &c);
        if (is_other(c) || char_is_title(c)) {
            return value_bool(false);
        }
        any = any || is(c);
    }
    return value_bool(any);
}

static value text_islower(render *r, value v, const value *s)
{
    (void)s;
    return cased(r, v, char_is_lower, char_is_upper);
}

static value text_isupper(render *r, value v, const value *s)
{
    (void)s;
    return cased(r, v, char_is_upper, char_is_lower);
}

static value text_istitle(render *r, value v, const value *s)
{
    bool inside = false, any = false;
    int32_t c;

    (void)s;
    for (size_t at = 0; at < v.text->n && render_step(r, 0); at += text_character(v.text, at, &c)) {
        (void)text_character(v.text, at, &c);
        const bool opens = char_is_upper(c) || char_is_title(c), lower = char_is_lower(c);

        if ((opens && inside) || (lower && !inside)) {
            return value_bool(false);
        }
        any = any || opens || lower;
        inside = opens || lower;
    }
    return value_bool(any);
}

const method text_methods[] = {{V_TEXT, "capitalize", "", text_capitalize_method, NULL},
                               {V_TEXT, "center", "*width fillchar", text_center, NULL},
                               {V_TEXT, "count", "*sub start end", text_count, NULL},
                               {V_TEXT, "endswith", "*suffix start end", text_endswith, NULL},
                               {V_TEXT, "find", "*sub start end", text_find_method, NULL},
                               {V_TEXT, "format", NULL, NULL, text_format_method},
                               {V_TEXT, "index", "*sub start end", text_index, NULL},
                               {V_TEXT, "isalnum", "", text_isalnum, NULL},
                               {V_TEXT, "isalpha", "", text_isalpha, NULL},
                               {V_TEXT, "isascii", "", text_isascii, NULL},
                               {V_TEXT, "isdecimal", "", text_isdecimal, NULL},
                               {V_TEXT, "isdigit", "", text_isdigit, NULL},
                               {V_TEXT, "islower", "", text_islower, NULL},
                               {V_TEXT, "isnumeric", "", text_isnumeric, NULL},
                               {V_TEXT, "isprintable", "", text_isprintable, NULL},
                               {V_TEXT, "isspace", "", text_isspace, NULL},
                               {V_TEXT, "istitle", "", text_istitle, NULL},
                               {V_TEXT, "isupper", "", text_isupper, NULL},
                               {V_TEXT, "join", "*iterable", text_join, NULL},
                               {V_TEXT, "ljust", "*width fillchar", text_ljust, NULL},
                               {V_TEXT, "lower", "", text_lower, NULL},
                               {V_TEXT, "lstrip", "chars", text_lstrip, NULL},
                               {V_TEXT, "partition", "*sep", text_partition, NULL},
                               {V_TEXT, "removeprefix", "*prefix", text_removeprefix, NULL},
                               {V_TEXT, "removesuffix", "*suffix", text_removesuffix, NULL},
                               {V_TEXT, "replace", "*old *new count", text_replace_method, NULL},
                               {V_TEXT, "rfind", "*sub start end", text_rfind_method, NULL},
                               {V_TEXT, "rindex", "*sub start end", text_rindex, NULL},
                               {V_TEXT, "rjust", "*width fillchar", text_rjust, NULL},
                               {V_TEXT, "rpartition", "*sep", text_rpartition, NULL},
                               {V_TEXT, "rsplit", "sep maxsplit", text_rsplit, NULL},
                               {V_TEXT, "rstrip", "chars", text_rstrip, NULL},
                               {V_TEXT, "split", "sep maxsplit", text_split, NULL},
                               {V_TEXT, "splitlines", "keepends", text_splitlines, NULL},
                               {V_TEXT, "startswith", "*prefix start end", text_startswith, NULL},
                               {V_TEXT, "strip", "chars", text_strip_method, NULL},
                               {V_TEXT, "swapcase", "", text_swapcase, NULL},
                               {V_TEXT, "title", "", text_title_method, NULL},
                               {V_TEXT, "upper", "", text_upper, NULL},
                               {V_TEXT, "zfill", "*width", text_zfill, NULL}};
const size_t n_text_methods = MOE_COUNT(text_methods);
