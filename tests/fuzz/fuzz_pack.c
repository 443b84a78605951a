/* Any bytes as pack.json beside one sound set of tensors: refused with a reason, or every expert has its matrices. */
#include <stdlib.h>
#include <string.h>

#include "pack/pack.h"

/* The tensors, all of BF16 zeros: "w0" to "w5", "q0", "q1" [3, 4], "d0" to "d2", "o0", "o1" [4, 3], "r", "t" [2, 4], "s" [1, 4];
 * docs/packs.md. The model is none that there is: three matrices in an expert, and attention experts. */
static const char header[] = "{\"d0\":{\"dtype\":\"BF16\",\"shape\":[4,3],\"data_offsets\":[0,24]},"
                             "\"d1\":{\"dtype\":\"BF16\",\"shape\":[4,3],\"data_offsets\":[24,48]},"
                             "\"d2\":{\"dtype\":\"BF16\",\"shape\":[4,3],\"data_offsets\":[48,72]},"
                             "\"o0\":{\"dtype\":\"BF16\",\"shape\":[4,3],\"data_offsets\":[72,96]},"
                             "\"o1\":{\"dtype\":\"BF16\",\"shape\":[4,3],\"data_offsets\":[96,120]},"
                             "\"q0\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[120,144]},"
                             "\"q1\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[144,168]},"
                             "\"r\":{\"dtype\":\"BF16\",\"shape\":[2,4],\"data_offsets\":[168,184]},"
                             "\"s\":{\"dtype\":\"BF16\",\"shape\":[1,4],\"data_offsets\":[184,192]},"
                             "\"t\":{\"dtype\":\"BF16\",\"shape\":[2,4],\"data_offsets\":[192,208]},"
                             "\"w0\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[208,232]},"
                             "\"w1\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[232,256]},"
                             "\"w2\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[256,280]},"
                             "\"w3\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[280,304]},"
                             "\"w4\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[304,328]},"
                             "\"w5\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[328,352]}}";
#define DATA_BYTES 352

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static checkpoint *open_tensors(void)
{
    static unsigned char image[8 + sizeof header - 1 + DATA_BYTES];
    checkpoint *c = NULL;
    moe_buf b;

    moe_buf_init(&b, image, sizeof image);
    moe_put_u64(&b, sizeof header - 1);
    memcpy(image + 8, header, sizeof header - 1);
    MOE_ASSERT(checkpoint_open_memory(image, sizeof image, "tensors", &c, NULL) == MOE_OK);
    return c;
}

static void check(const pack *p, const model_config *c)
{
    size_t n = 0, n_attention = 0;

    for (size_t l = 0; l < pack_n_layers(p); l++) {
        const pack_layer *layer = pack_at(p, l);

        MOE_ASSERT(layer->layer < c->n_layers && (l == 0 || pack_at(p, l - 1)->layer < layer->layer));
        MOE_ASSERT(layer->n_experts > 0 && (layer->router != NULL) == (pack_get_kind(p) == PACK_ADD));
        for (uint32_t i = 0; i < layer->n_experts; i++) {
            const pack_expert *e = &layer->experts[i];

            MOE_ASSERT(e->gate != NULL && e->up != NULL && e->down != NULL && e->gate->data != NULL);
            MOE_ASSERT((e->replaces >= 0) == (pack_get_kind(p) == PACK_REPLACE));
        }
        MOE_ASSERT((layer->attention_router != NULL) == (layer->n_attention > 0));
        for (uint32_t i = 0; i < layer->n_attention; i++) {
            MOE_ASSERT(layer->attention[i].q != NULL && layer->attention[i].o != NULL &&
                       layer->attention[i].q->data != NULL);
        }
        n += layer->n_experts;
        n_attention += layer->n_attention;
    }
    MOE_ASSERT(n_attention == pack_n_attention(p));
    MOE_ASSERT(n == pack_n_experts(p) && strlen(pack_hash(p)) == 64 && strlen(pack_name(p)) <= PACK_MAX_NAME);
}

/* As a member sees it that has not read the tensors yet. */
static void check_contents(const uint8_t *data, size_t size, const pack_base *base)
{
    pack_contents *c = NULL;
    moe_error err = {.text = ""};
    char *head;
    size_t n;

    if (pack_contents_read((const char *)data, size, base, &c, &err) != MOE_OK) {
        MOE_ASSERT(c == NULL && err.text[0] != '\0');
        return;
    }
    for (size_t i = 1; i < pack_contents_n(c); i++) {
        MOE_ASSERT(strcmp(pack_contents_at(c, i - 1)->name, pack_contents_at(c, i)->name) < 0);
    }
    for (int router_only = 0; router_only < 2; router_only++) {
        MOE_ASSERT(pack_contents_head(c, router_only == 1, &head, &n) == MOE_OK && n > 8);
        free(head);
    }
    pack_contents_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char fingerprint[32];
    const model_config config = {.model_type = "olmoe",
                                 .n_layers = 3,
                                 .d_model = 4,
                                 .d_ff = 3,
                                 .n_experts = 4,
                                 .n_ffn_experts = 4,
                                 .n_att_experts = 2,
                                 .n_heads = 3,
                                 .head_dim = 1,
                                 .gate_kind = MODEL_GATE_LINEAR,
                                 .ffn = COMPUTE_FFN_SWIGLU};
    const pack_base base = {&config, fingerprint, COMPUTE_BF16};
    pack *p = NULL;
    moe_error err = {.text = ""};

    if (pack_open_memory((const char *)data, size, open_tensors(), &base, NULL, &p, &err) == MOE_OK) {
        check(p, &config);
    } else {
        MOE_ASSERT(p == NULL && err.text[0] != '\0');
    }
    pack_close(p);
    check_contents(data, size, &base);
    return 0;
}
