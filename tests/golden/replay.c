/*
 * A run recorded by draft_plus.py --double, replayed with our trainer from its noise and initial LoRA: loss, reward, KL
 * and gradient norm of every step, values on the way and gradients of the first and last step, and the latents of the
 * final LoRA under the AIG weightings. Or one of full_training.py: every weight trained; at the end also the changes of
 * weights and of their averages.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "train/adamw.h"
#include "train/draft_plus.h"
#include "train/ema.h"
#include "train/sample.h"

enum { MAX_STEPS = 1000, MAX_BATCH = 256, MAX_COPIES = 16 };

/* What is asked: 4 digits, 2e-4 for each gradient of step 0, 5e-4 for those of the last step together, 1e-4 for AIG. */
static const double FIRST_GRADIENTS = 2e-4, LAST_GRADIENTS = 5e-4, AIG_LATENTS = 1e-4;
/* Values on the way of step 0. Guided sampling widens fp32's rounding, the more the more steps a run has: 1.7e-5
 * after 10. */
static const double FIRST_VALUES = 5e-4;
/* AdamW turns a gradient of nearly nothing into a whole step of either sign: so do fp32's roundings of it. */
static const double CHANGES = 3e-2;
/* Where the reference's KL is 0 because both networks are the same: trained weights run through other kernels. */
static const double SAME_NETWORKS = 1e-9;

struct replay {
    struct golden *t;
    const struct draft_safetensors *file;
    struct draft_adapter *adapter; /* NULL: every weight is trained */
    struct draft_pipeline pipeline;
    struct draft_scoring scoring;
    struct draft_trained trained;
    struct draft_adamw *opt;
    struct draft_ema *ema, *first; /* of a full run: the average, and the values as they were */
    struct draft_plus dp;
    struct draft_sampler_plan plan;
    const char *prompts[MAX_BATCH];
    char *prompt_text;
    int batch;
    bool first_step; /* its values on the way are compared */
    double lr, clip, decay;
    json_t *log;
};

static double setting(const struct replay *r, const char *key, double fallback)
{
    const char *text = draft_safetensors_metadata(r->file, key);
    return text != NULL && strcmp(text, "None") != 0 ? strtod(text, NULL) : fallback;
}

static void see(void *context, const char *name, const struct draft_tensor *value)
{
    struct replay *r = context;
    struct golden *t = r->t;
    char key[96];
    int64_t n;
    snprintf(key, sizeof key, "step0/%s", name);
    if (!r->first_step || draft_safetensors_find(r->file, key) == NULL)
        return;
    float *ref = golden_numbers(t, r->file, key, &n);
    struct draft_mark mark = draft_graph_mark(&t->g);
    const float *ours = draft_read(&t->g, value);
    int64_t count = draft_tensor_count(value); /* the first micro-batch's: the first of the file's rows */
    if (ref != NULL && ours != NULL && (n == count || (count < n && r->dp.micro_batch < r->batch))) {
        golden_row(t, GOLDEN_FORWARD, golden_relative(ours, ref, count), FIRST_VALUES, "%s", key);
    } else if (ref != NULL) {
        golden_fail(t, "%s has %lld numbers, ours %lld", key, (long long)n, (long long)count);
    }
    draft_graph_release(&t->g, mark);
    free(ref);
}

static bool split_prompts(struct replay *r)
{
    const char *text = draft_safetensors_metadata(r->file, "prompts");
    r->prompt_text = text != NULL ? strdup(text) : NULL;
    int given = 0;
    for (char *p = r->prompt_text; p != NULL && given < MAX_BATCH;) {
        r->prompts[given++] = p;
        p = strchr(p, '|');
        if (p != NULL)
            *p++ = '\0';
    }
    for (int i = given; given > 0 && i < r->batch; i++)
        r->prompts[i] = r->prompts[i % given];
    return given > 0;
}

