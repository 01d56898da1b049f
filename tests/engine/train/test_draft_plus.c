/*
 * The algorithm on the demo model, where no recorded run looks: micro-batches, recompute, noise and prompts keyed by
 * place, stopping in the middle. The numbers themselves are held by golden_check's replays.
 */
#include "demo_job.h"

#include <math.h>
#include <sys/stat.h>

#include "state.h"
#include "train/batches.h"

/* All gradients of one step of a job, malloc'd. */
static float *gradients(struct draft_job_config config, struct draft_plus_numbers *numbers, size_t *count)
{
    struct draft_error err = {0};
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 1); /* up is zero before: gradients of down would all be 0 */
    struct draft_plus dp = draft_engine_algorithm(e);
    draft_adamw_zero_grad(e->opt);
    if (!draft_plus_step(&dp, draft_batches_take(e->batches, 1), numbers, &err))
        fail_msg("%s", err.message);
    *count = 0;
    for (int i = 0; i < e->opt->count; i++)
        *count += (size_t)draft_tensor_count(e->opt->param[i]);
    float *out = malloc(*count * sizeof *out), *to = out;
    for (int i = 0; i < e->opt->count; i++) {
        size_t n = (size_t)draft_tensor_count(e->opt->param[i]);
        memcpy(to, e->opt->param[i]->grad, n * sizeof *to);
        to += n;
    }
    draft_engine_close(e);
    return out;
}

static double relative(const float *a, const float *b, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(difference / size);
}

static void assert_same_step(struct draft_job_config a, struct draft_job_config b)
{
    struct draft_plus_numbers numbers_a, numbers_b;
    size_t count;
    float *grad_a = gradients(a, &numbers_a, &count), *grad_b = gradients(b, &numbers_b, &count);
    assert_true(fabs(numbers_a.loss - numbers_b.loss) < 1e-4 * fabs(numbers_b.loss));
    assert_true(fabs(numbers_a.kl - numbers_b.kl) <= 1e-3 * numbers_b.kl);
    assert_true(fabs(numbers_a.reward_std - numbers_b.reward_std) < 1e-3);
    assert_true(relative(grad_a, grad_b, count) < 1e-3);
    free(grad_a);
    free(grad_b);
}

static void test_draft_plus__micro_batches_do_not_change_the_step(void **state)
{
    (void)state;
    struct draft_job_config whole = demo_job();
    whole.micro_batch = whole.global_batch = 4;
    struct draft_job_config parts = whole;
    parts.micro_batch = 1;
    assert_same_step(parts, whole);
}

static void test_draft_plus__micro_batches_do_not_change_draft_lv(void **state)
{
    (void)state;
    struct draft_job_config whole = demo_job();
    whole.micro_batch = whole.global_batch = 2;
    whole.lv_copies = 2;
    struct draft_job_config parts = whole;
    parts.micro_batch = 1;
    assert_same_step(parts, whole);
}

static void test_draft_plus__recompute_gives_the_same_gradients_in_less_memory(void **state)
{
    (void)state;
    struct draft_job_config kept = demo_job();
    kept.truncation_steps = kept.sampling_steps; /* full DRaFT */
    struct draft_job_config again = kept;
    again.recompute = true;
    assert_same_step(again, kept);

    struct draft_engine *a = open_demo(&kept, NULL), *b = open_demo(&again, NULL);
    train(a, 1);
    train(b, 1);
    assert_true(draft_arena_high_water(b->step) * 2 < draft_arena_high_water(a->step));
    draft_engine_close(a);
    draft_engine_close(b);
}

static void test_draft_plus__step_memory_is_flat_over_a_job(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    config.lv_copies = 1;
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 1);
    size_t step = draft_arena_high_water(e->step), engine = draft_arena_live(e->weights);
    train(e, 3);
    assert_int_equal(draft_arena_high_water(e->step), step);
    assert_int_equal(draft_arena_live(e->weights), engine);
    assert_int_equal(draft_arena_live(e->step), 0);
    draft_engine_close(e);
}

static void test_draft_plus__prompts_pass_once_an_epoch_in_changing_order(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config config = demo_job();
    config.global_batch = 5; /* one step is one epoch */
    config.micro_batch = 5;
    assert_true(draft_job_config_resolve(&config, &err));
    struct draft_batches *batches = draft_batches_create(&config, 4, 3, &err);
    int moved = 0;
    for (int epoch = 0; epoch < 6; epoch++) {
        const struct draft_plus_batch *batch = draft_batches_take(batches, epoch);
        int seen[5] = {0};
        for (int i = 0; i < 5; i++)
            for (int j = 0; j < 5; j++)
                if (batch->prompts[i] == demo_prompts[j]) {
                    seen[j]++;
                    moved += i != j;
                }
        for (int j = 0; j < 5; j++)
            assert_int_equal(seen[j], 1);
    }
    assert_true(moved > 10);
    draft_batches_destroy(batches);
}

