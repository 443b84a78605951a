/* Server reflection, v1 and v1alpha: the same bytes under two names. Errors travel inside the stream. */
#include "api/grpc/descriptors_priv.h"
#include "api/grpc/rpc.h"
#include "grpc/reflection/v1/reflection.pb-c.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_reply;

static void fill_error(reflection_reply *m, Grpc__Reflection__V1__ErrorResponse *e, grpc_status_code code,
                       const char *text)
{
    grpc__reflection__v1__error_response__init(e);
    e->error_code = (int32_t)code;
    e->error_message = (char *)(uintptr_t)text;
    m->message_response_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    m->error_response = e;
}

static void reply_error(rpc_call *call, reflection_reply *m, grpc_status_code code, const char *text)
{
    Grpc__Reflection__V1__ErrorResponse e;

    fill_error(m, &e, code, text);
    rpc_send(call, &m->base);
}

static void reply_files(rpc_call *call, reflection_reply *m, const descriptors_file *files, size_t n)
{
    Grpc__Reflection__V1__FileDescriptorResponse r = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    ProtobufCBinaryData data[DESCRIPTORS_MAX_FILES];

    if (n == 0) {
        reply_error(call, m, GRPC_STATUS_NOT_FOUND, "not found");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        data[i] = (ProtobufCBinaryData){.len = files[i].n_bytes, .data = (uint8_t *)(uintptr_t)files[i].bytes};
    }
    r.n_file_descriptor_proto = n;
    r.file_descriptor_proto = data;
    m->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    m->file_descriptor_response = &r;
    rpc_send(call, &m->base);
}

static void reply_services(rpc_call *call, reflection_reply *m)
{
    static const struct {
        const char *name;
        unsigned service;
    } all[] = {{"conclave.v1.Inference", API_SERVE_INFERENCE},
               {"conclave.v1.Admin", API_SERVE_ADMIN},
               {"grpc.health.v1.Health", 0},
               {"grpc.reflection.v1.ServerReflection", 0},
               {"grpc.reflection.v1alpha.ServerReflection", 0}};
    Grpc__Reflection__V1__ListServiceResponse r = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServiceResponse services[MOE_COUNT(all)], *pointers[MOE_COUNT(all)];

    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if (all[i].service != 0 && (all[i].service & rpc_services(call)) == 0) {
            continue;
        }
        grpc__reflection__v1__service_response__init(&services[i]);
        services[i].name = (char *)(uintptr_t)all[i].name;
        pointers[r.n_service++] = &services[i];
    }
    r.service = pointers;
    m->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    m->list_services_response = &r;
    rpc_send(call, &m->base);
}

/* proto3 messages have no extensions: the list of a message that is known is empty. */
static void reply_extensions(rpc_call *call, reflection_reply *m, const char *type)
{
    Grpc__Reflection__V1__ExtensionNumberResponse r = GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;

    if (!descriptors_is_message(rpc_descriptors(call), type)) {
        reply_error(call, m, GRPC_STATUS_NOT_FOUND, "not found");
        return;
    }
    r.base_type_name = (char *)(uintptr_t)type;
    m->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    m->all_extension_numbers_response = &r;
    rpc_send(call, &m->base);
}

static void reply(rpc_call *call, reflection_request *r)
{
    reflection_reply m = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    descriptors_file files[DESCRIPTORS_MAX_FILES];

    m.valid_host = r->host;
    m.original_request = r;
    switch (r->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        reply_files(call, &m, files, descriptors_by_name(rpc_descriptors(call), r->file_by_filename, files));
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        reply_files(call, &m, files, descriptors_by_symbol(rpc_descriptors(call), r->file_containing_symbol, files));
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        reply_error(call, &m, GRPC_STATUS_NOT_FOUND, "not found");
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        reply_extensions(call, &m, r->all_extension_numbers_of_type);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        reply_services(call, &m);
        break;
    default:
        reply_error(call, &m, GRPC_STATUS_INVALID_ARGUMENT, "message_request: nothing that is known is set");
        break;
    }
}

static void start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &grpc__reflection__v1__server_reflection_request__descriptor, bytes, n);

    if (r != NULL) {
        reply(call, (reflection_request *)r);
        rpc_free(r);
    }
}

/* One question at a time: the next is read when the answer has left. */
static void wake(rpc_call *call)
{
    rpc_receive(call);
}

static void poll(rpc_call *call, uint64_t now_ns)
{
    (void)now_ns;
    if (rpc_draining(call)) {
        rpc_fail(call, MOE_ERR_UNAVAILABLE, "the server is draining");
    }
}

#define REFLECTION                                                                                                     \
    .needs_token = true, .watch = true, .client_streams = true, .start = start, .wake = wake, .poll = poll

const rpc_method reflection_methods[] = {
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", REFLECTION},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", REFLECTION},
};
const size_t n_reflection_methods = MOE_COUNT(reflection_methods);
