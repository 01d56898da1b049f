/*
 * The tables of ops/resize_bicubic, formulas there: one axis' matrix by its sparse rows, on the host, for every
 * backend. Memory: the graph's notes. False: it ran out, and the graph has failed.
 */
#ifndef DRAFT_OPS_BICUBIC_TAPS_H
#define DRAFT_OPS_BICUBIC_TAPS_H

#include "autograd/graph.h"

/* Destination i reads `count[i]` sources from `first[i]` on. */
struct draft_taps {
    int64_t out, width; /* destinations; most sources of one */
    int32_t *first, *count;
    float *weight; /* [out, width] */
};

/* How `out` destinations read `in` sources. */
bool draft_bicubic_taps(struct draft_graph *g, int64_t in, int64_t out, struct draft_taps *t);
/* The transpose: how the `in` sources are read. */
bool draft_bicubic_taps_back(struct draft_graph *g, int64_t in, int64_t out, struct draft_taps *t);

#endif
