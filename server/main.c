/* draftd: the command line, the order of starting and stopping, signals. */
#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"
#include "log.h"
#include "rpc/listener.h"
#include "rpc/rpc.h"
#include "rpc/services.h"

enum { MAX_CONNECTIONS = 512, GRACE_MS = 2000, REPEATED_MS = 1000 };
enum { EXIT_USAGE = 2 };

/* --- Command line --------------------------------------------------------------------------------------------------
 */

const char *argp_program_version = "draftd " DRAFT_VERSION;

enum option_key {
    KEY_STATE_DIR = 's',
    KEY_SOCKET = 'S',
    KEY_WORKER = 'w',
    KEY_THREADS = 't',
    KEY_VERBOSE = 'v',
    KEY_HELP = 'h',
    KEY_DEMO_DIR = 256,
    KEY_MAX_QUEUE,
    KEY_HANG_SECONDS,
    KEY_DRAIN_SECONDS,
    KEY_CUDA_LIBRARIES,
    KEY_LOG_FORMAT,
};

static const struct argp_option option_table[] = {
    {"state-dir", KEY_STATE_DIR, "DIR", 0,
     "Where jobs, metrics, pictures and checkpoints are kept (default: $XDG_STATE_HOME/draftd, else "
     "~/.local/state/draftd)",
     1},
    {"socket", KEY_SOCKET, "PATH", 0,
     "The unix socket to listen at (default: $DRAFTD_SOCKET, else $XDG_RUNTIME_DIR/draftd.sock, else draftd.sock in "
     "the "
     "state folder)",
     1},
    {"worker", KEY_WORKER, "PATH", 0,
     "The program that trains (default: draft-engine beside draftd or installed with it)", 2},
    {"demo-dir", KEY_DEMO_DIR, "DIR", 0, "The built-in demo model (default: the one installed with draftd)", 2},
    {"threads", KEY_THREADS, "N", 0, "Threads of a job that asks for none (default: all processors)", 2},
    {"cuda-libraries", KEY_CUDA_LIBRARIES, "DIRS", 0,
     "Where cuBLAS and cuDNN for CUDA 13 lie when the system does not know: their folders, with a colon between them, "
     "or "
     "a site-packages folder with NVIDIA's wheels (default: $DRAFT_CUDA_LIBRARIES)",
     2},
    {"max-queue", KEY_MAX_QUEUE, "N", 0, "Jobs that may wait; more are refused (default: 512)", 2},
    {"hang-seconds", KEY_HANG_SECONDS, "N", 0,
     "A worker silent for so long is killed and its job retried (default: 600)", 2},
    {"drain-seconds", KEY_DRAIN_SECONDS, "N", 0,
     "Time for workers to save and leave when draftd is told to stop (default: 60)", 2},
    {"log-format", KEY_LOG_FORMAT, "FORMAT", 0, "text or json, on standard error (default: text)", 3},
    {"verbose", KEY_VERBOSE, NULL, 0, "Log more; prompts too", 3},
    {NULL, KEY_HELP, NULL, OPTION_HIDDEN, NULL, -1}, /* what people try; argp has -? */
    {0},
};

