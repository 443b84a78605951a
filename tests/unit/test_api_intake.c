/* What reaches the engine of a valid request; what is refused is tested through the wire by
 * tests/integration/api_test.py. */
#include "api/intake_priv.h"
#include "tests/support/fake_engine.h"
#include "tests/support/support.h"

static request_scope scope;
static registry *sets;

/* *state is the scope of a request. */
static int open_engine(void **state)
{
    fake_options options = {.no_tokenizer = false};

    scope.engine = fake_engine_open(&options);
    sets = fake_registry_open(scope.engine, NULL, NULL);
    scope.catalogue = registry_table(sets);
    scope.permits = NULL;
    *state = &scope;
    return 0;
}

static int close_engine(void **state)
{
    (void)state;
    registry_close(sets);
    fake_engine_close(scope.engine);
    return 0;
}

static generate_request text_request(const char *text)
{
    generate_request r = CONCLAVE__V1__GENERATE_REQUEST__INIT;

    r.input_case = CONCLAVE__V1__GENERATE_REQUEST__INPUT_TEXT;
    r.text = (char *)(uintptr_t)text;
    return r;
}

static void unset_fields_take_the_defaults(void **state)
{
    generate_request r = text_request("ab");
    intake in;
    moe_error err;

    assert_ok(intake_generate(*state, &r, &in, &err), err);
    assert_int_equal(in.spec.n_prompt, 2);
    assert_int_equal(in.spec.n_choices, 1);
    assert_true(in.spec.sampling.temperature == 1.0f && in.spec.sampling.top_p == 1.0f &&
                in.spec.sampling.repetition_penalty == 1.0f);
    assert_false(in.spec.has_max_tokens || in.spec.has_seed || in.spec.want_logprobs || in.spec.ignore_eos ||
                 in.spec.want_progress);
    intake_fini(&in);
}

static void the_models_own_defaults_come_first(void **state)
{
    model_config *c = (model_config *)(uintptr_t)engine_get_info(scope.engine)->config;
    generate_request r = text_request("ab");
    intake in;
    moe_error err;

    c->defaults.temperature = 0.25;
    c->defaults.top_p = 0.5;
    c->defaults.top_k = 7;
    c->defaults.min_p = 0.125;
    c->defaults.repetition_penalty = 1.5;
    c->defaults.frequency_penalty = -0.25;
    c->defaults.presence_penalty = 1.25;
    c->defaults.min_new_tokens = 9;
    assert_ok(intake_generate(*state, &r, &in, &err), err);
    assert_true(in.spec.sampling.temperature == 0.25f && in.spec.sampling.top_p == 0.5f);
    assert_true(in.spec.sampling.min_p == 0.125f && in.spec.sampling.repetition_penalty == 1.5f);
    assert_true(in.spec.sampling.frequency_penalty == -0.25f && in.spec.sampling.presence_penalty == 1.25f);
    assert_int_equal(in.spec.sampling.top_k, 7);
    assert_true(in.spec.min_tokens == 9 && in.spec.min_tokens_is_default);
    intake_fini(&in);

    Conclave__V1__Sampling s = CONCLAVE__V1__SAMPLING__INIT;
    s.has_min_tokens_case = CONCLAVE__V1__SAMPLING__HAS_MIN_TOKENS_MIN_TOKENS;
    s.min_tokens = 0;
    r.sampling = &s;
    assert_ok(intake_generate(*state, &r, &in, &err), err);
    assert_true(in.spec.min_tokens == 0 && !in.spec.min_tokens_is_default);
    intake_fini(&in);
}

static void a_model_that_does_not_sample_is_greedy_until_asked(void **state)
{
    model_config *c = (model_config *)(uintptr_t)engine_get_info(scope.engine)->config;
    generate_request r = text_request("ab");
    Conclave__V1__Sampling s = CONCLAVE__V1__SAMPLING__INIT;
    intake in;
    moe_error err;

    c->defaults.temperature = 0.0;
    assert_ok(intake_generate(*state, &r, &in, &err), err);
    assert_true(in.spec.sampling.temperature == 0.0f);
    intake_fini(&in);
    s.has_temperature_case = CONCLAVE__V1__SAMPLING__HAS_TEMPERATURE_TEMPERATURE;
    s.temperature = 0.5f;
    r.sampling = &s;
    assert_ok(intake_generate(*state, &r, &in, &err), err);
    assert_true(in.spec.sampling.temperature == 0.5f);
    intake_fini(&in);
}

static void zero_is_not_unset(void **state)
{
    generate_request r = text_request("ab");
    Conclave__V1__Sampling s = CONCLAVE__V1__SAMPLING__INIT;
    intake in;
    moe_error err;

    s.has_temperature_case = CONCLAVE__V1__SAMPLING__HAS_TEMPERATURE_TEMPERATURE;
    s.has_max_tokens_case = CONCLAVE__V1__SAMPLING__HAS_MAX_TOKENS_MAX_TOKENS;
    s.has_seed_case = CONCLAVE__V1__SAMPLING__HAS_SEED_SEED;
    s.has_logprobs_case = CONCLAVE__V1__SAMPLING__HAS_LOGPROBS_LOGPROBS;
    r.sampling = &s;
    assert_ok(intake_generate(*state, &r, &in, &err), err);
    assert_true(in.spec.sampling.temperature == 0.0f);
    assert_true(in.spec.has_max_tokens && in.spec.has_seed && in.spec.want_logprobs);
    intake_fini(&in);
}

