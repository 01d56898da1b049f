#include "rpc/rpc.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "interrupt.h"
#include "rpc/details.h"
#include "shown_path.h"

enum {
    SLICE_MS = 200, /* how often a waiting call looks for Ctrl-C */
    CONNECT_MS = 10000,
    START_MS = 1000,              /* how long the first call waits for a socket that is not there */
    RECEIVE_LIMIT = 16 * 1 << 20, /* bytes; the server's own limit is 1 MiB a message */
    ATTEMPTS = 4,                 /* AIP-194: 0.1 s, doubling to 1 s, +-20 % */
};

struct draft_rpc {
    grpc_channel *channel;
    char *socket;
    int patience_ms;
    bool looked;     /* for the socket, once */
    unsigned jitter; /* state of rand_r */
};

enum tag { TAG_STATUS = 1, TAG_SEND, TAG_INITIAL, TAG_READ };

struct draft_stream {
    struct draft_rpc *rpc;
    const ProtobufCMessageDescriptor *reply;
    grpc_completion_queue *cq;
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_status_code code;
    grpc_slice details;
    grpc_byte_buffer *request, *in;
    bool initial_done, sent, reading, ended;
};

static void quiet(gpr_log_func_args *args)
{
    (void)args; /* what matters to the user is in the status */
}

struct draft_rpc *draft_rpc_open(const char *socket)
{
    struct draft_rpc *rpc = calloc(1, sizeof *rpc);
    if (!rpc)
        abort();
    rpc->socket = strdup(socket);
    rpc->jitter = (unsigned)getpid() ^ (unsigned)time(NULL);
    gpr_set_log_function(quiet);
    grpc_init();

    grpc_arg arguments[] = {
        {.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_ENABLE_HTTP_PROXY, .value.integer = 0},
        {.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, .value.integer = RECEIVE_LIMIT},
        {.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, .value.integer = 100},
        /* Not a pause, for all its name, but how long a connection may take to be made, the daemon's first word
         * included; on a loaded machine that comes late. */
        {.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, .value.integer = CONNECT_MS},
        {.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, .value.integer = 1000},
        /* Our own retries know which methods may be repeated. */
        {.type = GRPC_ARG_INTEGER, .key = GRPC_ARG_ENABLE_RETRIES, .value.integer = 0},
    };
    grpc_channel_args args = {.num_args = sizeof arguments / sizeof arguments[0], .args = arguments};
    char target[512];
    snprintf(target, sizeof target, "unix:%s", socket);
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    rpc->channel = grpc_channel_create(target, credentials, &args);
    grpc_channel_credentials_release(credentials);
    return rpc;
}

void draft_rpc_close(struct draft_rpc *rpc)
{
    if (!rpc)
        return;
    grpc_channel_destroy(rpc->channel);
    grpc_shutdown_blocking();
    free(rpc->socket);
    free(rpc);
}

const char *draft_rpc_socket(const struct draft_rpc *rpc)
{
    return rpc->socket;
}

void draft_rpc_set_patience(struct draft_rpc *rpc, int ms)
{
    rpc->patience_ms = ms;
}

void draft_rpc_default_socket(char *path, size_t size)
{
    const char *given = getenv("DRAFTD_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (given && *given)
        snprintf(path, size, "%s", given);
    else if (runtime && *runtime)
        snprintf(path, size, "%s/draftd.sock", runtime);
    else if (state && *state)
        snprintf(path, size, "%s/draftd/draftd.sock", state);
    else
        snprintf(path, size, "%s/.local/state/draftd/draftd.sock", home ? home : "");
}

void draft_free_message(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

static gpr_timespec after_ms(int ms)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN));
}

static void start(struct draft_stream *s, const grpc_op *ops, size_t count, enum tag tag)
{
    grpc_call_error error = grpc_call_start_batch(s->call, ops, count, (void *)(intptr_t)tag, NULL);
    assert(error == GRPC_CALL_OK);
    (void)error;
}

/* False on a timeout; *success tells how the batch went otherwise. ms < 0: no limit. */
static bool pluck(struct draft_stream *s, enum tag tag, int ms, bool *success)
{
    gpr_timespec deadline = ms < 0 ? gpr_inf_future(GPR_CLOCK_MONOTONIC) : after_ms(ms);
    grpc_event event = grpc_completion_queue_pluck(s->cq, (void *)(intptr_t)tag, deadline, NULL);
    if (event.type == GRPC_QUEUE_TIMEOUT)
        return false;
    *success = event.success != 0;
    return true;
}

/* `draftd & draft jobs`, two lines pasted at once: the socket is there in a moment. */
static void wait_for_socket(struct draft_rpc *rpc)
{
    for (int ms = 0; !rpc->looked && ms < START_MS && access(rpc->socket, F_OK) != 0 && !draft_interrupted(); ms += 20)
        usleep(20000);
    rpc->looked = true;
}

