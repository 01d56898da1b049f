/* The profile: FLOPs of a full-size UNet, counted without computing it; times of ops beside the clock; its rows. */
#include "model_case.h"

#include <time.h>
#include <unistd.h>

#include "autograd/profile.h"
#include "backend/backend.h"
#include "models/unet.h"
#include "ops/ops.h"

struct place {
    struct draft_backend *backend;
    struct draft_arena *weights, *step;
    struct draft_graph g;
    struct draft_profile *profile;
};

static void open_place(struct place *p, bool dry)
{
    struct draft_error err = {0};
    p->backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 2, .dry = dry}, &err);
    p->weights = draft_arena_create("weights", (size_t)16 << 30, &err);
    p->step = draft_arena_create("step", (size_t)16 << 30, &err);
    assert_true(p->backend && p->weights && p->step && draft_graph_init(&p->g, p->backend, p->step, &err));
    p->g.profile = p->profile = draft_profile_create(p->backend, &err);
    assert_non_null(p->profile);
}

static void close_place(struct place *p)
{
    draft_profile_destroy(p->profile);
    draft_graph_finish(&p->g);
    draft_arena_destroy(p->step);
    draft_arena_destroy(p->weights);
    draft_backend_destroy(p->backend);
}

static double sum_of(struct place *p, const char *op, const char *phase, double *seconds)
{
    const struct draft_profile_row *rows;
    struct draft_error err = {0};
    int count;
    double flops = 0;
    *seconds = 0;
    assert_true(draft_profile_rows(p->profile, &rows, &count, &err));
    for (int i = 0; i < count; i++)
        if (strncmp(rows[i].what, op, strlen(op)) == 0 && (!phase || strcmp(rows[i].phase, phase) == 0)) {
            flops += rows[i].flops;
            *seconds += rows[i].seconds;
        }
    return flops;
}

/* A guided UNet step of SD 1.5 at 64x64 latents: 1525 GFLOP of convolutions with upsampling in four taps (725), linears
 * and 1x1 convolutions (548) and attention (252), counted from the shapes elsewhere; with upsampling and then nine
 * taps, as it is computed here, 76 more. */
static void test_profile__counts_the_flops_of_stable_diffusion_1_5_without_computing_them(void **state)
{
    (void)state;
    char folder[] = "/tmp/draft_profile_XXXXXX", command[300], path[64];
    struct place p;
    struct draft_error err = {0};
    double seconds;
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof command, BUILD "/gpu/random_model sd15 %s --empty", folder);
    assert_int_equal(system(command), 0);
    open_place(&p, true);
    snprintf(path, sizeof path, "%s/unet", folder);
    struct draft_unet *unet = draft_unet_open(path, p.weights, NULL, &err);
    if (!unet)
        fail_msg("%s", err.message);
    struct draft_tensor *x = draft_new(&p.g, DRAFT_F32, 4, (int64_t[]){2, 64, 64, 4});
    struct draft_unet_call call = {.t = draft_scalar(&p.g, 981),
                                   .context = draft_new(&p.g, DRAFT_F32, 3, (int64_t[]){2, 77, 768})};
    draft_no_grad(&p.g);
    call.cached = draft_unet_precompute(&p.g, unet, call.context); /* keys and values: once a prompt, not a step */
    draft_profile_clear(p.profile);
    assert_non_null(draft_unet_forward(&p.g, unet, x, &call));
    double conv = sum_of(&p, "conv2d", NULL, &seconds) / 1e9, linear = sum_of(&p, "linear", NULL, &seconds) / 1e9,
           attention = sum_of(&p, "attention", NULL, &seconds) / 1e9;
    assert_true(fabs(conv - (725 + 76)) < 1.5);
    assert_true(fabs(linear - 548) < 1.5);
    assert_true(fabs(attention - 252) < 1);
    assert_true(fabs(conv + linear + attention - (1525 + 76)) < 3);
    close_place(&p);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct draft_tensor *filled(struct draft_graph *g, int64_t rows, int64_t columns)
{
    struct draft_tensor *x = draft_new(g, DRAFT_F32, 2, (int64_t[]){rows, columns});
    assert_non_null(x);
    for (int64_t i = 0; i < rows * columns; i++)
        draft_f32(x)[i] = (float)(i % 7) - 3;
    return x;
}

static void test_profile__times_ops_and_keeps_a_row_for_each_phase_direction_and_shape(void **state)
{
    (void)state;
    enum { M = 256, K = 512, O = 384, R = 16, TIMES = 3 };
    struct place p;
    open_place(&p, false);
    struct draft_tensor *x = filled(&p.g, M, K), *w = filled(&p.g, O, K), *down = filled(&p.g, R, K),
                        *up = filled(&p.g, O, R);
    static const float scale = 1;
    static const bool on = true;
    struct draft_lora lora = {down, up, &scale, &on};
    x->needs_grad = down->needs_grad = up->needs_grad = true;
    double start = now(), seconds, backward;
    for (int i = 0; i < TIMES; i++) {
        draft_profile_phase(&p.g, "forth");
        struct draft_tensor *y = draft_linear(&p.g, x, w, NULL, &lora);
        draft_profile_phase(&p.g, "back");
        assert_true(draft_graph_backward(&p.g, draft_mean(&p.g, y), NULL));
    }
    double took = now() - start;
    const double whole = 2.0 * M * K * O, in = 2.0 * M * K * R, out = 2.0 * M * O * R;
    assert_true(sum_of(&p, "linear 256 x 512>384 + LoRA 16", "forth", &seconds) == TIMES * (whole + in + out));
    /* dx, s dy B, dB, dA, and the adapter's part of dx; the weight is frozen */
    assert_true(sum_of(&p, "linear 256 x 512>384 + LoRA 16", "back", &backward) == TIMES * (whole + 2 * out + 2 * in));
    assert_true(seconds > 0 && backward > 0 && seconds + backward < took);
    sum_of(&p, "", NULL, &seconds);
    assert_true(seconds <= took && seconds > 0.5 * took);

    draft_profile_clear(p.profile);
    assert_true(sum_of(&p, "", NULL, &seconds) == 0 && seconds == 0);
    close_place(&p);
}

static void test_profile__measures_what_the_machine_reaches_and_leaves_the_graph_as_it_was(void **state)
{
    (void)state;
    struct place p;
    struct draft_roofline reached;
    open_place(&p, false);
    size_t before = draft_arena_live(p.step);
    assert_true(draft_profile_roofline(&p.g, &reached));
    assert_true(reached.flops > 1e8 && reached.flops < 1e14);
    assert_true(reached.bytes > 1e8 && reached.bytes < 1e13);
    assert_int_equal(draft_arena_live(p.step), before);
    assert_true(p.g.recording && p.g.profile == p.profile);
    close_place(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile__counts_the_flops_of_stable_diffusion_1_5_without_computing_them),
        cmocka_unit_test(test_profile__times_ops_and_keeps_a_row_for_each_phase_direction_and_shape),
        cmocka_unit_test(test_profile__measures_what_the_machine_reaches_and_leaves_the_graph_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
