/* What the files of pack share. */
#ifndef CONCLAVE_PACK_PRIV_H
#define CONCLAVE_PACK_PRIV_H

#include "pack/pack.h"

struct pack {
    pack_kind kind;
    char name[PACK_MAX_NAME + 1], version[PACK_MAX_NAME + 1], hash[65];
    char *licence;  /* owned */
    char *manifest; /* owned [n_manifest] */
    size_t n_manifest;
    unsigned char signature[PACK_SIGNATURE_SIZE];
    bool is_signed;                   /* there is one; whose it is was checked if that was asked */
    checkpoint *tensors;              /* owned */
    pack_layer *layers;               /* owned [n_layers]; their experts point into experts */
    pack_expert *experts;             /* owned [n_experts] */
    model_attention_parts *attention; /* owned [n_attention] */
    size_t n_layers, n_experts, n_attention;
};

/* manifest.c: fills the pack from its manifest; tensors are found, not yet looked into. used [tensors of the checkpoint] says
 * which were named, digests [as many] what they must be. */
typedef struct pack_reading {
    pack *p;
    const pack_base *base;
    bool router_only;
    const moe_json *listed;     /* the manifest's "tensors" */
    bool *used;                 /* owned */
    checkpoint_digest *digests; /* owned */
} pack_reading;
MOE_NODISCARD moe_status pack_read_manifest(pack_reading *r, const moe_json *json, moe_error *err);

/* Family and fingerprint of a manifest are those of the base. */
MOE_NODISCARD moe_status pack_check_base(const pack_base *base, const moe_json *json, moe_error *err);

#define PACK_MANIFEST_DEPTH 16

#endif
