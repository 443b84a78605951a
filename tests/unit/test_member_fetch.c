/* A pack read from nodes into a directory: whole, in part, from several nodes one after the other, and from liars. */
#include "expert_node/program/shelf.h"
#include "member/fetch.h"
#include "member/pack_dir.h"
#include "tests/sim/world.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

enum { WIDTH = 64, D_FF = 600, N_LAYERS = 2, N_NODES = 3 };

static const unsigned char fingerprint[32] = {0xab};
static const model_config config = {.model_type = "olmoe",
                                    .n_layers = N_LAYERS,
                                    .d_model = WIDTH,
                                    .d_ff = D_FF,
                                    .n_experts = 4,
                                    .n_ffn_experts = 4,
                                    .gate_kind = MODEL_GATE_LINEAR,
                                    .ffn = COMPUTE_FFN_SWIGLU};
static const pack_base base = {&config, fingerprint, COMPUTE_BF16};

static world w;
static test_folder folder; /* "origin" is the pack, "cache" where it is read to */
static shelf shelves[1];
static wire_hello hello;
static wire_key key;
static transport *endpoint;
static checkpoint_digest hash;
static moe_error err;
/* What goes wrong, and when. */
static size_t n_read, kill_after; /* pieces given; node-0 dies after so many (0: never) */
static size_t n_unsigned; /* who is asked for the signature first says so often that there is none, or another */
static bool is_forged;
static const char *key_file; /* of the fetch; NULL: none */
static bool is_flipped;      /* a bit of every piece of node-0 */
static bool is_silent;       /* nobody answers, and time passes */
static size_t stop_after;    /* bytes; 0: never */
static size_t n_bytes;       /* that were read, ever */

/* ------------------------------------------------------------------------------------------------ the pack */
static void add_tensor(test_tensors *t, moe_text *listed, const char *name, const char *dtype, size_t rows,
                       size_t columns)
{
    size_t shape[] = {rows, columns}, n = rows * columns * (dtype[0] == 'F' ? 4 : 2);
    unsigned char *bytes = calloc(n, 1);
    char hex[65];

    for (size_t i = 0; i < n; i += 2) {
        bytes[i + 1] = (unsigned char)(0x3f - (i / 2 + strlen(name)) % 7); /* finite in both dtypes */
        bytes[i] = (unsigned char)(i >> 3);
    }
    test_tensors_add(t, name, dtype, shape, 2, bytes, n);
    checkpoint_digest digest = checkpoint_sha256(bytes, n);
    checkpoint_digest_hex(&digest, hex);
    moe_text_printf(listed, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu,%zu],\"sha256\":\"%s\"}",
                    listed->size > 0 ? "," : "", name, dtype, rows, columns, hex);
    free(bytes);
}

/* Two layers with one expert each. Some names are paths. */
static void make_pack(const char *dir, const char *kind)
{
    test_tensors *t = test_tensors_open();
    bool adds = strcmp(kind, "add") == 0;
    moe_text listed, out;
    char hex[65], path[512];

    assert_int_equal(mkdir(dir, 0755), 0);
    moe_text_init(&listed, 1 << 16);
    moe_text_init(&out, 1 << 16);
    checkpoint_digest fp;
    memcpy(fp.bytes, fingerprint, sizeof fp.bytes);
    checkpoint_digest_hex(&fp, hex);
    moe_text_printf(
        &out,
        "{\"v\":1,\"kind\":\"%s\",\"name\":\"german\",\"version\":\"1\",\"family\":\"olmoe\",\"base\":\"%s\","
        "\"layers\":[",
        kind, hex);
    for (int l = 0; l < N_LAYERS; l++) {
        const char *const format[] = {"../%d.gate", "/%d up", "%d.down", "%d.router"};
        char names[4][16];

        moe_text_printf(&out, "%s{\"layer\":%d,\"experts\":[{", l > 0 ? "," : "", l);
        for (int i = 0; i < 4; i++) {
            (void)snprintf(names[i], sizeof names[i], format[i], l);
        }
        add_tensor(t, &listed, names[0], "BF16", D_FF, WIDTH);
        add_tensor(t, &listed, names[1], "BF16", D_FF, WIDTH);
        add_tensor(t, &listed, names[2], "BF16", WIDTH, D_FF);
        moe_text_printf(&out, "\"gate\":\"%s\",\"up\":\"%s\",\"down\":\"%s\"", names[0], names[1], names[2]);
        moe_text_printf(&out, "%s", adds ? "}],\"router\":" : ",\"replaces\":1}]}");
        if (adds) {
            moe_text_printf(&out, "\"%s\"}", names[3]);
            add_tensor(t, &listed, names[3], "F32", 1, WIDTH);
        }
    }
    moe_text_printf(&out, "],\"tensors\":{%s}}", moe_text_cstr(&listed));
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    test_tensors_save(t, path);
    (void)snprintf(path, sizeof path, "%s/pack.json", dir);
    test_write_text(path, moe_text_cstr(&out));
    (void)snprintf(path, sizeof path, "%s/pack.sig", dir);
    test_write_file(path, "0123456789012345678901234567890123456789012345678901234567890123", 64);
    hash = checkpoint_sha256(moe_text_cstr(&out), out.size);
    moe_text_fini(&listed);
    moe_text_fini(&out);
    test_tensors_close(t);
}

