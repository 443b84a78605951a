#include "api/expert_counts_priv.h"
#include "api/metrics_priv.h"

#include <inttypes.h>
#include <stdlib.h>

static double seconds_since(uint64_t then_ns)
{
    uint64_t now = moe_now_ns(moe_clock_real());

    return now > then_ns ? (double)(now - then_ns) * 1e-9 : 0.0;
}

/* ------------------------------------------------------------------------------------------------ engine */
static void put_requests(moe_text *out, const engine_stats *s)
{
    const char *name = "conclave_requests_total";

    metrics_head(out, name, "counter", "Engine requests by how they ended; admitted counts their beginnings.");
    moe_text_printf(out, "%s{event=\"admitted\"} %" PRIu64 "\n", name, s->requests_admitted);
    moe_text_printf(out, "%s{event=\"done\"} %" PRIu64 "\n", name, s->requests_done);
    moe_text_printf(out, "%s{event=\"failed\"} %" PRIu64 "\n", name, s->requests_failed);
    moe_text_printf(out, "%s{event=\"cancelled\"} %" PRIu64 "\n", name, s->requests_cancelled);
    moe_text_printf(out, "%s{event=\"refused\"} %" PRIu64 "\n", name, s->requests_refused);
}

static void put_engine(moe_text *out, engine *e, const engine_stats *s)
{
    metrics_counter(out, "conclave_prompt_tokens_total", "Prompt tokens of admitted requests.", s->prompt_tokens);
    metrics_counter(out, "conclave_generated_tokens_total", "Tokens generated.", s->generated_tokens);
    metrics_counter(out, "conclave_steps_total", "Steps of the engine.", s->steps);
    metrics_counter(out, "conclave_steps_abandoned_total",
                    "Steps given up because nobody computed an expert; their rows were computed again.",
                    s->abandoned_steps);
    metrics_counter(out, "conclave_preemptions_total", "Requests put back for want of KV pages.", s->preemptions);
    metrics_counter(out, "conclave_prefix_hit_tokens_total", "Prompt tokens whose KV pages were found.",
                    s->prefix_hit_tokens);
    metrics_counter(out, "conclave_attention_keys_seen_total",
                    "Keys read by stick-breaking attention, over rows and heads.", s->attention_keys_seen);
    metrics_counter(out, "conclave_attention_keys_skipped_total", "Keys that its early exit left out.",
                    s->attention_keys_skipped);
    metrics_gauge(out, "conclave_requests_queued", "Requests waiting.", s->queued);
    metrics_gauge(out, "conclave_requests_running", "Requests running.", s->running);
    metrics_gauge(out, "conclave_kv_pages", "KV pages there are.", s->kv_pages);
    metrics_gauge(out, "conclave_kv_pages_used", "KV pages of running requests.", s->kv_pages_used);
    metrics_gauge(out, "conclave_kv_pages_cached", "KV pages kept for their prefix.", s->kv_pages_cached);
    metrics_gauge(out, "conclave_ready", METRICS_READY_HELP, engine_ready(e));
}

/* Dispatches to nodes and their results, as they were handed to and by the transport, and what went wrong with them. */
static void put_dispatch(moe_text *out, const exchange_stats *s)
{
    metrics_head(out, "conclave_dispatch_frames_total", "counter", "Frames of activations to and from all nodes.");
    moe_text_printf(out, "conclave_dispatch_frames_total{direction=\"sent\"} %" PRIu64 "\n", s->frames_sent);
    moe_text_printf(out, "conclave_dispatch_frames_total{direction=\"received\"} %" PRIu64 "\n", s->frames_received);
    metrics_head(out, "conclave_dispatch_bytes_total", "counter", "Bytes of these frames.");
    moe_text_printf(out, "conclave_dispatch_bytes_total{direction=\"sent\"} %" PRIu64 "\n", s->bytes_sent);
    moe_text_printf(out, "conclave_dispatch_bytes_total{direction=\"received\"} %" PRIu64 "\n", s->bytes_received);
    metrics_counter(out, "conclave_dispatch_resends_total", "Dispatches lost with their node, and sent again.",
                    s->retries);
    metrics_counter(out, "conclave_dispatch_hedges_total", "Dispatches whose node was late, and sent to a replica too.",
                    s->hedges);
    metrics_counter(out, "conclave_dispatch_refusals_total", "Dispatches that a node refused.", s->refusals);
    metrics_counter(out, "conclave_dispatch_late_results_total", "Results that nobody waited for any more.",
                    s->late_results);
    metrics_counter(out, "conclave_dispatch_bad_frames_total", "Malformed frames from nodes.", s->bad_frames);
}

