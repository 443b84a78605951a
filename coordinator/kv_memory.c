#include "coordinator/kv_memory.h"

#include "model/model.h"

/* Step buffers, frames, the tokenizer, requests, gRPC, and whoever else lives on the machine. Measured: beside weights and
 * KV cache the shape of OLMoE-1B-7B (two layers of it, bf16) takes 126 MiB after a prompt of 4000 tokens in steps of 512
 * rows; larger steps and wider models take more. The share is chosen. */
#define MARGIN_SHARE 8
#define MARGIN_LEAST ((size_t)64 << 20)

static size_t less(size_t from, size_t what)
{
    return from > what ? from - what : 0;
}

static moe_status refuse(const kv_budget *b, size_t one, moe_error *err)
{
    char left[MOE_SIZE_TEXT], all[MOE_SIZE_TEXT], weights[MOE_SIZE_TEXT], context[MOE_SIZE_TEXT];

    return moe_fail(
        err, MOE_ERR_INVALID_ARG,
        "--kv-memory: %s of memory can be had, the weights take %s, and of the %s that are left one context of "
        "%u tokens takes %s: give a smaller --max-context, or --kv-memory to try all the same",
        moe_size_text(b->available, all), moe_size_text(b->weights, weights),
        moe_size_text(less(b->available, b->weights), left), b->max_context, moe_size_text(one, context));
}

moe_status kv_memory_choose(const kv_budget *b, size_t *bytes_out, moe_error *err)
{
    size_t pages = ((size_t)b->max_context + MODEL_KV_PAGE_TOKENS - 1) / MODEL_KV_PAGE_TOKENS;
    size_t one = pages * b->page_bytes, most = one * b->max_running;
    size_t left = less(b->available, b->weights);
    size_t fits = less(left, MARGIN_LEAST + b->available / MARGIN_SHARE);

    if (b->asked != 0) {
        *bytes_out = MOE_MIN(b->asked, most);
        return MOE_OK;
    }
    if (left < one) {
        return refuse(b, one, err);
    }
    *bytes_out = MOE_MIN(MOE_MAX(fits, one), most) / b->page_bytes * b->page_bytes;
    return MOE_OK;
}
