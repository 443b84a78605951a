/* transport: send a frame to a member, be told when it is gone. It moves bytes and knows nothing of what they mean.
 *
 * Nouns:
 *   transport          one endpoint of this process; an implementation opens it (loopback and net, below) and fills the
 *                      table of its ops
 *   transport_peer     one connection. An endpoint never uses a number again, so the number is the connection's
 *                      incarnation as well: a member that connects a second time has another one
 *   transport_msg      one frame to be sent; the caller's memory, borrowed until done
 *   transport_frames   a fixed set of send buffers (frames.c)
 *
 * Threads:  an endpoint belongs to the thread that makes it progress, and all callbacks come on it. Callbacks may send,
 *           connect and close peers; they must not call progress or wait, nor close the endpoint.
 * Order:    frames of one connection arrive once and in the order sent, or the connection goes down.
 * Arrival:  that a send is done does not mean that the frame has arrived. */
#ifndef CONCLAVE_TRANSPORT_H
#define CONCLAVE_TRANSPORT_H

#include "base/base.h"

typedef struct transport transport;
typedef struct transport_msg transport_msg;
typedef uint64_t transport_peer; /* 0 is none */

#define TRANSPORT_MAX_PARTS 2

typedef enum {
    TRANSPORT_UP, /* frames can be sent: an own connect succeeded, or a stranger connected */
    /* Gone for good; `why` says what is known. Sends that were under way have been done with an error before. */
    TRANSPORT_DOWN,
    TRANSPORT_REFUSED /* as DOWN, of an own connect: nobody listens at any of its addresses */
} transport_peer_event;

typedef struct transport_handler {
    void *ctx;
    /* bytes [n] are valid during the call only; n <= the endpoint's max_message. */
    void (*on_message)(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n);
    void (*on_peer)(void *ctx, transport_peer peer, transport_peer_event event, const char *why);
} transport_handler;

typedef struct transport_part {
    const void *data;
    size_t bytes;
} transport_part;

/* The frame is its parts one after the other. The msg and what the parts point to are borrowed from send until done is
 * called, which happens exactly once for every send that returned MOE_OK, later or during send itself. */
struct transport_msg {
    transport_part parts[TRANSPORT_MAX_PARTS];
    size_t n_parts;
    bool on_device; /* its one part lies in the memory of a device: only to peers whose connection takes_device */
    void (*done)(transport_msg *msg, moe_status status);
    transport_msg *next; /* the transport's while it borrows */
};

typedef struct transport_ops {
    const char *name; /* "loopback", "tcp" */
    /* Begins to connect; UP or DOWN follows.
     *   MOE_ERR_UNAVAILABLE   nobody is there, where that is known at once
     *   MOE_ERR_BUSY          too many connections
     *   MOE_ERR_INVALID_ARG   not an address */
    MOE_NODISCARD moe_status (*connect)(transport *t, const char *address, transport_peer *peer_out);
    /* Sends one frame. After an error the msg is not borrowed and done is not called.
     *   MOE_ERR_BUSY          the way is full: try again after progress
     *   MOE_ERR_UNAVAILABLE   the peer is gone
     *   MOE_ERR_INVALID_ARG   above max_message */
    MOE_NODISCARD moe_status (*send)(transport *t, transport_peer peer, transport_msg *msg);
    /* Delivers what has arrived; never blocks; returns the number of events handled. */
    unsigned (*progress)(transport *t);
    /* Sleeps until something may have happened or timeout_ns have passed; may return early. Optional: NULL means
     * progress is all there is. */
    void (*wait)(transport *t, uint64_t timeout_ns);
    /* Makes a wait that runs or comes next return. The only entry that any thread may call. Optional, as wait is. */
    void (*wake)(transport *t);
    /* Ends a connection; the other end sees DOWN. No event comes here. Sends under way are done with MOE_ERR_CANCELLED,
     * perhaps later. Unknown or closed peers are ignored. */
    void (*peer_close)(transport *t, transport_peer peer);
    /* What carries the frames of a connection that is UP: "shm", "tls". Optional: NULL means name, for all. */
    const char *(*carrier)(transport *t, transport_peer peer);
    /* Whether a frame in the memory of a device can be sent on this connection; peer 0: whether on any there may be. Optional:
     * NULL means no. */
    bool (*takes_device)(transport *t, transport_peer peer);
    void (*close)(transport *t);
} transport_ops;

