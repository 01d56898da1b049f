#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "models/wordpiece.h"

enum { LENGTH = 35 };

static struct draft_wordpiece *open_fixture(void)
{
    struct draft_error err = {0};
    struct draft_wordpiece *w = draft_wordpiece_open(FIXTURES "/rewards/imagereward/vocab.txt", &err);
    if (w == NULL)
        fail_msg("%s", err.message);
    return w;
}

/* tests/tools/make_rewards.py: transformers' BertTokenizer with [DEC] and [ENC] added, cut at 35. */
static void test_wordpiece__gives_the_ids_of_transformers(void **state)
{
    (void)state;
    struct draft_wordpiece *w = open_fixture();
    json_t *rows = json_load_file(FIXTURES "/rewards/imagereward/wordpiece.json", JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(rows) > 400);
    int wrong = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *text = json_string_value(json_array_get(json_array_get(rows, i), 0));
        const json_t *expected = json_array_get(json_array_get(rows, i), 1);
        int32_t ids[LENGTH];
        int count;
        struct draft_error err = {0};
        if (!draft_wordpiece_encode(w, text, LENGTH, ids, &count, &err))
            fail_msg("%s", err.message);
        bool same = count == (int)json_array_size(expected);
        for (int k = 0; same && k < count; k++)
            same = ids[k] == json_integer_value(json_array_get(expected, (size_t)k));
        if (same)
            continue;
        wrong++;
        fprintf(stderr, "row %zu: \"%s\"\n  found   ", i, text);
        for (int k = 0; k < count; k++)
            fprintf(stderr, " %d", ids[k]);
        fprintf(stderr, "\n  expected");
        for (size_t k = 0; k < json_array_size(expected); k++)
            fprintf(stderr, " %d", (int)json_integer_value(json_array_get(expected, k)));
        fprintf(stderr, "\n");
    }
    json_decref(rows);
    draft_wordpiece_close(w);
    assert_int_equal(wrong, 0);
}

static void test_wordpiece__cuts_at_any_length_with_the_end_token_last(void **state)
{
    (void)state;
    struct draft_wordpiece *w = open_fixture();
    int32_t whole[LENGTH], ids[LENGTH];
    int all, count;
    struct draft_error err = {0};
    static const char text[] = "the lion on a blue background, with [MASK]";
    assert_true(draft_wordpiece_encode(w, text, LENGTH, whole, &all, &err));
    for (int length = 2; length <= all + 1; length++) {
        memset(ids, -1, sizeof ids);
        assert_true(draft_wordpiece_encode(w, text, length, ids, &count, &err));
        assert_int_equal(count, length < all ? length : all);
        assert_memory_equal(ids, whole, (size_t)(count - 1) * sizeof *ids);
        assert_int_equal(ids[count - 1], whole[all - 1]);
        if (count < LENGTH)
            assert_int_equal(ids[count], -1);
    }
    draft_wordpiece_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wordpiece__gives_the_ids_of_transformers),
        cmocka_unit_test(test_wordpiece__cuts_at_any_length_with_the_end_token_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
