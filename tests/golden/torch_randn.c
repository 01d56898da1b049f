/* <seed>/<shape> -> what torch.randn gives for it. */
#include <stdlib.h>

#include "base/rng.h"
#include "golden.h"

/* Single numbers may differ in the last bit or two: PyTorch's vectorised logarithm and cosine are not libm's. */
static const double BOUND = 1e-6;

void golden_torch_randn(struct golden *t, const struct draft_safetensors *file)
{
    for (int i = 0; i < draft_safetensors_count(file); i++) {
        const struct draft_safetensors_entry *entry = draft_safetensors_at(file, i);
        size_t n = entry->bytes / sizeof(float);
        float *ref = malloc(n * sizeof *ref + 1), *ours = malloc(n * sizeof *ours + 1);
        if (ref != NULL && ours != NULL && draft_safetensors_to_f32(entry, ref, &t->error)) {
            draft_torch_randn(strtoull(entry->name, NULL, 10), ours, n);
            golden_row(t, GOLDEN_FORWARD, golden_relative(ours, ref, (int64_t)n), BOUND, "%s", entry->name);
        }
        free(ref);
        free(ours);
        if (!golden_ok(t))
            return;
    }
}
