/* What carries the frames of two ends that have proved the secret to each other. Notes over the channel, each a kind, a length
 * of two bytes and so many bytes:
 *
 *   caller   ASK   a carrier, and what the other end needs for it: the name of a door (shm_priv.h), an address of UCX's
 *   called   HERE  it is ready; for UCX its address
 *   caller   READ  so is the caller; for shared memory the token that it has found there: so both have the same
 *   called   NONE  in place of HERE: not by this one. The caller asks for the next one
 *   caller   NONE  in place of ASK or READ: frames travel by the channel
 *
 * The caller is UP with READ or NONE, the one that was called when it has come. */
#include "transport/tls_priv.h"

#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

static tls *endpoint_of(const tls_slot *slot)
{
    return (tls *)slot->s.t;
}

static void close_door(tls_slot *slot)
{
    if (slot->has_door) {
        slot->has_door = false;
        (void)close(slot->door);
    }
}

static void drop_carrier(tls_slot *slot)
{
    close_door(slot);
    shm_close(slot->shm);
    slot->shm = NULL;
    ucx_conn_close(slot->ucx);
    slot->ucx = NULL;
}

void tls_agree_end(tls_slot *slot)
{
    drop_carrier(slot);
    slot->agreeing = false;
}

/* The slot's carrier is what was asked for. */
static moe_status agreed(tls_slot *slot)
{
    close_door(slot);
    slot->agreeing = false;
    return MOE_OK;
}

static moe_status say(tls_slot *slot, tls_note kind, const void *bytes, size_t n, moe_error *err)
{
    unsigned char note[TLS_NOTE_BYTES];
    moe_buf b;

    moe_buf_init(&b, note, sizeof note);
    moe_put_u8(&b, (uint8_t)kind);
    moe_put_u16(&b, (uint16_t)n);
    moe_put_bytes(&b, bytes, n);
    MOE_ASSERT(!b.failed);
    return channel_write(slot->channel, note, b.used) == MOE_OK
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INTERNAL, "a note could not be encrypted");
}

static moe_status by_channel(tls_slot *slot, moe_error *err)
{
    tls_agree_end(slot);
    return (slot->offer & MOE_BIT(CARRIER_TLS)) != 0
               ? MOE_OK
               : moe_fail(err, MOE_ERR_UNSUPPORTED,
                          "not by %s, the only lane of this end: another host, or another lane",
                          transport_lane_names[endpoint_of(slot)->lane]);
}

/* A carrier does not come about. Where something is wrong here, and it is not only another host, it is said once. */
static void give_up_carrier(tls_slot *slot, moe_status why, const moe_error *err)
{
    tls *t = endpoint_of(slot);

    if (why != MOE_ERR_NOT_FOUND && !t->warned) {
        t->warned = true;
        MOE_WARN("transport: a connection is not by %s: %s", carrier_names[slot->trying], err->text);
    }
    drop_carrier(slot);
}

static moe_status open_ucx(tls_slot *slot, unsigned char *address_out, size_t *n_out, moe_error *err)
{
    unsigned char token[UCX_TOKEN];

    return channel_export(slot->channel, "EXPORTER-conclave ucx 1", token, sizeof token) != MOE_OK
               ? moe_fail(err, MOE_ERR_INTERNAL, "no token for UCX")
               : ucx_conn_open(endpoint_of(slot)->ucx, &slot->s, token, &slot->ucx, address_out, n_out, err);
}

static moe_status key_of(tls_slot *slot, unsigned char key[SHM_KEY], moe_error *err)
{
    return channel_export(slot->channel, "EXPORTER-conclave shm 1", key, SHM_KEY) == MOE_OK
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INTERNAL, "no key for shared memory");
}

/* ------------------------------------------------------------------------------------------------ caller */
static moe_status ask(tls_slot *slot, moe_error *err)
{
    unsigned char note[1 + UCX_MAX_ADDRESS] = {(unsigned char)slot->trying};
    size_t n = SHM_NAME;
    moe_status status;

    if (slot->trying == CARRIER_SHM) {
        status = shm_door_open(&slot->door, note + 1, err);
        slot->has_door = status == MOE_OK;
    } else {
        status = open_ucx(slot, note + 1, &n, err);
    }
    return status == MOE_OK ? say(slot, TLS_NOTE_ASK, note, 1 + n, err) : status;
}

static moe_status try_next(tls_slot *slot, moe_error *err)
{
    for (;;) {
        slot->trying = carrier_next(slot->offer, slot->trying);
        if (slot->trying == CARRIER_TLS || slot->trying == CARRIER_NONE) {
            moe_status status = say(slot, TLS_NOTE_NONE, NULL, 0, err);

            return status == MOE_OK ? by_channel(slot, err) : status;
        }
        moe_status status = ask(slot, err);
        if (status == MOE_OK) {
            return MOE_ERR_BUSY;
        }
        give_up_carrier(slot, status, err);
    }
}

static moe_status on_here(tls_slot *slot, const unsigned char *bytes, size_t n, moe_error *err)
{
    unsigned char key[SHM_KEY];
    moe_status status;

    if (slot->trying == CARRIER_SHM) {
        status = key_of(slot, key, err);
        status = status == MOE_OK ? shm_take(slot->door, key, &slot->shm, err) : status;
        explicit_bzero(key, sizeof key);
    } else {
        status = ucx_conn_connect(slot->ucx, bytes, n, err);
    }
    if (status != MOE_OK) {
        give_up_carrier(slot, status, err);
        return try_next(slot, err);
    }
    bool has_token = slot->shm != NULL;
    status = say(slot, TLS_NOTE_READ, has_token ? shm_token(slot->shm) : NULL, has_token ? SHM_TOKEN : 0, err);
    return status == MOE_OK ? agreed(slot) : status;
}

