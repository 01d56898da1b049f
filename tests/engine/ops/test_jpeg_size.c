#include "op_case.h"

#include "tensor/safetensors.h"

/* The estimate of engine/ops/jpeg_size.c, written again from its formulas: whole arrays in double, no sharing of code.
 * Its colour and DCT are held against PyTorch's fixture below. */
enum { LARGEST = 48 };

static void colour(double r, double g, double b, double *ycc) /* 0 .. 255 */
{
    ycc[0] = .299 * r + .587 * g + .114 * b;
    ycc[1] = 128 - .168736 * r - .331264 * g + .5 * b;
    ycc[2] = 128 + .5 * r - .418688 * g - .081312 * b;
}

static double dct(const double *block, int stride, int u, int v) /* row frequency u, column frequency v */
{
    const double pi = acos(-1);
    double sum = 0;
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++)
            sum += (block[i * stride + j] - 128) * cos((2 * i + 1) * u * pi / 16) * cos((2 * j + 1) * v * pi / 16);
    return sum / 4 * (u == 0 ? sqrt(.5) : 1) * (v == 0 ? sqrt(.5) : 1);
}

static const int luma_table[64] = {16, 11, 10, 16, 24,  40,  51,  61,  12, 12, 14, 19, 26,  58,  60,  55,
                                   14, 13, 16, 24, 40,  57,  69,  56,  14, 17, 22, 29, 51,  87,  80,  62,
                                   18, 22, 37, 56, 68,  109, 103, 77,  24, 35, 55, 64, 81,  104, 113, 92,
                                   49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99};

static int step_of(int component, int u, int v, int quality)
{
    static const int corner[4][4] = {{17, 18, 24, 47}, {18, 21, 26, 66}, {24, 26, 56, 99}, {47, 66, 99, 99}};
    int base = component == 0 ? luma_table[u * 8 + v] : u < 4 && v < 4 ? corner[u][v] : 99;
    int step = (base * (quality < 50 ? 5000 / quality : 200 - 2 * quality) + 50) / 100;
    return step < 1 ? 1 : step > 255 ? 255 : step;
}

/* zigzag by walking the diagonals */
static void zigzag(int k, int *u, int *v)
{
    int diagonal = 0, before = 0;
    while (before + (diagonal < 8 ? diagonal + 1 : 15 - diagonal) <= k)
        before += diagonal < 8 ? diagonal + 1 : 15 - diagonal, diagonal++;
    int along = k - before + (diagonal < 8 ? 0 : diagonal - 7);
    *u = diagonal % 2 == 0 ? diagonal - along : along;
    *v = diagonal - *u;
}

static double soft(double q)
{
    return q - .75 * sin(2 * acos(-1) * q) / (2 * acos(-1));
}

static double nonzero(double s)
{
    return s * s / (s * s + .25);
}