static int number(struct argp_state *state, const char *option, const char *text, int min, int max)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || *text == '\0' || *end != '\0' || value < min || value > max)
        argp_error(state, "--%s takes a whole number from %d to %d, not \"%s\"", option, min, max, text);
    return (int)value;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct draftd_config *config = state->input;
    switch (key) {
    case KEY_STATE_DIR:
        config->state_dir = argument;
        return 0;
    case KEY_SOCKET:
        config->socket = argument;
        return 0;
    case KEY_WORKER:
        config->worker = argument;
        return 0;
    case KEY_DEMO_DIR:
        config->demo_dir = argument;
        return 0;
    case KEY_THREADS:
        config->threads = number(state, "threads", argument, 1, 1024);
        return 0;
    case KEY_MAX_QUEUE:
        config->max_queue = number(state, "max-queue", argument, 1, 1000000);
        return 0;
    case KEY_HANG_SECONDS:
        config->hang_seconds = number(state, "hang-seconds", argument, 1, 1000000);
        return 0;
    case KEY_DRAIN_SECONDS:
        config->drain_seconds = number(state, "drain-seconds", argument, 1, 86400);
        return 0;
    case KEY_CUDA_LIBRARIES: /* workers inherit it */
        if (setenv("DRAFT_CUDA_LIBRARIES", argument, 1) != 0)
            argp_failure(state, EXIT_FAILURE, errno, "--cuda-libraries");
        return 0;
    case KEY_LOG_FORMAT:
        if (strcmp(argument, "json") != 0 && strcmp(argument, "text") != 0)
            argp_error(state, "--log-format is text or json, not \"%s\"", argument);
        config->log_json = strcmp(argument, "json") == 0;
        return 0;
    case KEY_HELP:
        argp_state_help(state, stdout, ARGP_HELP_STD_HELP);
        return 0;
    case KEY_VERBOSE:
        config->verbose = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "\"%s\" is not understood: draftd takes options only; jobs are submitted with draft",
                   argument);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = option_table,
    .parser = parse,
    .doc =
        "The daemon that fine-tunes text-to-image models with DRaFT+. It keeps jobs, runs one worker process at a time "
        "on the processor and on each GPU, and answers the program draft and any gRPC client of draftd.v1 on a unix "
        "socket; only its "
        "own user and root are let in."
        "\v"
        "Examples:\n"
        "  draftd 2>draftd.log &                  for yourself, in the usual folders\n"
        "  draft submit --help                    then: what to train\n"
        "  draftd --state-dir /data/draftd --threads 8\n"
        "  draftd --state-dir state --socket d.sock &        a private one; then\n"
        "  draft jobs --socket d.sock\n"
        "  sudo systemctl enable --now draftd     a service: deploy/draftd.service\n"
        "\n"
        "Everything it keeps is in the state folder: with draftd stopped, copy it for a backup, move it to move "
        "draftd. A "
        "newer draftd brings an older database up to date at its start and leaves a copy of the old one beside it.\n"
        "\n"
        "SIGTERM or SIGINT stops it in order: running jobs save a checkpoint and go on at the next start. A second one "
        "more than a second later stops it at once; then jobs go on from their last checkpoint.\n"
        "\n"
        "It leaves with 0 after an orderly stop, 1 when it cannot start, 2 for a wrong command line."};

/* --- Defaults ------------------------------------------------------------------------------------------------------
 */

static bool set_path(char out[PATH_MAX], struct draft_error *err, const char *a, const char *b)
{
    int length = snprintf(out, PATH_MAX, "%s%s", a, b);
    return (length > 0 && length < PATH_MAX) ||
           draft_fail(err, DRAFT_INVALID_ARGUMENT, "the path %.60s...%s is too long", a, b);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Relative names would mean something else to a worker or after a chdir. */
static bool make_absolute(const char **path, char out[PATH_MAX], struct draft_error *err)
{
    char here[PATH_MAX];
    if (*path == NULL || (*path)[0] == '/')
        return true;
    if (getcwd(here, sizeof here - 1) == NULL)
        return draft_fail_errno(err, "cannot tell the current folder");
    strcat(here, "/");
    if (!set_path(out, err, here, *path))
        return false;
    *path = out;
    return true;
}

static bool make_parents(const char *path, struct draft_error *err)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            return draft_fail_errno(err, "cannot make the folder %s", folder);
        *slash = '/';
    }
    return true;
}

static bool find_state_dir(struct draftd_config *config, char out[PATH_MAX], struct draft_error *err)
{
    const char *state_home = environment("XDG_STATE_HOME"), *home = environment("HOME");
    if (config->state_dir == NULL) {
        if (state_home == NULL && home == NULL)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                              "neither HOME nor XDG_STATE_HOME is set: give --state-dir DIR");
        if (!(state_home != NULL ? set_path(out, err, state_home, "/draftd")
                                 : set_path(out, err, home, "/.local/state/draftd")))
            return false;
        config->state_dir = out;
    }
    return true;
}

