/*
 * The optimizer's two calls. The numbers of an update are read on the device, where they are sent before the kernels: a
 * captured graph of the kernels would serve every step.
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
static struct optimizer *send(struct draft_backend *backend, int64_t n, const struct draft_cuda_adamw_step *at,
                              struct draft_error *err)
{
    struct optimizer *on_device = backend->workspace;
    if (scratch_offset() + draft_cuda_gradient_norm_scratch(n) > DRAFT_CUDA_WORKSPACE) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "%lld parameters are more than the CUDA backend trains", (long long)n);
        return NULL;
    }
    return draft_backend_kind(backend)->upload(backend, &on_device->at, at, sizeof *at, err) ? on_device : NULL;
}

static void measure(struct draft_backend *backend, int64_t n, const float *gradient, struct optimizer *on_device)
{
    draft_cuda_gradient_norm(backend->stream, n, &on_device->at, gradient, &on_device->norm,
                             (char *)on_device + scratch_offset());
}

bool draft_cuda_measure_gradient(struct draft_backend *backend, int64_t n, const float *gradient, double *norm,
                                 struct draft_error *err)
{
    const struct draft_cuda_adamw_step at = {.max_norm = INFINITY};
    struct optimizer *on_device = send(backend, n, &at, err);
    if (on_device == NULL)
        return false;
    measure(backend, n, gradient, on_device);
    return draft_cuda_launched("measuring the gradient", err) &&
           draft_backend_kind(backend)->download(backend, norm, &on_device->norm.norm, sizeof *norm, err);
}

bool draft_cuda_update(struct draft_backend *backend, int64_t n, const struct draft_update *u, const float *gradient,
                       float *parameter, float *m, float *v, struct draft_error *err)
{
    const struct draft_cuda_adamw_step at = {.max_norm = u->max_norm,
                                             .keep = u->keep,
                                             .step = u->step,
                                             .root2 = u->root2,
                                             .epsilon = u->epsilon,
                                             .beta2 = u->beta2,
                                             .new1 = u->new1,
                                             .new2 = u->new2};
    struct optimizer *on_device = send(backend, n, &at, err);
    if (on_device == NULL)
        return false;
    measure(backend, n, gradient, on_device);
    draft_cuda_adamw(backend->stream, n, &on_device->at, &on_device->norm, gradient, parameter, m, v, NULL);
    return draft_cuda_launched("updating the parameters", err);
}
