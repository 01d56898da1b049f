/* interpolate(bicubic, antialias): <i>/input -> <i>/output, <i>/d_output -> <i>/d_input. */
#include <stdio.h>
#include <stdlib.h>

#include "golden.h"

static void one(struct golden *t, const struct draft_safetensors *file, int i)
{
    char name[4][32];
    static const char *const PART[] = {"input", "output", "d_output", "d_input"};
    for (int k = 0; k < 4; k++)
        snprintf(name[k], sizeof name[k], "%d/%s", i, PART[k]);
    const struct draft_safetensors_entry *output = draft_safetensors_find(file, name[1]);
    draft_graph_reset(&t->g, NULL);
    struct draft_tensor *x = golden_input(t, file, name[0]);
    if (x == NULL || output == NULL || output->rank != 4) {
        golden_fail(t, "%s: the case is not complete", name[1]);
        return;
    }
    x->needs_grad = true;
    struct draft_tensor *y = draft_resize_bicubic(&t->g, x, output->dim[2], output->dim[3]);
    if (!golden_ok(t))
        return;
    golden_compare(t, file, name[1], y);
    float *seed = golden_numbers(t, file, name[2], NULL);
    if (seed != NULL)
        draft_graph_backward(&t->g, y, seed);
    free(seed);
    if (golden_ok(t))
        golden_compare_gradient(t, file, name[3], x);
}

void golden_resize(struct golden *t, const struct draft_safetensors *file)
{
    char name[32];
    for (int i = 0; snprintf(name, sizeof name, "%d/input", i) && draft_safetensors_find(file, name) != NULL; i++)
        one(t, file, i);
}
