/* What the way of a token uses of jansson, for a machine that has nothing but compilers (tools/gpu_check.sh): a reader of the JSON
 * that tests and benchmarks write themselves. It refuses what jansson refuses by ending the process; it is no parser for files of others.
 * What only other ways use ends the process too. */
#ifndef CONCLAVE_TESTS_CUDA_BARE_JANSSON_H
#define CONCLAVE_TESTS_CUDA_BARE_JANSSON_H

#include <stdbool.h>
#include <stddef.h>

typedef enum {
    JSON_OBJECT,
    JSON_ARRAY,
    JSON_STRING,
    JSON_INTEGER,
    JSON_REAL,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL
} json_type;
typedef long long json_int_t;
#define JSON_INTEGER_FORMAT "lld"

typedef struct json_t json_t;
struct json_t {
    json_type type;
    char *key;          /* owned; of a member of an object */
    char *text;         /* owned; of a string */
    json_int_t integer; /* of an integer */
    double real;        /* of any number */
    json_t *first, *next;
    size_t n; /* members, items */
};

typedef struct json_error_t {
    int line;
    const char *text;
} json_error_t;

#define JSON_REJECT_DUPLICATES 1
json_t *json_loadb(const char *text, size_t bytes, size_t flags, json_error_t *error);
void json_decref(json_t *json);
json_t *json_object_get(const json_t *object, const char *key);
int json_object_del(json_t *object, const char *key);
json_t *json_array_get(const json_t *array, size_t i);

#define JSON_COMPACT           0
#define JSON_ENCODE_ANY        0
#define JSON_REAL_PRECISION(n) 0
char *json_dumps(const json_t *json, size_t flags);

#define json_typeof(json)     ((json)->type)
#define json_is_object(json)  ((json) != NULL && (json)->type == JSON_OBJECT)
#define json_is_array(json)   ((json) != NULL && (json)->type == JSON_ARRAY)
#define json_is_string(json)  ((json) != NULL && (json)->type == JSON_STRING)
#define json_is_integer(json) ((json) != NULL && (json)->type == JSON_INTEGER)
#define json_is_real(json)    ((json) != NULL && (json)->type == JSON_REAL)
#define json_is_number(json)  (json_is_integer(json) || json_is_real(json))
#define json_is_true(json)    ((json) != NULL && (json)->type == JSON_TRUE)
#define json_is_boolean(json) ((json) != NULL && ((json)->type == JSON_TRUE || (json)->type == JSON_FALSE))
#define json_is_null(json)    ((json) != NULL && (json)->type == JSON_NULL)

#define json_object_foreach(object, name, value)                                                                       \
    for (json_t *bare_at = (object)->first; bare_at != NULL && ((name) = bare_at->key, (value) = bare_at, true);       \
         bare_at = bare_at->next)

static inline size_t json_object_size(const json_t *json)
{
    return json_is_object(json) ? json->n : 0;
}
static inline size_t json_array_size(const json_t *json)
{
    return json_is_array(json) ? json->n : 0;
}
static inline const char *json_string_value(const json_t *json)
{
    return json_is_string(json) ? json->text : NULL;
}
static inline json_int_t json_integer_value(const json_t *json)
{
    return json_is_integer(json) ? json->integer : 0;
}
static inline double json_real_value(const json_t *json)
{
    return json_is_real(json) ? json->real : 0.0;
}
static inline double json_number_value(const json_t *json)
{
    return json_is_number(json) ? json->real : 0.0;
}

#endif
