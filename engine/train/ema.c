#include "train/ema.h"

#include <string.h>

/* On the device, all arrays at once: they lie behind each other there, in the parameters' order and as far apart. */
static bool approach(struct draft_ema *ema, float rate, struct draft_error *err)
{
    const struct draft_trained *of = ema->of;
    return of->count == 0 ||
           draft_backend_approach(of->backend, of->numbers, rate, draft_f32(of->tensor[0]), ema->average[0], err);
}

struct draft_ema *draft_ema_create(const struct draft_trained *trained, double decay, struct draft_arena *arena,
                                   struct draft_error *err)
{
    struct draft_ema *ema = draft_arena_alloc(arena, sizeof *ema);
    if (!ema) {
        draft_arena_fail(arena, sizeof *ema, err);
        return NULL;
    }
    *ema = (struct draft_ema){.of = trained, .decay = decay, .average = draft_trained_zeros(trained, arena, err)};
    if (!ema->average)
        return NULL;
    if (trained->backend)
        return approach(ema, 1, err) ? ema : NULL;
    for (int i = 0; i < trained->count; i++)
        memcpy(ema->average[i], trained->tensor[i]->data,
               (size_t)draft_tensor_count(trained->tensor[i]) * sizeof(float));
    return ema;
}

struct follow {
    float rest;
    const float *x;
    float *average;
};

static void follow_piece(void *context, int64_t begin, int64_t end)
{
    const struct follow *f = context;
    for (int64_t k = begin; k < end; k++)
        f->average[k] -= f->rest * (f->average[k] - f->x[k]);
}

bool draft_ema_update(struct draft_ema *ema, struct draft_error *err)
{
    float rest = (float)(1 - ema->decay);
    if (ema->of->backend)
        return approach(ema, rest, err);
    for (int i = 0; i < ema->of->count; i++) {
        const struct draft_tensor *p = ema->of->tensor[i];
        struct follow follow = {rest, draft_f32(p), ema->average[i]};
        draft_backend_pieces(ema->of->threads, draft_tensor_count(p), follow_piece, &follow);
    }
    return true;
}

bool draft_ema_swap(struct draft_ema *ema, struct draft_backend *backend, struct draft_error *err)
{
    const struct draft_trained *of = ema->of;
    bool on_device = of->backend && of->count > 0; /* where captured work knows the parameters' addresses */
    if (on_device && !draft_backend_exchange(of->backend, of->numbers, draft_f32(of->tensor[0]), ema->average[0], err))
        return false;
    for (int i = 0; i < of->count && !on_device; i++) {
        float *values = draft_f32(of->tensor[i]);
        of->tensor[i]->data = ema->average[i];
        ema->average[i] = values;
    }
    draft_backend_forget_all(backend, of->tensor, of->count);
    return true;
}
