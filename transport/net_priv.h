/* net: what is below an endpoint on a network, whatever carries its frames: options and their limits, the set of events, the
 * listener, and the connections until they have a socket. tls.c puts a net in front of its endpoint and a net_slot in front of each
 * connection; what is said over the socket is tls_peer.c's.
 *
 *   FREE -> MEETING -> UP -> FAILED -> (CLOSING ->) FREE
 *              |               ^
 *              +---------------+
 *
 * A connect of ours is MEETING from its beginning: its name is looked up by the endpoint's resolver (`asking`), then the
 * addresses are called one after the other until one takes the call (`connecting`), then the two meet.
 *
 * Whatever ends a connection only notes it (net_slot_fail), because it may happen below a callback of whoever uses the
 * transport; tls_attend closes at the end of the turn, when `dirty`.
 * Threads: the endpoint's, but for net_wake, which the resolver's threads call too. */
#ifndef CONCLAVE_TRANSPORT_NET_PRIV_H
#define CONCLAVE_TRANSPORT_NET_PRIV_H

#include "transport/socket_priv.h"
#include "transport/transport.h"

#define NET_SLOT_BITS 16 /* the low bits of a transport_peer: the place of its slot */
#define NET_MAX_SENDS 1024
/* Read of one connection in one turn, but that a frame is not cut: a peer that never stops sending must not keep the
 * thread from the others. Chosen, not measured: a large frame. */
#define NET_TURN_BYTES ((size_t)1 << 20)

typedef struct net net;

typedef enum { NET_FREE, NET_MEETING, NET_UP, NET_FAILED, NET_CLOSING } net_slot_state;

typedef struct net_slot {
    net_slot_state state;
    net *t;
    transport_peer peer;
    int fd;            /* owned; -1: none */
    bool caller;       /* the connect was ours */
    bool asking;       /* the name's addresses are awaited; there is no socket yet */
    bool connecting;   /* the socket has no connection yet */
    bool quiet;        /* no event is due: closed from here, or never UP at the end that was called */
    bool keeps_place;  /* of a stranger who is meeting: not given to another any more */
    uint64_t since_ns; /* when the look-up, the call of an address or the meeting began */
    moe_address to;    /* of a connect of ours */
    uint64_t question; /* to the resolver; 0: the host is a number */
    moe_ips ips;       /* of the host: the first n_called were called */
    size_t n_called, n_refused;
    char why[128]; /* it failed */
} net_slot;

/* What an event of the set is about. SECOND: a descriptor that a carrier has beside the socket. */
typedef enum { NET_SOCKET, NET_SECOND, NET_LISTEN, NET_WAKE } net_event_kind;

struct net {
    transport base; /* first: ops get it */
    const moe_clock *clock;
    moe_resolver *resolver;           /* owned; NULL: not open */
    int listen_fd, epoll_fd, wake_fd; /* owned; -1: none */
    bool listening;                   /* listen_fd is in the set */
    char address[SOCKET_MAX_ADDRESS];
    char carrier[64];     /* what transport_net_lane tells */
    unsigned char *slots; /* owned by the endpoint [n_slots * slot_bytes], each beginning with a net_slot */
    size_t slot_bytes, n_slots, n_meeting, max_sends;
    size_t n_standing; /* connections whose bytes the socket does not take now */
    uint64_t serial, send_timeout_ns, check_ns;
    bool dirty; /* a slot has failed */
    unsigned n_events;
    transport_net_stats stats;
};

/* ------------------------------------------------------------------------------------------------ endpoint
 * Fills t from options whose limits have been checked. slots are zeroed. */
void net_init(net *t, const transport_ops *ops, const transport_net_options *o, void *slots, size_t slot_bytes);
/* The set of events, the resolver, and the socket that listens, if one is to. device_out: the network device that has its address. */
MOE_NODISCARD moe_status net_open(net *t, const transport_net_options *o, char device_out[SOCKET_MAX_DEVICE],
                                  moe_error *err);
void net_listen_on(net *t);  /* strangers may call from now on */
void net_listen_off(net *t); /* until the next net_check_times */
void net_listen_end(net *t); /* for good */
void net_fini(net *t);       /* closes what net_open has opened */

MOE_NODISCARD moe_status net_watch(net *t, int fd, uint32_t events, net_event_kind kind, transport_peer peer, int op);
void net_take_events(net *t); /* what the set tells now */
void net_check_times(net *t); /* ends what has taken too long */
/* Sleeps for at most timeout_ns, less while a time-out may be due. */
void net_sleep(net *t, uint64_t timeout_ns);
void net_wake(transport *base); /* of transport_ops; any thread */

/* ------------------------------------------------------------------------------------------------ connections */
net_slot *net_slot_at(const net *t, size_t i);
net_slot *net_slot_find(net *t, transport_peer peer); /* NULL: it is over */
void net_slot_fail(net_slot *slot, const char *why);
void net_slot_up(net_slot *slot);
void net_slot_down(net_slot *slot); /* tells it unless the slot is quiet, and frees the slot */
void net_slot_free(net_slot *slot);
/* A connect of ours has ended. False when there is no connection: the next address is called, or the slot has failed. */
MOE_NODISCARD bool net_slot_connected(net_slot *slot);
/* Takes what the resolver has for a slot that is meeting, and ends what has taken too long: a look-up, the call of one
 * address, the meeting. */
void net_slot_go_on(net_slot *slot, uint64_t now);
void net_take_strangers(net *t); /* who call */
/* Of transport_ops. */
MOE_NODISCARD moe_status net_connect(transport *base, const char *address, transport_peer *peer_out);
void net_peer_close(transport *base, transport_peer peer);
const char *net_carrier(transport *base, transport_peer peer);

/* ------------------------------------------------------------------------------------------------ tls_peer.c
 * What is said over the socket of a slot. */
MOE_NODISCARD moe_status tls_slot_begin(net_slot *slot); /* a meeting over slot->fd, ours if slot->caller */
void tls_slot_on_event(net_slot *slot, net_event_kind kind, uint32_t events); /* NET_SOCKET, NET_SECOND */
/* Since when frames of a connection that is UP have been standing; UINT64_MAX: none is under way. */
uint64_t tls_slot_stands_since(const net_slot *slot);
const char *tls_slot_carrier(const net_slot *slot); /* what carries the frames of a connection that is UP */
void tls_slot_free(net_slot *slot);                 /* what it holds for the slot */

/* ------------------------------------------------------------------------------------------------ lanes */
/* What UCX is opened for where RDMA is to be used, and whether what is said to be a GPU's memory is the host's: rdma and false.
 * Tests, on machines that have neither, take ucx-tcp and true. */
typedef struct net_hardware {
    transport_lane rdma;
    bool gpu_is_host;
} net_hardware;
MOE_NODISCARD moe_status transport_tls_open(const transport_net_options *options, const net_hardware *hardware,
                                            transport **out, moe_error *err);

#endif