static bool list_weights(struct replay *r, const char *pipeline)
{
    struct golden *t = r->t;
    return draft_pipeline_open_base(&r->pipeline, pipeline, t->weights, &t->error) &&
           draft_trained_unet(&r->trained, r->pipeline.unet, t->weights, &t->error) &&
           draft_unet_train_weights(r->pipeline.unet, true, &t->error);
}

static bool list_averages(struct replay *r)
{
    struct golden *t = r->t;
    return (r->ema = draft_ema_create(&r->trained, setting(r, "ema", 0), t->weights, &t->error)) != NULL &&
           (r->first = draft_ema_create(&r->trained, 0, t->weights, &t->error)) != NULL;
}

static bool open_run(struct replay *r)
{
    struct golden *t = r->t;
    const char *pipeline = t->options->pipeline != NULL ? t->options->pipeline : DEMO "/emoji-sd";
    const char *reward = t->options->reward != NULL ? t->options->reward : DEMO "/emoji-clip";
    int rank = (int)setting(r, "rank", 4);
    bool full = draft_safetensors_metadata(r->file, "train") != NULL;
    if (!full && (r->adapter = draft_adapter_create(t->weights, rank, (float)rank, 0, &t->error)) == NULL)
        return false;
    if (!draft_pipeline_open(&r->pipeline, pipeline, t->weights, r->adapter, &t->error) ||
        !(full ? list_weights(r, pipeline) : draft_trained_adapter(&r->trained, r->adapter, t->weights, &t->error)))
        return false;
    struct draft_reward_spec spec = {.kind = "clip", .weight = 1};
    snprintf(spec.path, sizeof spec.path, "%s", reward);
    if (!draft_scoring_open(&r->scoring, &spec, 1, t->weights, &t->error))
        return false;
    if (!draft_trained_move(&r->trained, t->backend, t->parameters, &t->error) || (full && !list_averages(r)))
        return false;
    r->opt = draft_adamw_create(&r->trained, t->weights, &t->error);
    r->batch = (int)setting(r, "batch", 4);
    r->lr = setting(r, "lr", 1e-3);
    r->clip = setting(r, "clip", 10);
    r->decay = setting(r, "decay", 0);
    int T = (int)setting(r, "T", 10);
    r->dp = (struct draft_plus){
        .graph = &t->g,
        .pipeline = &r->pipeline,
        .scoring = &r->scoring,
        .plan = &r->plan,
        .truncation_steps = (int)setting(r, "K", 1),
        .lv_copies = (int)setting(r, "lv", 0),
        .guidance = setting(r, "cfg", 7.5),
        .kl_coeff = setting(r, "kl", 0.25),
        .negative_prompt = "",
        .height = (int64_t)setting(r, "size", (double)r->pipeline.unet_info.sample_height),
        .width = (int64_t)setting(r, "size", (double)r->pipeline.unet_info.sample_width),
        .micro_batch = t->options->micro_batch > 0 ? t->options->micro_batch : r->batch,
        .recompute = t->options->recompute,
    };
    if (r->batch < 1 || r->batch > MAX_BATCH || T < 1 || T > MAX_STEPS || r->dp.lv_copies < 0 ||
        r->dp.lv_copies > MAX_COPIES || !split_prompts(r))
        return draft_fail(&t->error, DRAFT_INVALID_ARGUMENT, "settings that this program does not replay");
    return r->opt != NULL &&
           draft_sampler_plan_make(&r->plan, &draft_sampler_ddim, &r->pipeline.scheduler, T, &t->error);
}

static void scalar(struct replay *r, int step, const char *name, double ours)
{
    double ref = json_number_value(json_object_get(json_array_get(r->log, (size_t)step), name));
    double bound =
        ref == 0 ? (r->ema != NULL ? SAME_NETWORKS : 0) : 1e-4 + 1e-7 / fabs(ref); /* |a - b| <= 1e-4 |b| + 1e-7 */
    golden_row(r->t, GOLDEN_FORWARD, ref == 0 ? fabs(ours) : fabs(ours - ref) / fabs(ref), bound, "step%d/%s  %.7g",
               step, name, ours);
}

