#include "base/cores_priv.h"
#include "tests/support/support.h"

#include <sys/stat.h>

static void make_folder(void **state, const char *name)
{
    assert_int_equal(mkdir(test_folder_path(*state, name), 0700), 0);
}

static size_t quota(void **state, const char *memberships)
{
    test_write_text(test_folder_path(*state, "memberships"), memberships);
    return cores_of_quota(test_folder_path(*state, "memberships"), ((const test_folder *)*state)->path);
}

static void there_is_at_least_one_core(void **state)
{
    (void)state;
    assert_true(moe_cores_available() >= 1);
}

static void a_version_2_quota_is_rounded_up(void **state)
{
    make_folder(state, "pod");
    test_write_text(test_folder_path(*state, "pod/cpu.max"), "150000 100000\n");
    assert_int_equal(quota(state, "0::/pod\n"), 2);
}

static void max_means_no_quota(void **state)
{
    test_write_text(test_folder_path(*state, "cpu.max"), "max 100000\n");
    assert_true(quota(state, "0::/\n") == SIZE_MAX);
}

static void the_tightest_quota_above_binds(void **state)
{
    make_folder(state, "pod");
    make_folder(state, "pod/box");
    test_write_text(test_folder_path(*state, "pod/cpu.max"), "300000 100000\n");
    test_write_text(test_folder_path(*state, "pod/box/cpu.max"), "800000 100000\n");
    assert_int_equal(quota(state, "0::/pod/box\n"), 3);
}

static void a_path_of_the_host_falls_back_to_the_mount(void **state)
{
    test_write_text(test_folder_path(*state, "cpu.max"), "400000 100000\n");
    assert_int_equal(quota(state, "0::/not/visible/here\n"), 4);
}

static void a_version_1_quota_is_read_from_the_cpu_controller(void **state)
{
    make_folder(state, "cpu");
    test_write_text(test_folder_path(*state, "cpu/cpu.cfs_quota_us"), "250000\n");
    test_write_text(test_folder_path(*state, "cpu/cpu.cfs_period_us"), "100000\n");
    assert_int_equal(quota(state, "5:memory:/\n4:cpu,cpuacct:/\n"), 3);
}

static void a_negative_version_1_quota_means_none(void **state)
{
    make_folder(state, "cpu");
    test_write_text(test_folder_path(*state, "cpu/cpu.cfs_quota_us"), "-1\n");
    test_write_text(test_folder_path(*state, "cpu/cpu.cfs_period_us"), "100000\n");
    assert_true(quota(state, "4:cpu:/\n") == SIZE_MAX);
}

static void garbage_means_no_quota(void **state)
{
    test_write_text(test_folder_path(*state, "cpu.max"), "many\n");
    assert_true(quota(state, "0::/\nx\n::\n0::pod\n") == SIZE_MAX);
}

#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, test_folder_setup, test_folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_is_at_least_one_core),
        FOLDER_TEST(a_version_2_quota_is_rounded_up),
        FOLDER_TEST(max_means_no_quota),
        FOLDER_TEST(the_tightest_quota_above_binds),
        FOLDER_TEST(a_path_of_the_host_falls_back_to_the_mount),
        FOLDER_TEST(a_version_1_quota_is_read_from_the_cpu_controller),
        FOLDER_TEST(a_negative_version_1_quota_means_none),
        FOLDER_TEST(garbage_means_no_quota),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
