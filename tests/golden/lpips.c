/* Six pictures -> all pairwise distances, with a given AlexNet and the file's own linear layers. */
#include <stdlib.h>

#include "golden.h"
#include "models/lpips.h"

void golden_lpips(struct golden *t, const struct draft_safetensors *file)
{
    char folder[4096];
    golden_companion(t, "alexnet.safetensors", "emoji-lpips", folder, sizeof folder);
    struct draft_lpips *lpips = draft_lpips_open(folder, t->weights, &t->error);
    if (lpips != NULL)
        draft_lpips_load_linear(lpips, draft_safetensors_path(file), &t->error);
    struct draft_tensor *images = golden_ok(t) ? golden_input(t, file, "images") : NULL;
    if (images == NULL)
        return;
    int64_t n = images->dim[0], dim[] = {n, n}, one = 1;
    struct draft_tensor *distance = draft_new(&t->g, DRAFT_F32, 2, dim), *mean = draft_new(&t->g, DRAFT_F32, 1, &one);
    double *d = malloc((size_t)(n * n) * sizeof *d);
    if (distance != NULL && mean != NULL && d != NULL && draft_lpips_pairs(&t->g, lpips, images, d)) {
        float *each = draft_write(&t->g, distance), mean_of_all = (float)draft_lpips_mean_pairwise(d, (int)n);
        for (int64_t i = 0; each != NULL && i < n * n; i++)
            each[i] = (float)d[i];
        if (each != NULL && draft_written(&t->g, distance, each))
            golden_give(t, mean, &mean_of_all);
        golden_compare(t, file, "distance", distance);
        golden_compare(t, file, "mean_pairwise", mean);
    }
    golden_ok(t);
    free(d);
}
