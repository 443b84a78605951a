/* The exchange: jobs and picks. Attempts are attempts.c's, connections exchange_node.c's.
 *
 * The one invariant: a pick counts in n_left until its result is in place, and exactly one of these holds for it: it
 * waits (and counts in n_waiting), or one open attempt has it, or it is done. An open attempt that ends before its job
 * does passes through exchange_requeue() or finish_picks(), which keep that. Results are pure functions of (layer, expert, row),
 * so asking twice and taking whichever comes first changes no bit.
 *
 * An attempt is found by request id *and* connection. A node that restarts gets a new connection, so an answer that an
 * earlier incarnation left in the network can never be taken for one that was asked for now. */
#include "exchange/exchange_priv.h"

#include <stdlib.h>
#include <string.h>

/* Bounds and pauses. All are chosen, not measured; what each has to cover is said.
 *
 *   N_ATTEMPTS     open and late ones of all jobs: enough for two jobs with a part at each of 64 nodes, sent twice
 *   N_DISPATCHES   send buffers for DISPATCH at most; fewer when they are large (DISPATCH_POOL bytes of address
 *                  space in all), but two for each job, so that one can be written while another leaves. Picks that
 *                  find no buffer wait a pause
 *   N_SMALL        HELLO, PROOF and a PING to every node at once (EXCHANGE_OWN_SMALL), whatever the others take
 *   PAUSE_SHARE    a node that refuses, and picks without an owner, wait this part of a time-out, and PAUSE_MOST_NS
 *                  at most */
#define N_ATTEMPTS    256
#define N_DISPATCHES  64
#define DISPATCH_POOL ((size_t)1 << 30)
#define N_SMALL       (EXCHANGE_OWN_SMALL * ROUTER_MAX_NODES)
#define PAUSE_SHARE   4
#define PAUSE_MOST_NS UINT64_C(10000000)

static uint64_t pause_ns(const exchange *x)
{
    return MOE_MIN(x->o.dispatch_timeout_ns / PAUSE_SHARE, PAUSE_MOST_NS);
}

/* ------------------------------------------------------------------------------------------------ open, close */
static moe_status check_options(const exchange_options *o, moe_error *err)
{
    if (o->k == 0 || o->k > ROUTER_MAX_TOP_K || o->d_model == 0 || o->d_model > WIRE_MAX_D_MODEL || o->max_rows == 0 ||
        o->max_rows > INT32_MAX / o->k) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "exchange: k %u, width %u, %zu rows", o->k, o->d_model, o->max_rows);
    }
    if (o->micro_batches == 0 || o->micro_batches > EXCHANGE_MAX_JOBS || o->dispatch_timeout_ns == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "exchange: %u micro-batches, limit %d; dispatch timeout %llu ns",
                        o->micro_batches, EXCHANGE_MAX_JOBS, (unsigned long long)o->dispatch_timeout_ns);
    }
    if (o->id == NULL || strlen(o->id) == 0 || strlen(o->id) > WIRE_MAX_NAME || o->cluster == NULL ||
        strlen(o->cluster) == 0 || strlen(o->cluster) > WIRE_MAX_NAME) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "exchange: id and cluster have 1 to %d characters", WIRE_MAX_NAME);
    }
    return MOE_OK;
}

static void hello_init(exchange *x)
{
    const exchange_options *o = &x->o;
    wire_hello *h = &x->hello;

    *h = (wire_hello){.role = WIRE_COORDINATOR,
                      .incarnation = o->incarnation,
                      .d_model = o->d_model,
                      .max_message = o->transport->max_message};
    (void)snprintf(h->member, sizeof h->member, "%s", o->id);
    (void)snprintf(h->cluster, sizeof h->cluster, "%s", o->cluster);
    (void)snprintf(h->numeric_class, sizeof h->numeric_class, "%s", compute_class_name(o->device->numeric_class));
    memcpy(h->fingerprint, o->fingerprint, sizeof h->fingerprint);
    x->side = (link_side){.role = LINK_COORDINATOR,
                          .hello = h,
                          .key = &x->key,
                          .ops = &exchange_link_ops,
                          .heartbeat_ns = o->heartbeat_ns};
    x->o.id = h->member;
    x->o.cluster = h->cluster;
}

