/* Hostile safetensors files: every one is refused with a sentence, none crashes, hangs or eats memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"
#include "tensor/safetensors.h"

static char path[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(path, "/tmp/draft-attack-XXXXXX");
    return close(mkstemp(path));
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_raw(const void *bytes, size_t count)
{
    FILE *file = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static void write_file(uint64_t claimed, const char *header, size_t header_length, size_t data)
{
    unsigned char *all = calloc(1, 8 + header_length + data);
    for (int i = 0; i < 8; i++)
        all[i] = (unsigned char)(claimed >> 8 * i);
    memcpy(all + 8, header, header_length);
    write_raw(all, 8 + header_length + data);
    free(all);
}

/* The file must be refused with words in them, as valid UTF-8 and without control characters. */
static void refused(const char *words)
{
    struct draft_error err = {0};
    struct draft_safetensors *file = draft_safetensors_open(path, &err);
    if (file != NULL)
        fail_msg("accepted, expected \"%s\"", words);
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, path));
    if (strstr(err.message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_true(draft_utf8_valid(err.message, strlen(err.message), NULL));
    for (const char *p = err.message; *p != '\0'; p++)
        assert_true((unsigned char)*p >= 0x20);
}

#define ENTRY(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_safetensors_attacks__headers_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *words;
    } rows[] = {
        {"", 0, "its header is not JSON"},
        {"[]", 0, "its header is not a JSON object"},
        {"{\"a\":1}", 0, "a is not described by dtype, shape and data_offsets alone"},
        {"{\"a\":{}}", 0, "a is not described by"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "duplicate"},
        {"{\"\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "a tensor's name is empty"},
        {"{\"a\\u001b[2J\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "control characters"},
        {"{\"a\\u0000b\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "not JSON"},
        {"{\"a\xff\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "not JSON"},
        {"{\"a\":" ENTRY("F31", "[1]", "[0,4]") "}", 4, "a is stored as F31"},
        {"{\"a\":" ENTRY("F8_E4M3", "[4]", "[0,4]") "}", 4, "a is stored as F8_E4M3"},
        {"{\"a\":" ENTRY("\\u001b", "[4]", "[0,4]") "}", 4, "an unknown dtype"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "a has no dtype"},
        {"{\"a\":" ENTRY("F32", "7", "[0,4]") "}", 4, "a has no shape"},
        {"{\"a\":" ENTRY("F32", "[-1]", "[0,4]") "}", 4, "a dimension that is not a natural number"},
        {"{\"a\":" ENTRY("F32", "[1.5]", "[0,4]") "}", 4, "a dimension that is not a natural number"},
        {"{\"a\":" ENTRY("F32", "[\"1\"]", "[0,4]") "}", 4, "a dimension that is not a natural number"},
        {"{\"a\":" ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "more than 8 dimensions"},
        {"{\"a\":" ENTRY("F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "a shape too large to exist"},
        {"{\"a\":" ENTRY("F32", "[4611686018427387905]", "[0,4]") "}", 4, "a shape too large to exist"},
        {"{\"a\":" ENTRY("F32", "[9223372036854775807,9223372036854775807,0]", "[0,0]") "}", 0, "too large"},
        {"{\"a\":" ENTRY("F32", "[99999999999999999999]", "[0,4]") "}", 4, "not JSON"},
        {"{\"a\":" ENTRY("F32", "[1]", "[4]") "}", 4, "no pair of data_offsets in order"},
        {"{\"a\":" ENTRY("F32", "[1]", "[4,0]") "}", 4, "no pair of data_offsets in order"},
        {"{\"a\":" ENTRY("F32", "[1]", "[-4,0]") "}", 4, "no pair of data_offsets in order"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4.0]") "}", 4, "no pair of data_offsets in order"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,8]") "}", 4, "a lies beyond the end of the file"},
        {"{\"a\":" ENTRY("F32", "[1]", "[9223372036854775800,9223372036854775804]") "}", 4, "beyond the end"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,4]") "}", 4, "another number of bytes than its shape and dtype say"},
        {"{\"a\":" ENTRY("F16", "[2]", "[0,8]") "}", 8, "another number of bytes"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"b\":" ENTRY("F32", "[1]", "[0,4]") "}", 4, "overlaps"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,8]") ",\"b\":" ENTRY("F32", "[2]", "[4,12]") "}", 12, "overlaps"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"b\":" ENTRY("F32", "[1]", "[8,12]") "}", 12, "follows a hole"},
        {"{\"a\":" ENTRY("F32", "[1]", "[4,8]") "}", 8, "follows a hole"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", 9, "bytes at its end belong to no tensor"},
        {"{}", 1, "bytes at its end belong to no tensor"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"a\":{\"b\":1}}}", 0, "__metadata__ holds something that is not a string"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") "} x", 4, "not JSON"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"extra\":1}}", 4, "alone"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_file(strlen(rows[i].header), rows[i].header, strlen(rows[i].header), rows[i].data);
        refused(rows[i].words);
    }
}

static void test_safetensors_attacks__header_lengths_that_lie_are_refused(void **state)
{
    (void)state;
    const char *header = "{\"a\":" ENTRY("F32", "[1]", "[0,4]") "}";
    static const uint64_t claims[] = {UINT64_MAX,     INT64_MAX, (uint64_t)INT64_MAX + 1,
                                      UINT64_MAX - 7, 100000001, 8000001};
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        write_file(claims[i], header, strlen(header), 4);
        refused("its header claims more than 8 MB");
    }
    write_file(strlen(header) + 5, header, strlen(header), 4);
    refused("its header is longer than the file; is the download complete?");
    write_file(strlen(header) + 4, header, strlen(header), 4); /* the data would be read as JSON */
    refused("not JSON");
    write_file(0, header, strlen(header), 4);
    refused("not JSON");
}

