/* conclave-coordinator: listens, loads a model, gets ready, serves, drains upon a signal. */
#include <signal.h>
#include <string.h>
#include <time.h>

#include "coordinator/advertise.h"
#include "coordinator/coordinator_priv.h"
#include "coordinator/labels.h"

static void stop_signals(sigset_t *out)
{
    sigemptyset(out);
    sigaddset(out, SIGTERM);
    sigaddset(out, SIGINT);
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

/* The API gets the engine when that has the cluster's default set: before, it would serve another one than all others. */
static bool is_served(coordinator *c, bool *served, moe_error *err)
{
    if (!*served && follower_caught_up(c->follower, err)) {
        *served = true;
        listeners_set_engine(c);
    }
    return *served;
}

/* The engine turns the exchange, and sends a token through all layers once every expert has a live owner. A cluster that
 * does not want us ends it, before we were ever in it. */
static moe_status wait_until_ready(coordinator *c, const sigset_t *signals, moe_error *err)
{
    char said[sizeof(moe_error)] = "";
    bool registered = false, served = false;

    while (!signalled(signals)) {
        moe_status status = pool_status(c->pool, err);

        if ((!registered && (status == MOE_ERR_EXISTS || status == MOE_ERR_DENIED)) ||
            pool_is_displaced(c->pool, err)) {
            return status;
        }
        registered = registered || status == MOE_OK;
        if (status == MOE_OK && is_served(c, &served, err) && pool_covered(c->pool, err) &&
            engine_check_ready(c->engine, err) == MOE_OK) {
            return MOE_OK;
        }
        say_once(said, err);
    }
    return MOE_ERR_CANCELLED;
}

static moe_status get_ready_in_cluster(coordinator *c, const char *address, const sigset_t *signals, moe_error *err)
{
    moe_status status = pool_join(c->pool, address, err);

    if (status == MOE_OK) {
        status = engine_start(c->engine, err);
    }
    if (status == MOE_OK) {
        api_loading_set(&c->loading, "waiting for the cluster's catalogue", 0, 1);
        status = follower_start(c->follower, err);
    }
    return status == MOE_OK ? wait_until_ready(c, signals, err) : status;
}

static moe_status get_ready(coordinator *c, const sigset_t *signals, moe_error *err)
{
    char address[ADVERTISE_BYTES];

    advertise_address(&c->config, api_server_port(c->server), address);
    if (coordinator_in_cluster(c)) {
        return get_ready_in_cluster(c, address, signals, err);
    }
    listeners_set_engine(c);
    embedded_set_address(c->embedded, address);
    moe_status status = engine_warm_up(c->engine, err);
    return status == MOE_OK ? engine_start(c->engine, err) : status;
}

/* What the option says; nothing is opened yet. */
static moe_status read_accepted(coordinator *c, moe_error *err)
{
    moe_status status = accept_read(c->config.accept_packs, &c->accept, err);

    if (status == MOE_OK && c->config.accept_packs != NULL && !coordinator_in_cluster(c)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--accept-packs %.200s: packs are offered by the nodes of a cluster: --etcd is needed; without "
                        "one, --pack DIR has packs switched on from the start",
                        c->config.accept_packs);
    }
    if (status == MOE_OK && c->accept.all && c->config.pack_key == NULL) {
        MOE_WARN("--accept-packs offered without --pack-key: EVERY pack that any node offers is switched on for all "
                 "requests, whoever made it; --pack-key FILE demands a signature");
    }
    return status;
}

static moe_status start(coordinator *c, const sigset_t *signals, moe_error *err)
{
    moe_status status = listeners_check(&c->config, err);

    if (status == MOE_OK && coordinator_in_cluster(c)) {
        status = member_check(&c->config.member, err);
    }
    if (status == MOE_OK) {
        status = read_accepted(c, err);
    }
    if (status == MOE_OK) {
        status = member_device(&c->config.member, c->place, err);
    }
    if (status == MOE_OK) {
        status = coordinator_open_files(c, err);
    }
    if (status == MOE_OK) {
        status = listeners_open(c, err);
    }
    if (status == MOE_OK) {
        status = coordinator_load(c, err);
    }
    if (status != MOE_OK) {
        return status;
    }
    return get_ready(c, signals, err);
}