/* ------------------------------------------------------------------------------------------------ the nodes */
static expert_pack_answer read_part(void *ctx, const unsigned char pack_hash[32], uint32_t part, uint64_t offset,
                                    size_t length, const unsigned char **bytes_out, uint64_t *size_out)
{
    static unsigned char flipped[WIRE_MAX_PIECE];
    const expert_packs honest = shelf_reads(ctx);
    expert_pack_answer is = honest.read(honest.ctx, pack_hash, part, offset, length, bytes_out, size_out);

    n_read += is == EXPERT_PACK_HERE;
    if (part == PACK_PART_SIGNATURE && n_unsigned > 0) {
        static const unsigned char forged[PACK_SIGNATURE_SIZE] = {1};

        n_unsigned--;
        *bytes_out = forged;
        return is_forged ? is : EXPERT_PACK_NONE;
    }
    if (is == EXPERT_PACK_HERE && is_flipped && part >= PACK_PART_TENSORS && offset < *size_out &&
        w.nodes[0].t != NULL) {
        size_t n = (size_t)MOE_MIN(*size_out - offset, (uint64_t)length);

        memcpy(flipped, *bytes_out, n);
        flipped[n / 2] ^= 1;
        *bytes_out = flipped;
    }
    return is;
}

/* The nodes live on this thread: they have their turn whenever the endpoint has. Time passes only here. */
static unsigned poll_nodes(void *ctx)
{
    (void)ctx;
    for (uint32_t i = 0; i < N_NODES; i++) {
        if (w.nodes[i].t != NULL) {
            (void)expert_node_progress(w.nodes[i].node);
        }
    }
    if (kill_after > 0 && n_read >= kill_after && w.nodes[0].t != NULL) {
        world_node_kill(&w, 0);
    }
    moe_clock_virtual_advance(&w.clock, 1000000);
    return 0;
}

static int setup_of(const char *kind)
{
    const world_options o = {.secret = "secret",
                             .n_layers = N_LAYERS,
                             .n_experts = 4,
                             .k = 2,
                             .d_model = 8,
                             .d_ff = 4,
                             .max_rows = 4,
                             .n_nodes = N_NODES,
                             .replication = 1,
                             .packs = {shelves, read_part}};
    pack *p;

    n_read = kill_after = stop_after = n_unsigned = 0;
    is_flipped = is_silent = is_forged = false;
    key_file = NULL;
    test_folder_open(&folder);
    make_pack(test_folder_path(&folder, "origin"), kind);
    assert_ok(pack_open(test_folder_path(&folder, "origin"), &base, NULL, &p, &err), err);
    memset(shelves, 0, sizeof shelves);
    assert_ok(shelf_add(shelves, p, &err), err);
    world_open(&w, &o);
    const transport_loopback_options loopback = {
        .net = w.net, .address = "reader", .max_message = 1 << 16, .max_peers = 4, .max_queued = 4};
    assert_int_equal(transport_loopback_open(&loopback, &endpoint), MOE_OK);
    transport_loopback_set_member_poll(endpoint, poll_nodes, NULL);
    hello = (wire_hello){.role = WIRE_READER,
                         .member = "reader",
                         .cluster = "sim",
                         .d_model = 8,
                         .max_message = 1 << 16,
                         .max_rows = 1,
                         .max_picks = 1};
    (void)snprintf(hello.numeric_class, sizeof hello.numeric_class, "%s", compute_class_name(w.o.numeric_class));
    assert_int_equal(wire_key_init(&key, "secret", 6), MOE_OK);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_of("add");
}

