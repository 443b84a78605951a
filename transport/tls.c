/* TLS: connections between processes over TCP, encrypted and authenticated by the cluster secret, which carry frames themselves or
 * agree on shared memory or UCX for them. Here is the endpoint; its connections are in tls_peer.c, what they agree on in
 * tls_agree.c, the encryption in channel.c, the memory in shm.c, UCX in ucx.c, sockets and names in net.c and net_slot.c. */
#include "transport/tls_priv.h"

#include <stdlib.h>
#include <string.h>

/* LOOK_EVERY: turns between two looks at sockets that are expected to be silent; it is a system call, and a quarter of a
 * microsecond of a round trip that takes a few. CLOSE_TIMEOUT: for UCX to give frames back when the endpoint is closed; chosen,
 * not measured. PROTOCOL: with another one of what tls_agree.c says. */
#define LOOK_EVERY       8
#define CLOSE_TIMEOUT_NS UINT64_C(5000000000)
#define PROTOCOL         "conclave carrier 1"

static unsigned tls_progress(transport *base)
{
    tls *t = (tls *)base;

    t->n.n_events = 0;
    tls_take_rings(t);
    /* While all connections are by shared memory or UCX, sockets tell of ends and of strangers only; a worker of UCX's that is
     * not polled has its descriptor there. */
    bool polled = t->n_rings + ucx_n_up(t->ucx) == t->n.stats.peers && (t->n_rings > 0 || ucx_is_busy(t->ucx));
    if (!polled || t->turn++ % LOOK_EVERY == 0) {
        net_take_events(&t->n);
    }
    if (t->ucx != NULL) {
        ucx_progress(t->ucx);
    }
    net_check_times(&t->n);
    if (t->n.dirty) {
        tls_attend(t);
    }
    return t->n.n_events;
}

static void tls_wait(transport *base, uint64_t timeout_ns)
{
    tls *t = (tls *)base;

    if (!t->n.dirty && tls_sleep(t) && ucx_may_sleep(t->ucx)) { /* else there is something to do */
        net_sleep(&t->n, timeout_ns);
        t->turn = 0; /* the sockets may have woken us */
    }
    tls_awake(t);
}

/* Everything quietly. */
static void close_peers(tls *t)
{
    uint64_t until = moe_now_ns(moe_clock_real()) + CLOSE_TIMEOUT_NS;

    for (size_t i = 0; i < t->n.n_slots; i++) {
        net_slot *slot = net_slot_at(&t->n, i);

        net_slot_fail(slot, "closed");
        slot->quiet = true; /* also those that had failed before */
    }
    for (tls_attend(t); t->n.stats.peers > 0 && moe_now_ns(moe_clock_real()) < until; tls_attend(t)) {
        ucx_progress(t->ucx);
    }
    for (size_t i = 0; i < t->n.n_slots; i++) {
        if (net_slot_at(&t->n, i)->state != NET_FREE) {
            net_slot_free(net_slot_at(&t->n, i));
        }
    }
}

static void tls_close(transport *base)
{
    tls *t = (tls *)base;

    if (t->n.slots != NULL) {
        close_peers(t);
    }
    ucx_close(t->ucx);
    net_fini(&t->n);
    channel_key_close(t->key);
    explicit_bzero(t->record, sizeof t->record);
    free(t->rings);
    free(t->n.slots);
    free(t);
}

static bool tls_takes_device(transport *base, transport_peer peer)
{
    tls *t = (tls *)base;
    const tls_slot *slot = (const tls_slot *)net_slot_find(&t->n, peer);

    return ucx_takes_device(t->ucx) && (peer == 0 || (slot != NULL && slot->s.state == NET_UP && slot->ucx != NULL));
}

#define TLS_OPS(lane_name)                                                                                             \
    {                                                                                                                  \
        .name = (lane_name), .connect = net_connect, .send = tls_send, .progress = tls_progress, .wait = tls_wait,     \
        .wake = net_wake, .peer_close = net_peer_close, .carrier = net_carrier, .takes_device = tls_takes_device,      \
        .close = tls_close                                                                                             \
    }
