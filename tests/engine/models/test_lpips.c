#include "model_case.h"

#include "backend/backend.h"
#include "models/lpips.h"
#include "ops/ops.h"

static const char FILE_NAME[] = FIXTURES "/golden/lpips.safetensors";
enum { MAX_IMAGES = 16 };

struct bench {
    struct draft_backend *backend;
    struct draft_arena *weights, *step;
    struct draft_graph g;
    struct draft_lpips *lpips;
    struct draft_safetensors *file;
    struct draft_error err;
};

static void bench_open(struct bench *b)
{
    *b = (struct bench){0};
    struct draft_backend_options options = {.threads = 1};
    b->backend = draft_backend_create_cpu(&options, &b->err);
    b->weights = draft_arena_create("weights", (size_t)1 << 28, &b->err);
    b->step = draft_arena_create("step", (size_t)1 << 28, &b->err);
    assert_true(draft_graph_init(&b->g, b->backend, b->step, &b->err));
    b->lpips = draft_lpips_open(DEMO "/emoji-lpips", b->weights, &b->err);
    b->file = draft_safetensors_open(FILE_NAME, &b->err);
    if (b->lpips == NULL || b->file == NULL)
        fail_msg("%s", b->err.message);
}

static void bench_close(struct bench *b)
{
    draft_safetensors_close(b->file);
    draft_graph_finish(&b->g);
    draft_arena_destroy(b->step);
    draft_arena_destroy(b->weights);
    draft_backend_destroy(b->backend);
}

/* The fixture's pictures, [6, 3, 64, 64] in the file. */
static struct draft_tensor *images(struct bench *b)
{
    const struct draft_safetensors_entry *e = draft_safetensors_find(b->file, "images");
    int64_t n = e->dim[0], c = e->dim[1], h = e->dim[2], w = e->dim[3];
    float *plain = malloc(e->bytes);
    assert_true(draft_safetensors_to_f32(e, plain, &b->err));
    struct draft_tensor *x = draft_new(&b->g, DRAFT_F32, 4, (const int64_t[]){n, h, w, c});
    for (int64_t i = 0; i < n; i++)
        for (int64_t p = 0; p < h * w; p++)
            for (int64_t k = 0; k < c; k++)
                draft_f32(x)[(i * h * w + p) * c + k] = plain[(i * c + k) * h * w + p];
    free(plain);
    return x;
}

static void test_lpips__distances_are_the_lpips_package_s(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    assert_true(draft_lpips_load_linear(b.lpips, FILE_NAME, &b.err));
    double d[MAX_IMAGES * MAX_IMAGES], difference = 0, size = 0;
    float expected[MAX_IMAGES * MAX_IMAGES], mean;
    assert_true(draft_lpips_pairs(&b.g, b.lpips, images(&b), d));
    assert_true(draft_safetensors_to_f32(draft_safetensors_find(b.file, "distance"), expected, &b.err));
    assert_true(draft_safetensors_to_f32(draft_safetensors_find(b.file, "mean_pairwise"), &mean, &b.err));
    for (int i = 0; i < 36; i++) {
        difference += (d[i] - expected[i]) * (d[i] - expected[i]);
        size += (double)expected[i] * expected[i];
    }
    assert_true(sqrt(difference / size) <= 2e-5);
    assert_true(fabs(draft_lpips_mean_pairwise(d, 6) - mean) <= 2e-5 * mean);
    bench_close(&b);
}

static void test_lpips__is_symmetric_with_zero_for_equal_pictures_and_gives_its_memory_back(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    struct draft_tensor *six = images(&b), *twelve = draft_concat_batch(&b.g, six, six);
    double d[12 * 12];
    size_t mark = draft_arena_mark(b.step);
    assert_true(draft_lpips_pairs(&b.g, b.lpips, twelve, d));
    assert_int_equal(draft_arena_mark(b.step), mark);
    assert_true(b.g.recording);
    for (int i = 0; i < 12; i++)
        for (int j = 0; j < 12; j++) {
            assert_true(d[i * 12 + j] == d[j * 12 + i]);
            assert_true((d[i * 12 + j] == 0) == (i % 6 == j % 6));
        }
    bench_close(&b);
}

static void test_lpips__mean_of_one_picture_is_zero(void **state)
{
    (void)state;
    double zero = 0;
    assert_true(draft_lpips_mean_pairwise(&zero, 1) == 0);
}

static void test_lpips__refuses_a_folder_or_linear_layers_that_do_not_fit(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    struct draft_error err = {0};
    assert_null(draft_lpips_open(DEMO "/emoji-clip", b.weights, &err));
    assert_non_null(strstr(err.message, "alexnet"));
    err = (struct draft_error){0};
    assert_false(draft_lpips_load_linear(b.lpips, DEMO "/emoji-lpips/alexnet.safetensors", &err));
    assert_non_null(strstr(err.message, "lin0.model.1.weight"));

    char path[] = "/tmp/draft-lpips-XXXXXX";
    close(mkstemp(path));
    float values[64] = {0};
    struct draft_safetensors_item item = {
        .name = "lin0.model.1.weight", .dtype = DRAFT_F32, .rank = 4, .dim = {1, 64, 1, 1}, .data = values};
    values[5] = -1;
    assert_true(draft_safetensors_write(path, &item, 1, NULL, &b.err));
    err = (struct draft_error){0};
    assert_false(draft_lpips_load_linear(b.lpips, path, &err));
    assert_non_null(strstr(err.message, "not negative"));
    item.dim[1] = 32;
    assert_true(draft_safetensors_write(path, &item, 1, NULL, &b.err));
    err = (struct draft_error){0};
    assert_false(draft_lpips_load_linear(b.lpips, path, &err));
    assert_non_null(strstr(err.message, "[1, 32, 1, 1]"));
    unlink(path);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lpips__distances_are_the_lpips_package_s),
        cmocka_unit_test(test_lpips__is_symmetric_with_zero_for_equal_pictures_and_gives_its_memory_back),
        cmocka_unit_test(test_lpips__mean_of_one_picture_is_zero),
        cmocka_unit_test(test_lpips__refuses_a_folder_or_linear_layers_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
