#include "outbox/outbox.h"

#include <stdlib.h>
#include <string.h>

uint16_t outbox_dtype(const compute_device *device)
{
    return compute_class_dtype(device->numeric_class) == COMPUTE_BF16 ? WIRE_BF16 : WIRE_F32;
}

moe_status outbox_init(outbox *o)
{
    const compute_ops *ops = o->device->ops;

    o->bytes = transport_frames_bytes(o->n_frames, o->frame_bytes);
    o->memory = compute_host_alloc(o->device, o->bytes);
    o->filling = calloc(o->n_frames, sizeof *o->filling);
    if (o->memory == NULL || o->filling == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    moe_status status = transport_frames_open(o->transport, o->n_frames, o->frame_bytes, o->memory, &o->frames);
    if (status == MOE_OK && ops->frame_out != NULL && transport_takes_device(o->transport, 0)) {
        o->on_device = ops->alloc(o->device, o->bytes);
        if (o->on_device == NULL) {
            return MOE_ERR_NO_MEMORY;
        }
        transport_frames_set_device(o->frames, o->on_device);
    }
    return status;
}

void outbox_fini(outbox *o)
{
    if (o->device == NULL) {
        return;
    }
    for (size_t i = 0; i < o->n_filling; i++) {
        moe_status status = o->device->ops->wait(o->device, o->filling[i].ticket);

        (void)status; /* a device that has failed writes nothing any more */
        transport_frame_release(o->filling[i].frame);
    }
    transport_frames_close(o->frames);
    o->device->ops->free(o->device, o->on_device);
    compute_host_free(o->device, o->memory, o->bytes);
    free(o->filling);
}

bool outbox_take(outbox *o, transport_peer peer, outbox_frame *out)
{
    *out = (outbox_frame){.frame = transport_frames_take_for(o->frames, peer, o->n_own, o->n_kept)};
    if (out->frame != NULL) {
        moe_buf_init(&out->buf, out->frame->data, o->frame_bytes);
    }
    return out->frame != NULL;
}

moe_status outbox_fill(outbox *o, outbox_frame *f, const compute_mem *from, const uint32_t *rows, size_t n)
{
    compute_device *device = o->device;
    transport_frame *frame = f->frame;
    size_t row_bytes = o->d_model * compute_dtype_bytes(compute_class_dtype(device->numeric_class));
    unsigned char *to = wire_put_rows(&f->buf, n, o->d_model, outbox_dtype(device));

    MOE_ASSERT(to != NULL); /* whoever sends keeps to the limits that frame_bytes was made for */
    frame->from_device = frame->device_data != NULL && transport_takes_device(o->transport, frame->peer);
    if (frame->from_device) {
        (void)wire_finish_apart(&f->buf);
        f->ticket = device->ops->frame_out(device, frame->device_data, f->buf.data, (size_t)(to - f->buf.data),
                                           WIRE_SUM_AT, from, rows, row_bytes, n);
    } else {
        f->ticket = device->ops->gather_out(device, to, from, rows, row_bytes, n);
    }
    moe_status status = device->ops->reached(device, f->ticket);
    if (status == MOE_ERR_BUSY) {
        o->filling[o->n_filling++] = *f;
    }
    return status;
}

bool outbox_next(outbox *o, outbox_frame *out, moe_status *status_out)
{
    *status_out = o->n_filling == 0 ? MOE_ERR_BUSY : o->device->ops->reached(o->device, o->filling[0].ticket);
    if (*status_out == MOE_ERR_BUSY) {
        return false;
    }
    *out = o->filling[0];
    memmove(o->filling, o->filling + 1, --o->n_filling * sizeof *o->filling);
    return true;
}

void outbox_post(outbox_frame *f)
{
    transport_frame_post(f->frame, f->frame->peer, f->frame->from_device ? f->buf.used : wire_finish(&f->buf));
}
