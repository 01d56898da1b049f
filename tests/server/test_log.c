/* The log: whole lines, values quoted, JSON that a parser takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

/* What a call writes to stderr. */
static void capture(char *out, size_t size, enum draftd_log_level level, const char *about, const char *message)
{
    int ends[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    draftd_log(level, about, "%s", message);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    ssize_t n = read(ends[0], out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    close(ends[0]);
}

static void test_log__logfmt_quotes_what_it_says(void **state)
{
    (void)state;
    char line[8192];
    draftd_log_setup(false, false);
    capture(line, sizeof line, DRAFTD_INFO, "job-3", "a \"word\"\nand a line");
    assert_non_null(strstr(line, "level=info job=job-3 msg=\"a \\\"word\\\"\\nand a line\"\n"));
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    capture(line, sizeof line, DRAFTD_DEBUG, NULL, "a prompt");
    assert_string_equal(line, ""); /* only with verbose */
}

static void test_log__json_lines_are_json(void **state)
{
    (void)state;
    char line[8192], message[3000];
    memset(message, 'x', sizeof message);
    message[sizeof message - 1] = '\0';
    memcpy(message, "\x01\x7f\"\\ ä", 7);
    draftd_log_setup(true, true);
    capture(line, sizeof line, DRAFTD_DEBUG, "job-3", message);
    json_error_t why;
    json_t *json = json_loads(line, 0, &why);
    if (json == NULL)
        fail_msg("%s: %s", why.text, line);
    assert_string_equal(json_string_value(json_object_get(json, "job")), "job-3");
    assert_string_equal(json_string_value(json_object_get(json, "level")), "debug");
    assert_memory_equal(json_string_value(json_object_get(json, "msg")), message, 100);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log__logfmt_quotes_what_it_says),
        cmocka_unit_test(test_log__json_lines_are_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
