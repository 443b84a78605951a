/* 10,000 and more changed pickles and archives, under the sanitizers of the build: each is refused, or gives tensors
 * that lie in their storages; a changed archive that is taken gives exactly the same tensors; of what is dangerous,
 * nothing is taken. */
#include "tests/unit/torch_archive.h"

#include "checkpoint/pickle_priv.h"

typedef struct tally {
    size_t tried, refused, same, other;
} tally;

static tally all;

typedef enum { MAY_DIFFER, REFUSED_OR_SAME, REFUSED } demand;

/* Tries one image and counts what came of it; false when the demand is not met. */
static bool meets(const bytes *image, const checkpoint_digest *original, demand what, tally *t)
{
    checkpoint_digest sum = {{0}};
    moe_error err = {.text = ""};
    const bool taken = torch_file_sum(image, &sum, &err) == MOE_OK;
    const bool same = taken && memcmp(&sum, original, sizeof(sum)) == 0;

    t->tried++;
    t->refused += !taken;
    t->same += same;
    t->other += taken && !same;
    return taken ? same ? what != REFUSED : what == MAY_DIFFER : err.text[0] != '\0';
}

static void report(const char *kind, const tally *t)
{
    print_message("%-42s %5zu tried, %5zu refused, %4zu the same tensors, %4zu others\n", kind, t->tried, t->refused,
                  t->same, t->other);
    all.tried += t->tried;
    all.refused += t->refused;
    all.same += t->same;
    all.other += t->other;
}

typedef struct original {
    bytes image, pickle;
    checkpoint_digest sum;
    size_t ops[4096]; /* where the opcodes of the pickle stand */
    size_t n_ops;
} original;

/* Bytes of the opcode at `at` with what follows it. The pickle is a sound one. */
static size_t op_bytes(const bytes *pickle, size_t at)
{
    const unsigned char *p = pickle->data + at, *end;

    switch (*p) {
    case 0x80:
    case 'q':
    case 'h':
    case 'K':
        return 2;
    case 'M':
        return 3;
    case 'r':
    case 'j':
    case 'J':
        return 5;
    case 0x8a:
        return 2 + (size_t)p[1];
    case 'X':
        return 5 + ((size_t)p[1] | (size_t)p[2] << 8);
    case 'c':
        end = memchr(p, '\n', pickle->n - at);
        end = memchr(end + 1, '\n', (size_t)(pickle->data + pickle->n - end - 1));
        return (size_t)(end - p) + 1;
    default:
        return 1;
    }
}

static original original_open(size_t version)
{
    static const char *const paths[] = {TORCH_VECTORS "1.13.1/single/pytorch_model.bin",
                                        TORCH_VECTORS "2.15.0/sharded/pytorch_model-00001-of-00002.bin"};
    original o = {.image = bytes_of_file(paths[version])};
    archive a = archive_of(&o.image);
    const archive_entry *m = archive_find(&a, "/data.pkl");
    moe_error err = {.text = ""};

    o.pickle = bytes_exact(m->data, m->n);
    for (size_t at = 0; at < o.pickle.n; at += op_bytes(&o.pickle, at)) {
        assert_true(o.n_ops < MOE_COUNT(o.ops));
        o.ops[o.n_ops++] = at;
    }
    assert_ok(torch_file_sum(&o.image, &o.sum, &err), err);
    return o;
}

static void original_close(original *o)
{
    bytes_free(&o->image);
    bytes_free(&o->pickle);
}

/* A change of the archive or of the pickle; the result is a new image, owned by the caller. */
typedef bytes (*mutate)(const original *o, moe_random *r);

static void try_many(const char *kind, size_t n, uint64_t seed, mutate change, demand what)
{
    tally t = {0};

    for (size_t version = 0; version < 2; version++) {
        original o = original_open(version);
        for (size_t i = 0; i < n / 2; i++) {
            moe_random r;
            moe_random_seed(&r, seed + i);
            bytes image = change(&o, &r);
            if (!meets(&image, &o.sum, what, &t)) {
                fail_msg("%s: file %zu, seed %llu", kind, version, (unsigned long long)(seed + i));
            }
            bytes_free(&image);
        }
        original_close(&o);
    }
    report(kind, &t);
}

