/* The transport with a service made for the test, driven by gRPC's own client over a socketpair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "draftd/v1/previews.pb-c.h"
#include "message.h"
#include "rpc/rpc.h"
#include "rpc/status.h"
#include "server/rpc/core_client.h"
#include "server/rpc/test_service.h"

/* --- Server and client of one test ---------------------------------------------------------------------------------
 */

struct fixture {
    struct draftd_rpc *rpc;
    grpc_channel *channel;
    bool stopped;
};

static struct draftd_rpc_options options = {
    .roles = DRAFTD_ROLE_VIEWER, .quick = 2, .slow = 2, .max_calls = 20, .max_waiting = 3};

static grpc_channel *connect_to(struct draftd_rpc *rpc)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    draftd_rpc_adopt(rpc, pair[0]);
    return client_connect(pair[1]);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    world.opened = world.closed = world.asked = world.gate = world.inside = world.left = world.remaining = 0;
    world.ready = false;
    struct draft_error err = {0};
    f->rpc = draftd_rpc_create(services, 1, &options, &err);
    assert_non_null(f->rpc);
    f->channel = connect_to(f->rpc);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    world.gate = 1;
    grpc_channel_destroy(f->channel);
    if (!f->stopped)
        draftd_rpc_stop(f->rpc, 500);
    draftd_rpc_destroy(f->rpc);
    free(f);
    return world.opened == world.closed ? 0 : -1;
}

/* index in a ReadPictureRequest: field 2, varint */
static struct client_call *begin(struct fixture *f, const char *path, int index, int deadline_ms)
{
    Draftd__V1__ReadPictureRequest request = DRAFTD__V1__READ_PICTURE_REQUEST__INIT;
    request.index = index;
    uint8_t bytes[32];
    return client_start(f->channel, path, bytes, draftd__v1__read_picture_request__pack(&request, bytes), deadline_ms);
}

static grpc_status_code end(struct client_call *c)
{
    grpc_status_code code = client_status(c);
    client_free(c);
    return code;
}

/* One whole call: its code; *total of the first reply. */
static grpc_status_code ask(struct fixture *f, const char *path, int index, uint64_t *total)
{
    struct client_call *c = begin(f, path, index, 0);
    size_t size;
    uint8_t *bytes = client_read(c, &size);
    if (bytes != NULL) {
        Draftd__V1__ReadPictureResponse *reply = draftd__v1__read_picture_response__unpack(NULL, size, bytes);
        if (total != NULL)
            *total = reply->total_bytes;
        draftd_message_free(reply);
        free(bytes);
    }
    return end(c);
}

static void eventually(atomic_int *value, int wanted)
{
    for (int i = 0; i < 5000 && atomic_load(value) < wanted; i++)
        usleep(1000);
    assert_int_equal(atomic_load(value), wanted);
}

/* --- Tests ---------------------------------------------------------------------------------------------------------
 */

static void test_rpc__unary_call_is_answered(void **state)
{
    uint64_t total = 0;
    assert_int_equal(ask(*state, "/test.Test/Echo", 12, &total), GRPC_STATUS_OK);
    assert_int_equal(total, 12);
}

static void test_rpc__error_carries_code_sentence_and_details(void **state)
{
    struct client_call *c = begin(*state, "/test.Test/Echo", -1, 0);
    assert_int_equal(client_status(c), GRPC_STATUS_INVALID_ARGUMENT);
    assert_string_equal(c->message, "index is negative: \xe2\x9c\x93");
    assert_true(c->details > 50);
    client_free(c);
}

static void test_rpc__unknown_method_is_unimplemented(void **state)
{
    struct client_call *c = begin(*state, "/test.Test/Nothing", 1, 0);
    assert_int_equal(client_status(c), GRPC_STATUS_UNIMPLEMENTED);
    assert_non_null(strstr(c->message, "/test.Test/Nothing"));
    client_free(c);
}

static void test_rpc__malformed_request_is_invalid_argument(void **state)
{
    struct fixture *f = *state;
    struct client_call *c = client_start(f->channel, "/test.Test/Echo", "\x0a\x02\xff\xfe", 4, 0);
    assert_int_equal(client_status(c), GRPC_STATUS_INVALID_ARGUMENT);
    assert_non_null(strstr(c->message, "preview_id: is not valid UTF-8"));
    client_free(c);
}

static void test_rpc__request_beyond_1_MiB_is_refused(void **state)
{
    struct fixture *f = *state;
    size_t size = 1024 * 1024 + 1;
    uint8_t *zeros = calloc(size, 1);
    struct client_call *c = client_start(f->channel, "/test.Test/Echo", zeros, size, 0);
    free(zeros);
    assert_int_equal(end(c), GRPC_STATUS_RESOURCE_EXHAUSTED);
}

