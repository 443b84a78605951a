#include "coordinator/accept.h"

#include <string.h>

#define OFFERED "offered"

/* ------------------------------------------------------------------------------------------------ reading */
static bool is_hash(const char *text, size_t n)
{
    return n == 64 && strspn(text, "0123456789abcdef") >= 64;
}

static moe_status read_rule(const char *item, size_t n, accept_rules *out, moe_error *err)
{
    const char *at = memchr(item, '@', n);
    size_t n_name = at != NULL ? (size_t)(at - item) : 0;
    const int shown = (int)MOE_MIN(n, (size_t)200);

    if (n == strlen(OFFERED) && memcmp(item, OFFERED, n) == 0) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--accept-packs: \"" OFFERED "\" takes whatever is offered: it stands alone");
    }
    if (n_name == 0 || n_name > CATALOGUE_MAX_NAME) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--accept-packs \"%.*s\": must be NAME@SHA256, of a name of 1 to %d characters, or " OFFERED,
                        shown, item, CATALOGUE_MAX_NAME);
    }
    if (!is_hash(at + 1, n - n_name - 1)) {
        return moe_fail(err, MOE_ERR_INVALID_ARG,
                        "--accept-packs \"%.*s\": after @ must be 64 hex digits in lower case: the SHA-256 of the "
                        "pack's pack.json",
                        shown, item);
    }
    if (out->n == ACCEPT_MAX_RULES) {
        return moe_fail(err, MOE_ERR_INVALID_ARG, "--accept-packs: more than %d packs", ACCEPT_MAX_RULES);
    }
    memcpy(out->at[out->n].name, item, n_name);
    out->at[out->n].name[n_name] = '\0';
    memcpy(out->at[out->n].hash, at + 1, 64);
    out->at[out->n++].hash[64] = '\0';
    return MOE_OK;
}

moe_status accept_read(const char *text, accept_rules *out, moe_error *err)
{
    const char *at = text, *item;
    moe_status status = MOE_OK;
    size_t n;

    memset(out, 0, sizeof *out);
    if (text != NULL && strcmp(text, OFFERED) == 0) {
        out->all = true;
        return MOE_OK;
    }
    while (status == MOE_OK && moe_list_next(&at, &item, &n)) {
        status = read_rule(item, n, out, err);
    }
    return status;
}

bool accept_is_empty(const accept_rules *r)
{
    return !r->all && r->n == 0;
}

/* ------------------------------------------------------------------------------------------------ judging */
static bool is_named(const accept_rules *r, const char *name, const char *hash)
{
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->at[i].hash, hash) == 0 && strcmp(r->at[i].name, name) == 0) {
            return true;
        }
    }
    return r->all;
}

/* Of a pack that was never in the default set: whether the last to begin with it, as the log says, was this rule, in vain. */
static bool is_ours(const catalogue *c, const catalogue_pack *p)
{
    char what[CATALOGUE_MAX_WHAT + 1];

    (void)snprintf(what, sizeof what, "add %s %s", p->name, p->version);
    for (size_t i = catalogue_n_entries(c); i-- > 0;) {
        const catalogue_entry *e = catalogue_entry_at(c, i);

        if (strncmp(e->what, what, strlen(what)) == 0) {
            return strcmp(e->who, ACCEPT_WHO) == 0;
        }
    }
    return false;
}

accept_verdict accept_judge(const accept_rules *r, const catalogue *c, const char *name, const char *hash,
                            const catalogue_pack **taken_out)
{
    accept_verdict verdict = ACCEPT_NOW;

    if (!is_named(r, name, hash)) {
        return ACCEPT_FOREIGN;
    }
    for (size_t i = 0; i < catalogue_n_packs(c); i++) {
        const catalogue_pack *p = catalogue_pack_at(c, i);

        if (strcmp(p->hash, hash) == 0 && (p->active || p->since_ms != 0 || !is_ours(c, p))) {
            return ACCEPT_KNOWN;
        }
        if (p->active && strcmp(p->name, name) == 0) {
            *taken_out = p;
            verdict = ACCEPT_TAKEN;
        }
    }
    return verdict;
}
