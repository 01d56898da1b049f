#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "curves.h"
#include "metric_rows.h"

static int64_t a_steps[] = {1, 2, 4}, b_steps[] = {2, 3};
static double a_values[] = {0.1, NAN, -INFINITY}, b_values[] = {5, 1e300};
static int32_t attempts[] = {1, 1, 2};
static int64_t times[3];
static struct draft_series series[] = {
    {.name = "a",
     .count = 3,
     .steps = a_steps,
     .values = a_values,
     .low = a_values,
     .high = a_values,
     .attempts = attempts,
     .times_us = times},
    {.name = "b,\"c\"",
     .count = 2,
     .steps = b_steps,
     .values = b_values,
     .low = b_values,
     .high = b_values,
     .attempts = attempts,
     .times_us = times},
};
static const struct draft_series_set set = {.count = 2, .series = series, .last_step = 4};

static char *captured(int what)
{
    char *out;
    size_t size;
    FILE *file = open_memstream(&out, &size);
    struct draft_terminal plain = {.out = file};
    if (what == 0)
        draft_metrics_csv(&set, file);
    else if (what == 1)
        draft_metrics_json(&set, "job-1", file);
    else
        draft_metrics_table(&set, &plain);
    fclose(file);
    return out;
}

static void test_metric_rows__csv_joins_by_step_and_keeps_every_digit(void **state)
{
    (void)state;
    char *text = captured(0);
    assert_string_equal(text, "step,a,\"b,\"\"c\"\"\"\n"
                              "1,0.10000000000000001,\n"
                              "2,NaN,5\n"
                              "3,,1.0000000000000001e+300\n"
                              "4,-Infinity,\n");
    free(text);
}

static void test_metric_rows__json_keeps_nan_as_a_word(void **state)
{
    (void)state;
    char *text = captured(1);
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    const json_t *a = json_object_get(json_object_get(json, "series"), "a");
    assert_int_equal(json_array_size(json_object_get(a, "values")), 3);
    assert_string_equal(json_string_value(json_array_get(json_object_get(a, "values"), 1)), "NaN");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(a, "attempts"), 2)), 2);
    assert_int_equal(json_integer_value(json_object_get(json, "last_step")), 4);
    json_decref(json);
    free(text);
}

static void test_metric_rows__the_table_has_a_row_a_step(void **state)
{
    (void)state;
    char *text = captured(2);
    int lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, 5);
    assert_non_null(strstr(text, "NaN"));
    free(text);
}

static void test_metric_rows__equal_reward_is_found_between_two_evaluations(void **state)
{
    int64_t steps[] = {0, 10, 20};
    double reward[] = {10, 12, 13}, lpips[] = {0.6, 0.4, 0.3};
    struct draft_series both[] = {{.name = "r", .count = 3, .steps = steps, .values = reward},
                                  {.name = "l", .count = 3, .steps = steps, .values = lpips}};
    struct draft_series_set two = {.count = 2, .series = both};
    (void)state;
    assert_true(fabs(draft_series_where(&two, "r", 11, "l") - 0.5) < 1e-12);
    assert_true(fabs(draft_series_where(&two, "r", 12.5, "l") - 0.35) < 1e-12);
    assert_true(isnan(draft_series_where(&two, "r", 14, "l")));
    assert_true(draft_series_where(&two, "r", 9, "l") == 0.6);
    assert_true(isnan(draft_series_where(&two, "r", 11, "nothing")));
}

static void test_metric_rows__curves_pair_two_series_by_step(void **state)
{
    static struct draft_run runs[1] = {{.label = "one"}};
    static struct draft_axes axes;
    static struct draft_curve_memory memory;
    (void)state;
    runs[0].set = set;
    draft_curves_fill(&axes, runs, 1, "a", "b,\"c\"", &memory);
    assert_int_equal(axes.count, 1);
    assert_int_equal(axes.lines[0].count, 1); /* step 2 is the only one both have */
    assert_true(axes.lines[0].x[0] == 5 && isnan(axes.lines[0].y[0]));
    draft_curves_fill(&axes, runs, 1, "absent", NULL, &memory);
    assert_int_equal(axes.count, 1);
    draft_curve_memory_free(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metric_rows__csv_joins_by_step_and_keeps_every_digit),
        cmocka_unit_test(test_metric_rows__json_keeps_nan_as_a_word),
        cmocka_unit_test(test_metric_rows__the_table_has_a_row_a_step),
        cmocka_unit_test(test_metric_rows__equal_reward_is_found_between_two_evaluations),
        cmocka_unit_test(test_metric_rows__curves_pair_two_series_by_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
