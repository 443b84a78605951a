#include "tests/sim/world.h"
#include "compute/math.h"
#include "proto/wire.h"

#include <stdlib.h>

#define PATTERN 0xA5

static world *the_world; /* compute ops carry no context of the test's */

/* ----------------------------------------------------------------------------------------------- device and experts */
/* Results may be written once each, while their job is open, and only with what the oracle says. */
static void watch_result(world *w, const unsigned char *to, const unsigned char *from)
{
    for (uint32_t c = 0; c < w->o.n_coordinators; c++) {
        for (uint32_t mb = 0; mb < w->o.micro_batches; mb++) {
            world_job *j = &w->jobs[c][mb];
            const unsigned char *results = (const unsigned char *)j->results;

            if (to < results || to >= results + w->o.max_rows * w->o.k * w->row_bytes) {
                continue;
            }
            size_t pick = (size_t)(to - results) / w->row_bytes;
            assert_true(j->open);
            assert_memory_equal(from, j->expected + pick * w->row_bytes, w->row_bytes);
            assert_int_equal(j->written[pick]++, 0);
        }
    }
}

static void scatter_in(compute_device *d, compute_mem *to, const void *from, const uint32_t *rows, size_t row_bytes,
                       size_t n)
{
    assert_int_equal(row_bytes, the_world->row_bytes);
    for (size_t i = 0; i < n; i++) {
        watch_result(the_world, (const unsigned char *)compute_at_const(to, rows[i] * row_bytes),
                     (const unsigned char *)from + i * row_bytes);
    }
    the_world->scatter_in(d, to, from, rows, row_bytes, n);
}

/* Until its ticket is reached the memory holds a pattern, and is the device's to write. */
static world_late *come_late(void *to, size_t bytes)
{
    world_late *l = malloc(sizeof *l + bytes), **end = &the_world->late;

    assert_non_null(l);
    *l = (world_late){.to = to, .bytes = bytes, .ticket = ++the_world->last_ticket};
    memset(to, PATTERN, bytes);
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = l;
    return l;
}

static compute_ticket late_gather_out(compute_device *d, void *to, const compute_mem *from, const uint32_t *rows,
                                      size_t row_bytes, size_t n)
{
    world_late *l = come_late(to, n * row_bytes);

    assert_int_equal(the_world->gather_out(d, l->rows, from, rows, row_bytes, n), 0);
    return l->ticket;
}

/* As ops.h has it, in memory that is the host's after all. */
static compute_ticket late_frame_out(compute_device *d, compute_mem *frame, const void *head, size_t head_bytes,
                                     size_t sum_at, const compute_mem *from, const uint32_t *rows, size_t row_bytes,
                                     size_t n)
{
    world_late *l = come_late(frame, head_bytes + n * row_bytes);
    moe_buf field;

    memcpy(l->rows, head, head_bytes);
    assert_int_equal(the_world->gather_out(d, l->rows + head_bytes, from, rows, row_bytes, n), 0);
    moe_buf_init(&field, l->rows + sum_at, 4);
    moe_put_u32(&field, wire_crc32c(wire_crc32c(0, l->rows, sum_at), l->rows + sum_at + 4, l->bytes - sum_at - 4));
    return l->ticket;
}

/* Asked without a peer: on some. */
static bool takes_device(transport *t, transport_peer peer)
{
    (void)t;
    return peer % 2 == 0;
}

static moe_status late_wait(compute_device *d, compute_ticket t)
{
    (void)d;
    while (the_world->late != NULL && the_world->late->ticket <= t) {
        world_late *l = the_world->late;

        the_world->late = l->next;
        memcpy(l->to, l->rows, l->bytes);
        free(l);
    }
    return MOE_OK;
}

static moe_status late_reached(compute_device *d, compute_ticket t)
{
    if (the_world->late == NULL || t < the_world->late->ticket) {
        return MOE_OK;
    }
    return the_world->faults_off || moe_random_below(&the_world->random, 3) == 0 ? late_wait(d, t) : MOE_ERR_BUSY;
}

