/* Store over etcd's v3 JSON gateway: the only user of curl. One multi handle, driven by poll.
 *
 *   FREE -> WAITING (for a token) -> RUNNING -> FREE, with the callback
 *                        |
 *                        +-> FAILED (it could not even be sent) -> FREE, with the callback, at the next poll
 *
 * A call that fails is not repeated here: whether it was executed is not known, and the member reads everything again.
 * The one exception is a token that is refused: such a call has surely not been executed, so it is sent once more with
 * a new token. Trouble with an endpoint moves the next call to the next one; only if the call was at the current one,
 * so that several failures at once do not skip endpoints that nobody has tried.
 *
 * HTTP/1.1 throughout: the watch has a connection of its own, so that a stuck one cannot hold up the rest. A watch has
 * no time limit; TCP keepalive (10 s idle, then each 5 s) and the list every 30 s find out that it is dead. */
#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/etcd_priv.h"

/* Chosen, not measured. MAX_CALLS: a member has one call, a keepalive and a revocation under way at most. MAX_BODY: the
 * tables of the largest model (1024 layers of 4096 experts with one owner each) take some 25 MB of base64. */
#define MAX_ENDPOINTS 16
#define MAX_CALLS     8
#define MAX_URL       255
#define MAX_PASSWORD  4096
#define MAX_BODY      ((size_t)64 << 20)

typedef struct etcd etcd;

typedef enum { CALL_FREE, CALL_WAITING, CALL_RUNNING, CALL_FAILED } call_state; /* waiting for a token; before it ran */

typedef struct call {
    etcd *store;
    call_state state;
    const char *path;
    size_t endpoint;
    CURL *easy;                 /* owned, reused */
    struct curl_slist *headers; /* owned while running */
    moe_text request, response; /* owned while open */
    bool has_renewed;           /* its token was refused once */
    char error[2 * CURL_ERROR_SIZE];
    cluster_reply_fn fn;
    void *ctx;
} call;

struct etcd {
    cluster_store store; /* first */
    CURLM *multi;
    char *endpoints[MAX_ENDPOINTS]; /* owned */
    size_t n_endpoints, endpoint;
    char *user, *password_file, *ca, *cert, *key; /* owned, NULL: none */
    char *token;                                  /* owned; NULL: none yet */
    uint64_t timeout_ns;
    size_t max_body;
    call calls[MAX_CALLS], login, watch;
    etcd_listing listing;     /* of the range that is under way: one at a time */
    bool has_said;            /* that values are left out of it */
    etcd_watch_parser parser; /* of the watch */
    cluster_watch_fn watch_fn;
    void *watch_ctx;
    bool has_called_back; /* in this poll */
};

/* ------------------------------------------------------------------------------------------------ running a call */
static size_t on_body(char *bytes, size_t size, size_t n, void *ctx)
{
    call *q = ctx;

    moe_text_append(&q->response, bytes, size * n);
    return q->response.failed ? 0 : size * n;
}

static size_t on_watch_body(char *bytes, size_t size, size_t n, void *ctx)
{
    call *q = ctx;
    etcd *s = q->store;
    long http_status = 0;

    (void)curl_easy_getinfo(q->easy, CURLINFO_RESPONSE_CODE, &http_status);
    if (http_status != 200) {
        return on_body(bytes, size, n, ctx);
    }
    s->has_called_back = true;
    etcd_watch_feed(&s->parser, bytes, size * n, s->watch_fn, s->watch_ctx);
    return s->parser.is_over ? 0 : size * n;
}

static bool add_header(call *q, const char *text)
{
    struct curl_slist *list = text != NULL ? curl_slist_append(q->headers, text) : NULL;

    if (list != NULL) {
        q->headers = list;
    }
    return list != NULL;
}

static bool set_headers(call *q)
{
    char *authorization = NULL;
    bool ok = add_header(q, "Content-Type: application/json") && add_header(q, "Expect:");

    if (ok && q->store->token != NULL && q != &q->store->login) { /* not "Bearer" */
        if (asprintf(&authorization, "Authorization: %s", q->store->token) < 0) {
            return false;
        }
        ok = add_header(q, authorization);
        explicit_bzero(authorization, strlen(authorization));
        free(authorization);
    }
    return ok;
}

