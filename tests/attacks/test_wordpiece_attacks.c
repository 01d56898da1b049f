/* Hostile vocab.txt files and prompts: refused with a sentence or read, never a crash or an endless run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"
#include "models/wordpiece.h"

#define START "[UNK]\n[CLS]\n[SEP]\n"

static char folder[40], path[60];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/draft-wordpiece-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(path, sizeof path, "%s/vocab.txt", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static struct draft_wordpiece *open_with(const char *text, size_t length, struct draft_error *err)
{
    *err = (struct draft_error){0};
    FILE *file = fopen(path, "wb");
    assert_int_equal(fwrite(text, 1, length, file), length);
    fclose(file);
    return draft_wordpiece_open(path, err);
}

static void test_wordpiece_attacks__vocabularies_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t length;
        const char *words;
    } rows[] = {
#define ROW(text, words) {text, sizeof text - 1, words}
        ROW("", "no token [UNK]"),
        ROW("\n", "line 1 is empty"),
        ROW("a\nb\n", "no token [UNK], expected the vocabulary of a BERT"),
        ROW("[UNK]\n[CLS]\n", "no token [SEP]"),
        ROW(START "\na\n", "line 4 is empty"),
        ROW(START "a\n\n", "line 5 is empty"),
        ROW(START "\r\n", "line 4 is empty"),
        ROW(START "a\nb\na\n", "lines 4 and 6 hold the same token"),
        ROW(START "[UNK]\n", "lines 1 and 4 hold the same token"),
        ROW(START "a\r\na\n", "lines 4 and 5 hold the same token"),
        ROW(START "\xff\n", "is not UTF-8 text at byte 18"),
        ROW(START "\xc0\xaf\n", "is not UTF-8 text"),
        ROW(START "\xed\xa0\x80\n", "is not UTF-8 text"),
        ROW(START "a\0b\n", "is not UTF-8 text"),
        ROW("{\"[UNK]\": 0}", "no token [UNK]"),
        ROW("PK\3\4", "no token [UNK]"),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_error err;
        struct draft_wordpiece *w = open_with(rows[i].text, rows[i].length, &err);
        if (w != NULL || strstr(err.message, rows[i].words) == NULL || strstr(err.message, "vocab.txt") == NULL)
            fail_msg("row %zu: \"%s\" does not say \"%s\"", i, err.message, rows[i].words);
    }
}

static void test_wordpiece_attacks__files_that_are_none_or_too_large_are_refused(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_null(draft_wordpiece_open(path, &err));
    assert_non_null(strstr(err.message, "vocab.txt"));
    assert_int_equal(mkfifo(path, 0600), 0);
    err = (struct draft_error){0};
    assert_null(draft_wordpiece_open(path, &err)); /* and does not wait for a writer */
    assert_int_equal(unlink(path), 0);
    assert_null(open_with("", 0, &err));
    assert_int_equal(truncate(path, (off_t)1 << 30), 0);
    err = (struct draft_error){0};
    assert_null(draft_wordpiece_open(path, &err));
    assert_non_null(strstr(err.message, "vocab.txt"));
    size_t lines = ((size_t)1 << 20) + 4, used = sizeof START - 1;
    char *text = malloc(used + lines * 8 + 16);
    memcpy(text, START, used);
    for (size_t i = 0; i < lines; i++)
        used += (size_t)sprintf(text + used, "%zx\n", i);
    assert_null(open_with(text, used, &err));
    assert_non_null(strstr(err.message, "more than 1048576 lines"));
    free(text);
}

