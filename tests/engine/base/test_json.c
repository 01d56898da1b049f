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

#include "base/json.h"

static struct draft_json *parse(const char *text)
{
    struct draft_error err = {0};
    struct draft_json *json = draft_json_parse(text, strlen(text), "config.json", &err);
    if (json == NULL)
        fail_msg("%s", err.message);
    return json;
}

static void test_json__absent_and_null_keys_give_the_default(void **state)
{
    (void)state;
    struct draft_json *json = parse("{\"a\": null}");
    int64_t number;
    double real;
    bool flag;
    const char *string;
    for (int i = 0; i < 2; i++) {
        const char *key = i == 0 ? "a" : "b";
        assert_false(draft_json_has(json, key));
        assert_true(draft_json_int(json, key, 0, 10, 5, &number, NULL));
        assert_true(draft_json_double(json, key, 0.5, &real, NULL));
        assert_true(draft_json_bool(json, key, true, &flag, NULL));
        assert_true(draft_json_string(json, key, "x", &string, NULL));
        assert_null(draft_json_child(json, key, NULL));
        assert_int_equal(number, 5);
        assert_true(real == 0.5 && flag);
        assert_string_equal(string, "x");
    }
    assert_true(draft_json_null(json, "a"));
    assert_false(draft_json_null(json, "b"));
    draft_json_close(json);
}

static void test_json__reads_values(void **state)
{
    (void)state;
    struct draft_json *json =
        parse("{\"i\": -3, \"d\": 1e-5, \"w\": 2, \"b\": false, \"s\": \"silu\", \"n\": [1, 2, 3], \"one\": 8,"
              " \"t\": [\"x\", \"y\"], \"r\": [0.5, 1], \"c\": {\"k\": 7}}");
    int64_t number, numbers[3];
    double real, reals[2];
    bool flag;
    const char *string, *strings[2];
    int count;
    assert_true(draft_json_int(json, "i", -10, 10, 0, &number, NULL) && number == -3);
    assert_true(draft_json_double(json, "d", 0, &real, NULL) && real == 1e-5);
    assert_true(draft_json_double(json, "w", 0, &real, NULL) && real == 2);
    assert_true(draft_json_bool(json, "b", true, &flag, NULL) && !flag);
    assert_true(draft_json_string(json, "s", NULL, &string, NULL));
    assert_string_equal(string, "silu");
    assert_true(draft_json_ints(json, "n", 0, 9, numbers, 3, &count, NULL) && count == 3 && numbers[2] == 3);
    assert_true(draft_json_ints(json, "one", 0, 9, numbers, 3, &count, NULL) && count == -1 && numbers[0] == 8);
    assert_true(draft_json_ints(json, "absent", 0, 9, numbers, 3, &count, NULL) && count == 0);
    assert_true(draft_json_strings(json, "t", strings, 2, &count, NULL) && count == 2);
    assert_string_equal(strings[1], "y");
    assert_true(draft_json_doubles(json, "r", reals, 2, &count, NULL) && count == 2 && reals[1] == 1);
    struct draft_json *child = draft_json_child(json, "c", NULL);
    assert_true(draft_json_int(child, "k", 0, 9, 0, &number, NULL) && number == 7);
    assert_true(draft_json_finish(json, NULL));
    assert_true(draft_json_finish(child, NULL));
    draft_json_close(json);
}

