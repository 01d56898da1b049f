/* What a job needs of a GPU: the estimate beside what the fake runtime counted, refusals, and running out of it. */
#include "demo_job.h"

#include <dlfcn.h>

#include "backend/open.h"
#include "memory_plan.h"

static struct draft_job_config gpu_job(void)
{
    struct draft_job_config config = demo_job();
    config.device = "cuda:0";
    config.sampling_steps = 1;
    config.height = config.width = 64;
    config.micro_batch = config.global_batch = 1;
    return config;
}

/* Since the last question. */
static size_t counted(void)
{
    static size_t (*peak)(void);
    if (!peak) {
        void *plugin = dlopen(getenv("DRAFT_CUDA_PLUGIN"), RTLD_NOW | RTLD_NOLOAD);
        *(void **)&peak = plugin ? dlsym(plugin, "fake_cuda_memory_peak") : NULL;
        assert_non_null(peak);
    }
    return peak();
}

static void says(const char *message, const char *part)
{
    if (!strstr(message, part))
        fail_msg("\"%s\" does not say \"%s\"", message, part);
}

static void test_memory_cuda__the_estimate_is_within_a_tenth_of_the_peak(void **state)
{
    (void)state;
    static const struct {
        bool recompute;
        int micro_batch, truncation_steps;
        enum draft_precision precision;
    } job[] = {
        {false, 1, 1, DRAFT_PRECISION_FP32},
        {false, 4, 1, DRAFT_PRECISION_FP32},
        {true, 1, 1, DRAFT_PRECISION_BF16},
    };
    for (size_t i = 0; i < sizeof job / sizeof *job; i++) {
        struct draft_job_config config = gpu_job();
        config.memory = DRAFT_MEMORY_FAST;
        config.recompute = job[i].recompute;
        config.micro_batch = config.global_batch = job[i].micro_batch;
        config.truncation_steps = job[i].truncation_steps;
        config.precision = job[i].precision;

        struct draft_inspection planned; /* without touching the device */
        struct draft_error err = {0};
        config.gpu_memory = (size_t)80 << 30;
        setenv("FAKE_CUDA", "no-device", 1);
        if (!draft_inspect(&config, NULL, &planned, &err))
            fail_msg("%s", err.message);
        unsetenv("FAKE_CUDA");
        config.gpu_memory = 0;

        struct draft_engine *e = open_demo(&config, NULL);
        counted();
        train(e, 1);
        double real = (double)counted(), estimate = (double)(e->memory_bytes - DRAFT_GPU_CONTEXT);
        print_message("job %zu: estimated %.1f MiB, really %.1f\n", i, estimate / (1 << 20), real / (1 << 20));
        assert_true(estimate > 0.9 * real && estimate < 1.1 * real);
        assert_true(planned.gpu_memory_bytes == e->memory_bytes);
        assert_true(planned.memory_bytes == 0);
        draft_engine_close(e);
        assert_true(counted() > 0 && counted() == 0); /* all was given back */
    }
}

static uint64_t planned(const struct draft_job_config *config)
{
    struct draft_inspection found;
    struct draft_error err = {0};
    struct draft_job_config with_gpu = *config;
    with_gpu.gpu_memory = (size_t)80 << 30;
    if (!draft_inspect(&with_gpu, NULL, &found, &err))
        fail_msg("%s", err.message);
    return found.gpu_memory_bytes;
}

/* By what it is made of: the demo's UNet is 16 MiB, its adapter little. */
static void test_memory_cuda__averages_and_whole_networks_are_counted(void **state)
{
    (void)state;
    struct draft_job_config config = gpu_job();
    config.lora_rank = 64;
    uint64_t lora = planned(&config);
    config.ema_decay = 0.9;
    assert_true(planned(&config) >= lora);
    config.lora_rank = 0;
    config.train = DRAFT_TRAIN_FULL;
    config.learning_rate = 1e-5;
    uint64_t full = planned(&config);
    assert_true(full > lora + ((uint64_t)3 * 16 << 20)); /* gradients, two moments and the average beside it */
    config.lv_copies = 4;
    assert_true(planned(&config) >= full);
}

static void test_memory_cuda__what_cannot_fit_is_refused_with_what_would(void **state)
{
    (void)state;
    struct draft_job_config config = gpu_job();
    struct draft_inspection found;
    struct draft_error err = {0};
    config.micro_batch = config.global_batch = 8;
    config.height = config.width = 128;
    config.gpu_memory = (size_t)8 << 30;
    assert_true(draft_inspect(&config, NULL, &found, &err));
    assert_null(strstr(found.warnings, "memory is"));
    uint64_t fast = found.gpu_memory_bytes;

    config.gpu_memory = (size_t)((double)fast / 0.97);
    assert_true(draft_inspect(&config, NULL, &found, &err)); /* auto: low */
    says(found.warnings, "memory is \"low\": fast would need");
    says(found.warnings, "more than the GPU has");
    assert_true(found.gpu_memory_bytes < fast);

    config.memory = DRAFT_MEMORY_FAST;
    assert_false(draft_inspect(&config, NULL, &found, &err));
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    assert_string_equal(err.field, "spec.memory");
    says(err.message, "GiB of GPU memory and the largest GPU has");
    says(err.message, "; with memory \"low\" it needs");

    /* another program has most of the real one */
    err = (struct draft_error){0};
    config.gpu_memory = 0;
    setenv("FAKE_CUDA_MEMORY", "120000000", 1);
    assert_null(draft_engine_open(&config, NULL, &err));
    unsetenv("FAKE_CUDA_MEMORY");
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    says(err.message, "GiB of GPU memory and on this GPU it can have 0.7;");
}

static void test_memory_cuda__running_out_in_the_middle_says_what_would_have_fitted(void **state)
{
    (void)state;
    struct draft_job_config config = gpu_job();
    struct draft_error err = {0};
    struct draft_report report;
    char room[32];
    size_t used, peak;
    struct draft_engine *e = open_demo(&config, NULL);
    draft_device_usage(e->backend, &used, &peak);
    snprintf(room, sizeof room, "%zu", used + ((size_t)72 << 20)); /* somebody else took the rest */
    setenv("FAKE_CUDA_MEMORY", room, 1);
    assert_false(draft_engine_step(e, &report, &err));
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    draft_engine_say_what_fits(e, &err);
    says(err.message, "(estimated were ");
    says(err.message, "and it can have ");
    unsetenv("FAKE_CUDA_MEMORY");
    train(e, 1); /* it goes on when there is memory again */
    draft_engine_close(e);
}

int main(void)
{
    if (getenv("DRAFT_CUDA_PLUGIN") == NULL) {
        puts("skipped: no CUDA toolkit");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_cuda__the_estimate_is_within_a_tenth_of_the_peak),
        cmocka_unit_test(test_memory_cuda__averages_and_whole_networks_are_counted),
        cmocka_unit_test(test_memory_cuda__what_cannot_fit_is_refused_with_what_would),
        cmocka_unit_test(test_memory_cuda__running_out_in_the_middle_says_what_would_have_fitted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
