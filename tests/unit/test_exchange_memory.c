/* A step allocates nothing: neither the exchange nor the nodes, also when rows have to be sent again. */
#include "tests/sim/world.h"

#include <stdlib.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static volatile bool watching; /* malloc is not known to look at it */
static volatile size_t n_allocations;

void *__wrap_malloc(size_t n)
{
    n_allocations = n_allocations + watching;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    n_allocations = n_allocations + watching;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    n_allocations = n_allocations + watching;
    return __real_realloc(p, n);
}

static world w;

static void run_watched(bool drop_experts)
{
    exchange *x = w.coordinators[0].x;

    for (int i = 0; i < 5; i++) {
        world_job_make(&w, 0, 0);
        if (drop_experts) {
            expert_node_drop(w.nodes[1].node, w.jobs[0][0].job.layer, w.jobs[0][0].ids[0]);
        }
        watching = true;
        moe_status status = exchange_begin(x, &w.jobs[0][0].job);
        for (int turn = 0; turn < 100; turn++) {
            world_turn(&w, 100000);
        }
        watching = false;
        assert_int_equal(status, MOE_OK);
        assert_int_equal(exchange_state(x, 0), EXCHANGE_DONE);
        world_job_check(&w, 0, 0);
    }
    assert_int_equal(n_allocations, 0);
}

static int setup(void **state)
{
    const world_options o = {.n_layers = 2,
                             .n_experts = 10,
                             .k = 3,
                             .d_model = 12,
                             .d_ff = 8,
                             .max_rows = 16,
                             .n_nodes = 2,
                             .n_coordinators = 1,
                             .micro_batches = 1,
                             .replication = 2,
                             .seed = 5,
                             .dispatch_timeout_ns = 5000000};

    (void)state;
    n_allocations = 0;
    world_open(&w, &o);
    world_settle(&w);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static void a_step_allocates_nothing(void **state)
{
    (void)state;
    run_watched(false);
}

static void a_step_with_refusals_allocates_nothing(void **state)
{
    exchange_stats stats;

    (void)state;
    run_watched(true);
    exchange_get_stats(w.coordinators[0].x, &stats);
    assert_true(stats.refusals > 0);
}

static void the_watch_sees_allocations(void **state)
{
    (void)state;
    watching = true;
    void *volatile p = malloc(1);
    watching = false;
    free(p);
    assert_int_equal(n_allocations, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_step_allocates_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_step_with_refusals_allocates_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(the_watch_sees_allocations, setup, teardown),
    };

    moe_log_set_level(MOE_LOG_ERROR);
    compute_thread_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
