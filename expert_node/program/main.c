/* conclave-node: opens a checkpoint, joins the cluster, loads what the placement gives it, and answers until a signal.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "expert_node/program/alive.h"
#include "expert_node/program/program.h"

#define DISPATCH_ROWS 1024 /* unique rows of one dispatch, and of one batch */
#define BATCH_FRAMES  64
#define MAX_STRANGERS 256 /* connections at a time, greeted or not */

#define LEAVE_NS UINT64_C(2000000000)
#define ASK_NS   UINT64_C(1000000000)

volatile sig_atomic_t node_signals;

static volatile sig_atomic_t leaves_at_once; /* a signal ends the process: nothing is drained yet */

static void on_signal(int signal_number)
{
    (void)signal_number;
    if (leaves_at_once) {
        _exit(0);
    }
    node_signals = node_signals + 1;
}

typedef struct hashing {
    member_progress log;
    node_program_state *node;
} hashing;

/* Nothing is drained yet: a signal during the load ends the process. */
static void report_progress(void *ctx, size_t done, size_t total)
{
    hashing *h = ctx;

    if (node_signals > 0) {
        exit(0);
    }
    atomic_store(&h->node->hashed, total > 0 ? (unsigned)(100.0 * (double)done / (double)total) : 100u);
    member_report_progress(&h->log, done, total);
}

/* Where a coordinator shares the cores, the first node it sends to must not take its core before it has sent to the
 * others: a thread of this policy does not interrupt another by waking. Elsewhere it makes no difference. */
static void be_polite(void)
{
    const struct sched_param param = {0};

    if (sched_setscheduler(0, SCHED_BATCH, &param) != 0) {
        MOE_DEBUG("scheduling policy batch: %s", strerror(errno));
    }
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};

    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ------------------------------------------------------------------------------------------------ opening */
/* What experts may take if --memory does not say; 0 would be no bound. Not what is free at this moment: a node that is
 * started again must come back as the same, or it is given another share. */
static size_t default_memory(compute_device *d)
{
    size_t bytes = member_device_total(d) / 4 * 3, available = member_device_memory(d);
    char most[MOE_SIZE_TEXT], now[MOE_SIZE_TEXT];

    if (bytes > available) {
        MOE_WARN("experts may take %s, three quarters of the device's, this machine's or control group's memory, but "
                 "only %s are free: "
                 "give --memory where other programs need the rest",
                 moe_size_text(bytes, most), moe_size_text(available, now));
    }
    return MOE_MAX(bytes, (size_t)1);
}

static moe_status check_listen(node_config *o, moe_error *err)
{
    moe_address listen, advertise;
    moe_status status = moe_address_parse("--listen", o->listen, -1, &listen, err);

    if (status == MOE_OK && o->advertise != NULL) {
        status = moe_address_parse("--advertise", o->advertise, 0, &advertise, err);
        if (status == MOE_OK && moe_address_is_wildcard(&advertise)) {
            status = moe_fail(err, MOE_ERR_INVALID_ARG,
                              "--advertise \"%s\": every address of this machine; coordinators need one to connect to",
                              o->advertise);
        }
    }
    if (status != MOE_OK) {
        return status;
    }
    if (moe_address_is_wildcard(&listen) && o->advertise == NULL) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--listen \"%s\": every address of this machine; --advertise HOST:PORT must say which one "
                        "coordinators connect to",
                        o->listen);
    }
    if (!moe_address_is_loopback(&listen) && o->member.secret_file == NULL && !o->insecure) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--listen \"%s\": reachable from elsewhere; --secret-file FILE is needed (or --insecure)",
                        o->listen);
    }
    return member_lane_check(&o->member, o->insecure, err);
}

/* What coordinators are told: --advertise (its port, 0 or none, is the one found) or where we listen. */
static void set_address(node_program_state *p)
{
    const char *found = transport_net_address(p->transport), *given = p->config.advertise;
    moe_address a, bound;

    MOE_ASSERT(moe_address_parse("--advertise", given == NULL ? found : given, 0, &a, NULL) == MOE_OK &&
               moe_address_parse("address", found, -1, &bound, NULL) == MOE_OK);
    a.port = a.port == 0 ? bound.port : a.port;
    moe_address_print(&a, p->address);
}

