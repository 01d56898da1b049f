/*
 * add_positions: y[n, s, c] = x[n, s, c] + table[s, c] (learned positions; the table may have more rows than s)
 *   dx = dy      dtable[s, c] = sum over n of dy, zero in the rows that were not read
 */
#include "ops/op.h"

#include <assert.h>

enum { X, TABLE };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    int64_t size = x->dim[1] * x->dim[2];
    for (int64_t n = 0; n < x->dim[0]; n++)
        draft_cpu_axpby(g->backend, size, 1, draft_f32(x) + n * size, 1, draft_f32(call->in[TABLE]),
                        draft_f32(call->out) + n * size, false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    int64_t size = x->dim[1] * x->dim[2];
    bool accumulate;
    float *dtable = draft_grad(g, call->in[TABLE], &accumulate);
    if (dtable != NULL) {
        if (!accumulate)
            memset(dtable + size, 0, (size_t)(draft_tensor_count(call->in[TABLE]) - size) * sizeof *dtable);
        if (!draft_cpu_sum_rows(g->backend, 1, x->dim[0], size, call->out->grad, dtable, accumulate, &g->error))
            return false;
    }
    return draft_graph_ok(g) && draft_grad_pass(g, call->out, call->in[X]);
}

const struct draft_op draft_op_add_positions = {.name = "add_positions",
                                                .id = DRAFT_OP_add_positions,
                                                .forward = forward,
                                                .backward = backward,
                                                .reads = draft_reads_nothing};

struct draft_tensor *draft_add_positions(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *table)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL && table != NULL);
    if (!draft_is_activation(x, 3) || !draft_is_f32(table, 2) || table->dim[1] != x->dim[2] ||
        table->dim[0] < x->dim[1])
        return DRAFT_REFUSE(g, "add_positions", "x [n, s, c] and a table of at least s rows of c", x, table);
    struct draft_call call = {.op = &draft_op_add_positions, .in = {x, table}};
    call.out = draft_new(g, x->dtype, 3, x->dim);
    return draft_graph_run(g, &call);
}
