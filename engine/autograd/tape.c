#include "autograd/profile.h"
#include "autograd/tape.h"

#include "autograd/replay.h"
#include "backend/backend.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ASK_EVERY = 32 }; /* nodes between two questions to keep_going: well below a denoising step */

static size_t gradient_bytes(const struct draft_tensor *x)
{
    size_t bytes = (size_t)draft_tensor_count(x) * draft_dtype_size(x->dtype);
    return bytes == 0 ? 64 : (bytes + 63) / 64 * 64; /* a buffer is known by its address: none is empty */
}

static bool reserve_leaf(struct draft_graph *g, struct draft_tensor *x)
{
    struct draft_leaf *leaf = malloc(sizeof *leaf);
    void *grad = draft_backend_alloc(g->backend, gradient_bytes(x), &g->error);
    if (leaf == NULL || grad == NULL) {
        free(leaf);
        draft_backend_free(g->backend, grad);
        return draft_fail(&g->error, DRAFT_OUT_OF_MEMORY, "out of memory for a gradient");
    }
    *leaf = (struct draft_leaf){.next = g->tape->leaves, .tensor = x, .grad = grad};
    g->tape->leaves = leaf;
    x->grad = grad;
    x->grad_written = false;
    return true;
}

static struct draft_arena *gradient_arena(const struct draft_graph *g)
{
    return g->gradients != NULL ? g->gradients : g->step;
}

static struct draft_gradient_block *new_block(struct draft_graph *g, size_t bytes)
{
    struct draft_gradient_block *block = draft_note(g, sizeof *block);
    if (block == NULL)
        return NULL;
    *block = (struct draft_gradient_block){.bytes = bytes, .offset = draft_arena_mark(gradient_arena(g))};
    block->values = draft_arena_alloc(gradient_arena(g), bytes);
    if (block->values == NULL) {
        draft_arena_fail(gradient_arena(g), bytes, &g->error);
        return NULL;
    }
    block->end = draft_arena_mark(gradient_arena(g));
    return block;
}

/* The smallest spare block of at least `bytes`, off the list; NULL: there is none. */
static struct draft_gradient_block *take_spare(struct draft_tape *tape, size_t bytes)
{
    struct draft_gradient_block **best = NULL;
    for (struct draft_gradient_block **link = &tape->spare; *link != NULL; link = &(*link)->next)
        if ((*link)->bytes >= bytes && (best == NULL || (*link)->bytes < (*best)->bytes))
            best = link;
    if (best == NULL)
        return NULL;
    struct draft_gradient_block *block = *best;
    *best = block->next;
    return block;
}

/* Gives the spare blocks at the end of the arena back to it. */
static void shrink(struct draft_graph *g)
{
    struct draft_gradient_block **link = &g->tape->spare;
    while (*link != NULL) {
        struct draft_gradient_block *block = *link;
        if (block->end != draft_arena_mark(gradient_arena(g)) || block->offset < g->tape->floor) {
            link = &block->next;
            continue;
        }
        *link = block->next;
        draft_arena_release(gradient_arena(g), block->offset);
        link = &g->tape->spare;
    }
}

bool draft_tape_reserve(struct draft_graph *g, struct draft_tensor *x)
{
    assert(x->dtype == DRAFT_F32 || x->dtype == DRAFT_BF16);
    if (x->grad != NULL)
        return true;
    if (x->tape_level == 0)
        return reserve_leaf(g, x);
    if (x->tape_level != g->tape->level + 1)
        return draft_fail(&g->error, DRAFT_INTERNAL,
                          "a recomputed block reads an activation that is not among its inputs; its gradient would "
                          "be lost");
    size_t bytes = gradient_bytes(x);
    struct draft_gradient_block *block = take_spare(g->tape, bytes);
    if (block == NULL) {
        shrink(g);
        block = new_block(g, bytes);
    }
    if (block == NULL)
        return false;
    block->next = g->tape->used;
    g->tape->used = block;
    x->grad = block->values;
    x->grad_written = false;
    return true;
}

void *draft_grad(struct draft_graph *g, struct draft_tensor *x, bool *accumulate)
{
    if (x == NULL || !x->needs_grad || !draft_graph_ok(g) || !draft_tape_reserve(g, x))
        return NULL;
    *accumulate = x->grad_written;
    x->grad_written = true;
    if (x->tape_level == 0)
        draft_replay_leaf(g, x, *accumulate);
    return x->grad;
}

void *draft_grad_in_place(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x, bool *accumulate)
{
    if (x == NULL || !x->needs_grad || x->grad != NULL || x->tape_level != g->tape->level + 1)
        return draft_grad(g, x, accumulate);
    assert(x->dtype == out->dtype);
    x->grad = out->grad;
    x->grad_written = true;
    out->grad = NULL;
    out->grad_written = false;
    *accumulate = false;
    return x->grad;
}

