/* Bounds of a rendering, errors of the template's own, and many threads with one template. */
#include "tests/unit/test_template_support.h"

#include <pthread.h>

static void assert_too_much(const char *source, const char *variables, const char *reason)
{
    static const template_limits small = {.max_steps = 20000, .max_memory_bytes = 8 << 20, .max_output_bytes = 4096};

    assert_fails(source, variables, &small, MOE_ERR_INVALID_ARG, reason);
}

static void steps_are_bounded(void **state)
{
    (void)state;
    assert_too_much("{% for i in range(20001) %}{% endfor %}", "{}", "steps");
    assert_too_much("{% for i in range(300) %}{% for j in range(300) %}{% endfor %}{% endfor %}", "{}",
                    "more than 20000 steps");
    assert_too_much("{% for i in range(3000) %}{% if x in l %}{% endif %}{% endfor %}",
                    "{\"l\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20],\"x\":0}", "steps");
}

static void searching_from_the_end_counts_what_it_compares(void **state)
{
    (void)state;
    assert_too_much(
        "{% set x = 'a' * 4000 %}{% for i in range(9) %}{% if x.rfind('b' ~ 'a' * 2000) > 0 %}{% endif %}{% endfor %}",
        "{}", "steps");
}

static void output_is_bounded(void **state)
{
    (void)state;
    assert_too_much("{{ 'x' * 5000 }}", "{}", "more than 4096 bytes of text");
    assert_too_much("{% for i in range(100) %}{{ s }}{{ s }}{{ s }}{{ s }}{{ s }}{{ s }}{% endfor %}",
                    "{\"s\":\"0123456789\"}", "more than 4096 bytes of text");
    assert_too_much("{% set x = 'ab' * 1000 %}{{ (x + x + x)|length }}", "{}", "more than 4096 bytes of text");
    assert_too_much("{{ '%400s%400s%400s%400s%400s%400s%400s%400s%400s%400s%400s' % (1,2,3,4,5,6,7,8,9,0,1) }}", "{}",
                    "4096 bytes");
    assert_too_much("{{ 'x'.center(100000) }}", "{}", "4096 bytes");
    assert_too_much("{{ 1|tojson(indent=100000) }}", "{}", "4096 bytes");
}

static void memory_is_bounded(void **state)
{
    static const template_limits small = {
        .max_steps = 10000000, .max_memory_bytes = 1 << 20, .max_output_bytes = 1 << 20};
    static const char *const sources[] = {
        "{% set ns = namespace(l=[1]) %}{% for i in range(20) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{% for i in range(3000) %}{% set x = [i, i, i, i, i, i, i, i, i, i, i, i] * 4 %}{% endfor %}",
        "{{ range(99999)|length }}",
        "{{ ('x' * 700000)|replace('x', 'y')|length }}",
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(sources); i++) {
        assert_fails(sources[i], "{}", &small, MOE_ERR_INVALID_ARG, "more than 1048576 bytes of memory");
    }
}

static void recursion_is_bounded(void **state)
{
    (void)state;
    assert_too_much("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{}", "nested too deep; the limit is 1000");
    assert_too_much(
        "{% set ns = namespace(x=[]) %}{% for i in range(1200) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}", "{}",
        "nested too deep");
    assert_too_much("{% macro m(x) %}{{ x|map(*x)|list }}{% endmacro %}{{ m(['map'] * 1200) }}", "{}",
                    "nested too deep");
    assert_fails("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", "{}", &plenty, MOE_ERR_INVALID_ARG,
                 "nested too deep");
    assert_too_much("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns.x == [ns] }}{{ ns.x|tojson }}", "{}", "");
}

static void ranges_are_bounded_as_in_the_sandbox(void **state)
{
    (void)state;
    assert_renders("{{ range(100000)|length }}", "{}", "100000");
    assert_fails("{{ range(100001)|length }}", "{}", &plenty, MOE_ERR_INVALID_ARG,
                 "range of 100001 items; the limit is 100000");
    assert_fails("{{ range(-9223372036854775807, 9223372036854775807)|length }}", "{}", &plenty, MOE_ERR_INVALID_ARG,
                 "the limit");
}

static void integers_beyond_64_bits_are_errors(void **state)
{
    static const char *const expressions[] = {
        "{{ x + 1 }}",     "{{ x * 2 }}",        "{{ -x - 2 }}",
        "{{ 10 ** 19 }}",  "{{ -(-x - 1) }}",    "{{ (-x - 1) // -1 }}",
        "{{ 1e300|int }}", "{{ (-x - 1)|abs }}", "{{ '9223372036854775808'|int }}"};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(expressions); i++) {
        assert_fails(expressions[i], "{\"x\":9223372036854775807}", &plenty, MOE_ERR_INVALID_ARG, "beyond 64 bits");
    }
    assert_renders("{{ -x - 1 }} {{ (-x - 1) % -1 }} {{ x // 2 }}", "{\"x\":9223372036854775807}",
                   "-9223372036854775808 0 4611686018427387903");
}

