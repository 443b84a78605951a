/* Bytes of a client: unpacked within a budget, checked, and made into what the engine gets; and packed again to what
 * unpacks. The first byte picks the message and the engine. */
#include "conclave/v1/admin.pb-c.h"
#include "api/intake_priv.h"
#include "api/lists_priv.h"
#include "api/grpc/proto.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "tests/support/fake_engine.h"

#include <stdlib.h>
#include <string.h>

static void check_spec(const engine_spec *spec)
{
    MOE_ASSERT(spec->n_prompt >= 1 && spec->n_prompt <= FAKE_MAX_CONTEXT);
    MOE_ASSERT(spec->n_choices >= 1 && spec->n_choices <= ENGINE_MAX_CHOICES);
    MOE_ASSERT(spec->n_top <= SAMPLING_MAX_TOP_LOGPROBS && spec->n_stop <= ENGINE_MAX_STOP_STRINGS &&
               spec->n_stop_ids <= ENGINE_MAX_STOP_IDS);
    MOE_ASSERT(spec->sampling.temperature >= 0 && spec->sampling.top_p > 0 && spec->sampling.top_p <= 1);
    for (size_t i = 0; i < spec->n_prompt; i++) {
        MOE_ASSERT(spec->prompt[i] >= 0 && spec->prompt[i] < FAKE_VOCAB);
    }
    for (size_t i = 0; i < spec->n_stop; i++) {
        MOE_ASSERT(spec->stop[i][0] != '\0');
    }
}

static void take_lists(const request_scope *scope, const Conclave__V1__DefineSetRequest *m)
{
    catalogue *c = scope->catalogue->current(scope->catalogue->ctx), *next = NULL;
    catalogue_change change = {.op = CATALOGUE_DEFINE,
                               .word = m->name,
                               .include = (const char *const *)m->include,
                               .n_include = m->n_include,
                               .exclude = (const char *const *)m->exclude,
                               .n_exclude = m->n_exclude};
    catalogue_expert *experts = NULL;
    moe_error err = {""};

    if (expert_lists_take(m->experts, m->n_experts, FAKE_LAYERS * FAKE_EXPERTS, &experts, &change.n_experts, &err) ==
        MOE_OK) {
        change.experts = experts;
        MOE_ASSERT(catalogue_begin(c, &change, &next, &err) == MOE_OK || err.text[0] != '\0');
    }
    catalogue_unref(next);
    catalogue_unref(c);
    free(experts);
}

static void take(const request_scope *scope, unsigned kind, const ProtobufCMessage *m)
{
    engine *e = scope->engine;
    moe_error err;
    intake in;
    moe_text text;
    int32_t *ids;
    size_t n;

    if (kind == 0 && intake_generate(scope, (const generate_request *)m, &in, &err) == MOE_OK) {
        check_spec(&in.spec);
        intake_fini(&in);
    } else if (kind == 1 && intake_score(scope, (const score_request *)m, &in, &err) == MOE_OK) {
        check_spec(&in.spec);
        intake_fini(&in);
    } else if (kind == 2 && intake_tokenize(e, (const tokenize_request *)m, &ids, &n, &err) == MOE_OK) {
        free(ids);
    } else if (kind == 3) {
        moe_text_init(&text, 1 << 20);
        if (intake_detokenize(e, (const detokenize_request *)m, &text, &err) == MOE_OK) {
            MOE_ASSERT(moe_utf8_valid_prefix(moe_text_cstr(&text), text.size) == text.size);
        }
        moe_text_fini(&text);
    } else if (kind == 8) {
        take_lists(scope, (const Conclave__V1__DefineSetRequest *)m);
    } else if (kind == 4 && intake_classify(scope, (const classify_request *)m, &in, &err) == MOE_OK) {
        check_spec(&in.spec);
        intake_fini(&in);
    }
}

/* What was let in can be sent on, and a nested message is its bytes. */
static void repack(const ProtobufCMessage *m)
{
    ProtobufCMessage *again;
    moe_text packed, nested, expected;
    moe_error err = {.text = ""};

    moe_text_init(&packed, 1 << 22);
    moe_text_init(&nested, 1 << 22);
    moe_text_init(&expected, 1 << 22);
    proto_put_fields(&packed, m);
    proto_put_message(&nested, 300, m);
    proto_put_bytes(&expected, 300, moe_text_cstr(&packed), packed.size);
    MOE_ASSERT(!packed.failed && nested.size == expected.size && memcmp(nested.data, expected.data, nested.size) == 0);
    if (proto_unpack(m->descriptor, (const uint8_t *)moe_text_cstr(&packed), packed.size, &again, &err) != MOE_OK) {
        moe_assert_failed(err.text, __FILE__, __LINE__);
    }
    proto_free(again);
    moe_text_fini(&packed);
    moe_text_fini(&nested);
    moe_text_fini(&expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &conclave__v1__generate_request__descriptor,
        &conclave__v1__score_request__descriptor,
        &conclave__v1__tokenize_request__descriptor,
        &conclave__v1__detokenize_request__descriptor,
        &conclave__v1__classify_request__descriptor,
        &conclave__v1__list_experts_request__descriptor,
        &grpc__reflection__v1__server_reflection_request__descriptor,
        &conclave__v1__prune_experts_request__descriptor,
        &conclave__v1__define_set_request__descriptor,
        &conclave__v1__update_pack_request__descriptor,
        &conclave__v1__list_sets_request__descriptor,
        &conclave__v1__diff_sets_request__descriptor,
    };
    static const fake_options options[] = {{.no_tokenizer = false}, {.no_tokenizer = true}, {.no_chat = true}};
    static engine *engines[MOE_COUNT(options)];
    static registry *registries[MOE_COUNT(options)];
    static const permits bound = {.bound = true, .n = 1, .names = {"base"}};
    ProtobufCMessage *m;
    moe_error err;

    if (size == 0) {
        return 0;
    }
    unsigned kind = data[0] % MOE_COUNT(types), which = data[0] / MOE_COUNT(types) % MOE_COUNT(options);
    if (engines[which] == NULL) {
        engines[which] = fake_engine_open(&options[which]);
        registries[which] = fake_registry_open(engines[which], NULL, NULL);
    }
    /* The engine without chat template serves a token that is bound to a set. */
    const request_scope scope = {.engine = engines[which],
                                 .catalogue = registry_table(registries[which]),
                                 .permits = options[which].no_chat ? &bound : NULL};
    if (proto_unpack(types[kind], data + 1, size - 1, &m, &err) == MOE_OK) {
        take(&scope, kind, m);
        repack(m);
        proto_free(m);
    }
    return 0;
}
