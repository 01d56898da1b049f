/*
 * Shared by rpc.c (server, poller, request slots), call.c, call_work.c and call_send.c (one call's life,
 * work and words) and lanes.c (worker threads).
 */
#ifndef DRAFTD_RPC_RPC_INTERNAL_H
#define DRAFTD_RPC_RPC_INTERNAL_H

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>

#include "rpc/rpc.h"
#include "rpc/status.h"
#include "rpc/wire.h"

#if defined(__SANITIZE_THREAD__)
/* A tag goes through gRPC's queue from the thread that starts a batch to the poller; TSan does not see it. */
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define TAG_RELEASE(tag) __tsan_release(tag)
#define TAG_ACQUIRE(tag) __tsan_acquire(tag)
#else
#define TAG_RELEASE(tag) ((void)0)
#define TAG_ACQUIRE(tag) ((void)0)
#endif

/* What a completion belongs to. */
struct tag {
    void (*complete)(void *owner, bool ok);
    void *owner;
};

struct lane {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct draftd_call *head, **tail;
    int waiting, limit; /* calls; limit 0: none */
    bool stopping;
    int count;
    pthread_t *threads;
};

struct draftd_rpc {
    const struct draftd_service *services;
    size_t service_count;
    struct draftd_rpc_options options;
    grpc_completion_queue *queue;
    grpc_server *server;
    grpc_server_credentials *credentials;
    pthread_t poller;
    struct lane lanes[2]; /* by enum draftd_lane */

    struct tag shutdown;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    struct draftd_call *calls; /* live ones */
    int live;
    bool down;
    atomic_bool stopping;
};

enum work { WORK_IDLE, WORK_QUEUED, WORK_RUNNING, WORK_AGAIN };

/*
 * One call. References: its request slot, each batch in flight, a place on a lane. A stream's `opened` and `user` are
 * touched only by the lane thread that works on it, one at a time.
 */
struct draftd_call {
    struct draftd_rpc *rpc;
    const struct draftd_service *service;
    const struct draftd_method *method;
    struct tag requested, received, sent, closed;
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
    grpc_byte_buffer *incoming; /* written by gRPC until `received` completes */
    int cancelled_flag;         /* written by gRPC until `closed` completes */
    atomic_int references;
    struct draftd_call *next_live, **previous_live; /* guarded by rpc->mutex */
    bool counted;
    struct draftd_call *next_waiting; /* guarded by the lane's mutex */

    bool opened;
    void *user;
    atomic_bool gone; /* `over`, for a handler to look at while it waits */

    pthread_mutex_t mutex; /* guards the rest; held while a batch starts, never while a handler runs */
    enum work work;
    bool has_request; /* `incoming` waits for a lane */
    bool initial_sent, sending, finishing, status_sent;
    bool over;                  /* the peer is gone or has its status */
    grpc_byte_buffer *outgoing; /* in flight, or the last message waiting for the one in flight */
    grpc_byte_buffer *last;
    grpc_status_code code;
    grpc_slice message;
    grpc_metadata trailer; /* grpc-status-details-bin */
    bool has_trailer;
};

/* call.c */
bool draftd_call_post(struct draftd_rpc *rpc); /* a slot for one more incoming call */
void draftd_call_wake_streams(struct draftd_rpc *rpc);
bool draftd_call_work_done(struct draftd_call *call); /* true: work once more */
void draftd_call_work_begin(struct draftd_call *call);
void draftd_call_ref(struct draftd_call *call);
void draftd_call_unref(struct draftd_call *call);

/* call_work.c */
void draftd_call_work(struct draftd_call *call);

/* call_send.c */
void draftd_call_batch(struct draftd_call *call, const grpc_op *ops, size_t count, struct tag *tag);
/* Mutex held, nothing in flight. Takes the message (may be NULL) over; `end`: the status goes with it. */
void draftd_call_start_send(struct draftd_call *call, grpc_byte_buffer *message, bool end);
/* Nothing in flight. Takes the message over. */
void draftd_call_send(struct draftd_call *call, grpc_byte_buffer *message);
/* Ends the call, once; later ends change nothing. `last` (may be NULL) is taken over; status NULL is OK. */
void draftd_call_finish(struct draftd_call *call, grpc_byte_buffer *last, const struct draftd_status *status);

/* lanes.c */
bool draftd_lane_start(struct lane *lane, const char *name, int threads, int limit);
void draftd_lane_stop(struct lane *lane);                                         /* after the last call is gone */
bool draftd_lane_push(struct lane *lane, struct draftd_call *call, bool limited); /* false: limit reached */

#endif
