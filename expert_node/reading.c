/* Packs, read to others. It comes after the rows: one piece in a turn, whoever asks for it, and nothing here waits. */
#include "expert_node/expert_node_priv.h"

#include <string.h>

moe_status node_reading_open(expert_node *node)
{
    size_t most = MOE_MIN(node->o.transport->max_message, (size_t)WIRE_PIECE_BYTES + WIRE_MAX_PIECE);

    return node->o.packs.read == NULL
               ? MOE_OK
               : transport_frames_open(node->o.transport, NODE_MAX_READERS, most, NULL, &node->pieces);
}

moe_status node_reading_judge(const expert_node *node, const wire_hello *theirs, moe_error *why)
{
    unsigned n = 0;

    for (uint32_t i = 0; theirs->role == WIRE_READER && i < node->o.max_peers; i++) {
        const link_end *l = &node->peers[i].link;

        n += link_is_reading(l) || (l->state == LINK_PROVING && l->theirs.role == WIRE_READER);
    }
    return n < NODE_MAX_READERS
               ? MOE_OK
               : moe_fail(why, MOE_ERR_DENIED, "%u members read packs from this node already", NODE_MAX_READERS);
}

static node_peer *next_asking(expert_node *node)
{
    for (uint32_t i = 0; node->may_ask && i < node->o.max_peers; i++) {
        uint32_t at = (node->next_reader + i) % node->o.max_peers;

        if (node->peers[at].link.state == LINK_ASKED) {
            node->next_reader = at + 1;
            return &node->peers[at];
        }
    }
    node->may_ask = false;
    return NULL;
}

static bool answer(expert_node *node, node_peer *p, const wire_piece *piece)
{
    transport_frames *from = piece->n > 0 ? node->pieces : node->small;
    transport_frame *f =
        transport_frames_take_for(from, p->peer, 1, piece->n > 0 ? NODE_MAX_READERS - 1 : node->small_kept);
    moe_buf b;

    if (f == NULL) {
        return false;
    }
    moe_buf_init(&b, f->data, transport_frames_capacity(from));
    wire_put_piece(&b, piece);
    size_t n = wire_finish(&b);
    MOE_ASSERT(n > 0);
    transport_frame_post(f, p->peer, n);
    node->stats.pieces++;
    node->stats.piece_bytes += piece->n;
    return true;
}

unsigned node_reading_turn(expert_node *node)
{
    const expert_packs *packs = &node->o.packs;
    node_peer *p = next_asking(node);

    if (p == NULL) {
        return 0;
    }
    const wire_fetch *asked = &p->link.asked;
    wire_piece piece = {.part = asked->part, .offset = asked->offset};
    memcpy(piece.pack, asked->pack, sizeof piece.pack);
    expert_pack_answer is = packs->read == NULL ? EXPERT_PACK_NONE
                                                : packs->read(packs->ctx, asked->pack, asked->part, asked->offset,
                                                              asked->length, &piece.bytes, &piece.size);
    piece.size = is == EXPERT_PACK_HERE ? piece.size : 0;
    if (piece.offset < piece.size) {
        piece.n = (uint32_t)MOE_MIN(piece.size - piece.offset, (uint64_t)asked->length);
    }
    if (is == EXPERT_PACK_LATER) {
        return 1;
    }
    bool is_sent = answer(node, p, &piece);
    if (is_sent) {
        link_answered(&p->link, node_now(node));
    }
    return is_sent;
}