/* The second one only makes experts: it never sees a row. */
static moe_status open_devices(node_program_state *p, compute_class numeric_class, moe_error *err)
{
    const model_config *m = &p->files.config;
    compute_device_options options = {.numeric_class = numeric_class,
                                      .isa = compute_isa_of(p->config.member.isa),
                                      .threads = p->threads,
                                      .max_rows = DISPATCH_ROWS,
                                      .max_ffn_rows = (size_t)DISPATCH_ROWS * m->gate.k,
                                      .max_d_ff = m->d_ff,
                                      .max_context = 1};
    moe_status status = compute_open(p->place, &options, &p->device, err);

    if (status == MOE_OK) {
        options.threads = p->loader_threads;
        options.max_rows = options.max_ffn_rows = 1;
        status = compute_open(p->place, &options, &p->loader_device, err);
    }
    if (status == MOE_OK) {
        p->memory_bytes = p->config.memory != 0 ? p->config.memory : default_memory(p->device);
    }
    return status;
}

static moe_status open_transport(node_program_state *p, moe_error *err)
{
    transport_net_options options = {.listen = p->config.listen,
                                     .lane = member_lane(&p->config.member),
                                     .rdma_network = p->config.member.private_network,
                                     .max_message = member_max_message(&p->files.config, p->device->numeric_class),
                                     .max_peers = MAX_STRANGERS,
                                     .secret = p->config.member.secret,
                                     .n_secret = p->config.member.n_secret};
    moe_status status = member_gpu_frames(&p->config.member, p->device, &options.gpu_frames, err);

    status = status == MOE_OK ? transport_net_open(&options, &p->transport, err) : status;
    if (status == MOE_OK) {
        set_address(p);
    }
    return status;
}

static void on_loaded(void *ctx)
{
    node_program_state *p = ctx;

    p->transport->ops->wake(p->transport);
}

/* ------------------------------------------------------------------------------------------------ packs */
static moe_status open_packs(node_program_state *p, moe_error *err)
{
    const pack_options options = {.key_file = p->config.pack_key};
    pack_base base;
    moe_status status = pack_base_of(&p->files.config, p->files.tensors, &p->files.manifest, &base, err);

    leaves_at_once = 1; /* all of them are read */
    if (node_signals > 0) {
        _exit(0);
    }
    status = status == MOE_OK ? shelf_open_all(&p->shelf, p->config.pack, &base, &options, err) : status;
    leaves_at_once = 0;
    return status;
}

/* What is on the shelf, whoever brought it: so a pack is there as long as one node that has read it is. */
static void offer_packs(node_program_state *p)
{
    cluster_pack packs[CLUSTER_MAX_PACKS] = {{.name = ""}}; /* compared byte by byte */
    size_t n = MOE_MIN((size_t)p->shelf.n, MOE_COUNT(packs));

    for (size_t i = 0; i < n; i++) {
        const pack *of = p->shelf.packs[i];

        (void)snprintf(packs[i].name, sizeof packs[i].name, "%s", pack_name(of));
        (void)snprintf(packs[i].version, sizeof packs[i].version, "%s", pack_version(of));
        (void)snprintf(packs[i].hash, sizeof packs[i].hash, "%s", pack_hash(of));
    }
    cluster_set_packs(p->cluster, packs, n);
}

/* An endpoint that calls another node. */
static moe_status dial(void *ctx, transport **out, moe_error *err)
{
    const node_program_state *p = ctx;
    const transport_net_options options = {.lane = member_lane(&p->config.member),
                                           .max_message = p->transport->max_message,
                                           .max_peers = 1,
                                           .secret = p->config.member.secret,
                                           .n_secret = p->config.member.n_secret};

    return transport_net_open(&options, out, err);
}

static void on_pack(void *ctx)
{
    node_program_state *p = ctx;

    offer_packs(p);
    assignment_retry(p->assignment);
    p->transport->ops->wake(p->transport);
}

static void probe_hello(const node_program_state *p, wire_hello *out);

static moe_status open_supply(node_program_state *p, moe_error *err)
{
    supply_options o = {.experts = &p->experts,
                        .shelf = &p->shelf,
                        .id = p->id,
                        .pack = {.key_file = p->config.pack_key},
                        .dir = p->pack_dir,
                        .clock = moe_clock_real(),
                        .max_bytes = SUPPLY_MAX_BYTES,
                        .bytes_per_second = p->config.load_bandwidth,
                        .key = &p->key,
                        .dial = dial,
                        .dial_ctx = p,
                        .done = on_pack,
                        .done_ctx = p};
    moe_status status = pack_base_of(&p->files.config, p->files.tensors, &p->files.manifest, &o.base, err);

    member_pack_dir(&p->config.member, p->pack_dir);
    probe_hello(p, &o.hello);
    o.hello.role = WIRE_READER;
    if (status == MOE_OK && wire_key_init(&p->key, p->config.member.secret, p->config.member.n_secret) != MOE_OK) {
        status = moe_fail(err, MOE_ERR_INTERNAL, "no key of the secret");
    }
    return status == MOE_OK ? supply_open(&o, &p->supply, err) : status;
}

