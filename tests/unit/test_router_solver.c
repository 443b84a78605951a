#include "tests/support/space.h"
#include "tests/support/support.h"

#include "router/router.h"

#define MAX_EXPERTS 40

typedef struct scene {
    router_solver_node nodes[8];
    router_solver_input in;
} scene;

static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

static void scene_init(scene *s, size_t n_nodes, uint32_t n_layers, uint32_t n_experts, uint32_t replication)
{
    *s = (scene){0};
    for (size_t i = 0; i < n_nodes; i++) {
        s->nodes[i] = (router_solver_node){.id = names[i], .memory_bytes = (uint64_t)1 << 40, .expert_bytes = 1 << 20};
    }
    s->in = (router_solver_input){.nodes = s->nodes,
                                  .n_nodes = n_nodes,
                                  .space = test_space(n_layers, n_experts),
                                  .replication = replication,
                                  .epoch = 7};
}

static uint32_t n_layers_of(const router_placement *p)
{
    return router_space_n_layers(router_placement_space(p));
}

static uint32_t n_experts_of(const router_placement *p)
{
    return router_space_widest(router_placement_space(p));
}

static router_placement *solve(const scene *s)
{
    router_placement *p = NULL;
    moe_error err;

    assert_ok(router_solve(&s->in, &p, &err), err);
    return p;
}

static bool holds(const router_placement *p, uint32_t layer, int32_t expert, const char *id)
{
    size_t n;
    const uint32_t *nodes = router_placement_replicas(p, layer, expert, &n);

    for (size_t i = 0; i < n; i++) {
        if (strcmp(router_placement_node_id(p, nodes[i]), id) == 0) {
            return true;
        }
    }
    return false;
}

/* Copies of p on node id; in one layer, or in all (layer < 0). */
static size_t load(const router_placement *p, int layer, const char *id)
{
    size_t n = 0;

    for (uint32_t l = 0; l < n_layers_of(p); l++) {
        for (uint32_t e = 0; (layer < 0 || l == (uint32_t)layer) && e < n_experts_of(p); e++) {
            n += holds(p, l, (int32_t)e, id);
        }
    }
    return n;
}

/* Copies of `to` that were not in `from`. */
static size_t moved(const router_placement *from, const router_placement *to)
{
    size_t n = 0;

    for (uint32_t l = 0; l < n_layers_of(to); l++) {
        for (uint32_t e = 0; e < n_experts_of(to); e++) {
            for (size_t i = 0; i < router_placement_n_nodes(to); i++) {
                const char *id = router_placement_node_id(to, i);

                n += holds(to, l, (int32_t)e, id) && !holds(from, l, (int32_t)e, id);
            }
        }
    }
    return n;
}

static void check_counts(const router_placement *p, size_t wanted)
{
    size_t n;

    for (uint32_t l = 0; l < n_layers_of(p); l++) {
        for (uint32_t e = 0; e < n_experts_of(p); e++) {
            router_placement_replicas(p, l, (int32_t)e, &n);
            assert_int_equal(n, wanted);
        }
    }
}

static void every_expert_has_as_many_distinct_owners_as_asked(void **state)
{
    (void)state;
    for (size_t n_nodes = 1; n_nodes <= 8; n_nodes++) {
        for (uint32_t replication = 1; replication <= 4; replication++) {
            scene s;
            scene_init(&s, n_nodes, 3, 13, replication);
            router_placement *p = solve(&s);
            check_counts(p, MOE_MIN(replication, n_nodes));
            assert_int_equal(router_placement_epoch(p), 7);
            router_placement_unref(p);
        }
    }
}

static void equal_nodes_differ_by_at_most_one_expert_in_every_layer(void **state)
{
    (void)state;
    for (size_t n_nodes = 1; n_nodes <= 8; n_nodes++) {
        scene s;
        scene_init(&s, n_nodes, 5, 16, 2);
        router_placement *p = solve(&s);
        for (int l = 0; l < 5; l++) {
            size_t least = SIZE_MAX, most = 0;
            for (size_t i = 0; i < n_nodes; i++) {
                least = MOE_MIN(least, load(p, l, names[i]));
                most = MOE_MAX(most, load(p, l, names[i]));
            }
            assert_true(most - least <= 1);
        }
        router_placement_unref(p);
    }
}

