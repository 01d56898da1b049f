#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "rewards/open_clip_text.h"

static void test_open_clip_text__is_what_ftfy_makes_of_it(void **state)
{
    (void)state;
    json_error_t why;
    json_t *rows = json_load_file(FIXTURES "/open_clip_texts.json", 0, &why), *row;
    if (rows == NULL)
        fail_msg("%s", why.text);
    assert_true(json_array_size(rows) > 20);
    size_t i;
    json_array_foreach (rows, i, row) {
        /* ftfy leaves NFC behind; here the tokenizer makes it */
        char *mended = draft_open_clip_text(json_string_value(json_object_get(row, "text")));
        utf8proc_uint8_t *composed = utf8proc_NFC((const utf8proc_uint8_t *)mended);
        assert_string_equal(composed, json_string_value(json_object_get(row, "mended")));
        free(composed);
        free(mended);
    }
    json_decref(rows);
}

static void test_open_clip_text__leaves_alone_what_it_does_not_do(void **state)
{
    (void)state;
    static const char *const texts[] = {"&amp; &lt;b&gt; &#39;",
                                        "\xff\xfe broken \xe2\x80"}; /* no UTF-8: refused later */
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *mended = draft_open_clip_text(texts[i]);
        assert_string_equal(mended, texts[i]);
        free(mended);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_clip_text__is_what_ftfy_makes_of_it),
        cmocka_unit_test(test_open_clip_text__leaves_alone_what_it_does_not_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
