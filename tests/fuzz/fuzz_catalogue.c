/* Any bytes as a catalogue's record: refused with a reason, or a value that is written as it was read, whose sets have enough
 * experts, and that takes the next changes. */
#include <stdlib.h>
#include <string.h>

#include "catalogue/catalogue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static catalogue_model base = {.min_experts = 2};

static void check_set(const catalogue *c, const router_set *s)
{
    for (size_t l = 0; l < router_set_n_layers(s); l++) {
        const router_set_layer *layer = router_set_at(s, l);

        MOE_ASSERT(layer->n_experts >= base.min_experts);
        for (uint32_t i = 0; i < layer->n_experts; i++) {
            MOE_ASSERT(router_space_slot(catalogue_space(c), (uint32_t)l, layer->expert_ids[i]) != ROUTER_NO_SLOT);
        }
    }
}

static void write_and_read(catalogue *c)
{
    moe_text first, second;
    catalogue *again = NULL;
    moe_error err;

    moe_text_init(&first, CATALOGUE_MAX_TEXT * 2);
    moe_text_init(&second, CATALOGUE_MAX_TEXT * 2);
    catalogue_write(c, &first);
    MOE_ASSERT(!first.failed);
    if (first.size <= CATALOGUE_MAX_TEXT) {
        MOE_ASSERT(catalogue_read(&base, first.data, first.size, c, &again, &err) == MOE_OK);
        MOE_ASSERT(catalogue_space(again) == catalogue_space(c));
        catalogue_write(again, &second);
        MOE_ASSERT(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    }
    catalogue_unref(again);
    moe_text_fini(&first);
    moe_text_fini(&second);
}

static void go_on(catalogue *c)
{
    const catalogue_pending *p = catalogue_get_pending(c);
    const catalogue_change all[] = {
        {.op = CATALOGUE_RESTORE}, {.op = CATALOGUE_ROLLBACK}, {.op = CATALOGUE_USE, .word = "base"}};
    catalogue *next = NULL;
    moe_error err = {.text = ""};

    if (p != NULL) {
        MOE_ASSERT(catalogue_undo(c, p->number, 1, "why not", &next, &err) == MOE_OK);
        catalogue_unref(next);
        MOE_ASSERT(catalogue_commit(c, p->number, 1, &next, &err) == MOE_OK);
        check_set(next, catalogue_default(next));
        if (catalogue_get_shadow(next) != NULL) {
            check_set(next, catalogue_get_shadow(next)->set);
        }
        catalogue_unref(next);
    }
    for (size_t i = 0; i < MOE_COUNT(all); i++) {
        if (catalogue_begin(c, &all[i], &next, &err) == MOE_OK) {
            check_set(next, catalogue_get_pending(next)->target);
            catalogue_unref(next);
        } else {
            MOE_ASSERT(err.text[0] != '\0');
        }
    }
}

/* The same bytes as a set of a catalogue that has no packs. */
static void read_set(const char *text, size_t n)
{
    catalogue *c = NULL;
    router_set *set = NULL;
    moe_error err = {.text = ""};

    MOE_ASSERT(catalogue_open(&base, &c, &err) == MOE_OK);
    if (catalogue_read_set(c, text, n, &set, &err) == MOE_OK) {
        check_set(c, set);
    } else {
        MOE_ASSERT(set == NULL && err.text[0] != '\0');
    }
    router_set_unref(set);
    catalogue_unref(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    catalogue *c = NULL;
    moe_error err = {.text = ""};

    if (base.space == NULL) {
        MOE_ASSERT(router_space_open_base(2, 4, 1, &base.space, NULL) == MOE_OK);
    }
    read_set((const char *)data, size);
    if (catalogue_read(&base, (const char *)data, size, NULL, &c, &err) != MOE_OK) {
        MOE_ASSERT(c == NULL && err.text[0] != '\0');
        return 0;
    }
    check_set(c, catalogue_default(c));
    for (size_t i = 0; i < catalogue_n_named(c); i++) {
        check_set(c, catalogue_named_at(c, i)->set);
    }
    write_and_read(c);
    go_on(c);
    catalogue_unref(c);
    return 0;
}
