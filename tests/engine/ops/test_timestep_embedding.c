#include "op_case.h"

/* diffusers' get_timestep_embedding in double; its angles are float32, so at t = 999 they are good to 6e-5. */
static void check(struct op_test *t, double step, int64_t n, int64_t dim, bool flip, double shift, double tolerance)
{
    struct draft_tensor *y = draft_timestep_embedding(&t->g, draft_scalar(&t->g, step), n, dim, flip, shift);
    assert_ok(t);
    assert_false(y->needs_grad);
    int64_t half = dim / 2;
    for (int64_t i = 0; i < n * dim; i++) {
        int64_t k = i % dim;
        double angle = step * exp(-log(10000.0) * (double)(k % half) / ((double)half - shift));
        bool sine = (k < half) != flip;
        double expected = k == 2 * half ? 0 : sine ? sin(angle) : cos(angle);
        assert_true(fabs(draft_f32(y)[i] - expected) <= tolerance);
    }
}

static void test_timestep_embedding__equals_diffusers_formula(void **state)
{
    struct op_test *t = *state;
    check(t, 1, 3, 32, true, 0, 1e-6);
    check(t, 0, 1, 8, true, 0, 1e-7);
    check(t, 999, 2, 320, true, 0, 1e-4);
    check(t, 17, 1, 64, false, 1, 5e-6);
}

static void test_timestep_embedding__ends_an_odd_width_with_zero(void **state)
{
    struct op_test *t = *state;
    check(t, 3, 2, 9, true, 0, 1e-6);
}

/* torch.sin and torch.cos of float32 angles: exponent, exponential and product each rounded to float */
static void test_timestep_embedding__rounds_its_angles_as_diffusers_does(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *y = draft_timestep_embedding(&t->g, draft_scalar(&t->g, 981), 1, 320, true, 0);
    for (int i = 0; i < 160; i++) {
        float exponent = -9.210340371976184f * (float)i / 160.0f;
        float angle = 981.0f * (float)exp((double)exponent);
        assert_true(fabs((double)draft_f32(y)[i] - cos((double)angle)) <= 1e-7);
    }
}

static void test_timestep_embedding__refuses_a_width_without_frequencies(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *one = draft_scalar(&t->g, 1);
    assert_refused(t, draft_timestep_embedding(&t->g, one, 1, 1, true, 0), "timestep_embedding", "width of 1");
    assert_refused(t, draft_timestep_embedding(&t->g, one, 1, 4, true, 2), "timestep_embedding", "shift of 2");
    assert_refused(t, draft_timestep_embedding(&t->g, GIVEN(t, 2), 1, 4, true, 0), "timestep_embedding", "[2]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_timestep_embedding__equals_diffusers_formula),
        op_test_case(test_timestep_embedding__ends_an_odd_width_with_zero),
        op_test_case(test_timestep_embedding__rounds_its_angles_as_diffusers_does),
        op_test_case(test_timestep_embedding__refuses_a_width_without_frequencies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
