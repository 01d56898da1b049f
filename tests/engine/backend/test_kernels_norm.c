#include "engine/backend/every_backend.h"

static const double BOUND = 2e-6;

struct norm_case {
    struct draft_group_norm_shape shape; /* LayerNorm: n = rows, positions = 1, groups = 1 */
    bool layer, accumulate, in_place;
    float *x, *gamma, *beta, *dy;
};

static void run_norm(struct draft_backend *backend, void *context, struct output *out)
{
    struct norm_case *c = context;
    const struct draft_group_norm_shape *s = &c->shape;
    struct draft_error err = {0};
    int64_t count = s->n * s->positions * s->c;
    float *stats = malloc((size_t)(s->n * s->groups * 2) * sizeof(float));
    assert_non_null(stats);
    const float *dy = c->dy;
    if (c->in_place) {
        memcpy(out[1].got, c->dy, (size_t)count * sizeof(float));
        dy = out[1].got;
    }
    struct draft_norm_gradients g = {out[1].got, out[2].got, out[3].got, c->accumulate, c->accumulate, c->accumulate};
    if (c->layer) {
        assert_true(
            draft_cpu_layer_norm(backend, s->n, s->c, s->eps, c->x, c->gamma, c->beta, out[0].got, stats, &err));
        assert_true(draft_cpu_layer_norm_backward(backend, s->n, s->c, c->x, c->gamma, stats, dy, &g, &err));
    } else {
        assert_true(draft_cpu_group_norm(backend, s, c->x, c->gamma, c->beta, out[0].got, stats, &err));
        assert_true(draft_cpu_group_norm_backward(backend, s, c->x, c->gamma, c->beta, stats, dy, &g, &err));
    }
    free(stats);
}

static void twin(const struct norm_case *c, double *y, double *dx, double *dgamma, double *dbeta)
{
    const struct draft_group_norm_shape *s = &c->shape;
    int64_t width = s->c / s->groups;
    double count = (double)(width * s->positions);
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t g = 0; g < s->groups; g++) {
            double mean = 0, variance = 0, sum = 0, sum_hat = 0;
#define EACH                                                                                                           \
    for (int64_t p = 0; p < s->positions; p++)                                                                         \
        for (int64_t q = g * width, at = (i * s->positions + p) * s->c + q; q < (g + 1) * width; q++, at++)
            EACH mean += (double)c->x[at] / count;
            EACH variance += ((double)c->x[at] - mean) * ((double)c->x[at] - mean) / count;
            double rstd = 1 / sqrt(variance + (double)s->eps);
            for (int pass = 0; pass < 2; pass++)
                EACH
                {
                    double hat = ((double)c->x[at] - mean) * rstd, z = hat * (double)c->gamma[q] + (double)c->beta[q];
                    double sigmoid = 1 / (1 + exp(-z)), dz = (double)c->dy[at];
                    if (s->silu)
                        dz *= sigmoid * (1 + z * (1 - sigmoid));
                    if (pass == 0) {
                        y[at] = s->silu ? z * sigmoid : z;
                        sum += dz * (double)c->gamma[q];
                        sum_hat += dz * (double)c->gamma[q] * hat;
                        dgamma[q] += dz * hat;
                        dbeta[q] += dz;
                    } else {
                        dx[at] = rstd * (dz * (double)c->gamma[q] - sum / count - hat * sum_hat / count);
                    }
                }
#undef EACH
        }
}

