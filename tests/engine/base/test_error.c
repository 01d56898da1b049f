#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"

static void test_error__keeps_the_first_failure(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_false(draft_fail(&err, DRAFT_INVALID_ARGUMENT, "%s has %d legs", "a lion", 4));
    assert_false(draft_fail_field(&err, DRAFT_INTERNAL, "spec.model", "something else"));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_string_equal(err.message, "a lion has 4 legs");
    assert_string_equal(err.field, "");
}

static void test_error__names_the_field(void **state)
{
    (void)state;
    struct draft_error err = {0};
    draft_fail_field(&err, DRAFT_INVALID_ARGUMENT, "spec.optimizer.lr", "too large");
    assert_string_equal(err.field, "spec.optimizer.lr");
}

static void test_error__takes_no_error_value_too(void **state)
{
    (void)state;
    assert_false(draft_fail(NULL, DRAFT_IO, "nobody listens"));
    assert_false(draft_fail_errno(NULL, "nobody listens"));
    draft_error_prefix(NULL, "nobody");
}

static void test_error__prefixes_only_what_is_set(void **state)
{
    (void)state;
    struct draft_error err = {0};
    draft_error_prefix(&err, "step %d: ", 3);
    assert_string_equal(err.message, "");
    draft_fail(&err, DRAFT_NON_FINITE, "the loss is NaN");
    draft_error_prefix(&err, "step %d: ", 3);
    assert_string_equal(err.message, "step 3: the loss is NaN");
}

static void test_error__tells_a_full_disk_from_other_failures(void **state)
{
    (void)state;
    const struct {
        int number;
        enum draft_code code;
    } rows[] = {{ENOSPC, DRAFT_DISK_FULL}, {EDQUOT, DRAFT_DISK_FULL}, {ENOENT, DRAFT_NOT_FOUND}, {EIO, DRAFT_IO}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_error err = {0};
        errno = rows[i].number;
        draft_fail_errno(&err, "cannot write %s", "x");
        assert_int_equal(err.code, rows[i].code);
        assert_non_null(strstr(err.message, strerror(rows[i].number)));
        assert_int_equal(strncmp(err.message, "cannot write x: ", 16), 0);
    }
}

static void test_error__cuts_a_long_message_between_characters(void **state)
{
    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        char text[3000] = "";
        memset(text, 'a', shift);
        for (size_t i = shift; i + 5 < sizeof text; i += 4)
            memcpy(text + i, "\xF0\x9F\xA6\x81", 5);
        struct draft_error err = {0};
        draft_fail(&err, DRAFT_INTERNAL, "%s", text);
        assert_true(strlen(err.message) > 1000);
        assert_true(draft_utf8_valid(err.message, strlen(err.message), NULL));
        draft_error_prefix(&err, "before: ");
        assert_true(draft_utf8_valid(err.message, strlen(err.message), NULL));
    }
}

static void test_error__blames_the_field_that_nobody_named_yet(void **state)
{
    (void)state;
    struct draft_error err = {0};
    draft_fail(&err, DRAFT_NOT_FOUND, "no such file");
    assert_false(draft_error_blame(&err, "spec.model"));
    assert_false(draft_error_blame(&err, "spec.unet"));
    assert_string_equal(err.field, "spec.model");

    struct draft_error machine = {0};
    draft_fail(&machine, DRAFT_OUT_OF_MEMORY, "no memory");
    draft_error_blame(&machine, "spec.model");
    draft_error_blame(NULL, "spec.model");
    assert_string_equal(machine.field, "");
}

static void test_error__has_a_name_for_every_code(void **state)
{
    (void)state;
    for (int code = DRAFT_OK; code <= DRAFT_DEVICE_LOST; code++)
        assert_true(strlen(draft_code_name((enum draft_code)code)) > 1);
    assert_string_equal(draft_code_name((enum draft_code)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error__keeps_the_first_failure),
        cmocka_unit_test(test_error__names_the_field),
        cmocka_unit_test(test_error__takes_no_error_value_too),
        cmocka_unit_test(test_error__blames_the_field_that_nobody_named_yet),
        cmocka_unit_test(test_error__prefixes_only_what_is_set),
        cmocka_unit_test(test_error__tells_a_full_disk_from_other_failures),
        cmocka_unit_test(test_error__cuts_a_long_message_between_characters),
        cmocka_unit_test(test_error__has_a_name_for_every_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
