#include "op_case.h"

enum { X, GAMMA, BETA };
enum { WEIGHTS = 1 << GAMMA | 1 << BETA }; /* bits of inputs that are F32 always */

struct settings {
    int groups;
    float eps;
    bool silu;
};

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const struct settings *s = context;
    return draft_group_norm(g, in[X], in[GAMMA], in[BETA], s->groups, s->eps, s->silu);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const struct settings *s = c->context;
    int64_t n = c->in[X]->dim[0], p = draft_positions(c->in[X]), ch = draft_last(c->in[X]), per = ch / s->groups;
    for (int64_t i = 0; i < n * s->groups; i++) {
        const double *xg = x[X] + i / s->groups * p * ch + i % s->groups * per;
        double *yg = y + (xg - x[X]), sum = 0, square = 0;
        for (int64_t j = 0; j < p * per; j++)
            sum += xg[j / per * ch + j % per];
        double mean = sum / (double)(p * per);
        for (int64_t j = 0; j < p * per; j++)
            square += pow(xg[j / per * ch + j % per] - mean, 2);
        double inverse = 1 / sqrt(square / (double)(p * per) + (double)s->eps);
        for (int64_t j = 0; j < p * per; j++) {
            int64_t k = j / per * ch + j % per, channel = i % s->groups * per + j % per;
            double u = x[GAMMA][channel] * (xg[k] - mean) * inverse + x[BETA][channel];
            yg[k] = s->silu ? u / (1 + exp(-u)) : u;
        }
    }
}

static void test_group_norm__equals_its_double_twin_on_an_image(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 5, 3, 12), GIVEN(t, 12), GIVEN(t, 12)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &(struct settings){4, 1e-5f, false}});
}

static void test_group_norm__puts_silu_on_top(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 3, 5, 10), GIVEN(t, 10), GIVEN(t, 10)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &(struct settings){2, 1e-6f, true}});
}

static void test_group_norm__takes_a_sequence_and_one_channel_a_group(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 70, 3), GIVEN(t, 3), GIVEN(t, 3)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &(struct settings){3, 1e-5f, true}});
}

/* tiny activations on a large offset: a variance of squares minus square of mean would be noise */
static void test_group_norm__keeps_its_digits_far_from_zero(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 1, 6, 6, 8);
    for (int64_t i = 0; i < draft_tensor_count(x); i++)
        draft_f32(x)[i] = 1 + draft_f32(x)[i] / 64;
    check_op(t, &(struct op_case){.in = {x, GIVEN(t, 8), GIVEN(t, 8)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &(struct settings){2, 1e-6f, false},
                                  .forward = 1e-5,
                                  .gradient = 1e-4});
}

static void test_group_norm__refuses_groups_that_do_not_divide_the_channels(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 1, 2, 2, 6), *six = GIVEN(t, 6), *five = GIVEN(t, 5);
    assert_refused(t, draft_group_norm(g, x, six, six, 4, 1e-5f, true), "group_norm", "4 groups");
    assert_refused(t, draft_group_norm(g, x, six, five, 2, 1e-5f, true), "group_norm", "and [5]");
    assert_refused(t, draft_group_norm(g, GIVEN(t, 2, 6), six, six, 2, 1e-5f, true), "group_norm", "[2, 6]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_group_norm__equals_its_double_twin_on_an_image),
        op_test_case(test_group_norm__puts_silu_on_top),
        op_test_case(test_group_norm__takes_a_sequence_and_one_channel_a_group),
        op_test_case(test_group_norm__keeps_its_digits_far_from_zero),
        op_test_case(test_group_norm__refuses_groups_that_do_not_divide_the_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
