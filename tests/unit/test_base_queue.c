#include "tests/support/support.h"

#include <pthread.h>

#define N_PRODUCERS 3
#define N_ITEMS     2000

static void items_come_out_in_order(void **state)
{
    int items[5];
    moe_queue *q;

    (void)state;
    assert_int_equal(moe_queue_open(3, &q), MOE_OK);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(moe_queue_push(q, &items[i]), MOE_OK);
        assert_int_equal(moe_queue_length(q), 1);
        assert_ptr_equal(moe_queue_pop(q), &items[i]);
    }
    moe_queue_close(q);
}

static void a_full_queue_is_busy(void **state)
{
    int item;
    moe_queue *q;

    (void)state;
    assert_int_equal(moe_queue_open(1, &q), MOE_OK);
    assert_int_equal(moe_queue_push(q, &item), MOE_OK);
    assert_int_equal(moe_queue_push(q, &item), MOE_ERR_BUSY);
    assert_int_equal(moe_queue_length(q), 1);
    moe_queue_close(q);
}

static void an_empty_queue_gives_null(void **state)
{
    moe_queue *q;

    (void)state;
    assert_int_equal(moe_queue_open(1, &q), MOE_OK);
    assert_null(moe_queue_pop(q));
    moe_queue_close(q);
}

typedef struct producer {
    moe_queue *q;
    unsigned char items[N_ITEMS];
} producer;

static void *produce(void *arg)
{
    producer *p = arg;

    for (size_t i = 0; i < N_ITEMS;) {
        i += moe_queue_push(p->q, &p->items[i]) == MOE_OK;
    }
    return NULL;
}

static void every_item_of_many_producers_arrives_once(void **state)
{
    static producer producers[N_PRODUCERS];
    pthread_t threads[N_PRODUCERS];
    moe_queue *q;

    (void)state;
    assert_int_equal(moe_queue_open(16, &q), MOE_OK);
    for (size_t i = 0; i < N_PRODUCERS; i++) {
        producers[i].q = q;
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    for (size_t n = 0; n < N_PRODUCERS * N_ITEMS;) {
        unsigned char *item = moe_queue_pop(q);

        if (item != NULL) {
            (*item)++;
            n++;
        }
    }
    for (size_t i = 0; i < N_PRODUCERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        for (size_t j = 0; j < N_ITEMS; j++) {
            assert_int_equal(producers[i].items[j], 1);
        }
    }
    moe_queue_close(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_out_in_order),
        cmocka_unit_test(a_full_queue_is_busy),
        cmocka_unit_test(an_empty_queue_gives_null),
        cmocka_unit_test(every_item_of_many_producers_arrives_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
