#include "train/job_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sampler/sampler.h"

/* Limits that no sensible job comes near: what lies beyond is a slip of the keyboard or an attack on memory. */
enum {
    MAX_SAMPLING_STEPS = 1000,
    MAX_LV_COPIES = 64,
    MAX_SIDE = 4096,
    MAX_RANK = 1024,
    MAX_MICRO_BATCH = 256,
    MAX_GLOBAL_BATCH = 4096,
    MAX_STEPS = 100000000,
    MAX_WARMUP = 1000000,
    MAX_BAD_STEPS = 1000,
    MAX_EVALUATION_PROMPTS = 256,
    MAX_EVALUATION_SEEDS = 256,
    MAX_THREADS = 1024,
};

static bool int_in(int64_t value, int64_t min, int64_t max, const char *field, struct draft_error *err)
{
    if (value >= min && value <= max)
        return true;
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%s is %lld; it must be from %lld to %lld", field + 5,
                            (long long)value, (long long)min, (long long)max);
}

/* Above min (or equal to it when `closed`), at most max; NaN fails. */
static bool real_in(double value, double min, bool closed, double max, const char *field, struct draft_error *err)
{
    if ((closed ? value >= min : value > min) && value <= max)
        return true;
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%s is %g; it must be %s %g and at most %g", field + 5,
                            value, closed ? "at least" : "above", min, max);
}

static void default_int(int *value, int fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void default_real(double *value, double fallback)
{
    if (*value == 0)
        *value = fallback;
}

static bool resolve_inputs(struct draft_job_config *config, struct draft_error *err)
{
    if (!config->model || !config->model[0])
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.model",
                                "no model is named; give the path of a diffusers pipeline folder");
    if (config->prompt_count < 1)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.dataset", "the dataset has no prompts");
    if (config->reward_count < 1 || config->reward_count > DRAFT_MAX_TERMS)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards",
                                "%d rewards are named; a job needs from 1 to %d", config->reward_count,
                                DRAFT_MAX_TERMS);
    double total = 0;
    for (int i = 0; i < config->reward_count; i++) {
        if (!(fabs(config->reward[i].weight) <= 1e6))
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards",
                                    "the weight of reward %d is %g; it must be a number of at most 1e6", i + 1,
                                    config->reward[i].weight);
        total += fabs(config->reward[i].weight);
    }
    if (total == 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards",
                                "every reward has weight 0: there is nothing to learn from");
    return true;
}

static bool resolve_sampling(struct draft_job_config *config, struct draft_error *err)
{
    const struct draft_sampler *sampler = draft_sampler_find(config->sampler, err);
    if (!sampler) {
        if (err)
            snprintf(err->field, sizeof err->field, "spec.sampling.sampler");
        return false;
    }
    config->sampler = sampler->name;
    default_int(&config->sampling_steps, 50);
    default_int(&config->truncation_steps, 1);
    if (config->guidance < 0)
        config->guidance = 7.5;
    if (!config->negative_prompt)
        config->negative_prompt = "";
    if (!real_in(config->kl_coeff, 0, true, 1e6, "spec.kl_coeff", err) ||
        !int_in(config->sampling_steps, 1, MAX_SAMPLING_STEPS, "spec.sampling.steps", err) ||
        !int_in(config->truncation_steps, 1, config->sampling_steps, "spec.sampling.truncation_steps", err) ||
        !int_in(config->lv_copies, 0, MAX_LV_COPIES, "spec.sampling.lv_copies", err) ||
        !real_in(config->guidance, 0, true, 100, "spec.sampling.guidance", err) ||
        !int_in(config->height, 0, MAX_SIDE, "spec.sampling.height", err) ||
        !int_in(config->width, 0, MAX_SIDE, "spec.sampling.width", err))
        return false;
    if (config->lv_copies > 0 && config->truncation_steps != 1)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.sampling.lv_copies",
                                "DRaFT-LV (lv_copies %d) needs truncation_steps 1, not %d", config->lv_copies,
                                config->truncation_steps);
    return true;
}

static bool resolve_trained(struct draft_job_config *config, struct draft_error *err)
{
    bool full = config->train == DRAFT_TRAIN_FULL;
    if (full && (config->lora_rank != 0 || config->lora_alpha != 0))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.lora",
                                "train is \"full\", which has no adapter, but lora is given; leave one of the two out");
    if (full && config->continue_from && config->continue_from[0])
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.lora.continue_from",
                                "train is \"full\", which has no adapter to continue; name the LoRA under base_loras: "
                                "it is summed into the weights that are trained");
    if (!(config->ema_decay >= 0 && config->ema_decay < 1))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.ema_decay",
                                "ema_decay is %g; it must be 0 (no average) or below 1, such as 0.999",
                                config->ema_decay);
    if (full)
        return true;
    default_int(&config->lora_rank, 32);
    default_real(&config->lora_alpha, config->lora_rank);
    return int_in(config->lora_rank, 1, MAX_RANK, "spec.lora.rank", err) &&
           real_in(config->lora_alpha, 0, false, 1e4, "spec.lora.alpha", err);
}

