/* Against torch.optim.AdamW and torch.nn.utils.clip_grad_norm_ in float64 (the numbers below were printed by them). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "train/adamw.h"
#include "train/ema.h"

struct fixture {
    struct draft_arena *arena;
    struct draft_adapter *adapter;
    struct draft_trained trained;
    struct draft_adamw *opt;
    struct draft_tensor *down, *up; /* [1, 4] and [4, 1] */
};

static int setup(void **state)
{
    static struct fixture f;
    struct draft_error err = {0};
    f.arena = draft_arena_create("test", 8 << 20, &err);
    f.adapter = draft_adapter_create(f.arena, 1, 1, 0, &err);
    assert_non_null(draft_adapter_add(f.adapter, "module", 4, 4, &err));
    assert_true(draft_trained_adapter(&f.trained, f.adapter, f.arena, &err));
    f.opt = draft_adamw_create(&f.trained, f.arena, &err);
    assert_non_null(f.opt);
    f.down = f.adapter->entry[0].lora.down;
    f.up = f.adapter->entry[0].lora.up;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    draft_arena_destroy(f->arena);
    return 0;
}

static void set(float *out, const double *in)
{
    for (int i = 0; i < 4; i++)
        out[i] = (float)in[i];
}

static void give_gradient(struct draft_tensor *t, const double *gradient)
{
    set(t->grad, gradient);
    t->grad_written = true;
}

static void test_adamw__steps_as_torch_does(void **state)
{
    struct fixture *f = *state;
    static const double start[4] = {1, -2, 0.5, 0};
    static const double gradient[3][4] = {{0.5, -1, 0, 2}, {0.25, 3, 1e-3, -2}, {-4, 0.1, 1e-3, 0.5}};
    static const double wanted[3][4] = {
        {0.9890000002, -1.9880000001, 0.4995, -0.009999999950000001},
        {0.9786765204185768, -1.9909449815906983, 0.49157600685132996, -0.009463684163207895},
        {0.9830049826245886, -1.9929761057161155, 0.4825192211064495, -0.010167911551851965},
    };
    struct draft_adamw_options options = {0.01, 0.9, 0.99, 1e-8, 0.1};
    set(draft_f32(f->up), start);
    for (int step = 0; step < 3; step++) {
        draft_adamw_zero_grad(f->opt);
        give_gradient(f->up, gradient[step]);
        draft_adamw_step(f->opt, &options);
        for (int i = 0; i < 4; i++)
            assert_true(fabs(draft_f32(f->up)[i] - wanted[step][i]) < 3e-7);
    }
    assert_int_equal(f->opt->updates, 3);
}

static void test_adamw__leaves_alone_what_has_no_gradient(void **state)
{
    struct fixture *f = *state;
    float before[4];
    memcpy(before, draft_f32(f->down), sizeof before);
    draft_adamw_zero_grad(f->opt);
    give_gradient(f->up, (double[4]){1, 1, 1, 1});
    draft_adamw_step(f->opt, &(struct draft_adamw_options){0.1, 0.9, 0.999, 1e-8, 0.5});
    assert_memory_equal(before, draft_f32(f->down), sizeof before);
}

static void test_adamw__clips_the_norm_over_all_tensors(void **state)
{
    struct fixture *f = *state;
    give_gradient(f->down, (double[4]){3, 0, 0, 0});
    give_gradient(f->up, (double[4]){0, 4, 0, 0});
    double norm = draft_adamw_grad_norm(f->opt);
    assert_true(fabs(norm - 5) < 1e-12);
    draft_adamw_clip(f->opt, norm, 1);
    assert_true(fabs(*draft_grad_f32(f->down) - 0.6) < 1e-6);
    assert_true(fabs(draft_grad_f32(f->up)[1] - 0.8) < 1e-6);
    draft_adamw_clip(f->opt, 0.5, 1); /* within bounds: untouched */
    assert_true(fabs(*draft_grad_f32(f->down) - 0.6) < 1e-6);
}