static void refused(bool ok, struct draft_error *err, const char *words)
{
    assert_false(ok);
    assert_int_equal(err->code, DRAFT_INVALID_ARGUMENT);
    if (strstr(err->message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err->message, words);
    *err = (struct draft_error){0};
}

static void test_json__names_file_key_expected_and_found(void **state)
{
    (void)state;
    struct draft_json *json =
        parse("{\"i\": \"three\", \"big\": 11, \"r\": 1.5, \"b\": 1, \"n\": [1, \"x\"], \"l\": [1, 2, 3],"
              " \"s\": {}, \"c\": {\"k\": true}}");
    struct draft_error err = {0};
    int64_t number = 0, numbers[2];
    double real;
    bool flag;
    const char *string;
    int count;
    refused(draft_json_int(json, "i", 0, 9, 0, &number, &err), &err,
            "config.json: \"i\" is \"three\", expected an integer from 0 to 9");
    refused(draft_json_int(json, "big", 0, 9, 0, &number, &err), &err,
            "\"big\" is 11, expected an integer from 0 to 9");
    refused(draft_json_int(json, "r", 0, 9, 0, &number, &err), &err, "\"r\" is 1.5");
    refused(draft_json_bool(json, "b", false, &flag, &err), &err, "\"b\" is 1, expected true or false");
    refused(draft_json_double(json, "i", 0, &real, &err), &err, "expected a number");
    refused(draft_json_string(json, "b", NULL, &string, &err), &err, "expected a string");
    refused(draft_json_ints(json, "n", 0, 9, numbers, 2, &count, &err), &err,
            "expected each to be an integer from 0 to 9");
    refused(draft_json_ints(json, "l", 0, 9, numbers, 2, &count, &err), &err,
            "expected an array of at most 2 integers");
    refused(draft_json_ints(json, "s", 0, 9, numbers, 2, &count, &err), &err, "\"s\" is {}");
    assert_null(draft_json_child(json, "i", &err));
    refused(false, &err, "expected an object");
    refused(draft_json_int(draft_json_child(json, "c", NULL), "k", 0, 9, 0, &number, &err), &err,
            "config.json: c: \"k\" is true");
    draft_json_close(json);
}

static void test_json__require_refuses_what_would_change_the_result(void **state)
{
    (void)state;
    struct draft_json *json =
        parse("{\"dropout\": 0, \"act\": \"silu\", \"x\": null, \"skip\": [1, 1.0], \"bad\": 0.1}");
    struct draft_error err = {0};
    assert_true(draft_json_require(json, "dropout", "0.0", &err));
    assert_true(draft_json_require(json, "act", "\"silu\"", &err));
    assert_true(draft_json_require(json, "x", "\"anything\"", &err));
    assert_true(draft_json_require(json, "absent", "false", &err));
    assert_true(draft_json_require(json, "skip", "[1, 1]", &err));
    refused(draft_json_require(json, "skip", "[1]", &err), &err, "implements only [1]");
    refused(draft_json_require(json, "bad", "0.0", &err), &err, "\"bad\" is 0.1, this engine implements only 0.0");
    refused(draft_json_require(json, "act", "null", &err), &err, "\"act\" is \"silu\"");
    draft_json_close(json);
}

static void test_json__finish_refuses_keys_nobody_understood(void **state)
{
    (void)state;
    static const char *const inert[] = {"_class_name", NULL};
    struct draft_json *json =
        parse("{\"_class_name\": \"X\", \"read\": 1, \"required\": 0, \"new_thing\": {\"deep\": [1]}}");
    struct draft_error err = {0};
    int64_t number;
    draft_json_ignore(json, inert);
    assert_true(draft_json_int(json, "read", 0, 9, 0, &number, &err));
    assert_true(draft_json_require(json, "required", "0", &err));
    refused(draft_json_finish(json, &err), &err, "the key \"new_thing\" ({\"deep\":[1]}) is not understood");
    assert_non_null(draft_json_child(json, "new_thing", &err));
    assert_ptr_equal(draft_json_child(json, "new_thing", &err), draft_json_child(json, "new_thing", &err));
    assert_true(draft_json_finish(json, &err));
    refused(draft_json_finish(draft_json_child(json, "new_thing", &err), &err), &err, "\"deep\"");
    draft_json_close(json);
}

static bool sum(void *context, const char *key, size_t length, int64_t value)
{
    assert_int_equal(strlen(key), length);
    *(int64_t *)context += value;
    return true;
}

static void test_json__visits_a_vocabulary(void **state)
{
    (void)state;
    struct draft_error err = {0};
    int64_t total = 0;
    struct draft_json *json = parse("{\"a</w>\": 3, \"\\u0120b\": 4}");
    assert_int_equal(draft_json_size(json), 2);
    assert_true(draft_json_each(json, &total, sum, 0, 10, &err));
    assert_int_equal(total, 7);
    refused(draft_json_each(json, &total, sum, 0, 3, &err), &err, "is 4, expected an integer from 0 to 3");
    draft_json_close(json);
}

static void test_json__reads_transformers_number_for_no_limit(void **state)
{
    (void)state;
    struct draft_json *json = parse("{\"model_max_length\": 1000000000000000019884624838656, \"n\": 77}");
    double real;
    int64_t number;
    struct draft_error err = {0};
    assert_true(draft_json_double(json, "model_max_length", 0, &real, &err) && real == 1e30);
    assert_true(draft_json_int(json, "n", 0, 100, 0, &number, &err) && number == 77);
    refused(draft_json_int(json, "model_max_length", 0, INT64_MAX, 0, &number, &err), &err, "1e30");
    draft_json_close(json);
}

static void test_json__refuses_hostile_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
    } rows[] = {
#define ROW(s) {s, sizeof s - 1}
        ROW(""),
        ROW("["),
        ROW("[1, 2]"),
        ROW("7"),
        ROW("{\"a\": 1} trailing"),
        ROW("{\"a\": 1, \"a\": 2}"),
        ROW("{\"a\": 1e999}"),
        ROW("{\"\xff\": 1}"),
        ROW("{\"a\": \"\xc0\xaf\"}"),
        ROW("{\"a\": \"\\ud800\"}"),
        ROW("{\"a\": \"x\\u0000y\"}"),
        ROW("{\"a\": \"x\0y\"}"),
        ROW("\0\0\0\0"),
        ROW("{\"a\": 01}"),
        ROW("{'a': 1}"),
        ROW("\xEF\xBB\xBF{}"),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_error err = {0};
        if (draft_json_parse(rows[i].text, rows[i].length, "config.json", &err) != NULL)
            fail_msg("row %zu was accepted", i);
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "config.json"));
    }
}

