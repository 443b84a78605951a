#include "tests/support/support.h"

#include "compute/math.h"
#include "model/model.h"

#include <stdlib.h>

enum {
    VOCAB = 6,
    WIDTH = 4,
    HEADS = 2,
    HEAD_DIM = 2,
    KV_WIDTH = 2,
    D_FF = 3,
    LAYERS = 2,
    EXPERTS = 11,
    MAX_ELEMENTS = 1024
};

/* --------------------------------------------------------------------------------------------- a checkpoint to vary */
typedef struct variation {
    const char *leave_out;     /* name of a tensor */
    const char *add;           /* [1] F32 */
    const char *deepen;        /* gets a last dimension of 1 */
    const char *misshape;      /* gets one row more */
    const char *retype, *type; /* a name (or its part), its dtype */
    const char *poison;        /* its last value is infinite */
    bool keep_small;           /* norms and routers are not retyped */
    bool fused[LAYERS], bias, tied;
    bool head; /* beside a tied one: the embedding again */
} variation;

typedef struct fixture {
    model_config config;
    unsigned char *image;
    checkpoint *cp;
    model_tensors *tensors;
    moe_status status;
    moe_error err;
} fixture;

static size_t width_of(const char *dtype)
{
    return strcmp(dtype, "F32") == 0 ? 4 : strcmp(dtype, "F64") == 0 ? 8 : 2;
}

/* Filled by position, so that the slices of a fused tensor differ; all values are normal and near one. */
static void add_tensor(test_tensors *out, const variation *v, const char *name, size_t rank, const size_t *dims)
{
    static unsigned char data[MAX_ELEMENTS * 8];
    bool is_small = strstr(name, "norm") != NULL || strstr(name, "mlp.gate.") != NULL;
    bool is_retyped = v->retype != NULL && strstr(name, v->retype) != NULL && !(v->keep_small && is_small);
    const char *dtype = is_retyped ? v->type : "F32";
    size_t shape[3] = {0}, n = 1, bytes;

    if (v->leave_out != NULL && strcmp(v->leave_out, name) == 0) {
        return;
    }
    for (size_t i = 0; i < rank; i++) {
        shape[i] = dims[i] + (i == 0 && v->misshape != NULL && strcmp(v->misshape, name) == 0);
        n *= shape[i];
    }
    if (v->deepen != NULL && strcmp(v->deepen, name) == 0) {
        shape[rank++] = 1;
    }
    assert_true(n <= MAX_ELEMENTS);
    bytes = n * width_of(dtype);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (unsigned char)((i % width_of(dtype) + 1) % width_of(dtype) == 0 ? 0x3f : i);
    }
    if (v->poison != NULL && strcmp(v->poison, name) == 0) {
        memcpy(data + bytes - 2, dtype[0] == 'F' && dtype[1] == '1' ? "\x00\x7c" : "\x80\x7f", 2);
        memset(data + bytes - width_of(dtype), 0, width_of(dtype) - 2);
    }
    test_tensors_add(out, name, dtype, shape, rank, data, bytes);
}

static void add_matrix(test_tensors *out, const variation *v, const char *name, size_t n_out, size_t n_in)
{
    add_tensor(out, v, name, 2, (size_t[]){n_out, n_in});
}

static void add_vector(test_tensors *out, const variation *v, const char *name, size_t n)
{
    add_tensor(out, v, name, 1, &n);
}

static const char *named(size_t layer, const char *rest)
{
    static char name[128];

    snprintf(name, sizeof name, "model.layers.%zu.%s", layer, rest);
    return name;
}

static const char *of_expert(size_t layer, size_t expert, const char *rest)
{
    static char name[128];

    snprintf(name, sizeof name, "model.layers.%zu.mlp.experts.%zu.%s.weight", layer, expert, rest);
    return name;
}

