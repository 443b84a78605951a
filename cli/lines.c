#include "cli/lines.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "cli/cli.h"
#include "cli/history.h"

#define BLOCK "\"\"\""

enum { HISTORY_LINES = 1000, CTRL_C = 3, CTRL_Z = 26 };

struct cli_lines {
    EditLine *editor;                  /* owned; NULL: no terminal */
    History *history;                  /* owned, with editor */
    char path[CLI_HISTORY_PATH_BYTES]; /* of the history; "": not kept */
    FILE *screen;
    char *line; /* owned: of getline */
    size_t capacity;
    const char *prompt;
    bool interrupted; /* in the line that is being typed */
};

/* ------------------------------------------------------------------------------------------------------- a terminal */

bool cli_lines_at_terminal(void)
{
    return isatty(STDIN_FILENO) != 0 && (isatty(STDOUT_FILENO) != 0 || isatty(STDERR_FILENO) != 0);
}

static cli_lines *lines_of(EditLine *editor)
{
    void *lines = NULL;

    el_get(editor, EL_CLIENTDATA, &lines);
    return lines;
}

static const char *prompt_of(EditLine *editor)
{
    return lines_of(editor)->prompt;
}

static char *prompt(EditLine *editor)
{
    return (char *)(uintptr_t)prompt_of(editor); /* libedit does not write to it */
}

/* Ctrl-Z, which is a key like others while a line is being typed. */
static void suspend(EditLine *editor)
{
    el_set(editor, EL_PREP_TERM, 0);
    (void)raise(SIGTSTP);
    el_set(editor, EL_PREP_TERM, 1);
    el_set(editor, EL_REFRESH);
}

/* One byte; 0 at the end of the file, -1 on trouble. The terminal does not interrupt: a signal from elsewhere may. */
static int read_byte(char *out)
{
    ssize_t n;

    do {
        n = read(STDIN_FILENO, out, 1);
    } while (n < 0 && errno == EINTR);
    return (int)n;
}

/* libedit's source of characters. Ctrl-C ends the line, which is then forgotten. (Keys of our own could be bound with
 * EL_ADDFN; libedit never frees those.) */
static int read_key(EditLine *editor, wchar_t *out)
{
    cli_lines *lines = lines_of(editor);
    mbstate_t state = {0};
    char byte;

    for (;;) {
        int n = read_byte(&byte);
        size_t used = n == 1 ? mbrtowc(out, &byte, 1, &state) : 0;

        if (n != 1) {
            return n;
        }
        if (byte == CTRL_Z) {
            suspend(editor);
        } else if (byte == CTRL_C) {
            lines->interrupted = true;
            fputs("^C", lines->screen);
            *out = L'\n';
            return 1;
        } else if (used == (size_t)-1) {
            state = (mbstate_t){0}; /* no UTF-8: left out */
        } else if (used != (size_t)-2) {
            return 1;
        }
    }
}

/* Text is UTF-8 everywhere in this program, whatever the locale says. */
static void use_utf8(void)
{
    if (setlocale(LC_CTYPE, "") == NULL || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) {
        (void)setlocale(LC_CTYPE, "C.UTF-8");
    }
}

static void set_up_editor(cli_lines *lines)
{
    el_set(lines->editor, EL_CLIENTDATA, lines);
    el_set(lines->editor, EL_PROMPT, prompt);
    el_set(lines->editor, EL_EDITOR, "emacs");
    el_set(lines->editor, EL_SIGNAL,
           1); /* a new size of the window; the terminal is put right before the program dies */
    el_set(lines->editor, EL_HIST, history, lines->history);
    el_set(lines->editor, EL_GETCFN, read_key);
    el_set(lines->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(lines->editor, EL_SETTY, "-d", "-isig", NULL);
    el_source(lines->editor, NULL); /* the user's ~/.editrc */
}

static moe_status open_editor(cli_lines *lines, bool keep_history, moe_error *err)
{
    HistEvent event;
    moe_error reason;

    use_utf8();
    lines->screen = isatty(STDERR_FILENO) != 0 ? stderr : stdout;
    lines->history = history_init();
    lines->editor = el_init("conclave", stdin, lines->screen, stderr);
    if (lines->history == NULL || lines->editor == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "terminal: out of memory");
    }
    (void)history(lines->history, &event, H_SETSIZE, HISTORY_LINES);
    (void)history(lines->history, &event, H_SETUNIQUE, 1);
    set_up_editor(lines);
    if (keep_history && cli_history_find(lines->path, &reason) != MOE_OK) {
        fprintf(stderr, "conclave chat: %s; nothing is kept (--no-history says so)\n", reason.text);
        lines->path[0] = '\0';
    }
    if (lines->path[0] != '\0') {
        cli_history_load(lines->history, lines->path);
    }
    return MOE_OK;
}