bool draft_grad_pass(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x)
{
    const void *dy = out->grad;
    bool accumulate;
    void *dx = draft_grad_in_place(g, out, x, &accumulate);
    if (dx != NULL && dx != dy)
        draft_backend_axpby(g->backend, x->dtype, draft_tensor_count(x), 1, dy, dx, accumulate, &g->error);
    return draft_graph_ok(g);
}

/* The producer's backward has run: nobody needs the gradient any more. */
static void release_gradient(struct draft_tape *tape, struct draft_tensor *x)
{
    if (x->grad != NULL) {
        struct draft_gradient_block **link = &tape->used; /* a few, the youngest first */
        while ((*link)->values != x->grad)
            link = &(*link)->next;
        struct draft_gradient_block *block = *link;
        *link = block->next;
        block->next = tape->spare;
        tape->spare = block;
    }
    x->grad = NULL;
    x->grad_written = false;
}

static void drop_above(struct draft_gradient_block **link, size_t offset)
{
    while (*link != NULL) {
        if ((*link)->offset >= offset)
            *link = (*link)->next;
        else
            link = &(*link)->next;
    }
}

size_t draft_tape_gradient_mark(const struct draft_graph *g, struct draft_mark mark)
{
    return g->gradients != NULL ? mark.gradients : mark.step;
}

void draft_tape_drop_buffers(struct draft_graph *g, struct draft_mark mark)
{
    size_t offset = draft_tape_gradient_mark(g, mark);
    drop_above(&g->tape->spare, offset);
    drop_above(&g->tape->used, offset);
}

bool draft_tape_keep_going(struct draft_graph *g)
{
    if (g->keep_going == NULL || g->keep_going(g->context))
        return true;
    return draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request in the backward pass");
}

bool draft_tape_walk(struct draft_graph *g)
{
    int nodes = 0;
    while (g->tape->last != NULL) {
        struct draft_call *call = &g->tape->last->call;
        struct draft_tape_node *previous = g->tape->last = g->tape->last->previous;
        /* Not written: nothing that the root depends on has read it. */
        if (call->out->grad_written) {
            if (++nodes % ASK_EVERY == 0 && !draft_tape_keep_going(g))
                return false;
            bool done = draft_op_run(g, call, draft_op_on(g->backend, call->op).backward, true) &&
                        draft_backend_settled(g->backend, &g->error);
            if (!done || !draft_graph_ok(g)) {
                draft_error_prefix(&g->error, "%s backward: ", call->op->name);
                return draft_fail(&g->error, DRAFT_INTERNAL, "%s backward failed without a reason", call->op->name);
            }
        }
        release_gradient(g->tape, call->out);
        /* The nodes still to come were recorded before this one's output was made, and read nothing made since. */
        if (g->gradients != NULL && previous != NULL && previous->end < draft_arena_mark(g->step))
            draft_arena_release(g->step, previous->end);
    }
    return true;
}

static bool seed_root(struct draft_graph *g, struct draft_tensor *root, const float *seed)
{
    bool accumulate;
    assert(root->dtype == DRAFT_F32);
    float *grad = draft_grad(g, root, &accumulate);
    if (grad == NULL)
        return false;
    int64_t n = draft_tensor_count(root);
    float *to = accumulate ? draft_arena_alloc(g->step, gradient_bytes(root)) : grad; /* a leaf may be its own root */
    if (to == NULL)
        return draft_arena_fail(g->step, gradient_bytes(root), &g->error);
    bool sent = n == 1 ? draft_backend_fill(g->backend, to, 1, seed != NULL ? *seed : 1, &g->error)
                       : draft_backend_upload(g->backend, to, seed, (size_t)n * sizeof *seed, &g->error);
    return sent && (to == grad || draft_backend_axpby(g->backend, DRAFT_F32, n, 1, to, grad, true, &g->error));
}

bool draft_graph_backward(struct draft_graph *g, struct draft_tensor *root, const float *seed)
{
    if (!draft_graph_ok(g))
        return false;
    assert(root != NULL && (seed != NULL || draft_tensor_count(root) == 1));
    assert(g->tape->level == 0);
    if (!root->needs_grad)
        return draft_fail(&g->error, DRAFT_FAILED_PRECONDITION,
                          "backward: the result depends on nothing that is trained (or was not recorded)");
    struct draft_mark mark = draft_graph_mark(g);
    bool was = g->recording;
    g->tape->floor = draft_tape_gradient_mark(g, mark);
    bool done = seed_root(g, root, seed) && draft_tape_walk(g);
    g->recording = was;
    g->tape->last = NULL;
    g->tape->level = 0;
    g->tape->spare = g->tape->used = NULL;
    g->tape->values = NULL; /* where activations were */
    /* All that was allocated since are gradients of activations, and those have been used. */
    if (mark.step > draft_arena_mark(g->step))
        mark.step = draft_arena_mark(g->step);
    if (done)
        draft_graph_release(g, mark);
    return done;
}
