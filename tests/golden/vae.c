/* latent -> decoded, d_decoded -> d_latent; image -> mean, logvar. */
#include <stdio.h>
#include <stdlib.h>

#include "golden.h"
#include "models/vae.h"

static void decode(struct golden *t, struct draft_vae *vae, const struct draft_safetensors *file)
{
    struct draft_graph *g = &t->g;
    draft_graph_reset(g, NULL);
    struct draft_tensor *latent = golden_input(t, file, "latent");
    if (latent == NULL)
        return;
    latent->needs_grad = true;
    struct draft_tensor *decoded = draft_vae_decode(g, vae, latent);
    if (!golden_ok(t))
        return;
    golden_compare(t, file, "decoded", decoded);
    float *seed = golden_numbers(t, file, "d_decoded", NULL);
    if (seed != NULL)
        draft_graph_backward(g, decoded, seed);
    free(seed);
    if (golden_ok(t))
        golden_compare_gradient(t, file, "d_latent", latent);
}

static void decode_quietly(struct golden *t, struct draft_vae *vae, const struct draft_safetensors *file)
{
    struct draft_graph *g = &t->g;
    draft_graph_reset(g, NULL);
    bool was = draft_no_grad(g);
    struct draft_tensor *latent = golden_input(t, file, "latent");
    struct draft_tensor *decoded = latent != NULL ? draft_vae_decode(g, vae, latent) : NULL;
    if (golden_ok(t))
        golden_compare(t, file, "decoded", decoded);
    g->recording = was;
}

static void encode(struct golden *t, struct draft_vae *vae, const struct draft_safetensors *file)
{
    struct draft_graph *g = &t->g;
    draft_graph_reset(g, NULL);
    bool was = draft_no_grad(g);
    struct draft_tensor *image = golden_input(t, file, "image"), *logvar = NULL;
    struct draft_tensor *mean = image != NULL ? draft_vae_encode(g, vae, image, &logvar) : NULL;
    if (golden_ok(t)) {
        golden_compare(t, file, "mean", mean);
        golden_compare(t, file, "logvar", logvar);
    }
    g->recording = was;
}

void golden_vae(struct golden *t, const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    struct draft_safetensors *file = NULL;
    struct draft_vae *vae = draft_vae_open(folder, t->weights, &t->error);
    if (vae != NULL && draft_vae_open_encoder(vae, &t->error))
        file = draft_safetensors_open(path, &t->error);
    if (golden_ok(t)) {
        if (!t->options->full_size)
            decode(t, vae, file);
        golden_note("recomputed block by block:");
        draft_vae_set_recompute(vae, true);
        decode(t, vae, file);
        golden_note("without gradient:");
        decode_quietly(t, vae, file);
        encode(t, vae, file);
    }
    draft_safetensors_close(file);
}
