/* The narrow door: metrics, evaluation, previews, steps that are not finite, inspection. */
#include "demo_job.h"

#include <math.h>

#include <sys/mman.h>

#include "state.h"

static void test_engine__reports_a_step_by_name(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_report report;
    struct draft_job_config config = demo_job();
    config.warmup_steps = 9;
    struct draft_engine *e = open_demo(&config, NULL);
    assert_true(draft_engine_step(e, &report, &err));
    assert_int_equal(report.step, 1);
    assert_false(report.skipped);
    assert_true(metric(&report, "kl") == 0); /* the tuned network is the base still */
    assert_true(fabs(metric(&report, "loss") + metric(&report, "reward")) < 1e-9);
    assert_true(metric(&report, "reward/clip") == metric(&report, "reward"));
    assert_true(metric(&report, "grad_norm") > 0);
    assert_true(fabs(metric(&report, "learning_rate") - 1e-4) < 1e-15);
    double seconds = metric(&report, "seconds/sample") + metric(&report, "seconds/forward") +
                     metric(&report, "seconds/backward") + metric(&report, "seconds/optimizer");
    assert_true(seconds > 0.5 * report.seconds && seconds <= report.seconds);
    assert_true(metric(&report, "memory/step_arena_bytes") > 1e5);
    assert_true(metric(&report, "memory/peak_bytes") > metric(&report, "memory/step_arena_bytes"));
    assert_true(draft_engine_step(e, &report, &err));
    assert_true(metric(&report, "kl") > 0);
    assert_true(fabs(metric(&report, "loss") - (0.25 * metric(&report, "kl") - metric(&report, "reward"))) < 1e-9);
    draft_engine_close(e);
}

static void test_engine__the_peak_of_memory_outlives_what_was_given_back(void **state)
{
    (void)state;
    enum { BYTES = 64 << 20 };
    struct draft_progress progress = {0};
    uint64_t before = draft_progress_peak_memory(&progress);
    assert_true(before > 0);
    void *block = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(block != MAP_FAILED);
    memset(block, 1, BYTES);
    assert_true(draft_progress_peak_memory(&progress) > before + BYTES * 9 / 10);
    munmap(block, BYTES);
    assert_true(draft_anonymous_memory() < before + BYTES / 2);
    assert_true(draft_progress_peak_memory(&progress) > before + BYTES * 9 / 10);
}

static void test_engine__vanilla_draft_has_no_kl_series_but_evaluation_measures_it(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_report report;
    struct draft_job_config config = demo_job();
    config.kl_coeff = 0;
    config.evaluation.every = 2;
    config.evaluation.seeds = 2;
    struct draft_engine *e = open_demo(&config, NULL);
    assert_true(draft_engine_evaluation_due(e));
    assert_true(draft_engine_evaluate(e, &report, &err));
    assert_true(metric(&report, "eval/kl") == 0);
    assert_true(draft_engine_step(e, &report, &err));
    assert_false(has_metric(&report, "kl"));
    assert_false(draft_engine_evaluation_due(e));
    train(e, 1);
    assert_true(draft_engine_evaluation_due(e));
    assert_true(draft_engine_evaluate(e, &report, &err));
    assert_true(metric(&report, "eval/kl") > 0);
    draft_engine_close(e);
}

static void test_engine__evaluation_is_the_same_every_time_and_changes_nothing(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_report first, second, parts;
    struct draft_job_config config = demo_job();
    config.evaluation.every = 0;
    config.evaluation.seeds = 3;
    config.evaluation.lpips = DEMO "/emoji-lpips";
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 1);
    const char *before = save(e, "before");
    assert_true(draft_engine_evaluate(e, &first, &err));
    assert_true(draft_engine_evaluate(e, &second, &err));
    assert_same_files(before, save(e, "after"));
    static const char *const names[] = {"eval/reward", "eval/kl", "eval/lpips", "eval/reward_std", "eval/reward/clip"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_true(metric(&first, names[i]) == metric(&second, names[i]));
    double lpips = metric(&first, "eval/lpips");
    assert_true(lpips > 0.05 && lpips < 2);

    /* One picture at a time: the same pictures. */
    e->config.micro_batch = 1;
    assert_true(draft_engine_evaluate(e, &parts, &err));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_true(fabs(metric(&first, names[i]) - metric(&parts, names[i])) <=
                    1e-4 * fabs(metric(&first, names[i])) + 1e-6);
    draft_engine_close(e);
}

