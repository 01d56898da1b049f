/* Weights without values: every product of one, from its file, is bit for bit that of the same weight in memory,
 * whether its forms are kept or made anew, on any number of threads; and what happens when the file changes under it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "tensor/weight_source.h"
#include "tensor/weights.h"

enum { O = 40, C = 48, SIDE = 16 };

static char folder[] = "/tmp/draft-lazy-XXXXXX";
static char path[64];

/* One file: "matrix" [O, C], "thin" [3, C], "filter" [O, C, 3, 3], "patch" [O, 3, 4, 4], in F16. */
static const struct {
    const char *name;
    int rank;
    int64_t dim[4];
} shapes[] = {
    {"filter", 4, {O, C, 3, 3}}, {"matrix", 2, {O, C, 0, 0}}, {"patch", 4, {O, 3, 4, 4}}, {"thin", 2, {3, C, 0, 0}}};
enum { FILTER, MATRIX, PATCH, THIN, SHAPES };

static float *wave(int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(i * 7919 % 1009) / 1009 - 0.5f;
    return x;
}

static int write_file(void **state)
{
    (void)state;
    struct draft_safetensors_item item[SHAPES];
    struct draft_error err = {0};
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    for (int i = 0; i < SHAPES; i++) {
        item[i] = (struct draft_safetensors_item){.name = shapes[i].name, .dtype = DRAFT_F16, .rank = shapes[i].rank};
        int64_t n = 1;
        for (int k = 0; k < shapes[i].rank; k++)
            n *= item[i].dim[k] = shapes[i].dim[k];
        item[i].data = wave(n);
    }
    bool ok = draft_safetensors_write(path, item, SHAPES, NULL, &err);
    for (int i = 0; i < SHAPES; i++)
        free((void *)item[i].data);
    return ok ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    rmdir(folder);
    return 0;
}

static struct draft_arena *arena;

static struct draft_tensor *take(int shape)
{
    struct draft_error err = {0};
    struct draft_weights *weights = draft_weights_open(folder, "model", arena, &err);
    const int64_t *d = shapes[shape].dim;
    struct draft_tensor *w = shapes[shape].rank == 2 ? draft_weights_take_lazy(weights, shapes[shape].name, 2, d, &err)
                                                     : draft_weights_take_lazy_conv(weights, shapes[shape].name, d[0],
                                                                                    d[1], d[2], d[3], &err);
    draft_weights_close(weights);
    assert_non_null(w);
    assert_null(w->data);
    return w;
}

static int open_arena(void **state)
{
    (void)state;
    arena = draft_arena_create("engine", 64 << 20, NULL);
    return arena ? 0 : -1;
}

static int close_arena(void **state)
{
    (void)state;
    draft_arena_destroy(arena);
    return 0;
}

/* Forward into out, backward behind it. The picture is large enough for Winograd on both ways of cutting tiles. */
static bool products(struct draft_backend *backend, int shape, int64_t side, struct draft_tensor *w, float *out,
                     struct draft_error *err)
{
    const int64_t *d = shapes[shape].dim;
    int64_t in = side * side * d[1], outputs = side * side * d[0];
    int64_t n = in > outputs ? in : outputs;
    float *x = wave(n);
    bool ok;
    if (shapes[shape].rank == 2) {
        ok = draft_cpu_linear(backend, side * side, x, w, NULL, NULL, out, false, err) &&
             draft_cpu_linear_dx(backend, side * side, x, w, NULL, out + outputs, false, err);
    } else {
        struct draft_conv_shape s = {.n = 1, .h = side, .w = side, .c = d[1], .o = d[0], .kh = d[2], .kw = d[3]};
        s.stride = shape == PATCH ? 4 : 1;
        s.pad_top = s.pad_left = s.pad_bottom = s.pad_right = shape == PATCH ? 0 : 1;
        ok = draft_cpu_conv2d(backend, &s, x, w, NULL, out, err) &&
             draft_cpu_conv2d_dx(backend, &s, x, w, out + outputs, false, err);
    }
    free(x);
    return ok;
}

