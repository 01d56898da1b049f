/* Hostile vocabularies, merges and texts: refused with a sentence or tokenized, never a crash or an endless run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"
#include "models/tokenizer.h"

static char folder[40];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/draft-tokenizer-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static const char *inside(const char *name)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(inside("vocab.json"));
    unlink(inside("merges.txt"));
    return rmdir(folder);
}

static void write_file(const char *name, const char *text, size_t length)
{
    FILE *file = fopen(inside(name), "wb");
    assert_int_equal(fwrite(text, 1, length, file), length);
    fclose(file);
}

#define VOCAB                                                                                                          \
    "{\"a\": 0, \"b\": 1, \"ab\": 2, \"b</w>\": 3, \"ab</w>\": 4, \"<|startoftext|>\": 5, \"<|endoftext|>\": 6"

static struct draft_tokenizer *open_with(const char *vocab, const char *merges, size_t merges_length,
                                         struct draft_error *err)
{
    *err = (struct draft_error){0};
    write_file("vocab.json", vocab, strlen(vocab));
    write_file("merges.txt", merges, merges_length);
    return draft_tokenizer_open(folder, err);
}

static void test_tokenizer_attacks__vocabularies_and_merges_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *vocab, *merges, *words;
    } rows[] = {
        {"{}", "", "holds 0 tokens"},
        {"[]", "", "does not hold a JSON object"},
        {"{\"a\": 0, \"b\": 0}", "", "gives the id 0 to two tokens"},
        {"{\"a\": 0, \"a\": 1}", "", "is not JSON"},
        {"{\"a\": 0, \"b\": 2}", "", "expected an integer from 0 to 1"},
        {"{\"a\": -1}", "", "expected an integer from 0 to 0"},
        {"{\"a\": 4294967296}", "", "expected an integer from 0 to 0"},
        {"{\"a\": 1e300}", "", "expected an integer from 0 to 0"},
        {"{\"a\": \"0\"}", "", "expected an integer from 0 to 0"},
        {"{\"a\": 0}", "", "the bos_token is not in vocab.json"},
        {VOCAB "}", "a\n", "line 1 is not two tokens of the vocabulary that make a third"},
        {VOCAB "}", "#version: 0.2\na b\na x\n", "line 3 is not two tokens"},
        {VOCAB "}", "a b b\n", "line 1 is not two tokens"},
        {VOCAB "}", "b a\n", "line 1 is not two tokens"},
        {VOCAB "}", " a\n", "line 1 is not two tokens"},
        {VOCAB "}", "a \n", "line 1 is not two tokens"},
        {VOCAB "}", "\xff\xfe\n", "line 1 is not two tokens"},
    };
    struct draft_error err;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_null(open_with(rows[i].vocab, rows[i].merges, strlen(rows[i].merges), &err));
        if (strstr(err.message, rows[i].words) == NULL)
            fail_msg("row %zu: \"%s\" does not say \"%s\"", i, err.message, rows[i].words);
        assert_true(draft_utf8_valid(err.message, strlen(err.message), NULL));
    }
    assert_null(open_with(VOCAB "}", "a b\0c\n", 6, &err));
    assert_non_null(strstr(err.message, "line 1"));
    unlink(inside("merges.txt"));
    err = (struct draft_error){0};
    assert_null(draft_tokenizer_open(folder, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    write_file("merges.txt", "", 0);
    assert_int_equal(truncate(inside("merges.txt"), 17 << 20), 0);
    err = (struct draft_error){0};
    assert_null(draft_tokenizer_open(folder, &err));
    assert_non_null(strstr(err.message, "merges.txt"));
}

static void test_tokenizer_attacks__bytes_without_a_token_become_the_unknown_token(void **state)
{
    (void)state;
    struct draft_error err;
    int32_t ids[8];
    struct draft_tokenizer *tokenizer = open_with(VOCAB "}", "a b\na b</w>\r\n", 13, &err);
    if (tokenizer == NULL)
        fail_msg("%s", err.message);
    assert_true(draft_tokenize(tokenizer, "abab zb", 8, ids, NULL, &err));
    static const int32_t expected[] = {5, 2, 4, 6, 3, 6, 6, 6};
    assert_memory_equal(ids, expected, sizeof expected);
    draft_tokenizer_close(tokenizer);
}

static void test_tokenizer_attacks__a_prompt_that_is_not_utf8_is_refused(void **state)
{
    (void)state;
    struct draft_error err = {0};
    int32_t ids[77];
    struct draft_tokenizer *tokenizer = draft_tokenizer_open(DEMO "/emoji-sd/tokenizer", &err);
    static const char *const texts[] = {"lion \xff", "\xC0\xAF", "\xED\xA0\x80", "cut \xF0\x9F\xA6", "\x80"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        err = (struct draft_error){0};
        assert_false(draft_tokenize(tokenizer, texts[i], 77, ids, NULL, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "not UTF-8 at byte"));
    }
    draft_tokenizer_close(tokenizer);
}

static void test_tokenizer_attacks__random_bytes_never_crash(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_tokenizer *tokenizer = draft_tokenizer_open(DEMO "/emoji-sd/tokenizer", &err);
    uint32_t noise = 5;
    int accepted = 0;
    for (int round = 0; round < 20000; round++) {
        char text[64];
        int32_t ids[16];
        size_t length = 0, wanted = (size_t)round % 60;
        while (length < wanted) {
            noise = noise * 1664525u + 1013904223u;
            unsigned char byte = (unsigned char)(noise >> 24);
            if (round % 2 == 0 && byte >= 0x80 &&
                length + 4 < sizeof text) { /* a well-formed character of four bytes */
                noise = noise * 1664525u + 1013904223u;
                text[length++] = (char)(0xF1 + (noise >> 30) % 3);
                text[length++] = (char)(0x80 | (noise >> 8 & 0x3F));
                text[length++] = (char)(0x80 | (noise >> 14 & 0x3F));
                byte = (unsigned char)(0x80 | (noise >> 20 & 0x3F));
            }
            text[length++] = (char)(byte == 0 ? ' ' : byte);
        }
        text[length] = '\0';
        err = (struct draft_error){0};
        bool ok = draft_tokenize(tokenizer, text, 16, ids, NULL, &err);
        assert_int_equal(ok, draft_utf8_valid(text, length, NULL));
        for (int i = 0; ok && i < 16; i++)
            assert_in_range(ids[i], 0, draft_tokenizer_vocabulary(tokenizer) - 1);
        accepted += ok;
    }
    assert_true(accepted > 9000);
    draft_tokenizer_close(tokenizer);
}

