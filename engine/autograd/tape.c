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

static struct draft_gradient_block *new_block(struct draft_graph *g, size_t bytes)
{
    size_t notes = draft_arena_mark(g->notes);
    struct draft_gradient_block *block = draft_note(g, sizeof *block);
    void *values = block != NULL ? draft_values_room(g, bytes) : NULL;
    if (values == NULL)
        return NULL;
    *block = (struct draft_gradient_block){g->tape->gradients, values, bytes, notes};
    return g->tape->gradients = block;
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
    struct draft_gradient_block *block = new_block(g, gradient_bytes(x));
    if (block == NULL)
        return false;
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
static void release_gradient(struct draft_graph *g, struct draft_tensor *x)
{
    if (x->grad != NULL) {
        struct draft_gradient_block **link = &g->tape->gradients; /* a few */
        while ((*link)->values != x->grad)
            link = &(*link)->previous;
        draft_arena_give(g->step, (*link)->values, (*link)->bytes);
        *link = (*link)->previous;
    }
    x->grad = NULL;
    x->grad_written = false;
}

void draft_tape_drop_gradients(struct draft_graph *g, struct draft_mark mark)
{
    struct draft_gradient_block **last = &g->tape->gradients;
    for (; *last != NULL && (*last)->notes >= mark.notes; *last = (*last)->previous)
        draft_arena_give(g->step, (*last)->values, (*last)->bytes);
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
        release_gradient(g, call->out);
        /* The nodes still to come were recorded before this one's output was made, and read nothing made since. */
        if (g->frees_activations && previous != NULL)
            draft_values_pass(g, previous->notes);
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
    bool done = seed_root(g, root, seed) && draft_tape_walk(g);
    g->recording = was;
    g->tape->last = NULL;
    g->tape->level = 0;
    /* All that was allocated since are gradients of activations, and those have been used. */
    draft_tape_drop_gradients(g, mark);
    if (done)
        draft_graph_release(g, mark);
    return done;
}
