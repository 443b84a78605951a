/* One safetensors image: 8 bytes of header length, a JSON header, the data. Nothing in it is believed before it is
 * checked. */
#include "checkpoint/checkpoint_priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES 8
#define MAX_DEPTH    3

static const struct {
    const char *name;
    unsigned bits;
} dtypes[] = {
    {"F32", 32}, {"BF16", 16},   {"F16", 16},    {"F64", 64},        {"I64", 64},    {"I32", 32},
    {"I16", 16}, {"I8", 8},      {"U64", 64},    {"U32", 32},        {"U16", 16},    {"U8", 8},
    {"BOOL", 8}, {"C64", 64},    {"F8_E4M3", 8}, {"F8_E5M2", 8},     {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E5M2FNUZ", 8},
};

/* ---------------------------------------------------------------------------------------------- before the JSON parser
 * The header of a checkpoint holds only objects, arrays, strings and plain integers. A pass over the bytes
 * refuses all else and bounds what the JSON parser has to build, whatever the file says. */
typedef struct header_scan {
    const char *text;
    size_t bytes;
    const char *file;
    moe_error *err;
    size_t depth, n_tensors;
    size_t n_arrays, n_commas; /* of the tensor, of the array that is open */
    size_t n_keys;             /* of all */
} header_scan;

/* at is the opening quote; *end_out the closing one. */
static moe_status scan_string(const header_scan *s, size_t at, size_t *end_out)
{
    for (size_t i = at + 1; i < s->bytes; i++) {
        if (s->text[i] == '"') {
            *end_out = i;
            return MOE_OK;
        }
        if (s->text[i] != '\\') {
            continue;
        }
        i++;
        if (s->bytes - i >= 5 && memcmp(s->text + i, "u0000", 5) == 0) {
            return moe_fail(s->err, MOE_ERR_CORRUPT, "%s: header byte %zu: NUL in a string", s->file, i - 1);
        }
    }
    return moe_fail(s->err, MOE_ERR_CORRUPT, "%s: header ends inside a string", s->file);
}

static moe_status scan_open(header_scan *s, char c)
{
    s->n_commas = 0;
    if (++s->depth > MAX_DEPTH) {
        return moe_fail(s->err, MOE_ERR_CORRUPT, "%s: header is nested deeper than %d", s->file, MAX_DEPTH);
    }
    if (s->depth == 2) {
        s->n_arrays = 0;
        if (++s->n_tensors > CHECKPOINT_MAX_TENSORS + 1) { /* one more: __metadata__ */
            return moe_fail(s->err, MOE_ERR_CORRUPT, "%s: more than %u tensors", s->file, CHECKPOINT_MAX_TENSORS);
        }
    }
    if (s->depth == 3 && (c != '[' || ++s->n_arrays > 2)) {
        return moe_fail(s->err, MOE_ERR_CORRUPT,
                        "%s: entry %zu of the header has more than dtype, shape and data_offsets", s->file,
                        s->n_tensors);
    }
    return MOE_OK;
}

static moe_status scan_comma(header_scan *s)
{
    if (s->depth == 3 && ++s->n_commas >= CHECKPOINT_MAX_RANK) {
        return moe_fail(s->err, MOE_ERR_CORRUPT, "%s: entry %zu of the header: rank over %d", s->file, s->n_tensors,
                        CHECKPOINT_MAX_RANK);
    }
    if (s->depth < 3 && ++s->n_keys > 4 * CHECKPOINT_MAX_TENSORS) {
        return moe_fail(s->err, MOE_ERR_CORRUPT, "%s: header has more than %u keys", s->file,
                        4 * CHECKPOINT_MAX_TENSORS);
    }
    return MOE_OK;
}

static moe_status scan_byte(header_scan *s, size_t *at)
{
    const char c = s->text[*at];

    switch (c) {
    case '"':
        return scan_string(s, *at, at);
    case '{':
    case '[':
        return scan_open(s, c);
    case '}':
    case ']':
        s->depth--;
        return MOE_OK;
    case ',':
        return scan_comma(s);
    case ':':
    case ' ':
    case '\t':
    case '\n':
    case '\r':
        return MOE_OK;
    default:
        if (c >= '0' && c <= '9') {
            return MOE_OK;
        }
        return moe_fail(
            s->err, MOE_ERR_CORRUPT,
            "%s: header byte %zu is 0x%02x: outside of strings a header has only objects, arrays and integers "
            "without sign, fraction or exponent",
            s->file, *at, (unsigned)(unsigned char)c);
    }
}

/* *object_bytes_out: the header without its padding. */
static moe_status scan_header(const char *text, size_t bytes, const char *file, size_t *object_bytes_out,
                              moe_error *err)
{
    header_scan s = {.text = text, .bytes = bytes, .file = file, .err = err};
    const size_t valid = moe_utf8_valid_prefix(text, bytes);
    size_t i = 0;

    if (valid != bytes) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: header byte %zu is not valid UTF-8", file, valid);
    }
    do {
        const moe_status status = scan_byte(&s, &i);
        if (status != MOE_OK) {
            return status;
        }
        i++;
    } while (i < bytes && s.depth > 0);
    if (s.depth > 0) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: header ends inside an object", file);
    }
    *object_bytes_out = i;
    for (; i < bytes; i++) {
        if (text[i] != ' ') {
            return moe_fail(err, MOE_ERR_CORRUPT, "%s: header byte %zu is 0x%02x: only spaces may follow the object",
                            file, i, (unsigned)(unsigned char)text[i]);
        }
    }
    return MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ the tensors */
