#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "sampler/sampler.h"

static struct draft_scheduler parse(const char *json)
{
    struct draft_scheduler scheduler;
    struct draft_error err = {0};
    if (!draft_scheduler_parse(&scheduler, json, &err))
        fail_msg("%s", err.message);
    return scheduler;
}

/* DDIM's plan. */
static bool plan(const struct draft_scheduler *scheduler, int count, struct draft_sampler_plan *out,
                 struct draft_error *err)
{
    return draft_sampler_plan_make(out, &draft_sampler_ddim, scheduler, count, err);
}

/* runwayml/stable-diffusion-v1-5's file as it is. */
static const char sd15[] =
    "{\"_class_name\": \"PNDMScheduler\", \"_diffusers_version\": \"0.6.0\", \"beta_end\": 0.012, "
    "\"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085, \"num_train_timesteps\": 1000, "
    "\"set_alpha_to_one\": false, \"skip_prk_steps\": true, \"steps_offset\": 1, "
    "\"trained_betas\": null, \"clip_sample\": false}";

static void test_scheduler__reads_sd15s_own_file_as_ddim(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_sampler_plan ddim;
    struct draft_scheduler scheduler = parse(sd15);
    assert_false(scheduler.clip_sample);
    assert_int_equal(scheduler.prediction, DRAFT_PREDICT_EPSILON);
    assert_true(plan(&scheduler, 50, &ddim, &err));
    const struct draft_sampler_step *steps = ddim.step;
    assert_true(steps[0].timestep == 981); /* the timesteps of NVIDIA's reference: 981, 961 ... 21, 1 */
    assert_true(steps[1].timestep == 961);
    assert_true(steps[48].timestep == 21);
    assert_true(steps[49].timestep == 1);
    assert_true(steps[49].to_x0 == sqrt(scheduler.alphas_cumprod[0]));
    draft_sampler_plan_free(&ddim);
    /* diffusers: DDIMScheduler.from_config(...).alphas_cumprod[[0, 500, 999]] */
    assert_true(fabs(scheduler.alphas_cumprod[0] - 0.9991499781608582) < 1e-9);
    assert_true(fabs(scheduler.alphas_cumprod[500] - 0.27633246779441833) < 1e-9);
    assert_true(fabs(scheduler.alphas_cumprod[999] - 0.00466009508818388) < 1e-10);
    draft_scheduler_close(&scheduler);
}

static void test_scheduler__absent_keys_take_ddims_defaults_not_the_files_classs(void **state)
{
    (void)state;
    struct draft_scheduler scheduler =
        parse("{\"_class_name\": \"EulerDiscreteScheduler\", \"use_karras_sigmas\": true}");
    assert_int_equal(scheduler.train_timesteps, 1000);
    assert_int_equal(scheduler.spacing, DRAFT_SPACING_LEADING); /* Euler's own default is linspace */
    assert_int_equal(scheduler.steps_offset, 0);
    assert_true(scheduler.clip_sample && scheduler.clip_sample_range == 1);
    assert_true(scheduler.final_alpha_cumprod == 1);
    assert_true(fabs(scheduler.alphas_cumprod[0] - 0.9999) < 1e-7);
    assert_true(fabs(scheduler.alphas_cumprod[999] - 4.035830352222547e-05) < 1e-10);
    draft_scheduler_close(&scheduler);
}

/* DPMSolverMultistepScheduler of diffusers 0.42, as save_pretrained writes it: -Infinity is bare, which no JSON has. */
static const char dpm[] =
    "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"_diffusers_version\": \"0.42.1\", \"algorithm_type\": "
    "\"dpmsolver++\", \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085, "
    "\"dynamic_thresholding_ratio\": 0.995, \"euler_at_final\": false, \"final_sigmas_type\": \"zero\", "
    "\"flow_shift\": 1.0, "
    "\"lambda_min_clipped\": %s, \"lower_order_final\": true, \"num_train_timesteps\": 1000, \"prediction_type\": "
    "\"epsilon\", \"rescale_betas_zero_snr\": false, \"sample_max_value\": 1.0, \"solver_order\": 2, \"solver_type\": "
    "\"midpoint\", \"steps_offset\": 1, \"thresholding\": false, \"time_shift_type\": \"exponential\", "
    "\"timestep_spacing\": \"linspace\", \"trained_betas\": null, \"use_beta_sigmas\": false, "
    "\"use_dynamic_shifting\": "
    "false, \"use_exponential_sigmas\": false, \"use_flow_sigmas\": false, \"use_karras_sigmas\": false, "
    "\"use_lu_lambdas\": false, \"variance_type\": null}";

