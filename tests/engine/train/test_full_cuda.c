/* Every weight trained on the CUDA backend, over fakes, with the average beside it: as on the CPU, and back from disk.
 * The fake device's memory is the host's, so that the test may read it. */
#include "demo_job.h"

#include <math.h>

#include "state.h"

static struct draft_job_config small_job(const char *device)
{
    struct draft_job_config config = demo_job();
    config.train = DRAFT_TRAIN_FULL;
    config.lora_rank = 0;
    config.learning_rate = 2e-5;
    config.ema_decay = 0.5;
    config.sampling_steps = config.truncation_steps = 1;
    config.guidance = 1;
    config.height = config.width = 32;
    config.micro_batch = config.global_batch = 1;
    config.device = device;
    config.threads = 2;
    config.evaluation.lpips = DEMO "/emoji-lpips";
    config.evaluation.prompts = demo_prompts;
    config.evaluation.prompt_count = 1;
    config.evaluation.seeds = 2;
    return config;
}

static struct draft_engine *opened(const char *device, enum draft_precision precision)
{
    struct draft_job_config config = small_job(device);
    config.precision = precision;
    return open_demo(&config, NULL);
}

static void restore(struct draft_engine *e, const char *path)
{
    struct draft_error err = {0};
    if (!draft_engine_restore(e, path, &err))
        fail_msg("%s", err.message);
}

static double step(struct draft_engine *e, const char *name)
{
    struct draft_error err = {0};
    struct draft_report report;
    if (!draft_engine_step(e, &report, &err))
        fail_msg("%s", err.message);
    return metric(&report, name);
}

/* |a - b| / |b| */
static double distance(const float *a, const float *b, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(difference / size);
}

static void evaluates_alike(struct draft_engine *a, struct draft_engine *b)
{
    static const char *const name[] = {"eval/reward", "eval/kl", "eval/lpips"};
    struct draft_error err = {0};
    struct draft_report of_a, of_b;
    if (!draft_engine_evaluate(a, &of_a, &err) || !draft_engine_evaluate(b, &of_b, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < 3; i++) {
        double x = metric(&of_a, name[i]), y = metric(&of_b, name[i]);
        assert_true(fabs(x - y) <= 1e-6 + 1e-3 * fabs(y));
    }
}

static void test_full_cuda__gradients_averages_evaluation_and_checkpoint_are_the_cpu_s(void **state)
{
    (void)state;
    struct draft_engine *cpu = opened("cpu", DRAFT_PRECISION_FP32), *gpu = opened("cuda:0", DRAFT_PRECISION_FP32);
    assert_true(fabs(step(gpu, "grad_norm") / step(cpu, "grad_norm") - 1) < 1e-4);
    double square = 0, difference = 0;
    for (int i = 0; i < cpu->trained.count; i++) {
        const struct draft_tensor *a = gpu->trained.tensor[i], *b = cpu->trained.tensor[i];
        int64_t n = draft_tensor_count(b);
        const float *of_a = a->grad, *of_b = b->grad;
        for (int64_t k = 0; k < n; k++) {
            difference += pow((double)of_a[k] - of_b[k], 2);
            square += pow((double)of_b[k], 2);
        }
        /* a step of Adam is of one size whatever the gradient's: a gradient of nothing may go either way */
        assert_true(distance(draft_f32(a), draft_f32(b), n) < 1e-4);
        assert_true(distance(gpu->ema->average[i], cpu->ema->average[i], n) < 1e-4);
    }
    assert_true(square > 0 && sqrt(difference / square) < 1e-4);
    assert_true(fabs(step(gpu, "reward") - step(cpu, "reward")) < 1e-4);
    evaluates_alike(gpu, cpu);
    const char *of_gpu = save(gpu, "gpu"); /* whatever is exported comes from such a file */
    restore(cpu, of_gpu);
    assert_same_files(of_gpu, save(cpu, "gpu's through the cpu"));
    draft_engine_close(cpu);
    draft_engine_close(gpu);
}

static void test_full_cuda__a_checkpoint_goes_on_to_the_bit(void **state)
{
    (void)state;
    const struct draft_sample_request average = {.prompt = "a cat", .guidance = 1, .lora_scale = 1, .ema = true};
    struct draft_error err = {0};
    struct draft_picture picture;
    /* products read BF16 copies of the weights, which follow every change of them */
    struct draft_engine *gpu = opened("cuda:0", DRAFT_PRECISION_BF16);
    train(gpu, 1);
    const char *half = save(gpu, "half");
    train(gpu, 1);
    const char *whole = save(gpu, "whole");
    if (!draft_engine_sample(gpu, &average, &picture, &err))
        fail_msg("%s", err.message);
    free(picture.rgb);
    assert_same_files(whole, save(gpu, "after a picture of the average"));
    draft_engine_close(gpu);
    gpu = opened("cuda:0", DRAFT_PRECISION_BF16);
    restore(gpu, half);
    train(gpu, 1);
    assert_same_files(whole, save(gpu, "resumed"));
    draft_engine_close(gpu);
}

int main(void)
{
    if (getenv("DRAFT_CUDA_PLUGIN") == NULL) {
        puts("skipped: no CUDA toolkit");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_cuda__gradients_averages_evaluation_and_checkpoint_are_the_cpu_s),
        cmocka_unit_test(test_full_cuda__a_checkpoint_goes_on_to_the_bit),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
