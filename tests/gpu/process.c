#include "runner.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *outcome_name(enum outcome outcome)
{
    static const char *const name[] = {[NOT_RUN] = "not run", [PASSED] = "passed",       [FAILED] = "failed",
                                       [SKIPPED] = "skipped", [TIMED_OUT] = "timed out", [CRASHED] = "crashed"};
    return name[outcome];
}

bool outcome_is_bad(enum outcome outcome)
{
    return outcome == FAILED || outcome == TIMED_OUT || outcome == CRASHED;
}

struct reader {
    struct ended *ended;
    char line[LINE_BYTES];
    size_t length;
    void (*tell)(void *context, const char *text);
    void *context;
};

/* The tail keeps the last TAIL_BYTES - 1 bytes. */
static void keep(char *tail, const char *text, size_t n)
{
    size_t held = strlen(tail), room = TAIL_BYTES - 1;
    if (n > room) {
        text += n - room;
        n = room;
    }
    size_t drop = held + n > room ? held + n - room : 0;
    memmove(tail, tail + drop, held - drop);
    memcpy(tail + held - drop, text, n);
    tail[held - drop + n] = 0;
}

static void take(struct reader *r, char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] == 0)
            text[i] = '?';
    keep(r->ended->tail, text, n);
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\n') {
            if (r->length + 1 < sizeof r->line)
                r->line[r->length++] = text[i];
            continue;
        }
        r->line[r->length] = 0;
        r->length = 0;
        if (r->tell)
            r->tell(r->context, r->line);
    }
}

/* Until the process closes its end. False: the time was up. */
static bool read_all(int from, double until, struct reader *r)
{
    char buffer[4096];
    for (;;) {
        double left = until - seconds_now();
        struct pollfd wait = {.fd = from, .events = POLLIN};
        if (left <= 0)
            return false;
        int ready = poll(&wait, 1, (int)(left * 1000) + 1);
        if (ready < 0 && errno != EINTR)
            return true;
        ssize_t n = ready > 0 ? read(from, buffer, sizeof buffer) : -1;
        if (ready > 0 && n == 0)
            return true;
        if (n > 0)
            take(r, buffer, (size_t)n);
    }
}

/* An end of its output is not yet an end of the process. */
static bool wait_until(pid_t child, double until, int *status)
{
    for (;;) {
        if (waitpid(child, status, WNOHANG) == child)
            return true;
        if (seconds_now() > until)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

static void judge(struct ended *ended, bool in_time, int status)
{
    ended->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    ended->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    ended->outcome = !in_time              ? TIMED_OUT
                     : ended->signal       ? CRASHED
                     : !ended->status      ? PASSED
                     : ended->status == 77 ? SKIPPED
                                           : FAILED;
}

void run_process(char *const *argv, double limit, void (*line)(void *context, const char *text), void *context,
                 struct ended *ended)
{
    int pipes[2], status = 0;
    double start = seconds_now();
    *ended = (struct ended){.outcome = FAILED};
    if (pipe(pipes) != 0)
        return;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        execvp(argv[0], argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    close(pipes[1]);
    if (child > 0) {
        static struct reader reader;
        setpgid(child, child);
        reader = (struct reader){.ended = ended, .tell = line, .context = context};
        bool in_time = read_all(pipes[0], start + limit, &reader) && wait_until(child, start + limit, &status);
        kill(-child, SIGKILL); /* also what it has left running */
        if (!in_time)
            waitpid(child, &status, 0);
        judge(ended, in_time, status);
    }
    close(pipes[0]);
    ended->seconds = seconds_now() - start;
}
