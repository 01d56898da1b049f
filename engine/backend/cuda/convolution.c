#include "backend/cuda/convolution.h"

#include "backend/cuda/convolution_graph.h"
#include "backend/cuda/state.h"

static const struct draft_cudnn_plan *plan_of(struct draft_backend *backend, const struct draft_cuda_convolution *c,
                                              struct draft_error *err)
{
    static const enum draft_cudnn_direction DIRECTION[] = {
        [DRAFT_CUDA_CONVOLVED_Y] = DRAFT_CUDNN_FORWARD,
        [DRAFT_CUDA_CONVOLVED_DX] = DRAFT_CUDNN_BACKWARD_DATA,
        [DRAFT_CUDA_CONVOLVED_DW] = DRAFT_CUDNN_BACKWARD_FILTER,
    };
    const unsigned also = (c->bias != NULL ? DRAFT_CONVOLUTION_BIASED : 0) |
                          (c->residual != NULL || c->accumulate ? DRAFT_CONVOLUTION_ADDED : 0);
    const struct draft_cudnn_request request =
        draft_convolution_request(DIRECTION[c->result], &c->shape, also, DRAFT_CUDA_WORKSPACE);
    struct draft_cudnn *cudnn = draft_cuda_cudnn(backend, err);
    return cudnn != NULL ? draft_cudnn_plan(cudnn, &request, err) : NULL;
}

bool draft_cuda_convolve(struct draft_backend *backend, const struct draft_cuda_convolution *c, bool *done,
                         struct draft_error *err)
{
    *done = true;
    draft_cuda_launches++;
    if (draft_backend_is_dry(backend))
        return true;
    const struct draft_cudnn_plan *plan = plan_of(backend, c, err);
    if (plan == NULL)
        return false;
    *done = plan->supported;
    int64_t id[5] = {DRAFT_CONVOLUTION_X, DRAFT_CONVOLUTION_W, DRAFT_CONVOLUTION_Y};
    const void *memory[5] = {c->x, c->w, c->y};
    int count = 3;
    if (c->bias != NULL) {
        id[count] = DRAFT_CONVOLUTION_BIAS;
        memory[count++] = c->bias;
    }
    if (c->residual != NULL) {
        id[count] = DRAFT_CONVOLUTION_RESIDUAL;
        memory[count++] = c->residual;
    }
    return !plan->supported || draft_cudnn_execute(backend->cudnn, plan, count, id, memory, backend->workspace, err);
}
