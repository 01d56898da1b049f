/* The optimizer against train/adamw.c's formulas in double, the timestep embedding against the CPU's, the clock. */
#include <time.h>

#include "engine/backend/cuda/cpu_reference.h"

struct update {
    int64_t n;
    double max_norm;
    int bad;       /* the element that is not a number, or -1 */
    bool bad_loss; /* one of those that must be finite is not */
};

enum { STEPS = 3 };

static void run_updates(enum draft_dtype type, const void *context)
{
    (void)type;
    const struct update *u = context;
    const double rate = 1e-2, beta1 = 0.9, beta2 = 0.99, epsilon = 1e-8, decay = 0.1;
    const size_t bytes = (size_t)u->n * sizeof(float);
    float *start = numbers(DRAFT_F32, u->n, 1, 0), *g = numbers(DRAFT_F32, u->n, 0.1, 0);
    float *x = device(DRAFT_F32, u->n, start), *m = memory(bytes), *v = memory(bytes);
    memset(m, 0, bytes);
    memset(v, 0, bytes);
    double *want = memory((size_t)u->n * sizeof *want), sum = 0, norm = 0;
    for (int64_t i = 0; i < u->n; i++)
        sum += (double)g[i] * (double)g[i];
    norm = sqrt(sum);
    double factor = fmin(1, u->max_norm / (norm + 1e-6));
    for (int64_t i = 0; i < u->n; i++) {
        double p = (double)start[i], first = 0, second = 0, d = (double)g[i] * factor;
        for (int t = 1; t <= STEPS; t++) {
            first = beta1 * first + (1 - beta1) * d;
            second = beta2 * second + (1 - beta2) * d * d;
            p -= rate * decay * p;
            p -= rate * first / (1 - pow(beta1, t)) / (sqrt(second / (1 - pow(beta2, t))) + epsilon);
        }
        want[i] = p;
    }
    if (u->bad >= 0)
        g[u->bad] = NAN;
    struct draft_cuda_norm *measured = memory(sizeof *measured);
    float *loss = memory(2 * sizeof *loss);
    loss[0] = -3;
    loss[1] = u->bad_loss ? INFINITY : 1;
    const struct draft_guard guard = {loss, 2, memory(sizeof(double))};
    for (int t = 1; t <= STEPS; t++) {
        struct draft_cuda_adamw_step *step = memory(sizeof *step);
        *step = (struct draft_cuda_adamw_step){.max_norm = u->max_norm,
                                               .keep = (float)(1 - rate * decay),
                                               .step = (float)(rate / (1 - pow(beta1, t))),
                                               .root2 = (float)sqrt(1 - pow(beta2, t)),
                                               .epsilon = (float)epsilon,
                                               .beta2 = (float)beta2,
                                               .new1 = (float)(1 - beta1),
                                               .new2 = (float)(1 - beta2)};
        draft_cuda_gradient_norm(NULL, u->n, step, g, &guard, measured, memory(draft_cuda_gradient_norm_scratch(u->n)));
        draft_cuda_adamw(NULL, u->n, step, measured, g, x, m, v);
    }
    assert_memory_equal(guard.norm, &measured->norm, sizeof(double));
    if (u->bad >= 0 || u->bad_loss) {
        assert_true(isnan(measured->norm) == (u->bad >= 0));
        check("left alone", DRAFT_F32, u->n, x, start, 0);
        return;
    }
    assert_true(fabs(measured->norm / norm - 1) < 1e-12);
    float *to = memory(bytes), *moved = memory(bytes), *should = memory(bytes);
    for (int64_t i = 0; i < u->n; i++) {
        to[i] = (float)want[i];
        moved[i] = x[i] - start[i];
        should[i] = (float)(want[i] - (double)start[i]);
    }
    check("parameters", DRAFT_F32, u->n, x, to, 1e-6);
    check("what the updates moved", DRAFT_F32, u->n, moved, should, 2e-5);
}