static moe_status limits_init(exchange *x, moe_error *err)
{
    const exchange_options *o = &x->o;
    size_t rows = o->max_frame_rows == 0 ? o->max_rows : MOE_MIN(o->max_frame_rows, o->max_rows);

    x->dtype = outbox_dtype(o->device);
    x->row_bytes = o->d_model * compute_dtype_bytes(compute_class_dtype(o->device->numeric_class));
    x->hello.max_rows = (uint32_t)rows;
    x->hello.max_picks = (uint32_t)rows * o->k;
    if (o->transport->max_message < WIRE_SMALL_BYTES ||
        !exchange_fit(x, o->transport->max_message, &x->hello.max_rows, &x->hello.max_picks)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "exchange: one row of width %u with %u results does not fit %zu bytes", o->d_model, o->k,
                        o->transport->max_message);
    }
    return MOE_OK;
}

static moe_status attempts_open(exchange *x)
{
    size_t max_picks = x->hello.max_picks;

    x->n_attempts = N_ATTEMPTS;
    x->attempts = calloc(x->n_attempts, sizeof *x->attempts);
    x->attempt_picks = calloc(x->n_attempts * max_picks, sizeof *x->attempt_picks);
    if (x->attempts == NULL || x->attempt_picks == NULL) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < x->n_attempts; i++) {
        x->attempts[i].picks = x->attempt_picks + i * max_picks;
    }
    return MOE_OK;
}

static moe_status buffers_open(exchange *x)
{
    const exchange_options *o = &x->o;
    size_t picks = x->hello.max_picks;
    size_t frame_bytes = wire_dispatch_bytes(x->hello.max_rows, picks, picks, o->d_model, x->dtype);

    for (uint32_t mb = 0; mb < o->micro_batches; mb++) {
        x->runs[mb].picks = calloc(o->max_rows, o->k);
        if (x->runs[mb].picks == NULL) {
            return MOE_ERR_NO_MEMORY;
        }
    }
    moe_status status = router_plan_open(o->max_rows, o->k, router_space_widest(o->space), &x->plan);
    if (status == MOE_OK) {
        status = transport_frames_open(o->transport, N_SMALL, WIRE_SMALL_BYTES, NULL, &x->small);
    }
    if (status == MOE_OK) {
        size_t n = MOE_MIN(MOE_MAX(DISPATCH_POOL / frame_bytes, 2 * (size_t)o->micro_batches), N_DISPATCHES);
        x->dispatches = (outbox){.device = o->device,
                                 .transport = o->transport,
                                 .n_frames = n,
                                 .frame_bytes = frame_bytes,
                                 .d_model = o->d_model};
        status = outbox_init(&x->dispatches);
    }
    if (status == MOE_OK) {
        x->holds.bits = exchange_holds_alloc(o->space);
        status = x->holds.bits == NULL ? MOE_ERR_NO_MEMORY : attempts_open(x);
    }
    return status;
}

moe_status exchange_open(const exchange_options *options, exchange **out, moe_error *err)
{
    moe_status status = check_options(options, err);

    if (status != MOE_OK) {
        return status;
    }
    exchange *x = calloc(1, sizeof *x);
    if (x == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "exchange");
    }
    x->o = *options;
    (void)router_space_ref(x->o.space);
    exchange_coverage_init(x);
    hello_init(x);
    x->o.secret = NULL;
    status = wire_key_init(&x->key, options->secret, options->n_secret);
    if (status != MOE_OK) {
        exchange_close(x);
        return moe_fail(err, status, "exchange: secret of %zu bytes, limit %d", options->n_secret, WIRE_MAX_SECRET);
    }
    status = limits_init(x, err);
    if (status != MOE_OK) {
        exchange_close(x);
        return status;
    }
    status = buffers_open(x);
    if (status != MOE_OK) {
        exchange_close(x);
        return moe_fail(err, status, "exchange: buffers for %zu rows of width %u", options->max_rows, options->d_model);
    }
    x->o.transport->handler = (transport_handler){x, exchange_on_message, exchange_on_peer};
    *out = x;
    return MOE_OK;
}

void exchange_close(exchange *x)
{
    if (x == NULL) {
        return;
    }
    for (uint32_t mb = 0; mb < EXCHANGE_MAX_JOBS; mb++) {
        free(x->runs[mb].picks);
    }
    free(x->holds.bits);
    outbox_fini(&x->dispatches);
    transport_frames_close(x->small);
    router_plan_close(x->plan);
    router_placement_unref(x->placement);
    router_set_unref(x->needed);
    router_space_unref(x->o.space);
    free(x->attempt_picks);
    free(x->attempts);
    wire_key_fini(&x->key);
    pthread_mutex_destroy(&x->coverage.lock);
    free(x);
}

