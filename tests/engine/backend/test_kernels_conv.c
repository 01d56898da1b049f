#include "engine/backend/every_backend.h"

static const double BOUND = 2e-6;
static const double BF16_BOUND = 1e-2; /* 2^-9 a factor */

struct conv_case {
    struct draft_conv_shape shape;
    bool bias, accumulate;
    float *x, *dy, *b;
    struct draft_tensor w;
};

static void run_conv(struct draft_backend *backend, void *context, struct output *out)
{
    struct conv_case *c = context;
    struct draft_error err = {0};
    assert_true(draft_cpu_conv2d(backend, &c->shape, c->x, &c->w, c->bias ? c->b : NULL, out[0].got, &err));
    assert_true(draft_cpu_conv2d_dx(backend, &c->shape, c->dy, &c->w, out[1].got, c->accumulate, &err));
    assert_true(draft_cpu_conv2d_dw(backend, &c->shape, c->x, c->dy, out[2].got, c->accumulate, &err));
}

static void twin(const struct conv_case *c, const float *w, double *y, double *dx, double *dw)
{
    const struct draft_conv_shape *s = &c->shape;
    int64_t oh = draft_conv_out_h(s), ow = draft_conv_out_w(s);
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t oy = 0; oy < oh; oy++)
            for (int64_t ox = 0; ox < ow; ox++)
                for (int64_t o = 0; o < s->o; o++) {
                    int64_t at = ((i * oh + oy) * ow + ox) * s->o + o;
                    double sum = c->bias ? (double)c->b[o] : 0, g = (double)c->dy[at];
                    for (int64_t ky = 0; ky < s->kh; ky++)
                        for (int64_t kx = 0; kx < s->kw; kx++) {
                            int64_t iy = oy * s->stride + ky - s->pad_top, ix = ox * s->stride + kx - s->pad_left;
                            if (iy < 0 || ix < 0 || iy >= s->h || ix >= s->w)
                                continue;
                            int64_t in = ((i * s->h + iy) * s->w + ix) * s->c,
                                    tap = ((o * s->kh + ky) * s->kw + kx) * s->c;
                            for (int64_t q = 0; q < s->c; q++) {
                                sum += (double)c->x[in + q] * (double)w[tap + q];
                                dx[in + q] += g * (double)w[tap + q];
                                dw[tap + q] += g * (double)c->x[in + q];
                            }
                        }
                    y[at] = sum;
                }
}

static void check_conv(struct draft_conv_shape s, bool bias, bool accumulate, bool trained)
{
    struct conv_case c = {.shape = s, .bias = bias, .accumulate = accumulate};
    int64_t nx = s.n * s.h * s.w * s.c, ny = s.n * draft_conv_out_h(&s) * draft_conv_out_w(&s) * s.o;
    int64_t nw = s.o * s.kh * s.kw * s.c;
    c.x = numbers(nx, 1);
    c.dy = numbers(ny, 1);
    c.b = numbers(s.o, 1);
    float *w = numbers(nw, 1), *dx0 = numbers(nx, 1), *dw0 = numbers(nw, 1);
    c.w = weight_of(w, 4, (int64_t[]){s.o, s.kh, s.kw, s.c}, trained);
    double *y = zeros(ny), *dx = zeros(nx), *dw = zeros(nw);
    twin(&c, w, y, dx, dw);
    for (int64_t i = 0; i < nx && accumulate; i++)
        dx[i] += (double)dx0[i];
    for (int64_t i = 0; i < nw && accumulate; i++)
        dw[i] += (double)dw0[i];
    struct output out[3] = {{"y", ny, y, NULL, NULL},
                            {"dx", nx, dx, accumulate ? dx0 : NULL, NULL},
                            {"dw", nw, dw, accumulate ? dw0 : NULL, NULL}};
    char what[128];
    snprintf(what, sizeof(what), "conv %ldx%ldx%ldx%ld -> %ld kernel %ldx%ld stride %ld pads %ld %ld %ld %ld",
             (long)s.n, (long)s.h, (long)s.w, (long)s.c, (long)s.o, (long)s.kh, (long)s.kw, (long)s.stride,
             (long)s.pad_top, (long)s.pad_left, (long)s.pad_bottom, (long)s.pad_right);
    bf16_bound = bf16_numbers ? 0 : BF16_BOUND;
    check_everywhere(what, BOUND, out, 3, run_conv, &c);
    free(c.x), free(c.dy), free(c.b), free(w), free(dx0), free(dw0), free(y), free(dx), free(dw);
}

