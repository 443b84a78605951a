/* conclave-coordinator: loads a model, starts the engine and the listeners, waits for a signal, drains. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/api.h"
#include "coordinator/embedded.h"
#include "engine/engine.h"
#include "coordinator/labels.h"
#include "coordinator/options.h"
#include "coordinator/pool.h"
#include "api/http/listen.h"

/* Everything that lives as long as the process, in the order in which it is opened; closed in reverse. */
typedef struct coordinator {
    coordinator_config config;
    member_files files;
    tokenizer *tokenizer;
    moe_threads *threads;
    compute_device *device;
    model *model;
    model_kv *kv;
    router_set *base_set;
    embedded *embedded; /* one of the two: experts in this process, */
    pool *pool;         /* or in a cluster */
    engine *engine;
    api_server *server, *admin;
    api_http *http;
    char **labels; /* NULL: none */
    uint32_t max_context;
} coordinator;

static void stop_signals(sigset_t *out)
{
    sigemptyset(out);
    sigaddset(out, SIGTERM);
    sigaddset(out, SIGINT);
}

/* They are blocked for the drain's sake. Until there is something to drain, one that waits may end the process. */
static void let_signals_in(void)
{
    sigset_t signals, old;

    stop_signals(&signals);
    pthread_sigmask(SIG_UNBLOCK, &signals, &old);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void report_progress(void *ctx, size_t done, size_t total)
{
    let_signals_in();
    member_report_progress(ctx, done, total);
}

/* --chat-template names one of ours, or a file. */
static moe_status choose_chat_template(coordinator *c, moe_error *err)
{
    const char *chosen = c->config.chat_template, *problem = tokenizer_chat_problem(c->tokenizer);
    char *source = NULL;
    size_t n = 0;
    moe_error reason = {""};
    moe_status status;

    if (chosen == NULL) {
        if (problem[0] != '\0') {
            MOE_WARN(
                "the model's chat template cannot be used, messages will be refused: %s; --chat-template FILE gives "
                "another",
                problem);
        }
        return MOE_OK;
    }
    if (strchr(chosen, '/') == NULL && tokenizer_chat_select(c->tokenizer, chosen, NULL) == MOE_OK) {
        return MOE_OK;
    }
    status = moe_file_read(chosen, TEMPLATE_MAX_SOURCE, &source, &n, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "chat_template: neither tulu nor olmo2 nor a file: %.300s", reason.text);
    }
    status = tokenizer_chat_use(c->tokenizer, source, n, &reason);
    free(source);
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "chat_template %s: %.300s", chosen, reason.text);
}

/* ------------------------------------------------------------------------------------------------ loading */
static moe_status open_tokenizer(coordinator *c, moe_error *err)
{
    const model_config *m = &c->files.config;
    int32_t ids[MODEL_MAX_EOS + 2];
    tokenizer_specials specials = {.ids = ids, .bos_id = m->bos_id, .eos_id = m->n_eos > 0 ? m->eos_ids[0] : -1};
    moe_status status;

    for (uint32_t i = 0; i < m->n_eos; i++) {
        ids[specials.n_ids++] = m->eos_ids[i];
    }
    if (m->bos_id >= 0) {
        ids[specials.n_ids++] = m->bos_id;
    }
    if (m->pad_id >= 0) {
        ids[specials.n_ids++] = m->pad_id;
    }
    status = tokenizer_open(c->config.model, m->vocab_size, &specials, &c->tokenizer, err);
    if (status == MOE_ERR_NOT_FOUND) {
        MOE_WARN("%s has neither tokenizer.json nor tokenizer.model: requests must give token ids", c->config.model);
        return MOE_OK;
    }
    return status == MOE_OK ? choose_chat_template(c, err) : status;
}

static moe_status choose_context(coordinator *c, moe_error *err)
{
    const model_config *m = &c->files.config;

    c->max_context = c->config.max_context != 0 ? c->config.max_context : m->max_positions;
    if (m->positions_are_a_limit && c->max_context > m->max_positions) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "max_context %u: at most max_position_embeddings, %u", c->max_context,
                        m->max_positions);
    }
    return MOE_OK;
}

static moe_status load_files(coordinator *c, moe_error *err)
{
    moe_status status = member_files_open(&c->files, c->config.model, err);

    if (status == MOE_OK) {
        status = choose_context(c, err);
    }
    if (status == MOE_OK) {
        status = open_tokenizer(c, err);
    }
    if (status == MOE_OK) {
        status = moe_threads_open(c->config.member.threads, compute_thread_init, &c->threads);
    }
    return status == MOE_OK ? member_files_hash(&c->files, c->threads, c->config.member.cache_dir, report_progress, err)
                            : status;
}

