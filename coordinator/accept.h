/* accept: which packs that nodes offer are switched on without being asked for (--accept-packs). Pure: what is to be done with an
 * offer follows from the rules and the catalogue, so all coordinators with the same rules want the same.
 *
 * A pack is switched on by itself once. One that has been in the default set, or that somebody else has begun with (a trial), is left
 * to people: who removed it or rolled it back does not see it come again, whoever offers it. What the rule itself began and was
 * undone does not count. */
#ifndef CONCLAVE_COORDINATOR_ACCEPT_H
#define CONCLAVE_COORDINATOR_ACCEPT_H

#include "catalogue/catalogue.h"

#define ACCEPT_MAX_RULES 64             /* as many packs as a node offers */
#define ACCEPT_WHO       "accept-packs" /* in the catalogue's log */

typedef struct accept_rules {
    bool all; /* whatever is offered */
    size_t n;
    struct {
        char name[CATALOGUE_MAX_NAME + 1], hash[65];
    } at[ACCEPT_MAX_RULES];
} accept_rules;

/* NAME@SHA256[,...], the SHA-256 of the pack's pack.json in hex digits, or "offered"; NULL: none. Errors: MOE_ERR_INVALID_ARG names
 * the value. */
MOE_NODISCARD moe_status accept_read(const char *text, accept_rules *out, moe_error *err);
bool accept_is_empty(const accept_rules *r);

typedef enum {
    ACCEPT_FOREIGN, /* no rule is for it */
    ACCEPT_KNOWN,   /* it is in the default set, or was, or is in somebody's hands */
    ACCEPT_TAKEN,   /* another pack of its name is active: that is for people to replace */
    ACCEPT_NOW
} accept_verdict;
/* name and hash: of an offer. *taken_out: with ACCEPT_TAKEN, the pack that is active. */
accept_verdict accept_judge(const accept_rules *r, const catalogue *c, const char *name, const char *hash,
                            const catalogue_pack **taken_out);

#endif
