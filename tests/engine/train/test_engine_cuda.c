/* A job on the CUDA backend, over fakes, beside the same job on the CPU: steps, checkpoint, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state.h"
#include "train/job_config.h"

static const char *const PROMPTS[] = {"an animal"};

static struct draft_job_config small_job(const char *device, enum draft_precision precision)
{
    struct draft_job_config c = {.model = DEMO "/emoji-sd",
                                 .prompts = PROMPTS,
                                 .prompt_count = 1,
                                 .reward_count = 1,
                                 .kl_coeff = 0.1,
                                 .sampling_steps = 2,
                                 .guidance = 4,
                                 .height = 64,
                                 .width = 64,
                                 .lora_rank = 8, /* which goes along in the weights' products (draft_new_rows) */
                                 .global_batch = 1,
                                 .steps = 4,
                                 .seed = 3,
                                 .device = device,
                                 .precision = precision,
                                 .threads = 2};
    c.evaluation.every = -1;
    c.reward[0] = (struct draft_reward_spec){.kind = "clip", .weight = 1};
    snprintf(c.reward[0].path, sizeof c.reward[0].path, "%s", DEMO "/emoji-clip");
    return c;
}

static struct draft_engine *opened(const char *device, enum draft_precision precision)
{
    struct draft_job_config c = small_job(device, precision);
    struct draft_error err = {0};
    struct draft_engine *e = draft_engine_open(&c, NULL, &err);
    if (!e)
        fail_msg("%s", err.message);
    return e;
}

static double step(struct draft_engine *e, const char *metric)
{
    struct draft_error err = {0};
    struct draft_report report;
    if (!draft_engine_step(e, &report, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < report.count; i++)
        if (strcmp(report.metric[i].name, metric) == 0)
            return report.metric[i].value;
    fail_msg("no metric %s", metric);
    return NAN;
}

/* A step beside the CPU's in fp32, a second one after it, and that one again from a checkpoint between them. */
static void trains(enum draft_precision precision, double gradient_bound, double reward_bound)
{
    struct draft_error err = {0};
    struct draft_saved saved;
    char path[] = "/tmp/draft_engine_cuda_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    struct draft_engine *cpu = opened("cpu", DRAFT_PRECISION_FP32), *gpu = opened("cuda:0", precision);
    assert_true(fabs(step(gpu, "grad_norm") / step(cpu, "grad_norm") - 1) < gradient_bound);
    if (!draft_engine_save(gpu, path, &saved, &err))
        fail_msg("%s", err.message);
    double reward = step(gpu, "reward");
    assert_true(fabs(reward - step(cpu, "reward")) < reward_bound);
    draft_engine_close(cpu);
    draft_engine_close(gpu);
    gpu = opened("cuda:0", precision);
    if (!draft_engine_restore(gpu, path, &err))
        fail_msg("%s", err.message);
    assert_true(step(gpu, "reward") == reward); /* to the bit */
    draft_engine_close(gpu);
    unlink(path);
}

static void test_engine_cuda__trains_as_the_cpu_does_and_goes_on_from_its_checkpoint(void **state)
{
    (void)state;
    trains(DRAFT_PRECISION_FP32, 1e-4, 1e-4);
}

static void computes(const char *device, enum draft_precision precision, enum draft_dtype expected)
{
    struct draft_engine *e = opened(device, precision);
    assert_int_equal(e->graph.activations, expected);
    draft_engine_close(e);
}

/* The bound of the gradient's norm is three times what was measured; rewards are some 10. */
static void test_engine_cuda__trains_in_bf16_unless_fp32_is_asked_for(void **state)
{
    (void)state;
    computes("cuda:0", DRAFT_PRECISION_AUTO, DRAFT_BF16);
    computes("cuda:0", DRAFT_PRECISION_FP32, DRAFT_F32);
    computes("cpu", DRAFT_PRECISION_AUTO, DRAFT_F32);
    trains(DRAFT_PRECISION_BF16, 0.1, 0.1);
}

static void refused(struct draft_job_config c, const char *field)
{
    struct draft_error err = {0};
    assert_null(draft_engine_open(&c, NULL, &err));
    assert_string_equal(err.field, field);
    assert_non_null(strstr(err.message, "--device cpu"));
}

static void test_engine_cuda__refuses_where_there_is_no_gpu(void **state)
{
    (void)state;
    setenv("FAKE_CUDA", "no-device", 1);
    refused(small_job("cuda", DRAFT_PRECISION_AUTO), "spec.device");
    unsetenv("FAKE_CUDA");
}

int main(void)
{
    if (getenv("DRAFT_CUDA_PLUGIN") == NULL) {
        puts("skipped: no CUDA toolkit");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_cuda__trains_as_the_cpu_does_and_goes_on_from_its_checkpoint),
        cmocka_unit_test(test_engine_cuda__trains_in_bf16_unless_fp32_is_asked_for),
        cmocka_unit_test(test_engine_cuda__refuses_where_there_is_no_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
