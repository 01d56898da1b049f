#include "op_case.h"

static void check(struct op_test *t, int64_t n, int64_t length)
{
    struct draft_tensor *x = GIVEN(t, n, length);
    x->needs_grad = false;
    struct draft_tensor *y = draft_pair_distances(&t->g, x);
    assert_ok(t);
    double *expected = op_array(n * n, sizeof *expected);
    for (int64_t i = 0; i < n * n; i++)
        for (int64_t k = 0; k < length; k++)
            expected[i] += pow((double)draft_f32(x)[i / n * length + k] - (double)draft_f32(x)[i % n * length + k], 2);
    assert_near("distance", 0, draft_f32(y), expected, n * n, 1e-7);
    for (int64_t i = 0; i < n * n; i++) {
        assert_true(draft_f32(y)[i] == draft_f32(y)[i % n * n + i / n]);
        assert_true(i % (n + 1) != 0 || draft_f32(y)[i] == 0);
    }
    free(expected);
}

static void test_pair_distances__are_squared_symmetric_and_zero_to_oneself(void **state)
{
    check(*state, 5, 1003);
    check(*state, 1, 8);
    check(*state, 2, 1);
}

static void test_pair_distances__refuses_what_is_no_list_of_vectors(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_pair_distances(&t->g, GIVEN(t, 2, 3, 4)), "pair_distances", "[n, length], got [2, 3, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_pair_distances__are_squared_symmetric_and_zero_to_oneself),
        op_test_case(test_pair_distances__refuses_what_is_no_list_of_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
