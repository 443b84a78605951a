/* The batch: dispatches are taken until the node turns, then run as one grouped FFN and answered in the order asked.
 *
 * Why a batch at all: the cost of an expert at few rows is reading its weights once, so the rows of all dispatches that
 * are here anyway are computed in one pass over them. A row's result does not depend on its neighbours
 * (docs/numeric.md), so merging changes no bit, and nobody waits for it: a batch is what has arrived while the one
 * before ran.
 *
 *   frames[i]          one dispatch: a run of groups, and the send buffer of its answer
 *   groups[g]          one expert's picks of one dispatch; those of the same expert are chained from its slot
 *   merge              walks the chains: ffn[] has one entry per expert in use, and out_row of each group says where in
 *                      `out` its results will be
 *   run_ffn            computes `out`, in calls of at most max_ffn_rows
 *   answer             has each dispatch's groups copied out of `out` into its frame, which leaves when they are there
 *
 * The answer's buffer is taken before a dispatch is accepted: a node that has computed can always answer. */
#include "expert_node/expert_node_priv.h"

#include <stdlib.h>
#include <string.h>

moe_status node_batch_open(expert_node *node)
{
    const expert_node_options *o = &node->o;
    const compute_ops *ops = o->device->ops;
    node_batch *b = &node->batch;
    size_t n = o->batch_picks;

    b->x = ops->alloc(o->device, o->batch_rows * node->row_bytes);
    b->out = ops->alloc(o->device, n * node->row_bytes);
    b->frames = calloc(o->batch_frames, sizeof *b->frames);
    b->groups = calloc(n, sizeof *b->groups);
    b->pick_rows = calloc(n, sizeof *b->pick_rows);
    b->touched = calloc(n, sizeof *b->touched);
    b->merged_rows = calloc(n, sizeof *b->merged_rows);
    b->ffn = calloc(n, sizeof *b->ffn);
    b->call = calloc(n, sizeof *b->call);
    b->answer_rows = calloc(n, sizeof *b->answer_rows);
    bool ok = b->x != NULL && b->out != NULL && b->frames != NULL && b->groups != NULL && b->pick_rows != NULL &&
              b->touched != NULL && b->merged_rows != NULL && b->ffn != NULL && b->call != NULL &&
              b->answer_rows != NULL;
    return ok ? MOE_OK : MOE_ERR_NO_MEMORY;
}

void node_batch_close(expert_node *node)
{
    node_batch *b = &node->batch;

    for (uint32_t i = 0; i < b->n_frames; i++) {
        transport_frame_release(b->frames[i].answer.frame);
    }
    node->o.device->ops->free(node->o.device, b->x);
    node->o.device->ops->free(node->o.device, b->out);
    free(b->frames);
    free(b->groups);
    free(b->pick_rows);
    free(b->touched);
    free(b->merged_rows);
    free(b->ffn);
    free(b->call);
    free(b->answer_rows);
    *b = (node_batch){0};
}

static bool fits(const expert_node *node, const wire_dispatch *d)
{
    const node_batch *b = &node->batch;

    return b->n_frames < node->o.batch_frames && d->n_rows <= node->o.batch_rows - b->n_rows &&
           d->n_picks <= node->o.batch_picks - b->n_picks;
}

static void add_group(expert_node *node, uint32_t slot_idx, uint32_t first, uint32_t n)
{
    node_batch *b = &node->batch;
    node_slot *slot = &node->slots[slot_idx];
    uint32_t group = b->n_groups++;

    b->groups[group] = (node_group){.first = first, .n = n, .next = NODE_NO_GROUP};
    if (slot->first_group == NODE_NO_GROUP) {
        b->touched[b->n_touched++] = slot_idx;
        slot->first_group = group;
    } else {
        b->groups[slot->last_group].next = group;
    }
    slot->last_group = group;
}

moe_status node_batch_add(expert_node *node, transport_peer peer, const wire_dispatch *d)
{
    node_batch *b = &node->batch;
    compute_device *device = node->o.device;

    if (!fits(node, d)) { /* then the batch runs early, and this dispatch begins the next one */
        node_batch_run(node);
    }
    node_frame *f = &b->frames[b->n_frames];
    if (!outbox_take(&node->answers, peer, &f->answer)) {
        return MOE_ERR_BUSY;
    }
    f->answer.request = d->request;
    f->answer.n_rows = d->n_rows;
    f->answer.n_picks = d->n_picks;
    f->first_group = b->n_groups;
    f->n_groups = d->n_groups;
    b->n_frames++;
    device->ops->upload(device, compute_at(b->x, b->n_rows * node->row_bytes), d->rows, d->n_rows * node->row_bytes);
    for (uint32_t i = 0; i < d->n_picks; i++) {
        b->pick_rows[b->n_picks + i] = b->n_rows + wire_u32_at(d->pick_rows, i);
    }
    for (uint32_t g = 0; g < d->n_groups; g++) {
        wire_group group = wire_group_at(d->groups, g);

        add_group(node, router_space_slot(node->o.space, d->request.layer, group.expert_id), b->n_picks, group.n_picks);
        b->n_picks += group.n_picks;
    }
    b->n_rows += d->n_rows;
    return MOE_OK;
}

