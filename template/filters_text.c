/* Filters that give text. */
#include "template/template_priv.h"

static const text *soft_text(render *r, value v)
{
    const value t = value_to_text(r, v);

    return RENDER_OK(r) ? t.text : &text_empty;
}

static value mark(render *r, value v)
{
    text *safe = render_take(r, sizeof *safe);

    if (!safe) {
        return value_none();
    }
    *safe = *v.text;
    safe->markup = true;
    safe->room = NULL;
    return value_text(safe);
}

static value filter_capitalize(render *r, value v, const value *s)
{
    (void)s;
    return text_capitalize(r, soft_text(r, v));
}

static value filter_lower(render *r, value v, const value *s)
{
    (void)s;
    return text_case(r, soft_text(r, v), CASE_LOWER);
}

static value filter_upper(render *r, value v, const value *s)
{
    (void)s;
    return text_case(r, soft_text(r, v), CASE_UPPER);
}

static bool begins_word(int32_t c)
{
    return char_is_space(c) || (c < 0x80 && c > 0 && strchr("-({[<", c) != NULL);
}

/* Jinja's own title: the first character behind a space, a dash or an opening bracket. */
static value filter_title(render *r, value v, const value *s)
{
    const text *t = soft_text(r, v);
    builder b = {0};
    int32_t c;

    (void)s;
    for (size_t at = 0, end; at < t->n && RENDER_OK(r); at = end) {
        end = at + text_character(t, at, &c);
        builder_add_text(r, &b, text_case(r, text_slice(r, t, at, end).text, CASE_UPPER).text);
        const size_t rest = end;

        for (; !begins_word(c) && end < t->n && (text_character(t, end, &c), !begins_word(c));) {
            end += text_character(t, end, &c);
        }
        builder_add_text(r, &b, text_case(r, text_slice(r, t, rest, end).text, CASE_LOWER).text);
    }
    return builder_value(r, &b);
}

static value filter_trim(render *r, value v, const value *s)
{
    const bool spaces = s[0].kind == V_ABSENT || s[0].kind == V_NONE;

    return text_strip(r, soft_text(r, v), spaces ? NULL : slot_text(r, s[0], NULL, "chars"), true, true);
}

static value filter_replace(render *r, value v, const value *s)
{
    const int64_t count = s[2].kind == V_NONE ? -1 : slot_int(r, s[2], -1, "count");

    return text_replace(r, soft_text(r, v), soft_text(r, s[0]), soft_text(r, s[1]), count);
}

static value filter_string(render *r, value v, const value *s)
{
    (void)s;
    return value_to_text(r, v);
}

static value filter_safe(render *r, value v, const value *s)
{
    const value t = value_to_text(r, v);

    (void)s;
    return RENDER_OK(r) ? mark(r, t) : t;
}

static value filter_forceescape(render *r, value v, const value *s)
{
    const value t = text_escape(r, soft_text(r, v));

    (void)s;
    return RENDER_OK(r) ? mark(r, t) : t;
}

static value filter_escape(render *r, value v, const value *s)
{
    return v.kind == V_TEXT && v.text->markup ? v : filter_forceescape(r, v, s);
}

static const text *indention(render *r, value width)
{
    builder b = {0};
    int64_t n;

    if (width.kind == V_TEXT) {
        return width.text;
    }
    n = slot_int(r, width, 4, "width");
    for (int64_t i = 0; i < n && RENDER_OK(r); i++) {
        builder_add_cstr(r, &b, " ");
    }
    return builder_value(r, &b).text;
}

static value filter_indent(render *r, value v, const value *s)
{
    static const text line_feed = {.data = "\n", .n = 1, .ascii = true};
    const text *by = indention(r, s[0]);
    const bool first = slot_bool(s[1], false), blank = slot_bool(s[2], false);
    builder b = {0};
    value lines;

    if (v.kind == V_UNDEFINED) {
        return value_fail_undefined(r, v);
    }
    if (v.kind != V_TEXT) {
        return render_fail(r, "indent: a %s is no string", value_type_name(v));
    }
    lines = RENDER_OK(r) ? text_add(r, v.text, &line_feed) : v;
    lines = RENDER_OK(r) ? text_lines(r, lines.text, false) : v;
    for (size_t i = 0; RENDER_OK(r) && i < lines.seq->n; i++) {
        const text *line = lines.seq->items[i].text;

        if (i > 0) {
            builder_add_text(r, &b, &line_feed);
        }
        if (i == 0 ? first : blank || line->n > 0) {
            builder_add_text(r, &b, by);
        }
        builder_add_text(r, &b, line);
    }
    return builder_value(r, &b);
}

