#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "table.h"
#include "text.h"
#include "ticks.h"

static void test_text__numbers_have_four_digits_and_nan_is_a_dash(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0"},         {12.3456, "12.35"},     {-0.5, "-0.5"},    {1e-5, "1e-05"}, {1234567, "1.23e+06"},
                 {99999, "1e+05"}, {0.001234, "0.001234"}, {INFINITY, "inf"}, {NAN, "-"}};
    char text[32];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(draft_format_number(cases[i].value, text, sizeof text), cases[i].text);
    assert_string_equal(draft_format_fixed(1.005, 1, text, sizeof text), "1.0");
    assert_string_equal(draft_format_fixed(NAN, 1, text, sizeof text), "-");
}

static void test_text__durations_and_sizes_read_well(void **state)
{
    static const struct {
        double seconds;
        const char *text;
    } durations[] = {{0, "0 s"},        {0.0023, "2 ms"}, {0.153, "0.15 s"}, {0.9999, "1.0 s"}, {4.24, "4.2 s"},
                     {9.97, "10 s"},    {59.6, "1m00s"},  {192, "3m12s"},    {3599.7, "1h00m"}, {3840, "1h04m"},
                     {183600, "2d03h"}, {-1, "-"},        {NAN, "-"}};
    static const struct {
        uint64_t bytes;
        const char *text;
    } sizes[] = {{0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1500000, "1.4 MiB"}, {150u << 20, "150 MiB"}};
    char text[32];
    (void)state;
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++)
        assert_string_equal(draft_format_duration(durations[i].seconds, text, sizeof text), durations[i].text);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        assert_string_equal(draft_format_bytes(sizes[i].bytes, text, sizeof text), sizes[i].text);
}

static void test_text__width_counts_columns_not_bytes(void **state)
{
    (void)state;
    assert_int_equal(draft_text_width("käse"), 4);
    assert_int_equal(draft_text_width("猫"), 2);
    assert_int_equal(draft_text_width("e\xcc\x81"), 1); /* e and a combining accent */
    assert_int_equal(draft_text_width("\033[31mred\033[0m"), 3);
    assert_int_equal(draft_text_width("\xff\xfe"), 2); /* not UTF-8: no crash, a column a byte */
    assert_int_equal(draft_text_cut("käse", 2), 3);
    assert_int_equal(draft_text_cut("猫猫", 3), 3);
    assert_int_equal(draft_text_cut("\033[31mred", 1), 6);
    assert_int_equal(draft_text_cut("\xe7\x8c", 5), 2); /* cut in the middle of a character */
}

static void test_text__a_sparkline_spans_the_range_and_skips_nan(void **state)
{
    const double rising[] = {0, 1, 2, 3, 4, 5, 6, 7}, holes[] = {1, NAN, 3}, flat[] = {2, 2, 2};
    char text[64];
    (void)state;
    draft_sparkline(rising, 8, 20, true, text, sizeof text);
    assert_string_equal(text, "▁▂▃▄▅▆▇█");
    draft_sparkline(rising, 8, 4, true, text, sizeof text); /* means of pairs */
    assert_string_equal(text, "▁▃▆█");
    draft_sparkline(rising, 8, 8, false, text, sizeof text);
    assert_int_equal(strlen(text), 8);
    draft_sparkline(holes, 3, 8, true, text, sizeof text);
    assert_string_equal(text, "▁ █");
    draft_sparkline(flat, 3, 8, true, text, sizeof text);
    assert_string_equal(text, "▄▄▄");
    draft_sparkline(flat, 0, 8, true, text, sizeof text);
    assert_string_equal(text, "");
}

static void test_text__a_bar_is_as_wide_as_asked_whatever_the_fraction(void **state)
{
    char text[256];
    (void)state;
    for (int i = -2; i <= 12; i++) {
        draft_bar(i / 10.0, 17, true, text, sizeof text);
        assert_int_equal(draft_text_width(text), 17);
    }
    draft_bar(0.5, 4, true, text, sizeof text);
    assert_string_equal(text, "██  ");
    draft_bar(0.5, 4, false, text, sizeof text);
    assert_string_equal(text, "##--");
    draft_bar(NAN, 2, false, text, sizeof text);
    assert_string_equal(text, "--");
}

static char *wrapped(const char *text, int at, int indent, int width)
{
    char *out;
    size_t size;
    FILE *file = open_memstream(&out, &size);
    draft_wrap(text, at, indent, width, file);
    fclose(file);
    return out;
}

static void test_text__wrapping_keeps_words_whole(void **state)
{
    (void)state;
    char *text = wrapped("one two three four five six", 2, 4, 24);
    assert_string_equal(text, "  one two three four\n    five six\n");
    free(text);
}

