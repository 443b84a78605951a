/* What Python's str knows of characters: classes, case. Classes and simple mappings are utf8proc's; the mappings to
 * several characters, from Unicode's SpecialCasing, stand in the table. */
#include "template/template_priv.h"

#include <utf8proc.h>

typedef struct special_case {
    int32_t c;
    const char *upper, *title;
} special_case;

/* clang-format off */
static const special_case special_cases[] = {
    {0xdf, "SS", "Ss"}, {0x149, "\xca\xbc" "N", "\xca\xbc" "N"}, {0x1f0, "J\xcc\x8c", "J\xcc\x8c"},
    {0x390, "\xce\x99\xcc\x88\xcc\x81", "\xce\x99\xcc\x88\xcc\x81"},
    {0x3b0, "\xce\xa5\xcc\x88\xcc\x81", "\xce\xa5\xcc\x88\xcc\x81"}, {0x587, "\xd4\xb5\xd5\x92", "\xd4\xb5\xd6\x82"},
    {0x1e96, "H\xcc\xb1", "H\xcc\xb1"}, {0x1e97, "T\xcc\x88", "T\xcc\x88"}, {0x1e98, "W\xcc\x8a", "W\xcc\x8a"},
    {0x1e99, "Y\xcc\x8a", "Y\xcc\x8a"}, {0x1e9a, "A\xca\xbe", "A\xca\xbe"},
    {0x1f50, "\xce\xa5\xcc\x93", "\xce\xa5\xcc\x93"},
    {0x1f52, "\xce\xa5\xcc\x93\xcc\x80", "\xce\xa5\xcc\x93\xcc\x80"},
    {0x1f54, "\xce\xa5\xcc\x93\xcc\x81", "\xce\xa5\xcc\x93\xcc\x81"},
    {0x1f56, "\xce\xa5\xcc\x93\xcd\x82", "\xce\xa5\xcc\x93\xcd\x82"},
    {0x1f80, "\xe1\xbc\x88\xce\x99", "\xe1\xbe\x88"}, {0x1f81, "\xe1\xbc\x89\xce\x99", "\xe1\xbe\x89"},
    {0x1f82, "\xe1\xbc\x8a\xce\x99", "\xe1\xbe\x8a"}, {0x1f83, "\xe1\xbc\x8b\xce\x99", "\xe1\xbe\x8b"},
    {0x1f84, "\xe1\xbc\x8c\xce\x99", "\xe1\xbe\x8c"}, {0x1f85, "\xe1\xbc\x8d\xce\x99", "\xe1\xbe\x8d"},
    {0x1f86, "\xe1\xbc\x8e\xce\x99", "\xe1\xbe\x8e"}, {0x1f87, "\xe1\xbc\x8f\xce\x99", "\xe1\xbe\x8f"},
    {0x1f88, "\xe1\xbc\x88\xce\x99", "\xe1\xbe\x88"}, {0x1f89, "\xe1\xbc\x89\xce\x99", "\xe1\xbe\x89"},
    {0x1f8a, "\xe1\xbc\x8a\xce\x99", "\xe1\xbe\x8a"}, {0x1f8b, "\xe1\xbc\x8b\xce\x99", "\xe1\xbe\x8b"},
    {0x1f8c, "\xe1\xbc\x8c\xce\x99", "\xe1\xbe\x8c"}, {0x1f8d, "\xe1\xbc\x8d\xce\x99", "\xe1\xbe\x8d"},
    {0x1f8e, "\xe1\xbc\x8e\xce\x99", "\xe1\xbe\x8e"}, {0x1f8f, "\xe1\xbc\x8f\xce\x99", "\xe1\xbe\x8f"},
    {0x1f90, "\xe1\xbc\xa8\xce\x99", "\xe1\xbe\x98"}, {0x1f91, "\xe1\xbc\xa9\xce\x99", "\xe1\xbe\x99"},
    {0x1f92, "\xe1\xbc\xaa\xce\x99", "\xe1\xbe\x9a"}, {0x1f93, "\xe1\xbc\xab\xce\x99", "\xe1\xbe\x9b"},
    {0x1f94, "\xe1\xbc\xac\xce\x99", "\xe1\xbe\x9c"}, {0x1f95, "\xe1\xbc\xad\xce\x99", "\xe1\xbe\x9d"},
    {0x1f96, "\xe1\xbc\xae\xce\x99", "\xe1\xbe\x9e"}, {0x1f97, "\xe1\xbc\xaf\xce\x99", "\xe1\xbe\x9f"},
    {0x1f98, "\xe1\xbc\xa8\xce\x99", "\xe1\xbe\x98"}, {0x1f99, "\xe1\xbc\xa9\xce\x99", "\xe1\xbe\x99"},
    {0x1f9a, "\xe1\xbc\xaa\xce\x99", "\xe1\xbe\x9a"}, {0x1f9b, "\xe1\xbc\xab\xce\x99", "\xe1\xbe\x9b"},
    {0x1f9c, "\xe1\xbc\xac\xce\x99", "\xe1\xbe\x9c"}, {0x1f9d, "\xe1\xbc\xad\xce\x99", "\xe1\xbe\x9d"},
    {0x1f9e, "\xe1\xbc\xae\xce\x99", "\xe1\xbe\x9e"}, {0x1f9f, "\xe1\xbc\xaf\xce\x99", "\xe1\xbe\x9f"},
    {0x1fa0, "\xe1\xbd\xa8\xce\x99", "\xe1\xbe\xa8"}, {0x1fa1, "\xe1\xbd\xa9\xce\x99", "\xe1\xbe\xa9"},
    {0x1fa2, "\xe1\xbd\xaa\xce\x99", "\xe1\xbe\xaa"}, {0x1fa3, "\xe1\xbd\xab\xce\x99", "\xe1\xbe\xab"},
    {0x1fa4, "\xe1\xbd\xac\xce\x99", "\xe1\xbe\xac"}, {0x1fa5, "\xe1\xbd\xad\xce\x99", "\xe1\xbe\xad"},
    {0x1fa6, "\xe1\xbd\xae\xce\x99", "\xe1\xbe\xae"}, {0x1fa7, "\xe1\xbd\xaf\xce\x99", "\xe1\xbe\xaf"},
    {0x1fa8, "\xe1\xbd\xa8\xce\x99", "\xe1\xbe\xa8"}, {0x1fa9, "\xe1\xbd\xa9\xce\x99", "\xe1\xbe\xa9"},
    {0x1faa, "\xe1\xbd\xaa\xce\x99", "\xe1\xbe\xaa"}, {0x1fab, "\xe1\xbd\xab\xce\x99", "\xe1\xbe\xab"},
    {0x1fac, "\xe1\xbd\xac\xce\x99", "\xe1\xbe\xac"}, {0x1fad, "\xe1\xbd\xad\xce\x99", "\xe1\xbe\xad"},
    {0x1fae, "\xe1\xbd\xae\xce\x99", "\xe1\xbe\xae"}, {0x1faf, "\xe1\xbd\xaf\xce\x99", "\xe1\xbe\xaf"},
    {0x1fb2, "\xe1\xbe\xba\xce\x99", "\xe1\xbe\xba\xcd\x85"}, {0x1fb3, "\xce\x91\xce\x99", "\xe1\xbe\xbc"},
    {0x1fb4, "\xce\x86\xce\x99", "\xce\x86\xcd\x85"}, {0x1fb6, "\xce\x91\xcd\x82", "\xce\x91\xcd\x82"},
    {0x1fb7, "\xce\x91\xcd\x82\xce\x99", "\xce\x91\xcd\x82\xcd\x85"}, {0x1fbc, "\xce\x91\xce\x99", "\xe1\xbe\xbc"},
    {0x1fc2, "\xe1\xbf\x8a\xce\x99", "\xe1\xbf\x8a\xcd\x85"}, {0x1fc3, "\xce\x97\xce\x99", "\xe1\xbf\x8c"},
    {0x1fc4, "\xce\x89\xce\x99", "\xce\x89\xcd\x85"}, {0x1fc6, "\xce\x97\xcd\x82", "\xce\x97\xcd\x82"},
    {0x1fc7, "\xce\x97\xcd\x82\xce\x99", "\xce\x97\xcd\x82\xcd\x85"}, {0x1fcc, "\xce\x97\xce\x99", "\xe1\xbf\x8c"},
    {0x1fd2, "\xce\x99\xcc\x88\xcc\x80", "\xce\x99\xcc\x88\xcc\x80"},
    {0x1fd3, "\xce\x99\xcc\x88\xcc\x81", "\xce\x99\xcc\x88\xcc\x81"},
    {0x1fd6, "\xce\x99\xcd\x82", "\xce\x99\xcd\x82"},
    {0x1fd7, "\xce\x99\xcc\x88\xcd\x82", "\xce\x99\xcc\x88\xcd\x82"},
    {0x1fe2, "\xce\xa5\xcc\x88\xcc\x80", "\xce\xa5\xcc\x88\xcc\x80"},
    {0x1fe3, "\xce\xa5\xcc\x88\xcc\x81", "\xce\xa5\xcc\x88\xcc\x81"},
    {0x1fe4, "\xce\xa1\xcc\x93", "\xce\xa1\xcc\x93"}, {0x1fe6, "\xce\xa5\xcd\x82", "\xce\xa5\xcd\x82"},
    {0x1fe7, "\xce\xa5\xcc\x88\xcd\x82", "\xce\xa5\xcc\x88\xcd\x82"},
    {0x1ff2, "\xe1\xbf\xba\xce\x99", "\xe1\xbf\xba\xcd\x85"}, {0x1ff3, "\xce\xa9\xce\x99", "\xe1\xbf\xbc"},
    {0x1ff4, "\xce\x8f\xce\x99", "\xce\x8f\xcd\x85"}, {0x1ff6, "\xce\xa9\xcd\x82", "\xce\xa9\xcd\x82"},
    {0x1ff7, "\xce\xa9\xcd\x82\xce\x99", "\xce\xa9\xcd\x82\xcd\x85"}, {0x1ffc, "\xce\xa9\xce\x99", "\xe1\xbf\xbc"},
    {0xfb00, "FF", "Ff"}, {0xfb01, "FI", "Fi"}, {0xfb02, "FL", "Fl"}, {0xfb03, "FFI", "Ffi"}, {0xfb04, "FFL", "Ffl"},
    {0xfb05, "ST", "St"}, {0xfb06, "ST", "St"}, {0xfb13, "\xd5\x84\xd5\x86", "\xd5\x84\xd5\xb6"},
    {0xfb14, "\xd5\x84\xd4\xb5", "\xd5\x84\xd5\xa5"}, {0xfb15, "\xd5\x84\xd4\xbb", "\xd5\x84\xd5\xab"},
    {0xfb16, "\xd5\x8e\xd5\x86", "\xd5\x8e\xd5\xb6"}, {0xfb17, "\xd5\x84\xd4\xbd", "\xd5\x84\xd5\xad"},
};
/* clang-format on */

