/* linears: formulas in linears.c */
#include "backend/cuda/op.h"

/* These matrices are siblings, in this order, and kept on the device by their names. */
static bool are_siblings(struct draft_tensor *const *matrix, int count)
{
    const struct draft_siblings *siblings = matrix[0]->siblings;
    bool are = siblings && siblings->count == count && matrix[0]->name;
    for (int i = 0; are && i < count; i++)
        are = siblings->tensor[i] == matrix[i];
    return are;
}

/* [x, s x A_0^T, s x A_1^T, ..] times each of [W_i, .. B_i ..]^T, or without adapter x times each W_i^T: one product of
 * siblings, which lie side by side. */
static bool is_one_product(const struct draft_call *call)
{
    const struct draft_linears_args &a = draft_args<struct draft_linears_args>(call);
    const struct draft_tensor *x = call->in[0];
    bool is = x->dtype == DRAFT_BF16 && are_siblings(a.w, a.count);
    if (a.each.r == 0)
        return is;
    const int64_t all = a.each.r * a.count;
    is = is && x->row >= a.each.k + all && draft_cuda_tail(a.w[0], x->dtype) == all;
    is = is && are_siblings(a.down, a.count);
    for (int i = 0; is && i < a.count; i++)
        is = a.w[i]->up == a.up[i];
    return is;
}

/* Whether cuBLASLt takes a batch that reads one x for all was never seen on a device: where it doesn't, one by one. */
static bool multiply_all(struct draft_graph *g, const struct draft_cuda_product *all)
{
    struct draft_error refusal = {};
    bool done = draft_cuda_multiply(g->backend, all, &refusal);
    if (done)
        return true;
    struct draft_cuda_product one = *all;
    one.batch = 1;
    one.stride_b = one.stride_c = 0;
    done = true;
    for (int64_t i = 0; done && i < all->batch; i++) {
        one.b = draft_at(all->b, all->type, i * all->stride_b);
        one.c = draft_at(all->c, all->c_type, i * all->stride_c);
        done = draft_cuda_multiply(g->backend, &one, &g->error);
    }
    return done;
}

static bool one_product(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linears_args &a = draft_args<struct draft_linears_args>(call);
    const struct draft_linear_args &e = a.each;
    const struct draft_tensor *x = call->in[0];
    const enum draft_dtype type = x->dtype;
    const int64_t tail = draft_cuda_tail(a.w[0], type), row = draft_row(x), ranks = e.r * a.count;
    const void *w = draft_on_device(g, a.w[0], type), *down = draft_on_device(g, a.down[0], type);
    if (!draft_graph_ok(g) || (ranks > 0 && !draft_fill_room(g, x, ranks, down, e.scale)))
        return false;
    const struct draft_cuda_product all = {.batch = a.count,
                                           .m = e.m,
                                           .n = e.o,
                                           .k = e.k + ranks,
                                           .trans_a = 0,
                                           .trans_b = 1,
                                           .lda = row,
                                           .ldb = e.k + tail,
                                           .ldc = e.o,
                                           .stride_a = 0,
                                           .stride_b = e.o * (e.k + tail),
                                           .stride_c = e.m * e.o,
                                           .a = x->data,
                                           .b = w,
                                           .bias = nullptr,
                                           .onto = nullptr,
                                           .c = call->out->data,
                                           .alpha = 1,
                                           .beta = 0,
                                           .type = type,
                                           .c_type = type};
    return multiply_all(g, &all);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_linears_args &a = draft_args<struct draft_linears_args>(call);
    if (is_one_product(call))
        return one_product(g, call) && draft_launched(g);
    struct draft_tensor part;
    bool done = true;
    for (int i = 0; done && i < a.count; i++) {
        struct draft_call one = draft_linear_of(call, i, &part);
        done = draft_cuda_op_linear.forward(g, &one);
    }
    return done;
}

const struct draft_op_column draft_cuda_op_linears = {forward, nullptr};