static size_t pick(moe_random *r, size_t n)
{
    return (size_t)moe_random_below(r, n);
}

/* Of any size, so small ones are as frequent as large ones. */
static uint64_t any_number(moe_random *r)
{
    const size_t shift = pick(r, 64);

    return moe_random_u64(r) >> shift;
}

static bytes copy_of(const bytes *b)
{
    return bytes_exact(b->data, b->n);
}

/* ------------------------------------------------------------------------------------------------ archives */
static bytes flip_a_bit(const original *o, moe_random *r)
{
    bytes b = copy_of(&o->image);
    const size_t at = pick(r, b.n);

    b.data[at] ^= (unsigned char)(1u << pick(r, 8));
    return b;
}

static bytes cut_short(const original *o, moe_random *r)
{
    return bytes_exact(o->image.data, pick(r, o->image.n));
}

/* A field of 1 to 8 bytes in what is not an entry's data becomes a number that sizes and offsets like least. */
static bytes set_a_field(const original *o, moe_random *r)
{
    static const uint64_t numbers[] = {0,      1,          0x7f,       0xff,       0x7fff,
                                       0xffff, 0x7fffffff, 0xfffffffe, 0xffffffff, UINT64_MAX};
    bytes b = copy_of(&o->image);
    const size_t width = (size_t)1 << pick(r, 4);
    const size_t at = pick(r, 2) == 0 ? b.n - 1 - pick(r, 1200) : pick(r, b.n);
    const uint64_t v = pick(r, 4) == 0 ? moe_random_u64(r) : numbers[pick(r, MOE_COUNT(numbers))];

    for (size_t i = 0; i < width && at + i < b.n; i++) {
        b.data[at + i] = (unsigned char)(v >> (8 * i));
    }
    return b;
}

/* Taken apart and put together again: nothing that the changes below start from is refused. */
static bytes change_nothing(const original *o)
{
    archive a = archive_of(&o->image);

    return archive_build(&a);
}

static bytes add_behind(const original *o, moe_random *r)
{
    bytes b = {0}, exact;

    bytes_add(&b, o->image.data, o->image.n);
    bytes_add(&b, o->image.data, 1 + pick(r, 64));
    exact = bytes_exact(b.data, b.n);
    bytes_free(&b);
    return exact;
}

static void put32(unsigned char *p, uint64_t v)
{
    for (size_t i = 0; i < 4; i++) {
        p[i] = (unsigned char)(v >> (8 * i));
    }
}

/* Offset in the image of row i of a directory that archive_build wrote. */
static size_t row_of(const archive *a, size_t i)
{
    size_t at = a->directory;

    for (size_t k = 0; k < i; k++) {
        at += 46 + strlen(a->entries[k].name);
    }
    return at;
}

/* An entry grows over those behind it, in both of its headers and with the right CRC-32. */
static bytes overlap_the_next(const original *o, moe_random *r)
{
    archive a = archive_of(&o->image);
    bytes b = archive_build(&a);
    const size_t i = pick(r, a.n_entries - 1);
    const size_t begin = a.entries[i].offset + 30 + strlen(a.entries[i].name);
    const size_t n = a.entries[i].n + 1 + pick(r, a.directory - begin - a.entries[i].n);
    unsigned char *local = b.data + a.entries[i].offset, *row = b.data + row_of(&a, i);
    const uint32_t crc = crc32_slow(b.data + begin, n);

    put32(local + 14, crc);
    put32(local + 18, n);
    put32(local + 22, n);
    put32(row + 16, crc);
    put32(row + 20, n);
    put32(row + 24, n);
    return b;
}

/* Two rows of the directory name one header. */
static bytes share_a_header(const original *o, moe_random *r)
{
    archive a = archive_of(&o->image);
    bytes b;

    const size_t i = pick(r, a.n_entries), k = (i + 1 + pick(r, a.n_entries - 1)) % a.n_entries;
    b = archive_build(&a);
    put32(b.data + row_of(&a, i) + 42, a.entries[k].offset);
    return b;
}

static bytes repeat_a_name(const original *o, moe_random *r)
{
    archive a = archive_of(&o->image);

    a.entries[a.n_entries] = a.entries[pick(r, a.n_entries)];
    a.n_entries++;
    return archive_build(&a);
}

