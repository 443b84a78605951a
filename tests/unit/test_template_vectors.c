/* Every construction of tests/vectors/template: the text that jinja2 gives, or an error where it raises one. */
#include "tests/unit/test_template_support.h"

static json_t *vectors(void)
{
    json_t *all = json_load_file("tests/vectors/template/cases.json", 0, NULL);

    assert_non_null(all);
    return all;
}

static void assert_case(const json_t *one, const char *variables)
{
    const char *source = json_string_value(json_object_get(one, "template"));
    const json_t *text = json_object_get(one, "text");
    rendering r;
    const moe_status status = render_within(&r, source, variables, &plenty);

    if (json_is_null(text)) {
        if (status == MOE_OK) {
            fail_msg("%s: \"%.*s\", where jinja2 raises an error", source, (int)r.out.n, r.out.text);
        }
        assert_true(r.err.text[0] != '\0');
    } else if (status != MOE_OK) {
        fail_msg("%s: %s", source, r.err.text);
    } else if (r.out.n != json_string_length(text) || memcmp(r.out.text, json_string_value(text), r.out.n) != 0) {
        fail_msg("%s: \"%.*s\", not \"%s\"", source, (int)r.out.n, r.out.text, json_string_value(text));
    }
    render_free(&r);
}

static void every_construction_gives_what_jinja2_gives(void **state)
{
    json_t *all = vectors(), *cases = json_object_get(all, "cases");
    char *variables = json_dumps(json_object_get(all, "variables"), 0);

    (void)state;
    assert_true(json_array_size(cases) > 500);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        assert_case(json_array_get(cases, i), variables);
    }
    free(variables);
    json_decref(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_construction_gives_what_jinja2_gives)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
