#include "op_case.h"

#include "tensor/half.h"

enum { N = 4 };
static const float EXACT[N] = {1, -2.5f, 0x1p-130f, 0x1.fep127f};
/* 1 + 1/256 lies between 1 and 1 + 1/128: the even one is 1; 1 + 3/256 goes up to 1 + 1/64. */
static const float FINE[N] = {1.00390625f, 1.01171875f, -0.1f, 65504},
                   ROUNDED[N] = {1, 1.015625f, -0.10009765625f, 65536};

static struct draft_tensor *leaf(struct op_test *t, const float *values)
{
    struct draft_tensor *x = GIVEN(t, N);
    memcpy(x->data, values, sizeof EXACT);
    return x;
}

static void assert_values(const float *got, const float *expected)
{
    for (int i = 0; i < N; i++)
        if (got[i] != expected[i])
            fail_msg("element %d: %.9g, expected %.9g", i, (double)got[i], (double)expected[i]);
}

static void test_convert__rounds_to_nearest_even_and_widens_exactly(void **state)
{
    struct op_test *t = *state;
    const float *const given_values[] = {EXACT, FINE}, *const expected[] = {EXACT, ROUNDED};
    for (int i = 0; i < 2; i++) {
        struct draft_tensor *half = draft_convert(&t->g, leaf(t, given_values[i]), DRAFT_BF16);
        assert_ok(t);
        assert_int_equal(half->dtype, DRAFT_BF16);
        assert_values(draft_read(&t->g, half), expected[i]);
        assert_values(draft_read(&t->g, draft_convert(&t->g, half, DRAFT_F32)), expected[i]);
    }
}

static void test_convert__gradients_come_back_in_the_type_of_what_they_are_of(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = leaf(t, EXACT);
    float grad[N] = {1, 1, 1, 1};
    x->grad = grad;
    x->grad_written = true;
    struct draft_tensor *y = draft_convert(&t->g, draft_convert(&t->g, x, DRAFT_BF16), DRAFT_F32);
    assert_true(draft_graph_backward(&t->g, y, FINE) || (assert_ok(t), false));
    for (int i = 0; i < N; i++)
        assert_true(grad[i] == 1 + ROUNDED[i]);
    x->grad = NULL;
    x->grad_written = false;
}

static void test_convert__of_the_same_type_is_nothing(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 3);
    assert_ptr_equal(draft_convert(&t->g, x, DRAFT_F32), x);
    struct draft_tensor *ids = draft_new(&t->g, DRAFT_I32, 1, (int64_t[]){2});
    assert_refused(t, draft_convert(&t->g, ids, DRAFT_F32), "convert", "I32 [2]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_convert__rounds_to_nearest_even_and_widens_exactly),
        op_test_case(test_convert__gradients_come_back_in_the_type_of_what_they_are_of),
        op_test_case(test_convert__of_the_same_type_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
