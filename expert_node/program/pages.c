/* What probes and Prometheus see of a node. */

#include "expert_node/program/program.h"

#define PUBLISH_NS UINT64_C(50000000)
#define STUCK_NS   UINT64_C(60000000000)

void node_pages_publish(node_program_state *p, uint64_t now)
{
    if (now - p->shown.turned_ns < PUBLISH_NS) {
        return; /* read without the lock: this thread alone writes */
    }
    pthread_mutex_lock(&p->lock);
    expert_node_get_stats(p->node, &p->shown.stats);
    transport_net_get_stats(p->transport, &p->shown.transport);
    p->shown.turned_ns = now;
    pthread_mutex_unlock(&p->lock);
}

node_shown node_pages_look(node_program_state *p)
{
    pthread_mutex_lock(&p->lock);
    node_shown s = p->shown;
    pthread_mutex_unlock(&p->lock);
    return s;
}

static bool loop_is_live(node_program_state *p, moe_text *out)
{
    uint64_t now = moe_now_ns(moe_clock_real()), turned = node_pages_look(p).turned_ns;
    uint64_t idle = now > turned ? now - turned : 0;

    if (idle > STUCK_NS) {
        moe_text_printf(out, "the loop has not turned for %.1f s\n", (double)idle * 1e-9);
        return false;
    }
    moe_text_printf(out, "ok\n");
    return true;
}

static bool is_met(node_program_state *p, moe_error *why)
{
    standing s = node_standing(p);
    bool met = standing_is_met(&s, why);

    cluster_state_release(s.state);
    return met;
}

/* Of use: registered, met by a coordinator, and everything the placement gives it is loaded. */
static bool member_is_ready(node_program_state *p, moe_text *out)
{
    assignment_progress a;
    moe_error why = {""};

    assignment_get_progress(p->assignment, &a);
    if (atomic_load(&p->draining)) {
        moe_text_printf(out, "draining\n");
        return false;
    }
    if (atomic_load(&p->registered) && !is_met(p, &why)) {
        moe_text_printf(out, "%s\n", why.text);
        return false;
    }
    if (!atomic_load(&p->registered) || !a.complete) {
        moe_text_printf(out, "%u of %u experts to load, %s\n", a.missing, a.wanted,
                        a.epoch == 0 ? "nothing was placed yet" : "placement known");
        return false;
    }
    moe_text_printf(out, "ok\n");
    return true;
}

static void put_cluster(node_program_state *p, moe_text *out)
{
    const cluster_state *s = cluster_state_acquire(p->cluster);
    const cluster_node *own = cluster_state_node(s, p->id);
    cluster_stats c;
    assignment_progress a;

    cluster_get_stats(p->cluster, &c);
    assignment_get_progress(p->assignment, &a);
    const metrics_cluster m = {.connected = s->connected,
                               .registered = s->registered,
                               .failures = c.failures,
                               .lease_losses = c.lease_losses,
                               .lists = c.lists,
                               .watch_events = c.watch_events,
                               .ignored = c.ignored,
                               .epoch_published = s->epoch,
                               .epoch_applied = own != NULL ? own->ready_epoch : 0};
    cluster_state_release(s);
    metrics_put_cluster(out, &m);
    metrics_gauge(out, "conclave_node_experts_wanted", "Experts the placement gives this node.", a.wanted);
    metrics_gauge(out, "conclave_node_experts_missing", "Those that are not loaded.", a.missing);
    metrics_gauge(out, "conclave_node_experts_loading", "Of them asked of the loader.", a.loading);
}

