#include "op_case.h"

static const float NUMBERS[] = {3, -1.25f, 0.5f};
enum { ALPHA = 1, BETA = 2 };
enum { ALL_F32 = 3 }; /* bits of inputs that are F32 always: latents are */

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    struct draft_tensor *c = draft_new(g, DRAFT_F32, 1, (int64_t[]){3});
    assert_true(draft_written(g, c, memcpy(draft_write(g, c), NUMBERS, sizeof NUMBERS)));
    return draft_combine(g, c, ALPHA, in[0], BETA, context != NULL ? in[0] : in[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const double *b = c->context != NULL ? x[0] : x[1];
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = (double)NUMBERS[ALPHA] * x[0][i] + (b != NULL ? (double)NUMBERS[BETA] * b[i] : 0);
}

static void test_combine__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){
                    .in = {GIVEN(t, 3, 5, 7), GIVEN(t, 3, 5, 7)}, .run = run, .weights = ALL_F32, .twin = twin});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 9)}, .run = run, .weights = ALL_F32, .twin = twin});
    check_op(t, &(struct op_case){
                    .in = {GIVEN(t, 17)}, .run = run, .weights = ALL_F32, .twin = twin, .context = &(bool){true}});
}

static void test_combine__is_axpby_to_the_bit(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *in[] = {GIVEN(t, 333), GIVEN(t, 333)};
    const float *combined = draft_read(&t->g, run(&t->g, in, NULL));
    const float *axpby = draft_read(&t->g, draft_axpby(&t->g, NUMBERS[ALPHA], in[0], NUMBERS[BETA], in[1]));
    assert_ok(t);
    assert_memory_equal(combined, axpby, 333 * sizeof *axpby);
}

static void test_combine__refuses_two_shapes_and_numbers_that_are_not_there(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_combine(&t->g, GIVEN(t, 2), 0, GIVEN(t, 2, 3), 1, GIVEN(t, 3)), "combine", "[2, 3]");
    assert_refused(t, draft_combine(&t->g, GIVEN(t, 2), 0, GIVEN(t, 3), 2, GIVEN(t, 3)), "combine", "[2]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_combine__equals_its_double_twin),
        op_test_case(test_combine__is_axpby_to_the_bit),
        op_test_case(test_combine__refuses_two_shapes_and_numbers_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
