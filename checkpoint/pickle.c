/* The restricted pickle reader. A value is 16 bytes on a bounded stack; tuples, dictionaries, storages and tensors live
 * in pools and are named by their index, so that no value owns anything and no cycle can be followed. */
#include "checkpoint/pickle_priv.h"

#include <stdlib.h>
#include <string.h>

#define PROTOCOL        2
#define MAX_LINE        128u /* of a module or a global */
#define N_REBUILD_ARGS  6u
#define N_STORAGE_ID    5u
#define MAX_TUPLE_ITEMS (1u << 24) /* of all tuples together */
#define MAX_ENTRIES     (8u * CHECKPOINT_MAX_TENSORS)

typedef enum { V_MARK, V_BOOL, V_INT, V_TEXT, V_GLOBAL, V_TUPLE, V_LIST, V_DICT, V_STORAGE, V_TENSOR } value_kind;

static const char *const kind_names[] = {"a mark",  "a bool", "an integer",   "a string",  "a global",
                                         "a tuple", "a list", "a dictionary", "a storage", "a tensor"};

typedef struct value {
    uint8_t kind;
    uint32_t n; /* V_TEXT: bytes; V_TUPLE: items; V_DICT: 1 if made by OrderedDict */
    union {
        int64_t number;   /* V_BOOL, V_INT */
        const char *text; /* V_TEXT; borrowed from the pickle */
        size_t index;     /* V_GLOBAL: row of globals; V_TUPLE: first item; V_DICT, V_STORAGE, V_TENSOR: in its pool */
    } as;
} value;

typedef struct pool {
    void *data; /* owned */
    size_t n, capacity;
} pool;

/* Entries of a dictionary in the order they came, chained through the pool of all entries. */
typedef struct entry {
    value key, item;
    size_t next; /* index + 1; 0: the last */
} entry;

typedef struct dict {
    size_t first, last; /* index + 1; 0: empty */
} dict;

typedef struct storage {
    size_t global; /* the storage type */
    const char *key;
    size_t key_bytes, numel;
} storage;

typedef struct machine {
    const unsigned char *bytes;
    size_t n, at;
    size_t op_at; /* where the opcode that runs stands */
    const char *op_name;
    const char *file;
    moe_error *err;
    pool stack, memo, items, dicts, entries, storages, tensors;
    bool stopped;
} machine;

/* ------------------------------------------------------------------------------------------------ globals */
typedef enum { G_ORDERED_DICT, G_TENSOR, G_PARAMETER, G_STORAGE } global_kind;

static const struct global {
    const char *module, *name;
    global_kind kind;
    const char *dtype;
    size_t item_bytes;
} globals[] = {
    {"collections", "OrderedDict", G_ORDERED_DICT, NULL, 0},
    {"torch._utils", "_rebuild_tensor_v2", G_TENSOR, NULL, 0},
    {"torch._utils", "_rebuild_parameter", G_PARAMETER, NULL, 0},
    {"torch", "BFloat16Storage", G_STORAGE, "BF16", 2},
    {"torch", "HalfStorage", G_STORAGE, "F16", 2},
    {"torch", "FloatStorage", G_STORAGE, "F32", 4},
    {"torch", "DoubleStorage", G_STORAGE, "F64", 8},
    {"torch", "CharStorage", G_STORAGE, "I8", 1},
    {"torch", "ByteStorage", G_STORAGE, "U8", 1},
    {"torch", "ShortStorage", G_STORAGE, "I16", 2},
    {"torch", "IntStorage", G_STORAGE, "I32", 4},
    {"torch", "LongStorage", G_STORAGE, "I64", 8},
    {"torch", "BoolStorage", G_STORAGE, "BOOL", 1},
};

/* ------------------------------------------------------------------------------------------------ refusals */
static moe_status refuse_as(const machine *m, moe_status status, const char *why)
{
    return moe_fail(m->err, status, "%.100s: data.pkl byte %zu, %s: %.240s", m->file, m->op_at, m->op_name, why);
}

static moe_status refuse(const machine *m, const char *why)
{
    return refuse_as(m, MOE_ERR_CORRUPT, why);
}