static bool set_tls(const etcd *s, CURL *easy)
{
    bool ok = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
              curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK;

    ok = ok && (s->ca == NULL || curl_easy_setopt(easy, CURLOPT_CAINFO, s->ca) == CURLE_OK);
    ok = ok && (s->cert == NULL || curl_easy_setopt(easy, CURLOPT_SSLCERT, s->cert) == CURLE_OK);
    return ok && (s->key == NULL || curl_easy_setopt(easy, CURLOPT_SSLKEY, s->key) == CURLE_OK);
}

/* No proxy: an inherited variable must not see the token. QUICK_EXIT: curl looks names up on a thread for each, but waits
 * for it when a call has timed out or is dropped; a silent name server would cost the lease. */
static bool set_transfer(call *q, const char *url)
{
    etcd *s = q->store;
    bool is_watch = q == &s->watch;
    long timeout_ms = (long)(s->timeout_ns / 1000000u);
    CURL *e = q->easy;

    return curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK && curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, strncmp(url, "https", 5) == 0 ? "https" : "http") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, timeout_ms) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, is_watch ? 0L : timeout_ms) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 10L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 5L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_POST, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->request.size) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_POSTFIELDS, moe_text_cstr(&q->request)) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HTTPHEADER, q->headers) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_ERRORBUFFER, q->error) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PRIVATE, q) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEDATA, q) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, is_watch ? on_watch_body : on_body) == CURLE_OK && set_tls(s, e);
}

static void fail_unsent(call *q, const char *why)
{
    q->state = CALL_FAILED;
    (void)snprintf(q->error, sizeof q->error, "%s", why);
}

static void run(call *q)
{
    etcd *s = q->store;
    char url[MAX_URL + 64];

    q->endpoint = s->endpoint;
    q->error[0] = '\0';
    (void)snprintf(url, sizeof url, "%s/v3/%s", s->endpoints[q->endpoint], q->path);
    curl_easy_reset(q->easy);
    if (q->request.failed || !set_headers(q) || !set_transfer(q, url) ||
        curl_multi_add_handle(s->multi, q->easy) != CURLM_OK) {
        fail_unsent(q, q->request.failed ? "the request is too large" : "the request could not be prepared");
        return;
    }
    q->state = CALL_RUNNING;
}

/* Out of curl's hands; what was received stays. */
static void take_back(call *q)
{
    if (q->state == CALL_RUNNING) {
        (void)curl_multi_remove_handle(q->store->multi, q->easy);
    }
    for (struct curl_slist *h = q->headers; h != NULL; h = h->next) {
        explicit_bzero(h->data, strlen(h->data)); /* the token */
    }
    curl_slist_free_all(q->headers);
    q->headers = NULL;
    q->state = CALL_WAITING;
}

static void drop(call *q)
{
    take_back(q);
    moe_text_fini(&q->request);
    moe_text_fini(&q->response);
    q->state = CALL_FREE;
}

static void forget_token(etcd *s)
{
    if (s->token != NULL) {
        explicit_bzero(s->token, strlen(s->token));
        free(s->token);
        s->token = NULL;
    }
}

/* ------------------------------------------------------------------------------------------------ login */
static void write_login(etcd *s, call *q)
{
    char *password = NULL;
    size_t n = 0;
    moe_error err;

    if (s->password_file != NULL && moe_file_read(s->password_file, MAX_PASSWORD, &password, &n, &err) != MOE_OK) {
        fail_unsent(q, err.text);
        return;
    }
    while (n > 0 && (password[n - 1] == '\n' || password[n - 1] == '\r')) {
        password[--n] = '\0';
    }
    etcd_write_login(&q->request, s->user, password != NULL ? password : "");
    if (password != NULL) {
        explicit_bzero(password, n);
        free(password);
    }
    run(q);
}

static void open_call(etcd *s, call *q, const char *path, cluster_reply_fn fn, void *ctx)
{
    MOE_ASSERT(q->state == CALL_FREE);
    q->state = CALL_WAITING;
    q->path = path;
    q->has_renewed = false;
    q->fn = fn;
    q->ctx = ctx;
    if (q == &s->login) { /* the password goes, the token comes */
        moe_text_init_secret(&q->request, MAX_BODY);
        moe_text_init_secret(&q->response, s->max_body);
    } else {
        moe_text_init(&q->request, MAX_BODY);
        moe_text_init(&q->response, s->max_body);
    }
}

/* Runs the call, or first fetches the token that it needs. */
static void submit(call *q)
{
    etcd *s = q->store;

    q->state = CALL_WAITING;
    if (s->user == NULL || s->token != NULL) {
        run(q);
    } else if (s->login.state == CALL_FREE) {
        open_call(s, &s->login, "auth/authenticate", NULL, NULL);
        write_login(s, &s->login);
    }
}