/* ------------------------------------------------------------------------------------------------ serving */
static void say_what_is_resident(const coordinator *c)
{
    char all[MOE_SIZE_TEXT], files[MOE_SIZE_TEXT], weights[MOE_SIZE_TEXT], kv[MOE_SIZE_TEXT];
    moe_resident r;

    moe_memory_resident(&r);
    MOE_INFO("resident %s, of it pages of files %s; weights %s, KV cache at most %s",
             moe_size_text(r.anonymous + r.of_files + r.shared, all), moe_size_text(r.of_files, files),
             moe_size_text(coordinator_weights_bytes(c), weights),
             moe_size_text(model_kv_capacity_tokens(c->kv) / MODEL_KV_PAGE_TOKENS *
                               model_kv_page_bytes(&c->files.config, c->device->numeric_class),
                           kv));
}

/* The one line on standard output, for whoever started us. */
static void print_ready(const coordinator *c)
{
    char address[MOE_ADDRESS_BYTES];

    MOE_INFO("serving %s, class %s, %s, fingerprint %.12s", c->files.config.model_type,
             compute_class_name(c->device->numeric_class), c->device->name, engine_get_info(c->engine)->fingerprint);
    say_what_is_resident(c);
    listeners_address(c, address);
    printf("READY %s\n", address);
    fflush(stdout);
}

/* Until a signal comes, or another process is found to have our name. Returns the exit code. */
static int wait_for_end(coordinator *c, const sigset_t *signals)
{
    const struct timespec nap = {.tv_sec = 1};
    moe_error why;
    int signal = 0;

    while (signal <= 0) {
        if (pool_is_displaced(c->pool, &why)) {
            MOE_ERROR("this coordinator is displaced, and drains: %s", why.text);
            return MEMBER_EXIT_DISPLACED;
        }
        signal = sigtimedwait(signals, NULL, &nap);
    }
    MOE_INFO("signal %d: draining", signal);
    return 0;
}

/* Until a second signal, at most `most_ms`, and with `idle` until nothing runs. False: a signal came. */
static bool wait_for_requests(coordinator *c, const sigset_t *signals, uint32_t most_ms, bool idle)
{
    uint64_t end = moe_now_ns(moe_clock_real()) + (uint64_t)most_ms * 1000000u;

    while (!(idle && engine_idle(c->engine)) && moe_now_ns(moe_clock_real()) < end) {
        if (signalled(signals)) {
            return false;
        }
    }
    return true;
}

/* First whoever sends requests may notice (no delay where another has our place already); then running ones may end, unless
 * a second signal comes; then the listeners close, cancelling what is left. */
static void drain(coordinator *c, const sigset_t *signals, uint32_t delay_ms)
{
    listeners_announce_drain(c);
    bool patient = wait_for_requests(c, signals, delay_ms, false);
    engine_begin_drain(c->engine);
    listeners_begin_drain(c);
    if (patient) {
        (void)wait_for_requests(c, signals, c->config.drain_timeout_ms, true);
    }
}

static void close_all(coordinator *c)
{
    listeners_close(c);
    if (c->pool != NULL) {
        pool_leave(c->pool);
    }
    follower_close(c->follower);
    registry_close(c->registry);
    engine_close(c->engine);
    pool_close(c->pool);
    embedded_close(c->embedded);
    router_set_unref(c->base_set);
    model_kv_close(c->kv);
    model_close(c->model);
    compute_close(c->maker);
    moe_threads_close(c->maker_threads);
    compute_close(c->device);
    moe_threads_close(c->threads);
    packs_close(c->packs);
    catalogue_unref(c->catalogue);
    tokenizer_close(c->tokenizer);
    labels_free(c->labels, c->files.config.n_labels);
    member_files_close(&c->files);
    member_forget_secret(&c->config.member);
    moe_options_fini(&coordinator_program, &c->config);
}

static int fail(moe_status status, const moe_error *err)
{
    MOE_ERROR("%s", err->text[0] != '\0' ? err->text : moe_status_text(status));
    return member_exit_code(status);
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
        print_ready(&c);
        result = wait_for_end(&c, &signals);
        drain(&c, &signals, result == MEMBER_EXIT_DISPLACED ? 0 : c.config.drain_delay_ms);
    } else if (status != MOE_ERR_CANCELLED) {
        result = fail(status, &err);
        result = pool_is_displaced(c.pool, &err) ? MEMBER_EXIT_DISPLACED : result;
    }
    close_all(&c);
    return result;
}
