/* Every byte knows whether the template wrote it or a variable brought it. */
#include "tests/unit/test_template_support.h"

/* Renders with x = "abC" and l = ["d", "e f"]; the text with the stretches of variables in brackets. */
static void assert_marked(const char *source, const char *expected)
{
    char marked[256];
    size_t used = 0, begin = 0;
    rendering r;

    assert_ok(
        render_within(&r, source, "{\"x\":\"abC\",\"l\":[\"d\",\"e f\"],\"d\":{\"k\":\"v\\n\"},\"n\":12}", &plenty),
        r.err);
    for (size_t i = 0; i < r.out.n_runs; i++) {
        const size_t n = r.out.runs[i].end - begin;

        assert_true(n > 0 && used + n + 2 < sizeof marked);
        assert_true(i == 0 || r.out.runs[i].origin != r.out.runs[i - 1].origin);
        marked[used] = '[';
        memcpy(marked + used + r.out.runs[i].origin, r.out.text + begin, n);
        used += n + r.out.runs[i].origin;
        marked[used] = ']';
        used += r.out.runs[i].origin;
        begin = r.out.runs[i].end;
    }
    assert_int_equal(begin, r.out.n);
    marked[used] = '\0';
    assert_string_equal(marked, expected);
    render_free(&r);
}

static void text_of_the_template_and_of_variables_is_told_apart(void **state)
{
    (void)state;
    assert_marked("", "");
    assert_marked("<{{ x }}>", "<[abC]>");
    assert_marked("{{ x }}{{ x }}", "[abCabC]");
    assert_marked("{{ '<' + x + '>' }}", "<[abC]>");
    assert_marked("{{ '<' ~ x ~ 1 }}", "<[abC]1");
}

static void origins_survive_slices_and_methods(void **state)
{
    (void)state;
    assert_marked("{{ ('<' + x + '>')[1:-1] }}", "[abC]");
    assert_marked("{{ ('<' + x + '>')[::-1] }}", ">[Cba]<");
    assert_marked("{{ x[0] }}{{ (x + '!')[-1] }}", "[a]!");
    assert_marked("{{ (x + '!').upper() }}", "[ABC]!");
    assert_marked("{{ x.replace('b', '-') }}", "[a]-[C]");
    assert_marked("{{ 'a-b'.replace('-', x) }}", "a[abC]b");
    assert_marked("{{ (' ' + x + ' ').strip() }}", "[abC]");
    assert_marked("{{ ','.join(l) }}", "[d],[e f]");
    assert_marked("{{ l[1].split()[1] }}", "[f]");
    assert_marked("{{ x.center(5, '.') }}", ".[abC].");
    assert_marked("{{ '%s;%5s' % (x, 'q') }}", "[abC];    q");
    assert_marked("{{ '<{}>'.format(x) }}", "<[abC]>");
}

static void origins_survive_filters(void **state)
{
    (void)state;
    assert_marked("{{ x|upper }}{{ x|title }}{{ x|capitalize }}", "[ABCAbcAbc]");
    assert_marked("{{ x|reverse }}{{ x|first }}{{ l|last }}", "[Cbaae f]");
    assert_marked("{{ l|join('+') }}", "[d]+[e f]");
    assert_marked("{{ d|tojson }}", "{\"[k]\": \"[v\\n]\"}");
    assert_marked("{{ d }}", "{'[k]': '[v\\n]'}");
    assert_marked("{{ l|map('upper')|join }}", "[DE F]");
    assert_marked("{{ l|list|string }}", "['[d]', '[e f]']");
    assert_marked("{{ ('a\n' + x)|indent(1) }}", "a\n [abC]");
    assert_marked("{{ x|default('q') }}{{ y|default('q') }}", "[abC]q");
    assert_marked("{{ ('<' + x)|escape }}", "&lt;[abC]");
    assert_marked("{{ (x + ' zzzz')|truncate(6, true, '', 0) }}{{ n }}", "[abC] zz12");
}

static void origins_survive_blocks_and_macros(void **state)
{
    (void)state;
    assert_marked("{% set y %}<{{ x }}>{% endset %}{{ y }}", "<[abC]>");
    assert_marked("{% macro m(a) %}({{ a }}){% endmacro %}{{ m(x) }}{{ m('q') }}", "([abC])(q)");
    assert_marked("{% filter upper %}q{{ x }}{% endfilter %}", "Q[ABC]");
    assert_marked("{% for c in x %}{{ c }}.{% endfor %}", "[a].[b].[C].");
    assert_marked("{% for k, v in d.items() %}{{ k }}={{ v|trim }}{% endfor %}", "[k]=[v]");
    assert_marked("{% set ns = namespace(t='') %}{% for c in l %}{% set ns.t = ns.t + c + '/' %}{% endfor %}{{ ns.t }}",
                  "[d]/[e f]/");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_of_the_template_and_of_variables_is_told_apart),
        cmocka_unit_test(origins_survive_slices_and_methods),
        cmocka_unit_test(origins_survive_filters),
        cmocka_unit_test(origins_survive_blocks_and_macros),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