static bytes name_a_place_outside(const original *o, moe_random *r)
{
    static const char *const prefixes[] = {"/", "../", "a/../", "./", "a//", "..\\", "a/..", "\x01", "\xff", ""};
    archive a = archive_of(&o->image);
    archive_entry *m = &a.entries[a.n_entries++];

    *m = a.entries[0];
    snprintf(m->name, sizeof(m->name), "%s", prefixes[pick(r, MOE_COUNT(prefixes))]);
    if (m->name[0] != '\0' && m->name[strlen(m->name) - 1] != '.') {
        snprintf(m->name + strlen(m->name), 32, "x%zu", pick(r, 1000));
    }
    return archive_build(&a);
}

static bytes compress_or_encrypt(const original *o, moe_random *r)
{
    static const uint16_t methods[] = {1, 8, 9, 12, 14, 93, 99}, flags[] = {0x0001, 0x0010, 0x0020, 0x0040, 0x2000};
    archive a = archive_of(&o->image);
    archive_entry *m = &a.entries[pick(r, a.n_entries)];

    if (pick(r, 2) == 0) {
        m->method = methods[pick(r, MOE_COUNT(methods))];
    } else {
        m->flags = flags[pick(r, MOE_COUNT(flags))];
    }
    return archive_build(&a);
}

/* The storage has more or fewer bytes than the pickle says. */
static bytes resize_a_storage(const original *o, moe_random *r)
{
    archive a = archive_of(&o->image);
    archive_entry *m;
    size_t n;

    do {
        m = &a.entries[pick(r, a.n_entries)];
    } while (strstr(m->name, "/data/") == NULL || m->n == 0);
    n = m->n;
    unsigned char *data = calloc(2 * n + 1, 1);
    assert_non_null(data);
    memcpy(data, m->data, n);
    m->data = data;
    m->n = pick(r, 2) == 0 ? pick(r, n) : n + 1 + pick(r, n);
    bytes b = archive_build(&a);
    free(data);
    return b;
}

/* ------------------------------------------------------------------------------------------------ pickles */
/* The pickle with `n` bytes at `at` replaced, in an archive with the right CRC-32. */
static bytes splice(const original *o, size_t at, size_t n, const void *with, size_t n_with)
{
    bytes p = {0}, image;

    bytes_add(&p, o->pickle.data, at);
    bytes_add(&p, with, n_with);
    bytes_add(&p, o->pickle.data + at + n, o->pickle.n - at - n);
    image = archive_with_pickle(&o->image, p.data, p.n);
    bytes_free(&p);
    return image;
}

static size_t random_op(const original *o, moe_random *r)
{
    return o->ops[1 + pick(r, o->n_ops - 1)];
}

static bytes flip_in_the_pickle(const original *o, moe_random *r)
{
    const size_t at = pick(r, o->pickle.n);
    const unsigned char c = (unsigned char)(o->pickle.data[at] ^ (1u << pick(r, 8)));

    return splice(o, at, 1, &c, 1);
}

static bytes cut_the_pickle(const original *o, moe_random *r)
{
    const size_t at = pick(r, o->pickle.n);

    return splice(o, at, o->pickle.n - at, NULL, 0);
}

static const char understood[] = "\x80"
                                 "c.()t\x85\x86\x87qrhjXJKM\x8a\x88\x89}]aesubRQ";

static bytes another_known_opcode(const original *o, moe_random *r)
{
    const size_t at = random_op(o, r);

    return splice(o, at, 1, &understood[pick(r, sizeof(understood) - 1)], 1);
}

/* Any of the other 227: INST, OBJ, NEWOBJ, EXT1, STACK_GLOBAL, POP, DUP, LONG, BINBYTES, FRAME, NEXT_BUFFER, ... */
static bytes an_opcode_that_is_not_understood(const original *o, moe_random *r)
{
    unsigned char code;

    do {
        code = (unsigned char)pick(r, 256);
    } while (memchr(understood, code, sizeof(understood) - 1) != NULL);
    const size_t at = random_op(o, r), n = pick(r, 2);
    return splice(o, at, n, &code, 1);
}

