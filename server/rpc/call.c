/* One call, from its request slot to its last reference: who holds it, whose turn it is, what gRPC says of it. */
#include "rpc/rpc_internal.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdlib.h>

#include "message.h"

enum { DEFAULT_MS = 30 * 1000, LONGEST_MS = 10 * 60 * 1000 };

/* --- References and the list of live calls -------------------------------------------------------------------------
 */

void draftd_call_ref(struct draftd_call *call)
{
    atomic_fetch_add(&call->references, 1);
}

void draftd_call_unref(struct draftd_call *call)
{
    if (atomic_fetch_sub(&call->references, 1) != 1)
        return;
    assert(!call->opened);
    struct draftd_rpc *rpc = call->rpc;
    bool counted = call->counted;
    if (counted) { /* first of all, so that draftd_rpc_stop() does not find it any more */
        pthread_mutex_lock(&rpc->mutex);
        *call->previous_live = call->next_live;
        if (call->next_live != NULL)
            call->next_live->previous_live = call->previous_live;
        pthread_mutex_unlock(&rpc->mutex);
    }
    grpc_byte_buffer_destroy(call->incoming); /* NULL is fine */
    grpc_byte_buffer_destroy(call->outgoing);
    grpc_byte_buffer_destroy(call->last);
    grpc_slice_unref(call->message);
    if (call->has_trailer) {
        grpc_slice_unref(call->trailer.key);
        grpc_slice_unref(call->trailer.value);
    }
    if (call->call != NULL)
        grpc_call_unref(call->call);
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    pthread_mutex_destroy(&call->mutex);
    free(call);
    if (counted) {
        pthread_mutex_lock(&rpc->mutex);
        rpc->live--;
        pthread_cond_broadcast(&rpc->changed);
        pthread_mutex_unlock(&rpc->mutex);
    }
}

void draftd_call_wake_streams(struct draftd_rpc *rpc)
{
    pthread_mutex_lock(&rpc->mutex);
    struct draftd_call **calls = draftd_new(((size_t)rpc->live + 1) * sizeof *calls);
    size_t count = 0;
    for (struct draftd_call *call = rpc->calls; call != NULL; call = call->next_live) {
        int references = atomic_load(&call->references);
        while (references > 0 && !atomic_compare_exchange_weak(&call->references, &references, references + 1))
            ;
        if (references > 0) /* else it is on its way out and waits for the mutex */
            calls[count++] = call;
    }
    pthread_mutex_unlock(&rpc->mutex);
    for (size_t i = 0; i < count; i++) {
        if (calls[i]->method != NULL && calls[i]->method->kind == DRAFTD_STREAM)
            draftd_call_wake(calls[i]);
        draftd_call_unref(calls[i]);
    }
    free(calls);
}

/* False when more calls are open than allowed; the call is on the list all the same, until it is refused. */
static bool count_call(struct draftd_call *call)
{
    struct draftd_rpc *rpc = call->rpc;
    pthread_mutex_lock(&rpc->mutex);
    call->counted = true;
    call->next_live = rpc->calls;
    call->previous_live = &rpc->calls;
    if (rpc->calls != NULL)
        rpc->calls->previous_live = &call->next_live;
    rpc->calls = call;
    bool room = ++rpc->live <= rpc->options.max_calls;
    pthread_mutex_unlock(&rpc->mutex);
    return room;
}

/* --- Work: one lane thread at a time -------------------------------------------------------------------------------
 */

static bool schedule(struct draftd_call *call, enum draftd_lane lane, bool limited)
{
    pthread_mutex_lock(&call->mutex);
    bool push = call->work == WORK_IDLE;
    if (push) {
        call->work = WORK_QUEUED;
        draftd_call_ref(
            call); /* with the state: whoever sees it QUEUED may leave the rest to it and let go of the call */
    } else if (call->work == WORK_RUNNING) {
        call->work = WORK_AGAIN;
    }
    pthread_mutex_unlock(&call->mutex);
    if (!push)
        return true;
    if (draftd_lane_push(&call->rpc->lanes[lane], call, limited))
        return true;
    pthread_mutex_lock(&call->mutex);
    call->work = WORK_IDLE;
    pthread_mutex_unlock(&call->mutex);
    draftd_call_unref(call);
    return false;
}

void draftd_call_wake(struct draftd_call *call)
{
    schedule(call, DRAFTD_QUICK, false);
}

void draftd_call_work_begin(struct draftd_call *call)
{
    pthread_mutex_lock(&call->mutex);
    call->work = WORK_RUNNING;
    pthread_mutex_unlock(&call->mutex);
}

bool draftd_call_work_done(struct draftd_call *call)
{
    pthread_mutex_lock(&call->mutex);
    bool again = call->work == WORK_AGAIN;
    call->work = again ? WORK_QUEUED : WORK_IDLE;
    pthread_mutex_unlock(&call->mutex);
    return again;
}

/* --- Completions: on the poller ------------------------------------------------------------------------------------
 */

static void receive(struct draftd_call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &call->incoming;
    draftd_call_batch(call, &op, 1, &call->received);
}

