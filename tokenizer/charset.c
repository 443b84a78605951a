/* Sets of code points. Properties come from utf8proc, as runs of one general category. */
#include "tokenizer/regex_priv.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ------------------------------------------------------------------------------------------------ ranges */
void charset_fini(charset *s)
{
    free(s->ranges);
    *s = (charset){0};
}

void charset_add(charset *s, int32_t first, int32_t last)
{
    if (s->n == s->capacity) {
        const size_t capacity = s->capacity ? s->capacity * 2 : 8;
        char_range *grown = capacity > CHARSET_MAX ? NULL : realloc(s->ranges, capacity * sizeof *grown);

        if (!grown) {
            s->failed = true;
            return;
        }
        s->ranges = grown;
        s->capacity = capacity;
    }
    s->ranges[s->n++] = (char_range){first, last};
}

void charset_add_set(charset *s, const charset *other)
{
    s->failed |= other->failed;
    for (size_t i = 0; i < other->n; i++) {
        charset_add(s, other->ranges[i].first, other->ranges[i].last);
    }
}

static int by_first(const void *a, const void *b)
{
    const char_range *left = a, *right = b;

    return left->first < right->first ? -1 : left->first > right->first;
}

void charset_seal(charset *s)
{
    size_t n = 0;

    if (s->n == 0) {
        return;
    }
    qsort(s->ranges, s->n, sizeof *s->ranges, by_first);
    for (size_t i = 1; i < s->n; i++) {
        if (s->ranges[i].first <= s->ranges[n].last + 1) {
            s->ranges[n].last = MOE_MAX(s->ranges[n].last, s->ranges[i].last);
        } else {
            s->ranges[++n] = s->ranges[i];
        }
    }
    s->n = n + 1;
}

void charset_invert(charset *s)
{
    charset out = {.failed = s->failed};
    int32_t from = 0;

    for (size_t i = 0; i < s->n; i++) {
        if (s->ranges[i].first > from) {
            charset_add(&out, from, s->ranges[i].first - 1);
        }
        from = s->ranges[i].last + 1;
    }
    if (from <= CHAR_LAST) {
        charset_add(&out, from, CHAR_LAST);
    }
    charset_fini(s);
    *s = out;
}

void charset_intersect(charset *s, const charset *other)
{
    charset out = {.failed = s->failed || other->failed};

    for (size_t i = 0, j = 0; i < s->n && j < other->n;) {
        const char_range a = s->ranges[i], b = other->ranges[j];

        if (MOE_MAX(a.first, b.first) <= MOE_MIN(a.last, b.last)) {
            charset_add(&out, MOE_MAX(a.first, b.first), MOE_MIN(a.last, b.last));
        }
        i += a.last <= b.last;
        j += b.last <= a.last;
    }
    charset_fini(s);
    *s = out;
}