/* Every mark is a whole multiple of the step, inside the range, and told apart from its neighbour by its label. */
static void test_text__ticks_are_round_and_labels_differ(void **state)
{
    (void)state;
    for (double scale = 1e-6; scale < 1e9; scale *= 3.7)
        for (int wanted = 2; wanted < 12; wanted++) {
            double low = -0.31 * scale, high = 1.7 * scale;
            struct draft_ticks ticks = draft_ticks(low, high, wanted, false);
            double lead = ticks.step / pow(10, floor(log10(ticks.step) + 1e-9));
            assert_true(fabs(lead - 1) < 1e-6 || fabs(lead - 2) < 1e-6 || fabs(lead - 5) < 1e-6);
            assert_true(ticks.count >= 2 && ticks.count <= 2 * wanted + 2);
            for (int i = 0; i < ticks.count; i++) {
                char a[32], b[32];
                double at = draft_tick(&ticks, i);
                assert_true(at >= low - 1e-6 * scale && at <= high + 1e-6 * scale);
                draft_tick_label(&ticks, i, a, sizeof a);
                if (i > 0 && strcmp(a, draft_tick_label(&ticks, i - 1, b, sizeof b)) == 0)
                    fail_msg("scale %g: two marks \"%s\"", scale, a);
            }
        }
    struct draft_ticks steps = draft_ticks(0, 3, 10, true);
    assert_true(steps.step == 1 && steps.count == 4);
    struct draft_ticks none = draft_ticks(2, 2, 5, false);
    assert_int_equal(none.count, 1);
    struct draft_ticks exact = draft_ticks(0.1, 0.3, 4, false);
    char text[32];
    assert_string_equal(draft_tick_label(&exact, 0, text, sizeof text), "0.10");
    assert_string_equal(draft_tick_label(&exact, exact.count - 1, text, sizeof text), "0.30");
}

static char *printed(const struct draft_table *table, int width)
{
    char *out;
    size_t size;
    FILE *file = open_memstream(&out, &size);
    draft_table_print(table, width, "", "", file);
    fclose(file);
    return out;
}

static void test_text__a_table_aligns_and_cuts_its_last_column(void **state)
{
    static const struct draft_column columns[] = {
        {.title = "JOB"}, {.title = "STEP", .right = true}, {.title = "REASON", .cut = true}};
    (void)state;
    struct draft_table *table = draft_table_create(columns, 3);
    draft_table_row(table);
    draft_table_cell(table, "job-1");
    draft_table_cell(table, "3/60");
    draft_table_cell(table, "waits\nfor the käse");
    draft_table_row(table);
    draft_table_cell(table, "猫");
    char *text = printed(table, 0);
    assert_string_equal(text, "JOB    STEP  REASON\njob-1  3/60  waits for the käse\n猫           \n");
    free(text);
    text = printed(table, 24);
    assert_string_equal(text, "JOB    STEP  REASON\njob-1  3/60  waits for ~\n猫           \n");
    free(text);
    draft_table_free(table);
}

static void test_text__a_narrow_table_loses_spare_columns_then_parts_of_the_widest(void **state)
{
    static const struct draft_column columns[] = {{.title = "NAME", .cut = true},
                                                  {.title = "KL", .spare = true},
                                                  {.title = "LPIPS", .spare = true},
                                                  {.title = "WHY", .cut = true}};
    (void)state;
    struct draft_table *table = draft_table_create(columns, 4);
    draft_table_row(table);
    draft_table_cell(table, "a name of twenty-two ch");
    draft_table_cell(table, "0.1");
    draft_table_cell(table, "0.2");
    draft_table_cell(table, "waits for another job");
    char *text = printed(table, 39);
    assert_string_equal(text, "NAME              KL   WHY\n"
                              "a name of twent~  0.1  waits for anoth~\n");
    free(text);
    text = printed(table, 34);
    assert_string_equal(text, "NAME              WHY\n"
                              "a name of twent~  waits for anoth~\n");
    free(text);
    draft_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text__numbers_have_four_digits_and_nan_is_a_dash),
        cmocka_unit_test(test_text__durations_and_sizes_read_well),
        cmocka_unit_test(test_text__width_counts_columns_not_bytes),
        cmocka_unit_test(test_text__a_sparkline_spans_the_range_and_skips_nan),
        cmocka_unit_test(test_text__a_bar_is_as_wide_as_asked_whatever_the_fraction),
        cmocka_unit_test(test_text__wrapping_keeps_words_whole),
        cmocka_unit_test(test_text__ticks_are_round_and_labels_differ),
        cmocka_unit_test(test_text__a_table_aligns_and_cuts_its_last_column),
        cmocka_unit_test(test_text__a_narrow_table_loses_spare_columns_then_parts_of_the_widest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
