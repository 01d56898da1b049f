#include "worker.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices.h"
#include "log.h"
#include "message.h"
#include "process.h"

enum { READ_STEP = 64 << 10, READ_TURN = 1 << 20 };

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd); /* leaves the epoll set by itself: no duplicate of it exists */
    *fd = -1;
}

static void listen_to(struct draftd *d, const struct draftd_worker *worker, int which, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = worker->id * 4 + (uint64_t)which};
    if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        draftd_log(DRAFTD_ERROR, worker->about, "epoll_ctl failed: %s", strerror(errno));
}

struct draftd_worker *draftd_worker_start(struct draftd *d, enum draftd_task task, const char *about,
                                          const char *log_path, struct draft_error *err)
{
    struct draftd_spawned spawned;
    if (!draftd_spawn(d->worker_path, about, log_path, &spawned, err))
        return NULL;
    struct draftd_worker *worker = draftd_new(sizeof *worker);
    worker->id = ++d->next_worker;
    worker->task = task;
    worker->device = DRAFTD_NO_DEVICE;
    snprintf(worker->about, sizeof worker->about, "%s", about);
    worker->pidfd = spawned.pidfd;
    worker->socket = spawned.socket;
    worker->log_pipe = spawned.log_pipe;
    worker->log_file = spawned.log_file;
    draftd_process_identify(spawned.pid, &worker->process);
    worker->heard_ms = draftd_now_ms();
    worker->next = d->workers;
    d->workers = worker;
    listen_to(d, worker, 0, worker->socket, EPOLLIN);
    listen_to(d, worker, 1, worker->pidfd, EPOLLIN);
    listen_to(d, worker, 2, worker->log_pipe, EPOLLIN);
    draftd_log(DRAFTD_DEBUG, about, "worker %d started", spawned.pid);
    draftd_kick(d);
    return worker;
}

void draftd_worker_free(struct draftd *d, struct draftd_worker *worker)
{
    struct draftd_worker **link = &d->workers;
    while (*link != worker)
        link = &(*link)->next;
    *link = worker->next;
    close_fd(&worker->socket);
    close_fd(&worker->pidfd);
    close_fd(&worker->log_pipe);
    close_fd(&worker->log_file);
    draftd_message_free(worker->inspected);
    draftd_message_free(worker->probed);
    free(worker->checkpoint);
    free(worker->in);
    free(worker->out);
    free(worker);
}

/* --- To the worker --- */

