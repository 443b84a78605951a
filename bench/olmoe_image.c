#include "bench/olmoe_image.h"

#include "compute/compute.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCK = 1 << 20 };
/* A page more than a multiple of every matrix: no two matrices begin at the same place of the pattern for long. */
#define PATTERN_BYTES (((size_t)256 << 20) + PAGE)
#define HEADER_LIMIT  ((size_t)4 << 20)

/* ------------------------------------------------------------------------------------------------ header */
typedef struct header {
    moe_text text;
    size_t offset; /* of the next tensor in the data */
} header;

static void put_tensor(header *h, const char *name, size_t n_out, size_t n_in)
{
    size_t end = h->offset + n_out * MOE_MAX(n_in, 1) * 2;

    moe_text_printf(&h->text, "%c\"%s\":{\"dtype\":\"BF16\",\"shape\":[%zu", h->offset == 0 ? '{' : ',', name, n_out);
    if (n_in > 0) {
        moe_text_printf(&h->text, ",%zu", n_in);
    }
    moe_text_printf(&h->text, "],\"data_offsets\":[%zu,%zu]}", h->offset, end);
    h->offset = end;
}

static void put_layer_tensor(header *h, uint32_t layer, const char *what, size_t n_out, size_t n_in)
{
    char name[96];

    snprintf(name, sizeof name, "model.layers.%u.%s.weight", layer, what);
    put_tensor(h, name, n_out, n_in);
}

static void put_experts(header *h, uint32_t layer)
{
    static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
    char what[48];

    for (unsigned e = 0; e < OLMOE_N_EXPERTS; e++) {
        for (size_t i = 0; i < 3; i++) {
            snprintf(what, sizeof what, "mlp.experts.%u.%s", e, parts[i]);
            put_layer_tensor(h, layer, what, i < 2 ? OLMOE_D_FF : OLMOE_D_MODEL, i < 2 ? OLMOE_D_MODEL : OLMOE_D_FF);
        }
    }
}

/* First what has memory of its own: norms, embeddings, routers, head, in this order (fill_own relies on it); then the
 * matrices. Every tensor is a whole number of pages. */
typedef struct layout {
    size_t norms_end, embeddings_end, routers_end, own_end, end; /* offsets in the data */
} layout;

static layout put_all(header *h, uint32_t n_layers)
{
    static const char *const norms[] = {"input_layernorm", "post_attention_layernorm", "self_attn.q_norm",
                                        "self_attn.k_norm"};
    static const char *const projections[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                              "self_attn.o_proj"};
    layout l;

    for (uint32_t i = 0; i < n_layers * 4; i++) {
        put_layer_tensor(h, i / 4, norms[i % 4], OLMOE_D_MODEL, 0);
    }
    put_tensor(h, "model.norm.weight", OLMOE_D_MODEL, 0);
    l.norms_end = h->offset;
    put_tensor(h, "model.embed_tokens.weight", OLMOE_VOCAB, OLMOE_D_MODEL);
    l.embeddings_end = h->offset;
    for (uint32_t i = 0; i < n_layers; i++) {
        put_layer_tensor(h, i, "mlp.gate", OLMOE_N_EXPERTS, OLMOE_D_MODEL);
    }
    l.routers_end = h->offset;
    put_tensor(h, "lm_head.weight", OLMOE_VOCAB, OLMOE_D_MODEL);
    l.own_end = h->offset;
    for (uint32_t i = 0; i < n_layers; i++) {
        for (size_t j = 0; j < 4; j++) {
            put_layer_tensor(h, i, projections[j], OLMOE_D_MODEL, OLMOE_D_MODEL);
        }
        put_experts(h, i);
    }
    l.end = h->offset;
    moe_text_append(&h->text, "}", 1);
    while ((8 + h->text.size) % PAGE != 0 && !h->text.failed) {
        moe_text_append(&h->text, " ", 1);
    }
    return l;
}

/* ------------------------------------------------------------------------------------------------ numbers */
typedef struct fill_job {
    uint16_t *to;
    size_t n;
    float bound;
    uint64_t seed;
} fill_job;

static void fill_block(void *ctx, size_t task, size_t thread)
{
    const fill_job *job = ctx;
    size_t end = MOE_MIN(job->n, (task + 1) * BLOCK);
    moe_random r;

    (void)thread;
    moe_random_seed(&r, job->seed + task);
    for (size_t i = task * BLOCK; i < end; i += 4) {
        uint64_t u = moe_random_u64(&r);

        for (size_t j = 0; j < 4; j++) {
            float unit = (float)(int16_t)(uint16_t)(u >> (16 * j)) * (1.0f / 32768.0f);
            job->to[i + j] = compute_bf16_from_f32(unit * job->bound);
        }
    }
}

