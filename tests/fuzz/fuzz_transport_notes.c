/* What a member that has proved the secret says before frames travel: the notes on what carries them (transport/tls_agree.c). The
 * input is a program for the other end (make_notes_corpus.py has the codes): raw bytes, in pieces of any length, and notes that are
 * right, from a door and memory that are there. Whatever it says:
 *
 *   - the end that hears it never reads past a note, and answers at most one note to each, and one of its own at the beginning
 *   - it is agreed on shared memory only with someone who has had the token in it
 *   - an end that offers shared memory alone never agrees on the channel
 *   - nothing stays open */
#include <string.h>
#include <unistd.h>

#include "transport/tls_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { RAW, ASK_DOOR, READ_TOKEN, HERE_MEMORY, ASK_NOBODY, N_CODES };

typedef struct program {
    const uint8_t *data;
    size_t n, at;
    tls_slot slot;                /* of the end that hears */
    int door;                     /* the other end's; -1: none */
    shm *memory;                  /* the other end's; NULL: none */
    bool knows;                   /* it has the token that lies in the slot's memory */
    unsigned char name[SHM_NAME]; /* of the slot's door, as it last said */
    size_t n_said, n_answers;     /* notes of the other end, as far as they are whole; of the slot */
} program;

static channel_key *key;
static channel *ours, *theirs; /* the slot's end, the other one */
static tls endpoint;

static void carry(channel *from, channel *to)
{
    size_t n, room;
    const unsigned char *bytes = channel_out(from, &n);
    unsigned char *in = channel_in(to, &room);

    MOE_ASSERT(n <= room);
    if (n > 0) {
        memcpy(in, bytes, n);
        channel_received(to, n);
        channel_sent(from, n);
    }
}

/* The two meet once; each input has the stream of notes from there on. caller: the slot is. */
static void meet(bool caller)
{
    moe_status one = MOE_ERR_BUSY, other = MOE_ERR_BUSY;
    moe_error err;

    channel_close(ours);
    channel_close(theirs);
    MOE_ASSERT(channel_open(key, caller, &ours) == MOE_OK && channel_open(key, !caller, &theirs) == MOE_OK);
    for (int i = 0; i < 8 && (one != MOE_OK || other != MOE_OK); i++) {
        one = channel_handshake(ours, &err);
        carry(ours, theirs);
        other = channel_handshake(theirs, &err);
        carry(theirs, ours);
    }
    MOE_ASSERT(one == MOE_OK && other == MOE_OK && channel_agreed(ours));
}

static void shm_key(channel *of, unsigned char out[SHM_KEY])
{
    MOE_ASSERT(channel_export(of, "EXPORTER-conclave shm 1", out, SHM_KEY) == MOE_OK);
}

static void say(const unsigned char *bytes, size_t n)
{
    MOE_ASSERT(n == 0 || channel_write(theirs, bytes, n) == MOE_OK);
    carry(theirs, ours);
}

static void say_note(program *p, tls_note kind, const unsigned char *bytes, size_t n)
{
    unsigned char note[TLS_NOTE_HEAD + 64] = {(unsigned char)kind, (unsigned char)n, 0};

    if (n > 0) {
        memcpy(note + TLS_NOTE_HEAD, bytes, n);
    }
    say(note, TLS_NOTE_HEAD + n);
    p->n_said++;
}

/* What the slot has said: whole notes, as it writes each at once. */
static void hear(program *p)
{
    unsigned char note[TLS_NOTE_BYTES];
    moe_error err;
    size_t n;

    carry(ours, theirs);
    for (;;) {
        MOE_ASSERT(channel_read(theirs, note, TLS_NOTE_HEAD, &n, &err) == MOE_OK);
        if (n == 0) {
            return;
        }
        size_t bytes = (size_t)(note[1] | note[2] << 8);
        MOE_ASSERT(n == TLS_NOTE_HEAD && note[0] <= TLS_NOTE_READ && bytes < sizeof note - TLS_NOTE_HEAD);
        MOE_ASSERT(bytes == 0 || (channel_read(theirs, note + TLS_NOTE_HEAD, bytes, &n, &err) == MOE_OK && n == bytes));
        if (note[0] == TLS_NOTE_ASK && note[TLS_NOTE_HEAD] == CARRIER_SHM) {
            memcpy(p->name, note + TLS_NOTE_HEAD + 1, SHM_NAME);
        }
        p->n_answers++;
    }
}