static void test_scheduler__reads_what_python_writes_for_no_limit(void **state)
{
    (void)state;
    char json[2048];
    struct draft_sampler_plan out;
    struct draft_error err = {0};
    snprintf(json, sizeof json, dpm, "-Infinity");
    struct draft_scheduler scheduler = parse(json);
    assert_int_equal(scheduler.spacing, DRAFT_SPACING_LINSPACE);
    assert_true(draft_sampler_plan_make(&out, &draft_sampler_dpmpp_2m, &scheduler, 20, &err));
    draft_sampler_plan_free(&out);
    draft_scheduler_close(&scheduler);

    snprintf(json, sizeof json, dpm, "-5.1"); /* a limit changes the sigmas */
    scheduler = parse(json);
    assert_false(draft_sampler_plan_make(&out, &draft_sampler_dpmpp_2m, &scheduler, 20, &err));
    assert_non_null(strstr(err.message, "\"lambda_min_clipped\" is -5.1, not null"));
    draft_scheduler_close(&scheduler);

    err = (struct draft_error){0};
    snprintf(json, sizeof json, dpm, "NaN");
    assert_false(draft_scheduler_parse(&scheduler, json, &err));
    assert_non_null(strstr(err.message, "\"lambda_min_clipped\" is \"NaN\", expected a number"));
}

static void test_scheduler__takes_trained_betas(void **state)
{
    (void)state;
    struct draft_scheduler scheduler =
        parse("{\"num_train_timesteps\": 3, \"trained_betas\": [0.1, 0.2, 0.5], \"beta_schedule\": \"linear\"}");
    assert_true(fabs(scheduler.alphas_cumprod[2] - 0.36) < 1e-7);
    draft_scheduler_close(&scheduler);
}

static void test_scheduler__knows_the_three_predictions(void **state)
{
    (void)state;
    static const char *const names[] = {"epsilon", "v_prediction", "sample"};
    const double x0 = 0.7, eps = -1.3;
    for (int i = 0; i < 3; i++) {
        char json[80];
        struct draft_sampler_plan ddim;
        snprintf(json, sizeof json, "{\"prediction_type\": \"%s\"}", names[i]);
        struct draft_scheduler scheduler = parse(json);
        assert_true(plan(&scheduler, 20, &ddim, NULL));
        const struct draft_sampler_step *step = &ddim.step[7];
        double a = step->signal, s = step->noise, x = a * x0 + s * eps;
        double m = i == 0 ? eps : i == 1 ? a * eps - s * x0 : x0; /* what a perfect network says */
        assert_true(fabs(a * a + s * s - 1) < 1e-12);
        assert_true(fabs(step->x0_x * x + step->x0_m * m - x0) < 1e-12);
        assert_true(fabs(step->eps_x * x + step->eps_m * m - eps) < 1e-12);
        draft_sampler_plan_free(&ddim);
        draft_scheduler_close(&scheduler);
    }
}

static void test_scheduler__refuses_steps_that_cannot_be(void **state)
{
    (void)state;
    struct draft_sampler_plan ddim;
    struct draft_error err = {0};
    struct draft_scheduler scheduler = parse(sd15);
    assert_false(plan(&scheduler, 0, &ddim, &err));
    err = (struct draft_error){0};
    assert_false(plan(&scheduler, 1001, &ddim, &err));
    assert_non_null(strstr(err.message, "trained on 1000 timesteps"));
    err = (struct draft_error){0};
    assert_false(plan(&scheduler, 1000, &ddim, &err)); /* 999 + 1 */
    assert_non_null(strstr(err.message, "steps_offset 1 lead to timestep 1000 of 1000"));
    draft_scheduler_close(&scheduler);

    err = (struct draft_error){0};
    scheduler = parse("{\"rescale_betas_zero_snr\": true, \"timestep_spacing\": \"trailing\"}");
    assert_false(plan(&scheduler, 10, &ddim, &err));
    assert_non_null(strstr(err.message, "timestep 999 has a signal of 0"));
    draft_scheduler_close(&scheduler);
}

