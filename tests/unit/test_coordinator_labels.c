#include "coordinator/labels.h"
#include "tests/support/support.h"

static void assert_none(const char *json, uint32_t n_labels)
{
    assert_null(labels_parse(json, strlen(json), n_labels));
}

static void labels_are_in_the_order_of_their_numbers(void **state)
{
    const char json[] = "{\"id2label\": {\"1\": \"good\", \"0\": \"bad\", \"2\": \"\\u00e9\"}}";
    char **labels = labels_parse(json, strlen(json), 3);

    (void)state;
    assert_non_null(labels);
    assert_string_equal(labels[0], "bad");
    assert_string_equal(labels[1], "good");
    assert_string_equal(labels[2], "\xc3\xa9");
    labels_free(labels, 3);
}

static void names_of_other_labels_are_none(void **state)
{
    (void)state;
    assert_none("{}", 1);
    assert_none("{\"id2label\": null}", 1);
    assert_none("{\"id2label\": [\"a\"]}", 1);
    assert_none("{\"id2label\": {\"0\": \"a\"}}", 2);
    assert_none("{\"id2label\": {\"0\": \"a\", \"1\": \"b\"}}", 1);
    assert_none("{\"id2label\": {\"0\": \"a\", \"2\": \"b\"}}", 2);
}

static void names_that_cannot_be_told_are_none(void **state)
{
    char json[400];

    (void)state;
    assert_none("{\"id2label\": {\"0\": 7}}", 1);
    assert_none("{\"id2label\": {\"0\": \"\"}}", 1);
    assert_none("{\"id2label\": {\"0\": \"a\\u0000b\"}}", 1);
    assert_none("{\"id2label\": ", 1);
    snprintf(json, sizeof json, "{\"id2label\": {\"0\": \"%0257d\"}}", 1);
    assert_none(json, 1);
}

static void a_folder_without_config_has_no_labels(void **state)
{
    (void)state;
    assert_null(labels_load("/nonexistent", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_in_the_order_of_their_numbers),
        cmocka_unit_test(names_of_other_labels_are_none),
        cmocka_unit_test(names_that_cannot_be_told_are_none),
        cmocka_unit_test(a_folder_without_config_has_no_labels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
