#include "base/memory_priv.h"
#include "tests/support/support.h"

#include <sys/stat.h>

#define MIB       ((size_t)1 << 20)
#define UNLIMITED "9223372036854771712\n" /* as version 1 writes it */

static void make_folder(void **state, const char *name)
{
    assert_int_equal(mkdir(test_folder_path(*state, name), 0700), 0);
}

static void write_file(void **state, const char *name, const char *text)
{
    test_write_text(test_folder_path(*state, name), text);
}

/* A machine with 4 GiB free. */
static int setup(void **state)
{
    int result = test_folder_setup(state);

    make_folder(state, "self");
    write_file(state, "meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\n");
    return result;
}

static size_t available(void **state, const char *memberships)
{
    const char *root = ((const test_folder *)*state)->path;

    write_file(state, "self/cgroup", memberships);
    return memory_available_in(root, root);
}

static void without_a_limit_it_is_what_the_machine_has_free(void **state)
{
    write_file(state, "memory.max", "max\n");
    write_file(state, "memory.high", "max\n");
    assert_int_equal(available(state, "0::/\n"), 4096 * MIB);
}

static void without_control_groups_it_is_what_the_machine_has_free(void **state)
{
    assert_int_equal(available(state, ""), 4096 * MIB);
}

static void a_limit_above_what_the_machine_has_does_not_count(void **state)
{
    write_file(state, "memory.max", "8589934592\n");
    assert_int_equal(available(state, "0::/\n"), 4096 * MIB);
}

static void a_version_1_limit_binds(void **state)
{
    make_folder(state, "memory");
    make_folder(state, "memory/pod");
    write_file(state, "memory/pod/memory.limit_in_bytes", "67108864\n");
    assert_int_equal(available(state, "5:cpu,cpuacct:/\n4:memory:/pod\n0::/\n"), 64 * MIB);
}

static void inside_a_container_the_path_is_the_hosts_and_the_mount_is_the_pods(void **state)
{
    make_folder(state, "memory");
    write_file(state, "memory/memory.limit_in_bytes", "67108864\n");
    assert_int_equal(available(state, "4:memory:/kubepods/burstable/pod1/box\n"), 64 * MIB);
}

static void a_version_1_limit_that_is_not_seen_is_in_the_statistics(void **state)
{
    make_folder(state, "memory");
    write_file(state, "memory/memory.limit_in_bytes", UNLIMITED);
    write_file(state, "memory/memory.stat", "cache 0\nhierarchical_memory_limit 134217728\n");
    assert_int_equal(available(state, "4:memory:/\n"), 128 * MIB);
}

static void unlimited_in_version_1_is_no_limit(void **state)
{
    make_folder(state, "memory");
    write_file(state, "memory/memory.limit_in_bytes", UNLIMITED);
    write_file(state, "memory/memory.usage_in_bytes", "104857600\n");
    assert_int_equal(available(state, "4:memory:/\n"), 4096 * MIB);
}

static void the_tightest_limit_above_binds(void **state)
{
    make_folder(state, "pod");
    make_folder(state, "pod/box");
    write_file(state, "pod/memory.max", "104857600\n");
    write_file(state, "pod/box/memory.max", "209715200\n");
    assert_int_equal(available(state, "0::/pod/box\n"), 100 * MIB);
}

static void what_others_in_the_group_use_is_taken_off(void **state)
{
    make_folder(state, "pod");
    make_folder(state, "pod/box");
    write_file(state, "pod/memory.max", "104857600\n");
    write_file(state, "pod/memory.current", "94371840\n");
    write_file(state, "pod/box/memory.max", "52428800\n");
    write_file(state, "pod/box/memory.current", "1048576\n");
    assert_int_equal(available(state, "0::/pod/box\n"), 10 * MIB);
}

static void pages_of_files_are_not_in_the_way(void **state)
{
    write_file(state, "memory.max", "104857600\n");
    write_file(state, "memory.current", "94371840\n");
    write_file(state, "memory.stat", "anon 10485760\ninactive_file 73400320\nactive_file 10485760\n");
    assert_int_equal(available(state, "0::/\n"), 90 * MIB);
}

