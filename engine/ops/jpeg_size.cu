/* jpeg_size: formulas in jpeg_size.c */
#include "backend/cuda/op.h"

static struct draft_cuda_pictures pictures_of(const struct draft_call *call)
{
    const int64_t *x = call->in[0]->dim;
    return {.n = x[0], .h = x[1], .w = x[2]};
}

static struct draft_jpeg_model model_of(const struct draft_graph *g, const struct draft_call *call)
{
    return draft_cuda_services_of(g->backend)->jpeg_model(draft_args<struct draft_jpeg_size_args>(call).quality);
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_pictures pictures = pictures_of(call);
    const struct draft_jpeg_model model = model_of(g, call);
    const struct draft_mark mark = draft_graph_mark(g);
    void *scratch = draft_temporary(g, draft_cuda_jpeg_size_scratch(&pictures));
    if (scratch)
        draft_cuda_jpeg_size(draft_stream(g), call->in[0]->dtype, &pictures, &model, call->in[0]->data,
                             draft_f32(call->out), scratch);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    const struct draft_cuda_pictures pictures = pictures_of(call);
    const struct draft_jpeg_model model = model_of(g, call);
    const struct draft_cuda_gradient dx = draft_gradient(g, call->in[0]);
    const struct draft_mark mark = draft_graph_mark(g);
    void *scratch = dx.to ? draft_temporary(g, draft_cuda_jpeg_size_scratch(&pictures)) : nullptr;
    if (scratch)
        draft_cuda_jpeg_size_backward(draft_stream(g), call->in[0]->dtype, &pictures, &model, call->in[0]->data,
                                      draft_grad_f32(call->out), dx, scratch);
    draft_graph_release(g, mark);
    return draft_launched(g);
}

const struct draft_op_column draft_cuda_op_jpeg_size = {forward, backward};
