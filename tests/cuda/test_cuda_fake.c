/* The fake GPU finds what it is there for: planted faults, each in a process of its own, in several orders. One that none
 * of the orders finds is missed. Without its fault every kernel gives right answers in all of them. */
#include "tests/cuda/fake/fake.h"
#include "tests/cuda/faults.h"
#include "tests/support/support.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_CONFIGS 6

static const fake_config configs[N_CONFIGS] = {
    {FAKE_ASCENDING, FAKE_AT_ONCE, FAKE_LATE, 1, 0, 1}, {FAKE_DESCENDING, FAKE_AT_ONCE, FAKE_LATE, 1, 0, 1},
    {FAKE_ASCENDING, FAKE_LATE, FAKE_AT_ONCE, 1, 0, 1}, {FAKE_DESCENDING, FAKE_LATE, FAKE_BY_SEED, 1, 0, 1},
    {FAKE_SEEDED, FAKE_BY_SEED, FAKE_BY_SEED, 2, 0, 1}, {FAKE_SEEDED, FAKE_BY_SEED, FAKE_BY_SEED, 3, 0, 1}};

/* The exit status of a child that runs it, -1 if it was killed; what it wrote to standard error. */
static int run(const fake_config *config, const char *what, char *text, size_t capacity)
{
    int ends[2], status;
    size_t n = 0;
    ssize_t got;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)signal(SIGABRT, SIG_DFL); /* not cmocka's */
        (void)signal(SIGSEGV, SIG_DFL);
        (void)dup2(ends[1], STDERR_FILENO);
        fake_configure(config);
        _exit(fault_run(what));
    }
    (void)close(ends[1]);
    while (n + 1 < capacity && (got = read(ends[0], text + n, capacity - 1 - n)) > 0) {
        n += (size_t)got;
    }
    text[n] = '\0';
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void assert_found(const char *what, const char *text)
{
    static char said[1 << 16];
    bool found = false;

    for (size_t i = 0; i < N_CONFIGS && !found; i++) {
        int status = run(&configs[i], what, said, sizeof(said));

        found = status != 0 && (text == NULL || strstr(said, text) != NULL);
    }
    if (!found) {
        fail_msg("\"%s\" was not found%s%s; the last said: %s", what, text == NULL ? "" : " as ",
                 text == NULL ? "" : text, said);
    }
}

/* text: what the fake itself has to say; NULL: a wrong answer, or a sanitizer's report. race: one that ThreadSanitizer sees
 * whatever the order. */
static const struct {
    const char *name, *text;
    bool race;
} faults[] = {
    {"barrier", NULL, true},
    {"index", NULL, false},
    {"shared index", NULL, false},
    {"divergent barrier", "a barrier that 24 threads never reach", false},
    {"two barriers", "are at different barriers", false},
    {"lanes", "no thread can go on", false},
    {"copy wait", NULL, false},
    {"copy barrier", NULL, true},
    {"bulk wait", NULL, false},
    {"bulk reuse", NULL, true},
    {"bulk alignment", "not 16-byte aligned", false},
    {"shared limit", NULL, false},
    {"threads", NULL, false},
    {"host pointer", "is no pointer of the device", false},
    {"host read", NULL, false},
    {"pageable", "not inside a pinned allocation", false},
    {"source", NULL, false},
    {"streams", NULL, false},
    {"overtaken copy", NULL, false},
    {"sync", NULL, false},
    {"graph argument", NULL, false},
    {"graph event", "on a stream that is captured", false},
};

#if defined(__SANITIZE_THREAD__)
/* A process costs ThreadSanitizer seconds: here it shows what it alone finds. */
static void planted_faults_are_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(faults); i++) {
        if (faults[i].race) {
            assert_found(faults[i].name, "ThreadSanitizer: data race");
        }
    }
}

#define RIGHT_CONFIGS 1u
#define RIGHT(i)      faults[i].race
#else
static void planted_faults_are_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(faults); i++) {
        assert_found(faults[i].name, faults[i].text);
    }
}

#define RIGHT_CONFIGS N_CONFIGS
#define RIGHT(i)      (strcmp(faults[i].name, "two barriers") != 0)
#endif

static void assert_right(const char *what)
{
    static char said[1 << 16];

    for (size_t i = 0; i < RIGHT_CONFIGS; i++) {
        int status = run(&configs[i], what, said, sizeof(said));

        if (status != 0) {
            fail_msg("\"%s\", order %zu: %d, %s", what, i, status, said);
        }
    }
}

static void kernels_without_them_are_right_in_every_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOE_COUNT(faults); i++) {
        char what[64];

        (void)snprintf(what, sizeof(what), "right %s", faults[i].name);
        if (RIGHT(i)) {
            assert_right(what);
        }
    }
}

/* A dead end names where every thread is. */
static void a_divergent_barrier_names_the_line_of_every_thread(void **state)
{
    static char said[1 << 16];

    (void)state;
    assert_int_equal(run(&configs[0], "divergent barrier", said, sizeof(said)), -1);
    assert_contains(said, "threads 0-39: at a barrier");
    assert_contains(said, "faults.cu:");
    assert_contains(said, "threads 40-63: ended");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(planted_faults_are_found),
                                       cmocka_unit_test(kernels_without_them_are_right_in_every_order),
                                       cmocka_unit_test(a_divergent_barrier_names_the_line_of_every_thread)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
