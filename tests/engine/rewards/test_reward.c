#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "rewards/reward.h"

static void test_reward__finds_kinds_by_name_and_lists_them(void **state)
{
    (void)state;
    int count = 0;
    for (const struct draft_reward_kind *kind; (kind = draft_reward_kind_at(count)) != NULL; count++) {
        assert_ptr_equal(draft_reward_kind_find(kind->name), kind);
        assert_true(kind->open != NULL && kind->score != NULL && kind->close != NULL);
        assert_int_equal(kind->measure != NULL, kind->measure_name != NULL);
    }
    assert_true(count >= 3);
    assert_null(draft_reward_kind_find("nothing"));
    assert_null(draft_reward_kind_at(-1));
}

static void test_reward__parses_kind_path_options_and_weight(void **state)
{
    (void)state;
    static const struct {
        const char *text, *kind, *path, *options;
        double weight;
    } rows[] = {
        {"clip:/models/PickScore_v1", "clip", "/models/PickScore_v1", "", 1},
        {"0.5*clip:/models/clip", "clip", "/models/clip", "", 0.5},
        {"-2e-1*clip:a b,c=d:e*f", "clip", "a b,c=d:e*f", "", -0.2},
        {"clip:0.5*x", "clip", "0.5*x", "", 1}, /* the star belongs to the path */
        {"jpeg", "jpeg", "", "", 1},
        {"jpeg:", "jpeg", "", "", 1},
        {"3*jpeg", "jpeg", "", "", 3},
        {"jpeg:quality=50,mode=incompressibility", "jpeg", "", "quality=50,mode=incompressibility", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_reward_spec spec;
        struct draft_error err = {0};
        if (!draft_reward_spec_parse(rows[i].text, &spec, &err))
            fail_msg("%s: %s", rows[i].text, err.message);
        assert_string_equal(spec.kind, rows[i].kind);
        assert_string_equal(spec.path, rows[i].path);
        assert_string_equal(spec.options, rows[i].options);
        assert_true(spec.weight == rows[i].weight);
    }
}

static void test_reward__refuses_texts_that_are_no_reward(void **state)
{
    (void)state;
    static char long_kind[600], long_path[600], long_options[600];
    memset(long_kind, 'x', sizeof long_kind - 1);
    memset(long_path, 'x', sizeof long_path - 1);
    memcpy(long_path, "clip:", 5);
    memset(long_options, 'x', sizeof long_options - 1);
    memcpy(long_options, "jpeg:", 5);
    const struct {
        const char *text, *words;
    } rows[] = {
        {"", "there is no reward \"\"; known are clip, pickscore, "},
        {"beauty", "there is no reward \"beauty\""},
        {":/path", "there is no reward \"\""},
        {"clip", "the reward clip needs a folder: clip:PATH"},
        {"clip:", "the reward clip needs a folder"},
        {"x*clip:/p", "the weight before '*'"},
        {"*clip:/p", "the weight before '*'"},
        {"nan*clip:/p", "the weight before '*'"},
        {"1e999*clip:/p", "the weight before '*'"},
        {"1 *clip:/p", "the weight before '*'"},
        {long_kind, "there is no reward"},
        {long_path, "the path of the reward clip is longer than 511 bytes"},
        {long_options, "the option list of the reward jpeg is longer than 127 bytes"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_reward_spec spec;
        struct draft_error err = {0};
        assert_false(draft_reward_spec_parse(rows[i].text, &spec, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        if (strstr(err.message, rows[i].words) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.message, rows[i].words);
    }
}

static void test_reward__kinds_refuse_options_they_do_not_know(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"jpeg:quality=0", "quality is \"0\", expected an integer from 1 to 100"},
        {"jpeg:quality=101", "from 1 to 100"},
        {"jpeg:quality=9999999999999999999999", "from 1 to 100"},
        {"jpeg:quality=", "quality is \"\""},
        {"jpeg:quality=5x", "quality is \"5x\""},
        {"jpeg:mode=small", "mode=small is not understood"},
        {"jpeg:size=3", "size=3 is not understood"},
        {"jpeg:quality", "\"quality\" is not an option of a reward, expected key=value"},
        {"jpeg:quality=50,", "\"\" is not an option"},
        {"jpeg:=5", "expected key=value"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_reward_spec spec;
        struct draft_error err = {0};
        assert_true(draft_reward_spec_parse(rows[i].text, &spec, &err));
        assert_null(draft_reward_kind_find("jpeg")->open(&spec, NULL, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        if (strstr(err.message, rows[i].words) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.message, rows[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reward__finds_kinds_by_name_and_lists_them),
        cmocka_unit_test(test_reward__parses_kind_path_options_and_weight),
        cmocka_unit_test(test_reward__refuses_texts_that_are_no_reward),
        cmocka_unit_test(test_reward__kinds_refuse_options_they_do_not_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
