#include "tests/support/model_fixture.h"

#include <stdlib.h>

#include "tests/support/support.h"

model_fixture_options model_fixture_defaults(const char *dir)
{
    return (model_fixture_options){.dir = dir,
                                   .auto_class = true,
                                   .isa = COMPUTE_ISA_AUTO,
                                   .layout = COMPUTE_PACKED,
                                   .n_threads = 2,
                                   .max_rows = 64,
                                   .max_context = 512,
                                   .kv_tokens = 2048,
                                   .prefix_cache = true};
}

/* MOE_TEST_DEVICE and MOE_TEST_MODULE, where they are set, name the device that takes the place of every instruction set but
 * the portable one. */
static const char *device_name(compute_isa isa)
{
    static compute_found found;
    const char *name = getenv("MOE_TEST_DEVICE");
    moe_error err;

    if (name == NULL || isa == COMPUTE_ISA_PORTABLE) {
        return "cpu";
    }
    assert_ok(compute_find(name, getenv("MOE_TEST_MODULE"), &found, &err), err);
    return found.place;
}

static void open_device(model_fixture *f, const model_fixture_options *o)
{
    moe_error err;
    compute_device_options d = {.numeric_class =
                                    o->auto_class ? model_tensors_auto_class(f->tensors) : o->numeric_class,
                                .isa = o->isa,
                                .threads = f->threads,
                                .max_rows = o->max_rows,
                                .max_ffn_rows = o->max_rows * f->config.gate.k,
                                .max_routed_rows = o->max_rows * f->config.att_gate.k,
                                .max_d_ff = f->config.d_ff,
                                .max_context = o->max_context,
                                .full_scan = o->full_scan};

    assert_ok(compute_open(o->guarded ? "guarded" : device_name(o->isa), &d, &f->device, &err), err);
}

void model_fixture_open(model_fixture *f, const model_fixture_options *o)
{
    static const unsigned char no_fingerprint[32];
    moe_error err;
    router_space *space = NULL;

    memset(f, 0, sizeof *f);
    compute_thread_init();
    f->max_context = o->max_context;
    assert_ok(model_config_load(o->dir, &f->config, &err), err);
    assert_ok(checkpoint_open(o->dir, &f->checkpoint, &err), err);
    assert_ok(model_tensors_open(&f->config, f->checkpoint, &f->tensors, &err), err);
    assert_int_equal(moe_threads_open(o->n_threads, compute_thread_init, &f->threads), MOE_OK);
    open_device(f, o);
    assert_ok(model_open(&f->config, f->tensors, f->device, o->layout, o->max_context, NULL, NULL, &f->model, &err),
              err);
    assert_ok(
        model_kv_open(&f->config, f->device,
                      model_kv_page_bytes(&f->config, f->device->numeric_class) * (o->kv_tokens / MODEL_KV_PAGE_TOKENS),
                      o->prefix_cache, &f->kv, &err),
        err);
    assert_ok(model_config_space(&f->config, &space, &err), err);
    assert_ok(router_set_open_all(space, f->config.gate.k, no_fingerprint, &f->set, &err), err);
    router_space_unref(space);
}

void model_fixture_maker(const model_fixture *f, compute_isa isa, moe_threads **one, compute_device **maker)
{
    compute_device_options o = {.numeric_class = f->device->numeric_class,
                                .isa = isa,
                                .max_rows = 1,
                                .max_ffn_rows = 1,
                                .max_routed_rows = 1,
                                .max_d_ff = f->config.d_ff,
                                .max_context = 1};
    moe_error err;

    assert_int_equal(moe_threads_open(1, compute_thread_init, one), MOE_OK);
    o.threads = *one;
    assert_ok(compute_open("cpu", &o, maker, &err), err);
}

void model_fixture_load_experts(model_fixture *f)
{
    moe_error err;
    size_t n = f->config.n_ffn_experts;

    f->experts = calloc(f->config.n_layers * n, sizeof *f->experts);
    assert_non_null(f->experts);
    for (uint32_t l = 0; l < f->config.n_layers; l++) {
        for (uint32_t e = 0; e < n; e++) {
            assert_ok(model_expert_open(&f->config, f->tensors, f->device, COMPUTE_PACKED, l, (int32_t)e,
                                        &f->experts[l * n + e], &err),
                      err);
        }
    }
}

