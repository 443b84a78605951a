/* A chat template, a NUL, and its variables as JSON: it compiles or says why not; it renders to the same UTF-8 twice, or
 * says why not; bytes that only a variable can have brought are marked as such. */
#include "template/template.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MARK "\xee\x80\x80" /* U+E000, in variables alone */

/* Enough for any construction, little enough for a fast loop. */
static const template_limits limits = {
    .max_steps = 100000, .max_memory_bytes = (size_t)16 << 20, .max_output_bytes = (size_t)64 << 10};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Without escapes and formats a template cannot write the mark itself. */
static bool can_write_mark(const char *source, size_t n)
{
    return memchr(source, '\\', n) || memchr(source, '%', n) || memmem(source, n, "format", 6) ||
           memmem(source, n, MARK, 3);
}

static void check_runs(const template_output *out)
{
    size_t begin = 0;

    for (size_t i = 0; i < out->n_runs; i++) {
        MOE_ASSERT(out->runs[i].end > begin && out->runs[i].end <= out->n);
        MOE_ASSERT(i == 0 || out->runs[i].origin != out->runs[i - 1].origin);
        MOE_ASSERT(out->runs[i].origin <= 1);
        begin = out->runs[i].end;
    }
    MOE_ASSERT(begin == out->n);
}

static void check_marks(const template_output *out)
{
    size_t begin = 0;

    for (size_t i = 0; i < out->n_runs; begin = out->runs[i++].end) {
        MOE_ASSERT(out->runs[i].origin == 1 || !memmem(out->text + begin, out->runs[i].end - begin, MARK, 3));
    }
}

static void set_variables(template_vars *vars, json_t *variables)
{
    const char *name;
    json_t *v;

    template_set(vars, "mark", template_text(vars, MARK "x y\n", 7, 1));
    json_object_foreach(variables, name, v)
    {
        template_set(vars, name, template_json(vars, v, 1));
    }
}

static void check(const template *t, json_t *variables, bool marks)
{
    static const template_time now = {2026, 3, 7, 9, 5, 3};
    template_vars *vars[2] = {NULL, NULL};
    template_output out[2];
    moe_error err = {""};
    moe_status status[2];

    for (int i = 0; i < 2; i++) {
        MOE_ASSERT(template_vars_open(&limits, &vars[i], NULL) == MOE_OK);
        set_variables(vars[i], variables);
        status[i] = template_render(t, vars[i], &now, &out[i], &err);
    }
    MOE_ASSERT(status[0] == status[1]);
    if (status[0] == MOE_OK) {
        MOE_ASSERT(out[0].n == out[1].n && memcmp(out[0].text, out[1].text, out[0].n) == 0);
        MOE_ASSERT(moe_utf8_valid_prefix(out[0].text, out[0].n) == out[0].n);
        check_runs(&out[0]);
        if (marks) {
            check_marks(&out[0]);
        }
    } else {
        MOE_ASSERT(moe_utf8_valid_prefix(err.text, strlen(err.text)) == strlen(err.text));
    }
    template_vars_close(vars[0]);
    template_vars_close(vars[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *source = (const char *)data, *nul = size ? memchr(data, 0, size) : NULL;
    const size_t n = nul ? (size_t)(nul - source) : size;
    json_t *variables = nul ? json_loadb(nul + 1, size - n - 1, 0, NULL) : NULL;
    template *t = NULL;
    moe_error err = {""};

    if (template_compile(source, n, &t, &err) == MOE_OK) {
        check(t, variables, !can_write_mark(source, n));
    } else {
        MOE_ASSERT(err.text[0] != '\0');
    }
    template_free(t);
    json_decref(variables);
    return 0;
}
