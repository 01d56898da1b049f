#include "private_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interrupt.h"

enum { START_SECONDS = 30, STOP_SECONDS = 90, SOCKET_LIMIT = 100 };

void draft_program_beside(const char *name, char *path, size_t size)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    path[0] = 0;
    if (n <= 0)
        return;
    self[n] = 0;
    char *slash = strrchr(self, '/');
    if (!slash)
        return;
    *slash = 0;
    if (snprintf(path, size, "%s/%s", self, name) >= (int)size || access(path, X_OK) != 0)
        path[0] = 0;
}

/* Socket paths are short (108 bytes): a deep state folder needs a socket elsewhere. */
static bool choose_socket(struct draft_private_daemon *daemon, const char *state_dir, struct draft_status *st)
{
    if (snprintf(daemon->socket, sizeof daemon->socket, "%s/draftd.sock", state_dir) < SOCKET_LIMIT)
        return true;
    snprintf(daemon->socket_folder, sizeof daemon->socket_folder, "/tmp/draft-XXXXXX");
    if (!mkdtemp(daemon->socket_folder)) {
        daemon->socket_folder[0] = 0;
        return draft_status_fail(st, DRAFT_STATUS_INTERNAL, "cannot make a folder for the socket in /tmp: %s",
                                 strerror(errno));
    }
    snprintf(daemon->socket, sizeof daemon->socket, "%s/draftd.sock", daemon->socket_folder);
    return true;
}

static void become_daemon(const char *program, char *const arguments[], const char *log, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* the terminal's Ctrl-C is for us, not for it */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600),
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (getppid() != parent || out < 0 || null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(127);
    execv(program, arguments);
    _exit(127);
}

static bool answers(struct draft_rpc *rpc)
{
    Draftd__V1__GetServerInfoRequest request = DRAFTD__V1__GET_SERVER_INFO_REQUEST__INIT;
    struct draft_status st = {0};
    Draftd__V1__GetServerInfoResponse *info = draft_rpc_get_server_info(rpc, &request, &st);
    draft_free_message(info);
    return info != NULL;
}

/* The sentence of a line of the daemon's log, time=... level=... msg="...": its quotation marks are taken back. */
static void sentence_of(const char *line, char *out, size_t size)
{
    const char *message = strstr(line, "msg=\"");
    size_t n = 0;
    for (message = message ? message + 5 : line; *message && *message != '"' && *message != '\n' && n + 1 < size;) {
        message += *message == '\\' && message[1];
        out[n++] = *message++;
    }
    out[n] = 0;
}

/* The last line of the daemon's log: its own words on why it could not start. */
static void last_words(const char *log, char *out, size_t size)
{
    char line[1024];
    FILE *file = fopen(log, "r");
    snprintf(out, size, "draftd ended while starting and said nothing");
    while (file && fgets(line, sizeof line, file))
        if (line[0] != '\n')
            sentence_of(line, out, size);
    if (file)
        fclose(file);
}

static bool wait_until_ready(struct draft_private_daemon *daemon, struct draft_rpc *rpc, struct draft_status *st)
{
    for (int i = 0; i < 20 * START_SECONDS; i++) {
        int how;
        if (answers(rpc))
            return true;
        if (draft_interrupted())
            return draft_status_fail(st, DRAFT_STATUS_CANCELLED, "interrupted");
        if (waitpid(daemon->pid, &how, WNOHANG) == daemon->pid) {
            char words[512];
            daemon->pid = 0;
            last_words(daemon->log, words, sizeof words);
            return draft_status_fail(st, DRAFT_STATUS_INTERNAL, "%s (log: %s)", words, daemon->log);
        }
        usleep(50000);
    }
    return draft_status_fail(st, DRAFT_STATUS_DEADLINE_EXCEEDED, "draftd did not answer within %d seconds (log: %s)",
                             START_SECONDS, daemon->log);
}

bool draft_private_daemon_start(struct draft_private_daemon *daemon, const char *state_dir, const char *demo_dir,
                                const char *log, struct draft_rpc **rpc, struct draft_status *st)
{
    char program[4096];
    *daemon = (struct draft_private_daemon){.pid = 0};
    snprintf(daemon->log, sizeof daemon->log, "%s", log);
    draft_program_beside("draftd", program, sizeof program);
    if (!*program)
        return draft_status_fail(st, DRAFT_STATUS_NOT_FOUND,
                                 "there is no draftd beside this program; build or install it in the same folder");
    if (!choose_socket(daemon, state_dir, st))
        return false;
    char *arguments[] = {program,
                         "--state-dir",
                         (char *)(uintptr_t)state_dir,
                         "--socket",
                         daemon->socket,
                         demo_dir ? "--demo-dir" : NULL,
                         (char *)(uintptr_t)demo_dir,
                         NULL};
    pid_t parent = getpid(), child = fork();
    if (child == 0)
        become_daemon(program, arguments, daemon->log, parent);
    if (child < 0)
        return draft_status_fail(st, DRAFT_STATUS_RESOURCE_EXHAUSTED, "cannot start draftd: %s", strerror(errno));
    daemon->pid = child;
    *rpc = draft_rpc_open(daemon->socket);
    if (wait_until_ready(daemon, *rpc, st))
        return true;
    draft_rpc_close(*rpc);
    *rpc = NULL;
    draft_private_daemon_stop(daemon);
    return false;
}

void draft_private_daemon_stop(struct draft_private_daemon *daemon)
{
    if (daemon->pid > 0) {
        kill(daemon->pid, SIGTERM);
        int waited = 0;
        while (waitpid(daemon->pid, NULL, WNOHANG) == 0 && waited++ < 20 * STOP_SECONDS)
            usleep(50000);
        if (waited > 20 * STOP_SECONDS) {
            kill(daemon->pid, SIGKILL);
            waitpid(daemon->pid, NULL, 0);
        }
        daemon->pid = 0;
        unlink(daemon->socket);
    }
    if (*daemon->socket_folder)
        rmdir(daemon->socket_folder);
    daemon->socket_folder[0] = 0;
}
