/* --pack: packs that are there from the start, in an embedded coordinator; and what --pack-dir names. */
#include <string.h>
#include <sys/stat.h>

#include "coordinator/coordinator_priv.h"

#define MAX_PATH 4096

/* The next directory of --pack or --pack-dir; false: there is none, or (with an error in *status_out) one that no file system takes. */
static bool next_dir(const char *option, const char **at, char dir[MAX_PATH], moe_status *status_out, moe_error *err)
{
    const char *item;
    size_t n;

    if (!moe_list_next(at, &item, &n)) {
        return false;
    }
    if (n == 0 || n >= MAX_PATH) {
        *status_out =
            moe_fail(err, MOE_ERR_INVALID_ARG, "%s: a path of %zu bytes, limits 1 and %d", option, n, MAX_PATH - 1);
        return false;
    }
    memcpy(dir, item, n);
    dir[n] = '\0';
    return true;
}

size_t first_packs_bytes(const coordinator *c)
{
    const char *at = c->config.pack;
    char dir[MAX_PATH];
    size_t bytes = 0;
    moe_status status = MOE_OK;

    while (next_dir("--pack", &at, dir, &status, NULL)) {
        checkpoint *files;

        if (checkpoint_open(dir, &files, NULL) == MOE_OK) { /* why not is told when it is read */
            bytes += checkpoint_total_bytes(files);
            checkpoint_close(files);
        }
    }
    return bytes;
}

static moe_status read_all(coordinator *c, uint64_t now_ms, moe_error *err)
{
    const char *at = c->config.pack;
    char dir[MAX_PATH];
    moe_status status = MOE_OK;

    while (status == MOE_OK && next_dir("--pack", &at, dir, &status, err)) {
        catalogue *next = NULL;
        const pack *p;

        status = packs_read(c->packs, dir, &p, err);
        if (status == MOE_OK) {
            MOE_INFO("pack %s %s, %zu experts, %s", pack_name(p), pack_version(p), pack_n_experts(p), pack_hash(p));
            status = catalogue_with_pack(c->catalogue, p, "--pack", now_ms, &next, err);
        }
        if (status == MOE_OK) {
            catalogue_unref(c->catalogue);
            c->catalogue = next;
        }
    }
    return status;
}

static moe_status open_catalogue(coordinator *c, moe_error *err)
{
    const member_files *f = &c->files;
    catalogue_model of = {.space = f->space, .min_experts = f->config.gate.k, .own = c->base_set};
    pack_base base;
    moe_status status = pack_base_of(&f->config, f->tensors, &f->manifest, &base, err);

    memcpy(of.fingerprint, f->manifest.fingerprint.bytes, sizeof of.fingerprint);
    if (status == MOE_OK) {
        status = packs_open(&base, c->config.pack_key, &c->packs, err);
    }
    return status == MOE_OK ? catalogue_open(&of, &c->catalogue, err) : status;
}

/* They are needed later; a typing mistake is to be seen now. */
static moe_status check_pack_dirs(const coordinator *c, moe_error *err)
{
    const char *at = c->config.pack_dir;
    char dir[MAX_PATH];
    struct stat is;
    moe_status status = MOE_OK;

    while (next_dir("--pack-dir", &at, dir, &status, err)) {
        if (stat(dir, &is) != 0 || !S_ISDIR(is.st_mode)) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "--pack-dir %.400s: is no directory", dir);
        }
    }
    return status;
}

moe_status first_packs_check(coordinator *c, uint64_t now_ms, moe_error *err)
{
    const bool is_given = c->config.pack != NULL || c->config.pack_dir != NULL;

    if (coordinator_in_cluster(c) && is_given) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "%s: with --etcd, packs are given to the nodes (conclave-node)",
                        c->config.pack != NULL ? "--pack" : "--pack-dir");
    }
    moe_status status = check_pack_dirs(c, err);
    if (status == MOE_OK) {
        status = open_catalogue(c, err);
    }
    return status == MOE_OK ? read_all(c, now_ms, err) : status;
}

moe_status first_packs_load(coordinator *c, checkpoint_progress progress, void *progress_ctx, moe_error *err)
{
    embedded_changes changes = {
        .find = packs_expert, .find_ctx = c->packs, .progress = progress, .progress_ctx = progress_ctx};

    if (coordinator_in_cluster(c) || c->config.pack == NULL) {
        return MOE_OK;
    }
    moe_status status = packs_number(c->packs, c->catalogue, err);
    if (status != MOE_OK) {
        return status;
    }
    changes.space = catalogue_space(c->catalogue);
    changes.set = catalogue_default(c->catalogue);
    changes.packs = packs_gates(c->packs, &changes.n_packs);
    return embedded_change(c->embedded, c->engine, &changes, err);
}