/* A word of very long tokens, and prompts in which every position is tried: in bounds, in bounded time. */
static void test_wordpiece_attacks__long_tokens_and_prompts_end_soon(void **state)
{
    (void)state;
    enum { LONG = 200000, PROMPT = 1 << 20 };
    struct draft_error err;
    char *text = malloc(sizeof START + LONG + 100), *prompt = malloc(PROMPT + 2);
    size_t used = sizeof START - 1;
    memcpy(text, START, used);
    memset(text + used, 'a', LONG);
    used += LONG;
    used += (size_t)sprintf(text + used, "\na\n##a\n##\n#\n[\n"); /* the last line without its end: */
    struct draft_wordpiece *w = open_with(text, used - 1, &err);
    if (w == NULL)
        fail_msg("%s", err.message);
    assert_int_equal(draft_wordpiece_vocabulary(w), 9 + 2);
    static const char *const fills[] = {"a", "[", "[MASK", "#", "a ", "\xcc\x81", "\xe4\xb8\xad", "[UNK]"};
    int32_t *ids = malloc(PROMPT * sizeof *ids);
    time_t start = time(NULL);
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++) {
        size_t one = strlen(fills[i]), length = 0;
        int count;
        for (; length + one <= PROMPT; length += one)
            memcpy(prompt + length, fills[i], one);
        prompt[length] = '\0';
        if (!draft_wordpiece_encode(w, prompt, PROMPT, ids, &count, &err) ||
            !draft_wordpiece_encode(w, prompt, 35, ids, &count, &err))
            fail_msg("%s", err.message);
        assert_in_range(count, 2, 35);
    }
    assert_true(time(NULL) - start < 60);
    memset(prompt, 'a', PROMPT + 1);
    prompt[PROMPT + 1] = '\0';
    int count;
    assert_false(draft_wordpiece_encode(w, prompt, 35, ids, &count, &err));
    assert_non_null(strstr(err.message, "too long"));
    err = (struct draft_error){0};
    assert_false(draft_wordpiece_encode(w, "a \xff", 35, ids, &count, &err));
    assert_non_null(strstr(err.message, "not UTF-8 at byte 2"));
    draft_wordpiece_close(w);
    free(ids);
    free(prompt);
    free(text);
}

/* Bytes at random, made of pieces that matter: ids always of the vocabulary, never more than asked for. */
static void test_wordpiece_attacks__random_prompts_give_ids_of_the_vocabulary(void **state)
{
    (void)state;
    static const char *const piece[] = {"[",
                                        "]",
                                        "[MASK]",
                                        "[DEC]",
                                        "[SEP",
                                        "##",
                                        "a",
                                        "B",
                                        "\xcc\x81",
                                        "\xc4\xb0",
                                        "\xe4\xb8\xad",
                                        " ",
                                        "\t",
                                        "\x01",
                                        "\xef\xbf\xbd",
                                        "\xf0\x9f\x91\x8d",
                                        "\xea\xb0\x80",
                                        "\xe2\x80\xa8",
                                        "\xf4\x8f\xbf\xbf"};
    struct draft_error err;
    static const char vocabulary[] = START "a\n##a\nb\n##b\n[MASK]\n\xe1\x84\x80\n##\xe1\x85\xa1";
    struct draft_wordpiece *w = open_with(vocabulary, sizeof vocabulary - 1, &err);
    if (w == NULL)
        fail_msg("%s", err.message);
    uint64_t random = 1;
    for (int round = 0; round < 20000; round++) {
        char prompt[200];
        size_t length = 0;
        int32_t ids[36];
        int count, room = 2 + round % 34;
        for (int i = 0; i < 30; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            const char *p = piece[(random >> 33) % (sizeof piece / sizeof *piece)];
            memcpy(prompt + length, p, strlen(p));
            length += strlen(p);
        }
        prompt[length] = '\0';
        ids[room] = 12345;
        assert_true(draft_wordpiece_encode(w, prompt, room, ids, &count, &err));
        assert_in_range(count, 2, room);
        assert_int_equal(ids[room], 12345);
        for (int i = 0; i < count; i++)
            assert_in_range(ids[i], 0, draft_wordpiece_vocabulary(w) - 1);
    }
    draft_wordpiece_close(w);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(test_wordpiece_attacks__##name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(vocabularies_that_lie_are_refused),
        CASE(files_that_are_none_or_too_large_are_refused),
        CASE(long_tokens_and_prompts_end_soon),
        CASE(random_prompts_give_ids_of_the_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