static void test_rpc__reply_beyond_4_MiB_is_an_error_that_says_so(void **state)
{
    struct client_call *c = begin(*state, "/test.Test/Echo", 5000000, 0);
    assert_int_equal(client_status(c), GRPC_STATUS_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(c->message, "the reply would be 4.8 MiB"));
    client_free(c);
}

static void test_rpc__role_that_was_not_granted_is_refused(void **state)
{
    assert_int_equal(ask(*state, "/test.Test/Write", 1, NULL), GRPC_STATUS_PERMISSION_DENIED);
}

static void test_rpc__deadline_reaches_the_handler(void **state)
{
    assert_int_equal(end(begin(*state, "/test.Test/Echo", 1, 2000)), GRPC_STATUS_OK);
    assert_in_range(atomic_load(&world.remaining), 1000, 2100); /* gRPC rounds timeouts up */
    assert_int_equal(ask(*state, "/test.Test/Echo", 1, NULL), GRPC_STATUS_OK);
    assert_int_equal(atomic_load(&world.remaining), 777);
}

static void test_rpc__stream_comes_whole_and_in_order(void **state)
{
    struct client_call *c = begin(*state, "/test.Test/Stream", 100, 0);
    size_t size;
    for (uint64_t left = 100; left > 0; left--) {
        uint8_t *bytes = client_read(c, &size);
        assert_non_null(bytes);
        Draftd__V1__ReadPictureResponse *reply = draftd__v1__read_picture_response__unpack(NULL, size, bytes);
        assert_int_equal(reply->total_bytes, left);
        assert_int_equal(reply->data.len, 65536);
        draftd_message_free(reply);
        free(bytes);
    }
    assert_null(client_read(c, &size));
    assert_int_equal(end(c), GRPC_STATUS_OK);
    eventually(&world.closed, 1);
}

static void test_rpc__client_that_stops_reading_costs_a_bounded_number_of_messages(void **state)
{
    struct client_call *c = begin(*state, "/test.Test/Stream", 10000, 0);
    usleep(300000);
    int asked = atomic_load(&world.asked);
    assert_in_range(asked, 1, 100); /* of 10000; what fits into windows and socket buffers */
    usleep(200000);
    assert_int_equal(atomic_load(&world.asked), asked); /* and then it stands still */
    grpc_call_cancel(c->call, NULL);
    assert_int_equal(end(c), GRPC_STATUS_CANCELLED);
    eventually(&world.closed, 1);
}

static void test_rpc__failed_open_ends_the_stream_with_the_refined_code(void **state)
{
    assert_int_equal(ask(*state, "/test.Test/Stream", -1, NULL), GRPC_STATUS_OUT_OF_RANGE);
    assert_int_equal(atomic_load(&world.closed), 0);
}

static void wake_waiting(void)
{
    atomic_store(&world.ready, true);
    pthread_mutex_lock(&world.mutex);
    if (world.waiting != NULL)
        draftd_call_wake(world.waiting);
    pthread_mutex_unlock(&world.mutex);
}

static void test_rpc__wake_delivers_what_comes_later(void **state)
{
    struct client_call *c = begin(*state, "/test.Test/Later", 1, 0);
    eventually(&world.opened, 1);
    for (int i = 0; i < 3; i++) {
        wake_waiting();
        size_t size;
        uint8_t *bytes = client_read(c, &size);
        assert_non_null(bytes);
        free(bytes);
    }
    grpc_call_cancel(c->call, NULL);
    assert_int_equal(end(c), GRPC_STATUS_CANCELLED);
    eventually(&world.closed, 1);
}

static void *wake_all_the_time(void *stop)
{
    while (!atomic_load((atomic_bool *)stop)) {
        pthread_mutex_lock(&world.mutex);
        if (world.waiting != NULL)
            draftd_call_wake(world.waiting);
        pthread_mutex_unlock(&world.mutex);
    }
    return NULL;
}

/* Once a wake between "queued" and its reference let the last other reference free an open call. */
static void test_rpc__waking_and_cancelling_at_once_frees_every_stream_once(void **state)
{
    atomic_bool stop = false;
    pthread_t waker;
    pthread_create(&waker, NULL, wake_all_the_time, &stop);
    for (int i = 0; i < 500; i++) {
        struct client_call *c = begin(*state, "/test.Test/Later", 1, 0);
        if (i % 2 != 0)
            usleep(300); /* sometimes before it is opened, sometimes after */
        grpc_call_cancel(c->call, NULL);
        /* The server may see a call only after its client has left: on a busy machine several at once, past its limit.
         */
        grpc_status_code code = end(c);
        assert_true(code == GRPC_STATUS_CANCELLED || code == GRPC_STATUS_RESOURCE_EXHAUSTED);
        struct fixture *f = *state;
        for (int j = 0; j < 5000 && (draftd_rpc_live_calls(f->rpc) > 0 || world.opened != world.closed); j++)
            usleep(100);
        assert_int_equal(draftd_rpc_live_calls(f->rpc), 0);
    }
    eventually(&world.closed, world.opened);
    atomic_store(&stop, true);
    pthread_join(waker, NULL);
}

