#include "api/metrics_priv.h"
#include "tests/support/fake_cluster.h"
#include "tests/support/fake_engine.h"
#include "tests/support/support.h"

#include <stdlib.h>
#include <time.h>

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

static void experts_can_be_left_out(void **state)
{
    fake_options options = {.no_tokenizer = false};
    engine *e = fake_engine_open(&options);
    fake_cluster *c = fake_cluster_open();
    metrics_source source = {.engine = e, .view = fake_cluster_view(c), .model_name = "m"};
    moe_text with, without;

    (void)state;
    moe_text_init(&with, 1000000);
    moe_text_init(&without, 1000000);
    metrics_render(&source, &with);
    source.no_experts = true;
    metrics_render(&source, &without);
    assert_non_null(strstr(moe_text_cstr(&with), "\nconclave_expert_rows_total{"));
    assert_null(strstr(moe_text_cstr(&without), "expert="));
    assert_null(strstr(moe_text_cstr(&without), "layer="));
    assert_contains(moe_text_cstr(&without), "\nconclave_requests_running ");
    moe_text_fini(&with);
    moe_text_fini(&without);
    fake_cluster_close(c);
    fake_engine_close(e);
}

/* The number behind a name, as a scraper reads it. */
static double value_of(const moe_text *page, const char *name)
{
    char line[100];
    const char *at;

    (void)snprintf(line, sizeof line, "\n%s ", name);
    at = strstr(moe_text_cstr(page), line);
    assert_non_null(at);
    return strtod(at + strlen(line), NULL);
}

static void the_device_is_named_with_its_memory_and_times(void **state)
{
    engine *e = fake_engine_open(&(fake_options){0});
    fake_cluster *c = fake_cluster_open();
    const metrics_source source = {.engine = e, .view = fake_cluster_view(c), .model_name = "m"};
    moe_text page;

    (void)state;
    moe_text_init(&page, 1000000);
    metrics_render(&source, &page);
    assert_contains(moe_text_cstr(&page), "\nconclave_device_info{device=\"fake:0 \\\"GPU\\\"\"} 1\n");
    assert_true(value_of(&page, "conclave_device_memory_bytes") == 1000);
    assert_true(value_of(&page, "conclave_device_memory_free_bytes") == 400);
    assert_true(value_of(&page, "conclave_device_memory_used_bytes") == 500);
    assert_true(value_of(&page, "conclave_device_kernel_seconds_total") == 1.5);
    assert_true(value_of(&page, "conclave_device_copy_seconds_total") == 0.25);
    assert_true(value_of(&page, "conclave_device_copied_bytes_total") == 77);
    moe_text_fini(&page);
    fake_cluster_close(c);
    fake_engine_close(e);
}

/* A view with what the transport has seen. */
static const api_view_snapshot *acquire_seen(void *ctx, bool want_replicas)
{
    static const metrics_transport values = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    static const api_view_snapshot snapshot = {.transport_metrics = &values};

    (void)ctx;
    (void)want_replicas;
    return &snapshot;
}

static void release_seen(void *ctx, const api_view_snapshot *snapshot)
{
    (void)ctx;
    (void)snapshot;
}

static void what_goes_wrong_between_members_is_told(void **state)
{
    static const char *const dispatch[] = {"resends", "hedges", "refusals", "late_results", "bad_frames"};
    static const struct {
        const char *name;
        double value;
    } seen[] = {{"conclave_transport_peers", 1},
                {"conclave_transport_connected_total", 2},
                {"conclave_transport_accepted_total", 3},
                {"conclave_transport_refused_total", 4},
                {"conclave_transport_silent_total", 5},
                {"conclave_authentication_failures_total", 6},
                {"conclave_transport_violations_total", 7},
                {"conclave_transport_timeouts_total", 8}};
    fake_options options = {.no_tokenizer = false};
    engine *e = fake_engine_open(&options);
    const api_view view = {.acquire = acquire_seen, .release = release_seen};
    const metrics_source source = {.engine = e, .view = &view, .model_name = "m"};
    moe_text page;

    (void)state;
    moe_text_init(&page, 1000000);
    metrics_render(&source, &page);
    for (size_t i = 0; i < MOE_COUNT(dispatch); i++) {
        char name[64];

        (void)snprintf(name, sizeof name, "conclave_dispatch_%s_total", dispatch[i]);
        assert_true(value_of(&page, name) == 0);
    }
    for (size_t i = 0; i < MOE_COUNT(seen); i++) {
        assert_true(value_of(&page, seen[i].name) == seen[i].value);
    }
    moe_text_fini(&page);
    fake_engine_close(e);
}

static void the_process_is_told_as_the_kernel_has_it(void **state)
{
    moe_text page;
    time_t now = time(NULL);

    (void)state;
    moe_text_init(&page, 10000);
    metrics_process(&page);
    assert_true(value_of(&page, "process_resident_memory_bytes") >= 1 << 20);
    assert_true(value_of(&page, "process_virtual_memory_bytes") >= value_of(&page, "process_resident_memory_bytes"));
    assert_true(value_of(&page, "process_open_fds") >= 3);
    assert_true(value_of(&page, "process_max_fds") >= value_of(&page, "process_open_fds"));
    assert_true(value_of(&page, "process_threads") >= 1);
    assert_true(value_of(&page, "process_cpu_seconds_total") >= 0);
    assert_true(value_of(&page, "process_start_time_seconds") > (double)now - 86400);
    assert_true(value_of(&page, "process_start_time_seconds") < (double)now + 5);
    moe_text_fini(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_escaped_and_bounded),
        cmocka_unit_test(a_label_that_is_not_utf8_is_cut),
        cmocka_unit_test(a_page_beyond_its_limit_fails_as_a_whole),
        cmocka_unit_test(experts_can_be_left_out),
        cmocka_unit_test(the_device_is_named_with_its_memory_and_times),
        cmocka_unit_test(what_goes_wrong_between_members_is_told),
        cmocka_unit_test(the_process_is_told_as_the_kernel_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
