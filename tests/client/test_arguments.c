#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arguments.h"
#include "command.h"

static const struct draft_option options[] = {
    {.name = "", .help = "Title"},
    {.name = "steps", .letter = 'n', .value = DRAFT_VALUE_INT, .metavar = "N", .help = "how many"},
    {.name = "rate", .value = DRAFT_VALUE_DOUBLE, .metavar = "X", .help = "how fast"},
    {.name = "size", .value = DRAFT_VALUE_SIZE, .metavar = "HxW", .help = "how big"},
    {.name = "name", .value = DRAFT_VALUE_STRING, .metavar = "TEXT", .help = "called", .repeat = true},
    {.name = "watch", .letter = 'w', .help = "look"},
    {.name = NULL},
};
static const struct draft_option *const tables[] = {options, NULL};

static bool parse(struct draft_arguments *out, struct draft_error *err, int count, ...)
{
    char *words[16];
    va_list args;
    va_start(args, count);
    for (int i = 0; i < count; i++)
        words[i] = va_arg(args, char *);
    va_end(args);
    *err = (struct draft_error){0};
    return draft_arguments_parse(tables, count, words, out, err);
}

static void test_arguments__all_forms_of_an_option_are_read(void **state)
{
    static struct draft_arguments a;
    struct draft_error err;
    (void)state;
    assert_true(parse(&a, &err, 8, "job-1", "--steps", "12", "--rate=2.5", "-w", "--name", "--odd", "job-2"));
    assert_int_equal(draft_arguments_int(&a, "steps", 0), 12);
    assert_true(draft_arguments_double(&a, "rate", 0) == 2.5);
    assert_true(draft_arguments_has(&a, "watch"));
    assert_string_equal(draft_arguments_string(&a, "name", ""), "--odd");
    assert_int_equal(a.operand_count, 2);
    assert_string_equal(a.operands[1], "job-2");
    assert_true(parse(&a, &err, 1, "-n7"));
    assert_int_equal(draft_arguments_int(&a, "steps", 0), 7);
    assert_true(parse(&a, &err, 2, "-n", "-7"));
    assert_int_equal(draft_arguments_int(&a, "steps", 0), -7);
}

static void test_arguments__two_dashes_end_the_options(void **state)
{
    static struct draft_arguments a;
    struct draft_error err;
    (void)state;
    assert_true(parse(&a, &err, 3, "--", "--steps", "-w"));
    assert_int_equal(a.count, 0);
    assert_int_equal(a.operand_count, 2);
}

static void test_arguments__a_misspelt_option_is_suggested(void **state)
{
    static struct draft_arguments a;
    struct draft_error err;
    (void)state;
    assert_false(parse(&a, &err, 2, "--setps", "3"));
    assert_string_equal(err.message, "unknown option --setps; did you mean --steps?");
    assert_false(parse(&a, &err, 1, "--zzzzzz"));
    assert_string_equal(err.message, "unknown option --zzzzzz");
}

static void test_arguments__wrong_values_are_refused_with_the_flag_named(void **state)
{
    static struct draft_arguments a;
    struct draft_error err;
    static const char *const bad[][2] = {{"--steps", "1.5"}, {"--steps", ""},     {"--steps", "9223372036854775808"},
                                         {"--rate", "nan"},  {"--rate", "1e999"}, {"--rate", "1x"},
                                         {"--size", "64"},   {"--size", "0x64"},  {"--size", "64x64x64"}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(parse(&a, &err, 2, bad[i][0], bad[i][1]));
        assert_non_null(strstr(err.message, bad[i][0]));
        assert_non_null(strstr(err.message, "expected"));
    }
    assert_false(parse(&a, &err, 1, "--steps"));
    assert_string_equal(err.message, "--steps needs a value: N");
    assert_false(parse(&a, &err, 1, "--watch=yes"));
    assert_string_equal(err.message, "--watch takes no value");
    assert_false(parse(&a, &err, 4, "--steps", "1", "--steps", "2"));
    assert_string_equal(err.message, "--steps is given twice");
}

static void test_arguments__a_swapped_pair_of_letters_counts_as_one_mistake(void **state)
{
    static const char *const names[] = {"submit", "show", "delete"};
    (void)state;
    assert_string_equal(draft_nearest("sumbit", names, 3), "submit");
    assert_string_equal(draft_nearest("shwo", names, 3), "show");
    assert_null(draft_nearest("x", names, 3));
    assert_null(draft_nearest("frobnicate", names, 3));
}

/* Every command explains itself: no flag or letter is used twice, every table is complete. */
static void test_arguments__every_command_is_described(void **state)
{
    (void)state;
    for (const struct draft_command *const *c = draft_commands; *c; c++) {
        assert_non_null((*c)->summary);
        assert_non_null((*c)->about);
        assert_non_null((*c)->run);
        assert_non_null(strstr((*c)->examples, "  draft "));
        assert_true(strlen((*c)->summary) < 66);
        bool letters[128] = {0};
        letters['h'] = true;
        for (const struct draft_option *const *t = (*c)->options; t && *t; t++)
            for (const struct draft_option *o = *t; o->name; o++) {
                assert_non_null(o->help);
                assert_true(o->value == DRAFT_VALUE_NONE || o->metavar || !*o->name);
                assert_false(o->letter && letters[(unsigned char)o->letter]);
                letters[(unsigned char)o->letter] = o->letter != 0;
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments__all_forms_of_an_option_are_read),
        cmocka_unit_test(test_arguments__two_dashes_end_the_options),
        cmocka_unit_test(test_arguments__a_misspelt_option_is_suggested),
        cmocka_unit_test(test_arguments__wrong_values_are_refused_with_the_flag_named),
        cmocka_unit_test(test_arguments__a_swapped_pair_of_letters_counts_as_one_mistake),
        cmocka_unit_test(test_arguments__every_command_is_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
