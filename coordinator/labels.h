/* labels: what config.json's id2label calls the classes of a classifier. They decide no answer, so a checkpoint whose
 * names cannot be used is served without. */
#ifndef CONCLAVE_COORDINATOR_LABELS_H
#define CONCLAVE_COORDINATOR_LABELS_H

#include "base/base.h"

/* Names [n_labels] in the order of the scores, owned: labels_free. NULL, with a log line where there was something to
 * read, unless there is exactly one name of at most 256 bytes per label. */
char **labels_load(const char *dir, uint32_t n_labels);
/* The same from a config in memory. */
char **labels_parse(const char *json, size_t bytes, uint32_t n_labels);
void labels_free(char **labels, uint32_t n_labels); /* NULL is fine */

#endif
