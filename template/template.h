/* template: chat templates, the subset of Jinja that tokenizer_config.json and chat_template.jinja files use.
 *
 * Nouns:
 *   template        a compiled template; immutable, any number of threads render it at once
 *   template_vars   the variables of one rendering, and all memory that the rendering takes; one thread
 *   template_value  one of those variables; lives as long as its template_vars
 *
 * What comes out is byte for byte what jinja2 gives in the environment of `transformers`: an immutable sandbox with
 * trim_blocks, lstrip_blocks, the loop controls (break, continue) and {% generation %}; tojson as it is there (no HTML
 * escapes); an undefined variable prints as nothing, an attribute of one is an error. Words, filters, tests and calls that
 * are not known are refused when the template is compiled, by name (an unknown filter or test within a branch: when the
 * branch is taken). Different on purpose: integers have 64 bits and
 * overflow is an error, and everything is bounded (template_limits).
 *
 * Origins: every byte that comes out carries a small number that says where it comes from. The template's own text has
 * origin 0, a variable's text the origin that it was given; it is kept through +, slices, filters, methods and tojson. So
 * the caller can tell what a user typed from what the template wrote.
 *
 * Pure: no files, no clock; the time for strftime_now is passed in.
 * Source: Jinja 3.1's documentation and behaviour; transformers' apply_chat_template. */
#ifndef CONCLAVE_TEMPLATE_H
#define CONCLAVE_TEMPLATE_H

#include "base/base.h"

typedef struct template template;
typedef struct template_vars template_vars;
typedef struct template_value template_value;

#define TEMPLATE_MAX_SOURCE ((size_t)1 << 20) /* bytes of a template; the longest published one has 30 KB */

/* Compiles source (UTF-8, n bytes, copied).
 * Errors: MOE_ERR_CORRUPT with line and reason where Jinja would refuse it, too; MOE_ERR_UNSUPPORTED with line and name for
 * what Jinja knows and this does not ("line 3: the filter 'xmlattr' is not known"); MOE_ERR_NO_MEMORY. */
MOE_NODISCARD moe_status template_compile(const char *source, size_t n, template **out, moe_error *err);
void template_free(template *t);

/* Bounds of one rendering. */
typedef struct template_limits {
    size_t max_steps;        /* nodes evaluated, plus one for every 64 bytes or items touched */
    size_t max_memory_bytes; /* variables included, borrowed text not */
    size_t max_output_bytes; /* of the result, and of any string on the way */
} template_limits;

MOE_NODISCARD moe_status template_vars_open(const template_limits *limits, template_vars **out, moe_error *err);
void template_vars_close(template_vars *vars);

/* Values. NULL: out of memory or over max_memory_bytes, which template_render reports; a NULL may be passed on to the
 * functions below, which then do nothing. Text must be UTF-8 and is borrowed until close. */
template_value *template_none(template_vars *vars);
template_value *template_bool(template_vars *vars, bool value);
template_value *template_text(template_vars *vars, const char *bytes, size_t n, uint8_t origin);
template_value *template_list(template_vars *vars);
template_value *template_dict(template_vars *vars);
void template_list_add(template_vars *vars, template_value *list, const template_value *value);
void template_dict_set(template_vars *vars, template_value *dict, const char *key, const template_value *value);
/* Keys and strings get the origin. json is borrowed until close; integers that came as reals stay reals. */
template_value *template_json(template_vars *vars, const moe_json *json, uint8_t origin);
/* Names a variable for the template; a second value for a name replaces the first. name is copied. */
void template_set(template_vars *vars, const char *name, const template_value *value);

/* What strftime_now formats; month and day from 1. */
typedef struct template_time {
    int year, month, day, hour, minute, second;
} template_time;

/* The bytes from the run before (or 0) to end have this origin. */
typedef struct template_run {
    size_t end;
    uint8_t origin;
} template_run;

typedef struct template_output {
    const char *text; /* borrowed from vars */
    size_t n;
    const template_run
        *runs; /* borrowed from vars; neighbours differ; the last one ends at n; none for an empty text */
    size_t n_runs;
} template_output;

/* Renders. now NULL: strftime_now is an error. vars serve one rendering.
 * Errors: MOE_ERR_INVALID_ARG: with line and reason where Jinja raises and where a bound is hit (no memory counts as that
 * of memory), with the text alone where the template calls raise_exception. */
MOE_NODISCARD moe_status template_render(const template *t, template_vars *vars, const template_time *now,
                                         template_output *out, moe_error *err);
#endif