static void check_variants(const struct draft_conv_shape *shapes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_conv(shapes[i], true, false, false);
        check_conv(shapes[i], false, true, false);
        check_conv(shapes[i], true, true, true);
    }
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/*   n, h, w, c,  o, kh, kw, stride, pads: top, left, bottom, right */
static void test_kernels_conv__three_by_three_matches_double(void **state)
{
    (void)state;
    static const struct draft_conv_shape shapes[] = {
        {2, 8, 8, 32, 32, 3, 3, 1, 1, 1, 1, 1},   {1, 4, 4, 48, 20, 3, 3, 1, 1, 1, 1, 1},
        {3, 7, 9, 24, 33, 3, 3, 1, 1, 1, 1, 1},   {1, 16, 12, 17, 64, 3, 3, 1, 1, 1, 1, 1},
        {1, 6, 10, 16, 16, 3, 3, 1, 0, 0, 0, 0},  {1, 9, 6, 40, 40, 3, 3, 1, 2, 0, 1, 2},
        {5, 16, 16, 20, 96, 3, 3, 1, 1, 1, 1, 1}, {2, 5, 5, 19, 18, 3, 3, 1, 1, 1, 1, 1},
        {2, 20, 20, 36, 70, 3, 3, 1, 1, 1, 1, 1},
    };
    check_variants(shapes, COUNT(shapes));
}

static void test_kernels_conv__few_channels_match_double(void **state)
{
    (void)state;
    static const struct draft_conv_shape shapes[] = {
        {2, 8, 8, 4, 64, 3, 3, 1, 1, 1, 1, 1},  {2, 9, 8, 48, 3, 3, 3, 1, 1, 1, 1, 1},
        {1, 5, 5, 3, 24, 3, 3, 1, 1, 1, 1, 1},  {1, 8, 8, 64, 4, 3, 3, 1, 1, 1, 1, 1},
        {1, 2, 2, 32, 32, 3, 3, 1, 1, 1, 1, 1}, {1, 1, 1, 5, 7, 3, 3, 1, 1, 1, 1, 1},
        {2, 6, 6, 1, 1, 3, 3, 1, 1, 1, 1, 1},
    };
    check_variants(shapes, COUNT(shapes));
}

static void test_kernels_conv__strides_and_asymmetric_padding_match_double(void **state)
{
    (void)state;
    static const struct draft_conv_shape shapes[] = {
        {2, 8, 8, 32, 32, 3, 3, 2, 1, 1, 1, 1},    {1, 8, 8, 24, 24, 3, 3, 2, 0, 0, 1, 1},
        {1, 9, 7, 12, 20, 3, 3, 2, 0, 0, 1, 1},    {2, 7, 7, 33, 5, 3, 3, 3, 2, 1, 0, 2},
        {1, 23, 23, 3, 64, 11, 11, 4, 2, 2, 2, 2}, {1, 9, 9, 16, 24, 5, 5, 1, 2, 2, 2, 2},
        {1, 6, 8, 7, 9, 2, 4, 1, 0, 3, 1, 0},      {1, 5, 5, 8, 8, 3, 3, 1, 3, 3, 3, 3},
    };
    check_variants(shapes, COUNT(shapes));
}

static void test_kernels_conv__one_by_one_and_patches_match_double(void **state)
{
    (void)state;
    static const struct draft_conv_shape shapes[] = {
        {2, 8, 8, 64, 96, 1, 1, 1, 0, 0, 0, 0},     {1, 5, 3, 4, 4, 1, 1, 1, 0, 0, 0, 0},
        {1, 6, 6, 10, 12, 1, 1, 2, 0, 0, 0, 0},     {2, 32, 32, 3, 48, 8, 8, 8, 0, 0, 0, 0},
        {1, 28, 28, 3, 32, 14, 14, 14, 0, 0, 0, 0}, {1, 17, 19, 3, 20, 8, 8, 8, 0, 0, 0, 0},
    };
    check_variants(shapes, COUNT(shapes));
}

static void test_kernels_conv__many_channels_match_double(void **state)
{
    (void)state;
    static const struct draft_conv_shape shapes[] = {
        {2, 8, 8, 192, 192, 3, 3, 1, 1, 1, 1, 1},
        {1, 4, 8, 400, 96, 3, 3, 2, 1, 1, 1, 1},
        {1, 8, 7, 538, 494, 3, 3, 1, 1, 1, 1, 1}, /* so many that Winograd's transform is made in parts */
    };
    for (size_t i = 0; i < COUNT(shapes); i++)
        check_conv(shapes[i], true, false, false);
}