static void add_attention(test_tensors *out, const variation *v, size_t l)
{
    add_vector(out, v, named(l, "input_layernorm.weight"), WIDTH);
    add_matrix(out, v, named(l, "self_attn.q_proj.weight"), WIDTH, WIDTH);
    add_matrix(out, v, named(l, "self_attn.k_proj.weight"), KV_WIDTH, WIDTH);
    add_matrix(out, v, named(l, "self_attn.v_proj.weight"), KV_WIDTH, WIDTH);
    add_matrix(out, v, named(l, "self_attn.o_proj.weight"), WIDTH, WIDTH);
    add_vector(out, v, named(l, "self_attn.q_norm.weight"), WIDTH);
    add_vector(out, v, named(l, "self_attn.k_norm.weight"), KV_WIDTH);
    if (v->bias) {
        add_vector(out, v, named(l, "self_attn.q_proj.bias"), WIDTH);
        add_vector(out, v, named(l, "self_attn.k_proj.bias"), KV_WIDTH);
        add_vector(out, v, named(l, "self_attn.v_proj.bias"), KV_WIDTH);
        add_vector(out, v, named(l, "self_attn.o_proj.bias"), WIDTH);
    }
}

static void add_layer(test_tensors *out, const variation *v, size_t l)
{
    add_attention(out, v, l);
    add_vector(out, v, named(l, "post_attention_layernorm.weight"), WIDTH);
    add_matrix(out, v, named(l, "mlp.gate.weight"), EXPERTS, WIDTH);
    if (v->fused[l]) {
        add_tensor(out, v, named(l, "mlp.experts.gate_up_proj"), 3, (size_t[]){EXPERTS, 2 * D_FF, WIDTH});
        add_tensor(out, v, named(l, "mlp.experts.down_proj"), 3, (size_t[]){EXPERTS, WIDTH, D_FF});
    }
    for (size_t e = 0; e < EXPERTS && !v->fused[l]; e++) {
        add_matrix(out, v, of_expert(l, e, "gate_proj"), D_FF, WIDTH);
        add_matrix(out, v, of_expert(l, e, "up_proj"), D_FF, WIDTH);
        add_matrix(out, v, of_expert(l, e, "down_proj"), WIDTH, D_FF);
    }
}

static unsigned char *image_of(const variation *v, size_t *bytes)
{
    test_tensors *out = test_tensors_open();
    unsigned char *image;

    add_matrix(out, v, "model.embed_tokens.weight", VOCAB, WIDTH);
    add_vector(out, v, "model.norm.weight", WIDTH);
    if (!v->tied || v->head) {
        add_matrix(out, v, "lm_head.weight", VOCAB, WIDTH);
    }
    for (size_t l = 0; l < LAYERS; l++) {
        add_layer(out, v, l);
    }
    if (v->add != NULL) {
        add_vector(out, v, v->add, 1);
    }
    image = test_tensors_bytes(out, bytes);
    test_tensors_close(out);
    return image;
}

static void open_config(const variation *v, model_config *out)
{
    char json[512];
    moe_error err = {.text = ""};
    int n = snprintf(
        json, sizeof json,
        "{\"model_type\": \"olmoe\", \"vocab_size\": %d, \"hidden_size\": %d, \"intermediate_size\": %d, "
        "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": 1, \"num_experts\": %d, "
        "\"num_experts_per_tok\": 2, \"attention_bias\": %s, \"tie_word_embeddings\": %s}",
        VOCAB, WIDTH, D_FF, LAYERS, HEADS, EXPERTS, v->bias ? "true" : "false", v->tied ? "true" : "false");

    assert_ok(model_config_parse(json, (size_t)n, NULL, 0, out, &err), err);
}

static void fixture_open(fixture *f, const variation *v)
{
    size_t bytes;

    memset(f, 0, sizeof *f);
    open_config(v, &f->config);
    f->image = image_of(v, &bytes);
    assert_ok(checkpoint_open_memory(f->image, bytes, "memory", &f->cp, &f->err), f->err);
    f->status = model_tensors_open(&f->config, f->cp, &f->tensors, &f->err);
}

static void fixture_close(fixture *f)
{
    model_tensors_close(f->tensors);
    checkpoint_close(f->cp);
    free(f->image);
}

