/* Modules for the registry's tests, one of each FAULT_: what may lie where libconclave-cuda.so is looked for. FAULT_NONE computes nothing either: its ops
 * are there, and end the process. */
#include "compute/module.h"

#include <stdlib.h>

#define OP_STUB(result, name, parameters)                                                                              \
    static result stub_##name parameters                                                                               \
    {                                                                                                                  \
        abort();                                                                                                       \
    }
#define STUB_OWN                                              OP_STUB
#define STUB_QUEUED                                           OP_STUB
#define STUB_FETCHED                                          OP_STUB
#define STUB_HOST                                             OP_STUB
#define STUB_ASKED                                            OP_STUB
#define STUB_OPTIONAL                                         OP_STUB
#define STUB_OPTIONAL_ASKED                                   OP_STUB
#define STUB_OPTIONAL_FETCHED                                 OP_STUB
#define COMPUTE_OP(kind, result, name, parameters, arguments) STUB_##kind(result, name, parameters)
#include "compute/ops.h"

static compute_ops ops = {
#define COMPUTE_OP(kind, result, name, parameters, arguments) .name = stub_##name,
#include "compute/ops.h"
};
static compute_device device = {.ops = &ops, .place = "cuda:0", .name = "cuda:0 test"};

static void close_nothing(compute_device *d)
{
    (void)d;
}

static void enumerate(compute_module_devices *out)
{
    *out = (compute_module_devices){.n_devices = 1, .devices = {{.name = "test", .memory_bytes = 3u << 20}}};
#if defined(FAULT_GPU)
    *out = (compute_module_devices){.problem = "no GPU today"};
#elif defined(FAULT_OLD)
    (void)snprintf(out->devices[0].problem, sizeof out->devices[0].problem, "too old");
#endif
}

static moe_status open_one(uint32_t index, const compute_device_options *options, compute_device **out, moe_error *err)
{
    device.numeric_class = options->numeric_class;
    ops.close = close_nothing;
    ops.report = NULL; /* optional */
    ops.host_alloc = NULL;
    ops.host_free = NULL;
#if defined(FAULT_REFUSES)
    (void)out;
    (void)snprintf(err->text, sizeof err->text, "GPU %u: 100 bytes wanted, 7 free", index);
    return MOE_ERR_NO_MEMORY;
#else
    (void)index;
    (void)err;
#if defined(FAULT_OP)
    ops.matmul = NULL;
#endif
    *out = &device;
    return MOE_OK;
#endif
}

#if !defined(FAULT_SYMBOL)
__attribute__((visibility("default"))) const compute_module *conclave_compute_module(void);
const compute_module *conclave_compute_module(void)
{
    static compute_module m = {COMPUTE_MODULE_HEAD, .kind = "cuda", .release = "test", .enumerate = enumerate,
                               .open = open_one};

#if defined(FAULT_ABI)
    m.abi = COMPUTE_ABI + 1;
#elif defined(FAULT_SIZES)
    m.ops_bytes += sizeof(void *);
#elif defined(FAULT_KIND)
    m.kind = "abacus";
#elif defined(FAULT_HALF)
    m.open = NULL;
#elif defined(FAULT_NOTHING)
    return NULL;
#endif
    return &m;
}
#endif