void exchange_set_placement(exchange *x, router_placement *placement)
{
    router_placement *old = x->placement;

    MOE_ASSERT(router_space_n_layers(router_placement_space(placement)) == router_space_n_layers(x->o.space));
    x->placement = router_placement_ref(placement);
    router_placement_unref(old);
    exchange_map_nodes(x);
}

/* ------------------------------------------------------------------------------------------------ growing */
struct exchange_growth {
    router_space *space; /* shared */
    router_plan *plan;   /* owned */
    uint64_t *holds;     /* owned [ROUTER_MAX_NODES][router_space_words] */
};

moe_status exchange_growth_open(const exchange *x, router_space *space, exchange_growth **out, moe_error *err)
{
    exchange_growth *g = calloc(1, sizeof *g);

    if (g == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "exchange: out of memory");
    }
    g->space = router_space_ref(space);
    g->holds = exchange_holds_alloc(space);
    if (g->holds == NULL || router_plan_open(x->o.max_rows, x->o.k, router_space_widest(space), &g->plan) != MOE_OK) {
        exchange_growth_close(g);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "exchange: %u experts: out of memory", router_space_n_slots(space));
    }
    *out = g;
    return MOE_OK;
}

void exchange_growth_close(exchange_growth *g)
{
    if (g != NULL) {
        router_plan_close(g->plan);
        free(g->holds);
        router_space_unref(g->space);
        free(g);
    }
}

void exchange_grow(exchange *x, exchange_growth *g)
{
    const exchange_growth before = {x->o.space, x->plan, x->holds.bits};

    MOE_ASSERT(router_space_n_slots(g->space) >= router_space_n_slots(before.space));
    for (uint32_t mb = 0; mb < x->o.micro_batches; mb++) {
        MOE_ASSERT(x->runs[mb].state != EXCHANGE_RUNNING);
    }
    exchange_holds_copy(g->holds, g->space, x);
    x->o.space = g->space;
    x->plan = g->plan;
    x->holds.bits = g->holds;
    *g = before;
    x->coverage.stale = true;
    for (size_t i = 0; i < ROUTER_MAX_NODES; i++) {
        if (link_is_open(&x->nodes[i].link)) {
            link_ask_again(&x->nodes[i].link);
        }
    }
    exchange_wake_at(x, 0);
}

router_space *exchange_get_space(const exchange *x)
{
    return x->o.space;
}

void exchange_get_stats(const exchange *x, exchange_stats *out)
{
    *out = x->stats;
}

void exchange_get_held(const exchange *x, size_t *frames_out, size_t *attempts_out)
{
    *frames_out = transport_frames_out(x->small) + transport_frames_out(x->dispatches.frames);
    *attempts_out = 0;
    for (size_t i = 0; i < x->n_attempts; i++) {
        *attempts_out += x->attempts[i].state != ATTEMPT_FREE;
    }
}

void exchange_wake_at(exchange *x, uint64_t at_ns)
{
    x->wake_ns = MOE_MIN(x->wake_ns, at_ns);
}

void exchange_replan(exchange *x)
{
    for (uint32_t mb = 0; mb < x->o.micro_batches; mb++) {
        x->runs[mb].replan = true;
    }
}

/* ------------------------------------------------------------------------------------------------ sending */
/* Fills a frame with the part; see outbox_fill. */
static moe_status write_dispatch(exchange *x, const exchange_run *run, const router_plan_part *part, outbox_frame *f)
{
    const wire_dispatch head = {.request = f->request,
                                .epoch = router_placement_epoch(x->placement),
                                .d_model = x->o.d_model,
                                .dtype = x->dtype,
                                .n_rows = part->n_rows,
                                .n_groups = part->n_groups,
                                .n_picks = part->n_picks};

    wire_dispatch_begin(&f->buf, &head);
    for (uint32_t g = 0; g < part->n_groups; g++) {
        wire_put_group(&f->buf, (wire_group){part->groups[g].expert_id, part->groups[g].n_picks});
    }
    for (uint32_t i = 0; i < part->n_picks; i++) {
        moe_put_u32(&f->buf, part->pick_rows[i]);
    }
    return outbox_fill(&x->dispatches, f, run->job.x, part->rows, part->n_rows);
}