static void shares_follow_memory(void **state)
{
    scene s;

    (void)state;
    scene_init(&s, 2, 4, 16, 1);
    s.nodes[0].memory_bytes = (uint64_t)3 << 30;
    s.nodes[1].memory_bytes = (uint64_t)1 << 30;
    router_placement *p = solve(&s);
    assert_int_equal(load(p, -1, "a"), 48);
    assert_int_equal(load(p, -1, "b"), 16);
    router_placement_unref(p);
}

static void memory_is_a_hard_bound(void **state)
{
    scene s;

    (void)state;
    scene_init(&s, 3, 4, 10, 2);
    s.nodes[1].memory_bytes = (uint64_t)7 << 20; /* 7 experts */
    router_placement *p = solve(&s);
    assert_true(load(p, -1, "b") <= 7);
    check_counts(p, 2);
    router_placement_unref(p);
}

static void an_exact_fit_is_found(void **state)
{
    scene s;

    (void)state;
    scene_init(&s, 3, 3, 7, 2); /* 42 copies; no node can use more than 21 */
    s.nodes[0].memory_bytes = (uint64_t)21 << 20;
    s.nodes[1].memory_bytes = (uint64_t)16 << 20;
    s.nodes[2].memory_bytes = (uint64_t)5 << 20;
    router_placement *p = solve(&s);
    check_counts(p, 2);
    assert_int_equal(load(p, -1, "a"), 21);
    assert_int_equal(load(p, -1, "b"), 16);
    assert_int_equal(load(p, -1, "c"), 5);
    router_placement_unref(p);
}

static void what_does_not_fit_is_named(void **state)
{
    scene s;
    router_placement *p = NULL;
    moe_error err;

    (void)state;
    scene_init(&s, 2, 3, 7, 1);
    s.nodes[0].memory_bytes = (uint64_t)11 << 20;
    s.nodes[1].memory_bytes = (uint64_t)9 << 20;
    assert_int_equal(router_solve(&s.in, &p, &err), MOE_ERR_BUSY);
    assert_contains(err.text, "21 copies");
    assert_contains(err.text, "room for 20");
    assert_contains(err.text, "a 11, b 9");
}

/* Experts of a layer with so many copies. */
static size_t with_copies(const router_placement *p, uint32_t layer, size_t copies)
{
    size_t n_experts = 0, n;

    for (uint32_t e = 0; e < n_experts_of(p); e++) {
        router_placement_replicas(p, layer, (int32_t)e, &n);
        n_experts += n == copies;
    }
    return n_experts;
}

static void room_for_copies_on_one_node_is_no_room_for_replicas(void **state)
{
    scene s;

    (void)state;
    scene_init(&s, 2, 2, 8, 2); /* node a has room for all 32 copies, but may hold each expert once */
    s.nodes[1].memory_bytes = (uint64_t)15 << 20;
    router_placement *p = solve(&s);
    assert_int_equal(load(p, -1, "a"), 16);
    assert_int_equal(load(p, -1, "b"), 14); /* a place stays free */
    router_placement_unref(p);
}

/* 3 nodes with 21 places, 3 layers of 7 experts: two copies of each take 42. */
static void where_memory_is_short_as_many_experts_as_fit_keep_a_copy_more(void **state)
{
    for (uint32_t replication = 2; replication <= 3; replication++) {
        for (uint64_t places = 7; places <= 21; places++) {
            scene s;

            (void)state;
            scene_init(&s, 3, 3, 7, replication);
            for (size_t i = 0; i < 3; i++) {
                s.nodes[i].memory_bytes = places << 20;
            }
            router_placement *p = solve(&s);
            size_t total = 0, least = MOE_MIN((size_t)replication, 3 * (size_t)places / 21);
            for (size_t i = 0; i < 3; i++) {
                assert_true(load(p, -1, names[i]) <= places);
                total += load(p, -1, names[i]);
            }
            for (uint32_t l = 0; l < 3; l++) {
                assert_int_equal(with_copies(p, l, least) + with_copies(p, l, least + 1), 7);
                assert_int_equal(with_copies(p, l, least), with_copies(p, 0, least));
            }
            /* what is not used: a place per node, and what is too little for one expert in every layer */
            assert_true(total == (size_t)21 * replication || total + 3 + 3 > 3 * places);
            router_placement_unref(p);
        }
    }
}