static moe_status open_loader(node_program_state *p, moe_error *err)
{
    const loader_options o = {.source = expert_source_checkpoint(&p->experts),
                              .device = p->loader_device,
                              .clock = moe_clock_real(),
                              .bytes_per_second = p->config.load_bandwidth,
                              .done = on_loaded,
                              .ctx = p};
    moe_status status = loader_open(&o, &p->loader, err);

    p->experts.more = loader_pace;
    p->experts.more_ctx = p->loader;
    return status;
}

static moe_status open_node(node_program_state *p, moe_error *err)
{
    const model_config *m = &p->files.config;
    expert_node_options o = {.id = p->id,
                             .cluster = p->config.member.cluster,
                             .incarnation = p->incarnation,
                             .transport = p->transport,
                             .device = p->device,
                             .packs = shelf_reads(&p->shelf),
                             .space = p->files.space,
                             .d_model = m->d_model,
                             .secret = p->config.member.secret,
                             .n_secret = p->config.member.n_secret,
                             .clock = moe_clock_real(),
                             .memory_bytes = p->memory_bytes,
                             .expert_bytes = model_expert_bytes(m, p->files.tensors),
                             .max_rows = DISPATCH_ROWS,
                             .max_picks = DISPATCH_ROWS * m->gate.k,
                             .batch_frames = BATCH_FRAMES,
                             .max_ffn_rows = (size_t)DISPATCH_ROWS * m->gate.k};

    memcpy(o.fingerprint, p->files.manifest.fingerprint.bytes, sizeof o.fingerprint);
    moe_status status = expert_node_open(&o, &p->node, err);
    p->experts = (expert_checkpoint){.config = m,
                                     .tensors = p->files.tensors,
                                     .device = p->loader_device,
                                     .layout = member_layout(p->config.member.weights),
                                     .manifest = &p->files.manifest};
    if (status == MOE_OK) {
        status = open_supply(p, err);
    }
    if (status == MOE_OK) {
        status = open_loader(p, err);
    }
    if (status == MOE_OK &&
        assignment_open(p->node, p->loader, p->id, p->files.space, moe_clock_real(), &p->assignment) != MOE_OK) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    return status;
}

/* What a coordinator of this cluster would say: the other node answers nobody else. */
static void probe_hello(const node_program_state *p, wire_hello *out)
{
    *out = (wire_hello){.role = WIRE_COORDINATOR,
                        .incarnation = p->incarnation,
                        .d_model = p->files.config.d_model,
                        .max_message = p->transport->max_message,
                        .max_rows = 1,
                        .max_picks = p->files.config.gate.k};
    (void)snprintf(out->member, sizeof out->member, "%s", p->id);
    (void)snprintf(out->cluster, sizeof out->cluster, "%s", p->config.member.cluster);
    (void)snprintf(out->numeric_class, sizeof out->numeric_class, "%s", compute_class_name(p->device->numeric_class));
    memcpy(out->fingerprint, p->files.manifest.fingerprint.bytes, sizeof out->fingerprint);
}

static cluster_alive ask_at(node_program_state *p, const char *address, uint64_t incarnation)
{
    cluster_alive answer = CLUSTER_ALIVE_UNKNOWN;
    wire_hello hello;
    transport *t = NULL;

    if (dial(p, &t, NULL) == MOE_OK) {
        probe_hello(p, &hello);
        answer = alive_node(t, &hello, &p->key, address, incarnation);
    }
    return answer;
}

/* Whether another incarnation of this node still answers. At our own address nobody else does. A name with several
 * addresses is asked at one after the other while a second has not passed: the lease waits. */
