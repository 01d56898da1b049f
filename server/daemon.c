/* The daemon's life: open, its own thread, drain, close. */
#include "daemon.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "devices.h"
#include "folders.h"
#include "job.h"
#include "log.h"
#include "message.h"
#include "previews.h"
#include "restart.h"
#include "space.h"
#include "training.h"
#include "watch.h"
#include "worker.h"

enum { RETRY_MS = 1000, LOOK_MS = 200, AWAY_MS = 500, EVENTS = 32 };

void draftd_kick(struct draftd *d)
{
    if (d->kicked)
        return;
    d->kicked = true;
    uint64_t one = 1;
    if (write(d->kick_fd, &one, sizeof one) < 0)
        draftd_log(DRAFTD_ERROR, NULL, "cannot wake the daemon's thread: %s", strerror(errno));
}

struct draftd_patience draftd_within(int ms)
{
    return (struct draftd_patience){.deadline_ms = draftd_now_ms() + ms};
}

bool draftd_wait(struct draftd *d, struct draftd_patience patience)
{
    int64_t now = draftd_now_ms(), until = patience.deadline_ms;
    if (now >= until || (patience.gone && atomic_load(patience.gone)))
        return false;
    if (patience.gone && until > now + LOOK_MS) /* nobody signals that a caller leaves */
        until = now + LOOK_MS;
    struct timespec time = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    return pthread_cond_timedwait(&d->changed, &d->lock, &time) != ETIMEDOUT || until < patience.deadline_ms;
}

bool draftd_accepts_work(struct draftd *d, struct draft_error *err)
{
    return !d->draining || draft_fail(err, DRAFT_UNAVAILABLE, "the daemon is shutting down; try again when it is back");
}

bool draftd_is_draining(struct draftd *d)
{
    pthread_mutex_lock(&d->lock);
    bool draining = d->draining;
    pthread_mutex_unlock(&d->lock);
    return draining;
}

/* --- The daemon's thread --- */

static int64_t retry_moves(struct draftd *d, int64_t now_ms)
{
    bool waiting = false;
    for (const struct draftd_live_job *job = d->jobs; job; job = job->next)
        waiting |= job->unsaved != NULL;
    if (!waiting)
        return INT64_MAX;
    if (now_ms >= d->retry_ms) {
        d->retry_ms = now_ms + RETRY_MS;
        draftd_retry_moves(d);
    }
    return d->retry_ms;
}

static void take_events(struct draftd *d, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t id = events[i].data.u64;
        if (id == 0) {
            uint64_t kicks;
            ssize_t n = read(d->kick_fd, &kicks, sizeof kicks);
            (void)n;
            d->kicked = false;
        } else {
            draftd_worker_ready(d, id / 4, (int)(id % 4));
        }
    }
}

