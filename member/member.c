#include "member/member.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/wire.h"

#define LEAST_SECRET 16
#define CONNECT_MS   1000 /* as NAME_NS chosen, not measured: the cluster's thread waits so long */
#define NAME_NS      UINT64_C(1000000000)
#define LARGE_BYTES  ((size_t)256 << 20)
#define FILE_BYTES   ((size_t)1 << 20) /* of a certificate, a key or a password */

const char *const member_dtypes[] = {"auto",
#define X(id, name, option, dtype) option,
                                     COMPUTE_CLASS_MAP(X)
#undef X
                                         NULL};
const char *const member_weights[] = {"packed", "mapped", NULL};

/* ------------------------------------------------------------------------------------------------ options */
int member_exit_code(moe_status status)
{
    switch (status) {
    case MOE_ERR_UNSUPPORTED:
    case MOE_ERR_CORRUPT:
    case MOE_ERR_DENIED:
        return MOE_EXIT_USAGE;
    default:
        return moe_exit_code(status);
    }
}

moe_status member_store_open(const member_config *m, cluster_store **out, moe_error *err)
{
    const cluster_etcd_options etcd = {.endpoints = m->etcd,
                                       .user = m->etcd_user,
                                       .password_file = m->etcd_password_file,
                                       .ca = m->etcd_ca,
                                       .cert = m->etcd_cert,
                                       .key = m->etcd_key};

    return cluster_etcd_open(&etcd, out, err);
}

static moe_status read_name(member_config *m, moe_error *err)
{
    char host[256] = "";
    const char *id = m->id;

    if (id == NULL) {
        if (gethostname(host, sizeof host - 1) != 0) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "--id is needed: the host has no name");
        }
        id = host;
    }
    if (!cluster_name_is_valid(id)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--id \"%.80s\": not a name: 1 to %d of A-Z a-z 0-9 . - _", id,
                        ROUTER_MAX_NODE_ID);
    }
    memcpy(m->name, id, strlen(id) + 1);
    return MOE_OK;
}

static void forget(char *bytes, size_t n)
{
    if (bytes != NULL) {
        explicit_bzero(bytes, n);
        free(bytes);
    }
}

void member_forget_secret(member_config *m)
{
    forget(m->secret, m->n_secret);
    m->secret = NULL;
    m->n_secret = 0;
}

static moe_status read_secret(member_config *m, moe_error *err)
{
    if (m->secret_file == NULL) {
        return MOE_OK;
    }
    moe_status status =
        moe_file_read_named("--secret-file", m->secret_file, WIRE_MAX_SECRET, &m->secret, &m->n_secret, err);
    if (status != MOE_OK) {
        return status;
    }
    while (m->n_secret > 0 && (m->secret[m->n_secret - 1] == '\n' || m->secret[m->n_secret - 1] == '\r')) {
        m->n_secret--;
    }
    return m->n_secret >= LEAST_SECRET
               ? MOE_OK
               : moe_fail(err, MOE_ERR_INVALID_ARG, "--secret-file %s: holds %zu bytes, at least %d are needed",
                          m->secret_file, m->n_secret, LEAST_SECRET);
}

/* They are read by libraries, and again, as long as the program runs; here only whether they can be. */
static moe_status check_etcd_files(const member_config *m, moe_error *err)
{
    const struct {
        const char *option, *path;
    } files[] = {{"--etcd-password-file", m->etcd_password_file},
                 {"--etcd-ca", m->etcd_ca},
                 {"--etcd-cert", m->etcd_cert},
                 {"--etcd-key", m->etcd_key}};
    moe_status status = MOE_OK;

    for (size_t i = 0; i < MOE_COUNT(files) && status == MOE_OK; i++) {
        char *bytes = NULL;
        size_t n = 0;

        if (files[i].path != NULL) {
            status = moe_file_read_named(files[i].option, files[i].path, FILE_BYTES, &bytes, &n, err);
        }
        forget(bytes, n);
    }
    return status;
}

moe_status member_check(member_config *m, moe_error *err)
{
    cluster_store *store = NULL;
    moe_status status = read_name(m, err);

    if (status == MOE_OK && !cluster_name_is_valid(m->cluster)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "--cluster \"%.80s\": not a name: 1 to %d of A-Z a-z 0-9 . - _",
                          m->cluster, ROUTER_MAX_NODE_ID);
    }
    if (status == MOE_OK) {
        status = read_secret(m, err);
    }
    if (status == MOE_OK) {
        status = check_etcd_files(m, err);
    }
    if (status == MOE_OK) {
        status = member_store_open(m, &store, err);
        cluster_store_close(store);
    }
    return status;
}