static int teardown(void **state)
{
    (void)state;
    transport_close(endpoint);
    world_close(&w);
    shelf_fini(shelves);
    test_folder_close(&folder);
    return 0;
}

static bool more(void *ctx, size_t bytes)
{
    size_t *total = ctx;

    *total += bytes;
    n_bytes += bytes;
    moe_clock_virtual_advance(&w.clock, is_silent ? 10000000 : 0);
    return stop_after == 0 || *total < stop_after;
}

static moe_status fetch_from(const char *const *nodes, size_t n_nodes, bool router_only, uint64_t max_bytes, pack **out)
{
    const pack_options options = {.router_only = router_only, .key_file = key_file};
    size_t total = 0;
    const pack_fetch f = {.transport = endpoint,
                          .hello = &hello,
                          .key = &key,
                          .clock = &w.clock.clock,
                          .deadline_ns = moe_now_ns(&w.clock.clock) + UINT64_C(60000000000),
                          .nodes = nodes,
                          .n_nodes = n_nodes,
                          .hash = hash,
                          .base = &base,
                          .options = &options,
                          .dir = test_folder_path(&folder, "some/cache"),
                          .max_bytes = max_bytes,
                          .more = more,
                          .more_ctx = &total};

    *out = NULL;
    err = (moe_error){""};
    return pack_fetch_run(&f, out, &err);
}

static const char *const all_nodes[] = {"node-0", "node-1", "node-2"};

static moe_status fetch(bool router_only, pack **out)
{
    return fetch_from(all_nodes, N_NODES, router_only, 1 << 30, out);
}

/* What was read is what the nodes have, tensor by tensor; nothing else lies there. */
static void assert_equal(const pack *p, bool router_only)
{
    const pack *origin = shelves[0].packs[0];
    const unsigned char *a, *b;
    size_t n_a, n_b;

    assert_string_equal(pack_hash(p), pack_hash(origin));
    assert_int_equal(pack_n_experts(p), pack_n_experts(origin));
    for (size_t l = 0; l < pack_n_layers(p); l++) {
        const pack_layer *mine = pack_at(p, l), *theirs = pack_at(origin, l);

        assert_memory_equal(mine->experts[0].hash, theirs->experts[0].hash, 32);
        assert_int_equal(mine->experts[0].up == NULL, router_only);
        if (theirs->router != NULL) {
            assert_memory_equal(mine->router->data, theirs->router->data, theirs->router->bytes);
        }
    }
    for (uint32_t part = 0; !router_only && pack_part(origin, part, &a, &n_a); part++) {
        assert_true(pack_part(p, part, &b, &n_b));
        assert_int_equal(n_a, n_b);
        assert_memory_equal(a, b, n_a);
    }
}

static bool exists(const char *suffix, const char *file)
{
    char hex[65], name[256];
    struct stat s;

    checkpoint_digest_hex(&hash, hex);
    (void)snprintf(name, sizeof name, "some/cache/%s%s%s", hex, suffix, file);
    return stat(test_folder_path(&folder, name), &s) == 0;
}

/* ------------------------------------------------------------------------------------------------ what is read */
static void a_pack_is_read_whole(void **state)
{
    pack *p;

    (void)state;
    assert_ok(fetch(false, &p), err);
    assert_equal(p, false);
    assert_true(exists("", "/pack.json") && exists("", "/pack.sig") && exists("", "/model.safetensors"));
    assert_false(exists(".new", ""));
    pack_close(p);
}

static void a_coordinator_reads_the_router_alone(void **state)
{
    expert_node_stats stats;
    pack *p;

    (void)state;
    assert_ok(fetch(true, &p), err);
    assert_equal(p, true);
    assert_int_equal(pack_bytes(p), 2 * WIDTH * 4);
    expert_node_get_stats(w.nodes[0].node, &stats);
    assert_true(stats.piece_bytes < 8192);
    assert_true(exists(".router", "/model.safetensors"));
    assert_false(exists("", ""));
    pack_close(p);
}

