#include "base/options_priv.h"

static void print_range(const moe_option *option, FILE *out)
{
    if (option->min < option->max && option->kind == MOE_OPT_SIZE) {
        (void)fprintf(out, " [%.15g to %.15g bytes]", option->min, option->max);
    } else if (option->min < option->max) {
        (void)fprintf(out, " [%.15g to %.15g]", option->min, option->max);
    }
    for (size_t i = 0; option->choices != NULL && option->choices[i] != NULL; i++) {
        (void)fprintf(out, "%s%s", i > 0 ? ", " : " [", option->choices[i]);
    }
    if (option->choices != NULL) {
        (void)fputc(']', out);
    }
}

void option_print_help(const moe_option *option, FILE *out)
{
    char flag[OPTION_NAME_BYTES];

    option_flag_name(option->name, flag);
    (void)fprintf(out, "  %s", flag);
    if (option->kind != MOE_OPT_BOOL) {
        (void)fprintf(out, " %s", option->value != NULL ? option->value : "VALUE");
    }
    (void)fprintf(out, "\n        %s", option->help);
    print_range(option, out);
    if (option->fallback != NULL) {
        (void)fprintf(out, " (default: %s)", option->fallback);
    }
    (void)fputc('\n', out);
}