/* No more pages than all choices together could ever use. */
static size_t kv_bytes(const coordinator *c)
{
    const model_config *m = &c->files.config;
    size_t page = model_kv_page_bytes(m, c->device->numeric_class);
    size_t most = (size_t)c->config.max_running * (c->max_context / MODEL_KV_PAGE_TOKENS + 1);

    return MOE_MIN(c->config.kv_memory, page * most);
}

static moe_status open_device(coordinator *c, moe_error *err)
{
    const model_config *m = &c->files.config;
    compute_device_options options = {.numeric_class = member_class(c->config.member.dtype, c->files.tensors),
                                      .isa = member_isa(c->config.member.isa),
                                      .threads = c->threads,
                                      .max_rows = c->config.max_batch_tokens,
                                      .max_ffn_rows = (size_t)c->config.max_batch_tokens * m->gate.k,
                                      .max_routed_rows = (size_t)c->config.max_batch_tokens * m->att_gate.k,
                                      .max_d_ff = m->d_ff,
                                      .max_context = c->max_context,
                                      .full_scan = c->config.no_early_exit};

    return compute_cpu_open(&options, &c->device, err);
}

static moe_status open_model(coordinator *c, moe_error *err)
{
    member_progress progress = {.what = "loading the coordinator's weights", .last_tenth = -1};
    uint32_t n_experts[MODEL_MAX_LAYERS];
    moe_status status = open_device(c, err);

    if (status == MOE_OK) {
        status = model_open(&c->files.config, c->files.tensors, c->device, member_layout(c->config.member.weights),
                            c->max_context, report_progress, &progress, &c->model, err);
    }
    if (status == MOE_OK) {
        status = model_kv_open(&c->files.config, c->device, kv_bytes(c), !c->config.no_prefix_cache, &c->kv, err);
    }
    for (uint32_t l = 0; l < c->files.config.n_layers; l++) {
        n_experts[l] = c->files.config.n_experts;
    }
    if (status == MOE_OK) {
        status = router_set_open_base(n_experts, c->files.config.n_layers, c->files.config.gate.k,
                                      c->files.manifest.fingerprint.bytes, &c->base_set, err);
    }
    return status;
}

static moe_status open_embedded(coordinator *c, moe_error *err)
{
    member_progress progress = {.what = "loading experts", .last_tenth = -1};
    embedded_options options = {.config = &c->files.config,
                                .tensors = c->files.tensors,
                                .device = c->device,
                                .layout = member_layout(c->config.member.weights),
                                .fingerprint = c->files.manifest.fingerprint.bytes,
                                .max_rows = c->config.max_batch_tokens,
                                .micro_batches = c->config.micro_batches,
                                .progress = report_progress,
                                .progress_ctx = &progress};

    return embedded_open(&options, &c->embedded, err);
}

static moe_status open_pool(coordinator *c, moe_error *err)
{
    pool_options options = {.member = &c->config.member,
                            .files = &c->files,
                            .device = c->device,
                            .threads = c->threads,
                            .max_rows = c->config.max_batch_tokens,
                            .micro_batches = c->config.micro_batches,
                            .dispatch_timeout_ms = c->config.dispatch_timeout_ms,
                            .replication = c->config.replication,
                            .min_nodes = c->config.min_nodes};

    return pool_open(&options, &c->pool, err);
}

static bool in_cluster(const coordinator *c)
{
    return c->config.member.etcd != NULL;
}

static moe_status open_engine(coordinator *c, moe_error *err)
{
    engine_options options = {.model = c->model,
                              .kv = c->kv,
                              .tokenizer = c->tokenizer,
                              .base_set = c->base_set,
                              .clock = moe_clock_real(),
                              .max_batch_tokens = c->config.max_batch_tokens,
                              .prefill_chunk =
                                  c->config.prefill_chunk != 0 ? c->config.prefill_chunk : c->config.max_batch_tokens,
                              .max_running = c->config.max_running,
                              .max_queue = c->config.max_queue,
                              .max_context = c->max_context,
                              .default_max_tokens = c->config.default_max_tokens,
                              .micro_batches = c->config.micro_batches,
                              .step_timeout_ns = (uint64_t)c->config.step_timeout_ms * 1000000u};
    moe_status status;

    checkpoint_digest_hex(&c->files.manifest.fingerprint, options.fingerprint);
    status = in_cluster(c) ? open_pool(c, err) : open_embedded(c, err);
    if (status != MOE_OK) {
        return status;
    }
    options.exchange = in_cluster(c) ? pool_exchange(c->pool) : embedded_exchange(c->embedded);
    return engine_open(&options, &c->engine, err);
}

