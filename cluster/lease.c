/* Lease: taken, kept alive, lost, given back. A keepalive has a path of its own because a slow list must not cost the
 * lease. */
#include "cluster/cluster_priv.h"

/* Two keepalives may be lost. */
static uint64_t beat_ns(const cluster_lease *l)
{
    return l->ttl_s * CLUSTER_SECOND / 3;
}

static void on_grant(void *ctx, const cluster_reply *reply)
{
    cluster_lease *l = ctx;
    cluster *c = l->cluster;

    c->op = CLUSTER_OP_NONE;
    if (reply->status != MOE_OK || reply->lease == 0) {
        cluster_failed(c, reply);
        return;
    }
    cluster_answered(c, reply);
    l->id = reply->lease;
    l->due_ns = cluster_now(c) + beat_ns(l);
}

void cluster_lease_grant(cluster_lease *l)
{
    l->cluster->op = CLUSTER_OP_GRANT;
    l->cluster->store->ops->grant(l->cluster->store, l->ttl_s, on_grant, l);
}

void cluster_lease_drop(cluster_lease *l)
{
    MOE_WARN("cluster: lease %llx of %s is gone", (unsigned long long)l->id, l->cluster->o.id);
    l->id = 0;
    cluster_count(l->cluster, &l->cluster->stats.lease_losses);
}

static void on_beat(void *ctx, const cluster_reply *reply)
{
    cluster_lease *l = ctx;
    cluster *c = l->cluster;

    l->is_beating = false;
    if (reply->status != MOE_OK && reply->status != MOE_ERR_NOT_FOUND) {
        l->due_ns = cluster_now(c) + cluster_jittered(c, CLUSTER_SECOND);
        cluster_failed(c, reply);
        return;
    }
    if (reply->status == MOE_OK) {
        cluster_answered(c, reply);
    }
    l->due_ns = cluster_now(c) + beat_ns(l);
    if (reply->ttl_s == 0 && l->beaten == l->id && l->id != 0) {
        cluster_lease_drop(l);
        cluster_resync(c);
    }
}

void cluster_lease_beat(cluster_lease *l, uint64_t now)
{
    if (l->id != 0 && !l->is_beating && now >= l->due_ns) {
        l->is_beating = true;
        l->beaten = l->id;
        l->cluster->store->ops->keepalive(l->cluster->store, l->id, on_beat, l);
    }
}

uint64_t cluster_lease_due(const cluster_lease *l, uint64_t now)
{
    return l->id != 0 && !l->is_beating ? MOE_MAX(l->due_ns, now) : UINT64_MAX;
}

static void on_revoke(void *ctx, const cluster_reply *reply)
{
    cluster_lease *l = ctx;

    l->cluster->op = CLUSTER_OP_NONE;
    l->id = 0;
    if (reply->status != MOE_OK) {
        MOE_INFO("cluster: a lease of %s was not revoked and will end by itself: %s", l->cluster->o.id, reply->reason);
    }
}

bool cluster_lease_revoke(cluster_lease *l)
{
    if (l->id == 0 || l->is_revoked) {
        return false;
    }
    l->is_revoked = true;
    l->cluster->op = CLUSTER_OP_REVOKE;
    l->cluster->store->ops->revoke(l->cluster->store, l->id, on_revoke, l);
    return true;
}