static bytes drop_or_repeat_an_opcode(const original *o, moe_random *r)
{
    const size_t at = random_op(o, r), n = op_bytes(&o->pickle, at);

    return pick(r, 2) == 0 ? splice(o, at, n, NULL, 0) : splice(o, at, 0, o->pickle.data + at, n);
}

static const char *const evil[] = {
    "os\nsystem\n",
    "posix\nsystem\n",
    "nt\nsystem\n",
    "subprocess\nPopen\n",
    "builtins\neval\n",
    "builtins\nexec\n",
    "__builtin__\neval\n",
    "builtins\ngetattr\n",
    "torch\nload\n",
    "torch.hub\nload\n",
    "importlib\nimport_module\n",
    "torch._utils\n_rebuild_tensor\n",
    "torch\nOrderedDict\n",
    "collections\nCounter\n",
    "torch._utils\n_rebuild_tensor_v3\n",
    "torch\nFloatStorage \n",
    "\n\n",
    "torch.storage\n_load_from_bytes\n",
    "collections.\nOrderedDict\n",
    "TORCH\nFloatStorage\n",
    "pickle\nloads\n",
    "torch.jit\nload\n",
    "runpy\n_run_code\n",
    "torch\nQUInt8Storage\n",
};

/* c module name, before any opcode; half of them with a call behind it. */
static bytes ask_for_another_global(const original *o, moe_random *r)
{
    bytes op = {0}, image;
    const char *global = evil[pick(r, MOE_COUNT(evil))];

    bytes_add(&op, "c", 1);
    bytes_add(&op, global, strlen(global));
    if (pick(r, 2) == 0) {
        bytes_add(&op, "X\x02\0\0\0id\x85R", 9);
    }
    image = splice(o, random_op(o, r), 0, op.data, op.n);
    bytes_free(&op);
    return image;
}

/* A global that is there becomes another one. */
static bytes change_a_global(const original *o, moe_random *r)
{
    size_t at;
    bytes op = {0}, image;
    const char *global = evil[pick(r, MOE_COUNT(evil))];

    do {
        at = random_op(o, r);
    } while (o->pickle.data[at] != 'c');
    bytes_add(&op, "c", 1);
    bytes_add(&op, global, strlen(global));
    image = splice(o, at, op_bytes(&o->pickle, at), op.data, op.n);
    bytes_free(&op);
    return image;
}

static bool is_integer(unsigned char op)
{
    return op == 'K' || op == 'M' || op == 'J' || op == 0x8a;
}

static bytes put_integer(const original *o, size_t at, uint64_t v)
{
    unsigned char op[10] = {0x8a, 8};

    for (size_t i = 0; i < 8; i++) {
        op[2 + i] = (unsigned char)(v >> (8 * i));
    }
    return splice(o, at, op_bytes(&o->pickle, at), op, sizeof(op));
}

/* Sizes, strides, offsets, item counts, versions: any integer becomes another. */
static bytes change_an_integer(const original *o, moe_random *r)
{
    size_t at;

    do {
        at = random_op(o, r);
    } while (!is_integer(o->pickle.data[at]));
    return put_integer(o, at, pick(r, 2) == 0 ? pick(r, 300) : any_number(r));
}

/* The count of a storage's items: the integer before the tuple of a persistent id. */
static bytes change_an_item_count(const original *o, moe_random *r)
{
    size_t i, before;
    uint64_t v;

    do {
        i = 3 + pick(r, o->n_ops - 5);
    } while (o->pickle.data[o->ops[i]] != 't' ||
             (o->pickle.data[o->ops[i + 1]] != 'Q' && o->pickle.data[o->ops[i + 2]] != 'Q'));
    before = o->ops[i - 1];
    do {
        v = pick(r, 2) == 0 ? pick(r, 300) : any_number(r);
    } while (v == o->pickle.data[before + 1]); /* all of the originals are below 256 */
    return put_integer(o, before, v);
}

/* ------------------------------------------------------------------------------------------------ tests */
static void changed_archives_are_refused_or_give_the_same_tensors(void **state)
{
    (void)state;
    try_many("archive: one bit flipped", 2000, 1000000, flip_a_bit, REFUSED_OR_SAME);
    try_many("archive: a field overwritten", 1400, 2000000, set_a_field, REFUSED_OR_SAME);
}

