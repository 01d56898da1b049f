/*
 * draft-engine: one task for draftd, in a process of its own, so that whatever happens to it (a crash, the kernel's
 * memory killer, a broken driver) ends one job and never the daemon. It speaks frames of proto/worker.proto on
 * descriptor 3 and ends when the daemon's end of it closes. (draft-engine profile: profile_task.c.)
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "worker/work.h"

enum { LINE_FD = 3, EXIT_NOT_BY_HAND = 2 };

static bool started_by_draftd(void)
{
    int type;
    socklen_t size = sizeof type;
    return getsockopt(LINE_FD, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

static bool run(struct draftd_work *work, const Draftd__Worker__Command *command, bool *stopped,
                struct draft_error *err)
{
    switch (command->kind_case) {
    case DRAFTD__WORKER__COMMAND__KIND_INSPECT:
        return draftd_work_inspect(work, command->inspect, err);
    case DRAFTD__WORKER__COMMAND__KIND_TRAIN:
        return draftd_work_train(work, command->train, stopped, err);
    case DRAFTD__WORKER__COMMAND__KIND_SAMPLE:
        return draftd_work_sample(work, command->sample, stopped, err);
    case DRAFTD__WORKER__COMMAND__KIND_EXPORT:
        return draftd_work_export(command->export, err);
    case DRAFTD__WORKER__COMMAND__KIND_PROBE:
        return draftd_work_probe(work, command->probe, err);
    default:
        return draft_fail(err, DRAFT_INTERNAL, "the first command is not a task");
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "profile") == 0)
        return draftd_profile();
    if (!started_by_draftd()) {
        fprintf(stderr, "draft-engine is started by draftd; run draftd, then `draft submit` gives it work\n");
        return EXIT_NOT_BY_HAND;
    }
    signal(SIGPIPE, SIG_IGN);
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0); /* numbers as nvidia-smi shows them */
    struct draft_error err = {0};
    struct draftd_work work = {.line = draftd_line_open(LINE_FD, &err)};
    if (!work.line) {
        fprintf(stderr, "draft-engine: %s\n", err.message);
        return 1;
    }
    bool stopped = false, ok = true;
    Draftd__Worker__Command *command = draftd_line_next(work.line, true);
    if (command) {
        ok = run(&work, command, &stopped, &err);
        draftd__worker__command__free_unpacked(command, NULL);
    } else {
        stopped = true;
    }
    draftd_line_finish(work.line, ok ? NULL : &err, stopped);
    return 0;
}