static void pages_of_files_are_not_in_the_way_in_version_1(void **state)
{
    make_folder(state, "memory");
    write_file(state, "memory/memory.limit_in_bytes", "104857600\n");
    write_file(state, "memory/memory.usage_in_bytes", "94371840\n");
    write_file(state, "memory/memory.stat",
               "inactive_file 1\ntotal_inactive_file 73400320\ntotal_active_file 10485760\n");
    assert_int_equal(available(state, "4:memory:/\n"), 90 * MIB);
}

static void a_group_that_is_full_leaves_nothing(void **state)
{
    write_file(state, "memory.max", "104857600\n");
    write_file(state, "memory.current", "104857601\n");
    assert_int_equal(available(state, "0::/\n"), 0);
}

static void a_group_is_not_filled_until_it_is_slowed_down(void **state)
{
    write_file(state, "memory.max", "209715200\n");
    write_file(state, "memory.high", "104857600\n");
    assert_int_equal(available(state, "0::/\n"), 100 * MIB);
}

static void a_memory_limit_of_nothing_leaves_nothing(void **state)
{
    write_file(state, "memory.max", "0\n");
    assert_int_equal(available(state, "0::/\n"), 0);
}

static void garbage_is_no_limit(void **state)
{
    write_file(state, "memory.max", "-5\n");
    write_file(state, "memory.high", "12cows\n");
    assert_int_equal(available(state, "x\n::\n0::pod\n0::/\n7:memory\n"), 4096 * MIB);
}

/* Others on the machine and in the group come and go. */
static void the_total_is_the_same_whatever_is_free(void **state)
{
    const char *root = ((const test_folder *)*state)->path;

    make_folder(state, "pod");
    write_file(state, "self/cgroup", "0::/pod\n");
    assert_int_equal(memory_total_in(root, root), 16000 * MIB);
    write_file(state, "meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
    assert_int_equal(memory_total_in(root, root), 16000 * MIB);
    write_file(state, "pod/memory.max", "104857600\n");
    for (int i = 0; i < 2; i++) {
        write_file(state, "pod/memory.current", i == 0 ? "94371840\n" : "1048576\n");
        assert_int_equal(memory_total_in(root, root), 100 * MIB);
    }
}

static void the_total_is_within_a_version_1_limit(void **state)
{
    const char *root = ((const test_folder *)*state)->path;

    make_folder(state, "memory");
    write_file(state, "memory/memory.limit_in_bytes", "67108864\n");
    write_file(state, "memory/memory.usage_in_bytes", "67108860\n");
    write_file(state, "self/cgroup", "4:memory:/\n");
    assert_int_equal(memory_total_in(root, root), 64 * MIB);
}

#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, setup, test_folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(without_a_limit_it_is_what_the_machine_has_free),
        FOLDER_TEST(without_control_groups_it_is_what_the_machine_has_free),
        FOLDER_TEST(a_limit_above_what_the_machine_has_does_not_count),
        FOLDER_TEST(a_version_1_limit_binds),
        FOLDER_TEST(inside_a_container_the_path_is_the_hosts_and_the_mount_is_the_pods),
        FOLDER_TEST(a_version_1_limit_that_is_not_seen_is_in_the_statistics),
        FOLDER_TEST(unlimited_in_version_1_is_no_limit),
        FOLDER_TEST(the_tightest_limit_above_binds),
        FOLDER_TEST(what_others_in_the_group_use_is_taken_off),
        FOLDER_TEST(pages_of_files_are_not_in_the_way),
        FOLDER_TEST(pages_of_files_are_not_in_the_way_in_version_1),
        FOLDER_TEST(a_group_that_is_full_leaves_nothing),
        FOLDER_TEST(a_group_is_not_filled_until_it_is_slowed_down),
        FOLDER_TEST(a_memory_limit_of_nothing_leaves_nothing),
        FOLDER_TEST(garbage_is_no_limit),
        FOLDER_TEST(the_total_is_the_same_whatever_is_free),
        FOLDER_TEST(the_total_is_within_a_version_1_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
