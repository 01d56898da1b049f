/* The server: one completion queue, one poller, posted request slots, an orderly stop. */
#include "rpc/rpc_internal.h"

#include <assert.h>
#include <errno.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/impl/codegen/compression_types.h>
#include <grpc/support/log.h>
#include <stdlib.h>
#include <time.h>

#include "log.h"

#if defined(__SANITIZE_THREAD__)
/* What Debian's libraries do among themselves is not seen whole: reports about it would be wrong, and finding that out
 * each time stalls gRPC's threads for seconds. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}
#endif

enum { SLOTS = 64, MAX_METADATA = 8 * 1024, MAX_STREAMS = 100 };

static void log_grpc(gpr_log_func_args *line)
{
    draftd_log(DRAFTD_DEBUG, NULL, "grpc: %s", line->message);
}

void draftd_rpc_setup(void)
{
    gpr_set_log_function(log_grpc);
    grpc_init();
}

void draftd_rpc_teardown(void)
{
    grpc_shutdown_blocking();
}

static void *poll_queue(void *argument)
{
    struct draftd_rpc *rpc = argument;
    for (;;) {
        grpc_event event = grpc_completion_queue_next(rpc->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        struct tag *tag = event.tag;
        TAG_ACQUIRE(tag);
        tag->complete(tag->owner, event.success != 0);
    }
}

static void on_shutdown(void *owner, bool ok)
{
    (void)ok;
    struct draftd_rpc *rpc = owner;
    pthread_mutex_lock(&rpc->mutex);
    rpc->down = true;
    pthread_cond_broadcast(&rpc->changed);
    pthread_mutex_unlock(&rpc->mutex);
}

static grpc_server *create_server(const struct draftd_rpc_options *options)
{
    grpc_arg arguments[] = {
        {.key = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, .value.integer = DRAFTD_MAX_REQUEST},
        {.key = GRPC_ARG_MAX_METADATA_SIZE, .value.integer = MAX_METADATA},
        {.key = GRPC_ARG_MAX_CONCURRENT_STREAMS, .value.integer = MAX_STREAMS},
        {.key = GRPC_ARG_ALLOW_REUSEPORT, .value.integer = 0},
        {.key = GRPC_ARG_KEEPALIVE_TIME_MS, .value.integer = options->keepalive_ms},
        {.key = GRPC_ARG_KEEPALIVE_TIMEOUT_MS, .value.integer = options->keepalive_ms / 3},
        {.key = GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, .value.integer = 1},
        {.key = GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, .value.integer = 10 * 1000},
        /* only "identity": a 200 KB gzip bomb would unpack to 277 MB before the size limit acts */
        {.key = GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, .value.integer = 1 << GRPC_COMPRESS_NONE},
    };
    grpc_channel_args list = {sizeof arguments / sizeof *arguments, arguments};
    for (size_t i = 0; i < list.num_args; i++)
        arguments[i].type = GRPC_ARG_INTEGER;
    return grpc_server_create(&list, NULL);
}

static bool start_threads(struct draftd_rpc *rpc)
{
    struct lane *quick = &rpc->lanes[DRAFTD_QUICK], *slow = &rpc->lanes[DRAFTD_SLOW];
    if (!draftd_lane_start(quick, "rpc-quick", rpc->options.quick, 0))
        return false;
    if (draftd_lane_start(slow, "rpc-slow", rpc->options.slow, rpc->options.max_waiting)) {
        if (pthread_create(&rpc->poller, NULL, poll_queue, rpc) == 0) {
            pthread_setname_np(rpc->poller, "rpc-poll");
            return true;
        }
        draftd_lane_stop(slow);
    }
    draftd_lane_stop(quick);
    return false;
}

static void free_parts(struct draftd_rpc *rpc)
{
    grpc_server_credentials_release(rpc->credentials);
    pthread_cond_destroy(&rpc->changed);
    pthread_mutex_destroy(&rpc->mutex);
    free(rpc);
}