static void a_pack_that_replaces_has_no_router_to_read(void **state)
{
    pack *p;

    (void)state;
    (void)teardown(NULL);
    (void)setup_of("replace");
    assert_ok(fetch(true, &p), err);
    assert_int_equal(pack_at(p, 0)->experts[0].replaces, 1);
    pack_close(p);
}

static void what_was_read_before_is_read_from_the_disk(void **state)
{
    pack *p;

    (void)state;
    assert_ok(fetch(false, &p), err);
    pack_close(p);
    size_t before = n_read;
    assert_ok(fetch_from(NULL, 0, false, 1, &p), err);
    assert_equal(p, false);
    pack_close(p);
    assert_int_equal(n_read, before);
}

static void what_was_spoilt_on_the_disk_is_read_anew(void **state)
{
    char hex[65], name[256];
    pack *p;

    (void)state;
    assert_ok(fetch(false, &p), err);
    pack_close(p);
    checkpoint_digest_hex(&hash, hex);
    (void)snprintf(name, sizeof name, "some/cache/%s/model.safetensors", hex);
    test_write_text(test_folder_path(&folder, name), "spoilt");
    assert_ok(fetch(false, &p), err);
    assert_equal(p, false);
    pack_close(p);
}

static void what_a_dead_process_left_is_in_nobodys_way(void **state)
{
    char hex[65], name[256];
    pack *p;

    (void)state;
    stop_after = 200000;
    assert_int_equal(fetch(false, &p), MOE_ERR_CANCELLED);
    assert_false(exists("", ""));
    checkpoint_digest_hex(&hash, hex);
    (void)snprintf(name, sizeof name, "some/cache/%s.new/pack.json", hex);
    test_write_text(test_folder_path(&folder, name), "another");
    (void)snprintf(name, sizeof name, "some/cache/%s.new/model.safetensors", hex);
    test_write_text(test_folder_path(&folder, name), "half");
    stop_after = 0;
    assert_ok(fetch(false, &p), err);
    assert_equal(p, false);
    pack_close(p);
}

/* A tensor that is there is not read again, but for one that is not what it should be. */
static void what_was_begun_is_gone_on_with(void **state)
{
    char hex[65], name[256];
    size_t n_file;
    pack *p;

    (void)state;
    n_bytes = 0;
    assert_ok(fetch(false, &p), err);
    const size_t whole = n_bytes, tensor = (size_t)WIDTH * D_FF * 2;
    pack_close(p);
    for (int is_spoilt = 0; is_spoilt < 2; is_spoilt++) {
        (void)teardown(NULL);
        (void)setup(NULL);
        n_bytes = 0;
        stop_after = 3 * tensor + tensor / 2;
        assert_int_equal(fetch(false, &p), MOE_ERR_CANCELLED);
        assert_true(exists(".new", "/model.safetensors"));
        if (is_spoilt) {
            checkpoint_digest_hex(&hash, hex);
            (void)snprintf(name, sizeof name, "some/cache/%s.new/model.safetensors", hex);
            char *file = test_read_file(test_folder_path(&folder, name), &n_file);
            file[n_file - 3 * tensor] ^= 1;
            test_write_file(test_folder_path(&folder, name), file, n_file);
            free(file);
        }
        stop_after = n_bytes = 0;
        assert_ok(fetch(false, &p), err);
        assert_equal(p, false);
        assert_false(exists(".new", ""));
        assert_in_range(n_bytes, whole - 3 * tensor - tensor / 2, whole - (is_spoilt ? 2 : 3) * tensor + tensor / 2);
        pack_close(p);
    }
}

/* ------------------------------------------------------------------------------------------------ what goes */
static bool is_named(void *ctx, const char *pack_hash)
{
    return ctx != NULL && pack_hash[0] == *(const char *)ctx;
}

