/* A training step and an evaluation, and what is reported of them. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "autograd/replay.h"
#include "train/evaluate.h"
#include "training.h"

/* --- A training step ---------------------------------------------------------------------------------------------- */

static void put(struct draft_report *report, double value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void put(struct draft_report *report, double value, const char *format, ...)
{
    if (report->count == DRAFT_MAX_METRICS)
        return;
    struct draft_metric *metric = &report->metric[report->count++];
    va_list args;
    va_start(args, format);
    vsnprintf(metric->name, sizeof metric->name, format, args);
    va_end(args);
    metric->value = value;
}

/* Each term by itself when there are several, and the true measures. */
static void put_terms(struct draft_report *report, const struct draft_scoring *s, const double *term,
                      const double *measure, const char *prefix)
{
    for (int t = 0; t < s->terms; t++) {
        put(report, term[t], "%sreward/%s", prefix, s->name[t]);
        if (s->measure[t][0])
            put(report, measure[t], "%s%s", prefix, s->measure[t]);
    }
}

static void put_memory(struct draft_report *report, struct draft_engine *e)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    put(report, (double)draft_arena_high_water(e->step), "memory/step_arena_bytes");
    put(report, (double)draft_arena_live(e->weights), "memory/engine_arena_bytes");
    put(report, (double)draft_backend_prepared_bytes(e->backend), "memory/prepared_bytes");
    put(report, (double)draft_progress_peak_memory(&e->progress), "memory/peak_bytes");
    put(report, (double)usage.ru_maxrss * 1024, "memory/peak_rss_bytes");
}

static bool skip(struct draft_engine *e, const struct draft_plus_numbers *numbers, struct draft_report *report,
                 struct draft_error *err)
{
    e->bad_steps++;
    report->skipped = true;
    snprintf(report->note, sizeof report->note,
             "step %" PRId64 " was skipped: the %s is not finite (loss %g, reward %g, kl %g, gradient norm %g)",
             e->step_count, isfinite(numbers->loss) ? "gradient" : "loss", numbers->loss, numbers->reward, numbers->kl,
             numbers->grad_norm);
    if (e->bad_steps < e->config.max_bad_steps)
        return true;
    return draft_fail(err, DRAFT_NON_FINITE,
                      "%d steps in a row gave a loss or gradient that is not finite, the last at step %" PRId64
                      "; lower the learning rate or max_grad_norm, or check the reward model",
                      e->bad_steps, e->step_count);
}

/* Said once: the job goes on, slower than it could. */
static void tell_refusal(struct draft_engine *e, struct draft_report *report)
{
    const char *refusal = draft_replay_refusal(&e->graph);
    if (!refusal || e->told_refusal)
        return;
    e->told_refusal = true;
    snprintf(report->note, sizeof report->note, "the GPU's work is launched op by op, which is slower: %.200s",
             refusal);
}

/* 7. of the algorithm: clip, AdamW, average. The step is done from here on, whatever it gave: a loss or gradient that
 * is not finite leaves the weights as they are, which is decided where they live and known here once `numbers` are
 * read. */
static bool update(struct draft_engine *e, const struct draft_plus *dp, struct draft_plus_results *results,
                   double learning_rate, struct draft_plus_numbers *numbers, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    const struct draft_adamw_options options = {.learning_rate = learning_rate,
                                                .beta1 = c->beta1,
                                                .beta2 = c->beta2,
                                                .epsilon = c->epsilon,
                                                .weight_decay = c->weight_decay};
    const struct draft_guard guard = draft_plus_guard(results);
    e->step_count++;
    if (!draft_adamw_update(e->opt, &e->graph, &options, c->max_grad_norm, &guard))
        return draft_fail(err, e->graph.error.code, "optimizer: %s", e->graph.error.message);
    if (!draft_plus_read(dp, results, numbers, err))
        return false;
    draft_adamw_settle(e->opt, numbers->finite);
    if (!numbers->finite)
        return true;
    e->bad_steps = 0;
    const double read = draft_clock_seconds();
    draft_engine_forget_packed(e);
    if (e->ema && !draft_ema_update(e->ema, err)) {
        draft_error_prefix(err, "the average: ");
        return false;
    }
    numbers->seconds[DRAFT_PLUS_OPTIMIZER] += draft_clock_seconds() - read; /* a GPU's average is not waited for */
    return true;
}

