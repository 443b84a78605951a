#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    const char *at, *end;
} reader;

static _Noreturn void stop(const char *what)
{
    (void)fprintf(stderr, "tests/cuda/bare/jansson.c: %s\n", what);
    abort();
}

static void *need(void *memory)
{
    if (memory == NULL) {
        stop("no memory");
    }
    return memory;
}

static char peek(reader *r)
{
    while (r->at < r->end && strchr(" \t\r\n", *r->at) != NULL) {
        r->at++;
    }
    return r->at < r->end ? *r->at : '\0';
}

static bool take(reader *r, const char *word)
{
    size_t n = strlen(word);

    if (peek(r) != word[0] || (size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0) {
        return false;
    }
    r->at += n;
    return true;
}

static char *take_string(reader *r)
{
    if (!take(r, "\"")) {
        stop("a string was expected");
    }
    char *out = need(malloc((size_t)(r->end - r->at) + 1)), *to = out;

    for (; r->at < r->end && *r->at != '"'; r->at++) {
        if (*r->at == '\\') {
            stop("an escape, which what is written here has none of");
        }
        *to++ = *r->at;
    }
    if (r->at++ == r->end) {
        stop("a string without an end");
    }
    *to = '\0';
    return need(realloc(out, (size_t)(to - out) + 1));
}

static void take_number(reader *r, json_t *to)
{
    char text[64] = "";
    size_t n = 0;

    while (r->at < r->end && n + 1 < sizeof text && strchr("+-.eE0123456789", *r->at) != NULL) {
        text[n++] = *r->at++;
    }
    if (n == 0) {
        stop("neither a value nor a number");
    }
    to->type = strpbrk(text, ".eE") != NULL ? JSON_REAL : JSON_INTEGER;
    to->integer = strtoll(text, NULL, 10);
    to->real = strtod(text, NULL);
}

static json_t *take_value(reader *r);

static void take_children(reader *r, json_t *to, char last)
{
    json_t **link = &to->first;

    r->at++; /* the bracket */
    while (peek(r) != last) {
        char *key = NULL;

        if (to->n > 0 && !take(r, ",")) {
            stop("a comma was expected");
        }
        if (to->type == JSON_OBJECT) {
            key = take_string(r);
            if (!take(r, ":")) {
                stop("a colon was expected");
            }
        }
        *link = take_value(r);
        (*link)->key = key;
        link = &(*link)->next;
        to->n++;
    }
    r->at++;
}

static json_t *take_value(reader *r)
{
    json_t *v = need(calloc(1, sizeof *v));
    char c = peek(r);

    if (c == '{' || c == '[') {
        v->type = c == '{' ? JSON_OBJECT : JSON_ARRAY;
        take_children(r, v, c == '{' ? '}' : ']');
    } else if (c == '"') {
        v->type = JSON_STRING;
        v->text = take_string(r);
    } else if (take(r, "true")) {
        v->type = JSON_TRUE;
    } else if (take(r, "false")) {
        v->type = JSON_FALSE;
    } else if (take(r, "null")) {
        v->type = JSON_NULL;
    } else {
        take_number(r, v);
    }
    return v;
}

json_t *json_loadb(const char *text, size_t bytes, size_t flags, json_error_t *error)
{
    reader r = {text, text + bytes};
    json_t *json = take_value(&r);

    (void)flags; /* keys twice: what is written here has none */
    (void)error;
    if (peek(&r) != '\0') {
        stop("more than one value");
    }
    return json;
}

void json_decref(json_t *json)
{
    if (json == NULL) {
        return;
    }
    for (json_t *child = json->first, *next; child != NULL; child = next) {
        next = child->next;
        json_decref(child);
    }
    free(json->key);
    free(json->text);
    free(json);
}

json_t *json_object_get(const json_t *object, const char *key)
{
    for (json_t *child = json_is_object(object) ? object->first : NULL; child != NULL; child = child->next) {
        if (strcmp(child->key, key) == 0) {
            return child;
        }
    }
    return NULL;
}

json_t *json_array_get(const json_t *array, size_t i)
{
    json_t *child = json_is_array(array) ? array->first : NULL;

    while (child != NULL && i-- > 0) {
        child = child->next;
    }
    return child;
}

int json_object_del(json_t *object, const char *key)
{
    (void)object;
    stop(key);
}

char *json_dumps(const json_t *json, size_t flags)
{
    (void)json;
    (void)flags;
    stop("json_dumps");
}