static moe_status refuse_kind(const machine *m, const char *what, value_kind found)
{
    char why[128];

    snprintf(why, sizeof(why), "%s is %s", what, kind_names[found]);
    return refuse(m, why);
}

/* Text of the file for a message: what is not printable ASCII becomes "?". */
static const char *printable(char out[MAX_LINE + 1], const char *text, size_t n)
{
    size_t i = 0;

    for (; i < n && i < MAX_LINE; i++) {
        out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    }
    out[i] = '\0';
    return out;
}

/* ------------------------------------------------------------------------------------------------ pools and stack */
/* Room for one more of `size` bytes at the end; NULL after a refusal. */
static void *pool_add(machine *m, pool *p, size_t size, size_t limit, moe_status *status)
{
    if (p->n == limit) {
        *status = refuse(m, "more values than a file of tensors can need");
        return NULL;
    }
    if (p->n == p->capacity) {
        const size_t capacity = p->capacity == 0 ? 64 : MOE_MIN(2 * p->capacity, limit);
        void *data = realloc(p->data, capacity * size);
        if (data == NULL) {
            *status = refuse_as(m, MOE_ERR_NO_MEMORY, "out of memory");
            return NULL;
        }
        p->data = data;
        p->capacity = capacity;
    }
    *status = MOE_OK;
    return (char *)p->data + size * p->n++;
}

static value *stack_at(const machine *m, size_t i)
{
    return (value *)m->stack.data + i;
}

static const value *item_at(const machine *m, const value *tuple, size_t i)
{
    MOE_ASSERT(tuple->kind == V_TUPLE && i < tuple->n);
    return (const value *)m->items.data + tuple->as.index + i;
}

static moe_status push(machine *m, value v)
{
    moe_status status;
    value *top = pool_add(m, &m->stack, sizeof(v), PICKLE_MAX_STACK, &status);

    if (top != NULL) {
        *top = v;
    }
    return status;
}

/* A mark is no value: nothing but the opcodes that take everything above a mark may take it. */
static moe_status pop(machine *m, value *out)
{
    if (m->stack.n == 0 || stack_at(m, m->stack.n - 1)->kind == V_MARK) {
        return refuse(m, "the stack holds nothing for it");
    }
    *out = *stack_at(m, --m->stack.n);
    return MOE_OK;
}

/* Index of the first value above the topmost mark. */
static moe_status above_mark(const machine *m, size_t *first_out)
{
    for (size_t i = m->stack.n; i > 0; i--) {
        if (stack_at(m, i - 1)->kind == V_MARK) {
            *first_out = i;
            return MOE_OK;
        }
    }
    return refuse(m, "the stack holds no mark");
}

/* ------------------------------------------------------------------------------------------------ bytes behind an
 * opcode */
static moe_status take(machine *m, size_t n, const unsigned char **out)
{
    if (n > m->n - m->at) {
        return refuse(m, "it reaches beyond the end of the pickle");
    }
    *out = m->bytes + m->at;
    m->at += n;
    return MOE_OK;
}

/* Little-endian, n <= 8 bytes. */
static moe_status take_number(machine *m, size_t n, uint64_t *out)
{
    const unsigned char *p = NULL;
    const moe_status status = take(m, n, &p);

    *out = 0;
    for (size_t i = 0; status == MOE_OK && i < n; i++) {
        *out |= (uint64_t)p[i] << (8 * i);
    }
    return status;
}

