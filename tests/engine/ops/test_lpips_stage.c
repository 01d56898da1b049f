#include "op_case.h"

static void test_lpips_stage__gives_unit_vectors_scaled_by_the_layer(void **state)
{
    struct op_test *t = *state;
    enum { N = 3, H = 3, W = 5, C = 37, POSITIONS = H * W };
    struct draft_tensor *x = GIVEN(t, N, H, W, C), *linear = GIVEN(t, C);
    x->needs_grad = linear->needs_grad = false;
    for (int c = 0; c < C; c++)
        draft_f32(linear)[c] = fabsf(draft_f32(linear)[c]);
    for (int c = 0; c < C; c++) /* a place where nothing is seen stays zero */
        draft_f32(x)[4 * C + c] = 0;
    struct draft_tensor *y = draft_lpips_stage(&t->g, x, linear);
    assert_ok(t);
    assert_true(y->rank == 2 && y->dim[0] == N && y->dim[1] == POSITIONS * C);
    double *expected = op_array(N * POSITIONS * C, sizeof *expected);
    for (int p = 0; p < N * POSITIONS; p++) {
        double square = 0;
        for (int c = 0; c < C; c++)
            square += pow((double)draft_f32(x)[p * C + c], 2);
        for (int c = 0; c < C; c++)
            expected[p * C + c] = (double)draft_f32(x)[p * C + c] / (sqrt(square) + 1e-10) *
                                  sqrt((double)draft_f32(linear)[c] / POSITIONS);
    }
    assert_near("vector", 0, draft_f32(y), expected, N * POSITIONS * C, 1e-6);
    free(expected);
}

static void test_lpips_stage__refuses_weights_of_other_channels(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_lpips_stage(&t->g, GIVEN(t, 1, 2, 2, 4), GIVEN(t, 3)), "lpips_stage",
                   "got [1, 2, 2, 4] and [3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_lpips_stage__gives_unit_vectors_scaled_by_the_layer),
        op_test_case(test_lpips_stage__refuses_weights_of_other_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
