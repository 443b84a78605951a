/* pack: new experts for a model that is served, as files of others: never trusted. docs/packs.md has the format.
 *
 * A pack is a directory: pack.json, its manifest, and safetensors (model.safetensors, or an index and its shards).
 *
 *   add       new experts, each with the row of the router that chooses it
 *   replace   new experts in the places of old ones, whose router rows they take over
 *
 * It is known by the SHA-256 of its manifest, which has that of every tensor; so is each of its experts (pack_expert.hash).
 *
 * Checked before anything is used: the manifest's keys, kinds and limits; whose base it is; that files and manifest name the
 * same tensors; dtypes, shapes, that every value is finite, and the SHA-256 of every tensor; with a key, the signature.
 *
 * Threads: open and close on one; all reads from any. The tensors are mapped from the files (checkpoint_open). */
#ifndef CONCLAVE_PACK_H
#define CONCLAVE_PACK_H

#include "base/base.h"
#include "checkpoint/checkpoint.h"
#include "model/model.h"

#define PACK_MAX_NAME       63                 /* characters of A-Z a-z 0-9 . - _ */
#define PACK_MAX_EXPERTS    1024               /* of a layer */
#define PACK_MAX_ALL        16384              /* experts of a pack; as many attention experts */
#define PACK_MAX_MANIFEST   ((size_t)64 << 20) /* bytes of pack.json */
#define PACK_SIGNATURE_SIZE 64                 /* bytes of pack.sig: Ed25519 */

typedef struct pack pack;
typedef enum { PACK_ADD, PACK_REPLACE } pack_kind;

/* The model that packs are for; all is borrowed for the call. */
typedef struct pack_base {
    const model_config *config;
    const unsigned char *fingerprint; /* [32] */
    compute_dtype dtype;              /* of its experts' matrices */
} pack_base;

/* Of a checkpoint that is open; borrowed from all three. Errors: those of model_expert_tensors. */
MOE_NODISCARD moe_status pack_base_of(const model_config *c, const model_tensors *t,
                                      const checkpoint_manifest *manifest, pack_base *out, moe_error *err);

/* The same opened from a directory, with its fingerprint: from the cache that the servers use, or hashed. cache_dir: as of
 * checkpoint_manifest_build. */
typedef struct pack_model {
    model_config config;
    checkpoint *files;            /* owned */
    model_tensors *tensors;       /* owned */
    checkpoint_manifest manifest; /* owned */
    compute_dtype dtype;          /* of its experts' matrices */
} pack_model;

/* Errors: those of model_config_load, checkpoint_open, model_tensors_open and checkpoint_manifest_build. */
MOE_NODISCARD moe_status pack_model_open(const char *dir, const char *cache_dir, checkpoint_progress progress,
                                         void *progress_ctx, pack_model *out, moe_error *err);
void pack_model_close(pack_model *m);
pack_base pack_model_base(const pack_model *m); /* borrowed from m */

typedef struct pack_expert {
    const checkpoint_tensor *gate; /* [d_ff, d_model]; NULL where the family's experts have none */
    const checkpoint_tensor *up;   /* [d_ff, d_model] */
    const checkpoint_tensor *down; /* [d_model, d_ff] */
    int32_t replaces;              /* the base's expert; -1 with PACK_ADD */
    unsigned char hash[32];        /* pack_expert_hash */
} pack_expert;

typedef struct pack_layer {
    uint32_t layer, n_experts;
    const pack_expert *experts; /* [n_experts] */
    /* PACK_ADD: rows of the gate's last layer [n_experts, width], width being that layer's input. Otherwise NULL. */
    const checkpoint_tensor *router;
    /* With a gate map (MoE++), in layers but the first: what the logits of the layer before add to those of these experts
     * [n_experts, experts of the base + the pack's in that layer], and what the pack's in that layer add to those of the base
     * [experts of the base, the pack's in that layer], which is NULL where that has none. */
    const checkpoint_tensor *map_rows, *map_columns;
    /* PACK_ADD, of a model with attention experts: those that come with the experts, and their rows of that gate's last layer
     * [n_attention, width]. They stay in the coordinators (model_gate_part). */
    const checkpoint_tensor *attention_router;
    const model_attention_parts *attention; /* [n_attention] */
    uint32_t n_attention;
} pack_layer;

typedef struct pack_options {
    const char
        *key_file; /* PEM, an Ed25519 public key: DIR/pack.sig must be its signature of pack.json. NULL: none asked */
    /* The directory has what a coordinator needs alone, the tensors of the router and of attention experts, or all: matrices of
     * other experts are NULL, and not looked at. */
    bool router_only;
    checkpoint_progress progress; /* bytes hashed and all; may be NULL */
    void *progress_ctx;
} pack_options;

