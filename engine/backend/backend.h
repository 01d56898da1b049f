/*
 * A backend: where tensors' values live and how heavy work runs. The CPU backend is built in (backend/cpu); the CUDA
 * backend is a plugin, libdraft_cuda.so (plugin.h). Created once per engine; owns threads or streams, and the prepared
 * forms (packed, transformed, copied to the device) of frozen weights.
 *
 * Who may touch values: ops, in their backend's column (autograd/graph.h). Everybody else moves them by the functions
 * below, which are plain copies where values live in host memory. Tensors' structs are always host memory, so are
 * frozen weights or the files they come from (each backend makes its own forms of them) and I32 tensors (token ids).
 *
 * Errors: a backend's work may be asynchronous; a failure is then reported by the next call that waits.
 * Thread: one caller at a time per backend (the graph's thread).
 */
#ifndef DRAFT_BACKEND_BACKEND_H
#define DRAFT_BACKEND_BACKEND_H

#include "backend/shapes.h"
#include "base/arena.h"
#include "base/error.h"
#include "tensor/tensor.h"

struct draft_backend;
struct draft_op_column; /* autograd/graph.h */

struct draft_backend_options {
    int threads;     /* 0: one per available processor */
    const char *isa; /* NULL or "auto": the best of "x86-64", "x86-64-v3", "x86-64-v4" this machine has */
    /* Linear layers, direct convolutions and attention multiply bf16 numbers and add in fp32, where the processor can
     * ("x86-64-v4-bf16", which is never the best unasked); refused elsewhere. All else is fp32. */
    bool bf16;
    /* Nothing is computed, no weight is prepared and values mean nothing; but ops run, so that shapes are checked and
     * memory is allocated, or counted, as it would be: what a step needs is known in milliseconds. */
    bool dry;
};

/* One update by AdamW, its numbers rounded as train/adamw.c rounds them. */
struct draft_update {
    double max_norm;                  /* gradients are scaled down to it */
    float keep;                       /* 1 - learning rate * weight decay */
    float step;                       /* learning rate / (1 - beta1^t) */
    float root2;                      /* sqrt(1 - beta2^t) */
    float epsilon, beta2, new1, new2; /* new: 1 - beta */
};

/* Work on numbers begin .. end-1 of an array. */
typedef void (*draft_piece_work)(void *context, int64_t begin, int64_t end);

/* What each backend fills in; the functions below say what they mean. */
struct draft_backend_kind {
    const char *name;                         /* "cpu", "cuda" */
    const struct draft_op_column *const *ops; /* in the order of ops.def; NULL: the ops' own descriptors' functions */
    void (*destroy)(struct draft_backend *backend);
    /* NULL: values live in host memory, and the next nine, axpby apart, are not asked for either */
    bool (*region)(struct draft_backend *backend, size_t limit, struct draft_arena_region *out,
                   struct draft_error *err);
    void *(*alloc)(struct draft_backend *backend, size_t bytes, struct draft_error *err);
    void (*free)(struct draft_backend *backend, void *memory);
    bool (*upload)(struct draft_backend *backend, void *to, const void *from, size_t bytes, struct draft_error *err);
    bool (*download)(struct draft_backend *backend, void *to, const void *from, size_t bytes, struct draft_error *err);
    bool (*fill)(struct draft_backend *backend, float *at, int64_t n, float value, struct draft_error *err);
    bool (*axpby)(struct draft_backend *backend, enum draft_dtype type, int64_t n, float alpha, const void *a, void *y,
                  bool accumulate, struct draft_error *err);
    bool (*gradient_norm)(struct draft_backend *backend, int64_t n, const float *gradient, double *norm,
                          struct draft_error *err);
    bool (*approach)(struct draft_backend *backend, int64_t n, float rate, const float *target, float *x,
                     struct draft_error *err);
    bool (*exchange)(struct draft_backend *backend, int64_t n, float *a, float *b, struct draft_error *err);
    bool (*adamw_numbers)(struct draft_backend *backend, const struct draft_update *update, struct draft_error *err);
    bool (*adamw)(struct draft_backend *backend, int64_t n, const float *gradient, float *parameter, float *m, float *v,
                  const struct draft_guard *guard, struct draft_error *err);
    /* NULL where values do not live in host memory */
    void (*pieces)(struct draft_backend *backend, int64_t n, int64_t piece, draft_piece_work work, void *context);
    /* NULL: never; else whether a product of rows of k numbers takes an adapter of rank r in (draft_new_rows) */
    bool (*folds)(enum draft_dtype type, int64_t k, int64_t r);
    void (*forget)(struct draft_backend *backend, struct draft_tensor *weight);
    /* NULL: one by one */
    void (*forget_all)(struct draft_backend *backend, struct draft_tensor *const *weight, int count);
    size_t (*prepared_bytes)(const struct draft_backend *backend);
    void (*keep)(struct draft_backend *backend, size_t bytes); /* NULL: this backend plans by itself */
    bool (*lap)(struct draft_backend *backend, double *last, double *sum, struct draft_error *err);
    bool (*mark)(struct draft_backend *backend, int i, struct draft_error *err);
    bool (*between)(struct draft_backend *backend, int i, int j, double *seconds, struct draft_error *err);
    uint64_t (*launches)(const struct draft_backend *backend); /* NULL: this backend launches nothing */
    bool (*wait)(struct draft_backend *backend, struct draft_error *err);
    /* For autograd/replay.c alone. NULL: blocks are run. From record() to recorded() calls put no work into the queue
     * but note it; recorded() gives what was noted, NULL (and err) when that is no use or not wanted. */
    bool (*record)(struct draft_backend *backend, struct draft_error *err);
    void *(*recorded)(struct draft_backend *backend, bool wanted, struct draft_error *err);
    bool (*launch)(struct draft_backend *backend, void *recording, struct draft_error *err);
    void (*drop)(struct draft_backend *backend, void *recording);
};