transport_lane member_lane(const member_config *m)
{
    size_t lane = 0;

    while (strcmp(m->transport, transport_lane_names[lane]) != 0) {
        lane++; /* the options know no other names */
    }
    return (transport_lane)lane;
}

static moe_status read_rdma_network(member_config *m, moe_error *err)
{
    transport_lane lane = member_lane(m);

    if (m->rdma_network == NULL) {
        return MOE_OK;
    }
    if (lane != TRANSPORT_LANE_AUTO && lane != TRANSPORT_LANE_RDMA) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--rdma-network: --transport %s uses no RDMA, auto and rdma do",
                        m->transport);
    }
    return transport_network_parse("--rdma-network", m->rdma_network, &m->private_network, err);
}

moe_status member_lane_check(member_config *m, bool insecure, moe_error *err)
{
    moe_status status = read_rdma_network(m, err);

    if (status != MOE_OK) {
        return status;
    }
    if (member_lane(m) != TRANSPORT_LANE_UCX_TCP) {
        return MOE_OK;
    }
    if (!insecure) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--transport ucx-tcp: whoever reaches UCX's ports can write into this process's memory; "
                        "--insecure allows it, --transport auto needs no such ports");
    }
    MOE_WARN(
        "--transport ucx-tcp: whoever reaches UCX's ports can write into this process's memory, with or without the "
        "secret; this is for a network that no stranger reaches");
    return MOE_OK;
}

/* One piece of the transport, unless not even one row's results fit. */
size_t member_max_message(const model_config *c, compute_class numeric_class)
{
    uint16_t dtype = compute_class_dtype(numeric_class) == COMPUTE_BF16 ? WIRE_BF16 : WIRE_F32;
    size_t least = wire_result_bytes(2 * (size_t)c->gate.k, c->d_model, dtype);

    return MOE_MAX(TRANSPORT_NET_PIECE, least);
}

moe_status member_find(moe_resolver *names, const char *address, moe_ips *out, uint16_t *port_out)
{
    moe_address a;
    moe_status status = moe_address_parse("address", address, -1, &a, NULL);

    if (status != MOE_OK || a.host[0] == '\0') {
        return MOE_ERR_INVALID_ARG;
    }
    *port_out = a.port;
    out->n = 1;
    return moe_ip_parse(a.host, &out->at[0]) ? MOE_OK : moe_resolver_wait(names, a.host, NAME_NS, out, NULL);
}

/* UNKNOWN: nothing is heard from there. */
static cluster_alive listens(const moe_ip *ip, uint16_t port, int timeout_ms)
{
    struct sockaddr_storage to;
    socklen_t bytes = (socklen_t)moe_ip_sockaddr(ip, port, &to), n = sizeof(int);
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error = fd >= 0 && connect(fd, (const struct sockaddr *)&to, bytes) == 0 ? 0 : errno;

    if (fd < 0) {
        return CLUSTER_ALIVE_UNKNOWN;
    }
    if (error == EINPROGRESS) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};

        if (poll(&p, 1, timeout_ms) == 1) {
            (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
        }
    }
    (void)close(fd);
    return error == 0 ? CLUSTER_ALIVE_YES : error == ECONNREFUSED ? CLUSTER_ALIVE_NO : CLUSTER_ALIVE_UNKNOWN;
}

cluster_alive member_alive(moe_resolver *names, const char *address, const char *own_address)
{
    cluster_alive answer = CLUSTER_ALIVE_NO;
    uint16_t port;
    moe_ips ips;

    if (strcmp(address, own_address) == 0) {
        return CLUSTER_ALIVE_NO;
    }
    moe_status status = member_find(names, address, &ips, &port);
    if (status != MOE_OK) {
        return status == MOE_ERR_INVALID_ARG ? CLUSTER_ALIVE_NO : CLUSTER_ALIVE_UNKNOWN;
    }
    for (size_t i = 0; i < ips.n; i++) {
        cluster_alive at = listens(&ips.at[i], port, CONNECT_MS / (int)ips.n);

        if (at == CLUSTER_ALIVE_YES) {
            return at;
        }
        answer = at == CLUSTER_ALIVE_UNKNOWN ? at : answer;
    }
    return answer;
}

compute_class member_class(const char *dtype, const model_tensors *t)
{
    for (int c = 0; c < COMPUTE_N_CLASSES; c++) {
        if (strcmp(dtype, compute_class_of((compute_class)c)->option) == 0) {
            return (compute_class)c;
        }
    }
    return model_tensors_auto_class(t);
}

