#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "models/tokenizer.h"

static struct draft_tokenizer *open_sound(const char *folder)
{
    struct draft_error err = {0};
    struct draft_tokenizer *tokenizer = draft_tokenizer_open(folder, &err);
    if (tokenizer == NULL)
        fail_msg("%s", err.message);
    return tokenizer;
}

/* A file of transformers' own results: {"rows": [{"text": ..., "ids": [...]}]}. Rows without padding end early. */
static int compare(const struct draft_tokenizer *tokenizer, const char *path)
{
    json_error_t why;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &why), *row, *value;
    if (root == NULL)
        fail_msg("%s: %s", path, why.text);
    size_t index, place;
    int32_t ids[77];
    int length = draft_tokenizer_max_length(tokenizer), rows = 0;
    json_array_foreach (json_object_get(root, "rows"), index, row) {
        const char *text = json_string_value(json_object_get(row, "text"));
        struct draft_error err = {0};
        if (!draft_tokenize(tokenizer, text, length, ids, NULL, &err))
            fail_msg("%s", err.message);
        json_array_foreach (json_object_get(row, "ids"), place, value)
            if (ids[place] != json_integer_value(value))
                fail_msg("%s: row %zu (\"%s\"), id %zu is %d, expected %d", path, index, text, place, ids[place],
                         (int)json_integer_value(value));
        for (; place < (size_t)length; place++)
            assert_int_equal(ids[place], draft_tokenizer_end_token(tokenizer));
        rows++;
    }
    json_decref(root);
    return rows;
}

static void test_tokenizer__gives_transformers_ids(void **state)
{
    (void)state;
    struct draft_tokenizer *tokenizer = open_sound(DEMO "/emoji-sd/tokenizer");
    assert_int_equal(draft_tokenizer_max_length(tokenizer), 32);
    assert_int_equal(draft_tokenizer_vocabulary(tokenizer), 1018);
    assert_int_equal(draft_tokenizer_end_token(tokenizer), 1017);
    assert_int_equal(compare(tokenizer, FIXTURES "/golden/tokenizer.json"), 20);
    draft_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer__gives_transformers_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