static void test_safetensors_attacks__every_truncation_is_refused(void **state)
{
    (void)state;
    const char *header = "{\"a\":" ENTRY("F32", "[3]", "[0,12]") ",\"b\":" ENTRY("F16", "[2]", "[12,16]") "}";
    write_file(strlen(header), header, strlen(header), 16);
    struct draft_error err = {0};
    struct draft_safetensors *sound = draft_safetensors_open(path, &err);
    assert_non_null(sound);
    draft_safetensors_close(sound);
    for (long size = 8 + (long)strlen(header) + 15; size >= 0; size--) {
        assert_int_equal(truncate(path, size), 0);
        refused("");
    }
}

static void test_safetensors_attacks__random_damage_never_crashes(void **state)
{
    (void)state;
    const char *header = "{\"a\":" ENTRY("F32", "[2,1]", "[0,8]") ",\"__metadata__\":{\"k\":\"v\"},\"b\":" ENTRY(
        "F16", "[2]", "[8,12]") "}";
    size_t size = 8 + strlen(header) + 12;
    unsigned char *good = calloc(1, size), *bad = malloc(size);
    good[0] = (unsigned char)strlen(header);
    memcpy(good + 8, header, strlen(header));
    uint32_t noise = 1;
    int accepted = 0, descriptor = open(path, O_WRONLY);
    for (int round = 0; round < 5000; round++) {
        memcpy(bad, good, size);
        for (int hit = 0; hit <= round % 3; hit++) {
            noise = noise * 1664525u + 1013904223u;
            size_t at = noise >> 8;
            noise = noise * 1664525u + 1013904223u;
            bad[at % (8 + strlen(header))] = (unsigned char)(noise >> 24);
        }
        assert_int_equal(pwrite(descriptor, bad, size, 0), size);
        struct draft_error err = {0};
        struct draft_safetensors *file = draft_safetensors_open(path, &err);
        if (file == NULL) {
            assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
            assert_true(draft_utf8_valid(err.message, strlen(err.message), NULL));
            continue;
        }
        accepted++; /* a changed name or metadata is fine: then all of it must be readable */
        for (int i = 0; i < draft_safetensors_count(file); i++) {
            float out[16];
            assert_true(draft_safetensors_at(file, i)->bytes <= 12);
            draft_safetensors_to_f32(draft_safetensors_at(file, i), out, &err);
        }
        draft_safetensors_close(file);
    }
    assert_true(accepted > 5 && accepted < 2500);
    close(descriptor);
    free(good);
    free(bad);
}

static void test_safetensors_attacks__a_header_of_pure_structure_takes_bounded_memory(void **state)
{
    (void)state;
    enum { LENGTH = 8000000 };
    static const char *const patterns[] = {"[", "[],", "{},", "0,", "\"\","};
    char *header = malloc(LENGTH);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        size_t period = strlen(patterns[i]);
        for (size_t at = 0; at < LENGTH; at++)
            header[at] = patterns[i][at % period];
        memcpy(header, "{\"a\":[", 6);
        memcpy(header + LENGTH - 6, "[0]]}", 5);
        header[LENGTH - 1] = ' ';
        write_file(LENGTH, header, LENGTH, 0);
        struct draft_error err = {0};
        assert_null(draft_safetensors_open(path, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    }
    free(header);
#ifndef __SANITIZE_ADDRESS__ /* which keeps freed memory for a while */
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    assert_true(usage.ru_maxrss < 1000 * 1024); /* KiB */
#endif
}

static void test_safetensors_attacks__a_file_cut_after_opening_gives_an_error_not_a_fault(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char header[128];
    snprintf(header, sizeof header, "{\"a\":" ENTRY("F32", "[%d]", "[0,%d]") "}", N, 4 * N);
    write_file(strlen(header), header, strlen(header), 4 * (size_t)N);
    struct draft_error err = {0};
    struct draft_safetensors *file = draft_safetensors_open(path, &err);
    assert_non_null(file);
    assert_int_equal(truncate(path, 5000), 0);
    float *out = malloc(4 * (size_t)N);
    assert_false(draft_safetensors_to_f32(draft_safetensors_at(file, 0), out, &err));
    assert_int_equal(err.code, DRAFT_DATA_LOSS);
    assert_non_null(strstr(err.message, "became shorter while it was read"));
    free(out);
    draft_safetensors_close(file);
}

static void test_safetensors_attacks__what_is_no_regular_file_is_refused_at_once(void **state)
{
    (void)state;
    struct draft_error err = {0};
    unlink(path);
    assert_null(draft_safetensors_open(path, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    assert_int_equal(mkfifo(path, 0600), 0);
    refused("is not a regular file");
    err = (struct draft_error){0};
    assert_null(draft_safetensors_open("/dev/zero", &err));
    assert_non_null(strstr(err.message, "is not a regular file"));
    err = (struct draft_error){0};
    assert_null(draft_safetensors_open("/tmp", &err));
    assert_non_null(strstr(err.message, "is not a regular file"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_safetensors_attacks__headers_that_lie_are_refused),
        TEST(test_safetensors_attacks__header_lengths_that_lie_are_refused),
        TEST(test_safetensors_attacks__every_truncation_is_refused),
        TEST(test_safetensors_attacks__random_damage_never_crashes),
        TEST(test_safetensors_attacks__a_header_of_pure_structure_takes_bounded_memory),
        TEST(test_safetensors_attacks__a_file_cut_after_opening_gives_an_error_not_a_fault),
        TEST(test_safetensors_attacks__what_is_no_regular_file_is_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