static void on_received(void *owner, bool ok)
{
    struct draftd_call *call = owner;
    struct draftd_status status;
    if (ok && call->incoming != NULL) {
        pthread_mutex_lock(&call->mutex);
        call->has_request = true;
        pthread_mutex_unlock(&call->mutex);
        if (!schedule(call, call->method->lane, call->method->lane == DRAFTD_SLOW)) {
            draftd_status_set(&status, GRPC_STATUS_RESOURCE_EXHAUSTED, "TOO_MANY_CALLS",
                              "%d calls wait for a worker process already; try again later",
                              call->rpc->options.max_waiting);
            status.limit = call->rpc->options.max_waiting;
            draftd_call_finish(call, NULL, &status);
        }
    } else if (call->method->kind == DRAFTD_EXCHANGE) {
        draftd_call_finish(call, NULL, NULL);
    } else {
        draftd_status_set(&status, GRPC_STATUS_INVALID_ARGUMENT, "MALFORMED_REQUEST",
                          "the call carries no request message");
        draftd_call_finish(call, NULL, &status);
    }
    draftd_call_unref(call);
}

static void on_sent(void *owner, bool ok)
{
    struct draftd_call *call = owner;
    pthread_mutex_lock(&call->mutex);
    grpc_byte_buffer_destroy(call->outgoing);
    call->outgoing = NULL;
    call->sending = false;
    bool more = ok && !call->finishing && !call->over;
    if (call->finishing && !call->status_sent && !call->over) {
        grpc_byte_buffer *last = call->last;
        call->last = NULL;
        draftd_call_start_send(call, last, true);
    }
    pthread_mutex_unlock(&call->mutex);
    if (more && call->method->kind == DRAFTD_STREAM)
        draftd_call_wake(call);
    else if (more)
        receive(call);
    draftd_call_unref(call);
}

static void on_closed(void *owner, bool ok)
{
    (void)ok;
    struct draftd_call *call = owner;
    pthread_mutex_lock(&call->mutex);
    call->over = true;
    pthread_mutex_unlock(&call->mutex);
    atomic_store(&call->gone, true);
    if (call->method != NULL && call->method->kind == DRAFTD_STREAM)
        draftd_call_wake(call);
    draftd_call_unref(call);
}

static void find_method(struct draftd_call *call)
{
    for (size_t i = 0; i < call->rpc->service_count; i++) {
        const struct draftd_service *service = &call->rpc->services[i];
        for (size_t j = 0; j < service->count; j++)
            if (grpc_slice_str_cmp(call->details.method, service->methods[j].path) == 0) {
                call->service = service;
                call->method = &service->methods[j];
                return;
            }
    }
}

static void on_requested(void *owner, bool ok)
{
    struct draftd_call *call = owner;
    if (!ok) { /* the server is shutting down: an unused slot */
        draftd_call_unref(call);
        return;
    }
    draftd_call_post(call->rpc); /* without a posted slot new calls would wait for ever */
    find_method(call);
    bool room = count_call(call);
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &call->cancelled_flag;
    draftd_call_batch(call, &op, 1, &call->closed);

    struct draftd_status status;
    if (call->method == NULL) {
        int length = (int)GRPC_SLICE_LENGTH(call->details.method);
        draftd_status_set(&status, GRPC_STATUS_UNIMPLEMENTED, "UNKNOWN_METHOD", "draftd %s has no method %.*s",
                          DRAFT_VERSION, length < 200 ? length : 200,
                          (const char *)GRPC_SLICE_START_PTR(call->details.method));
        draftd_call_finish(call, NULL, &status);
    } else if (!room) {
        draftd_status_set(&status, GRPC_STATUS_RESOURCE_EXHAUSTED, "TOO_MANY_CALLS",
                          "%d calls are open already; end some or try again later", call->rpc->options.max_calls);
        status.limit = call->rpc->options.max_calls;
        draftd_call_finish(call, NULL, &status);
    } else if ((call->method->role & call->rpc->options.roles) != call->method->role) {
        draftd_status_set(&status, GRPC_STATUS_PERMISSION_DENIED, "PERMISSION_DENIED",
                          "this connection may not call %s", call->method->path);
        draftd_call_finish(call, NULL, &status);
    } else {
        receive(call);
    }
    draftd_call_unref(call);
}

bool draftd_call_post(struct draftd_rpc *rpc)
{
    struct draftd_call *call = calloc(1, sizeof *call);
    if (call == NULL)
        return false;
    call->rpc = rpc;
    call->requested = (struct tag){on_requested, call};
    call->received = (struct tag){on_received, call};
    call->sent = (struct tag){on_sent, call};
    call->closed = (struct tag){on_closed, call};
    call->message = grpc_empty_slice();
    atomic_init(&call->references, 1);
    pthread_mutex_init(&call->mutex, NULL);
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    TAG_RELEASE(&call->requested);
    if (grpc_server_request_call(rpc->server, &call->call, &call->details, &call->metadata, rpc->queue, rpc->queue,
                                 &call->requested) == GRPC_CALL_OK)
        return true;
    draftd_call_unref(call);
    return false;
}

/* --- For handlers --------------------------------------------------------------------------------------------------
 */

void *draftd_call_context(const struct draftd_call *call)
{
    return call->service->context;
}

void *draftd_call_user(const struct draftd_call *call)
{
    return call->user;
}

void draftd_call_set_user(struct draftd_call *call, void *user)
{
    call->user = user;
}

const atomic_bool *draftd_call_gone(const struct draftd_call *call)
{
    return &call->gone;
}

int draftd_call_remaining_ms(const struct draftd_call *call)
{
    gpr_timespec deadline = call->details.deadline;
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0)
        return call->method->default_ms > 0 ? call->method->default_ms : DEFAULT_MS;
    gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    if (gpr_time_cmp(left, gpr_time_from_millis(LONGEST_MS, GPR_TIMESPAN)) > 0)
        return LONGEST_MS;
    int ms = gpr_time_to_millis(left);
    return ms > 1 ? ms : 1;
}