/* Of a sealed set. */
static bool charset_has(const charset *s, int32_t c)
{
    size_t low = 0, high = s->n;

    while (low < high) { /* the first range that does not end before c */
        const size_t middle = low + (high - low) / 2;

        if (s->ranges[middle].last < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < s->n && s->ranges[low].first <= c;
}

/* ------------------------------------------------------------------------------------------------ Unicode data
 * Worked out once in a process, in some ten milliseconds, and kept for its life. */
typedef struct category_run {
    int32_t first, last;
    uint8_t category;
} category_run;

typedef struct case_pair {
    int32_t folded, c;
} case_pair;

enum { MAX_RUNS = 8192, MAX_PAIRS = 8192 };

static struct {
    pthread_once_t once;
    category_run runs[MAX_RUNS];
    size_t n_runs;
    case_pair pairs[MAX_PAIRS]; /* all characters that are one of several of a folding; by folding */
    size_t n_pairs;
} unicode = {.once = PTHREAD_ONCE_INIT};

static int32_t fold(int32_t c)
{
    return utf8proc_tolower(utf8proc_toupper(c));
}

static int by_folded(const void *a, const void *b)
{
    const case_pair *left = a, *right = b;

    if (left->folded != right->folded) {
        return left->folded < right->folded ? -1 : 1;
    }
    return left->c < right->c ? -1 : left->c > right->c;
}

static void unicode_add(int32_t c)
{
    const uint8_t category = (uint8_t)utf8proc_category(c);
    category_run *last = unicode.n_runs > 0 ? &unicode.runs[unicode.n_runs - 1] : NULL;

    if (last && last->category == category) {
        last->last = c;
    } else {
        MOE_ASSERT(unicode.n_runs < MAX_RUNS);
        unicode.runs[unicode.n_runs++] = (category_run){c, c, category};
    }
    if (category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT ||
        category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_SO) {
        if (utf8proc_toupper(c) != c || utf8proc_tolower(c) != c) {
            MOE_ASSERT(unicode.n_pairs < MAX_PAIRS);
            unicode.pairs[unicode.n_pairs++] = (case_pair){fold(c), c};
        }
    }
}

static void unicode_fill(void)
{
    for (int32_t c = 0; c <= CHAR_LAST; c++) {
        unicode_add(c);
    }
    qsort(unicode.pairs, unicode.n_pairs, sizeof *unicode.pairs, by_folded);
}

static void unicode_need(void)
{
    MOE_ASSERT(pthread_once(&unicode.once, unicode_fill) == 0);
}

void charset_close_case(charset *s)
{
    charset more = {0};

    unicode_need();
    for (size_t i = 0, end; i < unicode.n_pairs; i = end) {
        bool any = false;

        for (end = i; end < unicode.n_pairs && unicode.pairs[end].folded == unicode.pairs[i].folded; end++) {
            any = any || charset_has(s, unicode.pairs[end].c);
        }
        for (size_t j = i; any && j < end; j++) {
            charset_add(&more, unicode.pairs[j].c, unicode.pairs[j].c);
        }
    }
    charset_add_set(s, &more);
    charset_fini(&more);
    charset_seal(s);
}

/* ------------------------------------------------------------------------------------------------ properties */
#define CATEGORY(name) MOE_BIT(UTF8PROC_CATEGORY_##name)

enum {
    LETTERS = CATEGORY(LU) | CATEGORY(LL) | CATEGORY(LT) | CATEGORY(LM) | CATEGORY(LO),
    MARKS = CATEGORY(MN) | CATEGORY(MC) | CATEGORY(ME),
    NUMBERS = CATEGORY(ND) | CATEGORY(NL) | CATEGORY(NO),
    PUNCTUATION =
        CATEGORY(PC) | CATEGORY(PD) | CATEGORY(PS) | CATEGORY(PE) | CATEGORY(PI) | CATEGORY(PF) | CATEGORY(PO),
    SYMBOLS = CATEGORY(SM) | CATEGORY(SC) | CATEGORY(SK) | CATEGORY(SO),
    WORDS = LETTERS | MARKS | CATEGORY(ND) | CATEGORY(NL) | CATEGORY(PC),
    SEPARATORS = CATEGORY(ZS) | CATEGORY(ZL) | CATEGORY(ZP),
    OTHERS = CATEGORY(CC) | CATEGORY(CF) | CATEGORY(CS) | CATEGORY(CO) | CATEGORY(CN)
};

static const struct {
    const char *names; /* between spaces */
    uint32_t categories;
} properties[] = {
    {" l letter ", LETTERS},
    {" lu uppercaseletter ", CATEGORY(LU)},
    {" ll lowercaseletter ", CATEGORY(LL)},
    {" lt titlecaseletter ", CATEGORY(LT)},
    {" lc casedletter ", CATEGORY(LU) | CATEGORY(LL) | CATEGORY(LT)},
    {" lm modifierletter ", CATEGORY(LM)},
    {" lo otherletter ", CATEGORY(LO)},
    {" m mark ", MARKS},
    {" mn nonspacingmark ", CATEGORY(MN)},
    {" mc spacingmark ", CATEGORY(MC)},
    {" me enclosingmark ", CATEGORY(ME)},
    {" n number ", NUMBERS},
    {" nd decimalnumber digit ", CATEGORY(ND)},
    {" nl letternumber ", CATEGORY(NL)},
    {" no othernumber ", CATEGORY(NO)},
    {" p punctuation punct ", PUNCTUATION},
    {" pc connectorpunctuation ", CATEGORY(PC)},
    {" pd dashpunctuation ", CATEGORY(PD)},
    {" ps openpunctuation ", CATEGORY(PS)},
    {" pe closepunctuation ", CATEGORY(PE)},
    {" pi initialpunctuation ", CATEGORY(PI)},
    {" pf finalpunctuation ", CATEGORY(PF)},
    {" po otherpunctuation ", CATEGORY(PO)},
    {" s symbol ", SYMBOLS},
    {" sm mathsymbol ", CATEGORY(SM)},
    {" sc currencysymbol ", CATEGORY(SC)},
    {" sk modifiersymbol ", CATEGORY(SK)},
    {" so othersymbol ", CATEGORY(SO)},
    {" z separator ", SEPARATORS},
    {" zs spaceseparator ", CATEGORY(ZS)},
    {" zl lineseparator ", CATEGORY(ZL)},
    {" zp paragraphseparator ", CATEGORY(ZP)},
    {" c other ", OTHERS},
    {" cc control cntrl ", CATEGORY(CC)},
    {" cf format ", CATEGORY(CF)},
    {" cn unassigned ", CATEGORY(CN)},
    {" co privateuse ", CATEGORY(CO)},
    {" any ", LETTERS | MARKS | NUMBERS | PUNCTUATION | SYMBOLS | SEPARATORS | OTHERS},
};

static const char_range white_space[] = {{0x09, 0x0d},     {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},
                                         {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
                                         {0x205f, 0x205f}, {0x3000, 0x3000}};
/* What Alphabetic has beyond letters, marks and numbers, which utf8proc does not say; then Join_Control. */
static const char_range alphabetic_symbols[] = {
    {0x24b6, 0x24e9}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}, {0x200c, 0x200d}};
/* Unicode 15, Scripts.txt. */
static const char_range han[] = {{0x2e80, 0x2e99},   {0x2e9b, 0x2ef3},   {0x2f00, 0x2fd5},   {0x3005, 0x3005},
                                 {0x3007, 0x3007},   {0x3021, 0x3029},   {0x3038, 0x303b},   {0x3400, 0x4dbf},
                                 {0x4e00, 0x9fff},   {0xf900, 0xfa6d},   {0xfa70, 0xfad9},   {0x16fe2, 0x16fe3},
                                 {0x16ff0, 0x16ff1}, {0x20000, 0x2a6df}, {0x2a700, 0x2b739}, {0x2b740, 0x2b81d},
                                 {0x2b820, 0x2cea1}, {0x2ceb0, 0x2ebe0}, {0x2f800, 0x2fa1d}, {0x30000, 0x3134a},
                                 {0x31350, 0x323af}};
static const char_range ascii[] = {{0, 0x7f}}, hex_digits[] = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};

static const struct {
    const char *names;
    const char_range *ranges;
    size_t n;
    uint32_t categories;
} classes[] = {
    {" space whitespace ", white_space, MOE_COUNT(white_space), 0},
    {" word ", alphabetic_symbols, 4, WORDS},
    {" wordjoin ", alphabetic_symbols, 5, WORDS}, /* \w of Rust's expressions, which Whitespace is made of */
    {" han script=han ", han, MOE_COUNT(han), 0},
    {" ascii ", ascii, MOE_COUNT(ascii), 0},
    {" xdigit ", hex_digits, MOE_COUNT(hex_digits), 0},
};

static void add_categories(charset *s, uint32_t categories)
{
    unicode_need();
    for (size_t i = 0; i < unicode.n_runs && categories; i++) {
        if (categories & MOE_BIT(unicode.runs[i].category)) {
            charset_add(s, unicode.runs[i].first, unicode.runs[i].last);
        }
    }
}

bool charset_add_property(charset *s, const char *name, size_t n)
{
    char key[MAX_PROPERTY + 3] = " ";
    size_t used = 1;

    for (size_t i = 0; i < n; i++) {
        const char c = name[i];

        if (c == ' ' || c == '_' || c == '-') {
            continue;
        }
        if (used > MAX_PROPERTY || (unsigned char)c >= 0x80) {
            return false;
        }
        key[used++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    if (used == 1) {
        return false;
    }
    key[used] = ' ';
    for (size_t i = 0; i < MOE_COUNT(properties); i++) {
        if (strstr(properties[i].names, key)) {
            add_categories(s, properties[i].categories);
            return true;
        }
    }
    for (size_t i = 0; i < MOE_COUNT(classes); i++) {
        if (strstr(classes[i].names, key)) {
            for (size_t j = 0; j < classes[i].n; j++) {
                charset_add(s, classes[i].ranges[j].first, classes[i].ranges[j].last);
            }
            add_categories(s, classes[i].categories);
            return true;
        }
    }
    return false;
}
