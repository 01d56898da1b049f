/*
 * Inside the engine: what it holds, and what can be said from that alone (state.c). Tests may look.
 *
 * Who knows whom, from the bottom; nobody knows a file above or beside it:
 *
 *   state, fingerprint    the struct; files and settings as hashes
 *   training, memory      what is trained, on disk too; what the job will need
 *   step, pictures        a training step or an evaluation; a picture
 *   engine                opens all of it, and closes it
 *   inspect, profiling    opens one to look at it; looks at one that is open
 */
#ifndef DRAFT_STATE_H
#define DRAFT_STATE_H

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
    struct draft_arena *step;       /* a step's: activations and their gradients, where the backend computes */
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

/* The algorithm on this engine, as its config says. */
struct draft_plus draft_engine_algorithm(struct draft_engine *engine);
/* Refuses pictures of a size (pixels) that the model's levels do not divide; `prefix` is that of the request's fields:
 * "spec.sampling". */
bool draft_engine_check_size(const struct draft_engine *engine, int height, int width, const char *prefix,
                             struct draft_error *err);

#endif
