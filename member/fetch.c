/* Packs read from nodes. */
#include "member/fetch.h"
#include "member/pack_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

/* Chosen, not measured. TRIES: of one node, so that a connection that breaks once costs no node. CONNECT: a node that cannot be
 * reached is given up after it. NAP: between two looks while nothing comes. AGAIN: before all are asked once more. SAID: of more than that
 * the log tells how far it is. */
#define TRIES      2
#define CONNECT_NS UINT64_C(5000000000)
#define NAP_NS     UINT64_C(10000000)
#define AGAIN_NS   UINT64_C(1000000000)
#define SAID_BYTES (UINT64_C(256) << 20)
#define MAX_PATH   4096

/* One connection to one node. */
typedef struct session {
    const pack_fetch *f;
    transport_peer peer; /* 0: none */
    bool is_up, is_down;
    link_side side;
    link_end link;
    moe_error why; /* of is_down, or what the link says */
    bool is_given;
    wire_piece piece; /* its bytes are in `bytes` */
    transport_msg msg;
    bool is_lent; /* msg is the transport's */
    unsigned char frame[WIRE_SMALL_BYTES];
    unsigned char bytes[WIRE_MAX_PIECE];
} session;

typedef struct fetching {
    const pack_fetch *f;
    char target[MAX_PATH], work[MAX_PATH], lock[MAX_PATH];
    int lock_fd;        /* -1: none */
    session *session;   /* owned */
    size_t node, tries; /* which is asked, and how often a node has failed */
    char *manifest;     /* owned */
    size_t n_manifest;
    pack_contents *contents; /* owned */
} fetching;

/* ------------------------------------------------------------------------------------------------ the connection */
static uint64_t now_of(const pack_fetch *f)
{
    return moe_now_ns(f->clock);
}

static void on_sent(transport_msg *msg, moe_status status)
{
    session *s = (session *)(void *)((char *)msg - offsetof(session, msg));

    (void)status; /* a failure is followed by DOWN, or by silence */
    s->is_lent = false;
}

static bool send_frame(void *ctx, const unsigned char *frame, size_t n)
{
    session *s = ctx;

    if (s->is_lent) {
        return false;
    }
    memcpy(s->frame, frame, n);
    s->msg = (transport_msg){.parts = {{s->frame, n}}, .n_parts = 1, .done = on_sent};
    s->is_lent = true;
    if (s->f->transport->ops->send(s->f->transport, s->peer, &s->msg) != MOE_OK) {
        s->is_lent = false;
        return false;
    }
    return true;
}

static const link_ops ops = {.send = send_frame, .draw = wire_random};

static void on_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    session *s = ctx;

    if (peer != s->peer && s->peer != 0) {
        return; /* one that was given up */
    }
    s->is_up = event == TRANSPORT_UP;
    if (!s->is_up) {
        s->is_down = true;
        (void)moe_fail(&s->why, MOE_ERR_UNAVAILABLE, "%s", why);
    }
}

static void on_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    session *s = ctx;
    link_event event;
    wire_type type;

    if (peer != s->peer || s->is_down) {
        return;
    }
    if (link_receive(&s->link, bytes, n, now_of(s->f), &event, &type, &s->why) != MOE_OK || event == LINK_TURNED_AWAY) {
        s->is_down = true;
    } else if (event == LINK_GIVEN && wire_get_piece(bytes, n, &s->piece, &s->why) == MOE_OK) {
        memcpy(s->bytes, s->piece.bytes, s->piece.n);
        s->is_given = true;
    }
}

static void ignore_peer(void *ctx, transport_peer peer, transport_peer_event event, const char *why)
{
    (void)ctx, (void)peer, (void)event, (void)why;
}

static void ignore_message(void *ctx, transport_peer peer, const unsigned char *bytes, size_t n)
{
    (void)ctx, (void)peer, (void)bytes, (void)n;
}

static void session_end(session *s)
{
    if (s->peer != 0) {
        s->f->transport->ops->peer_close(s->f->transport, s->peer);
    }
    link_close(&s->link);
    s->peer = 0;
    s->is_up = s->is_down = s->is_given = false;
}

