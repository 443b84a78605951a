/* What a pickle may ask for: a list of globals, storages by their key, tensors as views of them. */
#include "checkpoint/pickle_machine_priv.h"

#include <string.h>

#define N_REBUILD_ARGS 6u
#define N_STORAGE_ID   5u

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

moe_status pickle_op_global(pickle_machine *m, size_t unused)
{
    const char *module = NULL, *name = NULL;
    size_t module_bytes = 0, name_bytes = 0;
    char shown_module[PICKLE_MAX_LINE + 1], shown_name[PICKLE_MAX_LINE + 1];
    moe_status status = pickle_take_line(m, &module, &module_bytes);

    (void)unused;
    if (status == MOE_OK) {
        status = pickle_take_line(m, &name, &name_bytes);
    }
    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < MOE_COUNT(globals); i++) {
        if (strlen(globals[i].module) == module_bytes && memcmp(globals[i].module, module, module_bytes) == 0 &&
            strlen(globals[i].name) == name_bytes && memcmp(globals[i].name, name, name_bytes) == 0) {
            return pickle_push(m, (pickle_value){.kind = V_GLOBAL, .as.index = i});
        }
    }
    return moe_fail(m->err, MOE_ERR_DENIED,
                    "%.100s: data.pkl byte %zu asks for the global %.80s.%.80s, which is not one of those that tensors "
                    "need; a pickle "
                    "is a program, and it is not run",
                    m->file, m->op_at, pickle_printable(shown_module, module, module_bytes),
                    pickle_printable(shown_name, name, name_bytes));
}

/* ------------------------------------------------------------------------------------------------ storages, tensors */
/* ('storage', type, key, location, number of items) */
moe_status pickle_op_persistent_id(pickle_machine *m, size_t unused)
{
    pickle_value id = {0};
    const pickle_value *item;
    pickle_storage *s;
    moe_status status = pickle_pop(m, &id);

    (void)unused;
    if (status != MOE_OK) {
        return status;
    }
    if (id.kind != V_TUPLE || id.n != N_STORAGE_ID) {
        return pickle_refuse(m, "the persistent id is not a tuple of 5");
    }
    item = pickle_item_at(m, &id, 0);
    if (item[0].kind != V_TEXT || item[0].n != 7 || memcmp(item[0].as.text, "storage", 7) != 0 ||
        item[1].kind != V_GLOBAL || globals[item[1].as.index].kind != G_STORAGE || item[2].kind != V_TEXT ||
        item[2].n == 0 || item[3].kind != V_TEXT || item[4].kind != V_INT || item[4].as.number < 0) {
        return pickle_refuse(m, "the persistent id is not ('storage', storage type, key, location, number of items)");
    }
    s = pickle_array_add(m, &m->storages, sizeof(*s), CHECKPOINT_MAX_TENSORS, &status);
    if (s == NULL) {
        return status;
    }
    *s = (pickle_storage){item[1].as.index, item[2].as.text, item[2].n, (size_t)item[4].as.number};
    return pickle_push(m, (pickle_value){.kind = V_STORAGE, .as.index = m->storages.n - 1});
}

/* A tuple of sizes, none negative. */
static moe_status read_sizes(const pickle_machine *m, const pickle_value *tuple, const char *what, size_t out[],
                             size_t *n_out)
{
    if (tuple->kind != V_TUPLE) {
        return pickle_refuse_kind(m, what, tuple->kind);
    }
    if (tuple->n > CHECKPOINT_MAX_RANK) {
        return pickle_refuse(m, "a tensor of a rank over 8");
    }
    for (size_t i = 0; i < tuple->n; i++) {
        const pickle_value *size = pickle_item_at(m, tuple, i);
        if (size->kind != V_INT || size->as.number < 0) {
            return pickle_refuse(m, "a size or stride is no integer, or negative");
        }
        out[i] = (size_t)size->as.number;
    }
    *n_out = tuple->n;
    return MOE_OK;
}

