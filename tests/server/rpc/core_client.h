/*
 * A blocking gRPC client on one end of a socketpair, for the transport's tests. A call sends one request, then reads
 * replies one by one when asked to, so that a test decides when to stop reading.
 */
#ifndef CORE_CLIENT_H
#define CORE_CLIENT_H

#include <assert.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct client_call {
    grpc_completion_queue *queue;
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_status_code code;
    grpc_slice words;
    char message[2048];
    size_t details; /* bytes of grpc-status-details-bin */
};

static inline grpc_channel *client_connect(int fd)
{
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create_from_fd("test", fd, credentials, NULL);
    grpc_channel_credentials_release(credentials);
    return channel;
}

static inline bool client_wait(struct client_call *c, void *tag)
{
    grpc_event event = grpc_completion_queue_pluck(c->queue, tag, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    assert(event.type == GRPC_OP_COMPLETE);
    return event.success != 0;
}

enum { CLIENT_SEND = 1, CLIENT_STATUS, CLIENT_INITIAL, CLIENT_READ };
#define CLIENT_TAG(n) ((void *)(intptr_t)(n))

/* deadline_ms 0: none. */
static inline struct client_call *client_start(grpc_channel *channel, const char *path, const void *request,
                                               size_t size, int deadline_ms)
{
    struct client_call *c = calloc(1, sizeof *c);
    gpr_timespec deadline =
        deadline_ms > 0 ? gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(deadline_ms, GPR_TIMESPAN))
                        : gpr_inf_future(GPR_CLOCK_MONOTONIC);
    c->queue = grpc_completion_queue_create_for_pluck(NULL);
    c->call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->queue,
                                       grpc_slice_from_copied_string(path), NULL, deadline, NULL);
    grpc_metadata_array_init(&c->initial);
    grpc_metadata_array_init(&c->trailing);
    c->words = grpc_empty_slice();

    grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    status.data.recv_status_on_client.status = &c->code;
    status.data.recv_status_on_client.status_details = &c->words;
    status.data.recv_status_on_client.trailing_metadata = &c->trailing;
    grpc_call_start_batch(c->call, &status, 1, CLIENT_TAG(CLIENT_STATUS), NULL);
    grpc_op initial = {.op = GRPC_OP_RECV_INITIAL_METADATA};
    initial.data.recv_initial_metadata.recv_initial_metadata = &c->initial;
    grpc_call_start_batch(c->call, &initial, 1, CLIENT_TAG(CLIENT_INITIAL), NULL);

    grpc_slice slice = grpc_slice_from_copied_buffer(request, size);
    grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    grpc_op send[3] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_MESSAGE}, {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}};
    send[1].data.send_message.send_message = message;
    grpc_call_start_batch(c->call, send, 3, CLIENT_TAG(CLIENT_SEND), NULL);
    client_wait(c, CLIENT_TAG(CLIENT_SEND));
    grpc_byte_buffer_destroy(message);
    return c;
}

/* The next reply's bytes (free them), or NULL at the end. */
static inline uint8_t *client_read(struct client_call *c, size_t *size)
{
    grpc_byte_buffer *message = NULL;
    *size = 0;
    grpc_op read = {.op = GRPC_OP_RECV_MESSAGE};
    read.data.recv_message.recv_message = &message;
    grpc_call_start_batch(c->call, &read, 1, CLIENT_TAG(CLIENT_READ), NULL);
    if (!client_wait(c, CLIENT_TAG(CLIENT_READ)) || message == NULL)
        return NULL;
    grpc_byte_buffer_reader reader;
    grpc_byte_buffer_reader_init(&reader, message);
    grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    *size = GRPC_SLICE_LENGTH(all);
    uint8_t *bytes = malloc(*size + 1);
    memcpy(bytes, GRPC_SLICE_START_PTR(all), *size);
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(message);
    return bytes;
}

/* Reads what is left and waits for the status, which comes after it; fills code, message and details. */
static inline grpc_status_code client_status(struct client_call *c)
{
    size_t size;
    for (uint8_t *bytes; (bytes = client_read(c, &size)) != NULL;)
        free(bytes);
    client_wait(c, CLIENT_TAG(CLIENT_STATUS));
    client_wait(c, CLIENT_TAG(CLIENT_INITIAL));
    size_t length = GRPC_SLICE_LENGTH(c->words);
    length = length < sizeof c->message ? length : sizeof c->message - 1;
    memcpy(c->message, GRPC_SLICE_START_PTR(c->words), length);
    c->message[length] = '\0';
    for (size_t i = 0; i < c->trailing.count; i++)
        if (grpc_slice_str_cmp(c->trailing.metadata[i].key, "grpc-status-details-bin") == 0)
            c->details = GRPC_SLICE_LENGTH(c->trailing.metadata[i].value);
    return c->code;
}

static inline void client_free(struct client_call *c)
{
    grpc_slice_unref(c->words);
    grpc_metadata_array_destroy(&c->initial);
    grpc_metadata_array_destroy(&c->trailing);
    grpc_call_unref(c->call);
    grpc_completion_queue_shutdown(c->queue);
    grpc_completion_queue_destroy(c->queue);
    free(c);
}

#endif
