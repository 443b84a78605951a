/* A catalogue of a small model, and packs for it. */
#ifndef CONCLAVE_TESTS_CATALOGUE_SUPPORT_H
#define CONCLAVE_TESTS_CATALOGUE_SUPPORT_H

#include "tests/support/support.h"

#include <stdlib.h>

#include "catalogue/catalogue.h"

enum { LAYERS = 3, FFN = 4, K = 2 };

static catalogue_model base; /* ids 0 .. 3 are nodes', 4 the coordinator's */
static catalogue *now;
static moe_error why;
static uint64_t clock_ms;

static const catalogue_pack_layer german_layers[] = {{.layer = 0, .n_experts = 2}, {.layer = 2, .n_experts = 1}};
static const catalogue_pack_layer french_layers[] = {{.layer = 0, .n_experts = 1}, {.layer = 1, .n_experts = 1}};
static const int32_t replaced_0[] = {3, 1}, replaced_2[] = {0};
static const catalogue_pack_layer fix_layers[] = {{.layer = 0, .n_experts = 2, .replaces = replaced_0},
                                                  {.layer = 2, .n_experts = 1, .replaces = replaced_2}};

static inline catalogue_pack pack_of(const char *name, const char *version, char hash,
                                     const catalogue_pack_layer *layers, size_t n, size_t n_experts)
{
    catalogue_pack p = {
        .layers = layers, .n_layers = n, .n_experts = n_experts, .is_replace = layers[0].replaces != NULL};

    (void)snprintf(p.name, sizeof p.name, "%s", name);
    (void)snprintf(p.version, sizeof p.version, "%s", version);
    memset(p.hash, hash, 64);
    return p;
}

static inline catalogue_pack german(void)
{
    return pack_of("german", "1", 'a', german_layers, 2, 3);
}

static inline catalogue_pack fix(void)
{
    return pack_of("fix", "1", 'f', fix_layers, 2, 3);
}

static inline int setup(void **state)
{
    (void)state;
    clock_ms = 1000;
    assert_ok(router_space_open_base(LAYERS, FFN, 1, &base.space, &why), why);
    base.min_experts = K;
    base.fingerprint[0] = 7;
    assert_ok(catalogue_open(&base, &now, &why), why);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    catalogue_unref(now);
    router_space_unref(base.space);
    return 0;
}

static inline void become(catalogue *next)
{
    catalogue_unref(now);
    now = next;
}

static inline moe_status begin(catalogue_change change)
{
    catalogue *next = NULL;

    change.who = change.who != NULL ? change.who : "tester";
    change.now_ms = ++clock_ms;
    change.deadline_ms = clock_ms + 100;
    moe_status status = catalogue_begin(now, &change, &next, &why);
    if (status == MOE_OK) {
        become(next);
    }
    return status;
}

static inline void commit(void)
{
    catalogue *next = NULL;

    assert_non_null(catalogue_get_pending(now));
    assert_ok(catalogue_commit(now, catalogue_get_pending(now)->number, ++clock_ms, &next, &why), why);
    become(next);
}

static inline void change(catalogue_change c)
{
    assert_ok(begin(c), why);
    commit();
}

static inline void add(catalogue_pack p)
{
    change((catalogue_change){.op = CATALOGUE_ADD, .pack = &p});
}

/* "0-4|0-4|0-4" */
static inline void assert_set(const router_set *set, const char *expected)
{
    moe_text text;

    moe_text_init(&text, 1 << 12);
    for (size_t l = 0; l < router_set_n_layers(set); l++) {
        moe_text_printf(&text, l > 0 ? "|" : "");
        catalogue_put_ids(&text, router_set_at(set, l));
    }
    assert_string_equal(moe_text_cstr(&text), expected);
    moe_text_fini(&text);
}

static inline void assert_default(const char *expected)
{
    assert_set(catalogue_default(now), expected);
}

static inline char *text_of(const catalogue *c)
{
    moe_text text;

    moe_text_init(&text, CATALOGUE_MAX_TEXT);
    catalogue_write(c, &text);
    assert_false(text.failed);
    char *copy = strdup(moe_text_cstr(&text));
    moe_text_fini(&text);
    return copy;
}

static inline catalogue *read_back(const char *text, catalogue *previous)
{
    catalogue *c = NULL;

    assert_ok(catalogue_read(&base, text, strlen(text), previous, &c, &why), why);
    return c;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