/* ------------------------------------------------------------------------------------------------ listening */
static const char *base_name(const char *dir)
{
    static char name[256];
    size_t n = strlen(dir);

    while (n > 1 && dir[n - 1] == '/') {
        n--;
    }
    size_t begin = n;
    while (begin > 0 && dir[begin - 1] != '/') {
        begin--;
    }
    snprintf(name, sizeof name, "%.*s", (int)(n - begin), dir + begin);
    return name;
}

static api_options api_of(const coordinator_config *o, bool admin)
{
    return (api_options){.listen = admin ? o->admin_listen : o->listen,
                         .tls_cert = o->tls_cert,
                         .tls_key = o->tls_key,
                         .tls_ca = o->tls_ca,
                         .token_file = admin && o->admin_token_file != NULL ? o->admin_token_file : o->token_file,
                         .insecure = o->insecure,
                         .reflection = !o->no_reflection,
                         .services = admin                     ? API_SERVE_ADMIN
                                     : o->admin_listen != NULL ? API_SERVE_INFERENCE
                                                               : 0,
                         .model_name = o->model_name != NULL ? o->model_name : base_name(o->model)};
}

/* Before the load, which may take minutes. */
static moe_status check_listeners(const coordinator_config *o, moe_error *err)
{
    api_options api = api_of(o, false), admin = api_of(o, true);
    moe_status status = api_options_check(&api, err);

    return status == MOE_OK && o->admin_listen != NULL ? api_options_check(&admin, err) : status;
}

static moe_status open_listeners(coordinator *c, moe_error *err)
{
    const coordinator_config *o = &c->config;
    const api_view *view = in_cluster(c) ? pool_view(c->pool) : embedded_view(c->embedded);
    api_options api = api_of(o, false), admin = api_of(o, true);
    moe_status status;

    api.labels = c->labels = labels_load(o->model, c->files.config.n_labels);
    status = api_server_open(&api, c->engine, view, &c->server, err);

    if (status == MOE_OK && o->admin_listen != NULL) {
        status = api_server_open(&admin, c->engine, view, &c->admin, err);
        if (status == MOE_OK) {
            MOE_INFO("admin on port %u", api_server_port(c->admin));
        }
    }
    if (status == MOE_OK && o->http != NULL) {
        api_http_options http = {
            .listen = o->http, .model_name = api.model_name, .no_experts = strcmp(o->metrics_experts, "off") == 0};
        status = api_http_open(&http, c->engine, view, c->server, &c->http, err);
        if (status == MOE_OK) {
            MOE_INFO("http on port %u", api_http_port(c->http));
        }
    }
    return status;
}

static void api_address(const coordinator *c, char out[300])
{
    const char *colon = strrchr(c->config.listen, ':');

    snprintf(out, 300, "%.*s:%u", (int)MOE_MIN(colon - c->config.listen, 256), c->config.listen,
             api_server_port(c->server));
}

/* ------------------------------------------------------------------------------------------------ getting ready */
static bool signalled(const sigset_t *signals)
{
    const struct timespec nap = {.tv_nsec = 5000000};

    return sigtimedwait(signals, NULL, &nap) > 0;
}

/* A log line when what is waited for has changed. */
static void say_once(char said[sizeof(moe_error)], const moe_error *err)
{
    if (strcmp(said, err->text) != 0) {
        memcpy(said, err->text, sizeof err->text);
        MOE_INFO("waiting: %s", err->text);
    }
}

/* Turns the exchange until every expert has an owner and a token has gone through all layers. A cluster that does not
 * want us ends it, before we were ever in it. */
static moe_status warm_up_in_cluster(coordinator *c, const sigset_t *signals, moe_error *err)
{
    char said[sizeof(moe_error)] = "";
    bool registered = false;

    while (!signalled(signals)) {
        moe_status status = pool_status(c->pool, err);

        (void)exchange_progress(pool_exchange(c->pool));
        if (!registered && (status == MOE_ERR_EXISTS || status == MOE_ERR_DENIED)) {
            return status;
        }
        registered = registered || status == MOE_OK;
        if (status == MOE_OK && pool_covered(c->pool, err) && engine_warm_up(c->engine, err) == MOE_OK) {
            return MOE_OK;
        }
        say_once(said, err);
    }
    return MOE_ERR_CANCELLED;
}

/* Where others find the API: a wildcard is told as the host's name. */
static void reachable_address(const coordinator *c, char out[300])
{
    listen_address a;
    char host[256] = "";

    api_address(c, out);
    if (listen_parse("listen", out, &a, NULL) == MOE_OK && listen_is_wildcard(&a) &&
        gethostname(host, sizeof host - 1) == 0) {
        snprintf(out, 300, "%s:%u", host, a.port);
    }
}

