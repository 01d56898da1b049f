#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "tensor/safetensors.h"

static char path[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(path, "/tmp/draft-safetensors-XXXXXX");
    return close(mkstemp(path));
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

static struct draft_safetensors *open_sound(const char *name)
{
    struct draft_error err = {0};
    struct draft_safetensors *file = draft_safetensors_open(name, &err);
    if (file == NULL)
        fail_msg("%s", err.message);
    return file;
}

static void test_safetensors__reads_what_pytorch_wrote(void **state)
{
    (void)state;
    struct draft_safetensors *file = open_sound(FIXTURES "/golden/clip_l/case.safetensors");
    const struct draft_safetensors_entry *ids = draft_safetensors_find(file, "ids");
    assert_int_equal(ids->dtype, DRAFT_I64);
    assert_int_equal(ids->rank, 2);
    assert_int_equal(ids->dim[0], 3);
    assert_int_equal(ids->dim[1], 20);
    int64_t first;
    memcpy(&first, ids->data, sizeof first);
    assert_int_equal(first, 198); /* begin-of-text of that fixture */
    assert_null(draft_safetensors_find(file, "nothing"));
    for (int i = 1; i < draft_safetensors_count(file); i++)
        assert_true(strcmp(draft_safetensors_at(file, i - 1)->name, draft_safetensors_at(file, i)->name) < 0);
    struct draft_error err = {0};
    assert_false(draft_safetensors_to_f32(ids, NULL, &err));
    assert_non_null(strstr(err.message, "ids is stored as I64, expected F32, F16, BF16 or F64"));
    draft_safetensors_close(file);

    file = open_sound(FIXTURES "/golden/samplers.safetensors");
    assert_non_null(strstr(draft_safetensors_metadata(file, "ddim"), "DDIMScheduler"));
    assert_null(draft_safetensors_metadata(file, "nothing"));
    draft_safetensors_close(file);
}

static const float numbers[] = {1, -2, 0.5f, 65504, 0, 1e-7f};
static const int64_t integers[] = {7, INT64_MIN};

static void write_three(const char *const *metadata)
{
    struct draft_error err = {0};
    const struct draft_safetensors_item items[] = {
        {"b.half", DRAFT_F16, 2, {2, 3}, numbers}, {"c.long", DRAFT_I64, 1, {2}, integers},
        {"a.single", DRAFT_F32, 1, {3}, numbers},  {"d.scalar", DRAFT_F32, 0, {0}, numbers},
        {"e.empty", DRAFT_F32, 2, {0, 4}, NULL},
    };
    if (!draft_safetensors_write(path, items, 5, metadata, &err))
        fail_msg("%s", err.message);
}

static void test_safetensors__reads_back_what_it_wrote(void **state)
{
    (void)state;
    struct draft_error err = {0};
    write_three((const char *const[]){"ss_network_dim", "4", "quote \"", "\xC3\xA9\n", NULL});
    struct draft_safetensors *file = open_sound(path);
    assert_int_equal(draft_safetensors_count(file), 5);
    assert_string_equal(draft_safetensors_metadata(file, "ss_network_dim"), "4");
    assert_string_equal(draft_safetensors_metadata(file, "quote \""), "\xC3\xA9\n");
    float back[6];
    const struct draft_safetensors_entry *half = draft_safetensors_find(file, "b.half");
    assert_int_equal(half->dtype, DRAFT_F16);
    assert_true(draft_safetensors_to_f32(half, back, &err));
    for (int i = 0; i < 5; i++)
        assert_true(back[i] == numbers[i]);
    assert_true(fabsf(back[5] - 1e-7f) <= 0x1p-25f);
    assert_true(draft_safetensors_to_f32(draft_safetensors_find(file, "a.single"), back, &err));
    assert_memory_equal(back, numbers, 12);
    assert_memory_equal(draft_safetensors_find(file, "c.long")->data, integers, sizeof integers);
    assert_int_equal(draft_safetensors_find(file, "d.scalar")->rank, 0);
    assert_int_equal(draft_safetensors_find(file, "e.empty")->bytes, 0);
    for (int i = 0; i < 5; i++) {
        const struct draft_safetensors_entry *entry = draft_safetensors_at(file, i);
        assert_int_equal(entry->offset % draft_dtype_size(entry->dtype), 0);
    }
    draft_safetensors_close(file);
}

static void test_safetensors__gives_equal_bytes_for_equal_input(void **state)
{
    (void)state;
    char first[DRAFT_CHECKSUM_SIZE], second[DRAFT_CHECKSUM_SIZE];
    struct draft_error err = {0};
    write_three(NULL);
    assert_true(draft_checksum_file(path, first, NULL, &err));
    write_three(NULL);
    assert_true(draft_checksum_file(path, second, NULL, &err));
    assert_string_equal(first, second);
}

static void test_safetensors__never_writes_a_finite_number_as_infinity(void **state)
{
    (void)state;
    struct draft_error err = {0};
    write_three(NULL);
    const float big[] = {1, 70000};
    const struct draft_safetensors_item item = {"up.weight", DRAFT_F16, 1, {2}, big};
    assert_false(draft_safetensors_write(path, &item, 1, NULL, &err));
    assert_non_null(strstr(err.message, "up.weight holds 70000"));
    struct draft_safetensors *file = open_sound(path); /* the old file is whole */
    assert_int_equal(draft_safetensors_count(file), 5);
    draft_safetensors_close(file);
}

static void test_safetensors__refuses_to_write_names_that_are_no_text(void **state)
{
    (void)state;
    struct draft_error err = {0};
    const struct draft_safetensors_item item = {"\xff", DRAFT_F32, 1, {2}, numbers};
    assert_false(draft_safetensors_write(path, &item, 1, NULL, &err));
    err = (struct draft_error){0};
    const struct draft_safetensors_item good = {"x", DRAFT_F32, 1, {2}, numbers};
    assert_false(draft_safetensors_write(path, &good, 1, (const char *const[]){"k", "\xff", NULL}, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors__reads_what_pytorch_wrote),
        cmocka_unit_test_setup_teardown(test_safetensors__reads_back_what_it_wrote, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_safetensors__gives_equal_bytes_for_equal_input, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_safetensors__never_writes_a_finite_number_as_infinity, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_safetensors__refuses_to_write_names_that_are_no_text, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
