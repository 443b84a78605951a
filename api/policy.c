/* SetPolicy: hands the wish to the program, and answers when the cluster's state says that it is so. */
#include "conclave/v1/admin.pb-c.h"
#include "api/methods_priv.h"
#include "api/view.h"

#include <stdlib.h>

#define POLICY_WAIT_NS UINT64_C(5000000000)

typedef struct policy_wish {
    uint32_t replication, min_nodes; /* 0: stays */
    uint64_t until_ns;
} policy_wish;

/* Answers if the policy in force is as wished. */
static bool answer(rpc_call *call, const policy_wish *w)
{
    const api_view *view = rpc_view(call);
    const api_view_snapshot *s = view->acquire(view->ctx, false);
    Conclave__V1__Policy p = CONCLAVE__V1__POLICY__INIT;
    Conclave__V1__SetPolicyResponse m = CONCLAVE__V1__SET_POLICY_RESPONSE__INIT;

    p.replication = s->replication;
    p.min_nodes = s->min_nodes;
    m.policy = &p;
    view->release(view->ctx, s);
    if (p.replication == 0 || (w->replication != 0 && w->replication != p.replication) ||
        (w->min_nodes != 0 && w->min_nodes != p.min_nodes)) {
        return false;
    }
    rpc_finish_ok(call, &m.base);
    return true;
}

static moe_status wish(rpc_call *call, const Conclave__V1__SetPolicyRequest *r, policy_wish *w, moe_error *err)
{
    const api_view *view = rpc_view(call);

    if (view->set_policy == NULL) {
        return moe_fail(err, MOE_ERR_UNSUPPORTED, "policy: this server is no member of a cluster");
    }
    if ((r->has_replication_case != 0 && r->replication == 0) || (r->has_min_nodes_case != 0 && r->min_nodes == 0)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: 0, at least 1",
                        r->has_replication_case != 0 && r->replication == 0 ? "replication" : "min_nodes");
    }
    w->replication = r->has_replication_case != 0 ? r->replication : 0;
    w->min_nodes = r->has_min_nodes_case != 0 ? r->min_nodes : 0;
    w->until_ns = moe_now_ns(moe_clock_real()) + POLICY_WAIT_NS;
    return w->replication + w->min_nodes == 0 ? MOE_OK : view->set_policy(view->ctx, w->replication, w->min_nodes, err);
}

void policy_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &conclave__v1__set_policy_request__descriptor, bytes, n);
    policy_wish *w = r == NULL ? NULL : calloc(1, sizeof *w);
    moe_error err = {"out of memory"};

    if (r == NULL) {
        return;
    }
    moe_status status = w == NULL ? MOE_ERR_NO_MEMORY : wish(call, (const Conclave__V1__SetPolicyRequest *)r, w, &err);
    rpc_free(r);
    if (status != MOE_OK) {
        free(w);
        rpc_fail(call, status, err.text);
        return;
    }
    call->state = w;
    (void)answer(call, w);
}

void policy_poll(rpc_call *call, uint64_t now_ns)
{
    const policy_wish *w = call->state;

    if (w == NULL || call->finished || answer(call, w)) {
        return;
    }
    if (now_ns >= w->until_ns) {
        rpc_fail(call, MOE_ERR_UNAVAILABLE, "policy: the cluster's store did not take it within 5 s");
    }
}

void policy_fini(rpc_call *call)
{
    free(call->state);
}
