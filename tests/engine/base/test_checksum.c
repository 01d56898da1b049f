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

#include "base/atomic_file.h"
#include "base/checksum.h"

/* The published value of nothing; the other was printed by libxxhash 0.8.1 and must never change: it is in databases.
 */
static void test_checksum__gives_xxh3_128_in_hex(void **state)
{
    (void)state;
    char hex[DRAFT_CHECKSUM_SIZE];
    draft_checksum_buffer("", 0, hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    draft_checksum_buffer("draftd", 6, hex);
    assert_string_equal(hex, "ecf588134dd399cd2a585f28112ac25a");
}

static void test_checksum__of_a_file_is_that_of_its_bytes(void **state)
{
    (void)state;
    enum { N = 3000001 };
    char path[] = "/tmp/draft-sum-XXXXXX", whole[DRAFT_CHECKSUM_SIZE], file[DRAFT_CHECKSUM_SIZE],
         pieces[DRAFT_CHECKSUM_SIZE];
    struct draft_error err = {0};
    unsigned char *data = malloc(N);
    for (int i = 0; i < N; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    close(mkstemp(path));
    assert_true(draft_atomic_write_file(path, data, N, &err));
    uint64_t bytes = 0;
    draft_checksum_buffer(data, N, whole);
    assert_true(draft_checksum_file(path, file, &bytes, &err));
    struct draft_checksum *sum = draft_checksum_start();
    for (int i = 0; i < N; i += 70001)
        draft_checksum_add(sum, data + i, (size_t)(N - i < 70001 ? N - i : 70001));
    draft_checksum_finish(sum, pieces);
    unlink(path);
    free(data);
    assert_int_equal(bytes, N);
    assert_string_equal(file, whole);
    assert_string_equal(pieces, whole);
}

static void test_checksum__refuses_what_is_no_file(void **state)
{
    (void)state;
    struct draft_error err = {0};
    char hex[DRAFT_CHECKSUM_SIZE];
    assert_false(draft_checksum_file("/tmp", hex, NULL, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    err = (struct draft_error){0};
    assert_false(draft_checksum_file("/nonexistent", hex, NULL, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum__gives_xxh3_128_in_hex),
        cmocka_unit_test(test_checksum__of_a_file_is_that_of_its_bytes),
        cmocka_unit_test(test_checksum__refuses_what_is_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
