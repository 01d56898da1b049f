/*
 * Replay (autograd/replay.h) in training, over the CUDA fakes: steps that are launched from recordings are those that
 * are run op by op, to the bit, also where the device does nothing before it is waited for; and how often it is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "autograd/replay.h"
#include "engine/backend/cuda/fake_counts.h"
#include "engine.h"
#include "state.h"

/* --- Training ------------------------------------------------------------------------------------------------------
 */

/* A block is run, recorded, and launched from the third time on. */
enum { STEPS = 3, RESUMED = 2 };
static const char *const PROMPTS[] = {"an animal", "a lion"};

static struct draft_job_config job(int sampling_steps, int micro_batches)
{
    struct draft_job_config c = {.model = FIXTURES "/era15",
                                 .prompts = PROMPTS,
                                 .prompt_count = 2,
                                 .reward_count = 2,
                                 .sampling_steps = sampling_steps,
                                 .guidance = 1,
                                 .height = 32,
                                 .width = 32,
                                 .lora_rank = 2,
                                 .learning_rate = 1e-2,
                                 .warmup_steps = 2,
                                 .global_batch = micro_batches,
                                 .micro_batch = 1,
                                 .steps = 8,
                                 .seed = 3,
                                 .precision = DRAFT_PRECISION_FP32,
                                 .device = "cuda:0",
                                 .threads = 2};
    c.evaluation.every = -1;
    c.reward[0] = (struct draft_reward_spec){.kind = "hps", .weight = 1};
    snprintf(c.reward[0].path, sizeof c.reward[0].path, "%s", FIXTURES "/rewards/hps");
    c.reward[1] = (struct draft_reward_spec){.kind = "jpeg", .weight = 0.1};
    return c;
}

static struct draft_engine *opened(const struct draft_job_config *c, const char *eager, const char *late)
{
    struct draft_error err = {0};
    setenv("DRAFT_CUDA_EAGER", eager, 1);
    setenv("FAKE_CUDA_LATE", late, 1);
    struct draft_engine *e = draft_engine_open(c, NULL, &err);
    if (!e)
        fail_msg("%s", err.message);
    return e;
}

static struct draft_report step(struct draft_engine *e)
{
    struct draft_error err = {0};
    struct draft_report report;
    if (!draft_engine_step(e, &report, &err))
        fail_msg("%s", err.message);
    assert_null(draft_replay_refusal(&e->graph));
    return report;
}

/* All but times and memory. */
static void assert_same(const struct draft_report *a, const struct draft_report *b)
{
    assert_int_equal(a->count, b->count);
    for (int i = 0; i < a->count; i++)
        if (strncmp(a->metric[i].name, "seconds", 7) != 0 && strncmp(a->metric[i].name, "memory", 6) != 0 &&
            memcmp(&a->metric[i].value, &b->metric[i].value, sizeof(double)) != 0)
            fail_msg("step %d, %s: %.17g, op by op %.17g", (int)a->step, a->metric[i].name, a->metric[i].value,
                     b->metric[i].value);
}

/* Nothing has run before the one wait, which by the host's clock is the optimizer's; the device's tells them apart. */
static void assert_phases(const struct draft_report *report)
{
    static const char *const names[] = {"seconds/sample", "seconds/forward", "seconds/backward", "seconds/optimizer"};
    double seconds[4] = {0}, sum = 0;
    for (int p = 0; p < 4; p++) {
        for (int i = 0; i < report->count; i++)
            if (strcmp(report->metric[i].name, names[p]) == 0)
                seconds[p] = report->metric[i].value;
        assert_true(seconds[p] > 0);
        sum += seconds[p];
    }
    assert_true(sum <= report->seconds && sum > 0.8 * report->seconds);
    assert_true(seconds[3] < 0.2 * sum);
}

static void assert_same_parameters(struct draft_engine *a, struct draft_engine *b)
{
    for (int i = 0; i < a->trained.count; i++) /* the fakes' device memory is the host's */
        assert_memory_equal(a->trained.tensor[i]->data, b->trained.tensor[i]->data,
                            (size_t)draft_tensor_count(a->trained.tensor[i]) * sizeof(float));
}

static void saved_as(struct draft_engine *e, char *path)
{
    struct draft_error err = {0};
    struct draft_saved saved;
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    if (!draft_engine_save(e, path, &saved, &err))
        fail_msg("%s", err.message);
}

/* From the checkpoint to where `eager` is. */
static void goes_on_alike(const struct draft_job_config *c, const char *checkpoint, struct draft_engine *eager)
{
    struct draft_error err = {0};
    struct draft_engine *e = opened(c, "0", "0");
    if (!draft_engine_restore(e, checkpoint, &err))
        fail_msg("%s", err.message);
    for (int i = RESUMED; i < STEPS; i++)
        step(e);
    assert_same_parameters(e, eager);
    draft_engine_close(e);
}

