/* member: what every program does to become a member of a cluster, node or coordinator: its command line options, the
 * checkpoint with its manifest, name, secret and the way into etcd.
 *
 * Threads: the program's main thread, but for member_find and member_alive. */
#ifndef CONCLAVE_MEMBER_H
#define CONCLAVE_MEMBER_H

#include "base/base.h"
#include "catalogue/catalogue.h"
#include "cluster/cluster.h"
#include "model/model.h"
#include "transport/transport.h"

/* ------------------------------------------------------------------------------------------------ options */
typedef struct member_config {
    char *etcd, *cluster, *id, *transport, *rdma_network, *secret_file;
    char *etcd_user, *etcd_password_file, *etcd_ca, *etcd_cert, *etcd_key;
    char *device, *device_module, *gpu_frames, *dtype, *isa, *weights, *cache_dir;
    uint32_t threads;
    transport_network private_network; /* what rdma_network says: member_lane_check reads it */
    /* member_check reads these. */
    char name[ROUTER_MAX_NODE_ID + 1]; /* --id, or the host's */
    char *secret;                      /* [n_secret] owned: of --secret-file, without newlines at its end; NULL: none */
    size_t n_secret;
} member_config;

extern const char *const member_dtypes[], *const member_weights[];

#define MEMBER_TEXT(at, field, default_value, shown, text)                                                             \
    {                                                                                                                  \
        .name = #field, .kind = MOE_OPT_STRING, .offset = (at) + offsetof(member_config, field),                       \
        .fallback = (default_value), .value = (shown), .help = (text)                                                  \
    }
#define MEMBER_CHOICE(at, field, default_value, among, shown, text)                                                    \
    {                                                                                                                  \
        .name = #field, .kind = MOE_OPT_CHOICE, .offset = (at) + offsetof(member_config, field),                       \
        .fallback = (default_value), .choices = (among), .value = (shown), .help = (text)                              \
    }
/* Rows of an option table whose config has a member_config at this offset. */
#define MEMBER_OPTIONS(at)                                                                                             \
    MEMBER_TEXT(at, etcd, NULL, "URL[,URL]",                                                                           \
                "etcd, which keeps the cluster's state; several addresses are tried in turn"),                         \
        MEMBER_TEXT(at, cluster, "default", "NAME", "the cluster to join"),                                            \
        MEMBER_TEXT(at, id, NULL, "NAME", "this member's name in the cluster; default: the host's"),                   \
        MEMBER_CHOICE(                                                                                                 \
            at, transport, "auto", transport_lane_names, "LANE",                                                       \
            "how frames travel between members, in all alike; auto: by shared memory within a host, else by TLS. "     \
            "rdma: the program does not start where there is none. ucx-tcp needs --insecure"),                         \
        MEMBER_TEXT(at, rdma_network, NULL, "CIDR|all",                                                                \
                    "a network that no stranger reaches: --transport auto uses RDMA between members in it that have "  \
                    "it, unencrypted; --transport rdma is kept to it"),                                                \
        MEMBER_TEXT(at, secret_file, NULL, "FILE",                                                                     \
                    "the cluster's secret: members prove to each other that they know it"),                            \
        MEMBER_TEXT(at, etcd_user, NULL, "NAME", "user of etcd"),                                                      \
        MEMBER_TEXT(at, etcd_password_file, NULL, "FILE", "its password"),                                             \
        MEMBER_TEXT(at, etcd_ca, NULL, "FILE", "PEM file of the authority that signed etcd's certificate"),            \
        MEMBER_TEXT(at, etcd_cert, NULL, "FILE", "PEM client certificate for etcd, without a common name"),            \
        MEMBER_TEXT(at, etcd_key, NULL, "FILE", "its private key"),                                                    \
        MEMBER_TEXT(                                                                                                   \
            at, device, "auto", "DEVICE",                                                                              \
            "what computes: cpu, cuda or cuda:N (a GPU, by its number); auto: a GPU that can be used if there "        \
            "is one, else cpu. All give the same bits"),                                                               \
        MEMBER_TEXT(at, device_module, NULL, "FILE",                                                                   \
                    "the module of --device cuda; default: libconclave-cuda.so beside this program, or in "            \
                    "../lib/conclave or ../lib from there"),                                                           \
        MEMBER_CHOICE(at, gpu_frames, "auto", transport_gpu_names, "WHEN",                                             \
                      "whether frames by UCX (--transport rdma, ucx-tcp, auto with --rdma-network) go from the "       \
                      "memory of a GPU; auto: where UCX says that it can; on: the program does not start where not"),  \
        MEMBER_CHOICE(at, dtype, "auto", member_dtypes, "DTYPE",                                                       \
                      "numeric class; auto: a node takes its cluster's; else bf16 for BF16 checkpoints, f32 for "      \
                      "others"),                                                                                       \
        MEMBER_CHOICE(at, isa, "auto", compute_isa_names, "ISA", "instruction set of a CPU; all give the same bits"),  \
        MEMBER_CHOICE(at, weights, "packed", member_weights, "LAYOUT",                                                 \
                      "packed: copied into the fastest layout; mapped: used from the files. Matrices that these "      \
                      "store input-major (MoLM's experts) are packed in any case"),                                    \
        {.name = "threads",                                                                                            \
         .kind = MOE_OPT_U32,                                                                                          \
         .offset = (at) + offsetof(member_config, threads),                                                            \
         .fallback = "0",                                                                                              \
         .min = 0,                                                                                                     \
         .max = 1024,                                                                                                  \
         .value = "N",                                                                                                 \
         .help = "compute threads; 0: the cores this process may use"},                                                \
        MEMBER_TEXT(at, cache_dir, NULL, "DIR",                                                                        \
                    "where the manifest is cached, and packs that were read from other nodes are; default: "           \
                    "$XDG_CACHE_HOME/conclave or ~/.cache/conclave")

