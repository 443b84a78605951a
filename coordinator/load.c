/* Loading: from the directory's files to an engine that has not yet run a token. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/coordinator_priv.h"
#include "coordinator/kv_memory.h"
#include "coordinator/labels.h"
#include "template/template.h"

#define DEFAULT_ANSWER 512 /* tokens, where neither an option nor the model says */

/* ------------------------------------------------------------------------------------------------ files */
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
    status = moe_file_read_named("--chat-template: neither tulu nor olmo2 nor a file:", chosen, TEMPLATE_MAX_SOURCE,
                                 &source, &n, err);
    if (status != MOE_OK) {
        return status;
    }
    status = tokenizer_chat_use(c->tokenizer, source, n, &reason);
    free(source);
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "--chat-template %s: %.300s", chosen, reason.text);
}

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
        MOE_WARN("%s has neither tokenizer.json nor tokenizer.model: requests must give token ids%s", c->config.model,
                 c->config.chat_template != NULL ? ", and --chat-template has no effect" : "");
        return MOE_OK;
    }
    return status == MOE_OK ? choose_chat_template(c, err) : status;
}

moe_status coordinator_open_files(coordinator *c, moe_error *err)
{
    const char *not_served = c->files.config.defaults.not_served;
    moe_status status = member_files_open(&c->files, c->config.model, err);

    if (status == MOE_OK && not_served[0] != '\0') {
        MOE_WARN("%s: %s",
                 c->files.config.defaults.is_missing
                     ? "config.json: ignored, as defaults of requests are those of a generation_config.json"
                     : "generation_config.json: ignored, as it is not supported",
                 not_served);
    }
    if (status == MOE_OK) {
        moe_error why = {""};

        status = model_config_context(&c->files.config, c->config.max_context, &c->max_context, &why);
        if (status != MOE_OK) {
            return moe_fail(err, status, "%s%.300s",
                            status == MOE_ERR_INVALID_ARG ? "--max-context " : "config.json: ", why.text);
        }
    }
    if (status == MOE_OK) {
        status = open_tokenizer(c, err);
    }
    if (status == MOE_OK) {
        c->labels = labels_load(c->config.model, c->files.config.n_labels);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ progress and signals
 * While it loads there is nothing to drain: a signal ends the process at once, however long the disk or the packing
 * takes. Signals are blocked before and after; of all threads main alone lets them in. */
typedef struct phase {
    member_progress log;
    api_loading *loading;
} phase;

static void report_progress(void *ctx, size_t done, size_t total)
{
    phase *p = ctx;

    api_loading_set(p->loading, p->log.what, done, total);
    member_report_progress(&p->log, done, total);
}

static void leave(int signal_number)
{
    (void)signal_number;
    _exit(0);
}

static void let_signals_in(bool in)
{
    const struct sigaction action = {.sa_handler = leave};
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    pthread_sigmask(in ? SIG_UNBLOCK : SIG_BLOCK, &signals, NULL);
}

static phase begin_phase(coordinator *c, const char *what)
{
    api_loading_set(&c->loading, what, 0, 1);
    let_signals_in(true);
    return (phase){.log = {.what = what, .last_tenth = -1}, .loading = &c->loading};
}

static void end_phase(void)
{
    let_signals_in(false);
}

/* ------------------------------------------------------------------------------------------------ model */
static moe_status open_device(coordinator *c, moe_error *err)
{
    const model_config *m = &c->files.config;
    compute_device_options options = {.numeric_class = member_class(c->config.member.dtype, c->files.tensors),
                                      .isa = compute_isa_of(c->config.member.isa),
                                      .threads = c->threads,
                                      .max_rows = c->config.max_batch_tokens,
                                      .max_ffn_rows = (size_t)c->config.max_batch_tokens * m->gate.k,
                                      .max_routed_rows = (size_t)c->config.max_batch_tokens * m->att_gate.k,
                                      .max_d_ff = m->d_ff,
                                      .max_context = c->max_context,
                                      .full_scan = c->config.no_early_exit,
                                      .no_graphs = strcmp(c->config.cuda_graphs, "off") == 0};

    return compute_open(c->place, &options, &c->device, err);
}

static moe_status open_maker(coordinator *c, moe_error *err)
{
    compute_device_options options = {.numeric_class = c->device->numeric_class,
                                      .isa = compute_isa_of(c->config.member.isa),
                                      .max_rows = 1,
                                      .max_ffn_rows = 1,
                                      .max_routed_rows = 1,
                                      .max_d_ff = c->files.config.d_ff,
                                      .max_context = 1};

    moe_status status = moe_threads_open(1, compute_thread_init, &c->maker_threads);

    options.threads = c->maker_threads;
    return status == MOE_OK ? compute_open(c->place, &options, &c->maker, err) : status;
}

/* Computed from the mapping it is the kernel's to keep or not. */
size_t coordinator_weights_bytes(const coordinator *c)
{
    const model_config *m = &c->files.config;
    size_t experts =
        coordinator_in_cluster(c) ? 0 : model_expert_bytes(m, c->files.tensors) * m->n_layers * m->n_ffn_experts;

    return member_layout(c->config.member.weights) == COMPUTE_MAPPED
               ? 0
               : model_tensors_coordinator_bytes(c->files.tensors) + experts + first_packs_bytes(c);
}

static moe_status choose_kv_memory(coordinator *c, size_t *bytes_out, moe_error *err)
{
    const kv_budget budget = {.asked = c->config.kv_memory,
                              .available = member_device_memory(c->device),
                              .weights = coordinator_weights_bytes(c),
                              .page_bytes = model_kv_page_bytes(&c->files.config, c->device->numeric_class),
                              .max_running = c->config.max_running,
                              .max_context = c->max_context};

    return kv_memory_choose(&budget, bytes_out, err);
}

static moe_status hash_files(coordinator *c, moe_error *err)
{
    phase p = begin_phase(c, "hashing the checkpoint");
    moe_status status = member_files_hash(&c->files, c->threads, c->config.member.cache_dir, report_progress, &p, err);

    end_phase();
    return status;
}

static moe_status load_model(coordinator *c, moe_error *err)
{
    phase p = begin_phase(c, "loading the coordinator's weights");
    moe_status status =
        model_open(&c->files.config, c->files.tensors, c->device, member_layout(c->config.member.weights),
                   c->max_context, report_progress, &p, &c->model, err);

    end_phase();
    return status;
}

static moe_status open_kv(coordinator *c, size_t bytes, moe_error *err)
{
    char size[MOE_SIZE_TEXT];
    moe_status status = model_kv_open(&c->files.config, c->device, bytes, !c->config.no_prefix_cache, &c->kv, err);

    if (status == MOE_OK) {
        size_t tokens = model_kv_capacity_tokens(c->kv);
        MOE_INFO("KV cache: %s, %zu tokens, %zu sequences of %u", moe_size_text(bytes, size), tokens,
                 tokens / c->max_context, c->max_context);
    }
    return status;
}

static moe_status open_base_set(coordinator *c, moe_error *err)
{
    moe_status status = member_files_read_own(&c->files, c->config.model, err);

    if (status == MOE_OK) {
        c->base_set = router_set_ref(c->files.own);
    }
    return status;
}

/* ------------------------------------------------------------------------------------------------ experts and engine */
static moe_status open_embedded(coordinator *c, moe_error *err)
{
    phase p = begin_phase(c, "loading experts");
    embedded_options options = {.config = &c->files.config,
                                .space = c->files.space,
                                .tensors = c->files.tensors,
                                .device = c->device,
                                .layout = member_layout(c->config.member.weights),
                                .fingerprint = c->files.manifest.fingerprint.bytes,
                                .max_rows = c->config.max_batch_tokens,
                                .micro_batches = c->config.micro_batches,
                                .progress = report_progress,
                                .progress_ctx = &p,
                                .model = c->model,
                                .maker = c->maker};
    moe_status status = embedded_open(&options, &c->embedded, err);

    end_phase();
    return status;
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
                            .min_nodes = c->config.min_nodes,
                            .keep_unused_ms = MOE_MAX((uint64_t)c->config.keep_unused_ms, UINT64_C(1))};

    return pool_open(&options, &c->pool, err);
}

bool coordinator_in_cluster(const coordinator *c)
{
    return c->config.member.etcd != NULL;
}

static uint32_t default_max_tokens(const coordinator *c)
{
    int32_t own = c->files.config.defaults.max_new_tokens;

    return c->config.default_max_tokens != 0 ? c->config.default_max_tokens : own > 0 ? (uint32_t)own : DEFAULT_ANSWER;
}

static moe_status open_engine(coordinator *c, moe_error *err)
{
    engine_options options = {.model = c->model,
                              .kv = c->kv,
                              .threads = c->threads,
                              .tokenizer = c->tokenizer,
                              .base_set = c->base_set,
                              .clock = moe_clock_real(),
                              .max_batch_tokens = c->config.max_batch_tokens,
                              .prefill_chunk =
                                  c->config.prefill_chunk != 0 ? c->config.prefill_chunk : c->config.max_batch_tokens,
                              .max_running = c->config.max_running,
                              .max_queue = c->config.max_queue,
                              .max_context = c->max_context,
                              .default_max_tokens = default_max_tokens(c),
                              .micro_batches = c->config.micro_batches,
                              .step_timeout_ns = (uint64_t)c->config.step_timeout_ms * 1000000u};
    moe_status status;

    checkpoint_digest_hex(&c->files.manifest.fingerprint, options.fingerprint);
    status = coordinator_in_cluster(c) ? open_pool(c, err) : open_embedded(c, err);
    if (status != MOE_OK) {
        return status;
    }
    options.exchange = coordinator_in_cluster(c) ? pool_exchange(c->pool) : embedded_exchange(c->embedded);
    return engine_open(&options, &c->engine, err);
}

static moe_status check_packs(coordinator *c, moe_error *err)
{
    (void)begin_phase(c, "checking packs");
    moe_status status = first_packs_check(c, moe_wall_ms(), err);

    end_phase();
    return status;
}

static moe_status load_packs(coordinator *c, moe_error *err)
{
    phase p = begin_phase(c, "loading packs");
    moe_status status = first_packs_load(c, report_progress, &p, err);

    end_phase();
    return status;
}

static moe_status change_embedded(void *ctx, engine *e, const embedded_changes *changes, moe_error *err)
{
    return embedded_change(ctx, e, changes, err);
}

static moe_status open_follower(coordinator *c, moe_error *err)
{
    char dir[MEMBER_MAX_PATH];
    const follower_options options = {.engine = c->engine,
                                      .model = c->model,
                                      .tensors = c->files.tensors,
                                      .maker = c->maker,
                                      .packs = c->packs,
                                      .pool = c->pool,
                                      .first = c->catalogue,
                                      .dir = dir,
                                      .keep_unused_ms = (uint64_t)c->config.keep_unused_ms,
                                      .accept = c->accept};

    member_pack_dir(&c->config.member, dir);
    return follower_open(&options, &c->follower, err);
}

static moe_status open_registry(coordinator *c, moe_error *err)
{
    const registry_options options = {.engine = c->engine,
                                      .first = c->catalogue,
                                      .change = change_embedded,
                                      .change_ctx = c->embedded,
                                      .packs = c->packs,
                                      .pack_dirs = c->config.pack_dir,
                                      .keep_unused_ms = (uint64_t)c->config.keep_unused_ms};

    return registry_open(&options, &c->registry, err);
}

moe_status coordinator_load(coordinator *c, moe_error *err)
{
    size_t kv_bytes = 0;
    moe_status status = moe_threads_open(c->config.member.threads, compute_thread_init, &c->threads);

    if (status != MOE_OK) {
        return moe_fail(err, status, "threads: cannot be created");
    }
    status = open_device(c, err);
    if (status == MOE_OK) {
        status = choose_kv_memory(c, &kv_bytes, err); /* refused before the minutes that hashing takes */
    }
    if (status == MOE_OK) {
        status = hash_files(c, err);
    }
    if (status == MOE_OK) {
        status = open_base_set(c, err);
    }
    if (status == MOE_OK) {
        status = check_packs(c, err);
    }
    if (status == MOE_OK) {
        status = load_model(c, err);
    }
    if (status == MOE_OK) {
        status = open_maker(c, err);
    }
    if (status == MOE_OK) {
        status = open_kv(c, kv_bytes, err);
    }
    if (status == MOE_OK) {
        status = open_engine(c, err);
    }
    if (status == MOE_OK) {
        status = load_packs(c, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    return coordinator_in_cluster(c) ? open_follower(c, err) : open_registry(c, err);
}