/* `launches`: of recordings in one step. `checkpoint` (may be NULL): mkstemp's, of the step before the last. */
static void trains_alike(const struct draft_job_config *c, int launches, char *checkpoint)
{
    struct draft_engine *eager = opened(c, "1", "0"), *replayed = opened(c, "0", "1");
    for (int i = 0; i < STEPS; i++) {
        const struct fake_counts before = *fake_counts();
        struct draft_report a = step(replayed);
        if (i + 1 == STEPS) { /* all is recorded, and all prompts are known */
            assert_int_equal(fake_counts()->graph_launches - before.graph_launches, launches);
            assert_int_equal(fake_counts()->waits - before.waits, 1);
            assert_int_equal(fake_counts()->captures, before.captures);
            assert_int_equal(fake_counts()->allocations, before.allocations);
            assert_phases(&a);
        }
        struct draft_report b = step(eager);
        assert_same(&a, &b);
        if (i + 1 == RESUMED && checkpoint)
            saved_as(replayed, checkpoint);
    }
    assert_same_parameters(replayed, eager);
    assert_int_equal(draft_replay_count(&eager->graph).launched, 0);
    assert_true(draft_replay_count(&replayed->graph).launched > 0);
    draft_engine_close(replayed);
    if (checkpoint)
        goes_on_alike(c, checkpoint, eager);
    draft_engine_close(eager);
    assert_int_equal(fake_counts()->graphs, 0);
}

/* A micro-batch has T - K launches without gradient and one with; then the optimizer's. */
static void test_replay_training__trains_to_the_bit_as_op_by_op(void **state)
{
    (void)state;
    char checkpoint[] = "/tmp/draft_replay_XXXXXX";
    struct draft_job_config c = job(2, 2);
    c.guidance = 4;
    c.kl_coeff = 0.1;
    trains_alike(&c, 2 * (1 + 1) + 1, checkpoint);
    unlink(checkpoint);
}

/* Their LoRA, which an update changes, goes along in the products of the steps without gradient. */
static void test_replay_training__trains_alike_in_bf16(void **state)
{
    (void)state;
    struct draft_job_config c = job(3, 1);
    c.precision = DRAFT_PRECISION_BF16;
    c.lora_rank = 8;
    trains_alike(&c, 2 + 1 + 1, NULL);
}

static void test_replay_training__trains_alike_with_two_steps_of_gradient_ancestral_noise_and_recompute(void **state)
{
    (void)state;
    struct draft_job_config c = job(3, 1);
    c.truncation_steps = 2;
    c.recompute = true;
    c.sampler = "euler_a";
    trains_alike(&c, 1 + 1 + 1, NULL);
}

/* Each copy is a last step of its own. */
static void test_replay_training__trains_alike_with_copies_and_a_multistep_sampler(void **state)
{
    (void)state;
    struct draft_job_config c = job(3, 1);
    c.lv_copies = 2;
    c.sampler = "dpmpp_2m";
    trains_alike(&c, 2 + 1 + 2 + 1, NULL);
}

/* A prompt of its own length for each micro-batch: they are padded to one. */
static void test_replay_training__trains_alike_with_a_reward_whose_prompt_meets_the_picture(void **state)
{
    (void)state;
    static const char *const prompts[] = {"a lion", "A small Owl on a BLUE background, a cat on a red one!"};
    struct draft_job_config c = job(1, 2);
    c.prompts = prompts;
    c.reward_count = 1;
    c.reward[0] = (struct draft_reward_spec){.kind = "imagereward", .weight = 1};
    snprintf(c.reward[0].path, sizeof c.reward[0].path, "%s", FIXTURES "/rewards/imagereward");
    trains_alike(&c, 2 * 1 + 1, NULL);
}

/* The first step runs its blocks, the second would record them. */
static void test_replay_training__says_once_that_nothing_can_be_recorded(void **state)
{
    (void)state;
    struct draft_job_config c = job(1, 1);
    struct draft_engine *e = opened(&c, "0", "0");
    setenv("FAKE_CUDA", "no-capture", 1);
    for (int i = 1; i <= 3; i++) {
        struct draft_error err = {0};
        struct draft_report report;
        assert_true(draft_engine_step(e, &report, &err));
        assert_true((i == 2) == (strstr(report.note, "op by op") != NULL));
        assert_true(i == 2 || report.note[0] == 0);
    }
    unsetenv("FAKE_CUDA");
    draft_engine_close(e);
}

int main(void)
{
    if (getenv("DRAFT_CUDA_PLUGIN") == NULL) {
        puts("skipped: no CUDA toolkit");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay_training__trains_to_the_bit_as_op_by_op),
        cmocka_unit_test(test_replay_training__trains_alike_in_bf16),
        cmocka_unit_test(test_replay_training__trains_alike_with_two_steps_of_gradient_ancestral_noise_and_recompute),
        cmocka_unit_test(test_replay_training__trains_alike_with_copies_and_a_multistep_sampler),
        cmocka_unit_test(test_replay_training__trains_alike_with_a_reward_whose_prompt_meets_the_picture),
        cmocka_unit_test(test_replay_training__says_once_that_nothing_can_be_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