static void put_histogram(moe_text *out, const char *name, const char *help, const engine_histogram *h)
{
    metrics_head(out, name, "histogram", help);
    for (size_t i = 0; i < ENGINE_N_BUCKETS; i++) {
        moe_text_printf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, engine_bucket_seconds[i],
                        MOE_MIN(h->buckets[i], h->count));
    }
    moe_text_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.9g\n%s_count %" PRIu64 "\n", name, h->count,
                    name, h->sum, name, h->count);
}

/* Prometheus' own histogram: the buckets are cumulative, and the sum is what was observed, here picks. */
static void put_ffn_histogram(moe_text *out, const expert_counts *c, uint32_t layer)
{
    const char *name = "conclave_ffn_experts_per_token";
    layer_counts counts = expert_counts_of(c, layer);
    uint64_t count = 0, sum = 0;

    for (uint32_t i = 0; i <= c->info->config->gate.k; i++) {
        count += counts.ffn_picks[i];
        sum += i * counts.ffn_picks[i];
        moe_text_printf(out, "%s_bucket{layer=\"%" PRIu32 "\",le=\"%" PRIu32 "\"} %" PRIu64 "\n", name, layer, i,
                        count);
    }
    moe_text_printf(out, "%s_bucket{layer=\"%" PRIu32 "\",le=\"+Inf\"} %" PRIu64 "\n", name, layer, count);
    moe_text_printf(out, "%s_sum{layer=\"%" PRIu32 "\"} %" PRIu64 "\n", name, layer, sum);
    moe_text_printf(out, "%s_count{layer=\"%" PRIu32 "\"} %" PRIu64 "\n", name, layer, count);
}

static void put_picks(moe_text *out, const expert_counts *c)
{
    uint32_t n_layers = c->info->config->n_layers;

    metrics_head(out, "conclave_expert_picks_total", "counter", "Picks of experts, by layer and kind.");
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        layer_counts counts = expert_counts_of(c, layer);

        for (size_t kind = 0; kind < MODEL_N_EXPERT_KINDS; kind++) {
            moe_text_printf(out, "conclave_expert_picks_total{layer=\"%" PRIu32 "\",kind=\"%s\"} %" PRIu64 "\n", layer,
                            model_expert_kind_names[kind], counts.picks[kind]);
        }
    }
    metrics_head(out, "conclave_ffn_experts_per_token", "histogram", "FFN experts among a row's picks, by layer.");
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        put_ffn_histogram(out, c, layer);
    }
    metrics_head(out, "conclave_bytes_not_sent_total", "counter",
                 "Activations that never travelled because an expert is constant, copy or zero, by layer.");
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        moe_text_printf(out, "conclave_bytes_not_sent_total{layer=\"%" PRIu32 "\"} %" PRIu64 "\n", layer,
                        expert_counts_of(c, layer).bytes_not_sent);
    }
}

static void put_experts(moe_text *out, engine *e)
{
    expert_counts counts;

    if (expert_counts_init(&counts, e) != MOE_OK) {
        out->failed = true;
        return;
    }
    metrics_counter(out, "conclave_layer_rows_total", "Rows that went through the layers.", counts.tokens);
    metrics_head(out, "conclave_expert_rows_total", "counter", "Rows routed to an expert.");
    for (uint32_t slot = 0; slot < router_space_n_slots(counts.space); slot++) {
        const router_expert *expert = router_space_expert(counts.space, slot);

        moe_text_printf(out, "conclave_expert_rows_total{layer=\"%" PRIu32 "\",expert=\"%" PRId32 "\"} %" PRIu64 "\n",
                        expert->layer, expert->id, counts.rows[slot]);
    }
    put_picks(out, &counts);
    expert_counts_fini(&counts);
}

