/*
 * prepend_token: y [n, s + 1, c] = token [c] in front of every x [n, s, c] (CLIP's class token)
 *   dx: dy without its first rows      dtoken = sum over n of dy's first rows
 */
#include "ops/op.h"

#include <assert.h>

enum { TOKEN, X };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    int64_t c = x->dim[2], row = x->dim[1] * c;
    float *y = draft_f32(call->out);
    draft_copy_rows(g->backend, x->dim[0], c, draft_f32(call->in[TOKEN]), 0, y, row + c, false);
    draft_copy_rows(g->backend, x->dim[0], row, draft_f32(x), row, y + c, row + c, false);
    return true;
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    int64_t n = x->dim[0], c = x->dim[2], row = x->dim[1] * c;
    const float *dy = call->out->grad;
    bool accumulate;
    float *dtoken = draft_grad(g, call->in[TOKEN], &accumulate);
    if (dtoken != NULL) {
        if (!accumulate)
            memset(dtoken, 0, (size_t)c * sizeof *dtoken);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < c; j++)
                dtoken[j] += dy[i * (row + c) + j];
    }
    float *dx = draft_grad(g, call->in[X], &accumulate);
    if (dx != NULL)
        draft_copy_rows(g->backend, n, row, dy + c, row + c, dx, row, accumulate);
    return draft_graph_ok(g);
}

const struct draft_op draft_op_prepend_token = {.name = "prepend_token",
                                                .id = DRAFT_OP_prepend_token,
                                                .forward = forward,
                                                .backward = backward,
                                                .reads = draft_reads_nothing};

struct draft_tensor *draft_prepend_token(struct draft_graph *g, struct draft_tensor *token, struct draft_tensor *x)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(token != NULL && x != NULL);
    if (!draft_is_activation(x, 3) || !draft_is_vector(token, x->dim[2]))
        return DRAFT_REFUSE(g, "prepend_token", "a token [c] and x [n, s, c]", token, x);
    struct draft_call call = {.op = &draft_op_prepend_token, .in = {token, x}};
    call.out = draft_new(g, x->dtype, 3, (int64_t[]){x->dim[0], x->dim[1] + 1, x->dim[2]});
    return draft_graph_run(g, &call);
}
