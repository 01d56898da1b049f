/*
 * Calling draftd: a thin layer over gRPC's C core, on protobuf-c messages. Every method of methods.def becomes a typed
 * function here:
 *
 *   Draftd__V1__GetJobResponse *draft_rpc_get_job(rpc, &request, &status);      unary; NULL: status says why
 *   struct draft_stream *draft_rpc_watch_jobs(rpc, &request);                   server stream
 *
 * Replies are on the heap; free them with draft_free_message(). Calls wait in slices of 0.2 s and end with
 * DRAFT_STATUS_CANCELLED after a Ctrl-C (interrupt.h). Thread: one handle is used by one thread.
 */
#ifndef DRAFT_CLIENT_RPC_H
#define DRAFT_CLIENT_RPC_H

#include <stdbool.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

#include "draftd/v1/checkpoints.pb-c.h"
#include "draftd/v1/jobs.pb-c.h"
#include "draftd/v1/metrics.pb-c.h"
#include "draftd/v1/previews.pb-c.h"
#include "draftd/v1/system.pb-c.h"
#include "status.h"

struct draft_rpc;
struct draft_stream;

/* Nothing is connected before the first call, which gives a daemon that is just starting a second. `socket` is a path
 * (copied). Never fails but for memory (aborts). */
struct draft_rpc *draft_rpc_open(const char *socket);
void draft_rpc_close(struct draft_rpc *rpc); /* NULL is fine */
const char *draft_rpc_socket(const struct draft_rpc *rpc);
/* How long a call may keep trying to reach a daemon that is not there, in ms; default 0: fail at once. */
void draft_rpc_set_patience(struct draft_rpc *rpc, int ms);

/* "$DRAFTD_SOCKET", or where a user's draftd listens by default. */
void draft_rpc_default_socket(char *path, size_t size);

enum draft_stream_event { DRAFT_STREAM_MESSAGE, DRAFT_STREAM_WAITING, DRAFT_STREAM_END };

/* Waits up to timeout_ms for the next message, which then belongs to the caller. WAITING: none yet. END: status says
 * how the stream ended (OK, an error, CANCELLED after Ctrl-C). */
enum draft_stream_event draft_stream_next(struct draft_stream *stream, int timeout_ms, ProtobufCMessage **message,
                                          struct draft_status *status);
/* Cancels when it has not ended yet, and frees. NULL is fine. */
void draft_stream_close(struct draft_stream *stream);

/* Frees any message got from here; NULL is fine. Works on a pointer to any message type. */
void draft_free_message(void *message);

#define UNARY(name, path, Request, Reply, descriptor, deadline_ms, retry)                                              \
    Reply *draft_rpc_##name(struct draft_rpc *rpc, const Request *request, struct draft_status *status);
#define STREAM(name, path, Request, Reply, descriptor, deadline_ms)                                                    \
    struct draft_stream *draft_rpc_##name(struct draft_rpc *rpc, const Request *request);
#include "rpc/methods.def"

#endif