static void an_exception_of_the_template_is_its_text_alone(void **state)
{
    rendering r;

    (void)state;
    assert_int_equal(render_within(&r, "{{ raise_exception('Roles must alternate: ' ~ x) }}", "{\"x\":3}", &plenty),
                     MOE_ERR_INVALID_ARG);
    assert_string_equal(r.err.text, "Roles must alternate: 3");
    render_free(&r);
}

static void an_error_names_its_line(void **state)
{
    (void)state;
    assert_fails("a\nb\n{{ x.y.z }}", "{\"x\":{}}", &plenty, MOE_ERR_INVALID_ARG,
                 "chat template, line 3: 'dict object' has no attribute 'y'");
    assert_fails("\n{{ x + 1 }}", "{}", &plenty, MOE_ERR_INVALID_ARG, "line 2: 'x' is undefined");
    assert_fails("{{ 1 / 0 }}", "{}", &plenty, MOE_ERR_INVALID_ARG, "line 1: division by zero");
}

static void variables_over_the_memory_are_refused(void **state)
{
    static const template_limits tiny = {.max_steps = 1000, .max_memory_bytes = 64, .max_output_bytes = 100};
    rendering r;

    (void)state;
    assert_int_equal(render_within(&r, "x", "{\"a\":[1,2,3]}", &tiny), MOE_ERR_INVALID_ARG);
    assert_contains(r.err.text, "64 bytes of memory");
    render_free(&r);
}

static void a_date_that_is_none_is_refused(void **state)
{
    const template_time no_date = {2026, 13, 1, 0, 0, 0};
    template_vars *vars = NULL;
    template_output out;
    template *t = NULL;
    moe_error err = {""};

    (void)state;
    assert_ok(template_compile("{{ strftime_now('%B') }}", 24, &t, &err), err);
    assert_ok(template_vars_open(&plenty, &vars, &err), err);
    assert_int_equal(template_render(t, vars, &no_date, &out, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "2026-13-1 is no date");
    assert_int_equal(template_render(t, vars, NULL, &out, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "no time is given");
    template_vars_close(vars);
    template_free(t);
}

/* ------------------------------------------------------------------------------------------------ threads */
enum { N_THREADS = 4, N_ROUNDS = 200 };

typedef struct worker {
    const template *t;
    int number, n_wrong;
} worker;

static void *render_often(void *arg)
{
    worker *w = arg;
    char expected[64], text[16];

    (void)snprintf(text, sizeof text, "w%d", w->number);
    (void)snprintf(expected, sizeof expected, "w%d0w%d1w%d2", w->number, w->number, w->number);
    for (int i = 0; i < N_ROUNDS; i++) {
        template_vars *vars = NULL;
        template_output out = {"", 0, NULL, 0};

        if (template_vars_open(&plenty, &vars, NULL) != MOE_OK) {
            w->n_wrong++;
            continue;
        }
        template_set(vars, "x", template_text(vars, text, strlen(text), 1));
        w->n_wrong += template_render(w->t, vars, NULL, &out, NULL) != MOE_OK || out.n != strlen(expected) ||
                      memcmp(out.text, expected, out.n) != 0;
        template_vars_close(vars);
    }
    return NULL;
}

static void one_template_serves_several_threads(void **state)
{
    static const char source[] =
        "{% macro m(i) %}{{ x ~ i }}{% endmacro %}{% for i in range(3) %}{{ m(i) }}{% endfor %}";
    pthread_t threads[N_THREADS];
    worker workers[N_THREADS];
    template *t = NULL;
    moe_error err = {""};

    (void)state;
    assert_ok(template_compile(source, strlen(source), &t, &err), err);
    for (int i = 0; i < N_THREADS; i++) {
        workers[i] = (worker){t, i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, &workers[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].n_wrong, 0);
    }
    template_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_bounded),
        cmocka_unit_test(searching_from_the_end_counts_what_it_compares),
        cmocka_unit_test(output_is_bounded),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(recursion_is_bounded),
        cmocka_unit_test(ranges_are_bounded_as_in_the_sandbox),
        cmocka_unit_test(integers_beyond_64_bits_are_errors),
        cmocka_unit_test(an_exception_of_the_template_is_its_text_alone),
        cmocka_unit_test(an_error_names_its_line),
        cmocka_unit_test(variables_over_the_memory_are_refused),
        cmocka_unit_test(a_date_that_is_none_is_refused),
        cmocka_unit_test(one_template_serves_several_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
