#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/checksum.h"

static char folder[32], path[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/draft-file-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails when a temporary file was left behind */
}

static void test_atomic_file__replaces_the_old_file_at_once(void **state)
{
    (void)state;
    struct draft_error err = {0};
    char text[16] = "";
    assert_true(draft_atomic_write_file(path, "old", 3, &err));
    struct draft_atomic_file *file = draft_atomic_begin(path, &err);
    draft_atomic_write(file, "ne", 2);
    draft_atomic_write(file, "w!", 2);
    FILE *now = fopen(path, "r");
    assert_int_equal(fread(text, 1, 15, now), 3); /* not yet */
    fclose(now);
    assert_true(draft_atomic_commit(file, &err));
    now = fopen(path, "r");
    assert_int_equal(fread(text, 1, 15, now), 4);
    fclose(now);
    assert_string_equal(text, "new!");
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0600, 0600);
}

static void test_atomic_file__abort_leaves_everything_as_it_was(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_true(draft_atomic_write_file(path, "old", 3, &err));
    struct draft_atomic_file *file = draft_atomic_begin(path, &err);
    draft_atomic_write(file, "new", 3);
    draft_atomic_abort(file);
    draft_atomic_abort(NULL);
    uint64_t bytes;
    char hex[DRAFT_CHECKSUM_SIZE];
    assert_true(draft_checksum_file(path, hex, &bytes, &err));
    assert_int_equal(bytes, 3);
}

static void test_atomic_file__reports_a_disk_that_takes_no_more(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_true(draft_atomic_write_file(path, "old", 3, &err));
    /* A file size limit stands for the full disk: the same short write and failure. */
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    char *big = calloc(1, 1 << 20);
    bool ok = draft_atomic_write_file(path, big, 1 << 20, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    free(big);
    assert_false(ok);
    assert_non_null(strstr(err.message, "cannot write"));
    assert_non_null(strstr(err.message, strerror(EFBIG)));
    uint64_t bytes;
    char hex[DRAFT_CHECKSUM_SIZE];
    err = (struct draft_error){0};
    assert_true(draft_checksum_file(path, hex, &bytes, &err));
    assert_int_equal(bytes, 3);
}

static void test_atomic_file__refuses_a_folder_that_is_not_there(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_false(draft_atomic_write_file("/nonexistent/x", "a", 1, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_atomic_file__replaces_the_old_file_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_atomic_file__abort_leaves_everything_as_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_atomic_file__reports_a_disk_that_takes_no_more, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_atomic_file__refuses_a_folder_that_is_not_there, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