moe_status cli_lines_open(bool keep_history, cli_lines **out, moe_error *err)
{
    cli_lines *lines = calloc(1, sizeof(*lines));
    moe_status status = MOE_OK;

    if (lines == NULL) {
        return moe_fail(err, MOE_ERR_NO_MEMORY, "input: out of memory");
    }
    if (cli_lines_at_terminal()) {
        status = open_editor(lines, keep_history, err);
    }
    if (status != MOE_OK) {
        cli_lines_close(lines);
        return status;
    }
    *out = lines;
    return MOE_OK;
}

void cli_lines_close(cli_lines *lines)
{
    if (lines == NULL) {
        return;
    }
    if (lines->editor != NULL) {
        el_end(lines->editor);
    }
    if (lines->history != NULL) {
        history_end(lines->history);
    }
    free(lines->line);
    free(lines);
}

/* ---------------------------------------------------------------------------------------------------------- a line */

/* Saved at once: a conversation may end in many ways. Trouble with the file is told once. */
static void remember(cli_lines *lines, const char *line)
{
    HistEvent event;
    moe_error reason;

    if (line[strspn(line, " \t\r\n")] == '\0') {
        return;
    }
    (void)history(lines->history, &event, H_ENTER, line);
    if (lines->path[0] != '\0' && cli_history_save(lines->history, lines->path, &reason) != MOE_OK) {
        fprintf(stderr, "conclave chat: %s; nothing more is kept\n", reason.text);
        lines->path[0] = '\0';
    }
}

/* NULL at the end, and when the line was dropped. With its newline. */
static const char *next_line(cli_lines *lines, const char *prompt_text, size_t *n_out)
{
    ssize_t n;

    if (lines->editor != NULL) {
        int count = 0;
        const char *line;

        lines->prompt = prompt_text;
        lines->interrupted = false;
        el_set(lines->editor, EL_PREP_TERM, 1); /* el_gets shows the prompt first: a Ctrl-D in between would be lost */
        line = el_gets(lines->editor, &count);
        if (lines->interrupted || line == NULL || count <= 0) {
            return NULL;
        }
        *n_out = (size_t)count;
        remember(lines, line);
        return line;
    }
    n = getline(&lines->line, &lines->capacity, stdin);
    *n_out = n > 0 ? (size_t)n : 0;
    return n > 0 ? lines->line : NULL;
}

/* Without the newline, be it Unix's or Windows'. */
static size_t trimmed(const char *line, size_t n)
{
    if (n > 0 && line[n - 1] == '\n') {
        n--;
    }
    return n > 0 && line[n - 1] == '\r' ? n - 1 : n;
}

static bool ends_block(const char *line, size_t n)
{
    return n >= strlen(BLOCK) && memcmp(line + n - strlen(BLOCK), BLOCK, strlen(BLOCK)) == 0;
}

/* ------------------------------------------------------------------------------------------------------- a message */

/* Appends one line; says whether the message goes on in the next. */
static bool take_line(moe_text *message, const char *line, size_t n, bool is_first, bool *in_block)
{
    if (is_first && n >= strlen(BLOCK) && memcmp(line, BLOCK, strlen(BLOCK)) == 0) {
        *in_block = true;
        line += strlen(BLOCK);
        n -= strlen(BLOCK);
        if (n == 0) {
            return true; /* the newline after the opening mark is not part of it */
        }
    }
    if (*in_block) {
        bool ends = ends_block(line, n);

        moe_text_append(message, line, ends ? n - strlen(BLOCK) : n);
        if (!ends) {
            moe_text_append(message, "\n", 1);
        }
        return !ends;
    }
    if (n > 0 && line[n - 1] == '\\') {
        moe_text_append(message, line, n - 1);
        moe_text_append(message, "\n", 1);
        return true;
    }
    moe_text_append(message, line, n);
    return false;
}

moe_status cli_lines_read(cli_lines *lines, moe_text *message, cli_lines_what *what_out, moe_error *err)
{
    bool in_block = false, more = true;
    size_t n = 0, n_lines = 0;

    moe_text_fini(message);
    moe_text_init(message, CLI_MAX_INPUT);
    while (more && !message->failed) {
        const char *line = next_line(lines, n_lines == 0 ? "> " : "... ", &n);

        if (line == NULL) {
            break;
        }
        more = take_line(message, line, trimmed(line, n), n_lines == 0, &in_block);
        n_lines++;
    }
    if (lines->editor != NULL && lines->interrupted) {
        *what_out = CLI_LINES_DROPPED;
        return MOE_OK;
    }
    if (lines->editor == NULL && ferror(stdin) != 0) {
        return moe_fail(err, MOE_ERR_IO, "standard input: %s", strerror(errno));
    }
    *what_out = n_lines == 0 ? CLI_LINES_END : CLI_LINES_MESSAGE;
    return cli_check_input("message", message, err);
}