static cluster_alive on_alive(void *ctx, cluster_role role, const char *id, const char *address, uint64_t incarnation)
{
    node_program_state *p = ctx;
    cluster_alive answer = CLUSTER_ALIVE_NO;
    moe_address at = {.host = ""};
    char text[MOE_ADDRESS_BYTES];
    moe_ips ips;

    (void)role, (void)id;
    if (strcmp(address, p->address) == 0) {
        return CLUSTER_ALIVE_NO;
    }
    moe_status status = member_find(p->names, address, &ips, &at.port);
    if (status != MOE_OK) {
        return status == MOE_ERR_NOT_FOUND || status == MOE_ERR_INVALID_ARG ? CLUSTER_ALIVE_NO : CLUSTER_ALIVE_UNKNOWN;
    }
    uint64_t end = moe_now_ns(moe_clock_real()) + ASK_NS;
    for (size_t i = 0; i < ips.n && answer == CLUSTER_ALIVE_NO && moe_now_ns(moe_clock_real()) < end; i++) {
        moe_ip_print(&ips.at[i], at.host);
        moe_address_print(&at, text);
        answer = ask_at(p, text, incarnation);
    }
    return answer;
}

static void on_changed(void *ctx)
{
    node_program_state *p = ctx;

    assignment_notify(p->assignment);
    p->transport->ops->wake(p->transport);
}