static void test_kernels_conv__bf16_numbers_are_multiplied_exactly(void **state)
{
    (void)state;
    static const struct draft_conv_shape shapes[] = {{2, 8, 8, 32, 40, 3, 3, 2, 1, 1, 1, 1},
                                                     {1, 7, 5, 5, 33, 3, 3, 1, 1, 1, 1, 1},
                                                     {1, 5, 6, 31, 40, 1, 1, 1, 0, 0, 0, 0},
                                                     {1, 9, 9, 21, 36, 5, 5, 1, 2, 2, 2, 2}};
    bf16_numbers = true;
    check_variants(shapes, COUNT(shapes));
    bf16_numbers = false;
}

/* 16-bit words have a factor for each tile: a picture a million times as bright leaves its neighbour its digits. */
static void test_kernels_conv__each_tile_has_its_own_scale(void **state)
{
    (void)state;
    enum { SIZE = 16, C = 32, PICTURE = SIZE * SIZE * C };
    struct conv_case c = {.shape = {2, SIZE, SIZE, C, C, 3, 3, 1, 1, 1, 1, 1}};
    float *w = numbers(C * 9 * C, 1);
    c.w = weight_of(w, 4, (int64_t[]){C, 3, 3, C}, false);
    c.x = numbers(2 * PICTURE, 1);
    c.dy = numbers(2 * PICTURE, 1);
    for (int i = 0; i < PICTURE; i++)
        c.x[i] *= 1e6f;
    double *y = zeros(2 * PICTURE), *dx = zeros(2 * PICTURE), *dw = zeros(C * 9 * C);
    twin(&c, w, y, dx, dw);
    for (int i = 0; i < ISAS; i++) {
        float *got = numbers(2 * PICTURE, 1);
        struct draft_error err = {0};
        if (backends[i][1]) {
            assert_true(draft_cpu_conv2d(backends[i][1], &c.shape, c.x, &c.w, NULL, got, &err));
            assert_true(relative_error(PICTURE, got + PICTURE, y + PICTURE) < 5e-3);
            draft_backend_forget(backends[i][1], &c.w);
        }
        free(got);
    }
    free(w), free(c.x), free(c.dy), free(y), free(dx), free(dw);
}

/* What is no number must reach whoever looks for it, whatever the products are made of. */
static void test_kernels_conv__not_a_number_comes_out(void **state)
{
    (void)state;
    enum { SIZE = 8, C = 32, N = SIZE * SIZE * C };
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    struct draft_conv_shape shape = {1, SIZE, SIZE, C, C, 3, 3, 1, 1, 1, 1, 1};
    float *w = numbers(C * 9 * C, 1), *x = numbers(N, 1), *y = numbers(N, 1);
    struct draft_tensor weight = weight_of(w, 4, (int64_t[]){C, 3, 3, C}, false);
    for (int i = 0; i < ISAS; i++)
        for (size_t j = 0; j < COUNT(odd) && backends[i][0]; j++) {
            struct draft_error err = {0};
            float before = x[(3 * SIZE + 2) * C + 5];
            x[(3 * SIZE + 2) * C + 5] = odd[j];
            assert_true(draft_cpu_conv2d(backends[i][0], &shape, x, &weight, NULL, y, &err));
            for (int o = 0; o < C; o++)
                assert_false(isfinite(y[(3 * SIZE + 2) * C + o]));
            x[(3 * SIZE + 2) * C + 5] = before;
        }
    for (int i = 0; i < ISAS; i++)
        if (backends[i][0])
            draft_backend_forget(backends[i][0], &weight);
    free(w), free(x), free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_conv__three_by_three_matches_double),
        cmocka_unit_test(test_kernels_conv__few_channels_match_double),
        cmocka_unit_test(test_kernels_conv__strides_and_asymmetric_padding_match_double),
        cmocka_unit_test(test_kernels_conv__one_by_one_and_patches_match_double),
        cmocka_unit_test(test_kernels_conv__many_channels_match_double),
        cmocka_unit_test(test_kernels_conv__bf16_numbers_are_multiplied_exactly),
        cmocka_unit_test(test_kernels_conv__each_tile_has_its_own_scale),
        cmocka_unit_test(test_kernels_conv__not_a_number_comes_out),
    };
    return cmocka_run_group_tests(tests, create_backends, destroy_backends);
}
