/*
 * The narrow door of libdraft: what the worker program needs and nothing else.
 *
 * An engine owns one base model, one adapter (or the frozen base beside a UNet that is trained itself), one optimizer
 * and one set of rewards. Everything that can fail returns false with a sentence. One engine belongs to one thread;
 * `watch` is called on that thread from inside long work.
 */
#ifndef DRAFT_ENGINE_H
#define DRAFT_ENGINE_H

#include <stdint.h>

#include "base/error.h"
#include "train/job_config.h"

struct draft_engine;

enum draft_phase {
    DRAFT_PHASE_LOADING = 1,
    DRAFT_PHASE_SAMPLING, /* sub-steps: denoising steps over all micro-batches */
    DRAFT_PHASE_BACKWARD,
    DRAFT_PHASE_OPTIMIZER,
    DRAFT_PHASE_EVALUATING,
    DRAFT_PHASE_PREVIEW,
    DRAFT_PHASE_SAVING,
};
const char *draft_phase_name(enum draft_phase phase);

/* Called at least once per denoising step: the heartbeat. Returns false to stop: the work in hand then fails with
 * DRAFT_CANCELLED and the engine stays usable, at the state before that step. */
struct draft_watch {
    bool (*progress)(void *context, enum draft_phase phase, int64_t done, int64_t total);
    void *context;
};

/* `config` is copied and resolved; the strings and lists it points to must outlive the engine. `watch` (may be NULL) is
 * copied. */
struct draft_engine *draft_engine_open(const struct draft_job_config *config, const struct draft_watch *watch,
                                       struct draft_error *err);
void draft_engine_close(struct draft_engine *engine);

/* Numbers of one training step or one evaluation, by name: "reward", "reward_std", "reward/<term>", "kl", "loss",
 * "grad_norm", "learning_rate", "seconds/sample" ..., "memory/step_arena_bytes", "memory/peak_bytes" (the process's
 * anonymous memory at its highest); evaluations: "eval/reward", "eval/kl", "eval/lpips". */
enum { DRAFT_MAX_METRICS = 48 };
struct draft_metric {
    char name[48];
    double value; /* may be NaN */
};
struct draft_report {
    int64_t step;   /* 1 after the first update; evaluations: steps done so far */
    double seconds; /* wall time of the step or evaluation */
    int count;
    struct draft_metric metric[DRAFT_MAX_METRICS];
    bool skipped; /* a non-finite loss or gradient: the update was left out */
    /* For who watches the job, mostly "": which number was not finite; once, why a GPU's step is not launched whole. */
    char note[256];
};

/* Over all weight and configuration files the engine was opened with: XXH3-128, hex. */
const char *draft_engine_fingerprint(const struct draft_engine *engine);
/* The evaluation's prompts: the config's, or the dataset's first 8 different ones. */
int draft_engine_evaluation_prompts(const struct draft_engine *engine, const char *const **prompts);
/* As opened: every default filled in, height and width in pixels. */
const struct draft_job_config *draft_engine_config(const struct draft_engine *engine);

int64_t draft_engine_step_count(const struct draft_engine *engine); /* steps done, skipped ones included */
int64_t draft_engine_total_steps(const struct draft_engine *engine);
/* One update of DRaFT+. Fails for good with DRAFT_NON_FINITE after config.max_bad_steps skipped steps in a row. */
bool draft_engine_step(struct draft_engine *engine, struct draft_report *report, struct draft_error *err);
bool draft_engine_evaluation_due(
    const struct draft_engine *engine); /* at step 0, every config.evaluation.every, and at the end */
/* Of the average where the job keeps one, else of the weights as they are. */
bool draft_engine_evaluate(struct draft_engine *engine, struct draft_report *report, struct draft_error *err);

enum draft_aig { DRAFT_AIG_DRAFT, DRAFT_AIG_BASE, DRAFT_AIG_LINEAR, DRAFT_AIG_POWER, DRAFT_AIG_STEP };
struct draft_sample_request {
    const char *prompt, *negative; /* negative NULL: the job's unconditional prompt */
    const char *sampler;           /* NULL or "": the job's */
    uint64_t seed;                 /* torch.manual_seed's */
    int steps;                     /* 0: the job's */
    double guidance;               /* < 0: the job's */
    double lora_scale;             /* 1: tuned, 0: base; others need a LoRA */
    bool ema;                      /* with the average of the trained weights */
    enum draft_aig aig;
    double aig_power;
    int height, width; /* pixels; 0: the job's */
};
struct draft_picture {
    int height, width;
    float *rgb;          /* [h, w, 3] in [0, 1]; malloc'd, the caller frees */
    double reward;       /* of this picture, all terms */
    const char *sampler; /* as other programs write it: "DPM++ 2M Karras" */
};
/* How many times such a picture calls the network, that is, what progress counts: its steps, for most samplers. */
bool draft_engine_sample_calls(const struct draft_engine *engine, const struct draft_sample_request *request,
                               int *calls, struct draft_error *err);
/* Never touches the training's random numbers or the trained weights. */
bool draft_engine_sample(struct draft_engine *engine, const struct draft_sample_request *request,
                         struct draft_picture *picture, struct draft_error *err);

/* Checkpoints: a safetensors file (trained weights, optimizer moments, average, step, config digest, checksum), written
 * atomically. */
struct draft_saved {
    uint64_t bytes;
    char checksum[40]; /* XXH3-128, hex, of the file */
};
bool draft_engine_save(struct draft_engine *engine, const char *path, struct draft_saved *saved,
                       struct draft_error *err);
/* Restores trained weights, optimizer, average and step; refuses another config, a damaged file, other shapes. */
bool draft_engine_restore(struct draft_engine *engine, const char *path, struct draft_error *err);

/* After a failure for want of a GPU's memory: adds to its sentence what would have fitted. Other errors stay as they
 * are. */
void draft_engine_say_what_fits(struct draft_engine *engine, struct draft_error *err);

/* Opens and checks everything the config names, without training; fills what a submit wants to know. A job that this
 * machine's memory cannot hold is refused with DRAFT_OUT_OF_MEMORY and what would fit. */
struct draft_inspection {
    char fingerprint[40]; /* over all weight and config files: XXH3-128, hex */
    int64_t total_steps;
    uint64_t trained_parameters, base_parameters;
    uint64_t memory_bytes;     /* estimate of the peak; 0: the job is for a GPU ... */
    uint64_t gpu_memory_bytes; /* ... and takes so much of its memory; 0: it is for the CPU */
    int height, width;         /* resolved picture size, pixels */
    int truncated_prompts;     /* prompts longer than the tokenizer's limit */
    char warnings[1024];       /* sentences, one a line */
};
bool draft_inspect(const struct draft_job_config *config, const struct draft_watch *watch,
                   struct draft_inspection *inspection, struct draft_error *err);
/* The fingerprint alone, which opens no model: for a job that was inspected before. */
bool draft_inspect_files(const struct draft_job_config *config, const struct draft_watch *watch, char fingerprint[40],
                         struct draft_error *err);

enum draft_export_format { DRAFT_EXPORT_KOHYA, DRAFT_EXPORT_DIFFUSERS };
struct draft_export_options {
    enum draft_export_format format;
    bool f32;                 /* default F16 */
    bool ema;                 /* the average in place of the trained weights */
    const char *job, *reward; /* for the metadata */
    double kl_coeff;
};
/* A checkpoint file -> a LoRA file. Needs no base model. Refuses non-finite weights, and a checkpoint of a UNet that
 * was trained itself. */
bool draft_export_lora(const char *checkpoint, const char *path, const struct draft_export_options *options,
                       struct draft_error *err);

#endif
