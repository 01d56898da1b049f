/* ids, pixels -> hidden states, embeddings, score; d_score -> d_pixels. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "golden.h"
#include "models/clip.h"

static struct draft_tensor *read_ids(struct golden *t, const struct draft_safetensors *file)
{
    int64_t *ids, count;
    if (!golden_integers(t, file, "ids", &ids, &count))
        return NULL;
    const struct draft_safetensors_entry *entry = draft_safetensors_find(file, "ids");
    struct draft_tensor *out = entry->rank == 2 ? draft_new(&t->g, DRAFT_I32, 2, entry->dim) : NULL;
    for (int64_t i = 0; i < count && out != NULL; i++)
        ((int32_t *)out->data)[i] = (int32_t)ids[i];
    free(ids);
    return out;
}

/* The fixture's embeddings have length 1. Returns a normalised copy in the step arena. */
static struct draft_tensor *normalised(struct golden *t, const struct draft_tensor *x)
{
    struct draft_tensor *out = draft_new(&t->g, DRAFT_F32, 2, x->dim);
    int64_t n = x->dim[0], width = x->dim[1];
    const float *in = draft_read(&t->g, x);
    float *to = draft_write(&t->g, out);
    for (int64_t i = 0; i < n && in != NULL && to != NULL; i++) {
        const float *row = in + i * width;
        double square = 0;
        for (int64_t k = 0; k < width; k++)
            square += (double)row[k] * row[k];
        for (int64_t k = 0; k < width; k++)
            to[i * width + k] = (float)(row[k] / sqrt(square));
    }
    return to != NULL && draft_written(&t->g, out, to) ? out : NULL;
}

/*
 * The recorded score was computed with a logit_scale that the float16 weights beside it hold rounded (2.3 became
 * 2.30078), which changes score and d_pixels by a common factor. The factor is read back from the recording: score over
 * cosine of its own embeddings. It must be what rounding to float16 explains, and ours must be exp of the stored value.
 */
static double recorded_scale(struct golden *t, const struct draft_safetensors *file)
{
    int64_t n = 0, count = 0;
    double scale = NAN;
    float *image = golden_numbers(t, file, "image_embeds", &count),
          *text = golden_numbers(t, file, "text_embeds", NULL);
    float *score = golden_numbers(t, file, "score", &n);
    if (image != NULL && text != NULL && score != NULL && n > 0) {
        double dot_score = 0, dot_dot = 0;
        for (int64_t i = 0; i < n; i++) {
            double dot = 0;
            for (int64_t k = 0; k < count / n; k++)
                dot += (double)image[i * (count / n) + k] * text[i * (count / n) + k];
            dot_score += dot * score[i];
            dot_dot += dot * dot;
        }
        scale = dot_score / dot_dot;
    }
    free(image);
    free(text);
    free(score);
    return scale;
}

static double stored_scale(struct golden *t, const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    struct draft_safetensors *file = draft_safetensors_open(path, &t->error);
    float *value = file != NULL ? golden_numbers(t, file, "logit_scale", NULL) : NULL;
    double scale = value != NULL ? exp(*value) : NAN;
    free(value);
    draft_safetensors_close(file);
    return scale;
}

static void score(struct golden *t, const struct draft_clip *clip, const struct draft_safetensors *file, double factor)
{
    struct draft_graph *g = &t->g;
    struct draft_tensor *ids = read_ids(t, file), *pixels = golden_input(t, file, "pixels"), *hidden;
    if (ids == NULL || pixels == NULL)
        return;
    pixels->needs_grad = true;
    struct draft_tensor *text_hidden = draft_clip_text_forward(g, draft_clip_text_tower(clip), ids);
    struct draft_tensor *text = draft_clip_text_embed(g, clip, ids);
    struct draft_tensor *image = draft_clip_image_embed(g, clip, pixels, &hidden);
    struct draft_tensor *out = draft_axpby(g, (float)factor, draft_clip_score(g, clip, image, text), 0, NULL);
    if (!golden_ok(t))
        return;
    golden_compare(t, file, "text_hidden", text_hidden);
    golden_compare(t, file, "text_embeds", normalised(t, text));
    golden_compare(t, file, "vision_hidden", hidden);
    golden_compare(t, file, "image_embeds", normalised(t, image));
    golden_compare(t, file, "score", out);
    float *seed = golden_numbers(t, file, "d_score", NULL);
    if (seed != NULL)
        draft_graph_backward(g, out, seed);
    free(seed);
    if (golden_ok(t))
        golden_compare_gradient(t, file, "d_pixels", pixels);
}

void golden_clip(struct golden *t, const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    struct draft_safetensors *file = NULL;
    struct draft_clip *clip = draft_clip_open(folder, t->weights, &t->error);
    if (clip != NULL)
        file = draft_safetensors_open(path, &t->error);
    if (golden_ok(t)) {
        double recorded = recorded_scale(t, file), stored = stored_scale(t, folder);
        golden_row(t, GOLDEN_OTHER, fabs(log(recorded / stored)), 0x1p-10,
                   "logit_scale: recorded beside stored (float16: within 2^-10 from 2 to 4)");
        score(t, clip, file, recorded / stored);
    }
    draft_safetensors_close(file);
}

/* A CLIPTextModel by itself: ids -> text_hidden. */
void golden_clip_text(struct golden *t, const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    struct draft_safetensors *file = NULL;
    struct draft_clip_text *text = draft_clip_text_open(folder, t->weights, &t->error);
    if (text != NULL)
        file = draft_safetensors_open(path, &t->error);
    struct draft_tensor *ids = golden_ok(t) ? read_ids(t, file) : NULL;
    if (ids != NULL) {
        struct draft_tensor *hidden = draft_clip_text_forward(&t->g, text, ids);
        if (golden_ok(t))
            golden_compare(t, file, "text_hidden", hidden);
    }
    draft_safetensors_close(file);
}
