#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "models/tokenizer.h"

static struct draft_tokenizer *open_sound(const char *folder)
{
    struct draft_error err = {0};
    struct draft_tokenizer *tokenizer = draft_tokenizer_open(folder, &err);
    if (tokenizer == NULL)
        fail_msg("%s", err.message);
    return tokenizer;
}

/* transformers' own results: [{"text": ..., "ids": [...]}]. Ids that end early go on with `pad`. */
static void compare(const struct draft_tokenizer *tokenizer, const json_t *rows, int32_t pad, const char *where)
{
    size_t index, place;
    json_t *row, *value;
    int32_t ids[77];
    int length = draft_tokenizer_max_length(tokenizer);
    json_array_foreach (rows, index, row) {
        const char *text = json_string_value(json_object_get(row, "text"));
        struct draft_error err = {0};
        if (!draft_tokenize(tokenizer, text, length, ids, NULL, &err))
            fail_msg("%s", err.message);
        json_array_foreach (json_object_get(row, "ids"), place, value)
            if (ids[place] != json_integer_value(value))
                fail_msg("%s: row %zu (\"%s\"), id %zu is %d, expected %d", where, index, text, place, ids[place],
                         (int)json_integer_value(value));
        for (; place < (size_t)length; place++)
            if (ids[place] != pad)
                fail_msg("%s: row %zu (\"%s\"), id %zu is %d, expected padding %d", where, index, text, place,
                         ids[place], pad);
    }
}

static json_t *load(const char *path)
{
    json_error_t why;
    json_t *root = json_load_file(path, 0, &why);
    if (root == NULL)
        fail_msg("%s: %s", path, why.text);
    return root;
}

static void test_tokenizer__gives_transformers_ids(void **state)
{
    (void)state;
    struct draft_tokenizer *tokenizer = open_sound(DEMO "/emoji-sd/tokenizer");
    assert_int_equal(draft_tokenizer_max_length(tokenizer), 32);
    assert_int_equal(draft_tokenizer_vocabulary(tokenizer), 1018);
    assert_int_equal(draft_tokenizer_end_token(tokenizer), 1017);
    json_t *golden = load(FIXTURES "/golden/tokenizer.json"), *more = load(FIXTURES "/tokenizer_more.json");
    assert_int_equal(json_array_size(json_object_get(golden, "rows")), 20);
    assert_true(json_array_size(json_object_get(more, "rows")) > 200);
    compare(tokenizer, json_object_get(golden, "rows"), 1017, "golden");
    compare(tokenizer, json_object_get(more, "rows"), 1017, "more");
    json_decref(golden);
    json_decref(more);
    draft_tokenizer_close(tokenizer);
}

/* A folder with the demo's vocabulary and merges beside other json files. */
static void make_folder(char *folder, const json_t *files)
{
    char path[200];
    const char *name;
    json_t *text;
    strcpy(folder, "/tmp/draft-tokenizer-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/vocab.json", folder);
    assert_int_equal(symlink(DEMO "/emoji-sd/tokenizer/vocab.json", path), 0);
    snprintf(path, sizeof path, "%s/merges.txt", folder);
    assert_int_equal(symlink(DEMO "/emoji-sd/tokenizer/merges.txt", path), 0);
    json_object_foreach ((json_t *)files, name, text) {
        snprintf(path, sizeof path, "%s/%s", folder, name);
        FILE *file = fopen(path, "w");
        fputs(json_string_value(text), file);
        fclose(file);
    }
}

static void remove_folder(const char *folder)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json"};
    char path[200];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void test_tokenizer__reads_the_special_tokens_of_every_era(void **state)
{
    (void)state;
    json_t *more = load(FIXTURES "/tokenizer_more.json"), *one;
    size_t index;
    assert_int_equal(json_array_size(json_object_get(more, "folders")), 7);
    json_array_foreach (json_object_get(more, "folders"), index, one) {
        char folder[40];
        make_folder(folder, json_object_get(one, "files"));
        struct draft_tokenizer *tokenizer = open_sound(folder);
        assert_int_equal(draft_tokenizer_max_length(tokenizer), 77);
        compare(tokenizer, json_object_get(one, "rows"), (int32_t)json_integer_value(json_object_get(one, "pad")),
                json_string_value(json_object_get(one, "name")));
        draft_tokenizer_close(tokenizer);
        remove_folder(folder);
    }
    json_decref(more);
}