/* ------------------------------------------------------------------------------------------------ gRPC */
static void put_calls(moe_text *out, const api_server *s)
{
    metrics_head(out, "conclave_grpc_calls_total", "counter", "gRPC calls that ended, by method and status.");
    for (size_t m = 0; m < api_server_n_methods(s); m++) {
        for (size_t code = 0; code < RPC_N_STATUS; code++) {
            uint64_t n = api_server_count(s, m, code);

            if (n > 0) {
                moe_text_printf(out, "conclave_grpc_calls_total{method=\"%s\",code=\"%s\"} %" PRIu64 "\n",
                                api_server_method_path(s, m), rpc_code_name(code), n);
            }
        }
    }
    metrics_gauge(out, "conclave_grpc_calls_open", "gRPC calls open now.", api_server_open_calls(s));
}

/* ------------------------------------------------------------------------------------------------ cluster */
static void node_value(moe_text *out, const char *name, const api_view_node *n, double value)
{
    moe_text_printf(out, "%s{node=\"", name);
    metrics_label(out, n->id);
    moe_text_printf(out, "\",transport=\"");
    metrics_label(out, n->transport);
    moe_text_printf(out, "\"} %.15g\n", value);
}

static void node_line(moe_text *out, const char *name, const api_view_node *n, uint64_t value)
{
    node_value(out, name, n, (double)value);
}

static void put_cluster(moe_text *out, const api_view *view, uint64_t auth_failures)
{
    static const metrics_transport no_transport;
    const api_view_snapshot *s = view->acquire(view->ctx, false);

    metrics_head(out, "conclave_node_up", "gauge", "1 while the node is connected; transport is the lane in use.");
    for (size_t i = 0; i < s->n_nodes; i++) {
        node_line(out, "conclave_node_up", &s->nodes[i], s->nodes[i].state == API_VIEW_NODE_UP);
    }
    metrics_head(out, "conclave_node_queued_rows", "gauge",
                 "Rows of all coordinators at the node when it last answered.");
    for (size_t i = 0; i < s->n_nodes; i++) {
        node_line(out, "conclave_node_queued_rows", &s->nodes[i], s->nodes[i].queued_rows);
    }
    metrics_head(out, "conclave_dispatch_rows_total", "counter", "Rows the node has answered since it was connected.");
    for (size_t i = 0; i < s->n_nodes; i++) {
        node_line(out, "conclave_dispatch_rows_total", &s->nodes[i], s->nodes[i].rows);
    }
    metrics_head(out, "conclave_dispatch_results_total", "counter",
                 "Results that came from the node since it was connected.");
    for (size_t i = 0; i < s->n_nodes; i++) {
        node_line(out, "conclave_dispatch_results_total", &s->nodes[i], s->nodes[i].frames);
    }
    metrics_head(out, "conclave_dispatch_seconds", "summary", "From dispatch to result, by node.");
    for (size_t i = 0; i < s->n_nodes; i++) {
        node_value(out, "conclave_dispatch_seconds_sum", &s->nodes[i], s->nodes[i].busy_seconds);
        node_line(out, "conclave_dispatch_seconds_count", &s->nodes[i], s->nodes[i].frames);
    }
    metrics_head(out, "conclave_node_hedges_total", "counter",
                 "Dispatches to the node that were late, so that others were asked as well.");
    for (size_t i = 0; i < s->n_nodes; i++) {
        node_line(out, "conclave_node_hedges_total", &s->nodes[i], s->nodes[i].hedges);
    }
    metrics_head(out, "conclave_node_slowness", "gauge",
                 "How many times as long as others the node takes for the same work; it is given that much less.");
    for (size_t i = 0; i < s->n_nodes; i++) {
        node_value(out, "conclave_node_slowness", &s->nodes[i], MOE_MAX(s->nodes[i].slowness, 1.0));
    }
    metrics_gauge(out, "conclave_placement_epoch", "Placement epoch in force.", s->epoch);
    if (s->cluster_metrics != NULL) {
        metrics_put_cluster(out, s->cluster_metrics);
    }
    metrics_put_transport(out, s->transport_metrics != NULL ? s->transport_metrics : &no_transport, auth_failures);
    view->release(view->ctx, s);
}