static void device_open(world *w)
{
    moe_error err;

    assert_int_equal(moe_threads_open(1, compute_thread_init, &w->threads), MOE_OK);
    const compute_device_options options = {.numeric_class = w->o.numeric_class,
                                            .isa = COMPUTE_ISA_PORTABLE,
                                            .threads = w->threads,
                                            .max_rows = w->o.max_rows * w->o.k,
                                            .max_ffn_rows = w->o.max_rows * w->o.k * 4,
                                            .max_d_ff = w->o.d_ff,
                                            .max_context = 16};
    assert_ok(compute_open("cpu", &options, &w->device, &err), err);
    w->ops = *w->device->ops;
    w->scatter_in = w->ops.scatter_in;
    w->ops.scatter_in = scatter_in;
    w->gather_out = w->ops.gather_out;
    if (w->o.device_frames) {
        w->ops.frame_out = late_frame_out;
    }
    if (w->o.late_device) {
        w->ops.gather_out = late_gather_out;
    }
    if (w->o.late_device || w->o.device_frames) {
        w->ops.reached = late_reached;
        w->ops.wait = late_wait;
    }
    w->device->ops = &w->ops;
    w->row_bytes = w->o.d_model * compute_dtype_bytes(compute_class_dtype(w->o.numeric_class));
}

static moe_status source_open(void *ctx, uint32_t layer, int32_t expert_id, compute_expert **out, moe_error *err)
{
    const world *w = ctx;
    const unsigned char *data = w->weights[layer][expert_id];
    compute_dtype dtype = compute_class_dtype(w->o.numeric_class);
    size_t bytes = (size_t)w->o.d_model * w->o.d_ff * compute_dtype_bytes(dtype);
    const compute_weight gate = {data, dtype, w->o.d_ff, w->o.d_model, false};
    const compute_weight up = {data + bytes, dtype, w->o.d_ff, w->o.d_model, false};
    const compute_weight down = {data + 2 * bytes, dtype, w->o.d_model, w->o.d_ff, false};

    (void)err;
    return w->ops.expert_open(w->device, COMPUTE_FFN_SWIGLU, &gate, &up, &down, COMPUTE_MAPPED, out);
}

expert_source world_source(world *w)
{
    return (expert_source){w, source_open};
}

static float small(moe_random *r)
{
    return (float)(moe_random_unit(r) - 0.5);
}