static void test_json__refuses_deep_nesting_without_running_out_of_stack(void **state)
{
    (void)state;
    enum { DEPTH = 1000000 };
    char *text = malloc(2 * DEPTH + 16);
    struct draft_error err = {0};
    strcpy(text, "{\"a\":");
    memset(text + 5, '[', DEPTH);
    memset(text + 5 + DEPTH, ']', DEPTH);
    strcpy(text + 5 + 2 * DEPTH, "}");
    assert_null(draft_json_parse(text, strlen(text), "config.json", &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    free(text);
}

static void test_json__refuses_what_is_no_small_regular_file(void **state)
{
    (void)state;
    char folder[] = "/tmp/draft-json-XXXXXX", path[64];
    struct draft_error err = {0};
    assert_non_null(mkdtemp(folder));
    assert_null(draft_json_open(folder, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);

    err = (struct draft_error){0};
    snprintf(path, sizeof path, "%s/fifo", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_null(draft_json_open(path, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    unlink(path);

    err = (struct draft_error){0};
    snprintf(path, sizeof path, "%s/huge", folder);
    FILE *file = fopen(path, "w");
    assert_int_equal(ftruncate(fileno(file), (16 << 20) + 1), 0);
    fclose(file);
    assert_null(draft_json_open(path, &err));
    assert_non_null(strstr(err.message, "at most 16777216"));
    unlink(path);

    err = (struct draft_error){0};
    assert_null(draft_json_open(path, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    rmdir(folder);
}

static void test_json__reads_the_demo_models_configs(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_json *json = draft_json_open(DEMO "/emoji-sd/unet/config.json", &err);
    assert_non_null(json);
    assert_true(draft_json_has(json, "block_out_channels"));
    draft_json_close(json);
}

static void test_json__reads_pythons_numbers_that_json_does_not_have_as_strings(void **state)
{
    (void)state;
    static const char text[] = "{\"a\": -Infinity, \"b\": [Infinity, NaN], \"c\": \"NaN \\\" -Infinity\", \"d\": 1, "
                               "\"e\": 1000000000000000019884624838656}";
    struct draft_error err = {0};
    const char *value, *list[2];
    double number;
    int64_t whole;
    int count;
    struct draft_json *json = draft_json_parse(text, strlen(text), "s.json", &err);
    if (json == NULL)
        fail_msg("%s", err.message);
    assert_true(draft_json_string(json, "a", NULL, &value, &err));
    assert_string_equal(value, "-Infinity");
    assert_true(draft_json_strings(json, "b", list, 2, &count, &err));
    assert_string_equal(list[0], "Infinity");
    assert_string_equal(list[1], "NaN");
    assert_true(draft_json_string(json, "c", NULL, &value, &err));
    assert_string_equal(value, "NaN \" -Infinity");
    assert_true(draft_json_int(json, "d", 0, 9, 0, &whole, &err));
    assert_false(draft_json_double(json, "a", 0, &number, &err));
    assert_string_equal(err.message, "s.json: \"a\" is \"-Infinity\", expected a number");
    draft_json_close(json);

    static const char *const broken[] = {"{\"a\": -Infinit}", "{\"a\": xNaN}", "{\"a\": NaN NaN}", "{\"a\": NaN",
                                         "{\"a\": \"NaN}"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        err = (struct draft_error){0};
        assert_null(draft_json_parse(broken[i], strlen(broken[i]), "s.json", &err));
        assert_non_null(strstr(err.message, "s.json is not JSON: line 1"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json__absent_and_null_keys_give_the_default),
        cmocka_unit_test(test_json__reads_values),
        cmocka_unit_test(test_json__names_file_key_expected_and_found),
        cmocka_unit_test(test_json__require_refuses_what_would_change_the_result),
        cmocka_unit_test(test_json__finish_refuses_keys_nobody_understood),
        cmocka_unit_test(test_json__visits_a_vocabulary),
        cmocka_unit_test(test_json__reads_transformers_number_for_no_limit),
        cmocka_unit_test(test_json__reads_pythons_numbers_that_json_does_not_have_as_strings),
        cmocka_unit_test(test_json__refuses_hostile_text),
        cmocka_unit_test(test_json__refuses_deep_nesting_without_running_out_of_stack),
        cmocka_unit_test(test_json__refuses_what_is_no_small_regular_file),
        cmocka_unit_test(test_json__reads_the_demo_models_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
