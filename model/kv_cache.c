/* The paged KV cache: which page belongs to whom. The bytes live on the device and are touched by its ops only.
 *
 * A page is in one of three states:
 *
 *   free     n_refs == 0, serial == 0    on the free list
 *   used     n_refs > 0                  in the tables of some sequences; registered (serial != 0) once it is full
 *   cached   n_refs == 0, serial != 0    on the list of cached pages: found by its prefix, given up when none is free
 *
 * Registered pages are found by the exact key (serial of the page before it, expert set, its tokens). Serials are never
 * used again, so a chain of equal keys is an equal prefix under an equal set: the hash only chooses the bucket, and no
 * collision can make one request read another's keys and values. A page whose parent was given up names a serial that
 * no page has any more; it is never found again, and goes in its turn.
 *
 * Only full pages are shared, and a full page is never written again, so there is no copying on write. The last token
 * of a prompt is always computed (scheduler.c), thus a sequence always owns the page it writes to. */
#include "model/model_priv.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_NONE  UINT32_MAX
#define SET_ID_HEX 64

typedef struct kv_page {
    uint32_t n_refs;
    uint32_t next_in_bucket; /* hash chain of registered pages; PAGE_NONE ends */
    uint32_t older, newer;   /* the list of cached pages; `newer` also links the free list */
    uint64_t serial;         /* of this registered page; 0: not registered */
    uint64_t parent;         /* serial of the page before it; 0: first page */
    char set_id[SET_ID_HEX];
    int32_t tokens[MODEL_KV_PAGE_TOKENS];
} kv_page;

struct model_kv {
    compute_device *device; /* borrowed */
    compute_kv_shape shape;
    compute_mem *memory; /* owned */
    kv_page *pages;      /* owned [n_pages] */
    uint32_t *buckets;   /* owned [n_buckets], heads of hash chains */
    uint32_t n_buckets;  /* power of two */
    uint32_t free_head;
    uint32_t oldest, newest; /* cached pages */
    size_t n_free, n_cached;
    uint64_t next_serial;
    uint64_t prefix_hit_tokens;
    bool prefix_cache;
};

/* ------------------------------------------------------------------------------------------------ registered pages */
static uint32_t bucket_of(const model_kv *kv, uint64_t parent, const char *set_id, const int32_t *tokens)
{
    uint64_t h = 0x9E3779B97F4A7C15u ^ parent;

    for (size_t i = 0; i < 16; i++) {
        h = (h ^ (unsigned char)set_id[i]) * 0x100000001B3u;
    }
    for (size_t i = 0; i < MODEL_KV_PAGE_TOKENS; i++) {
        h = (h ^ (uint32_t)tokens[i]) * 0x100000001B3u;
        h ^= h >> 29;
    }
    return (uint32_t)(h ^ (h >> 32)) & (kv->n_buckets - 1);
}

static uint32_t find_registered(const model_kv *kv, uint64_t parent, const char *set_id, const int32_t *tokens)
{
    uint32_t p = kv->buckets[bucket_of(kv, parent, set_id, tokens)];

    while (p != PAGE_NONE) {
        const kv_page *page = &kv->pages[p];
        if (page->parent == parent && memcmp(page->set_id, set_id, SET_ID_HEX) == 0 &&
            memcmp(page->tokens, tokens, sizeof page->tokens) == 0) {
            return p;
        }
        p = page->next_in_bucket;
    }
    return PAGE_NONE;
}

static void unregister(model_kv *kv, uint32_t p)
{
    kv_page *page = &kv->pages[p];
    uint32_t *link = &kv->buckets[bucket_of(kv, page->parent, page->set_id, page->tokens)];

    while (*link != p) {
        link = &kv->pages[*link].next_in_bucket;
    }
    *link = page->next_in_bucket;
    page->serial = 0;
}

/* -------------------------------------------------------------------------------------------- free and cached lists */
static void cached_append(model_kv *kv, uint32_t p)
{
    kv->pages[p].older = kv->newest;
    kv->pages[p].newer = PAGE_NONE;
    if (kv->newest != PAGE_NONE) {
        kv->pages[kv->newest].newer = p;
    } else {
        kv->oldest = p;
    }
    kv->newest = p;
    kv->n_cached++;
}

static void cached_remove(model_kv *kv, uint32_t p)
{
    const kv_page *page = &kv->pages[p];

    if (page->older != PAGE_NONE) {
        kv->pages[page->older].newer = page->newer;
    } else {
        kv->oldest = page->newer;
    }
    if (page->newer != PAGE_NONE) {
        kv->pages[page->newer].older = page->older;
    } else {
        kv->newest = page->older;
    }
    kv->n_cached--;
}

