/* What a call sends: one batch at a time, its status last and once. */
#include "rpc/rpc_internal.h"

#include <assert.h>
#include <grpc/slice.h>

void draftd_call_batch(struct draftd_call *call, const grpc_op *ops, size_t count, struct tag *tag)
{
    draftd_call_ref(call);
    TAG_RELEASE(tag);
    grpc_call_error failed = grpc_call_start_batch(call->call, ops, count, tag, NULL);
    assert(failed == GRPC_CALL_OK); /* only a batch that breaks the API's rules fails here */
    (void)failed;
}

void draftd_call_start_send(struct draftd_call *call, grpc_byte_buffer *message, bool end)
{
    grpc_op ops[3] = {0};
    size_t count = 0;
    if (!call->initial_sent)
        ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    call->initial_sent = true;
    call->outgoing = message;
    if (message != NULL) {
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count++].data.send_message.send_message = message;
    }
    if (end) {
        ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
        ops[count].data.send_status_from_server.status = call->code;
        ops[count].data.send_status_from_server.status_details = &call->message;
        ops[count].data.send_status_from_server.trailing_metadata_count = call->has_trailer ? 1 : 0;
        ops[count++].data.send_status_from_server.trailing_metadata = &call->trailer;
        call->status_sent = true;
    }
    call->sending = true;
    draftd_call_batch(call, ops, count, &call->sent);
}

void draftd_call_send(struct draftd_call *call, grpc_byte_buffer *message)
{
    pthread_mutex_lock(&call->mutex);
    assert(!call->sending);
    if (call->over || call->finishing)
        grpc_byte_buffer_destroy(message);
    else
        draftd_call_start_send(call, message, false);
    pthread_mutex_unlock(&call->mutex);
}

void draftd_call_finish(struct draftd_call *call, grpc_byte_buffer *last, const struct draftd_status *status)
{
    pthread_mutex_lock(&call->mutex);
    if (call->over || call->finishing) {
        pthread_mutex_unlock(&call->mutex);
        grpc_byte_buffer_destroy(last);
        return;
    }
    call->finishing = true;
    call->code = GRPC_STATUS_OK;
    if (status != NULL) {
        uint8_t details[DRAFTD_STATUS_DETAILS];
        size_t size = draftd_status_details(status, details);
        call->code = status->code;
        call->message = grpc_slice_from_copied_string(status->message);
        call->trailer.key = grpc_slice_from_static_string("grpc-status-details-bin");
        call->trailer.value = grpc_slice_from_copied_buffer((const char *)details, size);
        call->has_trailer = true;
    }
    if (call->sending)
        call->last = last;
    else
        draftd_call_start_send(call, last, true);
    pthread_mutex_unlock(&call->mutex);
}