static double block_bits(const double *block, int stride, int component, int quality, double *dc)
{
    double s[64], bits = component == 0 ? 6 : 4;
    for (int k = 0; k < 64; k++) {
        int u, v;
        zigzag(k, &u, &v);
        s[k] = soft(dct(block, stride, u, v) / step_of(component, u, v, quality));
    }
    double difference = s[0] - *dc;
    *dc = s[0];
    bits += 3.83 * nonzero(difference) + .41 * log2(1 + difference * difference);
    for (int k = 1; k < 64; k++) {
        double none_later = 1;
        for (int j = k + 1; j < 64; j++)
            none_later *= 1 - nonzero(s[j]);
        bits += (component == 0 ? 1.13 : 2.40) * nonzero(s[k]) + (component == 0 ? 1.22 : .77) * log2(1 + s[k] * s[k]) +
                (component == 0 ? .80 : 1.49) * (1 - nonzero(s[k])) * (1 - none_later);
    }
    return bits;
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const int *quality = c->context;
    int h = (int)c->in[0]->dim[1], w = (int)c->in[0]->dim[2], height = (h + 15) / 16 * 16, width = (w + 15) / 16 * 16;
    static double plane[3][LARGEST * LARGEST], half[3][LARGEST * LARGEST / 4];
    for (int64_t n = 0; n < c->in[0]->dim[0]; n++) {
        memset(half, 0, sizeof half);
        for (int i = 0; i < height; i++)
            for (int j = 0; j < width; j++) {
                const double *p = x[0] + ((n * h + (i < h ? i : h - 1)) * w + (j < w ? j : w - 1)) * 3;
                double ycc[3];
                colour(255 * p[0], 255 * p[1], 255 * p[2], ycc);
                for (int k = 0; k < 3; k++) {
                    plane[k][i * width + j] = ycc[k];
                    half[k][i / 2 * (width / 2) + j / 2] += ycc[k] / 4;
                }
            }
        double bits = 623 * 8, dc[3] = {0};
        for (int i = 0; i < height / 16; i++)
            for (int j = 0; j < width / 16; j++) {
                for (int k = 0; k < 4; k++) {
                    int row = 2 * i + k / 2, column = 2 * j + k % 2;
                    if (row * 8 >= h || column * 8 >= w)
                        bits += 6; /* a dummy block */
                    else
                        bits += block_bits(plane[0] + row * 8 * width + column * 8, width, 0, *quality, &dc[0]);
                }
                for (int k = 1; k < 3; k++)
                    bits += block_bits(half[k] + i * 8 * (width / 2) + j * 8, width / 2, k, *quality, &dc[k]);
            }
        y[n] = bits / 8000;
    }
}

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const int *quality = context;
    return draft_jpeg_size(g, in[0], *quality);
}

static struct draft_tensor *given_pictures(struct op_test *t, int64_t n, int64_t h, int64_t w)
{
    struct draft_tensor *x = GIVEN(t, n, h, w, 3);
    for (int64_t i = 0; i < draft_tensor_count(x); i++)
        draft_f32(x)[i] = 0.5f + 0.4f * draft_f32(x)[i];
    return x;
}

static void check(struct op_test *t, struct draft_tensor *x, int quality)
{
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &quality, .gradient = 1e-4});
}

static void test_jpeg_size__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check(t, given_pictures(t, 1, 16, 16), 75);
}

static void test_jpeg_size__replicates_the_edges_of_odd_sizes(void **state)
{
    struct op_test *t = *state;
    check(t, given_pictures(t, 2, 7, 11), 95);
    check(t, given_pictures(t, 1, 1, 1), 50);
    check(t, given_pictures(t, 1, 18, 5), 30);
}

static void test_jpeg_size__codes_dc_differences_in_the_order_of_the_file(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = given_pictures(t, 1, 20, 33); /* 2 x 3 units, dummy blocks below and to the right */
    int quality = 60;
    struct op_case c = {.in = {x}, .run = run, .twin = twin, .context = &quality};
    double *values = op_array(draft_tensor_count(x), sizeof *values), expected;
    for (int64_t i = 0; i < draft_tensor_count(x); i++)
        values[i] = (double)draft_f32(x)[i];
    c.twin(&c, (const double *const[]){values}, &expected);
    assert_near("size", 0, draft_f32(draft_jpeg_size(&t->g, x, quality)), &expected, 1, 1e-6);
    free(values);
}