static value filter_center(render *r, value v, const value *s)
{
    const value width = s[0].kind == V_ABSENT ? value_int(80) : s[0];
    const value t = value_text(soft_text(r, v)), bare = RENDER_OK(r) ? attribute_of(r, t, "center") : t;

    return RENDER_OK(r) ? call_value(r, bare, &(args){&width, 1, NULL, NULL, 0}) : t;
}

static value truncated(render *r, const text *t, int64_t length, bool kill, const text *end)
{
    static const text space = {.data = " ", .n = 1};
    const size_t cut = text_offset(t, (size_t)(length - (int64_t)text_length(end)));
    const size_t last = kill ? TEXT_NOT_FOUND : text_search_back(t, &space, cut);
    builder b = {0};

    builder_add_slice(r, &b, t, 0, last == TEXT_NOT_FOUND ? cut : last);
    builder_add_text(r, &b, end);
    return builder_value(r, &b);
}

static value filter_truncate(render *r, value v, const value *s)
{
    const int64_t length = slot_int(r, s[0], 255, "length");
    const int64_t leeway = s[3].kind == V_NONE ? 5 : slot_int(r, s[3], 5, "leeway");
    const text *end = slot_text(r, s[2], "...", "end");
    int64_t n = 0;

    if (length < (int64_t)text_length(end) || leeway < 0) {
        return render_fail(r, "truncate: a length below that of the end, or a negative leeway");
    }
    if (!value_length(r, v, &n)) {
        return render_fail(r, "object of type '%s' has no len()", value_type_name(v));
    }
    if (n <= length + leeway) {
        return v;
    }
    return v.kind == V_TEXT ? truncated(r, v.text, length, slot_bool(s[1], false), end)
                            : render_fail(r, "truncate: a %s is no string", value_type_name(v));
}

static value filter_wordcount(render *r, value v, const value *s)
{
    const text *t = soft_text(r, v);
    int64_t n = 0;
    bool inside = false;
    int32_t c;

    (void)s;
    for (size_t at = 0; at < t->n && render_step(r, 0); at += text_character(t, at, &c)) {
        bool word;

        (void)text_character(t, at, &c);
        word = char_is_alpha(c) || char_is_numeric(c) || c == '_';
        n += word && !inside;
        inside = word;
    }
    return value_int(n);
}

static value filter_format(render *r, value v, const args *a)
{
    value arguments;

    if (a->n > 0 && a->n_keywords > 0) {
        return render_fail(r, "format: positional and keyword arguments at the same time");
    }
    arguments = a->n_keywords > 0 ? dict_new(r) : seq_new(r, SEQ_TUPLE, a->n);
    for (size_t i = 0; i < a->n && RENDER_OK(r); i++) {
        seq_add(r, arguments.seq, a->items[i]);
    }
    for (size_t i = 0; i < a->n_keywords && RENDER_OK(r); i++) {
        dict_put(r, arguments.dict, text_value(r, a->keywords[i], strlen(a->keywords[i]), 0), a->values[i]);
    }
    return RENDER_OK(r) ? text_format(r, soft_text(r, v), arguments) : value_none();
}

static value filter_tojson(render *r, value v, const value *s)
{
    return json_dump(r, v, slot_bool(s[0], false), s[1], s[2], slot_bool(s[3], false));
}

const filter text_filters[] = {{"capitalize", "", filter_capitalize, NULL},
                               {"center", "width", filter_center, NULL},
                               {"e", "", filter_escape, NULL},
                               {"escape", "", filter_escape, NULL},
                               {"forceescape", "", filter_forceescape, NULL},
                               {"format", NULL, NULL, filter_format},
                               {"indent", "width first blank", filter_indent, NULL},
                               {"lower", "", filter_lower, NULL},
                               {"replace", "*old *new count", filter_replace, NULL},
                               {"safe", "", filter_safe, NULL},
                               {"string", "", filter_string, NULL},
                               {"title", "", filter_title, NULL},
                               {"tojson", "ensure_ascii indent separators sort_keys", filter_tojson, NULL},
                               {"trim", "chars", filter_trim, NULL},
                               {"truncate", "length killwords end leeway", filter_truncate, NULL},
                               {"upper", "", filter_upper, NULL},
                               {"wordcount", "", filter_wordcount, NULL}};
const size_t n_text_filters = MOE_COUNT(text_filters);
