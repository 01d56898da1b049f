/*
 * The transport: gRPC C core and protobuf-c, generic over the services it carries. A service is a table of methods; a
 * method is a function from a request message to a reply message, or a stream that is pulled message by message. No
 * handler sees gRPC.
 *
 * Threads: one poller takes completions and never runs a handler. Handlers run on two lanes of worker threads: the
 * quick lane (reads, short transactions, every message of a stream) and the slow lane (methods that wait for a worker
 * process), so a waiting PauseJob never delays a GetJob. One call's handler functions never run at the same time.
 *
 * Flow control: a stream has one send in flight; `next` is asked for more only when that one is accepted by the peer's
 * window. A client that stops reading costs one message.
 */
#ifndef DRAFTD_RPC_RPC_H
#define DRAFTD_RPC_RPC_H

#include <protobuf-c/protobuf-c.h>
#include <stdatomic.h>

#include "base/error.h"

struct draftd_rpc;
struct draftd_call;
struct draftd_status;

enum draftd_kind {
    DRAFTD_UNARY,    /* `call` once */
    DRAFTD_STREAM,   /* `open` once, `next` while it gives messages, `close` once */
    DRAFTD_EXCHANGE, /* client and server stream: `call` for each request, in order, one reply each */
};

enum draftd_lane { DRAFTD_QUICK, DRAFTD_SLOW };

/* What a caller may do. Everybody on the unix socket is the owner or root and has all; listeners for others grant less.
 */
enum draftd_role {
    DRAFTD_ROLE_NONE = 0, /* health, reflection: whoever got a connection */
    DRAFTD_ROLE_VIEWER = 1,
    DRAFTD_ROLE_USER = 2,
    DRAFTD_ROLE_ALL = DRAFTD_ROLE_VIEWER | DRAFTD_ROLE_USER,
};

struct draftd_method {
    const char *path; /* "/package.Service/Method" */
    enum draftd_kind kind;
    enum draftd_lane lane; /* of `call` and `open` */
    enum draftd_role role;
    int default_ms; /* draftd_call_remaining_ms() for a client without a deadline */
    const ProtobufCMessageDescriptor *request, *reply;

    /* The request belongs to the transport and dies when the function returns. The reply is a heap message that the
     * transport frees. False with err set: the call ends with that error. */
    bool (*call)(struct draftd_call *call, const ProtobufCMessage *request, ProtobufCMessage **reply,
                 struct draft_error *err);

    /* After a failed `open`, neither `next` nor `close` is called. */
    bool (*open)(struct draftd_call *call, const ProtobufCMessage *request, struct draft_error *err);
    /* *message stays NULL when there is nothing now: draftd_call_wake() when there is. *end: the last message, or none
     * left; the stream closes with OK. */
    bool (*next)(struct draftd_call *call, ProtobufCMessage **message, bool *end, struct draft_error *err);
    void (*close)(struct draftd_call *call);

    /* A gRPC code that the error's own code cannot express; NULL for most. */
    void (*refine)(const struct draft_error *err, struct draftd_status *status);
};

struct draftd_service {
    const char *name; /* "package.Service" */
    const struct draftd_method *methods;
    size_t count;
    void *context; /* draftd_call_context() of its calls */
};

struct draftd_rpc_options {
    unsigned roles;   /* granted to every caller of this server */
    int quick, slow;  /* threads a lane; 0: 2 and 8 */
    int max_calls;    /* open at a time, streams included; 0: 2048 */
    int max_waiting;  /* calls that wait for a slow thread; 0: 64 */
    int keepalive_ms; /* silence after which a peer is asked for life; a third of it later it is dropped; 0: 60 s */
};

/* Once in a process, around everything else here. gRPC's threads take the signal mask that setup is called with; its
 * own words go to the log at debug level. */
void draftd_rpc_setup(void);
void draftd_rpc_teardown(void);

/* Starts the poller and the lanes. `services` and all it points to outlive the server. */
struct draftd_rpc *draftd_rpc_create(const struct draftd_service *services, size_t count,
                                     const struct draftd_rpc_options *options, struct draft_error *err);
/* Serves one connected socket; the descriptor is the transport's from here on. Any thread. */
void draftd_rpc_adopt(struct draftd_rpc *rpc, int fd);
/* No new calls; open streams end with UNAVAILABLE; running calls have grace_ms, then they are cancelled. Returns when
 * every handler is done and every call is gone. Call once, before destroy. */
void draftd_rpc_stop(struct draftd_rpc *rpc, int grace_ms);
void draftd_rpc_destroy(struct draftd_rpc *rpc);
int draftd_rpc_live_calls(struct draftd_rpc *rpc);

/* For handlers. */
void *draftd_call_context(const struct draftd_call *call);
void *draftd_call_user(const struct draftd_call *call);
void draftd_call_set_user(struct draftd_call *call, void *user);
/* What is left of the client's deadline, at least 1, at most 10 minutes. */
int draftd_call_remaining_ms(const struct draftd_call *call);
/* Becomes true when the client has left: it cancelled, its deadline passed, its connection broke. */
const atomic_bool *draftd_call_gone(const struct draftd_call *call);
/* Asks a stream's `next` again. From `open` until `close` returns, from any thread; quick, takes no lock of others. */
void draftd_call_wake(struct draftd_call *call);

#endif
