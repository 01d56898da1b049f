#include "rpc/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "message.h"

enum { BACKLOG = 128, BACK_OFF_MS = 20, LOG_EVERY_MS = 5000 };

/* An adopted connection. gRPC closes the descriptor without a word, so "still open" is asked of the kernel: the same
 * number with the same inode. */
struct connection {
    int fd;
    uint64_t inode;
};

struct draftd_listener {
    int fd, stop; /* stop: an eventfd */
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    struct stat file; /* the socket file as we made it */
    draftd_adopt adopt;
    void *context;
    pthread_t thread;
    struct connection *connections;
    int count, max;
    int64_t last_log_ms;
};

int draftd_listener_longest_path(void)
{
    return (int)sizeof((struct sockaddr_un *)0)->sun_path - 1;
}

/* --- Binding -------------------------------------------------------------------------------------------------------
 */

static bool check_folder(const char *path, struct draft_error *err)
{
    char folder[sizeof((struct sockaddr_un *)0)->sun_path];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        snprintf(folder, sizeof folder, ".");
    else
        slash[slash == folder ? 1 : 0] = '\0';
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return draft_fail_errno(err, "cannot make the folder %s for the socket", folder);
    struct stat status;
    if (stat(folder, &status) != 0)
        return draft_fail_errno(err, "cannot look at the socket's folder %s", folder);
    if (status.st_uid != geteuid() && status.st_uid != 0)
        return draft_fail(
            err, DRAFT_FAILED_PRECONDITION,
            "the socket's folder %s belongs to another user, who could put a socket of his own there: choose "
            "another --socket",
            folder);
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0 && (status.st_mode & S_ISVTX) == 0)
        return draft_fail(
            err, DRAFT_FAILED_PRECONDITION,
            "the socket's folder %s can be written by others, who could replace the socket: chmod go-w it or "
            "choose another --socket",
            folder);
    return true;
}

/* Removes a socket that nobody listens on. */
static bool clear_path(const struct sockaddr_un *address, struct draft_error *err)
{
    const char *path = address->sun_path;
    struct stat status;
    if (lstat(path, &status) != 0) {
        if (errno == ENOENT)
            return true;
        return draft_fail_errno(err, "cannot look at %s", path);
    }
    if (!S_ISSOCK(status.st_mode))
        return draft_fail(err, DRAFT_ALREADY_EXISTS,
                          "%s is there and is no socket: remove it or choose another --socket", path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return draft_fail_errno(err, "cannot make a socket");
    int connected = connect(probe, (const struct sockaddr *)address, sizeof *address);
    int why = errno;
    close(probe);
    if (connected != 0 && why == ECONNREFUSED) {
        if (unlink(path) == 0 || errno == ENOENT)
            return true;
        return draft_fail_errno(err, "cannot remove the stale socket %s", path);
    }
    if (connected == 0 || why == EAGAIN)
        return draft_fail(err, DRAFT_ALREADY_EXISTS,
                          "another draftd listens at %s: use it, stop it, or choose another --socket", path);
    errno = why;
    return draft_fail_errno(err, "cannot tell whether somebody listens at %s", path);
}

static bool bind_socket(struct draftd_listener *listener, struct draft_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", listener->path);
    if (!check_folder(listener->path, err) || !clear_path(&address, err))
        return false;
    /* The mode of the inode that bind makes is the socket's own: no moment with a wider one, no umask of the process.
     */
    if (fchmod(listener->fd, 0600) != 0)
        return draft_fail_errno(err, "cannot set the socket's mode");
    if (bind(listener->fd, (const struct sockaddr *)&address, sizeof address) != 0)
        return draft_fail_errno(err, "cannot bind %s", listener->path);
    if (lstat(listener->path, &listener->file) != 0 || listen(listener->fd, BACKLOG) != 0) {
        draft_fail_errno(err, "cannot listen at %s", listener->path);
        unlink(listener->path);
        return false;
    }
    return true;
}

/* --- Accepting -----------------------------------------------------------------------------------------------------
 */

/* A line now and then: whoever knocks in a loop must not fill the log. */
static void complain(struct draftd_listener *listener, const char *what, long number)
{
    int64_t now = draftd_now_ms();
    if (now - listener->last_log_ms < LOG_EVERY_MS)
        return;
    listener->last_log_ms = now;
    draftd_log(DRAFTD_WARNING, NULL, "%s (%ld)", what, number);
}

/* By statx, which TSan does not follow: asking about a number that others may close meanwhile is meant here. */
static bool socket_inode(int fd, uint64_t *inode)
{
    struct statx status;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_INO, &status) != 0 || !S_ISSOCK(status.stx_mode))
        return false;
    *inode = status.stx_ino;
    return true;
}

