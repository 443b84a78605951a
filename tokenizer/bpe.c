/* Byte-pair encoding of one piece: a linked list of symbols and a heap of candidate merges, O(n log n).
 *
 * The rule of BPE is: merge the neighbouring pair of the lowest rank, the leftmost among equals, until no pair can be
 * merged. The heap's key is (rank, place), so its top is that pair. Entries are not taken out when a merge makes them
 * wrong; a pair that is popped is looked at again, and one that has changed since it was pushed is dropped. Two new
 * neighbours per merge is all that can become possible, so each symbol costs a constant number of heap operations.
 *
 * Most pieces of a text are words that came before: a small cache, with a few ways per set, answers those. A piece's ids
 * do not depend on what stands around it, so the answers are those of a fresh encode. */
#include "tokenizer/tokenizer_priv.h"

#include <stdlib.h>
#include <string.h>

moe_status piece_cache_init(piece_cache *c)
{
    *c = (piece_cache){.entries = calloc((size_t)CACHE_SETS * CACHE_WAYS, sizeof *c->entries)};
    if (!c->entries) {
        return MOE_ERR_NO_MEMORY;
    }
    if (pthread_mutex_init(&c->lock, NULL) != 0) {
        free(c->entries);
        c->entries = NULL;
        return MOE_ERR_NO_MEMORY;
    }
    return MOE_OK;
}

void piece_cache_fini(piece_cache *c)
{
    if (c->entries) {
        pthread_mutex_destroy(&c->lock);
        free(c->entries);
    }
}

static cache_entry *cache_set(piece_cache *c, const char *piece, size_t n)
{
    return &c->entries[(bytes_hash(piece, n, 0) % CACHE_SETS) * CACHE_WAYS];
}

static bool cache_get(piece_cache *c, const char *piece, size_t n, cache_entry *out)
{
    cache_entry *set = cache_set(c, piece, n);
    bool found = false;

    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < CACHE_WAYS && !found; i++) {
        if (set[i].n_bytes == n && memcmp(set[i].bytes, piece, n) == 0) {
            set[i].stamp = ++c->now;
            *out = set[i];
            found = true;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return found;
}

/* Takes the way that was unused for longest; ages are differences, so the stamp may wrap. */
static void cache_put(piece_cache *c, const char *piece, size_t n, const int32_t *ids, size_t n_ids)
{
    cache_entry *set = cache_set(c, piece, n), *oldest = set;

    pthread_mutex_lock(&c->lock);
    for (size_t i = 1; i < CACHE_WAYS; i++) {
        if (set[i].n_bytes == 0 || (oldest->n_bytes != 0 && c->now - set[i].stamp > c->now - oldest->stamp)) {
            oldest = &set[i];
        }
    }
    *oldest = (cache_entry){.stamp = ++c->now, .n_bytes = (uint8_t)n, .n_ids = (uint8_t)n_ids};
    memcpy(oldest->bytes, piece, n);
    memcpy(oldest->ids, ids, n_ids * sizeof *ids);
    pthread_mutex_unlock(&c->lock);
}

moe_status encoding_emit(encoding *e, int32_t id)
{
    if (e->n_ids == e->max_ids) {
        return MOE_ERR_BUSY;
    }
    e->ids[e->n_ids++] = id;
    return MOE_OK;
}

/* The array with room for need elements; NULL: no memory, and the old one stays. */
static void *grow(void *array, size_t *capacity, size_t need, size_t size)
{
    size_t n = *capacity ? *capacity : 64;
    void *grown;

    if (need <= *capacity) {
        return array;
    }
    while (n < need) {
        n *= 2;
    }
    grown = realloc(array, n * size);
    if (grown) {
        *capacity = n;
    }
    return grown;
}

bool symbol_add(encoding *e, int32_t id, size_t begin)
{
    const int32_t at = (int32_t)e->n_symbols;
    symbol *grown = grow(e->symbols, &e->symbol_capacity, e->n_symbols + 1, sizeof *e->symbols);

    if (!grown) {
        return false;
    }
    e->symbols = grown;
    e->symbols[e->n_symbols++] = (symbol){.id = id, .prev = at - 1, .next = at + 1, .begin = (uint32_t)begin};
    return true;
}

static int32_t char_id(const bpe *b, const char *text, size_t n)
{
    int32_t c;

    (void)moe_utf8_get(text, &c);
    return c < 0x180 ? b->low_id[c] : vocab_find(&b->vocab, text, n);
}

/* All bytes of the character must have a token, or none is used. */
static bool has_byte_ids(const bpe *b, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (b->byte_id[(unsigned char)text[i]] < 0) {
            return false;
        }
    }
    return b->byte_fallback;
}

/* One symbol per character; an unknown one is its bytes, or unk, or nothing. */
static bool symbols_fill(encoding *e, text_view piece)
{
    const bpe *b = &e->t->bpe;
    bool ok = true, after_unk = false;

    e->n_symbols = 0;
    for (size_t i = 0, n = 0; i < piece.size && ok; i += n) {
        const char *c = piece.data + i;
        int32_t code, id;

        n = moe_utf8_get(c, &code);
        id = char_id(b, c, n);
        if (id >= 0) {
            ok = symbol_add(e, id, i);
        } else if (has_byte_ids(b, c, n)) {
            for (size_t j = 0; j < n && ok; j++) {
                ok = symbol_add(e, b->byte_id[(unsigned char)c[j]], i);
            }
        } else if (b->unk_id >= 0) {
            ok = (b->fuse_unk && after_unk) || symbol_add(e, b->unk_id, i);
            after_unk = true;
            continue;
        }
        after_unk = false;
    }
    return ok;
}

