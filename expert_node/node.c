/* Opening, closing and turning a node. */
#include "expert_node/expert_node_priv.h"

#include <stdlib.h>
#include <string.h>

/* Chosen, not measured.
 *
 *   SMALL_FRAMES   beside those that are kept for each peer: a coordinator that has all its dispatches (64) refused at once
 *                  hears of each
 *   ANSWER_POOL    bytes of address space; large frames get fewer buffers, but two, and one that is kept */
#define SMALL_FRAMES 64
#define ANSWER_POOL  ((size_t)1 << 30)

static moe_status check_options(const expert_node_options *o, moe_error *err)
{
    if (o->d_model == 0 || o->d_model > WIRE_MAX_D_MODEL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "expert node: width %u, limits 1 and %d", o->d_model,
                        WIRE_MAX_D_MODEL);
    }
    if (o->max_rows == 0 || o->max_picks < o->max_rows || o->batch_rows < o->max_rows ||
        o->batch_picks < o->max_picks || o->max_ffn_rows == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "expert node: %u rows and %u picks in a frame, %u and %u in a batch, %zu in a call",
                        o->max_rows, o->max_picks, o->batch_rows, o->batch_picks, o->max_ffn_rows);
    }
    if (o->transport->max_message < WIRE_SMALL_BYTES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "expert node: frames of %zu bytes, at least %d are needed",
                        o->transport->max_message, WIRE_SMALL_BYTES);
    }
    if (strlen(o->id) == 0 || strlen(o->id) > WIRE_MAX_NAME || strlen(o->cluster) == 0 ||
        strlen(o->cluster) > WIRE_MAX_NAME) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "expert node: id \"%s\", cluster \"%s\": 1 to %d characters", o->id,
                        o->cluster, WIRE_MAX_NAME);
    }
    return MOE_OK;
}

static void node_init(expert_node *node, const expert_node_options *options)
{
    expert_node_options *o = &node->o;

    *o = *options;
    o->batch_rows = o->batch_rows == 0 ? o->max_rows : o->batch_rows;
    o->batch_picks = o->batch_picks == 0 ? o->max_picks : o->batch_picks;
    o->batch_frames = o->batch_frames == 0 ? 16 : o->batch_frames;
    o->max_peers = o->max_peers == 0 ? 64 : o->max_peers;
    node->dtype = outbox_dtype(o->device);
    node->row_bytes = o->d_model * compute_dtype_bytes(compute_class_dtype(o->device->numeric_class));
}

static void hello_init(expert_node *node)
{
    const expert_node_options *o = &node->o;
    wire_hello *h = &node->hello;

    *h = (wire_hello){.role = WIRE_NODE,
                      .incarnation = o->incarnation,
                      .d_model = o->d_model,
                      .max_message = o->transport->max_message,
                      .max_rows = o->max_rows,
                      .max_picks = o->max_picks};
    (void)snprintf(h->member, sizeof h->member, "%s", o->id);
    (void)snprintf(h->cluster, sizeof h->cluster, "%s", o->cluster);
    (void)snprintf(h->numeric_class, sizeof h->numeric_class, "%s", compute_class_name(o->device->numeric_class));
    memcpy(h->fingerprint, o->fingerprint, sizeof h->fingerprint);
    node->side = (link_side){.role = LINK_NODE, .hello = h, .key = &node->key, .ops = &node_link_ops, .revision = 1};
    node->o.id = node->hello.member;
    node->o.cluster = node->hello.cluster;
}