/* One turn of the wait for something. Errors: the caller's stop, the deadline; MOE_ERR_UNAVAILABLE: the connection is lost. */
static moe_status turn(session *s, moe_error *err)
{
    transport *t = s->f->transport;
    uint64_t wake = UINT64_MAX;

    if (s->f->more != NULL && !s->f->more(s->f->more_ctx, 0)) {
        return moe_fail(err, MOE_ERR_CANCELLED, "reading a pack was given up");
    }
    if (now_of(s->f) >= s->f->deadline_ns) {
        return moe_fail(err, MOE_ERR_TIMEOUT, "a pack was not read in time");
    }
    if (t->ops->progress(t) == 0 && t->ops->wait != NULL) {
        t->ops->wait(t, NAP_NS);
    }
    if (!s->is_down && link_tick(&s->link, now_of(s->f), false, &wake) != LINK_FINE) {
        s->is_down = true;
        (void)moe_fail(&s->why, MOE_ERR_UNAVAILABLE, "it does not answer");
    }
    return s->is_down ? moe_fail(err, MOE_ERR_UNAVAILABLE, "%s", s->why.text) : MOE_OK;
}

static moe_status session_begin(session *s, const char *address, moe_error *err)
{
    const uint64_t end = now_of(s->f) + CONNECT_NS;
    moe_status status = MOE_OK;

    while (status == MOE_OK && s->is_lent) { /* to the connection before */
        status = turn(s, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    status = s->f->transport->ops->connect(s->f->transport, address, &s->peer);
    if (status != MOE_OK) {
        s->peer = 0;
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "%s", moe_status_text(status));
    }
    while (status == MOE_OK && !s->is_up) {
        status = turn(s, err);
        if (status == MOE_OK && !s->is_up && now_of(s->f) >= end) {
            status = moe_fail(err, MOE_ERR_UNAVAILABLE, "it cannot be reached");
        }
    }
    if (status == MOE_OK &&
        link_begin(&s->link, &s->side, s, now_of(s->f), now_of(s->f) + LINK_GREETING_NS) != MOE_OK) {
        status = moe_fail(err, MOE_ERR_UNAVAILABLE, "HELLO could not be sent");
    }
    while (status == MOE_OK && s->link.state != LINK_READING) {
        status = turn(s, err);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ parts */
/* Where a part goes. `begin` is told the size as soon as it is known, and may refuse it; a part is begun anew at every node. */
typedef struct sink {
    moe_status (*begin)(void *ctx, uint64_t size, moe_error *err);
    moe_status (*put)(void *ctx, uint64_t offset, const void *bytes, size_t n, moe_error *err);
    void *ctx;
    const checkpoint_digest *digest; /* that it must have; NULL: none is known */
    bool is_optional;                /* the pack may have none */
} sink;

static moe_status read_piece(session *s, uint32_t part, uint64_t offset, moe_error *err)
{
    wire_fetch ask = {.part = part, .offset = offset, .length = link_max_piece(&s->link)};
    moe_status status = MOE_OK;

    memcpy(ask.pack, s->f->hash.bytes, sizeof ask.pack);
    s->is_given = false;
    while (status == MOE_OK && link_ask(&s->link, &ask, now_of(s->f)) == MOE_ERR_BUSY) {
        status = turn(s, err);
    }
    while (status == MOE_OK && !s->is_given) {
        status = turn(s, err);
    }
    if (status == MOE_OK && s->f->more != NULL && !s->f->more(s->f->more_ctx, s->piece.n)) {
        status = moe_fail(err, MOE_ERR_CANCELLED, "reading a pack was given up");
    }
    return status;
}

static moe_status read_pieces(session *s, uint32_t part, const sink *to, EVP_MD_CTX *hash, moe_error *err)
{
    uint64_t at = 0, size = 0;

    do {
        moe_status status = read_piece(s, part, at, err);

        if (status != MOE_OK) {
            return status;
        }
        if (s->piece.size == 0) {
            return to->is_optional ? MOE_OK
                   : part == PACK_PART_SIGNATURE
                       ? moe_fail(err, MOE_ERR_UNAVAILABLE, "its pack is not signed, and --pack-key demands that")
                       : moe_fail(err, MOE_ERR_UNAVAILABLE, "it has no such pack, or not all of it");
        }
        if (at == 0) {
            size = s->piece.size;
            status = to->begin(to->ctx, size, err);
        } else if (s->piece.size != size) {
            status = moe_fail(err, MOE_ERR_UNAVAILABLE, "the size of part %u changed", part);
        }
        if (status == MOE_OK && EVP_DigestUpdate(hash, s->bytes, s->piece.n) != 1) {
            status = moe_fail(err, MOE_ERR_INTERNAL, "SHA-256");
        }
        if (status == MOE_OK) {
            status = to->put(to->ctx, at, s->bytes, s->piece.n, err);
        }
        if (status != MOE_OK) {
            return status;
        }
        at += s->piece.n;
    } while (at < size);
    return MOE_OK;
}

static moe_status read_part_from(session *s, uint32_t part, const sink *to, moe_error *err)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    checkpoint_digest is = {{0}};
    moe_status status = hash != NULL && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1
                            ? read_pieces(s, part, to, hash, err)
                            : moe_fail(err, MOE_ERR_NO_MEMORY, "SHA-256");

    if (status == MOE_OK && to->digest != NULL &&
        (EVP_DigestFinal_ex(hash, is.bytes, NULL) != 1 || memcmp(is.bytes, to->digest->bytes, sizeof is.bytes) != 0)) {
        status = moe_fail(err, MOE_ERR_UNAVAILABLE, "part %u has another SHA-256 than the pack's", part);
    }
    EVP_MD_CTX_free(hash);
    return status;
}

/* The node that is asked does not give what it should: the next one's turn. False: there is none left. */
static bool next_node(fetching *g, const moe_error *why)
{
    const pack_fetch *f = g->f;

    MOE_WARN("pack: node at %s: %s", f->nodes[g->node], why->text);
    session_end(g->session);
    g->node = (g->node + 1) % f->n_nodes;
    return ++g->tries < TRIES * f->n_nodes;
}

/* All have failed once: they are given time, also to notice that the connection before is gone. */
static moe_status pause_if_round(fetching *g, moe_error *err)
{
    const uint64_t end = now_of(g->f) + AGAIN_NS;
    moe_status status = MOE_OK;

    while (status == MOE_OK && g->tries > 0 && g->tries % g->f->n_nodes == 0 && now_of(g->f) < end) {
        status = turn(g->session, err);
    }
    return status;
}

static moe_status read_part(fetching *g, uint32_t part, const sink *to, moe_error *err)
{
    session *s = g->session;

    for (;;) {
        moe_status status = s->is_up ? MOE_OK : pause_if_round(g, err);

        if (status == MOE_OK && !s->is_up) {
            status = session_begin(s, g->f->nodes[g->node], err);
        }

        if (status == MOE_OK) {
            status = read_part_from(s, part, to, err);
        }
        if (status != MOE_ERR_UNAVAILABLE || !next_node(g, err)) {
            return status;
        }
    }
}

/* ------------------------------------------------------------------------------------------------ files */
static moe_status io_error(moe_error *err, const char *path)
{
    return moe_fail(err, MOE_ERR_IO, "%s: %s", path, strerror(errno));
}

/* dir/name; false: too long. */
static bool join(char out[MAX_PATH], const char *dir, const char *name)
{
    int n = snprintf(out, MAX_PATH, "%s/%s", dir, name);

    return n > 0 && n < MAX_PATH;
}

static moe_status create(const char *dir, const char *name, int *fd_out, moe_error *err)
{
    char path[MAX_PATH];

    if (!join(path, dir, name)) {
        return moe_fail(err, MOE_ERR_IO, "%s: too long", dir);
    }
    *fd_out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    return *fd_out >= 0 ? MOE_OK : io_error(err, path);
}

static moe_status write_at(int fd, const char *name, uint64_t offset, const void *bytes, size_t n, moe_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t written = pwrite(fd, (const char *)bytes + done, n - done, (off_t)(offset + done));

        if (written <= 0 && errno != EINTR) {
            return io_error(err, name);
        }
        done += written > 0 ? (size_t)written : 0;
    }
    return MOE_OK;
}

static moe_status finish(int fd, const char *name, moe_status status, moe_error *err)
{
    if (status == MOE_OK && fsync(fd) != 0) {
        status = io_error(err, name);
    }
    return close(fd) == 0 || status != MOE_OK ? status : io_error(err, name);
}

static moe_status save(const char *dir, const char *name, const void *bytes, size_t n, moe_error *err)
{
    int fd = -1;
    moe_status status = create(dir, name, &fd, err);

    return status == MOE_OK ? finish(fd, name, write_at(fd, name, 0, bytes, n, err), err) : status;
}

/* ------------------------------------------------------------------------------------------------ the manifest */
static moe_status begin_manifest(void *ctx, uint64_t size, moe_error *err)
{
    fetching *g = ctx;

    free(g->manifest);
    g->manifest = size <= PACK_MAX_MANIFEST ? malloc((size_t)size) : NULL;
    g->n_manifest = (size_t)size;
    return g->manifest != NULL ? MOE_OK
                               : moe_fail(err, MOE_ERR_UNAVAILABLE, "a manifest of %llu bytes, limit %zu",
                                          (unsigned long long)size, PACK_MAX_MANIFEST);
}

static moe_status put_manifest(void *ctx, uint64_t offset, const void *bytes, size_t n, moe_error *err)
{
    fetching *g = ctx;

    (void)err;
    memcpy(g->manifest + offset, bytes, n);
    return MOE_OK;
}

static moe_status read_manifest(fetching *g, moe_error *err)
{
    const sink to = {.begin = begin_manifest, .put = put_manifest, .ctx = g, .digest = &g->f->hash};
    moe_status status = read_part(g, PACK_PART_MANIFEST, &to, err);

    if (status == MOE_OK) {
        status = pack_contents_read(g->manifest, g->n_manifest, g->f->base, &g->contents, err);
    }
    return status == MOE_OK ? save(g->work, PACK_DIR_MANIFEST, g->manifest, g->n_manifest, err) : status;
}

/* ------------------------------------------------------------------------------------------------ the signature */
typedef struct signature {
    const fetching *g;
    unsigned char bytes[PACK_SIGNATURE_SIZE];
    bool is_there;
} signature;

static moe_status begin_signature(void *ctx, uint64_t size, moe_error *err)
{
    signature *s = ctx;

    s->is_there = size == sizeof s->bytes;
    return s->is_there ? MOE_OK
                       : moe_fail(err, MOE_ERR_UNAVAILABLE, "a signature of %llu bytes", (unsigned long long)size);
}

/* Where it matters whose it is, that is seen before the tensors are read; another node may have the one that is right. */
static moe_status put_signature(void *ctx, uint64_t offset, const void *bytes, size_t n, moe_error *err)
{
    signature *s = ctx;
    const char *key_file = s->g->f->options->key_file;

    memcpy(s->bytes + offset, bytes, n);
    if (key_file == NULL || offset + n < sizeof s->bytes) {
        return MOE_OK;
    }
    moe_status status =
        pack_check_signature(key_file, s->bytes, sizeof s->bytes, s->g->manifest, s->g->n_manifest, err);
    return status == MOE_ERR_DENIED ? MOE_ERR_UNAVAILABLE : status;
}

/* Without a key it is kept for those who have one. */
static moe_status read_signature(fetching *g, moe_error *err)
{
    signature s = {.g = g, .is_there = false};
    const sink to = {
        .begin = begin_signature, .put = put_signature, .ctx = &s, .is_optional = g->f->options->key_file == NULL};
    moe_status status = read_part(g, PACK_PART_SIGNATURE, &to, err);

    return status == MOE_OK && s.is_there ? save(g->work, PACK_DIR_SIGNATURE, s.bytes, sizeof s.bytes, err) : status;
}

/* ------------------------------------------------------------------------------------------------ tensors */
typedef struct tensor_file {
    const fetching *g;
    int fd;
    uint64_t at; /* where the tensor begins */
    size_t bytes;
    uint64_t head, total; /* bytes before the first tensor; of all that are wanted */
    unsigned tenth;       /* that was logged last */
} tensor_file;

/* A line for each tenth of what takes long. */
static void say_progress(tensor_file *t, uint64_t of_tensor)
{
    unsigned tenth = (unsigned)(10.0 * (double)(t->at - t->head + of_tensor) / (double)t->total);

    if (tenth > t->tenth && t->total >= SAID_BYTES) {
        t->tenth = tenth;
        MOE_INFO("pack %.12s: %u %% of %.1f GB are here", t->g->target + strlen(t->g->f->dir) + 1, tenth * 10,
                 (double)t->total * 1e-9);
    }
}

static moe_status begin_tensor(void *ctx, uint64_t size, moe_error *err)
{
    const tensor_file *t = ctx;

    return size == t->bytes ? MOE_OK
                            : moe_fail(err, MOE_ERR_UNAVAILABLE, "a tensor of %llu bytes, the manifest says %zu",
                                       (unsigned long long)size, t->bytes);
}

static moe_status put_tensor(void *ctx, uint64_t offset, const void *bytes, size_t n, moe_error *err)
{
    tensor_file *t = ctx;

    say_progress(t, offset + n);
    return write_at(t->fd, PACK_DIR_TENSORS, t->at + offset, bytes, n, err);
}

static bool is_wanted(const fetching *g, const pack_content *c)
{
    return c->is_router || !g->f->options->router_only;
}

static moe_status check_size(const fetching *g, uint64_t *total_out, moe_error *err)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < pack_contents_n(g->contents); i++) {
        const pack_content *c = pack_contents_at(g->contents, i);

        if (is_wanted(g, c) && (c->bytes > g->f->max_bytes || (sum += c->bytes) > g->f->max_bytes)) {
            return moe_fail(err, MOE_ERR_BUSY, "a pack of more than %llu bytes", (unsigned long long)g->f->max_bytes);
        }
    }
    *total_out = sum;
    return MOE_OK;
}