/* Three nodes are full at replication 2, one is lost. What is left covers every expert: nothing need be loaded. */
static void full_nodes_that_lose_one_keep_what_they_have(void **state)
{
    scene s;

    (void)state;
    scene_init(&s, 3, 4, 30, 2);
    for (size_t i = 0; i < 3; i++) {
        s.nodes[i].memory_bytes = (uint64_t)80 << 20;
    }
    router_placement *before = solve(&s);
    check_counts(before, 2);
    s.in.n_nodes = 2;
    s.in.previous = before;
    router_placement *after = solve(&s);
    for (uint32_t l = 0; l < 4; l++) {
        assert_int_equal(with_copies(after, l, 1) + with_copies(after, l, 2), 30);
        assert_int_equal(with_copies(after, l, 2), 9); /* 79 + 79 - 120, in four layers */
    }
    assert_true(moved(before, after) <= 4);
    router_placement_unref(before);
    router_placement_unref(after);
}

static void solving_again_moves_nothing(void **state)
{
    (void)state;
    for (size_t n_nodes = 1; n_nodes <= 8; n_nodes++) {
        scene s;
        scene_init(&s, n_nodes, 5, 13, 2);
        s.nodes[0].zone = "east";
        router_placement *first = solve(&s);
        s.in.previous = first;
        router_placement *second = solve(&s);
        assert_int_equal(moved(first, second), 0);
        router_placement_unref(first);
        router_placement_unref(second);
    }
}

static void a_node_that_joins_takes_its_share_and_nothing_else_moves(void **state)
{
    (void)state;
    for (size_t n_nodes = 1; n_nodes <= 3; n_nodes++) {
        scene s;
        scene_init(&s, n_nodes, 4, 32, 1);
        router_placement *before = solve(&s);
        s.nodes[n_nodes] = s.nodes[0];
        s.nodes[n_nodes].id = names[n_nodes];
        s.in.n_nodes++;
        s.in.previous = before;
        router_placement *after = solve(&s);
        assert_int_equal(moved(before, after), load(after, -1, names[n_nodes]));
        router_placement_unref(before);
        router_placement_unref(after);
    }
}

static void a_node_that_leaves_moves_only_its_own_experts(void **state)
{
    (void)state;
    for (size_t n_nodes = 2; n_nodes <= 4; n_nodes++) {
        scene s;
        scene_init(&s, n_nodes, 4, 32, 1);
        router_placement *before = solve(&s);
        size_t lost = load(before, -1, names[n_nodes - 1]);
        s.in.n_nodes--;
        s.in.previous = before;
        router_placement *after = solve(&s);
        assert_int_equal(moved(before, after), lost);
        router_placement_unref(before);
        router_placement_unref(after);
    }
}

/* Of four nodes one is lost: only what nobody else has gets owners, and a solve afterwards leaves those where they are. */
static void only_what_is_lost_is_placed_anew_when_that_is_asked_for(void **state)
{
    for (uint32_t replication = 1; replication <= 3; replication++) {
        scene s;
        size_t n_lost = 0, n;

        (void)state;
        scene_init(&s, 4, 3, 20, replication);
        router_placement *before = solve(&s);
        s.in.n_nodes = 3;
        s.in.previous = before;
        s.in.only_lost = true;
        router_placement *repaired = solve(&s);
        s.in.only_lost = false;
        router_placement *from_before = solve(&s);
        s.in.previous = repaired;
        router_placement *after = solve(&s);
        for (uint32_t l = 0; l < 3; l++) {
            for (int32_t e = 0; e < 20; e++) {
                size_t left = 0, lost = 0;
                for (size_t i = 0; i < 3; i++) {
                    left += holds(before, l, e, names[i]);
                    lost += holds(before, l, e, names[i]) && !holds(repaired, l, e, names[i]);
                }
                router_placement_replicas(repaired, l, e, &n);
                assert_int_equal(lost, 0);
                assert_int_equal(n, left > 0 ? left : replication);
                n_lost += left == 0;
            }
        }
        assert_true(replication > 1 || n_lost == load(before, -1, "d"));
        assert_int_equal(moved(before, repaired), n_lost * replication);
        assert_int_equal(moved(repaired, after), moved(before, from_before) - n_lost * replication);
        router_placement_unref(before);
        router_placement_unref(repaired);
        router_placement_unref(from_before);
        router_placement_unref(after);
    }
}

