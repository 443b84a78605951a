#include "checkpoint/torch_file_priv.h"

#include <stdlib.h>
#include <string.h>

#include "checkpoint/pickle_priv.h"

#define PICKLE_NAME     "/data.pkl"
#define MAX_VERSION     10 /* of the archive, as torch accepts it */
#define MAX_TOTAL_TIMES 16u

/* ------------------------------------------------------------------------------------------------ the archive */
/* torch before 1.6 wrote a row of pickles, the first of which is this number. */
static bool is_legacy(const unsigned char *image, size_t bytes)
{
    static const unsigned char magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

    return bytes >= 2 + sizeof(magic) && image[0] == 0x80 && memcmp(image + 2, magic, sizeof(magic)) == 0;
}

/* The folder that everything in the archive lies in: what stands before "/data.pkl". */
static moe_status find_pickle(const torch_file *f, const zip_entry **out, size_t *root_bytes_out, moe_error *err)
{
    const size_t suffix = strlen(PICKLE_NAME);

    *out = NULL;
    for (size_t i = 0; i < f->zip.n_entries; i++) {
        const zip_entry *m = &f->zip.entries[i];
        const char *slash = memchr(m->name, '/', m->name_bytes);
        if (slash != NULL && m->name_bytes - (size_t)(slash - m->name) == suffix &&
            memcmp(slash, PICKLE_NAME, suffix) == 0) {
            if (*out != NULL) {
                return moe_fail(err, MOE_ERR_CORRUPT, "%.100s: more than one data.pkl", f->file);
            }
            *out = m;
            *root_bytes_out = m->name_bytes - suffix;
        }
    }
    return *out != NULL ? MOE_OK
                        : moe_fail(err, MOE_ERR_CORRUPT, "%.100s: no data.pkl in the archive: not a file of torch.save",
                                   f->file);
}

/* root/name; NULL when absent. */
static const zip_entry *find_entry(const torch_file *f, const char *root, size_t root_bytes, const char *folder,
                                   const char *name, size_t name_bytes)
{
    char path[ZIP_MAX_NAME];
    const size_t folder_bytes = strlen(folder), n = root_bytes + folder_bytes + name_bytes;

    if (n > sizeof(path)) {
        return NULL;
    }
    memcpy(path, root, root_bytes);
    memcpy(path + root_bytes, folder, folder_bytes);
    memcpy(path + root_bytes + folder_bytes, name, name_bytes);
    return zip_find(&f->zip, path, n);
}

static moe_status check_version(const torch_file *f, const zip_entry *m, moe_error *err)
{
    unsigned version = 0;
    moe_status status;

    if (m == NULL) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%.100s: no version in the archive: not a file of torch.save", f->file);
    }
    status = zip_check(&f->zip, m, f->file, err);
    if (status != MOE_OK) {
        return status;
    }
    for (size_t i = 0; i < m->bytes && i < 3 && m->data[i] >= '0' && m->data[i] <= '9'; i++) {
        version = 10 * version + (unsigned)(m->data[i] - '0');
    }
    if (version < 1 || version > MAX_VERSION) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%.100s: version %u of the archive, expected 1 .. %d", f->file,
                        version, MAX_VERSION);
    }
    return MOE_OK;
}

/* Absent before torch 2.1, which was little-endian wherever it mattered. */
static moe_status check_byte_order(const torch_file *f, const zip_entry *m, moe_error *err)
{
    moe_status status;

    if (m == NULL) {
        return MOE_OK;
    }
    status = zip_check(&f->zip, m, f->file, err);
    if (status == MOE_OK && (m->bytes != 6 || memcmp(m->data, "little", 6) != 0)) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%.100s: its byte order is not \"little\"", f->file);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ tensors */
static bool is_contiguous(const pickle_tensor *p)
{
    size_t expected = 1;

    for (size_t i = p->rank; i > 0; i--) {
        if (p->shape[i - 1] > 1 && p->stride[i - 1] != expected) {
            return false;
        }
        expected *= p->shape[i - 1]; /* numel is there, so it does not overflow */
    }
    return true;
}

static moe_status place_tensor(const torch_file *f, const char *root, size_t root_bytes, const pickle_tensor *p,
                               torch_tensor *t, moe_error *err)
{
    const zip_entry *m = find_entry(f, root, root_bytes, "/data/", p->key, p->key_bytes);

    if (m == NULL) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%.100s: tensor %.120s: its storage is not in the archive", f->file,
                        t->name);
    }
    if (m->bytes != p->storage_numel * p->item_bytes) {
        return moe_fail(err, MOE_ERR_CORRUPT,
                        "%.100s: tensor %.120s: its storage has %zu bytes, %zu items of %s need %zu", f->file, t->name,
                        m->bytes, p->storage_numel, p->dtype, p->storage_numel * p->item_bytes);
    }
    t->dtype = p->dtype;
    t->item_bytes = p->item_bytes;
    t->rank = p->rank;
    memcpy(t->shape, p->shape, sizeof(t->shape));
    memcpy(t->stride, p->stride, sizeof(t->stride));
    t->bytes = p->numel * p->item_bytes;
    t->data = m->data + p->offset * p->item_bytes;
    t->contiguous = p->numel == 0 || is_contiguous(p);
    t->entry = (size_t)(m - f->zip.entries);
    return MOE_OK;
}