static void messages_get_the_generation_prompt_but_not_in_score(void **state)
{
    Conclave__V1__Message m = CONCLAVE__V1__MESSAGE__INIT, *all[] = {&m};
    Conclave__V1__Messages messages = CONCLAVE__V1__MESSAGES__INIT;
    generate_request g = CONCLAVE__V1__GENERATE_REQUEST__INIT;
    score_request s = CONCLAVE__V1__SCORE_REQUEST__INIT;
    intake in;
    moe_error err;

    m.role = CONCLAVE__V1__ROLE__ROLE_USER;
    m.content = (char *)(uintptr_t) "q";
    messages.n_messages = 1;
    messages.messages = all;
    g.input_case = CONCLAVE__V1__GENERATE_REQUEST__INPUT_MESSAGES;
    g.messages = &messages;
    assert_ok(intake_generate(*state, &g, &in, &err), err);
    assert_int_equal(in.spec.n_prompt, 3);
    intake_fini(&in);
    s.input_case = CONCLAVE__V1__SCORE_REQUEST__INPUT_MESSAGES;
    s.messages = &messages;
    assert_ok(intake_score(*state, &s, &in, &err), err);
    assert_int_equal(in.spec.n_prompt, 2);
    intake_fini(&in);
}

static void tools_and_arguments_reach_the_chat_template(void **state)
{
    Conclave__V1__Message m = CONCLAVE__V1__MESSAGE__INIT, *all[] = {&m};
    Conclave__V1__Messages messages = CONCLAVE__V1__MESSAGES__INIT;
    generate_request g = CONCLAVE__V1__GENERATE_REQUEST__INIT;
    intake in;
    moe_error err;

    m.role = CONCLAVE__V1__ROLE__ROLE_TOOL;
    m.content = (char *)(uintptr_t) "q";
    messages.n_messages = 1;
    messages.messages = all;
    messages.has_tools_case = CONCLAVE__V1__MESSAGES__HAS_TOOLS_TOOLS;
    messages.tools = (char *)(uintptr_t) "[]";
    messages.has_template_args_case = CONCLAVE__V1__MESSAGES__HAS_TEMPLATE_ARGS_TEMPLATE_ARGS;
    messages.template_args = (char *)(uintptr_t) "{}";
    g.input_case = CONCLAVE__V1__GENERATE_REQUEST__INPUT_MESSAGES;
    g.messages = &messages;
    assert_ok(intake_generate(*state, &g, &in, &err), err);
    assert_int_equal(in.spec.n_prompt, 5);
    assert_int_equal(in.spec.prompt[0], 't'); /* the fake's letters: role, text, tools, arguments, prompt */
    assert_int_equal(in.spec.prompt[2], 'T');
    assert_int_equal(in.spec.prompt[3], 'A');
    intake_fini(&in);
}

static void a_role_that_does_not_exist_is_refused(void **state)
{
    Conclave__V1__Message m = CONCLAVE__V1__MESSAGE__INIT, *all[] = {&m};
    Conclave__V1__Messages messages = CONCLAVE__V1__MESSAGES__INIT;
    generate_request g = CONCLAVE__V1__GENERATE_REQUEST__INIT;
    intake in;
    moe_error err;

    m.role = (Conclave__V1__Role)6;
    messages.n_messages = 1;
    messages.messages = all;
    g.input_case = CONCLAVE__V1__GENERATE_REQUEST__INPUT_MESSAGES;
    g.messages = &messages;
    assert_int_equal(intake_generate(*state, &g, &in, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "messages[0].role: 6; known are 1 (system)");
}

static void a_known_set_is_taken(void **state)
{
    generate_request r = text_request("ab");
    Conclave__V1__ExpertSet set = CONCLAVE__V1__EXPERT_SET__INIT;
    router_set *current = engine_current_set(scope.engine);
    intake in;
    moe_error err;

    set.has_id_case = CONCLAVE__V1__EXPERT_SET__HAS_ID_ID;
    set.id = (char *)(uintptr_t)router_set_id(current);
    r.set = &set;
    assert_ok(intake_generate(*state, &r, &in, &err), err);
    assert_ptr_equal(in.spec.set, current);
    intake_fini(&in);
    router_set_unref(current);
}

static void a_bound_token_gets_its_sets_alone(void **state)
{
    static const permits base_alone = {.bound = true, .n = 1, .names = {"base"}};
    static const permits other = {.bound = true, .n = 1, .names = {"few"}};
    generate_request r = text_request("ab");
    intake in;
    moe_error err;

    (void)state;
    scope.permits = &base_alone;
    assert_ok(intake_generate(&scope, &r, &in, &err), err); /* the default set is the base */
    assert_non_null(in.spec.set);
    intake_fini(&in);
    scope.permits = &other;
    assert_int_equal(intake_generate(&scope, &r, &in, &err), MOE_ERR_DENIED);
    assert_contains(err.text, "bound to other sets");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unset_fields_take_the_defaults, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(the_models_own_defaults_come_first, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(a_model_that_does_not_sample_is_greedy_until_asked, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(zero_is_not_unset, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(messages_get_the_generation_prompt_but_not_in_score, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(tools_and_arguments_reach_the_chat_template, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(a_role_that_does_not_exist_is_refused, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(a_known_set_is_taken, open_engine, close_engine),
        cmocka_unit_test_setup_teardown(a_bound_token_gets_its_sets_alone, open_engine, close_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
