#include "api/metrics_priv.h"
#include "tests/support/fake_engine.h"
#include "tests/support/support.h"

static void labels_are_escaped_and_bounded(void **state)
{
    char value[400];
    moe_text out;

    (void)state;
    moe_text_init(&out, 1000);
    metrics_label(&out, "a\"b\\c\nd");
    assert_string_equal(moe_text_cstr(&out), "a\\\"b\\\\c\\nd");
    out.size = 0;
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    metrics_label(&out, value);
    assert_int_equal(out.size, 128);
    moe_text_fini(&out);
}

static void a_label_that_is_not_utf8_is_cut(void **state)
{
    moe_text out;

    (void)state;
    moe_text_init(&out, 1000);
    metrics_label(&out, "ok\xff"
                        "bad");
    assert_string_equal(moe_text_cstr(&out), "ok");
    metrics_label(&out, NULL);
    assert_int_equal(out.size, 2);
    moe_text_fini(&out);
}

static void a_page_beyond_its_limit_fails_as_a_whole(void **state)
{
    fake_options options = {.no_tokenizer = false};
    engine *e = fake_engine_open(&options);
    fake_cluster *c = fake_cluster_open();
    metrics_source source = {.engine = e, .view = fake_cluster_view(c), .model_name = "m"};
    moe_text out;

    (void)state;
    moe_text_init(&out, 500);
    metrics_render(&source, &out);
    assert_true(out.failed);
    moe_text_fini(&out);
    fake_cluster_close(c);
    fake_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_escaped_and_bounded),
        cmocka_unit_test(a_label_that_is_not_utf8_is_cut),
        cmocka_unit_test(a_page_beyond_its_limit_fails_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
