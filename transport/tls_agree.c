/* Whether two ends that have proved the secret to each other share memory. Each note is a kind and 32 bytes, over the
 * channel:
 *
 *   caller   ASK   the name of its door (shm_priv.h)
 *   called   HERE  the memory has been handed in
 *   caller   READ  the token that it has found in the memory: so both have the same
 *   either   NONE  in place of its next note: frames travel by the channel
 *
 * The caller is UP with READ, the one that was called when it has come. */
#include "transport/tls_priv.h"

#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define LABEL "EXPORTER-conclave shm 1"

static tls *endpoint_of(const tls_slot *slot)
{
    return (tls *)slot->s.t;
}

void tls_agree_end(tls_slot *slot)
{
    if (slot->has_door) {
        slot->has_door = false;
        (void)close(slot->door);
    }
    slot->agreeing = false;
}

static moe_status say(tls_slot *slot, tls_note kind, const unsigned char *bytes, size_t n, moe_error *err)
{
    unsigned char note[TLS_NOTE_BYTES] = {(unsigned char)kind};

    if (n > 0) {
        memcpy(note + 1, bytes, n);
    }
    return channel_write(slot->channel, note, sizeof note) == MOE_OK
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INTERNAL, "a note could not be encrypted");
}

/* By the channel, because of what err has. */
static moe_status go_without(tls_slot *slot, moe_error *err)
{
    shm_close(slot->shm);
    slot->shm = NULL;
    tls_agree_end(slot);
    if (endpoint_of(slot)->lane == TRANSPORT_LANE_SHM) {
        return MOE_ERR_UNSUPPORTED;
    }
    MOE_DEBUG("transport: a connection is by tls: %s", err->text);
    return MOE_OK;
}

/* Something is wrong here, not only another host: said once. */
static moe_status decline(tls_slot *slot, moe_status why, moe_error *err)
{
    tls *t = endpoint_of(slot);
    moe_error none;

    if (why != MOE_ERR_NOT_FOUND && !t->warned) {
        t->warned = true;
        MOE_WARN("transport: connections within this host are by tls: %s", err->text);
    }
    return say(slot, TLS_NOTE_NONE, NULL, 0, &none) == MOE_OK ? go_without(slot, err) : MOE_ERR_INTERNAL;
}

static moe_status begin(tls_slot *slot, moe_error *err)
{
    unsigned char name[SHM_NAME];

    slot->agreeing = true;
    slot->s.keeps_place = true; /* whoever came so far has proved the secret, or there is none */
    if (!channel_agreed(slot->channel)) {
        (void)moe_fail(err, MOE_ERR_UNSUPPORTED, "no shared memory: the other end does not offer it");
        return go_without(slot, err);
    }
    if (!slot->s.caller) {
        return MOE_ERR_BUSY;
    }
    moe_status status = shm_door_open(&slot->door, name, err);
    slot->has_door = status == MOE_OK;
    if (status != MOE_OK) {
        return decline(slot, status, err);
    }
    status = say(slot, TLS_NOTE_ASK, name, sizeof name, err);
    return status == MOE_OK ? MOE_ERR_BUSY : status;
}

/* At the end that was called. */
static moe_status on_ask(tls_slot *slot, const unsigned char key[SHM_KEY], moe_error *err)
{
    moe_status status = shm_hand_in(slot->note + 1, key, &slot->shm, err);

    if (status != MOE_OK) {
        return decline(slot, status, err);
    }
    status = say(slot, TLS_NOTE_HERE, NULL, 0, err);
    return status == MOE_OK ? MOE_ERR_BUSY : status;
}

static moe_status on_here(tls_slot *slot, const unsigned char key[SHM_KEY], moe_error *err)
{
    moe_status status = shm_take(slot->door, key, &slot->shm, err);

    if (status != MOE_OK) {
        return decline(slot, status, err);
    }
    tls_agree_end(slot);
    return say(slot, TLS_NOTE_READ, shm_token(slot->shm), SHM_TOKEN, err);
}

static moe_status on_read(tls_slot *slot, moe_error *err)
{
    if (CRYPTO_memcmp(slot->note + 1, shm_token(slot->shm), SHM_TOKEN) != 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "the other end has other shared memory");
    }
    tls_agree_end(slot);
    return MOE_OK;
}

static moe_status take_note(tls_slot *slot, moe_error *err)
{
    unsigned char key[SHM_KEY];
    moe_status status = channel_export(slot->channel, LABEL, key, sizeof key);

    if (status != MOE_OK) {
        return moe_fail(err, status, "no key for shared memory");
    }
    if (slot->note[0] == TLS_NOTE_NONE) {
        (void)moe_fail(err, MOE_ERR_UNSUPPORTED, "no shared memory: the other end cannot");
        status = go_without(slot, err);
    } else if (slot->note[0] == TLS_NOTE_ASK && !slot->s.caller && slot->shm == NULL) {
        status = on_ask(slot, key, err);
    } else if (slot->note[0] == TLS_NOTE_READ && !slot->s.caller && slot->shm != NULL) {
        status = on_read(slot, err);
    } else if (slot->note[0] == TLS_NOTE_HERE && slot->s.caller) {
        status = on_here(slot, key, err);
    } else {
        status = moe_fail(err, MOE_ERR_CORRUPT, "a note that is not due");
    }
    explicit_bzero(key, sizeof key);
    return status;
}

moe_status tls_agree(tls_slot *slot, moe_error *err)
{
    moe_status status = slot->agreeing ? MOE_ERR_BUSY : begin(slot, err);

    while (status == MOE_ERR_BUSY) {
        size_t got;

        status = channel_read(slot->channel, slot->note + slot->n_note, TLS_NOTE_BYTES - slot->n_note, &got, err);
        if (status != MOE_OK || got == 0) {
            return status == MOE_OK ? MOE_ERR_BUSY : status;
        }
        slot->n_note += got;
        status = MOE_ERR_BUSY;
        if (slot->n_note == TLS_NOTE_BYTES) {
            slot->n_note = 0;
            status = take_note(slot, err);
        }
    }
    return status;
}
