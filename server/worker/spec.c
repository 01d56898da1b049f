#include "worker/spec.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static bool copy_text(char *out, size_t size, const char *text, const char *field, struct draft_error *err)
{
    if (strlen(text) < size) {
        memcpy(out, text, strlen(text) + 1);
        return true;
    }
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%s has %zu bytes; at most %zu are allowed",
                            strrchr(field, '.') + 1, strlen(text), size - 1);
}

static bool translate_reward(const Draftd__V1__Reward *reward, int index, struct draft_reward_spec *out,
                             struct draft_error *err)
{
    char kind[48], path[48], options[48];
    snprintf(kind, sizeof kind, "spec.rewards[%d].kind", index);
    snprintf(path, sizeof path, "spec.rewards[%d].path", index);
    snprintf(options, sizeof options, "spec.rewards[%d].options", index);
    *out = (struct draft_reward_spec){.weight = 1};
    if (reward->weight_opt_case == DRAFTD__V1__REWARD__WEIGHT_OPT_WEIGHT)
        out->weight = reward->weight;
    if (!reward->kind[0])
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, kind, "reward %d names no kind", index + 1);
    if (reward->path[0] && reward->path[0] != '/')
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, path, "the path %.200s is not absolute", reward->path);
    return copy_text(out->kind, sizeof out->kind, reward->kind, kind, err) &&
           copy_text(out->path, sizeof out->path, reward->path, path, err) &&
           copy_text(out->options, sizeof out->options, reward->options, options, err);
}

static bool absolute(const char *path, const char *field, struct draft_error *err)
{
    if (!path[0] || path[0] == '/')
        return true;
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "the path %.200s is not absolute", path);
}

static bool is_text(const char *text, const char *field, struct draft_error *err)
{
    if (draft_utf8_valid(text, strlen(text), NULL))
        return true;
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%s is not UTF-8", strrchr(field, '.') + 1);
}

/* Negative numbers mean "default" to the engine in places where a request may not use them. */
static bool not_negative(double value, const char *field, struct draft_error *err)
{
    if (!(value < 0))
        return true;
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%s is %g; it must not be negative",
                            strrchr(field, '.') + 1, value);
}

static bool translate_sampling(const Draftd__V1__Sampling *s, struct draft_job_config *config, struct draft_error *err)
{
    config->guidance = -1;
    if (!s)
        return true;
    config->sampler = s->sampler;
    config->sampling_steps = s->steps;
    config->truncation_steps = s->truncation_steps;
    config->lv_copies = s->lv_copies;
    config->negative_prompt = s->negative_prompt;
    config->height = s->height;
    config->width = s->width;
    if (s->guidance_opt_case == DRAFTD__V1__SAMPLING__GUIDANCE_OPT_GUIDANCE) {
        config->guidance = s->guidance;
        if (!not_negative(s->guidance, "spec.sampling.guidance", err))
            return false;
    }
    return is_text(s->negative_prompt, "spec.sampling.negative_prompt", err);
}

static bool translate_optimizer(const Draftd__V1__Optimizer *o, struct draft_job_config *config,
                                struct draft_error *err)
{
    config->warmup_steps = -1;
    if (!o)
        return true;
    config->learning_rate = o->learning_rate;
    config->beta1 = o->beta1;
    config->beta2 = o->beta2;
    config->epsilon = o->epsilon;
    config->weight_decay = o->weight_decay;
    config->max_grad_norm = o->max_grad_norm;
    if (o->warmup_steps_opt_case == DRAFTD__V1__OPTIMIZER__WARMUP_STEPS_OPT_WARMUP_STEPS) {
        config->warmup_steps = o->warmup_steps;
        return not_negative(o->warmup_steps, "spec.optimizer.warmup_steps", err);
    }
    return true;
}

static bool translate_evaluation(const Draftd__V1__Evaluation *e, struct draft_job_config *config,
                                 struct draft_error *err)
{
    if (!e)
        return true;
    config->evaluation.every = e->every;
    config->evaluation.prompts = e->n_prompts > 0 ? (const char *const *)e->prompts : NULL;
    config->evaluation.prompt_count = e->n_prompts < 100000 ? (int)e->n_prompts : 100000; /* refused by the engine */
    config->evaluation.seeds = e->seeds;
    config->evaluation.lpips = e->lpips;
    config->evaluation.sampling_steps = e->sampling_steps;
    for (size_t i = 0; i < e->n_prompts; i++)
        if (!is_text(e->prompts[i], "spec.evaluation.prompts", err))
            return false;
    return absolute(e->lpips, "spec.evaluation.lpips", err);
}

/* *index of a name; "" is the first. */
static bool choose(const char *name, const char *const *names, int count, const char *field, int *index,
                   struct draft_error *err)
{
    for (*index = 0; *index < count; ++*index)
        if (strcmp(name, names[*index]) == 0 || !name[0])
            return true;
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "there is no %s \"%.60s\"", strrchr(field, '.') + 1,
                            name);
}