typedef struct header_reader {
    const unsigned char *data; /* the data part of the image */
    size_t data_bytes;
    const char *file;
    moe_error *err;
} header_reader;

static moe_status refuse(const header_reader *r, const char *name, const char *format, ...) MOE_PRINTF(3, 4);

static moe_status refuse(const header_reader *r, const char *name, const char *format, ...)
{
    char rule[192];
    va_list args;

    va_start(args, format);
    vsnprintf(rule, sizeof(rule), format, args);
    va_end(args);
    return moe_fail(r->err, MOE_ERR_CORRUPT, "%s: tensor \"%.120s\": %s", r->file, name, rule);
}

static moe_status read_dtype(const header_reader *r, const json_t *value, checkpoint_tensor *t, unsigned *bits_out)
{
    const char *name = json_string_value(value);

    if (name == NULL) {
        return refuse(r, t->name, "dtype is missing or not a string");
    }
    for (size_t i = 0; i < MOE_COUNT(dtypes); i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            strcpy(t->dtype_name, dtypes[i].name);
            t->dtype = i == 0 ? COMPUTE_F32 : i == 1 ? COMPUTE_BF16 : i == 2 ? COMPUTE_F16 : COMPUTE_DTYPE_OTHER;
            *bits_out = dtypes[i].bits;
            return MOE_OK;
        }
    }
    return refuse(r, t->name, "dtype \"%.40s\" is unknown", name);
}

/* An array of integers. The scan has refused long ones, but the bytes are those of a file that may change meanwhile. */
static bool read_sizes(const json_t *value, size_t *out, size_t *n_out)
{
    if (!json_is_array(value) || json_array_size(value) > CHECKPOINT_MAX_RANK) {
        return false;
    }
    *n_out = json_array_size(value);
    for (size_t i = 0; i < *n_out; i++) {
        const json_t *item = json_array_get(value, i);
        if (!json_is_integer(item)) {
            return false;
        }
        out[i] = (size_t)json_integer_value(item);
    }
    return true;
}

