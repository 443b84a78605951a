/* The restricted pickle reader. A value is 16 bytes on a bounded stack; tuples, dictionaries, storages and tensors live
 * in arrays and are named by their index, so that no value owns anything and no cycle can be followed. */
#include "checkpoint/pickle_machine_priv.h"

#include <stdlib.h>
#include <string.h>

#define PROTOCOL        2
#define MAX_TUPLE_ITEMS (1u << 24) /* of all tuples together */
#define MAX_ENTRIES     (8u * CHECKPOINT_MAX_TENSORS)

static const char *const kind_names[] = {"a mark",  "a bool", "an integer",   "a string",  "a global",
                                         "a tuple", "a list", "a dictionary", "a storage", "a tensor"};

/* Entries of a dictionary in the order they came, chained through the array of all entries. */
typedef struct entry {
    pickle_value key, item;
    size_t next; /* index + 1; 0: the last */
} entry;

/* ------------------------------------------------------------------------------------------------ refusals */
moe_status pickle_refuse_as(const pickle_machine *m, moe_status status, const char *why)
{
    return moe_fail(m->err, status, "%.100s: data.pkl byte %zu, %s: %.240s", m->file, m->op_at, m->op_name, why);
}

moe_status pickle_refuse(const pickle_machine *m, const char *why)
{
    return pickle_refuse_as(m, MOE_ERR_CORRUPT, why);
}

moe_status pickle_refuse_kind(const pickle_machine *m, const char *what, pickle_kind found)
{
    char why[128];

    snprintf(why, sizeof(why), "%s is %s", what, kind_names[found]);
    return pickle_refuse(m, why);
}

/* Text of the file for a message: what is not printable ASCII becomes "?". */
const char *pickle_printable(char out[PICKLE_MAX_LINE + 1], const char *text, size_t n)
{
    size_t i = 0;

    for (; i < n && i < PICKLE_MAX_LINE; i++) {
        out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    }
    out[i] = '\0';
    return out;
}

/* ------------------------------------------------------------------------------------------------ arrays */
/* Room for one more of `size` bytes at the end; NULL after a refusal. */
void *pickle_array_add(pickle_machine *m, pickle_array *p, size_t size, size_t limit, moe_status *status)
{
    if (p->n == limit) {
        *status = pickle_refuse(m, "more values than a file of tensors can need");
        return NULL;
    }
    if (p->n == p->capacity) {
        const size_t capacity = p->capacity == 0 ? 64 : MOE_MIN(2 * p->capacity, limit);
        void *data = realloc(p->data, capacity * size);
        if (data == NULL) {
            *status = pickle_refuse_as(m, MOE_ERR_NO_MEMORY, "out of memory");
            return NULL;
        }
        p->data = data;
        p->capacity = capacity;
    }
    *status = MOE_OK;
    return (char *)p->data + size * p->n++;
}

static pickle_value *stack_at(const pickle_machine *m, size_t i)
{
    return (pickle_value *)m->stack.data + i;
}

const pickle_value *pickle_item_at(const pickle_machine *m, const pickle_value *tuple, size_t i)
{
    MOE_ASSERT(tuple->kind == V_TUPLE && i < tuple->n);
    return (const pickle_value *)m->items.data + tuple->as.index + i;
}

moe_status pickle_push(pickle_machine *m, pickle_value v)
{
    moe_status status;
    pickle_value *top = pickle_array_add(m, &m->stack, sizeof(v), PICKLE_MAX_STACK, &status);

    if (top != NULL) {
        *top = v;
    }
    return status;
}

/* A mark is no value: nothing but the opcodes that take everything above a mark may take it. */
moe_status pickle_pop(pickle_machine *m, pickle_value *out)
{
    if (m->stack.n == 0 || stack_at(m, m->stack.n - 1)->kind == V_MARK) {
        return pickle_refuse(m, "the stack holds nothing for it");
    }
    *out = *stack_at(m, --m->stack.n);
    return MOE_OK;
}

/* Index of the first value above the topmost mark. */
static moe_status above_mark(const pickle_machine *m, size_t *first_out)
{
    for (size_t i = m->stack.n; i > 0; i--) {
        if (stack_at(m, i - 1)->kind == V_MARK) {
            *first_out = i;
            return MOE_OK;
        }
    }
    return pickle_refuse(m, "the stack holds no mark");
}

