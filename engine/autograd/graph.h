/*
 * The graph: what a forward pass runs on. Ops are called through typed wrappers (ops/ops.h): a wrapper checks shapes,
 * allocates the output in the step arena, runs, and records itself on the tape when an input needs a gradient and
 * recording is on. draft_graph_backward() walks the tape back.
 *
 * Errors are sticky: after the first failure every wrapper returns NULL at once and accepts NULL inputs, so a model
 * reads as one line per op and its caller checks draft_graph_ok() once.
 *
 * Gradient contract: a backward asks draft_grad() for the buffer of each input that needs one, and is told whether it
 * is the first writer (overwrite) or a later one (add). Frozen tensors never get a buffer. The gradient of an
 * activation lives until its producer's backward has run. A leaf (weight, parameter, input: a tensor no recorded op
 * made) keeps its gradient: in the buffer its owner put into ->grad, or else in one the graph provides and takes back
 * at draft_graph_reset(). A gradient has its tensor's dtype.
 *
 * Views (draft_reshape, draft_slice_batch, draft_detach) share the values of their source, never its gradient: their
 * backward hands the gradient on like that of any other op.
 *
 * Memory: the values of forward activations are bumped in the step arena, which is memory of the backend; tensors'
 * structs, the tape and ops' arguments are in a second arena, always on the host. Both are marked and released
 * together. draft_scope_* frees the temporaries of no-gradient work at once, and of recorded work those values that no
 * backward will read: their memory serves the activations to come, lowest first, so that addresses repeat all the same.
 * draft_recompute() keeps a block's output only and runs the block again in the backward pass. Gradients of activations
 * are in the step arena too, in holes first. After a backward pass it holds the activations only, or where that frees
 * them nothing that was recorded.
 *
 * Thread: one graph, one thread; kernels use the backend's pool inside.
 */
#ifndef DRAFT_AUTOGRAD_GRAPH_H
#define DRAFT_AUTOGRAD_GRAPH_H

#include "base/arena.h"
#include "tensor/tensor.h"

struct draft_backend; /* backend/backend.h */
struct draft_tape;
struct draft_profile; /* autograd/profile.h */
struct draft_replays; /* autograd/replay.h */

enum { DRAFT_MAX_INPUTS = 8, DRAFT_MAX_SAVED = 3 };

struct draft_graph {
    struct draft_backend *backend;
    struct draft_arena *step;  /* values of activations and gradients, where the backend computes; lent */
    struct draft_arena *notes; /* structs, tape, arguments: host memory; the graph's own */
    struct draft_tape *tape;
    /* The backward pass gives activations back as it passes them, so that gradients take their place; none may be read
     * after it. */
    bool frees_activations;
    /* What networks compute in: F32, or BF16 on a backend that has it (draft_convert). Parameters, their gradients and
     * what is no network (latents, losses, statistics) are F32 whatever it is. */
    enum draft_dtype activations;
    struct draft_replays *replays; /* NULL: there are none yet */
    bool recording;                /* false: no-gradient mode */
    /* Not 0: a run of calls without gradient in which adapters do not change. Their LoRAs may be added to the weights,
     * once for all calls with this number (draft_merge_begin). */
    uint64_t merged_run;
    int64_t room;                  /* behind the rows that draft_new_rows() makes; 0: none */
    struct draft_profile *profile; /* lent; times each op that runs. NULL: nobody asks */
    struct draft_error error;      /* the first failure */
    /* Asked between ops of a model at natural points (a block, a denoising step): false means stop. NULL: never asked.
     */
    bool (*keep_going)(void *context);
    void *context;
};

struct draft_call;

/* How one backend runs an op. The CPU's are in the op's descriptor, ops/<op>.c; another backend has a table of columns
 * in the order of ops.def (draft_backend_kind), CUDA's from ops/<op>.cu. */
struct draft_op_column {
    /* call->out->needs_grad tells whether backward will come, so whether notes in `saved` are wanted. */
    bool (*forward)(struct draft_graph *g, struct draft_call *call);
    bool (*backward)(struct draft_graph *g, struct draft_call *call);
};

/* ops.def's order: DRAFT_OP_linear, ... */
enum draft_op_id {
#define DRAFT_OP(name) DRAFT_OP_##name,
#include "ops/ops.def"
#undef DRAFT_OP
    DRAFT_OPS
};

/* Whose values a backward reads: bit i is in[i]'s. */
enum { DRAFT_READS_OUT = 1 << DRAFT_MAX_INPUTS, DRAFT_READS_ALL = 2 * DRAFT_READS_OUT - 1 };

/* What an op is: one const struct in ops/<op>.c, named in ops/ops.def. */
struct draft_op {
    const char *name;
    enum draft_op_id id;
    bool anywhere; /* moves no numbers by itself: these two functions serve every backend, and the id is not used */
    bool (*forward)(struct draft_graph *g, struct draft_call *call);
    bool (*backward)(struct draft_graph *g, struct draft_call *call); /* NULL needs no_gradient */
    const char *no_gradient; /* DRAFT_NO_GRADIENT("why"): recording through it fails before any step runs */
    /* Which values backward reads on any backend, beside those in `saved`; the others may be gone by then, and their
     * tensors' data NULL. NULL: DRAFT_READS_ALL. */
    unsigned (*reads)(const struct draft_call *call);
};
#define DRAFT_NO_GRADIENT(why) .backward = NULL, .no_gradient = (why)

