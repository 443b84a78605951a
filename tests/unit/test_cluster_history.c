/* The history of default sets, by seed: members come, go and lose the store while changes are asked for. Each coordinator
 * prepares after a while, or says that it cannot, and takes every new default that it sees. Whatever happens: what a
 * coordinator takes was the default in that order, nobody takes what it has not prepared for, and in the end each change is
 * done or undone, for all alike. */
#include "tests/unit/test_cluster_changes.h"

static world w;

typedef struct history {
    char ids[64][65]; /* of default sets, as they were committed */
    size_t n;
} history;

typedef struct follower {
    member *m;
    const char *name;
    size_t taken; /* index in the history */
    uint64_t prepared, due;
} follower;

static size_t find_default(const history *h, const char *id, size_t from)
{
    for (size_t i = from; i < h->n; i++) {
        if (strcmp(h->ids[i], id) == 0) {
            return i;
        }
    }
    return h->n;
}

/* What the store has is the history: written down before anybody can have seen it. */
static void note(history *h)
{
    const char *value = stored(&w, "catalogue"), *at = value != NULL ? strstr(value, "\"default\":\"") : NULL;

    if (at != NULL && (h->n == 0 || strncmp(h->ids[h->n - 1], at + 11, 64) != 0)) {
        assert_true(h->n < MOE_COUNT(h->ids));
        memcpy(h->ids[h->n], at + 11, 64);
        h->ids[h->n++][64] = '\0';
    }
}

static void follow(follower *f, const history *h, moe_random *r)
{
    const cluster_state *s = cluster_state_acquire(f->m->c);
    const catalogue_pending *p = catalogue_get_pending(s->catalogue);
    size_t at = find_default(h, router_set_id(catalogue_default(s->catalogue)), f->taken);

    if (s->catalogue_revision != 0 || f->taken > 0) {
        assert_true(at < h->n); /* in order, none that was not committed */
        f->taken = at;
    }
    if (p != NULL && p->number != f->prepared) {
        f->prepared = p->number;
        f->due = moe_now_ns(&w.clock.clock) + moe_random_below(r, 5) * SECOND;
    }
    if (p != NULL && f->due != 0 && moe_now_ns(&w.clock.clock) >= f->due) {
        f->due = 0;
        cluster_set_prepared(f->m->c, p->number, moe_random_below(r, 10) == 0 ? "no memory" : NULL);
    }
    cluster_state_release(s);
}

static void revive(follower *f)
{
    if (f->m->c == NULL) {
        *f = (follower){.m = add(&w, CLUSTER_COORDINATOR, f->name), .name = f->name};
    }
}

static void make_trouble(moe_random *r, follower f[2])
{
    const cluster_memory_faults faults = {.down = moe_random_below(r, 4) == 0,
                                          .fail_percent = (uint32_t)moe_random_below(r, 20),
                                          .lose_percent = (uint32_t)moe_random_below(r, 3),
                                          .max_delay_ns = moe_random_below(r, 300) * MS};
    size_t i = (size_t)moe_random_below(r, 2);

    switch (moe_random_below(r, 8)) {
    case 0:
        cluster_memory_set_faults(w.memory, &faults);
        break;
    case 1:
        cluster_memory_expire_leases(w.memory);
        break;
    case 2:
        if (f[i].m->c != NULL && f[1 - i].m->c != NULL) {
            kill_process(f[i].m);
        }
        break;
    case 3:
        if (w.n < MAX) {
            revive(&f[i]);
        }
        break;
    case 4:
        cluster_memory_mute_watches(w.memory);
        break;
    default:
        cluster_memory_set_faults(w.memory, &(cluster_memory_faults){0});
    }
}

static void ask_something(moe_random *r, member *m)
{
    const catalogue_expert one = {.layer = (uint32_t)moe_random_below(r, LAYERS),
                                  .id = (int32_t)moe_random_below(r, 8)};
    const catalogue_pack p = german();
    const catalogue_change changes[] = {
        {.op = CATALOGUE_ADD, .pack = &p, .now_ms = 1, .deadline_ms = 20001},
        {.op = CATALOGUE_REMOVE, .word = "german", .now_ms = 1, .deadline_ms = 20001},
        {.op = CATALOGUE_PRUNE, .experts = &one, .n_experts = 1, .now_ms = 1, .deadline_ms = 20001},
        {.op = CATALOGUE_RESTORE, .now_ms = 1, .deadline_ms = 20001},
        {.op = CATALOGUE_ROLLBACK, .now_ms = 1, .deadline_ms = 20001}};

    (void)!ask_by(m, &changes[moe_random_below(r, MOE_COUNT(changes))]); /* it may make no sense */
}

static size_t run_seed(uint64_t seed) /* returns how many defaults there were */
{
    history h = {.n = 0};
    moe_random r;

    moe_random_seed(&r, seed);
    world_open(&w, seed);
    member *a = add(&w, CLUSTER_COORDINATOR, "a"), *b = add(&w, CLUSTER_COORDINATOR, "b");
    member *n1 = add(&w, CLUSTER_NODE, "n1"), *n2 = add(&w, CLUSTER_NODE, "n2");
    follower f[2] = {{.m = a, .name = "a"}, {.m = b, .name = "b"}};
    for (int turn = 0; turn < 400; turn++) {
        bool calm = turn >= 240; /* then all come back, and there is a minute for the last change */

        if (turn == 240) {
            cluster_memory_set_faults(w.memory, &(cluster_memory_faults){0});
            cluster_memory_lose_watches(w.memory);
            for (size_t i = 0; i < 2 && w.n < MAX; i++) {
                revive(&f[i]);
            }
        } else if (!calm && moe_random_below(&r, 6) == 0) {
            make_trouble(&r, f);
        } else if (!calm && moe_random_below(&r, 6) == 0) {
            size_t i = f[0].m->c != NULL ? 0 : 1;
            ask_something(&r, f[i].m);
        }
        for (uint64_t t = 0; t < 400 * MS; t += 20 * MS) {
            run_for(&w, 20 * MS);
            note(&h);
        }
        for (size_t i = 0; i < 2; i++) {
            if (f[i].m->c != NULL) {
                follow(&f[i], &h, &r);
            }
        }
        load(n1, "n1");
        load(n2, "n2");
    }
    for (size_t i = 0; i < 2; i++) {
        if (f[i].m->c != NULL) {
            assert_int_equal(pending_of(f[i].m), 0);
            assert_true(h.n == 0 || strcmp(h.ids[f[i].taken], h.ids[h.n - 1]) == 0);
            assert_int_equal(missing_of(f[i].m), 0);
        }
    }
    world_close(&w);
    return h.n;
}

#if defined(__SANITIZE_THREAD__)
#define N_SEEDS 1 /* a minute, and only one thread to look at */
#elif defined(__SANITIZE_ADDRESS__)
#define N_SEEDS 3
#else
#define N_SEEDS 12
#endif

static void by_seed_it_is_done_or_undone_and_never_half(void **state)
{
    const char *asked =
        getenv("CATALOGUE_SEEDS"); /* more of them; make test takes few, as each is minutes of the clock */
    uint64_t n_seeds = asked != NULL ? strtoull(asked, NULL, 10) : N_SEEDS;
    size_t n_defaults = 0;

    (void)state;
    moe_log_set_level(MOE_LOG_ERROR);
    for (uint64_t seed = 1; seed <= n_seeds; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        n_defaults += run_seed(seed);
    }
    moe_log_set_level(MOE_LOG_INFO);
    assert_true(n_defaults > 2 * n_seeds); /* it was not all given up */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_seed_it_is_done_or_undone_and_never_half)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