static struct draft_stream *open_stream(struct draft_rpc *rpc, const char *path, const ProtobufCMessage *request,
                                        const ProtobufCMessageDescriptor *reply, int deadline_ms)
{
    struct draft_stream *s = calloc(1, sizeof *s);
    size_t length = protobuf_c_message_get_packed_size(request);
    if (!s)
        abort();
    wait_for_socket(rpc);
    s->rpc = rpc;
    s->reply = reply;
    s->cq = grpc_completion_queue_create_for_pluck(NULL);
    gpr_timespec deadline = deadline_ms ? after_ms(deadline_ms) : gpr_inf_future(GPR_CLOCK_MONOTONIC);
    grpc_slice method = grpc_slice_from_copied_string(path);
    s->call =
        grpc_channel_create_call(rpc->channel, NULL, GRPC_PROPAGATE_DEFAULTS, s->cq, method, NULL, deadline, NULL);
    grpc_slice_unref(method);
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);

    grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    status.data.recv_status_on_client.trailing_metadata = &s->trailing;
    status.data.recv_status_on_client.status = &s->code;
    status.data.recv_status_on_client.status_details = &s->details;
    start(s, &status, 1, TAG_STATUS);

    grpc_slice body = grpc_slice_malloc(length);
    protobuf_c_message_pack(request, GRPC_SLICE_START_PTR(body));
    s->request = grpc_raw_byte_buffer_create(&body, 1);
    grpc_slice_unref(body);
    grpc_op send[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_MESSAGE}, {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}};
    send[1].data.send_message.send_message = s->request;
    start(s, send, 3, TAG_SEND);

    grpc_op initial = {.op = GRPC_OP_RECV_INITIAL_METADATA};
    initial.data.recv_initial_metadata.recv_initial_metadata = &s->initial;
    start(s, &initial, 1, TAG_INITIAL);
    return s;
}

static ProtobufCMessage *decode(const struct draft_stream *s)
{
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, s->in))
        return NULL;
    grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    ProtobufCMessage *message =
        protobuf_c_message_unpack(s->reply, NULL, GRPC_SLICE_LENGTH(all), GRPC_SLICE_START_PTR(all));
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    return message;
}

static void unreachable(const struct draft_stream *s, struct draft_status *st)
{
    const char *socket = s->rpc->socket;
    char draftd[256];
    draft_shown_program("draftd", draftd, sizeof draftd);
    if (access(socket, F_OK) != 0)
        draft_status_fail(st, DRAFT_STATUS_UNAVAILABLE,
                          "the daemon is not running: no socket at %s; start it with `%s &`, or name another "
                          "socket with --socket or DRAFTD_SOCKET",
                          socket, draftd);
    else
        draft_status_fail(
            st, DRAFT_STATUS_UNAVAILABLE,
            "the daemon does not answer at %s; if it is not running, start it with `%s &`; if it is, it may have "
            "as many connections as it takes, which its log says",
            socket, draftd);
}

/* The end of the call: its status, once. */
static void finish(struct draft_stream *s, struct draft_status *st)
{
    bool ok;
    if (s->ended)
        return;
    pluck(s, TAG_STATUS, -1, &ok);
    s->ended = true;
    if (s->code == GRPC_STATUS_OK)
        return;
    char *text = grpc_slice_to_c_string(s->details);
    bool from_server = false;
    for (size_t i = 0; i < s->trailing.count; i++) {
        const grpc_metadata *entry = &s->trailing.metadata[i];
        if (grpc_slice_str_cmp(entry->key, "grpc-status-details-bin") == 0) {
            from_server = true;
            if (st->code == DRAFT_STATUS_OK)
                draft_details_parse(GRPC_SLICE_START_PTR(entry->value), GRPC_SLICE_LENGTH(entry->value), st);
        }
    }
    if (s->code == GRPC_STATUS_UNAVAILABLE && !from_server)
        unreachable(s, st);
    else if (s->code == GRPC_STATUS_DEADLINE_EXCEEDED && !from_server)
        draft_status_fail(st, DRAFT_STATUS_DEADLINE_EXCEEDED, "the daemon did not answer in time");
    else
        draft_status_fail(st, (enum draft_status_code)s->code, "%s", *text ? text : "the daemon gave no reason");
    gpr_free(text);
}