static void test_draft_plus__noise_belongs_to_step_and_place(void **state)
{
    (void)state;
    enum { NUMBERS = 64 };
    struct draft_error err = {0};
    struct draft_job_config config = demo_job();
    config.lv_copies = 2;
    assert_true(draft_job_config_resolve(&config, &err));
    struct draft_batches *batches = draft_batches_create(&config, NUMBERS, 3, &err);
    float first[2 * NUMBERS], fresh[2 * NUMBERS];
    const struct draft_plus_batch *batch = draft_batches_take(batches, 3);
    memcpy(first, batch->noise, sizeof first);
    memcpy(fresh, batch->renoise[1], sizeof fresh);
    assert_memory_not_equal(first, first + NUMBERS, NUMBERS * sizeof *first);
    assert_memory_not_equal(first, fresh, sizeof first);
    assert_memory_not_equal(batch->renoise[0], fresh, sizeof fresh);
    batch = draft_batches_take(batches, 4);
    assert_memory_not_equal(first, batch->noise, sizeof first);
    batch = draft_batches_take(batches, 3);
    assert_memory_equal(first, batch->noise, sizeof first);
    assert_memory_equal(fresh, batch->renoise[1], sizeof fresh);
    draft_batches_destroy(batches);
}

/* The demo's pipeline under a scheduler of our own. */
static const char *pipeline_with(const char *name, const char *scheduler)
{
    static const char *const parts[] = {"tokenizer", "text_encoder", "unet", "vae"};
    static char folder[256];
    char path[400], target[400];
    snprintf(folder, sizeof folder, "%s", in_folder(name));
    mkdir(folder, 0700);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, parts[i]);
        snprintf(target, sizeof target, DEMO "/emoji-sd/%s", parts[i]);
        assert_int_equal(symlink(target, path), 0);
    }
    snprintf(path, sizeof path, "%s/scheduler", folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", folder);
    FILE *file = fopen(path, "w");
    fputs(scheduler, file);
    fclose(file);
    return folder;
}

static double loss_at(struct draft_engine *e, const float *direction, double along)
{
    struct draft_error err = {0};
    struct draft_plus dp = draft_engine_algorithm(e);
    struct draft_plus_numbers numbers;
    for (int sign = 1; sign >= -1; sign -= 2) {
        const float *d = direction;
        for (int i = 0; i < e->opt->count; i++)
            for (int64_t k = 0; k < draft_tensor_count(e->opt->param[i]); k++)
                draft_f32(e->opt->param[i])[k] += (float)(sign * along * *d++);
        if (sign == 1 && !draft_plus_step(&dp, draft_batches_take(e->batches, 1), &numbers, &err))
            fail_msg("%s", err.message);
    }
    return numbers.loss;
}

/* The whole of the algorithm against itself: along the gradient, the loss changes by the gradient's length. Only with
 * K = T: what a smaller K cuts off changes the loss too. */
static void assert_gradient_is_the_slope(struct draft_job_config config)
{
    config.sampling_steps = config.truncation_steps = 3;
    struct draft_plus_numbers numbers;
    size_t count;
    float *direction = gradients(config, &numbers, &count);
    double norm = 0;
    for (size_t i = 0; i < count; i++)
        norm += (double)direction[i] * direction[i];
    norm = sqrt(norm);
    for (size_t i = 0; i < count; i++)
        direction[i] = (float)(direction[i] / norm);
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 1);
    double h = 4e-3 / norm; /* a difference of about 8e-3 in a loss known to 1e-5 */
    double slope = (loss_at(e, direction, h) - loss_at(e, direction, -h)) / (2 * h);
    if (fabs(slope - norm) > 0.01 * norm)
        fail_msg("the loss changes by %g where the gradient says %g", slope, norm);
    draft_engine_close(e);
    free(direction);
}

static void test_draft_plus__the_gradient_is_the_slope_with_v_prediction(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    config.model = pipeline_with("v", "{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"scaled_linear\", "
                                      "\"beta_start\": 0.00085, \"beta_end\": 0.012, \"clip_sample\": false, "
                                      "\"prediction_type\": \"v_prediction\", \"steps_offset\": 1, "
                                      "\"set_alpha_to_one\": false}");
    config.kl_coeff = 20; /* both terms matter */
    assert_gradient_is_the_slope(config);
}

static void test_draft_plus__the_gradient_is_the_slope_with_clip_sample(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    config.model = pipeline_with("clip", "{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"scaled_linear\", "
                                         "\"beta_start\": 0.00085, \"beta_end\": 0.012, \"clip_sample\": true, "
                                         "\"clip_sample_range\": 1.5, \"steps_offset\": 1}");
    assert_gradient_is_the_slope(config);
}

