/*
 * The optimizer's calls. The numbers of an update are read on the device, where they are sent before the kernels: a
 * recording of the kernels serves every step.
 */
#include <math.h>

#include "backend/cuda/state.h"

/* What the kernels read and write beside the parameters. */
struct optimizer {
    struct draft_cuda_adamw_step at;
    struct draft_cuda_norm norm;
};

static size_t scratch_offset(void)
{
    return (sizeof(struct optimizer) + 15) / 16 * 16;
}

/* In the workspace: products are over when an optimizer begins, and the other way round. */
static struct optimizer *place(struct draft_backend *backend, int64_t n, struct draft_error *err)
{
    if (scratch_offset() + draft_cuda_gradient_norm_scratch(n) <= DRAFT_CUDA_WORKSPACE)
        return backend->workspace;
    draft_fail(err, DRAFT_INVALID_ARGUMENT, "%lld parameters are more than the CUDA backend trains", (long long)n);
    return NULL;
}

static void measure(struct draft_backend *backend, int64_t n, const float *gradient, const struct draft_guard *guard)
{
    struct optimizer *o = backend->workspace;
    draft_cuda_gradient_norm(backend->stream, n, &o->at, gradient, guard, &o->norm, (char *)o + scratch_offset());
}

bool draft_cuda_update_numbers(struct draft_backend *backend, const struct draft_update *u, struct draft_error *err)
{
    const struct draft_cuda_adamw_step at = {.max_norm = u->max_norm,
                                             .keep = u->keep,
                                             .step = u->step,
                                             .root2 = u->root2,
                                             .epsilon = u->epsilon,
                                             .beta2 = u->beta2,
                                             .new1 = u->new1,
                                             .new2 = u->new2};
    struct optimizer *o = backend->workspace;
    return draft_backend_kind(backend)->upload(backend, &o->at, &at, sizeof at, err);
}

bool draft_cuda_measure_gradient(struct draft_backend *backend, int64_t n, const float *gradient, double *norm,
                                 struct draft_error *err)
{
    const struct draft_update none = {.max_norm = INFINITY};
    struct optimizer *o = place(backend, n, err);
    if (o == NULL || !draft_cuda_update_numbers(backend, &none, err))
        return false;
    measure(backend, n, gradient, &(struct draft_guard){.count = 0});
    return draft_cuda_launched("measuring the gradient", err) &&
           draft_backend_kind(backend)->download(backend, norm, &o->norm.norm, sizeof *norm, err);
}

bool draft_cuda_update(struct draft_backend *backend, int64_t n, const float *gradient, float *parameter, float *m,
                       float *v, const struct draft_guard *guard, struct draft_error *err)
{
    struct optimizer *o = place(backend, n, err);
    if (o == NULL)
        return false;
    measure(backend, n, gradient, guard != NULL ? guard : &(struct draft_guard){.count = 0});
    draft_cuda_adamw(backend->stream, n, &o->at, &o->norm, gradient, parameter, m, v);
    return draft_cuda_launched("updating the parameters", err);
}