static void put_node(const node_shown *s, moe_text *out)
{
    metrics_counter(out, "conclave_node_frames_total", "Dispatches answered.", s->stats.frames);
    metrics_counter(out, "conclave_node_rows_total", "Rows answered.", s->stats.rows);
    metrics_counter(out, "conclave_node_picks_total", "Pairs of row and expert computed.", s->stats.picks);
    metrics_counter(out, "conclave_node_batches_total", "Grouped runs; several dispatches may share one.",
                    s->stats.batches);
    metrics_counter(out, "conclave_node_refusals_total", "Dispatches refused.", s->stats.refusals);
    metrics_counter(out, "conclave_node_bad_frames_total", "Frames that cost a connection.", s->stats.bad_frames);
    metrics_counter(out, "conclave_node_hellos_total", "Coordinators whose HELLO was accepted.", s->stats.hellos);
    metrics_gauge(out, "conclave_node_readers", "Members that read packs from this node now.", s->stats.readers);
    metrics_counter(out, "conclave_node_pack_bytes_total", "Bytes of packs read by them.", s->stats.piece_bytes);
    metrics_gauge(out, "conclave_node_coordinators", "Coordinators connected now.", s->stats.coordinators);
    metrics_counter(out, "conclave_node_loads_total", "Experts loaded and verified.", s->stats.loads);
    metrics_counter(out, "conclave_node_load_failures_total", "Loads that failed.", s->stats.load_failures);
    metrics_counter(out, "conclave_node_unsent_total", "Small frames for peers that did not take those before.",
                    s->stats.unsent);
    metrics_counter(out, "conclave_node_silent_total",
                    "Connections that did not greet in time, or said nothing for long.", s->stats.silent);
    metrics_gauge(out, "conclave_node_experts", "Experts loaded.", s->stats.experts);
    metrics_gauge(out, "conclave_node_expert_bytes", "Memory they take.", s->stats.memory_bytes);
    const metrics_transport seen = {.peers = s->transport.peers,
                                    .connected = s->transport.connected,
                                    .accepted = s->transport.accepted,
                                    .refused = s->transport.refused,
                                    .silent = s->transport.silent,
                                    .denied = s->transport.denied,
                                    .violations = s->transport.violations,
                                    .timeouts = s->transport.timeouts,
                                    .shm_peers = s->transport.shm_peers};
    metrics_put_transport(out, &seen, s->stats.auth_failures);
}

static void put_member(node_program_state *p, moe_text *out)
{
    node_shown s = node_pages_look(p);
    uint64_t now = moe_now_ns(moe_clock_real());
    cluster_stats c;

    metrics_head(out, "conclave_build_info", "gauge", "1; what runs here.");
    moe_text_printf(out, "conclave_build_info{version=\"%s\",node=\"%s\",numeric_class=\"%s\",transport=\"",
                    MOE_VERSION, p->id, compute_class_name(p->device->numeric_class));
    metrics_label(out, transport_net_lane(p->transport));
    moe_text_printf(out, "\"} 1\n");
    metrics_put_device(out, p->device);
    put_node(&s, out);
    put_cluster(p, out);
    metrics_gauge(out, "conclave_node_memory_bytes", "What experts may take.", p->memory_bytes);
    metrics_head(out, "conclave_loop_last_progress_seconds", "gauge", "Seconds since a loop last turned.");
    cluster_get_stats(p->cluster, &c);
    moe_text_printf(out, "conclave_loop_last_progress_seconds{loop=\"node\"} %.3f\n",
                    now > s.turned_ns ? (double)(now - s.turned_ns) * 1e-9 : 0.0);
    moe_text_printf(out, "conclave_loop_last_progress_seconds{loop=\"cluster\"} %.3f\n",
                    now > c.last_step_ns ? (double)(now - c.last_step_ns) * 1e-9 : 0.0);
}

/* ------------------------------------------------------------------------------------------------ before and after
 * A member may be taken down and put up again with another numeric class while the listener goes on. */
static bool live(void *ctx, moe_text *out)
{
    node_program_state *p = ctx;
    bool yes = true;

    pthread_mutex_lock(&p->parts);
    if (p->attached) {
        yes = loop_is_live(p, out);
    } else {
        moe_text_printf(out, "ok\n");
    }
    pthread_mutex_unlock(&p->parts);
    return yes;
}

static bool ready(void *ctx, moe_text *out)
{
    node_program_state *p = ctx;
    bool yes = false;

    pthread_mutex_lock(&p->parts);
    if (p->attached) {
        yes = member_is_ready(p, out);
    } else {
        moe_text_printf(out, "the node is starting: hashing the checkpoint, %u %%\n", atomic_load(&p->hashed));
    }
    pthread_mutex_unlock(&p->parts);
    return yes;
}

static void metrics(void *ctx, moe_text *out)
{
    node_program_state *p = ctx;

    pthread_mutex_lock(&p->parts);
    if (p->attached) {
        put_member(p, out);
    }
    pthread_mutex_unlock(&p->parts);
    metrics_process(out);
}

void node_pages_attach(node_program_state *p)
{
    node_pages_publish(p, moe_now_ns(moe_clock_real()));
    pthread_mutex_lock(&p->parts);
    p->attached = true;
    pthread_mutex_unlock(&p->parts);
}

void node_pages_detach(node_program_state *p)
{
    pthread_mutex_lock(&p->parts);
    p->attached = false;
    pthread_mutex_unlock(&p->parts);
}

moe_status node_pages_open(node_program_state *p, moe_error *err)
{
    const http_pages pages = {p, live, ready, metrics};
    moe_status status;

    if (p->config.http == NULL) {
        return MOE_OK;
    }
    status = http_server_open(p->config.http, &pages, &p->http, err);
    if (status == MOE_OK) {
        MOE_INFO("http on port %u", http_server_port(p->http));
    }
    return status;
}