static const transport_ops tls_ops[TRANSPORT_N_LANES] = {[TRANSPORT_LANE_TLS] = TLS_OPS("tls"),
                                                         [TRANSPORT_LANE_AUTO] = TLS_OPS("auto"),
                                                         [TRANSPORT_LANE_SHM] = TLS_OPS("shm"),
                                                         [TRANSPORT_LANE_UCX_TCP] = TLS_OPS("ucx-tcp"),
                                                         [TRANSPORT_LANE_RDMA] = TLS_OPS("rdma")};

static moe_status open_keys(tls *t, const transport_net_options *o, moe_error *err)
{
    moe_status status = channel_key_open(o->secret, o->n_secret, &t->key, err);

    if (status == MOE_OK && o->lane != TRANSPORT_LANE_TLS && channel_key_offer(t->key, PROTOCOL) != MOE_OK) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory");
    }
    return status;
}

/* auto does without where there is no RDMA, unless frames are to go from a GPU. It never asks UCX for anything else. */
static moe_status open_ucx(tls *t, const transport_net_options *o, const char *device, const net_hardware *h,
                           moe_error *err)
{
    bool may_do_without = o->lane == TRANSPORT_LANE_AUTO && o->gpu_frames != TRANSPORT_GPU_ON;
    const ucx_options u = {.lane = o->lane == TRANSPORT_LANE_UCX_TCP ? o->lane : h->rdma,
                           .device = device,
                           .gpu = o->gpu_frames,
                           .gpu_is_host = h->gpu_is_host};

    if (o->lane == TRANSPORT_LANE_TLS || o->lane == TRANSPORT_LANE_SHM ||
        (o->lane == TRANSPORT_LANE_AUTO && !o->rdma_network.is_given)) {
        return o->gpu_frames != TRANSPORT_GPU_ON
                   ? MOE_OK
                   : moe_fail(err, MOE_ERR_UNSUPPORTED,
                              "--gpu-frames on: --transport %s does not use UCX, which alone sends from the memory of "
                              "a GPU%s",
                              transport_lane_names[o->lane],
                              o->lane == TRANSPORT_LANE_AUTO ? "; it does with --rdma-network" : "");
    }
    moe_status status = ucx_open(&u, &t->n, &t->ucx, err);
    if (!may_do_without) {
        return status;
    }
    if (status == MOE_ERR_UNSUPPORTED) {
        MOE_WARN("--rdma-network: connections to other hosts are by tls: %s", err->text);
        return MOE_OK;
    }
    if (status == MOE_OK) {
        MOE_INFO("--rdma-network: connections to other hosts within it are by RDMA (%s) where they have it as well",
                 ucx_transports(t->ucx));
    }
    return status;
}

moe_status transport_tls_open(const transport_net_options *o, const net_hardware *h, transport **out, moe_error *err)
{
    char device[SOCKET_MAX_DEVICE];
    tls *t = calloc(1, sizeof *t);
    moe_status status;

    if (t == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory");
    }
    net_init(&t->n, &tls_ops[o->lane], o, calloc(o->max_peers, sizeof(tls_slot)), sizeof(tls_slot));
    (void)snprintf(t->n.carrier, sizeof t->n.carrier, "%s", transport_lane_names[o->lane]);
    t->lane = o->lane;
    t->rdma_network = o->rdma_network;
    t->rings = calloc(o->max_peers, sizeof *t->rings);
    status = t->n.slots == NULL || t->rings == NULL ? moe_fail(err, MOE_ERR_NO_MEMORY, "tls: out of memory")
                                                    : open_keys(t, o, err);
    if (status == MOE_OK) {
        status = net_open(&t->n, o, device, err);
    }
    if (status == MOE_OK) {
        status = open_ucx(t, o, device, h, err);
    }
    if (status != MOE_OK) {
        tls_close(&t->n.base);
        return status;
    }
    if (t->ucx != NULL && o->lane != TRANSPORT_LANE_AUTO) {
        (void)snprintf(t->n.carrier, sizeof t->n.carrier, "%s", ucx_transports(t->ucx));
    }
    net_listen_on(&t->n);
    *out = &t->n.base;
    return MOE_OK;
}
