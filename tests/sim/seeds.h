/* The seeds of a simulation. SIM_SEED=SEED or FIRST..LAST runs those alone; one that fails is named. */
#ifndef CONCLAVE_TESTS_SIM_SEEDS_H
#define CONCLAVE_TESTS_SIM_SEEDS_H

#include <stdbool.h>
#include <stdint.h>

extern uint64_t sim_seed; /* the one that runs; UINT64_MAX: none does */

/* All from 0 to last, unless others are asked for. True: it was all of them. */
bool sim_run_seeds(uint64_t last, void (*run_seed)(void));
int sim_name_seed(void **state); /* teardown of the test that runs them; also called when an assertion aborts */

#endif
