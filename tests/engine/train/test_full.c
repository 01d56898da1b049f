/* Training every weight of the UNet, and the average of what is trained. */
#include "demo_job.h"

#include <math.h>

#include "state.h"

static struct draft_job_config full_job(void)
{
    struct draft_job_config config = demo_job();
    config.train = DRAFT_TRAIN_FULL;
    config.lora_rank = 0;
    config.learning_rate = 2e-5;
    config.sampling_steps = 3;
    config.ema_decay = 0.9;
    return config;
}

static struct draft_tensor *weight_of(struct draft_engine *e, const char *name)
{
    for (int i = 0; i < e->trained.count; i++)
        if (strcmp(e->trained.name[i], name) == 0)
            return e->trained.tensor[i];
    fail_msg("no weight %s is trained", name);
    return NULL;
}

static float *picture_of(struct draft_engine *e, const struct draft_sample_request *request)
{
    struct draft_error err = {0};
    struct draft_picture picture;
    if (!draft_engine_sample(e, request, &picture, &err))
        fail_msg("%s", err.message);
    return picture.rgb;
}

/* The largest difference of two pictures' numbers, which are from 0 to 1. */
static double difference(struct draft_engine *a, struct draft_engine *b, const struct draft_sample_request *of_a,
                         const struct draft_sample_request *of_b)
{
    float *x = picture_of(a, of_a), *y = picture_of(b, of_b);
    double most = 0;
    for (int i = 0; i < 32 * 32 * 3; i++)
        most = fmax(most, fabs((double)x[i] - y[i]));
    free(x);
    free(y);
    return most;
}
/* Trained weights are multiplied with by other kernels than frozen ones: same numbers but for rounding. */
static const double ROUNDING = 1e-4;

/* d loss / d weight along a direction against central differences: one weight of every kind. */
static void test_full__gradients_of_every_kind_of_weight_are_the_differences(void **state)
{
    (void)state;
    static const char *const name[] = {
        "conv_in.weight",
        "time_embedding.linear_1.bias",
        "down_blocks.0.resnets.0.norm1.weight",
        "down_blocks.0.resnets.0.time_emb_proj.weight",
        "mid_block.attentions.0.proj_in.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        "mid_block.attentions.0.transformer_blocks.0.norm3.bias",
        "up_blocks.0.resnets.0.conv_shortcut.weight",
        "conv_norm_out.bias",
        "conv_out.bias",
    };
    struct draft_job_config config = full_job();
    config.sampling_steps = config.truncation_steps = 1; /* nothing before the gradient depends on the weights */
    config.guidance = 1;
    config.kl_coeff = 0;
    struct draft_engine *e = open_demo(&config, NULL);
    struct draft_error err = {0};
    struct draft_plus dp = draft_engine_algorithm(e);
    const struct draft_plus_batch *batch = draft_batches_take(e->batches, 0);
    struct draft_plus_numbers at;
    draft_adamw_zero_grad(e->opt);
    assert_true(draft_plus_step(&dp, batch, &at, &err));
    for (size_t k = 0; k < sizeof name / sizeof *name; k++) {
        struct draft_tensor *w = weight_of(e, name[k]);
        assert_true(w->grad_written);
        int64_t n = draft_tensor_count(w);
        double length = 0, loss[2];
        float *grad = memcpy(malloc((size_t)n * sizeof(float)), w->grad, (size_t)n * sizeof(float));
        float *kept = memcpy(malloc((size_t)n * sizeof(float)), w->data, (size_t)n * sizeof(float));
        for (int64_t i = 0; i < n; i++)
            length += (double)grad[i] * grad[i];
        length = sqrt(length);
        double step = 4e-4 / length; /* along the gradient, whose length is the derivative: beyond fp32's rounding */
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < n; i++)
                draft_f32(w)[i] = (float)(kept[i] + (side ? step : -step) * grad[i] / length);
            draft_backend_forget(e->backend, w);
            draft_adamw_zero_grad(e->opt);
            assert_true(draft_plus_step(&dp, batch, &at, &err));
            loss[side] = at.loss;
        }
        memcpy(w->data, kept, (size_t)n * sizeof(float));
        draft_backend_forget(e->backend, w);
        double along = (loss[1] - loss[0]) / (2 * step);
        if (!(fabs(along / length - 1) < 0.03))
            fail_msg("%s: the gradient's length is %g, by differences %g", name[k], length, along);
        free(grad);
        free(kept);
    }
    draft_engine_close(e);
}

