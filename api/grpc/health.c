/* grpc.health.v1.Health. The server and its Inference service serve while the engine is ready; the Admin service
 * serves from the end of the load until the drain. Probes carry no token. */
#include "api/grpc/rpc.h"
#include "grpc/health/v1/health.pb-c.h"

#include <stdlib.h>
#include <string.h>

typedef Grpc__Health__V1__HealthCheckRequest health_request;
typedef Grpc__Health__V1__HealthCheckResponse health_reply;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving;

#define SERVING         GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

typedef enum { HEALTH_INFERENCE, HEALTH_ADMIN, HEALTH_UNKNOWN } health_subject;

/* A listener for health alone tells of services that are on others. */
static bool tells_of(const rpc_call *call, unsigned service)
{
    return (rpc_services(call) & (service | API_SERVE_HEALTH)) != 0;
}

static health_subject subject_of(const rpc_call *call, const char *service)
{
    if (service[0] == '\0') {
        return tells_of(call, API_SERVE_INFERENCE) ? HEALTH_INFERENCE : HEALTH_ADMIN;
    }
    if (strcmp(service, "conclave.v1.Inference") == 0 && tells_of(call, API_SERVE_INFERENCE)) {
        return HEALTH_INFERENCE;
    }
    if (strcmp(service, "conclave.v1.Admin") == 0 && tells_of(call, API_SERVE_ADMIN)) {
        return HEALTH_ADMIN;
    }
    return HEALTH_UNKNOWN;
}

static serving state_of(const rpc_call *call, health_subject subject)
{
    if (subject == HEALTH_UNKNOWN) {
        return SERVICE_UNKNOWN;
    }
    return (subject == HEALTH_ADMIN ? rpc_loaded(call) && !rpc_leaving(call) : rpc_ready(call)) ? SERVING : NOT_SERVING;
}

/* ------------------------------------------------------------------------------------------------ check */
static void check_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &grpc__health__v1__health_check_request__descriptor, bytes, n);
    health_reply m = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    if (r == NULL) {
        return;
    }
    health_subject subject = subject_of(call, ((const health_request *)r)->service);
    rpc_free(r);
    if (subject == HEALTH_UNKNOWN) {
        rpc_fail(call, MOE_ERR_NOT_FOUND, "service: unknown");
        return;
    }
    m.status = state_of(call, subject);
    rpc_finish_ok(call, &m.base);
}

/* ------------------------------------------------------------------------------------------------ watch */
typedef struct health_watch {
    health_subject subject;
    bool told;
    serving last;
} health_watch;

/* A drain sends NOT_SERVING first and ends the stream with the next turn: an open watch would hold the shutdown. */
static void watch_poll(rpc_call *call, uint64_t now_ns)
{
    health_watch *w = call->state;
    health_reply m = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    (void)now_ns;
    if (w == NULL || call->sending) {
        return;
    }
    m.status = state_of(call, w->subject);
    if (!w->told || m.status != w->last) {
        w->told = true;
        w->last = m.status;
        rpc_send(call, &m.base);
    } else if (rpc_draining(call)) {
        rpc_fail(call, MOE_ERR_UNAVAILABLE, "the server is draining");
    }
}

static void watch_start(rpc_call *call, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *r = rpc_unpack(call, &grpc__health__v1__health_check_request__descriptor, bytes, n);

    if (r == NULL) {
        return;
    }
    health_watch *w = calloc(1, sizeof(*w));
    if (w != NULL) {
        w->subject = subject_of(call, ((const health_request *)r)->service);
        call->state = w;
        watch_poll(call, 0);
    } else {
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
    }
    rpc_free(r);
}

static void watch_fini(rpc_call *call)
{
    free(call->state);
}

const rpc_method health_methods[] = {
    {"/grpc.health.v1.Health/Check", .start = check_start},
    {"/grpc.health.v1.Health/Watch", .watch = true, .start = watch_start, .poll = watch_poll, .fini = watch_fini},
};
const size_t n_health_methods = MOE_COUNT(health_methods);