/* ------------------------------------------------------------------------------------------- bytes behind an opcode */
static moe_status take(pickle_machine *m, size_t n, const unsigned char **out)
{
    if (n > m->n - m->at) {
        return pickle_refuse(m, "it reaches beyond the end of the pickle");
    }
    *out = m->bytes + m->at;
    m->at += n;
    return MOE_OK;
}

/* Little-endian, n <= 8 bytes. */
static moe_status take_number(pickle_machine *m, size_t n, uint64_t *out)
{
    const unsigned char *p = NULL;
    const moe_status status = take(m, n, &p);

    *out = 0;
    for (size_t i = 0; status == MOE_OK && i < n; i++) {
        *out |= (uint64_t)p[i] << (8 * i);
    }
    return status;
}

moe_status pickle_take_line(pickle_machine *m, const char **out, size_t *n_out)
{
    const char *line = (const char *)m->bytes + m->at;
    const char *end = memchr(line, '\n', MOE_MIN(m->n - m->at, PICKLE_MAX_LINE + 1));

    if (end == NULL) {
        return pickle_refuse(m, "its line has no end, or is longer than 128 bytes");
    }
    *out = line;
    *n_out = (size_t)(end - line);
    m->at += *n_out + 1;
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ plain values */
static moe_status op_proto(pickle_machine *m, size_t unused)
{
    uint64_t version = 0;
    const moe_status status = take_number(m, 1, &version);

    (void)unused;
    if (status == MOE_OK && (m->op_at != 0 || version != PROTOCOL)) {
        return pickle_refuse_as(m, MOE_ERR_UNSUPPORTED,
                                "not once, at the beginning, and protocol 2, as torch.save writes it");
    }
    return status;
}

static moe_status op_text(pickle_machine *m, size_t unused)
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
        return pickle_refuse(m, "the string is not UTF-8");
    }
    return pickle_push(m, (pickle_value){.kind = V_TEXT, .n = (uint32_t)n, .as.text = (const char *)text});
}

static moe_status op_number(pickle_machine *m, size_t bytes)
{
    uint64_t n = 0;
    const moe_status status = take_number(m, bytes, &n);

    return status == MOE_OK ? pickle_push(m, (pickle_value){.kind = V_INT, .as.number = (int64_t)n}) : status;
}

/* Signed numbers of 1 to 8 bytes. */
static moe_status op_signed(pickle_machine *m, size_t bytes)
{
    uint64_t n = 0;
    const moe_status status = take_number(m, bytes, &n);

    if (status != MOE_OK) {
        return status;
    }
    if (bytes > 0 && bytes < 8 && (n >> (8 * bytes - 1)) != 0) {
        n |= UINT64_MAX << (8 * bytes);
    }
    return pickle_push(m, (pickle_value){.kind = V_INT, .as.number = (int64_t)n});
}

static moe_status op_long1(pickle_machine *m, size_t unused)
{
    uint64_t n = 0;
    const moe_status status = take_number(m, 1, &n);

    (void)unused;
    if (status == MOE_OK && n > 8) {
        return pickle_refuse(m, "the integer has more than 64 bits");
    }
    return status == MOE_OK ? op_signed(m, (size_t)n) : status;
}

static moe_status op_bool(pickle_machine *m, size_t is_true)
{
    return pickle_push(m, (pickle_value){.kind = V_BOOL, .as.number = (int64_t)is_true});
}

/* ------------------------------------------------------------------------------------------------ memo */
/* Picklers number their values in order, from 0 or 1: an index far beyond those that were put is not theirs, and would
 * take memory that the file does not. */
#define MEMO_GAP 16

static moe_status op_put(pickle_machine *m, size_t index_bytes)
{
    uint64_t index = 0;
    moe_status status = take_number(m, index_bytes, &index);

    if (status != MOE_OK) {
        return status;
    }
    if (m->stack.n == 0 || stack_at(m, m->stack.n - 1)->kind == V_MARK) {
        return pickle_refuse(m, "the stack holds nothing for it");
    }
    if (index > m->memo.n + MEMO_GAP) {
        return pickle_refuse(m, "the memo index is beyond what this pickle can need");
    }
    while (status == MOE_OK && m->memo.n <= index) {
        pickle_value *free_place = pickle_array_add(m, &m->memo, sizeof(pickle_value), m->n, &status);
        if (free_place != NULL) {
            *free_place = (pickle_value){.kind = V_MARK}; /* nothing put there yet */
        }
    }
    if (status == MOE_OK) {
        ((pickle_value *)m->memo.data)[index] = *stack_at(m, m->stack.n - 1);
    }
    return status;
}

