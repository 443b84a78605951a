#include <inttypes.h>
#include <string.h>

#include "api/http/http.h"

#define MAX_LABEL_BYTES 128

void metrics_label(moe_text *out, const char *value)
{
    size_t n = value == NULL ? 0 : strnlen(value, MAX_LABEL_BYTES);

    n = value == NULL ? 0 : moe_utf8_valid_prefix(value, n);
    for (size_t i = 0; i < n; i++) {
        if (value[i] == '\\' || value[i] == '"') {
            moe_text_append(out, "\\", 1);
        }
        if (value[i] == '\n') {
            moe_text_append(out, "\\n", 2);
        } else {
            moe_text_append(out, &value[i], 1);
        }
    }
}

void metrics_head(moe_text *out, const char *name, const char *type, const char *help)
{
    moe_text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_counter(moe_text *out, const char *name, const char *help, uint64_t value)
{
    metrics_head(out, name, "counter", help);
    moe_text_printf(out, "%s %" PRIu64 "\n", name, value);
}

void metrics_gauge(moe_text *out, const char *name, const char *help, uint64_t value)
{
    metrics_head(out, name, "gauge", help);
    moe_text_printf(out, "%s %" PRIu64 "\n", name, value);
}

void metrics_put_transport(moe_text *out, const metrics_transport *t, uint64_t auth_failures)
{
    metrics_counter(out, "conclave_authentication_failures_total",
                    "Members that did not prove the cluster's secret: while meeting, or in HELLO.",
                    t->denied + auth_failures);
    metrics_gauge(out, "conclave_transport_peers", "Connections.", t->peers);
    metrics_counter(out, "conclave_transport_connected_total", "Connections made.", t->connected);
    metrics_counter(out, "conclave_transport_accepted_total", "Connections taken.", t->accepted);
    metrics_counter(out, "conclave_transport_refused_total", "Connections above the limit.", t->refused);
    metrics_gauge(out, "conclave_transport_shm_peers", "Of the connections now: those by shared memory.", t->shm_peers);
    metrics_counter(out, "conclave_transport_silent_total", "Connections that did not go on.", t->silent);
    metrics_counter(out, "conclave_transport_violations_total", "Connections lost for what was never sent here.",
                    t->violations);
    metrics_counter(out, "conclave_transport_timeouts_total", "Connections lost because frames did not leave.",
                    t->timeouts);
}

static void put_seconds(moe_text *out, const char *name, const char *help, uint64_t ns)
{
    metrics_head(out, name, "counter", help);
    moe_text_printf(out, "%s %.6f\n", name, (double)ns * 1e-9);
}

void metrics_put_device(moe_text *out, compute_device *d)
{
    compute_report r;

    metrics_head(out, "conclave_device_info", "gauge", "1; what computes.");
    moe_text_printf(out, "conclave_device_info{device=\"");
    metrics_label(out, d->name);
    moe_text_printf(out, "\"} 1\n");
    if (d->ops->report == NULL) {
        return;
    }
    d->ops->report(d, &r);
    metrics_gauge(out, "conclave_device_memory_bytes", "Memory of the device.", r.memory_bytes);
    metrics_gauge(out, "conclave_device_memory_free_bytes", "Of it what no process has taken.", r.free_bytes);
    metrics_gauge(out, "conclave_device_memory_used_bytes", "Of it what this process has taken.", r.used_bytes);
    put_seconds(out, "conclave_device_kernel_seconds_total", "Time in which the device computed.", r.kernel_ns);
    put_seconds(out, "conclave_device_copy_seconds_total", "Time in which it copied from and to the host.", r.copy_ns);
    metrics_counter(out, "conclave_device_copied_bytes_total", "Bytes of these copies.", r.copied_bytes);
}

void metrics_put_cluster(moe_text *out, const metrics_cluster *c)
{
    metrics_gauge(out, "conclave_etcd_connected", "1 while the cluster's store answers.", c->connected);
    metrics_counter(out, "conclave_etcd_failures_total", "Requests to the store that failed.", c->failures);
    metrics_counter(out, "conclave_etcd_lease_losses_total", "Own leases that were found dead.", c->lease_losses);
    metrics_counter(out, "conclave_etcd_lists_total",
                    "Reads of everything: at the start, every 30 s, and after a watch was lost.", c->lists);
    metrics_counter(out, "conclave_etcd_watch_events_total", "Changes heard of.", c->watch_events);
    metrics_counter(out, "conclave_etcd_ignored_total", "Keys that are not used: malformed, or written by no member.",
                    c->ignored);
    metrics_gauge(out, "conclave_cluster_registered", "1 while this member is registered.", c->registered);
    metrics_gauge(out, "conclave_cluster_epoch_published", "Epoch of the placement that the controller wants.",
                  c->epoch_published);
    metrics_gauge(out, "conclave_cluster_epoch_applied",
                  "Epoch that this member follows: its dispatches, or all that it is to hold is loaded.",
                  c->epoch_applied);
    if (c->is_coordinator) {
        metrics_gauge(out, "conclave_cluster_controller", "1 while this coordinator controls the cluster.",
                      c->controller);
        metrics_counter(out, "conclave_cluster_elections_total", "Elections won.", c->elections);
        metrics_counter(out, "conclave_cluster_placements_total", "Placements published.", c->placements);
        metrics_gauge(out, "conclave_cluster_nodes_unreachable",
                      "Nodes that are registered, but not connected to this coordinator.", c->unreachable);
    }
}
