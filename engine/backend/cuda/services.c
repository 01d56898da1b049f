/* The engine's functions that ops' columns call, under their own names: handed through from struct draft_services. */
#include "backend/cuda/state.h"
#include "ops/op.h"

static const struct draft_services *of(const struct draft_graph *g)
{
    return g->backend->services;
}

void *draft_grad(struct draft_graph *g, struct draft_tensor *x, bool *accumulate)
{
    return of(g)->grad(g, x, accumulate);
}

void *draft_grad_in_place(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x, bool *accumulate)
{
    return of(g)->grad_in_place(g, out, x, accumulate);
}

bool draft_grad_pass(struct draft_graph *g, struct draft_tensor *out, struct draft_tensor *x)
{
    return of(g)->grad_pass(g, out, x);
}

struct draft_tensor *draft_new(struct draft_graph *g, enum draft_dtype dtype, int rank, const int64_t *dim)
{
    return of(g)->new_tensor(g, dtype, rank, dim);
}

void *draft_temporary(struct draft_graph *g, size_t bytes)
{
    return of(g)->temporary(g, bytes);
}

void *draft_note(struct draft_graph *g, size_t bytes)
{
    return of(g)->note(g, bytes);
}

struct draft_mark draft_graph_mark(const struct draft_graph *g)
{
    return of(g)->mark(g);
}

void draft_graph_release(struct draft_graph *g, struct draft_mark mark)
{
    of(g)->release(g, mark);
}