static void free_push(model_kv *kv, uint32_t p)
{
    kv->pages[p].newer = kv->free_head;
    kv->free_head = p;
    kv->n_free++;
}

/* A free page, else the cached page that has been out of use the longest. */
static uint32_t page_take(model_kv *kv)
{
    uint32_t p = kv->free_head;

    if (p != PAGE_NONE) {
        kv->free_head = kv->pages[p].newer;
        kv->n_free--;
    } else if ((p = kv->oldest) != PAGE_NONE) {
        cached_remove(kv, p);
        unregister(kv, p);
    } else {
        return PAGE_NONE;
    }
    kv->pages[p].n_refs = 1;
    return p;
}

static void page_ref(model_kv *kv, uint32_t p)
{
    if (kv->pages[p].n_refs++ == 0) {
        cached_remove(kv, p);
    }
}

static void page_unref(model_kv *kv, uint32_t p)
{
    MOE_ASSERT(kv->pages[p].n_refs > 0);
    if (--kv->pages[p].n_refs > 0) {
        return;
    }
    if (kv->pages[p].serial != 0) {
        cached_append(kv, p);
    } else {
        free_push(kv, p);
    }
}

/* ------------------------------------------------------------------------------------------------ open and close */
static moe_status kv_alloc(model_kv *kv, size_t n_pages)
{
    size_t bytes = kv->shape.n_layers * n_pages * compute_kv_page_bytes(&kv->shape);

    kv->n_buckets = 16;
    while (kv->n_buckets < n_pages) {
        kv->n_buckets *= 2;
    }
    kv->memory = kv->device->ops->alloc(kv->device, bytes);
    kv->pages = calloc(n_pages, sizeof *kv->pages);
    kv->buckets = calloc(kv->n_buckets, sizeof *kv->buckets);
    return kv->memory != NULL && kv->pages != NULL && kv->buckets != NULL ? MOE_OK : MOE_ERR_NO_MEMORY;
}

static compute_kv_shape shape_of(const model_config *c, compute_class numeric_class)
{
    return (compute_kv_shape){.n_layers = c->n_layers,
                              .page_tokens = MODEL_KV_PAGE_TOKENS,
                              .n_kv_heads = c->n_kv_heads,
                              .head_dim = c->head_dim,
                              .shared = c->shared_kv,
                              .dtype = compute_class_dtype(numeric_class)};
}

size_t model_kv_page_bytes(const model_config *c, compute_class numeric_class)
{
    compute_kv_shape shape = shape_of(c, numeric_class);

    return compute_kv_page_bytes(&shape) * c->n_layers;
}

moe_status model_kv_open(const model_config *c, compute_device *d, size_t memory_bytes, bool prefix_cache,
                         model_kv **out, moe_error *err)
{
    model_kv *kv = calloc(1, sizeof *kv);
    size_t page_bytes, n_pages;

    if (kv == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "kv cache: out of memory");
    }
    kv->device = d;
    kv->shape = shape_of(c, d->numeric_class);
    kv->prefix_cache = prefix_cache;
    kv->next_serial = 1;
    kv->free_head = kv->oldest = kv->newest = PAGE_NONE;
    page_bytes = model_kv_page_bytes(c, d->numeric_class);
    n_pages = MOE_MIN(memory_bytes / page_bytes, (size_t)UINT32_MAX / 2);
    if (n_pages == 0) {
        free(kv);
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--kv-memory %zu: one page of %d tokens needs %zu bytes",
                        memory_bytes, MODEL_KV_PAGE_TOKENS, page_bytes);
    }
    kv->shape.n_pages = n_pages;
    if (kv_alloc(kv, n_pages) != MOE_OK) {
        char left[MODEL_LEFT_TEXT];

        model_kv_close(kv);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "--kv-memory %zu: no memory for %zu pages of %zu bytes%s", memory_bytes,
                        n_pages, page_bytes, model_left(d, left));
    }
    memset(kv->buckets, 0xFF, kv->n_buckets * sizeof *kv->buckets);
    for (size_t p = n_pages; p-- > 0;) {
        free_push(kv, (uint32_t)p);
    }
    *out = kv;
    return MOE_OK;
}

void model_kv_close(model_kv *kv)
{
    if (kv == NULL) {
        return;
    }
    kv->device->ops->free(kv->device, kv->memory);
    free(kv->pages);
    free(kv->buckets);
    free(kv);
}

size_t model_kv_capacity_tokens(const model_kv *kv)
{
    return kv->shape.n_pages * kv->shape.page_tokens;
}