static moe_status read_shape(const header_reader *r, const json_t *value, unsigned bits, checkpoint_tensor *t)
{
    size_t n_bits = bits;

    if (!read_sizes(value, t->shape, &t->rank)) {
        return refuse(r, t->name, "shape is missing or not an array of integers");
    }
    for (size_t i = 0; i < t->rank; i++) {
        if (__builtin_mul_overflow(n_bits, t->shape[i], &n_bits)) {
            return refuse(r, t->name, "the product of its shape overflows");
        }
    }
    if (n_bits % 8 != 0) {
        return refuse(r, t->name, "its %zu bits are not whole bytes", n_bits);
    }
    t->bytes = n_bits / 8;
    return MOE_OK;
}

static moe_status read_offsets(const header_reader *r, const json_t *value, checkpoint_tensor *t)
{
    size_t range[CHECKPOINT_MAX_RANK], n;

    if (!read_sizes(value, range, &n) || n != 2) {
        return refuse(r, t->name, "data_offsets is missing or not an array of two integers");
    }
    if (range[0] > range[1] || range[1] > r->data_bytes) {
        return refuse(r, t->name, "data_offsets [%zu, %zu] lie outside of the %zu bytes of data", range[0], range[1],
                      r->data_bytes);
    }
    if (range[1] - range[0] != t->bytes) {
        return refuse(r, t->name, "data_offsets span %zu bytes, dtype and shape need %zu", range[1] - range[0],
                      t->bytes);
    }
    t->data = r->data + range[0];
    return MOE_OK;
}

/* t->name is set. */
static moe_status read_tensor(const header_reader *r, const json_t *value, checkpoint_tensor *t)
{
    unsigned bits = 0;
    moe_status status;

    if (strlen(t->name) > CHECKPOINT_MAX_NAME) {
        return refuse(r, t->name, "its name has %zu bytes, the limit is %d", strlen(t->name), CHECKPOINT_MAX_NAME);
    }
    if (!json_is_object(value) || json_object_size(value) != 3) {
        return refuse(r, t->name, "not an object of exactly dtype, shape and data_offsets");
    }
    status = read_dtype(r, json_object_get(value, "dtype"), t, &bits);
    if (status == MOE_OK) {
        status = read_shape(r, json_object_get(value, "shape"), bits, t);
    }
    if (status == MOE_OK) {
        status = read_offsets(r, json_object_get(value, "data_offsets"), t);
    }
    return status;
}

static moe_status check_metadata(const header_reader *r, const json_t *metadata)
{
    const char *key;
    json_t *value;

    if (!json_is_object(metadata)) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "%s: __metadata__ is not an object", r->file);
    }
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value)) {
            return moe_fail(r->err, MOE_ERR_CORRUPT, "%s: __metadata__ key \"%.120s\" is not a string", r->file, key);
        }
    }
    return MOE_OK;
}

static int by_place(const void *a, const void *b)
{
    const checkpoint_tensor *x = a, *y = b;

    if (x->data != y->data) {
        return x->data < y->data ? -1 : 1;
    }
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const checkpoint_tensor *)a)->name, ((const checkpoint_tensor *)b)->name);
}

/* The tensors tile the data exactly: no overlap, no hole, nothing behind the last. */
static moe_status check_tiling(const header_reader *r, checkpoint_tensor *tensors, size_t n)
{
    size_t end = 0;

    qsort(tensors, n, sizeof(*tensors), by_place);
    for (size_t i = 0; i < n; i++) {
        const size_t begin = (size_t)(tensors[i].data - r->data);
        if (begin != end) {
            return refuse(r, tensors[i].name, "begins at data byte %zu, %s at %zu", begin,
                          begin < end ? "inside of a tensor that ends" : "behind a hole that begins", end);
        }
        end = begin + tensors[i].bytes;
    }
    if (end != r->data_bytes) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "%s: %zu bytes of data, the tensors fill %zu", r->file, r->data_bytes,
                        end);
    }
    return MOE_OK;
}

/* All names in one block, in the order of the header. */
static moe_status copy_names(json_t *object, safetensors_header *h)
{
    size_t bytes = 1, used = 0;
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        bytes += strlen(key) + 1;
    }
    h->names = malloc(bytes);
    h->tensors = calloc(json_object_size(object) + 1, sizeof(*h->tensors));
    if (h->names == NULL || h->tensors == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    json_object_foreach(object, key, value)
    {
        const size_t n = strlen(key) + 1;
        memcpy(h->names + used, key, n);
        h->tensors[h->n_tensors++].name = h->names + used;
        used += n;
    }
    return MOE_OK;
}

