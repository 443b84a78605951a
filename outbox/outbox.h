/* outbox: rows of a device, out in frames. The exchange sends DISPATCH by it, the node RESULT.
 *
 * Nouns:
 *   outbox         a fixed set of send buffers for frames that end in rows: in host memory that the device copies to beside
 *                  other work, and in the device's own where a network reads that
 *   outbox_frame   one of them on its way: taken, its head written into `buf`, filled, and posted, or released
 *                  (transport_frame_release). A value; whoever has it owns the buffer
 *
 * Order:   a frame that the device fills is the outbox's. They come back in the order in which they were given to it.
 * Threads: the transport's, which is the one that steps the device. */
#ifndef CONCLAVE_OUTBOX_H
#define CONCLAVE_OUTBOX_H

#include "base/base.h"
#include "compute/compute.h"
#include "proto/wire.h"
#include "transport/transport.h"

typedef struct outbox_frame {
    transport_frame *frame; /* its peer is the one that it was taken for */
    moe_buf buf;
    compute_ticket ticket;
    /* The caller's: of the dispatch that this is, or answers. */
    wire_request request;
    uint32_t n_rows, n_picks;
} outbox_frame;

typedef struct outbox {
    /* Set before init. */
    compute_device *device; /* borrowed until fini, as the transport is */
    transport *transport;
    size_t n_frames, frame_bytes;
    uint32_t d_model;
    size_t n_own, n_kept; /* transport_frames_take_for; 0, 0: whoever comes first has them all */
    /* To be read: the buffers, to count and to flush those that wait; how many frames the device is at, so that nobody sleeps
     * meanwhile. */
    transport_frames *frames;
    size_t n_filling;
    /* Private. */
    outbox_frame *filling;  /* owned [n_frames], in the order of their tickets */
    void *memory;           /* owned [bytes], the device's host memory */
    compute_mem *on_device; /* owned [bytes], the same on the device; NULL: no transport reads it there */
    size_t bytes;
} outbox;

/* How the device's rows stand in frames: wire_dtype. */
uint16_t outbox_dtype(const compute_device *device);

/* Errors: MOE_ERR_NO_MEMORY; fini is due then as well. */
MOE_NODISCARD moe_status outbox_init(outbox *o);
/* Waits for the frames that the device fills, and drops them; no others are out. All 0 is fine. */
void outbox_fini(outbox *o);

/* False when the peer gets none now. Of *out all but the buffer is 0. */
MOE_NODISCARD bool outbox_take(outbox *o, transport_peer peer, outbox_frame *out);
/* Behind the head in f->buf come n rows of `from` [.., d_model] class dtype, as gather_out has them; the whole within frame_bytes.
 *   MOE_OK         they are there: to be posted
 *   MOE_ERR_BUSY   the device is at it: the frame comes from outbox_next
 *   others         the device's: to be released */
MOE_NODISCARD moe_status outbox_fill(outbox *o, outbox_frame *f, const compute_mem *from, const uint32_t *rows,
                                     size_t n);
/* The next frame that the device is done with: MOE_OK: to be posted, others: to be released. False: none now. */
MOE_NODISCARD bool outbox_next(outbox *o, outbox_frame *out, moe_status *status_out);
/* Sends what was filled, with its checksum. */
void outbox_post(outbox_frame *f);

#endif
