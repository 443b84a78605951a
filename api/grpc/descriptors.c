#include "api/grpc/descriptors_priv.h"
#include "api/grpc/proto.h"

#include <stdlib.h>
#include <string.h>

#define MAX_NAME  256
#define MAX_DEPTH 8 /* of nested messages */

/* Field numbers of google/protobuf/descriptor.proto. */
enum { SET_FILE = 1 };
enum { FILE_NAME = 1, FILE_PACKAGE = 2, FILE_DEPENDENCY = 3, FILE_MESSAGE = 4, FILE_ENUM = 5, FILE_SERVICE = 6 };
enum { ANY_NAME = 1, MESSAGE_FIELD = 2, MESSAGE_NESTED = 3, MESSAGE_ENUM = 4, ENUM_VALUE = 2, SERVICE_METHOD = 2 };

typedef struct symbol {
    char *name; /* owned */
    size_t file;
    bool message;
} symbol;

struct descriptors {
    size_t n_files, n_symbols, max_symbols;
    descriptors_file files[DESCRIPTORS_MAX_FILES];
    symbol *symbols; /* owned */
};

static proto_cursor cursor_of(const uint8_t *bytes, size_t n)
{
    return (proto_cursor){.at = bytes, .end = bytes + n};
}

/* The string field `id` of a message, "" if absent. */
static moe_status string_field(const uint8_t *bytes, size_t n, uint32_t id, char out[MAX_NAME])
{
    proto_cursor c = cursor_of(bytes, n);
    proto_field f;

    out[0] = '\0';
    while (proto_next(&c, &f)) {
        if (f.id == id && f.wire_type == 2) {
            if (f.n_bytes >= MAX_NAME) {
                return MOE_ERR_CORRUPT;
            }
            memcpy(out, f.bytes, f.n_bytes);
            out[f.n_bytes] = '\0';
        }
    }
    return c.failed ? MOE_ERR_CORRUPT : MOE_OK;
}