static void test_scheduler__every_count_gives_falling_timesteps_in_range(void **state)
{
    (void)state;
    static const char *const configs[] = {"{}", "{\"timestep_spacing\": \"trailing\"}",
                                          "{\"timestep_spacing\": \"linspace\"}",
                                          "{\"num_train_timesteps\": 777, \"timestep_spacing\": \"trailing\"}"};
    struct draft_sampler_plan ddim;
    for (size_t i = 0; i < 4; i++) {
        struct draft_scheduler scheduler = parse(configs[i]);
        for (int count = 1; count <= scheduler.train_timesteps; count++) {
            assert_true(plan(&scheduler, count, &ddim, NULL));
            const struct draft_sampler_step *steps = ddim.step;
            for (int k = 1; k < count; k++)
                assert_true(steps[k].timestep < steps[k - 1].timestep);
            assert_true(steps[0].timestep < scheduler.train_timesteps && steps[count - 1].timestep >= 0);
            draft_sampler_plan_free(&ddim);
        }
        draft_scheduler_close(&scheduler);
    }
}

static void test_scheduler__refuses_what_it_does_not_implement_or_understand(void **state)
{
    (void)state;
    static const struct {
        const char *json, *words;
    } rows[] = {
        {"{\"thresholding\": true}", "\"thresholding\" is true, this engine implements only false"},
        {"{\"beta_schedule\": \"sigmoid\"}", "\"beta_schedule\" is \"sigmoid\", expected linear"},
        {"{\"prediction_type\": \"flow_prediction\"}", "expected epsilon, v_prediction or sample"},
        {"{\"timestep_spacing\": \"karras\"}", "expected leading, trailing or linspace"},
        {"{\"use_flow_sigmas\": true}", "\"use_flow_sigmas\" is true"},
        {"{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"shift\": 3.0}",
         "the key \"shift\" (3.0) is not understood"},
        {"{\"num_train_timesteps\": 0}", "expected an integer from 1 to 1000000"},
        {"{\"num_train_timesteps\": 1e9}", "expected an integer from 1 to 1000000"},
        {"{\"num_train_timesteps\": 999999999999}", "expected an integer from 1 to 1000000"},
        {"{\"steps_offset\": -1}", "expected an integer from 0 to 1000"},
        {"{\"beta_start\": 0}", "beta_start and beta_end are 0 and 0.02"},
        {"{\"beta_end\": 1.5}", "expected numbers between 0 and 1"},
        {"{\"beta_end\": \"0.02\"}", "expected a number"},
        {"{\"beta_end\": NaN}", "\"beta_end\" is \"NaN\", expected a number"},
        {"{\"clip_sample_range\": -1}", "\"clip_sample_range\" is -1"},
        {"{\"trained_betas\": [0.1, 0.2]}", "\"trained_betas\" holds 2 numbers, expected num_train_timesteps (1000)"},
        {"{\"num_train_timesteps\": 2, \"trained_betas\": [0.1, 1.0]}", "\"trained_betas\" holds 1"},
        {"{\"num_train_timesteps\": 1, \"trained_betas\": [0.1, 0.2]}", "an array of at most 1 numbers"},
        {"{\"trained_betas\": \"none\"}", "\"trained_betas\" is \"none\""},
        {"[]", "does not hold a JSON object"},
        {"{", "is not JSON"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_scheduler scheduler;
        struct draft_error err = {0};
        assert_false(draft_scheduler_parse(&scheduler, rows[i].json, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        if (strstr(err.message, rows[i].words) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.message, rows[i].words);
        assert_true(draft_utf8_valid(err.message, strlen(err.message), NULL));
    }
}

static void test_scheduler__names_the_file(void **state)
{
    (void)state;
    struct draft_scheduler scheduler;
    struct draft_error err = {0};
    assert_false(draft_scheduler_open(&scheduler, DEMO "/emoji-sd/unet/config.json", &err));
    assert_non_null(strstr(err.message, "emoji-sd/unet/config.json"));
    err = (struct draft_error){0};
    assert_true(draft_scheduler_open(&scheduler, DEMO "/emoji-sd/scheduler/scheduler_config.json", &err));
    assert_int_equal(scheduler.steps_offset, 1);
    draft_scheduler_close(&scheduler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scheduler__reads_sd15s_own_file_as_ddim),
        cmocka_unit_test(test_scheduler__absent_keys_take_ddims_defaults_not_the_files_classs),
        cmocka_unit_test(test_scheduler__reads_what_python_writes_for_no_limit),
        cmocka_unit_test(test_scheduler__takes_trained_betas),
        cmocka_unit_test(test_scheduler__knows_the_three_predictions),
        cmocka_unit_test(test_scheduler__refuses_steps_that_cannot_be),
        cmocka_unit_test(test_scheduler__every_count_gives_falling_timesteps_in_range),
        cmocka_unit_test(test_scheduler__refuses_what_it_does_not_implement_or_understand),
        cmocka_unit_test(test_scheduler__names_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
