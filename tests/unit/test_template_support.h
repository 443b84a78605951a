/* What the tests of chat templates share: a template, variables as JSON, what comes out. */
#ifndef CONCLAVE_TEST_TEMPLATE_SUPPORT_H
#define CONCLAVE_TEST_TEMPLATE_SUPPORT_H

#include "template/template.h"
#include "tests/support/support.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const template_limits plenty = {
    .max_steps = 1000000, .max_memory_bytes = (size_t)64 << 20, .max_output_bytes = (size_t)1 << 20};

typedef struct rendering {
    template *t;
    json_t *json;
    template_vars *vars;
    template_output out;
    moe_error err;
} rendering;

/* Renders source with variables (a JSON object; their bytes have origin 1) within limits. render_free in the end. */
static inline moe_status render_within(rendering *r, const char *source, const char *variables,
                                       const template_limits *limits)
{
    const template_time now = {2026, 3, 7, 9, 5, 3};
    moe_status status;
    const char *name;
    json_t *v;

    *r = (rendering){.json = json_loads(variables, 0, NULL)};
    assert_non_null(r->json);
    status = template_compile(source, strlen(source), &r->t, &r->err);
    if (status != MOE_OK) {
        return status;
    }
    assert_ok(template_vars_open(limits, &r->vars, &r->err), r->err);
    json_object_foreach(r->json, name, v)
    {
        template_set(r->vars, name, template_json(r->vars, v, 1));
    }
    return template_render(r->t, r->vars, &now, &r->out, &r->err);
}

static inline void render_free(rendering *r)
{
    template_vars_close(r->vars);
    template_free(r->t);
    json_decref(r->json);
}

static inline void assert_renders(const char *source, const char *variables, const char *expected)
{
    rendering r;

    assert_ok(render_within(&r, source, variables, &plenty), r.err);
    assert_int_equal(r.out.n, strlen(expected));
    assert_memory_equal(r.out.text, expected, r.out.n);
    render_free(&r);
}

static inline void assert_fails(const char *source, const char *variables, const template_limits *limits,
                                moe_status status, const char *reason)
{
    rendering r;

    assert_int_equal(render_within(&r, source, variables, limits), status);
    assert_contains(r.err.text, reason);
    render_free(&r);
}
#endif