/* Full nodes: what is lost takes the places of copies that are not the last. */
static void what_is_lost_finds_room_on_full_nodes(void **state)
{
    scene s;
    size_t n;

    (void)state;
    scene_init(&s, 3, 4, 30, 2);
    for (size_t i = 0; i < 3; i++) {
        s.nodes[i].memory_bytes = (uint64_t)70 << 20; /* 207 of 240 copies */
    }
    router_placement *before = solve(&s);
    s.in.n_nodes = 2;
    s.in.previous = before;
    s.in.only_lost = true;
    router_placement *repaired = solve(&s);
    for (uint32_t l = 0; l < 4; l++) {
        for (int32_t e = 0; e < 30; e++) {
            router_placement_replicas(repaired, l, e, &n);
            assert_true(n >= 1);
        }
    }
    assert_true(moved(before, repaired) > 0);
    assert_true(load(repaired, -1, "a") <= 70 && load(repaired, -1, "b") <= 70);
    router_placement_unref(before);
    router_placement_unref(repaired);
}

static void replicas_stand_in_different_zones(void **state)
{
    scene s;

    (void)state;
    scene_init(&s, 4, 3, 16, 2);
    s.nodes[0].zone = s.nodes[1].zone = "east";
    s.nodes[2].zone = s.nodes[3].zone = "west";
    router_placement *p = solve(&s);
    for (uint32_t l = 0; l < 3; l++) {
        for (int32_t e = 0; e < 16; e++) {
            assert_int_equal(holds(p, l, e, "a") + holds(p, l, e, "b"), 1);
        }
    }
    router_placement_unref(p);
}

static void zones_are_spread_when_they_become_known(void **state)
{
    scene s;

    (void)state;
    scene_init(&s, 4, 3, 16, 2);
    router_placement *before = solve(&s);
    s.nodes[0].zone = s.nodes[2].zone = "east";
    s.nodes[1].zone = s.nodes[3].zone = "west";
    s.in.previous = before;
    router_placement *p = solve(&s);
    check_counts(p, 2);
    for (uint32_t l = 0; l < 3; l++) {
        for (int32_t e = 0; e < 16; e++) {
            assert_int_equal(holds(p, l, e, "a") + holds(p, l, e, "c"), 1);
        }
    }
    router_placement_unref(before);
    router_placement_unref(p);
}

/* Any memory, zones, replication and previous placement: bounds and counts hold, or the refusal is right. */
static void random_clusters_keep_every_bound(void **state)
{
    moe_random r;
    router_placement *previous = NULL;

    (void)state;
    moe_random_seed(&r, 20);
    for (int round = 0; round < 400; round++) {
        uint32_t n_nodes = 1 + (uint32_t)moe_random_below(&r, 8);
        uint32_t n_experts = 1 + (uint32_t)moe_random_below(&r, MAX_EXPERTS), n_layers = 3;
        uint32_t wanted = 1 + (uint32_t)moe_random_below(&r, 3), replication = MOE_MIN(n_nodes, wanted);
        uint64_t room = 0, limit[8], all = (uint64_t)n_layers * n_experts;
        scene s;
        moe_error err;
        router_placement *p = NULL;

        scene_init(&s, n_nodes, n_layers, n_experts, replication);
        for (uint32_t i = 0; i < n_nodes; i++) {
            static const char *const zones[] = {"", "x", "y"};

            limit[i] = 1 + moe_random_below(&r, all + all / 2);
            s.nodes[i].memory_bytes = (limit[i] << 20) + moe_random_below(&r, 1 << 20);
            s.nodes[i].zone = zones[moe_random_below(&r, 3)];
            room += MOE_MIN(limit[i], all);
        }
        s.in.previous = previous;
        moe_status status = router_solve(&s.in, &p, &err);
        assert_int_equal(status, room >= all ? MOE_OK : MOE_ERR_BUSY);
        if (status == MOE_OK) {
            size_t least = MOE_MIN(replication, room / all);
            for (uint32_t l = 0; l < n_layers; l++) {
                assert_int_equal(with_copies(p, l, least) + with_copies(p, l, least + 1), n_experts);
                assert_true(least < replication || with_copies(p, l, least) == n_experts);
            }
            for (uint32_t i = 0; i < n_nodes; i++) {
                assert_true(load(p, -1, names[i]) <= limit[i]);
            }
            s.in.previous = p;
            router_placement *again = solve(&s);
            assert_int_equal(moved(p, again), 0);
            router_placement_unref(again);
            router_placement_unref(previous);
            previous = p;
        }
    }
    router_placement_unref(previous);
}