static moe_status op_get(pickle_machine *m, size_t index_bytes)
{
    uint64_t index = 0;
    const moe_status status = take_number(m, index_bytes, &index);

    if (status != MOE_OK) {
        return status;
    }
    if (index >= m->memo.n || ((pickle_value *)m->memo.data)[index].kind == V_MARK) {
        return pickle_refuse(m, "nothing was put at this memo index");
    }
    return pickle_push(m, ((pickle_value *)m->memo.data)[index]);
}

/* ------------------------------------------------------------------------------------------------ tuples, lists */
static moe_status op_mark(pickle_machine *m, size_t unused)
{
    (void)unused;
    return pickle_push(m, (pickle_value){.kind = V_MARK});
}

/* The values from first on become one tuple; with_mark: the mark below them goes too. */
static moe_status make_tuple(pickle_machine *m, size_t first, bool with_mark)
{
    const pickle_value tuple = {.kind = V_TUPLE, .n = (uint32_t)(m->stack.n - first), .as.index = m->items.n};
    moe_status status = MOE_OK;

    for (size_t i = first; i < m->stack.n; i++) {
        pickle_value *item = pickle_array_add(m, &m->items, sizeof(*item), MAX_TUPLE_ITEMS, &status);
        if (item == NULL) {
            return status;
        }
        *item = *stack_at(m, i);
    }
    m->stack.n = first - (with_mark ? 1 : 0);
    return pickle_push(m, tuple);
}

static moe_status op_tuple(pickle_machine *m, size_t unused)
{
    size_t first = 0;
    const moe_status status = above_mark(m, &first);

    (void)unused;
    return status == MOE_OK ? make_tuple(m, first, true) : status;
}

static moe_status op_short_tuple(pickle_machine *m, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (m->stack.n <= i || stack_at(m, m->stack.n - 1 - i)->kind == V_MARK) {
            return pickle_refuse(m, "the stack holds too little for it");
        }
    }
    return make_tuple(m, m->stack.n - n, false);
}

/* Nothing that is kept holds a list, so its items are dropped. */
static moe_status op_list(pickle_machine *m, size_t unused)
{
    (void)unused;
    return pickle_push(m, (pickle_value){.kind = V_LIST});
}

static moe_status expect_top(const pickle_machine *m, pickle_kind kind, const char *what)
{
    if (m->stack.n == 0) {
        return pickle_refuse(m, "the stack is empty");
    }
    const pickle_kind found = stack_at(m, m->stack.n - 1)->kind;
    return found == kind ? MOE_OK : pickle_refuse_kind(m, what, found);
}

static moe_status op_append(pickle_machine *m, size_t unused)
{
    pickle_value item = {0};
    const moe_status status = pickle_pop(m, &item);

    (void)unused;
    return status == MOE_OK ? expect_top(m, V_LIST, "what is appended to") : status;
}

static moe_status op_appends(pickle_machine *m, size_t unused)
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
moe_status pickle_op_dict(pickle_machine *m, size_t ordered)
{
    moe_status status;
    pickle_dict *d = pickle_array_add(m, &m->dicts, sizeof(*d), MAX_ENTRIES, &status);

    if (d == NULL) {
        return status;
    }
    *d = (pickle_dict){0};
    return pickle_push(m, (pickle_value){.kind = V_DICT, .n = (uint32_t)ordered, .as.index = m->dicts.n - 1});
}

static moe_status dict_add(pickle_machine *m, size_t index, const pickle_value *key, const pickle_value *item)
{
    moe_status status;
    entry *e;
    pickle_dict *d;

    if (key->kind != V_TEXT) {
        return pickle_refuse_kind(m, "a key of a dictionary", key->kind);
    }
    e = pickle_array_add(m, &m->entries, sizeof(*e), MAX_ENTRIES, &status);
    if (e == NULL) {
        return status;
    }
    *e = (entry){*key, *item, 0};
    d = (pickle_dict *)m->dicts.data + index;
    if (d->last != 0) {
        ((entry *)m->entries.data)[d->last - 1].next = m->entries.n;
    } else {
        d->first = m->entries.n;
    }
    d->last = m->entries.n;
    return MOE_OK;
}