/* ------------------------------------------------------------------------------------------------ ends of calls */
static void move_on(etcd *s, const call *q)
{
    if (q->endpoint == s->endpoint && s->n_endpoints > 1) {
        s->endpoint = (s->endpoint + 1) % s->n_endpoints;
    }
}

static bool is_list(const call *q)
{
    return strcmp(q->path, "kv/range") == 0;
}

static void report(call *q, const cluster_reply *reply)
{
    cluster_reply_fn fn = q->fn;
    void *ctx = q->ctx;

    if (is_list(q)) {
        etcd_listing_fini(&q->store->listing);
    }
    drop(q);
    q->store->has_called_back = true;
    fn(ctx, reply);
}

static void report_failure(call *q, moe_status status, const char *why)
{
    const cluster_reply reply = {.status = status, .reason = why};

    report(q, &reply);
}

static void lose_watch(etcd *s, const char *why)
{
    const cluster_watch_event e = {.kind = CLUSTER_WATCH_LOST, .reason = why};
    bool is_told = s->parser.is_over;

    drop(&s->watch);
    etcd_watch_fini(&s->parser);
    if (!is_told) {
        s->has_called_back = true;
        s->watch_fn(s->watch_ctx, &e);
    }
}

/* Those that waited for the token. */
static void resume(etcd *s, moe_status status, const char *why)
{
    for (size_t i = 0; i < MAX_CALLS; i++) {
        call *q = &s->calls[i];

        if (q->state == CALL_WAITING && status == MOE_OK) {
            run(q);
        } else if (q->state == CALL_WAITING) {
            report_failure(q, status, why);
        }
    }
    if (s->watch.state == CALL_WAITING && status == MOE_OK) {
        run(&s->watch);
    } else if (s->watch.state == CALL_WAITING) {
        lose_watch(s, why);
    }
}

static void end_login(etcd *s, moe_status status, cluster_reply *reply, char *token, const moe_error *err)
{
    moe_error why = *err;

    if (status == MOE_OK && reply->status == MOE_OK && token == NULL) {
        status = moe_fail(&why, MOE_ERR_CORRUPT, "etcd's login has no token");
    }
    status = status != MOE_OK ? status : reply->status;
    forget_token(s);
    s->token = token;
    drop(&s->login);
    resume(s, status, why.text);
}

static const char *curl_reason(const call *q, CURLcode code)
{
    return q->error[0] != '\0' ? q->error : curl_easy_strerror(code);
}

/* To be submitted once more. */
static void rewind_call(call *q)
{
    take_back(q);
    moe_text_fini(&q->response);
    moe_text_init(&q->response, q->store->max_body);
}

/* ------------------------------------------------------------------------------------------------ lists */
/* The next part, or the same one made smaller. */
static void go_on(call *q)
{
    rewind_call(q);
    moe_text_fini(&q->request);
    moe_text_init(&q->request, MAX_BODY);
    etcd_listing_write(&q->store->listing, &q->request);
    submit(q);
}

/* What is said of a list, when it changes. */
static void say_left_out(etcd *s)
{
    size_t n = s->listing.n_left_out;

    if (n > 0 && !s->has_said) {
        MOE_WARN("etcd: values below %s are more than %zu bytes: the %zu largest are left out", s->listing.prefix,
                 s->max_body, n);
    }
    s->has_said = n > 0;
}

/* True when the list goes on. */
static bool list_ended(call *q, cluster_reply *reply, const etcd_rest *rest, moe_status *status, moe_error *err)
{
    etcd *s = q->store;
    bool more = false;

    if (*status == MOE_OK && reply->status == MOE_OK) {
        *status = etcd_listing_take(&s->listing, reply, rest, &more, err);
        if (*status == MOE_OK && !more) {
            say_left_out(s);
            etcd_listing_give(&s->listing, reply);
        }
    }
    if (more && *status == MOE_OK) {
        go_on(q);
        return true;
    }
    return false;
}

/* Too large, or too much for the time. */
static bool is_too_much(const call *q, CURLcode code)
{
    return q->response.failed || (code == CURLE_OPERATION_TIMEDOUT && q->response.size > q->store->max_body / 4);
}

