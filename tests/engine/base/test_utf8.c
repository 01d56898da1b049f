#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/utf8.h"

static void test_utf8__accepts_every_kind_of_character(void **state)
{
    (void)state;
    const char *text =
        "a\x7f\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF";
    assert_true(draft_utf8_valid(text, strlen(text), NULL));
    assert_true(draft_utf8_valid("", 0, NULL));
}

static void test_utf8__refuses_what_rfc_3629_forbids_and_says_where(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
    } rows[] = {
#define ROW(s) {s, sizeof s - 1}
        ROW("ab\x80"),             /* a continuation alone */
        ROW("ab\xC0\xAF"),         /* overlong */
        ROW("ab\xC1\xBF"),         /* overlong */
        ROW("ab\xE0\x9F\xBF"),     /* overlong */
        ROW("ab\xF0\x8F\xBF\xBF"), /* overlong */
        ROW("ab\xED\xA0\x80"),     /* surrogate */
        ROW("ab\xF4\x90\x80\x80"), /* above U+10FFFF */
        ROW("ab\xF5\x80\x80\x80"),
        ROW("ab\xC3"), /* cut */
        ROW("ab\xE2\x82"),
        ROW("ab\xF0\x9F\xA6"),
        ROW("ab\xE2\x28\xA1"),
        ROW("ab\xFF"),
        ROW("ab\0c"),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t bad = 99;
        if (draft_utf8_valid(rows[i].text, rows[i].length, &bad))
            fail_msg("row %zu was accepted", i);
        assert_int_equal(bad, 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8__accepts_every_kind_of_character),
        cmocka_unit_test(test_utf8__refuses_what_rfc_3629_forbids_and_says_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