struct transport {
    const transport_ops *ops;
    size_t max_message;        /* bytes of one frame, both ways */
    transport_handler handler; /* set before the first progress */
    /* private fields follow */
};

static inline const char *transport_carrier(transport *t, transport_peer peer)
{
    return t->ops->carrier != NULL ? t->ops->carrier(t, peer) : t->ops->name;
}

static inline bool transport_takes_device(transport *t, transport_peer peer)
{
    return t->ops->takes_device != NULL && t->ops->takes_device(t, peer);
}

static inline void transport_close(transport *t)
{
    if (t != NULL) {
        t->ops->close(t);
    }
}

/* ------------------------------------------------------------------------------------------------ loopback
 * A network inside one process, for the embedded default and for tests. All its endpoints belong to one thread. Frames
 * are not copied: they are handed to the receiver from the sender's buffers (two parts are joined once). */
typedef struct transport_loopback_net transport_loopback_net;

MOE_NODISCARD moe_status transport_loopback_net_open(size_t max_endpoints, transport_loopback_net **out);
void transport_loopback_net_close(transport_loopback_net *net); /* its endpoints are closed before */

typedef struct transport_loopback_options {
    transport_loopback_net *net; /* borrowed until close */
    const char *address;         /* any text, unique among the open endpoints of the net; copied */
    size_t max_message;
    size_t max_peers;  /* connections at a time */
    size_t max_queued; /* frames waiting for this endpoint; beyond it senders get MOE_ERR_BUSY */
} transport_loopback_options;

/* Errors: MOE_ERR_EXISTS (address taken), MOE_ERR_BUSY (max_endpoints), MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status transport_loopback_open(const transport_loopback_options *options, transport **out);
/* poll runs at the end of every progress of t, and the events it reports are added to progress's. An embedded expert
 * node thus lives on the thread of the coordinator's endpoint. NULL: none. */
void transport_loopback_set_member_poll(transport *t, unsigned (*poll)(void *ctx), void *ctx);

/* ------------------------------------------------------------------------------------------------ net
 * Connections between processes. A library of its own, moe_transport_net, so that programs without a network (the
 * simulator, most tests) link neither UCX nor OpenSSL's TLS.
 *
 * Lanes:        tls      TLS 1.3 over TCP with a key from the cluster secret: frames are encrypted, and nobody who does
 *                        not know the secret is answered (docs/transport.md)
 *               shm      memory that two processes of one host share. They meet by tls, each hands the other what it takes,
 *                        and the tls connection stays as the sign of life. Anything else is refused
 *               auto     shm where it comes about, else rdma where both ends have it and rdma_network has the other's
 *                        address at both, else tls; which of them it is differs from peer to peer. The other end may be of
 *                        the lanes tls, auto, shm or rdma
 *               ucx-tcp  UCX active messages over TCP. Members prove the secret to each other before UCX reads a byte;
 *                        but UCX's own ports accept writes into a member's memory from anybody who reaches them, so
 *                        this lane is for networks that strangers cannot reach
 *               rdma     UCX over RDMA, with the same warning. It fails closed: it is refused unless every transport
 *                        that UCX would use is one, and it never falls back
 *               Both ends of a connection use the same lane, but for those named.
 * Names:        connect looks names up on threads of the endpoint's own (base.h, resolver), never on the caller's. The
 *               addresses of the last answer are kept for while the name server does not answer, and all addresses of a
 *               name are called in turn. A name without an address is a connection that goes DOWN and says why
 * Bounds:       max_peers connections, max_sends frames to each. A frame that does not leave within send_timeout_ns
 *               costs the connection, as does one above max_message.
 * Fairness:     one progress reads about 1 MiB of each connection at most, and looks at all of them.
 * Environment:  of UCX's lanes: the process's UCX_... variables are respected; those not set get what docs/transport.md
 *               says. UCX's error signals are switched off and its log lines go to the log. open calls setenv, so it
 *               comes before other threads call getenv. */
