/* Datasets: what is read, and every refusal with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataset.h"

static char path[128];

static void write_bytes(const char *extension, const void *bytes, size_t size)
{
    snprintf(path, sizeof path, "/tmp/draftd-dataset-%d%s", (int)getpid(), extension);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static struct draftd_dataset read_good(const char *extension, const char *text)
{
    struct draftd_dataset dataset;
    struct draft_error err = {0};
    write_bytes(extension, text, strlen(text));
    if (!draftd_dataset_read(path, &dataset, &err))
        fail_msg("%s", err.message);
    unlink(path);
    return dataset;
}

static void expect_refusal_bytes(const char *extension, const void *bytes, size_t size, const char *words)
{
    struct draftd_dataset dataset;
    struct draft_error err = {0};
    write_bytes(extension, bytes, size);
    assert_false(draftd_dataset_read(path, &dataset, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    if (strstr(err.message, words) == NULL || strstr(err.message, path) == NULL)
        fail_msg("expected \"%s\" in: %s", words, err.message);
    assert_null(dataset.prompts);
    unlink(path);
}

static void expect_refusal(const char *extension, const char *text, const char *words)
{
    expect_refusal_bytes(extension, text, strlen(text), words);
}

static void test_dataset__text_is_a_prompt_a_line(void **state)
{
    (void)state;
    struct draftd_dataset d = read_good(".txt", "\xEF\xBB\xBF  a cat \r\n\r\nein Bär\n\n a dog");
    assert_int_equal(d.count, 3);
    assert_string_equal(d.prompts[0], "a cat");
    assert_string_equal(d.prompts[1], "ein Bär");
    assert_string_equal(d.prompts[2], "a dog");
    draftd_dataset_free(&d);
}

static void test_dataset__jsonl_takes_strings_and_objects(void **state)
{
    (void)state;
    struct draftd_dataset d = read_good(
        ".jsonl", "\"a \\\"quoted\\\" cat\"\n{\"prompt\": \"a dog\", \"id\": 3}\r\n\n{\"text\": \"\\u00e4\"}\n");
    assert_int_equal(d.count, 3);
    assert_string_equal(d.prompts[0], "a \"quoted\" cat");
    assert_string_equal(d.prompts[1], "a dog");
    assert_string_equal(d.prompts[2], "ä");
    draftd_dataset_free(&d);
}

static void test_dataset__csv_follows_rfc_4180(void **state)
{
    (void)state;
    struct draftd_dataset d = read_good(
        ".CSV", "id,Caption,\"n\"\r\n1,\"a cat, sitting\",x\r\n2,\"the \"\"big\"\" dog\",\n\n3,plain,\"y\nz\"");
    assert_int_equal(d.count, 3);
    assert_string_equal(d.prompts[0], "a cat, sitting");
    assert_string_equal(d.prompts[1], "the \"big\" dog");
    assert_string_equal(d.prompts[2], "plain");
    draftd_dataset_free(&d);
}

static void test_dataset__refusals_name_the_line(void **state)
{
    (void)state;
    expect_refusal(".txt", "", "no prompt in it");
    expect_refusal(".txt", "\n  \n", "no prompt in it");
    expect_refusal(".txt", "good\nbad \xff\xfe\n", "line 2: byte 5");
    expect_refusal(".txt", "a\x01", "line 1: the prompt has the control character 0x01");
    expect_refusal(".txt", "a\tb", "0x09");
    expect_refusal_bytes(".txt", "x\ny\0z\n", 6, "line 2: a NUL byte");
    expect_refusal(".md", "a cat", "must end with .txt, .jsonl, .csv or .tar");
    expect_refusal(".jsonl", "\"ok\"\n{\"caption\": \"no\"}\n", "line 2: neither a string nor an object");
    expect_refusal(".jsonl", "{\"prompt\": 3}", "line 1: neither");
    expect_refusal(".jsonl", "\"ok\"\n{broken\n", "line 2: no JSON");
    expect_refusal(".jsonl", "\"a\\u0000b\"", "line 1: a NUL byte");
    expect_refusal(".jsonl", "\"\"", "line 1: the prompt is empty");
    expect_refusal(".csv", "id,name\n1,x\n", "no column \"prompt\"");
    expect_refusal(".csv", "prompt\n\"open\nline", "line 2: a quoted field has no closing quote");
    expect_refusal(".csv", "prompt,n\na cat\n", "line 2: 1 fields, the header has 2");
    expect_refusal(".csv", "prompt\na \"cat\n", "line 2: a quote stands inside");
    expect_refusal(".csv", "prompt\n\"a\"b\n", "line 2: text follows a closing quote");
    expect_refusal(".csv", "prompt,n\n ,1\n", "line 2: the prompt is empty");
    expect_refusal(".csv", "", "no column");
}

static void test_dataset__limits_are_held(void **state)
{
    (void)state;
    char *line = malloc(2002);
    memset(line, 'x', 2001);
    line[2001] = '\0';
    expect_refusal(".txt", line, "line 1: the prompt is 2001 bytes long");
    line[2000] = '\0';
    struct draftd_dataset d = read_good(".txt", line);
    assert_int_equal(d.bytes, 2000);
    draftd_dataset_free(&d);
    free(line);

    size_t many = 2 * ((size_t)DRAFTD_DATASET_PROMPTS + 1);
    char *text = malloc(many);
    for (size_t i = 0; i < many; i++)
        text[i] = i % 2 ? '\n' : 'a';
    expect_refusal_bytes(".txt", text, many, "more than 1000000 prompts");
    free(text);

    struct draft_error err = {0};
    write_bytes(".txt", "a", 1);
    assert_int_equal(truncate(path, (off_t)DRAFTD_DATASET_BYTES + 1), 0); /* sparse */
    assert_false(draftd_dataset_read(path, &d, &err));
    assert_non_null(strstr(err.message, "at most 67108864"));
    unlink(path);
}