static void dangerous_archives_are_refused(void **state)
{
    (void)state;
    try_many("archive: cut short", 600, 3000000, cut_short, REFUSED);
    try_many("archive: bytes behind its end", 100, 3100000, add_behind, REFUSED);
    try_many("archive: overlapping entries", 600, 3200000, overlap_the_next, REFUSED);
    try_many("archive: two entries at one place", 300, 3300000, share_a_header, REFUSED);
    try_many("archive: a name twice", 100, 3400000, repeat_a_name, REFUSED);
    try_many("archive: names outside of the archive", 200, 3500000, name_a_place_outside, REFUSED);
    try_many("archive: compressed or encrypted", 200, 3600000, compress_or_encrypt, REFUSED);
    try_many("archive: storages of another size", 400, 3700000, resize_a_storage, REFUSED);
}

static void changed_pickles_are_refused_or_give_tensors_within_their_storages(void **state)
{
    (void)state;
    try_many("pickle: one bit flipped", 1400, 4000000, flip_in_the_pickle, MAY_DIFFER);
    try_many("pickle: an opcode becomes another known one", 1000, 4100000, another_known_opcode, MAY_DIFFER);
    try_many("pickle: an opcode dropped or repeated", 600, 4200000, drop_or_repeat_an_opcode, MAY_DIFFER);
    try_many("pickle: sizes, strides, offsets", 1200, 4300000, change_an_integer, MAY_DIFFER);
}

static void dangerous_pickles_are_refused(void **state)
{
    (void)state;
    try_many("pickle: another global, called or not", 1000, 5000000, ask_for_another_global, REFUSED);
    try_many("pickle: a global becomes another", 300, 5100000, change_a_global, REFUSED);
    try_many("pickle: opcodes that are not understood", 800, 5200000, an_opcode_that_is_not_understood, REFUSED);
    try_many("pickle: cut short", 400, 5300000, cut_the_pickle, REFUSED);
    try_many("pickle: counts that the storage has not", 400, 5400000, change_an_item_count, REFUSED);
}

static void there_were_ten_thousand(void **state)
{
    (void)state;
    print_message("%zu tried, %zu refused, %zu the same tensors, %zu others within their storages\n", all.tried,
                  all.refused, all.same, all.other);
    assert_true(all.tried >= 10000);
}

static void what_is_changed_was_sound(void **state)
{
    (void)state;
    for (size_t version = 0; version < 2; version++) {
        original o = original_open(version);
        bytes image = change_nothing(&o);
        checkpoint_digest sum;
        moe_error err = {.text = ""};
        assert_ok(torch_file_sum(&image, &sum, &err), err);
        assert_memory_equal(&sum, &o.sum, sizeof(sum));
        bytes_free(&image);
        original_close(&o);
    }
}

/* --------------------------------------------------------------------------------------------- why they are refused */
static moe_status parse_pickle(const char *pickle, size_t n, moe_error *err)
{
    bytes b = bytes_exact(pickle, n);
    pickle_tensors t = {0};
    const moe_status status = pickle_parse(b.data, b.n, "file", &t, err);

    pickle_tensors_fini(&t);
    bytes_free(&b);
    return status;
}

#define PICKLE_OF(storage_numel, offset, sizes, strides)                                                               \
    "\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"               \
    "X\x01\0\0\0"                                                                                                      \
    "0X\x03\0\0\0cpu" storage_numel "tQ" offset sizes strides "\x89"                                                   \
    "ccollections\nOrderedDict\n)RtRs."

#define assert_pickle(pickle, expected, why)                                                                           \
    do {                                                                                                               \
        static const char text[] = pickle;                                                                             \
        moe_error reason = {.text = ""};                                                                               \
        assert_int_equal(parse_pickle(text, sizeof(text) - 1, &reason), expected);                                     \
        assert_contains(reason.text, why);                                                                             \
    } while (0)

static void a_view_within_its_storage_is_taken(void **state)
{
    (void)state;
    assert_pickle(PICKLE_OF("K\x06", "K\0", "K\x02K\x03\x86", "K\x03K\x01\x86"), MOE_OK, "");
}