static moe_status open_cluster(node_program_state *p, moe_error *err)
{
    cluster_options o = {.role = CLUSTER_NODE,
                         .cluster = p->config.member.cluster,
                         .id = p->id,
                         .address = p->address,
                         .incarnation = p->incarnation,
                         .model = member_model(&p->files, p->device->numeric_class),
                         .device = p->device->name,
                         .zone = p->config.zone,
                         .version = MOE_VERSION,
                         .memory_bytes = p->memory_bytes,
                         .secret = p->config.member.secret,
                         .n_secret = p->config.member.n_secret,
                         .ctx = p,
                         .alive = on_alive,
                         .changed = on_changed};
    moe_status status = member_store_open(&p->config.member, &p->store, err);

    o.store = p->store;
    if (status == MOE_OK && moe_resolver_open(&(moe_resolver_options){0}, &p->names) != MOE_OK) {
        status = moe_fail(err, MOE_ERR_NO_MEMORY, "names: out of memory");
    }
    if (status == MOE_OK) {
        status = cluster_open(&o, &p->cluster, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    offer_packs(p);
    supply_set_cluster(p->supply, p->cluster);
    return cluster_start(p->cluster, err);
}

/* All that depends on the numeric class. */
static void close_member(node_program_state *p)
{
    node_pages_detach(p);
    loader_close(p->loader);
    supply_close(p->supply);
    if (p->cluster != NULL) {
        cluster_stop(p->cluster, LEAVE_NS);
        cluster_close(p->cluster);
    }
    cluster_store_close(p->store);
    wire_key_fini(&p->key); /* which on_alive uses, too */
    moe_resolver_close(p->names);
    transport_close(p->transport);
    expert_node_close(p->node);
    assignment_close(p->assignment);
    compute_close(p->device);
    compute_close(p->loader_device);
    p->loader = NULL;
    p->supply = NULL;
    p->cluster = NULL;
    p->store = NULL;
    p->names = NULL;
    p->transport = NULL;
    p->node = NULL;
    p->assignment = NULL;
    p->device = p->loader_device = NULL;
}

/* ------------------------------------------------------------------------------------------------ joining */
/* Turns until the cluster has taken us, or it is clear that it will not. */
static moe_status join(node_program_state *p, moe_error *err)
{
    uint64_t idle_since = 0, said = moe_now_ns(moe_clock_real());
    moe_status status = MOE_ERR_UNAVAILABLE;

    while (node_signals == 0) {
        node_turn(p, &idle_since);
        status = cluster_status(p->cluster, err);
        if (status != MOE_ERR_UNAVAILABLE) {
            return status;
        }
        if (moe_now_ns(moe_clock_real()) - said > UINT64_C(5000000000)) {
            said = moe_now_ns(moe_clock_real());
            MOE_INFO("waiting for the cluster: %s", err->text);
        }
    }
    return MOE_ERR_CANCELLED;
}

static moe_status open_member(node_program_state *p, compute_class numeric_class, moe_error *err)
{
    moe_status status = open_devices(p, numeric_class, err);

    if (status == MOE_OK) {
        status = open_transport(p, err);
    }
    if (status == MOE_OK) {
        status = open_node(p, err);
    }
    if (status == MOE_OK) {
        status = open_cluster(p, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    node_pages_attach(p);
    return join(p, err);
}

/* The class is the cluster's: with --dtype auto the others are tried when the first is refused. */
static moe_status become_member(node_program_state *p, moe_error *err)
{
    compute_class first = member_class(p->config.member.dtype, p->files.tensors);
    moe_error other = {""};
    moe_status status = open_member(p, first, err), again = status;

    for (int c = 0; c < COMPUTE_N_CLASSES && again == MOE_ERR_DENIED && strcmp(p->config.member.dtype, "auto") == 0;
         c++) {
        if ((compute_class)c != first) {
            close_member(p);
            again = open_member(p, (compute_class)c, &other);
        }
    }
    return again == MOE_OK ? MOE_OK : status;
}

static moe_status start(node_program_state *p, moe_error *err)
{
    node_config *o = &p->config;
    hashing h = {.log = {.what = "hashing the checkpoint", .last_tenth = -1}, .node = p};
    moe_status status = check_listen(o, err);

    if (status == MOE_OK) {
        status = member_check(&o->member, err);
        p->id = o->member.name;
    }
    if (status == MOE_OK) {
        status = transport_net_check_listen(o->listen, err); /* it opens when the checkpoint's hash is known */
    }
    if (status == MOE_OK) {
        status = member_device(&o->member, p->place, err);
    }
    if (status == MOE_OK) {
        status = node_pages_open(p, err);
    }
    if (status == MOE_OK) {
        status = member_files_open(&p->files, o->model, err);
    }
    if (status == MOE_OK &&
        ((status = moe_threads_open(o->member.threads, compute_thread_init, &p->threads)) != MOE_OK ||
         (status = moe_threads_open(1, NULL, &p->loader_threads)) != MOE_OK)) {
        (void)moe_fail(err, status, "threads: cannot be created");
    }
    if (status == MOE_OK) {
        status = member_files_hash(&p->files, p->threads, o->member.cache_dir, report_progress, &h, err);
    }
    if (status == MOE_OK) {
        status = member_files_read_own(&p->files, o->model, err);
    }
    if (status == MOE_OK) {
        status = open_packs(p, err);
    }
    if (status == MOE_OK) {
        status = become_member(p, err);
    }
    p->registered_ns = moe_now_ns(moe_clock_real());
    atomic_store(&p->registered, status == MOE_OK);
    return status;
}

static void close_all(node_program_state *p)
{
    close_member(p);
    http_server_close(p->http);
    shelf_fini(&p->shelf);
    member_files_close(&p->files);
    moe_threads_close(p->loader_threads);
    moe_threads_close(p->threads);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->parts);
    member_forget_secret(&p->config.member);
    moe_options_fini(&node_program, &p->config);
}

static int fail(moe_status status, const moe_error *err)
{
    MOE_ERROR("%s", err->text[0] != '\0' ? err->text : moe_status_text(status));
    return member_exit_code(status);
}

static int run(node_program_state *p)
{
    moe_error err = {""};
    moe_status status = start(p, &err);

    if (status == MOE_ERR_CANCELLED) {
        return 0;
    }
    if (status != MOE_OK) {
        return fail(status, &err);
    }
    MOE_INFO("node %s of cluster %s, class %s, %s, transport %s, %zu MiB for experts", p->id, p->config.member.cluster,
             compute_class_name(p->device->numeric_class), p->device->name, transport_net_lane(p->transport),
             p->memory_bytes >> 20);
    node_meet(p);
    if (node_signals == 0 && !p->displaced) {
        printf("READY %s\n", p->address);
        fflush(stdout);
    }
    node_serve(p);
    return node_drain(p);
}

int main(int argc, char **argv)
{
    static node_program_state p;
    moe_error err = {""};
    moe_options_next next;
    moe_status status = moe_options_parse(&node_program, &p.config, argc, argv, NULL, NULL, 0, NULL, &next, &err);

    if (status != MOE_OK) {
        return fail(status, &err);
    }
    if (next == MOE_OPTIONS_EXIT_OK) {
        return 0;
    }
    if (p.config.model == NULL || p.config.member.etcd == NULL) {
        moe_options_fini(&node_program, &p.config);
        err = (moe_error){"--model DIR and --etcd URL are needed (see --help)"};
        return fail(MOE_ERR_INVALID_ARG, &err);
    }
    moe_options_log_start(&node_program, argc, argv);
    catch_signals();
    be_polite(); /* all threads inherit it */
    compute_thread_init();
    pthread_mutex_init(&p.lock, NULL);
    pthread_mutex_init(&p.parts, NULL);
    p.incarnation = moe_random_entropy() | 1;
    int result = run(&p);
    close_all(&p);
    return result;
}