static moe_status op_set_item(pickle_machine *m, size_t unused)
{
    pickle_value item = {0}, key = {0};
    moe_status status = pickle_pop(m, &item);

    (void)unused;
    if (status == MOE_OK) {
        status = pickle_pop(m, &key);
    }
    if (status == MOE_OK) {
        status = expect_top(m, V_DICT, "what an item is set in");
    }
    return status == MOE_OK ? dict_add(m, stack_at(m, m->stack.n - 1)->as.index, &key, &item) : status;
}

static moe_status op_set_items(pickle_machine *m, size_t unused)
{
    size_t first = 0;
    moe_status status = above_mark(m, &first);

    (void)unused;
    if (status != MOE_OK) {
        return status;
    }
    const size_t n = m->stack.n - first;
    m->stack.n = first - 1; /* the values stay in the array behind its end until something is pushed */
    status = expect_top(m, V_DICT, "what items are set in");
    if (status == MOE_OK && n % 2 != 0) {
        return pickle_refuse(m, "a key without an item");
    }
    for (size_t i = first; status == MOE_OK && i < first + n; i += 2) {
        status = dict_add(m, stack_at(m, first - 2)->as.index, stack_at(m, i), stack_at(m, i + 1));
    }
    return status;
}

/* Attributes of an ordered dictionary (a module's _metadata); they say nothing of tensors. */
static moe_status op_build(pickle_machine *m, size_t unused)
{
    pickle_value attributes = {0};
    moe_status status = pickle_pop(m, &attributes);

    (void)unused;
    if (status == MOE_OK && attributes.kind != V_DICT) {
        return pickle_refuse_kind(m, "the state that an object is built from", attributes.kind);
    }
    if (status == MOE_OK) {
        status = expect_top(m, V_DICT, "what is built");
    }
    if (status == MOE_OK && stack_at(m, m->stack.n - 1)->n == 0) {
        return pickle_refuse(m, "a plain dictionary has no attributes");
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ the whole */
static moe_status op_stop(pickle_machine *m, size_t unused)
{
    (void)unused;
    if (m->at != m->n) {
        return pickle_refuse(m, "bytes follow the end of the pickle");
    }
    m->stopped = true;
    if (m->stack.n != 1) {
        return pickle_refuse(m, "the stack does not hold exactly one result");
    }
    return expect_top(m, V_DICT, "the result");
}

/* The argument is what sets apart the opcodes that share a function: bytes that follow, items, a flag. */
static const struct opcode {
    const char *name;
    moe_status (*run)(pickle_machine *m, size_t argument);
    size_t argument;
} opcodes[256] = {
    [0x80] = {"PROTO", op_proto, 0},
    ['c'] = {"GLOBAL", pickle_op_global, 0},
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
    ['}'] = {"EMPTY_DICT", pickle_op_dict, 0},
    [']'] = {"EMPTY_LIST", op_list, 0},
    ['a'] = {"APPEND", op_append, 0},
    ['e'] = {"APPENDS", op_appends, 0},
    ['s'] = {"SETITEM", op_set_item, 0},
    ['u'] = {"SETITEMS", op_set_items, 0},
    ['b'] = {"BUILD", op_build, 0},
    ['R'] = {"REDUCE", pickle_op_reduce, 0},
    ['Q'] = {"BINPERSID", pickle_op_persistent_id, 0},
};

static moe_status run(pickle_machine *m)
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

static moe_status take_entry(const pickle_machine *m, const entry *e, pickle_tensor *out)
{
    char shown[PICKLE_MAX_LINE + 1];

    pickle_printable(shown, e->key.as.text, e->key.n);
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
static moe_status collect(const pickle_machine *m, pickle_tensors *out)
{
    const pickle_dict *root = (const pickle_dict *)m->dicts.data + stack_at(m, 0)->as.index;
    const entry *entries = m->entries.data;
    size_t n = 0;
    char shown[PICKLE_MAX_LINE + 1];

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
                            pickle_printable(shown, out->tensors[i].name, out->tensors[i].name_bytes));
        }
    }
    return MOE_OK;
}

moe_status pickle_parse(const void *bytes, size_t n, const char *file, pickle_tensors *out, moe_error *err)
{
    pickle_machine m = {.bytes = bytes, .n = n, .file = file, .err = err, .op_name = ""};
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
    const pickle_array *arrays[] = {&m.stack, &m.memo, &m.items, &m.dicts, &m.entries, &m.storages, &m.tensors};
    for (size_t i = 0; i < MOE_COUNT(arrays); i++) {
        free(arrays[i]->data);
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