static void test_tokenizer_attacks__a_word_of_a_megabyte_takes_no_square_of_it(void **state)
{
    (void)state;
    struct draft_error err = {0};
    enum { N = 1 << 20 };
    int32_t ids[77];
    int full;
    char *text = malloc(N + 2);
    struct draft_tokenizer *tokenizer = draft_tokenizer_open(DEMO "/emoji-sd/tokenizer", &err);
    for (int i = 0; i < N; i++)
        text[i] = "aonr"[i * 2654435761u >> 30];
    text[N] = '\0';
    clock_t start = clock();
    assert_true(draft_tokenize(tokenizer, text, 77, ids, &full, &err));
    assert_true(full > N / 4);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 30);
    text[N] = 'a';
    text[N + 1] = '\0';
    assert_false(draft_tokenize(tokenizer, text, 77, ids, &full, &err));
    assert_non_null(strstr(err.message, "is too long"));
    free(text);
    draft_tokenizer_close(tokenizer);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_tokenizer_attacks__vocabularies_and_merges_that_lie_are_refused),
        TEST(test_tokenizer_attacks__bytes_without_a_token_become_the_unknown_token),
        TEST(test_tokenizer_attacks__a_prompt_that_is_not_utf8_is_refused),
        TEST(test_tokenizer_attacks__random_bytes_never_crash),
        TEST(test_tokenizer_attacks__a_word_of_a_megabyte_takes_no_square_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
