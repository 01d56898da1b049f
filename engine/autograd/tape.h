/*
 * Inside the graph: what graph.c (forward), tape.c (backward) and recompute.c share. Models never include this; op
 * files include it for the two gradient shortcuts at the end.
 */
#ifndef DRAFT_AUTOGRAD_TAPE_H
#define DRAFT_AUTOGRAD_TAPE_H

#include "autograd/graph.h"

struct draft_tape_node {
    struct draft_tape_node *previous;
    size_t end; /* of the step arena when it was recorded: what came later, no node up to here has seen */
    struct draft_call call;
};

/* The gradient of an activation lives from its first consumer's backward to its producer's. Its buffer then goes on a
 * list and serves the next activation that is no larger; where none is large enough, those at the arena's end make room
 * first. So a backward pass holds a few gradients at a time. */
struct draft_gradient_block {
    void *values;
    size_t bytes;
    size_t offset, end; /* in its arena; blocks above a mark go with it */
    struct draft_gradient_block *next;
};

/* A leaf that came without a gradient buffer (a test's input, a weight trained for once): the graph provides one. It
 * outlives the backward pass, so it cannot be in the arena among the activations' gradients. */
struct draft_leaf {
    struct draft_leaf *next;
    struct draft_tensor *tensor;
    void *grad;
};

struct draft_tape {
    struct draft_tape_node *last;
    int level;                                 /* 0, or how many recomputed blocks we are inside of */
    bool touched;                              /* an op has read something that needs a gradient (recompute.c asks) */
    struct draft_gradient_block *spare, *used; /* free; holding a gradient */
    size_t floor;                              /* below it the gradients' arena may not shrink: a mark is there */
    struct draft_leaf *leaves;
};

/* The functions that run an op on a backend. */
struct draft_op_column draft_op_on(const struct draft_backend *backend, const struct draft_op *op);
/* Appends a call whose output needs a gradient; the call and its args are copied. */
bool draft_tape_record(struct draft_graph *g, const struct draft_call *call);
/* Gives x a gradient buffer without calling it written. False: out of memory, the graph has failed. */
bool draft_tape_reserve(struct draft_graph *g, struct draft_tensor *x);
/* Walks back the nodes of the tape's present piece, the last first, and empties it. */
bool draft_tape_walk(struct draft_graph *g);
/* The mark's place in the arena that gradients are in. */
size_t draft_tape_gradient_mark(const struct draft_graph *g, struct draft_mark mark);
/* Forgets the buffers above `mark`, which is about to be released. */
void draft_tape_drop_buffers(struct draft_graph *g, struct draft_mark mark);
/* False, and the graph fails with DRAFT_CANCELLED, when keep_going says so. */
bool draft_tape_keep_going(struct draft_graph *g);

/* Like draft_grad(), but x may take over out's own buffer: for backwards that read each element of dy before they write
 * that element of dx (fetch dy = out->grad first; out's gradient may be gone afterwards, so x is the last input). Both
 * are of one dtype. */
void *draft_grad_in_place(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x, bool *accumulate);
/* The same for dx = dy as it is (reshape, add). */
bool draft_grad_pass(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x);

#endif