/* DIR/xxx...suffix, last opened `days` ago. */
static void make_entry(char digit, const char *suffix, int days)
{
    char name[128], file[160];
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};

    memset(name, digit, 64);
    (void)snprintf(name + 64, sizeof name - 64, "%s", suffix);
    const char *path = test_folder_path(&folder, name);
    assert_int_equal(mkdir(path, 0755), 0);
    (void)snprintf(file, sizeof file, "%s/model.safetensors", name);
    test_write_text(test_folder_path(&folder, file), "0123456789");
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    times[0] = times[1] = (struct timespec){.tv_sec = s.st_mtime - (time_t)days * 86400};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool is_there(char digit, const char *suffix)
{
    char name[128];
    struct stat s;

    memset(name, digit, 64);
    (void)snprintf(name + 64, sizeof name - 64, "%s", suffix);
    return stat(test_folder_path(&folder, name), &s) == 0;
}

static void what_nobody_names_goes_after_a_while(void **state)
{
    char named = '3';

    (void)state;
    make_entry('1', "", 0);
    make_entry('2', ".router", 31);
    make_entry('3', "", 31);
    make_entry('4', ".new", 31);
    make_entry('5', ".router.new", 29);
    test_write_text(test_folder_path(&folder, "of somebody else"), "x");
    assert_int_equal(pack_dir_tidy(folder.path, 1000, is_named, &named), 2);
    assert_true(is_there('1', "") && is_there('3', "") && is_there('5', ".router.new"));
    assert_false(is_there('2', ".router") || is_there('4', ".new") || is_there('2', ".router.lock"));
    /* Too much: the longest unused first, but for what is named. */
    make_entry('6', "", 2);
    assert_int_equal(pack_dir_tidy(folder.path, 25, is_named, &named), 2);
    assert_true(is_there('1', "") && is_there('3', ""));
    assert_int_equal(pack_dir_tidy(folder.path, 0, is_named, &named), 1);
    assert_true(is_there('3', ""));
    assert_int_equal(pack_dir_tidy(test_folder_path(&folder, "nowhere"), 0, is_named, &named), 0);
}

static void what_is_being_read_stays(void **state)
{
    char name[128];

    (void)state;
    make_entry('1', ".router.new", 0);
    memset(name, '1', 64);
    (void)snprintf(name + 64, sizeof name - 64, ".router.lock");
    int fd = pack_dir_lock(test_folder_path(&folder, name));
    assert_true(fd >= 0);
    assert_int_equal(pack_dir_tidy(folder.path, 0, is_named, NULL), 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(pack_dir_tidy(folder.path, 0, is_named, NULL), 1);
}

/* ------------------------------------------------------------------------------------------------ who gives it */
static void when_a_node_dies_another_goes_on(void **state)
{
    pack *p;

    (void)state;
    for (kill_after = 1; kill_after < 14; kill_after++) {
        assert_ok(fetch(false, &p), err);
        assert_null(w.nodes[0].t);
        assert_equal(p, false);
        pack_close(p);
        size_t after = kill_after;
        (void)teardown(NULL);
        (void)setup(NULL);
        kill_after = after;
    }
}

static void a_node_that_is_not_there_costs_nothing(void **state)
{
    const char *const nodes[] = {"nowhere", "node-2"};
    pack *p;

    (void)state;
    assert_ok(fetch_from(nodes, 2, false, 1 << 30, &p), err);
    assert_equal(p, false);
    pack_close(p);
}

static void nobody_who_has_it_is_said(void **state)
{
    pack *p;

    (void)state;
    hash.bytes[0] ^= 1;
    assert_int_equal(fetch(false, &p), MOE_ERR_UNAVAILABLE);
    assert_contains(err.text, "no such pack");
    assert_null(p);
    assert_false(exists("", "") || exists(".new", ""));
    assert_int_equal(fetch_from(NULL, 0, false, 1, &p), MOE_ERR_UNAVAILABLE);
}

static void bytes_with_another_hash_are_not_taken(void **state)
{
    pack *p;

    (void)state;
    is_flipped = true;
    assert_int_equal(fetch(false, &p), MOE_ERR_UNAVAILABLE);
    assert_contains(err.text, "another SHA-256");
    assert_false(exists("", ""));
}

/* The nodes have the signature of a new key, whose public half is key_file. */
static void sign(void)
{
    static char path[512];
    const unsigned char *manifest;
    unsigned char signature[PACK_SIGNATURE_SIZE];
    size_t n_manifest, n = sizeof signature;
    EVP_PKEY *pair = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    pack *p;

    assert_true(pack_part(shelves[0].packs[0], PACK_PART_MANIFEST, &manifest, &n_manifest));
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, NULL, NULL, pair), 1);
    assert_int_equal(EVP_DigestSign(ctx, signature, &n, manifest, n_manifest), 1);
    test_write_file(test_folder_path(&folder, "origin/pack.sig"), signature, n);
    (void)snprintf(path, sizeof path, "%s", test_folder_path(&folder, "key.pem"));
    key_file = path;
    FILE *f = fopen(key_file, "we");
    assert_non_null(f);
    assert_int_equal(PEM_write_PUBKEY(f, pair), 1);
    assert_int_equal(fclose(f), 0);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pair);
    assert_ok(pack_open(test_folder_path(&folder, "origin"), &base, NULL, &p, &err), err);
    shelf_fini(shelves);
    assert_ok(shelf_add(shelves, p, &err), err);
}

