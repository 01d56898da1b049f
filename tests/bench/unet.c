/* The UNet by itself: sample, context -> output without gradient; with d_output in the case, recorded and walked back
 * into a LoRA, whose values lie beside the case. Command line: part.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/unet.h"
#include "ops/ops.h"
#include "part.h"
#include "train/base_lora.h"

enum { RANK = 32 };

struct run {
    struct bench_part part;
    struct draft_adapter *adapter; /* NULL: no gradient */
    struct draft_unet *unet;
    struct draft_unet_call call;
    double timestep;
    struct draft_tensor *sample, *output;
    float *d_output;
};

/* CASE.safetensors -> CASE.lora.safetensors */
static bool load_lora(struct run *r)
{
    static const char ending[] = ".safetensors";
    char path[4096];
    int stem = (int)(strlen(r->part.case_path) - strlen(ending));
    snprintf(path, sizeof path, "%.*s.lora%s", stem > 0 ? stem : 0, r->part.case_path, ending);
    return draft_lora_continue(path, r->adapter, &r->part.t.error);
}

static bool open_part(void *context)
{
    struct run *r = context;
    struct golden *t = &r->part.t;
    int64_t *timestep, count = 0;
    if (!golden_integers(t, r->part.file, "timestep", &timestep, &count))
        return false;
    r->timestep = (double)timestep[0];
    free(timestep);
    t->g.recording = bench_part_has(&r->part, "d_output");
    if (t->g.recording && (!(r->d_output = golden_numbers(t, r->part.file, "d_output", NULL)) ||
                           !(r->adapter = draft_adapter_create(t->weights, RANK, RANK, 0, &t->error))))
        return false;
    r->unet = draft_unet_open(r->part.model, t->weights, r->adapter, &t->error);
    return r->unet && (!r->adapter || load_lora(r));
}

/* The latent of a guided pair is given once, as training gives it (unet.h). */
static struct draft_tensor *once(struct draft_graph *g, struct draft_tensor *x)
{
    int64_t half = x ? draft_tensor_count(x) / 2 : 0;
    if (!x || x->dim[0] != 2 || memcmp(draft_f32(x), draft_f32(x) + half, (size_t)half * sizeof(float)) != 0)
        return x;
    return draft_slice_batch(g, x, 0, 1);
}

static bool begin(void *context)
{
    struct run *r = context;
    r->sample = once(&r->part.t.g, golden_input(&r->part.t, r->part.file, "sample"));
    r->call.context = golden_input(&r->part.t, r->part.file, "context");
    r->call.t = draft_scalar(&r->part.t.g, r->timestep);
    return r->sample && r->call.context && r->call.t;
}

static bool run(void *context)
{
    struct run *r = context;
    struct draft_graph *g = &r->part.t.g;
    r->output = draft_unet_forward(g, r->unet, r->sample, &r->call);
    return draft_graph_ok(g) && (!r->d_output || draft_graph_backward(g, r->output, r->d_output));
}

static void compare(void *context)
{
    struct run *r = context;
    char name[320];
    bench_part_compare(&r->part, "output", draft_f32(r->output));
    for (int i = 0; r->adapter && i < r->adapter->count; i++) {
        const struct draft_lora *lora = &r->adapter->entry[i].lora;
        snprintf(name, sizeof name, "grad/%s.lora.down.weight", r->adapter->entry[i].module);
        if (!bench_part_has(&r->part, name))
            continue;
        bench_part_compare(&r->part, name, lora->down->grad);
        snprintf(name, sizeof name, "grad/%s.lora.up.weight", r->adapter->entry[i].module);
        bench_part_compare(&r->part, name, lora->up->grad);
    }
}

int main(int argc, char **argv)
{
    struct run r = {.part = {.runs = 0}};
    if (!bench_part_open(&r.part, argc, argv))
        return 1;
    int status = bench_part_time(&r.part, &(struct bench_part_calls){open_part, begin, run, compare, &r});
    free(r.d_output);
    return status;
}
