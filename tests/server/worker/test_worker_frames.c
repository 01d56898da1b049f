/* Frames over a socket pair: what is sent arrives; what is hostile is refused before memory is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/frames.h"

static int end[2]; /* we write raw bytes into end[0]; the code under test reads end[1] */

static int setup(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_STREAM, 0, end);
}

static int teardown(void **state)
{
    (void)state;
    close(end[0]);
    close(end[1]);
    return 0;
}

static void raw(const void *data, size_t size)
{
    assert_int_equal(write(end[0], data, size), (ssize_t)size);
}

static void assert_refused(enum draft_code code)
{
    struct draft_error err = {0};
    uint8_t *data;
    size_t size;
    assert_int_equal(draftd_frame_read(end[1], &data, &size, &err), DRAFTD_FRAME_FAILED);
    assert_int_equal(err.code, code);
    assert_null(data);
}

struct sent {
    uint8_t *data;
    size_t size;
};

static void *send_frame(void *context)
{
    struct sent *sent = context;
    struct draft_error err = {0};
    assert_true(draftd_frame_write(end[0], sent->data, sent->size, &err));
    return NULL;
}

static void test_worker_frames__what_is_sent_arrives(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 255, 65536, DRAFTD_FRAME_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct sent sent = {malloc(sizes[i] + 1), sizes[i]};
        for (size_t k = 0; k < sizes[i]; k++)
            sent.data[k] = (uint8_t)(k * 31 + i);
        pthread_t thread; /* larger than the socket's buffer: needs a reader while it writes */
        pthread_create(&thread, NULL, send_frame, &sent);
        struct draft_error err = {0};
        uint8_t *data;
        size_t size;
        assert_int_equal(draftd_frame_read(end[1], &data, &size, &err), DRAFTD_FRAME_OK);
        pthread_join(thread, NULL);
        assert_int_equal(size, sizes[i]);
        assert_memory_equal(data, sent.data, size);
        free(data);
        free(sent.data);
    }
}

static void test_worker_frames__an_end_between_frames_is_no_failure(void **state)
{
    (void)state;
    struct draft_error err = {0};
    uint8_t *data;
    size_t size;
    shutdown(end[0], SHUT_WR);
    assert_int_equal(draftd_frame_read(end[1], &data, &size, &err), DRAFTD_FRAME_END);
    assert_int_equal(err.code, DRAFT_OK);
}

/* Linux then says ECONNRESET where it otherwise says end: a worker whose daemon died may have reports under way. */
static void test_worker_frames__a_peer_that_ends_with_frames_unread_is_an_end_too(void **state)
{
    (void)state;
    uint8_t *data;
    size_t size;
    struct draft_error err = {0};
    assert_true(draftd_frame_write(end[1], (const uint8_t *)"x", 1, &err));
    close(end[0]);
    end[0] = -1;
    assert_int_equal(draftd_frame_read(end[1], &data, &size, &err), DRAFTD_FRAME_END);
}

static void test_worker_frames__a_frame_cut_short_is_a_failure(void **state)
{
    (void)state;
    raw("\x05\x00", 2);
    shutdown(end[0], SHUT_WR);
    assert_refused(DRAFT_IO);
    teardown(NULL);
    setup(NULL);
    raw("\x05\x00\x00\x00"
        "abc",
        7);
    shutdown(end[0], SHUT_WR);
    assert_refused(DRAFT_IO);
}

static void test_worker_frames__an_oversized_length_is_refused_at_once(void **state)
{
    (void)state;
    raw("\xff\xff\xff\xff", 4);
    assert_refused(DRAFT_INVALID_ARGUMENT);
    raw("\x01\x00\x00\x01", 4); /* one above the limit */
    assert_refused(DRAFT_INVALID_ARGUMENT);
}

static void test_worker_frames__the_writer_keeps_to_the_limit(void **state)
{
    (void)state;
    struct draft_error err = {0};
    uint8_t *data = calloc(1, DRAFTD_FRAME_MAX + 1);
    assert_false(draftd_frame_write(end[0], data, DRAFTD_FRAME_MAX + 1, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    free(data);
}

static void test_worker_frames__a_peer_that_is_gone_is_an_error_not_a_signal(void **state)
{
    (void)state;
    struct draft_error err = {0};
    close(end[1]);
    end[1] = -1;
    assert_false(draftd_frame_write(end[0], (const uint8_t *)"x", 1, &err));
    assert_int_equal(err.code, DRAFT_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_worker_frames__what_is_sent_arrives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_worker_frames__an_end_between_frames_is_no_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_worker_frames__a_peer_that_ends_with_frames_unread_is_an_end_too, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_worker_frames__a_frame_cut_short_is_a_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_worker_frames__an_oversized_length_is_refused_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_worker_frames__the_writer_keeps_to_the_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_worker_frames__a_peer_that_is_gone_is_an_error_not_a_signal, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
