#include "sampler/scheduler.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { MAX_TRAIN_TIMESTEPS = 1000000 };

/* --- Betas, in the float32 arithmetic of diffusers, so that its alphas come out to the last bit
 * ------------------------ */

/* torch.linspace in float32: from both ends to the middle. */
static void linspace(double start, double end, int n, float *out)
{
    float first = (float)start, last = (float)end, step = n > 1 ? (last - first) / (float)(n - 1) : 0.0f;
    for (int i = 0; i < n; i++)
        out[i] = i < n / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(n - 1 - i), last);
    if (n == 1)
        out[0] = first;
}

/* Nichol and Dhariwal 2021. */
static double cosine_alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

static void cosine_betas(int n, float *betas)
{
    for (int i = 0; i < n; i++) {
        double beta = 1 - cosine_alpha_bar((i + 1.0) / n) / cosine_alpha_bar((double)i / n);
        betas[i] = (float)(beta < 0.999 ? beta : 0.999);
    }
}

/* torch.cumprod accumulates float32 in double and rounds what it stores. */
static void cumulative(const float *betas, int n, double *alphas_cumprod)
{
    double product = 1;
    for (int i = 0; i < n; i++) {
        product *= (double)(1.0f - betas[i]);
        alphas_cumprod[i] = (double)(float)product;
    }
}

/* Lin et al. 2024, algorithm 1: shift and scale sqrt(alpha_bar) so that the last one is zero. `scratch` as long as
 * betas. */
static void rescale_to_zero_snr(float *betas, int n, double *scratch)
{
    cumulative(betas, n, scratch);
    float first = sqrtf((float)scratch[0]), last = sqrtf((float)scratch[n - 1]), scale = first / (first - last);
    float previous = 0;
    for (int i = 0; i < n; i++) {
        float root = (sqrtf((float)scratch[i]) - last) * scale, alpha_bar = root * root;
        betas[i] = 1.0f - (i == 0 ? alpha_bar : alpha_bar / previous);
        previous = alpha_bar;
    }
}

static bool trained_betas(struct draft_json *json, int n, float *betas, double *scratch, bool *given,
                          struct draft_error *err)
{
    int count;
    if (!draft_json_doubles(json, "trained_betas", scratch, n, &count, err))
        return false;
    *given = count > 0;
    if (*given && count != n)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "the scheduler's \"trained_betas\" holds %d numbers, expected num_train_timesteps (%d)",
                          count, n);
    for (int i = 0; i < count; i++) {
        if (!(scratch[i] >= 0 && scratch[i] < 1))
            return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                              "the scheduler's \"trained_betas\" holds %g, expected numbers from 0 to below 1",
                              scratch[i]);
        betas[i] = (float)scratch[i];
    }
    return true;
}

static bool read_betas(struct draft_scheduler *scheduler, struct draft_json *json, int n, float *betas, double *scratch,
                       struct draft_error *err)
{
    double start, end;
    const char *kind;
    bool given;
    if (!draft_json_double(json, "beta_start", 0.0001, &start, err) ||
        !draft_json_double(json, "beta_end", 0.02, &end, err) ||
        !draft_json_string(json, "beta_schedule", "linear", &kind, err) ||
        !draft_json_bool(json, "rescale_betas_zero_snr", false, &scheduler->zero_snr, err) ||
        !trained_betas(json, n, betas, scratch, &given, err))
        return false;
    if (!given && !(start > 0 && start < 1 && end > 0 && end < 1))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "the scheduler's beta_start and beta_end are %g and %g, expected numbers between 0 and 1",
                          start, end);
    if (given) {
        /* taken as they are */
    } else if (strcmp(kind, "linear") == 0) {
        linspace(start, end, n, betas);
    } else if (strcmp(kind, "scaled_linear") == 0) {
        linspace(sqrt(start), sqrt(end), n, betas);
        for (int i = 0; i < n; i++)
            betas[i] *= betas[i];
    } else if (strcmp(kind, "squaredcos_cap_v2") == 0) {
        cosine_betas(n, betas);
    } else {
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "the scheduler's \"beta_schedule\" is \"%.64s\", expected linear, scaled_linear or "
                          "squaredcos_cap_v2",
                          kind);
    }
    scheduler->cosine = strcmp(kind, "squaredcos_cap_v2") == 0;
    if (scheduler->zero_snr)
        rescale_to_zero_snr(betas, n, scratch);
    return true;
}

/* --- The file ------------------------------------------------------------------------------------------------------
 */

/* A scheduler's book-keeping, what no sampler here reads, and what a sampler's name says already ("dpmpp_2m_karras":
 * algorithm, order and sigmas). */
static const char *const other_keys[] = {
    "_class_name",
    "_diffusers_version",
    "algorithm_type",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "lower_order_final",
    "original_inference_steps",
    "predict_x0",
    "sample_max_value",
    "solver_order",
    "solver_p",
    "solver_type",
    "timestep_scaling",
    "use_beta_sigmas",
    "use_exponential_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
    NULL,
};

static bool choose(struct draft_json *json, const char *key, const char *const *names, int *choice,
                   struct draft_error *err)
{
    const char *value;
    if (!draft_json_string(json, key, names[0], &value, err))
        return false;
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(value, names[i]) == 0) {
            *choice = i;
            return true;
        }
    }
    return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the scheduler's \"%s\" is \"%.64s\", expected %s, %s or %s", key,
                      value, names[0], names[1], names[2]);
}

