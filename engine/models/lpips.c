/*
 * d(a, b) = sum over stages l of the mean over positions of  sum_c w_lc (f_lc(a) - f_lc(b))^2,
 * f_l the ReLU output divided by its channel norm (+ 1e-10). With s = sqrt(w / positions) it is the plain squared
 * distance of s f(a) and s f(b): one vector per image, all stages behind each other, then all pairs of vectors.
 */
#include "models/lpips.h"

#include <math.h>
#include <stdio.h>

#include "models/alexnet.h"
#include "ops/ops.h"
#include "tensor/safetensors.h"

struct draft_lpips {
    struct alexnet net;
    struct draft_tensor linear[ALEXNET_STAGES]; /* [channels], not negative */
};

static const float MEAN[3] = {-.030f, -.088f, -.188f}, STD[3] = {.458f, .448f, .450f};

static bool load_net(struct draft_loader *loader, struct draft_lpips **lpips)
{
    *lpips = draft_load_alloc(loader, sizeof **lpips);
    if (*lpips == NULL)
        return false;
    draft_alexnet_load(loader, &(*lpips)->net);
    for (int i = 0; i < ALEXNET_STAGES; i++)
        (*lpips)->linear[i] =
            (struct draft_tensor){.dtype = DRAFT_F32,
                                  .rank = 1,
                                  .dim = {draft_alexnet_channels[i]},
                                  .data = draft_load_alloc(loader, (size_t)draft_alexnet_channels[i] * sizeof(float))};
    return loader->error.code == DRAFT_OK;
}

struct draft_lpips *draft_lpips_open(const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/lin.safetensors", folder) >= (int)sizeof path) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "the LPIPS folder has too long a name");
        return NULL;
    }
    struct draft_weights *weights = draft_weights_open(folder, "alexnet", arena, err);
    if (weights == NULL)
        return NULL;
    struct draft_loader loader;
    struct draft_lpips *lpips;
    draft_loader_init(&loader, weights, arena, NULL);
    if (load_net(&loader, &lpips)) {
        draft_weights_leave(weights, "classifier."); /* of the whole AlexNet; LPIPS looks at features */
        draft_weights_finish(weights, (const char *const[]){NULL}, &loader.error);
    }
    draft_weights_close(weights);
    if (loader.error.code != DRAFT_OK) {
        draft_fail(err, loader.error.code, "%s", loader.error.message);
        return NULL;
    }
    return draft_lpips_load_linear(lpips, path, err) ? lpips : NULL;
}

static bool take_linear(const struct draft_safetensors *file, const char *path, int stage, float *out,
                        struct draft_error *err)
{
    char name[32], found[160];
    const int64_t channels = draft_alexnet_channels[stage];
    snprintf(name, sizeof name, "lin%d.model.1.weight", stage);
    const struct draft_safetensors_entry *entry = draft_safetensors_find(file, name);
    if (entry == NULL)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: no tensor %s, expected one of shape [1, %d, 1, 1]", path,
                          name, (int)channels);
    if (entry->rank != 4 || entry->dim[0] != 1 || entry->dim[1] != channels || entry->dim[2] != 1 || entry->dim[3] != 1)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "%s: %s is %s, expected [1, %d, 1, 1]", path, name,
                          draft_shape_text(entry->rank, entry->dim, found, sizeof found), (int)channels);
    if (!draft_safetensors_to_f32(entry, out, err))
        return false;
    for (int64_t c = 0; c < channels; c++)
        if (!isfinite(out[c]) || out[c] < 0)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                              "%s: %s holds %g, expected finite numbers that are not negative", path, name,
                              (double)out[c]);
    return true;
}

bool draft_lpips_load_linear(struct draft_lpips *lpips, const char *path, struct draft_error *err)
{
    struct draft_safetensors *file = draft_safetensors_open(path, err);
    bool ok = file != NULL;
    for (int i = 0; i < ALEXNET_STAGES && ok; i++)
        ok = take_linear(file, path, i, draft_f32(&lpips->linear[i]), err);
    draft_safetensors_close(file);
    return ok;
}

/* x [1, h, w, 3] into the vector's places; `vector` NULL: only counts. Returns how many numbers there are. */
static int64_t describe(struct draft_graph *g, struct draft_lpips *lpips, struct draft_tensor *x,
                        struct draft_tensor *vector)
{
    struct draft_tensor *stage[ALEXNET_STAGES];
    int64_t length = 0;
    x = enter(g, draft_normalize_channels(g, x, MEAN, STD)); /* [1, h, w, 3] */
    if (!draft_alexnet_forward(g, &lpips->net, x, stage))
        return 0;
    for (int i = 0; i < ALEXNET_STAGES && draft_graph_ok(g); i++) {
        int64_t count = draft_tensor_count(stage[i]);
        if (vector != NULL) {
            struct draft_tensor *part = draft_lpips_stage(g, stage[i], &lpips->linear[i]); /* [1, count] */
            struct draft_tensor *place = draft_slice_batch(g, vector, length, count);
            if (place != NULL)
                draft_copy_values(g, place, part);
        }
        length += count;
    }
    return length;
}

/* Of images [n, h, w, 3], one at a time: their vectors [n, length]. */
static struct draft_tensor *describe_all(struct draft_graph *g, struct draft_lpips *lpips, struct draft_tensor *images)
{
    const int64_t n = images->dim[0];
    struct draft_mark mark = draft_scope_begin(g);
    const int64_t length = n > 0 ? describe(g, lpips, draft_slice_batch(g, images, 0, 1), NULL) : 0;
    draft_scope_end(g, mark, NULL);
    struct draft_tensor *vectors = draft_new(g, DRAFT_F32, 2, (int64_t[]){n, length});
    for (int64_t i = 0; i < n && draft_graph_ok(g); i++) {
        mark = draft_scope_begin(g);
        struct draft_tensor *row = draft_slice_batch(g, vectors, i, 1);
        describe(g, lpips, draft_slice_batch(g, images, i, 1), draft_reshape(g, row, 1, &length));
        draft_scope_end(g, mark, NULL);
    }
    return vectors;
}

bool draft_lpips_pairs(struct draft_graph *g, struct draft_lpips *lpips, struct draft_tensor *images, double *distance)
{
    if (!draft_graph_ok(g))
        return false;
    const int64_t pairs = images->dim[0] * images->dim[0];
    bool was = draft_no_grad(g);
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *vectors = describe_all(g, lpips, images);
    const float *squares = vectors != NULL ? draft_read(g, draft_pair_distances(g, vectors)) : NULL;
    for (int64_t i = 0; squares != NULL && i < pairs; i++)
        distance[i] = squares[i];
    draft_scope_end(g, mark, NULL);
    g->recording = was;
    return draft_graph_ok(g);
}

double draft_lpips_mean_pairwise(const double *distance, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            sum += distance[i * n + j];
    return n > 1 ? sum / (0.5 * n * (n - 1)) : 0;
}