static moe_status warm_up(coordinator *c, const sigset_t *signals, moe_error *err)
{
    char address[300];
    moe_status status;

    reachable_address(c, address);
    if (in_cluster(c)) {
        status = pool_join(c->pool, address, err);
        status = status == MOE_OK ? warm_up_in_cluster(c, signals, err) : status;
    } else {
        embedded_set_address(c->embedded, address);
        status = engine_warm_up(c->engine, err);
    }
    return status == MOE_OK ? engine_start(c->engine, err) : status;
}

/* The one line on standard output, for whoever started us. */
static void print_ready(const coordinator *c)
{
    char address[300];

    api_address(c, address);
    printf("READY %s\n", address);
    fflush(stdout);
}

static void wait_for_signal(const sigset_t *signals)
{
    int signal = 0;

    while (sigwait(signals, &signal) != 0) {
    }
    MOE_INFO("signal %d: draining", signal);
}

/* Running requests may end, unless a second signal comes; then the listeners close, cancelling what is left. */
static void drain(coordinator *c, const sigset_t *signals)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    uint64_t end = moe_now_ns(moe_clock_real()) + (uint64_t)c->config.drain_timeout_ms * 1000000u;

    engine_begin_drain(c->engine);
    api_server_begin_drain(c->server);
    if (c->admin != NULL) {
        api_server_begin_drain(c->admin);
    }
    while (!engine_idle(c->engine) && moe_now_ns(moe_clock_real()) < end && sigtimedwait(signals, NULL, &pause) < 0) {
    }
}

static void close_all(coordinator *c)
{
    api_http_close(c->http);
    api_server_close(c->admin, 1000);
    api_server_close(c->server, 1000);
    if (c->pool != NULL) {
        pool_leave(c->pool);
    }
    engine_close(c->engine);
    pool_close(c->pool);
    embedded_close(c->embedded);
    router_set_unref(c->base_set);
    model_kv_close(c->kv);
    model_close(c->model);
    compute_close(c->device);
    moe_threads_close(c->threads);
    tokenizer_close(c->tokenizer);
    labels_free(c->labels, c->files.config.n_labels);
    member_files_close(&c->files);
    moe_options_fini(&coordinator_program, &c->config);
}

static moe_status start(coordinator *c, const sigset_t *signals, moe_error *err)
{
    moe_status status = check_listeners(&c->config, err);

    if (status == MOE_OK) {
        status = load_files(c, err);
    }
    if (status == MOE_OK) {
        status = open_model(c, err);
    }
    if (status == MOE_OK) {
        status = open_engine(c, err);
    }
    if (status == MOE_OK) {
        status = open_listeners(c, err);
    }
    return status == MOE_OK ? warm_up(c, signals, err) : status;
}

static int fail(moe_status status, const moe_error *err)
{
    MOE_ERROR("%s", err->text[0] != '\0' ? err->text : moe_status_text(status));
    return 1;
}

int main(int argc, char **argv)
{
    coordinator c = {.model = NULL};
    moe_error err = {""};
    moe_options_next next;
    sigset_t signals;
    moe_status status;
    int result = 0;

    /* Blocked before any thread starts, so that every thread inherits it and sigwait gets them. */
    stop_signals(&signals);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);

    status = moe_options_parse(&coordinator_program, &c.config, argc, argv, NULL, NULL, 0, NULL, &next, &err);
    if (status != MOE_OK) {
        return fail(status, &err);
    }
    if (next == MOE_OPTIONS_EXIT_OK) {
        return 0;
    }
    if (c.config.model == NULL) {
        moe_options_fini(&coordinator_program, &c.config);
        err = (moe_error){"--model DIR is needed: a checkpoint directory (see --help)"};
        return fail(MOE_ERR_INVALID_ARG, &err);
    }
    moe_options_log_start(&coordinator_program, argc, argv);
    compute_thread_init();
    status = start(&c, &signals, &err);
    if (status == MOE_OK) {
        MOE_INFO("serving %s, class %s, %s, fingerprint %.12s, %zu KV tokens", c.files.config.model_type,
                 compute_class_name(c.device->numeric_class), c.device->ops->name,
                 engine_get_info(c.engine)->fingerprint, model_kv_capacity_tokens(c.kv));
        print_ready(&c);
        wait_for_signal(&signals);
        drain(&c, &signals);
    } else if (status != MOE_ERR_CANCELLED) {
        result = fail(status, &err);
    }
    close_all(&c);
    return result;
}
