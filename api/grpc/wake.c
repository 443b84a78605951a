#include "api/grpc/wake_priv.h"

#include <pthread.h>
#include <stdlib.h>

struct wake_slot {
    wake_hub *hub;
    rpc_call *call;  /* NULL: free */
    wake_slot *next; /* in the list it stands in: free, signalled or taken */
    bool queued;     /* signalled or taken */
};

struct wake_hub {
    pthread_mutex_t mutex; /* of all that follows but call and channel; held for a few instructions and the post */
    grpc_channel *channel; /* owned */
    grpc_call *call;       /* owned; never started */
    void *tag;
    bool shut, posted;
    wake_slot *signalled, *taken, *free;
    wake_hub *retired;
    wake_slot slots[];
};

/* Shut hubs, kept reachable: see the header. */
static wake_hub *retired_hubs;
static pthread_mutex_t retired_mutex = PTHREAD_MUTEX_INITIALIZER;

static grpc_call *call_to_nowhere(grpc_channel *channel, grpc_completion_queue *queue)
{
    grpc_slice method = grpc_slice_from_static_string("/wake");

    return grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue, method, NULL,
                                    gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
}

moe_status wake_hub_open(size_t n_slots, grpc_completion_queue *queue, void *tag, wake_hub **out)
{
    wake_hub *hub = calloc(1, sizeof(*hub) + n_slots * sizeof(hub->slots[0]));

    if (hub == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    pthread_mutex_init(&hub->mutex, NULL);
    hub->channel = grpc_lame_client_channel_create("wake", GRPC_STATUS_UNAVAILABLE, "never used");
    hub->call = call_to_nowhere(hub->channel, queue);
    hub->tag = tag;
    for (size_t i = n_slots; i-- > 0;) {
        hub->slots[i].hub = hub;
        hub->slots[i].next = hub->free;
        hub->free = &hub->slots[i];
    }
    *out = hub;
    return MOE_OK;
}

void wake_hub_shut(wake_hub *hub)
{
    if (hub == NULL) {
        return;
    }
    pthread_mutex_lock(&hub->mutex);
    hub->shut = true;
    pthread_mutex_unlock(&hub->mutex);
    grpc_call_unref(hub->call);
    grpc_channel_destroy(hub->channel);
    pthread_mutex_lock(&retired_mutex);
    hub->retired = retired_hubs;
    retired_hubs = hub;
    pthread_mutex_unlock(&retired_mutex);
}

wake_slot *wake_slot_reserve(wake_hub *hub, rpc_call *call)
{
    pthread_mutex_lock(&hub->mutex);
    wake_slot *slot = hub->free;
    if (slot != NULL) {
        hub->free = slot->next;
        slot->next = NULL;
        slot->call = call;
    }
    pthread_mutex_unlock(&hub->mutex);
    return slot;
}

/* A slot that is still listed as signalled goes back to the free list when it is taken from there. */
void wake_slot_release(wake_slot *slot)
{
    wake_hub *hub = slot->hub;

    pthread_mutex_lock(&hub->mutex);
    slot->call = NULL;
    if (!slot->queued) {
        slot->next = hub->free;
        hub->free = slot;
    }
    pthread_mutex_unlock(&hub->mutex);
}

static void post(wake_hub *hub)
{
    if (!hub->posted) {
        hub->posted = true;
        grpc_call_error error = grpc_call_start_batch(hub->call, NULL, 0, hub->tag, NULL);
        MOE_ASSERT(error == GRPC_CALL_OK);
    }
}

void wake_signal(void *ctx)
{
    wake_slot *slot = ctx;
    wake_hub *hub = slot->hub;

    pthread_mutex_lock(&hub->mutex);
    if (!hub->shut && slot->call != NULL && !slot->queued) {
        slot->queued = true;
        slot->next = hub->signalled;
        hub->signalled = slot;
        post(hub);
    }
    pthread_mutex_unlock(&hub->mutex);
}

void wake_hub_signal(wake_hub *hub)
{
    pthread_mutex_lock(&hub->mutex);
    if (!hub->shut) {
        post(hub);
    }
    pthread_mutex_unlock(&hub->mutex);
}

void wake_hub_take(wake_hub *hub)
{
    pthread_mutex_lock(&hub->mutex);
    hub->posted = false;
    if (hub->taken == NULL) {
        hub->taken = hub->signalled;
        hub->signalled = NULL;
    }
    pthread_mutex_unlock(&hub->mutex);
}

rpc_call *wake_hub_next(wake_hub *hub)
{
    rpc_call *call = NULL;

    pthread_mutex_lock(&hub->mutex);
    while (call == NULL && hub->taken != NULL) {
        wake_slot *slot = hub->taken;

        hub->taken = slot->next;
        slot->queued = false;
        slot->next = NULL;
        call = slot->call;
        if (call == NULL) {
            slot->next = hub->free;
            hub->free = slot;
        }
    }
    pthread_mutex_unlock(&hub->mutex);
    return call;
}