static void assert_refused(const variation *v, moe_status status, const char *says)
{
    fixture f;

    fixture_open(&f, v);
    if (f.status == MOE_OK) {
        fail_msg("accepted; should say \"%s\"", says);
    }
    assert_int_equal(f.status, status);
    assert_contains(f.err.text, says);
    fixture_close(&f);
}

static void assert_accepted(fixture *f, const variation *v)
{
    fixture_open(f, v);
    assert_ok(f->status, f->err);
}

/* ------------------------------------------------------------------------------------------------ accepted */
static void all_tensors_are_listed_in_name_order(void **state)
{
    fixture f;
    const checkpoint_logical *all;

    (void)state;
    assert_accepted(&f, &(variation){0});
    all = model_tensors_all(f.tensors);
    assert_int_equal(model_tensors_count(f.tensors), 3 + LAYERS * (9 + 3 * EXPERTS));
    for (size_t i = 1; i < model_tensors_count(f.tensors); i++) {
        assert_true(strcmp(all[i - 1].name, all[i].name) < 0);
    }
    fixture_close(&f);
}

static void every_tensor_is_found_by_its_name(void **state)
{
    fixture f;
    const checkpoint_logical *all;

    (void)state;
    assert_accepted(&f, &(variation){0});
    all = model_tensors_all(f.tensors);
    for (size_t i = 0; i < model_tensors_count(f.tensors); i++) {
        assert_ptr_equal(model_tensors_find(f.tensors, all[i].name), &all[i]);
    }
    assert_null(model_tensors_find(f.tensors, "model.layers.2.mlp.gate.weight"));
    fixture_close(&f);
}

static void a_logical_tensor_points_at_its_bytes_in_the_checkpoint(void **state)
{
    fixture f;
    const checkpoint_logical *t;
    const checkpoint_tensor *in_file;

    (void)state;
    assert_accepted(&f, &(variation){0});
    t = model_tensors_find(f.tensors, of_expert(1, 10, "down_proj"));
    in_file = checkpoint_find(f.cp, of_expert(1, 10, "down_proj"));
    assert_non_null(t);
    assert_ptr_equal(t->data, in_file->data);
    assert_int_equal(t->bytes, in_file->bytes);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], WIDTH);
    assert_int_equal(t->shape[1], D_FF);
    fixture_close(&f);
}

static void a_fused_layer_has_the_names_and_shapes_of_a_plain_one(void **state)
{
    fixture plain, fused;

    (void)state;
    assert_accepted(&plain, &(variation){0});
    assert_accepted(&fused, &(variation){.fused = {true, true}});
    assert_int_equal(model_tensors_count(plain.tensors), model_tensors_count(fused.tensors));
    for (size_t i = 0; i < model_tensors_count(plain.tensors); i++) {
        const checkpoint_logical *a = &model_tensors_all(plain.tensors)[i], *b = &model_tensors_all(fused.tensors)[i];

        assert_string_equal(a->name, b->name);
        assert_int_equal(a->rank, b->rank);
        assert_memory_equal(a->shape, b->shape, sizeof a->shape);
        assert_int_equal(a->bytes, b->bytes);
    }
    fixture_close(&plain);
    fixture_close(&fused);
}

static void a_fused_expert_is_its_slice_gate_before_up(void **state)
{
    fixture f;
    const checkpoint_tensor *gate_up, *down;
    size_t matrix = (size_t)D_FF * WIDTH * 4;

    (void)state;
    assert_accepted(&f, &(variation){.fused = {false, true}});
    gate_up = checkpoint_find(f.cp, "model.layers.1.mlp.experts.gate_up_proj");
    down = checkpoint_find(f.cp, "model.layers.1.mlp.experts.down_proj");
    assert_ptr_equal(model_tensors_find(f.tensors, of_expert(1, 7, "gate_proj"))->data, gate_up->data + 14 * matrix);
    assert_ptr_equal(model_tensors_find(f.tensors, of_expert(1, 7, "up_proj"))->data, gate_up->data + 15 * matrix);
    assert_ptr_equal(model_tensors_find(f.tensors, of_expert(1, 7, "down_proj"))->data, down->data + 7 * matrix);
    fixture_close(&f);
}