/* ------------------------------------------------------------------------------------------------ called */
static moe_status make(tls_slot *slot, const unsigned char *bytes, size_t n, unsigned char *answer, size_t *n_answer,
                       moe_error *err)
{
    unsigned char key[SHM_KEY];
    moe_status status;

    if (slot->trying == CARRIER_SHM) {
        status = key_of(slot, key, err);
        status = status == MOE_OK ? shm_hand_in(bytes, key, &slot->shm, err) : status;
        explicit_bzero(key, sizeof key);
        return status;
    }
    status = open_ucx(slot, answer, n_answer, err);
    return status == MOE_OK ? ucx_conn_connect(slot->ucx, bytes, n, err) : status;
}

/* Carriers are asked for in their order, so there is an end to it. */
static moe_status on_ask(tls_slot *slot, const unsigned char *bytes, size_t n, moe_error *err)
{
    unsigned char answer[UCX_MAX_ADDRESS];
    size_t n_answer = 0;
    carrier asked = n > 0 && bytes[0] < CARRIER_TLS ? (carrier)bytes[0] : CARRIER_NONE;

    if (asked <= slot->trying || (asked == CARRIER_SHM && n != 1 + SHM_NAME)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "a note that is not due");
    }
    drop_carrier(slot);
    slot->trying = asked;
    moe_status status = MOE_ERR_NOT_FOUND;
    if ((slot->offer & MOE_BIT(asked)) != 0) {
        status = make(slot, bytes + 1, n - 1, answer, &n_answer, err);
        if (status != MOE_OK) {
            give_up_carrier(slot, status, err);
        }
    }
    status = say(slot, status == MOE_OK ? TLS_NOTE_HERE : TLS_NOTE_NONE, answer, status == MOE_OK ? n_answer : 0, err);
    return status == MOE_OK ? MOE_ERR_BUSY : status;
}

static moe_status on_read(tls_slot *slot, const unsigned char *bytes, size_t n, moe_error *err)
{
    if (slot->shm != NULL && (n != SHM_TOKEN || CRYPTO_memcmp(bytes, shm_token(slot->shm), SHM_TOKEN) != 0)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "the other end has other shared memory");
    }
    return agreed(slot);
}

/* ------------------------------------------------------------------------------------------------ notes */
static moe_status take_note(tls_slot *slot, moe_error *err)
{
    const unsigned char *bytes = slot->note + TLS_NOTE_HEAD;
    size_t n = slot->n_note - TLS_NOTE_HEAD;
    bool caller = slot->s.caller, made = slot->shm != NULL || slot->ucx != NULL;

    slot->n_note = 0;
    switch (slot->note[0]) {
    case TLS_NOTE_NONE:
        drop_carrier(slot);
        return caller ? try_next(slot, err) : by_channel(slot, err);
    case TLS_NOTE_ASK:
        if (!caller) {
            return on_ask(slot, bytes, n, err);
        }
        break;
    case TLS_NOTE_HERE:
        if (caller && n <= UCX_MAX_ADDRESS) {
            return on_here(slot, bytes, n, err);
        }
        break;
    case TLS_NOTE_READ:
        if (!caller && made) {
            return on_read(slot, bytes, n, err);
        }
        break;
    default:
        break;
    }
    return moe_fail(err, MOE_ERR_CORRUPT, "a note that is not due");
}

static unsigned offer_to_other(const tls_slot *slot)
{
    const tls *t = endpoint_of(slot);
    char host[SOCKET_MAX_ADDRESS];
    moe_ip ip;

    socket_peer_host(slot->s.fd, host);
    return carrier_offer(t->lane, t->ucx != NULL, &t->rdma_network, moe_ip_parse(host, &ip) ? &ip : NULL);
}

static moe_status begin(tls_slot *slot, moe_error *err)
{
    slot->agreeing = true;
    slot->trying = CARRIER_NONE;
    slot->offer = offer_to_other(slot);
    slot->s.keeps_place = true;           /* whoever came so far has proved the secret, or there is none */
    if (!channel_agreed(slot->channel)) { /* the other end has the lane tls */
        return by_channel(slot, err);
    }
    return slot->s.caller ? try_next(slot, err) : MOE_ERR_BUSY;
}

/* How many bytes the note that is coming has, as far as that is known. */
static size_t wanted(const tls_slot *slot)
{
    return slot->n_note < TLS_NOTE_HEAD ? TLS_NOTE_HEAD : TLS_NOTE_HEAD + (size_t)(slot->note[1] | slot->note[2] << 8);
}

moe_status tls_agree(tls_slot *slot, moe_error *err)
{
    moe_status status = slot->agreeing ? MOE_ERR_BUSY : begin(slot, err);

    while (status == MOE_ERR_BUSY) {
        size_t got = 0, want = wanted(slot);

        if (want > sizeof slot->note) {
            return moe_fail(err, MOE_ERR_CORRUPT, "a note of %zu bytes", want);
        }
        if (slot->n_note < want) {
            status = channel_read(slot->channel, slot->note + slot->n_note, want - slot->n_note, &got, err);
            if (status != MOE_OK || got == 0) {
                return status == MOE_OK ? MOE_ERR_BUSY : status;
            }
            slot->n_note += got;
        }
        status = slot->n_note == wanted(slot) && slot->n_note >= TLS_NOTE_HEAD ? take_note(slot, err) : MOE_ERR_BUSY;
    }
    return status;
}