/* The last item of the view lies in the storage, and the view has no more items than the storage. */
static moe_status check_view(const pickle_machine *m, pickle_tensor *t)
{
    size_t last = t->offset, storage_bytes, step;

    t->numel = 1;
    if (__builtin_mul_overflow(t->storage_numel, t->item_bytes, &storage_bytes)) {
        return pickle_refuse(m, "the bytes of the storage overflow");
    }
    for (size_t i = 0; i < t->rank; i++) {
        if (__builtin_mul_overflow(t->numel, t->shape[i], &t->numel)) {
            return pickle_refuse(m, "the product of the shape overflows");
        }
    }
    if (t->numel > t->storage_numel || t->offset > t->storage_numel) {
        return pickle_refuse(m, "the tensor has more items than its storage, or begins behind it");
    }
    for (size_t i = 0; t->numel > 0 && i < t->rank; i++) {
        if (t->shape[i] > 1 && t->stride[i] == 0) {
            return pickle_refuse_as(m, MOE_ERR_UNSUPPORTED, "the tensor repeats its items (stride 0)");
        }
        if (__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &step) || __builtin_add_overflow(last, step, &last)) {
            return pickle_refuse(m, "offset and strides overflow");
        }
    }
    if (t->numel > 0 && last >= t->storage_numel) {
        return pickle_refuse(m, "the tensor reaches beyond its storage");
    }
    return MOE_OK;
}

/* (storage, offset, size, stride, requires_grad, backward hooks) */
static moe_status rebuild_tensor(pickle_machine *m, const pickle_value *args)
{
    pickle_tensor t = {0};
    size_t n_strides = 0;
    moe_status status;
    pickle_tensor *place;
    const pickle_value *arg;

    if (args->n != N_REBUILD_ARGS) {
        return pickle_refuse_as(m, MOE_ERR_UNSUPPORTED,
                                "a tensor is rebuilt from 6 values (not conjugated, negated or of a subclass)");
    }
    arg = pickle_item_at(m, args, 0);
    if (arg[0].kind != V_STORAGE || arg[1].kind != V_INT || arg[1].as.number < 0 || arg[4].kind != V_BOOL ||
        arg[5].kind != V_DICT || ((const pickle_dict *)m->dicts.data)[arg[5].as.index].first != 0) {
        return pickle_refuse(m, "the values are not (storage, offset, size, stride, bool, empty dictionary)");
    }
    const pickle_storage *s = (const pickle_storage *)m->storages.data + arg[0].as.index;
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
        return pickle_refuse(m, "size and stride differ in length");
    }
    if (status == MOE_OK) {
        status = check_view(m, &t);
    }
    if (status != MOE_OK) {
        return status;
    }
    place = pickle_array_add(m, &m->tensors, sizeof(*place), CHECKPOINT_MAX_TENSORS, &status);
    if (place == NULL) {
        return status;
    }
    *place = t;
    return pickle_push(m, (pickle_value){.kind = V_TENSOR, .as.index = m->tensors.n - 1});
}

/* (tensor, requires_grad, backward hooks): the tensor itself */
static moe_status rebuild_parameter(pickle_machine *m, const pickle_value *args)
{
    if (args->n != 3 || pickle_item_at(m, args, 0)->kind != V_TENSOR || pickle_item_at(m, args, 1)->kind != V_BOOL ||
        pickle_item_at(m, args, 2)->kind != V_DICT) {
        return pickle_refuse(m, "the values are not (tensor, bool, dictionary)");
    }
    return pickle_push(m, *pickle_item_at(m, args, 0));
}

moe_status pickle_op_reduce(pickle_machine *m, size_t unused)
{
    pickle_value args = {0}, function = {0};
    moe_status status = pickle_pop(m, &args);

    (void)unused;
    if (status == MOE_OK) {
        status = pickle_pop(m, &function);
    }
    if (status != MOE_OK) {
        return status;
    }
    if (args.kind != V_TUPLE || function.kind != V_GLOBAL) {
        return pickle_refuse(m, "not a global and its tuple of values");
    }
    switch (globals[function.as.index].kind) {
    case G_ORDERED_DICT:
        return args.n == 0 ? pickle_op_dict(m, 1) : pickle_refuse(m, "an ordered dictionary made from values");
    case G_TENSOR:
        return rebuild_tensor(m, &args);
    case G_PARAMETER:
        return rebuild_parameter(m, &args);
    case G_STORAGE:
        break;
    }
    return pickle_refuse(m, "a storage type is no function");
}
