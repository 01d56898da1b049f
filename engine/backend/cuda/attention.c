#include "backend/cuda/attention.h"

#include "backend/cuda/attention_graph.h"
#include "backend/cuda/state.h"

/* Backward keeps the gradient of the scores, heads s t numbers a picture: pictures go one by one where all together
 * would take more than this. One alone may take as much as it needs. */
static const size_t COMFORTABLE = (size_t)512 << 20, MOST = (size_t)4 << 30;

static size_t scores_bytes(const struct draft_attention_shape *s)
{
    return (size_t)(s->n * s->heads * s->s * s->t) * sizeof(uint16_t);
}

static const struct draft_cudnn_plan *plan_of(struct draft_backend *backend, const struct draft_attention_shape *shape,
                                              bool backward, struct draft_error *err)
{
    static const struct draft_cudnn_plan NONE = {.reason = "not asked for"};
    struct draft_cudnn_request request;
    if (!draft_attention_request(shape, backward, MOST, &request))
        return &NONE;
    struct draft_cudnn *cudnn = draft_cuda_cudnn(backend, err);
    return cudnn != NULL ? draft_cudnn_plan(cudnn, &request, err) : NULL;
}

/* What a device will answer, as far as it is known without one: backward of heads wider than 128 numbers has a plan on
 * some GPUs alone. */
static void guess(const struct draft_attention_shape *shape, bool backward, struct draft_cuda_attention_way *way)
{
    enum { SURE = 128 };
    struct draft_cudnn_request request;
    way->fused = draft_attention_request(shape, backward, MOST, &request) && (!backward || shape->d <= SURE);
    way->workspace = backward ? scores_bytes(shape) : 0;
}

bool draft_cuda_attention_way(struct draft_backend *backend, const struct draft_attention_shape *shape, bool backward,
                              struct draft_cuda_attention_way *way, struct draft_error *err)
{
    struct draft_attention_shape some = *shape;
    if (backward && scores_bytes(shape) > COMFORTABLE)
        some.n = 1;
    *way = (struct draft_cuda_attention_way){.pictures = some.n};
    if (draft_backend_is_dry(backend)) {
        guess(&some, backward, way);
    } else {
        const struct draft_cudnn_plan *plan = plan_of(backend, &some, backward, err);
        if (plan == NULL)
            return false;
        way->fused = plan->supported;
        way->workspace = plan->workspace;
    }
    if (way->workspace <= DRAFT_CUDA_WORKSPACE)
        way->workspace = 0;
    return true;
}

static bool execute(struct draft_backend *backend, const struct draft_attention_shape *shape, bool backward, int count,
                    const int64_t *id, const void *const *memory, void *workspace, struct draft_error *err)
{
    draft_cuda_launches++;
    if (draft_backend_is_dry(backend))
        return true;
    const struct draft_cudnn_plan *plan = plan_of(backend, shape, backward, err);
    return plan != NULL && draft_cudnn_execute(backend->cudnn, plan, count, id, memory,
                                               workspace != NULL ? workspace : backend->workspace, err);
}

bool draft_cuda_attend(struct draft_backend *backend, const struct draft_cuda_attention *c, void *workspace,
                       struct draft_error *err)
{
    static const int64_t ID[] = {DRAFT_ATTENTION_Q, DRAFT_ATTENTION_K,       DRAFT_ATTENTION_V,
                                 DRAFT_ATTENTION_O, DRAFT_ATTENTION_LOG_SUM, DRAFT_ATTENTION_SCALE};
    const void *memory[] = {c->q, c->k, c->v, c->o, c->log_sum, &c->shape.scale};
    return execute(backend, &c->shape, false, sizeof ID / sizeof *ID, ID, memory, workspace, err);
}

bool draft_cuda_attend_backward(struct draft_backend *backend, const struct draft_cuda_attention *c, void *workspace,
                                struct draft_error *err)
{
    static const float ONE = 1;
    static const int64_t ID[] = {DRAFT_ATTENTION_Q,       DRAFT_ATTENTION_K,     DRAFT_ATTENTION_V,
                                 DRAFT_ATTENTION_O,       DRAFT_ATTENTION_DO,    DRAFT_ATTENTION_LOG_SUM,
                                 DRAFT_ATTENTION_ROW_SUM, DRAFT_ATTENTION_DQ,    DRAFT_ATTENTION_DK,
                                 DRAFT_ATTENTION_DV,      DRAFT_ATTENTION_SCALE, DRAFT_ATTENTION_ONE};
    const void *memory[] = {c->q,       c->k,  c->v,  c->o,  c->d_o,          c->log_sum,
                            c->row_sum, c->dq, c->dk, c->dv, &c->shape.scale, &ONE};
    return execute(backend, &c->shape, true, sizeof ID / sizeof *ID, ID, memory, workspace, err);
}