static void a_tied_checkpoint_has_no_head(void **state)
{
    fixture f;

    (void)state;
    assert_accepted(&f, &(variation){.tied = true});
    assert_null(model_tensors_find(f.tensors, "lm_head.weight"));
    fixture_close(&f);
}

static void a_head_that_is_the_embedding_may_be_stored_too(void **state)
{
    fixture f;

    (void)state;
    assert_accepted(&f, &(variation){.tied = true, .head = true});
    assert_null(model_tensors_find(f.tensors, "lm_head.weight")); /* it is read once, and hashed once */
    fixture_close(&f);
}

static void biases_belong_to_a_config_with_biases(void **state)
{
    fixture f;

    (void)state;
    assert_accepted(&f, &(variation){.bias = true});
    assert_non_null(model_tensors_find(f.tensors, "model.layers.1.self_attn.o_proj.bias"));
    fixture_close(&f);
}

static void rotary_frequencies_of_old_scripts_are_ignored(void **state)
{
    fixture f;

    (void)state;
    assert_accepted(&f, &(variation){.add = "model.layers.0.self_attn.rotary_emb.inv_freq"});
    assert_null(model_tensors_find(f.tensors, "model.layers.0.self_attn.rotary_emb.inv_freq"));
    fixture_close(&f);
}

/* ------------------------------------------------------------------------------------------------ refused */
static void a_missing_tensor_is_named(void **state)
{
    static const char *const names[] = {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.self_attn.k_norm.weight",
        "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.experts.10.up_proj.weight",
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        char says[160];

        snprintf(says, sizeof says, "tensor %s: missing", names[i]);
        assert_refused(&(variation){.leave_out = names[i]}, MOE_ERR_INVALID_ARG, says);
    }
}

static void a_missing_fused_half_is_named(void **state)
{
    (void)state;
    assert_refused(&(variation){.fused = {true, false}, .leave_out = "model.layers.0.mlp.experts.down_proj"},
                   MOE_ERR_INVALID_ARG, "tensor model.layers.0.mlp.experts.down_proj: missing");
}

static void an_unexpected_tensor_is_named(void **state)
{
    static const char *const names[] = {
        "model.layers.2.input_layernorm.weight",
        "model.layers.0.mlp.experts.11.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "extra",
    };

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        char says[160];

        snprintf(says, sizeof says, "tensor %s: unexpected", names[i]);
        assert_refused(&(variation){.add = names[i]}, MOE_ERR_INVALID_ARG, says);
    }
}

static void a_head_that_differs_from_a_tied_embedding_is_refused(void **state)
{
    static const variation others[] = {{.tied = true, .head = true, .poison = "lm_head.weight"},
                                       {.tied = true, .head = true, .retype = "lm_head", .type = "BF16"},
                                       {.tied = true, .head = true, .misshape = "lm_head.weight"},
                                       {.tied = true, .head = true, .deepen = "lm_head.weight"},
                                       {.tied = true, .add = "lm_head.weight"}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(others); i++) {
        assert_refused(
            &others[i], MOE_ERR_INVALID_ARG,
            "tensor lm_head.weight: differs from model.embed_tokens.weight, while tie_word_embeddings is true");
    }
}

static void rows_that_are_not_the_vocabulary_are_told_with_their_key(void **state)
{
    (void)state;
    assert_refused(&(variation){.misshape = "model.embed_tokens.weight"}, MOE_ERR_INVALID_ARG,
                   "tensor model.embed_tokens.weight: 7 rows, but vocab_size is 6");
    assert_refused(&(variation){.misshape = "lm_head.weight"}, MOE_ERR_INVALID_ARG,
                   "tensor lm_head.weight: 7 rows, but vocab_size is 6");
}

static void a_layer_of_both_layouts_is_refused(void **state)
{
    (void)state;
    assert_refused(&(variation){.fused = {true, false}, .add = "model.layers.0.mlp.experts.4.up_proj.weight"},
                   MOE_ERR_INVALID_ARG, "tensor model.layers.0.mlp.experts.4.up_proj.weight: unexpected");
}

