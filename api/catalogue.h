/* How a program lets the API see its catalogue, and ask for changes. The API knows neither files nor a cluster; ledger.c of
 * coordinator/ fills the table.
 *
 * Threads: all may be called from any thread. */
#ifndef CONCLAVE_API_CATALOGUE_H
#define CONCLAVE_API_CATALOGUE_H

#include "base/base.h"
#include "catalogue/catalogue.h"
#include "engine/engine.h"

/* What somebody asks for. Borrowed for the call. */
typedef struct api_ask {
    catalogue_change change; /* its times and its pack are the program's to fill in */
    const char *pack;        /* ADD, UPDATE: the new pack: a word for one that the program knows, or a directory */
    uint32_t timeout_ms;     /* 0: the program's */
    bool dry_run;
} api_ask;

/* How a change stands. */
typedef struct api_told {
    bool ended;
    moe_status status; /* when it has ended */
    moe_error error;
    const char *phase;    /* static storage */
    uint64_t done, total; /* total 0: not known */
    /* Once it has ended with MOE_OK: the catalogue before it, and the one in which it was pending (of FORGET: done). Borrowed
     * until the ticket is given back. */
    const catalogue *before, *plan;
} api_told;

#define API_MAX_OFFERS 64
/* A pack that could be added, and its place. */
typedef struct api_offer {
    catalogue_pack pack; /* its layers may be NULL */
    char source[256];
} api_offer;

/* What scoring delivered answers again has shown of the set on trial (catalogue_shadow), beside the default. */
typedef struct api_compared {
    uint64_t requests, tokens; /* compared */
    uint64_t dropped;          /* requests of the share for which there was no room or no time */
    double mean;  /* by how much the log-probability of a delivered token is higher under the set on trial */
    double error; /* of that, its standard error over the requests; of one request there is none */
    bool has_error;
} api_compared;

typedef struct api_catalogue {
    /* The catalogue as it is: catalogue_unref. Never blocks for long. */
    catalogue *(*current)(void *ctx);
    /* A set of a request, which lives from now on until nobody refers to it any more. *out is referenced, and one object for
     * all requests with such a set. Errors: MOE_ERR_BUSY: CATALOGUE_MAX_SETS live; MOE_ERR_NOT_FOUND: an expert of it need not
     * be loaded. */
    moe_status (*hold)(void *ctx, router_set *set, router_set **out, moe_error *err);
    /* A set that lives, by its id. Referenced; NULL: there is none. */
    router_set *(*find)(void *ctx, const char *id);
    /* Asks for a change, which is done in its turn. *ticket is given back by leave. Errors: MOE_ERR_BUSY: too many wait;
     * MOE_ERR_UNSUPPORTED. */
    moe_status (*ask)(void *ctx, const api_ask *ask, void **ticket, moe_error *err);
    void (*look)(void *ctx, void *ticket, api_told *out);
    void (*leave)(void *ctx, void *ticket);
    /* Packs that could be added; copies up to `max` of them and returns how many there are. */
    size_t (*offers)(void *ctx, api_offer *out, size_t max);
    /* A request has ended well, and all its tokens were handed over: with a pack on trial it may be scored again. Never waits. */
    void (*delivered)(void *ctx, const engine_request *r);
    void (*compared)(void *ctx, api_compared *out);
    void *ctx;
} api_catalogue;

#endif