moe_status member_device(const member_config *m, char place[COMPUTE_MAX_PLACE], moe_error *err)
{
    compute_found found;
    moe_status status = compute_find(m->device, m->device_module, &found, err);

    if (status == MOE_OK) {
        MOE_INFO("device %s (--device %s): %s", found.place, m->device, found.why);
        memcpy(place, found.place, sizeof found.place);
    }
    return status;
}

moe_status member_gpu_frames(const member_config *m, const compute_device *d, transport_gpu *out, moe_error *err)
{
    size_t asked = 0;

    while (strcmp(m->gpu_frames, transport_gpu_names[asked]) != 0) {
        asked++; /* the options know no other names */
    }
    if (d->ops->frame_out == NULL && asked == TRANSPORT_GPU_ON) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "--gpu-frames on: device %s has no memory that a network reads",
                        d->name);
    }
    *out = d->ops->frame_out == NULL ? TRANSPORT_GPU_OFF : (transport_gpu)asked;
    return MOE_OK;
}

static compute_report report_of(compute_device *d)
{
    compute_report r = {.memory_bytes = 0};

    if (d->ops->report != NULL) {
        d->ops->report(d, &r);
    }
    return r;
}

size_t member_device_total(compute_device *d)
{
    return d->ops->report != NULL ? report_of(d).memory_bytes : moe_memory_total();
}

size_t member_device_memory(compute_device *d)
{
    return d->ops->report != NULL ? report_of(d).free_bytes : moe_memory_available();
}

compute_layout member_layout(const char *weights)
{
    return strcmp(weights, "mapped") == 0 ? COMPUTE_MAPPED : COMPUTE_PACKED;
}

/* ------------------------------------------------------------------------------------------------ files */
void member_pack_dir(const member_config *m, char out[MEMBER_MAX_PATH])
{
    char *fallback = m->cache_dir == NULL ? checkpoint_cache_dir() : NULL;
    const char *dir = m->cache_dir != NULL ? m->cache_dir : fallback;
    int n = dir != NULL && dir[0] != '\0' ? snprintf(out, MEMBER_MAX_PATH, "%s/packs", dir) : 0;

    if (n <= 0 || n >= MEMBER_MAX_PATH) {
        out[0] = '\0';
    }
    free(fallback);
}

moe_status member_files_open(member_files *f, const char *dir, moe_error *err)
{
    moe_status status = model_config_load(dir, &f->config, err);

    if (status == MOE_ERR_NOT_FOUND) {
        return checkpoint_explain(dir, "no config.json", err);
    }
    if (status == MOE_OK) {
        status = model_config_space(&f->config, &f->space, err);
    }
    if (status == MOE_OK) {
        status = checkpoint_open(dir, &f->checkpoint, err);
    }
    return status == MOE_OK ? model_tensors_open(&f->config, f->checkpoint, &f->tensors, err) : status;
}

moe_status member_files_hash(member_files *f, moe_threads *threads, const char *cache_dir, checkpoint_progress report,
                             void *report_ctx, moe_error *err)
{
    return model_tensors_manifest(f->tensors, threads, cache_dir, report, report_ctx, &f->manifest, err);
}

moe_status member_files_read_own(member_files *f, const char *dir, moe_error *err)
{
    catalogue_model of = {.space = f->space, .min_experts = f->config.gate.k};

    memcpy(of.fingerprint, f->manifest.fingerprint.bytes, sizeof of.fingerprint);
    return catalogue_read_own(&of, dir, &f->own, err);
}

void member_files_close(member_files *f)
{
    router_set_unref(f->own);
    router_space_unref(f->space);
    checkpoint_manifest_fini(&f->manifest);
    model_tensors_close(f->tensors);
    checkpoint_close(f->checkpoint);
}

cluster_model member_model(const member_files *f, compute_class numeric_class)
{
    cluster_model m = {.family = f->config.model_type,
                       .numeric_class = compute_class_name(numeric_class),
                       .space = f->space,
                       .own = f->own,
                       .k = f->config.gate.k,
                       .d_model = f->config.d_model,
                       .expert_bytes = model_expert_bytes(&f->config, f->tensors)};

    memcpy(m.fingerprint, f->manifest.fingerprint.bytes, sizeof m.fingerprint);
    return m;
}

void member_report_progress(void *ctx, size_t done, size_t total)
{
    member_progress *p = ctx;
    int tenth = total > 0 ? (int)(10.0 * (double)done / (double)total) : 10;

    if (tenth != p->last_tenth && total > LARGE_BYTES) {
        p->last_tenth = tenth;
        MOE_INFO("%s: %d %% of %.1f GB", p->what, tenth * 10, (double)total * 1e-9);
    }
}
