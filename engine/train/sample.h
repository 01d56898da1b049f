/*
 * Previews: one picture from a user's seed, as diffusers' StableDiffusionPipeline draws it, with annealed importance
 * guidance (Jena et al. 2024, arXiv 2409.06493) and a LoRA scale. Never touches training's state.
 */
#ifndef DRAFT_TRAIN_SAMPLE_H
#define DRAFT_TRAIN_SAMPLE_H

#include "engine.h"
#include "train/denoise.h"
#include "train/scoring.h"

/* w_i, the tuned network's share at step i = 0 .. count-1: base 0, draft 1, linear i/T, power (i/T)^p,
 * step 0 while i/T < p, then 1. */
double draft_aig_weight(enum draft_aig aig, double p, int i, int count);

/* `request` with every default filled in: steps, guidance, negative, height and width (pixels) are the real ones;
 * sampler NULL is DDIM. picture->rgb is malloc'd. Empties the step arena before and after. */
bool draft_sample_picture(struct draft_graph *g, struct draft_pipeline *pipeline, struct draft_scoring *scoring,
                          const struct draft_sample_request *request, struct draft_progress *progress,
                          struct draft_picture *picture, struct draft_error *err);

#endif
