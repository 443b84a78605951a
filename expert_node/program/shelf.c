/* Packs on a node's disks. */
#include "expert_node/program/shelf.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Chosen, not measured. AHEAD: asked of the kernel at once, so that pieces which are read one after the other are there. LATER:
 * turns that a piece is waited for; then it is read as it is: memory may be so short that the kernel never keeps it. */
#define AHEAD_BYTES ((size_t)1 << 20)
#define MOST_LATER  20000
#define MAX_PATH    4096

const pack *shelf_find(const shelf *s, const unsigned char hash[32])
{
    for (size_t i = 0; i < s->n; i++) {
        if (memcmp(s->hashes[i], hash, 32) == 0) {
            return s->packs[i];
        }
    }
    return NULL;
}

moe_status shelf_add(shelf *s, pack *p, moe_error *err)
{
    checkpoint_digest hash = {{0}};

    MOE_ASSERT(pack_read_digest(pack_hash(p), &hash));
    moe_status status = shelf_find(s, hash.bytes) != NULL
                            ? moe_fail(err, MOE_ERR_EXISTS, "pack %s %s is there twice", pack_name(p), pack_version(p))
                        : s->n == SHELF_MAX_PACKS ? moe_fail(err, MOE_ERR_BUSY, "more than %d packs", SHELF_MAX_PACKS)
                                                  : MOE_OK;

    if (status != MOE_OK) {
        pack_close(p);
        return status;
    }
    memcpy(s->hashes[s->n], hash.bytes, sizeof hash.bytes);
    s->packs[s->n] = p;
    s->n++; /* now others see it */
    return MOE_OK;
}

static moe_status open_one(shelf *s, const char *dir, const pack_base *base, const pack_options *options,
                           moe_error *err)
{
    pack *p;
    moe_error why = {""};
    moe_status status = pack_open(dir, base, options, &p, &why);

    if (status == MOE_OK) {
        status = shelf_add(s, p, &why);
    }
    if (status != MOE_OK) {
        return moe_fail(err, status, "--pack %.400s: %s", dir, why.text);
    }
    MOE_INFO("pack %s %s, %zu experts, %s", pack_name(p), pack_version(p), pack_n_experts(p), pack_hash(p));
    return MOE_OK;
}

moe_status shelf_open_all(shelf *s, const char *dirs, const pack_base *base, const pack_options *options,
                          moe_error *err)
{
    const char *at = dirs, *item;
    char dir[MAX_PATH];
    size_t n;

    while (moe_list_next(&at, &item, &n)) {
        if (n == 0 || n >= sizeof dir) {
            return moe_fail(err, MOE_ERR_INVALID_ARG, "--pack: a path of %zu bytes, limits 1 and %zu", n,
                            sizeof dir - 1);
        }
        memcpy(dir, item, n);
        dir[n] = '\0';
        moe_status status = open_one(s, dir, base, options, err);
        if (status != MOE_OK) {
            return status;
        }
    }
    return MOE_OK;
}

void shelf_fini(shelf *s)
{
    for (size_t i = 0; i < s->n; i++) {
        pack_close(s->packs[i]);
    }
    s->n = 0;
}

/* Whether the bytes can be read without a disk; if not, they are asked for. */
static bool is_near(const unsigned char *bytes, size_t n, size_t ahead)
{
    unsigned char near[(64u << 10) / 4096 + 2];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = (uintptr_t)bytes / page * page;
    const size_t n_pages = ((uintptr_t)bytes + n - first + page - 1) / page;

    if (n_pages > sizeof near || mincore((void *)first, n_pages * page, near) != 0) {
        return true; /* nothing can be said */
    }
    for (size_t i = 0; i < n_pages; i++) {
        if ((near[i] & 1) == 0) {
            (void)madvise((void *)first, (uintptr_t)bytes + ahead - first, MADV_WILLNEED);
            return false;
        }
    }
    return true;
}

static expert_pack_answer read_part(void *ctx, const unsigned char hash[32], uint32_t part, uint64_t offset,
                                    size_t length, const unsigned char **bytes_out, uint64_t *size_out)
{
    shelf *s = ctx;
    const pack *p = shelf_find(s, hash);
    const unsigned char *bytes;
    size_t n;

    if (p == NULL || !pack_part(p, part, &bytes, &n)) {
        return EXPERT_PACK_NONE;
    }
    *size_out = n;
    if (offset >= n) {
        return EXPERT_PACK_HERE;
    }
    size_t left = n - (size_t)offset;
    if (!is_near(bytes + offset, MOE_MIN(left, length), MOE_MIN(left, AHEAD_BYTES)) && ++s->n_later < MOST_LATER) {
        return EXPERT_PACK_LATER;
    }
    s->n_later = 0;
    *bytes_out = bytes + offset;
    return EXPERT_PACK_HERE;
}

expert_packs shelf_reads(shelf *s)
{
    return (expert_packs){s, read_part};
}
