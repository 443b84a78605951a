/* How far a command has come that reads files of this machine. */
#include <unistd.h>

#include "cli/cli.h"

enum { TERMINAL_STEP = 1, LOG_STEP = 10 }; /* hundredths between two reports */

cli_progress cli_progress_of(const char *what)
{
    return (cli_progress){.what = what, .is_terminal = isatty(STDERR_FILENO) != 0};
}

void cli_progress_show(void *ctx, size_t done, size_t total)
{
    cli_progress *p = ctx;
    size_t hundredths = total > 0 ? (size_t)(100.0 * (double)done / (double)total) : 100;

    if (p->shown == 100 || (hundredths < 100 && hundredths < p->shown + (p->is_terminal ? TERMINAL_STEP : LOG_STEP))) {
        return;
    }
    p->shown = hundredths;
    fprintf(stderr, "%s%s %3zu %%  of %.1f MB%s", p->is_terminal ? "\r" : "", p->what, hundredths, (double)total / 1e6,
            p->is_terminal && hundredths < 100 ? "" : "\n");
    fflush(stderr);
}
