#include "base/base.h"

#include <pthread.h>
#include <stdlib.h>

struct moe_queue {
    pthread_mutex_t mutex; /* leaf: nothing else is locked while it is held */
    void **items;          /* owned array of borrowed pointers */
    size_t capacity, first, length;
};

moe_status moe_queue_open(size_t capacity, moe_queue **out)
{
    moe_queue *q = calloc(1, sizeof *q);

    MOE_ASSERT(capacity > 0);
    if (q == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    q->items = calloc(capacity, sizeof *q->items);
    if (q->items == NULL) {
        free(q);
        return MOE_ERR_NO_MEMORY;
    }
    q->capacity = capacity;
    MOE_ASSERT(pthread_mutex_init(&q->mutex, NULL) == 0);
    *out = q;
    return MOE_OK;
}

void moe_queue_close(moe_queue *q)
{
    if (q == NULL) {
        return;
    }
    (void)pthread_mutex_destroy(&q->mutex);
    free(q->items);
    free(q);
}

moe_status moe_queue_push(moe_queue *q, void *item)
{
    moe_status status = MOE_ERR_BUSY;

    MOE_ASSERT(item != NULL);
    (void)pthread_mutex_lock(&q->mutex);
    if (q->length < q->capacity) {
        q->items[(q->first + q->length++) % q->capacity] = item;
        status = MOE_OK;
    }
    (void)pthread_mutex_unlock(&q->mutex);
    return status;
}

void *moe_queue_pop(moe_queue *q)
{
    void *item = NULL;

    (void)pthread_mutex_lock(&q->mutex);
    if (q->length > 0) {
        item = q->items[q->first];
        q->first = (q->first + 1) % q->capacity;
        q->length--;
    }
    (void)pthread_mutex_unlock(&q->mutex);
    return item;
}

size_t moe_queue_length(moe_queue *q)
{
    size_t length;

    (void)pthread_mutex_lock(&q->mutex);
    length = q->length;
    (void)pthread_mutex_unlock(&q->mutex);
    return length;
}