static moe_status read_tensors(const header_reader *r, json_t *object, safetensors_header *h)
{
    json_t *metadata = json_object_get(object, "__metadata__");
    moe_status status = metadata != NULL ? check_metadata(r, metadata) : MOE_OK;
    const char *key;
    json_t *value;
    size_t i = 0;

    if (status != MOE_OK) {
        return status;
    }
    if (metadata != NULL) {
        (void)json_object_del(object, "__metadata__");
    }
    if (json_object_size(object) > CHECKPOINT_MAX_TENSORS) {
        return moe_fail(r->err, MOE_ERR_CORRUPT, "%s: %zu tensors, the limit is %u", r->file, json_object_size(object),
                        CHECKPOINT_MAX_TENSORS);
    }
    status = copy_names(object, h);
    if (status != MOE_OK) {
        return moe_fail(r->err, status, "%s: no memory for %zu tensors", r->file, json_object_size(object));
    }
    json_object_foreach(object, key, value)
    {
        status = read_tensor(r, value, &h->tensors[i++]);
        if (status != MOE_OK) {
            return status;
        }
    }
    return check_tiling(r, h->tensors, h->n_tensors);
}

static moe_status check_length(const unsigned char *image, size_t bytes, const char *file, size_t *header_bytes_out,
                               moe_error *err)
{
    uint64_t n = 0;

    if (bytes < LENGTH_BYTES) {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: %zu bytes, a safetensors file has at least %d", file, bytes,
                        LENGTH_BYTES);
    }
    for (size_t i = 0; i < LENGTH_BYTES; i++) {
        n |= (uint64_t)image[i] << (8 * i);
    }
    if (n < 2 || n > CHECKPOINT_MAX_JSON || n > bytes - LENGTH_BYTES) {
        return moe_fail(err, MOE_ERR_CORRUPT,
                        "%s: header length %llu is not in 2 .. %u or beyond the file of %zu bytes", file,
                        (unsigned long long)n, CHECKPOINT_MAX_JSON, bytes);
    }
    if (image[LENGTH_BYTES] != '{') {
        return moe_fail(err, MOE_ERR_CORRUPT, "%s: header begins with 0x%02x, not with {", file,
                        (unsigned)image[LENGTH_BYTES]);
    }
    *header_bytes_out = (size_t)n;
    return MOE_OK;
}

moe_status safetensors_parse(const void *image, size_t bytes, const char *file, safetensors_header *out, moe_error *err)
{
    size_t header_bytes = 0, object_bytes = 0;
    safetensors_header h = {0};
    moe_json *json = NULL;
    moe_error reason = {.text = ""};
    moe_status status = check_length(image, bytes, file, &header_bytes, err);

    if (status != MOE_OK) {
        return status;
    }
    const char *text = (const char *)image + LENGTH_BYTES;
    status = scan_header(text, header_bytes, file, &object_bytes, err);
    if (status != MOE_OK) {
        return status;
    }
    status = moe_json_parse(text, object_bytes, MAX_DEPTH, &json, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "%s: header is not strict JSON: %.200s", file, reason.text);
    }
    const header_reader r = {(const unsigned char *)text + header_bytes, bytes - LENGTH_BYTES - header_bytes, file,
                             err};
    status = read_tensors(&r, json, &h);
    moe_json_free(json);
    if (status != MOE_OK) {
        safetensors_fini(&h);
        return status;
    }
    qsort(h.tensors, h.n_tensors, sizeof(*h.tensors), by_name);
    *out = h;
    return MOE_OK;
}

void safetensors_fini(safetensors_header *header)
{
    free(header->tensors);
    free(header->names);
    *header = (safetensors_header){0};
}
