/* A small job on the demo model, for tests of the trainer. */
#ifndef TEST_DEMO_JOB_H
#define TEST_DEMO_JOB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"

static const char *const demo_prompts[] = {"a lion", "a cat on a blue background", "a small pineapple",
                                           "an owl and a penguin", "an animal"};

static inline struct draft_job_config demo_job(void)
{
    struct draft_job_config config = {.model = DEMO "/emoji-sd",
                                      .prompts = demo_prompts,
                                      .prompt_count = 5,
                                      .kl_coeff = 0.25,
                                      .sampling_steps = 4,
                                      .truncation_steps = 1,
                                      .guidance = 5,
                                      .lora_rank = 4,
                                      .learning_rate = 1e-3,
                                      .warmup_steps = 0,
                                      .micro_batch = 2,
                                      .global_batch = 2,
                                      .steps = 10,
                                      .seed = 11,
                                      .reward_count = 1};
    snprintf(config.reward[0].kind, sizeof config.reward[0].kind, "clip");
    snprintf(config.reward[0].path, sizeof config.reward[0].path, "%s", DEMO "/emoji-clip");
    config.reward[0].weight = 1;
    config.evaluation.every = -1;
    return config;
}

static inline struct draft_engine *open_demo(const struct draft_job_config *config, const struct draft_watch *watch)
{
    struct draft_error err = {0};
    struct draft_engine *engine = draft_engine_open(config, watch, &err);
    if (!engine)
        fail_msg("the engine did not open: %s", err.message);
    return engine;
}

static inline void train(struct draft_engine *engine, int steps)
{
    struct draft_error err = {0};
    struct draft_report report;
    for (int i = 0; i < steps; i++)
        if (!draft_engine_step(engine, &report, &err))
            fail_msg("step %d: %s", i + 1, err.message);
}

static inline double metric(const struct draft_report *report, const char *name)
{
    for (int i = 0; i < report->count; i++)
        if (strcmp(report->metric[i].name, name) == 0)
            return report->metric[i].value;
    fail_msg("there is no metric %s", name);
    return 0;
}

static inline bool has_metric(const struct draft_report *report, const char *name)
{
    for (int i = 0; i < report->count; i++)
        if (strcmp(report->metric[i].name, name) == 0)
            return true;
    return false;
}

/* Whole file, malloc'd. */
static inline unsigned char *slurp(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *data = malloc(*size + 1);
    assert_int_equal(fread(data, 1, *size, file), *size);
    data[*size] = 0;
    fclose(file);
    return data;
}

static inline void assert_same_files(const char *a, const char *b)
{
    size_t size_a, size_b;
    unsigned char *data_a = slurp(a, &size_a), *data_b = slurp(b, &size_b);
    assert_int_equal(size_a, size_b);
    assert_memory_equal(data_a, data_b, size_a);
    free(data_a);
    free(data_b);
}

/* A folder of this process's own; remove_folder() at the end. */
static char test_folder[128];
static inline const char *in_folder(const char *name)
{
    static char path[4][256];
    static int next;
    if (!test_folder[0]) {
        snprintf(test_folder, sizeof test_folder, "/tmp/draft-test-XXXXXX");
        assert_non_null(mkdtemp(test_folder));
    }
    char *out = path[next++ % 4];
    snprintf(out, 256, "%s/%s", test_folder, name);
    return out;
}

static inline int remove_folder(void **state)
{
    (void)state;
    char command[256];
    if (!test_folder[0])
        return 0;
    snprintf(command, sizeof command, "rm -rf '%s'", test_folder);
    return system(command);
}

static inline const char *save(struct draft_engine *engine, const char *name)
{
    struct draft_error err = {0};
    struct draft_saved saved;
    const char *path = in_folder(name);
    if (!draft_engine_save(engine, path, &saved, &err))
        fail_msg("saving: %s", err.message);
    assert_true(saved.bytes > 0);
    assert_int_equal(strlen(saved.checksum), 32);
    return path;
}

#endif
