#include "coordinator/labels.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES (1u << 20)
#define MAX_DEPTH        32
#define MAX_LABEL_BYTES  256

void labels_free(char **labels, uint32_t n_labels)
{
    for (uint32_t i = 0; labels != NULL && i < n_labels; i++) {
        free(labels[i]);
    }
    free(labels);
}

/* JSON text is UTF-8, but may hold a NUL, which a string of the API cannot. */
static char *copy_label(const json_t *named, uint32_t i)
{
    char key[16];
    const json_t *value;
    size_t n;

    snprintf(key, sizeof(key), "%" PRIu32, i);
    value = json_object_get(named, key);
    n = json_string_length(value); /* 0 for what is no string */
    return n > 0 && n <= MAX_LABEL_BYTES && strlen(json_string_value(value)) == n ? strdup(json_string_value(value))
                                                                                  : NULL;
}

char **labels_parse(const char *json, size_t bytes, uint32_t n_labels)
{
    moe_json *config = NULL;
    char **labels = calloc(n_labels + (size_t)1, sizeof(labels[0]));
    const json_t *named = NULL;
    uint32_t n = 0;

    if (labels != NULL && moe_json_parse_python(json, bytes, MAX_DEPTH, &config, NULL) == MOE_OK) {
        named = json_object_get(config, "id2label");
    }
    while (json_object_size(named) == n_labels && n < n_labels && (labels[n] = copy_label(named, n)) != NULL) {
        n++;
    }
    if (named != NULL && n < n_labels) {
        MOE_WARN("id2label: %zu entries; label %" PRIu32 " of %" PRIu32 " has no usable name: replies carry no names",
                 json_object_size(named), n, n_labels);
    }
    moe_json_free(config);
    if (n < n_labels) {
        labels_free(labels, n);
        return NULL;
    }
    return labels;
}

char **labels_load(const char *dir, uint32_t n_labels)
{
    char path[4096], *json;
    size_t bytes;
    moe_error err;
    char **labels = NULL;

    if (n_labels == 0 || (size_t)snprintf(path, sizeof(path), "%s/config.json", dir) >= sizeof(path)) {
        return NULL;
    }
    if (moe_file_read(path, MAX_CONFIG_BYTES, &json, &bytes, &err) != MOE_OK) {
        MOE_WARN("labels: %s", err.text);
        return NULL;
    }
    labels = labels_parse(json, bytes, n_labels);
    free(json);
    return labels;
}
