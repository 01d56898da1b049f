/* prepend_token: formulas in prepend_token.c */
#include "backend/cuda/op.h"

enum { TOKEN, X };

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_tensor *x = call->in[X];
    const struct draft_mark mark = draft_graph_mark(g);
    const void *token = draft_on_device(g, call->in[TOKEN], x->dtype);
    if (token)
        draft_cuda_prepend_token(draft_stream(g), x->dtype, x->dim[0], x->dim[1], x->dim[2], token, x->data,
                                 call->out->data);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const int64_t *x = call->in[X]->dim, n = x[0], c = x[2], row = x[1] * c;
    const void *dy = call->out->grad;
    const struct draft_cuda_gradient dtoken = draft_gradient(g, call->in[TOKEN]);
    const struct draft_cuda_rows first = {.b = 1, .rows = n, .c = c, .x_stride = row + c, .b_stride = n * (row + c)};
    if (dtoken.to && !draft_sum_strided_rows(g, &first, call->out->dtype, dy, call->in[TOKEN], dtoken))
        return false;
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[X]);
    const struct draft_cuda_window rest = {.n = 1, .h = n, .w = row, .big_h = n, .big_w = row + c, .top = 0, .left = c};
    if (dx.to)
        draft_cuda_cut(draft_stream(g), call->out->dtype, &rest, dy, dx);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_prepend_token = {forward, backward};
