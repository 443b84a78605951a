/* What is refused before anything is rendered: by line, and by the name of what is not known. */
#include "tests/unit/test_template_support.h"

typedef struct refusal {
    const char *source, *reason;
} refusal;

static void assert_refused(const refusal *cases, size_t n, moe_status status)
{
    for (size_t i = 0; i < n; i++) {
        assert_fails(cases[i].source, "{}", &plenty, status, cases[i].reason);
    }
}

static void what_jinja_knows_and_this_does_not_is_named(void **state)
{
    static const refusal cases[] = {
        {"{{ x|wordwrap }}", "line 1: the filter 'wordwrap' is not known"},
        {"\n{{ x|map('urlize') }}", "line 2: the filter 'urlize' is not known"},
        {"{% if x %}{{ x|xmlattr }}{% endif %}", "the filter 'xmlattr' is not known"},
        {"{{ x|never_heard_of }}", "the filter 'never_heard_of' is not known"},
        {"{{ x is never_heard_of }}", "the test 'never_heard_of' is not known"},
        {"{% for x in y recursive %}{% endfor %}", "a recursive loop is not known"},
        {"{% include 'x' %}", "the statement 'include' is not known"},
        {"{% extends 'x' %}", "the statement 'extends' is not known"},
        {"{% import 'x' as y %}", "the statement 'import' is not known"},
        {"{% block x %}{% endblock %}", "the statement 'block' is not known"},
        {"{% autoescape true %}{% endautoescape %}", "the statement 'autoescape' is not known"},
        {"{{ x.encode('utf-8') }}", "the method 'encode' is not known"},
        {"{{ joiner() }}", "the function 'joiner' is not known"},
        {"{{ self.x() }}", "the name 'self' is not known"},
        {"{{ x[1, 2] }}", "a subscript of several parts"},
    };

    (void)state;
    assert_refused(cases, MOE_COUNT(cases), MOE_ERR_UNSUPPORTED);
}

static void what_is_no_template_is_refused_by_line(void **state)
{
    static const refusal cases[] = {
        {"a\n{{ x", "line 2"},
        {"{% if x %}\n\n", "line 1: the template ends before 'elif'"},
        {"{% endif %}", "'endif' begins no statement here"},
        {"{% do x %}", "'do' begins no statement here"},
        {"{# x", "missing end of comment tag"},
        {"{% raw %}x", "missing end of raw directive"},
        {"{{ 'x }}", "a string without its end"},
        {"{{ ? }}", "unexpected character U+003F"},
        {"{{ é }}", "unexpected character U+00E9"},
        {"{{ ) }}", "unexpected ')'"},
        {"{{ x y }}", "expected 'end of the tag', not 'y'"},
        {"{{ 99999999999999999999 }}", "beyond 64 bits"},
        {"{{ 007 }}", "a zero before it"},
        {"{{ '\\ud800' }}", "half a character"},
        {"{% set 1 = 2 %}", "cannot assign to this"},
        {"{% break %}", "'break' outside of a loop"},
        {"{% for i in x %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}", "'continue' outside of a loop"},
        {"{% macro m(a=1, b) %}{% endmacro %}", "a parameter without default"},
        {"{{ f(a=1, 2) }}", "in the wrong order"},
        {"{% call x %}{% endcall %}", "expected a call"},
        {"{{ x is odd is even }}", "chained"},
        {"\xff", "invalid UTF-8 at byte 0"},
    };

    (void)state;
    assert_refused(cases, MOE_COUNT(cases), MOE_ERR_CORRUPT);
}

/* As in Jinja: a branch that is never taken may say what it likes. */
static void an_unknown_filter_in_a_branch_is_an_error_only_when_it_is_taken(void **state)
{
    (void)state;
    assert_renders("{% if x %}{{ 1|from_json }}{% endif %}ok", "{\"x\":false}", "ok");
    assert_fails("{% if x %}{{ 1|from_json }}{% endif %}ok", "{\"x\":true}", &plenty, MOE_ERR_INVALID_ARG,
                 "no filter named 'from_json'");
    assert_renders("{{ (1 is shiny) if x else 'ok' }}", "{\"x\":false}", "ok");
    assert_fails("{% for i in x %}{% if i %}{% set y %}{{ 1|from_json }}{% endset %}{% endif %}{% endfor %}", "{}",
                 &plenty, MOE_ERR_UNSUPPORTED, "the filter 'from_json' is not known");
}

/* Repeats part n times between head and tail. */
static char *repeated(const char *head, const char *part, size_t n, const char *tail)
{
    const size_t n_head = strlen(head), n_part = strlen(part);
    char *text = malloc(n_head + n * n_part + strlen(tail) + 1);

    assert_non_null(text);
    memcpy(text, head, n_head);
    for (size_t i = 0; i < n; i++) {
        memcpy(text + n_head + i * n_part, part, n_part);
    }
    strcpy(text + n_head + n * n_part, tail);
    return text;
}

static void assert_too_deep(const char *head, const char *part, size_t n, const char *tail)
{
    char *source = repeated(head, part, n, tail);

    assert_fails(source, "{}", &plenty, MOE_ERR_UNSUPPORTED, "deep");
    free(source);
}

static void depth_is_bounded(void **state)
{
    (void)state;
    assert_too_deep("{{ ", "(", 20000, "");
    assert_too_deep("{{ ", "[", 20000, "");
    assert_too_deep("{{ ", "- ", 20000, "x }}");
    assert_too_deep("{{ x", " + x", 20000, " }}");
    assert_too_deep("{{ x", "|upper", 20000, " }}");
    assert_too_deep("{{ x", "[0]", 20000, " }}");
    assert_too_deep("{{ x", " if x else x", 20000, " }}");
    assert_too_deep("", "{% if x %}", 20000, "");
    assert_too_deep("", "{% for x in y %}", 20000, "");
}

static void names_are_bounded(void **state)
{
    char *source = calloc(1, 1 << 16);
    size_t n = 0;

    (void)state;
    assert_non_null(source);
    for (int i = 0; i < 1100; i++) {
        n += (size_t)sprintf(source + n, "{{ name_%d }}", i);
    }
    assert_fails(source, "{}", &plenty, MOE_ERR_UNSUPPORTED, "more than 1024 names");
    free(source);
}

static void size_is_bounded(void **state)
{
    char *source = repeated("", "x", TEMPLATE_MAX_SOURCE + 1, "");
    moe_error err = {""};
    template *t = NULL;

    (void)state;
    assert_int_equal(template_compile(source, strlen(source), &t, &err), MOE_ERR_UNSUPPORTED);
    assert_contains(err.text, "1048577 bytes; the limit is 1048576");
    free(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_jinja_knows_and_this_does_not_is_named),
        cmocka_unit_test(what_is_no_template_is_refused_by_line),
        cmocka_unit_test(an_unknown_filter_in_a_branch_is_an_error_only_when_it_is_taken),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(names_are_bounded),
        cmocka_unit_test(size_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