/* Errors:
 *   MOE_ERR_NOT_FOUND     no pack.json, no safetensors, no pack.sig
 *   MOE_ERR_INVALID_ARG   names the key or the tensor, what it is and what it must be
 *   MOE_ERR_CORRUPT       a file that is not well-formed, or bytes with another SHA-256 than the manifest has
 *   MOE_ERR_DENIED        another base or family; a signature that is not the key's
 *   MOE_ERR_NO_MEMORY, MOE_ERR_IO */
MOE_NODISCARD moe_status pack_open(const char *dir, const pack_base *base, const pack_options *options, pack **out,
                                   moe_error *err);
/* The same of a manifest and tensors in memory; the tensors belong to the pack from now on, also when it fails. For tests and
 * the fuzz target. */
MOE_NODISCARD moe_status pack_open_memory(const char *manifest, size_t n, checkpoint *tensors, const pack_base *base,
                                          const pack_options *options, pack **out, moe_error *err);
void pack_close(pack *p); /* NULL is fine */
/* Whether it is the key's signature of a manifest: as pack_open asks with options.key_file.
 * Errors: MOE_ERR_DENIED: it is not; MOE_ERR_NOT_FOUND, MOE_ERR_INVALID_ARG: the file is no key. */
MOE_NODISCARD moe_status pack_check_signature(const char *key_file, const void *signature, size_t n_signature,
                                              const void *manifest, size_t n, moe_error *err);

pack_kind pack_get_kind(const pack *p);
const char *pack_name(const pack *p);
const char *pack_version(const pack *p); /* 1 to PACK_MAX_NAME characters, as the name's */
const char *pack_licence(const pack *p); /* "": not given */
const char *pack_hash(const pack *p);    /* 64 hex digits */
/* Such a text as bytes, into 32 zeros. False: it is something else. */
bool pack_read_digest(const char *hex, checkpoint_digest *out);
size_t pack_n_layers(const pack *p);                            /* that it has experts for */
const pack_layer *pack_at(const pack *p, size_t i);             /* ascending layer */
const pack_layer *pack_layer_of(const pack *p, uint32_t layer); /* NULL: it has no experts there */
size_t pack_n_experts(const pack *p);
size_t pack_n_attention(const pack *p); /* attention experts */
size_t pack_bytes(const pack *p);       /* of all its tensors */
/* One of its tensors was read: its pages of the file leave this process (checkpoint_forget). */
void pack_forget(const pack *p, const checkpoint_tensor *t);
/* What tells an expert from all others: SHA-256 of "conclave-expert 1", the hash of its pack in hex, its layer, and its
 * place among the pack's experts of that layer, a line each. */
void pack_expert_hash(const char *pack_hash, uint32_t layer, uint32_t place, unsigned char out[32]);

/* ------------------------------------------------------------------------------------------------ parts
 * A pack as it is handed from member to member: its files without their names, numbered. */
enum { PACK_PART_MANIFEST, PACK_PART_SIGNATURE, PACK_PART_TENSORS /* the first; in byte order of their names */ };
/* False: there is no such part. The bytes are borrowed from the pack. */
bool pack_part(const pack *p, uint32_t part, const unsigned char **bytes_out, size_t *n_out);

/* What a manifest says of the files, before they are there. It is as true as the manifest's hash is the one asked for; that
 * layers and tensors fit is checked when the pack is opened. */
typedef struct pack_content {
    const char *name; /* borrowed from the contents */
    const char *dtype_name;
    size_t shape[2], bytes;
    checkpoint_digest digest;
    bool is_router; /* of the tensors that router_only needs: those of attention experts as well */
} pack_content;
typedef struct pack_contents pack_contents;

/* Errors: those of pack_open for the manifest; a tensor that is no matrix of F32, BF16 or F16. */
MOE_NODISCARD moe_status pack_contents_read(const char *manifest, size_t n, const pack_base *base, pack_contents **out,
                                            moe_error *err);
void pack_contents_close(pack_contents *c); /* NULL is fine */
size_t pack_contents_n(const pack_contents *c);
const pack_content *pack_contents_at(const pack_contents *c, size_t i); /* part PACK_PART_TENSORS + i */
/* The head of a safetensors file of these tensors, or those of the router alone, one after the other. *out is owned (free). */
MOE_NODISCARD moe_status pack_contents_head(const pack_contents *c, bool router_only, char **out, size_t *n_out);

#endif