static bool still_open(const struct connection *connection)
{
    uint64_t inode;
    return socket_inode(connection->fd, &inode) && inode == connection->inode;
}

/* A place for one more, after forgetting those that are closed. */
static bool has_room(struct draftd_listener *listener)
{
    if (listener->count < listener->max)
        return true;
    int kept = 0;
    for (int i = 0; i < listener->count; i++)
        if (still_open(&listener->connections[i]))
            listener->connections[kept++] = listener->connections[i];
    listener->count = kept;
    return kept < listener->max;
}

static void take(struct draftd_listener *listener, int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    uint64_t inode;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || !socket_inode(fd, &inode)) {
        close(fd);
        return;
    }
    if (peer.uid != geteuid() && peer.uid != 0) {
        complain(listener, "connection refused: its user id is neither ours nor root's", (long)peer.uid);
        close(fd);
        return;
    }
    if (!has_room(listener)) {
        complain(listener, "connection refused: as many as allowed are open", listener->max);
        close(fd);
        return;
    }
    listener->connections[listener->count++] = (struct connection){fd, inode};
    listener->adopt(listener->context, fd);
}

static int accept_connection(int fd)
{
#if defined(__SANITIZE_THREAD__)
    /* gRPC closes the descriptor where TSan does not look: it would take the next user of the number for a racer. */
    return (int)syscall(SYS_accept4, fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
    return accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
#endif
}

static void *accept_loop(void *argument)
{
    struct draftd_listener *listener = argument;
    struct pollfd polled[2] = {{.fd = listener->fd, .events = POLLIN}, {.fd = listener->stop, .events = POLLIN}};
    for (;;) {
        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            complain(listener, "cannot wait for connections: error", errno);
        if (polled[1].revents != 0)
            return NULL;
        if (polled[0].revents == 0)
            continue;
        int fd = accept_connection(listener->fd);
        if (fd >= 0) {
            take(listener, fd);
        } else if (errno != EINTR && errno != EAGAIN && errno != ECONNABORTED) {
            /* mostly EMFILE: descriptors come back when connections end; the client waits in the backlog */
            complain(listener, "cannot accept a connection: error", errno);
            poll(&polled[1], 1, BACK_OFF_MS);
        }
    }
}

struct draftd_listener *draftd_listener_open(const char *path, int max_connections, draftd_adopt adopt, void *context,
                                             struct draft_error *err)
{
    if ((int)strlen(path) > draftd_listener_longest_path()) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT,
                   "the socket path %s is %zu bytes long and a unix socket's may have %d: choose a shorter --socket",
                   path, strlen(path), draftd_listener_longest_path());
        return NULL;
    }
    struct draftd_listener *listener = draftd_new(sizeof *listener);
    snprintf(listener->path, sizeof listener->path, "%s", path);
    listener->adopt = adopt;
    listener->context = context;
    listener->max = max_connections;
    listener->last_log_ms = -LOG_EVERY_MS;
    listener->connections = draftd_new((size_t)max_connections * sizeof *listener->connections);
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    listener->stop = eventfd(0, EFD_CLOEXEC);
    if (listener->fd < 0 || listener->stop < 0)
        draft_fail_errno(err, "cannot make a socket");
    else if (bind_socket(listener, err)) {
        if (pthread_create(&listener->thread, NULL, accept_loop, listener) == 0) {
            pthread_setname_np(listener->thread, "rpc-accept");
            return listener;
        }
        draft_fail(err, DRAFT_RESOURCE_EXHAUSTED, "cannot start the accepting thread; raise the limit on processes");
        unlink(listener->path);
    }
    if (listener->fd >= 0)
        close(listener->fd);
    if (listener->stop >= 0)
        close(listener->stop);
    free(listener->connections);
    free(listener);
    return NULL;
}

void draftd_listener_close(struct draftd_listener *listener)
{
    if (listener == NULL)
        return;
    if (eventfd_write(listener->stop, 1) == 0)
        pthread_join(listener->thread, NULL);
    struct stat now;
    if (lstat(listener->path, &now) == 0 && now.st_dev == listener->file.st_dev && now.st_ino == listener->file.st_ino)
        unlink(listener->path);
    close(listener->fd);
    close(listener->stop);
    free(listener->connections);
    free(listener);
}