static void test_engine__evaluates_the_first_different_prompts(void **state)
{
    (void)state;
    static const char *const prompts[] = {"a lion", "a lion", "a cat", "a lion", "a cat", "a dog"};
    struct draft_job_config config = demo_job();
    config.prompts = prompts;
    config.prompt_count = 6;
    struct draft_engine *e = open_demo(&config, NULL);
    const char *const *chosen;
    assert_int_equal(draft_engine_evaluation_prompts(e, &chosen), 3);
    assert_string_equal(chosen[0], "a lion");
    assert_string_equal(chosen[1], "a cat");
    assert_string_equal(chosen[2], "a dog");
    draft_engine_close(e);
}

static float *picture(struct draft_engine *e, struct draft_sample_request request)
{
    struct draft_error err = {0};
    struct draft_picture out;
    request.prompt = "a lion";
    request.guidance = -1;
    if (!draft_engine_sample(e, &request, &out, &err))
        fail_msg("%s", err.message);
    assert_int_equal(out.height, 64);
    assert_int_equal(out.width, 64);
    assert_true(isfinite(out.reward));
    return out.rgb;
}

static void test_engine__a_mix_tells_each_term_and_true_measures(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_report report;
    struct draft_job_config config = demo_job();
    config.reward[0].weight = 0.5;
    config.reward[1] = (struct draft_reward_spec){.kind = "jpeg", .options = "quality=50", .weight = 2};
    config.reward[2] = config.reward[0];
    config.reward_count = 3;
    struct draft_engine *e = open_demo(&config, NULL);
    assert_true(draft_engine_step(e, &report, &err));
    double clip = metric(&report, "reward/clip"), jpeg = metric(&report, "reward/jpeg");
    assert_true(metric(&report, "reward/clip2") == clip);
    assert_true(fabs(metric(&report, "reward") - (clip + 2 * jpeg)) < 1e-4);
    double size = metric(&report, "jpeg_kb");
    assert_true(size > 0.3 && size < 10);
    draft_engine_close(e);
}

/* Stops at the n-th question. */
static bool count_down(void *context, enum draft_phase phase, int64_t done, int64_t total)
{
    int *left = context;
    (void)phase;
    assert_true(done <= total);
    return (*left)-- > 0;
}

static void test_engine__a_stopped_evaluation_or_preview_leaves_no_trace(void **state)
{
    (void)state;
    int left = 1 << 30, stopped = 0;
    struct draft_watch watch = {count_down, &left};
    struct draft_report report;
    struct draft_picture picture;
    struct draft_job_config config = demo_job();
    config.evaluation.every = 0;
    config.evaluation.seeds = 2;
    struct draft_sample_request request = {.prompt = "a lion", .guidance = -1, .lora_scale = 0.3};
    struct draft_engine *watched = open_demo(&config, &watch), *quiet = open_demo(&config, NULL);
    train(watched, 1);
    for (int at = 0; at < 60; at += 1 + at / 2) {
        struct draft_error err = {0};
        left = at;
        if (!draft_engine_evaluate(watched, &report, &err)) {
            assert_int_equal(err.code, DRAFT_CANCELLED);
            stopped++;
        }
        err = (struct draft_error){0};
        left = at;
        if (!draft_engine_sample(watched, &request, &picture, &err)) {
            assert_int_equal(err.code, DRAFT_CANCELLED);
            stopped++;
        } else {
            free(picture.rgb);
        }
    }
    assert_true(stopped > 10);
    left = 1 << 30;
    train(watched, 2);
    train(quiet, 3);
    assert_same_files(save(watched, "watched"), save(quiet, "undisturbed"));
    draft_engine_close(watched);
    draft_engine_close(quiet);
}