static void flush(struct draftd *d, struct draftd_worker *worker)
{
    size_t sent = 0;
    while (worker->socket >= 0 && sent < worker->out_used) {
        ssize_t n = send(worker->socket, worker->out + sent, worker->out_used - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* full: EPOLLOUT says when; broken: the reading side will see it */
        sent += (size_t)n;
    }
    memmove(worker->out, worker->out + sent, worker->out_used - sent);
    worker->out_used -= sent;
    struct epoll_event event = {.events = EPOLLIN | (worker->out_used ? EPOLLOUT : 0), .data.u64 = worker->id * 4};
    if (worker->socket >= 0)
        epoll_ctl(d->epoll, EPOLL_CTL_MOD, worker->socket, &event);
}

void draftd_worker_send(struct draftd *d, struct draftd_worker *worker, const Draftd__Worker__Command *command)
{
    size_t size = protobuf_c_message_get_packed_size(&command->base);
    assert(size <= DRAFTD_FRAME_BYTES); /* callers bound what they put into it */
    if (worker->out_used + size + 4 > worker->out_size) {
        worker->out_size = worker->out_used + size + 4;
        worker->out = draftd_grow(worker->out, worker->out_size);
    }
    uint8_t *frame = worker->out + worker->out_used;
    for (int i = 0; i < 4; i++)
        frame[i] = (uint8_t)(size >> (8 * i));
    protobuf_c_message_pack(&command->base, frame + 4);
    worker->out_used += size + 4;
    flush(d, worker);
}

static void send_signal(const struct draftd_worker *worker, int number)
{
    if (!worker->exited)
        pidfd_send_signal(worker->pidfd, number, NULL, 0);
}

void draftd_worker_stop(struct draftd *d, struct draftd_worker *worker, bool checkpoint, int64_t grace_ms)
{
    Draftd__Worker__Stop stop = DRAFTD__WORKER__STOP__INIT;
    stop.checkpoint = checkpoint;
    Draftd__Worker__Command command = DRAFTD__WORKER__COMMAND__INIT;
    command.kind_case = DRAFTD__WORKER__COMMAND__KIND_STOP;
    command.stop = &stop;
    draftd_worker_send(d, worker, &command);
    if (grace_ms > 0) {
        int64_t due = draftd_now_ms() + grace_ms;
        if (worker->term_at_ms == 0 || due < worker->term_at_ms)
            worker->term_at_ms = due;
        draftd_kick(d);
    }
}

void draftd_worker_kill(struct draftd *d, struct draftd_worker *worker, enum draftd_killed why, const char *format, ...)
{
    if (worker->killed == DRAFTD_KILLED_NOT) {
        worker->killed = why;
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(worker->killed_why, sizeof worker->killed_why, format, arguments);
        va_end(arguments);
    }
    send_signal(worker, SIGKILL);
    close_fd(&worker->socket);
    draftd_kick(d);
}

bool draftd_worker_wait(struct draftd *d, struct draftd_worker *worker, struct draftd_patience patience)
{
    assert(worker->waited_for);
    while (!worker->over)
        if (!draftd_wait(d, patience)) {
            worker->waited_for = false;
            if (!worker->over)
                draftd_worker_kill(d, worker, DRAFTD_KILLED_UNWANTED, "nobody waits for it any more");
            else
                draftd_worker_free(d, worker);
            return false;
        }
    return true;
}

/* --- From the worker --- */

static void keep_finished(struct draftd_worker *worker, const Draftd__Worker__Finished *finished)
{
    worker->finished = true;
    worker->stopped = finished->stopped;
    if (finished->code == DRAFT_OK)
        return;
    bool known = finished->code > DRAFT_OK && finished->code <= DRAFT_DEVICE_LOST;
    worker->result.code = known ? (enum draft_code)finished->code : DRAFT_INTERNAL;
    draftd_clean_text(worker->result.message, sizeof worker->result.message, finished->message);
    draftd_clean_text(worker->result.field, sizeof worker->result.field, finished->field);
    if (worker->result.message[0] == '\0')
        snprintf(worker->result.message, sizeof worker->result.message, "the worker gave no reason (%s)",
                 draft_code_name(worker->result.code));
}

static bool take_report(struct draftd *d, struct draftd_worker *worker, Draftd__Worker__Report *report,
                        struct draft_error *err)
{
    if (worker->finished)
        return draft_fail(err, DRAFT_INTERNAL, "a frame after the last one");
    switch (report->kind_case) {
    case DRAFTD__WORKER__REPORT__KIND_FINISHED:
        keep_finished(worker, report->finished);
        return true;
    case DRAFTD__WORKER__REPORT__KIND_INSPECTED:
        if (worker->task != DRAFTD_TASK_INSPECT || worker->inspected)
            return draft_fail(err, DRAFT_INTERNAL, "an inspection that nobody asked for");
        worker->inspected = report->inspected;
        report->kind_case = DRAFTD__WORKER__REPORT__KIND__NOT_SET; /* taken out of it */
        return true;
    case DRAFTD__WORKER__REPORT__KIND_PROBED:
        if (worker->task != DRAFTD_TASK_PROBE || worker->probed)
            return draft_fail(err, DRAFT_INTERNAL, "a probe's answer that nobody asked for");
        worker->probed = report->probed;
        report->kind_case = DRAFTD__WORKER__REPORT__KIND__NOT_SET;
        return true;
    case DRAFTD__WORKER__REPORT__KIND__NOT_SET:
        return draft_fail(err, DRAFT_INTERNAL, "a frame of no known kind");
    default:
        return worker->report == NULL || worker->report(d, worker, report, err);
    }
}

/* All whole frames in the buffer. */
static bool take_frames(struct draftd *d, struct draftd_worker *worker, struct draft_error *err)
{
    size_t used = 0;
    bool ok = true;
    while (ok && worker->in_used - used >= 4) {
        const uint8_t *frame = worker->in + used;
        size_t size = (size_t)frame[0] | (size_t)frame[1] << 8 | (size_t)frame[2] << 16 | (size_t)frame[3] << 24;
        if (size > DRAFTD_FRAME_BYTES)
            return draft_fail(err, DRAFT_INTERNAL, "a frame that claims %zu bytes", size);
        if (worker->in_used - used < 4 + size)
            break;
        Draftd__Worker__Report *report = draftd__worker__report__unpack(NULL, size, frame + 4);
        ok =
            report ? take_report(d, worker, report, err) : draft_fail(err, DRAFT_INTERNAL, "a frame that is no Report");
        draftd_message_free(report);
        used += 4 + size;
        if (worker->socket < 0)
            return ok; /* killed by what the report led to */
    }
    memmove(worker->in, worker->in + used, worker->in_used - used);
    worker->in_used -= used;
    return ok;
}

/* Reads what is there; after its death everything, before it at most a turn's worth. */
static void read_socket(struct draftd *d, struct draftd_worker *worker)
{
    size_t turn = 0;
    while (worker->socket >= 0 && (turn < READ_TURN || worker->exited)) {
        if (worker->in_size - worker->in_used < READ_STEP) { /* grows with what came, not with what a length claims */
            worker->in_size = worker->in_used + (worker->in_used < READ_STEP ? READ_STEP : worker->in_used);
            worker->in = draftd_grow(worker->in, worker->in_size);
        }
        ssize_t n = recv(worker->socket, worker->in + worker->in_used, READ_STEP, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) { /* it closed its end: it leaves, or has lost its way */
            close_fd(&worker->socket);
            if (!worker->exited && worker->kill_at_ms == 0)
                worker->kill_at_ms = draftd_now_ms() + DRAFTD_GRACE_MS;
            return;
        }
        turn += (size_t)n;
        worker->in_used += (size_t)n;
        worker->heard_ms = draftd_now_ms();
        struct draft_error err = {0};
        if (!take_frames(d, worker, &err))
            draftd_worker_kill(d, worker, DRAFTD_KILLED_BAD_FRAME, "%s", err.message);
    }
}

static void keep_log(struct draftd_worker *worker, const char *text, size_t length)
{
    if (worker->log_file >= 0 && worker->log_bytes < DRAFTD_LOG_BYTES) {
        size_t room = DRAFTD_LOG_BYTES - worker->log_bytes;
        ssize_t n = write(worker->log_file, text, length < room ? length : room);
        worker->log_bytes += n > 0 ? (size_t)n : 0; /* a full disk costs log lines, nothing else */
        if (worker->log_bytes >= DRAFTD_LOG_BYTES && write(worker->log_file, "\n[log cut here]\n", 16) < 0)
            close_fd(&worker->log_file);
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] != '\n') {
            if (worker->line_used < sizeof worker->line - 1)
                worker->line[worker->line_used++] = text[i];
        } else if (worker->line_used > 0) {
            worker->line[worker->line_used] = '\0';
            draftd_clean_text(worker->last_line, sizeof worker->last_line, worker->line);
            worker->line_used = 0;
        }
    }
}