#define MEMBER_MAX_PATH 4096
/* Where packs of other members are kept: below --cache-dir; "": there is no such directory. */
void member_pack_dir(const member_config *m, char out[MEMBER_MAX_PATH]);

#define MEMBER_EXIT_DISPLACED 4 /* another process has taken the member's name (cluster_is_displaced) */

/* What the options say of the cluster: its name and ours, the secret, the way into etcd and the files that all of them name.
 * Before what takes long: nothing of it needs the checkpoint. Our name and the secret are read here, once. Errors:
 * MOE_ERR_INVALID_ARG names the option. */
MOE_NODISCARD moe_status member_check(member_config *m, moe_error *err);
void member_forget_secret(member_config *m); /* cleansed; also after a check that failed, or without one */
MOE_NODISCARD moe_status member_store_open(const member_config *m, cluster_store **out, moe_error *err);
transport_lane member_lane(const member_config *m);
/* Reads --rdma-network, too. Errors: MOE_ERR_INVALID_ARG when --transport opens this process to strangers, unless `insecure`; then it is
 * warned of; or for --rdma-network. */
MOE_NODISCARD moe_status member_lane_check(member_config *m, bool insecure, moe_error *err);
/* The bytes of one frame between members: equal in all of them. */
size_t member_max_message(const model_config *c, compute_class numeric_class);
/* Where HOST:PORT is; a name is asked of `names`, for a second at most. Any thread. Errors: MOE_ERR_INVALID_ARG (no
 * address), MOE_ERR_NOT_FOUND (there is no such name), others when it could not be found out. */
MOE_NODISCARD moe_status member_find(moe_resolver *names, const char *address, moe_ips *out, uint16_t *port_out);
/* Whether somebody listens at the address of a coordinator under our own id. At our own address it is us. Takes two
 * seconds at most. Any thread. (Of nodes HELLO tells more: expert_node/program/alive.h.) */
cluster_alive member_alive(moe_resolver *names, const char *address, const char *own_address);
/* --dtype and --weights. */
compute_class member_class(const char *dtype, const model_tensors *t);
/* What --device comes to here, for compute_open; says so in the log. Before what takes long. Errors: of compute_find. */
MOE_NODISCARD moe_status member_device(const member_config *m, char place[COMPUTE_MAX_PLACE], moe_error *err);
/* --gpu-frames, for a transport beside this device. Errors: MOE_ERR_UNSUPPORTED: on, and no network reads its memory. */
MOE_NODISCARD moe_status member_gpu_frames(const member_config *m, const compute_device *d, transport_gpu *out,
                                           moe_error *err);
/* Bytes that there are, and that weights and caches may still take: of the device if it has memory of its own, else of this
 * machine or control group. */
size_t member_device_total(compute_device *d);
size_t member_device_memory(compute_device *d);
compute_layout member_layout(const char *weights);

/* What a program ends with whose start has failed: MOE_EXIT_USAGE where another start with the same options and files fails
 * alike (docs/cli.md), else MOE_EXIT_FAILED. */
int member_exit_code(moe_status status);

/* ------------------------------------------------------------------------------------------------ files */
typedef struct member_files {
    model_config config;
    checkpoint *checkpoint;
    model_tensors *tensors;
    checkpoint_manifest manifest;
    router_space *space; /* of the checkpoint's experts; shared */
    router_set *own;     /* what the checkpoint itself routes to; shared; NULL: it was not read, all */
} member_files;

MOE_NODISCARD moe_status member_files_open(member_files *f, const char *dir, moe_error *err);
/* Hashes, or takes the cached manifest. */
MOE_NODISCARD moe_status member_files_hash(member_files *f, moe_threads *threads, const char *cache_dir,
                                           checkpoint_progress report, void *report_ctx, moe_error *err);
/* Reads `own` (catalogue_read_own), when the manifest is there. */
MOE_NODISCARD moe_status member_files_read_own(member_files *f, const char *dir, moe_error *err);
void member_files_close(member_files *f);
/* What the cluster compares; strings are the config's. */
cluster_model member_model(const member_files *f, compute_class numeric_class);

/* A log line per tenth of anything that is large: ctx is a member_progress. */
typedef struct member_progress {
    const char *what;
    int last_tenth; /* at first -1 */
} member_progress;
void member_report_progress(void *ctx, size_t done, size_t total);

#endif