static bool translate_choices(const Draftd__V1__JobSpec *spec, struct draft_job_config *config, struct draft_error *err)
{
    static const char *const train[] = {"lora", "full"}, *const precision[] = {"auto", "fp32", "bf16"},
                             *const memory[] = {"auto", "fast", "low"}; /* by their enums */
    int trained, precise, given;
    if (!choose(spec->train, train, 2, "spec.train", &trained, err) ||
        !choose(spec->precision, precision, 3, "spec.precision", &precise, err) ||
        !choose(spec->memory, memory, 3, "spec.memory", &given, err))
        return false;
    config->train = (enum draft_train)trained;
    config->precision = (enum draft_precision)precise;
    config->memory = (enum draft_memory)given;
    return true;
}

static bool check_rest(const Draftd__V1__JobSpec *spec, struct draft_error *err)
{
    if (spec->checkpoint_every < 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.checkpoint_every",
                                "checkpoint_every is %d; it must be 0 (the default) or more", spec->checkpoint_every);
    return absolute(spec->model, "spec.model", err) &&
           absolute(spec->lora ? spec->lora->continue_from : "", "spec.lora.continue_from", err);
}

bool draftd_spec_to_config(const Draftd__V1__JobSpec *spec, char *const *prompts, int prompt_count,
                           struct draft_job_config *config, struct draft_error *err)
{
    *config = (struct draft_job_config){
        .model = spec->model,
        .prompts = (const char *const *)prompts,
        .prompt_count = prompt_count,
        .kl_coeff = spec->kl_coeff_opt_case == DRAFTD__V1__JOB_SPEC__KL_COEFF_OPT_KL_COEFF ? spec->kl_coeff : 1,
        .seed = spec->seed_opt_case == DRAFTD__V1__JOB_SPEC__SEED_OPT_SEED ? spec->seed : 0,
        .recompute = spec->recompute,
        .ema_decay = spec->ema_decay,
        .device = spec->device,
        .threads = spec->threads,
    };
    if (spec->n_rewards > DRAFT_MAX_TERMS)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards",
                                "%zu rewards are named; a job can have at most %d", spec->n_rewards, DRAFT_MAX_TERMS);
    for (size_t i = 0; i < spec->n_rewards; i++)
        if (!translate_reward(spec->rewards[i], (int)i, &config->reward[i], err))
            return false;
    config->reward_count = (int)spec->n_rewards;
    if (spec->n_base_loras > DRAFT_MAX_BASE_LORAS)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.base_loras",
                                "%zu base LoRAs are named; a job can have at most %d", spec->n_base_loras,
                                DRAFT_MAX_BASE_LORAS);
    for (size_t i = 0; i < spec->n_base_loras; i++) {
        const Draftd__V1__LoraFile *file = spec->base_loras[i];
        bool weighted = file->weight_opt_case == DRAFTD__V1__LORA_FILE__WEIGHT_OPT_WEIGHT;
        config->base_lora[i].path = file->path;
        config->base_lora[i].weight = weighted ? file->weight : 1;
        if (!absolute(file->path, "spec.base_loras", err))
            return false;
    }
    config->base_lora_count = (int)spec->n_base_loras;
    if (spec->lora) {
        config->continue_from = spec->lora->continue_from;
        config->lora_rank = spec->lora->rank;
        config->lora_alpha = spec->lora->alpha;
    }
    if (spec->length) {
        config->steps = spec->length->steps;
        config->epochs = spec->length->epochs;
        config->micro_batch = spec->length->micro_batch;
        config->global_batch = spec->length->global_batch;
    }
    return check_rest(spec, err) && translate_choices(spec, config, err) &&
           translate_sampling(spec->sampling, config, err) && translate_optimizer(spec->optimizer, config, err) &&
           translate_evaluation(spec->evaluation, config, err);
}

int64_t draftd_spec_checkpoint_every(const Draftd__V1__JobSpec *spec)
{
    return spec->checkpoint_every > 0 ? spec->checkpoint_every : DRAFTD_DEFAULT_CHECKPOINT_EVERY;
}

void draftd_spec_reward_text(const Draftd__V1__JobSpec *spec, char *out, size_t size)
{
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < spec->n_rewards && used < size; i++) {
        const Draftd__V1__Reward *r = spec->rewards[i];
        bool weighted = r->weight_opt_case == DRAFTD__V1__REWARD__WEIGHT_OPT_WEIGHT && r->weight != 1;
        char weight[32] = "";
        if (weighted)
            snprintf(weight, sizeof weight, "%g*", r->weight);
        const char *last = strrchr(r->path, '/'); /* a metadata string names the model, not somebody's disk */
        const char *about = r->path[0] ? (last ? last + 1 : r->path) : r->options;
        int n = snprintf(out + used, size - used, "%s%s%s%s%s", i > 0 ? " + " : "", weight, r->kind,
                         about[0] ? ":" : "", about);
        used += n > 0 ? (size_t)n : 0;
    }
}