static void a_view_beyond_its_storage_is_refused(void **state)
{
    (void)state;
    assert_pickle(PICKLE_OF("K\x06", "K\x01", "K\x02K\x03\x86", "K\x03K\x01\x86"), MOE_ERR_CORRUPT,
                  "beyond its storage");
}

static void strides_that_overflow_are_refused(void **state)
{
    (void)state;
    assert_pickle(PICKLE_OF("K\x06", "K\x01", "K\x03K\x02\x86", "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x01\x86"),
                  MOE_ERR_CORRUPT, "overflow");
}

static void a_shape_that_overflows_is_refused(void **state)
{
    (void)state;
    assert_pickle(PICKLE_OF("K\x06", "K\0", "\x8a\x08\0\0\0\0\0\0\0\x40K\x08\x86", "K\0K\0\x86"), MOE_ERR_CORRUPT,
                  "product of the shape overflows");
}

static void a_storage_whose_bytes_overflow_is_refused(void **state)
{
    (void)state;
    assert_pickle(PICKLE_OF("\x8a\x08\0\0\0\0\0\0\0\x7f", "K\0", "K\x02\x85", "K\x01\x85"), MOE_ERR_CORRUPT,
                  "bytes of the storage overflow");
}

static void a_negative_size_is_refused(void **state)
{
    (void)state;
    assert_pickle(PICKLE_OF("K\x06", "K\0", "J\xff\xff\xff\xff\x85", "K\x01\x85"), MOE_ERR_CORRUPT, "negative");
}

static void a_view_that_repeats_items_is_refused(void **state)
{
    (void)state;
    assert_pickle(PICKLE_OF("K\x06", "K\0", "K\x02K\x03\x86", "K\0K\x01\x86"), MOE_ERR_UNSUPPORTED, "stride 0");
}

static void a_global_is_named_and_not_run(void **state)
{
    (void)state;
    assert_pickle("\x80\x02"
                  "cos\nsystem\nX\x02\0\0\0id\x85R.",
                  MOE_ERR_DENIED, "global os.system");
}

static void a_storage_type_cannot_be_called(void **state)
{
    (void)state;
    assert_pickle("\x80\x02"
                  "ctorch\nFloatStorage\n)R.",
                  MOE_ERR_CORRUPT, "no function");
}

static void another_protocol_is_refused(void **state)
{
    (void)state;
    assert_pickle("\x80\x04}.", MOE_ERR_UNSUPPORTED, "protocol 2");
}

static void a_dictionary_of_something_else_is_refused(void **state)
{
    (void)state;
    assert_pickle("\x80\x02}X\x05\0\0\0epochK\x03s.", MOE_ERR_UNSUPPORTED,
                  "entry \"epoch\" is an integer, not a tensor");
}

static void a_pickle_that_names_a_far_memo_index_costs_nothing(void **state)
{
    (void)state;
    assert_pickle("\x80\x02}r\xff\xff\xff\xff.", MOE_ERR_CORRUPT, "memo index");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_changed_was_sound),
        cmocka_unit_test(changed_archives_are_refused_or_give_the_same_tensors),
        cmocka_unit_test(dangerous_archives_are_refused),
        cmocka_unit_test(changed_pickles_are_refused_or_give_tensors_within_their_storages),
        cmocka_unit_test(dangerous_pickles_are_refused),
        cmocka_unit_test(there_were_ten_thousand),
        cmocka_unit_test(a_view_within_its_storage_is_taken),
        cmocka_unit_test(a_view_beyond_its_storage_is_refused),
        cmocka_unit_test(strides_that_overflow_are_refused),
        cmocka_unit_test(a_shape_that_overflows_is_refused),
        cmocka_unit_test(a_storage_whose_bytes_overflow_is_refused),
        cmocka_unit_test(a_negative_size_is_refused),
        cmocka_unit_test(a_view_that_repeats_items_is_refused),
        cmocka_unit_test(a_global_is_named_and_not_run),
        cmocka_unit_test(a_storage_type_cannot_be_called),
        cmocka_unit_test(another_protocol_is_refused),
        cmocka_unit_test(a_dictionary_of_something_else_is_refused),
        cmocka_unit_test(a_pickle_that_names_a_far_memo_index_costs_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
