#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

uint64_t bytes_hash(const void *bytes, size_t n, uint64_t seed)
{
    const unsigned char *p = bytes;
    uint64_t h = seed ^ n, word;

    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = mix(h ^ word);
    }
    word = 0;
    memcpy(&word, p, n);
    return mix(h ^ word);
}

/* At most half full, so that a probe is short. */
static size_t slots_for(size_t capacity)
{
    size_t n = 16;

    while (n < capacity * 2) {
        n *= 2;
    }
    return n;
}

moe_status vocab_init(vocab *v, size_t capacity, size_t text_capacity)
{
    const size_t n_slots = slots_for(capacity);

    *v = (vocab){
        .text_capacity = text_capacity, .capacity = capacity, .slot_mask = n_slots - 1, .seed = moe_random_entropy()};
    v->text = malloc(text_capacity + 1);
    v->entries = calloc(capacity + 1, sizeof *v->entries);
    v->slots = calloc(n_slots, sizeof *v->slots);
    return v->text && v->entries && v->slots ? MOE_OK : MOE_ERR_NO_MEMORY;
}

void vocab_fini(vocab *v)
{
    free(v->text);
    free(v->entries);
    free(v->slots);
}

static size_t vocab_slot(const vocab *v, const char *text, size_t n)
{
    size_t slot = bytes_hash(text, n, v->seed) & v->slot_mask;

    for (; v->slots[slot]; slot = (slot + 1) & v->slot_mask) {
        const vocab_entry *entry = &v->entries[v->slots[slot] - 1];

        if (entry->length == n && memcmp(v->text + entry->offset, text, n) == 0) {
            break;
        }
    }
    return slot;
}

moe_status vocab_add(vocab *v, const char *text, size_t n, int32_t id)
{
    const size_t slot = vocab_slot(v, text, n);

    if (v->slots[slot]) {
        return MOE_ERR_EXISTS;
    }
    MOE_ASSERT(v->n_entries < v->capacity && n <= v->text_capacity - v->text_used);
    memcpy(v->text + v->text_used, text, n);
    v->entries[v->n_entries++] = (vocab_entry){(uint32_t)v->text_used, (uint32_t)n, id};
    v->text_used += n;
    v->slots[slot] = (uint32_t)v->n_entries;
    return MOE_OK;
}

int32_t vocab_find(const vocab *v, const char *text, size_t n)
{
    const uint32_t index = v->slots[vocab_slot(v, text, n)];

    return index ? v->entries[index - 1].id : -1;
}

moe_status merge_table_init(merge_table *m, size_t capacity)
{
    const size_t n_slots = slots_for(capacity);

    *m = (merge_table){.slot_mask = n_slots - 1, .seed = moe_random_entropy()};
    m->slots = malloc(n_slots * sizeof *m->slots);
    if (!m->slots) {
        return MOE_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n_slots; i++) {
        m->slots[i].left = -1;
    }
    return MOE_OK;
}

void merge_table_fini(merge_table *m)
{
    free(m->slots);
}

static size_t merge_slot(const merge_table *m, int32_t left, int32_t right)
{
    size_t slot = mix(m->seed ^ ((uint64_t)(uint32_t)left << 32 | (uint32_t)right)) & m->slot_mask;

    while (m->slots[slot].left >= 0 && (m->slots[slot].left != left || m->slots[slot].right != right)) {
        slot = (slot + 1) & m->slot_mask;
    }
    return slot;
}

moe_status merge_table_add(merge_table *m, merge entry)
{
    const size_t slot = merge_slot(m, entry.left, entry.right);

    if (m->slots[slot].left >= 0) {
        return MOE_ERR_EXISTS;
    }
    m->slots[slot] = entry;
    return MOE_OK;
}

const merge *merge_find(const merge_table *m, int32_t left, int32_t right)
{
    const merge *found = &m->slots[merge_slot(m, left, right)];

    return found->left >= 0 ? found : NULL;
}