static void test_dataset__only_regular_files_are_read(void **state)
{
    (void)state;
    struct draftd_dataset d;
    struct draft_error err = {0};
    snprintf(path, sizeof path, "/tmp/draftd-dataset-%d.txt", (int)getpid());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_false(draftd_dataset_read(path, &d, &err)); /* and does not block */
    assert_non_null(strstr(err.message, "not a regular file"));
    unlink(path);
    err = (struct draft_error){0};
    assert_int_equal(mkdir(path, 0700), 0);
    assert_false(draftd_dataset_read(path, &d, &err));
    rmdir(path);
    err = (struct draft_error){0};
    assert_false(draftd_dataset_read("/nowhere/at/all.txt", &d, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
}

/* --- WebDataset --------------------------------------------------------------------------------------------------- */

struct member {
    const char *name, *content; /* content NULL: a link to "a.txt" */
};

/* Writes `path` with another hand than the reader's: libarchive's writer. */
static void write_tar(const char *extension, int filter, const struct member *member, size_t count)
{
    snprintf(path, sizeof path, "/tmp/draftd-dataset-%d%s", (int)getpid(), extension);
    struct archive *a = archive_write_new();
    archive_write_set_format_pax_restricted(a);
    archive_write_add_filter(a, filter);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *e = archive_entry_new();
        size_t size = member[i].content ? strlen(member[i].content) : 0;
        archive_entry_set_pathname(e, member[i].name);
        archive_entry_set_filetype(e, member[i].content ? AE_IFREG : AE_IFLNK);
        if (!member[i].content)
            archive_entry_set_symlink(e, "a.txt");
        archive_entry_set_size(e, (la_int64_t)size);
        archive_entry_set_perm(e, 0644);
        assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
        if (size)
            assert_int_equal(archive_write_data(a, member[i].content, size), size);
        archive_entry_free(e);
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
}

static void test_dataset__webdataset_shards_give_a_prompt_a_sample(void **state)
{
    (void)state;
    static const struct member members[] = {
        {"shard/000.jpg", "a picture"},
        {"shard/000.txt", "a red fox\n"},
        {"shard/000.json", "{\"caption\": \"not this\"}"},
        {"shard/001.json", "{\"caption\": \"an owl\", \"key\": \"001\"}"},
        {"shard/001.txt", " two\nlines "},
        {"shard/002.json", "{\"prompt\": \"a bear\"}"},
        {"shard/003.png", "no caption"},
        {"shard/004.txt", NULL},
        {"other/000.txt", "same base name elsewhere"},
        {"shard/.hidden.txt", "hidden"},
        {"shard/005.seg.txt", "another extension of 005"},
    };
    static const struct {
        const char *extension;
        int filter;
    } forms[] = {{".tar", ARCHIVE_FILTER_NONE},  {".tar.gz", ARCHIVE_FILTER_GZIP},
                 {".TGZ", ARCHIVE_FILTER_GZIP},  {".tar.bz2", ARCHIVE_FILTER_BZIP2},
                 {".tar.xz", ARCHIVE_FILTER_XZ}, {".tar.zst", ARCHIVE_FILTER_ZSTD}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        struct draftd_dataset d;
        struct draft_error err = {0};
        write_tar(forms[i].extension, forms[i].filter, members, sizeof members / sizeof members[0]);
        if (!draftd_dataset_read(path, &d, &err))
            fail_msg("%s", err.message);
        assert_int_equal(d.count, 4);
        assert_string_equal(d.prompts[0], "a red fox");
        assert_string_equal(d.prompts[1], "two lines");
        assert_string_equal(d.prompts[2], "a bear");
        assert_string_equal(d.prompts[3], "same base name elsewhere");
        draftd_dataset_free(&d);
        unlink(path);
    }
}

static void expect_tar_refusal(const struct member *member, size_t count, const char *words)
{
    struct draftd_dataset d;
    struct draft_error err = {0};
    write_tar(".tar.gz", ARCHIVE_FILTER_GZIP, member, count);
    assert_false(draftd_dataset_read(path, &d, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    if (strstr(err.message, words) == NULL || strstr(err.message, path) == NULL)
        fail_msg("expected \"%s\" in: %s", words, err.message);
    assert_null(d.prompts);
    unlink(path);
}

static void test_dataset__bad_shards_are_refused_by_member(void **state)
{
    (void)state;
    expect_tar_refusal((const struct member[]){{"a.txt", "\xff"}}, 1,
                       "member a.txt: byte 1 of the prompt is not UTF-8");
    expect_tar_refusal((const struct member[]){{"a.txt", "\n"}}, 1, "member a.txt: the prompt is empty");
    expect_tar_refusal((const struct member[]){{"b.json", "{"}}, 1, "member b.json: no JSON");
    expect_tar_refusal((const struct member[]){{"b.json", "{\"n\": 1}"}}, 1, "neither a string nor an object");
    expect_tar_refusal((const struct member[]){{"c.jpg", "x"}}, 1, "no sample in it has a .txt or .json member");
    char *large = malloc((1 << 20) + 2);
    memset(large, 'x', (1 << 20) + 1);
    large[(1 << 20) + 1] = '\0';
    expect_tar_refusal((const struct member[]){{"d.txt", large}}, 1, "member d.txt has more than 1048576 bytes");
    free(large);
}

static void test_dataset__damaged_archives_end_in_a_sentence(void **state)
{
    (void)state;
    expect_refusal(".tar", "this is no archive, but it is long enough to be looked at",
                   "the archive is damaged or no tar");
    expect_refusal(".tar.gz", "\x1f\x8b\x08", "the archive is damaged or no tar");
    static const struct member members[] = {{"a.txt", "one"}, {"b.txt", "two"}, {"c.json", "\"three\""}};
    write_tar(".tar", ARCHIVE_FILTER_NONE, members, 3);
    FILE *file = fopen(path, "r+e");
    char bytes[5000];
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    for (size_t cut = 1; cut < size; cut += 97) { /* cut short, and one byte changed: never a crash */
        struct draftd_dataset d;
        struct draft_error err = {0};
        write_bytes(".tar", bytes, cut);
        if (draftd_dataset_read(path, &d, &err))
            draftd_dataset_free(&d);
        else
            assert_true(err.message[0] != '\0');
        bytes[cut] ^= 0x55;
        write_bytes(".tar", bytes, size);
        err = (struct draft_error){0};
        if (draftd_dataset_read(path, &d, &err))
            draftd_dataset_free(&d);
        else
            assert_true(err.message[0] != '\0');
        bytes[cut] ^= 0x55;
    }
    unlink(path);
}

/* Deep JSON, a member that claims more than any shard has, and members that lead elsewhere. */
static void test_dataset__bombs_and_links_in_shards_do_no_harm(void **state)
{
    (void)state;
    char *deep = malloc(100001);
    memset(deep, '[', 100000);
    deep[100000] = '\0';
    expect_refusal(".jsonl", deep, "line 1: no JSON: maximum parsing depth reached");
    expect_tar_refusal((const struct member[]){{"a.json", deep}}, 1, "member a.json: no JSON: maximum parsing depth");
    free(deep);

    char header[512] = "huge.jpg";
    memcpy(header + 100, "0000644", 7);
    memcpy(header + 124, "\x80\0\0\0\0\0\0\x05\0\0\0\0", 12); /* base-256: 5 * 2^32 bytes */
    memcpy(header + 136, "00000000000", 11);
    header[156] = '0';
    memcpy(header + 257, "ustar\00000", 8);
    memset(header + 148, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof header; i++)
        sum += (unsigned char)header[i];
    snprintf(header + 148, 8, "%06o", sum);
    expect_refusal_bytes(".tar", header, sizeof header, "a member says that it has 21474836480 bytes; is it damaged");

    static const struct member members[] = {
        {"../../a.txt", "up"}, {"/etc/b.txt", "away"}, {"c.txt", NULL}, {"d.txt", "in"}};
    write_tar(".tar", ARCHIVE_FILTER_NONE, members, sizeof members / sizeof members[0]);
    struct draftd_dataset d;
    struct draft_error err = {0};
    assert_true(draftd_dataset_read(path, &d, &err)); /* names are keys of samples, no places */
    assert_int_equal(d.count, 3);
    assert_string_equal(d.prompts[2], "in");
    draftd_dataset_free(&d);
    unlink(path);
}

static void test_dataset__the_copy_gives_the_prompts_back(void **state)
{
    (void)state;
    struct draftd_dataset d = read_good(".txt", "a \"cat\"\nback\\slash\nä 猫 🐱\na \"cat\"\n"), again, first;
    struct draft_error err = {0};
    snprintf(path, sizeof path, "/tmp/draftd-dataset-%d.jsonl", (int)getpid());
    assert_true(draftd_dataset_write(&d, path, &err));
    assert_true(draftd_dataset_read(path, &again, &err));
    assert_int_equal(again.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(again.prompts[i], d.prompts[i]);
    assert_true(draftd_dataset_first(path, 8, &first, &err));
    assert_int_equal(first.count, 3); /* different ones */
    assert_string_equal(first.prompts[2], "ä 猫 🐱");
    draftd_dataset_free(&first);
    assert_true(draftd_dataset_first(path, 2, &first, &err));
    assert_int_equal(first.count, 2);
    draftd_dataset_free(&first);
    draftd_dataset_free(&again);
    draftd_dataset_free(&d);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dataset__text_is_a_prompt_a_line),
        cmocka_unit_test(test_dataset__jsonl_takes_strings_and_objects),
        cmocka_unit_test(test_dataset__csv_follows_rfc_4180),
        cmocka_unit_test(test_dataset__refusals_name_the_line),
        cmocka_unit_test(test_dataset__limits_are_held),
        cmocka_unit_test(test_dataset__only_regular_files_are_read),
        cmocka_unit_test(test_dataset__webdataset_shards_give_a_prompt_a_sample),
        cmocka_unit_test(test_dataset__bad_shards_are_refused_by_member),
        cmocka_unit_test(test_dataset__damaged_archives_end_in_a_sentence),
        cmocka_unit_test(test_dataset__bombs_and_links_in_shards_do_no_harm),
        cmocka_unit_test(test_dataset__the_copy_gives_the_prompts_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