static void test_lazy__every_product_is_that_of_the_weight_in_memory(void **state)
{
    (void)state;
    struct draft_error err = {0};
    static const int64_t sides[] = {SIDE, 6 * SIDE};
    for (int threads = 1; threads <= 3; threads += 2)
        for (int keep = 0; keep < 2; keep++)
            for (int i = 0; i < 2 * SHAPES; i++) {
                int64_t side = sides[i / SHAPES];
                int shape = i % SHAPES;
                size_t n = (size_t)(side * side * (O + C));
                float *expected = calloc(2 * n, sizeof *expected), *got = expected + n;
                struct draft_backend_options options = {.threads = threads};
                struct draft_backend *one =
                    draft_backend_create_cpu(&(struct draft_backend_options){.threads = 1}, &err);
                struct draft_backend *backend = draft_backend_create_cpu(&options, &err);
                struct draft_tensor *whole = take(shape), *lazy = take(shape);
                assert_true(draft_weight_materialize(whole, &err));
                if (!keep)
                    draft_backend_keep(backend, 0);
                assert_true(products(one, shape, side, whole, expected, &err));
                for (int again = 0; again < 2; again++) {
                    assert_true(products(backend, shape, side, lazy, got, &err));
                    assert_memory_equal(got, expected, n * sizeof *got);
                }
                assert_int_equal(draft_backend_prepared_bytes(backend) > 0, keep);
                draft_backend_destroy(backend);
                draft_backend_destroy(one);
                free(expected);
            }
}

static void test_lazy__weights_of_every_step_keep_one_form_however_little_memory_there_is(void **state)
{
    (void)state;
    struct draft_error err = {0};
    float *out = calloc((size_t)(SIDE * SIDE * (O + C)), sizeof *out);
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 2}, &err);
    struct draft_tensor *w = take(FILTER);
    w->every_step = true;
    draft_backend_keep(backend, 0);
    assert_true(products(backend, FILTER, SIDE, w, out, &err));
    size_t bytes = draft_backend_prepared_bytes(backend), plain = O * C * 9 * sizeof(float);
    assert_true(bytes >= plain && bytes < 2 * plain);
    draft_backend_destroy(backend);
    free(out);
}

static void test_lazy__a_file_that_changes_is_an_error_not_a_fault(void **state)
{
    (void)state;
    struct draft_error err = {0};
    float *out = calloc((size_t)(SIDE * SIDE * (O + C)), sizeof *out);
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 2}, &err);
    draft_backend_keep(backend, 0);
    struct draft_tensor *w = take(FILTER), *matrix = take(MATRIX);
    assert_true(products(backend, FILTER, SIDE, w, out, &err));
    int fd = open(path, O_WRONLY);
    char byte = 1;
    usleep(20000); /* the file system's clock ticks */
    assert_true(pwrite(fd, &byte, 1, lseek(fd, 0, SEEK_END) - 1) == 1);
    assert_false(products(backend, MATRIX, SIDE, matrix, out, &err));
    assert_int_equal(err.code, DRAFT_DATA_LOSS);
    assert_non_null(strstr(err.message, "model.safetensors was changed while it was in use"));
    err = (struct draft_error){0};
    assert_true(ftruncate(fd, 600) == 0);
    assert_false(products(backend, FILTER, SIDE, w, out, &err));
    assert_int_equal(err.code, DRAFT_DATA_LOSS);
    assert_non_null(strstr(err.message, "model.safetensors became shorter while it was read"));
    close(fd);
    draft_backend_destroy(backend);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lazy__every_product_is_that_of_the_weight_in_memory, open_arena,
                                        close_arena),
        cmocka_unit_test_setup_teardown(test_lazy__weights_of_every_step_keep_one_form_however_little_memory_there_is,
                                        open_arena, close_arena),
        cmocka_unit_test_setup_teardown(test_lazy__a_file_that_changes_is_an_error_not_a_fault, open_arena,
                                        close_arena),
    };
    return cmocka_run_group_tests(tests, write_file, remove_file);
}
