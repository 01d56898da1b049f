/* reshape: the same numbers under another shape of equal count, a view. dx = dy under the old shape: handed on. */
#include "ops/op.h"

#include <assert.h>
#include <stdio.h>

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    (void)g, (void)call;
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    return draft_grad_pass(g, call->out, call->in[0]);
}

const struct draft_op draft_op_reshape = {
    .name = "reshape", .anywhere = true, .forward = forward, .backward = backward, .reads = draft_reads_nothing};

struct draft_tensor *draft_reshape(struct draft_graph *g, struct draft_tensor *x, int rank, const int64_t *dim)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && rank >= 0 && rank <= DRAFT_MAX_RANK);
    struct draft_tensor wanted = {.rank = rank};
    memcpy(wanted.dim, dim, (size_t)rank * sizeof *dim);
    if (draft_tensor_count(&wanted) != draft_tensor_count(x)) {
        char shape[128], expected[192];
        snprintf(expected, sizeof expected, "as many elements as %s", draft_shape_text(rank, dim, shape, sizeof shape));
        return DRAFT_REFUSE(g, "reshape", expected, x);
    }
    struct draft_call call = {.op = &draft_op_reshape, .in = {x}};
    call.out = draft_new_view(g, x, rank, dim, 0);
    return draft_graph_run(g, &call);
}
