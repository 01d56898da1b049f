/* JobSpec -> config, and the small parsers beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "worker/previews.h"
#include "worker/spec.h"

static char *prompts[] = {"a lion", "a cat"};

struct spec {
    Draftd__V1__JobSpec job;
    Draftd__V1__Reward reward, *rewards[1];
    Draftd__V1__Sampling sampling;
    Draftd__V1__Optimizer optimizer;
    Draftd__V1__Length length;
    Draftd__V1__Evaluation evaluation;
};

static void make(struct spec *s)
{
    draftd__v1__job_spec__init(&s->job);
    draftd__v1__reward__init(&s->reward);
    draftd__v1__sampling__init(&s->sampling);
    draftd__v1__optimizer__init(&s->optimizer);
    draftd__v1__length__init(&s->length);
    draftd__v1__evaluation__init(&s->evaluation);
    s->job.model = "/model";
    s->reward.kind = "clip";
    s->reward.path = "/models/emoji-clip";
    s->rewards[0] = &s->reward;
    s->job.n_rewards = 1;
    s->job.rewards = s->rewards;
    s->length.steps = 5;
    s->job.length = &s->length;
}

static void test_worker_spec__absent_fields_take_the_defaults(void **state)
{
    (void)state;
    struct spec s;
    struct draft_error err = {0};
    struct draft_job_config c;
    make(&s);
    assert_true(draftd_spec_to_config(&s.job, prompts, 2, &c, &err));
    assert_true(draft_job_config_resolve(&c, &err));
    assert_true(c.kl_coeff == 1 && c.guidance == 7.5 && c.warmup_steps == 10 && c.reward[0].weight == 1);
    assert_int_equal(c.seed, 0);
    assert_true(c.train == DRAFT_TRAIN_LORA && c.precision == DRAFT_PRECISION_AUTO && c.ema_decay == 0);
    assert_int_equal(draftd_spec_checkpoint_every(&s.job), 50);
}

static void test_worker_spec__a_zero_that_was_set_is_kept(void **state)
{
    (void)state;
    struct spec s;
    struct draft_error err = {0};
    struct draft_job_config c;
    make(&s);
    s.job.kl_coeff_opt_case = DRAFTD__V1__JOB_SPEC__KL_COEFF_OPT_KL_COEFF;
    s.job.kl_coeff = 0;
    s.job.sampling = &s.sampling;
    s.sampling.guidance_opt_case = DRAFTD__V1__SAMPLING__GUIDANCE_OPT_GUIDANCE;
    s.sampling.guidance = 0;
    s.job.optimizer = &s.optimizer;
    s.optimizer.warmup_steps_opt_case = DRAFTD__V1__OPTIMIZER__WARMUP_STEPS_OPT_WARMUP_STEPS;
    s.optimizer.warmup_steps = 0;
    assert_true(draftd_spec_to_config(&s.job, prompts, 2, &c, &err));
    assert_true(draft_job_config_resolve(&c, &err));
    assert_true(c.kl_coeff == 0 && c.guidance == 0);
    assert_int_equal(c.warmup_steps, 0);
}

static void test_worker_spec__weights_average_and_precision_arrive(void **state)
{
    (void)state;
    struct spec s;
    struct draft_error err = {0};
    struct draft_job_config c;
    make(&s);
    s.job.train = "full";
    s.job.precision = "bf16";
    s.job.ema_decay = 0.999;
    s.job.memory = "low";
    assert_true(draftd_spec_to_config(&s.job, prompts, 2, &c, &err));
    assert_true(draft_job_config_resolve(&c, &err));
    assert_true(c.train == DRAFT_TRAIN_FULL && c.precision == DRAFT_PRECISION_BF16 && c.ema_decay == 0.999);
    assert_true(c.memory == DRAFT_MEMORY_LOW && c.recompute);
}

static void assert_refused(struct spec *s, const char *field)
{
    struct draft_error err = {0};
    struct draft_job_config c;
    assert_false(draftd_spec_to_config(&s->job, prompts, 2, &c, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_string_equal(err.field, field);
}

static void test_worker_spec__refuses_by_field(void **state)
{
    (void)state;
    struct spec s;
    static char longer[600];
    memset(longer, 'x', sizeof longer - 1);
    longer[0] = '/';
    make(&s), s.reward.path = longer, assert_refused(&s, "spec.rewards[0].path");
    make(&s), s.reward.path = "relative", assert_refused(&s, "spec.rewards[0].path");
    make(&s), s.reward.kind = longer, assert_refused(&s, "spec.rewards[0].kind");
    make(&s), s.reward.kind = "", assert_refused(&s, "spec.rewards[0].kind");
    make(&s), s.reward.options = longer, assert_refused(&s, "spec.rewards[0].options");
    make(&s), s.job.n_rewards = 100, assert_refused(&s, "spec.rewards");
    make(&s), s.job.model = "relative", assert_refused(&s, "spec.model");
    make(&s), s.job.train = "unet", assert_refused(&s, "spec.train");
    make(&s), s.job.memory = "little", assert_refused(&s, "spec.memory");
    make(&s), s.job.precision = "fp16", assert_refused(&s, "spec.precision");
    make(&s), s.job.checkpoint_every = -1, assert_refused(&s, "spec.checkpoint_every");
    make(&s), s.job.sampling = &s.sampling;
    s.sampling.negative_prompt = "\xff", assert_refused(&s, "spec.sampling.negative_prompt");
    make(&s), s.job.sampling = &s.sampling;
    s.sampling.guidance_opt_case = DRAFTD__V1__SAMPLING__GUIDANCE_OPT_GUIDANCE;
    s.sampling.guidance = -3, assert_refused(&s, "spec.sampling.guidance");
    make(&s), s.job.evaluation = &s.evaluation;
    s.evaluation.lpips = "relative", assert_refused(&s, "spec.evaluation.lpips");
}

static void test_worker_spec__names_lora_files(void **state)
{
    (void)state;
    struct spec s;
    struct draft_error err = {0};
    struct draft_job_config c;
    Draftd__V1__LoraFile file[9], *files[9];
    Draftd__V1__Lora lora = DRAFTD__V1__LORA__INIT;
    for (int i = 0; i < 9; i++) {
        draftd__v1__lora_file__init(&file[i]);
        file[i].path = "/style.safetensors";
        files[i] = &file[i];
    }
    make(&s);
    s.job.base_loras = files;
    s.job.n_base_loras = 2;
    s.job.lora = &lora;
    lora.continue_from = "/last.safetensors";
    file[0].weight_opt_case = DRAFTD__V1__LORA_FILE__WEIGHT_OPT_WEIGHT;
    file[0].weight = 0;
    assert_true(draftd_spec_to_config(&s.job, prompts, 2, &c, &err));
    assert_int_equal(c.base_lora_count, 2);
    assert_true(c.base_lora[0].weight == 0 && c.base_lora[1].weight == 1);
    assert_string_equal(c.base_lora[1].path, "/style.safetensors");
    assert_string_equal(c.continue_from, "/last.safetensors");
    lora.continue_from = "last.safetensors", assert_refused(&s, "spec.lora.continue_from");
    lora.continue_from = "";
    file[1].path = "style.safetensors", assert_refused(&s, "spec.base_loras");
    s.job.n_base_loras = 9, assert_refused(&s, "spec.base_loras");
}

static void test_worker_spec__reads_guidance_annealing(void **state)
{
    (void)state;
    enum draft_aig aig;
    double power;
    assert_true(draftd_aig_parse("", &aig, &power) && aig == DRAFT_AIG_DRAFT);
    assert_true(draftd_aig_parse("base", &aig, &power) && aig == DRAFT_AIG_BASE);
    assert_true(draftd_aig_parse("linear", &aig, &power) && aig == DRAFT_AIG_LINEAR);
    assert_true(draftd_aig_parse("power_2", &aig, &power) && aig == DRAFT_AIG_POWER && power == 2);
    assert_true(draftd_aig_parse("step_0.6", &aig, &power) && aig == DRAFT_AIG_STEP && power == 0.6);
    static const char *const wrong[] = {"Base",     "power",     "power_",   "power_x",
                                        "power_-1", "step_0.6x", "linear_2", "power_nan"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(draftd_aig_parse(wrong[i], &aig, &power));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_spec__absent_fields_take_the_defaults),
        cmocka_unit_test(test_worker_spec__a_zero_that_was_set_is_kept),
        cmocka_unit_test(test_worker_spec__weights_average_and_precision_arrive),
        cmocka_unit_test(test_worker_spec__refuses_by_field),
        cmocka_unit_test(test_worker_spec__names_lora_files),
        cmocka_unit_test(test_worker_spec__reads_guidance_annealing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
