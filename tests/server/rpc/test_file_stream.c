/* Files going out in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/file_stream.h"

static char path[64];

static void write_file(size_t size)
{
    strcpy(path, "/tmp/draftd-stream-XXXXXX");
    int fd = mkstemp(path);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(write(fd, &(char){(char)(i * 7 + i / 251)}, 1), 1);
    close(fd);
}

static void test_file_stream__pieces_add_up_to_the_file_even_when_it_is_deleted(void **state)
{
    (void)state;
    const size_t size = 2 * DRAFTD_PIECE + 17;
    write_file(size);
    struct draft_error err = {0};
    struct draftd_file_stream *stream = draftd_file_stream_open(path, &err);
    assert_non_null(stream);
    unlink(path);
    assert_int_equal(draftd_file_stream_total(stream), size);
    size_t at = 0;
    for (bool end = false; !end;) {
        ProtobufCBinaryData piece;
        assert_true(draftd_file_stream_next(stream, &piece, &end, &err));
        assert_true(piece.len <= DRAFTD_PIECE);
        for (size_t i = 0; i < piece.len; i++, at++)
            assert_int_equal(piece.data[i], (uint8_t)(at * 7 + at / 251));
        free(piece.data);
    }
    assert_int_equal(at, size);
    draftd_file_stream_close(stream);
}

static void test_file_stream__empty_file_is_one_empty_piece(void **state)
{
    (void)state;
    write_file(0);
    struct draft_error err = {0};
    struct draftd_file_stream *stream = draftd_file_stream_open(path, &err);
    ProtobufCBinaryData piece;
    bool end = false;
    assert_true(draftd_file_stream_next(stream, &piece, &end, &err));
    assert_true(end);
    assert_int_equal(piece.len, 0);
    draftd_file_stream_close(stream);
    unlink(path);
}

static void test_file_stream__file_cut_short_is_an_error(void **state)
{
    (void)state;
    write_file(DRAFTD_PIECE + 100);
    struct draft_error err = {0};
    struct draftd_file_stream *stream = draftd_file_stream_open(path, &err);
    assert_int_equal(truncate(path, DRAFTD_PIECE / 2), 0);
    ProtobufCBinaryData piece;
    bool end = false;
    assert_false(draftd_file_stream_next(stream, &piece, &end, &err));
    assert_int_equal(err.code, DRAFT_DATA_LOSS);
    free(piece.data);
    draftd_file_stream_close(stream);
    unlink(path);
}

static void test_file_stream__links_pipes_and_folders_are_refused(void **state)
{
    (void)state;
    write_file(1);
    char other[80];
    snprintf(other, sizeof other, "%s.x", path);
    struct draft_error err = {0};
    assert_int_equal(symlink(path, other), 0);
    assert_null(draftd_file_stream_open(other, &err));
    unlink(other);
    assert_int_equal(mkfifo(other, 0600), 0);
    err = (struct draft_error){0};
    assert_null(draftd_file_stream_open(other, &err)); /* and does not wait for a writer */
    unlink(other);
    err = (struct draft_error){0};
    assert_null(draftd_file_stream_open("/tmp", &err));
    unlink(path);
    err = (struct draft_error){0};
    assert_null(draftd_file_stream_open(path, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_stream__pieces_add_up_to_the_file_even_when_it_is_deleted),
        cmocka_unit_test(test_file_stream__empty_file_is_one_empty_piece),
        cmocka_unit_test(test_file_stream__file_cut_short_is_an_error),
        cmocka_unit_test(test_file_stream__links_pipes_and_folders_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