static void experts_open(world *w)
{
    compute_dtype dtype = compute_class_dtype(w->o.numeric_class);
    size_t n = 3 * (size_t)w->o.d_model * w->o.d_ff;

    for (uint32_t l = 0; l < w->o.n_layers; l++) {
        for (uint32_t e = 0; e < w->o.n_experts; e++) {
            float *wide = malloc(n * sizeof *wide);
            uint16_t *narrow = malloc(n * sizeof *narrow);

            assert_true(wide != NULL && narrow != NULL);
            for (size_t i = 0; i < n; i++) {
                wide[i] = small(&w->random);
                narrow[i] = compute_bf16_from_f32(wide[i]);
            }
            w->weights[l][e] = dtype == COMPUTE_BF16 ? (void *)narrow : (void *)wide;
            free(dtype == COMPUTE_BF16 ? (void *)wide : (void *)narrow);
            assert_int_equal(source_open(w, l, (int32_t)e, &w->experts[l][e], NULL), MOE_OK);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ members */
static transport *endpoint_open(world *w, const char *address, uint64_t seed)
{
    const transport_loopback_options loopback = {
        .net = w->net, .address = address, .max_message = 1 << 16, .max_peers = 16, .max_queued = 32};
    transport *t;

    if (w->o.endpoint_open != NULL) {
        return w->o.endpoint_open(address);
    }
    assert_int_equal(transport_loopback_open(&loopback, &t), MOE_OK);
    if (w->o.device_frames) {
        w->device_net = *t->ops;
        w->device_net.takes_device = takes_device;
        t->ops = &w->device_net;
    }
    if (!w->o.faulty) {
        return t;
    }
    transport_faulty_options faulty = {
        .inner = t, .clock = &w->clock.clock, .seed = seed, .max_delay_ns = 2 * w->o.dispatch_timeout_ns};
    memcpy(faulty.per_mille, w->o.per_mille, sizeof faulty.per_mille);
    assert_int_equal(transport_faulty_open(&faulty, &t), MOE_OK);
    transport_faulty_enable(t, !w->faults_off);
    return t;
}

static void endpoint_close(world *w, transport *t)
{
    for (int i = 0; w->o.faulty && i < TRANSPORT_N_FAULTS; i++) {
        w->faults[i] += transport_faulty_counts(t)[i];
    }
    transport_close(t);
}

void world_node_start(world *w, uint32_t i)
{
    world_node *n = &w->nodes[i];
    const char *secret = w->o.node_secret != NULL ? w->o.node_secret : w->o.secret;
    uint32_t rows = w->o.node_rows == 0 ? (uint32_t)w->o.max_rows : w->o.node_rows;
    moe_error err;

    n->incarnation++;
    n->t = endpoint_open(w, n->id, moe_random_u64(&w->random));
    const expert_node_options options = {
        .id = n->id,
        .cluster = "sim",
        .incarnation = n->incarnation,
        .transport = n->t,
        .device = w->device,
        .source = world_source(w),
        .packs = w->o.packs,
        .space = test_space(w->o.n_layers, WORLD_MAX_EXPERTS),
        .d_model = w->o.d_model,
        .max_rows = rows,
        .max_picks = rows * w->o.k,
        .batch_rows = 2 * rows,
        .batch_picks = 2 * rows * w->o.k,
        .batch_frames = 4,
        .max_ffn_rows = w->o.max_ffn_rows == 0 ? w->o.max_rows * w->o.k * 4 : w->o.max_ffn_rows,
        .secret = secret,
        .n_secret = secret == NULL ? 0 : strlen(secret),
        .clock = &w->clock.clock,
    };
    assert_ok(expert_node_open(&options, &n->node, &err), err);
    for (uint32_t l = 0; l < w->o.n_layers; l++) {
        for (uint32_t e = 0; e < w->o.n_experts; e++) {
            if (n->holds[l][e]) {
                assert_ok(expert_node_load(n->node, l, (int32_t)e, &err), err);
            }
        }
    }
}

void world_node_kill(world *w, uint32_t i)
{
    endpoint_close(w, w->nodes[i].t);
    expert_node_close(w->nodes[i].node);
    w->nodes[i].t = NULL;
    w->nodes[i].node = NULL;
}

void world_place(world *w, uint64_t epoch)
{
    router_replica replicas[WORLD_MAX_LAYERS * WORLD_MAX_EXPERTS * WORLD_MAX_NODES];
    const char *ids[WORLD_MAX_NODES];
    size_t n = 0;
    moe_error err;

    router_placement_unref(w->placement);
    for (uint32_t i = 0; i < w->o.n_nodes; i++) {
        (void)snprintf(w->nodes[i].id, sizeof w->nodes[i].id, "node-%u", i);
        ids[i] = w->nodes[i].id;
        memset(w->nodes[i].holds, 0, sizeof w->nodes[i].holds);
    }
    for (uint32_t l = 0; l < w->o.n_layers; l++) {
        for (uint32_t e = 0; e < w->o.n_experts; e++) {
            uint32_t copies =
                w->o.replication != 0 ? w->o.replication : 1 + (uint32_t)moe_random_below(&w->random, w->o.n_nodes);
            uint32_t first = (uint32_t)moe_random_below(&w->random, w->o.n_nodes);

            for (uint32_t r = 0; r < MOE_MIN(copies, w->o.n_nodes); r++) {
                uint32_t node = (first + r) % w->o.n_nodes;

                w->nodes[node].holds[l][e] = true;
                replicas[n++] = (router_replica){l, (int32_t)e, node, false};
            }
        }
    }
    assert_ok(router_placement_open(epoch, test_space(w->o.n_layers, WORLD_MAX_EXPERTS), ids, w->o.n_nodes, replicas, n,
                                    &w->placement, &err),
              err);
}

static void coordinator_start(world *w, uint32_t i)
{
    world_coordinator *c = &w->coordinators[i];
    char id[24];
    moe_error err;

    (void)snprintf(id, sizeof id, "coord-%u", i);
    c->t = endpoint_open(w, id, moe_random_u64(&w->random));
    const exchange_options options = {.transport = c->t,
                                      .device = w->device,
                                      .clock = &w->clock.clock,
                                      .coordinator_id = 100 + i,
                                      .space = test_space(w->o.n_layers, WORLD_MAX_EXPERTS),
                                      .k = w->o.k,
                                      .d_model = w->o.d_model,
                                      .max_rows = w->o.max_rows,
                                      .micro_batches = w->o.micro_batches,
                                      .dispatch_timeout_ns = w->o.dispatch_timeout_ns,
                                      .id = id,
                                      .cluster = "sim",
                                      .incarnation = 1,
                                      .max_frame_rows = w->o.max_frame_rows,
                                      .secret = w->o.secret,
                                      .n_secret = w->o.secret == NULL ? 0 : strlen(w->o.secret),
                                      .heartbeat_ns = w->o.heartbeat_ns};
    assert_ok(exchange_open(&options, &c->x, &err), err);
    for (uint32_t n = 0; n < w->o.n_nodes; n++) {
        const char *address = w->o.endpoint_address != NULL ? w->o.endpoint_address(w->nodes[n].t) : w->nodes[n].id;

        assert_ok(exchange_add_node(c->x, w->nodes[n].id, address, 0, &err), err);
    }
    exchange_set_placement(c->x, w->placement);
}

static void job_open(world *w, world_job *j)
{
    size_t n = w->o.max_rows * w->o.k;

    j->x = w->ops.alloc(w->device, w->o.max_rows * w->row_bytes);
    j->results = w->ops.alloc(w->device, n * w->row_bytes);
    j->expected = malloc(n * w->row_bytes);
    j->written = calloc(n, 1);
    assert_true(j->x != NULL && j->results != NULL && j->expected != NULL && j->written != NULL);
}

static void job_close(world *w, world_job *j)
{
    w->ops.free(w->device, j->x);
    w->ops.free(w->device, j->results);
    free(j->expected);
    free(j->written);
}

void world_open(world *w, const world_options *o)
{
    *w = (world){.o = *o};
    the_world = w;
    moe_random_seed(&w->random, o->seed);
    moe_clock_virtual_init(&w->clock, 1000000);
    device_open(w);
    experts_open(w);
    assert_int_equal(transport_loopback_net_open(WORLD_MAX_MEMBERS, &w->net), MOE_OK);
    world_place(w, 1);
    for (uint32_t i = 0; i < o->n_nodes; i++) {
        world_node_start(w, i);
    }
    for (uint32_t i = 0; i < o->n_coordinators; i++) {
        coordinator_start(w, i);
        for (uint32_t mb = 0; mb < o->micro_batches; mb++) {
            job_open(w, &w->jobs[i][mb]);
        }
    }
}

static void coordinator_stop(world *w, uint32_t i)
{
    size_t frames_out, attempts_out;

    exchange_get_held(w->coordinators[i].x, &frames_out, &attempts_out);
    assert_int_equal(attempts_out, 0);
    endpoint_close(w, w->coordinators[i].t);
    exchange_get_held(w->coordinators[i].x, &frames_out, &attempts_out);
    assert_int_equal(frames_out, 0);
    exchange_close(w->coordinators[i].x);
}

void world_close(world *w)
{
    for (uint32_t i = 0; i < w->o.n_coordinators; i++) {
        coordinator_stop(w, i);
        for (uint32_t mb = 0; mb < w->o.micro_batches; mb++) {
            job_close(w, &w->jobs[i][mb]);
        }
    }
    for (uint32_t i = 0; i < w->o.n_nodes; i++) {
        if (w->nodes[i].node != NULL) {
            world_node_kill(w, i);
        }
    }
    transport_loopback_net_close(w->net);
    router_placement_unref(w->placement);
    for (uint32_t l = 0; l < w->o.n_layers; l++) {
        for (uint32_t e = 0; e < w->o.n_experts; e++) {
            w->ops.expert_close(w->device, w->experts[l][e]);
            free(w->weights[l][e]);
        }
    }
    assert_null(w->late);
    compute_close(w->device);
    moe_threads_close(w->threads);
}

/* ------------------------------------------------------------------------------------------------ jobs */
/* Each row's ids ascend and differ, as the gate's do; now and then a pick is empty. */
static void draw_ids(world *w, world_job *j)
{
    for (size_t row = 0; row < j->job.n_rows; row++) {
        int32_t *ids = j->ids + row * w->o.k;
        uint32_t taken = 0;

        for (uint32_t e = 0; e < w->o.n_experts; e++) {
            uint64_t left = w->o.n_experts - e;

            if (taken < w->o.k && moe_random_below(&w->random, left) < w->o.k - taken) {
                ids[taken++] = (int32_t)e;
            }
        }
        if (moe_random_below(&w->random, 20) == 0) {
            ids[moe_random_below(&w->random, w->o.k)] = -1;
        }
    }
}

static void draw_rows(world *w, world_job *j)
{
    float wide[256];
    uint16_t narrow[256];
    bool bf16 = compute_class_dtype(w->o.numeric_class) == COMPUTE_BF16;

    for (size_t row = 0; row < j->job.n_rows; row++) {
        for (uint32_t i = 0; i < w->o.d_model; i++) {
            wide[i] = small(&w->random) * 4.0f;
            narrow[i] = compute_bf16_from_f32(wide[i]);
        }
        const void *from = bf16 ? (const void *)narrow : (const void *)wide;
        w->ops.upload(w->device, compute_at(j->x, row * w->row_bytes), from, w->row_bytes);
    }
}

/* The oracle: each expert directly over all its rows of the whole job. */
static void expect(world *w, world_job *j)
{
    size_t n_picks = j->job.n_rows * w->o.k;
    compute_mem *out = w->ops.alloc(w->device, n_picks * w->row_bytes);

    memset(j->expected, PATTERN, w->o.max_rows * w->o.k * w->row_bytes);
    for (uint32_t e = 0; e < w->o.n_experts; e++) {
        uint32_t rows[WORLD_MAX_ROWS], to[WORLD_MAX_ROWS];
        compute_group group = {.expert = w->experts[j->job.layer][e], .rows = rows};

        for (size_t pick = 0; pick < n_picks; pick++) {
            if (j->ids[pick] == (int32_t)e) {
                to[group.n_rows] = (uint32_t)pick;
                rows[group.n_rows++] = (uint32_t)(pick / w->o.k);
            }
        }
        w->ops.expert_ffn(w->device, out, j->x, &group, group.n_rows == 0 ? 0 : 1);
        for (size_t i = 0; i < group.n_rows; i++) {
            assert_int_equal(w->ops.download(w->device, j->expected + to[i] * w->row_bytes,
                                             compute_at_const(out, i * w->row_bytes), w->row_bytes),
                             MOE_OK);
        }
    }
    w->ops.free(w->device, out);
}

void world_job_make(world *w, uint32_t coordinator, uint32_t micro_batch)
{
    world_job *j = &w->jobs[coordinator][micro_batch];
    size_t n = w->o.max_rows * w->o.k;

    j->job = (exchange_job){.layer = (uint32_t)moe_random_below(&w->random, w->o.n_layers),
                            .micro_batch = micro_batch,
                            .n_rows = 1 + moe_random_below(&w->random, w->o.max_rows),
                            .ids = j->ids,
                            .x = j->x,
                            .results = j->results};
    draw_ids(w, j);
    draw_rows(w, j);
    expect(w, j);
    memset(j->written, 0, n);
    unsigned char *pattern = malloc(n * w->row_bytes);
    assert_non_null(pattern);
    memset(pattern, PATTERN, n * w->row_bytes);
    w->ops.upload(w->device, j->results, pattern, n * w->row_bytes);
    free(pattern);
    j->open = true;
}

void world_job_check(world *w, uint32_t coordinator, uint32_t micro_batch)
{
    world_job *j = &w->jobs[coordinator][micro_batch];
    size_t n = w->o.max_rows * w->o.k;
    unsigned char *got = malloc(n * w->row_bytes);

    assert_non_null(got);
    assert_int_equal(w->ops.download(w->device, got, j->results, n * w->row_bytes), MOE_OK);
    assert_memory_equal(got, j->expected, n * w->row_bytes);
    for (size_t pick = 0; pick < j->job.n_rows * w->o.k; pick++) {
        assert_int_equal(j->written[pick], j->ids[pick] >= 0);
    }
    free(got);
    j->open = false;
}

/* ------------------------------------------------------------------------------------------------ time */
void world_turn(world *w, uint64_t by_ns)
{
    for (uint32_t i = 0; i < w->o.n_coordinators; i++) {
        (void)exchange_progress(w->coordinators[i].x);
    }
    for (uint32_t i = 0; i < w->o.n_nodes; i++) {
        if (w->nodes[i].node != NULL) {
            (void)expert_node_progress(w->nodes[i].node);
        }
    }
    moe_clock_virtual_advance(&w->clock, by_ns);
}

static bool settled(const world *w)
{
    for (uint32_t i = 0; i < w->o.n_coordinators; i++) {
        for (uint32_t n = 0; n < w->o.n_nodes; n++) {
            if (!exchange_node_ready(w->coordinators[i].x, w->nodes[n].id)) {
                return false;
            }
        }
    }
    return true;
}

void world_settle(world *w)
{
    for (int turn = 0; turn < 1000 && !settled(w); turn++) {
        world_turn(w, 1000);
    }
    assert_true(settled(w));
}

void world_calm(world *w)
{
    w->faults_off = true;
    for (uint32_t i = 0; i < w->o.n_coordinators; i++) {
        transport_faulty_enable(w->coordinators[i].t, false);
    }
    for (uint32_t i = 0; i < w->o.n_nodes; i++) {
        if (w->nodes[i].node == NULL) {
            world_node_start(w, i);
        } else {
            transport_faulty_enable(w->nodes[i].t, false);
        }
    }
}

void world_count_faults(world *w, uint64_t counts[TRANSPORT_N_FAULTS])
{
    for (int f = 0; f < TRANSPORT_N_FAULTS; f++) {
        counts[f] += w->faults[f];
        for (uint32_t i = 0; i < w->o.n_coordinators; i++) {
            counts[f] += transport_faulty_counts(w->coordinators[i].t)[f];
        }
        for (uint32_t i = 0; i < w->o.n_nodes; i++) {
            counts[f] += w->nodes[i].t == NULL ? 0 : transport_faulty_counts(w->nodes[i].t)[f];
        }
    }
}
