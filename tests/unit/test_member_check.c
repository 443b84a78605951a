/* What is looked at of a member's options before anything that takes long. */
#include "member/member.h"
#include "tests/support/support.h"

#include <stdio.h>

static test_folder folder;
static char secret[512], absent[512];

static int setup(void **state)
{
    FILE *f;

    (void)state;
    test_folder_open(&folder);
    (void)snprintf(secret, sizeof secret, "%s", test_folder_path(&folder, "secret"));
    (void)snprintf(absent, sizeof absent, "%s", test_folder_path(&folder, "absent"));
    f = fopen(secret, "w");
    assert_non_null(f);
    assert_true(fputs("0123456789abcdef\n", f) >= 0);
    assert_int_equal(fclose(f), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_folder_close(&folder);
    return 0;
}

static member_config sound(void)
{
    static char etcd[] = "http://store:2379,http://other:2379", name[] = "default", id[] = "n";

    return (member_config){.etcd = etcd, .cluster = name, .id = id, .secret_file = secret};
}

static void assert_refused(member_config *m, const char *says)
{
    moe_error err = {""};

    assert_int_equal(member_check(m, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, says);
    member_forget_secret(m);
}

static void what_is_sound_passes_without_a_connection(void **state)
{
    member_config m = sound();
    moe_error err = {""};

    (void)state;
    assert_ok(member_check(&m, &err), err);
    assert_string_equal(m.name, m.id);
    assert_int_equal(m.n_secret, 16); /* without the newline */
    assert_memory_equal(m.secret, "0123456789abcdef", 16);
    member_forget_secret(&m);
    assert_null(m.secret);
    m.secret_file = NULL;
    m.etcd_user = m.id;
    m.etcd_password_file = m.etcd_ca = m.etcd_cert = m.etcd_key = secret;
    assert_ok(member_check(&m, &err), err);
}

/* By its option, and as something that another start will not mend. */
static void a_file_that_is_not_there_is_named(void **state)
{
    static const struct {
        size_t at;
        const char *says;
    } files[] = {
        {offsetof(member_config, secret_file), "--secret-file "},
        {offsetof(member_config, etcd_password_file), "--etcd-password-file "},
        {offsetof(member_config, etcd_ca), "--etcd-ca "},
        {offsetof(member_config, etcd_cert), "--etcd-cert "},
        {offsetof(member_config, etcd_key), "--etcd-key "},
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(files); i++) {
        member_config m = sound();
        char says[600];

        *(char **)((char *)&m + files[i].at) = absent;
        (void)snprintf(says, sizeof says, "%s%s: No such file", files[i].says, absent);
        assert_refused(&m, says);
    }
}

static void names_and_addresses_are_named(void **state)
{
    static char path[] = "a/b", word[] = "store";
    member_config m = sound();

    (void)state;
    m.cluster = path;
    assert_refused(&m, "--cluster \"a/b\": not a name");
    m = sound();
    m.id = path;
    assert_refused(&m, "--id \"a/b\": not a name");
    m = sound();
    m.etcd = word;
    assert_refused(&m, "--etcd \"store\": must be http(s)://HOST:PORT");
    m = sound();
    m.etcd_user = word;
    assert_refused(&m, "--etcd-user and --etcd-password-file: one needs the other");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_sound_passes_without_a_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_not_there_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(names_and_addresses_are_named, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