/* One run of an op. `args` is the op's own struct; copied to the notes when recorded. */
struct draft_call {
    const struct draft_op *op;
    struct draft_tensor *in[DRAFT_MAX_INPUTS]; /* NULL for an absent optional input */
    struct draft_tensor *out;
    struct draft_tensor *saved[DRAFT_MAX_SAVED]; /* forward's notes for backward */
    void *args;
    size_t args_size;
};

bool draft_graph_init(struct draft_graph *g, struct draft_backend *backend, struct draft_arena *step,
                      struct draft_error *err);
void draft_graph_finish(struct draft_graph *g);

/* How far the arenas are filled. */
struct draft_mark {
    size_t step, notes;
};
struct draft_mark draft_graph_mark(const struct draft_graph *g);
/* Forgets what was allocated since the mark; for op files: a model says it with draft_scope_end(). */
void draft_graph_release(struct draft_graph *g, struct draft_mark mark);
/* Empties the tape, and the arenas down to `mark` (NULL: all); addresses repeat from step to step. Clears the error
 * and takes back the gradients of leaves that had no buffer of their own. */
void draft_graph_reset(struct draft_graph *g, const struct draft_mark *mark);

static inline bool draft_graph_ok(const struct draft_graph *g)
{
    return g->error.code == DRAFT_OK;
}

/* A new activation in the step arena, or for I32 in the notes, on the host; contents undefined. NULL (and the graph
 * failed) when memory is out. */
struct draft_tensor *draft_new(struct draft_graph *g, enum draft_dtype dtype, int rank, const int64_t *dim);
/* The same for what linears with an adapter read, of rank g->room: where the backend multiplies a row x and its
 * x down^T in one product, there is room for the latter behind each row. Without gradient alone, and only linears read
 * such a tensor. */
struct draft_tensor *draft_new_rows(struct draft_graph *g, enum draft_dtype dtype, int rank, const int64_t *dim);
/* `bytes` of host memory that lasts as long as an activation made now; contents undefined. NULL (and the graph failed)
 * when memory is out. */
void *draft_note(struct draft_graph *g, size_t bytes);
/* For those who are no ops: x's values on the host, F32 whatever x is, to be read; a copy in the notes where values
 * live elsewhere. NULL when x is, or the graph has failed. */
const float *draft_read(struct draft_graph *g, const struct draft_tensor *x);
/* An array on the host for all of x's values, x F32, which draft_written() then gives to x; x's own memory where that
 * is the host's. NULL when x is, or the graph has failed. */
float *draft_write(struct draft_graph *g, struct draft_tensor *x);
bool draft_written(struct draft_graph *g, struct draft_tensor *x, const float *array);
/* A number of the host as a tensor [1]. */
struct draft_tensor *draft_scalar(struct draft_graph *g, double value);
/* to = from, equal counts, both F32. */
bool draft_copy_values(struct draft_graph *g, struct draft_tensor *to, const struct draft_tensor *from);

/* For op wrappers: a tensor over x's own values, beginning at element `offset`. */
struct draft_tensor *draft_new_view(struct draft_graph *g, const struct draft_tensor *x, int rank, const int64_t *dim,
                                    size_t offset);
/* For op wrappers: runs call->op, records it when needed, returns call->out (NULL on failure). */
struct draft_tensor *draft_graph_run(struct draft_graph *g, struct draft_call *call);
/* For op backwards: the gradient buffer of x, of its dtype (allocated on first use), or NULL when x is absent or needs
 * none. */
void *draft_grad(struct draft_graph *g, struct draft_tensor *x, bool *accumulate);

/* No-gradient mode, nestable: bool was = draft_no_grad(g); ...; g->recording = was; */
static inline bool draft_no_grad(struct draft_graph *g)
{
    bool was = g->recording;
    g->recording = false;
    return was;
}

/* Numbers such a run, never twice; draft_merge_end() when anything may change again. */
void draft_merge_begin(struct draft_graph *g);
static inline void draft_merge_end(struct draft_graph *g)
{
    g->merged_run = 0;
}

/* Forget everything allocated since the mark but `keep`: nobody reads it any more. In no-gradient mode `keep` is moved
 * down to the mark. While recording it comes back as it is, and what recorded backwards will read stays too. */
struct draft_mark draft_scope_begin(struct draft_graph *g);
struct draft_tensor *draft_scope_end(struct draft_graph *g, struct draft_mark mark, struct draft_tensor *keep);

/* Gradient checkpointing (Chen et al. 2016): while recording, runs `block` without recording and keeps its output
 * alone; the backward pass runs it again, recorded, and walks that piece back. `context` must outlive the backward
 * pass. Parameters used inside the block get their gradients as usual; activations that need one must be among `in`
 * (checked). Whatever else the block reads (an adapter's switch and scale) must have the same value in both runs.
 * Blocks may nest. An op without gradient is refused in the second run. Not recording: just runs the block. */
typedef struct draft_tensor *(*draft_block)(struct draft_graph *g, void *context, struct draft_tensor *const *in);
struct draft_tensor *draft_recompute(struct draft_graph *g, draft_block block, void *context,
                                     struct draft_tensor *const *in, int n_in);

/* A tensor that shares x's values and passes no gradient back (stopgrad). */
struct draft_tensor *draft_detach(struct draft_graph *g, struct draft_tensor *x);

/* Walks the tape back from `root` seeded with `seed`, on the host (NULL: 1 for a scalar root). Afterwards gradients are
 * in ->grad of every leaf that needs one. The tape is emptied; the arena keeps activations until reset. May be called
 * several times per step (DRaFT-LV, micro-batches): parameter gradients accumulate, since their grad_written stays
 * true. */
bool draft_graph_backward(struct draft_graph *g, struct draft_tensor *root, const float *seed);

#endif