enum draft_stream_event draft_stream_next(struct draft_stream *s, int timeout_ms, ProtobufCMessage **message,
                                          struct draft_status *st)
{
    *message = NULL;
    if (s->ended)
        return DRAFT_STREAM_END;
    if (draft_interrupted()) { /* also when messages come so fast that nothing ever waits */
        draft_status_fail(st, DRAFT_STATUS_CANCELLED, "interrupted");
        return DRAFT_STREAM_END;
    }
    if (!s->reading) {
        grpc_op read = {.op = GRPC_OP_RECV_MESSAGE};
        read.data.recv_message.recv_message = &s->in;
        start(s, &read, 1, TAG_READ);
        s->reading = true;
    }
    bool ok = false;
    int waited = 0;
    for (;;) {
        int slice = timeout_ms - waited < SLICE_MS ? timeout_ms - waited : SLICE_MS;
        if (pluck(s, TAG_READ, slice, &ok))
            break;
        waited += slice;
        if (draft_interrupted()) {
            draft_status_fail(st, DRAFT_STATUS_CANCELLED, "interrupted");
            return DRAFT_STREAM_END;
        }
        if (waited >= timeout_ms)
            return DRAFT_STREAM_WAITING;
    }
    s->reading = false;
    if (!ok || !s->in) {
        finish(s, st);
        return DRAFT_STREAM_END;
    }
    *message = decode(s);
    grpc_byte_buffer_destroy(s->in);
    s->in = NULL;
    if (!*message) {
        draft_status_fail(st, DRAFT_STATUS_INTERNAL,
                          "the daemon's answer is not a %s; client and daemon may be of "
                          "different versions, compare with `draft version`",
                          s->reply->name);
        grpc_call_cancel(s->call, NULL);
        finish(s, st);
        return DRAFT_STREAM_END;
    }
    return DRAFT_STREAM_MESSAGE;
}

void draft_stream_close(struct draft_stream *s)
{
    if (!s)
        return;
    bool ok;
    struct draft_status ignored = {0};
    if (!s->ended)
        grpc_call_cancel(s->call, NULL);
    if (s->reading)
        pluck(s, TAG_READ, -1, &ok);
    pluck(s, TAG_SEND, -1, &ok);
    pluck(s, TAG_INITIAL, -1, &ok);
    finish(s, &ignored);
    if (s->in)
        grpc_byte_buffer_destroy(s->in);
    grpc_byte_buffer_destroy(s->request);
    grpc_slice_unref(s->details);
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_call_unref(s->call);
    grpc_completion_queue_shutdown(s->cq);
    while (grpc_completion_queue_pluck(s->cq, NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_completion_queue_destroy(s->cq);
    free(s);
}

static ProtobufCMessage *unary_once(struct draft_rpc *rpc, const char *path, const ProtobufCMessage *request,
                                    const ProtobufCMessageDescriptor *descriptor, int deadline_ms,
                                    struct draft_status *st)
{
    struct draft_stream *s = open_stream(rpc, path, request, descriptor, deadline_ms);
    ProtobufCMessage *reply = NULL, *extra = NULL;
    enum draft_stream_event event;
    while ((event = draft_stream_next(s, SLICE_MS, &reply, st)) == DRAFT_STREAM_WAITING) {
    }
    if (event == DRAFT_STREAM_MESSAGE)
        while ((event = draft_stream_next(s, SLICE_MS, &extra, st)) != DRAFT_STREAM_END)
            draft_free_message(extra);
    if (st->code != DRAFT_STATUS_OK) {
        draft_free_message(reply);
        reply = NULL;
    } else if (!reply) {
        draft_status_fail(st, DRAFT_STATUS_INTERNAL, "the daemon sent no answer");
    }
    draft_stream_close(s);
    return reply;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static ProtobufCMessage *unary(struct draft_rpc *rpc, const char *path, const ProtobufCMessage *request,
                               const ProtobufCMessageDescriptor *descriptor, int deadline_ms, bool retry,
                               struct draft_status *st)
{
    double begin = seconds(), pause = 0.1;
    assert(st->code == DRAFT_STATUS_OK);
    for (int attempt = 1;; attempt++) {
        struct draft_status now = {0};
        ProtobufCMessage *reply = unary_once(rpc, path, request, descriptor, deadline_ms, &now);
        if (reply)
            return reply;
        /* No socket at all: nothing will come of trying again unless the caller waits for a daemon to appear. */
        bool absent = access(rpc->socket, F_OK) != 0;
        bool patient = seconds() - begin < 1e-3 * rpc->patience_ms;
        if (now.code != DRAFT_STATUS_UNAVAILABLE || !retry || !(patient || (attempt < ATTEMPTS && !absent))) {
            *st = now;
            return NULL;
        }
        double jitter = 0.8 + 0.4 * rand_r(&rpc->jitter) / RAND_MAX;
        usleep((useconds_t)(1e6 * pause * jitter));
        pause = pause * 2 < 1 ? pause * 2 : 1;
        if (draft_interrupted()) {
            draft_status_fail(st, DRAFT_STATUS_CANCELLED, "interrupted");
            return NULL;
        }
    }
}

#define UNARY(name, path, Request, Reply, descriptor, deadline_ms, retry)                                              \
    Reply *draft_rpc_##name(struct draft_rpc *rpc, const Request *request, struct draft_status *status)                \
    {                                                                                                                  \
        return (Reply *)unary(rpc, "/draftd.v1." path, &request->base, &descriptor, deadline_ms, retry, status);       \
    }
#define STREAM(name, path, Request, Reply, descriptor, deadline_ms)                                                    \
    struct draft_stream *draft_rpc_##name(struct draft_rpc *rpc, const Request *request)                               \
    {                                                                                                                  \
        return open_stream(rpc, "/draftd.v1." path, &request->base, &descriptor, deadline_ms);                         \
    }
#include "rpc/methods.def"