static void test_rpc__stream_ends_with_its_error(void **state)
{
    struct client_call *c = begin(*state, "/test.Test/Later", 7, 0);
    eventually(&world.opened, 1);
    wake_waiting();
    assert_int_equal(client_status(c), GRPC_STATUS_FAILED_PRECONDITION);
    assert_string_equal(c->message, "the preview failed");
    client_free(c);
    eventually(&world.closed, 1);
}

static void test_rpc__deadline_ends_an_idle_stream_and_closes_it(void **state)
{
    assert_int_equal(end(begin(*state, "/test.Test/Later", 1, 100)), GRPC_STATUS_DEADLINE_EXCEEDED);
    eventually(&world.closed, 1);
}

static void test_rpc__waiting_calls_do_not_delay_quick_ones_and_are_limited(void **state)
{
    struct client_call *waiting[5], *refused;
    for (int i = 0; i < 2; i++) /* both slow threads */
        waiting[i] = begin(*state, "/test.Test/Wait", 1, 0);
    eventually(&world.inside, 2);
    for (int i = 2; i < 5; i++) /* and as many behind them as may wait */
        waiting[i] = begin(*state, "/test.Test/Wait", 1, 0);
    assert_int_equal(ask(*state, "/test.Test/Echo", 1, NULL), GRPC_STATUS_OK);
    refused = begin(*state, "/test.Test/Wait", 1, 0);
    assert_int_equal(client_status(refused), GRPC_STATUS_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(refused->message, "3 calls wait for a worker process already"));
    client_free(refused);
    world.gate = 1;
    for (int i = 0; i < 5; i++)
        assert_int_equal(end(waiting[i]), GRPC_STATUS_OK);
}

static void test_rpc__a_waiting_handler_learns_that_its_client_has_left(void **state)
{
    struct fixture *f = *state;
    struct client_call *cancelled = begin(f, "/test.Test/Wait", 1, 0);
    eventually(&world.inside, 1);
    grpc_call_cancel(cancelled->call, NULL);
    assert_int_equal(end(cancelled), GRPC_STATUS_CANCELLED);
    eventually(&world.left, 1);
    assert_int_equal(end(begin(f, "/test.Test/Wait", 1, 100)), GRPC_STATUS_DEADLINE_EXCEEDED);
    eventually(&world.left, 2);
    struct client_call *lost = begin(f, "/test.Test/Wait", 1, 0);
    eventually(&world.inside, 3);
    grpc_channel_destroy(f->channel);
    grpc_call_cancel(lost->call, NULL);
    end(lost);
    eventually(&world.left, 3);
    f->channel = connect_to(f->rpc);
}

static void test_rpc__open_calls_are_limited(void **state)
{
    struct client_call *open[20];
    for (int i = 0; i < 20; i++)
        open[i] = begin(*state, "/test.Test/Idle", 1, 0);
    eventually(&world.opened, 20);
    assert_int_equal(ask(*state, "/test.Test/Echo", 1, NULL), GRPC_STATUS_RESOURCE_EXHAUSTED);
    for (int i = 0; i < 20; i++) {
        grpc_call_cancel(open[i]->call, NULL);
        assert_int_equal(end(open[i]), GRPC_STATUS_CANCELLED);
    }
    eventually(&world.closed, 20);
    struct fixture *f = *state;
    for (int i = 0; i < 5000 && draftd_rpc_live_calls(f->rpc) > 0; i++)
        usleep(1000);
    assert_int_equal(ask(*state, "/test.Test/Echo", 1, NULL), GRPC_STATUS_OK);
}

static void test_rpc__lost_connection_closes_its_streams(void **state)
{
    struct fixture *f = *state;
    struct client_call *c = begin(f, "/test.Test/Later", 1, 0);
    eventually(&world.opened, 1);
    grpc_channel_destroy(f->channel);
    grpc_call_cancel(c->call, NULL);
    end(c);
    eventually(&world.closed, 1);
    f->channel = connect_to(f->rpc);
    assert_int_equal(ask(f, "/test.Test/Echo", 1, NULL), GRPC_STATUS_OK);
}

