/* A device in a file of its own: what libconclave-cuda.so and the registry agree on. The file is opened when its device is
 * asked for, and stays open. It exports one symbol, COMPUTE_MODULE_SYMBOL, and needs none of the program's.
 *
 * The descriptor begins with what is compared before anything else of it is used: the ABI number, and the sizes of what both
 * sides are compiled against, in case that somebody forgot the number. */
#ifndef CONCLAVE_COMPUTE_MODULE_H
#define CONCLAVE_COMPUTE_MODULE_H

#include "compute/compute.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COMPUTE_MODULE_DEVICES 16

typedef struct compute_module_device {
    char name[64]; /* as its maker calls it: "NVIDIA H200" */
    uint64_t memory_bytes, free_bytes;
    char problem[128]; /* why it cannot be used; "": it can */
} compute_module_device;

typedef struct compute_module_devices {
    compute_module_device devices[COMPUTE_MODULE_DEVICES];
    uint32_t n_devices;
    char problem[256]; /* why there is none: "no NVIDIA driver"; "" where there are some */
} compute_module_devices;

typedef struct compute_module {
    uint32_t abi, ops_bytes, options_bytes, devices_bytes; /* COMPUTE_MODULE_HEAD */
    const char *kind;                                      /* "cuda" */
    const char *release;                                   /* MOE_VERSION */
    /* Never fails: what is wrong stands in the answer. Any thread. */
    void (*enumerate)(compute_module_devices *out);
    /* Opens device `index`; its place is "kind:index". Errors: MOE_ERR_UNSUPPORTED, MOE_ERR_NO_MEMORY (bytes wanted and
     * free), MOE_ERR_INVALID_ARG. */
    moe_status (*open)(uint32_t index, const compute_device_options *options, compute_device **out, moe_error *err);
} compute_module;

#define COMPUTE_MODULE_HEAD                                                                                            \
    COMPUTE_ABI, (uint32_t)sizeof(compute_ops), (uint32_t)sizeof(compute_device_options),                              \
        (uint32_t)sizeof(compute_module_devices)

#define COMPUTE_MODULE_SYMBOL "conclave_compute_module"
typedef const compute_module *(*compute_module_fn)(void);
/* The exported one: extern "C" __attribute__((visibility("default"))) const compute_module *conclave_compute_module(void); */

#ifdef __cplusplus
}
#endif

#endif