static bool find_socket(struct draftd_config *config, char out[PATH_MAX], struct draft_error *err)
{
    const char *runtime = environment("XDG_RUNTIME_DIR");
    if (config->socket == NULL)
        config->socket = environment("DRAFTD_SOCKET");
    if (config->socket == NULL) {
        if (!(runtime != NULL ? set_path(out, err, runtime, "/draftd.sock")
                              : set_path(out, err, config->state_dir, "/draftd.sock")))
            return false;
        config->socket = out;
    }
    return true;
}

/* Looks for what is installed with draftd: in the build folder beside it, installed in <prefix>. */
static const char *find_installed(const char *const *places, int mode, char out[PATH_MAX])
{
    char folder[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length <= 0)
        return NULL;
    folder[length] = '\0';
    *strrchr(folder, '/') = '\0';
    for (; *places != NULL; places++)
        if (set_path(out, NULL, folder, *places) && access(out, mode) == 0)
            return out;
    return NULL;
}

static bool find_worker(struct draftd_config *config, char out[PATH_MAX], struct draft_error *err)
{
    static const char *const places[] = {"/draft-engine", "/../libexec/draftd/draft-engine", "/../libexec/draft-engine",
                                         NULL};
    if (config->worker == NULL)
        config->worker = find_installed(places, X_OK, out);
    if (config->worker == NULL)
        return draft_fail(err, DRAFT_NOT_FOUND,
                          "the program draft-engine is neither beside draftd nor in its libexec: give --worker PATH");
    if (access(config->worker, X_OK) != 0)
        return draft_fail_errno(err, "cannot run the worker %s", config->worker);
    return true;
}

static bool complete(struct draftd_config *config, char buffers[7][PATH_MAX], struct draft_error *err)
{
    static const char *const demos[] = {"/../deploy/demo", "/../share/draftd/demo", NULL};
    if (!find_state_dir(config, buffers[0], err) || !make_absolute(&config->state_dir, buffers[1], err) ||
        !find_socket(config, buffers[2], err) || !make_absolute(&config->socket, buffers[3], err) ||
        !find_worker(config, buffers[4], err) || !make_absolute(&config->worker, buffers[5], err))
        return false;
    if ((int)strlen(config->socket) > draftd_listener_longest_path())
        return draft_fail(
            err, DRAFT_INVALID_ARGUMENT,
            "the socket path %s is %zu bytes long and a unix socket's may have %d: give a shorter --socket",
            config->socket, strlen(config->socket), draftd_listener_longest_path());
    if (config->demo_dir == NULL)
        config->demo_dir = find_installed(demos, R_OK, buffers[6]);
    else if (access(config->demo_dir, R_OK) != 0)
        return draft_fail_errno(err, "cannot read --demo-dir %s", config->demo_dir);
    else if (!make_absolute(&config->demo_dir, buffers[6], err))
        return false;
    return make_parents(config->state_dir, err);
}

/* --- The process ---------------------------------------------------------------------------------------------------
 */