void model_fixture_route(model_batch *batch, uint32_t layer)
{
    moe_status status;

    while ((status = model_batch_route(batch, layer)) == MOE_ERR_BUSY) {
    }
    assert_int_equal(status, MOE_OK);
}

void model_fixture_logits(model_batch *batch, float *out)
{
    moe_status status;

    while ((status = model_batch_logits(batch, out)) == MOE_ERR_BUSY) {
    }
    assert_int_equal(status, MOE_OK);
}

void model_fixture_compute(model_fixture *f, model_batch *batch)
{
    size_t rows = model_batch_n_rows(batch), k = f->config.gate.k, n = f->config.n_ffn_experts;
    size_t row_bytes = f->config.d_model * compute_dtype_bytes(compute_class_dtype(f->device->numeric_class));
    const int32_t *ids = model_batch_remote_ids(batch);

    /* One (row, pick) at a time: the slowest and plainest order there is. */
    model_batch_local(batch);
    for (size_t i = 0; i < rows * k; i++) {
        uint32_t row = (uint32_t)(i / k);
        if (ids[i] < 0) {
            continue;
        }
        compute_group group = {
            .expert = f->experts[model_batch_layer(batch) * n + (size_t)ids[i]], .rows = &row, .n_rows = 1};
        f->device->ops->expert_ffn(f->device, compute_at(model_batch_results(batch), i * row_bytes),
                                   model_batch_x(batch), &group, 1);
    }
}

void model_fixture_close(model_fixture *f)
{
    for (size_t i = 0; f->experts != NULL && i < (size_t)f->config.n_layers * f->config.n_ffn_experts; i++) {
        f->device->ops->expert_close(f->device, f->experts[i]);
    }
    free(f->experts);
    model_kv_close(f->kv);
    model_close(f->model);
    router_set_unref(f->set);
    compute_close(f->device);
    moe_threads_close(f->threads);
    model_tensors_close(f->tensors);
    checkpoint_close(f->checkpoint);
}

/* --------------------------------------------------------------------------------------------- the oracle's answers */
static void *copy_tensor(const checkpoint *c, const char *name, size_t *n_out)
{
    const checkpoint_tensor *t = checkpoint_find(c, name);
    void *copy;

    if (t == NULL) {
        fail_msg("expected.safetensors has no tensor %s", name);
    }
    copy = malloc(t->bytes);
    assert_non_null(copy);
    memcpy(copy, t->data, t->bytes);
    *n_out = t->shape[0];
    return copy;
}

void oracle_answers_load(oracle_answers *a, const char *dir, const char *file_name, const model_config *c)
{
    char path[512];
    size_t bytes, n;
    char *image;
    checkpoint *file;
    moe_error err;

    snprintf(path, sizeof path, "%s/%s", dir, file_name);
    image = test_read_file(path, &bytes);
    assert_ok(checkpoint_open_memory(image, bytes, file_name, &file, &err), err);
    *a = (oracle_answers){.vocab_size = c->vocab_size, .n_layers = c->n_layers, .k = c->gate.k};
    a->token_ids = copy_tensor(file, "token_ids", &a->n_tokens);
    a->greedy = copy_tensor(file, "greedy", &a->n_greedy);
    a->logits = copy_tensor(file, "logits", &n);
    a->margin = copy_tensor(file, "margin", &n);
    a->experts = malloc(a->n_layers * a->n_tokens * a->k * sizeof *a->experts);
    for (size_t l = 0; l < a->n_layers; l++) {
        char name[32];
        int32_t *rows;
        snprintf(name, sizeof name, "experts.%zu", l);
        rows = copy_tensor(file, name, &n);
        memcpy(a->experts + l * a->n_tokens * a->k, rows, a->n_tokens * a->k * sizeof *rows);
        free(rows);
    }
    checkpoint_close(file);
    free(image);
}

void oracle_answers_free(oracle_answers *a)
{
    free(a->token_ids);
    free(a->logits);
    free(a->margin);
    free(a->experts);
    free(a->greedy);
}
