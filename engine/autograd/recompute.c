/*
 * Gradient checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost"): a block is recorded as
 * one op. Forward keeps its output only. Backward runs the block again, recorded on a tape of its own, walks that tape
 * back and gives back what was made since.
 *
 * The gradients of the block's inputs are reserved before it runs, so they outlive it. A block inside a block is a node
 * of the inner tape and works the same way, one level up.
 */
#include "autograd/tape.h"

#include <assert.h>
#include <string.h>

struct recompute_args {
    draft_block block;
    void *context;
};

static bool reserve_inputs(struct draft_graph *g, struct draft_call *call)
{
    for (int i = 0; i < DRAFT_MAX_INPUTS; i++)
        if (call->in[i] != NULL && call->in[i]->needs_grad && !draft_tape_reserve(g, call->in[i]))
            return false;
    return true;
}

static bool walk_block(struct draft_graph *g, struct draft_call *call)
{
    const struct recompute_args *args = call->args;
    struct draft_tensor *again = args->block(g, args->context, call->in);
    if (!draft_graph_ok(g))
        return false;
    assert(again != NULL && draft_tensor_count(again) == draft_tensor_count(call->out));
    return draft_grad_pass(g, call->out, again) && draft_tape_walk(g);
}

static bool recompute_backward(struct draft_graph *g, struct draft_call *call)
{
    if (!draft_tape_keep_going(g) || !reserve_inputs(g, call))
        return false;
    struct draft_mark mark = draft_graph_mark(g);
    struct draft_tape_node *outer = g->tape->last;
    bool was = g->recording;
    size_t pinned = g->tape->pinned;
    g->tape->last = NULL;
    g->tape->level++;
    g->recording = true;
    bool done = walk_block(g, call);
    g->recording = was;
    g->tape->level--;
    g->tape->pinned = pinned;
    g->tape->last = outer;
    draft_tape_drop_gradients(g, mark);
    draft_graph_release(g, mark);
    return done;
}

/* The wrapper has run the block already; what is recorded is the way back. */
static bool recompute_forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g, (void)call;
    return true;
}

static unsigned recompute_reads(const struct draft_call *call)
{
    (void)call;
    return DRAFT_READS_OUT - 1;
}

static const struct draft_op recompute_op = {.name = "recompute",
                                             .anywhere = true,
                                             .forward = recompute_forward,
                                             .backward = recompute_backward,
                                             .reads = recompute_reads};

struct draft_tensor *draft_recompute(struct draft_graph *g, draft_block block, void *context,
                                     struct draft_tensor *const *in, int n_in)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(n_in <= DRAFT_MAX_INPUTS);
    if (!g->recording)
        return block(g, context, in);

    /* The output needs a gradient when an input does, or a parameter: that shows only in what the block's ops touch. */
    bool touched_before = g->tape->touched;
    g->tape->touched = false;
    for (int i = 0; i < n_in; i++)
        g->tape->touched |= in[i] != NULL && in[i]->needs_grad;
    bool was = draft_no_grad(g);
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *out = draft_scope_end(g, mark, block(g, context, in));
    g->recording = was;
    bool touched = g->tape->touched;
    g->tape->touched |= touched_before;
    if (out == NULL || !touched)
        return out;

    struct recompute_args args = {block, context};
    struct draft_call call = {.op = &recompute_op, .out = out, .args = &args, .args_size = sizeof args};
    memcpy(call.in, in, (size_t)n_in * sizeof *in);
    out->needs_grad = true;
    if (!draft_values_adopt(g, out) || !draft_tape_record(g, &call))
        return NULL;
    g->tape->pinned = draft_arena_mark(g->notes); /* the context may lead to any of them */
    return out;
}
