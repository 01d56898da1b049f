#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/half.h"
#include "tensor/tensor.h"

static void test_tensor__knows_dtypes_by_safetensors_names(void **state)
{
    (void)state;
    assert_string_equal(draft_dtype_name(DRAFT_BF16), "BF16");
    assert_string_equal(draft_dtype_name(DRAFT_F64), "F64");
    assert_int_equal(draft_dtype_size(DRAFT_F32), 4);
    assert_int_equal(draft_dtype_size(DRAFT_F16), 2);
    assert_int_equal(draft_dtype_size(DRAFT_I64), 8);
}

static void test_tensor__writes_shapes(void **state)
{
    (void)state;
    char text[24];
    assert_string_equal(draft_shape_text(4, (int64_t[]){2, 16, 16, 64}, text, sizeof text), "[2, 16, 16, 64]");
    assert_string_equal(draft_shape_text(0, NULL, text, sizeof text), "[]");
    const int64_t big[] = {INT64_MAX, INT64_MAX};
    draft_shape_text(2, big, text, sizeof text);
    assert_true(strlen(text) < sizeof text);
    assert_non_null(strstr(text, "...]"));
}

/* C's own double arithmetic says what a half is worth. */
static double worth(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    double sign = half & 0x8000 ? -1 : 1;
    if (exponent == 0)
        return sign * ldexp(mantissa, -24);
    return sign * ldexp(1024 + mantissa, exponent - 25);
}

static void test_tensor__widens_every_half_exactly_and_narrows_it_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        float wide = draft_f16_to_f32((uint16_t)half);
        if ((half & 0x7c00) == 0x7c00) {
            assert_true(half & 0x3ff ? isnan(wide) : isinf(wide) && (wide < 0) == (half >> 15));
            continue;
        }
        assert_true((double)wide == worth((uint16_t)half) && !!signbit(wide) == half >> 15);
        assert_int_equal(draft_f32_to_f16(wide), half);
    }
}

static void test_tensor__narrows_to_the_nearest_half_ties_to_even(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x7bff; half++) {
        double low = worth((uint16_t)half), high = worth((uint16_t)(half + 1)), middle = (low + high) / 2;
        assert_int_equal(draft_f32_to_f16((float)middle), half + (half & 1));
        assert_int_equal(draft_f32_to_f16(nextafterf((float)middle, 0)), half);
        assert_int_equal(draft_f32_to_f16(nextafterf((float)middle, INFINITY)), half + 1);
        assert_int_equal(draft_f32_to_f16((float)-middle), 0x8000 | (half + (half & 1)));
    }
    assert_int_equal(draft_f32_to_f16(65519.9f), 0x7bff);
    assert_int_equal(draft_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(draft_f32_to_f16(-1e30f), 0xfc00);
    assert_true((draft_f32_to_f16(NAN) & 0x7fff) > 0x7c00);
}

static void test_tensor__widens_bfloat16(void **state)
{
    (void)state;
    assert_true(draft_bf16_to_f32(0x3f80) == 1.0f && draft_bf16_to_f32(0xc049) == -3.140625f);
    assert_true(isnan(draft_bf16_to_f32(0x7fc0)) && isinf(draft_bf16_to_f32(0xff80)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensor__knows_dtypes_by_safetensors_names),
        cmocka_unit_test(test_tensor__writes_shapes),
        cmocka_unit_test(test_tensor__widens_every_half_exactly_and_narrows_it_back),
        cmocka_unit_test(test_tensor__narrows_to_the_nearest_half_ties_to_even),
        cmocka_unit_test(test_tensor__widens_bfloat16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