/* Its rows are in the frame. */
static void leave(exchange *x, exchange_attempt *a, outbox_frame *f, uint64_t now)
{
    exchange_node *node = &x->nodes[a->node];

    a->sent_ns = now;
    a->late_ns = a->look_ns = now + exchange_speed_late_ns(x, node, a->cost);
    a->deadline_ns = now + x->o.dispatch_timeout_ns;
    exchange_wake_at(x, a->look_ns);
    exchange_mute_owes(node, a->cost, now);
    x->stats.frames_sent++;
    x->stats.bytes_sent += f->buf.used;
    outbox_post(f);
}

/* Sends one part as a new attempt, at once if the device has no need of time. MOE_ERR_BUSY: no attempt or no buffer is free
 * now. Other errors are the device's. */
static moe_status send_part(exchange *x, exchange_run *run, const router_plan_part *part, uint64_t now)
{
    uint32_t node = x->node_of[part->node];
    exchange_attempt *a = exchange_take_attempt(x);
    outbox_frame f;

    if (a == NULL || !outbox_take(&x->dispatches, x->nodes[node].peer, &f)) {
        return MOE_ERR_BUSY;
    }
    f.request =
        (wire_request){x->o.coordinator_id, run->step, run->job.layer, run->job.micro_batch, run->next_attempt++};
    moe_status status = write_dispatch(x, run, part, &f);
    if (status != MOE_OK && status != MOE_ERR_BUSY) {
        transport_frame_release(f.frame);
        return status;
    }
    a->state = ATTEMPT_OPEN;
    a->node = node;
    a->peer = x->nodes[node].peer;
    a->request = f.request;
    a->sent_ns = now;
    a->cost = part->cost;
    a->late_ns = a->look_ns = a->deadline_ns = UINT64_MAX; /* until it leaves */
    a->n_rows = part->n_rows;
    a->n_picks = part->n_picks;
    memcpy(a->picks, part->picks, part->n_picks * sizeof *a->picks);
    for (uint32_t i = 0; i < part->n_picks; i++) {
        run->picks[part->picks[i]] = PICK_SENT;
    }
    run->n_waiting -= part->n_picks;
    if (status == MOE_OK) {
        leave(x, a, &f, now);
    }
    return MOE_OK;
}

static void end_run(exchange *x, exchange_run *run, exchange_state_kind state)
{
    run->state = state;
    exchange_end_attempts(x, run->job.micro_batch);
}

/* Sends what the device has filled. An attempt that has lost its picks meanwhile sends nothing. Returns how many frames there
 * were and are, so that nobody sleeps meanwhile. */
static unsigned send_filled(exchange *x, uint64_t now)
{
    unsigned all = (unsigned)x->dispatches.n_filling;
    outbox_frame f;
    moe_status status;

    while (outbox_next(&x->dispatches, &f, &status)) {
        exchange_attempt *a = exchange_find_attempt(x, f.frame->peer, &f.request);
        bool is_open = a != NULL && a->state == ATTEMPT_OPEN;

        if (is_open && status == MOE_OK) {
            leave(x, a, &f, now);
            continue;
        }
        transport_frame_release(f.frame);
        if (is_open) {
            exchange_run *run = exchange_run_of(x, a);

            run->status = status;
            end_run(x, run, EXCHANGE_FAILED);
        } else if (a != NULL) {
            a->state = ATTEMPT_FREE;
        }
    }
    return all;
}

/* Marks the placement's nodes that may be used now and narrows the limits to what all of them take. Returns how many
 * were left out for being slow. */
static size_t usable_nodes(const exchange *x, uint64_t now, bool with_slow, bool *usable, router_plan_input *in)
{
    size_t n_slow = 0;

    in->max_part_rows = x->hello.max_rows;
    in->max_part_picks = x->hello.max_picks;
    for (size_t i = 0; i < router_placement_n_nodes(x->placement); i++) {
        const exchange_node *node = x->node_of[i] == EXCHANGE_NO_NODE ? NULL : &x->nodes[x->node_of[i]];

        usable[i] = node != NULL && exchange_takes_rows(node, now);
        if (usable[i] && !with_slow && now < node->slow_until_ns) {
            usable[i] = false;
            n_slow++;
        }
        if (usable[i]) {
            in->max_part_rows = MOE_MIN(in->max_part_rows, node->max_rows);
            in->max_part_picks = MOE_MIN(in->max_part_picks, node->max_picks);
        }
    }
    return n_slow;
}

/* Plans the waiting picks and sends them: first over the nodes that are not slow, then, if picks are left and some node
 * was left out for being slow, over all. So a slow node gets only what nobody else can compute.
 *
 * Sending marks picks as sent while the plan that hands them out still runs. That is safe: router_plan_build has read
 * `skip` by then, and the next build reads it anew. */
