/* The node's loop: turning, being met, serving, leaving. */

#include <string.h>

#include "expert_node/program/program.h"

#define EXIT_NEEDED 3 /* left though its experts had no other owner */

#define SLEEP_NS    UINT64_C(100000000)
#define ASK_NS      UINT64_C(20000000)   /* between two looks at whether a coordinator is there */
#define PATIENCE_NS UINT64_C(2000000000) /* then it is a warning that none is */
#define FAREWELL_NS UINT64_C(100000000)  /* without a frame after GOODBYE: nobody sends any more */

/* One turn; sleeps when there has been nothing to do for a while, and soon: a coordinator may share the cores. */
void node_turn(node_program_state *p, uint64_t *idle_since)
{
    unsigned n = expert_node_progress(p->node) + assignment_turn(p->assignment, p->cluster);
    uint64_t now = moe_now_ns(moe_clock_real());

    node_pages_publish(p, now);
    moe_threads_rest(p->threads);
    if (n > 0) {
        *idle_since = now;
    } else if (!moe_wait_moment(now - *idle_since, true)) {
        p->transport->ops->wait(p->transport, SLEEP_NS);
    }
}

standing node_standing(node_program_state *p)
{
    node_shown shown = node_pages_look(p);
    assignment_progress a;

    assignment_get_progress(p->assignment, &a);
    return (standing){.state = cluster_state_acquire(p->cluster),
                      .id = p->id,
                      .address = p->address,
                      .n_wanted = a.wanted,
                      .epoch_registered = a.epoch_registered,
                      .n_hellos = shown.stats.hellos,
                      .n_connected = shown.stats.coordinators,
                      .epoch_connected = shown.stats.epoch_applied,
                      .n_denied = shown.transport.denied + shown.stats.auth_failures};
}

/* A node that stood still may find that another process was started under its name and has its work. */
static void look_for_displacement(node_program_state *p)
{
    moe_error why;

    if (!p->displaced && cluster_is_displaced(p->cluster, &why)) {
        MOE_ERROR("node %s is displaced, and ends: %s", p->id, why.text);
        p->displaced = true;
    }
}

/* Turns until a coordinator has exchanged HELLO with us: before, nobody knows that we can be reached. */
void node_meet(node_program_state *p)
{
    uint64_t idle_since = 0, asked_ns = 0, now;
    moe_error why = {""};
    bool met = false;

    while (node_signals == 0 && !met && !p->displaced) {
        node_turn(p, &idle_since);
        now = moe_now_ns(moe_clock_real());
        if (now - asked_ns < ASK_NS) {
            continue;
        }
        asked_ns = now;
        look_for_displacement(p);
        standing s = node_standing(p);
        met = standing_is_met(&s, &why);
        cluster_state_release(s.state);
        if (!met && now - p->registered_ns >= PATIENCE_NS) {
            MOE_WARN("waiting for a coordinator: %s", why.text);
        }
    }
}

void node_serve(node_program_state *p)
{
    uint64_t idle_since = 0, asked_ns = 0;

    while (node_signals == 0 && !p->displaced) {
        node_turn(p, &idle_since);
        uint64_t now = moe_now_ns(moe_clock_real());
        if (now - asked_ns >= ASK_NS) {
            asked_ns = now;
            look_for_displacement(p);
        }
    }
}

/* Whether to go on waiting; if not, why not. */
static bool may_wait(uint64_t now, uint64_t end, moe_error *why)
{
    if (node_signals >= 2) {
        *why = (moe_error){"a second signal came"};
        return false;
    }
    if (now >= end) {
        *why = (moe_error){"not within --drain-timeout-ms"};
        return false;
    }
    return true;
}

/* Turns until nobody needs this node: its experts have other owners everywhere, or there is no coordinator. False: that
 * has not come about in time. A second signal cuts it short. That nobody can relieve us at this moment is said, and waited
 * out all the same: a coordinator or a node may be restarting, and streams wait for these experts. */
static bool await_relief(node_program_state *p, uint64_t end)
{
    uint64_t idle_since = 0;
    moe_error why = {""}, said = {""};

    for (;;) {
        look_for_displacement(p);
        standing s = node_standing(p);
        standing_relief relief = standing_judge(&s, &why);
        cluster_state_release(s.state);
        if (relief == STANDING_RELIEVED || p->displaced) { /* then another has our experts */
            return true;
        }
        if (relief == STANDING_HOPELESS && strcmp(said.text, why.text) != 0) {
            said = why;
            MOE_WARN("node %s cannot be relieved now: %s; it waits for --drain-timeout-ms", p->id, why.text);
        }
        if (!may_wait(moe_now_ns(moe_clock_real()), end, &why)) {
            MOE_WARN("node %s leaves though its experts have no other owner: %s%s%s", p->id, why.text,
                     relief == STANDING_HOPELESS ? "; " : "", relief == STANDING_HOPELESS ? said.text : "");
            return false;
        }
        node_turn(p, &idle_since);
    }
}

/* Says goodbye, and answers what is still under way. */
static void leave(node_program_state *p, uint64_t end)
{
    uint64_t idle_since = 0, quiet_since, now;
    expert_node_stats stats;

    expert_node_drain(p->node);
    expert_node_get_stats(p->node, &stats);
    quiet_since = now = moe_now_ns(moe_clock_real());
    for (uint64_t frames = stats.frames; node_signals < 2 && now < end && now - quiet_since < FAREWELL_NS;
         now = moe_now_ns(moe_clock_real())) {
        node_turn(p, &idle_since);
        expert_node_get_stats(p->node, &stats);
        quiet_since = stats.frames != frames ? now : quiet_since;
        frames = stats.frames;
    }
}

/* Asks to be relieved, waits for it, and leaves; displaced, at once. Returns the exit code. */
int node_drain(node_program_state *p)
{
    uint64_t end = moe_now_ns(moe_clock_real()) + (uint64_t)p->config.drain_timeout_ms * 1000000u;
    bool relieved = false;

    atomic_store(&p->draining, true);
    if (!p->displaced) {
        MOE_INFO("draining");
        cluster_set_draining(p->cluster, true);
        relieved = await_relief(p, end);
    }
    leave(p, MOE_MAX(end, moe_now_ns(moe_clock_real()) + (relieved ? 0 : FAREWELL_NS)));
    return p->displaced ? MEMBER_EXIT_DISPLACED : relieved ? 0 : EXIT_NEEDED;
}
