/*
 * A draftd of our own, for the demo: started from beside this program, with a state folder of its own, and stopped in
 * every way this program can end (the kernel sends it SIGTERM when we are killed).
 */
#ifndef DRAFT_CLIENT_PRIVATE_DAEMON_H
#define DRAFT_CLIENT_PRIVATE_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "rpc/rpc.h"

struct draft_private_daemon {
    pid_t pid; /* 0: none */
    char socket[256];
    char socket_folder[128]; /* made by us, removed at the end; "": the socket lies in the state folder */
    char log[4096];
};

/* Starts it and waits until it answers. `rpc` gets a connected handle. demo_dir may be NULL. */
bool draft_private_daemon_start(struct draft_private_daemon *daemon, const char *state_dir, const char *demo_dir,
                                const char *log, struct draft_rpc **rpc, struct draft_status *st);
/* SIGTERM, waits while it saves, then SIGKILL. Safe to call twice. */
void draft_private_daemon_stop(struct draft_private_daemon *daemon);

/* A program beside ours ("draftd"), or "" when it is not there. */
void draft_program_beside(const char *name, char *path, size_t size);

#endif
