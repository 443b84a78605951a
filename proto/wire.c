/* Frames: encode, decode, validate. docs/wire.md changes in the same commit. */
#include "proto/wire.h"

#include <string.h>

#define MAGIC         0x57434E43u /* "CNCW" */
#define LENGTH_OFFSET 8
#define REQUEST_BYTES 28
#define DISPATCH_HEAD (WIRE_HEADER_BYTES + REQUEST_BYTES + 28)
#define RESULT_HEAD   (WIRE_HEADER_BYTES + REQUEST_BYTES + 16)

size_t wire_dtype_bytes(uint16_t dtype)
{
    return dtype == WIRE_F32 ? 4 : dtype == WIRE_BF16 ? 2 : 0;
}

/* ------------------------------------------------------------------------------------------------ frame */
static uint32_t frame_crc(const unsigned char *frame, size_t n)
{
    return wire_crc32c(wire_crc32c(0, frame, WIRE_SUM_AT), frame + WIRE_HEADER_BYTES, n - WIRE_HEADER_BYTES);
}

const char *wire_type_name(wire_type type)
{
    static const char *const names[] = {
        [WIRE_HELLO] = "HELLO", [WIRE_DISPATCH] = "DISPATCH", [WIRE_RESULT] = "RESULT",   [WIRE_REFUSE] = "REFUSE",
        [WIRE_PING] = "PING",   [WIRE_PONG] = "PONG",         [WIRE_GOODBYE] = "GOODBYE", [WIRE_PROOF] = "PROOF",
        [WIRE_HOLDS] = "HOLDS", [WIRE_FETCH] = "FETCH",       [WIRE_PIECE] = "PIECE"};

    return type >= WIRE_HELLO && type <= WIRE_LAST ? names[type] : "unknown";
}

moe_status wire_open(const void *frame, size_t n, wire_type *type_out, moe_error *err)
{
    moe_buf b;

    if (n < WIRE_HEADER_BYTES) {
        return moe_fail(err, MOE_ERR_CORRUPT, "frame of %zu bytes, header has %d", n, WIRE_HEADER_BYTES);
    }
    moe_buf_init(&b, (void *)(uintptr_t)frame, n);
    uint32_t magic = moe_get_u32(&b);
    uint16_t version = moe_get_u16(&b);
    uint16_t type = moe_get_u16(&b);
    uint32_t length = moe_get_u32(&b);
    uint32_t crc = moe_get_u32(&b);
    if (magic != MAGIC) {
        return moe_fail(err, MOE_ERR_CORRUPT, "frame: magic %08x, expected %08x", magic, MAGIC);
    }
    if (length != n) {
        return moe_fail(err, MOE_ERR_CORRUPT, "frame: length %u, received %zu bytes", length, n);
    }
    if (crc != frame_crc(frame, n)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "frame: checksum %08x does not match %u bytes of type %u", crc, length,
                        type);
    }
    if (version != WIRE_VERSION) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "frame: version %u, this member speaks %d", version, WIRE_VERSION);
    }
    if (type < WIRE_HELLO || type > WIRE_LAST) {
        return moe_fail(err, MOE_ERR_CORRUPT, "frame: type %u is unknown, expected %d to %d", type, WIRE_HELLO,
                        WIRE_LAST);
    }
    *type_out = (wire_type)type;
    return MOE_OK;
}

static void frame_begin(moe_buf *b, wire_type type)
{
    MOE_ASSERT(b->used == 0);
    moe_put_u32(b, MAGIC);
    moe_put_u16(b, WIRE_VERSION);
    moe_put_u16(b, (uint16_t)type);
    moe_put_u32(b, 0); /* length and checksum: wire_finish */
    moe_put_u32(b, 0);
}

static void put_u32_at(moe_buf *b, size_t offset, uint32_t v)
{
    moe_buf field;

    moe_buf_init(&field, b->data + offset, 4);
    moe_put_u32(&field, v);
}

size_t wire_finish_apart(moe_buf *b)
{
    if (b->failed || b->used > UINT32_MAX) {
        return 0;
    }
    put_u32_at(b, LENGTH_OFFSET, (uint32_t)b->used);
    return b->used;
}

