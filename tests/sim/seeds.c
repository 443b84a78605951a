#include "tests/sim/seeds.h"

#include <signal.h>
#include <stdlib.h>

#include "tests/support/support.h"

uint64_t sim_seed = UINT64_MAX;

static void range_of(const char *text, uint64_t *first, uint64_t *last)
{
    char *end;

    *first = *last = strtoull(text, &end, 10);
    if (end[0] == '.' && end[1] == '.') {
        *last = strtoull(end + 2, NULL, 10);
    }
}

int sim_name_seed(void **state)
{
    (void)state;
    if (sim_seed != UINT64_MAX) {
        print_message("failed with SIM_SEED=%llu\n", (unsigned long long)sim_seed);
    }
    return 0;
}

static void on_abort(int signal)
{
    (void)signal;
    (void)sim_name_seed(NULL); /* the process ends here anyway */
}

bool sim_run_seeds(uint64_t last, void (*run_seed)(void))
{
    const char *wanted = getenv("SIM_SEED");
    uint64_t first = 0;

    (void)signal(SIGABRT, on_abort);
    if (wanted != NULL) {
        range_of(wanted, &first, &last);
    }
    for (sim_seed = first; sim_seed <= last; sim_seed++) {
        run_seed();
    }
    sim_seed = UINT64_MAX;
    return wanted == NULL;
}