/* The addresses that --rdma-network names. */
typedef struct transport_network {
    bool is_given, is_all;
    moe_ip base;
    uint32_t n_bits; /* the first ones of base that an address shares */
} transport_network;
/* CIDR or "all". Errors: MOE_ERR_INVALID_ARG, beginning with `what` (the option) and the text. */
MOE_NODISCARD moe_status transport_network_parse(const char *what, const char *text, transport_network *out,
                                                 moe_error *err);
bool transport_network_has(const transport_network *net, const moe_ip *ip); /* none has any */

typedef enum {
    TRANSPORT_LANE_TLS,
    TRANSPORT_LANE_AUTO,
    TRANSPORT_LANE_SHM,
    TRANSPORT_LANE_UCX_TCP,
    TRANSPORT_LANE_RDMA,
    TRANSPORT_N_LANES
} transport_lane;
extern const char *const transport_lane_names[TRANSPORT_N_LANES + 1]; /* "tls", "auto", ..., NULL */

/* Whether UCX is to read frames from the memory of a GPU. AUTO: where it says that it can. ON: the endpoint does not open where it
 * does not say so. What comes is in host memory in any case. */
typedef enum { TRANSPORT_GPU_OFF, TRANSPORT_GPU_AUTO, TRANSPORT_GPU_ON, TRANSPORT_N_GPU } transport_gpu;
extern const char *const transport_gpu_names[TRANSPORT_N_GPU + 1]; /* "off", "auto", "on", NULL */

/* Frames of up to this many bytes leave in one piece, so max_message is best not above it. Equal in all members. */
#define TRANSPORT_NET_PIECE ((size_t)(1 << 20) - 4096)

typedef struct transport_net_options {
    const char *listen; /* HOST:PORT or [HOST]:PORT, port 0: any that is free; NULL: connects only */
    transport_lane lane;
    size_t max_message;
    size_t max_peers;         /* connections at a time, below 65536; strangers beyond are refused */
    size_t max_sends;         /* frames under way to one peer, beyond it MOE_ERR_BUSY; 0: 16 */
    uint64_t send_timeout_ns; /* 0: 10 s */
    const void *secret;       /* of the cluster: members prove it to each other */
    size_t n_secret;          /* 0: there is none */
    /* Of auto: which network is private, so that RDMA may be used in it; of rdma: the one that it is used in, else all. Where
     * there is no RDMA auto does without, and says so. */
    transport_network rdma_network;
    transport_gpu gpu_frames;
    const moe_clock *clock; /* borrowed; NULL: the real one */
    moe_look_up_fn look_up; /* how names are looked up, on a thread of the endpoint's resolver; NULL: getaddrinfo */
    void *look_up_ctx;
} transport_net_options;

/* Errors: MOE_ERR_INVALID_ARG (an option, named), MOE_ERR_EXISTS (address in use), MOE_ERR_UNSUPPORTED (UCX would
 * not use the lane), MOE_ERR_UNAVAILABLE (the lane does not start), MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status transport_net_open(const transport_net_options *options, transport **out, moe_error *err);
/* Whether an endpoint could listen at this address now; for a program that opens it after what takes long. Errors:
 * MOE_ERR_INVALID_ARG (no address, in use, or not this machine's), MOE_ERR_UNAVAILABLE (its name is not found now). */
MOE_NODISCARD moe_status transport_net_check_listen(const char *listen, moe_error *err);
/* HOST:PORT this endpoint listens on, the port as it was found; "" if it does not listen. */
const char *transport_net_address(const transport *t);
/* The endpoint's lane, "tls" or "auto"; of UCX what it says itself: "tcp", "rc_mlx5"; and where there is a GPU, whether frames go
 * from its memory: "rc_mlx5+gpu", or not: "rc_mlx5+staged". Of a connection see transport_carrier. */
const char *transport_net_lane(const transport *t);

typedef struct transport_net_stats {
    size_t peers, sends;                   /* now: connections, frames under way */
    size_t shm_peers;                      /* of the connections: by shared memory */
    uint64_t connected, accepted, refused; /* own connects that succeeded; strangers taken; strangers above max_peers */
    uint64_t violations; /* connections lost for a frame above max_message or a kind of message never sent here */
    uint64_t denied;     /* meetings without the right proof of the secret */
    uint64_t silent;     /* strangers who connected and did not go on, for 2 s or until their place was needed */
    uint64_t timeouts;   /* connections lost because frames did not leave */
} transport_net_stats;
void transport_net_get_stats(const transport *t, transport_net_stats *out);