static void test_draft_plus__the_gradient_is_the_slope_with_every_sampler(void **state)
{
    (void)state;
    static const char *const names[] = {"pndm", "euler_karras", "euler_a", "dpmpp_2m_karras"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct draft_job_config config = demo_job();
        config.sampler = names[i];
        config.kl_coeff = 1; /* larger, and it is seen that the frozen prediction moves with x_t but is not followed */
        assert_gradient_is_the_slope(config);
    }
}

/* PNDM's outputs and Euler ancestral's noise of the steps without gradient are carried over to those with it. */
static void test_draft_plus__micro_batches_and_recompute_do_not_change_other_samplers(void **state)
{
    (void)state;
    static const char *const names[] = {"pndm", "euler_a", "dpmpp_2m"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct draft_job_config whole = demo_job();
        whole.sampler = names[i];
        whole.sampling_steps = 6;
        whole.truncation_steps = 2;
        whole.micro_batch = whole.global_batch = 2;
        struct draft_job_config parts = whole;
        parts.micro_batch = 1;
        parts.recompute = true;
        assert_same_step(parts, whole);
    }
}

static void test_draft_plus__lv_works_where_x_is_not_of_unit_variance(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_plus_numbers numbers;
    size_t count;
    config.lv_copies = 2;
    config.sampler = "ddim";
    free(gradients(config, &numbers, &count));
    double ddim = numbers.kl;
    config.sampler = "euler"; /* the copies lie at the last level, and there the two samplers almost agree */
    free(gradients(config, &numbers, &count));
    assert_true(isfinite(numbers.loss) && numbers.kl > ddim / 10 && numbers.kl < ddim * 10);
}

static void test_draft_plus__the_gradient_is_the_slope_of_a_mix(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    config.reward[1] = (struct draft_reward_spec){.kind = "jpeg", .options = "quality=50", .weight = 2};
    config.reward_count = 2;
    assert_gradient_is_the_slope(config);
}

/* Stops at the n-th question. */
struct countdown {
    int left;
    enum draft_phase last;
};
static bool count_down(void *context, enum draft_phase phase, int64_t done, int64_t total)
{
    struct countdown *c = context;
    assert_true(done >= 0 && done <= total);
    c->last = phase;
    return c->left-- > 0;
}

static void test_draft_plus__a_stop_inside_a_step_leaves_the_state_as_it_was(void **state)
{
    (void)state;
    struct countdown c = {.left = 1 << 30};
    struct draft_watch watch = {count_down, &c};
    struct draft_job_config config = demo_job();
    config.lv_copies = 1;
    struct draft_engine *watched = open_demo(&config, &watch), *undisturbed = open_demo(&config, NULL);
    struct draft_report report;
    bool seen[DRAFT_PHASE_SAVING + 1] = {false};
    train(watched, 2);
    for (int stop_at = 0; stop_at < 4000; stop_at += 1 + stop_at / 3) {
        struct draft_error err = {0};
        c.left = stop_at;
        if (draft_engine_step(watched, &report, &err))
            break; /* stopped nowhere: the step is done */
        assert_int_equal(err.code, DRAFT_CANCELLED);
        assert_int_equal(draft_engine_step_count(watched), 2);
        seen[c.last] = true;
    }
    assert_true(seen[DRAFT_PHASE_SAMPLING] && seen[DRAFT_PHASE_BACKWARD]);
    assert_int_equal(draft_engine_step_count(watched), 3);
    train(undisturbed, 3);
    c.left = 1 << 30;
    assert_same_files(save(watched, "watched"), save(undisturbed, "undisturbed"));
    draft_engine_close(watched);
    draft_engine_close(undisturbed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draft_plus__micro_batches_do_not_change_the_step),
        cmocka_unit_test(test_draft_plus__micro_batches_do_not_change_draft_lv),
        cmocka_unit_test(test_draft_plus__recompute_gives_the_same_gradients_in_less_memory),
        cmocka_unit_test(test_draft_plus__step_memory_is_flat_over_a_job),
        cmocka_unit_test(test_draft_plus__prompts_pass_once_an_epoch_in_changing_order),
        cmocka_unit_test(test_draft_plus__noise_belongs_to_step_and_place),
        cmocka_unit_test(test_draft_plus__the_gradient_is_the_slope_with_v_prediction),
        cmocka_unit_test(test_draft_plus__the_gradient_is_the_slope_with_clip_sample),
        cmocka_unit_test(test_draft_plus__the_gradient_is_the_slope_with_every_sampler),
        cmocka_unit_test(test_draft_plus__micro_batches_and_recompute_do_not_change_other_samplers),
        cmocka_unit_test(test_draft_plus__lv_works_where_x_is_not_of_unit_variance),
        cmocka_unit_test(test_draft_plus__the_gradient_is_the_slope_of_a_mix),
        cmocka_unit_test(test_draft_plus__a_stop_inside_a_step_leaves_the_state_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