/* --- The frozen base ---------------------------------------------------------------------------------------------- */

static void test_full__the_base_stays_what_it_was(void **state)
{
    (void)state;
    struct draft_job_config config = full_job();
    struct draft_engine *fresh = open_demo(&config, NULL), *e = open_demo(&config, NULL);
    struct draft_error err = {0};
    struct draft_report report;
    const struct draft_sample_request tuned = {.prompt = "a cat", .guidance = -1, .lora_scale = 1},
                                      base = {.prompt = "a cat", .guidance = -1},
                                      aig = {.prompt = "a cat", .guidance = -1, .lora_scale = 1, .aig = DRAFT_AIG_BASE};
    assert_true(draft_engine_step(e, &report, &err));
    assert_true(metric(&report, "kl") < 1e-9); /* tuned and base are the same numbers, but for rounding */
    assert_true(draft_engine_step(e, &report, &err));
    assert_true(metric(&report, "kl") > 1e-7);
    assert_true(difference(e, fresh, &tuned, &tuned) > 10 * ROUNDING);
    assert_true(difference(e, fresh, &base, &tuned) < ROUNDING);
    assert_true(difference(e, fresh, &aig, &tuned) < ROUNDING);
    draft_engine_close(e);
    draft_engine_close(fresh);
}

static void test_full__without_a_kl_the_base_is_opened_for_pictures_that_need_it(void **state)
{
    (void)state;
    struct draft_job_config config = full_job();
    config.kl_coeff = 0;
    struct draft_engine *fresh = open_demo(&config, NULL), *e = open_demo(&config, NULL);
    const struct draft_sample_request tuned = {.prompt = "a cat", .guidance = -1, .lora_scale = 1},
                                      base = {.prompt = "a cat", .guidance = -1};
    assert_null(e->pipeline.base);
    train(e, 1);
    assert_true(difference(e, fresh, &base, &tuned) < ROUNDING);
    assert_non_null(e->pipeline.base);
    train(e, 1);
    assert_null(e->pipeline.base);
    draft_engine_close(e);
    draft_engine_close(fresh);
}

static void assert_refused(struct draft_engine *e, const struct draft_sample_request *request, const char *field)
{
    struct draft_error err = {0};
    struct draft_picture picture;
    assert_false(draft_engine_sample(e, request, &picture, &err));
    assert_string_equal(err.field, field);
}

static void test_full__what_only_a_lora_or_an_average_can_do_is_refused(void **state)
{
    (void)state;
    struct draft_job_config config = full_job();
    config.ema_decay = 0;
    config.sample_only = true;
    struct draft_engine *e = open_demo(&config, NULL);
    assert_refused(e, &(struct draft_sample_request){.prompt = "a cat", .lora_scale = 0.5}, "spec.lora_scale");
    assert_refused(e, &(struct draft_sample_request){.prompt = "a cat", .lora_scale = 1, .ema = true}, "spec.ema");
    draft_engine_close(e);
}

/* --- Average and checkpoints -------------------------------------------------------------------------------------- */

static double evaluated(struct draft_engine *e)
{
    struct draft_error err = {0};
    struct draft_report report;
    if (!draft_engine_evaluate(e, &report, &err))
        fail_msg("%s", err.message);
    return metric(&report, "eval/reward");
}