/* Whether the tensor is there already, whole. */
static bool is_here(const tensor_file *t, const checkpoint_digest *digest)
{
    const pack_fetch *f = t->g->f;
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    unsigned char *piece = t->g->session->bytes; /* nothing is being read */
    checkpoint_digest is = {{0}};
    bool ok = hash != NULL && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1;

    for (size_t done = 0; ok && done < t->bytes;) {
        ssize_t n = pread(t->fd, piece, MOE_MIN(t->bytes - done, sizeof t->g->session->bytes), (off_t)(t->at + done));

        ok = n > 0 && EVP_DigestUpdate(hash, piece, (size_t)n) == 1 && (f->more == NULL || f->more(f->more_ctx, 0));
        done += n > 0 ? (size_t)n : 0;
    }
    ok = ok && EVP_DigestFinal_ex(hash, is.bytes, NULL) == 1 && memcmp(is.bytes, digest->bytes, sizeof is.bytes) == 0;
    EVP_MD_CTX_free(hash);
    return ok;
}

static moe_status read_into(fetching *g, int fd, uint64_t total, moe_error *err)
{
    tensor_file t = {.g = g, .fd = fd, .total = total};
    char *head;
    size_t n_head;
    moe_status status = pack_contents_head(g->contents, g->f->options->router_only, &head, &n_head);

    if (status != MOE_OK) {
        return moe_fail(err, status, "the head of %zu tensors", pack_contents_n(g->contents));
    }
    status = write_at(fd, PACK_DIR_TENSORS, 0, head, n_head, err);
    free(head);
    t.at = t.head = n_head;
    for (size_t i = 0; i < pack_contents_n(g->contents) && status == MOE_OK; i++) {
        const pack_content *c = pack_contents_at(g->contents, i);
        const sink to = {.begin = begin_tensor, .put = put_tensor, .ctx = &t, .digest = &c->digest};

        if (is_wanted(g, c)) {
            t.bytes = c->bytes;
            if (is_here(&t, &c->digest)) {
                say_progress(&t, c->bytes);
            } else {
                status = read_part(g, PACK_PART_TENSORS + (uint32_t)i, &to, err);
            }
            t.at += c->bytes;
        }
    }
    return status == MOE_OK && ftruncate(fd, (off_t)t.at) != 0 ? io_error(err, PACK_DIR_TENSORS) : status;
}