static moe_status take_line(machine *m, const char **out, size_t *n_out)
{
    const char *line = (const char *)m->bytes + m->at;
    const char *end = memchr(line, '\n', MOE_MIN(m->n - m->at, MAX_LINE + 1));

    if (end == NULL) {
        return refuse(m, "its line has no end, or is longer than 128 bytes");
    }
    *out = line;
    *n_out = (size_t)(end - line);
    m->at += *n_out + 1;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ plain values */
static moe_status op_proto(machine *m, size_t unused)
{
    uint64_t version = 0;
    const moe_status status = take_number(m, 1, &version);

    (void)unused;
    if (status == MOE_OK && (m->op_at != 0 || version != PROTOCOL)) {
        return refuse_as(m, MOE_ERR_UNSUPPORTED, "not once, at the beginning, and protocol 2, as torch.save writes it");
    }
    return status;
}

static moe_status op_global(machine *m, size_t unused)
{
    const char *module = NULL, *name = NULL;
    size_t module_bytes = 0, name_bytes = 0;
    char shown_module[MAX_LINE + 1], shown_name[MAX_LINE + 1];
    moe_status status = take_line(m, &module, &module_bytes);

    (void)unused;
    if (status == MOE_OK) {
        status = take_line(m, &name, &name_bytes);
    }
    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < MOE_COUNT(globals); i++) {
        if (strlen(globals[i].module) == module_bytes && memcmp(globals[i].module, module, module_bytes) == 0 &&
            strlen(globals[i].name) == name_bytes && memcmp(globals[i].name, name, name_bytes) == 0) {
            return push(m, (value){.kind = V_GLOBAL, .as.index = i});
        }
    }
    return moe_fail(m->err, MOE_ERR_DENIED,
                    "%.100s: data.pkl byte %zu asks for the global %.80s.%.80s, which is not one of those that tensors "
                    "need; a pickle "
                    "is a program, and it is not run",
                    m->file, m->op_at, printable(shown_module, module, module_bytes),
                    printable(shown_name, name, name_bytes));
}

static moe_status op_text(machine *m, size_t unused)
{
    uint64_t n = 0;
    const unsigned char *text = NULL;
    moe_status status = take_number(m, 4, &n);

    (void)unused;
    if (status == MOE_OK) {
        status = take(m, (size_t)n, &text);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (moe_utf8_valid_prefix(text, (size_t)n) != n) {
        return refuse(m, "the string is not UTF-8");
    }
    return push(m, (value){.kind = V_TEXT, .n = (uint32_t)n, .as.text = (const char *)text});
}

static moe_status op_number(machine *m, size_t bytes)
{
    uint64_t n = 0;
    const moe_status status = take_number(m, bytes, &n);

    return status == MOE_OK ? push(m, (value){.kind = V_INT, .as.number = (int64_t)n}) : status;
}

/* Signed numbers of 1 to 8 bytes. */
static moe_status op_signed(machine *m, size_t bytes)
{
    uint64_t n = 0;
    const moe_status status = take_number(m, bytes, &n);

    if (status != MOE_OK) {
        return status;
    }
    if (bytes > 0 && bytes < 8 && (n >> (8 * bytes - 1)) != 0) {
        n |= UINT64_MAX << (8 * bytes);
    }
    return push(m, (value){.kind = V_INT, .as.number = (int64_t)n});
}

static moe_status op_long1(machine *m, size_t unused)
{
    uint64_t n = 0;
    const moe_status status = take_number(m, 1, &n);

    (void)unused;
    if (status == MOE_OK && n > 8) {
        return refuse(m, "the integer has more than 64 bits");
    }
    return status == MOE_OK ? op_signed(m, (size_t)n) : status;
}

static moe_status op_bool(machine *m, size_t is_true)
{
    return push(m, (value){.kind = V_BOOL, .as.number = (int64_t)is_true});
}

/* ------------------------------------------------------------------------------------------------ memo */
/* A pickle of n bytes cannot name n values: the index is bounded by the file itself. */
static moe_status op_put(machine *m, size_t index_bytes)
{
    uint64_t index = 0;
    moe_status status = take_number(m, index_bytes, &index);

    if (status != MOE_OK) {
        return status;
    }
    if (m->stack.n == 0 || stack_at(m, m->stack.n - 1)->kind == V_MARK) {
        return refuse(m, "the stack holds nothing for it");
    }
    if (index >= m->n) {
        return refuse(m, "the memo index is beyond what this pickle can need");
    }
    while (status == MOE_OK && m->memo.n <= index) {
        value *free_place = pool_add(m, &m->memo, sizeof(value), m->n, &status);
        if (free_place != NULL) {
            *free_place = (value){.kind = V_MARK}; /* nothing put there yet */
        }
    }
    if (status == MOE_OK) {
        ((value *)m->memo.data)[index] = *stack_at(m, m->stack.n - 1);
    }
    return status;
}

static moe_status op_get(machine *m, size_t index_bytes)
{
    uint64_t index = 0;
    const moe_status status = take_number(m, index_bytes, &index);

    if (status != MOE_OK) {
        return status;
    }
    if (index >= m->memo.n || ((value *)m->memo.data)[index].kind == V_MARK) {
        return refuse(m, "nothing was put at this memo index");
    }
    return push(m, ((value *)m->memo.data)[index]);
}

/* ------------------------------------------------------------------------------------------------ tuples, lists */
static moe_status op_mark(machine *m, size_t unused)
{
    (void)unused;
    return push(m, (value){.kind = V_MARK});
}

/* The values from first on become one tuple; with_mark: the mark below them goes too. */
static moe_status make_tuple(machine *m, size_t first, bool with_mark)
{
    const value tuple = {.kind = V_TUPLE, .n = (uint32_t)(m->stack.n - first), .as.index = m->items.n};
    moe_status status = MOE_OK;

    for (size_t i = first; i < m->stack.n; i++) {
        value *item = pool_add(m, &m->items, sizeof(*item), MAX_TUPLE_ITEMS, &status);
        if (item == NULL) {
            return status;
        }
        *item = *stack_at(m, i);
    }
    m->stack.n = first - (with_mark ? 1 : 0);
    return push(m, tuple);
}

static moe_status op_tuple(machine *m, size_t unused)
{
    size_t first = 0;
    const moe_status status = above_mark(m, &first);

    (void)unused;
    return status == MOE_OK ? make_tuple(m, first, true) : status;
}

static moe_status op_short_tuple(machine *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (m->stack.n <= i || stack_at(m, m->stack.n - 1 - i)->kind == V_MARK) {
            return refuse(m, "the stack holds too little for it");
        }
    }
    return make_tuple(m, m->stack.n - n, false);
}

