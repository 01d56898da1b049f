#include "op_case.h"

static void check(struct op_test *t, struct draft_tensor *x, int window, int stride)
{
    const int64_t *d = x->dim;
    int64_t oh = (d[1] - window) / stride + 1, ow = (d[2] - window) / stride + 1;
    bool was = draft_no_grad(&t->g);
    struct draft_tensor *y = draft_max_pool(&t->g, x, window, stride);
    t->g.recording = was;
    assert_ok(t);
    assert_true(y->dim[1] == oh && y->dim[2] == ow);
    for (int64_t i = 0; i < d[0] * oh * ow * d[3]; i++) {
        int64_t c = i % d[3], column = i / d[3] % ow, row = i / d[3] / ow % oh, n = i / d[3] / ow / oh;
        float largest = -INFINITY;
        for (int64_t p = 0; p < (int64_t)window * window; p++)
            largest = fmaxf(
                largest,
                draft_f32(
                    x)[((n * d[1] + row * stride + p / window) * d[2] + column * stride + p % window) * d[3] + c]);
        assert_true(draft_f32(y)[i] == largest);
    }
}

static void test_max_pool__takes_the_largest_of_each_window(void **state)
{
    struct op_test *t = *state;
    check(t, GIVEN(t, 2, 7, 9, 5), 3, 2);
    check(t, GIVEN(t, 1, 8, 6, 3), 3, 2); /* the last row and column are left over */
    check(t, GIVEN(t, 1, 4, 4, 1), 2, 2);
    check(t, GIVEN(t, 1, 3, 3, 2), 3, 1);
}

static void test_max_pool__shows_a_nan_instead_of_hiding_it(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 1, 2, 2, 1);
    x->needs_grad = false;
    for (int i = 0; i < 4; i++) {
        float kept = draft_f32(x)[i];
        draft_f32(x)[i] = NAN;
        assert_true(isnan(draft_f32(draft_max_pool(&t->g, x, 2, 2))[0]));
        draft_f32(x)[i] = kept;
    }
}

static void test_max_pool__is_refused_where_a_gradient_is_needed(void **state)
{
    struct op_test *t = *state;
    assert_null(draft_max_pool(&t->g, GIVEN(t, 1, 4, 4, 2), 2, 2));
    assert_int_equal(t->g.error.code, DRAFT_FAILED_PRECONDITION);
    assert_non_null(strstr(t->g.error.message, "max_pool has no gradient: "));
}

static void test_max_pool__refuses_a_picture_smaller_than_the_window(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_max_pool(&t->g, GIVEN(t, 1, 2, 4, 2), 3, 2), "max_pool", "3 x 3, got [1, 2, 4, 2]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_max_pool__takes_the_largest_of_each_window),
        op_test_case(test_max_pool__shows_a_nan_instead_of_hiding_it),
        op_test_case(test_max_pool__is_refused_where_a_gradient_is_needed),
        op_test_case(test_max_pool__refuses_a_picture_smaller_than_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