/* Per tensor at step 0, all together at the last. Of an adapter's gradients those are in the file that are not 0. */
static void compare_gradients(struct replay *r, int step, bool each)
{
    struct golden *t = r->t;
    double difference = 0, size = 0;
    for (int i = 0; i < r->opt->count; i++) {
        const struct draft_tensor *p = r->opt->param[i];
        char key[320];
        int64_t n = draft_tensor_count(p), given = n;
        snprintf(key, sizeof key, "step%d/grad/%s", step, p->name);
        bool there = draft_safetensors_find(r->file, key) != NULL;
        if (r->ema != NULL && !there)
            continue; /* some of very many */
        float *ref = there ? golden_numbers(t, r->file, key, &given) : calloc((size_t)n, sizeof *ref);
        if (ref == NULL || given != n) {
            golden_fail(t, "%s: not as large as ours", key);
            free(ref);
            continue;
        }
        struct draft_mark mark = draft_graph_mark(&t->g);
        const float *grad = golden_gradient(t, p);
        if (grad == NULL)
            golden_fail(t, "%s: ours was not computed", key);
        else if (each)
            golden_row(t, GOLDEN_GRADIENT, golden_relative(grad, ref, n), FIRST_GRADIENTS, "%s", key);
        for (int64_t k = 0; grad != NULL && k < n; k++) {
            difference += ((double)grad[k] - ref[k]) * ((double)grad[k] - ref[k]);
            size += (double)ref[k] * ref[k];
        }
        draft_graph_release(&t->g, mark);
        free(ref);
    }
    if (!each)
        golden_row(t, GOLDEN_GRADIENT, sqrt(difference / size), LAST_GRADIENTS, "step%d/grad, all together", step);
}

static bool run_step(struct replay *r, int step, int last)
{
    struct golden *t = r->t;
    char key[64];
    float *noise, *renoise[MAX_COPIES] = {NULL};
    snprintf(key, sizeof key, "step%d/noise", step);
    noise = golden_plain(t, r->file, key, NULL);
    bool ok = noise != NULL;
    for (int i = 0; i < r->dp.lv_copies; i++) {
        snprintf(key, sizeof key, "step%d/lv%d/noise", step, i);
        renoise[i] = golden_plain(t, r->file, key, NULL);
        ok = ok && renoise[i] != NULL;
    }
    r->first_step = step == 0;
    const struct draft_observer observer = {see, r};
    r->dp.observer = &observer;
    struct draft_plus_batch batch = {
        .n = r->batch, .prompts = r->prompts, .noise = noise, .renoise = (const float *const *)renoise};
    struct draft_plus_numbers numbers;
    draft_adamw_zero_grad(r->opt);
    ok = ok && draft_plus_step(&r->dp, &batch, &numbers, &t->error);
    if (ok) {
        double norm = draft_adamw_grad_norm(r->opt);
        scalar(r, step, "loss", numbers.loss);
        scalar(r, step, "reward", numbers.reward);
        scalar(r, step, "kl", numbers.kl);
        scalar(r, step, "grad_norm", norm);
        if (step == 0 || step == last)
            compare_gradients(r, step, step == 0);
        draft_adamw_clip(r->opt, norm, r->clip);
        draft_adamw_step(r->opt, &(struct draft_adamw_options){r->lr, 0.9, 0.999, 1e-8, r->decay});
        for (int i = 0; i < r->trained.count; i++)
            draft_backend_forget(t->backend, r->trained.tensor[i]);
        if (r->ema != NULL)
            draft_ema_update(r->ema, &t->error);
    }
    free(noise);
    for (int i = 0; i < r->dp.lv_copies; i++)
        free(renoise[i]);
    return ok;
}

