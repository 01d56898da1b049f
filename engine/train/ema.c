#include "train/ema.h"

#include <string.h>

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
    for (int i = 0; i < trained->count; i++)
        memcpy(ema->average[i], trained->tensor[i]->data,
               (size_t)draft_tensor_count(trained->tensor[i]) * sizeof(float));
    return ema;
}

void draft_ema_update(struct draft_ema *ema)
{
    float rest = (float)(1 - ema->decay);
    for (int i = 0; i < ema->of->count; i++) {
        const struct draft_tensor *p = ema->of->tensor[i];
        const float *x = draft_f32(p);
        float *average = ema->average[i];
        int64_t n = draft_tensor_count(p);
        for (int64_t k = 0; k < n; k++)
            average[k] -= rest * (average[k] - x[k]);
    }
}

void draft_ema_swap(struct draft_ema *ema, struct draft_backend *backend)
{
    for (int i = 0; i < ema->of->count; i++) {
        struct draft_tensor *p = ema->of->tensor[i];
        float *values = draft_f32(p);
        p->data = ema->average[i];
        ema->average[i] = values;
        draft_backend_forget(backend, p);
    }
}
