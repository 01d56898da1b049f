#include "engine/backend/every_backend.h"

static const double BOUND = 2e-6;

static double cdf(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0));
}

static double density(double x)
{
    return exp(-0.5 * x * x) / sqrt(2 * 3.14159265358979323846);
}

static double value(enum draft_map map, double x, double *slope)
{
    double sigmoid = 1 / (1 + exp(-x)), quick = 1 / (1 + exp(-1.702 * x));
    switch (map) {
    case DRAFT_MAP_SILU:
        *slope = sigmoid * (1 + x * (1 - sigmoid));
        return x * sigmoid;
    case DRAFT_MAP_GELU:
        *slope = cdf(x) + x * density(x);
        return x * cdf(x);
    case DRAFT_MAP_QUICK_GELU:
        *slope = quick * (1 + 1.702 * x * (1 - quick));
        return x * quick;
    case DRAFT_MAP_RELU:
        *slope = x > 0;
        return x > 0 ? x : 0;
    }
    return 0;
}

struct map_case {
    enum draft_map map;
    int64_t n, rows, c;
    bool accumulate;
    float *x, *dy;
};

static void run_map(struct draft_backend *backend, void *context, struct output *out)
{
    struct map_case *c = context;
    draft_cpu_map(backend, c->map, c->n, c->x, out[0].got);
    draft_cpu_map_backward(backend, c->map, c->n, c->x, c->dy, out[1].got, c->accumulate);
}

static void test_kernels_elementwise__activations_match_double(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 3, 17, 1000, 16384, 40001};
    for (int map = 0; map < 4; map++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                struct map_case c = {.map = (enum draft_map)map, .n = sizes[i], .accumulate = accumulate};
                c.x = numbers(c.n, 3);
                c.dy = numbers(c.n, 1);
                float *dx0 = numbers(c.n, 1);
                double *y = zeros(c.n), *dx = zeros(c.n);
                for (int64_t j = 0; j < c.n; j++) {
                    double slope;
                    y[j] = value(c.map, (double)c.x[j], &slope);
                    dx[j] = (double)c.dy[j] * slope + (accumulate ? (double)dx0[j] : 0);
                }
                struct output out[2] = {{"y", c.n, y, NULL, NULL}, {"dx", c.n, dx, accumulate ? dx0 : NULL, NULL}};
                char what[64];
                snprintf(what, sizeof(what), "map %d of %ld", map, (long)c.n);
                check_everywhere(what, BOUND, out, 2, run_map, &c);
                free(c.x), free(c.dy), free(dx0), free(y), free(dx);
            }
}

/* Point by point, not in the mean: near zero and far into the tails. */
static void test_kernels_elementwise__every_value_is_close(void **state)
{
    (void)state;
    enum { N = 60001 };
    float *x = malloc(N * sizeof(float)), *y = malloc(N * sizeof(float)), *one = malloc(N * sizeof(float)),
          *dx = malloc(N * sizeof(float));
    assert_true(x && y && one && dx);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - N / 2) * 4e-4f; /* -12 .. 12 */
        one[i] = 1.0f;
    }
    for (int b = 0; b < ISAS; b++)
        for (int map = 0; map < 4 && backends[b][0]; map++) {
            draft_cpu_map(backends[b][0], (enum draft_map)map, N, x, y);
            draft_cpu_map_backward(backends[b][0], (enum draft_map)map, N, x, one, dx, false);
            for (int i = 0; i < N; i++) {
                double slope, want = value((enum draft_map)map, (double)x[i], &slope);
                if (!(fabs((double)y[i] - want) <= 1e-6 * fabs(want) + 1e-7))
                    fail_msg("map %d of %.9g is %.9g, not %.9g, on %s", map, (double)x[i], (double)y[i], want,
                             isa_names[b]);
                if (!(fabs((double)dx[i] - slope) <= 1e-6))
                    fail_msg("slope %d of %.9g is %.9g, not %.9g, on %s", map, (double)x[i], (double)dx[i], slope,
                             isa_names[b]);
            }
        }
    free(x), free(y), free(one), free(dx);
}

static void test_kernels_elementwise__extremes_stay_finite_and_nan_stays_nan(void **state)
{
    (void)state;
    for (int b = 0; b < ISAS; b++)
        for (int map = 0; map < 4 && backends[b][0]; map++) {
            float x[32], y[32], dx[32], one[32];
            for (int i = 0; i < 32; i++) {
                x[i] = i % 4 == 0 ? 1e6f : i % 4 == 1 ? -1e6f : i % 4 == 2 ? NAN : 0.0f;
                one[i] = 1.0f;
            }
            draft_cpu_map(backends[b][0], (enum draft_map)map, 32, x, y);
            draft_cpu_map_backward(backends[b][0], (enum draft_map)map, 32, x, one, dx, false);
            for (int i = 0; i < 32; i += 4) {
                assert_true(y[i] == 1e6f && fabsf(y[i + 1]) < 1e-6f && isnan(y[i + 2]) && y[i + 3] == 0.0f);
                assert_true(dx[i] == 1.0f && fabsf(dx[i + 1]) < 1e-6f);
                assert_true(map == DRAFT_MAP_RELU || isnan(dx[i + 2]));
            }
        }
}

