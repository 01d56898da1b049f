/* Inside the engine: what engine.c and inspect.c share. Tests may look. */
#ifndef DRAFT_STATE_H
#define DRAFT_STATE_H

#include "backend/open.h"
#include "base/checksum.h"
#include "engine.h"
#include "models/lpips.h"
#include "train/adamw.h"
#include "train/ema.h"
#include "train/batches.h"
#include "train/draft_plus.h"
#include "train/pipeline.h"
#include "train/progress.h"
#include "train/scoring.h"

struct draft_engine {
    struct draft_job_config config; /* resolved */
    struct draft_watch watch;
    struct draft_progress progress;

    struct draft_backend *backend;
    struct draft_arena *weights;    /* the engine's life: weights, adapter, gradients, moments */
    struct draft_arena *base;       /* of pipeline.base, while there is one */
    struct draft_arena *step;       /* a step's: activations, where the backend computes */
    struct draft_arena *gradients;  /* and their gradients */
    struct draft_arena *parameters; /* NULL on the CPU; else what is trained, and its gradients and moments */
    struct draft_graph graph;
    struct draft_profile *profile; /* the graph's, once somebody has asked; else NULL */
    struct draft_adapter *adapter; /* NULL: the UNet's own weights are trained */
    struct draft_trained trained;
    struct draft_pipeline pipeline;
    struct draft_scoring scoring;
    struct draft_lpips *lpips; /* NULL: no diversity */
    struct draft_adamw *opt;   /* NULL: pictures only */
    struct draft_ema *ema;     /* NULL: no average */
    struct draft_batches *batches;
    struct draft_sampler_plan plan, evaluation_plan;

    int64_t latent_height, latent_width;
    const char **evaluation_prompts;
    int evaluation_prompt_count;
    uint64_t base_parameters;
    uint64_t memory_bytes; /* estimate of the peak, on a GPU of its memory; 0: none was made */
    uint64_t fast_bytes;   /* of memory "fast", where auto became low because of it; else 0 */
    size_t gpu_standing;   /* bytes of the GPU that the engine held before its first step */

    int64_t step_count; /* done, skipped ones included */
    int bad_steps;      /* skipped in a row, up to now */
    bool told_refusal;  /* draft_replay_refusal()'s, in a report */
    char fingerprint[DRAFT_CHECKSUM_SIZE];
    char config_digest[DRAFT_CHECKSUM_SIZE];
};

/* Bytes that this process may use at most: physical memory, or less where a control group says so. */
size_t draft_memory_limit(void);

/* What a process takes of a GPU beside what it allocates: the driver's context, the code of kernels, cuBLAS and cuDNN.
 * By what is known of an H100; never measured by this program. */
#define DRAFT_GPU_CONTEXT ((size_t)600 << 20)

/* Decides how memory is spent (config.memory, config.recompute, what the backend keeps) and estimates the job's peak of
 * anonymous memory into engine->memory_bytes, by a step on a dry backend: an op without a gradient or a shape that does
 * not fit is found now as well. Takes milliseconds, changes nothing else. */
bool draft_memory_plan(struct draft_engine *engine, struct draft_error *err);
/* Refuses a job that cannot fit into this machine's memory, or its GPU's, with what would. */
bool draft_memory_check(struct draft_engine *engine, struct draft_error *err);
/* The list of what is trained, its average and optimizer, and the frozen copy where the KL needs one. */
bool draft_engine_open_trained(struct draft_engine *engine, struct draft_error *err);
/* After a change of trained values: the backend's forms of them are of the old ones. */
void draft_engine_forget_packed(struct draft_engine *engine);
/* pipeline.base, opened if it is not there, with the job's base LoRAs; for jobs that train the UNet's own weights. */
bool draft_engine_open_base(struct draft_engine *engine, struct draft_error *err);
void draft_engine_close_base(struct draft_engine *engine);
/* The algorithm on this engine, as its config says. */
struct draft_plus draft_engine_algorithm(struct draft_engine *engine);

/* One hash over names and contents of every weight and configuration file of the model, the rewards and LPIPS. */
bool draft_fingerprint(const struct draft_job_config *config, struct draft_progress *progress,
                       char hex[DRAFT_CHECKSUM_SIZE], struct draft_error *err);

/* A hash of everything in the config that decides the numbers of training. */
bool draft_config_digest(const struct draft_engine *engine, char hex[DRAFT_CHECKSUM_SIZE], struct draft_error *err);

#endif
