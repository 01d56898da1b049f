/*
 * Seconds per training step on a pipeline folder, by phase, and peak memory: one JSON line with the keys of
 * `draft_plus.py --bench`, so that tests/bench/run puts the two side by side.
 *
 *   bench_step PIPELINE REWARD [--steps N] [--warm N] [--batch N] [--micro N] [--T N] [--K N] [--lv N] [--cfg W]
 *              [--kl C] [--rank R] [--size PIXELS] [--precision fp32|bf16] [--memory fast|low]
 *              [--threads N] [--isa NAME] [--recompute] [--device NAME] [--preview N] [--profile N]
 *
 * --profile N: with every op of one more step timed, and the N that took longest told (engine/profiling.h).
 * --preview N: draws N pictures afterwards, as a preview would. On a GPU its memory is told too, as seen after the
 * steps: arenas never shrink. REWARD: a CLIPModel folder, or a reward as a job names it ("jpeg"). --steps 0: only
 * opens, and says how long it took.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "backend/open.h"
#include "profiling.h"
#include "program.h"
#include "state.h"

static const char *const prompts[] = {"a lion", "a cat on a blue background", "a small pineapple",
                                      "an owl and a penguin"};

enum { MAX_STEPS = 10000 };

struct length {
    int warm, steps; /* steps before the clock runs, and timed ones */
    int preview;     /* pictures drawn afterwards */
    int profile;     /* ops told */
};

static int fail(const struct draft_error *err)
{
    fprintf(stderr, "bench_step: %s\n", err->message);
    return 1;
}

static bool parse(int argc, char **argv, struct draft_job_config *config, struct length *length)
{
    const char *precision = NULL, *memory = "auto";
    int size = 0;
    const struct bench_option options[] = {{"steps", .number = &length->steps},
                                           {"warm", .number = &length->warm},
                                           {"preview", .number = &length->preview},
                                           {"profile", .number = &length->profile},
                                           {"batch", .number = &config->global_batch},
                                           {"micro", .number = &config->micro_batch},
                                           {"T", .number = &config->sampling_steps},
                                           {"K", .number = &config->truncation_steps},
                                           {"lv", .number = &config->lv_copies},
                                           {"cfg", .real = &config->guidance},
                                           {"kl", .real = &config->kl_coeff},
                                           {"rank", .number = &config->lora_rank},
                                           {"size", .number = &size},
                                           {"precision", .text = &precision},
                                           {"memory", .text = &memory},
                                           {"threads", .number = &config->threads},
                                           {"isa", .text = &config->isa},
                                           {"recompute", .flag = &config->recompute},
                                           {"device", .text = &config->device},
                                           {NULL}};
    bool bf16;
    if (!bench_read_options(argc, argv, options) || (precision && !bench_read_precision(precision, &bf16)))
        return false;
    if (precision)
        config->precision = bf16 ? DRAFT_PRECISION_BF16 : DRAFT_PRECISION_FP32;
    config->memory = strcmp(memory, "low") == 0    ? DRAFT_MEMORY_LOW
                     : strcmp(memory, "fast") == 0 ? DRAFT_MEMORY_FAST
                                                   : DRAFT_MEMORY_AUTO;
    config->height = config->width = size;
    if (config->micro_batch == 0)
        config->micro_batch = config->global_batch;
    return argc - optind == 2 && length->preview >= 0 && length->profile >= 0 && length->warm >= 0 &&
           length->steps >= 0 && length->warm + length->steps <= MAX_STEPS;
}

/* A folder is a CLIP model's. */
static bool read_reward(const char *text, struct draft_reward_spec *reward, struct draft_error *err)
{
    char full[600];
    bool folder = strchr(text, '/') != NULL && strchr(text, ':') == NULL;
    snprintf(full, sizeof full, "%s%s", folder ? "clip:" : "", text);
    return draft_reward_spec_parse(full, reward, err);
}

/* Runs the steps; seconds[] of the timed ones, and the means of what they report. */
static bool run(struct draft_engine *engine, const struct length *length, double *seconds, struct draft_report *mean,
                struct draft_error *err)
{
    for (int i = -length->warm; i < length->steps; i++) {
        struct draft_report report = {0};
        double start = bench_seconds();
        if (!draft_engine_step(engine, &report, err))
            return false;
        if (i < 0)
            continue;
        seconds[i] = bench_seconds() - start;
        for (int j = 0; j < report.count; j++) {
            mean->metric[j].value += report.metric[j].value / length->steps;
            memcpy(mean->metric[j].name, report.metric[j].name, sizeof mean->metric[j].name);
        }
        mean->count = report.count;
    }
    return true;
}

/* What a GPU's programs hold of it, ours alone there: contexts and libraries included. 0: values live on the host. */
static bool device_bytes(struct draft_engine *engine, size_t *held, struct draft_error *err)
{
    size_t unused = 0, total = 0;
    bool ok = draft_backend_on_host(engine->backend) || draft_device_memory(engine->backend, &unused, &total, err);
    *held = total - unused;
    return ok;
}