static void run_geglu(struct draft_backend *backend, void *context, struct output *out)
{
    struct map_case *c = context;
    draft_cpu_geglu(backend, c->rows, c->c, c->x, out[0].got);
    draft_cpu_geglu_backward(backend, c->rows, c->c, c->x, c->dy, out[1].got, c->accumulate);
}

static void test_kernels_elementwise__geglu_matches_double(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{1, 1}, {5, 7}, {64, 128}, {33, 40}, {3, 20000}, {300, 512}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            struct map_case c = {.rows = shapes[i][0], .c = shapes[i][1], .accumulate = accumulate};
            int64_t n = c.rows * c.c;
            c.x = numbers(2 * n, 1.5);
            c.dy = numbers(n, 1);
            float *dx0 = numbers(2 * n, 1);
            double *y = zeros(n), *dx = zeros(2 * n);
            for (int64_t r = 0; r < c.rows; r++)
                for (int64_t j = 0; j < c.c; j++) {
                    int64_t a = r * 2 * c.c + j, b = a + c.c;
                    double gate = (double)c.x[b], g = (double)c.dy[r * c.c + j];
                    y[r * c.c + j] = (double)c.x[a] * gate * cdf(gate);
                    dx[a] = g * gate * cdf(gate) + (accumulate ? (double)dx0[a] : 0);
                    dx[b] = g * (double)c.x[a] * (cdf(gate) + gate * density(gate)) + (accumulate ? (double)dx0[b] : 0);
                }
            struct output out[2] = {{"y", n, y, NULL, NULL}, {"dx", 2 * n, dx, accumulate ? dx0 : NULL, NULL}};
            check_everywhere("geglu", BOUND, out, 2, run_geglu, &c);
            free(c.x), free(c.dy), free(dx0), free(y), free(dx);
        }
}

struct sum_case {
    int64_t n, rows, c;
    bool with_b, accumulate;
    float *x, *b;
};

static void run_sums(struct draft_backend *backend, void *context, struct output *out)
{
    struct sum_case *c = context;
    struct draft_error err = {0};
    int64_t count = c->n * c->rows * c->c;
    draft_cpu_axpby(backend, count, 0.7f, c->x, -1.3f, c->with_b ? c->b : NULL, out[0].got, c->accumulate);
    assert_true(draft_cpu_sum_rows(backend, c->n, c->rows, c->c, c->x, out[1].got, c->accumulate, &err));
}

static void test_kernels_elementwise__sums_match_double(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1}, {3, 5, 7}, {2, 64, 64}, {4, 100, 33}, {1, 3000, 20}, {16, 70, 130}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (int variant = 0; variant < 4; variant++) {
            struct sum_case c = {shapes[i][0], shapes[i][1], shapes[i][2], variant & 1, variant & 2, NULL, NULL};
            int64_t n = c.n * c.rows * c.c;
            c.x = numbers(n, 1);
            c.b = numbers(n, 1);
            float *y0 = numbers(n, 1), *sum0 = numbers(c.n * c.c, 1);
            double *y = zeros(n), *sum = zeros(c.n * c.c);
            for (int64_t j = 0; j < n; j++) {
                int64_t channel = j / (c.rows * c.c) * c.c + j % c.c;
                y[j] = (double)0.7f * (double)c.x[j] + (c.with_b ? (double)-1.3f * (double)c.b[j] : 0);
                y[j] += c.accumulate ? (double)y0[j] : 0;
                sum[channel] += (double)c.x[j];
            }
            for (int64_t j = 0; j < c.n * c.c && c.accumulate; j++)
                sum[j] += (double)sum0[j];
            struct output out[2] = {{"axpby", n, y, c.accumulate ? y0 : NULL, NULL},
                                    {"sum_rows", c.n * c.c, sum, c.accumulate ? sum0 : NULL, NULL}};
            check_everywhere("sums", BOUND, out, 2, run_sums, &c);
            free(c.x), free(c.b), free(y0), free(sum0), free(y), free(sum);
        }
}

static void test_kernels_elementwise__works_in_place(void **state)
{
    (void)state;
    enum { N = 5000 };
    float *x = numbers(N, 2), *y = malloc(N * sizeof(float)), *z = malloc(N * sizeof(float));
    assert_true(y && z);
    for (int b = 0; b < ISAS; b++) {
        if (!backends[b][0])
            continue;
        draft_cpu_map(backends[b][1], DRAFT_MAP_GELU, N, x, y);
        memcpy(z, x, N * sizeof(float));
        draft_cpu_map(backends[b][1], DRAFT_MAP_GELU, N, z, z);
        assert_memory_equal(y, z, N * sizeof(float));
        draft_cpu_map_backward(backends[b][1], DRAFT_MAP_SILU, N, x, x, y, false);
        memcpy(z, x, N * sizeof(float));
        draft_cpu_map_backward(backends[b][1], DRAFT_MAP_SILU, N, x, z, z, false);
        assert_memory_equal(y, z, N * sizeof(float));
    }
    free(x), free(y), free(z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_elementwise__activations_match_double),
        cmocka_unit_test(test_kernels_elementwise__every_value_is_close),
        cmocka_unit_test(test_kernels_elementwise__extremes_stay_finite_and_nan_stays_nan),
        cmocka_unit_test(test_kernels_elementwise__geglu_matches_double),
        cmocka_unit_test(test_kernels_elementwise__sums_match_double),
        cmocka_unit_test(test_kernels_elementwise__works_in_place),
    };
    return cmocka_run_group_tests(tests, create_backends, destroy_backends);
}
