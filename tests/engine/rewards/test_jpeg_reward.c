#include "reward_golden.h"

enum { PICTURES = 200, SIDE = 64, NUMBERS = SIDE * SIDE * 3 };

static void test_jpeg_reward__equals_pytorch_in_value_and_gradient(void **state)
{
    (void)state;
    struct reward_case c;
    reward_open(&c, "jpeg");
    golden_check(&c, FIXTURES "/rewards/jpeg/case.safetensors", "wide");
    golden_check(&c, FIXTURES "/rewards/jpeg/case.safetensors", "same");
    reward_close(&c);
}

/* 200 pictures of the demo model: other prompts and seeds than the estimate was fitted to. */
static float *demo_pictures(void)
{
    unsigned char *bytes = malloc(PICTURES * NUMBERS);
    float *pixels = malloc(PICTURES * NUMBERS * sizeof *pixels);
    FILE *file = fopen(BUILD "/tests/demo_pictures.rgb", "rb");
    assert_non_null(file);
    assert_int_equal(fread(bytes, NUMBERS, PICTURES, file), PICTURES);
    fclose(file);
    for (int i = 0; i < PICTURES * NUMBERS; i++)
        pixels[i] = (float)bytes[i] / 255.0f;
    free(bytes);
    return pixels;
}

static void true_sizes(struct reward_case *c, const float *pixels, int n, int h, int w, double *out)
{
    struct draft_error err = {0};
    if (!c->reward->kind->measure(c->reward, pixels, n, h, w, out, &err))
        fail_msg("%s", err.message);
}

/* Ranks from 0; equal values share their mean rank. */
static void rank(const double *x, int n, double *ranks)
{
    for (int i = 0; i < n; i++) {
        int below = 0, equal = 0;
        for (int j = 0; j < n; j++) {
            below += x[j] < x[i];
            equal += x[j] == x[i];
        }
        ranks[i] = below + (equal - 1) / 2.0;
    }
}

static double spearman(const double *a, const double *b, int n)
{
    double ra[PICTURES], rb[PICTURES], ab = 0, aa = 0, bb = 0, mean = (n - 1) / 2.0;
    rank(a, n, ra);
    rank(b, n, rb);
    for (int i = 0; i < n; i++) {
        ab += (ra[i] - mean) * (rb[i] - mean);
        aa += (ra[i] - mean) * (ra[i] - mean);
        bb += (rb[i] - mean) * (rb[i] - mean);
    }
    return ab / sqrt(aa * bb);
}

static void test_jpeg_reward__ranks_pictures_as_their_true_sizes_do(void **state)
{
    (void)state;
    static const int qualities[] = {30, 50, 75, 95};
    float *pixels = demo_pictures(), estimate[PICTURES];
    for (int q = 0; q < 4; q++) {
        char spec[40];
        double size[PICTURES], guess[PICTURES], error = 0;
        struct reward_case c;
        snprintf(spec, sizeof spec, "jpeg:quality=%d", qualities[q]);
        reward_open(&c, spec);
        reward_score(&c, pixels, PICTURES, SIDE, SIDE, NULL, estimate, NULL, NULL);
        true_sizes(&c, pixels, PICTURES, SIDE, SIDE, size);
        for (int i = 0; i < PICTURES; i++) {
            guess[i] = -(double)estimate[i]; /* the reward is minus the size */
            error += fabs(guess[i] - size[i]) / size[i] / PICTURES;
        }
        double correlation = spearman(guess, size, PICTURES);
        print_message("quality %d: Spearman %.4f, mean relative error %.3f\n", qualities[q], correlation, error);
        assert_true(correlation >= 0.95);
        assert_true(error <= 0.05); /* it is in kB, too */
        reward_close(&c);
    }
    free(pixels);
}

/* Steps along the reward's gradient; the true size must follow. Returns the last true size over the first. */
static double climb(const char *spec, float *picture)
{
    struct reward_case c;
    double before, after;
    float score, seed = 1, *gradient = calloc(NUMBERS, sizeof *gradient);
    reward_open(&c, spec);
    true_sizes(&c, picture, 1, SIDE, SIDE, &before);
    for (int step = 0; step < 30; step++) {
        double norm = 0;
        memset(gradient, 0, NUMBERS * sizeof *gradient);
        reward_score(&c, picture, 1, SIDE, SIDE, NULL, &score, &seed, gradient);
        for (int i = 0; i < NUMBERS; i++)
            norm += (double)gradient[i] * (double)gradient[i];
        float rate = (float)(0.5 / sqrt(norm)); /* half a unit in the norm of a picture whose norm is about 60 */
        for (int i = 0; i < NUMBERS; i++)
            picture[i] = fminf(fmaxf(picture[i] + rate * gradient[i], 0), 1);
    }
    true_sizes(&c, picture, 1, SIDE, SIDE, &after);
    reward_close(&c);
    free(gradient);
    return after / before;
}

