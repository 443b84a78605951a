#include <inttypes.h>

#include "cli/cluster.h"

static void write_range(cli_ranges *r, bool is_last)
{
    const char *word = r->more || !is_last || r->first != r->last ? "experts " : "expert ";

    moe_text_printf(r->out, "%s%" PRId32, r->more ? "," : word, r->first);
    if (r->last != r->first) {
        moe_text_printf(r->out, "%s%" PRId32, r->last == r->first + 1 ? "," : "-", r->last);
    }
    r->more = true;
}

void cli_ranges_add(cli_ranges *r, int32_t id)
{
    if (r->n_ids > 0 && (int64_t)id != (int64_t)r->last + 1) {
        write_range(r, false);
        r->first = id;
    } else if (r->n_ids == 0) {
        r->first = id;
    }
    r->last = id;
    r->n_ids++;
}

void cli_ranges_end(cli_ranges *r)
{
    if (r->n_ids > 0) {
        write_range(r, true);
    }
}