/* deviation of a uniform number in +-b is b / sqrt(3). n is a multiple of 4. */
static void fill_uniform(moe_pool *pool, void *to, size_t bytes, float deviation, uint64_t seed)
{
    fill_job job = {.to = to, .n = bytes / 2, .bound = deviation * 1.7320508f, .seed = seed << 32};

    moe_pool_run(pool, (job.n + BLOCK - 1) / BLOCK, fill_block, &job);
}

static void fill_own(moe_pool *pool, unsigned char *data, const layout *l)
{
    uint16_t *norms = (uint16_t *)(void *)data;

    for (size_t i = 0; i < l->norms_end / 2; i++) {
        norms[i] = compute_bf16_from_f32(1.0f);
    }
    fill_uniform(pool, data + l->norms_end, l->embeddings_end - l->norms_end, 1.0f, 1);
    fill_uniform(pool, data + l->embeddings_end, l->routers_end - l->embeddings_end, 0.02f, 2);
    fill_uniform(pool, data + l->routers_end, l->own_end - l->routers_end, 0.1f, 4);
}

/* Maps the pattern over [to, to + bytes) as often as it takes. */
static bool map_pattern(moe_pool *pool, unsigned char *to, size_t bytes)
{
    int fd = memfd_create("weights", MFD_CLOEXEC);
    bool ok = fd >= 0 && ftruncate(fd, (off_t)PATTERN_BYTES) == 0;
    void *pattern = ok ? mmap(NULL, PATTERN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

    ok = pattern != MAP_FAILED;
    if (ok) {
        fill_uniform(pool, pattern, PATTERN_BYTES, 0.02f, 3);
        (void)munmap(pattern, PATTERN_BYTES);
    }
    for (size_t at = 0; at < bytes && ok; at += PATTERN_BYTES) {
        size_t n = MOE_MIN(PATTERN_BYTES, bytes - at);
        ok = mmap(to + at, n, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return ok;
}

/* ------------------------------------------------------------------------------------------------ open */
static void put_length(unsigned char *to, uint64_t n)
{
    for (unsigned i = 0; i < 8; i++) {
        to[i] = (unsigned char)(n >> (8 * i));
    }
}

static moe_status build(const header *h, const layout *l, moe_pool *pool, olmoe_image *image, moe_error *err)
{
    size_t head = 8 + h->text.size;

    image->bytes = head + l->end;
    image->data = mmap(NULL, image->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (image->data == MAP_FAILED) {
        image->data = NULL;
        return moe_fail(err, MOE_ERR_NO_MEMORY, "image of %zu bytes: no address space", image->bytes);
    }
    put_length(image->data, h->text.size);
    memcpy(image->data + 8, h->text.data, h->text.size);
    fill_own(pool, image->data + head, l);
    if (!map_pattern(pool, image->data + head + l->own_end, l->end - l->own_end)) {
        olmoe_image_close(image);
        return moe_fail(err, MOE_ERR_NO_MEMORY, "image of %zu bytes: the pattern cannot be mapped", image->bytes);
    }
    return MOE_OK;
}

moe_status olmoe_image_open(uint32_t n_layers, moe_pool *pool, olmoe_image *out, moe_error *err)
{
    header h = {.offset = 0};
    layout l;
    moe_status status;

    moe_text_init(&h.text, HEADER_LIMIT);
    l = put_all(&h, n_layers);
    status = h.text.failed ? moe_fail(err, MOE_ERR_NO_MEMORY, "image: header of %u layers is too long", n_layers)
                           : build(&h, &l, pool, out, err);
    moe_text_fini(&h.text);
    return status;
}

void olmoe_image_close(olmoe_image *image)
{
    if (image->data != NULL) {
        (void)munmap(image->data, image->bytes);
        image->data = NULL;
    }
}

void olmoe_image_config(uint32_t n_layers, moe_text *out)
{
    moe_text_printf(out,
                    "{\"model_type\":\"olmoe\",\"hidden_size\":%d,\"num_hidden_layers\":%u,\"num_attention_heads\":%d,"
                    "\"num_key_value_heads\":%d,\"intermediate_size\":%d,\"num_experts\":%d,\"num_experts_per_tok\":%d,"
                    "\"vocab_size\":%d,\"max_position_embeddings\":%d,\"norm_topk_prob\":false,\"rope_theta\":10000.0,"
                    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"clip_qkv\":null}",
                    OLMOE_D_MODEL, n_layers, OLMOE_N_HEADS, OLMOE_N_HEADS, OLMOE_D_FF, OLMOE_N_EXPERTS, OLMOE_TOP_K,
                    OLMOE_VOCAB, OLMOE_MAX_CONTEXT);
}

size_t olmoe_layer_bytes(void)
{
    size_t d = OLMOE_D_MODEL;

    return 2 * (4 * d * d + OLMOE_N_EXPERTS * d + 3 * d * OLMOE_D_FF * OLMOE_N_EXPERTS + 4 * d);
}
