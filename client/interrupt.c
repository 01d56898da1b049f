#include "interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

enum { REPEATED_MS = 300 };

static volatile sig_atomic_t pending, seen;
static _Atomic int64_t seen_ms;

static void restore_terminal(void)
{
    static const char show_cursor[] = "\033[?25h";
    if (isatty(STDOUT_FILENO) && write(STDOUT_FILENO, show_cursor, sizeof show_cursor - 1) < 0)
        return;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A shell or timeout(1) sends one wish to the process and to its group: that is no second wish. */
static void on_signal(int number)
{
    (void)number;
    if (seen && now_ms() - seen_ms < REPEATED_MS)
        return;
    if (seen) {
        restore_terminal();
        _exit(130);
    }
    seen_ms = now_ms();
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
