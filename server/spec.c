#include "spec.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "dataset.h"
#include "message.h"

enum {
    MAX_REWARDS = 8,
    MAX_BASE_LORAS = 8,
    MAX_EVALUATION_PROMPTS = 256,
    MAX_PATH = 4000,
    MAX_REWARD_PATH = 511,
    MAX_OPTIONS = 127
};

static bool check_text(const char *text, size_t limit, const char *field, struct draft_error *err)
{
    size_t length = strlen(text);
    if (length > limit)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%zu bytes long, at most %zu are allowed", length,
                                limit);
    if (!draft_utf8_valid(text, length, NULL))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "the text is not UTF-8");
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "the text has the control character 0x%02x",
                                    (unsigned char)text[i]);
    return true;
}

/* needed: what an empty path lacks, or NULL. */
static bool check_path(const char *path, size_t limit, const char *needed, const char *field, struct draft_error *err)
{
    if (*path == '\0')
        return !needed || draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%s", needed);
    if (!check_text(path, limit, field, err))
        return false;
    return *path == '/' ||
           draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field,
                            "the path %s is not absolute; the daemon has another working folder than you", path);
}

struct int_range {
    size_t offset;
    const char *field;
    int32_t min, max;
};
struct double_range {
    size_t offset;
    const char *field;
    double min, max;
};

static bool check_ints(const void *message, const struct int_range *range, size_t count, struct draft_error *err)
{
    for (size_t i = 0; message && i < count; i++) {
        int32_t value;
        memcpy(&value, (const char *)message + range[i].offset, sizeof value);
        if (value < range[i].min || value > range[i].max)
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, range[i].field,
                                    "%d is out of range, %d to %d are allowed", value, range[i].min, range[i].max);
    }
    return true;
}

static bool check_double(double value, const char *field, double min, double max, struct draft_error *err)
{
    return (value >= min && value <= max) || /* false for NaN */
           draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "%g is out of range, %g to %g are allowed", value, min,
                            max);
}