static bool resolve_optimizer(struct draft_job_config *config, struct draft_error *err)
{
    default_real(&config->learning_rate, config->train == DRAFT_TRAIN_FULL ? 1e-5 : 1e-4);
    default_real(&config->beta1, 0.9);
    default_real(&config->beta2, 0.999);
    default_real(&config->epsilon, 1e-8);
    default_real(&config->max_grad_norm, 10);
    default_int(&config->max_bad_steps, 3);
    if (config->warmup_steps < 0)
        config->warmup_steps = 10;
    if (!real_in(config->learning_rate, 0, false, 1, "spec.optimizer.learning_rate", err) ||
        !real_in(config->epsilon, 0, false, 1, "spec.optimizer.epsilon", err) ||
        !real_in(config->weight_decay, 0, true, 10, "spec.optimizer.weight_decay", err) ||
        !int_in(config->warmup_steps, 0, MAX_WARMUP, "spec.optimizer.warmup_steps", err) ||
        !real_in(config->max_grad_norm, 0, false, 1e9, "spec.optimizer.max_grad_norm", err) ||
        !int_in(config->max_bad_steps, 1, MAX_BAD_STEPS, "spec.max_bad_steps", err))
        return false;
    if (!(config->beta1 > 0 && config->beta1 < 1))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.optimizer.beta1",
                                "beta1 is %g; it must lie between 0 and 1", config->beta1);
    if (!(config->beta2 > 0 && config->beta2 < 1))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.optimizer.beta2",
                                "beta2 is %g; it must lie between 0 and 1", config->beta2);
    return true;
}

static bool resolve_length(struct draft_job_config *config, struct draft_error *err)
{
    default_int(&config->micro_batch, 1);
    default_int(&config->global_batch, 4);
    if (!int_in(config->micro_batch, 1, MAX_MICRO_BATCH, "spec.length.micro_batch", err) ||
        !int_in(config->global_batch, 1, MAX_GLOBAL_BATCH, "spec.length.global_batch", err))
        return false;
    if (config->global_batch % config->micro_batch != 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.length.global_batch",
                                "global_batch %d is not a multiple of micro_batch %d", config->global_batch,
                                config->micro_batch);
    if (config->steps != 0 && config->epochs != 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.length.epochs",
                                "the length is given twice: %lld steps and %g epochs; give one of the two",
                                (long long)config->steps, config->epochs);
    if (config->steps == 0 && config->epochs == 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.length.steps",
                                "no length is given; say how many steps or epochs");
    if (config->steps != 0)
        return int_in(config->steps, 1, MAX_STEPS, "spec.length.steps", err);
    if (!real_in(config->epochs, 0, false, 1e6, "spec.length.epochs", err))
        return false;
    double updates = config->epochs * config->prompt_count / config->global_batch;
    return real_in(updates, 0, false, MAX_STEPS, "spec.length.epochs", err);
}

static bool resolve_evaluation(struct draft_job_config *config, struct draft_error *err)
{
    if (!config->evaluation.prompts)
        config->evaluation.prompt_count = 0;
    if (config->evaluation.lpips && !config->evaluation.lpips[0])
        config->evaluation.lpips = NULL;
    default_int(&config->evaluation.seeds, 8);
    default_int(&config->evaluation.sampling_steps, config->sampling_steps);
    if (!int_in(config->evaluation.every, -1, MAX_STEPS, "spec.evaluation.every", err) ||
        !int_in(config->evaluation.prompt_count, 0, MAX_EVALUATION_PROMPTS, "spec.evaluation.prompts", err) ||
        !int_in(config->evaluation.seeds, 1, MAX_EVALUATION_SEEDS, "spec.evaluation.seeds", err) ||
        !int_in(config->evaluation.sampling_steps, 1, MAX_SAMPLING_STEPS, "spec.evaluation.sampling_steps", err))
        return false;
    if (config->evaluation.lpips && config->evaluation.seeds < 2)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.evaluation.seeds",
                                "diversity needs at least 2 seeds of each prompt; leave lpips out or give more seeds");
    return true;
}

bool draft_job_config_resolve(struct draft_job_config *config, struct draft_error *err)
{
    config->recompute |= config->memory == DRAFT_MEMORY_LOW;
    return resolve_inputs(config, err) && resolve_sampling(config, err) && resolve_trained(config, err) &&
           resolve_optimizer(config, err) && resolve_length(config, err) && resolve_evaluation(config, err) &&
           int_in(config->threads, 0, MAX_THREADS, "spec.threads", err);
}

int64_t draft_job_config_total_steps(const struct draft_job_config *config)
{
    if (config->steps > 0)
        return config->steps;
    return (int64_t)ceil(config->epochs * config->prompt_count / config->global_batch - 1e-9);
}
