/* A service made for the transport's test: the request's index says what to do, `world` what was done. */
#ifndef TEST_SERVICE_H
#define TEST_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "draftd/v1/previews.pb-c.h"
#include "message.h"
#include "rpc/rpc.h"
#include "rpc/status.h"

#define REQUEST  (&draftd__v1__read_picture_request__descriptor)
#define RESPONSE (&draftd__v1__read_picture_response__descriptor)

static struct {
    pthread_mutex_t mutex;
    struct draftd_call *waiting; /* an open Later stream */
    atomic_int opened, closed, asked, gate, inside, left, remaining;
    atomic_bool ready;
} world = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static ProtobufCMessage *reply_of(uint64_t total, size_t size)
{
    Draftd__V1__ReadPictureResponse *out = draftd_message_new(RESPONSE);
    out->total_bytes = total;
    if (size > 0) {
        out->data.data = draftd_new(size);
        out->data.len = size;
    }
    return &out->base;
}

static bool echo(struct draftd_call *call, const ProtobufCMessage *request, ProtobufCMessage **reply,
                 struct draft_error *err)
{
    const Draftd__V1__ReadPictureRequest *in = (const void *)request;
    atomic_store(&world.remaining, draftd_call_remaining_ms(call));
    if (in->index < 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "index", "index is negative: \xe2\x9c\x93");
    *reply = reply_of((uint64_t)in->index, (size_t)in->index);
    return true;
}

static bool wait_for_gate(struct draftd_call *call, const ProtobufCMessage *request, ProtobufCMessage **reply,
                          struct draft_error *err)
{
    (void)request;
    (void)err;
    atomic_fetch_add(&world.inside, 1);
    while (atomic_load(&world.gate) == 0 && !atomic_load(draftd_call_gone(call)))
        usleep(1000);
    atomic_fetch_add(&world.left, atomic_load(draftd_call_gone(call)));
    *reply = reply_of(1, 0);
    return true;
}

static bool open_stream(struct draftd_call *call, const ProtobufCMessage *request, struct draft_error *err)
{
    const Draftd__V1__ReadPictureRequest *in = (const void *)request;
    if (in->index < 0)
        return draft_fail(err, DRAFT_NOT_FOUND, "nothing to stream");
    int *left = draftd_new(sizeof *left);
    *left = in->index;
    draftd_call_set_user(call, left);
    atomic_fetch_add(&world.opened, 1);
    return true;
}

/* Counts down in messages of 64 KiB. */
static bool next_in_stream(struct draftd_call *call, ProtobufCMessage **message, bool *end, struct draft_error *err)
{
    (void)err;
    int *left = draftd_call_user(call);
    atomic_fetch_add(&world.asked, 1);
    *message = reply_of((uint64_t)*left, 65536);
    *end = --*left <= 0;
    return true;
}

static void close_stream(struct draftd_call *call)
{
    pthread_mutex_lock(&world.mutex);
    if (world.waiting == call)
        world.waiting = NULL;
    pthread_mutex_unlock(&world.mutex);
    free(draftd_call_user(call));
    atomic_fetch_add(&world.closed, 1);
}

static bool open_later(struct draftd_call *call, const ProtobufCMessage *request, struct draft_error *err)
{
    pthread_mutex_lock(&world.mutex);
    world.waiting = call;
    pthread_mutex_unlock(&world.mutex);
    return open_stream(call, request, err);
}

/* Has a message when `ready` is set; with index 7 it then fails. */
static bool next_later(struct draftd_call *call, ProtobufCMessage **message, bool *end, struct draft_error *err)
{
    if (!atomic_exchange(&world.ready, false))
        return true;
    *message = reply_of(42, 0);
    if (*(int *)draftd_call_user(call) == 7) {
        *end = true;
        draftd_message_free(*message);
        *message = NULL;
        draft_fail(err, DRAFT_FAILED_PRECONDITION, "the preview failed");
    }
    return true;
}

static bool sum(struct draftd_call *call, const ProtobufCMessage *request, ProtobufCMessage **reply,
                struct draft_error *err)
{
    return echo(call, request, reply, err);
}

static void refine(const struct draft_error *err, struct draftd_status *status)
{
    if (err->code == DRAFT_NOT_FOUND)
        status->code = GRPC_STATUS_OUT_OF_RANGE;
}

static const struct draftd_method methods[] = {
    {"/test.Test/Echo", DRAFTD_UNARY, DRAFTD_QUICK, DRAFTD_ROLE_VIEWER, 777, REQUEST, RESPONSE, echo, 0, 0, 0, 0},
    {"/test.Test/Write", DRAFTD_UNARY, DRAFTD_QUICK, DRAFTD_ROLE_USER, 0, REQUEST, RESPONSE, echo, 0, 0, 0, 0},
    {"/test.Test/Wait", DRAFTD_UNARY, DRAFTD_SLOW, DRAFTD_ROLE_VIEWER, 0, REQUEST, RESPONSE, wait_for_gate, 0, 0, 0, 0},
    {"/test.Test/Stream", DRAFTD_STREAM, DRAFTD_QUICK, DRAFTD_ROLE_VIEWER, 0, REQUEST, RESPONSE, NULL, open_stream,
     next_in_stream, close_stream, refine},
    {"/test.Test/Later", DRAFTD_STREAM, DRAFTD_SLOW, DRAFTD_ROLE_VIEWER, 0, REQUEST, RESPONSE, NULL, open_later,
     next_later, close_stream, NULL},
    {"/test.Test/Idle", DRAFTD_STREAM, DRAFTD_QUICK, DRAFTD_ROLE_VIEWER, 0, REQUEST, RESPONSE, NULL, open_stream,
     next_later, close_stream, NULL},
    {"/test.Test/Sum", DRAFTD_EXCHANGE, DRAFTD_QUICK, DRAFTD_ROLE_NONE, 0, REQUEST, RESPONSE, sum, 0, 0, 0, 0},
};
static const struct draftd_service services[] = {{"test.Test", methods, sizeof methods / sizeof *methods, NULL}};

#endif
