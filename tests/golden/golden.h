/*
 * golden_check: our numbers beside PyTorch's. One file for each kind of fixture; they share a bench (backend, arenas, a
 * graph) and report rows: a name, a relative error, its bound.
 *
 * Fixtures are in torch's layouts, NCHW and [out, in, kh, kw]; the conversion to ours (channels last) happens here and
 * nowhere else.
 */
#ifndef DRAFT_GOLDEN_H
#define DRAFT_GOLDEN_H

#include "models/lora.h"
#include "ops/ops.h"
#include "tensor/safetensors.h"

struct golden_options {
    const char *with;   /* companion folder: a tokenizer's or an LPIPS one, or a demo folder that holds both */
    const char *isa;    /* NULL: the best this machine has */
    const char *device; /* NULL: the CPU */
    bool bf16;
    const char *pipeline, *reward; /* of recorded runs and pictures; NULL: the demo's */
    int threads;                   /* 0: all */
    int micro_batch;               /* of recorded runs; 0: the whole batch */
    bool recompute;                /* of recorded runs */
    bool full_size;                /* of single models: PyTorch's fp32 is the reference, and memory is short */
    bool verbose;
};

struct golden {
    const struct golden_options *options;
    struct draft_backend *backend;
    struct draft_arena *weights, *step, *parameters;
    struct draft_graph g;
    double forward_bound, gradient_bound;
    double worst_forward, worst_gradient;
    int rows, failures;
    struct draft_error error;
};

bool golden_open(struct golden *t, const struct golden_options *options, const char *target);
void golden_close(struct golden *t);

enum golden_group { GOLDEN_FORWARD, GOLDEN_GRADIENT, GOLDEN_OTHER };
/* Prints a row and counts it. NaN fails. A bound of 0 means exact. */
void golden_row(struct golden *t, enum golden_group group, double error, double bound, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
void golden_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Fails the check with a sentence. */
void golden_fail(struct golden *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The graph's or the call's own error as a failure. False when there is one. */
bool golden_ok(struct golden *t);

/* ||ours - ref|| / ||ref|| over n numbers; where the reference is exactly 0, 0 or infinity. */
double golden_relative(const float *ours, const float *ref, int64_t n);

/* A tensor of the file in our layout (rank 4: channels last), in the step arena; fails the check when it is absent. */
struct draft_tensor *golden_input(struct golden *t, const struct draft_safetensors *file, const char *name);
/* Its numbers in our layout; malloc'd. *count may be NULL. */
float *golden_numbers(struct golden *t, const struct draft_safetensors *file, const char *name, int64_t *count);
/* The same as the file has them. */
float *golden_plain(struct golden *t, const struct draft_safetensors *file, const char *name, int64_t *count);
/* The integers of an I64 entry; malloc'd. */
bool golden_integers(struct golden *t, const struct draft_safetensors *file, const char *name, int64_t **out,
                     int64_t *count);
/* Gives x these numbers, where its backend computes. */
bool golden_give(struct golden *t, struct draft_tensor *x, const float *numbers);
/* x's gradient on the host; NULL where none was written. Lasts until the graph's next reset. */
const float *golden_gradient(struct golden *t, const struct draft_tensor *of);
/* Rows: a result and a gradient beside the file's tensor `name`. */
void golden_compare(struct golden *t, const struct draft_safetensors *file, const char *name,
                    const struct draft_tensor *ours);
void golden_compare_gradient(struct golden *t, const struct draft_safetensors *file, const char *name,
                             const struct draft_tensor *of);
/* "<prefix>/<module>.lora.down.weight" and up of the file into every matrix of the adapter, which is where the backend
 * computes when it was `moved` (draft_trained_move), else on the host. A matrix that the file does not have is 0. */
bool golden_load_adapter(struct golden *t, const struct draft_safetensors *file, const char *prefix,
                         struct draft_adapter *adapter, bool moved);

/* Kinds. Each opens what it needs, reports rows and returns; failures are counted in t. */
void golden_unet(struct golden *t, const char *folder);
void golden_vae(struct golden *t, const char *folder);
void golden_clip(struct golden *t, const char *folder);
void golden_clip_text(struct golden *t, const char *folder);
void golden_resize(struct golden *t, const struct draft_safetensors *file);
void golden_jpeg_dct(struct golden *t, const struct draft_safetensors *file);
void golden_lpips(struct golden *t, const struct draft_safetensors *file);
void golden_samplers(struct golden *t, const struct draft_safetensors *file);
void golden_torch_randn(struct golden *t, const struct draft_safetensors *file);
void golden_tokenizer(struct golden *t, const char *path);
void golden_draft_plus(struct golden *t, const struct draft_safetensors *file);
void golden_pictures(struct golden *t, const struct draft_safetensors *file);

/* The companion folder that has `member`: options.with itself, a known place below it, or the demo's. */
const char *golden_companion(const struct golden *t, const char *member, const char *below, char *buffer, size_t size);

#endif
