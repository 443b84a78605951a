/* Devices by name. A kind is built in, or a module: a shared object that is opened when its device is asked for, once, and
 * stays open, for its driver does not like to be unloaded. */
#include "compute/cpu_priv.h"
#include "compute/module.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE_FILE "libconclave-cuda.so"
#define MODULE_KIND "cuda"

static struct {
    pthread_mutex_t lock; /* a leaf */
    const compute_module *module;
} opened = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ------------------------------------------------------------------------------------------------ the module */
#define MAX_PATH 4096

/* Not the system's search path: what is loaded into this process comes from where it was installed, or is named. */
static bool find_file(char out[MAX_PATH])
{
    static const char *const beside[] = {"", "../lib/conclave/", "../lib/"};
    char program[MAX_PATH];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);

    program[n > 0 ? n : 0] = '\0';
    char *name = strrchr(program, '/');
    if (name == NULL) {
        return false;
    }
    name[1] = '\0';
    for (size_t i = 0; i < MOE_COUNT(beside); i++) {
        int length = snprintf(out, MAX_PATH, "%s%s%s", program, beside[i], MODULE_FILE);

        if (length > 0 && length < MAX_PATH && access(out, R_OK) == 0) {
            return true;
        }
    }
    return false;
}

static moe_status check_module(const compute_module *m, const char *file, moe_error *err)
{
    const compute_module own = {COMPUTE_MODULE_HEAD, .kind = MODULE_KIND};

    if (m == NULL || m->abi != own.abi || m->ops_bytes != own.ops_bytes || m->options_bytes != own.options_bytes ||
        m->devices_bytes != own.devices_bytes) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED,
                        "%.200s is of another release: device interface %u, this program (%s) has %u", file,
                        m != NULL ? m->abi : 0, MOE_VERSION, own.abi);
    }
    if (m->kind == NULL || m->enumerate == NULL || m->open == NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%.200s: half a module: it has no %s", file,
                        m->kind == NULL        ? "kind"
                        : m->enumerate == NULL ? "enumerate"
                                               : "open");
    }
    if (strcmp(m->kind, own.kind) != 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%.200s: a module of the device \"%.32s\", not of %s", file, m->kind,
                        own.kind);
    }
    return MOE_OK;
}

/* A table with a hole would end the process at the first step that needs the op. */
static moe_status check_ops(const compute_ops *ops, const char *place, moe_error *err)
{
    const char *missing = NULL;

#define NEEDED_OWN              true
#define NEEDED_QUEUED           true
#define NEEDED_FETCHED          true
#define NEEDED_HOST             true
#define NEEDED_ASKED            true
#define NEEDED_OPTIONAL         false
#define NEEDED_OPTIONAL_ASKED   false
#define NEEDED_OPTIONAL_FETCHED false
#define COMPUTE_OP(kind, result, name, parameters, arguments)                                                          \
    missing = NEEDED_##kind && ops->name == NULL ? #name : missing;
#include "compute/ops.h"
    return missing == NULL
               ? MOE_OK
               : moe_fail(err, MOE_ERR_UNSUPPORTED, "device %s: its module has no op \"%s\"", place, missing);
}

static moe_status open_device(const compute_module *m, uint32_t index, const compute_device_options *options,
                              compute_device **out, moe_error *err)
{
    compute_device *d = NULL;
    moe_status status = m->open(index, options, &d, err);

    if (status != MOE_OK) {
        return status;
    }
    status = check_ops(d->ops, d->place, err);
    if (status == MOE_OK) {
        *out = d;
    } else if (d->ops->close != NULL) {
        compute_close(d);
    }
    return status;
}

static moe_status load_module(const char *file, const compute_module **out, moe_error *err)
{
    union {
        void *object;
        compute_module_fn function;
    } symbol;
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);

    if (handle == NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "the module cannot be opened: %.300s", dlerror());
    }
    symbol.object = dlsym(handle, COMPUTE_MODULE_SYMBOL);
    if (symbol.object == NULL) {
        (void)dlclose(handle);
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%.300s is no module of ours: it has no %s", file,
                        COMPUTE_MODULE_SYMBOL);
    }
    const compute_module *m = symbol.function();
    moe_status status = check_module(m, file, err);

    if (status == MOE_OK) {
        *out = m;
    } else {
        (void)dlclose(handle);
    }
    return status;
}

static moe_status open_module(const char *file, const compute_module **out, moe_error *err)
{
    char found[MAX_PATH];
    moe_status status = MOE_OK;

    pthread_mutex_lock(&opened.lock);
    if (opened.module == NULL) {
        if (file == NULL && !find_file(found)) {
            status = moe_fail(err, MOE_ERR_UNSUPPORTED,
                              "no " MODULE_FILE " beside this program, nor in ../lib/conclave or ../lib");
        } else {
            status = load_module(file != NULL ? file : found, &opened.module, err);
        }
    }
    *out = opened.module;
    pthread_mutex_unlock(&opened.lock);
    return status;
}

/* ------------------------------------------------------------------------------------------------ names */
typedef struct kind {
    const char *name;
    moe_status (*open)(const compute_device_options *options, compute_device **out, moe_error *err);
} kind;

static const kind built_in[] = {{"cpu", cpu_open}, {"guarded", guarded_open}};

static const kind *find_built_in(const char *name)
{
    for (size_t i = 0; i < MOE_COUNT(built_in); i++) {
        if (strcmp(name, built_in[i].name) == 0) {
            return &built_in[i];
        }
    }
    return NULL;
}

