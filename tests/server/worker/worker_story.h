/* A draft-engine of a test's own and the story it told: every report checked as it comes. */
#ifndef WORKER_STORY_H
#define WORKER_STORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker.pb-c.h"
#include "worker/frames.h"

enum { STEPS = 6, CHECKPOINT_EVERY = 3 }; /* of the jobs told about */

struct worker {
    pid_t pid;
    int socket, messages; /* messages: its stderr */
};

static struct worker start(bool by_draftd)
{
    int pair[2], pipes[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    struct worker w = {.pid = fork(), .socket = pair[0], .messages = pipes[0]};
    assert_true(w.pid >= 0);
    if (w.pid == 0) {
        dup2(pipes[1], 2);
        if (!by_draftd)
            close(3);
        else if (pair[1] == 3)
            fcntl(3, F_SETFD, 0);
        else
            dup2(pair[1], 3);
        if (by_draftd)
            closefrom(4);
        else
            closefrom(3);
        execl(BUILD "/draft-engine", "draft-engine", (char *)NULL);
        _exit(127);
    }
    close(pair[1]);
    close(pipes[1]);
    return w;
}

static int end_of(struct worker *w)
{
    int status;
    assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
    if (w->socket >= 0)
        close(w->socket);
    close(w->messages);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void command(struct worker *w, const Draftd__Worker__Command *command)
{
    size_t size = draftd__worker__command__get_packed_size(command);
    uint8_t *data = malloc(size + 1);
    struct draft_error err = {0};
    draftd__worker__command__pack(command, data);
    assert_true(draftd_frame_write(w->socket, data, size, &err));
    free(data);
}

/* The next report, or NULL at the end. */
static Draftd__Worker__Report *next(struct worker *w)
{
    uint8_t *data;
    size_t size;
    struct draft_error err = {0};
    if (draftd_frame_read(w->socket, &data, &size, &err) != DRAFTD_FRAME_OK)
        return NULL;
    Draftd__Worker__Report *report = draftd__worker__report__unpack(NULL, size, data);
    assert_non_null(report);
    free(data);
    return report;
}

static void done(Draftd__Worker__Report *report)
{
    draftd__worker__report__free_unpacked(report, NULL);
}

/* What a test wants to know of a whole task. */
struct story {
    double reward[STEPS + 1], kl[STEPS + 1], evaluated[STEPS + 1]; /* NAN: not told */
    int64_t started_at, saved_step;
    char saved_path[512];
    int saves, pictures, previews_done, progress, preview_code;
    Draftd__Worker__Inspected *inspected;
    int code;
    char message[1024], field[128];
    bool stopped, finished;
};

static double value(const Draftd__Worker__Metrics *m, const char *name)
{
    assert_int_equal(m->n_names, m->n_values);
    for (size_t i = 0; i < m->n_names; i++)
        if (strcmp(m->names[i], name) == 0)
            return m->values[i];
    return NAN;
}

static void take(struct story *s, Draftd__Worker__Report *r)
{
    assert_false(s->finished); /* nothing after the last frame */
    switch (r->kind_case) {
    case DRAFTD__WORKER__REPORT__KIND_STARTED:
        s->started_at = r->started->step;
        assert_int_equal(r->started->total_steps, STEPS);
        break;
    case DRAFTD__WORKER__REPORT__KIND_PROGRESS:
        s->progress++;
        break;
    case DRAFTD__WORKER__REPORT__KIND_METRICS:
        assert_in_range(r->metrics->step, 0, STEPS);
        if (r->metrics->evaluation) {
            s->evaluated[r->metrics->step] = value(r->metrics, "eval/reward");
            break;
        }
        s->reward[r->metrics->step] = value(r->metrics, "reward");
        s->kl[r->metrics->step] = value(r->metrics, "kl");
        assert_true(r->metrics->seconds > 0);
        break;
    case DRAFTD__WORKER__REPORT__KIND_SAVED:
        s->saves++;
        s->saved_step = r->saved->step;
        snprintf(s->saved_path, sizeof s->saved_path, "%s", r->saved->path);
        struct stat st;
        assert_int_equal(stat(r->saved->path, &st), 0);
        assert_int_equal(st.st_size, r->saved->bytes);
        if (r->saved->step > s->started_at)
            assert_false(isnan(s->reward[r->saved->step]));
        break;
    case DRAFTD__WORKER__REPORT__KIND_PREVIEW:
        s->pictures += r->preview->has_picture;
        s->previews_done += r->preview->done;
        if (r->preview->done)
            s->preview_code = r->preview->code;
        break;
    case DRAFTD__WORKER__REPORT__KIND_FINISHED:
        s->finished = true;
        s->code = r->finished->code;
        s->stopped = r->finished->stopped;
        snprintf(s->message, sizeof s->message, "%s", r->finished->message);
        snprintf(s->field, sizeof s->field, "%s", r->finished->field);
        break;
    case DRAFTD__WORKER__REPORT__KIND_INSPECTED:
        s->inspected = r->inspected;
        r->inspected = NULL;
        r->kind_case = DRAFTD__WORKER__REPORT__KIND__NOT_SET;
        break;
    default:
        break;
    }
    done(r);
}

static struct story new_story(void)
{
    struct story s = {.started_at = -1, .saved_step = -1};
    for (int i = 0; i <= STEPS; i++)
        s.reward[i] = s.kl[i] = s.evaluated[i] = NAN;
    return s;
}

static struct story listen_to_the_end(struct worker *w)
{
    struct story s = new_story();
    for (Draftd__Worker__Report *r; (r = next(w));)
        take(&s, r);
    return s;
}

#endif
