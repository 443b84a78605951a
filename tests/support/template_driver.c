/* Renders what stands on standard input, one JSON object a line: {"template", "variables", "time": [y, m, d, h, m, s]}; writes one
 * object a line: {"text", "runs"} or {"error", "at": "compile" | "render"}. runs: ends and origins, 1 for bytes of variables.
 * For tools/check_peers_templates.py, and for looking at a template by hand. */
#include "template/template.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const template_limits limits = {
    .max_steps = 20000000, .max_memory_bytes = (size_t)256 << 20, .max_output_bytes = (size_t)16 << 20};

typedef struct rendering {
    template *t;  /* of the line before: lines often share one */
    char *source; /* owned */
} rendering;

static void say_error(const char *reason, const char *at)
{
    json_t *answer = json_pack("{s:s, s:s}", "error", reason, "at", at);

    (void)json_dumpf(answer, stdout, JSON_COMPACT);
    (void)putchar('\n');
    json_decref(answer);
}

static json_t *runs_of(const template_output *out)
{
    json_t *runs = json_array();

    for (size_t i = 0; i < out->n_runs; i++) {
        (void)json_array_append_new(runs, json_pack("[I, i]", (json_int_t)out->runs[i].end, out->runs[i].origin));
    }
    return runs;
}

static void say_text(const template_output *out)
{
    json_t *answer = json_object();

    (void)json_object_set_new(answer, "text", json_stringn(out->text, out->n));
    (void)json_object_set_new(answer, "runs", runs_of(out));
    (void)json_dumpf(answer, stdout, JSON_COMPACT);
    (void)putchar('\n');
    json_decref(answer);
}

static bool read_time(const json_t *time, template_time *out)
{
    return json_array_size(time) == 6 &&
           json_unpack((json_t *)(uintptr_t)time, "[i, i, i, i, i, i]", &out->year, &out->month, &out->day, &out->hour,
                       &out->minute, &out->second) == 0;
}

static void render(const template *t, json_t *line)
{
    json_t *variables = json_object_get(line, "variables");
    template_vars *vars = NULL;
    template_time now;
    template_output out;
    moe_error err = {""};
    moe_status status = template_vars_open(&limits, &vars, &err);
    const char *name;
    json_t *v;

    json_object_foreach(variables, name, v)
    {
        template_set(vars, name, template_json(vars, v, 1));
    }
    if (status == MOE_OK) {
        status = template_render(t, vars, read_time(json_object_get(line, "time"), &now) ? &now : NULL, &out, &err);
    }
    if (status == MOE_OK) {
        say_text(&out);
    } else {
        say_error(err.text, "render");
    }
    template_vars_close(vars);
}

static void run(rendering *p, json_t *line)
{
    const char *source = json_string_value(json_object_get(line, "template"));
    moe_error err = {""};

    if (source && (!p->source || strcmp(source, p->source) != 0)) {
        template_free(p->t);
        free(p->source);
        p->t = NULL;
        p->source = strdup(source);
        if (template_compile(source, strlen(source), &p->t, &err) != MOE_OK) {
            say_error(err.text, "compile");
            free(p->source);
            p->source = NULL;
            return;
        }
    }
    if (p->t) {
        render(p->t, line);
    } else {
        say_error("no template", "compile");
    }
}

int main(void)
{
    rendering p = {NULL, NULL};
    char *text = NULL;
    size_t room = 0;

    for (ssize_t n; (n = getline(&text, &room, stdin)) > 0;) {
        json_error_t reason;
        json_t *line = json_loadb(text, (size_t)n, 0, &reason);

        if (line) {
            run(&p, line);
        } else {
            say_error(reason.text, "line");
        }
        json_decref(line);
        (void)fflush(stdout);
    }
    template_free(p.t);
    free(p.source);
    free(text);
    return 0;
}
