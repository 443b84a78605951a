#include "coordinator/advertise.h"
#include "tests/support/support.h"

static coordinator_config config(bool in_cluster, char *listen, char *advertise)
{
    static char etcd[] = "http://127.0.0.1:2379", lane[] = "auto", frames[] = "auto";

    return (coordinator_config){.member = {.etcd = in_cluster ? etcd : NULL, .transport = lane, .gpu_frames = frames},
                                .listen = listen,
                                .advertise = advertise};
}

static void assert_accepted(bool in_cluster, char *listen, char *advertise, const char *address)
{
    coordinator_config o = config(in_cluster, listen, advertise);
    char out[ADVERTISE_BYTES];
    moe_error err;

    assert_ok(advertise_check(&o, &err), err);
    advertise_address(&o, 7300, out);
    assert_string_equal(out, address);
}

static void assert_refused(char *listen, char *advertise, const char *words)
{
    coordinator_config o = config(true, listen, advertise);
    moe_error err;

    assert_int_equal(advertise_check(&o, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, words);
}

static void where_we_listen_is_told_with_the_port_that_was_found(void **state)
{
    char host[] = "10.0.0.3:0", v6[] = "[fd00::3]:0";

    (void)state;
    assert_accepted(true, host, NULL, "10.0.0.3:7300");
    assert_accepted(true, v6, NULL, "[fd00::3]:7300");
}

static void what_is_advertised_is_told(void **state)
{
    char all[] = "0.0.0.0:7300", name[] = "coordinator-0.pods:443", any_port[] = "10.0.0.3:0";
    char pod[] = "10.0.0.3", pod_6[] = "fd00::3", pod_name[] = "coordinator-0.pods";

    (void)state;
    assert_accepted(true, all, name, "coordinator-0.pods:443");
    assert_accepted(true, all, any_port, "10.0.0.3:7300");
    assert_accepted(true, all, pod, "10.0.0.3:7300");
    assert_accepted(true, all, pod_6, "[fd00::3]:7300");
    assert_accepted(true, all, pod_name, "coordinator-0.pods:7300");
}

static void every_address_is_no_address_in_a_cluster(void **state)
{
    char v4[] = "0.0.0.0:7300", v6[] = "[::]:0", none[] = ":7300", *const all[] = {v4, v6, none};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        assert_refused(all[i], NULL, "--advertise HOST:PORT must say");
        assert_refused((char[]){"10.0.0.3:7300"}, all[i], "advertise");
    }
}

static void alone_every_address_may_be_listened_on(void **state)
{
    (void)state;
    assert_accepted(false, (char[]){"0.0.0.0:7300"}, NULL, "0.0.0.0:7300");
}

static void what_is_no_address_is_refused(void **state)
{
    char host[] = "10.0.0.3:7300", no_port[] = "10.0.0.3", bad[] = "10.0.0.3:x", long_one[300];

    (void)state;
    assert_refused(host, bad, "advertise");
    assert_refused(no_port, NULL, "listen");
    memset(long_one, 'a', sizeof long_one);
    memcpy(long_one + 258, ":7300", 6);
    assert_refused(host, long_one, "advertise");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_we_listen_is_told_with_the_port_that_was_found),
        cmocka_unit_test(what_is_advertised_is_told),
        cmocka_unit_test(every_address_is_no_address_in_a_cluster),
        cmocka_unit_test(alone_every_address_may_be_listened_on),
        cmocka_unit_test(what_is_no_address_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