/* Settings of Euler's and DPM-Solver's sigmas beside Karras's. Only who takes sigmas is told of them. */
static bool read_sigmas(struct draft_scheduler *scheduler, struct draft_json *json, struct draft_error *err)
{
    static const struct {
        const char *key, *implemented;
    } choices[] = {{"final_sigmas_type", "zero"}, {"interpolation_type", "linear"}, {"timestep_type", "discrete"}};
    static const char *const limits[] = {"sigma_min", "sigma_max", "lambda_min_clipped"};
    char *out = scheduler->other_sigmas;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const char *value;
        if (!draft_json_string(json, choices[i].key, choices[i].implemented, &value, err))
            return false;
        if (strcmp(value, choices[i].implemented) != 0)
            snprintf(out, sizeof scheduler->other_sigmas, "\"%s\" is \"%.30s\", not \"%s\"", choices[i].key, value,
                     choices[i].implemented);
    }
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        double value;
        const char *text = "";
        struct draft_error is_number = {0};
        if (!draft_json_has(json, limits[i]))
            continue;
        if (draft_json_string(json, limits[i], "", &text, &is_number) && strcmp(text, "-Infinity") == 0)
            continue; /* no limit, as Python writes it */
        if (!draft_json_double(json, limits[i], 0, &value, err))
            return false;
        snprintf(out, sizeof scheduler->other_sigmas, "\"%s\" is %g, not null", limits[i], value);
    }
    return true;
}

static bool read_rest(struct draft_scheduler *scheduler, struct draft_json *json, struct draft_error *err)
{
    static const char *const spacings[] = {"leading", "trailing", "linspace", NULL};
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample", NULL};
    int64_t offset;
    bool alpha_one, skip_prk;
    int spacing, prediction;
    scheduler->spacing_given = draft_json_has(json, "timestep_spacing");
    scheduler->final_alpha_given = draft_json_has(json, "set_alpha_to_one");
    if (!draft_json_int(json, "steps_offset", 0, scheduler->train_timesteps, 0, &offset, err) ||
        !draft_json_bool(json, "set_alpha_to_one", true, &alpha_one, err) ||
        !draft_json_bool(json, "clip_sample", true, &scheduler->clip_sample, err) ||
        !draft_json_double(json, "clip_sample_range", 1, &scheduler->clip_sample_range, err) ||
        !choose(json, "timestep_spacing", spacings, &spacing, err) ||
        !choose(json, "prediction_type", predictions, &prediction, err) ||
        !draft_json_bool(json, "skip_prk_steps", true, &skip_prk, err) || !read_sigmas(scheduler, json, err) ||
        !draft_json_require(json, "thresholding", "false", err) ||
        !draft_json_require(json, "use_flow_sigmas", "false", err) ||
        !draft_json_require(json, "use_dynamic_shifting", "false", err) ||
        !draft_json_require(json, "flow_shift", "1.0", err) || !draft_json_require(json, "shift_terminal", "null", err))
        return false;
    if (!(scheduler->clip_sample_range > 0))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "the scheduler's \"clip_sample_range\" is %g, expected more than 0",
                          scheduler->clip_sample_range);
    scheduler->runge_kutta = !skip_prk;
    scheduler->steps_offset = (int)offset;
    scheduler->spacing = (enum draft_spacing)spacing;
    scheduler->prediction = (enum draft_prediction)prediction;
    scheduler->final_alpha_cumprod = alpha_one ? 1.0 : scheduler->alphas_cumprod[0];
    static const char *const unused[] = {"time_shift_type", NULL}; /* of use_dynamic_shifting */
    draft_json_ignore(json, other_keys);
    draft_json_ignore(json, unused);
    return draft_json_finish(json, err);
}

static bool read_scheduler(struct draft_scheduler *scheduler, struct draft_json *json, struct draft_error *err)
{
    int64_t n;
    *scheduler = (struct draft_scheduler){0};
    if (!draft_json_int(json, "num_train_timesteps", 1, MAX_TRAIN_TIMESTEPS, 1000, &n, err))
        return false;
    scheduler->train_timesteps = (int)n;
    scheduler->alphas_cumprod = calloc((size_t)n, sizeof *scheduler->alphas_cumprod);
    float *betas = calloc((size_t)n, sizeof *betas);
    bool ok = scheduler->alphas_cumprod != NULL && betas != NULL;
    if (!ok)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading a scheduler of %d steps", (int)n);
    ok = ok && read_betas(scheduler, json, (int)n, betas, scheduler->alphas_cumprod, err);
    if (ok)
        cumulative(betas, (int)n, scheduler->alphas_cumprod);
    free(betas);
    ok = ok && read_rest(scheduler, json, err);
    if (!ok)
        draft_scheduler_close(scheduler);
    return ok;
}

bool draft_scheduler_open(struct draft_scheduler *scheduler, const char *path, struct draft_error *err)
{
    struct draft_json *json = draft_json_open(path, err);
    if (json == NULL)
        return false;
    struct draft_error why = {0};
    bool ok = read_scheduler(scheduler, json, &why);
    draft_json_close(json);
    if (ok)
        return true;
    if (strstr(why.message, path) == NULL)
        draft_error_prefix(&why, "%s: ", path);
    return draft_fail(err, why.code, "%s", why.message);
}

bool draft_scheduler_parse(struct draft_scheduler *scheduler, const char *text, struct draft_error *err)
{
    struct draft_json *json = draft_json_parse(text, strlen(text), "scheduler_config.json", err);
    bool ok = json != NULL && read_scheduler(scheduler, json, err);
    draft_json_close(json);
    return ok;
}

void draft_scheduler_close(struct draft_scheduler *scheduler)
{
    free(scheduler->alphas_cumprod);
    scheduler->alphas_cumprod = NULL;
}
