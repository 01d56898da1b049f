/* test_open_clip_text [FILE]: FILE is another one made by tests/tools/open_clip_texts.py */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rewards/html_entities.h"
#include "rewards/open_clip_text.h"

static const char *path = FIXTURES "/open_clip_texts.json";

static void test_open_clip_text__is_what_ftfy_and_html_unescape_make_of_it(void **state)
{
    (void)state;
    json_error_t why;
    json_t *rows = json_load_file(path, 0, &why), *row;
    if (rows == NULL)
        fail_msg("%s", why.text);
    assert_true(json_array_size(rows) > 20);
    size_t i, wrong = 0;
    json_array_foreach (rows, i, row) {
        const char *text = json_string_value(json_object_get(row, "text"));
        const char *expected = json_string_value(json_object_get(row, "mended"));
        char *mended = draft_open_clip_text(text);
        if (strcmp(mended, expected) != 0 && ++wrong < 20)
            print_error("\"%s\" became \"%s\", expected \"%s\"\n", text, mended, expected);
        free(mended);
    }
    assert_int_equal(wrong, 0);
    json_decref(rows);
}

static void test_open_clip_text__leaves_alone_what_is_no_utf8(void **state)
{
    (void)state;
    char *mended = draft_open_clip_text("\xff\xfe &amp; broken \xe2\x80");
    assert_string_equal(mended, "\xff\xfe &amp; broken \xe2\x80");
    free(mended);
}

static void check_unescape(draft_html_reference *read, const char *text, const char *expected)
{
    char *out = draft_html_unescape(text, read);
    assert_string_equal(out, expected);
    free(out);
}

/* Every name of the table, beside what HTML's own rules make of it. */
static void test_html_unescape__knows_every_name(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        bool open;
    } entities[] = {
#define HTML(name, open, text) {#name, text, open},
#include "rewards/html_entities.def"
#undef HTML
    };
    for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
        char closed[64], open[64], expected[64];
        if (i > 0) /* or the search would not find them */
            assert_true(strcmp(entities[i - 1].name, entities[i].name) < 0);
        snprintf(closed, sizeof closed, "a&%s;b", entities[i].name);
        snprintf(open, sizeof open, "a&%s b", entities[i].name);
        snprintf(expected, sizeof expected, "a%sb", entities[i].text);
        check_unescape(draft_html_reference_any, closed, expected);
        snprintf(expected, sizeof expected, "a%s b", entities[i].text);
        if (entities[i].open)
            check_unescape(draft_html_reference_any, open, expected);
        check_unescape(draft_html_reference_closed, open, open);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_clip_text__is_what_ftfy_and_html_unescape_make_of_it),
        cmocka_unit_test(test_open_clip_text__leaves_alone_what_is_no_utf8),
        cmocka_unit_test(test_html_unescape__knows_every_name),
    };
    if (argc > 1)
        path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