static moe_status plan_and_send(exchange *x, exchange_run *run, uint64_t now)
{
    bool usable[ROUTER_MAX_NODES];
    uint32_t burdens[ROUTER_MAX_NODES];
    router_plan_part part;
    router_plan_input in = {.placement = x->placement,
                            .layer = run->job.layer,
                            .ids = run->job.ids,
                            .n_rows = run->job.n_rows,
                            .skip = run->picks,
                            .usable = usable};
    bool with_slow = false;
    moe_status status = MOE_OK;

    bool all_placed = x->placement != NULL;

    run->replan = false;
    in.burden = x->placement == NULL ? NULL : exchange_speed_burdens(x, now, burdens);
    for (size_t n_slow = 1; n_slow > 0 && run->n_waiting > 0 && x->placement != NULL && status == MOE_OK;) {
        n_slow = usable_nodes(x, now, with_slow, usable, &in);
        all_placed = router_plan_build(x->plan, &in) == 0;
        while (status == MOE_OK && router_plan_next(x->plan, &part)) {
            status = send_part(x, run, &part, now);
        }
        with_slow = true;
    }
    if (!all_placed && run->n_waiting > 0 && run->stuck_ns == 0) {
        run->stuck_ns = now;
    }
    run->replan_ns = run->n_waiting == 0 ? UINT64_MAX : now + pause_ns(x);
    exchange_wake_at(x, run->replan_ns);
    return status == MOE_ERR_BUSY ? MOE_OK : status;
}

/* ------------------------------------------------------------------------------------------------ results */
static uint32_t pick_of(const exchange_attempt *a, uint32_t i)
{
    return a->picks[i] & ~ATTEMPT_AWAY;
}

/* What another attempt has answered stays; what is between goes up together. The attempt is over. */
static void finish_picks(exchange *x, exchange_run *run, exchange_attempt *a, const unsigned char *rows)
{
    compute_device *device = x->o.device;

    for (uint32_t i = 0, n = 0; i <= a->n_picks; i++) {
        uint32_t pick = i < a->n_picks ? pick_of(a, i) : 0;

        if (i < a->n_picks && run->picks[pick] != PICK_DONE) {
            run->n_waiting -= run->picks[pick] == PICK_WAITING;
            run->picks[pick] = PICK_DONE;
            a->picks[i] = pick;
            n++;
            continue;
        }
        if (n > 0) {
            device->ops->scatter_in(device, run->job.results, rows + (i - n) * x->row_bytes, a->picks + (i - n),
                                    x->row_bytes, n);
        }
        run->n_left -= n;
        x->stats.rows_combined += n;
        n = 0;
    }
}

moe_status exchange_on_result(exchange *x, transport_peer peer, const wire_result *r, moe_error *err)
{
    exchange_attempt *a = exchange_find_attempt(x, peer, &r->request);

    if (a == NULL) {
        x->stats.late_results++;
        return MOE_OK;
    }
    if (r->n_picks != a->n_picks || r->d_model != x->o.d_model || r->dtype != x->dtype) {
        return moe_fail(err, MOE_ERR_CORRUPT, "RESULT: %u rows of width %u, asked for %u of %u", r->n_picks, r->d_model,
                        a->n_picks, x->o.d_model);
    }
    exchange_run *run = exchange_run_of(x, a);
    uint64_t now = moe_now_ns(x->o.clock);
    x->nodes[a->node].rows += a->n_rows;
    x->nodes[a->node].frames++;
    x->nodes[a->node].busy_ns += now - a->sent_ns;
    x->nodes[a->node].link.queued_rows = r->queued_rows;
    exchange_speed_note(x, run, a, now);
    a->state = ATTEMPT_FREE;
    finish_picks(x, run, a, r->rows);
    run->stuck_ns = 0;
    run->replan = true;
    if (run->n_left == 0) {
        end_run(x, run, EXCHANGE_DONE);
    }
    return MOE_OK;
}

void exchange_on_refuse(exchange *x, transport_peer peer, const wire_refuse *r)
{
    exchange_attempt *a = exchange_find_attempt(x, peer, &r->request);

    x->stats.refusals++;
    if (a == NULL) {
        x->stats.late_results++;
        return;
    }
    uint64_t now = moe_now_ns(x->o.clock);
    exchange_node *node = &x->nodes[a->node];
    MOE_DEBUG("node %s refuses: %s", node->id, r->text);
    node->hold_until_ns = now + pause_ns(x);
    if (a->state == ATTEMPT_OPEN) {
        exchange_requeue(x, a);
    }
    a->state = ATTEMPT_FREE;
    exchange_mute_refused(x, node, now);
}

