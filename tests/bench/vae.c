/* The VAE's decoder by itself: latent -> picture; with d_decoded in the case, and its gradient to the latent. Command
 * line: part.h. */
#include <stdlib.h>

#include "models/vae.h"
#include "part.h"

struct run {
    struct bench_part part;
    struct draft_vae *vae;
    struct draft_tensor *latent, *decoded;
    float *d_decoded;
};

static bool open_part(void *context)
{
    struct run *r = context;
    struct golden *t = &r->part.t;
    t->g.recording = bench_part_has(&r->part, "d_decoded");
    if (t->g.recording && !(r->d_decoded = golden_numbers(t, r->part.file, "d_decoded", NULL)))
        return false;
    return (r->vae = draft_vae_open(r->part.model, t->weights, &t->error)) != NULL;
}

static bool begin(void *context)
{
    struct run *r = context;
    if (!(r->latent = golden_input(&r->part.t, r->part.file, "latent")))
        return false;
    r->latent->needs_grad = r->part.t.g.recording;
    return true;
}

static bool run(void *context)
{
    struct run *r = context;
    struct draft_graph *g = &r->part.t.g;
    r->decoded = draft_vae_decode(g, r->vae, r->latent);
    return draft_graph_ok(g) && (!r->d_decoded || draft_graph_backward(g, r->decoded, r->d_decoded));
}

static void compare(void *context)
{
    struct run *r = context;
    bench_part_compare(&r->part, "decoded", draft_f32(r->decoded));
    if (r->d_decoded)
        bench_part_compare(&r->part, "d_latent", r->latent->grad);
}

int main(int argc, char **argv)
{
    struct run r = {.part = {.runs = 0}};
    if (!bench_part_open(&r.part, argc, argv))
        return 1;
    int status = bench_part_time(&r.part, &(struct bench_part_calls){open_part, begin, run, compare, &r});
    free(r.d_decoded);
    return status;
}