static void input_out_of_range_is_refused(void **state)
{
    scene s;
    router_placement *p = NULL;
    moe_error err;

    (void)state;
    scene_init(&s, 2, 3, 7, 0);
    assert_int_equal(router_solve(&s.in, &p, &err), MOE_ERR_INVALID_ARG);
    scene_init(&s, 8, 1024, 4096, 8);
    assert_int_equal(router_solve(&s.in, &p, &err), MOE_ERR_INVALID_ARG);
    scene_init(&s, 2, 3, 7, 1);
    s.nodes[1].expert_bytes = 0;
    assert_int_equal(router_solve(&s.in, &p, &err), MOE_ERR_INVALID_ARG);
    assert_contains(err.text, "node b");
    s.in.n_nodes = 0;
    assert_int_equal(router_solve(&s.in, &p, &err), MOE_ERR_INVALID_ARG);
}

/* Layers of different sizes, as packs make them: layer l has `base` experts and l % 3 * more added ones. */
static router_space *ragged(uint32_t n_layers, uint32_t base, uint32_t more)
{
    router_addition added[64];
    router_space *grown = NULL;
    size_t n = 0;
    moe_error err;

    for (uint32_t l = 0; l < n_layers; l++) {
        for (uint32_t i = 0; i < l % 3 * more; i++) {
            assert_true(n < MOE_COUNT(added));
            added[n++] = (router_addition){.layer = l, .id = (int32_t)(base + 2 * i)};
        }
    }
    assert_ok(router_space_grow(test_space(n_layers, base), added, n, &grown, &err), err);
    return grown;
}

/* Owners of every expert, and what each node holds of each layer, against what its share of all would be. */
static void check_ragged(const scene *s, const router_placement *p, size_t least, bool exact)
{
    const router_space *space = s->in.space;
    size_t n, of_node[8] = {0}, all = 0;

    for (uint32_t slot = 0; slot < router_space_n_slots(space); slot++) {
        (void)router_placement_owners(p, slot, &n);
        assert_in_range(n, least, exact ? least : least + 1);
        all += n;
    }
    for (size_t i = 0; i < s->in.n_nodes; i++) {
        of_node[i] = 0;
        for (uint32_t l = 0; l < router_space_n_layers(space); l++) {
            const router_space_layer *layer = router_space_at(space, l);

            for (uint32_t e = 0; e < layer->n_experts; e++) {
                of_node[i] += holds(p, l, layer->ids[e], names[i]);
            }
        }
        assert_true(of_node[i] * s->nodes[i].expert_bytes <= s->nodes[i].memory_bytes);
    }
    for (uint32_t l = 0; exact && l < router_space_n_layers(space); l++) {
        const router_space_layer *layer = router_space_at(space, l);

        for (size_t i = 0; i < s->in.n_nodes; i++) {
            size_t here = 0, fair = of_node[i] * layer->n_experts * least; /* times all */

            for (uint32_t e = 0; e < layer->n_experts; e++) {
                here += holds(p, l, layer->ids[e], names[i]);
            }
            assert_in_range(here * all, fair < all ? 0 : fair - all + 1, fair + all - 1);
        }
    }
}

static void layers_of_different_sizes_are_each_spread_evenly(void **state)
{
    router_space *space = ragged(7, 11, 4);

    (void)state;
    for (size_t n_nodes = 1; n_nodes <= 8; n_nodes++) {
        for (uint32_t replication = 1; replication <= 3; replication++) {
            scene s;

            scene_init(&s, n_nodes, 7, 11, replication);
            s.in.space = space;
            for (size_t i = 0; i < n_nodes; i++) {
                s.nodes[i].memory_bytes = (uint64_t)(i % 2 + 1) << 40;
            }
            router_placement *p = solve(&s);
            check_ragged(&s, p, MOE_MIN(replication, n_nodes), true);
            s.in.previous = p;
            router_placement *again = solve(&s);
            for (uint32_t slot = 0; slot < router_space_n_slots(space); slot++) {
                const router_expert *e = router_space_expert(space, slot);

                for (size_t i = 0; i < n_nodes; i++) {
                    assert_int_equal(holds(p, e->layer, e->id, names[i]), holds(again, e->layer, e->id, names[i]));
                }
            }
            router_placement_unref(p);
            router_placement_unref(again);
        }
    }
    router_space_unref(space);
}

