/*
 * A training job as the engine sees it: resolved and checked for ranges by draft_job_config_resolve. The daemon and the
 * client see the same fields in proto/draftd/v1/jobs.proto (JobSpec); the worker translates.
 */
#ifndef DRAFT_TRAIN_JOB_CONFIG_H
#define DRAFT_TRAIN_JOB_CONFIG_H

#include <stdint.h>

#include "base/error.h"
#include "rewards/reward.h"

enum { DRAFT_MAX_BASE_LORAS = 8 };

enum draft_train { DRAFT_TRAIN_LORA, DRAFT_TRAIN_FULL };
/* How much memory is given for speed (memory.c). */
enum draft_memory { DRAFT_MEMORY_AUTO, DRAFT_MEMORY_FAST, DRAFT_MEMORY_LOW };
/* Auto: bf16 on a GPU, fp32 on the CPU. */
enum draft_precision { DRAFT_PRECISION_AUTO, DRAFT_PRECISION_FP32, DRAFT_PRECISION_BF16 };

struct draft_job_config {
    const char *model; /* a diffusers pipeline folder or a single-file checkpoint */
    struct {
        const char *path;
        double weight;
    } base_lora[DRAFT_MAX_BASE_LORAS]; /* summed into the base model's weights */
    int base_lora_count;
    const char *continue_from;  /* a LoRA file with the adapter's first values; NULL or "": a new adapter */
    const char *const *prompts; /* the dataset */
    int prompt_count;

    struct draft_reward_spec reward[DRAFT_MAX_TERMS];
    int reward_count;

    /* DRaFT+ */
    double kl_coeff;             /* 0: vanilla DRaFT, no frozen prediction */
    const char *sampler;         /* by name (sampler/samplers.def); NULL or "": "ddim" */
    int sampling_steps;          /* T; 0: 50 */
    int truncation_steps;        /* K; 0: 1; K = T is full DRaFT */
    int lv_copies;               /* DRaFT-LV's n; needs K = 1 */
    double guidance;             /* <= 1: no unconditional pass; < 0: 7.5 */
    const char *negative_prompt; /* unconditional prompt, "" */
    int height, width;           /* pixels; 0: the model's own */

    enum draft_train train; /* an adapter, or every weight of the UNet: then lora_* and continue_from are not given */
    int lora_rank;          /* 0: 32 */
    double lora_alpha;      /* 0: rank */
    double ema_decay;       /* of an average of the trained weights; 0: none */

    double learning_rate;         /* 0: 1e-4, or 1e-5 where every weight is trained */
    double beta1, beta2, epsilon; /* 0: 0.9, 0.999, 1e-8 */
    double weight_decay;
    int warmup_steps;     /* < 0: 10 */
    double max_grad_norm; /* 0: 10 */

    int micro_batch;  /* 0: 1 */
    int global_batch; /* 0: 4; a multiple of micro_batch */
    int64_t steps;    /* length in updates, or ... */
    double epochs;    /* ... in passes over the dataset; exactly one of the two is > 0 */
    bool recompute;
    enum draft_memory memory; /* low implies recompute; an open engine has resolved auto to one of the others */
    uint64_t seed;
    int max_bad_steps; /* 0: 3 non-finite steps in a row end the job */

    struct {
        int every;                  /* steps; 0: at start and end only; < 0: never */
        const char *const *prompts; /* NULL: the dataset's first 8 distinct prompts */
        int prompt_count;
        int seeds;          /* N of the diversity measure per prompt; 0: 8 */
        const char *lpips;  /* folder; NULL: no diversity */
        int sampling_steps; /* 0: as in training */
    } evaluation;

    /* Of products, and on a GPU of what networks keep; sums, trained weights and optimizer are fp32. */
    enum draft_precision precision;
    bool sample_only;    /* pictures alone: no gradients, no optimizer */
    size_t memory_limit; /* bytes the engine may count on; 0: what the machine, or its control group, has */
    /* Above 0: the job is for a GPU of so many bytes, which is not touched and need not be there; only for planning */
    size_t gpu_memory;
    const char *device; /* NULL: "auto"; names as in backend/open.h */
    int threads;        /* 0: all */
    const char *isa;    /* NULL: best */
};

/* Fills defaults in place and refuses absurd numbers, naming the JobSpec field at fault. */
bool draft_job_config_resolve(struct draft_job_config *config, struct draft_error *err);
/* Length in updates of a resolved job; a last part of an epoch counts as a whole update. */
int64_t draft_job_config_total_steps(const struct draft_job_config *config);

#endif
