/* TLS: frames between processes over TCP, encrypted and authenticated by the cluster secret. Here is the endpoint; its
 * connections are in tls_peer.c, the encryption in channel.c, what it shares with other lanes in net.c and net_slot.c. */
#include "transport/tls_priv.h"

#include <stdlib.h>
#include <string.h>

static unsigned tls_progress(transport *base)
{
    tls *t = (tls *)base;

    t->n.n_events = 0;
    net_take_events(&t->n);
    net_check_times(&t->n);
    if (t->n.dirty) {
        tls_attend(t);
    }
    return t->n.n_events;
}

static void tls_wait(transport *base, uint64_t timeout_ns)
{
    net *n = (net *)base;

    if (!n->dirty) { /* else there is something to do */
        net_sleep(n, timeout_ns);
    }
}

static void tls_close(transport *base)
{
    tls *t = (tls *)base;

    for (size_t i = 0; t->n.slots != NULL && i < t->n.n_slots; i++) {
        net_slot *slot = net_slot_at(&t->n, i);

        net_slot_fail(slot, "closed");
        slot->quiet = true;
    }
    if (t->n.slots != NULL) {
        tls_attend(t);
    }
    net_fini(&t->n);
    channel_key_close(t->key);
    explicit_bzero(t->record, sizeof t->record);
    free(t->n.slots);
    free(t);
}

static const transport_ops tls_ops = {
    .name = "tls",
    .connect = net_connect,
    .send = tls_send,
    .progress = tls_progress,
    .wait = tls_wait,
    .wake = net_wake,
    .peer_close = net_peer_close,
    .close = tls_close,
};

moe_status transport_tls_open(const transport_net_options *o, transport **out, moe_error *err)
{
    char device[SOCKET_MAX_DEVICE];
    tls *t = calloc(1, sizeof *t);
    moe_status status;

    if (t == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory");
    }
    net_init(&t->n, &tls_ops, &tls_lane, o, calloc(o->max_peers, sizeof(tls_slot)), sizeof(tls_slot));
    (void)snprintf(t->n.carrier, sizeof t->n.carrier, "tls");
    status = t->n.slots == NULL ? moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory")
                                : channel_key_open(o->secret, o->n_secret, &t->key, err);
    if (status == MOE_OK) {
        status = net_open(&t->n, o, device, err);
    }
    if (status != MOE_OK) {
        tls_close(&t->n.base);
        return status;
    }
    net_listen_on(&t->n);
    *out = &t->n.base;
    return MOE_OK;
}
