/* Every reward inside a job on the demo model: recorded, summed by weight, evaluated without recording, and climbed. */
#include "demo_job.h"

#include <math.h>

#define REWARDS FIXTURES "/rewards/"

static const struct {
    const char *kind, *path, *options;
    double weight;
} mix[] = {
    {"clip", DEMO "/emoji-clip", "", 1},
    {"pickscore", DEMO "/emoji-clip", "", -0.5},
    {"hps", REWARDS "hps", "", 30},
    {"hps", REWARDS "hps_converted", "", 10},
    {"imagereward", REWARDS "imagereward", "", 2},
    {"aesthetic", REWARDS "aesthetic", "head=aesthetic", 5},
    {"jpeg", "", "quality=50", 0.1},
};
enum { TERMS = sizeof mix / sizeof *mix };

static void set_reward(struct draft_job_config *config, int at, int term, double weight)
{
    struct draft_reward_spec *spec = &config->reward[at];
    snprintf(spec->kind, sizeof spec->kind, "%s", mix[term].kind);
    snprintf(spec->path, sizeof spec->path, "%s", mix[term].path);
    snprintf(spec->options, sizeof spec->options, "%s", mix[term].options);
    spec->weight = weight;
}

static void test_reward_mix__is_the_weighted_sum_in_steps_and_in_evaluation(void **state)
{
    (void)state;
    static const char *const names[TERMS] = {"clip", "pickscore", "hps", "hps2", "imagereward", "aesthetic", "jpeg"};
    struct draft_error err = {0};
    struct draft_report step, evaluation;
    struct draft_job_config config = demo_job();
    config.evaluation.every = 0;
    config.evaluation.seeds = 1;
    config.reward_count = TERMS;
    for (int i = 0; i < TERMS; i++)
        set_reward(&config, i, i, mix[i].weight);
    struct draft_engine *e = open_demo(&config, NULL);
    if (!draft_engine_step(e, &step, &err) || !draft_engine_evaluate(e, &evaluation, &err))
        fail_msg("%s", err.message);
    double sum = 0, evaluated = 0;
    for (int i = 0; i < TERMS; i++) {
        char name[64];
        snprintf(name, sizeof name, "reward/%s", names[i]);
        sum += mix[i].weight * metric(&step, name);
        snprintf(name, sizeof name, "eval/reward/%s", names[i]);
        evaluated += mix[i].weight * metric(&evaluation, name);
    }
    assert_true(fabs(metric(&step, "reward") - sum) <= 1e-4 * (1 + fabs(sum)));
    assert_true(fabs(metric(&evaluation, "eval/reward") - evaluated) <= 1e-4 * (1 + fabs(evaluated)));
    assert_true(metric(&step, "grad_norm") > 0);
    /* hps2 is the same model in transformers' layout. */
    assert_true(fabs(metric(&step, "reward/hps") - metric(&step, "reward/hps2")) <= 1e-5);
    draft_engine_close(e);
}

/* A few steps towards one reward: evaluated on the same noise, it is higher afterwards. */
static void climb(int term, double weight)
{
    struct draft_error err = {0};
    struct draft_report before, after;
    struct draft_job_config config = demo_job();
    config.kl_coeff = 0;
    config.learning_rate = 3e-3;
    config.evaluation.every = 0;
    config.evaluation.seeds = 2;
    set_reward(&config, 0, term, weight);
    struct draft_engine *e = open_demo(&config, NULL);
    assert_true(draft_engine_evaluate(e, &before, &err));
    train(e, 10);
    assert_true(draft_engine_evaluate(e, &after, &err));
    if (!(metric(&after, "eval/reward") > metric(&before, "eval/reward")))
        fail_msg("%s: %g before, %g after", mix[term].kind, metric(&before, "eval/reward"),
                 metric(&after, "eval/reward"));
    draft_engine_close(e);
}

static void test_reward_mix__each_kind_is_climbed(void **state)
{
    (void)state;
    climb(2, 30);
    climb(4, 2);
    climb(5, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reward_mix__is_the_weighted_sum_in_steps_and_in_evaluation),
        cmocka_unit_test(test_reward_mix__each_kind_is_climbed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
