/* The registry with modules that are not what they should be: each is refused by one line that names what is wrong, and none ends the process. */
#include "compute/module.h"
#include "tests/support/support.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* What became of a name: of compute_find and, where that found something, of compute_open of what it found. */
typedef struct outcome {
    moe_status found, opened;
    char place[COMPUTE_MAX_PLACE], text[512]; /* text: why, or the error */
} outcome;

static void look(const char *name, const char *module, outcome *out)
{
    const compute_device_options o = {
        .numeric_class = COMPUTE_CLASS_F32_1, .max_rows = 1, .max_ffn_rows = 1, .max_d_ff = 1, .max_context = 1};
    compute_device *d = NULL;
    compute_found found;
    moe_error err = {""};

    *out = (outcome){.opened = MOE_ERR_CANCELLED};
    out->found = compute_find(name, module, &found, &err);
    if (out->found == MOE_OK) {
        (void)snprintf(out->place, sizeof out->place, "%s", found.place);
        (void)snprintf(out->text, sizeof out->text, "%s", found.why);
    }
    if (out->found == MOE_OK && strncmp(found.place, "cuda", 4) == 0) {
        out->opened = compute_open(found.place, &o, &d, &err);
    }
    if (out->found != MOE_OK || (out->opened != MOE_OK && out->opened != MOE_ERR_CANCELLED)) {
        (void)snprintf(out->text, sizeof out->text, "%s", err.text);
    }
    compute_close(d);
}

/* In a process of its own: the first module that is whole stays. */
static outcome outcome_of(const char *name, const char *module)
{
    char file[4096];
    int ends[2], status;
    outcome out;

    (void)snprintf(file, sizeof file, "%s/%s.so", MODULES, module);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        look(name, file, &out);
        _exit(write(ends[1], &out, sizeof out) == (ssize_t)sizeof out ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(read(ends[0], &out, sizeof out), sizeof out);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return out;
}

static void what_is_no_module_of_this_release_is_refused_by_name(void **state)
{
    static const struct {
        const char *module, *says;
    } cases[] = {{"absent", "the module cannot be opened"},
                 {"symbol", "is no module of ours: it has no conclave_compute_module"},
                 {"nothing", "is of another release"},
                 {"abi", "is of another release: device interface"},
                 {"sizes", "is of another release"},
                 {"kind", "a module of the device \"abacus\", not of cuda"},
                 {"half", "half a module: it has no open"}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        outcome asked = outcome_of("cuda", cases[i].module), any = outcome_of("auto", cases[i].module);

        assert_int_equal(asked.found, MOE_ERR_UNSUPPORTED);
        assert_contains(asked.text, cases[i].says);
        assert_contains(asked.text, "device cuda: ");
        assert_int_equal(any.found, MOE_ERR_UNSUPPORTED); /* it was named, so it is wanted */
        assert_contains(any.text, cases[i].says);
    }
}

static void without_a_gpu_auto_takes_the_cpu_and_says_why(void **state)
{
    static const struct {
        const char *module, *says;
    } cases[] = {{"gpu", "no GPU today"}, {"old", "too old"}};

    (void)state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        outcome asked = outcome_of("cuda", cases[i].module), any = outcome_of("auto", cases[i].module);

        assert_int_equal(asked.found, MOE_ERR_UNSUPPORTED);
        assert_contains(asked.text, cases[i].says);
        assert_int_equal(any.found, MOE_OK);
        assert_string_equal(any.place, "cpu");
        assert_contains(any.text, cases[i].says);
    }
    outcome fourth = outcome_of("cuda:3", "none");
    assert_int_equal(fourth.found, MOE_ERR_UNSUPPORTED);
    assert_contains(fourth.text, "there is no GPU 3: this machine has 1");
}

static void a_device_that_cannot_be_had_says_why(void **state)
{
    (void)state;
    outcome o = outcome_of("cuda", "refuses");
    assert_int_equal(o.found, MOE_OK);
    assert_int_equal(o.opened, MOE_ERR_NO_MEMORY);
    assert_string_equal(o.text, "GPU 0: 100 bytes wanted, 7 free");
}

static void a_table_with_a_hole_is_refused_by_the_name_of_the_op(void **state)
{
    (void)state;
    outcome o = outcome_of("cuda", "op");
    assert_int_equal(o.opened, MOE_ERR_UNSUPPORTED);
    assert_string_equal(o.text, "device cuda:0: its module has no op \"matmul\"");
    assert_int_equal(outcome_of("auto", "op").opened, MOE_ERR_UNSUPPORTED);
}

static void optional_ops_may_be_absent(void **state)
{
    (void)state;
    outcome o = outcome_of("auto", "none");
    assert_string_equal(o.place, "cuda:0");
    assert_int_equal(o.opened, MOE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_no_module_of_this_release_is_refused_by_name),
                                       cmocka_unit_test(without_a_gpu_auto_takes_the_cpu_and_says_why),
                                       cmocka_unit_test(a_device_that_cannot_be_had_says_why),
                                       cmocka_unit_test(a_table_with_a_hole_is_refused_by_the_name_of_the_op),
                                       cmocka_unit_test(optional_ops_may_be_absent)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