/* One that another try has left is gone on with: what lies beyond the tensors is cut off. */
static moe_status read_tensors(fetching *g, moe_error *err)
{
    char path[MAX_PATH];
    uint64_t total = 0;
    moe_status status = check_size(g, &total, err);

    if (status != MOE_OK) {
        return status;
    }
    int fd = join(path, g->work, PACK_DIR_TENSORS) ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644) : -1;
    if (fd < 0) {
        return io_error(err, g->work);
    }
    return finish(fd, PACK_DIR_TENSORS, read_into(g, fd, total, err), err);
}

/* ------------------------------------------------------------------------------------------------ the whole */
static moe_status make_paths(fetching *g, moe_error *err)
{
    const pack_fetch *f = g->f;
    char hex[65], name[96];

    checkpoint_digest_hex(&f->hash, hex);
    const struct {
        char *out;
        const char *suffix;
    } paths[] = {{g->target, ""}, {g->work, ".new"}, {g->lock, ".lock"}};
    for (size_t i = 0; i < MOE_COUNT(paths); i++) {
        (void)snprintf(name, sizeof name, "%s%s%s", hex, f->options->router_only ? ".router" : "", paths[i].suffix);
        if (!join(paths[i].out, f->dir, name)) {
            return moe_fail(err, MOE_ERR_IO, "%s: too long", f->dir);
        }
    }
    for (char *at = strchr(g->target + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        int made = mkdir(g->target, 0755);
        bool is_wrong = made != 0 && errno != EEXIST;
        moe_status status = is_wrong ? io_error(err, g->target) : MOE_OK;
        *at = '/';
        if (is_wrong) {
            return status;
        }
    }
    return MOE_OK;
}

/* Waits until nobody else reads this pack into this directory. */
static moe_status take_lock(fetching *g, moe_error *err)
{
    moe_status status = MOE_OK;

    while (status == MOE_OK && (g->lock_fd = pack_dir_lock(g->lock)) < 0) {
        status = errno == EWOULDBLOCK || errno == EINTR ? turn(g->session, err) : io_error(err, g->lock);
    }
    return status;
}

/* What another try has left there: its manifest, if it is the pack's. */
static bool find_manifest(fetching *g)
{
    char path[MAX_PATH];

    if (!join(path, g->work, PACK_DIR_MANIFEST) ||
        moe_file_read(path, PACK_MAX_MANIFEST, &g->manifest, &g->n_manifest, NULL) != MOE_OK) {
        return false;
    }
    checkpoint_digest is = checkpoint_sha256(g->manifest, g->n_manifest);
    return memcmp(is.bytes, g->f->hash.bytes, sizeof is.bytes) == 0 &&
           pack_contents_read(g->manifest, g->n_manifest, g->f->base, &g->contents, NULL) == MOE_OK;
}

/* Goes on with what another try has left, or begins anew. */
static moe_status begin_work(fetching *g, moe_error *err)
{
    char path[MAX_PATH];

    if (find_manifest(g)) {
        (void)(join(path, g->work, PACK_DIR_SIGNATURE) && unlink(path));
        return MOE_OK;
    }
    pack_dir_remove(g->work);
    return mkdir(g->work, 0755) == 0 ? read_manifest(g, err) : io_error(err, g->work);
}

static moe_status read_pack(fetching *g, moe_error *err)
{
    moe_status status = begin_work(g, err);

    if (status == MOE_OK) {
        status = read_signature(g, err);
    }
    return status == MOE_OK ? read_tensors(g, err) : status;
}

/* Whether what is there is of use to the next try: what ended this one says nothing of the pack. */
static bool is_to_be_kept(const fetching *g, moe_status status)
{
    return g->contents != NULL &&
           (status == MOE_ERR_UNAVAILABLE || status == MOE_ERR_TIMEOUT || status == MOE_ERR_CANCELLED);
}

/* It is opened before it is moved: what has the name of a pack is one. */
static moe_status publish(fetching *g, pack **out, moe_error *err)
{
    pack *p = NULL;
    moe_status status = pack_open(g->work, g->f->base, g->f->options, &p, err);

    if (status == MOE_OK && rename(g->work, g->target) != 0) {
        status = io_error(err, g->target);
        pack_close(p);
    }
    if (status == MOE_OK) {
        *out = p;
    }
    return status;
}

static moe_status find_or_read(fetching *g, pack **out, moe_error *err)
{
    moe_status status = take_lock(g, err);

    if (status != MOE_OK) {
        return status;
    }
    pack_dir_touch(g->target);
    status = pack_open(g->target, g->f->base, g->f->options, out, err);
    if (status == MOE_OK || status == MOE_ERR_DENIED) {
        return status; /* of another base, or not signed: no node's pack of this hash would be */
    }
    if (status != MOE_ERR_NOT_FOUND) {
        MOE_WARN("%s is read anew: %s", g->target, err->text);
    }
    pack_dir_remove(g->target);
    if (g->f->n_nodes == 0) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "no node offers the pack");
    }
    status = read_pack(g, err);
    if (status != MOE_OK && is_to_be_kept(g, status)) {
        return status;
    }
    if (status == MOE_OK) {
        status = publish(g, out, err);
    }
    if (status != MOE_OK) {
        pack_dir_remove(g->work);
    }
    return status;
}