static moe_status copy_names(torch_file *f, const pickle_tensors *p, moe_error *err)
{
    size_t bytes = 0, used = 0;

    for (size_t i = 0; i < p->n_tensors; i++) {
        bytes += p->tensors[i].name_bytes + 1;
    }
    f->names = malloc(bytes + 1);
    f->tensors = calloc(p->n_tensors + 1, sizeof(*f->tensors));
    f->checked = calloc(f->zip.n_entries + 1, sizeof(*f->checked));
    if (f->names == NULL || f->tensors == NULL || f->checked == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%.100s: no memory for %zu tensors", f->file, p->n_tensors);
    }
    for (size_t i = 0; i < p->n_tensors; i++) {
        f->tensors[i].name = f->names + used;
        memcpy(f->names + used, p->tensors[i].name, p->tensors[i].name_bytes);
        f->names[used + p->tensors[i].name_bytes] = '\0';
        used += p->tensors[i].name_bytes + 1;
    }
    f->n_tensors = p->n_tensors;
    return MOE_OK;
}

/* A key whose type differs between two tensors fails at place_tensor or reads the same bytes as two types, which torch
 * does not write. */
static moe_status check_types(const torch_file *f, const char **types, moe_error *err)
{
    for (size_t i = 0; i < f->n_tensors; i++) {
        const torch_tensor *t = &f->tensors[i];
        if (types[t->entry] != NULL && types[t->entry] != t->dtype) {
            return moe_fail(err, MOE_ERR_CORRUPT, "%.100s: tensor %.120s: its storage is %s here and %s elsewhere",
                            f->file, t->name, t->dtype, types[t->entry]);
        }
        types[t->entry] = t->dtype;
    }
    return MOE_OK;
}

static moe_status check_all_types(const torch_file *f, moe_error *err)
{
    const char **types = calloc(f->zip.n_entries + 1, sizeof(*types));
    moe_status status;

    if (types == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "%.100s: no memory for %zu storages", f->file, f->zip.n_entries);
    }
    status = check_types(f, types, err);
    free(types);
    return status;
}

static moe_status read_tensors(torch_file *f, const zip_entry *pickle, size_t root_bytes, size_t image_bytes,
                               moe_error *err)
{
    pickle_tensors p = {0};
    moe_status status = pickle_parse(pickle->data, pickle->bytes, f->file, &p, err);

    if (status == MOE_OK) {
        status = copy_names(f, &p, err);
    }
    for (size_t i = 0; status == MOE_OK && i < p.n_tensors; i++) {
        status = place_tensor(f, pickle->name, root_bytes, &p.tensors[i], &f->tensors[i], err);
        if (status == MOE_OK && (__builtin_add_overflow(f->total_bytes, f->tensors[i].bytes, &f->total_bytes) ||
                                 f->total_bytes / MAX_TOTAL_TIMES > image_bytes)) {
            status = moe_fail(err, MOE_ERR_UNSUPPORTED, "%.100s: its tensors are more than %u times its size", f->file,
                              MAX_TOTAL_TIMES);
        }
    }
    pickle_tensors_fini(&p);
    return status == MOE_OK ? check_all_types(f, err) : status;
}

moe_status torch_file_open(const void *image, size_t bytes, const char *file, torch_file *out, moe_error *err)
{
    torch_file f = {.file = file};
    const zip_entry *pickle = NULL;
    size_t root_bytes = 0;
    moe_status status;

    if (is_legacy(image, bytes)) {
        return moe_fail(
            err, MOE_ERR_UNSUPPORTED,
            "%.100s: written by torch before 1.6 (or with _use_new_zipfile_serialization=False), not a zip archive; "
            "load and save it with a newer torch",
            file);
    }
    status = zip_open(image, bytes, file, &f.zip, err);
    if (status != MOE_OK) {
        return status;
    }
    status = find_pickle(&f, &pickle, &root_bytes, err);
    if (status == MOE_OK) {
        status = check_version(&f, find_entry(&f, pickle->name, root_bytes, "/", "version", 7), err);
    }
    if (status == MOE_OK) {
        status = check_byte_order(&f, find_entry(&f, pickle->name, root_bytes, "/", "byteorder", 9), err);
    }
    if (status == MOE_OK) {
        status = zip_check(&f.zip, pickle, file, err);
    }
    if (status == MOE_OK) {
        status = read_tensors(&f, pickle, root_bytes, bytes, err);
    }
    if (status != MOE_OK) {
        torch_file_close(&f);
        return status;
    }
    *out = f;
    return MOE_OK;
}

void torch_file_close(torch_file *f)
{
    zip_close(&f->zip);
    free(f->checked);
    free(f->tensors);
    free(f->names);
    *f = (torch_file){0};
}

moe_status torch_file_check(torch_file *f, const torch_tensor *t, moe_error *err)
{
    if (!f->checked[t->entry]) {
        const moe_status status = zip_check(&f->zip, &f->zip.entries[t->entry], f->file, err);
        if (status != MOE_OK) {
            return status;
        }
        f->checked[t->entry] = true;
    }
    return MOE_OK;
}

void torch_tensor_gather(const torch_tensor *t, size_t first, size_t n, unsigned char *out)
{
    size_t index[CHECKPOINT_MAX_RANK], at = 0, rest = first;

    if (n == 0) {
        return; /* a size may be 0 */
    }
    for (size_t i = t->rank; i > 0; i--) {
        index[i - 1] = rest % t->shape[i - 1];
        rest /= t->shape[i - 1];
        at += index[i - 1] * t->stride[i - 1];
    }
    for (size_t done = 0; done < n; done++) {
        memcpy(out + done * t->item_bytes, t->data + at * t->item_bytes, t->item_bytes);
        for (size_t i = t->rank; i > 0; i--) {
            at += t->stride[i - 1];
            if (++index[i - 1] < t->shape[i - 1]) {
                break;
            }
            at -= t->shape[i - 1] * t->stride[i - 1];
            index[i - 1] = 0;
        }
    }
}
