#include "bench/gpu_limits.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#define MAX_PATH 4096
#define SUFFIX   ".so"

/* In place of the program's own name. */
static bool beside_program(const char *file, char out[MAX_PATH])
{
    ssize_t n = readlink("/proc/self/exe", out, MAX_PATH - 1);

    out[n > 0 ? n : 0] = '\0';
    char *name = strrchr(out, '/');
    size_t room = name != NULL ? MAX_PATH - (size_t)(name + 1 - out) : 0;
    return room > strlen(file) && snprintf(name + 1, room, "%s", file) > 0;
}

moe_status gpu_limits_open(const char *module, gpu_limits_fn *out, moe_error *err)
{
    union {
        void *object;
        gpu_limits_fn function;
    } symbol;
    char path[MAX_PATH] = "", file[MAX_PATH + sizeof "-limits"];

    if (module == NULL && !beside_program("libconclave-cuda" SUFFIX, path)) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "no limits of a GPU: this program does not know where it lies");
    }
    module = module != NULL ? module : path;
    size_t n = strlen(module) - MOE_MIN(strlen(module), strlen(SUFFIX));
    (void)snprintf(file, sizeof file, "%.*s-limits%s", (int)MOE_MIN(n, MAX_PATH - 1), module, SUFFIX);
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    symbol.object = handle != NULL ? dlsym(handle, GPU_LIMITS_SYMBOL) : NULL;
    if (symbol.object == NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "no limits of a GPU: %.300s", dlerror());
    }
    *out = symbol.function;
    return MOE_OK;
}
