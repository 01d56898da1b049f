/* draft_torch_randn against PyTorch's own numbers. It stands here, above base, because the fixture is a safetensors
 * file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "tensor/safetensors.h"

static void test_torch_randn__gives_pytorchs_numbers_bit_for_bit(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_safetensors *file = draft_safetensors_open(FIXTURES "/golden/torch_randn.safetensors", &err);
    if (file == NULL)
        fail_msg("%s", err.message);
    size_t total = 0;
    for (int i = 0; i < draft_safetensors_count(file); i++) {
        const struct draft_safetensors_entry *entry = draft_safetensors_at(file, i);
        size_t n = entry->bytes / sizeof(float);
        float *expected = malloc(entry->bytes), *found = malloc(entry->bytes);
        assert_true(draft_safetensors_to_f32(entry, expected, &err));
        draft_torch_randn(strtoull(entry->name, NULL, 10), found, n);
        for (size_t k = 0; k < n; k++)
            if (memcmp(&expected[k], &found[k], sizeof *found) != 0)
                fail_msg("%s[%zu] is %.9g, expected %.9g", entry->name, k, (double)found[k], (double)expected[k]);
        total += n;
        free(expected);
        free(found);
    }
    draft_safetensors_close(file);
    assert_true(total > 50000);
}

static void test_torch_randn__drops_the_upper_half_of_a_seed_as_pytorch_does(void **state)
{
    (void)state;
    float low[20], high[20];
    draft_torch_randn(7, low, 20);
    draft_torch_randn(7 + (UINT64_C(5) << 32), high, 20);
    assert_memory_equal(low, high, sizeof low);
}

/* Draws of one generator, one after the other: <seed>/<place>/<n>. Small odd ones leave the second of a pair behind. */
static void test_torch_randn__goes_on_where_the_last_draw_ended(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_safetensors *file = draft_safetensors_open(FIXTURES "/torch_generator.safetensors", &err);
    if (file == NULL)
        fail_msg("%s", err.message);
    static const char *const seeds[] = {"0", "7", "2147483653"};
    static const int sizes[] = {5, 17, 3, 1, 64, 15, 1024, 2, 16, 700, 1};
    for (size_t s = 0; s < sizeof seeds / sizeof *seeds; s++) {
        struct draft_torch_generator generator;
        draft_torch_generator_seed(&generator, strtoull(seeds[s], NULL, 10));
        for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
            char name[64];
            float expected[1024], found[1024];
            snprintf(name, sizeof name, "%s/%02d/%d", seeds[s], i, sizes[i]);
            assert_true(draft_safetensors_to_f32(draft_safetensors_find(file, name), expected, &err));
            draft_torch_generator_randn(&generator, found, (size_t)sizes[i]);
            if (memcmp(expected, found, (size_t)sizes[i] * sizeof *found) != 0)
                fail_msg("%s differs", name);
        }
    }
    draft_safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_randn__gives_pytorchs_numbers_bit_for_bit),
        cmocka_unit_test(test_torch_randn__drops_the_upper_half_of_a_seed_as_pytorch_does),
        cmocka_unit_test(test_torch_randn__goes_on_where_the_last_draw_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
