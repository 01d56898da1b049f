#include "interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t pending, seen;

static void restore_terminal(void)
{
    static const char show_cursor[] = "\033[?25h";
    if (isatty(STDOUT_FILENO) && write(STDOUT_FILENO, show_cursor, sizeof show_cursor - 1) < 0)
        return;
}

static void on_signal(int number)
{
    (void)number;
    if (seen) {
        restore_terminal();
        _exit(130);
    }
    seen = pending = 1;
}

void draft_interrupt_install(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

bool draft_interrupted(void)
{
    return pending != 0;
}

void draft_interrupt_clear(void)
{
    pending = 0;
}