static bool aig(struct replay *r, const char *name, enum draft_aig kind, double power)
{
    struct golden *t = r->t;
    struct draft_graph *g = &t->g;
    char key[64];
    double tuned[MAX_STEPS];
    const struct draft_plus *dp = &r->dp;
    snprintf(key, sizeof key, "aig/%s", name);
    if (draft_safetensors_find(r->file, key) == NULL)
        return true;
    draft_graph_reset(g, NULL);
    for (int i = 0; i < dp->plan->count; i++)
        tuned[i] = draft_aig_weight(kind, power, i, dp->plan->count);
    struct draft_conditions conditions;
    struct draft_tensor *x = golden_input(t, r->file, "aig/noise");
    if (x == NULL ||
        !draft_conditions_make(g, &r->pipeline, r->prompts, r->batch, dp->negative_prompt, dp->guidance, &conditions))
        return false;
    const struct draft_sampling sampling = {.plan = dp->plan, .count = dp->plan->count, .tuned = tuned};
    x = draft_sample_latents(g, &r->pipeline, &conditions, &sampling, x, NULL);
    const float *ours = draft_read(g, x);
    float *ref = ours != NULL ? golden_numbers(t, r->file, key, NULL) : NULL;
    if (ref != NULL)
        golden_row(t, GOLDEN_FORWARD, golden_relative(ours, ref, draft_tensor_count(x)), AIG_LATENTS, "%s", key);
    free(ref);
    return ref != NULL;
}

static bool all_aig(struct replay *r)
{
    return golden_load_adapter(r->t, r->file, "final", r->adapter, true) && aig(r, "base", DRAFT_AIG_BASE, 0) &&
           aig(r, "draft", DRAFT_AIG_DRAFT, 0) && aig(r, "linear", DRAFT_AIG_LINEAR, 0) &&
           aig(r, "power_2", DRAFT_AIG_POWER, 2) && aig(r, "power_4", DRAFT_AIG_POWER, 4) &&
           aig(r, "step_0.6", DRAFT_AIG_STEP, 0.6);
}

/* What training made of the weights that the file tells of, and of their averages. */
static void compare_changes(struct replay *r, const char *prefix, float *const *now)
{
    for (int i = 0; i < r->trained.count; i++) {
        char key[320];
        int64_t n;
        snprintf(key, sizeof key, "%s/%s", prefix, r->trained.name[i]);
        if (draft_safetensors_find(r->file, key) == NULL)
            continue;
        float *ref = golden_numbers(r->t, r->file, key, &n);
        float *ours = malloc((size_t)draft_tensor_count(r->trained.tensor[i]) * sizeof *ours);
        if (ref != NULL && ours != NULL && n == draft_tensor_count(r->trained.tensor[i])) {
            for (int64_t k = 0; k < n; k++)
                ours[k] = (now != NULL ? now[i][k] : draft_f32(r->trained.tensor[i])[k]) - r->first->average[i][k];
            golden_row(r->t, GOLDEN_OTHER, golden_relative(ours, ref, n), CHANGES, "%s", key);
        } else {
            golden_fail(r->t, "%s: not as large as ours", key);
        }
        free(ours);
        free(ref);
    }
}

void golden_draft_plus(struct golden *t, const struct draft_safetensors *file)
{
    struct replay *r = calloc(1, sizeof *r);
    if (r == NULL)
        return;
    r->t = t;
    r->file = file;
    r->log = json_loads(draft_safetensors_metadata(file, "log"), 0, NULL);
    int steps = (int)json_array_size(r->log);
    if (open_run(r) && (r->adapter == NULL || golden_load_adapter(t, file, "init", r->adapter, true))) {
        bool ok = true;
        for (int step = 0; step < steps && ok; step++)
            ok = run_step(r, step, steps - 1);
        if (ok && r->adapter != NULL)
            all_aig(r);
        if (ok && r->ema != NULL) {
            compare_changes(r, "change", NULL);
            compare_changes(r, "average", r->ema->average);
        }
    }
    golden_ok(t);
    json_decref(r->log);
    free(r->prompt_text);
    draft_sampler_plan_free(&r->plan);
    draft_scoring_close(&r->scoring);
    draft_pipeline_close(&r->pipeline);
    free(r);
}