/* A transfer that brought no reply. */
static void transfer_failed(call *q, CURLcode code)
{
    etcd *s = q->store;
    moe_error err;
    moe_status status = code == CURLE_OPERATION_TIMEDOUT ? MOE_ERR_TIMEOUT
                        : q->response.failed             ? MOE_ERR_CORRUPT
                                                         : MOE_ERR_UNAVAILABLE;

    if (is_list(q) && is_too_much(q, code) && etcd_listing_shrink(&s->listing)) {
        go_on(q);
        return;
    }
    if (q->response.failed) {
        (void)moe_fail(&err, status, "%s: the reply is larger than %zu bytes", s->endpoints[q->endpoint], s->max_body);
    } else {
        (void)moe_fail(&err, status, "%s: %s", s->endpoints[q->endpoint], curl_reason(q, code));
    }
    move_on(s, q);
    if (q == &s->login) {
        cluster_reply none = {0};
        end_login(s, status, &none, NULL, &err);
    } else {
        report_failure(q, status, err.text);
    }
}

static void unary_ended(call *q, CURLcode code)
{
    etcd *s = q->store;
    long http_status = 0;
    etcd_rest rest = {.more = false};
    cluster_reply reply = {0};
    moe_error err = {""};

    if (code != CURLE_OK) {
        transfer_failed(q, code);
        return;
    }
    (void)curl_easy_getinfo(q->easy, CURLINFO_RESPONSE_CODE, &http_status);
    moe_status status =
        etcd_read_reply(moe_text_cstr(&q->response), q->response.size, http_status, &reply, &rest, &err);
    if (status != MOE_OK || reply.status == MOE_ERR_UNAVAILABLE) {
        move_on(s, q);
    }
    if (q == &s->login) {
        end_login(s, status, &reply, rest.token, &err);
        rest.token = NULL;
    } else if (reply.status == MOE_ERR_DENIED && s->user != NULL && !q->has_renewed) {
        rewind_call(q);
        q->has_renewed = true;
        forget_token(s);
        submit(q);
    } else if (!is_list(q) || !list_ended(q, &reply, &rest, &status, &err)) {
        reply.status = status != MOE_OK ? status : reply.status;
        reply.reason = err.text;
        report(q, &reply);
    }
    etcd_reply_fini(&reply);
    etcd_rest_fini(&rest);
}

/* Also a good end is a loss. A refusal may be that of an old token: the next call fetches a new one. */
static void watch_ended(etcd *s, CURLcode code)
{
    call *q = &s->watch;
    moe_error err;

    if (q->response.size > 0) {
        (void)moe_fail(&err, MOE_ERR_UNAVAILABLE, "%s: %.200s", s->endpoints[q->endpoint], q->response.data);
    } else {
        (void)moe_fail(&err, MOE_ERR_UNAVAILABLE, "%s: %s", s->endpoints[q->endpoint], curl_reason(q, code));
    }
    if (s->parser.is_over || q->response.size > 0) {
        forget_token(s);
    } else {
        move_on(s, q);
    }
    lose_watch(s, err.text);
}

/* ------------------------------------------------------------------------------------------------ progress */
static void end_unsent(etcd *s)
{
    const cluster_reply none = {0};

    for (size_t i = 0; i < MAX_CALLS; i++) {
        if (s->calls[i].state == CALL_FAILED) {
            moe_error err;
            moe_status status = moe_fail(&err, MOE_ERR_INVALID_ARG, "%s", s->calls[i].error);
            report_failure(&s->calls[i], status, err.text);
        }
    }
    if (s->login.state == CALL_FAILED) {
        moe_error err;
        cluster_reply reply = none;
        moe_status status = moe_fail(&err, MOE_ERR_DENIED, "%s", s->login.error);
        end_login(s, status, &reply, NULL, &err);
    }
    if (s->watch.state == CALL_FAILED) {
        moe_error err;
        (void)moe_fail(&err, MOE_ERR_INVALID_ARG, "%s", s->watch.error);
        lose_watch(s, err.text);
    }
}

static void progress(etcd *s)
{
    int n_running, n_left;
    CURLMsg *message;

    end_unsent(s);
    if (curl_multi_perform(s->multi, &n_running) != CURLM_OK) {
        return;
    }
    while ((message = curl_multi_info_read(s->multi, &n_left)) != NULL) {
        call *q = NULL;
        CURLcode code = message->data.result;

        if (message->msg != CURLMSG_DONE || curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &q) != CURLE_OK) {
            continue;
        }
        if (q == &s->watch) {
            watch_ended(s, code);
        } else {
            unary_ended(q, code);
        }
    }
}