static bool check_doubles(const void *message, const struct double_range *range, size_t count, struct draft_error *err)
{
    for (size_t i = 0; message && i < count; i++) {
        double value;
        memcpy(&value, (const char *)message + range[i].offset, sizeof value);
        if (!check_double(value, range[i].field, range[i].min, range[i].max, err))
            return false;
    }
    return true;
}

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static bool check_numbers(const Draftd__V1__JobSpec *spec, struct draft_error *err)
{
    static const struct int_range top[] = {
        {offsetof(Draftd__V1__JobSpec, checkpoint_every), "spec.checkpoint_every", 0, 1000000},
        {offsetof(Draftd__V1__JobSpec, checkpoint_keep), "spec.checkpoint_keep", 0, 1000},
        {offsetof(Draftd__V1__JobSpec, threads), "spec.threads", 0, 1024},
        {offsetof(Draftd__V1__JobSpec, max_retries), "spec.max_retries", -1, 100},
    };
    static const struct int_range sampling[] = {
        {offsetof(Draftd__V1__Sampling, steps), "spec.sampling.steps", 0, 1000},
        {offsetof(Draftd__V1__Sampling, truncation_steps), "spec.sampling.truncation_steps", 0, 1000},
        {offsetof(Draftd__V1__Sampling, lv_copies), "spec.sampling.lv_copies", 0, 64},
        {offsetof(Draftd__V1__Sampling, height), "spec.sampling.height", 0, 4096},
        {offsetof(Draftd__V1__Sampling, width), "spec.sampling.width", 0, 4096},
    };
    static const struct int_range lora[] = {{offsetof(Draftd__V1__Lora, rank), "spec.lora.rank", 0, 1024}};
    static const struct double_range lora_doubles[] = {{offsetof(Draftd__V1__Lora, alpha), "spec.lora.alpha", 0, 1e6}};
    static const struct double_range optimizer[] = {
        {offsetof(Draftd__V1__Optimizer, learning_rate), "spec.optimizer.learning_rate", 0, 10},
        {offsetof(Draftd__V1__Optimizer, beta1), "spec.optimizer.beta1", 0, 0.999999},
        {offsetof(Draftd__V1__Optimizer, beta2), "spec.optimizer.beta2", 0, 0.9999999},
        {offsetof(Draftd__V1__Optimizer, epsilon), "spec.optimizer.epsilon", 0, 1},
        {offsetof(Draftd__V1__Optimizer, weight_decay), "spec.optimizer.weight_decay", 0, 100},
        {offsetof(Draftd__V1__Optimizer, max_grad_norm), "spec.optimizer.max_grad_norm", 0, 1e9},
    };
    static const struct int_range length[] = {
        {offsetof(Draftd__V1__Length, micro_batch), "spec.length.micro_batch", 0, 1024},
        {offsetof(Draftd__V1__Length, global_batch), "spec.length.global_batch", 0, 65536},
    };
    static const struct int_range evaluation[] = {
        {offsetof(Draftd__V1__Evaluation, every), "spec.evaluation.every", -1, 1000000},
        {offsetof(Draftd__V1__Evaluation, seeds), "spec.evaluation.seeds", 0, 256},
        {offsetof(Draftd__V1__Evaluation, sampling_steps), "spec.evaluation.sampling_steps", 0, 1000},
    };
    if (!check_ints(spec, top, COUNT(top), err) || !check_ints(spec->sampling, sampling, COUNT(sampling), err) ||
        !check_ints(spec->lora, lora, COUNT(lora), err) ||
        !check_doubles(spec->lora, lora_doubles, COUNT(lora_doubles), err) ||
        !check_doubles(spec->optimizer, optimizer, COUNT(optimizer), err) ||
        !check_ints(spec->length, length, COUNT(length), err) ||
        !check_ints(spec->evaluation, evaluation, COUNT(evaluation), err))
        return false;
    if (spec->kl_coeff_opt_case == DRAFTD__V1__JOB_SPEC__KL_COEFF_OPT_KL_COEFF &&
        !check_double(spec->kl_coeff, "spec.kl_coeff", 0, 1e6, err))
        return false;
    if (!(spec->ema_decay >= 0 && spec->ema_decay < 1)) /* NaN too */
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.ema_decay",
                                "%g is out of range; 0 (no average) or a number below 1, such as 0.999, is allowed",
                                spec->ema_decay);
    if (spec->sampling && spec->sampling->guidance_opt_case == DRAFTD__V1__SAMPLING__GUIDANCE_OPT_GUIDANCE &&
        !check_double(spec->sampling->guidance, "spec.sampling.guidance", 0, 100, err))
        return false;
    if (spec->optimizer &&
        spec->optimizer->warmup_steps_opt_case == DRAFTD__V1__OPTIMIZER__WARMUP_STEPS_OPT_WARMUP_STEPS &&
        (spec->optimizer->warmup_steps < 0 || spec->optimizer->warmup_steps > 10000000))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.optimizer.warmup_steps",
                                "%d is out of range, 0 to 10000000 are allowed", spec->optimizer->warmup_steps);
    return true;
}

static bool check_length(const Draftd__V1__Length *length, struct draft_error *err)
{
    int64_t steps = length ? length->steps : 0;
    double epochs = length ? length->epochs : 0;
    if (steps < 0 || steps > 1000000000)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.length.steps",
                                "%lld is out of range, 1 to 1000000000 are allowed", (long long)steps);
    if (!check_double(epochs, "spec.length.epochs", 0, 1e6, err))
        return false;
    if ((steps > 0) == (epochs > 0))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.length",
                                "set exactly one of steps and epochs: how long to train");
    int micro = length->micro_batch ? length->micro_batch : 1, global = length->global_batch ? length->global_batch : 4;
    if (global % micro)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.length.global_batch",
                                "%d is no multiple of the micro batch, %d", global, micro);
    return true;
}

