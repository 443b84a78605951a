#include "coordinator/ledger.h"

#include <stdlib.h>
#include <string.h>

static void free_words(char **words, size_t n)
{
    for (size_t i = 0; words != NULL && i < n; i++) {
        free(words[i]);
    }
    free(words);
}

static void job_free(job *j)
{
    free(j->word);
    free(j->pack);
    free(j->experts);
    free_words(j->include, j->ask.change.n_include);
    free_words(j->exclude, j->ask.change.n_exclude);
    catalogue_unref(j->before);
    catalogue_unref(j->plan);
    free(j);
}

void job_unref(job *j)
{
    if (--j->refs == 0) {
        job_free(j);
    }
}

static bool copy_word(const char *from, char **out)
{
    *out = from != NULL ? strdup(from) : NULL;
    return from == NULL || *out != NULL;
}

static bool copy_words(const char *const *from, size_t n, char ***out)
{
    bool ok = true;

    *out = calloc(n + 1, sizeof **out);
    for (size_t i = 0; i < n && *out != NULL; i++) {
        ok = copy_word(from[i], &(*out)[i]) && ok;
    }
    return ok && *out != NULL;
}

job *job_of(const api_ask *ask)
{
    const catalogue_change *c = &ask->change;
    job *j = calloc(1, sizeof *j);

    if (j == NULL) {
        return NULL;
    }
    j->refs = 1;
    j->ask = *ask;
    (void)snprintf(j->who, sizeof j->who, "%s", c->who != NULL ? c->who : "");
    (void)snprintf(j->why, sizeof j->why, "%s", c->why != NULL ? c->why : "");
    j->experts = calloc(c->n_experts + 1, sizeof *j->experts);
    bool ok = copy_word(c->word, &j->word);
    ok = copy_word(ask->pack, &j->pack) && ok;
    ok = copy_words(c->include, c->n_include, &j->include) && ok;
    ok = copy_words(c->exclude, c->n_exclude, &j->exclude) && ok;
    if (!ok || j->experts == NULL) {
        job_free(j);
        return NULL;
    }
    if (c->n_experts > 0) {
        memcpy(j->experts, c->experts, c->n_experts * sizeof *j->experts);
    }
    j->ask.pack = j->pack;
    j->ask.change.who = j->who;
    j->ask.change.why = j->why;
    j->ask.change.word = j->word;
    j->ask.change.experts = j->experts;
    j->ask.change.include = (const char *const *)j->include;
    j->ask.change.exclude = (const char *const *)j->exclude;
    j->told.phase = "waiting for its turn";
    return j;
}