static void a_plain_layer_with_one_fused_tensor_is_refused(void **state)
{
    (void)state;
    assert_refused(&(variation){.add = "model.layers.0.mlp.experts.down_proj"}, MOE_ERR_INVALID_ARG,
                   "tensor model.layers.0.mlp.experts.gate_up_proj: missing");
}

static void a_misshapen_tensor_is_named_with_both_shapes(void **state)
{
    (void)state;
    assert_refused(&(variation){.misshape = "model.layers.1.mlp.gate.weight"}, MOE_ERR_INVALID_ARG,
                   "tensor model.layers.1.mlp.gate.weight: shape [12, 4], the config demands [11, 4]");
}

static void a_misshapen_vector_is_refused(void **state)
{
    (void)state;
    assert_refused(&(variation){.misshape = "model.layers.1.self_attn.k_norm.weight"}, MOE_ERR_INVALID_ARG,
                   "shape [3], the config demands [2]");
}

static void a_tensor_of_another_rank_is_refused(void **state)
{
    (void)state;
    assert_refused(&(variation){.deepen = "model.norm.weight"}, MOE_ERR_INVALID_ARG,
                   "tensor model.norm.weight: shape [4, 1], the config demands [4]");
}

static void a_misshapen_fused_tensor_is_refused(void **state)
{
    (void)state;
    assert_refused(&(variation){.fused = {true, true}, .misshape = "model.layers.0.mlp.experts.gate_up_proj"},
                   MOE_ERR_INVALID_ARG, "shape [12, 6, 4], the config demands [11, 6, 4]");
}

static void another_dtype_is_refused(void **state)
{
    (void)state;
    assert_refused(&(variation){.retype = "lm_head.weight", .type = "F64"}, MOE_ERR_UNSUPPORTED,
                   "tensor lm_head.weight: dtype F64");
}

static void an_infinite_norm_weight_is_refused(void **state)
{
    (void)state;
    assert_refused(&(variation){.poison = "model.norm.weight"}, MOE_ERR_CORRUPT,
                   "tensor model.norm.weight: holds a value that is not finite");
}

static void an_infinite_router_weight_is_refused_in_every_dtype(void **state)
{
    static const char *const types[] = {"F32", "BF16", "F16"};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(types); i++) {
        assert_refused(
            &(variation){.poison = "model.layers.1.mlp.gate.weight", .retype = "mlp.gate.weight", .type = types[i]},
            MOE_ERR_CORRUPT, "tensor model.layers.1.mlp.gate.weight: holds a value that is not finite");
    }
}

static void a_config_of_too_many_tensors_is_refused(void **state)
{
    static const char json[] =
        "{\"model_type\": \"olmoe\", \"intermediate_size\": 1, \"hidden_size\": 32, \"num_experts\": 4096, "
        "\"num_hidden_layers\": 512}";
    model_config c;
    model_tensors *tensors;
    fixture f;

    (void)state;
    fixture_open(&f, &(variation){0});
    assert_ok(model_config_parse(json, sizeof json - 1, NULL, 0, &c, &f.err), f.err);
    assert_int_equal(model_tensors_open(&c, f.cp, &tensors, &f.err), MOE_ERR_INVALID_ARG);
    assert_contains(f.err.text, "512 layers of 4096 experts: more than");
    fixture_close(&f);
}

/* ------------------------------------------------------------------------------------------------ class and experts */
static compute_class class_with(const char *retype, const char *type, bool keep_small)
{
    fixture f;
    compute_class c;

    assert_accepted(&f, &(variation){.retype = retype, .type = type, .keep_small = keep_small});
    c = model_tensors_auto_class(f.tensors);
    fixture_close(&f);
    return c;
}

static void the_class_of_a_bf16_checkpoint_is_bf16(void **state)
{
    (void)state;
    assert_int_equal(class_with("", "BF16", false), COMPUTE_CLASS_BF16_1);
}

static void the_class_of_f32_and_f16_checkpoints_is_f32(void **state)
{
    (void)state;
    assert_int_equal(class_with("", "F32", false), COMPUTE_CLASS_F32_1);
    assert_int_equal(class_with("", "F16", false), COMPUTE_CLASS_F32_1);
}

