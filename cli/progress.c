/* How far a command has come that reads files of this machine, and Ctrl-C. */
#include <signal.h>
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
    fprintf(stderr, "%s%s %3zu %%  of %.1f %s%s", p->is_terminal ? "\r" : "", p->what, hundredths,
            (double)total / (total < 1000000 ? 1e3 : 1e6), total < 1000000 ? "KB" : "MB",
            p->is_terminal && hundredths < 100 ? "" : "\n");
    fflush(stderr);
}

void cli_progress_break(const cli_progress *p)
{
    if (p->is_terminal && p->shown > 0 && p->shown < 100) {
        fputc('\n', stderr);
    }
}

/* ------------------------------------------------------------------------------------------------ interruption */
static volatile sig_atomic_t stopped;

static void on_stop(int number)
{
    (void)number;
    stopped = 1;
}

void cli_catch_stop(void)
{
    const struct sigaction action = {.sa_handler = on_stop, .sa_flags = (int)SA_RESETHAND};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool cli_is_stopped(void)
{
    return stopped != 0;
}