static void averages(struct draft_job_config config)
{
    config.ema_decay = 0.9;
    config.evaluation.seeds = 2;
    struct draft_engine *e = open_demo(&config, NULL);
    struct draft_tensor *w = e->trained.tensor[1]; /* a bias, or an up, zero at first */
    double expected = draft_f32(w)[0];
    for (int step = 0; step < 3; step++) {
        train(e, 1);
        expected = 0.9 * expected + 0.1 * draft_f32(w)[0];
    }
    assert_true(fabs(expected - draft_f32(w)[0]) > 1e-7);
    assert_true(fabs(e->ema->average[1][0] - expected) < 1e-8 + 1e-6 * fabs(expected));

    /* pictures of the average are others, and leave no trace */
    const struct draft_sample_request last = {.prompt = "a cat", .guidance = -1, .lora_scale = 1},
                                      average = {.prompt = "a cat", .guidance = -1, .lora_scale = 1, .ema = true};
    const char *before = save(e, "before");
    assert_true(difference(e, e, &last, &average) > 0);
    assert_same_files(before, save(e, "after"));

    /* so do evaluations, which are the average's */
    double reward = evaluated(e);
    assert_same_files(before, save(e, "after"));
    struct draft_ema *ema = e->ema;
    e->ema = NULL;
    double of_the_last = evaluated(e);
    assert_true(draft_ema_swap(ema, e->backend, NULL));
    double of_the_average = evaluated(e);
    assert_true(draft_ema_swap(ema, e->backend, NULL));
    e->ema = ema;
    assert_true(reward == of_the_average && reward != of_the_last);

    /* the same from the checkpoint alone */
    config.sample_only = true;
    struct draft_error err = {0};
    struct draft_engine *pictures = open_demo(&config, NULL);
    if (!draft_engine_restore(pictures, before, &err))
        fail_msg("%s", err.message);
    assert_null(pictures->opt);
    assert_true(difference(e, pictures, &last, &last) < ROUNDING);
    assert_true(difference(e, pictures, &average, &average) < ROUNDING);
    draft_engine_close(pictures);
    draft_engine_close(e);
}

static void test_full__the_average_follows_its_formula_and_pictures_of_it_leave_no_trace(void **state)
{
    (void)state;
    averages(full_job());
}

static void test_full__a_lora_has_an_average_too(void **state)
{
    (void)state;
    averages(demo_job());
}

static void test_full__a_resumed_job_goes_on_bit_for_bit(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config config = full_job();
    struct draft_engine *whole = open_demo(&config, NULL);
    train(whole, 2);
    const char *half = save(whole, "half");
    train(whole, 2);
    struct draft_engine *second = open_demo(&config, NULL);
    if (!draft_engine_restore(second, half, &err))
        fail_msg("%s", err.message);
    train(second, 2);
    assert_same_files(save(whole, "whole"), save(second, "resumed"));
    draft_engine_close(whole);

    /* a checkpoint of another way to train is none of this job's */
    struct draft_job_config lora = demo_job();
    struct draft_engine *other = open_demo(&lora, NULL);
    assert_false(draft_engine_restore(other, half, &err));
    assert_int_equal(err.code, DRAFT_FAILED_PRECONDITION);
    draft_engine_close(other);
    draft_engine_close(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full__gradients_of_every_kind_of_weight_are_the_differences),
        cmocka_unit_test(test_full__the_base_stays_what_it_was),
        cmocka_unit_test(test_full__without_a_kl_the_base_is_opened_for_pictures_that_need_it),
        cmocka_unit_test(test_full__what_only_a_lora_or_an_average_can_do_is_refused),
        cmocka_unit_test(test_full__the_average_follows_its_formula_and_pictures_of_it_leave_no_trace),
        cmocka_unit_test(test_full__a_lora_has_an_average_too),
        cmocka_unit_test(test_full__a_resumed_job_goes_on_bit_for_bit),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
