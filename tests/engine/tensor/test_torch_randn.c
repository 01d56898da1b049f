/* draft_torch_randn against PyTorch's own numbers. It stands here, above base, because the fixture is a safetensors
 * file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch_randn__gives_pytorchs_numbers_bit_for_bit),
        cmocka_unit_test(test_torch_randn__drops_the_upper_half_of_a_seed_as_pytorch_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