/* ------------------------------------------------------------------------------------------------ faulty
 * Wraps an endpoint and damages what it sends, by seed. For tests and the simulator; allocates as it likes. */
typedef enum {
    TRANSPORT_FAULT_DROP,
    TRANSPORT_FAULT_DUPLICATE,
    TRANSPORT_FAULT_DELAY,
    TRANSPORT_FAULT_REORDER, /* held back until a later frame to the same peer has gone */
    TRANSPORT_FAULT_TRUNCATE,
    TRANSPORT_FAULT_FLIP,
    TRANSPORT_FAULT_KILL, /* the connection breaks; both ends see DOWN */
    TRANSPORT_N_FAULTS
} transport_fault;
extern const char *const transport_fault_names[TRANSPORT_N_FAULTS];

typedef struct transport_faulty_options {
    transport *inner;       /* owned from open on: closed with the wrapper */
    const moe_clock *clock; /* borrowed */
    uint64_t seed;
    uint32_t per_mille[TRANSPORT_N_FAULTS]; /* of the frames sent */
    uint64_t max_delay_ns;
} transport_faulty_options;

MOE_NODISCARD moe_status transport_faulty_open(const transport_faulty_options *options, transport **out);
/* Off: frames still held are sent on, and no more faults happen. */
void transport_faulty_enable(transport *t, bool on);
/* How often each fault was injected. */
const uint64_t *transport_faulty_counts(const transport *t);

/* ------------------------------------------------------------------------------------------------ frames
 * A fixed set of equal send buffers, so that a step allocates nothing. A frame is taken, written, and then posted or
 * released. */
typedef struct transport_frames transport_frames;

typedef struct transport_frame {
    transport_msg msg; /* first: done() finds the frame by it */
    transport_frames *owner;
    unsigned char *data; /* [capacity] 64-byte aligned; of their own memory pages are touched only when used */
    void *device_data;   /* [capacity] the same in the memory of a device; NULL: there is none */
    bool from_device;    /* whoever fills it says so: that is what is posted. False when it is taken */
    transport_peer peer; /* 0 until it is known, and while the frame is free */
    struct transport_frame *next;
} transport_frame;

/* What so many frames take; 0: more than there can be. */
size_t transport_frames_bytes(size_t n_frames, size_t capacity);
/* All frames go out by t (borrowed). memory: of transport_frames_bytes, 64-byte aligned, borrowed until they are closed; NULL:
 * of their own. */
MOE_NODISCARD moe_status transport_frames_open(transport *t, size_t n_frames, size_t capacity, void *memory,
                                               transport_frames **out);
/* Memory of a device for all of them, of transport_frames_bytes, 64-byte aligned, borrowed until they are closed; of use only
 * where transport_takes_device. Before any is taken. */
void transport_frames_set_device(transport_frames *buffers, void *memory);
void transport_frames_close(transport_frames *buffers); /* none is being sent: the endpoint was closed before */
transport_frame *transport_frames_take(transport_frames *buffers); /* NULL when all are out */
/* As take, where there are many peers: one that does not read shall hold up itself alone. Who has n_own frames out gets a
 * further one only while more than n_kept are free. With n_kept = n_own * (peers - 1) every peer can have n_own at any
 * time, whatever the others do, and one that is alone has the rest as well. */
transport_frame *transport_frames_take_for(transport_frames *buffers, transport_peer peer, size_t n_own, size_t n_kept);
void transport_frame_release(transport_frame *f);
size_t transport_frames_capacity(const transport_frames *buffers);
size_t transport_frames_out(const transport_frames *buffers); /* taken, waiting or being sent */
/* Sends the first n_bytes and releases the frame when that is done or has failed. While the transport is busy the frame
 * waits, in order, for transport_frames_flush. */
void transport_frame_post(transport_frame *f, transport_peer peer, size_t n_bytes);
/* Tries again what waits; returns how many frames left. */
unsigned transport_frames_flush(transport_frames *buffers);

#endif