/* ------------------------------------------------------------------------------------------------ jobs */
static size_t count_picks(exchange_run *run, uint32_t k)
{
    size_t n = 0;

    for (size_t pick = 0; pick < run->job.n_rows * k; pick++) {
        run->picks[pick] = run->job.ids[pick] < 0 ? PICK_DONE : PICK_WAITING;
        n += run->job.ids[pick] >= 0;
    }
    return n;
}

moe_status exchange_begin(exchange *x, const exchange_job *job)
{
    MOE_ASSERT(job->micro_batch < x->o.micro_batches && job->layer < router_space_n_layers(x->o.space) &&
               job->n_rows <= x->o.max_rows);
    exchange_run *run = &x->runs[job->micro_batch];

    MOE_ASSERT(run->state != EXCHANGE_RUNNING);
    run->job = *job;
    run->step = ++x->step;
    run->next_attempt = 0;
    run->stuck_ns = 0;
    run->first = (exchange_lap){.cost = 0};
    run->n_left = run->n_waiting = count_picks(run, x->o.k);
    run->state = run->n_left == 0 ? EXCHANGE_DONE : EXCHANGE_RUNNING;
    x->stats.rows_dispatched += run->n_left;
    x->busy_ns = moe_now_ns(x->o.clock);
    moe_status status = plan_and_send(x, run, x->busy_ns);
    if (status != MOE_OK) {
        end_run(x, run, EXCHANGE_IDLE);
    }
    return status;
}

moe_status exchange_collect(exchange *x, uint32_t micro_batch, moe_error *err)
{
    MOE_ASSERT(micro_batch < x->o.micro_batches);
    exchange_run *run = &x->runs[micro_batch];

    if (run->state == EXCHANGE_RUNNING) {
        return MOE_ERR_BUSY;
    }
    if (run->state == EXCHANGE_FAILED) {
        run->state = EXCHANGE_IDLE;
        return moe_fail(err, run->status, "layer %u: the device failed", run->job.layer);
    }
    return MOE_OK;
}

void exchange_drop(exchange *x, uint32_t micro_batch)
{
    MOE_ASSERT(micro_batch < x->o.micro_batches);
    exchange_run *run = &x->runs[micro_batch];

    if (run->state == EXCHANGE_RUNNING) {
        end_run(x, run, EXCHANGE_IDLE);
    }
}

exchange_state_kind exchange_state(const exchange *x, uint32_t micro_batch)
{
    MOE_ASSERT(micro_batch < x->o.micro_batches);
    return x->runs[micro_batch].state;
}

static void run_timers(exchange *x, uint64_t now)
{
    if (now >= x->wake_ns) {
        x->wake_ns = UINT64_MAX;
        exchange_node_timers(x, now);
        exchange_attempt_timers(x, now);
        for (uint32_t mb = 0; mb < x->o.micro_batches; mb++) {
            exchange_wake_at(x, x->runs[mb].state == EXCHANGE_RUNNING ? x->runs[mb].replan_ns : UINT64_MAX);
        }
    }
    for (uint32_t mb = 0; mb < x->o.micro_batches; mb++) {
        exchange_run *run = &x->runs[mb];

        if (run->state == EXCHANGE_RUNNING && run->n_waiting > 0 && (run->replan || now >= run->replan_ns)) {
            moe_status status = plan_and_send(x, run, now);
            if (status != MOE_OK) {
                run->status = status;
                end_run(x, run, EXCHANGE_FAILED);
            }
        }
    }
}

unsigned exchange_progress(exchange *x)
{
    unsigned n = x->o.transport->ops->progress(x->o.transport);

    if (x->o.poll != NULL) {
        x->o.poll(x->o.poll_ctx);
    }
    uint64_t now = moe_now_ns(x->o.clock);
    n += send_filled(x, now);
    run_timers(x, now);
    exchange_coverage_update(x, now);
    atomic_store_explicit(&x->turned_ns, now, memory_order_relaxed);
    n += transport_frames_flush(x->small) + transport_frames_flush(x->dispatches.frames);
    x->busy_ns = n > 0 ? now : x->busy_ns;
    return n;
}
