#include "worker/line.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/frames.h"

/* Exit codes besides 0: the daemon shows them when a worker ends without a Finished frame. */
enum { EXIT_DAEMON_GONE = 3, EXIT_BAD_FRAME = 4 };

enum { MAX_WAITING = 1024 }; /* commands not yet taken; the daemon sends a handful */

struct waiting {
    struct waiting *next;
    Draftd__Worker__Command *command;
};

struct draftd_line {
    int fd;
    pthread_t reader;
    pthread_mutex_t lock; /* guards the queue */
    pthread_cond_t arrived;
    struct waiting *first, **last;
    int count;
    atomic_int stop;
    atomic_bool finished; /* the last frame is out: the daemon may go */
};

static _Noreturn void leave(int code, const char *what)
{
    fprintf(stderr, "draft-engine: %s\n", what);
    fflush(stderr);
    _exit(code); /* other threads are in the middle of things; every file is written atomically */
}

static void take_stop(struct draftd_line *line, const Draftd__Worker__Stop *stop)
{
    int wish = stop->checkpoint ? DRAFTD_STOP_SAVE : DRAFTD_STOP_NOW;
    pthread_mutex_lock(&line->lock);
    if (wish > atomic_load(&line->stop))
        atomic_store(&line->stop, wish);
    pthread_cond_broadcast(&line->arrived);
    pthread_mutex_unlock(&line->lock);
}

static void *read_commands(void *context)
{
    struct draftd_line *line = context;
    for (;;) {
        uint8_t *data;
        size_t size;
        struct draft_error err = {0};
        enum draftd_frame_result result = draftd_frame_read(line->fd, &data, &size, &err);
        if (result == DRAFTD_FRAME_END && atomic_load(&line->finished))
            _exit(0);
        if (result == DRAFTD_FRAME_END)
            leave(EXIT_DAEMON_GONE, "draftd is gone, leaving");
        if (result == DRAFTD_FRAME_FAILED)
            leave(EXIT_BAD_FRAME, err.message);
        Draftd__Worker__Command *command = draftd__worker__command__unpack(NULL, size, data);
        free(data);
        if (!command || command->kind_case == DRAFTD__WORKER__COMMAND__KIND__NOT_SET)
            leave(EXIT_BAD_FRAME, "a frame from draftd is not a command of this version");
        if (command->kind_case == DRAFTD__WORKER__COMMAND__KIND_STOP) {
            take_stop(line, command->stop);
            draftd__worker__command__free_unpacked(command, NULL);
            continue;
        }
        struct waiting *entry = malloc(sizeof *entry);
        if (!entry)
            leave(EXIT_BAD_FRAME, "no memory for a command");
        *entry = (struct waiting){.command = command};
        pthread_mutex_lock(&line->lock);
        if (++line->count > MAX_WAITING)
            leave(EXIT_BAD_FRAME, "too many commands are waiting");
        *line->last = entry;
        line->last = &entry->next;
        pthread_cond_broadcast(&line->arrived);
        pthread_mutex_unlock(&line->lock);
    }
    return NULL;
}

struct draftd_line *draftd_line_open(int fd, struct draft_error *err)
{
    struct draftd_line *line = calloc(1, sizeof *line);
    if (!line) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the line to draftd");
        return NULL;
    }
    line->fd = fd;
    line->last = &line->first;
    pthread_mutex_init(&line->lock, NULL);
    pthread_cond_init(&line->arrived, NULL);
    if (pthread_create(&line->reader, NULL, read_commands, line) != 0) {
        draft_fail(err, DRAFT_INTERNAL, "the thread that reads draftd's commands cannot be started");
        free(line);
        return NULL;
    }
    pthread_detach(line->reader);
    return line;
}

Draftd__Worker__Command *draftd_line_next(struct draftd_line *line, bool wait)
{
    pthread_mutex_lock(&line->lock);
    while (wait && !line->first && atomic_load(&line->stop) == DRAFTD_STOP_NO)
        pthread_cond_wait(&line->arrived, &line->lock);
    struct waiting *entry = line->first;
    if (entry) {
        line->first = entry->next;
        if (!line->first)
            line->last = &line->first;
        line->count--;
    }
    pthread_mutex_unlock(&line->lock);
    if (!entry)
        return NULL;
    Draftd__Worker__Command *command = entry->command;
    free(entry);
    return command;
}

enum draftd_stop draftd_line_stop(struct draftd_line *line)
{
    return (enum draftd_stop)atomic_load(&line->stop);
}

void draftd_line_send(struct draftd_line *line, const Draftd__Worker__Report *report)
{
    size_t size = draftd__worker__report__get_packed_size(report);
    uint8_t *data = malloc(size ? size : 1);
    if (!data)
        leave(EXIT_BAD_FRAME, "no memory for a report");
    draftd__worker__report__pack(report, data);
    struct draft_error err = {0};
    if (!draftd_frame_write(line->fd, data, size, &err))
        leave(EXIT_DAEMON_GONE, err.message);
    free(data);
}

void draftd_line_finish(struct draftd_line *line, const struct draft_error *err, bool stopped)
{
    Draftd__Worker__Finished finished = DRAFTD__WORKER__FINISHED__INIT;
    if (err) {
        finished.code = err->code;
        finished.message = (char *)(uintptr_t)err->message;
        finished.field = (char *)(uintptr_t)err->field;
    }
    finished.stopped = stopped;
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_FINISHED;
    report.finished = &finished;
    atomic_store(&line->finished, true);
    draftd_line_send(line, &report);
}