/* "cuda" or "cuda:N". */
static bool parse_module_name(const char *name, uint32_t *index_out)
{
    size_t n = strlen(MODULE_KIND);
    char *end;

    *index_out = 0;
    if (strncmp(name, MODULE_KIND, n) != 0) {
        return false;
    }
    if (name[n] == '\0') {
        return true;
    }
    if (name[n] != ':' || name[n + 1] < '0' || name[n + 1] > '9') {
        return false;
    }
    unsigned long index = strtoul(name + n + 1, &end, 10);
    *index_out = (uint32_t)MOE_MIN(index, UINT32_MAX);
    return *end == '\0';
}

static moe_status unknown(const char *name, moe_error *err)
{
    moe_guess guess = moe_guess_of(name, strlen(name));

    moe_guess_offer(&guess, "auto");
    moe_guess_offer(&guess, "cpu");
    moe_guess_offer(&guess, MODULE_KIND);
    return moe_fail(err, MOE_ERR_INVALID_ARG, "device \"%.40s\": cpu, cuda, cuda:N or auto%s%s%s", name,
                    guess.best != NULL ? " (did you mean " : "", guess.best != NULL ? guess.best : "",
                    guess.best != NULL ? "?)" : "");
}

/* ------------------------------------------------------------------------------------------------ finding */
static moe_status check_gpu(const compute_module_devices *all, uint32_t index, moe_error *err)
{
    if (all->n_devices == 0) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "%s", all->problem);
    }
    if (index >= all->n_devices) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "there is no GPU %u: this machine has %u", index, all->n_devices);
    }
    if (all->devices[index].problem[0] != '\0') {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "GPU %u, %s: %s", index, all->devices[index].name,
                        all->devices[index].problem);
    }
    return MOE_OK;
}

static moe_status enumerate(const char *file, compute_module_devices *out, moe_error *err)
{
    const compute_module *m;
    moe_status status = open_module(file, &m, err);

    *out = (compute_module_devices){.n_devices = 0};
    if (status == MOE_OK) {
        m->enumerate(out);
        out->n_devices = MOE_MIN(out->n_devices, COMPUTE_MODULE_DEVICES);
    }
    return status;
}

static void tell_gpu(compute_found *out, const compute_module_devices *all, uint32_t index)
{
    const compute_module_device *d = &all->devices[index];

    (void)snprintf(out->place, sizeof out->place, MODULE_KIND ":%u", index);
    (void)snprintf(out->why, sizeof out->why, "%s, %llu MiB, %llu MiB free", d->name,
                   (unsigned long long)(d->memory_bytes >> 20), (unsigned long long)(d->free_bytes >> 20));
}

static moe_status find_gpu(uint32_t index, const char *file, compute_found *out, moe_error *err)
{
    moe_error why = {""};
    compute_module_devices all;
    moe_status status = enumerate(file, &all, &why);

    if (status == MOE_OK) {
        status = check_gpu(&all, index, &why);
    }
    if (status != MOE_OK) {
        return moe_fail(err, status, "device " MODULE_KIND ": %.340s", why.text);
    }
    tell_gpu(out, &all, index);
    return MOE_OK;
}

/* A module that was named is one that is wanted: that it cannot be opened is no reason to go without. */
static moe_status find_any(const char *file, compute_found *out, moe_error *err)
{
    moe_error why = {""};
    compute_module_devices all;
    moe_status status = enumerate(file, &all, &why);

    if (status != MOE_OK && file != NULL) {
        return moe_fail(err, status, "device auto: %.340s", why.text);
    }
    if (status == MOE_OK) {
        status = check_gpu(&all, 0, &why);
    }
    for (uint32_t i = 0; i < all.n_devices; i++) {
        if (all.devices[i].problem[0] == '\0') {
            tell_gpu(out, &all, i);
            return MOE_OK;
        }
    }
    *out = (compute_found){.place = "cpu"};
    (void)snprintf(out->why, sizeof out->why, "no GPU is used: %.230s", why.text);
    return MOE_OK;
}

moe_status compute_find(const char *name, const char *module, compute_found *out, moe_error *err)
{
    const kind *k = find_built_in(name);
    uint32_t index;

    if (k != NULL) {
        *out = (compute_found){.why = "asked for"};
        (void)snprintf(out->place, sizeof out->place, "%s", k->name);
        return MOE_OK;
    }
    if (strcmp(name, "auto") == 0) {
        return find_any(module, out, err);
    }
    return parse_module_name(name, &index) ? find_gpu(index, module, out, err) : unknown(name, err);
}

moe_status compute_open(const char *name, const compute_device_options *options, compute_device **out, moe_error *err)
{
    const kind *k = find_built_in(name);
    const compute_module *m;
    compute_found found;
    uint32_t index;

    if (k != NULL) {
        return k->open(options, out, err);
    }
    moe_status status = compute_find(name, NULL, &found, err);
    if (status != MOE_OK || !parse_module_name(found.place, &index)) {
        return status != MOE_OK ? status : compute_open(found.place, options, out, err);
    }
    status = open_module(NULL, &m, err);
    return status == MOE_OK ? open_device(m, index, options, out, err) : status;
}

/* ------------------------------------------------------------------------------------------------ host memory */
void *compute_host_alloc(compute_device *d, size_t bytes)
{
    return d->ops->host_alloc != NULL ? d->ops->host_alloc(d, bytes) : moe_pages_alloc(bytes);
}

void compute_host_free(compute_device *d, void *p, size_t bytes)
{
    if (p == NULL || d->ops->host_alloc == NULL) {
        moe_pages_free(p, bytes);
    } else {
        d->ops->host_free(d, p, bytes);
    }
}