/* `scale` and `shift`: of the inputs. */
static void check_norm(struct draft_group_norm_shape s, bool layer, double scale, double shift, double bound)
{
    for (int variant = 0; variant < 3; variant++) {
        struct norm_case c = {.shape = s, .layer = layer, .accumulate = variant == 1, .in_place = variant == 2};
        int64_t count = s.n * s.positions * s.c;
        c.x = numbers(count, scale);
        for (int64_t i = 0; i < count; i++)
            c.x[i] += (float)shift;
        c.gamma = numbers(s.c, 1);
        c.beta = numbers(s.c, 1);
        c.dy = numbers(count, 1);
        float *dx0 = numbers(count, 1), *dgamma0 = numbers(s.c, 1), *dbeta0 = numbers(s.c, 1);
        double *y = zeros(count), *dx = zeros(count), *dgamma = zeros(s.c), *dbeta = zeros(s.c);
        twin(&c, y, dx, dgamma, dbeta);
        for (int64_t i = 0; i < count && c.accumulate; i++)
            dx[i] += (double)dx0[i];
        for (int64_t i = 0; i < s.c && c.accumulate; i++) {
            dgamma[i] += (double)dgamma0[i];
            dbeta[i] += (double)dbeta0[i];
        }
        struct output out[4] = {{"y", count, y, NULL, NULL},
                                {"dx", count, dx, c.accumulate ? dx0 : NULL, NULL},
                                {"dgamma", s.c, dgamma, c.accumulate ? dgamma0 : NULL, NULL},
                                {"dbeta", s.c, dbeta, c.accumulate ? dbeta0 : NULL, NULL}};
        char what[128];
        snprintf(what, sizeof(what), "%s n %ld positions %ld c %ld groups %ld silu %d variant %d",
                 layer ? "layer norm" : "group norm", (long)s.n, (long)s.positions, (long)s.c, (long)s.groups, s.silu,
                 variant);
        check_everywhere(what, bound, out, 4, run_norm, &c);
        free(c.x), free(c.gamma), free(c.beta), free(c.dy), free(dx0), free(dgamma0), free(dbeta0);
        free(y), free(dx), free(dgamma), free(dbeta);
    }
}

static void test_kernels_norm__group_norm_matches_double(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {{2, 16, 64, 32}, {1, 256, 32, 8},  {3, 1, 8, 2},    {1, 65, 24, 8},
                                        {1, 2, 4, 2},    {2, 100, 96, 32}, {5, 63, 13, 13}, {1, 1000, 128, 32},
                                        {3, 300, 70, 5}, {1, 129, 33, 1}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (int silu = 0; silu < 2; silu++)
            check_norm(
                (struct draft_group_norm_shape){shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], 1e-5f, silu},
                false, 1, 0.5, BOUND);
}

static void test_kernels_norm__layer_norm_matches_double(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{64, 128}, {7, 33},   {1, 8},    {130, 320},
                                        {77, 100}, {257, 64}, {3, 1024}, {200, 5}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check_norm((struct draft_group_norm_shape){shapes[i][0], 1, shapes[i][1], 1, 1e-5f, false}, true, 1, 0.5,
                   BOUND);
}

static void test_kernels_norm__epsilon_decides_for_tiny_activations(void **state)
{
    (void)state;
    check_norm((struct draft_group_norm_shape){2, 100, 32, 8, 1e-6f, true}, false, 1e-3, 0, BOUND);
    check_norm((struct draft_group_norm_shape){2, 100, 32, 8, 1e-5f, false}, false, 1e-5, 0, BOUND);
    check_norm((struct draft_group_norm_shape){50, 1, 64, 1, 1e-5f, false}, true, 1e-3, 0, BOUND);
}

static void test_kernels_norm__a_large_mean_costs_no_more_than_its_rounding(void **state)
{
    (void)state;
    /* The mean is 100 standard deviations: rounding x itself is 100 * 6e-8 of one, E[x^2] - m^2 would lose 6e-4. */
    check_norm((struct draft_group_norm_shape){1, 300, 64, 16, 1e-5f, false}, false, 1, 100, 2e-5);
    check_norm((struct draft_group_norm_shape){40, 1, 96, 1, 1e-5f, false}, true, 1, 100, 2e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_norm__group_norm_matches_double),
        cmocka_unit_test(test_kernels_norm__layer_norm_matches_double),
        cmocka_unit_test(test_kernels_norm__epsilon_decides_for_tiny_activations),
        cmocka_unit_test(test_kernels_norm__a_large_mean_costs_no_more_than_its_rounding),
    };
    return cmocka_run_group_tests(tests, create_backends, destroy_backends);
}