/* Whether a name is one of `count`; if not, `list` says which there are, in `quote`s. */
static bool is_one_of(const char *name, const char *const *names, size_t count, const char *quote, char list[256])
{
    for (size_t i = 0, n = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
        const char *before = i == 0 ? "" : i + 1 < count ? ", " : " or ";
        n += (size_t)snprintf(list + n, 256 - n, "%s%s%s%s", before, quote, names[i], quote);
    }
    return false;
}

static bool check_reward_kind(const char *kind, const char *field, struct draft_error *err)
{
    static const char *const kinds[] = {
#define DRAFT_REWARD(name, help) #name,
#include "rewards/rewards.def"
#undef DRAFT_REWARD
    };
    char list[256];
    return is_one_of(kind, kinds, COUNT(kinds), "", list) ||
           draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "there is no reward \"%s\"; use %s", kind, list);
}

static bool check_rewards(const Draftd__V1__JobSpec *spec, struct draft_error *err)
{
    char field[96];
    if (spec->n_rewards == 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards", "at least one reward is needed");
    if (spec->n_rewards > MAX_REWARDS)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.rewards", "%zu rewards, at most %d can be summed",
                                spec->n_rewards, MAX_REWARDS);
    for (size_t i = 0; i < spec->n_rewards; i++) {
        const Draftd__V1__Reward *reward = spec->rewards[i];
        snprintf(field, sizeof field, "spec.rewards[%zu].kind", i);
        if (*reward->kind == '\0')
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "the kind of reward is missing");
        if (!check_text(reward->kind, 31, field, err) || !check_reward_kind(reward->kind, field, err))
            return false;
        snprintf(field, sizeof field, "spec.rewards[%zu].path", i);
        if (!check_path(reward->path, MAX_REWARD_PATH, NULL, field, err))
            return false;
        snprintf(field, sizeof field, "spec.rewards[%zu].options", i);
        if (!check_text(reward->options, MAX_OPTIONS, field, err))
            return false;
        snprintf(field, sizeof field, "spec.rewards[%zu].weight", i);
        if (reward->weight_opt_case == DRAFTD__V1__REWARD__WEIGHT_OPT_WEIGHT &&
            !check_double(reward->weight, field, -1e6, 1e6, err))
            return false;
    }
    return true;
}

static bool check_lora_files(const Draftd__V1__JobSpec *spec, struct draft_error *err)
{
    char field[96];
    if (spec->n_base_loras > MAX_BASE_LORAS)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.base_loras",
                                "%zu base LoRAs, at most %d can be summed", spec->n_base_loras, MAX_BASE_LORAS);
    for (size_t i = 0; i < spec->n_base_loras; i++) {
        const Draftd__V1__LoraFile *file = spec->base_loras[i];
        snprintf(field, sizeof field, "spec.base_loras[%zu].path", i);
        if (!check_path(file->path, MAX_PATH, "the path of the LoRA is missing", field, err))
            return false;
        snprintf(field, sizeof field, "spec.base_loras[%zu].weight", i);
        if (file->weight_opt_case == DRAFTD__V1__LORA_FILE__WEIGHT_OPT_WEIGHT &&
            !check_double(file->weight, field, -100, 100, err))
            return false;
    }
    return check_path(spec->lora ? spec->lora->continue_from : "", MAX_PATH, NULL, "spec.lora.continue_from", err);
}

static bool check_evaluation(const Draftd__V1__Evaluation *evaluation, struct draft_error *err)
{
    if (evaluation == NULL)
        return true;
    if (evaluation->n_prompts > MAX_EVALUATION_PROMPTS)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.evaluation.prompts",
                                "%zu prompts, at most %d are allowed", evaluation->n_prompts, MAX_EVALUATION_PROMPTS);
    for (size_t i = 0; i < evaluation->n_prompts; i++) {
        struct draft_error failure = {0};
        if (!draftd_prompt_check(evaluation->prompts[i], strlen(evaluation->prompts[i]), &failure)) {
            char field[96];
            snprintf(field, sizeof field, "spec.evaluation.prompts[%zu]", i);
            return draft_fail_field(err, failure.code, field, "%s", failure.message);
        }
    }
    return check_path(evaluation->lpips, MAX_PATH, NULL, "spec.evaluation.lpips", err);
}