static void heap_sift_down(heap_entry *heap, size_t n, size_t at)
{
    const heap_entry moving = heap[at];

    for (size_t child; (child = at * 2 + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1].key < heap[child].key) {
            child++;
        }
        if (moving.key <= heap[child].key) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

static heap_entry heap_pop(encoding *e)
{
    const heap_entry top = e->heap[0];

    e->heap[0] = e->heap[--e->n_heap];
    if (e->n_heap > 0) {
        heap_sift_down(e->heap, e->n_heap, 0);
    }
    return top;
}

static void heap_push(encoding *e, heap_entry entry)
{
    size_t at = e->n_heap++;

    for (; at > 0 && e->heap[(at - 1) / 2].key > entry.key; at = (at - 1) / 2) {
        e->heap[at] = e->heap[(at - 1) / 2];
    }
    e->heap[at] = entry;
}

static bool pair_at(const encoding *e, int32_t left, heap_entry *out)
{
    const int32_t right = left < 0 ? -1 : e->symbols[left].next;
    const merge *m;

    if (right < 0 || e->t->pieces.present) {
        return right >= 0 && sentencepiece_pair(e, left, out);
    }
    m = merge_find(&e->t->bpe.merges, e->symbols[left].id, e->symbols[right].id);
    if (!m) {
        return false;
    }
    *out = (heap_entry){.key = (uint64_t)m->rank << 32 | (uint32_t)left, .merged = m->merged};
    return true;
}

/* Each merge takes one entry out and puts at most two in, so 2n entries are enough. */
static bool heap_fill(encoding *e)
{
    heap_entry *grown = grow(e->heap, &e->heap_capacity, e->n_symbols * 2 + 1, sizeof *e->heap);

    e->n_heap = 0;
    if (!grown) {
        return false;
    }
    e->heap = grown;
    for (size_t i = 0; i + 1 < e->n_symbols; i++) {
        e->n_heap += pair_at(e, (int32_t)i, &e->heap[e->n_heap]);
    }
    for (size_t i = e->n_heap / 2; i-- > 0;) {
        heap_sift_down(e->heap, e->n_heap, i);
    }
    return true;
}

bool symbols_merge(encoding *e)
{
    if (e->n_symbols > 0) {
        e->symbols[e->n_symbols - 1].next = -1;
    }
    if (!heap_fill(e)) {
        return false;
    }
    while (e->n_heap > 0) {
        const heap_entry top = heap_pop(e);
        const int32_t at = (int32_t)(uint32_t)top.key;
        symbol *left = &e->symbols[at];
        heap_entry now;

        /* Stale: its left symbol is gone, or a neighbour has changed since it was pushed. */
        if (left->id < 0 || !pair_at(e, at, &now) || now.merged != top.merged) {
            continue;
        }
        e->symbols[left->next].id = -1;
        left->id = top.merged;
        left->next = e->symbols[left->next].next;
        if (left->next >= 0) {
            e->symbols[left->next].prev = at;
        }
        if (pair_at(e, left->prev, &now)) {
            heap_push(e, now);
        }
        if (pair_at(e, at, &now)) {
            heap_push(e, now);
        }
    }
    return true;
}

static text_view map_bytes(encoding *e, const char *piece, size_t n)
{
    e->mapped.size = 0;
    bytes_append(piece, n, &e->mapped);
    return (text_view){moe_text_cstr(&e->mapped), e->mapped.size};
}

static moe_status encode_fresh(encoding *e, const char *piece, size_t n)
{
    const bpe *b = &e->t->bpe;
    const text_view text = b->byte_level ? map_bytes(e, piece, n) : (text_view){piece, n};
    const int32_t whole = b->ignore_merges ? vocab_find(&b->vocab, text.data, text.size) : -1;
    moe_status status = MOE_OK;

    if (e->mapped.failed) {
        return MOE_ERR_NO_MEMORY;
    }
    if (whole >= 0) {
        return encoding_emit(e, whole);
    }
    if (!symbols_fill(e, text) || !symbols_merge(e)) {
        return MOE_ERR_NO_MEMORY;
    }
    for (int32_t i = e->n_symbols > 0 ? 0 : -1; i >= 0 && status == MOE_OK; i = e->symbols[i].next) {
        status = encoding_emit(e, e->symbols[i].id);
    }
    return status;
}

moe_status bpe_encode(encoding *e, const char *piece, size_t n)
{
    const size_t before = e->n_ids;
    const bool cacheable = n > 1 && n <= CACHE_BYTES;
    moe_status status = MOE_OK;
    cache_entry hit;

    e->n_read += n;
    if (cacheable && cache_get(&e->t->cache, piece, n, &hit)) {
        for (size_t i = 0; i < hit.n_ids && status == MOE_OK; i++) {
            status = encoding_emit(e, hit.ids[i]);
        }
        return status;
    }
    status = encode_fresh(e, piece, n);
    if (status == MOE_OK && cacheable && e->n_ids - before <= CACHE_IDS) {
        cache_put(&e->t->cache, piece, n, e->ids + before, e->n_ids - before);
    }
    return status;
}
