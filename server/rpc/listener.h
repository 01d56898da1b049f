/*
 * The unix socket: our own accept loop, because gRPC's takes over a live socket of another process, tells nobody who is
 * connected, and never accepts again after one "too many open files". A connection is handed on only when the kernel
 * says that the peer is the daemon's own user or root.
 *
 * Thread: open and close from one thread; `adopt` runs on the listener's own thread.
 */
#ifndef DRAFTD_RPC_LISTENER_H
#define DRAFTD_RPC_LISTENER_H

#include "base/error.h"

struct draftd_listener;

/* Takes the connected, non-blocking socket over. */
typedef void (*draftd_adopt)(void *context, int fd);

/* Binds `path` with mode 0600 (its folder is made with 0700 when missing) and starts to accept. A socket left by a dead
 * daemon is replaced; one that answers, or a file of another kind, is an error. max_connections: more are closed at
 * once. */
struct draftd_listener *draftd_listener_open(const char *path, int max_connections, draftd_adopt adopt, void *context,
                                             struct draft_error *err);
/* No adopt after it returns. Removes the socket file if it is still ours. Connections live on. NULL is fine. */
void draftd_listener_close(struct draftd_listener *listener);

/* The longest path a unix socket can have, in bytes. */
int draftd_listener_longest_path(void);

#endif