size_t wire_finish(moe_buf *b)
{
    size_t n = wire_finish_apart(b);

    if (n > 0) {
        put_u32_at(b, WIRE_SUM_AT, frame_crc(b->data, n));
    }
    return n;
}

static void body_of(moe_buf *b, const void *frame, size_t n)
{
    moe_buf_init(b, (void *)(uintptr_t)frame, n);
    (void)moe_get_bytes(b, WIRE_HEADER_BYTES);
}

static moe_status body_end(const moe_buf *b, const char *type, moe_error *err)
{
    if (b->failed) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: ends early at %zu bytes", type, b->capacity);
    }
    if (moe_buf_left(b) != 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: %zu bytes too many", type, moe_buf_left(b));
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ strings */
static void put_string(moe_buf *b, const char *text, size_t limit)
{
    size_t n = strnlen(text, limit);

    moe_put_u8(b, (uint8_t)n);
    moe_put_bytes(b, text, n);
}

/* Reads a string of at most limit bytes into out [limit + 1]; a longer one fails the buffer. */
static size_t get_string(moe_buf *b, char *out, size_t limit)
{
    size_t n = moe_get_u8(b);
    const void *bytes = n <= limit ? moe_get_bytes(b, n) : NULL;

    if (bytes == NULL) {
        b->failed = true;
        n = 0;
    } else {
        memcpy(out, bytes, n);
    }
    out[n] = '\0';
    return n;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
}

static moe_status get_name(moe_buf *b, const char *field, char *out, moe_error *err)
{
    size_t n = get_string(b, out, WIRE_MAX_NAME);

    if (b->failed || n == 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "HELLO: %s is missing or above %d characters", field, WIRE_MAX_NAME);
    }
    for (size_t i = 0; i < n; i++) {
        if (!name_char(out[i])) {
            return moe_fail(err, MOE_ERR_CORRUPT, "HELLO: %s has byte 0x%02x at %zu", field, (unsigned char)out[i], i);
        }
    }
    return MOE_OK;
}

static moe_status get_text(moe_buf *b, const char *type, char *out, moe_error *err)
{
    size_t n = get_string(b, out, WIRE_MAX_TEXT);

    if (!b->failed && (strlen(out) != n || moe_utf8_valid_prefix(out, n) != n)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: text is not UTF-8", type);
    }
    return body_end(b, type, err);
}

/* ------------------------------------------------------------------------------------------------ HELLO */
void wire_put_hello(moe_buf *b, const wire_hello *h)
{
    frame_begin(b, WIRE_HELLO);
    moe_put_u16(b, h->role);
    moe_put_u64(b, h->incarnation);
    moe_put_bytes(b, h->fingerprint, sizeof h->fingerprint);
    moe_put_u32(b, h->d_model);
    moe_put_u64(b, h->max_message);
    moe_put_u32(b, h->max_rows);
    moe_put_u32(b, h->max_picks);
    put_string(b, h->member, WIRE_MAX_NAME);
    put_string(b, h->cluster, WIRE_MAX_NAME);
    put_string(b, h->numeric_class, WIRE_MAX_NAME);
    moe_put_u8(b, h->n_nonce);
    moe_put_bytes(b, h->nonce, h->n_nonce);
    moe_put_u8(b, h->n_mac);
    moe_put_bytes(b, h->mac, h->n_mac);
}

/* 0 or 32 bytes. */
static moe_status get_proof(moe_buf *b, const char *field, unsigned char out[32], uint8_t *n_out, moe_error *err)
{
    uint8_t n = moe_get_u8(b);

    if (n != 0 && n != 32) {
        return moe_fail(err, MOE_ERR_CORRUPT, "HELLO: %s has %u bytes, expected 0 or 32", field, n);
    }
    const void *bytes = moe_get_bytes(b, n);
    if (bytes != NULL) {
        memcpy(out, bytes, n);
    }
    *n_out = n;
    return MOE_OK;
}