static void layers_of_different_sizes_fit_whenever_one_copy_of_each_fits(void **state)
{
    moe_random r;

    (void)state;
    moe_random_seed(&r, 5);
    for (int round = 0; round < 400; round++) {
        uint32_t n_layers = 1 + (uint32_t)moe_random_below(&r, 7), base = 1 + (uint32_t)moe_random_below(&r, 6);
        router_space *space = ragged(n_layers, base, 1 + (uint32_t)moe_random_below(&r, 6));
        uint64_t all = router_space_n_node_experts(space), room = 0;
        scene s;
        router_placement *p = NULL;
        moe_error err;

        scene_init(&s, 1 + moe_random_below(&r, 6), n_layers, base, 1 + (uint32_t)moe_random_below(&r, 3));
        s.in.space = space;
        for (size_t i = 0; i < s.in.n_nodes; i++) {
            uint64_t limit = 1 + moe_random_below(&r, all + all / 2);

            s.nodes[i].memory_bytes = limit << 20;
            room += MOE_MIN(limit, all);
        }
        moe_status status = router_solve(&s.in, &p, &err);
        assert_int_equal(status, room >= all ? MOE_OK : MOE_ERR_BUSY);
        if (status == MOE_OK) {
            check_ragged(&s, p, MOE_MIN(MOE_MIN(s.in.replication, s.in.n_nodes), room / all), false);
            router_placement_unref(p);
        }
        router_space_unref(space);
    }
}

/* A pack is taken in beside what runs: nothing that is there moves for more than evenness asks. */
static void a_space_that_has_grown_keeps_what_was_placed(void **state)
{
    router_space *grown = ragged(6, 8, 2);
    scene s;

    (void)state;
    scene_init(&s, 4, 6, 8, 2);
    router_placement *before = solve(&s);
    s.in.space = grown;
    s.in.previous = before;
    router_placement *after = solve(&s);
    check_ragged(&s, after, 2, true);
    for (uint32_t l = 0; l < 6; l++) {
        for (int32_t e = 0; e < 8; e++) {
            for (size_t i = 0; i < 4; i++) {
                assert_int_equal(holds(before, l, e, names[i]), holds(after, l, e, names[i]));
            }
        }
    }
    router_placement_unref(before);
    router_placement_unref(after);
    router_space_unref(grown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_expert_has_as_many_distinct_owners_as_asked),
        cmocka_unit_test(equal_nodes_differ_by_at_most_one_expert_in_every_layer),
        cmocka_unit_test(shares_follow_memory),
        cmocka_unit_test(memory_is_a_hard_bound),
        cmocka_unit_test(an_exact_fit_is_found),
        cmocka_unit_test(what_does_not_fit_is_named),
        cmocka_unit_test(room_for_copies_on_one_node_is_no_room_for_replicas),
        cmocka_unit_test(where_memory_is_short_as_many_experts_as_fit_keep_a_copy_more),
        cmocka_unit_test(full_nodes_that_lose_one_keep_what_they_have),
        cmocka_unit_test(solving_again_moves_nothing),
        cmocka_unit_test(a_node_that_joins_takes_its_share_and_nothing_else_moves),
        cmocka_unit_test(a_node_that_leaves_moves_only_its_own_experts),
        cmocka_unit_test(only_what_is_lost_is_placed_anew_when_that_is_asked_for),
        cmocka_unit_test(what_is_lost_finds_room_on_full_nodes),
        cmocka_unit_test(replicas_stand_in_different_zones),
        cmocka_unit_test(zones_are_spread_when_they_become_known),
        cmocka_unit_test(random_clusters_keep_every_bound),
        cmocka_unit_test(input_out_of_range_is_refused),
        cmocka_unit_test(layers_of_different_sizes_are_each_spread_evenly),
        cmocka_unit_test(layers_of_different_sizes_fit_whenever_one_copy_of_each_fits),
        cmocka_unit_test(a_space_that_has_grown_keeps_what_was_placed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