static void put_step(struct draft_report *report, struct draft_engine *e, const struct draft_plus_numbers *numbers,
                     double learning_rate)
{
    put(report, numbers->reward, "reward");
    put(report, numbers->reward_std, "reward_std");
    put_terms(report, &e->scoring, numbers->term, numbers->measure, "");
    if (e->config.kl_coeff > 0)
        put(report, numbers->kl, "kl");
    put(report, numbers->loss, "loss");
    put(report, numbers->grad_norm, "grad_norm");
    put(report, learning_rate, "learning_rate");
    put(report, numbers->seconds[DRAFT_PLUS_SAMPLE], "seconds/sample");
    put(report, numbers->seconds[DRAFT_PLUS_FORWARD], "seconds/forward");
    put(report, numbers->seconds[DRAFT_PLUS_BACKWARD], "seconds/backward");
    put(report, numbers->seconds[DRAFT_PLUS_OPTIMIZER], "seconds/optimizer");
    put_memory(report, e);
}

bool draft_engine_step(struct draft_engine *e, struct draft_report *report, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    const int64_t step = e->step_count + 1;
    const double start = draft_clock_seconds(), rate = draft_warmup(c->learning_rate, c->warmup_steps, e->step_count);
    *report = (struct draft_report){.step = step};
    assert(e->opt && "an engine opened for pictures alone does not train");
    if (c->kl_coeff == 0)
        draft_engine_close_base(e); /* a preview may have needed it */

    struct draft_plus dp = draft_engine_algorithm(e);
    struct draft_plus_results results;
    struct draft_plus_numbers numbers;
    draft_adamw_zero_grad(e->opt);
    bool ok = draft_plus_run(&dp, draft_batches_take(e->batches, e->step_count), &results, err);
    if (ok && !draft_progress_set(&e->progress, DRAFT_PHASE_OPTIMIZER, 0, 1))
        return draft_fail(err, DRAFT_CANCELLED, "step %" PRId64 " was stopped on request", step);
    if (!ok || !update(e, &dp, &results, rate, &numbers, err)) {
        draft_error_prefix(err, "step %" PRId64 ": ", step);
        return false;
    }
    report->seconds = draft_clock_seconds() - start;
    put_step(report, e, &numbers, rate);
    if (!numbers.finite)
        return skip(e, &numbers, report, err);
    tell_refusal(e, report);
    return true;
}

/* --- An evaluation ------------------------------------------------------------------------------------------------ */

/* Without a KL in the loss, no frozen copy is kept of a UNet that is trained itself. */
static bool measures_kl(const struct draft_engine *e)
{
    return e->adapter || e->config.kl_coeff > 0;
}

bool draft_engine_evaluate(struct draft_engine *e, struct draft_report *report, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    int calls = e->evaluation_plan.count;
    *report = (struct draft_report){.step = e->step_count};
    double start = draft_clock_seconds();
    struct draft_evaluation evaluation = {
        .graph = &e->graph,
        .pipeline = &e->pipeline,
        .scoring = &e->scoring,
        .lpips = e->lpips,
        .prompts = e->evaluation_prompts,
        .prompt_count = e->evaluation_prompt_count,
        .seeds = c->evaluation.seeds,
        .plan = &e->evaluation_plan,
        .kl_steps = !measures_kl(e)               ? 0
                    : c->truncation_steps < calls ? c->truncation_steps
                                                  : calls,
        .guidance = c->guidance,
        .negative_prompt = c->negative_prompt,
        .height = e->latent_height,
        .width = e->latent_width,
        .seed = c->seed,
        .micro_batch = c->micro_batch,
        .progress = &e->progress,
    };
    struct draft_evaluation_numbers numbers;
    bool ok = !e->ema || draft_ema_swap(e->ema, e->backend, err);
    if (ok) {
        ok = draft_evaluate(&evaluation, &numbers, err);
        ok = (!e->ema || draft_ema_swap(e->ema, e->backend, ok ? err : NULL)) && ok;
    }
    if (!ok) {
        draft_error_prefix(err, "evaluation at step %" PRId64 ": ", e->step_count);
        return false;
    }
    report->seconds = draft_clock_seconds() - start;
    put(report, numbers.reward, "eval/reward");
    put(report, numbers.reward_std, "eval/reward_std");
    put_terms(report, &e->scoring, numbers.term, numbers.measure, "eval/");
    if (measures_kl(e))
        put(report, numbers.kl, "eval/kl");
    if (e->lpips)
        put(report, numbers.lpips, "eval/lpips");
    put(report, report->seconds, "seconds/evaluate");
    return true;
}