static void test_engine__previews_never_disturb_training(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_engine *quiet = open_demo(&config, NULL), *asked = open_demo(&config, NULL);
    train(quiet, 3);
    train(asked, 1);
    free(picture(asked, (struct draft_sample_request){.seed = 1, .lora_scale = 0.5}));
    train(asked, 1);
    free(picture(asked, (struct draft_sample_request){.seed = 2, .aig = DRAFT_AIG_LINEAR, .lora_scale = 1}));
    train(asked, 1);
    assert_same_files(save(quiet, "quiet"), save(asked, "asked"));
    draft_engine_close(quiet);
    draft_engine_close(asked);
}

static void test_engine__scale_0_and_aig_base_are_the_base_model(void **state)
{
    (void)state;
    enum { BYTES = 64 * 64 * 3 * sizeof(float) };
    struct draft_job_config config = demo_job();
    config.learning_rate = 1e-2;
    struct draft_engine *e = open_demo(&config, NULL);
    float *base = picture(e, (struct draft_sample_request){.lora_scale = 1});
    train(e, 3);
    float *tuned = picture(e, (struct draft_sample_request){.lora_scale = 1});
    float *zero = picture(e, (struct draft_sample_request){.lora_scale = 0});
    float *aig = picture(e, (struct draft_sample_request){.lora_scale = 1, .aig = DRAFT_AIG_BASE});
    float *other = picture(e, (struct draft_sample_request){.lora_scale = 1, .seed = 1});
    assert_memory_equal(base, zero, BYTES);
    assert_memory_equal(base, aig, BYTES);
    assert_memory_not_equal(base, tuned, BYTES);
    assert_memory_not_equal(other, tuned, BYTES);
    free(base);
    free(tuned);
    free(zero);
    free(aig);
    free(other);
    draft_engine_close(e);
}

/* AIG's formulas at their ends, and that each is a picture of its own; in between PyTorch's latents are the measure
 * (golden.draft_plus-k1). */
static void test_engine__annealings_meet_where_their_formulas_do(void **state)
{
    (void)state;
    enum { BYTES = 64 * 64 * 3 * sizeof(float) };
    static const struct {
        enum draft_aig aig;
        double p;
        int same; /* as this row; its own: unlike all before it */
    } rows[] = {
        {DRAFT_AIG_BASE, 0, 0},     {DRAFT_AIG_DRAFT, 0, 1},  {DRAFT_AIG_LINEAR, 0, 2},
        {DRAFT_AIG_POWER, 2, 3},    {DRAFT_AIG_STEP, 0.6, 4}, {DRAFT_AIG_POWER, 1, 2}, /* linear */
        {DRAFT_AIG_STEP, 0, 1},                                                        /* all of it tuned */
        {DRAFT_AIG_STEP, 1, 0},                                                        /* none of it */
        {DRAFT_AIG_POWER, 1000, 0}, /* (3/4)^1000: nothing of the LoRA is left in a float */
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    float *drawn[ROWS];
    struct draft_job_config config = demo_job();
    config.learning_rate = 1e-2;
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 3);
    for (int i = 0; i < ROWS; i++) {
        drawn[i] =
            picture(e, (struct draft_sample_request){.lora_scale = 1, .aig = rows[i].aig, .aig_power = rows[i].p});
        for (int k = 0; k < i; k++)
            if ((memcmp(drawn[i], drawn[k], BYTES) == 0) != (rows[i].same == rows[k].same))
                fail_msg("rows %d and %d", i, k);
    }
    for (int i = 0; i < ROWS; i++)
        free(drawn[i]);
    draft_engine_close(e);
}

