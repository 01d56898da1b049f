/* row_linears: formulas in row_linears.c */
#include "backend/cuda/op.h"

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_row_linears_args &a = draft_args<struct draft_row_linears_args>(call);
    const enum draft_dtype type = call->out->dtype;
    int64_t place = 0;
    for (int first = 0; first < a.count; first += DRAFT_CUDA_ROWS) {
        struct draft_cuda_row row[DRAFT_CUDA_ROWS];
        int count = 0;
        for (; count < DRAFT_CUDA_ROWS && first + count < a.count; count++) {
            const struct draft_row_layer &l = a.layer[first + count];
            const int64_t o = l.weight->dim[0];
            row[count] = {draft_on_device(g, l.weight, type), draft_on_device(g, l.bias, type),
                          draft_on_device(g, l.more, type), draft_at(call->out->data, type, place), o};
            place += (o + DRAFT_ROW_ALIGNED - 1) / DRAFT_ROW_ALIGNED * DRAFT_ROW_ALIGNED;
        }
        if (draft_graph_ok(g))
            draft_cuda_row_products(draft_stream(g), type, draft_last(call->in[0]), call->in[0]->data, row, count);
    }
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_row_linears = {forward, nullptr};