static void test_adamw__the_norm_shows_what_is_not_finite(void **state)
{
    struct fixture *f = *state;
    give_gradient(f->down, (double[4]){1, NAN, 0, 0});
    give_gradient(f->up, (double[4]){1, 1, 0, 0});
    assert_false(isfinite(draft_adamw_grad_norm(f->opt)));
    give_gradient(f->down, (double[4]){1, INFINITY, 0, 0});
    assert_false(isfinite(draft_adamw_grad_norm(f->opt)));
}

static void test_adamw__warms_up_as_nemo_does(void **state)
{
    (void)state;
    assert_true(fabs(draft_warmup(1, 10, 0) - 1.0 / 11) < 1e-15);
    assert_true(fabs(draft_warmup(1, 10, 9) - 10.0 / 11) < 1e-15);
    assert_true(draft_warmup(1, 10, 10) == 1);
    assert_true(draft_warmup(0.5, 10, 1000) == 0.5);
    assert_true(draft_warmup(0.5, 0, 0) == 0.5);
}

/* Three updates of two matrices of several pieces, the last of them shorter: values, average and norm. */
static void run_updates(int threads, float *values, float *average, double *norm)
{
    enum { SIDE = 301, RANK = 130, UPDATES = 3 };
    struct draft_error err = {0};
    struct draft_backend_options options = {.threads = threads};
    struct draft_backend *backend = threads > 0 ? draft_backend_create_cpu(&options, &err) : NULL;
    struct draft_arena *arena = draft_arena_create("updates", 64 << 20, &err);
    struct draft_adapter *adapter = draft_adapter_create(arena, RANK, RANK, 0, &err);
    struct draft_trained trained;
    assert_non_null(draft_adapter_add(adapter, "module", SIDE, SIDE, &err));
    assert_true(draft_trained_adapter(&trained, adapter, arena, &err));
    assert_true(threads == 0 || draft_trained_move(&trained, backend, NULL, &err));
    struct draft_adamw *opt = draft_adamw_create(&trained, arena, &err);
    struct draft_ema *ema = draft_ema_create(&trained, 0.75, arena, &err);
    for (int update = 0; update < UPDATES; update++) {
        for (int i = 0; i < trained.count; i++) {
            float *g = draft_grad_f32(trained.tensor[i]);
            for (int k = 0; k < SIDE * RANK; k++)
                g[k] = sinf((float)(k * (i + 1) + update));
            trained.tensor[i]->grad_written = true;
        }
        *norm = draft_adamw_grad_norm(opt);
        draft_adamw_clip(opt, *norm, 1);
        draft_adamw_step(opt, &(struct draft_adamw_options){0.01, 0.9, 0.99, 1e-8, 0.1});
        assert_true(draft_ema_update(ema, &err));
    }
    for (int i = 0; i < 2; i++) {
        memcpy(values + (ptrdiff_t)i * SIDE * RANK, draft_f32(trained.tensor[i]), SIDE * RANK * sizeof(float));
        memcpy(average + (ptrdiff_t)i * SIDE * RANK, ema->average[i], SIDE * RANK * sizeof(float));
    }
    draft_arena_destroy(arena);
    draft_backend_destroy(backend);
}

static void test_adamw__is_the_same_on_any_number_of_threads(void **state)
{
    (void)state;
    enum { NUMBERS = 2 * 301 * 130 };
    static float values[2][NUMBERS], average[2][NUMBERS];
    double norm[2];
    run_updates(0, values[0], average[0], &norm[0]);
    assert_true(norm[0] > 100 && values[0][NUMBERS - 1] != 0 && average[0][NUMBERS - 1] != values[0][NUMBERS - 1]);
    for (int threads = 1; threads <= 3; threads++) {
        run_updates(threads, values[1], average[1], &norm[1]);
        assert_true(norm[0] == norm[1]);
        assert_memory_equal(values[0], values[1], sizeof values[0]);
        assert_memory_equal(average[0], average[1], sizeof average[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_adamw__steps_as_torch_does, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adamw__leaves_alone_what_has_no_gradient, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adamw__clips_the_norm_over_all_tensors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adamw__the_norm_shows_what_is_not_finite, setup, teardown),
        cmocka_unit_test(test_adamw__warms_up_as_nemo_does),
        cmocka_unit_test(test_adamw__is_the_same_on_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