moe_status pack_fetch_run(const pack_fetch *f, pack **out, moe_error *err)
{
    fetching g = {.f = f, .lock_fd = -1, .session = calloc(1, sizeof *g.session)};

    if (g.session == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "reading a pack");
    }
    g.session->f = f;
    g.session->side = (link_side){.role = LINK_READER, .hello = f->hello, .key = f->key, .ops = &ops};
    f->transport->handler = (transport_handler){g.session, on_message, on_peer};
    moe_status status = make_paths(&g, err);
    if (status == MOE_OK) {
        status = find_or_read(&g, out, err);
    }
    session_end(g.session);
    while (g.session->is_lent) { /* its end is told by the transport */
        (void)f->transport->ops->progress(f->transport);
    }
    f->transport->handler = (transport_handler){NULL, ignore_message, ignore_peer};
    if (g.lock_fd >= 0) {
        (void)close(g.lock_fd);
    }
    pack_contents_close(g.contents);
    free(g.manifest);
    free(g.session);
    return status;
}

typedef struct named {
    const catalogue *in;
    const char *hash; /* of the pack that was just read */
} named;

static bool is_named(void *ctx, const char *hash)
{
    const named *n = ctx;

    return strcmp(hash, n->hash) == 0 || catalogue_find_pack(n->in, hash) != NULL;
}

moe_status pack_fetch_from(pack_fetch *f, const cluster_state *s, const char *hash, const char *but_id, pack **out,
                           moe_error *err)
{
    const char *nodes[ROUTER_MAX_NODES];

    f->hash = (checkpoint_digest){{0}};
    f->nodes = nodes;
    f->n_nodes = 0;
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (cluster_node_offers(&s->nodes[i], hash) && (but_id == NULL || strcmp(s->nodes[i].id, but_id) != 0)) {
            nodes[f->n_nodes++] = s->nodes[i].address;
        }
    }
    moe_status status = pack_read_digest(hash, &f->hash) ? pack_fetch_run(f, out, err)
                                                         : moe_fail(err, MOE_ERR_CORRUPT, "a pack's hash is none");
    f->nodes = NULL;
    if (status == MOE_OK) {
        named n = {s->catalogue, hash};
        (void)pack_dir_tidy(f->dir, PACK_DIR_MAX_BYTES, is_named, &n);
    }
    return status;
}