/* Nothing while no pack is on trial. */
static void put_shadow(moe_text *out, const api_catalogue *from)
{
    catalogue *c = from->current(from->ctx);
    api_compared compared;

    if (catalogue_get_shadow(c) != NULL) {
        from->compared(from->ctx, &compared);
        metrics_counter(
            out, "conclave_shadow_requests_total",
            "Requests that were scored again with the pack on trial, since that or the default set changed.",
            compared.requests);
        metrics_counter(out, "conclave_shadow_tokens_total", "Delivered tokens of these requests.", compared.tokens);
        metrics_counter(out, "conclave_shadow_dropped_total",
                        "Requests of the share for which there was no room or no time.", compared.dropped);
        metrics_head(out, "conclave_shadow_logprob_difference", "gauge",
                     "How much higher the mean log-probability of these tokens is with the pack.");
        moe_text_printf(out, "conclave_shadow_logprob_difference %.9g\n", compared.mean);
        metrics_head(out, "conclave_shadow_logprob_error", "gauge",
                     "Its standard error; NaN for fewer than two requests.");
        if (compared.has_error) {
            moe_text_printf(out, "conclave_shadow_logprob_error %.9g\n", compared.error);
        } else {
            moe_text_printf(out, "conclave_shadow_logprob_error NaN\n");
        }
    }
    catalogue_unref(c);
}

/* ------------------------------------------------------------------------------------------------ page */
static void put_build(moe_text *out, const metrics_source *source)
{
    const engine_info *info = engine_get_info(source->engine);

    metrics_head(out, "conclave_build_info", "gauge", "1; what runs here.");
    moe_text_printf(out, "conclave_build_info{version=\"%s\",model=\"", MOE_VERSION);
    metrics_label(out, source->model_name);
    moe_text_printf(out, "\",fingerprint=\"");
    metrics_label(out, info->fingerprint);
    moe_text_printf(out, "\",numeric_class=\"%s\"} 1\n", compute_class_name(info->numeric_class));
    metrics_put_device(out, info->device);
}

static void put_loops(moe_text *out, const engine_stats *stats, const metrics_source *source)
{
    uint64_t now = engine_now_ns(source->engine);
    const char *name = "conclave_loop_last_progress_seconds";
    const api_view_snapshot *s = source->view->acquire(source->view->ctx, false);

    metrics_head(out, name, "gauge", "Seconds since a loop last turned.");
    moe_text_printf(out, "%s{loop=\"engine\"} %.3f\n", name,
                    now > stats->last_step_ns ? (double)(now - stats->last_step_ns) * 1e-9 : 0.0);
    if (source->server != NULL) {
        moe_text_printf(out, "%s{loop=\"api\"} %.3f\n", name, seconds_since(api_server_last_turn_ns(source->server)));
    }
    if (s->loop_ns != 0) {
        moe_text_printf(out, "%s{loop=\"cluster\"} %.3f\n", name, seconds_since(s->loop_ns));
    }
    source->view->release(source->view->ctx, s);
}

void metrics_render(const metrics_source *source, moe_text *out)
{
    engine_stats stats;

    engine_get_stats(source->engine, &stats);
    put_build(out, source);
    put_requests(out, &stats);
    put_engine(out, source->engine, &stats);
    put_dispatch(out, &stats.dispatch);
    put_histogram(out, "conclave_queue_seconds", "From arrival to the start.", &stats.queue);
    put_histogram(out, "conclave_time_to_first_token_seconds", "From arrival to the first token.", &stats.first_token);
    put_histogram(out, "conclave_inter_token_seconds", "Between the tokens of one choice.", &stats.inter_token);
    put_histogram(out, "conclave_request_seconds", "From arrival to the end, however it came.", &stats.request);
    put_loops(out, &stats, source);
    if (source->server != NULL) {
        put_calls(out, source->server);
    }
    put_cluster(out, source->view, stats.dispatch.auth_failures);
    if (source->catalogue != NULL) {
        put_shadow(out, source->catalogue);
    }
    if (!source->no_experts) {
        put_experts(out, source->engine);
    }
    metrics_process(out);
}
