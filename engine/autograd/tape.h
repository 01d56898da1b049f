/*
 * Inside the graph: what graph.c (forward), values.c, tape.c (backward) and recompute.c share. Models never include
 * this; op files include it for the two gradient shortcuts at the end.
 */
#ifndef DRAFT_AUTOGRAD_TAPE_H
#define DRAFT_AUTOGRAD_TAPE_H

#include "autograd/graph.h"

struct draft_tape_node {
    struct draft_tape_node *previous;
    size_t notes; /* how far they were filled before it: what is above, it and the nodes before have not seen */
    struct draft_call call;
};

/* The gradient of an activation lives from its first consumer's backward to its producer's. So a backward pass holds a
 * few gradients at a time. */
struct draft_gradient_block {
    struct draft_gradient_block *previous;
    void *values;
    size_t bytes;
    size_t notes; /* how far they were filled before it */
};

/* The values of an activation made while recording. They are needed until the scope ends that they were made in, or
 * for as long as a node is on the tape whose backward reads them. */
struct draft_values {
    struct draft_values *previous;
    void *at;
    size_t bytes;
    size_t notes; /* how far the notes were filled before it */
    bool read;    /* by a backward */
    bool gone;    /* given back */
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
    int level;    /* 0, or how many recomputed blocks we are inside of */
    bool touched; /* an op has read something that needs a gradient (recompute.c asks) */
    struct draft_leaf *leaves;
    struct draft_gradient_block *gradients; /* the youngest first */
    struct draft_values *values;            /* the youngest first */
    size_t holes;                           /* of the step arena: those below are left alone */
    size_t pinned;                          /* of the notes: values made below stay, a recomputed block may read them */
};

/* The functions that run an op on a backend. */
struct draft_op_column draft_op_on(const struct draft_backend *backend, const struct draft_op *op);
/* Appends a call whose output needs a gradient; the call and its args are copied. */
bool draft_tape_record(struct draft_graph *g, const struct draft_call *call);
/* Gives x a gradient buffer without calling it written. False: out of memory, the graph has failed. */
bool draft_tape_reserve(struct draft_graph *g, struct draft_tensor *x);
/* An array in a hole of the step arena, or at its end. NULL: out of memory, the graph has failed. */
void *draft_values_room(struct draft_graph *g, size_t bytes);
/* Such an array for a new activation. */
struct draft_values *draft_values_make(struct draft_graph *g, size_t bytes);
/* The same of one that came out of work without gradient. False: out of memory, the graph has failed. */
bool draft_values_adopt(struct draft_graph *g, struct draft_tensor *x);
/* Those that the recorded call's backward reads stay. */
void draft_values_keep(const struct draft_call *call);
/* A scope ends that was recorded: gives back what was made since the mark, is not `keep` and is read by no backward. */
void draft_values_end_scope(struct draft_graph *g, struct draft_mark mark, const struct draft_tensor *keep);
/* The arenas are about to be released down to the mark: gives back what was made since in holes below it. */
void draft_values_release(struct draft_graph *g, struct draft_mark mark);
/* The backward pass has come to the node with these `notes`: gives back what was made since. */
void draft_values_pass(struct draft_graph *g, size_t notes);
/* Walks back the nodes of the tape's present piece, the last first, and empties it. */
bool draft_tape_walk(struct draft_graph *g);
/* Gives back the gradients that were made since the mark. */
void draft_tape_drop_gradients(struct draft_graph *g, struct draft_mark mark);
/* False, and the graph fails with DRAFT_CANCELLED, when keep_going says so. */
bool draft_tape_keep_going(struct draft_graph *g);

/* Like draft_grad(), but x may take over out's own buffer: for backwards that read each element of dy before they write
 * that element of dx (fetch dy = out->grad first; out's gradient may be gone afterwards, so x is the last input). Both
 * are of one dtype. */
void *draft_grad_in_place(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x, bool *accumulate);
/* The same for dx = dy as it is (reshape, add). */
bool draft_grad_pass(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x);

#endif
