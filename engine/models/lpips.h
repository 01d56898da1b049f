/*
 * LPIPS v0.1 on AlexNet (Zhang et al. 2018): alexnet.safetensors (torchvision's names) and lin.safetensors in one
 * folder. Features once per image, distances for all pairs.
 */
#ifndef DRAFT_MODELS_LPIPS_H
#define DRAFT_MODELS_LPIPS_H

#include "autograd/graph.h"

struct draft_lpips;

struct draft_lpips *draft_lpips_open(const char *folder, struct draft_arena *arena, struct draft_error *err);
/* The linear layers from another file (tests). */
bool draft_lpips_load_linear(struct draft_lpips *lpips, const char *path, struct draft_error *err);
/* images [n, h, w, 3] in [-1, 1]; distance[n * n], symmetric, zero diagonal. No gradient. Uses g's arena and gives it
 * back. */
bool draft_lpips_pairs(struct draft_graph *g, struct draft_lpips *lpips, struct draft_tensor *images, double *distance);
/* mean over the n(n-1)/2 pairs */
double draft_lpips_mean_pairwise(const double *distance, int n);

#endif
