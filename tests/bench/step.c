/*
 * Seconds per training step on a pipeline folder, by phase, and peak memory: one JSON line with the keys of
 * `draft_plus.py --bench`, so that tests/bench/run puts the two side by side.
 *
 *   bench_step PIPELINE REWARD [--steps N] [--batch N] [--micro N] [--T N] [--K N] [--lv N] [--cfg W] [--kl C] [--rank
 * R]
 *              [--threads N] [--isa NAME] [--recompute]
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "engine.h"

static const char *const prompts[] = {"a lion", "a cat on a blue background", "a small pineapple",
                                      "an owl and a penguin"};

enum { WARM = 3, MAX_STEPS = 10000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int fail(const struct draft_error *err)
{
    fprintf(stderr, "bench_step: %s\n", err->message);
    return 1;
}

static bool parse(int argc, char **argv, struct draft_job_config *config, int *steps)
{
    static const struct option options[] = {
        {"steps", required_argument, NULL, 's'},
        {"batch", required_argument, NULL, 'b'},
        {"micro", required_argument, NULL, 'm'},
        {"T", required_argument, NULL, 'T'},
        {"K", required_argument, NULL, 'K'},
        {"lv", required_argument, NULL, 'l'},
        {"cfg", required_argument, NULL, 'c'},
        {"kl", required_argument, NULL, 'k'},
        {"rank", required_argument, NULL, 'r'},
        {"threads", required_argument, NULL, 't'},
        {"isa", required_argument, NULL, 'i'},
        {"recompute", no_argument, NULL, 'R'},
        {NULL, 0, NULL, 0},
    };
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 's':
            *steps = atoi(optarg);
            break;
        case 'b':
            config->global_batch = atoi(optarg);
            break;
        case 'm':
            config->micro_batch = atoi(optarg);
            break;
        case 'T':
            config->sampling_steps = atoi(optarg);
            break;
        case 'K':
            config->truncation_steps = atoi(optarg);
            break;
        case 'l':
            config->lv_copies = atoi(optarg);
            break;
        case 'c':
            config->guidance = atof(optarg);
            break;
        case 'k':
            config->kl_coeff = atof(optarg);
            break;
        case 'r':
            config->lora_rank = atoi(optarg);
            break;
        case 't':
            config->threads = atoi(optarg);
            break;
        case 'i':
            config->isa = optarg;
            break;
        case 'R':
            config->recompute = true;
            break;
        default:
            return false;
        }
    }
    if (config->micro_batch == 0)
        config->micro_batch = config->global_batch;
    return argc - optind == 2 && *steps > 0 && *steps <= MAX_STEPS;
}

int main(int argc, char **argv)
{
    int steps = 20;
    struct draft_job_config config = {.prompts = prompts,
                                      .prompt_count = 4,
                                      .kl_coeff = 0.25,
                                      .sampling_steps = 10,
                                      .truncation_steps = 1,
                                      .guidance = 7.5,
                                      .lora_rank = 4,
                                      .learning_rate = 1e-3,
                                      .global_batch = 8,
                                      .reward_count = 1};
    if (!parse(argc, argv, &config, &steps)) {
        fprintf(stderr, "usage: bench_step PIPELINE REWARD [--steps N] [--batch N] ... (see the head of its source)\n");
        return 2;
    }
    struct draft_error err = {0};
    config.model = argv[optind];
    snprintf(config.reward[0].kind, sizeof config.reward[0].kind, "clip");
    snprintf(config.reward[0].path, sizeof config.reward[0].path, "%s", argv[optind + 1]);
    config.reward[0].weight = 1;
    config.steps = steps + WARM;
    config.evaluation.every = -1;

    struct draft_watch watch = {0};
    if (!draft_job_config_resolve(&config, &err))
        return fail(&err);
    struct draft_engine *engine = draft_engine_open(&config, &watch, &err);
    if (!engine)
        return fail(&err);

    static double seconds[MAX_STEPS];
    struct draft_report total = {0};
    for (int i = 0; i < steps + WARM; i++) {
        struct draft_report report = {0};
        double start = now();
        if (!draft_engine_step(engine, &report, &err))
            return fail(&err);
        if (i < WARM)
            continue;
        seconds[i - WARM] = now() - start;
        for (int j = 0; j < report.count; j++) {
            total.metric[j].value += report.metric[j].value / steps;
            memcpy(total.metric[j].name, report.metric[j].name, sizeof total.metric[j].name);
        }
        total.count = report.count;
    }
    draft_engine_close(engine);
    qsort(seconds, (size_t)steps, sizeof *seconds, ascending);

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"seconds_per_step\": %.6f, \"samples_per_s\": %.4f, \"peak_mib\": %.1f, \"seconds_by_phase\": {",
           seconds[steps / 2], config.global_batch / seconds[steps / 2], (double)usage.ru_maxrss / 1024);
    const char *comma = "";
    for (int j = 0; j < total.count; j++)
        if (!strncmp(total.metric[j].name, "seconds/", 8)) {
            printf("%s\"%s\": %.6f", comma, total.metric[j].name + 8, total.metric[j].value);
            comma = ", ";
        }
    printf("}}\n");
    return 0;
}
