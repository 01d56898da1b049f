/* What a lane's thread does of a call: the request to its handler, the reply or a stream's next message back. */
#include "rpc/rpc_internal.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>

#include "log.h"
#include "message.h"

static void fail(struct draftd_call *call, const struct draft_error *err)
{
    struct draftd_status status;
    draftd_status_from_error(&status, err);
    if (call->method->refine != NULL)
        call->method->refine(err, &status);
    if (status.code == GRPC_STATUS_INTERNAL)
        draftd_log(DRAFTD_ERROR, NULL, "%s failed: %s", call->method->path, err->message);
    draftd_call_finish(call, NULL, &status);
}

/* Frees the reply. NULL with err set when it cannot be sent. */
static grpc_byte_buffer *encode(const struct draftd_method *method, ProtobufCMessage *reply, struct draft_error *err)
{
    grpc_byte_buffer *buffer = NULL;
    size_t size = 0;
    assert(reply->descriptor == method->reply);
    if (!protobuf_c_message_check(reply))
        draft_fail(err, DRAFT_INTERNAL, "the reply holds a NULL where a string or message belongs");
    else if ((size = protobuf_c_message_get_packed_size(reply)) > DRAFTD_MAX_REPLY)
        draft_fail(
            err, DRAFT_RESOURCE_EXHAUSTED,
            "the reply would be %.1f MiB and clients take %d MiB: ask for less (a smaller page_size, fewer series)",
            (double)size / (1 << 20), DRAFTD_MAX_REPLY >> 20);
    else {
        draftd_scrub_message(reply);
        grpc_slice slice = grpc_slice_malloc(size);
        protobuf_c_message_pack(reply, GRPC_SLICE_START_PTR(slice));
        buffer = grpc_raw_byte_buffer_create(&slice, 1);
        grpc_slice_unref(slice);
    }
    draftd_message_free(reply);
    return buffer;
}

static void answer(struct draftd_call *call, const ProtobufCMessage *request)
{
    ProtobufCMessage *reply = NULL;
    struct draft_error err = {0};
    grpc_byte_buffer *buffer = NULL;
    if (call->method->call(call, request, &reply, &err))
        buffer = encode(call->method, reply, &err);
    if (buffer == NULL)
        fail(call, &err);
    else if (call->method->kind == DRAFTD_EXCHANGE)
        draftd_call_send(call, buffer);
    else
        draftd_call_finish(call, buffer, NULL);
}

static void close_stream(struct draftd_call *call)
{
    call->opened = false;
    call->method->close(call);
}

/* Sends a stream's next message if the one before has gone out. */
static void pump(struct draftd_call *call)
{
    pthread_mutex_lock(&call->mutex);
    bool over = call->over, busy = call->sending;
    pthread_mutex_unlock(&call->mutex);
    if (over) {
        close_stream(call);
        return;
    }
    if (atomic_load(&call->rpc->stopping)) {
        struct draftd_status status;
        draftd_status_set(&status, GRPC_STATUS_UNAVAILABLE, "STOPPING",
                          "draftd is stopping; watch again when it is back");
        draftd_call_finish(call, NULL, &status);
        close_stream(call);
        return;
    }
    if (busy)
        return;
    ProtobufCMessage *message = NULL;
    grpc_byte_buffer *buffer = NULL;
    bool end = false;
    struct draft_error err = {0};
    bool ok = call->method->next(call, &message, &end, &err) && err.code == DRAFT_OK;
    if (message != NULL)
        ok = (buffer = encode(call->method, message, &err)) != NULL && ok;
    if (!ok || end) {
        if (ok)
            draftd_call_finish(call, buffer, NULL);
        else {
            grpc_byte_buffer_destroy(buffer);
            fail(call, &err);
        }
        close_stream(call);
    } else if (buffer != NULL) {
        draftd_call_send(call, buffer);
    }
}

static void handle_request(struct draftd_call *call, grpc_byte_buffer *incoming)
{
    struct draftd_budget budget;
    struct draftd_status status;
    ProtobufCMessage *request = NULL;
    grpc_byte_buffer_reader reader;
    if (grpc_byte_buffer_reader_init(&reader, incoming)) {
        grpc_slice bytes = grpc_byte_buffer_reader_readall(&reader);
        request = draftd_unpack(call->method->request, GRPC_SLICE_START_PTR(bytes), GRPC_SLICE_LENGTH(bytes), &budget,
                                &status);
        grpc_slice_unref(bytes);
        grpc_byte_buffer_reader_destroy(&reader);
    } else {
        draftd_status_set(&status, GRPC_STATUS_INVALID_ARGUMENT, "MALFORMED_REQUEST", "the request cannot be read");
    }
    if (request == NULL) {
        draftd_call_finish(call, NULL, &status);
        return;
    }
    if (call->method->kind == DRAFTD_STREAM) {
        struct draft_error err = {0};
        call->opened = call->method->open(call, request, &err);
        if (!call->opened)
            fail(call, &err);
    } else {
        answer(call, request);
    }
    draftd_unpacked_free(request, &budget);
}

void draftd_call_work(struct draftd_call *call)
{
    pthread_mutex_lock(&call->mutex);
    bool over = call->over;
    grpc_byte_buffer *incoming = call->has_request ? call->incoming : NULL;
    if (call->has_request)
        call->incoming = NULL;
    call->has_request = false;
    pthread_mutex_unlock(&call->mutex);
    if (incoming != NULL && !over) /* a client that has already gone wants nothing done */
        handle_request(call, incoming);
    grpc_byte_buffer_destroy(incoming);
    if (call->opened)
        pump(call);
}