static uint8_t next(program *p)
{
    return p->at < p->n ? p->data[p->at++] : 0;
}

static void ask_with_door(program *p)
{
    unsigned char ask[1 + SHM_NAME] = {CARRIER_SHM};
    moe_error err;

    if (p->door >= 0) {
        (void)close(p->door);
        p->door = -1;
    }
    if (shm_door_open(&p->door, ask + 1, &err) == MOE_OK) {
        say_note(p, TLS_NOTE_ASK, ask, sizeof ask);
    }
}

/* Takes what the slot has handed in, if it has. */
static void read_token(program *p)
{
    unsigned char k[SHM_KEY], token[SHM_TOKEN] = {0};
    moe_error err;

    shm_key(theirs, k);
    if (p->door >= 0 && p->memory == NULL && shm_take(p->door, k, &p->memory, &err) == MOE_OK) {
        p->knows = true;
        memcpy(token, shm_token(p->memory), sizeof token);
    }
    say_note(p, TLS_NOTE_READ, token, sizeof token);
}

static void hand_in(program *p)
{
    unsigned char k[SHM_KEY];
    moe_error err;

    shm_key(theirs, k);
    if (p->memory == NULL && shm_hand_in(p->name, k, &p->memory, &err) == MOE_OK) {
        p->knows = true;
    }
    say_note(p, TLS_NOTE_HERE, NULL, 0);
}

static void run(program *p)
{
    static const unsigned char nobody[1 + SHM_NAME] = {CARRIER_SHM, 1, 2, 3};
    size_t n;

    switch (next(p) % N_CODES) {
    case ASK_DOOR:
        ask_with_door(p);
        break;
    case READ_TOKEN:
        read_token(p);
        break;
    case HERE_MEMORY:
        hand_in(p);
        break;
    case ASK_NOBODY:
        say_note(p, TLS_NOTE_ASK, nobody, sizeof nobody);
        break;
    default:
        n = next(p);
        n = MOE_MIN(n, p->n - p->at);
        say(p->data + p->at, n);
        p->at += n;
        p->n_said += n; /* at most: a byte is no note */
        break;
    }
}

static void check(const program *p, moe_status status, const moe_error *err)
{
    const tls_slot *s = &p->slot;

    MOE_ASSERT(status == MOE_OK || status == MOE_ERR_BUSY || err->text[0] != '\0');
    MOE_ASSERT(p->n_answers <= p->n_said + 1 && s->ucx == NULL && s->n_note <= sizeof s->note);
    MOE_ASSERT(s->s.caller || p->n_answers < CARRIER_TLS); /* each carrier is asked for once */
    if (status == MOE_OK) {
        MOE_ASSERT(!s->agreeing && !s->has_door);
        MOE_ASSERT(s->shm != NULL ? p->knows : endpoint.lane == TRANSPORT_LANE_AUTO);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    program p = {.data = data, .n = n, .door = -1};
    uint8_t how = next(&p);
    moe_error err = {""};

    if (key == NULL) {
        moe_log_set_level(MOE_LOG_ERROR);
        MOE_ASSERT(channel_key_open("secret", 6, &key, &err) == MOE_OK);
        MOE_ASSERT(channel_key_offer(key, "conclave carrier 1") == MOE_OK);
    }
    meet((how & 1) != 0);
    endpoint.lane = (how & 2) != 0 ? TRANSPORT_LANE_SHM : TRANSPORT_LANE_AUTO;
    endpoint.warned = true;
    p.slot = (tls_slot){
        .s = {.state = NET_MEETING, .t = &endpoint.n, .fd = -1, .caller = (how & 1) != 0}, .channel = ours, .door = -1};
    moe_status status = tls_agree(&p.slot, &err);
    hear(&p);
    check(&p, status, &err);
    while (status == MOE_ERR_BUSY && p.at < p.n) {
        run(&p);
        status = tls_agree(&p.slot, &err);
        hear(&p);
        check(&p, status, &err);
    }
    tls_agree_end(&p.slot);
    MOE_ASSERT(!p.slot.has_door && p.slot.shm == NULL);
    shm_close(p.memory);
    if (p.door >= 0) {
        (void)close(p.door);
    }
    return 0;
}
