/*
 * Processes. Starting draft-engine: fd 3 is its end of a socketpair, stdin is /dev/null, stdout and stderr go into a
 * pipe; every other descriptor is closed, signals are as in a fresh process. It is its own process group (Ctrl-C in the
 * daemon's terminal is the daemon's business) and the first to go when memory runs out.
 */
#ifndef DRAFTD_PROCESS_H
#define DRAFTD_PROCESS_H

#include "base/error.h"
#include "store/store.h"

struct draftd_spawned {
    int pid, pidfd;
    int socket;   /* ours, non-blocking */
    int log_pipe; /* what it writes to stderr, non-blocking */
    int log_file; /* append; -1 when log_path is NULL or cannot be opened */
};

/* `about` is shown by ps after the program's name. */
bool draftd_spawn(const char *program, const char *about, const char *log_path, struct draftd_spawned *spawned,
                  struct draft_error *err);

/* Which process a pid is, beyond the pid, which the system uses again. */
void draftd_process_identify(int pid, struct draftd_store_process *process);
/* Ends a process that an earlier daemon left, if it is still that one, and waits until it is gone. */
void draftd_process_end(const struct draftd_store_process *process, const char *about);

#endif