static void the_class_is_f32_as_soon_as_one_matrix_is_not_bf16(void **state)
{
    (void)state;
    assert_int_equal(class_with("proj", "BF16", false), COMPUTE_CLASS_F32_1); /* embedding and head stay F32 */
}

static void norms_and_routers_do_not_decide_the_class(void **state)
{
    (void)state;
    assert_int_equal(class_with("", "BF16", true), COMPUTE_CLASS_BF16_1);
}

static void the_bytes_of_an_expert_are_those_of_its_three_matrices(void **state)
{
    fixture plain, fused;

    (void)state;
    assert_accepted(&plain, &(variation){0});
    assert_accepted(&fused, &(variation){.fused = {true, true}});
    assert_int_equal(model_expert_bytes(&plain.config, plain.tensors), 3 * D_FF * WIDTH * 4);
    assert_int_equal(model_expert_bytes(&fused.config, fused.tensors), 3 * D_FF * WIDTH * 4);
    fixture_close(&plain);
    fixture_close(&fused);
}

static void an_expert_has_the_indices_of_its_matrices(void **state)
{
    fixture f;
    size_t idx[MODEL_MAX_EXPERT_TENSORS], n;

    (void)state;
    assert_accepted(&f, &(variation){0});
    assert_ok(model_expert_tensors(&f.config, f.tensors, 1, 10, idx, &n, &f.err), f.err);
    assert_int_equal(n, 3);
    assert_string_equal(model_tensors_all(f.tensors)[idx[0]].name, of_expert(1, 10, "gate_proj"));
    assert_string_equal(model_tensors_all(f.tensors)[idx[1]].name, of_expert(1, 10, "up_proj"));
    assert_string_equal(model_tensors_all(f.tensors)[idx[2]].name, of_expert(1, 10, "down_proj"));
    fixture_close(&f);
}

static void an_expert_beyond_the_checkpoint_is_not_found(void **state)
{
    fixture f;
    size_t idx[MODEL_MAX_EXPERT_TENSORS], n;

    (void)state;
    assert_accepted(&f, &(variation){0});
    assert_int_equal(model_expert_tensors(&f.config, f.tensors, 2, 0, idx, &n, &f.err), MOE_ERR_NOT_FOUND);
    assert_int_equal(model_expert_tensors(&f.config, f.tensors, 0, 11, idx, &n, &f.err), MOE_ERR_NOT_FOUND);
    assert_int_equal(model_expert_tensors(&f.config, f.tensors, 0, -1, idx, &n, &f.err), MOE_ERR_NOT_FOUND);
    fixture_close(&f);
}

/* One row of ones through expert 3 of layer 1; the answer's bits. */
static void run_expert(const fixture *f, float out[WIDTH])
{
    compute_device_options options = {.numeric_class = COMPUTE_CLASS_F32_1,
                                      .isa = COMPUTE_ISA_PORTABLE,
                                      .max_rows = 1,
                                      .max_ffn_rows = 1,
                                      .max_d_ff = D_FF,
                                      .max_context = 32};
    const float ones[WIDTH] = {1.0f, 1.0f, 1.0f, 1.0f};
    const uint32_t row = 0;
    compute_device *d;
    compute_expert *expert;
    compute_mem *x, *y;
    moe_error err = {.text = ""};

    assert_int_equal(moe_threads_open(1, compute_thread_init, &options.threads), MOE_OK);
    assert_ok(compute_open("cpu", &options, &d, &err), err);
    assert_ok(model_expert_open(&f->config, f->tensors, d, COMPUTE_PACKED, 1, 3, &expert, &err), err);
    x = d->ops->alloc(d, sizeof ones);
    y = d->ops->alloc(d, sizeof ones);
    d->ops->upload(d, x, ones, sizeof ones);
    d->ops->expert_ffn(d, y, x, &(compute_group){.expert = expert, .rows = &row, .n_rows = 1}, 1);
    assert_int_equal(d->ops->download(d, out, y, sizeof ones), MOE_OK);
    d->ops->free(d, x);
    d->ops->free(d, y);
    d->ops->expert_close(d, expert);
    compute_close(d);
    moe_threads_close(options.threads);
}