static void test_jpeg_reward__its_gradient_shrinks_and_grows_true_sizes(void **state)
{
    (void)state;
    float *pixels = demo_pictures(), *picture = malloc(NUMBERS * sizeof *picture);
    static const struct {
        const char *spec;
        bool shrinks;
    } rows[] = {{"jpeg", true},
                {"jpeg:quality=50", true},
                {"jpeg:mode=incompressibility", false},
                {"jpeg:quality=50,mode=incompressibility", false}};
    for (int row = 0; row < 4; row++) {
        double worst = rows[row].shrinks ? 0 : 10;
        for (int i = 0; i < PICTURES; i += 40) {
            memcpy(picture, pixels + i * NUMBERS, NUMBERS * sizeof *picture);
            double ratio = climb(rows[row].spec, picture);
            worst = rows[row].shrinks ? fmax(worst, ratio) : fmin(worst, ratio);
        }
        print_message("%s: true size at worst times %.3f\n", rows[row].spec, worst);
        assert_true(rows[row].shrinks ? worst < 0.95 : worst > 1.2);
    }
    free(picture);
    free(pixels);
}

static void test_jpeg_reward__has_the_gradient_of_its_value(void **state)
{
    (void)state;
    enum { H = 21, W = 35, N = 2 * H * W * 3 }; /* not whole blocks */
    const float step = 5e-4f; /* large against float32 (2e-7 of 3 kB), small against a quantisation step */
    struct reward_case c;
    float x[N], direction[N], moved[N], gradient[N] = {0}, seed[] = {1, -0.5f}, low[2], high[2], value[2];
    for (int i = 0; i < N; i++) {
        x[i] = 0.5f + 0.3f * sinf(0.11f * (float)i) + 0.1f * sinf(1.7f * (float)i);
        direction[i] = cosf(0.013f * (float)(i * i % 1000));
    }
    reward_open(&c, "jpeg:quality=80");
    reward_score(&c, x, 2, H, W, NULL, value, seed, gradient);
    double along = 0;
    for (int i = 0; i < N; i++)
        along += (double)gradient[i] * (double)direction[i];
    for (int i = 0; i < N; i++)
        moved[i] = x[i] + step * direction[i];
    reward_score(&c, moved, 2, H, W, NULL, high, NULL, NULL);
    for (int i = 0; i < N; i++)
        moved[i] = x[i] - step * direction[i];
    reward_score(&c, moved, 2, H, W, NULL, low, NULL, NULL);
    double slope = 0;
    for (int i = 0; i < 2; i++)
        slope += (double)seed[i] * ((double)high[i] - (double)low[i]) / (2 * (double)step);
    reward_close(&c);
    if (!(fabs(slope - along) <= 0.01 * fabs(slope)))
        fail_msg("the gradient says %g, differences say %g", along, slope);
}

static void test_jpeg_reward__measures_what_libjpeg_writes(void **state)
{
    (void)state;
    float *pixels = demo_pictures();
    struct reward_case c;
    double size[3];
    reward_open(&c, "jpeg");
    true_sizes(&c, pixels, 3, SIDE, SIDE, size);
    /* PIL: Image.save(format="JPEG", quality=95), bytes of the first three pictures */
    static const double expected[] = {1.947, 2.436, 1.838};
    for (int i = 0; i < 3; i++)
        assert_true(size[i] == expected[i]);
    pixels[0] = NAN; /* values out of range are cut, never undefined */
    pixels[1] = 1e30f;
    pixels[2] = -INFINITY;
    true_sizes(&c, pixels, 1, SIDE, SIDE, size);
    assert_true(size[0] > 0.6);
    struct draft_error err = {0};
    float one[3] = {0, 0, 0};
    assert_true(c.reward->kind->measure(c.reward, one, 1, 1, 1, size, &err));
    reward_close(&c);
    free(pixels);
}

static void test_jpeg_reward__says_why_a_picture_cannot_be_measured(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct reward_case c;
    double size;
    float *row = calloc(3 * 70000, sizeof *row);
    reward_open(&c, "jpeg");
    assert_false(c.reward->kind->measure(c.reward, row, 1, 1, 70000, &size, &err)); /* JPEG ends at 65500 */
    assert_non_null(strstr(err.message, "libjpeg cannot write a picture of 70000 x 1"));
    reward_close(&c);
    free(row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jpeg_reward__equals_pytorch_in_value_and_gradient),
        cmocka_unit_test(test_jpeg_reward__ranks_pictures_as_their_true_sizes_do),
        cmocka_unit_test(test_jpeg_reward__its_gradient_shrinks_and_grows_true_sizes),
        cmocka_unit_test(test_jpeg_reward__has_the_gradient_of_its_value),
        cmocka_unit_test(test_jpeg_reward__measures_what_libjpeg_writes),
        cmocka_unit_test(test_jpeg_reward__says_why_a_picture_cannot_be_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