bool draftd_sampler_check(const char *name, const char *field, struct draft_error *err)
{
    static const char *const samplers[] = {
#define DRAFT_SAMPLER(name) #name,
#include "sampler/samplers.def"
#undef DRAFT_SAMPLER
    };
    char shown[64], list[256];
    if (!*name || is_one_of(name, samplers, COUNT(samplers), "", list))
        return true;
    draftd_clean_text(shown, sizeof shown, name);
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "there is no sampler \"%s\"; use %s", shown, list);
}

/* "" is the first of the `count` names. */
static bool check_choice(const char *name, const char *const *names, size_t count, const char *field,
                         struct draft_error *err)
{
    char shown[64], list[256];
    if (!*name || is_one_of(name, names, count, "\"", list))
        return true;
    draftd_clean_text(shown, sizeof shown, name);
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "\"%s\" is not known here; use %s", shown, list);
}

/* Whether there is such a GPU, its worker says. */
static bool check_device(const char *device, struct draft_error *err)
{
    static const char *const names[] = {"auto", "cpu", "cuda", "cuda:0"};
    size_t digits = strncmp(device, "cuda:", 5) == 0 ? strspn(device + 5, "0123456789") : 0;
    if (digits >= 1 && digits <= 3 && !device[5 + digits])
        return true;
    return check_choice(device, names, COUNT(names), "spec.device", err);
}

static bool check_choices(const Draftd__V1__JobSpec *spec, struct draft_error *err)
{
    static const char *const memory[] = {"auto", "fast", "low"};
    static const char *const train[] = {"lora", "full"}, *const precision[] = {"auto", "fp32", "bf16"};
    return check_choice(spec->train, train, COUNT(train), "spec.train", err) &&
           check_choice(spec->memory, memory, COUNT(memory), "spec.memory", err) &&
           check_choice(spec->precision, precision, COUNT(precision), "spec.precision", err) &&
           check_device(spec->device, err);
}

size_t draftd_spec_checkpoints_kept(const Draftd__V1__JobSpec *spec)
{
    if (spec->checkpoint_keep > 0)
        return (size_t)spec->checkpoint_keep;
    return strcmp(spec->train, "full") == 0 ? 2 : 3;
}

double draftd_spec_checkpoint_bytes(const Draftd__V1__JobSpec *spec, uint64_t trained_parameters)
{
    return (double)trained_parameters * (spec->ema_decay > 0 ? 4 : 3) * sizeof(float);
}

bool draftd_spec_check(const Draftd__V1__JobSpec *spec, struct draft_error *err)
{
    if (spec == NULL)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec", "the specification of the job is missing");
    size_t size = protobuf_c_message_get_packed_size(&spec->base);
    if (size > DRAFTD_SPEC_BYTES)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec",
                                "the specification has %zu bytes, at most %d are allowed", size, DRAFTD_SPEC_BYTES);
    return check_text(spec->display_name, 63, "spec.display_name", err) && check_choices(spec, err) &&
           check_path(spec->model, MAX_PATH, "the model to tune is missing", "spec.model", err) &&
           check_path(spec->dataset, MAX_PATH, "the file of prompts is missing", "spec.dataset", err) &&
           check_rewards(spec, err) && check_lora_files(spec, err) && check_numbers(spec, err) &&
           check_text(spec->sampling ? spec->sampling->negative_prompt : "", DRAFTD_PROMPT_BYTES,
                      "spec.sampling.negative_prompt", err) &&
           (!spec->sampling || draftd_sampler_check(spec->sampling->sampler, "spec.sampling.sampler", err)) &&
           check_length(spec->length, err) && check_evaluation(spec->evaluation, err);
}
