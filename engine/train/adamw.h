/*
 * AdamW (Loshchilov & Hutter 2019) on the trained parameters, as torch.optim.AdamW computes it: decoupled decay,
 * bias correction, epsilon added after the square root. Also the global gradient norm and its clipping.
 *
 * Ownership: gradients and moments live in the arena given; they are the parameters' grad buffers too. Thread: one
 * caller.
 */
#ifndef DRAFT_TRAIN_ADAMW_H
#define DRAFT_TRAIN_ADAMW_H

#include "autograd/graph.h"
#include "backend/shapes.h"
#include "base/error.h"
#include "train/trained.h"

struct draft_adamw {
    int count;
    struct draft_tensor **param;   /* the list's */
    float **m, **v;                /* first and second moments, shapes as param's */
    int64_t updates;               /* Adam's t: steps that were not skipped */
    struct draft_backend *backend; /* NULL: on the host */
    struct draft_backend *threads; /* the host's; NULL: the caller's alone. The same numbers for any number of them */
    int64_t numbers;               /* else: of all, each one's padding included; they begin at those of param[0] */
    double max_norm;               /* to clip to with the next step */
    struct draft_error error;      /* of the device; asked after a step */
};

struct draft_adamw *draft_adamw_create(const struct draft_trained *trained, struct draft_arena *arena,
                                       struct draft_error *err);

/* Forgets all gradients: the next backward pass overwrites them. */
void draft_adamw_zero_grad(struct draft_adamw *opt);
/* sqrt of the sum of squares of all gradients; not finite when any of them is not. */
double draft_adamw_grad_norm(struct draft_adamw *opt);
/* torch's clip_grad_norm_: gradients *= min(1, max_norm / (norm + 1e-6)). */
void draft_adamw_clip(struct draft_adamw *opt, double norm, double max_norm);

struct draft_adamw_options {
    double learning_rate, beta1, beta2, epsilon, weight_decay;
};
/* What the backend keeps of the old values is the caller's to have forgotten (draft_backend_forget). */
void draft_adamw_step(struct draft_adamw *opt, const struct draft_adamw_options *options);

/* Norm, clip and step in one, left out when the norm or a number of the guard is not finite; on a device put to work
 * (and replayed: autograd/replay.h) without waiting. False: the graph has failed. */
bool draft_adamw_update(struct draft_adamw *opt, struct draft_graph *g, const struct draft_adamw_options *options,
                        double max_norm, const struct draft_guard *guard);
/* When it is known what became of it: an update that was left out is not counted. */
void draft_adamw_settle(struct draft_adamw *opt, bool done);

/* NeMo's warm-up, then constant: lr * min(1, (step + 1) / (warmup + 1)), step from 0. */
double draft_warmup(double learning_rate, int warmup_steps, int64_t step);

#endif
