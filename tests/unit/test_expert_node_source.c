/* Experts out of a checkpoint: every byte of them is checked, and whoever waits hears of each piece. */
#include "expert_node/expert_node.h"
#include "tests/support/model_fixture.h"
#include "tests/support/random_pack.h"
#include "tests/support/support.h"

#define DIR   "tests/vectors/olmoe-gqa"
#define PIECE 1000

static model_fixture f;
static checkpoint_manifest manifest;
static expert_checkpoint experts;
static expert_source source;
static compute_expert *expert;
static size_t n_pieces, n_bytes, stop_at;
static bool is_away;

static bool more(void *ctx, size_t bytes)
{
    (void)ctx;
    assert_true(bytes <= PIECE);
    n_bytes += bytes;
    return ++n_pieces != stop_at;
}

static int setup(void **state)
{
    const model_fixture_options o = model_fixture_defaults(DIR);
    moe_error err;

    (void)state;
    model_fixture_open(&f, &o);
    assert_ok(checkpoint_manifest_build(f.checkpoint, "", model_tensors_all(f.tensors), model_tensors_count(f.tensors),
                                        f.threads, "", NULL, NULL, &manifest, &err),
              err);
    experts = (expert_checkpoint){.config = &f.config,
                                  .tensors = f.tensors,
                                  .device = f.device,
                                  .layout = COMPUTE_PACKED,
                                  .manifest = &manifest,
                                  .more = more,
                                  .piece_bytes = PIECE};
    source = expert_source_checkpoint(&experts);
    expert = NULL;
    n_pieces = n_bytes = stop_at = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    f.device->ops->expert_close(f.device, expert);
    checkpoint_manifest_fini(&manifest);
    model_fixture_close(&f);
    return 0;
}

/* Of its tensors: how many, which, and their bytes. */
static size_t tensors_of(uint32_t layer, int32_t expert_id, size_t idx[MODEL_MAX_EXPERT_TENSORS], size_t *bytes)
{
    size_t n;
    moe_error err;

    assert_ok(model_expert_tensors(&f.config, f.tensors, layer, expert_id, idx, &n, &err), err);
    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        *bytes += model_tensors_all(f.tensors)[idx[i]].bytes;
    }
    return n;
}

static void every_piece_of_an_expert_is_told_of(void **state)
{
    size_t idx[MODEL_MAX_EXPERT_TENSORS], bytes;
    moe_error err;

    (void)state;
    (void)tensors_of(1, 2, idx, &bytes);
    assert_ok(source.open(source.ctx, 1, 2, &expert, &err), err);
    assert_non_null(expert);
    assert_int_equal(n_bytes, bytes);
    assert_true(n_pieces >= bytes / PIECE && n_pieces > 4);
}

static void an_expert_is_given_up_between_two_pieces(void **state)
{
    moe_error err = {""};

    (void)state;
    stop_at = 3;
    assert_int_equal(source.open(source.ctx, 1, 2, &expert, &err), MOE_ERR_CANCELLED);
    assert_contains(err.text, "layer 1 expert 2");
    assert_null(expert);
    assert_int_equal(n_pieces, 3);
}

static void bytes_that_are_not_the_manifests_are_refused(void **state)
{
    size_t idx[MODEL_MAX_EXPERT_TENSORS], bytes;
    moe_error err = {""};

    (void)state;
    (void)tensors_of(1, 2, idx, &bytes);
    manifest.tensors[idx[0]].bytes[5] ^= 1;
    assert_int_equal(source.open(source.ctx, 1, 2, &expert, &err), MOE_ERR_CORRUPT);
    assert_contains(err.text, "not those of the manifest");
    assert_null(expert);
}

#define SOURCE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* ------------------------------------------------------------------------------------------------ of packs */
static moe_status find(void *ctx, uint32_t layer, int32_t expert_id, model_expert_parts *out, moe_error *err)
{
    const model_expert_parts *parts = random_pack_find(ctx, layer, expert_id);

    if (is_away) {
        return moe_fail(err, MOE_ERR_UNAVAILABLE, "the pack is on its way");
    }
    *out = parts != NULL ? *parts : *out;
    return MOE_OK;
}

/* Beside the checkpoint's, and one that nobody has. */
static void experts_of_packs_come_from_their_tensors(void **state)
{
    const uint32_t n_experts[] = {2, 0, 0, 0, 0, 0, 0, 0};
    const random_pack_options o = {.n_experts = n_experts, .seed = 3};
    random_pack added;
    compute_expert *other = NULL;
    moe_error err = {""};

    (void)state;
    assert_true(f.config.n_layers <= MOE_COUNT(n_experts));
    random_pack_open(&added, &f.config, &o);
    router_space *space = random_pack_join(&added, router_set_space(f.set));
    int32_t id = added.parts[0].ids[1];
    experts.find = find;
    experts.find_ctx = &added;
    assert_ok(source.open(source.ctx, 0, id, &expert, &err), err);
    const model_expert_parts *parts = random_pack_find(&added, 0, id);
    assert_int_equal(n_bytes, parts->gate->bytes + parts->up->bytes + parts->down->bytes);
    assert_ok(source.open(source.ctx, 0, 1, &other, &err), err);
    f.device->ops->expert_close(f.device, other);
    assert_int_equal(source.open(source.ctx, 1, id, &other, &err), MOE_ERR_NOT_FOUND);
    assert_contains(err.text, "layer 1 expert 9: there is no pack that has it");
    is_away = true; /* then it is for none to guess whose expert that is */
    assert_int_equal(source.open(source.ctx, 1, id, &other, &err), MOE_ERR_UNAVAILABLE);
    is_away = false;
    n_pieces = 0;
    stop_at = 3;
    assert_int_equal(source.open(source.ctx, 0, id, &other, &err), MOE_ERR_CANCELLED);
    router_space_unref(space);
    random_pack_close(&added);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOURCE_TEST(every_piece_of_an_expert_is_told_of),
        SOURCE_TEST(an_expert_is_given_up_between_two_pieces),
        SOURCE_TEST(bytes_that_are_not_the_manifests_are_refused),
        SOURCE_TEST(experts_of_packs_come_from_their_tensors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