static void *run(void *argument)
{
    struct draftd *d = argument;
    pthread_mutex_lock(&d->lock);
    int64_t due = draftd_now_ms();
    while (!d->quit) {
        int64_t now = draftd_now_ms();
        if (now - due > AWAY_MS) /* frozen: who was not heard may have spoken */
            draftd_workers_excuse(d, now, now - due);
        int64_t next = draftd_workers_check(d, now), retry = retry_moves(d, now);
        next = retry < next ? retry : next;
        if (retry == INT64_MAX)
            draftd_reserve_keep(d, now, &next);
        draftd_devices_check(d, now, &next);
        draftd_schedule(d, now, &next);
        draftd_previews_schedule(d, now, &next);
        int untold = draftd_wake_watchers(d);
        int64_t wait = next == INT64_MAX ? 60000 : next - draftd_now_ms();
        if (untold >= 0 && untold < wait)
            wait = untold;
        wait = wait < 0 ? 0 : wait > 60000 ? 60000 : wait;
        due = now + wait;
        struct epoll_event events[EVENTS];
        pthread_mutex_unlock(&d->lock);
        int count = epoll_wait(d->epoll, events, EVENTS, (int)wait);
        pthread_mutex_lock(&d->lock);
        take_events(d, events, count);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static bool start_thread(struct draftd *d, struct draft_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are main's business */
    int rc = pthread_create(&d->thread, NULL, run, d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    d->thread_runs = rc == 0;
    errno = rc;
    return rc == 0 || draft_fail_errno(err, "cannot start the daemon's thread");
}

/* --- Open, drain, close --- */

static bool make_state_dir(const char *path, char **absolute, struct draft_error *err)
{
    char *copy = draftd_strdup(path);
    bool ok = true;
    for (char *slash = strchr(copy + 1, '/'); ok && slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        ok = draftd_make_folder(copy, err);
        *slash = '/';
    }
    ok = ok && draftd_make_folder(copy, err);
    if (ok && (*absolute = realpath(copy, NULL)) == NULL)
        ok = draft_fail_errno(err, "cannot find the state folder %s", path);
    free(copy);
    return ok;
}

static bool set_up(struct draftd *d, const struct draftd_config *config, struct draft_error *err)
{
    d->epoll = epoll_create1(EPOLL_CLOEXEC);
    d->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->epoll < 0 || d->kick_fd < 0)
        return draft_fail_errno(err, "cannot make the daemon's event queue");
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    if (epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->kick_fd, &event) < 0)
        return draft_fail_errno(err, "cannot make the daemon's event queue");
    if (!make_state_dir(config->state_dir, &d->state_dir, err))
        return false;
    if (access(d->worker_path, X_OK) < 0)
        return draft_fail_errno(err, "cannot run the worker program %s", d->worker_path);
    d->store = draftd_store_open(d->state_dir, err);
    if (d->store == NULL)
        return false;
    draftd_reserve_keep(d, draftd_now_ms(), &(int64_t){0}); /* what the start records may need it */
    return draftd_restart(d, err) && start_thread(d, err);
}

struct draftd *draftd_create(const struct draftd_config *config, struct draft_error *err)
{
    draftd_log_setup(config->log_json, config->verbose);
    struct draftd *d = draftd_new(sizeof *d);
    d->socket = draftd_strdup(config->socket);
    d->worker_path = draftd_strdup(config->worker);
    d->demo_dir = draftd_strdup(config->demo_dir);
    d->max_queue = config->max_queue > 0 ? config->max_queue : 512;
    d->threads = config->threads;
    d->hang_ms = (config->hang_seconds > 0 ? config->hang_seconds : 600) * 1000;
    d->drain_ms = (config->drain_seconds > 0 ? config->drain_seconds : 60) * 1000;
    d->probe_ms = (config->probe_seconds > 0 ? config->probe_seconds : 60) * 1000;
    d->start_time_us = draftd_now_us();
    draftd_devices_open(d);
    d->epoll = d->kick_fd = -1;
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (set_up(d, config, err))
        return d;
    draftd_destroy(d);
    return NULL;
}

static bool any_worker(const struct draftd *d)
{
    for (const struct draftd_worker *worker = d->workers; worker; worker = worker->next)
        if (!worker->over)
            return true;
    return false;
}

void draftd_drain(struct draftd *d)
{
    pthread_mutex_lock(&d->lock);
    d->draining = true;
    struct draftd_patience patience = draftd_within(d->drain_ms);
    draftd_log(DRAFTD_INFO, NULL, "shutting down: no new work, workers save and stop");
    for (struct draftd_live_job *job = d->jobs; job; job = job->next)
        if (job->worker)
            draftd_training_stop(d, job, DRAFTD_STOP_DRAIN);
    for (struct draftd_worker *worker = d->workers; worker; worker = worker->next)
        if (worker->task != DRAFTD_TASK_TRAIN)
            draftd_worker_stop(d, worker, false, d->drain_ms < DRAFTD_GRACE_MS ? d->drain_ms : DRAFTD_GRACE_MS);
    draftd_kick(d);
    while (any_worker(d) && draftd_wait(d, patience))
        continue;
    for (struct draftd_worker *worker = d->workers; worker; worker = worker->next)
        if (!worker->exited)
            draftd_worker_kill(d, worker, DRAFTD_KILLED_UNWANTED, "it did not stop within the %d s of the shutdown",
                               d->drain_ms / 1000);
    patience.deadline_ms += 2 * DRAFTD_GRACE_MS;
    while (any_worker(d) && draftd_wait(d, patience))
        continue;
    pthread_mutex_unlock(&d->lock);
}

void draftd_destroy(struct draftd *d)
{
    if (d == NULL)
        return;
    pthread_mutex_lock(&d->lock);
    d->quit = true;
    if (d->kick_fd >= 0)
        draftd_kick(d);
    pthread_mutex_unlock(&d->lock);
    if (d->thread_runs)
        pthread_join(d->thread, NULL);
    draftd_schedule_end(d);
    while (d->workers) { /* what was not drained is ended here; the next start goes on from its checkpoint */
        struct draftd_worker *worker = d->workers;
        if (!worker->exited) {
            draftd_worker_kill(d, worker, DRAFTD_KILLED_UNWANTED, "the daemon ended");
            siginfo_t info;
            waitid(P_PIDFD, (id_t)worker->pidfd, &info, WEXITED);
        }
        draftd_worker_free(d, worker);
    }
    while (d->previews)
        draftd_previews_forget(d, d->previews->job);
    while (d->jobs) {
        d->jobs->worker = NULL;
        draftd_job_forget(d, d->jobs);
    }
    draftd_store_close(d->store);
    if (d->epoll >= 0)
        close(d->epoll);
    if (d->kick_fd >= 0)
        close(d->kick_fd);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->changed);
    free(d->state_dir);
    free(d->socket);
    free(d->worker_path);
    free(d->demo_dir);
    free(d);
}
