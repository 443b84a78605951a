/* An engine, a tokenizer and expert sets without a model, behind the real headers: for tests of the API.
 *
 * Tokens are bytes (0..255), 256 is special. Output token i of choice c is the letter 'a' + (seed + i + c) % 26. A
 * prompt that begins with '!' is a command: !fail N        ends with status -N before its first token !break N K the
 * same after K tokens !hang          never produces anything !slow          a token every 50 ms !utf8          the
 * bytes of U+00E9, one per token !nul           NUL bytes !stop          ends after 3 tokens with the first stop string
 * of the request !echo          the prompt's own bytes */
#ifndef CONCLAVE_TESTS_FAKE_ENGINE_H
#define CONCLAVE_TESTS_FAKE_ENGINE_H

#include "api/api.h"
#include "coordinator/registry.h"

#define FAKE_VOCAB       300
#define FAKE_LAYERS      2
#define FAKE_EXPERTS     4
#define FAKE_TOP_K       2
#define FAKE_LABELS      3
#define FAKE_PAD         257
#define FAKE_MAX_CONTEXT 4096
#define FAKE_MAX_QUEUE   64

typedef struct fake_options {
    bool no_tokenizer, no_chat, classifier;
    uint32_t max_context; /* 0: FAKE_MAX_CONTEXT */
} fake_options;

engine *fake_engine_open(const fake_options *options);
void fake_engine_close(engine *e);
/* The real one, of this engine. no_changes and change: as in its options; with change it has packs, but none is open, and keeps
 * nothing that is not used. */
registry *fake_registry_open(engine *e, const char *no_changes,
                             moe_status (*change)(void *ctx, engine *e, const embedded_changes *c, moe_error *err));
void fake_engine_set_ready(engine *e, bool ready);
void fake_engine_freeze(engine *e, bool frozen); /* its loop seems to stand still */
/* While it is held, the tokenizer does not come back from text that begins with "!hold". */
void fake_engine_hold(engine *e, bool held);
size_t fake_engine_held(engine *e);    /* threads that it holds now */
size_t fake_engine_encoded(engine *e); /* texts of that kind that it has ever begun */
size_t fake_engine_live(engine *e);    /* requests that have neither ended nor been cancelled */

#endif