static void read_log(struct draftd_worker *worker)
{
    char text[8192];
    for (int turn = 0; worker->log_pipe >= 0 && (turn < 16 || worker->exited); turn++) {
        ssize_t n = read(worker->log_pipe, text, sizeof text);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            close_fd(&worker->log_pipe);
        else
            keep_log(worker, text, (size_t)n);
    }
}

static void reap(struct draftd *d, struct draftd_worker *worker)
{
    siginfo_t info = {0};
    if (worker->exited || waitid(P_PIDFD, (id_t)worker->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return;
    worker->exited = true;
    worker->status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
    read_socket(d, worker);
    read_log(worker);
    if (worker->line_used > 0)
        keep_log(worker, "\n", 1);
    draftd_log(DRAFTD_DEBUG, worker->about, "worker %d ended, status %#x", worker->process.pid,
               (unsigned)worker->status);
    worker->over = true;
    bool lost = worker->finished ? worker->result.code == DRAFT_DEVICE_LOST || worker->result.code == DRAFT_INTERNAL
                                 : worker->killed != DRAFTD_KILLED_UNWANTED;
    if (lost)
        draftd_device_doubt(d, worker->device);
    if (worker->end)
        worker->end(d, worker);
    if (!worker->waited_for)
        draftd_worker_free(d, worker);
    pthread_cond_broadcast(&d->changed);
}

void draftd_worker_ready(struct draftd *d, uint64_t id, int which)
{
    struct draftd_worker *worker = d->workers;
    while (worker && worker->id != id)
        worker = worker->next;
    if (worker == NULL || worker->over)
        return; /* it ended earlier in this round */
    if (which == 0 && worker->socket >= 0) {
        if (worker->out_used)
            flush(d, worker);
        read_socket(d, worker);
    } else if (which == 1) {
        reap(d, worker);
    } else if (which == 2) {
        read_log(worker);
    }
}

int64_t draftd_workers_check(struct draftd *d, int64_t now_ms)
{
    int64_t next = INT64_MAX;
    for (struct draftd_worker *worker = d->workers; worker; worker = worker->next) {
        if (worker->exited)
            continue;
        int64_t silent_until = worker->heard_ms + d->hang_ms;
        if (worker->killed == DRAFTD_KILLED_NOT && now_ms >= silent_until)
            draftd_worker_kill(d, worker, DRAFTD_KILLED_HUNG, "it gave no sign of life for %d s", d->hang_ms / 1000);
        if (worker->term_at_ms && now_ms >= worker->term_at_ms) {
            send_signal(worker, SIGTERM);
            worker->term_at_ms = 0;
            if (worker->kill_at_ms == 0)
                worker->kill_at_ms = now_ms + DRAFTD_GRACE_MS;
        }
        if (worker->kill_at_ms && now_ms >= worker->kill_at_ms) {
            worker->kill_at_ms = 0;
            draftd_worker_kill(d, worker, DRAFTD_KILLED_UNWANTED, "it did not stop when told to");
        }
        if (worker->killed == DRAFTD_KILLED_NOT && silent_until < next)
            next = silent_until;
        if (worker->term_at_ms && worker->term_at_ms < next)
            next = worker->term_at_ms;
        if (worker->kill_at_ms && worker->kill_at_ms < next)
            next = worker->kill_at_ms;
    }
    return next;
}

void draftd_workers_excuse(struct draftd *d, int64_t now_ms, int64_t ms)
{
    for (struct draftd_worker *worker = d->workers; worker; worker = worker->next) {
        worker->heard_ms = now_ms;
        worker->term_at_ms += worker->term_at_ms ? ms : 0;
        worker->kill_at_ms += worker->kill_at_ms ? ms : 0;
    }
}

/* --- Words --- */

const char *draftd_reason_code(const struct draft_error *err)
{
    switch (err->code) {
    case DRAFT_OUT_OF_MEMORY:
        return "OUT_OF_MEMORY";
    case DRAFT_DISK_FULL:
        return "DISK_FULL";
    case DRAFT_NON_FINITE:
        return "NON_FINITE";
    case DRAFT_DATA_LOSS:
        return "DATA_LOSS";
    case DRAFT_NOT_FOUND:
        return "NOT_FOUND";
    case DRAFT_INVALID_ARGUMENT:
        return "INVALID_ARGUMENT";
    case DRAFT_FAILED_PRECONDITION:
        return strcmp(err->field, "fingerprint") == 0 ? "WEIGHTS_CHANGED" : "FAILED_PRECONDITION";
    case DRAFT_IO:
        return "IO";
    case DRAFT_DEVICE_LOST:
        return "DEVICE_LOST";
    case DRAFT_UNAVAILABLE:
        return "UNAVAILABLE";
    default:
        return "INTERNAL";
    }
}

void draftd_worker_explain(struct draftd *d, const struct draftd_worker *worker, uint64_t memory_bytes, char *sentence,
                           size_t capacity, const char **reason_code)
{
    (void)d;
    char what[400];
    *reason_code = "WORKER_CRASHED";
    if (worker->killed == DRAFTD_KILLED_HUNG) {
        *reason_code = "WORKER_HUNG";
        snprintf(what, sizeof what, "the worker hung: %s and was ended", worker->killed_why);
    } else if (worker->killed == DRAFTD_KILLED_BAD_FRAME) {
        snprintf(what, sizeof what, "the worker sent %s and was ended", worker->killed_why);
    } else if (worker->killed == DRAFTD_KILLED_UNWANTED) {
        snprintf(what, sizeof what, "the worker was ended: %s", worker->killed_why);
    } else if (WIFSIGNALED(worker->status) && WTERMSIG(worker->status) == SIGKILL) {
        *reason_code = "OUT_OF_MEMORY";
        snprintf(what, sizeof what, "the system killed the worker (SIGKILL), probably for want of memory");
        if (memory_bytes)
            snprintf(what + strlen(what), sizeof what - strlen(what), "; it needs about %.1f GiB",
                     (double)memory_bytes / (1 << 30));
    } else if (WIFSIGNALED(worker->status)) {
        int number = WTERMSIG(worker->status);
        const char *name = sigabbrev_np(number), *words = sigdescr_np(number);
        snprintf(what, sizeof what, "the worker crashed (SIG%s: %s)", name ? name : "?",
                 words ? words : "unknown signal");
    } else {
        snprintf(what, sizeof what, "the worker ended with status %d without a result", WEXITSTATUS(worker->status));
    }
    if (worker->last_line[0])
        snprintf(sentence, capacity, "%s; its last words: %s", what, worker->last_line);
    else
        snprintf(sentence, capacity, "%s", what);
}