static moe_status get_hello_names(moe_buf *b, wire_hello *h, moe_error *err)
{
    moe_status status = get_name(b, "member", h->member, err);

    if (status == MOE_OK) {
        status = get_name(b, "cluster", h->cluster, err);
    }
    if (status == MOE_OK) {
        status = get_name(b, "numeric class", h->numeric_class, err);
    }
    if (status == MOE_OK) {
        status = get_proof(b, "nonce", h->nonce, &h->n_nonce, err);
    }
    if (status == MOE_OK) {
        status = get_proof(b, "mac", h->mac, &h->n_mac, err);
    }
    return status == MOE_OK ? body_end(b, "HELLO", err) : status;
}

moe_status wire_get_hello(const void *frame, size_t n, wire_hello *out, moe_error *err)
{
    wire_hello h = {0};
    moe_buf b;

    body_of(&b, frame, n);
    h.role = moe_get_u16(&b);
    h.incarnation = moe_get_u64(&b);
    const void *fingerprint = moe_get_bytes(&b, sizeof h.fingerprint);
    h.d_model = moe_get_u32(&b);
    h.max_message = moe_get_u64(&b);
    h.max_rows = moe_get_u32(&b);
    h.max_picks = moe_get_u32(&b);
    if (fingerprint == NULL || b.failed) {
        return moe_fail(err, MOE_ERR_CORRUPT, "HELLO: ends early at %zu bytes", n);
    }
    memcpy(h.fingerprint, fingerprint, sizeof h.fingerprint);
    if (h.role < WIRE_COORDINATOR || h.role > WIRE_READER) {
        return moe_fail(err, MOE_ERR_CORRUPT, "HELLO: role %u is unknown, expected %d to %d", h.role, WIRE_COORDINATOR,
                        WIRE_READER);
    }
    if (h.max_rows == 0 || h.max_picks == 0 || h.max_message < WIRE_SMALL_BYTES) {
        return moe_fail(err, MOE_ERR_CORRUPT, "HELLO: limits of %u rows, %u picks, %llu bytes", h.max_rows, h.max_picks,
                        (unsigned long long)h.max_message);
    }
    moe_status status = get_hello_names(&b, &h, err);
    if (status == MOE_OK) {
        *out = h;
    }
    return status;
}

const char *wire_role_name(uint16_t role)
{
    static const char *const names[] = {
        [WIRE_COORDINATOR] = "coordinator", [WIRE_NODE] = "node", [WIRE_READER] = "reader"};

    return names[role];
}

moe_status wire_hello_check(const wire_hello *mine, const wire_hello *theirs, moe_error *err)
{
    if (strcmp(mine->cluster, theirs->cluster) != 0) {
        return moe_fail(err, MOE_ERR_DENIED, "member %s is of cluster %s, this member of %s", theirs->member,
                        theirs->cluster, mine->cluster);
    }
    if (strcmp(mine->numeric_class, theirs->numeric_class) != 0) {
        return moe_fail(err, MOE_ERR_DENIED, "member %s computes in class %s, this member in %s", theirs->member,
                        theirs->numeric_class, mine->numeric_class);
    }
    if (memcmp(mine->fingerprint, theirs->fingerprint, sizeof mine->fingerprint) != 0 ||
        mine->d_model != theirs->d_model) {
        return moe_fail(err, MOE_ERR_DENIED, "member %s serves another model: fingerprint or width differ",
                        theirs->member);
    }
    if ((mine->role == WIRE_NODE) == (theirs->role == WIRE_NODE)) {
        return moe_fail(err, MOE_ERR_DENIED, "member %s is a %s, this member a %s", theirs->member,
                        wire_role_name(theirs->role), wire_role_name(mine->role));
    }
    return MOE_OK;
}

void wire_put_proof(moe_buf *b, const unsigned char mac[32])
{
    frame_begin(b, WIRE_PROOF);
    moe_put_bytes(b, mac, 32);
}