static void etcd_poll(cluster_store *store, uint64_t timeout_ns)
{
    etcd *s = (etcd *)store;

    s->has_called_back = false;
    progress(s);
    if (!s->has_called_back && timeout_ns > 0) {
        uint64_t ms = timeout_ns / 1000000u + (timeout_ns % 1000000u != 0);

        (void)curl_multi_poll(s->multi, NULL, 0, (int)MOE_MIN(ms, (uint64_t)INT_MAX), NULL);
        progress(s);
    }
}

static void etcd_wake(cluster_store *store)
{
    (void)curl_multi_wakeup(((etcd *)store)->multi);
}

/* ------------------------------------------------------------------------------------------------ calls */
/* A member makes fewer calls at a time than there are places. */
static call *new_call(cluster_store *store, const char *path, cluster_reply_fn fn, void *ctx)
{
    etcd *s = (etcd *)store;
    size_t i = 0;

    while (i < MAX_CALLS && s->calls[i].state != CALL_FREE) {
        i++;
    }
    MOE_ASSERT(i < MAX_CALLS);
    open_call(s, &s->calls[i], path, fn, ctx);
    return &s->calls[i];
}

static void etcd_txn(cluster_store *store, const cluster_txn *txn, cluster_reply_fn fn, void *ctx)
{
    call *q = new_call(store, "kv/txn", fn, ctx);

    etcd_write_txn(&q->request, txn);
    submit(q);
}

static void etcd_grant(cluster_store *store, uint64_t ttl_s, cluster_reply_fn fn, void *ctx)
{
    call *q = new_call(store, "lease/grant", fn, ctx);

    etcd_write_lease(&q->request, 0, ttl_s);
    submit(q);
}

static void etcd_keepalive(cluster_store *store, uint64_t lease, cluster_reply_fn fn, void *ctx)
{
    call *q = new_call(store, "lease/keepalive", fn, ctx);

    etcd_write_lease(&q->request, lease, 0);
    submit(q);
}

static void etcd_revoke(cluster_store *store, uint64_t lease, cluster_reply_fn fn, void *ctx)
{
    call *q = new_call(store, "lease/revoke", fn, ctx);

    etcd_write_lease(&q->request, lease, 0);
    submit(q);
}

static void etcd_range(cluster_store *store, const char *prefix, cluster_reply_fn fn, void *ctx)
{
    call *q = new_call(store, "kv/range", fn, ctx);
    etcd_listing *l = &q->store->listing;

    MOE_ASSERT(l->prefix[0] == '\0'); /* one at a time */
    etcd_listing_init(l, prefix, l->limit, q->store->max_body);
    etcd_listing_write(l, &q->request);
    submit(q);
}

static void etcd_unwatch(cluster_store *store)
{
    etcd *s = (etcd *)store;

    if (s->watch.state != CALL_FREE) {
        drop(&s->watch);
        etcd_watch_fini(&s->parser);
    }
}

static void etcd_watch(cluster_store *store, const char *prefix, uint64_t from_revision, cluster_watch_fn fn, void *ctx)
{
    etcd *s = (etcd *)store;

    etcd_unwatch(store);
    open_call(s, &s->watch, "watch", NULL, NULL);
    etcd_watch_init(&s->parser, s->max_body);
    s->watch_fn = fn;
    s->watch_ctx = ctx;
    etcd_write_watch(&s->watch.request, prefix, from_revision);
    submit(&s->watch);
}

/* ------------------------------------------------------------------------------------------------ life */
static void etcd_close(cluster_store *store)
{
    etcd *s = (etcd *)store;
    call *all[MAX_CALLS + 2];
    char *const texts[] = {s->user, s->password_file, s->ca, s->cert, s->key};

    for (size_t i = 0; i < MAX_CALLS; i++) {
        all[i] = &s->calls[i];
    }
    all[MAX_CALLS] = &s->login;
    all[MAX_CALLS + 1] = &s->watch;
    etcd_unwatch(store);
    etcd_listing_fini(&s->listing);
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if (all[i]->state != CALL_FREE) {
            drop(all[i]);
        }
        if (all[i]->easy != NULL) {
            curl_easy_cleanup(all[i]->easy);
        }
    }
    if (s->multi != NULL) {
        (void)curl_multi_cleanup(s->multi);
    }
    for (size_t i = 0; i < s->n_endpoints; i++) {
        free(s->endpoints[i]);
    }
    for (size_t i = 0; i < MOE_COUNT(texts); i++) {
        free(texts[i]);
    }
    forget_token(s);
    free(s);
}