static void a_node_without_the_signature_is_passed_over(void **state)
{
    pack *p;

    (void)state;
    sign();
    for (int i = 0; i < 2; i++) {
        is_forged = i == 1;
        n_unsigned = 2;
        assert_ok(fetch(false, &p), err);
        assert_equal(p, false);
        pack_close(p);
        (void)teardown(NULL);
        (void)setup(NULL);
        sign();
    }
}

static void what_nobody_has_signed_is_not_read(void **state)
{
    pack *p;

    (void)state;
    sign();
    n_unsigned = SIZE_MAX;
    for (int i = 0; i < 2; i++) {
        is_forged = i == 1;
        n_read = 0;
        assert_int_equal(fetch(false, &p), MOE_ERR_UNAVAILABLE);
        assert_true(n_read <= 1 + 2 * N_NODES); /* the manifest, and each node's signature twice */
        assert_false(exists("", ""));
    }
    assert_contains(err.text, "is not the signature");
}

static void a_wrong_secret_reads_nothing(void **state)
{
    pack *p;

    (void)state;
    assert_int_equal(wire_key_init(&key, "another", 7), MOE_OK);
    assert_int_equal(fetch(false, &p), MOE_ERR_UNAVAILABLE);
    assert_contains(err.text, "proof");
    assert_int_equal(n_read, 0);
}

static void too_much_is_not_read(void **state)
{
    pack *p;

    (void)state;
    assert_int_equal(fetch_from(all_nodes, N_NODES, false, 100000, &p), MOE_ERR_BUSY);
    assert_contains(err.text, "more than 100000 bytes");
    assert_true(n_read <= 3);
    assert_false(exists(".new", ""));
}

static void nodes_that_say_nothing_are_given_up(void **state)
{
    pack *p;

    (void)state;
    transport_loopback_set_member_poll(endpoint, NULL, NULL);
    is_silent = true;
    assert_int_equal(fetch(false, &p), MOE_ERR_UNAVAILABLE);
    transport_loopback_set_member_poll(endpoint, poll_nodes, NULL);
    is_silent = false;
    kill_after = 1;
    assert_ok(fetch(false, &p), err);
    pack_close(p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_pack_is_read_whole),
        TEST(a_coordinator_reads_the_router_alone),
        TEST(a_pack_that_replaces_has_no_router_to_read),
        TEST(what_was_read_before_is_read_from_the_disk),
        TEST(what_was_spoilt_on_the_disk_is_read_anew),
        TEST(what_a_dead_process_left_is_in_nobodys_way),
        TEST(what_was_begun_is_gone_on_with),
        TEST(what_nobody_names_goes_after_a_while),
        TEST(what_is_being_read_stays),
        TEST(when_a_node_dies_another_goes_on),
        TEST(a_node_that_is_not_there_costs_nothing),
        TEST(nobody_who_has_it_is_said),
        TEST(bytes_with_another_hash_are_not_taken),
        TEST(a_node_without_the_signature_is_passed_over),
        TEST(what_nobody_has_signed_is_not_read),
        TEST(a_wrong_secret_reads_nothing),
        TEST(too_much_is_not_read),
        TEST(nodes_that_say_nothing_are_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