static void test_jpeg_size__twin_has_pytorchs_colours_and_dct(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_safetensors *file = draft_safetensors_open(FIXTURES "/golden/jpeg_dct.safetensors", &err);
    assert_non_null(file);
    static float image[3][1024], ycbcr[3][1024], expected[3][4][4][8][8];
    static double planes[3][1024];
    assert_true(draft_safetensors_to_f32(draft_safetensors_find(file, "image"), image[0], &err));
    assert_true(draft_safetensors_to_f32(draft_safetensors_find(file, "ycbcr"), ycbcr[0], &err));
    assert_true(draft_safetensors_to_f32(draft_safetensors_find(file, "dct"), &expected[0][0][0][0][0], &err));
    for (int i = 0; i < 1024; i++) {
        double ycc[3];
        colour(255 * (double)image[0][i], 255 * (double)image[1][i], 255 * (double)image[2][i], ycc);
        for (int c = 0; c < 3; c++) {
            planes[c][i] = ycc[c];
            assert_true(fabs(ycc[c] - (double)ycbcr[c][i]) < 1e-4);
        }
    }
    for (int i = 0; i < 3 * 1024; i++) {
        int c = i / 1024, row = i / 256 % 4, column = i / 64 % 4, u = i / 8 % 8, v = i % 8;
        double got = dct(planes[c] + row * 8 * 32 + column * 8, 32, u, v);
        assert_true(fabs(got - (double)expected[c][row][column][u][v]) < 1e-3);
    }
    draft_safetensors_close(file);
}

static void test_jpeg_size__is_larger_for_noise_and_for_higher_quality(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *noise = given_pictures(t, 1, 32, 32), *flat = given_pictures(t, 1, 32, 32);
    for (int64_t i = 0; i < draft_tensor_count(flat); i++)
        draft_f32(flat)[i] = 0.25f;
    float low = draft_f32(draft_jpeg_size(&t->g, noise, 50))[0];
    float high = draft_f32(draft_jpeg_size(&t->g, noise, 95))[0];
    float nothing = draft_f32(draft_jpeg_size(&t->g, flat, 95))[0];
    assert_true(nothing < 0.65f && 1.5f * nothing < low && 1.5f * low < high);
}

static void test_jpeg_size__falls_along_its_gradient(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = given_pictures(t, 2, 32, 24);
    struct draft_mark mark = draft_graph_mark(&t->g);
    float first = 0, last = 0;
    for (int step = 0; step < 10; step++) {
        struct draft_tensor *size = draft_mean(&t->g, draft_jpeg_size(&t->g, x, 75));
        last = draft_f32(size)[0];
        first = step == 0 ? last : first;
        assert_true(draft_graph_backward(&t->g, size, NULL));
        double norm = 0;
        for (int64_t i = 0; i < draft_tensor_count(x); i++)
            norm += pow((double)draft_grad_f32(x)[i], 2);
        for (int64_t i = 0; i < draft_tensor_count(x); i++)
            draft_f32(x)[i] -= (float)(0.5 / sqrt(norm)) * draft_grad_f32(x)[i];
        draft_graph_reset(&t->g, &mark);
    }
    print_message("%.3f -> %.3f kB\n", (double)first, (double)last);
    assert_true(last < 0.95f * first);
}

static void test_jpeg_size__refuses_other_channels_and_qualities(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_jpeg_size(&t->g, GIVEN(t, 1, 8, 8, 4), 75), "jpeg_size", "[1, 8, 8, 4]");
    assert_refused(t, draft_jpeg_size(&t->g, GIVEN(t, 8, 8, 3), 75), "jpeg_size", "[8, 8, 3]");
    assert_refused(t, draft_jpeg_size(&t->g, GIVEN(t, 1, 8, 8, 3), 0), "jpeg_size", "quality of 0");
    assert_refused(t, draft_jpeg_size(&t->g, GIVEN(t, 1, 8, 8, 3), 101), "jpeg_size", "quality of 101");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_jpeg_size__equals_its_double_twin),
        op_test_case(test_jpeg_size__replicates_the_edges_of_odd_sizes),
        op_test_case(test_jpeg_size__codes_dc_differences_in_the_order_of_the_file),
        op_test_case(test_jpeg_size__twin_has_pytorchs_colours_and_dct),
        op_test_case(test_jpeg_size__is_larger_for_noise_and_for_higher_quality),
        op_test_case(test_jpeg_size__falls_along_its_gradient),
        op_test_case(test_jpeg_size__refuses_other_channels_and_qualities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