static void test_cuda_training__adamw(void **state)
{
    (void)state;
    static const struct update updates[] = {{5000, INFINITY, -1, false}, {5000, 0.5, -1, false}, {77, 0.5, -1, false},
                                            {100, 1, 42, false},         {1, 1, -1, false},      {9, 1, -1, true}};
    for (size_t i = 0; i < sizeof updates / sizeof *updates; i++)
        in_every_order("adamw", DRAFT_F32, run_updates, &updates[i]);
}

static void run_average(enum draft_dtype type, const void *context)
{
    (void)type;
    const int64_t n = *(const int64_t *)context;
    float *start = numbers(DRAFT_F32, n, 1, 0), *x = numbers(DRAFT_F32, n, 1, 0), *want = memory((size_t)n * 4);
    float *average = device(DRAFT_F32, n, start), *parameter = device(DRAFT_F32, n, x);
    for (int64_t i = 0; i < n; i++)
        want[i] = (float)(0.75 * (double)start[i] + 0.25 * (double)x[i]);
    draft_cuda_approach(NULL, n, 0.25f, parameter, average);
    check("average", DRAFT_F32, n, average, want, 1e-6);
    float *kept = copied(n, average);
    draft_cuda_exchange(NULL, n, parameter, average);
    check("parameters in the average's place", DRAFT_F32, n, average, x, 0);
    check("averages in the parameters' place", DRAFT_F32, n, parameter, kept, 0);
}

static void test_cuda_training__averages_follow_and_change_places(void **state)
{
    (void)state;
    static const int64_t counts[] = {1024, 77, 1};
    for (int i = 0; i < 3; i++)
        in_every_order("average", DRAFT_F32, run_average, &counts[i]);
}

struct timestep {
    int64_t n, dim;
    bool flip;
    double t, shift;
};

static struct draft_tensor *timestep(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)in;
    const struct timestep *t = context;
    return draft_timestep_embedding(g, draft_scalar(g, t->t), t->n, t->dim, t->flip, t->shift);
}

static void run_timestep(enum draft_dtype type, const void *context)
{
    const struct timestep *t = context;
    struct cpu_result want = on_cpu(timestep, t, NULL, 0, NULL);
    float *t_at = memory(sizeof *t_at);
    *t_at = (float)t->t;
    void *y = device(type, want.count, NULL);
    draft_cuda_timestep_embedding(NULL, type, t->n, t->dim, (float)t->shift, t->flip, t_at, y);
    check("sinusoids", type, want.count, y, want.y, type == DRAFT_F32 ? 0 : BOUND[type]);
}

static void test_cuda_training__timesteps_are_the_cpus(void **state)
{
    (void)state;
    static const struct timestep cases[] = {{2, 320, true, 981, 0}, {1, 7, false, 3.5, 1}};
    for (int i = 0; i < 2; i++)
        in_every_way("timestep", run_timestep, &cases[i]);
}

static void test_cuda_training__laps_add_up_what_passes_between_them(void **state)
{
    (void)state;
    const struct timespec pause = {.tv_nsec = 2000000};
    double *last = memory(sizeof *last), *sum = memory(2 * sizeof *sum);
    sum[0] = sum[1] = 0;
    draft_cuda_lap(NULL, last, NULL);
    const double start = *last;
    for (int i = 0; i < 2; i++) { /* what is between them is the other's */
        nanosleep(&pause, NULL);
        draft_cuda_lap(NULL, last, &sum[0]);
        draft_cuda_lap(NULL, last, &sum[1]);
    }
    assert_true(sum[0] >= 4e-3 && sum[1] > 0 && sum[1] < sum[0]);
    assert_true(fabs(sum[0] + sum[1] - (*last - start)) < 1e-8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_training__adamw),
        cmocka_unit_test(test_cuda_training__averages_follow_and_change_places),
        cmocka_unit_test(test_cuda_training__timesteps_are_the_cpus),
        cmocka_unit_test(test_cuda_training__laps_add_up_what_passes_between_them),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