static void test_engine__refuses_absurd_previews(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_demo(&config, NULL);
    static const struct {
        struct draft_sample_request request;
        const char *field;
    } cases[] = {
        {{.prompt = "a", .steps = -1, .lora_scale = 1}, "spec.steps"},
        {{.prompt = "a", .steps = 100000, .lora_scale = 1}, "spec.steps"},
        {{.prompt = "a", .guidance = NAN, .lora_scale = 1}, "spec.guidance"},
        {{.prompt = "a", .lora_scale = INFINITY}, "spec.lora_scale"},
        {{.prompt = "a", .lora_scale = 1, .height = 60}, "spec.height"},
        {{.prompt = "a", .lora_scale = 1, .width = 1 << 20}, "spec.width"},
        {{.prompt = "a", .lora_scale = 1, .width = -16}, "spec.width"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct draft_error err = {0};
        struct draft_picture out;
        assert_false(draft_engine_sample(e, &cases[i].request, &out, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        assert_string_equal(err.field, cases[i].field);
    }
    draft_engine_close(e);
}

static void test_engine__skips_a_step_that_is_not_finite_and_goes_on(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_report report;
    struct draft_job_config config = demo_job();
    struct draft_engine *e = open_demo(&config, NULL);
    train(e, 1);
    float *poisoned = &draft_f32(e->adapter->entry[0].lora.up)[0], sound = *poisoned;
    float witness = draft_f32(e->adapter->entry[1].lora.up)[0];
    *poisoned = NAN;
    assert_true(draft_engine_step(e, &report, &err));
    assert_true(report.skipped);
    assert_non_null(strstr(report.note, "not finite"));
    assert_false(isfinite(metric(&report, "loss")));
    assert_int_equal(draft_engine_step_count(e), 2);
    assert_int_equal(e->opt->updates, 1);
    assert_true(draft_f32(e->adapter->entry[1].lora.up)[0] == witness);
    *poisoned = sound;
    assert_true(draft_engine_step(e, &report, &err));
    assert_false(report.skipped);
    assert_int_equal(e->bad_steps, 0);
    draft_engine_close(e);
}

static void test_engine__gives_up_after_bad_steps_in_a_row(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_report report;
    struct draft_job_config config = demo_job();
    config.max_bad_steps = 2;
    struct draft_engine *e = open_demo(&config, NULL);
    draft_f32(e->adapter->entry[0].lora.up)[0] = INFINITY;
    assert_true(draft_engine_step(e, &report, &err));
    assert_true(report.skipped);
    assert_false(draft_engine_step(e, &report, &err));
    assert_int_equal(err.code, DRAFT_NON_FINITE);
    assert_non_null(strstr(err.message, "2 steps in a row"));
    draft_engine_close(e);
}

static void test_engine__raises_the_reward(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_report before, after;
    struct draft_job_config config = demo_job();
    config.kl_coeff = 0.05;
    config.steps = 30;
    config.micro_batch = config.global_batch = 4;
    config.evaluation.every = 0;
    config.evaluation.seeds = 4;
    struct draft_engine *e = open_demo(&config, NULL);
    assert_true(draft_engine_evaluate(e, &before, &err));
    train(e, 15);
    assert_true(draft_engine_evaluate(e, &after, &err));
    assert_true(metric(&after, "eval/reward") > metric(&before, "eval/reward") + 0.3);
    assert_true(metric(&after, "eval/kl") > 0);
    draft_engine_close(e);
}

static void test_engine__inspects_what_a_job_names(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_inspection found;
    static char long_prompt[600];
    for (int i = 0; i < 199; i++)
        memcpy(long_prompt + 3 * i, "a, ", 3);
    const char *const prompts[] = {"a lion", long_prompt};
    struct draft_job_config config = demo_job();
    config.prompts = prompts;
    config.prompt_count = 2;
    if (!draft_inspect(&config, NULL, &found, &err))
        fail_msg("%s", err.message);
    assert_int_equal(found.total_steps, 10);
    assert_int_equal(found.height, 64);
    assert_int_equal(found.width, 64);
    assert_int_equal(found.truncated_prompts, 1);
    assert_non_null(strstr(found.warnings, "prompt 2"));
    assert_int_equal(strlen(found.fingerprint), 32);
    assert_true(found.base_parameters > 8000000 && found.base_parameters < 9000000); /* the card says 8.5 million */

    struct draft_engine *e = open_demo(&config, NULL);
    assert_string_equal(found.fingerprint, draft_engine_fingerprint(e));
    assert_int_equal(found.trained_parameters, draft_adapter_parameters(e->adapter));
    train(e, 1);
    double real = (double)draft_arena_high_water(e->step) + (double)draft_arena_live(e->weights) +
                  (double)draft_backend_prepared_bytes(e->backend);
    if (found.memory_bytes < 0.8 * real || found.memory_bytes > 1.3 * real)
        fail_msg("estimated %.1f MB, really %.1f", (double)found.memory_bytes / 1e6, real / 1e6);
    draft_engine_close(e);
}

static void assert_not_inspected(struct draft_job_config config, enum draft_code code, const char *field)
{
    struct draft_error err = {0};
    struct draft_inspection found;
    assert_false(draft_inspect(&config, NULL, &found, &err));
    if (err.code != code || strcmp(err.field, field) != 0)
        fail_msg("%s (%s, field %s)", err.message, draft_code_name(err.code), err.field);
}

static void test_engine__inspection_names_the_field_at_fault(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    config.model = DEMO "/no-such-model";
    assert_not_inspected(config, DRAFT_NOT_FOUND, "spec.model");
    config = demo_job();
    config.height = 72; /* 4 pixels a latent, and the UNet halves twice */
    assert_not_inspected(config, DRAFT_INVALID_ARGUMENT, "spec.sampling.height");
    config = demo_job();
    snprintf(config.reward[0].kind, sizeof config.reward[0].kind, "beauty");
    assert_not_inspected(config, DRAFT_INVALID_ARGUMENT, "spec.rewards[0]");
    config = demo_job();
    snprintf(config.reward[0].path, sizeof config.reward[0].path, "/no/such/folder");
    assert_not_inspected(config, DRAFT_NOT_FOUND, "spec.rewards[0]");
    config = demo_job();
    config.evaluation.lpips = "/no/such/folder";
    assert_not_inspected(config, DRAFT_NOT_FOUND, "spec.evaluation.lpips");
}

/* "x86-64" stands for a processor without such instructions. */
static void test_engine__draws_pictures_where_bf16_is_missing_and_trains_not(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_error err = {0};
    config.device = "cpu";
    config.precision = DRAFT_PRECISION_BF16;
    config.isa = "x86-64";
    assert_null(draft_engine_open(&config, NULL, &err));
    assert_string_equal(err.field, "spec.precision");
#ifdef __x86_64__
    config.sample_only = true;
    draft_engine_close(open_demo(&config, NULL));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine__reports_a_step_by_name),
        cmocka_unit_test(test_engine__the_peak_of_memory_outlives_what_was_given_back),
        cmocka_unit_test(test_engine__vanilla_draft_has_no_kl_series_but_evaluation_measures_it),
        cmocka_unit_test(test_engine__evaluation_is_the_same_every_time_and_changes_nothing),
        cmocka_unit_test(test_engine__evaluates_the_first_different_prompts),
        cmocka_unit_test(test_engine__a_mix_tells_each_term_and_true_measures),
        cmocka_unit_test(test_engine__a_stopped_evaluation_or_preview_leaves_no_trace),
        cmocka_unit_test(test_engine__previews_never_disturb_training),
        cmocka_unit_test(test_engine__scale_0_and_aig_base_are_the_base_model),
        cmocka_unit_test(test_engine__annealings_meet_where_their_formulas_do),
        cmocka_unit_test(test_engine__refuses_absurd_previews),
        cmocka_unit_test(test_engine__skips_a_step_that_is_not_finite_and_goes_on),
        cmocka_unit_test(test_engine__gives_up_after_bad_steps_in_a_row),
        cmocka_unit_test(test_engine__raises_the_reward),
        cmocka_unit_test(test_engine__draws_pictures_where_bf16_is_missing_and_trains_not),
        cmocka_unit_test(test_engine__inspects_what_a_job_names),
        cmocka_unit_test(test_engine__inspection_names_the_field_at_fault),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