static moe_status buffers_open(expert_node *node)
{
    const expert_node_options *o = &node->o;
    size_t answer_bytes = MOE_MIN(wire_result_bytes(o->max_picks, o->d_model, node->dtype), o->transport->max_message);

    node->peers = calloc(o->max_peers, sizeof *node->peers);
    if (node->peers == NULL || node_shard_open(node) != MOE_OK) {
        return MOE_ERR_NO_MEMORY;
    }
    size_t n_others = o->max_peers - 1;
    node->small_kept = NODE_OWN_SMALL * n_others;
    moe_status status =
        transport_frames_open(o->transport, SMALL_FRAMES + node->small_kept, WIRE_SMALL_BYTES, NULL, &node->small);
    if (status == MOE_OK) {
        /* One batch is being filled while the answers of another are under way. */
        size_t wanted = 2 * (size_t)o->batch_frames + NODE_OWN_ANSWERS * n_others;
        size_t n = MOE_MIN(MOE_MAX(ANSWER_POOL / answer_bytes, n_others > 0 ? 3 : 2), wanted);

        node->answers = (outbox){.device = o->device,
                                 .transport = o->transport,
                                 .n_frames = n,
                                 .frame_bytes = answer_bytes,
                                 .d_model = o->d_model,
                                 .n_own = NODE_OWN_ANSWERS,
                                 .n_kept = MOE_MIN(NODE_OWN_ANSWERS * n_others, n / 2)};
        status = outbox_init(&node->answers);
    }
    if (status == MOE_OK) {
        status = node_reading_open(node);
    }
    return status == MOE_OK ? node_batch_open(node) : status;
}

moe_status expert_node_open(const expert_node_options *options, expert_node **out, moe_error *err)
{
    expert_node *node = calloc(1, sizeof *node);

    if (node == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "expert node");
    }
    node_init(node, options);
    moe_status status = check_options(&node->o, err);
    if (status != MOE_OK) {
        free(node);
        return status;
    }
    hello_init(node);
    node->o.secret = NULL;
    status = wire_key_init(&node->key, options->secret, options->n_secret);
    if (status != MOE_OK) {
        free(node);
        return moe_fail(err, status, "expert node: secret of %zu bytes, limit %d", options->n_secret, WIRE_MAX_SECRET);
    }
    (void)router_space_ref(node->o.space);
    status = buffers_open(node);
    if (status != MOE_OK) {
        moe_fail(err, status, "expert node %s: %u rows and %u picks of width %u in a batch", node->o.id,
                 node->o.batch_rows, node->o.batch_picks, node->o.d_model);
        expert_node_close(node);
        return status;
    }
    node->o.transport->handler = (transport_handler){node, node_on_message, node_on_peer};
    *out = node;
    return MOE_OK;
}

void expert_node_close(expert_node *node)
{
    if (node == NULL) {
        return;
    }
    node_batch_close(node);
    node_shard_close(node);
    transport_frames_close(node->pieces);
    outbox_fini(&node->answers);
    transport_frames_close(node->small);
    free(node->peers);
    router_space_unref(node->o.space);
    wire_key_fini(&node->key);
    free(node);
}

unsigned expert_node_progress(expert_node *node)
{
    unsigned n = node->o.transport->ops->progress(node->o.transport);

    node_check_peers(node);
    n += node->batch.n_frames + node_answers_send(node);
    node_batch_run(node);
    n += node_reading_turn(node);
    n += node->pieces != NULL ? transport_frames_flush(node->pieces) : 0;
    return n + transport_frames_flush(node->small) + transport_frames_flush(node->answers.frames);
}

uint64_t expert_node_epoch_of_others(const expert_node *node,
                                     bool (*is_left_out)(void *ctx, const char *id, uint64_t incarnation), void *ctx)
{
    uint64_t epoch = UINT64_MAX;

    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        const link_end *l = &node->peers[i].link;

        if (link_is_open(l) && (is_left_out == NULL || !is_left_out(ctx, l->theirs.member, l->theirs.incarnation))) {
            epoch = MOE_MIN(epoch, l->epoch);
        }
    }
    return epoch;
}

uint64_t expert_node_epoch_applied(const expert_node *node)
{
    return expert_node_epoch_of_others(node, NULL, NULL);
}

void expert_node_drain(expert_node *node)
{
    node->side.draining = true;
    node_tell_peers(node);
}

void expert_node_get_stats(const expert_node *node, expert_node_stats *out)
{
    *out = node->stats;
    for (uint32_t i = 0; i < node->o.max_peers; i++) {
        out->coordinators += link_is_open(&node->peers[i].link);
        out->readers += link_is_reading(&node->peers[i].link);
    }
    out->epoch_applied = expert_node_epoch_applied(node);
    out->frames_out = transport_frames_out(node->small) + transport_frames_out(node->answers.frames) +
                      (node->pieces != NULL ? transport_frames_out(node->pieces) : 0);
}
