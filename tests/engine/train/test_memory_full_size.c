/*
 * What Stable Diffusion 1.5 with CLIP-H needs, planned from files that are headers over a hole: names and shapes are
 * all that a dry step asks for. The bounds are those that the project promises.
 */
#include "demo_job.h"

static bool run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool run(const char *format, ...)
{
    char command[2048];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(command, sizeof command, format, args);
    va_end(args);
    return length > 0 && (size_t)length < sizeof command && system(command) == 0;
}

/* Any vocabulary smaller than the model's will do. */
static int make_models(void **state)
{
    (void)state;
    const char *folder = in_folder("");
    return run("python3 -B " FIXTURES "/../tools/random_model.py sd15 '%s/sd15' --headers --tokenizer " DEMO
               "/emoji-sd/tokenizer",
               folder) &&
                   run("python3 -B " FIXTURES "/../tools/random_model.py clip-h '%s/clip-h' --headers", folder) &&
                   run("cp " DEMO "/emoji-clip/*token*.json " DEMO "/emoji-clip/vocab.json " DEMO
                       "/emoji-clip/merges.txt '%s/clip-h'",
                       folder)
               ? 0
               : -1;
}

/* 512x512, one sample at a time, K = 1: what a user gets who says nothing. */
static struct draft_inspection planned(const char *device, enum draft_memory memory)
{
    struct draft_job_config config = demo_job();
    struct draft_inspection found;
    struct draft_error err = {0};
    config.model = in_folder("sd15");
    snprintf(config.reward[0].path, sizeof config.reward[0].path, "%s", in_folder("clip-h"));
    config.device = device;
    config.memory = memory;
    config.memory_limit = config.gpu_memory = (size_t)80 << 30;
    config.height = config.width = 512;
    config.sampling_steps = 0;
    config.guidance = -1;
    config.lora_rank = 0;
    config.micro_batch = 1;
    if (strcmp(device, "cpu") == 0)
        config.gpu_memory = 0;
    if (!draft_inspect(&config, NULL, &found, &err))
        fail_msg("%s", err.message);
    print_message("%s: %.3f GB\n", device, (double)(found.memory_bytes + found.gpu_memory_bytes) / 1e9);
    return found;
}

static void test_memory_full_size__a_gpu_of_8_gb_is_enough(void **state)
{
    (void)state;
    if (getenv("DRAFT_CUDA_PLUGIN") == NULL)
        skip();
    setenv("FAKE_CUDA", "no-device", 1); /* planning touches none */
    uint64_t bytes = planned("cuda:0", DRAFT_MEMORY_FAST).gpu_memory_bytes;
    uint64_t low = planned("cuda:0", DRAFT_MEMORY_LOW).gpu_memory_bytes;
    unsetenv("FAKE_CUDA");
    assert_true(bytes < 8000000000 && low < bytes);
    assert_true(low > (uint64_t)3800 << 20); /* the weights alone, in bf16 */
}

static void test_memory_full_size__memory_low_keeps_to_7_gb_of_the_host(void **state)
{
    (void)state;
    uint64_t bytes = planned("cpu", DRAFT_MEMORY_LOW).memory_bytes;
    assert_true(bytes < 7000000000);
    assert_true(bytes > (uint64_t)3 << 30); /* the UNet alone, in fp32 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_full_size__a_gpu_of_8_gb_is_enough),
        cmocka_unit_test(test_memory_full_size__memory_low_keeps_to_7_gb_of_the_host),
    };
    return cmocka_run_group_tests(tests, make_models, remove_folder);
}
