#include "train/adamw.h"

#include <math.h>

struct draft_adamw *draft_adamw_create(const struct draft_trained *trained, struct draft_arena *arena,
                                       struct draft_error *err)
{
    struct draft_adamw *opt = draft_arena_alloc(arena, sizeof *opt);
    if (!opt) {
        draft_arena_fail(arena, sizeof *opt, err);
        return NULL;
    }
    *opt = (struct draft_adamw){.count = trained->count,
                                .param = trained->tensor,
                                .backend = trained->backend,
                                .numbers = trained->numbers,
                                .max_norm = INFINITY};
    float **grad = draft_trained_zeros(trained, arena, err);
    if (!grad || !(opt->m = draft_trained_zeros(trained, arena, err)) ||
        !(opt->v = draft_trained_zeros(trained, arena, err)))
        return NULL;
    for (int i = 0; i < opt->count; i++) {
        opt->param[i]->grad = grad[i];
        opt->param[i]->grad_written = false;
    }
    return opt;
}

void draft_adamw_zero_grad(struct draft_adamw *opt)
{
    for (int i = 0; i < opt->count; i++)
        opt->param[i]->grad_written = false;
}

/* Of parameters that nothing was read from this step, the device sees zeros. */
static double norm_on_device(struct draft_adamw *opt)
{
    double norm = NAN;
    bool ok = true;
    for (int i = 0; ok && i < opt->count; i++)
        if (!opt->param[i]->grad_written)
            ok = draft_backend_fill(opt->backend, opt->param[i]->grad, draft_tensor_count(opt->param[i]), 0,
                                    &opt->error);
    if (ok)
        draft_backend_gradient_norm(opt->backend, opt->numbers, opt->param[0]->grad, &norm, &opt->error);
    return norm;
}

double draft_adamw_grad_norm(struct draft_adamw *opt)
{
    if (opt->backend && opt->count > 0)
        return norm_on_device(opt);
    double sum = 0;
    for (int i = 0; i < opt->count; i++) {
        const struct draft_tensor *p = opt->param[i];
        int64_t n = p->grad_written ? draft_tensor_count(p) : 0;
        const float *g = p->grad;
        for (int64_t k = 0; k < n; k++)
            sum += (double)g[k] * g[k];
    }
    return sqrt(sum);
}

void draft_adamw_clip(struct draft_adamw *opt, double norm, double max_norm)
{
    double factor = max_norm / (norm + 1e-6);
    opt->max_norm = max_norm;
    if (factor >= 1 || opt->backend)
        return;
    for (int i = 0; i < opt->count; i++) {
        struct draft_tensor *p = opt->param[i];
        int64_t n = p->grad_written ? draft_tensor_count(p) : 0;
        float *g = p->grad;
        for (int64_t k = 0; k < n; k++)
            g[k] = (float)(g[k] * factor);
    }
}

void draft_adamw_step(struct draft_adamw *opt, const struct draft_adamw_options *o)
{
    opt->updates++;
    double correction1 = 1 - pow(o->beta1, (double)opt->updates);
    double correction2 = 1 - pow(o->beta2, (double)opt->updates);
    float keep = (float)(1 - o->learning_rate * o->weight_decay);
    float step = (float)(o->learning_rate / correction1);
    float root2 = (float)sqrt(correction2), epsilon = (float)o->epsilon;
    float beta2 = (float)o->beta2, new1 = (float)(1 - o->beta1), new2 = (float)(1 - o->beta2);
    if (opt->backend && opt->count > 0) {
        const struct draft_update update = {opt->max_norm, keep, step, root2, epsilon, beta2, new1, new2};
        draft_backend_adamw(opt->backend, opt->numbers, &update, opt->param[0]->grad, draft_f32(opt->param[0]),
                            opt->m[0], opt->v[0], &opt->error);
        return;
    }
    for (int i = 0; i < opt->count; i++) {
        struct draft_tensor *p = opt->param[i];
        if (!p->grad_written)
            continue; /* as torch: a parameter without a gradient is left alone */
        float *x = draft_f32(p), *m = opt->m[i], *v = opt->v[i];
        const float *g = p->grad;
        int64_t n = draft_tensor_count(p);
        for (int64_t k = 0; k < n; k++) {
            m[k] += new1 * (g[k] - m[k]);
            v[k] = beta2 * v[k] + new2 * g[k] * g[k];
            x[k] = x[k] * keep - step * m[k] / (sqrtf(v[k]) / root2 + epsilon);
        }
    }
}

double draft_warmup(double learning_rate, int warmup_steps, int64_t step)
{
    double share = (double)(step + 1) / (warmup_steps + 1);
    return share < 1 ? learning_rate * share : learning_rate;
}
