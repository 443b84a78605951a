/* Any bytes as a --config file: refused with a reason, or values within their limits that are the same when the printed
 * configuration is read back; a list is the same when its items come one by one. */
#include "base/options_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_ITEMS 16

typedef struct config {
    bool dry_run;
    uint32_t count;
    uint64_t seed;
    size_t cache_bytes;
    double share;
    char *listen, *mode, *peers;
} config;

static const char *const modes[] = {"fast", "exact", NULL};

#define FIELD(field, field_kind) .name = #field, .kind = field_kind, .offset = offsetof(config, field), .help = ""
static const moe_option options[] = {
    {FIELD(dry_run, MOE_OPT_BOOL)},
    {FIELD(count, MOE_OPT_U32), .fallback = "1", .min = 1, .max = 1000},
    {FIELD(seed, MOE_OPT_U64)},
    {FIELD(cache_bytes, MOE_OPT_SIZE), .fallback = "1K", .min = 1024, .max = 0x1p40},
    {FIELD(share, MOE_OPT_F64), .fallback = "0.5", .min = 0, .max = 1},
    {FIELD(listen, MOE_OPT_STRING)},
    {FIELD(mode, MOE_OPT_CHOICE), .fallback = "fast", .choices = modes},
    {FIELD(peers, MOE_OPT_STRING), .is_list = true},
};
static const moe_program program = {.name = "fuzz", .summary = "", .options = options, .n_options = MOE_COUNT(options)};

static moe_status parse(const void *data, size_t size, config *c, moe_error *err)
{
    const int fd = memfd_create("config", MFD_CLOEXEC);
    char path[64], name[] = "fuzz", flag[] = "--config";
    char *argv[] = {name, flag, path, NULL}, *env[] = {NULL};
    moe_options_next next;
    moe_status status;

    MOE_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    status = moe_options_parse(&program, c, 3, argv, env, NULL, 0, NULL, &next, err);
    close(fd);
    return status;
}

static void print(const config *c, moe_text *out)
{
    for (size_t i = 0; i < MOE_COUNT(options); i++) {
        moe_text_printf(out, "%s\"%s\": ", i > 0 ? ", " : "{", options[i].name);
        option_value_print(&options[i], c, out);
    }
    moe_text_printf(out, "}");
    MOE_ASSERT(!out->failed);
}

/* The items of a list, each by a flag of its own. */
static void check_list(const char *whole)
{
    char name[] = "fuzz", *argv[MAX_ITEMS + 2] = {name}, *env[] = {NULL};
    const char *item, *at = whole;
    size_t n;
    int argc = 1;
    config again;
    moe_options_next next;
    moe_error err;

    while (argc <= MAX_ITEMS && moe_list_next(&at, &item, &n)) {
        MOE_ASSERT(asprintf(&argv[argc++], "--peers=%.*s", (int)n, item) > 0);
    }
    if (at == NULL) {
        MOE_ASSERT(moe_options_parse(&program, &again, argc, argv, env, NULL, 0, NULL, &next, &err) == MOE_OK);
        MOE_ASSERT(strcmp(again.peers, whole) == 0);
        moe_options_fini(&program, &again);
    }
    while (argc > 1) {
        free(argv[--argc]);
    }
}

/* For people: right to a twentieth of its unit. */
static void check_size(size_t bytes)
{
    static const char units[] = "bKMGT";
    char text[MOE_SIZE_TEXT], unit[8] = "";
    double value = 0;

    MOE_ASSERT(sscanf(moe_size_text(bytes, text), "%lf %5s", &value, unit) == 2 && strchr(units, unit[0]) != NULL);
    const double one = exp2(10 * (double)(strchr(units, unit[0]) - units));
    MOE_ASSERT(fabs(value - (double)bytes / one) <= 0.0501);
}

static void check(config *c)
{
    config again;
    moe_text first, second;
    moe_error err = {.text = ""};

    MOE_ASSERT(c->count >= 1 && c->count <= 1000 && c->share >= 0 && c->share <= 1);
    MOE_ASSERT(c->cache_bytes >= 1024 && c->cache_bytes <= (size_t)1 << 40);
    MOE_ASSERT(strcmp(c->mode, "fast") == 0 || strcmp(c->mode, "exact") == 0);
    if (c->peers != NULL) {
        check_list(c->peers);
    }
    check_size(c->cache_bytes);
    check_size(c->count);
    c->share = fabs(c->share); /* -0 comes back as 0 */
    moe_text_init(&first, 1 << 20);
    moe_text_init(&second, 1 << 20);
    print(c, &first);
    if (parse(first.data, first.size, &again, &err) != MOE_OK) {
        moe_assert_failed(err.text, __FILE__, __LINE__);
    }
    print(&again, &second);
    MOE_ASSERT(strcmp(first.data, second.data) == 0);
    moe_options_fini(&program, &again);
    moe_text_fini(&first);
    moe_text_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    config c;
    moe_error err = {.text = ""};

    if (parse(data, size, &c, &err) == MOE_OK) {
        check(&c);
        moe_options_fini(&program, &c);
    } else {
        MOE_ASSERT(err.text[0] != '\0');
    }
    return 0;
}