static void test_tokenizer__says_how_long_a_prompt_was_before_it_was_cut(void **state)
{
    (void)state;
    struct draft_tokenizer *tokenizer = open_sound(DEMO "/emoji-sd/tokenizer");
    int32_t ids[8];
    int full = 0;
    assert_true(draft_tokenize(tokenizer, "a lion a lion a lion a lion", 8, ids, &full, NULL));
    assert_int_equal(full, 10);
    assert_int_equal(ids[7], 1017);
    assert_int_equal(ids[6], 720);
    assert_true(draft_tokenize(tokenizer, "a lion", 8, ids, &full, NULL));
    assert_int_equal(full, 4);
    assert_true(draft_tokenize(tokenizer, "", 2, ids, &full, NULL));
    assert_int_equal(full, 2);
    assert_int_equal(ids[0], 1016);
    draft_tokenizer_close(tokenizer);
}

static void test_tokenizer__refuses_what_would_change_the_ids(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text, *words;
    } rows[] = {
        {"tokenizer_config.json", "{\"tokenizer_class\": \"T5Tokenizer\"}", "\"tokenizer_class\" is \"T5Tokenizer\""},
        {"tokenizer_config.json", "{\"padding_side\": \"left\"}", "\"padding_side\" is \"left\""},
        {"tokenizer_config.json", "{\"model_max_length\": 1}", "\"model_max_length\" is 1, expected an integer from 2"},
        {"tokenizer_config.json", "{\"model_max_length\": -77}", "\"model_max_length\" is -77"},
        {"tokenizer_config.json", "{\"model_max_length\": 76.5}", "\"model_max_length\" is 76.5"},
        {"tokenizer_config.json", "{\"model_max_length\": 1000000}", "\"model_max_length\" is 1e+06"},
        {"tokenizer_config.json", "{\"model_max_length\": \"77\"}", "expected a number"},
        {"tokenizer_config.json", "{\"bos_token\": \"<s>\"}", "the bos_token is not in vocab.json"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"7\": {\"content\": \"<x>\"}}}",
         "added_tokens_decoder holds 1 tokens, 0 are"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"1017\": {\"content\": \"<x>\"}}}",
         "names another token for the id 1017"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": []}", "expected an object"},
        {"special_tokens_map.json", "{\"pad_token\": \"<pad>\"}", "the pad_token is not in vocab.json"},
        {"special_tokens_map.json", "{\"pad_token\": \"\"}", "the pad_token is not in vocab.json"},
        {"special_tokens_map.json", "{\"pad_token\": 7}", "\"pad_token\" is 7, expected a string"},
        {"special_tokens_map.json", "{\"eos_token\": {\"content\": \"<|endoftext|>\", \"single_word\": true}}",
         "\"single_word\" is true"},
        {"special_tokens_map.json", "{\"eos_token\": {\"content\": \"<|endoftext|>\", \"new\": true}}",
         "\"new\" (true) is not understood"},
        {"special_tokens_map.json", "not json", "special_tokens_map.json is not JSON"},
        {"added_tokens.json", "{\"<my-cat>\": 1018}", "adds a token that is no special token of vocab.json"},
        {"added_tokens.json", "{\"lion</w>\": 720}", "adds a token that is no special token of vocab.json"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char folder[40];
        struct draft_error err = {0};
        json_t *files = json_pack("{s:s}", rows[i].file, rows[i].text);
        make_folder(folder, files);
        json_decref(files);
        assert_null(draft_tokenizer_open(folder, &err));
        if (strstr(err.message, rows[i].words) == NULL)
            fail_msg("row %zu: \"%s\" does not say \"%s\"", i, err.message, rows[i].words);
        remove_folder(folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer__gives_transformers_ids),
        cmocka_unit_test(test_tokenizer__reads_the_special_tokens_of_every_era),
        cmocka_unit_test(test_tokenizer__says_how_long_a_prompt_was_before_it_was_cut),
        cmocka_unit_test(test_tokenizer__refuses_what_would_change_the_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
