/* What a job needs: the estimate beside what the process really holds, and what is refused with which advice. */
#include "demo_job.h"

#include <sys/wait.h>
#include <unistd.h>

#include "state.h"

/* MiB of anonymous memory that this process has in RAM. */
static double anonymous(void)
{
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "RssAnon: %ld kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return (double)kib / 1024;
}

/* Two steps in a process of their own. Arenas and forms are not given back, so what it holds then is its peak. */
static int run_and_compare(const struct draft_job_config *config)
{
    struct draft_error err = {0};
    struct draft_report report;
    struct draft_engine *e = draft_engine_open(config, NULL, &err);
    for (int i = 0; e && i < 2; i++)
        if (!draft_engine_step(e, &report, &err))
            return fprintf(stderr, "%s\n", err.message), 1;
    if (!e)
        return fprintf(stderr, "%s\n", err.message), 1;
    double estimate = (double)e->memory_bytes / (1 << 20), real = anonymous();
    if (estimate > 0.9 * real && estimate < 1.1 * real)
        return 0;
    return fprintf(stderr, "estimated %.1f MiB, really %.1f\n", estimate, real), 1;
}

static void test_memory__the_estimate_is_within_a_tenth_of_the_peak(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* the sanitizer's own memory is beside it */
#endif
    static const struct {
        enum draft_memory memory;
        bool recompute;
        int micro_batch, truncation_steps, lv_copies, rank;
    } job[] = {
        {DRAFT_MEMORY_FAST, false, 1, 1, 0, 4}, {DRAFT_MEMORY_FAST, false, 4, 1, 0, 32},
        {DRAFT_MEMORY_FAST, false, 1, 3, 0, 4}, {DRAFT_MEMORY_FAST, true, 2, 3, 0, 4},
        {DRAFT_MEMORY_FAST, false, 2, 1, 2, 4}, {DRAFT_MEMORY_LOW, true, 1, 1, 0, 4},
        {DRAFT_MEMORY_LOW, true, 4, 2, 0, 4},
    };
    for (size_t i = 0; i < sizeof job / sizeof *job; i++) {
        struct draft_job_config config = demo_job();
        config.memory = job[i].memory;
        config.recompute = job[i].recompute;
        config.micro_batch = config.global_batch = job[i].micro_batch;
        config.sampling_steps = 3;
        config.truncation_steps = job[i].truncation_steps;
        config.lv_copies = job[i].lv_copies;
        config.lora_rank = job[i].rank;
        pid_t child = fork();
        if (child == 0)
            _exit(run_and_compare(&config));
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status != 0)
            fail_msg("job %zu", i);
    }
}

static void assert_says(const char *message, const char *part)
{
    if (!strstr(message, part))
        fail_msg("\"%s\" does not say \"%s\"", message, part);
}

static struct draft_engine *open_with(struct draft_job_config config, enum draft_memory memory, size_t limit)
{
    struct draft_error err = {0};
    config.memory = memory;
    config.memory_limit = limit;
    struct draft_engine *e = draft_engine_open(&config, NULL, &err);
    if (!e)
        fail_msg("%s", err.message);
    return e;
}

static void test_memory__auto_is_fast_while_that_is_comfortable(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_with(config, DRAFT_MEMORY_AUTO, (size_t)4 << 30);
    assert_int_equal(e->config.memory, DRAFT_MEMORY_FAST);
    assert_false(e->config.recompute);
    uint64_t all = e->memory_bytes;
    draft_engine_close(e);

    e = open_with(config, DRAFT_MEMORY_AUTO, (size_t)(all * 1.2)); /* 70 % of it are less than it needs: keeps less */
    assert_int_equal(e->config.memory, DRAFT_MEMORY_FAST);
    assert_true(e->memory_bytes < all && (double)e->memory_bytes < 0.72 * 1.2 * (double)all);
    draft_engine_close(e);

    e = open_with(config, DRAFT_MEMORY_AUTO, 100 << 20);
    assert_int_equal(e->config.memory, DRAFT_MEMORY_LOW);
    assert_true(e->config.recompute);
    assert_true(e->memory_bytes < all / 3);
    draft_engine_close(e);

    struct draft_error err = {0};
    struct draft_inspection found;
    config.memory_limit = 100 << 20;
    assert_true(draft_inspect(&config, NULL, &found, &err));
    assert_says(found.warnings, "memory is \"low\": fast would need 0.1 GiB or more");
}

static void test_memory__both_modes_compute_the_same_numbers(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_error err = {0};
    struct draft_report fast, low;
    struct draft_engine *e = open_with(config, DRAFT_MEMORY_FAST, 0);
    assert_true(draft_engine_step(e, &fast, &err));
    draft_engine_close(e);
    e = open_with(config, DRAFT_MEMORY_LOW, 0);
    assert_true(draft_engine_step(e, &low, &err));
    draft_engine_close(e);
    for (int i = 0; i < fast.count; i++)
        if (strncmp(fast.metric[i].name, "seconds", 7) != 0 && strncmp(fast.metric[i].name, "memory", 6) != 0)
            assert_memory_equal(&fast.metric[i].value, &low.metric[i].value, sizeof(double));
}

/* What a submit is told when the machine has `mib`. */
static const char *refusal(struct draft_job_config config, enum draft_memory memory, size_t mib)
{
    static struct draft_error err;
    struct draft_inspection found;
    err = (struct draft_error){0};
    config.memory = memory;
    config.memory_limit = mib << 20;
    assert_false(draft_inspect(&config, NULL, &found, &err));
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    assert_string_equal(err.field, "spec.memory");
    return err.message;
}

static void test_memory__what_cannot_fit_is_refused_with_what_would(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    config.micro_batch = config.global_batch = 16;
    assert_says(refusal(config, DRAFT_MEMORY_FAST, 240), "and this machine has 0.2; with memory \"low\" it needs 0.");
    assert_says(refusal(config, DRAFT_MEMORY_AUTO, 120), "; with micro_batch 1 it needs 0.1 GiB");
    assert_says(refusal(config, DRAFT_MEMORY_FAST, 120), "; with memory \"low\" and micro_batch 1 it needs 0.1 GiB");
    config.height = config.width = 512;
    assert_says(refusal(config, DRAFT_MEMORY_LOW, 300), "; with micro_batch 1 and size ");
    assert_says(refusal(config, DRAFT_MEMORY_LOW, 20), "; no setting makes it fit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory__the_estimate_is_within_a_tenth_of_the_peak),
        cmocka_unit_test(test_memory__auto_is_fast_while_that_is_comfortable),
        cmocka_unit_test(test_memory__both_modes_compute_the_same_numbers),
        cmocka_unit_test(test_memory__what_cannot_fit_is_refused_with_what_would),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
