#include "api/reading_priv.h"
#include "api/grpc/work.h"

#include <stdlib.h>

typedef struct reading {
    const reading_kind *kind;
    request_scope scope;
    permits permits;           /* of its token */
    ProtobufCMessage *request; /* owned */
    intake in;
    moe_status status;
    moe_error err;
} reading;

static void run(void *state)
{
    reading *r = state;

    r->status = r->kind->take(&r->scope, r->request, &r->in, &r->err);
}

static void go_on(rpc_call *call, void *state)
{
    reading *r = state;

    if (r->status == MOE_OK) {
        r->status = r->kind->begin(call, r->request, &r->in, &r->err);
    }
    if (r->status != MOE_OK) {
        rpc_fail(call, r->status, r->err.text);
    } else if (r->kind->wake != NULL) {
        r->kind->wake(call);
    }
}

static void fini(void *state)
{
    reading *r = state;

    intake_fini(&r->in);
    rpc_free(r->request);
    free(r);
}

static const work_kind reading_work = {.run = run, .done = go_on, .fini = fini};

void reading_start(rpc_call *call, const reading_kind *kind, const uint8_t *bytes, size_t n)
{
    ProtobufCMessage *request = rpc_unpack(call, kind->type, bytes, n);
    reading *r;

    if (request == NULL) {
        return;
    }
    r = calloc(1, sizeof(*r));
    if (r == NULL) {
        rpc_free(request);
        rpc_fail(call, MOE_ERR_NO_MEMORY, "out of memory");
        return;
    }
    *r = (reading){.kind = kind,
                   .scope = {.engine = rpc_engine(call), .catalogue = rpc_catalogue(call)},
                   .permits = call->permits,
                   .request = request};
    r->scope.permits = &r->permits;
    if (n > READING_SHORT_BYTES) {
        work_begin(call, &reading_work, r, n);
        return;
    }
    run(r);
    go_on(call, r);
    fini(r);
}