/* Joins the groups of each expert; afterwards ffn [n_touched] covers out [0, n_picks) in order. */
static void merge(expert_node *node)
{
    node_batch *b = &node->batch;
    uint32_t at = 0;

    for (uint32_t i = 0; i < b->n_touched; i++) {
        node_slot *slot = &node->slots[b->touched[i]];
        uint32_t begin = at;

        for (uint32_t g = slot->first_group; g != NODE_NO_GROUP; g = b->groups[g].next) {
            b->groups[g].out_row = at;
            memcpy(b->merged_rows + at, b->pick_rows + b->groups[g].first, b->groups[g].n * sizeof *b->merged_rows);
            at += b->groups[g].n;
        }
        b->ffn[i] = (compute_group){
            .expert = slot->expert, .rows = b->merged_rows + begin, .n_rows = at - begin, .out_row = begin};
        slot->rows += at - begin;
        slot->first_group = slot->last_group = NODE_NO_GROUP;
    }
}

/* One call if it fits, else several: an expert's rows may be cut anywhere, a row's result does not depend on its
 * neighbours. */
static void run_ffn(node_batch *b, compute_device *device, size_t row_bytes, size_t max_rows)
{
    size_t g = 0;
    size_t taken = 0; /* of group g */

    while (g < b->n_touched) {
        compute_mem *out = compute_at(b->out, (b->ffn[g].out_row + taken) * row_bytes);
        size_t n = 0;

        for (size_t rows = 0; g < b->n_touched && rows < max_rows;) {
            const compute_group *from = &b->ffn[g];
            size_t take = MOE_MIN(from->n_rows - taken, max_rows - rows);

            b->call[n++] =
                (compute_group){.expert = from->expert, .rows = from->rows + taken, .n_rows = take, .out_row = rows};
            rows += take;
            taken += take;
            if (taken == from->n_rows) {
                g++;
                taken = 0;
            }
        }
        device->ops->expert_ffn(device, out, b->x, b->call, n);
    }
}

/* status: what the device says of the results. */
static void send_answer(expert_node *node, outbox_frame *f, moe_status status)
{
    if (status != MOE_OK) {
        transport_peer peer = f->frame->peer;

        MOE_ERROR("node %s: layer %u: %s while fetching results", node->o.id, f->request.layer,
                  moe_status_text(status));
        transport_frame_release(f->frame);
        node_refuse(node, peer, &f->request, WIRE_REFUSE_FAILED, moe_status_text(status));
        return;
    }
    outbox_post(f);
    node->stats.frames++;
    node->stats.rows += f->n_rows;
    node->stats.picks += f->n_picks;
}

/* The results of the frame's groups in the order asked. */
static void answer(expert_node *node, node_frame *f)
{
    node_batch *batch = &node->batch;
    const wire_result head = {.request = f->answer.request,
                              .d_model = node->o.d_model,
                              .dtype = node->dtype,
                              .n_picks = f->answer.n_picks,
                              .queued_rows = batch->n_rows};
    uint32_t n = 0;

    for (uint32_t g = f->first_group; g < f->first_group + f->n_groups; g++) {
        for (uint32_t i = 0; i < batch->groups[g].n; i++) {
            batch->answer_rows[n++] = batch->groups[g].out_row + i;
        }
    }
    wire_result_begin(&f->answer.buf, &head);
    moe_status status = outbox_fill(&node->answers, &f->answer, batch->out, batch->answer_rows, n);
    if (status != MOE_ERR_BUSY) {
        send_answer(node, &f->answer, status);
    }
}

unsigned node_answers_send(expert_node *node)
{
    unsigned all = (unsigned)node->answers.n_filling;
    outbox_frame f;
    moe_status status;

    while (outbox_next(&node->answers, &f, &status)) {
        send_answer(node, &f, status);
    }
    return all;
}

void node_batch_run(expert_node *node)
{
    node_batch *b = &node->batch;

    if (b->n_frames == 0) {
        return;
    }
    merge(node);
    run_ffn(b, node->o.device, node->row_bytes, node->o.max_ffn_rows);
    for (uint32_t i = 0; i < b->n_frames; i++) {
        answer(node, &b->frames[i]);
    }
    node->stats.batches++;
    b->n_frames = b->n_rows = b->n_picks = b->n_groups = b->n_touched = 0;
}
