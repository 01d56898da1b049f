#include "fake_line.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

enum { LINE = 3 };

void write_all(const void *data, size_t size)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = write(LINE, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(0); /* the daemon is gone */
        p += n;
        size -= (size_t)n;
    }
}

void send_report(const Draftd__Worker__Report *report)
{
    size_t size = draftd__worker__report__get_packed_size(report);
    uint8_t *frame = malloc(size + 4);
    for (int i = 0; i < 4; i++)
        frame[i] = (uint8_t)(size >> (8 * i));
    draftd__worker__report__pack(report, frame + 4);
    write_all(frame, size + 4);
    free(frame);
}

Draftd__Worker__Command *next_command(bool wait)
{
    struct pollfd line = {.fd = LINE, .events = POLLIN};
    if (poll(&line, 1, wait ? -1 : 0) <= 0)
        return NULL;
    uint8_t head[4];
    for (size_t got = 0; got < 4;) {
        ssize_t n = read(LINE, head + got, 4 - got);
        if (n <= 0)
            _exit(0);
        got += (size_t)n;
    }
    size_t size = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    uint8_t *bytes = malloc(size + 1);
    for (size_t got = 0; got < size;) {
        ssize_t n = read(LINE, bytes + got, size - got);
        if (n <= 0)
            _exit(0);
        got += (size_t)n;
    }
    Draftd__Worker__Command *command = draftd__worker__command__unpack(NULL, size, bytes);
    free(bytes);
    if (command == NULL)
        _exit(9);
    return command;
}

_Noreturn void finish(enum draft_code code, const char *message, bool stopped)
{
    Draftd__Worker__Finished finished = DRAFTD__WORKER__FINISHED__INIT;
    finished.code = code;
    finished.message = (char *)message;
    finished.stopped = stopped;
    SEND(finished, FINISHED, &finished);
    exit(0);
}

_Noreturn void finish_field(enum draft_code code, const char *message, const char *field)
{
    Draftd__Worker__Finished finished = DRAFTD__WORKER__FINISHED__INIT;
    finished.code = code;
    finished.message = (char *)message;
    finished.field = (char *)field;
    SEND(finished, FINISHED, &finished);
    exit(0);
}