/* What every backend's own struct begins with. */
struct draft_backend_head {
    const struct draft_backend_kind *kind;
    bool dry;
    bool eager;       /* nothing is recorded (autograd/replay.h) */
    bool settle;      /* each op waits for its own end, so that a failure is blamed on the one that failed */
    uint64_t changes; /* goes up when memory that a recorded launch may point to is given back */
};

static inline const struct draft_backend_kind *draft_backend_kind(const struct draft_backend *backend)
{
    return ((const struct draft_backend_head *)backend)->kind;
}

static inline bool draft_backend_is_dry(const struct draft_backend *backend)
{
    return ((const struct draft_backend_head *)backend)->dry;
}

static inline bool draft_backend_records(const struct draft_backend *backend)
{
    const struct draft_backend_head *head = (const struct draft_backend_head *)backend;
    return head->kind->record != NULL && !head->dry && !head->eager && !head->settle;
}

static inline uint64_t draft_backend_changes(const struct draft_backend *backend)
{
    return ((const struct draft_backend_head *)backend)->changes;
}

static inline bool draft_backend_folds(const struct draft_backend *backend, enum draft_dtype type, int64_t k, int64_t r)
{
    const struct draft_backend_kind *kind = draft_backend_kind(backend);
    return kind->folds != NULL && kind->folds(type, k, r);
}

/* After an op: waits where each op is waited for. */
static inline bool draft_backend_settled(struct draft_backend *backend, struct draft_error *err)
{
    const struct draft_backend_head *head = (const struct draft_backend_head *)backend;
    return !head->settle || head->kind->wait(backend, err);
}

static inline bool draft_backend_on_host(const struct draft_backend *backend)
{
    return draft_backend_kind(backend)->region == NULL;
}

struct draft_backend *draft_backend_create_cpu(const struct draft_backend_options *options, struct draft_error *err);
void draft_backend_destroy(struct draft_backend *backend); /* NULL is fine */

/* Of the CPU backend alone. */
const char *draft_backend_isa(const struct draft_backend *backend);
int draft_backend_threads(const struct draft_backend *backend);
/* Kernels' scratch, bytes: as large as the largest use so far. */
size_t draft_backend_scratch_bytes(const struct draft_backend *backend);

/* --- Memory where values live ---------------------------------------------------------------------------------------
 */

/* An arena of it: at most `limit` bytes, committed as they are used. Destroyed before the backend is. */
struct draft_arena *draft_backend_arena(struct draft_backend *backend, const char *name, size_t limit,
                                        struct draft_error *err);
/* One block, contents undefined; 64-byte aligned or better. NULL: out of memory. */
void *draft_backend_alloc(struct draft_backend *backend, size_t bytes, struct draft_error *err);
void draft_backend_free(struct draft_backend *backend, void *memory); /* NULL is fine */