/* Connections, streams of files and workers' sockets need descriptors; the soft limit is often 1024. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    rlim_t wanted = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The protocol of systemd's Type=notify: one datagram. Without NOTIFY_SOCKET nothing happens. */
static void notify_supervisor(const char *state)
{
    const char *path = environment("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || strlen(path) >= sizeof address.sun_path)
        return;
    size_t length = strlen(path);
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') /* the abstract namespace */
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
        draftd_log(DRAFTD_WARNING, NULL, "cannot notify the supervisor at %s: %s", path, strerror(errno));
    close(fd);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t stop_asked_ms; /* written before its handlers are there */

/* The kernel (parent death and a terminal's hang-up at once) or a shell may repeat itself: that is no second wish. */
static void leave_at_once(int signal_number)
{
    if (now_ms() - stop_asked_ms < REPEATED_MS)
        return;
    static const char words[] = "draftd: stopped at once by a second signal\n";
    if (write(STDERR_FILENO, words, sizeof words - 1) < 0)
        _exit(128 + signal_number);
    _exit(128 + signal_number);
}

/* Before any thread, so that every thread inherits the mask and signals come to wait_for_stop() alone. */
static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* who ignores it passes that on, and the kernel would reap our workers before we do */
}

static void wait_for_stop(const sigset_t *set)
{
    int got = 0;
    while (got != SIGTERM && got != SIGINT) {
        if (sigwait(set, &got) != 0)
            continue;
        if (got == SIGHUP)
            draftd_log(DRAFTD_INFO, NULL, "SIGHUP: nothing to reload; the command line is the whole configuration");
    }
    draftd_log(DRAFTD_INFO, NULL, "%s: stopping; running jobs save a checkpoint",
               got == SIGTERM ? "SIGTERM" : "SIGINT");
    stop_asked_ms = now_ms();
    signal(SIGTERM, leave_at_once);
    signal(SIGINT, leave_at_once);
    pthread_sigmask(SIG_UNBLOCK, set, NULL);
}

static void adopt(void *context, int fd)
{
    draftd_rpc_adopt(context, fd);
}

static bool serve(const struct draftd_config *config, const sigset_t *signals, struct draft_error *err)
{
    struct draftd_service services[DRAFTD_SERVICES];
    struct draftd *daemon = draftd_create(config, err);
    if (daemon == NULL)
        return false;
    struct draftd_health *health = draftd_health_create(services, DRAFTD_SERVICES);
    struct draftd_reflection *reflection = draftd_reflection_create(services, DRAFTD_SERVICES);
    draftd_services(daemon, health, reflection, services);
    const struct draftd_rpc_options options = {.roles = DRAFTD_ROLE_ALL};
    struct draftd_rpc *rpc = draftd_rpc_create(services, DRAFTD_SERVICES, &options, err);
    struct draftd_listener *listener =
        rpc != NULL ? draftd_listener_open(config->socket, MAX_CONNECTIONS, adopt, rpc, err) : NULL;
    if (listener != NULL) {
        draftd_log(DRAFTD_INFO, NULL, "draftd %s is ready at %s, state in %s, worker %s", DRAFT_VERSION, config->socket,
                   config->state_dir, config->worker);
        notify_supervisor("READY=1");
        wait_for_stop(signals);
        notify_supervisor("STOPPING=1");
        draftd_health_stop(health);
        draftd_drain(daemon);
        draftd_listener_close(listener);
    }
    if (rpc != NULL) {
        draftd_rpc_stop(rpc, GRACE_MS);
        draftd_rpc_destroy(rpc);
    }
    draftd_reflection_destroy(reflection);
    draftd_health_destroy(health);
    draftd_destroy(daemon);
    return listener != NULL;
}

/* glibc gives each of some twenty threads a heap of its own, which keeps what the largest message there once took; two
 * heaps leave the daemon a quarter smaller after a flood of large messages (tests/server/api/hostile_rpc_test.py). */
static void share_heaps(void)
{
    mallopt(M_ARENA_MAX, 2);
}

int main(int argc, char **argv)
{
    static char buffers[7][PATH_MAX];
    struct draftd_config config = {0};
    struct draft_error err = {0};
    share_heaps();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &config);
    draftd_log_setup(config.log_json, config.verbose);

    sigset_t signals;
    block_signals(&signals);
    raise_descriptor_limit();
    umask(0077);
    bool ok = false;
    if (complete(&config, buffers, &err)) {
        draftd_rpc_setup();
        ok = serve(&config, &signals, &err);
        draftd_rpc_teardown();
    }
    if (!ok) {
        draftd_log(DRAFTD_ERROR, NULL, "draftd cannot start: %s", err.message);
        return EXIT_FAILURE;
    }
    draftd_log(DRAFTD_INFO, NULL, "stopped");
    return EXIT_SUCCESS;
}
