/* Base spaces for tests, by shape: made once, borrowed, there until the program ends. */
#ifndef CONCLAVE_TESTS_SPACE_H
#define CONCLAVE_TESTS_SPACE_H

#include "router/router.h"
#include "tests/support/support.h"

#define TEST_SPACES 512

static inline router_space *test_space(uint32_t n_layers, uint32_t n_experts)
{
    static router_space *spaces[TEST_SPACES];
    moe_error err;
    size_t i = 0;

    for (; i < TEST_SPACES && spaces[i] != NULL; i++) {
        if (router_space_n_layers(spaces[i]) == n_layers && router_space_base_experts(spaces[i]) == n_experts) {
            return spaces[i];
        }
    }
    assert_true(i < TEST_SPACES);
    assert_ok(router_space_open_base(n_layers, n_experts, 0, &spaces[i], &err), err);
    return spaces[i];
}

#endif