static void test_rpc__silent_peer_is_dropped(void **state)
{
    (void)state;
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"; /* preface, empty SETTINGS */
    struct draftd_rpc_options impatient = options;
    impatient.keepalive_ms = 600;
    struct draft_error err = {0};
    struct draftd_rpc *rpc = draftd_rpc_create(services, 1, &impatient, &err);
    assert_non_null(rpc);
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    draftd_rpc_adopt(rpc, pair[0]);
    assert_int_equal(write(pair[1], hello, sizeof hello - 1), sizeof hello - 1);
    int64_t begin = draftd_now_ms();
    char bytes[512];
    ssize_t n;
    struct pollfd peer = {.fd = pair[1], .events = POLLIN};
    do /* it says things and is never answered */
        n = poll(&peer, 1, 10000) == 1 ? read(pair[1], bytes, sizeof bytes) : -1;
    while (n > 0);
    assert_int_equal(n, 0); /* hung up on */
    assert_in_range(draftd_now_ms() - begin, 600, 10000);
    close(pair[1]);
    draftd_rpc_stop(rpc, 0);
    draftd_rpc_destroy(rpc);
}

static void test_rpc__stop_ends_streams_with_a_sentence_and_lets_calls_finish(void **state)
{
    struct fixture *f = *state;
    struct client_call *stream = begin(f, "/test.Test/Later", 1, 0), *call = begin(f, "/test.Test/Wait", 1, 0);
    eventually(&world.opened, 1);
    eventually(&world.inside, 1);
    world.gate = 1;
    draftd_rpc_stop(f->rpc, 5000);
    f->stopped = true;
    assert_int_equal(client_status(stream), GRPC_STATUS_UNAVAILABLE);
    assert_non_null(strstr(stream->message, "draftd is stopping"));
    client_free(stream);
    assert_int_equal(end(call), GRPC_STATUS_OK);
    assert_int_equal(draftd_rpc_live_calls(f->rpc), 0);
}

static void *stop_now(void *rpc)
{
    draftd_rpc_stop(rpc, 100);
    return NULL;
}

static void test_rpc__stop_cancels_calls_after_the_grace(void **state)
{
    struct fixture *f = *state;
    struct client_call *call = begin(f, "/test.Test/Wait", 1, 0);
    eventually(&world.inside, 1);
    pthread_t stopper;
    pthread_create(&stopper, NULL, stop_now, f->rpc);
    assert_int_equal(end(call), GRPC_STATUS_UNAVAILABLE); /* while the handler is still inside */
    world.gate = 1;
    pthread_join(stopper, NULL);
    f->stopped = true;
}

static void test_rpc__exchange_answers_and_ends_with_the_client(void **state)
{
    uint64_t total = 0;
    assert_int_equal(ask(*state, "/test.Test/Sum", 5, &total), GRPC_STATUS_OK);
    assert_int_equal(total, 5);
}

static void *hammer(void *state)
{
    for (int i = 0; i < 200; i++) {
        uint64_t total = 0;
        if (ask(state, "/test.Test/Echo", i, &total) != GRPC_STATUS_OK || total != (uint64_t)i)
            return state;
    }
    return NULL;
}

static void test_rpc__many_clients_at_once_get_their_own_answers(void **state)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, hammer, *state);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rpc__unary_call_is_answered),
        TEST(test_rpc__error_carries_code_sentence_and_details),
        TEST(test_rpc__unknown_method_is_unimplemented),
        TEST(test_rpc__malformed_request_is_invalid_argument),
        TEST(test_rpc__request_beyond_1_MiB_is_refused),
        TEST(test_rpc__reply_beyond_4_MiB_is_an_error_that_says_so),
        TEST(test_rpc__role_that_was_not_granted_is_refused),
        TEST(test_rpc__deadline_reaches_the_handler),
        TEST(test_rpc__stream_comes_whole_and_in_order),
        TEST(test_rpc__client_that_stops_reading_costs_a_bounded_number_of_messages),
        TEST(test_rpc__failed_open_ends_the_stream_with_the_refined_code),
        TEST(test_rpc__wake_delivers_what_comes_later),
        TEST(test_rpc__waking_and_cancelling_at_once_frees_every_stream_once),
        TEST(test_rpc__stream_ends_with_its_error),
        TEST(test_rpc__deadline_ends_an_idle_stream_and_closes_it),
        TEST(test_rpc__waiting_calls_do_not_delay_quick_ones_and_are_limited),
        TEST(test_rpc__a_waiting_handler_learns_that_its_client_has_left),
        TEST(test_rpc__open_calls_are_limited),
        TEST(test_rpc__lost_connection_closes_its_streams),
        TEST(test_rpc__silent_peer_is_dropped),
        TEST(test_rpc__stop_ends_streams_with_a_sentence_and_lets_calls_finish),
        TEST(test_rpc__stop_cancels_calls_after_the_grace),
        TEST(test_rpc__exchange_answers_and_ends_with_the_client),
        TEST(test_rpc__many_clients_at_once_get_their_own_answers),
    };
    draftd_rpc_setup();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    draftd_rpc_teardown();
    return failed;
}
