/* The Inference service: its method table, and the calls that need no engine request. */
#include "api/reading_priv.h"
#include "api/grpc/proto.h"
#include "api/methods_priv.h"

enum { DETOKENIZE_TEXT = 1 };

static moe_status take_tokenize(const request_scope *scope, const ProtobufCMessage *r, intake *out, moe_error *err)
{
    return intake_tokenize(scope->engine, (const tokenize_request *)r, &out->ids, &out->spec.n_prompt, err);
}

static moe_status answer_tokenize(rpc_call *call, const ProtobufCMessage *request, intake *in, moe_error *err)
{
    Conclave__V1__TokenizeResponse m = CONCLAVE__V1__TOKENIZE_RESPONSE__INIT;

    (void)request, (void)err;
    m.ids = in->ids;
    m.n_ids = in->spec.n_prompt;
    rpc_finish_ok(call, &m.base);
    return MOE_OK;
}

static void tokenize_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    static const reading_kind kind = {&conclave__v1__tokenize_request__descriptor, take_tokenize, answer_tokenize,
                                      NULL};

    reading_start(call, &kind, bytes, n);
}

static void detokenize_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &conclave__v1__detokenize_request__descriptor, bytes, n);
    moe_text text, out;
    moe_error err;

    if (r == NULL) {
        return;
    }
    moe_text_init(&text, RPC_MAX_REPLY_BYTES);
    moe_text_init(&out, RPC_MAX_REPLY_BYTES + 16);
    moe_status status = intake_detokenize(rpc_engine(call), (const detokenize_request *)r, &text, &err);
    rpc_free(r);
    if (status == MOE_OK && text.size > 0) {
        proto_put_bytes(&out, DETOKENIZE_TEXT, text.data, text.size);
    }
    if (status == MOE_OK && out.failed) {
        status = moe_fail(&err, MOE_ERR_NO_MEMORY, "out of memory");
    }
    if (status != MOE_OK) {
        rpc_fail(call, status, err.text);
    } else {
        rpc_finish_bytes(call, out.data, out.size);
    }
    moe_text_fini(&text);
    moe_text_fini(&out);
}

static void set_default_sampling(const model_config *c, Conclave__V1__SamplingDefaults *out)
{
    sampling_params p;

    intake_default_sampling(c, &p);
    out->temperature = p.temperature;
    out->top_k = (uint32_t)p.top_k;
    out->top_p = p.top_p;
    out->min_p = p.min_p;
    out->repetition_penalty = p.repetition_penalty;
    out->frequency_penalty = p.frequency_penalty;
    out->presence_penalty = p.presence_penalty;
}

static void model_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &conclave__v1__get_model_request__descriptor, bytes, n);
    const engine_info *info = engine_get_info(rpc_engine(call));
    const model_config *c = info->config;
    Conclave__V1__GetModelResponse m = CONCLAVE__V1__GET_MODEL_RESPONSE__INIT;
    Conclave__V1__SamplingDefaults defaults = CONCLAVE__V1__SAMPLING_DEFAULTS__INIT;
    uint32_t n_experts[MODEL_MAX_LAYERS];

    if (r == NULL) {
        return;
    }
    rpc_free(r);
    router_set *set = engine_current_set(rpc_engine(call));
    m.n_n_experts = MOE_MIN(router_set_n_layers(set), MODEL_MAX_LAYERS);
    for (size_t i = 0; i < m.n_n_experts; i++) {
        n_experts[i] = router_set_at(set, i)->n_experts;
    }
    m.n_experts = n_experts;
    m.base_set_id = (char *)(uintptr_t)router_set_id(set);
    m.name = (char *)(uintptr_t)rpc_model_name(call);
    m.family = (char *)(uintptr_t)c->model_type;
    m.fingerprint = (char *)(uintptr_t)info->fingerprint;
    m.numeric_class = (char *)(uintptr_t)compute_class_name(info->numeric_class);
    m.n_layers = c->n_layers;
    m.d_model = c->d_model;
    m.vocab_size = c->vocab_size;
    m.experts_per_token = c->gate.k;
    m.max_context = (uint32_t)MOE_MIN((size_t)info->max_context, info->kv_capacity_tokens);
    m.default_max_tokens = info->default_max_tokens;
    m.eos_token_ids = (int32_t *)(uintptr_t)c->eos_ids;
    m.n_eos_token_ids = c->n_eos;
    m.has_tokenizer = info->tokenizer != NULL;
    m.chat_template =
        info->tokenizer == NULL ? m.chat_template : (char *)(uintptr_t)tokenizer_chat_name(info->tokenizer);
    m.version = (char *)(uintptr_t)MOE_VERSION;
    m.has_classifier = c->n_labels > 0;
    m.n_classes = c->n_labels;
    m.labels = rpc_labels(call, &m.n_labels);
    m.attention = (char *)(uintptr_t)(c->attention == MODEL_ATTENTION_STICK_BREAKING ? "stick-breaking" : "softmax");
    m.n_ffn_experts = c->n_ffn_experts;
    set_default_sampling(c, &defaults);
    m.default_sampling = &defaults;
    rpc_finish_ok(call, &m.base);
    router_set_unref(set);
}

#define INFERENCE(name) "/conclave.v1.Inference/" name, .service = API_SERVE_INFERENCE, .needs_token = true

const rpc_method inference_methods[] = {
    {INFERENCE("Generate"), .works = true, .start = generate_start, .wake = generate_wake, .poll = generate_poll,
     .stop = generate_stop, .fini = generate_fini},
    {INFERENCE("Complete"), .works = true, .start = complete_start, .wake = generate_wake, .fini = generate_fini},
    {INFERENCE("Score"), .works = true, .start = score_start, .wake = score_wake, .fini = score_fini},
    {INFERENCE("Classify"), .works = true, .start = classify_start, .wake = classify_wake, .fini = classify_fini},
    {INFERENCE("Tokenize"), .start = tokenize_start},
    {INFERENCE("Detokenize"), .start = detokenize_start},
    {INFERENCE("GetModel"), .start = model_start},
};
const size_t n_inference_methods = MOE_COUNT(inference_methods);
