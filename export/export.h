/* export: a model with its packs and a set of their experts, written as a checkpoint of its own, in the layout that the family
 * publishes. docs/export.md says what is exact.
 *
 * The experts of the set get new numbers in each layer: the checkpoint's own in their order, then the packs', then (MoE++)
 * those without an FFN. An expert of a pack that replaces has the router's rows of the one that it replaces. All layers of a
 * checkpoint have as many experts: where the set has fewer there are *silent* ones (matrices of zeros), and
 * conclave_set.json (catalogue_read_own) beside the weights says which experts are routed to.
 *
 * Written a tensor at a time, in pieces: memory does not grow with the model. Files stay in a folder inside of `out` until all
 * are on the disk and were opened again; then they are moved.
 *
 * Threads: any one. */
#ifndef CONCLAVE_EXPORT_H
#define CONCLAVE_EXPORT_H

#include "base/base.h"
#include "compute/compute.h"

/* Bytes of tensors that were written, and all; often called. False stops. */
typedef bool (*export_progress)(void *ctx, size_t done, size_t total);

typedef struct export_options {
    const char *model, *out;  /* directories; out is new or empty */
    const char *const *packs; /* [n_packs] directories, in the order in which they were taken in: ids follow from it */
    size_t n_packs;
    const char *key_file; /* that must have signed the packs; NULL: none */
    /* The set: JSON as catalogue_read_set takes it, over the checkpoint's experts and the packs'; NULL: all of them, without
     * those that are replaced. */
    const char *set;
    size_t set_bytes;
    const char *const
        *exclude; /* [n_exclude] packs by name, or "base", whose experts the set has not; not with `set` */
    size_t n_exclude;
    /* So many FFN experts in every layer; 0: as many as the layer of the set that has most. Where the set has more, those with
     * the highest ids are left out. Where it has fewer, silent ones are added if the router can be kept from them (a gate with
     * a bias); if not, experts of the checkpoint and the packs that the set has not, lowest ids first, and silent ones only
     * where there are no more of those. */
    uint32_t uniform;
    compute_dtype dtype;      /* of all tensors; COMPUTE_DTYPE_OTHER: as they are */
    size_t file_bytes;        /* a file gets no further tensor that would make it larger; 0: 4 GiB */
    export_progress progress; /* may be NULL */
    void *progress_ctx;
} export_options;

typedef struct export_result {
    size_t n_tensors, n_files, n_copied, bytes; /* bytes: of tensors */
    uint32_t n_experts;                         /* FFN experts of every layer, silent ones included */
    size_t n_left_out, n_taken_back, n_silent;  /* experts of all layers: by `uniform`, and silent ones */
    bool has_set_file; /* some experts are not routed to: conclave_set.json names those that are */
    bool stock_exact;  /* whoever does not read that file routes as the set says, too */
} export_result;

/* Errors:
 *   MOE_ERR_INVALID_ARG   names the option, value and limit
 *   MOE_ERR_EXISTS        out is there and not empty
 *   MOE_ERR_UNSUPPORTED   fewer experts than the gate can have (MoE++ with a gate of two layers)
 *   MOE_ERR_IO            a file that cannot be written; too little room on the disk, with both numbers
 *   MOE_ERR_CANCELLED     progress said so
 *   and those of pack_model_open and pack_open. After any of them `out` is as before. */
MOE_NODISCARD moe_status export_run(const export_options *o, export_result *out, moe_error *err);

#endif