static float value_of(const checkpoint_logical *t, size_t row, size_t column)
{
    float value;

    memcpy(&value, t->data + (row * t->shape[1] + column) * sizeof value, sizeof value);
    return value;
}

static void an_opened_expert_computes_with_its_own_matrices(void **state)
{
    fixture f;
    float out[WIDTH], hidden[D_FF];

    (void)state;
    assert_accepted(&f, &(variation){.fused = {false, true}});
    run_expert(&f, out);
    for (size_t i = 0; i < D_FF; i++) {
        float gate = 0.0f, up = 0.0f;

        for (size_t j = 0; j < WIDTH; j++) {
            gate += value_of(model_tensors_find(f.tensors, of_expert(1, 3, "gate_proj")), i, j);
            up += value_of(model_tensors_find(f.tensors, of_expert(1, 3, "up_proj")), i, j);
        }
        hidden[i] = compute_silu(gate) * up;
    }
    for (size_t i = 0; i < WIDTH; i++) {
        float wanted = 0.0f;

        for (size_t j = 0; j < D_FF; j++) {
            wanted += hidden[j] * value_of(model_tensors_find(f.tensors, of_expert(1, 3, "down_proj")), i, j);
        }
        assert_float_equal(out[i], wanted, 1e-5f);
    }
    fixture_close(&f);
}

static int init_thread(void **state)
{
    (void)state;
    compute_thread_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_tensors_are_listed_in_name_order),
        cmocka_unit_test(every_tensor_is_found_by_its_name),
        cmocka_unit_test(a_logical_tensor_points_at_its_bytes_in_the_checkpoint),
        cmocka_unit_test(a_fused_layer_has_the_names_and_shapes_of_a_plain_one),
        cmocka_unit_test(a_fused_expert_is_its_slice_gate_before_up),
        cmocka_unit_test(a_tied_checkpoint_has_no_head),
        cmocka_unit_test(a_head_that_is_the_embedding_may_be_stored_too),
        cmocka_unit_test(biases_belong_to_a_config_with_biases),
        cmocka_unit_test(rotary_frequencies_of_old_scripts_are_ignored),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(a_missing_fused_half_is_named),
        cmocka_unit_test(an_unexpected_tensor_is_named),
        cmocka_unit_test(a_head_that_differs_from_a_tied_embedding_is_refused),
        cmocka_unit_test(rows_that_are_not_the_vocabulary_are_told_with_their_key),
        cmocka_unit_test(a_layer_of_both_layouts_is_refused),
        cmocka_unit_test(a_plain_layer_with_one_fused_tensor_is_refused),
        cmocka_unit_test(a_misshapen_tensor_is_named_with_both_shapes),
        cmocka_unit_test(a_misshapen_vector_is_refused),
        cmocka_unit_test(a_tensor_of_another_rank_is_refused),
        cmocka_unit_test(a_misshapen_fused_tensor_is_refused),
        cmocka_unit_test(another_dtype_is_refused),
        cmocka_unit_test(an_infinite_norm_weight_is_refused),
        cmocka_unit_test(an_infinite_router_weight_is_refused_in_every_dtype),
        cmocka_unit_test(a_config_of_too_many_tensors_is_refused),
        cmocka_unit_test(the_class_of_a_bf16_checkpoint_is_bf16),
        cmocka_unit_test(the_class_of_f32_and_f16_checkpoints_is_f32),
        cmocka_unit_test(the_class_is_f32_as_soon_as_one_matrix_is_not_bf16),
        cmocka_unit_test(norms_and_routers_do_not_decide_the_class),
        cmocka_unit_test(the_bytes_of_an_expert_are_those_of_its_three_matrices),
        cmocka_unit_test(an_expert_has_the_indices_of_its_matrices),
        cmocka_unit_test(an_expert_beyond_the_checkpoint_is_not_found),
        cmocka_unit_test(an_opened_expert_computes_with_its_own_matrices),
    };

    return cmocka_run_group_tests_name("model tensors", tests, init_thread, NULL);
}
