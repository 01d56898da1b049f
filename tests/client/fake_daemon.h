/*
 * A daemon that says what a test tells it: one thread, one call at a time, gRPC's C core underneath. The test's handler
 * gets each call, sends messages and ends it with a status.
 */
#ifndef DRAFT_TESTS_CLIENT_FAKE_DAEMON_H
#define DRAFT_TESTS_CLIENT_FAKE_DAEMON_H

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <protobuf-c/protobuf-c.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake_daemon;

struct fake_call {
    struct fake_daemon *daemon;
    grpc_call *call;
    char method[96]; /* "JobService/GetJob" */
    uint8_t *request;
    size_t request_bytes;
    bool metadata_sent, finished;
};

typedef void (*fake_handler)(void *context, struct fake_call *call);

struct fake_daemon {
    grpc_server *server;
    grpc_completion_queue *cq;
    pthread_t thread;
    fake_handler handler;
    void *context;
    _Atomic bool stop;
};

static inline void fake_batch(struct fake_call *call, const grpc_op *ops, size_t count)
{
    if (grpc_call_start_batch(call->call, ops, count, call, NULL) != GRPC_CALL_OK)
        abort();
    for (;;) { /* the end of the server (tag: the daemon) may come in between */
        grpc_event event = grpc_completion_queue_next(call->daemon->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.tag == call)
            return;
    }
}

static inline void fake_send_bytes(struct fake_call *call, const void *bytes, size_t count)
{
    grpc_slice slice = grpc_slice_from_copied_buffer(bytes, count);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_MESSAGE}};
    ops[1].data.send_message.send_message = buffer;
    fake_batch(call, call->metadata_sent ? ops + 1 : ops, call->metadata_sent ? 1 : 2);
    call->metadata_sent = true;
    grpc_byte_buffer_destroy(buffer);
    grpc_slice_unref(slice);
}

static inline void fake_send(struct fake_call *call, const ProtobufCMessage *message)
{
    size_t count = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(count + 1);
    protobuf_c_message_pack(message, bytes);
    fake_send_bytes(call, bytes, count);
    free(bytes);
}

/* details: a packed google.rpc.Status, or NULL. */
static inline void fake_finish(struct fake_call *call, int code, const char *text, const ProtobufCMessage *details)
{
    grpc_op ops[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};
    grpc_slice words = grpc_slice_from_copied_string(text);
    grpc_metadata entry = {.key = grpc_slice_from_static_string("grpc-status-details-bin")};
    ops[1].data.send_status_from_server.status = (grpc_status_code)code;
    ops[1].data.send_status_from_server.status_details = &words;
    if (details) {
        size_t count = protobuf_c_message_get_packed_size(details);
        entry.value = grpc_slice_malloc(count);
        protobuf_c_message_pack(details, GRPC_SLICE_START_PTR(entry.value));
        ops[1].data.send_status_from_server.trailing_metadata_count = 1;
        ops[1].data.send_status_from_server.trailing_metadata = &entry;
    }
    fake_batch(call, call->metadata_sent ? ops + 1 : ops, call->metadata_sent ? 1 : 2);
    if (details)
        grpc_slice_unref(entry.value);
    grpc_slice_unref(words);
    call->finished = true;
}

static inline void fake_read_request(struct fake_call *call)
{
    grpc_byte_buffer *buffer = NULL;
    grpc_byte_buffer_reader reader;
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &buffer;
    fake_batch(call, &op, 1);
    if (!buffer)
        return;
    grpc_byte_buffer_reader_init(&reader, buffer);
    grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    call->request_bytes = GRPC_SLICE_LENGTH(all);
    call->request = malloc(call->request_bytes + 1);
    memcpy(call->request, GRPC_SLICE_START_PTR(all), call->request_bytes);
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(buffer);
}

static inline void fake_one_call(struct fake_daemon *fake, grpc_call *core, const grpc_call_details *details)
{
    struct fake_call call = {.daemon = fake, .call = core};
    char *path = grpc_slice_to_c_string(details->method);
    snprintf(call.method, sizeof call.method, "%s", strncmp(path, "/draftd.v1.", 11) ? path : path + 11);
    gpr_free(path);
    fake_read_request(&call);
    fake->handler(fake->context, &call);
    if (!call.finished)
        grpc_call_cancel(core, NULL);
    free(call.request);
    grpc_call_unref(core);
}

static inline void *fake_run(void *context)
{
    struct fake_daemon *fake = context;
    while (!fake->stop) {
        grpc_call *call = NULL;
        grpc_call_details details;
        grpc_metadata_array metadata;
        grpc_call_details_init(&details);
        grpc_metadata_array_init(&metadata);
        grpc_server_request_call(fake->server, &call, &details, &metadata, fake->cq, fake->cq, &call);
        grpc_event event = grpc_completion_queue_next(fake->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.tag == fake) /* the end of the server, before the request slot's own event */
            event = grpc_completion_queue_next(fake->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.success && call)
            fake_one_call(fake, call, &details);
        else
            fake->stop = true;
        grpc_call_details_destroy(&details);
        grpc_metadata_array_destroy(&metadata);
    }
    return NULL;
}

static inline void fake_start(struct fake_daemon *fake, const char *socket, fake_handler handler, void *context)
{
    char target[300];
    *fake = (struct fake_daemon){.handler = handler, .context = context};
    grpc_init();
    snprintf(target, sizeof target, "unix:%s", socket);
    fake->cq = grpc_completion_queue_create_for_next(NULL);
    fake->server = grpc_server_create(NULL, NULL);
    grpc_server_register_completion_queue(fake->server, fake->cq, NULL);
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    if (!grpc_server_add_http2_port(fake->server, target, credentials))
        abort();
    grpc_server_credentials_release(credentials);
    grpc_server_start(fake->server);
    pthread_create(&fake->thread, NULL, fake_run, fake);
}

static inline void fake_stop(struct fake_daemon *fake)
{
    fake->stop = true;
    grpc_server_shutdown_and_notify(fake->server, fake->cq, fake);
    grpc_server_cancel_all_calls(fake->server);
    pthread_join(fake->thread, NULL);
    grpc_completion_queue_shutdown(fake->cq);
    while (grpc_completion_queue_next(fake->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_server_destroy(fake->server);
    grpc_completion_queue_destroy(fake->cq);
    grpc_shutdown_blocking();
}

#endif