/* scheme://host[:port], nothing behind it but one '/'. */
static moe_status add_endpoint(etcd *s, const char *text, size_t n, moe_error *err)
{
    size_t scheme = strncmp(text, "https://", 8) == 0 ? 8 : strncmp(text, "http://", 7) == 0 ? 7 : 0;

    n -= n > 0 && text[n - 1] == '/';
    if (scheme == 0 || n <= scheme || n > MAX_URL || strcspn(text + scheme, "/?#@ \t") < n - scheme) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--etcd \"%.*s\": must be http(s)://HOST:PORT", (int)MOE_MIN(n, 200),
                        text);
    }
    if (s->n_endpoints == MAX_ENDPOINTS) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--etcd: more than %d endpoints", MAX_ENDPOINTS);
    }
    s->endpoints[s->n_endpoints] = strndup(text, n);
    if (s->endpoints[s->n_endpoints] == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "etcd");
    }
    s->n_endpoints++;
    return MOE_OK;
}

static moe_status add_endpoints(etcd *s, const char *text, moe_error *err)
{
    moe_status status = MOE_OK;

    do {
        size_t n = strcspn(text, ",");

        status = add_endpoint(s, text, n, err);
        text += n;
    } while (status == MOE_OK && *text++ == ',');
    return status;
}

static moe_status copy_text(char **out, const char *text, moe_error *err)
{
    *out = text != NULL ? strdup(text) : NULL;
    return text == NULL || *out != NULL ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "etcd");
}

static moe_status open_handles(etcd *s, moe_error *err)
{
    bool ok = true;

    s->multi = curl_multi_init();
    for (size_t i = 0; i < MAX_CALLS + 2; i++) {
        call *q = i < MAX_CALLS ? &s->calls[i] : i == MAX_CALLS ? &s->login : &s->watch;

        q->store = s;
        q->easy = curl_easy_init();
        ok = ok && q->easy != NULL;
    }
    return ok && s->multi != NULL ? MOE_OK : moe_fail(err, MOE_ERR_NO_MEMORY, "etcd: curl handles");
}

static moe_status fill(etcd *s, const cluster_etcd_options *o, moe_error *err)
{
    const struct {
        char **out;
        const char *text;
    } texts[] = {{&s->user, o->user},
                 {&s->password_file, o->password_file},
                 {&s->ca, o->ca},
                 {&s->cert, o->cert},
                 {&s->key, o->key}};
    moe_status status = add_endpoints(s, o->endpoints != NULL ? o->endpoints : "", err);

    for (size_t i = 0; i < MOE_COUNT(texts) && status == MOE_OK; i++) {
        status = copy_text(texts[i].out, texts[i].text, err);
    }
    if (status == MOE_OK && (o->cert == NULL) != (o->key == NULL)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "--etcd-cert and --etcd-key: one needs the other");
    }
    if (status == MOE_OK && (o->user == NULL) != (o->password_file == NULL)) {
        status = moe_fail(err, MOE_ERR_INVALID_ARG, "--etcd-user and --etcd-password-file: one needs the other");
    }
    return status == MOE_OK ? open_handles(s, err) : status;
}

static void init_curl(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

moe_status cluster_etcd_open(const cluster_etcd_options *options, cluster_store **out, moe_error *err)
{
    static const cluster_store_ops ops = {
        .name = "etcd",
        .txn = etcd_txn,
        .grant = etcd_grant,
        .keepalive = etcd_keepalive,
        .revoke = etcd_revoke,
        .range = etcd_range,
        .watch = etcd_watch,
        .unwatch = etcd_unwatch,
        .poll = etcd_poll,
        .wake = etcd_wake,
        .close = etcd_close,
    };
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    etcd *s = calloc(1, sizeof *s);

    if (s == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "etcd");
    }
    (void)pthread_once(&once, init_curl);
    s->store.ops = &ops;
    s->timeout_ns = options->timeout_ns != 0 ? options->timeout_ns : 3000000000u;
    s->max_body = options->max_response_bytes != 0 ? options->max_response_bytes : MAX_BODY;
    moe_status status = fill(s, options, err);
    if (status != MOE_OK) {
        etcd_close(&s->store);
        return status;
    }
    *out = &s->store;
    return MOE_OK;
}