/* upload does not wait, but has read `from` when it returns; download waits for all work before it. */
bool draft_backend_upload(struct draft_backend *backend, void *to, const void *from, size_t bytes,
                          struct draft_error *err);
bool draft_backend_download(struct draft_backend *backend, void *to, const void *from, size_t bytes,
                            struct draft_error *err);
bool draft_backend_fill(struct draft_backend *backend, float *at, int64_t n, float value, struct draft_error *err);

/* y = alpha a (+ y), n numbers of one type, F32 or (where activations may be that) BF16: how the tape seeds and hands
 * on gradients. */
bool draft_backend_axpby(struct draft_backend *backend, enum draft_dtype type, int64_t n, float alpha, const void *a,
                         void *y, bool accumulate, struct draft_error *err);

/* --- The optimizer, where values live on the host ------------------------------------------------------------------
 */

enum { DRAFT_PIECES = 64 };

/* Cuts n numbers into at most DRAFT_PIECES pieces of draft_piece(n) numbers, the last one shorter, whatever the number
 * of threads, and works on each once, on the backend's threads. `backend` NULL: on the caller's alone. */
void draft_backend_pieces(struct draft_backend *backend, int64_t n, draft_piece_work work, void *context);
int64_t draft_piece(int64_t n);

/* --- The optimizer, where values do not live on the host: n parameters in one buffer, their gradients in another ----
 */

/* The gradients' norm, summed in double; not finite when any number is not. Waits. */
bool draft_backend_gradient_norm(struct draft_backend *backend, int64_t n, const float *gradient, double *norm,
                                 struct draft_error *err);
/* x += rate (target - x), n numbers: a moving average. Rate 1 copies. */
bool draft_backend_approach(struct draft_backend *backend, int64_t n, float rate, const float *target, float *x,
                            struct draft_error *err);
/* Exchanges the n numbers of a and b. */
bool draft_backend_exchange(struct draft_backend *backend, int64_t n, float *a, float *b, struct draft_error *err);
/* An update in two calls: its numbers, sent ahead, and the work, which may be recorded: clips, then updates; leaves
 * everything as it is when the norm is not finite, or a number of the guard (NULL: none). Neither waits. */
bool draft_backend_adamw_numbers(struct draft_backend *backend, const struct draft_update *update,
                                 struct draft_error *err);
bool draft_backend_adamw(struct draft_backend *backend, int64_t n, const float *gradient, float *parameter, float *m,
                         float *v, const struct draft_guard *guard, struct draft_error *err);

/* --- Prepared weights ------------------------------------------------------------------------------------------------
 */

/* Frees the prepared form of a weight whose values changed, or makes it anew in its place. Frees all at destroy. */
void draft_backend_forget(struct draft_backend *backend, struct draft_tensor *weight);
/* After an update: all of them, at once where that is faster. */
void draft_backend_forget_all(struct draft_backend *backend, struct draft_tensor *const *weight, int count);
/* A form that every denoising step needs is kept (tensor's every_step); others are kept while all together take at most
 * `bytes`, and beyond that made anew at each use: the same numbers, slower. SIZE_MAX when created: all are kept. */
void draft_backend_keep(struct draft_backend *backend, size_t bytes);
size_t draft_backend_prepared_bytes(const struct draft_backend *backend);

/* --- Time, on the clock of whoever computes --------------------------------------------------------------------------
 */

/* Behind the work so far: *sum += now - *last (sum NULL: nothing); *last = now, in seconds. Both are where values live,
 * and are read like them: phases of a step are told apart without a wait, within a recording too. */
bool draft_backend_lap(struct draft_backend *backend, double *last, double *sum, struct draft_error *err);

/* For autograd/profile.h: */
enum { DRAFT_MARKS = 1024 };
/* Puts mark i (below DRAFT_MARKS) behind the work so far. A mark may be set again once it was read. */
bool draft_backend_mark(struct draft_backend *backend, int i, struct draft_error *err);
/* Seconds from mark i to mark j. Waits until j is passed. */
bool draft_backend_between(struct draft_backend *backend, int i, int j, double *seconds, struct draft_error *err);
/* Kernels launched so far, by this process. 0 on the CPU. */
uint64_t draft_backend_launches(const struct draft_backend *backend);

#endif
