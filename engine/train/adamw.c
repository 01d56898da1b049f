#include "train/adamw.h"

#include <math.h>

#include "autograd/replay.h"
#include "backend/backend.h"

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
                                .threads = trained->threads,
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
static bool clear_unwritten(struct draft_adamw *opt)
{
    bool ok = true;
    for (int i = 0; ok && i < opt->count; i++)
        if (!opt->param[i]->grad_written)
            ok = draft_backend_fill(opt->backend, opt->param[i]->grad, draft_tensor_count(opt->param[i]), 0,
                                    &opt->error);
    return ok;
}

static double norm_on_device(struct draft_adamw *opt)
{
    double norm = NAN;
    if (clear_unwritten(opt))
        draft_backend_gradient_norm(opt->backend, opt->numbers, opt->param[0]->grad, &norm, &opt->error);
    return norm;
}

/* --- On the host: pieces of one parameter, on all threads ----------------------------------------------------------
 */

struct squares {
    const float *g;
    int64_t piece;
    double sum[DRAFT_PIECES];
};

static void square_piece(void *context, int64_t begin, int64_t end)
{
    struct squares *squares = context;
    double sum = 0;
    for (int64_t k = begin; k < end; k++)
        sum += (double)squares->g[k] * squares->g[k];
    squares->sum[begin / squares->piece] = sum;
}

struct scaling {
    double factor;
    float *g;
};

static void scale_piece(void *context, int64_t begin, int64_t end)
{
    const struct scaling *scaling = context;
    for (int64_t k = begin; k < end; k++)
        scaling->g[k] = (float)(scaling->g[k] * scaling->factor);
}

struct updating {
    struct draft_update by;
    const float *g;
    float *x, *m, *v;
};

static void update_piece(void *context, int64_t begin, int64_t end)
{
    const struct updating *u = context;
    const struct draft_update *by = &u->by;
    const float *g = u->g;
    float *x = u->x, *m = u->m, *v = u->v;
    for (int64_t k = begin; k < end; k++) {
        m[k] += by->new1 * (g[k] - m[k]);
        v[k] = by->beta2 * v[k] + by->new2 * g[k] * g[k];
        x[k] = x[k] * by->keep - by->step * m[k] / (sqrtf(v[k]) / by->root2 + by->epsilon);
    }
}

double draft_adamw_grad_norm(struct draft_adamw *opt)
{
    if (opt->backend && opt->count > 0)
        return norm_on_device(opt);
    double sum = 0;
    for (int i = 0; i < opt->count; i++) {
        const struct draft_tensor *p = opt->param[i];
        int64_t n = p->grad_written ? draft_tensor_count(p) : 0;
        struct squares squares = {.g = p->grad, .piece = draft_piece(n)};
        draft_backend_pieces(opt->threads, n, square_piece, &squares);
        for (int k = 0; k < DRAFT_PIECES; k++)
            sum += squares.sum[k];
    }
    return sqrt(sum);
}

void draft_adamw_clip(struct draft_adamw *opt, double norm, double max_norm)
{
    struct scaling scaling = {.factor = max_norm / (norm + 1e-6)};
    opt->max_norm = max_norm;
    if (scaling.factor >= 1 || opt->backend)
        return;
    for (int i = 0; i < opt->count; i++) {
        struct draft_tensor *p = opt->param[i];
        scaling.g = p->grad;
        draft_backend_pieces(opt->threads, p->grad_written ? draft_tensor_count(p) : 0, scale_piece, &scaling);
    }
}

/* Of the update that comes after those that are counted. */
static struct draft_update numbers_of(const struct draft_adamw *opt, const struct draft_adamw_options *o,
                                      double max_norm)
{
    double t = (double)(opt->updates + 1), correction1 = 1 - pow(o->beta1, t), correction2 = 1 - pow(o->beta2, t);
    return (struct draft_update){.max_norm = max_norm,
                                 .keep = (float)(1 - o->learning_rate * o->weight_decay),
                                 .step = (float)(o->learning_rate / correction1),
                                 .root2 = (float)sqrt(correction2),
                                 .epsilon = (float)o->epsilon,
                                 .beta2 = (float)o->beta2,
                                 .new1 = (float)(1 - o->beta1),
                                 .new2 = (float)(1 - o->beta2)};
}

static bool launch(struct draft_adamw *opt, const struct draft_guard *guard, struct draft_error *err)
{
    return draft_backend_adamw(opt->backend, opt->numbers, opt->param[0]->grad, draft_f32(opt->param[0]), opt->m[0],
                               opt->v[0], guard, err);
}

static void step_on_host(struct draft_adamw *opt, const struct draft_update *u)
{
    for (int i = 0; i < opt->count; i++) {
        struct draft_tensor *p = opt->param[i];
        struct updating updating = {*u, p->grad, draft_f32(p), opt->m[i], opt->v[i]};
        if (p->grad_written) /* as torch: a parameter without a gradient is left alone */
            draft_backend_pieces(opt->threads, draft_tensor_count(p), update_piece, &updating);
    }
}

void draft_adamw_step(struct draft_adamw *opt, const struct draft_adamw_options *o)
{
    const struct draft_update update = numbers_of(opt, o, opt->max_norm);
    opt->updates++;
    if (!opt->backend || opt->count == 0)
        step_on_host(opt, &update);
    else if (draft_backend_adamw_numbers(opt->backend, &update, &opt->error))
        launch(opt, NULL, &opt->error);
}

struct launched {
    struct draft_adamw *opt;
    const struct draft_guard *guard;
};

static bool replayed(struct draft_graph *g, void *context)
{
    const struct launched *update = context;
    return launch(update->opt, update->guard, &g->error);
}

static bool update_on_device(struct draft_adamw *opt, struct draft_graph *g, const struct draft_update *update,
                             const struct draft_guard *guard)
{
    if (!clear_unwritten(opt) || !draft_backend_adamw_numbers(opt->backend, update, &opt->error))
        return draft_fail(&g->error, opt->error.code, "%s", opt->error.message);
    struct launched work = {opt, guard};
    const struct draft_replay_key key = {
        .name = "the optimizer",
        .number = {(double)opt->numbers, (double)guard->count},
        .address = {opt->param[0]->data, opt->param[0]->grad, opt->m[0], opt->v[0], guard->finite, guard->norm}};
    return draft_replay(g, &key, replayed, &work);
}

bool draft_adamw_update(struct draft_adamw *opt, struct draft_graph *g, const struct draft_adamw_options *o,
                        double max_norm, const struct draft_guard *guard)
{
    const struct draft_update update = numbers_of(opt, o, max_norm);
    if (opt->backend && opt->count > 0)
        return update_on_device(opt, g, &update, guard);
    double norm = draft_adamw_grad_norm(opt);
    bool finite = isfinite(norm);
    for (int64_t i = 0; i < guard->count; i++)
        finite = finite && isfinite(guard->finite[i]);
    if (guard->norm)
        *guard->norm = norm;
    if (finite) {
        draft_adamw_clip(opt, norm, max_norm);
        step_on_host(opt, &update);
    }
    return true;
}

void draft_adamw_settle(struct draft_adamw *opt, bool done)
{
    opt->updates += done;
}

double draft_warmup(double learning_rate, int warmup_steps, int64_t step)
{
    double share = (double)(step + 1) / (warmup_steps + 1);
    return share < 1 ? learning_rate * share : learning_rate;
}