/* Nothing that is kept holds a list, so its items are dropped. */
static moe_status op_list(machine *m, size_t unused)
{
    (void)unused;
    return push(m, (value){.kind = V_LIST});
}

static moe_status expect_top(const machine *m, value_kind kind, const char *what)
{
    if (m->stack.n == 0) {
        return refuse(m, "the stack is empty");
    }
    const value_kind found = stack_at(m, m->stack.n - 1)->kind;
    return found == kind ? MOE_OK : refuse_kind(m, what, found);
}

static moe_status op_append(machine *m, size_t unused)
{
    value item = {0};
    const moe_status status = pop(m, &item);

    (void)unused;
    return status == MOE_OK ? expect_top(m, V_LIST, "what is appended to") : status;
}

static moe_status op_appends(machine *m, size_t unused)
{
    size_t first = 0;
    const moe_status status = above_mark(m, &first);

    (void)unused;
    if (status != MOE_OK) {
        return status;
    }
    m->stack.n = first - 1;
    return expect_top(m, V_LIST, "what is appended to");
}

/* ------------------------------------------------------------------------------------------------ dictionaries */
static moe_status op_dict(machine *m, size_t ordered)
{
    moe_status status;
    dict *d = pool_add(m, &m->dicts, sizeof(*d), MAX_ENTRIES, &status);

    if (d == NULL) {
        return status;
    }
    *d = (dict){0};
    return push(m, (value){.kind = V_DICT, .n = (uint32_t)ordered, .as.index = m->dicts.n - 1});
}

static moe_status dict_add(machine *m, size_t index, const value *key, const value *item)
{
    moe_status status;
    entry *e;
    dict *d;

    if (key->kind != V_TEXT) {
        return refuse_kind(m, "a key of a dictionary", key->kind);
    }
    e = pool_add(m, &m->entries, sizeof(*e), MAX_ENTRIES, &status);
    if (e == NULL) {
        return status;
    }
    *e = (entry){*key, *item, 0};
    d = (dict *)m->dicts.data + index;
    if (d->last != 0) {
        ((entry *)m->entries.data)[d->last - 1].next = m->entries.n;
    } else {
        d->first = m->entries.n;
    }
    d->last = m->entries.n;
    return MOE_OK;
}

