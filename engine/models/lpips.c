/*
 * d(a, b) = sum over stages l of the mean over positions of  sum_c w_lc (f_lc(a) - f_lc(b))^2,
 * f_l the ReLU output divided by its channel norm (+ 1e-10). With s = sqrt(w / positions) it is the plain squared
 * distance of s f(a) and s f(b): one vector per image, then all pairs of vectors.
 */
#include "models/lpips.h"

#include <math.h>
#include <stdio.h>

#include "models/alexnet.h"
#include "tensor/safetensors.h"

struct draft_lpips {
    struct alexnet net;
    float *linear[ALEXNET_STAGES]; /* [channels], not negative */
};

static const float MEAN[3] = {-.030f, -.088f, -.188f}, STD[3] = {.458f, .448f, .450f};
static const double NORM_EPS = 1e-10;

static bool load_net(struct draft_loader *loader, struct draft_lpips **lpips)
{
    *lpips = draft_load_alloc(loader, sizeof **lpips);
    if (*lpips == NULL)
        return false;
    draft_alexnet_load(loader, &(*lpips)->net);
    for (int i = 0; i < ALEXNET_STAGES; i++)
        (*lpips)->linear[i] = draft_load_alloc(loader, (size_t)draft_alexnet_channels[i] * sizeof(float));
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
        ok = take_linear(file, path, i, lpips->linear[i], err);
    draft_safetensors_close(file);
    return ok;
}

/* One stage of one image, normalised and scaled, into out[positions * channels]. */
static void write_stage(struct draft_graph *g, const struct draft_tensor *x, const float *linear, float *out)
{
    const int64_t channels = x->dim[3], positions = x->dim[1] * x->dim[2];
    const float *feature = draft_read(g, x);
    for (int64_t p = 0; feature != NULL && p < positions; p++, feature += channels, out += channels) {
        double square = 0;
        for (int64_t c = 0; c < channels; c++)
            square += (double)feature[c] * feature[c];
        double norm = sqrt(square) + NORM_EPS;
        for (int64_t c = 0; c < channels; c++)
            out[c] = (float)(feature[c] / norm * sqrt((double)linear[c] / (double)positions));
    }
}

/* x [1, h, w, 3] -> its vector; *length numbers. `out` NULL: only counts. */
static bool describe(struct draft_graph *g, const struct draft_lpips *lpips, struct draft_tensor *x, float *out,
                     size_t *length)
{
    struct draft_tensor *stage[ALEXNET_STAGES];
    x = draft_normalize_channels(g, x, MEAN, STD); /* [1, h, w, 3] */
    if (!draft_alexnet_forward(g, &lpips->net, x, stage))
        return false;
    *length = 0;
    for (int i = 0; i < ALEXNET_STAGES; i++) {
        if (out != NULL)
            write_stage(g, stage[i], lpips->linear[i], out + *length);
        *length += (size_t)draft_tensor_count(stage[i]);
    }
    return draft_graph_ok(g);
}

static double square_distance(const float *a, const float *b, size_t n)
{
    double sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++) {
            double d = (double)a[i + j] - b[i + j];
            sum[j] += d * d;
        }
    for (; i < n; i++)
        sum[0] += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static bool pairs(struct draft_graph *g, const struct draft_lpips *lpips, struct draft_tensor *images, double *distance)
{
    const int64_t n = images->dim[0];
    size_t length = 0;
    struct draft_mark mark = draft_scope_begin(g);
    if (n == 0 || !describe(g, lpips, draft_slice_batch(g, images, 0, 1), NULL, &length))
        return draft_graph_ok(g);
    draft_scope_end(g, mark, NULL);
    float *row = draft_note(g, (size_t)n * length * sizeof *row); /* vectors [n, length] */
    if (row == NULL)
        return false;
    for (int64_t i = 0; i < n; i++) {
        mark = draft_scope_begin(g);
        if (!describe(g, lpips, draft_slice_batch(g, images, i, 1), row + (size_t)i * length, &length))
            return false;
        draft_scope_end(g, mark, NULL);
    }
    for (int64_t i = 0; i < n; i++) {
        distance[i * n + i] = 0;
        for (int64_t j = 0; j < i; j++)
            distance[i * n + j] = distance[j * n + i] =
                square_distance(row + (size_t)i * length, row + (size_t)j * length, length);
    }
    return true;
}

bool draft_lpips_pairs(struct draft_graph *g, const struct draft_lpips *lpips, struct draft_tensor *images,
                       double *distance)
{
    if (!draft_graph_ok(g))
        return false;
    bool was = draft_no_grad(g);
    struct draft_mark mark = draft_scope_begin(g);
    bool ok = pairs(g, lpips, images, distance);
    draft_scope_end(g, mark, NULL);
    g->recording = was;
    return ok;
}

double draft_lpips_mean_pairwise(const double *distance, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            sum += distance[i * n + j];
    return n > 1 ? sum / (0.5 * n * (n - 1)) : 0;
}