size_t char_put(int32_t c, char out[4])
{
    return (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)out);
}

bool char_is_space(int32_t c)
{
    if (c < 0x80) {
        return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
    }
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

bool char_is_line_end(int32_t c)
{
    return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static bool category_is(int32_t c, utf8proc_category_t first, utf8proc_category_t last)
{
    const utf8proc_category_t category = utf8proc_category(c);

    return category >= first && category <= last;
}

bool char_is_alpha(int32_t c)
{
    return category_is(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LO);
}

bool char_is_decimal(int32_t c)
{
    return category_is(c, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_ND);
}

bool char_is_digit(int32_t c)
{
    return char_is_decimal(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
           (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247c) ||
           (c >= 0x2488 && c <= 0x2490);
}

bool char_is_numeric(int32_t c)
{
    return category_is(c, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO);
}

bool char_is_upper(int32_t c)
{
    return c < 0x80 ? c >= 'A' && c <= 'Z' : category_is(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LU);
}

bool char_is_lower(int32_t c)
{
    return c < 0x80 ? c >= 'a' && c <= 'z'
                    : category_is(c, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LL) || c == 0xaa || c == 0xba;
}

bool char_is_title(int32_t c)
{
    return category_is(c, UTF8PROC_CATEGORY_LT, UTF8PROC_CATEGORY_LT);
}

bool char_is_printable(int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);

    return c == ' ' || (category != UTF8PROC_CATEGORY_CN &&
                        !(category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_CO));
}

/* ------------------------------------------------------------------------------------------------ case */
static const special_case *find_special(int32_t c)
{
    size_t low = 0, high = MOE_COUNT(special_cases);

    while (low < high) {
        const size_t middle = low + (high - low) / 2;

        if (special_cases[middle].c < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < MOE_COUNT(special_cases) && special_cases[low].c == c ? &special_cases[low] : NULL;
}

static bool is_cased(int32_t c)
{
    return char_is_upper(c) || char_is_lower(c) || char_is_title(c);
}

/* Characters that case rules look through: marks, modifiers, apostrophes. */
static bool is_ignorable(int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);

    return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2019 || c == 0x2018 ||
           category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_SK;
}

/* A sigma at the end of a word has a lower case of its own. */
static bool is_final_sigma(const text *t, size_t at, size_t length)
{
    size_t before = at, after = at + length;
    int32_t c = 0;

    while (before > 0) {
        before -= text_before(t, before, &c);
        if (!is_ignorable(c)) {
            break;
        }
    }
    if (at == 0 || !is_cased(c)) {
        return false;
    }
    while (after < t->n) {
        after += text_character(t, after, &c);
        if (!is_ignorable(c)) {
            return !is_cased(c);
        }
    }
    return true;
}

static void add_lower(render *r, builder *b, const text *t, size_t at, size_t length, int32_t c)
{
    char out[4];
    const uint8_t origin = text_origin_at(t, at);

    if (c == 0x130) {
        builder_add(r, b, "i\xcc\x87", 3, origin);
        return;
    }
    if (c == 0x3a3) {
        c = is_final_sigma(t, at, length) ? 0x3c2 : 0x3c3;
    } else {
        c = utf8proc_tolower(c);
    }
    builder_add(r, b, out, char_put(c, out), origin);
}

static void add_upper(render *r, builder *b, const text *t, size_t at, int32_t c, bool title)
{
    const special_case *special = c >= 0x80 ? find_special(c) : NULL;
    char out[4];

    if (special) {
        const char *mapped = title ? special->title : special->upper;

        builder_add(r, b, mapped, strlen(mapped), text_origin_at(t, at));
        return;
    }
    c = title ? utf8proc_totitle(c) : utf8proc_toupper(c);
    builder_add(r, b, out, char_put(c, out), text_origin_at(t, at));
}

value text_case(render *r, const text *t, case_kind kind)
{
    builder b = {0};
    int32_t c;

    for (size_t at = 0, length; at < t->n && RENDER_OK(r); at += length) {
        length = text_character(t, at, &c);
        if (kind == CASE_LOWER || (kind == CASE_SWAP && char_is_upper(c))) {
            add_lower(r, &b, t, at, length, c);
        } else if (kind == CASE_UPPER || (kind == CASE_SWAP && char_is_lower(c))) {
            add_upper(r, &b, t, at, c, false);
        } else {
            builder_add_slice(r, &b, t, at, at + length);
        }
    }
    return builder_value(r, &b);
}

value text_title(render *r, const text *t)
{
    builder b = {0};
    bool inside = false;
    int32_t c;

    for (size_t at = 0, length; at < t->n && RENDER_OK(r); at += length) {
        length = text_character(t, at, &c);
        if (inside) {
            add_lower(r, &b, t, at, length, c);
        } else {
            add_upper(r, &b, t, at, c, true);
        }
        inside = is_cased(c);
    }
    return builder_value(r, &b);
}

value text_capitalize(render *r, const text *t)
{
    builder b = {0};
    int32_t c;

    for (size_t at = 0, length; at < t->n && RENDER_OK(r); at += length) {
        length = text_character(t, at, &c);
        if (at > 0) {
            add_lower(r, &b, t, at, length, c);
        } else {
            add_upper(r, &b, t, at, c, true);
        }
    }
    return builder_value(r, &b);
}