void model_kv_get_stats(const model_kv *kv, model_kv_stats *out)
{
    *out = (model_kv_stats){.n_pages = kv->shape.n_pages,
                            .n_free = kv->n_free,
                            .n_cached = kv->n_cached,
                            .n_used = kv->shape.n_pages - kv->n_free - kv->n_cached,
                            .prefix_hit_tokens = kv->prefix_hit_tokens};
}

const compute_kv_shape *model_kv_shape(const model_kv *kv)
{
    return &kv->shape;
}

compute_mem *model_kv_memory(const model_kv *kv)
{
    return kv->memory;
}

/* ------------------------------------------------------------------------------------------------ sequences */
moe_status model_kv_seq_init(model_kv_seq *s, size_t max_tokens)
{
    memset(s, 0, sizeof *s);
    s->max_pages = (uint32_t)((max_tokens + MODEL_KV_PAGE_TOKENS - 1) / MODEL_KV_PAGE_TOKENS);
    s->pages = calloc(MOE_MAX(s->max_pages, 1u), sizeof *s->pages);
    return s->pages != NULL ? MOE_OK : MOE_ERR_NO_MEMORY;
}

void model_kv_seq_release(model_kv *kv, model_kv_seq *s)
{
    /* Last page first: it becomes the older one among the cached, so the end of a prefix is given up before its
     * beginning. The other way round a beginning would go first and take the use of all behind it. */
    while (s->n_pages > 0) {
        page_unref(kv, s->pages[--s->n_pages]);
    }
    s->n_cached = 0;
    s->parent = 0;
}

void model_kv_seq_fini(model_kv *kv, model_kv_seq *s)
{
    if (s->pages != NULL) {
        model_kv_seq_release(kv, s);
        free(s->pages);
        s->pages = NULL;
    }
}

moe_status model_kv_seq_reserve(model_kv *kv, model_kv_seq *s, size_t n_tokens)
{
    size_t want = (n_tokens + MODEL_KV_PAGE_TOKENS - 1) / MODEL_KV_PAGE_TOKENS;

    MOE_ASSERT(want <= s->max_pages);
    if (want > s->n_pages && want - s->n_pages > kv->n_free + kv->n_cached) {
        return MOE_ERR_BUSY;
    }
    while (s->n_pages < want) {
        s->pages[s->n_pages++] = page_take(kv);
    }
    return MOE_OK;
}

size_t model_kv_seq_adopt(model_kv *kv, model_kv_seq *s, const router_set *set, const int32_t *tokens,
                          size_t max_tokens)
{
    MOE_ASSERT(s->n_pages == 0);
    if (!kv->prefix_cache) {
        return 0;
    }
    while ((size_t)s->n_cached + MODEL_KV_PAGE_TOKENS <= max_tokens) {
        uint32_t p = find_registered(kv, s->parent, router_set_id(set), tokens + s->n_cached);
        if (p == PAGE_NONE) {
            break;
        }
        page_ref(kv, p);
        s->pages[s->n_pages++] = p;
        s->parent = kv->pages[p].serial;
        s->n_cached += MODEL_KV_PAGE_TOKENS;
    }
    kv->prefix_hit_tokens += s->n_cached;
    return s->n_cached;
}

void model_kv_seq_register(model_kv *kv, model_kv_seq *s, const router_set *set, const int32_t *tokens, size_t n_tokens)
{
    if (!kv->prefix_cache) {
        return;
    }
    while ((size_t)s->n_cached + MODEL_KV_PAGE_TOKENS <= n_tokens) {
        const int32_t *at = tokens + s->n_cached;
        uint32_t p = s->pages[s->n_cached / MODEL_KV_PAGE_TOKENS];
        /* Two requests may have computed the same prefix side by side. The first page stays registered; the second
         * stays its owner's alone, but the chain goes on from the first, so that what follows is found by both. */
        uint32_t twin = find_registered(kv, s->parent, router_set_id(set), at);

        if (twin == PAGE_NONE) {
            kv_page *page = &kv->pages[p];
            uint32_t *bucket = &kv->buckets[bucket_of(kv, s->parent, router_set_id(set), at)];
            page->serial = kv->next_serial++;
            page->parent = s->parent;
            memcpy(page->set_id, router_set_id(set), SET_ID_HEX);
            memcpy(page->tokens, at, sizeof page->tokens);
            page->next_in_bucket = *bucket;
            *bucket = p;
            twin = p;
        }
        s->parent = kv->pages[twin].serial;
        s->n_cached += MODEL_KV_PAGE_TOKENS;
    }
}
