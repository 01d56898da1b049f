/*
 * Plans: which of cuDNN's engines runs a graph on a device, in how much workspace. Made at the first use of a shape,
 * kept in a table, and on disk for the next process (cudnn_cache.h): heuristics and compiling cost from a millisecond
 * to a second, reading back one. A step runs once for real before it is captured, so no plan is made during a capture.
 *
 * Engines whose results may differ from run to run are never taken. A graph that no engine runs is a plan all the same,
 * one that is not `supported`: the caller has another way.
 *
 * Thread: one at a time.
 */
#ifndef DRAFT_BACKEND_CUDA_CUDNN_PLAN_H
#define DRAFT_BACKEND_CUDA_CUDNN_PLAN_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#include "backend/cuda/cudnn_graph.h"

struct draft_cudnn; /* the library, the device, and the plans made for it */

struct draft_cudnn_options {
    /* A GPU in cuDNN's own JSON: plans are made for it, without any device, and cannot be executed. NULL: the current
     * device, and work goes into `stream`. */
    const char *described;
    cudaStream_t stream;
    const char *cache; /* folder of plans; NULL: none is kept on disk */
};
/* Whether the cuDNN that was loaded is of a version, and for a CUDA, that this program can use; the sentence has the
 * remedy. Touches no device. */
bool draft_cudnn_usable(struct draft_error *err);

/* NULL: it is not usable, or does not start. */
struct draft_cudnn *draft_cudnn_create(const struct draft_cudnn_options *options, struct draft_error *err);
void draft_cudnn_destroy(struct draft_cudnn *cudnn); /* NULL is fine */

enum { DRAFT_CUDNN_NUMBERS = 20 };

struct draft_cudnn_request {
    const char *what;                    /* for messages: "a convolution" */
    int64_t number[DRAFT_CUDNN_NUMBERS]; /* everything that the graph follows from; equal numbers, equal graphs */
    /* Makes the graph from the numbers; tells kinds of graphs apart. */
    void (*describe)(struct draft_cudnn_graph *graph, const int64_t *number);
    bool compiled;         /* engines compiled at run time may be taken too */
    size_t most_workspace; /* bytes */
};

struct draft_cudnn_plan {
    bool supported;
    bool compiled;    /* at run time; false when the plan was read from disk */
    size_t workspace; /* bytes, 256-byte aligned, contents undefined */
    int64_t engine;   /* cuDNN's number of it; -1 when the plan was read from disk */
    char reason[256]; /* why it is not supported */
};
/* Borrowed, valid until destroy. NULL: err is set. */
const struct draft_cudnn_plan *draft_cudnn_plan(struct draft_cudnn *cudnn, const struct draft_cudnn_request *request,
                                                struct draft_error *err);

/* Puts a supported plan's work into the stream; capturable. memory[i] belongs to the graph's tensor id[i], which is
 * read or written (the host's address for a number by value). */
bool draft_cudnn_execute(struct draft_cudnn *cudnn, const struct draft_cudnn_plan *plan, int count, const int64_t *id,
                         const void *const *memory, void *workspace, struct draft_error *err);

#endif
