#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "message.h"

extern char **environ;

/* Descriptors 0 to 3 are assigned in the child: ours must lie above, or one assignment would overwrite another. */
static int raise_fd(int fd)
{
    if (fd < 0 || fd > 3)
        return fd;
    int higher = fcntl(fd, F_DUPFD_CLOEXEC, 4);
    close(fd);
    return higher;
}

static bool run(const char *program, const char *about, int socket, int log, int *pid, struct draft_error *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, log, 1);
    posix_spawn_file_actions_adddup2(&actions, log, 2);
    posix_spawn_file_actions_adddup2(&actions, socket, 3);
    posix_spawn_file_actions_addclosefrom_np(&actions, 4);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    char *name = draftd_format("draft-engine: %s", about);
    char *const arguments[] = {name, NULL};
    int rc = posix_spawn(pid, program, &actions, &attributes, arguments, environ);
    free(name);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    errno = rc;
    return rc == 0 || draft_fail_errno(err, "cannot start the worker program %s", program);
}

static void prefer_as_victim(int pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    int fd = open(path, O_RDWR | O_CLOEXEC), now = 0;
    char text[16] = "";
    if (fd < 0)
        return;
    if (read(fd, text, sizeof text - 1) > 0)
        now = atoi(text);
    snprintf(text, sizeof text, "%d", now > 500 ? 1000 : now + 500);
    if (pwrite(fd, text, strlen(text), 0) < 0)
        draftd_log(DRAFTD_DEBUG, NULL, "cannot set %s", path);
    close(fd);
}

bool draftd_spawn(const char *program, const char *about, const char *log_path, struct draftd_spawned *spawned,
                  struct draft_error *err)
{
    int pair[2] = {-1, -1}, pipes[2] = {-1, -1};
    *spawned = (struct draftd_spawned){.pidfd = -1, .socket = -1, .log_pipe = -1, .log_file = -1};
    bool ok = (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 && pipe2(pipes, O_CLOEXEC) == 0) ||
              draft_fail_errno(err, "cannot make the worker's pipes");
    if (ok) {
        for (int i = 0; i < 2; i++) {
            pair[i] = raise_fd(pair[i]);
            pipes[i] = raise_fd(pipes[i]);
            ok = ok && pair[i] >= 0 && pipes[i] >= 0;
        }
        ok = ok || draft_fail_errno(err, "cannot make the worker's pipes");
    }
    if (ok && run(program, about, pair[1], pipes[1], &spawned->pid, err)) {
        spawned->pidfd = pidfd_open(spawned->pid, 0); /* our unreaped child: the pid is still its own */
        if (spawned->pidfd < 0) {
            draft_fail_errno(err, "cannot open the worker's pidfd");
            kill(spawned->pid, SIGKILL);
            waitpid(spawned->pid, NULL, 0);
        }
    }
    if (pair[1] >= 0)
        close(pair[1]);
    if (pipes[1] >= 0)
        close(pipes[1]);
    if (spawned->pidfd < 0) {
        if (pair[0] >= 0)
            close(pair[0]);
        if (pipes[0] >= 0)
            close(pipes[0]);
        return false;
    }
    prefer_as_victim(spawned->pid);
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    spawned->socket = pair[0];
    spawned->log_pipe = pipes[0];
    if (log_path)
        spawned->log_file = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return true;
}

/* Field 22 of /proc/PID/stat; the name in field 2 may hold anything, so count from its last ')'. */
static int64_t start_of(int pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    const char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoll(p, NULL, 10) : 0;
}

void draftd_process_identify(int pid, struct draftd_store_process *process)
{
    *process = (struct draftd_store_process){.pid = pid, .start = start_of(pid)};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, process->boot, sizeof process->boot - 1);
    process->boot[n > 0 ? strcspn(process->boot, "\n") : 0] = '\0';
    close(fd);
}

void draftd_process_end(const struct draftd_store_process *process, const char *about)
{
    int fd = process->pid > 1 ? pidfd_open(process->pid, 0) : -1;
    if (fd < 0)
        return;
    struct draftd_store_process now; /* read after the pidfd: if it matches, the pidfd is the very process */
    draftd_process_identify(process->pid, &now);
    struct pollfd gone = {.fd = fd, .events = POLLIN}; /* readable: dead, and at most not reaped yet */
    if (poll(&gone, 1, 0) == 0 && now.start == process->start && now.start != 0 &&
        strcmp(now.boot, process->boot) == 0) {
        draftd_log(DRAFTD_WARNING, about, "worker %d of an earlier daemon is still there; it is ended", process->pid);
        pidfd_send_signal(fd, SIGKILL, NULL, 0);
        poll(&gone, 1, 5000);
    }
    close(fd);
}