static moe_status op_set_item(machine *m, size_t unused)
{
    value item = {0}, key = {0};
    moe_status status = pop(m, &item);

    (void)unused;
    if (status == MOE_OK) {
        status = pop(m, &key);
    }
    if (status == MOE_OK) {
        status = expect_top(m, V_DICT, "what an item is set in");
    }
    return status == MOE_OK ? dict_add(m, stack_at(m, m->stack.n - 1)->as.index, &key, &item) : status;
}

static moe_status op_set_items(machine *m, size_t unused)
{
    size_t first = 0;
    moe_status status = above_mark(m, &first);

    (void)unused;
    if (status != MOE_OK) {
        return status;
    }
    const size_t n = m->stack.n - first;
    m->stack.n = first - 1; /* the values stay in the pool behind its end until something is pushed */
    status = expect_top(m, V_DICT, "what items are set in");
    if (status == MOE_OK && n % 2 != 0) {
        return refuse(m, "a key without an item");
    }
    for (size_t i = first; status == MOE_OK && i < first + n; i += 2) {
        status = dict_add(m, stack_at(m, first - 2)->as.index, stack_at(m, i), stack_at(m, i + 1));
    }
    return status;
}

/* Attributes of an ordered dictionary (a module's _metadata); they say nothing of tensors. */
static moe_status op_build(machine *m, size_t unused)
{
    value attributes = {0};
    moe_status status = pop(m, &attributes);

    (void)unused;
    if (status == MOE_OK && attributes.kind != V_DICT) {
        return refuse_kind(m, "the state that an object is built from", attributes.kind);
    }
    if (status == MOE_OK) {
        status = expect_top(m, V_DICT, "what is built");
    }
    if (status == MOE_OK && stack_at(m, m->stack.n - 1)->n == 0) {
        return refuse(m, "a plain dictionary has no attributes");
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ storages, tensors */
/* ('storage', type, key, location, number of items) */
static moe_status op_persistent_id(machine *m, size_t unused)
{
    value id = {0};
    const value *item;
    storage *s;
    moe_status status = pop(m, &id);

    (void)unused;
    if (status != MOE_OK) {
        return status;
    }
    if (id.kind != V_TUPLE || id.n != N_STORAGE_ID) {
        return refuse(m, "the persistent id is not a tuple of 5");
    }
    item = item_at(m, &id, 0);
    if (item[0].kind != V_TEXT || item[0].n != 7 || memcmp(item[0].as.text, "storage", 7) != 0 ||
        item[1].kind != V_GLOBAL || globals[item[1].as.index].kind != G_STORAGE || item[2].kind != V_TEXT ||
        item[2].n == 0 || item[3].kind != V_TEXT || item[4].kind != V_INT || item[4].as.number < 0) {
        return refuse(m, "the persistent id is not ('storage', storage type, key, location, number of items)");
    }
    s = pool_add(m, &m->storages, sizeof(*s), CHECKPOINT_MAX_TENSORS, &status);
    if (s == NULL) {
        return status;
    }
    *s = (storage){item[1].as.index, item[2].as.text, item[2].n, (size_t)item[4].as.number};
    return push(m, (value){.kind = V_STORAGE, .as.index = m->storages.n - 1});
}

/* A tuple of sizes, none negative. */
static moe_status read_sizes(const machine *m, const value *tuple, const char *what, size_t out[], size_t *n_out)
{
    if (tuple->kind != V_TUPLE) {
        return refuse_kind(m, what, tuple->kind);
    }
    if (tuple->n > CHECKPOINT_MAX_RANK) {
        return refuse(m, "a tensor of a rank over 8");
    }
    for (size_t i = 0; i < tuple->n; i++) {
        const value *size = item_at(m, tuple, i);
        if (size->kind != V_INT || size->as.number < 0) {
            return refuse(m, "a size or stride is no integer, or negative");
        }
        out[i] = (size_t)size->as.number;
    }
    *n_out = tuple->n;
    return MOE_OK;
}

/* The last item of the view lies in the storage, and the view has no more items than the storage. */
static moe_status check_view(const machine *m, pickle_tensor *t)
{
    size_t last = t->offset, storage_bytes, step;

    t->numel = 1;
    if (__builtin_mul_overflow(t->storage_numel, t->item_bytes, &storage_bytes)) {
        return refuse(m, "the bytes of the storage overflow");
    }
    for (size_t i = 0; i < t->rank; i++) {
        if (__builtin_mul_overflow(t->numel, t->shape[i], &t->numel)) {
            return refuse(m, "the product of the shape overflows");
        }
    }
    if (t->numel > t->storage_numel || t->offset > t->storage_numel) {
        return refuse(m, "the tensor has more items than its storage, or begins behind it");
    }
    for (size_t i = 0; t->numel > 0 && i < t->rank; i++) {
        if (t->shape[i] > 1 && t->stride[i] == 0) {
            return refuse_as(m, MOE_ERR_UNSUPPORTED, "the tensor repeats its items (stride 0)");
        }
        if (__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &step) || __builtin_add_overflow(last, step, &last)) {
            return refuse(m, "offset and strides overflow");
        }
    }
    if (t->numel > 0 && last >= t->storage_numel) {
        return refuse(m, "the tensor reaches beyond its storage");
    }
    return MOE_OK;
}

/* (storage, offset, size, stride, requires_grad, backward hooks) */
static moe_status rebuild_tensor(machine *m, const value *args)
{
    pickle_tensor t = {0};
    size_t n_strides = 0;
    moe_status status;
    pickle_tensor *place;
    const value *arg;

    if (args->n != N_REBUILD_ARGS) {
        return refuse_as(m, MOE_ERR_UNSUPPORTED,
                         "a tensor is rebuilt from 6 values (not conjugated, negated or of a subclass)");
    }
    arg = item_at(m, args, 0);
    if (arg[0].kind != V_STORAGE || arg[1].kind != V_INT || arg[1].as.number < 0 || arg[4].kind != V_BOOL ||
        arg[5].kind != V_DICT || ((const dict *)m->dicts.data)[arg[5].as.index].first != 0) {
        return refuse(m, "the values are not (storage, offset, size, stride, bool, empty dictionary)");
    }
    const storage *s = (const storage *)m->storages.data + arg[0].as.index;
    t.key = s->key;
    t.key_bytes = s->key_bytes;
    t.dtype = globals[s->global].dtype;
    t.item_bytes = globals[s->global].item_bytes;
    t.storage_numel = s->numel;
    t.offset = (size_t)arg[1].as.number;
    status = read_sizes(m, &arg[2], "the size of a tensor", t.shape, &t.rank);
    if (status == MOE_OK) {
        status = read_sizes(m, &arg[3], "the stride of a tensor", t.stride, &n_strides);
    }
    if (status == MOE_OK && n_strides != t.rank) {
        return refuse(m, "size and stride differ in length");
    }
    if (status == MOE_OK) {
        status = check_view(m, &t);
    }
    if (status != MOE_OK) {
        return status;
    }
    place = pool_add(m, &m->tensors, sizeof(*place), CHECKPOINT_MAX_TENSORS, &status);
    if (place == NULL) {
        return status;
    }
    *place = t;
    return push(m, (value){.kind = V_TENSOR, .as.index = m->tensors.n - 1});
}

/* (tensor, requires_grad, backward hooks): the tensor itself */
static moe_status rebuild_parameter(machine *m, const value *args)
{
    if (args->n != 3 || item_at(m, args, 0)->kind != V_TENSOR || item_at(m, args, 1)->kind != V_BOOL ||
        item_at(m, args, 2)->kind != V_DICT) {
        return refuse(m, "the values are not (tensor, bool, dictionary)");
    }
    return push(m, *item_at(m, args, 0));
}

static moe_status op_reduce(machine *m, size_t unused)
{
    value args = {0}, function = {0};
    moe_status status = pop(m, &args);

    (void)unused;
    if (status == MOE_OK) {
        status = pop(m, &function);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (args.kind != V_TUPLE || function.kind != V_GLOBAL) {
        return refuse(m, "not a global and its tuple of values");
    }
    switch (globals[function.as.index].kind) {
    case G_ORDERED_DICT:
        return args.n == 0 ? op_dict(m, 1) : refuse(m, "an ordered dictionary made from values");
    case G_TENSOR:
        return rebuild_tensor(m, &args);
    case G_PARAMETER:
        return rebuild_parameter(m, &args);
    case G_STORAGE:
        break;
    }
    return refuse(m, "a storage type is no function");
}

/* ------------------------------------------------------------------------------------------------ the whole */
static moe_status op_stop(machine *m, size_t unused)
{
    (void)unused;
    if (m->at != m->n) {
        return refuse(m, "bytes follow the end of the pickle");
    }
    m->stopped = true;
    if (m->stack.n != 1) {
        return refuse(m, "the stack does not hold exactly one result");
    }
    return expect_top(m, V_DICT, "the result");
}

/* The argument is what sets apart the opcodes that share a function: bytes that follow, items, a flag. */
static const struct opcode {
    const char *name;
    moe_status (*run)(machine *m, size_t argument);
    size_t argument;
} opcodes[256] = {
    [0x80] = {"PROTO", op_proto, 0},
    ['c'] = {"GLOBAL", op_global, 0},
    ['.'] = {"STOP", op_stop, 0},
    ['('] = {"MARK", op_mark, 0},
    [')'] = {"EMPTY_TUPLE", op_short_tuple, 0},
    ['t'] = {"TUPLE", op_tuple, 0},
    [0x85] = {"TUPLE1", op_short_tuple, 1},
    [0x86] = {"TUPLE2", op_short_tuple, 2},
    [0x87] = {"TUPLE3", op_short_tuple, 3},
    ['q'] = {"BINPUT", op_put, 1},
    ['r'] = {"LONG_BINPUT", op_put, 4},
    ['h'] = {"BINGET", op_get, 1},
    ['j'] = {"LONG_BINGET", op_get, 4},
    ['X'] = {"BINUNICODE", op_text, 0},
    ['J'] = {"BININT", op_signed, 4},
    ['K'] = {"BININT1", op_number, 1},
    ['M'] = {"BININT2", op_number, 2},
    [0x8a] = {"LONG1", op_long1, 0},
    [0x88] = {"NEWTRUE", op_bool, 1},
    [0x89] = {"NEWFALSE", op_bool, 0},
    ['}'] = {"EMPTY_DICT", op_dict, 0},
    [']'] = {"EMPTY_LIST", op_list, 0},
    ['a'] = {"APPEND", op_append, 0},
    ['e'] = {"APPENDS", op_appends, 0},
    ['s'] = {"SETITEM", op_set_item, 0},
    ['u'] = {"SETITEMS", op_set_items, 0},
    ['b'] = {"BUILD", op_build, 0},
    ['R'] = {"REDUCE", op_reduce, 0},
    ['Q'] = {"BINPERSID", op_persistent_id, 0},
};

static moe_status run(machine *m)
{
    while (!m->stopped) {
        if (m->at == m->n) {
            return moe_fail(m->err, MOE_ERR_CORRUPT, "%.100s: data.pkl ends without STOP", m->file);
        }
        m->op_at = m->at;
        const unsigned char code = m->bytes[m->at++];
        if (opcodes[code].run == NULL || (m->op_at == 0 && code != 0x80)) {
            return moe_fail(m->err, MOE_ERR_CORRUPT,
                            "%.100s: data.pkl byte %zu: opcode 0x%02x is not one that is understood there", m->file,
                            m->op_at, (unsigned)code);
        }
        m->op_name = opcodes[code].name;
        const moe_status status = opcodes[code].run(m, opcodes[code].argument);
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

static int by_name(const void *a, const void *b)
{
    const pickle_tensor *x = a, *y = b;
    const int order = memcmp(x->name, y->name, MOE_MIN(x->name_bytes, y->name_bytes));

    return order != 0 ? order : x->name_bytes < y->name_bytes ? -1 : x->name_bytes > y->name_bytes;
}

static moe_status take_entry(const machine *m, const entry *e, pickle_tensor *out)
{
    char shown[MAX_LINE + 1];

    printable(shown, e->key.as.text, e->key.n);
    if (e->item.kind != V_TENSOR) {
        return moe_fail(m->err, MOE_ERR_UNSUPPORTED, "%.100s: entry \"%s\" is %s, not a tensor", m->file, shown,
                        kind_names[e->item.kind]);
    }
    if (e->key.n == 0 || e->key.n > CHECKPOINT_MAX_NAME || memchr(e->key.as.text, '\0', e->key.n) != NULL) {
        return moe_fail(m->err, MOE_ERR_CORRUPT, "%.100s: tensor \"%s\": its name has %u bytes (limit %d) or a NUL",
                        m->file, shown, (unsigned)e->key.n, CHECKPOINT_MAX_NAME);
    }
    *out = ((const pickle_tensor *)m->tensors.data)[e->item.as.index];
    out->name = e->key.as.text;
    out->name_bytes = e->key.n;
    return MOE_OK;
}

/* The one result, as tensors in name order. */
static moe_status collect(const machine *m, pickle_tensors *out)
{
    const dict *root = (const dict *)m->dicts.data + stack_at(m, 0)->as.index;
    const entry *entries = m->entries.data;
    size_t n = 0;
    char shown[MAX_LINE + 1];

    for (size_t i = root->first; i != 0; i = entries[i - 1].next) {
        n++;
    }
    if (n == 0 || n > CHECKPOINT_MAX_TENSORS) {
        return moe_fail(m->err, MOE_ERR_CORRUPT, "%.100s: %zu tensors, expected 1 .. %u", m->file, n,
                        CHECKPOINT_MAX_TENSORS);
    }
    out->tensors = calloc(n, sizeof(*out->tensors));
    if (out->tensors == NULL) {
        return moe_fail(m->err, MOE_ERR_NO_MEMORY, "%.100s: no memory for %zu tensors", m->file, n);
    }
    for (size_t i = root->first; i != 0; i = entries[i - 1].next) {
        const moe_status status = take_entry(m, &entries[i - 1], &out->tensors[out->n_tensors]);
        if (status != MOE_OK) {
            return status;
        }
        out->n_tensors++;
    }
    qsort(out->tensors, n, sizeof(*out->tensors), by_name);
    for (size_t i = 1; i < n; i++) {
        if (by_name(&out->tensors[i - 1], &out->tensors[i]) == 0) {
            return moe_fail(m->err, MOE_ERR_CORRUPT, "%.100s: tensor \"%s\" is there twice", m->file,
                            printable(shown, out->tensors[i].name, out->tensors[i].name_bytes));
        }
    }
    return MOE_OK;
}

moe_status pickle_parse(const void *bytes, size_t n, const char *file, pickle_tensors *out, moe_error *err)
{
    machine m = {.bytes = bytes, .n = n, .file = file, .err = err, .op_name = ""};
    pickle_tensors tensors = {0};
    moe_status status;

    if (n == 0 || n > PICKLE_MAX_BYTES) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%.100s: data.pkl has %zu bytes, expected 1 .. %u", file, n,
                        PICKLE_MAX_BYTES);
    }
    status = run(&m);
    if (status == MOE_OK) {
        status = collect(&m, &tensors);
    }
    const pool *pools[] = {&m.stack, &m.memo, &m.items, &m.dicts, &m.entries, &m.storages, &m.tensors};
    for (size_t i = 0; i < MOE_COUNT(pools); i++) {
        free(pools[i]->data);
    }
    if (status != MOE_OK) {
        pickle_tensors_fini(&tensors);
        return status;
    }
    *out = tensors;
    return MOE_OK;
}

void pickle_tensors_fini(pickle_tensors *t)
{
    free(t->tensors);
    *t = (pickle_tensors){0};
}