struct draftd_rpc *draftd_rpc_create(const struct draftd_service *services, size_t count,
                                     const struct draftd_rpc_options *options, struct draft_error *err)
{
    struct draftd_rpc *rpc = calloc(1, sizeof *rpc);
    if (rpc == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for the RPC server");
        return NULL;
    }
    rpc->services = services;
    rpc->service_count = count;
    rpc->options = *options;
    rpc->options.quick = options->quick > 0 ? options->quick : 2;
    rpc->options.slow = options->slow > 0 ? options->slow : 8;
    rpc->options.max_calls = options->max_calls > 0 ? options->max_calls : 2048;
    rpc->options.max_waiting = options->max_waiting > 0 ? options->max_waiting : 64;
    rpc->options.keepalive_ms = options->keepalive_ms > 0 ? options->keepalive_ms : 60 * 1000;
    rpc->shutdown = (struct tag){on_shutdown, rpc};
    pthread_mutex_init(&rpc->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&rpc->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);

    rpc->credentials = grpc_insecure_server_credentials_create();
    rpc->queue = grpc_completion_queue_create_for_next(NULL);
    rpc->server = create_server(&rpc->options);
    grpc_server_register_completion_queue(rpc->server, rpc->queue, NULL);
    if (!start_threads(rpc)) {
        draft_fail(err, DRAFT_RESOURCE_EXHAUSTED,
                   "cannot start the RPC server's threads; raise the limit on processes");
        grpc_server_destroy(rpc->server);
        grpc_completion_queue_shutdown(rpc->queue);
        grpc_completion_queue_destroy(rpc->queue);
        free_parts(rpc);
        return NULL;
    }
    grpc_server_start(rpc->server);
    for (int i = 0; i < SLOTS; i++)
        draftd_call_post(rpc);
    return rpc;
}

void draftd_rpc_adopt(struct draftd_rpc *rpc, int fd)
{
    grpc_server_add_channel_from_fd(rpc->server, fd, rpc->credentials);
}

int draftd_rpc_live_calls(struct draftd_rpc *rpc)
{
    pthread_mutex_lock(&rpc->mutex);
    int live = rpc->live;
    pthread_mutex_unlock(&rpc->mutex);
    return live;
}

void draftd_rpc_stop(struct draftd_rpc *rpc, int grace_ms)
{
    TAG_RELEASE(&rpc->shutdown);
    grpc_server_shutdown_and_notify(rpc->server, rpc->queue, &rpc->shutdown);
    atomic_store(&rpc->stopping, true);
    draftd_call_wake_streams(rpc);

    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += grace_ms / 1000;
    end.tv_nsec += (long)(grace_ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&rpc->mutex);
    while (!rpc->down && pthread_cond_timedwait(&rpc->changed, &rpc->mutex, &end) != ETIMEDOUT)
        ;
    if (!rpc->down) {
        pthread_mutex_unlock(&rpc->mutex);
        grpc_server_cancel_all_calls(rpc->server);
        pthread_mutex_lock(&rpc->mutex);
    }
    while (!rpc->down || rpc->live > 0)
        pthread_cond_wait(&rpc->changed, &rpc->mutex);
    pthread_mutex_unlock(&rpc->mutex);
}

void draftd_rpc_destroy(struct draftd_rpc *rpc)
{
    assert(rpc->down && rpc->live == 0);
    grpc_server_destroy(rpc->server);
    draftd_lane_stop(&rpc->lanes[DRAFTD_QUICK]);
    draftd_lane_stop(&rpc->lanes[DRAFTD_SLOW]);
    grpc_completion_queue_shutdown(rpc->queue);
    pthread_join(rpc->poller, NULL); /* it leaves when the queue is empty */
    grpc_completion_queue_destroy(rpc->queue);
    free_parts(rpc);
}
