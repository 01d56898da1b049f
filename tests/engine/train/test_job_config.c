#include "demo_job.h"

#include <math.h>

static void assert_refused(struct draft_job_config config, const char *field)
{
    struct draft_error err = {0};
    assert_false(draft_job_config_resolve(&config, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_string_equal(err.field, field);
    assert_true(strlen(err.message) > 10);
}

static void test_job_config__fills_the_reference_defaults(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config c = {
        .model = "/m", .prompts = demo_prompts, .prompt_count = 5, .steps = 7, .reward_count = 1};
    c.reward[0].weight = 1;
    c.kl_coeff = 1;
    c.guidance = -1;
    c.warmup_steps = -1;
    assert_true(draft_job_config_resolve(&c, &err));
    assert_int_equal(c.sampling_steps, 50);
    assert_int_equal(c.truncation_steps, 1);
    assert_true(c.guidance == 7.5);
    assert_string_equal(c.negative_prompt, "");
    assert_int_equal(c.lora_rank, 32);
    assert_true(c.lora_alpha == 32);
    assert_true(c.learning_rate == 1e-4);
    assert_true(c.beta1 == 0.9 && c.beta2 == 0.999 && c.epsilon == 1e-8 && c.weight_decay == 0);
    assert_int_equal(c.warmup_steps, 10);
    assert_true(c.max_grad_norm == 10);
    assert_int_equal(c.micro_batch, 1);
    assert_int_equal(c.global_batch, 4);
    assert_int_equal(c.max_bad_steps, 3);
    assert_int_equal(c.evaluation.seeds, 8);
    assert_int_equal(c.evaluation.sampling_steps, 50);
    assert_int_equal(draft_job_config_total_steps(&c), 7);
}

static void test_job_config__every_weight_learns_slower_and_has_no_rank(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config c = demo_job();
    c.train = DRAFT_TRAIN_FULL;
    c.lora_rank = 0;
    c.learning_rate = 0;
    for (int i = 0; i < 2; i++) /* a resolved one may be resolved again */
        assert_true(draft_job_config_resolve(&c, &err));
    assert_true(c.learning_rate == 1e-5 && c.lora_rank == 0 && c.lora_alpha == 0);
}

static void test_job_config__keeps_what_was_given(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config c = demo_job();
    c.guidance = 0;
    c.kl_coeff = 0;
    assert_true(draft_job_config_resolve(&c, &err));
    assert_true(c.guidance == 0 && c.kl_coeff == 0);
    assert_int_equal(c.warmup_steps, 0);
    assert_int_equal(c.sampling_steps, 4);
}

static void test_job_config__counts_epochs_in_whole_updates(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config c = demo_job();
    c.steps = 0;
    c.epochs = 3; /* 15 samples in batches of 2 */
    assert_true(draft_job_config_resolve(&c, &err));
    assert_int_equal(draft_job_config_total_steps(&c), 8);
}

static void test_job_config__refuses_absurd_numbers_by_field(void **state)
{
    (void)state;
#define REFUSED(field_name, ...)                                                                                       \
    do {                                                                                                               \
        struct draft_job_config c = demo_job();                                                                        \
        __VA_ARGS__;                                                                                                   \
        assert_refused(c, field_name);                                                                                 \
    } while (0)
    REFUSED("spec.model", c.model = "");
    REFUSED("spec.ema_decay", c.ema_decay = 1);
    REFUSED("spec.ema_decay", c.ema_decay = -0.1);
    REFUSED("spec.ema_decay", c.ema_decay = NAN);
    REFUSED("spec.lora", c.train = DRAFT_TRAIN_FULL, c.lora_rank = 4);
    REFUSED("spec.lora", c.train = DRAFT_TRAIN_FULL, c.lora_rank = 0, c.lora_alpha = 4);
    REFUSED("spec.lora.continue_from", c.train = DRAFT_TRAIN_FULL, c.lora_rank = 0, c.lora_alpha = 0,
            c.continue_from = "/a/lora.safetensors");
    REFUSED("spec.dataset", c.prompt_count = 0);
    REFUSED("spec.rewards", c.reward_count = 0);
    REFUSED("spec.rewards", c.reward[0].weight = NAN);
    REFUSED("spec.rewards", c.reward[0].weight = 0);
    REFUSED("spec.kl_coeff", c.kl_coeff = NAN);
    REFUSED("spec.kl_coeff", c.kl_coeff = -1);
    REFUSED("spec.sampling.steps", c.sampling_steps = 1001);
    REFUSED("spec.sampling.steps", c.sampling_steps = -1);
    REFUSED("spec.sampling.truncation_steps", c.truncation_steps = 5);
    REFUSED("spec.sampling.truncation_steps", c.truncation_steps = -2);
    REFUSED("spec.sampling.lv_copies", c.lv_copies = -1);
    REFUSED("spec.sampling.lv_copies", c.lv_copies = 2, c.truncation_steps = 2);
    REFUSED("spec.sampling.guidance", c.guidance = INFINITY);
    REFUSED("spec.sampling.height", c.height = 100000);
    REFUSED("spec.sampling.width", c.width = -64);
    REFUSED("spec.lora.rank", c.lora_rank = 1 << 20);
    REFUSED("spec.lora.alpha", c.lora_alpha = -1);
    REFUSED("spec.optimizer.learning_rate", c.learning_rate = NAN);
    REFUSED("spec.optimizer.learning_rate", c.learning_rate = 2);
    REFUSED("spec.optimizer.beta1", c.beta1 = 1);
    REFUSED("spec.optimizer.beta2", c.beta2 = NAN);
    REFUSED("spec.optimizer.epsilon", c.epsilon = -1);
    REFUSED("spec.optimizer.weight_decay", c.weight_decay = -1);
    REFUSED("spec.optimizer.max_grad_norm", c.max_grad_norm = -1);
    REFUSED("spec.length.micro_batch", c.micro_batch = -1);
    REFUSED("spec.length.micro_batch", c.micro_batch = 1000);
    REFUSED("spec.length.global_batch", c.global_batch = 1 << 20);
    REFUSED("spec.length.global_batch", c.global_batch = 3);
    REFUSED("spec.length.steps", c.steps = 0);
    REFUSED("spec.length.steps", c.steps = -5);
    REFUSED("spec.length.epochs", c.epochs = 1);
    REFUSED("spec.length.epochs", c.steps = 0, c.epochs = NAN);
    REFUSED("spec.length.epochs", c.steps = 0, c.epochs = INFINITY);
    REFUSED("spec.evaluation.seeds", c.evaluation.seeds = 100000);
    REFUSED("spec.evaluation.seeds", c.evaluation.seeds = 1, c.evaluation.lpips = "/l");
    REFUSED("spec.evaluation.sampling_steps", c.evaluation.sampling_steps = -3);
    REFUSED("spec.evaluation.prompts", c.evaluation.prompts = demo_prompts, c.evaluation.prompt_count = 100000);
    REFUSED("spec.threads", c.threads = -1);
#undef REFUSED
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_job_config__fills_the_reference_defaults),
        cmocka_unit_test(test_job_config__every_weight_learns_slower_and_has_no_rank),
        cmocka_unit_test(test_job_config__keeps_what_was_given),
        cmocka_unit_test(test_job_config__counts_epochs_in_whole_updates),
        cmocka_unit_test(test_job_config__refuses_absurd_numbers_by_field),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
