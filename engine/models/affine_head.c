#include "models/affine_head.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int PLACES[] = {0, 2, 4, 6, 7};
enum { LAYERS = sizeof PLACES / sizeof *PLACES };

/* Numbers that a layer gives, by its weight's shape; 1 of the last one, and when nothing sensible is there (loading
 * then names what is wrong). */
static int64_t outputs(const struct draft_loader *loader, int layer, const char *module)
{
    char key[96];
    int rank;
    int64_t dim[8];
    snprintf(key, sizeof key, "%s.weight", module);
    if (layer + 1 == LAYERS || !draft_weights_shape(loader->weights, key, &rank, dim) || rank != 2 || dim[0] < 1)
        return 1;
    return dim[0];
}

/* With its values, which are multiplied here. */
static void load_layer(struct draft_loader *loader, struct draft_linear_layer *layer, int64_t in, int64_t out,
                       const char *module)
{
    char key[96];
    snprintf(key, sizeof key, "%s.weight", module);
    layer->weight = draft_load_tensor(loader, key, 2, (int64_t[]){out, in});
    snprintf(key, sizeof key, "%s.bias", module);
    layer->bias = draft_load_tensor(loader, key, 1, &out);
}

/* (v, c) of x -> v . x + c becomes that of x -> v . (W x + b) + c */
static bool compose(const struct draft_linear_layer *layer, double **v, double *c)
{
    int64_t out = layer->weight->dim[0], in = layer->weight->dim[1];
    double *next = calloc((size_t)in, sizeof *next);
    if (next == NULL)
        return false;
    for (int64_t o = 0; o < out; o++) {
        const float *row = draft_f32(layer->weight) + o * in;
        *c += (*v)[o] * (double)draft_f32(layer->bias)[o];
        for (int64_t i = 0; i < in; i++)
            next[i] += (*v)[o] * (double)row[i];
    }
    free(*v);
    *v = next;
    return true;
}

static struct draft_tensor *constant(struct draft_loader *loader, int rank, int64_t n, const double *values)
{
    struct draft_tensor *tensor = draft_load_alloc(loader, sizeof *tensor);
    float *data = draft_load_alloc(loader, (size_t)n * sizeof *data);
    if (data == NULL)
        return NULL;
    *tensor = (struct draft_tensor){.dtype = DRAFT_F32, .rank = rank, .dim = {1, n}, .data = data};
    for (int64_t i = 0; i < n; i++) {
        data[i] = (float)values[i];
        if (!isfinite(data[i]))
            draft_fail(&loader->error, DRAFT_NON_FINITE, "the head's layers multiplied are not finite");
    }
    return tensor;
}

void draft_load_affine_head(struct draft_loader *loader, struct draft_affine_head *head, int64_t width,
                            const char *prefix, double gain, double shift)
{
    struct draft_linear_layer layer[LAYERS];
    char module[80];
    for (int i = 0; i < LAYERS; i++) {
        snprintf(module, sizeof module, "%slayers.%d", prefix, PLACES[i]);
        int64_t out = outputs(loader, i, module);
        load_layer(loader, &layer[i], i == 0 ? width : layer[i - 1].weight->dim[0], out, module);
        if (loader->error.code != DRAFT_OK)
            return;
    }
    double *v = malloc(sizeof *v), c = shift;
    bool ok = v != NULL;
    if (ok)
        *v = gain;
    for (int i = LAYERS - 1; i >= 0 && ok; i--)
        ok = compose(&layer[i], &v, &c);
    if (ok) {
        head->weight = constant(loader, 2, width, v);
        head->bias = constant(loader, 1, 1, &c);
    } else {
        draft_fail(&loader->error, DRAFT_OUT_OF_MEMORY, "out of memory for a head of %d layers", LAYERS);
    }
    free(v);
}