static bool draw(struct draft_engine *engine, int pictures, double *seconds, struct draft_error *err)
{
    double start = bench_seconds();
    for (int i = 0; i < pictures; i++) {
        struct draft_sample_request request = {
            .prompt = prompts[0], .seed = (uint64_t)i, .guidance = -1, .lora_scale = 1, .aig = DRAFT_AIG_DRAFT};
        struct draft_picture picture;
        if (!draft_engine_sample(engine, &request, &picture, err))
            return false;
        free(picture.rgb);
    }
    *seconds = bench_seconds() - start;
    return true;
}

struct measured {
    double open_seconds, preview_seconds;
    size_t device_bytes;
    bool low;
    struct draft_report mean;
    json_t *profile; /* NULL: none */
};

static double mean_of(const struct draft_report *mean, const char *name)
{
    for (int i = 0; i < mean->count; i++)
        if (strcmp(mean->metric[i].name, name) == 0)
            return mean->metric[i].value;
    return 0;
}

static void print(const double *seconds, int steps, const struct draft_job_config *config, const struct measured *m)
{
    static double sorted[MAX_STEPS];
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"open_seconds\": %.3f, \"memory\": \"%s\", \"peak_mib\": %.1f", m->open_seconds, m->low ? "low" : "fast",
           (double)usage.ru_maxrss / 1024);
    if (m->device_bytes > 0)
        printf(", \"device_peak_gb\": %.3f", (double)m->device_bytes / 1e9);
    if (m->preview_seconds > 0)
        printf(", \"preview_seconds\": %.3f", m->preview_seconds);
    if (steps > 0) {
        int quiet = config->sampling_steps - config->truncation_steps; /* steps without gradient */
        double sampling = mean_of(&m->mean, "seconds/sample");
        memcpy(sorted, seconds, (size_t)steps * sizeof *seconds);
        double median = bench_median(sorted, steps);
        if (quiet > 0 && sampling > 0)
            printf(", \"guided_steps_per_s\": %.3f", quiet * config->global_batch / sampling);
        printf(", \"seconds_per_step\": %.6f, \"samples_per_s\": %.4f, \"seconds_by_phase\": {", median,
               config->global_batch / median);
        const char *comma = "";
        for (int j = 0; j < m->mean.count; j++)
            if (!strncmp(m->mean.metric[j].name, "seconds/", 8)) {
                printf("%s\"%s\": %.6f", comma, m->mean.metric[j].name + 8, m->mean.metric[j].value);
                comma = ", ";
            }
        printf("}, \"runs\": [");
        for (int i = 0; i < steps; i++)
            printf("%s%.6f", i ? ", " : "", seconds[i]);
        printf("]");
    }
    if (m->profile) {
        printf(", \"profile\": ");
        json_dumpf(m->profile, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    static double seconds[MAX_STEPS];
    struct length length = {.warm = 3, .steps = 20};
    struct draft_job_config config = {.prompts = prompts,
                                      .prompt_count = sizeof prompts / sizeof *prompts,
                                      .kl_coeff = 0.25,
                                      .sampling_steps = 10,
                                      .truncation_steps = 1,
                                      .guidance = 7.5,
                                      .lora_rank = 4,
                                      .learning_rate = 1e-3,
                                      .global_batch = 8,
                                      .reward_count = 1};
    struct draft_error err = {0};
    if (!parse(argc, argv, &config, &length)) {
        fprintf(stderr, "usage: bench_step PIPELINE REWARD [--steps N] [--batch N] ... (see the head of its source)\n");
        return 2;
    }
    config.model = argv[optind];
    if (!read_reward(argv[optind + 1], &config.reward[0], &err))
        return fail(&err);
    config.steps = length.warm + length.steps > 0 ? length.warm + length.steps : 1;
    config.evaluation.every = -1;

    struct draft_watch watch = {0};
    struct measured m = {0};
    double start = bench_seconds();
    if (!draft_job_config_resolve(&config, &err))
        return fail(&err);
    struct draft_engine *engine = draft_engine_open(&config, &watch, &err);
    m.open_seconds = bench_seconds() - start;
    if (!engine || (length.steps > 0 && !run(engine, &length, seconds, &m.mean, &err)) ||
        !draw(engine, length.preview, &m.preview_seconds, &err) || !device_bytes(engine, &m.device_bytes, &err) ||
        (length.profile > 0 && !(m.profile = draft_engine_profile(engine, 1, length.profile, &err))))
        return fail(&err);
    m.low = draft_engine_config(engine)->memory == DRAFT_MEMORY_LOW;
    draft_engine_close(engine);
    print(seconds, length.steps, &config, &m);
    json_decref(m.profile);
    return 0;
}