moe_status wire_get_proof(const void *frame, size_t n, unsigned char mac_out[32], moe_error *err)
{
    moe_buf b;

    body_of(&b, frame, n);
    const void *mac = moe_get_bytes(&b, 32);
    moe_status status = body_end(&b, "PROOF", err);
    if (status == MOE_OK) {
        memcpy(mac_out, mac, 32);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ request */
bool wire_request_equal(const wire_request *a, const wire_request *b)
{
    return a->coordinator == b->coordinator && a->step == b->step && a->layer == b->layer &&
           a->micro_batch == b->micro_batch && a->attempt == b->attempt;
}

static void put_request(moe_buf *b, const wire_request *r)
{
    moe_put_u64(b, r->coordinator);
    moe_put_u64(b, r->step);
    moe_put_u32(b, r->layer);
    moe_put_u32(b, r->micro_batch);
    moe_put_u32(b, r->attempt);
}

static wire_request get_request(moe_buf *b)
{
    wire_request r = {0};

    r.coordinator = moe_get_u64(b);
    r.step = moe_get_u64(b);
    r.layer = moe_get_u32(b);
    r.micro_batch = moe_get_u32(b);
    r.attempt = moe_get_u32(b);
    return r;
}

/* ------------------------------------------------------------------------------------------------ DISPATCH */
static bool add_product(size_t *sum, size_t a, size_t b)
{
    size_t product;

    return !__builtin_mul_overflow(a, b, &product) && !__builtin_add_overflow(*sum, product, sum);
}

static size_t frame_bytes(size_t head, size_t n_groups, size_t n_indices, size_t n_rows, size_t d_model, uint16_t dtype)
{
    size_t sum = head;
    size_t row_bytes = 0;
    bool fits = wire_dtype_bytes(dtype) != 0 && add_product(&row_bytes, d_model, wire_dtype_bytes(dtype)) &&
                add_product(&sum, n_groups, 8) && add_product(&sum, n_indices, 4) &&
                add_product(&sum, n_rows, row_bytes);

    return fits ? sum : SIZE_MAX;
}

size_t wire_dispatch_bytes(size_t n_rows, size_t n_groups, size_t n_picks, size_t d_model, uint16_t dtype)
{
    return frame_bytes(DISPATCH_HEAD, n_groups, n_picks, n_rows, d_model, dtype);
}

size_t wire_result_bytes(size_t n_picks, size_t d_model, uint16_t dtype)
{
    return frame_bytes(RESULT_HEAD, 0, 0, n_picks, d_model, dtype);
}

void wire_dispatch_begin(moe_buf *b, const wire_dispatch *d)
{
    frame_begin(b, WIRE_DISPATCH);
    put_request(b, &d->request);
    moe_put_u64(b, d->epoch);
    moe_put_u32(b, d->d_model);
    moe_put_u16(b, d->dtype);
    moe_put_u16(b, 0);
    moe_put_u32(b, d->n_rows);
    moe_put_u32(b, d->n_groups);
    moe_put_u32(b, d->n_picks);
}

void wire_put_group(moe_buf *b, wire_group g)
{
    moe_put_u32(b, (uint32_t)g.expert_id);
    moe_put_u32(b, g.n_picks);
}

void *wire_put_rows(moe_buf *b, size_t n_rows, size_t d_model, uint16_t dtype)
{
    size_t bytes = frame_bytes(0, 0, 0, n_rows, d_model, dtype);

    return moe_put_reserve(b, bytes);
}

static moe_status check_shape(const char *type, uint32_t d_model, uint16_t dtype, uint16_t reserved, moe_error *err)
{
    if (d_model == 0 || d_model > WIRE_MAX_D_MODEL) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: d_model %u, limit %u", type, d_model, WIRE_MAX_D_MODEL);
    }
    if (wire_dtype_bytes(dtype) == 0 || reserved != 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: dtype %u, reserved %u", type, dtype, reserved);
    }
    return MOE_OK;
}

static moe_status check_group(const wire_dispatch *d, uint32_t g, uint32_t first, moe_error *err)
{
    wire_group group = wire_group_at(d->groups, g);

    if (group.expert_id < 0 || (g > 0 && group.expert_id <= wire_group_at(d->groups, g - 1).expert_id)) {
        return moe_fail(err, MOE_ERR_CORRUPT, "DISPATCH: expert id %d of group %u does not ascend", group.expert_id, g);
    }
    if (group.n_picks == 0 || group.n_picks > d->n_picks - first) {
        return moe_fail(err, MOE_ERR_CORRUPT, "DISPATCH: group %u has %u picks, %u are left", g, group.n_picks,
                        d->n_picks - first);
    }
    for (uint32_t i = first; i < first + group.n_picks; i++) {
        uint32_t row = wire_u32_at(d->pick_rows, i);

        if (row >= d->n_rows || (i > first && row <= wire_u32_at(d->pick_rows, i - 1))) {
            return moe_fail(err, MOE_ERR_CORRUPT, "DISPATCH: row index %u of pick %u, %u rows, ascending in its group",
                            row, i, d->n_rows);
        }
    }
    return MOE_OK;
}

static moe_status check_groups(const wire_dispatch *d, moe_error *err)
{
    uint32_t first = 0;

    for (uint32_t g = 0; g < d->n_groups; g++) {
        moe_status status = check_group(d, g, first, err);

        if (status != MOE_OK) {
            return status;
        }
        first += wire_group_at(d->groups, g).n_picks;
    }
    if (first != d->n_picks) {
        return moe_fail(err, MOE_ERR_CORRUPT, "DISPATCH: groups have %u picks, head says %u", first, d->n_picks);
    }
    return MOE_OK;
}

moe_status wire_get_dispatch(const void *frame, size_t n, wire_dispatch *out, moe_error *err)
{
    wire_dispatch d = {0};
    moe_buf b;

    body_of(&b, frame, n);
    d.request = get_request(&b);
    d.epoch = moe_get_u64(&b);
    d.d_model = moe_get_u32(&b);
    d.dtype = moe_get_u16(&b);
    uint16_t reserved = moe_get_u16(&b);
    d.n_rows = moe_get_u32(&b);
    d.n_groups = moe_get_u32(&b);
    d.n_picks = moe_get_u32(&b);
    if (b.failed) {
        return body_end(&b, "DISPATCH", err);
    }
    moe_status status = check_shape("DISPATCH", d.d_model, d.dtype, reserved, err);
    if (status != MOE_OK) {
        return status;
    }
    /* The counts are believed once they explain every byte of the frame. */
    size_t expected = wire_dispatch_bytes(d.n_rows, d.n_groups, d.n_picks, d.d_model, d.dtype);
    if (expected != n || d.n_rows == 0 || d.n_groups == 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "DISPATCH: %u rows, %u groups, %u picks do not make %zu bytes", d.n_rows,
                        d.n_groups, d.n_picks, n);
    }
    d.groups = moe_get_bytes(&b, (size_t)d.n_groups * 8);
    d.pick_rows = moe_get_bytes(&b, (size_t)d.n_picks * 4);
    d.rows = moe_get_bytes(&b, moe_buf_left(&b));
    status = check_groups(&d, err);
    if (status == MOE_OK) {
        *out = d;
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ RESULT */
void wire_result_begin(moe_buf *b, const wire_result *r)
{
    frame_begin(b, WIRE_RESULT);
    put_request(b, &r->request);
    moe_put_u32(b, r->d_model);
    moe_put_u16(b, r->dtype);
    moe_put_u16(b, 0);
    moe_put_u32(b, r->n_picks);
    moe_put_u32(b, r->queued_rows);
}

moe_status wire_get_result(const void *frame, size_t n, wire_result *out, moe_error *err)
{
    wire_result r = {0};
    moe_buf b;

    body_of(&b, frame, n);
    r.request = get_request(&b);
    r.d_model = moe_get_u32(&b);
    r.dtype = moe_get_u16(&b);
    uint16_t reserved = moe_get_u16(&b);
    r.n_picks = moe_get_u32(&b);
    r.queued_rows = moe_get_u32(&b);
    if (b.failed) {
        return body_end(&b, "RESULT", err);
    }
    moe_status status = check_shape("RESULT", r.d_model, r.dtype, reserved, err);
    if (status != MOE_OK) {
        return status;
    }
    if (r.n_picks == 0 || wire_result_bytes(r.n_picks, r.d_model, r.dtype) != n) {
        return moe_fail(err, MOE_ERR_CORRUPT, "RESULT: %u rows of width %u do not make %zu bytes", r.n_picks, r.d_model,
                        n);
    }
    r.rows = moe_get_bytes(&b, moe_buf_left(&b));
    *out = r;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ small frames */
void wire_put_refuse(moe_buf *b, const wire_refuse *r)
{
    frame_begin(b, WIRE_REFUSE);
    put_request(b, &r->request);
    moe_put_u16(b, r->reason);
    put_string(b, r->text, WIRE_MAX_TEXT);
}

moe_status wire_get_refuse(const void *frame, size_t n, wire_refuse *out, moe_error *err)
{
    wire_refuse r = {0};
    moe_buf b;

    body_of(&b, frame, n);
    r.request = get_request(&b);
    r.reason = moe_get_u16(&b);
    moe_status status = get_text(&b, "REFUSE", r.text, err);
    if (status == MOE_OK) {
        *out = r;
    }
    return status;
}

void wire_put_ping(moe_buf *b, const wire_ping *p)
{
    frame_begin(b, WIRE_PING);
    moe_put_u64(b, p->token);
    moe_put_u64(b, p->epoch);
    moe_put_u64(b, p->holds);
}

moe_status wire_get_ping(const void *frame, size_t n, wire_ping *out, moe_error *err)
{
    moe_buf b;
    wire_ping p;

    body_of(&b, frame, n);
    p.token = moe_get_u64(&b);
    p.epoch = moe_get_u64(&b);
    p.holds = moe_get_u64(&b);
    moe_status status = body_end(&b, "PING", err);
    if (status == MOE_OK) {
        *out = p;
    }
    return status;
}

void wire_put_pong(moe_buf *b, const wire_pong *p)
{
    frame_begin(b, WIRE_PONG);
    moe_put_u64(b, p->token);
    moe_put_u32(b, p->queued_frames);
    moe_put_u32(b, p->queued_rows);
    moe_put_u64(b, p->frames);
    moe_put_u64(b, p->rows);
}

moe_status wire_get_pong(const void *frame, size_t n, wire_pong *out, moe_error *err)
{
    wire_pong p = {0};
    moe_buf b;

    body_of(&b, frame, n);
    p.token = moe_get_u64(&b);
    p.queued_frames = moe_get_u32(&b);
    p.queued_rows = moe_get_u32(&b);
    p.frames = moe_get_u64(&b);
    p.rows = moe_get_u64(&b);
    moe_status status = body_end(&b, "PONG", err);
    if (status == MOE_OK) {
        *out = p;
    }
    return status;
}

void wire_put_holds(moe_buf *b, const wire_holds *h)
{
    frame_begin(b, WIRE_HOLDS);
    moe_put_u64(b, h->after);
    moe_put_u64(b, h->upto);
    moe_put_u64(b, h->latest);
    moe_put_u16(b, h->n_blocks);
    for (size_t i = 0; i < h->n_blocks; i++) {
        moe_put_u32(b, h->blocks[i].layer);
        moe_put_u32(b, h->blocks[i].first);
        moe_put_u64(b, h->blocks[i].experts);
    }
}

moe_status wire_get_holds(const void *frame, size_t n, wire_holds *out, moe_error *err)
{
    wire_holds h = {0};
    moe_buf b;

    body_of(&b, frame, n);
    h.after = moe_get_u64(&b);
    h.upto = moe_get_u64(&b);
    h.latest = moe_get_u64(&b);
    h.n_blocks = moe_get_u16(&b);
    if (h.n_blocks > WIRE_MAX_BLOCKS) {
        return moe_fail(err, MOE_ERR_CORRUPT, "HOLDS: %u blocks, limit %d", h.n_blocks, WIRE_MAX_BLOCKS);
    }
    for (size_t i = 0; i < h.n_blocks; i++) {
        wire_block *block = &h.blocks[i];

        block->layer = moe_get_u32(&b);
        block->first = moe_get_u32(&b);
        block->experts = moe_get_u64(&b);
        if (block->first % 64 != 0 || block->first > WIRE_MAX_FIRST) {
            return moe_fail(err, MOE_ERR_CORRUPT, "HOLDS: block %zu begins at expert %u, limit %d, in steps of 64", i,
                            block->first, WIRE_MAX_FIRST);
        }
    }
    moe_status status = body_end(&b, "HOLDS", err);
    if (status == MOE_OK && (h.after >= h.upto || h.upto > h.latest)) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "HOLDS: revisions %llu to %llu of %llu", (unsigned long long)h.after,
                          (unsigned long long)h.upto, (unsigned long long)h.latest);
    }
    if (status == MOE_OK) {
        *out = h;
    }
    return status;
}

void wire_put_goodbye(moe_buf *b, const wire_goodbye *g)
{
    frame_begin(b, WIRE_GOODBYE);
    moe_put_u16(b, g->reason);
    put_string(b, g->text, WIRE_MAX_TEXT);
}

moe_status wire_get_goodbye(const void *frame, size_t n, wire_goodbye *out, moe_error *err)
{
    wire_goodbye g = {0};
    moe_buf b;

    body_of(&b, frame, n);
    g.reason = moe_get_u16(&b);
    moe_status status = get_text(&b, "GOODBYE", g.text, err);
    if (status == MOE_OK) {
        *out = g;
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ packs */
void wire_put_fetch(moe_buf *b, const wire_fetch *f)
{
    frame_begin(b, WIRE_FETCH);
    moe_put_bytes(b, f->pack, sizeof f->pack);
    moe_put_u32(b, f->part);
    moe_put_u64(b, f->offset);
    moe_put_u32(b, f->length);
}

/* The 32 bytes of a hash; a buffer that has ended gives none. */
static void get_hash(moe_buf *b, unsigned char out[32])
{
    const void *hash = moe_get_bytes(b, 32);

    if (hash != NULL) {
        memcpy(out, hash, 32);
    }
}

moe_status wire_get_fetch(const void *frame, size_t n, wire_fetch *out, moe_error *err)
{
    wire_fetch f = {.part = 0};
    moe_buf b;

    body_of(&b, frame, n);
    get_hash(&b, f.pack);
    f.part = moe_get_u32(&b);
    f.offset = moe_get_u64(&b);
    f.length = moe_get_u32(&b);
    moe_status status = body_end(&b, "FETCH", err);
    if (status == MOE_OK && (f.length == 0 || f.length > WIRE_MAX_PIECE)) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "FETCH: %u bytes, limits 1 and %u", f.length, WIRE_MAX_PIECE);
    }
    if (status == MOE_OK) {
        *out = f;
    }
    return status;
}

void wire_put_piece(moe_buf *b, const wire_piece *p)
{
    frame_begin(b, WIRE_PIECE);
    moe_put_bytes(b, p->pack, sizeof p->pack);
    moe_put_u32(b, p->part);
    moe_put_u64(b, p->offset);
    moe_put_u64(b, p->size);
    moe_put_u32(b, p->n);
    moe_put_bytes(b, p->bytes, p->n);
}

moe_status wire_get_piece(const void *frame, size_t n, wire_piece *out, moe_error *err)
{
    wire_piece p = {.part = 0};
    moe_buf b;

    body_of(&b, frame, n);
    get_hash(&b, p.pack);
    p.part = moe_get_u32(&b);
    p.offset = moe_get_u64(&b);
    p.size = moe_get_u64(&b);
    p.n = moe_get_u32(&b);
    p.bytes = moe_get_bytes(&b, p.n);
    moe_status status = body_end(&b, "PIECE", err);
    if (status == MOE_OK &&
        (p.n > WIRE_MAX_PIECE || (p.offset < p.size ? p.n == 0 || p.n > p.size - p.offset : p.n != 0))) {
        status = moe_fail(err, MOE_ERR_CORRUPT, "PIECE: %u bytes at %llu of %llu, limit %u", p.n,
                          (unsigned long long)p.offset, (unsigned long long)p.size, WIRE_MAX_PIECE);
    }
    if (status == MOE_OK) {
        *out = p;
    }
    return status;
}