/* ------------------------------------------------------------------------------------------------ index */
static moe_status add_symbol(descriptors *d, size_t file, const char *name, bool message)
{
    if (d->n_symbols == d->max_symbols) {
        size_t max = d->max_symbols == 0 ? 128 : d->max_symbols * 2;
        symbol *grown = realloc(d->symbols, max * sizeof(grown[0]));

        if (grown == NULL) {
            return MOE_ERR_NO_MEMORY;
        }
        d->symbols = grown;
        d->max_symbols = max;
    }
    char *copy = strdup(name);
    if (copy == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    d->symbols[d->n_symbols++] = (symbol){.name = copy, .file = file, .message = message};
    return MOE_OK;
}

static moe_status scoped_name(const char *scope, const proto_field *f, char out[MAX_NAME])
{
    char name[MAX_NAME];
    moe_status status = string_field(f->bytes, f->n_bytes, ANY_NAME, name);

    if (status != MOE_OK) {
        return status;
    }
    int n = snprintf(out, MAX_NAME, "%s%s%s", scope, scope[0] == '\0' ? "" : ".", name);
    return n < MAX_NAME ? MOE_OK : MOE_ERR_CORRUPT;
}

/* A named thing and its named parts in fields `part` (fields of a message, methods of a service). */
static moe_status add_with_parts(descriptors *d, size_t file, const char *name, bool message, const proto_field *f,
                                 uint32_t part)
{
    proto_cursor c = cursor_of(f->bytes, f->n_bytes);
    proto_field inner;
    char full[MAX_NAME];
    moe_status status = add_symbol(d, file, name, message);

    while (status == MOE_OK && proto_next(&c, &inner)) {
        if (inner.id == part && inner.wire_type == 2) {
            status = scoped_name(name, &inner, full);
            status = status == MOE_OK ? add_symbol(d, file, full, false) : status;
        }
    }
    return status != MOE_OK ? status : c.failed ? MOE_ERR_CORRUPT : MOE_OK;
}

/* Values of an enum are named in the enum's own scope. */
static moe_status add_enum(descriptors *d, size_t file, const char *scope, const proto_field *f)
{
    proto_cursor c = cursor_of(f->bytes, f->n_bytes);
    proto_field inner;
    char full[MAX_NAME];
    moe_status status = scoped_name(scope, f, full);

    status = status == MOE_OK ? add_symbol(d, file, full, false) : status;
    while (status == MOE_OK && proto_next(&c, &inner)) {
        if (inner.id == ENUM_VALUE && inner.wire_type == 2) {
            status = scoped_name(scope, &inner, full);
            status = status == MOE_OK ? add_symbol(d, file, full, false) : status;
        }
    }
    return status != MOE_OK ? status : c.failed ? MOE_ERR_CORRUPT : MOE_OK;
}

/* Recursion is bounded by MAX_DEPTH, and the bytes are the build's own. */
static moe_status add_message(descriptors *d, size_t file, const char *scope, const proto_field *f, unsigned depth)
{
    proto_cursor c = cursor_of(f->bytes, f->n_bytes);
    proto_field inner;
    char full[MAX_NAME];
    moe_status status = depth == MAX_DEPTH ? MOE_ERR_CORRUPT : scoped_name(scope, f, full);

    status = status == MOE_OK ? add_with_parts(d, file, full, true, f, MESSAGE_FIELD) : status;
    while (status == MOE_OK && proto_next(&c, &inner)) {
        if (inner.id == MESSAGE_NESTED && inner.wire_type == 2) {
            status = add_message(d, file, full, &inner, depth + 1);
        } else if (inner.id == MESSAGE_ENUM && inner.wire_type == 2) {
            status = add_enum(d, file, full, &inner);
        }
    }
    return status;
}

static moe_status add_file(descriptors *d, const proto_field *file)
{
    proto_cursor c = cursor_of(file->bytes, file->n_bytes);
    proto_field f;
    char package[MAX_NAME], full[MAX_NAME];
    size_t index = d->n_files;
    moe_status status = string_field(file->bytes, file->n_bytes, FILE_PACKAGE, package);

    if (index == DESCRIPTORS_MAX_FILES) {
        return MOE_ERR_CORRUPT;
    }
    d->files[d->n_files++] = (descriptors_file){file->bytes, file->n_bytes};
    while (status == MOE_OK && proto_next(&c, &f)) {
        if (f.wire_type != 2) {
            continue;
        }
        if (f.id == FILE_MESSAGE) {
            status = add_message(d, index, package, &f, 0);
        } else if (f.id == FILE_ENUM) {
            status = add_enum(d, index, package, &f);
        } else if (f.id == FILE_SERVICE) {
            status = scoped_name(package, &f, full);
            status = status == MOE_OK ? add_with_parts(d, index, full, false, &f, SERVICE_METHOD) : status;
        }
    }
    return status != MOE_OK ? status : c.failed ? MOE_ERR_CORRUPT : MOE_OK;
}

moe_status descriptors_open(const uint8_t *set, size_t n, descriptors **out)
{
    descriptors *d = calloc(1, sizeof(*d));
    proto_cursor c = cursor_of(set, n);
    proto_field f;
    moe_status status = d == NULL ? MOE_ERR_NO_MEMORY : MOE_OK;

    while (status == MOE_OK && proto_next(&c, &f)) {
        status = f.id == SET_FILE && f.wire_type == 2 ? add_file(d, &f) : MOE_ERR_CORRUPT;
    }
    if (status == MOE_OK && c.failed) {
        status = MOE_ERR_CORRUPT;
    }
    if (status != MOE_OK) {
        descriptors_close(d);
        return status;
    }
    *out = d;
    return MOE_OK;
}

void descriptors_close(descriptors *d)
{
    if (d != NULL) {
        for (size_t i = 0; i < d->n_symbols; i++) {
            free(d->symbols[i].name);
        }
        free(d->symbols);
        free(d);
    }
}

/* ------------------------------------------------------------------------------------------------ look-up */
static size_t find_file(const descriptors *d, const char *name)
{
    char other[MAX_NAME];
    size_t i = 0;

    while (i < d->n_files && (string_field(d->files[i].bytes, d->files[i].n_bytes, FILE_NAME, other) != MOE_OK ||
                              strcmp(other, name) != 0)) {
        i++;
    }
    return i;
}

static const symbol *find_symbol(const descriptors *d, const char *name)
{
    for (size_t i = 0; i < d->n_symbols; i++) {
        if (strcmp(d->symbols[i].name, name) == 0) {
            return &d->symbols[i];
        }
    }
    return NULL;
}

/* Files are taken up once each, so imports in a circle would end too. */
static size_t with_imports(const descriptors *d, size_t first, descriptors_file out[DESCRIPTORS_MAX_FILES])
{
    bool taken[DESCRIPTORS_MAX_FILES] = {false};
    char name[MAX_NAME];
    size_t n = 0;

    out[n++] = d->files[first];
    taken[first] = true;
    for (size_t i = 0; i < n; i++) {
        proto_cursor c = cursor_of(out[i].bytes, out[i].n_bytes);
        proto_field f;

        while (proto_next(&c, &f)) {
            if (f.id != FILE_DEPENDENCY || f.wire_type != 2 || f.n_bytes >= MAX_NAME) {
                continue;
            }
            memcpy(name, f.bytes, f.n_bytes);
            name[f.n_bytes] = '\0';
            size_t file = find_file(d, name);
            if (file < d->n_files && !taken[file]) {
                taken[file] = true;
                out[n++] = d->files[file];
            }
        }
    }
    return n;
}

size_t descriptors_by_name(const descriptors *d, const char *name, descriptors_file out[DESCRIPTORS_MAX_FILES])
{
    size_t file = find_file(d, name);

    return file == d->n_files ? 0 : with_imports(d, file, out);
}

size_t descriptors_by_symbol(const descriptors *d, const char *name, descriptors_file out[DESCRIPTORS_MAX_FILES])
{
    const symbol *s = find_symbol(d, name);

    return s == NULL ? 0 : with_imports(d, s->file, out);
}

bool descriptors_is_message(const descriptors *d, const char *name)
{
    const symbol *s = find_symbol(d, name);

    return s != NULL && s->message;
}
